"""``python benchmarks/walls.py [--out DIR]``: wall time to a true error of 1e-8, fpjax against the best of each library.

For each class of benchmarks/zoo.py, its problems are solved one after the other inside one compiled loop (``lax.map``),
warm, each solver at the loosest tolerance of the ladder at which it is right on every problem that it solves at all. A
pair of solvers is timed on the problems that both solve, interleaved, and the least of five times counts. A ratio above 1
means that fpjax is faster. Writes ``walls.json`` and the table ``walls.md``.
"""

import argparse
import functools
import json
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import solvers
import zoo

from fpjax.solve import solve

LIBRARIES = {
    "optimistix": ["FixedPointIteration", "Newton", "Dogleg"],
    "jaxopt": ["FixedPointIteration", "Anderson"],
}


@functools.partial(jax.jit, static_argnames=("step", "solver"))
def ours(step, solver, y0, params, tol):
    def one(a):
        s = solve(step, *a, solver=solver, tol=tol, limit=solvers.LIMIT, stop="residual")
        return s.y, s.evaluations

    return jax.lax.map(one, (y0, params))


@functools.partial(jax.jit, static_argnames=("step", "solver"))
def of_optimistix(step, solver, y0, params, tol):
    def one(a):
        y0, params = jax.tree.map(lambda v: v[None], a)
        return jax.tree.map(lambda v: v[0], solvers.of_optimistix(step, solver, y0, params, tol))

    return jax.lax.map(one, (y0, params))


LADDER = solvers.LADDER
RUNS = {"fpjax": ours, "optimistix": of_optimistix, "jaxopt": solvers.of_jaxopt}


def loosest(family, run, solver) -> tuple[float, np.ndarray]:
    """The loosest tolerance that loses no problem which another solves, and which problems are right there."""
    found = [(tol, solvers.right(family, run(family.step, solver, family.y0, family.params, tol)[0])) for tol in LADDER]
    most = max(good.sum() for _, good in found)
    return next((tol, good) for tol, good in found if good.sum() == most)


def seconds(call) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def ratio(family, mine, run, solver) -> float:
    """Its wall time over ours, NaN where no problem is solved by both."""
    tol, good = loosest(family, run, solver)
    both = np.flatnonzero(good & mine[1])
    if len(both) == 0:
        return float("nan")
    y0, params = jax.tree.map(lambda a: a[both], (family.y0, family.params))
    calls = [
        functools.partial(ours, family.step, "auto", y0, params, mine[0]),
        functools.partial(run, family.step, solver, y0, params, tol),
    ]
    for call in calls:
        jax.block_until_ready(call())
    times = np.array([[seconds(call) for call in calls] for _ in range(5)])
    return float(times[:, 1].min() / times[:, 0].min())


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: for each class the ratio to the fastest solver of each library."""
    lines = ["| class | " + " | ".join(LIBRARIES) + " |", "|" + "---|" * (len(LIBRARIES) + 1)]
    for name, row in rows.items():
        cells = []
        for library, kinds in LIBRARIES.items():
            known = {k: row[f"{library} {k}"] for k in kinds if np.isfinite(row[f"{library} {k}"])}
            best = min(known, key=lambda k: known[k]) if known else None
            cells.append(f"{known[best]:.2f} ({best})" if best else "solves none")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/figures"))
    parser.add_argument("--only", default="", help="classes whose name has this word")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = {}
    options.out.mkdir(parents=True, exist_ok=True)
    for family in zoo.families(quick=True):
        if options.only in family.name:
            mine = loosest(family, ours, "auto")
            rows[family.name] = {
                f"{library} {kind}": ratio(family, mine, RUNS[library], kind)
                for library, kinds in LIBRARIES.items()
                for kind in kinds
            }
            print(family.name, {k: round(v, 2) for k, v in rows[family.name].items()}, flush=True)
            (options.out / "walls.json").write_text(json.dumps(rows))
            (options.out / "walls.md").write_text(table(rows))


if __name__ == "__main__":
    main()
