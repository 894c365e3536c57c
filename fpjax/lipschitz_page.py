"""A finished Lipschitz study as JSON, PNG and one self-contained HTML page; computes nothing.

matplotlib is imported when first used.
"""

import base64
import html
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from fpjax.models.store import write_atomic

CURVES = (("kappa", "q100", "kappa (T3)", 1.0), ("modulus", "q0", "m (T2)", 0.0))


def write(data: dict[str, Any], folder: str | Path) -> list[Path]:
    """Writes lipschitz.json, lipschitz.png and lipschitz.html into a folder; returns their paths.

    Raises:
      FpjaxError: if the folder cannot be written.
    """
    folder = Path(folder)
    image = png(data)
    parts = {
        "lipschitz.json": (json.dumps(data, indent=1, allow_nan=False) + "\n").encode(),
        "lipschitz.png": image,
        "lipschitz.html": page(data, image).encode(),
    }
    for name, blob in parts.items():
        write_atomic(folder / name, blob)
    return [folder / name for name in parts]


def png(data: dict[str, Any]) -> bytes:
    """Curves of kappa, m, ||J|| and asymmetry against sigma, and two heat maps over (steps, guidance)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    axes = figure.subplots(2, 3)
    shown = max(data["steps"])
    main = [c for c in data["curves"] if c["condition"] is None and c["steps"] == _process_steps(data, shown)]
    panels = [*CURVES, ("norm", "q100", "||J||", None), ("asymmetry", "q100", "||J - J^T||/2", None)]
    for axis, (name, worst, title, edge) in zip(axes.ravel()[[0, 1, 3, 4]], panels, strict=True):
        for color, curve in enumerate(main):
            _band(axis, curve, name, worst, f"C{color}")
        if edge is not None:
            axis.axhline(edge, color="black", linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel="sigma", title=f"{title}, {shown} steps")
    axes[0, 0].legend(fontsize="small")
    for axis, (name, _, title, edge) in zip(axes[:, 2], CURVES, strict=True):
        _heat_map(axis, data, name, title, edge)
    figure.suptitle(f"{data['model']}, {data['process']}: {data['settings']['images']} points a level, SAMPLED")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


def _process_steps(data, count: int) -> int:
    """Steps of the process made for the largest count (some spacings drop an identity step)."""
    return max(c["steps"] for c in data["curves"]) if count == max(data["steps"]) else count


def _band(axis, curve, name: str, worst: str, color: str) -> None:
    sigma = [p["sigma"] for p in curve["points"]]

    def line(q):
        return [np.nan if p[name][q] is None else p[name][q] for p in curve["points"]]

    axis.plot(sigma, line("q50"), color=color, label=f"w = {curve['guidance']:g}: median, 10–90 %, worst (dashed)")
    axis.fill_between(sigma, line("q10"), line("q90"), color=color, alpha=0.2)
    axis.plot(sigma, line(worst), color=color, linestyle="--", linewidth=0.9)


def _heat_map(axis, data, name: str, title: str, edge: float) -> None:
    """One cell for each (steps, guidance), blue on the good side of the edge and red beyond it."""
    steps = sorted({cell["steps"] for cell in data["heat"]})
    weights = sorted({cell["guidance"] for cell in data["heat"]})
    table = np.full((len(weights), len(steps)), np.nan)
    for cell in data["heat"]:
        value = cell[name]
        table[weights.index(cell["guidance"]), steps.index(cell["steps"])] = np.nan if value is None else value
    sign = 1 if name == "kappa" else -1
    axis.imshow(np.tanh(sign * (table - edge)), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", origin="lower")
    axis.set(xticks=range(len(steps)), yticks=range(len(weights)), xlabel="steps", ylabel="guidance w")
    axis.set_xticklabels(steps)
    axis.set_yticklabels([f"{w:g}" for w in weights])
    axis.set_title(f"{'largest' if sign > 0 else 'smallest'} {title}; edge at {edge:g}")
    for (i, j), value in np.ndenumerate(table):
        axis.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize="small")


def page(data: dict[str, Any], image: bytes) -> str:
    """One HTML page without any link to elsewhere."""
    rows = "".join(
        f"<tr><td>{c['steps']}</td><td>{c['guidance']:g}</td><td>{_cell(c['kappa'])}</td><td>{_cell(c['kappa_step'])}</td>"
        f"<td>{_cell(c['modulus'])}</td><td>{_cell(c['modulus_step'])}</td></tr>"
        for c in data["heat"]
    )
    ends = "".join(
        f"<li>w = {e['guidance']:g}: all sampled kappa below 1 {_from(e['contraction_from_steps'])}; "
        f"all sampled m above 0 {_from(e['uniqueness_from_steps'])}.</li>"
        for e in data["ends"]
    )
    encoded = base64.b64encode(image).decode()
    name = html.escape(data["model"])
    settings = html.escape(", ".join(f"{k} {v}" for k, v in data["settings"].items()))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Lipschitz constants of {name}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}}img{{max-width:100%}}
td,th{{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}}</style></head><body>
<h1>Lipschitz constants of {name}</h1>
<p>Evidence: {html.escape(data["evidence"])}. Each figure is the worst of the points sampled ({settings}): a largest kappa
is a lower estimate, a smallest m an upper one; neither is a bound.</p>
<ul>{ends}</ul>
<img alt="Curves against sigma and heat maps over steps and guidance" src="data:image/png;base64,{encoded}">
<table><thead><tr><th>steps</th><th>guidance</th><th>largest kappa</th><th>at step</th><th>smallest m</th><th>at step</th>
</tr></thead><tbody>{rows}</tbody></table></body></html>
"""


def _cell(value) -> str:
    return "not finite" if value is None else f"{value:.4g}"


def _from(steps) -> str:
    return "at no step count tried" if steps is None else f"from {steps} steps on, of those tried"
