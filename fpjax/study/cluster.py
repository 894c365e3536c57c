"""A Dask cluster as the engine of a study: the same cells, on workers that Dask started wherever it can.

Each Dask worker does a bundle in a process of its own, so that a cell which hangs or dies takes nothing with it. Not in
this room: starting clusters (dask's own deployers for Kubernetes, Slurm, YARN do that).
"""

import contextlib
import functools
import multiprocessing
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import Future, InvalidStateError
from typing import Any

from fpjax.evidence import FpjaxError
from fpjax.study.engine import Local, Work
from fpjax.study.plan import Cell
from fpjax.study.pool import WorkDropped, WorkerLost

PATIENCE_S = 60  # for a scheduler that does not answer
ASK_S = 1.0  # between two questions who the workers are
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
            from distributed import Client, Security
        except ImportError:
            raise FpjaxError("clusters need Dask; install it by: pip install 'fpjax[cluster]'") from None
        self.mine = not isinstance(scheduler, Client)
        self.flying: dict[Future, Any] = {}
        self.workers_seen, self.asked, self.threads = time.monotonic(), -ASK_S, {}
        if self.mine and scheduler.startswith("tls:"):
            _certificate(scheduler, Security())
        try:
            self.client = Client(scheduler, timeout=PATIENCE_S, set_as_default=False) if self.mine else scheduler
            self.client.wait_for_workers(1, timeout=PATIENCE_S)
        except (OSError, TypeError, ValueError, TimeoutError) as error:
            raise FpjaxError(f"no Dask scheduler with workers answers at {scheduler}: {error}") from None

    @property
    def workers(self) -> int:
        """How many cells are done at once, now."""
        return max(1, sum(self._threads().values()))

    def submit(self, work: Work, cells: list[Cell], limit_s: float | None) -> Future:
        """See :class:`fpjax.study.engine.Engine`."""
        out: Future = Future()
        self._alive()
        try:
            key = f"fpjax-{uuid.uuid4()}"
            inner = self.client.submit(in_own_process, work, cells, limit_s, self._beside(), key=key, pure=False)
        except Exception as error:
            raise _gone(error) from None
        self.flying[out] = inner
        inner.add_done_callback(functools.partial(_hand_on, out=out))
        return out

    def _threads(self) -> dict[str, int]:
        """The threads of each worker, asked anew every ASK_S: the scheduler's time is the cells' where it shares their cores."""
        now = time.monotonic()
        if now - self.asked > ASK_S:
            found: Any = self.client.nthreads()
            self.threads, self.asked = {str(k): int(v) for k, v in found.items()}, now
        return self.threads

    def _beside(self) -> int:
        """How many cells are done at once on the machine where most are: its cores are divided by this."""
        machines: Counter = Counter()
        for address, threads in self._threads().items():
            machines[address.rpartition(":")[0]] += threads
        return max(machines.values(), default=1)

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
        if self.client.status == "connecting" or self._threads():
            self.workers_seen = time.monotonic()
        elif time.monotonic() - self.workers_seen > WORKERLESS_S:
            raise _gone(f"no worker for {WORKERLESS_S} s")

    def close(self, *, kill: bool = False) -> None:
        """Leaves the cluster; the workers stay, and end what they are doing."""
        if self.mine:
            self.client.close()


def _certificate(scheduler: str, security) -> None:
    """Asked first: a Client that fails for it cannot be closed, and says so as a traceback minutes later."""
    try:
        context = security.get_connection_args("client")["ssl_context"]
    except OSError as error:
        raise FpjaxError(f"cannot read the certificate for {scheduler}: {error}") from None
    if context is None:
        names = ", ".join(f"DASK_DISTRIBUTED__COMM__TLS__{name}" for name in ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY"))
        raise FpjaxError(f"{scheduler} asks for a certificate; name its files in {names}")


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


_own: list[Local] = []  # of a Dask worker: as many processes as it has threads, started with its first bundle
_lock = threading.Lock()


def in_own_process(work: Work, cells: list[Cell], limit_s: float | None, beside: int):
    """Runs on a Dask worker: the bundle in a process beside it."""
    with _lock:
        if not _own:
            from distributed import get_worker

            # Dask's nanny marks its worker as a daemon, which may have no children; ours end with their parent.
            multiprocessing.current_process()._config["daemon"] = False  # pyright: ignore[reportAttributeAccessIssue]
            _own.append(Local(get_worker().state.nthreads, beside))
    return _own[0].submit(work, cells, limit_s).result()
