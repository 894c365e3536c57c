"""From measurements to verdicts: one small function for each question, each naming its theorem.

In this room: inequalities and words. A lower estimate is never called a bound here, and every row says how many points
it rests on. Not in this room: anything that calls a network.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from fpjax.denoiser import Facts
from fpjax.evidence import Evidence, Exit, Verdict

QUESTIONS = ("existence", "uniqueness", "contraction", "convergence", "error", "guidance-limit")
STORED = 4096  # values of a witness vector that are written out; larger ones are described by image and step


class StepFacts(NamedTuple):
    """What is known of a step without measuring.

    Attributes:
      number: 1 for the first (cleanest) inversion step. sigma_from, sigma_to: sigma_t and sigma_s. guidance: w.
      declared: the model's facts. modulus: T2's m as far as they give it, else 0. tol: residual asked for.
    """

    number: int
    sigma_from: float
    sigma_to: float
    guidance: float
    declared: Facts
    modulus: float
    tol: float

    @property
    def rho(self) -> float:
        """sigma_s / sigma_t."""
        return self.sigma_to / self.sigma_from


def finite(value) -> float | None:
    """A float, or None where it is NaN or infinite (JSON has neither)."""
    value = float(value)
    return value if math.isfinite(value) else None


def rows(facts: StepFacts, inversion, i: int, measured) -> list[dict[str, Any]]:
    """The rows of one step; ``measured`` is :class:`fpjax.auditing.Measured`, i the step's index from 0."""
    parts = [
        _existence(facts, inversion, i),
        _uniqueness(facts, measured),
        _contraction(facts, measured),
        _convergence(facts, measured),
        _error(facts, inversion, i, measured),
    ]
    if measured.null is not None:
        parts.append(_guidance_limit(facts, measured))
    return [_row(facts, **part) for part in parts]


def _row(f: StepFacts, question, theorem, verdict, value, evidence, detail, witness=None) -> dict[str, Any]:
    return {
        "step": f.number,
        "sigma_from": f.sigma_from,
        "sigma_to": f.sigma_to,
        "rho": f.rho,
        "guidance": f.guidance,
        "question": question,
        "theorem": theorem,
        "verdict": str(verdict),
        "value": None if value is None else finite(value),
        "evidence": evidence.name,
        "detail": detail,
        "witness": witness,
    }


def _vector(array) -> list[float] | None:
    flat = np.asarray(array, np.float64).reshape(-1)
    return flat.tolist() if flat.size <= STORED and np.isfinite(flat).all() else None


def _solved(codes: np.ndarray) -> np.ndarray:
    return np.isin(codes, [code for code in Exit if code.solved])


def modulus(f: StepFacts, measured) -> np.ndarray:
    """T2's m = rho + (1 - rho)·lambda_min(sym J) at every point; of a multistep sampler that of the coupled step."""
    if measured.coupled is not None:
        return np.asarray(measured.coupled, np.float64)
    return f.rho + (1 - f.rho) * np.asarray(measured.spectrum.symmetric.low, np.float64)


def _existence(f: StepFacts, inversion, i: int) -> dict[str, Any]:
    codes = np.asarray(inversion.exit)[:, i]
    solved = _solved(codes)  # of this step from where the trajectory stood, whatever happened before
    residual = np.asarray(inversion.residual, np.float64)[:, i]
    n = len(codes)
    worst = int(np.argmax(np.where(solved, -1, np.nan_to_num(residual, nan=np.inf))))
    theorem = "T2" if f.modulus > 0 else "T1" if f.declared.bounded and f.rho > 0 else "T13"
    common = {"question": "existence", "theorem": theorem, "value": np.max(residual)}
    if solved.all():
        known = {
            "T2": "declared strongly monotone, so a solution exists for every y_s",
            "T1": "declared coercive, so a solution exists for every y_s",
            "T13": "a small residual suggests a solution near by and does not prove one",
        }[theorem]
        detail = f"solved for {n} of {n} images, residual at most {np.max(residual):.2e}; {known}"
        evidence = Evidence.SAMPLED if theorem == "T13" else Evidence.ASSUMED
        return common | {"verdict": Verdict.SUPPORTED, "evidence": evidence, "detail": detail}
    exit_code = Exit(int(codes[worst]))
    detail = (
        f"solved for {int(solved.sum())} of {n} images; image {worst}: {exit_code.name}, residual {residual[worst]:.2e}"
    )
    witness = {"image": worst, "exit": exit_code.name, "residual": finite(residual[worst])}
    return common | {
        "verdict": Verdict.INCONCLUSIVE,
        "evidence": Evidence.SAMPLED,
        "detail": detail,
        "witness": witness,
    }


