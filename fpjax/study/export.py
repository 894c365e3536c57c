"""A study's results as one flat table: a line for each row of each finished cell, as CSV or Parquet."""

import csv
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fpjax.evidence import FpjaxError
from fpjax.study.store import Store

CELL = ("key", "model", "process", "steps", "guidance", "seed", "precision", "solver", "data", "first", "count")
ROW = ("step", "sigma_from", "sigma_to", "rho", "question", "theorem", "verdict", "value", "evidence", "detail")
TEXT = frozenset(
    ("key", "model", "process", "precision", "solver", "data", "question", "theorem", "verdict", "evidence", "detail")
)
WHOLE = frozenset(("steps", "seed", "first", "count", "step"))
TABLE_ROWS = 50_000  # lines held in memory at once


def lines(store: Store) -> Iterator[dict[str, Any]]:
    """The table's lines, in the order of the plan. What a round trip has of its own stands in ``detail``, as JSON."""
    for cell, rows, _ in store.results():
        head = {"key": cell.key, **{k: getattr(cell, k) for k in CELL[1:]}}
        for row in rows or []:
            line = head | {k: row.get(k) for k in ROW}
            if row.get("question") == "round-trip":
                line["value"] = row.get("max_error_solved")
                line["detail"] = json.dumps({k: v for k, v in row.items() if k != "question"})
            yield line


def export(store: Store, path: str | Path) -> int:
    """Writes the table; the file's ending says how. Complete or not there at all.

    Returns:
      The number of lines.

    Raises:
      FpjaxError: for another ending, a missing pyarrow, or a file that cannot be written.
    """
    path = Path(path)
    if path.suffix == ".csv":
        return _csv(store, path)
    if path.suffix == ".parquet":
        return _parquet(store, path)
    raise FpjaxError(f"a study is exported to a file that ends in .csv or .parquet, not to {path.name}")


def _csv(store: Store, path: Path) -> int:
    text, count = io.StringIO(newline=""), 0
    names: list[str] = [*CELL, *ROW]
    out = csv.DictWriter(text, names)
    out.writeheader()
    for line in lines(store):
        out.writerow(line)
        count += 1
    _write(path, text.getvalue().encode())
    return count


def _parquet(store: Store, path: Path) -> int:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise FpjaxError("Parquet needs pyarrow; install it by: pip install 'fpjax[parquet]'") from None
    kinds = {k: pa.string() if k in TEXT else pa.int64() if k in WHOLE else pa.float64() for k in CELL + ROW}
    schema, sink, count = pa.schema(list(kinds.items())), pa.BufferOutputStream(), 0
    with parquet.ParquetWriter(sink, schema) as out:
        flow = lines(store)
        while some := list(itertools.islice(flow, TABLE_ROWS)):
            out.write_table(pa.Table.from_pylist(some, schema=schema))
            count += len(some)
    _write(path, sink.getvalue().to_pybytes())
    return count


def _write(path: Path, blob: bytes) -> None:
    from fpjax.models.store import write_atomic  # loads JAX

    write_atomic(path, blob)
