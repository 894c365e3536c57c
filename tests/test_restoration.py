"""Haze and its removal, tiles, super-resolution, inpainting, denoising and deblurring, and the commands."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import multivariate_normal

import fpjax
from fpjax import data, dehazing, haze, images, metrics, restoration, tiles
from fpjax.models import mixture, priors


@pytest.fixture(scope="module")
def photo():
    """A part (96, 96, 3) of a photograph that no network was trained on."""
    whole = data.scaled(data.photograph("coffee"))
    return whole[150:246, 250:346]


@pytest.fixture(scope="module")
def small():
    """A sum of two mixtures of patches, 4×4 and 8×8, with random numbers: quick, and not smooth in any direction."""
    rng = np.random.default_rng(0)

    def part(n, k=5, r=3):
        d = 3 * n * n
        factors = np.linalg.qr(rng.standard_normal((k, d, r)))[0]
        given = {"patch_means": rng.standard_normal((k, d)) / 2, "factors": factors, "variances": rng.random((k, r))}
        given |= {"floor": 0.01 * np.ones(k), "logits": np.zeros((1, k))}
        return {name: jnp.asarray(v, jnp.float32) for name, v in given.items()}

    weight, bias = priors.through(np.zeros((2, len(priors.KNOTS))))
    shares = {"knots": np.asarray(priors.KNOTS), "weight": weight, "bias": bias}
    params = {name: jnp.asarray(v, jnp.float32) for name, v in shares.items()} | {"parts": [part(4), part(8)]}
    return fpjax.Denoiser(params, priors.denoise, (3, 16, 16), name="small")


def gain(after, before, truth):
    return float((metrics.psnr(after[None], truth[None]) - metrics.psnr(before[None], truth[None]))[0])


def test_haze_by_hand():
    image, depth = np.array([[[-1.0, 0.0, 1.0]], [[0.5, 0.5, 0.5]]]), np.array([[2.0], [np.inf]])
    t = haze.transmission(depth, np.log(2) / 2)
    np.testing.assert_allclose(t, [[0.5], [np.nan]])
    np.testing.assert_allclose(haze.add(image, t, 0.5)[0, 0], [-0.25, 0.25, 0.75])
    np.testing.assert_array_equal(haze.add(image, t)[1], image[1])  # no depth, no haze
    with pytest.raises(fpjax.FpjaxError, match="at least 0"):
        haze.transmission(depth, -1.0)


def test_depth_of_the_stereo_pair():
    depth = haze.stereo_depth([[10.0, np.inf]])
    np.testing.assert_allclose(depth[0, 0], 193.001e-3 * 994.978 / 41.028)
    assert np.isnan(depth[0, 1])
    field = haze.smooth_depth(40, 60, seed=3)
    assert field.shape == (40, 60)
    assert field.min() == 0
    assert field.max() == 1
    assert np.abs(np.diff(field, axis=0)).max() < 0.1


def test_guided_filter_is_least_squares_in_each_window():
    rng = np.random.default_rng(0)
    guide, values, r, epsilon = rng.random((9, 8)), rng.random((9, 8)), 1, 1e-2
    padded = [np.pad(v, 2 * r, mode="symmetric") for v in (guide, values)]
    lines = np.zeros((11, 10, 2))
    for i in range(11):
        for j in range(10):
            x, y = (v[i : i + 3, j : j + 3].ravel() for v in padded)
            a = np.cov(x, y, bias=True)[0, 1] / (x.var() + epsilon)
            lines[i, j] = a, y.mean() - a * x.mean()
    for i, j in ((4, 4), (2, 6), (6, 2)):  # a and b mirrored at the border instead would differ, so inside only
        a, b = lines[i : i + 3, j : j + 3].mean(axis=(0, 1))
        np.testing.assert_allclose(haze.guided_filter(guide, values, r, epsilon)[i, j], a * guide[i, j] + b)


def test_dark_channel_prior_on_an_image_that_obeys_it():
    """Dark points everywhere and a constant t: t and A are found, and the haze goes."""
    rng = np.random.default_rng(1)
    image = rng.uniform(-0.5, 0.6, (90, 90, 3))
    image[::5, ::5] = -1
    far = np.full((90, 90), 0.5)
    far[:12] = 0.0  # where only A is seen
    hazy = haze.add(image, far, 0.8)
    clear, t, light = haze.dark_channel_prior(hazy, 11)
    np.testing.assert_allclose(light, 0.8, atol=1e-9)
    np.testing.assert_allclose(t[60:80, 30:60], 1 - haze.KEPT * 0.5, atol=0.02)
    assert gain(clear[40:], hazy[40:], image[40:]) > 15
    assert haze.dark_channel(hazy, 3)[50, 50] == hazy[49:52, 49:52].min()
    with pytest.raises(fpjax.FpjaxError, match="finite images"):
        haze.dark_channel_prior(np.zeros((4, 4)))


def test_log_evidence_is_the_density():
    rng = np.random.default_rng(2)
    factors = np.linalg.qr(rng.standard_normal((3, 5, 2)))[0]
    params = {"means": rng.standard_normal((3, 5)), "factors": factors, "variances": rng.random((3, 2)) + 0.1}
    params |= {"floor": np.array([0.1, 0.2, 0.3]), "logits": np.array([[0.0, 1.0, -1.0], [0.0, 0.0, 0.0]])}
    params, y, sigma = jax.tree.map(jnp.asarray, params), rng.standard_normal(5), 0.4
    share = np.exp([0.0, 1.0, -1.0]) / np.exp([0.0, 1.0, -1.0]).sum()
    density = 0.0
    for p, m, u, v, f in zip(
        share, *(np.asarray(params[k]) for k in ("means", "factors", "variances", "floor")), strict=True
    ):
        density += p * multivariate_normal(m, u @ np.diag(v) @ u.T + (f + sigma**2) * np.eye(5)).pdf(y)
    found = mixture.log_evidence(params, jnp.asarray(y), jnp.asarray(sigma), jnp.int32(0))
    np.testing.assert_allclose(found, np.log(density), rtol=1e-12)


def test_tiles_have_no_seams(small):
    den = priors.at_size(small, 40, 72)
    y = jax.random.normal(jax.random.key(0), den.shape, jnp.float32)
    tiled = tiles.in_tiles(den, 32)
    whole = den(y, 0.3)
    np.testing.assert_allclose(tiled(y, 0.3), whole, atol=3e-6)
    np.testing.assert_allclose(tiles.evaluate_tiles(tiled, y, 0.3, 0), whole, atol=3e-6)
    assert isinstance(tiled.fn, tiles.Tiled)
    less = dataclasses.replace(tiled, fn=dataclasses.replace(tiled.fn, overlap=4))
    assert float(jnp.abs(less(y, 0.3) - whole).max()) > 1e-3  # what the overlap is for


ON_DEVICES = """
import jax, numpy as np, fpjax
from fpjax import tiles
from fpjax.models import priors

