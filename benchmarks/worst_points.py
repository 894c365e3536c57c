"""The search for the worst point against ten times as many random samples, on every embedded network.

    python benchmarks/worst_points.py [--regions 4] [--iterations 40] [--json FILE] \\
        | python benchmarks/page.py docs/lipschitz.md worst-points

kappa = (1 - rho)·||I - J|| over the shell where clean digits plus noise lie. A sample's norm is computed from the dense
Jacobian by LAPACK, so that samples are at no disadvantage. Every point found is confirmed by a pair of points whose ratio
is evaluated in float64.
"""

import argparse
import functools
import json
import sys
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np

import fpjax
from fpjax import regions, worst
from fpjax.step import Step, denoised

SIGMAS, WEIGHTS, RHO, BATCH = (0.1, 1.0), (1.0, 3.0), 0.7, 100


@functools.partial(jax.jit, static_argnames=("count",))
def jacobians(step: Step, shells, key, count: int):
    def one(condition, shell, k):
        p = step._replace(condition=condition)
        y = shell.sample(k)
        return jax.jacfwd(lambda v: denoised(v, p))(y).reshape(y.size, y.size)

    keys = jax.random.split(key, (step.condition.shape[0], count))
    return jax.vmap(lambda c, r, ks: jax.vmap(lambda k: one(c, r, k))(ks))(step.condition, shells, keys)


def sampled(step: Step, shells, total: int) -> float:
    """The largest kappa among ``total`` random points (rounded up to whole batches)."""
    n = int(step.condition.shape[0])
    largest = 0.0
    for i in range(-(-total // (n * BATCH))):
        dense = np.asarray(jacobians(step, shells, jax.random.key(1000 + i), BATCH))
        eye = np.eye(dense.shape[-1])
        largest = max(largest, (1 - RHO) * float(np.linalg.norm(eye - dense, 2, axis=(2, 3)).max()))
    return largest


def row(den, sigma: float, weight: float, count: int, iterations: int) -> dict:
    """One line of the table."""
    x, c = fpjax.samples("digits", n=count)
    guidance = None if weight == 1 else jnp.asarray(weight)
    target = jnp.zeros(den.shape)
    condition = jnp.asarray(c) if den.conditions else jnp.zeros(count, jnp.int32)
    step = Step(den, jnp.asarray(sigma), jnp.asarray(RHO), target, condition, guidance)
    shells = regions.Shell(jnp.asarray(x, jnp.float64), jnp.full(count, sigma), jnp.full(count, 2.0))
    found = worst.search(step, shells, jax.random.key(0), iterations=iterations)
    pairs = worst.confirm(step, shells, found)
    return {
        "model": den.name,
        "sigma": sigma,
        "guidance": weight,
        "points_searched": found.evaluations,
        "searched": float(found.value.max()),
        "points_sampled": 10 * found.evaluations,
        "sampled": sampled(step, shells, 10 * found.evaluations),
        "confirmed": sum(pair.confirms for pair in pairs),
        "pairs": len(pairs),
        "largest_ratio": max(pair.ratio for pair in pairs),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regions", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(
        "| model | sigma | w | search: points, largest kappa | sampling: points, largest kappa | confirmed in float64 |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    for name in fpjax.models.names() if hasattr(fpjax.models, "names") else ("digits-monotone", "digits-plain"):
        den = fpjax.load(name).astype(jnp.float64)
        for weight in WEIGHTS if den.conditions else (1.0,):
            for sigma in SIGMAS:
                r = row(den, sigma, weight, options.regions, options.iterations)
                rows.append(r)
                print(
                    f"| {name} | {sigma:g} | {weight:g} | {r['points_searched']}, {r['searched']:.4g} | "
                    f"{r['points_sampled']}, {r['sampled']:.4g} | {r['confirmed']} of {r['pairs']} |",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    won = sum(r["searched"] > r["sampled"] for r in rows)
    print(
        f"\nThe search found more in {won} of {len(rows)} rows, {sum(r['confirmed'] < r['pairs'] for r in rows)} contradicted."
    )
    return 0 if won == len(rows) and all(r["confirmed"] == r["pairs"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
