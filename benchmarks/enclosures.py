"""``python benchmarks/enclosures.py [PART...]``: the kernel's enclosures against its fast path, plain products and others.

fast: Arb against float64 with proved error bounds (fast.py) on networks of growing size: time of the last inequality of
T13 on a ball, and its Z. bounds: global and local Lipschitz bounds of F, against the plain product of the layers' norms.
libraries: J over a ball by the kernel, by mpmath's interval arithmetic and by immrax: width of the entries and time;
immrax where this Python has it. ``python benchmarks/certificates.py page FILE...`` puts the lines into the page.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flint import arb, ctx

import fpjax.certify.check as kernel
from fpjax.certify import enclosure, propose
from proofs_checks import certificates as nets

PRECISION = 128


def balls(values) -> list[arb]:
    return [arb(float(v)) for v in values]


def conv_layers(image, channels: int) -> list[dict]:
    """A residual convolutional network of three 3 x 3 layers."""
    size = [channels, *image[1:]]
    return [
        {"op": "conv", "out": "p", "in": "y", "weight": "w0", "shape": [*image]},
        {"op": "elementwise", "out": "h", "in": "p", "fn": "silu"},
        {"op": "conv", "out": "q", "in": "h", "weight": "w1", "shape": size},
        {"op": "elementwise", "out": "g", "in": "q", "fn": "silu"},
        {"op": "conv", "out": "r", "in": "g", "weight": "w2", "shape": size},
        {"op": "scale", "out": "s", "in": "y", "by": "half"},
        {"op": "add", "out": "D", "in": ["s", "r"]},
    ]


def conv_tensors(rng, image, channels: int) -> dict:
    def w(o, i):
        return nets.f32(0.5 * rng.standard_normal((o, i, 3, 3)) / np.sqrt(9 * i))

    c = image[0]
    return {"w0": w(channels, c), "w1": w(channels, channels), "w2": w(c, channels), "half": nets.f32([0.5])}


def larger(folder: Path) -> dict[str, tuple[Path, int, bool]]:
    """name -> (card, d, whether Arb can take it)."""
    rng = np.random.default_rng(0)
    digits, _ = propose.load_model("digits-plain")
    out = {"digits-plain, d = 64": (digits, 64, True)}

    def add(name, layers, tensors, shape, slow):
        card = nets.write(folder, f"n{len(out)}", layers, tensors, shape)
        out[f"{name}, d = {int(np.prod(shape)):,}"] = (card, int(np.prod(shape)), slow)

    add("convolutions, 4 channels", conv_layers((1, 16, 16), 4), conv_tensors(rng, (1, 16, 16), 4), (1, 16, 16), True)
    add("mixture of 10, rank 8", nets.MIXTURE, nets.mixture_tensors(rng, 256, 10, 8), (1, 16, 16), True)
    add("MLP, 512 wide", nets.plain_layers(1), nets.plain_tensors(rng, 784, 512, 1), (1, 28, 28), False)
    add("MLP, 512 wide", nets.plain_layers(1), nets.plain_tensors(rng, 2048, 512, 1), (2, 32, 32), False)
    return out


def fast(folder: Path, radius: float = 1e-8) -> None:
    for name, (card, d, slow) in larger(folder).items():
        told, times = [], []
        centre = balls(np.random.default_rng(1).standard_normal(d))
        for quick in (True, False) if slow else (True,):
            with ctx.workprec(PRECISION):
                step = kernel.Step(kernel.Model(card, limit_s=3600, fast=quick), 0, 1.0, 0.4, 0.8)
                step.denoise(centre, arb(radius))  # weights and the bounds of their norms are kept
                start = time.perf_counter()
                _, z = kernel.local_bounds(step, centre, arb(radius), "radii")
                times.append(time.perf_counter() - start)
            told.append(f"{'fast' if quick else 'Arb'} {times[-1]:.2f} s, Z = {float(z):.6g}")
        more = f"; {times[1] / times[0]:.0f} times as quick" if slow else "; too large for Arb's path"
        print(f"fast: {name}: {', '.join(told)}{more}", flush=True)


def product(step) -> float:
    """The plain product bound of ||J_D||: norms of layers multiplied along each path, slopes by their largest."""
    model, norms = step.model, {"y": 1.0}
    run = enclosure.Run(model, step.sigma, step.condition, step.guidance, None)
    values = {
        "sigma": enclosure.constant([step.sigma]),
        "y": enclosure.Value(*[balls(np.zeros(model.size))] * 2, bend=1),
    }
    run.execute(model.layers, values)

    def factor(layer):
        if layer["op"] in ("affine", "affine_t", "conv"):
            return float(run.weight(layer)[1])
        if layer["op"] == "elementwise":
            return max(abs(v) for v in enclosure.FUNCTIONS[layer["fn"]][2])
        return max(abs(float(v.mid())) for v in run.get(values, layer["by"]).c)

    def gradient(layers):  # W diag(a) phi(diag(a) W^T y): the factors of the way there, twice
        way = [p for p in layers if p["op"] in ("affine_t", "scale", "multiply")]
        inner = dict(values)
        run.execute(layers, inner)
        return float(np.prod([factor(p) if p["op"] == "affine_t" else max(abs(float(v)) for v in inner[p["by"]].c)
                              for p in way])) ** 2  # fmt: skip

    for layer in model.layers:
        names = layer["in"] if isinstance(layer.get("in"), list) else [layer.get("in")]
        inside = [norms.get(n, 0.0) for n in names]
        if layer["op"] == "gradient":
            norms[layer["out"]] = gradient(layer["layers"])
        else:
            norms[layer["out"]] = sum(inside) * (factor(layer) if sum(inside) and layer["op"] != "add" else 1.0)
    return norms["D"]


def bounds(folder: Path) -> None:
    rng = np.random.default_rng(2)
    digits, _ = propose.load_model("digits-plain")
    cards = {
        "digits-plain, d = 64": digits,
        "residual MLP, d = 16": nets.write(folder, "mlp", nets.plain_layers(2), nets.plain_tensors(rng, 16, 32), (16,)),
        "gradient network, d = 16": nets.write(
            folder, "gradient", nets.gradient_layers(), nets.gradient_tensors(rng, 16, 48), (16,)
        ),
    }
    for name, card in cards.items():
        with ctx.workprec(PRECISION):
            step = kernel.Step(kernel.Model(card, fast=True), 0, 1.0, 0.6, 0.8)
            zero = balls(np.zeros(step.model.size))
            plain = float(step.rho) + float(step.keep) * product(step)
            whole = float(step.lipschitz(step.everywhere())[1])
            tight, _ = propose.multipliers(step, zero, arb.pos_inf(), "lipschitz")
            local = {r: float(step.lipschitz(step.denoise(zero, arb(r)))[1]) for r in (1.0, 0.1, 1e-6)}
        ball = ", ".join(f"{v:.4g} (radius {r:g})" for r, v in local.items())
        print(
            f"bounds: {name}: Lipschitz constant of F, rho = 0.75: plain product {plain:.4g}, enclosure for all y "
            f"{whole:.4g}, with multipliers {tight:.4g} ({plain / tight:.1f} times below the product), on a ball {ball}",
            flush=True,
        )


def immrax_widths():
    """J's widths over the box around the ball by immrax (float64, not rounded outwards), or None where it is missing."""
    try:
        import immrax
    except ImportError:
        print("libraries: immrax is not installed here", flush=True)
        return None
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    import certify_zoo as zoo

    class Jax:
        exp, log, cos, sin, sqrt = jnp.exp, jnp.log, jnp.cos, jnp.sin, jnp.sqrt
        number, array = float, jnp.asarray

    def widths(p, y, radius):
        def f(v):
            return zoo.evaluate(p.layers, p.tensors, v, p.sigma_from, p.condition, Jax)

        box, enclosure_of = immrax.interval(jnp.asarray(y - radius), jnp.asarray(y + radius)), immrax.jacM(f)
        jax.block_until_ready(enclosure_of(box))  # compiled before it is timed
        start = time.perf_counter()
        found = jax.block_until_ready(enclosure_of(box))
        return np.asarray(found[0].width).ravel().tolist(), time.perf_counter() - start

    return widths


