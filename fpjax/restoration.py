"""Restoring photographs of any size without training for it: super-resolution, inpainting, denoising, deblurring.

In this room: what was measured (block means, pixels, a blur), and data-consistent steps by which a network for photographs
fills in the rest; in tiles. Not in this room: haze (dehazing), files and pages (restoration_command).

**Data-consistent steps** are steps of a diffusion (E1) for the denoiser D moved towards what was measured, b = A x + noise·n:

    x̂ = argmin |A x - b|²/noise² + |x - D(y, sigma)|²/sigma²,     y <- x̂ + rho·(y - x̂)

Without noise x̂ = D + A⁺(b - A D), the null-space projection (DDNM, Wang et al. 2022); with noise it is a proximal step
(plug-and-play by half-quadratic splitting; DiffPIR, Zhu et al. 2023). They start from a simple estimate taken as the latent: no
noise is drawn, so every call gives the same.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import images, tiles
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.models import priors, store

FACTORS = (2, 4)
FIRST = {2: 0.03, 4: 0.12}  # noise level of the first step of super-resolution
LAST = 0.01  # noise level of the last step
NOISE = 0.005  # of values in [-1, 1]: rounding to 8 bits has 0.0023
Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored photograph.

    Attributes:
      image: float32 in [-1, 1]. start: the simple estimate that it is compared with, of the same shape.
      evaluations: of the network on the whole photograph. tiles: that each of them took.
      consistency: the root mean square of A x - b, of values in [-1, 1].
    """

    image: np.ndarray
    start: np.ndarray
    evaluations: int
    tiles: int
    consistency: float


