"""Denoisers invertible by construction (T6): the gradient in y of a convex function, at every noise level.

``LearnedMixture`` is the exact denoiser of a learned prior, a mixture of low-rank Gaussians, ``LatentTree`` that of a
hidden Markov tree over the pixels, ``PatchMixture`` the mean of a mixture's over all patches, ``PriorSum`` a weighted sum of
such, ``GuidedTree`` a tree for every weight of guidance. The proofs that they are monotone, whatever is stored, are in
:mod:`fpjax.models.mixture`, :mod:`fpjax.models.tree`, :mod:`fpjax.models.patches`, :mod:`fpjax.models.priors` and
:mod:`fpjax.models.distilled`.

Each has ``function``, which is pure, and ``prior()``, its parameters; ``tensors()``, the same by name, as stored; and
``layers()``, the program for the certificate kernel.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.models import distilled, mixture, patches, priors, starts, tree

LEAST = 1e-6  # of a tree's weights: what no image of the training set shows is rare, not impossible


class LearnedMixture(nnx.Module):
    """Trainable means, factors, variances and class weights of a mixture prior.

    Args:
      images, labels: training data (n, *shape), (n,); the start is k-means within each class, with the principal
        directions of each cluster.
      conditions: how many classes, or 0.
      per_class: components for each class, or in all. rank: directions of each component.
      seed: of the k-means.
    """

    function = staticmethod(mixture.denoise)

    def __init__(self, images, labels, conditions: int, *, per_class: int = 6, rank: int = 8, seed: int = 0):
        flat = np.asarray(images).reshape(len(images), -1)
        self.conditional = conditions > 0
        start = starts.mixture(flat, labels, max(1, conditions), per_class, rank, seed)
        _trainable(self, start)

    def prior(self) -> dict[str, jax.Array]:
        """The parameters of :func:`fpjax.models.mixture.denoise`; factors orthonormal by QR."""
        return _mixture_prior(self)

    def tensors(self) -> dict[str, jax.Array]:
        """What is stored."""
        return self.prior()

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        return self.function(self.prior(), y, sigma, condition)

    def layers(self, prefix: str = "", out: str = "D") -> list[dict]:
        """The program for the certificate kernel: one operation."""
        return [{"op": "mixture", "out": out, "in": "y", **{name: prefix + name for name in mixture.TENSORS}}]


class PatchMixture(nnx.Module):
    """Trainable mixture of low-rank Gaussians over the patches of an image (:mod:`fpjax.models.patches`).

    Args:
      images, labels: training data (n, h, w) or (n, channels, h, w), (n,); the start is k-means of patches.
      conditions: how many classes, or 0. components: of the mixture. rank: directions of each.
      side: pixels on each side of a patch, even. seed: of the k-means.
      apart: whether each class starts with components of its own, for classes that patches show (haze; not digits).
    """

    function = staticmethod(patches.denoise)

    def __init__(
        self,
        images,
        labels,
        conditions: int,
        *,
        components: int = 40,
        rank: int = 16,
        side: int = 8,
        apart: bool = False,
        seed: int = 0,
    ):
        images = np.asarray(images)
        self.image = (1 if images.ndim == 3 else images.shape[1], *images.shape[-2:])
        self.side, self.conditional = side, conditions > 0
        data = images.reshape(len(images), *self.image)
        classes = np.asarray(labels) if apart else None
        start = starts.patches(data, components, rank, side, max(1, conditions), seed, classes)
        _trainable(self, start)

    def prior(self) -> dict[str, jax.Array]:
        """The parameters of :func:`fpjax.models.patches.denoise`."""
        found = _mixture_prior(self)
        return {"patch_means": found.pop("means"), **found}

    def tensors(self) -> dict[str, jax.Array]:
        """What is stored."""
        return self.prior()

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        return self.function(self.prior(), y, sigma, condition)

    def layers(self, prefix: str = "", out: str = "D") -> list[dict]:
        """The program for the certificate kernel: one operation, with that of a patch inside."""
        names = {name: prefix + name for name in mixture.TENSORS} | {"means": f"{prefix}patch_means"}
        n, (down, across) = self.side, patches.strides(self.side, *self.image[1:])
        cut = {"image": list(self.image), "patch": [n, n], "stride": [down, across], "border": "reflect"}
        return [
            {
                "op": "patches",
                "out": out,
                "in": "y",
                **cut,
                "layers": [{"op": "mixture", "out": "D", "in": "y", **names}],
            }
        ]


class LatentTree(nnx.Module):
    """Trainable Gaussians, weights of the leaves and levels, and class weights of a latent tree prior.

    Args:
      images, labels: training data (n, h, w), (n,); the start is k-means in every region, and how often the clusters of
        a region meet those of the region that it is merged into.
      conditions: how many classes, or 0. states: of each region. gaussians: that the pixels share.
      alike: in how many of the first merges regions are alike everywhere; not used with windows.
      window: the side, a power of 2, of the windows each of which is such a tree; 0 for one tree of the whole image.
      places: blocks of windows each way that have a last table of their own; 1 for images of any size. It must divide
        both sides of the image plus ``window`` - 1.
      per_class: states of a root of windows for each class.
      seed: of the k-means.

    Raises:
      FpjaxError: if the windows cannot be cut into so many blocks.
    """

    function = staticmethod(tree.denoise)

    def __init__(
        self,
        images,
        labels,
        conditions: int,
        *,
        states: int = 16,
        gaussians: int = 12,
        alike: int = 0,
        window: int = 0,
        places: int = 1,
        per_class: int = 1,
        seed: int = 0,
    ):
        self.image = tuple(np.shape(images)[1:])
        self.conditional = conditions > 0
        if any((side + window - 1) % places for side in self.image):
            raise FpjaxError(f"the windows of {window}×{window} cannot be cut into {places} blocks each way")
        data = (np.asarray(images), np.asarray(labels), max(1, conditions))
        self._begin(starts.tree(*data, states, gaussians, alike, seed, window, places, per_class))

    def _begin(self, start: dict) -> None:
        """The trainable logarithms of a tree's tensors."""
        self.means = nnx.Param(jnp.asarray(start["means"], jnp.float32))
        self.log_variances = nnx.Param(jnp.log(jnp.asarray(start["variances"], jnp.float32)))
        self.leaf = nnx.Param(jnp.log(jnp.asarray(start["leaf"], jnp.float32)))
        self.levels = nnx.List([nnx.Param(jnp.log(jnp.asarray(level, jnp.float32))) for level in start["levels"]])
        self.class_logits = nnx.Param(jnp.asarray(start["root"], jnp.float32))

    def prior(self) -> dict:
        """The parameters of :func:`fpjax.models.tree.denoise`."""
        return {
            "means": self.means[...],
            "variances": jnp.exp(self.log_variances[...]),
            "leaf": _probabilities(self.leaf[...]),
            "levels": [_probabilities(level[...]) for level in self.levels],
            "root": _joint(self.class_logits[...], self.conditional),
        }

    def tensors(self) -> dict[str, jax.Array]:
        """What is stored: the prior, its levels by name."""
        prior = self.prior()
        return {f"level.{i}": level for i, level in enumerate(prior.pop("levels"))} | prior

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        return self.function(self.prior(), y, sigma, condition)

    def layers(self, prefix: str = "", out: str = "D") -> list[dict]:
        """The program for the certificate kernel: one operation."""
        return tree_layers(self.image, len(self.levels), prefix, out)


