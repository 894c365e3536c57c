"""Draws the figures for slides, each as SVG and PNG, into docs/figures/slides: python docs/figures/slides.py

Everything is computed by fpjax on exact denoisers; nothing here is drawn by hand but the words.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import fpjax
from fpjax import step

BLUE, ORANGE, GREEN, INK = "#3b6fb6", "#c4622d", "#1d6b3f", "#1c2430"
OUT = Path(__file__).with_name("slides")
WIDE = (9.6, 5.4)  # 16:9
plt.rcParams |= {"font.size": 14, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "fpjax"}
TWO = fpjax.models.exact.empirical(np.array([[-1.0], [1.0]])).astype(jnp.float64)
POINTS = np.array([[-1.0, -0.5], [1.0, -0.5], [0.0, 1.0], [0.0, -0.9]])


def problem(den, sigma, rho, target, guidance=None) -> step.Step:
    numbers = [jnp.asarray(v, jnp.float64) for v in (sigma, rho)]
    w = None if guidance is None else jnp.asarray(guidance)
    return step.Step(den, *numbers, jnp.atleast_1d(jnp.asarray(target, jnp.float64)), jnp.int32(0), w)


g_of = jax.jit(jax.vmap(step.G, (0, None)))


@jax.jit
def iterated(starts, omega, p):
    """Residuals after 300 relaxed iterations from many starts."""

    def one(y0):
        y = jax.lax.fori_loop(0, 300, lambda _, y: y + omega * (step.G(y, p) - y), y0)
        return jnp.linalg.norm(step.G(y, p) - y)

    return jax.vmap(one)(starts)


@jax.jit
def newton(starts, p):
    """Where Newton's method with halving ends from many starts, and the residuals there."""

    def one(y0):
        def move(_, y):
            d = jnp.linalg.solve(jax.jacfwd(step.F)(y, p), step.F(y, p) - p.target)
            trials = y - 0.5 ** jnp.arange(10.0)[:, None] * d
            return trials[jnp.argmin(jax.vmap(lambda t: jnp.linalg.norm(step.F(t, p) - p.target))(trials))]

        y = jax.lax.fori_loop(0, 60, move, y0)
        return y, jnp.linalg.norm(step.F(y, p) - p.target)

    return jax.vmap(one)(starts)


def cobwebs():
    figure, panels = plt.subplots(1, 2, figsize=WIDE, layout="constrained")
    grid = np.linspace(-2, 2, 401)
    for axes, sigma, words in zip(panels, (0.8, 0.45), ("winds in", "winds out"), strict=True):
        p = problem(TWO, sigma, 0.3, 0.1)
        axes.plot(grid, g_of(grid[:, None], p)[:, 0], color=BLUE, linewidth=2.5)
        axes.plot(grid, grid, color="grey", linewidth=1)
        y = [1.2]
        for _ in range(30):
            y.append(float(g_of(jnp.array([[y[-1]]]), p)[0, 0]))
        axes.plot(np.repeat(y, 2)[:-1], np.repeat(y, 2)[1:], color=ORANGE, linewidth=1.2)
        axes.set(title=f"σ = {sigma}: {words}", xlabel="y", ylim=(-2, 2))
    panels[0].set_ylabel("G(y)")
    figure.suptitle("One fixed point each; iteration finds only one of them")
    return figure


def window():
    figure, axes = plt.subplots(figsize=WIDE, layout="constrained")
    rho, values = 0.4, np.linspace(-1.5, 4, 300)
    low, high = -rho / (1 - rho), (2 - rho) / (1 - rho)
    axes.axvspan(low, high, color="#dff2e6")
    axes.plot(values, (1 - rho) * abs(1 - values), color=ORANGE, linewidth=2.5, label="κ (iteration: below 1)")
    axes.plot(values, rho + (1 - rho) * values, color=BLUE, linewidth=2.5, label="m (uniqueness: above 0)")
    for height in (0, 1):
        axes.axhline(height, color="grey", linewidth=1)
    axes.text(low, -0.85, " T2's edge:\n uniqueness ends", color=INK)
    axes.text(high, -0.85, " T3's edge:\n only iteration ends", color=INK)
    axes.set(xlabel="eigenvalue of J", ylim=(-1, 3), title=f"T3's window, ρ = {rho}")
    axes.legend(frameon=False, loc="upper left")
    return figure


