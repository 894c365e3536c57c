"""Figures for papers, as SVG and PNG, drawn by matplotlib from the plain data of ``audit.json``. Computes nothing."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np

from fpjax.report import words

COLOURS = ("#3b6fb6", "#c4622d", "#3f8f5f", "#8a5aa8", "#8c6d31", "#7f7f7f")
VERDICT_COLOURS = {"CERTIFIED": "#1c5fa8", "SUPPORTED": "#4f9d86", "INCONCLUSIVE": "#e2b64b", "REFUTED": "#b8422f"}
CURVES = (  # question, axis label, theorem's edge, its label, scale
    ("contraction", "kappa", 1.0, "kappa = 1", "log"),
    ("uniqueness", "modulus m", 0.0, "m = 0", "linear"),
    ("guidance-limit", "safe guidance w", None, "", "log"),
    ("error", "error implied by the residual", None, "", "log"),
)


def series(data: dict[str, Any], question: str) -> dict[float, tuple[list[int], list[float]]]:
    """For each guidance: the steps and the values of one question, NaN where there is none."""
    found: dict[float, tuple[list[int], list[float]]] = {w: ([], []) for w in data["guidance"]}
    for row in data["rows"]:
        if row["question"] == question:
            found[row["guidance"]][0].append(row["step"])
            found[row["guidance"]][1].append(np.nan if row["value"] is None else row["value"])
    return found


def figures(data: dict[str, Any]) -> dict[str, bytes]:
    """File name -> content: each figure as SVG and PNG; those with nothing to show are left out."""
    made: dict[str, Callable] = {"verdicts": _verdicts}
    for curve in CURVES:
        if any(np.isfinite(values).any() for _, values in series(data, curve[0]).values()):
            made[curve[0]] = lambda axes, data, c=curve: _curve(axes, data, *c)
    if data.get("curves"):
        made |= {"spectrum": _spectrum, "histories": _histories}
    return {f"{name}.{kind}": _drawn(draw, data, kind) for name, draw in made.items() for kind in ("svg", "png")}


def _drawn(draw: Callable, data: dict[str, Any], kind: str) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 2.8), layout="constrained")
    # Text stays text (searchable, small); no date and a fixed salt, so that equal audits give equal bytes. A $ in a name
    # is a dollar, not mathematics.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fpjax", "text.parse_math": False}):
        axes = figure.subplots()
        draw(axes, data)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(" ".join(f"{data['model']}, {data['process']['kind']}".split())[:80], fontsize=9, loc="left")
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=200, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return buffer.getvalue()


def _steps(axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("inversion step (1 = cleanest)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _curve(axes, data, question, label, edge, edge_label, scale) -> None:
    for (w, (steps, values)), colour in zip(series(data, question).items(), COLOURS * 99, strict=False):
        mark = "o" if len(steps) <= 60 else ""
        axes.plot(steps, values, marker=mark, markersize=3, linewidth=1.2, color=colour, label=f"w = {w:g}")
    if edge is not None:
        axes.axhline(edge, color="#b03030", linestyle="--", linewidth=1, label=edge_label)
    axes.set_yscale(scale)
    axes.set_ylabel(label)
    axes.legend(fontsize=7, frameon=False, ncols=2)
    _steps(axes)


def _verdicts(axes, data) -> None:
    """A row for each question and guidance, runs of equal verdicts as bars."""
    asked = words.questions(data)
    names = []
    for question in asked:
        for w in data["guidance"]:
            y = -len(names)
            names.append(f"{question}, w = {w:g}" if len(data["guidance"]) > 1 else question)
            for verdict, steps in words.by_verdict(data, w, question).items():
                axes.broken_barh([(s - 0.5, 1) for s in steps], (y - 0.4, 0.8), color=VERDICT_COLOURS[verdict])
    axes.set_yticks([-k for k in range(len(names))], names, fontsize=7 if len(names) < 20 else 4)
    from matplotlib.patches import Patch

    used = {r["verdict"] for r in data["rows"]}
    handles = [Patch(color=c, label=v.lower()) for v, c in VERDICT_COLOURS.items() if v in used]
    axes.legend(handles=handles, fontsize=7, frameon=False, ncols=4, loc="upper left", bbox_to_anchor=(0, -0.18))
    _steps(axes)


def _spectrum(axes, data) -> None:
    """T3's window, and the spectrum seen inside it or not, at the first guidance."""
    c = data["curves"][0]
    steps = np.arange(1, len(c["window_low"]) + 1)
    get = {k: np.asarray([np.nan if v is None else v for v in c[k]]) for k in c if k.startswith(("lambda", "window"))}
    axes.fill_between(
        steps, get["window_low"], get["window_high"], color="#4f9d86", alpha=0.2, linewidth=0, label="T3's window"
    )
    outside = (get["lambda_min"] <= get["window_low"]) | (get["lambda_max"] >= get["window_high"])
    for bad, colour, label in ((False, "#3b6fb6", "spectrum seen"), (True, "#b8422f", "leaves the window")):
        at = outside == bad
        if at.any():
            axes.vlines(
                steps[at], get["lambda_min"][at], get["lambda_max"][at], color=colour, linewidth=2.5, label=label
            )
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylabel(f"eigenvalues of sym J, w = {c['guidance']:g}")
    axes.legend(fontsize=7, frameon=False)
    _steps(axes)


def _histories(axes, data) -> None:
    """Residuals by each method at the first step, at the first guidance."""
    histories = data["curves"][0]["histories"]
    for (method, runs), colour in zip(histories["residuals"].items(), COLOURS, strict=False):
        axes.plot(np.arange(1, len(runs[0]) + 1), runs[0], linewidth=1.2, color=colour, label=method)
    axes.axhline(histories["tol"], color="#b03030", linestyle="--", linewidth=1, label="tolerance")
    axes.set_yscale("log")
    axes.set_xlabel(f"evaluations of step {histories['steps'][0]}")
    axes.set_ylabel("residual")
    axes.legend(fontsize=7, frameon=False)
