"""From a finished audit to files: JSON checked against its schema, and a self-contained HTML page. Computes nothing."""

import json
from importlib import resources
from pathlib import Path

import jsonschema

from fpjax.auditing import Report
from fpjax.evidence import FpjaxError
from fpjax.models.store import write_atomic
from fpjax.report.page import render


def schema() -> dict:
    """The JSON Schema of ``audit.json``."""
    return json.loads(resources.files("fpjax.report").joinpath("audit.schema.json").read_text())


def to_json(report: Report) -> str:
    """The text of ``audit.json``, validated.

    Raises:
      FpjaxError: if the report does not follow its own schema (a defect of fpjax).
    """
    data = report.to_json()
    try:
        jsonschema.validate(data, schema())
    except jsonschema.ValidationError as error:
        raise FpjaxError(
            f"the report breaks its schema at {error.json_path}: {error.message}; please report this"
        ) from error
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def write(report: Report, folder: Path) -> Path:
    """Writes ``audit.json`` and ``report.html``; both are complete before either appears. Returns the page's path.

    Raises:
      FpjaxError: if the folder cannot be written.
    """
    text, page = to_json(report), render(report)
    write_atomic(folder / "audit.json", text.encode())
    write_atomic(folder / "report.html", page.encode())
    return folder / "report.html"


def check_writable(folder: Path) -> None:
    """Finds out before an audit, not after it, that its folder cannot be written.

    Raises:
      FpjaxError: if so.
    """
    probe = folder / ".fpjax-write-test"
    write_atomic(probe, b"")
    probe.unlink(missing_ok=True)


def summary(report: Report, guidance: float) -> dict[str, str]:
    """One line for each question at one guidance: the verdicts of the steps, counted, with the steps that fail."""
    lines = {}
    for row in report.table:
        if row["guidance"] == guidance:
            lines.setdefault(row["question"], {}).setdefault(row["verdict"], []).append(row["step"])
    return {
        question: "; ".join(f"{v} {spans(steps)}" for v, steps in found.items()) for question, found in lines.items()
    }


def spans(steps: list[int]) -> str:
    """[1, 2, 3, 5] -> "steps 1-3, 5"."""
    runs: list[list[int]] = []
    for step in sorted(steps):
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    text = ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)
    return f"step {text}" if len(steps) == 1 else f"steps {text}"