def super_resolve(
    image,
    factor: int = 2,
    model: str | Denoiser = "photos-monotone",
    *,
    steps: int = 4,
    first: float | None = None,
    tile: int = tiles.SIDE,
    progress: Progress | None = None,
) -> Restored:
    """A photograph ``factor`` times larger, whose block means are ``image``: (h·factor, w·factor) or with 3 channels.

    Bicubic interpolation (``start``), projected on the images with these block means, and ``steps`` data-consistent steps.

    Args:
      image: (h, w) or (h, w, 3) in [-1, 1]. factor: 2 or 4. steps: 0 for the projection alone.
      first: noise level of the first step; by default what did best on parts of three photographs (FIRST).
      tile: pixels a side. progress: called with (steps done, steps in all, what is done).

    Raises:
      FpjaxError: for other shapes, values that are not finite, a model without patches, or options out of range.
    """
    if factor not in FACTORS:
        raise FpjaxError(f"super-resolution takes a factor of 2 or 4, not {factor}")
    given, den = _given(image, 0.0, steps), _model(model)
    multiple = max(1, tiles.multiple(den) // factor)
    low = _padded(given, multiple, 16 // factor)
    b = jnp.asarray(low)

    def consistent(x, _=0.0):
        return x + up(b - down(x, factor), factor)

    start = enlarge(low, factor)
    levels = _levels(FIRST[factor] if first is None else first, steps)
    x, count = _steps(den, consistent(jnp.asarray(start)), consistent, levels, tile, progress)
    error = down(np.asarray(x, np.float64), factor) - low
    keep = tuple(n * factor for n in given.shape[1:])
    return _restored(image, x, start, keep, steps, count, error)


def inpaint(
    image,
    mask,
    model: str | Denoiser = "photos-monotone",
    *,
    steps: int = 4,
    first: float = 0.03,
    tile: int = tiles.SIDE,
    progress: Progress | None = None,
) -> Restored:
    """A photograph whose pixels under ``mask`` are unknown; the others are kept as they are.

    ``start`` solves the biharmonic equation under the mask (scikit-image), and data-consistent steps follow.

    Args:
      image: (h, w) or (h, w, 3) in [-1, 1]; what stands under the mask is not looked at. mask: (h, w) bool, True where unknown.
      steps, first, tile, progress: as in :func:`super_resolve`.

    Raises:
      FpjaxError: as :func:`super_resolve`, for a mask of another shape, one that leaves nothing known, or without scikit-image.
    """
    hole = np.asarray(mask)
    if hole.dtype != bool or hole.shape != np.shape(image)[:2]:
        raise FpjaxError(f"a mask is bool (height, width) like its image, not {hole.dtype} {hole.shape}")
    if hole.all():
        raise FpjaxError("inpainting needs some known pixels; the mask covers all")
    try:
        from skimage.restoration import inpaint_biharmonic
    except ImportError:
        raise FpjaxError("inpainting starts from scikit-image's; install it by: pip install scikit-image") from None
    given, den = (
        _given(np.where(hole if np.ndim(image) == 2 else hole[..., None], 0.0, image), 0.0, steps),
        _model(model),
    )
    simple = inpaint_biharmonic(given, hole, channel_axis=0).astype(np.float32)
    start = jnp.asarray(_padded(simple, tiles.multiple(den), 16))
    away = jnp.asarray(_padded(hole[None].astype(np.float32), tiles.multiple(den), 16)) > 0

    def consistent(x, _):
        return jnp.where(away, x, start)

    x, count = _steps(den, start, consistent, _levels(first, steps), tile, progress)
    kept = np.where(hole[None], 0.0, np.asarray(x)[:, : hole.shape[0], : hole.shape[1]] - given)
    return _restored(image, x, start, given.shape[1:], steps, count, kept)


def denoise(
    image,
    noise: float,
    model: str | Denoiser = "photos-monotone",
    *,
    tile: int = tiles.SIDE,
    progress: Progress | None = None,
) -> Restored:
    """A photograph without its noise: D(image, noise), one evaluation; ``start`` is the photograph.

    Args:
      image: (h, w) or (h, w, 3), values in [-1, 1] and noise beyond. noise: its standard deviation in the same units, > 0.

    Raises:
      FpjaxError: as :func:`super_resolve`.
    """
    given = _given(image, noise, 0)
    if not noise > 0:
        raise FpjaxError(f"denoising needs a noise level above 0, got {noise}")
    den = _model(model)
    y = jnp.asarray(_padded(given, tiles.multiple(den), 16))
    den = tiles.in_tiles(priors.at_size(den, *y.shape[1:]), tile)
    _tell(progress, 0, 1)
    x = tiles.evaluate_tiles(den, y, noise, den.null)
    _tell(progress, 1, 1)
    return _restored(image, x, given, given.shape[1:], 1, _count(den), np.asarray(x - y))


def deblur(
    image,
    width: float,
    model: str | Denoiser = "photos-monotone",
    *,
    noise: float = NOISE,
    steps: int = 8,
    tile: int = tiles.SIDE,
    progress: Progress | None = None,
) -> Restored:
    """A photograph without the Gaussian blur that it was taken with; ``start`` is Wiener's filter with flat spectra.

    The blur exp(-width²·ω²/2) goes over mirrored borders, so it is diagonal in the cosine transform (DCT-II).

    Args:
      image: (h, w) or (h, w, 3) in [-1, 1]. width: standard deviation of the blur in pixels, > 0. noise: after the blur, > 0.

    Raises:
      FpjaxError: as :func:`super_resolve`.
    """
    given = _given(image, noise, steps)
    if not (width > 0 and noise > 0):
        raise FpjaxError(f"deblurring needs a width and a noise above 0, got {width} and {noise}")
    den = _model(model)
    b = jnp.asarray(_padded(given, tiles.multiple(den), 16))
    gain = jnp.asarray(blur_gain(b.shape[1], b.shape[2], width)[None], b.dtype)
    seen = jax.scipy.fft.dctn(b, axes=(1, 2), norm="ortho")

    def consistent(x, sigma):
        inside = jax.scipy.fft.dctn(x, axes=(1, 2), norm="ortho")
        inside += gain / (gain**2 + (noise / sigma) ** 2) * (seen - gain * inside)
        return jax.scipy.fft.idctn(inside, axes=(1, 2), norm="ortho")

    start = consistent(b, 0.1)
    x, count = _steps(den, start, consistent, _levels(0.1, steps), tile, progress)
    inside = gain * jax.scipy.fft.dctn(x, axes=(1, 2), norm="ortho") - seen
    return _restored(image, x, np.asarray(start), given.shape[1:], steps, count, np.asarray(inside))


def blur_gain(height: int, width: int, deviation: float) -> np.ndarray:
    """What a Gaussian blur over mirrored borders does to each coefficient of the DCT-II, (height, width)."""
    down, across = (np.pi * np.arange(n) / n for n in (height, width))
    return np.exp(-(deviation**2) / 2 * (down[:, None] ** 2 + across[None, :] ** 2))


def enlarge(image, factor: int) -> np.ndarray:
    """Bicubic interpolation (Keys 1981, a = -1/2: Catmull & Rom) of (channels, h, w) to factor times the size, pixel centres
    where those of blocks are."""
    c, h, w = image.shape
    return np.asarray(jax.image.resize(jnp.asarray(image), (c, h * factor, w * factor), "cubic"))


def down(image, factor: int):
    """The means of blocks, (channels, h/factor, w/factor), of an image (channels, h, w)."""
    c, h, w = image.shape
    return image.reshape(c, h // factor, factor, w // factor, factor).mean(axis=(2, 4))


def up(image, factor: int):
    """Each pixel as a block: the pseudo-inverse of :func:`down`."""
    return image.repeat(factor, axis=1).repeat(factor, axis=2)


def _steps(den, x, consistent, levels, tile: int, progress) -> tuple[jax.Array, int]:
    """Data-consistent steps at falling noise levels from x (channels, h, w), taken as the latent at the first; and the tiles."""
    den = tiles.in_tiles(priors.at_size(den, *x.shape[1:]), tile)
    y = x
    for i, (sigma, after) in enumerate(itertools.pairwise([*levels, 0.0])):
        _tell(progress, i, len(levels))
        x = consistent(tiles.evaluate_tiles(den, y, sigma, den.null), sigma)
        y = x + after / sigma * (y - x)
    _tell(progress, len(levels), len(levels))
    return x, _count(den)


def _levels(first: float, steps: int) -> list[float]:
    return np.geomspace(max(first, LAST), LAST, steps).tolist() if steps > 1 else [LAST] * steps


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total, "restoring")


def _count(den: Denoiser) -> int:
    return len(den.fn.starts(*den.shape[-2:])) if isinstance(den.fn, tiles.Tiled) else 1


def _model(model: str | Denoiser) -> Denoiser:
    """A denoiser of colour patches."""
    den = store.load(model) if isinstance(model, str) else model
    tiles.multiple(den)
    if len(den.shape) != 3 or den.shape[0] != 3:
        raise FpjaxError(f"{den.name} takes images of shape {den.shape}; photographs need one with three channels")
    return den.astype(jnp.float32)


def _given(image, noise: float, steps: int) -> np.ndarray:
    """(3, h, w) float32, after a look."""
    values = images.photograph(image, np.float32)
    if not (0 <= noise < math.inf) or steps < 0:
        raise FpjaxError(f"noise and steps must be at least 0, got {noise} and {steps}")
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _padded(image: np.ndarray, multiple: int, least: int) -> np.ndarray:
    """Mirrored below and to the right until both sides are multiples, and at least ``least``."""
    more = [max(-(-n // multiple) * multiple, -(-least // multiple) * multiple) - n for n in image.shape[1:]]
    return np.pad(image, ((0, 0), (0, more[0]), (0, more[1])), mode="symmetric")


def _restored(image, x, start, size, evaluations: int, count: int, error) -> Restored:
    def as_given(v):
        v = np.clip(np.asarray(v)[:, : size[0], : size[1]].transpose(1, 2, 0), -1, 1)
        return v if np.ndim(image) == 3 else v.mean(axis=2)

    rms = float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))
    return Restored(as_given(x), as_given(start), evaluations, count, rms)
