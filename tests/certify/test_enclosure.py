"""The kernel's enclosures: values against 200 digits, Jacobians over balls against points of the ball, norms."""

# ruff: noqa: B023

import itertools

import certify_zoo as zoo
import mpmath
import numpy as np
import pytest
from flint import arb, arb_mat, ctx

import fpjax.certify.check as kernel
from fpjax.certify import enclosure, matrices
from fpjax.certify.matrices import ArbMatrix
from fpjax.certify.multipliers import multipliers

CASES = {
    "mixture": (zoo.MIXTURE, zoo.mixture_tensors),
    "gradient": (zoo.gradient_layers(), zoo.gradient_tensors),
    "relu-gradient": (zoo.gradient_layers("relu2"), zoo.gradient_tensors),
    "softplus-gradient": (zoo.gradient_layers("softplus"), zoo.gradient_tensors),
    "softmax-gradient": (
        zoo.gradient_layers(softmax=True),
        lambda *a, **k: zoo.gradient_tensors(*a, softmax=True, **k),
    ),
    "plain": (zoo.plain_layers(), zoo.plain_tensors),
    "convex": (zoo.convex_layers(), zoo.convex_tensors),
    "patches": (zoo.patch_layers((1, 1, 3), (1, 2)), zoo.patch_tensors),
    "reflected": (zoo.reflected_layers((1, 1, 3), (1, 2)), zoo.patch_tensors),
    "prior": (zoo.guided_prior(), zoo.mixture_tensors),
}


@pytest.fixture(autouse=True)
def _precision():
    with ctx.workprec(128), mpmath.workdps(200):
        yield


def model(tmp_path, name, d=3, classes=2, seed=0):
    layers, make = CASES[name]
    tensors = make(np.random.default_rng(seed), d, classes=classes)
    return layers, tensors, kernel.Model(zoo.write(tmp_path, "m", layers, tensors, (d,), classes))


def big(x) -> mpmath.mpf:
    """An exact ball's midpoint as an mpf, without rounding."""
    man, exp = x.mid().man_exp()
    return mpmath.ldexp(mpmath.mpf(int(man)), int(exp))


def holds(ball, value) -> bool:
    """Whether a ball contains an mpf that is known to 150 digits."""
    return abs(big(ball) - value) <= big(ball.rad()) + (1 + abs(value)) * mpmath.mpf(10) ** -45


def numbers(m):
    return np.asarray([float(v.mid()) for v in m.entries()]).reshape(m.shape)


def balls(v):
    return [arb(float(x)) for x in v]


def digits_jacobian(f, y, h=None):
    """Central differences in 200 digits: truth to 100."""
    h = mpmath.mpf(10) ** -60 if h is None else h
    y = zoo.Digits.array(y)
    columns = []
    for e in np.eye(len(y)):
        e = zoo.Digits.array(e) * h
        columns.append((f(y + e) - f(y - e)) / (2 * h))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_values_contain_the_truth_at_every_precision(tmp_path, name, guidance):
    layers, tensors, m = model(tmp_path, name)
    rng = np.random.default_rng(1)
    for sigma, precision in itertools.product((0.03, 0.6, 40.0), (128, 24, 12)):
        y = (rng.standard_normal(3) * max(1, sigma)).astype(np.float32)
        truth = zoo.step(layers, tensors, y, sigma * 0.4, sigma, 1, guidance, 2, zoo.Digits)
        with ctx.workprec(precision):
            step = kernel.Step(m, 1, guidance, sigma * 0.4, sigma)
            got = step.residual(balls(y), [arb(0)] * 3)
            if all(v.is_finite() for v in got):
                assert all(holds(b, t) for b, t in zip(got, truth, strict=True)), (name, sigma, precision)
        m.cache.clear()
    assert float(max(v.rad() for v in step_values(m, y, guidance))) < 1e-30


def step_values(m, y, guidance):
    return kernel.Step(m, 1, guidance, 1.0, 2.0).residual(balls(y), [arb(0)] * 3)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("guidance", [1.0, 0.5, 4.0])
def test_jacobian_over_a_ball_contains_its_points(tmp_path, name, guidance):
    """M + E with ||E|| <= e holds the Jacobian at 200 digits, at the centre and on the sphere, also at 16 bits."""
    layers, tensors, m = model(tmp_path, name)
    rng = np.random.default_rng(2)
    for sigma, radius, precision in itertools.product((0.1, 0.9, 15.0), (1e-12, 1e-3, 0.25), (128, 20)):
        y = (rng.standard_normal(3) * max(1, sigma) / 2).astype(np.float32)

        def f(v, sigma=sigma):
            return zoo.denoise(layers, tensors, v, sigma, 1, guidance, 2, zoo.Digits)

        with ctx.workprec(precision):
            value = kernel.Step(m, 1, guidance, sigma / 2, sigma).denoise(balls(y), arb(radius))
        m.cache.clear()
        for _ in range(2):
            u = rng.standard_normal(3)
            point = y + radius * (1 - 1e-9) * u / np.linalg.norm(u)
            truth = digits_jacobian(f, point).ravel()
            assert norm_at_most(truth, value), (name, sigma, radius, precision)


