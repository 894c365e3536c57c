"""Figures of docs/lipschitz.md: one study for each embedded network.

python docs/figures/lipschitz.py [FOLDER]     # writes NAME-lipschitz.{json,png} beside itself unless told otherwise
"""

import json
import sys
from pathlib import Path

from fpjax import lipschitz, lipschitz_page

MODELS = ("digits-monotone", "digits-plain")


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name in MODELS:
        data = lipschitz.lipschitz_command(name, images=8, steps=(20, 5, 50), guidance=(1.0, 3.0))
        (folder / f"{name}-lipschitz.png").write_bytes(lipschitz_page.png(data))
        for curve in data["curves"]:
            if curve["condition"] is None and curve["steps"] in (20, 50):
                kappa = [round(point["kappa"]["q100"], 3) for point in curve["points"]]
                print(name, "w", curve["guidance"], "N", curve["steps"], "largest kappa by step:", kappa, flush=True)
        print(name, json.dumps({"heat": data["heat"], "ends": data["ends"]}), flush=True)
        print(name, data["settings"], flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
