"""The posterior mean of a Gaussian mixture: one function behind every exact and every learned-prior denoiser.

The prior is sum_k p_k N(mean_k, U_k diag(variances_k) U_k^T + floor_k·I) for orthonormal U_k. With s = sigma, r_k = y - mean_k,

    A_k = floor_k/(floor_k + s²) I + U_k diag( s² variances_kj / ((floor_k + s²)(floor_k + s² + variances_kj)) ) U_k^T,
    mu_k = mean_k + A_k r_k   (the posterior mean of component k),
    l_k = logits_ck - 1/2 log det - 1/2 r_k^T (I - A_k) r_k / s²,   pi = softmax(l),

D(y, s) = sum_k pi_k mu_k, and as grad l_k = (mu_k - y)/s² its Jacobian is Cov(x0 | y)/s² (E3),

    J = sum_k pi_k A_k + 1/s² sum_k pi_k (mu_k - D)(mu_k - D)^T.

**D is the gradient of a convex function, whatever is stored (T6).** D = grad Phi with
Phi(y) = s²·logsumexp_k( l_k(y) + |y|²/(2 s²) ), and each l_k + |y|²/(2 s²) is a quadratic with Hessian A_k/s², which is
positive semidefinite as soon as floor >= 0 and variances >= 0; log-sum-exp of convex functions is convex.
Orthonormality of U_k is needed for D to be a posterior mean, not for this.
"""

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

TENSORS = ("means", "factors", "variances", "floor", "logits")


def _components(params, y, sigma, condition):
    """p_k = U_k^T r_k (K, r), l_k (K,) but for a common term, and the two parts of A_k, (K,) and (K, r), for flat y (d,).

    In float32 |y|²/s² of a y far from the images, as inversions meet, would leave no digits of the differences between l_k.
    Projections of y and of the means are taken apart, so that those of many y are one product of matrices.
    """
    means, factors, variances, floor = (params[k] for k in ("means", "factors", "variances", "floor"))
    noise = floor + sigma**2
    shrink = floor / noise
    gain = sigma**2 * variances / (noise[:, None] * (noise[:, None] + variances))
    reference, common = _middle(params)
    away, own, more = y - reference, means - reference[None, :], (floor - common) / (common + sigma**2)
    p = jnp.einsum("kdr,d->kr", factors, away) - jnp.einsum("kdr,kd->kr", factors, own)
    logdet = jnp.sum(jnp.log1p(variances / noise[:, None]), axis=1) + y.size * jnp.log1p(more)
    quad = (jnp.sum(own**2, axis=1) - 2 * own @ away - jnp.sum(away**2) * more) / noise
    quad -= jnp.sum(gain * p * p, axis=1) / sigma**2
    return p, params["logits"][condition] - (logdet + quad) / 2, shrink, gain


def _middle(params):
    """The Gaussian that components are compared with: the mean of their means (d,), and of their floors."""
    return jnp.mean(params["means"], axis=0), jnp.mean(params["floor"])


def _common(params, y, sigma):
    """What every l_k of :func:`_components` lacks: the same for all of them, and larger than what tells them apart."""
    reference, common = _middle(params)
    noise = common + sigma**2
    return -(y.size * jnp.log(noise) + jnp.sum((y - reference) ** 2) / noise) / 2


def _posterior(params, y, sigma, condition):
    """mu_k (K, d) and pi (K,), and the two parts of A_k, (K,) and (K, r), for flat y (d,)."""
    p, scores, shrink, gain = _components(params, y, sigma, condition)
    off = y[None, :] - params["means"]
    mu = params["means"] + shrink[:, None] * off + jnp.einsum("kdr,kr->kd", params["factors"], gain * p)
    return mu, jax.nn.softmax(scores), shrink, gain


def log_evidence(params, y, sigma, condition):
    """ln p(y | condition) for y = x0 + sigma·n, a scalar: how likely the prior's images of a condition, with noise, are to be y.

    Args:
      as of :func:`denoise`.
    """
    scores = _components(params, y.reshape(-1), sigma, condition)[1]
    total = jax.nn.logsumexp(scores) - jax.nn.logsumexp(params["logits"][condition])
    return total + _common(params, y.reshape(-1), sigma) - y.size / 2 * jnp.log(jnp.asarray(2 * jnp.pi, y.dtype))


def denoise(params, y, sigma, condition):
    """D(y, sigma) for y of any shape with d values.

    Args:
      params: dict of means (K, d), factors (K, d, r), variances (K, r) >= 0, floor (K,) >= 0 and logits (C + 1, K),
        the last row being the one without a condition.
      y: one point. sigma: scalar > 0. condition: int32 scalar, 0 to C.
    """
    return _denoise(params, y.reshape(-1), sigma, condition).reshape(y.shape)


def _mean(params, y, sigma, condition):
    """sum_k pi_k mu_k, without any mu_k."""
    p, scores, shrink, gain = _components(params, y, sigma, condition)
    pi = jax.nn.softmax(scores)
    within = jnp.einsum("kdr,kr->d", params["factors"], pi[:, None] * gain * p)
    return (pi * (1 - shrink)) @ params["means"] + (pi @ shrink) * y + within


_denoise = jax.custom_jvp(_mean)


def _denoise_jvp(primals, tangents):
    """J v as a covariance (E3), positive semidefinite up to rounding of its own size.

    The chain rule would take differences of numbers |y|²/sigma² large; here every mu_k is centred first.
    """
    params, y, sigma, condition = primals
    d_params, d_y, d_sigma, _ = tangents
    out, moved = _mean(*primals), jnp.zeros_like(y)
    if not isinstance(d_y, SymbolicZero):
        moved += covariance_product(params, y, sigma, condition, d_y)
    if not all(isinstance(t, SymbolicZero) for t in jax.tree.leaves((d_params, d_sigma), is_leaf=_is_zero)):
        others = jax.tree.map(_instantiated, (params, sigma), (d_params, d_sigma))
        moved += jax.jvp(lambda p, s: _mean(p, y, s, condition), (params, sigma), others)[1]
    return out, moved


_denoise.defjvp(_denoise_jvp, symbolic_zeros=True)


def covariance_product(params, y, sigma, condition, v):
    """J v = sum_k pi_k A_k v + 1/s² sum_k pi_k (mu_k - D) ((mu_k - D)·v) for flat y and v of shape (d,) (E3)."""
    mu, pi, shrink, gain = _posterior(params, y, sigma, condition)
    factors = params["factors"]
    within = jnp.einsum("kdr,kr->d", factors, pi[:, None] * gain * jnp.einsum("kdr,d->kr", factors, v))
    centred = mu - (pi @ mu)[None, :]
    return (pi @ shrink) * v + within + (pi * (centred @ v)) @ centred / sigma**2


def _is_zero(tangent) -> bool:
    return isinstance(tangent, SymbolicZero)


def _instantiated(primal, tangent):
    return jnp.zeros_like(primal) if _is_zero(tangent) else tangent


def jacobian(params, y, sigma, condition):
    """The closed-form Jacobian of :func:`denoise`, shape (d, d): Cov(x0 | y)/sigma² (E3)."""
    flat = y.reshape(-1)
    mu, pi, shrink, gain = _posterior(params, flat, sigma, condition)
    factors = params["factors"]
    within = (pi @ shrink) * jnp.eye(flat.size, dtype=flat.dtype)
    within += jnp.einsum("kdr,kr,ker->de", factors, pi[:, None] * gain, factors)
    centred = mu - (pi @ mu)[None, :]
    return within + (centred.T * pi[None, :]) @ centred / sigma**2
