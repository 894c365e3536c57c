"""Norms and extreme eigenvalues of Jacobians from products alone: jvp and vjp, never a dense matrix.

In this room: Lanczos for symmetric operators and Golub-Kahan-Lanczos for general ones, both fully reorthogonalised
(twice, Giraud et al. 2005), one call a batch through jax.vmap; where a full basis would be large, the thick restart of
:mod:`fpjax.restarted` takes over. Every number is a Ritz value of the operator at one point. **A largest Ritz value is a
lower estimate of the largest eigenvalue, never a bound (T15)**; its residual is measured on the returned vector, and says
how far the nearest eigenvalue can be. Not in this room: verdicts, regions, witnesses' search; eigenvalues of nonsymmetric
operators (nonsymmetric), traces and other norms (moments), what a Ritz value may claim (confidence).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fpjax import restarted, tridiagonal


class Extremes(NamedTuple):
    """Extreme eigenvalues of a symmetric operator at one point.

    Attributes:
      low, high: smallest and largest Ritz value.
      low_vector, high_vector: their unit vectors, flat (d,).
      low_residual, high_residual: ||A v - theta v||; an eigenvalue lies within this of theta.
      products: operator applications, int32.
    """

    low: jax.Array
    high: jax.Array
    low_vector: jax.Array
    high_vector: jax.Array
    low_residual: jax.Array
    high_residual: jax.Array
    products: jax.Array


class Norm(NamedTuple):
    """The largest singular value of an operator at one point.

    Attributes:
      value: largest Ritz singular value, a lower estimate of the spectral norm.
      right, left: its unit singular vectors, flat.
      residual: the larger of ||A v - s u|| and ||A^T u - s v||; a singular value lies within sqrt(2) times this of s.
      products: applications of the operator and of its transpose together, int32.
    """

    value: jax.Array
    right: jax.Array
    left: jax.Array
    residual: jax.Array
    products: jax.Array


def linear(function: Callable, y):
    """The Jacobian of ``function`` at y as two functions on flat vectors: v -> J v and u -> J^T u.

    The function itself is evaluated once; each product then costs its linear part alone.
    """
    shape = y.shape
    push = jax.linearize(function, y)[1]
    pull = jax.linear_transpose(push, y)

    def forward(v):
        return push(v.reshape(shape)).reshape(-1)

    def transpose(u):
        return pull(u.reshape(shape))[0].reshape(-1)

    return forward, transpose


def symmetric_part(function: Callable, y) -> Callable:
    """v -> (J + J^T) v / 2 on flat vectors."""
    forward, transpose = linear(function, y)
    return lambda v: (forward(v) + transpose(v)) / 2


def _orthogonalise(w, basis):
    """w minus its part in the span of the rows of ``basis``; twice is enough."""
    for _ in range(2):
        w = w - basis.T @ (basis @ w)
    return w


def _unit(w, fallback):
    """w/|w| and |w|; a fresh direction and 0 where w is rounding noise, so that a defective start is no breakdown."""
    norm = jnp.linalg.norm(w)
    safe = norm != 0  # NaN goes on as NaN
    return jnp.where(safe, w / jnp.where(safe, norm, jnp.ones_like(norm)), fallback), norm


def _fresh(key, j, basis):
    """A random unit vector orthogonal to the basis: the restart after an invariant subspace was found."""
    v = jax.random.normal(jax.random.fold_in(key, j), basis.shape[1:], basis.dtype)
    v = _orthogonalise(v, basis)
    return v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)


MOST = 256  # Lanczos vectors kept unless the caller asks for more: memory is this many points
CHUNK = 16  # iterations between two tests of convergence
FULL_BYTES = 2**24  # a full basis larger than this, for one point, is replaced by a restarted one


def _drive(body: Callable, tested: Callable, carry, m: int):
    """Runs ``body(carry, j)`` for j = 0, 1, ... below m until ``tested(carry, j)`` is true, asked every CHUNK iterations.

    ``tested`` returns (whether to stop, what it found); the last finding is returned, so that it is compiled once.
    Under vmap each lane keeps its own count; the small eigenproblem of the test is solved once a chunk, not once a step.
    """

    def chunk(state):
        carry, j, *_ = state

        def one(_, inner):
            carry, j = inner
            moved = body(carry, j)
            live = j < m
            carry = jax.tree.map(lambda a, b: jnp.where(live, a, b), moved, carry)
            return carry, jnp.where(live, j + 1, j)

        carry, j = jax.lax.fori_loop(0, CHUNK, one, (carry, j))
        return carry, j, *tested(carry, j)

    found = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(tested, carry, jnp.int32(0))[1])
    start = (carry, jnp.int32(0), jnp.asarray(False), found)
    carry, j, _, found = jax.lax.while_loop(lambda s: ~s[2] & (s[1] < m), chunk, start)
    return carry, j, found


def _remainder(w, basis, eps):
    """w orthogonalised against the basis; exactly 0 where only rounding is left (an invariant subspace)."""
    size = jnp.linalg.norm(w)
    w = _orthogonalise(w, basis)
    return jnp.where(jnp.linalg.norm(w) <= 10 * eps * size, jnp.zeros_like(w), w)  # NaN is not rounding


def extreme_eigenvalues(
    operator: Callable, d: int, key, *, tol=1e-8, steps: int = MOST, dtype=None, start=None
) -> Extremes:
    """Smallest and largest eigenvalue of a symmetric operator on flat vectors of d values, by Lanczos.

    Args:
      operator: v -> A v with A symmetric.
      key: random key of the starting vector.
      tol: stops when both residuals are below tol times the largest Ritz magnitude.
      steps: the most iterations (never more than d); memory is steps·d values, or restarted.BASIS·d where that would
        exceed FULL_BYTES.
      dtype: of the computation; the default float if left out.
      start: (d,), the starting vector in place of a random one; T15 then says nothing.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    m = min(d, steps)
    if m * d * jnp.dtype(dtype).itemsize > FULL_BYTES:
        return _extremes_restarted(operator, d, key, tol, steps, dtype, start)
    rows = jnp.arange(m, dtype=jnp.int32)
    eps = jnp.finfo(dtype).eps
    start = jax.random.normal(key, (d,), dtype) if start is None else start
    basis = jnp.zeros((m + 1, d), dtype).at[0].set(start / jnp.linalg.norm(start))

    def ritz(alpha, beta, j):
        """Extreme Ritz pairs of the leading j×j block, and their residuals."""
        used = rows < j
        inside = jnp.sum(jnp.where(used, alpha, 0)) / j.astype(dtype)  # unused rows get a value within the spectrum
        pairs = tridiagonal.extremes(jnp.where(used, alpha, inside), jnp.where(rows[1:] < j, beta[: m - 1], 0))
        # Only if all entries agree can the vector live in unused rows: then every used row is an eigenvector too.
        vectors = [_used(pair.vector, used) for pair in pairs]
        residuals = [jnp.abs(beta[j - 1] * v[j - 1]) for v in vectors]
        low, high = (tridiagonal.Pair(p.value, v) for p, v in zip(pairs, vectors, strict=True))
        return low, high, residuals[0], residuals[1]

    def body(carry, j):
        basis, alpha, beta = carry
        w = operator(basis[j])
        a = basis[j] @ w
        unit, b = _unit(_remainder(w, basis, eps), _fresh(key, j + 1, basis))
        return basis.at[j + 1].set(unit), alpha.at[j].set(a), beta.at[j].set(b)

    def tested(carry, j):
        _, alpha, beta = carry
        low, high, low_residual, high_residual = ritz(alpha, beta, j)
        scale = jnp.maximum(jnp.abs(low.value), jnp.abs(high.value))
        # beta = 0 after one invariant subspace proves nothing about the others.
        done = (beta[j - 1] > 0) & (low_residual <= tol * scale) & (high_residual <= tol * scale)
        return done, (low, high)

    zeros = jnp.zeros(m, dtype)
    (basis, _, _), j, (low, high) = _drive(body, tested, (basis, zeros, zeros), m)
    lift = basis[:m].T
    return _measured(operator, low.value, high.value, lift @ low.vector, lift @ high.vector, j)


