"""Inversions of other papers in one form, for comparison: each a function of one step E2, from their formulas alone.

In this room: naive DDIM inversion, fixed-point iteration (FPI), AIDI in both forms, ReNoise's averaging, EasyInv, a
GNRI-style coordinate Newton method, SPDInv's gradient descent, and the stopping rule of the paper this project starts
from beside the rule that it replaces (T7). All have one signature, ``method(p, place, key, **options) -> Outcome``, and none
says how wrong it is: that is measured from outside. Not in this room: our own solvers (methods), methods that are not
functions of one step (pivotal, exact_inverses), whole edits by all of them (peers).

In y-coordinates G(y) = y_s + (sigma_t - sigma_s)·eps(y), so an average of noise predictions is an average of images of G.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import secants
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.methods import norm2
from fpjax.process import Process
from fpjax.step import G, Step
from fpjax.trajectory import prepare


class Place(NamedTuple):
    """Where a step stands: ``position`` in (0, 1], its number over the number of steps; ``ratio``, the scale of z_s over
    that of z_t, and ``scale``, the latter (z = scale·y); ``variance``, sigma_t² - sigma_s², that of y_t given y_s in
    the noising process.
    """

    position: jax.Array
    ratio: jax.Array
    scale: jax.Array
    variance: jax.Array


class Outcome(NamedTuple):
    """The point a method ends at, and the network evaluations it made (a vjp counts 3)."""

    y: jax.Array
    evaluations: jax.Array


def _count(n) -> jax.Array:
    return jnp.asarray(n, jnp.int32)


def naive(p: Step, place: Place, key) -> Outcome:
    """DDIM inversion: the noise is predicted at y_s; y = G(y_s). One evaluation; the zeroth iterate of E2."""
    return Outcome(G(p.target, p), _count(1))


def fpi(p: Step, place: Place, key, *, iterations: int = 3) -> Outcome:
    """y <- G(y), ``iterations`` times from y_s (2312.12540v1; T3 says when this converges)."""
    y = jax.lax.fori_loop(0, iterations, lambda _, y: G(y, p), p.target)
    return Outcome(y, _count(iterations))


def aidi_average(p: Step, place: Place, key, *, iterations: int = 10) -> Outcome:
    """The mean of the last two images, y <- (G(y_i) + G(y_{i-1}))/2 (AIDI, 2309.04907); the first step is plain."""
    first = G(p.target, p)

    def body(_, carry):
        before, y = carry
        image = G(y, p)
        return image, (image + before) / 2

    _, y = jax.lax.fori_loop(1, iterations, body, (first, first))
    return Outcome(y, _count(iterations))


def aidi_anderson(p: Step, place: Place, key, *, iterations: int = 10, depth: int = 2) -> Outcome:
    """Anderson acceleration of G without a safeguard (AIDI, 2309.04907): y <- y + r - gamma·(dY + dR), gamma least squares."""
    first = G(p.target, p) - p.target
    start = (secants.empty(depth, p.target), p.target, first, p.target + first)

    def body(i, carry):
        pairs, y, r, query = carry
        image = G(query, p) - query
        dr = (image - r).reshape(-1)
        slot = (i - 1) % depth
        pairs = secants.push(pairs, slot, (query - y).reshape(-1), dr, norm2(dr), jnp.bool_(True))
        gamma = secants.coefficients(pairs, slot, image.reshape(-1))
        move = image.reshape(-1) - gamma @ (pairs.dy + pairs.dr)
        return pairs, query, image, query + move.reshape(query.shape)

    return Outcome(jax.lax.fori_loop(1, iterations, body, start)[3], _count(iterations))


def renoise(p: Step, place: Place, key, *, iterations: int = 4, averaged: int = 3) -> Outcome:
    """``iterations`` plain ones, then the mean of the last ``averaged`` noise predictions (ReNoise, 2403.14602)."""
    keep = min(averaged, iterations)

    def body(i, carry):
        y, total = carry
        y = G(y, p)
        return y, total + jnp.where(i >= iterations - keep, y, jnp.zeros_like(y))

    _, total = jax.lax.fori_loop(0, iterations, body, (p.target, jnp.zeros_like(p.target)))
    return Outcome(total / keep, _count(iterations))


def easyinv(p: Step, place: Place, key, *, eta: float = 0.5, first: float = 0.05, last: float = 0.25) -> Outcome:
    """z_t <- eta·z_t + (1 - eta)·z_s after the naive step, where first < t/T < last (EasyInv, 2408.05159)."""
    y = G(p.target, p)
    inside = (place.position > first) & (place.position < last)
    return Outcome(jnp.where(inside, eta * y + (1 - eta) * place.ratio * p.target, y), _count(1))


def gnri(p: Step, place: Place, key, *, iterations: int = 2, prior: float = 0.1, eta: float = 1e-3) -> Outcome:
    """y_i <- y_i - f/(d·(g_i + eta)), f = ||y - G(y)||_1 + prior·N(y) and g its gradient (GNRI, 2312.12540v5).

    N(y) = ||y - y_s||²/(2·variance·d), the negative log-density of y given y_s in the noising process, a value. The
    method is not at rest at the solution unless ``prior`` is 0. One iteration costs an evaluation and a vjp.
    """

    def objective(y):
        away = jnp.sum((y - p.target) ** 2) / (2 * place.variance * y.size)
        return jnp.sum(jnp.abs(y - G(y, p))) + prior * away

    def body(_, y):
        f, g = jax.value_and_grad(objective)(y)
        return y - f / (y.size * (g + eta))

    return Outcome(jax.lax.fori_loop(0, iterations, body, p.target), _count(3 * iterations))


def spdinv(p: Step, place: Place, key, *, iterations: int = 25, rate: float = 1e-3, stop: float = 5e-6) -> Outcome:
    """y <- y - rate·grad ||G(y) - y||_2 until that norm is below ``stop`` (SPDInv, 2403.11105)."""

    def body(carry):
        y, _, k = carry
        loss, g = jax.value_and_grad(lambda y: norm2(G(y, p) - y))(y)
        return jnp.where(loss > stop, y - rate * g, y), loss, k + 1

    start = (p.target, jnp.full((), jnp.inf, p.target.dtype), _count(0))
    y, _, k = jax.lax.while_loop(lambda c: (c[1] > stop) & (c[2] < iterations), body, start)
    return Outcome(y, 3 * k)


def _settled(loss, before, first, k, tol: float):
    """Whether a loss changed by at most ``tol`` of its first value, from the second iteration on."""
    return (k > 0) & (jnp.abs(loss - before) <= tol * first)


def intra_path(p: Step, place: Place, key, *, iterations: int = 20, tol: float = 0.1) -> Outcome:
    """y <- G(y) from y_s until the intra-path loss ||G(y) - y|| changes by less than ``tol`` of its first value (AIDI, FPI).

    :func:`inter_path`'s rule on the loss of one path; the image G(y) that was computed last is the point.
    """

    def body(carry):
        y, before, first, _, k = carry
        image = G(y, p)
        loss = norm2(image - y)
        first = jnp.where(k == 0, loss, first)
        return image, loss, first, _settled(loss, before, first, k, tol), k + 1

    nan = jnp.full((), jnp.nan, p.target.dtype)
    end = jax.lax.while_loop(
        lambda c: ~c[3] & (c[4] < iterations), body, (p.target, nan, nan, jnp.bool_(False), _count(0))
    )
    return Outcome(end[0], end[4])


def inter_path(p: Step, place: Place, key, *, iterations: int = 20, tol: float = 0.1) -> Outcome:
    """Two paths of plain iteration, from y_s and y_s + n, n ~ N(0, I) in z; stops when the inter-path loss has settled.

    That is when ||G(y) - G(yhat)|| changes by less than ``tol`` of its first value from one iteration to the next, the
    rule of the paper this project starts from. T7: it lags behind the residual and costs twice as much.
    """
    noise = jax.random.normal(key, p.target.shape, p.target.dtype) / place.scale

    def body(carry):
        y, other, before, first, _, k = carry
        y, other = G(y, p), G(other, p)
        loss = norm2(y - other)
        first = jnp.where(k == 0, loss, first)
        return y, other, loss, first, _settled(loss, before, first, k, tol), k + 1

    nan = jnp.full((), jnp.nan, p.target.dtype)
    start = (p.target, p.target + noise, nan, nan, jnp.bool_(False), _count(0))
    end = jax.lax.while_loop(lambda c: ~c[4] & (c[5] < iterations), body, start)
    return Outcome(end[0], 2 * end[5])


BASELINES: dict[str, Callable] = {
    "naive": naive,
    "fpi": fpi,
    "aidi_average": aidi_average,
    "aidi_anderson": aidi_anderson,
    "renoise": renoise,
    "easyinv": easyinv,
    "gnri": gnri,
    "spdinv": spdinv,
    "intra_path": intra_path,
    "inter_path": inter_path,
}


class Run(NamedTuple):
    """What a baseline made of n images over the process's steps.

    Attributes:
      latent: (n, *shape) in the process's own coordinates. path: (n, steps + 1, *shape) in y-coordinates.
      residual: (n, steps), ||y_s - F(y_t)||_2 at the point it went on from, measured from outside.
      evaluations: (n, steps) int32, the network evaluations that the method made; a guided one counts 2.
    """

    latent: jax.Array
    path: jax.Array
    residual: jax.Array
    evaluations: jax.Array


def invert(
    den: Denoiser,
    images,
    process: Process,
    method: str,
    *,
    condition=None,
    guidance: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> Run:
    """Inverts a whole trajectory by one of :data:`BASELINES`; arguments as in :func:`fpjax.trajectory.invert`.

    Raises:
      FpjaxError: for an unknown method or option, and for bad input; see :func:`fpjax.trajectory.prepare`.
    """
    if method not in BASELINES:
        raise FpjaxError(f"unknown baseline {method!r}; choose one of {', '.join(BASELINES)}")
    known = BASELINES[method].__kwdefaults__ or {}
    if unknown := set(options) - set(known):
        raise FpjaxError(f"{method} has no option {sorted(unknown)[0]!r}; it takes {', '.join(known) or 'none'}")
    process.require_e1(method)
    x = prepare(den, images, condition, guidance)
    dtype = x.z.dtype
    scale = np.asarray([process.scale(level) for level in process.levels], np.float64)
    columns = (
        process.sigmas[1:],
        process.rho,
        np.arange(1, process.steps + 1) / process.steps,
        scale[:-1] / scale[1:],
        scale[1:],
        process.sigmas[1:] ** 2 - process.sigmas[:-1] ** 2,
    )
    table = tuple(jnp.asarray(c, dtype) for c in columns)
    start = x._replace(z=x.z / jnp.asarray(scale[0], dtype))
    path, residual, evaluations = _run(tuple(sorted(options.items())), method, start, table, jax.random.key(seed))
    calls = 1 if x.guidance is None else 2
    return Run(path[:, -1] * jnp.asarray(scale[-1], dtype), path, residual, calls * evaluations)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(options, method: str, x, table, key):
    def one_step(y, row):
        sigma, rho, position, ratio, scale, variance, key = row
        keys = jax.random.split(key, y.shape[0])

        def one(y, c, key):
            p = Step(x.den, sigma, rho, y, c, x.guidance)
            out = BASELINES[method](p, Place(position, ratio, scale, variance), key, **dict(options))
            return out.y, norm2(G(out.y, p) - out.y), out.evaluations

        y, residual, evaluations = jax.vmap(one)(y, x.condition, keys)
        return y, (y, residual, evaluations)

    keys = jax.random.split(key, table[0].shape[0])
    _, (path, residual, evaluations) = jax.lax.scan(one_step, x.z, (*table, keys))
    path = jnp.concatenate([x.z[:, None], jnp.swapaxes(path, 0, 1)], axis=1)
    return path, residual.T, evaluations.T
