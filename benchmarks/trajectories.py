"""``python benchmarks/trajectories.py [PART…]``: whole trajectories, each figure from one run.

overhead: wall time over (batched calls × time of the bare jitted network), the two interleaved. layouts: batched calls of
the lane-asynchronous loop against the scan on a batch of mixed difficulty, and points computed with compaction. parallel:
calls in a row and wall time of all steps at once against one after the other. compile: compile time and memory at 1000
steps against 10. eager: wall time against the same network in an eager PyTorch loop (needs torch). grids:
network evaluations on adapted grids (T12) against grids uniform in t, at the same tolerance, ends and images.
"""

import functools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import fpjax
from fpjax import adapting, lanes, process, trajectory
from fpjax.denoiser import Denoiser, evaluate
from fpjax.solve import make_goal


def convolutional(width: int = 56, seed: int = 0) -> Denoiser:
    """An untrained residual convolutional network on 28×28 images, over 100k parameters; eps = 0.2·network.

    Channels last, as in flax: on CPU, XLA (of jax 0.10.2) has its fast convolutions for channels first outside of loops
    only, and inside a while_loop such a network is fifty times slower.
    """
    rng = np.random.default_rng(seed)
    sizes = [(1, width), *[(width, width)] * 4, (width, 1)]
    kernels = [jnp.asarray(rng.normal(size=(3, 3, a, b)) / (9 * a) ** 0.5, jnp.float32) for a, b in sizes]
    return Denoiser(kernels, _convolve, (28, 28), "eps", name="convolutional")


