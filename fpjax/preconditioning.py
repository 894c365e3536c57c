"""What stands between a denoiser D(y, sigma) and a network that is told a time and sees a scaled input.

In this room: the four functions of sigma that Karras et al. 2022 call preconditioning, for every family of schedulers.
Not in this room: which configuration asks for which (schedulers), networks.
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from fpjax.process import PURE_NOISE


@dataclass(frozen=True)
class Preconditioning:
    """What stands between D and a network: D(y, sigma) = c_skip·y + c_out·network(c_in·y, c_noise), each of sigma.

    The names are those of Karras et al. 2022. Every method takes sigma > 0 as an array of any shape and returns one like
    it, is smooth or a table, and may be traced. At ``fpjax.process.PURE_NOISE`` each is its limit for sigma -> infinity.
    Hashable, so that a denoiser's function may hold it.

    Attributes:
      space: "ddim" (the network sees z = sqrt(abar)·y), "edm" (it sees y/sqrt(sigma² + sigma_data²)), or
        "rectified-flow" ((1 - t)·y).
      predicts: "eps", "x0", "v", "velocity", or "edm" (EDM's F, "edm-v" with the other sign).
      sigma_data: of "edm"; 1 for EulerDiscrete, whose input scaling is then that of "ddim".
      time: "table", "log" (0.25·log sigma) or "flow" (num_train_timesteps·t).
      knots: (sigmas, times, whether to interpolate in log sigma) of a table; times are what the network is told.
      rounding: "snap" to the nearest whole time where that is within 1/100, "nearest", "floor" or "none".
      train_steps: num_train_timesteps.
    """

    space: str
    predicts: str
    sigma_data: float = 1.0
    time: str = "table"
    knots: tuple[tuple[float, ...], tuple[float, ...], bool] = ((), (), True)
    rounding: str = "none"
    train_steps: int = 1000

    def c_in(self, sigma):
        """The factor from y to the network's input."""
        if self.space == "rectified-flow":
            return jnp.where(_pure(sigma), 1 / sigma, 1 / (1 + sigma))
        return 1 / jnp.sqrt(sigma**2 + self.sigma_data**2)

    def c_noise(self, sigma):
        """The time that the network is told: a timestep, whole or fractional, 1000·t of a flow, or log(sigma)/4."""
        if self.time == "log":
            return jnp.log(sigma) / 4
        if self.time == "flow":
            return self.train_steps * jnp.where(_pure(sigma), jnp.ones_like(sigma), sigma / (1 + sigma))
        sigmas, times, logarithmic = self.knots
        dtype = jnp.result_type(sigma)
        x, at = (np.log(sigmas), jnp.log(sigma)) if logarithmic else (np.asarray(sigmas), sigma)
        t = jnp.interp(at, jnp.asarray(x, dtype), jnp.asarray(times, dtype))
        near = jnp.round(t)
        if self.rounding == "snap":
            return jnp.where(jnp.abs(t - near) < 0.01, near, t)
        return {"nearest": near, "floor": jnp.floor(t + 1e-3), "none": t}[self.rounding]

    def c_skip(self, sigma):
        """The part of y in D."""
        if self.predicts in ("edm", "edm-v"):
            return self.sigma_data**2 / (sigma**2 + self.sigma_data**2)
        if self.predicts == "velocity":
            return self.c_in(sigma)
        constant = {"x0": jnp.zeros_like(sigma), "eps": jnp.ones_like(sigma)}
        if self.predicts in constant:
            return constant[self.predicts]
        return jnp.where(_pure(sigma), jnp.zeros_like(sigma), 1 / (1 + sigma**2))

    def c_out(self, sigma):
        """The factor of the network's output in D."""
        if self.predicts in ("edm", "edm-v"):
            sign = 1 if self.predicts == "edm" else -1
            return sign * sigma * self.sigma_data / jnp.sqrt(sigma**2 + self.sigma_data**2)
        if self.predicts == "velocity":
            return -jnp.where(_pure(sigma), jnp.ones_like(sigma), sigma / (1 + sigma))
        constant = {"x0": jnp.ones_like(sigma), "eps": -sigma}
        return constant[self.predicts] if self.predicts in constant else -sigma / jnp.sqrt(1 + sigma**2)


def _pure(sigma):
    return sigma >= PURE_NOISE / 2
