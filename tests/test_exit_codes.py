"""Every exit code, lane by lane; residuals that belong to the returned point; methods against known solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpjax import process
from fpjax.evidence import Exit, FpjaxError
from fpjax.models import exact
from fpjax.solve import METHODS, SOLVERS, check_solver, solve
from fpjax.step import F, G, Step


def affine(y, params):
    """y -> a·y + b, with a fixed point at b/(1 - a)."""
    a, b = params
    return a * y + b


def spoiled(y, params):
    """NaN beyond 10, otherwise doubling."""
    return jnp.where(jnp.abs(y) > 10, jnp.nan, 2 * y + params)


def rootless(y, params):
    """y + 1 + y²: no fixed point; the residual's minimum is 1 at 0."""
    return y + params + y**2


def run(step, params, solver, *, y0=None, tol=1e-10, limit=50):
    y0 = jnp.zeros(3) if y0 is None else y0
    return solve(step, y0, params, solver=solver, tol=tol, limit=limit)


A = jnp.asarray(0.5)
B = jnp.asarray([1.0, 2.0, 3.0])


@pytest.mark.parametrize("solver", SOLVERS)
def test_converged(solver):
    s = run(affine, (A, B), solver)
    assert int(s.exit) == Exit.CONVERGED
    assert np.allclose(s.y, 2 * B, rtol=1e-9)
    assert float(s.residual) <= 1e-10


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_residual_belongs_to_the_returned_point(solver):
    for limit in (1, 2, 7):
        s = run(affine, (jnp.asarray(-0.9), B), solver, limit=limit)
        assert float(s.residual) == pytest.approx(float(jnp.linalg.norm(affine(s.y, (jnp.asarray(-0.9), B)) - s.y)))


def test_step_limit():
    s = run(affine, (jnp.asarray(0.99), B), "picard", limit=10)
    assert int(s.exit) == Exit.STEP_LIMIT
    assert int(s.iterations) == 10
    assert int(s.evaluations) == 11


