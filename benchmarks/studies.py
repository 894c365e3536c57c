"""What a study costs beyond its cells.

    python benchmarks/studies.py queue [--cells 100000]      # scheduling a cell that does nothing
    python benchmarks/studies.py status [--cells 1000000]    # asking a large study how far it is
    python benchmarks/studies.py workers [--cells 24]        # cells x time of a cell / workers, over the wall time

``workers`` does real audits, each of one image, with processes here and with a Dask cluster of two workers on this machine.
Ideal is cells x single-cell time / workers. Two single-cell times are given: of a lone process, the other core idle; and of
two processes side by side that do nothing but call the work in a loop, without an engine, as each worker of a study has its
neighbours too (they share the caches and the memory bus). Every process has one core. Starting the processes and compiling
happen before the clock starts, in a first study of one cell for each process: they are paid once, not once a cell.
"""

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

from fpjax import study
from fpjax.study.plan import Cell
from fpjax.study.pool import share

WORKERS = 2


def nothing(cell: Cell) -> list[dict]:
    """A cell's work that takes no time."""
    return [{"step": 1, "value": float(cell.first)}]


def trivial(n: int):
    return (Cell("m", "card", "ddim", 5, 1.0, 0, "float64", "auto", "digits", i, 1) for i in range(n))


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def queue(folder: Path, n: int) -> None:
    with study.Store(folder / "queue.sqlite", create=True) as store:
        planned = seconds(lambda: store.plan("", trivial(n)))
        engine = study.Local(WORKERS)
        spent = seconds(lambda: study.run(store, engine, nothing))
        engine.close()
        assert store.tally().done == n
    print(
        f"queue: {n} trivial cells, {1e3 * planned / n:.3f} ms each to plan, {1e3 * spent / n:.3f} ms each to do and keep"
    )


def status(folder: Path, n: int) -> None:
    with study.Store(folder / "status.sqlite", create=True) as store:
        store.plan("", trivial(n))
        done = [study.Result(cell.key, nothing(cell), None, 0.1) for cell in trivial(n // 2)]
        store.finish(done)
    start = time.perf_counter()
    with study.Store(folder / "status.sqlite") as store:
        tally = store.tally()
    print(f"status: {tally.cells} cells, {tally.done} done, answered in {1e3 * (time.perf_counter() - start):.1f} ms")


PLAN = """
models = ["digits-monotone"]
seeds = [{seed}]
[[process]]
kind = "ddim"
steps = [5]
[images]
count = {count}
batch = 1
"""


def planned(seed: int, count: int) -> study.Plan:
    return study.parse(PLAN.format(seed=seed, count=count))


def audits(folder: Path, name: str, engine, cells: int) -> float:
    """Wall time of a study of real cells, after a first one that warms every worker."""
    for seed, count in ((1, 2 * engine.workers), (0, cells)):
        plan = planned(seed, count)
        with study.Store(folder / f"{name}-{seed}.sqlite", create=True) as store:
            store.plan(plan.text, plan.cells())
            spent = seconds(lambda store=store: study.run(store, engine, study.audit_cell))
            assert store.tally().done == count
    return spent


def loop(part: int, parts: int, n: int, gate, out) -> None:
    """A process that does every ``parts``-th cell, and nothing else."""
    share(1)
    mine = list(planned(0, n).cells())[part::parts]
    study.audit_cell(next(planned(1, 1).cells()))
    gate.wait()
    out.put(seconds(lambda: [study.audit_cell(cell) for cell in mine]) / len(mine))


def single(parts: int, n: int) -> float:
    """Seconds for one cell with ``parts`` such processes side by side."""
    spawn = multiprocessing.get_context("spawn")
    gate, out = spawn.Barrier(parts), spawn.Queue()
    all_ = [spawn.Process(target=loop, args=(i, parts, n, gate, out)) for i in range(parts)]
    for process in all_:
        process.start()
    each = [out.get() for _ in all_]
    for process in all_:
        process.join()
    return sum(each) / parts


def workers(folder: Path, n: int) -> dict:
    found = {"cells": n, "workers": WORKERS, "alone_s": single(1, n // 2), "beside_s": single(WORKERS, n)}
    local = study.Local(WORKERS)
    found["local_s"] = audits(folder, "local", local, n)
    local.close()
    os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = (
        "False"  # docs/studies.md; its threads take the cells' time
    )
    from distributed import Client, LocalCluster

    options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        found["dask_s"] = audits(folder, "dask", study.Dask(client), n)
    found["beside_again_s"] = single(WORKERS, n)
    for name in ("local", "dask"):
        for against in ("alone", "beside"):
            found[f"{name}_of_{against}"] = n * found[f"{against}_s"] / WORKERS / found[f"{name}_s"]
    print("workers:", json.dumps(found, indent=1))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["queue", "status", "workers"])
    parser.add_argument("--cells", type=int)
    options = parser.parse_args()
    run, default = {"queue": (queue, 100_000), "status": (status, 1_000_000), "workers": (workers, 120)}[options.what]
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options.cells or default)
    return 0


if __name__ == "__main__":
    sys.exit(main())
