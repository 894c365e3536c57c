"""Property-based tests for your own denoiser: assertions, hypothesis strategies, a bridge from PyTorch.

    from fpjax import testing

    testing.assert_wellposed(model, process)      # T2: at most one solution, at every step
    testing.assert_monotone(model)                # T2 for every grid at once: sym J >= 0
    testing.assert_contracts(model, process)      # T3: plain iteration arrives
    testing.assert_roundtrip(model, process, images)
    testing.assert_matches_schedule(model, process, sampler)

**An assertion that passes means SUPPORTED**: no violation at the points that were looked at. Each returns an
:class:`Outcome` that says at how many, and each failure shows a witness that can be evaluated again.
The strategies need the extra ``fpjax[testing]``. Not in this room: proofs (certify), the pytest table (plugin).
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fpjax.testing.asserting import Outcome as Outcome
    from fpjax.testing.asserting import PropertyError as PropertyError
    from fpjax.testing.asserting import assert_contracts as assert_contracts
    from fpjax.testing.asserting import assert_monotone as assert_monotone
    from fpjax.testing.asserting import assert_wellposed as assert_wellposed
    from fpjax.testing.bridge import from_torch as from_torch
    from fpjax.testing.strategies import Known as Known
    from fpjax.testing.strategies import conditions as conditions
    from fpjax.testing.strategies import gaussians as gaussians
    from fpjax.testing.strategies import images as images
    from fpjax.testing.strategies import mixtures as mixtures
    from fpjax.testing.strategies import networks as networks
    from fpjax.testing.strategies import processes as processes
    from fpjax.testing.trajectories import assert_matches_schedule as assert_matches_schedule
    from fpjax.testing.trajectories import assert_roundtrip as assert_roundtrip

_HOMES = {
    "Outcome": "asserting",
    "PropertyError": "asserting",
    "assert_contracts": "asserting",
    "assert_monotone": "asserting",
    "assert_wellposed": "asserting",
    "assert_matches_schedule": "trajectories",
    "assert_roundtrip": "trajectories",
    "Known": "strategies",
    "conditions": "strategies",
    "gaussians": "strategies",
    "images": "strategies",
    "mixtures": "strategies",
    "networks": "strategies",
    "processes": "strategies",
    "from_torch": "bridge",
}
__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'fpjax.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fpjax.testing.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return list(__all__)
