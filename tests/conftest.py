"""Strict switches, here and nowhere else: nothing is promoted, broadcast or warned about silently."""

import importlib.util
import os
import re
import warnings

import hypothesis
import jax
import pytest
from typer.testing import CliRunner

from fpjax import programs
from fpjax.cli import app

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_default_matmul_precision", "highest")

ORDINARY = hypothesis.settings(deadline=None, max_examples=80, derandomize=True)
hypothesis.settings.register_profile("fpjax", ORDINARY)
hypothesis.settings.register_profile("random", ORDINARY, derandomize=False, database=None)  # with --hypothesis-seed
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=1500, print_blob=True)
hypothesis.settings.register_profile("mutation", ORDINARY, phases=[hypothesis.Phase.generate])  # nobody reads these
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fpjax"))


# tests/bridge needs torch and diffusers: make test-bridge installs them and names the folder.
collect_ignore = [] if importlib.util.find_spec("torch") else ["bridge"]


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Runs the command in an empty folder: ``call("audit", …)``."""
    monkeypatch.chdir(tmp_path)
    yield lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])
    jax.config.update("jax_enable_x64", True)  # which a command of single precision turns off


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # a process that was killed while it wrote to the shared cache left half an entry: compiled again
        warnings.filterwarnings("default", message="Error (reading|writing) persistent compilation cache")
        yield


@pytest.fixture(autouse=True, scope="module")
def _programs_are_forgotten():
    yield
    programs.forget()


def pytest_collection_modifyitems(config, items):
    if os.environ.get("FPJAX_FULL"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="a run of hours: make test-all"))


def pytest_terminal_summary(terminalreporter):
    """How many examples hypothesis ran, over all properties."""
    reports = [r for group in terminalreporter.stats.values() for r in group if hasattr(r, "_hypothesis_stats")]
    counts = [int(n) for r in reports for n in re.findall(r"(\d+) (?:passing|failing)", r._hypothesis_stats)]
    if counts:
        profile = hypothesis.settings.get_current_profile_name()
        terminalreporter.write_line(
            f"hypothesis: {sum(counts)} examples in {len(reports)} properties, profile {profile}"
        )
