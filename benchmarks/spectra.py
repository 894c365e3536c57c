"""Largest singular value of the Jacobian at 64 points of a 28×28 network: fpjax against scipy, matfree, lobpcg, power.

    python benchmarks/spectra.py [--points 64] [--rounds 9] [--torch] [--cores 1] \\
        | python benchmarks/page.py docs/lipschitz.md cores-1      # or cores-2

Everyone gets the same jvp and vjp, compiled and warm, in float64, and the loosest setting of its own that reaches relative
error 1e-6 against a dense SVD at every point. Runs are interleaved, and the ratios are of medians. All run on one core
unless --cores says otherwise: on two, times of 30 ms depend on where the scheduler puts XLA's second thread, and the same
run takes 0.6 or 1.0 of its time on one core. Products count J v and J^T u, one each.
"""

import argparse
import functools
import os
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--points", type=int, default=64)
parser.add_argument("--rounds", type=int, default=9)
parser.add_argument("--torch", action="store_true")
parser.add_argument("--cores", type=int, default=1)
options = parser.parse_args()
if hasattr(os, "sched_setaffinity"):  # before any library counts the cores
    os.sched_setaffinity(0, set(range(options.cores)))

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg as sla

from fpjax.jacobian import linear, spectral_norm

SIDE, WIDTH, ACCURACY = 28, 256, 1e-6
ROOM = 32  # Lanczos vectors that fpjax makes room for; matfree is given exactly as many as it needs
D = SIDE * SIDE


def network(y, params):
    """A residual denoiser of 28×28 points: y + W2 silu(W1 y), W3 silu(...)."""
    first, second, third = params
    h = jax.nn.silu(first @ y)
    return y + third @ jax.nn.silu(h + second @ h)


def weights(key):
    keys = jax.random.split(key, 3)
    shapes = ((WIDTH, D), (WIDTH, WIDTH), (D, WIDTH))
    return tuple(2 * jax.random.normal(k, s) / s[1] ** 0.5 for k, s in zip(keys, shapes, strict=True))


@functools.partial(jax.jit, static_argnames=("tol",))
def ours(points, params, key, tol):
    def one(y, k):
        forward, transpose = linear(lambda v: network(v, params), y)
        norm = spectral_norm(forward, transpose, D, k, tol=tol, steps=ROOM)
        return norm.value, norm.products

    return jax.vmap(one)(points, jax.random.split(key, points.shape[0]))


@jax.jit
def jvp(y, v, params):
    return jax.jvp(lambda x: network(x, params), (y,), (v,))[1]


@jax.jit
def vjp(y, u, params):
    return jax.vjp(lambda x: network(x, params), y)[1](u)[0]


def scipy_loop(points, params, solver: str, tol: float):
    values, count = [], [0]
    for i, y in enumerate(points):

        def forward(v, y=y):
            count[0] += 1
            return np.asarray(jvp(y, jnp.asarray(v.reshape(-1)), params))

        def transpose(u, y=y):
            count[0] += 1
            return np.asarray(vjp(y, jnp.asarray(u.reshape(-1)), params))

        start = np.random.default_rng(i).normal(size=D)
        if solver == "svds":
            op = sla.LinearOperator((D, D), matvec=forward, rmatvec=transpose, dtype=np.float64)
            values.append(sla.svds(op, k=1, tol=tol, v0=start, return_singular_vectors=False)[0])
        else:
            op = sla.LinearOperator((D, D), matvec=lambda v: transpose(forward(v)), dtype=np.float64)
            values.append(np.sqrt(sla.eigsh(op, k=1, tol=tol, v0=start, return_eigenvectors=False)[0]))
    return np.asarray(values), count[0] / len(points)


@functools.partial(jax.jit, static_argnames=("depth",))
def matfree_bidiagonals(points, params, key, depth):
    from matfree import decomp

    factorise = decomp.bidiag(depth)

    def one(y, k):
        start = jax.random.normal(k, (D,))
        return factorise(lambda v, *_: linear(lambda x: network(x, params), y)[0](v), start / jnp.linalg.norm(start))

    out = jax.vmap(one)(points, jax.random.split(key, points.shape[0]))
    return out.J_small


def matfree_run(points, params, key, depth):
    small = np.asarray(matfree_bidiagonals(points, params, key, depth))  # the small SVD is on the host, batched
    return np.linalg.svd(small, compute_uv=False)[:, 0], 2 * depth


@functools.partial(jax.jit, static_argnames=("steps",))
def lobpcg(points, params, key, steps):
    from jax.experimental.sparse.linalg import lobpcg_standard

    def one(pair):
        y, k = pair
        forward, transpose = linear(lambda v: network(v, params), y)
        gram = jax.vmap(lambda v: transpose(forward(v)), in_axes=1, out_axes=1)
        return jnp.sqrt(lobpcg_standard(gram, jax.random.normal(k, (D, 1)), m=steps, tol=1e-14)[0][0])

    # One point at a time: its LAPACK calls inside a batched loop can hang on CPU.
    return jax.lax.map(one, (points, jax.random.split(key, points.shape[0])))


