"""Studies: a plan says exactly what is done, results outlive anything, a bad study is one sentence before any work."""

import csv
import functools
import os
import random
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import study_work
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import fpjax
from fpjax import study
from fpjax.cli import app
from fpjax.evidence import FpjaxError
from fpjax.models import store as models
from fpjax.study.export import ROW, export, lines

SMALL = """
models = ["digits-monotone", "digits-plain"]
guidance = [1, 3.0]
seeds = [0, 1]
[[process]]
kind = "ddim"
steps = [2, 5]
[[process]]
kind = "edm"
steps = [4]
[images]
count = 10
batch = 4
"""


def made(path: Path, n: int, work=study_work.square, **options) -> study.Tally:
    with study.Store(path, create=True) as store:
        store.plan("", study_work.cells(n))
        engine = study.Local(2)
        try:
            return study.run(store, engine, work, **options)
        finally:
            engine.close()


def table(path: Path) -> list[tuple]:
    with study.Store(path) as store:
        found = [(c.key, rows, None) for c, rows, _ in store.results()]
        return found + [(c.key, None, why) for c, _, why in store.results("failed")]


# --- plans -----------------------------------------------------------------------------------------------------------


def test_a_plan_is_every_combination_once():
    plan = study.parse(SMALL)
    cells = list(plan.cells())
    assert len(cells) == plan.size == 2 * 2 * 2 * 3 * 3
    assert len({c.key for c in cells}) == len(cells)
    assert {(c.first, c.count) for c in cells} == {(0, 4), (4, 4), (8, 2)}
    assert [c.key for c in study.parse(SMALL).cells()] == [c.key for c in cells]


def test_a_cell_is_named_by_what_it_is_made_of(tmp_path, monkeypatch):
    """The same model elsewhere is the same cell; other weights, another number or another version is not."""
    text = 'models = ["{}"]\n[[process]]\nkind = "ddim"\nsteps = [2]\n'
    here = next(study.parse(text.format("digits-plain")).cells())
    card = models.card_path("digits-plain")
    for file in (card, card.with_suffix(".safetensors")):
        shutil.copy(file, tmp_path)
    there = next(study.parse(text.format(tmp_path.as_posix())).cells())
    assert there.model != here.model
    assert there.key == here.key
    assert next(study.parse(text.format("digits-monotone")).cells()).key != here.key
    assert next(study.parse(text.format("digits-plain") + "[images]\ncount = 7\n").cells()).key != here.key
    key = here.key
    monkeypatch.setattr(fpjax, "__version__", "9.9")
    assert here.key != key


