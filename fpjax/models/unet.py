"""diffusers' UNet2DModel in JAX: the same config.json, the same tensor names, one point at a time, no torch.

The network of Ho et al. 2020 as one pure function. Every layer asks for its tensors by name and shape, so the one
description of the network also says which tensors a file must hold (:func:`shapes`). Covered: DownBlock2D, AttnDownBlock2D,
ResnetDownsampleBlock2D and their counterparts upwards; positional and Fourier time; classes; conv and resnet resampling;
"default" and "scale_shift" time conditioning. Everything else goes through the bridge (:mod:`fpjax.diffusers`).
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.evidence import FpjaxError

DOWN = {"DownBlock2D": "", "AttnDownBlock2D": "attention", "ResnetDownsampleBlock2D": "resnet"}
UP = {"UpBlock2D": "", "AttnUpBlock2D": "attention", "ResnetUpsampleBlock2D": "resnet"}
ACTIVATIONS = {
    "silu": jax.nn.silu,
    "swish": jax.nn.silu,
    "relu": jax.nn.relu,
    "mish": jax.nn.mish,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}
Get = Callable[[str, tuple[int, ...]], jax.Array]


@dataclasses.dataclass(frozen=True)
class Config:
    """The keys of a UNet2DModel's config.json that shape the network, with diffusers' defaults."""

    sample_size: Any = None
    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    time_embedding_type: str = "positional"
    time_embedding_dim: int | None = None
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple = ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D")
    mid_block_type: str | None = "UNetMidBlock2D"
    up_block_types: tuple = ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D")
    block_out_channels: tuple = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1
    downsample_padding: int = 1
    downsample_type: str = "conv"
    upsample_type: str = "conv"
    dropout: float = 0.0
    act_fn: str = "silu"
    attention_head_dim: int | None = 8
    norm_num_groups: int | None = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    resnet_time_scale_shift: str = "default"
    add_attention: bool = True
    class_embed_type: str | None = None
    num_class_embeds: int | None = None
    num_train_timesteps: int | None = None

    @classmethod
    def read(cls, config: dict[str, Any]) -> "Config":
        """From a config.json; lists become tuples, so that a Config hashes.

        Raises:
          FpjaxError: for keys that no UNet2DModel has.
        """
        unknown = sorted(set(config) - {f.name for f in dataclasses.fields(cls)})
        if unknown:
            raise FpjaxError(f"a UNet2DModel has no option {unknown[0]!r}; save the checkpoint again")
        hashable: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        return cls(**hashable)

    def uncovered(self) -> str | None:
        """The first option that this file does not have, in words, or None where it has them all."""
        blocks = [b for b in self.down_block_types if b not in DOWN] + [b for b in self.up_block_types if b not in UP]
        checks = {
            f"block type {next(iter(blocks), '')}": not blocks,
            f"middle {self.mid_block_type}": self.mid_block_type in ("UNetMidBlock2D", None),
            f"time embedding {self.time_embedding_type}": self.time_embedding_type in ("positional", "fourier"),
            f"class embedding {self.class_embed_type}": self.class_embed_type is None,
            f"time conditioning {self.resnet_time_scale_shift}": self.resnet_time_scale_shift
            in ("default", "scale_shift"),
            f"activation {self.act_fn}": self.act_fn in ACTIVATIONS,
            f"{self.downsample_type} downsampling": self.downsample_type in ("conv", "resnet"),
            f"{self.upsample_type} upsampling": self.upsample_type in ("conv", "resnet"),
            "normalisation without groups": isinstance(self.norm_num_groups, int),
            "as many blocks up as down": len(self.block_out_channels)
            == len(self.down_block_types)
            == len(self.up_block_types),
        }
        return next((what for what, holds in checks.items() if not holds), None)


def channels_last(x, kernel, bias=None, strides=(1, 1), padding=((1, 1), (1, 1)), dilation=(1, 1), groups: int = 1):
    """The convolution of x (n, h, w, channels) with a kernel (out, channels/groups, rows, columns), plus a bias.

    XLA on a CPU runs any other order of the axes of x by a plain loop where it is part of a ``while`` or a ``scan``, as in
    every solver: many times slower.
    """
    y = jax.lax.conv_general_dilated(
        x,
        jnp.transpose(kernel, (2, 3, 1, 0)),
        strides,
        padding,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y if bias is None else y + _like(bias, y)


def convolve(get: Get, name: str, x, out: int, *, size: int = 3, stride: int = 1, padding=(1, 1)):
    """A convolution of x (h, w, channels) with its bias."""
    kernel, bias = get(f"{name}.weight", (out, x.shape[-1], size, size)), get(f"{name}.bias", (out,))
    return channels_last(x[None], kernel, bias, (stride, stride), (padding, padding))[0]


def linear(get: Get, name: str, x, out: int):
    """W x + b along the last axis."""
    return x @ get(f"{name}.weight", (out, x.shape[-1])).T + _like(get(f"{name}.bias", (out,)), x)


def _like(bias, x):
    return bias.reshape((1,) * (x.ndim - 1) + bias.shape)


def group_norm(get: Get, name: str, x, groups: int, eps: float):
    """Zero mean and unit variance over each group of channels of x (..., channels), then scale and shift by channel."""
    channels = x.shape[-1]
    if channels % groups:
        raise FpjaxError(f"config.json asks for {groups} groups of {channels} channels, which do not divide evenly")
    grouped = x.reshape(-1, groups, channels // groups)
    mean = jnp.mean(grouped, axis=(0, 2), keepdims=True)
    spread = jnp.mean((grouped - mean) ** 2, axis=(0, 2), keepdims=True)
    normal = ((grouped - mean) * jax.lax.rsqrt(spread + eps)).reshape(x.shape)
    weight, bias = get(f"{name}.weight", (channels,)), get(f"{name}.bias", (channels,))
    return normal * _like(weight, x) + _like(bias, x)


def halve(x):
    """Means over 2×2 squares of x (h, w, channels)."""
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).mean(axis=(1, 3))


def double(x):
    """Every value of x (h, w, channels) four times, in a 2×2 square."""
    return jnp.repeat(jnp.repeat(x, 2, axis=0), 2, axis=1)


@dataclasses.dataclass(frozen=True)
class Network:
    """One evaluation: where tensors come from, the configuration, the embedding of time and class."""

    get: Get
    config: Config
    embedding: jax.Array

    @property
    def act(self) -> Callable:
        """The activation."""
        return ACTIVATIONS[self.config.act_fn]

    def norm(self, name: str, x):
        """Group normalisation with the configuration's groups."""
        return group_norm(self.get, name, x, self.config.norm_num_groups or 1, self.config.norm_eps)

    def resnet(self, name: str, x, out: int, *, resample: Callable | None = None, scale: float = 1.0):
        """diffusers' ResnetBlock2D: two convolutions, the embedding between them, and a way around both."""
        shifted = self.config.resnet_time_scale_shift == "scale_shift"
        h = self.act(self.norm(f"{name}.norm1", x))
        if resample is not None:
            x, h = resample(x), resample(h)
        h = convolve(self.get, f"{name}.conv1", h, out)
        e = linear(self.get, f"{name}.time_emb_proj", self.act(self.embedding), 2 * out if shifted else out)
        if shifted:
            factor, shift = e[:out], e[out:]
            h = self.norm(f"{name}.norm2", h) * _like(1 + factor, h) + _like(shift, h)
        else:
            h = self.norm(f"{name}.norm2", h + _like(e, h))
        h = convolve(self.get, f"{name}.conv2", self.act(h), out)
        if x.shape[-1] != out:
            x = convolve(self.get, f"{name}.conv_shortcut", x, out, size=1, padding=(0, 0))
        return (x + h) / scale

    def attention(self, name: str, x, *, groups: int | None, scale: float = 1.0):
        """Self-attention over all pixels, and a way around it."""
        h, w, c = x.shape
        size = self.config.attention_head_dim or c
        heads = c // size
        inner = heads * size
        normal = x if groups is None else group_norm(self.get, f"{name}.group_norm", x, groups, self.config.norm_eps)
        pixels = normal.reshape(h * w, c)

        def project(which: str):
            return linear(self.get, f"{name}.{which}", pixels, inner).reshape(h * w, heads, size).transpose(1, 0, 2)

        query, key, value = project("to_q"), project("to_k"), project("to_v")
        weights = jax.nn.softmax(query @ key.transpose(0, 2, 1) / math.sqrt(size), axis=-1)
        mixed = (weights @ value).transpose(1, 0, 2).reshape(h * w, inner)
        out = linear(self.get, f"{name}.to_out.0", mixed, c).reshape(h, w, c)
        return (out + x) / scale

    def down(self, name: str, kind: str, x, out: int, last: bool):
        """A block downwards: x and the states that the way up will take."""
        c, kept = self.config, []
        for i in range(c.layers_per_block):
            x = self.resnet(f"{name}.resnets.{i}", x, out)
            if DOWN[kind] == "attention":
                x = self.attention(f"{name}.attentions.{i}", x, groups=c.norm_num_groups)
            kept.append(x)
        if not last:
            if DOWN[kind] == "resnet" or (DOWN[kind] == "attention" and c.downsample_type == "resnet"):
                x = self.resnet(f"{name}.downsamplers.0", x, out, resample=halve)
            else:  # without padding diffusers pads by hand, below and to the right only
                padding = (0, 1) if c.downsample_padding == 0 else (c.downsample_padding,) * 2
                x = convolve(self.get, f"{name}.downsamplers.0.conv", x, out, stride=2, padding=padding)
            kept.append(x)
        return x, kept

    def middle(self, x):
        """The block at the lowest resolution."""
        c = self.config
        groups = c.attn_norm_num_groups
        if groups is None and c.resnet_time_scale_shift == "default":
            groups = c.norm_num_groups
        scale = c.mid_block_scale_factor
        x = self.resnet("mid_block.resnets.0", x, x.shape[-1], scale=scale)
        if c.add_attention:
            x = self.attention("mid_block.attentions.0", x, groups=groups, scale=scale)
        return self.resnet("mid_block.resnets.1", x, x.shape[-1], scale=scale)

    def up(self, name: str, kind: str, x, kept: list, out: int, last: bool):
        """A block upwards; takes its states from the end of ``kept``."""
        c = self.config
        for i in range(c.layers_per_block + 1):
            x = self.resnet(f"{name}.resnets.{i}", jnp.concatenate([x, kept.pop()], axis=-1), out)
            if UP[kind] == "attention":
                x = self.attention(f"{name}.attentions.{i}", x, groups=c.norm_num_groups)
        if last:
            return x
        if UP[kind] == "resnet" or (UP[kind] == "attention" and c.upsample_type == "resnet"):
            return self.resnet(f"{name}.upsamplers.0", x, out, resample=double)
        return convolve(self.get, f"{name}.upsamplers.0.conv", double(x), out)


