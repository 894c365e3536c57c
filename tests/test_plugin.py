"""The pytest plugin in projects of its own: option, table, pytest-xdist, and what it costs at start-up."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fpjax
from fpjax import plugin

ROOT = Path(fpjax.__file__).parent.parent
SUITE = """
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
import fpjax
from fpjax import testing

good = fpjax.Denoiser.from_function(lambda p, y, s, c: y / 2, (), (2,), name="half")
bad = fpjax.Denoiser.from_function(lambda p, y, s, c: -y, (), (2,), name="flip")

def test_good():
    testing.assert_monotone(good)

@settings(max_examples=3, database=None)
@given(testing.processes(max_steps=4))
def test_property(grid):
    testing.assert_contracts(good, grid)

def test_bad():
    testing.assert_monotone(bad, samples=8)
"""


def run(folder: Path, *options: str, suite: str = SUITE, **variables: str) -> subprocess.CompletedProcess:
    (folder / "test_mine.py").write_text(suite)
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", "pytest", "-p", "fpjax.plugin", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def table(out: str) -> dict[tuple, tuple]:
    lines = [re.split(r" {2,}", line.strip()) for line in out.splitlines() if line.startswith("assert_")]
    return {tuple(cells[:4]): tuple(cells[4:6]) for cells in lines}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return run(tmp_path_factory.mktemp("project"), "--fpjax-samples", "10")


def test_the_table_says_what_was_found(ran):
    assert ran.returncode == 1
    rows = table(ran.stdout)
    assert rows[("assert_monotone", "half", "T2", "SUPPORTED")] == ("10", "1")
    assert rows[("assert_monotone", "flip", "T2", "REFUTED")] == ("8", "1")
    points, calls = rows[("assert_contracts", "half", "T3", "SUPPORTED")]
    assert int(points) == 10 * int(calls)
    assert len(rows) == 3
    assert "says nothing about others" in ran.stdout


def test_a_failure_shows_witness_and_theorem(ran):
    assert "assert_monotone(flip): REFUTED (T2): <v, J v> = -1 < 0" in ran.stdout
    for word in ("point = [", "direction = [", "sigma = "):
        assert word in ran.stdout


def test_workers_of_xdist_hand_their_rows_over(tmp_path):
    both = run(tmp_path, "-n", "1", "--fpjax-samples", "10", "-k", "good or bad")
    assert table(both.stdout) == {
        ("assert_monotone", "half", "T2", "SUPPORTED"): ("10", "1"),
        ("assert_monotone", "flip", "T2", "REFUTED"): ("8", "1"),
    }


@pytest.mark.parametrize("count", ["0", "-3", "many"])
def test_a_bad_number_is_refused_by_pytest(tmp_path, count):
    out = run(tmp_path, f"--fpjax-samples={count}", suite="def test_nothing(): pass")
    assert out.returncode == 4
    assert "--fpjax-samples" in out.stderr


def test_pytest_starts_without_jax_and_prints_nothing(tmp_path):
    suite = "import sys\n\ndef test_light(): assert not {'jax', 'numpy', 'hypothesis'} & set(sys.modules)"
    out = run(tmp_path, suite=suite, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")  # those of other packages may import anything
    assert out.returncode == 0, out.stdout
    assert "fpjax" not in out.stdout


def test_rows_are_kept_only_where_someone_prints_them():
    state = plugin.State()
    row = plugin.Row("assert_monotone", "m", "T2", "SUPPORTED", 5, 0.5)
    state.add(row)
    assert not state.rows
    state.active = True
    state.add(row)
    state.add(row)
    state.add(row._replace(verdict="REFUTED"))
    assert sorted((r.verdict, r.points, r.calls, r.seconds) for r in state.rows.values()) == [
        ("REFUTED", 5, 1, 0.5),
        ("SUPPORTED", 10, 2, 1.0),
    ]


def test_many_models_share_a_line_for_each_verdict():
    row = plugin.Row("assert_monotone", "m", "T2", "SUPPORTED", 5, 0.5)
    many = [row._replace(model=f"m{i}") for i in range(plugin.LINES + 1)]
    bad = row._replace(model="bad", verdict="REFUTED")
    assert plugin.lines([*many, bad]) == [
        row._replace(model=f"m0 and {plugin.LINES} more", points=30, seconds=3.0, calls=plugin.LINES + 1),
        bad,
    ]
    assert plugin.lines(many[1:]) == many[1:]


def test_the_default_number_of_samples(monkeypatch):
    monkeypatch.setattr(plugin.STATE, "samples", None)
    assert plugin.default_samples() == plugin.SAMPLES == 64
    monkeypatch.setattr(plugin.STATE, "samples", 7)
    assert plugin.default_samples() == 7
