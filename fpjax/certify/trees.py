"""The kernel's latent trees (E3): their posterior mean, its Jacobian over a ball, and why that is positive semidefinite.

In this room: a pass up the tree and one down, in balls or in balls with derivatives (forward mode). It joins the table
of layers in enclosure.py. Not in this room: other layers with a theorem of their own (layers.py).
"""

from dataclasses import dataclass

from flint import arb  # pyright: ignore[reportMissingModuleSource]

from fpjax.certify.enclosure import OPS, Run, Value, softmax
from fpjax.certify.layers import PAIR
from fpjax.certify.matrices import INF, ONE, ZERO, ArbMatrix, balls, dot, norm
from fpjax.certify.reading import MAX_ENTRIES, anything, listof, require, word


@dataclass(frozen=True)
class Dual:
    """A number at a point or over a box of y, and its derivatives there in the entries of y."""

    v: arb
    t: list[arb]

    def chain(self, v: arb, slope) -> "Dual":
        """A function of it: the value, and the derivative there."""
        return Dual(v, [slope * x for x in self.t])

    def mid(self) -> arb:
        """The midpoint of the number."""
        return self.v.mid()

    def exp(self) -> "Dual":
        """exp."""
        return self.chain(self.v.exp(), self.v.exp())

    def log(self) -> "Dual":
        """The natural logarithm."""
        return self.chain(self.v.log(), 1 / self.v)

    def __neg__(self) -> "Dual":
        return self.chain(-self.v, -ONE)

    def __add__(self, other) -> "Dual":
        if isinstance(other, Dual):
            return Dual(self.v + other.v, [a + b for a, b in zip(self.t, other.t, strict=True)])
        return Dual(self.v + other, self.t)

    def __sub__(self, other) -> "Dual":
        return self + -other

    def __mul__(self, other) -> "Dual":
        if isinstance(other, Dual):
            return self.chain(self.v * other.v, other.v) + other.chain(ZERO, self.v)
        return self.chain(self.v * other, other)

    def __truediv__(self, other) -> "Dual":
        if isinstance(other, Dual):
            return self * other.chain(1 / other.v, -1 / (other.v * other.v))
        return self.chain(self.v / other, ONE / other)

    __radd__, __rmul__ = __add__, __mul__


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
    """The same for windows of n*n pixels, wherever they meet the image: a region and the one beside it; and all at last, the
    windows cut into blocks that have their weights."""
    h, w, down, across, found = height + 2 * (n - 1), width + 2 * (n - 1), 1, 1, []
    for (two, _, _, _), shape in zip(merges(n, n), shapes, strict=False):
        require(shape == ((2, 1) if two == 2 else (1, 2)), "tree: windows share their weights")
        i, j = (down, 0) if two == 2 else (0, across)
        new = [divmod(k, w - j) for k in range((h - i) * (w - j))]
        beside = [[((r + p) * w + c + q, k) for k, (r, c) in enumerate(new)] for p, q in ((0, 0), (i, j))]
        found.append((len(new), beside))
        h, w, down, across = h - i, w - j, down + i, across + j
    a, b = shapes[-1]
    require(a * b > 0 and h % a == 0 and w % b == 0, "tree: the windows cannot be cut into blocks")
    uses = [[] for _ in range(a * b)]
    for v in range(h * w):
        uses[v // w // (h // a) * b + v % w // (w // b)].append((v, 0))
    return [*found, (1, uses)]


def tree_parts(run: Run, layer: dict) -> tuple:
    """What a latent tree's tensors say: means, variances, the weights of each step up, the root's logits; the steps, and the
    side of its windows, 1 for fixed regions. Matrices are Arb's in both arithmetics: the work is in exponentials."""
    key, model, names = ("tree", str(layer)), run.model, [layer["leaf"], *layer["levels"]]
    if key not in model.cache:
        inner, levels = model.shape(layer["means"])[0], []
        means, variances = (balls(model.tensor(layer[k], inner)) for k in ("means", "variances"))
        require(all(v >= 0 for v in variances), "tree: a variance is negative")
        shapes = [(*model.shape(name), 0, 0, 0)[:3] for name in names]
        for name, (a, b, K) in zip(names, shapes, strict=True):
            flat, size = model.tensor(name, a, b, K, inner), K * inner
            require(all(v > 0 for v in flat), "tree: a weight is not positive")
            parts = [ArbMatrix.of(K, inner, flat[i * size : i * size + size]) for i in range(a * b)]
            levels.append([(m, m.T) for m in parts])
            inner = K
        places, (h, w) = [shape[:2] for shape in shapes], layer["image"]
        root = balls(model.tensor(layer["root"], model.classes + 1, inner))
        n = 2 ** (len(names) // 2) if len(names) > 2 and places[-1][0] * places[-1][1] != 2 else 1
        require(n == 1 or len(names) % 2 == 1, "tree: windows need a tensor for each merge, and one more")
        require((h + 2 * n) * (w + 2 * n) <= MAX_ENTRIES, "tree: the image or its windows are too large for the kernel")
        steps = slid(h, w, n, places) if n > 1 else fixed(h, w, places)
        model.cache[key] = means, variances, levels, root, steps, n
    return model.cache[key]


def op_tree(run: Run, values: dict, layer: dict) -> Value:
    """The posterior mean of a latent tree, the gradient of s^2 log p(y) + |y|^2/2.

    With |y_i|^2 / 2 s^2 for each of its pixels, what a region's state adds up to is convex: at a pixel a convex quadratic,
    above it logarithms of sums of exponentials of convex functions, and sums. Each pixel lies in n^2 windows of n*n pixels,
    the sum of which counts 1/n^2; those without a pixel do not depend on it. So J_D is positive semidefinite for all y.

    Over a ball it is the Jacobian at the centre and what that over the box around the ball differs by.
    """
    y, n = values["y"].c, len(values["y"].c)
    require(layer["image"][0] * layer["image"][1] == n, "tree: the image does not fit y")
    if run.radius is None:
        c = posterior_mean(run, layer, y)
        return Value(c, c, None, ZERO, 3, True)
    _, _, levels, _, steps, _ = tree_parts(run, layer)
    numbers = sum(len(pairs) * sum(m.shape) for level, (_, uses) in zip(levels, steps, strict=True)
                  for (m, _), pairs in zip(level, uses, strict=True))  # fmt: skip
    if not run.radius.is_finite() or run.rows is not None or n * numbers > MAX_ENTRIES:
        return run.value(posterior_mean(run, layer, y), run.model.matrix.eye(n, ZERO, run.columns), INF, 3, True)
    units = [[ONE if i == k else ZERO for k in range(n)] for i in range(n)]
    at = posterior_mean(run, layer, [Dual(v, t) for v, t in zip(y, units, strict=True)])
    box = posterior_mean(run, layer, [Dual(v + arb(0, run.radius), t) for v, t in zip(y, units, strict=True)])
    m, moved = ([t for row in rows for t in row.t] for rows in (at, box))
    e = norm([a - b for a, b in zip(moved, m, strict=True)]) * run.model.matrix.slack
    return run.value([v.v for v in at], run.model.matrix.of(n, n, m), e, 3, True)


def posterior_mean(run: Run, layer: dict, y: list) -> list:
    """Up the tree x_k = log sum_j w_kj exp(x_j), where x_j adds the parts of a region, and down again the derivatives of the
    root's logarithm, which at a pixel are the probabilities r_j of its Gaussians:
    D_i = sum_j r_j (mean_j + variance_j (y_i - mean_j) / (variance_j + s^2)).
    """
    s2, (h, w) = run.sigma * run.sigma, layer["image"]
    means, variances, levels, table, steps, n = tree_parts(run, layer)
    wide, K = w + 2 * (n - 1), levels[-1][0][0].shape[0]
    at = [(i // w + n - 1) * wide + i % w + n - 1 for i in range(h * w)]  # where y lies among its windows' pixels
    away = [[p - m for m in means] for p in y]
    x = [[ZERO * y[0]] * len(means)] * ((h + 2 * (n - 1)) * wide)
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
    return [dot(g[i], to) for i, to in zip(at, pulled, strict=True)]


def rows_times(run: Run, rows: list, m) -> list[list]:
    """Each row times a matrix; derivatives are more rows."""
    (inner, outer), n = m.shape, len(rows)
    if rows and isinstance(rows[0][0], Dual):
        d = len(rows[0][0].t)
        slopes = [[v.t[k] for v in row] for row in rows for k in range(d)]
        found = rows_times(run, [[v.v for v in row] for row in rows] + slopes, m)
        parts = [found[n + i * d : n + i * d + d] for i in range(n)]
        return [
            [Dual(v, [t[j] for t in part]) for j, v in enumerate(row)] for row, part in zip(found, parts, strict=False)
        ]
    run.model.tick(n * inner * outer)
    flat = (ArbMatrix.of(n, inner, (v for row in rows for v in row)) @ m).entries()
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


OPS |= {
    "tree": (op_tree, {"in": word("y"), "image": PAIR, **dict.fromkeys(("means", "variances", "leaf", "root"), anything),
                       "levels": listof(anything, 0, 64), "guidance?": word("prior")}),
}  # fmt: skip
