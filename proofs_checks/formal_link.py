"""The link between the statements in Python and the machine-checked theorems in ``proofs_checks/formal``.

A reader of the Coq files that needs no Coq. It relies on how the files are written, and :func:`forbidden` holds them to it:
every theorem is ``Theorem name (binder : type) ... : conclusion.`` followed by ``Proof.``, every hypothesis is a binder of
its own whose name starts with H, and nothing is assumed outside a theorem.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from proofs_checks.base import Formal

FOLDER = Path(__file__).parent / "formal"

# What would leave a gap in a proof, assume something, hide a hypothesis outside the theorem, or escape the reader.
WORDS = (
    "Admitted",
    "admit",
    "give_up",
    "Axiom",
    "Axioms",
    "Parameter",
    "Parameters",
    "Conjecture",
    "Variable",
    "Variables",
    "Hypothesis",
    "Hypotheses",
    "Context",
    "Section",
    "Module",
    "Corollary",
    "Proposition",
    "Fact",
    "Remark",
    "bypass_check",
    "Unset",
)


@dataclass(frozen=True)
class Theorem:
    """A theorem as it stands in a Coq file.

    Attributes:
      name: its name.
      file: the file's name.
      text: from ``Theorem`` to the full stop, verbatim.
      hypotheses: name -> Coq text, white space normalised, in order.
    """

    name: str
    file: str
    text: str
    hypotheses: dict[str, str]


def normalise(text: str) -> str:
    """One space for each run of white space, none at the ends."""
    return " ".join(text.split())


def without_comments(text: str) -> str:
    """Coq text without its (nested) comments; line numbers stay."""
    kept, depth = [], 0
    for piece in re.split(r"(\(\*|\*\))", text):
        if piece == "(*":
            depth += 1
        elif piece == "*)" and depth:
            depth -= 1
        else:
            kept.append("\n" * piece.count("\n") if depth else piece)
    return "".join(kept)


def sources(folder: Path = FOLDER) -> list[Path]:
    """The Coq files."""
    return sorted(folder.glob("*.v"))


def theorems(folder: Path = FOLDER) -> dict[str, Theorem]:
    """Every ``Theorem`` of the folder, by name.

    Raises:
      ValueError: if a theorem is not written in the form that the reader relies on, or a name comes twice.
    """
    found: dict[str, Theorem] = {}
    for path in sources(folder):
        text = without_comments(path.read_text(encoding="utf-8"))
        blocks = re.findall(r"^Theorem\s.*?\.(?=\s+Proof\b)", text, re.MULTILINE | re.DOTALL)
        if len(blocks) != len(re.findall(r"\bTheorem\b", text)):
            raise ValueError(f"{path.name}: every Theorem must start its line and be followed by Proof.")
        for block in blocks:
            theorem = _read(block, path.name)
            if theorem.name in found:
                raise ValueError(f"{theorem.name} is in {found[theorem.name].file} and in {path.name}")
            found[theorem.name] = theorem
    return found


def _read(block: str, file: str) -> Theorem:
    match = re.match(r"Theorem\s+([a-z]\w*)\s*", block)
    if not match:
        raise ValueError(f"{file}: cannot read the name in {block[:60]!r}")
    name, i, hypotheses = match[1], match.end(), {}
    while block[i] == "(":
        end = _closing(block, i)
        names, colon, kind = block[i + 1 : end].partition(":")
        assumed = [n for n in names.split() if n.startswith("H")]
        if not colon or (assumed and len(names.split()) != 1):
            raise ValueError(f"{file}: {name}: a hypothesis must be a binder of its own, (Hname : text)")
        for n in assumed:
            hypotheses[n] = normalise(kind)
        i = end + 1
        while block[i].isspace():
            i += 1
    if block[i] != ":":
        raise ValueError(f"{file}: {name}: binders must be written (name : type)")
    return Theorem(name, file, block, hypotheses)


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at ``start`` closes."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if depth == 0:
            return i
    raise ValueError(f"unbalanced bracket in {text[start : start + 60]!r}")


def forbidden(folder: Path = FOLDER) -> list[str]:
    """Every use of a word that would leave a gap in a proof or hide an assumption, as "file:line: word"."""
    pattern = re.compile(rf"(?<![\w.])({'|'.join(WORDS)})(?!\w)")
    return [
        f"{path.name}:{number}: {match[0]}"
        for path in sources(folder)
        for number, line in enumerate(without_comments(path.read_text(encoding="utf-8")).splitlines(), 1)
        for match in pattern.finditer(line)
    ]


def auxiliary(folder: Path = FOLDER) -> dict[str, str]:
    """The theorems that no statement claims, with the reason, from ``auxiliary.txt``."""
    lines = (folder / "auxiliary.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(":") for line in lines if line.strip() and not line.startswith("#")]
    return {name.strip(): reason.strip() for name, _, reason in pairs}


def claims(modules: Iterable[ModuleType]) -> list[tuple[str, Formal]]:
    """(statement name, machine-checked counterpart) of every statement."""
    return [(module.statement.name, formal) for module in modules for formal in module.statement.formal]


def differences(claimed: Iterable[tuple[str, Formal]], folder: Path = FOLDER) -> list[str]:
    """Where the statements and the Coq files disagree, one sentence each; empty if they agree."""
    claimed = list(claimed)
    known, spare = theorems(folder), auxiliary(folder)
    problems = []
    for name, formal in claimed:
        theorem = known.get(formal.theorem)
        if theorem is None or theorem.file != formal.file:
            problems.append(f"{name}: {formal.file} has no theorem {formal.theorem}")
            continue
        python = {key: normalise(text) for key, text in formal.hypotheses.items()}
        for key in sorted(python.keys() | theorem.hypotheses.keys()):
            ours, theirs = python.get(key), theorem.hypotheses.get(key)
            if ours != theirs:
                problems.append(f"{name}: {formal.theorem}: {key} is {ours!r} in Python and {theirs!r} in Coq")
    times = [formal.theorem for _, formal in claimed]
    for theorem in known:
        if times.count(theorem) + (theorem in spare) != 1:
            problems.append(
                f"{theorem} is claimed by {times.count(theorem)} statements"
                f" and {'is' if theorem in spare else 'is not'} in auxiliary.txt; it must be exactly one of these"
            )
    problems += [f"auxiliary.txt names {theorem}, which is no theorem" for theorem in spare if theorem not in known]
    return problems
