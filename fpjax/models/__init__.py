"""Denoisers: exact ones in closed form, embedded trained ones, and how those were trained."""

import importlib

_ROOMS = (
    "capped",
    "exact",
    "mixture",
    "monotone",
    "plain",
    "potentials",
    "priors",
    "recipes",
    "store",
    "training",
    "tree",
)


def names() -> list[str]:
    """The names of the embedded models, for :func:`fpjax.load`."""
    from fpjax.models import store

    return store.names()


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"fpjax.models.{name}")
    raise AttributeError(f"module 'fpjax.models' has no attribute {name!r}")
