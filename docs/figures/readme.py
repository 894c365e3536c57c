"""Draws docs/figures/readme.png, two networks of equal size and loss, one invertible by construction, and writes the
README's result.

Run: python docs/figures/readme.py
"""

import sys
from pathlib import Path

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

import fpjax
from fpjax import auditing, certify
from fpjax.models import store

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import page

NAMES = {"digits-plain": ("#c4622d", "ordinary"), "digits-monotone": ("#3b6fb6", "invertible by construction")}
STEPS, SHOWN = 10, 6


def result(reports: dict) -> str:
    """The README's result in words.

    Raises:
      AssertionError: if what the sentence says without a number is not so.
    """
    losses = [store.read_card(store.card_path(name))["training"]["held_out_loss"] for name in NAMES]
    worst = {
        name: min((r for r in rep.table if r["question"] == "uniqueness"), key=lambda r: r["value"])
        for name, rep in reports.items()
    }
    plain, monotone = (reports[name].round_trip[0] for name in NAMES)
    assert {r["verdict"] for r in reports["digits-monotone"].table if r["question"] == "uniqueness"} == {"CERTIFIED"}
    assert monotone["solved"] == monotone["images"]
    low = worst["digits-plain"]
    return (
        "One result: two networks of the same size, trained on the same digits to the same held-out loss\n"
        f"({losses[0]:.4f} and {losses[1]:.4f}). Inverted in {STEPS} steps, the ordinary one has a modulus of monotonicity of "
        f"{low['value']:.2f} at step {low['step']},\nand the solver finds solutions at every step for {plain['solved']} of the "
        f"{plain['images']} images; the other, the gradient of a convex function (T6), has\nexactly one solution at every step, "
        f"*certified* from its weights by an independent checker, and all {monotone['images']} images come\n"
        f"back to {monotone['max_error']:.0e}."
    )


def main() -> None:
    x, c = fpjax.samples("digits", 16)
    reports = {
        name: fpjax.audit(fpjax.load(name), fpjax.process.ddim(STEPS), images=x.astype(np.float64), condition=c)
        for name in NAMES
    }
    for name, report in reports.items():  # proposed, and derived again by the kernel
        grid, card = fpjax.process.ddim(STEPS), store.card_path(name)
        for _, proved, _ in certify.audit_certificates(fpjax.load(name), grid, None, c, model=card):
            if proved.kind == "structure":
                auditing.apply_structure(report, proved, "")
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
    text = result(reports)
    page.write({"result": text}, ROOT / "README.md")
    print(text)
    print(path.name)


if __name__ == "__main__":
    main()
