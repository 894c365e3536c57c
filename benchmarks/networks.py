"""Networks that are invertible by construction against ordinary ones: held-out loss by noise level, and round trips.

    python benchmarks/networks.py losses [--models FOLDER]      # table of docs/networks.md
    python benchmarks/networks.py roundtrip [--images 256]      # likewise; --limit iterations a step; goes on with --record
    python benchmarks/networks.py seeds [--only mnist --share 0.3]  # trained anew from three seeds, with a share of the updates
    python benchmarks/networks.py sizes                         # one network from 28×28 to 512×512
    python benchmarks/networks.py samples                       # samples of the embedded cards, docs/figures/samples.png

FOLDER holds what ``fpjax train NAME --out FOLDER`` wrote; without it the embedded models are measured.
"""

import argparse
import dataclasses
import functools
import itertools
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

import fpjax
from fpjax import data
from fpjax.models import priors, quality, recipes, store, training

PAIRS = (
    ("digits-tree", "digits-plain"),
    ("mnist-monotone", "mnist-plain"),
    ("fashion-monotone", "fashion-plain"),
    ("photos-monotone", "photos-plain"),
)
BANDS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, np.inf)
STEPS = (2, 3, 5, 10, 20, 50)
PRECISIONS = ((np.float64, 1e-13, 1e-10), (np.float32, 1e-6, 1e-4))  # dtype, tolerance, goal of the relative error
RECORD = Path(__file__).parent / "round_trips.json"
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "samples.png"
TOGETHER = 1024  # pixels of a round trip: more leave the cache, and an evaluation takes twice as long
SIDES = (28, 64, 128, 256, 512)


def opened(name: str, folder: Path | None):
    """The denoiser and its card; None where there is none."""
    path = store.WEIGHTS / f"{name}.json" if folder is None else folder / f"{name}.json"
    return (store.load(path), store.read_card(path)) if path.exists() else None


def by_band(den, dataset: str, count: int = 400) -> np.ndarray:
    """The held-out loss in each band of sigma, and over all, as in training."""
    split = data.load(dataset)
    network = lambda y, s, c: den.fn(den.params, y, s, c)  # noqa: E731
    rows = np.asarray(training.evaluations(network, split.held_out[:count], split.held_out_labels[:count], 10))
    inside = [(low <= rows[:, 0]) & (rows[:, 0] < high) for low, high in itertools.pairwise(BANDS)]
    return np.asarray([*(rows[at, 1].mean() for at in inside), rows[:, 1].mean()])


def losses(folder: Path | None) -> None:
    bands = [
        f"σ < {BANDS[1]}",
        *(f"{a:g}–{b:g}" for a, b in itertools.pairwise(BANDS[1:-1])),
        f"> {BANDS[-2]:g}",
    ]
    print(f"| pair | parameters | training, s | {' | '.join(bands)} | all |")
    print("|---" * (len(bands) + 4) + "|")
    for pair in PAIRS:
        found = [opened(name, folder) for name in pair]
        if None in found:
            continue
        tables = []
        for name, (den, card) in zip(pair, found, strict=True):
            table = by_band(den, card["training"]["recipe"]["dataset"])
            tables.append(table)
            cells = " | ".join(f"{v:.4f}" for v in table)
            print(f"| {name} | {store.parameters(den):,} | {card['training']['seconds']:.0f} | {cells} |")
        print(f"| ratio | | | {' | '.join(f'{a / b:.2f}' for a, b in zip(*tables, strict=True))} |")


