"""The statements in Python, the theorems in Coq and the page that shows both say the same. Needs no Coq."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proofs_checks import formal_link, modules

DOCS = Path(__file__).parents[1] / "docs" / "formal.md"
CLAIMS = formal_link.claims(modules())
THEOREMS = formal_link.theorems()


def lines(path):
    """Lines with something on them, without comments."""
    kept = [line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in kept if line]


@pytest.fixture
def copy(tmp_path):
    """The sources of the Coq folder, to be tampered with."""
    for path in formal_link.FOLDER.iterdir():
        if path.suffix in {".v", ".txt"} or path.name in {"Makefile", "_CoqProject"}:
            shutil.copy(path, tmp_path)
    return tmp_path


def edit(folder, file, old, new):
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")


def test_statements_and_coq_agree():
    assert formal_link.differences(CLAIMS) == []


def test_the_theorems_of_the_plan_are_claimed():
    claimed = {name for name, _ in CLAIMS}
    assert {"E1", "T2", "T3", "T5", "T8", "T9", "T11", "T12", "T13"} <= claimed


def test_nothing_is_assumed():
    assert formal_link.forbidden() == []


def test_every_file_is_compiled():
    listed = [line for line in lines(formal_link.FOLDER / "_CoqProject") if line.endswith(".v")]
    assert sorted(listed) == [path.name for path in formal_link.sources()]


@pytest.mark.parametrize("name", [formal.theorem for _, formal in CLAIMS if formal.hypotheses])
def test_a_changed_coq_hypothesis_is_noticed(copy, name):
    theorem = THEOREMS[name]
    for key in theorem.hypotheses:
        text = (formal_link.FOLDER / theorem.file).read_text(encoding="utf-8")
        changed = theorem.text.replace(f"({key} :", f"({key} : True ->", 1)
        assert theorem.text in text
        assert changed != theorem.text
        (copy / theorem.file).write_text(text.replace(theorem.text, changed), encoding="utf-8")
        problems = formal_link.differences(CLAIMS, copy)
        assert len(problems) == 1
        assert f"{name}: {key}" in problems[0]


def test_a_hypothesis_more_or_less_in_coq_is_noticed(copy):
    edit(copy, "t8.v", "  (Hm : 0 < m)\n", "")
    assert any("t8_monotone: Hm" in problem for problem in formal_link.differences(CLAIMS, copy))
    edit(copy, "t8.v", "  (HF : forall u v, m *", "  (Hm : 0 < m)\n  (Hextra : m < 1)\n  (HF : forall u v, m *")
    assert any("Hextra" in problem for problem in formal_link.differences(CLAIMS, copy))


@pytest.mark.parametrize(
    ("owner", "formal", "key"), [(owner, formal, key) for owner, formal in CLAIMS for key in formal.hypotheses]
)
def test_a_changed_python_hypothesis_is_noticed(owner, formal, key):
    others = [claim for claim in CLAIMS if claim[1] is not formal]
    changed = {**formal.hypotheses, key: formal.hypotheses[key] + " + 0"}
    missing = {k: text for k, text in formal.hypotheses.items() if k != key}
    for hypotheses in (changed, missing):
        tampered = dataclasses.replace(formal, hypotheses=hypotheses)
        problems = formal_link.differences([*others, (owner, tampered)])
        assert len(problems) == 1
        assert f"{formal.theorem}: {key}" in problems[0]


def test_white_space_does_not_matter(copy):
    edit(copy, "t8.v", "(Hm : 0 < m)", "(Hm  :  0 <\n    m) (* a comment (* in a comment *) *)")
    assert formal_link.differences(CLAIMS, copy) == []


def test_every_theorem_is_claimed_exactly_once(copy):
    name = CLAIMS[0][1].theorem
    assert any(name in problem for problem in formal_link.differences(CLAIMS[1:]))
    assert any("claimed by 2" in problem for problem in formal_link.differences([*CLAIMS, CLAIMS[0]]))
    with (copy / "t2.v").open("a", encoding="utf-8") as file:
        file.write("\nTheorem t2_new (m : R)\n  (Hm : 0 < m) :\n  0 <= m.\nProof. lra. Qed.\n")
    assert any("t2_new" in problem for problem in formal_link.differences(CLAIMS, copy))
    with (copy / "auxiliary.txt").open("a", encoding="utf-8") as file:
        file.write("t2_new: for this test\nt2_gone: no such theorem\n")
    problems = formal_link.differences(CLAIMS, copy)
    assert len(problems) == 1
    assert "t2_gone" in problems[0]


@pytest.mark.parametrize("word", formal_link.WORDS)
def test_a_gap_is_noticed(copy, word):
    edit(copy, "t2.v", "Qed.", f"{word}.")
    assert [problem.split(": ")[1] for problem in formal_link.forbidden(copy)] == [word]


def test_words_in_comments_and_longer_words_are_no_gap(copy):
    edit(copy, "t2.v", "Qed.", "Qed. (* Admitted (* Axiom *) *)\nLemma admitted_Axiom : True.\nProof. easy. Qed.")
    assert formal_link.forbidden(copy) == []


@pytest.mark.parametrize(
    "text",
    [
        "Theorem two (Ha Hb : True) : True.\nProof. easy. Qed.\n",
        "Theorem implicit {V : Type} : True.\nProof. easy. Qed.\n",
        "Theorem bare : True. easy. Qed.\n",
        "  Theorem indented : True.\nProof. easy. Qed.\n",
    ],
)
def test_theorems_the_reader_could_misread_are_refused(copy, text):
    (copy / "odd.v").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"odd\.v"):
        formal_link.theorems(copy)


def make(folder, target, **environment):
    command = [shutil.which("make"), "-C", str(folder), target]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment or None)


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_notices_a_gap_and_a_file_left_out(copy):
    words = re.search(r"^FORBIDDEN := (.*)$", (copy / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert words == "|".join(formal_link.WORDS)
    assert make(copy, "words").returncode == 0
    (copy / "extra.v").write_text("Lemma extra : True.\nProof. easy. Qed.\n", encoding="utf-8")
    assert "_CoqProject lacks extra.v" in make(copy, "words").stderr
    (copy / "extra.v").unlink()
    edit(copy, "t2.v", "Qed.", "Admitted.")
    result = make(copy, "words")
    assert result.returncode != 0
    assert "Admitted" in result.stdout


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_says_what_to_install(copy, tmp_path_factory):
    empty = tmp_path_factory.mktemp("bin")
    (empty / "sh").symlink_to(shutil.which("sh"))
    result = make(copy, "tools", PATH=str(empty))
    assert result.returncode != 0
    assert "apt-get install coq libcoq-coquelicot" in result.stderr


def test_the_page_shows_every_theorem_verbatim():
    blocks = re.findall(r"```coq\n(.*?)\n```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    everything = [path.read_text(encoding="utf-8") for path in formal_link.sources()]
    shown = [block for block in blocks if block.startswith("Theorem")]
    assert sorted(shown) == sorted(theorem.text for theorem in THEOREMS.values())
    for block in blocks:
        assert any(block in text for text in everything), block


def test_the_page_names_the_axioms_of_every_theorem():
    axioms = lines(formal_link.FOLDER / "axioms.txt")
    uses = dict(line.split(":") for line in lines(formal_link.FOLDER / "uses.txt"))
    assert uses.keys() == THEOREMS.keys()
    page = DOCS.read_text(encoding="utf-8")
    for number, axiom in enumerate(axioms, 1):
        assert f"\n{number}. `{axiom}`" in page
    for name, used in uses.items():
        numbers = ", ".join(str(number) for number, axiom in enumerate(axioms, 1) if axiom in used.split())
        assert set(used.split()) <= set(axioms)
        assert f"### `{name}`" in page
        section = page.split(f"### `{name}`")[1].split("\n#")[0]
        assert f"Axioms: {numbers}." in section
        assert f"`{THEOREMS[name].file}`" in section