GOOD = 'models = ["digits-plain"]\n[[process]]\nkind = "ddim"\nsteps = [2]\n'
BAD = {
    "unknown key": ("wonders = 1\n" + GOOD, "wonders"),
    "unknown key in a table": (GOOD + "[images]\nsize = 3\n", "size"),
    "wrong type": ("guidance = 3\n" + GOOD, "guidance"),
    "a number as text": (GOOD.replace("[2]", '["2"]'), "steps"),
    "a count with a point": (GOOD.replace("[2]", "[2.0]"), "steps"),
    "empty axis": ("guidance = []\n" + GOOD, "guidance"),
    "empty grid": ("models = []\n[[process]]\nkind = 'ddim'\nsteps = [2]\n", "models"),
    "no process": ('models = ["digits-plain"]\n', "process"),
    "unknown process": (GOOD.replace("ddim", "magic"), "magic"),
    "a trillion cells": (f"seeds = {list(range(100_000))}\nguidance = {list(range(100_000))}\n" + GOOD, "1e+10 cells"),
    "no such model": (GOOD.replace("digits-plain", "vanished"), "vanished"),
    "a name longer than any": (GOOD.replace("digits-plain", "[" * 3000), "unknown model"),
    "a name with a zero": (GOOD.replace("digits-plain", "a\\u0000b"), "unknown model"),
    "no such data": (GOOD + '[images]\ndata = "faces"\n', "faces"),
    "too many images": (GOOD + "[images]\ncount = 5000\n", "297"),
    "unknown solver": ('solver = "hope"\n' + GOOD, "hope"),
    "no number": ("guidance = [nan]\n" + GOOD, "guidance"),
    "not TOML": ("models = [", "TOML"),
    "too deep": ("a = " + "[" * 5000 + "]" * 5000, "TOML"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_study_is_one_sentence_before_any_work(name, tmp_path):
    text, word = BAD[name]
    file = tmp_path / "s.toml"
    file.write_text(text)
    run = CliRunner().invoke(app, ["study", "run", str(file)])
    assert run.exit_code == 2, run.output
    assert word in run.stderr.replace("\n", " ")
    assert "Traceback" not in run.output
    assert len(run.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "s.sqlite").exists()


@given(st.binary(max_size=200), st.integers(0, len(SMALL)), st.integers(0, 40))
def test_whatever_a_file_says_it_is_a_plan_or_one_sentence(tmp_path_factory, noise, at, cut):
    """Random bytes, alone and in the middle of a good study."""
    for text in (noise, SMALL[:at].encode() + noise + SMALL[at + cut :].encode()):
        file = tmp_path_factory.getbasetemp() / "fuzzed.toml"
        file.write_bytes(text)
        try:
            plan, told = study.read(file), ""
        except FpjaxError as error:
            plan, told = None, str(error)
        assert "\n" not in told
        assert plan is None or plan.size > 2000 or plan.size == len(list(plan.cells()))


def test_a_model_that_changed_after_planning_fails_its_cells_only(tmp_path):
    card = models.card_path("digits-plain")
    for file in (card, card.with_suffix(".safetensors")):
        shutil.copy(file, tmp_path)
    cell = next(study.parse(GOOD.replace("digits-plain", tmp_path.as_posix())).cells())
    (tmp_path / card.name).write_text(card.read_text() + " ")
    with pytest.raises(FpjaxError, match="changed after the study was planned"):
        study.audit_cell(cell)


# --- the store -------------------------------------------------------------------------------------------------------


def test_results_are_kept_once(tmp_path):
    cells = study_work.cells(5)
    with study.Store(tmp_path / "s.sqlite", create=True) as store:
        store.plan("text", cells)
        store.finish([study.Result(cells[1].key, [{"value": 1}], None, 2.0)])
        store.finish([study.Result(cells[1].key, [{"value": 2}], None, 9.0)])  # too late
        store.finish([study.Result(cells[2].key, None, "no", 1.0)])
        assert store.tally() == (3, 1, 1, 3.0)
        assert [c.first for _, c in store.open_cells(9)] == [0, 3, 4]
        assert [rows for _, rows, _ in store.results()] == [[{"value": 1}]]
        store.plan("text", cells[1:3])  # a smaller plan keeps what was done, and shows only what it asks for
        assert store.collect() == 3
        assert store.tally() == (0, 1, 1, 3.0)
        assert store.reopen_failed() == 1
        assert store.tally() == (1, 1, 0, 2.0)


def test_files_that_are_no_studies(tmp_path):
    with pytest.raises(FpjaxError, match="there is no study"):
        study.Store(tmp_path / "none.sqlite")
    (tmp_path / "text").write_text("not a database, just a long enough text " * 100)
    with pytest.raises(FpjaxError, match="not a study"):
        study.Store(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as db:
        db.execute("CREATE TABLE mine (x)")
    with pytest.raises(FpjaxError, match="not a study"):
        study.Store(tmp_path / "other", create=True)
    study.Store(tmp_path / "new", create=True).close()
    with sqlite3.connect(tmp_path / "new") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(FpjaxError, match="newer fpjax"):
        study.Store(tmp_path / "new")
    with pytest.raises(FpjaxError, match="folder that can be written"):
        study.Store(tmp_path / "no" / "folder", create=True)


@pytest.mark.parametrize("verb", ["status", "resume", "gc", "export", "errors"])
def test_a_damaged_file_is_one_sentence(verb, tmp_path):
    """Its first page is whole, so that it opens; what follows is noise."""
    path = tmp_path / "s.sqlite"
    with study.Store(path, create=True) as store:
        store.plan(GOOD, study_work.cells(300))
        store.finish([study.Result(c.key, None, "no", 0.1) for c in study_work.cells(300)])
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + random.Random(0).randbytes(len(whole) - 4096))
    words = {"export": ["export", str(path), str(tmp_path / "t.csv")], "errors": ["status", str(path), "--errors"]}
    run = CliRunner().invoke(app, ["study", *words.get(verb, [verb, str(path)])])
    assert run.exit_code == 2, run.output
    assert run.stderr.startswith("fpjax: the study ")
    assert len(run.stderr.strip().splitlines()) == 1


# --- the engine ------------------------------------------------------------------------------------------------------


def test_cells_that_die_hang_or_raise_stop_nobody(tmp_path):
    tally = made(tmp_path / "s.sqlite", 30, study_work.naughty, cell_s=4.0, tries=2)
    assert (tally.open, tally.done, tally.failed) == (0, 25, 5)
    with study.Store(tmp_path / "s.sqlite") as store:
        why = {c.first: text for c, _, text in store.results("failed")}
        good = {c.first: rows for c, rows, _ in store.results()}
    assert why[3].startswith("its worker died 2 times")
    assert why[5] == "it took more than 4 s, the budget of a cell"
    assert why[7] == "ZeroDivisionError: seven"
    assert why[8] == "eight is not for us"
    assert "not enough memory" in why[9]
    assert all(rows == study_work.square(study_work.cells(30)[i]) for i, rows in good.items())


def test_progress_hears_of_what_is_on_disk(tmp_path):
    heard, path = [], tmp_path / "s.sqlite"

    def tick(p):
        with sqlite3.connect(path) as other:
            keys = {k for (k,) in other.execute("SELECT key FROM cell WHERE state = 'done'")}
        heard.extend(r.key in keys for r in p.ended)

    made(path, 50, progress=tick)
    assert len(heard) == 50
    assert all(heard)


# --- a cluster -------------------------------------------------------------------------------------------------------


class Cluster:
    """Dask's own scheduler and workers, as processes that can be killed."""

    def __init__(self, scheme: str = "tcp", *options: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"{scheme}://127.0.0.1:{free.getsockname()[1]}"
        self.options, self.running = options, dict[str, subprocess.Popen]()

    def start(self, name: str, *words: str) -> None:
        here = Path(study_work.__file__).parent
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), str(here)])}
        command = [sys.executable, "-m", "distributed.cli." + words[0], *words[1:], *self.options, "--no-dashboard"]
        self.running[name] = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def scheduler(self) -> None:
        scheme, port = self.address.partition(":")[0], self.address.rpartition(":")[2]
        self.start("scheduler", "dask_scheduler", "--port", port, "--protocol", scheme)

    def worker(self, name: str) -> None:
        self.start(name, "dask_worker", self.address, "--nthreads", "1", "--death-timeout", "60")

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running[name].wait()


