"""One chapter of the theory pages for each theorem module, in the shape of a proof, from the module itself.

Formulation, float approximation, rigorous bounds, conclusion, "make it fail": words and proofs are the module's, the Python is
run, and what it printed stands beside it. ``python -m proofs_checks --docs docs`` writes them all; the tests write them
again without running and compare, and the docs' runner runs every block. Not in this room: the mathematics.
"""

import contextlib
import inspect
import io
import re
from types import ModuleType

from proofs_checks.typeset import cell, paragraphs, typeset

SAMPLES = {"T15": 200}  # random points; 50 if not given. T15 tells a blind start from a uniform one only by many
EDITS = {  # where the broken instance differs in more than one entry, the one edit that is enough
    "T3": {"sigma": 0.2},
    "T4": {"t": 20, "s": 0},
    "T8": {"sigma": 0.2},
    "T15": {"blind": True},
}
WAYS = {
    "symbolic": "an identity for every value of its symbols, proved by computer algebra",
    "ball arithmetic": "the certificate kernel, with outward rounding: a statement about real numbers, not about floats",
    "sampled": "random points; a violation there would refute the theorem, its absence proves nothing",
}


def edit(module: ModuleType) -> dict:
    """The entries of the instance that the reader changes to make the check decline."""
    if module.statement.name in EDITS:
        return EDITS[module.statement.name]
    good, bad = module.instance().data, module.broken_instance().data
    return {key: bad[key] for key in bad if repr(good.get(key)) != repr(bad[key])}


def blocks(module: ModuleType) -> list[str]:
    """The three Python blocks of a chapter: approximate, conclude, make it fail."""
    name, samples = module.__name__.split(".")[-1], SAMPLES.get(module.statement.name, 50)
    data, good = edit(module), module.instance().data

    def literal(value) -> str:
        return f"{name}.{value.__name__}" if callable(value) else repr(value)

    entries = ", ".join(f'"{key}": {literal(value)}' for key, value in data.items())
    was = ", ".join(literal(good[key]) for key in data)
    approximate = [
        "import jax",
        "",
        'jax.config.update("jax_enable_x64", True)',
        "",
        f"from proofs_checks import {name}",
        "",
        f"problem = {name}.instance()",
        f"seen = {name}.check(problem, samples={samples})",
        'print(seen.detail.replace("; ", "\\n"))',
    ]
    conclude = [
        "assert seen.holds and all(seen.hypotheses.values())",
        "for hypothesis, holds in seen.hypotheses.items():",
        '    print(hypothesis, "holds" if holds else "fails")',
    ]
    fail = [
        "import dataclasses",
        "",
        f"# {', '.join(data)}: was {was}",
        f"edited = dataclasses.replace(problem, data=problem.data | {{{entries}}})",
        f"seen = {name}.check(edited, samples={samples})",
        "assert not seen.holds",
        'print("without", ", ".join(seen.failed))',
        'print(seen.detail.replace("; ", "\\n"))',
    ]
    return ["\n".join(lines) for lines in (approximate, conclude, fail)]


def outputs(module: ModuleType) -> list[str]:
    """What the blocks print, in one namespace."""
    names, printed = {}, []
    for block in blocks(module):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block, module.__name__, "exec"), names)
        printed.append(out.getvalue().rstrip())
    return printed


