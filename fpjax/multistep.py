"""Inverting multistep samplers (DPM-Solver++ 2M, UniPC): one triangular-plus-memory system for the whole trajectory.

    y_i = F_i(y_(i+1), y_(i+2), …) = rho_i·y_(i+1) + (1 - rho_i)·sum_k w_ik·D(y_(i+k), sigma_(i+k)),      i = 0 … N - 1

Given y_0 alone the unknowns are y_1 … y_N together: a step cannot be inverted by itself, since it depends on noisier
states that are not known yet. The solutions of the system are exactly the trajectories that generation runs through
(Hong et al. 2311.18387 estimate the noisier states instead, and are exact only up to that estimate).

Sweeps. With the memory h_i = sum_(k >= 2) w_ik·D(y_(i+k)) frozen, step i is E2 for the denoiser w_i1·D + h_i, solved upwards
from i = 0; then the memory is computed again. A fixed point of the sweep is a solution of the system.

Theory (T2, T3 and T8 with memory). Let m_i = rho_i + (1 - rho_i)·w_i1·inf lambda_min(J_(i+1)), and b_ik = (1 - rho_i)·|w_ik|·L_(i+k)
with L a bound on ||J||. Two trajectories with residuals r_i and distances e_i satisfy

    m_i·e_(i+1) <= e_i + r_i + sum_(k >= 2) b_ik·e_(i+k)

If the matrix of this system (m on the diagonal, -1 below, -b above) is an M-matrix, then e = 0 where r = 0: the trajectory is
unique, sweeps converge, and e <= T^-1·r bounds the error. For two outputs (2M) that is: every pivot
m'_i = m_i - b_i2/m'_(i+1) > 0, from the noisiest step down. m'_i is the modulus of step i when the noisier states follow it:
its T2. In this room: sweeps, generation, and these pivots. Not in this room: weights (samplers), verdicts (auditing).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.denoiser import Denoiser, evaluate
from fpjax.evidence import Basis, Exit
from fpjax.lanes import Inputs, Record
from fpjax.methods import norm2
from fpjax.process import Process
from fpjax.solve import ROUNDING, Goal, Solution, solve


class Table(NamedTuple):
    """Levels and weights as arrays, leading axis the steps in inversion order: sigma_t, rho, weights (steps, K)."""

    sigma: jax.Array
    rho: jax.Array
    weights: jax.Array


class Inner(NamedTuple):
    """One step with its memory frozen: solve rho·y + (1 - rho)·(weight·D(y) + memory) = target."""

    den: Denoiser
    sigma: jax.Array
    rho: jax.Array
    weight: jax.Array
    memory: jax.Array
    target: jax.Array
    condition: jax.Array
    guidance: jax.Array | None


def G(y, p: Inner):
    """E2 with memory: target + (1 - rho)·(y - weight·D(y) - memory)."""
    d = evaluate(p.den, y, p.sigma, p.condition, p.guidance)
    return p.target + (1 - p.rho) * (y - p.weight * d - p.memory)


def make_table(process: Process, dtype) -> Table:
    """The process's levels and weights as arrays of ``dtype``."""
    return Table(*(jnp.asarray(a, dtype) for a in (process.sigmas[1:], process.rho, np.asarray(process.table))))


def generate(x: Inputs, table: Table) -> jax.Array:
    """All states (n, steps + 1, *shape) in inversion order, from the noisiest ones ``x.z``."""
    count = table.weights.shape[1]

    def one_step(carry, row):
        y, memory = carry
        sigma, rho, weights = row
        d = jax.vmap(lambda v, c: evaluate(x.den, v, sigma, c, x.guidance))(y, x.condition)
        memory = jnp.concatenate([d[None], memory[:-1]])
        y = rho * y + (1 - rho) * jnp.tensordot(weights, memory, 1)
        return (y, memory), y

    rows = jax.tree.map(lambda a: a[::-1], tuple(table))
    memory = jnp.zeros((count, *x.z.shape), x.z.dtype)
    _, path = jax.lax.scan(one_step, (x.z, memory), rows)
    return jnp.concatenate([path[::-1], x.z[None]]).swapaxes(0, 1)


class _Carry(NamedTuple):
    path: jax.Array  # (n, steps, *shape): y_1 … y_N
    inner: Solution  # of the last sweep, (n, steps)
    residual: jax.Array  # (n, steps) of the whole system
    best: jax.Array  # (n,) smallest largest residual so far
    stalled: jax.Array  # (n,) sweeps since it fell by a tenth
    evaluations: jax.Array  # (n, steps)
    sweeps: jax.Array  # (n,)
    exit: jax.Array  # (n,)
    calls: jax.Array


def memory_of(x: Inputs, table: Table, path) -> jax.Array:
    """h_i of every step, (n, steps, *shape), from states y_1 … y_N."""
    steps, count = table.weights.shape

    def one(y, sigma, c):
        return evaluate(x.den, y, sigma, c, x.guidance)

    d = jax.vmap(jax.vmap(one, (0, 0, None)), (0, None, 0))(path, table.sigma, x.condition)
    total = jnp.zeros_like(d)
    for k in range(1, count):
        ahead = jnp.concatenate([d[:, k:], jnp.zeros_like(d[:, : min(k, steps)])], axis=1)[:, :steps]
        total = total + ahead * table.weights[:, k].reshape(-1, *[1] * (d.ndim - 2))
    return total


