"""The kernel's enclosures: a network, its Jacobian and one inversion step over a Euclidean ball, in Arb's ball arithmetic.

In this room: bounds of norms, the operations of a network (format.md), the convexity of potentials, one step F. Not in
this room: reading files (reading.py), what a certificate claims (check.py). Every bound is an Arb ball, and a comparison
of balls is True only where it holds for all their points: a NaN, an overflow or a loose bound therefore ends in "not
proved" and never in a proof. All norms are Euclidean.
"""

from dataclasses import dataclass, field, replace  # noqa: I001

from flint import arb, arb_mat, fmpq  # pyright: ignore[reportMissingModuleSource]

from fpjax.certify.reading import MAX_ENTRIES, MAX_LAYERS, MAX_WORK, Model
from fpjax.certify.reading import anything, listof, record, require, whole, word

INF, ZERO, ONE = arb.pos_inf(), arb(0), arb(1)


# ---- norms: upper bounds, as exact numbers ----


def upper(x: arb) -> arb:
    """An exact upper bound of |x|; infinity where x is not finite."""
    return x.abs_upper() if x.is_finite() else INF


def largest(values) -> arb:
    """An upper bound of the largest |x|."""
    best = ZERO
    for v in map(upper, values):
        best = v if not v <= best else best
    return best


def dot(u: list[arb], v: list[arb]) -> arb:
    """The inner product."""
    return sum((a * b for a, b in zip(u, v, strict=True)), ZERO)


def norm(values: list[arb]) -> arb:
    """An upper bound of the Euclidean (of a matrix's entries: Frobenius) norm."""
    return upper(dot(values, values).nonnegative_part().sqrt())


def norm2(m: arb_mat, squarings: int = 12) -> arb:
    """An upper bound of the spectral norm: ||G||_2 <= ||G^p||_F^(1/p) with G = M^T M and p a power of two."""
    plain = norm(m.entries())
    g = m.transpose() * m if m.nrows() >= m.ncols() else m * m.transpose()
    for _ in range(squarings):
        g = g * g
    top = norm(g.entries())
    if not (top > 0 and top.is_finite()):
        return plain
    return min(upper(top.root(2 ** (squarings + 1))), plain)


def eye(n: int, value: arb = ONE, columns: int = 0) -> arb_mat:
    """value times the identity, with zero columns after it up to ``columns``."""
    m = arb_mat(n, max(n, columns))
    for i in range(n):
        m[i, i] = value
    return m


