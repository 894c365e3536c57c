"""Writes the figures of docs/planning.md: what a study of a Stable-Diffusion-size model takes.

    python benchmarks/planning.py [--images 2] [--steps 50]

Network calls for an image and a step are counted here, on the embedded network digits-plain, question by question; the time
of a call is published by others (PUBLISHED), and so is what float32 costs beside float16. Nothing is timed here.
"""

import argparse
import math
import sys
from pathlib import Path

import jax
import numpy as np
from page import write

import fpjax
from fpjax import auditing, trajectory
from fpjax.study.cost import clock

PAGE = Path(__file__).parent.parent / "docs" / "planning.md"
GUIDANCES = (1.0, 1.5, 3.0, 5.0, 7.5)
IMAGES, STEPS = 1000, 50
PER_PRODUCT = (
    2.0  # calls that a Jacobian product is counted as: a jvp or vjp runs the network's layers and their linear parts
)
# Guided iterations a second (two evaluations each) of Stable Diffusion 1.5 at 512x512, float16, batch 1, on one A100 80 GB,
# "Diffusers (torch 2.1, SDPA, compiled)": github.com/fal-ai/stable-diffusion-benchmarks. End to end, so a call takes less.
PUBLISHED = 36.93
FLOAT32 = 2.0  # dense peak of an A100: 312 TFLOPS in float16, 156 in TF32 (NVIDIA A100 datasheet)
EFFICIENCY = 0.85  # of ideal, what a study reaches at least (docs/studies.md)
FLEETS = (("1 GPU", 1), ("8 GPUs", 8), ("256 hosts of 8 GPUs", 2048))


def counted(images: int, steps: int, w: float) -> dict[str, float]:
    """Network evaluations for one image and step at guidance w, by question; a guided call is two."""
    den, grid = fpjax.load("digits-plain"), fpjax.process.ddim(steps)
    x, labels = fpjax.samples("digits", images)
    inputs = trajectory.prepare(den, x, labels, w)
    inversion = fpjax.invert(den, inputs.z, grid, condition=labels, guidance=w, tol=1e-6, limit=400)
    each = 1 if w == 1.0 else 2
    total = {
        "inversion": float(np.asarray(inversion.evaluations).mean()),
        "generation": float(each),
        "plain iteration": 0.0,
        "spectra": 0.0,
        "guidance limit": 0.0,
        "pairs": 3.0 * 5 * each,
    }
    seen = auditing._seen(inputs, grid, inversion)
    for i in range(steps):
        m = auditing._measure(auditing._step(seen.x, grid, i), inversion, i, jax.random.key(i), 1e-6, seen)
        total["plain iteration"] += each * float(np.asarray(m.picard.evaluations).mean()) / steps
        s = m.spectrum
        products = 2 * np.asarray(s.symmetric.products) + sum(
            np.asarray(n.products) for n in (s.norm, s.departure, s.asymmetry)
        )
        total["spectra"] += 3 * each * PER_PRODUCT * float(products.mean()) / steps
        edges = np.asarray(m.null.products) + np.asarray(m.conditional.products)
        total["guidance limit"] += 3 * 2 * PER_PRODUCT * float(edges.mean()) / steps
    return total


def fleet(calls: float, call_s: float, devices: int) -> tuple[float, float]:
    """(time of the whole study, time of one trajectory): every trajectory is a piece of work that one device does."""
    one = calls / (IMAGES * len(GUIDANCES)) * call_s
    return math.ceil(IMAGES * len(GUIDANCES) / devices) * one / EFFICIENCY, one


def page(table: dict[float, dict[str, float]]) -> dict[str, str]:
    """The parts of the page."""
    names = list(next(iter(table.values())))
    lines = ["| guidance | " + " | ".join(names) + " | all |", "|---|" + "---|" * (len(names) + 1)]
    for w, row in table.items():
        lines.append(f"| {w:g} | " + " | ".join(f"{row[n]:.1f}" for n in names) + f" | {sum(row.values()):.0f} |")
    call_s = FLOAT32 / (2 * PUBLISHED)
    everything = IMAGES * STEPS * sum(sum(row.values()) for row in table.values())
    solving = IMAGES * STEPS * sum(row["inversion"] + row["generation"] for row in table.values())
    first = (
        f"One evaluation of the network in float32 takes {1e3 * call_s:.1f} ms there. All questions need "
        f"{everything / 1e6:.0f} million evaluations, inverting and generating alone {solving / 1e6:.1f} million."
    )
    out = [
        first,
        "",
        "| | all questions | one trajectory | inverting and generating only |",
        "|---|---|---|---|",
    ]
    for name, devices in FLEETS:
        whole, one = fleet(everything, call_s, devices)
        alone, _ = fleet(solving, call_s, devices)
        out.append(f"| {name} | {clock(whole)} | {clock(one)} | {clock(alone)} |")
    return {"calls": "\n".join(lines), "fleets": "\n".join(out)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    parts = page({w: counted(options.images, options.steps, w) for w in GUIDANCES})
    write(parts, PAGE)
    print("\n\n".join(parts.values()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
