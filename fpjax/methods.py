"""Solvers as state machines: a method says where to evaluate next, is told the residual there, and answers again.

In this room: picard (T3), relaxed (T5), aitken, and one machine with three policies: anderson (T14), newton_krylov and
auto. **Each answer costs exactly one evaluation of the network**, whatever phase a method is in, so lanes of a batch in
different phases waste nothing. Products with the Jacobian are differences of residuals (Knoll & Keyes 2004): one
evaluation each, half the cost of a forward-mode product. Not in this room: loops, exit codes (solve), batches (lanes).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fpjax import secants

DEPTH = 64  # secant pairs kept unless asked otherwise; never more than the unknowns
REJECTIONS = 2  # moves in a row that raise the residual before the pairs are dropped
DROPS = 2  # times that this happens without the residual halving in between before Newton takes over
WINDOW = 12  # moves over which the residual must halve, or Newton takes over
PROBES = 40  # the most Krylov vectors of one Newton step
BACKTRACKS = 12  # the most halvings of one line search
FORCING = (1e-3, 0.1)  # a Newton direction leaves a share of the residual within these (Eisenstat & Walker 1996)

LEAST, MOST = 1e-3, 1e2  # the range of the relaxation
UNEXPLAINED = 0.2  # the share of a residual outside the pairs that the relaxation learns from

MOVE, PROBE, SEARCH = 0, 1, 2  # phases of the machine


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
      stuck: whether the method has no further step to offer.
    """

    point: Point
    memory: Any
    query: jax.Array
    counted: jax.Array
    stuck: jax.Array


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


# --- the machine: anderson, newton_krylov, auto ----------------------------------------------------------------------


class Machine(NamedTuple):
    """Memory of the machine.

    Attributes:
      pairs: secant pairs. phase: MOVE, PROBE or SEARCH.
      direction, left: (d,), in PROBE and SEARCH the Newton direction so far and the linear residual it leaves.
      alpha: step length of the line search. count: probes or trials of this phase.
      omega: relaxation of what the pairs do not explain. rejected: moves rejected in a row.
      drops: times that the pairs were dropped for it without the residual halving in between.
      mark, since: the residual at the start of the window that progress is watched in, and moves since.
      newton: Newton steps taken. reason: why Newton took over last, 0 if it did not (see Solution.reason).
      spread, weak: largest ||dy||/||dr|| over combinations of the pairs, and the direction (d,) of that dy.
      forcing: the share of the residual that the next Newton direction may leave.
    """

    pairs: secants.Secants
    phase: jax.Array
    direction: jax.Array
    left: jax.Array
    alpha: jax.Array
    count: jax.Array
    omega: jax.Array
    rejected: jax.Array
    drops: jax.Array
    mark: jax.Array
    since: jax.Array
    newton: jax.Array
    reason: jax.Array
    spread: jax.Array
    weak: jax.Array
    forcing: jax.Array


class Policy(NamedTuple):
    """Which phases the machine may use."""

    moves: bool
    newton: bool


def machine_init(depth: int, y) -> Machine:
    """No pairs, in the phase of moves."""
    zero, one, none = jnp.zeros((), y.dtype), jnp.ones((), y.dtype), jnp.int32(0)
    flat = jnp.zeros(y.size, y.dtype)
    return Machine(
        secants.empty(min(depth, y.size), y),
        none,
        flat,
        flat,
        one,
        none,
        one,
        none,
        none,
        zero,
        none,
        none,
        none,
        zero,
        flat,
        one * FORCING[1],
    )


class _Judged(NamedTuple):
    """What became of a trial, and which phase comes next."""

    accepted: jax.Array
    phase: jax.Array
    reset: jax.Array  # drop all pairs
    enter: jax.Array  # begin a new Newton direction
    rejected: jax.Array
    drops: jax.Array
    mark: jax.Array
    since: jax.Array
    reason: jax.Array


def _judge(policy: Policy, m: Machine, point: Point, trial: Point, fresh) -> _Judged:
    moving, searching = ~fresh & (m.phase == MOVE), ~fresh & (m.phase == SEARCH)
    lower = trial.norm < point.norm
    enough = trial.norm <= (1 - 1e-4 * m.alpha) * point.norm
    accepted = fresh | (moving & lower) | (searching & enough)
    rejected = jnp.where(moving & ~lower, m.rejected + 1, jnp.where(accepted, 0, m.rejected))
    norm = jnp.where(accepted, trial.norm, point.norm)

    since = jnp.where(moving, m.since + 1, m.since)
    # Moves miss the pairs that a full ring has dropped; a Newton direction does not, and is then the faster of the two.
    full = jnp.all(m.pairs.valid) if m.pairs.valid.size < trial.y.size else _like(fresh)
    halved = norm < jnp.where(full, 0.1, 0.5).astype(norm.dtype) * m.mark
    renew = fresh | halved | ~moving
    mark, since = jnp.where(renew, norm, m.mark), jnp.where(renew, 0, since)

    drop = moving & (rejected >= REJECTIONS)
    drops = jnp.where(renew, 0, m.drops + drop.astype(jnp.int32))
    rejected = jnp.where(drop, 0, rejected)
    give_up = drops >= DROPS
    slow = moving & (since >= WINDOW)
    if not policy.newton:
        phase = jnp.int32(MOVE)
        return _Judged(accepted, phase, drop, _like(fresh), rejected, drops, mark, since, m.reason)
    # After a full Newton step the pairs it was made from describe the map here too; after a short one they do not.
    # Nor do those that are left where the direction took more than the ring holds.
    close = searching & enough & (m.alpha == 1) & ~full
    restart = searching & enough & ~close if policy.moves else searching & enough
    enter = (give_up | slow | restart) if policy.moves else fresh | restart
    to_move = (fresh | close) if policy.moves else _like(fresh)
    phase = jnp.where(enter, PROBE, jnp.where(to_move, MOVE, m.phase))
    reason = jnp.where(fresh, 0, jnp.where(give_up, 1, jnp.where(slow, 2, m.reason)))
    rejected, drops, since = (jnp.where(enter, 0, v) for v in (rejected, drops, since))
    return _Judged(accepted, phase, enter | drop, enter, rejected, drops, mark, since, reason)


