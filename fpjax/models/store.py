"""Models on disk: safetensors weights beside a JSON card. Nothing is ever unpickled, no remote code is run.

In this room: reading and writing, and refusing what is damaged in one sentence. The card's keys are in
``certify/format.md``; its ``layers`` describe the network to the certificate kernel, ``architecture`` builds it here.
"""

import hashlib
import json
import math
import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fpjax import schemas
from fpjax.denoiser import Denoiser, Facts
from fpjax.evidence import FpjaxError
from fpjax.models import capped, distilled, mixture, potentials, priors, tree
from fpjax.models.monotone import tree_layers
from fpjax.models.plain import EDMNetwork, UNet

FORMAT = "fpjax-model/1"
PRIORS = priors.FUNCTIONS | {"prior-sum": priors.denoise, "guided-tree": distilled.denoise}
GRADIENTS = dict.fromkeys(("wide", "input-convex", "convolutional", "multi-scale"), potentials.GradientNetwork)
FLAT = {"edm-network": EDMNetwork, "capped-network": capped.CappedNetwork}  # of points of any shape, by their size
NETWORKS: dict[str, Any] = {"unet": UNet} | FLAT | GRADIENTS
WEIGHTS = Path(__file__).parent / "weights"
SCHEMA = json.loads((Path(__file__).parent / "card.schema.json").read_text())
MOST_VALUES = 1 << 28  # in a point; an image of 3 x 8192 x 8192 has fewer


@dataclass(frozen=True)
class NetworkFunction:
    """``fn(params, y, sigma, condition)`` of a flax network: the graph is static, the state is params. ``least`` is the least
    side of an image that it takes, 0 if it takes images of one size only."""

    graph: Any
    least: int = 0

    def __call__(self, params, y, sigma, condition):
        """The network's D(y, sigma)."""
        return nnx.merge(self.graph, params)(y, sigma, condition)


def names() -> list[str]:
    """The embedded models."""
    return sorted(p.stem for p in WEIGHTS.glob("*.json"))


def load(source: str | os.PathLike, **options) -> Denoiser:
    """An embedded model by its name, a model in a folder, a ``.json`` card or a ``.safetensors`` file, or the folder of a
    diffusers checkpoint.

    Args:
      options: of a diffusers checkpoint; see :func:`fpjax.diffusers.open_checkpoint`.

    Returns:
      A Denoiser with float32 parameters exactly as stored.

    Raises:
      FpjaxError: if it is unknown, damaged, of another format, not finite, or does not fit its card.
    """
    if is_diffusers(source):
        from fpjax.diffusers import open_checkpoint  # stands below this file, and is needed for these folders only

        return open_checkpoint(source, **options).denoiser
    if options:
        raise FpjaxError(f"{str(source)!r} is no diffusers checkpoint, so it takes no {sorted(options)[0]}")
    path = card_path(source)
    card = read_card(path)
    tensors = read_weights(path, card)
    try:
        return _build(card, tensors)
    except (KeyError, TypeError, IndexError) as error:
        raise FpjaxError(f"the model card {path.name} is incomplete ({error!s}); export the model again") from error


def is_diffusers(source: str | os.PathLike) -> bool:
    """Whether a folder is one that diffusers wrote: it holds one of its files, and no model card of ours."""
    path = Path(source)
    marks = (
        "model_index.json",
        "config.json",
        "scheduler_config.json",
        "diffusion_pytorch_model.*",
        "unet",
        "transformer",
    )
    if str(source) in names() or not path.is_dir():
        return False
    ours = any(p.with_suffix(".safetensors").exists() for p in path.glob("*.json"))
    return not ours and any(True for mark in marks for _ in path.glob(mark))


def card_path(source: str | os.PathLike) -> Path:
    """The card of a model given by name, folder, card or weights.

    Raises:
      FpjaxError: if there is none.
    """
    embedded = WEIGHTS / f"{source}.json"
    if str(source) in names():
        return embedded
    path = Path(source)
    try:
        if path.is_dir():
            return _only_card(path)
        card = path.with_suffix(".json") if path.suffix in (".safetensors", ".json") else path
        if card.is_file():
            return card
    except (OSError, ValueError):
        pass  # too long for a name, or with signs that none has
    raise FpjaxError(
        f"unknown model {str(source)[:200]!r}; choose one of {', '.join(names())}, or give a folder with a model"
    )


