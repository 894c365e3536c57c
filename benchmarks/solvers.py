"""``python benchmarks/solvers.py [--quick] [--parts FOLDER]``: evaluations that each solver needs to a true error of 1e-8.

Every solver gets the same problems (benchmarks/zoo.py), start, precision (float64) and evaluation budget, and runs with
tolerances 1e-7 to 1e-11 on its own residual rule; what counts is its cheapest run whose **true error** is at most 1e-8
(where a problem may have several solutions: a residual of at most 1e-10 at another one). So no solver wins or loses by
the meaning of its tolerance. A forward product counts 2 evaluations and a dense Jacobian 2d; ours are counted as made.

A second pass asks fpjax for an error of 1e-8 by its own rule and counts answers labelled CONVERGED whose true error
exceeds the error stated in the record. A third, on exact and learned-prior denoisers, gives fpjax and optimistix's
methods with a dense Jacobian the same tolerance, 1e-9, and counts relative errors above 1e-6.

Needs optimistix, jaxopt, scipy and torchdeq. Results are written to ``FOLDER/solvers.json`` as they come, and a run
that was interrupted goes on from there. The last class done, it fills docs/solvers.md (page.py) and draws
docs/figures/solvers.png, a performance profile (Dolan & Moré 2002).
"""

import argparse
import functools
import json
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import page
import zoo

from fpjax.evidence import Exit
from fpjax.solve import SOLVERS, solve

WANTED = 1e-8
LADDER = (1e-7, 1e-8, 1e-9, 1e-10, 1e-11)
LIMIT = 500


@functools.partial(jax.jit, static_argnames=("step", "solver"))
def ours(step, solver, y0, params, tol):
    s = jax.vmap(lambda y, p: solve(step, y, p, solver=solver, tol=tol, limit=LIMIT, stop="residual"))(y0, params)
    return s.y, s.evaluations


@functools.partial(jax.jit, static_argnames=("step", "solver"))
def of_optimistix(step, solver, y0, params, tol):
    import optimistix as optx

    kinds = {
        "FixedPointIteration": optx.FixedPointIteration,
        "Newton": optx.Newton,
        "LM": optx.LevenbergMarquardt,
        "Dogleg": optx.Dogleg,
    }

    def one(y, p):
        s = kinds[solver](rtol=tol, atol=tol, norm=optx.two_norm)
        if solver == "FixedPointIteration":
            out = optx.fixed_point(step, s, y, p, max_steps=LIMIT, throw=False)
            return out.value, out.stats["num_steps"]
        find = optx.root_find if solver == "Newton" else optx.least_squares
        out = find(lambda y, p: step(y, p) - y, s, y, p, max_steps=60, throw=False)
        return out.value, out.stats["num_steps"] * (1 + 2 * y.size)

    return jax.lax.map(lambda a: one(*a), (y0, params)) if solver in ("LM", "Dogleg") else jax.vmap(one)(y0, params)


@functools.partial(jax.jit, static_argnames=("step", "solver"))
def of_jaxopt(step, solver, y0, params, tol):
    import jaxopt

    def one(y, p):
        if solver == "Anderson":
            s = jaxopt.AndersonAcceleration(step, history_size=5, maxiter=LIMIT, tol=tol, implicit_diff=False, jit=True)
        else:
            s = jaxopt.FixedPointIteration(step, maxiter=LIMIT, tol=tol, implicit_diff=False, jit=True)
        out = s.run(y, p)
        return out.params, out.state.iter_num

    return jax.lax.map(lambda a: one(*a), (y0, params))  # one at a time: its linear solves are LAPACK calls


@functools.cache
def compiled(step):
    return jax.jit(step)


