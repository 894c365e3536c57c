"""The intra-path stopping rule of earlier work: stop when |f(z) - z| is small. Sound with the factor 1/m (T8)."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import Claim, Row, percent
from proofs_checks.claims.measure import everywhere

statement = Claim(
    name="intra-path rule",
    who="AIDI (2309.04907), FPI (2312.12540)",
    text="when |f(z) - z| is small, z is near the fixed point",
    terms="|y - y*| <= r/m with r = |y_s - F(y)|",
    reason="T8: sound with the factor 1/m as soon as m > 0 is known, so for every exact or monotone denoiser (m >= rho)",
    order=7,
)


def instance() -> Instance:
    """Two points on the line, a solution and a state near it."""
    return Instance({"points": [0, 1], "high": 2, "low": 1, "at": 4, "other": 6})


def broken_instance() -> None:
    """None for an exact denoiser (T8)."""
    return


def cases():
    """Points on the line, the solution and another state."""
    return problems.strategy(extra=("at", "other"))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """A known solution y* and another state y: |y - y*| against r/rho."""
    p = problems.problem(instance)
    star, y = p.target, np.full(1, instance.data["other"] / problems.UNIT)
    residual, error = np.linalg.norm(p.step(star) - p.step(y)), np.linalg.norm(y - star)
    detail = f"error {error:.3g}, r/rho {residual / p.rho:.3g}"
    return conclude({}, error <= residual / p.rho + 1e-12, "sampled", 1, detail)


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """The largest error over residual along plain iteration, against the 1/m that is known; residual small, error not."""
    found = []
    for label, name, _, m in everywhere(images, seed):
        known = name != "digits-plain"
        ratio = m.error / np.maximum(m.intra, 1e-9)
        ratio = np.where(m.intra > 1e-9, ratio, 0.0)  # below that both are rounding (T16)
        worst = float((ratio * m.rho[:, None, None]).max())
        lost = float(((m.intra[..., -1] < 1e-6) & (m.error[..., -1] > 1e-3)).mean())
        detail = f"error over residual at most {ratio.max():.3g}, {worst:.3g} of 1/rho; small residual far from the solution: "
        detail += percent(lost)
        verdict = "fails" if lost > 0 or (known and worst > 1 + 1e-6) else "holds" if known else "undecided"
        detail += "" if known else " (no modulus is known for all y, so no rule)"
        found.append(Row(label, verdict, detail, {"ratio": float(ratio.max()), "of bound": worst, "lost": lost}))
    return found
