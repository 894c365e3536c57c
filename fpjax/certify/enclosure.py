"""The kernel's enclosures: a network, its Jacobian and one inversion step over a Euclidean ball.

In this room: values with their Jacobians, the layers of ordinary networks (format.md), one step F. Not in this room:
layers with a theorem of their own (layers.py), what a certificate claims (newton.py, bounds.py, refutations.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from flint import arb  # pyright: ignore[reportMissingModuleSource]

from fpjax.certify.matrices import INF, ONE, ZERO, ArbMatrix, balls, exact, lambda_min, largest, norm
from fpjax.certify.reading import MAX_ENTRIES, MAX_WORK, Model, anything, listof, record, require, whole, word

# ---- elementwise functions ----


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


def slope(derivative: Callable[[arb], arb], x: arb, low: float | None, high: float | None) -> arb:
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


# ---- values and their Jacobians over a ball ----


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
    M: ArbMatrix | None = None
    e: arb = ZERO
    bend: int = 0
    psd: bool = True


def constant(c: list[arb]) -> Value:
    """A value that does not depend on y."""
    return Value(c, c)


def total(parts: list[ArbMatrix | None]) -> ArbMatrix | None:
    """The sum of Jacobians, where None is zero."""
    some = [m for m in parts if m is not None]
    return sum(some[1:], some[0]) if some else None


def gained(ds: list[arb], v: Value) -> tuple[ArbMatrix | None, arb]:
    """The Jacobian diag(d) (M + E) of v, d anywhere in ``ds``: midpoints stay in M, radii go to the error."""
    if v.M is None:
        return None, ZERO
    if not all(d.is_finite() for d in ds):
        return v.M.scaled([ZERO] * len(ds)), INF
    rads = [d.rad() for d in ds]
    spread = v.M.scaled(rads).norm()
    if not spread <= arb(0.001):
        spread = min(spread, largest(rads) * v.M.norm2())
    return v.M.scaled(v.M.middles(ds)), spread + largest(ds) * v.e


@dataclass
class Run:
    """One pass through layers: what they see besides named values, and the arithmetic of values.

    radius None: values at the centre only; radius infinite: Jacobians for all y. ``slopes`` collects the slopes of the
    elementwise functions that depend on y. With ``rows`` (a list), each entry of such a function becomes one more
    variable, a column after those of y (of ``columns`` in all): its Jacobian is that column, and ``rows`` collects the
    Jacobians of the arguments.
    """

    model: Model
    sigma: arb
    condition: int
    guidance: arb
    radius: arb | None
    rows: list[ArbMatrix] | None = None
    columns: int = 0
    slopes: list[arb] = field(default_factory=list)

    def network(self, layers: list, centre: list[arb], outer: dict[str, Value] | None = None) -> Value:
        """D of a list of layers at y in the ball around ``centre``."""
        m = None if self.radius is None else self.model.matrix.eye(len(centre), ONE, self.columns)
        y = self.value(centre, m, ZERO, 1, True)
        values = {"sigma": constant([self.sigma]), **(outer or {}), "y": y}
        require(self.execute(layers, values) == "D", "the last value must be D, of the size of y")
        require(len(values["D"].c) == len(centre), "the last value must be D, of the size of y")
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
        v = values[key] if key in values else constant(balls(self.model.tensor(key, None)))
        require(size in (None, len(v.c)), f"operand {key!r} has size {len(v.c)}, expected {size}")
        return v

    def weight(self, layer: dict) -> tuple[ArbMatrix, arb]:
        """The matrix (out, in) of an affine layer or a convolution, and an upper bound of its spectral norm."""
        shape, image, model = self.model.shape(layer["weight"]), layer.get("shape"), self.model
        key = layer["op"], layer["weight"], str(image)
        if key not in model.cache:
            values = model.tensor(layer["weight"], *(None,) * (2 if image is None else 4))
            rows, columns, flat = (*shape, values) if image is None else convolution(values, shape, image)
            w = model.matrix.of(rows, columns, flat)
            w, small = w.T if layer["op"] == "affine_t" else w, min(rows, columns)
            work = rows * columns * small
            model.tick(work)
            # The fast path squares no more often than Arb, where Arb takes the layer at all.
            spare = (MAX_WORK - work) // small**3
            model.cache[key] = w, w.norm2(min(8, spare) if spare >= 0 else 8)
        return model.cache[key]

    def value(self, c: list[arb], m: ArbMatrix | None, e: arb, bend: int, psd: bool = False) -> Value:
        """A value whose x follows from c and the Jacobian, by the mean value theorem on the (convex) ball."""
        if m is None or self.radius is None:
            return Value(c, c, None, ZERO, bend, psd)
        if not self.radius.is_finite():
            return Value(c, [arb(0, INF)] * len(c), m, e, bend, psd)
        reach = [arb(0, self.radius * (r + e)) for r in m.row_norms()]
        return Value(c, [v + r for v, r in zip(c, reach, strict=True)], m, e, bend, psd)

    def linear(self, w: ArbMatrix, size: arb, v: Value, bias: list[arb] | None = None) -> Value:
        """W v + b, with ||W|| <= size. A convex v stays convex under nonnegative weights only."""
        self.model.tick(w.shape[0] * w.shape[1] * (1 if v.M is None else v.M.shape[1]))
        c = w.apply(v.c)
        c = c if bias is None else [x + bias[i * len(bias) // len(c)] for i, x in enumerate(c)]
        if v.bend == 0:
            return constant(c)
        bend = v.bend if v.bend != 2 or all(x >= 0 for x in w.entries()) else 3
        return self.value(c, None if v.M is None else w @ v.M, size * v.e, bend)

    def gain(self, v: Value, by: list[arb]) -> Value:
        """diag(by) v; ``by`` of one entry is a scalar and keeps a Jacobian semidefinite if it is not negative."""
        by, even = by * len(v.c) if len(by) == 1 else by, len(by) == 1
        c = [p * q for p, q in zip(by, v.c, strict=True)]
        if v.bend == 0:
            return constant(c)
        rising = all(b >= 0 for b in by)
        bend, psd = v.bend if v.bend != 2 or rising else 3, v.psd and even and rising
        return self.value(c, None if v.M is None else v.M.scaled(by), largest(by) * v.e, bend, psd)

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
        if self.rows is None:
            ds = [slope(derivative, x, low, high) for x in v.x]
            self.slopes += ds
            return self.value(c, *gained(ds, v), bend)
        first = self.columns - len(self.slopes) + sum(m.shape[0] for m in self.rows)
        self.rows.append(v.M)
        return self.value(c, v.M.eye(len(c), ONE, self.columns, first), v.e, bend)

    def softmax(self, v: Value) -> Value:
        """The softmax. Its Jacobian diag(p) - p p^T lies between 0 and 1/2, so it is 1/4 + E with ||E|| <= 1/4."""
        c, n = softmax(v.c), len(v.c)
        if v.bend == 0:
            return constant(c)
        if v.M is None:
            return self.value(c, None, ZERO, 3)
        p = [share(v.x, k) for k in range(n)]
        mid, rad = v.M.middles(p), [x.rad() for x in p]
        k, spread = v.M.eye(n, arb(0.25)), arb(0.25)
        moved = largest(rad) + norm(rad) * (2 * norm(mid) + norm(rad))
        if moved < spread:
            spread = moved
            k = v.M.of(n, n, (a * ((1 if i == j else 0) - b) for i, a in enumerate(mid) for j, b in enumerate(mid)))
        return self.value(c, k @ v.M, min(arb(0.5), k.norm2() + spread) * v.e + spread * v.M.norm2(), 3)


def convolution(values, shape: tuple[int, ...], image: list[int]) -> tuple[int, int, list[float]]:
    """The matrix of a 2-D convolution (cross-correlation), stride 1, zero padding "same", odd kernel."""
    (n_out, n_in, kh, kw), (channels, height, width) = shape, image
    require(n_in == channels and kh % 2 == 1 and kw % 2 == 1, "a convolution needs its channels and odd kernel sizes")
    pixels = height * width
    rows, columns = n_out * pixels, n_in * pixels
    require(rows * columns <= MAX_ENTRIES, "a convolution is too large for the kernel")
    w = [0.0] * (rows * columns)
    for i, value in enumerate(values):
        rest, dx = divmod(i, kw)
        rest, dy = divmod(rest, kh)
        o, c = divmod(rest, n_in)
        for row in range(max(0, kh // 2 - dy), min(height, height + kh // 2 - dy)):
            for col in range(max(0, kw // 2 - dx), min(width, width + kw // 2 - dx)):
                source = (row + dy - kh // 2) * width + col + dx - kw // 2
                w[(o * pixels + row * width + col) * columns + c * pixels + source] = value
    return rows, columns, w


# ---- the operations of layers: (run, values so far, layer) -> value ----


def op_edm(run: Run, values: dict, layer: dict) -> Value:
    """The scalars of Karras et al. 2022: c_in, c_skip, c_out, c_noise."""
    std, s = layer["data_std"], run.sigma
    require(type(std) in (int, float) and 0 < std < 1e9, "data_std must be a positive number")
    sd, root = arb(std), (s * s + arb(std) * arb(std)).sqrt()
    scalars = {"in": 1 / root, "skip": sd * sd / (root * root), "out": s * sd / root, "noise": s.log() / 4}
    return constant([scalars[layer["which"]]])


def op_embed(run: Run, values: dict, layer: dict) -> Value:
    """The row of a table that belongs to the condition."""
    table = run.model.tensor(layer["table"], run.model.classes + 1, None)
    n = len(table) // (run.model.classes + 1)
    return constant(balls(table[run.condition * n : run.condition * n + n]))


def op_affine(run: Run, values: dict, layer: dict) -> Value:
    """W x + b; W^T x + b for affine_t; W the matrix of a convolution for conv."""
    (w, size), v, image = run.weight(layer), run.get(values, layer["in"]), layer.get("shape")
    rows, columns = w.shape
    fits = columns == len(v.c)
    require(fits, f"layer with weight {layer['weight']!r}: input of size {len(v.c)}, expected {columns}")
    channels = rows if image is None else rows // (image[1] * image[2])
    return run.linear(w, size, v, balls(run.model.tensor(layer["bias"], channels)) if "bias" in layer else None)


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


KEYS, WEIGHTS = {"in": anything}, {"in": anything, "weight": anything, "bias?": anything}
OPS = {
    "edm": (op_edm, {"which": word("in", "skip", "out", "noise"), "data_std": anything}),
    "embed": (op_embed, {"table": anything}),
    "affine": (op_affine, WEIGHTS),
    "affine_t": (op_affine, WEIGHTS),
    "conv": (op_affine, {**WEIGHTS, "shape": listof(whole(1, 4096), 3)}),
    "elementwise": (lambda r, values, l: r.elementwise(r.get(values, l["in"]), l["fn"]), {**KEYS, "fn": word(*FUNCTIONS)}),
    "scale": (op_gain, {**KEYS, "by": anything}),
    "multiply": (op_gain, {**KEYS, "by": anything}),
    "add": (op_add, {"in": listof(anything, 1, 64)}),
    "softmax": (lambda run, values, layer: run.softmax(run.get(values, layer["in"])), KEYS),
}  # fmt: skip


# ---- one step of an inversion ----


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

    def eye(self, value: arb = ONE) -> ArbMatrix:
        """value times the identity."""
        return self.model.matrix.eye(self.model.size, value)

    def jacobian(self, value: Value) -> ArbMatrix:
        """M of D, zero where D does not depend on y."""
        self.model.tick(16 * self.model.size**3)
        return self.eye(ZERO) if value.M is None else value.M

    def derivative(self, value: Value) -> tuple[ArbMatrix, arb]:
        """F' = M + E over the ball: M and the bound of ||E||."""
        return self.eye(self.rho) + self.jacobian(value) * self.keep, self.keep * value.e

    def modulus(self, value: Value) -> arb:
        """A lower bound of m = rho + (1 - rho) inf lambda_min(sym J) over the value's ball (T2)."""
        m = self.jacobian(value)
        low = lambda_min((m + m.T) * arb(0.5)) - value.e if value.e.is_finite() else -INF
        return self.rho + self.keep * (max(low, ZERO) if value.psd else low)

    def lipschitz(self, value: Value) -> tuple[arb, arb]:
        """Upper bounds of the Lipschitz constants of G (T3) and of F over the value's ball."""
        f, e = self.derivative(value)
        return (self.eye() - f).norm2() + e, f.norm2() + e

    def monotone(self) -> bool:
        """Whether the layers make F strongly monotone with modulus rho > 0 for all y (T2, T6)."""
        return bool(self.rho > 0) and self.denoise([ZERO] * self.model.size, None).psd
