"""Guidance of a prior and a network distilled for every weight against classifier-free guidance: inverted and generated again,
classes of generated images, a picture.

    python benchmarks/guidance.py roundtrip | python benchmarks/page.py docs/networks.md guidance-roundtrip
    python benchmarks/guidance.py classes | python benchmarks/page.py docs/networks.md guidance-classes
    python benchmarks/guidance.py picture    # docs/figures/guidance.png

    python benchmarks/guidance.py classes --monotone mnist-monotone --distilled none --plain mnist-plain --models FOLDER
    python benchmarks/guidance.py roundtrip --images 16 --steps 2 5 --weights 1 7.5    # quickly
    python benchmarks/guidance.py roundtrip --monotone none --plain none               # the distilled network alone

FOLDER holds what ``fpjax train NAME --out FOLDER`` wrote; without it the embedded models are measured. An ordinary network has
no prior to guide, so it has rows of classifier-free guidance only; ``none`` leaves a network out.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np
from networks import PRECISIONS, STEPS, errors_of

import fpjax
from fpjax import data
from fpjax.denoiser import Denoiser
from fpjax.models import distilled, priors, quality, store

WEIGHTS = (1.0, 3.0, 7.5, 15.0)
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "guidance.png"


@dataclasses.dataclass(frozen=True)
class Method:
    """A network with a way to guide it."""

    network: str
    way: str  # "prior", "distilled" or "classifier-free"
    den: Denoiser

    def at(self, weight: float) -> tuple[Denoiser, float]:
        """The denoiser, and the classifier-free guidance that it is used with."""
        if self.way == "classifier-free":
            return self.den, weight
        return (priors if self.way == "prior" else distilled).guided(self.den, weight), 1.0


def methods(monotone: str, student: str, plain: str, folder: Path | None) -> tuple[list[Method], str]:
    """The methods that are compared, and the data set."""
    asked = [(monotone, "prior"), (monotone, "classifier-free"), (student, "distilled"), (plain, "classifier-free")]
    found, sets = [], set()
    for name, way in asked:
        if name != "none":
            path = (folder or store.WEIGHTS) / f"{name}.json"
            found.append(Method(name, way, store.load(path)))
            sets.add(store.read_card(path)["training"]["recipe"]["dataset"])
    if len(sets) > 1:
        raise SystemExit(f"the networks are of several data sets: {', '.join(sorted(sets))}")
    return found, sets.pop()


def rows(compared: list[Method], weights: list[float]) -> list[tuple[Method, float]]:
    """Every method at every weight; at 1 both ways to guide the first network are that network, so one is enough."""
    same = {method.network for method in compared if method.way == "prior"}
    repeats = [method.way == "classifier-free" and method.network in same for method in compared]
    return [
        (method, w) for method, known in zip(compared, repeats, strict=True) for w in weights if w != 1 or not known
    ]


def roundtrip(compared: list[Method], dataset: str, images: tuple[int, int], steps: list[int], weights) -> None:
    """For each count of steps the worst relative error and the share of images above the goal; and the share of images that had
    an unsolved step at some count of steps."""
    print(f"| network | guidance | w | images | precision | {' | '.join(f'N = {n}' for n in steps)} | unsolved |")
    print("|---" * (len(steps) + 6) + "|")
    for dtype, tol, goal in PRECISIONS:
        for method, weight in rows(compared, weights):
            count = images[method.way == "classifier-free"]
            x, c = fpjax.samples(dataset, count)
            cells, every = [], np.ones(count, bool)
            for n in steps:
                den, w = method.at(weight)
                errors, solved = errors_of(den, x.astype(dtype), c, n, tol, w)
                cells.append(f"{errors.max():.0e}, {np.mean(errors > goal):.0%}")
                every &= solved
            row = (method.network, method.way, f"{weight:g}", str(count), np.dtype(dtype).name, *cells)
            print(f"| {' | '.join(row)} | {np.mean(~every):.0%} |", flush=True)


def classes(compared: list[Method], dataset: str, images: int, steps: int, weights: list[float]) -> None:
    """Class accuracy and Fréchet distance of generated images as they are shown, that is clipped to [-1, 1]; and how far those of
    the other ways are from those of classifier-free guidance of the first network, not clipped."""
    judge, split = quality.classifier(dataset), data.load(dataset)
    free = next((method for method in compared if method.way == "classifier-free"), None)
    real = judge.features(split.held_out[:images])
    print("| images | guidance | w | of the class asked for | Fréchet distance | from the classifier-free image |")
    print("|---|---|---|---|---|---|")

    def right(x, labels) -> str:
        return f"{np.mean(judge.probabilities(x).argmax(axis=1) == labels):.1%}"

    print(f"| held out | | | {right(split.held_out[:images], split.held_out_labels[:images])} | | |")
    for method, weight in rows(compared, weights):
        x, labels = sampled(method, weight, images, steps)
        own = method.way == "classifier-free" or free is None
        apart = "" if own else f"{relative(x, sampled(free, weight, images, steps)[0]):.0%}"
        shown = np.clip(x, -1, 1)
        cells = (right(shown, labels), f"{quality.frechet(judge.features(shown), real):.1f}", apart)
        print(f"| {method.network} | {method.way} | {weight:g} | {' | '.join(cells)} |", flush=True)


def sampled(method: Method, weight: float, images: int, steps: int):
    """Images from noise that is the same for every method and weight, and their classes."""
    den, w = method.at(weight)
    return quality.sample(den, images, steps, guidance=w)


def relative(x, reference) -> float:
    """The mean over images of |x - reference|/|reference|."""
    a, b = (np.linalg.norm(v.reshape(len(x), -1), axis=1) for v in (x - reference, reference))
    return float(np.mean(a / b))


def picture(compared: list[Method], steps: int, weights: list[float], path: Path) -> None:
    """Ten classes, one row for each weight, the ways to guide side by side; the noise of a class is the same everywhere."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(compared), 0.36 * len(weights) + 0.8), layout="constrained")
    axes = figure.subplots(len(weights), len(compared), squeeze=False)
    for cells, weight in zip(axes, weights, strict=True):
        for axis, method in zip(cells, compared, strict=True):
            x, _ = sampled(method, weight, len(method.den.conditions), steps)
            axis.imshow(quality.grid(x, len(x)), cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            if method is compared[0]:
                axis.set_ylabel(f"w = {weight:g}", rotation=0, ha="right", va="center")
            if weight == weights[0]:
                way = method.way if method.way == "distilled" else f"{method.way} guidance"
                axis.set_title(f"{method.network}: {way}", fontsize=9)
    figure.suptitle(f"Class-conditional samples by guidance scale w (DDIM, {steps} steps, same noise)", fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["roundtrip", "classes", "picture"])
    parser.add_argument("--monotone", default="digits-tree", help="a learned prior")
    parser.add_argument("--distilled", default="digits-guided", help="a network that takes the weight, or none")
    parser.add_argument("--plain", default="digits-plain", help="an ordinary network of the same data set, or none")
    parser.add_argument("--models", type=Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument(
        "--fewer", type=int, default=32, help="round trips of classifier-free guidance: slow if they fail"
    )
    parser.add_argument("--steps", type=int, nargs="+", help="of round trips (2 3 5 10 20 50) or of sampling (20)")
    parser.add_argument("--weights", type=float, nargs="+", default=WEIGHTS)
    parser.add_argument("--figure", type=Path, default=FIGURE)
    given = parser.parse_args()
    compared, dataset = methods(given.monotone, given.distilled, given.plain, given.models)
    if given.part == "roundtrip":
        jax.config.update("jax_enable_x64", True)
        roundtrip(
            compared, dataset, (given.images, min(given.images, given.fewer)), given.steps or STEPS, given.weights
        )
    elif given.part == "classes":
        classes(compared, dataset, given.images, (given.steps or [20])[0], given.weights)
    else:
        picture(compared, (given.steps or [20])[0], given.weights, given.figure)


if __name__ == "__main__":
    main()
