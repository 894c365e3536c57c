"""The trusted kernel: re-derives what a certificate claims, with python-flint balls and the standard library alone.

In this room: reading a certificate and a model (format.md), an enclosure of D and of its Jacobian over a Euclidean
ball, and the last inequality of each kind of certificate. Not in this room: anything that searches. Nothing of fpjax
is imported, so this file also runs alone: ``python check.py FILE... --model CARD_OR_FOLDER``.

Every bound is an Arb ball, and a comparison of balls is True only where it holds for all their points: a NaN, an
overflow or a loose bound therefore ends in "not proved" and never in a proof. All norms are Euclidean.
"""

import argparse
import array
import hashlib
import json
import math
import re
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from flint import arb, arb_mat, ctx, fmpq  # pyright: ignore[reportMissingModuleSource]

CERTIFICATE, MODEL = "fpjax-certificate/1", "fpjax-model/1"
MAX_FILE, MAX_WEIGHTS, MAX_ENTRIES, MAX_WORK, MAX_LAYERS, MAX_BOXES = 1 << 24, 1 << 26, 1 << 22, 1 << 31, 1000, 20000
INF, ZERO, ONE = arb.pos_inf(), arb(0), arb(1)


class CertificateError(ValueError):
    """The certificate or the model is malformed, or what it claims was not proved. The message says why."""


def require(holds, reason: str) -> None:
    """Raises CertificateError(reason) unless ``holds`` is exactly True."""
    if holds is not True:
        raise CertificateError(reason)


# ---- reading: files, JSON, exact numbers, safetensors ----------------------------------------------------------------


def load_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a file of at most ``limit`` bytes."""
    try:
        with open(path, "rb") as f:
            raw = f.read(limit + 1)
    except (OSError, ValueError) as error:
        raise CertificateError(f"cannot read {path.name!r}: {type(error).__name__}") from None
    require(len(raw) <= limit, f"{path.name!r} is larger than {limit} bytes")
    return raw


def load_json(raw: bytes, what: str, floats: bool = False) -> dict:
    """A JSON object without repeated keys, NaN, infinities or (unless ``floats``) decimal fractions."""

    def reject(text):
        raise CertificateError(f"{what}: the number {text[:20]} is not allowed")

    def pairs(items):
        require(len({k for k, _ in items}) == len(items), f"{what}: a key is repeated")
        return dict(items)

    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=reject,
                          parse_float=float if floats else reject)  # fmt: skip
    except CertificateError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise CertificateError(f"{what} is not readable JSON ({type(error).__name__})") from None
    require(isinstance(data, dict), f"{what} is not a JSON object")
    return data


def fields(data, what: str, names: str, optional: str = "") -> dict:
    """``data``, if it is an object with exactly these keys."""
    require(isinstance(data, dict), f"{what} is not an object")
    wanted, allowed = set(names.split()), set(names.split()) | set(optional.split())
    require(wanted <= set(data) <= allowed, f"{what} must have the keys {sorted(wanted)}")
    return data


def integer(value, what: str, low: int, high: int) -> int:
    """A JSON integer in [low, high]."""
    require(type(value) is int and low <= value <= high, f"{what} must be an integer from {low} to {high}")
    return value


def number(text, what: str, low: float = -math.inf) -> float:
    """A finite float64, at least ``low``, in the one spelling that float.hex gives."""
    try:
        value = float.fromhex(text) if isinstance(text, str) and len(text) < 40 else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    require(math.isfinite(value) and value.hex() == text, f"{what} must be a finite hexadecimal float as float.hex")
    require(value >= low, f"{what} must be at least {low}")
    return value


def vector(data, what: str, size: int) -> list[arb]:
    """A list of ``size`` exact numbers."""
    require(isinstance(data, list) and len(data) == size, f"{what} must be a list of {size} numbers")
    return [arb(number(v, what)) for v in data]


def exact(value: float) -> fmpq:
    """A float as the rational number it is."""
    return fmpq(*value.as_integer_ratio())


def plain(text) -> bool:
    """Whether a name is safe as a part of a path."""
    return isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", text) is not None


def digest(data) -> str:
    """SHA-256 of the canonical JSON text (sorted keys, no spaces, ASCII)."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(certificate: dict) -> dict:
    """The certificate with its digest: a guard against accidents and edits; the proof does not rest on it."""
    body = {k: v for k, v in certificate.items() if k != "seal"}
    return {**body, "seal": digest(body)}


def read_tensors(raw: bytes) -> dict[str, tuple[tuple[int, ...], array.array]]:
    """Name -> (shape, values) of a safetensors file that its tensors tile without gap or overlap."""
    size = int.from_bytes(raw[:8], "little")
    require(8 + size <= len(raw), "weights: the header does not fit the file")
    header, body, tensors, spans = load_json(raw[8 : 8 + size], "weights header"), raw[8 + size :], {}, []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        fields(entry, f"tensor {name!r}", "dtype shape data_offsets")
        code, shape, offsets = {"F32": "f", "F64": "d"}.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
        require(code is not None, f"tensor {name!r} must be F32 or F64")
        require(isinstance(shape, list) and len(shape) <= 4 and isinstance(offsets, list) and len(offsets) == 2,
                f"tensor {name!r}: bad shape or offsets")  # fmt: skip
        start, end = (integer(v, f"tensor {name!r}: offset", 0, len(body)) for v in offsets)
        count = math.prod(integer(n, f"tensor {name!r}: size", 0, MAX_ENTRIES) for n in shape)
        values = array.array(str(code))
        require(end - start == count * values.itemsize, f"tensor {name!r}: offsets do not fit its shape")
        values.frombytes(body[start:end])
        if sys.byteorder == "big":
            values.byteswap()
        require(all(map(math.isfinite, values)), f"tensor {name!r} has a value that is not finite")
        tensors[name], spans = (tuple(shape), values), [*spans, (start, end)]
    spans.sort()
    ends = [0, *(end for _, end in spans)]
    require([s for s, _ in spans] == ends[:-1] and ends[-1] == len(body), "weights: tensors overlap or leave a gap")
    return tensors


