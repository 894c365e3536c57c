"""What a study costs: measured, predicted, shown while it runs; and databases of older versions."""

import re
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import study_work
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fpjax import study
from fpjax.cli import app
from fpjax.evidence import FpjaxError
from fpjax.study import cost, meter
from fpjax.study.store import MIGRATIONS, VERSION

CELL = study_work.cells(1)[0]


def cell(steps: int, count: int, guidance: float = 1.0) -> study.Cell:
    return replace(CELL, steps=steps, count=count, guidance=guidance)


@given(st.floats(0, 5), st.floats(0.001, 2), st.integers(1, 8))
def test_costs_that_follow_the_model_are_predicted_exactly(base, rate, workers):
    """Work base + rate·units, 3 s of compiling a shape, memory in a line too; two cells tell, 60 are predicted."""

    def true(c):
        return base + rate * cost.units(c)

    ends = [cell(2, 1), cell(50, 8)]
    measured = [(c, true(c) + 3.0, 3.0, 10**9 + 1000 * cost.units(c)) for c in ends]
    wanted = [cell(s, n) for s in (2, 10, 50) for n in (1, 8)] * 10
    found = study.Costs(measured).predict(wanted, workers)
    assert found.cells == 60
    assert found.work_s == pytest.approx(sum(map(true, wanted)), rel=1e-6)
    assert found.compile_s == pytest.approx(6 * 3.0)
    assert found.wall_s == pytest.approx(found.work_s / workers + found.compile_s)
    assert found.peak_bytes == pytest.approx(10**9 + 400_000, rel=1e-6)
    assert found.spread == pytest.approx((1, 1), rel=1e-6)


def test_what_was_not_measured_is_said_and_measured_first():
    known = [(cell(2, 1), 1.0, 0.0, 1)]
    wanted = [cell(2, 1), cell(9, 1), cell(2, 1, 3.0), cell(5, 1, 3.0), cell(9, 1, 3.0)]
    found = study.Costs(known).predict(wanted, 1)
    assert (found.cells, found.unknown) == (2, 3)
    assert "3 cells of kinds that were not measured" in str(found)
    assert cost.samples(wanted, known) == [cell(9, 1), cell(2, 1, 3.0), cell(9, 1, 3.0)]
    assert "nothing is known" in str(study.Costs([]).predict(wanted, 1))
    assert [cost.clock(s) for s in (1, 119, 121, 7200, 2e5)] == ["1 s", "119 s", "2.02 min", "2 h", "2.31 days"]


def test_a_meter_sees_time_compiling_and_memory():
    import jax
    import jax.numpy as jnp

    meter.listen()
    with meter.Meter() as compiled:
        jax.jit(lambda v: jnp.sin(v) @ jnp.cos(v))(jnp.ones((64, 64))).block_until_ready()
    with meter.Meter() as slept:
        time.sleep(0.05)
    seconds, compile_s, peak = compiled.read()
    assert 0 < compile_s <= seconds
    assert peak > 10e6
    assert slept.read()[1] == 0
    assert 0.05 <= slept.read()[0] < 5
    with meter.Meter() as hoarded:
        bytearray(200 << 20)[::4096] = b"x" * (200 << 8)
    assert hoarded.peak_bytes > slept.peak_bytes + (150 << 20)
    with meter.Meter() as after:
        pass
    assert after.peak_bytes < hoarded.peak_bytes - (100 << 20)  # the peak is that of each piece of work


def test_a_second_inversion_compiles_nothing():
    """What is compiled again at every call is also kept: a loop outside jit grew a worker by a megabyte a cell."""
    import numpy as np

    import fpjax

    meter.listen()
    den, grid = fpjax.models.exact.mixture(np.eye(2), [0.5, 0.5], [0.5, 0.5]), fpjax.process.ddim(3)
    spent = []
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(2, 2))
        with meter.Meter() as m:
            inversion = fpjax.invert(den, x, grid)
            fpjax.generate(den, inversion.latent, grid)
        spent.append(m.compile_s)
    assert spent[0] > 0
    assert spent[1:] == [0, 0]


def test_a_run_says_how_fast_it_is(tmp_path):
    with study.Store(tmp_path / "s.sqlite", create=True) as store:
        assert store.pace() is None
        store.plan("", study_work.cells(100))
        store.finish([study.Result(c.key, [], None, 1.0) for c in study_work.cells(20)], study.Pace(2, 20, 10.0, 0.0))
        assert store.pace().cells_per_s == 2.0
        assert store.pace().left_s(store.tally()) == 40.0
    run = CliRunner().invoke(app, ["study", "status", str(tmp_path / "s.sqlite")])
    assert "2 cells a second with 2 workers" in run.stdout
    assert "at that pace the rest takes 40 s" in run.stdout


