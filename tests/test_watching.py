"""The live view of a study: it says what the file says, while the study runs and after, and gets in nobody's way."""

import io
import sys
import threading
import time

import pytest
import study_work
from rich.console import Console
from typer.testing import CliRunner

from fpjax import FpjaxError, notebook, study
from fpjax.cli import app
from fpjax.study import watching
from fpjax.study.store import Result

EVIL = "[red]<img src=x onerror=alert(1)>[/]"


def rows(verdict: str) -> list[dict]:
    return [
        {"question": "uniqueness", "verdict": verdict},
        {"question": "error", "verdict": "SUPPORTED"},
        {"question": "round-trip"},
    ]


@pytest.fixture
def path(tmp_path):
    """Six cells: three done, one failed, two waiting."""
    path = tmp_path / "s.sqlite"
    with study.Store(path, create=True) as store:
        cells = study_work.cells(6)
        store.plan("", cells)
        keys = [c.key for c in cells]
        store.finish(
            [Result(k, rows(v), None, 1.0) for k, v in zip(keys, ("SUPPORTED", "SUPPORTED", "REFUTED"), strict=False)]
        )
        store.finish([Result(keys[3], None, f"it broke: {EVIL}", 0.5)])
    return path


def end(path):
    with study.Store(path) as store:
        store.finish([Result(c.key, rows("CERTIFIED"), None, 1.0) for _, c in store.open_cells(9)])


def drawn(live) -> str:
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(next(iter(live.get_renderables())))
    return console.file.getvalue()


def test_it_counts_verdicts_and_shows_failures_as_they_are_written(path):
    seen = watching.Watcher(path).look()
    assert (seen.tally.done, seen.tally.failed, seen.tally.open) == (3, 1, 2)
    total = sum(
        (line["uniqueness"] for line in seen.verdicts.values()),
        start=type(next(iter(seen.verdicts.values()))["error"])(),
    )
    assert total == {"SUPPORTED": 2, "REFUTED": 1}
    assert all("round-trip" not in line for line in seen.verdicts.values())
    text = drawn(watching.Live(path))
    assert EVIL in text
    assert "uniqueness" in text


def test_it_follows(path):
    watcher = watching.Watcher(path)
    end(path)
    assert watcher.look().tally.open == 0
    assert sum(line["uniqueness"]["CERTIFIED"] for line in watcher.look().verdicts.values()) == 2


def test_counting_is_put_off_while_it_costs_too_much(path):
    watcher = watching.Watcher(path)
    watcher.cost = 3600.0
    with study.Store(path) as store:
        (_, cell), *_ = store.open_cells(1)
        store.finish([Result(cell.key, rows("REFUTED"), None, 1.0)])
    seen = watcher.look()
    assert seen.tally.done == 4  # the tally is always of now
    assert sum(line["uniqueness"].total() for line in seen.verdicts.values()) == 3
    end(path)  # and the end is always counted
    assert sum(line["uniqueness"].total() for line in watcher.look().verdicts.values()) == 5


def test_watch_ends_with_the_study(path):
    threading.Timer(1.0, end, [path]).start()
    start = time.monotonic()
    result = CliRunner().invoke(app, ["study", "watch", str(path), "--every", "0.1"])
    assert result.exit_code == 0, result.output
    assert 0.5 < time.monotonic() - start < 30
    assert CliRunner().invoke(app, ["study", "watch", str(path), "--once"]).exit_code == 0


def test_a_missing_study_is_one_sentence(tmp_path):
    result = CliRunner().invoke(app, ["study", "watch", str(tmp_path / "none.sqlite")])
    assert result.exit_code == 2
    assert result.stderr.startswith("fpjax: there is no study at")
    with pytest.raises(FpjaxError):
        notebook.watch(tmp_path / "none.sqlite")


def test_the_widget_follows_a_study_and_an_audit(path):
    live = notebook.watch(path, every=0.05)
    assert live.state["done"] == 4
    assert live.state["failures"][0].endswith(EVIL)
    end(path)
    for _ in range(200):
        if live.state["what"].startswith("finished"):
            break
        time.sleep(0.05)
    assert live.state["done"] == live.state["total"] == 6
    assert sum(line["counts"]["uniqueness"].get("CERTIFIED", 0) for line in live.state["lines"]) == 2
    own = notebook.Live()
    own.progress(3, 10, "guidance 1: step 3 of 9")
    assert (own.state["done"], own.state["total"], own.state["what"]) == (3, 10, "guidance 1: step 3 of 9")


def test_without_anywidget_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "anywidget", None)
    monkeypatch.delitem(sys.modules, "fpjax.notebook")
    with pytest.raises(FpjaxError, match="fpjax\\[notebook\\]"):
        __import__("fpjax.notebook")
