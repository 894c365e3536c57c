"""Search for the worst point of a region: where kappa is largest, or the modulus m smallest.

In this room: projected gradient ascent through the converged singular pair, restarts in one compiled batch, and witnesses
evaluated again in float64. With A = I - J(y) and A v = s u, the gradient of s in y is that of u^T A(y) v with u and v held
fixed (Hellmann-Feynman), where s is simple. **What a search finds is a lower estimate of the supremum; finding nothing
proves nothing.** Not in this room: regions themselves, verdicts.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.evidence import FpjaxError
from fpjax.jacobian import extreme_eigenvalues, linear, spectral_norm
from fpjax.regions import Region, outside
from fpjax.step import G, Step, denoised

OBJECTIVES = ("kappa", "modulus")
SEARCH_TOL = 1e-4  # Ritz residual, relative, while climbing
START_TOL = 1e-2  # enough to choose a start
TRIES = 16  # random points from which a climb chooses its start
MOMENTUM = 0.8
SLACK = 1e-3
FIRST_STEP = 0.3  # length of the first trial step, relative to the region's scale
FINAL_TOL = 1e-8  # and at the point that is returned
PAIR_SIZES = (1e-2, 1e-3, 1e-4, 1e-5)  # lengths of witness pairs, relative to the region's scale


class Found(NamedTuple):
    """The best point of each search (leading axis n).

    Attributes:
      y: (n, *shape), in the region. value: kappa or m there. right, left: (n, d), the singular vectors (for "modulus" both
        are the eigenvector). residual: of that Ritz pair.
      first: the best value among the random starts. evaluations: points whose norm was computed, int.
    """

    y: jax.Array
    value: jax.Array
    right: jax.Array
    left: jax.Array
    residual: jax.Array
    first: jax.Array
    evaluations: int


class Pair(NamedTuple):
    """Two points that G moves apart by ``ratio`` = |G(a) - G(b)|/|a - b|, all in float64.

    Attributes:
      a, b: points. ratio: evaluated in float64 by a program of its own. claimed: the value it should confirm.
      rounding: how far rounding can move the ratio, to first order. outside: how far the pair leaves the region.
    """

    a: np.ndarray
    b: np.ndarray
    ratio: float
    claimed: float
    rounding: float
    outside: float

    @property
    def confirms(self) -> bool:
        """The ratio reaches the claim to 1e-6 relative and rounding: by the mean value inequality sup kappa >= ratio."""
        return self.ratio >= self.claimed * (1 - 1e-6) - self.rounding


def _value(y, p: Step, objective: str, key, start, tol, shift=1):
    """What is climbed, with its vectors and residual: -m for "modulus", else (1 - rho)·||shift·I - J||, kappa for shift 1."""
    forward, transpose = linear(lambda v: denoised(v, p), y)
    options: dict[str, Any] = {"tol": tol, "dtype": y.dtype, "start": start}
    if objective == "modulus":
        ends = extreme_eigenvalues(lambda v: (forward(v) + transpose(v)) / 2, y.size, key, **options)
        return -(p.rho + (1 - p.rho) * ends.low), ends.low_vector, ends.low_vector, ends.low_residual
    norm = spectral_norm(lambda v: shift * v - forward(v), lambda u: shift * u - transpose(u), y.size, key, **options)
    return (1 - p.rho) * norm.value, norm.right, norm.left, norm.residual


def _slope(y, p: Step, right, left):
    """The gradient in y of the value, up to a positive factor."""

    def pairing(x):
        moved = jax.jvp(lambda v: denoised(v, p), (x,), (right.reshape(y.shape),))[1]
        return left @ moved.reshape(-1)

    return -jax.grad(pairing)(y)


def _ascend(y, p: Step, region: Region, key, objective: str, iterations: int, shift=1):
    """``iterations`` trial steps from y; the best point seen.

    A step is kept unless it loses more than SLACK of the value: on a plateau, where one mode of the data holds all the
    posterior weight, the gradient is tiny but points to the nearest tie between modes, and nothing rises on the way there.
    """
    value, right, left, _ = _value(y, p, objective, key, None, SEARCH_TOL, shift)

    def trial(carry, k):
        here, (best_y, best), size, momentum = carry
        y, value, right, left = here
        # The averaged direction follows a narrow ridge along which the plain gradient would zigzag.
        way = _unit(MOMENTUM * momentum + _unit(_slope(y, p, right, left)))
        moved = region.project(y + size * region.scale * way)
        noise = jax.random.normal(k, right.shape, right.dtype)
        start = right + 0.3 * noise / jnp.linalg.norm(noise)  # warm, with a part in every direction
        start = start / jnp.linalg.norm(start)
        new, new_right, new_left, _ = _value(moved, p, objective, k, start, SEARCH_TOL, shift)
        keep = new > value - SLACK * jnp.abs(value)
        here = jax.tree.map(lambda a, b: jnp.where(keep, a, b), (moved, new, new_right, new_left), here)
        size = jnp.where(keep, jnp.minimum(1.5 * size, 2), 0.4 * size)
        record = new > best
        top = (jnp.where(record, moved, best_y), jnp.where(record, new, best))
        return (here, top, size, jnp.where(keep, way, jnp.zeros_like(way))), None

    start = ((y, value, right, left), (y, value), jnp.full((), FIRST_STEP, y.dtype), jnp.zeros_like(y))
    (_, top, *_), _ = jax.lax.scan(trial, start, jax.random.split(key, iterations))
    return top


def _unit(v):
    length = jnp.linalg.norm(v.reshape(-1))
    return v / jnp.where(length > 0, length, 1)


def _climb(p: Step, region: Region, key, objective: str, iterations: int) -> Found:
    """One search from the best of TRIES random points.

    For "kappa" the first half climbs ||J||: where J has small eigenvalues, ||I - J|| stays near 1 whatever the large ones
    do, and on that plateau its gradient leads nowhere, while kappa >= (1 - rho)·(||J|| - 1) grows with ||J||.
    """
    begin, other, last = jax.random.split(key, 3)
    starts = jax.vmap(region.sample)(jax.random.split(begin, TRIES))
    values = jax.vmap(lambda v: _value(v, p, objective, other, None, START_TOL)[0])(starts)
    y = starts[jnp.argmax(values)]
    if objective == "kappa":
        shifts = jnp.asarray([0, 1], y.dtype)

        def half(y, part):
            return _ascend(y, p, region, part[1], objective, iterations // 2, part[0])[0], None

        y, _ = jax.lax.scan(half, y, (shifts, jax.random.split(last)))
    else:
        y, _ = _ascend(y, p, region, last, objective, iterations)
    tol = FINAL_TOL if y.dtype == jnp.float64 else 1e-5
    found, right, left, residual = _value(y, p, objective, other, None, tol)
    sign = 1 if objective == "kappa" else -1
    return Found(y, sign * found, right, left, residual, sign * jnp.max(values), 0)


@functools.partial(jax.jit, static_argnames=("objective", "iterations", "restarts"))
def _search(step: Step, regions, key, objective: str, iterations: int, restarts: int) -> Found:
    n = step.condition.shape[0]

    def lane(condition, region, k):
        return _climb(step._replace(condition=condition), region, k, objective, iterations)

    keys = jax.random.split(key, (n, restarts))
    found = jax.vmap(lambda c, r, ks: jax.vmap(lambda k: lane(c, r, k))(ks))(step.condition, regions, keys)
    sign = 1 if objective == "kappa" else -1
    best = jnp.argmax(sign * found.value, axis=1)
    return jax.tree.map(lambda a: a[jnp.arange(n), best] if jnp.ndim(a) > 1 else a, found)


def search(
    step: Step, regions: Region, key, *, objective: str = "kappa", iterations: int = 30, restarts: int = 4
) -> Found:
    """Climbs from random starts in each of n regions to where kappa is largest ("kappa") or m smallest ("modulus").

    Args:
      step: ``condition`` has shape (n,); ``target`` plays no part. regions: n of one kind (leaves with a leading axis).
      iterations: trial steps of each climb. restarts: climbs for each region; the best is returned.

    Returns:
      n points with their values; ``evaluations`` counts the points looked at in all n searches.

    Raises:
      FpjaxError: for an unknown objective, or counts below 1.
    """
    if objective not in OBJECTIVES:
        raise FpjaxError(f"unknown objective {objective!r}; choose one of {', '.join(OBJECTIVES)}")
    if iterations < 1 or restarts < 1:
        raise FpjaxError("iterations and restarts must be at least 1")
    found = _search(step, regions, key, objective, iterations, restarts)
    return found._replace(evaluations=int(step.condition.shape[0]) * restarts * (TRIES + iterations + 3))


@functools.partial(jax.jit, static_argnames=("objective",))
def sample(step: Step, regions: Region, keys, *, objective: str = "kappa"):
    """The value at one random point of each region for each of m keys: (n, m). What a search has to beat."""

    def one(condition, region, key):
        p = step._replace(condition=condition)
        sign = 1 if objective == "kappa" else -1
        return sign * _value(region.sample(key), p, objective, key, None, SEARCH_TOL)[0]

    return jax.vmap(lambda c, r: jax.lax.map(lambda k: one(c, r, k), keys, batch_size=64))(step.condition, regions)


@jax.jit
def _ratio(a, b, p: Step):
    """|G(a) - G(b)|/|a - b| and how far rounding can move it."""
    ga, gb = G(a, p).reshape(-1), G(b, p).reshape(-1)
    distance = jnp.linalg.norm((a - b).reshape(-1))
    eps = jnp.finfo(a.dtype).eps
    rounding = 32 * eps * (jnp.linalg.norm(ga) + jnp.linalg.norm(gb) + jnp.linalg.norm(a.reshape(-1))) / distance
    return jnp.linalg.norm(ga - gb) / distance, rounding


def confirm(step: Step, regions: Region, found: Found) -> list[Pair]:
    """A pair of points for each search, along its top singular vector, whose ratio is evaluated in float64.

    The pair is centred at the found point, in several lengths; the one with the largest ratio after rounding is kept.
    Runs in float64 whatever the precision of the search (the denoiser's parameters are exact in it).
    """
    pairs = []
    with jax.enable_x64(True):
        wide = _widen(step)
        for i in range(len(np.asarray(found.value))):
            p = wide._replace(condition=jnp.asarray(np.asarray(step.condition)[i]))
            region = jax.tree.map(lambda leaf, i=i: jnp.asarray(np.asarray(leaf)[i], jnp.float64), regions)
            y = np.asarray(found.y[i], np.float64)
            direction = np.asarray(found.right[i], np.float64).reshape(y.shape)
            tried = []
            for h in PAIR_SIZES:
                half = 0.5 * h * float(region.scale) * direction
                a, b = jnp.asarray(y - half), jnp.asarray(y + half)
                ratio, rounding = map(float, _ratio(a, b, p))
                away = float(jnp.maximum(outside(region, a), outside(region, b)))
                tried.append(Pair(np.asarray(a), np.asarray(b), ratio, float(found.value[i]), rounding, away))
            pairs.append(max(tried, key=lambda pair: pair.ratio - pair.rounding))
    return pairs


def _widen(step: Step) -> Step:
    """The step with every floating leaf in float64."""

    def cast(leaf):
        array = np.asarray(leaf)
        return jnp.asarray(array, jnp.float64 if np.issubdtype(array.dtype, np.floating) else array.dtype)

    return jax.tree.map(cast, step)