def embed_time(get: Get, config: Config, t, dtype):
    """Sines and cosines of a time t; the positional ones in float32, as diffusers computes them in every precision."""
    width = config.block_out_channels[0]
    if config.time_embedding_type == "fourier":
        phase = jnp.log(t) * get("time_proj.weight", (width,)) * 2 * math.pi
        return jnp.concatenate([jnp.sin(phase), jnp.cos(phase)])
    half = width // 2
    rates = jnp.exp(-math.log(10000) * jnp.arange(half, dtype=jnp.float32) / (half - config.freq_shift))
    phase = jnp.asarray(t, jnp.float32) * rates
    waves = [jnp.cos(phase), jnp.sin(phase)] if config.flip_sin_to_cos else [jnp.sin(phase), jnp.cos(phase)]
    return jnp.pad(jnp.concatenate(waves), (0, width % 2)).astype(dtype)


def network(get: Get, config: Config, x, t, label=None):
    """What the network predicts for one x (in_channels, h, w) at time t.

    Args:
      get: ``get(name, shape)`` returns a tensor.
      label: the index of a class; ``num_class_embeds`` means no class, where the embedding of time stands alone.
    """
    channels = config.block_out_channels
    width = config.time_embedding_dim or 4 * channels[0]
    time = linear(get, "time_embedding.linear_1", embed_time(get, config, t, x.dtype), width)
    embedding = linear(get, "time_embedding.linear_2", jax.nn.silu(time), width)
    if config.num_class_embeds is not None:
        table = get("class_embedding.weight", (config.num_class_embeds, width))
        embedding = embedding + jnp.pad(table, ((0, 1), (0, 0)))[label]
    net = Network(get, config, embedding)
    if config.center_input_sample:
        x = 2 * x - 1
    x = convolve(get, "conv_in", jnp.moveaxis(x, 0, -1), channels[0])  # (h, w, channels) from here to the end
    kept, last = [x], len(channels) - 1
    for i, kind in enumerate(config.down_block_types):
        x, more = net.down(f"down_blocks.{i}", kind, x, channels[i], i == last)
        kept += more
    if config.mid_block_type is not None:
        x = net.middle(x)
    for i, kind in enumerate(config.up_block_types):
        x = net.up(f"up_blocks.{i}", kind, x, kept, channels[last - i], i == last)
    x = convolve(get, "conv_out", jax.nn.silu(net.norm("conv_norm_out", x)), config.out_channels)
    x = jnp.moveaxis(x, -1, 0)
    return x / t if config.time_embedding_type == "fourier" else x


