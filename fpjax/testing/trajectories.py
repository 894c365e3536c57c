"""Assertions about whole steps and trajectories: the round trip (T9), and a sampler of your own against E1.

Not in this room: Jacobians (asserting).
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.denoiser import Denoiser
from fpjax.evidence import Exit, FpjaxError, Verdict
from fpjax.process import Process
from fpjax.step import Step, denoised
from fpjax.testing.asserting import Outcome, clean_points, conclude, expect_denoiser, outcome_fields, sample_count
from fpjax.trajectory import generate, invert


def assert_roundtrip(
    model: Denoiser,
    process: Process,
    images,
    *,
    condition=None,
    guidance: float = 1.0,
    tol: float | None = None,
    solver: str = "auto",
    limit: int = 400,
) -> Outcome:
    """Inverting images and generating from their latents gives the images back (T9, T16).

    Args:
      model: the denoiser. process: noise levels. condition, guidance: as in :func:`fpjax.trajectory.prepare`.
      images: (n, *model.shape) in the process's own coordinates; their dtype is the precision.
      tol: largest difference allowed, relative to 1 + the image's largest value; 1e-8 in float64, 1e-3 in float32.
      solver, limit: of the inversion.

    Returns:
      An Outcome whose ``worst`` is the largest difference, and whose ``points`` counts images.

    Raises:
      PropertyError: INCONCLUSIVE with step and exit code where a step was not solved, REFUTED where all were.
      FpjaxError: for bad input.
    """
    began = time.perf_counter()
    expect_denoiser(model)
    images = np.asarray(images)
    images = images.astype(jnp.result_type(images.dtype if images.dtype.kind == "f" else float))
    double = images.dtype == np.float64
    tol = (1e-8 if double else 1e-3) if tol is None else tol
    if not 0 < tol < np.inf:
        raise FpjaxError(f"tol must be a positive finite number, got {tol}")
    options = {"condition": condition, "guidance": guidance}
    inversion = invert(model, images, process, solver=solver, tol=1e-12 if double else 1e-6, limit=limit, **options)
    again = np.asarray(generate(model, inversion.latent, process, **options))
    flat = np.abs(images).reshape(len(images), -1)
    error = np.abs(again - images).reshape(len(images), -1).max(axis=1) / (1 + flat.max(axis=1))
    worst = int(np.argmax(np.where(np.isfinite(error), error, np.inf)))
    fields = outcome_fields("assert_roundtrip", model, "T9", len(images), error[worst])
    if error[worst] <= tol:
        detail = (
            f"{len(images)} images come back in {process.steps} steps, largest relative difference {error[worst]:.2e}"
        )
        return conclude(Outcome(**fields, verdict=Verdict.SUPPORTED, detail=detail), began)
    codes = np.asarray(inversion.exit)[worst]
    unsolved = np.flatnonzero([not Exit(int(c)).solved for c in codes])
    witness = {"image number": worst, "image": images[worst], "what came back": again[worst]}
    text = f"image {worst} comes back with relative difference {error[worst]:.2e}, more than {tol:.2g}"
    if unsolved.size:
        i = int(unsolved[0])
        residual = float(np.asarray(inversion.residual)[worst, i])
        detail = f"{text}; step {i + 1} of {process.steps} ended {Exit(int(codes[i])).name} with residual {residual:.2e} (T8)"
        witness |= {"step": i + 1, "exit": Exit(int(codes[i])).name, "residual": residual}
        return conclude(Outcome(**fields, verdict=Verdict.INCONCLUSIVE, detail=detail, witness=witness), began)
    factor = 1 / max(process.rho.prod(), np.finfo(float).tiny)
    detail = f"{text}, though every step was solved; rounding may grow by {factor:.2g} on the way (T9, T16)"
    return conclude(Outcome(**fields, verdict=Verdict.REFUTED, detail=detail, witness=witness), began)


def assert_matches_schedule(
    model: Denoiser,
    process: Process,
    sampler: Callable,
    *,
    images=None,
    condition=None,
    samples: int | None = None,
    tol: float | None = None,
    seed: int = 0,
) -> Outcome:
    """Your sampler's step is the step of E1 on this process: finds off-by-ones in time and wrong coefficients.

    Args:
      model: the denoiser. process: noise levels.
      sampler: ``sampler(z, t_from, t_to)``, one deterministic denoising step of your own code for one state z of
        ``model.shape``, in the process's own coordinates and times (``process.timesteps``).
      images, condition, samples, seed: as in :func:`fpjax.testing.assert_wellposed`.
      tol: largest difference allowed, relative to 1 + the state's largest value; 1e-9 in float64, 1e-4 in float32.

    Returns:
      An Outcome whose ``worst`` is the largest relative difference.

    Raises:
      PropertyError: REFUTED with the state, both results, and the pair of levels that the sampler's result would fit.
      FpjaxError: for bad input, or a sampler that fails or returns another shape.
    """
    began = time.perf_counter()
    expect_denoiser(model)
    process.require_e1("assert_matches_schedule")
    count = max(sample_count(samples), process.steps)
    taken = _take(model, process, sampler, images, condition, count, seed)
    tol = (1e-9 if taken.y.dtype == np.float64 else 1e-4) if tol is None else tol
    if not 0 < tol < np.inf:
        raise FpjaxError(f"tol must be a positive finite number, got {tol}")
    worst = int(np.argmax(np.where(np.isfinite(taken.error), taken.error, np.inf)))
    error, i = taken.error[worst], worst % process.steps
    fields = outcome_fields("assert_matches_schedule", model, "E1", count, error)
    if error <= tol:
        detail = f"the sampler takes the step of E1 at {count} points, largest relative difference {error:.2e}"
        return conclude(Outcome(**fields, verdict=Verdict.SUPPORTED, detail=detail), began)
    detail = (
        f"the sampler differs from E1 by {error:.2e} (relative) at step {i + 1} of {process.steps} "
        f"(time {process.timesteps[i + 1]:g} to {process.timesteps[i]:g})"
    )
    y, x0, got = taken.y[worst], taken.x0[worst], taken.results[worst]
    fit = _fits(process, y, x0, got, i, tol)
    if fit is not None:
        detail += f"; its result is that of a step down to time {process.timesteps[fit]:g}: look for an off-by-one"
    witness = {"state": process.to_z(y, i + 1), "sampler": got, "E1": _e1(process, y, x0, i + 1, i), "D": x0}
    return conclude(Outcome(**fields, verdict=Verdict.REFUTED, detail=detail, witness=witness), began)


class _Taken(NamedTuple):
    """Steps taken by a sampler: states y, D there, its results, and their relative differences from E1's."""

    y: np.ndarray
    x0: np.ndarray
    results: list[np.ndarray]
    error: np.ndarray


