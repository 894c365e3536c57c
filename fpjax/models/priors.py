"""Weighted means of posterior means: D = sum_i share_i(sigma) D_i, each D_i the exact denoiser of a learned prior.

**D is the gradient of a convex function (T6)** because every D_i is (:mod:`fpjax.models.mixture`, :mod:`fpjax.models.tree`)
and every share, the softmax over i of b_i + sum_j w_ij max(ln(sigma)/4 - t_j, 0), is positive, whatever is stored.

A low-rank mixture knows how whole images vary, a latent tree which values a pixel takes beside its neighbours.
"""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.models import mixture, patches, tree

FUNCTIONS = {"learned-mixture": mixture.denoise, "patch-mixture": patches.denoise, "latent-tree": tree.denoise}
EXTREME = 1e-12  # of a tree's weights: two of them multiplied must be float32 numbers
KNOTS = tuple(x / 8 for x in range(-9, 11, 2))  # of ln(sigma)/4: one every factor e in sigma, from 0.011 to 90


def denoise(params, y, sigma, condition):
    """D(y, sigma) for y of any shape that the parts take.

    Args:
      params: dict of "knots" (n,), "weight" (parts, n) and "bias" (parts,) of the shares, and "parts", a list of the parameters
        of :func:`fpjax.models.mixture.denoise`, :func:`fpjax.models.tree.denoise` or :func:`fpjax.models.patches.denoise`.
      y: one point. sigma: scalar > 0. condition: int32 scalar.
    """
    bends = jax.nn.relu(jnp.log(sigma) / 4 - params["knots"])
    shares = jax.nn.softmax(params["weight"] @ bends + params["bias"])
    out = jnp.zeros_like(y)
    for share, part in zip(shares, params["parts"], strict=True):
        out += share * FUNCTIONS[kind_of(part)](part, y, sigma, condition)
    return out


def kind_of(part) -> str:
    """Which prior parameters or tensors by these names are of."""
    return "latent-tree" if "leaf" in part else "patch-mixture" if "patch_means" in part else "learned-mixture"


def guided(den: Denoiser, weight: float) -> Denoiser:
    """Guidance of the prior (T11): the exact denoiser of sum_k p(k)·p(c|k)^weight·p(x0|k) for each condition c, at guidance 1.

    k is the component of a mixture or the state of a tree's root. The logits of each condition move from those without one,
    ``weight`` times as far; nothing else changes, so the result is a posterior mean again, monotone at any weight, and costs
    no second evaluation. It is p(x0)·p(c|x0)^weight where x0 tells k. In a weighted mean each prior is guided.

    Args:
      den: a learned prior with conditions (of :mod:`fpjax.models`). weight: any finite number; 1 leaves ``den`` as it is.

    Raises:
      FpjaxError: for another kind of denoiser, one without conditions, or a weight that is not finite.
    """
    if den.fn not in (*FUNCTIONS.values(), denoise) or not den.conditions:
        raise FpjaxError(
            f"{den.name} is no learned prior with conditions, so its prior cannot be guided; use guidance="
        )
    if not math.isfinite(weight):
        raise FpjaxError(f"the weight of guidance must be a finite number, got {weight}")

    def one(prior: dict) -> dict:
        name = "root" if "leaf" in prior else "logits"
        rows = prior[name]
        return prior | {name: rows + (weight - 1) * (rows - rows[-1:])}  # exact at weight 1

    parts = {"parts": [one(part) for part in den.params["parts"]]} if den.fn is denoise else one(den.params)
    return dataclasses.replace(den, params=den.params | parts, name=f"{den.name} guided {weight:g}")


