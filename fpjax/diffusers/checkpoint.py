"""A folder that diffusers' save_pretrained wrote, as a Denoiser, a Process and, for latent models, an autoencoder.

In this room: which part of a folder plays which role. An unconditional or class-conditional UNet2DModel becomes the
network of :mod:`fpjax.models.unet` and needs no torch; everything else goes through the bridge.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import schedulers
from fpjax.denoiser import Denoiser
from fpjax.diffusers import autoencoder, bridge, families, folder, text
from fpjax.diffusers.folder import Part
from fpjax.evidence import FpjaxError
from fpjax.models import unet
from fpjax.preconditioning import Preconditioning
from fpjax.process import Process

NETWORKS = ("unet", "transformer")


@dataclasses.dataclass(frozen=True)
class Native:
    """The network of :mod:`fpjax.models.unet`; two with one configuration compile once."""

    config: unet.Config

    def __call__(self, tensors, x, t, row):
        """What it predicts."""
        return unet.apply(tensors, self.config, x, t, row.get("label"))[: x.shape[0]]


@dataclasses.dataclass(frozen=True, eq=False)
class Bridged:
    """A network of diffusers behind the bridge."""

    kind: str
    config: dict[str, Any]
    function: bridge.Function

    def __call__(self, tensors, x, t, row):
        """What it predicts."""
        arguments = families.family(self.kind).arguments(self.config, x, t, row)
        return families.outcome(self.kind, self.function(tensors, **arguments, return_dict=False), x.shape)


@dataclasses.dataclass(frozen=True)
class Network:
    """``fn(params, y, sigma, condition)`` of a Denoiser: D = c_skip·y + c_out·network(c_in·y, c_noise).

    Attributes:
      predict: ``predict(tensors, x, t, row)``. seen: what the scheduler puts between D and the network.
      classes: whether the condition is the index of a class.
    """

    predict: Native | Bridged
    seen: Preconditioning
    classes: bool

    def __call__(self, params, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        seen = self.seen
        row = {name: table[condition] for name, table in params["conditions"].items()}
        if self.classes:
            row["label"] = jnp.asarray(condition, jnp.int32)
        out = self.predict(params["network"], seen.c_in(sigma) * y, seen.c_noise(sigma), row)
        return seen.c_skip(sigma) * y + seen.c_out(sigma) * out


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a folder holds.

    Attributes:
      path: the folder. network: the denoising network's part. scheduler: the scheduler's configuration.
      denoiser: D in y-coordinates, one point at a time.
    """

    path: Path
    network: Part
    scheduler: dict[str, Any]
    denoiser: Denoiser

    def process(self, steps: int, **options) -> Process:
        """The process that the checkpoint's own scheduler runs in ``steps`` steps; see :func:`fpjax.schedulers.from_config`.

        Where the pipeline itself computes a scheduler's arguments (Flux, Stable Diffusion 3), they are computed here.

        Args:
          options: settings that override the scheduler's, such as ``clip_sample=False`` or ``_class_name``.

        Raises:
          FpjaxError: if the scheduler is not a smooth deterministic step.
        """
        kind = options.get("_class_name", self.scheduler.get("_class_name"))
        if kind == "FlowMatchEulerDiscreteScheduler":
            _, h, w = self.denoiser.shape
            if self.scheduler.get("use_dynamic_shifting"):
                options = {"image_seq_len": h // 2 * (w // 2)} | options
            if self.network.kind == "FluxTransformer2DModel":
                options = {"sigmas": np.linspace(1, 1 / steps, steps)} | options
        return schedulers.from_config(self.scheduler, steps, **options)

    @functools.cached_property
    def encoder(self) -> autoencoder.Autoencoder | None:
        """The autoencoder, pixels to latents and back; None for a pixel model."""
        return autoencoder.load(self.path) if (self.path / "vae").is_dir() else None


def open_checkpoint(
    source: str | os.PathLike,
    *,
    prompts: Sequence[str] | None = None,
    embeddings: Mapping[str, Mapping[str, Any]] | None = None,
    scheduler: str | os.PathLike | Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
) -> Checkpoint:
    """Reads a pipeline's folder or a network's own.

    Args:
      prompts: the conditions of a text-to-image pipeline, embedded once by its own text encoders; the empty prompt is
        "no condition".
      embeddings: instead of prompts, for a network alone: condition -> its arrays by name ("text" (tokens, width), and
        "pooled", "mask" or "time_ids" where the network takes them); the entry "" is "no condition".
      scheduler: a scheduler's configuration, or a folder with one; the checkpoint's own if left out.
      size: (h, w) of a point, if not the one in config.json.

    Raises:
      FpjaxError: in one sentence, for everything that is wrong with the folder; see :mod:`fpjax.diffusers.folder`.
    """
    path = Path(source)
    if not path.is_dir():
        raise FpjaxError(f"there is no folder {path}; give one that save_pretrained wrote")
    kind, parts = None, {}
    if (path / "model_index.json").is_file():
        parts = folder.read_index(path)
        kind = folder.read_json(path / "model_index.json").get("_class_name")
    part = _network(path, parts)
    plan = families.family(part.kind)
    steps = _scheduler(path, scheduler)
    shape = families.shape(part.kind, part.config, size)
    module, predict = _predict(part)
    names, tables = (), {}
    classes = part.config.get(plan.classes) if plan.classes else None
    if plan.text and _reads_text(part):
        if embeddings is not None:
            names, tables = _given(embeddings, plan)
        elif kind is not None:
            names = tuple(prompts or ())
            role = next(name for name in NETWORKS if name in parts)
            pixels = tuple(n * _factor(path) for n in shape[1:])
            tables = text.embed(path, kind, parts, list(names), pixels, (role, module))
        else:
            raise FpjaxError(
                f"{path} is a {part.kind} without its text encoders; give the whole pipeline's folder, or embeddings="
            )
        classes = None
    elif prompts or embeddings:
        raise FpjaxError(f"{path} is a {part.kind} that takes no text, so leave prompts and embeddings out")
    elif classes is not None:
        names = tuple(str(i) for i in range(classes))
    tensors = _tensors(part, module, predict, classes, plan)
    params = {"network": tensors, "conditions": {k: jnp.asarray(np.float32(v)) for k, v in tables.items()}}
    fn = Network(predict, _seen(steps), classes is not None)
    den = Denoiser.from_function(fn, params, shape, conditions=names, name=path.resolve().name)
    return Checkpoint(path, part, steps, den)


def _factor(path: Path) -> int:
    """Image pixels to a latent pixel, along each side."""
    if not (path / "vae").is_dir():
        return 1
    return 2 ** (len(folder.read_part(path / "vae").config.get("block_out_channels", (64,))) - 1)


def _seen(config: dict[str, Any]) -> Preconditioning:
    """What the network was trained to see, whether or not the scheduler's own steps can be expressed."""
    name = str(config.get("_class_name")).removeprefix("Flax")
    if name in schedulers.REFUSED:
        name = "DDIMScheduler"  # the same betas, hence the same network
    known = schedulers.DEFAULTS.get(name, {})
    steps_only = {"clip_sample": False, "thresholding": False, "variance_type": None, "algorithm_type": "dpmsolver++"}
    options = {key: value for key, value in steps_only.items() if key in known}
    return schedulers.preconditioning(config, _class_name=name, **options)


def _network(path: Path, parts: dict[str, tuple[str, str]]) -> Part:
    """The denoising network: a pipeline's unet or transformer, or the folder itself."""
    if parts:
        role = next((name for name in NETWORKS if name in parts), None)
        if role is None:
            raise FpjaxError(f"the pipeline {path} has no unet and no transformer, so there is nothing to invert")
        return folder.read_part(path / role if (path / role).is_dir() else path)
    part = folder.read_part(path)
    if part.kind == "AutoencoderKL":
        raise FpjaxError(f"{path} is an autoencoder and denoises nothing; use fpjax.diffusers.load_autoencoder")
    return part


def _scheduler(path: Path, given) -> dict[str, Any]:
    """The configuration of the scheduler."""
    if isinstance(given, Mapping):
        return dict(given)
    if given is not None:
        path = Path(given)
        if path.is_file():
            return folder.read_json(path)
    place = next((p for p in (path / "scheduler", path) if (p / "scheduler_config.json").is_file()), None)
    if place is None:
        raise FpjaxError(
            f"{path} has no scheduler_config.json, so its noise levels are unknown; give the pipeline's folder, or scheduler="
        )
    config = folder.read_json(place / "scheduler_config.json")
    folder.refuse_code(place, config)
    return config


def _predict(part: Part) -> tuple[Any, Native | Bridged]:
    """The torch module (None where none is needed) and the network as a function."""
    if part.kind == "UNet2DModel":
        config = unet.Config.read(part.config)
        if config.uncovered() is None:
            return None, Native(config)
    module = bridge.build(part)
    return module, Bridged(part.kind, part.config, bridge.Function(module))


def _tensors(part: Part, module, predict, classes, plan) -> dict[str, jax.Array]:
    if module is None:
        tensors = folder.read_tensors(part.path)
        folder.compare(part.path, unet.shapes(predict.config), tensors)
        return {name: jnp.asarray(value) for name, value in tensors.items()}
    tensors = bridge.extract(module)
    if classes is not None and not plan.null_class:  # no class: the embedding of time stands alone
        tensors["class_embedding.weight"] = jnp.pad(tensors["class_embedding.weight"], ((0, 1), (0, 0)))
    return tensors


def _reads_text(part: Part) -> bool:
    """Whether a network attends to a text; a UNet2DConditionModel of plain blocks does not."""
    blocks = (*part.config.get("down_block_types", ()), part.config.get("mid_block_type") or "")
    return part.kind != "UNet2DConditionModel" or any("Cross" in block for block in blocks)


def _given(embeddings: Mapping[str, Mapping[str, Any]], plan: families.Family):
    names = tuple(name for name in embeddings if name)
    if "" not in embeddings:
        raise FpjaxError('embeddings= needs an entry "" for "no condition"')
    wanted = ("text", *plan.needs)
    rows = [embeddings[name] for name in (*names, "")]
    if any(key not in row for row in rows for key in wanted):
        raise FpjaxError(f"embeddings= needs {', '.join(wanted)} for every condition")
    try:
        return names, {key: np.stack([np.asarray(row[key]) for row in rows]) for key in rows[0]}
    except (KeyError, ValueError) as error:
        raise FpjaxError("embeddings= needs arrays of one shape for all conditions") from error
