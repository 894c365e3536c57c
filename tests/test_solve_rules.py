"""The rules around a solver, one at a time: what a residual implies, when an iteration ends, and how it is recorded."""

import inspect
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpjax import solve as rules
from fpjax.evidence import Basis, Exit, FpjaxError
from fpjax.methods import ROUNDING, Point, rounding_floor
from fpjax.solvers import named

PICARD = named("picard", 4)
EPS = 2.0**-52
FIRST = jnp.zeros(2)


def affine(y, p):
    a, b = p
    return a @ y + b


def lane(norm=1.0, y=FIRST, **fields):
    """A lane that stands at y with a residual of that norm."""
    r = jnp.zeros_like(y).at[0].set(norm)
    integers = {"stalled", "iterations", "evaluations"}
    values = {k: jnp.int32(v) if k in integers else jnp.asarray(v, y.dtype) for k, v in fields.items()}
    base = rules.start(PICARD, y)._replace(point=Point(y, r, jnp.asarray(norm)), first=jnp.asarray(1.0))
    return base._replace(**values)


def goal(tol=1e-3, limit=50, stop="residual", modulus=0.0, certified=False):
    return rules.make_goal(jnp.float64, tol, limit, stop, modulus, certified)


def code(now, aim, floor=1e-12, counted=True, stuck=False, patience=100):
    flags = jnp.bool_(counted), jnp.bool_(stuck)
    return Exit(int(rules._classify(now, jnp.asarray(floor), *flags, jnp.int32(patience), aim)))


def test_the_documented_constants():
    assert (rules.PATIENCE, rules.STALL, ROUNDING, rules.GROWTH) == (8, 100, 64, 1e8)
    assert (rules.NEAR, rules.STAGNANT) == (8, 60)
    assert (rules.MEMORY_OF_RATIO, rules.SAFETY) == (0.7, 2.0)


TOL = 2.0**-10
ENDS = {
    "runs": (lane(), {}, {}, Exit.RUNNING),
    "nan": (lane(np.nan, iterations=50), {}, {}, Exit.NONFINITE),
    "inf": (lane(np.inf), {}, {"stuck": True}, Exit.NONFINITE),
    "at the tolerance": (lane(TOL), {"tol": TOL}, {}, Exit.CONVERGED),
    "a little above it": (lane(TOL * 1.0001), {"tol": TOL}, {}, Exit.RUNNING),
    "converged at the limit": (lane(TOL, iterations=50), {"tol": TOL}, {}, Exit.CONVERGED),
    "error at the tolerance": (lane(TOL / 2), {"tol": TOL, "stop": "error", "modulus": 0.5}, {}, Exit.CONVERGED),
    "error above it": (lane(TOL), {"tol": TOL, "stop": "error", "modulus": 0.5}, {}, Exit.RUNNING),
    "error below, residual above": (lane(2 * TOL), {"tol": TOL, "stop": "error", "modulus": 4.0}, {}, Exit.RUNNING),
    "nothing is known of the error": (lane(TOL), {"tol": TOL, "stop": "error"}, {}, Exit.CONVERGED),
    "nothing is known, residual above": (lane(2 * TOL), {"tol": TOL, "stop": "error"}, {}, Exit.RUNNING),
    "estimate above": (lane(TOL, ratio=1.0), {"tol": TOL, "stop": "error"}, {}, Exit.RUNNING),
    "residual alone is asked for": (lane(TOL), {"tol": TOL, "modulus": 0.5}, {}, Exit.CONVERGED),
    "floor, patience": (lane(stalled=8), {}, {"floor": 1.0}, Exit.CONVERGED_TO_PRECISION),
    "floor, patience left": (lane(stalled=7), {}, {"floor": 1.0}, Exit.RUNNING),
    "floor, a direction is begun": (lane(stalled=59), {}, {"floor": 1.0, "counted": False}, Exit.RUNNING),
    "floor, one without an end": (lane(stalled=60), {}, {"floor": 1.0, "counted": False}, Exit.CONVERGED_TO_PRECISION),
    "floor, stuck": (lane(), {}, {"floor": 1.0, "stuck": True}, Exit.CONVERGED_TO_PRECISION),
    "floor, out": (lane(iterations=50), {}, {"floor": 1.0}, Exit.CONVERGED_TO_PRECISION),
    "above the floor": (lane(stalled=59), {}, {"floor": 0.99}, Exit.RUNNING),
    "near the floor, no longer falling": (lane(stalled=60), {}, {"floor": 0.125}, Exit.CONVERGED_TO_PRECISION),
    "not near the floor": (lane(stalled=60), {}, {"floor": 0.12}, Exit.RUNNING),
    "near the floor, stuck": (lane(), {}, {"floor": 0.125, "stuck": True}, Exit.CONVERGED_TO_PRECISION),
    "near the floor, out": (lane(stalled=8, iterations=50), {}, {"floor": 0.125}, Exit.CONVERGED_TO_PRECISION),
    "near the floor, out, falling": (lane(stalled=7, iterations=50), {}, {"floor": 0.125}, Exit.STEP_LIMIT),
    "grown": (lane(1.01e8, stalled=100), {}, {}, Exit.DIVERGED),
    "not grown enough": (lane(1e8), {}, {}, Exit.RUNNING),
    "grown from a small start": (lane(1e3, first=1e-6), {}, {}, Exit.DIVERGED),
    "stuck": (lane(iterations=50), {}, {"stuck": True}, Exit.STALLED),
    "out of patience": (lane(stalled=100), {}, {}, Exit.STALLED),
    "patience left": (lane(stalled=99), {}, {}, Exit.RUNNING),
    "at the limit": (lane(iterations=50), {}, {}, Exit.STEP_LIMIT),
    "below the limit": (lane(iterations=49), {}, {}, Exit.RUNNING),
}


