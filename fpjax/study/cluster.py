"""A Dask cluster as the engine of a study: the same cells, on workers that Dask started wherever it can.

Each Dask worker does a bundle in a process of its own, so that a cell which hangs or dies takes nothing with it. Not in
this room: starting clusters (dask's own deployers for Kubernetes, Slurm, YARN do that).
"""

import contextlib
import functools
import multiprocessing
import time
import uuid
from concurrent.futures import Future, InvalidStateError
from typing import Any

from fpjax.evidence import FpjaxError
from fpjax.study.engine import Local, Work
from fpjax.study.plan import Cell
from fpjax.study.pool import WorkDropped, WorkerLost

PATIENCE_S = 60  # for a scheduler that does not answer
WORKERLESS_S = 600  # after which a scheduler without workers is given up


class Dask:
    """The workers of a Dask scheduler.

    Args:
      scheduler: its address, "tcp://host:8786", or a ``distributed.Client``.

    Raises:
      FpjaxError: if distributed is not installed, or nobody answers there.
    """

    def __init__(self, scheduler):
        try:
            from distributed import Client
        except ImportError:
            raise FpjaxError("clusters need Dask; install it by: pip install 'fpjax[cluster]'") from None
        self.mine = not isinstance(scheduler, Client)
        self.flying: dict[Future, Any] = {}
        self.workers_seen = time.monotonic()
        try:
            self.client = Client(scheduler, timeout=PATIENCE_S, set_as_default=False) if self.mine else scheduler
            self.client.wait_for_workers(1, timeout=PATIENCE_S)
        except (OSError, TypeError, ValueError, TimeoutError) as error:  # TypeError: tls:// without a certificate
            raise FpjaxError(f"no Dask scheduler with workers answers at {scheduler}: {error}") from None

    @property
    def workers(self) -> int:
        """How many cells are done at once, now."""
        return max(1, sum(self.client.nthreads().values()))  # pyright: ignore[reportAttributeAccessIssue]

    def submit(self, work: Work, cells: list[Cell], limit_s: float | None) -> Future:
        """See :class:`fpjax.study.engine.Engine`."""
        out: Future = Future()
        self._alive()
        try:
            key = f"fpjax-{uuid.uuid4()}"
            inner = self.client.submit(in_own_process, work, cells, limit_s, key=key, pure=False)
        except Exception as error:
            raise _gone(error) from None
        self.flying[out] = inner
        inner.add_done_callback(functools.partial(_hand_on, out=out))
        return out

    def poll(self) -> None:
        """See :class:`fpjax.study.engine.Engine`. After a scheduler's restart Dask's futures are lost without a word."""
        self._alive()
        for out, inner in list(self.flying.items()):
            if out.done():
                del self.flying[out]
            elif inner.status in ("lost", "cancelled"):
                _end(out, error=WorkDropped(f"its task was {inner.status}"))

    def _alive(self) -> None:
        if self.client.status not in ("running", "connecting"):
            raise _gone(f"the client is {self.client.status}")
        if self.client.status == "connecting" or self.client.nthreads():
            self.workers_seen = time.monotonic()
        elif time.monotonic() - self.workers_seen > WORKERLESS_S:
            raise _gone(f"no worker for {WORKERLESS_S} s")

    def close(self, *, kill: bool = False) -> None:
        """Leaves the cluster; the workers stay, and end what they are doing."""
        if self.mine:
            self.client.close()


def _gone(why) -> FpjaxError:
    return FpjaxError(f"the Dask scheduler is gone ({why}); what was done is kept, go on when it is back")


def _end(out: Future, result=None, error: BaseException | None = None) -> None:
    """Ends a future that may have ended already, in another thread."""
    with contextlib.suppress(InvalidStateError):
        out.set_result(result) if error is None else out.set_exception(error)


def _hand_on(inner, out: Future) -> None:
    """The outcome of Dask's future; whatever lost it (worker, scheduler) is a worker that was lost."""
    if inner.status == "finished":
        try:
            _end(out, inner.result())
        except BaseException as error:
            _end(out, error=WorkerLost(str(error)))
    elif inner.status == "error":
        error = inner.exception()
        _end(out, error=WorkerLost(str(error)) if type(error).__name__ == "KilledWorker" else error)
    else:
        _end(out, error=WorkDropped(f"its task was {inner.status}"))


@functools.cache
def _own_process() -> Local:
    # Dask's nanny marks its worker as a daemon, which may have no children; ours end with their parent by themselves.
    multiprocessing.current_process()._config["daemon"] = False  # pyright: ignore[reportAttributeAccessIssue]
    return Local(1)


def in_own_process(work: Work, cells: list[Cell], limit_s: float | None):
    """Runs on a Dask worker: the bundle in one process beside it."""
    return _own_process().submit(work, cells, limit_s).result()
