"""Every theorem of fpjax as one short module: what it says, an instance, a broken instance, a check.

``python -m proofs_checks`` runs them all. Modules are found by folder: a file here that has a ``statement`` is a theorem.
"""

import importlib
import pkgutil
import re
from types import ModuleType


def _order(module: ModuleType) -> tuple[str, int]:
    match = re.fullmatch(r"([A-Z]+)(\d+)", module.statement.name)
    return (match[1], int(match[2])) if match else (module.statement.name, 0)


def modules() -> list[ModuleType]:
    """The theorem modules, in the order E1, E2, ..., T1, T2, ..."""
    found = [
        importlib.import_module(f"{__name__}.{info.name}")
        for info in pkgutil.iter_modules(__path__)
        if not info.ispkg and info.name != "__main__"
    ]
    return sorted((m for m in found if hasattr(m, "statement")), key=_order)
