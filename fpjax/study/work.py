"""The work of one cell: an audit, as plain rows. Runs in a worker process, which keeps the models it has loaded.

Not in this room: where it runs (engine), where the rows go (store).
"""

import functools
from typing import Any

from fpjax.evidence import FpjaxError
from fpjax.study import meter
from fpjax.study.plan import Cell, card_hash


def audit_cell(cell: Cell) -> list[dict[str, Any]]:
    """The rows of ``audit.json`` for a cell, and one more for the round trip.

    Raises:
      FpjaxError: if the model is no longer the one that was planned, or for bad input.
    """
    import jax
    import numpy as np

    import fpjax

    meter.listen()
    # Workers do one cell at a time, so a process may change its precision between two of them.
    jax.config.update("jax_enable_x64", cell.precision == "float64")
    den = _model(cell.model, cell.card)
    x, labels = fpjax.samples(cell.data, cell.first + cell.count, cell.seed)
    report = fpjax.audit(
        den,
        _process(cell.process, cell.steps),
        images=x[cell.first :].astype(np.dtype(cell.precision)),
        condition=labels[cell.first :] if den.conditions else None,
        guidance=cell.guidance,
        solver=cell.solver,
        seed=cell.seed,
        histories=(),
    )
    trips = [{"question": "round-trip", **trip} for trip in report.round_trip]
    return report.table + trips


@functools.lru_cache(maxsize=8)
def _model(source: str, card: str):
    import fpjax

    if card_hash(source) != card:
        raise FpjaxError(f"the model {source} changed after the study was planned; run the study again to plan it anew")
    return fpjax.load(source)


@functools.lru_cache(maxsize=64)
def _process(kind: str, steps: int):
    import fpjax

    return fpjax.process.make(kind, steps)
