"""Claims of others, checked the same way as the theorems: the paper's own, then statements published elsewhere.

``python -m proofs_checks --claims`` measures them all. Modules are found by folder: a file here that has a ``statement``.
"""

import importlib
import pkgutil
from types import ModuleType


def modules() -> list[ModuleType]:
    """The claim modules: the paper's first, each group in the order of its ``order``."""
    found = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return sorted((m for m in found if hasattr(m, "statement")), key=lambda m: m.statement.order)
