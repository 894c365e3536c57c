"""One state machine with three policies: anderson (T14), newton_krylov and auto.

In this room: moves by least squares over secant pairs, Newton directions probed by differences of residuals, the line
search, and what auto does where that fails. Each answer costs one evaluation, as in :mod:`fpjax.methods`. Not in this
room: the algebra of pairs (secants).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fpjax import secants
from fpjax.methods import (
    BACKTRACKS,
    NEAR,
    REJECTIONS,
    Point,
    Told,
    choose,
    length_scale,
    norm2,
    rounding_floor,
    shorter,
)

DROPS = 2  # times that this happens without the residual halving in between before Newton takes over
WINDOW = 12  # moves over which the residual must halve, or Newton takes over
PROBES = 40  # the most Krylov vectors of one Newton step
FORCING = (1e-3, 0.1)  # a Newton direction leaves a share of the residual within these (Eisenstat & Walker 1996)
IDLE = 70  # evaluations that did not lower the residual by a tenth before auto strides; slow searches do arrive
STRIDE = 0.2  # the longest Newton step without a line search, in lengths of the point
STRIDES = 20  # the most such steps that do not get below the residual that they began at

LEAST, MOST = 1e-3, 1e2  # the range of the relaxation
UNEXPLAINED = 0.2  # the share of a residual outside the pairs that the relaxation learns from

MOVE, PROBE, SEARCH = 0, 1, 2  # phases of the machine


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
      way: see :class:`Way`.
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
    way: "Way"


class Way(NamedTuple):
    """Out of a local minimum of the residual: Newton steps of bounded length without a line search (a watchdog, Chamberlain,
    Powell, Lemaréchal & Pedersen 1982), which end where the residual is a tenth lower than where they began.

    Attributes:
      idle: evaluations since the residual was last a tenth lower than ``level``. strides: steps taken without a line
        search; 0 where there is one, -1 on the way back, when there have been too many.
      home: the point (d,) where they began. level: the residual that progress is measured from.
    """

    idle: jax.Array
    strides: jax.Array
    home: jax.Array
    level: jax.Array


class Policy(NamedTuple):
    """Which phases the machine may use."""

    moves: bool
    newton: bool


POLICIES = {
    "auto": Policy(moves=True, newton=True),
    "anderson": Policy(moves=True, newton=False),
    "newton_krylov": Policy(moves=False, newton=True),
}


def machine_init(depth: int, y) -> Machine:
    """No pairs, in the phase of moves."""
    zero, one, none = jnp.zeros((), y.dtype), jnp.ones((), y.dtype), jnp.int32(0)
    flat = jnp.zeros(y.size, y.dtype)
    pairs = secants.empty(min(depth, y.size), y)
    way = Way(none, none, flat, zero)
    counts = {
        "phase": none,
        "count": none,
        "rejected": none,
        "drops": none,
        "since": none,
        "newton": none,
        "reason": none,
    }
    reals = {"alpha": one, "omega": one, "mark": zero, "spread": zero, "forcing": one * FORCING[1]}
    return Machine(pairs=pairs, direction=flat, left=flat, weak=flat, way=way, **counts, **reals)


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


class _Strode(NamedTuple):
    """``way`` after the trial; ``begins`` along the direction at hand (the line search has ended without a step); ``home``
    is the next query; ``there`` is the trial."""

    way: Way
    begins: jax.Array
    home: jax.Array
    there: jax.Array


def _stride(m: Machine, point: Point, trial: Point, j: _Judged, fresh) -> tuple[_Judged, _Strode]:
    """auto where the residual has a local minimum that is not 0: the line search fails, or its steps gain little."""
    way = m.way
    searching, on, there = ~fresh & (m.phase == SEARCH), way.strides > 0, ~fresh & (way.strides < 0)
    usual, tired = searching & ~on, m.count + 1 >= BACKTRACKS
    taken = searching & on & jnp.isfinite(trial.norm)
    lost = searching & on & ~taken & tired  # nothing finite along this direction
    base = choose(j.accepted, trial, point)
    usual &= base.norm > NEAR * rounding_floor(base)  # a line search that ends in rounding noise has arrived
    failed = usual & ~j.accepted & tired
    better = fresh | ((taken | j.accepted) & (trial.norm < 0.9 * way.level))
    begins = failed | (usual & j.accepted & ~better & (way.idle >= IDLE))
    idle = jnp.where(better | begins, 0, way.idle + 1)
    level = jnp.where(better, trial.norm, jnp.where(begins, base.norm, way.level))
    strides = jnp.where(begins, 1, jnp.where(taken, way.strides + 1, way.strides))
    strides = jnp.where(better | there, 0, jnp.where(lost | (strides > STRIDES), -1, strides))
    back = ~there & (strides < 0)
    home = jnp.where(begins, base.y.reshape(-1), way.home)
    again = taken | (begins & j.accepted)  # a new direction from here
    phase = jnp.where(back, MOVE, jnp.where(again, PROBE, j.phase))
    j = j._replace(
        accepted=j.accepted | taken | there,
        phase=phase,
        reset=j.reset | again,
        enter=j.enter | again,
        mark=jnp.where(taken, trial.norm, j.mark),
        reason=jnp.where(begins, 3, j.reason),
    )
    return j, _Strode(Way(idle, strides, home, level), failed, back, there)


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
    dtype = trial.y.dtype
    j = _judge(policy, m, point, trial, fresh)
    strode = None
    if policy.moves and policy.newton:
        j, strode = _stride(m, point, trial, j, fresh)
    moving, probing, searching = (~fresh & (m.phase == p) for p in (MOVE, PROBE, SEARCH))
    dy, dr = (trial.y - point.y).reshape(-1), (trial.r - point.r).reshape(-1)
    dy, dr = secants.conjugate(m.pairs, slot, dy, dr, probing)
    size = norm2(dr)
    # A pair so short that rounding turns it by more than dependent pairs may differ says nothing.
    clear = size > jnp.finfo(dtype).eps ** 0.75 * length_scale(trial.y.reshape(-1), trial.norm)
    keep = ~fresh & (clear | probing) & ~(searching & ~j.accepted)
    pairs = secants.push(m.pairs, slot, dy, dr, size, keep)
    pairs = pairs._replace(valid=pairs.valid & ~(fresh | j.reset))
    omega = _omega(m, point, trial.r.reshape(-1), moving, j.accepted, fresh)
    kept = choose(j.accepted, trial, point)
    r = kept.r.reshape(-1)

    # Project what is to be removed onto the pairs: all of r for a move, what is left of it in a Newton direction.
    inside = probing & ~j.enter
    wanted = jnp.where(inside, m.left, r)
    gamma, spread, weak = secants.coefficients_and_spread(pairs, slot, wanted, m.weak)
    left = wanted - gamma @ pairs.dr
    direction = jnp.where(inside, m.direction, jnp.zeros_like(m.direction)) - gamma @ pairs.dy
    count = jnp.where(fresh | j.enter, 0, m.count + (probing | searching).astype(jnp.int32))
    left_norm = norm2(left)
    ready = inside & ((left_norm <= m.forcing * kept.norm) | (count >= min(PROBES, 2 * trial.y.size)))
    retry = searching & ~j.accepted
    direction = jnp.where(retry, m.direction, direction)
    alpha = jnp.where(retry, shorter(m.alpha, point.norm, trial.norm), jnp.ones_like(m.alpha))
    # A projection that removes nothing (a rotation, say) would probe the same direction again: take its image instead.
    stagnant = inside & (left_norm > 0.99 * norm2(m.left))

    share = jnp.clip(0.9 * (trial.norm / point.norm) ** 2, *FORCING)
    forcing = jnp.where(fresh, jnp.full_like(share, FORCING[1]), jnp.where(searching & j.accepted, share, m.forcing))
    following = m._replace(
        pairs=pairs,
        phase=jnp.where(ready, SEARCH, j.phase),
        direction=direction,
        left=left,
        alpha=alpha,
        count=jnp.where(ready, 0, count),
        omega=omega,
        rejected=j.rejected,
        drops=j.drops,
        mark=j.mark,
        since=j.since,
        newton=jnp.where(fresh, 0, m.newton + (searching & j.accepted).astype(jnp.int32)),
        reason=j.reason,
        spread=spread,
        weak=weak,
        forcing=forcing,
    )
    probe = jnp.where(stagnant, pairs.dr[slot], left)
    return _asked(following, kept, probe, strode, moving | searching, retry & (following.count >= BACKTRACKS), ready)


def _asked(m: Machine, kept: Point, probe, strode: _Strode | None, counted, exhausted, ready) -> Told:
    """Where to evaluate next: a move, a probe along ``probe``, a point on the Newton direction, or home."""
    y = kept.y.reshape(-1)
    scale, size = length_scale(y, kept.norm), norm2(probe)
    h = jnp.sqrt(jnp.finfo(y.dtype).eps) * scale / jnp.where(size > 0, size, jnp.ones_like(size))
    stuck, astray = exhausted, _like(exhausted)
    if strode is not None:
        length = norm2(m.direction)
        bound = jnp.minimum(STRIDE * scale / jnp.where(length > 0, length, jnp.ones_like(length)), 1)
        sets_out = strode.begins | (ready & (strode.way.strides > 0))
        m = m._replace(
            alpha=jnp.where(sets_out, bound, m.alpha), count=jnp.where(strode.begins, 0, m.count), way=strode.way
        )
        astray = strode.way.strides != 0
        stuck = (exhausted & ~astray) | strode.there
    ways = [m.phase == PROBE, m.phase == SEARCH]
    query = y + jnp.select(ways, [h * probe, m.alpha * m.direction], m.direction + m.omega * m.left)
    if strode is not None:
        query = jnp.where(strode.home, strode.way.home, query)
    stuck |= (m.phase == PROBE) & ~(size > 0)
    return Told(kept, m, query.reshape(kept.y.shape), counted, stuck, astray)
