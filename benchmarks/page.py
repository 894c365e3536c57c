"""Writes the measured parts of the docs: what stands between ``<!-- NAME -->`` and ``<!-- end -->`` on a page.

    python benchmarks/worst_points.py | python benchmarks/page.py docs/lipschitz.md worst-points
    python benchmarks/page.py RESULTS      # docs/solvers.md

RESULTS holds what the other benchmarks printed or wrote: ``solvers.md`` and ``solvers.json`` (solvers.py), ``walls.md``
and ``walls.json`` (walls.py), and ``traj_PART.txt`` for each part of trajectories.py. A part without a result is left as
it stands.
"""

import json
import re
import sys
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "solvers.md"


def losses(data: dict) -> str:
    """The summary of solvers.json in sentences."""
    s, own = data["summary"], data["own_rule"]
    first = (
        f"Of {s['problems']} problems some solver solves {s['solved_by_any']} and `auto` {s['solved']}; "
        f"{s['peer_solved_and_auto_not']} are solved by a peer and not by `auto`. Its count is the lowest or within 10 % of "
        f"it on {s['lowest_or_within_10_percent']:.1%}; the median ratio to plain iteration is "
        f"{s['median_ratio_to_picard']:.2f}. By its own rule {own['converged']} answers were labelled CONVERGED; the true "
        f"error exceeded the stated one in {own['over']}."
    )
    lines = [first]
    for name, row in data["line_0"].items():
        shares = ", ".join(
            f"{row[f'share of {peer}']:.1%} of the evaluations of optimistix {peer} ({row[f'{peer} wrong']} wrong)"
            for peer in ("Dogleg", "LM")
        )
        lines.append(
            f"- {name} at tolerance 1e-9: {row['wrong']} of {row['problems']} wrong, {row['wrong and labelled solved']} of "
            f"them labelled solved; {shares}"
        )
    return "\n".join(lines)


def parts(folder: Path) -> dict[str, str]:
    """The text of each part that has a result."""
    found = {}
    if (folder / "solvers.md").exists():
        found["table"] = (folder / "solvers.md").read_text()
        found["losses"] = losses(json.loads((folder / "solvers.json").read_text()))
    if (folder / "walls.md").exists():
        rows = json.loads((folder / "walls.json").read_text())
        least = {name: min(v for v in row.values() if v == v) for name, row in rows.items()}  # not NaN
        slowest, behind = min(least, key=lambda k: least[k]), sum(v < 1 for v in least.values())
        found["walls"] = (
            f"`auto` is behind some peer in {behind} of {len(least)} classes, furthest on {slowest} ({least[slowest]:.2f}).\n\n"
            + (folder / "walls.md").read_text()
        )
    for name in ("layouts", "overhead", "compile", "grids", "eager", "parallel"):
        path = folder / f"traj_{name}.txt"
        if path.exists():
            lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
            found[name] = "\n".join(f"- {line}" for line in lines)
    return found


def fill(page: str, found: dict[str, str]) -> str:
    """The page with the text between ``<!-- name -->`` and ``<!-- end -->`` replaced.

    Raises:
      ValueError: if the page has no such part.
    """
    for name, text in found.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page, n = re.subn(pattern, lambda m, t=text: m[1] + t.strip() + "\n" + m[2], page, flags=re.DOTALL)
        if n != 1:
            raise ValueError(f"the page has {n} parts <!-- {name} -->, not one")
    return page


def write(found: dict[str, str], path: Path = PAGE) -> None:
    """Fills a page."""
    path.write_text(fill(path.read_text(encoding="utf-8"), found), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        write({sys.argv[2]: sys.stdin.read()}, Path(sys.argv[1]))
    else:
        write(parts(Path(sys.argv[1])))
