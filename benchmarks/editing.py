"""Editing by inversion, measured: ours and the methods of the literature on the embedded networks.

    python benchmarks/editing.py reconstruct --out build/reconstruct.json    # an hour; in parts by --networks --steps --weights
    python benchmarks/editing.py edits --out build/edits.json
    python benchmarks/editing.py claim --out build/claim.json
    python benchmarks/editing_page.py build    # reads all such files; writes the pages and the figure

    python benchmarks/editing.py reconstruct --images 16 --steps 5 --weights 1    # quickly

Everything is in float64. Evaluations are network calls for one image, inversion and generation together; a guided one counts 2,
a value with its gradient 3.
"""

import argparse
import json
from pathlib import Path

import jax
import numpy as np

import fpjax
from fpjax import editing, metrics, peers, process
from fpjax.models import priors, quality

NETWORKS = ("digits-monotone", "digits-plain")
STEPS = (5, 10, 20, 50)
WEIGHTS = (1.0, 3.0, 7.5)
LIMITS = (1, 2, 3, 4, 6, 8, 10, 13, 17, 22, 30, 60)  # iterations a step of fpjax, for equal evaluations
TOLS = (1e-8, 1e-11)  # of fpjax, in y-coordinates: on the way down, what is left of it grows
LEVEL = 2 / 255  # one grey level of 8 bits: an image that is further off anywhere has failed


def similarity(x, made) -> np.ndarray:
    """PSNR (n,), minus infinity where the image is not finite."""
    finite = np.isfinite(made).reshape(len(x), -1).all(axis=1)
    safe = np.where(finite.reshape(-1, *[1] * (x.ndim - 1)), np.clip(made, -1e6, 1e6), 0.0)
    return np.where(finite, metrics.psnr(x, safe), -np.inf)


def measured(x, latent, images: int, made: peers.Made) -> dict:
    """Figures of a run on held-out images (the first) and generated ones (the rest), whose ``latent`` is known."""
    again, found = np.asarray(made.images), np.asarray(made.latent)
    off = np.abs(again - x).reshape(len(x), -1).max(axis=1)
    failed = ~(off[:images] <= LEVEL)
    size = np.linalg.norm(latent.reshape(len(latent), -1), axis=1)
    error = np.linalg.norm((found[images:] - latent).reshape(len(latent), -1), axis=1) / size
    return {
        "psnr": float(np.median(similarity(x[:images], again[:images]))),
        "latent": float(np.median(np.nan_to_num(error, nan=np.inf))),
        "evaluations": float(np.mean(made.evaluations[:images])),
        "failures": int(failed.sum()),
        "silent": int((failed & ~np.asarray(made.failed)[:images]).sum()),
        "told": int(np.asarray(made.failed)[:images].sum()),
    }


def reconstruct(images: int, born: int, steps, weights, networks, methods, limits, out: Path | None) -> None:
    """Every method at every line, and fpjax with several limits: held-out images again, latents of generated ones."""
    rows = []
    x, c = fpjax.samples("digits", images)
    rng = np.random.default_rng(1)
    for name in networks:
        den = fpjax.load(name)
        for n in steps:
            grid = process.ddim(n)
            top = grid.levels[-1]
            latent = rng.standard_normal((born, *den.shape)) * top * grid.scale(top)
            for w in weights:
                made = np.asarray(fpjax.generate(den, latent, grid, condition=c[:born], guidance=w))
                both, conditions = np.concatenate([x.astype(np.float64), made]), np.concatenate([c, c[:born]])
                options = [(m, {}) for m in methods if m != peers.FIRST]
                if peers.FIRST in methods:
                    options += [(peers.FIRST, {"limit": k, "tol": tol}) for k in limits for tol in TOLS]
                for method, more in options:
                    made = peers.reconstruct(den, both, grid, method, condition=conditions, guidance=w, **more)
                    rows.append({"network": name, "steps": n, "w": w, "method": method, **more})
                    rows[-1] |= measured(both, latent, images, made)
                print(json.dumps(rows[-1]), flush=True)
                keep(out, {"images": images, "generated": born, "rows": rows})


def keep(out: Path | None, data: dict) -> None:
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(data, indent=0))


STRENGTHS = (0.4, 0.5, 0.6, 0.8, 1.0)
PRIOR = "fpjax, prior guided"  # of a learned prior: guidance that costs nothing (T11)


def targets(c, classes: int, seed: int) -> np.ndarray:
    """Another class for each image."""
    return ((c + np.random.default_rng(seed).integers(1, classes, size=len(c))) % classes).astype(np.int32)


