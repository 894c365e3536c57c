"""The paper, Eq. 12-14, second assumption: 0 < k < 1, different starts lead to similar clean images."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import PAPER, Claim, Row, percent, quantiles
from proofs_checks.claims.measure import MODELS, measure

statement = Claim(
    name="Eq. 12–14: 0 < k < 1",
    who=PAPER,
    text="the predicted clean images differ by less than the states: 0 < k < 1",
    terms="k = |D(a) - D(b)|/|z_a - z_b| lies in (0, 1); at a point, the eigenvalues of sqrt(abar)/(1 - abar)·Cov(x0 | z) do",
    reason="T4, E3: k is as large as the posterior is wide against the noise; small steps near the data have k far above 1",
    order=4,
)


def instance() -> Instance:
    """Two points close to each other for this noise."""
    return Instance({"points": [0, 1], "high": 20, "low": 10, "at": 0, "other": 10})


def broken_instance() -> Instance:
    """The smallest: two points, states between them, little noise."""
    return Instance({"points": [-1, 1], "at": 0, "other": 1, "high": 2, "low": 1}, violates="claim")


def cases():
    """Two or three points on the line, two states."""
    return problems.strategy(fewest=2, extra=("at", "other"))


def measured_k(p: problems.Problem, a, b) -> float:
    """|D(a) - D(b)|/|z_a - z_b|, 0 for equal states."""
    gap = np.sqrt(p.abar) * np.linalg.norm(a - b)
    return float(np.linalg.norm(p.denoise(a) - p.denoise(b)) / gap) if gap > 0 else 0.0


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """k from the two states; only k >= 1 counts against the claim, since 0 may be rounding."""
    p = problems.problem(instance)
    k = measured_k(p, p.target, np.full(1, instance.data["other"] / problems.UNIT))
    return conclude({}, k < 1, "sampled", 1, f"k = {k:.4g}", {"k": k})


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """k at every (image, step) for states that differ by n ~ N(0, I) in z, and the largest at a point, ||dD/dz||."""
    found = []
    for name in MODELS:
        m = measure(name, images, seed)
        k = m.image / m.gap
        local = np.linalg.norm(m.jacobian, 2, axis=(2, 3)) / m.scale[:, None]
        share, near = float(((k > 0) & (k < 1)).mean()), float((local < 1).mean())
        seen = quantiles(k)
        detail = (
            f"between the two states at {percent(share)} of the (image, step), k up to {seen['largest']:.3g}; "
            f"at the solution itself at {percent(near)}, k up to {local.max():.3g}"
        )
        found.append(
            Row(name, "holds" if share == near == 1 else "fails", detail, {"share": share, "at": near, **seen})
        )
    return found
