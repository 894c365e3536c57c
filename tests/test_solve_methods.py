"""State machines: one evaluation an iteration, honest errors, implicit derivatives; secant algebra against least squares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fpjax
from fpjax import process, secants
from fpjax.evidence import Basis, Exit, FpjaxError
from fpjax.solve import advance, check_solver, make_goal, solve, start
from fpjax.solvers import named
from fpjax.step import F, G, Step


def affine(y, p):
    a, b = p
    return a @ y + b


def wave(y, p):
    a, b = p
    return a @ jnp.tanh(y) + b


def symmetric(rng, eigenvalues):
    q = np.linalg.qr(rng.normal(size=(len(eigenvalues),) * 2))[0]
    return q @ np.diag(eigenvalues) @ q.T


def test_secants_are_least_squares_over_the_newest_pairs():
    rng = np.random.default_rng(0)
    for depth in (5, 11):  # one below and one above the depth that is written out
        pairs, seen = secants.empty(depth, jnp.zeros(17)), []
        for k in range(2 * depth + 1):
            dy, dr, r = (jnp.asarray(v) for v in rng.normal(size=(3, 17)))
            slot = jnp.int32(k % depth)
            pairs = secants.push(pairs, slot, dy, dr, jnp.linalg.norm(dr), jnp.bool_(True))
            seen = [*seen, np.asarray(dr)][-depth:]
            left = r - secants.coefficients(pairs, slot, r) @ pairs.dr
            basis = np.stack(seen).T
            assert np.allclose(left, r - basis @ np.linalg.lstsq(basis, r, rcond=None)[0], atol=1e-9)


def test_lanes_of_secants_are_the_lanes_alone():
    rng = np.random.default_rng(1)
    tables = rng.normal(size=(4, 6, 9))
    gram = jnp.asarray(tables @ np.swapaxes(tables, 1, 2))
    b = jnp.asarray(rng.normal(size=(4, 6, 1)))
    full, valid = jnp.concatenate([gram, b], axis=2), jnp.asarray(rng.random((4, 6)) < 0.7)
    together = jax.vmap(secants._eliminate)(full, valid)[..., 0]
    for i in range(4):
        assert np.allclose(together[i], secants._eliminate(full[i], valid[i])[:, 0], rtol=1e-12)
        keep = np.asarray(valid[i])
        assert np.allclose(together[i][keep], np.linalg.solve(np.asarray(gram[i])[np.ix_(keep, keep)], b[i, keep, 0]))


def test_a_dependent_pair_is_left_out():
    pairs = secants.empty(3, jnp.zeros(2))
    for k in range(3):
        dr = jnp.asarray([1.0 + k, 0.0])
        pairs = secants.push(pairs, jnp.int32(k), dr, dr, jnp.linalg.norm(dr), jnp.bool_(True))
    gamma = secants.coefficients(pairs, jnp.int32(2), jnp.asarray([2.0, 1.0]))
    assert np.allclose(gamma, [0, 0, 2])


def test_beyond_contraction():
    """Symmetric positive definite, condition 60: plain iteration diverges, the others arrive."""
    rng = np.random.default_rng(2)
    p = (jnp.asarray(np.eye(20) - symmetric(rng, np.geomspace(0.5, 30, 20))), jnp.asarray(rng.normal(size=20)))
    truth = np.linalg.solve(np.eye(20) - np.asarray(p[0]), p[1])
    assert int(solve(affine, jnp.zeros(20), p, solver="picard").exit) == Exit.DIVERGED
    for solver in ("anderson", "newton_krylov", "auto"):
        s = solve(affine, jnp.zeros(20), p, solver=solver, tol=1e-9)
        assert int(s.exit) == Exit.CONVERGED
        assert np.linalg.norm(s.y - truth) <= float(s.error)
        assert int(s.evaluations) < 120


def test_stated_errors_contain_the_true_one():
    """Sixty maps, near-singular ones among them: nothing labelled CONVERGED is further off than its record says."""
    rng = np.random.default_rng(3)
    top = 1 - 10 ** -rng.uniform(0.1, 4, 60)
    a = jnp.asarray(np.stack([symmetric(rng, np.r_[t, rng.uniform(-0.9, 0.5, 9)]) for t in top]))
    b = jnp.asarray(rng.normal(size=(60, 10)))
    truth = np.linalg.solve(np.eye(10) - np.asarray(a), np.asarray(b)[..., None])[..., 0]
    for solver in ("picard", "auto"):
        s = jax.vmap(lambda a, b, m=solver: solve(affine, jnp.zeros(10), (a, b), solver=m, tol=1e-8, limit=400))(a, b)
        done = np.asarray(s.exit) == Exit.CONVERGED
        error = np.linalg.norm(np.asarray(s.y) - truth, axis=1)
        assert done.sum() >= (56 if solver == "auto" else 15)
        if solver == "auto":  # of condition 1e4 rounding alone may be 1e-8
            assert np.isin(s.exit, [Exit.CONVERGED, Exit.CONVERGED_TO_PRECISION]).all()
        assert (error[done] <= np.asarray(s.error)[done]).all()
        assert (np.asarray(s.basis)[done] == Basis.MEASURED).all()


def test_a_known_modulus_is_used_and_named():
    p = (0.9 * jnp.eye(3), jnp.ones(3))
    for certified, basis in ((False, Basis.ASSUMED), (True, Basis.CERTIFIED)):
        s = solve(affine, jnp.zeros(3), p, solver="picard", tol=1e-6, modulus=0.1, certified=certified, limit=400)
        assert int(s.exit) == Exit.CONVERGED
        assert int(s.basis) == basis
        assert float(s.residual) <= 1e-7
        assert np.linalg.norm(np.asarray(s.y) - 10) <= float(s.error) <= 1e-6
    loose = solve(affine, jnp.zeros(3), p, solver="picard", tol=1e-6, stop="residual", limit=400)
    assert 5e-7 < float(loose.residual) <= 1e-6


def test_newton_is_called_in_and_says_why():
    a = jnp.asarray([[0.0, -1.0], [1.0, 0.0]])
    s = solve(affine, jnp.zeros(2), (jnp.eye(2) + 0.999 * a, jnp.asarray([1.0, 0.0])), tol=1e-9)
    assert int(s.exit) == Exit.CONVERGED
    assert int(s.evaluations) < 20
    assert int(s.newton) == 0 or int(s.reason) in (1, 2)


def test_failing_is_cheap():
    """y -> y + 1 + y² has no fixed point."""
    s = solve(lambda y, p: y + p + y**2, jnp.ones(3), jnp.ones(3), limit=1000)
    assert int(s.exit) == Exit.STALLED
    assert int(s.evaluations) <= 250


def test_out_of_a_local_minimum_of_the_residual():
    """A guided step of digits-monotone whose residual has a local minimum of 0.004 on the way (trust regions end there too)."""
    den, grid = fpjax.load("digits-monotone").astype(jnp.float64), process.ddim(10)
    x, c = fpjax.samples("digits", 4)
    noise = np.random.default_rng(0).normal(size=(13, 8, 8))[12]
    sigma, rho = grid.sigmas[4], grid.rho[3]
    truth = jnp.asarray(x[0] + sigma * noise)
    p = Step(den, jnp.asarray(sigma), jnp.asarray(rho), truth, jnp.asarray(c[0], jnp.int32), jnp.asarray(3.0))
    p = p._replace(target=F(truth, p))
    caught, s = (solve(G, p.target, p, solver=m, tol=1e-9, stop="residual") for m in ("newton_krylov", "auto"))
    assert Exit(int(caught.exit)) is Exit.STALLED
    assert float(caught.residual) > 1e-3
    assert Exit(int(s.exit)) is Exit.CONVERGED
    assert int(s.reason) == 3


def test_back_where_no_step_leads_out():
    """Where there is no solution the answer is the point that the line search ended at, not one of those tried after it."""
    s = solve(lambda y, p: y + p + y**2, jnp.ones(3), jnp.ones(3), limit=1000)
    descent = solve(lambda y, p: y + p + y**2, jnp.ones(3), jnp.ones(3), solver="newton_krylov", limit=1000)
    assert Exit(int(s.exit)) is Exit.STALLED
    assert int(s.reason) == 3
    assert float(s.residual) <= 1.01 * float(descent.residual)
    assert float(s.residual) == pytest.approx(float(jnp.linalg.norm(1 + s.y**2)), rel=1e-12)


def test_a_line_search_that_ends_in_noise_has_arrived():
    """T16: no steps away from a solution that is as good as the dtype allows."""
    rng = np.random.default_rng(9)
    a, b = jnp.asarray(rng.normal(size=(8, 8)), jnp.float32), jnp.asarray(rng.normal(size=8), jnp.float32)
    s = solve(wave, jnp.zeros(8, jnp.float32), (a, b), tol=1e-30, limit=400)
    assert Exit(int(s.exit)) is Exit.CONVERGED_TO_PRECISION
    assert int(s.reason) != 3


def test_textbook_newton_takes_one_hand_computed_step():
    """One step of newton_gmres from y0 solves (I - J) s = r up to its forcing; an affine map is then solved at once."""
    rng = np.random.default_rng(8)
    a, b = 0.5 * rng.normal(size=(6, 6)) / 6**0.5, rng.normal(size=6)
    y0 = jnp.asarray(rng.normal(size=6))
    s = solve(wave, y0, (jnp.asarray(a), jnp.asarray(b)), solver="newton_gmres", limit=1, stop="residual", tol=1e-14)
    slope = a * (1 - np.tanh(y0) ** 2)
    r = np.asarray(wave(y0, (a, b)) - y0)
    step = np.asarray(s.y - y0)
    assert np.linalg.norm((np.eye(6) - slope) @ step - r) <= 0.1 * np.linalg.norm(r)
    assert int(s.iterations) == 1
    far = solve(wave, y0, (jnp.asarray(a), jnp.asarray(b)), solver="newton_gmres", tol=1e-12, stop="residual")
    assert Exit(int(far.exit)) is Exit.CONVERGED
    assert float(far.residual) <= 1e-12
    assert int(far.iterations) <= 6


def test_one_hand_computed_step_of_each_simple_method():
    """The point after the second evaluation, for y -> A y + b from 0."""
    a, b = jnp.asarray([[0.5, 0.1], [0.0, -0.8]]), jnp.asarray([1.0, 2.0])
    first = b  # r at 0 is b
    r1 = a @ first  # r at b: A b + b - b
    dr = r1 - b
    omega = -(b @ dr) / (dr @ dr)
    wanted = {
        "picard": first + r1,
        "relaxed": first + 1.1 * r1,
        "aitken": first + omega * r1,
        "anderson": first
        + omega * r1
        - (r1 @ dr) / (dr @ dr) * (first + omega * dr),  # what is left is relaxed by omega
        "anderson_one": first + r1 - (r1 @ first) / (dr @ first) * (first + dr),
    }
    assert float(jnp.linalg.norm(r1)) < float(jnp.linalg.norm(b))  # the first move is accepted by all
    for solver, point in wanted.items():
        s = solve(affine, jnp.zeros(2), (a, b), solver=solver, limit=2, tol=1e-14, stop="residual")
        method = named(solver, 4)
        lane = start(method, jnp.zeros(2))
        for k in range(2):
            lane = advance(method, lane, affine(lane.query, (a, b)), jnp.int32(k), make_goal(jnp.float64, 1e-14, 9))
        assert np.allclose(lane.query, point, atol=1e-12), solver
        assert int(s.evaluations) == 3


def test_implicit_gradients_agree_with_differences():
    rng = np.random.default_rng(4)
    a, b = jnp.asarray(0.8 * rng.normal(size=(6, 6)) / 6**0.5), jnp.asarray(rng.normal(size=6))
    w = jnp.asarray(rng.normal(size=6))

    def loss(b):
        return w @ solve(wave, jnp.zeros(6), (a, b), tol=1e-13).y

    gradient = jax.grad(loss)(b)
    h = 1e-5
    numeric = [(loss(b + h * e) - loss(b - h * e)) / (2 * h) for e in jnp.eye(6)]
    assert np.allclose(gradient, jnp.stack(numeric), rtol=0, atol=1e-8)


def test_bad_stopping_rule():
    with pytest.raises(FpjaxError):
        check_solver("auto", 1e-8, 10, "never")


def test_three_pairs_do_for_a_symmetric_map():
    """Krylov vectors of a symmetric map need the last one only: what a short ring drops is not missed, but for rounding."""
    rng = np.random.default_rng(0)
    q = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    a = jnp.asarray(q @ np.diag(1 - np.geomspace(0.02, 12, 40)) @ q.T)
    b = jnp.asarray(rng.normal(size=40))
    few, all_pairs = (
        solve(affine, jnp.zeros(40), (a, b), solver="newton_krylov", stop="residual", depth=k) for k in (3, 40)
    )
    assert int(few.exit) == int(all_pairs.exit) == Exit.CONVERGED
    assert int(few.evaluations) <= 1.7 * int(all_pairs.evaluations)


def test_auto_gives_up_no_slow_search_on_a_monotone_network():
    """24 held-out digits at 10 steps, each with one solution (T2): slow steps of the line search are no local minimum."""
    den = fpjax.load("digits-monotone")
    x, c = fpjax.samples("digits", n=24)
    assert fpjax.invert(den, x.astype(np.float64), fpjax.process.ddim(10), condition=c, tol=1e-10).solved.all()
