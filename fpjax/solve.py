"""Fixed points y = step(y, params): one record, one measure, methods as small pure updates.

In this room: picard, relaxed (T5), anderson (T14, safeguarded), newton_krylov (T13's iteration, matrix-free) and auto.
Every method is two functions, ``init`` and ``update``; :func:`solve` owns the loop, the exit code and the counting.
The residual of a point is r(y) = step(y) - y, for E2 the same as y_s - F(y), and the residual in a record always
belongs to the point in that record. Not in this room: trajectories, batches (use jax.vmap; each lane has its own exit).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import lineax as lx

from fpjax.evidence import Exit, FpjaxError

DEPTH = 5  # Anderson's memory
PATIENCE = 8  # iterations without a new best residual that count as a stall
ROUNDING = 64  # T16: a residual below this many rounding units of the iterate is noise
GROWTH = 1e8  # a residual this many times the first one has diverged


class Solution(NamedTuple):
    """The outcome of one solve.

    Attributes:
      y: the point returned.
      exit: an :class:`fpjax.evidence.Exit` code, int32.
      residual: ||step(y) - y||_2 at that point.
      rate: the last ratio of successive residuals, NaN before the second; an observation, not a bound.
      iterations: updates made, int32.
      evaluations: evaluations of ``step`` spent, a forward product with its Jacobian counted as 2, int32.
    """

    y: jax.Array
    exit: jax.Array
    residual: jax.Array
    rate: jax.Array
    iterations: jax.Array
    evaluations: jax.Array


class _Point(NamedTuple):
    """A point with its residual vector and the residual's norm."""

    y: jax.Array
    r: jax.Array
    norm: jax.Array


class _State(NamedTuple):
    point: _Point
    memory: Any
    exit: jax.Array
    first: jax.Array
    best: jax.Array
    stalled: jax.Array
    rate: jax.Array
    iterations: jax.Array
    evaluations: jax.Array


def measure(step: Callable, y, params) -> _Point:
    """The residual of a point; the only place where one is computed."""
    r = step(y, params) - y
    return _Point(y, r, jnp.linalg.norm(r.reshape(-1)))


def classify(norm, first, floor, stalled, stuck, iterations, tol, limit):
    """The exit code; the order is the priority, and a non-finite residual comes first.

    Args:
      norm, first: the residual now and at the start.
      floor: the rounding noise of this iterate (T16).
      stalled: iterations since the best residual improved.
      stuck: whether the method found no step at all.
      iterations, tol, limit: what was done, asked for and allowed.
    """
    at_floor = norm <= floor
    return jnp.select(
        [
            ~jnp.isfinite(norm),
            norm <= tol,
            at_floor & ((stalled >= PATIENCE) | stuck),
            norm > GROWTH * first,
            stuck,
            at_floor & (iterations >= limit),
            iterations >= limit,
        ],
        [
            jnp.int32(code)
            for code in (
                Exit.NONFINITE,
                Exit.CONVERGED,
                Exit.CONVERGED_TO_PRECISION,
                Exit.DIVERGED,
                Exit.STALLED,
                Exit.CONVERGED_TO_PRECISION,
                Exit.STEP_LIMIT,
            )
        ],
        jnp.int32(Exit.RUNNING),
    )


class _Moved(NamedTuple):
    """What an update returns: the next point, its memory, evaluations spent, and whether no step was found."""

    point: _Point
    memory: Any
    evaluations: jax.Array
    stuck: jax.Array


def _moved(point, memory, evaluations=1, stuck=False) -> _Moved:
    return _Moved(point, memory, jnp.asarray(evaluations, jnp.int32), jnp.asarray(stuck, bool))


# --- picard: y <- step(y) (T3) ---------------------------------------------------------------------------------------


def _picard_init(point: _Point):
    return ()


def _picard(step, params, point: _Point, memory) -> _Moved:
    return _moved(measure(step, point.y + point.r, params), memory)


# --- relaxed: y <- y + omega·r (T5) ----------------------------------------------------------------------------------


def _relaxed_init(point: _Point):
    return jnp.ones_like(point.norm)


def _relaxed(step, params, point: _Point, omega) -> _Moved:
    """A step that raises the residual is taken back and omega halved; T5 promises that this ends when m > 0."""
    trial = measure(step, point.y + omega * point.r, params)
    accept = ~(trial.norm >= point.norm)  # a NaN trial is kept, so that it is seen
    kept = jax.tree.map(lambda a, b: jnp.where(accept, a, b), trial, point)
    return _moved(kept, jnp.where(accept, 1.1 * omega, omega / 2))


