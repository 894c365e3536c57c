"""What a study costs beyond its cells.

    python benchmarks/studies.py queue [--cells 100000]      # scheduling a cell that does nothing
    python benchmarks/studies.py status [--cells 1000000]    # asking a large study how far it is
    python benchmarks/studies.py workers [--cells 24]        # cells x time of a cell / workers, over the wall time

``workers`` does real audits, each of one image, with processes here and with a Dask cluster of two workers on this machine,
every process on one core; the time of a cell is that of one process which does them all. Starting the processes and compiling
happen before the clock starts, in a first study of one cell for each process: they are paid once, not once a cell.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from fpjax import study
from fpjax.study.plan import Cell

WORKERS = 2
ONE_CORE = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1", "OMP_NUM_THREADS": "1"}


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


def audits(folder: Path, name: str, engine, cells: int) -> tuple[float, study.Tally]:
    """Wall time and tally of a study of real cells, after a first one that warms every worker."""
    for seed, count in ((1, 2 * engine.workers), (0, cells)):
        plan = study.parse(PLAN.format(seed=seed, count=count))
        with study.Store(folder / f"{name}-{seed}.sqlite", create=True) as store:
            store.plan(plan.text, plan.cells())
            spent = seconds(lambda store=store: study.run(store, engine, study.audit_cell))
            tally = store.tally()
    return spent, tally


def workers(folder: Path, n: int) -> None:
    os.environ.update(ONE_CORE)  # before any worker starts
    alone = study.Local(1)
    _, single = audits(folder, "one", alone, n)
    alone.close()
    each = single.seconds / n
    local = study.Local(WORKERS)
    report("local processes", audits(folder, "local", local, n), n, each)
    local.close()
    from distributed import Client, LocalCluster

    options = {"n_workers": WORKERS, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        report("Dask workers", audits(folder, "dask", study.Dask(client), n), n, each)


def report(name: str, outcome, n: int, each: float) -> None:
    spent, tally = outcome
    assert tally.done == n
    print(
        f"workers: {n} cells of {each:.2f} s on {WORKERS} {name}: {spent:.1f} s, {n * each / WORKERS / spent:.2f} of ideal "
        f"(a cell took {tally.seconds / n:.2f} s there)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["queue", "status", "workers"])
    parser.add_argument("--cells", type=int)
    options = parser.parse_args()
    run, default = {"queue": (queue, 100_000), "status": (status, 1_000_000), "workers": (workers, 24)}[options.what]
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), options.cells or default)
    return 0


if __name__ == "__main__":
    sys.exit(main())
