"""What a Ritz value, or a sample of them, may claim about the true extreme.

In this room: T15's probability for one point (Kuczynski & Wozniakowski 1992), turned into upper values with evidence
PROBABLE, and the extreme-value estimate of a supremum over a region, evidence SAMPLED. Not in this room: rigorous bounds
(certify). T15 speaks of exact arithmetic and of a start that is uniform on the sphere, independent of the matrix.
"""

import math
from typing import NamedTuple

import numpy as np

from fpjax.evidence import Bound, Evidence, FpjaxError


def failure_probability(d: int, steps: int, e: float, tests: int = 1) -> float:
    """T15: how likely k steps of Lanczos on a positive semidefinite d×d matrix fall short of (1 - e)·lambda_max, at most.

    Args:
      d: dimension. steps: k, products with the matrix. e: relative shortfall in (0, 1).
      tests: how many times the iteration could have been stopped because of what it had found; the theorem holds for a k
        fixed beforehand, so each possible stop adds its own probability (union bound).

    Returns:
      min(1, tests·1.648·sqrt(d)·exp(-sqrt(e)·(2k - 1))).

    Raises:
      FpjaxError: unless d, steps and tests are at least 1 and 0 < e < 1.
    """
    _check(d, steps, tests)
    if not 0 < e < 1:
        raise FpjaxError(f"the relative shortfall must lie between 0 and 1, got {e}")
    return min(1.0, tests * 1.648 * math.sqrt(d) * math.exp(-math.sqrt(e) * (2 * steps - 1)))


def shortfall(d: int, steps: int, probability: float, tests: int = 1) -> float:
    """T15 solved for e: with probability at least 1 - ``probability``, Lanczos reached (1 - e)·lambda_max.

    Returns:
      e, or 1.0 where so few steps promise nothing.

    Raises:
      FpjaxError: unless 0 < probability < 1 and the counts are at least 1.
    """
    _check(d, steps, tests)
    if not 0 < probability < 1:
        raise FpjaxError(f"the probability of failure must lie between 0 and 1, got {probability}")
    root = math.log(tests * 1.648 * math.sqrt(d) / probability) / (2 * steps - 1)
    return min(1.0, max(root, 0.0) ** 2)


def steps_needed(d: int, e: float, probability: float) -> int:
    """The fewest Lanczos steps for which T15 promises (1 - e)·lambda_max with that probability of failure.

    Raises:
      FpjaxError: unless 0 < e < 1 and 0 < probability < 1.
    """
    if not (0 < e < 1 and 0 < probability < 1):
        raise FpjaxError("the relative shortfall and the probability of failure must lie between 0 and 1")
    return max(1, math.ceil((math.log(1.648 * math.sqrt(d) / probability) / math.sqrt(e) + 1) / 2))


def norm_bound(value: float, d: int, steps: int, probability: float = 1e-6, tests: int = 1) -> Bound:
    """An upper value for ||A|| at one point: Lanczos on A^T A fell short of ||A||² by at most e, except with
    ``probability``; so ||A|| <= value/sqrt(1 - e).

    Args:
      value: largest Ritz singular value after ``steps`` Golub-Kahan-Lanczos steps (half of :attr:`Norm.products`,
        without the two that measure the residual).

    Raises:
      FpjaxError: see :func:`shortfall`.
    """
    e = shortfall(d, steps, probability, tests)
    upper = value / math.sqrt(1 - e) if e < 1 else math.inf
    if value == 0 and e < 1:
        upper = 0.0
    return Bound(upper, Evidence.PROBABLE, "2", f"T15 (k = {steps}, failure at most {probability:g})")


def eigenvalue_bounds(
    low: float, high: float, d: int, steps: int, probability: float = 1e-6, tests: int = 1
) -> tuple[Bound, Bound]:
    """A lower value for lambda_min and an upper one for lambda_max of a symmetric matrix at one point, from Ritz extremes.

    A - lambda_min·I and lambda_max·I - A are positive semidefinite and have the same Krylov spaces. With w the width of
    the spectrum, T15 gives lambda_max - high <= e·w and low - lambda_min <= e·w, each except with half of
    ``probability``; adding them, w <= (high - low)/(1 - 2e), and so both ends are off by at most e·(high - low)/(1 - 2e).

    Raises:
      FpjaxError: see :func:`shortfall`.
    """
    e = shortfall(d, steps, probability / 2, tests)
    slack = e * (high - low) / (1 - 2 * e) if e < 0.5 else math.inf
    source = f"T15 on both ends (k = {steps}, failure at most {probability:g})"
    return Bound(low - slack, Evidence.PROBABLE, "2", source), Bound(high + slack, Evidence.PROBABLE, "2", source)


def _check(d: int, steps: int, tests: int) -> None:
    if min(d, steps, tests) < 1:
        raise FpjaxError("dimension, steps and tests must be at least 1")


