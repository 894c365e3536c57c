"""What an audit keeps for the eye: spectrum edges against T3's window, errors along the trajectory, residual histories.

In this room: numbers along steps and iterations, as plain lists. Not in this room: verdicts (rules), drawing (report).
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.evidence import Exit
from fpjax.jacobian import Spectrum
from fpjax.methods import choose
from fpjax.process import Process
from fpjax.rules import finite
from fpjax.solve import advance, make_goal, slots, start
from fpjax.solvers import named
from fpjax.step import G, Step

METHODS = ("picard", "relaxed", "anderson", "newton_krylov", "auto")
LENGTH = 60  # evaluations of a history
SHOWN = 24  # steps with a history
DEPTH = 8  # secant pairs of a history, as in a trajectory
ROOM = 2**25  # numbers that the pairs of all steps may take at once


def edges(measured: Spectrum) -> tuple[float, float]:
    """Smallest and largest eigenvalue of sym J over the points of a step."""
    low, high = (np.asarray(a, np.float64) for a in (measured.symmetric.low, measured.symmetric.high))
    return float(low.min()), float(high.max())


def window(rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """T3: for symmetric J, G contracts exactly where the spectrum lies inside (-rho/(1 - rho), (2 - rho)/(1 - rho))."""
    return -rho / (1 - rho), (2 - rho) / (1 - rho)


def record(
    step: Step,
    process: Process,
    inversion,
    spectra: Sequence[tuple],
    tol: float,
    methods: Sequence[str],
    memory=None,
) -> dict[str, Any]:
    """One entry of ``curves`` in audit.json, but for its guidance.

    Args:
      step: the model with every image's condition (n,), without target; its guidance is w as an array, or None.
      inversion: of :func:`fpjax.trajectory.invert`, with its path. spectra: :func:`edges` of each step.
      tol: residual that the histories stop at. methods: solvers that get a history.
      memory: (n, steps, *shape), what a multistep sampler adds to each step from the noisier ones; None without.
    """
    low, high = zip(*spectra, strict=True)
    below, above = window(process.rho)
    bound, spent = np.asarray(inversion.error_bound), np.asarray(inversion.evaluations)
    return {
        "lambda_min": [_short(v) for v in low],
        "lambda_max": [_short(v) for v in high],
        "window_low": [_short(v) for v in below],
        "window_high": [_short(v) for v in above],
        "latent_error_bound": [_short(v) for v in bound.max(axis=0)],
        "evaluations": [_short(v) for v in spent.mean(axis=0)],
        "histories": _histories(step, process, inversion, tol, methods, memory),
    }


def _short(value) -> float | None:
    """Six digits: for plots, not for proofs."""
    value = finite(value)
    return None if value is None else float(f"{value:.6g}")


def shown(steps: int) -> list[int]:
    """Indices of the steps with a history: all, or some that lie closer together at the clean end."""
    if steps <= SHOWN:
        return list(range(steps))
    return sorted({round(float(k)) - 1 for k in np.geomspace(1, steps, SHOWN)})


def _histories(step: Step, process: Process, inversion, tol: float, methods: Sequence[str], memory) -> dict[str, Any]:
    """The first image's residuals by each method, from y_s, at some of the steps."""
    path = jnp.asarray(inversion.path)[0]
    dtype = path.dtype
    at = np.asarray(shown(process.steps))
    starts = jnp.where(jnp.isfinite(path[at]), path[at], path[0])
    targets = starts if memory is None else starts - jnp.asarray(memory)[0, at]
    # With conditions, guidance is always an array here: w = 1 then shares the compiled program of the other weights.
    guidance = step.guidance
    if guidance is None and step.den.conditions:
        guidance = jnp.ones((), dtype)
    one = step._replace(condition=step.condition[0], guidance=guidance)
    sigma, rho = (jnp.asarray(a[at], dtype) for a in (np.asarray(process.sigmas)[1:], process.rho))
    batch = len(at) if len(at) * DEPTH * targets[0].size <= ROOM else 1
    found = {}
    for solver in methods:
        norms = np.asarray(residuals(one, sigma, rho, starts, targets, tol, solver=solver, batch=batch), np.float64)
        found[solver] = [_until_it_ends(line) for line in norms]
    return {"image": 0, "tol": tol, "steps": (at + 1).tolist(), "residuals": found}


def _until_it_ends(norms: np.ndarray) -> list[float]:
    bad = np.flatnonzero(~np.isfinite(norms))
    return [float(f"{v:.3g}") for v in norms[: bad[0] if bad.size else None]]


@functools.partial(jax.jit, static_argnames=("solver", "batch"))
def residuals(step: Step, sigma, rho, starts, targets, tol, *, solver: str, batch: int):
    """||G(y) - y|| of the point that a method stands on, after each evaluation, from ``starts``; NaN after its end.

    Args:
      step: condition and guidance of all. sigma, rho: (steps,). starts, targets: (steps, *shape).
      batch: how many steps at once.

    Returns:
      (steps, LENGTH).
    """
    method = named(solver, DEPTH)

    def one(level):
        p = step._replace(sigma=level[0], rho=level[1], target=level[2])
        goal = make_goal(p.target.dtype, tol, LENGTH, "residual")
        first = start(method, level[3])

        def body(lane, k):
            running = lane.exit == Exit.RUNNING
            lane = choose(running, advance(method, lane, G(lane.query, p), k % slots(lane), goal), lane)
            return lane, jnp.where(running, lane.point.norm, jnp.full_like(lane.point.norm, jnp.nan))

        return jax.lax.scan(body, first, jnp.arange(LENGTH, dtype=jnp.int32))[1]

    if batch >= len(targets):
        return jax.vmap(one)((sigma, rho, targets, starts))
    return jax.lax.map(one, (sigma, rho, targets, starts))
