"""Every family's tiny pipeline, built once, saved, and read again from its folder; nothing may reach for a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tiny
    import torchax  # noqa: F401

import fpjax

PROMPTS = ("cat", "a dog")


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    """Not here: torch, diffusers and transformers warn about each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Shelf:
    """Folders and checkpoints by family, each made when first asked for."""

    def __init__(self, root):
        self.root, self.opened = root, {}

    def folder(self, name):
        folder = self.root / name
        if not folder.exists():
            tiny.PIPELINES[name](folder)
        return folder

    def open(self, name):
        if name not in self.opened:
            options = {"prompts": PROMPTS} if name in tiny.TEXT else {}
            if name == "flux":
                options["size"] = (8, 8)
            self.opened[name] = fpjax.diffusers.open_checkpoint(self.folder(name), **options)
        return self.opened[name]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield Shelf(tmp_path_factory.mktemp("pipelines"))
