"""The HTML page of one audit, or of two side by side: one file, no network request, every string escaped.

Text goes through jinja2's autoescape, data through JSON that cannot end its script element; the page's own script writes
text nodes only. The plots are drawn by fpjax/report/static: 1/20 of the size of a plotting library, and each plot can be
walked through with the keyboard and read out.
"""

import json
from importlib import resources
from typing import Any

import jinja2
from jinja2.utils import htmlsafe_json_dumps

from fpjax.auditing import Report
from fpjax.report import columns, pictures, words

SCRIPTS = ("chart.js", "map.js", "evidence.js", "report.js")


def render(report: Report) -> str:
    """The page of one audit, with its images."""
    data = report.to_json()
    return _render(
        f"fpjax audit of {report.model}", f"Is inverting {report.model} a well-posed problem?", [data], report
    )


def render_pair(a: dict[str, Any], b: dict[str, Any], names: tuple[str, str]) -> str:
    """The page of two audits side by side, from the plain data of their ``audit.json``."""
    title = f"{names[0]} and {names[1]}, compared"
    return _render(title, title, [a, b], None, names)


def _render(title: str, question: str, audits: list[dict], report: Report | None, names=("",)) -> str:
    static = resources.files("fpjax.report").joinpath("static")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fpjax.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda v: "–" if v is None else f"{v:.4g}"
    environment.filters["joined"] = lambda text: text.replace("–", "\u2060–\u2060")  # "steps 1–3" stays on one line
    told = [
        {
            "name": name,
            "data": data,
            "headline": words.headline(data),
            "figures": words.figures(data),
            "summaries": [(w, words.summary(data, w)) for w in data["guidance"]],
        }
        for name, data in zip(names, audits, strict=True)
    ]
    packed = [
        {k: data[k] for k in ("model", "process", "guidance", "settings")}
        | {"name": name, "curves": data.get("curves", []), "command": data.get("command")}
        | {"certificates": data.get("certificates", []), "cells": columns.pack(data)}
        for name, data in zip(names, audits, strict=True)
    ]
    texts = {k: getattr(words, k.upper()) for k in ("theorems", "asked", "values", "verdicts", "evidence")}
    return environment.get_template("report.html").render(
        title=title,
        question=question,
        audits=told,
        gallery=pictures.gallery(report) if report else [],
        verdicts=words.VERDICTS,
        payload=htmlsafe_json_dumps({"audits": packed, "texts": texts}, dumps=_compact),
        style=static.joinpath("report.css").read_text(),
        scripts=[static.joinpath(name).read_text() for name in SCRIPTS],
    )


def _compact(data, **_) -> str:
    return json.dumps(data, separators=(",", ":"), allow_nan=False)
