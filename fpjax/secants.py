"""A short memory of secant pairs (dy, dr): what a residual map was seen to do, and the least squares over it.

In this room: the ring of pairs, their Gram matrix, and the projection of a residual onto them. Pairs come from moves
(Anderson acceleration) or from small probes (Krylov vectors of a Newton step); the algebra is the same. Not LAPACK: on
CPU a batched LAPACK call inside a compiled loop waits for the thread pool that it runs on. Not in this room: deciding
where to evaluate (methods).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Secants(NamedTuple):
    """Up to ``depth`` pairs, each scaled so that ||dr|| = 1.

    Attributes:
      dy, dr: (depth, d), differences of points and of residuals.
      gram: (depth, depth), dr dr^T.
      valid: (depth,) bool.
    """

    dy: jax.Array
    dr: jax.Array
    gram: jax.Array
    valid: jax.Array


def empty(depth: int, y) -> Secants:
    """No pairs, for points of the size and dtype of y."""
    zeros = jnp.zeros((depth, y.size), y.dtype)
    return Secants(zeros, zeros, jnp.zeros((depth, depth), y.dtype), jnp.zeros(depth, bool))


def push(pairs: Secants, slot, dy, dr, norm, keep) -> Secants:
    """Writes the pair (dy, dr) (d,) into ``slot``; where ``keep`` is false or dr is 0 or not finite the slot is emptied.

    Args:
      norm: ||dr||.
    """
    ok = keep & jnp.isfinite(norm) & (norm > 0)
    scale = jnp.where(ok, 1 / jnp.where(ok, norm, jnp.ones_like(norm)), jnp.zeros_like(norm))
    dy = jnp.where(ok, dy, jnp.zeros_like(dy)) * scale
    dr = jnp.where(ok, dr, jnp.zeros_like(dr)) * scale
    all_dr = pairs.dr.at[slot].set(dr)
    products = all_dr @ dr
    gram = pairs.gram.at[slot].set(products).at[:, slot].set(products)
    return Secants(pairs.dy.at[slot].set(dy), all_dr, gram, pairs.valid.at[slot].set(ok))


def coefficients(pairs: Secants, slot, r):
    """gamma (depth,) with ||r - gamma @ dr|| least, pairs taken newest first.

    Gauss-Jordan elimination on the Gram matrix in order of age; a pair that lies within the span of newer ones up to
    rounding (its remaining squared sine is below sqrt(eps)) gets coefficient 0. So in one dimension the newest secant
    alone decides, and stale pairs never outvote fresh ones.

    Args:
      slot: where the newest pair is.
    """
    depth = pairs.valid.shape[0]
    order = (slot - jnp.arange(depth, dtype=jnp.int32)) % depth
    b = pairs.dr @ r
    table = jnp.concatenate([pairs.gram[order][:, order], b[order][:, None]], axis=1)
    valid = pairs.valid[order]
    drop = jnp.sqrt(jnp.finfo(r.dtype).eps)
    used = []
    for j in range(depth):  # unrolled: depth is small, and nothing here calls a linear algebra library
        pivot = table[j, j]
        ok = valid[j] & (pivot > drop)
        row = jnp.where(ok, table[j] / jnp.where(ok, pivot, jnp.ones_like(pivot)), jnp.zeros_like(table[j]))
        column = table[:, j].at[j].set(0)
        table = (table - column[:, None] * row[None, :]).at[j].set(row)
        used.append(ok)
    gamma = jnp.where(jnp.stack(used), table[:, depth], jnp.zeros_like(b))
    return gamma[(slot - jnp.arange(depth, dtype=jnp.int32)) % depth]
