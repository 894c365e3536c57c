"""Image files: what is in them comes back; what is no image, or too much of one, is one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fpjax import images
from fpjax.evidence import FpjaxError


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize(("dtype", "most"), [(np.uint8, 255), (np.uint16, 65535)])
def test_grey_values_come_back(dtype, most, tmp_path):
    array = np.array([[0, most, most // 3], [1, 2, 3]], dtype)
    found = images.read(saved(tmp_path / "a.png", array))
    assert found.dtype == np.float32
    assert found.shape == (2, 3)
    np.testing.assert_allclose(found, array / (most / 2) - 1, atol=1e-6)


def test_colours_palettes_and_what_is_transparent(tmp_path):
    array = np.array([[[255, 0, 0, 255], [0, 255, 0, 0]], [[0, 0, 255, 128], [9, 9, 9, 255]]], np.uint8)
    found = images.read(saved(tmp_path / "a.png", array))
    assert found.shape == (2, 2, 3)
    np.testing.assert_array_equal(found[0], [[1, -1, -1], [1, 1, 1]])  # transparent is white
    np.testing.assert_allclose(found[1, 0], [-0.00392, -0.00392, 1], atol=0.01)  # half of it
    flat = np.repeat(array[:, :, :1], 3, axis=2)
    Image.fromarray(flat).quantize(4).save(tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as file:
        assert file.mode == "P"
    np.testing.assert_allclose(images.read(tmp_path / "p.png"), flat / 127.5 - 1, atol=0.02)


def test_a_photo_is_turned_as_the_camera_was(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: row 0 is the right side
    array = np.zeros((16, 32, 3), np.uint8)
    array[:, :8] = 255
    found = images.read(saved(tmp_path / "a.jpg", array, exif=exif))
    assert found.shape == (32, 16, 3)
    assert found[0].mean() > 0.9
    assert found[-1].mean() < -0.9


def test_what_is_written_is_read(tmp_path):
    for shape in ((5, 4), (5, 4, 3)):
        values = np.random.default_rng(0).integers(0, 256, shape) / 127.5 - 1
        found = images.read(images.write(tmp_path / "a.png", values))
        np.testing.assert_allclose(found, values, atol=1e-6)
    assert images.read(images.write(tmp_path / "b.png", np.array([[-7.0, 7.0]]))).tolist() == [[-1.0, 1.0]]
    for bad in (np.zeros((2, 2, 4)), np.zeros(3), np.zeros((0, 3)), np.array([[np.nan]])):
        with pytest.raises(FpjaxError):
            images.write(tmp_path / "c.png", bad)
    with pytest.raises(FpjaxError, match=r"\.png"):
        images.write(tmp_path / "c.bmp", np.zeros((2, 2)))
    assert not (tmp_path / "c.png").exists()


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(out, "TIFF")
    return out.getvalue()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"just text, whatever the name says", "no PNG or JPEG"),
        (b"", "no PNG or JPEG"),
        (tiff(), "no PNG or JPEG"),
        (bomb(100_000, 100_000), "million pixels"),
        (bomb(9000, 9000), "million pixels"),
        (bomb(10, 10)[:48], "damaged or truncated"),
        (bomb(500, 500), "damaged or truncated"),
    ],
)
def test_what_is_no_image_is_one_sentence(raw, words, tmp_path):
    file = tmp_path / "photo.png"
    file.write_bytes(raw)
    with pytest.raises(FpjaxError, match=words) as told:
        images.read(file)
    assert "\n" not in str(told.value)
    assert "photo.png" in str(told.value)


def test_a_file_that_is_not_there(tmp_path, monkeypatch):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(FpjaxError, match="cannot be read"):
            images.read(path)
    monkeypatch.setattr(images, "MOST_BYTES", 10)
    with pytest.raises(FpjaxError, match="larger than"):
        images.read(saved(tmp_path / "a.png", np.zeros((4, 4), np.uint8)))
