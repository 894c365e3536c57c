"""Pictures before and after, as one HTML page with a slider for each, and side by side as a PNG.

In this room: a page that stands alone (no network request, every string escaped). Not in this room: what is shown, or figures.
"""

import base64
import dataclasses
import io
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fpjax.evidence import FpjaxError
from fpjax.images import pixels
from fpjax.models.store import write_atomic

WIDE = 320  # CSS pixels that a small image is shown at
GAP, LINE = 8, 18  # of a picture side by side: pixels between images, and of a line of text


@dataclasses.dataclass(frozen=True)
class Case:
    """One picture before and after.

    Attributes:
      name: a heading.
      before, after: (h, w) or (h, w, 3) of one shape, in [-1, 1].
      text: a sentence, for instance the verdict.
      figures: names and what they are, in the order in which they are shown.
    """

    name: str
    before: np.ndarray
    after: np.ndarray
    text: str = ""
    figures: Mapping[str, str | float] = dataclasses.field(default_factory=dict)


def save(folder: str | Path, title: str, cases: Sequence[Case], note: str = "") -> Path:
    """Writes ``gallery.html`` into a folder, complete or not at all; returns its path.

    Raises:
      FpjaxError: for no cases, images of other shapes or with NaN, or a folder that cannot be written.
    """
    import jinja2

    if not cases:
        raise FpjaxError("a gallery needs at least one picture")
    shown = []
    for case in cases:
        if np.shape(case.before) != np.shape(case.after):
            raise FpjaxError(
                f"{case.name}: before and after have the shapes {np.shape(case.before)} and {np.shape(case.after)}"
            )
        height, width = np.shape(case.before)[:2]
        told = {k: v if isinstance(v, str) else f"{v:.4g}" for k, v in case.figures.items()}
        pair = {
            "before": _uri(case.before),
            "after": _uri(case.after),
            "width": max(width, WIDE),
            "ratio": width / height,
        }
        shown.append({"name": case.name, "text": case.text, "figures": told, "small": width < WIDE} | pair)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fpjax.report", "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    style = resources.files("fpjax.report").joinpath("static", "gallery.css").read_text()
    page = environment.get_template("gallery.html").render(title=title, note=note, cases=shown, style=style)
    path = Path(folder) / "gallery.html"
    write_atomic(path, page.encode())
    return path


def side_by_side(path: str | Path, images: Sequence[np.ndarray], labels: Sequence[str]) -> Path:
    """Writes images (h, w) or (h, w, 3) in [-1, 1] beside each other, each under its label, as one PNG; small ones enlarged.

    Raises:
      FpjaxError: for no images, as many labels as images not given, bad images, or a file that cannot be written.
    """
    path = Path(path)
    if not images or len(images) != len(labels):
        raise FpjaxError(f"{len(images)} images need as many labels, at least one, not {len(labels)}")
    if path.suffix.lower() != ".png":
        raise FpjaxError(f"images are written as .png, not as {path.name}")
    drawn = [Image.fromarray(pixels(v)).convert("RGB") for v in images]
    times = max(1, WIDE // max(max(p.size) for p in drawn))
    drawn = [p.resize((p.width * times, p.height * times), Image.Resampling.NEAREST) for p in drawn]
    sheet = Image.new(
        "RGB", (sum(p.width + GAP for p in drawn) + GAP, max(p.height for p in drawn) + LINE + 2 * GAP), "white"
    )
    draw, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(), GAP
    for picture, label in zip(drawn, labels, strict=True):
        draw.text((left, GAP // 2), label, "black", font)
        sheet.paste(picture, (left, LINE + GAP))
        left += picture.width + GAP
    out = io.BytesIO()
    sheet.save(out, "PNG")
    write_atomic(path, out.getvalue())
    return path


def _uri(image) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels(image)).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
