"""Draws docs/figures/stability.png: where exactly invertible samplers are stable on the linear test problem.

Run: python docs/figures/stability.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from fpjax.exact_inverses import amplification

PANELS = (
    ("euler", None, "E1 (Euler)"),
    ("heun", None, "Heun"),
    ("edict", None, "EDICT, p = 0.93"),
    ("bdia", 0.9, "BDIA, γ = 0.9"),
    ("bdia", None, "BDIA, γ = 1, and O-BELM"),
)
DOWN, UP = "#3b6fb6", "#c4622d"


def radius(method, option, mu, up: bool) -> float:
    """The largest |eigenvalue| of a step; a one-step sampler's inverse is E2, whose only mode is 1/F'."""
    values = np.abs(np.linalg.eigvals(amplification(method, mu, option)))
    if method in ("euler", "heun"):
        return 1 / max(values.max(), 1e-300) if up else values.max()
    return 1 / values.min() if up else values.max()


def main() -> None:
    x, y = np.linspace(-2.6, 0.6, 161), np.linspace(-1.9, 1.9, 161)
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.1), sharey=True, layout="constrained")
    for axis, (method, option, title) in zip(axes, PANELS, strict=True):
        for up, colour in ((False, DOWN), (True, UP)):
            values = np.asarray([[radius(method, option, a + 1j * b, up) for a in x] for b in y])
            axis.contourf(x, y, values, levels=[0, 1], colors=[colour], alpha=0.35)
        if title.startswith("BDIA, γ = 1,"):
            axis.plot([0, 0], [-1, 1], color="black", linewidth=2.5)
        axis.axhline(0, color="black", linewidth=0.5)
        axis.axvline(0, color="black", linewidth=0.5)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("Re μ")
    axes[0].set_ylabel("Im μ")
    handles = [plt.Rectangle((0, 0), 1, 1, color=c, alpha=0.35) for c in (DOWN, UP)]
    figure.legend(handles, ["sampling stable", "inversion stable"], loc="outside lower center", ncols=2, frameon=False)
    path = Path(__file__).with_name("stability.png")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(path.name)


if __name__ == "__main__":
    main()
