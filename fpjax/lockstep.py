"""Loops that stay cheap under vmap, and the growing orthonormal basis that Lanczos iterations keep in them.

In this room: :func:`every` and :func:`furthest`, by which the lanes of a vmapped loop agree on one counter, and
:class:`Basis`. A ``lax.while_loop`` whose condition differs between lanes makes vmap copy the whole state in every
iteration, and a counter that differs makes every row access a gather. With ``~every(done)`` as the condition neither
happens: all lanes run until the last is done, which they do anyway, and each freezes its own small answer. Not in this
room: what is iterated (jacobian).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

TOGETHER = "fpjax_together"  # the mesh axis over which devices agree too (sharding)
BLOCK = 8  # basis vectors read at once: work is proportional to the vectors held, rounded up to this


@jax.custom_batching.custom_vmap
def furthest(number):
    """A scalar as it is; under vmap, at any depth, the largest of all lanes, the same for all of them; and of the lanes on
    all devices, where a batch is spread over some."""
    whole = number.astype(jnp.int32) if number.dtype == bool else number
    try:
        return jax.lax.pmax(whole, TOGETHER).astype(number.dtype)
    except NameError:  # no such axis: one device
        return number


@furthest.def_vmap
def _furthest_lane(_size, batched, number):
    return furthest(jnp.max(number, axis=0) if batched[0] else number), False


def every(flag):
    """A scalar flag as it is; under vmap, at any depth, whether it is true in all lanes: it is false in none."""
    return ~furthest(~flag)


class Basis(NamedTuple):
    """Orthonormal vectors, appended one at a time.

    Attributes:
      rows: (blocks, BLOCK, d), zero where nothing has been written.
    """

    rows: jax.Array


def empty(v) -> Basis:
    """A basis without room, for vectors like v (d,)."""
    return Basis(jnp.zeros((0, BLOCK, v.size), v.dtype))


def grow(basis: Basis, most: int) -> Basis:
    """The same basis with room for ``most`` vectors."""
    more = -(-most // BLOCK) - basis.rows.shape[0]
    return Basis(jnp.pad(basis.rows, ((0, more), (0, 0), (0, 0))))


def append(basis: Basis, v, count) -> Basis:
    """The basis with v as its vector number ``count`` (from 0; the same in all lanes)."""
    block, place = jnp.divmod(jnp.asarray(count, jnp.int32), BLOCK)
    return Basis(jax.lax.dynamic_update_slice(basis.rows, v[None, None], (block, place, jnp.int32(0))))


def _once(basis: Basis, w, count):
    """One Gram-Schmidt pass, block by block, against the first ``count`` vectors."""

    def block(k, w):
        rows = jax.lax.dynamic_index_in_dim(basis.rows, k, 0, keepdims=False)
        return w - (rows @ w) @ rows

    return jax.lax.fori_loop(0, -(-count // BLOCK), block, w)


def orthogonalise(basis: Basis, w, count):
    """w minus its part in the span of the ``count`` >= 1 vectors, to rounding: a second pass where the first removed much.

    "Much" is Kahan's criterion (Parlett 1980; Giraud et al. 2005: twice is enough).
    """
    first = _once(basis, w, count)
    kept = jnp.linalg.norm(first) > 0.7 * jnp.linalg.norm(w)
    return jax.lax.cond(every(kept), lambda: first, lambda: _once(basis, first, count))


def unit(w, basis: Basis, key, count):
    """w/|w| and |w|; where w is 0 (an invariant subspace), a random unit vector orthogonal to the basis, and 0.

    NaN goes on as NaN.
    """
    norm = jnp.linalg.norm(w)
    live = norm != 0

    def fresh():
        v = jax.random.normal(jax.random.fold_in(key, count), w.shape, w.dtype)
        v = _once(basis, _once(basis, v, count), count)
        v = v / jnp.maximum(jnp.linalg.norm(v), jnp.finfo(v.dtype).tiny)
        return jnp.where(live, w / jnp.where(live, norm, jnp.ones_like(norm)), v)

    return jax.lax.cond(every(live), lambda: w / norm, fresh), norm


def combine(basis: Basis, weights, count):
    """Sum of weights[i]·(vector i) over the first ``count`` vectors; weights (n,) with zeros beyond."""
    blocks = basis.rows.shape[0]
    room = blocks * BLOCK
    padded = jnp.pad(weights[:room], (0, max(0, room - weights.shape[0]))).reshape(blocks, BLOCK)

    def block(k, total):
        rows = jax.lax.dynamic_index_in_dim(basis.rows, k, 0, keepdims=False)
        return total + jax.lax.dynamic_index_in_dim(padded, k, 0, keepdims=False) @ rows

    return jax.lax.fori_loop(0, -(-count // BLOCK), block, jnp.zeros(basis.rows.shape[2], weights.dtype))
