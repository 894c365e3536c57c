"""What the sharding tests do in processes of their own: ``python sharded.py OUT [ADDRESS PROCESS PROCESSES | pieces]``.

Writes the audit of one batch as JSON, and what each device held. The number of devices comes from XLA_FLAGS.
"""

import json
import sys

import jax

jax.config.update("jax_enable_x64", True)


def held(n: int) -> dict:
    """Bytes on each device: of the path's shards, and of the compiled programs' outputs and temporaries."""
    import jax.numpy as jnp

    import fpjax
    from fpjax import auditing, lanes, sharding, trajectory
    from fpjax.solve import make_goal

    den, grid = fpjax.load("digits-plain"), fpjax.process.ddim(4)
    x, labels = fpjax.samples("digits", n)
    inputs = trajectory.prepare(den, x.astype("float64"), labels, 3.0)
    inversion = fpjax.invert(den, inputs.z, grid, condition=labels, guidance=3.0)
    levels = trajectory.make_levels(grid, jnp.zeros(4), 2, jnp.float64)
    goal = make_goal(jnp.float64, 1e-8, 50)
    options = lanes.Options()
    step = auditing._step(inputs, grid, 1)
    bare = step._replace(condition=None)
    programs = {
        "invert": (lanes.share, options, (inputs.den, inputs.guidance, levels, goal), (inputs.z, inputs.condition)),
        "look": (auditing._look_here, auditing.BUDGET, (bare, jax.random.key(0)), (inputs.z, inputs.condition)),
    }  # fmt: skip
    found = {"path": [s.data.nbytes for s in inversion.path.addressable_shards]}
    for name, (function, options, shared, batch) in programs.items():
        over = sharding.mesh(n, sharding.TOGETHER)
        if over is None:
            compiled = sharding._here.lower(function, options, shared, batch).compile()
        else:
            compiled = sharding.spread.lower(function, options, over, shared, batch).compile()
        memory = compiled.memory_analysis()
        found[name] = memory.temp_size_in_bytes + memory.output_size_in_bytes
    return found


def coupled(v):
    """A symmetric operator with a wide spectrum, whose neighbours lie on other devices."""
    import jax.numpy as jnp

    return jnp.linspace(-1, 2, v.size, dtype=v.dtype) ** 3 * v + 0.1 * (jnp.roll(v, 1) + jnp.roll(v, -1))


def pieces() -> dict:
    """One large point whose Lanczos vectors are cut over the devices, with a full basis and a restarted one: the extremes and
    what a device needs."""
    import numpy as np
    from jax.sharding import Mesh

    from fpjax.jacobian import extreme_eigenvalues

    over = Mesh(np.asarray(jax.devices()), ("pieces",)) if jax.device_count() > 1 else None
    found = {}
    for d in (2**13, 2**16):

        def extremes(key, d=d):
            return extreme_eigenvalues(coupled, d, key, tol=1e-9, steps=200, dtype="float64", over=over)

        compiled = jax.jit(extremes).lower(jax.random.key(0)).compile()
        out = compiled(jax.random.key(0))
        found[str(d)] = {
            "extremes": [float(out.low), float(out.high)],
            "bytes": compiled.memory_analysis().temp_size_in_bytes,
        }
    return found


def main(out: str, address: str = "", process: str = "0", processes: str = "1") -> None:
    if address == "pieces":
        with open(out, "w") as file:
            json.dump(pieces(), file)
        return
    if address:
        jax.distributed.initialize(address, int(processes), int(process))
    import fpjax

    n, den = 10, fpjax.load("digits-plain")
    x, labels = fpjax.samples("digits", n)
    report = fpjax.audit(den, fpjax.process.ddim(3), images=x.astype("float64"), condition=labels, guidance=3.0, seed=4)
    told = {
        "devices": jax.device_count(),
        "rows": report.table,
        "round_trip": report.round_trip,
        "latents": [part["latent"].tolist() for part in report.images],
        "held": held(16) if jax.process_count() == 1 else None,
    }
    with open(out, "w") as file:
        json.dump(told, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