def questions():
    """The three questions for the data ±1 against the noise level: where each condition holds."""
    figure, axes = plt.subplots(figsize=WIDE, layout="constrained")
    sigmas, rho = np.geomspace(0.1, 3, 400), 0.3
    top = np.array([float(TWO.facts.lipschitz(s)) for s in sigmas])  # J(0) attains it
    rows = {
        "exists (T1: ρ > 0, D bounded)": np.full(400, rho > 0),
        "unique (T2: m ≥ ρ > 0)": np.full(400, rho > 0),
        "plain iteration arrives (T3: κ < 1)": (1 - rho) * np.maximum(1, top - 1) < 1,
    }
    for i, (name, holds) in enumerate(rows.items()):
        axes.fill_between(sigmas, 2 - i + 0.1, 2 - i + 0.9, where=holds, color="#a8d5ba", step="mid")
        axes.fill_between(sigmas, 2 - i + 0.1, 2 - i + 0.9, where=~holds, color="#f0b8a8", step="mid")
        axes.text(0.105, 2 - i + 0.5, name, va="center", color=INK)
    edge = sigmas[rows["plain iteration arrives (T3: κ < 1)"]].min()
    axes.axvline(edge, color=INK, linewidth=1)
    axes.set(xscale="log", yticks=[], xlabel="noise level σ", title=f"Three questions about data ±1, ρ = {rho}")
    axes.text(edge, -0.12, f"σ = {edge:.2f}", ha="center", va="top")
    axes.set_ylim(-0.3, 3)
    return figure


def basins():
    den = fpjax.models.exact.mixture(np.array([[-1.0, -0.6], [1.0, -0.6], [0.0, 1.1]]), 0.1).astype(jnp.float64)
    p, n = problem(den, 0.38, 0.59, [0.66, -0.04]), 201
    plane = np.stack(np.meshgrid(*2 * [np.linspace(-2, 2, n)]), -1).reshape(-1, 2)
    figure, panels = plt.subplots(1, 2, figsize=WIDE, layout="constrained")
    for axes, omega, name in zip(panels, (1.0, 0.6), ("plain", "relaxed, ω = 0.6"), strict=True):
        arrived = (iterated(plane, omega, p) < 1e-8).reshape(n, n)
        axes.imshow(arrived, origin="lower", extent=(-2, 2, -2, 2), cmap="Blues", vmin=-0.3, vmax=1.4)
        axes.plot(*np.asarray(den.params["means"]).T, "o", color=ORANGE, markersize=9)
        axes.set(title=f"{name}: {float(arrived.mean()):.0%} of starts arrive")
    return figure


def guidance():
    free = fpjax.models.exact.mixture(POINTS, 0.18)
    logits = np.stack([[0.0, 0.0, -np.inf, -np.inf], np.zeros(4)])
    den = dataclasses.replace(free, params=free.params | {"logits": logits}, conditions=("c",)).astype(jnp.float64)
    sigma, rho, target = 0.61, 0.68, [-0.52, -0.45]
    starts = np.stack(np.meshgrid(*2 * [np.linspace(-4, 4, 11)]), -1).reshape(-1, 2)
    weights, branches = np.arange(1.0, 5.01, 0.1), []
    for w in weights:
        ends, residuals = newton(starts, problem(den, sigma, rho, target, w))
        found: list[np.ndarray] = []
        for y in np.asarray(ends)[np.asarray(residuals) < 1e-10]:
            if not any(np.linalg.norm(y - z) < 1e-5 for z in found):
                found.append(y)
        branches += [(w, y[0]) for y in found]
    limit = 1 + rho / ((1 - rho) * free.facts.lipschitz(sigma))
    figure, axes = plt.subplots(figsize=WIDE, layout="constrained")
    axes.axvspan(1, limit, color="#dff2e6")
    axes.plot(*np.array(branches).T, ".", color=BLUE)
    axes.set(xlabel="guidance w", ylabel="first coordinate of each solution", title="Guidance breaks uniqueness")
    axes.text(limit, axes.get_ylim()[1], f" T11: safe below w = {limit:.2f}", va="top", color=GREEN)
    return figure


def error():
    """z -> 0.999·z + 1 from 0: moves, T8's bound from them, and the error."""
    figure, axes = plt.subplots(figsize=WIDE, layout="constrained")
    k = np.arange(0, 12000)
    z = 1000 * (1 - 0.999**k)
    move = 0.001 * abs(1000 - z)
    axes.semilogy(k, move, color=ORANGE, linewidth=2.5, label="size of the move (the residual)")
    axes.semilogy(k, move / (1 - 0.999), color=BLUE, linewidth=2.5, label="residual/(1 − κ), T8")
    axes.semilogy(k, 1000 - z, "--", color=INK, label="error")
    axes.set(xlabel="iteration", title="A small step is not a small error: z → 0.999·z + 1")
    axes.legend(frameon=False)
    return figure


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for draw in (cobwebs, window, questions, basins, guidance, error):
        figure = draw()
        figure.savefig(OUT / f"{draw.__name__}.svg", metadata={"Date": None})
        figure.savefig(OUT / f"{draw.__name__}.png", dpi=100, metadata={"Software": None})
        plt.close(figure)
        print(f"slides/{draw.__name__}.svg", flush=True)


if __name__ == "__main__":
    main()
