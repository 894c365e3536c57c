"""Haze: what it does to a photograph, the depth that it needs, and the classical way to take it away again.

In this room: Koschmieder's law I = J·t + A·(1 - t), t = exp(-beta·depth), on images (h, w, 3) in [-1, 1]; the depth of
scikit-image's stereo pair; the dark channel prior with its guided filter. NumPy only. Not in this room: a diffusion
model's way (restoration), how the network was trained (data, models.recipes).
"""

import numpy as np
from numpy.typing import ArrayLike

from fpjax.evidence import FpjaxError

BASELINE_MM, FOCAL_PX, OFFSET_PX = 193.001, 994.978, 31.028  # of scikit-image's stereo_motorcycle (Middlebury 2014)
WINDOW, KEPT, LEAST = 15, 0.95, 0.1  # He, Sun & Tang 2009: patch, omega, t0
SMOOTHED = 1e-3  # epsilon of the guided filter, in squared intensities


def transmission(depth, beta: float) -> np.ndarray:
    """t = exp(-beta·depth), the share of light that reaches the camera; NaN where the depth is no finite number.

    Args:
      depth: (h, w), at least 0, in any unit. beta: scattering in its inverse, at least 0.

    Raises:
      FpjaxError: for a negative depth or beta.
    """
    depth = np.asarray(depth, np.float64)
    if not beta >= 0 or (depth[np.isfinite(depth)] < 0).any():
        raise FpjaxError("haze needs a depth and a beta of at least 0")
    return np.exp(-beta * np.where(np.isfinite(depth), depth, np.nan))


def add(image, t, airlight: ArrayLike = 1.0) -> np.ndarray:
    """I = J·t + A·(1 - t), (h, w, 3) in the dtype of the image.

    Args:
      image: J, (h, w, 3) in [-1, 1]. t: (h, w) or a scalar, in [0, 1]; where it is NaN the image is left as it is.
      airlight: A in [-1, 1], a scalar or (3,).
    """
    image, t = np.asarray(image), np.asarray(t, np.float64)[..., None]
    t = np.where(np.isnan(t), 1.0, t)
    return (image * t + np.asarray(airlight) * (1 - t)).astype(image.dtype)


def stereo_depth(disparity) -> np.ndarray:
    """The depth in metres of a disparity map of ``skimage.data.stereo_motorcycle``, (h, w) float64; NaN where there is none.

    depth = baseline · focal length / (disparity + offset) = 193.001 mm · 994.978 / (disparity + 31.028).
    """
    disparity = np.asarray(disparity, np.float64)
    known = np.isfinite(disparity)
    depth = BASELINE_MM * FOCAL_PX / (np.where(known, disparity, 0.0) + OFFSET_PX) / 1000
    return np.where(known, depth, np.nan)


def smooth_depth(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A depth (h, w) float64 in [0, 1] for a photograph that has none: a slope upwards and three soft hills, by a seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    field = (y.max() - y) + 0.3 * rng.uniform(-1, 1) * x
    for _ in range(3):
        cy, cx, size = rng.uniform(0, y.max()), rng.uniform(0, x.max()), rng.uniform(0.15, 0.35)
        field += rng.uniform(-0.4, 0.4) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * size**2))
    return (field - field.min()) / np.ptp(field)


def dark_channel(image, window: int = WINDOW) -> np.ndarray:
    """The smallest value of any channel within a square around each pixel, (h, w) (He, Sun & Tang 2009, Eq. 5).

    Args:
      image: (h, w, 3), any range. window: side of the square, odd; borders repeat.
    """
    from scipy.ndimage import minimum_filter

    return minimum_filter(np.asarray(image, np.float64).min(axis=2), size=window, mode="nearest")


def guided_filter(guide, values, radius: int, epsilon: float = SMOOTHED) -> np.ndarray:
    """Values smoothed along the edges of a grey guide: in each window the least-squares a·guide + b (He, Sun & Tang 2010).

    Args:
      guide, values: (h, w). radius: the window has 2·radius + 1 pixels on a side. epsilon: of the ridge on a.
    """
    from scipy.ndimage import uniform_filter

    def mean(v):
        return uniform_filter(v, size=2 * radius + 1, mode="reflect")

    guide, values = np.asarray(guide, np.float64), np.asarray(values, np.float64)
    m, v = mean(guide), mean(values)
    a = (mean(guide * values) - m * v) / (mean(guide * guide) - m * m + epsilon)
    return mean(a) * guide + mean(v - a * m)


def airlight(intensity, window: int = WINDOW) -> np.ndarray:
    """A, (3,): the brightest pixel among the thousandth with the brightest dark channel (He, Sun & Tang 2009, 4.4).

    Args:
      intensity: (h, w, 3) in [0, 1].
    """
    dark = dark_channel(intensity, window).ravel()
    rows = np.argsort(dark, kind="stable")[-max(1, dark.size // 1000) :]
    brightest = np.asarray(intensity).reshape(-1, 3)[rows]
    return brightest[brightest.sum(axis=1).argmax()]


def dark_channel_prior(image, window: int = WINDOW) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The haze-free image, t and A by the dark channel prior (He, Sun & Tang 2009), refined by the guided filter.

    t = 1 - 0.95·dark(I/A), J = (I - A)/max(t, 0.1) + A. The filter's radius is four windows, as in its paper, or a
    quarter of the image's shorter side.

    Args:
      image: I, (h, w, 3) in [-1, 1].

    Returns:
      J (h, w, 3) in [-1, 1], t (h, w), A (3,) in [-1, 1], float64.

    Raises:
      FpjaxError: for another shape, or values that are not finite.
    """
    image = np.asarray(image, np.float64)
    if image.ndim != 3 or image.shape[2] != 3 or not np.isfinite(image).all():
        raise FpjaxError(f"the dark channel prior takes finite images (height, width, 3), not {image.shape}")
    intensity = (image + 1) / 2
    light = np.maximum(airlight(intensity, window), 1e-3)
    rough = 1 - KEPT * dark_channel(intensity / light, window)
    radius = max(1, min(4 * window, min(image.shape[:2]) // 4))
    t = np.clip(guided_filter(intensity.mean(axis=2), rough, radius), LEAST, 1.0)
    clear = (intensity - light) / t[..., None] + light
    return np.clip(2 * clear - 1, -1, 1), t, 2 * light - 1
