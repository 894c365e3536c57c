"""What symmetric tools do not see of a Jacobian: spectral radius, numerical range, distance from normality.

In this room: Arnoldi for a batch of points, grown a chunk at a time with the small eigenproblems on the host (no LAPACK
inside compiled loops, see :mod:`fpjax.tridiagonal`); the boundary of the numerical range from Hermitian extremes
(Johnson 1978); the commutator J^T J - J J^T. **An eigenvalue is not a norm**: [[.5, 10], [0, .5]] has spectral radius 0.5
and norm 10.02, so nothing here says that an iteration contracts.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.jacobian import MOST, Extremes, extreme_eigenvalues, linear

CHUNK = 4  # Arnoldi steps between two tests of convergence, which are on the host


class Radius(NamedTuple):
    """The largest eigenvalue modulus at n points, from Arnoldi's projected matrices.

    Attributes:
      value: (n,), modulus of the largest Ritz value. For a nonnormal J it may lie above or below the spectral radius.
      eigenvalue: (n,) complex. residual: (n,), ||J x - theta x|| for the unit Ritz vector x, by the Arnoldi relation plus
        one rounding of ||H||: theta is an eigenvalue of a matrix within this of J, which for a nonnormal J need not be
        near an eigenvalue of J itself.
      condition: (n,), 1/|y^H x| of theta in the projected matrix: its error is about condition·residual; infinite for a
        defective eigenvalue.
      products: (n,) int.
    """

    value: np.ndarray
    eigenvalue: np.ndarray
    residual: np.ndarray
    condition: np.ndarray
    products: np.ndarray


class NumericalRange(NamedTuple):
    """The boundary of W(J) = { x^H J x : |x| = 1 } at one point.

    Attributes:
      angles: (k,), in [0, 2 pi), increasing. support: (k,), lower estimates of h(angle) = max Re(e^{-i angle} W).
      points: (k,) complex, points of W itself: their convex hull lies inside W.
      residual: (k,), of the Hermitian Ritz pairs.
    """

    angles: jax.Array
    support: jax.Array
    points: jax.Array
    residual: jax.Array


class _Arnoldi(NamedTuple):
    basis: jax.Array
    hessenberg: jax.Array
    j: jax.Array


@functools.partial(jax.jit, static_argnames=("function", "axes"))
def _grow(function, points, params, keys, state: _Arnoldi, live, axes) -> _Arnoldi:
    """CHUNK more Arnoldi steps for the lanes that are live."""

    def lane(y, p, key, s, live):
        forward, _ = linear(lambda v: function(v, p), y)
        m, eps = s.hessenberg.shape[1], jnp.finfo(y.dtype).eps

        def one(_, s):
            w = forward(s.basis[s.j])
            size = jnp.linalg.norm(w)
            first = s.basis @ w
            w = w - first @ s.basis
            again = s.basis @ w
            w = w - again @ s.basis
            b = jnp.linalg.norm(w)
            b = jnp.where(b <= 10 * eps * size, jnp.zeros_like(b), b)
            fresh = jax.random.normal(jax.random.fold_in(key, s.j), w.shape, w.dtype)
            for _ in range(2):
                fresh = fresh - (s.basis @ fresh) @ s.basis
            fresh = fresh / jnp.maximum(jnp.linalg.norm(fresh), jnp.finfo(w.dtype).tiny)
            unit = jnp.where(b == 0, fresh, w / jnp.where(b == 0, jnp.ones_like(b), b))
            column = (first + again).at[s.j + 1].add(b)
            grown = _Arnoldi(s.basis.at[s.j + 1].set(unit), s.hessenberg.at[:, s.j].set(column), s.j + 1)
            move = live & (s.j < m)
            return jax.tree.map(lambda a, b: jnp.where(move, a, b), grown, s)

        return jax.lax.fori_loop(0, CHUNK, one, s)

    return jax.vmap(lane, in_axes=(0, axes, 0, 0, 0))(points, params, keys, state, live)


def spectral_radius(
    function: Callable, points, params, key, *, tol: float = 1e-8, steps: int = MOST, params_axes=None
) -> Radius:
    """The eigenvalue of largest modulus of the Jacobian of ``function(y, params)`` in y, at each of n points, by Arnoldi.

    Not for use inside jit: the small eigenproblems are solved by LAPACK on the host between compiled chunks.

    Args:
      function: top-level, (y, params) -> array like y.
      points: (n, *shape); their dtype is that of the computation.
      params: a pytree; ``params_axes`` are its axes in the sense of jax.vmap (None: the same for all points).
      tol: a lane stops when its residual is below tol times the modulus, and after ``steps`` (at most d) products.
    """
    n, d = points.shape[0], points[0].size
    m = min(d, steps)
    keys = jax.random.split(key, n)
    start = jax.vmap(lambda k: jax.random.normal(k, (d,), points.dtype))(jax.random.split(keys[0], n))
    start = start / jnp.linalg.norm(start, axis=1, keepdims=True)
    basis = jnp.zeros((n, m + 1, d), points.dtype).at[:, 0].set(start)
    state = _Arnoldi(basis, jnp.zeros((n, m + 1, m), points.dtype), jnp.zeros(n, jnp.int32))
    live = np.ones(n, bool)
    found = np.zeros((n, 3), np.complex128)  # eigenvalue, residual, condition
    while live.any():
        state = _grow(function, points, params, keys, state, jnp.asarray(live), params_axes)
        count = np.asarray(state.j)
        hessenberg = np.asarray(state.hessenberg, np.float64)
        for i in np.flatnonzero(live):
            found[i], done = _top(hessenberg[i], int(count[i]), d, tol, float(jnp.finfo(points.dtype).eps))
            live[i] = not done and count[i] < m
    eigenvalue = found[:, 0]
    return Radius(np.abs(eigenvalue), eigenvalue, found[:, 1].real, found[:, 2].real, np.asarray(state.j))


def _top(hessenberg, j: int, d: int, tol: float, eps: float):
    """The largest Ritz value of the leading j×j block, its residual and condition, and whether that is good enough."""
    import scipy.linalg

    h = hessenberg[:j, :j]
    if not np.isfinite(h).all():
        return (np.nan, np.nan, np.nan), True
    values, left, right = scipy.linalg.eig(h, left=True, right=True)  # pyright: ignore[reportAssignmentType]
    top = int(np.argmax(np.abs(values)))
    b = abs(hessenberg[j, j - 1])
    residual = float(b * abs(right[j - 1, top])) if j < d else 0.0
    floor = eps * float(np.linalg.norm(h))
    overlap = abs(np.vdot(left[:, top], right[:, top]))
    condition = 1 / overlap if overlap > 0 else np.inf
    # b = 0 is an invariant subspace; the fresh direction after it must have its turn, so it does not end the search.
    done = b > 0 and residual <= tol * abs(values[top])
    return (values[top], residual + floor, condition), done


@functools.partial(jax.jit, static_argnames=("function", "angles", "steps"))
def numerical_range(
    function: Callable, y, params, key, *, angles: int = 16, tol=1e-6, steps: int = MOST
) -> NumericalRange:
    """The boundary of the numerical range of the Jacobian of ``function(y, params)`` at y.

    With J = S + K (symmetric and skew part), the Hermitian matrix cos(t)·S - i·sin(t)·K has the largest eigenvalue h(t);
    as a real symmetric operator on pairs (a, b), x = a + ib, Lanczos finds it. W(J) of a real J is symmetric about the
    real axis, so angles in [0, pi/2] are enough for the whole boundary.

    Args:
      angles: directions in [0, pi/2], at least 2; the result has 4·(angles - 1) of them in [0, 2 pi).
      tol, steps: of each Lanczos run.
    """
    forward, transpose = linear(lambda v: function(v, params), y)
    d = y.size
    quarter = jnp.linspace(0, jnp.pi / 2, angles, dtype=y.dtype)

    def apply(x):
        rows = jax.vmap(lambda v: jnp.stack([forward(v), transpose(v)]))(x.reshape(2, d))
        return (rows[:, 0] + rows[:, 1]) / 2, (rows[:, 0] - rows[:, 1]) / 2

    def direction(t):
        def operator(x):
            s, k = apply(x)
            return jnp.concatenate([jnp.cos(t) * s[0] + jnp.sin(t) * k[1], jnp.cos(t) * s[1] - jnp.sin(t) * k[0]])

        return extreme_eigenvalues(operator, 2 * d, key, tol=tol, steps=steps, dtype=y.dtype)

    def value(x):
        s, k = apply(x)
        a, b = x.reshape(2, d)
        return jax.lax.complex(a @ s[0] + b @ s[1], a @ k[1] - b @ k[0])

    ends = jax.lax.map(direction, quarter)
    right, left = jax.lax.map(value, ends.high_vector), jax.lax.map(value, ends.low_vector)
    # Angles: [0, pi/2] from `right`; (pi/2, pi] mirrors `left`'s [pi, 3 pi/2); then both mirrored below the axis.
    support = jnp.concatenate([ends.high, -ends.low[::-1][1:], -ends.low[1:], ends.high[::-1][1:-1]])
    points = jnp.concatenate([right, left.conj()[::-1][1:], left[1:], right.conj()[::-1][1:-1]])
    residual = [ends.high_residual, ends.low_residual[::-1][1:], ends.low_residual[1:], ends.high_residual[::-1][1:-1]]
    k = 4 * (angles - 1)
    return NumericalRange(jnp.arange(k, dtype=y.dtype) * (2 * jnp.pi / k), support, points, jnp.concatenate(residual))


@functools.partial(jax.jit, static_argnames=("function", "steps"))
def commutator(function: Callable, y, params, key, *, tol=1e-6, steps: int = MOST) -> Extremes:
    """Extremes of J^T J - J J^T at y: zero exactly if J is normal; divide the larger magnitude by ||J||² for a ratio.

    Four products with J or J^T for each of ``Extremes.products``.
    """
    forward, transpose = linear(lambda v: function(v, params), y)

    def operator(v):
        return transpose(forward(v)) - forward(transpose(v))

    return extreme_eigenvalues(operator, y.size, key, tol=tol, steps=steps, dtype=y.dtype)
