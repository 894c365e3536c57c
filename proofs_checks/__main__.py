"""``python -m proofs_checks [NAME ...] [--samples N] [--seed S] [--json]``: one row a theorem; exit code 1 if one fails.

A theorem passes when its instance holds, its broken instance does not, and the broken instance fails in exactly the
hypothesis it names.
"""

import argparse
import json
import sys
import time

import jax

from proofs_checks import modules


def run(module, samples: int, seed: int) -> dict:
    """Checks one theorem on its instance and on its broken instance, and returns the row."""
    start = time.perf_counter()
    good = module.check(module.instance(), samples=samples, seed=seed)
    broken = module.broken_instance()
    bad = module.check(broken, samples=samples, seed=seed)
    reasons = []
    if not good.holds:
        reasons.append(f"fails on its instance: {good.detail}")
    if bad.holds:
        reasons.append("holds on its broken instance")
    if broken.violates not in bad.failed:
        reasons.append(f"the broken instance was not caught violating {broken.violates}")
    if set(bad.failed) - {broken.violates, "claim"}:
        reasons.append(f"the broken instance violates more than {broken.violates}: {', '.join(bad.failed)}")
    return {
        "name": module.statement.name,
        "title": module.statement.title,
        "hypotheses": module.statement.hypotheses,
        "claim": module.statement.claim,
        "how": good.how,
        "samples": good.samples,
        "formal": [f"{f.file}: {f.theorem}" for f in module.statement.formal],
        "verdict": "holds" if not reasons else "FAILS",
        "detail": "; ".join(reasons) or good.detail,
        "seconds": round(time.perf_counter() - start, 2),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m proofs_checks", description="Check the theorems numerically.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="theorems to check, for example T2; all if left out")
    parser.add_argument("--samples", type=int, default=200, help="random points for each sampled check (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    options = parser.parse_args(argv)
    if options.samples < 1:
        print("--samples must be at least 1", file=sys.stderr)
        return 2
    jax.config.update("jax_enable_x64", True)
    known = {module.statement.name: module for module in modules()}
    unknown = [name for name in options.names if name.upper() not in known]
    if unknown:
        print(f"unknown theorem {unknown[0]!r}; choose from {', '.join(known)}", file=sys.stderr)
        return 2
    rows = []
    for name in [n.upper() for n in options.names] or list(known):
        rows.append(run(known[name], options.samples, options.seed))
        if not options.json:
            row = rows[-1]
            print(f"{row['name']:<4} {row['verdict']:<6} {row['seconds']:>6.1f} s  {row['how']:<22} {row['title']}")
            print(f"     {row['detail']}")
    if options.json:
        print(json.dumps(rows, indent=1))
    return 0 if all(row["verdict"] == "holds" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