def libraries(folder: Path) -> None:
    """Residual MLPs, which all can write: 30 with d = 1 to 3, 5 wide, and 4 with d = 16, 32 wide."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "certify"))
    import certify_problems as problems
    import test_agreement as agreement

    agreement.iv.prec = 100

    def by_kernel(p, y, radius, quick):
        with ctx.workprec(PRECISION):
            step = kernel.Step(kernel.Model(p.card, fast=quick), p.condition, 1.0, 0.0, p.sigma_from)
            step.denoise(balls(y), arb(radius))  # weights and the bounds of their norms are kept
            start = time.perf_counter()
            d = step.denoise(balls(y), arb(radius))
            return [2 * float(v.rad() + d.e) for v in d.M.entries()], time.perf_counter() - start

    def by_mpmath(p, y, radius):
        start = time.perf_counter()
        flat = agreement.mp_enclosure(p, y, radius)
        return [b - a for i, (a, b) in enumerate(flat) if i % (p.d + 1)], time.perf_counter() - start

    ways = {"Arb": lambda *a: by_kernel(*a, False), "fast": lambda *a: by_kernel(*a, True), "mpmath": by_mpmath}
    other = immrax_widths()
    ways |= {} if other is None else {"immrax": other}
    rng = np.random.default_rng(60)
    for d, width, cases in ((0, 5, 30), (16, 32, 4)):
        for radius in (1e-6, 1e-2):
            rows = []
            for _ in range(cases):
                p = problems.random_problem(rng, folder, "plain", d or None, guidance=1.0, gain=1.0)
                if d:
                    p.layers, p.tensors = nets.plain_layers(1), nets.plain_tensors(rng, d, width, 1, p.classes)
                    p.card = nets.write(folder, "m", p.layers, p.tensors, (d,), p.classes)
                y = rng.standard_normal(p.d).round(3)
                rows.append([(sum(found), seconds) for found, seconds in (way(p, y, radius) for way in ways.values())])
            table = np.asarray(rows)
            ratio, seconds = table[:, :, 0] / table[:, 2:3, 0], np.median(table[:, :, 1], axis=0)
            told = ", ".join(
                f"{name} {np.median(ratio[:, i]):.2f} of the width, {1e3 * seconds[i]:.1f} ms"
                for i, name in enumerate(ways)
            )
            size = f"d = {d}" if d else "d = 1 to 3"
            print(f"libraries: {cases} MLPs, {size}, ball of radius {radius:g}: J, medians: {told}", flush=True)


if __name__ == "__main__":
    parts = {"fast": fast, "bounds": bounds, "libraries": libraries}
    with tempfile.TemporaryDirectory() as room:
        for part in sys.argv[1:] or parts:
            parts[part](Path(room))