# --- anderson (T14), type II, safeguarded by the residual ------------------------------------------------------------


class _Anderson(NamedTuple):
    dy: jax.Array  # (DEPTH, d) differences of iterates
    dr: jax.Array  # (DEPTH, d) differences of residuals
    count: jax.Array  # columns in use since the last restart
    omega: jax.Array  # relaxation, also the fallback's (T5)
    fallback: jax.Array  # whether the next step is a plain relaxed one


def _anderson_init(point: _Point) -> _Anderson:
    zeros = jnp.zeros((DEPTH, point.y.size), point.y.dtype)
    return _Anderson(zeros, zeros, jnp.int32(0), jnp.ones_like(point.norm), jnp.asarray(True))


def _anderson(step, params, point: _Point, m: _Anderson) -> _Moved:
    """One evaluation an iteration: a step that raises the residual too far is taken back and the memory dropped."""
    y, r = point.y.reshape(-1), point.r.reshape(-1)
    gram = m.dr @ m.dr.T
    eps = jnp.finfo(r.dtype).eps
    # Unused columns are zero; the shift keeps the system regular without moving the used ones.
    shift = 10 * eps * jnp.trace(gram) + jnp.finfo(r.dtype).tiny
    gamma = jnp.linalg.solve(gram + shift * jnp.eye(DEPTH, dtype=r.dtype), m.dr @ r)
    mixed = y + m.omega * r - gamma @ (m.dy + m.omega * m.dr)
    plain = y + m.omega * r
    use_plain = m.fallback | ~jnp.all(jnp.isfinite(mixed))
    trial = measure(step, jnp.where(use_plain, plain, mixed).reshape(point.y.shape), params)

    # An accelerated step may raise the residual a little on its way; a plain one may not (T5's safeguard).
    accept = ~(trial.norm >= jnp.where(use_plain, 1.0, 2.0) * point.norm)
    kept = jax.tree.map(lambda a, b: jnp.where(accept, a, b), trial, point)
    slot = m.count % DEPTH
    dy = m.dy.at[slot].set(trial.y.reshape(-1) - y)
    dr = m.dr.at[slot].set(trial.r.reshape(-1) - r)
    memory = _Anderson(
        jnp.where(accept, dy, 0.0 * m.dy),
        jnp.where(accept, dr, 0.0 * m.dr),
        jnp.where(accept, m.count + 1, 0),
        jnp.where(accept, jnp.minimum(1.1 * m.omega, 1.0), jnp.where(use_plain, m.omega / 2, m.omega)),
        ~accept,
    )
    return _moved(kept, memory)


# --- newton_krylov: GMRES on forward products, backtracking on the residual ------------------------------------------


def _newton_init(point: _Point):
    return ()


def _newton_direction(step, params, point: _Point, restart: int):
    """d with (I - step')d ≈ r by GMRES (lineax), and the evaluations it cost."""

    def matvec(v):
        return v - jax.jvp(lambda y: step(y, params), (point.y,), (v,))[1]

    operator = lx.FunctionLinearOperator(matvec, jax.eval_shape(lambda: point.r))
    # Eisenstat & Walker's second choice, bounded: cheap far away, quadratic near the solution.
    eta = jnp.clip(point.norm, 1e-6, 1e-2).astype(point.r.dtype)
    solver = lx.GMRES(rtol=eta, atol=jnp.zeros_like(eta), restart=restart, max_steps=20)  # pyright: ignore
    result = lx.linear_solve(operator, point.r, solver, throw=False)
    # lineax's first pass makes one product and each further one restart + 1; a breakdown makes fewer, so this is a most.
    cycles = jnp.asarray(result.stats["num_steps"], jnp.int32) - 1
    return result.value, 2 * (1 + cycles * (restart + 1))


def _newton(step, params, point: _Point, memory) -> _Moved:
    restart = min(point.y.size, 20)
    d, cost = _newton_direction(step, params, point, restart)
    d = jnp.where(jnp.all(jnp.isfinite(d)), d, point.r)

    def trial_at(k):
        alpha = 0.5 ** k.astype(point.norm.dtype)
        return alpha, measure(step, point.y + alpha * d, params)

    def good(alpha, trial):
        return trial.norm <= (1 - 1e-4 * alpha) * point.norm

    def more(carry):
        k, alpha, trial = carry
        return ~good(alpha, trial) & (k < 12)

    def halve(carry):
        k = carry[0] + 1
        return (k, *trial_at(k))

    k, alpha, trial = jax.lax.while_loop(more, halve, (jnp.int32(0), *trial_at(jnp.int32(0))))
    found = good(alpha, trial)
    kept = jax.tree.map(lambda a, b: jnp.where(found, a, b), trial, point)
    return _moved(kept, memory, cost + k + 1, ~found)