class GuidedTree(nnx.Module):
    """Trainable latent trees at some weights of guidance, between which those of all others lie (distilled).

    Args:
      start: a latent tree with conditions; each tree starts as it is with its prior guided (:func:`fpjax.models.priors.guided`).
      weights: of guidance, increasing from 1.
    """

    function = staticmethod(distilled.denoise)

    def __init__(self, start: Denoiser, weights: tuple[float, ...]):
        self.weights = tuple(weights)
        self.knots = nnx.List([_TreeOf(priors.guided(start, w).params, start.shape) for w in self.weights])

    def prior(self) -> dict:
        """The parameters of :func:`fpjax.models.distilled.denoise`."""
        return {"weights": jnp.asarray(self.weights, jnp.float32), "knots": [knot.prior() for knot in self.knots]}

    def at(self, weight):
        """D(y, sigma, condition) at a weight of guidance."""
        return functools.partial(tree.denoise, distilled.at(self.prior(), weight))

    def tensors(self) -> dict[str, jax.Array]:
        """What is stored: the weights, and the trees as knot.i.NAME."""
        stored = {"weights": jnp.asarray(self.weights, jnp.float32)}
        for i, knot in enumerate(self.knots):
            stored |= {f"knot.{i}.{name}": value for name, value in knot.tensors().items()}
        return stored

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index, not guided."""
        return self.function(self.prior(), y, sigma, condition)

    def layers(self) -> list[dict]:
        """The program for the certificate kernel: the tree at weight 1."""
        return self.knots[0].layers("knot.0.")


class _TreeOf(LatentTree):
    """A trainable latent tree that starts from parameters of :func:`fpjax.models.tree.denoise` with conditions."""

    def __init__(self, params: dict, image: tuple[int, ...]):
        self.image, self.conditional = image, True
        self._begin(jax.tree.map(jnp.array, params | {"root": params["root"][:-1]}))  # buffers of its own


class PriorSum(nnx.Module):
    """A sum of learned priors' denoisers with trainable shares; the start is the best sum at each noise level.

    Args:
      parts: learned priors over the same images and conditions. images, labels: training data (n, *shape), (n,).
    """

    function = staticmethod(priors.denoise)

    def __init__(self, parts: list, images, labels):
        self.parts = nnx.List(parts)
        logs = starts.shares(parts, np.asarray(images), np.asarray(labels), np.exp(4 * np.asarray(priors.KNOTS)))
        weight, bias = priors.through(logs)
        self.weight = nnx.Param(jnp.asarray(weight, jnp.float32))
        self.bias = nnx.Param(jnp.asarray(bias, jnp.float32))

    def prior(self) -> dict:
        """The parameters of :func:`fpjax.models.priors.denoise`."""
        knots = jnp.asarray(priors.KNOTS, jnp.float32)
        parts = [part.prior() for part in self.parts]
        return {"knots": knots, "weight": self.weight[...], "bias": self.bias[...], "parts": parts}

    def tensors(self) -> dict[str, jax.Array]:
        """What is stored: the shares, the priors as part.i.NAME, and constants for the certificate kernel."""
        knots, count = jnp.asarray(priors.KNOTS, jnp.float32), len(self.parts)
        stored = {"weight": self.weight[...], "bias": self.bias[...]}
        stored |= {"ones": jnp.ones((len(knots), 1)), "minus_knots": -knots}
        for i, part in enumerate(self.parts):
            stored |= {f"part.{i}.{name}": value for name, value in part.tensors().items()}
            stored[f"pick.{i}"] = jnp.eye(count)[i : i + 1]
        return stored

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        return self.function(self.prior(), y, sigma, condition)

    def layers(self) -> list[dict]:
        """The program for the certificate kernel: the shares, the priors, and their sum."""
        program: list[dict] = [
            {"op": "edm", "out": "noise", "which": "noise", "data_std": 1.0},
            {"op": "affine", "out": "past", "in": "noise", "weight": "ones", "bias": "minus_knots"},
            {"op": "elementwise", "out": "bends", "in": "past", "fn": "relu"},
            {"op": "affine", "out": "logs", "in": "bends", "weight": "weight", "bias": "bias"},
            {"op": "softmax", "out": "shares", "in": "logs"},
        ]
        for i, part in enumerate(self.parts):
            program += [
                {"op": "affine", "out": f"share{i}", "in": "shares", "weight": f"pick.{i}"},
                *part.layers(f"part.{i}.", f"D{i}"),
                {"op": "scale", "out": f"scaled{i}", "in": f"D{i}", "by": f"share{i}"},
            ]
        return [*program, {"op": "add", "out": "D", "in": [f"scaled{i}" for i in range(len(self.parts))]}]


def tree_layers(image, levels: int, prefix: str = "", out: str = "D") -> list[dict]:
    """The program of a latent tree for the certificate kernel: one operation."""
    named = {name: prefix + name for name in tree.TENSORS} | {"levels": [f"{prefix}level.{i}" for i in range(levels)]}
    return [{"op": "tree", "out": out, "in": "y", "image": list(image), **named}]


def _trainable(module, start: dict) -> None:
    """Gives a module the parameters of a mixture."""
    module.means = nnx.Param(jnp.asarray(start["means"], jnp.float32))
    module.directions = nnx.Param(jnp.asarray(start["factors"], jnp.float32))
    module.log_variances = nnx.Param(jnp.log(jnp.asarray(start["variances"], jnp.float32)))
    module.log_floor = nnx.Param(jnp.log(jnp.asarray(start["floor"], jnp.float32)))
    module.class_logits = nnx.Param(jnp.asarray(start["logits"], jnp.float32))


def _mixture_prior(module) -> dict[str, jax.Array]:
    """What a mixture's posterior mean is computed from, of a module's parameters."""
    return {
        "means": module.means[...],
        "factors": jnp.linalg.qr(module.directions[...])[0],
        "variances": jnp.exp(module.log_variances[...]),
        "floor": jnp.exp(module.log_floor[...]),
        "logits": _joint(module.class_logits[...], module.conditional),
    }


def _joint(class_logits, conditional: bool):
    """Logits (C, K) of each class normalised, and the row without a condition, (C + 1, K); that row alone if there are none.

    That row is the average of the classes' weights, so the prior is one joint distribution.
    """
    logits = jax.nn.log_softmax(class_logits, axis=1)
    if not conditional:
        return logits
    null = jax.nn.logsumexp(logits, axis=0, keepdims=True) - np.log(logits.shape[0]).astype(np.float32)
    return jnp.concatenate([logits, null])


def _probabilities(logits):
    """The softmax over the last axis, nowhere below LEAST/n."""
    return (1 - LEAST) * jax.nn.softmax(logits, axis=-1) + LEAST / logits.shape[-1]
