"""Studies outlive what happens to machines: killed processes, full disks, read-only folders, clocks that jump."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import study_work
from test_study import made, table

from fpjax import study
from fpjax.evidence import FpjaxError

FULL = bool(os.environ.get("FPJAX_FULL"))


def done_cells(path: Path) -> list[int]:
    """The cells that the file says are done."""
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'cell'").fetchone():
            return []
        return [json.loads(s)["first"] for (s,) in db.execute("SELECT spec FROM cell WHERE state = 'done'")]


class Chaos:
    """A study of n cells in another process, which writes down whatever it does, and what it had reported as done when
    somebody last looked."""

    def __init__(self, folder: Path, n: int):
        self.n, self.path, self.log = n, folder / "s.sqlite", folder / "log"
        self.log.touch()
        self.env = {**os.environ, "FPJAX_TEST_LOG": str(self.log)}
        self.reported: dict[int, int] = {}

    def start(self, *more: str) -> subprocess.Popen:
        """A coordinator with two workers."""
        self.path.with_suffix(".started").unlink(missing_ok=True)
        command = [sys.executable, study_work.__file__, str(self.path), str(self.n), *more]
        return subprocess.Popen(command, env=self.env, stderr=subprocess.PIPE, text=True)

    def working(self, child: subprocess.Popen) -> None:
        """Waits until it plans no more."""
        while not self.path.with_suffix(".started").exists() and child.poll() is None:
            time.sleep(0.01)

    def getting_on(self, child: subprocess.Popen) -> None:
        """Waits until its workers have done something."""
        before = self.log.stat().st_size
        while self.log.stat().st_size == before and child.poll() is None:
            time.sleep(0.01)

    def writing(self) -> None:
        """Waits for a write to begin."""
        wal, until = Path(f"{self.path}-wal"), time.monotonic() + 2

        def state():
            with contextlib.suppress(OSError):
                found = wal.stat()
                return found.st_mtime_ns, found.st_size
            return None

        before = state()
        while state() == before and time.monotonic() < until:
            pass

    def look(self) -> None:
        """After everything ended: what is done was done, once for each time that is in the log."""
        deadline = time.monotonic() + 30
        while self.workers_left() and time.monotonic() < deadline:
            time.sleep(0.05)  # orphans notice within a second
        times = Counter(self.log.read_text().split())
        done = done_cells(self.path)
        assert all(times[str(i)] for i in done)
        for i, before in self.reported.items():
            assert times[str(i)] == before, f"cell {i} was done again after it had been reported"
        assert set(self.reported) <= set(done), "a cell that was done is lost"
        self.reported = {i: times[str(i)] for i in done}

    def workers_left(self) -> list[int]:
        """Processes of this study."""
        found = []
        for p in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                text = (p / "environ").read_bytes()
                if f"FPJAX_TEST_LOG={self.log}".encode() in text and (p / "stat").read_text().split(") ")[1][0] != "Z":
                    found.append(int(p.name))
        return found

    def finish(self, whole: Path) -> None:
        """Resumes to the end; the table is the uninterrupted one."""
        child = self.start()
        errors = child.communicate()[1]
        assert child.returncode == 0, errors[-500:]
        self.look()
        assert len(self.reported) == self.n
        assert table(self.path) == table(whole)


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_kill_9_at_any_moment_loses_and_doubles_nothing(tmp_path):
    """Coordinators while they start, work and write, and workers, by the dozen. After each kill of a coordinator: what the
    file says is done stays done, and is never done again. At the end the table equals the uninterrupted one."""
    n, kills, rng = (3000, 200, random.Random(1)) if FULL else (200, 8, random.Random(1))
    made(tmp_path / "whole.sqlite", n)
    chaos, killed = Chaos(tmp_path, n), Counter()
    while killed.total() < kills:
        child = chaos.start()
        when = rng.choice(["starting", "working", "working", "writing", "writing"])
        if when != "starting":
            chaos.working(child)
            if rng.random() < 0.8:
                chaos.getting_on(child)
            for _ in range(rng.choice([0, 0, 1, 2])):
                time.sleep(rng.random() * 0.8)
                workers = [pid for pid in chaos.workers_left() if pid != child.pid]
                if workers:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(rng.choice(workers), signal.SIGKILL)
                        killed["worker"] += 1
        time.sleep(rng.random() * 0.6)
        if when == "writing":
            chaos.writing()
        assert child.poll() is None, f"it came to its end after {killed}: too few cells"
        child.kill()
        child.communicate()
        killed[when] += 1
        chaos.look()
    print(f"killed: {dict(killed)}, {killed.total()} in all")
    chaos.finish(tmp_path / "whole.sqlite")
    assert {"worker", "working", "writing"} <= set(killed)


@pytest.mark.parametrize(("word", "after"), [("BEGIN", 2), ("UPDATE cell", 30), ("COMMIT", 2)])
def test_a_kill_inside_a_write_leaves_all_of_it_or_nothing(word, after, tmp_path):
    made(tmp_path / "whole.sqlite", 60)
    chaos = Chaos(tmp_path, 60)
    child = chaos.start(word, str(after))
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    chaos.look()
    chaos.finish(tmp_path / "whole.sqlite")


def test_sigterm_ends_a_study_with_everything_on_disk(tmp_path):
    made(tmp_path / "whole.sqlite", 60)
    chaos = Chaos(tmp_path, 60)
    child = chaos.start()
    chaos.working(child)
    while not chaos.log.read_text():
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    assert "KeyboardInterrupt" in child.communicate(timeout=60)[1]
    chaos.look()
    chaos.finish(tmp_path / "whole.sqlite")


def test_a_worker_killed_while_it_has_nothing_to_do_is_replaced(tmp_path):
    """Between two studies of one engine; the next one does not notice."""
    engine = study.Local(2)
    for name in ("first", "second"):
        with study.Store(tmp_path / name, create=True) as store:
            store.plan("", study_work.cells(40))
            assert study.run(store, engine, study_work.square).done == 40
        for worker in list(engine.pool.workers):
            worker.process.kill()
            worker.process.join()
    engine.close()


def test_a_clock_that_is_set_ends_no_cell(tmp_path, monkeypatch):
    """Forward by a day and back, every few milliseconds, in the coordinator; limits run on."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + random.choice([-86400, 0, 86400]))
    tally = made(tmp_path / "s.sqlite", 12, study_work.naughty, cell_s=4.0, tries=2)
    assert (tally.open, tally.done, tally.failed) == (0, 7, 5)
    with study.Store(tmp_path / "s.sqlite") as store:
        assert {c.first for c, _, why in store.results("failed") if "budget" in (why or "")} == {5}
        assert store.pace().elapsed < 600
        assert store.pace().cells_per_s > 0


