"""The two layouts give the same answers; starting points, derivatives through trajectories, adapted grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fpjax
from fpjax import adapting, process
from fpjax.adapting import greedy
from fpjax.evidence import FpjaxError
from fpjax.lanes import extrapolation_weights
from fpjax.models import exact


def mixture(seed=0):
    return exact.mixture(np.random.default_rng(seed).normal(size=(6, 5)), 0.3)


def test_layouts_agree_and_lanes_need_fewer_calls():
    den, grid = mixture(), process.ddim(8)
    x = np.random.default_rng(0).normal(size=(16, 5))
    a, b = (fpjax.invert(den, x, grid, tol=1e-11, layout=layout) for layout in ("lanes", "scan"))
    assert a.solved.all()
    assert np.allclose(a.latent, b.latent, rtol=0, atol=1e-8)
    assert np.allclose(a.path, b.path, rtol=0, atol=1e-8)
    assert int(a.calls) <= int(b.calls)
    assert int(a.calls) >= int(np.asarray(a.evaluations).sum(axis=1).max())
    bare = fpjax.invert(den, x, grid, tol=1e-11, history=False)
    assert bare.path is None
    assert np.array_equal(bare.latent, a.latent)


def test_extrapolation_is_exact_for_polynomials_in_log_sigma():
    sigmas = np.geomspace(0.1, 10, 8) * np.linspace(1, 1.3, 8)
    u = np.log(sigmas[1:])
    for order in (1, 2, 3):
        weights = extrapolation_weights(sigmas, order)
        values = u ** (order - 1) + 1
        for i in range(order, 7):
            known = [values[i - 1 - j] if i - 1 - j >= 0 else 0.0 for j in range(3)]
            assert np.isclose(weights[i] @ known, values[i])
    assert not extrapolation_weights(sigmas, 0).any()


def test_predicted_starts_save_evaluations():
    den, grid = mixture(), process.ddim(30)
    x = np.random.default_rng(1).normal(size=(8, 5))
    naive, predicted = (fpjax.invert(den, x, grid, order=order) for order in (0, 2))
    assert np.asarray(predicted.evaluations).sum() < np.asarray(naive.evaluations).sum()
    assert np.allclose(naive.latent, predicted.latent, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("layout", ["lanes", "scan"])
def test_gradients_through_a_trajectory(layout):
    den, grid = mixture().astype(jnp.float64), process.ddim(3)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 5)))
    w = jnp.asarray(np.random.default_rng(3).normal(size=(2, 5)))

    def loss(x, den=den):
        return jnp.sum(w * fpjax.invert(den, x, grid, tol=1e-13, layout=layout).latent)

    gradient = jax.grad(loss)(x)
    h = 1e-5
    for i, j in ((0, 0), (1, 3)):
        e = jnp.zeros_like(x).at[i, j].set(h)
        assert float(gradient[i, j]) == pytest.approx(float((loss(x + e) - loss(x - e)) / (2 * h)), abs=1e-6)


@pytest.mark.long
def test_gradients_in_the_parameters():
    den, grid = mixture().astype(jnp.float64), process.ddim(2)
    x = jnp.asarray(np.random.default_rng(4).normal(size=(2, 5)))

    def loss(shift):
        moved = den.params | {"means": den.params["means"] + shift}
        return jnp.sum(fpjax.invert(type(den)(moved, den.fn, den.shape), x, grid, tol=1e-13).latent ** 2)

    h = 1e-5
    numeric = (loss(jnp.asarray(h)) - loss(jnp.asarray(-h))) / (2 * h)
    assert float(jax.grad(loss)(jnp.asarray(0.0))) == pytest.approx(float(numeric), rel=1e-6)


def test_greedy_grid_has_the_length_of_t12():
    levels = greedy(0.002, 80.0, 0.5, lambda s: np.full_like(s, 1.3))
    assert len(levels) - 1 in (22, 23)  # 22 by the formula; the list of levels is finite
    assert ((1 - levels[:-1] / levels[1:]) * 1.3 <= 0.5 + 1e-12).all()


def test_adapted_grid_contracts():
    den = mixture()
    x = np.asarray(den.params["means"])[:4]  # where the data are, so that K is measured where the path goes
    grid = process.adapt(den, images=x, target_rate=0.5, sigma_min=0.5, sigma_max=20.0)
    inv = fpjax.invert(den, x, grid, solver="picard", tol=1e-9)
    assert inv.solved.all()
    with pytest.raises(FpjaxError):
        process.adapt(den, images=x, target_rate=0.0)


@pytest.mark.long
def test_textbook_newton_has_the_layout_scan():
    den, grid, x = mixture(), process.ddim(4), np.random.default_rng(3).normal(size=(3, 5))
    a = fpjax.invert(den, x, grid, tol=1e-10, solver="newton_gmres", layout="scan")
    b = fpjax.invert(den, x, grid, tol=1e-10, layout="scan")
    assert a.solved.all()
    assert np.allclose(a.latent, b.latent, atol=1e-8)
    with pytest.raises(FpjaxError, match="layout scan only"):
        fpjax.invert(den, x, grid, solver="newton_gmres")


def test_bad_options():
    for options in ({"layout": "spiral"}, {"order": 4}, {"stop": "never"}):
        with pytest.raises(FpjaxError):
            fpjax.invert(mixture(), np.zeros((1, 5)), process.ddim(2), **options)


@pytest.mark.long
def test_compaction_changes_nothing_but_the_work():
    den, grid = mixture(), process.ddim(8)
    x = np.random.default_rng(5).normal(size=(32, 5)) * np.linspace(0.05, 3, 32)[:, None]
    a, b = (fpjax.invert(den, x, grid, tol=1e-11, layout=layout) for layout in ("lanes", "compact"))
    for name in ("exit", "evaluations", "residual", "calls"):
        assert np.array_equal(getattr(a, name), getattr(b, name))
    assert np.allclose(a.path, b.path, rtol=0, atol=1e-12)
    assert int(b.computed) < int(a.computed) == 32 * int(a.calls)
    with pytest.raises(FpjaxError, match="host"):
        jax.jit(lambda x: fpjax.invert(den, x, grid, layout="compact").latent)(jnp.asarray(x))


@pytest.mark.long
def test_all_steps_at_once():
    """Triangular Anderson solves the same system in far fewer calls in a row; block Picard where it contracts."""
    den, grid = mixture(), process.ddim(12)
    x = np.asarray(den.params["means"])
    a = fpjax.invert(den, x, grid, tol=1e-10, solver="anderson")
    b = fpjax.invert(den, x, grid, tol=1e-10, solver="anderson", layout="parallel")
    assert b.solved.all()
    assert np.allclose(a.path, b.path, rtol=0, atol=1e-7)
    assert int(b.calls) < 0.7 * int(a.calls)
    assert int(b.computed) == 6 * 12 * int(b.calls)
    broad = exact.mixture(np.zeros((1, 5)), 3.0)  # one Gaussian, J = 9/(9 + sigma²)
    c = fpjax.invert(broad, x, grid, tol=1e-10, solver="picard", layout="parallel")
    assert c.solved.all()
    sigma = grid.sigmas
    growth = np.prod([1 / (r + (1 - r) * 9 / (9 + s**2)) for r, s in zip(grid.rho, sigma[1:], strict=True)])
    first = x / grid.scale(grid.levels[0])
    assert np.allclose(np.asarray(c.path)[:, -1], first * growth, rtol=1e-8)
    short = fpjax.invert(den, x, grid, tol=1e-10, layout="parallel", limit=3)
    assert not short.solved[:, -1].any()
    assert (np.asarray(short.residual) >= 0).all()
    with pytest.raises(FpjaxError, match="parallel layout"):
        fpjax.invert(den, x, grid, layout="parallel", solver="aitken")


@pytest.mark.long
def test_budget_takes_the_best_grid_it_can_pay():
    den = mixture()
    x = np.asarray(den.params["means"])[:3]
    grid, tried = adapting.budget(den, 60, images=x, rates=(0.5, 2.0), tol=1e-9)
    affordable = [row for row in tried if row["evaluations"] <= 60]
    assert affordable
    assert grid.steps == min(affordable, key=lambda row: row["round_trip"])["steps"]
    with pytest.raises(FpjaxError, match="no grid tried needs at most"):
        adapting.budget(den, 1, images=x, rates=(0.5, 2.0), tol=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("layout", ["lanes", "compact"])
def test_one_record_for_all_steps(layout):
    """Without records the result is that of all steps together, and its size does not depend on their number."""
    den, grid = fpjax.load("digits-plain"), process.ddim(6)
    x, c = fpjax.samples("digits", 9)
    whole = fpjax.invert(den, x, grid, condition=c, tol=1e-3, limit=60, layout=layout)
    one = fpjax.invert(den, x, grid, condition=c, tol=1e-3, limit=60, layout=layout, history=False, records=False)
    assert one.exit.shape == one.residual.shape == one.error_bound.shape == (9, 1)
    assert np.array_equal(one.latent, whole.latent)
    for name, total in (("evaluations", np.sum), ("newton", np.sum), ("residual", np.max), ("basis", np.min)):
        assert np.array_equal(getattr(one, name)[:, 0], total(np.asarray(getattr(whole, name)), axis=1)), name
    assert np.array_equal(one.solved[:, 0], whole.solved[:, -1])
    assert not one.solved.all()


def test_the_bound_without_records_is_a_bound():
    den, grid = fpjax.load("digits-monotone"), process.ddim(4)
    x, c = fpjax.samples("digits", 4)
    whole, one = (fpjax.invert(den, x, grid, condition=c, tol=1e-3, records=r) for r in (True, False))
    assert (np.asarray(one.error_bound)[:, 0] >= 0.999 * np.asarray(whole.error_bound)[:, -1]).all()
    assert np.isfinite(one.error_bound).all()
    with pytest.raises(FpjaxError):
        fpjax.invert(den, x, grid, condition=c, layout="scan", records=False)