whole = priors.at_size(fpjax.load("photos-monotone"), 96, 160)
cut, y = tiles.in_tiles(whole, 64), np.random.default_rng(0).standard_normal(whole.shape).astype(np.float32)
far = np.abs(np.asarray(tiles.evaluate_tiles(cut, y, 0.3, 0)) - np.asarray(tiles.evaluate_tiles(whole, y, 0.3, 0))).max()
print(jax.device_count(), len(cut.fn.starts(96, 160)), far)
"""


def test_tiles_are_shared_out_over_devices():
    """Eight tiles on three devices."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}
    out = subprocess.run(
        [sys.executable, "-c", ON_DEVICES], env=os.environ | flags, capture_output=True, text=True, check=True
    )
    devices, count, far = out.stdout.split()
    assert (devices, count) == ("3", "8")
    assert 0 < float(far) < 1e-5


def test_a_trajectory_in_tiles_is_the_untiled_one(small):
    den = priors.at_size(small, 32, 48)
    x = 0.3 * jax.random.normal(jax.random.key(1), (1, *den.shape), jnp.float32)
    process = fpjax.process.edm(2, sigma_min=0.1, sigma_max=1.0)
    both = [fpjax.invert(d, x, process, tol=1e-3) for d in (den, tiles.in_tiles(den, 32))]
    assert both[0].solved.all()
    np.testing.assert_allclose(both[1].latent, both[0].latent, atol=1e-3)


