"""One valid certificate of every kind and form, and broken instances that must not verify; small and fast."""

import copy

import certify_zoo as zoo
import numpy as np

from fpjax.certify import propose


def models(folder):
    """Cards by name: a mixture, a gradient network, a plain network, and a two-well mixture for guidance."""
    rng = np.random.default_rng(11)
    parts = {
        "mixture": (zoo.MIXTURE, zoo.mixture_tensors(rng, 2, 3, 1, 2), (2,), 2),
        "gradient": (zoo.gradient_layers(), zoo.gradient_tensors(rng, 2, 4, 1), (2,), 1),
        "softmax": (zoo.gradient_layers(softmax=True), zoo.gradient_tensors(rng, 2, 4, 0, softmax=True), (2,), 0),
        "plain": (zoo.plain_layers(1), zoo.plain_tensors(rng, 2, 5, 1, 1, 1.0), (2,), 1),
        "wells": (zoo.MIXTURE, wells(), (1,), 1),
        "conv": (*convolution(rng), (1, 2, 2), 0),
        "convex": (zoo.convex_layers(), zoo.convex_tensors(rng, 2, 3, 1), (2,), 1),
        "patches": (zoo.patch_layers((1, 1, 3), (1, 2)), zoo.patch_tensors(rng, 3), (1, 1, 3), 0),
        "prior": (zoo.guided_prior(), zoo.mixture_tensors(rng, 2, 3, 1, 1), (2,), 1),
    }
    return {name: zoo.write(folder, name, *args) for name, args in parts.items()}


def convolution(rng):
    tensors = {"w": zoo.f32(rng.standard_normal((2, 1, 3, 1))), "b": zoo.f32(rng.standard_normal(2))}
    tensors |= {"v": zoo.f32(0.3 * rng.standard_normal((1, 2, 1, 3)))}
    layers = [
        {"op": "conv", "out": "h", "in": "y", "weight": "w", "bias": "b", "shape": [1, 2, 2]},
        {"op": "elementwise", "out": "a", "in": "h", "fn": "tanh"},
        {"op": "conv", "out": "D", "in": "a", "weight": "v", "shape": [2, 2, 2]},
    ]
    return layers, tensors


def wells():
    """One dimension, modes at -1 and 1; the condition makes both alike, the null condition prefers one."""
    return {
        "means": zoo.f32([[-1.0], [1.0]]),
        "factors": zoo.f32([[[1.0]], [[1.0]]]),
        "variances": zoo.f32([[0.0], [0.0]]),
        "floor": zoo.f32([0.01, 0.01]),
        "logits": zoo.f32([[0.0, 0.5], [0.0, 0.0]]),
    }


def problem(card, condition=0, guidance=1.0, sigma_to=0.4, sigma_from=0.7):
    path, model = propose.load_model(str(card))
    return propose.Problem(path, model, condition, guidance, sigma_to, sigma_from)


def valid(cards):
    """(name, certificate data, card) of certificates that must verify."""
    out = []

    def add(name, certificate):
        out.append((name, certificate.data, certificate.card))

    mixture, gradient, plain, wells_ = (problem(cards[k]) for k in ("mixture", "gradient", "plain", "wells"))
    soft = problem(cards["softmax"])
    x = [0.3, -0.4]
    for p, name in ((mixture, "mixture"), (gradient, "gradient"), (soft, "softmax")):
        add(f"structure {name}", propose.structure(p.card, p.model, [0.1, 0.4, 0.9]))
        add(f"step structure {name}", propose.step_ball(p, x, x, forms=("structure",)))
        add(f"bound everywhere {name}", propose.lipschitz(p))
    convex, patches, prior = problem(cards["convex"]), problem(cards["patches"]), problem(cards["prior"], guidance=7.5)
    for p, name in ((convex, "convex"), (patches, "patches"), (prior, "prior")):
        at = x if p is not patches else [*x, 0.1]
        add(f"structure {name}", propose.structure(p.card, p.model, [0.1, 0.4], [0], p.guidance))
        add(f"step radii {name}", propose.step_ball(p, at, at, forms=("radii",)))
    add("bound multipliers", propose.lipschitz(plain, tight=True))
    add("structure half guidance", propose.structure(mixture.card, mixture.model, [0.1, 0.4], [0], 0.5))
    for form in ("monotone", "radii"):
        add(f"step {form}", propose.step_ball(plain, x, x, forms=(form,)))
        add(f"step {form} slack", propose.step_ball(plain, x, x, forms=(form,), slack=1e-6))
    conv = problem(cards["conv"])
    add("step convolution", propose.step_ball(conv, x + x, x + x, forms=("radii",)))
    given = propose.step_ball(plain, x, x, forms=("radii",)).data
    given = copy.deepcopy(given)
    j = zoo_jacobian(cards["plain"], plain, given["claim"]["centre"])
    given["proof"]["preconditioner"] = [zoo.hexes(row) for row in np.linalg.inv(j)]
    given["claim"]["radius"] = (2 * float.fromhex(given["claim"]["radius"])).hex()
    given["claim"]["uniqueness_radius"] = given["claim"]["radius"]
    out.append(("step radii with A", propose.kernel.seal(given), plain.card))
    for p, name in ((mixture, "mixture"), (plain, "plain")):
        path = [x, x, x]
        add(f"trajectory {name}", propose.trajectory(p.card, p.model, [0.1, 0.4, 0.7], path, 0))
    add("bound everywhere plain", propose.lipschitz(plain))
    add("bound ball", propose.lipschitz(mixture, x, 0.01))
    add("guidance limit ball", propose.guidance_limit(mixture, x, 0.01))
    add("guidance limit everywhere", propose.guidance_limit(gradient, tight=True))
    add("expansion", propose.expansion_witness(expanding(cards), [-0.1], [0.1]))
    folded = problem(cards["wells"], 0, 40.0, 0.1, 0.5)
    add("decrease", propose.decrease_witness(folded, *descent(folded)))
    pair = two_solutions(folded)
    add("two solutions", pair)
    start = [float.fromhex(v) for v in pair.data["claim"]["balls"][0]["centre"]]
    target = [float.fromhex(v) for v in pair.data["claim"]["target"]]
    for form in ("monotone", "radii"):
        add(f"step {form} folded", propose.step_ball(folded, target, start, forms=(form,)))
    add("no solution", propose.no_solution(wells_, [0.0], [2.0], [3.0]))
    flat = problem(cards["mixture"])
    add("no solution 2d", propose.no_solution(flat, [5.0, 5.0], [-1.0, -1.0], [1.0, 1.0]))
    return out


