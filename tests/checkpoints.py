"""Diffusers folders written without diffusers: a tiny unconditional UNet2DModel that the native network reads."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from fpjax.models import unet

UNET = {
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.42.1",
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": [4, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "attention_head_dim": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
INDEX = {
    "_class_name": "DDIMPipeline",
    "unet": ["diffusers", "UNet2DModel"],
    "scheduler": ["diffusers", "DDIMScheduler"],
}
WEIGHTS = "diffusion_pytorch_model.safetensors"


def config_of(config: dict) -> unet.Config:
    return unet.Config.read({k: v for k, v in config.items() if not k.startswith("_")})


def write(folder: Path, config: dict | None = None, scheduler: dict | None = None, tensors=None) -> Path:
    """A pipeline's folder: model_index.json, unet/, scheduler/."""
    config = UNET if config is None else config
    (folder / "unet").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler or SCHEDULER))
    (folder / "unet" / "config.json").write_text(json.dumps(config))
    tensors = unet.random(config_of(config)) if tensors is None else tensors
    save_file({name: np.asarray(t) for name, t in tensors.items()}, folder / "unet" / WEIGHTS)
    return folder