def edits(dataset: str, network: str, images: int, n: int, weights, methods, strengths, out: Path | None) -> None:
    """For every method, strength and guidance: the share of images that the classifier takes for the class asked for, how far
    they are from their sources, how much they vary beside held-out images, and the deviation of their latents."""
    judge, den = quality.classifier(dataset), fpjax.load(network)
    x, c = fpjax.samples(dataset, images)
    wanted, grid, rows = targets(c, len(den.conditions), 0), process.ddim(n), []
    x, usual = x.astype(np.float64), spread(*fpjax.data.held_out(dataset))
    for w in weights:
        for k in sorted({max(1, round(share * n)) for share in strengths}):
            part = editing.shortened(grid, k)
            for method in sorted(methods, key=peers.FIRST.__eq__):
                more = {"limit": 60} if method == peers.FIRST else {}
                made = peers.edit(den, x, part, method, source=c, target=wanted, guidance=w, **more)
                found = [(method, made)]
                if method == peers.FIRST and w != 1 and den.facts.monotone:
                    guided = fpjax.generate(priors.guided(den, w), made.latent, part, condition=wanted)
                    found.append((PRIOR, made._replace(images=guided, evaluations=made.evaluations - k)))
                for name, result in found:
                    rows.append({"network": network, "w": w, "strength": k / n, "method": name})
                    rows[-1] |= judged(judge, x, wanted, result, usual)
            print(json.dumps(rows[-1]), flush=True)
            keep(out, {"images": images, "steps": n, "dataset": dataset, "rows": rows})


def spread(images, labels) -> float:
    """The deviation of images from the mean of their class, root mean square."""
    parts = [images[labels == k] for k in np.unique(labels)]
    return float(np.sqrt(np.mean([np.mean((p - p.mean(axis=0)) ** 2) for p in parts])))


def judged(judge, x, wanted, made: peers.Made, usual: float = 1.0) -> dict:
    """What an edit is worth; an image that is not finite is no success, and as far away as the darkest from the brightest."""
    y = np.asarray(made.images)
    finite = np.isfinite(y).reshape(len(y), -1).all(axis=1).reshape(-1, *[1] * (y.ndim - 1))
    shown = np.clip(np.where(finite, y, -np.sign(x)), -1, 1)
    right = (judge.probabilities(shown).argmax(axis=1) == wanted) & finite.reshape(-1)
    return {
        "success": float(right.mean()),
        "distance": float(np.sqrt(np.mean((shown - x) ** 2))),
        "variety": spread(shown, wanted) / usual,
        "deviation": float(np.nanmedian(np.asarray(made.latent).reshape(len(x), -1).std(axis=1))),
        "structure": float(np.mean(metrics.structure_distance(x, shown))),
        "evaluations": float(np.mean(made.evaluations)),
        "told": int(np.asarray(made.failed).sum()),
    }


TOLERANCES = (0.5, 0.2, 0.1, 0.03, 0.01, 0.001)  # of the paper's rule: 0.1 of the first loss is "settled" to the eye


def claim(images: int, seeds: int, steps, weights, networks, out: Path | None) -> None:
    """Both stopping rules over a range of tolerances, and plain iteration: error and evaluations, for several seeds."""
    judge, rows = quality.classifier("digits"), []
    for name in networks:
        den = fpjax.load(name)
        for n in steps:
            grid = process.ddim(n)
            for w in weights:
                for seed in range(seeds):
                    x, c = fpjax.samples("digits", images, seed)
                    x, wanted = x.astype(np.float64), targets(c, 10, seed)
                    for rule in ("intra_path", "inter_path"):
                        for tol in TOLERANCES:
                            given = {"guidance": w, "seed": seed, "tol": tol, "iterations": 40}
                            made = peers.reconstruct(den, x, grid, rule, condition=c, **given)
                            off = np.asarray(made.images) - x
                            error = np.sqrt(np.mean(off.reshape(images, -1) ** 2, axis=1))
                            rows.append({"network": name, "steps": n, "w": w, "seed": seed, "rule": rule, "tol": tol})
                            rows[-1] |= {
                                "error": float(np.median(np.nan_to_num(error, nan=np.inf))),
                                "evaluations": float(np.mean(made.evaluations)),
                            }
                            if w == 1.0:
                                edited = peers.edit(
                                    den,
                                    x,
                                    grid,
                                    rule,
                                    source=c,
                                    target=wanted,
                                    guidance=3.0,
                                    seed=seed,
                                    tol=tol,
                                    iterations=40,
                                )
                                rows[-1] |= {f"edit {k}": v for k, v in judged(judge, x, wanted, edited).items()}
                    print(json.dumps(rows[-1]), flush=True)
                    keep(out, {"images": images, "seeds": seeds, "rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["reconstruct", "edits", "claim"])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--generated", type=int, default=64, help="images whose true latent is known")
    parser.add_argument("--steps", type=int, nargs="+")
    parser.add_argument("--weights", type=float, nargs="+")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--dataset", default="digits", help="of edits")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--methods", nargs="+", default=list(peers.METHODS), help="of reconstruct and edits")
    parser.add_argument("--strengths", type=float, nargs="+", default=STRENGTHS, help="of edits")
    parser.add_argument("--limits", type=int, nargs="+", default=LIMITS, help="iterations a step of fpjax")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if given.part == "reconstruct":
        reconstruct(
            given.images,
            min(given.images, given.generated),
            given.steps or STEPS,
            given.weights or WEIGHTS,
            given.networks,
            given.methods,
            given.limits,
            given.out,
        )
    elif given.part == "edits":
        edits(
            given.dataset,
            given.networks[0],
            given.images,
            (given.steps or [20])[0],
            given.weights or (1.0, 3.0),
            given.methods,
            given.strengths,
            given.out,
        )
    else:
        claim(
            given.images, given.seeds, given.steps or (10, 20), given.weights or (1.0, 3.0), given.networks, given.out
        )


if __name__ == "__main__":
    main()