def roundtrip(folder: Path | None, images: int, only: str | None, record: Path, given: argparse.Namespace) -> None:
    """Inverts held-out images and generates them again, with what ``given`` says (limit, steps, tol of float64, solver). What is
    found goes to ``record`` after every few images, from where an interrupted run goes on. Prints the table of all models."""
    known = recorded(record)
    for name in (n for pair in PAIRS for n in pair):
        found = opened(name, folder)
        if found is None or name != (only or name):
            continue
        den, card = found
        same = {"weights": card["sha256"], "limit": given.limit}
        if {key: known.get(name, {}).get(key) for key in same} != same:
            known[name] = same | {"errors": {}}
        x, c = fpjax.samples(card["training"]["recipe"]["dataset"], images)
        together = max(1, TOGETHER // x[0].size)
        for steps, (dtype, tol, _) in itertools.product(given.steps, PRECISIONS):
            tol = given.tol if dtype is np.float64 else tol
            errors = known[name]["errors"].setdefault(f"{steps} {np.dtype(dtype).name}", [])
            while len(errors) < images:
                part = slice(len(errors), min(len(errors) + together, images))
                more, _ = errors_of(
                    den, x[part].astype(dtype), c[part], steps, tol, limit=given.limit, solver=given.solver
                )
                errors += [float(f"{e:.2e}") for e in more]
                keep(record, name, known[name])
    roundtrip_table(recorded(record))


def recorded(record: Path) -> dict:
    """What a record says of each network; nothing where there is none. Ends with a sentence and code 2 where it is damaged."""
    try:
        return json.loads(record.read_text()) if record.exists() else {}
    except ValueError:
        print(f"{record} is damaged: it is no JSON; remove it, or name another file", file=sys.stderr)
        raise SystemExit(2) from None


def keep(record: Path, name: str, row: dict) -> None:
    """Writes what was found of a network beside what another process may have written of others."""
    store.write_atomic(record, (json.dumps(recorded(record) | {name: row}) + "\n").encode())


def roundtrip_table(known: dict) -> None:
    """The largest relative error of an image that was inverted and generated again, and how many fail the goal."""
    print("| model | N | images | float64: worst | above 1e-10 | float32: worst | above 1e-4 |")
    print("|---|---|---|---|---|---|---|")
    for name, steps in itertools.product((n for pair in PAIRS for n in pair if n in known), STEPS):
        cells, count = [], set()
        for dtype, _, goal in PRECISIONS:
            errors = np.asarray(known[name]["errors"].get(f"{steps} {np.dtype(dtype).name}", []), float)
            count.add(len(errors))
            worst = f"{errors.max():.1e} | {np.mean(~(errors <= goal)):.1%}" if errors.size else "– | –"
            cells.append(worst.replace("inf", "not finite"))
        print(f"| {name} | {steps} | {' and '.join(map(str, sorted(count)))} | {' | '.join(cells)} |")


def errors_of(
    den, x, c, steps: int, tol: float, guidance: float = 1.0, limit: int = 200, solver: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """|x' - x|/|x| of each image that was inverted and generated again, infinite where that is not finite; and whether all of
    its steps were solved. Without a ``solver`` a gradient denoiser is inverted by "convex" (T6), any other by "auto"."""
    process, condition = fpjax.process.ddim(steps), c if den.conditions else None
    solver = solver or ("convex" if den.facts.symmetric and guidance == 1.0 else "auto")
    options = {"condition": condition, "guidance": guidance, "layout": "compact", "history": False}
    found = fpjax.invert(den, x, process, solver=solver, tol=tol, limit=limit, **options)
    again = np.asarray(fpjax.generate(den, found.latent, process, condition=condition, guidance=guidance))
    flat = [np.asarray(v, np.float64).reshape(len(x), -1) for v in (again - x, x)]
    errors = np.linalg.norm(flat[0], axis=1) / np.linalg.norm(flat[1], axis=1)
    return np.where(np.isfinite(errors), errors, np.inf), found.solved[:, -1]


def seeds(given: list[int], share: float, only: str | None) -> None:
    """Held-out losses of each pair trained anew, both with the same share of their recipes' updates."""
    print("| seed | pair | updates | monotone | plain | ratio | training, s |")
    print("|---|---|---|---|---|---|---|")
    for (monotone, plain), seed in itertools.product(PAIRS, given):
        data_set = recipes.recipe(plain).dataset
        if data_set != (only or data_set):
            continue
        runs, updates = [], []
        for name in (monotone, plain):
            r = recipes.recipe(name)
            updates.append(round(r.updates * share))
            runs.append(training.train(dataclasses.replace(r, seed=seed, updates=updates[-1])))
        (a, b), times = (run.held_out_loss for run in runs), " and ".join(f"{run.seconds:.0f}" for run in runs)
        counts = " and ".join(map(str, updates))
        print(f"| {seed} | {data_set} | {counts} | {a:.5f} | {b:.5f} | {a / b:.3f} | {times} |", flush=True)


def sizes(folder: Path | None, name: str = "photos-monotone") -> None:
    """The time of one call and of a product with the Jacobian at several image sizes, least of three, warm."""
    den, _ = opened(name, folder)
    print("| image | one call, s | µs a pixel | product with J, s | µs a pixel |")
    print("|---|---|---|---|---|")
    for side in SIDES:
        large = priors.at_size(den, side, side)
        y = np.random.default_rng(0).standard_normal(large.shape).astype(np.float32)
        cells = []
        for function in (_call, _product):
            seconds = min(clock(functools.partial(function, large, y)) for _ in range(4))  # the first compiles
            cells += [f"{seconds:.3f}", f"{1e6 * seconds / side**2:.1f}"]
        print(f"| {side}×{side} | {' | '.join(cells)} |", flush=True)


def samples(figure: Path) -> None:
    """The sheet of every embedded model beside its card, what the card says of it, and a picture of all sheets."""
    from matplotlib.figure import Figure
    from PIL import Image

    names = store.names()
    drawn = Figure(figsize=(9, 0.85 * len(names)), layout="constrained")
    for axes, name in zip(drawn.subplots(-(-len(names) // 2), 2, squeeze=False).flat, names, strict=False):
        path = store.WEIGHTS / f"{name}-samples.png"
        card = store.read_card(store.card_path(name)) | {"samples": quality.sheet(path, store.load(name))}
        store.write_atomic(store.card_path(name), (json.dumps(card, indent=1) + "\n").encode())
        axes.imshow(np.asarray(Image.open(path)), cmap="gray", vmin=0, vmax=255)
        weights = ", ".join(f"{w:g}" for w in card["samples"]["guidance"])
        axes.set_title(f"{name}, w = {weights}", fontsize=8)
    for axes in drawn.axes:
        axes.axis("off")
    drawn.savefig(figure, dpi=120)


@jax.jit
def _call(den, y):
    return den.fn(den.params, y, np.float32(0.5), np.int32(0))


@jax.jit
def _product(den, y):
    return jax.jvp(lambda v: _call(den, v), (y,), (y,))[1]


def clock(function) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["losses", "roundtrip", "seeds", "sizes", "samples"])
    parser.add_argument("--models", type=Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--limit", type=int, default=200, help="iterations of one step of a round trip")
    parser.add_argument("--steps", type=int, nargs="+", choices=STEPS, default=STEPS, help="of a round trip")
    parser.add_argument("--tol", type=float, default=PRECISIONS[0][1], help="of a round trip in float64")
    parser.add_argument("--solver", choices=("auto", "convex"), help="of a round trip; convex for gradients, else auto")
    parser.add_argument("--record", type=Path, default=RECORD, help="what round trips have found so far")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=1.0, help="of the recipes' updates")
    parser.add_argument("--only", help="round trips of this model, seeds of this data set, alone")
    given = parser.parse_args()
    if given.part == "losses":
        losses(given.models)
    elif given.part == "sizes":
        sizes(given.models)
    elif given.part == "samples":
        samples(FIGURE)
    elif given.part == "seeds":
        seeds(given.seeds, given.share, given.only)
    else:
        jax.config.update("jax_enable_x64", True)
        if not 0 < given.tol < float("inf"):
            parser.error(f"--tol {given.tol} is no tolerance: it must be positive and finite")
        roundtrip(given.models, given.images, given.only, given.record, given)


if __name__ == "__main__":
    main()
