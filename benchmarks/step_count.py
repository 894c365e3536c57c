"""The smallest number of steps at which inversion contracts, and at which it is unique (T12), on the embedded networks.

    python benchmarks/step_count.py [--models FOLDER] [--images 32] [--levels 24] [--only mnist-plain] [--record FILE]

At ``levels`` noise levels, in float32, K = the largest ||I - J_D|| and the least eigenvalue of the symmetric part of J_D over
held-out images x + sigma·n. From N uniform steps, (1 - rho)·K < 1 at every step is contraction (T3), rho + (1 - rho)·lambda_min
> 0 at every step a modulus of monotonicity (T2), as far as these points tell: a lower estimate of the steps needed. A network
that is monotone by construction is unique at every N (T6). What is found of a network goes to the record, and networks in it are
not measured again. Prints the table for docs/networks.md and draws its figure, of all networks in the record.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import jax.numpy as jnp
import matplotlib.pyplot as plt
import networks
import numpy as np

import fpjax
from fpjax.adapting import largest, network
from fpjax.jacobian import spectrum

COUNTS = sorted({*range(2, 31), *(round(v) for v in np.geomspace(30, 1000, 60))})
RECORD = Path(__file__).parent / "step_count.json"
FIGURE = Path(__file__).parent.parent / "docs" / "figures" / "step-count.png"


def measured(y, params, key):
    """||I - J_D|| and minus the least eigenvalue of the symmetric part."""
    found = spectrum(network, y, params, key, tol=1e-3)
    return jnp.stack([found.departure.value, -found.symmetric.low])


def measure(den, images, conditions, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise levels (levels,); the largest of both at each over all images, (levels, 2)."""
    ends = fpjax.process.ddim(2).sigmas
    nodes = np.geomspace(float(ends[0]), float(ends[-1]), levels)
    return nodes, largest(measured, den, images, nodes, condition=conditions)


def curves(nodes, found):
    """For each number of steps the largest contraction factor and the least modulus over its steps."""
    factors, moduli = [], []
    for count in COUNTS:
        sigmas = np.asarray(fpjax.process.ddim(count).sigmas)
        rho = sigmas[:-1] / sigmas[1:]
        k, low = (np.interp(np.log(sigmas[1:]), np.log(nodes), column) for column in np.asarray(found).T)
        factors.append(((1 - rho) * k).max())
        moduli.append((rho - (1 - rho) * low).min())
    return np.asarray(factors), np.asarray(moduli)


def smallest(holds) -> str:
    """The least number of steps from which on it holds."""
    failing = [count for count, good in zip(COUNTS, holds, strict=True) if not good]
    after = [count for count in COUNTS if not failing or count > failing[-1]]
    return str(after[0]) if after else f"above {COUNTS[-1]}"


def note(name: str, folder: Path | None, images: int, levels: int, record: Path) -> None:
    """Measures a network, unless the record knows these weights."""
    known = networks.recorded(record).get(name, {})
    den, card = networks.opened(name, folder)
    same = {"weights": card["sha256"], "images": images, "levels": levels}
    if {key: known.get(key) for key in same} != same:
        x, c = fpjax.samples(card["training"]["recipe"]["dataset"], images)
        nodes, found = measure(den, x, c, levels)
        row = same | {"monotone": den.facts.monotone, "sigmas": nodes.tolist(), "found": np.asarray(found).tolist()}
        networks.keep(record, name, row)


def draw(known: dict, figure: Path) -> None:
    """The table and the figure of all networks in a record."""
    drawn, (above, below) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    print("| model | images | largest K | contraction from N = | unique from N = |")
    print("|---|---|---|---|---|")
    for i, pair in enumerate(networks.PAIRS):
        for name, style in zip(pair, ("-", "--"), strict=True):
            if name not in known:
                continue
            row = known[name]
            factors, moduli = curves(row["sigmas"], row["found"])
            unique = "2 (T6)" if row["monotone"] else smallest(moduli > 0)
            print(
                f"| {name} | {row['images']} | {factors.max():.2f} | {smallest(factors < 1)} | {unique} |", flush=True
            )
            for axis, values in ((above, factors), (below, moduli)):
                axis.plot(COUNTS, values, style, color=f"C{i}", label=name)
    for axis, limit, title in ((above, 1, "largest (1 − ρ)·K (T3)"), (below, 0, "least modulus m (T2)")):
        axis.axhline(limit, color="black", linewidth=0.8)
        axis.set(xscale="log", xlabel="number of steps N", title=title)
    above.legend(frameon=False, fontsize=8)
    drawn.savefig(figure, dpi=120, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--levels", type=int, default=24)
    parser.add_argument("--only", help="this network alone")
    parser.add_argument("--record", type=Path, default=RECORD, help="what was measured so far")
    given = parser.parse_args()
    for name in (n for pair in networks.PAIRS for n in pair):
        if name == (given.only or name) and networks.opened(name, given.models):
            note(name, given.models, given.images, given.levels, given.record)
    draw(networks.recorded(given.record), FIGURE)


if __name__ == "__main__":
    main()
