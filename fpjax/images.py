"""Image files: PNG and JPEG to arrays in [-1, 1] and back, for photos that come from anywhere.

In this room: what a file may be, and refusing what it is not before much of it is read: the number of pixels is looked at in
the header, so that a small file cannot ask for all the memory there is. Not in this room: sizes that a model takes
(editing).
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fpjax.evidence import FpjaxError
from fpjax.models.store import write_atomic

KINDS = ("PNG", "JPEG")
MOST_BYTES = 1 << 28  # of a file
MOST_PIXELS = 1 << 26  # 8192 × 8192


def read(path: str | Path) -> np.ndarray:
    """An image file as float32 values in [-1, 1].

    Grey images (8 or 16 bits) become (height, width), all others (height, width, 3): palettes are looked up, and what is
    transparent stands on white. A photo's EXIF orientation is applied. No colour management.

    Raises:
      FpjaxError: one sentence for a file that cannot be read, is no PNG or JPEG, is damaged or truncated, or has more than
        MOST_PIXELS pixels.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise FpjaxError(f"the image {path.name} cannot be read ({getattr(error, 'strerror', error)})") from None
    if len(raw) > MOST_BYTES:
        raise FpjaxError(f"the image {path.name} is larger than {MOST_BYTES >> 20} MiB; make it smaller")
    return decode(raw, path.name)


def decode(raw: bytes, name: str = "the image") -> np.ndarray:
    """The same from the bytes of a file; see :func:`read`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata; what matters is checked here
            with Image.open(io.BytesIO(raw), formats=KINDS) as image:
                return _values(_checked(image, name))
    except UnidentifiedImageError:
        raise FpjaxError(f"{name} is no PNG or JPEG image, whatever its name says; convert it to one") from None
    except FpjaxError:
        raise
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, zlib.error, …
        raise FpjaxError(f"{name} is damaged or truncated ({type(error).__name__}); copy or save it again") from None


def _checked(image: Image.Image, name: str) -> Image.Image:
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(name)
    return ImageOps.exif_transpose(image)


def _too_large(name: str) -> FpjaxError:
    return FpjaxError(f"{name} has more than {MOST_PIXELS >> 20} million pixels; make it smaller")


def _values(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # PNG's 16 bits of grey
        return (np.asarray(image, np.float32) / 32767.5 - 1).astype(np.float32)
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L"), np.float32) / 127.5 - 1
    if image.has_transparency_data:
        front = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", front.size, "white"), front)
    return np.asarray(image.convert("RGB"), np.float32) / 127.5 - 1


def write(path: str | Path, values) -> Path:
    """Writes values in [-1, 1], (height, width) or (height, width, 3), as an 8-bit PNG; values outside are clipped.

    Raises:
      FpjaxError: for another shape, NaN, another ending than .png, or a file that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise FpjaxError(f"images are written as .png, not as {path.name}")
    out = io.BytesIO()
    Image.fromarray(pixels(values)).save(out, "PNG")
    write_atomic(path, out.getvalue())
    return path


def checked(values, dtype, what: str = "an image has the shape") -> np.ndarray:
    """An image (height, width) or (height, width, 3) as it is, in a dtype; ``what`` begins the sentence that refuses others.

    Raises:
      FpjaxError: for another shape.
    """
    array = np.asarray(values, dtype)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise FpjaxError(f"{what} (height, width) or (height, width, 3), not {array.shape}")
    return array


def photograph(values, dtype) -> np.ndarray:
    """An image as (height, width, 3), a grey one with three equal channels.

    Raises:
      FpjaxError: for another shape than (height, width) or (height, width, 3), or values that are not finite.
    """
    array = checked(values, dtype, "a photograph is")
    if not np.isfinite(array).all():
        raise FpjaxError("the photograph has NaN or infinite values; replace them first")
    return array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)


def pixels(values) -> np.ndarray:
    """Values in [-1, 1], (height, width) or (height, width, 3), as bytes from 0 to 255; values outside are clipped.

    Raises:
      FpjaxError: for another shape, or NaN.
    """
    array = checked(values, np.float64)
    if np.isnan(array).any():
        raise FpjaxError("the image has NaN values; replace them first")
    return np.rint((np.clip(array, -1, 1) + 1) * 127.5).astype(np.uint8)