def _like(condition):
    return jnp.zeros_like(condition)


def _omega(m: Machine, point: Point, r, moving, accepted, fresh):
    """Relaxation of what the pairs do not explain: the length that would have left the least of it last time.

    The last move added omega·left, and left - r is what that took off (for an affine map). So 1/rho where J is small.
    Says nothing where the pairs explained nearly all.
    """
    taken = m.left - r
    square = taken @ taken
    best = m.omega * (m.left @ taken) / jnp.where(square > 0, square, jnp.ones_like(square))
    usable = moving & jnp.isfinite(best) & (best > 0) & (norm2(m.left) > UNEXPLAINED * point.norm)
    otherwise = jnp.where(moving & ~accepted, jnp.minimum(m.omega, 1) / 2, m.omega)
    omega = jnp.where(usable, jnp.clip(best, LEAST, MOST), jnp.maximum(otherwise, LEAST))
    return jnp.where(fresh, jnp.ones_like(m.omega), omega)


def tell(policy: Policy, m: Machine, point: Point, trial: Point, fresh, slot) -> Told:
    """The answer of anderson, newton_krylov and auto."""
    shape = trial.y.shape
    dtype = trial.y.dtype
    j = _judge(policy, m, point, trial, fresh)
    moving, probing, searching = (~fresh & (m.phase == p) for p in (MOVE, PROBE, SEARCH))
    dy, dr = (trial.y - point.y).reshape(-1), (trial.r - point.r).reshape(-1)
    dy, dr = secants.conjugate(m.pairs, slot, dy, dr, probing)
    square = dr @ dr
    # A pair so short that rounding turns it by more than dependent pairs may differ says nothing.
    clear = jnp.sqrt(square) > jnp.finfo(dtype).eps ** 0.75 * length_scale(trial.y.reshape(-1), trial.norm)
    keep = ~fresh & (clear | probing) & ~(searching & ~j.accepted)
    pairs = secants.push(m.pairs, slot, dy, dr, jnp.sqrt(square), keep)
    pairs = pairs._replace(valid=pairs.valid & ~(fresh | j.reset))
    omega = _omega(m, point, trial.r.reshape(-1), moving, j.accepted, fresh)
    kept = choose(j.accepted, trial, point)
    y, r = kept.y.reshape(-1), kept.r.reshape(-1)

    # Project what is to be removed onto the pairs: all of r for a move, what is left of it in a Newton direction.
    inside = probing & ~j.enter
    wanted = jnp.where(inside, m.left, r)
    gamma, spread, weak = secants.coefficients_and_spread(pairs, slot, wanted, m.weak)
    left = wanted - gamma @ pairs.dr
    direction = jnp.where(inside, m.direction, jnp.zeros_like(m.direction)) - gamma @ pairs.dy

    left_norm = norm2(left)
    count = jnp.where(fresh | j.enter, 0, m.count + (probing | searching).astype(jnp.int32))
    ready = inside & ((left_norm <= m.forcing * kept.norm) | (count >= min(PROBES, 2 * y.size)))
    phase = jnp.where(ready, SEARCH, j.phase)
    count = jnp.where(ready, 0, count)
    retry = searching & ~j.accepted
    direction = jnp.where(retry, m.direction, direction)
    alpha = jnp.where(retry, shorter(m.alpha, point.norm, trial.norm), jnp.ones_like(m.alpha))

    # A projection that removes nothing (a rotation, say) would probe the same direction again: take its image instead.
    stagnant = inside & (left_norm > 0.99 * norm2(m.left))
    probe = jnp.where(stagnant, pairs.dr[slot], left)
    size = norm2(probe)
    h = jnp.sqrt(jnp.finfo(dtype).eps) * length_scale(y, kept.norm) / jnp.where(size > 0, size, jnp.ones_like(size))
    query = y + jnp.select([phase == PROBE, phase == SEARCH], [h * probe, alpha * direction], direction + omega * left)
    stuck = (retry & (count >= BACKTRACKS)) | ((phase == PROBE) & ~(size > 0))
    share = jnp.clip(0.9 * (trial.norm / point.norm) ** 2, *FORCING)
    forcing = jnp.where(fresh, jnp.full_like(share, FORCING[1]), jnp.where(searching & j.accepted, share, m.forcing))
    newton = jnp.where(fresh, 0, m.newton + (searching & j.accepted).astype(jnp.int32))
    memory = Machine(
        pairs,
        phase,
        direction,
        left,
        alpha,
        count,
        omega,
        j.rejected,
        j.drops,
        j.mark,
        j.since,
        newton,
        j.reason,
        spread,
        weak,
        forcing,
    )
    return Told(kept, memory, query.reshape(shape), moving | searching, stuck)


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
    :class:`Machine`."""

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
POLICIES = {
    "auto": Policy(moves=True, newton=True),
    "anderson": Policy(moves=True, newton=False),
    "newton_krylov": Policy(moves=False, newton=True),
}