METHODS = {
    "picard": (_picard_init, _picard),
    "relaxed": (_relaxed_init, _relaxed),
    "anderson": (_anderson_init, _anderson),
    "newton_krylov": (_newton_init, _newton),
}
SOLVERS = ("auto", *METHODS)


def check_solver(solver: str, tol: float, limit: int) -> None:
    """Arguments are looked at before anything is compiled.

    Raises:
      FpjaxError: for an unknown solver, a tolerance that is not positive and finite, or a limit below 1.
    """
    if solver not in SOLVERS:
        raise FpjaxError(f"unknown solver {solver!r}; choose one of {', '.join(SOLVERS)}")
    if not 0 < tol < float("inf"):
        raise FpjaxError(f"tol must be a positive finite number, got {tol}")
    if limit < 1:
        raise FpjaxError(f"limit must be at least 1 iteration, got {limit}")


@functools.partial(jax.jit, static_argnames=("step", "solver"))
def solve(step: Callable, y0, params, *, solver: str = "auto", tol=1e-8, limit=200) -> Solution:
    """Solves y = step(y, params) from y0.

    Args:
      step: a top-level function (y, params) -> array like y.
      y0: the starting point, floating point, any shape.
      params: pytree passed to ``step``.
      solver: "picard", "relaxed", "anderson", "newton_krylov", or "auto": anderson for at most 30 iterations and, where
        that did not arrive, newton_krylov from where it stands.
      tol: the residual ||step(y) - y||_2 asked for.
      limit: the most iterations (each of the two stages of auto has its own).

    Returns:
      A Solution. Safe under vmap: every lane ends with its own exit code.
    """
    if solver != "auto":
        return _run(step, y0, params, solver, tol, limit)
    first = _run(step, y0, params, "anderson", tol, jnp.minimum(limit, 30))
    usable = jnp.isfinite(first.residual)
    start = jnp.where(usable, first.y, y0)
    second = _run(step, start, params, "newton_krylov", tol, limit)
    done = first.exit == Exit.CONVERGED
    chosen = jax.tree.map(lambda a, b: jnp.where(done, a, b), first, second)
    return chosen._replace(
        iterations=first.iterations + jnp.where(done, 0, second.iterations),
        evaluations=first.evaluations + jnp.where(done, 0, second.evaluations),
    )


def _run(step, y0, params, method: str, tol, limit) -> Solution:
    init, update = METHODS[method]
    tol = jnp.asarray(tol, y0.dtype)
    point = measure(step, y0, params)
    zero = jnp.int32(0)
    code = classify(point.norm, point.norm, _floor(point), zero, jnp.asarray(False), zero, tol, limit)
    rate = jnp.full_like(point.norm, jnp.nan)
    state = _State(point, init(point), code, point.norm, point.norm, zero, rate, zero, jnp.int32(1))

    def body(s: _State) -> _State:
        moved = update(step, params, s.point, s.memory)
        norm = moved.point.norm
        better = norm < 0.9 * s.best
        stalled = jnp.where(better, 0, s.stalled + 1)
        k = s.iterations + 1
        code = classify(norm, s.first, _floor(moved.point), stalled, moved.stuck, k, tol, limit)
        best = jnp.where(better, norm, s.best)
        rate = norm / s.point.norm
        return _State(
            moved.point, moved.memory, code, s.first, best, stalled, rate, k, s.evaluations + moved.evaluations
        )

    end = jax.lax.while_loop(lambda s: s.exit == Exit.RUNNING, body, state)
    return Solution(end.point.y, end.exit, end.point.norm, end.rate, end.iterations, end.evaluations)


def _floor(point: _Point):
    """T16: the size of rounding noise in a residual, from the size of the iterate and of its image."""
    y, r = point.y.reshape(-1), point.r.reshape(-1)
    return ROUNDING * jnp.finfo(y.dtype).eps * (jnp.linalg.norm(y) + jnp.linalg.norm(y + r))
