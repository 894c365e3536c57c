"""Embedded images: the data sets that installed packages carry, split once and for all into training and held-out.

Not in this room: anything downloaded.
"""

import functools
from typing import NamedTuple

import numpy as np

from fpjax.evidence import FpjaxError

SPLIT_SEED = 20240
HELD_OUT = {"digits": 297}
CREDITS = {
    "digits": "Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), UCI Machine Learning Repository, "
    "CC BY 4.0, as carried by scikit-learn: 1,797 images of 8×8 values from 0 to 16, mapped to [-1, 1]"
}


class Split(NamedTuple):
    """Images (n, *shape) float32 in [-1, 1] and labels (n,) int32, for training and held out."""

    train: np.ndarray
    train_labels: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray


@functools.cache
def load(name: str) -> Split:
    """The fixed split of a data set.

    "digits": 1,797 grey 8×8 images of handwritten digits, from scikit-learn (UCI, CC BY 4.0); 297 are held out.

    Raises:
      FpjaxError: for an unknown name.
    """
    if name != "digits":
        raise FpjaxError(f"unknown data set {name!r}; choose one of {', '.join(HELD_OUT)}")
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) / 8 - 1).astype(np.float32)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    held, train = order[: HELD_OUT[name]], order[HELD_OUT[name] :]
    labels = np.asarray(labels, np.int32)
    return Split(images[train], labels[train], images[held], labels[held])


def samples(name: str = "digits", n: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``n`` different held-out images (n, *shape) float32 in [-1, 1], and their conditions (n,) int32.

    Raises:
      FpjaxError: for an unknown data set, or n below 1 or above the number of held-out images.
    """
    split = load(name)
    if not 1 <= n <= len(split.held_out):
        raise FpjaxError(f"{name} has {len(split.held_out)} held-out images; ask for 1 to that many, not {n}")
    chosen = np.random.default_rng(seed).permutation(len(split.held_out))[:n]
    return split.held_out[chosen], split.held_out_labels[chosen]
