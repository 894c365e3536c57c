"""Architectures at about as many parameters and for about as long: held-out loss, and what is proved.

    python benchmarks/architectures.py [--data fashion] [--results FILE] [--only NAME ...] [--table]

Prints a table of docs/networks.md (``| python benchmarks/page.py docs/networks.md architectures``, or ``variants``): every
architecture on the digits, or variants of the tree of windows on Fashion-MNIST. Each is trained by its recipe's optimiser from
seed 0 for the updates in KINDS, whose number was chosen for some twenty seconds of processor time on the digits; what they took,
compilation left out, is in the table. "Proved" is the certificate kernel's word on the file that was stored. FILE keeps what
is done, so that an interrupted run goes on; ``--table`` trains nothing and prints what is there.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import networks

from fpjax.certify import CertificateError, propose
from fpjax.models import recipes, store, training
from fpjax.models.recipes import Recipe

SUM = (
    ("learned-mixture", (("per_class", 1), ("rank", 16))),
    ("latent-tree", (("states", 12), ("gaussians", 12), ("alike", 0))),
)
FASHION, BRIEF = recipes.recipe("fashion-monotone"), 400


def windows(rank: int, *trees: dict) -> tuple[Recipe, int]:
    """Fashion-MNIST's recipe with a mixture of another rank and other trees, each given by what it changes."""
    several = [("latent-tree", tuple((dict(recipes.WINDOWS) | tree).items())) for tree in trees]
    mixture = ("learned-mixture", (("per_class", 2), ("rank", rank)))
    return dataclasses.replace(FASHION, options=(mixture, *several)), BRIEF


KINDS = {  # the first of a data set is what the others are compared with
    "digits": {
        "EDM network (plain)": (recipes.recipe("digits-plain"), 20000),
        "Lipschitz-capped network, cap 2": (recipes.recipe("digits-capped"), 8000),
        "wide layer, softplus and softmax": (recipes.recipe("digits-wide"), 6000),
        "input-convex, two layers": (recipes.recipe("digits-convex"), 5000),
        "convolutional, 6×6": (recipes.recipe("digits-convolutional"), 450),
        "multi-scale, 4×4 at two scales": (recipes.recipe("digits-multi-scale"), 600),
        "learned mixture": (recipes.recipe("digits-monotone"), 250),
        "latent tree": (recipes.recipe("digits-tree"), 300),
        "sum of a mixture and a tree": (Recipe("prior-sum", "digits", SUM, 1, 64, 1e-2, ema=0.98), 300),
    },
    "fashion": {
        "64 states, 13 kinds a class": windows(9, {"states": 64, "per_class": 13}),
        "48 states, 19 kinds a class": windows(6, {"states": 48, "per_class": 19}),
        "80 states, 10 kinds a class": windows(5, {"states": 80, "per_class": 10}),
        "96 states, 10 kinds a class": windows(3, {"states": 96, "per_class": 10}),
        "64 states and windows of 16×16": windows(5, {"states": 64, "per_class": 13}, {"window": 16, "places": 1}),
    },
}


def trained(r: Recipe) -> dict:
    """What the table says of a recipe."""
    ticks = []
    run = training.train(r, lambda done, total, loss: ticks.append((done, time.process_time())))
    (first, start), (last, end) = ticks[0], ticks[-1]
    with tempfile.TemporaryDirectory() as folder:
        path = store.save(folder, recipes.card("trial", r, run), store.tensors_of(run.model))
        parameters = store.parameters(store.load(path))
        card, model = propose.load_model(path)
        try:
            propose.structure(card, model, [0.1, 1.0, 10.0], [0, model.classes]).verify()
            proved = "yes"
        except CertificateError:
            proved = "no"
    seconds = (end - start) * last / (last - first)
    return {"parameters": parameters, "seconds": seconds, "loss": run.held_out_loss, "proved": proved}


def table(found: dict, kinds: dict) -> None:
    print(
        "| architecture | parameters | updates × images | training, s | held-out loss | ratio to the first | proved monotone |"
    )
    print("|---|---|---|---|---|---|---|")
    first = next(iter(kinds))
    for name, (r, updates) in kinds.items():
        if name in found:
            row = found[name]
            ratio = f"{row['loss'] / found[first]['loss']:.3f}" if first in found else ""
            cells = f"{row['seconds']:.0f} | {row['loss']:.4f} | {ratio} | {row['proved']}"
            print(f"| {name} | {row['parameters']:,} | {updates} × {r.batch} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=KINDS, default="digits")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", nargs="*", choices=[name for kinds in KINDS.values() for name in kinds])
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    kinds = KINDS[given.data]
    if unknown := [name for name in given.only or () if name not in kinds]:
        parser.error(f"{', '.join(unknown)}: not among those of --data {given.data}")
    found = networks.recorded(given.results) if given.results else {}
    for name, (r, updates) in () if given.table else kinds.items():
        if name not in found and name in (given.only or kinds):
            found[name] = trained(dataclasses.replace(r, updates=updates))
            if given.results:
                networks.keep(given.results, name, found[name])
    table(found, kinds)


if __name__ == "__main__":
    main()
