"""jacobian.py, restarted.py and tridiagonal.py against matrices and networks with a known answer.

FPJAX_FULL=1 runs the full count of matrices (1,000) instead of a tenth.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpjax import jacobian, restarted
from fpjax.evidence import FpjaxError

PER_KIND = 100 if os.environ.get("FPJAX_FULL") else 10
ACCURACY = 1e-6
SIZES = (1, 2, 3, 24)


def _orthogonal(rng, d):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def _symmetric(rng, values):
    q = _orthogonal(rng, len(values))
    return (q * values) @ q.T


def clustered(rng, d):
    return _symmetric(rng, 1 + 1e-3 * rng.normal(size=d))


def defective(rng, d):
    q = _orthogonal(rng, d)
    return q @ (0.5 * np.eye(d) + 10 * np.eye(d, k=1)) @ q.T


def rotation(rng, d):
    skew = rng.normal(size=(d, d))
    return _orthogonal(rng, d) + 1e-3 * (skew - skew.T)


def zero(rng, d):
    return np.zeros((d, d))


def rank_one(rng, d):
    return np.outer(rng.normal(size=d), rng.normal(size=d))


def tiny_gap(rng, d):
    values = rng.uniform(-0.5, 0.5, d)
    values[: min(2, d)] = [1.0, 1.0 - 1e-12][: min(2, d)]
    return _symmetric(rng, values)


def tiny(rng, d):
    return 1e-12 * rng.normal(size=(d, d))


def huge(rng, d):
    return 1e12 * rng.normal(size=(d, d))


def indefinite(rng, d):
    return _symmetric(rng, rng.normal(size=d))


KINDS = {f.__name__: f for f in (clustered, defective, rotation, zero, rank_one, tiny_gap, tiny, huge, indefinite)}


def network(y, params):
    """y -> A tanh(B y), whose Jacobian is A diag(1 - tanh²) B."""
    a, b = params
    return a @ jnp.tanh(b @ y)


@functools.partial(jax.jit, static_argnames=("function",))
def measure(function, points, params, keys):
    return jax.vmap(lambda y, p, k: jacobian.spectrum(function, y, p, k, tol=1e-9))(points, params, keys)


def linear_map(y, a):
    return a @ y


def held(estimate, truth, residual, operator_size):
    """Bracket: never above the truth but for the rounding of a product, within ACCURACY of it, a finite residual."""
    rounding = 100 * np.finfo(float).eps * operator_size
    assert np.isfinite(residual).all()
    assert (estimate <= truth + rounding).all()
    assert (np.abs(estimate - truth) <= ACCURACY * truth + rounding).all()


def compare(found, dense):
    norm = np.linalg.norm(dense, 2, axis=(1, 2))
    eye = np.eye(dense.shape[1])
    held(np.asarray(found.norm.value), norm, np.asarray(found.norm.residual), norm)
    departure = np.linalg.norm(eye - dense, 2, axis=(1, 2))
    held(np.asarray(found.departure.value), departure, found.departure.residual, 1 + norm)
    sym = (dense + dense.transpose(0, 2, 1)) / 2
    values = np.linalg.eigvalsh(sym)
    size = np.abs(values).max(axis=1)
    for ours, exact, sign in ((found.symmetric.low, values[:, 0], -1), (found.symmetric.high, values[:, -1], 1)):
        assert (sign * (np.asarray(ours) - exact) <= 1e-12 * size).all()
        assert (np.abs(np.asarray(ours) - exact) <= ACCURACY * size).all()
    # An eigenvalue lies within the residual of each Ritz value.
    near = np.abs(values - np.asarray(found.symmetric.high)[:, None]).min(axis=1)
    assert (near <= np.asarray(found.symmetric.high_residual) + 1e-12 * size).all()
    skew = np.linalg.norm(dense - dense.transpose(0, 2, 1), 2, axis=(1, 2)) / 2
    rounding = 1e-12 * norm + np.finfo(float).tiny  # the skew part of a symmetric matrix is rounding
    assert (np.abs(np.asarray(found.asymmetry.value) - skew) <= ACCURACY * skew + rounding).all()


@pytest.mark.parametrize("d", SIZES)
def test_matrices_with_a_known_answer(d):
    rng = np.random.default_rng(d)
    count = -(-PER_KIND // len(SIZES))
    dense = np.stack([make(rng, d) for make in KINDS.values() for _ in range(count)])
    keys = jax.random.split(jax.random.key(d), len(dense))
    compare(measure(linear_map, jnp.zeros(dense.shape[:2]), jnp.asarray(dense), keys), dense)


def test_networks_with_a_known_answer():
    rng, d, n = np.random.default_rng(0), 24, PER_KIND
    a, b = rng.normal(size=(2, n, d, d)) / d**0.5 * 10.0 ** rng.uniform(-3, 3, (1, n, 1, 1))
    points = rng.normal(size=(n, d))
    # By automatic differentiation: 1 - tanh² written out by hand cancels where tanh saturates.
    dense = np.asarray(jax.vmap(jax.jacfwd(network))(jnp.asarray(points), (jnp.asarray(a), jnp.asarray(b))))
    keys = jax.random.split(jax.random.key(1), n)
    compare(measure(network, jnp.asarray(points), (jnp.asarray(a), jnp.asarray(b)), keys), dense)


def test_zero_gives_zero_and_nan_stays_nan():
    key = jax.random.key(0)
    norm = jacobian.spectral_norm(lambda v: 0 * v, lambda v: 0 * v, 5, key)
    ends = jacobian.extreme_eigenvalues(lambda v: 0 * v, 5, key)
    assert (norm.value, ends.low, ends.high, norm.residual, ends.high_residual) == (0, 0, 0, 0, 0)
    np.testing.assert_allclose(np.linalg.norm(norm.right), 1, rtol=1e-12)
    assert np.isnan(jacobian.spectral_norm(lambda v: v * jnp.nan, lambda v: v, 5, key).value)
    assert np.isnan(jacobian.extreme_eigenvalues(lambda v: v * jnp.nan, 5, key).high)
    assert np.isnan(restarted.lanczos(lambda v: v * jnp.nan, 50, key, tol=1e-6).high)


def test_multiple_of_the_identity_has_unit_vectors():
    """All rows of the tridiagonal matrix agree: the vector must not hide in unused rows."""
    ends = jacobian.extreme_eigenvalues(lambda v: 2 * v, 40, jax.random.key(0), steps=8)
    np.testing.assert_allclose([ends.low, ends.high], 2, rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(ends.high_vector), 1, rtol=1e-12)
    assert ends.high_residual < 1e-12


@pytest.mark.parametrize("n", [2, 5, 20])
def test_jacobi_is_an_eigendecomposition(n):
    a = np.random.default_rng(n).normal(size=(n, n))
    a = a + a.T
    values, q = map(np.asarray, restarted.symmetric_eigh(jnp.asarray(a)))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(a), atol=1e-13 * n)
    np.testing.assert_allclose(q @ np.diag(values) @ q.T, a, atol=1e-13 * n)


def test_restarted_matches_a_spectrum_in_few_vectors():
    d = 500
    values = jnp.concatenate([jnp.linspace(-1, 1, d - 2), jnp.asarray([1.5, 1.5 + 1e-9])])
    run = jax.vmap(lambda k: restarted.lanczos(lambda v: values * v, d, k, tol=1e-5, steps=400))
    found = run(jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(found.high, 1.5, rtol=1e-8)
    np.testing.assert_allclose(found.low, -1, rtol=1e-6)
    one_rounding_a_product = 1.5 * np.finfo(float).eps * np.asarray(found.products)
    assert (np.asarray(found.high) <= 1.5 + 1e-9 + one_rounding_a_product).all()


def test_large_points_take_the_restarted_road(monkeypatch):
    """The switch between full and restarted basis changes no answer beyond the tolerance."""
    d = 300
    scale = jnp.linspace(0.1, 3, d)

    def forward(v):
        return jnp.roll(scale * v, 1)

    def transpose(u):
        return scale * jnp.roll(u, -1)

    full = jacobian.spectral_norm(forward, transpose, d, jax.random.key(0), tol=1e-6)
    monkeypatch.setattr(jacobian, "FULL_BYTES", 1)
    few = jacobian.spectral_norm(forward, transpose, d, jax.random.key(0), tol=1e-6)
    np.testing.assert_allclose([full.value, few.value], 3, rtol=1e-6)
    assert few.residual <= 1e-4


def test_leading_sees_eigenvalues_that_coincide():
    rng = np.random.default_rng(0)
    matrix = _symmetric(rng, np.r_[2.0, 2.0, 1.5, np.linspace(-1, 1, 57)])
    found = jacobian.leading(lambda v: jnp.asarray(matrix) @ v, 60, jax.random.key(0), 3)
    np.testing.assert_allclose(found.values, [2, 2, 1.5], rtol=1e-9)
    assert (np.asarray(found.values) <= np.asarray([2, 2, 1.5]) + 1e-13).all()
    vectors = np.asarray(found.vectors)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(
        np.linalg.norm(vectors @ matrix - vectors * found.values[:, None], axis=1), found.residuals
    )
    assert (found.residuals < 1e-4).all()
    with pytest.raises(FpjaxError, match="between 1 and 11"):
        jacobian.leading(lambda v: v, 60, jax.random.key(0), 12)
