"""EDICT, BDIA and O-BELM against steps computed by hand, their exact inversion, and where they are stable."""

import jax.numpy as jnp
import numpy as np
import pytest

import fpjax
from fpjax import exact_inverses, process
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError


def bent(params, y, sigma, condition):
    return params * y + 0.3 * jnp.sin(y) / (1 + sigma)


DEN = Denoiser.from_function(bent, np.float64(0.4), (3,))
GRID = process.ddim(4)
IMAGES = np.linspace(-1, 1, 6).reshape(2, 3)


def eps(z, level):
    scale, sigma = GRID.scale(GRID.levels[level]), GRID.levels[level]
    y = z / scale
    return (y - (0.4 * y + 0.3 * np.sin(y) / (1 + sigma))) / sigma


def move(z, e, start, end):
    """DDIM in z-coordinates with a given noise prediction, from level to level."""
    s = [GRID.scale(v) for v in GRID.levels]
    return s[end] / s[start] * z - s[end] * (GRID.levels[start] - GRID.levels[end]) * e


def by_hand(method, a, b):
    """One trajectory down from the pair (a, b) at the noisy end."""
    if method == "edict":
        p, x, y = 0.93, a, b
        for t in (4, 3, 2, 1):
            x = move(x, eps(y, t), t, t - 1)
            y_in = y / GRID.scale(GRID.levels[t]) - (GRID.levels[t] - GRID.levels[t - 1]) * eps(x, t)
            y = y_in * GRID.scale(GRID.levels[t - 1])
            x = p * x + (1 - p) * y
            y = p * y + (1 - p) * x
        return x, y
    for i in (3, 2, 1):
        e = eps(b, i)
        if method == "bdia":
            a, b = b, move(b, e, i, i - 1) + (a - move(b, e, i, i + 1))
        else:
            h, above = GRID.levels[i] - GRID.levels[i - 1], GRID.levels[i + 1] - GRID.levels[i]
            s = [GRID.scale(GRID.levels[k]) for k in (i - 1, i, i + 1)]
            y = (h / above) ** 2 * a / s[2] + (1 - (h / above) ** 2) * b / s[1] - h * (1 + h / above) * e
            a, b = b, s[0] * y
    return a, b


@pytest.mark.parametrize("method", exact_inverses.METHODS)
def test_a_trajectory_computed_by_hand(method):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 2, 3))
    pair = exact_inverses.generate(DEN, exact_inverses.Pair(a, b), GRID, method)
    want = by_hand(method, a, b)
    assert np.allclose(pair.first, want[0], rtol=1e-11, atol=1e-11)
    assert np.allclose(pair.second, want[1], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("method", exact_inverses.METHODS)
@pytest.mark.parametrize(
    "grid", [process.ddim(4), process.edm(5, sigma_min=0.1, sigma_max=5), process.rectified_flow(4)]
)
def test_inversion_is_algebraic(method, grid):
    """For any network, however far from contraction; what rounding there is grows with the network's slope."""
    den = Denoiser.from_function(steep, np.float64(3.0), (3,))
    pair = exact_inverses.invert(den, IMAGES, grid, method)
    again = exact_inverses.generate(den, pair, grid, method)
    size = 1 + np.abs(np.asarray(pair)).max()
    assert np.max(np.abs(again.second - IMAGES)) < 1e-9 * size
    if method == "edict":
        assert np.max(np.abs(again.first - IMAGES)) < 1e-9 * size


def steep(params, y, sigma, condition):
    return jnp.sin(params * y) - 0.3 * y


def test_pairs_of_the_method_are_not_those_of_another():
    pair = exact_inverses.invert(DEN, IMAGES, GRID, "bdia")
    other = exact_inverses.generate(DEN, pair, GRID, "bdia", option=0.9)
    assert np.max(np.abs(other.second - IMAGES)) > 1e-3


@pytest.mark.parametrize("method", exact_inverses.METHODS)
def test_the_matrix_of_the_test_problem_is_what_the_map_does(method):
    """dy = lambda·y: D(y) = (1 + lambda·sigma)·y, one step of equal length, in coordinates where z = y."""
    h, lam = 0.25, -1.3
    row = exact_inverses.Row(*np.asarray([1.0, 1 + h, 1 + 2 * h, 1, 1, 1]))
    down, up, option = exact_inverses.MAPS[method]
    pair = np.asarray([0.7, -0.4])
    got = np.asarray(down(lambda y: -lam * y, pair, row, option))
    matrix = exact_inverses.amplification(method, h * lam)
    assert np.allclose(got, matrix @ pair, rtol=1e-13)
    assert np.allclose(np.asarray(up(lambda y: -lam * y, got, row, option)), pair, rtol=1e-12)


def test_stability_regions():
    """The determinant says it: stable both ways needs both eigenvalues on the unit circle."""
    grid = [x + 1j * y for x in np.linspace(-2.5, 0.5, 61) for y in np.linspace(-1.5, 1.5, 61)]
    both = {
        m: [z for z in grid if exact_inverses.stable(m, z) and exact_inverses.stable(m, z, up=True)]
        for m in exact_inverses.METHODS
    }
    assert both["edict"] == []
    assert both["obelm"] == both["bdia"] != []
    assert all(z.real == pytest.approx(0, abs=1e-9) and abs(z.imag) < 1 for z in both["bdia"])
    assert not any(exact_inverses.stable(m, -0.05) for m in ("bdia", "obelm"))
    assert exact_inverses.stable("edict", -0.05)  # sampling alone
    assert not exact_inverses.stable("edict", -0.05, up=True)
    assert not any(
        exact_inverses.stable("bdia", z, option=0.9) and exact_inverses.stable("bdia", z, True, 0.9) for z in grid
    )
    assert exact_inverses.stable("euler", -1.5)
    assert not exact_inverses.stable("euler", -2.5)
    assert exact_inverses.stable("heun", -1.5)


@pytest.mark.parametrize(
    ("message", "call"),
    {
        "unknown method": lambda: exact_inverses.invert(DEN, IMAGES, GRID, "edit"),
        "must be above 0": lambda: exact_inverses.invert(DEN, IMAGES, process.ddim(4, final_sigma_zero=True), "bdia"),
        "coefficients of its own": lambda: exact_inverses.invert(
            DEN, IMAGES, fpjax.samplers.with_sampler(GRID, "heun"), "edict"
        ),
        "must lie in": lambda: exact_inverses.invert(DEN, IMAGES, GRID, "edict", option=0.0),
        "choose one of": lambda: exact_inverses.amplification("ddim", 0.1),
    }.items(),
)
def test_bad_input(message, call):
    with pytest.raises(FpjaxError, match=message):
        call()
