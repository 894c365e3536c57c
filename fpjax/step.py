"""E1 and E2: one denoising step F, and the fixed-point map G whose fixed points invert it.

Both take ``(y, params)`` with params a :class:`Step`, so that data is never closed over.
"""

from typing import NamedTuple

import jax

from fpjax.denoiser import Denoiser, evaluate


class Step(NamedTuple):
    """What one inversion step depends on, for one image.

    Attributes:
      den: the denoiser.
      sigma: sigma_t, the noisier level, where the denoiser is evaluated.
      rho: sigma_s / sigma_t in [0, 1).
      target: y_s, the state whose preimage is sought.
      condition: int32 index.
      guidance: scalar w, or None for D_c alone.
    """

    den: Denoiser
    sigma: jax.Array
    rho: jax.Array
    target: jax.Array
    condition: jax.Array
    guidance: jax.Array | None = None


def denoised(y, p: Step) -> jax.Array:
    """D_w(y, sigma_t)."""
    return evaluate(p.den, y, p.sigma, p.condition, p.guidance)


def F(y, p: Step) -> jax.Array:
    """E1: the step from sigma_t down to sigma_s, rho·y + (1 - rho)·D(y, sigma_t)."""
    return p.rho * y + (1 - p.rho) * denoised(y, p)


def G(y, p: Step) -> jax.Array:
    """E2: y_s + (1 - rho)·(y - D(y, sigma_t)); G(y) - y = y_s - F(y)."""
    return p.target + (1 - p.rho) * (y - denoised(y, p))
