"""A diffusers checkpoint's folder, read with suspicion: JSON and safetensors, nothing else, nothing executed.

In this room: which parts a folder has, what they say they are, their tensors, and one sentence for everything that is
wrong with them. Not in this room: what is done with a part (families, bridge), torch.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from fpjax.evidence import FpjaxError

PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack"}
STEMS = ("diffusion_pytorch_model", "model")
RENAMED = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}
LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True)
class Part:
    """One part of a checkpoint.

    Attributes:
      path: its folder. kind: the name of its class. config: its configuration, without keys that start with "_".
    """

    path: Path
    kind: str
    config: dict[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      FpjaxError: if the file is missing or is none.
    """
    if not path.is_file():
        raise FpjaxError(f"{path.parent} has no {path.name}; give the whole folder that save_pretrained wrote")
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FpjaxError(f"{path} cannot be read as JSON; save the checkpoint again") from error
    if not isinstance(data, dict):
        raise FpjaxError(f"{path} holds no JSON object; save the checkpoint again")
    return data


def read_part(path: Path, file: str = "config.json") -> Part:
    """A part from its folder.

    Raises:
      FpjaxError: if its configuration is missing or damaged, names no class, or asks for code of its own.
    """
    config = read_json(path / file)
    refuse_code(path, config)
    kind = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    if not isinstance(kind, str):
        raise FpjaxError(f"{path / file} does not name its class (_class_name); save the checkpoint again")
    return Part(path, kind, {k: v for k, v in config.items() if not k.startswith("_")})


def read_index(path: Path) -> dict[str, tuple[str, str]]:
    """The parts of a pipeline: name -> (library, class); parts that are null are left out.

    Raises:
      FpjaxError: if the index is damaged or a part needs code that is not in diffusers or transformers.
    """
    index = read_json(path / "model_index.json")
    refuse_code(path, index)
    parts = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list) or value == [None, None]:
            continue
        if len(value) != 2 or not all(isinstance(v, str) for v in value) or not name.isidentifier():
            raise FpjaxError(f"{path / 'model_index.json'} has a part {name!r} that names no class; save it again")
        library, kind = value
        if library not in (*LIBRARIES, "stable_diffusion"):
            raise FpjaxError(
                f"part {name} of {path} needs code of its own ({library}.{kind}), and no code from a checkpoint is run"
            )
        parts[name] = (library, kind)
    return parts


def refuse_code(path: Path, config: dict[str, Any]) -> None:
    """No code from a checkpoint is ever run, so a checkpoint that needs some is refused.

    Raises:
      FpjaxError: if the configuration asks for code (``auto_map``), or Python files lie in the folder.
    """
    if "auto_map" in config:
        raise FpjaxError(f"{path} asks for code of its own (auto_map), and no code from a checkpoint is run")
    scripts = sorted(p.name for p in path.glob("*.py"))
    if scripts:
        raise FpjaxError(
            f"{path} carries code ({scripts[0]}), and no code from a checkpoint is run; "
            "take the file out if the model does not need it"
        )


def weight_files(path: Path) -> list[Path]:
    """The safetensors files of a part, whole or in pieces.

    Raises:
      FpjaxError: if there are none, if only pickled weights are there, or if the index leads out of the folder.
    """
    for stem in STEMS:
        whole, index = path / f"{stem}.safetensors", path / f"{stem}.safetensors.index.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            return _pieces(index)
    pickled = sorted(p.name for p in path.glob("*") if p.suffix in PICKLED)
    if pickled:
        raise FpjaxError(
            f"{path} has pickled weights only ({pickled[0]}), and fpjax never unpickles; "
            "save them with safe_serialization=True"
        )
    named = sorted(p.name for p in path.glob("*.safetensors"))
    if named:
        raise FpjaxError(f"{path} has {named[0]} but no {STEMS[0]}.safetensors; rename the weights that you mean")
    raise FpjaxError(f"{path} has no weights ({STEMS[0]}.safetensors); copy the whole folder")


def _pieces(index: Path) -> list[Path]:
    table = read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
        raise FpjaxError(f"{index} has no weight_map; save the checkpoint again")
    names = sorted(set(table.values()))
    for name in names:
        if name != os.path.basename(name) or name in ("", ".", "..") or not name.endswith(".safetensors"):
            raise FpjaxError(f"{index} points to {name!r}, which is no safetensors file beside it; it is not opened")
        if not (index.parent / name).is_file():
            raise FpjaxError(f"{index} names {name}, which is missing; copy the whole folder")
    return [index.parent / name for name in names]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a part, in the names of current diffusers, floating-point ones as float32.

    Raises:
      FpjaxError: for a file that is empty, truncated or damaged, and for values that are NaN or infinite.
    """
    tensors: dict[str, np.ndarray] = {}
    for file in weight_files(path):
        if file.stat().st_size == 0:
            raise FpjaxError(f"{file} is empty (0 bytes); copy it again")
        try:
            with safe_open(file, "flax") as data:  # the one reader of this library that knows bfloat16 without torch
                for name in data.keys():  # noqa: SIM118 (no mapping)
                    tensors[_renamed(name)] = _single(np.asarray(data.get_tensor(name)))
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise FpjaxError(f"{file} is damaged or truncated; copy it again") from error
    for name, tensor in tensors.items():
        if np.issubdtype(tensor.dtype, np.floating) and not np.isfinite(tensor).all():
            raise FpjaxError(f"tensor {name!r} of {path} has NaN or infinite values; train or save the model again")
    return tensors


def _single(tensor: np.ndarray) -> np.ndarray:
    return tensor if np.issubdtype(tensor.dtype, np.integer) or tensor.dtype == bool else tensor.astype(np.float32)


def _renamed(name: str) -> str:
    """The name of a tensor today: attention blocks were named otherwise before diffusers 0.15."""
    if ".attentions." in name:
        for old, new in RENAMED.items():
            name = name.replace(old, new)
    return name


def compare(path: Path, wanted: dict[str, tuple[int, ...]], tensors: dict[str, np.ndarray]) -> None:
    """Weights must be exactly those that the configuration describes.

    Raises:
      FpjaxError: naming the first tensor that is missing, unknown or of another shape.
    """
    missing, unknown = sorted(set(wanted) - set(tensors)), sorted(set(tensors) - set(wanted))
    if missing or unknown:
        what = f"{missing[0]!r} is missing" if missing else f"{unknown[0]!r} is unknown"
        raise FpjaxError(f"the weights of {path} do not fit its config.json: tensor {what}; save the checkpoint again")
    for name, shape in wanted.items():
        if tensors[name].shape != tuple(shape):
            raise FpjaxError(
                f"the weights of {path} do not fit its config.json: tensor {name!r} has shape {tensors[name].shape}, "
                f"not {tuple(shape)}"
            )
