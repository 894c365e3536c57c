"""Builds the site: python docs/build.py [--quick]

Pages are copied to build/docs, tutorials are run and become pages with what they printed and drew (and notebooks, by jupytext),
zensical makes build/site from zensical.toml in strict mode, and the result is looked at: every internal link, anchor, image and
script must be there, and nothing may be loaded from another host. External links are listed in build/external-links.txt;
whether they answer is not looked at. With --quick the tutorials are not run and show no results.
"""

import argparse
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlparse

os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent
DOCS, BUILD = ROOT / "docs", ROOT / "build"
STAGED, SITE = BUILD / "docs", BUILD / "site"
MORE = "    # pages that are not named here"
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href"), ("object", "data")}


def stage() -> None:
    """Copies the pages and what they show, and nothing else."""
    shutil.rmtree(STAGED, ignore_errors=True)
    keep = {".md", ".png", ".svg", ".html", ".css"}
    for path in sorted(DOCS.rglob("*")):
        if path.is_file() and path.suffix in keep:
            target = STAGED / path.relative_to(DOCS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def configuration() -> str:
    """zensical.toml for the build folder; pages of docs/ that its nav does not name come under "How to"."""
    text = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    pages = [p for p in sorted(DOCS.glob("*.md")) if f'"{p.name}"' not in text]
    titles = [p.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").replace('"', "'") for p in pages]
    lines = [f'    {{ "{title}" = "{page.name}" }},' for page, title in zip(pages, titles, strict=True)]
    return text.replace(MORE, "\n".join([MORE, *lines]))


def tutorials() -> list[Path]:
    """The tutorials, in order."""
    return sorted((DOCS / "tutorials").glob("*.py"))


def run_cell(source: str, names: dict, pictures: Path) -> tuple[str, list[Path]]:
    """Runs a cell as a notebook does: what it printed, with the value of its last expression, and the figures it showed."""
    import ast

    import matplotlib.pyplot as plt

    drawn: list[Path] = []

    def show(*_, **__):
        for number in plt.get_fignums():
            path = pictures / f"{names['__name__']}-{len(list(pictures.glob(names['__name__'] + '-*.svg'))) + 1}.svg"
            plt.figure(number).savefig(path, metadata={"Date": None}, transparent=False)
            drawn.append(path)
        plt.close("all")

    tree, out = ast.parse(source), io.StringIO()
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    kept, plt.show = plt.show, show
    try:
        with contextlib.redirect_stdout(out):
            exec(compile(tree, names["__name__"], "exec"), names)
            if last is not None:
                value = eval(compile(ast.Expression(last.value), names["__name__"], "eval"), names)
                if value is not None:
                    print(repr(value))
    finally:
        plt.show = kept
    return out.getvalue().rstrip(), drawn


def tutorial_page(path: Path, folder: Path, run: bool) -> str:
    """A tutorial as a page; its figures and its notebook go to the folder."""
    import jupytext

    notebook = jupytext.read(path)
    folder.mkdir(parents=True, exist_ok=True)
    jupytext.write(notebook, folder / f"{path.stem}.ipynb")
    names, parts = {"__name__": path.stem}, []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        parts.append(f"```python\n{cell.source}\n```")
        if run:
            printed, drawn = run_cell(cell.source, names, folder)
            parts += [f"```text\n{printed}\n```"] if printed else []
            parts += [f"![Figure of the cell above]({picture.name})" for picture in drawn]
    first, rest = parts[0].split("\n", 1) if "\n" in parts[0] else (parts[0], "")
    note = f"[As a notebook]({path.stem}.ipynb). This page is the file `docs/tutorials/{path.name}`, run."
    return "\n\n".join([first, note, rest, *parts[1:]]) + "\n"


class Reader(HTMLParser):
    """The ids, links and loaded files of a page."""

    def __init__(self):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []

    def handle_starttag(self, tag, attrs):
        """Collects what a tag refers to."""
        given = dict(attrs)
        self.ids |= {given[key] for key in ("id", "name") if given.get(key)}
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        for name, key in LOADED:
            quiet = tag == "link" and given.get("rel") in ("canonical", "next", "prev")
            if tag == name and given.get(key) and not quiet:
                self.loaded.append(given[key])


def look(site: Path) -> tuple[list[str], list[str]]:
    """What is wrong with a built site, and its external links."""
    found = {}
    for path in site.rglob("*.html"):
        found[path] = Reader()
        found[path].feed(path.read_text(encoding="utf-8"))
    wrong, outside = [], set()
    for path, page in found.items():
        here = path.relative_to(site)
        wrong += [f"{here} loads {u}" for u in page.loaded if urlparse(u).netloc]
        for address in page.links + [u for u in page.loaded if not u.startswith("data:")]:
            url = urlparse(address)
            if url.scheme or url.netloc:
                outside.add(address)
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if str(url.path).startswith("/"):
                target = site / unquote(url.path).lstrip("/")
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                wrong.append(f"{here} links to {address}, which is not there")
            elif url.fragment and target in found and unquote(url.fragment) not in found[target].ids:
                wrong.append(f"{here} links to {address}, which has no such anchor")
    styles = [
        p for p in site.rglob("*.css") if re.search(r"(url\(|@import)\s*['\"]?https?:", p.read_text(encoding="utf-8"))
    ]
    wrong += [f"{p.relative_to(site)} loads something from another host" for p in styles]
    return wrong, sorted(outside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="do not run the tutorials")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    stage()
    for path in tutorials():
        folder = STAGED / "tutorials"
        if "jax" in sys.modules:
            sys.modules["jax"].clear_caches()
        (folder / f"{path.stem}.md").write_text(tutorial_page(path, folder, not options.quick), encoding="utf-8")
        print(f"{path.name}: {'copied' if options.quick else 'run'}", flush=True)
    shutil.rmtree(SITE, ignore_errors=True)
    (BUILD / "zensical.toml").write_text(configuration(), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    if subprocess.run(command, cwd=BUILD, check=False).returncode:
        sys.exit("the site was not built: see above")
    wrong, outside = look(SITE)
    (BUILD / "external-links.txt").write_text("\n".join(outside) + "\n")
    if wrong:
        sys.exit("\n".join(wrong))
    print(
        f"site/index.html: links, anchors and files are there; {len(outside)} external links in build/external-links.txt"
    )


if __name__ == "__main__":
    main()
