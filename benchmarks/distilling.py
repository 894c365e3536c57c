"""Whether distillation from an ordinary network makes a better monotone one than training on data does.

    python benchmarks/distilling.py | python benchmarks/page.py docs/networks.md distillation
    python benchmarks/distilling.py --share 0.1    # quickly

Each embedded monotone network, which was trained on data, against the same one trained from the same start, with the optimiser
and the updates of its recipe, to give what the teacher gives at noised training images and on the teacher's own trajectories.
"""

import argparse
import dataclasses

import jax
import numpy as np

from fpjax import data
from fpjax.models import recipes, store, training

STUDENTS = ("digits-tree", "digits-monotone")
REPEATS = 40


def distance(a, b, images, labels, seed: int = 12345) -> float:
    """The mean of |a - b|²/sigma² per value at noised images, their noise levels stratified."""
    rng, levels = np.random.default_rng(seed), training.noise_levels()

    @jax.jit
    @jax.vmap
    def apart(x, c, sigma, n):
        y = x + sigma * n
        return (((a(y, sigma, c) - b(y, sigma, c)) / sigma) ** 2).mean()

    found = []
    for i in range(REPEATS):
        t = ((i + rng.random(len(images))) / REPEATS * len(levels)).astype(int)
        found.append(apart(images, labels, levels[t], rng.standard_normal(images.shape).astype(np.float32)))
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", default="digits-plain")
    parser.add_argument("--share", type=float, default=1.0, help="of the recipes' updates")
    given = parser.parse_args()
    split = data.load(recipes.recipe(given.teacher).dataset)
    held = (split.held_out, split.held_out_labels)
    teacher = network(given.teacher)
    print("| network | trained on | monotone | training loss | held-out loss | distance to the teacher |")
    print("|---|---|---|---|---|---|")

    def row(name: str, source: str, model, monotone: str) -> None:
        train = training.evaluate(model, split.train[: training.SOME], split.train_labels[: training.SOME])
        cells = (train, training.evaluate(model, *held), distance(model, teacher, *held))
        print(f"| {name} | {source} | {monotone} | {' | '.join(f'{value:.4f}' for value in cells)} |", flush=True)

    row(given.teacher, "data", teacher, "no")
    for name in STUDENTS:
        row(name, "data", network(name), "yes")
        r = recipes.recipe(name)
        r = dataclasses.replace(r, updates=round(r.updates * given.share), teacher=given.teacher)
        row(name, given.teacher, training.train(r).model, "yes")


def network(name: str):
    """An embedded model as a function of (y, sigma, condition)."""
    den = store.load(name)
    return lambda y, s, c: den.fn(den.params, y, s, c)


if __name__ == "__main__":
    main()
