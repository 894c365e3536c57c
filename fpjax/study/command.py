"""``fpjax study``: arguments in, one call, results in one file."""

import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import TextColumn, TimeRemainingColumn
from rich.table import Table

from fpjax.command import bar, guarded
from fpjax.study import watching

app = typer.Typer(
    help="Many audits at once: planned in a TOML file, resumable, kept in one SQLite file.", no_args_is_help=True
)

app.command()(watching.watch)

File = Annotated[Path, typer.Argument(help="the study's results, STUDY.sqlite")]
Scheduler = Annotated[str | None, typer.Option(help="a Dask scheduler, tcp://host:8786, instead of processes here")]
Workers = Annotated[int | None, typer.Option(min=1, help="processes; one for each core if left out")]
Watch = Annotated[bool, typer.Option("--watch", help="show the verdicts so far and the failures, too")]


@app.command()
@guarded
def plan(
    study_file: Annotated[Path, typer.Argument(help="the study, a TOML file", metavar="PLAN")],
    out: Annotated[Path | None, typer.Option(help="results; beside the TOML file if left out")] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    measure: Annotated[bool, typer.Option(help="do one or two cells of each kind first; they are kept")] = True,
) -> None:
    """Predict what a study will take, in time and memory, from cells that were measured."""
    from fpjax import study
    from fpjax.study.cost import samples

    asked = study.read(study_file)
    with study.Store(out or study_file.with_suffix(".sqlite"), create=True) as store:
        store.plan(asked.text, asked.cells())
        waiting = [cell for _, cell in store.open_cells(asked.size)]
        wanted = samples(waiting, store.costs()) if measure else []
        if wanted:
            _work(store, asked, workers, scheduler, wanted)
        print(_forecast(store, workers or study.cores()))


@app.command()
@guarded
def run(
    plan: Annotated[Path, typer.Argument(help="the study, a TOML file")],
    out: Annotated[Path | None, typer.Option(help="results; beside the TOML file if left out")] = None,
    workers: Workers = None,
    scheduler: Scheduler = None,
    watch: Watch = False,
) -> None:
    """Do what a study asks for. What a former run has done is kept."""
    from fpjax import study

    asked = study.read(plan)
    path = out or plan.with_suffix(".sqlite")
    with study.Store(path, create=True) as store:
        store.plan(asked.text, asked.cells())
        if store.costs():
            print(_forecast(store, workers or study.cores()), file=sys.stderr)
        _work(store, asked, workers, scheduler, watch=watch)
        _ended(store)


@app.command()
@guarded
def resume(
    file: File,
    workers: Workers = None,
    scheduler: Scheduler = None,
    failed: Annotated[bool, typer.Option(help="try the failed cells again")] = False,
) -> None:
    """Go on with a study that was interrupted."""
    from fpjax import study

    with study.Store(file) as store:
        asked = _planned(store)
        if failed:
            store.reopen_failed()
        _work(store, asked, workers, scheduler)
        _ended(store)


@app.command()
@guarded
def status(file: File, errors: Annotated[bool, typer.Option(help="show why cells failed")] = False) -> None:
    """How far a study is; also while it runs."""
    from fpjax import study
    from fpjax.study.cost import clock

    with study.Store(file) as store:
        tally, pace = store.tally(), store.pace()
        print(f"{tally.done} of {tally.cells} cells done, {tally.failed} failed, {tally.open} waiting")
        print(f"{tally.seconds:.1f} s of work, {tally.seconds / max(tally.done + tally.failed, 1):.3g} s a cell")
        if pace is not None and tally.open and (left := pace.left_s(tally)) is not None:
            ago = clock(max(time.time() - pace.seen, 0.0))
            print(
                f"the last run did {pace.cells_per_s:.3g} cells a second with {pace.workers} workers, last heard of {ago} "
                f"ago; at that pace the rest takes {clock(left)}"
            )
        if errors and tally.failed:
            table = Table("model", "process", "guidance", "seed", "images", "why")
            for cell, _, why in store.results("failed"):
                images = f"{cell.first}–{cell.first + cell.count - 1}"
                name = f"{cell.process} {cell.steps}"
                table.add_row(*map(_plain, (cell.model, name, f"{cell.guidance:g}", str(cell.seed), images, why or "")))
            Console().print(table)


@app.command()
@guarded
def export(file: File, to: Annotated[Path, typer.Argument(help="a .csv or .parquet file")]) -> None:
    """Write the results of the finished cells as one table."""
    from fpjax import study
    from fpjax.study.export import export as write

    with study.Store(file) as store:
        print(f"{write(store, to)} lines: {to.resolve()}")


@app.command()
@guarded
def gc(file: File) -> None:
    """Delete results that the study no longer asks for (another version of fpjax, or a changed plan)."""
    from fpjax import study

    with study.Store(file) as store:
        _planned(store)
        print(f"{store.collect()} cells deleted")


def _planned(store):
    """The study's own plan, with the cells that it means to this version of fpjax and to the models as they are now."""
    from fpjax import study

    asked = study.parse(store.text(), str(store.path))
    store.plan(asked.text, asked.cells())
    return asked


def _forecast(store, workers: int) -> str:
    """What the cells that wait will cost, in a sentence."""
    from fpjax.study.cost import Costs

    waiting = (cell for _, cell in store.open_cells(store.tally().open))
    return f"predicted for {Costs(store.costs()).predict(waiting, workers)}"


def _work(
    store, asked, workers: int | None, scheduler: str | None, only: list | None = None, *, watch: bool = False
) -> None:
    """The study's cells with a progress bar; SIGTERM ends it like Ctrl-C does, with everything finished on disk."""
    from fpjax import study

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    engine = study.Dask(scheduler) if scheduler else study.Local(workers)
    try:
        columns = (TimeRemainingColumn(), TextColumn("{task.fields[pace]}"))
        with watching.Live(store.path, *columns) if watch else bar(*columns) as shown:
            start = store.tally()
            ended = start.done + start.failed
            total = start.cells if only is None else ended + len(only)
            task = shown.add_task("cells", total=total, completed=ended, pace="")

            def tick(p) -> None:
                now = p.tally.done + p.tally.failed
                pace = f"{(now - ended) / max(p.elapsed, 1e-9):.3g} cells/s"
                shown.update(task, completed=now, description=f"cells ({p.tally.failed} failed)", pace=pace)

            limits = {"cell_s": asked.cell_s, "tries": asked.tries}
            study.run(store, engine, study.audit_cell, **limits, progress=tick, only=only)
        engine.close()
    except KeyboardInterrupt:
        engine.close(kill=True)
        sentence = f"fpjax: interrupted; what was done is kept: go on by fpjax study resume {store.path}"
        print(sentence, file=sys.stderr)
        raise typer.Exit(130) from None
    except BaseException:
        engine.close(kill=True)
        raise


def _ended(store) -> None:
    """The last words of a run."""
    tally = store.tally()
    print(f"{tally.done} of {tally.cells} cells done, {tally.failed} failed: {store.path.resolve()}")
    if tally.failed:
        print(f"some cells failed; see why by: fpjax study status --errors {store.path}", file=sys.stderr)
        raise typer.Exit(1)


def _plain(text: str) -> str:
    """Text without rich's markup."""
    return text.replace("[", r"\[")
