"""Independent agreement: mpmath's interval arithmetic, with its own forward derivatives, against the kernel.

On 200 small cases the two enclosures of D and J_D over a ball must meet entry by entry and both hold sampled points.
"""

# ruff: noqa: PT018

import collections
import json
import time

import certify_problems as problems
import certify_zoo as zoo
import mpmath
import numpy as np
from flint import arb, ctx

import fpjax.certify.check as kernel

iv = mpmath.iv


def arrays_first(method):
    """Leaves numpy arrays to numpy, which calls back entry by entry."""

    def run(self, other):
        return NotImplemented if isinstance(other, np.ndarray) else method(self, lift(other))

    return run


class Dual:
    """An interval with the intervals of its partial derivatives; a constant has none."""

    def __init__(self, v, d=()):
        self.v, self.d = v, list(d)

    def partials(self, o):
        n = max(len(self.d), len(o.d))
        return zip(self.d or [iv.mpf(0)] * n, o.d or [iv.mpf(0)] * n, strict=True)

    @arrays_first
    def __add__(self, o):
        return Dual(self.v + o.v, [a + b for a, b in self.partials(o)])

    @arrays_first
    def __mul__(self, o):
        return Dual(self.v * o.v, [a * o.v + self.v * b for a, b in self.partials(o)])

    @arrays_first
    def __truediv__(self, o):
        return self * Dual(1 / o.v, [-b / o.v**2 for b in o.d])

    @arrays_first
    def __rtruediv__(self, o):
        return o / self

    def __neg__(self):
        return Dual(-self.v, [-a for a in self.d])

    @arrays_first
    def __sub__(self, o):
        return self + -o

    @arrays_first
    def __rsub__(self, o):
        return o + -self

    @arrays_first
    def __gt__(self, o):
        return bool(self.v.mid > o.v.mid)

    __radd__, __rmul__ = __add__, __mul__


def lift(x):
    return x if isinstance(x, Dual) else Dual(iv.mpf(float(x)) if isinstance(x, (int, float, np.floating)) else x)


def chain(f, slope):
    def apply(x):
        return Dual(f(x.v), [slope(x.v) * a for a in x.d])

    return np.frompyfunc(apply, 1, 1)


class Intervals:
    """The arithmetic for certify_zoo.evaluate."""

    exp = chain(iv.exp, iv.exp)
    log = chain(iv.log, lambda x: 1 / x)
    cos = chain(iv.cos, lambda x: -iv.sin(x))
    sin = chain(iv.sin, iv.cos)
    sqrt = chain(iv.sqrt, lambda x: 1 / (2 * iv.sqrt(x)))

    @staticmethod
    def number(v):
        return lift(v)

    @staticmethod
    def array(v):
        return np.frompyfunc(Intervals.number, 1, 1)(np.asarray(v, object))


def ends(ball):
    return float((ball.mid() - ball.rad()).lower()), float((ball.mid() + ball.rad()).upper())


def mp_enclosure(p, y, radius):
    """D and J over the box around the ball: lists of (low, high)."""
    unit = [[iv.mpf(int(i == j)) for j in range(p.d)] for i in range(p.d)]
    box = [Dual(iv.mpf([v - radius, v + radius]), unit[i]) for i, v in enumerate(y)]
    d = zoo.evaluate(p.layers, p.tensors, np.asarray(box, object), p.sigma_from, p.condition, Intervals)
    flat = [x for out in d for x in (out.v, *(out.d or [iv.mpf(0)] * p.d))]
    return [(float(x.a) - 1e-15 * abs(float(x.a)), float(x.b) + 1e-15 * abs(float(x.b))) for x in flat]


def kernel_enclosure(p, y, radius):
    with ctx.workprec(128):
        model = kernel.Model(p.card)
        d = kernel.Step(model, p.condition, 1.0, 0.0, p.sigma_from).denoise([arb(float(v)) for v in y], arb(radius))
        out = []
        for i in range(p.d):
            out += [ends(d.x[i]), *(ends(v + arb(0, d.e)) for v in d.M.entries()[i * p.d : (i + 1) * p.d])]
    return out


def test_mpmath_intervals_agree_on_200_cases(tmp_path):
    rng, figures, ratios = np.random.default_rng(60), collections.Counter(), []
    iv.prec = 100
    clock = {"mpmath": 0.0, "kernel": 0.0}
    while figures["cases"] < 200:
        family = str(rng.choice(["mixture", "gradient", "softmax", "plain", "convex", "patches"]))
        p = problems.random_problem(rng, tmp_path, family, guidance=1.0)
        if '"relu2"' in json.dumps(p.layers):
            continue
        y, radius = rng.standard_normal(p.d).round(3), float(rng.choice([1e-10, 1e-5, 1e-2]))
        figures["cases"] += 1
        start = time.perf_counter()
        theirs = mp_enclosure(p, y, radius)
        clock["mpmath"] += time.perf_counter() - start
        start = time.perf_counter()
        ours = kernel_enclosure(p, y, radius)
        clock["kernel"] += time.perf_counter() - start
        for (a, b), (s, t) in zip(theirs, ours, strict=True):
            assert a <= t and s <= b, (family, radius, (a, b), (s, t))
            figures["numbers"] += 1
        u = rng.standard_normal(p.d)
        point = y + radius * u / np.linalg.norm(u)
        d = zoo.evaluate(p.layers, p.tensors, point, p.sigma_from, p.condition)
        for i, value in enumerate(d):
            for low, high in (theirs[i * (p.d + 1)], ours[i * (p.d + 1)]):
                assert low - 1e-9 <= value <= high + 1e-9
        wide = sum(b - a for a, b in theirs)
        ratios.append(sum(t - s for s, t in ours) / wide if wide > 0 else 1.0)
    low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
    print(f"\nagreement: {dict(figures)}, width kernel/mpmath {middle:.2f} ({low:.2f} to {high:.2f}), seconds {clock}")
    assert np.median(ratios) < 3
