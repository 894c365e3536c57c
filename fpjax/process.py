"""Noise processes: noise levels, (from, to) pairs, and scaling between z and y.

In this room: every table of sigma and every off-by-one. A process is a list of noise levels in
**inversion order**, smallest first; pair i is the step between ``sigmas[i]`` (sigma_s, cleaner) and
``sigmas[i + 1]`` (sigma_t, noisier), and ``rho[i] = sigmas[i] / sigmas[i + 1]`` (E1).
Not in this room: networks. A level's state is z in the process's own coordinates and y = z / scale in
the coordinates of THEORY section 0.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from fpjax.evidence import FpjaxError

KINDS = ("ddim", "edm", "rectified-flow")
PURE_NOISE = 2.0**20  # a noise level from here on stands for infinity: D is the prediction from noise alone


@dataclass(frozen=True)
class Process:
    """A grid of noise levels.

    Attributes:
      kind: "ddim" (variance preserving), "edm" (variance exploding) or "rectified-flow".
      levels: noise levels sigma, strictly increasing; the first may be 0 (T10).
      timesteps: the process's own time of each level (integer t, sigma, or flow time t); -1 for a final sigma of 0.
      options: the arguments it was made from, for reports.
      sampler: how a step is taken: "euler" (E1), or one of :data:`fpjax.samplers.SAMPLERS`.
      table: the sampler's coefficients, one row a step; empty for E1 as it stands (see :mod:`fpjax.samplers`).
      pure_noise: whether the last level is t = 1 of a flow, or a terminal abar of 0. There sigma is infinite and y has
        no value: its label ``levels[-1]`` is any number above the level before, and y is that label times z.
    """

    kind: str
    levels: tuple[float, ...]
    timesteps: tuple[float, ...]
    options: tuple[tuple[str, object], ...] = ()
    sampler: str = "euler"
    table: tuple[tuple[float, ...], ...] = ()
    pure_noise: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise FpjaxError(f"unknown process {self.kind!r}; choose one of {', '.join(KINDS)}")
        if len(self.levels) < 2:
            raise FpjaxError("a process needs at least one step, that is two noise levels")
        if not all(math.isfinite(s) and s >= 0 for s in self.levels):
            raise FpjaxError("noise levels must be finite and at least 0")
        if any(a >= b for a, b in itertools.pairwise(self.levels)):
            raise FpjaxError("noise levels must increase strictly from the first to the last")
        if self.table and len(self.table) != len(self.levels) - 1:
            raise FpjaxError(f"{self.steps} steps need {self.steps} rows of coefficients, got {len(self.table)}")

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.levels) - 1

    @property
    def sigmas(self) -> np.ndarray:
        """Noise levels, shape (steps + 1,), float64, smallest first."""
        return np.asarray(self.levels, np.float64)

    @property
    def rho(self) -> np.ndarray:
        """rho = sigma_s / sigma_t of each step (E1), shape (steps,), float64, each in [0, 1)."""
        return self.sigmas[:-1] / self.sigmas[1:]

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(sigma_from, sigma_to) = (sigma_t, sigma_s) of each step, in inversion order."""
        return [(t, s) for s, t in itertools.pairwise(self.levels)]

    def scale(self, sigma):
        """z / y at noise level sigma: sqrt(abar) for ddim, 1 for edm, 1 - t for rectified flow."""
        if self.pure_noise and sigma == self.levels[-1]:
            return 1 / sigma
        if self.kind == "ddim":
            return 1 / (1 + sigma**2) ** 0.5
        if self.kind == "rectified-flow":
            return 1 / (1 + sigma)
        return sigma * 0 + 1

    def to_y(self, z, level: int):
        """The scaled state y of a state z at noise level number ``level``."""
        return z / self.scale(self.levels[level])

    def to_z(self, y, level: int):
        """The state z, in the process's own coordinates, of a scaled state y."""
        return y * self.scale(self.levels[level])

    def require_e1(self, what: str) -> None:
        """Refuses a process whose steps are not E1 as it stands.

        Raises:
          FpjaxError: if there is a table of coefficients.
        """
        if self.table:
            raise FpjaxError(
                f"{what} takes steps of E1, and this process has coefficients of its own ({self.sampler}); "
                "invert, generate and audit take it"
            )

    def describe(self) -> dict:
        """The process as plain data, for reports and certificates."""
        plain = {"kind": self.kind, "steps": self.steps, "sigmas": list(self.levels), **dict(self.options)}
        special = {"sampler": self.sampler, "coefficients": [list(row) for row in self.table]} if self.table else {}
        return plain | special | ({"pure_noise": True} if self.pure_noise else {})


