"""Two audits side by side: where their verdicts differ. Counts only; not in this room: pages, tables."""

from typing import Any, NamedTuple

from fpjax.report import words


class Line(NamedTuple):
    """One question at one guidance: the verdicts of both audits in words, and the steps where they differ."""

    question: str
    a: str
    b: str
    changed: str


def names(a: dict[str, Any], b: dict[str, Any], paths: tuple[str, str]) -> tuple[str, str]:
    """What to call the two: model and process, and the path too where these are the same."""
    short = [f"{d['model']}, {d['process']['kind']} {d['process']['steps']} steps" for d in (a, b)]
    if short[0] == short[1]:
        short = [f"{s} ({path})" for s, path in zip(short, paths, strict=True)]
    return short[0], short[1]


def differences(a: dict[str, Any], b: dict[str, Any]) -> dict[float, list[Line]]:
    """For each guidance that both audited: a line for each question of either."""
    out = {}
    for w in a["guidance"]:
        if w in b["guidance"]:
            first, second = words.summary(a, w), words.summary(b, w)
            asked = [*first, *(q for q in second if q not in first)]
            out[w] = [Line(q, first.get(q, "–"), second.get(q, "–"), _changed(a, b, w, q)) for q in asked]
    return out


def alone(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    """Sentences on the guidance weights that only one of the two audited."""
    told = []
    for name, one, other in (("A", a, b), ("B", b, a)):
        only = [f"{w:g}" for w in one["guidance"] if w not in other["guidance"]]
        if only:
            told.append(f"only {name} audited guidance {', '.join(only)}")
    return told


def _changed(a, b, w: float, question: str) -> str:
    if a["process"]["steps"] != b["process"]["steps"]:
        return "different steps"
    verdicts = [{s: v for v, steps in words.by_verdict(d, w, question).items() for s in steps} for d in (a, b)]
    if not all(verdicts):
        return "asked once"
    steps = [s for s in verdicts[0] if verdicts[0][s] != verdicts[1].get(s)]
    return words.at(steps, len(verdicts[0])) if steps else "nowhere"
