"""Extreme eigenpairs of small symmetric tridiagonal matrices, in plain jnp.

In this room: what Lanczos needs at the end of each chunk. It is not LAPACK's eigh because on CPU a batched LAPACK call
inside a compiled loop waits for the very thread pool that it runs on: two at once hang a two-core machine (jaxlib
0.10.2). It is also O(n) for the two ends, and the same code on every accelerator.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

SECTIONS = 31  # points of one multisection pass: each pass divides the interval by 32


class Pair(NamedTuple):
    """An eigenvalue and its unit eigenvector (n,)."""

    value: jax.Array
    vector: jax.Array


def _guard(q):
    """q, or the smallest normal number where q is 0, so that a pivot can be divided by."""
    tiny = jnp.finfo(q.dtype).tiny
    return jnp.where(jnp.abs(q) < tiny, jnp.where(q < 0, -tiny, tiny), q)


def count_below(diagonal, off, x):
    """How many eigenvalues lie below each x (p,): negative pivots of T - x I (Sturm; Sylvester's law of inertia).

    Args:
      diagonal: (n,). off: (n - 1,).
    """
    squares = jnp.concatenate([jnp.zeros(1, off.dtype), off**2])

    def pivot(carry, row):
        count, q = carry
        d, e2 = row
        q = _guard(d - x - e2 / q)
        return (count + (q < 0).astype(jnp.int32), q), None

    start = (jnp.zeros(x.shape, jnp.int32), jnp.ones_like(x))
    return jax.lax.scan(pivot, start, (diagonal, squares))[0][0]


def _largest(diagonal, off):
    """The largest eigenvalue, by multisection of Gershgorin's interval down to rounding."""
    n = diagonal.shape[0]
    zero = jnp.zeros(1, off.dtype)
    radius = jnp.abs(jnp.concatenate([zero, off])) + jnp.abs(jnp.concatenate([off, zero]))
    low, high = jnp.min(diagonal - radius), jnp.max(diagonal + radius)
    bits = jnp.finfo(diagonal.dtype).nmant + 4
    fractions = jnp.arange(1, SECTIONS + 1, dtype=diagonal.dtype) / (SECTIONS + 1)

    def narrow(_, interval):
        low, high = interval
        x = low + (high - low) * fractions
        counts = count_below(diagonal, off, x)
        # `inside` points lie at or left of the eigenvalue sought.
        inside = counts < n
        left = jnp.max(jnp.where(inside, x, low))
        right = jnp.min(jnp.where(inside, high, x))
        return left, right

    low, high = jax.lax.fori_loop(0, -(-bits // 5), narrow, (low, high))
    return (low + high) / 2


def _vector(diagonal, off, value):
    """The unit eigenvector of a computed eigenvalue by a twisted factorisation (Dhillon & Parlett 2004).

    The pivots of T - value I from the top and from the bottom meet at the row where they nearly cancel; solving outwards
    from there divides by no small number.
    """
    n = diagonal.shape[0]
    shifted = diagonal - value
    square = off**2

    def pivots(d, e2):
        def step(q, row):
            q = _guard(row[0] - row[1] / q)
            return q, q

        start = jnp.ones((), d.dtype)
        return jax.lax.scan(step, start, (d, jnp.concatenate([jnp.zeros(1, d.dtype), e2])))[1]

    top = pivots(shifted, square)
    bottom = pivots(shifted[::-1], square[::-1])[::-1]
    twist = jnp.argmin(jnp.abs(top + bottom - shifted))
    rows = jnp.arange(n, dtype=twist.dtype)

    def outwards(z, row):
        inside, ratio = row
        z = jnp.where(inside, -ratio * z, jnp.ones_like(z))
        return z, z

    one = jnp.ones((), diagonal.dtype)
    zero = jnp.zeros(1, off.dtype)
    down = jnp.concatenate([zero, off / bottom[1:]])  # z_i = -(e_{i-1}/bottom_i) z_{i-1} below the twist
    up = jnp.concatenate([off / top[:-1], zero])
    below = jax.lax.scan(outwards, one, (rows > twist, down))[1]
    above = jax.lax.scan(outwards, one, (rows < twist, up), reverse=True)[1]
    z = jnp.where(rows >= twist, below, above)
    return z / jnp.linalg.norm(z)


def extremes(diagonal, off) -> tuple[Pair, Pair]:
    """The smallest and the largest eigenpair of the symmetric tridiagonal matrix (diagonal (n,), off (n - 1,))."""
    # Scaled to unit size, so that squares neither overflow nor underflow.
    size = jnp.maximum(jnp.max(jnp.abs(diagonal)), jnp.max(jnp.abs(off), initial=0))
    scale = jnp.where(size == 0, jnp.ones_like(size), size)  # NaN makes every entry NaN
    diagonal, off = diagonal / scale, off / scale
    # The smallest eigenvalue is the negated largest of the negated matrix: one program for both ends.
    signs = jnp.asarray([-1, 1], diagonal.dtype)
    low, high = jax.vmap(lambda sign: sign * _largest(sign * diagonal, off))(signs)
    vectors = jax.vmap(_vector, in_axes=(None, None, 0))(diagonal, off, jnp.stack([low, high]))
    return Pair(low * scale, vectors[0]), Pair(high * scale, vectors[1])


def largest_singular(alpha, beta) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Largest singular value of the upper bidiagonal matrix (diagonal alpha (n,), superdiagonal beta (n - 1,)).

    Returns:
      The value, and its unit left and right singular vectors (n,), from the 2n×2n tridiagonal matrix with zero diagonal
      whose eigenvalues are ± the singular values (Golub & Kahan 1965).
    """
    n = alpha.shape[0]
    off = jnp.zeros(2 * n - 1, alpha.dtype).at[0::2].set(alpha).at[1::2].set(beta)
    size = jnp.max(jnp.abs(off))
    scale = jnp.where(size == 0, jnp.ones_like(size), size)  # NaN makes every entry NaN
    diagonal = jnp.zeros(2 * n, alpha.dtype)
    value = _largest(diagonal, off / scale)
    z = _vector(diagonal, off / scale, value)
    right, left = z[0::2], z[1::2]
    unit = jnp.zeros(n, alpha.dtype).at[0].set(1)

    def normal(v):
        norm = jnp.linalg.norm(v)
        return jnp.where(norm > 0, v / jnp.where(norm > 0, norm, jnp.ones_like(norm)), unit)

    return value * scale, normal(left), normal(right)
