"""Prompts as tables of conditions: the checkpoint's own tokenizers and text encoders, run once, offline.

Each pipeline's ``encode_prompt`` does the work, so that padding, masks and the choice of layers are diffusers' own. Not in
this room: networks (families).
"""

from pathlib import Path
from typing import Any

import numpy as np

from fpjax.diffusers import folder
from fpjax.diffusers.bridge import first_line, need, quiet
from fpjax.evidence import FpjaxError

Tables = dict[str, np.ndarray]
SKIPPED = ("vae", "safety_checker", "feature_extractor", "image_encoder")


def _stable_diffusion(pipe, prompts: list[str], size) -> Tables:
    text, _ = pipe.encode_prompt(prompts, "cpu", 1, False)
    return {"text": text}


def _stable_diffusion_xl(pipe, prompts: list[str], size) -> Tables:
    text, _, pooled, _ = pipe.encode_prompt(prompts, device="cpu", do_classifier_free_guidance=False)
    if pipe.config.force_zeros_for_empty_prompt:
        text[-1], pooled[-1] = 0, 0
    edge = [float(n) for n in size]
    ids = np.asarray([*edge, 0, 0, *edge], np.float32)
    return {"text": text, "pooled": pooled, "time_ids": np.tile(ids, (len(prompts), 1))}


def _stable_diffusion_3(pipe, prompts: list[str], size) -> Tables:
    text, _, pooled, _ = pipe.encode_prompt(prompts, None, None, device="cpu", do_classifier_free_guidance=False)
    return {"text": text, "pooled": pooled}


def _flux(pipe, prompts: list[str], size) -> Tables:
    text, pooled, _ = pipe.encode_prompt(prompts, None, device="cpu")
    return {"text": text, "pooled": pooled}


def _pixart(pipe, prompts: list[str], size) -> Tables:
    text, mask, _, _ = pipe.encode_prompt(prompts, do_classifier_free_guidance=False, device="cpu")
    return {"text": text, "mask": mask}


ENCODERS = {
    "StableDiffusionPipeline": _stable_diffusion,
    "StableDiffusionXLPipeline": _stable_diffusion_xl,
    "StableDiffusion3Pipeline": _stable_diffusion_3,
    "FluxPipeline": _flux,
    "PixArtAlphaPipeline": _pixart,
    "PixArtSigmaPipeline": _pixart,
}


def check(path: Path, parts: dict[str, tuple[str, str]]) -> None:
    """Looks at every tokenizer and text encoder before anything of another library does.

    Raises:
      FpjaxError: for code of its own, pickled, damaged or non-finite weights.
    """
    for name, (library, kind) in parts.items():
        if library != "transformers" or name in SKIPPED:
            continue
        place = path / name
        if not place.is_dir():
            raise FpjaxError(f"{path} names the part {name} ({kind}), which is missing; copy the whole folder")
        if "Tokenizer" in kind:
            for file in ("tokenizer_config.json", "config.json"):
                if (place / file).is_file():
                    folder.refuse_code(place, folder.read_json(place / file))
            folder.refuse_code(place, {})
        else:
            folder.read_part(place)
            folder.read_tensors(place)


def embed(path: Path, kind: str, parts: dict[str, tuple[str, str]], prompts: list[str], size, network: Any) -> Tables:
    """Tables with one row for each prompt and a last one for the empty prompt, which stands for "no condition".

    Args:
      path: the pipeline's folder. kind: its class. parts: from :func:`fpjax.diffusers.folder.read_index`.
      size: (h, w) in pixels of the image, which SDXL is told. network: name and module of the denoising network, built already.

    Raises:
      FpjaxError: for pipelines whose prompts fpjax cannot encode, and for parts that are damaged.
    """
    if kind not in ENCODERS:
        raise FpjaxError(f"fpjax cannot encode prompts of a {kind}; it knows {', '.join(ENCODERS)}; give embeddings=")
    check(path, parts)
    diffusers = need("diffusers", f"{kind} of {path}")
    need("transformers", f"{kind} of {path}")
    name, module = network
    without = {skipped: None for skipped in SKIPPED if skipped in parts}
    try:
        with quiet():
            pipe = getattr(diffusers, kind).from_pretrained(
                str(path), local_files_only=True, use_safetensors=True, **{name: module}, **without
            )
            found = ENCODERS[kind](pipe, [*prompts, ""], size)
    except Exception as error:
        raise FpjaxError(f"the text encoders of {path} cannot be run ({first_line(error)}); save it again") from error
    return {key: np.array(value if isinstance(value, np.ndarray) else value.detach()) for key, value in found.items()}


def tokens(path: Path, prompt: str, length: int, *, marks: bool = True) -> list[int]:
    """The tokens of a prompt, at most ``length``, without padding; with ``marks`` its beginning and end too.

    Raises:
      FpjaxError: if the folder has no tokenizer, or a damaged one.
    """
    parts = folder.read_index(path) if (path / "model_index.json").is_file() else {}
    if "tokenizer" not in parts:
        raise FpjaxError(f"{path} has no tokenizer, so the tokens of a prompt are unknown; give them by their indices")
    only = {"tokenizer": parts["tokenizer"]}
    check(path, only)
    transformers: Any = need("transformers", f"the tokenizer of {path}")
    try:
        with quiet():
            tokenizer = getattr(transformers, only["tokenizer"][1]).from_pretrained(
                str(path / "tokenizer"), local_files_only=True
            )
            return list(tokenizer(prompt, truncation=True, max_length=length, add_special_tokens=marks).input_ids)
    except Exception as error:
        raise FpjaxError(f"the tokenizer of {path} cannot be run ({first_line(error)}); save it again") from error
