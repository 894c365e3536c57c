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
"""

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


def _mix(weights, x):
    """log sum_j weights_kj exp(x_j) for x (h, w, J) and weights (h, w, K, J), or (1, 1, K, J) everywhere, > 0."""
    top = jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    raised, rule = jnp.exp(x - top), "hwkj,hwj->hwk"
    if weights.shape[:2] == (1, 1):
        weights, rule = weights[0, 0], "kj,hwj->hwk"
    return top + jnp.log(jnp.einsum(rule, weights, raised))


def _log_density(a, params, condition):
    """log p from the log-likelihoods a (h, w, J) of the Gaussians at each pixel."""
    x = a
    for weights, axis in zip((params["leaf"], *params["levels"]), merges(*a.shape[:2]), strict=True):
        first, second = (slice(None, None, 2), slice(1, None, 2))
        if axis == 1:
            first, second = (slice(None), first), (slice(None), second)
        left, right = (_mix(weights[part], x[part]) for part in (first, second))
        odd = left.shape[axis] - right.shape[axis]  # the last region of an odd number stays alone
        x = left + jnp.pad(right, [(0, odd * int(i == axis)) for i in range(3)])
    return jax.nn.logsumexp(params["root"][condition] + x.reshape(-1))


def denoise(params, y, sigma, condition):
    """D(y, sigma) for y (h, w).

    Args:
      params: dict of means (J,), variances (J,) >= 0, leaf (a, b, K, J) > 0, levels, a list of (a, b, K, K) > 0, one for each
        merge but the first, and root (C + 1, K), logarithms, the last row being the one without a condition. (a, b) is
        the number of regions, as in :func:`sizes`, or (2, 1) or (1, 2) where all merges of two rows or two columns are alike.
      y: one point. sigma: scalar > 0. condition: int32 scalar, 0 to C.
    """
    means, variances = (params[name][None, None, :] for name in ("means", "variances"))
    total = variances + sigma**2
    away = y[..., None] - means
    a = -(jnp.log(total) + away**2 / total) / 2
    posterior = jax.grad(_log_density)(a, params, condition)
    return jnp.sum(posterior * (means + variances / total * away), axis=-1)
