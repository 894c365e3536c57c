"""Plots and pictures of a report as inline SVG and PNG. Draws numbers that the report holds; computes none."""

import base64
import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fpjax.auditing import Report

COLOURS = ("#3b6fb6", "#c4622d", "#3f8f5f", "#8a5aa8", "#8c6d31", "#7f7f7f")
SHOWN = 8  # images shown in the page


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # Text stays text (searchable, small); no date and a fixed salt, so that equal reports give equal bytes.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fpjax"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def series(report: Report, question: str) -> dict[float, tuple[list[int], list[float]]]:
    """For each guidance: the steps and the values of one question, NaN where there is none."""
    found: dict[float, tuple[list[int], list[float]]] = {w: ([], []) for w in report.guidance}
    for row in report.table:
        if row["question"] == question:
            found[row["guidance"]][0].append(row["step"])
            found[row["guidance"]][1].append(np.nan if row["value"] is None else row["value"])
    return found


def curve(report: Report, question: str, label: str, edge: float | None, edge_label: str, *, log: bool) -> str:
    """One quantity against the step, a line for each guidance, with the theorem's edge as a dashed line."""
    figure = Figure(figsize=(6.4, 2.7))
    axes = figure.subplots()
    for (w, (steps, values)), colour in zip(series(report, question).items(), COLOURS * 9, strict=False):
        axes.plot(steps, values, marker="o", markersize=4, linewidth=1.4, color=colour, label=f"guidance {w:g}")
    if edge is not None:
        axes.axhline(edge, color="#b03030", linestyle="--", linewidth=1, label=edge_label)
    if log:
        axes.set_yscale("log")
    axes.set_xlabel("inversion step (1 = cleanest)")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _svg(figure)


def plots(report: Report) -> list[tuple[str, str, str]]:
    """(title, caption, SVG) of the report's plots."""
    made = [
        (
            "Contraction (T3)",
            "Largest expansion of G seen at each step, a lower estimate of kappa. Above 1, plain iteration need not converge.",
            curve(report, "contraction", "kappa", 1.0, "kappa = 1", log=True),
        ),
        (
            "Uniqueness (T2)",
            (
                "Modulus m of strong monotonicity: the proved lower bound where the step is CERTIFIED, the smallest seen "
                "otherwise. Where m > 0 everywhere, the solution is unique."
            ),
            curve(report, "uniqueness", "modulus m", 0.0, "m = 0", log=False),
        ),
    ]
    if any(row["question"] == "guidance-limit" and row["value"] is not None for row in report.table):
        made.append(
            (
                "Guidance limit (T11)",
                "Guidance below the curve keeps the solution unique, as far as the points looked at tell.",
                curve(report, "guidance-limit", "safe guidance w", 1.0, "no guidance", log=True),
            )
        )
    return made


def _png(image) -> str | None:
    """A data URI of one image in [-1, 1]: grey (h, w), or 1 or 3 channels, first or last; None for other shapes."""
    pixels = np.asarray(image, np.float64)
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3)):
        return None
    from PIL import Image

    grey = np.clip(np.nan_to_num((pixels + 1) * 127.5), 0, 255).astype(np.uint8)
    picture = Image.fromarray(grey)
    factor = max(1, 64 // max(picture.size))
    buffer = io.BytesIO()
    picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def gallery(report: Report) -> list[dict]:
    """For each guidance, rows of pictures: source, latent (scaled to its own range), what the latent generates."""
    rows = []
    for w, arrays in zip(report.guidance, report.images, strict=True):
        lines = []
        for kind, title in (("source", "source"), ("latent", "latent"), ("again", "round trip")):
            images = np.asarray(arrays[kind], np.float64)[:SHOWN]
            if kind == "latent":
                images = images / max(float(np.nanmax(np.abs(images))), 1e-12)
            pictures = [_png(image) for image in images]
            if None not in pictures:
                lines.append({"title": title, "pictures": pictures})
        if lines:
            rows.append({"guidance": w, "lines": lines})
    return rows
