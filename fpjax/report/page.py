"""The HTML page of a report: one file, no network request, every string escaped by jinja2."""

import json

import jinja2

from fpjax.auditing import Report
from fpjax.report import figures
from fpjax.rules import QUESTIONS

THEOREMS = {
    "T1": "Coercivity: a solution exists whenever rho > 0 and D is a multiple of y plus a bounded part.",
    "T2": "Strong monotonicity: m = rho + (1 - rho)·inf lambda_min(sym J) > 0 gives exactly one solution.",
    "T3": "Contraction: kappa = (1 - rho)·sup ||I - J|| < 1 makes plain iteration converge.",
    "T8": "Residual to error: ||y - y*|| <= residual/m.",
    "T11": "Guidance: uniqueness is kept while w < 1 + rho/((1 - rho)·Lambda), if J_c >= 0 and J_0 <= Lambda.",
    "T13": "Newton-Kantorovich: a ball round a small residual holds exactly one solution if a bound verifies.",
}


def headline(report: Report) -> str:
    """One sentence for the first guidance audited: where it is well posed, where contraction fails."""
    w = report.guidance[0]
    rows = [row for row in report.table if row["guidance"] == w]
    parts = []
    for question, good in (("uniqueness", "unique"), ("contraction", "contracting")):
        steps = [row["step"] for row in rows if row["question"] == question]
        bad = [
            row["step"]
            for row in rows
            if row["question"] == question and row["verdict"] not in ("SUPPORTED", "CERTIFIED")
        ]
        parts.append(f"{good} at every step" if not bad else f"not shown {good} at {len(bad)} of {len(steps)} steps")
    limits = [row["value"] for row in rows if row["question"] == "guidance-limit" and row["value"] is not None]
    if limits and len(limits) == report.process["steps"]:
        parts.append(f"safe guidance {min(limits):.4g}")
    return f"At guidance {w:g}: " + "; ".join(parts) + "."


def render(report: Report) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fpjax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda v: "–" if v is None else f"{v:.4g}"
    steps = sorted({row["step"] for row in report.table})
    cells = {(row["guidance"], row["question"], row["step"]): row for row in report.table}
    asked = [q for q in QUESTIONS if any(row["question"] == q for row in report.table)]
    return environment.get_template("report.html").render(
        report=report,
        headline=headline(report),
        steps=steps,
        cells=cells,
        questions=asked,
        plots=figures.plots(report),
        gallery=figures.gallery(report),
        theorems=THEOREMS,
        witness=lambda w: json.dumps(w, indent=1),
    )
