"""Draws docs/figures/badges.svg, the README's badges, from the files that decide them.

Run: python docs/figures/badges.py
"""

import html
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def facts() -> list[tuple[str, str]]:
    """(what, value) of each badge."""
    from proofs_checks import modules

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    statements = [module.statement for module in modules()]
    formal = sum(bool(s.formal) for s in statements)
    return [
        ("python", project["requires-python"].replace(">=", "≥ ")),
        ("licence", project["license"]),
        ("theorems as code", str(len(statements))),
        ("of them with a Coq proof", str(formal)),
    ]


def svg() -> str:
    """The badges as one picture."""
    parts, x = [], 0
    for what, value in facts():
        left, right = 7 * len(what) + 14, 7 * len(value) + 14
        parts.append(f'<rect x="{x}" width="{left}" height="20" fill="#444c56"/>')
        parts.append(f'<rect x="{x + left}" width="{right}" height="20" fill="#2f5d9b"/>')
        for text, middle in ((what, x + left / 2), (value, x + left + right / 2)):
            parts.append(f'<text x="{middle}" y="14" text-anchor="middle">{html.escape(text)}</text>')
        x += left + right + 8
    label = html.escape("; ".join(f"{what} {value}" for what, value in facts()))
    style = 'font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" fill="#fff"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x - 8}" height="20" role="img" aria-label="{label}" {style}>'
        f"{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_name("badges.svg").write_text(svg(), encoding="utf-8")
