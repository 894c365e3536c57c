"""The paper's Eq. 11: |f(a) - f(b)| = c_t·|d eps| <= sqrt(1 - abar_t)·|d eps|. Holds, and gives away a factor 1/(1 - rho)."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import PAPER, Claim, Row, quantiles
from proofs_checks.claims.measure import STEPS

statement = Claim(
    name="Eq. 11",
    who=PAPER,
    text="|f(a) - f(b)| = c_t·|eps(a) - eps(b)| <= sqrt(1 - abar_t)·|eps(a) - eps(b)|",
    terms="0 <= c_t = sqrt(1 - abar_t)·(1 - rho) <= sqrt(1 - abar_t)",
    reason="E2: c_t/sqrt(1 - abar_t) = 1 - rho; the bound drops this factor, which is what makes short steps contract (T3)",
    order=2,
)


def instance() -> Instance:
    """Two points on the line and two states."""
    return Instance({"points": [0, 1], "high": 2, "low": 1, "at": 3, "other": 0})


def broken_instance() -> None:
    """None: it is an inequality between two numbers, proved by E2."""
    return


def cases():
    """Problems on the line with two states."""
    return problems.strategy(extra=("at", "other"))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Both sides at the two states."""
    p = problems.problem(instance)
    a, b = p.target, np.full(1, instance.data["other"] / problems.UNIT)
    change = np.linalg.norm((a - p.denoise(a)) - (b - p.denoise(b))) / p.sigma
    moved = float(np.sqrt(p.abar) * np.linalg.norm(p.move(a) - p.move(b)))
    c_t = np.sqrt(1 - p.abar) * (1 - p.rho)
    holds = abs(moved - c_t * change) <= 1e-12 and moved <= np.sqrt(1 - p.abar) * change + 1e-12
    return conclude({}, holds, "sampled", 1, f"|df| = {moved:.4g}, bound {np.sqrt(1 - p.abar) * change:.4g}")


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """The factor that the bound gives away on the paper's 50 steps; it does not depend on the model."""
    from fpjax import process

    loose = quantiles(1 / (1 - process.ddim(STEPS).rho))
    detail = (
        f"the bound is larger than c_t by a factor of {loose['50 %']:.3g} in the median, up to {loose['largest']:.3g}"
    )
    return [Row("any network", "holds", detail, loose)]
