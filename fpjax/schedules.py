"""Arithmetic of diffusers' schedules: betas, times and noise levels from a scheduler's settings, float64, noisiest first.

In this room: one function for each family of schedulers that makes its sigmas as diffusers 0.42 does, order of operations
included. Settings come complete (see schedulers). With ``tables="float32"`` among them the tables of training times are
float32 and rounded where diffusers rounds its own, which it computes so whatever the network's precision is: 1 - abar loses
all but three or four digits where abar is near 1, and so does abar where it nearly vanishes. Not in this room: processes,
refusals.
"""

import math

import numpy as np

from fpjax import process
from fpjax.evidence import FpjaxError

SHAPES = ("karras", "exponential", "beta", "lu")


def shaped(c: dict) -> str | None:
    """Which rule replaces the sigmas of the training times, or None.

    Raises:
      FpjaxError: if more than one is asked for.
    """
    asked = [s for s in SHAPES if c.get("use_lu_lambdas" if s == "lu" else f"use_{s}_sigmas")]
    if len(asked) > 1:
        raise FpjaxError(f"only one of {', '.join(f'use_{s}' for s in asked)} can be used")
    return asked[0] if asked else None


def single(c: dict) -> bool:
    """Whether the tables are float32, as diffusers' own are."""
    return c.get("tables") == "float32"


def _linspace(start: float, end: float, count: int) -> np.ndarray:
    """torch.linspace in float32, to the bit: each half from its own end, by a fused multiply and add."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(max(count - 1, 1)))
    i = np.arange(count)
    rising, falling = np.float64(first) + step * i, np.float64(last) - step * (count - 1 - i)
    return np.where(i < count // 2, rising, falling).astype(np.float32)


def _products(factors: np.ndarray) -> np.ndarray:
    """torch.cumprod on a CPU: products in float64, each rounded to the factors' precision."""
    return np.cumprod(factors, dtype=np.float64).astype(factors.dtype)


def betas(c: dict) -> np.ndarray:
    """The variances beta_t, shape (num_train_timesteps,), before any rescaling; float32 or float64, as the tables are.

    Raises:
      FpjaxError: for an unknown schedule, or betas outside (0, 1).
    """
    train, schedule = c["num_train_timesteps"], c["beta_schedule"]
    if c["trained_betas"] is not None:
        found = np.asarray(c["trained_betas"], np.float64).ravel()
        if len(found) != train:
            raise FpjaxError(f"trained_betas has {len(found)} values for num_train_timesteps {train}")
    elif schedule == "squaredcos_cap_v2":
        found = process.betas("cosine", train)
    elif schedule in ("exp", "laplace"):
        found = _from_alpha_bar(_exp if schedule == "exp" else _laplace, train)
    elif schedule == "sigmoid":
        start, end = c["beta_start"], c["beta_end"]
        found = (end - start) / (1 + np.exp(-np.linspace(-6, 6, train))) + start
    elif schedule in ("linear", "scaled_linear"):
        found = process.betas(schedule, train, c["beta_start"], c["beta_end"])
        if single(c):
            power = 1 if schedule == "linear" else 2
            found = _linspace(c["beta_start"] ** (1 / power), c["beta_end"] ** (1 / power), train) ** power
    else:
        raise FpjaxError(f"unknown beta_schedule {schedule!r}")
    found = found.astype(np.float32) if single(c) else found
    if not (np.isfinite(found).all() and (found > 0).all() and (found < 1).all()):
        raise FpjaxError("every beta must lie between 0 and 1")
    return found


def _from_alpha_bar(alpha_bar, train: int) -> np.ndarray:
    values = [alpha_bar(i / train) for i in range(train + 1)]
    return np.minimum(1 - np.asarray(values[1:]) / np.asarray(values[:-1]), 0.999)


def _exp(t: float) -> float:
    return math.exp(-12 * t)


def _laplace(t: float) -> float:
    half = 0.5 - t
    snr = math.exp(-0.5 * math.copysign(1, half) * math.log(1 - 2 * abs(half) + 1e-6))
    return math.sqrt(snr / (1 + snr))


