"""Edits along a pivot: direct inversion and null-text optimisation, for comparison.

Both invert naively without guidance and call that path z*_0 … z*_T the pivot; then each makes a guided generation follow it:
direct inversion adds back the difference of every step (Ju et al. 2310.01506), null-text optimisation moves the embedding of
"no condition" (Mokady et al. 2211.09794). Neither solves E2, so the latent is naive inversion's.

In this room: the corrections of a path, generation with them. Not in this room: how the pivot is made (baselines).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fpjax.denoiser import Denoiser, predict
from fpjax.evidence import FpjaxError
from fpjax.process import Process
from fpjax.step import F, Step

EMBEDDINGS = ("classes", "logits", "root", "conditions")  # parameters with a row for each condition, the last for none


class Corrections(NamedTuple):
    """What a pivot's generation needs besides the latent.

    Attributes:
      offsets: (n, steps, *shape), added in y-coordinates after each step, or None.
      null: the last row of every embedding at each step, a tuple of arrays (n, steps, ...); empty for the model's own.
      evaluations: (n,) int32, network evaluations made to find them (a value and gradient counts 3).
    """

    offsets: jax.Array | None
    null: tuple
    evaluations: jax.Array


def null_embedding(den: Denoiser) -> tuple:
    """The rows that stand for "no condition", one of each table of conditions among the parameters.

    Raises:
      FpjaxError: if there is none.
    """
    leaves = jax.tree_util.tree_flatten_with_path(den.params)[0]
    rows = tuple(leaf[-1] for path, leaf in leaves if _is_table(den, path, leaf))
    if not rows:
        raise FpjaxError(f"{den.name} has no embedding of its conditions that null-text optimisation could move")
    return rows


def with_null(den: Denoiser, rows: tuple) -> Denoiser:
    """The same denoiser with these rows for "no condition"; see :func:`null_embedding`."""
    left = list(rows)

    def one(path, leaf):
        return leaf.at[-1].set(left.pop(0)) if _is_table(den, path, leaf) else leaf

    return dataclasses.replace(den, params=jax.tree_util.tree_map_with_path(one, den.params))


def _is_table(den: Denoiser, path, leaf) -> bool:
    names = {str(getattr(key, "key", getattr(key, "name", ""))) for key in path}
    table = getattr(leaf, "ndim", 0) > 0 and leaf.shape[0] == den.null + 1 and jnp.issubdtype(leaf.dtype, jnp.floating)
    return bool(den.conditions) and table and bool(names & set(EMBEDDINGS))


def differences(x, path, process: Process) -> Corrections:
    """Direct inversion's y*_s - F(y*_t) of every step: one (guided: two) evaluations each.

    Args:
      x: :class:`fpjax.lanes.Inputs` with the condition and guidance of generation. path: (n, steps + 1, *shape), the pivot.
    """
    offsets = _differences(x, path, *_table(process, path.dtype)[:2])
    calls = 1 if x.guidance is None else 2
    return Corrections(offsets, (), jnp.full(path.shape[0], calls * process.steps, jnp.int32))


@jax.jit
def _differences(x, path, sigmas, rhos):
    def one(path, c):
        def step(here, below, sigma, rho):
            return below - F(here, Step(x.den, sigma, rho, below, c, x.guidance))

        return jax.vmap(step)(path[1:], path[:-1], sigmas, rhos)

    return jax.vmap(one)(path, x.condition)


def optimise_null(
    x, path, process: Process, *, iterations: int = 10, rate: float = 1e-2, stop: float = 1e-5
) -> Corrections:
    """Null-text optimisation, from the noisiest step down, each starting from the row of the step before.

    At most ``iterations`` Adam steps of rate·(1 - i/100) on the mean of (z*_s - step(z_t, row))², i the number of the step
    counted from the noise, until that is below stop + i·2e-5; z_t is the guided generation so far. As in the authors' code.

    Raises:
      FpjaxError: for a denoiser without such rows, or without guidance, where they have no part in a step.
    """
    rows = null_embedding(x.den)
    if x.guidance is None:
        raise FpjaxError(
            "null-text optimisation needs guidance other than 1: without it no step sees the null embedding"
        )
    null, evaluations = _optimise(x, path, rows, (rate, stop), *_table(process, path.dtype), iterations=iterations)
    return Corrections(None, null, evaluations)


@functools.partial(jax.jit, static_argnames="iterations")
def _optimise(x, path, rows, goal, sigmas, rhos, scales, *, iterations: int):
    rate, stop = (jnp.asarray(v, path.dtype) for v in goal)

    def one(path, c):
        def step(carry, level):
            y, rows = carry
            sigma, rho, scale, below, i = level
            conditional = predict(x.den, y, sigma, c)

            def moved(rows):
                null = predict(with_null(x.den, rows), y, sigma, jnp.full_like(c, x.den.null))
                return rho * y + (1 - rho) * (null + x.guidance * (conditional - null))

            def loss(rows):
                return jnp.mean((scale * (moved(rows) - below)) ** 2)

            rows, k = adam(loss, rows, rate * (1 - i / 100), stop + i * 2e-5, iterations)
            return (moved(rows), rows), (rows, 2 + 3 * k)

        count = jnp.arange(sigmas.shape[0], dtype=path.dtype)
        levels = (sigmas[::-1], rhos[::-1], scales[::-1], path[-2::-1], count)
        _, (null, evaluations) = jax.lax.scan(step, (path[-1], rows), levels)
        return jax.tree.map(lambda a: a[::-1], null), jnp.sum(evaluations, dtype=jnp.int32)

    return jax.vmap(one)(path, x.condition)


def adam(loss, rows, rate, stop, iterations: int):
    """Rows after at most ``iterations`` Adam steps until ``loss(rows)`` < ``stop``, and how many gradients were taken."""
    optimiser = optax.scale_by_adam()

    def body(carry):
        rows, state, _, k = carry
        value, gradient = jax.value_and_grad(loss)(rows)
        with jax.numpy_dtype_promotion("standard"):  # inside optax
            update, state = optimiser.update(gradient, state)
        return jax.tree.map(lambda r, u: r - rate * u, rows, update), state, value, k + 1

    start = (rows, optimiser.init(rows), jnp.full_like(stop, jnp.inf), jnp.int32(0))
    end = jax.lax.while_loop(lambda c: (c[2] >= stop) & (c[3] < iterations), body, start)
    return end[0], end[3]


def generate(x, latent, process: Process, corrections: Corrections) -> jax.Array:
    """Images (n, *shape) from latents (n, *shape), both in the process's own coordinates, with the corrections of a pivot."""
    sigmas, rhos, _ = _table(process, latent.dtype)
    y = latent / jnp.asarray(process.scale(process.levels[-1]), latent.dtype)
    out = _generate(x, y, corrections.offsets, corrections.null, sigmas, rhos)
    return out * jnp.asarray(process.scale(process.levels[0]), latent.dtype)


@jax.jit
def _generate(x, y, offsets, null, sigmas, rhos):
    def one(y, c, corrections: Any):
        def step(y, level):
            sigma, rho, (offset, rows) = level
            den = with_null(x.den, rows) if rows else x.den
            below = F(y, Step(den, sigma, rho, y, c, x.guidance))
            return below if offset is None else below + offset, None

        down = jax.tree.map(lambda a: a[::-1], (sigmas, rhos, corrections))
        return jax.lax.scan(step, y, down)[0]

    return jax.vmap(one)(y, x.condition, (offsets, null))


def _table(process: Process, dtype):
    """sigma_t, rho, and the scale z/y at the lower end, of each step in inversion order."""
    scales = np.asarray([process.scale(level) for level in process.levels[:-1]], np.float64)
    return tuple(jnp.asarray(c, dtype) for c in (process.sigmas[1:], process.rho, scales))
