"""docs/property-tests.md does what it says, word for word."""

import importlib.util
import sys
from pathlib import Path

import pytest

import fpjax

ROOT = Path(fpjax.__file__).parent.parent
PAGE = ROOT / "docs" / "property-tests.md"


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("run_page", ROOT / "docs" / "run_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_the_jax_steps(runner, tmp_path):
    """Here, with what is installed; up to the first hypothesis test."""
    page = PAGE.read_text().partition("\n## With hypothesis\n")[0]
    runner.run(page, tmp_path, runner.present(), skip_install=True)
    assert (tmp_path / "test_denoiser.py").exists()


@pytest.mark.slow
def test_a_new_user(runner, tmp_path):
    """The built wheel, a fresh environment, an empty folder, the whole page; then the PyTorch bridge itself."""
    folder = tmp_path / "project"
    folder.mkdir()
    environment = runner.fresh(tmp_path)
    runner.run(PAGE.read_text(), folder, environment, skip_install=False)
    (folder / "test_bridge.py").write_text((ROOT / "tests" / "torch_bridge.py").read_text())
    runner.run("```sh\npytest test_bridge.py\n```\n```text\n6 passed\n```\n", folder, environment, skip_install=False)


BROKEN = {
    "differs from the page": "```sh\necho one\n```\n\n```text\ntwo\n```\n",
    r"\(exit code 3\)": "```sh\nexit 3\n```\n",
    r"\(exit code 0\)": "```sh\necho 1 failed\n```\n\n```text\n1 failed\n```\n",
    "AssertionError": "```python\nassert False\n```\n",
}


@pytest.mark.parametrize("sentence", sorted(BROKEN))
def test_a_page_that_is_wrong_is_found_out(runner, tmp_path, sentence):
    with pytest.raises(runner.PageError, match=sentence):
        runner.run(BROKEN[sentence], tmp_path, runner.present(), skip_install=True)


def test_text_blocks_are_found_whatever_the_spacing(runner):
    printed = "a  model   T2      12.5 s\nmore"
    assert runner.missing("a model T2 … s\nmore", printed) == []
    assert runner.missing("a model T3", printed) == ["a model T3"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="what is said where PyTorch is missing")
def test_without_pytorch_one_sentence_says_so():
    with pytest.raises(fpjax.FpjaxError, match="pip install torch"):
        fpjax.testing.from_torch(lambda y, s, c: y, (2,))
    assert "torch" not in sys.modules
