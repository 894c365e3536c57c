"""T6's solvers and Anderson of type I: known solutions far beyond contraction, global arrival, honest errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fpjax
from fpjax import process, secants
from fpjax.evidence import Basis, Exit, FpjaxError
from fpjax.models import exact
from fpjax.solve import solve
from fpjax.solvers import GRADIENT


def affine(y, p):
    a, b = p
    return a @ y + b


def steep(y, p):
    """y - grad of a strongly convex function with a kink-like curvature of up to 50."""
    return y - (0.2 * y + 50 * jnp.tanh(y - p))


push, spread_of = jax.jit(secants.push), jax.jit(secants.coefficients_and_spread)


def spd(seed, low, high, d=12):
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    h = q @ np.diag(np.geomspace(low, high, d)) @ q.T
    return h, (jnp.asarray(np.eye(d) - h), jnp.asarray(rng.normal(size=d)))


@pytest.mark.parametrize("solver", [*GRADIENT, "anderson_one"])
def test_beyond_contraction(solver):
    h, p = spd(0, 0.5, 30)
    s = solve(affine, jnp.zeros(12), p, solver=solver, tol=1e-9, modulus=0.5, limit=400)
    truth = np.linalg.solve(h, p[1])
    assert int(s.exit) == Exit.CONVERGED
    assert np.linalg.norm(s.y - truth) <= float(s.error) <= 1e-9
    assert int(s.evaluations) < 200


@pytest.mark.parametrize("solver", GRADIENT)
def test_arrives_from_afar(solver):
    centre = jnp.linspace(-5, 5, 12)
    s = solve(steep, 40 * jnp.ones(12), centre, solver=solver, tol=1e-9, modulus=0.2, limit=2000)
    assert int(s.exit) == Exit.CONVERGED
    assert np.linalg.norm(np.asarray(0.2 * s.y + 50 * jnp.tanh(s.y - centre))) <= 2e-10


def test_speed_goes_with_the_root_of_the_condition():
    """T5 needs about condition·log(1/tol) iterations; T6's accelerated rate is of the order of its square root."""
    _, p = spd(1, 0.01, 1.9)
    runs = {k: solve(affine, jnp.zeros(12), p, solver=k, tol=1e-6, stop="residual", limit=5000) for k in GRADIENT}
    plain = solve(affine, jnp.zeros(12), p, solver="picard", tol=1e-6, stop="residual", limit=5000)
    for s in runs.values():
        assert int(s.exit) == Exit.CONVERGED
        assert int(s.evaluations) < 0.4 * int(plain.evaluations)


def switching(y, p):
    """A step of the exact denoiser of 40 points, sigma 1, at a modulus of 0.003."""
    points, target = p
    weights = jax.nn.softmax(-jnp.sum((y[None, :] - points) ** 2, axis=1) / 2)
    return y + target - (0.003 * y + 0.997 * weights @ points)


@pytest.mark.parametrize("seed", [0, 2, 4, 6])
def test_it_arrives_where_other_line_searches_end(seed):
    """Where D switches, only steps far shorter than a Newton direction are good ones."""
    rng = np.random.default_rng(seed)
    p = jnp.asarray(3 * rng.normal(size=(40, 12))), jnp.asarray(3 * rng.normal(size=12))
    s, lowering = (
        solve(switching, p[1], p, solver=name, tol=1e-5, modulus=0.003, limit=1000)
        for name in ("convex", "newton_krylov")
    )
    assert Exit(int(s.exit)) is Exit.CONVERGED
    assert float(jnp.linalg.norm(switching(s.y, p) - s.y)) <= 3e-8
    assert Exit(int(lowering.exit)) is Exit.STALLED
    assert float(lowering.residual) > 0.1


@pytest.mark.parametrize("solver", GRADIENT)
def test_no_error_is_stated_without_a_modulus(solver):
    _, p = spd(2, 1e-4, 1)
    s = solve(affine, jnp.zeros(12), p, solver=solver, tol=1e-6, limit=3000)
    assert int(s.basis) == Basis.RESIDUAL
    assert np.isinf(float(s.error))


def test_newton_cg_gives_up_where_curvature_is_not_positive():
    """A saddle has no minimum: the record must not say CONVERGED unless the residual is small."""
    a = jnp.diag(jnp.asarray([1 - 2.0, 1 + 1.0]))
    s = solve(affine, jnp.zeros(2), (a, jnp.asarray([1.0, 1.0])), solver="convex", tol=1e-9)
    assert int(s.exit) != Exit.CONVERGED or np.allclose(affine(s.y, (a, jnp.ones(2))), s.y, atol=1e-9)


def test_oblique_projection():
    rng = np.random.default_rng(3)
    pairs, f = secants.empty(4, jnp.zeros(9)), rng.normal(size=(9, 9)) * 0.2 + np.eye(9)
    for k in range(6):
        dy = jnp.asarray(rng.normal(size=9))
        dr = -jnp.asarray(f) @ dy
        pairs = push(pairs, jnp.int32(k % 4), dy, dr, jnp.linalg.norm(dr), jnp.bool_(True))
    r = jnp.asarray(rng.normal(size=9))
    gamma = jax.jit(secants.oblique)(pairs, jnp.int32(1), r)
    assert np.allclose(pairs.dy @ (r + gamma @ pairs.dr), 0, atol=1e-12)


def test_spread_finds_the_weak_direction():
    """A Jordan block: every single ratio is below 1.5, the inverse has norm 512."""
    d = 10
    f = np.eye(d) - 2 * np.eye(d, k=1)
    pairs, u = secants.empty(d, jnp.zeros(d)), jnp.ones(d)
    for k in range(d):
        dy = jnp.asarray(np.eye(d)[k])
        dr = -jnp.asarray(f) @ dy
        pairs = push(pairs, jnp.int32(k), dy, dr, jnp.linalg.norm(dr), jnp.bool_(True))
        _, spread, u = spread_of(pairs, jnp.int32(k), dr, u)
    for _ in range(10):
        _, spread, u = spread_of(pairs, jnp.int32(d - 1), dr, u)
    assert float(spread) == pytest.approx(np.linalg.norm(np.linalg.inv(f), 2), rel=1e-6)


def test_inversion_of_a_gradient_denoiser():
    den = exact.mixture(np.random.default_rng(0).normal(size=(6, 5)), 0.3)
    x = np.random.default_rng(0).normal(size=(4, 5))
    grid = process.ddim(4)
    auto = fpjax.invert(den, x, grid, tol=1e-10)
    inv = fpjax.invert(den, x, grid, tol=1e-10, solver="convex")
    assert inv.solved.all()
    assert np.allclose(inv.latent, auto.latent, rtol=0, atol=1e-8)
    assert (np.asarray(inv.basis) == Basis.ASSUMED).all()
    plain = fpjax.load("digits-plain")
    with pytest.raises(FpjaxError, match="gradient denoiser"):
        fpjax.invert(plain, np.zeros((1, 8, 8)), grid, solver="convex")


def test_under_vmap_each_lane_is_the_lane_alone():
    problems = [spd(k, 0.3, 5 + 10 * k)[1] for k in range(3)]
    stacked = jax.tree.map(lambda *v: jnp.stack(v), *problems)
    run = jax.jit(lambda p: solve(affine, jnp.zeros(12), p, solver="convex", tol=1e-9, modulus=0.3))
    lanes = jax.vmap(run)(stacked)
    for k, p in enumerate(problems):
        alone = run(p)
        assert int(lanes.evaluations[k]) == int(alone.evaluations)
        assert np.allclose(lanes.y[k], alone.y, rtol=1e-9)
