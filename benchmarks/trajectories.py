"""``python benchmarks/trajectories.py [overhead layouts compile grids]``: whole trajectories, each figure from one run.

overhead: wall time over (batched calls × time of the bare jitted network), the two interleaved. layouts: batched calls of
the lane-asynchronous loop against the scan. compile: compile time and memory at 1000 steps against 10. grids: network
evaluations on adapted grids (T12) against grids uniform in t, at the same tolerance and the same ends.
"""

import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import fpjax
from fpjax import lanes, process, trajectory
from fpjax.denoiser import Denoiser, evaluate
from fpjax.solve import make_goal


def convolutional(width: int = 56, seed: int = 0) -> Denoiser:
    """An untrained residual convolutional network on 28×28 images, over 100k parameters; eps = 0.2·network."""
    rng = np.random.default_rng(seed)
    sizes = [(1, width), *[(width, width)] * 4, (width, 1)]
    kernels = [jnp.asarray(rng.normal(size=(b, a, 3, 3)) / (9 * a) ** 0.5, jnp.float32) for a, b in sizes]
    return Denoiser(kernels, _convolve, (28, 28), "eps", name="convolutional")


def _convolve(kernels, y, sigma, condition):
    h = (y / jnp.sqrt(1 + sigma**2))[None, None]
    for i, k in enumerate(kernels):
        new = jax.lax.conv_general_dilated(h, k, (1, 1), "SAME")
        h = jax.nn.silu(new) + (h if h.shape == new.shape else 0) if i < len(kernels) - 1 else new
    return 0.2 * h[0, 0]


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
        pairs = [(whole()[0], network(min(calls, 100)) * calls / min(calls, 100)) for _ in range(7)]
        ratios = sorted(a / b for a, b in pairs)
        least = min(a for a, _ in pairs) / min(b for _, b in pairs)
        print(
            f"{den.name} batch {batch} depth {depth}: {calls} calls, overhead ratio median {ratios[3]:.2f}, "
            f"least time over least time {least:.2f}",
            flush=True,
        )


def layouts() -> None:
    for name, steps in (("digits-monotone", 10), ("digits-monotone", 20), ("digits-plain", 20)):
        den, grid = fpjax.load(name), process.ddim(steps)
        x, c = fpjax.samples("digits", 64)
        runs = {
            k: fpjax.invert(den, x.astype(np.float64), grid, condition=c, tol=1e-10, layout=k)
            for k in ("lanes", "scan")
        }
        a, b = runs["lanes"], runs["scan"]
        both = a.solved[:, -1] & b.solved[:, -1]
        apart = np.abs(np.asarray(a.latent) - np.asarray(b.latent))[both].max() if both.any() else np.nan
        print(
            f"{name} {steps} steps: {int(a.calls)} calls in lanes, {int(b.calls)} in scan, ratio "
            f"{int(a.calls) / int(b.calls):.2f}; latents of {both.sum()} solved images differ by {apart:.1e}",
            flush=True,
        )


def compile_cost() -> None:
    den = fpjax.load("digits-plain")
    figures = {}
    for steps in (10, 1000, 10, 1000):
        grid = process.ddim(steps)
        x = trajectory.prepare(den, np.zeros((64, 8, 8), np.float32))
        levels = trajectory.make_levels(grid, np.zeros(steps), 2, jnp.float32)
        start = time.perf_counter()
        done = lanes.run.lower(x, levels, make_goal(jnp.float32, 1e-3, 50), lanes.Options(history=False)).compile()
        seconds = time.perf_counter() - start
        memory = done.memory_analysis()
        size = memory.temp_size_in_bytes + memory.output_size_in_bytes + memory.argument_size_in_bytes
        old = figures.get(steps, (np.inf, size))
        figures[steps] = (min(seconds, old[0]), size)
        jax.clear_caches()
    (t10, m10), (t1000, m1000) = figures[10], figures[1000]
    print(
        f"compile {t10:.2f} s at 10 steps, {t1000:.2f} s at 1000: ratio {t1000 / t10:.2f}; memory ratio {m1000 / m10:.2f}"
    )


def grids() -> None:
    for name in ("digits-monotone", "digits-plain"):
        den = fpjax.load(name)
        x, c = fpjax.samples("digits", 16)
        x = x.astype(np.float64)
        rows = [(f"uniform {n}", process.ddim(n)) for n in (5, 10, 20, 40)]
        rows += [
            (f"rate {q}", process.adapt(den, images=x, condition=c, target_rate=q))
            for q in (0.3, 0.5, 0.7, 1.0, 2.0, 4.0)
        ]
        for label, grid in rows:
            inv = fpjax.invert(den, x, grid, condition=c, tol=1e-10, depth=16)
            error = np.asarray(fpjax.round_trip(den, x, grid, inv, condition=c))
            good = inv.solved[:, -1]
            print(
                f"{name} {label}: {grid.steps} steps, {np.asarray(inv.evaluations).sum(axis=1).mean():.1f} evaluations "
                f"an image, {good.sum()} of 16 solved, round trip {error.max():.1e}",
                flush=True,
            )


if __name__ == "__main__":
    parts = {"overhead": overhead, "layouts": layouts, "compile": compile_cost, "grids": grids}
    for part in sys.argv[1:] or parts:
        parts[part]()
