"""Processes on this machine that do bundles of cells, each at the end of a pipe of its own.

In this room: starting, feeding, timing and replacing them. Nothing is shared between two processes, so that one killed at
any moment, in the middle of a message even, leaves no lock behind and takes nobody along; limits are counted on the
monotonic clock, so that setting the machine's clock ends no cell. Not in this room: which cells, and what is kept of them
(engine).
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

TICK_S = 1.0  # how often a worker looks whether its coordinator is alive
START_S = 600.0  # a process that has not started by then never will
READY = "ready"


class WorkerLost(Exception):
    """The process that did a bundle is gone; the cells may be tried again."""


class WorkDropped(WorkerLost):
    """A bundle was lost through no fault of its cells (a scheduler that was started again, say)."""


class Task(NamedTuple):
    """A call, the future of its result, and the most seconds that it may take."""

    out: Future
    function: Callable
    args: tuple
    limit_s: float | None


class _Worker:
    """A process, its pipe, and what it does now."""

    def __init__(self, cores: int):
        spawn = multiprocessing.get_context("spawn")  # afresh, so that none inherits a half-locked JAX
        self.pipe, theirs = spawn.Pipe()
        self.process = spawn.Process(target=serve, args=(theirs, os.getpid(), cores), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.task: Task | None = None
        self.deadline = time.monotonic() + START_S
        self.ready = False  # the time that a process takes to start is not the cell's

    def begin(self, task: Task) -> bool:
        """Sends a task; False if it is none that can be sent. A dead process is found out by :meth:`end`."""
        try:
            self.pipe.send((task.function, task.args))
        except OSError:
            pass
        except Exception as error:  # a function that cannot be pickled
            _end(task.out, error=error)
            return False
        self.task = task
        if self.ready:
            self._time()
        return True

    def _time(self) -> None:
        """Sets the deadline of what it does now."""
        limit = None if self.task is None else self.task.limit_s
        self.deadline = float("inf") if limit is None else time.monotonic() + limit

    def end(self) -> bool:
        """Takes the message that the pipe holds; False if the process is gone, and the task with it."""
        try:
            message = self.pipe.recv()
            if message == READY:
                self.ready = True
                self._time()
                return True
            result, error = message
        except (EOFError, OSError):
            self.kill()
            if self.task is not None:
                _end(self.task.out, error=WorkerLost(f"exit code {self.process.exitcode}"))
            return False
        except Exception as problem:  # an answer that cannot be read here
            result, error = None, problem
        assert self.task is not None
        _end(self.task.out, result, error)
        self.task, self.deadline = None, float("inf")
        return True

    def kill(self) -> None:
        """Ends the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _end(out: Future, result=None, error: BaseException | None = None) -> None:
    with contextlib.suppress(Exception):  # whoever waited may have given up
        out.set_result(result) if error is None else out.set_exception(error)


class Pool:
    """``workers`` processes, started when there is work and replaced when they die.

    Args:
      workers: how many. cores: how many threads of XLA and BLAS each may use.
    """

    def __init__(self, workers: int, cores: int):
        self.size, self.cores = workers, cores
        self.todo: deque[Task] = deque()
        self.workers: list[_Worker] = []
        self.ending: str | None = None
        self.heard, self.bell = multiprocessing.Pipe(duplex=False)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def submit(self, function: Callable, *args: Any, limit_s: float | None = None) -> Future:
        """The future of ``function(*args)``: its result, what it raised, TimeoutError or :class:`WorkerLost`."""
        task = Task(Future(), function, args, limit_s)
        self.todo.append(task)
        self.bell.send_bytes(b"!")
        return task.out

    def close(self, *, kill: bool = False) -> None:
        """Ends the processes, at once or when there is nothing left to do."""
        self.ending = "now" if kill else "idle"
        self.bell.send_bytes(b"!")
        self.thread.join()

    def _serve(self) -> None:
        while not self._finished():
            self._feed()
            due = min([w.deadline for w in self.workers], default=float("inf")) - time.monotonic()
            pipes: dict[Any, _Worker | None] = {w.pipe: w for w in self.workers}
            for ready in wait([*pipes, self.heard], None if due == float("inf") else max(due, 0.0)):
                worker = pipes.get(ready)
                if worker is None:
                    self.heard.recv_bytes()
                elif not worker.end():
                    self.workers.remove(worker)
            self._overdue()
        for worker in self.workers:
            worker.kill()
            if worker.task is not None:
                _end(worker.task.out, error=WorkerLost("the study was ended"))

    def _finished(self) -> bool:
        busy = self.todo or any(w.task for w in self.workers)
        return self.ending == "now" or (self.ending == "idle" and not busy)

    def _feed(self) -> None:
        """Gives every idle worker a task, and starts those that are missing while there is work for them."""
        idle = [w for w in self.workers if w.task is None]
        while self.todo:
            if not idle:
                if len(self.workers) >= self.size:
                    return
                idle.append(_Worker(self.cores))
                self.workers.append(idle[-1])
            if idle[-1].begin(self.todo.popleft()):
                idle.pop()

    def _overdue(self) -> None:
        now = time.monotonic()
        for worker in [w for w in self.workers if w.deadline <= now]:
            worker.kill()
            self.workers.remove(worker)
            if worker.task is not None:
                _end(worker.task.out, error=TimeoutError() if worker.ready else WorkDropped("it did not start"))


def serve(pipe: Connection, parent: int, cores: int) -> None:
    """The main function of a worker: calls come in, results or what they raised go out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the coordinator decides
    _die_with(parent)
    share(cores)
    with contextlib.suppress(OSError):
        pipe.send(READY)
    while True:
        try:
            function, args = pipe.recv()
            answer = (function(*args), None)
        except EOFError:
            return  # the coordinator is gone
        except Exception as error:
            answer = (None, error)
        try:
            pipe.send(answer)
        except OSError:
            return
        except Exception as error:  # an answer that cannot be pickled
            pipe.send((None, RuntimeError(f"{type(error).__name__}: {error}"[:500])))


def share(cores: int) -> None:
    """Limits the threads that XLA's CPU client and BLAS start in this process: workers that each use every core of the
    machine slow each other. Before JAX has made its first array."""
    from threadpoolctl import threadpool_limits

    os.environ.setdefault("NPROC", str(cores))  # the size of XLA's thread pool
    threadpool_limits(cores)


def _die_with(parent: int) -> None:
    """A worker whose coordinator was killed ends too, instead of working on for nobody."""

    def watch():
        while os.getppid() == parent:
            time.sleep(TICK_S)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
