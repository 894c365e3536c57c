"""Certificates: proofs that a small independent kernel re-derives from the weights.

``fpjax.certify.propose(...)`` searches with JAX and is not trusted; ``fpjax.certify.check(...)`` runs the kernel
(check.py), which needs python-flint and nothing else of fpjax. Both names are also the modules of that name, made
callable, so that ``python -m fpjax.certify.check`` and ``import fpjax.certify.propose`` work too. Nothing is imported
before it is used: the kernel never loads JAX.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fpjax.certify.check import CertificateError, Proved
    from fpjax.certify.propose import Certificate, audit_certificates, propose
    from fpjax.evidence import Verdict

__all__ = ["Certificate", "CertificateError", "audit_certificates", "check", "model_card", "propose", "verify"]


def model_card(model) -> Path:
    """The card of an embedded model given by name, or the path (card, weights or folder) as it is."""
    embedded = Path(__file__).parent.parent / "models" / "weights" / f"{model}.json"
    path = embedded if isinstance(model, str) and embedded.is_file() else Path(model)
    return path.with_suffix(".json") if path.suffix == ".safetensors" else path


def verify(certificate, model=None, *, limit_s: float = 600.0, fast: bool = False) -> "Proved":
    """Runs the kernel on a certificate.

    Args:
      certificate: a file, or a Certificate.
      model: name of an embedded model, a model card, or the folder that holds it; None for the embedded models.
      limit_s: seconds.
      fast: multiply matrices in float64 with proved error bounds instead of in Arb, for larger networks; see fast.py.

    Returns:
      What was proved: a sentence, the verdict on each question, numbers, and the arithmetic of the proof.

    Raises:
      CertificateError: if anything is malformed or was tampered with, or the claim was not proved.
    """
    kernel = importlib.import_module("fpjax.certify.check")
    card = Path(__file__).parent.parent / "models" / "weights" if model is None else model
    card = card if isinstance(card, kernel.Model) else model_card(card)
    if hasattr(certificate, "data"):
        return kernel.check_data(certificate.data, card, limit_s, fast)
    return kernel.check(certificate, card, limit_s, fast)


def _check(path, model=None, *, limit_s: float = 600.0, fast: bool = False) -> "Verdict":
    """The verdict that the kernel re-derives: CERTIFIED, or REFUTED for a proof that a property fails; see verify."""
    from fpjax.evidence import Verdict

    return Verdict(verify(path, model, limit_s=limit_s, fast=fast).verdict)


class _CheckModule(ModuleType):
    def __call__(self, path, model=None, *, limit_s: float = 600.0, fast: bool = False) -> "Verdict":
        return _check(path, model, limit_s=limit_s, fast=fast)


class _ProposeModule(ModuleType):
    def __call__(self, *args, **kwargs) -> "Certificate":
        return self.propose(*args, **kwargs)


class _Package(ModuleType):
    """This package; a submodule that shares its name with a function becomes callable as it is imported."""

    def __setattr__(self, name, value):
        kind = {"check": _CheckModule, "propose": _ProposeModule}.get(name)
        if kind is not None and type(value) is ModuleType:
            value.__class__ = kind
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
if TYPE_CHECKING:
    check = _check

_HOMES = {
    "CertificateError": "check",
    "Proved": "check",
    "Certificate": "propose",
    "audit_certificates": "propose",
}


def __getattr__(name: str):
    if name in ("check", "propose"):
        return importlib.import_module(f"fpjax.certify.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(f"fpjax.certify.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fpjax.certify' has no attribute {name!r}")
