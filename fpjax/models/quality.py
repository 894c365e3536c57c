"""How good generated images are: a small classifier of their classes, and a Fréchet distance of its features.

In this room: the classifier of each embedded data set, trained where it is asked for; the distance; images generated from noise,
and a sheet of them. Not in this room: features of large networks, so no distance here compares with a published one.
"""

import dataclasses
import functools
import io
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from PIL import Image

from fpjax import data, process
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.models import distilled, store
from fpjax.trajectory import generate

UPDATES, BATCH, LEARNING_RATE = 1000, 128, 2e-3  # of AdamW with a cosine schedule
SIDE = 40  # pixels on each side of an image on a sheet, at least
CHUNK, FEATURES, SMALL = 500, 64, 256  # images in a call; width before the last layer; values for dense layers alone


class Network(nnx.Module):
    """Images (n, *shape) to features (n, FEATURES) and logits (n, classes): dense layers, with convolutions above SMALL."""

    def __init__(self, shape: tuple[int, ...], classes: int, *, rngs: nnx.Rngs):
        widths, sizes = (), (math.prod(shape), 128, FEATURES)
        if sizes[0] > SMALL:
            widths, sizes = (1, 16, 32), (32 * math.prod(-(-n // 4) for n in shape), FEATURES)
        self.enter = nnx.List([nnx.Conv(a, b, (3, 3), strides=2, rngs=rngs) for a, b in itertools.pairwise(widths)])
        self.dense = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes)])
        self.last = nnx.Linear(FEATURES, classes, rngs=rngs)

    def __call__(self, images):
        """(features, logits)."""
        h = images[..., None]
        for convolution in self.enter:
            h = nnx.silu(convolution(h))
        h = h.reshape(len(images), -1)
        for layer in self.dense:
            h = nnx.silu(layer(h))
        return h, self.last(h)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A trained classifier of images (n, *shape) in [-1, 1] of one data set of :mod:`fpjax.data`.

    ``held_out_accuracy`` is the share of the data set's held-out images whose most probable class is their label. Every method
    raises FpjaxError for images of another shape, no images, or values that are not finite.
    """

    dataset: str
    names: tuple[str, ...]
    shape: tuple[int, ...]
    network: Network
    held_out_accuracy: float = math.nan

    def probabilities(self, images) -> np.ndarray:
        """The probability of each class, (n, classes) float32."""
        logits = self._outputs(images)[1]
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        return weights / weights.sum(axis=1, keepdims=True)

    def features(self, images) -> np.ndarray:
        """The values of the layer before the last, (n, FEATURES) float32."""
        return self._outputs(images)[0]

    def _outputs(self, images) -> tuple[np.ndarray, np.ndarray]:
        """Features and logits, ``CHUNK`` images a call, the last one filled up: one program serves all."""
        x = np.asarray(images, np.float32)
        if x.ndim != len(self.shape) + 1 or x.shape[1:] != self.shape or len(x) == 0 or not np.isfinite(x).all():
            raise FpjaxError(f"the classifier takes finite images {('n', *self.shape)}, n at least 1, not {x.shape}")
        full = np.pad(x, [(0, -len(x) % CHUNK), *[(0, 0)] * len(self.shape)])
        parts = [_forward(self.network, part) for part in np.split(full, len(full) // CHUNK)]
        return np.concatenate([p[0] for p in parts])[: len(x)], np.concatenate([p[1] for p in parts])[: len(x)]


_forward = nnx.jit(Network.__call__)


@functools.cache
def classifier(dataset: str, seed: int = 0) -> Classifier:
    """A classifier trained on a data set's training images (cross-entropy): the same for a seed, kept for later calls.

    Args:
      dataset: a name of :mod:`fpjax.data` with classes. seed: of the start and of the batches.

    Raises:
      FpjaxError: for an unknown data set, one without classes or not installed, or a training that became NaN or infinite.
    """
    split = data.load(dataset)
    if not split.names:
        raise FpjaxError(f"{dataset} has no classes to tell apart; choose a data set with labels")
    shape, rng, value = split.train.shape[1:], np.random.default_rng(seed), jnp.zeros(())
    graph, state = nnx.split(Network(shape, len(split.names), rngs=nnx.Rngs(seed)))
    optimiser = optax.adamw(optax.cosine_decay_schedule(LEARNING_RATE, UPDATES), weight_decay=1e-2)
    update = jax.jit(functools.partial(_update, graph, optimiser), donate_argnums=(0, 1))
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # inside optax
        moments = optimiser.init(state)
        for _ in range(UPDATES):
            rows = rng.integers(len(split.train), size=BATCH)
            state, moments, value = update(state, moments, split.train[rows], split.train_labels[rows])
    if not np.isfinite(float(value)):
        raise FpjaxError(f"the training of the classifier of {dataset} became NaN or infinite; choose another seed")
    found = Classifier(dataset, split.names, shape, nnx.merge(graph, state))
    right = found.probabilities(split.held_out).argmax(axis=1) == split.held_out_labels
    return dataclasses.replace(found, held_out_accuracy=float(right.mean()))


def _update(graph, optimiser, state, moments, images, labels):
    def loss(state):
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(nnx.merge(graph, state)(images)[1], labels))

    value, gradient = jax.value_and_grad(loss)(state)
    updates, moments = optimiser.update(gradient, moments, state)
    return optax.apply_updates(state, updates), moments, value


def frechet(features_a, features_b) -> float:
    """|m_a - m_b|² + tr(C_a + C_b - 2(C_a C_b)^(1/2)) of the Gaussians of two sets, squared as in Heusel et al. 2017 (Dowson &
    Landau 1982); unbiased covariances, float64.

    The features of :func:`classifier` are those of a small classifier trained here: distances compare only with one another, for
    one classifier and equal numbers of rows (few rows make them larger), never with a published FID. The trace of the root is
    the sum of the singular values of R_a R_bᵀ with C = Rᵀ R, so singular covariances lose no digits.

    Args:
      features_a, features_b: (n, width) and (m, width), n and m at least 2.

    Raises:
      FpjaxError: for other shapes, fewer than 2 rows, widths that differ, values that are not real, finite and of moderate size.
    """
    sets = [_rows(features_a), _rows(features_b)]
    if sets[0].shape[1] != sets[1].shape[1]:
        raise FpjaxError(f"the features have {sets[0].shape[1]} and {sets[1].shape[1]} columns; use one classifier")
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        means = [x.mean(axis=0) for x in sets]
        roots = [(x - mean) / (len(x) - 1) ** 0.5 for x, mean in zip(sets, means, strict=True)]
        total = float(np.sum((means[0] - means[1]) ** 2) + sum(np.sum(root**2) for root in roots))
    if not math.isfinite(total):
        raise FpjaxError("the features are too large for a distance in float64; scale them down")
    a, b = (np.asarray(np.linalg.qr(root, mode="r")) for root in roots)
    return max(total - 2 * float(np.linalg.svd(a @ b.T, compute_uv=False).sum()), 0.0)


def _rows(features) -> np.ndarray:
    try:
        x = np.asarray(features).astype(np.float64, casting="safe")
    except (TypeError, ValueError) as error:
        raise FpjaxError(f"features are rows of real numbers ({error})") from None
    if x.ndim != 2 or x.shape[0] < 2 or x.shape[1] < 1 or not np.isfinite(x).all():
        raise FpjaxError(f"a Gaussian needs finite features (n, width) with n at least 2; the shape is {x.shape}")
    return x


def sample(den: Denoiser, n: int, steps: int = 20, seed: int = 0, *, guidance: float = 1.0):
    """Images (n, *den.shape) float32 generated from noise by DDIM (Song et al. 2021) on DDPM's linear schedule, and their
    conditions (n,) int32, which take turns (0, meaning none, where ``den`` has none).

    The noise depends on seed and shape alone: two denoisers start from the same.

    Args:
      den: any denoiser. steps: of DDIM, 1 to 1000. guidance: classifier-free (T11), see :func:`fpjax.generate`.

    Raises:
      FpjaxError: for n below 1, steps or guidance out of range, or images that are not finite.
    """
    if n < 1:
        raise FpjaxError(f"ask for at least one image, not {n}")
    levels, turns = process.ddim(steps), np.arange(n, dtype=np.int32) % max(len(den.conditions), 1)
    noise, sigma = np.random.default_rng(seed).standard_normal((n, *den.shape)), levels.levels[-1]
    latent = np.float32(noise * sigma * levels.scale(sigma))  # y = sigma·n, in the process's coordinates
    condition = turns if den.conditions else None
    images = np.asarray(generate(den, latent, levels, condition=condition, guidance=guidance))
    if not np.isfinite(images).all():
        raise FpjaxError(f"{den.name} at guidance {guidance:g} generates NaN or infinite values; use less guidance")
    return images, turns


def sheet(path: str | Path, den: Denoiser, columns: int = 8, steps: int = 20, seed: int = 0) -> dict[str, Any]:
    """Writes images of :func:`sample` as one PNG, enlarged, and says how they were made, for a model card.

    Two rows without guidance; of a network that takes the weight (:mod:`fpjax.models.distilled`) a row for each of its knots,
    from the same noise.

    Returns:
      Plain data: file, images, conditions, sampler, steps, seed and guidance (a list of weights).

    Raises:
      FpjaxError: as :func:`sample`, or for a file that cannot be written.
    """
    if den.fn is distilled.denoise:
        weights = [float(w) for w in den.params["weights"]]
        images = np.concatenate([sample(distilled.guided(den, w), columns, steps, seed)[0] for w in weights])
    else:
        weights, (images, _) = [1.0], sample(den, 2 * columns, steps, seed)
    times, out = -(-SIDE // min(den.shape[-2:])), io.BytesIO()
    pixels = grid(images, columns).repeat(times, axis=0).repeat(times, axis=1)
    Image.fromarray(pixels).save(out, "PNG")
    store.write_atomic(Path(path), out.getvalue())
    sampler = "DDIM on DDPM's linear schedule (fpjax.models.quality.sample)"
    made = {"file": Path(path).name, "images": len(images), "conditions": "in turns" if den.conditions else "none"}
    return made | {"sampler": sampler, "steps": steps, "seed": seed, "guidance": weights}


def grid(images, columns: int) -> np.ndarray:
    """Images in [-1, 1] (others are clipped), row by row on one sheet: (n, h, w) as uint8 (rows·h, columns·w), (n, 3, h, w) as
    (rows·h, columns·w, 3); what is left of the last row is black. FpjaxError for other shapes, no images, columns below 1 or NaN.
    """
    x = np.asarray(images, np.float64)
    colour = x.ndim == 4 and x.shape[1] == 3
    if not (colour or x.ndim == 3) or 0 in x.shape or columns < 1 or np.isnan(x).any():
        raise FpjaxError(
            f"a sheet takes images (n, h, w) or (n, 3, h, w) without NaN, and columns, not {x.shape}, {columns}"
        )
    x = np.rint((np.clip(x, -1, 1) + 1) * 127.5).astype(np.uint8).reshape(len(x), -1, *x.shape[-2:])
    x = np.pad(x, ((0, -len(x) % columns), (0, 0), (0, 0), (0, 0)))
    x = x.reshape(-1, columns, *x.shape[1:]).transpose(0, 3, 1, 4, 2)  # row, y, column, x, channel
    sheet = x.reshape(x.shape[0] * x.shape[1], -1, x.shape[-1])
    return sheet if colour else sheet[..., 0]
