"""The images of a report as data URIs: source, latent, round trip, difference and edit. Nothing is computed but grey values."""

import base64
import io
from typing import Any

import numpy as np

from fpjax.auditing import Report

SHOWN = 8  # images for each guidance
SIDE = 128  # pixels; larger images are made smaller
EXACT = 64  # up to this many pixels a side, images stay lossless

TITLES = {
    "source": "source",
    "latent": "latent",
    "again": "round trip",
    "difference": "difference",
    "edit": "edit",
}


def uri(image) -> str | None:
    """A data URI of one image: grey (h, w), (h, w, 1), (1, h, w), or RGB (h, w, 3), (3, h, w), in [-1, 1]; else None."""
    pixels = np.asarray(image, np.float64)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[-1] not in (1, 3):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    if not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[-1] == 3)):
        return None
    from PIL import Image

    picture = Image.fromarray(np.clip(np.nan_to_num((pixels + 1) * 127.5), 0, 255).astype(np.uint8))
    if max(picture.size) > SIDE:
        picture.thumbnail((SIDE, SIDE))
    kind, options = ("PNG", {"optimize": True}) if max(picture.size) <= EXACT else ("JPEG", {"quality": 85})
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()


def gallery(report: Report) -> list[dict[str, Any]]:
    """For each guidance, one card an image: its pictures with their captions."""
    groups = []
    for w, arrays in zip(report.guidance, report.images, strict=True):
        cards = [card for i in range(min(SHOWN, len(arrays["source"]))) if (card := _card(arrays, i))]
        if cards:
            groups.append({"guidance": w, "cards": cards})
    return groups


def _card(arrays: dict[str, np.ndarray], i: int) -> dict[str, Any] | None:
    source, again = (np.asarray(arrays[k][i], np.float64) for k in ("source", "again"))
    shown = {"source": source, "latent": _stretched(arrays["latent"][i]), "again": again}
    shown["difference"] = _stretched(again - source)
    notes = {"difference": f"at most {np.max(np.abs(again - source)):.1e}", "latent": "own scale"}
    if "caption" in arrays:
        notes |= {"source": str(arrays["caption"][i]), "edit": str(arrays["edited"][i])}
    if "edit" in arrays:
        shown["edit"] = arrays["edit"][i]
    pictures = {k: uri(v) for k, v in shown.items()}
    if None in pictures.values():
        return None
    return {
        "number": i,
        "pictures": [{"title": TITLES[k], "uri": u, "note": notes.get(k, "")} for k, u in pictures.items()],
    }


def _stretched(image) -> np.ndarray:
    """Scaled to its own largest absolute value."""
    image = np.asarray(image, np.float64)
    return image / max(float(np.nanmax(np.abs(image))), 1e-300)