@pytest.mark.parametrize("name", sorted(ENDS))
def test_when_an_iteration_ends(name):
    now, aim, state, wanted = ENDS[name]
    assert code(now, goal(**aim), **state) is wanted


ERRORS = {
    "nothing known": (lane(0.25), {}, math.inf, Basis.RESIDUAL),
    "assumed modulus": (lane(0.25), {"modulus": 0.5}, 0.5, Basis.ASSUMED),
    "certified modulus": (lane(0.25), {"modulus": 0.5, "certified": True}, 0.5, Basis.CERTIFIED),
    "certified counts only with a modulus": (lane(0.25), {"certified": True}, math.inf, Basis.RESIDUAL),
    "modulus before ratio": (lane(0.25, ratio=7.0), {"modulus": 0.5}, 0.5, Basis.ASSUMED),
    "by the ratio": (lane(0.25, ratio=3.0, reach=0.5), {}, 1.5, Basis.MEASURED),
    "by the reach": (lane(0.25, ratio=3.0, reach=2.0), {}, 4.0, Basis.MEASURED),
    "never below the residual": (lane(0.25, ratio=0.125), {}, 0.25, Basis.MEASURED),
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_what_a_residual_implies(name):
    """T8; see implied_error."""
    now, aim, wanted, basis = ERRORS[name]
    error, found = rules.implied_error(now, goal(**aim))
    assert float(error) == wanted
    assert Basis(int(found)) is basis


def test_a_residual_of_zero_is_known_to_rounding_only():
    """T16: two rounding units of y."""
    far = lane(0.0, jnp.asarray([2.0**30, 0.0]))
    assert float(rules.implied_error(far, goal(modulus=0.5))[0]) == 2 * EPS * 2**30 / 0.5
    assert float(rounding_floor(Point(jnp.asarray([3.0, 4.0]), jnp.asarray([3.0, 4.0]), 5.0))) == 64 * EPS * 15


def test_a_lane_begins_with_nothing_seen():
    new = rules.start(PICARD, jnp.ones(2))
    assert bool(new.fresh)
    assert Exit(int(new.exit)) is Exit.RUNNING
    for name in ("first", "best", "rate"):
        assert math.isnan(float(getattr(new, name))), name
    for name in ("stalled", "iterations", "evaluations", "ratio", "reach"):
        assert float(getattr(new, name)) == 0, name
    assert math.isnan(float(new.point.norm))
    assert not new.point.r.any()
    assert np.array_equal(new.query, new.point.y)


def test_a_restarted_lane_forgets_its_problem():
    used = lane(stalled=3, iterations=4, evaluations=5, ratio=2.0, rate=0.5)
    used = used._replace(fresh=jnp.bool_(False), exit=jnp.int32(Exit.CONVERGED))
    new = rules.restart(used, jnp.ones(2))
    assert np.array_equal(new.query, [1, 1])
    assert bool(new.fresh)
    assert Exit(int(new.exit)) is Exit.RUNNING
    assert [int(v) for v in (new.stalled, new.iterations, new.evaluations, new.ratio)] == [0, 0, 0, 0]
    assert math.isnan(float(new.rate))


def fed(now, image, method=PICARD, **aim):
    return rules.advance(method, now, jnp.asarray(image), jnp.int32(0), goal(**aim))


def test_what_plain_iteration_sees():
    """y -> (y0/2, 0) from (4, 0): residuals 2, 1, 1/2; ||dy||/||dr|| is 2 at each move."""
    one = fed(rules.start(PICARD, jnp.asarray([4.0, 0.0])), [2.0, 0.0])
    assert [float(v) for v in (one.point.norm, one.first, one.best, one.reach)] == [2, 2, 2, 2]
    assert [int(v) for v in (one.iterations, one.evaluations, one.stalled, one.ratio)] == [0, 1, 0, 0]
    assert math.isnan(float(one.rate))
    assert not bool(one.fresh)
    assert np.array_equal(one.point.r, [-2, 0])
    two = fed(one, [1.0, 0.0])
    assert [float(v) for v in (two.point.norm, two.first, two.best, two.rate, two.ratio)] == [1, 2, 1, 0.5, 2]
    assert [int(v) for v in (two.iterations, two.evaluations, two.stalled)] == [1, 2, 0]
    assert np.array_equal(two.query, [1, 0])
    three = fed(two, [0.5, 0.0], tol=0.5)
    assert Exit(int(three.exit)) is Exit.CONVERGED
    assert Exit(int(two.exit)) is Exit.RUNNING
    assert int(three.evaluations) == 3


def test_progress_is_a_tenth_less():
    """A residual of exactly 0.9 of the best is no progress, a smaller one is."""
    start = fed(rules.start(PICARD, jnp.asarray([0.0, 0.0])), [1.0, 0.0])
    same = fed(start, [1.9, 0.0])
    assert (float(same.point.norm), float(same.best), int(same.stalled)) == (0.8999999999999999, 0.8999999999999999, 0)
    stale = fed(start, [1.95, 0.0])
    assert (float(stale.best), int(stale.stalled)) == (1.0, 1)
    assert int(fed(stale, [2.9, 0.0]).stalled) == 2
    exactly = start._replace(best=jnp.asarray(1 / 0.9))
    at = fed(exactly, [1.0 + 0.9 * (1 / 0.9), 0.0])
    assert int(at.stalled) == 1


def test_old_ratios_fade_and_rounding_says_nothing():
    start = fed(rules.start(PICARD, jnp.asarray([4.0, 0.0])), [2.0, 0.0])._replace(ratio=jnp.asarray(8.0))
    assert float(fed(start, [1.0, 0.0]).ratio) == pytest.approx(0.7 * 8)
    # dr is exactly the floor, 64 eps·(1 + 1): lost in rounding
    edge = rules.start(PICARD, jnp.asarray([1.0, 0.0]))._replace(
        point=Point(jnp.zeros(2), jnp.asarray([128 * EPS, 0.0]), jnp.asarray(128 * EPS)), fresh=jnp.bool_(False)
    )
    assert float(fed(edge, [1.0, 0.0]).ratio) == 0


def test_methods_that_measure_nothing_claim_nothing():
    """And those that keep pairs may know of a larger ratio than the last move shows."""
    start = fed(rules.start(PICARD, jnp.asarray([4.0, 0.0])), [2.0, 0.0])
    silent = fed(start, [1.0, 0.0], PICARD._replace(measures=False))
    assert float(silent.ratio) == 0
    assert math.isinf(float(rules.implied_error(silent, goal())[0]))

    class Memory(NamedTuple):
        spread: jax.Array

    for spread, wanted in ((9.0, 9.0), (0.5, 2.0)):
        method = PICARD._replace(
            tell=lambda memory, *rest, s=spread: PICARD.tell(memory, *rest)._replace(memory=Memory(jnp.asarray(s)))
        )
        assert float(fed(start, [1.0, 0.0], method).ratio) == wanted


def test_only_impatient_methods_stall():
    now = fed(rules.start(PICARD, jnp.asarray([0.0, 0.0])), [1.0, 0.0])._replace(stalled=jnp.int32(99))
    for patient, wanted in ((False, Exit.STALLED), (True, Exit.RUNNING)):
        assert Exit(int(fed(now, [2.0, 0.0], PICARD._replace(patient=patient)).exit)) is wanted


def test_a_probe_is_no_iteration_and_has_no_rate():
    """A method whose evaluation is not counted: the point stays, the rate and the count too."""

    def tell(memory, point, trial, fresh, slot):
        told = PICARD.tell(memory, point, trial, fresh, slot)
        return told._replace(counted=jnp.bool_(False))

    start = fed(rules.start(PICARD, jnp.asarray([4.0, 0.0])), [2.0, 0.0])
    probe = fed(start, [1.0, 0.0], PICARD._replace(tell=tell))
    assert int(probe.iterations) == 0
    assert int(probe.evaluations) == 2
    assert math.isnan(float(probe.rate))
    still = fed(start._replace(query=start.point.y), [2.0, 0.0])  # the same residual again: no rate either
    assert math.isnan(float(still.rate))


def test_the_record_is_the_lane():
    now = lane(0.25, iterations=3, evaluations=4, rate=0.5, ratio=3.0, reach=0.5)
    now = now._replace(exit=jnp.int32(Exit.CONVERGED))
    out = rules.record(now, goal())
    values = [float(v) for v in (out.residual, out.rate, out.error)]
    assert values == [0.25, 0.5, 1.5]
    assert [int(v) for v in (out.exit, out.iterations, out.evaluations, out.newton, out.reason)] == [1, 3, 4, 0, 0]
    assert Basis(int(out.basis)) is Basis.MEASURED
    auto = rules.start(named("auto", 4), jnp.ones(2))
    auto = auto._replace(memory=auto.memory._replace(newton=jnp.int32(5), reason=jnp.int32(2)))
    out = rules.record(auto, goal())
    assert (int(out.newton), int(out.reason)) == (5, 2)
    assert np.array_equal(out.y, [1, 1])


def test_rings_have_the_depth_asked_for():
    assert rules.slots(rules.start(PICARD, FIRST)) == 1
    alone = rules.start(named("anderson", 5), jnp.zeros(6))
    assert rules.slots(alone) == 5
    assert rules.slots(jax.tree.map(lambda a: jnp.stack([a, a, a]), alone)) == 5  # lanes of a batch share a ring


def test_the_ring_is_used_in_turn():
    """Five pairs of a map with five different eigenvalues are all that is needed; a ring of fewer would take longer."""
    p = (jnp.diag(jnp.asarray([0.9, 0.7, 0.5, 0.3, -0.8])), jnp.ones(5))
    out = rules.solve(affine, jnp.zeros(5), p, solver="anderson", tol=1e-10, depth=5)
    assert Exit(int(out.exit)) is Exit.CONVERGED
    assert int(out.evaluations) <= 9


def test_defaults_are_the_documented_ones():
    defaults = {k: v.default for k, v in inspect.signature(rules.solve).parameters.items()}
    wanted = {"solver": "auto", "tol": 1e-8, "limit": 200, "stop": "error", "modulus": 0.0, "certified": False}
    assert {k: defaults[k] for k in wanted} == wanted
    plain = rules.make_goal(jnp.float32, 0.5, 3)
    assert [float(v) for v in plain] == [0.5, 3, 0, 0, 1]
    assert plain.tol.dtype == plain.modulus.dtype == jnp.float32
    assert plain.limit.dtype == jnp.int32
    assert bool(plain.certified) is False
    rules.check_solver("auto", 0.5, 1)
    rules.check_solver("picard", 1e-300, 1, "residual")
    with pytest.raises(FpjaxError, match="unknown solver"):
        rules.check_solver("Xauto", 0.5, 1)


REFUSED = {
    "unknown solver 'newton'": ("newton", 1.0, 1, "error"),
    "unknown stopping rule 'never'": ("auto", 1.0, 1, "never"),
    "positive finite number, got 0": ("auto", 0.0, 1, "error"),
    "positive finite number, got -0.5": ("auto", -0.5, 1, "error"),
    "positive finite number, got inf": ("auto", math.inf, 1, "error"),
    "positive finite number, got nan": ("auto", math.nan, 1, "error"),
    "at least 1 iteration, got 0": ("auto", 1.0, 0, "error"),
}


@pytest.mark.parametrize("sentence", sorted(REFUSED))
def test_refusals_say_what_was_wrong(sentence):
    with pytest.raises(FpjaxError, match=sentence):
        rules.check_solver(*REFUSED[sentence])


# --- derivatives -----------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
MATRIX = jnp.asarray(0.5 * RNG.normal(size=(4, 4)))
WEIGHT = jnp.asarray(RNG.normal(size=4))
_adjoint = jax.jit(rules.adjoint, static_argnums=0)


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e20])
def test_adjoints_are_solved_to_rounding_at_every_scale(size):
    """Whatever the goal of the solve itself was."""
    truth = np.linalg.solve(np.eye(4) - np.asarray(MATRIX).T, size * np.asarray(WEIGHT))
    p = (MATRIX, jnp.ones(4))
    for tol, limit, stop in ((1e-1, 1, "error"), (1e-12, 500, "residual")):
        u = _adjoint(affine, jnp.ones(4), p, size * WEIGHT, goal(tol, limit, stop, modulus=1.0))
        assert np.allclose(u, truth, rtol=1e-12, atol=1e-12 * size)


def test_what_has_no_weight_has_no_derivative():
    p = (MATRIX, jnp.ones(4))
    zero = _adjoint(affine, jnp.ones(4), p, jnp.zeros(4), goal())
    assert not np.asarray(zero).any()


def test_derivatives_go_through_the_solution_not_the_start():
    def loss(y0, b):
        out = rules.solve(affine, y0, (MATRIX, b), tol=1e-12)
        return WEIGHT @ out.y + 7 * out.residual + out.error  # only y has a derivative

    at_start, at_b = jax.grad(loss, argnums=(0, 1))(jnp.zeros(4), jnp.ones(4))
    assert not np.asarray(at_start).any()
    assert np.allclose(at_b, np.linalg.solve(np.eye(4) - np.asarray(MATRIX).T, WEIGHT), rtol=1e-10)


def test_cotangents_of_nothing():
    zeros = rules.zero_cotangent({"a": jnp.ones(2), "b": jnp.ones(3, jnp.int32)})
    assert zeros["a"].dtype == jnp.float64
    assert not np.asarray(zeros["a"]).any()
    assert zeros["b"].dtype == jax.dtypes.float0
    assert zeros["b"].shape == (3,)
