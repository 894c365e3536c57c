"""The README's Python runs as it stands, and its links lead somewhere."""

import re
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


@pytest.mark.slow  # make docs-check runs it too, in CI
def test_the_python_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["inv"].solved.all()
    assert abs(names["img"] - names["x"]).max() < 1e-3
    assert (tmp_path / "fpjax-report" / "report.html").exists()
    jax.clear_caches()


def test_the_badges_are_true():
    import importlib.util

    path = ROOT / "docs" / "figures" / "badges.py"
    spec = importlib.util.spec_from_file_location("badges", path)
    badges = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(badges)
    assert path.with_suffix(".svg").read_text(encoding="utf-8") == badges.svg()


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_the_losses_are_those_of_the_cards():
    from fpjax.models import store

    for name in ("digits-monotone", "digits-plain"):
        loss = store.read_card(store.card_path(name))["training"]["held_out_loss"]
        assert f"{loss:.4f}" in TEXT
