"""Batches over all devices of this process, or of all processes that ``jax.distributed`` joined.

In this room: a function of a batch becomes one program a device, each with its share of the batch (``jax.shard_map``), since
the points of a batch do not depend on each other; and vectors cut into pieces, for one point too large for a device. With
one device nothing here does anything, and neither does it inside a user's own jit or grad, or where
``jax_default_device`` names one device. Not in this room: what is computed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fpjax.evidence import FpjaxError
from fpjax.lockstep import TOGETHER

APART = "fpjax_apart"  # the devices, when none waits for another


def mesh(n: int, axis: str = APART) -> Mesh | None:
    """The devices that n points are spread over; None if that is one.

    Several processes must take part together, with all their devices; one process leaves devices idle that would get no
    point.
    """
    if jax.config.jax_default_device is not None or jax.device_count() == 1:  # pyright: ignore
        return None
    found = jax.devices() if jax.process_count() > 1 else jax.devices()[:n]
    return Mesh(np.asarray(found), (axis,)) if len(found) > 1 else None


def over_devices(
    function: Callable, options: Any, shared: Any, lanes: Any, *, together: bool = False
) -> tuple[Any, Any, int]:
    """``function(options, shared, lanes)`` with the leading axis of every leaf of ``lanes`` spread over all devices.

    Args:
      function: top-level; returns two pytrees: one whose leaves have the same leading axis, and one of scalars.
      options: hashable. shared: a pytree that every device gets. lanes: a pytree of arrays (n, ...). Where n is no
        multiple of the devices, the last lane is computed again to fill up, and dropped.
      together: whether the devices' loops agree on their counters (:func:`fpjax.lockstep.furthest`), as the lanes of one
        batch do. Then the outcome does not depend on how the batch was cut, up to rounding.

    Returns:
      The first tree, the second with leaves (devices,), and the lanes of each device. With several processes every one
      gets all of it, as host arrays.
    """
    n = jax.tree.leaves(lanes)[0].shape[0]
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((shared, lanes)))
    over = None if traced else mesh(n, TOGETHER if together else APART)
    if over is None:
        return *_here(function, options, shared, lanes), n
    size = len(over.devices)
    lanes = jax.tree.map(lambda a: _put(_filled(a, -n % size), over, PartitionSpec(over.axis_names)), lanes)
    shared = jax.tree.map(lambda a: _put(a, over, PartitionSpec()), shared)
    out, counts = gathered(spread(function, options, over, shared, lanes))
    return jax.tree.map(lambda a: a[:n], out), counts, -(-n // size)


@functools.partial(jax.jit, static_argnames=("function", "options"))
def _here(function, options, shared, lanes):
    out, counts = function(options, shared, lanes)
    return out, jax.tree.map(lambda a: a[None], counts)


@functools.partial(jax.jit, static_argnames=("function", "options", "over"))
def spread(function, options, over: Mesh, shared, lanes):
    """One program a device; the batch is a multiple of the devices."""

    def local(shared, lanes):
        return _here(function, options, shared, lanes)

    cut = PartitionSpec(over.axis_names)
    mapped = jax.shard_map(local, mesh=over, in_specs=(PartitionSpec(), cut), out_specs=cut, check_vma=False)
    return mapped(shared, lanes)


def _filled(a, more: int):
    return jnp.concatenate([a, jnp.repeat(a[-1:], more, axis=0)]) if more else a


def _put(a, over: Mesh, spec: PartitionSpec):
    """The array on the mesh; every process has the whole of it."""
    sharding = NamedSharding(over, spec)
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(a), over, spec), impl=jax.random.key_impl(a))
    if jax.process_count() == 1:
        return jax.device_put(a, sharding)
    host = np.asarray(a)
    return jax.make_array_from_callback(host.shape, sharding, lambda piece: host[piece])


def gathered(tree: Any) -> Any:
    """With several processes, the whole of every array on every host; else the tree as it is."""
    if jax.process_count() == 1:
        return tree
    return jax.tree.map(lambda a: multihost_utils.process_allgather(a, tiled=True), tree)


def in_pieces(a, over: Mesh | None):
    """Inside jit: the array with its last axis cut over the devices of a mesh.

    Raises:
      FpjaxError: if that axis cannot be cut into equal pieces.
    """
    if over is None:
        return a
    if a.shape[-1] % over.size:
        raise FpjaxError(f"vectors of {a.shape[-1]} values cannot be cut into {over.size} equal pieces; pad them")
    spec = PartitionSpec(*[None] * (a.ndim - 1), over.axis_names)
    return jax.lax.with_sharding_constraint(a, NamedSharding(over, spec))
