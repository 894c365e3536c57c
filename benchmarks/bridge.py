"""What a network of real size costs: a 256×256 UNet2DModel of DDPM's size (113.7 million parameters, random weights).

python benchmarks/bridge.py calls [--side 256]   one network call: eager PyTorch, the bridge, the native network
python benchmarks/bridge.py overhead [--side 256] an inversion of two steps over its own count of bare network calls
python benchmarks/bridge.py audit [--side 256]   an audit at two steps: wall time, peak memory
python benchmarks/bridge.py words FILE...        what such files say, for page.py docs/diffusers.md cost

Prints one JSON object. ``calls`` needs the extra fpjax[diffusers]. All times are warm; calls of the three kinds alternate.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # XLA looks here too
os.environ.setdefault("OMP_NUM_THREADS", str(CORES))

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

import fpjax
from fpjax.budget import Budget
from fpjax.models import unet

# The shape of google/ddpm-celebahq-256.
CONFIG = {
    "_class_name": "UNet2DModel",
    "sample_size": 256,
    "block_out_channels": [128, 128, 256, 256, 512, 512],
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "linear",
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "num_train_timesteps": 1000,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def save(folder: Path, side: int) -> None:
    """Writes a checkpoint with random weights as diffusers would."""
    folder.mkdir(parents=True, exist_ok=True)
    config = CONFIG | {"sample_size": side}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    read = unet.Config.read({k: v for k, v in config.items() if not k.startswith("_")})
    tensors = {name: np.asarray(value) for name, value in unet.random(read).items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")


def clock(function) -> float:
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def calls(folder: Path, side: int, repeats: int) -> dict:
    """Seconds of one call, the three kinds taking turns."""
    import torch

    from fpjax.diffusers import bridge, checkpoint
    from fpjax.diffusers import folder as reader

    torch.set_num_threads(CORES)
    part = reader.read_part(folder)
    module = bridge.build(part)
    config = unet.Config.read(part.config)
    tensors = bridge.extract(module)
    x = np.random.default_rng(0).normal(size=(3, side, side)).astype(np.float32)
    native = jax.jit(lambda p, x: checkpoint.Native(config)(p, x, jnp.float32(300), {}))
    bridged_network = checkpoint.Bridged(part.kind, part.config, bridge.Function(module))
    bridged = jax.jit(lambda p, x: bridged_network(p, x, jnp.float32(300), {}))
    point, time_ = torch.from_numpy(x)[None], torch.tensor([300.0])

    def eager():
        with torch.no_grad():
            return module(point, time_, return_dict=False)[0].numpy()

    kinds = {"eager": eager, "bridge": lambda: bridged(tensors, x), "native": lambda: native(tensors, x)}
    outputs = {name: np.asarray(call()).reshape(x.shape) for name, call in kinds.items()}
    times: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, call in kinds.items():
            times[name].append(clock(call))
    best = {name: min(found) for name, found in times.items()}
    return {
        "seconds": times,
        "bridge / eager": best["bridge"] / best["eager"],
        "native / eager": best["native"] / best["eager"],
        "largest difference": {n: float(np.abs(outputs[n] - outputs["eager"]).max()) for n in ("bridge", "native")},
        "largest value": float(np.abs(outputs["eager"]).max()),
        "peak GiB": peak_gib(),
    }


def image(side: int) -> np.ndarray:
    """Noise within [-1, 1], shape (1, 3, side, side)."""
    return np.clip(np.random.default_rng(0).normal(size=(1, 3, side, side)) / 2, -1, 1).astype(np.float32)


def overhead(folder: Path, side: int, tol: float, solver: str) -> dict:
    """What inverting costs over its own count of bare network calls; bare calls before and after."""
    den, grid = fpjax.load(folder), fpjax.diffusers.open_checkpoint(folder).process(2)
    x, sigma = image(side), jnp.float32(grid.sigmas[-1])
    bare = jax.jit(lambda den, y, sigma: den.fn(den.params, y, sigma, jnp.int32(0)))
    clock(lambda: bare(den, x[0], sigma))
    alone = [clock(lambda: bare(den, x[0], sigma)) for _ in range(3)]
    found = {}

    def inverting():
        found["inversion"] = fpjax.invert(den, x, grid, solver=solver, tol=tol, limit=20)
        return found["inversion"].latent

    cold, warm = clock(inverting), [clock(inverting) for _ in range(2)]
    alone += [clock(lambda: bare(den, x[0], sigma)) for _ in range(3)]
    count = int(found["inversion"].calls)
    return {
        "bare call, seconds": alone,
        "inversion": {"cold": cold, "warm": warm, "network calls": count},
        "overhead": min(warm) / (count * min(alone)),
        "peak GiB": peak_gib(),
    }


def audit(folder: Path, side: int, tol: float, solver: str, budget: Budget) -> dict:
    """The audit, with the time of each of its parts."""
    den, grid = fpjax.load(folder), fpjax.diffusers.open_checkpoint(folder).process(2)
    log: list[tuple[float, str]] = []
    start = time.perf_counter()
    options = {"solver": solver, "tol": tol, "limit": 20, "budget": budget, "histories": ()}

    def tick(done, total, what):
        log.append((round(time.perf_counter() - start, 1), what))
        print(log[-1], peak_gib(), file=sys.stderr, flush=True)

    report = fpjax.audit(den, grid, images=image(side), **options, progress=tick)
    return {
        "audit seconds": log,
        "round trip": report.round_trip,
        "verdicts": [[row["step"], row["question"], row["verdict"], row["value"]] for row in report.table],
        "settings": report.settings,
        "peak GiB": peak_gib(),
    }


def words(found: dict) -> list[str]:
    """A result as lines of a page."""
    side, peak = f"{found['side']}×{found['side']}", f"peak memory {found['peak GiB']:.1f} GiB"
    if found["what"] == "calls":
        return [
            f"- one call at {side}, {kind} over eager PyTorch: {found[f'{kind} / eager']:.2f} (least time of "
            f"{len(found['seconds'][kind])}); outputs differ by {found['largest difference'][kind]:.1e} of "
            f"{found['largest value']:.2f}"
            for kind in ("bridge", "native")
        ]
    if found["what"] == "overhead":
        calls = found["inversion"]["network calls"]
        return [
            f"- two steps inverted at {side}, {calls} calls, over as many bare ones: {found['overhead']:.2f}; {peak}"
        ]
    minutes = found["audit seconds"][-1][0] / 60
    return [f"- an audit of two steps at {side}: {minutes:.0f} minutes, {peak}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("calls", "overhead", "audit", "words"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tol", type=float, default=1e-2, help="2-norm of the residual over all values of an image")
    parser.add_argument("--solver", default="anderson")
    parser.add_argument("--lanczos", type=int, default=6)
    parser.add_argument("--picard", type=int, default=20)
    parser.add_argument("--points", type=int, default=1)
    options = parser.parse_args()
    if options.what == "words":
        print("\n".join(line for path in options.files for line in words(json.loads(path.read_text()))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "ddpm"
        save(folder, options.side)
        if options.what == "calls":
            result = calls(folder, options.side, options.repeats)
        elif options.what == "overhead":
            result = overhead(folder, options.side, options.tol, options.solver)
        else:
            budget = Budget(options.points, options.lanczos, options.picard, 1)
            result = audit(folder, options.side, options.tol, options.solver, budget)
    print(json.dumps({"what": options.what, "side": options.side, **result}, indent=1))


if __name__ == "__main__":
    main()
