"""Quality of generated images: Fréchet distances with closed forms, a classifier that repeats itself, samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import fpjax
from fpjax import data
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.models import quality


def gaussian(mean, root, n=40, seed=0):
    """(n, d) rows whose sample mean is ``mean`` and whose unbiased sample covariance is root.T @ root, to rounding."""
    x = np.random.default_rng(seed).standard_normal((n, len(mean)))
    x -= x.mean(axis=0)
    white = x @ np.linalg.inv(np.linalg.cholesky(x.T @ x / (n - 1))).T
    return white @ np.asarray(root, float) + mean


@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (3.0, 0.5), (-2.0, 0.0)])
def test_frechet_in_one_dimension(m, s):
    """(m_a - m_b)² + (s_a - s_b)²"""
    a, b = gaussian([1.0], [[2.0]]), gaussian([m], [[s]], n=57, seed=1)
    assert np.isclose(quality.frechet(a, b), (1 - m) ** 2 + (2 - s) ** 2, rtol=1e-12)


def test_frechet_of_diagonal_covariances():
    """|m_a - m_b|² + sum of (s_a - s_b)², with a direction in which one set does not vary."""
    ma, mb, sa, sb = np.asarray([[1, 2, -1, 0], [0, 2, 1, 3], [1, 0.1, 5, 2], [3, 0.1, 0, 1]], float)
    found = quality.frechet(gaussian(ma, np.diag(sa)), gaussian(mb, np.diag(sb), seed=1))
    assert np.isclose(found, np.sum((ma - mb) ** 2) + np.sum((sa - sb) ** 2), rtol=1e-12)


def test_frechet_of_any_covariances_is_symmetric_and_turns_with_both():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(30, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(25, 6)) @ rng.normal(size=(6, 6)) + 1
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    wanted = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    turn = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    for found in (quality.frechet(a, b), quality.frechet(b, a), quality.frechet(a @ turn, b @ turn)):
        assert np.isclose(found, wanted, rtol=1e-10)


def test_frechet_of_identical_sets_is_zero():
    rng = np.random.default_rng(0)
    for shape in ((100, 5), (2, 9), (5, 64)):  # the last two: singular covariances
        a = 10 * rng.normal(size=shape) + 3
        assert 0 <= quality.frechet(a, a) < 1e-12 * np.sum(a**2)
        assert 0 <= quality.frechet(a, a[::-1]) < 1e-12 * np.sum(a**2)
    assert quality.frechet(np.ones((3, 2)), np.ones((4, 2))) == 0
    assert quality.frechet(np.eye(3, dtype=np.int32), np.eye(3, dtype=np.float32)) < 1e-12


@pytest.mark.parametrize(
    ("a", "words"),
    [
        (np.zeros((1, 2)), "at least 2"),
        (np.zeros((0, 2)), "at least 2"),
        (np.zeros((3, 0)), "at least 2"),
        (np.zeros(4), "at least 2"),
        (np.zeros((3, 3)), "columns"),
        (np.asarray([[0, 1], [np.nan, 1]]), "finite"),
        (np.asarray([[0, 1], [np.inf, 1]]), "finite"),
        (np.asarray([[0, 1], [1e200, 1]]), "too large"),
        (np.asarray([[0, 1], [1j, 1]]), "real numbers"),
        ([["1", "2"], ["3", "4"]], "real numbers"),
        ([[1.0], [2.0, 3.0]], "real numbers"),
    ],
)
def test_features_that_have_no_gaussian_are_refused(a, words):
    good = np.asarray([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    for pair in ((a, good), (good, a)):
        with pytest.raises(FpjaxError, match=words):
            quality.frechet(*pair)


def test_a_classifier_of_digits():
    found = quality.classifier("digits")
    split = data.load("digits")
    assert found.held_out_accuracy > 0.95
    p = found.probabilities(split.held_out)
    assert p.shape == (297, 10)
    assert p.dtype == np.float32
    assert np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert np.mean(p.argmax(axis=1) == split.held_out_labels) == found.held_out_accuracy
    features = found.features(split.train)  # more than one call's
    assert features.shape == (1500, quality.FEATURES)
    assert np.array_equal(features[700:710], found.features(split.train[700:710]))
    logits = features @ np.asarray(found.network.last.kernel[...]) + np.asarray(found.network.last.bias[...])[None]
    assert np.array_equal(logits.argmax(axis=1), found.probabilities(split.train).argmax(axis=1))


def test_a_classifier_is_the_same_for_a_seed(monkeypatch):
    monkeypatch.setattr(quality, "UPDATES", 20)
    x = data.load("digits").held_out[:20]
    train = quality.classifier.__wrapped__
    first, again, other = (train("digits", seed).probabilities(x) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-2)
    with jax.enable_x64(False):
        assert np.allclose(train("digits", 0).probabilities(x), first, atol=1e-5)


def test_larger_images_are_classified_by_convolutions(monkeypatch):
    monkeypatch.setattr(quality, "UPDATES", 80)
    found = quality.classifier.__wrapped__("mnist")
    assert len(found.network.enter) == 2
    assert found.held_out_accuracy > 0.7
    assert found.features(data.held_out("mnist")[0][:3]).shape == (3, quality.FEATURES)


def test_images_that_have_no_class_are_refused():
    found = quality.classifier("digits")
    bad = np.zeros((2, 8, 8))
    bad[1, 3, 3] = np.nan
    for images in (np.zeros((8, 8)), np.zeros((2, 8, 9)), np.zeros((0, 8, 8)), bad):
        with pytest.raises(FpjaxError, match="finite images"):
            found.probabilities(images)
        with pytest.raises(FpjaxError, match="finite images"):
            found.features(images)
    with pytest.raises(FpjaxError, match="unknown data set"):
        quality.classifier("letters")
    with pytest.raises(FpjaxError, match="no classes"):
        quality.classifier("photos")


def test_a_training_that_breaks_is_told(monkeypatch):
    monkeypatch.setattr(quality, "LEARNING_RATE", np.inf)
    monkeypatch.setattr(quality, "UPDATES", 3)
    with pytest.raises(FpjaxError, match="NaN or infinite"):
        quality.classifier.__wrapped__("digits")


def test_samples_of_an_embedded_model():
    den = fpjax.load("digits-tree")
    images, conditions = quality.sample(den, 12, steps=5)
    assert images.shape == (12, 8, 8)
    assert images.dtype == np.float32
    assert np.isfinite(images).all()
    assert conditions.tolist() == [*range(10), 0, 1]
    assert conditions.dtype == np.int32
    assert np.array_equal(images, quality.sample(den, 12, steps=5)[0])
    assert not np.allclose(images, quality.sample(den, 12, steps=5, seed=1)[0], atol=0.1)
    assert not np.allclose(images, quality.sample(den, 12, steps=5, guidance=7.5)[0], atol=0.1)
    probabilities = quality.classifier("digits").probabilities(images)
    assert np.mean(probabilities.argmax(axis=1) == conditions) > 0.5


def posterior(params, y, sigma, condition):
    """The exact denoiser of N(2, 0.25²) for each value."""
    return (0.0625 * y + 2 * sigma**2) / (0.0625 + sigma**2) * params


def test_samples_follow_the_law_of_an_exact_denoiser():
    den = Denoiser.from_function(posterior, jnp.float32(1), (3,))
    images, conditions = quality.sample(den, 2000, steps=300)
    assert not conditions.any()
    assert abs(images.mean() - 2) < 0.02
    assert abs(images.std() - 0.25) < 0.02


def test_samples_that_cannot_be_are_refused():
    den = fpjax.load("digits-tree")
    for arguments, words in (((0,), "at least one"), ((2, 0), "steps"), ((2, 1001), "steps")):
        with pytest.raises(FpjaxError, match=words):
            quality.sample(den, *arguments)
    with pytest.raises(FpjaxError, match="guidance"):
        quality.sample(den, 2, 2, guidance=-1)
    broken = Denoiser.from_function(posterior, jnp.float32(np.nan), (3,))
    with pytest.raises(FpjaxError, match="NaN or infinite"):
        quality.sample(broken, 2, 2)


def test_a_sheet_of_images():
    x = np.stack([np.full((2, 3), v) for v in (-1.0, 0.0, 1.0, 5.0, -np.inf)])
    x[0, 0, 2] = 1
    sheet = quality.grid(x, 3)
    assert sheet.dtype == np.uint8
    assert sheet.shape == (4, 9)
    assert sheet[0].tolist() == [0, 0, 255, 128, 128, 128, 255, 255, 255]
    assert sheet[3].tolist() == [255, 255, 255, 0, 0, 0, 0, 0, 0]
    colour = np.stack([np.full((2, 3), v) for v in (-1.0, 0.0, 1.0)])[None]
    assert quality.grid(colour, 1).shape == (2, 3, 3)
    assert quality.grid(colour, 1)[1, 1].tolist() == [0, 128, 255]
    for images, columns in ((x, 0), (x[0], 1), (x[:0], 1), (x[None], 1), (x * np.nan, 1)):
        with pytest.raises(FpjaxError, match="a sheet takes"):
            quality.grid(images, columns)
