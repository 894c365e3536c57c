"""The lane-asynchronous loop for large batches: when half of the lanes have ended, the rest move to a batch half as large.

In this room: jitted chunks of :mod:`fpjax.lanes`, and the gathering between them, on the host. A batch of n compiles at
most log2(n) + 1 programs. Not in this room: derivatives (use the layouts "lanes" or "scan").
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.lanes import Carry, Inputs, Levels, Options, Record, begin, proceed
from fpjax.solve import Goal, Solution

SMALLEST = 8  # batches at most this large run to their end


@functools.partial(jax.jit, static_argnames="options")
def _chunk(x: Inputs, levels: Levels, goal: Goal, options: Options, c: Carry, until) -> Carry:
    """Runs until at most ``until`` lanes are alive."""
    steps = levels.sigma.shape[0]
    body = functools.partial(proceed, x, levels, goal, options)
    return jax.lax.while_loop(lambda c: jnp.sum(c.index < steps, dtype=jnp.int32) > until, body, c)


_begin = functools.partial(jax.jit, static_argnames="options")(begin)


def _gathered(x: Inputs, c: Carry, chosen):
    """The lanes ``chosen``; the ring's slot and the count of calls are common to all."""
    lanes = jax.tree.map(lambda a: a[chosen], c._replace(slot=None, calls=None))
    return x._replace(z=x.z[chosen], condition=x.condition[chosen]), lanes._replace(slot=c.slot, calls=c.calls)


def run(x: Inputs, levels: Levels, goal: Goal, options: Options) -> tuple[Record, list[tuple[int, int]]]:
    """All steps of all images, and (batch, calls) of each chunk: the network saw the sum of their products.

    The record is that of :func:`fpjax.lanes.run` with layout "lanes"; lanes do not depend on each other.
    """
    n, steps = x.z.shape[0], levels.sigma.shape[0]
    c = _begin(x, levels, goal, options)
    place = np.arange(n)  # which image each lane carries
    target, out = np.array(c.target), jax.tree.map(np.array, c.out)
    chunks, before = [], 0
    while True:
        batch = len(place)
        until = 0 if batch <= SMALLEST else batch // 2
        c = _chunk(x, levels, goal, options, c, jnp.int32(until))
        chunks.append((batch, int(c.calls) - before))
        before = int(c.calls)
        alive = np.asarray(c.index) < steps
        ended = np.flatnonzero(~alive)
        target[place[ended]] = np.asarray(c.target)[ended]
        jax.tree.map(functools.partial(_store, place[ended], ended), out, c.out)
        if not alive.any():
            break
        # Lanes that have ended fill the batch up to its size and are not looked at again.
        chosen = np.concatenate([np.flatnonzero(alive), ended])[: max(batch // 2, 1)]
        x, c = _gathered(x, c, chosen)
        place = place[chosen]
    path, kept = out
    solution = Solution(jnp.asarray(target), *(jnp.asarray(k) for k in kept))
    return Record(None if path is None else jnp.asarray(path), solution, c.calls), chunks


def _store(places, lanes, whole, part) -> None:
    whole[places] = np.asarray(part)[lanes]
