"""From a finished audit to files: JSON checked against its schema, a self-contained HTML page, Markdown. Computes nothing."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from fpjax import schemas
from fpjax.auditing import Report
from fpjax.evidence import FpjaxError
from fpjax.models.store import write_atomic
from fpjax.report import text, words
from fpjax.report.page import render
from fpjax.report.words import spans as spans


def schema() -> dict:
    """The JSON Schema of ``audit.json``."""
    return json.loads(resources.files("fpjax.report").joinpath("audit.schema.json").read_text())


def to_json(report: Report) -> str:
    """The text of ``audit.json``, validated.

    Raises:
      FpjaxError: if the report does not follow its own schema (a defect of fpjax).
    """
    data = report.to_json()
    fault = schemas.fault(schema(), data)
    if fault is not None:
        raise FpjaxError(f"the report breaks its schema at {fault.where}: {fault.what}; please report this")
    return json.dumps(data, indent=1, allow_nan=False) + "\n"


def read(path: str | Path) -> dict[str, Any]:
    """The plain data of an ``audit.json``, or of the one in a folder, validated.

    Raises:
      FpjaxError: if there is none, or it is not an audit of this version.
    """
    path = Path(path)
    path = path / "audit.json" if path.is_dir() else path
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FpjaxError(f"there is no audit at {path} ({error.strerror}); make one by: fpjax audit") from None
    except (ValueError, RecursionError):
        raise FpjaxError(f"{path} is not an audit.json: it is not JSON; name the file that fpjax audit wrote") from None
    found = data.get("format") if isinstance(data, dict) else None
    if found != "fpjax-audit/1":
        known = isinstance(found, str) and found.startswith("fpjax-audit/")
        what = f"was written in the format {found!r}" if known else "is not an audit.json"
        raise FpjaxError(f"{path} {what}; this fpjax reads fpjax-audit/1: make the audit again by: fpjax audit")
    fault = schemas.fault(schema(), data)
    if fault is not None:
        raise FpjaxError(f"{path} is not a valid audit.json at {fault.where}: {fault.what}; make it again")
    return data


def write(report: Report, folder: Path) -> Path:
    """Writes ``audit.json``, ``report.html`` and ``report.md``; all are complete before one appears. Returns the page's path.

    Raises:
      FpjaxError: if the folder cannot be written.
    """
    parts = {"audit.json": to_json(report), "report.html": render(report), "report.md": text.markdown(report.to_json())}
    for name, part in parts.items():
        write_atomic(folder / name, part.encode())
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
    return words.summary(report.to_json(), guidance)