def _used(vector, used):
    """The vector without its unused rows, again of unit length; the first unit vector if nothing is left."""
    kept = jnp.where(used, vector, jnp.zeros_like(vector))
    return _unit(kept, jnp.zeros_like(vector).at[0].set(1))[0]


def _measured(operator, low, high, low_vector, high_vector, products) -> Extremes:
    """Extremes with residuals computed from the vectors that are returned, at two more products."""
    residuals = [jnp.linalg.norm(operator(v) - s * v) for s, v in ((low, low_vector), (high, high_vector))]
    # Sturm counts turn NaN into some finite number; a value whose residual is not finite must not look like one.
    low, high = (jnp.where(jnp.isfinite(r), s, jnp.nan) for r, s in zip(residuals, (low, high), strict=True))
    return Extremes(low, high, low_vector, high_vector, residuals[0], residuals[1], products + 2)


def _extremes_restarted(operator, d, key, tol, steps, dtype, start) -> Extremes:
    found = restarted.lanczos(operator, d, key, tol=tol, steps=steps, dtype=dtype, start=start)
    return _measured(operator, found.low, found.high, found.low_vector, found.high_vector, found.products)


def spectral_norm(
    forward: Callable, transpose: Callable, d: int, key, *, tol=1e-8, steps: int = MOST, dtype=None, start=None
) -> Norm:
    """The largest singular value of a square operator, by Golub-Kahan-Lanczos bidiagonalisation.

    Args:
      forward: v -> A v. transpose: u -> A^T u. Both on flat vectors of d values.
      key, tol, steps, dtype, start: as in :func:`extreme_eigenvalues`.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    m = min(d, steps)
    if 2 * m * d * jnp.dtype(dtype).itemsize > FULL_BYTES:
        return _norm_restarted(forward, transpose, d, key, tol, steps, dtype, start)
    rows = jnp.arange(m, dtype=jnp.int32)
    eps = jnp.finfo(dtype).eps
    start = jax.random.normal(key, (d,), dtype) if start is None else start
    right = jnp.zeros((m + 1, d), dtype).at[0].set(start / jnp.linalg.norm(start))
    keys = jax.random.split(jax.random.fold_in(key, 1))

    def body(carry, j):
        right, left, alpha, beta = carry
        u, a = _unit(_remainder(forward(right[j]), left, eps), _fresh(keys[0], j, left))
        v, b = _unit(_remainder(transpose(u), right, eps), _fresh(keys[1], j, right))
        return right.at[j + 1].set(v), left.at[j].set(u), alpha.at[j].set(a), beta.at[j].set(b)

    def top(alpha, beta, j):
        off = jnp.where(rows[1:] < j, beta[: m - 1], 0)
        s, u, v = tridiagonal.largest_singular(alpha, off)  # unused rows of alpha are zero
        return s, v, u, jnp.abs(beta[j - 1] * u[j - 1])

    def tested(carry, j):
        _, _, alpha, beta = carry
        s, v, u, residual = top(alpha, beta, j)
        return (beta[j - 1] > 0) & (residual <= tol * s), (s, v, u)

    zeros = jnp.zeros(m, dtype)
    carry, j, (s, v, u) = _drive(body, tested, (right, jnp.zeros((m, d), dtype), zeros, zeros), m)
    return _measured_norm(forward, transpose, s, carry[0][:m].T @ v, carry[1].T @ u, 2 * j)


def _measured_norm(forward, transpose, s, right, left, products) -> Norm:
    """A Norm with the residual computed from the vectors that are returned, at two more products."""
    residual = jnp.maximum(jnp.linalg.norm(forward(right) - s * left), jnp.linalg.norm(transpose(left) - s * right))
    return Norm(jnp.where(jnp.isfinite(residual), s, jnp.nan), right, left, residual, products + 2)


def _norm_restarted(forward, transpose, d, key, tol, steps, dtype, start) -> Norm:
    """Thick-restart Lanczos on A^T A: the largest singular value keeps its relative accuracy, and one basis is enough."""
    options = {"tol": tol, "steps": steps, "dtype": dtype, "start": start, "ends": "high"}
    found = restarted.lanczos(lambda v: transpose(forward(v)), d, key, **options)
    right = found.high_vector
    left, s = _unit(forward(right), right)
    return _measured_norm(forward, transpose, s, right, left, 2 * found.products + 1)


class Spectrum(NamedTuple):
    """What one point says about J = J_D there; see :func:`spectrum`.

    Attributes:
      symmetric: extremes of (J + J^T)/2.
      norm: ||J||. departure: ||I - J||. asymmetry: ||J - J^T||/2.
    """

    symmetric: Extremes
    norm: Norm
    departure: Norm
    asymmetry: Norm


@functools.partial(jax.jit, static_argnames=("function", "steps"))
def spectrum(function: Callable, y, params, key, *, tol=1e-8, steps: int = MOST) -> Spectrum:
    """Extremes of sym J, ||J||, ||I - J|| and ||J - J^T||/2 for J the Jacobian of ``function(y, params)`` in y.

    Args:
      function: top-level, (y, params) -> array like y.
      y: one point; its dtype is that of the computation.
      steps: most Lanczos iterations of each of the four.
    """
    forward, transpose = linear(lambda v: function(v, params), y)
    d = y.size
    options = {"tol": tol, "steps": steps, "dtype": y.dtype}
    keys = jax.random.split(key, 4)
    return Spectrum(
        extreme_eigenvalues(lambda v: (forward(v) + transpose(v)) / 2, d, keys[0], **options),
        spectral_norm(forward, transpose, d, keys[1], **options),
        spectral_norm(lambda v: v - forward(v), lambda u: u - transpose(u), d, keys[2], **options),
        spectral_norm(
            lambda v: (forward(v) - transpose(v)) / 2, lambda u: (transpose(u) - forward(u)) / 2, d, keys[3], **options
        ),
    )