def test_a_small_step_is_not_called_converged():
    """z -> 0.999 z + 1 (truth 1000): the step is small long before the error is."""
    s = solve(affine, jnp.zeros(1), (jnp.asarray(0.999), jnp.ones(1)), solver="picard", tol=1e-5, limit=5000)
    assert int(s.exit) == Exit.STEP_LIMIT
    assert float(s.rate) == pytest.approx(0.999, abs=1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_nan_is_nonfinite_and_never_a_step_limit(solver):
    s = run(spoiled, jnp.asarray([1.0, jnp.nan, 1.0]), solver, limit=1)
    assert int(s.exit) == Exit.NONFINITE


def test_nan_on_the_way_is_nonfinite():
    assert int(run(spoiled, jnp.ones(3), "picard").exit) == Exit.NONFINITE


def test_diverged():
    assert int(run(affine, (jnp.asarray(3.0), B), "picard").exit) == Exit.DIVERGED


def test_stalled_where_no_solution_exists():
    assert int(run(rootless, jnp.ones(3), "newton_krylov").exit) == Exit.STALLED


@pytest.mark.parametrize("solver", ["picard", "anderson", "newton_krylov", "auto"])
def test_rounding_noise_is_converged_to_precision(solver):
    s = run(affine, (A, B * 1e8), solver, tol=1e-30, limit=500)
    assert int(s.exit) in (Exit.CONVERGED_TO_PRECISION, Exit.CONVERGED)
    assert np.allclose(s.y, 2e8 * B, rtol=1e-12)


def test_float32_stalls_at_its_noise_and_says_so():
    den = exact.mixture(np.random.default_rng(0).normal(size=(40, 64)), 0.5).astype(jnp.float32)
    targets = jnp.asarray(np.random.default_rng(1).normal(size=(16, 64)), jnp.float32)

    def one(y_s):
        p = Step(den, jnp.float32(3.0), jnp.float32(0.7), y_s, jnp.int32(0))
        return solve(G, y_s, p, solver="picard", tol=1e-20, limit=500)

    s = jax.vmap(one)(targets)
    assert (s.exit == Exit.CONVERGED_TO_PRECISION).any()
    assert set(s.exit.tolist()) <= {Exit.CONVERGED_TO_PRECISION, Exit.CONVERGED}  # CONVERGED only at residual 0
    assert (s.residual < 1e-5).all()


def jittered(y, p):
    """A stiff map with noise of ``level`` roundings of y, different from point to point as rounding is."""
    a, b, level = p
    eps = jnp.finfo(y.dtype).eps
    noise = jnp.sin((y + jnp.roll(y, 1)) * (0.37 / eps)) * (2 / y.size) ** 0.5
    return a @ jnp.tanh(y) + b + level * eps * jnp.sqrt(y @ y) * noise.astype(y.dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_noise_of_any_likely_size_is_recognised(dtype):
    """T16: how many roundings the noise is depends on the network and on the machine's matrix products."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(32, 16, 16)))[0]
    a = jnp.asarray(np.einsum("nij,nj,nkj->nik", q, rng.uniform(-12, 0.9, size=(32, 16)), q), dtype)
    b = jnp.asarray(3 * rng.normal(size=(32, 16)), dtype)
    level = jnp.asarray(np.repeat([8, 32, 128, 512], 8), dtype)
    tol = float(jnp.finfo(dtype).eps) / 10
    s = jax.vmap(lambda *p: solve(jittered, jnp.zeros(16, dtype), p, tol=tol))(a, b, level)
    assert set(s.exit.tolist()) == {Exit.CONVERGED_TO_PRECISION}


def test_every_lane_has_its_own_exit_code():
    slopes = jnp.asarray([0.5, 0.9999, 3.0, jnp.nan])
    lanes = jax.vmap(lambda a: run(affine, (a, B), "picard", limit=60))(slopes)
    assert lanes.exit.tolist() == [Exit.CONVERGED, Exit.STEP_LIMIT, Exit.DIVERGED, Exit.NONFINITE]
    alone = [run(affine, (a, B), "picard", limit=60) for a in slopes]
    assert lanes.exit.tolist() == [int(s.exit) for s in alone]
    assert lanes.iterations.tolist() == [int(s.iterations) for s in alone]
    assert np.array_equal(lanes.y[0], alone[0].y)


def test_stalled_and_precision_lanes_under_vmap():
    lanes = jax.vmap(lambda c: run(rootless, c, "newton_krylov"))(jnp.asarray([[1.0] * 3, [-1.0] * 3]))
    assert int(lanes.exit[0]) == Exit.STALLED
    assert Exit(int(lanes.exit[1])).solved  # its first probes see a singular Jacobian, so no error of 1e-10 is stated
    tols = jnp.asarray([1e-8, 1e-40])
    lanes = jax.vmap(lambda t: run(affine, (A, B), "picard", tol=t, limit=500, y0=jnp.full(3, 1 / 3)))(tols)
    assert lanes.exit.tolist()[0] == Exit.CONVERGED
    assert lanes.exit.tolist()[1] in (Exit.CONVERGED, Exit.CONVERGED_TO_PRECISION)


def test_every_exit_code_has_a_sentence():
    for code in Exit:
        assert code.message.endswith(".")


@pytest.mark.long
@given(st.integers(0, 10**6), st.sampled_from(["anderson", "newton_krylov", "auto", "relaxed"]))
def test_unique_solutions_are_found_beyond_contraction(seed, solver):
    """Exact denoisers: T2 holds with m >= rho, so where a method says CONVERGED, residual/rho bounds the true error (T8)."""
    rng = np.random.default_rng(seed)
    den = exact.mixture(rng.normal(size=(5, 4)), 0.3).astype(jnp.float64)
    truth = jnp.asarray(rng.normal(size=4))
    p = Step(den, jnp.asarray(0.8), jnp.asarray(0.4), jnp.zeros(4), jnp.int32(0))
    p = p._replace(target=F(truth, p))
    s = solve(G, p.target, p, solver=solver, tol=1e-9, limit=300)
    if int(s.exit) == Exit.CONVERGED:
        assert float(jnp.linalg.norm(s.y - truth)) <= float(s.residual) / 0.4 + 1e-12
    if solver in ("auto", "newton_krylov"):
        assert int(s.exit) == Exit.CONVERGED


def test_t4_plain_iteration_fails_and_relaxed_succeeds():
    grid = process.ddim(50, schedule="scaled_linear", spacing="leading")
    assert grid.timesteps[:2] == (0.0, 20.0)
    den = exact.mixture([[-1.0], [1.0]], 0.0).astype(jnp.float64)
    y_s = jnp.asarray([grid.to_y(0.05, 0)])
    p = Step(den, jnp.asarray(grid.sigmas[1]), jnp.asarray(grid.rho[0]), y_s, jnp.int32(0))
    plain = solve(G, y_s, p, solver="picard", tol=1e-12, limit=200)
    assert int(plain.exit) == Exit.STEP_LIMIT
    assert float(plain.residual) > 0.5
    for solver in ("relaxed", "anderson", "newton_krylov", "auto"):
        assert float(solve(G, y_s, p, solver=solver, tol=1e-12, limit=200).residual) <= 1e-12


def test_solvers_are_checked_before_anything_is_compiled():
    for bad in (("guess", 1e-8, 10), ("auto", 0.0, 10), ("auto", float("nan"), 10), ("auto", 1e-8, 0)):
        with pytest.raises(FpjaxError):
            check_solver(*bad)
    assert set(METHODS) < set(SOLVERS)