def test_a_worker_without_memory_costs_its_cell_only(tmp_path):
    """One that is refused memory says so; one that the kernel would end is tried again, then given up."""
    tally = made(tmp_path / "s.sqlite", 20, study_work.greedy, tries=2)
    assert (tally.open, tally.done, tally.failed) == (0, 18, 2)
    with study.Store(tmp_path / "s.sqlite") as store:
        why = {c.first: text for c, _, text in store.results("failed")}
    assert "not enough memory" in why[2]
    assert why[4].startswith("its worker died 2 times")


def test_a_full_disk_is_one_sentence_and_the_study_goes_on_later(tmp_path):
    n, path = 3000, tmp_path / "s.sqlite"
    made(tmp_path / "whole.sqlite", n)
    env = {**os.environ, "FPJAX_TEST_LOG": os.devnull}
    limited = (
        "import resource, signal, runpy, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY)); "
        "sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0]); import study_work; "
        "study_work.noted = study_work.square; study_work.main(*sys.argv[1:])"
    )
    command = [sys.executable, "-c", limited, study_work.__file__, str(path), str(n)]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=200)
    assert run.returncode == 1
    assert run.stderr.startswith("fpjax: the study ")
    assert "Traceback" not in run.stderr
    assert made(path, n).done == n
    assert table(path) == table(tmp_path / "whole.sqlite")


@pytest.fixture
def read_only():
    """A folder with a finished study that this process cannot write to. Root can write everywhere: for a while, it is not
    root (pytest's own folders are closed to others, so this one is not among them)."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made(folder / "s.sqlite", 5)
        (folder / "s.sqlite").chmod(0o444)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        yield folder
        os.seteuid(user)
        folder.chmod(0o755)


def test_a_read_only_folder_can_be_asked_and_refuses_work_in_one_sentence(read_only):
    with study.Store(read_only / "s.sqlite") as store:
        assert store.tally().done == 5
        assert len(list(store.results())) == 5
        with pytest.raises(FpjaxError, match="make the file and its folder writable"):
            store.plan("", study_work.cells(9))
    with pytest.raises(FpjaxError, match="folder that can be written"):
        study.Store(read_only / "new.sqlite", create=True)
