"""The posterior mean of a latent tree: a prior whose pixels meet, two regions at a time, in hidden states.

The image is merged along its longer side, two neighbours into one region, until one region is left. A region has one of K
hidden states; given that state the states of its two parts are drawn independently, and a pixel's state draws its value
from a mixture of Gaussians that all pixels share (a hidden Markov tree, Crouse, Nowak & Baraniuk 1998; a smooth and
decomposable probabilistic circuit). With s = sigma, from the leaves to the root,

    a_j(y_i)  = log N(y_i; mean_j, variance_j + s²)          (pixel i, Gaussian j),
    x_ik      = log sum_j leaf_ikj exp(a_j(y_i))             (pixel i, state k of the region it is merged into),
    x_uk      = log sum_j level_ukj exp(x_vj + x_wj)         (region u of parts v and w, likewise),
    log p(y)  = log sum_k exp(root_ck + x_vk + x_wk)         (the last two parts v and w),

and the gradient r_ij of log p in a_j(y_i) is the posterior probability of Gaussian j at pixel i, so

    D_i = sum_j r_ij (variance_j y_i + s² mean_j)/(variance_j + s²).

**D is the gradient of a convex function, whatever is stored (T6).** D = grad (s² log p(y) + |y|²/2). Each a_j + y_i²/(2s²) is
a convex quadratic as soon as variance_j >= 0. Every step up takes log sum_j w_j exp(·) of such functions with w_j >= 0, or
adds them, which keeps convexity, and each pixel enters a region once, so the quadratics of its pixels can be carried along.
That the weights sum to 1 is needed for a prior, not for this. As J = Cov(x0 | y)/s² (E3), it is symmetric too.

**Windows.** Instead of cutting the image into fixed regions, a tree of every window of n×n pixels that meets the image may be
built, from tables that all windows share; a window beyond the border lacks those pixels (a = 0). A last table goes from a
window's states to those of the root, and what the windows say is added up, each pixel counted once:

    x_k       = 1/n² · sum_v log sum_j table_vkj exp(x_vj)      (windows v, state k of the root).

With 1/n² of its square in each of its n² windows the proof is as before: D is the gradient of a convex function. It is no
posterior mean, as windows that overlap know the same pixels. If the last table is the same for all windows, nothing
depends on where a pixel is: D moves with the image (translation-equivariant) and takes images of any size. Or the
(h + n - 1)×(w + n - 1) windows are cut into p×q blocks of equal size, each with a last table of its own: the root's state is
then a kind of image, and a window knows what that kind shows where it lies.
"""

import math

import jax
import jax.numpy as jnp

TENSORS = ("means", "variances", "leaf", "root")  # and the levels