def of_scipy(step, solver, y0, params, tol):
    from scipy.optimize import root

    image = compiled(step)
    values, counts = [], []
    for i in range(y0.shape[0]):
        p, count = jax.tree.map(lambda a, i=i: a[i], params), [0]

        def f(v, p=p, count=count):
            count[0] += 1
            if count[0] > LIMIT:
                raise StopIteration
            return np.asarray(image(v, p)) - v

        options = {"ftol": tol, "fatol": tol, "maxiter": LIMIT}
        options.pop("ftol" if solver != "df-sane" else "maxiter")
        if solver == "df-sane":
            options |= {"maxfev": LIMIT, "ftol": 0.0}
        try:
            with np.errstate(all="ignore"):
                x = root(f, np.asarray(y0[i]), method=solver, options=options).x
        except (StopIteration, ValueError, FloatingPointError, ZeroDivisionError, np.linalg.LinAlgError):
            x = np.full(y0[i].shape, np.nan)
        values.append(np.asarray(x).reshape(y0[i].shape))
        counts.append(count[0])
    return np.stack(values), np.asarray(counts)


def of_torchdeq(step, solver, y0, params, tol):
    """torchdeq's solvers on a torch function that calls the compiled step; evaluations are counted there."""
    import torch
    from torchdeq.solver import get_solver

    image = compiled(step)
    values, counts = [], []
    for i in range(y0.shape[0]):
        p, count = jax.tree.map(lambda a, i=i: a[i], params), [0]
        shape = y0[i].shape

        def f(v, p=p, count=count, shape=shape):
            count[0] += 1
            return torch.from_numpy(np.array(image(v.numpy().reshape(shape), p))).reshape(1, -1)

        start = torch.from_numpy(np.array(y0[i])).reshape(1, -1)
        try:
            out = get_solver(solver)(f, start, max_iter=LIMIT, tol=tol, stop_mode="abs")[0]
            values.append(out.numpy().reshape(shape))
        except (RuntimeError, ValueError):  # its small linear systems may be singular
            values.append(np.full(shape, np.nan))
        counts.append(count[0])
    return np.stack(values), np.asarray(counts)


CONTENDERS = {
    "fpjax auto": (ours, "auto"),
    "picard": (ours, "picard"),
    "optimistix FixedPointIteration": (of_optimistix, "FixedPointIteration"),
    "optimistix Newton": (of_optimistix, "Newton"),
    "optimistix LevenbergMarquardt": (of_optimistix, "LM"),
    "optimistix Dogleg": (of_optimistix, "Dogleg"),
    "jaxopt FixedPointIteration": (of_jaxopt, "FixedPointIteration"),
    "jaxopt AndersonAcceleration": (of_jaxopt, "Anderson"),
    "scipy krylov": (of_scipy, "krylov"),
    "scipy anderson": (of_scipy, "anderson"),
    "scipy df-sane": (of_scipy, "df-sane"),
    "torchdeq fixed_point_iter": (of_torchdeq, "fixed_point_iter"),
    "torchdeq anderson": (of_torchdeq, "anderson"),
    "torchdeq broyden": (of_torchdeq, "broyden"),
}


def right(family, y) -> np.ndarray:
    """Whether each answer is the known solution, or, where there may be others, a solution."""
    y = np.asarray(y)
    good = np.linalg.norm((y - np.asarray(family.truth)).reshape(family.n, -1), axis=1) <= WANTED
    if not family.unique:
        image = jax.jit(jax.vmap(family.step))(jnp.asarray(y), family.params)
        good |= np.linalg.norm((np.asarray(image) - y).reshape(family.n, -1), axis=1) <= 1e-10
    return good


def cheapest(family, run, solver) -> np.ndarray:
    """Evaluations of the cheapest right run on each problem, infinite where there is none."""
    best = np.full(family.n, np.inf)
    for tol in LADDER:
        y, count = run(family.step, solver, family.y0, family.params, tol)
        best = np.where(right(family, y), np.minimum(best, np.asarray(count)), best)
    return best


@functools.partial(jax.jit, static_argnames=("step", "solver"))
def by_own_rule(step, solver, y0, params, modulus, tol):
    return jax.vmap(lambda y, p, m: solve(step, y, p, solver=solver, tol=tol, limit=LIMIT, modulus=m))(
        y0, params, modulus
    )