@pytest.mark.parametrize(
    ("size", "side", "sentence"), [((35, 40), 40, "multiples of 2"), ((72, 72), 16, "side of at least 32")]
)
def test_tiles_that_would_have_seams_are_refused(small, size, side, sentence):
    with pytest.raises(fpjax.FpjaxError, match=sentence):
        tiles.in_tiles(priors.at_size(small, *size), side)
    with pytest.raises(fpjax.FpjaxError, match="no mixture of patches"):
        tiles.in_tiles(fpjax.load("photos-plain"))


@pytest.mark.parametrize("factor", [2, 4])
def test_super_resolution_keeps_block_means_and_beats_bicubic(photo, factor):
    low = restoration.down(photo.transpose(2, 0, 1), factor).transpose(1, 2, 0)[: 66 // factor, : 50 // factor]
    truth = photo[: low.shape[0] * factor, : low.shape[1] * factor]
    found = restoration.super_resolve(low, factor)
    assert found.image.shape == truth.shape
    assert found.consistency < 1e-5
    assert gain(found.image, found.start, truth) > 0.2
    again = restoration.super_resolve(low, factor, tile=64)
    np.testing.assert_allclose(again.image, found.image, atol=1e-4)


def test_grey_images_stay_grey(photo):
    grey = photo[:21, :17].mean(axis=2)
    found = restoration.super_resolve(grey, 2, steps=1)
    assert found.image.shape == (42, 34)
    assert found.image.dtype == np.float32


def test_inpainting_keeps_what_is_known(photo):
    mask = np.random.default_rng(0).random(photo.shape[:2]) < 0.3
    given = np.where(mask[..., None], np.nan, photo)
    found = restoration.inpaint(given, mask, steps=2)
    np.testing.assert_array_equal(found.image[~mask], photo[~mask])
    assert metrics.psnr(found.image[None], photo[None])[0] > 25
    assert np.abs(found.image - found.start).max() > 1e-3


def test_denoising_is_one_evaluation(photo):
    noisy = photo + 0.1 * np.random.default_rng(0).standard_normal(photo.shape).astype(np.float32)
    found = restoration.denoise(noisy, 0.1)
    assert gain(found.image, noisy, photo) > 3
    den = priors.at_size(fpjax.load("photos-monotone"), 96, 96)
    direct = np.asarray(den(noisy.transpose(2, 0, 1), np.float32(0.1))).transpose(1, 2, 0)
    np.testing.assert_allclose(found.image, np.clip(direct, -1, 1), atol=1e-5)


def test_the_blur_is_a_gaussian_over_mirrored_borders():
    from scipy.fft import dctn, idctn

    image = np.random.default_rng(0).random((40, 32))
    blurred = np.asarray(idctn(restoration.blur_gain(40, 32, 2.0) * dctn(image, norm="ortho"), norm="ortho"))
    np.testing.assert_allclose(blurred, gaussian_filter(image, 2.0, mode="reflect", truncate=8), atol=1e-5)


def test_deblurring(photo):
    blurred = gaussian_filter(photo, (1.5, 1.5, 0), mode="reflect", truncate=8)
    blurred += 0.005 * np.random.default_rng(0).standard_normal(photo.shape).astype(np.float32)
    found = restoration.deblur(blurred, 1.5)
    assert gain(found.image, blurred, photo) > 2
    assert gain(found.image, found.start, photo) > 0
    assert found.consistency < 0.01


IMAGE = np.zeros((16, 16, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: restoration.super_resolve(IMAGE, 3), "factor of 2 or 4"),
        (lambda: restoration.super_resolve(IMAGE[..., :2]), "a photograph is"),
        (lambda: restoration.super_resolve(IMAGE * np.nan), "NaN"),
        (lambda: restoration.super_resolve(IMAGE, model="digits-monotone"), "no mixture of patches"),
        (lambda: restoration.super_resolve(IMAGE, steps=-1), "at least 0"),
        (lambda: restoration.inpaint(IMAGE, np.zeros((16, 15), bool)), "a mask is bool"),
        (lambda: restoration.inpaint(IMAGE, np.ones((16, 16), bool)), "covers all"),
        (lambda: restoration.denoise(IMAGE, 0.0), "noise level above 0"),
        (lambda: restoration.deblur(IMAGE, 0.0), "width"),
        (lambda: dehazing.dehaze(IMAGE[:8]), "sides at least 16"),
        (lambda: dehazing.dehaze(IMAGE, "photos-monotone"), "no mixture of patches with the condition"),
        (lambda: dehazing.dehaze(IMAGE, degree="clear"), "unknown degree"),
        (lambda: dehazing.dehaze(IMAGE, strength=0.0), "strength"),
    ],
)
def test_bad_input_is_one_sentence(call, sentence):
    with pytest.raises(fpjax.FpjaxError, match=sentence):
        call()


