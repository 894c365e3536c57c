"""The rows of an audit as columns: what a page of 60,000 verdicts needs, in a few megabytes, without losing a word.

A detail is its words, shared by all rows that say the same, and its numbers. :func:`detail` puts them together again, as
the page does when a verdict is opened.
"""

import json
import re
from typing import Any

from fpjax.report.words import questions

NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
ROOM = 800_000  # characters of witnesses whose vectors are kept in the page; audit.json keeps all
NONE = "-"  # a cell without a row


def pack(data: dict[str, Any]) -> dict[str, Any]:
    """The columns of ``audit.json``'s rows; cells are ordered by guidance, step, question.

    Returns:
      questions, steps, sigma_from, sigma_to, rho (one for each step); for each cell one letter of ``verdict`` and
      ``evidence``, an index ``theorem`` into ``theorems``, ``value``, an index ``words`` into ``details`` and ``numbers``;
      and ``witnesses``, cell -> witness.
    """
    asked = questions(data)
    place = {
        (w, s, q): i
        for i, (w, s, q) in enumerate(
            (w, s, q) for w in data["guidance"] for s in range(1, data["process"]["steps"] + 1) for q in asked
        )
    }
    n = len(place)
    verdict, evidence = [NONE] * n, [NONE] * n
    value: list[float | None] = [None] * n
    theorem, words, numbers = [0] * n, [0] * n, [""] * n
    theorems: dict[str, int] = {}
    details: dict[tuple[str, ...], int] = {}
    witnesses: dict[int, Any] = {}
    room = ROOM
    for row in data["rows"]:
        i = place[row["guidance"], row["step"], row["question"]]
        verdict[i], evidence[i] = row["verdict"][0], row["evidence"][0]
        value[i] = short(row["value"])
        theorem[i] = theorems.setdefault(row["theorem"], len(theorems))
        words[i] = details.setdefault(tuple(NUMBER.split(row["detail"])), len(details))
        numbers[i] = " ".join(NUMBER.findall(row["detail"]))
        if row["witness"]:
            witnesses[i] = witness(row["witness"], room > 0)
            room -= len(json.dumps(witnesses[i]))
    levels = {row["step"]: row for row in data["rows"]}
    return {
        "questions": asked,
        "steps": sorted(levels),
        **{k: [short(levels[s][k]) for s in sorted(levels)] for k in ("sigma_from", "sigma_to", "rho")},
        "verdict": "".join(verdict),
        "evidence": "".join(evidence),
        "value": value,
        "theorems": list(theorems),
        "theorem": theorem,
        "details": [list(d) for d in details],
        "words": words,
        "numbers": "\n".join(numbers),
        "witnesses": witnesses,
    }


def short(value: float | None) -> float | None:
    """Six digits, for reading."""
    return None if value is None else float(f"{value:.6g}")


def witness(full: dict[str, Any], vectors: bool) -> dict[str, Any]:
    """A witness for reading: vectors with six digits, or only their lengths."""
    out = {}
    for key, entry in full.items():
        if isinstance(entry, list):
            out[key] = [short(v) for v in entry] if vectors else {"length": len(entry)}
        else:
            out[key] = short(entry) if isinstance(entry, float) else entry
    return out


def detail(columns: dict[str, Any], cell: int) -> str:
    """The detail of a cell, as it was."""
    pieces = columns["details"][columns["words"][cell]]
    numbers = [*columns["numbers"].split("\n")[cell].split(" ")][: len(pieces) - 1]
    return pieces[0] + "".join(n + p for n, p in zip(numbers, pieces[1:], strict=True))