def norm_at_most(truth, value) -> bool:
    """Whether some matrix of M's box is within e of the truth (Frobenius; e bounds the smaller spectral norm)."""
    if not value.e.is_finite():
        return True
    n = round(len(truth) ** 0.5)
    off = np.zeros((n, n))
    for i, (t, b) in enumerate(zip(truth, value.M.entries(), strict=True)):
        away = abs(float(t - mpmath.mpf(float(b.mid())))) - float(b.rad()) - 1e-15 * abs(float(t))
        off[i // n, i % n] = max(0.0, away)
    exact_gap = np.linalg.norm(off, 2)
    return exact_gap <= float(value.e) * (1 + 1e-9) + 1e-15


def test_the_ball_bound_is_tight_for_small_radii(tmp_path):
    """At radius 1e-8 the bound of how far J moves is within 100 of what sampling sees: not vacuous."""
    for name in CASES:
        if name == "relu-gradient":  # its Jacobian is piecewise constant
            continue
        layers, tensors, m = model(tmp_path, name)
        y, sigma, radius = np.asarray([0.3, -0.2, 0.5]), 0.7, 1e-8
        value = kernel.Step(m, 1, 1.0, 0.3, sigma).denoise(balls(y), arb(radius))
        m.cache.clear()
        rng, seen = np.random.default_rng(3), 0.0
        for _ in range(6):
            u = rng.standard_normal(3)
            point = y + radius * u / np.linalg.norm(u)
            j = digits_jacobian(lambda v: zoo.evaluate(layers, tensors, v, sigma, 1, zoo.Digits), point)
            seen = max(seen, np.linalg.norm(j.astype(float) - numbers(value.M), 2))
        assert seen <= float(value.e) * (1 + 1e-6) <= 100 * seen, (name, seen, float(value.e))


def test_convolution_is_the_sliding_window(tmp_path):
    rng = np.random.default_rng(4)
    tensors = {"w": zoo.f32(rng.standard_normal((3, 1, 3, 5))), "b": zoo.f32(rng.standard_normal(3))}
    tensors |= {"v": zoo.f32(rng.standard_normal((1, 3, 1, 3)))}
    layers = [
        {"op": "conv", "out": "h", "in": "y", "weight": "w", "bias": "b", "shape": [1, 4, 3]},
        {"op": "elementwise", "out": "a", "in": "h", "fn": "tanh"},
        {"op": "conv", "out": "D", "in": "a", "weight": "v", "shape": [3, 4, 3]},
    ]
    m = kernel.Model(zoo.write(tmp_path, "conv", layers, tensors, (1, 4, 3)))
    y = rng.standard_normal(12)
    found = kernel.Step(m, 0, 1.0, 0.0, 1.0).denoise(balls(y), arb(1e-9))
    truth = zoo.evaluate(layers, tensors, y, 1.0, 0)
    assert np.allclose(truth, [float(v) for v in found.c], atol=1e-12)
    j = zoo.jacobian(lambda v: zoo.evaluate(layers, tensors, v, 1.0, 0), y)
    assert np.allclose(j, numbers(found.M), atol=1e-8)


@pytest.mark.parametrize("fn", enclosure.FUNCTIONS)
def test_functions_and_slopes_contain_the_truth(fn):
    value, derivative, (low, high) = enclosure.FUNCTIONS[fn]
    rng = np.random.default_rng(5)
    for precision in (128, 30, 10):
        with ctx.workprec(precision):
            for x, width in itertools.product([0.0, *rng.standard_normal(8) * 4, -30.0, 25.0], (0.0, 1e-6, 0.5, 3.0)):
                ball = arb(float(x), float(width))
                f, d = value(arb(float(x))), enclosure.slope(derivative, ball, low, high)
                bottom, top = (-np.inf if low is None else low), (np.inf if high is None else high)
                for t in np.linspace(x - width, x + width, 7):
                    t = mpmath.mpf(float(t))
                    true_slope = slope_of(fn, t)
                    assert bottom <= true_slope <= top
                    assert not d.is_finite() or holds(d, true_slope), (fn, x, width, precision)
                truth = zoo.apply(fn, np.asarray([mpmath.mpf(float(x))], object), zoo.Digits)[0]
                assert not f.is_finite() or holds(f, truth)


def slope_of(fn, t):
    if fn == "relu":
        return mpmath.mpf(1 if t > 0 else 0)
    h = mpmath.mpf(10) ** -60
    ends = [zoo.apply(fn, np.asarray([t + s * h], object), zoo.Digits)[0] for s in (1, -1)]
    return mpmath.nint((ends[0] - ends[1]) / (2 * h) * mpmath.mpf(10) ** 50) / mpmath.mpf(10) ** 50


@pytest.mark.parametrize("shape", [(5, 5), (7, 3), (3, 7), (1, 1)])
def test_spectral_norm_brackets(shape):
    """true <= bound <= 1.001 true, and lambda_min likewise from below."""
    rng = np.random.default_rng(6)
    for _ in range(20):
        a = rng.standard_normal(shape)
        bound = float(ArbMatrix.of(*shape, balls(a.ravel())).norm2())
        true = np.linalg.norm(a, 2)
        assert true * (1 - 1e-12) <= bound <= 1.001 * true
        s = a @ a.T - 0.5 * np.eye(shape[0])
        low, true = float(matrices.lambda_min(ArbMatrix.of(*s.shape, balls(s.ravel())))), np.linalg.eigvalsh(s)[0]
        assert true - 0.01 * np.linalg.norm(s, 2) <= low <= true + 1e-12


def test_norms_of_balls_cover_every_matrix_inside():
    rng = np.random.default_rng(7)
    a = rng.standard_normal((4, 4))
    wide = ArbMatrix.of(4, 4, [arb(float(v), 0.1) for v in a.ravel()])
    top, low = float(wide.norm2()), float(matrices.lambda_min((wide + wide.T) * arb(0.5)))
    for _ in range(200):
        b = a + 0.1 * rng.choice([-1, 1], (4, 4))
        assert np.linalg.norm(b, 2) <= top
        assert low <= np.linalg.eigvalsh((b + b.T) / 2)[0]


def test_bounds_are_upper_bounds_and_nothing_finite_comes_from_nan():
    wide = arb(1, 0.25)
    assert matrices.upper(wide) >= 1.25
    assert matrices.upper(-wide) >= 1.25
    assert not matrices.upper(arb.nan()).is_finite()
    assert not matrices.upper(arb(0, arb.pos_inf())).is_finite()
    assert matrices.largest([arb(0.5), wide, arb(-3, 0.5)]) >= 3.5
    assert not matrices.largest([arb(1), arb.nan()]).is_finite()
    assert matrices.norm([arb(3, 0.1), arb(4)]) >= 5.06
    assert float(matrices.norm([arb(3), arb(4)])) == 5
    assert not matrices.norm([arb.nan()]).is_finite()
    assert ArbMatrix(arb_mat(2, 2)).norm2() == 0
    low = matrices.lambda_min(ArbMatrix.of(1, 1, [arb.nan()]))
    assert not low >= -1e300
    assert matrices.exact(0.1) * 2**55 == 3602879701896397


def test_everywhere_bounds_hold_at_far_points(tmp_path):
    """The global bounds (radius infinite) hold at points far and near."""
    rng = np.random.default_rng(8)
    for name in CASES:
        layers, tensors, m = model(tmp_path, name)
        for guidance in (1.0, 0.5, 2.5):
            step = kernel.Step(m, 0, guidance, 0.4, 0.8)
            value = step.everywhere()
            modulus, (g, f) = step.modulus(value), step.lipschitz(value)
            for scale in (0.1, 1, 10):
                y = rng.standard_normal(3) * scale
                j = zoo.jacobian(lambda v: zoo.denoise(layers, tensors, v, 0.8, 0, guidance, 2), y)
                df, dg = 0.5 * np.eye(3) + 0.5 * j, 0.5 * (np.eye(3) - j)
                assert float(modulus) <= np.linalg.eigvalsh((df + df.T) / 2)[0] + 1e-7
                assert np.linalg.norm(df, 2) <= float(f) + 1e-7
                assert np.linalg.norm(dg, 2) <= float(g) + 1e-7
            if name != "plain" and guidance <= 1:
                assert step.monotone()
                assert float(modulus) >= 0.5 - 1e-12
            if name == "plain":
                assert not step.monotone()
        m.cache.clear()


def test_multipliers_find_the_weighted_gram_bound(tmp_path):
    """(b) For a gradient network LipSDP gives ||W diag(a^2) W^T||, the largest Hessian, below max(a^2) ||W||^2."""
    _, tensors, m = model(tmp_path, "gradient")
    step = kernel.Step(m, 0, 1.0, 0.4, 0.8)
    value = step.everywhere()
    got, _ = multipliers(step, [arb(0)] * 3, arb.pos_inf(), "lipschitz")
    gain = np.log1p(np.exp(tensors["Wa"][:, 0] * np.log(0.8) / 4 + tensors["ba"]))
    skip = 0.25 / (0.64 + 0.25)
    product = 0.5 + 0.5 * (skip + np.linalg.norm(tensors["W"], 2) ** 2 * np.max(gain**2))
    exact = 0.5 + 0.5 * (skip + np.linalg.norm(tensors["W"] @ np.diag(gain**2) @ tensors["W"].T, 2))
    assert exact * (1 - 1e-9) <= got <= 1.01 * exact < 0.95 * product
    assert got <= float(step.lipschitz(value)[1]) < product
    fast = kernel.Model(tmp_path / "m.json", fast=True)  # where no effect looks like a tiny one
    quick = kernel.Step(fast, 0, 1.0, 0.4, 0.8)
    assert multipliers(quick, [arb(0)] * 3, arb.pos_inf(), "lipschitz")[0] == pytest.approx(got, rel=1e-3)
