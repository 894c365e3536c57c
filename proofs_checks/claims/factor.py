"""The paper, Eq. 12-14: f contracts with the factor 1 - k·sqrt(abar_t), 0 < k < 1. How often that is so, with quantiles."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import PAPER, Claim, Row, percent, quantiles
from proofs_checks.claims.measure import everywhere

statement = Claim(
    name="Eq. 12–14: the factor",
    who=PAPER,
    text="|f(a) - f(b)| <= (1 - k·sqrt(abar_t))·|a - b| with 0 < k < 1",
    terms="the Lipschitz ratio L is at most 1 - k·sqrt(abar_t); some k in (0, 1) will do if and only if L < 1, and then every "
    "k <= (1 - L)/sqrt(abar_t)",
    reason="T4: L is (1 - rho)·|1 - J|, which is above 1 as soon as J leaves T3's window, and then no k in (0, 1) will do",
    order=5,
)

CHOICES = (0.1, 0.5, 0.9)


def instance() -> Instance:
    """Two points close to each other for this noise."""
    return Instance({"points": [0, 1], "high": 20, "low": 10, "at": 0, "other": 10})


def broken_instance() -> Instance:
    """The smallest: two points, states between them, little noise."""
    return Instance({"points": [-1, 1], "at": 0, "other": 1, "high": 2, "low": 1}, violates="claim")


def cases():
    """Two or three points on the line, two states."""
    return problems.strategy(fewest=2, extra=("at", "other"))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """The ratio of the two states; 1 or more leaves no k."""
    p = problems.problem(instance)
    a, b = p.target, np.full(1, instance.data["other"] / problems.UNIT)
    gap = float(np.linalg.norm(a - b))
    ratio = float(np.linalg.norm(p.move(a) - p.move(b))) / gap if gap > 0 else 0.0
    return conclude({}, ratio < 1, "sampled", 1, f"|f(a) - f(b)|/|a - b| = {ratio:.4g}", {"ratio": ratio})


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """Shares of the (image, step) at which the factor bounds the ratio: for some k, for chosen k, for the pair's own k.

    The ratio is taken at the solution (the norm of f's Jacobian there) and between the two states z and z + n.
    """
    found = []
    for label, _, _, m in everywhere(images, seed):
        root, own = m.scale[:, None], m.image / m.gap
        local = m.kappa
        figures = {
            "share, at the solution": float((local < 1).mean()),
            "share, between states": float((m.ratio < 1).mean()),
            "share, own k in (0, 1)": float(((own > 0) & (own < 1) & (m.ratio <= 1 - own * root)).mean()),
            **{f"share, k = {k}": float((local <= 1 - k * root).mean()) for k in CHOICES},
            **{f"ratio {name}": value for name, value in quantiles(local).items()},
            **{f"largest k {name}": value for name, value in quantiles((1 - local) / root).items()},
        }
        share = figures["share, at the solution"]
        each = ", ".join(f"{percent(figures[f'share, k = {k}'])} for k = {k}" for k in CHOICES)
        detail = (
            f"some k in (0, 1) bounds the ratio at {percent(share)} of the (image, step); {each}; the pair's own k in (0, 1) "
            f"at {percent(figures['share, own k in (0, 1)'])}; ratio: median {figures['ratio 50 %']:.3g}, "
            f"95 % {figures['ratio 95 %']:.3g}, largest {figures['ratio largest']:.3g}"
        )
        found.append(Row(label, "holds" if share == 1 else "fails", detail, figures))
    return found
