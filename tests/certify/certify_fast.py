"""What the fast arithmetic must hold: exact rational answers inside its balls, and Arb's enclosures inside its own."""

import itertools
import time
from fractions import Fraction

import numpy as np
from flint import arb, ctx

SIZES = ("ordinary", "cancelling", "small", "subnormal", "huge", "integers", "mixed", "zero")


def numbers(rng, size: str, shape):
    """Float64 matrices of a kind: of ordinary size, of many magnitudes, beside the limits of float64."""
    v = rng.standard_normal(shape)
    if size == "cancelling":
        return v * 2.0 ** rng.integers(-40, 40, shape)
    if size == "small":
        return v * 1e-160
    if size == "subnormal":
        return v * 1e-307 * rng.choice([1, 1e-3, 1e-10], shape)
    if size == "huge":
        return v * 1e155
    if size == "integers":
        return rng.integers(-3, 4, shape).astype(float)
    if size == "mixed":
        return v * 10.0 ** rng.integers(-300, 150, shape)
    return np.zeros(shape) if size == "zero" else v


def fractions(m):
    return np.vectorize(Fraction, otypes=[object])(m)


def corner(rng, mid, rad):
    """An exact matrix at a random corner of the box."""
    return fractions(mid) + fractions(rad) * rng.choice([-1, 1], mid.shape)


def inside(k, found, truth) -> bool:
    """Whether a FloatMatrix holds an exact matrix."""
    away = np.abs(fractions(found.mid) - truth)
    wide = np.where(np.isfinite(found.rad), found.rad, 0.0)
    return bool(np.all((away <= fractions(wide)) | ~np.isfinite(found.rad)))


def rational(x: arb) -> Fraction:
    """An exact arb as a fraction."""
    man, exp = x.man_exp()
    return Fraction(int(man)) * Fraction(2) ** int(exp)


def at_most(x: arb, square: Fraction) -> bool:
    """Whether an exact number is below a bound, by their squares."""
    return not x.is_finite() or (x.is_exact() and square <= rational(x) ** 2)


def pairs(rng):
    for first, second in itertools.product(SIZES, SIZES):
        yield numbers(rng, first, (2, 3)), numbers(rng, second, (3, 2)), numbers(rng, first, (2, 3))


def radii(rng, m, i: int):
    """No radii, radii of the rounding size, wide ones, and radii around zero."""
    if i == 0:
        return np.zeros(m.shape)
    rad = np.abs(m) * (2.0**-50, 0.25, 3.0)[i - 1] * rng.uniform(0.5, 1, m.shape)
    return np.where(rad < 2.0**-1022, 0.0, rad)


def clean(m):
    return np.where(np.abs(m) < 2.0**-1022, 0.0, m)


