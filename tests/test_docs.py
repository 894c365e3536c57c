"""The docs: every page's blocks are well formed, chapters are those of the modules, figures have scripts, words have places.

What takes longer (running every block, building the site) is `make docs-check` and `make docs`; a few
pages are run here too.
"""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

import fpjax
from proofs_checks import chapters, modules
from proofs_checks.typeset import typeset

ROOT = Path(fpjax.__file__).parent.parent
DOCS = ROOT / "docs"


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner, builder = load("run_page"), load("build")
PAGES = runner.pages()
RUN = ("python", "sh")
SHOWN = ("text", "coq", "toml", "measured", "json")  # not run: outputs, and what other tests compare


@pytest.mark.parametrize("path", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_block_is_run_or_says_why_not(path):
    page = path.read_text(encoding="utf-8")
    assert page.count("\n```") == 2 * len(runner.blocks(page)), "a fence is not closed, or not at the line's start"
    for block in runner.blocks(page):
        assert block.language in RUN + SHOWN, f"{block.language} is a language that nobody runs"
        assert block.mark in ("", "file", "run", "not run")
        assert block.mark == "" or len(block.words) > 3
        if block.language == "python":
            compile(block.text, path.name, "exec")


@pytest.mark.parametrize("module", modules(), ids=lambda m: m.statement.name)
def test_a_chapter_is_written_from_its_module(module):
    path = DOCS / "theory" / f"{module.__name__.split('.')[-1]}.md"
    page = path.read_text(encoding="utf-8")
    assert chapters.chapter(module, chapters.shown(page)) == page
    for heading in ("Formulation", "Float approximation", "Rigorous bounds", "Conclusion", "Make it fail"):
        assert f"\n## {heading}\n" in page


def test_the_chapters_are_listed():
    assert (DOCS / "theory" / "index.md").read_text(encoding="utf-8") == chapters.contents(modules())
    assert len(modules()) == 19


@pytest.mark.parametrize(
    ("plain", "set_"),
    [
        (
            "m = rho + (1 - rho)·inf lambda_min(sym J_D) > 0",
            "m = ρ + (1 - ρ)·inf λ<sub>min</sub>(sym J<sub>D</sub>) &gt; 0",
        ),
        ("<F(a) - F(b), a - b> >= m·|a - b|²", "⟨F(a) - F(b), a - b⟩ ≥ m·|a - b|²"),
        ("kappa^k·|y_0 - y*|", "κ<sup>k</sup>·|y<sub>0</sub> - y<sup>∗</sup>|"),
        ("``set_alpha_to_one=True``", "`set_alpha_to_one=True`"),
        ("F^(y) and r^ = |y_{k+1}|", "F\u0302(y) and r\u0302 = |y<sub>k+1</sub>|"),
    ],
)
def test_formulas_are_typeset(plain, set_):
    assert typeset(plain) == set_


def pictures() -> set[Path]:
    return {p.relative_to(ROOT) for ext in ("png", "svg") for p in (DOCS / "figures").rglob(f"*.{ext}")}


def test_every_figure_is_written_by_a_script():
    """One that stands in the repository and names it; what the gallery names as scripts is there."""
    scripts = [*(DOCS / "figures").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    code = "".join(script.read_text(encoding="utf-8") for script in scripts)
    assert pictures()
    for path in pictures():
        own = (path.parent / f"{path.parent.name}.py").name, f"{path.stem}.py"
        named = re.search(rf"\b{re.escape(path.stem.split('-', 2)[-1])}\b", code) or re.search(
            rf"\b{re.escape(path.stem)}\b", code
        )
        assert named or set(own) & {script.name for script in scripts}, f"no script writes {path}"
    gallery = (DOCS / "gallery.md").read_text(encoding="utf-8")
    for script in re.findall(r"`python (\S+\.py)\b[^`]*`", gallery):
        assert (ROOT / script).exists(), script


# Decimals in prose that nothing here measured: definitions, settings of what is described, versions and what others publish.
CONSTANTS = {
    "README.md": ["3.11", "2.0"],
    "comparison.md": ["0.1.0", "0.8.5", "0.3.8", "0.3", "0.42.1"],
    "diffusers.md": ["113.7"],  # the size of DDPM's network
    "formal.md": ["0.3087452155", "53", "40.6"],  # stated in Coq; T4, computed by its module
    "lipschitz.md": ["1.648", "2403.14602", "0.7"],  # T15, a paper, a setting
    "planning.md": ["36.93", "2.1", "1.5", "0.85", "0.86", "3.4"],  # published by others, and settings of planning.py
    "samplers.md": ["0.9", "0.3", "0.8", "2311.18387", "2411.11135", "0.01", "0.2"],
    "solvers.md": ["0.2", "1.5", "0.10.2"],
}
NUMERAL = re.compile(r"(?<![\w.])\d+\.\d[\d.]*(?:e[-+]?\d+)?(?!\w)")


def prose(page: str) -> str:
    """A page without its blocks (run), code, link targets, and the parts between marks (written by a script)."""
    for pattern in (r"^```.*?^```$", r"^<!-- [\w-]+ -->$.*?^<!-- end -->$", r"`[^`]*`", r"\]\([^)]*\)"):
        page = re.sub(pattern, "", page, flags=re.MULTILINE | re.DOTALL)
    return page


def whole_page_is_written(path: Path) -> bool:
    """By proofs_checks (compared with its modules by other tests), or by the script that its first lines name."""
    head = "\n".join(path.read_text(encoding="utf-8").splitlines()[:6])
    return path.parent.name == "theory" or path.name == "theorems.md" or "Written by `python " in head


def test_every_measured_number_is_written_by_a_script():
    for path in PAGES:
        if not whole_page_is_written(path):
            typed = [n.rstrip(".") for n in NUMERAL.findall(prose(path.read_text(encoding="utf-8")))]
            assert set(typed) <= set(CONSTANTS.get(path.name, [])), path.name


def test_every_marked_part_of_a_page_has_its_script():
    scripts = [*(DOCS / "figures").glob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    code = "\n".join(script.read_text(encoding="utf-8") for script in scripts)
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        names = [n for n in re.findall(r"^<!-- ([\w-]+) -->$", page, re.MULTILINE) if n != "end"]
        assert len(names) == page.count("<!-- end -->"), path.name
        for name in names:
            assert re.search(rf"\b{re.escape(name)}\b", code), f"nothing writes the part {name} of {path.name}"


def test_figures_in_pages_exist():
    for path in PAGES:
        for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} shows {target}"


def test_links_between_pages_and_their_anchors():
    """As on a code forge: relative links lead to files, anchors to headings. Tutorial pages are made by the build."""

    def anchors(page):
        return {
            re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-")
            for h in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        }

    for path in PAGES:
        page = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)", page):
            if target.startswith(("http:", "https:", "mailto:")):
                continue
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            if there.parent == DOCS / "tutorials" and there.suffix == ".md" and not there.exists():
                there = there.with_suffix(".py")
            assert there.exists(), f"{path.name} links to {target}"
            if anchor and there.suffix == ".md":
                assert anchor in anchors(there.read_text(encoding="utf-8")), f"{path.name} links to {target}"


def test_the_glossary_names_what_is_there():
    rows = re.findall(
        r"^\| [^|]+ \| ([^|]+) \| `([^`]+)` \|", (DOCS / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) > 15
    for names, file in rows:
        text = (ROOT / file).read_text(encoding="utf-8")
        for name in re.findall(r"`([^`]+)`", names):
            assert re.search(rf"\b{re.escape(name)}\b", text), f"{file} has no {name}"


REFERENCE = {p: p.read_text(encoding="utf-8") for p in sorted((DOCS / "reference").glob("*.md"))}
DOCUMENTED = {name: path for path, page in REFERENCE.items() for name in re.findall(r"^::: (\S+)$", page, re.MULTILINE)}


def called(page: str) -> str:
    return "\n".join(b.text for b in runner.blocks(page) if b.language == "python")


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_what_the_reference_documents_has_an_example_on_its_page(name):
    room, _, last = name.rpartition(".")
    thing = getattr(importlib.import_module(room), last)
    assert inspect.getdoc(thing)
    alias = {"load": "fpjax.load", "names": "models.names"}.get(last, last)
    wanted = rf"\b{re.escape(alias)}\(" if inspect.isfunction(thing) else rf"\b{re.escape(last)}\b"
    records = {"Inversion": "inv", "Report": "rep", "Solution": "answer", "Certificate": "certificate"}
    assert re.search(wanted, called(REFERENCE[DOCUMENTED[name]])) or last in records


def public() -> list[str]:
    """The public surface: fpjax's own names, and the functions of the rooms that users call."""
    from fpjax import certify, testing

    names = [n for n in fpjax.__all__ if n not in fpjax._ROOMS and n != "__version__"]
    names += [n for room in (testing, certify) for n in room.__all__]
    for room in (
        "process",
        "models.exact",
        "step",
        "jacobian",
        "confidence",
        "worst",
        "report",
        "schedulers",
        "editing",
        "findings",
        "peers",
        "pivotal",
    ):
        module = importlib.import_module(f"fpjax.{room}")
        names += [
            n
            for n, f in vars(module).items()
            if inspect.isfunction(f) and f.__module__ == module.__name__ and n[0] != "_"
        ]
    return sorted(set(names) - {"sample"})


def test_every_public_function_is_in_the_reference():
    missing = set(public()) - {name.rpartition(".")[2] for name in DOCUMENTED}
    assert not missing


def test_the_tutorials_have_exercises_and_checked_solutions():
    found = builder.tutorials()
    assert len(found) >= 6
    for path in found:
        text = path.read_text(encoding="utf-8")
        exercises, _, solutions = text.partition("# ## Exercises")[2].partition("# ## Solutions")
        assert len(re.findall(r"^# \d\. ", exercises, re.MULTILINE)) >= 3, path.name
        assert len(re.findall(r"^\s*(?:assert|np\.testing)", solutions, re.MULTILINE)) >= 3, path.name
        assert "plt.show()" in text or path.name.startswith("4")


def test_a_site_that_is_wrong_is_found_out(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html">x</a><a href="#no">y</a><img src="https://example.org/x.png"><i id="yes"></i>'
    )
    wrong, _ = builder.look(tmp_path)
    assert any("b.html" in line for line in wrong)
    assert any("#no" in line for line in wrong)
    assert any("loads https://example.org/x.png" in line for line in wrong)
    (tmp_path / "a.html").write_text('<a href="#yes">y</a><a href="https://example.org">z</a><i id="yes"></i>')
    assert builder.look(tmp_path) == ([], ["https://example.org"])


def test_the_runner_compares_numbers_as_numbers():
    printed = "kappa 0.3938, residual 2.6e-16 at step 3"
    assert runner.missing("kappa 0.395, residual 1.1e-15 at step 3", printed) == []
    assert runner.missing("kappa 0.41, residual 1.1e-15 at step 3", printed)
    assert runner.missing("kappa 0.395, residual 1.1e-3 at step 3", printed)
    assert runner.missing("kappa 0.395, residual 1.1e-15 at step 4", printed)


@pytest.mark.parametrize(
    ("page", "sentence"),
    [
        ("```python\nprint(1)\n```\n```text\n2\n```\n", "differs from the page"),
        ("```python\nraise ValueError('no')\n```\n", "ValueError: no"),
        ("```python\nx = 1\n```\n```python\nassert x == 2\n```\n", "AssertionError"),
    ],
)
def test_a_python_block_that_is_wrong_is_found_out(tmp_path, page, sentence):
    with pytest.raises(runner.PageError, match=sentence):
        runner.run(page, tmp_path, runner.present(), skip_install=True)


def test_marks_are_obeyed(tmp_path):
    page = (
        "<!-- not run: never -->\n```python\nraise ValueError\n```\n"
        "<!-- run: no_such_module -->\n```python\nraise ValueError\n```\n"
        "<!-- file: a.toml -->\n```toml\nx = 1\n```\n"
        "```python\nfrom pathlib import Path\n\nprint(Path('a.toml').read_text())\n```\n```text\nx = 1\n```\n"
    )
    runner.run(page, tmp_path, runner.present(), skip_install=True)