def at_own_rule(family, solver: str, tol: float):
    """Solutions by fpjax's own rule, with T2's modulus where it is known."""
    modulus = family.params.rho if family.bounded_below else jnp.zeros(family.n)
    return by_own_rule(family.step, solver, family.y0, family.params, modulus, tol)


def labels(family, solver: str = "auto") -> dict[str, int]:
    """Of answers labelled CONVERGED at a stated error of 1e-8: how many exceed it, and how many are wrong.

    Where an answer lies at another solution than the known one, that solution is refined from it to rounding.
    """
    s = at_own_rule(family, solver, WANTED)
    near = ours(family.step, "newton_krylov", s.y, family.params, 1e-14)[0]

    def distance(truth):
        return np.linalg.norm(np.asarray(s.y - truth).reshape(family.n, -1), axis=1)

    size = np.linalg.norm(np.asarray(family.truth).reshape(family.n, -1), axis=1)
    done = np.asarray(s.exit) == Exit.CONVERGED
    other = (distance(family.truth) > 1e-3) & (not family.unique)
    error = np.where(other, distance(near), distance(family.truth))
    # The known solution is itself only known to rounding.
    over = done & (error > np.asarray(s.error) + 1e-13 * size)
    return {
        "converged": int(done.sum()),
        "to_precision": int((np.asarray(s.exit) == Exit.CONVERGED_TO_PRECISION).sum()),
        "other_solution": int((done & other).sum()),
        "over": int(over.sum()),
        "wrong": int((done & (error > 1e-6 * size)).sum()),
        "evaluations": int(np.asarray(s.evaluations).sum()),
    }


