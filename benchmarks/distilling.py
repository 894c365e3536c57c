"""Whether distillation makes a better monotone network than training on data does: the same student, once from each.

    python benchmarks/distilling.py | python benchmarks/page.py docs/networks.md distillation
    python benchmarks/distilling.py --share 0.1    # quickly

Each student is trained twice from one start, with the optimiser and the updates of its recipe: on the data, and to give what the
teacher, an ordinary network, gives at noised training images and on its own trajectories. All losses are of held-out images.
"""

import argparse
import dataclasses

import jax
import numpy as np

from fpjax import data
from fpjax.models import recipes, store, training

STUDENTS = ("digits-monotone", "digits-tree")
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
    den = store.load(given.teacher)
    card = store.read_card(store.card_path(given.teacher))["training"]
    split = data.load(card["recipe"]["dataset"])
    held = (split.held_out, split.held_out_labels)
    teacher = lambda y, s, c: den.fn(den.params, y, s, c)  # noqa: E731
    print("| network | trained on | monotone | training loss | held-out loss | distance to the teacher | training, s |")
    print("|---|---|---|---|---|---|---|")
    losses = [training.evaluate(teacher, *part) for part in ((split.train, split.train_labels), held)]
    cells = " | ".join(f"{value:.4f}" for value in losses)
    print(f"| {given.teacher}, the teacher | data | no | {cells} | | {card['seconds']:.0f} |", flush=True)
    for name in STUDENTS:
        for source in ("", given.teacher):
            r = recipes.recipe(name)
            run = training.train(dataclasses.replace(r, updates=round(r.updates * given.share), teacher=source))
            cells = (run.train_loss, run.held_out_loss, distance(run.model, teacher, *held))
            row = " | ".join(f"{value:.4f}" for value in cells)
            print(f"| {name} | {source or 'data'} | yes | {row} | {run.seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
