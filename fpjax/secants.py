"""A short memory of secant pairs (dy, dr): what a residual map was seen to do, and the least squares over it.

In this room: the ring of pairs, their Gram matrix, and the projection of a residual onto them. Pairs come from moves
(Anderson acceleration) or from small probes (Krylov vectors of a Newton step); the algebra is the same. Not LAPACK: on
CPU a batched LAPACK call inside a compiled loop waits for the thread pool that it runs on. Not in this room: deciding
where to evaluate (methods).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

UNROLLED = 8  # the largest depth whose elimination is written out


class Secants(NamedTuple):
    """Up to ``depth`` pairs, each scaled so that ||dr|| = 1.

    Attributes:
      dy, dr: (depth, d), differences of points and of residuals.
      gram: (depth, depth), dr dr^T, newest pair first.
      valid: (depth,) bool, newest first.
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
    write = jax.lax.dynamic_update_index_in_dim
    all_dr = write(pairs.dr, dr, slot, 0)
    products = _by_age(all_dr @ dr, slot)
    older = jnp.concatenate([products[1:, None], pairs.gram[:-1, :-1]], axis=1)
    gram = jnp.concatenate([products[None], older])
    valid = jnp.concatenate([ok[None], pairs.valid[:-1]])
    return Secants(write(pairs.dy, dy, slot, 0), all_dr, gram, valid)


def conjugate(pairs: Secants, slot, dy, dr, wanted):
    """The pair (dy, dr) with dr orthogonal to the newest dr, where ``wanted``; the span with that pair is the same.

    Along Krylov vectors of a symmetric map dr is then orthogonal to all earlier ones (conjugate residuals, Stiefel 1955),
    so a ring that has dropped some of them loses nothing.

    Args:
      slot: where the new pair will be written.
    """
    newest = (slot - 1) % pairs.valid.shape[0]
    last = jax.lax.dynamic_index_in_dim(pairs.dr, newest, 0, keepdims=False)
    share = jnp.where(wanted & pairs.valid[0], dr @ last, jnp.zeros((), dr.dtype))
    return dy - share * jax.lax.dynamic_index_in_dim(pairs.dy, newest, 0, keepdims=False), dr - share * last


def _by_age(values, slot):
    """Values (depth,) by slot, reordered newest first; its own inverse."""
    twice = jnp.concatenate([values, values])[::-1]
    depth = values.shape[0]
    return jax.lax.dynamic_slice_in_dim(twice, depth - 1 - slot, depth)


def coefficients(pairs: Secants, slot, r):
    """gamma (depth,) with ||r - gamma @ dr|| least, pairs taken newest first.

    A pair that lies within the span of newer ones up to rounding (its remaining squared sine is below sqrt(eps)) gets
    coefficient 0. So in one dimension the newest secant alone decides, and stale pairs never outvote fresh ones.

    Args:
      slot: where the newest pair is.
    """
    return _solve(pairs, slot, (pairs.dr @ r)[:, None])[:, 0]


def oblique(pairs: Secants, slot, r):
    """gamma (depth,) with r + gamma @ dr orthogonal to every dy: the projection of type I."""
    by_age = jax.vmap(_by_age, in_axes=(0, None))
    table = by_age(by_age(-(pairs.dy @ pairs.dr.T), slot).T, slot).T
    return _solve(pairs._replace(gram=table), slot, (pairs.dy @ r)[:, None])[:, 0]


def coefficients_and_spread(pairs: Secants, slot, r, u):
    """``coefficients`` together with one step of a power iteration for the largest ||sum x dy||/||sum x dr|| over all x.

    That is the norm of the inverse of y -> y - step(y) on what the pairs span (for an affine map): a lower estimate of
    the norm of the whole inverse, and far better than the largest ratio of a single pair where the map is not normal.

    Args:
      u: (d,), the direction sum x dy of the last step; any vector to begin with.

    Returns:
      gamma (depth,), the ratio (0 without pairs), and u for the next step.
    """
    b = pairs.dy @ u
    found = _solve(pairs, slot, jnp.stack([pairs.dr @ r, b], axis=1))
    gamma, x = found[:, 0], found[:, 1]
    square = x @ b  # ||x @ dr||²
    usable = (square > 0) & jnp.isfinite(square)
    u_next = (x / jnp.sqrt(jnp.where(usable, square, jnp.ones_like(square)))) @ pairs.dy
    spread = jnp.sqrt(u_next @ u_next)
    some = usable & (spread > 0) & jnp.isfinite(spread)
    u_next = u_next / jnp.where(some, spread, jnp.ones_like(spread))
    return gamma, jnp.where(some, spread, jnp.zeros_like(spread)), jnp.where(some, u_next, r)


