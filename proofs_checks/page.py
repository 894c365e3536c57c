"""Rows of theorems and claims as lines, as Markdown pages and as one self-contained HTML page. Computes nothing."""

import html as escaping
import re
from types import ModuleType

THEOREMS = """# The theorems

Written by `python -m proofs_checks --docs docs`; `python -m proofs_checks` runs the checks again.

Every theorem is one short module of `proofs_checks`: what it says, an instance that satisfies its hypotheses, a broken instance
that violates exactly one of them, and a check. A theorem passes when its instance holds, every hypothesis is seen to hold on it,
and the broken instance fails in the hypothesis it names and in no other. How it was checked:

* *symbolic*: an identity was proved by computer algebra (sympy);
* *ball arithmetic*: the certificate kernel proved it, and refused the broken instance;
* *formal (Coq)*: there is a machine-checked proof; see `formal.md`;
* *sampled*: seen at that many random points, which proves nothing by itself.
"""

CLAIMS = """# What becomes of the claims

Written by `python -m proofs_checks --docs docs`; `python -m proofs_checks --claims` measures them again.

Statements of the paper (*Exploring Fixed Point in Image Editing*, NeurIPS 2024) and of others, put in the terms of the theorems
and measured on two trained networks and on three exact denoisers of the same images (a Gaussian, a mixture with one component
a class, and 300 of the images themselves). Held-out 8×8 digits; DDIM on DDPM's linear schedule in 50 steps, as in the paper's
experiments, and in 10 where that matters; y_t = x + sigma_t·n and y_s = F(y_t), so that a solution is known.

A verdict is about *these models*. Where a claim says that something always holds, "holds" means that no exception was seen,
unless the reason names a theorem that proves it. The smallest counterexamples were found and minimised by hypothesis among
problems with two or three points; a test searches for smaller ones. The equations' numbers are those of the paper.
"Converges" means that the residual fell to a millionth of the first, or fell at each of the last 20 iterations.
"""


def theorem_lines(row: dict) -> list[str]:
    """A row for the terminal."""
    return [
        f"{row['name']:<4} {row['verdict']:<6} {row['seconds']:>6.1f} s  {row['title']}",
        f"     if {'; '.join(row['hypotheses'].values())}",
        f"     then {row['claim']}",
        f"     {row['how']}: {row['detail']}",
    ]


def claim_lines(row: dict) -> list[str]:
    """A claim for the terminal."""
    lines = [f"{row['name']} ({row['who']}), {row['seconds']:.1f} s", f"     {row['text']}", f"     {row['reason']}"]
    lines += [f"     {r['verdict']:<9} {r['model']}: {r['detail']}" for r in row["rows"]]
    return [*lines, *([f"     {small(row)}"] if row["small"] else [])]


def small(row: dict) -> str:
    """The smallest problem of a claim, in words."""
    kind = "smallest example" if row["exists"] else "smallest counterexample"
    return f"{kind}: {problem(row['small']['problem'])}: {row['small']['detail']}"


def problem(data: dict) -> str:
    """A small problem in words; its levels and states are in tenths."""
    names = {
        "at": "y_s or first state",
        "other": "second state or shift",
        "a": "first state",
        "b": "second state",
        "w": "w",
    }
    parts = ["data " + ", ".join(str(p) for p in data["points"])]
    if "levels" in data:
        parts.append("levels " + ", ".join(f"{v / 10:g}" for v in data["levels"]))
    else:
        parts.append(f"sigma_t = {data['high'] / 10:g}, sigma_s = {data['low'] / 10:g}")
    for key, name in names.items():
        if key in data:
            parts.append(f"{name} {_tenths(data[key]) if key != 'w' else data[key]}")
    return "; ".join(parts)


def _tenths(value) -> str:
    return f"({', '.join(f'{v / 10:g}' for v in value)})" if isinstance(value, list | tuple) else f"{value / 10:g}"