def at_size(den: Denoiser, height: int, width: int) -> Denoiser:
    """The same denoiser for images of another size: one whose parts are mixtures of patches or trees of windows, or a
    convolutional or multi-scale network (:mod:`fpjax.models.potentials`).

    Args:
      den: such a learned prior, a sum of such, or such a network. height, width: in pixels, at least half a patch; of a
        network, a patch.

    Raises:
      FpjaxError: for a denoiser any part of which knows the size of its images, or a size that is too small.
    """
    parts = den.params["parts"] if den.fn is denoise else [den.params if den.fn in FUNCTIONS.values() else {}]
    own = getattr(den.fn, "least", 0)
    least = max(1, own)
    for part in () if own else parts:
        if "patch_means" in part:
            least = max(least, patches.side(part["patch_means"].shape[1], _channels(den.shape)) // 2)
        elif "leaf" not in part or not tree.anywhere((part["leaf"], *part["levels"])):
            raise FpjaxError(
                f"{den.name} knows the size of its images; only mixtures of patches, trees of windows, and convolutional "
                "and multi-scale networks take any size"
            )
    if min(height, width) < least:
        raise FpjaxError(f"{den.name} needs images with sides of at least {least}, got {height}×{width}")
    shape = (*den.shape[:-2], height, width)
    return dataclasses.replace(den, shape=shape, name=f"{den.name} at {height}×{width}")


def _channels(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) == 3 else 1


def through(values):
    """The weights (parts, n) and biases (parts,) of log shares that take values (parts, n) at the knots and are flat beyond."""
    slopes = np.diff(np.asarray(values)) / np.diff(KNOTS)
    return np.diff(slopes, prepend=0.0, append=0.0), np.asarray(values)[:, 0]


def of_tensors(kind: str, tensors: dict, shape: tuple[int, ...], rows: int) -> dict:
    """The parameters of a learned prior's function from its stored tensors, after looking at shapes and signs.

    Args:
      kind: "learned-mixture", "patch-mixture", "latent-tree", "prior-sum" or "guided-tree". shape: of a point.
      rows: conditions + 1.

    Raises:
      FpjaxError: if a tensor is missing, unknown or of another shape, a variance is negative or a weight not positive, or the
        weights of guidance do not increase from 1.
    """
    wanted = _wanted(kind, tensors, shape, rows)
    if set(wanted) != set(tensors):
        odd = sorted(set(wanted) ^ set(tensors))
        raise FpjaxError(f"the weights do not fit the card: tensors {', '.join(odd[:5])} are missing or unknown")
    for name, size in wanted.items():
        if tensors[name].shape != size:
            raise FpjaxError(f"tensor {name!r} has shape {tensors[name].shape}, but the card needs {size}")
        last = name.rpartition(".")[2]
        if last in ("variances", "floor") and (tensors[name] < 0).any():
            raise FpjaxError(f"tensor {name!r} has a negative variance, so this is no prior; train it again")
        if last == "leaf" or ".level." in f".{name}":
            low, high = tensors[name].min(), tensors[name].max()
            if low <= 0:
                raise FpjaxError(
                    f"tensor {name!r} has a weight that is not positive, so this is no prior; train it again"
                )
            if low < EXTREME or high > 1 / EXTREME:
                raise FpjaxError(f"tensor {name!r} has a weight beyond {EXTREME:g} to {1 / EXTREME:g}; train it again")
    arrays = {name: jnp.asarray(value) for name, value in tensors.items()}
    if kind == "guided-tree":
        if tensors["weights"][0] != 1 or (np.diff(tensors["weights"]) <= 0).any():
            raise FpjaxError("the weights of guidance do not increase from 1; train the model again")
        knots = [_nested(_part(arrays, f"knot.{i}.")) for i in range(len(tensors["weights"]))]
        return {"weights": arrays["weights"], "knots": knots}
    if kind != "prior-sum":
        return _nested(arrays)
    parts = [_nested(_part(arrays, f"part.{i}.")) for i in range(_count(tensors, "part"))]
    return {"knots": -arrays["minus_knots"], "weight": arrays["weight"], "bias": arrays["bias"], "parts": parts}


def _part(named: dict, prefix: str) -> dict:
    """The entries below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}


def _count(named: dict, prefix: str) -> int:
    """How many of prefix.0…, prefix.1…, there are."""
    return len({m[1] for m in (re.match(rf"{prefix}\.(\d+)(?:\.|$)", name) for name in named) if m})


def _nested(named: dict) -> dict:
    """A tree's levels as a list; a mixture as it is."""
    if "leaf" not in named:
        return named
    levels = [named[f"level.{i}"] for i in range(_count(named, "level"))]
    return {name: named[name] for name in tree.TENSORS} | {"levels": levels}


def _wanted(kind: str, named: dict, shape: tuple[int, ...], rows: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a kind of prior needs; sizes that are free are taken from what is there."""

    def free(name: str, axis: int) -> int:
        have = named[name].shape if name in named else ()
        return have[axis] if len(have) > axis else 0

    if kind in ("learned-mixture", "patch-mixture"):
        means, size = "means", math.prod(shape)
        if kind == "patch-mixture":
            means, size = "patch_means", free("patch_means", 1)
            n = patches.side(size, _channels(shape)) if len(shape) in (2, 3) else 0
            if not 1 <= n <= 2 * min(shape[-2:]):
                raise FpjaxError(f"patches of {size} values do not fit images of shape {shape}; train the model again")
        k, rank = free(means, 0), free("factors", 2)
        rest = {"variances": (k, rank), "floor": (k,), "logits": (rows, k)}
        return {means: (k, size), "factors": (k, size, rank)} | rest
    if kind == "latent-tree":
        if len(shape) != 2:
            raise FpjaxError(f"a latent tree takes images (height, width), not {shape}")
        return _tree_wanted(named, shape, rows)
    if kind == "guided-tree":  # all of the shapes of the first
        inner = _wanted("latent-tree", _part(named, "knot.0."), shape, rows)
        count = max(1, _count(named, "knot"))
        return {"weights": (count,)} | {f"knot.{i}.{name}": size for i in range(count) for name, size in inner.items()}
    n, count = free("ones", 0), _count(named, "part")
    wanted = {"ones": (n, 1), "minus_knots": (n,), "weight": (count, n), "bias": (count,)}
    for i in range(count):
        mine = _part(named, f"part.{i}.")
        inner = _wanted(kind_of(mine), mine, shape, rows)
        wanted |= {f"part.{i}.{name}": value for name, value in inner.items()} | {f"pick.{i}": (1, count)}
    return wanted


def _tree_wanted(named: dict, shape: tuple[int, ...], rows: int) -> dict[str, tuple[int, ...]]:
    """The names and shapes that a latent tree needs: how many states a table leads to is free."""
    have = {name: (*value.shape, 0, 0, 0)[:3] for name, value in named.items()}
    names = ["leaf", *(f"level.{i}" for i in range(_count(named, "level")))]
    side = tree.window([named[name] for name in names if name in named])
    if side > 2 * max(shape):
        raise FpjaxError(f"windows of {side}×{side} do not fit images of shape {shape}; train the model again")
    size, inner = (side, side) if side else shape, have.get("means", (0,))[0]
    wanted: dict[str, tuple[int, ...]] = {"means": (inner,), "variances": (inner,)}
    for i, (regions, axis) in enumerate(zip(tree.sizes(*size), tree.merges(*size), strict=True)):
        name, alike = "leaf" if i == 0 else f"level.{i - 1}", (2, 1) if axis == 0 else (1, 2)
        place = alike if side or have.get(name, ())[:2] == alike else regions
        wanted[name] = (*place, have.get(name, (0, 0, 0))[2], inner)
        inner = wanted[name][2]
    if side:
        p, q, last = have.get(names[-1], (0, 0, 0))
        if not (p and q) or any((length + side - 1) % part for length, part in zip(shape, (p, q), strict=True)):
            raise FpjaxError(f"the windows of {side}×{side} cannot be cut into {p}×{q} blocks; train the model again")
        wanted[names[-1]] = (p, q, last, inner)
        inner = last
    return wanted | {"root": (rows, inner)}
