"""``fpjax edit``: files of every kind in, pictures and what is known out; bad input gets one sentence and leaves nothing."""

import json

import numpy as np
import pytest
from PIL import Image

from fpjax.images import read


def picture() -> np.ndarray:
    """A white stroke on black, 20×16 bytes, with nothing symmetric about it."""
    values = np.zeros((20, 16), np.uint8)
    values[2:18, 9:12] = 255
    values[2:5, 4:12] = 180
    return values


def save_all(folder):
    """One picture in every form that a file may have; all show the same."""
    grey = picture()
    Image.fromarray(grey).save(folder / "grey.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    rgb = np.repeat(grey[..., None], 3, axis=2)
    Image.fromarray(rgb).save(folder / "photo.jpg", quality=100, subsampling=0)
    Image.fromarray(np.concatenate([rgb, np.full((20, 16, 1), 255, np.uint8)], axis=2)).save(folder / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by whoever shows it
    Image.fromarray(np.rot90(grey).copy()).save(folder / "turned.png", exif=exif)
    return [folder / name for name in ("grey.png", "deep.png", "photo.jpg", "clear.png", "turned.png")]


def test_files_of_every_kind_give_the_same_edit(call, tmp_path):
    files = save_all(tmp_path)
    result = call("edit", *files, "--target", "1", "--steps", "3", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert len(set(read(tmp_path / "out" / "grey-edited.png").ravel())) > 2
    first = read(tmp_path / "out" / "grey-edited.png")
    assert first.shape == (8, 8)
    for file in files[1:]:
        away = np.abs(read(tmp_path / "out" / f"{file.stem}-edited.png") - first).max()
        assert away <= (0 if file.stem in ("deep", "turned") else 0.05)
    lines = result.stdout.splitlines()
    for line, file in zip(lines, files, strict=False):
        assert line.startswith(f"{file.stem}: 16×20: ")
        assert "resized to 8×8" in line
        assert "the latent is unique and known to" in line
    assert "made grey" in lines[2]
    assert "made grey" not in lines[0]
    page = (tmp_path / "out" / "gallery.html").read_text()
    assert page.count("the latent is unique and known to") >= 5
    rows = json.loads((tmp_path / "out" / "edit.json").read_text())["edits"]
    assert [row["verdict"] for row in rows] == ["SUPPORTED"] * 5
    assert all((tmp_path / "out" / f"{file.stem}-beside.png").exists() for file in files)


def test_embedded_images_need_no_argument_but_become_the_next_class(call, tmp_path):
    result = call("edit", "--images", "2", "--steps", "3", "--strength", "0.7")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "fpjax-edit" / "edit.json").read_text())["edits"]
    assert [(int(row["source"]) + 1) % 10 for row in rows] == [int(row["target"]) for row in rows]
    assert all(row["latent_error"] < 1e-6 for row in rows)


def test_a_mask_file_keeps_what_is_black_in_it(call, tmp_path):
    Image.fromarray(np.repeat(np.uint8([0, 255]), 4)[None].repeat(8, axis=0)).save(tmp_path / "mask.png")
    Image.fromarray(picture()[2:18]).save(tmp_path / "a.png")
    result = call("edit", "a.png", "--target", "8", "--steps", "3", "--mask", "mask.png", "--out", "out")
    assert result.exit_code == 0, result.output
    from fpjax.editing import fit

    before, after = fit(read(tmp_path / "a.png"), (8, 8))[0], read(tmp_path / "out" / "a-edited.png")
    assert np.abs(before - after)[:, :4].max() <= 1 / 255
    assert np.abs(before - after)[:, 4:].max() > 0.1


def no_image(folder):
    (folder / "text.png").write_text("this is no picture\n")
    return folder / "text.png"


def half(folder):
    whole = folder / "whole.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(whole)
    (folder / "half.png").write_bytes(whole.read_bytes()[:2000])
    return folder / "half.png"


def good(folder):
    Image.fromarray(picture()).save(folder / "good.png")
    return folder / "good.png"


BAD = {
    "a text file named .png": lambda t: [no_image(t), "--target", "1"],
    "one of two files no image": lambda t: [good(t), no_image(t), "--target", "1"],
    "a truncated file": lambda t: [half(t), "--target", "1"],
    "no such file": lambda t: [t / "nothing.png", "--target", "1"],
    "no target": lambda t: [good(t)],
    "unknown target": lambda t: [good(t), "--target", "horse"],
    "unknown source": lambda t: [good(t), "--target", "1", "--source", "horse"],
    "a mask that is no image": lambda t: [good(t), "--target", "1", "--mask", no_image(t)],
    "no strength": lambda t: ["--strength", "0", "--steps", "2"],
    "guidance nan": lambda t: ["--guidance", "nan", "--steps", "2"],
    "a model without conditions": lambda t: ["--model", "photos-monotone"],
    "safe on a plain model": lambda t: ["--model", "digits-plain", "--safe", "--steps", "2", "--images", "1"],
    "out is a file": lambda t: [good(t), "--target", "1", "--steps", "2", "--out", good(t)],
    "no images": lambda t: ["--images", "0"],
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_bad_input_gets_one_sentence_and_nothing_is_written(call, tmp_path, kind):
    arguments = BAD[kind](tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    result = call("edit", *arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.strip().splitlines() if line.startswith("fpjax: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