def theorems(rows: list[dict], modules: list[ModuleType]) -> str:
    """The page of theorems, in Markdown: a table without figures, then each with its proof."""
    lines = [THEOREMS, "| theorem | says | checked | verdict |", "|---|---|---|---|"]
    for row in rows:
        lines.append(
            f"| [{row['name']}](#{row['name'].lower()}) | {_cell(row['title'])} | {row['how']} | {row['verdict']} |"
        )
    for row, module in zip(rows, modules, strict=True):
        lines += ["", f"## {row['name']}", "", "| hypothesis | says |", "|---|---|"]
        lines += [f"| {name} | {_cell(text)} |" for name, text in row["hypotheses"].items()]
        lines += ["", f"Claim: {row['claim']}.", "", f"Source: {row['source']}.", ""]
        lines += [f"Broken instance: violates *{module.broken_instance().violates}*.", ""]
        lines += ["```text", *(module.__doc__ or "").strip().splitlines(), "```"]
    return "\n".join(lines) + "\n"


def claims(rows: list[dict]) -> str:
    """The page of claims, in Markdown."""
    lines = [CLAIMS, "| claim | holds | fails | undecided |", "|---|---|---|---|"]
    for row in rows:
        cells = [
            "; ".join(r["model"] for r in row["rows"] if r["verdict"] == verdict) or "–"
            for verdict in ("holds", "fails", "undecided")
        ]
        lines.append(f"| {_cell(row['name'])} | {' | '.join(cells)} |")
    for row in rows:
        lines += [
            "",
            f"## {row['name']}",
            "",
            f"{row['who']}: {row['text']}.",
            "",
            f"In our terms: {row['terms']}.",
            "",
        ]
        lines += [f"Why: {row['reason']}.", "", "| model | verdict | seen |", "|---|---|---|"]
        lines += [f"| {r['model']} | {r['verdict']} | {_cell(r['detail'])} |" for r in row["rows"]]
        if row["small"]:
            sentence = small(row)
            lines += ["", sentence[0].upper() + sentence[1:] + "."]
        lines += _figures(row)
    return "\n".join(lines) + "\n"


def _figures(row: dict) -> list[str]:
    """A table of quantiles, for the claims that have them."""
    names = [name for name in row["rows"][0]["figures"] if name.startswith(("ratio ", "largest k "))]
    if not names:
        return []
    caption = "The ratio at the solution, and the largest k with which the factor bounds it; above 0 some k in (0, 1) will do."
    lines = ["", caption, "", "| model | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for r in row["rows"]:
        lines.append(f"| {r['model']} | " + " | ".join(f"{r['figures'][name]:.3g}" for name in names) + " |")
    return lines


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;display:block;overflow-x:auto}td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left;
vertical-align:top}pre{background:#f6f6f6;padding:1rem;overflow-x:auto}h2{margin-top:2.5rem}"""


def html(markdown: str) -> str:
    """One of the pages above as a self-contained HTML page: headings, tables, lists, preformatted text, paragraphs."""
    title = escaping.escape(markdown.splitlines()[0].lstrip("# "))
    blocks = re.findall(r"^```text\n(?:.*\n)*?```$|(?:^.+\n)+", markdown, re.MULTILINE)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    head += f"<title>{title}</title><style>{STYLE}</style>"
    body = "\n".join(_block(block.strip().splitlines()) for block in blocks)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>'


def _block(lines: list[str]) -> str:
    """A paragraph, heading, list, table or preformatted text."""
    if lines[0].startswith("```"):
        return "<pre>" + escaping.escape("\n".join(lines[1:-1])) + "</pre>"
    if heading := re.match(r"(#+) (.*)", lines[0]):
        level, text = len(heading[1]), heading[2]
        anchor = re.sub(r"\W+", "-", text.lower()).strip("-")
        return f'<h{level} id="{anchor}">{_inline(text)}</h{level}>'
    if lines[0].startswith("|"):
        cells = [[c.replace("\\|", "|").strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
        body = cells[2:]
        top = "".join(f"<th>{_inline(c)}</th>" for c in cells[0])
        rest = "\n".join("<tr>" + "".join(f"<td>{_inline(c)}</td>" for c in row) + "</tr>" for row in body)
        return f"<table><thead><tr>{top}</tr></thead><tbody>\n{rest}\n</tbody></table>"
    if lines[0].startswith("* "):
        items = re.split(r"^\* ", "\n".join(lines), flags=re.MULTILINE)[1:]
        return "<ul>" + "".join(f"<li>{_inline(item)}</li>" for item in items) + "</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _inline(text: str) -> str:
    text = escaping.escape(text)
    text = re.sub(r"\[([^\]]+)\]\((#[^)]+)\)", r'<a href="\2">\1</a>', text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub(r"(?<![\w*])\*([^*\s][^*]*)\*", r"<em>\1</em>", text)
