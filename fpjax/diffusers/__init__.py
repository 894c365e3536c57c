"""diffusers checkpoints from a folder: ``fpjax.load(folder)``; safetensors only, no remote code, nothing is downloaded."""

import importlib

_HOMES = {
    "Checkpoint": "checkpoint",
    "open_checkpoint": "checkpoint",
    "Autoencoder": "autoencoder",
    "load_autoencoder": "autoencoder",
    "InverseScheduler": "export",
    "edit_with_attention": "attention",
}


def __getattr__(name: str):
    if name in _HOMES:
        room = importlib.import_module(f"fpjax.diffusers.{_HOMES[name]}")
        return getattr(room, "load" if name == "load_autoencoder" else name)
    raise AttributeError(f"module 'fpjax.diffusers' has no attribute {name!r}")
