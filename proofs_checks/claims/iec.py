"""IEC's damping: (1 - l)·I + l·B·J has norm below 1 for l in 0.1...0.7 at all t."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import Claim, Row, percent
from proofs_checks.claims.measure import everywhere

statement = Claim(
    name="IEC's damping range",
    who="IEC (2511.06250)",
    text="the damped iteration's (1 - l)·I + l·B·J has norm below 1 for every l in 0.1...0.7, at all t",
    terms="||I - omega·F'|| < 1 for every omega = l in [0.1, 0.7], F' = rho·I + (1 - rho)·J_D",
    reason="T5, T6: for symmetric F' it is 0 < omega·lambda < 2 for each eigenvalue, so it fails beyond lambda_max = 2/0.7; "
    "the range that always works ends at 2/lambda_max, not at a number",
    order=12,
)

RANGE = tuple(round(0.1 * i, 1) for i in range(1, 8))


def instance() -> Instance:
    """Two points close to each other for this noise."""
    return Instance({"points": [0, 1], "high": 20, "low": 10, "at": 3})


def broken_instance() -> Instance:
    """The smallest: two points and little noise."""
    return Instance({"points": [-1, 1], "at": 0, "high": 2, "low": 1}, violates="claim")


def cases():
    """Two or three points on the line and a state."""
    return problems.strategy(fewest=2, extra=("at",))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """The largest norm over the range, at one state."""
    p = problems.problem(instance)
    slope = p.rho * np.eye(p.target.size) + (1 - p.rho) * p.slope(p.target)
    norms = {l: float(np.linalg.norm(np.eye(p.target.size) - l * slope, 2)) for l in RANGE}
    bad = [l for l, norm in norms.items() if norm >= 1]
    detail = f"norm at most {max(norms.values()):.4g}; " + (
        f"not below 1 from l = {min(bad)}" if bad else "below 1 for all l"
    )
    return conclude({}, not bad, "sampled", 1, detail, {str(l): v for l, v in norms.items()})


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """The share of (image, step) with a norm below 1 for every l of the range, and for its ends."""
    found = []
    for label, _, _, m in everywhere(images, seed):
        eye, rho = np.eye(m.jacobian.shape[-1]), m.rho[:, None, None, None]
        slope = rho * eye + (1 - rho) * m.jacobian
        below = {l: np.linalg.norm(eye - l * slope, 2, axis=(2, 3)) < 1 for l in (RANGE[0], RANGE[-1])}
        # The norm is convex in l, and 1 at l = 0, so it is below 1 on the whole range if it is at the end of it.
        share = float(below[RANGE[-1]].mean())
        detail = f"for every l at {percent(share)} of the (image, step); for l = 0.1 at {percent(float(below[RANGE[0]].mean()))}"
        figures = {"share": share, "0.1": float(below[RANGE[0]].mean())}
        found.append(Row(label, "holds" if share == 1 else "fails", detail, figures))
    return found
