"""A denoiser of a large image in tiles: memory that does not grow with the image, and the same values.

In this room: D(y) computed tile after tile, each with so much of its neighbourhood that its inner part is what the whole image
would give; images padded to whole strides. Not in this room: what is done with D (trajectory, restoration).

A mixture of patches (:mod:`fpjax.models.patches`) sees at most a patch's side n - 1 pixels to each side of a pixel. A tile that
begins on a stride and has n pixels around its inner part, or ends where the image does, has the same patches there, so stitched
tiles differ from the untiled D by the rounding of sums alone. As this is done inside each evaluation of D, a whole trajectory
of tiles equals the untiled one likewise: there are no seams.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import sharding
from fpjax.denoiser import Denoiser, evaluate
from fpjax.evidence import FpjaxError
from fpjax.models import patches, priors

SIDE = 384  # pixels of a tile


@dataclasses.dataclass(frozen=True)
class Tiled:
    """``fn(params, y, sigma, condition)`` of a denoiser, tile after tile; y is (h, w) or (channels, h, w).

    Attributes:
      fn: the untiled function. side: pixels of a tile. overlap: pixels around the inner part.
    """

    fn: Callable
    side: int
    overlap: int

    def starts(self, height: int, width: int) -> np.ndarray:
        """Where tiles begin, (k, 2); the last ones of a row and of a column end where the image does."""
        rows = [_starts(length, self.side, self.overlap) for length in (height, width)]
        return np.asarray(list(itertools.product(*rows)), np.int32)

    def tile(self, y) -> tuple[int, int]:
        """Height and width of the tiles of an image."""
        return min(self.side, y.shape[-2]), min(self.side, y.shape[-1])

    def cut(self, y, start):
        """The tile of an image that begins at ``start`` (2,)."""
        begin = (*[jnp.zeros_like(start[0])] * (y.ndim - 2), start[0], start[1])
        return jax.lax.dynamic_slice(y, begin, (*y.shape[:-2], *self.tile(y)))

    def stitch(self, like, tiles, starts):
        """The image whose tiles' inner parts these are: tiles (k, ...), starts (k, 2)."""

        def put(image, given):
            tile, start = given
            keep = self._inner(like.shape[-2], start[0], tile.shape[-2])[:, None]
            keep &= self._inner(like.shape[-1], start[1], tile.shape[-1])[None, :]
            keep = jnp.broadcast_to(keep, tile.shape)
            begin = (*[jnp.zeros_like(start[0])] * (tile.ndim - 2), start[0], start[1])
            there = jax.lax.dynamic_slice(image, begin, tile.shape)
            return jax.lax.dynamic_update_slice(image, jnp.where(keep, tile, there), begin), None

        return jax.lax.scan(put, jnp.zeros_like(like), (tiles, starts))[0]

    def _inner(self, length: int, start, size: int):
        """Which of a tile's pixels are its own along one side, (size,)."""
        i = jnp.arange(size)
        after = (i >= self.overlap) | (start == 0)
        return after & ((i < size - self.overlap) | (start + size == length))

    def __call__(self, params, y, sigma, condition):
        """D(y, sigma)."""
        starts = jnp.asarray(self.starts(*y.shape[-2:]))
        tiles = jax.lax.map(lambda s: self.fn(params, self.cut(y, s), sigma, condition), starts)
        return self.stitch(y, tiles, starts)


def _starts(length: int, side: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    return [*range(0, length - side, side - 2 * overlap), length - side]


def multiple(den: Denoiser) -> int:
    """How many pixels the sides of an image must be a multiple of so that a mixture of patches keeps its own strides.

    Raises:
      FpjaxError: for a denoiser that is no mixture of patches, or sum of such.
    """
    return math.lcm(*(max(1, n // 4) for n in _sides(den)))


def in_tiles(den: Denoiser, side: int = SIDE) -> Denoiser:
    """The same denoiser computed in tiles of at most ``side`` pixels a side; ``den`` itself where one tile is all.

    Args:
      den: a mixture of patches or a sum of such, at the image's size (:func:`fpjax.models.priors.at_size`), a multiple of
        :func:`multiple`. side: at least four patches, rounded down to such a multiple.

    Raises:
      FpjaxError: for another denoiser, a size that is no such multiple, or tiles that are too small.
    """
    patch, step = max(_sides(den)), multiple(den)
    if den.shape[-2] % step or den.shape[-1] % step:
        raise FpjaxError(
            f"tiles need an image whose sides are multiples of {step} pixels, not {den.shape}; pad it first"
        )
    if side < 4 * patch:
        raise FpjaxError(f"tiles of {den.name} need a side of at least {4 * patch} pixels, got {side}")
    if max(den.shape[-2:]) <= side:
        return den
    overlap = -(-patch // step) * step
    return dataclasses.replace(den, fn=Tiled(den.fn, side // step * step, overlap), name=f"{den.name} in tiles")


def evaluate_tiles(den: Denoiser, y, sigma, condition):
    """D(y, sigma) of one image, its tiles shared out over all devices of this process (:mod:`fpjax.sharding`).

    Args:
      den: any denoiser; of one in tiles (:func:`in_tiles`) each device computes its share. y: (channels, h, w).
      sigma: scalar > 0. condition: int32 scalar.
    """
    shared = (den, y, jnp.asarray(sigma, y.dtype), jnp.asarray(condition, jnp.int32))
    if not isinstance(den.fn, Tiled):
        return _whole(*shared)
    starts = jnp.asarray(den.fn.starts(*y.shape[-2:]))
    tiles, _, _ = sharding.over_devices(_share, None, shared, starts)
    return _stitch(den.fn, y, tiles, starts)


_whole = jax.jit(evaluate)
_stitch = jax.jit(lambda fn, y, tiles, starts: fn.stitch(y, tiles, starts), static_argnums=0)


def _share(_, shared, starts):
    den, y, sigma, condition = shared
    fn = den.fn
    part = dataclasses.replace(den, fn=fn.fn)
    return jax.lax.map(lambda s: evaluate(part, fn.cut(y, s), sigma, condition), starts), ()


def _sides(den: Denoiser) -> list[int]:
    fn = den.fn.fn if isinstance(den.fn, Tiled) else den.fn
    parts = den.params["parts"] if fn is priors.denoise else [den.params if fn is patches.denoise else {}]
    if not all("patch_means" in part for part in parts):
        raise FpjaxError(
            f"{den.name} is no mixture of patches, so it has no tiles; use photos-monotone or haze-monotone"
        )
    channels = den.shape[0] if len(den.shape) == 3 else 1
    return [patches.side(part["patch_means"].shape[1], channels) for part in parts]
