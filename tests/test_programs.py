"""A process that compiles for ever does not run into the kernel's limit of memory mappings."""

import sys
from pathlib import Path

import pytest

import fpjax
from fpjax import process, programs


def mappings():
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_programs_are_forgotten_when_they_hold_too_many_mappings():
    x, _ = fpjax.samples("digits", 1)
    programs.forget(0)
    before = mappings()
    fpjax.invert(fpjax.load("digits-plain"), x, process.ddim(2))
    grown = mappings()
    assert grown > before + 100
    assert not programs.forget(grown + 1000)
    assert mappings() >= grown
    assert programs.forget(grown - 1)
    assert mappings() < before + (grown - before) / 2


def test_an_audit_forgets_first(monkeypatch):
    class Asked(Exception):
        pass

    def ask():
        raise Asked

    monkeypatch.setattr(programs, "forget", ask)
    x, _ = fpjax.samples("digits", 1)
    with pytest.raises(Asked):
        fpjax.audit(fpjax.load("digits-plain"), process.ddim(2), images=x)
