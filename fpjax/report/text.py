"""An audit as text: Markdown for reading, a LaTeX table for papers. Every string is escaped for its language."""

import re
from typing import Any

from fpjax.report import words

LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "–": "--",
    "·": r"$\cdot$",
}
MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>&~$\-.:@/])")


def md(text: object) -> str:
    """Text as Markdown shows it: one line, no markup, no links."""
    flat = " ".join(str(text).split())
    return MARKDOWN.sub(lambda m: {"<": "&lt;", ">": "&gt;", "&": "&amp;"}.get(m[0], "\\" + m[0]), flat)


def tex(text: object) -> str:
    """Text as LaTeX prints it: one line."""
    return "".join(LATEX.get(c, c) for c in " ".join(str(text).split()))


def number(value: float | None) -> str:
    """Four digits, or a dash."""
    return "–" if value is None else f"{value:.4g}"


def markdown(data: dict[str, Any]) -> str:
    """``report.md``: the headline, a table of verdicts for each guidance, the round trips and what is open."""
    s, process = data["settings"], data["process"]
    lines = [
        f"# Audit of {md(data['model'])}",
        "",
        f"**{md(words.headline(data))}**",
        "",
        md(f"{process['kind']}, {process['steps']} steps; {s['images']} images, {s['points']} points a step; ")
        + md(f"{s['precision']}; solver {s['solver']}, tolerance {s['tol']}; seed {s['seed']}."),
    ]
    for w in data["guidance"]:
        lines += ["", f"## Guidance {w:g}", "", "| question | verdicts |", "|---|---|"]
        lines += [f"| {md(q)} | {md(line)} |" for q, line in words.summary(data, w).items()]
        for trip in data["round_trip"]:
            if trip["guidance"] == w:
                told = f"{trip['solved']} of {trip['images']} images solved, largest error of those "
                lines.append(f"| round trip | {md(told + number(trip['max_error_solved']))} |")
    lines += ["", "## What the verdicts mean", ""]
    lines += [f"- {v}: {md(meaning)}." for v, meaning in words.VERDICTS.items()]
    lines += ["", "## Theorems", ""]
    used = sorted({r["theorem"] for r in data["rows"]}, key=lambda t: (t[0], int(t[1:])))
    lines += [f"- **{t}**: {md(words.THEOREMS[t])}" for t in used if t in words.THEOREMS]
    if data.get("command"):
        lines += ["", "Made by:", "", _fenced(data["command"])]
    return "\n".join(lines) + "\n"


def _fenced(code: str) -> str:
    """A code block that its content cannot end."""
    code = " ".join(code.split())
    ticks = "`" * max(3, 1 + max((len(m) for m in re.findall("`+", code)), default=0))
    return f"{ticks}sh\n{code}\n{ticks}"


def latex(data: dict[str, Any]) -> str:
    """``table.tex``: one table, the questions by guidance; needs the package booktabs."""
    s, process = data["settings"], data["process"]
    body = []
    for w in data["guidance"]:
        found = words.summary(data, w)
        for k, (question, line) in enumerate(found.items()):
            shown = "; ".join(_small_caps(part) for part in line.split("; "))
            body.append(f"{f'{w:g}' if k == 0 else ''} & {tex(question)} & {shown} \\\\")
        body.append(r"\addlinespace")
    caption = (
        f"Inverting {tex(data['model'])}: {tex(process['kind'])}, {process['steps']} steps, {s['images']} images, "
    )
    caption += f"{s['points']} points a step, {tex(s['precision'])}. {tex(words.headline(data))}"
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            r"\begin{tabular}{rlp{0.6\linewidth}}",
            r"\toprule",
            r"$w$ & question & verdicts \\",
            r"\midrule",
            *body[:-1],
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{caption}}}",
            r"\label{tab:fpjax}",
            r"\end{table}",
            "",
        ]
    )


def _small_caps(part: str) -> str:
    verdict, _, steps = part.partition(" ")
    return rf"\textsc{{{verdict.lower()}}} {tex(steps)}"