def _uniqueness(f: StepFacts, measured) -> dict[str, Any]:
    m = modulus(f, measured)
    common = {"question": "uniqueness", "theorem": "T2", "value": np.min(m), "evidence": Evidence.SAMPLED}
    if not np.isfinite(m).all():
        return common | {"verdict": Verdict.INCONCLUSIVE, "detail": "the Jacobian is not finite at some point"}
    if (m > 0).all():
        declared = f"; declared m >= {f.modulus:.3g}" if f.modulus > 0 else ""
        where = "points" if measured.coupled is None else "trajectories, the noisier states following"
        detail = f"modulus m > 0 at all {m.size} {where}, smallest {m.min():.3g}{declared}"
        return common | {"verdict": Verdict.SUPPORTED, "detail": detail}
    worst = int(np.argmin(m))
    if measured.coupled is not None:
        detail = (
            f"modulus m = {m[worst]:.3g} <= 0 on the trajectory of image {worst}, the noisier states following "
            f"({int((m <= 0).sum())} of {m.size}): uniqueness is open"
        )
        return common | {
            "verdict": Verdict.INCONCLUSIVE,
            "detail": detail,
            "witness": {"image": worst, "modulus": finite(m[worst])},
        }
    detail = (
        f"modulus m = {m[worst]:.3g} <= 0 at a point of image {int(measured.image[worst])} "
        f"({int((m <= 0).sum())} of {m.size} points): T2 does not apply, so uniqueness is open"
    )
    witness = {
        "image": int(measured.image[worst]),
        "modulus": finite(m[worst]),
        "point": _vector(measured.y[worst]),
        "direction": _vector(measured.spectrum.symmetric.low_vector[worst]),
    }
    return common | {"verdict": Verdict.INCONCLUSIVE, "detail": detail, "witness": witness}


def _contraction(f: StepFacts, measured) -> dict[str, Any]:
    kappa = (1 - f.rho) * np.asarray(measured.spectrum.departure.value, np.float64)
    common = {"question": "contraction", "theorem": "T3", "value": np.max(kappa), "evidence": Evidence.SAMPLED}
    if not np.isfinite(kappa).all():
        return common | {"verdict": Verdict.INCONCLUSIVE, "detail": "the Jacobian is not finite at some point"}
    ratio = np.asarray(measured.ratio, np.float64)
    worst = int(np.argmax(ratio))
    common["value"] = max(np.max(kappa), ratio[worst])  # both are lower estimates of the same supremum
    if ratio[worst] > 1:
        detail = f"G pushes a pair of points apart by {ratio[worst]:.4g}; largest local kappa seen {kappa.max():.4g}"
        witness = {
            "image": int(measured.image[worst]),
            "ratio": finite(ratio[worst]),
            "a": _vector(measured.y[worst]),
            "b": _vector(measured.pair[worst]),
        }
        return common | {"verdict": Verdict.REFUTED, "detail": detail, "witness": witness}
    if kappa.max() < 1:
        detail = f"local kappa below 1 at all {kappa.size} points, largest {kappa.max():.4g} (a lower estimate)"
        return common | {"verdict": Verdict.SUPPORTED, "detail": detail}
    detail = f"local kappa up to {kappa.max():.4g}, but no pair of points was pushed apart"
    return common | {"verdict": Verdict.INCONCLUSIVE, "detail": detail}


