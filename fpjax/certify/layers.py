"""The kernel's layers that are monotone by a theorem: gradients of potentials, patches, mixtures (T6, E3).

In this room: their values, Jacobians over a ball, and why they are positive semidefinite. They join the table of
layers in enclosure.py. Not in this room: latent trees (trees.py).
"""

from dataclasses import replace

from flint import arb, arb_mat  # pyright: ignore[reportMissingModuleSource]

from fpjax.certify.enclosure import KEYS, OPS, PRIME, Run, Value, constant, gained, share, softmax, total
from fpjax.certify.matrices import INF, ONE, ZERO, balls, dot, largest, upper
from fpjax.certify.reading import MAX_LAYERS, anything, listof, require, whole, word

# ---- gradients of potentials: a list of layers backwards ----


def op_logsumexp(run: Run, values: dict, layer: dict) -> Value:
    """log sum_k exp(x_k): convex and rising in x; its gradient is the softmax."""
    v = run.get(values, layer["in"])
    top = max((x.mid() for x in v.c), key=float)
    c = [sum(((x - top).exp() for x in v.c), ZERO).log() + top]
    if v.bend == 0:
        return constant(c)
    n, (m, e) = len(v.c), gained([share(v.x, k) for k in range(len(v.c))] if v.M is not None else [], v)
    m = None if m is None else m.of(1, n, [ONE] * n) @ m
    return run.value(c, m, arb(n).sqrt() * e, 2 if v.bend <= 2 else 3)


def op_gradient(run: Run, values: dict, layer: dict) -> Value:
    """The gradient in y of the scalar that a list of layers ends in: their operations backwards (PULL).

    Where the scalar is convex (``bend``), its Jacobian is symmetric and positive semidefinite for all y.
    """
    inner, layers = {k: v for k, v in values.items() if v.bend == 0 or k == "y"}, layer["layers"]
    last = run.execute(layers, inner)
    require(last != "" and len(inner[last].c) == 1, "a potential must end in one number")
    pulled = {last: [constant([ONE])]}
    for part in reversed(layers):
        if inner[part["out"]].bend > 0 and part["out"] in pulled:
            require(part["op"] in PULL, f"a potential may not use {part['op']}")
            g = run.add(pulled[part["out"]])
            for key in part["in"] if isinstance(part["in"], list) else [part["in"]]:
                if key in inner and inner[key].bend > 0:
                    pulled.setdefault(key, []).append(PULL[part["op"]](run, inner, {**part, "in": key}, g))
    if "y" not in pulled:
        return constant([ZERO] * len(inner["y"].c))
    return replace(run.add(pulled["y"]), psd=inner[last].bend <= 2)


def pull_affine(run: Run, values: dict, layer: dict, g: Value) -> Value:
    """W^T g."""
    w, size = run.weight(layer)
    return run.linear(w.T, size, g)


def pull_elementwise(run: Run, values: dict, layer: dict, g: Value) -> Value:
    """The derivative's value times g."""
    require(layer["fn"] in PRIME, f"a potential may not use {layer['fn']}")
    return run.product(run.elementwise(values[layer["in"]], PRIME[layer["fn"]]), g)


def pull_logsumexp(run: Run, values: dict, layer: dict, g: Value) -> Value:
    """The softmax times the scalar g."""
    n = len(values[layer["in"]].c)
    copies = run.linear(run.model.matrix.of(n, 1, [ONE] * n), arb(n).sqrt(), g)
    return run.product(run.softmax(values[layer["in"]]), copies)


# (run, values, layer with one operand, adjoint of its output) -> the operand's share
PULL = {
    **dict.fromkeys(("affine", "affine_t", "conv"), pull_affine),
    **dict.fromkeys(("scale", "multiply"), lambda run, values, layer, g: run.gain(g, run.get(values, layer["by"]).c)),
    "add": lambda run, values, layer, g: g,
    "elementwise": pull_elementwise,
    "logsumexp": pull_logsumexp,
}


# ---- patches and mixtures ----


