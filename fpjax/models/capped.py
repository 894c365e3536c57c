"""An ordinary denoiser whose Lipschitz constant is capped: spectral normalisation of every layer.

    D(y) = c_skip·y + c_out·f(c_in·y),   f(x) = W_L tanh(… tanh(W_1 x + b_1) …) + b_L,

c_skip, c_out and c_in as in Karras et al. 2022, shifts b by a network of sigma and the condition. Miyato et al. 2018 divide each
W by a power iteration's estimate of its norm, which is below it; here, by an upper bound, where that is above a limit. As
|tanh'| <= 1, ||J_f|| <= K, the product of the layers' norms, and with e the standard deviation of the data

    ||J_D|| <= (e² + K·sigma·e)/(sigma² + e²) <= (1 + sqrt(1 + K²))/2,

the last for every sigma. ||I - J_D|| <= (sigma² + K·sigma·e)/(sigma² + e²) has the same largest value. A cap L on both so
allows K = 2·sqrt(L(L - 1)).

**What it buys** (T3): plain iteration contracts with (1 - rho)·L, from every image, so every step with sigma_to/sigma_from >
1 - 1/L has one solution and finds it. It is **not** monotone: longer steps have no guarantee (T2), where the gradient of a convex
function has one at any step.

In this room: the network as it is stored (:class:`CappedNetwork`) and as it is trained (:class:`Normalised`), and its bound.
"""

import dataclasses
import math
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fpjax.evidence import FpjaxError
from fpjax.models.plain import Affine, Level, affine, elementwise

SLACK = 1e-4  # of a product of norms: what float32 does to it
SQUARINGS = 7  # of W^T W


@dataclasses.dataclass(frozen=True)
class CappedBound:
    """Lambda(sigma) = (e² + K·sigma·e)/(sigma² + e²) >= ||J_D|| of a capped network: K the product of its layers' norms."""

    product: float
    data_std: float

    def __call__(self, sigma):
        """Lambda at a noise level."""
        square = self.data_std**2
        return (square + self.product * sigma * self.data_std) / (sigma**2 + square)

    def contraction(self, sigma):
        """A bound of ||I - J_D|| at a noise level; times 1 - rho, of the contraction factor of plain iteration (T3)."""
        return (sigma**2 + self.product * sigma * self.data_std) / (sigma**2 + self.data_std**2)


def allowed(cap: float) -> float:
    """The product K of the layers' norms that keeps ||J_D|| and ||I - J_D|| below a cap, 1 or more, at every noise level."""
    return 2 * math.sqrt(cap * (cap - 1))


class CappedNetwork(nnx.Module):
    """The network with its weights as they are stored.

    Args:
      size: values in a point. conditions: how many; one more embedding means "none".
      cap: what ||J_D|| and ||I - J_D|| stay below, above 1. width, depth: hidden units, and layers of them.
      embedding, frequencies: sizes of the network of sigma and condition. data_std: standard deviation of the clean images.
    """

    def __init__(
        self, size, conditions, *, cap=2.0, width=96, depth=2, embedding=32, frequencies=16, data_std=0.5, rngs
    ):
        self.cap, self.depth, self.data_std = float(cap), depth, float(data_std)
        self.level = Level(conditions, embedding, frequencies, rngs=rngs)
        sizes = [size, *[width] * depth, size]
        self.linear = nnx.List([Affine(a, b, rngs=rngs) for a, b in pairwise(sizes)])
        self.noise = nnx.List([Affine(embedding, b, rngs=rngs) for b in sizes[1:]])

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        total, e = sigma**2 + self.data_std**2, self.level(sigma, condition)
        h = y.reshape(-1) / jnp.sqrt(total)
        for k, (linear, noise) in enumerate(zip(self.linear, self.noise, strict=True)):
            h = linear(jnp.tanh(h) if k else h) + noise(e)
        out = sigma * self.data_std / jnp.sqrt(total) * h
        return self.data_std**2 / total * y + out.reshape(y.shape)

    def layers(self) -> list[dict]:
        """The program for the certificate kernel (certify/format.md)."""
        scalars = ("in", "skip", "out", "noise")
        program = [
            *({"op": "edm", "out": f"c_{w}", "which": w, "data_std": self.data_std} for w in scalars),
            *self.level.layers("c_noise", "level", "e"),
            {"op": "scale", "out": "h0", "in": "y", "by": "c_in"},
        ]
        for k in range(self.depth + 1):
            if k:
                program.append(elementwise(f"t{k}", f"h{k}", "tanh"))
            program += [
                affine(f"w{k}", f"t{k}" if k else "h0", f"linear.{k}"),
                affine(f"n{k}", "e", f"noise.{k}"),
                {"op": "add", "out": f"h{k + 1}", "in": [f"w{k}", f"n{k}"]},
            ]
        return [
            *program,
            {"op": "scale", "out": "skipped", "in": "y", "by": "c_skip"},
            {"op": "scale", "out": "scaled", "in": f"h{self.depth + 1}", "by": "c_out"},
            {"op": "add", "out": "D", "in": ["skipped", "scaled"]},
        ]