def _only_card(folder: Path) -> Path:
    cards = sorted(p for p in folder.glob("*.json") if p.with_suffix(".safetensors").exists())
    if len(cards) != 1:
        raise FpjaxError(
            f"{folder} holds {len(cards)} models (a .json card beside .safetensors weights); name one file"
        )
    return cards[0]


def read_card(path: Path) -> dict:
    """A model card as plain data.

    Raises:
      FpjaxError: if it is not a card of this format.
    """
    try:
        card = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FpjaxError(f"the model card {path.name} cannot be read as JSON; export the model again") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise FpjaxError(f"the model card {path.name} is not of format {FORMAT}; export the model again")
    fault = schemas.fault(SCHEMA, card)
    if fault is not None:
        raise FpjaxError(
            f"the model card {path.name} is wrong at {fault.where}: {fault.what}; correct it or export the model again"
        )
    values = math.prod(card["shape"])
    if values > MOST_VALUES:
        raise FpjaxError(f"the model card {path.name} asks for points of {values} values; correct its shape")
    return card


def read_weights(path: Path, card: dict) -> dict[str, np.ndarray]:
    """The tensors beside a card, after the file's SHA-256 was compared with the card's.

    Raises:
      FpjaxError: if the file is missing, truncated, altered or not finite.
    """
    file = path.with_suffix(".safetensors")
    if card.get("weights") != file.name:
        raise FpjaxError(
            f"the card {path.name} names weights {card.get('weights')!r}; they must be {file.name} beside it"
        )
    try:
        blob = file.read_bytes()
    except OSError as error:
        raise FpjaxError(f"the weights {file.name} cannot be read; put the file beside its card") from error
    try:
        tensors = load_tensors(blob)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FpjaxError(f"the weights {file.name} are damaged or truncated; copy the file again") from error
    if hashlib.sha256(blob).hexdigest() != card.get("sha256"):
        raise FpjaxError(f"the weights {file.name} are not those of the card (SHA-256 differs); copy both files again")
    for name, tensor in tensors.items():
        if not np.issubdtype(tensor.dtype, np.floating) or not np.isfinite(tensor).all():
            raise FpjaxError(
                f"tensor {name!r} in {file.name} has NaN or infinite values; train or export the model again"
            )
    return tensors


def _build(card: dict, tensors: dict[str, np.ndarray]) -> Denoiser:
    shape, conditions = tuple(card["shape"]), tuple(card["conditions"])
    facts = Facts(**card["facts"])
    kind, options = card["architecture"]["kind"], card["architecture"]["options"]
    common = {"shape": shape, "conditions": conditions, "facts": facts, "name": card["name"]}
    if kind in PRIORS:
        params = priors.of_tensors(kind, tensors, shape, len(conditions) + 1)
        return Denoiser(
            params, PRIORS[kind], jacobian=mixture.jacobian if kind == "learned-mixture" else None, **common
        )
    if kind == "unet" and len(shape) not in (2, 3):
        raise FpjaxError(f"model {card['name']} is a unet, which takes images (h, w) or (channels, h, w), not {shape}")
    if kind in NETWORKS:
        size = math.prod(shape) if kind in FLAT else shape
        network = nnx.eval_shape(lambda: NETWORKS[kind](size, len(conditions), rngs=nnx.Rngs(0), **options))
        least = 0
        if kind in GRADIENTS:
            least = network.least
            if least and (len(shape) not in (2, 3) or least > min(shape[-2:])):
                raise FpjaxError(
                    f"patches of {least}×{least} do not fit points of shape {shape}; train the model again"
                )
            tensors = potentials.parameters_of(network, tensors)
        graph, state = nnx.split(network)
        params = _fill(state, tensors)
        if kind == "capped-network":
            common["facts"] = replace(facts, lipschitz=capped.bound_of(tensors, network.cap, network.data_std))
        return Denoiser(params, NetworkFunction(graph, least), **common)
    raise FpjaxError(f"model {card['name']} has an unknown architecture {kind!r}; update fpjax")