def shown(page: str) -> list[str]:
    """The outputs on a page that was written before."""
    return re.findall(r"^```text\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)


def _rigorous(module: ModuleType) -> list[str]:
    """What lies behind the sample: helpers that decide exactly, the kernel, Coq."""
    lines = []
    ways = re.search(r'"((?:symbolic|sampled|ball arithmetic)[^"]*)"', inspect.getsource(module.check))
    for way in ways[1].split(", ") if ways else []:
        lines.append(f"* *{way}*: {WAYS[way]}")
    helpers = [
        f for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module.__name__ and f.__doc__
    ]
    helpers += [f.__wrapped__ for f in vars(module).values() if hasattr(f, "__wrapped__") and f.__doc__]
    for helper in helpers:
        if helper.__name__ not in ("instance", "broken_instance", "check"):
            lines.append(f"* `{helper.__name__}`: {typeset(helper.__doc__.strip().splitlines()[0])}")
    for f in module.statement.formal:
        scope = f" ({f.scope})" if f.scope else ""
        lines.append(
            f"* *Coq*: `{f.theorem}` in `proofs_checks/formal/{f.file}`{scope}; see [formal proofs](../formal.md)"
        )
    if not module.statement.formal:
        lines.append("* *Coq*: no formal proof; [why](../formal.md)")
    return lines


def chapter(module: ModuleType, printed: list[str]) -> str:
    """The page of one theorem, in Markdown.

    Args:
      printed: what its blocks print (:func:`outputs`), or what a page shows (:func:`shown`).
    """
    s, name = module.statement, module.__name__.split(".")[-1]
    text = (module.__doc__ or "").strip()
    head, _, rest = text.partition("**Proof.**")
    statement = head.partition("**Statement.**")[2]
    proof, _, remarks = rest.partition("∎")
    approximate, conclude, fail = blocks(module)
    title = typeset(s.title)
    lines = [f"# {s.name}. {title[0].upper()}{title[1:]}", ""]
    lines += [
        f"Written from `proofs_checks/{name}.py` by `python -m proofs_checks --docs docs`.",
        "",
        "## Formulation",
        "",
    ]
    lines += ["\n\n".join(paragraphs(statement)), "", "| hypothesis | says |", "|---|---|"]
    lines += [f"| *{key}* | {cell(value)} |" for key, value in s.hypotheses.items()]
    lines += [
        "",
        f"**Claim.** {typeset(s.claim)}.",
        "",
        f"*Source*: {typeset(s.source)}.",
        "",
        "## Float approximation",
        "",
    ]
    lines += [typeset((module.instance.__doc__ or "").strip()), "", typeset((module.check.__doc__ or "").strip()), ""]
    lines += ["```python", approximate, "```", "", "```text", printed[0], "```", "", "## Rigorous bounds", ""]
    lines += [
        "**Proof.** " + "\n\n".join(paragraphs(proof)) + " ∎",
        "",
        "What stands behind the sample:",
        "",
        *_rigorous(module),
        "",
    ]
    lines += ["## Conclusion", "", "```python", conclude, "```", "", "```text", printed[1], "```", ""]
    if remarks.strip():
        lines += ["\n\n".join(paragraphs(remarks)), ""]
    lines += [
        "## Make it fail",
        "",
        f"{typeset((module.broken_instance.__doc__ or '').strip())} One edit is enough:",
        "",
    ]
    lines += ["```python", fail, "```", "", "```text", _untimed(printed[2]), "```"]
    return "\n".join(lines) + "\n"


def _untimed(text: str) -> str:
    """How far the kernel's search for a box without solutions came depends on the machine."""
    return re.sub(r"(the kernel)\b.*(?:pieces|time limit).*", r"\1…", text)


def contents(found: list[ModuleType]) -> str:
    """The page that lists the chapters."""
    lines = ["# The theory, a chapter a theorem", ""]
    lines += [
        "Every chapter has the shape of a proof by computer: formulation, float approximation, rigorous bounds, conclusion;"
    ]
    lines += [
        "and ends with one edit that makes the check decline. All of it comes from the modules of `proofs_checks`, and every"
    ]
    lines += [
        "block is run by the tests. The same on one page: [the theorems](../theorems.md).",
        "",
        "| chapter | says |",
        "|---|---|",
    ]
    for module in found:
        s, name = module.statement, module.__name__.split(".")[-1]
        lines.append(f"| [{s.name}]({name}.md) | {cell(s.title)} |")
    return "\n".join(lines) + "\n"
