"""ReNoise's local condition: the scaled Jacobian of the noise prediction has norm below 1."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import Claim, Row, percent
from proofs_checks.claims.measure import everywhere

statement = Claim(
    name="ReNoise's condition",
    who="ReNoise (2403.14602)",
    text="the scaled ||d eps/dz|| is below 1 at every step, and largest at small t",
    terms="||J_G|| = c_t·||d eps/dz|| = (1 - rho)·||I - J_D|| < 1 at the solution",
    reason="T3: this is plain iteration's local factor. For an exact denoiser it is a window for the posterior variance",
    order=11,
)


def instance() -> Instance:
    """Two points close to each other for this noise."""
    return Instance({"points": [0, 1], "high": 20, "low": 10, "at": 3})


def broken_instance() -> Instance:
    """The smallest: two points and little noise."""
    return Instance({"points": [-1, 1], "at": 0, "high": 2, "low": 1}, violates="claim")


def cases():
    """Two or three points on the line and the solution."""
    return problems.strategy(fewest=2, extra=("at",))


def local_factor(p: problems.Problem, y) -> float:
    """||J_G|| = (1 - rho)·||I - J_D|| at y."""
    return float((1 - p.rho) * np.linalg.norm(np.eye(y.size) - p.slope(y), 2))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """The norm at a state, which is the solution for its own y_s."""
    p = problems.problem(instance)
    norm = local_factor(p, p.target)
    return conclude({}, norm < 1, "sampled", 1, f"norm {norm:.4g}", {"norm": norm})


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """The share of (image, step) with a norm below 1, and the step with the largest median."""
    found = []
    for label, _, steps, m in everywhere(images, seed):
        share, top = float((m.kappa < 1).mean()), int(np.argmax(np.median(m.kappa, axis=1))) + 1
        detail = (
            f"below 1 at {percent(share)} of the (image, step), largest {m.kappa.max():.3g}; "
            f"the median is largest at step {top} of {steps}, {'' if top <= steps / 4 else 'not '}at small t"
        )
        figures = {"share": share, "largest": float(m.kappa.max()), "step": float(top)}
        found.append(Row(label, "holds" if share == 1 and top <= steps / 4 else "fails", detail, figures))
    return found
