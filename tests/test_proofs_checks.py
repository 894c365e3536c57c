import json
import subprocess
import sys

import pytest

import proofs_checks
from proofs_checks.__main__ import main, run

MODULES = proofs_checks.modules()


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.statement.name)
def test_the_instance_holds_and_the_broken_one_does_not(module):
    row = run(module, samples=100, seed=1)
    assert row["verdict"] == "holds", row["detail"]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.statement.name)
def test_the_broken_instance_names_a_hypothesis(module):
    assert module.broken_instance().violates in module.statement.hypotheses
    assert module.instance().violates is None
    assert module.__doc__
    assert "Proof" in module.__doc__


def test_modules_are_found_by_folder():
    names = [m.statement.name for m in MODULES]
    assert names[:1] == ["E1"]
    assert {"T2", "T3", "T4"} <= set(names)
    assert len(set(names)) == len(names)


def test_a_failing_theorem_makes_the_command_fail(monkeypatch, capsys):
    """Break a theorem: an instance that does not hold must give exit code 1."""
    from proofs_checks import t3

    assert main(["T3", "--samples", "20"]) == 0
    monkeypatch.setattr(t3, "instance", t3.broken_instance)
    assert main(["T3", "--samples", "20", "--json"]) == 1
    out = capsys.readouterr().out
    assert json.loads(out[out.index("[") :])[0]["verdict"] == "FAILS"


def test_a_check_that_always_says_yes_is_caught(monkeypatch):
    from proofs_checks import e1
    from proofs_checks.base import Outcome

    monkeypatch.setattr(e1, "check", lambda instance, samples, seed: Outcome(True, "sampled", samples, "fine"))
    assert run(e1, 10, 0)["verdict"] == "FAILS"


def test_bad_arguments():
    assert main(["T99"]) == 2
    assert main(["--samples", "0"]) == 2


def test_the_command():
    done = subprocess.run([sys.executable, "-m", "proofs_checks", "E1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("E1   holds")