def _check_shapes(wanted: dict, tensors: dict) -> None:
    if set(wanted) != set(tensors):
        odd = sorted(set(wanted) ^ set(tensors))
        raise FpjaxError(f"the weights do not fit the card: tensors {', '.join(odd)} are missing or unknown")
    for name, shape in wanted.items():
        if tensors[name].shape != tuple(shape):
            raise FpjaxError(f"tensor {name!r} has shape {tensors[name].shape}, but the card needs {tuple(shape)}")


def _fill(state, tensors: dict):
    """The state of a network with its leaves taken from named tensors."""
    paths = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
    _check_shapes({name: leaf.shape for name, (_, leaf) in paths.items()}, tensors)
    filled = [(path, leaf.replace(jnp.asarray(tensors[name]))) for name, (path, leaf) in paths.items()]
    return nnx.from_flat_state(filled)


def tensors_of(model: Any) -> dict[str, np.ndarray]:
    """What is stored of a trained module: its own tensors(), or the named parameters of a network."""
    if hasattr(model, "tensors"):
        return {name: np.asarray(value) for name, value in model.tensors().items()}
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): np.asarray(leaf[...]) for path, leaf in flat}


def save(folder: str | os.PathLike, card: dict, tensors: dict[str, np.ndarray]) -> Path:
    """Writes NAME.safetensors and NAME.json so that a reader never sees half a file.

    Args:
      card: everything but ``format``, ``weights`` and ``sha256``, which are added.

    Returns:
      The path of the card.

    Raises:
      FpjaxError: if the folder cannot be written.
    """
    folder = Path(folder)
    blob = save_tensors({name: np.ascontiguousarray(value) for name, value in tensors.items()})
    weights = f"{card['name']}.safetensors"
    full = {"format": FORMAT, **card, "weights": weights, "sha256": hashlib.sha256(blob).hexdigest()}
    write_atomic(folder / weights, blob)
    path = folder / f"{card['name']}.json"
    write_atomic(path, (json.dumps(full, indent=1) + "\n").encode())
    return path


def export(folder: str | os.PathLike, den: Denoiser, name: str) -> Path:
    """Writes a latent tree as a model of its own, for instance a network at one weight of guidance
    (:func:`fpjax.models.distilled.guided`) or one with its prior guided: a card that the certificate kernel reads.

    Args:
      den: a latent tree, its parameters stored as they are. name: of the files and the model.

    Returns:
      The path of the card.

    Raises:
      FpjaxError: for another kind of denoiser, or if the folder cannot be written.
    """
    if den.fn is not tree.denoise:
        raise FpjaxError(f"{den.name} is no latent tree; fix its weight of guidance first, or copy its own files")
    tensors = {key: np.asarray(value) for key, value in den.params.items() if key != "levels"}
    tensors |= {f"level.{i}": np.asarray(level) for i, level in enumerate(den.params["levels"])}
    facts = {"symmetric": True, "monotone": True, "source": den.facts.source}
    made = {"name": name, "shape": list(den.shape), "conditions": list(den.conditions), "facts": facts}
    program = {"architecture": {"kind": "latent-tree", "options": {}}, "source": den.name}
    layers = tree_layers(den.shape, len(den.params["levels"]))
    return save(folder, made | program | {"layers": layers}, tensors)


def write_atomic(path: Path, blob: bytes) -> None:
    """Writes a file by renaming a complete one into its place.

    Raises:
      FpjaxError: if that is not possible; what was there before is kept.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        reason = error.strerror or "write failed"
        raise FpjaxError(f"cannot write {path} ({reason.lower()}); choose another folder or make room") from error


def parameters(den: Denoiser) -> int:
    """The number of stored values of a denoiser."""
    return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(den.params))