@pytest.fixture
def cluster():
    made = Cluster()
    made.scheduler()
    for name in ("a", "b"):
        made.worker(name)
    yield made
    for name in made.running:
        made.kill(name)


@pytest.mark.long
def test_a_cluster_that_loses_a_worker_and_its_scheduler_ends_the_study(cluster, tmp_path):
    """Deadly and hanging cells end like on one machine; a dead worker and a new scheduler cost nothing that was done."""
    engine = study.Dask(cluster.address)
    with study.Store(tmp_path / "bad.sqlite", create=True) as store:
        store.plan("", study_work.cells(12))
        assert study.run(store, engine, study_work.naughty, cell_s=4.0, tries=2)[:3] == (0, 7, 5)
        why = {c.first: text for c, _, text in store.results("failed")}
        assert why[3].startswith("its worker died 2 times")
        assert why[5] == "it took more than 4 s, the budget of a cell"
    happened = []

    def chaos(p: study.Progress) -> None:
        if p.tally.done >= 10 and not happened:
            happened.append("worker")
            cluster.kill("a")
            cluster.worker("c")
        elif p.tally.done >= 30 and len(happened) == 1:
            happened.append("scheduler")
            for name in ("scheduler", "b", "c"):
                cluster.kill(name)
            cluster.scheduler()
            for name in ("d", "e"):
                cluster.worker(name)

    with study.Store(tmp_path / "s.sqlite", create=True) as store:
        store.plan("", study_work.cells(60))
        assert study.run(store, engine, study_work.slow, progress=chaos, tries=1) == store.tally()
        assert store.tally()[:3] == (0, 60, 0)
    engine.close()
    assert happened == ["worker", "scheduler"]
    made(tmp_path / "whole.sqlite", 60)
    assert table(tmp_path / "s.sqlite") == table(tmp_path / "whole.sqlite")


def own_lines(text: str) -> list[str]:
    """What a command said on its error output, without the forecast with which a study begins."""
    return [line for line in text.splitlines() if not line.startswith("predicted for")]


