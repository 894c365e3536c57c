"""The posterior mean of a Gaussian mixture: one function behind every exact and every learned-prior denoiser.

The prior is sum_k p_k N(mean_k, U_k diag(variances_k) U_k^T + floor_k·I) for orthonormal U_k. With s = sigma and

    a_k = 1/(floor_k + s²),   B_k = diag( variances_kj / ((floor_k + s²)(floor_k + s² + variances_kj)) ),
    r_k = y - mean_k,         g_k = -a_k r_k + U_k B_k U_k^T r_k   (the score of component k),
    l_k = logits_ck - 1/2 log det - 1/2 (a_k |r_k|² - r_k^T U_k B_k U_k^T r_k),   pi = softmax(l),

D(y, s) = y + s² sum_k pi_k g_k (Tweedie).

**D is the gradient of a convex function, whatever is stored (T6).** D = grad Phi with
Phi(y) = s²·logsumexp_k( l_k(y) + |y|²/(2 s²) ), and each l_k + |y|²/(2 s²) is a quadratic with Hessian
(1/s² - a_k) I + U_k B_k U_k^T, which is positive semidefinite as soon as floor >= 0 and variances >= 0; log-sum-exp
of convex functions is convex. Orthonormality of U_k is needed for D to be a posterior mean, not for this.
"""

import jax
import jax.numpy as jnp


def _components(params, y, sigma, condition):
    """Scores g_k (K, d), posterior weights pi (K,), residuals' projections and gains, for flat y (d,)."""
    means, factors, variances, floor = (params[k] for k in ("means", "factors", "variances", "floor"))
    logits = params["logits"][condition]
    d, rank = factors.shape[1], factors.shape[2]
    noise = floor + sigma**2
    a = 1 / noise
    b = variances / (noise[:, None] * (noise[:, None] + variances))
    r = y[None, :] - means
    p = jnp.einsum("kdr,kd->kr", factors, r)
    g = -a[:, None] * r + jnp.einsum("kdr,kr->kd", factors, b * p)
    logdet = jnp.sum(jnp.log(noise[:, None] + variances), axis=1) + (d - rank) * jnp.log(noise)
    quad = a * jnp.sum(r * r, axis=1) - jnp.sum(b * p * p, axis=1)
    pi = jax.nn.softmax(logits - (logdet + quad) / 2)
    return g, pi, a, b


def denoise(params, y, sigma, condition):
    """D(y, sigma) for y of any shape with d values.

    Args:
      params: dict of means (K, d), factors (K, d, r), variances (K, r) >= 0, floor (K,) >= 0 and logits (C + 1, K),
        the last row being the one without a condition.
      y: one point. sigma: scalar > 0. condition: int32 scalar, 0 to C.
    """
    flat = y.reshape(-1)
    g, pi, _, _ = _components(params, flat, sigma, condition)
    return (flat + sigma**2 * (pi @ g)).reshape(y.shape)


def jacobian(params, y, sigma, condition):
    """The closed-form Jacobian of :func:`denoise`, shape (d, d): Cov(x0 | y)/sigma² (E3).

    J = sum_k pi_k A_k + s² Cov_pi(g),  A_k = (1 - s² a_k) I + s² U_k B_k U_k^T.
    """
    flat = y.reshape(-1)
    g, pi, a, b = _components(params, flat, sigma, condition)
    s2 = sigma**2
    factors = params["factors"]
    within = (1 - s2 * (pi @ a)) * jnp.eye(flat.size, dtype=flat.dtype)
    within += s2 * jnp.einsum("kdr,kr,ker->de", factors, pi[:, None] * b, factors)
    centred = g - (pi @ g)[None, :]
    return within + s2 * (centred.T * pi[None, :]) @ centred
