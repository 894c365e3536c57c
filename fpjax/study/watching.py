"""A study as it runs: how far it is, its verdicts so far and its last failures, in the terminal.

In this room: reading a study's file again and again without getting in its way. Not in this room: notebooks
(:mod:`fpjax.notebook`), what writes the file (engine).
"""

import time
from collections import Counter
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from fpjax.command import guarded, notes
from fpjax.study.store import Store, Tally

SHARE = 0.1  # of the time that may go into reading verdicts
MOST = 12  # models and weights shown
FAILURES = 3
STYLES = {"REFUTED": "red", "CERTIFIED": "blue", "SUPPORTED": "green", "INCONCLUSIVE": "yellow"}


class Seen(NamedTuple):
    """What a study's file says at one time.

    Attributes:
      tally: cells that wait, are done and have failed.
      verdicts: (model, process, guidance) -> question -> verdict -> rows.
      failures: the last cells in the plan that failed, as sentences.
    """

    tally: Tally
    verdicts: dict[tuple[str, str, float], dict[str, Counter]]
    failures: list[str]


class Watcher:
    """Reads a study's file again when asked, verdicts only as often as a tenth of the time allows.

    Args:
      path: STUDY.sqlite.

    Raises:
      FpjaxError: if there is no study.
    """

    def __init__(self, path: str | Path):
        self.path, self.cost, self.last = Path(path), 0.0, 0.0
        self.seen = Seen(Tally(0, 0, 0, 0.0), {}, [])
        self.look()

    def look(self) -> Seen:
        """What the file says now; counting verdicts anew waits until it is worth its time."""
        with Store(self.path) as store:
            tally, before = store.tally(), self.seen.tally
            moved = (tally.done, tally.failed) != (before.done, before.failed)
            due = time.monotonic() - self.last >= self.cost / SHARE or not tally.open
            if moved and due:
                start = time.monotonic()
                self.seen = Seen(tally, _verdicts(store), _failures(store))
                self.last = time.monotonic()
                self.cost = self.last - start
                return self.seen
        return self.seen._replace(tally=tally)


def _verdicts(store: Store) -> dict:
    found: dict = {}
    for cell, rows, _ in store.results("done"):
        at = found.setdefault((cell.model, f"{cell.process} {cell.steps}", cell.guidance), {})
        for row in rows or []:
            if "verdict" in row:
                at.setdefault(row["question"], Counter())[row["verdict"]] += 1
    return found


def _failures(store: Store) -> list[str]:
    last = list(store.results("failed"))[-FAILURES:]
    return [f"{cell.model}, {cell.process} {cell.steps}, guidance {cell.guidance:g}: {why}" for cell, _, why in last]


def table(seen: Seen) -> Table:
    """The verdicts so far: a line for each model, process and guidance, a column for each question."""
    asked = list(dict.fromkeys(q for line in seen.verdicts.values() for q in line))
    out = Table(
        "model", "process", "guidance", *asked, title="verdicts so far: rows of each kind", title_justify="left"
    )
    for (model, process, w), line in list(seen.verdicts.items())[:MOST]:
        out.add_row(Text(model), Text(process), f"{w:g}", *(_counts(line.get(q, Counter())) for q in asked))
    if len(seen.verdicts) > MOST:
        out.caption = f"and {len(seen.verdicts) - MOST} lines more: fpjax study export"
    return out


def _counts(found: Counter) -> Text:
    text = Text()
    for verdict, style in STYLES.items():
        if found[verdict]:
            text.append(f"{found[verdict]} {verdict[0]} ", style=style)
    return text


class Live(Progress):
    """A progress bar with the study's verdicts below it; otherwise used as rich's own.

    Args:
      path: STUDY.sqlite. columns: more columns of the bar.
    """

    def __init__(self, path: str | Path, *columns: ProgressColumn, **options):
        self.watcher = Watcher(path)
        usual = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        super().__init__(*usual, *columns, console=options.pop("console", notes), refresh_per_second=2, **options)

    def get_renderables(self):
        """What rich draws at each refresh."""
        seen = self.watcher.look()
        parts = [self.make_tasks_table(self.tasks)]
        if seen.verdicts:
            parts.append(table(seen))
        parts += [Text(f"failed: {why}", style="red") for why in seen.failures]
        yield Group(*parts)


@guarded
def watch(
    file: Annotated[Path, typer.Argument(help="the study's results, STUDY.sqlite")],
    every: Annotated[float, typer.Option(min=0.05, help="seconds between two looks")] = 1.0,
    once: Annotated[bool, typer.Option(help="look once, and end")] = False,
) -> None:
    """Watch a study that runs, here or elsewhere: progress, verdicts so far, failures. Ends with it, or by Ctrl-C."""
    try:
        with Live(file, TimeRemainingColumn()) as shown:
            task = shown.add_task("cells", total=None)
            while True:
                tally = shown.watcher.look().tally
                ended = tally.done + tally.failed
                shown.update(task, total=tally.cells, completed=ended, description=f"cells ({tally.failed} failed)")
                if once or not tally.open:
                    break
                time.sleep(every)
    except KeyboardInterrupt:
        pass  # the study goes on