def apply(params: dict[str, jax.Array], config: Config, x, t, label=None):
    """:func:`network` with the tensors ``params``."""

    def get(name, shape):
        tensor = params[name]
        if tensor.shape != shape:
            raise FpjaxError(f"tensor {name!r} has shape {tensor.shape}, but config.json needs {shape}")
        return tensor

    return network(get, config, x, t, label)


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, found by running the network without values.

    Raises:
      FpjaxError: if the configuration contradicts itself.
    """
    found: dict[str, tuple[int, ...]] = {}

    def get(name, shape):
        found[name] = shape
        return np.zeros(shape, np.float32)

    side = 2 ** (len(config.block_out_channels) - 1)
    x = jax.ShapeDtypeStruct((config.in_channels, side, side), jnp.float32)
    t = jax.ShapeDtypeStruct((), jnp.float32)
    label = jax.ShapeDtypeStruct((), jnp.int32)
    try:
        jax.eval_shape(lambda *a: network(get, config, *a), x, t, label)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError, ZeroDivisionError, IndexError) as error:
        raise FpjaxError(f"config.json describes no network ({str(error).splitlines()[0]})") from error
    return found


def random(config: Config, seed: int = 0, gain: float = 0.05) -> dict[str, np.ndarray]:
    """Random float32 tensors of the right shapes: for tests of cost, not of quality.

    Args:
      gain: of the last convolution, relative to variance-preserving weights; a small one makes inversion well posed.
    """
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in sorted(shapes(config).items()):
        if "norm" in name:
            params[name] = np.full(shape, name.endswith("weight"), np.float32)
        elif name.endswith("bias"):
            params[name] = np.zeros(shape, np.float32)
        else:
            scale = np.float32((gain if name == "conv_out.weight" else 1) / math.sqrt(max(1, math.prod(shape[1:]))))
            params[name] = scale * rng.standard_normal(shape, np.float32)
    return params
