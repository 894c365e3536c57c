"""Grids that suit a denoiser: the fewest steps with a wanted contraction factor (T12), and the best for a budget of calls.

In this room: measuring K(sigma) = sup ||I - J_D|| at sample points, the greedy grid, a search over wanted factors. K is
SAMPLED: a lower estimate of the supremum, so the factor is met at the points looked at and may be exceeded elsewhere.
Not in this room: grids that do not look at the denoiser (process).
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import process
from fpjax.denoiser import Denoiser, evaluate
from fpjax.evidence import FpjaxError
from fpjax.jacobian import spectrum
from fpjax.process import Process
from fpjax.trajectory import invert, prepare, round_trip

LEVELS = 24  # noise levels at which K is measured; in between it is interpolated in log sigma
MOST = 2000  # the longest grid
BATCH = 32  # images measured at once


def departures(den: Denoiser, images, sigmas, *, condition=None, guidance: float = 1.0, seed: int = 0) -> np.ndarray:
    """K(sigma) = the largest ||I - J_D|| over the noised images, shape (len(sigmas),): a lower estimate of the supremum.

    Raises:
      FpjaxError: for bad input; see :func:`fpjax.trajectory.prepare`.
    """
    return largest(_departure, den, images, sigmas, condition=condition, guidance=guidance, seed=seed)


def largest(measure: Callable, den: Denoiser, images, sigmas, *, condition=None, guidance: float = 1.0, seed: int = 0):
    """The largest of ``measure(y, params, key)`` over the images noised to each level, shape (len(sigmas), ...).

    Args:
      measure: a top-level function of a point y, what :func:`network` takes, and a key. The rest: see
        :func:`fpjax.trajectory.prepare`.

    Raises:
      FpjaxError: for bad input.
    """
    x = prepare(den, images, condition, guidance)
    keys = jax.random.split(jax.random.key(seed), len(sigmas))
    return np.asarray([_largest(measure, x, jnp.asarray(s, x.z.dtype), k) for s, k in zip(sigmas, keys, strict=True)])


@functools.partial(jax.jit, static_argnums=0)
def _largest(measure, x, sigma, key):
    noise = jax.random.normal(key, x.z.shape, x.z.dtype)

    def one(a):
        y, c = a
        return measure(y, (x.den, sigma, c, x.guidance), key)

    return jnp.max(jax.lax.map(one, (x.z + sigma * noise, x.condition), batch_size=BATCH), axis=0)


def network(y, params):
    """D at y, for params = (denoiser, sigma, condition, guidance)."""
    den, sigma, c, guidance = params
    return evaluate(den, y, sigma, c, guidance)


def _departure(y, params, key):
    return spectrum(network, y, params, key, tol=1e-3).departure.value


def greedy(sigma_min: float, sigma_max: float, rate: float, bound: Callable) -> np.ndarray:
    """T12's shortest grid with (1 - rho)·K(sigma) <= rate: every level as large as that allows.

    Args:
      bound: K as a function of an array of levels.

    Raises:
      FpjaxError: if it needs more than 2,000 steps.
    """
    levels, fine = [sigma_min], np.geomspace(sigma_min, sigma_max, 20001)
    k = bound(fine)
    while levels[-1] < sigma_max:
        allowed = fine[(fine > levels[-1] * (1 + 1e-12)) & ((1 - levels[-1] / fine) * k <= rate)]
        if len(allowed) == 0 or len(levels) > MOST:
            raise FpjaxError(
                f"a factor of {rate} needs more than {MOST} steps from {sigma_min:g} on; ask for a larger one"
            )
        levels.append(float(allowed[-1]))
    return np.asarray(levels)


def adapt(
    den: Denoiser,
    *,
    images,
    condition=None,
    guidance: float = 1.0,
    target_rate: float = 0.5,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
    kind: str = "ddim",
    seed: int = 0,
) -> Process:
    """The shortest grid on which plain iteration contracts by ``target_rate`` as far as K(sigma) was measured (T12).

    Args:
      images: (n, *shape) clean images at which K is measured, noised to each level.
      target_rate: wanted (1 - rho)·K, above 0.
      sigma_min, sigma_max: the ends; those of the linear DDPM schedule if left out.
      kind: whose coordinates z the process has.

    Raises:
      FpjaxError: for a rate that is not positive, levels that do not increase, or a grid beyond 2,000 steps.
    """
    low, high = _ends(sigma_min, sigma_max, target_rate)
    bound = _measured(den, images, low, high, condition=condition, guidance=guidance, seed=seed)
    return process.from_sigmas(greedy(low, high, target_rate, bound), kind)


def _ends(sigma_min: float | None, sigma_max: float | None, rate: float) -> tuple[float, float]:
    ends = process.ddim(2).sigmas
    low, high = sigma_min or float(ends[0]), sigma_max or float(ends[-1])
    if not (0 < low < high < float("inf") and 0 < rate < float("inf")):
        raise FpjaxError("adapt needs 0 < sigma_min < sigma_max and a positive target_rate")
    return low, high


def _measured(den: Denoiser, images, low: float, high: float, **options) -> Callable:
    """K as a function of levels, measured at LEVELS of them."""
    nodes = np.geomspace(low, high, LEVELS)
    return _interpolated(nodes, departures(den, images, nodes, **options))


def _interpolated(nodes, k) -> Callable:
    return lambda sigma: np.interp(np.log(sigma), np.log(nodes), k)


def budget(
    den: Denoiser,
    calls: float,
    *,
    images,
    condition=None,
    guidance: float = 1.0,
    rates=(0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.9),
    kind: str = "ddim",
    tol: float = 1e-8,
    seed: int = 0,
) -> tuple[Process, list[dict]]:
    """The adapted grid with the least round-trip error whose mean network evaluations per image are at most ``calls``.

    Returns:
      The grid and what was tried: rate, steps, evaluations per image, largest round-trip error, share solved.

    Raises:
      FpjaxError: if no grid tried stays within the budget.
    """
    low, high = _ends(None, None, min(rates))
    bound = _measured(den, images, low, high, condition=condition, guidance=guidance, seed=seed)
    tried, grids = [], []
    for rate in rates:
        grid = process.from_sigmas(greedy(low, high, rate, bound), kind)
        inv = invert(den, images, grid, condition=condition, guidance=guidance, tol=tol)
        error = float(round_trip(den, images, grid, inv, condition=condition, guidance=guidance).max())
        spent = float(np.asarray(inv.evaluations).sum(axis=1).mean())
        share = float(inv.solved[:, -1].mean())
        tried.append({"rate": rate, "steps": grid.steps, "evaluations": spent, "round_trip": error, "solved": share})
        grids.append(grid)
    allowed = [i for i, row in enumerate(tried) if row["evaluations"] <= calls and np.isfinite(row["round_trip"])]
    if not allowed:
        least = min(row["evaluations"] for row in tried)
        raise FpjaxError(f"no grid tried needs at most {calls:g} evaluations an image; the cheapest needs {least:.0f}")
    return grids[min(allowed, key=lambda i: tried[i]["round_trip"])], tried
