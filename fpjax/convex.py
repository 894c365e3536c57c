"""Solvers for gradient denoisers: where J is symmetric, inversion is strongly convex minimisation (T6).

In this room: accelerated gradient descent with adaptive restart, nonlinear conjugate gradients, and Newton's method whose
direction comes from conjugate gradients ("convex"). The residual r = y_s - F(y) is minus the gradient of T6's function,
whose values are never needed. All keep a handful of vectors, whatever the condition number, against the dozens of pairs
of :mod:`fpjax.methods`; each answer costs one evaluation. What they see says little about directions they have not been
in, so they state an error only from a modulus, and T6 gives m >= rho. Not in this room: deciding whether a denoiser is a
gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fpjax.methods import Method, Point, Told, choose, length_scale, norm2

CONJUGATE = 200  # the most conjugate directions of one Newton step
FORCING = (1e-3, 0.3)  # a Newton direction leaves a share of the residual within these (Eisenstat & Walker 1996)
FLAT = 0.2  # a line search ends where the slope has fallen to this share
TRIES = 10  # the most trials of one line search of conjugate gradients
SHORTER = 40  # the most trials of one line search of Newton's method


def _dot(a, b):
    return jnp.sum(a * b)


def _over(a, b):
    """a/b, or 0 where b is 0."""
    return jnp.where(b == 0, jnp.zeros_like(b), a / jnp.where(b == 0, jnp.ones_like(b), b))


# --- accelerated: Nesterov 1983 with the restart of O'Donoghue & Candès 2015 ------------------------------------------


class Accelerated(NamedTuple):
    """``last``, the last gradient step's end; ``t``, Nesterov's sequence; ``smooth``, the largest curvature seen."""

    last: jax.Array
    t: jax.Array
    smooth: jax.Array


def _accelerated_init(y) -> Accelerated:
    return Accelerated(jnp.zeros_like(y), jnp.ones((), y.dtype), jnp.ones((), y.dtype))


def _accelerated(m: Accelerated, point: Point, trial: Point, fresh, slot) -> Told:
    """Steps of 1/L, L the largest ||dr||²/<dy, -dr> seen: at most the true L (co-coercivity), and 1 before any is seen."""
    dy, dr = trial.y - point.y, trial.r - point.r
    seen = -_over(_dot(dr, dr), _dot(dy, dr))
    usable = ~fresh & jnp.isfinite(seen) & (seen > 0)
    first = m.smooth == 0
    smooth = jnp.where(usable, jnp.where(first, seen, jnp.maximum(seen, m.smooth)), m.smooth)
    end = trial.y + trial.r / jnp.where(fresh | (smooth == 0), jnp.ones_like(smooth), smooth)
    uphill = fresh | (_dot(trial.r, end - m.last) < 0)
    t = jnp.where(uphill, jnp.ones_like(m.t), m.t)
    t_next = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
    query = jnp.where(uphill, end, end + (t - 1) / t_next * (end - m.last))
    memory = Accelerated(end, t_next, jnp.where(fresh, jnp.zeros_like(smooth), smooth))
    return Told(trial, memory, query, ~fresh, jnp.zeros_like(fresh))


# --- conjugate: nonlinear conjugate gradients, Polak & Ribière 1969 ---------------------------------------------------


class Conjugate(NamedTuple):
    """``direction``; ``alpha``, the length of the trial along it; ``count``, trials of this line search."""

    direction: jax.Array
    alpha: jax.Array
    count: jax.Array


def _conjugate_init(y) -> Conjugate:
    return Conjugate(jnp.zeros_like(y), jnp.ones((), y.dtype), jnp.int32(0))


def _conjugate(m: Conjugate, point: Point, trial: Point, fresh, slot) -> Told:
    """A secant line search on the slope r·p: exact for a quadratic at its second trial. Where it fails, steepest descent."""
    before, after = _dot(point.r, m.direction), _dot(trial.r, m.direction)
    fall = before - after  # positive for a strictly convex function
    flat = jnp.abs(after) <= FLAT * before
    tired = m.count >= TRIES
    accepted = fresh | flat | (tired & (trial.norm < point.norm))
    kept = choose(accepted | ~jnp.isfinite(trial.norm), trial, point)

    beta = jnp.maximum(_over(_dot(trial.r, trial.r - point.r), point.norm**2), 0)
    turned = trial.r + jnp.where(fresh, jnp.zeros_like(beta), beta) * m.direction
    downhill = _dot(trial.r, turned) > 0.1 * trial.norm * norm2(turned)
    turned = jnp.where(downhill, turned, trial.r)
    direction = jnp.where(accepted, turned, jnp.where(tired, point.r, m.direction))
    renew = accepted | tired

    curvature = _over(fall, m.alpha * _dot(m.direction, m.direction))
    straight = _over(_dot(kept.r, direction), curvature * _dot(direction, direction))
    start = jnp.where(~fresh & (curvature > 0) & jnp.isfinite(straight), straight, jnp.ones_like(m.alpha))
    secant = jnp.where(fall > 0, m.alpha * _over(before, fall), 4 * m.alpha)
    alpha = jnp.where(renew, start, jnp.clip(secant, 0.1 * m.alpha, 4 * m.alpha))
    count = jnp.where(renew, 0, m.count + 1)
    stuck = ~fresh & tired & ~accepted & (alpha * norm2(direction) == 0)
    return Told(kept, Conjugate(direction, alpha, count), kept.y + alpha * direction, ~fresh, stuck)


# --- convex: Newton's method with conjugate gradients -----------------------------------------------------------------


class NewtonCG(NamedTuple):
    """``step`` and ``left``: the Newton direction so far and the linear residual it leaves; ``direction``, the next
    conjugate one, probed while not ``searching``; ``alpha``, ``count``: length and number of trials, or probes;
    ``forcing``: the share of the residual that may be left; ``newton``, ``reason``: see Solution.
    """

    step: jax.Array
    left: jax.Array
    direction: jax.Array
    searching: jax.Array
    alpha: jax.Array
    count: jax.Array
    forcing: jax.Array
    newton: jax.Array
    reason: jax.Array


def _newton_init(y) -> NewtonCG:
    zero, one, none = jnp.zeros_like(y), jnp.ones((), y.dtype), jnp.int32(0)
    return NewtonCG(zero, zero, zero, jnp.bool_(False), one, none, one * FORCING[1], none, none)


def _newton(m: NewtonCG, point: Point, trial: Point, fresh, slot) -> Told:
    """H s = r by conjugate gradients on differences of residuals, then a line search along s.

    Along s T6's function falls as long as its slope -r·s is negative, so a point before its minimum is taken, whatever the
    residual's size there; and one a little beyond it where the residual is smaller. Where a
    curvature is not positive T6 does not hold, and the direction found so far is used.
    """
    probing, searching = ~fresh & ~m.searching, ~fresh & m.searching
    before, slope = _dot(point.r, m.step), _dot(trial.r, m.step)  # minus those of T6's function along the direction
    lower = trial.norm <= (1 - 1e-4 * m.alpha) * point.norm
    enough = (slope >= 0) | (lower & (slope >= -FLAT * before))
    accepted = fresh | (searching & enough)
    kept = choose(accepted, trial, point)

    h = _probe_length(point, m.direction)
    image = _over(1.0, h) * (point.r - trial.r)  # H p
    square = _dot(m.left, m.left)
    curvature = _dot(m.direction, image)
    convex = (curvature > 0) & jnp.isfinite(curvature)
    a = jnp.where(convex, _over(square, curvature), jnp.zeros_like(curvature))
    step, left = m.step + a * m.direction, m.left - a * image
    direction = left + _over(_dot(left, left), square) * m.direction
    count = m.count + 1
    ready = probing & (~convex | (norm2(left) <= m.forcing * point.norm) | (count >= CONJUGATE))
    step = jnp.where(probing & ~convex & (m.count == 0), point.r, step)  # steepest descent

    ratio = trial.norm / point.norm
    share = jnp.where(accepted & ~fresh, jnp.clip(0.9 * ratio**2, *FORCING), m.forcing)
    share = jnp.where(fresh, jnp.full_like(share, FORCING[1]), share)
    retry = searching & ~enough
    root = _over(before, before - slope)  # of the chord of the slope, as a share of alpha
    shorter = m.alpha * jnp.clip(root, 0.1, jnp.where(m.count == 0, 0.95, 0.5))
    alpha = jnp.where(retry, shorter, jnp.ones_like(m.alpha))
    now_searching = ready | retry
    memory = NewtonCG(
        jnp.where(accepted, jnp.zeros_like(step), jnp.where(probing, step, m.step)),
        jnp.where(accepted, kept.r, jnp.where(probing, left, m.left)),
        jnp.where(accepted, kept.r, jnp.where(probing, direction, m.direction)),
        now_searching,
        alpha,
        jnp.where(accepted | ready, 0, count),
        share,
        jnp.where(fresh, 0, m.newton + (searching & enough).astype(jnp.int32)),
        jnp.where(fresh, 0, m.reason),
    )
    probe = _probe_length(kept, memory.direction) * memory.direction
    query = kept.y + jnp.where(now_searching, alpha * memory.step, probe)
    stuck = retry & (memory.count >= SHORTER)
    return Told(kept, memory, query, searching, stuck)


def _probe_length(point: Point, direction):
    size = norm2(direction)
    return jnp.sqrt(jnp.finfo(point.y.dtype).eps) * _over(length_scale(point.y, point.norm), size)


METHODS = {
    "accelerated": Method(_accelerated_init, _accelerated, patient=True, measures=False),
    "conjugate": Method(_conjugate_init, _conjugate, patient=True, measures=False),
    "convex": Method(_newton_init, _newton, patient=True, measures=False),
}
