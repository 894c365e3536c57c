"""The kernel's layers that are monotone by a theorem: gradients of potentials, patches, mixtures, latent trees (T6, E3).

In this room: their values, Jacobians over a ball, and why they are positive semidefinite. They join the table of
layers in enclosure.py.
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
    fits = n % stride == 0 and length % stride == 0 and (n % 2 == 0 or n == 1)
    require(
        fits or not reflected,
        "patches: reflection needs even sides, of which as of the image's the stride is a divisor",
    )
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
    m, e = (
        None if run.radius is None else total([run.model.matrix.eye(n, ZERO), *jacobians]),
        largest([d.e for d in parts]),
    )
    return run.value(out, m, INF if unbounded else largest(covers) * e, 3, all(d.psd for d in parts))


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


# ---- latent trees ----


def merges(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """For each merge, longer side first and columns if they tie: how many rows and columns are joined, and the regions before."""
    found = []
    while height * width > 1:
        down, across = (2, 1) if height > width else (1, 2)
        found.append((down, across, height, width))
        height, width = -(-height // down), -(-width // across)
    return found


def fixed(height: int, width: int, shapes: list) -> list[tuple[int, list]]:
    """For each merge of fixed regions how many there are after it; and for each of its weights (a, b), the regions before it
    that have them, each with the one that it becomes part of."""
    found = []
    require(len(shapes) == len(merges(height, width)), "tree: one tensor for each merge")
    for (down, across, h, w), (a, b) in zip(merges(height, width), shapes, strict=True):
        require((a, b) in ((h, w), (down, across)), "tree: weights of all regions, or of two alike")
        uses, rows, columns = [[] for _ in range(a * b)], -(-h // down), -(-w // across)
        for i in range(h * w):
            uses[i // w % a * b + i % w % b].append((i, i // w // down * columns + i % w // across))
        found.append((rows * columns, uses))
    return found


def slid(height: int, width: int, n: int, shapes: list) -> list[tuple[int, list]]:
    """The same for windows of n*n pixels, wherever they meet the image: a region and the one beside it, and all at last."""
    h, w, down, across, found = height + 2 * (n - 1), width + 2 * (n - 1), 1, 1, []
    for (two, _, _, _), shape in zip(merges(n, n), shapes, strict=False):
        require(shape == ((2, 1) if two == 2 else (1, 2)), "tree: windows share their weights")
        i, j = (down, 0) if two == 2 else (0, across)
        new = [divmod(k, w - j) for k in range((h - i) * (w - j))]
        beside = [[((r + p) * w + c + q, k) for k, (r, c) in enumerate(new)] for p, q in ((0, 0), (i, j))]
        found.append((len(new), beside))
        h, w, down, across = h - i, w - j, down + i, across + j
    return [*found, (1, [[(v, 0) for v in range(h * w)]])]


def tree_parts(run: Run, layer: dict) -> tuple:
    """What a latent tree's tensors say: means, variances, the weights of each step up, the root's logits; the steps, and the
    side of its windows, 1 for fixed regions."""
    key, model, names = ("tree", str(layer)), run.model, [layer["leaf"], *layer["levels"]]
    if key not in model.cache:
        inner, levels = model.shape(layer["means"])[0], []
        means, variances = (balls(model.tensor(layer[k], inner)) for k in ("means", "variances"))
        require(all(v >= 0 for v in variances), "tree: a variance is negative")
        shapes = [(*model.shape(name), 0, 0, 0)[:3] for name in names]
        for name, (a, b, K) in zip(names, shapes, strict=True):
            flat, size = model.tensor(name, a, b, K, inner), K * inner
            require(all(v > 0 for v in flat), "tree: a weight is not positive")
            parts = [model.matrix.of(K, inner, flat[i * size : i * size + size]) for i in range(a * b)]
            levels.append([(m, m.T) for m in parts])
            inner = K
        places, image = [shape[:2] for shape in shapes], tuple(layer["image"])
        root = balls(model.tensor(layer["root"], model.classes + 1, inner))
        n = 2 ** (len(names) // 2) if len(names) > 2 and places[-1] == (1, 1) else 1
        require(n == 1 or len(names) % 2 == 1, "tree: windows need a tensor for each merge, and one more")
        steps = slid(image[0], image[1], n, places) if n > 1 else fixed(image[0], image[1], places)
        model.cache[key] = means, variances, levels, root, steps, n
    return model.cache[key]


def op_tree(run: Run, values: dict, layer: dict) -> Value:
    """The posterior mean of a latent tree (E3): up the tree x_k = log sum_j w_kj exp(x_j), where x_j adds the parts of a
    region, and down again the derivatives of the root's logarithm, which at a pixel are the probabilities r_j of its Gaussians:
    D_i = sum_j r_j (mean_j + variance_j (y_i - mean_j) / (variance_j + s^2)).

    D is the gradient of s^2 log p(y) + |y|^2/2. With |y_i|^2 / 2 s^2 for each of its pixels, what a region's state adds up
    to is convex: at a pixel a convex quadratic, above it logarithms of sums of exponentials of convex functions, and sums.
    Each pixel lies in n^2 windows of n*n pixels, the sum of which counts 1/n^2; those without a pixel do not depend on it.
    """
    y, s2, (h, w) = values["y"], run.sigma * run.sigma, layer["image"]
    means, variances, levels, table, steps, n = tree_parts(run, layer)
    require(h * w == len(y.c), "tree: the image does not fit y")
    wide, K = w + 2 * (n - 1), levels[-1][0][0].shape[0]
    at = [(i // w + n - 1) * wide + i % w + n - 1 for i in range(h * w)]  # where y lies among its windows' pixels
    away = [[p - m for m in means] for p in y.c]
    x = [[ZERO] * len(means)] * ((h + 2 * (n - 1)) * wide)
    for i, row in zip(at, away, strict=True):
        x[i] = [-((v + s2).log() + q * q / (v + s2)) / 2 for q, v in zip(row, variances, strict=True)]
    climbed = []
    for level, (size, uses) in zip(levels, steps, strict=True):
        x, way = climb(run, level, size, uses, x)
        climbed.append(way)
    logits, null = table[run.condition * K : run.condition * K + K], table[-K:]
    if "guidance" in layer:
        logits = [q + run.guidance * (p - q) for p, q in zip(logits, null, strict=True)]
    g = [[v / n**2 for v in softmax([a + b / n**2 for a, b in zip(logits, x[0], strict=True)])]]
    for level, (_, uses), (raised, sums) in reversed(list(zip(levels, steps, climbed, strict=True))):
        g = descend(run, level, uses, raised, sums, g)
    gains = [v / (v + s2) for v in variances]
    pulled = [[m + b * q for m, b, q in zip(means, gains, row, strict=True)] for row in away]
    c = [dot(g[i], to) for i, to in zip(at, pulled, strict=True)]
    if run.radius is None:
        return Value(c, c, None, ZERO, 3, True)
    return run.value(c, run.model.matrix.eye(len(c), ZERO, run.columns), INF, 3, True)  # no bound of J: only its sign


def rows_times(run: Run, rows: list, m) -> list[list[arb]]:
    """Each row times a matrix."""
    (inner, outer), n = m.shape, len(rows)
    run.model.tick(n * inner * outer)
    flat = (run.model.matrix.of(n, inner, (v for row in rows for v in row)) @ m).entries()
    return [flat[i * outer : i * outer + outer] for i in range(n)]


def climb(run: Run, level: list, size: int, uses: list, x: list) -> tuple[list, tuple]:
    """The ``size`` regions above x, each the sum of its parts' log sum_j w_kj exp(x_j); and exp(x - top) and these sums."""
    tops = [max((v.mid() for v in row), key=float) for row in x]
    raised = [[(v - t).exp() for v in row] for row, t in zip(x, tops, strict=True)]
    above, sums = [[ZERO] * level[0][0].shape[0]] * size, []
    for (_, transposed), pairs in zip(level, uses, strict=True):
        sums.append(rows_times(run, [raised[i] for i, _ in pairs], transposed))
        for (i, to), row in zip(pairs, sums[-1], strict=True):
            above[to] = [a + v.log() + tops[i] for a, v in zip(above[to], row, strict=True)]
    return above, (raised, sums)