def table(c: dict) -> np.ndarray:
    """sigma of every training time, shape (num_train_timesteps,), increasing; float32 or float64.

    With ``rescale_betas_zero_snr`` (Lin et al. 2024, algorithm 1) the last is infinite for DDIM and 4096 (abar = 2^-24)
    for the schedulers that step in sigma, as in diffusers.
    """
    abar = _products(1 - betas(c))
    if c.get("rescale_betas_zero_snr"):
        root = np.sqrt(abar)
        abar = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
        if single(c):  # diffusers goes back to betas, and each way rounds
            abar = _products(1 - (1 - np.concatenate([abar[:1], abar[1:] / abar[:-1]])))
        if not c["_class_name"].startswith("DD"):
            abar[-1] = 2.0**-24
    with np.errstate(divide="ignore"):
        return process.vp_sigma(abar)


def timesteps(c: dict, steps: int) -> np.ndarray:
    """Whole training times of DDIM, increasing (Lin et al. 2024, Table 2).

    Raises:
      FpjaxError: for an unknown spacing, more steps than training times, or an offset past the last one.
    """
    train, spacing = c["num_train_timesteps"], c["timestep_spacing"]
    if steps > train:
        raise FpjaxError(f"steps must be at most num_train_timesteps ({train}), got {steps}")
    return process.sampler_timesteps(steps, train, spacing, c["steps_offset"])


