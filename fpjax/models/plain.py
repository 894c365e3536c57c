"""Ordinary denoisers, for comparison: no structure that would make them invertible.

``EDMNetwork`` is a residual network of dense layers, ``UNet`` a convolutional one with skip connections (Ronneberger, Fischer &
Brox 2015), both with the preconditioning of Karras et al. 2022 (their Table 1).
"""

import jax
import jax.numpy as jnp
from flax import nnx

from fpjax.models.unet import channels_last


class Affine(nnx.Module):
    """x -> W x + b, weight stored (out, in); LeCun-normal start scaled by ``gain``."""

    def __init__(self, n_in: int, n_out: int, *, gain: float = 1.0, rngs: nnx.Rngs):
        scale = gain / n_in**0.5
        self.weight = nnx.Param(scale * jax.random.normal(rngs.params(), (n_out, n_in)))
        self.bias = nnx.Param(jnp.zeros((n_out,)))

    def __call__(self, x):
        """W x + b for x (n_in,)."""
        return self.weight[...] @ x + self.bias[...]


class Block(nnx.Module):
    """h -> h + W2 silu(W1 h + V e): a residual block that sees the embedding e of noise level and condition."""

    def __init__(self, width: int, hidden: int, embedding: int, *, rngs: nnx.Rngs):
        self.first = Affine(width, hidden, rngs=rngs)
        self.noise = Affine(embedding, hidden, rngs=rngs)
        self.second = Affine(hidden, width, gain=0.1, rngs=rngs)

    def __call__(self, h, e):
        """The next h (width,) from h and the embedding e."""
        return h + self.second(nnx.silu(self.first(h) + self.noise(e)))


class EDMNetwork(nnx.Module):
    """D = c_skip·y + c_out·network(c_in·y, ln(sigma)/4, condition), for points of ``size`` values.

    Args:
      size: values in a point. conditions: how many; one more embedding means "none".
      width, hidden, depth, embedding, frequencies: sizes of the residual network.
      data_std: standard deviation of the clean images.
    """

    def __init__(
        self, size, conditions, *, width=64, hidden=128, depth=2, embedding=32, frequencies=16, data_std=0.5, rngs
    ):
        self.data_std = data_std
        self.depth = depth
        self.fourier = Affine(1, frequencies, rngs=rngs)
        self.fourier.weight[...] = 4.0 * jax.random.normal(rngs.params(), (frequencies, 1))
        self.fourier.bias[...] = jax.random.uniform(rngs.params(), (frequencies,), maxval=2 * jnp.pi)
        self.level = Affine(frequencies, embedding, rngs=rngs)
        self.classes = nnx.Param(0.1 * jax.random.normal(rngs.params(), (conditions + 1, embedding)))
        self.enter = Affine(size, width, rngs=rngs)
        self.blocks = nnx.List([Block(width, hidden, embedding, rngs=rngs) for _ in range(depth)])
        self.leave = Affine(width, size, gain=0.1, rngs=rngs)

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        flat = y.reshape(-1)
        total = sigma**2 + self.data_std**2
        noise = jnp.log(sigma).reshape(1) / 4
        e = nnx.silu(self.level(jnp.cos(self.fourier(noise))) + self.classes[...][condition])
        h = self.enter(flat / jnp.sqrt(total))
        for block in self.blocks:
            h = block(h, e)
        out = self.leave(nnx.silu(h))
        skip = self.data_std**2 / total
        return (skip * flat + sigma * self.data_std / jnp.sqrt(total) * out).reshape(y.shape)

    def layers(self) -> list[dict]:
        """The same computation as a straight-line program for the certificate kernel (certify/format.md)."""
        edm = [
            {"op": "edm", "out": f"c_{w}", "which": w, "data_std": self.data_std}
            for w in ("in", "skip", "out", "noise")
        ]
        program = [
            *edm,
            affine("phase", "c_noise", "fourier"),
            elementwise("wave", "phase", "cos"),
            affine("level", "wave", "level"),
            {"op": "embed", "out": "class", "table": "classes"},
            {"op": "add", "out": "pre_e", "in": ["level", "class"]},
            elementwise("e", "pre_e", "silu"),
            {"op": "scale", "out": "x", "in": "y", "by": "c_in"},
            affine("h0", "x", "enter"),
        ]
        for i in range(self.depth):
            program += [
                affine(f"first{i}", f"h{i}", f"blocks.{i}.first"),
                affine(f"noise{i}", "e", f"blocks.{i}.noise"),
                {"op": "add", "out": f"pre{i}", "in": [f"first{i}", f"noise{i}"]},
                elementwise(f"act{i}", f"pre{i}", "silu"),
                affine(f"second{i}", f"act{i}", f"blocks.{i}.second"),
                {"op": "add", "out": f"h{i + 1}", "in": [f"h{i}", f"second{i}"]},
            ]
        return [
            *program,
            elementwise("last", f"h{self.depth}", "silu"),
            affine("out", "last", "leave"),
            {"op": "scale", "out": "skipped", "in": "y", "by": "c_skip"},
            {"op": "scale", "out": "scaled", "in": "out", "by": "c_out"},
            {"op": "add", "out": "D", "in": ["skipped", "scaled"]},
        ]


