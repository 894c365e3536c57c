"""Classifier-free guidance step by step, kept where T11 leaves inversion unique.

With J_c >= 0 and J_0 <= Lambda, T11 gives m >= rho - (1 - rho)(w - 1)·Lambda, positive while w < 1 + rho/((1 - rho)·Lambda): low
noise levels and long steps allow little, others a lot. So a wanted weight is cut at each step to what that step stands.

In this room: the limits of the steps of a process, a denoiser whose weight follows them. Not in this room: guidance of a
prior, which has no limit (:func:`fpjax.models.priors.guided`).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fpjax.adapting import largest, network
from fpjax.denoiser import Denoiser, Facts, check_guidance, evaluate
from fpjax.evidence import Evidence, FpjaxError
from fpjax.jacobian import extreme_eigenvalues, symmetric_part
from fpjax.process import Process


class Limits(NamedTuple):
    """What T11 allows at each step of a process, arrays of shape (steps,).

    ``evidence`` says where Lambda is from: ASSUMED if the denoiser declares a bound, SAMPLED if it is the largest eigenvalue at
    noised images, a lower estimate of the supremum, so that the limits are then no guarantee.
    """

    limit: np.ndarray
    lipschitz: np.ndarray
    evidence: Evidence


def limits(den: Denoiser, process: Process, *, images, seed: int = 0) -> Limits:
    """T11's limit 1 + rho/((1 - rho)·Lambda) of every step.

    Args:
      den: with conditions, and monotone (declared). images: (n, *shape) clean images; Lambda is measured where they are
        noised to each level, unless ``den.facts.lipschitz`` bounds it.

    Raises:
      FpjaxError: if ``den`` does not declare that it is monotone or has no conditions, or for images that do not fit it.
    """
    if not den.facts.monotone or not den.conditions:
        raise FpjaxError(f"T11 needs a monotone denoiser with conditions, and {den.name} is not declared to be one")
    levels, rho = np.asarray(process.sigmas[1:]), np.asarray(process.rho)
    if den.facts.lipschitz is None:
        found, evidence = largest(_high, den, images, levels, seed=seed), Evidence.SAMPLED  # without a condition: J_0
    else:
        found, evidence = np.asarray([float(den.facts.lipschitz(s)) for s in levels]), Evidence.ASSUMED
    with np.errstate(divide="ignore"):
        return Limits(1 + rho / ((1 - rho) * np.maximum(found, 0.0)), found, evidence)


def safe(den: Denoiser, process: Process, weight: float, *, images, share: float = 0.9, seed: int = 0):
    """D with guidance ``weight``, at every step of ``process`` cut to within T11's limit; and the limits.

    Each step keeps at least (1 - share)·rho of the modulus as far as Lambda is known (:class:`Limits`).

    Args:
      den, images, seed: see :func:`limits`. weight: wanted, at least 1.
      share: how much of the way from 1 to the limit is used, in (0, 1).

    Returns:
      A denoiser with the same conditions, to be used with guidance 1 on ``process``; :class:`Limits`.

    Raises:
      FpjaxError: as :func:`limits`, or for a weight below 1 or a share outside (0, 1).
    """
    check_guidance(den, weight, True)
    if weight < 1 or not 0 < share < 1:
        raise FpjaxError(f"safe guidance needs a weight of at least 1 and 0 < share < 1, got {weight} and {share}")
    found = limits(den, process, images=images, seed=seed)
    weights = np.minimum(weight, 1 + share * (found.limit - 1))
    params = {"inner": den, "logs": np.log(process.sigmas[1:]).astype(np.float32), "weights": weights}
    facts = Facts(symmetric=den.facts.symmetric)
    return Denoiser(params, _stepwise, den.shape, "x0", den.conditions, facts, None, f"{den.name} guided safely"), found


def _stepwise(params, y, sigma, condition):
    """D_w with the weight of the step whose level is nearest."""
    at = jnp.argmin(jnp.abs(params["logs"] - jnp.log(sigma)))
    return evaluate(params["inner"], y, sigma, condition, params["weights"][at])


def _high(y, params, key):
    """The largest eigenvalue of the symmetric part of the Jacobian."""
    operator = symmetric_part(lambda v: network(v, params), y)
    return extreme_eigenvalues(operator, y.size, key, tol=1e-3, dtype=y.dtype).high
