"""Every architecture on the digits, at about as many parameters and for about as long: held-out loss, and what is proved.

    python benchmarks/architectures.py [--results FILE] [--only NAME ...] [--table]

Prints the table of docs/networks.md (``| python benchmarks/page.py docs/networks.md architectures``). Each is trained by its
recipe's optimiser from seed 0 for the updates in KINDS, whose number was chosen for some twenty seconds of processor time; what
they took, compilation left out, is in the table. "Proved" is the certificate kernel's word on the file that was stored. FILE
keeps a line for each that is done, so that an interrupted run goes on; ``--table`` trains nothing and prints what is there.
"""

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path

from fpjax.certify import CertificateError, propose
from fpjax.models import recipes, store, training
from fpjax.models.recipes import Recipe

SUM = (
    ("learned-mixture", (("per_class", 1), ("rank", 16))),
    ("latent-tree", (("states", 12), ("gaussians", 12), ("alike", 0))),
)
PLAIN = "EDM network (plain)"
KINDS = {
    PLAIN: (recipes.recipe("digits-plain"), 20000),
    "Lipschitz-capped network, cap 2": (recipes.recipe("digits-capped"), 8000),
    "wide layer, softplus and softmax": (recipes.recipe("digits-wide"), 6000),
    "input-convex, two layers": (recipes.recipe("digits-convex"), 5000),
    "convolutional, 6×6": (recipes.recipe("digits-convolutional"), 450),
    "multi-scale, 4×4 at two scales": (recipes.recipe("digits-multi-scale"), 600),
    "learned mixture": (recipes.recipe("digits-monotone"), 250),
    "latent tree": (recipes.recipe("digits-tree"), 300),
    "sum of a mixture and a tree": (Recipe("prior-sum", "digits", SUM, 1, 64, 1e-2, ema=0.98), 300),
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


def table(found: dict) -> None:
    print(
        "| architecture | parameters | updates × images | training, s | held-out loss | ratio to plain | proved monotone |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, (r, updates) in KINDS.items():
        if name in found:
            row = found[name]
            ratio = f"{row['loss'] / found[PLAIN]['loss']:.3f}" if PLAIN in found else ""
            cells = f"{row['seconds']:.0f} | {row['loss']:.4f} | {ratio} | {row['proved']}"
            print(f"| {name} | {row['parameters']:,} | {updates} × {r.batch} | {cells} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", nargs="*", choices=KINDS)
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    lines = given.results.read_text().splitlines() if given.results and given.results.exists() else []
    found = dict(map(json.loads, lines))
    for name, (r, updates) in () if given.table else KINDS.items():
        if name not in found and name in (given.only or KINDS):
            found[name] = trained(dataclasses.replace(r, updates=updates))
            if given.results:
                with given.results.open("a") as file:
                    file.write(json.dumps([name, found[name]]) + "\n")
    table(found)


if __name__ == "__main__":
    main()