def cases():
    """(name, case of the kernel k): exact answers lie inside, at random corners of random boxes."""

    def products(k):
        rng, good = np.random.default_rng(0), True
        with ctx.workprec(128):
            for i, (a, b, c) in enumerate(pairs(rng)):
                ra, rb, rc = (radii(rng, m, (i + j) % 4) for j, m in enumerate((a, b, c)))
                a, b, c = clean(a), clean(b), clean(c)
                if i % 5 == 0:
                    a = np.zeros(a.shape)  # all of the product is radius: nothing hides a rounding
                A, B, C = (k.FloatMatrix(*m) for m in ((a, ra), (b, rb), (c, rc)))
                t = [arb(float(x), float(r)) for x, r in zip(b[:2, 0], rb[:2, 0], strict=True)]
                for _ in range(3):
                    x, y, z = corner(rng, a, ra), corner(rng, b, rb), corner(rng, c, rc)
                    s = np.asarray([rational(v.mid()) + rational(v.rad()) * int(rng.choice([-1, 1])) for v in t])
                    good &= inside(k, A @ B, x @ y) and inside(k, A + C, x + z) and inside(k, A - C, x - z)
                    good &= inside(k, A.scaled(t), s[:, None] * x) and inside(k, A.T, x.T)
                    good &= inside(k, A.take([2, 0]), x[:, [2, 0]])
                    rows = (x * x).sum(axis=1)
                    good &= all(at_most(n, q) for n, q in zip(A.row_norms(), rows, strict=True))
                    good &= at_most(A.norm(), rows.sum())
        return bool(good)

    def sharp(k):  # radii that are attained: the ends of the result are those of the exact box
        rng, good = np.random.default_rng(1), True
        for _ in range(200):
            a, b = np.zeros((1, 3)), np.abs(rng.standard_normal((3, 1)))
            ra, rb = rng.uniform(0.1, 1, a.shape), rng.uniform(0.1, 1, b.shape)
            x, y = fractions(ra), fractions(b) + fractions(rb)
            good &= inside(k, k.FloatMatrix(a, ra) @ k.FloatMatrix(b, rb), x @ y)
            good &= inside(k, k.FloatMatrix(a, ra) + k.FloatMatrix(a, rb.T), x + fractions(rb.T))
            t = arb(0, float(rb[0, 0]))
            good &= inside(k, k.FloatMatrix(b, rb).scaled([t] * 3), y * rational(t.rad()))
            good &= at_most(k.FloatMatrix(b.T, rb.T).norm(), (y * y).sum())
        return bool(good)

    def rounded(k):  # the error of one rounding, without any radius
        rng, good = np.random.default_rng(2), True
        for _ in range(200):
            a, b = rng.standard_normal((2, 1, 4)), rng.standard_normal((4, 1))
            A, C, B = k.FloatMatrix(a[0], 0 * a[0]), k.FloatMatrix(a[1], 0 * a[1]), k.FloatMatrix(b, 0 * b)
            x, z, y = fractions(a[0]), fractions(a[1]), fractions(b)
            good &= inside(k, A @ B, x @ y) and inside(k, A + C, x + z)
            third = arb(1) / 3
            good &= inside(k, A.scaled([third]), x * rational(third.mid()))
        with ctx.workprec(128):
            unit = k.FloatMatrix.eye(2, arb(1) / 3)
        good &= inside(k, unit, np.asarray([[Fraction(1, 3), Fraction(0)], [Fraction(0), Fraction(1, 3)]]))
        good &= unit.rad[0, 1] == 0
        tiny = 2.0**-1000
        A, B = (
            k.FloatMatrix(np.full((1, 1), tiny), np.zeros((1, 1))),
            k.FloatMatrix(np.full((1, 1), tiny), np.zeros((1, 1))),
        )
        good &= inside(k, A @ B, np.full((1, 1), Fraction(tiny) ** 2, object))
        good &= inside(k, A.scaled([arb(tiny)]), np.full((1, 1), Fraction(tiny) ** 2, object))
        low = np.full((1, 1), 2.0**-1030)
        good &= inside(k, k.FloatMatrix(low, 0 * low), fractions(low))
        good &= inside(k, k.FloatMatrix.of(1, 1, [2.0**-1030]), fractions(low))
        return bool(good)

    def spectral(k):
        rng, good = np.random.default_rng(3), True
        with ctx.workprec(128):
            for shape in ((3, 5), (5, 3), (6, 6), (1, 1)):
                for size in (1.0, 1e-200, 1e200, 1e-310):
                    a = clean(rng.standard_normal(shape) * size)
                    rad = np.where(np.abs(a) * 0.01 < 2.0**-1022, 0.0, np.abs(a) * 0.01)
                    tight, wide = k.FloatMatrix(a, 0 * a).norm2(), k.FloatMatrix(a, rad).norm2()
                    scale = max(np.abs(a).max(), 1e-300)
                    true = np.linalg.norm(a / scale, 2)
                    near = rng.choice([-1, 1], (30, *shape)) * (rad / scale) + a / scale
                    good &= bool(tight / arb(scale) >= true * (1 - 1e-14) or (a == 0).all())
                    good &= bool(tight / arb(scale) <= 1.002 * true + 1e-300)
                    good &= bool(wide / arb(scale) >= max(np.linalg.norm(m, 2) for m in near) * (1 - 1e-14))
            for d in (1, 4, 9):  # the norm of a multiple of the identity is known exactly; all its values crowd
                s = k.FloatMatrix.eye(d, arb(1) / 3)
                good &= bool(s.norm2() >= arb(1) / 3) and bool(k.lambda_min(s) <= arb(1) / 3)
            start = time.process_time()  # the smaller of the two Gram matrices is the one that is squared
            k.FloatMatrix(np.ones((1, 2000)), np.zeros((1, 2000))).norm2()
            good &= time.process_time() - start < 1
            rank = k.FloatMatrix.of(2, 2, [1.0, 1.0, 1.0, 1.0])
            good &= bool(rank.norm2() >= 2) and bool(k.lambda_min(rank) <= 0) and bool(k.lambda_min(rank) > -1e-2)
            bad = k.FloatMatrix(np.full((2, 2), np.nan), np.zeros((2, 2)))
            good &= not bad.norm2().is_finite() and not bad.norm().is_finite() and bool(np.isinf(bad.rad).all())
            over = k.FloatMatrix(np.full((2, 2), 1e200), np.zeros((2, 2)))
            good &= bool(np.isinf((over @ over).rad).all())
            zero = k.FloatMatrix(np.zeros((2, 3)), np.zeros((2, 3)))
            good &= bool(zero.norm() == 0) and bool(zero.norm2() < 1e-100)
        for precision in (10, 20):  # the bound must not fall below the norm with few bits
            for v in (*rng.uniform(0.1, 3, 40), 1 / 3):
                with ctx.workprec(precision):
                    found = k.FloatMatrix(np.full((1, 1), v), np.zeros((1, 1))).norm2()
                with ctx.workprec(200):
                    good &= bool(found >= float(v))
        return bool(good)

    def split(k):
        third = arb(1) / 3
        values = [
            third,
            arb(1, 0.25),
            arb(0.5),
            2.5,
            arb(10) ** 400,
            arb.nan(),
            arb(0, arb.pos_inf()),
            0.0,
            arb(2) ** -1070,
        ]
        mid, rad = k.split(values)
        good = bool(np.all(rad[[2, 3, 7]] == 0)) and bool(np.all(np.isinf(rad[4:7])))
        for i in (0, 1, 8):
            good &= abs(rational(values[i].mid()) - Fraction(mid[i])) + rational(values[i].rad()) <= Fraction(rad[i])
        return good and mid[8] == 0 and k.above(arb(0)) == 0 and k.above(arb(1) / 3 - third.rad()) >= 1 / 3

    def middles(k):  # the midpoint of a slightly smaller ball lies inside, and little else does
        step = arb(2) ** -22
        (found,) = k.FloatMatrix.middles([arb(1, 0.5)])
        return found.contains(arb(1) + step) and found.contains(arb(1) - step) and bool(found.rad() < 1e-6)

    def roots(k):  # the roundings of a norm are covered before it is widened for Arb's sake
        rng, good, wider = np.random.default_rng(4), True, k.WIDER
        k.WIDER = arb(1)
        try:
            for _ in range(200):
                a = rng.standard_normal((4, 5))
                rows = (fractions(a) ** 2).sum(axis=1)
                found = k.FloatMatrix(a, 0 * a).row_norms()
                good &= all(at_most(n, q) for n, q in zip(found, rows, strict=True))
                for v in map(float, np.abs(a[0])):
                    with ctx.workprec(128):  # squared again and again, and rounded each time
                        good &= bool(k.FloatMatrix(np.full((1, 1), v), np.zeros((1, 1))).norm2() >= v)
                    with ctx.workprec(10):  # the last sum is rounded too
                        found = k.FloatMatrix(np.full((1, 1), v), np.full((1, 1), abs(a[1, 0]))).norm2()
                    good &= rational(found) >= Fraction(v) + Fraction(abs(a[1, 0]))
        finally:
            k.WIDER = wider
        return bool(good)

    names = (products, sharp, rounded, spectral, split, middles, roots)
    return [(f"fast {f.__name__}", f) for f in names]


def outside(fast, ball) -> str:
    """What of Arb's enclosure (a Value) the fast one does not contain; empty if it contains all of it."""
    with ctx.workprec(2000):
        for what in ("c", "x"):
            wide = zip(getattr(fast, what), getattr(ball, what), strict=True)
            if not all(not p.is_finite() or p.contains(q) for p, q in wide):
                return what
        if (fast.M is None) is not (ball.M is None) or fast.psd is not ball.psd or fast.bend != ball.bend:
            return "structure"
        if ball.M is None or not fast.e.is_finite():
            return ""
        gaps = []
        for p, q in zip(fast.M.entries(), ball.M.entries(), strict=True):
            if p.is_finite():
                gaps.append(((p.mid() - q.mid()).abs_upper() + q.rad() - p.rad()).max(arb(0)))
        gap = sum((g * g for g in gaps), arb(0)).sqrt()
        return "" if gap + ball.e <= fast.e else f"J by {float(gap):.1e}, e {float(ball.e):.17g} {float(fast.e):.17g}"