class Level(nnx.Module):
    """ln(sigma)/4 and a condition index as one embedding (size,): random Fourier features, a dense layer, a table."""

    def __init__(self, conditions: int, size: int, frequencies: int, *, rngs: nnx.Rngs):
        self.fourier = Affine(1, frequencies, gain=4.0, rngs=rngs)
        self.fourier.bias[...] = jax.random.uniform(rngs.params(), (frequencies,), maxval=2 * jnp.pi)
        self.dense = Affine(frequencies, size, rngs=rngs)
        self.classes = nnx.Param(0.1 * jax.random.normal(rngs.params(), (conditions + 1, size)))

    def __call__(self, sigma, condition):
        """The embedding (size,)."""
        waves = jnp.cos(self.fourier(jnp.log(sigma).reshape(1) / 4))
        return nnx.silu(self.dense(waves) + self.classes[...][condition])

    def layers(self, noise: str, prefix: str, out: str) -> list[dict]:
        """The program for the certificate kernel, from ln(sigma)/4 to the embedding."""
        return [
            affine("phase", noise, f"{prefix}.fourier"),
            elementwise("wave", "phase", "cos"),
            affine("waves", "wave", f"{prefix}.dense"),
            {"op": "embed", "out": "class", "table": f"{prefix}.classes"},
            {"op": "add", "out": f"pre_{out}", "in": ["waves", "class"]},
            elementwise(out, f"pre_{out}", "silu"),
        ]


class Convolution(nnx.Module):
    """Cross-correlation with k×k kernels, stride 1, zero padding; weight stored (out, in, k, k)."""

    def __init__(self, n_in: int, n_out: int, k: int = 3, *, gain: float = 1.0, rngs: nnx.Rngs):
        self.weight = nnx.Param(gain / (n_in * k * k) ** 0.5 * jax.random.normal(rngs.params(), (n_out, n_in, k, k)))
        self.bias = nnx.Param(jnp.zeros((n_out,)))

    def __call__(self, x):
        """The result (h, w, out) for x (h, w, in)."""
        k = self.weight[...].shape[-1] // 2
        return channels_last(x[None], self.weight[...], self.bias[...], padding=((k, k), (k, k)))[0]


class ConvBlock(nnx.Module):
    """x -> S x + C2 silu((1 + a) C1 x + b): a residual block whose gains a and shifts b follow the embedding."""

    def __init__(self, n_in: int, n_out: int, embedding: int, *, rngs: nnx.Rngs):
        self.first = Convolution(n_in, n_out, rngs=rngs)
        self.level = Affine(embedding, 2 * n_out, gain=0.3, rngs=rngs)
        self.second = Convolution(n_out, n_out, gain=0.1, rngs=rngs)
        self.skip = Convolution(n_in, n_out, 1, rngs=rngs)

    def __call__(self, x, e):
        """The next x (h, w, out) from x (h, w, in) and the embedding e."""
        gain, shift = jnp.split(self.level(e)[None, None], 2, axis=-1)
        return self.skip(x) + self.second(nnx.silu(self.first(x) * (1 + gain) + shift))


class UNet(nnx.Module):
    """D = c_skip·y + c_out·network(c_in·y, ln(sigma)/4, condition), for images (h, w) or (channels, h, w) of any size.

    Args:
      shape: of an image; only its channels count. conditions: how many; one more embedding means "none".
      widths: channels at each resolution, each half the one before. embedding, frequencies: sizes of the embedding.
      data_std: standard deviation of the clean images.
    """

    def __init__(self, shape, conditions, *, widths=(16, 32, 48), embedding=64, frequencies=16, data_std=0.7, rngs):
        self.data_std, channels = data_std, 1 if len(shape) == 2 else shape[0]
        self.level = Level(conditions, embedding, frequencies, rngs=rngs)
        self.enter = Convolution(channels, widths[0], rngs=rngs)
        sizes = [widths[0], *widths]
        down = [ConvBlock(a, b, embedding, rngs=rngs) for a, b in zip(sizes, widths, strict=False)]
        up = [
            ConvBlock(a + b, b, embedding, rngs=rngs)
            for a, b in zip((widths[-1], *widths[:0:-1]), widths[::-1], strict=True)
        ]
        self.down, self.up = nnx.List(down), nnx.List(up)
        self.middle = ConvBlock(widths[-1], widths[-1], embedding, rngs=rngs)
        self.leave = Convolution(widths[0], channels, gain=0.1, rngs=rngs)

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        total, e = sigma**2 + self.data_std**2, self.level(sigma, condition)
        h = self.enter(jnp.moveaxis(y.reshape(-1, *y.shape[-2:]), 0, -1) / jnp.sqrt(total))
        kept = []
        for i, block in enumerate(self.down):
            h = block(_halved(h) if i else h, e)
            kept.append(h)
        h = self.middle(h, e)
        for block in self.up:
            fine = kept.pop()
            h = block(jnp.concatenate([_doubled(h, fine.shape), fine], axis=-1), e)
        out = jnp.moveaxis(self.leave(nnx.silu(h)), -1, 0).reshape(y.shape)
        return self.data_std**2 / total * y + sigma * self.data_std / jnp.sqrt(total) * out


def _halved(x):
    """Means of 2×2 pixels; at an odd border, of those that there are and zeros."""
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (2, 2, 1), (2, 2, 1), "SAME") / 4


def _doubled(x, shape):
    """Each pixel four times, cut to ``shape``'s height and width; x itself where it has them."""
    if x.shape[:2] == shape[:2]:
        return x
    return jnp.repeat(jnp.repeat(x, 2, axis=0), 2, axis=1)[: shape[0], : shape[1]]


def affine(out: str, x: str, prefix: str) -> dict:
    """The kernel's layer for an :class:`Affine` called ``prefix``."""
    return {"op": "affine", "out": out, "in": x, "weight": f"{prefix}.weight", "bias": f"{prefix}.bias"}


def elementwise(out: str, x: str, fn: str) -> dict:
    """The kernel's layer for a function of each entry."""
    return {"op": "elementwise", "out": out, "in": x, "fn": fn}