@pytest.mark.slow
def test_a_study_is_planned_from_cells_that_are_kept(tmp_path):
    """The command measures the ends, predicts the rest; the run then takes about that, and does not do them again."""
    file, path = tmp_path / "s.toml", tmp_path / "s.sqlite"
    file.write_text(
        'models = ["digits-plain"]\n[[process]]\nkind = "ddim"\nsteps = [1, 2, 3]\n[images]\ncount = 4\nbatch = 2\n'
    )

    def ask(*words: str) -> str:
        command = [sys.executable, "-m", "fpjax.cli", "study", *words, "--workers", "1"]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout

    assert "nothing is known yet" in ask("plan", str(file), "--no-measure")
    told = ask("plan", str(file))
    assert re.search(r"predicted for 4 cells: about .* with 1 workers .* MiB of memory a worker", told), told
    with study.Store(path) as store:
        assert store.tally().done == 2
        predicted = study.Costs(store.costs()).predict([c for _, c in store.open_cells(9)], 1)
        kept = {c.key for c, _, _ in store.results()}
    ask("run", str(file))
    with study.Store(path) as store:
        assert store.tally().done == 6
        rest = [m for m in store.costs() if m[0].key not in kept]
        work = sum(seconds - compiling for _, seconds, compiling, _ in rest)
    assert len(rest) == 4
    assert predicted.work_s / 4 < work < predicted.work_s * 4
    assert max(m[3] for m in rest) < 2 * predicted.peak_bytes


# The tables as version 1 of the file wrote them.
VERSION_1 = """
CREATE TABLE study (id INTEGER PRIMARY KEY CHECK (id = 1), text TEXT NOT NULL);
CREATE TABLE cell (
  key TEXT PRIMARY KEY, place INTEGER, spec TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'done', 'failed')), seconds REAL, error TEXT, rows TEXT
) WITHOUT ROWID;
CREATE INDEX cell_by_state ON cell (state, place);
CREATE TABLE tally (state TEXT PRIMARY KEY, cells INTEGER NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
INSERT INTO tally VALUES ('open', 1, 0), ('done', 1, 2.5), ('failed', 0, 0);
CREATE TRIGGER counted_in AFTER INSERT ON cell BEGIN
  UPDATE tally SET cells = cells + 1, seconds = seconds + coalesce(new.seconds, 0) WHERE state = new.state;
END;
CREATE TRIGGER counted_over AFTER UPDATE OF state, seconds ON cell BEGIN
  UPDATE tally SET cells = cells - 1, seconds = seconds - coalesce(old.seconds, 0) WHERE state = old.state;
  UPDATE tally SET cells = cells + 1, seconds = seconds + coalesce(new.seconds, 0) WHERE state = new.state;
END;
INSERT INTO study VALUES (1, 'text');
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(tmp_path):
    """A study of version 1 with one cell done and one open."""
    import json

    path = tmp_path / "old.sqlite"
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1.replace("('open', 1, 0), ('done', 1, 2.5)", "('open', 0, 0), ('done', 0, 0)"))
        one, two = study_work.cells(2)
        insert = "INSERT INTO cell VALUES (?, ?, ?, ?, ?, NULL, ?)"
        db.execute(insert, (one.key, 0, json.dumps(one.spec), "done", 2.5, '[{"step": 1, "value": 0.0}]'))
        db.execute(insert, (two.key, 1, json.dumps(two.spec), "open", None, None))
    db.close()
    return path


def test_a_file_of_the_first_version_goes_on(old):
    assert set(MIGRATIONS) == set(range(1, VERSION))
    with study.Store(old) as store:
        assert store.tally() == (1, 1, 0, 2.5)
        assert [rows for _, rows, _ in store.results()] == [[{"step": 1, "value": 0.0}]]
        assert store.costs() == []  # it was not measured
        engine = study.Local(1)
        assert study.run(store, engine, study_work.square).done == 2
        engine.close()
        assert len(store.costs()) == 1
        assert store.pace() is not None
    fresh = old.with_name("new.sqlite")
    study.Store(fresh, create=True).close()

    def columns(path):
        with sqlite3.connect(path) as db:
            return {
                t: sorted(r[1] for r in db.execute(f"PRAGMA table_info({t})"))
                for t in ("study", "cell", "tally", "run")
            }

    assert columns(old) == columns(fresh)


def test_a_migration_that_fails_leaves_the_old_file(old, monkeypatch):
    monkeypatch.setitem(MIGRATIONS, 1, "ALTER TABLE cell ADD COLUMN compile_s REAL; ALTER TABLE nowhere ADD COLUMN x;")
    before = old.read_bytes()
    with pytest.raises(FpjaxError, match="cannot be used"):
        study.Store(old)
    with sqlite3.connect(old) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert len(db.execute("PRAGMA table_info(cell)").fetchall()) == 7
    assert before[:16] == old.read_bytes()[:16]