@functools.partial(jax.jit, static_argnames=("steps",))
def power(points, params, key, steps):
    def one(y, k):
        forward, transpose = linear(lambda v: network(v, params), y)

        def step(v, _):
            w = forward(v)
            v = transpose(w)
            return v / jnp.linalg.norm(v), jnp.linalg.norm(w)

        v = jax.random.normal(k, (D,))
        return jax.lax.scan(step, v / jnp.linalg.norm(v), None, length=steps)[1]

    return jax.vmap(one)(points, jax.random.split(key, points.shape[0]))


def torch_power(points, params, steps):
    """A power-iteration loop in torch on jvp and vjp, all points in one batch."""
    import torch

    first, second, third = (torch.from_numpy(np.array(w)) for w in params)

    def net(y):
        h = torch.nn.functional.silu(y @ first.T)
        return y + torch.nn.functional.silu(h + h @ second.T) @ third.T

    y = torch.from_numpy(np.array(points))
    v = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(0))
    pull = torch.func.vjp(net, y)[1]
    size = None
    for _ in range(steps):
        v = v / v.norm(dim=1, keepdim=True)
        w = torch.func.jvp(net, (y,), (v,))[1]
        size = w.norm(dim=1)
        v = pull(w)[0]
    return size.numpy()


def error(values, truth):
    return float(np.max(np.abs(np.asarray(values) / truth - 1)))


def loosest(settings, run, truth):
    """The first setting, from loose to tight, whose values reach ACCURACY at every point."""
    for setting in settings:
        if error(run(setting), truth) <= ACCURACY:
            return setting
    raise SystemExit("a competitor never reached the accuracy; widen its settings")


def settle(points, params, key, truth, with_torch: bool):
    """name -> (run, products a point), each at its loosest setting."""
    tols = (1e-3, 8e-4, 6e-4, 4e-4, 3e-4, 2e-4, 1e-4, 1e-5)
    chosen = {}
    tol = loosest(tols, lambda t: ours(points, params, key, t)[0], truth)
    used = np.asarray(ours(points, params, key, tol)[1])
    chosen["fpjax"] = (lambda: ours(points, params, key, tol)[0], float(used.mean()), f"tol {tol:g}")
    for solver in ("svds", "eigsh"):
        print("settling", solver, file=sys.stderr)
        t = loosest(tols, lambda t, s=solver: scipy_loop(points, params, s, t)[0], truth)
        count = scipy_loop(points, params, solver, t)[1]
        run = functools.partial(scipy_loop, points, params, solver, t)
        chosen[f"scipy {solver}"] = (lambda run=run: run()[0], count, f"tol {t:g}")
    deep = np.asarray(
        matfree_bidiagonals(points, params, key, 96)
    )  # leading blocks are what a smaller depth would give
    nested = {k: np.linalg.svd(deep[:, :k, :k], compute_uv=False)[:, 0] for k in range(8, 97)}
    depth = loosest(nested, nested.__getitem__, truth)
    chosen["matfree"] = (lambda: matfree_run(points, params, key, depth)[0], 2 * depth, f"depth {depth}")
    few = loosest((16, 32, 64, 128), lambda k: lobpcg(points, params, key, k), truth)
    chosen["lobpcg_standard"] = (lambda: lobpcg(points, params, key, few), 4 * few, f"{few} iterations")  # A x and A r
    history = np.asarray(power(points, params, key, 600))
    reached = np.abs(history / truth[:, None] - 1) <= ACCURACY
    first = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, 600)
    most = int(first.max())
    chosen["power iteration"] = (
        lambda: power(points, params, key, most)[:, -1],
        2 * float(first.mean()),
        f"{most} steps",
    )
    if with_torch:
        chosen["torch power"] = (lambda: torch_power(points, params, most), 2 * float(first.mean()), f"{most} steps")
    return chosen


def main() -> int:
    params = weights(jax.random.key(0))
    points = jax.random.normal(jax.random.key(1), (options.points, D))
    dense = jax.jit(jax.vmap(lambda y: jax.jacfwd(network)(y, params)))(points)
    truth = np.linalg.norm(np.asarray(dense), 2, axis=(1, 2))
    chosen = settle(points, params, jax.random.key(2), truth, options.torch)
    seconds = {name: [] for name in chosen}
    errors = {}
    for _ in range(options.rounds):
        for name, (run, _, _) in chosen.items():
            jax.block_until_ready(
                run()
            )  # another library's threads, still spinning after its turn, come to rest meanwhile
            start = time.perf_counter()
            values = jax.block_until_ready(run())
            seconds[name].append(time.perf_counter() - start)
            errors[name] = error(values, truth)
    base = np.median(seconds["fpjax"])
    print(f"| {options.points} points, d = {D}, cores: {options.cores} | time | products | setting | relative error |")
    print("|---|---|---|---|---|")
    for name, (_, count, setting) in chosen.items():
        ratio = np.median(seconds[name]) / base
        print(f"| {name} | {ratio:.2f}× | {count:.1f} | {setting} | {errors[name]:.1e} |")
    print(f"\n1× is {1e3 * base:.1f} ms here.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
