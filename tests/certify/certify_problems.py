"""Problems with a truth known without the kernel: 200-digit roots, planted expansions, planted double roots."""

import dataclasses
from pathlib import Path

import certify_zoo as zoo
import mpmath
import numpy as np

from fpjax.certify import propose

FAMILIES = ("mixture", "gradient", "softmax", "plain", "convolution", "convex", "patches", "prior", "tree")


@dataclasses.dataclass
class Problem:
    """A network with one step, and F of it in float64 and in 200 digits."""

    layers: list
    tensors: dict
    card: Path
    d: int
    classes: int
    condition: int
    guidance: float
    sigma_to: float
    sigma_from: float

    def f(self, y, ar=zoo.Digits):
        return zoo.step(self.layers, self.tensors, y, self.sigma_to, self.sigma_from, self.condition, self.guidance,
                        self.classes, ar)  # fmt: skip

    def prover(self) -> propose.Problem:
        card, model = propose.load_model(str(self.card))
        return propose.Problem(card, model, self.condition, self.guidance, self.sigma_to, self.sigma_from)

    def jacobian(self, y):
        """F' in 200 digits, accurate to about 100, as an mpmath matrix."""
        h, y = mpmath.mpf(10) ** -60, zoo.Digits.array(y)
        m = mpmath.matrix(self.d)
        for i in range(self.d):
            e = np.asarray([mpmath.mpf(int(i == j)) for j in range(self.d)], object) * h
            for row, v in enumerate((self.f(y + e) - self.f(y - e)) / (2 * h)):
                m[row, i] = v
        return m

    def solve(self, target, start, steps=12):
        """The root of F(y) = target near ``start``, to 100 digits, or None."""
        y, target = zoo.Digits.array(start), zoo.Digits.array(target)
        for _ in range(steps):
            rest = self.f(y) - target
            size = max(abs(v) for v in rest)
            if size < mpmath.mpf(10) ** -55:
                return y
            try:
                move = mpmath.lu_solve(self.jacobian(y), mpmath.matrix(list(rest)))
            except ZeroDivisionError:
                return None
            if max(abs(v) for v in move) > 1e6:
                return None
            y = y - np.asarray(list(move), object)
        return None


