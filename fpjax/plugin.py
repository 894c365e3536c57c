"""The pytest plugin: ``--fpjax-samples`` and a table of what the assertions of :mod:`fpjax.testing` found.

In this room: the option, the record of outcomes, the table. pytest loads this file in every project where fpjax is
installed, so it imports neither JAX nor pytest. Not in this room: what is asserted (testing).
"""

import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

SAMPLES = 64  # points of an assertion unless the option, or the call, says otherwise
LINES = 5  # of one assertion and verdict; a property-based test may draw a new model for every example


class Row(NamedTuple):
    """One line of the table.

    Attributes:
      assertion: name of the function. model: name of the denoiser. theorem: the theorem behind it.
      verdict: word of :class:`fpjax.evidence.Verdict`. points: how many were looked at. seconds: time taken.
      calls: how often it was called, as a property-based test does.
    """

    assertion: str
    model: str
    theorem: str
    verdict: str
    points: int
    seconds: float
    calls: int = 1


def together(one: Row, other: Row) -> Row:
    """Both in one line, with the name of the first."""
    points, calls = one.points + other.points, one.calls + other.calls
    return one._replace(points=points, seconds=one.seconds + other.seconds, calls=calls)


def lines(rows: Iterable[Row], most: int = LINES) -> list[Row]:
    """The rows to print: where more than ``most`` models have the same assertion, theorem and verdict, one for them all."""
    kinds: dict[tuple, list[Row]] = {}
    for row in rows:
        kinds.setdefault((row.assertion, row.theorem, row.verdict), []).append(row)
    out = []
    for group in kinds.values():
        if len(group) > most:
            whole = functools.reduce(together, group)
            group = [whole._replace(model=f"{whole.model} and {len(group) - 1} more")]
        out += group
    return out


class State:
    """What a pytest run and the assertions share: the number of samples asked for, and the rows so far."""

    def __init__(self):
        self.samples: int | None = None
        self.active = False
        self.rows: dict[tuple, Row] = {}

    def add(self, row: Row) -> None:
        """Counts a row in; calls with the same assertion, model and verdict share a line."""
        if not self.active:
            return  # outside pytest nobody reads them, so nothing is kept
        key = (row.assertion, row.model, row.theorem, row.verdict)
        self.rows[key] = together(self.rows[key], row) if key in self.rows else row


STATE = State()


def default_samples() -> int:
    """The number of points of an assertion that does not name one."""
    return SAMPLES if STATE.samples is None else STATE.samples


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError("at least 1")
    return value


def pytest_addoption(parser) -> None:
    """Adds ``--fpjax-samples``."""
    group = parser.getgroup("fpjax", "properties of denoisers")
    group.addoption(
        "--fpjax-samples",
        type=_count,
        default=None,
        metavar="N",
        help=f"points that each fpjax assertion looks at unless it says how many itself (default {SAMPLES})",
    )


def pytest_configure(config) -> None:
    """A run starts with an empty table."""
    STATE.samples = config.getoption("fpjax_samples")
    STATE.active = True
    STATE.rows.clear()


def pytest_sessionfinish(session) -> None:
    """In a worker of pytest-xdist: the rows travel to the process that prints."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["fpjax"] = [tuple(row) for row in STATE.rows.values()]


class _Collector:
    """Hooks that only exist with pytest-xdist."""

    def pytest_testnodedown(self, node: Any, error: Any) -> None:
        """Takes over the rows of a worker that has ended."""
        for row in (getattr(node, "workeroutput", None) or {}).get("fpjax", ()):
            STATE.add(Row(*row))


def pytest_sessionstart(session) -> None:
    """With pytest-xdist: listens for workers."""
    if session.config.pluginmanager.hasplugin("dsession"):
        session.config.pluginmanager.register(_Collector(), "fpjax-collector")


def pytest_terminal_summary(terminalreporter) -> None:
    """Prints the table if any assertion was called."""
    if not STATE.rows:
        return
    terminalreporter.section("fpjax")
    head = ("assertion", "model", "theorem", "verdict", "points", "calls", "time")
    body = [
        (r.assertion, r.model, r.theorem, r.verdict, str(r.points), str(r.calls), f"{r.seconds:.2f} s")
        for r in lines(STATE.rows.values())
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    for line in [head, *body]:
        cells = [c.rjust(w) if i > 3 else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        terminalreporter.write_line("  ".join(cells).rstrip())
    terminalreporter.write_line("SUPPORTED: no violation at these points; says nothing about others.")