def zoo_jacobian(card, p, centre):
    """F' by differences of the kernel's own midpoints, for a preconditioner."""
    y = np.asarray([float.fromhex(v) for v in centre])

    def f(v):
        return propose.floats(p.step.residual(propose.balls(v), propose.balls(np.zeros_like(y))))

    del card
    return zoo.jacobian(f, y)


def expanding(cards):
    return problem(cards["wells"], 1, 1.0, 0.1, 0.35)


def curve(p, grid):
    zero = [propose.arb(0)]
    return np.asarray([float(p.step.residual([propose.arb(float(v))], zero)[0].mid()) for v in grid])


def descent(p):
    """Two points between which the 1-D map F decreases."""
    grid = np.linspace(-2, 2, 401)
    i = int(np.argmin(np.diff(curve(p, grid))))
    return [grid[i]], [grid[i + 1]]


def two_solutions(p):
    """Two roots of F(y) = t for a t between a local maximum and minimum."""
    grid = np.linspace(-2, 2, 401)
    values = curve(p, grid)
    i = int(np.argmin(np.diff(values)))
    t = (values[i] + values[i + 1]) / 2
    crossings = np.nonzero(np.diff(np.sign(values - t)))[0]
    return propose.non_uniqueness(p, [t], [[grid[crossings[0]]], [grid[crossings[-1] + 1]]])


def false(entries):
    """(name, data, card) of certificates that claim slightly more than is true, each resealed."""
    table = {name: (data, card) for name, data, card in entries}
    out = []

    def add(name, of, edit):
        data, card = copy.deepcopy(table[of][0]), table[of][1]
        edit(data["claim"], data)
        out.append((name, propose.kernel.seal(data), card))

    def scale(key, factor):
        def edit(claim, data):
            claim[key] = (float.fromhex(claim[key]) * factor).hex()

        return edit

    for of in table:
        if of.startswith("step"):
            add(f"{of}: smaller radius", of, scale("radius", 0.3))
            add(f"{of}: more slack", of, lambda c, d: c.update(target_radius=c["radius"]))
        if of.startswith("trajectory"):
            for i in (0, 1):
                add(
                    f"{of}: radius {i}",
                    of,
                    lambda c, d, i=i: c["radii"].__setitem__(i, (float.fromhex(c["radii"][i]) * 0.2).hex()),
                )
        if of.startswith("bound"):
            for key, factor in (("contraction", 0.9), ("lipschitz", 0.9), ("modulus", None)):
                claim = table[of][0]["claim"]
                if claim[key] is not None:

                    def edit(c, d, key=key, factor=factor):
                        v = float.fromhex(c[key])
                        c[key] = (v + 0.01 if factor is None else v * factor).hex()

                    add(f"{of}: {key}", of, edit)
    for form in ("monotone", "radii"):
        add(f"step {form}: everywhere", f"step {form} folded", lambda c, d: c.update(uniqueness_radius="everywhere"))
        add(f"step {form}: wide", f"step {form} folded", lambda c, d: c.update(uniqueness_radius=(1e3).hex()))
    add("structure guidance 1.5", "structure mixture", lambda c, d: c.update(guidance=(1.5).hex()))
    add("structure sigma 0", "structure mixture", lambda c, d: c["levels"].__setitem__(0, (0.0).hex()))
    add("guidance limit", "guidance limit ball", scale("limit", 1.5))
    add("guidance limit everywhere", "guidance limit everywhere", scale("limit", 1.5))
    add("expansion", "expansion", scale("factor", 1.0 + 1e-6))
    add("expansion below 1", "expansion", lambda c, d: c.update(guidance=c["guidance"], factor=(0.5).hex()))
    add("decrease swapped for increase", "decrease", lambda c, d: c.update(points=[[(-2.0).hex()], [(2.0).hex()]]))
    add(
        "one solution twice",
        "two solutions",
        lambda c, d: (
            c["balls"].__setitem__(1, c["balls"][0]),
            d["proof"]["balls"].__setitem__(1, d["proof"]["balls"][0]),
        ),
    )
    add("two balls that meet", "two solutions", lambda c, d: [b.update(radius=(5.0).hex()) for b in c["balls"]])
    add("a solution inside", "no solution", lambda c, d: c.update(lower=[(-3.0).hex()]))
    add("a solution inside 2d", "no solution 2d", lambda c, d: c.update(target=[(0.1).hex(), (0.1).hex()]))
    add("trajectory everywhere", "trajectory plain", lambda c, d: c.update(unique="everywhere"))
    add("form structure of a plain network", "step radii", lambda c, d: d["proof"].update(form="structure"))
    return out