def random_problem(rng, folder, family=None, d=None, guidance=None, gain=None) -> Problem:
    """A random small network and a random step of it."""
    family = family or FAMILIES[rng.integers(len(FAMILIES))]
    d, classes = d or int(rng.integers(1, 4)), int(rng.integers(0, 3))
    shape = (d,)
    if guidance is None:
        guidance = float(rng.choice([1.0, 1.0, 0.5, 1.5, 4.0])) if classes else 1.0
    elif guidance != 1.0:
        classes = max(classes, 1)
    if family == "mixture":
        layers, tensors = zoo.MIXTURE, zoo.mixture_tensors(rng, d, int(rng.integers(1, 4)), min(d, 2), classes)
    elif family == "prior":
        layers, tensors = zoo.guided_prior(), zoo.mixture_tensors(rng, d, int(rng.integers(1, 4)), 1, classes)
    elif family == "patches":
        shape, size = (1, 1, d), min(d, 2)
        cut = zoo.reflected_layers if size == 2 and rng.integers(2) else zoo.patch_layers
        layers = cut(shape, (1, size))
        tensors = zoo.patch_tensors(rng, d, size, classes)
    elif family == "tree":
        d = max(d, 2)
        shape, alike, n = (1, d), bool(rng.integers(2)), 2 * int(rng.integers(2))
        layers, tensors = (
            zoo.tree_layers(shape, n),
            zoo.tree_tensors(rng, shape, classes=classes, alike=alike, window=n),
        )
    elif family == "convex":
        fn = str(rng.choice(["softplus", "logcosh", "square"]))
        layers, tensors = zoo.convex_layers(fn), zoo.convex_tensors(rng, d, 4, classes)
    elif family == "gradient":
        fn = str(rng.choice(["logcosh", "softplus", "square", "relu2"]))
        layers, tensors = zoo.gradient_layers(fn), zoo.gradient_tensors(rng, d, 4, classes)
    elif family == "softmax":
        layers, tensors = zoo.gradient_layers(softmax=True), zoo.gradient_tensors(rng, d, 4, classes, softmax=True)
    elif family == "plain":
        layers = zoo.plain_layers(1)
        tensors = zoo.plain_tensors(rng, d, 5, 1, classes, gain or float(rng.choice([0.5, 1.0, 3.0])))
    else:
        shape = (1, 1, d)
        tensors = {"w": zoo.f32(rng.standard_normal((2, 1, 1, 3))), "b": zoo.f32(rng.standard_normal(2))}
        tensors |= {"v": zoo.f32(rng.standard_normal((1, 2, 1, 3))), "g": zoo.f32(rng.standard_normal(2 * d))}
        layers = [
            {"op": "conv", "out": "h", "in": "y", "weight": "w", "bias": "b", "shape": [1, 1, d]},
            {"op": "elementwise", "out": "a", "in": "h", "fn": str(rng.choice(["silu", "sin", "tanh"]))},
            {"op": "multiply", "out": "ag", "in": "a", "by": "g"},
            {"op": "conv", "out": "o", "in": "ag", "weight": "v", "shape": [2, 1, d]},
            {"op": "add", "out": "D", "in": ["y", "o"]},
        ]
    card = zoo.write(folder, "m", layers, tensors, shape, classes)
    sigma_from = float(np.exp(rng.uniform(np.log(0.05), np.log(20.0))))
    sigma_to = float(sigma_from * rng.choice([0.0, 0.3, 0.7, 0.95]))
    return Problem(layers, tensors, card, d, classes, int(rng.integers(classes + 1)), guidance, sigma_to, sigma_from)


def planted(rng, p: Problem):
    """(y*, target, root): the target is F(y*) rounded to float64, the root its exact solution near y* (or None)."""
    y = np.round(rng.standard_normal(p.d) * max(0.7, p.sigma_from), 3)
    target = np.asarray([float(v) for v in p.f(y)])
    return y, target, p.solve(target, y)


def condition_number(p: Problem, y) -> float:
    """The condition of F' at y; infinite where it is singular."""
    j = np.asarray(p.jacobian(y).tolist(), dtype=float)
    if not np.isfinite(j).all():
        return float("inf")
    s = np.linalg.svd(j, compute_uv=False)
    return float(s[0] / s[-1]) if s[-1] > 0 else float("inf")


@np.errstate(over="ignore", invalid="ignore")  # Newton may run far away; what is not finite is dropped
def other_roots(rng, p: Problem, target, root, tries: int = 3):
    """Roots of F(y) = target other than ``root``, found from random starts; never claimed to be all."""
    found = []
    for _ in range(tries):
        y = np.asarray([float(v) for v in root]) + rng.standard_normal(p.d) * rng.choice([0.05, 0.5, 3.0]) * max(
            1, p.sigma_from
        )
        for _ in range(30):
            rest = p.f(y, zoo.Floats) - target
            j = zoo.jacobian(lambda v: p.f(v, zoo.Floats), y, 1e-6 * max(1, p.sigma_from))
            if not np.isfinite(j).all() or not np.isfinite(rest).all():
                break
            step = np.linalg.lstsq(j, rest, rcond=None)[0]
            y = y - step / max(1.0, np.linalg.norm(step) / (2 * max(1, p.sigma_from)))
        else:
            better = p.solve(target, y, 6)
            if better is not None and distance(better, root) > mpmath.mpf(10) ** -40:
                found.append(better)
    return found


def distance(a, b):
    """The Euclidean distance of two points, in 200 digits."""
    a, b = zoo.Digits.array(a), zoo.Digits.array(b)
    return mpmath.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def unhex(v):
    return np.asarray([float.fromhex(x) for x in v])
