"""A mixture of Gaussians over the patches of an image: D is the mean of what every patch says of a pixel, at any image size.

The image is continued by its mirror images, patches of n×n pixels begin at -n/2, -n/2 + s, …, h - n/2 (likewise across), and

    D(y) = (s/n)² sum_i w_i P_i^T D_0(P_i y),   D_0 the posterior mean of a patch (:mod:`fpjax.models.mixture`).

A patch and its mirror image see the same, so one of them is enough; those at -n/2 and h - n/2 are their own mirror images and
count half (w_i). So the weights of each pixel's patches sum to 1.

**D is the gradient of a convex function (T6)** because D_0 is, and P_i^T grad Phi(P_i y) is the gradient of Phi(P_i y). As
patches that overlap know the same pixels, it is no posterior mean of an image. Nothing depends on where a patch is, except
the mirror.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.models import mixture

BATCH = 256  # patches whose components are held at once


def side(values: int, channels: int) -> int:
    """The side n of a patch with so many values, or 0 if there is none: n is 1 or even."""
    n = math.isqrt(values // channels)
    return n if n * n * channels == values and (n == 1 or n % 2 == 0) else 0


def strides(n: int, height: int, width: int) -> tuple[int, int]:
    """The steps from patch to patch, down and across: a quarter of a side where that divides the image, or less."""
    step = max(1, n // 4)
    return math.gcd(step, height), math.gcd(step, width)


def cut(y, n: int):
    """All patches (a, b, channels·n·n) of an image (channels, h, w) that is continued by its mirror images."""
    half, steps, channels = n // 2, strides(n, *y.shape[1:]), y.shape[0]
    y = jnp.pad(y, ((0, 0), (half, half), (half, half)), mode="symmetric")
    for axis, step in zip((1, 2), steps, strict=True):
        last = y.shape[axis] - n
        y = jnp.stack([jax.lax.slice_in_dim(y, i, i + last + 1, step, axis) for i in range(n)], axis=-1)
    return jnp.moveaxis(y, 0, 2).reshape(*y.shape[1:3], channels * n * n)


def weights(n: int, height: int, width: int) -> np.ndarray:
    """w_i (s/n)² of every patch, (a, b)."""
    sides = []
    for length, step in zip((height, width), strides(n, height, width), strict=True):
        one = np.full(length // step + (n > 1), step / n)
        if n > 1:
            one[[0, -1]] /= 2
        sides.append(one)
    return np.outer(*sides)


def mean(one, image, n: int):
    """(s/n)² sum_i w_i P_i^T one(P_i y) for a function ``one`` of a flat patch (channels·n·n,) and an image (channels, h, w)."""
    share = jnp.asarray(weights(n, *image.shape[1:]), image.dtype)
    patches, back = jax.vjp(lambda v: cut(v, n), image)
    flat = jax.lax.map(one, patches.reshape(-1, patches.shape[-1]), batch_size=BATCH)
    return back(share[..., None] * flat.reshape(patches.shape))[0]


def denoise(params, y, sigma, condition):
    """D(y, sigma).

    Args:
      params: dict of patch_means (K, channels·n·n) and factors, variances, floor and logits as in
        :func:`fpjax.models.mixture.denoise`; n even or 1, at most twice a side of the image.
      y: one image (h, w) or (channels, h, w). sigma: scalar > 0. condition: int32 scalar.
    """
    image, inner = y.reshape(-1, *y.shape[-2:]), {"means": params["patch_means"], **params}
    n = side(params["patch_means"].shape[1], image.shape[0])
    return mean(lambda patch: mixture.denoise(inner, patch, sigma, condition), image, n).reshape(y.shape)
