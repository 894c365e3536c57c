"""``python -m proofs_checks [NAME ...] [--claims] [--samples N] [--seed S] [--json | --html | --docs FOLDER]``.

One row a theorem; exit code 1 if one fails. A theorem passes when its instance holds, and its broken instance violates
exactly the hypothesis it names and does not hold. With ``--claims``, one row a claim and model instead: what became of
statements of the paper and of others; whether they hold is a finding, not an error.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax

from proofs_checks import chapters, modules, page


def how(outcome, statement) -> str:
    """How a theorem was checked: the methods of its check, how many points, and whether Coq has a proof."""
    parts = [f"sampled ({outcome.samples})" if part == "sampled" else part for part in outcome.how.split(", ")]
    if statement.formal:
        scopes = {f.scope for f in statement.formal}
        parts.append("formal (Coq)" if "" in scopes else f"formal (Coq, {', '.join(sorted(scopes))})")
    return ", ".join(parts)


def problems(module, good, broken, bad) -> list[str]:
    """What is wrong with the outcomes on an instance and on a broken instance; empty if the theorem passes."""
    names, found = set(module.statement.hypotheses), []
    if not good.holds:
        found.append(f"fails on its instance ({', '.join(good.failed)}): {good.detail}")
    if bad.holds:
        found.append("holds on its broken instance")
    for outcome, kind in ((good, "instance"), (bad, "broken instance")):
        if set(outcome.hypotheses) != names:
            found.append(f"the check of its {kind} does not evaluate every hypothesis, and no other")
    violated = [name for name, value in bad.hypotheses.items() if not value]
    if violated != [broken.violates]:
        found.append(f"the broken instance violates {', '.join(violated) or 'nothing'}, not {broken.violates} alone")
    return found


def run(module, samples: int, seed: int) -> dict:
    """Checks one theorem on its instance and on its broken instance, and returns the row."""
    start = time.perf_counter()
    good = module.check(module.instance(), samples=samples, seed=seed)
    broken = module.broken_instance()
    bad = module.check(broken, samples=samples, seed=seed)
    reasons = problems(module, good, broken, bad)
    return {
        "name": module.statement.name,
        "title": module.statement.title,
        "hypotheses": module.statement.hypotheses,
        "claim": module.statement.claim,
        "source": module.statement.source,
        "how": how(good, module.statement),
        "samples": good.samples,
        "formal": [f"{f.file}: {f.theorem}" for f in module.statement.formal],
        "verdict": "holds" if not reasons else "FAILS",
        "detail": "; ".join(reasons) or good.detail,
        "broken": f"without {broken.violates}: {bad.detail}",
        "seconds": round(time.perf_counter() - start, 2),
    }


def run_claim(module, samples: int, seed: int) -> dict:
    """Measures one claim on every model, and looks at its smallest counterexample (or example)."""
    start, statement = time.perf_counter(), module.statement
    small = module.instance() if statement.exists else module.broken_instance()
    rows = module.rows(min(max(samples // 10, 2), 100), seed)
    return {
        "name": statement.name,
        "who": statement.who,
        "text": statement.text,
        "terms": statement.terms,
        "reason": statement.reason,
        "small": None if small is None else {"problem": small.data, "detail": module.check(small).detail},
        "exists": statement.exists,
        "rows": [{"model": r.model, "verdict": r.verdict, "detail": r.detail, "figures": r.figures} for r in rows],
        "seconds": round(time.perf_counter() - start, 2),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m proofs_checks", description="Check the theorems numerically.")
    p.add_argument("names", nargs="*", metavar="NAME", help="theorems to check, for example T2; all if left out")
    p.add_argument("--claims", action="store_true", help="what becomes of the paper's and of others' claims")
    sampled = "random points for each sampled check (200); a claim looks at a tenth as many images"
    p.add_argument("--samples", type=int, default=200, help=sampled)
    p.add_argument("--seed", type=int, default=0)
    shape = p.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print the rows as JSON")
    shape.add_argument("--html", action="store_true", help="print the rows as a page")
    shape.add_argument("--docs", type=Path, metavar="FOLDER", help="write theorems.md, theory/*.md and claims.md")
    return p


def chosen(options) -> tuple[list, str | None]:
    """The modules asked for, and a sentence if one of the names is unknown."""
    if options.claims:
        from proofs_checks import claims

        known = {module.__name__.split(".")[-1].upper(): module for module in claims.modules()}
    else:
        known = {module.statement.name: module for module in modules()}
    unknown = [name for name in options.names if name.upper() not in known]
    if unknown:
        return [], f"unknown name {unknown[0]!r}; choose from {', '.join(known)}"
    return [known[name.upper()] for name in options.names] or list(known.values()), None


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    if options.samples < 1:
        print("--samples must be at least 1", file=sys.stderr)
        return 2
    jax.config.update("jax_enable_x64", True)
    if options.docs is not None:
        return write_docs(options)
    picked, error = chosen(options)
    if error:
        print(error, file=sys.stderr)
        return 2
    one, lines = (run_claim, page.claim_lines) if options.claims else (run, page.theorem_lines)
    rows = []
    for module in picked:
        rows.append(one(module, options.samples, options.seed))
        if not (options.json or options.html):
            print("\n".join(lines(rows[-1])), flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))
    if options.html:
        print(page.html(page.claims(rows) if options.claims else page.theorems(rows, picked)))
    return 0 if options.claims or all(row["verdict"] == "holds" for row in rows) else 1


def write_docs(options) -> int:
    """Writes both pages; returns 1 if a theorem fails."""
    from proofs_checks import claims

    rows = [run(module, options.samples, options.seed) for module in modules()]
    options.docs.mkdir(parents=True, exist_ok=True)
    (options.docs / "theorems.md").write_text(page.theorems(rows, modules()), encoding="utf-8")
    write_chapters(options.docs / "theory", modules())
    found = [run_claim(module, options.samples, options.seed) for module in claims.modules()]
    (options.docs / "claims.md").write_text(page.claims(found), encoding="utf-8")
    return 0 if all(row["verdict"] == "holds" for row in rows) else 1


def write_chapters(folder: Path, picked: list) -> None:
    """Runs and writes the chapters of these theorems, and the list of all."""
    folder.mkdir(parents=True, exist_ok=True)
    for module in picked:
        path = folder / f"{module.__name__.split('.')[-1]}.md"
        path.write_text(chapters.chapter(module, chapters.outputs(module)), encoding="utf-8")
    (folder / "index.md").write_text(chapters.contents(modules()), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
