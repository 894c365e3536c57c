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


def _sweep(step, start, used, *rows, reverse: bool = False):
    """Runs ``carry = step(carry, *row)`` over the first ``used`` rows; every carry (n,), and 0 in the rows beyond.

    A count that is the same in all lanes of a vmap costs that many steps, whatever room the arrays have.
    """

    def one(i, state):
        carry, out = state
        i = used - 1 - i if reverse else i
        carry = step(carry, *(row[i] for row in rows))
        return carry, out.at[i].set(carry)

    return jax.lax.fori_loop(0, used, one, (start, jnp.zeros(rows[0].shape, start.dtype)))[1]


def count_below(diagonal, off, x, used=None):
    """How many eigenvalues lie below each x (p,): negative pivots of T - x I (Sturm; Sylvester's law of inertia).

    Args:
      diagonal: (n,). off: (n - 1,). used: rows of the leading block that is meant; all if left out.
    """
    squares = jnp.concatenate([jnp.zeros(1, off.dtype), off**2])

    def pivot(i, carry):
        count, q = carry
        q = _guard(diagonal[i] - x - squares[i] / q)
        return count + (q < 0).astype(jnp.int32), q

    start = (jnp.zeros(x.shape, jnp.int32), jnp.ones_like(x))
    return jax.lax.fori_loop(0, diagonal.shape[0] if used is None else used, pivot, start)[0]


def _largest(diagonal, off, used):
    """The largest eigenvalue of the leading block, by multisection of Gershgorin's interval down to rounding."""
    zero = jnp.zeros(1, off.dtype)
    radius = jnp.abs(jnp.concatenate([zero, off])) + jnp.abs(jnp.concatenate([off, zero]))
    inside = jnp.arange(diagonal.shape[0], dtype=jnp.int32) < used
    low = jnp.min(jnp.where(inside, diagonal - radius, jnp.inf))
    high = jnp.max(jnp.where(inside, diagonal + radius, -jnp.inf))
    bits = jnp.finfo(diagonal.dtype).nmant + 4
    fractions = jnp.arange(1, SECTIONS + 1, dtype=diagonal.dtype) / (SECTIONS + 1)

    def narrow(_, interval):
        low, high = interval
        x = low + (high - low) * fractions
        left_of = count_below(diagonal, off, x, used) < used  # these points lie at or left of the eigenvalue sought
        left = jnp.max(jnp.where(left_of, x, low))
        right = jnp.min(jnp.where(left_of, high, x))
        return left, right

    low, high = jax.lax.fori_loop(0, -(-bits // 5), narrow, (low, high))
    return (low + high) / 2


def _vector(diagonal, off, value, used):
    """The unit eigenvector of a computed eigenvalue by a twisted factorisation (Dhillon & Parlett 2004).

    The pivots of T - value I from the top and from the bottom meet at the row where they nearly cancel; solving outwards
    from there divides by no small number.
    """
    shifted = diagonal - value
    zero, one = jnp.zeros(1, off.dtype), jnp.ones((), off.dtype)
    before, after = jnp.concatenate([zero, off]), jnp.concatenate([off, zero])

    def pivot(q, d, e):
        return _guard(d - e**2 / q)

    top = _sweep(pivot, one, used, shifted, before)
    bottom = _sweep(pivot, one, used, shifted, after, reverse=True)
    rows = jnp.arange(diagonal.shape[0], dtype=jnp.int32)
    meeting = jnp.where(rows < used, jnp.abs(top + bottom - shifted), jnp.inf)
    twist = jnp.argmin(meeting).astype(rows.dtype)

    def outwards(z, inside, e, q):
        return jnp.where(inside, -(e / q) * z, jnp.ones_like(z))

    below = _sweep(outwards, one, used, rows > twist, before, bottom)
    above = _sweep(outwards, one, used, rows < twist, after, top, reverse=True)
    z = jnp.where(rows >= twist, below, above)
    return z / jnp.linalg.norm(z)


def _block(diagonal, off, used):
    """The leading block of ``used`` rows, decoupled from the rest and scaled to unit size, and the scale.

    Scaled, so that squares neither overflow nor underflow; NaN makes every entry NaN.
    """
    n = diagonal.shape[0]
    rows = jnp.arange(n, dtype=jnp.int32)
    diagonal = jnp.where(rows < used, diagonal, 0)
    off = jnp.where(rows[1:] < used, off, 0)
    size = jnp.maximum(jnp.max(jnp.abs(diagonal)), jnp.max(jnp.abs(off), initial=0))
    scale = jnp.where(size == 0, jnp.ones_like(size), size)
    return diagonal / scale, off / scale, scale


def extremes(diagonal, off, used=None) -> tuple[Pair, Pair]:
    """The smallest and the largest eigenpair of a symmetric tridiagonal matrix.

    Args:
      diagonal: (n,). off: (n - 1,).
      used: rows of the leading block that is meant, int32; all if left out. Vectors are 0 beyond.
    """
    used = diagonal.shape[0] if used is None else used
    diagonal, off, scale = _block(diagonal, off, used)
    # The smallest eigenvalue is the negated largest of the negated matrix: one program for both ends.
    signs = jnp.asarray([-1, 1], diagonal.dtype)
    low, high = jax.vmap(lambda sign: sign * _largest(sign * diagonal, off, used))(signs)
    vectors = jax.vmap(_vector, in_axes=(None, None, 0, None))(diagonal, off, jnp.stack([low, high]), used)
    return Pair(low * scale, vectors[0]), Pair(high * scale, vectors[1])


def largest_singular(alpha, beta, used=None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Largest singular value of an upper bidiagonal matrix (diagonal alpha (n,), superdiagonal beta (n - 1,)).

    Args:
      used: rows of the leading block that is meant, int32; all if left out. Vectors are 0 beyond.

    Returns:
      The value, and its unit left and right singular vectors (n,), from the 2n×2n tridiagonal matrix with zero diagonal
      whose eigenvalues are ± the singular values (Golub & Kahan 1965).
    """
    n = alpha.shape[0]
    used = 2 * (n if used is None else used)
    off = jnp.zeros(2 * n - 1, alpha.dtype).at[0::2].set(alpha).at[1::2].set(beta)
    diagonal, off, scale = _block(jnp.zeros(2 * n, alpha.dtype), off, used)
    value = _largest(diagonal, off, used)
    z = _vector(diagonal, off, value, used)
    right, left = z[0::2], z[1::2]
    first = jnp.zeros(n, alpha.dtype).at[0].set(1)

    def normal(v):
        norm = jnp.linalg.norm(v)
        return jnp.where(norm > 0, v / jnp.where(norm > 0, norm, jnp.ones_like(norm)), first)

    return value * scale, normal(left), normal(right)
