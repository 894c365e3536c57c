"""Each baseline against a step computed by hand on D(y) = y/2, where G(y) = y_s + q·y with q = (1 - rho)/2."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpjax import baselines, process
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.step import Step

T = np.asarray([1.0, -2.0])  # y_s
Q = 0.3  # slope of G at rho = 0.4


def half(params, y, sigma, condition):
    return params * y


DEN = Denoiser.from_function(half, jnp.asarray(0.5), (2,)).astype(jnp.float64)
STEP = Step(DEN, jnp.asarray(2.0), jnp.asarray(0.4), jnp.asarray(T), jnp.int32(0))
PLACE = baselines.Place(*(jnp.asarray(v) for v in (0.1, 1.2, 0.5, 3.0)))


def after(method, **options):
    out = baselines.BASELINES[method](STEP, PLACE, jax.random.key(0), **options)
    return np.asarray(out.y), int(out.evaluations)


def test_naive_and_plain_iteration():
    y, n = after("naive")
    assert np.allclose(y, T * (1 + Q), rtol=1e-14)
    assert n == 1
    y, n = after("fpi", iterations=3)
    assert np.allclose(y, T * (1 + Q + Q**2 + Q**3), rtol=1e-14)
    assert n == 3


def test_aidi():
    one, two = T * (1 + Q), T * (1 + Q * (1 + Q))  # G(y_s) and its image
    y, n = after("aidi_average", iterations=3)
    second = (one + two) / 2
    assert np.allclose(y, (T + Q * second + two) / 2, rtol=1e-14)
    assert n == 3
    assert np.allclose(after("aidi_anderson", iterations=1)[0], one, rtol=1e-14)
    # r is affine along one line: the first accelerated step is the secant's, and that is the solution.
    assert np.allclose(after("aidi_anderson", iterations=2)[0], T / (1 - Q), rtol=1e-12)


def test_renoise_averages_the_last_predictions():
    iterates = [T * sum(Q**j for j in range(k + 2)) for k in range(4)]
    y, n = after("renoise", iterations=4, averaged=3)
    assert np.allclose(y, np.mean(iterates[1:], axis=0), rtol=1e-14)
    assert n == 4


def test_easyinv_blends_inside_its_window_only():
    blended = 0.5 * T * (1 + Q) + 0.5 * 1.2 * T
    assert np.allclose(after("easyinv")[0], blended, rtol=1e-14)
    assert np.allclose(after("easyinv", last=0.1)[0], T * (1 + Q), rtol=1e-14)


def test_gnri_is_a_coordinate_newton_step():
    r = T - (1 - Q) * T  # G(y_s) - y_s; the prior and its gradient are 0 at y_s
    f, g = np.abs(r).sum(), -(1 - Q) * np.sign(r)
    y, n = after("gnri", iterations=1, eta=1e-3)
    assert np.allclose(y, T - f / (2 * (g + 1e-3)), rtol=1e-13)
    assert n == 3
    away = np.sum((y - T) ** 2) / (2 * 3.0 * 2)
    r = T - (1 - Q) * y
    f = np.abs(r).sum() + 0.1 * away
    g = -(1 - Q) * np.sign(r) + 0.1 * (y - T) / (3.0 * 2)
    assert np.allclose(after("gnri", iterations=2)[0], y - f / (2 * (g + 1e-3)), rtol=1e-12)


def test_spdinv_descends_the_norm():
    r = Q * T
    y, n = after("spdinv", iterations=1, rate=0.01)
    assert np.allclose(y, T + 0.01 * (1 - Q) * r / np.linalg.norm(r), rtol=1e-13)
    assert n == 3
    y, n = after("spdinv", iterations=25, stop=10.0)
    assert np.array_equal(y, T)
    assert n == 3  # it looked once and stopped


def test_inter_path_stops_when_its_loss_has_settled():
    # The inter-path loss is Q^k·|n|: its change relative to the first falls below 0.1 at (1 - Q)·Q^(k-2) <= 0.1, k = 4.
    y, n = after("inter_path", tol=0.1)
    assert n == 2 * 4
    assert np.allclose(y, T * sum(Q**j for j in range(5)), rtol=1e-14)


def test_intra_path_stops_by_the_same_rule_on_one_path():
    # Its loss is Q^k of the first: the change (1 - Q)·Q^(k-1) falls below 0.1 at k = 3, the fourth evaluation.
    y, n = after("intra_path", tol=0.1)
    assert n == 4
    assert np.allclose(y, T * sum(Q**j for j in range(5)), rtol=1e-14)


def test_all_have_one_signature_and_a_source():
    for method in baselines.BASELINES.values():
        assert list(inspect.signature(method).parameters)[:3] == ["p", "place", "key"]
        assert method.__doc__


def test_a_trajectory_of_each_and_its_measured_residual():
    x = np.asarray([[0.3, -0.1], [0.7, 0.2]])
    grid = process.ddim(20)
    for method in ("naive", "fpi", "easyinv"):
        run = baselines.invert(DEN, x, grid, method)
        y = np.asarray(run.path)
        f = grid.rho[:, None] * y[:, 1:] + (1 - grid.rho)[:, None] * 0.5 * y[:, 1:]
        assert np.allclose(run.residual, np.linalg.norm(y[:, :-1] - f, axis=-1), rtol=1e-9)
        assert np.allclose(run.latent, y[:, -1] * grid.scale(grid.levels[-1]), rtol=1e-12)
    with pytest.raises(FpjaxError, match="unknown baseline"):
        baselines.invert(DEN, x, grid, "guess")
    with pytest.raises(FpjaxError, match="has no option"):
        baselines.invert(DEN, x, grid, "fpi", averaged=2)
