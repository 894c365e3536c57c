"""What is built on spectra: confidence, moments, nonsymmetric quantities, worst points, curves and pages."""

import json
import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpjax import confidence, lipschitz, lipschitz_page, moments, nonsymmetric, regions, worst
from fpjax.evidence import Evidence, FpjaxError
from fpjax.models import exact
from fpjax.step import Step
from proofs_checks import t15

STARTS = 10_000 if os.environ.get("FPJAX_FULL") else 1_000


def linear_map(y, a):
    return a @ y


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(30, 30))


SPECTRA = {
    "two": np.asarray([0.0, 1.0]),
    "three": np.asarray([0.0, 0.9, 1.0]),
    "chebyshev": t15.instance().data["spectrum"],
    "projector": np.r_[np.zeros(199), 1.0],
    "crowded top": 1 - np.geomspace(1e-6, 1, 60),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_t15_is_calibrated(name):
    """Observed failures never exceed the stated probability, for every k and shortfall."""
    spectrum = np.sort(SPECTRA[name])
    starts = np.random.default_rng(1).normal(size=(STARTS, spectrum.size))
    values = np.asarray(t15.ritz(jnp.asarray(spectrum), jnp.asarray(starts), min(6, spectrum.size)))
    failures = 0
    for k in range(1, values.shape[1] + 1):
        for e in (0.1, 0.3, 0.5, 0.9, 0.99):
            frequency = (values[:, k - 1] < (1 - e) * spectrum[-1]).mean()
            failures += frequency > 0
            assert frequency <= confidence.failure_probability(spectrum.size, k, e)
    if name in ("two", "projector"):
        assert failures > 0  # the test could have failed


def test_t15_module():
    assert t15.check(t15.instance(), 300, 0).holds
    broken = t15.check(t15.broken_instance(), 300, 0)
    assert not broken.holds
    assert t15.broken_instance().violates in broken.failed


def test_confidence_inverts_and_names_its_evidence():
    e = confidence.shortfall(784, 30, 1e-6)
    assert confidence.failure_probability(784, 30, e) == pytest.approx(1e-6)
    assert confidence.shortfall(784, 30, 1e-6, tests=4) > e
    k = confidence.steps_needed(784, 0.1, 1e-6)
    assert confidence.failure_probability(784, k, 0.1) <= 1e-6 < confidence.failure_probability(784, k - 1, 0.1)
    bound = confidence.norm_bound(2.0, 784, 30)
    assert bound.evidence is Evidence.PROBABLE
    assert bound.value == pytest.approx(2 / math.sqrt(1 - e))
    low, high = confidence.eigenvalue_bounds(-1.0, 2.0, 784, 60)
    assert low.value < -1 < 2 < high.value < 3
    assert confidence.norm_bound(2.0, 784, 2).value == math.inf
    assert confidence.norm_bound(0.0, 784, 30).value == 0
    with pytest.raises(FpjaxError, match="between 0 and 1"):
        confidence.shortfall(10, 10, 0.0)


def test_extreme_value_finds_an_end_point_and_refuses_nonsense():
    rng = np.random.default_rng(0)
    good = confidence.extreme_value(3 - rng.exponential(size=200) ** (1 / 2.5))
    assert good.fits
    assert good.value == pytest.approx(3, abs=0.15)
    assert good.bound.evidence is Evidence.SAMPLED
    bad = confidence.extreme_value(np.r_[rng.uniform(size=50), 5 + rng.uniform(size=50)])
    assert not bad.fits
    assert math.isnan(bad.value)
    assert confidence.extreme_value(np.full(30, 2.0)).value == 2
    with pytest.raises(FpjaxError, match="at least 20"):
        confidence.extreme_value([1.0, 2.0])


def test_extreme_value_rejects_at_its_level():
    """Under the law itself, p-values below 0.05 are about one in twenty."""
    rng = np.random.default_rng(3)
    draws = 1 - rng.exponential(size=(60, 60)) ** (1 / 3)
    p = [confidence.extreme_value(x, resamples=99).p_value for x in draws]
    assert np.mean(np.asarray(p) < 0.05) <= 0.15


def test_moments(matrix):
    found = moments.moments(linear_map, jnp.zeros(30), jnp.asarray(matrix), jax.random.key(0), probes=400)
    skew = np.linalg.norm(matrix - matrix.T) ** 2 / 4
    for estimate, truth in zip(found, (np.trace(matrix), np.linalg.norm(matrix) ** 2, skew), strict=True):
        assert abs(estimate.value - truth) <= 4 * estimate.error
        assert estimate.error < 0.1 * np.linalg.norm(matrix) ** 2
    exactly = moments.trace(lambda v: 3 * v, 30, jax.random.key(0), probes=4)
    np.testing.assert_allclose([exactly.value, exactly.error], [90, 0], atol=1e-12)


def test_induced_norms(matrix):
    found = moments.induced_norms(linear_map, jnp.zeros(30), jnp.asarray(matrix))
    np.testing.assert_allclose(found.one, np.linalg.norm(matrix, 1), rtol=1e-12)
    np.testing.assert_allclose(found.inf, np.linalg.norm(matrix, np.inf), rtol=1e-12)
    lower = moments.one_norm_estimate(lambda v: jnp.asarray(matrix) @ v, lambda u: jnp.asarray(matrix.T) @ u, 30)
    assert 0.5 * found.one <= lower <= found.one * (1 + 1e-12)


def test_spectral_radius_is_not_a_norm(matrix):
    jordan = np.asarray([[0.5, 10.0], [0.0, 0.5]])
    found = nonsymmetric.spectral_radius(linear_map, jnp.zeros((2, 2)), jnp.asarray(jordan), jax.random.key(0))
    np.testing.assert_allclose(found.value, 0.5, rtol=1e-6)
    assert (found.condition > 1e6).all()
    dense = np.stack([matrix, matrix @ matrix, 0 * matrix])
    found = nonsymmetric.spectral_radius(
        linear_map, jnp.zeros((3, 30)), jnp.asarray(dense), jax.random.key(0), params_axes=0
    )
    np.testing.assert_allclose(found.value, np.abs(np.linalg.eigvals(dense)).max(axis=1), rtol=1e-9, atol=1e-300)


def test_numerical_range_and_commutator(matrix):
    found = nonsymmetric.numerical_range(linear_map, jnp.zeros(30), jnp.asarray(matrix), jax.random.key(0), angles=3)
    for angle, support, point in zip(*map(np.asarray, found[:3]), strict=True):
        h = np.exp(-1j * angle) * matrix
        top = np.linalg.eigvalsh((h + h.conj().T) / 2)[-1]
        np.testing.assert_allclose([support, (np.exp(-1j * angle) * point).real], top, rtol=1e-9)
    ends = nonsymmetric.commutator(linear_map, jnp.zeros(30), jnp.asarray(matrix), jax.random.key(0))
    values = np.linalg.eigvalsh(matrix.T @ matrix - matrix @ matrix.T)
    np.testing.assert_allclose([ends.low, ends.high], values[[0, -1]], rtol=1e-9)


@pytest.mark.parametrize("kind", ["ball", "tube", "shell"])
def test_regions_contain_their_samples_and_projections(kind):
    origin, far = jnp.zeros(9), 10 * jnp.ones(9)
    region = {
        "ball": regions.Ball(origin, jnp.asarray(2.0)),
        "tube": regions.Tube(jnp.stack([origin, jnp.ones(9)]), jnp.asarray(0.5)),
        "shell": regions.Shell(origin, jnp.asarray(0.7), jnp.asarray(1.0)),
    }[kind]
    points = jax.vmap(region.sample)(jax.random.split(jax.random.key(0), 50))
    assert jax.vmap(lambda y: regions.outside(region, y))(points).max() < 1e-12
    assert regions.outside(region, far) > 1
    assert regions.outside(region, region.project(far)) < 1e-12


@pytest.mark.long
def test_search_reaches_the_known_worst_point():
    """Two points on a line: J = p(1-p)·|difference|²/sigma² is largest half way, where p = 1/2."""
    den = exact.mixture(np.asarray([[-1.0, 0.0], [1.0, 0.0]]), 0.1)
    den = jax.tree.map(jnp.asarray, den)
    sigma, rho = 0.5, 0.2
    step = Step(den, jnp.asarray(sigma), jnp.asarray(rho), jnp.zeros(2), jnp.zeros(1, jnp.int32))
    ball = regions.Ball(jnp.asarray([[0.8, 0.3]]), jnp.asarray([1.0]))
    found = worst.search(step, ball, jax.random.key(0), iterations=20, restarts=2)
    total = 0.1**2 + sigma**2
    top = 0.1**2 / total + sigma**2 / total**2
    np.testing.assert_allclose(found.value, (1 - rho) * (top - 1), rtol=1e-3)
    assert found.value <= (1 - rho) * (top - 1) * (1 + 1e-9)
    pair = worst.confirm(step, ball, found)[0]
    assert pair.confirms
    assert pair.ratio > 1
    lie = pair._replace(claimed=2 * pair.claimed)
    assert not lie.confirms
    with pytest.raises(FpjaxError, match="unknown objective"):
        worst.search(step, ball, jax.random.key(0), objective="nonsense")


@pytest.mark.long
def test_search_leaves_a_plateau():
    """Far from the tie between two narrow modes nothing rises: J is constant there to 1e-12; the tie is 0.9 away."""
    den = jax.tree.map(jnp.asarray, exact.mixture(np.asarray([[-1.0, 0.0], [1.0, 0.0]]), 0.1))
    sigma, rho = 0.25, 0.2
    step = Step(den, jnp.asarray(sigma), jnp.asarray(rho), jnp.zeros(2), jnp.zeros(1, jnp.int32))
    ball = regions.Ball(jnp.asarray([[1.5, 0.0]]), jnp.asarray([1.6]))
    far = step._replace(condition=jnp.zeros(1, jnp.int32))
    start = regions.Ball(jnp.asarray([[2.6, 0.0]]), jnp.asarray([0.2]))
    assert (
        worst.sample(far, start, jax.random.split(jax.random.key(1), 8)).max() < 0.9
    )  # kappa on the plateau: below 1 - rho
    total = 0.1**2 + sigma**2
    top = (1 - rho) * (0.1**2 / total + sigma**2 / total**2 - 1)
    found = worst.search(step, ball, jax.random.key(0), iterations=30, restarts=1)
    np.testing.assert_allclose(found.value, top, rtol=1e-3)


@pytest.mark.long
def test_study_of_a_known_denoiser_and_its_pages(tmp_path):
    """A Gaussian of variance c: J = c/(c + sigma²)·I everywhere, so every figure is known."""
    c = 0.5
    den = exact.gaussian(np.zeros(3), c * np.eye(3))
    data = lipschitz.study(den, images=np.zeros((2, 3)), steps=(3, 6), guidance=(1.0,), process="edm")
    for curve in data["curves"]:
        for point in curve["points"]:
            j = c / (c + point["sigma"] ** 2)
            assert point["kappa"]["q100"] == pytest.approx((1 - point["rho"]) * (1 - j), rel=1e-6)
            assert point["modulus"]["q0"] == pytest.approx(point["rho"] + (1 - point["rho"]) * j, rel=1e-6)
    assert data["ends"] == [{"guidance": 1.0, "contraction_from_steps": 3, "uniqueness_from_steps": 3}]
    assert data["evidence"] == "SAMPLED"
    paths = lipschitz_page.write(data, tmp_path)
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(data))
    assert paths[1].read_bytes().startswith(b"\x89PNG")
    text = paths[2].read_text()
    assert "http" not in text
    assert "SAMPLED" in text
