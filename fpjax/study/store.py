"""A study's results in one SQLite file (write-ahead log): a cell that is reported as done is on disk.

In this room: every statement of SQL. One process writes; any number may read while it does. Not in this room: what a cell
is (plan), who does it (engine).
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from fpjax.evidence import FpjaxError
from fpjax.study.plan import Cell

VERSION = 2  # of the tables; a change adds a step to MIGRATIONS

TABLES = """
CREATE TABLE study (id INTEGER PRIMARY KEY CHECK (id = 1), text TEXT NOT NULL);
CREATE TABLE cell (
  key TEXT PRIMARY KEY,
  place INTEGER,                      -- in the plan; NULL once the plan no longer asks for it
  spec TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'done', 'failed')),
  seconds REAL,
  error TEXT,
  rows TEXT,
  compile_s REAL,                     -- part of seconds
  peak_bytes INTEGER
) WITHOUT ROWID;
CREATE INDEX cell_by_state ON cell (state, place);
CREATE TABLE tally (state TEXT PRIMARY KEY, cells INTEGER NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID;
INSERT INTO tally VALUES ('open', 0, 0), ('done', 0, 0), ('failed', 0, 0);
CREATE TRIGGER counted_in AFTER INSERT ON cell BEGIN
  UPDATE tally SET cells = cells + 1, seconds = seconds + coalesce(new.seconds, 0) WHERE state = new.state;
END;
CREATE TRIGGER counted_out AFTER DELETE ON cell BEGIN
  UPDATE tally SET cells = cells - 1, seconds = seconds - coalesce(old.seconds, 0) WHERE state = old.state;
END;
CREATE TRIGGER counted_over AFTER UPDATE OF state, seconds ON cell BEGIN
  UPDATE tally SET cells = cells - 1, seconds = seconds - coalesce(old.seconds, 0) WHERE state = old.state;
  UPDATE tally SET cells = cells + 1, seconds = seconds + coalesce(new.seconds, 0) WHERE state = new.state;
END;
"""

RUN = """
CREATE TABLE run (                    -- the run that goes on, or the last one
  id INTEGER PRIMARY KEY CHECK (id = 1),
  workers INTEGER NOT NULL,
  ended INTEGER NOT NULL,             -- cells so far
  elapsed REAL NOT NULL,              -- seconds so far, of a clock that nobody sets
  seen REAL NOT NULL                  -- when it last gave a sign of life, seconds since 1970
);
"""
TABLES += RUN

# version -> the SQL that brings its tables to the next version
MIGRATIONS: dict[int, str] = {
    1: "ALTER TABLE cell ADD COLUMN compile_s REAL; ALTER TABLE cell ADD COLUMN peak_bytes INTEGER;" + RUN,
}


class Result(NamedTuple):
    """How one cell ended. Exactly one of rows and error is given.

    Attributes:
      seconds: of work. compile_s: those of them that went into compiling.
      peak_bytes: the most memory that its process held.
    """

    key: str
    rows: list[dict[str, Any]] | None
    error: str | None
    seconds: float
    compile_s: float = 0.0
    peak_bytes: int = 0


class Tally(NamedTuple):
    """How far a study is: cells that wait, are done, have failed, and the seconds of work in those that ended."""

    open: int
    done: int
    failed: int
    seconds: float

    @property
    def cells(self) -> int:
        """All of them."""
        return self.open + self.done + self.failed


class Pace(NamedTuple):
    """How fast a run goes: workers, cells that ended in it, seconds it took for them, and when it was last heard of
    (seconds since 1970; this clock can be set, so it is only ever shown)."""

    workers: int
    ended: int
    elapsed: float
    seen: float

    @property
    def cells_per_s(self) -> float:
        """Throughput."""
        return self.ended / max(self.elapsed, 1e-9)

    def left_s(self, tally: Tally) -> float | None:
        """Seconds until the open cells are done at this pace; None before the first has ended."""
        return tally.open / self.cells_per_s if self.ended else None


class Store:
    """The file of one study.

    Raises:
      FpjaxError: if the file is no study, comes from a newer fpjax, or cannot be opened or written.
    """

    def __init__(self, path: str | Path, *, create: bool = False):
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise FpjaxError(f"there is no study at {self.path}; start one by: fpjax study run FILE.toml")
        self.read_only = False
        try:
            try:
                self.db = self._connect()
                self.db.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if create or not any(word in str(error) for word in ("readonly", "unable to open")):
                    raise
                self.read_only = True
                self.db = self._connect()
            self._open(create)
        except sqlite3.Error as error:
            raise _told(self.path, error) from None

    def _connect(self) -> sqlite3.Connection:
        """A connection; where nothing may be written, one that needs no files beside (nobody can write it then, unless a
        log of writes is there: that is read too)."""
        if not self.read_only:
            return sqlite3.connect(self.path, isolation_level=None, timeout=30)
        alone = not Path(f"{self.path}-wal").exists()
        mode = "immutable=1" if alone else "mode=ro"
        return sqlite3.connect(f"file:{quote(str(self.path))}?{mode}", uri=True, isolation_level=None, timeout=30)

    def _open(self, create: bool) -> None:
        self.db.execute("PRAGMA synchronous = FULL")  # a commit survives a power failure, not only a crash
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        empty = not self.db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        if empty and create:
            self.db.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
            version = VERSION
        elif empty or version == 0:
            raise FpjaxError(f"{self.path} is not a study of fpjax; name another file")
        if version > VERSION:
            raise FpjaxError(
                f"{self.path} was written by a newer fpjax (tables {version}, here {VERSION}); update fpjax"
            )
        for old in range(version, VERSION):
            self.db.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[old]} PRAGMA user_version = {old + 1}; COMMIT;")

    def close(self) -> None:
        """Closes the file."""
        self.db.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _do(self, work):
        """One transaction: all of it or nothing."""
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                out = work(self.db)
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
            return out
        except sqlite3.Error as error:
            raise _told(self.path, error) from None

    def plan(self, text: str, cells: Iterable[Cell]) -> None:
        """Makes this the plan: cells that are already there keep their result, those not asked for lose their place."""

        def work(db):
            db.execute("INSERT OR REPLACE INTO study VALUES (1, ?)", (text,))
            db.execute("UPDATE cell SET place = NULL WHERE place IS NOT NULL")
            told = ((c.key, i, json.dumps(c.spec)) for i, c in enumerate(cells))
            db.executemany(
                "INSERT INTO cell (key, place, spec, state) VALUES (?, ?, ?, 'open') "
                "ON CONFLICT (key) DO UPDATE SET place = excluded.place, spec = excluded.spec",
                told,
            )

        self._do(work)

    def text(self) -> str:
        """The TOML text of the study."""
        rows = self._ask("SELECT text FROM study")
        if not rows:
            raise FpjaxError(f"{self.path} holds no study yet; start one by: fpjax study run FILE.toml")
        return rows[0][0]

    def open_cells(self, most: int, after: int = -1) -> list[tuple[int, Cell]]:
        """The next cells that wait, as (place, cell), in the order of the plan."""
        found = self._ask(
            "SELECT place, spec FROM cell WHERE state = 'open' AND place > ? ORDER BY place LIMIT ?", (after, most)
        )
        return [(place, Cell(**json.loads(spec))) for place, spec in found]

    def finish(self, results: Iterable[Result], pace: "Pace | None" = None) -> None:
        """Writes how cells ended, and how fast. On disk when this returns; a cell that has ended stays as it is."""
        told = [("failed" if r.error is not None else "done", r.error, _text(r.rows), *r[3:], r.key) for r in results]
        sql = (
            "UPDATE cell SET state = ?, error = ?, rows = ?, seconds = ?, compile_s = ?, peak_bytes = ? "
            "WHERE key = ? AND state = 'open'"
        )

        def work(db):
            db.executemany(sql, told)
            if pace is not None:
                db.execute("INSERT OR REPLACE INTO run VALUES (1, ?, ?, ?, ?)", pace)

        self._do(work)

    def reopen_failed(self) -> int:
        """Puts failed cells back in the queue; how many."""
        sql = (
            "UPDATE cell SET state = 'open', seconds = NULL, error = NULL WHERE state = 'failed' AND place IS NOT NULL"
        )
        return self._do(lambda db: db.execute(sql).rowcount)

    def collect(self) -> int:
        """Deletes the cells that the plan does not ask for, and gives their room back; how many."""
        gone = self._do(lambda db: db.execute("DELETE FROM cell WHERE place IS NULL").rowcount)
        try:
            self.db.execute("VACUUM")
        except sqlite3.Error as error:
            raise _told(self.path, error) from None
        return gone

    def tally(self) -> Tally:
        """How far the study is; the counts are kept up to date, so this reads three rows."""
        rows = {state: (n, s) for state, n, s in self._ask("SELECT state, cells, seconds FROM tally")}
        return Tally(rows["open"][0], rows["done"][0], rows["failed"][0], rows["done"][1] + rows["failed"][1])

    def pace(self) -> Pace | None:
        """How fast the run goes, or the last one went; None if there was none."""
        rows = self._ask("SELECT workers, ended, elapsed, seen FROM run")
        return Pace(*rows[0]) if rows else None

    def costs(self) -> list[tuple[Cell, float, float, int]]:
        """(cell, seconds, compile_s, peak_bytes) of the done cells that were measured, in the order of the plan."""
        found = self._ask(
            "SELECT spec, seconds, compile_s, peak_bytes FROM cell "
            "WHERE state = 'done' AND peak_bytes > 0 AND compile_s IS NOT NULL ORDER BY place"
        )
        return [(Cell(**json.loads(spec)), *cost) for spec, *cost in found]

    def results(self, state: str = "done") -> Iterator[tuple[Cell, list[dict] | None, str | None]]:
        """(cell, rows, error) of the plan's cells in a state, in the order of the plan."""
        sql = "SELECT spec, rows, error FROM cell WHERE state = ? AND place IS NOT NULL ORDER BY place"
        try:
            with closing(self._connect()) as db:
                for spec, rows, error in db.execute(sql, (state,)):
                    yield Cell(**json.loads(spec)), None if rows is None else json.loads(rows), error
        except sqlite3.Error as error:
            raise _told(self.path, error) from None

    def _ask(self, sql: str, values=()) -> list:
        try:
            return self.db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise _told(self.path, error) from None


def _text(rows) -> str | None:
    return None if rows is None else json.dumps(rows, allow_nan=False)


def _told(path: Path, error: sqlite3.Error) -> FpjaxError:
    """What SQLite says, in one sentence that says what to do."""
    text = str(error)
    advice = {
        "full": "make room on the disk and run the study again; nothing that was done is lost",
        "readonly": "make the file and its folder writable",
        "unable to open": "name a file in a folder that can be written",
        "locked": "another process writes to it; wait for it, or end it",
        "not a database": "it is not a study; name another file",
        "malformed": "it is damaged; start again from a copy",
        "disk I/O": "look at the disk, then run the study again",
    }
    what = next((a for key, a in advice.items() if key in text), "run the study again")
    return FpjaxError(f"the study {path} cannot be used ({text}): {what}")
