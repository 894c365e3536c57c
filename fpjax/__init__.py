"""fpjax: is inverting this diffusion model a well-posed problem? Fixed points, measured and proved.

The public names are few; everything is imported when first used, so that ``import fpjax`` is quick and the
certificate checker (:mod:`fpjax.certify.check`) never loads JAX.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "audit": "fpjax.auditing",
    "Report": "fpjax.auditing",
    "Denoiser": "fpjax.denoiser",
    "Facts": "fpjax.denoiser",
    "Bound": "fpjax.evidence",
    "Evidence": "fpjax.evidence",
    "Exit": "fpjax.evidence",
    "FpjaxError": "fpjax.evidence",
    "Verdict": "fpjax.evidence",
    "generate": "fpjax.trajectory",
    "invert": "fpjax.trajectory",
    "Inversion": "fpjax.trajectory",
    "round_trip": "fpjax.trajectory",
    "load": "fpjax.models.store",
    "samples": "fpjax.data",
    "Process": "fpjax.process",
}
_ROOMS = ("certify", "data", "denoiser", "evidence", "jacobian", "models", "process", "report", "solve", "step", "trajectory")
__all__ = ["__version__", *_HOMES, *_ROOMS]


def __getattr__(name: str):
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"fpjax.{name}")
    raise AttributeError(f"module 'fpjax' has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