@functools.partial(jax.jit, static_argnames=("solver", "depth", "sweeps"))
def run(x: Inputs, table: Table, goal: Goal, solver: str, depth: int, sweeps: int = 200) -> Record:
    """Inverts all images ``x.z`` (states y_0); every step of a :class:`Record` carries the residual of the whole system.

    A step has converged when its residual in the system is at most ``goal.tol``. ``error`` is infinite and ``basis``
    RESIDUAL: no modulus of the system is assumed. ``iterations`` counts sweeps, ``evaluations`` all of them.
    """
    n, steps = x.z.shape[0], table.sigma.shape[0]

    def sweep(path, memory):
        def one_step(y, row):
            sigma, rho, weight, h, before = row

            def one(target, h, start, c):
                p = Inner(x.den, sigma, rho, weight, h, target, c, x.guidance)
                kind = {"solver": solver, "stop": "residual", "depth": depth}
                return solve(G, start, p, tol=0.1 * goal.tol, limit=goal.limit, **kind)

            s = jax.vmap(one)(y, h, before, x.condition)
            return s.y, s

        rows = (table.sigma, table.rho, table.weights[:, 0], memory.swapaxes(0, 1), path.swapaxes(0, 1))
        _, s = jax.lax.scan(one_step, x.z, rows)
        return jax.tree.map(lambda a: a.swapaxes(0, 1), s)

    def body(c: _Carry) -> _Carry:
        memory = memory_of(x, table, c.path)
        s = sweep(c.path, memory)
        change = jax.vmap(jax.vmap(norm2))(memory_of(x, table, s.y) - memory)
        residual = s.residual + (1 - table.rho) * change
        live = c.exit == Exit.RUNNING
        worst = jnp.max(residual, axis=1)
        better = ~(worst >= 0.9 * c.best)
        stalled = jnp.where(better, 0, c.stalled + 1)
        floor = ROUNDING * jnp.finfo(worst.dtype).eps * jnp.max(jax.vmap(jax.vmap(norm2))(s.y), axis=1)
        cases = [
            (~jnp.isfinite(worst), Exit.NONFINITE),
            (worst <= goal.tol, Exit.CONVERGED),
            ((stalled >= 3) & (worst <= floor), Exit.CONVERGED_TO_PRECISION),
            (stalled >= 20, Exit.STALLED),
            (c.sweeps + 1 >= sweeps, Exit.STEP_LIMIT),
        ]
        codes = [jnp.int32(code) for _, code in cases]
        new = _Carry(
            s.y,
            s,
            residual,
            jnp.where(better, worst, c.best),
            stalled,
            c.evaluations + s.evaluations + 2,
            c.sweeps + 1,
            jnp.select([k for k, _ in cases], codes, jnp.int32(Exit.RUNNING)),
            c.calls,
        )
        kept = jax.tree.map(lambda a, b: _lanes(live, a, b), new._replace(calls=live), c._replace(calls=live))
        return kept._replace(calls=(c.calls + jnp.sum(jnp.max(s.evaluations, axis=0)) + 2).astype(jnp.int32))

    zeros = jnp.zeros((n, steps), x.z.dtype)
    count = jnp.zeros((n, steps), jnp.int32)
    blank = Solution(
        jnp.broadcast_to(x.z[:, None], (n, steps, *x.z.shape[1:])), count, zeros, zeros, count, count, zeros, count, count, count
    )
    one = jnp.zeros(n, jnp.int32)
    begin = _Carry(blank.y, blank, zeros, jnp.full(n, jnp.inf, x.z.dtype), one, count, one, one, jnp.int32(0))
    end = jax.lax.while_loop(lambda c: jnp.any(c.exit == Exit.RUNNING), body, begin)
    good = (end.residual <= goal.tol) & jnp.isfinite(end.residual)
    codes = jnp.where(good, jnp.int32(Exit.CONVERGED), end.exit[:, None])
    s = end.inner._replace(
        y=end.path[:, -1],
        exit=codes,
        residual=end.residual,
        iterations=jnp.broadcast_to(end.sweeps[:, None], (n, steps)),
        evaluations=end.evaluations,
        error=jnp.full_like(end.residual, jnp.inf),
        basis=jnp.full((n, steps), Basis.RESIDUAL, jnp.int32),
    )
    return Record(jnp.concatenate([x.z[:, None], end.path], axis=1), s, end.calls)


def _lanes(live, new, old):
    return jnp.where(live.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def pivots(diagonal, above) -> np.ndarray:
    """m'_i of the docstring for any number of outputs: the pivots of the M-matrix test, noisiest step first eliminated.

    Args:
      diagonal: m_i, (steps,). above: b_ik for k = 2 … K, (steps, K - 1), at least 0.

    Returns:
      (steps,) pivots in inversion order; the test holds if and only if all are positive. NaN below the first that is not.
    """
    steps = len(diagonal)
    matrix = np.diag(np.asarray(diagonal, np.float64)) - np.eye(steps, k=-1)
    for k in range(1, above.shape[1] + 1):
        for i in range(steps - k):
            matrix[i, i + k] -= above[i, k - 1]
    found = np.full(steps, np.nan)
    for i in range(steps - 1, -1, -1):
        found[i] = matrix[i, i]
        if not found[i] > 0:
            break
        matrix[:i, :i] -= np.outer(matrix[:i, i], matrix[i, :i]) / matrix[i, i]
    return found
