"""Curves of kappa, m, ||J|| and asymmetry against sigma, and a heat map over (steps, guidance): where contraction ends,
and where uniqueness ends.

In this room: which points are looked at (clean images plus noise of each level), what is measured there, and the summary
as plain data. Every figure is SAMPLED: a maximum over points is a lower estimate of the supremum, a minimum of m an upper
estimate of the infimum. Not in this room: pictures and pages (lipschitz_page), search for worse points (worst).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.denoiser import Denoiser
from fpjax.evidence import Evidence, FpjaxError
from fpjax.jacobian import spectrum
from fpjax.process import Process, make
from fpjax.step import Step, denoised
from fpjax.trajectory import prepare

FORMAT = "fpjax-lipschitz/1"
QUANTILES = (0.0, 0.1, 0.5, 0.9, 1.0)
TOL = 1e-5  # Ritz residual, relative
QUANTITIES = ("norm", "departure", "low", "asymmetry")


@functools.partial(jax.jit, static_argnames=("guided",))
def _measure(den: Denoiser, x, condition, sigma, guidance, key, guided: bool):
    """Four numbers (n, 4) and the largest relative residual (n,) at one noisy point of each image."""
    keys = jax.random.split(key, x.shape[0])

    def one(image, c, k):
        noise, start = jax.random.split(k)
        y = image + sigma * jax.random.normal(noise, image.shape, image.dtype)
        p = Step(den, sigma, jnp.zeros_like(sigma), jnp.zeros_like(image), c, guidance if guided else None)
        s = spectrum(denoised, y, p, start, tol=TOL)
        values = jnp.stack([s.norm.value, s.departure.value, s.symmetric.low, s.asymmetry.value])
        scale = jnp.maximum(s.norm.value, s.departure.value)  # at least 1/2: they add up to 1 or more
        residual = jnp.stack([s.norm.residual, s.departure.residual, s.symmetric.low_residual])
        return values, jnp.max(residual) / scale

    return jax.vmap(one)(x, condition, keys)


def _quantiles(values) -> dict[str, float | None]:
    """{"q0": ..., "q50": ..., "q100": ...} of finite values; None where there is a value that is not finite."""
    if not np.isfinite(values).all():
        return {f"q{100 * q:g}": None for q in QUANTILES}
    return {f"q{100 * q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}


def study(
    den: Denoiser,
    *,
    images,
    condition=None,
    process: str = "ddim",
    steps: Sequence[int] = (5, 10, 20, 50),
    guidance: Sequence[float] = (1.0, 3.0, 7.5),
    options: dict[str, Any] | None = None,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Measures J = J_D at clean images plus noise, at every noise level that any of the step counts uses.

    Args:
      den: the denoiser.
      images: (n, *den.shape), finite; their dtype is the precision. condition: None, one for all, or n.
      process: "ddim", "edm" or "rectified-flow". steps: step counts N; the first is the one whose curves are also given for
        each condition. options: further arguments of the process.
      guidance: weights w; only 1 makes sense for an unconditional model.
      seed: of the noise and of the Lanczos starts.
      progress: called with (units done, units in all, what).

    Returns:
      Plain data (JSON-ready): ``levels`` with one entry for each (w, sigma): quantiles over images of ||J||, ||I - J||,
      lambda_min(sym J) and ||J - J^T||/2; ``curves`` with kappa = (1 - rho)·||I - J|| and m = rho + (1 - rho)·lambda_min for
      each (w, N, condition) and step; ``heat`` with the largest kappa and smallest m for each (N, w); ``ends`` with the
      fewest steps at which every sampled kappa is below 1, and every sampled m above 0, for each w (None: at none);
      ``evidence`` is "SAMPLED".

    Raises:
      FpjaxError: for bad input; see :func:`fpjax.trajectory.prepare` and :func:`fpjax.process.make`.
    """
    weights = [float(w) for w in guidance]
    counts = [int(n) for n in steps]
    if not weights or not counts:
        raise FpjaxError("give at least one guidance weight and one step count")
    inputs = [prepare(den, images, condition, w) for w in weights]
    processes = {n: make(process, n, **(options or {})) for n in counts}
    grid = sorted({s for p in processes.values() for s in p.levels[1:]})
    x, c, cast = inputs[0].z / inputs[0].z.dtype.type(1), np.asarray(inputs[0].condition), inputs[0].den
    key = jax.random.key(seed)
    raw: dict[tuple[float, float], np.ndarray] = {}
    residual = 0.0
    for w in weights:
        for i, sigma in enumerate(grid):
            if progress is not None:
                progress(len(raw), len(weights) * len(grid), f"guidance {w:g}, sigma {sigma:.3g}")
            values, error = _measure(
                cast,
                x,
                jnp.asarray(c),
                jnp.asarray(sigma, x.dtype),
                jnp.asarray(w, x.dtype),
                jax.random.fold_in(key, i),
                w != 1.0,
            )
            raw[w, sigma] = np.asarray(values, np.float64)
            residual = max(residual, float(np.max(np.asarray(error))))
    report = {
        "format": FORMAT,
        "model": den.name,
        "process": process,
        "steps": counts,
        "guidance": weights,
        "conditions": [_condition_name(den, k) for k in sorted(set(c.tolist()))],
        "evidence": Evidence.SAMPLED.name,
        "settings": {
            "images": len(c),
            "seed": seed,
            "precision": str(x.dtype),
            "tol": TOL,
            "largest_residual": residual,
        },
    }
    report["levels"] = [
        {"guidance": w, "sigma": s, **{q: _quantiles(v[:, k]) for k, q in enumerate(QUANTITIES)}}
        for (w, s), v in raw.items()
    ]
    report["curves"] = [
        curve for w in weights for n in counts for curve in _curves(den, processes[n], w, raw, c, n == counts[0])
    ]
    report["heat"] = [_heat(curve) for curve in report["curves"] if curve["condition"] is None]
    report["ends"] = [_ends(report["heat"], w) for w in weights]
    if progress is not None:
        progress(len(raw), len(raw), "done")
    return report