def _take(model: Denoiser, process: Process, sampler: Callable, images, condition, count: int, seed: int) -> _Taken:
    """Point k of ``count`` is at step k modulo the number of steps."""
    rng = np.random.default_rng(seed)
    clean = clean_points(model, images, count, rng)
    number = np.arange(count) % process.steps
    sigma = process.sigmas[1:][number].astype(clean.dtype)
    y = clean + sigma.reshape(-1, *[1] * len(model.shape)) * rng.normal(size=clean.shape).astype(clean.dtype)
    index = jnp.full(count, model.index(condition), jnp.int32)
    x0 = np.asarray(_denoised(model.astype(clean.dtype), y, sigma, index))
    results, error = [], np.empty(count)
    for k in range(count):
        i = k % process.steps
        results.append(_ask(sampler, process.to_z(y[k], i + 1), process.timesteps[i + 1], process.timesteps[i]))
        error[k] = _difference(results[k], _e1(process, y[k], x0[k], i + 1, i))
    return _Taken(y, x0, results, error)


@jax.jit
def _denoised(den, y, sigma, condition):
    def one(v, s, c):
        return denoised(v, Step(den, s, jnp.zeros_like(s), v, c))

    return jax.vmap(one)(y, sigma, condition)


def _e1(process: Process, y, x0, start: int, end: int) -> np.ndarray:
    """The state at level ``end``, in the process's coordinates, that E1 gives from y at level ``start``."""
    rho = process.levels[end] / process.levels[start]
    return process.to_z(rho * y + (1 - rho) * x0, end)


def _fits(process: Process, y, x0, got, i: int, tol: float) -> int | None:
    """The level below i to which the sampler stepped, if there is one."""
    for end in range(i):
        if _difference(got, _e1(process, y, x0, i + 1, end)) <= tol:
            return end
    return None


def _difference(a, b) -> float:
    return float(np.max(np.abs(a - b)) / (1 + np.max(np.abs(b))))


def _ask(sampler: Callable, z, t_from: float, t_to: float) -> np.ndarray:
    try:
        got = np.asarray(sampler(z, t_from, t_to), np.float64)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FpjaxError(
            f"the sampler failed on a state of shape {z.shape}: {reason}; it must accept (z, t_from, t_to)"
        ) from error
    if got.shape != z.shape:
        raise FpjaxError(
            f"the sampler returns shape {got.shape} for a state of shape {z.shape}; it must return the next state"
        )
    return got
