"""What a command works on: the model, the process and the images that its arguments name.

In this room: embedded images, image files and random images, and which of them fit a model; a checkpoint's own scheduler and
autoencoder. Not in this room: the options themselves (command), what is done with a subject (cli).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fpjax import data, process
from fpjax import images as photos
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.models import store
from fpjax.process import Process

COARSE = 4  # a random image is smooth over this many pixels


@dataclass(frozen=True)
class Subject:
    """A model with its process and images.

    Attributes:
      den: the denoiser. process: noise levels.
      images: (n, *den.shape) float32. condition: (n,) int32, or None for a model without conditions.
      source: what the images are, in words, for the report.
    """

    den: Denoiser
    process: Process
    images: np.ndarray
    condition: np.ndarray | None
    source: str


def make(
    model: str,
    kind: str | None,
    steps: int,
    images: list[str],
    seed: int = 0,
    *,
    prompts: list[str] | None = None,
    settings: list[str] | None = None,
) -> Subject:
    """The subject that a command's arguments name.

    Args:
      model: as for :func:`fpjax.load`. kind: a process by name; None for a checkpoint's own scheduler, else "ddim".
      images: how many embedded (or, where none fit, random) images, as one number; or image files.
      prompts: of a text-to-image checkpoint. settings: ``KEY=VALUE`` that override its scheduler's.

    Raises:
      FpjaxError: for anything that does not exist or does not fit.
    """
    if not store.is_diffusers(model):
        if prompts or settings:
            raise FpjaxError(f"--prompt and --set are for diffusers checkpoints, and {model!r} is none")
        den = store.load(model)
        return Subject(den, process.make(kind or "ddim", steps), *pictures(den, images, seed))
    from fpjax.diffusers import open_checkpoint

    checkpoint = open_checkpoint(model, prompts=prompts or None)
    den = checkpoint.denoiser
    if kind is not None and settings:
        raise FpjaxError("--set changes the checkpoint's own scheduler, so leave --process out")
    grid = process.make(kind, steps) if kind else checkpoint.process(steps, **overrides(settings or []))
    return Subject(den, grid, *pictures(den, images, seed, checkpoint.encoder))


def overrides(settings: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` with values in JSON, or as they stand where they are none.

    Raises:
      FpjaxError: where there is no "=".
    """
    found = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise FpjaxError(f"--set takes KEY=VALUE, like clip_sample=false, not {text!r}")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def pictures(den: Denoiser, images: list[str], seed: int, encoder=None) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Images for a model, their conditions, and what they are.

    Raises:
      FpjaxError: if files cannot be read or do not fit, or the number is not positive.
    """
    if len(images) == 1 and images[0].lstrip("-").isdigit():
        n = int(images[0])
        found = embedded(den, n, seed)
        if found is not None:
            return found if den.conditions else (found[0], None, found[2])
        if n < 1:
            raise FpjaxError(f"ask for at least 1 image, not {n}")
        x, source = random_images(den.shape, n, seed), f"{n} smooth random images, seed {seed}"
    else:
        x = read_images([Path(name) for name in images], den.shape, encoder)
        source = f"image files {', '.join(Path(name).name for name in images)}"
        source += " through the checkpoint's autoencoder" if encoder is not None else ""
    count = len(den.conditions)
    condition = np.arange(len(x), dtype=np.int32) % count if count else None
    return x, condition, source


def embedded(den: Denoiser, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, str] | None:
    """Held-out images of an embedded data set that fits a model, their labels, and what they are; None where none fits.

    Raises:
      FpjaxError: if the data set has fewer.
    """
    for name in sorted(data.HELD_OUT, key=lambda name: not den.name.startswith(f"{name}-")):  # its own data set first
        if data.held_out(name)[0].shape[1:] == den.shape:
            x, labels = data.samples(name, n, seed)
            if not den.conditions or labels.max() < len(den.conditions):
                return x, labels, f"{n} held-out {name}, seed {seed}"
    return None


def random_images(shape: tuple[int, ...], n: int, seed: int) -> np.ndarray:
    """Images (n, *shape) float32 in (-1, 1), constant over squares of COARSE pixels and then smoothed; no data set's."""
    rng = np.random.default_rng(seed)
    if len(shape) != 3:
        return np.tanh(rng.normal(size=(n, *shape))).astype(np.float32)
    c, h, w = shape
    coarse = rng.normal(size=(n, c, -(-h // COARSE) + 1, -(-w // COARSE) + 1))
    fine = coarse.repeat(COARSE, axis=2).repeat(COARSE, axis=3)
    smooth = np.mean([fine[:, :, i : i + h, j : j + w] for i in range(COARSE) for j in range(COARSE)], axis=0)
    return np.tanh(1.5 * smooth).astype(np.float32)


def read_images(files: list[Path], shape: tuple[int, ...], encoder=None) -> np.ndarray:
    """Image files, centre-cropped to a square, scaled to a model's size, in [-1, 1]; through an encoder for a latent model.

    Raises:
      FpjaxError: for a file that is no image (:func:`fpjax.images.read`), or a model that takes none.
    """
    factor, channels = (1, shape[0]) if encoder is None else (encoder.factor, encoder.channels)
    if len(shape) != 3 or channels not in (1, 3):
        raise FpjaxError(f"image files have 1 or 3 channels, and this model takes points of shape {shape}")
    from PIL import Image, ImageOps

    found = []
    for file in files:
        values = np.clip(np.rint(127.5 * (photos.read(file) + 1)), 0, 255).astype(np.uint8)
        picture = Image.fromarray(values).convert("RGB" if channels == 3 else "L")
        picture = ImageOps.fit(picture, (shape[2] * factor, shape[1] * factor))
        pixels = np.asarray(picture, np.float32) / 127.5 - 1
        found.append(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))
    stacked = np.stack(found)
    return stacked if encoder is None else np.asarray(encoder.encode(stacked), np.float32)
