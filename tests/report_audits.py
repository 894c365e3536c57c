"""Audits for tests of the report: real and cheap, with names that try to become markup, and one of 60,000 rows."""

import copy

import jax
import jax.numpy as jnp
import numpy as np

import fpjax
from fpjax.auditing import Report

EVIL = "<img src=x onerror=alert(1)>"
CAPTIONS = ("a \"quoted\"\ncaption, 'it' is </script><b>bold</b>", EVIL + " & $x_1$ | `code` {{ 7*7 }} %s \\end{table}")
SHAPE = (4, 4)


def posterior_mean(params, y, sigma, condition):
    """E3: the exact denoiser of a few points, of one half of them under a condition."""
    points, half = params
    near = -jnp.sum((y[None] - points) ** 2, axis=(1, 2)) / (2 * sigma**2)
    kept = (half == condition) | (condition == len(CAPTIONS))
    weights = jax.nn.softmax(jnp.where(kept, near, jnp.full_like(near, -jnp.inf)))
    return jnp.tensordot(weights, points, 1)


def hostile(name: str = EVIL) -> fpjax.Denoiser:
    points = np.random.default_rng(0).uniform(-1, 1, (6, *SHAPE))
    facts = fpjax.denoiser.Facts(symmetric=True, monotone=True, bounded=True)
    params = (points, np.arange(6, dtype=np.int32) % 2)
    return fpjax.Denoiser.from_function(posterior_mean, params, SHAPE, conditions=CAPTIONS, facts=facts, name=name)


def audit(steps: int = 8, guidance=(1.0, 2.0, 7.5), **more) -> Report:
    """A real audit of the exact denoiser above; ill-posed in places under guidance."""
    den = hostile()
    images = np.asarray(den.params[0][:3]) + 0.05
    rep = fpjax.audit(
        den, fpjax.process.ddim(steps), images=images, condition=[0, 1, 0], guidance=list(guidance), **more
    )
    rep.command = "fpjax audit 'six points' --steps 8 --guidance 1,2,7.5 --seed 0"
    return rep


def enlarged(rep: Report, steps: int = 1000, guidance: int = 10) -> Report:
    """A report of that size from the rows of a real one: each row once for every step and weight it stands for, with the
    numbers in its value and in its detail changed a little, so that no two rows are alike."""
    big = copy.copy(rep)
    sigmas = np.geomspace(0.01, 80, steps + 1)
    big.process = {**rep.process, "steps": steps, "sigmas": sigmas.tolist()}
    big.guidance = [1.0 + k for k in range(guidance)]
    found = {(r["guidance"], r["step"], r["question"]): r for r in rep.table}
    asked = list(dict.fromkeys(r["question"] for r in rep.table))
    old = rep.process["steps"]
    big.table = []
    for g, w in enumerate(big.guidance):
        for s in range(steps):
            for q in asked:
                row = dict(found[rep.guidance[g % len(rep.guidance)], s * old // steps + 1, q])
                row |= {"step": s + 1, "guidance": w, "sigma_from": float(sigmas[s + 1]), "sigma_to": float(sigmas[s])}
                row["rho"] = row["sigma_to"] / row["sigma_from"]
                if row["value"] is not None:
                    row["value"] *= 1 + s / steps
                row["detail"] += f"; {s / 7:.4g} of {w:g}"
                big.table.append(row)
    big.curves = [_stretched(rep.curves[g % len(rep.curves)], w, steps) for g, w in enumerate(big.guidance)]
    big.round_trip = [rep.round_trip[g % len(rep.round_trip)] | {"guidance": w} for g, w in enumerate(big.guidance)]
    big.images = [rep.images[g % len(rep.images)] for g in range(guidance)]
    return big


def _stretched(curve: dict, w: float, steps: int) -> dict:
    out = {k: [v[s * len(v) // steps] for s in range(steps)] for k, v in curve.items() if isinstance(v, list)}
    histories = copy.deepcopy(curve["histories"])
    shown = np.unique(np.geomspace(1, steps, len(histories["steps"])).round().astype(int)).tolist()
    histories["steps"] = shown
    histories["residuals"] = {k: v[: len(shown)] for k, v in histories["residuals"].items()}
    return {**out, "guidance": w, "histories": histories}
