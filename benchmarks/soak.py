"""Hours of studies in one process: do memory and open files stay flat?

    python benchmarks/soak.py [--minutes 60] [--rest 4] [--out docs/figures/soak.json]

One coordinator with two worker processes does one small study after the other (real audits, in both precisions, planned,
run, asked, exported and collected each time), and rests in between, so that the machine can be used meanwhile. About once a
minute, between two studies, resident memory, open files and threads of each of the three processes are written down.

Flat means, after a sixth of the time for warming up (compiling, caches that are bounded): by a least-squares line, each
process's memory grows over the whole time by less than GROWTH of its mean; and no process has more open files or threads at
any later sample than at the first.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fpjax import study
from fpjax.study.export import export

GROWTH = 0.02
PLAN = """
models = ["digits-monotone", "digits-plain"]
seeds = [{seed}]
precision = ["float32", "float64"]
[[process]]
kind = "ddim"
steps = [2]
[images]
count = 2
batch = 1
"""


def looked_at(pid: int) -> dict[str, int]:
    """What one process holds."""
    folder = Path("/proc") / str(pid)
    fields = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    return {
        "rss_bytes": 1024 * int(fields["VmRSS"].split()[0]),
        "files": len(os.listdir(folder / "fd")),
        "threads": int(fields["Threads"]),
    }


def one_study(folder: Path, engine: study.Local, seed: int) -> int:
    """A study from its plan to its table; how many cells it had."""
    plan = study.parse(PLAN.format(seed=seed))
    path = folder / "soak.sqlite"
    with study.Store(path, create=True) as store:
        store.plan(plan.text, plan.cells())
        study.run(store, engine, study.audit_cell)
        tally = store.tally()
        assert tally.failed == tally.open == 0, tally
        export(store, folder / "soak.csv")
        store.plan(plan.text, [])
        store.collect()
    return tally.done


def sampled(minutes: float, rest: float) -> list[dict]:
    """Runs, and what was seen about every minute."""
    engine, samples, cells, start = study.Local(2), [], 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        seed = 0
        while (now := time.monotonic() - start) < 60 * minutes:
            if now >= 60 * len(samples) * min(1.0, minutes / 20) and engine.pool.workers:
                pids = [os.getpid(), *(w.process.pid for w in engine.pool.workers)]
                names = ["coordinator", "worker 1", "worker 2"]
                held = dict(zip(names, map(looked_at, pids), strict=False))
                samples.append({"minute": now / 60, "cells": cells, **held})
                print(json.dumps(samples[-1]), flush=True)
            cells += one_study(Path(folder), engine, seed)
            seed += 1
            time.sleep(rest)
    engine.close()
    return samples


def judged(samples: list[dict]) -> dict:
    """The slope of each process's memory, its growth over the time looked at, and whether all is flat."""
    whole = samples[-1]["minute"] - samples[0]["minute"]
    later = [s for s in samples if s["minute"] >= samples[0]["minute"] + whole / 6]
    hours = np.array([s["minute"] / 60 for s in later])
    out, flat = {}, True
    for name in ("coordinator", "worker 1", "worker 2"):
        rss = np.array([s[name]["rss_bytes"] for s in later], float)
        slope = float(np.polyfit(hours, rss, 1)[0])
        growth = slope * (hours[-1] - hours[0]) / rss.mean()
        most = {k: max(s[name][k] for s in later) for k in ("files", "threads")}
        first = {k: later[0][name][k] for k in most}
        flat = flat and growth < GROWTH and most == first
        out[name] = {
            "rss_bytes": rss.mean(), "slope_bytes_per_hour": slope, "growth": growth, "first": first, "most": most,
        }  # fmt: skip
    return {"minutes": whole, "cells": samples[-1]["cells"], "samples": len(later), "processes": out, "flat": flat}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rest", type=float, default=4, help="seconds between two studies")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = judged(sampled(options.minutes, options.rest))
    for name, p in found["processes"].items():
        print(
            f"{name}: {p['rss_bytes'] / 2**20:.0f} MiB, {p['slope_bytes_per_hour'] / 2**20:+.2f} MiB an hour, "
            f"files {p['first']['files']} to at most {p['most']['files']}, threads {p['most']['threads']}"
        )
    print(f"{found['cells']} cells in {found['minutes']:.0f} minutes: {'flat' if found['flat'] else 'NOT FLAT'}")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if found["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())
