"""Restorations against classical methods, on photographs that no network here was trained on.

    python benchmarks/restoration.py dehaze         # against the dark channel prior
    python benchmarks/restoration.py super-resolve  # x2, x4, against bicubic interpolation
    python benchmarks/restoration.py inpaint        # against the biharmonic equation
    python benchmarks/restoration.py tiles          # a 1500×1000 photograph: peak memory, and tiles against none

Each prints a part of docs/restoration.md: ``| python benchmarks/page.py docs/restoration.md dehaze`` (or the other names).
``--pictures FOLDER`` (dehaze) writes a gallery. BRISQUE stands in the table of ``dehaze`` where the package brisque is installed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from fpjax import data, haze, metrics

# Colour photographs, and grey ones of scikit-image's as three equal channels.
PHOTOS = ("cat", "coffee", "flower", "camera", "coins", "brick", "grass", "gravel")
STRENGTHS = {
    "light": 0.4,
    "medium": 0.8,
    "heavy": 1.6,
}  # beta; depths are 0.3 to 1.3, the stereo pair's in units of 4 m
LIGHT = (0.8, 0.8, 0.84)  # A in [-1, 1]
SHORT = 256  # pixels of the shorter side that haze is added at
UNIT = 4.0  # metres
PART = 96  # pixels a side of the middle of a photograph that is enlarged and filled in


def photo(name: str) -> np.ndarray:
    """(h, w, 3) in [-1, 1]."""
    return data.scaled(data.photograph(name))


def shrunk(image: np.ndarray, short: int) -> np.ndarray:
    """The shorter side with so many pixels, if it has more."""
    from PIL import Image

    scale = min(1.0, short / min(image.shape[:2]))
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    pixels = np.rint((image + 1) * 127.5).astype(np.uint8)
    return data.scaled(np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)))


def middle(image: np.ndarray, side: int) -> np.ndarray:
    """The middle of a photograph."""
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return image[top : top + side, left : left + side]


def scenes():
    """Name, image and depth (NaN where unknown) of each scene: the stereo pair, and photographs with synthetic depth."""
    from skimage.data import stereo_motorcycle

    left, _, disparity = stereo_motorcycle()
    step = min(left.shape[:2]) // SHORT
    yield (
        "motorcycle (true depth)",
        data.scaled(left[::step, ::step]),
        haze.stereo_depth(disparity)[::step, ::step] / UNIT,
    )
    for seed, name in enumerate(PHOTOS):
        image = shrunk(photo(name), SHORT)
        yield name, image, haze.smooth_depth(*image.shape[:2], seed=seed) + 0.3


def brisque():
    """BRISQUE (Mittal, Moorthy & Bovik 2012) of an image, lower is better; None where the package is not there."""
    try:
        from brisque import BRISQUE  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None

    class Judge(BRISQUE):
        """Its features come as arrays of one value here and there, which NumPy 2.4 does not take for numbers."""

        def scale_features(self, features):
            """As before, of numbers."""
            return super().scale_features([float(np.ravel(f)[0]) for f in features])

    judge = Judge(url=False)
    return lambda image: float(judge.score(np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)))


def measured(image, truth, known) -> tuple[float, float]:
    """PSNR over the pixels whose depth is known, and SSIM of the whole."""
    error = np.mean((np.clip(image, -1, 1) - truth)[known] ** 2)
    return 10 * float(np.log10(4 / error)), float(metrics.ssim(np.clip(image, -1, 1)[None], truth[None])[0])


def dehaze(pictures: Path | None) -> None:
    """PSNR, SSIM (and BRISQUE) of hazy, dark channel prior and inversion."""
    from fpjax import dehazing, gallery

    judge, rows, cases, scores = brisque(), [], [], []
    for name, image, depth in scenes():
        known = np.isfinite(depth)
        for strength, beta in STRENGTHS.items():
            hazy = haze.add(image, haze.transmission(depth, beta), LIGHT)
            start = time.perf_counter()
            classical = haze.dark_channel_prior(hazy)[0].astype(np.float32)
            between = time.perf_counter()
            found = dehazing.dehaze(hazy)
            ended = time.perf_counter()
            three = [measured(v, image, known) for v in (hazy, classical, found.image)]
            rows.append((name, strength, three, found, between - start, ended - between))
            if judge is not None:
                scores.append([judge(v) for v in (image, hazy, classical, found.image)])
            figures = {"PSNR hazy": three[0][0], "PSNR": three[2][0], "PSNR dark channel prior": three[1][0]}
            cases.append(gallery.Case(f"{name}, {strength} haze", hazy, found.image, found.verdict, figures))
            print(name, strength, three, found.degree, file=sys.stderr, flush=True)
    print("| scene | haze | hazy PSNR, SSIM | dark channel prior | inversion | degree found | evaluations |")
    print("|---|---|---|---|---|---|---|")
    for name, strength, three, found, *_ in rows:
        told = [f"{p:.2f}, {s:.3f}" for p, s in three]
        best = 1 + int(three[2][0] > three[1][0])
        told[best] = f"**{told[best]}**"
        print(f"| {name} | {strength} | {' | '.join(told)} | {found.degree} | {found.evaluations} |")
    summary(rows, scores, judge is not None)
    if pictures:
        gallery.save(pictures, "Dehazing by inversion", cases)


def summary(rows, scores, judged: bool) -> None:
    """Sentences after the table."""
    values = np.asarray([three for _, _, three, *_ in rows])
    gains = values[:, 1:] - values[:, :1]
    wins = int((values[:, 2, 0] > values[:, 1, 0]).sum())
    seconds = np.mean([row[4:] for row in rows], axis=0)
    print(
        f"\nMean gain over the hazy image: dark channel prior {gains[:, 0, 0].mean():+.2f} dB and "
        f"{gains[:, 0, 1].mean():+.3f} SSIM, inversion {gains[:, 1, 0].mean():+.2f} dB and "
        f"{gains[:, 1, 1].mean():+.3f} SSIM. Of {len(rows)} lines inversion has the "
        f"higher PSNR on {wins}, the dark channel prior on {len(rows) - wins}, and inversion improves the hazy image on "
        f"{int((gains[:, 1, 0] > 0).sum())}."
    )
    for strength in STRENGTHS:
        some = np.asarray([row[1] == strength for row in rows])
        print(
            f"{strength.capitalize()} haze: dark channel prior {gains[some, 0, 0].mean():+.2f} dB, inversion "
            f"{gains[some, 1, 0].mean():+.2f} dB."
        )
    solved = sum(bool(row[3].inversion.solved.all()) for row in rows)
    print(
        f"All steps of the inversion are solved on {solved} of {len(rows)} lines. Mean time: dark channel prior "
        f"{seconds[0]:.2f} s, inversion {seconds[1]:.1f} s, compilation included (a shared CPU)."
    )
    if judged:
        means = np.nanmean(np.asarray(scores), axis=0)
        told = zip(("the true image", "hazy", "dark channel prior", "inversion"), means, strict=True)
        print("Mean BRISQUE (lower is better): " + ", ".join(f"{name} {v:.1f}" for name, v in told) + ".")
    else:
        print("BRISQUE was not measured: the package brisque is not installed.")


def super_resolve() -> None:
    """×2 and ×4 against bicubic interpolation, the middle of each photograph."""
    from fpjax import restoration

    print(
        "| photograph | factor | bicubic PSNR, SSIM | its projection alone | 4 consistent steps |\n|---|---|---|---|---|"
    )
    gains = []
    for name in PHOTOS:
        truth = middle(photo(name), PART)
        for factor in restoration.FACTORS:
            low = restoration.down(truth.transpose(2, 0, 1), factor).transpose(1, 2, 0)
            found, plain = (restoration.super_resolve(low, factor, steps=n) for n in (4, 0))
            three = [(metrics.psnr(v[None], truth[None])[0], metrics.ssim(v[None], truth[None])[0]) for v in
                     (found.start, plain.image, found.image)]  # fmt: skip
            gains.append([three[1][0] - three[0][0], three[2][0] - three[0][0]])
            print(f"| {name} | ×{factor} | " + " | ".join(f"{p:.2f}, {s:.3f}" for p, s in three) + " |", flush=True)
    means = np.mean(gains, axis=0)
    print(
        f"\nMean gain over bicubic: the projection alone {means[0]:+.2f} dB, with the network's steps {means[1]:+.2f} dB; "
        f"the steps are above bicubic on {int((np.asarray(gains)[:, 1] > 0).sum())} of {len(gains)} lines and above the "
        f"projection alone on {int((np.diff(gains, axis=1) > 0).sum())}."
    )


def inpaint() -> None:
    """Half of the pixels, and a square, against the biharmonic equation."""
    from fpjax import restoration

    print("| photograph | unknown | biharmonic PSNR, SSIM | 4 consistent steps |\n|---|---|---|---|")
    differences = []
    for name in PHOTOS:
        truth = middle(photo(name), PART)
        square = np.zeros((PART, PART), bool)
        square[40:56, 40:56] = True
        for what, mask in (("half", np.random.default_rng(0).random((PART, PART)) < 0.5), ("16×16", square)):
            found = restoration.inpaint(truth, mask)
            two = [
                (metrics.psnr(v[None], truth[None])[0], metrics.ssim(v[None], truth[None])[0])
                for v in (found.start, found.image)
            ]
            differences.append(two[1][0] - two[0][0])
            print(f"| {name} | {what} | " + " | ".join(f"{p:.2f}, {s:.3f}" for p, s in two) + " |", flush=True)
    print(
        f"\nThe steps are above the biharmonic equation on {int((np.asarray(differences) > 0).sum())} of "
        f"{len(differences)} lines, by {np.mean(differences):+.2f} dB in the mean "
        f"({np.min(differences):+.2f} to {np.max(differences):+.2f})."
    )


def one_large(tile: int, path: str) -> None:
    """In a process of its own: one restoration of a 1500×1000 photograph, its time and peak memory."""
    import resource

    from fpjax import restoration

    retina = photo("retina")[200:1200]  # trained on; here only size and seams matter
    truth = np.pad(retina, ((0, 0), (0, 1500 - retina.shape[1]), (0, 0)), mode="symmetric")
    noisy = truth + 0.1 * np.random.default_rng(0).standard_normal(truth.shape).astype(np.float32)
    start = time.perf_counter()
    found = restoration.denoise(noisy, 0.1, tile=tile)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    np.save(path, found.image)
    psnr = [float(metrics.psnr(v[None], truth[None])[0]) for v in (noisy, found.image)]
    print(json.dumps({"peak": peak, "seconds": seconds, "tiles": found.tiles, "psnr": psnr}))


def tiled() -> int:
    """Peak memory of a large photograph in tiles, and the difference to the untiled result."""
    import tempfile

    found, pictures = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for tile in (384, 1500):
            path = f"{folder}/{tile}.npy"
            command = [sys.executable, __file__, "one-large", "--tile", str(tile), "--out", path]
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found[tile], pictures[tile] = json.loads(out), np.load(path)
            print(found[tile], file=sys.stderr, flush=True)
    difference = float(np.abs(pictures[384] - pictures[1500]).max())
    print(
        "| 1500×1000, denoised | tiles | peak memory of the process | time | PSNR before, after |\n|---|---|---|---|---|"
    )
    for tile, row in found.items():
        what = f"tiles of {tile} pixels a side" if row["tiles"] > 1 else "whole"
        before, after = row["psnr"]
        print(
            f"| {what} | {row['tiles']} | {row['peak']:.2f} GiB | {row['seconds']:.0f} s | {before:.2f}, {after:.2f} |"
        )
    print(f"\nLargest difference of any value between the two: {difference:.1e}, of values in [-1, 1].")
    return 0 if found[384]["peak"] < 4 and difference < 1e-4 else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("dehaze", "super-resolve", "inpaint", "tiles", "one-large"))
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--tile", type=int, default=384)
    parser.add_argument("--out", default="large.npy")
    options = parser.parse_args()
    if options.part == "tiles":
        return tiled()
    if options.part == "dehaze":
        dehaze(options.pictures)
    elif options.part == "one-large":
        one_large(options.tile, options.out)
    else:
        {"super-resolve": super_resolve, "inpaint": inpaint}[options.part]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