def strip(length: int, n: int, stride: int, reflected: bool) -> list[tuple[arb, list[int]]]:
    """Along one side of an image, the indices of each patch and the patch's weight.

    With reflection the image is continued by its mirror images (even, period 2 length), and each patch and its mirror image,
    which see the same, count once, those at -n/2 and length - n/2, their own mirror images, half. So each pixel has the
    weights of n/stride patches, times stride/n.
    """
    if reflected:
        fits = n % stride == 0 and length % stride == 0 and (n % 2 == 0 or n == 1)
        require(fits, "patches: reflection needs even sides, of which as of the image's the stride is a divisor")
    if not reflected or n == 1:
        return [(ONE, [*range(v, v + n)]) for v in range(0, length - n + 1, stride)]
    first, last, found = -(n // 2), length - n // 2, []
    for v in range(first, last + 1, stride):
        at = [-1 - k if k < 0 else min(k, 2 * length - 1 - k) for k in range(v, v + n)]
        found.append((arb(stride) / (2 * n if v in (first, last) else n), at))
    return found


def op_patches(run: Run, values: dict, layer: dict) -> Value:
    """sum_i w_i P_i^T D(P_i y), P_i cutting patch i out of the image and D a network of its own. Where the sum of the w_i of a
    pixel's patches is at most ``cover``, ||sum_i w_i P_i^T E_i P_i|| <= cover max ||E_i||. At a reflecting border a patch
    has a pixel up to four times, so ||P_i|| <= 2."""
    (c, h, w), (ph, pw), (sh, sw), y = layer["image"], layer["patch"], layer["stride"], values["y"]
    require(c * h * w == len(y.c) and ph <= h and pw <= w, "patches: the image or the patch does not fit y")
    require(run.rows is None, "patches do not take multipliers")
    outer, reflected = {k: v for k, v in values.items() if v.bend == 0}, "border" in layer
    n, parts, jacobians, covers, out = len(y.c), [], [], [ZERO] * len(y.c), [ZERO] * len(y.c)
    inner = run if run.radius is None or not reflected else replace(run, radius=2 * run.radius)
    unbounded = reflected and run.radius is not None and not run.radius.is_finite()  # then only the sign of J is known
    rows, columns = strip(h, ph, sh, reflected), strip(w, pw, sw, reflected)
    for (a, down), (b, across) in ((row, column) for row in rows for column in columns):
        at, weight = [(k * h + i) * w + j for k in range(c) for i in down for j in across], a * b
        d = inner.network(layer["layers"], [y.c[i] for i in at], outer)
        parts.append(d)
        if d.M is not None and not reflected:
            jacobians.append(d.M.placed(at, n))
        elif d.M is not None and not unbounded:
            cut = run.model.matrix.of(len(at), n, (ONE if i == j else ZERO for i in at for j in range(n)))
            jacobians.append(cut.T @ d.M @ cut * weight)
        for p, i in enumerate(at):
            out[i], covers[i] = out[i] + weight * d.c[p], covers[i] + weight
    m = None if run.radius is None else total([run.model.matrix.eye(n, ZERO), *jacobians])
    e = INF if unbounded else largest(covers) * largest([d.e for d in parts])
    return run.value(out, m, e, 3, all(d.psd for d in parts))


def mixture_parts(run: Run, layer: dict) -> tuple:
    """What a mixture's tensors say, and what follows of them without sigma, y or the condition."""
    key, names = ("mixture", str(layer)), ("factors", "means", "variances", "floor", "logits")
    model = run.model
    if key not in model.cache:
        K, d, r = (*model.shape(layer["factors"]), 0, 0, 0)[:3]
        shapes = (K, d, r), (K, d), (K, r), (K,), (model.classes + 1, K)
        flat, *rest = (model.tensor(layer[k], *n) for k, n in zip(names, shapes, strict=True))
        means, variances, floor, table = map(balls, rest)
        require(all(v >= 0 for v in variances + floor), "mixture: a variance or a floor is negative")
        U = [model.matrix.of(d, r, flat[k * d * r : (k + 1) * d * r]) for k in range(K)]
        rows = [means[k * d : k * d + d] for k in range(K)]
        model.cache[key] = K, d, r, [(u, u.T) for u in U], rows, variances, floor, table
    return model.cache[key]


def op_mixture(run: Run, values: dict, layer: dict) -> Value:
    """The posterior mean of a mixture of low-rank Gaussians (E3): D = y + s^2 sum_k pi_k g_k, pi = softmax(l), g_k the
    gradient and H_k = U_k diag(B_k) U_k^T - a_k I the (constant) Hessian of l_k = log p_k(y);
    J_D = I + s^2 (sum_k pi_k H_k + Cov_pi(g)).

    D is the gradient of s^2 log sum_k exp(l_k + |y|^2 / 2 s^2), convex because every exponent is a convex quadratic.
    Guidance of the prior (T11) moves the logits from those without a condition, w times as far.
    """
    y, s2, matrix = values["y"], run.sigma * run.sigma, run.model.matrix
    K, d, r, U, means, variances, floor, table = mixture_parts(run, layer)
    require(d == len(y.c), "mixture: factors must have shape (K, d, r)")
    run.model.tick(K * d * d * (r + 1))
    logits, null = table[run.condition * K : run.condition * K + K], table[-K:]
    if "guidance" in layer:
        logits = [q + run.guidance * (p - q) for p, q in zip(logits, null, strict=True)]
    a, logs, B, g = [1 / (f + s2) for f in floor], [], [], []
    for k in range(K):
        spread = variances[k * r : k * r + r]
        B.append([v * a[k] / (floor[k] + s2 + v) for v in spread])
        away = [p - q for p, q in zip(y.c, means[k], strict=True)]
        t = U[k][1].apply(away)
        bt = [b * x for b, x in zip(B[k], t, strict=True)]
        g.append([p - a[k] * q for p, q in zip(U[k][0].apply(bt), away, strict=True)])
        size = sum(((floor[k] + s2 + v).log() for v in spread), ZERO) - (d - r) * a[k].log()
        logs.append(logits[k] - (size + a[k] * dot(away, away) - dot(bt, t)) / 2)
    p = softmax(logs)
    mean = (arb_mat(1, K, p) * arb_mat(g)).entries()
    c = [u + s2 * v for u, v in zip(y.c, mean, strict=True)]
    if run.radius is None:
        return Value(c, c, None, ZERO, 3, True)
    if not run.radius.is_finite():
        return run.value(c, matrix.eye(d, ZERO, run.columns), INF, 3, True)
    away = matrix.of(K, d, (v - m for row in g for v, m in zip(row, mean, strict=True)))

    def hessian(k, factor=ONE):
        return U[k][0] @ U[k][1].scaled([factor * b for b in B[k]]) + matrix.eye(d, -factor * a[k])

    H0 = total([hessian(k, p[k]) for k in range(K)])
    h = [(hessian(k) - H0).norm() for k in range(K)]
    J = matrix.eye(d) + (H0 + away.T @ away.scaled(p)) * s2
    return run.value(c, J, s2 * mixture_change(p, away.row_norms(), h, run.radius), 3, True)


def mixture_change(p: list[arb], n: list[arb], h: list[arb], radius: arb) -> arb:
    """A bound of the change of sum_k pi_k H_k + Cov_pi(g) from the centre to any point of the ball, given at the centre
    p = pi, n_k >= |g_k - gbar|, gbar = sum p_k g_k; and h_k >= ||H_k - H0||, H0 = sum p_k H_k.

    1. l_k moves by e_k plus what all k share, |e_k| <= x_k = radius n_k + radius^2 h_k / 2; by Jensen and as
       sum p_k (g_k - gbar) = 0, sum p_k exp(e_k) >= low = exp(-radius^2 sum p_k h_k / 2). So pi_k <= P_k = p_k exp(x_k) / low.
    2. |g_k - gbar - H0 (y - c)| <= N_k = n_k + radius h_k; so |g_k - sum_j pi_j g_j| <= S_k = N_k + drift, where drift
       bounds |sum_j pi_j (g_j - gbar - H0 (y - c))|, either by sum |pi_j - p_j| N_j + radius sum p_j h_j or by sum pi_j N_j.
    3. With q_k = g_k - sum_j pi_j g_j the derivative in a direction z, as a quadratic form in u, is
       sum pi_k (<q_k,z> <q_k,u>^2 + <q_k,z> <u,(H_k - H0) u> + 2 <q_k,u> <u,(H_k - H0) z>).
    4. Without derivatives: sum pi_k (H_k - H0) has norm <= sum pi_k h_k, and 0 <= Cov_pi(g) <= sum pi_k N_k^2.
    A sum of pi_k z_k with z_k >= 0 is at most sum P_k z_k, and at most the largest z_k.
    """

    def average(z: list[arb]) -> arb:
        return min(upper(dot(P, z)), largest(z))

    ks, half = range(len(p)), radius * radius / 2
    low, N = (-half * dot(p, h)).exp(), [n[k] + radius * h[k] for k in ks]
    x = [radius * n[k] + half * h[k] for k in ks]
    P = [p[k] * x[k].exp() / low for k in ks]
    high = dot(p, [v.exp() for v in x])
    moved = [p[k] * largest([x[k].exp() / low - 1, 1 - (-x[k]).exp() / high]) for k in ks]
    drift = min(upper(dot(moved, N) + radius * dot(p, h)), average(N))
    S = [v + drift for v in N]
    first = radius * average([S[k] * (S[k] * S[k] + 3 * h[k]) for k in ks])
    second = average([h[k] + N[k] * N[k] for k in ks]) + sum((p[k] * n[k] * n[k] for k in ks), ZERO)
    return min(first, second)


PROGRAM, PAIR = listof(anything, 1, MAX_LAYERS), listof(whole(1, 4096), 2)
MIX = dict.fromkeys(("means", "factors", "variances", "floor", "logits"), anything)
OPS |= {
    "logsumexp": (op_logsumexp, KEYS),
    "gradient": (op_gradient, {"in": word("y"), "layers": PROGRAM}),
    "patches": (op_patches, {"in": word("y"), "image": listof(whole(1, 4096), 3), "patch": PAIR, "stride": PAIR,
                             "layers": PROGRAM, "border?": word("reflect")}),
    "mixture": (op_mixture, {"in": word("y"), **MIX, "guidance?": word("prior")}),
}  # fmt: skip
