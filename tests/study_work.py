"""Work for studies that tests do in other processes: quick, slow, deadly."""

import os
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
    """A few milliseconds; says in a file that it was done."""
    time.sleep(0.003)
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


def main(path: str, n: str) -> None:
    """Runs or resumes a study of n noted cells."""
    engine = study.Local(2)
    try:
        with study.Store(path, create=True) as store:
            store.plan("", cells(int(n)))
            Path(path).with_suffix(".started").touch()
            study.run(store, engine, noted)
        engine.close()
    except FpjaxError as error:
        engine.close(kill=True)
        sys.exit(f"fpjax: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