def betas(schedule: str, train_steps: int = 1000, beta_start: float | None = None, beta_end: float | None = None):
    """The variances beta_t of a DDPM schedule, shape (train_steps,), float64.

    Args:
      schedule: "linear" (Ho et al. 2020; 1e-4 to 2e-2), "scaled_linear" (linear in sqrt(beta); Stable Diffusion,
        8.5e-4 to 1.2e-2) or "cosine" (Nichol & Dhariwal 2021; capped at 0.999; takes no beta_start, beta_end).

    Raises:
      FpjaxError: for an unknown schedule or values outside (0, 1).
    """
    if train_steps < 1:
        raise FpjaxError("train_steps must be at least 1")
    if schedule == "cosine":
        if beta_start is not None or beta_end is not None:
            raise FpjaxError("the cosine schedule takes no beta_start or beta_end")
        t = np.arange(train_steps + 1) / train_steps
        abar = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
        return np.minimum(1 - abar[1:] / abar[:-1], 0.999)
    defaults = {"linear": (1e-4, 2e-2), "scaled_linear": (8.5e-4, 1.2e-2)}
    if schedule not in defaults:
        raise FpjaxError(f"unknown schedule {schedule!r}; choose linear, scaled_linear or cosine")
    start = defaults[schedule][0] if beta_start is None else beta_start
    end = defaults[schedule][1] if beta_end is None else beta_end
    if not (0 < start < 1 and 0 < end < 1):
        raise FpjaxError("beta_start and beta_end must lie between 0 and 1")
    if schedule == "linear":
        return np.linspace(start, end, train_steps)
    return np.linspace(start**0.5, end**0.5, train_steps) ** 2


def alphas_bar(schedule: str = "linear", train_steps: int = 1000, beta_start=None, beta_end=None) -> np.ndarray:
    """The products abar_t of (1 - beta), shape (train_steps,), float64; index 0 is the first noisy time."""
    return np.cumprod(1 - betas(schedule, train_steps, beta_start, beta_end))


def vp_sigma(abar):
    """sigma = sqrt((1 - abar) / abar) of a variance-preserving process."""
    return np.sqrt((1 - abar) / abar)


