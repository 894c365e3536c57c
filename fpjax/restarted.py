"""Thick-restart Lanczos (Wu & Simon 2000): extreme eigenvalues with a fixed, small number of vectors in memory.

In this room: the restarted iteration, and a Jacobi eigenvalue method for its small dense matrix in plain jnp, because a
LAPACK call inside a batched compiled loop can hang on CPU (see :mod:`fpjax.tridiagonal`). Used by
:mod:`fpjax.jacobian` where a full basis would be large: an image of 3×512×512 float32 values takes 3 MiB a vector.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import sharding
from fpjax.lockstep import every

BASIS = 20  # vectors of the basis; one more is held for the residual
KEPT = 6  # Ritz vectors that survive a restart
SWEEPS = 8  # most Jacobi sweeps: quadratic convergence reaches rounding in about six for matrices of this size


class Ends(NamedTuple):
    """Smallest and largest Ritz pair of a symmetric operator.

    Attributes:
      low, high: Ritz values. low_vector, high_vector: unit vectors (d,). products: int32.
    """

    low: jax.Array
    high: jax.Array
    low_vector: jax.Array
    high_vector: jax.Array
    products: jax.Array


@functools.cache
def _rounds(n: int) -> np.ndarray:
    """A round-robin tournament: (n - 1, 2, n/2) index pairs, each round touching every row once; n even."""
    players = list(range(n))
    rounds = []
    for _ in range(n - 1):
        rounds.append([players[: n // 2], players[n // 2 :][::-1]])
        players = [players[0], players[-1], *players[1:-1]]
    return np.asarray(rounds, np.int32)


def symmetric_eigh(a):
    """All eigenvalues, increasing, and eigenvectors (columns) of a small symmetric matrix (n, n), by Jacobi rotations.

    Sweeps are parallel: each round rotates n/2 disjoint pairs of rows (Brent & Luk 1985).
    """
    n = a.shape[0]
    even = n + n % 2
    size = jnp.max(jnp.abs(a))
    scale = jnp.where(size == 0, jnp.ones_like(size), size)  # NaN makes every entry NaN
    # An odd matrix gets a decoupled row whose eigenvalue lies above all others, so that sorting puts it last.
    padded = jnp.zeros((even, even), a.dtype).at[:n, :n].set(a / scale)
    padded = padded if even == n else padded.at[n, n].set(2 * n)
    rounds = jnp.asarray(_rounds(even))

    def rotate(i, carry):
        a, q = carry
        first, second = rounds[i % (even - 1)]
        x, y, z = a[first, first], a[second, second], a[first, second]
        live = jnp.abs(z) > 0
        tau = (y - x) / (2 * jnp.where(live, z, jnp.ones_like(z)))
        t = jnp.where(tau >= 0, 1, -1).astype(a.dtype) / (jnp.abs(tau) + jnp.sqrt(1 + tau**2))
        t = jnp.where(live, t, jnp.zeros_like(t))
        c = 1 / jnp.sqrt(1 + t**2)
        s = t * c
        turn = jnp.zeros_like(a).at[first, first].set(c).at[second, second].set(c)
        turn = turn.at[first, second].set(s).at[second, first].set(-s)
        a = turn.T @ a @ turn
        return (a + a.T) / 2, q @ turn

    def sweep(state):
        a, q, k = state
        a, q = jax.lax.fori_loop(0, even - 1, rotate, (a, q))
        return a, q, k + 1

    def unfinished(state):
        a, _, k = state
        off = jnp.max(jnp.abs(a - jnp.diag(jnp.diagonal(a))))
        return (k < SWEEPS) & (off > jnp.finfo(a.dtype).eps)

    start = (padded, jnp.eye(even, dtype=a.dtype), jnp.int32(0))
    a, q, _ = jax.lax.while_loop(unfinished, sweep, start)
    values = jnp.diagonal(a)
    order = jnp.argsort(values)[:n]
    return values[order] * scale, q[:n, order]


def lanczos(
    operator: Callable,
    d: int,
    key,
    *,
    tol=1e-8,
    steps: int = 256,
    dtype=None,
    ends: str = "both",
    basis: int = BASIS,
    start=None,
    over=None,
) -> Ends:
    """Extreme eigenpairs of a symmetric operator on flat vectors of d values; memory is ``basis + 1`` vectors.

    Args:
      operator: v -> A v with A symmetric.
      key: random key of the start. tol: stops when the residuals are below tol times the largest Ritz magnitude.
      steps: the most products. dtype: default float if left out.
      ends: "both", or "high" to ask (and keep vectors) for the largest alone.
      basis: vectors kept, more than KEPT; d itself if that is less.
      start: (d,), the starting vector in place of a random one.
      over: devices that share the vectors, see :func:`fpjax.jacobian.extreme_eigenvalues`.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    m = min(d, basis)
    kept = min(KEPT, m - 1)
    lows = 0 if ends == "high" else kept // 2
    chosen = np.concatenate([np.arange(lows), np.arange(m - (kept - lows), m)]).astype(np.int32)
    eps = jnp.finfo(dtype).eps
    start = jax.random.normal(key, (d,), dtype) if start is None else start
    vectors = sharding.in_pieces(jnp.zeros((m + 1, d), dtype).at[0].set(start / jnp.linalg.norm(start)), over)

    def extend(carry):
        """One product: a new column of the projected matrix, a new basis vector."""
        vectors, matrix, _, j, products = carry
        w = operator(vectors[j])
        size = jnp.linalg.norm(w)
        first = vectors @ w
        w = w - first @ vectors
        again = vectors @ w
        w = w - again @ vectors
        column = (first + again)[:m]
        b = jnp.linalg.norm(w)
        b = jnp.where(b <= 10 * eps * size, jnp.zeros_like(b), b)  # NaN is not rounding
        # A fresh direction where the Krylov space is invariant; NaN falls through to `w / b` and stays visible.
        unit = jax.lax.cond(every(b != 0), lambda: w / b, lambda: _fresh(key, products, vectors, w, b))
        matrix = matrix.at[:, j].set(column).at[j, :].set(column)
        return vectors.at[j + 1].set(unit), matrix, b, j + 1, products + 1

    def cycle(state):
        carry, stopped, kept_values, kept_outer, count = state
        vectors, matrix, b, _, products = jax.lax.while_loop(lambda c: c[3] < m, extend, carry)
        values, q = symmetric_eigh(matrix)
        residuals = b * jnp.abs(q[m - 1])
        scale = jnp.max(jnp.abs(values))
        done = residuals[m - 1] <= tol * scale
        if lows or ends == "both":
            done = done & (residuals[0] <= tol * scale)
        edge = jnp.stack([q[:, 0], q[:, m - 1]])
        outer = edge @ vectors[:m]
        carried = q[:, chosen].T @ vectors[:m]
        vectors = vectors.at[: kept + 1].set(jnp.concatenate([carried, vectors[m : m + 1]])).at[kept + 1 :].set(0)
        arrow = b * q[m - 1, chosen]
        matrix = jnp.zeros_like(matrix).at[np.arange(kept), np.arange(kept)].set(values[chosen])
        if kept < m:
            matrix = matrix.at[kept, :kept].set(arrow).at[:kept, kept].set(arrow)
        # A basis as large as the space holds every eigenvector.
        finished = done | ~jnp.isfinite(scale) | (m == d)
        # All lanes of a vmap go on until the last has finished; each keeps its own answer (lockstep.every).
        found = jnp.where(stopped, kept_values, values[jnp.asarray([0, m - 1])])
        outer = jnp.where(stopped, kept_outer, outer)
        count = jnp.where(stopped, count, products)
        return (vectors, matrix, b, jnp.int32(kept), products), stopped | finished, found, outer, count

    zero = jnp.zeros((), dtype)
    carry = (vectors, jnp.zeros((m, m), dtype), zero, jnp.int32(0), jnp.int32(0))
    state = (carry, jnp.asarray(False), jnp.zeros(2, dtype), jnp.zeros((2, d), dtype), jnp.int32(0))
    _, _, values, outer, count = jax.lax.while_loop(lambda s: ~every(s[1]) & (s[0][4] < steps), cycle, state)
    outer = outer / jnp.linalg.norm(outer, axis=1, keepdims=True)
    return Ends(values[0], values[1], outer[0], outer[1], count)


def _fresh(key, j, vectors, w, b):
    """w/b; a random unit vector orthogonal to the basis where b = 0."""
    v = jax.random.normal(jax.random.fold_in(key, j), vectors.shape[1:], vectors.dtype)
    for _ in range(2):
        v = v - (vectors @ v) @ vectors
    v = v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)
    return jnp.where(b == 0, v, w / jnp.where(b == 0, jnp.ones_like(b), b))