class Model:
    """A network: its card, its exact weights, and the budget of time that a check may use.

    Args:
      path: the card (NAME.json) or the folder that holds it.
      name: the model that the certificate names.
      limit_s: seconds after which every operation ends in CertificateError.
    """

    def __init__(self, path: str | Path, name: str | None = None, limit_s: float = 600.0):
        path, self.deadline = Path(path), time.monotonic() + limit_s
        if path.is_dir():
            require(plain(name), "the model's name is not plain")
            path = path / f"{name}.json"
        card = load_json(load_bytes(path, MAX_FILE), "model card", floats=True)
        keys = ("format", "name", "shape", "conditions", "weights", "sha256", "layers")
        require(all(k in card for k in keys) and card["format"] == MODEL, f"the model card is not of format {MODEL}")
        file, shape, self.name, self.layers = card["weights"], card["shape"], card["name"], card["layers"]
        require(plain(file), "the weights' file name is not plain")
        raw = load_bytes(path.parent / file, MAX_WEIGHTS)
        self.weights_sha256 = hashlib.sha256(raw).hexdigest()
        require(card["sha256"] == self.weights_sha256, "the weights do not have the SHA-256 that the model card states")
        self.program_sha256 = digest({k: card[k] for k in keys if k not in ("name", "weights")})
        require(isinstance(shape, list) and 1 <= len(shape) <= 4, "the model's shape must be a list of 1 to 4 sizes")
        self.size = math.prod(integer(n, "model shape", 1, 4096) for n in shape)
        require(self.size <= 1024, "the kernel takes at most 1024 pixels")
        require(isinstance(card["conditions"], list), "conditions must be a list")
        self.classes, self.tensors, self.cache = len(card["conditions"]), read_tensors(raw), {}
        require(
            isinstance(self.layers, list) and 1 <= len(self.layers) <= MAX_LAYERS,
            "layers must be a list of 1 to 1000 objects",
        )

    def tick(self, work: int = 1) -> None:
        """Refuses one operation of more than MAX_WORK multiplications, and any after the deadline."""
        require(work <= MAX_WORK, "an operation is too large for the kernel")
        require(time.monotonic() < self.deadline, "the time limit was reached")

    def shape(self, name) -> tuple[int, ...]:
        """The shape of a tensor."""
        require(isinstance(name, str) and name in self.tensors, f"the weights have no tensor {str(name)[:40]!r}")
        return self.tensors[name][0]

    def tensor(self, name, *shape) -> list[arb]:
        """The entries of a tensor of that shape; None stands for any size."""
        have, values = self.shape(name), self.tensors[name][1]
        fits = len(have) == len(shape) and all(s is None or s == h for h, s in zip(have, shape, strict=True))
        require(fits and len(values) > 0, f"tensor {name!r} has shape {have}, expected {shape}")
        return [arb(v) for v in values]

    def matrix(self, name, transposed: bool = False, conv: tuple[int, ...] | None = None) -> tuple[arb_mat, arb]:
        """A weight as a matrix (out, in), and an upper bound of its spectral norm."""
        key = (str(name), transposed, conv)
        if key not in self.cache:
            values, shape = self.tensor(name, *(None,) * (4 if conv else 2)), self.shape(name)
            w = arb_mat(shape[0], shape[1], values) if conv is None else convolution(values, shape, conv)
            small, work = min(w.nrows(), w.ncols()), w.nrows() * w.ncols() * min(w.nrows(), w.ncols())
            self.tick(work)
            self.cache[key] = (w.transpose() if transposed else w, norm2(w, min(8, (MAX_WORK - work) // small**3)))
        return self.cache[key]


def convolution(values: list[arb], shape: tuple[int, ...], image: tuple[int, ...]) -> arb_mat:
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


# ---- norms: upper bounds, as exact numbers --------------------------------------------------------------------------


def upper(x: arb) -> arb:
    """An exact upper bound of |x|; infinity where x is not finite."""
    return x.abs_upper() if x.is_finite() else INF


def largest(values) -> arb:
    """An upper bound of the largest |x|."""
    best = ZERO
    for v in map(upper, values):
        best = v if not v <= best else best
    return best


def norm(values) -> arb:
    """An upper bound of the Euclidean (of a matrix's entries: Frobenius) norm."""
    return upper(sum((v * v for v in values), ZERO).nonnegative_part().sqrt())


def norm2(m: arb_mat, squarings: int = 12) -> arb:
    """An upper bound of the spectral norm: ||G||_2 <= ||G^p||_F^(1/p) with G = M^T M and p a power of two."""
    plain = norm(m.entries())
    g = m.transpose() * m if m.nrows() >= m.ncols() else m * m.transpose()
    for _ in range(squarings):
        g = g * g
    top = norm(g.entries())
    if not (top > 0 and top.is_finite()):
        return plain
    root = upper(top.root(2 ** (squarings + 1)))
    return min(root, plain)


def eye(n: int, value: arb = ONE) -> arb_mat:
    """value times the identity."""
    m = arb_mat(n, n)
    for i in range(n):
        m[i, i] = value
    return m


def rows_scaled(scales: list[arb], m: arb_mat) -> arb_mat:
    """diag(scales) @ m."""
    n = m.ncols()
    return arb_mat(m.nrows(), n, [scales[i // n] * v for i, v in enumerate(m.entries())])


def symmetric(m: arb_mat) -> arb_mat:
    """The symmetric part."""
    return (m + m.transpose()) * arb(0.5)


def lambda_min(s: arb_mat) -> arb:
    """A lower bound of the smallest eigenvalue of a symmetric matrix: c - ||c I - S|| for a c near ||S||."""
    c = norm2(s)
    return c - norm2(eye(s.nrows(), c) - s, 16) if c.is_finite() else -INF


# ---- values and their Jacobians over a ball --------------------------------------------------------------------------


@dataclass
class Value:
    """A named value v(y) for y in the ball B(centre, radius).

    c encloses v(centre), x encloses v over the ball; the Jacobian at every point of the ball is M + E with ||E|| <= e;
    M is None where v does not depend on y, or where only values are asked for. ``tag`` is what is known for all y:
    ("const",); ("line", s): s*y + const, s >= 0; ("pre", W, transposed, gains, uniform): diag(gains) W y + const;
    ("act", W, transposed, gains, soft): a nondecreasing function of such a value, its slopes times gains <= ``gains``;
    ("sym", lo, hi, psd): the Jacobian is symmetric, between lo and hi in Loewner's order (None: unbounded), and
    positive semidefinite if psd.
    """

    c: list[arb]
    x: list[arb]
    M: arb_mat | None = None
    e: arb = ZERO
    tag: tuple | None = ("const",)


class Run:
    """One pass through a model's layers at noise level ``sigma`` and condition index ``condition``.

    radius None: values at the centre only; radius infinite: Jacobians for all y.
    """

    def __init__(self, model: Model, sigma: float, condition: int, centre: list[arb], radius: arb | None):
        require(sigma > 0, "the noise level must be positive")
        self.model, self.sigma, self.condition, self.radius = model, arb(sigma), condition, radius
        self.values = {"sigma": Value([self.sigma], [self.sigma])}
        self.values["y"] = self.value(centre, None if radius is None else eye(model.size), ZERO, ("line", ONE))
        for layer in model.layers:
            require(isinstance(layer, dict) and isinstance(layer.get("op"), str), "a layer is not an object with an op")
            require(layer["op"] in OPS, f"unknown op {layer['op'][:20]!r}")
            keys, optional, function = OPS[layer["op"]]
            out = fields(layer, f"layer {layer['op']}", "op out " + keys, optional)["out"]
            fresh = isinstance(out, str) and out not in self.values and out not in model.tensors
            require(fresh, "a layer's output needs a new name")
            model.tick()
            self.values[out] = function(self, layer)
        self.D = self.get("D")
        require(out == "D" and len(self.D.c) == model.size, "the last value must be D, of the size of y")

    def value(self, c: list[arb], m: arb_mat | None, e: arb, tag: tuple | None) -> Value:
        """A value whose x follows from c and the Jacobian, by the mean value theorem on the (convex) ball."""
        if m is None or self.radius is None:
            return Value(c, c, None, ZERO, tag)
        if not self.radius.is_finite():
            return Value(c, [arb(0, INF)] * len(c), m, e, tag)
        n, flat = m.ncols(), m.entries()
        reach = [self.radius * (norm(flat[i * n : i * n + n]) + e) for i in range(len(c))]
        return Value(c, [v + arb(0, r) for v, r in zip(c, reach, strict=True)], m, e, tag)

    def get(self, name, size: int | None = None) -> Value:
        """An earlier value, or a tensor as a constant vector; of that size."""
        require(isinstance(name, str), "a layer's operand must be a name")
        if name in self.values:
            v = self.values[name]
        else:
            flat = self.model.tensor(name, None)
            v = Value(flat, flat)
        require(size in (None, len(v.c)), f"operand {name!r} has size {len(v.c)}, expected {size}")
        return v


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


def op_edm(run: Run, layer: dict) -> Value:
    """The scalars of Karras et al. 2022: c_in, c_skip, c_out, c_noise."""
    std, s = layer["data_std"], run.sigma
    require(type(std) in (int, float) and 0 < std < 1e9, "data_std must be a positive number")
    sd, root = arb(std), (s * s + arb(std) * arb(std)).sqrt()
    scalars = {"in": 1 / root, "skip": sd * sd / (root * root), "out": s * sd / root, "noise": s.log() / 4}
    require(isinstance(layer["which"], str) and layer["which"] in scalars, "edm: which must be in, skip, out or noise")
    return Value([scalars[layer["which"]]], [scalars[layer["which"]]])


def op_embed(run: Run, layer: dict) -> Value:
    """The row of a table that belongs to the condition."""
    table = run.model.tensor(layer["table"], run.model.classes + 1, None)
    n = len(table) // (run.model.classes + 1)
    row = table[run.condition * n : run.condition * n + n]
    return Value(row, row)


def op_affine(run: Run, layer: dict) -> Value:
    """W x + b; W^T x + b for affine_t; W the matrix of a convolution for conv."""
    v, name, transposed, image = run.get(layer["in"]), layer["weight"], layer["op"] == "affine_t", None
    if layer["op"] == "conv":
        require(isinstance(layer["shape"], list) and len(layer["shape"]) == 3, "conv: shape must be [c, h, w]")
        image = tuple(integer(n, "conv: shape", 1, 4096) for n in layer["shape"])
    w, size = run.model.matrix(name, transposed, image)
    require(w.ncols() == len(v.c), f"layer with weight {name!r}: input of size {len(v.c)}, expected {w.ncols()}")
    run.model.tick(w.nrows() * w.ncols() * run.model.size)
    c = (w * arb_mat(len(v.c), 1, v.c)).entries()
    if "bias" in layer:
        bias = run.model.tensor(layer["bias"], w.nrows() if image is None else w.nrows() // (image[1] * image[2]))
        c = [x + bias[i * len(bias) // len(c)] for i, x in enumerate(c)]
    tag = v.tag if v.tag == ("const",) else None
    if v.tag and v.tag[0] == "line" and image is None:
        tag = ("pre", name, transposed, [v.tag[1]] * len(c), True)
    if v.tag and v.tag[:3] == ("act", name, not transposed) and image is None:  # W f(W^T y): the T6 pattern
        hi = w * rows_scaled(v.tag[3], w.transpose()) if all(g.is_finite() for g in v.tag[3]) else None
        tag = ("sym", arb_mat(len(c), len(c)), hi, True)
    return run.value(c, None if v.M is None else w * v.M, size * v.e, tag)


def op_gain(run: Run, layer: dict) -> Value:
    """scale: a scalar times a value; multiply: the elementwise product. The factor may not depend on y."""
    v, scalar = run.get(layer["in"]), layer["op"] == "scale"
    b = run.get(layer["by"], 1 if scalar else len(v.c))
    require(b.tag == ("const",), "a factor may not depend on y")
    by = b.c * len(v.c) if scalar else b.c
    kind, *rest = v.tag or ("unknown",)
    tag, m = None, None if v.M is None else rows_scaled(by, v.M)
    if kind == "const":
        tag = ("const",)
    elif all(g >= 0 for g in by):
        if kind == "line" and scalar:
            tag = ("line", rest[0] * by[0])
        elif kind == "sym" and scalar:
            tag = ("sym", *(x if x is None else x * by[0] for x in rest[:2]), rest[2])
        elif kind == "pre" or (kind == "act" and (scalar or not rest[3])):
            gains = [g * h for g, h in zip(rest[2], by, strict=True)]
            tag = (kind, *rest[:2], gains, rest[3] and (scalar or kind == "act"))
    return run.value([p * q for p, q in zip(by, v.c, strict=True)], m, largest(by) * v.e, tag)


def op_add(run: Run, layer: dict) -> Value:
    """The sum of values of one size."""
    require(isinstance(layer["in"], list) and 1 <= len(layer["in"]) <= 64, "add: in must be a list of names")
    first = run.get(layer["in"][0])
    vs = [first, *(run.get(name, len(first.c)) for name in layer["in"][1:])]
    moving, tag = [v for v in vs if v.tag != ("const",)], ("const",)
    if len(moving) == 1:
        tag = moving[0].tag
    elif moving:
        parts = [p for p in (loewner(v.tag, run.model.size) for v in moving) if p is not None]
        hi = None if any(p[2] is None for p in parts) else total([p[2] for p in parts])
        lo = None if any(p[1] is None for p in parts) else total([p[1] for p in parts])
        tag = ("sym", lo, hi, all(p[3] for p in parts)) if len(parts) == len(moving) else None
    c = [sum(column, ZERO) for column in zip(*(v.c for v in vs), strict=True)]
    return run.value(c, total([v.M for v in vs]), sum((v.e for v in vs), ZERO), tag)


def loewner(tag: tuple | None, n: int) -> tuple | None:
    """The ("sym", ...) form of a tag, if it has one."""
    if tag and tag[0] == "line":
        return ("sym", eye(n, tag[1]), eye(n, tag[1]), True)
    return tag if tag and tag[0] == "sym" else None


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
}


def slope(derivative, x: arb, low, high) -> arb:
    """The derivative's enclosure over x, cut to its global range."""
    d = derivative(x) if x.is_finite() else arb(0, INF)
    if high is None:
        return d if d.is_finite() else arb(0, INF)
    everywhere = arb(low).union(arb(high))
    return d.intersection(everywhere) if d.is_finite() else everywhere


def op_elementwise(run: Run, layer: dict) -> Value:
    """A function from FUNCTIONS, entry by entry."""
    require(isinstance(layer["fn"], str) and layer["fn"] in FUNCTIONS, "elementwise: unknown function")
    (f, derivative, (low, high)), v, tag = FUNCTIONS[layer["fn"]], run.get(layer["in"]), None
    if v.tag == ("const",):
        tag = v.tag
    elif v.tag and v.tag[0] == "pre" and low >= 0:
        tag = ("act", *v.tag[1:3], [g * (INF if high is None else arb(high)) for g in v.tag[3]], False)
    m, e = (None, ZERO) if v.M is None else gained([slope(derivative, x, low, high) for x in v.x], v)
    return run.value([f(x) for x in v.c], m, e, tag)


def softmax(logits: list[arb]) -> list[arb]:
    """exp(l_k) / sum_j exp(l_j)."""
    top = max((v.mid() for v in logits), key=float)
    terms = [(v - top).exp() for v in logits]
    return [t / sum(terms, ZERO) for t in terms]


def share(logits: list[arb], k: int) -> arb:
    """Entry k of the softmax over a box of logits, every difference used once; cut to [0, 1]."""
    p = 1 / sum(((b - logits[k]).exp() if j != k else ONE for j, b in enumerate(logits)), ZERO)
    return p.intersection(arb(0.5, 0.5)) if p.is_finite() else arb(0.5, 0.5)


def op_softmax(run: Run, layer: dict) -> Value:
    """The softmax. Its Jacobian diag(p) - p p^T lies between 0 and 1/2, so it is 1/4 + E with ||E|| <= 1/4."""
    v, tag = run.get(layer["in"]), None
    if v.tag == ("const",):
        tag = v.tag
    elif v.tag and v.tag[0] == "pre" and v.tag[4]:  # uniform gains: a multiple of the gradient of log-sum-exp
        tag = ("act", *v.tag[1:3], [g / 2 for g in v.tag[3]], True)
    if v.M is None:
        return run.value(softmax(v.c), None, ZERO, tag)
    n = len(v.x)
    p = [share(v.x, k) for k in range(n)]
    mid, rad = [x.mid() for x in p], [x.rad() for x in p]
    k, spread = eye(n, arb(0.25)), arb(0.25)
    moved = largest(rad) + norm(rad) * (2 * norm(mid) + norm(rad))
    if moved < spread:
        spread = moved
        k = arb_mat(n, n, [a * ((1 if i == j else 0) - b) for i, a in enumerate(mid) for j, b in enumerate(mid)])
    return run.value(softmax(v.c), k * v.M, v.e / 2 + spread * norm2(v.M), tag)


class Mixture:
    """The tensors of a mixture layer and what does not depend on sigma, y or the condition."""

    def __init__(self, model: Model, layer: dict):
        self.K, d, self.r = (*model.shape(layer["factors"]), 0, 0, 0)[:3]
        require(d == model.size, "mixture: factors must have shape (K, d, r)")
        k, r = self.K, self.r
        model.tick(k * r * d * d)
        flat = model.tensor(layer["factors"], k, d, r)
        self.U = arb_mat(k * r, d, [flat[(i * d + p) * r + j] for i in range(k) for j in range(r) for p in range(d)])
        means = model.tensor(layer["means"], k, d)
        self.means, self.square = arb_mat(k, d, means), [sumsq(means[i * d : i * d + d]) for i in range(k)]
        u, m = self.U.entries(), r * d
        self.shift = [dot(u[i * d : i * d + d], means[i // r * d : i // r * d + d]) for i in range(k * r)]
        self.reach = [norm2(arb_mat(r, d, u[i * m : i * m + m]), 8) for i in range(k)]
        self.variances, self.floor = model.tensor(layer["variances"], k, r), model.tensor(layer["floor"], k)
        self.logits = model.tensor(layer["logits"], model.classes + 1, k)
        require(all(v >= 0 for v in self.variances + self.floor), "mixture: a variance or a floor is negative")


def dot(u: list[arb], v: list[arb]) -> arb:
    """The inner product."""
    return sum((a * b for a, b in zip(u, v, strict=True)), ZERO)


def sumsq(u: list[arb]) -> arb:
    """The sum of squares."""
    return dot(u, u)


def op_mixture(run: Run, layer: dict) -> Value:
    """The posterior mean of a mixture of low-rank Gaussians (E3): D = y + s^2 sum_k pi_k g_k, g_k the gradient of l_k.

    D is the gradient of s^2 log sum_k exp(l_k + |y|^2 / 2 s^2), convex because every exponent is a convex quadratic.
    """
    require(layer["in"] == "y", "mixture: in must be y")
    key = ("mixture", json.dumps(layer, sort_keys=True))
    mix = run.model.cache.setdefault(key, None) or Mixture(run.model, layer)
    run.model.cache[key], (K, r, d), y = mix, (mix.K, mix.r, run.model.size), run.values["y"].c
    s2, column = run.sigma * run.sigma, arb_mat(d, 1, y)
    a = [1 / (f + s2) for f in mix.floor]
    spread = [mix.floor[i // r] + s2 + v for i, v in enumerate(mix.variances)]
    B = [v * a[i // r] / spread[i] for i, v in enumerate(mix.variances)]
    t = [p - q for p, q in zip((mix.U * column).entries(), mix.shift, strict=True)]
    yy, my, logits = sumsq(y), (mix.means * column).entries(), mix.logits[run.condition * K :]
    logp = []
    for k in range(K):
        block, rr = slice(k * r, k * r + r), yy - 2 * my[k] + mix.square[k]
        logs = sum((v.log() for v in spread[block]), (d - r) * (mix.floor[k] + s2).log())
        logp.append(logits[k] - (logs + a[k] * rr - dot(B[block], [x * x for x in t[block]])) / 2)
    pi = softmax(logp)
    back = mix.U.transpose() * arb_mat(K * r, 1, [pi[i // r] * b * t[i] for i, b in enumerate(B)])
    weights = [p * q for p, q in zip(pi, a, strict=True)]
    pull = mix.means.transpose() * arb_mat(K, 1, weights) - column * sum(weights, ZERO) + back
    c = (column + pull * s2).entries()
    if run.radius is None or not run.radius.is_finite():
        m = None if run.radius is None else arb_mat(d, d)
        return run.value(c, m, INF, ("sym", arb_mat(d, d), None, True))
    return mixture_jacobian(run, mix, c, logp, pi, a, B, t)


def mixture_jacobian(run: Run, mix: Mixture, c, logp, pi, a, B, t) -> Value:
    """J = sum_k pi_k A_k + s^2 Cov_pi(g_k), A_k = (1 - s^2 a_k) I + s^2 U_k diag(B_k) U_k^T: at the centre M, and how
    far it can move within the ball (e), from |l_j - l_k| moving by at most radius * sup ||g_j - g_k||.
    """
    K, r, d, s2, R = mix.K, mix.r, run.model.size, run.sigma * run.sigma, INF if run.radius is None else run.radius
    block = arb_mat(K, K * r)
    for i in range(K * r):
        block[i // r, i] = B[i] * t[i]
    y = run.values["y"].c
    g = block * mix.U + rows_scaled([-v for v in a], arb_mat(K, d, y * K) - mix.means)
    g = g - arb_mat(K, d, (arb_mat(1, K, pi) * g).entries() * K)
    M = mix.U.transpose() * rows_scaled([pi[i // r] * b for i, b in enumerate(B)], mix.U) * s2
    M = M + g.transpose() * rows_scaled(pi, g) * s2 + eye(d, dot(pi, [1 - s2 * v for v in a]))
    # bounds: reach of A_k, of the Hessian of l_k, of g_k - mean g over the ball, of the differences g_j - g_k
    bend = [largest(B[k * r : k * r + r] or [ZERO]) * mix.reach[k] * mix.reach[k] for k in range(K)]
    A = [1 - s2 * a[k] + s2 * bend[k] for k in range(K)]
    P = [bend[k].max(a[k]) for k in range(K)]
    flat, gram = g.entries(), (g * g.transpose()).entries()
    far = [norm(flat[k * d : k * d + d]) + P[k] * R for k in range(K)]

    def gap_of(j, k):
        square = gram[j * K + j] + gram[k * K + k] - 2 * gram[j * K + k]
        return square.nonnegative_part().sqrt() + R * (P[j] + P[k]) if j != k else ZERO

    gap = [[gap_of(j, k) for j in range(K)] for k in range(K)]
    move = [[arb(0, R * g) for g in row] for row in gap]
    moved = [share([v + m for v, m in zip(logp, move[k], strict=True)], k) for k in range(K)]
    change = [upper(p - q) for p, q in zip(moved, pi, strict=True)]
    mean = dot(change, far) + R * dot(pi, P)
    e = dot(change, A) + s2 * (dot(change, [f * f for f in far]) + mean * mean)
    e = e + s2 * dot(pi, [2 * f * q * R + q * q * R * R for f, q in zip(far, P, strict=True)])
    spread = largest([g for row in gap for g in row]) ** 2 / 4
    for k in range(K):
        spread = min(spread, dot(moved, [v * v for v in gap[k]]))
    top = largest(A) + s2 * spread
    return run.value(c, M, e, ("sym", arb_mat(d, d), eye(d, top) if top.is_finite() else None, True))


OPS = {
    "edm": ("which data_std", "", op_edm),
    "embed": ("table", "", op_embed),
    "affine": ("in weight", "bias", op_affine),
    "affine_t": ("in weight", "bias", op_affine),
    "conv": ("in weight shape", "bias", op_affine),
    "elementwise": ("in fn", "", op_elementwise),
    "scale": ("in by", "", op_gain),
    "multiply": ("in by", "", op_gain),
    "add": ("in", "", op_add),
    "softmax": ("in", "", op_softmax),
    "mixture": ("in means factors variances floor logits", "", op_mixture),
}


# ---- one step of an inversion ----------------------------------------------------------------------------------------


class Step:
    """The step F(y) = rho y + (1 - rho) D(y, sigma_from) of E1, rho = sigma_to / sigma_from exactly."""

    def __init__(self, model: Model, condition: int, guidance: float, sigma_to: float, sigma_from: float):
        require(0 <= sigma_to < sigma_from, "a step needs 0 <= sigma_to < sigma_from")
        self.model, self.condition, self.guidance, self.sigma = model, condition, arb(guidance), sigma_from
        self.rho, self.keep = arb(exact(sigma_to) / exact(sigma_from)), arb(1 - exact(sigma_to) / exact(sigma_from))

    def denoise(self, centre: list[arb], radius: arb | None) -> Value:
        """D over the ball, with guidance: D_w = D_null + w (D_c - D_null); w = 1 is D_c alone."""
        run = Run(self.model, self.sigma, self.condition, centre, radius).D
        if self.guidance == 1 or self.condition == self.model.classes:
            return run
        null = Run(self.model, self.sigma, self.model.classes, centre, radius).D
        w, v = self.guidance, 1 - self.guidance
        c = [q + w * (p - q) for p, q in zip(run.c, null.c, strict=True)]
        m = total([x.M * g for x, g in ((run, w), (null, v)) if x.M is not None])
        p, q, tag = loewner(run.tag, len(c)), loewner(null.tag, len(c)), None
        if p and q and w >= 0:
            ends = (q[1], q[2]) if v >= 0 else (q[2], q[1])
            lo, hi = (None if x is None or z is None else x * w + z * v for x, z in zip(p[1:3], ends, strict=True))
            tag = ("sym", lo, hi, p[3] and q[3] and v >= 0)
        return Value(c, c, m, abs(w) * run.e + abs(v) * null.e, tag)

    def everywhere(self) -> Value:
        """D with what holds for all y."""
        return self.denoise([ZERO] * self.model.size, INF)

    def residual(self, centre: list[arb], target: list[arb]) -> list[arb]:
        """F(centre) - target."""
        d = self.denoise(centre, None).c
        return [self.rho * y + self.keep * x - t for y, x, t in zip(centre, d, target, strict=True)]

    def derivative(self, value: Value) -> tuple[arb_mat, arb]:
        """F' = M + E over the ball: M and the bound of ||E||."""
        n = self.model.size
        self.model.tick(16 * n**3)
        m = arb_mat(n, n) if value.M is None else value.M
        return eye(n, self.rho) + m * self.keep, self.keep * value.e

    def eigenvalues(self, value: Value) -> tuple[arb, arb | None, arb | None]:
        """A lower bound of lambda_min(sym J_D), and where J_D is known to be symmetric its ends (low, high)."""
        n = self.model.size
        self.model.tick(16 * n**3)
        m, sym = arb_mat(n, n) if value.M is None else value.M, loewner(value.tag, n)
        low = lambda_min(symmetric(m)) - value.e if value.e.is_finite() else -INF
        if sym is None:
            return low, None, None
        if sym[1] is not None:
            low = max(low, ZERO if sym[3] else lambda_min(sym[1]))
        return low, low, None if sym[2] is None else -lambda_min(-sym[2])

    def modulus(self, value: Value) -> arb:
        """A lower bound of m = rho + (1 - rho) inf lambda_min(sym J) over the value's ball (T2)."""
        return self.rho + self.keep * self.eigenvalues(value)[0]

    def lipschitz(self, value: Value) -> tuple[arb, arb]:
        """Upper bounds of the Lipschitz constants of G (T3) and of F over the value's ball."""
        f, e = self.derivative(value)
        n, (_, low, high) = f.nrows(), self.eigenvalues(value)
        g_bound, f_bound = norm2(eye(n) - f) + e, norm2(f) + e
        if low is not None and high is not None:
            g_bound = min(self.keep * (1 - low).max(high - 1).max(ZERO), g_bound)
            f_bound = min(largest([self.rho + self.keep * low, self.rho + self.keep * high]), f_bound)
        return g_bound, f_bound

    def monotone(self) -> bool:
        """Whether the layers make F strongly monotone with modulus rho > 0 for all y (T2, T6)."""
        sym = loewner(self.everywhere().tag, self.model.size)
        return bool(self.rho > 0) and sym is not None and sym[3]


# ---- the kinds of certificate ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proved:
    """What the kernel has re-derived: a sentence, the verdict on each audit question it settles, and numbers."""

    kind: str
    model: str
    statement: str
    questions: dict[str, str]
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """CERTIFIED, or REFUTED where the certificate proves that a property fails."""
        return "REFUTED" if "REFUTED" in self.questions.values() else "CERTIFIED"


PROBLEM = "condition guidance sigma_to sigma_from "
WELL_POSED = {"existence": "CERTIFIED", "uniqueness": "CERTIFIED"}


def read_step(model: Model, claim: dict, guidance: str | None = None) -> Step:
    """The step that a claim is about."""
    condition = integer(claim["condition"], "condition", 0, model.classes)
    w = number(claim["guidance"] if guidance is None else guidance, "guidance")
    ends = [number(claim[k], k, 0.0) for k in ("sigma_to", "sigma_from")]
    return Step(model, condition, w, *ends)


def read_levels(data, what: str = "levels") -> list[float]:
    """Noise levels, strictly increasing, at least two."""
    require(isinstance(data, list) and 2 <= len(data) <= 10000, f"{what} must be a list of at least two numbers")
    levels = [number(v, what, 0.0) for v in data]
    require(all(a < b for a, b in pairwise(levels)), f"{what} must increase strictly")
    return levels


def read_proof(model: Model, data) -> tuple[str, arb_mat | None]:
    """The form of T13 and the preconditioner, if the certificate brings one."""
    fields(data, "proof of a ball", "form preconditioner")
    require(data["form"] in ("structure", "monotone", "radii"), "form must be structure, monotone or radii")
    a, n, what = data["preconditioner"], model.size, "preconditioner"
    require(a is None or data["form"] == "radii", "only the radii form takes a preconditioner")
    require(a is None or (isinstance(a, list) and len(a) == n), f"the preconditioner must have {n} rows")
    return data["form"], None if a is None else arb_mat(n, n, [v for row in a for v in vector(row, what, n)])


def local_bounds(step: Step, centre: list[arb], radius: arb, form: str, a: arb_mat | None = None) -> tuple:
    """On B(centre, radius): (None, m > 0) for the monotone forms, (A, Z < 1) for the radii form. Either means that
    the ball holds at most one solution (T2; T13)."""
    if form == "structure":
        require(step.monotone(), "the layers are not of a form that is monotone by construction, or rho = 0")
        return None, step.rho
    value = step.denoise(centre, radius)
    if form == "monotone":
        m = step.modulus(value)
        require(m > 0, "m > 0 was not proved on the ball")
        return None, m
    f, e = step.derivative(value)
    a = f.mid().inv().mid() if a is None else a
    z = norm2(eye(step.model.size) - a * f) + norm2(a) * e
    require(z < 1, "Z < 1 was not proved on the ball")
    return a, z


def prove_ball(step: Step, target: list[arb], slack: arb, centre: list[arb], radius: arb, proof) -> None:
    """T13: for every y_s within ``slack`` of ``target``, F(y) = y_s has exactly one solution in B(centre, radius)."""
    rest = step.residual(centre, target)
    a, bound = local_bounds(step, centre, radius, *proof)
    if a is None:
        require(norm(rest) + slack <= bound * radius, "||F(centre) - target|| + slack <= m r was not proved")
    else:
        y = norm((a * arb_mat(len(rest), 1, rest)).entries())
        require(y + norm2(a) * slack + bound * radius <= radius, "Y + ||A|| slack + Z r <= r was not proved")


def prove_structure(model: Model, claim: dict, proof: dict) -> tuple:
    """(a) Monotone by construction at every step: exactly one solution for every target (T2, T6)."""
    fields(claim, "claim", "levels conditions guidance")
    fields(proof, "proof", "")
    levels, conditions, w = read_levels(claim["levels"]), claim["conditions"], number(claim["guidance"], "guidance")
    require(isinstance(conditions, list) and 0 < len(conditions) <= 10000, "conditions must be a list")
    for c in conditions:
        for low, high in pairwise(levels):
            step = Step(model, integer(c, "condition", 0, model.classes), w, low, high)
            require(step.monotone(), "the layers are not of a form that is monotone by construction, or rho = 0")
    text = f"each of {len(levels) - 1} steps has exactly one solution for every target, modulus >= rho"
    return text, WELL_POSED, {"modulus": min(a / b for a, b in pairwise(levels))}


def prove_lipschitz(model: Model, claim: dict, proof: dict) -> tuple:
    """(b) Bounds on a region: of the Lipschitz constants of G and F, and of the modulus (T2, T3, T5)."""
    fields(claim, "claim", PROBLEM + "region contraction modulus lipschitz")
    fields(proof, "proof", "")
    step = read_step(model, claim)
    value, place = read_region(step, claim["region"])
    parts = {k: number(claim[k], k) for k in ("contraction", "modulus", "lipschitz") if claim[k] is not None}
    require(len(parts) > 0, "the claim states no bound")
    g, f = step.lipschitz(value)
    require("contraction" not in parts or g <= arb(parts["contraction"]), "the contraction factor was not proved")
    require("lipschitz" not in parts or f <= arb(parts["lipschitz"]), "the Lipschitz constant of F was not proved")
    require("modulus" not in parts or step.modulus(value) >= arb(parts["modulus"]), "the modulus was not proved")
    one = parts.get("contraction", 2.0) < 1
    many = one or parts.get("modulus", 0.0) > 0
    questions = {"uniqueness": many, "existence": many and place == "everywhere", "contraction": one}
    text = ", ".join(f"{k} {v:.6g}" for k, v in parts.items()) + f" {place}"
    return text, {k: "CERTIFIED" for k, v in questions.items() if v} or {"bound": "CERTIFIED"}, parts


def read_region(step: Step, region) -> tuple[Value, str]:
    """D over the region of a claim, "everywhere" or a ball, and the region in words."""
    if region == "everywhere":
        return step.everywhere(), region
    fields(region, "region", "centre radius")
    radius = number(region["radius"], "radius", 0.0)
    value = step.denoise(vector(region["centre"], "centre", step.model.size), arb(radius))
    return value, f"on a ball of radius {radius:.3g}"


def prove_guidance_limit(model: Model, claim: dict, proof: dict) -> tuple:
    """(b, T11) m > 0 on the region for all guidance from 1 to the limit: lambda_min is concave in the guidance, so
    m > 0 at both ends is enough."""
    fields(claim, "claim", "condition sigma_to sigma_from region limit")
    fields(proof, "proof", "")
    limit, place = number(claim["limit"], "limit", 1.0), ""
    for w in ((1.0).hex(), claim["limit"]):
        step = read_step(model, claim, w)
        value, place = read_region(step, claim["region"])
        require(step.modulus(value) > 0, f"m > 0 was not proved at guidance {float.fromhex(w):.6g}")
    return f"unique {place} at every guidance from 1 to {limit:.6g}", {"guidance-limit": "CERTIFIED"}, {"limit": limit}


def prove_step(model: Model, claim: dict, proof: dict) -> tuple:
    """(c) One step: existence in B(centre, radius), uniqueness in B(centre, uniqueness_radius) (T13)."""
    fields(claim, "claim", PROBLEM + "target target_radius centre radius uniqueness_radius")
    step, how = read_step(model, claim), read_proof(model, proof)
    target, centre = (vector(claim[k], k, model.size) for k in ("target", "centre"))
    radius, slack = (number(claim[k], k, 0.0) for k in ("radius", "target_radius"))
    unique = claim["uniqueness_radius"]
    prove_ball(step, target, arb(slack), centre, arb(radius), how)
    if unique == "everywhere":
        require(step.monotone(), "uniqueness everywhere was not proved")
    else:
        require(number(unique, "uniqueness_radius") >= radius, "uniqueness_radius must be at least radius")
        local_bounds(step, centre, arb(number(unique, "uniqueness_radius")), *how)
    text = f"exactly one solution within {radius:.3g} of the centre, no other "
    text += unique if unique == "everywhere" else f"within {float.fromhex(unique):.3g}"
    return text, WELL_POSED | {"error": "CERTIFIED"}, {"radius": radius}


def prove_trajectory(model: Model, claim: dict, proof: dict) -> tuple:
    """(d) A whole trajectory: each solution lies in its ball, given that the one before does (T13)."""
    fields(claim, "claim", "condition guidance levels image centres radii unique")
    levels, centres, radii = read_levels(claim["levels"]), claim["centres"], claim["radii"]
    fields(proof, "proof", "steps")
    for part in (centres, radii, proof["steps"]):
        require(isinstance(part, list) and len(part) == len(levels) - 1, "the trajectory needs one entry for each step")
    require(claim["unique"] in ("everywhere", "balls"), "unique must be everywhere or balls")
    condition, w = integer(claim["condition"], "condition", 0, model.classes), number(claim["guidance"], "guidance")
    target, slack, radius = vector(claim["image"], "image", model.size), ZERO, 0.0
    for i, (low, high) in enumerate(pairwise(levels)):
        step, centre = Step(model, condition, w, low, high), vector(centres[i], "centre", model.size)
        radius = number(radii[i], "radius", 0.0)
        try:
            prove_ball(step, target, slack, centre, arb(radius), read_proof(model, proof["steps"][i]))
            require(claim["unique"] == "balls" or step.monotone(), "uniqueness everywhere was not proved")
        except CertificateError as error:
            raise CertificateError(f"step {i}: {error}") from None
        target, slack = centre, arb(radius)
    text = f"the inversion over {len(levels) - 1} steps has exactly one solution "
    text += "" if claim["unique"] == "everywhere" else "in the balls given "
    text += f"and its latent lies within {radius:.3g} of the last centre"
    return text, WELL_POSED | {"error": "CERTIFIED"}, {"radius": radius}


def prove_non_uniqueness(model: Model, claim: dict, proof: dict) -> tuple:
    """(e) Two disjoint balls, each proved to hold a solution (T13)."""
    fields(claim, "claim", PROBLEM + "target balls")
    step, target = read_step(model, claim), vector(claim["target"], "target", model.size)
    balls, how = claim["balls"], fields(proof, "proof", "balls")["balls"]
    require(isinstance(balls, list) and isinstance(how, list) and len(balls) == len(how) == 2, "two balls are needed")
    for ball, form in zip(balls, how, strict=True):
        fields(ball, "ball", "centre radius")
        centre, radius = vector(ball["centre"], "centre", model.size), arb(number(ball["radius"], "radius", 0.0))
        prove_ball(step, target, ZERO, centre, radius, read_proof(model, form))
    first, second = ([exact(number(v, "centre")) for v in b["centre"]] for b in balls)
    reach = exact(number(balls[0]["radius"], "radius")) + exact(number(balls[1]["radius"], "radius"))
    distance2 = sum(((p - q) ** 2 for p, q in zip(first, second, strict=True)), fmpq(0))
    require(bool(distance2 > reach**2), "the balls are not disjoint")
    facts = {"distance": math.sqrt(float(arb(distance2)))}
    return "two different solutions", {"existence": "CERTIFIED", "uniqueness": "REFUTED"}, facts


def prove_witness(model: Model, claim: dict, proof: dict) -> tuple:
    """(f) A pair of points that G pushes apart by more than ``factor`` >= 1 (T3 fails on any set that holds both), or,
    where ``factor`` is null, a pair between which F decreases (T2's hypothesis fails)."""
    fields(claim, "claim", PROBLEM + "points factor")
    fields(proof, "proof", "")
    step, points = read_step(model, claim), claim["points"]
    require(isinstance(points, list) and len(points) == 2, "a witness is a pair of points")
    first, second = (vector(p, "point", model.size) for p in points)
    gap = [p - q for p, q in zip(first, second, strict=True)]
    images = [p - q for p, q in zip(*(step.residual(v, [ZERO] * len(v)) for v in (first, second)), strict=True)]
    if claim["factor"] is None:
        require(dot(images, gap) < 0, "that F decreases between the points was not proved")
        return "F is not monotone: it decreases between the two points", {"monotonicity": "REFUTED"}, {}
    factor = number(claim["factor"], "factor", 1.0)
    apart = sumsq([p - q for p, q in zip(gap, images, strict=True)])
    require(apart > arb(factor) * arb(factor) * sumsq(gap), "that G pushes the points apart was not proved")
    return f"G pushes two points apart by more than {factor:.6g}", {"contraction": "REFUTED"}, {"factor": factor}


def prove_no_solution(model: Model, claim: dict, proof: dict) -> tuple:
    """(g) No solution in a box, by bisection: on each piece a component of F - target keeps its sign."""
    fields(claim, "claim", PROBLEM + "target lower upper")
    fields(proof, "proof", "")
    step, n = read_step(model, claim), model.size
    target = vector(claim["target"], "target", n)
    ends = [[number(v, k) for v in claim[k]] for k in ("lower", "upper") if isinstance(claim[k], list)]
    require(n <= 4 and len(ends) == 2 and all(len(e) == n for e in ends), "a box of at most 4 dimensions is needed")
    require(all(a <= b for a, b in zip(*ends, strict=True)), "lower must not exceed upper")
    boxes, count = [list(zip(*ends, strict=True))], 0
    while boxes:
        box, count = boxes.pop(), count + 1
        require(count <= MAX_BOXES, f"not proved with {MAX_BOXES} boxes")
        middle = [a / 2 + b / 2 for a, b in box]
        half = [largest([arb(b) - arb(m), arb(m) - arb(a)]) for (a, b), m in zip(box, middle, strict=True)]
        centre, radius = [arb(m) for m in middle], norm(half)
        (f, e), flat = step.derivative(step.denoise(centre, radius)), step.residual(centre, target)
        slopes = [dot([abs(v) for v in f.entries()[i * n : i * n + n]], half) + e * radius for i in range(n)]
        if any(s < abs(v) for s, v in zip(slopes, flat, strict=True)):
            continue
        widest = max(range(n), key=lambda i: box[i][1] - box[i][0])
        a, b = box[widest]
        require(a < middle[widest] < b, "not proved: a piece cannot be cut further")
        boxes += [[*box[:widest], piece, *box[widest + 1 :]] for piece in ((a, middle[widest]), (middle[widest], b))]
    return f"no solution in the box ({count} pieces)", {"existence in the box": "REFUTED"}, {"pieces": float(count)}


KINDS = {
    "structure": prove_structure,
    "lipschitz": prove_lipschitz,
    "guidance-limit": prove_guidance_limit,
    "step": prove_step,
    "trajectory": prove_trajectory,
    "non-uniqueness": prove_non_uniqueness,
    "witness": prove_witness,
    "no-solution": prove_no_solution,
}


def check_data(data: dict, model: str | Path | Model, limit_s: float = 600.0) -> Proved:
    """Like :func:`check`, for a certificate that is already read."""
    fields(data, "certificate", "format kind model precision claim proof seal")
    require(data["format"] == CERTIFICATE, f"the certificate is not of format {CERTIFICATE}")
    require(data["seal"] == digest({k: v for k, v in data.items() if k != "seal"}), "the seal does not fit the content")
    require(isinstance(data["kind"], str) and data["kind"] in KINDS, "unknown kind of certificate")
    named = fields(data["model"], "model", "name weights_sha256 program_sha256")
    with ctx.workprec(integer(data["precision"], "precision", 64, 1024)):
        try:
            net = model if isinstance(model, Model) else Model(model, named["name"])
            net.deadline = time.monotonic() + limit_s
            require(named["name"] == net.name, "the certificate is for a model of another name")
            require(named["weights_sha256"] == net.weights_sha256, "the certificate is for other weights")
            require(named["program_sha256"] == net.program_sha256, "the certificate is for another program of layers")
            return Proved(data["kind"], net.name, *KINDS[data["kind"]](net, data["claim"], data["proof"]))
        except CertificateError:
            raise
        except Exception as error:
            raise CertificateError(f"the check broke off: {type(error).__name__}: {str(error)[:80]}") from None


def check(path: str | Path, model: str | Path | Model, limit_s: float = 600.0) -> Proved:
    """Re-derives a certificate from the weights.

    Args:
      path: the certificate.
      model: a model card, the folder that holds it, or a loaded :class:`Model`.
      limit_s: seconds.

    Raises:
      CertificateError: if anything is malformed, or the claim was not proved.
    """
    return check_data(load_json(load_bytes(Path(path), MAX_FILE), "certificate"), model, limit_s)


def main(arguments: list[str] | None = None) -> int:
    """Checks files; returns 0 if every one was proved, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="fpjax.certify.check", description="Re-derive certificates from the weights.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--model", required=True, metavar="CARD_OR_FOLDER")
    parser.add_argument("--limit", type=float, default=600.0, metavar="SECONDS", help="time for one file")
    options, failed = parser.parse_args(arguments), 0
    for file in options.files:
        try:
            proved = check(file, options.model, options.limit)
            print(f"{file}: {proved.verdict}: {proved.kind}, {proved.model}: {proved.statement}")
        except CertificateError as error:
            failed = 1
            print(f"{file}: REJECTED: {error}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
