"""Who does the cells: processes on this machine, or a Dask cluster, behind one small interface.

In this room: bundles of cells handed to workers, workers that die or hang, and the loop that writes each result before it
reports it. Not in this room: what a cell does (work), where results are kept (store).
"""

import os
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any, NamedTuple, Protocol

from fpjax.evidence import FpjaxError
from fpjax.study.meter import Meter
from fpjax.study.plan import Cell
from fpjax.study.pool import Pool, WorkDropped, WorkerLost
from fpjax.study.store import Pace, Result, Store, Tally

BUNDLE_S = 0.5  # cells that are quicker than this go to a worker several at a time
MOST_IN_BUNDLE = 1000
NO_MEMORY = "there is not enough memory for this cell; make the batch of images smaller"

Work = Callable[[Cell], list[dict[str, Any]]]


class Engine(Protocol):
    """Where bundles of cells are done."""

    @property
    def workers(self) -> int:
        """How many bundles are done at once, now."""
        ...

    def submit(self, work: Work, cells: list[Cell], limit_s: float | None) -> Future:
        """Starts a bundle; its future gives a list of Results, or raises WorkerLost or TimeoutError."""
        ...

    def poll(self) -> None:
        """Called every second or so while nothing ends: futures that nobody works on any more must end now."""
        ...

    def close(self, *, kill: bool = False) -> None:
        """Ends the workers, at once or when they have finished."""
        ...


def bundle(work: Work, cells: list[Cell]) -> list[Result]:
    """Does the cells one after the other; what goes wrong in one is its result. Runs in a worker."""
    return [_one(work, cell) for cell in cells]


def _one(work: Work, cell: Cell) -> Result:
    with Meter() as meter:
        try:
            rows, error = work(cell), None
        except FpjaxError as told:
            rows, error = None, str(told)
        except Exception as other:  # a cell that fails must not stop the rest
            rows, error = None, NO_MEMORY if _is_memory(other) else f"{type(other).__name__}: {other}"[:500]
    return Result(cell.key, rows, error, *meter.read())


def _is_memory(error: Exception) -> bool:
    """Python's own error, or XLA's for a device or a host allocation."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Local:
    """Processes on this machine.

    Args:
      workers: how many; by default one for each core that this process may use.
      beside: how many workers share these cores in all; by default these alone do.
    """

    def __init__(self, workers: int | None = None, beside: int | None = None):
        self.workers = workers or cores()
        self.pool = Pool(self.workers, max(1, cores() // (beside or self.workers)))

    def submit(self, work: Work, cells: list[Cell], limit_s: float | None) -> Future:
        """See :class:`Engine`. A bundle that takes longer than limit_s loses its process."""
        return self.pool.submit(bundle, work, cells, limit_s=limit_s)

    def poll(self) -> None:
        """See :class:`Engine`; the pool looks after its processes itself."""

    def close(self, *, kill: bool = False) -> None:
        """See :class:`Engine`."""
        self.pool.close(kill=kill)


class Progress(NamedTuple):
    """What is known after some cells ended: the study's tally, those that ended now, and the seconds since the start."""

    tally: Tally
    ended: list[Result]
    elapsed: float


class _Queue:
    """Cells in the order of the plan, and again those whose worker died."""

    def __init__(self, store: Store, tries: int, cell_s: float | None, only: list[Cell] | None):
        self.store, self.tries = store, tries
        self.bundle_s = BUNDLE_S if cell_s is None else min(BUNDLE_S, cell_s / 4)
        self.ahead: deque[Cell] = deque(only or [])
        self.whole = only is None
        self.again: deque[Cell] = deque()
        self.lost: Counter = Counter()
        self.place = -1
        self.mean_s: float | None = None

    def take(self) -> list[Cell]:
        """The next bundle; a cell that lost its worker goes alone."""
        if self.again:
            return [self.again.popleft()]
        many = 1 if self.mean_s is None else max(1, min(MOST_IN_BUNDLE, int(self.bundle_s / max(self.mean_s, 1e-6))))
        if self.whole and len(self.ahead) < many:
            more = self.store.open_cells(4 * MOST_IN_BUNDLE, self.place)
            self.place = more[-1][0] if more else self.place
            self.ahead.extend(cell for _, cell in more)
        return [self.ahead.popleft() for _ in range(min(many, len(self.ahead)))]

    def back(self, cells: list[Cell], why: str, blame: bool) -> list[Result]:
        """Puts cells back whose worker died; those that were tried too often fail."""
        given_up = []
        for cell in cells:
            self.lost[cell.key] += blame and len(cells) == 1  # in a bundle, nobody knows whose fault it was
            if self.lost[cell.key] >= self.tries:
                given_up.append(Result(cell.key, None, f"its worker died {self.tries} times: {why}"[:500], 0.0))
            else:
                self.again.append(cell)
        return given_up

    def seen(self, results: list[Result]) -> None:
        """Learns how long a cell takes."""
        if results:
            mean = sum(r.seconds for r in results) / len(results)
            self.mean_s = mean if self.mean_s is None else 0.7 * self.mean_s + 0.3 * mean


def run(
    store: Store,
    engine: Engine,
    work: Work,
    *,
    cell_s: float | None = None,
    tries: int = 3,
    progress: Callable[[Progress], None] | None = None,
    only: list[Cell] | None = None,
) -> Tally:
    """Does every cell of the store that waits. Each result is on disk before ``progress`` hears of it.

    Args:
      work: a top-level function, cell -> rows. cell_s: the most seconds for a cell. only: these cells and no others.
      tries: how often a cell is tried whose worker dies.

    Raises:
      FpjaxError: if the store cannot be written.
    """
    queue, flying, start, count = _Queue(store, tries, cell_s, only), {}, time.monotonic(), 0

    def launch() -> None:
        while len(flying) < 2 * engine.workers and (cells := queue.take()):
            flying[engine.submit(work, cells, cell_s)] = cells  # one cell's time is plenty for a bundle of quick ones

    launch()
    while flying:
        done = wait(flying, timeout=1.0, return_when=FIRST_COMPLETED).done
        if not done:
            engine.poll()
            continue
        ended = [result for future in done for result in _outcome(future, flying.pop(future), queue, cell_s)]
        launch()  # the workers go on while this is written
        count += len(ended)
        elapsed = time.monotonic() - start
        store.finish(ended, Pace(engine.workers, count, elapsed, time.time()))
        if progress is not None and ended:
            progress(Progress(store.tally(), ended, elapsed))
    return store.tally()


def _outcome(future: Future, cells: list[Cell], queue: _Queue, cell_s: float | None) -> list[Result]:
    try:
        results = future.result()
    except TimeoutError:
        if len(cells) > 1:
            queue.again.extend(cells)  # alone, each shows whether it is the slow one
            return []
        return [Result(cells[0].key, None, f"it took more than {cell_s:g} s, the budget of a cell", float(cell_s or 0))]
    except WorkerLost as error:
        return queue.back(cells, str(error), blame=not isinstance(error, WorkDropped))
    except Exception as error:  # the bundle itself could not be sent or brought back
        return [Result(cell.key, None, f"{type(error).__name__}: {error}"[:500], 0.0) for cell in cells]
    queue.seen(results)
    return results
