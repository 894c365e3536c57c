"""Gradient descent for the first step only, fixed-point iteration after it: where the steps really fail."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import Claim, Row, percent
from proofs_checks.claims.measure import DESCENT, descent, everywhere

statement = Claim(
    name="descent for the first step only",
    who="2606.03111",
    text="plain iteration fails in the first inversion step and works in all others, so descent is needed in the first alone",
    terms="y <- G(y) converges from y_s at every step but the first",
    reason="T3, T10: whether a step fails is decided by T3's window at its noise level and by rho, not by its number; the first "
    "step is special only where rho = 0",
    order=15,
)

COUNT = 200


def instance() -> Instance:
    """Two points, levels far above their distance."""
    return Instance({"points": [0, 1], "levels": [10, 15, 20], "at": 3})


def broken_instance() -> Instance:
    """The smallest two steps of which the first works and the second does not."""
    return Instance({"points": [-3, 1], "levels": [1, 2, 3], "at": 1}, violates="claim")


def cases():
    """Two or three points on the line, three increasing levels and an image."""
    from hypothesis import strategies as st

    levels = st.lists(st.integers(1, 8), min_size=3, max_size=3, unique=True).map(sorted)
    points = st.lists(st.integers(-3, 3), min_size=2, max_size=3, unique=True)
    return st.fixed_dictionaries({"points": points, "levels": levels, "at": st.integers(-10, 10)})


def root(p: problems.Problem, target) -> np.ndarray:
    """The one solution of F(y) = target on the line, by bisection (F grows at least as fast as rho·y)."""
    reach = (abs(float(target[0])) + float(np.abs(p.points).max())) / p.rho
    low, high = -reach, reach
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if p.step(np.asarray([middle]))[0] < target[0] else (low, middle)
    return np.asarray([(low + high) / 2])


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Both steps in turn, the second from the exact solution of the first; fails only if the first works and the second not."""
    data, residuals = instance.data, []
    target = np.asarray([data["at"] / problems.UNIT])
    for low, high in (data["levels"][:2], data["levels"][1:]):
        p = problems.Problem({"points": data["points"], "low": low, "high": high})
        p.target = target
        residuals.append(p.residual(p.iterate(target, COUNT)))
        target = root(p, target)
    fails = residuals[0] < 1e-6 and residuals[1] > 1e-3
    return conclude({}, not fails, "sampled", 1, f"residuals {residuals[0]:.2g} and {residuals[1]:.2g}")


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """At which steps plain iteration fails, and how far descent gets in the first."""
    found = []
    for label, name, steps, m in everywhere(images, seed):
        fails = ~m.converged
        first, later = float(fails[0].mean()), float(fails[1:].mean())
        where = np.flatnonzero(fails.any(axis=1)) + 1
        figures = {"first": first, "later": later}
        if len(where) == 0:
            detail = "plain iteration fails at no step, so descent is not needed in the first either"
        else:
            detail = f"plain iteration fails for {percent(first)} of the images in the first step and at {percent(later)} of "
            detail += f"the later (image, step), the last at step {where[-1]}"
        if first > 0:
            left = descent(name, images, seed, steps)[fails[0]]
            figures["descent"] = float((left < 1e-3).mean())
            detail += (
                f"; {DESCENT} steps of descent bring the residual below a thousandth for {percent(figures['descent'])} of those "
                f"that fail in the first, median {np.median(left):.2g}"
            )
        verdict = "holds" if first > 0 and later == 0 else "fails"
        found.append(Row(label, verdict, detail, figures))
    return found
