"""Estimates against dense linear algebra: estimate <= truth (up to rounding), and within 1e-6 of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpjax import jacobian, tridiagonal
from fpjax.models import exact
from fpjax.step import Step, denoised

CROWDED = ("jordan", "positive", "rotation")  # eigenvalues crowd at an end: more than MOST iterations for 1e-6
EXTREMES = jax.jit(tridiagonal.extremes)


def product(y, matrix):
    return matrix @ y


def matrices(kind: str, d: int, rng):
    a = rng.normal(size=(d, d))
    q = np.linalg.qr(a)[0]
    return {
        "general": a,
        "symmetric": a + a.T,
        "positive": a @ a.T,
        "zero": np.zeros((d, d)),
        "identity": np.eye(d),
        "rank one": np.outer(a[0], a[-1]),
        "rotation": q,
        "skew": a - a.T,
        "jordan": np.eye(d) + 3 * np.diag(np.ones(d - 1), 1),
        "tiny": 1e-12 * a,
        "huge": 1e12 * a,
        "two clusters": q @ np.diag(np.where(np.arange(d) % 2, 1.0, 3.0)) @ q.T,
    }[kind]


KINDS = [
    "general",
    "symmetric",
    "positive",
    "zero",
    "identity",
    "rank one",
    "rotation",
    "skew",
    "jordan",
    "tiny",
    "huge",
]
KINDS += ["two clusters"]


def compare(found, matrix):
    """Relative error of each estimate, relative to the matrix it belongs to."""
    eigenvalues = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    size = max(np.linalg.norm(matrix, 2), np.finfo(float).tiny)
    truth = {
        "low": (found.symmetric.low, eigenvalues[0], size),
        "high": (found.symmetric.high, eigenvalues[-1], size),
        "norm": (found.norm.value, np.linalg.norm(matrix, 2), size),
        "departure": (found.departure.value, np.linalg.norm(np.eye(len(matrix)) - matrix, 2), max(size, 1.0)),
        "asymmetry": (found.asymmetry.value, np.linalg.norm((matrix - matrix.T) / 2, 2), size),
    }
    return {name: (float(value), want, abs(float(value) - want) / by) for name, (value, want, by) in truth.items()}


@pytest.mark.parametrize("d", [1, 2, 17, 784])
@pytest.mark.parametrize("kind", KINDS)
def test_spectra_of_matrices(kind, d):
    matrix = matrices(kind, d, np.random.default_rng(d))
    steps = d if kind in CROWDED else jacobian.MOST
    found = jacobian.spectrum(product, jnp.zeros(d), jnp.asarray(matrix), jax.random.key(0), steps=steps)
    for name, (value, want, error) in compare(found, matrix).items():
        assert error <= 1e-6, (name, value, want)
    # never above the truth by more than rounding: a Ritz value is a lower estimate
    assert float(found.norm.value) <= np.linalg.norm(matrix, 2) * (1 + 1e-12)


@given(st.integers(0, 10**6))
def test_spectra_of_exact_denoisers(seed):
    rng = np.random.default_rng(seed)
    den = exact.mixture(rng.normal(size=(6, 12)), rng.uniform(0.05, 1, 6)).astype(jnp.float64)
    y = jnp.asarray(rng.normal(size=12))
    p = Step(den, jnp.asarray(0.5), jnp.asarray(0.5), y, jnp.int32(0))
    found = jacobian.spectrum(denoised, y, p, jax.random.key(seed), tol=1e-10)
    dense = np.asarray(den.jacobian(den.params, y, p.sigma, jnp.int32(0)))
    for name, (value, want, error) in compare(found, dense).items():
        assert error <= 1e-6, (name, value, want)


def test_vectors_are_what_they_are_called():
    a = np.random.default_rng(0).normal(size=(40, 40))
    found = jacobian.spectrum(product, jnp.zeros(40), jnp.asarray(a), jax.random.key(0))
    symmetric = (a + a.T) / 2
    v = np.asarray(found.symmetric.low_vector)
    assert np.linalg.norm(v) == pytest.approx(1)
    assert np.linalg.norm(symmetric @ v - float(found.symmetric.low) * v) <= float(found.symmetric.low_residual) + 1e-10
    right, left = np.asarray(found.norm.right), np.asarray(found.norm.left)
    assert np.linalg.norm(a @ right) == pytest.approx(float(found.norm.value), rel=1e-6)
    assert left @ a @ right == pytest.approx(float(found.norm.value), rel=1e-9)


def test_every_lane_is_its_own():
    rng = np.random.default_rng(1)
    stack = jnp.asarray(np.stack([matrices(kind, 24, rng) for kind in ("general", "zero", "identity", "rank one")]))
    key = jax.random.key(0)
    lanes = jax.vmap(lambda m: jacobian.spectrum(product, jnp.zeros(24), m, key))(stack)
    for i in range(4):
        for name, (value, want, error) in compare(
            jax.tree.map(lambda a, i=i: a[i], lanes), np.asarray(stack[i])
        ).items():
            assert error <= 1e-6, (i, name, value, want)


def test_no_dense_matrix_and_few_products():
    """784 values, a dominant eigenvalue: far fewer products than values."""
    d = 784
    diagonal = jnp.asarray(np.r_[100.0, np.random.default_rng(0).uniform(0, 1, d - 1)])
    found = jacobian.extreme_eigenvalues(lambda v: diagonal * v, d, jax.random.key(0), steps=256)
    assert float(found.high) == pytest.approx(100, rel=1e-9)
    assert int(found.products) <= 256


def test_eigenvalue_radius_is_not_sold_as_a_norm():
    """[[.5, 10], [0, .5]] has spectral radius 0.5 and norm 10.02."""
    found = jacobian.spectrum(product, jnp.zeros(2), jnp.asarray([[0.5, 10.0], [0.0, 0.5]]), jax.random.key(0))
    assert float(found.norm.value) == pytest.approx((10 + 101**0.5) / 2, rel=1e-9)


@given(st.integers(0, 10**6), st.sampled_from([2, 7, 30]), st.sampled_from([1e-150, 1.0, 1e150]))
def test_tridiagonal_extremes(seed, n, scale):
    rng = np.random.default_rng(seed)
    diagonal, off = scale * rng.normal(size=n), scale * rng.normal(size=n - 1) * (rng.random(n - 1) > 0.2)
    matrix = np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)
    values = np.linalg.eigvalsh(matrix)
    low, high = EXTREMES(jnp.asarray(diagonal), jnp.asarray(off))
    size = np.abs(values).max()
    assert abs(float(low.value) - values[0]) <= 1e-13 * size
    assert abs(float(high.value) - values[-1]) <= 1e-13 * size
    for pair in (low, high):
        v = np.asarray(pair.vector)
        assert np.linalg.norm(matrix @ v - float(pair.value) * v) <= 1e-10 * size


def test_sturm_counts():
    diagonal, off = jnp.asarray([1.0, 2.0, 3.0, 4.0]), jnp.asarray([0.5, 0.0, 1.5])
    values = np.linalg.eigvalsh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    x = np.linspace(-1, 7, 50)
    assert tridiagonal.count_below(diagonal, off, jnp.asarray(x)).tolist() == [(values < t).sum() for t in x]
