"""Cost of a product with J against the number of pixels, and the memory of an audit of a 3×512×512 denoiser.

    python benchmarks/image_size.py            # four sizes: time of a product, slope of the log-log fit, plot
    python benchmarks/image_size.py --audit    # one step of a 3×512×512 float32 denoiser: peak memory of this process

Both print for docs/lipschitz.md: ``| python benchmarks/page.py docs/lipschitz.md image-size`` (or ``image-size-audit``).

Times are medians of interleaved runs in one process; the sizes are visited round robin, so that load from elsewhere
falls on all of them.
"""

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

SIZES = (64, 128, 256, 512)
LIMIT_GIB = 8.0


def products(rounds: int):
    """Median seconds of J v and of J^T u for each size."""
    from fpjax.jacobian import linear
    from fpjax.models.convolutional import convolutional, denoise

    @jax.jit
    def both(params, y, v):
        forward, transpose = linear(lambda x: denoise(params, x, jnp.float32(0.5), jnp.int32(0)), y)
        # A chain of products, so that the one evaluation of the network itself does not count.
        return jax.lax.fori_loop(0, 4, lambda _, w: transpose(forward(w)), v)

    cases = {}
    for size in SIZES:
        den = convolutional((3, size, size))
        y = jax.random.normal(jax.random.key(0), den.shape, jnp.float32)
        cases[size] = (den.params, y, y.reshape(-1))
        both(*cases[size]).block_until_ready()
    seconds = {size: [] for size in SIZES}
    for _ in range(rounds):
        for size, case in cases.items():
            start = time.perf_counter()
            both(*case).block_until_ready()
            seconds[size].append((time.perf_counter() - start) / 8)
    return {size: (float(np.median(t)), float(np.min(t))) for size, t in seconds.items()}


def plot(figures, slope: float, path: Path) -> None:
    """Seconds a product against pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4), layout="constrained")
    axis = figure.subplots()
    pixels = [size**2 for size in figures]
    axis.loglog(pixels, [best for _, best in figures.values()], "o-", label=f"measured, slope {slope:.3f}")
    axis.set(xlabel="pixels", ylabel="seconds a product", title="Product with J, convolutional denoiser, float32")
    axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def audit() -> dict:
    """One audited step of a 3×512×512 denoiser in float32, and the most memory this process ever held."""
    import fpjax
    from fpjax.models.convolutional import convolutional
    from fpjax.process import from_sigmas

    def tell(done: int, total: int, what: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{done} of {total} {what}: peak so far {peak:.2f} GiB", file=sys.stderr, flush=True)

    den = convolutional(width=4, depth=1)
    image = 0.5 * jax.random.normal(jax.random.key(1), (1, *den.shape), jnp.float32)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    start = time.perf_counter()
    report = fpjax.audit(den, from_sigmas([0.3, 0.5]), images=image, progress=tell)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = [{k: row[k] for k in ("question", "verdict", "value", "detail")} for row in report.table]
    return {"GiB_before": before, "GiB_peak": peak, "limit": LIMIT_GIB, "s": time.perf_counter() - start, "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audit", action="store_true")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    if options.audit:
        found = audit()
        print(json.dumps(found, indent=1), file=sys.stderr)
        print(
            f"The audit peaked at {found['GiB_peak']:.2f} GiB ({found['GiB_before']:.2f} GiB before it began); "
            f"it answered {len(found['rows'])} questions."
        )
        return 0 if found["GiB_peak"] < LIMIT_GIB else 1
    figures = products(options.rounds)
    pixels = np.log([size**2 for size in figures])
    slopes = [np.polyfit(pixels, np.log([t[k] for t in figures.values()]), 1)[0] for k in (0, 1)]
    print("| image | median time of a product | best |\n|---|---|---|")
    for size, (median, best) in figures.items():
        print(f"| {size}×{size} | {1e3 * median:.2f} ms | {1e3 * best:.2f} ms |")
    print(f"\nSlope of the log-log fit: {slopes[0]:.3f} on median times, {slopes[1]:.3f} on best times.")
    if options.figure:
        plot(figures, slopes[1], options.figure)
    return 0 if abs(slopes[1] - 1) <= 0.1 else 1


if __name__ == "__main__":
    sys.exit(main())
