"""Work for studies that tests do in other processes: quick, slow, deadly."""

import os
import signal
import sys
import time
from pathlib import Path

from fpjax import study
from fpjax.evidence import FpjaxError
from fpjax.study.plan import Cell


def cells(n: int) -> list[Cell]:
    """n different cells that no model is needed for."""
    return [Cell("m", "card", "ddim", 5, 1.0, 0, "float64", "auto", "digits", i, 1) for i in range(n)]


def square(cell: Cell) -> list[dict]:
    """At once."""
    return [{"step": 1, "value": float(cell.first**2)}]


def noted(cell: Cell) -> list[dict]:
    """A tenth of a second; says in a file that it was done."""
    time.sleep(0.1)
    fd = os.open(os.environ["FPJAX_TEST_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{cell.first}\n".encode())
    os.close(fd)
    return square(cell)


def slow(cell: Cell) -> list[dict]:
    """A fifth of a second."""
    time.sleep(0.2)
    return square(cell)


def naughty(cell: Cell) -> list[dict]:
    """Cell 3 kills its worker, 5 hangs, 7 raises, 8 tells, 9 has no memory; the others are good."""
    if cell.first == 3:
        os.kill(os.getpid(), 9)
    if cell.first == 5:
        time.sleep(600)
    if cell.first == 7:
        raise ZeroDivisionError("seven")
    if cell.first == 8:
        raise FpjaxError("eight is not for us")
    if cell.first == 9:
        raise MemoryError
    return square(cell)


def greedy(cell: Cell) -> list[dict]:
    """Cell 2 asks for more than its process may have; 4 too, in a way that ends the process (as the kernel would)."""
    import resource

    if cell.first in (2, 4):
        held = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (held + (64 << 20), resource.RLIM_INFINITY))
        try:
            hoard = [bytearray(1 << 20) for _ in range(1000)]
        except MemoryError:
            if cell.first == 4:
                os.kill(os.getpid(), 9)
            raise
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        del hoard
    return square(cell)


def dies_in_sql(store: study.Store, word: str, after: int) -> None:
    """Kills this process when its ``after``-th statement that starts with ``word`` is about to run."""
    left = [after]

    def heard(sql: str) -> None:
        left[0] -= sql.lstrip().startswith(word)
        if left[0] < 0:
            os.kill(os.getpid(), 9)

    store.db.set_trace_callback(heard)


def main(path: str, n: str, word: str = "", after: str = "0") -> None:
    """Runs or resumes a study of n noted cells; with a word, dies in the middle of a write."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    engine = study.Local(2)
    try:
        with study.Store(path, create=True) as store:
            store.plan("", cells(int(n)))
            Path(path).with_suffix(".started").touch()
            if word:
                dies_in_sql(store, word, int(after))
            study.run(store, engine, noted)
        engine.close()
    except (FpjaxError, KeyboardInterrupt) as error:
        engine.close(kill=True)
        sys.exit(f"fpjax: {str(error) or type(error).__name__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