def fitted(gram, b, valid):
    """x (depth,) with gram x = b for any Gram matrix (depth, depth) of pairs, newest first, dependent ones left out."""
    size = jnp.sqrt(jnp.diagonal(gram))
    ok = valid & (size > 0) & jnp.isfinite(size)
    scale = jnp.where(ok, 1 / jnp.where(ok, size, jnp.ones_like(size)), jnp.zeros_like(size))
    table = jnp.concatenate([gram * scale[:, None] * scale[None], (b * scale)[:, None]], axis=1)
    return _eliminate(table, ok)[:, 0] * scale


def _solve(pairs: Secants, slot, b):
    """x (depth, k), by slot, with gram x = b for b (depth, k) by slot."""
    by_age = jax.vmap(_by_age, in_axes=(1, None), out_axes=1)
    table = jnp.concatenate([pairs.gram, by_age(b, slot)], axis=1)
    return by_age(_eliminate(table, pairs.valid), slot)


@jax.custom_batching.custom_vmap
def _eliminate(table, valid):
    """x (depth, k) with gram x = b for table (depth, depth + k) = [gram, b], dropping rows not valid or dependent."""
    return _eliminated(table[:, :, None], valid[:, None])[:, :, 0]


@_eliminate.def_vmap
def _eliminate_lanes(size, batched, table, valid):
    """Lanes last, so that every operation of the elimination is one vector operation over the lanes."""
    table = table if batched[0] else jnp.broadcast_to(table, (size, *table.shape))
    valid = valid if batched[1] else jnp.broadcast_to(valid, (size, *valid.shape))
    return jnp.moveaxis(_eliminated(jnp.moveaxis(table, 0, -1), jnp.moveaxis(valid, 0, -1)), -1, 0), True


def _eliminated(table, valid):
    """Elimination and substitution: (depth, depth + k, n), (depth, n) -> (depth, k, n)."""
    return (_unrolled if valid.shape[0] <= UNROLLED else _looped)(table, valid)


def _pivot(value, valid):
    """1/value, or 0 where the row is not valid or nearly dependent on those before it."""
    ok = valid & (value > jnp.sqrt(jnp.finfo(value.dtype).eps))
    return jnp.where(ok, 1 / jnp.where(ok, value, jnp.ones_like(value)), jnp.zeros_like(value))


def _unrolled(table, valid):
    """Quick to run."""
    k = table.shape[1] - table.shape[0]
    rows = []
    for ok in valid:
        row = table[0, 1:] * _pivot(table[0, 0], ok)[None]
        rows.append(row)
        table = table[1:, 1:] - table[1:, :1] * row[None]
    found: list[jax.Array] = []
    for row in reversed(rows):
        x = row[-k:]
        for j, known in enumerate(found):
            x = x - row[-k - 1 - j][None] * known
        found.append(x)
    return jnp.stack(found[::-1])


def _looped(table, valid):
    """Quick to compile: Gauss-Jordan, over the rows that any lane has a pair in."""
    depth = valid.shape[0]
    rows = jnp.arange(1, depth + 1, dtype=jnp.int32)
    used = jnp.max(jnp.where(jnp.any(valid, axis=1), rows, jnp.zeros_like(rows)))

    def sweep(j, table):
        old = jax.lax.dynamic_index_in_dim(table, j, 0, keepdims=False)
        pivot = jax.lax.dynamic_index_in_dim(old, j, 0, keepdims=False)
        row = old * _pivot(pivot, jax.lax.dynamic_index_in_dim(valid, j, 0, keepdims=False))[None]
        column = jax.lax.dynamic_index_in_dim(table, j, 1)
        return jax.lax.dynamic_update_index_in_dim(table - column * row[None], row, j, 0)

    found = jax.lax.fori_loop(0, used, sweep, table)[:, depth:]
    return jnp.where((rows <= used)[:, None, None], found, jnp.zeros_like(found))
