"""Draws docs/figures/readme.png: two networks of equal size and loss, one invertible by construction.

Run: python docs/figures/readme.py
"""

from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import fpjax

NAMES = {"digits-plain": ("#c4622d", "ordinary"), "digits-monotone": ("#3b6fb6", "invertible by construction")}
STEPS, SHOWN = 10, 6


def main() -> None:
    x, c = fpjax.samples("digits", 16)
    reports = {
        name: fpjax.audit(fpjax.load(name), fpjax.process.ddim(STEPS), images=x.astype(np.float64), condition=c)
        for name in NAMES
    }
    figure = plt.figure(figsize=(9.6, 3.3), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
    axes = left.subplots()
    for name, (colour, label) in NAMES.items():
        found = [r for r in reports[name].table if r["question"] == "uniqueness"]
        axes.plot([r["step"] for r in found], [r["value"] for r in found], "o-", color=colour, label=label)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axhspan(-1, 0, color="#c4622d", alpha=0.08)
    axes.set(xlabel="inversion step (1 = cleanest)", ylabel="uniqueness modulus m", ylim=(-1, 1))
    axes.text(STEPS, -0.9, "m ≤ 0: uniqueness is open (T2)", ha="right", fontsize=9)
    axes.set_title(f"{STEPS}-step inversion of 16 real digits", fontsize=10)
    axes.legend(frameon=False, fontsize=9)
    lines = [("source", reports["digits-plain"].images[0]["source"])]
    lines += [(label, reports[name].images[0]["again"]) for name, (_, label) in reversed(NAMES.items())]
    grid = right.subplots(len(lines), SHOWN)
    for row, (label, images) in zip(grid, lines, strict=True):
        for cell, image in zip(row, images, strict=False):
            cell.imshow(image, cmap="gray", vmin=-1, vmax=1)
            cell.axis("off")
        row[0].set_title(label, fontsize=9, loc="left")
    right.suptitle("generate(invert(x))", fontsize=10)
    path = Path(__file__).with_name("readme.png")
    figure.savefig(path, dpi=110, metadata={"Software": None})
    for name, report in reports.items():
        print(name, report.round_trip[0])
    print(path.name)


if __name__ == "__main__":
    main()