def _convolve(kernels, y, sigma, condition):
    h = (y / jnp.sqrt(1 + sigma**2))[None, :, :, None]
    for i, k in enumerate(kernels):
        new = jax.lax.conv_general_dilated(h, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        h = jax.nn.silu(new) + (h if h.shape == new.shape else 0) if i < len(kernels) - 1 else new
    return 0.2 * h[0, :, :, 0]


@jax.jit
def bare(x, y, sigma):
    return jax.vmap(lambda v, c, s: evaluate(x.den, v, s, c))(y, x.condition, sigma)


def overhead() -> None:
    cases = [
        (convolutional(), 32, 10, 8),
        (fpjax.load("digits-plain"), 256, 20, 8),
        (fpjax.load("digits-plain"), 256, 20, 5),
    ]
    for den, batch, steps, depth in [*cases, (fpjax.load("digits-monotone"), 256, 20, 8)]:
        rng = np.random.default_rng(0)
        images = fpjax.samples("digits", batch)[0] if den.shape == (8, 8) else rng.normal(size=(batch, 28, 28)) * 0.5
        images, grid = images.astype(np.float32), process.ddim(steps)
        x = trajectory.prepare(den, images)
        sigma = jnp.ones(batch, jnp.float32)

        def whole(den=den, images=images, grid=grid, depth=depth):
            start = time.perf_counter()
            inv = fpjax.invert(den, images, grid, tol=1e-3, history=False, depth=depth)
            jax.block_until_ready(inv.latent)
            return time.perf_counter() - start, int(inv.calls)

        def network(calls, x=x, sigma=sigma):
            start = time.perf_counter()
            for _ in range(calls):
                y = bare(x, x.z, sigma)
            y.block_until_ready()
            return time.perf_counter() - start

        _, calls = whole()
        network(2)
        pairs = [(whole()[0], network(min(calls, 100)) * calls / min(calls, 100)) for _ in range(5)]
        ratios = sorted(a / b for a, b in pairs)
        least = min(a for a, _ in pairs) / min(b for _, b in pairs)
        print(
            f"{den.name} batch {batch} depth {depth}: {calls} calls, overhead ratio median {ratios[2]:.2f}, "
            f"least time over least time {least:.2f}",
            flush=True,
        )


def mixed(n: int = 64):
    """Digits under four strengths of noise, a third under a wrong condition and a fifth under none."""
    rng = np.random.default_rng(0)
    x, c = fpjax.samples("digits", n)
    noise = np.repeat([0.0, 0.1, 0.3, 1.0], n // 4)[rng.permutation(n)]
    x = x.astype(np.float64) + noise[:, None, None] * rng.normal(size=x.shape)
    c = np.where(rng.random(n) < 0.3, rng.integers(0, 10, n), c)
    return x, np.where(rng.random(n) < 0.2, 10, c)


def layouts() -> None:
    x, c = mixed()
    den = fpjax.load("digits-monotone")
    for steps in (20, 50, 100):
        grid = process.ddim(steps)
        runs = {k: fpjax.invert(den, x, grid, condition=c, tol=1e-9, layout=k) for k in ("lanes", "scan", "compact")}
        a, b, d = runs["lanes"], runs["scan"], runs["compact"]
        both = a.solved[:, -1] & b.solved[:, -1]
        apart = np.abs(np.asarray(a.latent) - np.asarray(b.latent))[both].max() if both.any() else np.nan
        print(
            f"{den.name} {steps} steps, mixed: {int(a.calls)} calls in lanes, {int(b.calls)} in scan, ratio "
            f"{int(a.calls) / int(b.calls):.2f}; points computed, compact over scan "
            f"{int(d.computed) / int(b.computed):.2f}; {both.sum()} of 64 solved in both, latents differ by {apart:.1e}",
            flush=True,
        )


def parallel() -> None:
    for name, steps in (("digits-monotone", 20), ("digits-monotone", 50)):
        den, grid = fpjax.load(name), process.ddim(steps)
        x, c = fpjax.samples("digits", 4)
        x = x.astype(np.float64)

        def once(layout, solver, den=den, grid=grid, x=x, c=c):
            def go():
                return fpjax.invert(den, x, grid, condition=c, tol=1e-6, layout=layout, solver=solver, limit=400)

            jax.block_until_ready(go().latent)
            start = time.perf_counter()
            out = go()
            jax.block_until_ready(out.latent)
            return out, time.perf_counter() - start

        base, seconds = once("lanes", "auto")
        print(f"{name} {steps} steps, 4 images: sequential {int(base.calls)} calls, solved {base.solved[:, -1].sum()}")
        for solver in ("anderson", "picard"):
            out, wall = once("parallel", solver)
            print(
                f"  parallel {solver}: {int(out.calls)} calls, {int(out.computed) / int(base.computed):.1f} times the "
                f"points, wall {wall / seconds:.2f} of sequential, solved {out.solved[:, -1].sum()} of 4",
                flush=True,
            )


def compile_cost() -> None:
    cases = ((fpjax.load("digits-plain"), (64, 8, 8)), (convolutional(), (32, 28, 28)))
    for den, shape in cases:
        seconds, size = {}, {}
        for steps in (10, 1000, 10, 1000):
            grid = process.ddim(steps)
            x = trajectory.prepare(den, np.zeros(shape, np.float32))
            levels = trajectory.make_levels(grid, np.zeros(steps), 2, jnp.float32)
            start = time.perf_counter()
            options = lanes.Options(history=False, records=False)
            done = lanes.run.lower(x, levels, make_goal(jnp.float32, 1e-3, 50), options).compile()
            seconds[steps] = min(time.perf_counter() - start, seconds.get(steps, np.inf))
            m = done.memory_analysis()
            size[steps] = (m.temp_size_in_bytes, m.output_size_in_bytes, m.argument_size_in_bytes)
            jax.clear_caches()
        print(
            f"{den.name}: compile {seconds[10]:.2f} s at 10 steps, {seconds[1000]:.2f} s at 1000: ratio "
            f"{seconds[1000] / seconds[10]:.2f}; working memory ratio {size[1000][0] / size[10][0]:.2f}; with arguments and "
            f"results {sum(size[1000]) / sum(size[10]):.2f} ({sum(size[10])} and {sum(size[1000])} bytes)",
            flush=True,
        )


def perceptron(shape, width: int, seed: int = 0) -> Denoiser:
    """An untrained multilayer perceptron with two hidden layers; eps = 0.2·network."""
    rng = np.random.default_rng(seed)
    d = int(np.prod(shape))
    matrices = [
        jnp.asarray(rng.normal(size=(a, b)) / a**0.5, jnp.float32) for a, b in ((d, width), (width, width), (width, d))
    ]
    return Denoiser(matrices, _perceive, shape, "eps", name=f"perceptron {d}-{width}-{width}-{d}")


def _perceive(matrices, y, sigma, condition):
    h = (y / jnp.sqrt(1 + sigma**2)).reshape(-1)
    for m in matrices[:-1]:
        h = jax.nn.silu(h @ m)
    return 0.2 * (h @ matrices[-1]).reshape(y.shape)


def eager() -> None:
    """Fixed-point iteration in PyTorch, the loop everybody writes, to the same residual, on three networks."""
    import torch

    torch.set_grad_enabled(False)
    silu = torch.nn.functional.silu

    def convolve(kernels, y, sigma):
        h = (y / (1 + sigma**2) ** 0.5)[:, None]
        for i, k in enumerate(kernels):
            new = torch.nn.functional.conv2d(h, k, padding=1)
            if i < len(kernels) - 1:
                h = silu(new) + (h if h.shape == new.shape else 0)
        return 0.2 * new[:, 0]

    def perceive(matrices, y, sigma):
        h = (y / (1 + sigma**2) ** 0.5).reshape(y.shape[0], -1)
        for m in matrices[:-1]:
            h = silu(h @ m)
        return 0.2 * (h @ matrices[-1]).reshape(y.shape)

    den = convolutional()
    kernels = [torch.from_numpy(np.array(k).transpose(3, 2, 0, 1).copy()) for k in den.params]
    _against_eager(den, functools.partial(convolve, kernels))
    for den in (perceptron((8, 8), 128), perceptron((28, 28), 512)):
        matrices = [torch.from_numpy(np.array(m)) for m in den.params]
        _against_eager(den, functools.partial(perceive, matrices))


def _against_eager(den, network, batch: int = 8, steps: int = 5, tol: float = 1e-3) -> None:
    import torch

    grid = process.ddim(steps)
    images = (np.random.default_rng(0).normal(size=(batch, *den.shape)) * 0.5).astype(np.float32)
    calls = [0]

    def loop(y):
        calls[0] = 0
        for sigma, rho in zip(grid.sigmas[1:], grid.rho, strict=True):
            target = y
            for _ in range(200):
                calls[0] += 1
                image = target + (1 - rho) * sigma * network(y, sigma)
                residual = torch.linalg.vector_norm((image - y).reshape(batch, -1), dim=1).max()
                if residual <= tol:
                    break
                y = image
        return y

    start = torch.from_numpy(images / grid.scale(grid.levels[0])).float()
    ours = {
        solver: functools.partial(
            fpjax.invert, den, images, grid, tol=tol, stop="residual", history=False, solver=solver
        )
        for solver in ("auto", "picard")
    }
    other = loop(start).numpy() * grid.scale(grid.levels[-1])
    for solver, run in ours.items():
        mine, ratios = np.asarray(run().latent), []
        for _ in range(9):
            t0 = time.perf_counter()
            loop(start)
            t1 = time.perf_counter()
            jax.block_until_ready(run().latent)
            ratios.append((t1 - t0) / (time.perf_counter() - t1))
        print(
            f"{den.name}, {solver}: eager PyTorch {calls[0]} calls against {int(run().calls)}; its wall time over ours, "
            f"median of 9: {np.median(ratios):.2f}; latents differ by {np.abs(other - mine).max():.1e}",
            flush=True,
        )


def grids() -> None:
    """For each uniform grid the cheapest adapted one of :func:`fpjax.adapting.budget` whose round trip is as good."""
    for name in ("digits-monotone", "digits-plain"):
        den = fpjax.load(name)
        x, c = fpjax.samples("digits", 16)
        x = x.astype(np.float64)
        _, tried = adapting.budget(den, np.inf, images=x, condition=c, tol=1e-9)
        for row in tried:
            print(f"{name} rate {row['rate']}: {_words(row)}", flush=True)
        for steps in (10, 20, 50, 100):
            grid = process.ddim(steps)
            inv = fpjax.invert(den, x, grid, condition=c, tol=1e-9)
            error = float(fpjax.round_trip(den, x, grid, inv, condition=c).max())
            spent, share = float(np.asarray(inv.evaluations).sum(axis=1).mean()), float(inv.solved[:, -1].mean())
            row = {"steps": steps, "evaluations": spent, "round_trip": error, "solved": share}
            print(f"{name} uniform {steps}: {_words(row)}", flush=True)
            rivals = [t for t in tried if t["round_trip"] <= error and t["solved"] >= share]
            if rivals:
                best = min(rivals, key=lambda t: t["evaluations"])
                saved = 1 - best["evaluations"] / spent
                print(f"{name}: {steps} uniform steps against rate {best['rate']}: {saved:.0%} fewer", flush=True)


def _words(row) -> str:
    return (
        f"{row['steps']} steps, {row['evaluations']:.1f} evaluations an image, {row['solved']:.0%} solved, largest round trip "
        f"{row['round_trip']:.1e}"
    )


if __name__ == "__main__":
    parts = {
        "overhead": overhead,
        "layouts": layouts,
        "parallel": parallel,
        "compile": compile_cost,
        "eager": eager,
        "grids": grids,
    }
    for part in sys.argv[1:] or parts:
        parts[part]()
