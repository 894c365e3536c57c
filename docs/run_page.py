"""Runs a page of the docs word for word: python docs/run_page.py docs/property-tests.md [--installed] [--until HEADING]

In an empty folder: a python block that starts with ``# name.py`` is written to that file, an sh block is run, and each line
of the text block after it must be found in what it printed (… stands for anything). Without --installed the wheel is built
first, and the page's ``pip install`` finds it, in a fresh virtual environment; with it, the present environment is used
and ``pip install`` is left out.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(python|sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class PageError(Exception):
    """The page and the program disagree."""


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of every block, in order."""
    return BLOCK.findall(page)


def missing(wanted: str, printed: str) -> list[str]:
    """The lines of a text block that were not printed."""
    flat = re.sub(r"[ \t]+", " ", printed)

    def pattern(line):
        words = re.sub(r"[ \t]+", " ", line.strip())
        return ".*".join(re.escape(part) for part in words.split("…"))

    return [line for line in wanted.splitlines() if not re.search(pattern(line), flat)]


def run(page: str, folder: Path, environment: dict[str, str], skip_install: bool, say=print) -> None:
    """Carries out the blocks of a page in a folder.

    Raises:
      PageError: if a command printed something else than the page shows, or failed where the page shows no failure.
    """
    todo = blocks(page)
    for i, (language, text) in enumerate(todo):
        if language == "python":
            name = re.match(r"# (\S+\.py)\n", text)
            if name is None:
                raise PageError(f"a python block does not say its file: {text.splitlines()[0]}")
            (folder / name[1]).write_text(text)
        elif language == "sh":
            if skip_install and text.startswith("pip install"):
                continue
            say(f"$ {text.strip()}")
            done = subprocess.run(
                ["bash", "-ec", text], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            shown = todo[i + 1][1] if i + 1 < len(todo) and todo[i + 1][0] == "text" else ""
            failure_shown = re.search(r"REFUTED|failed", shown) is not None
            absent = missing(shown, done.stdout)
            if absent or (done.returncode != 0) != failure_shown:
                lines = "\n".join(absent) or f"(exit code {done.returncode})"
                raise PageError(f"{text.strip()} differs from the page: {lines}\n{done.stdout}\n{done.stderr}")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--installed", action="store_true", help="use the present environment, install nothing")
    parser.add_argument("--until", default=None, metavar="HEADING", help="stop before the section with this heading")
    options = parser.parse_args()
    page = options.page.read_text()
    if options.until is not None:
        page, found, _ = page.partition(f"\n## {options.until}\n")
        if not found:
            parser.error(f"the page has no section {options.until!r}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        folder.mkdir()
        environment = present() if options.installed else fresh(Path(name))
        try:
            run(page, folder, environment, options.installed)
        except PageError as error:
            sys.exit(str(error))
    print(f"{options.page.name}: every step does what the page says")


if __name__ == "__main__":
    main()
