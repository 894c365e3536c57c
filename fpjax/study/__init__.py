"""Studies: many audits, resumable, on one machine or many.

from fpjax import study
plan = study.read("study.toml")
with study.Store("study.sqlite", create=True) as store:
    store.plan(plan.text, plan.cells())
    study.run(store, study.Local(), study.audit_cell)
"""

from fpjax.study.cluster import Dask
from fpjax.study.cost import Costs, Forecast
from fpjax.study.engine import Engine, Local, Progress, cores, run
from fpjax.study.plan import Cell, Plan, parse, read
from fpjax.study.store import Pace, Result, Store, Tally
from fpjax.study.work import audit_cell

__all__ = [
    "Cell",
    "Costs",
    "Dask",
    "Engine",
    "Forecast",
    "Local",
    "Pace",
    "Plan",
    "Progress",
    "Result",
    "Store",
    "Tally",
    "audit_cell",
    "cores",
    "parse",
    "read",
    "run",
]
