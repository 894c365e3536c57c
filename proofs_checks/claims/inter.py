"""The paper's stopping rule: stop when the inter-path loss |f(z) - f(zhat)| has converged. Two paths may agree and be wrong."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import PAPER, Claim, Row, percent
from proofs_checks.claims.measure import everywhere

statement = Claim(
    name="inter-path rule",
    who=PAPER,
    text="when |f(z) - f(zhat)| has converged to 0, zhat a second path from z + n, z is the fixed point",
    terms="G^k(y) - G^k(yhat) -> 0 implies G^k(y) -> y*",
    reason="T7: true under contraction, where the intra-path loss says the same earlier; without it two paths can fall into one "
    "cycle in step. Agreement proves neither a solution nor uniqueness; disagreement refutes contraction",
    order=8,
)

COUNT, AGREE, APART = 200, 1e-6, 1e-3


def instance() -> Instance:
    """Two points close to each other for this noise: both paths end in the solution."""
    return Instance({"points": [0, 1], "high": 20, "low": 10, "at": 3, "other": 5})


def broken_instance() -> Instance:
    """The smallest step at which two different starts end in the same cycle, in step, away from the one solution."""
    return Instance({"points": [-1, 1], "at": 1, "other": 1, "high": 2, "low": 1}, violates="claim")


def cases():
    """Two or three points on the line, y_s, and how far off the second path starts."""
    return problems.strategy(fewest=2, extra=("at", "other"))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Both paths after COUNT iterations; the same start twice says nothing."""
    p, off = problems.problem(instance), instance.data["other"] / problems.UNIT
    y, other = p.iterate(p.target, COUNT), p.iterate(p.target + off, COUNT)
    inter, intra = float(np.linalg.norm(p.move(y) - p.move(other))), p.residual(y)
    fooled = off != 0 and inter < AGREE and intra > APART
    detail = f"after {COUNT} iterations the inter-path loss is {inter:.1e} and the intra-path loss {intra:.1e}"
    return conclude({}, not fooled, "sampled", 1, detail, {"inter": inter, "intra": intra})


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """How often the paths agree away from the solution, and how much later the rule stops where both stop."""
    found = []
    for label, _, _, m in everywhere(images, seed):
        fooled = float(((m.inter[..., -1] < AGREE) & (m.error[..., -1] > APART)).mean())
        missed = float(((m.inter[..., -1] > APART) & (m.error[..., -1] < AGREE)).mean())
        stops = [_first(loss) for loss in (m.inter, m.intra)]
        both = np.isfinite(stops[0]) & np.isfinite(stops[1])
        later = float(np.median(stops[0][both] - stops[1][both]))
        detail = (
            f"paths agree away from the solution at {percent(fooled)} of the (image, step), solved but not agreed at "
            f"{percent(missed)}; the inter-path loss passes {AGREE:g} a median of {later:g} iterations after the intra-path loss"
        )
        figures = {"fooled": fooled, "missed": missed, "later": later}
        found.append(Row(label, "fails" if fooled > 0 else "holds", detail, figures))
    return found


def _first(loss) -> np.ndarray:
    """The iteration at which a loss is first below AGREE, infinite if never."""
    below = loss < AGREE
    return np.where(below.any(axis=-1), np.argmax(below, axis=-1).astype(float), np.inf)