def _convergence(f: StepFacts, measured) -> dict[str, Any]:
    run = measured.picard
    codes = np.asarray(run.exit)
    n = len(codes)
    solved = _solved(codes)
    common = {"question": "convergence", "theorem": "T3", "value": solved.mean(), "evidence": Evidence.SAMPLED}
    most = int(np.max(np.asarray(run.iterations)))
    if solved.all():
        detail = f"plain iteration from y_s arrives for {n} of {n} images in at most {most} iterations"
        return common | {"verdict": Verdict.SUPPORTED, "detail": detail}
    residual, rate = np.asarray(run.residual, np.float64), np.asarray(run.rate, np.float64)
    # A residual that still falls may arrive later: only one that does not fall refutes.
    stuck = ~solved & ~((codes == Exit.STEP_LIMIT) & (rate < 0.999))
    worst = int(np.argmax(np.where(stuck if stuck.any() else ~solved, np.nan_to_num(residual, nan=np.inf), -1)))
    code = Exit(int(codes[worst]))
    detail = (
        f"plain iteration from y_s arrives for {int(solved.sum())} of {n} images; image {worst}: {code.name} with residual "
        f"{residual[worst]:.2e} after {int(np.asarray(run.iterations)[worst])} iterations"
    )
    witness = {"image": worst, "exit": code.name, "residual": finite(residual[worst]), "rate": finite(rate[worst])}
    verdict = Verdict.REFUTED if stuck.any() else Verdict.INCONCLUSIVE
    return common | {"verdict": verdict, "detail": detail, "witness": witness}


def _error(f: StepFacts, inversion, i: int, measured) -> dict[str, Any]:
    solved = _solved(np.asarray(inversion.exit)[:, i])
    residual = float(np.max(np.asarray(inversion.residual, np.float64)[:, i]))
    m, evidence, source = f.modulus, Evidence.ASSUMED, "declared"
    if m <= 0:
        m, evidence, source = float(np.min(modulus(f, measured))), Evidence.SAMPLED, "smallest sampled"
    common = {"question": "error", "theorem": "T8", "evidence": evidence}
    if not m > 0:
        detail = f"residual at most {residual:.2e}, but no positive modulus is known, so it implies no error"
        return common | {"verdict": Verdict.INCONCLUSIVE, "value": None, "detail": detail}
    detail = f"residual {residual:.2e} over the {source} modulus {m:.3g}, rounding not counted"
    if solved.all():
        return common | {"verdict": Verdict.SUPPORTED, "value": residual / m, "detail": detail}
    detail = f"{int((~solved).sum())} images were not solved; {detail}"
    return common | {"verdict": Verdict.INCONCLUSIVE, "value": residual / m, "detail": detail}


def _guidance_limit(f: StepFacts, measured) -> dict[str, Any]:
    """T11: inversion stays unique while w < 1 + rho/((1 - rho)·Lambda), if J_c >= 0 and J_0 <= Lambda."""
    top = np.asarray(measured.null.high, np.float64)
    low = np.asarray(measured.conditional.low, np.float64)
    common = {"question": "guidance-limit", "theorem": "T11", "evidence": Evidence.SAMPLED}
    if not (np.isfinite(top).all() and np.isfinite(low).all()):
        return common | {
            "verdict": Verdict.INCONCLUSIVE,
            "value": None,
            "detail": "the Jacobian is not finite at some point",
        }
    largest = max(float(top.max()), 0.0)
    limit = 1 + f.rho / ((1 - f.rho) * largest) if largest > 0 else math.inf
    worst = int(np.argmin(low))
    if low[worst] < -1e-6 * max(largest, 1.0):
        detail = f"T11 needs J_c >= 0, but its symmetric part has eigenvalue {low[worst]:.3g}: no guidance is known to be safe"
        witness = {
            "image": int(measured.image[worst]),
            "eigenvalue": finite(low[worst]),
            "point": _vector(measured.y[worst]),
            "direction": _vector(measured.conditional.low_vector[worst]),
        }
        return common | {"verdict": Verdict.INCONCLUSIVE, "value": None, "detail": detail, "witness": witness}
    detail = f"safe up to w = {limit:.4g} with Lambda = {largest:.4g}, the largest of {top.size} points"
    verdict = Verdict.SUPPORTED if f.guidance < limit else Verdict.INCONCLUSIVE
    if verdict is Verdict.INCONCLUSIVE:
        detail += f"; w = {f.guidance:g} is beyond it"
    return common | {"verdict": verdict, "value": limit, "detail": detail}
