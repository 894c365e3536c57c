"""Writes the held-out images that the package carries, fpjax/held_out/*.png and labels.json, from the data sets.

    python benchmarks/held_out.py

Needs the extra ``train`` and Debian's package dataset-fashion-mnist.
"""

import json

import numpy as np
from PIL import Image

from fpjax import data

ACROSS = 16  # images side by side


def main() -> None:
    labels = {}
    data.CARRIED.mkdir(exist_ok=True)
    for name in ("mnist", "fashion", "photos", "haze"):
        split = data.load(name)
        count = data.HELD_OUT[name]
        bytes_ = np.rint((split.held_out[:count] + 1) * 127.5).astype(np.uint8)
        side = bytes_.shape[-1]
        tiles = bytes_.reshape(count // ACROSS, ACROSS, -1, side, side).transpose(0, 3, 1, 4, 2)
        sheet = tiles.reshape(count // ACROSS * side, ACROSS * side, -1)
        Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet).save(
            data.CARRIED / f"{name}.png", optimize=True
        )
        labels[name] = [int(c) for c in split.held_out_labels[:count]]
    (data.CARRIED / "labels.json").write_text(json.dumps(labels) + "\n")


if __name__ == "__main__":
    main()
