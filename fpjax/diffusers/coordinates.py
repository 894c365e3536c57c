"""STUB until fpjax/schedulers.py is there: what a network is given at (y, sigma), and what it predicts."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from fpjax import process
from fpjax.evidence import FpjaxError


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """How a scheduler's network sees a scaled state y: its input, its time, and how its output is read."""

    kind: str
    predicts: str
    table: tuple[float, ...] = ()

    def enter(self, y, sigma):
        if self.kind == "flow":
            return y / (1 + sigma), 1000 * sigma / (1 + sigma)
        logs = jnp.asarray(np.log(self.table), y.dtype)
        t = jnp.interp(jnp.log(sigma), logs, jnp.arange(len(self.table), dtype=y.dtype))
        return y / jnp.sqrt(1 + sigma**2), t


def read(config: dict) -> Coordinates:
    kind = config["_class_name"]
    if kind.startswith("FlowMatch"):
        return Coordinates("flow", "velocity")
    predicts = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}[config.get("prediction_type", "epsilon")]
    b = process.alphas_bar(config["beta_schedule"], config["num_train_timesteps"], config["beta_start"], config["beta_end"])
    return Coordinates("vp", predicts, tuple(process.vp_sigma(b).tolist()))


def from_config(config: dict, steps: int):
    if config["_class_name"].startswith("FlowMatch"):
        return process.rectified_flow(steps)
    if config["_class_name"] not in ("DDIMScheduler", "DDPMScheduler", "PNDMScheduler"):
        raise FpjaxError(f"unknown scheduler {config['_class_name']}")
    return process.ddim(
        steps,
        schedule=config["beta_schedule"],
        beta_start=config["beta_start"],
        beta_end=config["beta_end"],
        spacing=config.get("timestep_spacing", "leading"),
        offset=config.get("steps_offset", 0),
        final_sigma_zero=config.get("set_alpha_to_one", True),
    )