class ExtremeValue(NamedTuple):
    """A reverse Weibull fit to block maxima (as CLEVER: Weng et al. 2018). Evidence SAMPLED, never a bound.

    Attributes:
      value: the fitted right end point, an estimate of the supremum; NaN where the fit is refused.
      shape, scale: of the fitted law P(X <= x) = exp(-((value - x)/scale)^shape).
      p_value: of Kolmogorov-Smirnov by parametric bootstrap (the parameters are fitted, so its table does not apply).
      fits: p_value is at least 0.05 and the end point is identified; where False, ``value`` is NaN and ``reason`` says why.
      largest: the largest sample: a lower estimate in any case.
      reason: in words.
    """

    value: float
    shape: float
    scale: float
    p_value: float
    fits: bool
    largest: float
    reason: str

    @property
    def bound(self) -> Bound:
        """The estimate with its evidence."""
        return Bound(self.value, Evidence.SAMPLED, "2", "reverse Weibull fit to block maxima")


REACHES = np.geomspace(1e-3, 50.0, 60)  # end points tried: this many sample ranges beyond the largest maximum


def extreme_value(maxima, *, seed: int = 0, resamples: int = 199) -> ExtremeValue:
    """Estimates the supremum behind block maxima, and tests whether the law fits at all.

    Args:
      maxima: (n,), the largest of each of n equal blocks of independent samples; n at least 20.
      resamples: of the parametric bootstrap.

    Raises:
      FpjaxError: for fewer than 20 maxima, or values that are not finite.
    """
    x = np.sort(np.asarray(maxima, np.float64).ravel())
    if x.size < 20 or not np.isfinite(x).all():
        raise FpjaxError("an extreme-value fit needs at least 20 finite block maxima")
    largest, spread = float(x[-1]), float(x[-1] - x[0])
    if spread <= 1e-12 * max(abs(largest), 1e-300):
        return ExtremeValue(largest, math.inf, 0.0, 1.0, True, largest, "all maxima agree")
    end, shape, scale, reach = (v[0] for v in _fit(x[None]))
    statistic = _distance(x[None], end[None], shape[None], scale[None])[0]
    rng = np.random.default_rng(seed)
    draws = np.sort(end - scale * rng.exponential(size=(resamples, x.size)) ** (1 / shape), axis=1)
    refits = _fit(draws)
    exceeded = int((_distance(draws, *refits[:3]) >= statistic).sum())
    p_value = (1 + exceeded) / (1 + resamples)
    if reach >= REACHES[-2]:
        reason, fits = "the likelihood keeps rising with the end point: no finite supremum is identified", False
    elif p_value < 0.05:
        reason, fits = f"the reverse Weibull law is rejected (p = {p_value:.3f})", False
    else:
        reason, fits = f"not rejected (p = {p_value:.3f})", True
    return ExtremeValue(float(end) if fits else math.nan, float(shape), float(scale), p_value, fits, largest, reason)


def _fit(x):
    """Maximum likelihood of the reverse Weibull law for each row of x (b, n), by profile over the end point.

    The shape is kept at 1 or above: below it the likelihood is unbounded at the largest sample.
    """
    spread = (x[:, -1] - x[:, 0])[:, None, None]
    gap = x[:, -1, None, None] - x[:, None, :] + REACHES[None, :, None] * spread  # (b, ends, n)
    logs = np.log(gap)
    mean = logs.mean(axis=2)
    shape = np.full(mean.shape, 2.0)
    for _ in range(25):  # Newton on 1/k = sum(g^k log g)/sum(g^k) - mean(log g), whose right side rises with k
        weight = np.exp(shape[..., None] * (logs - logs.max(axis=2, keepdims=True)))
        total = weight.sum(axis=2)
        first = (weight * logs).sum(axis=2) / total
        second = (weight * logs**2).sum(axis=2) / total - first**2
        value = first - mean - 1 / shape
        shape = np.maximum(shape - value / (second + 1 / shape**2), shape / 3)
    shape = np.maximum(shape, 1.0)
    scale = np.exp(np.log(np.mean(np.exp(shape[..., None] * (logs - logs.max(axis=2, keepdims=True))), axis=2)) / shape)
    scale = scale * np.exp(logs.max(axis=2))
    likelihood = np.log(shape / scale) + (shape - 1) * (mean - np.log(scale)) - 1
    likelihood = np.where(shape > 1, likelihood, np.log(1 / scale) - 1)
    best = np.argmax(likelihood, axis=1)
    row = np.arange(x.shape[0])
    reach = REACHES[best]
    return x[:, -1] + reach * spread[:, 0, 0], shape[row, best], scale[row, best], reach


def _distance(x, end, shape, scale):
    """Kolmogorov-Smirnov distance of the sorted rows of x from their fitted laws."""
    n = x.shape[1]
    cdf = np.exp(-(((end[:, None] - x) / scale[:, None]) ** shape[:, None]))
    steps = np.arange(n + 1) / n
    return np.maximum(np.abs(cdf - steps[1:]).max(axis=1), np.abs(cdf - steps[:-1]).max(axis=1))