@pytest.mark.long
def test_a_closed_cluster_does_a_study_for_those_who_have_its_certificate(tmp_path):
    """The command of the page, with TLS; without the certificate it is one sentence."""
    key, cert = str(tmp_path / "key.pem"), str(tmp_path / "cert.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=fpjax"]
    subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
    closed = Cluster("tls", "--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key)
    closed.scheduler()
    closed.worker("a")
    file = tmp_path / "s.toml"
    file.write_text(GOOD.replace("[2]", "[1]") + "[images]\ncount = 1\n")
    names = {"CA_FILE": cert, "CLIENT__CERT": cert, "CLIENT__KEY": key}
    env = {**os.environ, **{f"DASK_DISTRIBUTED__COMM__TLS__{name}": value for name, value in names.items()}}
    command = [sys.executable, "-m", "fpjax.cli", "study", "run", str(file), "--scheduler", closed.address]
    try:
        run = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-2000:]
        assert run.stdout.startswith("1 of 1 cells done, 0 failed")
        refused = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (refused.returncode, len(own_lines(refused.stderr))) == (2, 1), refused.stderr
        assert "asks for a certificate; name its files in DASK_DISTRIBUTED__COMM__TLS__CA_FILE" in refused.stderr
        env["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"] = str(tmp_path / "nothing.pem")
        refused = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (refused.returncode, len(own_lines(refused.stderr))) == (2, 1), refused.stderr
        assert "cannot read the certificate" in refused.stderr
    finally:
        for name in closed.running:
            closed.kill(name)


def test_a_cluster_that_is_not_there(monkeypatch):
    monkeypatch.setattr(study.cluster, "PATIENCE_S", 1)
    with pytest.raises(FpjaxError, match="no Dask scheduler with workers answers"):
        study.Dask("tcp://127.0.0.1:9")


# --- the command -----------------------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    page = (Path(fpjax.__file__).parent.parent / "docs" / "studies.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def test_the_page_shows_a_study():
    assert study.parse(blocks("toml")[0]).size == 2 * 3 * 2 * 2 * 8


@pytest.mark.long
def test_a_study_from_python_and_the_command_line(tmp_path):
    """A real audit by the page's lines; the command finds it done. Its rows are those of fpjax.audit in another process,
    bit for bit; its exports agree."""
    file, path = tmp_path / "study.toml", tmp_path / "study.sqlite"
    file.write_text(GOOD + "[images]\ncount = 2\nbatch = 2\n")
    (tmp_path / "page.py").write_text(
        textwrap.indent(blocks("python")[0], "    ").join(["if __name__ == '__main__':\n", ""])
    )

    def ask(*command: str) -> str:
        run = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, cwd=tmp_path)
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout

    assert "digits-plain 2 ['" in ask("page.py")
    ask = functools.partial(ask, "-m", "fpjax.cli", "study")
    for verb, which in (("run", file), ("resume", path)):
        assert ask(verb, str(which), "--workers", "1").startswith("1 of 1 cells done, 0 failed")
    assert ask("status", str(path)).startswith("1 of 1 cells done, 0 failed, 0 waiting")
    ask("export", str(path), str(tmp_path / "t.csv"))
    ask("export", str(path), str(tmp_path / "t.parquet"))
    x, labels = fpjax.samples("digits", 2)
    report = fpjax.audit(
        fpjax.load("digits-plain"),
        fpjax.process.ddim(2),
        images=x.astype(np.float64),
        condition=labels,
        histories=(),
    )
    with study.Store(path) as store:
        found = list(lines(store))
    assert [{k: line[k] for k in ROW} for line in found[:-1]] == [{k: r.get(k) for k in ROW} for r in report.table]
    assert found[-1]["question"] == "round-trip"
    with open(tmp_path / "t.csv", newline="") as text:
        assert [row["detail"] for row in csv.DictReader(text)] == [r["detail"] for r in found]
    from pyarrow import parquet

    assert parquet.read_table(tmp_path / "t.parquet").to_pylist() == found


def test_exports_refuse_what_they_cannot_write(tmp_path):
    made(tmp_path / "s.sqlite", 2)
    with study.Store(tmp_path / "s.sqlite") as store, pytest.raises(FpjaxError, match=r"ends in \.csv or \.parquet"):
        export(store, tmp_path / "t.xls")
    with study.Store(tmp_path / "s.sqlite") as store:
        assert export(store, tmp_path / "t.csv") == 2
