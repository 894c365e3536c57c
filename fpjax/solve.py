"""Fixed points y = step(y, params): one record, one measure, one rule for stopping.

In this room: the loop around a method of :mod:`fpjax.methods`, the exit code, the error a residual implies (T8), and
derivatives of the solution. The residual of a point is r(y) = step(y) - y, for E2 the same as y_s - F(y), and the
residual in a record always belongs to the point in that record. Not in this room: trajectories and lanes
(trajectory, lanes).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import gmres
from fpjax.evidence import Basis, Exit, FpjaxError
from fpjax.machine import FORCING
from fpjax.methods import BACKTRACKS, DEPTH, NEAR, Method, Point, choose, norm2, rounding_floor, shorter
from fpjax.solvers import CLASSIC, METHODS, SOLVERS, named

PATIENCE = 8  # evaluations at the rounding floor without a new best residual
STALL = 100  # evaluations without a new best residual after which a method that is not patient gives up
STAGNANT = 60  # evaluations without a new best residual that count as no longer falling: more than one Newton direction
GROWTH = 1e8  # a residual this many times the first one has diverged
MEMORY_OF_RATIO = 0.7  # how slowly the largest observed ||dy||/||dr|| is forgotten

SAFETY = 2.0  # an error estimated from what the iteration saw is taken this much larger

__all__ = ["METHODS", "SOLVERS", "Goal", "Lane", "Solution", "advance", "check_solver", "solve"]


class Solution(NamedTuple):
    """The outcome of one solve.

    Attributes:
      y: the point returned.
      exit: an :class:`fpjax.evidence.Exit` code, int32.
      residual: ||step(y) - y||_2 at that point.
      rate: the last ratio of successive residuals, NaN before the second; an observation, not a bound.
      iterations: trial points after the first, int32; probes of a Newton direction are not counted here.
      evaluations: evaluations of ``step`` spent, all phases, int32.
      error: what the residual implies for ||y - y*||_2 (T8); a bound or an estimate, as ``basis`` says, and infinite
        where the basis is RESIDUAL: the residual alone implies nothing.
      basis: an :class:`fpjax.evidence.Basis` code, int32.
      newton: Newton steps taken, int32 (newton_krylov and auto).
      reason: why auto turned to Newton last, int32: 0 it did not, 1 moves raised the residual, 2 progress was slow, 3 the line
        search stood at a local minimum of the residual, and Newton steps of bounded length were taken without one.
    """

    y: jax.Array
    exit: jax.Array
    residual: jax.Array
    rate: jax.Array
    iterations: jax.Array
    evaluations: jax.Array
    error: jax.Array
    basis: jax.Array
    newton: jax.Array
    reason: jax.Array


class Goal(NamedTuple):
    """What is asked for: error, iterations, and what is known of the map.

    Attributes:
      tol: the error (or residual) wanted. limit: iterations allowed.
      modulus: T2's m of y - step(y) at every point, or 0 where unknown.
      certified: whether the modulus was proved.
      on_error: whether ``tol`` is for the error; for the residual otherwise.
    """

    tol: jax.Array
    limit: jax.Array
    modulus: jax.Array
    certified: jax.Array
    on_error: jax.Array


class Lane(NamedTuple):
    """One solve in progress: where it stands, where it looks next, and what it has seen."""

    point: Point
    query: jax.Array
    memory: Any
    fresh: jax.Array
    exit: jax.Array
    first: jax.Array
    best: jax.Array
    stalled: jax.Array
    rate: jax.Array
    ratio: jax.Array  # largest recent ||dy||/||dr||, 0 before the first pair
    reach: jax.Array  # length of the move the method proposes next
    iterations: jax.Array
    evaluations: jax.Array


def measure(y, image) -> Point:
    """The residual of a point whose image step(y) is given; the only place where one is computed."""
    r = image - y
    return Point(y, r, norm2(r))


def start(method: Method, y0) -> Lane:
    """A lane before its first evaluation."""
    zero = jnp.int32(0)
    nan = jnp.full((), jnp.nan, y0.dtype)
    none = jnp.zeros((), y0.dtype)
    point = Point(y0, jnp.zeros_like(y0), nan)
    code = jnp.int32(Exit.RUNNING)
    return Lane(point, y0, method.init(y0), jnp.bool_(True), code, nan, nan, zero, nan, none, none, zero, zero)


def restart(lane: Lane, query) -> Lane:
    """The lane at the beginning of a new problem; its memory is dropped when the first residual arrives."""
    zero = jnp.zeros_like(lane.iterations)
    return lane._replace(
        query=query,
        fresh=jnp.ones_like(lane.fresh),
        exit=jnp.full_like(lane.exit, Exit.RUNNING),
        stalled=zero,
        rate=jnp.full_like(lane.rate, jnp.nan),
        ratio=jnp.zeros_like(lane.ratio),
        iterations=zero,
        evaluations=zero,
    )


def advance(method: Method, lane: Lane, image, slot, goal: Goal) -> Lane:
    """The lane after its query's image has arrived; a lane that has ended is the caller's to keep.

    Args:
      image: step(lane.query). slot: the place in the ring of pairs for this iteration.
    """
    trial = measure(lane.query, image)
    told = method.tell(lane.memory, lane.point, trial, lane.fresh, slot)
    norm = told.point.norm
    first = jnp.where(lane.fresh, norm, lane.first)
    best = jnp.where(lane.fresh, norm, lane.best)
    better = norm < 0.9 * best
    stalled = jnp.where(better | lane.fresh | told.astray, 0, lane.stalled + 1)
    floor = rounding_floor(told.point)
    moved = ~lane.fresh & (told.counted & (trial.norm != lane.point.norm))
    rate = jnp.where(moved, trial.norm / lane.point.norm, lane.rate)
    ratio = jnp.zeros_like(norm)
    if method.measures:
        ratio = jnp.where(lane.fresh, ratio, _seen_ratio(lane, told.memory, trial, floor))
    iterations = lane.iterations + told.counted.astype(jnp.int32)
    lane = Lane(
        told.point,
        told.query,
        told.memory,
        jnp.zeros_like(lane.fresh),
        lane.exit,
        first,
        jnp.where(better, norm, best),
        stalled,
        rate,
        ratio,
        norm2(told.query - told.point.y),
        iterations,
        lane.evaluations + 1,
    )
    patience = jnp.int32(jnp.iinfo(jnp.int32).max if method.patient else STALL)
    return lane._replace(exit=_classify(lane, floor, told.counted, told.stuck, patience, goal))


def _seen_ratio(lane: Lane, memory, trial: Point, floor):
    """The largest recent ||dy||/||dr||, over combinations of pairs where the method keeps them: the inverse modulus along
    what was seen. Pairs lost in rounding say nothing."""
    dr = norm2(trial.r - lane.point.r)
    ratio = norm2(trial.y - lane.point.y) / jnp.where(dr > floor, dr, jnp.full_like(dr, jnp.inf))
    seen = jnp.maximum(ratio, MEMORY_OF_RATIO * lane.ratio)
    return jnp.maximum(seen, memory.spread) if hasattr(memory, "spread") else seen


def implied_error(lane: Lane, goal: Goal):
    """T8: (error, basis). Residual over the modulus where that is known, an estimate from what was seen otherwise, and
    infinite where nothing was.

    The estimate is twice the larger of the residual times the largest recent ||dy||/||dr|| and the length of the move
    that the method proposes next. For plain iteration at rate q the former tends to twice residual/(1 - q).
    """
    known, measured = goal.modulus > 0, lane.ratio > 0
    # A residual cannot be told from one that is a rounding of y larger (T16), even if it is 0.
    norm = lane.point.norm + 2 * jnp.finfo(lane.point.y.dtype).eps * norm2(lane.point.y)
    exact = norm / jnp.where(known, goal.modulus, jnp.ones_like(goal.modulus))
    seen = jnp.maximum(SAFETY * jnp.maximum(norm * lane.ratio, lane.reach), norm)
    codes = [jnp.where(goal.certified, Basis.CERTIFIED, Basis.ASSUMED), jnp.int32(Basis.MEASURED)]
    basis = jnp.select([known, measured], [jnp.asarray(c, jnp.int32) for c in codes], jnp.int32(Basis.RESIDUAL))
    return jnp.select([known, measured], [exact, seen], jnp.full_like(norm, jnp.inf)), basis


def _classify(lane: Lane, floor, counted, stuck, patience, goal: Goal):
    """The exit code; the order is the priority, and a non-finite residual comes first."""
    norm = lane.point.norm
    error, basis = implied_error(lane, goal)
    error = jnp.where(goal.on_error & (basis != Basis.RESIDUAL), error, norm)
    out = lane.iterations >= goal.limit
    waiting = (lane.stalled >= PATIENCE) & counted  # a direction that is begun is tried, as rounding may be far below
    noise = (norm <= floor) & (waiting | stuck | out)
    noise |= (norm <= NEAR * floor) & ((lane.stalled >= STAGNANT) | stuck | (out & waiting))
    cases = [
        (~jnp.isfinite(norm), Exit.NONFINITE),
        ((norm <= goal.tol) & (error <= goal.tol), Exit.CONVERGED),
        (noise, Exit.CONVERGED_TO_PRECISION),
        (norm > GROWTH * lane.first, Exit.DIVERGED),
        (stuck | (lane.stalled >= patience), Exit.STALLED),
        (out, Exit.STEP_LIMIT),
    ]
    return jnp.select([c for c, _ in cases], [jnp.int32(code) for _, code in cases], jnp.int32(Exit.RUNNING))


def record(lane: Lane, goal: Goal) -> Solution:
    """What is handed out of a lane."""
    error, basis = implied_error(lane, goal)
    newton, reason = getattr(lane.memory, "newton", None), getattr(lane.memory, "reason", None)
    zero = jnp.zeros_like(lane.iterations)
    return Solution(
        lane.point.y,
        lane.exit,
        lane.point.norm,
        lane.rate,
        lane.iterations,
        lane.evaluations,
        error,
        basis,
        zero if newton is None else newton,
        zero if reason is None else reason,
    )


def check_solver(solver: str, tol: float, limit: int, stop: str = "error") -> None:
    """Arguments are looked at before anything is compiled.

    Raises:
      FpjaxError: for an unknown solver or stopping rule, a tolerance that is not positive and finite, or a limit below 1.
    """
    if solver not in SOLVERS:
        raise FpjaxError(f"unknown solver {solver!r}; choose one of {', '.join(SOLVERS)}")
    if stop not in ("error", "residual"):
        raise FpjaxError(f"unknown stopping rule {stop!r}; choose error or residual")
    if not 0 < tol < float("inf"):
        raise FpjaxError(f"tol must be a positive finite number, got {tol}")
    if limit < 1:
        raise FpjaxError(f"limit must be at least 1 iteration, got {limit}")


@functools.partial(jax.jit, static_argnames=("step", "solver", "stop", "certified", "depth"))
def solve(
    step: Callable,
    y0,
    params,
    *,
    solver: str = "auto",
    tol=1e-8,
    limit=200,
    stop: str = "error",
    modulus=0.0,
    certified: bool = False,
    depth: int = DEPTH,
) -> Solution:
    """Solves y = step(y, params) from y0.

    ``jax.grad`` goes through the solution by the implicit function theorem, in ``params`` (reverse mode only); the
    start has no influence on it, and the other fields of the record are treated as constants.

    Args:
      step: a top-level function (y, params) -> array like y.
      y0: the starting point, floating point, any shape.
      params: pytree passed to ``step``.
      solver: one of :data:`fpjax.solvers.SOLVERS`. "picard" (T3), "relaxed" (T5), "aitken", "anderson" and
        "anderson_one" (T14), "newton_krylov", "newton_gmres" (the textbook form: GMRES on exact products); "convex",
        "conjugate" and "accelerated" (T6) where the Jacobian is symmetric; or "auto": Anderson acceleration that turns to
        Newton-Krylov where moves raise the residual or progress is slow, and back after a full Newton step. Where also
        the line search ends, at a local minimum of the residual, auto takes Newton steps of bounded length without one,
        and returns to that point if they do not lead below it.
      tol: the error asked for, 2-norm: T8's residual/m where a modulus is given, the estimate of :func:`implied_error`
        otherwise, and the residual where there is none (the solvers of T6 need a modulus to state an error, and T6 gives
        m >= rho). Never looser than the residual itself.
      limit: the most iterations.
      stop: "error", or "residual" to ask for residual <= tol only.
      modulus: T2's m > 0 of y - step(y), 0 if unknown.
      certified: whether that modulus was proved; otherwise it is taken as assumed.
      depth: secant pairs kept by anderson, newton_krylov and auto.

    Returns:
      A Solution. Safe under vmap: every lane ends with its own exit code.
    """
    y0 = jnp.asarray(y0)
    goal = make_goal(y0.dtype, tol, limit, stop, modulus, certified)
    return _implicit(step, (solver, depth), y0, params, goal)


def make_goal(dtype, tol, limit, stop: str = "error", modulus=0.0, certified: bool = False) -> Goal:
    """A Goal as arrays."""
    return Goal(
        jnp.asarray(tol, dtype),
        jnp.asarray(limit, jnp.int32),
        jnp.asarray(modulus, dtype),
        jnp.bool_(certified),
        jnp.bool_(stop == "error"),
    )


def _run(step, method: tuple[str, int], y0, params, goal: Goal) -> Solution:
    if method[0] == CLASSIC:
        return newton_gmres(step, y0, params, goal)
    machine = named(*method)

    def body(carry):
        slot, lane = carry
        lane = advance(machine, lane, step(lane.query, params), slot, goal)
        return (slot + 1) % slots(lane), lane

    _, end = jax.lax.while_loop(lambda c: c[1].exit == Exit.RUNNING, body, (jnp.int32(0), start(machine, y0)))
    return record(end, goal)


def slots(lane: Lane) -> int:
    """The length of the ring of pairs, 1 for methods without one."""
    pairs = getattr(lane.memory, "pairs", None)
    return 1 if pairs is None else pairs.valid.shape[-1]


def newton_gmres(step, y0, params, goal: Goal) -> Solution:
    """Inexact Newton steps (:mod:`fpjax.gmres`) with backtracking; an error is stated from a modulus only."""

    def body(lane: Lane) -> Lane:
        base = lane.point
        s, spent = gmres.direction(step, base.y, base.r, params, lane.memory)

        def trial(alpha):
            y = base.y + alpha * s
            return measure(y, step(y, params))

        def short_of(alpha, t: Point):
            return ~(t.norm <= (1 - 1e-4 * alpha) * base.norm)

        def shorten(carry):
            alpha, t, k = carry
            alpha = shorter(alpha, base.norm, t.norm)
            return alpha, trial(alpha), k + 1

        one = jnp.ones((), y0.dtype)
        search = jax.lax.while_loop(
            lambda c: short_of(*c[:2]) & (c[2] < BACKTRACKS), shorten, (one, trial(one), jnp.int32(1))
        )
        alpha, t, trials = search
        enough = ~short_of(alpha, t)
        ratio = t.norm / base.norm
        lane = lane._replace(
            point=choose(enough, t, base),
            memory=jnp.where(enough, jnp.clip(0.9 * ratio**2, *FORCING), lane.memory),
            stalled=jnp.where(enough & (ratio < 0.9), 0, lane.stalled + 1),
            rate=ratio,
            iterations=lane.iterations + 1,
            evaluations=lane.evaluations + spent + trials,
        )
        return classified(lane, ~enough)

    def classified(lane: Lane, stuck) -> Lane:
        return lane._replace(exit=_classify(lane, rounding_floor(lane.point), True, stuck, jnp.int32(STALL), goal))

    lane = start(named("picard"), y0)
    point = measure(y0, step(y0, params))
    lane = lane._replace(
        point=point, memory=jnp.full((), FORCING[1], y0.dtype), first=point.norm, evaluations=jnp.int32(1)
    )
    lane = classified(lane, jnp.bool_(False))
    return record(jax.lax.while_loop(lambda lane: lane.exit == Exit.RUNNING, body, lane), goal)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _implicit(step, method: tuple[str, int], y0, params, goal: Goal) -> Solution:
    return _run(step, method, y0, params, goal)


def _forward(step, method, y0, params, goal):
    solution = _run(step, method, y0, params, goal)
    return solution, (solution.y, params, goal)


def _backward(step, method, kept, cotangent):
    y, params, goal = kept
    u = adjoint(step, y, params, cotangent.y, goal)
    (bar,) = jax.vjp(lambda p: step(y, p), params)[1](u)
    return jnp.zeros_like(y), bar, zero_cotangent(goal)


def zero_cotangent(tree):
    """Cotangents of 0 for any pytree of arrays; integers and booleans have float0."""

    def zero(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return jnp.zeros_like(leaf)
        return np.zeros(leaf.shape, jax.dtypes.float0)

    return jax.tree.map(zero, tree)


def adjoint(step, y, params, v, goal: Goal):
    """u with (I - J^T) u = v, J the Jacobian of step at y: again a fixed point, u = J^T u + v.

    Solved to the rounding floor, or to ``goal.tol`` relative to ||v|| if that is not reached.
    """
    size = norm2(v)
    scale = jnp.where(size > 0, size, jnp.ones_like(size))
    tight = jnp.asarray(8 * float(jnp.finfo(y.dtype).eps), y.dtype)
    inner = goal._replace(tol=tight, limit=jnp.maximum(goal.limit, 200), on_error=jnp.zeros_like(goal.on_error))
    solution = _run(
        _transposed, ("auto", DEPTH), v / scale, _Transposed(jax.tree_util.Partial(step), y, params, v / scale), inner
    )
    return scale * solution.y


class _Transposed(NamedTuple):
    step: Any
    y: jax.Array
    params: Any
    v: jax.Array


def _transposed(u, p: _Transposed):
    return p.v + jax.vjp(lambda y: p.step(y, p.params), p.y)[1](u)[0]


_implicit.defvjp(_forward, _backward)
