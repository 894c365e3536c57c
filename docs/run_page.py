"""Runs pages of the docs word for word: python docs/run_page.py [PAGE ...] [--installed] [--jobs N] [--part K/N] [--list]

In an empty folder. A python block that starts with ``# name.py`` is written to that file, any other python block is run, all of
a page in one namespace; an sh block is run by bash. Each line of the text block after it must be found in what it printed:
… stands for anything, whole numbers must be the same, others to one per cent, or both below 1e-6 (rounding). Comments in
front of a block say more:

    <!-- file: study.toml -->             the block is the content of that file
    <!-- run: torch -->                   run only where the page's environment has this module
    <!-- not run: needs two machines -->  never run here; --list prints every such block with its reason

With --installed the present environment is used and ``pip install`` is left out; without it, for one page, the wheel is built
first, and the page's ``pip install`` finds it, in a fresh virtual environment. Without pages, every page and the README, each
in a Python of its own, --jobs of them at once; with --part every N-th of them. --until HEADING stops before that section.
"""

import argparse
import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import venv
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(
    r"^(?:<!-- (file|run|not run): ([^\n]*?) -->\n+)?```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
SMALL, RELATIVE = 1e-6, 1e-2


class PageError(Exception):
    """The page and the program disagree."""


class Block(NamedTuple):
    """A fenced block: its language, its text, and the comment before it ("file", "run", "not run" or "", and its words)."""

    language: str
    text: str
    mark: str = ""
    words: str = ""


def blocks(page: str) -> list[Block]:
    """Every fenced block, in order."""
    return [Block(language, text, mark, words) for mark, words, language, text in BLOCK.findall(page)]


def pages() -> list[Path]:
    """The README and every page of the docs."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def same_number(wanted: str, printed: str) -> bool:
    """Whole numbers exactly; others to one per cent, or both of the size of rounding."""
    if re.fullmatch(r"[-+]?\d+", wanted):
        return wanted == printed
    a, b = float(wanted), float(printed)
    return max(abs(a), abs(b)) < SMALL or abs(a - b) <= RELATIVE * max(abs(a), abs(b))


def _found(line: str, printed: str) -> bool:
    """Whether a line of a text block is among what was printed."""
    numbers, parts, last = [], [], 0
    for match in [*NUMBER.finditer(line), None]:
        words = line[last : match.start() if match else len(line)]
        parts.append(".*".join(re.escape(part) for part in words.split("…")))
        if match:
            numbers.append(match[0])
            parts.append(rf"({NUMBER.pattern})")
            last = match.end()
    hits = re.finditer("".join(parts), printed)
    return any(all(same_number(a, b) for a, b in zip(numbers, hit.groups(), strict=True)) for hit in hits)


def missing(wanted: str, printed: str) -> list[str]:
    """The lines of a text block that were not printed."""
    flat = re.sub(r"[ \t]+", " ", printed)
    return [line for line in wanted.splitlines() if not _found(re.sub(r"[ \t]+", " ", line.strip()), flat)]


def _wanted(block: Block, skip_install: bool) -> bool:
    """Whether a block is for this environment."""
    if block.mark == "not run":
        return False
    if block.language == "sh" and skip_install and block.text.startswith("pip install"):
        return False
    return block.mark != "run" or not skip_install or importlib.util.find_spec(block.words) is not None


def _python(text: str, names: dict, where: str) -> str:
    """Runs a block in the page's namespace; what it printed."""
    out = io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(text, where, "exec"), names)
    except Exception as error:
        raise PageError(f"{where} fails: {type(error).__name__}: {error}\n{text}") from error
    return out.getvalue()


