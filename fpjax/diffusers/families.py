"""Families of networks: which arguments each class of diffusers takes, and what its output means.

One function a family, from a point x, a network's time t and one row of the tables of conditions to keyword arguments; all
in JAX. Not in this room: torch (bridge), noise levels (schedulers), where conditions come from (text).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fpjax.evidence import FpjaxError

Row = dict[str, jax.Array]
EMBEDDED_GUIDANCE = 3.5  # what FluxPipeline gives guidance-distilled networks unless told otherwise


def _unet(config, x, t, row: Row):
    found = {"sample": x[None], "timestep": t[None]}
    if "label" in row:
        found["class_labels"] = row["label"][None]
    return found


def _conditional_unet(config, x, t, row: Row):
    found = _unet(config, x, t, row) | {"encoder_hidden_states": row["text"][None]}
    if config.get("addition_embed_type") == "text_time":
        found["added_cond_kwargs"] = {"text_embeds": row["pooled"][None], "time_ids": row["time_ids"][None]}
    return found


def _dit(config, x, t, row: Row):
    return {"hidden_states": x[None], "timestep": t[None], "class_labels": row["label"][None]}


def _pixart(config, x, t, row: Row):
    return {
        "hidden_states": x[None],
        "timestep": t[None],
        "encoder_hidden_states": row["text"][None],
        "encoder_attention_mask": row["mask"][None],
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None},
    }


def _sd3(config, x, t, row: Row):
    return {
        "hidden_states": x[None],
        "timestep": t[None],
        "encoder_hidden_states": row["text"][None],
        "pooled_projections": row["pooled"][None],
    }


def pack(x):
    """Flux' tokens (h/2·w/2, 4·channels) of a latent image (channels, h, w): one token for every 2×2 square."""
    c, h, w = x.shape
    return x.reshape(c, h // 2, 2, w // 2, 2).transpose(1, 3, 0, 2, 4).reshape(h // 2 * (w // 2), 4 * c)


def unpack(tokens, shape):
    """The latent image of Flux' tokens; inverse of :func:`pack`."""
    c, h, w = shape
    return tokens.reshape(h // 2, w // 2, c, 2, 2).transpose(2, 0, 3, 1, 4).reshape(c, h, w)


def _flux(config, x, t, row: Row):
    _, h, w = x.shape
    rows, columns = jnp.meshgrid(jnp.arange(h // 2), jnp.arange(w // 2), indexing="ij")
    places = jnp.stack([jnp.zeros_like(rows), rows, columns], axis=-1).reshape(-1, 3)
    found = {
        "hidden_states": pack(x)[None],
        "timestep": t[None] / 1000,  # this class multiplies by 1000 itself
        "encoder_hidden_states": row["text"][None],
        "pooled_projections": row["pooled"][None],
        "img_ids": places.astype(x.dtype),
        "txt_ids": jnp.zeros((row["text"].shape[0], 3), x.dtype),
    }
    if config.get("guidance_embeds"):
        found["guidance"] = jnp.full((1,), EMBEDDED_GUIDANCE, x.dtype)
    return found


@dataclasses.dataclass(frozen=True)
class Family:
    """How one class is called.

    Attributes:
      arguments: ``arguments(config, x, t, row)``.
      text: whether its conditions are embedded texts. classes: the key of its configuration that counts classes.
      null_class: whether the row after the last class is the network's own "no class".
      packed: whether its points are packed into tokens, 2×2 values of a channel each.
      needs: the tables it reads besides "text".
    """

    arguments: Callable[..., dict[str, Any]]
    text: bool = False
    classes: str | None = None
    null_class: bool = False
    packed: bool = False
    needs: tuple[str, ...] = ()


FAMILIES = {
    "UNet2DModel": Family(_unet, classes="num_class_embeds"),
    "UNet2DConditionModel": Family(_conditional_unet, text=True, classes="num_class_embeds"),
    "DiTTransformer2DModel": Family(_dit, classes="num_embeds_ada_norm", null_class=True),
    "PixArtTransformer2DModel": Family(_pixart, text=True, needs=("mask",)),
    "SD3Transformer2DModel": Family(_sd3, text=True, needs=("pooled",)),
    "FluxTransformer2DModel": Family(_flux, text=True, packed=True, needs=("pooled",)),
}


def family(kind: str) -> Family:
    """The family of a class.

    Raises:
      FpjaxError: for a class that is none of a denoising network that fpjax knows.
    """
    if kind not in FAMILIES:
        raise FpjaxError(
            f"{kind} is no network that fpjax can read; it knows {', '.join(FAMILIES)}; wrap yours in "
            "fpjax.Denoiser.from_function"
        )
    return FAMILIES[kind]


def shape(kind: str, config: dict[str, Any], size: tuple[int, int] | None) -> tuple[int, int, int]:
    """The shape (channels, h, w) of one point.

    Args:
      size: (h, w) if not the configuration's ``sample_size``; latent pixels where the network works on latents.

    Raises:
      FpjaxError: if neither says the size, or it does not fit the network.
    """
    packed = family(kind).packed
    given = size if size is not None else config.get("sample_size")
    if given is None:
        raise FpjaxError(f"the config.json of this {kind} does not say its image size; give size=(height, width)")
    h, w = (given, given) if isinstance(given, int) else given
    channels = config.get("in_channels", 64 if packed else 3 if kind == "UNet2DModel" else 4)
    if packed and (channels % 4 or h % 2 or w % 2):
        raise FpjaxError(f"a {kind} packs squares of 2×2, so {channels} channels and size ({h}, {w}) do not fit")
    return (channels // 4 if packed else channels, int(h), int(w))


def outcome(kind: str, output, shape: tuple[int, ...]):
    """The prediction (channels, h, w) from what the class returns; a learned variance (further channels) is left out.

    Raises:
      FpjaxError: if the output has neither as many channels as the input nor twice as many.
    """
    out = output[0][0]
    if family(kind).packed:
        out = unpack(out, shape)
    if out.shape[0] not in (shape[0], 2 * shape[0]) or out.shape[1:] != shape[1:]:
        raise FpjaxError(f"this {kind} returns shape {out.shape} for an image of shape {shape}, so it is no denoiser")
    return out[: shape[0]]