def _condition_name(den: Denoiser, index: int) -> str:
    return den.conditions[index] if index < len(den.conditions) else "none"


def _curves(den: Denoiser, process: Process, w: float, raw, conditions, each: bool) -> list[dict[str, Any]]:
    """kappa and m of every step: over all images and, if asked, over those of each condition."""
    groups: list[tuple[str | None, np.ndarray]] = [(None, np.ones(len(conditions), bool))]
    if each:
        groups += [(_condition_name(den, k), conditions == k) for k in sorted(set(conditions.tolist()))]
    curves = []
    for name, rows in groups:
        points = []
        for i, rho in enumerate(process.rho):
            values = raw[w, process.levels[i + 1]][rows]
            norm, departure, low, asymmetry = values.T
            points.append(
                {
                    "step": i + 1,
                    "sigma": process.levels[i + 1],
                    "rho": float(rho),
                    "kappa": _quantiles((1 - rho) * departure),
                    "modulus": _quantiles(rho + (1 - rho) * low),
                    "norm": _quantiles(norm),
                    "asymmetry": _quantiles(asymmetry),
                }
            )
        curves.append(
            {"guidance": w, "steps": process.steps, "condition": name, "images": int(rows.sum()), "points": points}
        )
    return curves


def _heat(curve) -> dict[str, Any]:
    """The worst of one (steps, guidance), and at which step it was seen."""
    cell: dict[str, Any] = {"steps": curve["steps"], "guidance": curve["guidance"]}
    for name, quantile, pick in (("kappa", "q100", np.argmax), ("modulus", "q0", np.argmin)):
        values = np.asarray([point[name][quantile] for point in curve["points"]], np.float64)
        if np.isfinite(values).all():
            worst = int(pick(values))
            cell |= {name: float(values[worst]), f"{name}_step": worst + 1}
        else:
            cell |= {name: None, f"{name}_step": None}
    return cell


def _ends(heat, w: float) -> dict[str, Any]:
    cells = [cell for cell in heat if cell["guidance"] == w]
    contracts = [cell["steps"] for cell in cells if cell["kappa"] is not None and cell["kappa"] < 1]
    unique = [cell["steps"] for cell in cells if cell["modulus"] is not None and cell["modulus"] > 0]
    return {
        "guidance": w,
        "contraction_from_steps": min(contracts, default=None),
        "uniqueness_from_steps": min(unique, default=None),
    }


def lipschitz_command(
    model: str,
    *,
    images: int = 16,
    process: str = "ddim",
    steps: Sequence[int] = (20, 5, 10, 50),
    guidance: Sequence[float] | None = None,
    precision: str = "float64",
    seed: int = 0,
    out: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """What ``fpjax lipschitz MODEL`` does: loads a model, takes held-out digits, studies, writes JSON, HTML and PNG.

    Args:
      model: an embedded name or a path. images: how many held-out images. precision: "float32" or "float64".
      guidance: weights; default (1, 3, 7.5) for a conditional model and (1,) otherwise.
      out: a folder, or None to write nothing.

    Raises:
      FpjaxError: for bad input, a model that does not take the embedded images, or a folder that cannot be written.
    """
    from fpjax.data import samples
    from fpjax.lipschitz_page import write
    from fpjax.models.store import load

    if precision not in ("float32", "float64"):
        raise FpjaxError(f"precision must be float32 or float64, not {precision!r}")
    den = load(model)
    x, labels = samples("digits", images, seed)
    if x.shape[1:] != den.shape:
        raise FpjaxError(
            f"{den.name} takes images of shape {den.shape}, but the embedded ones are {x.shape[1:]}; use study()"
        )
    weights = ((1.0, 3.0, 7.5) if den.conditions else (1.0,)) if guidance is None else guidance
    with jax.enable_x64(precision == "float64"):
        data = study(
            den,
            images=jnp.asarray(x, precision),
            condition=labels if den.conditions else None,
            process=process,
            steps=steps,
            guidance=weights,
            seed=seed,
            progress=progress,
        )
    if out is not None:
        write(data, out)
    return data
