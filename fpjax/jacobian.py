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
import numpy as np
from jax.experimental.sparse.linalg import lobpcg_standard
from jax.sharding import Mesh

from fpjax import lockstep, restarted, sharding, tridiagonal
from fpjax.evidence import FpjaxError
from fpjax.lockstep import append, combine, every, furthest, orthogonalise, unit


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


MOST = 256  # Lanczos vectors kept unless the caller asks for more: memory is this many points
FEW = 32  # and this many are made room for at first
FIRST = 8  # the iteration after which convergence is tested first
FULL_BYTES = 2**24  # a full basis larger than this, for one point, is replaced by a restarted one


def _excess(residual, wanted, beta):
    """residual/wanted; infinite where beta = 0, since one invariant subspace proves nothing about the others."""
    return jnp.where(beta == 0, jnp.inf, residual / jnp.maximum(wanted, jnp.finfo(residual.dtype).tiny))


def _remainder(w, size, eps):
    """w, or exactly 0 where only rounding is left of a vector of length ``size`` (an invariant subspace)."""
    return jnp.where(jnp.linalg.norm(w) <= 10 * eps * size, jnp.zeros_like(w), w)  # NaN is not rounding


class _Carry(NamedTuple):
    """What an iteration hands on: the basis, its next vector, one more vector (the one before; the left one), T's entries."""

    basis: lockstep.Basis
    v: jax.Array
    other: jax.Array
    alpha: jax.Array
    beta: jax.Array


class _Run(NamedTuple):
    """State of :func:`_drive`. j, test: iterations run, and after which to test next, the same in all lanes."""

    carry: _Carry
    j: jax.Array
    test: jax.Array
    excess: jax.Array
    done: jax.Array
    found: tuple
    count: jax.Array


def _begin(first, m: int) -> _Carry:
    zeros = jnp.zeros(m, first.dtype)
    return _Carry(lockstep.empty(first), first, jnp.zeros_like(first), zeros, zeros)


def _wait(j, excess, before, after):
    """Iterations until the next test is worth its price (that of some iterations), from the rate at which the excess fell
    from ``before`` in the ``after`` iterations since the last test. A little fewer than that: Lanczos gets faster and faster.
    """
    most = jnp.maximum(4, j // 2).astype(excess.dtype)
    rate = jnp.log(before / excess) / after.astype(excess.dtype)
    needed = 0.8 * jnp.log(excess) / rate
    return jnp.where((rate > 0) & jnp.isfinite(needed), jnp.clip(needed, 1, most), most).astype(jnp.int32)


def _drive(body: Callable, tested: Callable, finish: Callable, carry: _Carry, m: int, over=None):
    """Runs ``body(carry, j)`` for j = 0, 1, ... below m until ``tested(carry, j)`` finds no excess above 1, asked as seldom
    as the rate of convergence allows.

    ``tested`` returns (error estimate over what is asked for, what it found). Under vmap all lanes
    run on until the last one stops, and each keeps what it found, and its own count of iterations, when it stopped itself
    (:mod:`fpjax.lockstep`). Most runs end within FEW iterations, so room for all m vectors is made only when it is needed.

    Returns:
      ``finish(basis, j, found, count)``: j iterations were run in all lanes, ``count`` of them in this one.
    """

    def chunk(upmost, s: _Run):
        upto = jnp.minimum(s.test, upmost)
        carry = jax.lax.fori_loop(s.j, upto, lambda i, c: body(c, i), s.carry)
        excess, new = tested(carry, upto)
        done = s.done | ~(excess > 1)  # NaN ends it too
        found = jax.tree.map(lambda a, b: jnp.where(s.done, a, b), s.found, new)
        wait = jnp.where(done, 1, _wait(upto, excess, s.excess, upto - s.j))
        return _Run(carry, upto, upto + furthest(wait), excess, done, found, jnp.where(s.done, s.count, upto))

    def run(state: _Run, upmost: int):
        basis = lockstep.Basis(sharding.in_pieces(lockstep.grow(state.carry.basis, upmost).rows, over))
        state = state._replace(carry=state.carry._replace(basis=basis))
        return jax.lax.while_loop(lambda s: ~every(s.done) & (s.j < upmost), functools.partial(chunk, upmost), state)

    excess, found = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(tested, carry, jnp.int32(1)))
    state = _Run(carry, jnp.int32(0), jnp.int32(FIRST), excess + jnp.inf, jnp.asarray(False), found, jnp.int32(0))

    def ended(s: _Run):
        return finish(s.carry.basis, s.j, s.found, s.count)

    if m <= 2 * FEW:
        return ended(run(state, m))
    early = run(state, FEW)
    return jax.lax.cond(every(early.done), lambda: ended(early), lambda: ended(run(early, m)))