def test_explaining_haze_gives_back_its_t_and_light(photo):
    t = 0.3 + 0.4 * haze.smooth_depth(96, 96)
    hazy = haze.add(photo.astype(np.float64), t, [0.8, 0.7, 0.9])
    found, light = dehazing.explain(hazy, photo, rounds=40)
    np.testing.assert_allclose(light, [0.8, 0.7, 0.9], atol=0.05)
    assert np.abs(found - t).mean() < 0.04


def test_dehazing_by_inversion(photo):
    whole = data.scaled(data.photograph("coffee"))[::2, ::2]
    hazy = haze.add(whole, haze.transmission(haze.smooth_depth(*whole.shape[:2]) + 0.3, 0.8), 0.8)
    found = dehazing.dehaze(hazy, side=32, steps=6)
    assert found.degree in ("medium", "dense")
    assert gain(found.image, hazy, whole) > 4
    assert "unique" in found.verdict
    assert np.isfinite(np.asarray(found.inversion.error_bound)).all()
    veil = (1 - found.t)[..., None]
    inside = (np.abs(found.image) < 1).all(axis=2) & (found.t > dehazing.LEAST)
    np.testing.assert_allclose((found.image * (1 - veil) + found.airlight * veil)[inside], hazy[inside], atol=1e-5)
    assert max(dehazing.evidence(fpjax.load("haze-monotone"), np.zeros((3, 32, 32))).values()) == 0


@pytest.mark.parametrize(("command", "name"), [(("super-resolve", "--factor", 2), "2x"), (("dehaze",), "dehazed")])
def test_commands_write_pictures_and_a_gallery(call, tmp_path, photo, command, name):
    images.write(tmp_path / "a.png", photo[:32, :40])
    result = call(*command, "a.png", "--out", "out", "--steps", 2)
    assert result.exit_code == 0, result.output
    factor = 2 if name == "2x" else 1
    assert images.read(tmp_path / "out" / f"a-{name}.png").shape == (32 * factor, 40 * factor, 3)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"a-{name}.png", "a-side-by-side.png", "gallery.html"}


@pytest.mark.parametrize("command", ["super-resolve", "dehaze"])
def test_commands_refuse_in_one_sentence_and_leave_nothing(call, tmp_path, photo, command):
    images.write(tmp_path / "a.png", photo[:32, :40])
    (tmp_path / "b.png").write_text("no picture")
    for wrong in (("a.png", "b.png"), ("a.png", "a.png"), ("a.png", "--steps", "-1"), ("missing.png",)):
        result = call(command, *wrong, "--out", "out")
        assert result.exit_code == 2
        assert result.stderr.strip().splitlines()[-1].startswith("fpjax: ")
        assert "Traceback" not in result.output
        assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