def merges(height: int, width: int) -> list[int]:
    """The axis of each merge, longer side first (columns if they tie), until one region is left."""
    axes = []
    while height * width > 1:
        axes.append(0 if height > width else 1)
        height, width = (-(-height // 2), width) if axes[-1] == 0 else (height, -(-width // 2))
    return axes


def sizes(height: int, width: int) -> list[tuple[int, int]]:
    """The regions (rows, columns) before each merge."""
    found = []
    for axis in merges(height, width):
        found.append((height, width))
        height, width = (-(-height // 2), width) if axis == 0 else (height, -(-width // 2))
    return found


def window(tables) -> int:
    """The side n of the windows of a tree with these tables, the leaf's and the levels'; 0 for a tree of fixed regions.

    A tree of windows has a table for each merge of n×n pixels and one more, (p, q, K', K), not of two places, as the last
    merge of regions has.
    """
    several = len(tables) > 2 and len(tables) % 2 == 1 and math.prod(tables[-1].shape[:2]) != 2
    return 2 ** (len(tables) // 2) if several else 0


def anywhere(tables) -> bool:
    """Whether a tree with these tables is one of windows that do not know where they are."""
    return window(tables) > 0 and tuple(tables[-1].shape[:2]) == (1, 1)


def _halves(axis: int, first: slice, second: slice) -> list:
    """Two slices along rows (axis 0) or columns (1)."""
    return [part if axis == 0 else (slice(None), part) for part in (first, second)]


def _weighed(weights, p):
    """sum_j weights_kj p_j for p (h, w, J) and weights (h, w, K, J), or (1, 1, K, J) everywhere."""
    alike = weights.shape[:2] == (1, 1)
    return jnp.einsum("kj,hwj->hwk", weights[0, 0], p) if alike else jnp.einsum("hwkj,hwj->hwk", weights, p)


def _scaled(p):
    """The same with largest entries 1. The posterior does not feel the scale, so no derivative passes it."""
    return p / jax.lax.stop_gradient(jnp.max(p, axis=-1, keepdims=True))


def _merged(p, tables):
    """The last region's x (1, 1, K) from the pixels' p (h, w, J)."""
    for weights, axis in zip(tables, merges(*p.shape[:2]), strict=True):
        halves = _halves(axis, slice(None, None, 2), slice(1, None, 2))
        left, right = (_weighed(weights[part], p[part]) for part in halves)
        odd = left.shape[axis] - right.shape[axis]  # the last region of an odd number stays alone
        p = _scaled(left * jnp.pad(right, [(0, odd * int(i == axis)) for i in range(3)], constant_values=1))
    return jnp.log(p)


def _slid(p, tables, n: int):
    """What all windows of n×n pixels say of the root's states, (K,), from the pixels' p (h, w, J).

    At every merge p holds the windows that meet the image; ``beyond`` (J,), the same for all that do not.
    """
    beyond, gaps = jnp.ones_like(p[0, 0]), [1, 1]
    for weights, axis in zip(tables[:-1], merges(n, n), strict=True):
        both = weights.reshape(-1, weights.shape[-1])
        (left, right), (left_beyond, right_beyond) = (jnp.split(v @ both.T, 2, axis=-1) for v in (p, beyond))
        far = [gaps[i] if i == axis else p.shape[i] for i in (0, 1)]
        far_left, far_right = (jnp.broadcast_to(v, (*far, v.size)) for v in (left_beyond, right_beyond))
        p = _scaled(jnp.concatenate([far_left, left], axis) * jnp.concatenate([right, far_right], axis))
        beyond = _scaled(left_beyond * right_beyond)
        gaps[axis] *= 2
    rows, columns = tables[-1].shape[:2]  # of blocks of windows
    blocks = p.reshape(rows, p.shape[0] // rows, columns, p.shape[1] // columns, p.shape[2])
    said = jnp.log(jnp.einsum("pqkj,phqwj->phqwk", tables[-1], blocks))
    return jnp.sum(said, axis=(0, 1, 2, 3)) / n**2


def _log_density(a, params, condition):
    """log p, but for a term without a derivative, from the log-likelihoods a (h, w, J) of the Gaussians at each pixel.

    Upwards go the probabilities exp(x) of a region's states, scaled, as logarithms at every merge take long.
    """
    tables = (params["leaf"], *params["levels"])
    n, p = window(tables), jnp.exp(a - jax.lax.stop_gradient(jnp.max(a, axis=-1, keepdims=True)))
    x = _slid(p, tables, n) if n else _merged(p, tables)
    return jax.nn.logsumexp(params["root"][condition] + x.reshape(-1))


def denoise(params, y, sigma, condition):
    """D(y, sigma) for y (h, w).

    Args:
      params: dict of means (J,), variances (J,) >= 0, leaf (a, b, K, J) > 0, levels, a list of (a, b, K, K) > 0, one for each
        merge but the first, and root (C + 1, K), logarithms, the last row being the one without a condition. (a, b) is
        the number of regions, as in :func:`sizes`, or (2, 1) or (1, 2) where all merges of two rows or two columns are alike.
        A tree of windows has one level more, (p, q, K', K) > 0, and root (C + 1, K') (:func:`window`).
      y: one point. sigma: scalar > 0. condition: int32 scalar, 0 to C.
    """
    means, variances = (params[name][None, None, :] for name in ("means", "variances"))
    total, away = variances + sigma**2, y[..., None] - means
    # What all Gaussians have in common has no say, and in float32 would take the digits of what tells them apart.
    reference, common = jnp.mean(means), jnp.mean(variances)
    off, own, more = y[..., None] - reference, means - reference, (variances - common) / (common + sigma**2)
    a = -(jnp.log1p(more) + (own**2 - 2 * own * off - off**2 * more) / total) / 2
    posterior = jax.grad(_log_density)(a, params, condition)
    return jnp.sum(posterior * (means + variances / total * away), axis=-1)
