"""Solvers as state machines: a method says where to evaluate next, is told the residual there, and answers again.

In this room: picard (T3), relaxed (T5), aitken and anderson_one. **Each answer costs exactly one evaluation of the
network**, whatever phase a method is in, so lanes of a batch in different phases waste nothing. Products with the Jacobian
are differences of residuals (Knoll & Keyes 2004): one evaluation each, half the cost of a forward-mode product. Not in
this room: anderson, newton_krylov and auto (machine), loops, exit codes (solve), batches (lanes).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fpjax import secants

DEPTH = 64  # secant pairs kept unless asked otherwise; never more than the unknowns
ROUNDING = 64  # T16: a residual below this many rounding units of the iterate is noise
NEAR = 8  # a residual below this many such floors that no longer falls is noise too: c in T16 depends on the machine
BACKTRACKS = 12  # the most halvings of one line search
REJECTIONS = 2  # moves in a row that raise the residual before the pairs are dropped


class Point(NamedTuple):
    """A point with its residual vector step(y) - y and the residual's 2-norm."""

    y: jax.Array
    r: jax.Array
    norm: jax.Array


class Told(NamedTuple):
    """A method's answer.

    Attributes:
      point: the best it stands on. memory: its own. query: where to evaluate next.
      counted: whether this evaluation was a trial of a new point (an iteration) rather than a probe.
      stuck: whether the method has no further step to offer. astray: whether it is looking for a better point along a
        way on which the residual may rise.
    """

    point: Point
    memory: Any
    query: jax.Array
    counted: jax.Array
    stuck: jax.Array
    astray: jax.Array | bool = False


class Method(NamedTuple):
    """``init(y) -> memory`` and ``tell(memory, point, trial, fresh, slot) -> Told``.

    ``fresh`` says that ``trial`` is the first point of a new problem: point and memory are then those of another one.
    ``slot`` is the place in the ring of pairs that this iteration may write, the same for all lanes.
    """

    init: Callable
    tell: Callable
    patient: bool = False  # whether it may go without progress for as long as the limit allows
    measures: bool = True  # whether what it saw of the map says how far a residual is from an error


def choose(condition, a, b):
    """``a`` where the scalar condition holds, else ``b``, for trees of arrays."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def rounding_floor(point: Point):
    """T16: the size of rounding noise in a residual, from the size of the iterate and of its image."""
    return ROUNDING * jnp.finfo(point.y.dtype).eps * (norm2(point.y) + norm2(point.y + point.r))


def norm2(v):
    """The 2-norm of all entries."""
    v = v.reshape(-1)
    return jnp.sqrt(v @ v)


# --- picard: y <- step(y) (T3) ---------------------------------------------------------------------------------------


def _picard(memory, point: Point, trial: Point, fresh, slot) -> Told:
    return Told(trial, memory, trial.y + trial.r, ~fresh, jnp.zeros_like(fresh))


# --- relaxed: y <- y + omega·r (T5) ----------------------------------------------------------------------------------


def _relaxed(omega, point: Point, trial: Point, fresh, slot) -> Told:
    """A step that raises the residual is taken back and omega halved; T5 promises that this ends when m > 0."""
    accept = fresh | ~(trial.norm >= point.norm)  # a NaN trial is kept, so that it is seen
    kept = choose(accept, trial, point)
    omega = jnp.where(fresh, jnp.ones_like(omega), jnp.where(accept, 1.1 * omega, omega / 2))
    return Told(kept, omega, kept.y + omega * kept.r, ~fresh, jnp.zeros_like(fresh))


# --- aitken: the vector secant of Irons & Tuck 1969 ------------------------------------------------------------------


def _aitken(omega, point: Point, trial: Point, fresh, slot) -> Told:
    dr = trial.r - point.r
    square = jnp.sum(dr * dr)
    secant = -omega * jnp.sum(point.r * dr) / jnp.where(square > 0, square, jnp.ones_like(square))
    usable = ~fresh & (square > 0) & jnp.isfinite(secant) & (secant != 0)
    omega = jnp.where(usable, jnp.clip(secant, -100, 100), jnp.ones_like(omega))
    return Told(trial, omega, trial.y + omega * trial.r, ~fresh, jnp.zeros_like(fresh))


# --- lengths of steps -------------------------------------------------------------------------------------------------


def length_scale(y, norm):
    """A length that steps of differences are relative to: that of the point and its image, or 1 where both are 0."""
    size = norm2(y) + norm
    return jnp.where(size > 0, size, jnp.ones_like(size))


def shorter(alpha, before, after):
    """The minimiser of the parabola through ||r||² and its slope -2||r||² at 0 and ||r||² at alpha, within [1/10, 1/2]."""
    ratio = (after / before) ** 2
    best = alpha / (ratio - 1 + 2 * alpha) * alpha
    return jnp.where(jnp.isfinite(best), jnp.clip(best, 0.1 * alpha, 0.5 * alpha), 0.1 * alpha)


# --- anderson_one: Anderson acceleration of type I (Fang & Saad 2009) ------------------------------------------------


class TypeOne(NamedTuple):
    """Secant pairs, relaxation of what they do not explain, moves rejected in a row; ``spread`` and ``weak`` as in
    :class:`fpjax.machine.Machine`."""

    pairs: secants.Secants
    omega: jax.Array
    rejected: jax.Array
    spread: jax.Array
    weak: jax.Array


def type_one_init(depth: int, y) -> TypeOne:
    """No pairs."""
    one = jnp.ones((), y.dtype)
    flat = jnp.zeros(y.size, y.dtype)
    return TypeOne(secants.empty(min(depth, y.size), y), one, jnp.int32(0), 0 * one, flat)


def type_one(m: TypeOne, point: Point, trial: Point, fresh, slot) -> Told:
    """gamma makes r + gamma·dR orthogonal to every dy, where type II makes it short; safeguarded by the residual.

    Under T2 the matrix -dY dR^T has a positive definite symmetric part (for an affine map), so it can be eliminated
    without pivoting. T14 is about type II; here there is only the safeguard.
    """
    lower = trial.norm < point.norm
    accepted = fresh | lower
    kept = choose(accepted | ~jnp.isfinite(trial.norm), trial, point)
    rejected = jnp.where(accepted, 0, m.rejected + 1)
    drop = rejected >= REJECTIONS
    dy, dr = (trial.y - point.y).reshape(-1), (trial.r - point.r).reshape(-1)
    pairs = secants.push(m.pairs, slot, dy, dr, norm2(dr), ~fresh)
    pairs = pairs._replace(valid=pairs.valid & ~(fresh | drop))
    r = kept.r.reshape(-1)
    gamma = secants.oblique(pairs, slot, r)
    _, spread, weak = secants.coefficients_and_spread(pairs, slot, r, m.weak)
    grown = jnp.minimum(1.3 * m.omega, 1)
    omega = jnp.where(fresh, jnp.ones_like(m.omega), jnp.where(accepted, grown, m.omega / 2))
    move = gamma @ pairs.dy + omega * (r + gamma @ pairs.dr)
    memory = TypeOne(pairs, omega, jnp.where(drop, 0, rejected), spread, weak)
    return Told(kept, memory, kept.y + move.reshape(kept.y.shape), ~fresh, jnp.zeros_like(fresh))


def _one(y):
    return jnp.ones((), y.dtype)


METHODS = {
    "picard": Method(lambda y: (), _picard, patient=True),
    "relaxed": Method(_one, _relaxed, patient=True),
    "aitken": Method(_one, _aitken, patient=True),
}
