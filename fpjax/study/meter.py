"""What a piece of work costs: its time, how much of that went into compiling, and the most memory the process held.

In this room: clocks and counters of the operating system and of JAX. Not in this room: what will be predicted from them
(cost).
"""

import contextlib
import functools
import resource
import sys
import time
from pathlib import Path

COMPILING = "/jax/core/compile/"  # the events of JAX that make up a compilation: tracing, lowering, XLA
PROC = Path("/proc/self")


class _Compiling:
    """The time spent in events, one inside another counted once."""

    def __init__(self):
        self.spans: list[tuple[float, float]] = []

    def heard(self, event: str, duration_secs: float, **_) -> None:
        """JAX tells of an event when it ends."""
        if event.startswith(COMPILING):
            now = time.perf_counter()
            while self.spans and self.spans[-1][0] >= now - duration_secs:
                self.spans.pop()
            self.spans.append((now - duration_secs, now))

    def read(self) -> float:
        """The seconds since the last reading."""
        total, self.spans = sum(end - start for start, end in self.spans), []
        return total


_compiling = _Compiling()


@functools.cache
def listen() -> None:
    """Makes JAX tell this process of its compilations; called by work that uses JAX, so that other work need not load it."""
    import jax.monitoring

    jax.monitoring.register_event_duration_secs_listener(_compiling.heard)


class Meter:
    """Measures what happens between entering and leaving it, in this process."""

    def __enter__(self):
        _compiling.read()
        _forget_peak()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.start
        self.compile_s = min(_compiling.read(), self.seconds)
        self.peak_bytes = peak_bytes()

    def read(self) -> tuple[float, float, int]:
        """Seconds in all, seconds of them that went into compiling, and the most bytes of memory held at once."""
        return self.seconds, self.compile_s, self.peak_bytes


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        (PROC / "clear_refs").write_text("5")  # Linux: the peak starts again from what is held now


def peak_bytes() -> int:
    """The most memory that this process held, since :class:`Meter` was entered where the system can tell (Linux)."""
    try:
        line = next(x for x in (PROC / "status").read_text().splitlines() if x.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    except (OSError, StopIteration):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
