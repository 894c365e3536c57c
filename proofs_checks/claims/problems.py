"""Small exact problems in plain Python floats: a few points of the line or plane, and one step of their exact denoiser.

In this room: the step, its iterates, and hypothesis strategies of problems whose numbers are small integers, so that a
counterexample that was minimised can be read. A problem is a dict: ``points`` (integers, or pairs of them), ``high`` and
``low`` (sigma_t and sigma_s in tenths), and where it matters ``at`` (y_s in tenths) and ``other`` (a second start).
"""

import numpy as np

from proofs_checks.base import Instance

UNIT = 10


class Problem:
    """One step of an exact denoiser; equally likely points."""

    def __init__(self, data: dict):
        points = np.asarray(data["points"], float)
        self.points = points.reshape(len(points), -1)
        self.sigma, self.low = data["high"] / UNIT, data["low"] / UNIT
        self.rho = self.low / self.sigma
        self.target = np.broadcast_to(np.asarray(data.get("at", 0), float) / UNIT, self.points.shape[1:])
        self.abar = 1 / (1 + self.sigma**2)

    def weights(self, y) -> np.ndarray:
        """The posterior of the points."""
        logits = -((y[None, :] - self.points) ** 2).sum(axis=1) / (2 * self.sigma**2)
        w = np.exp(logits - logits.max())
        return w / w.sum()

    def denoise(self, y) -> np.ndarray:
        """D(y)."""
        return self.weights(y) @ self.points

    def slope(self, y) -> np.ndarray:
        """J_D(y) = Cov/sigma² (E3)."""
        w = self.weights(y)
        centred = self.points - w @ self.points
        return (centred.T * w) @ centred / self.sigma**2

    def step(self, y) -> np.ndarray:
        """F (E1)."""
        return self.rho * y + (1 - self.rho) * self.denoise(y)

    def move(self, y) -> np.ndarray:
        """G (E2)."""
        return self.target + (1 - self.rho) * (y - self.denoise(y))

    def iterate(self, y, count: int) -> np.ndarray:
        """``count`` plain iterations."""
        for _ in range(count):
            y = self.move(y)
        return y

    def residual(self, y) -> float:
        """|G(y) - y| = |y_s - F(y)|, the intra-path loss in y-coordinates."""
        return float(np.linalg.norm(self.move(y) - y))


def strategy(dimensions: int = 1, fewest: int = 1, extra=()):
    """Problems with 1 to 3 points, levels of at most 1, and the wanted extra whole numbers (in tenths, at most 10)."""
    from hypothesis import strategies as st

    number = st.integers(-3, 3)
    point = number if dimensions == 1 else st.tuples(*[number] * dimensions)
    levels = st.integers(2, 10).flatmap(lambda high: st.tuples(st.just(high), st.integers(1, high - 1)))
    parts = {
        "points": st.lists(point, min_size=fewest, max_size=3, unique=True),
        "levels": levels,
        **{name: st.integers(-10, 10) for name in extra},
    }

    def flat(found: dict) -> dict:
        high, low = found.pop("levels")
        return {**found, "high": high, "low": low}

    return st.fixed_dictionaries(parts).map(flat)


def problem(instance: Instance) -> Problem:
    """The problem of an instance."""
    return Problem(instance.data)
