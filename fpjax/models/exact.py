"""Denoisers known in closed form: Gaussian, Gaussian mixture, empirical data.

Each carries its Jacobian and declared facts; the tests hold every fact against dense linear algebra.
All three are parameters of :mod:`fpjax.models.mixture`.
"""

from dataclasses import dataclass

import numpy as np

from fpjax.denoiser import Denoiser, Facts
from fpjax.evidence import FpjaxError
from fpjax.models import mixture as _mixture

_E3 = "E3: J_D is a posterior covariance over sigma²"


@dataclass(frozen=True)
class CommonStdBound:
    """Lambda(sigma) of a mixture whose components share one standard deviation.

    Cov(x0 | y) is s²·sigma²/(s² + sigma²) I within the components plus, between them, the covariance of points that lie
    within a set of diameter diam·sigma²/(s² + sigma²), whose variance in any direction is at most a quarter of that
    squared (Popoviciu). Tight for two equal points.
    """

    std: float
    diameter: float

    def __call__(self, sigma):
        """Lambda at a noise level."""
        total = self.std**2 + sigma**2
        return self.std**2 / total + sigma**2 * self.diameter**2 / (4 * total**2)


@dataclass(frozen=True)
class LinearBound:
    """Lambda(sigma) = c/(c + sigma²) of a Gaussian whose covariance has largest eigenvalue c."""

    largest: float

    def __call__(self, sigma):
        """Lambda at a noise level."""
        return self.largest / (self.largest + sigma**2)


def gaussian(mean, covariance, *, name: str = "gaussian") -> Denoiser:
    """The denoiser of N(mean, covariance): D = mean + C (C + sigma² I)^-1 (y - mean).

    Args:
      mean: the shape of one point, d values.
      covariance: (d, d), symmetric positive semidefinite.

    Raises:
      FpjaxError: if the covariance is not symmetric positive semidefinite or the shapes do not fit.
    """
    mean = _finite(mean, "mean")
    covariance = _finite(covariance, "covariance")
    d = mean.size
    if covariance.shape != (d, d):
        raise FpjaxError(f"covariance must have shape {(d, d)} for a mean of {d} values, got {covariance.shape}")
    if not np.allclose(covariance, covariance.T, rtol=1e-12, atol=0):
        raise FpjaxError("covariance must be symmetric")
    values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-12 * max(values[-1], 0.0):
        raise FpjaxError(f"covariance must be positive semidefinite; its smallest eigenvalue is {values[0]:.3g}")
    floor = max(values[0], 0.0)
    params = {
        "means": mean.reshape(1, d),
        "factors": vectors[None],
        "variances": np.maximum(values - floor, 0.0)[None],
        "floor": np.asarray([floor]),
        "logits": np.zeros((1, 1)),
    }
    # D is affine: T1's form needs c·I + bounded, which only a multiple of the identity has; T2 covers the others.
    isotropic = bool(np.ptp(values) <= 1e-12 * abs(values[-1]))
    facts = Facts(True, True, isotropic, LinearBound(float(max(values[-1], 0.0))), _E3 + "; eigenvalues c/(c+sigma²)")
    return _make(params, mean.shape, facts, name)


def mixture(means, stds, weights=None, *, name: str = "mixture") -> Denoiser:
    """The denoiser of sum_k weights_k N(means_k, stds_k² I).

    Args:
      means: (K, *shape).
      stds: (K,) or a scalar, at least 0.
      weights: (K,), positive; normalised here; uniform if left out.

    Raises:
      FpjaxError: for negative stds, weights that are not positive, or shapes that do not fit.
    """
    means = _finite(means, "means")
    if means.ndim < 1 or means.shape[0] < 1:
        raise FpjaxError("means must have shape (K, ...) with K at least 1")
    k, shape = means.shape[0], means.shape[1:]
    stds = _finite(stds, "stds")
    weights = np.full(k, 1 / k) if weights is None else _finite(weights, "weights")
    if stds.shape not in ((), (k,)) or weights.shape != (k,):
        raise FpjaxError(f"stds and weights must have one entry for each of the {k} components")
    if (stds < 0).any() or (weights <= 0).any():
        raise FpjaxError("stds must be at least 0 and weights positive")
    params = {
        "means": means.reshape(k, -1),
        "factors": np.zeros((k, means[0].size, 0)),
        "variances": np.zeros((k, 0)),
        "floor": np.broadcast_to(stds**2, (k,)).copy(),
        "logits": np.log(weights / weights.sum())[None],
    }
    # With one common std, D(y) = c·y + bounded (T1); with several, far away the widest components win instead.
    common = bool(np.ptp(params["floor"]) == 0)
    bound = CommonStdBound(float(stds.max()), _diameter(params["means"])) if common else None
    return _make(params, shape, Facts(True, True, common, bound, _E3), name)


def empirical(data, *, name: str = "empirical") -> Denoiser:
    """The denoiser of the uniform distribution on the rows of ``data`` (n, *shape): a softmax average of them."""
    return mixture(data, 0.0, name=name)


def _diameter(points) -> float:
    """The largest distance between two of the points (n, d), a row at a time to keep memory at n·d."""
    return max(float(np.sqrt(((points - p) ** 2).sum(axis=1)).max()) for p in points)


def _finite(array, what: str) -> np.ndarray:
    array = np.asarray(array, np.float64)
    if not np.isfinite(array).all():
        raise FpjaxError(f"{what} must be finite, but has NaN or infinite values")
    return array


def _make(params, shape, facts: Facts, name: str) -> Denoiser:
    return Denoiser(params, _mixture.denoise, tuple(shape), "x0", (), facts, _mixture.jacobian, name)
