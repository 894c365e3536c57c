"""Distillation: a network that is monotone by construction, trained to give what another one gives.

The objective is E |D(y, sigma) - T_w(y, sigma)|²/sigma² per value, where T_w = T_0 + w·(T_c - T_0) is the teacher with
classifier-free guidance (T11), at two kinds of points, one half each:

- noised training images, their noise levels as in training on data: where an inversion begins;
- points of the teacher's own DDIM trajectories at guidance w, from noise: where an image is generated.

A student that takes the weight (:mod:`fpjax.models.distilled`) sees ln w uniform over its range, GROUPS weights in a batch; any
other sees w = 1. The student is monotone and T_w in general is not, so the objective has no zero.

In this room: the batches and the loss. Not in this room: the loop, which is that of training on data (training).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import process
from fpjax.denoiser import Denoiser, evaluate

GROUPS = 16  # weights of guidance in a batch
TRAJECTORIES, STEPS, AT_ONCE = 2000, 20, 250
NEAR = 0.03  # how far in its rank the weight of a trajectory is from that of its group, at most
SEED = 7  # of the trajectories
DROPOUT = 0.1  # share of samples trained without their condition


class Paths(NamedTuple):
    """Trajectories of a teacher, in the order of their weights: y (n, steps, *shape), sigma (steps,), condition (n,)."""

    y: jax.Array
    sigma: jax.Array
    condition: jax.Array


def weights_of(r) -> tuple[float, ...]:
    """The weights of guidance of a recipe's student; 1 alone where it takes none."""
    return tuple(dict(r.options).get("weights", (1.0,))) if r.kind == "guided-tree" else (1.0,)


def paths(teacher: Denoiser, weights: tuple[float, ...], count: int = TRAJECTORIES, steps: int = STEPS) -> Paths:
    """DDIM trajectories from noise, ln w uniform from the first to the last of ``weights``, the conditions in turns."""
    levels = np.asarray(process.ddim(steps).sigmas[::-1], np.float32)
    w = np.geomspace(weights[0], weights[-1], count).astype(np.float32)
    condition = np.arange(count, dtype=np.int32) % max(len(teacher.conditions), 1)
    noise = jax.random.normal(jax.random.key(SEED), (count, *teacher.shape), jnp.float32)
    parts = [slice(i, i + AT_ONCE) for i in range(0, count, AT_ONCE)]
    y = [_paths(teacher, levels, noise[at], condition[at], w[at]) for at in parts]
    return Paths(jnp.concatenate(y), jnp.asarray(levels[:-1]), jnp.asarray(condition))


@jax.jit
def _paths(teacher, levels, noise, condition, weight):
    def one(n, c, w):
        def step(y, sigmas):
            rho = sigmas[1] / sigmas[0]
            return rho * y + (1 - rho) * evaluate(teacher, y, sigmas[0], c, w), y

        return jax.lax.scan(step, levels[0] * n, (levels[:-1], levels[1:]))[1]

    return jax.vmap(one)(noise, condition, weight)


def draw(r, arrays, key):
    """A batch in groups of one weight each: y, sigma, condition, target (groups, n, ...), weight (groups,).

    Args:
      arrays: images, labels, noise levels (of the objective), the teacher and its :class:`Paths`.
    """
    images, labels, levels, teacher, found = arrays
    low, high = (np.float32(np.log(w)) for w in (weights_of(r)[0], weights_of(r)[-1]))
    n, k = r.batch // GROUPS // 2, jax.random.split(key, 7)
    part = (jnp.arange(GROUPS) + jax.random.uniform(k[0], (GROUPS,))) / GROUPS
    weight = jnp.exp(low + part * (high - low))
    rows = jax.random.randint(k[1], (GROUPS, n), 0, images.shape[0])
    u = (jnp.arange(n)[None, :] + jax.random.uniform(k[2], (GROUPS, n))) / n  # stratified, as in training
    sigma = levels[(u * levels.shape[0]).astype(jnp.int32)]
    noise = jax.random.normal(k[3], (GROUPS, n, *images.shape[1:]))
    noised = images[rows] + jnp.expand_dims(sigma, tuple(range(2, noise.ndim))) * noise
    rank = part[:, None] + jax.random.uniform(k[4], (GROUPS, n), minval=-NEAR, maxval=NEAR)
    at = jnp.clip((rank * found.y.shape[0]).astype(jnp.int32), 0, found.y.shape[0] - 1)
    step = jax.random.randint(k[5], (GROUPS, n), 0, found.sigma.shape[0])
    joined = [(noised, found.y[at, step]), (sigma, found.sigma[step]), (labels[rows], found.condition[at])]
    y, sigma, condition = (jnp.concatenate(pair, axis=1) for pair in joined)
    if high == low:  # a student that takes no weight learns D_0 too
        condition = jnp.where(jax.random.uniform(k[6], condition.shape) < DROPOUT, teacher.null, condition)
    over = jax.vmap(jax.vmap(evaluate, (None, 0, 0, 0, None)), (None, 0, 0, 0, 0))
    return y, sigma, condition, over(teacher, y, sigma, condition, weight), weight


def loss(model, y, sigma, condition, target, weight):
    """The objective on a batch of :func:`draw`."""

    def group(y, sigma, condition, target, weight):
        network = model.at(weight) if hasattr(model, "at") else model
        one = lambda y, s, c, t: jnp.mean(((network(y, s, c) - t) / s) ** 2)  # noqa: E731
        return jax.vmap(one)(y, sigma, condition, target)

    return jnp.mean(jax.vmap(group)(y, sigma, condition, target, weight))
