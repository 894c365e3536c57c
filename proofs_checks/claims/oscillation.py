"""Oscillation instead of convergence in a one-jump rectified flow: true where T3's upper edge is passed, and cured by T5."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import Claim, Row, percent
from proofs_checks.claims.measure import MODELS, jump

statement = Claim(
    name="oscillation in one jump",
    who="Oscillation Inversion (2411.11135)",
    text="a fixed-point iteration over one large step of a rectified flow goes round between clusters instead of converging",
    terms="y <- G(y) from y_s ends in a cycle of period 2 or more, in one step from t = 0.01 to some larger t",
    reason="T3: some posterior variance is above sigma²·(2 - rho)/(1 - rho). The solution is unique all the same (T2) and a "
    "relaxed iteration finds it (T5): the clusters are no property of the solution",
    order=13,
    exists=True,
)

COUNT, PERIODS = 200, 8
TIMES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def instance() -> Instance:
    """The smallest that the search found: two points, a cycle of period 2 about the solution."""
    return Instance({"points": [-1, 1], "at": 1, "high": 2, "low": 1})


def broken_instance() -> None:
    """None: one example proves that it happens."""
    return


def cases():
    """Two or three points on the line and a y_s."""
    return problems.strategy(fewest=2, extra=("at",))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Plain iteration must cycle, T5's relaxed iteration find the solution, and J there lie beyond T3's upper edge."""
    p = problems.problem(instance)
    y = p.iterate(p.target, COUNT)
    intra, twice = p.residual(y), float(np.linalg.norm(p.iterate(y, 2) - y))
    detail = f"plain iteration: residual {intra:.3g}, after two more iterations back within {twice:.1e}"
    if not (intra > 1e-3 and twice < 1e-9):
        return conclude({}, False, "sampled", 1, detail)
    y, diameter = p.target, float(np.ptp(p.points))
    omega = 2 / (2 * p.rho + (1 - p.rho) * diameter**2 / (4 * p.sigma**2))  # T6, Lambda by Popoviciu's inequality
    for _ in range(1000):
        y = y + omega * (p.target - p.step(y))
    relaxed = p.residual(y)
    detail += f"; relaxed with omega = {omega:.3g}: residual {relaxed:.1e}"
    steepest, edge = float(np.linalg.eigvalsh(p.slope(y))[-1]), (2 - p.rho) / (1 - p.rho)
    detail += f"; J at that solution {steepest:.3g}, T3's upper edge {edge:.3g}"
    figures = {"intra": intra, "relaxed": relaxed, "J": steepest, "edge": edge}
    return conclude({}, relaxed < 1e-9 and steepest > edge, "sampled", 1, detail, figures)


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """What plain iteration does in one jump to several times, and whether T6's relaxation and auto find the solution."""
    found = []
    for name in MODELS:
        parts, figures = [], {}
        for time in TIMES:
            j = jump(name, time, images, seed, COUNT, PERIODS)
            shares = {"oscillates": j.oscillates.mean(), "converges": j.converges.mean()}
            figures |= {f"t = {time}, {k}": float(v) for k, v in shares.items()}
            if not j.converges.all():
                parts.append(f"t = {time}: {_told(j)}")
        seen = any(figures[f"t = {time}, oscillates"] > 0 for time in TIMES)
        verdict = "holds" if seen else "undecided" if parts else "fails"
        found.append(Row(name, verdict, "; ".join(parts) or "converges for every image and time", figures))
    return found


def _told(j) -> str:
    """One time where plain iteration does not converge for every image."""
    lost, known = ~j.converges, ~j.converges & j.solved
    parts = [
        f"{percent(j.oscillates.mean())} oscillate ({percent(j.periodic.mean())} with a period of at most {PERIODS})"
    ]
    if not j.oscillates[lost].all():
        parts.append(f"{percent((lost & ~j.oscillates).mean())} grow")
    parts.append(f"auto solves {percent(j.solved[lost].mean())} of these")
    if known.any():
        parts.append(f"{percent(j.beyond[known].mean())} of those solutions lie beyond T3's upper edge")
    if j.relaxed is not None:
        parts.append(f"T6's relaxed iteration converges for {percent(j.relaxed[lost].mean())} of these")
    return ", ".join(parts)
