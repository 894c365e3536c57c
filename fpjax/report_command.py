"""``fpjax compare`` and ``fpjax export``: what is made from audits that are already there."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fpjax.command import guarded

Audit = Annotated[Path, typer.Argument(help="an audit.json, or the folder that holds it")]


def register(app: typer.Typer) -> None:
    """Adds the two commands."""
    app.command()(compare)
    app.command()(export)


@guarded
def compare(
    a: Audit,
    b: Audit,
    out: Annotated[Path, typer.Option(help="the page of both, side by side")] = Path("fpjax-compare.html"),
) -> None:
    """Put two audits side by side: where their verdicts differ, in the terminal and as a page."""
    from fpjax.models.store import write_atomic
    from fpjax.report import comparing, read
    from fpjax.report.page import render_pair

    first, second = read(a), read(b)
    names = comparing.names(first, second, (str(a), str(b)))
    write_atomic(out, render_pair(first, second, names).encode())
    for w, lines in comparing.differences(first, second).items():
        table = Table(title=f"guidance {w:g}", title_justify="left")
        for name in (
            "question",
            *(escape(f"{side}: {n}") for side, n in zip("AB", names, strict=True)),
            "A and B differ",
        ):
            table.add_column(name)
        for line in lines:
            table.add_row(line.question, line.a, line.b, line.changed)
        Console().print(table)
    for w in comparing.alone(first, second):
        print(w)
    print(f"page: {out.resolve()}")


@guarded
def export(
    audit: Audit,
    out: Annotated[Path, typer.Option(help="folder for the figures, table.tex and report.md")] = Path("fpjax-figures"),
) -> None:
    """Write an audit for a paper: figures as SVG and PNG, a LaTeX table, Markdown."""
    from fpjax.models.store import write_atomic
    from fpjax.report import check_writable, read, text
    from fpjax.report.figures import figures

    data = read(audit)
    check_writable(out)
    parts = figures(data) | {"table.tex": text.latex(data).encode(), "report.md": text.markdown(data).encode()}
    for name, part in parts.items():
        write_atomic(out / name, part)
    print(f"{', '.join(parts)}: {out.resolve()}")