def sampler_timesteps(steps: int, train_steps: int, spacing: str, offset: int) -> np.ndarray:
    """The integer times of a sampler, increasing; the conventions of Lin et al. 2024, Table 2."""
    if spacing == "trailing":
        # arange may round up to one time more, t = -1 (61 steps of 1000), which diffusers keeps
        t = np.round(np.arange(train_steps, 0, -train_steps / steps)).astype(np.int64)[:steps][::-1] - 1
    elif spacing == "leading":
        t = np.arange(steps) * (train_steps // steps) + offset
    elif spacing == "linspace":
        t = np.round(np.linspace(0, train_steps - 1, steps)).astype(np.int64)
    else:
        raise FpjaxError(f"unknown timestep spacing {spacing!r}; choose trailing, leading or linspace")
    if t[-1] >= train_steps:
        raise FpjaxError(f"offset {offset} puts a timestep at {t[-1]}, past the last of {train_steps}")
    return t


def ddim(
    steps: int = 20,
    *,
    schedule: str = "linear",
    train_steps: int = 1000,
    beta_start: float | None = None,
    beta_end: float | None = None,
    spacing: str = "trailing",
    offset: int = 0,
    final_sigma_zero: bool = False,
) -> Process:
    """DDIM (eta = 0) on a DDPM schedule.

    The levels are those of the sampler's times and, below them, the final level: sigma of t = 0, or 0 with
    ``final_sigma_zero`` (diffusers' ``set_alpha_to_one``; T10). Where a sampler's lowest time is t = 0 and the final
    level is too ("leading" with offset 0, "linspace"), its last step is the identity and is left out, so that the
    process has steps - 1 pairs.

    Args:
      steps: number of sampler steps, from 1 to train_steps.
      schedule, train_steps, beta_start, beta_end: see :func:`betas`.
      spacing: "trailing", "leading" or "linspace".
      offset: added to every time of "leading" (Stable Diffusion uses 1).
      final_sigma_zero: whether the last level is sigma = 0.

    Raises:
      FpjaxError: for arguments outside these ranges.
    """
    _check_steps(steps)
    if steps > train_steps:
        raise FpjaxError(f"steps must be at most train_steps ({train_steps}), got {steps}")
    if offset < 0:
        raise FpjaxError("offset must be at least 0")
    abar = alphas_bar(schedule, train_steps, beta_start, beta_end)
    t = sampler_timesteps(steps, train_steps, spacing, offset)
    sigmas = vp_sigma(abar[t])
    times = [float(v) for v in t]
    if final_sigma_zero:
        levels, times = [0.0, *sigmas.tolist()], [-1.0, *times]
    elif t[0] == 0:
        levels = sigmas.tolist()
    else:
        levels, times = [float(vp_sigma(abar[0])), *sigmas.tolist()], [0.0, *times]
    if len(levels) < 2:
        raise FpjaxError("with this spacing a single step is the identity; use more steps or spacing='trailing'")
    options = (("schedule", schedule), ("spacing", spacing), ("final_sigma_zero", final_sigma_zero))
    return Process("ddim", tuple(levels), tuple(times), options)


def edm(
    steps: int = 20,
    *,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    power: float = 7.0,
    final_sigma_zero: bool = False,
) -> Process:
    """Euler steps on the noise levels of Karras et al. 2022, Eq. 5.

    With ``final_sigma_zero`` the grid is theirs: ``steps`` levels from sigma_max to sigma_min, and 0. Without it,
    ``steps + 1`` levels from sigma_max to sigma_min.

    Raises:
      FpjaxError: unless 0 < sigma_min < sigma_max and power > 0.
    """
    _check_steps(steps)
    if not (0 < sigma_min < sigma_max < math.inf and 0 < power < math.inf):
        raise FpjaxError("edm needs 0 < sigma_min < sigma_max and a positive power")
    count = steps if final_sigma_zero else steps + 1
    u = np.linspace(0, 1, count) if count > 1 else np.ones(1)
    levels = (sigma_min ** (1 / power) + u * (sigma_max ** (1 / power) - sigma_min ** (1 / power))) ** power
    levels = [0.0, *levels.tolist()] if final_sigma_zero else levels.tolist()
    return Process("edm", tuple(levels), tuple(levels), (("final_sigma_zero", final_sigma_zero),))


def rectified_flow(
    steps: int = 20,
    *,
    t_min: float = 0.01,
    t_max: float = 0.99,
    shift: float = 1.0,
    final_sigma_zero: bool = False,
) -> Process:
    """Euler steps of a rectified flow x_t = (1 - t) x0 + t n, uniform in t and then shifted.

    Args:
      t_min, t_max: the smallest positive and the largest time; t = 1 is pure noise, where y has no value.
      shift: t -> shift·t / (1 + (shift - 1)·t) (Esser et al. 2024, Eq. 23).
      final_sigma_zero: whether a level t = 0 lies below t_min.

    Raises:
      FpjaxError: unless 0 < t_min < t_max < 1 and shift > 0.
    """
    _check_steps(steps)
    if not (0 < t_min < t_max < 1 and 0 < shift < math.inf):
        raise FpjaxError("rectified_flow needs 0 < t_min < t_max < 1 and a positive shift")
    count = steps if final_sigma_zero else steps + 1
    t = np.linspace(t_min, t_max, count) if count > 1 else np.asarray([t_max])
    t = shift * t / (1 + (shift - 1) * t)
    times = [0.0, *t.tolist()] if final_sigma_zero else t.tolist()
    levels = tuple(v / (1 - v) for v in times)
    return Process("rectified-flow", levels, tuple(times), (("shift", shift), ("final_sigma_zero", final_sigma_zero)))


def from_sigmas(sigmas, kind: str = "edm") -> Process:
    """A process on noise levels of your own, in increasing order.

    Raises:
      FpjaxError: unless they are finite, at least 0 and strictly increasing.
    """
    levels = tuple(float(s) for s in np.asarray(sigmas, np.float64).ravel())
    return Process(kind, levels, levels)


def make(kind: str, steps: int, **options) -> Process:
    """The process of that name: "ddim", "edm" or "rectified-flow".

    Raises:
      FpjaxError: for an unknown name.
    """
    makers = {"ddim": ddim, "edm": edm, "rectified-flow": rectified_flow}
    if kind not in makers:
        raise FpjaxError(f"unknown process {kind!r}; choose one of {', '.join(makers)}")
    return makers[kind](steps, **options)


def _check_steps(steps) -> None:
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
        raise FpjaxError(f"steps must be a whole number, at least 1, got {steps!r}")


def adapt(den, **options) -> Process:
    """The shortest grid with a wanted contraction factor for this denoiser (T12); see :func:`fpjax.adapting.adapt`."""
    from fpjax.adapting import adapt as adapted  # looks at denoisers, so it stands below this file

    return adapted(den, **options)