def run(page: str, folder: Path, environment: dict[str, str], skip_install: bool, say=print) -> None:
    """Carries out the blocks of a page in a folder.

    Raises:
      PageError: if a command printed something else than the page shows, or failed where the page shows no failure.
    """
    todo, names = blocks(page), {"__name__": "page"}
    for i, block in enumerate(todo):
        if not _wanted(block, skip_install):
            continue
        shown = todo[i + 1].text if i + 1 < len(todo) and todo[i + 1].language == "text" else ""
        name = re.match(r"# (\S+\.py)\n", block.text) if block.language == "python" else None
        if block.mark == "file" or name:
            (folder / (name[1] if name else block.words)).write_text(block.text)
        elif block.language == "python":
            with contextlib.chdir(folder):
                printed = _python(block.text, names, f"python block {i + 1}")
            if absent := missing(shown, printed):
                raise PageError("\n".join(["a python block differs from the page:", *absent, "it printed:", printed]))
        elif block.language == "sh":
            say(f"$ {block.text.strip()}")
            done = subprocess.run(
                ["bash", "-ec", block.text], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            failure_shown = re.search(r"REFUTED|failed", shown) is not None
            absent = missing(shown, done.stdout)
            if absent or (done.returncode != 0) != failure_shown:
                lines = "\n".join(absent) or f"(exit code {done.returncode})"
                raise PageError(f"{block.text.strip()} differs from the page: {lines}\n{done.stdout}\n{done.stderr}")


def fresh(folder: Path) -> dict[str, str]:
    """Builds the wheel, makes a virtual environment, and returns variables under which ``pip install fpjax`` finds it."""
    wheels = folder / "wheels"
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT)]
    subprocess.run(build, check=True)
    venv.create(folder / "environment", with_pip=True)
    links = " ".join(filter(None, [str(wheels), os.environ.get("PIP_FIND_LINKS", "")]))
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PYTEST_PLUGINS")}
    path = f"{folder / 'environment' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "PIP_FIND_LINKS": links, "VIRTUAL_ENV": str(folder / "environment")}


def present() -> dict[str, str]:
    """The environment of this Python, with this copy of fpjax and its plugin."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "PYTEST_PLUGINS": "fpjax.plugin"}


def run_file(path: Path, installed: bool, until: str | None = None, say=print) -> None:
    """Runs one page, or its part before a heading, in a folder that is deleted again.

    Raises:
      PageError: if the page is wrong, or has no such heading.
    """
    page = path.read_text(encoding="utf-8")
    if until is not None:
        page, found, _ = page.partition(f"\n## {until}\n")
        if not found:
            raise PageError(f"{path.name} has no section {until!r}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        folder.mkdir()
        environment = present() if installed else fresh(Path(name))
        run(page, folder, environment, installed, say)


def exceptions() -> list[str]:
    """Every block that is run only somewhere, or nowhere, and why."""
    return [
        f"{path.relative_to(ROOT)}: {block.mark}: {block.words}: {block.text.splitlines()[0]}"
        for path in pages()
        for block in blocks(path.read_text(encoding="utf-8"))
        if block.mark in ("run", "not run")
    ]


def _part(text: str) -> tuple[int, int]:
    """K and N of "K/N"."""
    first, stride = map(int, text.split("/"))
    if not 1 <= first <= stride:
        raise ValueError(text)
    return first, stride


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", type=Path, nargs="*", metavar="PAGE")
    parser.add_argument("--installed", action="store_true", help="use the present environment, install nothing")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="how many pages at once")
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="K/N", help="every N-th page, from the K-th on")
    parser.add_argument("--until", default=None, metavar="HEADING", help="stop before the section with this heading")
    parser.add_argument("--list", action="store_true", help="the blocks that are run only somewhere, or nowhere")
    options = parser.parse_args()
    if options.list:
        print("\n".join(exceptions()))
        return
    if not options.installed and len(options.pages) != 1:
        parser.error("give --installed, or one page")
    if len(options.pages) == 1:
        sys.exit(0 if run_one(options.pages[0], options) else 1)
    with ThreadPoolExecutor(options.jobs) as pool:
        first, stride = options.part
        chosen = (options.pages or pages())[first - 1 :: stride]
        done = {pool.submit(own_process, path): path for path in chosen}
        wrong = [done[future].name for future in as_completed(done) if not future.result()]
    sys.exit(", ".join(["wrong:", *sorted(wrong)]) if wrong else 0)


def run_one(path: Path, options: argparse.Namespace) -> bool:
    """Runs one page here and says how it went."""
    start = time.perf_counter()
    try:
        run_file(path, options.installed, options.until, say=lambda _: None if options.installed else print(_))
    except PageError as error:
        print(f"{path.name}: {error}", file=sys.stderr, flush=True)
        return False
    print(f"{path.name}: every step does what the page says ({time.perf_counter() - start:.1f} s)", flush=True)
    return True


def own_process(path: Path) -> bool:
    """Runs one page, with the present environment, in a new Python."""
    return subprocess.run([sys.executable, __file__, "--installed", str(path)], check=False).returncode == 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # this copy of fpjax, wherever the page is run
    main()