def descend(run: Run, level: list, uses: list, raised: list, sums: list, g: list) -> list:
    """The derivatives in the regions below from those in the regions above."""
    below = [[ZERO] * len(raised[0])] * len(raised)
    for (m, _), pairs, mine in zip(level, uses, sums, strict=True):
        quotients = [[a / b for a, b in zip(g[to], v, strict=True)] for (_, to), v in zip(pairs, mine, strict=True)]
        down = rows_times(run, quotients, m)
        for (i, _), row in zip(pairs, down, strict=True):
            below[i] = [a + b * c for a, b, c in zip(below[i], raised[i], row, strict=True)]
    return below


PROGRAM, PAIR = listof(anything, 1, MAX_LAYERS), listof(whole(1, 4096), 2)
MIX = dict.fromkeys(("means", "factors", "variances", "floor", "logits"), anything)
TREE = ("means", "variances", "leaf", "root")
OPS |= {
    "logsumexp": (op_logsumexp, KEYS),
    "gradient": (op_gradient, {"in": word("y"), "layers": PROGRAM}),
    "patches": (op_patches, {"in": word("y"), "image": listof(whole(1, 4096), 3), "patch": PAIR, "stride": PAIR,
                             "layers": PROGRAM, "border?": word("reflect")}),
    "tree": (op_tree, {"in": word("y"), "image": PAIR, **dict.fromkeys(TREE, anything), "levels": listof(anything, 0, 64),
                       "guidance?": word("prior")}),
    "mixture": (op_mixture, {"in": word("y"), **MIX, "guidance?": word("prior")}),
}  # fmt: skip