def rows_scaled(scales: list[arb], m: arb_mat) -> arb_mat:
    """diag(scales) @ m."""
    n = m.ncols()
    return arb_mat(m.nrows(), n, [scales[i // n] * v for i, v in enumerate(m.entries())])


def lambda_min(s: arb_mat) -> arb:
    """A lower bound of the smallest eigenvalue of a symmetric matrix: c - ||c I - S|| for a c near ||S||."""
    c = norm2(s)
    return c - norm2(eye(s.nrows(), c) - s, 16) if c.is_finite() else -INF


# ---- elementwise functions ------------------------------------------------------------------------------------------


def sigmoid(x: arb) -> arb:
    """1 / (1 + exp(-x)), with one occurrence of x: tight on wide balls."""
    return 1 / (1 + (-x).exp())


def softplus(x: arb) -> arb:
    """log(1 + exp(x)), without overflow."""
    return x.exp().log1p() if x.mid() < 0 else x + (-x).exp().log1p()


# name -> (value, derivative, range of the derivative over all reals; None: unbounded). silu' lies in (-0.0999, 1.0999).
FUNCTIONS = {
    "identity": (lambda x: x, lambda x: ONE, (1, 1)),
    "relu": (lambda x: x.max(ZERO), lambda x: ONE if x > 0 else ZERO if x < 0 else arb(0.5, 0.5), (0, 1)),
    "sigmoid": (sigmoid, lambda x: 1 / (2 + 2 * x.cosh()), (0, 0.25)),
    "tanh": (lambda x: x.tanh(), lambda x: 1 / x.cosh() ** 2, (0, 1)),
    "softplus": (softplus, sigmoid, (0, 1)),
    "silu": (lambda x: x * sigmoid(x), lambda x: sigmoid(x) * (1 + x * sigmoid(-x)), (-0.125, 1.125)),
    "exp": (lambda x: x.exp(), lambda x: x.exp(), (0, None)),
    "cos": (lambda x: x.cos(), lambda x: -x.sin(), (-1, 1)),
    "sin": (lambda x: x.sin(), lambda x: x.cos(), (-1, 1)),
    "logcosh": (lambda x: softplus(2 * x) - x - arb.const_log2(), lambda x: x.tanh(), (-1, 1)),
    "square": (lambda x: x * x / 2, lambda x: x, (None, None)),
    "relu2": (lambda x: x.max(ZERO) ** 2 / 2, lambda x: x.max(ZERO), (0, None)),
}
# derivatives that are functions of the table too: convex where that one's slope is nonnegative
PRIME = {"softplus": "sigmoid", "logcosh": "tanh", "square": "identity", "relu2": "relu", "exp": "exp"}


def rises(fn: str) -> bool:
    """Whether a function of the table is nondecreasing."""
    low = FUNCTIONS[fn][2][0]
    return low is not None and low >= 0


def slope(derivative, x: arb, low, high) -> arb:
    """The derivative's enclosure over x, cut to its global range."""
    d = derivative(x) if x.is_finite() else arb(0, INF)
    if low is None or high is None:
        return d if d.is_finite() else arb(0, INF)
    everywhere = arb(low).union(arb(high))
    return d.intersection(everywhere) if d.is_finite() else everywhere


def softmax(logits: list[arb]) -> list[arb]:
    """exp(l_k) / sum_j exp(l_j)."""
    top = max((v.mid() for v in logits), key=float)
    terms = [(v - top).exp() for v in logits]
    return [t / sum(terms, ZERO) for t in terms]


def share(logits: list[arb], k: int) -> arb:
    """Entry k of the softmax over a box of logits, every difference used once; cut to [0, 1]."""
    p = 1 / sum(((b - logits[k]).exp() if j != k else ONE for j, b in enumerate(logits)), ZERO)
    return p.intersection(arb(0.5, 0.5)) if p.is_finite() else arb(0.5, 0.5)


# ---- values and their Jacobians over a ball --------------------------------------------------------------------------


@dataclass
class Value:
    """A named value v(y) for y in the ball B(centre, radius).

    c encloses v(centre), x encloses v over the ball; the Jacobian at every point of the ball is M + E with ||E|| <= e;
    M is None where v does not depend on y, or where only values are asked for. For all y: ``bend`` says that v is free
    of y (0), affine (1), convex in each entry (2) or anything (3); ``psd`` that the Jacobian is symmetric and positive
    semidefinite.
    """

    c: list[arb]
    x: list[arb]
    M: arb_mat | None = None
    e: arb = ZERO
    bend: int = 0
    psd: bool = True


def total(parts: list[arb_mat | None]) -> arb_mat | None:
    """The sum of Jacobians, where None is zero."""
    some = [m for m in parts if m is not None]
    return sum(some[1:], some[0]) if some else None


def gained(ds: list[arb], v: Value) -> tuple[arb_mat | None, arb]:
    """The Jacobian diag(d) (M + E) of v, d anywhere in ``ds``: midpoints stay in M, radii go to the error."""
    if v.M is None:
        return None, ZERO
    if not all(d.is_finite() for d in ds):
        return arb_mat(v.M.nrows(), v.M.ncols()), INF
    rads = [d.rad() for d in ds]
    spread = norm(rows_scaled(rads, v.M).entries())
    if not spread <= arb(0.001):
        spread = min(spread, largest(rads) * norm2(v.M))
    return rows_scaled([d.mid() for d in ds], v.M), spread + largest(ds) * v.e


@dataclass
class Run:
    """One pass through layers: what they see besides named values, and the arithmetic of values.

    radius None: values at the centre only; radius infinite: Jacobians for all y. ``slopes`` collects the slopes of the
    elementwise functions that depend on y. With ``rows`` (a list), each entry of such a function becomes one more
    variable, a column after those of y (of ``columns`` in all): its Jacobian is that column, and ``rows`` collects the
    Jacobian of its argument.
    """

    model: Model
    sigma: arb
    condition: int
    guidance: arb
    radius: arb | None
    rows: list | None = None
    columns: int = 0
    slopes: list[arb] = field(default_factory=list)

    def variable(self, centre: list[arb]) -> Value:
        """y itself."""
        m = None if self.radius is None else eye(len(centre), ONE, self.columns)
        return self.value(centre, m, ZERO, 1, True)

    def network(self, layers: list, centre: list[arb], outer: dict[str, Value] | None = None) -> Value:
        """D of a list of layers at y in the ball around ``centre``."""
        values = {"sigma": Value([self.sigma], [self.sigma]), **(outer or {}), "y": self.variable(centre)}
        out = self.execute(layers, values)
        require(out == "D" and len(values["D"].c) == len(centre), "the last value must be D, of the size of y")
        return values["D"]

    def execute(self, layers: list, values: dict[str, Value]) -> str:
        """Adds the layers' values to ``values``; returns the last name."""
        out = ""
        for layer in layers:
            require(isinstance(layer, dict) and isinstance(layer.get("op"), str), "a layer is not an object with an op")
            require(layer["op"] in OPS, f"unknown op {layer['op'][:20]!r}")
            function, spec = OPS[layer["op"]]
            found = record({"op": anything, "out": anything, **spec})(layer, f"layer {layer['op']}")
            out = found["out"]
            fresh = isinstance(out, str) and out not in values and out not in self.model.tensors
            require(fresh, "a layer's output needs a new name")
            self.model.tick()
            values[out] = function(self, values, found)
        return out

    def get(self, values: dict[str, Value], key, size: int | None = None) -> Value:
        """An earlier value, or a tensor as a constant vector; of that size."""
        require(isinstance(key, str), "a layer's operand must be a name")
        v = values[key] if key in values else constant(self.tensor(key, None))
        require(size in (None, len(v.c)), f"operand {key!r} has size {len(v.c)}, expected {size}")
        return v

    def tensor(self, key, *shape) -> list[arb]:
        """The entries of a tensor of that shape; None stands for any size."""
        return [arb(v) for v in self.model.tensor(key, *shape)]

    def weight(self, layer: dict) -> tuple[arb_mat, arb]:
        """The matrix (out, in) of an affine layer or a convolution, and an upper bound of its spectral norm."""
        shape, image, cache = self.model.shape(layer["weight"]), layer.get("shape"), self.model.cache
        key = layer["op"], layer["weight"], str(image)
        if key not in cache:
            values = self.tensor(layer["weight"], *(None,) * (2 if image is None else 4))
            w = arb_mat(shape[0], shape[1], values) if image is None else convolution(values, shape, image)
            w = w.transpose() if layer["op"] == "affine_t" else w
            small, work = min(w.nrows(), w.ncols()), w.nrows() * w.ncols() * min(w.nrows(), w.ncols())
            self.model.tick(work)
            cache[key] = w, norm2(w, min(8, (MAX_WORK - work) // small**3))
        return cache[key]

    def value(self, c: list[arb], m: arb_mat | None, e: arb, bend: int, psd: bool = False) -> Value:
        """A value whose x follows from c and the Jacobian, by the mean value theorem on the (convex) ball."""
        if m is None or self.radius is None:
            return Value(c, c, None, ZERO, bend, psd)
        if not self.radius.is_finite():
            return Value(c, [arb(0, INF)] * len(c), m, e, bend, psd)
        n, flat = m.ncols(), m.entries()
        reach = [self.radius * (norm(flat[i * n : i * n + n]) + e) for i in range(len(c))]
        return Value(c, [v + arb(0, r) for v, r in zip(c, reach, strict=True)], m, e, bend, psd)

    def linear(self, w: arb_mat, size: arb, v: Value, bias: list[arb] | None = None) -> Value:
        """W v + b, with ||W|| <= size. A convex v stays convex under nonnegative weights only."""
        self.model.tick(w.nrows() * w.ncols() * (1 if v.M is None else v.M.ncols()))
        c = (w * arb_mat(len(v.c), 1, v.c)).entries()
        c = c if bias is None else [x + bias[i * len(bias) // len(c)] for i, x in enumerate(c)]
        if v.bend == 0:
            return constant(c)
        bend = v.bend if v.bend != 2 or all(x >= 0 for x in w.entries()) else 3
        return self.value(c, None if v.M is None else w * v.M, size * v.e, bend)

    def gain(self, v: Value, by: list[arb]) -> Value:
        """diag(by) v; ``by`` of one entry is a scalar and keeps a Jacobian semidefinite if it is not negative."""
        by, even = by * len(v.c) if len(by) == 1 else by, len(by) == 1
        c = [p * q for p, q in zip(by, v.c, strict=True)]
        if v.bend == 0:
            return constant(c)
        rising = all(b >= 0 for b in by)
        bend, psd = v.bend if v.bend != 2 or rising else 3, v.psd and even and rising
        return self.value(c, None if v.M is None else rows_scaled(by, v.M), largest(by) * v.e, bend, psd)

    def add(self, vs: list[Value]) -> Value:
        """The sum of values of one size."""
        c = [sum(column, ZERO) for column in zip(*(v.c for v in vs), strict=True)]
        bend, e = max(v.bend for v in vs), sum((v.e for v in vs), ZERO)
        return self.value(c, total([v.M for v in vs]), e, bend, all(v.psd for v in vs)) if bend else constant(c)

    def product(self, u: Value, v: Value) -> Value:
        """The elementwise product of two values that both may depend on y."""
        if u.bend == 0 or v.bend == 0:
            return self.gain(u, v.c) if v.bend == 0 else self.gain(v, u.c)
        (m, e), (n, f) = gained(v.x, u), gained(u.x, v)
        return self.value([p * q for p, q in zip(u.c, v.c, strict=True)], total([m, n]), e + f, 3)

    def elementwise(self, v: Value, fn: str) -> Value:
        """A function from FUNCTIONS, entry by entry: convex of an affine value, or rising and convex of a convex one."""
        f, derivative, (low, high) = FUNCTIONS[fn]
        c = [f(x) for x in v.c]
        if v.bend == 0:
            return constant(c)
        bend = 2 if fn in PRIME and rises(PRIME[fn]) and (v.bend == 1 or (v.bend == 2 and rises(fn))) else 3
        if v.M is None:
            return self.value(c, None, ZERO, bend)
        ds = [slope(derivative, x, low, high) for x in v.x]
        if self.rows is None:
            self.slopes += ds
            return self.value(c, *gained(ds, v), bend)
        m, start = arb_mat(len(c), self.columns), self.columns - len(self.slopes) + len(self.rows)
        for i in range(len(c)):
            m[i, start + i] = ONE
        flat = v.M.entries()
        self.rows += [flat[i * self.columns : (i + 1) * self.columns] for i in range(len(c))]
        return self.value(c, m, v.e, bend)

    def softmax(self, v: Value) -> Value:
        """The softmax. Its Jacobian diag(p) - p p^T lies between 0 and 1/2, so it is 1/4 + E with ||E|| <= 1/4."""
        c, n = softmax(v.c), len(v.c)
        if v.bend == 0:
            return constant(c)
        if v.M is None:
            return self.value(c, None, ZERO, 3)
        p = [share(v.x, k) for k in range(n)]
        mid, rad = [x.mid() for x in p], [x.rad() for x in p]
        k, spread = eye(n, arb(0.25)), arb(0.25)
        moved = largest(rad) + norm(rad) * (2 * norm(mid) + norm(rad))
        if moved < spread:
            spread = moved
            k = arb_mat(n, n, [a * ((1 if i == j else 0) - b) for i, a in enumerate(mid) for j, b in enumerate(mid)])
        return self.value(c, k * v.M, min(arb(0.5), norm2(k) + spread) * v.e + spread * norm2(v.M), 3)

    def gradient(self, layers: list, values: dict[str, Value]) -> Value:
        """The gradient in y of the scalar that a list of layers ends in: their operations backwards (PULL).

        Where the scalar is convex (``bend``), its Jacobian is symmetric and positive semidefinite for all y.
        """
        last = self.execute(layers, values)
        require(last != "" and len(values[last].c) == 1, "a potential must end in one number")
        pulled = {last: [constant([ONE])]}
        for layer in reversed(layers):
            if values[layer["out"]].bend > 0 and layer["out"] in pulled:
                require(layer["op"] in PULL, f"a potential may not use {layer['op']}")
                for key, part in PULL[layer["op"]](self, values, layer, self.add(pulled[layer["out"]])):
                    if key in values and values[key].bend > 0:
                        pulled.setdefault(key, []).append(part)
        if "y" not in pulled:
            return constant([ZERO] * len(values["y"].c))
        return replace(self.add(pulled["y"]), psd=values[last].bend <= 2)


def constant(c: list[arb]) -> Value:
    """A value that does not depend on y."""
    return Value(c, c)


def convolution(values: list[arb], shape: tuple[int, ...], image: list[int]) -> arb_mat:
    """The matrix of a 2-D convolution (cross-correlation), stride 1, zero padding "same", odd kernel."""
    (n_out, n_in, kh, kw), (channels, height, width) = shape, image
    require(n_in == channels and kh % 2 == 1 and kw % 2 == 1, "a convolution needs its channels and odd kernel sizes")
    pixels = height * width
    require(n_out * pixels * n_in * pixels <= MAX_ENTRIES, "a convolution is too large for the kernel")
    w = arb_mat(n_out * pixels, n_in * pixels)
    for i, value in enumerate(values):
        rest, dx = divmod(i, kw)
        rest, dy = divmod(rest, kh)
        o, c = divmod(rest, n_in)
        for row in range(max(0, kh // 2 - dy), min(height, height + kh // 2 - dy)):
            for col in range(max(0, kw // 2 - dx), min(width, width + kw // 2 - dx)):
                source = (row + dy - kh // 2) * width + col + dx - kw // 2
                w[o * pixels + row * width + col, c * pixels + source] = value
    return w


# ---- the operations of layers: (run, values so far, layer) -> value --------------------------------------------------


def op_edm(run: Run, values: dict, layer: dict) -> Value:
    """The scalars of Karras et al. 2022: c_in, c_skip, c_out, c_noise."""
    std, s = layer["data_std"], run.sigma
    require(type(std) in (int, float) and 0 < std < 1e9, "data_std must be a positive number")
    sd, root = arb(std), (s * s + arb(std) * arb(std)).sqrt()
    scalars = {"in": 1 / root, "skip": sd * sd / (root * root), "out": s * sd / root, "noise": s.log() / 4}
    return constant([scalars[layer["which"]]])


def op_embed(run: Run, values: dict, layer: dict) -> Value:
    """The row of a table that belongs to the condition."""
    table = run.tensor(layer["table"], run.model.classes + 1, None)
    n = len(table) // (run.model.classes + 1)
    return constant(table[run.condition * n : run.condition * n + n])


def op_affine(run: Run, values: dict, layer: dict) -> Value:
    """W x + b; W^T x + b for affine_t; W the matrix of a convolution for conv."""
    (w, size), v, image = run.weight(layer), run.get(values, layer["in"]), layer.get("shape")
    fits = w.ncols() == len(v.c)
    require(fits, f"layer with weight {layer['weight']!r}: input of size {len(v.c)}, expected {w.ncols()}")
    channels = w.nrows() if image is None else w.nrows() // (image[1] * image[2])
    return run.linear(w, size, v, run.tensor(layer["bias"], channels) if "bias" in layer else None)


def op_gain(run: Run, values: dict, layer: dict) -> Value:
    """scale: a scalar times a value; multiply: the elementwise product. The factor may not depend on y."""
    v = run.get(values, layer["in"])
    b = run.get(values, layer["by"], 1 if layer["op"] == "scale" else len(v.c))
    require(b.bend == 0, "a factor may not depend on y")
    return run.gain(v, b.c)


def op_add(run: Run, values: dict, layer: dict) -> Value:
    """The sum of values of one size."""
    first = run.get(values, layer["in"][0])
    return run.add([first, *(run.get(values, key, len(first.c)) for key in layer["in"][1:])])


def op_logsumexp(run: Run, values: dict, layer: dict) -> Value:
    """log sum_k exp(x_k): convex and rising in x; its gradient is the softmax."""
    v = run.get(values, layer["in"])
    top = max((x.mid() for x in v.c), key=float)
    c = [sum(((x - top).exp() for x in v.c), ZERO).log() + top]
    if v.bend == 0:
        return constant(c)
    n, (m, e) = len(v.c), gained([share(v.x, k) for k in range(len(v.c))] if v.M is not None else [], v)
    m = None if m is None else arb_mat(1, n, [ONE] * n) * m
    return run.value(c, m, arb(n).sqrt() * e, 2 if v.bend <= 2 else 3)


def op_gradient(run: Run, values: dict, layer: dict) -> Value:
    """The gradient in y of a potential; see Run.gradient."""
    return run.gradient(layer["layers"], {k: v for k, v in values.items() if v.bend == 0 or k == "y"})


def op_patches(run: Run, values: dict, layer: dict) -> Value:
    """sum_i P_i^T D(P_i y), P_i cutting patch i out of the image and D a network of its own: each pixel lies in at most
    ``cover`` patches, so ||sum_i P_i^T E_i P_i|| <= cover max ||E_i||."""
    (c, h, w), (ph, pw), (sh, sw), y = layer["image"], layer["patch"], layer["stride"], values["y"]
    require(c * h * w == len(y.c) and ph <= h and pw <= w, "patches: the image or the patch does not fit y")
    require(run.rows is None, "patches do not take multipliers")
    outer = {k: v for k, v in values.items() if v.bend == 0}
    n, parts, covers = len(y.c), [], [0] * len(y.c)
    out, jacobian = [ZERO] * n, None if run.radius is None else arb_mat(n, n)
    for top in range(0, h - ph + 1, sh):
        for left in range(0, w - pw + 1, sw):
            at = [(k * h + top + i) * w + left + j for k in range(c) for i in range(ph) for j in range(pw)]
            d = run.network(layer["layers"], [y.c[i] for i in at], outer)
            parts.append(d)
            for p, i in enumerate(at):
                out[i], covers[i] = out[i] + d.c[p], covers[i] + 1
                if jacobian is not None and d.M is not None:
                    for q, j in enumerate(at):
                        jacobian[i, j] = jacobian[i, j] + d.M[p, q]
    cover = arb(max(covers))
    return run.value(out, jacobian, cover * largest([d.e for d in parts]), 3, all(d.psd for d in parts))


def mixture_parts(run: Run, layer: dict) -> tuple:
    """What a mixture's tensors say, and what follows of them without sigma, y or the condition."""
    key, names = ("mixture", str(layer)), ("factors", "means", "variances", "floor", "logits")
    if key not in run.model.cache:
        K, d, r = (*run.model.shape(layer["factors"]), 0, 0, 0)[:3]
        shapes = (K, d, r), (K, d), (K, r), (K,), (run.model.classes + 1, K)
        flat, means, variances, floor, table = (run.tensor(layer[k], *n) for k, n in zip(names, shapes, strict=True))
        require(all(v >= 0 for v in variances + floor), "mixture: a variance or a floor is negative")
        U = [arb_mat(d, r, flat[k * d * r : (k + 1) * d * r]) for k in range(K)]
        rows, grams = [means[k * d : k * d + d] for k in range(K)], [u.transpose() * u for u in U]
        run.model.cache[key] = K, d, r, U, grams, rows, variances, floor, table
    return run.model.cache[key]


def op_mixture(run: Run, values: dict, layer: dict) -> Value:
    """The posterior mean of a mixture of low-rank Gaussians (E3): D = y + s^2 sum_k pi_k g_k, pi = softmax(l), g_k the
    gradient and H_k the (constant) Hessian of l_k = log p_k(y); J_D = I + s^2 (sum_k pi_k H_k + Cov_pi(g)).

    D is the gradient of s^2 log sum_k exp(l_k + |y|^2 / 2 s^2), convex because every exponent is a convex quadratic.
    Guidance of the prior (T11) moves the logits from those without a condition, w times as far.
    """
    y, s2 = values["y"], run.sigma * run.sigma
    K, d, r, U, grams, means, variances, floor, table = mixture_parts(run, layer)
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
        t = U[k].transpose() * arb_mat(d, 1, away)
        bt = [b * x for b, x in zip(B[k], t.entries(), strict=True)]
        g.append([p - a[k] * q for p, q in zip((U[k] * arb_mat(r, 1, bt)).entries(), away, strict=True)])
        size = sum(((floor[k] + s2 + v).log() for v in spread), ZERO) - (d - r) * a[k].log()
        logs.append(logits[k] - (size + a[k] * dot(away, away) - dot(bt, t.entries())) / 2)
    p, g = softmax(logs), arb_mat(K, d, [v for row in g for v in row])
    mean = arb_mat(1, K, p) * g
    c = [u + s2 * v for u, v in zip(y.c, mean.entries(), strict=True)]
    if run.radius is None:
        return Value(c, c, None, ZERO, 3, True)
    if not run.radius.is_finite():
        return run.value(c, eye(d, ZERO, run.columns), INF, 3, True)
    away, H0 = g - arb_mat(K, 1, [ONE] * K) * mean, eye(d, -dot(p, a))
    for k in range(K):
        H0 = H0 + U[k] * rows_scaled([p[k] * b for b in B[k]], U[k].transpose())
    h, square = [], dot(H0.entries(), H0.entries())
    for k in range(K):  # ||H_k - H0||, by the traces of H_k^2, H_k H0 and H0^2
        cross = (U[k].transpose() * H0 * U[k]).table()
        with_h0 = sum((b * cross[j][j] for j, b in enumerate(B[k])), -a[k] * sum((H0[i, i] for i in range(d)), ZERO))
        gram = grams[k].table()
        own = d * a[k] ** 2 - 2 * a[k] * sum((b * gram[j][j] for j, b in enumerate(B[k])), ZERO)
        own += sum((u * v * gram[i][j] ** 2 for i, u in enumerate(B[k]) for j, v in enumerate(B[k])), ZERO)
        h.append((own - 2 * with_h0 + square).nonnegative_part().sqrt())
    J = eye(d, ONE) + (H0 + away.transpose() * rows_scaled(p, away)) * s2
    return run.value(c, J, s2 * mixture_change(p, [norm(row) for row in away.table()], h, run.radius), 3, True)


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


KEYS, BIAS = {"in": anything}, {"in": anything, "weight": anything, "bias?": anything}
PROGRAM, PAIR = listof(anything, 1, MAX_LAYERS), listof(whole(1, 4096), 2)
MIX = dict.fromkeys(("means", "factors", "variances", "floor", "logits"), anything)
OPS = {
    "edm": (op_edm, {"which": word("in", "skip", "out", "noise"), "data_std": anything}),
    "embed": (op_embed, {"table": anything}),
    "affine": (op_affine, BIAS),
    "affine_t": (op_affine, BIAS),
    "conv": (op_affine, {**BIAS, "shape": listof(whole(1, 4096), 3)}),
    "elementwise": (lambda r, values, l: r.elementwise(r.get(values, l["in"]), l["fn"]), {**KEYS, "fn": word(*FUNCTIONS)}),
    "scale": (op_gain, {**KEYS, "by": anything}),
    "multiply": (op_gain, {**KEYS, "by": anything}),
    "add": (op_add, {"in": listof(anything, 1, 64)}),
    "softmax": (lambda run, values, layer: run.softmax(run.get(values, layer["in"])), KEYS),
    "logsumexp": (op_logsumexp, KEYS),
    "gradient": (op_gradient, {"in": word("y"), "layers": PROGRAM}),
    "patches": (op_patches, {"in": word("y"), "image": listof(whole(1, 4096), 3), "patch": PAIR, "stride": PAIR,
                             "layers": PROGRAM}),
    "mixture": (op_mixture, {"in": word("y"), **MIX, "guidance?": word("prior")}),
}  # fmt: skip


# ---- backwards through a potential: (run, values, layer, adjoint of its output) -> [(operand, its share)] ------------


def pull_affine(run: Run, values: dict, layer: dict, g: Value) -> list:
    """W^T g."""
    w, size = run.weight(layer)
    return [(layer["in"], run.linear(w.transpose(), size, g))]


def pull_gain(run: Run, values: dict, layer: dict, g: Value) -> list:
    """The same gain."""
    return [(layer["in"], run.gain(g, run.get(values, layer["by"]).c))]


def pull_elementwise(run: Run, values: dict, layer: dict, g: Value) -> list:
    """The derivative's value times g."""
    require(layer["fn"] in PRIME, f"a potential may not use {layer['fn']}")
    return [(layer["in"], run.product(run.elementwise(values[layer["in"]], PRIME[layer["fn"]]), g))]


def pull_logsumexp(run: Run, values: dict, layer: dict, g: Value) -> list:
    """The softmax times the scalar g."""
    p = run.softmax(values[layer["in"]])
    n = len(p.c)
    return [(layer["in"], run.product(p, run.linear(arb_mat(n, 1, [ONE] * n), arb(n).sqrt(), g)))]


PULL = {
    "affine": pull_affine,
    "affine_t": pull_affine,
    "conv": pull_affine,
    "scale": pull_gain,
    "multiply": pull_gain,
    "add": lambda run, values, layer, g: [(key, g) for key in layer["in"]],
    "elementwise": pull_elementwise,
    "logsumexp": pull_logsumexp,
}


# ---- one step of an inversion ----------------------------------------------------------------------------------------


def exact(value: float) -> fmpq:
    """A float as the rational number it is."""
    return fmpq(*value.as_integer_ratio())


def guides_prior(layers) -> bool:
    """Whether some mixture takes the guidance in its logits."""
    inside = [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    return any(layer.get("guidance") == "prior" or guides_prior(layer.get("layers")) for layer in inside)


class Step:
    """The step F(y) = rho y + (1 - rho) D(y, sigma_from) of E1, rho = sigma_to / sigma_from exactly."""

    def __init__(self, model: Model, condition: int, guidance: float, sigma_to: float, sigma_from: float):
        require(0 <= sigma_to < sigma_from, "a step needs 0 <= sigma_to < sigma_from")
        self.model, self.condition, self.guidance, self.sigma = model, condition, arb(guidance), arb(sigma_from)
        self.rho, self.keep = arb(exact(sigma_to) / exact(sigma_from)), arb(1 - exact(sigma_to) / exact(sigma_from))
        self.single = self.guidance == 1 or condition == model.classes or guides_prior(model.layers)

    def denoise(self, centre: list[arb], radius: arb | None, **trace) -> Value:
        """D over the ball, with guidance: D_w = D_null + w (D_c - D_null), unless the network guides its prior."""
        run = Run(self.model, self.sigma, self.condition, self.guidance, radius, **trace)
        found = run.network(self.model.layers, centre)
        if self.single:
            return found
        null = replace(run, condition=self.model.classes).network(self.model.layers, centre)
        return run.add([run.gain(found, [self.guidance]), run.gain(null, [1 - self.guidance])])

    def everywhere(self) -> Value:
        """D with what holds for all y."""
        return self.denoise([ZERO] * self.model.size, INF)

    def residual(self, centre: list[arb], target: list[arb]) -> list[arb]:
        """F(centre) - target."""
        d = self.denoise(centre, None).c
        return [self.rho * y + self.keep * x - t for y, x, t in zip(centre, d, target, strict=True)]

    def jacobian(self, value: Value) -> arb_mat:
        """M of D, zero where D does not depend on y."""
        n = self.model.size
        self.model.tick(16 * n**3)
        return arb_mat(n, n) if value.M is None else value.M

    def derivative(self, value: Value) -> tuple[arb_mat, arb]:
        """F' = M + E over the ball: M and the bound of ||E||."""
        return eye(self.model.size, self.rho) + self.jacobian(value) * self.keep, self.keep * value.e

    def modulus(self, value: Value) -> arb:
        """A lower bound of m = rho + (1 - rho) inf lambda_min(sym J) over the value's ball (T2)."""
        m = self.jacobian(value)
        low = lambda_min((m + m.transpose()) * arb(0.5)) - value.e if value.e.is_finite() else -INF
        return self.rho + self.keep * (max(low, ZERO) if value.psd else low)

    def lipschitz(self, value: Value) -> tuple[arb, arb]:
        """Upper bounds of the Lipschitz constants of G (T3) and of F over the value's ball."""
        f, e = self.derivative(value)
        return norm2(eye(f.nrows()) - f) + e, norm2(f) + e

    def monotone(self) -> bool:
        """Whether the layers make F strongly monotone with modulus rho > 0 for all y (T2, T6)."""
        return bool(self.rho > 0) and self.denoise([ZERO] * self.model.size, None).psd

    def multiplied(self, centre: list[arb], radius: arb, what: str, bound: arb, t: list[arb]) -> bool:
        """Whether multipliers t >= 0 prove a bound over the ball: LipSDP (Fazlyab et al. 2019), for any layers made of
        affine and elementwise ones.

        With u the change of y and w that of every elementwise value, whose slopes lie in [a, b], the change of its
        argument is V(u, w), that of G or F is S(u, w), and (w - a V)(b V - w) >= 0 entry by entry. So the bound L of the
        Lipschitz constant holds if L^2 |u|^2 - |S|^2 - 2 sum t (w - a V)(b V - w) is positive definite in (u, w); the
        bound m of the modulus if <u, S> - m |u|^2 - 2 sum t (w - a V)(b V - w) is.
        """
        n, slopes = self.model.size, []
        self.denoise(centre, radius, slopes=slopes)
        wide = n + len(slopes)
        require(len(t) == len(slopes) and all(v >= 0 for v in t), f"{len(slopes)} multipliers >= 0 are needed")
        self.model.tick(wide**3)
        traced = []
        value = self.denoise(centre, INF, rows=traced, columns=wide, slopes=slopes)
        require(value.e == 0 and value.M is not None, "the layers do not take multipliers")
        assert value.M is not None
        used = [i for i, v in enumerate(t) if v != 0]
        require(all(slopes[i].is_finite() for i in used), "a multiplier belongs to an unbounded slope")
        kept, maps = [*range(n), *(n + i for i in used)], [*(traced[i] for i in used), *value.M.table()]
        lost = set(range(wide)) - set(kept)
        require(all(row[j] == 0 for row in maps for j in lost), "a function without a multiplier matters")
        h, wide = len(used), len(kept)
        rows = arb_mat(h, wide, [row[j] for row in maps[:h] for j in kept])
        d, u = arb_mat(n, wide, [row[j] for row in maps[h:] for j in kept]), eye(n, ONE, wide)
        own = arb_mat(h, wide)
        for i in range(h):
            own[i, n + i] = ONE
        left = own - rows_scaled([slopes[i].lower() for i in used], rows)
        right = rows_scaled([slopes[i].upper() for i in used], rows) - own
        q = left.transpose() * rows_scaled([t[i] for i in used], right)
        s = u * self.keep - d * self.keep if what == "contraction" else u * self.rho + d * self.keep
        if what == "modulus":
            form = u.transpose() * s
            form = (form + form.transpose()) * arb(0.5) - u.transpose() * u * bound
        else:
            form = u.transpose() * u * (bound * bound) - s.transpose() * s
        return bool(lambda_min(form - q - q.transpose()) > 0)
