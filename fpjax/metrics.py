"""How far two images are from each other, and a latent from noise: figures that restorations and edits are compared by.

In this room: measures of images (n, height, width), (n, height, width, 3) or (n, 3, height, width) in [-1, 1], one number an
image. Not in this room: distances of sets of images (models.quality); measures that need a network trained elsewhere.
"""

from typing import NamedTuple

import numpy as np

from fpjax.evidence import FpjaxError

RANGE = 2.0  # values lie in [-1, 1]
WINDOW = 7  # of SSIM: pixels a side
PATCH, MOST = 3, 1024  # of the structure distance: pixels a side, and how many patches at most


def psnr(a, b) -> np.ndarray:
    """Peak signal-to-noise ratio in decibels, 10·log10(4/mean (a - b)²), of each image (n,); infinite where they are equal.

    Raises:
      FpjaxError: for shapes that differ or are none of the three, no images, or values that are not finite.
    """
    a, b = _pair(a, b)
    error = ((a - b) ** 2).reshape(len(a), -1).mean(axis=1)
    with np.errstate(divide="ignore"):
        return 10 * np.log10(RANGE**2 / error)


def ssim(a, b) -> np.ndarray:
    """Structural similarity (Wang et al. 2004; windows of 7×7, uniform weights, scikit-image's), of each image (n,); 1 if equal.

    Of intensities from 0 on: its term of brightness takes means that are not negative.

    Raises:
      FpjaxError: as :func:`psnr`, and for images smaller than a window.
    """
    from skimage.metrics import structural_similarity

    a, b = _pair(a, b)
    if min(a.shape[1:3]) < WINDOW:
        raise FpjaxError(f"SSIM takes images of at least {WINDOW}×{WINDOW} pixels, not {a.shape[1]}×{a.shape[2]}")
    settings = {"win_size": WINDOW, "data_range": RANGE, "channel_axis": -1}
    return np.asarray([structural_similarity(x, y, **settings) for x, y in zip(a + 1, b + 1, strict=True)])


def structure_distance(a, b) -> np.ndarray:
    """The mean squared difference of two self-similarity matrices, of each image (n,): 0 where the structure is the same.

    The idea of Tumanyan et al. 2022 (Splice), whose descriptors are features of a large network (DINO). Ours are 3×3 patches
    around at most 1,024 pixels on a grid, their mean taken away, and similarity is the cosine (0 of a patch without contrast):
    a change of brightness or contrast costs nothing, moved edges do. Comparable with itself only.

    Raises:
      FpjaxError: as :func:`psnr`, and for images smaller than a patch.
    """
    a, b = _pair(a, b)
    if min(a.shape[1:3]) < PATCH:
        raise FpjaxError(f"the structure distance takes images of at least {PATCH}×{PATCH} pixels")
    return np.asarray([np.mean((_similar(x) - _similar(y)) ** 2) for x, y in zip(a, b, strict=True)])


def _similar(image: np.ndarray) -> np.ndarray:
    """Cosines between patches (k, k) of one image (height, width, channels)."""
    h, w, channels = image.shape
    stride = max(1, int(np.ceil(np.sqrt(h * w / MOST))))
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), axis=(0, 1))[::stride, ::stride]
    rows = windows.reshape(-1, channels, PATCH * PATCH)
    rows = (rows - rows.mean(axis=2, keepdims=True)).reshape(len(rows), -1)
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.where(sizes > 1e-6, rows / np.maximum(sizes, 1e-6), 0.0)
    return rows @ rows.T


class Normality(NamedTuple):
    """How like standard normal noise each latent is, every field (n,).

    Attributes:
      mean, deviation: of its values; 0 and 1 of noise.
      kurtosis: excess kurtosis of its values; 0 of noise.
      neighbours: correlation of values side by side, down and across; 0 of noise, positive where an image shows through.
      distance: Kolmogorov and Smirnov's, the largest difference of its distribution of values from N(0, 1)'s.
      expected: what ``distance`` is of independent noise in the mean, 0.8687/sqrt(values).
    """

    mean: np.ndarray
    deviation: np.ndarray
    kurtosis: np.ndarray
    neighbours: np.ndarray
    distance: np.ndarray
    expected: np.ndarray


def normality(latents) -> Normality:
    """How like noise latents are, in units in which the process's noise has deviation 1 (of a variance-exploding process:
    divided by its largest sigma).

    Args:
      latents: (n, height, width), (n, height, width, 3) or (n, 3, height, width), at least 2×2.

    Raises:
      FpjaxError: for other shapes, or values that are not finite.
    """
    from scipy.stats import kstest, kurtosis

    z = _images(latents)
    if min(z.shape[1:3]) < 2:
        raise FpjaxError(f"normality takes latents of at least 2×2 values, not {z.shape[1]}×{z.shape[2]}")
    flat = z.reshape(len(z), -1)
    away = z - z.mean(axis=(1, 2, 3), keepdims=True)
    pairs = (away[:, 1:] * away[:, :-1], away[:, :, 1:] * away[:, :, :-1])
    beside = sum(p.reshape(len(z), -1).sum(axis=1) for p in pairs) / sum(p[0].size for p in pairs)
    spread = flat.std(axis=1)
    return Normality(
        flat.mean(axis=1),
        spread,
        np.asarray(kurtosis(flat, axis=1)),
        beside / np.maximum(spread**2, np.finfo(float).tiny),
        np.asarray([float(kstest(row, "norm").statistic) for row in flat]),
        np.full(len(z), 0.8687 / np.sqrt(flat.shape[1])),
    )


def _pair(a, b) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(a), np.asarray(b)
    if first.shape != second.shape:
        raise FpjaxError(f"images of the same shape are compared, not {first.shape} with {second.shape}")
    return _images(first), _images(second)


def _images(values) -> np.ndarray:
    """(n, height, width, channels) float64."""
    x = np.asarray(values, np.float64)
    if x.ndim == 4 and x.shape[1] == 3 and x.shape[3] != 3:
        x = np.moveaxis(x, 1, 3)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[3] not in (1, 3) or 0 in x.shape:
        raise FpjaxError(f"images have the shape (n, h, w), (n, h, w, 3) or (n, 3, h, w), not {np.shape(values)}")
    if not np.isfinite(x).all():
        raise FpjaxError("the images have NaN or infinite values; replace them first")
    return x
