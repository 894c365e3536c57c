"""fpjax: is inverting this diffusion model a well-posed problem? Fixed points, measured and proved.

The public names are few; everything is imported when first used, so that ``import fpjax`` is quick and the
certificate checker (:mod:`fpjax.certify.check`) never loads JAX.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # what __getattr__ finds at run time, for type checkers and editors
    from fpjax import certify as certify
    from fpjax import data as data
    from fpjax import denoiser as denoiser
    from fpjax import diffusers as diffusers
    from fpjax import editing as editing
    from fpjax import evidence as evidence
    from fpjax import jacobian as jacobian
    from fpjax import models as models
    from fpjax import process as process
    from fpjax import report as report
    from fpjax import samplers as samplers
    from fpjax import schedulers as schedulers
    from fpjax import solve as solve
    from fpjax import step as step
    from fpjax import subject as subject
    from fpjax import testing as testing
    from fpjax import trajectory as trajectory
    from fpjax.auditing import Report as Report
    from fpjax.auditing import audit as audit
    from fpjax.data import samples as samples
    from fpjax.denoiser import Denoiser as Denoiser
    from fpjax.denoiser import Facts as Facts
    from fpjax.evidence import Bound as Bound
    from fpjax.evidence import Evidence as Evidence
    from fpjax.evidence import Exit as Exit
    from fpjax.evidence import FpjaxError as FpjaxError
    from fpjax.evidence import Verdict as Verdict
    from fpjax.models.store import load as load
    from fpjax.process import Process as Process
    from fpjax.trajectory import Inversion as Inversion
    from fpjax.trajectory import generate as generate
    from fpjax.trajectory import invert as invert
    from fpjax.trajectory import round_trip as round_trip

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
_ROOMS = (
    "certify",
    "data",
    "denoiser",
    "diffusers",
    "editing",
    "evidence",
    "jacobian",
    "models",
    "process",
    "report",
    "samplers",
    "schedulers",
    "solve",
    "step",
    "subject",
    "testing",
    "trajectory",
)
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
