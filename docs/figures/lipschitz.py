"""Figures and tables of docs/lipschitz.md: one study for each embedded network.

python docs/figures/lipschitz.py [FOLDER]     # writes NAME-lipschitz.png beside itself (or there), and the page's tables
"""

import sys
from pathlib import Path

from fpjax import lipschitz, lipschitz_page

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import page

MODELS, FIRST = ("digits-monotone", "digits-plain"), 5


def rows(data: dict) -> str:
    """The table of one network: the largest kappa of the first steps, where the worst is, the smallest modulus."""
    steps = " | ".join(f"step {i + 1}" for i in range(FIRST))
    out = [f"| w | N | {steps} | largest later | largest κ | smallest m |", "|---" * (FIRST + 5) + "|"]
    worst = {(cell["steps"], cell["guidance"]): cell for cell in data["heat"]}
    for curve in data["curves"]:
        if curve["condition"] is None and curve["steps"] > FIRST:
            kappa, cell = (
                [point["kappa"]["q100"] for point in curve["points"]],
                worst[curve["steps"], curve["guidance"]],
            )
            first = " | ".join(f"{k:.3f}" for k in kappa[:FIRST])
            ends = (f"{cell[name]:.3f}, step {cell[f'{name}_step']}" for name in ("kappa", "modulus"))
            out.append(
                f"| {curve['guidance']:g} | {curve['steps']} | {first} | {max(kappa[FIRST:]):.3f} | {' | '.join(ends)} |"
            )
    return "\n".join(out)


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name in MODELS:
        data = lipschitz.lipschitz_command(name, images=8, steps=(20, 5, 50), guidance=(1.0, 3.0))
        (folder / f"{name}-lipschitz.png").write_bytes(lipschitz_page.png(data))
        table = rows(data)
        print(name, table, data["settings"], sep="\n", flush=True)
        page.write({name: table}, ROOT / "docs" / "lipschitz.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