def _start(key, start, d: int, dtype):
    v = jax.random.normal(key, (d,), dtype) if start is None else start
    return v / jnp.linalg.norm(v)


def extreme_eigenvalues(
    operator: Callable, d: int, key, *, tol=1e-8, steps: int = MOST, dtype=None, start=None, over: Mesh | None = None
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
      over: a mesh of devices; every vector is kept in as many equal pieces, one on each. Under jit.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    m = min(d, steps)
    if m * d * jnp.dtype(dtype).itemsize > FULL_BYTES:
        return _extremes_restarted(operator, d, key, tol, steps, dtype, start, over)
    eps = jnp.finfo(dtype).eps
    first = sharding.in_pieces(_start(key, start, d, dtype), over)

    def body(carry: _Carry, j):
        basis, v, before, alpha, beta = carry
        basis = append(basis, v, j)
        w = operator(v)
        a, size = v @ w, jnp.linalg.norm(w)
        w = w - a * v - beta[j - 1] * before  # at j = 0 the vector before is 0
        w = _remainder(orthogonalise(basis, w, j + 1), size, eps)
        new, b = unit(w, basis, key, j + 1)
        return _Carry(basis, new, v, alpha.at[j].set(a), beta.at[j].set(b))

    def tested(carry: _Carry, j):
        alpha, beta = carry.alpha, carry.beta
        low, high = tridiagonal.extremes(alpha, beta[: m - 1], j)
        last = jnp.abs(beta[j - 1])
        residual = last * jnp.maximum(jnp.abs(low.vector[j - 1]), jnp.abs(high.vector[j - 1]))
        scale = jnp.maximum(jnp.abs(low.value), jnp.abs(high.value))
        return _excess(residual, tol * scale, last), (low, high)

    def finish(basis, j, found, count):
        low, high = found
        return low.value, high.value, combine(basis, low.vector, j), combine(basis, high.vector, j), count

    return _measured(operator, *_drive(body, tested, finish, _begin(first, m), m, over))


def _measured(operator, low, high, low_vector, high_vector, products) -> Extremes:
    """Extremes with residuals computed from the vectors that are returned, at two more products."""
    pairs = jnp.stack([low, high]), jnp.stack([low_vector, high_vector])
    residuals = jax.lax.map(lambda pair: jnp.linalg.norm(operator(pair[1]) - pair[0] * pair[1]), pairs)  # compiled once
    # Sturm counts turn NaN into some finite number; a value whose residual is not finite must not look like one.
    low, high = (jnp.where(jnp.isfinite(r), s, jnp.nan) for r, s in zip(residuals, (low, high), strict=True))
    return Extremes(low, high, low_vector, high_vector, residuals[0], residuals[1], products + 2)


def _extremes_restarted(operator, d, key, tol, steps, dtype, start, over) -> Extremes:
    found = restarted.lanczos(operator, d, key, tol=tol, steps=steps, dtype=dtype, start=start, over=over)
    return _measured(operator, found.low, found.high, found.low_vector, found.high_vector, found.products)


def spectral_norm(
    forward: Callable,
    transpose: Callable,
    d: int,
    key,
    *,
    tol=1e-8,
    steps: int = MOST,
    dtype=None,
    start=None,
    over: Mesh | None = None,
) -> Norm:
    """The largest singular value of a square operator, by Golub-Kahan-Lanczos bidiagonalisation.

    Args:
      forward: v -> A v. transpose: u -> A^T u. Both on flat vectors of d values.
      key, tol, steps, dtype, start, over: as in :func:`extreme_eigenvalues`.
    """
    dtype = jnp.result_type(float) if dtype is None else dtype
    m = min(d, steps)
    if m * d * jnp.dtype(dtype).itemsize > FULL_BYTES:
        return _norm_restarted(forward, transpose, d, key, tol, steps, dtype, start, over)
    eps = jnp.finfo(dtype).eps
    first = sharding.in_pieces(_start(key, start, d, dtype), over)

    def body(carry: _Carry, j):
        basis, v, left, alpha, beta = carry
        basis = append(basis, v, j)
        w = forward(v)
        w = _remainder(w - beta[j - 1] * left, jnp.linalg.norm(w), eps)
        a = jnp.linalg.norm(w)
        left = w / jnp.where(a == 0, jnp.ones_like(a), a)  # 0 where A v lies in the span: then b = 0 too
        z = transpose(left)
        size = jnp.linalg.norm(z)
        z = _remainder(orthogonalise(basis, z - a * v, j + 1), size, eps)
        new, b = unit(z, basis, key, j + 1)
        return _Carry(basis, new, left, alpha.at[j].set(a), beta.at[j].set(b))

    def tested(carry: _Carry, j):
        alpha, beta = carry.alpha, carry.beta
        s, left, right = tridiagonal.largest_singular(alpha, beta[: m - 1], j)
        return _excess(jnp.abs(beta[j - 1] * left[j - 1]), tol * s, beta[j - 1]), right

    def finish(basis, j, found, count):
        return combine(basis, found, j), 2 * count

    return _lifted(forward, transpose, *_drive(body, tested, finish, _begin(first, m), m, over))


def _lifted(forward, transpose, right, products) -> Norm:
    """The Norm of a right singular vector: value ||A v||, which no rounding of the iteration can lift above ||A||."""
    right = right / jnp.linalg.norm(right)
    image = forward(right)
    s = jnp.linalg.norm(image)
    # Where A v = 0, any unit vector is a left singular vector of the value 0.
    left = jnp.where(s == 0, right, image / jnp.where(s == 0, jnp.ones_like(s), s))
    residual = jnp.linalg.norm(transpose(left) - s * right)
    return Norm(jnp.where(jnp.isfinite(residual), s, jnp.nan), right, left, residual, products + 2)


def _norm_restarted(forward, transpose, d, key, tol, steps, dtype, start, over) -> Norm:
    """Thick-restart Lanczos on A^T A: the largest singular value keeps its relative accuracy, and one basis is enough."""
    options = {"tol": tol, "steps": steps, "dtype": dtype, "start": start, "ends": "high", "over": over}
    found = restarted.lanczos(lambda v: transpose(forward(v)), d, key, **options)
    return _lifted(forward, transpose, found.high_vector, 2 * found.products)


class Leading(NamedTuple):
    """The largest eigenvalues of a symmetric operator, decreasing.

    Attributes:
      values: (count,) Ritz values, each a lower estimate (of the i-th largest, by Cauchy interlacing).
      vectors: (count, d), orthonormal. residuals: (count,), ||A v - theta v||. iterations: of LOBPCG, int32.
    """

    values: jax.Array
    vectors: jax.Array
    residuals: jax.Array
    iterations: jax.Array


def leading(operator: Callable, d: int, key, count: int, *, tol=1e-8, steps: int = MOST, dtype=None) -> Leading:
    """The ``count`` largest eigenvalues of a symmetric operator, by JAX's LOBPCG (Knyazev 2001).

    A block method sees eigenvalues that coincide, which Lanczos from one vector cannot.

    Args:
      operator: v -> A v on flat vectors of d values, A symmetric.
      count: how many; 5·count < d.
      tol: residual, relative to the largest Ritz value. steps: most iterations, each ``count`` products or a few times that.

    Raises:
      FpjaxError: if 5·count >= d.

    Not for use under vmap: its small eigenproblems are LAPACK calls (see :mod:`fpjax.tridiagonal`); use ``jax.lax.map``.
    """
    if count < 1 or 5 * count >= d:
        raise FpjaxError(f"LOBPCG finds between 1 and {(d - 1) // 5} eigenvalues of {d} values; asked for {count}")
    dtype = jnp.result_type(float) if dtype is None else dtype
    many = jax.vmap(operator, in_axes=1, out_axes=1)
    first = jax.random.normal(key, (d, count), dtype)
    values, columns, iterations = lobpcg_standard(many, first, m=steps, tol=tol)
    residuals = jnp.linalg.norm(many(columns) - columns * values[None], axis=0)
    return Leading(values, columns.T, residuals, jnp.asarray(iterations, jnp.int32))


class Spectrum(NamedTuple):
    """What one point says about J = J_D there; see :func:`spectrum`.

    Attributes:
      symmetric: extremes of (J + J^T)/2.
      norm: ||J||. departure: ||I - J||. asymmetry: ||J - J^T||/2. None where it was not asked for.
    """

    symmetric: Extremes
    norm: Norm
    departure: Norm
    asymmetry: Norm


NORMS = ("norm", "departure", "asymmetry")


@functools.partial(jax.jit, static_argnames=("function", "steps", "norms", "over"))
def spectrum(
    function: Callable,
    y,
    params,
    key,
    *,
    tol=1e-8,
    steps: int = MOST,
    norms: tuple[str, ...] = NORMS,
    over: Mesh | None = None,
) -> Spectrum:
    """Extremes of sym J, ||J||, ||I - J|| and ||J - J^T||/2 for J the Jacobian of ``function(y, params)`` in y.

    Args:
      function: top-level, (y, params) -> array like y.
      y: one point; its dtype is that of the computation.
      steps: most Lanczos iterations of each of the four.
      norms: which of the three norms are wanted; the others are None.
      over: devices that share the vectors of one large point, see :func:`extreme_eigenvalues`.
    """
    forward, transpose = linear(lambda v: function(v, params), y)
    d = y.size
    options = {"tol": tol, "steps": steps, "dtype": y.dtype, "over": over}
    keys = jax.random.split(key, 4)
    symmetric = extreme_eigenvalues(lambda v: (forward(v) + transpose(v)) / 2, d, keys[0], **options)

    def norm(which):
        i, k = which
        return spectral_norm(
            lambda v: jax.lax.switch(i, ahead, v), lambda u: jax.lax.switch(i, back, u), d, k, **options
        )

    # One after the other in one loop, so that the iteration is compiled once for all that are wanted.
    wanted = np.asarray([NORMS.index(name) for name in norms])
    ahead = (forward, lambda v: v - forward(v), lambda v: (forward(v) - transpose(v)) / 2)
    back = (transpose, lambda u: u - transpose(u), lambda u: (transpose(u) - forward(u)) / 2)
    ahead, back = tuple(ahead[i] for i in wanted), tuple(back[i] for i in wanted)
    found = jax.lax.map(norm, (jnp.arange(len(wanted), dtype=jnp.int32), keys[1 + wanted]))
    each = {name: jax.tree.map(lambda a, i=i: a[i], found) for i, name in enumerate(norms)}
    return Spectrum(symmetric, *(each.get(name) for name in NORMS))  # pyright: ignore[reportArgumentType]
