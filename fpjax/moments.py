"""Numbers of a Jacobian that are sums over all its entries: traces, Frobenius norms, induced 1- and inf-norms.

In this room: Hutchinson's estimator with a standard error (one jvp or vjp a probe), exact induced norms at d products
without ever holding the matrix, and Hager's lower estimate of the 1-norm where d products are too many. Not in this room:
eigenvalues and singular values (jacobian, nonsymmetric).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fpjax.jacobian import linear


class Estimate(NamedTuple):
    """A sample mean. Evidence SAMPLED.

    Attributes:
      value: the mean. error: its standard error (sample standard deviation / sqrt(probes)); NaN for one probe.
      probes: how many.
    """

    value: jax.Array
    error: jax.Array
    probes: int


class Moments(NamedTuple):
    """Hutchinson estimates at one point.

    Attributes:
      trace: of J. frobenius: ||J||_F². asymmetry: ||(J - J^T)/2||_F².
    """

    trace: Estimate
    frobenius: Estimate
    asymmetry: Estimate


class InducedNorms(NamedTuple):
    """||J||_1 = largest column sum and ||J||_inf = largest row sum of |J|, exact up to rounding at one point."""

    one: jax.Array
    inf: jax.Array


def _estimate(samples) -> Estimate:
    n = samples.shape[0]
    spread = jnp.std(samples, ddof=1) if n > 1 else jnp.full((), jnp.nan, samples.dtype)
    return Estimate(jnp.mean(samples), spread / n**0.5, n)


def trace(operator: Callable, d: int, key, *, probes: int = 64, dtype=None) -> Estimate:
    """Hutchinson's estimate of the trace of a linear operator on flat vectors (d,), with random signs (Hutchinson 1990).

    Unbiased; the variance is 2·(||sym A||_F² - sum_i A_ii²)/probes, zero for a diagonal operator. ``probes`` products.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    keys = jax.random.split(key, probes)

    def one(k):
        v = jax.random.rademacher(k, (d,), dtype)
        return v @ operator(v)

    return _estimate(jax.lax.map(one, keys))


@functools.partial(jax.jit, static_argnames=("function", "probes"))
def moments(function: Callable, y, params, key, *, probes: int = 64) -> Moments:
    """Trace, squared Frobenius norm and squared asymmetry of the Jacobian of ``function(y, params)`` at one point y.

    Args:
      function: top-level, (y, params) -> array like y. y: the point; its dtype is that of the computation.
      probes: random vectors; each costs one jvp and one vjp, two vectors of memory.
    """
    forward, transpose = linear(lambda v: function(v, params), y)

    def one(k):
        v = jax.random.rademacher(k, (y.size,), y.dtype)
        jv, tv = forward(v), transpose(v)
        return jnp.stack([v @ jv, jv @ jv, (jv - tv) @ (jv - tv) / 4])

    samples = jax.lax.map(one, jax.random.split(key, probes))
    return Moments(*(_estimate(samples[:, i]) for i in range(3)))


@functools.partial(jax.jit, static_argnames=("function", "chunk"))
def induced_norms(function: Callable, y, params, *, chunk: int = 32) -> InducedNorms:
    """The induced 1- and inf-norm of the Jacobian of ``function(y, params)`` at one point y, by d jvps and d vjps.

    Affordable up to some thousands of values: time is 2·d products, memory ``chunk`` of them at once.
    """
    forward, transpose = linear(lambda v: function(v, params), y)
    d = y.size

    def unit(i):
        return (jnp.arange(d) == i).astype(y.dtype)

    columns = jax.lax.map(lambda i: jnp.sum(jnp.abs(forward(unit(i)))), jnp.arange(d), batch_size=chunk)
    rows = jax.lax.map(lambda i: jnp.sum(jnp.abs(transpose(unit(i)))), jnp.arange(d), batch_size=chunk)
    return InducedNorms(jnp.max(columns), jnp.max(rows))


def one_norm_estimate(forward: Callable, transpose: Callable, d: int, *, iterations: int = 5, dtype=None) -> jax.Array:
    """A lower estimate of ||A||_1 by Hager's method (Hager 1984; Higham 1988): 2·iterations products, never a bound.

    Swap the two functions for ||A||_inf.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype

    def climb(_, carry):
        x, best = carry
        column = forward(x)
        best = jnp.maximum(best, jnp.sum(jnp.abs(column)))
        signs = jnp.where(column >= 0, jnp.ones_like(column), -jnp.ones_like(column))
        slope = jnp.abs(transpose(signs))
        return (jnp.arange(d) == jnp.argmax(slope)).astype(dtype), best

    start = jnp.full(d, 1 / d, dtype)
    return jax.lax.fori_loop(0, iterations, climb, (start, jnp.zeros((), dtype)))[1]