class Normalised(nnx.Module):
    """A :class:`CappedNetwork` in training: each of its n layers' norms at most the n-th root of what the cap allows."""

    def __init__(self, net: CappedNetwork):
        self.net = net

    def normalised(self) -> CappedNetwork:
        """The network with its weights divided by what their norms are above the limit."""
        limit = (allowed(self.net.cap) * (1 - SLACK)) ** (1 / len(self.net.linear))

        def one(path, leaf):
            if path[0] != "linear" or path[-1] != "weight":
                return leaf
            return leaf.replace(leaf[...] * jnp.minimum(1.0, limit / norm_bound(leaf[...])))

        graph, state = nnx.split(self.net)
        return nnx.merge(graph, nnx.from_flat_state([(p, one(p, leaf)) for p, leaf in nnx.to_flat_state(state)]))

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        return self.normalised()(y, sigma, condition)

    def tensors(self) -> dict[str, jax.Array]:
        """What is stored."""
        flat = nnx.to_flat_state(nnx.state(self.normalised(), nnx.Param))
        return {".".join(map(str, path)): leaf[...] for path, leaf in flat}

    def layers(self) -> list[dict]:
        """The program for the certificate kernel."""
        return self.net.layers()


def norm_bound(w):
    """An upper bound of ||W||, ||(W^T W)^p||_F^(1/2p) with p = 2^SQUARINGS, at most n^(1/4p) times too large for rank n."""
    g = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    log = jnp.zeros((), w.dtype)
    for _ in range(SQUARINGS):
        size = jnp.linalg.norm(g)
        g, log = (g / size) @ (g / size), 2 * (log + jnp.log(size))
    return jnp.exp((log + jnp.log(jnp.linalg.norm(g))) / 2 ** (SQUARINGS + 1))


def product_of_norms(tensors: dict[str, np.ndarray]) -> float:
    """The product of the spectral norms of a stored network's layers, by float64 singular values."""
    weights = [value for name, value in tensors.items() if name.startswith("linear.") and name.endswith(".weight")]
    return math.prod(float(np.linalg.norm(np.asarray(w, np.float64), 2)) for w in weights)


def bound_of(tensors: dict[str, np.ndarray], cap: float, data_std: float) -> CappedBound:
    """The bound of a stored network.

    Raises:
      FpjaxError: if its layers' norms multiply to more than its cap allows.
    """
    product = product_of_norms(tensors)
    if not product <= allowed(cap):
        raise FpjaxError(
            f"the layers' norms multiply to {product:.6g}, but a cap of {cap:g} allows {allowed(cap):.6g}; train it again"
        )
    return CappedBound(product, data_std)