def profile(costs: dict[str, np.ndarray], path: Path) -> None:
    """The share of problems solved within a factor of the cheapest solver of each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    best = np.min(np.stack(list(costs.values())), axis=0)
    solvable = np.isfinite(best)
    factors = np.geomspace(1, 100, 400)
    figure, axes = plt.subplots(figsize=(8, 5))
    for name, cost in costs.items():
        ratio = cost[solvable] / best[solvable]
        axes.step(factors, [(ratio <= f).mean() for f in factors], label=name, lw=2.5 if "fpjax" in name else 1.2)
    axes.set(xscale="log", xlabel="evaluations over the fewest of all", ylabel="share of problems", ylim=(0, 1.02))
    axes.legend(fontsize=7, loc="lower right")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


def summary(costs: dict[str, np.ndarray]) -> dict[str, float]:
    """The figures of issue "solvers", lines 0 and 1."""
    mine = costs["fpjax auto"]
    peers = np.min(np.stack([c for n, c in costs.items() if n != "fpjax auto"]), axis=0)  # picard: everybody has it
    best = np.minimum(mine, peers)
    solvable, picard = np.isfinite(best), np.isfinite(costs["picard"])
    return {
        "problems": len(mine),
        "solved_by_any": int(solvable.sum()),
        "solved": int(np.isfinite(mine).sum()),
        "peer_solved_and_auto_not": int((np.isfinite(peers) & ~np.isfinite(mine)).sum()),
        "lowest_or_within_10_percent": float((mine[solvable] <= 1.1 * best[solvable]).mean()),
        "median_ratio_to_picard": float(np.median((mine / costs["picard"])[picard])),
    }


def price_of_jacobians(family) -> dict:
    """Line 0: wrong answers (relative error above 1e-6) at tolerance 1e-9, and evaluations over those of dense Jacobians."""
    size = np.linalg.norm(np.asarray(family.truth).reshape(family.n, -1), axis=1)

    def wrong(y):
        error = np.linalg.norm((np.asarray(y) - np.asarray(family.truth)).reshape(family.n, -1), axis=1)
        return ~(error <= 1e-6 * size)

    s = at_own_rule(family, "auto", 1e-9)
    bad = wrong(s.y)
    said = np.isin(np.asarray(s.exit), [Exit.CONVERGED, Exit.CONVERGED_TO_PRECISION])
    row = {"problems": family.n, "wrong": int(bad.sum()), "wrong and labelled solved": int((bad & said).sum())}
    for peer in ("Dogleg", "LM"):
        y, count = of_optimistix(family.step, peer, family.y0, family.params, 1e-9)
        row[f"{peer} wrong"] = int(wrong(y).sum())
        row[f"share of {peer}"] = float(np.asarray(s.evaluations).sum() / np.asarray(count).sum())
    return row


def further_seeds(seeds) -> dict[str, int]:
    """The own-rule count over more random maps: nothing may be over."""
    total: dict[str, int] = {}
    for seed in seeds:
        for family in zoo.random_maps(seed):
            for key, value in labels(family).items():
                total[key] = total.get(key, 0) + value
    return total


def measure(family, part: dict, save) -> None:
    """Fills ``part`` with all of one class; what is there is not measured again."""
    part.setdefault("evaluations", {})
    for name, contender in CONTENDERS.items():
        if name not in part["evaluations"]:
            cost = cheapest(family, *contender)
            part["evaluations"][name] = [None if np.isinf(v) else int(v) for v in cost]
            save()
    if "own_rule" not in part:
        part["own_rule"] = labels(family)
        save()
    if "line_0" not in part and family.name.startswith(("learned prior", "exact")):
        part["line_0"] = price_of_jacobians(family)
        save()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a third of the problems; the page is left alone")
    parser.add_argument("--parts", type=Path, default=Path("docs/figures/out"), help="where results are kept")
    parser.add_argument("--seeds", type=int, default=0, help="further seeds of random maps for the own-rule count")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")  # scipy's, about its own singular systems
    options.parts.mkdir(parents=True, exist_ok=True)
    kept = options.parts / ("quick.json" if options.quick else "solvers.json")
    classes = json.loads(kept.read_text())["classes"] if kept.exists() else {}

    def save() -> None:
        kept.with_suffix(".new").write_text(json.dumps({"classes": classes}))
        kept.with_suffix(".new").replace(kept)

    for family in zoo.families(options.quick):
        measure(family, classes.setdefault(family.name, {}), save)
        print(family.name, classes[family.name]["own_rule"], flush=True)
    costs = {name: np.concatenate([_costs(c["evaluations"][name]) for c in classes.values()]) for name in CONTENDERS}
    own = [c["own_rule"] for c in classes.values()]
    out = {
        "classes": classes,
        "summary": summary(costs),
        "own_rule": {key: sum(t[key] for t in own) for key in own[0]},
        "line_0": {name: c["line_0"] for name, c in classes.items() if "line_0" in c},
        "further_seeds": further_seeds(range(1, options.seeds + 1)),
    }
    print(json.dumps({k: v for k, v in out.items() if k != "classes"}, indent=1))
    kept.write_text(json.dumps(out))
    if not options.quick:
        (options.parts / "solvers.md").write_text(table(classes))
        profile(costs, page.PAGE.parent / "figures" / "solvers.png")
        page.write(page.parts(options.parts))


def _costs(counts) -> np.ndarray:
    return np.asarray([np.inf if v is None else v for v in counts], float)


def table(classes: dict[str, dict]) -> str:
    """Markdown: for each class the median evaluations to a true error of 1e-8 and, in brackets, the problems missed."""
    lines = ["| class | " + " | ".join(CONTENDERS) + " |", "|" + "---|" * (len(CONTENDERS) + 1)]
    for name, part in classes.items():
        cells = []
        for counts in part["evaluations"].values():
            good = [v for v in counts if v is not None]
            missed = len(counts) - len(good)
            middle = f"{np.median(good):.0f}" if good else "–"
            cells.append(f"{middle} ({missed})" if missed else middle)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    assert set(SOLVERS) >= {"auto", "picard"}
    main()