def interpolated(c: dict, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(sigmas, times) of Euler and Heun, both (steps,): times may be fractional, sigma is linear between whole ones."""
    train, spacing = c["num_train_timesteps"], c["timestep_spacing"]
    fractional = spacing == "linspace"
    times = np.linspace(0, train - 1, steps)[::-1] if fractional else timesteps(c, steps)[::-1].astype(np.float64)
    whole = table(c)
    sigmas = np.interp(times, np.arange(train), whole)
    shape = shaped(c)
    if shape is None:
        return sigmas, times
    sigmas = _reshape(shape, sigmas[-1], sigmas[0], steps, c)
    return sigmas, sigma_to_time(sigmas, whole)


def sigma_to_time(sigmas, whole) -> np.ndarray:
    """Fractional training times of noise levels, linear in log sigma between whole times."""
    return np.interp(np.log(np.maximum(sigmas, 1e-10)), np.log(whole), np.arange(len(whole), dtype=np.float64))


def _reshape(shape: str, low: float, high: float, steps: int, c: dict) -> np.ndarray:
    """``steps`` sigmas from high to low; sigma_min and sigma_max of the settings come before low and high."""
    low = c["sigma_min"] if c.get("sigma_min") is not None else float(low)
    high = c["sigma_max"] if c.get("sigma_max") is not None else float(high)
    if shape == "karras":  # Karras et al. 2022, Eq. 5
        a, b = high ** (1 / 7), low ** (1 / 7)
        return (a + np.linspace(0, 1, steps) * (b - a)) ** 7
    if shape == "exponential":
        return np.exp(np.linspace(math.log(high), math.log(low), steps))
    from scipy.stats import beta  # slow to import

    return low + beta.ppf(1 - np.linspace(0, 1, steps), 0.6, 0.6) * (high - low)


def edm(c: dict, steps: int) -> np.ndarray:
    """Sigmas of EDMEulerScheduler, (steps,).

    Raises:
      FpjaxError: for an unknown sigma_schedule.
    """
    low, high, power = c["sigma_min"], c["sigma_max"], c["rho"]
    if c["sigma_schedule"] == "exponential":
        return np.exp(np.linspace(math.log(low), math.log(high), steps))[::-1]
    if c["sigma_schedule"] != "karras":
        raise FpjaxError(f"unknown sigma_schedule {c['sigma_schedule']!r}; choose karras or exponential")
    a, b = high ** (1 / power), low ** (1 / power)
    return (a + np.linspace(0, 1, steps) * (b - a)) ** power


def flow(c: dict, steps: int, mu=None, image_seq_len=None, sigmas=None) -> np.ndarray:
    """Flow times t of FlowMatchEulerDiscreteScheduler, noisiest first.

    Its defaults run between the shifted ends of its training times and are then shifted once more, as in diffusers.

    Raises:
      FpjaxError: if ``use_dynamic_shifting`` has no ``mu``, or ``mu`` is given without it.
    """
    train, shift, dynamic = c["num_train_timesteps"], c["shift"], c["use_dynamic_shifting"]
    if dynamic and mu is None and image_seq_len is None:
        raise FpjaxError("use_dynamic_shifting needs mu, or image_seq_len to compute it from; pass one of them")
    if not dynamic and (mu is not None or image_seq_len is not None):
        raise FpjaxError("mu and image_seq_len need use_dynamic_shifting=True")
    if sigmas is None:
        low = 1 / train
        low = low if dynamic else shift * low / (1 + (shift - 1) * low)
        t = np.linspace(1.0, low, steps)
    else:
        t = np.asarray(sigmas, np.float64).ravel()
        if len(t) != steps:
            raise FpjaxError(f"sigmas has {len(t)} values for {steps} steps")
    if dynamic:
        if mu is None:
            slope = (c["max_shift"] - c["base_shift"]) / (c["max_image_seq_len"] - c["base_image_seq_len"])
            mu = c["base_shift"] + slope * (image_seq_len - c["base_image_seq_len"])
        factor = math.exp(mu) if c["time_shift_type"] == "exponential" else mu
        t = factor / (factor + (1 / t - 1))
    else:
        t = shift * t / (1 + (shift - 1) * t)
    if c["shift_terminal"]:
        t = 1 - (1 - t) / ((1 - t[-1]) / (1 - c["shift_terminal"]))
    shape = shaped(c)
    return t if shape is None else _reshape(shape, t[-1], t[0], steps, c)


def multistep(c: dict, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(sigmas, times) of DPM-Solver++ and UniPC, both (steps,), without the final level.

    Raises:
      FpjaxError: for an unknown spacing.
    """
    train, whole = c["num_train_timesteps"], table(c)
    if c["use_flow_sigmas"]:
        t = 1 - np.linspace(1, 1 / train, steps + 1)
        t = (c["flow_shift"] * t / (1 + (c["flow_shift"] - 1) * t))[::-1][:-1]
        return t / (1 - t), np.floor(train * t)
    shape = shaped(c)
    if shape == "lu":
        ends = np.log(whole)
        sigmas = np.exp(np.linspace(float(ends[-1]), float(ends[0]), steps))
    elif shape is not None:
        sigmas = _reshape(shape, whole[0], whole[-1], steps, {})
    else:
        times = _multistep_times(c, steps, whole)
        return whole[times], times.astype(np.float64)
    times = sigma_to_time(sigmas, whole)
    rounded = shape in ("karras", "lu") and c["beta_schedule"] != "squaredcos_cap_v2"
    return sigmas, np.round(times) if rounded else np.floor(times)


def _multistep_times(c: dict, steps: int, whole) -> np.ndarray:
    train, spacing = c["num_train_timesteps"], c["timestep_spacing"]
    last = train
    if c.get("lambda_min_clipped", -math.inf) > -math.inf:
        last = train - int(np.searchsorted(-np.log(whole[::-1]), c["lambda_min_clipped"]))
    if spacing == "linspace":
        times = np.round(np.linspace(0, last - 1, steps + 1))[::-1][:-1]
    elif spacing == "leading":
        times = (np.arange(steps + 1) * (last // (steps + 1)))[::-1][:-1] + c["steps_offset"]
    elif spacing == "trailing":
        times = np.round(np.arange(last, 0, -train / steps)) - 1
    else:
        raise FpjaxError(f"unknown timestep_spacing {spacing!r}; choose linspace, leading or trailing")
    times = times.astype(np.int64)
    if times[0] >= train or times[-1] < 0 or (np.diff(times) >= 0).any():
        raise FpjaxError(
            f"{steps} steps with timestep_spacing {spacing!r} repeat a time or leave the {train} of training"
        )
    return times
