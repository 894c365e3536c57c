"""Figures of images against values worked out by hand."""

import numpy as np
import pytest
from PIL import Image

from fpjax import gallery, images, metrics
from fpjax.evidence import FpjaxError

RNG = np.random.default_rng(0)


def test_psnr_is_that_of_the_mean_squared_error():
    x = RNG.uniform(-1, 1, (2, 8, 8))
    y = x + np.asarray([0.02, 0.2])[:, None, None]
    np.testing.assert_allclose(metrics.psnr(x, y), [40, 20])
    assert metrics.psnr(x, x).tolist() == [np.inf, np.inf]


def test_colours_may_come_first_or_last():
    x, y = RNG.uniform(-1, 1, (2, 2, 9, 12, 3))
    for measure in (metrics.psnr, metrics.ssim, metrics.structure_distance):
        np.testing.assert_allclose(measure(np.moveaxis(x, 3, 1), np.moveaxis(y, 3, 1)), measure(x, y))


def test_ssim_of_two_constants_is_the_formula():
    """(2ab + C)/(a² + b² + C) with C = (0.01·2)², Wang et al. 2004, of values from 0 to 2: black is 0."""
    x = np.full((1, 8, 8), 0.5)
    assert np.isclose(metrics.ssim(x, 0 * x - 0.5)[0], (2 * 1.5 * 0.5 + 0.0004) / (1.5**2 + 0.5**2 + 0.0004))


def test_structure_is_edges_and_not_brightness():
    x = RNG.uniform(-1, 1, (1, 12, 12))
    assert metrics.structure_distance(x, 0.3 * x - 0.2)[0] < 1e-12
    assert metrics.structure_distance(x, np.roll(x, 1, axis=2))[0] > 0.05
    flat, step = np.zeros((1, 3, 4)), np.zeros((1, 3, 4))
    step[..., 2:] = 1  # two patches, [0 0 1] and [0 1 1] in each row: cosine 1/2 of what is left without the mean
    assert np.isclose(metrics.structure_distance(flat, step)[0], (1 + 1 + 2 * 0.25) / 4)


def test_noise_is_normal_and_an_image_is_not():
    noise = metrics.normality(RNG.standard_normal((20, 32, 32)))
    assert np.abs(noise.mean).max() < 0.15
    assert np.abs(noise.deviation - 1).max() < 0.1
    assert np.abs(noise.neighbours).max() < 0.12
    assert np.isclose(noise.distance.mean(), noise.expected[0], rtol=0.25)
    ramp = metrics.normality(np.linspace(-1, 1, 1024).reshape(1, 32, 32))
    assert ramp.neighbours[0] > 0.8
    assert ramp.kurtosis[0] == pytest.approx(-1.2, abs=0.01)  # of a uniform distribution
    assert ramp.distance[0] > 5 * ramp.expected[0]


@pytest.mark.parametrize("measure", [metrics.psnr, metrics.ssim, metrics.structure_distance])
def test_bad_images_are_refused(measure):
    x, nan = np.zeros((1, 8, 8)), np.full((1, 8, 8), np.nan)
    for a, b in ((x, x[:, :7]), (x, nan), (x[0], x[0]), (np.zeros((1, 8, 8, 4)),) * 2, (np.zeros((0, 8, 8)),) * 2):
        with pytest.raises(FpjaxError):
            measure(a, b)


def test_small_images_are_refused_where_windows_do_not_fit():
    for measure, side in ((metrics.ssim, 6), (metrics.structure_distance, 2)):
        with pytest.raises(FpjaxError, match="at least"):
            measure(np.zeros((1, side, side)), np.zeros((1, side, side)))
    with pytest.raises(FpjaxError, match="at least"):
        metrics.normality(np.zeros((1, 1, 8)))


def test_a_gallery_stands_alone_and_escapes(tmp_path):
    x = RNG.uniform(-1, 1, (8, 8, 3))
    case = gallery.Case("<b>name</b>", x, -x, "latent & <verdict>", {"PSNR": 12.3456789, "exit": "CONVERGED"})
    page = gallery.save(tmp_path, "Title <i>", [case, case], "a note").read_text()
    for text in ("&lt;b&gt;name", "&amp; &lt;verdict&gt;", "Title &lt;i&gt;", "12.35", "CONVERGED", "a note"):
        assert text in page
    assert page.count('<input type="range"') == 2
    for foreign in ("http:", "https:", "<b>name", "<verdict>", 'src="/'):
        assert foreign not in page
    assert [p.name for p in tmp_path.iterdir()] == ["gallery.html"]


def test_images_stand_beside_each_other(tmp_path):
    wide, grey = RNG.uniform(-1, 1, (4, 8, 3)), RNG.uniform(-1, 1, (4, 8))
    with Image.open(gallery.side_by_side(tmp_path / "both.png", [wide, grey], ["a", "b"])) as sheet:
        pixels, times = np.asarray(sheet), gallery.WIDE // 8
    top, left = gallery.LINE + gallery.GAP, gallery.GAP
    cut = pixels[top : top + 4 * times : times, left : left + 8 * times : times]
    np.testing.assert_array_equal(cut, images.pixels(wide))
    cut = pixels[top : top + 4 * times : times, 2 * left + 8 * times :: times][:, :8]
    np.testing.assert_array_equal(cut, np.repeat(images.pixels(grey)[..., None], 3, axis=2))


def test_bad_pictures_leave_nothing(tmp_path):
    x = np.zeros((4, 4))
    bad = [
        lambda: gallery.save(tmp_path, "t", []),
        lambda: gallery.save(tmp_path, "t", [gallery.Case("a", x, x[:3])]),
        lambda: gallery.save(tmp_path, "t", [gallery.Case("a", x, x * np.nan)]),
        lambda: gallery.side_by_side(tmp_path / "a.png", [], []),
        lambda: gallery.side_by_side(tmp_path / "a.png", [x], ["a", "b"]),
        lambda: gallery.side_by_side(tmp_path / "a.jpg", [x], ["a"]),
        lambda: gallery.side_by_side(tmp_path / "a.png", [np.zeros((4, 4, 2))], ["a"]),
    ]
    for call in bad:
        with pytest.raises(FpjaxError):
            call()
    assert list(tmp_path.iterdir()) == []
