"""Denoisers that take the weight of guidance as an input and are monotone at each: a prior for every weight.

``knots`` are latent trees (:mod:`fpjax.models.tree`), one for each of some weights of guidance. The tree of a weight w between
w_i and w_(i+1), t = ln(w/w_i)/ln(w_(i+1)/w_i), has the tensors

    a^(1-t)·b^t of variances and of the weights of the leaves and levels, (1-t)·a + t·b of means and the root's logarithms.

**D is the gradient of a convex function at every weight, whatever is stored (T6):** variances stay >= 0 and weights > 0, which is
all that a tree needs. A tree with positive weights whose sums are not 1 is a prior times a number, so D is at each weight the
exact denoiser of a prior of that weight. Classifier-free guidance D_w = D_0 + w·(D_c - D_0) is in general that of none (T11).

In this room: the tree of a weight. Not in this room: how the knots are trained to follow D_w (distilling).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.models import tree

POSITIVE = ("variances", "leaf", "levels")


def denoise(params, y, sigma, condition):
    """D(y, sigma) at the first weight, which is 1: no guidance.

    Args:
      params: dict of "weights" (n,), increasing from 1, and "knots", a list of n parameters of
        :func:`fpjax.models.tree.denoise`, all of the same shapes.
      y: one point. sigma: scalar > 0. condition: int32 scalar.
    """
    return tree.denoise(params["knots"][0], y, sigma, condition)


def at(params, weight):
    """The parameters of :func:`fpjax.models.tree.denoise` at a weight (a scalar); the last knot's above, the first's below."""
    logs = jnp.log(params["weights"])
    u = jnp.log(jnp.asarray(weight, logs.dtype))
    i = jnp.clip(jnp.searchsorted(logs, u, side="right") - 1, 0, max(logs.size - 2, 0))
    j = jnp.minimum(i + 1, logs.size - 1)
    t = jnp.clip((u - logs[i]) / jnp.where(i == j, 1, logs[j] - logs[i]), 0, 1)
    lower, upper = (jax.tree.map(lambda *v, k=k: jnp.stack(v)[k], *params["knots"]) for k in (i, j))
    return {name: jax.tree.map(functools.partial(_between, name, t), lower[name], upper[name]) for name in lower}


def _between(name: str, t, a, b):
    """Geometric where it has to stay positive; a itself at t = 0 and b at 1."""
    return a ** (1 - t) * b**t if name in POSITIVE else (1 - t) * a + t * b


def guided(den: Denoiser, weight: float) -> Denoiser:
    """The network at one weight of guidance, an ordinary latent tree: monotone, one evaluation a call, to be used at guidance 1.

    Without a condition it is the mean over its classes' priors, not the D_0 of the network that it was distilled from.

    Args:
      den: a network that takes the weight (of :mod:`fpjax.models`, as ``digits-guided``).
      weight: from 1 to the largest that it was trained for.

    Returns:
      A denoiser with the same conditions. :func:`fpjax.models.store.export` writes it as a model of its own, which the
      certificate kernel reads.

    Raises:
      FpjaxError: for another kind of denoiser, or a weight out of range.
    """
    if den.fn is not denoise:
        raise FpjaxError(f"{den.name} does not take the weight of guidance as an input; use guidance=")
    least, most = (float(den.params["weights"][i]) for i in (0, -1))
    if not least <= weight <= most:
        raise FpjaxError(f"{den.name} was distilled for weights from {least:g} to {most:g}, not {weight:g}")
    params = _at(den.params, weight)
    return dataclasses.replace(den, params=params, fn=tree.denoise, name=f"{den.name} at {weight:g}")


_at = jax.jit(at)
