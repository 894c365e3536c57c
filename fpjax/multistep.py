"""Inverting multistep samplers (DPM-Solver++ 2M, UniPC): one triangular-plus-memory system for the whole trajectory.

    y_i = F_i(y_(i+1), y_(i+2), …) = rho_i·y_(i+1) + (1 - rho_i)·sum_k w_ik·D(y_(i+k), sigma_(i+k)),      i = 0 … N - 1

Given y_0 alone the unknowns are y_1 … y_N together: a step cannot be inverted by itself, since it depends on noisier
states that are not known yet. The solutions of the system are exactly the trajectories that generation runs through
(Hong et al. 2311.18387 estimate the noisier states instead, and are exact only up to that estimate).

Sweeps. With the memory h_i = sum_(k >= 2) w_ik·D(y_(i+k)) frozen, step i is E2 for the denoiser w_i1·D + h_i, solved upwards
from i = 0; then the memory is computed again. A fixed point of the sweep is a solution of the system.

Theory (T2, T3 and T8 with memory). Let m_i = rho_i + (1 - rho_i)·w_i1·inf lambda_min(J_(i+1)), w_i1 >= 0, and b_ik =
(1 - rho_i)·|w_ik|·L_(i+k) with L a bound on ||J||. Two trajectories with residuals r_i and distances e_i satisfy

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
from fpjax.methods import ROUNDING, norm2
from fpjax.process import Process
from fpjax.solve import Goal, Lane, Solution, advance, slots, solve, start
from fpjax.solvers import named

INEXACT = 1e-3  # an inner solve's tolerance, relative to the residual of the system before it
PATIENCE = 3  # sweeps in a row with an unsolved step after which the system is given up


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
    lane: Lane  # of the scaled memories (1 - rho)·h, (n, steps, *shape)
    path: jax.Array  # (n, steps, *shape): y_1 … y_N of the last sweep
    inner: Solution  # of the last sweep, (n, steps)
    residual: jax.Array  # (n, steps), of the whole system at that path
    failed: jax.Array  # (n,) sweeps in a row in which some step was not solved
    evaluations: jax.Array  # (n, steps)
    slot: jax.Array
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
        total = total + ahead * _axis(table.weights[:, k], d.ndim)
    return total


@functools.partial(jax.jit, static_argnames=("solver", "depth"))
def run(x: Inputs, table: Table, goal: Goal, solver: str, depth: int) -> Record:
    """Inverts all images ``x.z`` (states y_0); every step of the Record carries its residual in the whole system.

    The memories are the unknowns of an outer iteration by ``solver``, whose map is a sweep of inner solves by ``solver``;
    ``goal.limit`` holds for both. ``error`` is infinite and ``basis`` RESIDUAL: no modulus of the system is assumed.
    ``iterations`` counts sweeps; ``evaluations`` counts all of them.
    """
    machine = named(solver, depth)
    ahead = _axis(1 - table.rho, x.z.ndim + 1)
    whole = goal._replace(tol=0.5 * goal.tol, on_error=jnp.zeros_like(goal.on_error))

    def body(c: _Carry) -> _Carry:
        memory = c.lane.query
        # Early sweeps need no more digits than their memories have.
        tol = jnp.maximum(0.1 * goal.tol, INEXACT * jnp.max(c.residual, axis=1))
        s = _sweep(x, table, goal.limit, tol, (solver, depth), c.path, memory / ahead)
        image = ahead * memory_of(x, table, s.y)
        residual = s.residual + jax.vmap(jax.vmap(norm2))(image - memory)
        lane = jax.vmap(lambda v, i: advance(machine, v, i, c.slot, whole))(c.lane, image)
        unsolved = jnp.any((s.exit != Exit.CONVERGED) & (s.exit != Exit.CONVERGED_TO_PRECISION), axis=1)
        failed = jnp.where(unsolved, c.failed + 1, 0)
        code = jnp.where((lane.exit == Exit.RUNNING) & (failed >= PATIENCE), jnp.int32(Exit.STALLED), lane.exit)
        done = jnp.all(residual <= goal.tol, axis=1)
        code = jnp.where((code == Exit.RUNNING) & done, jnp.int32(Exit.CONVERGED), code)
        new = (lane._replace(exit=code), s.y, s, residual, failed, c.evaluations + s.evaluations + 1)
        live = c.lane.exit == Exit.RUNNING
        old = (c.lane, c.path, c.inner, c.residual, c.failed, c.evaluations)
        kept = jax.tree.map(lambda a, b: jnp.where(_axis(live, a.ndim, 0), a, b), new, old)
        calls = c.calls + jnp.sum(jnp.max(s.evaluations, axis=0)).astype(jnp.int32) + 1
        return _Carry(*kept, (c.slot + 1) % slots(c.lane), calls)  # pyright: ignore[reportCallIssue]

    end = jax.lax.while_loop(lambda c: jnp.any(c.lane.exit == Exit.RUNNING), body, _begin(x, table, ahead, machine))
    return Record(jnp.concatenate([x.z[:, None], end.path], axis=1), _record(end, goal), end.calls)


def _sweep(x: Inputs, table: Table, limit, tol, method: tuple[str, int], path, memory) -> Solution:
    """Every step in turn with the memory (n, steps, *shape) frozen, from the states of the sweep before; (n, steps)."""

    def one_step(target, row):
        sigma, rho, weight, memory, move = row

        def one(target, h, move, c, tol):
            p = Inner(x.den, sigma, rho, weight, h, target, c, x.guidance)
            kind = {"solver": method[0], "depth": method[1], "stop": "residual"}
            return solve(G, target + move, p, tol=tol, limit=limit, **kind)

        s = jax.vmap(one)(target, memory, move, x.condition, tol)
        return s.y, s

    moves = path - jnp.concatenate([x.z[:, None], path[:, :-1]], axis=1)
    rows = (table.sigma, table.rho, table.weights[:, 0], memory.swapaxes(0, 1), moves.swapaxes(0, 1))
    _, s = jax.lax.scan(one_step, x.z, rows)
    return jax.tree.map(lambda a: a.swapaxes(0, 1), s)


def _begin(x: Inputs, table: Table, ahead, machine) -> _Carry:
    """The naive start: every state is y_0."""
    n, steps = x.z.shape[0], table.sigma.shape[0]
    path = jnp.broadcast_to(x.z[:, None], (n, steps, *x.z.shape[1:]))
    zero, count = jnp.zeros((n, steps), x.z.dtype), jnp.zeros((n, steps), jnp.int32)
    inner = Solution(path, count, zero, zero, count, count, zero, count, count, count)
    lane = jax.vmap(functools.partial(start, machine))(ahead * memory_of(x, table, path))
    return _Carry(lane, path, inner, zero + 1, jnp.zeros(n, jnp.int32), count, jnp.int32(0), jnp.int32(0))


def _record(end: _Carry, goal: Goal) -> Solution:
    """Each step's own exit code: solved where its residual in the system is small, however the iteration ended."""
    shape = end.residual.shape
    size = jax.vmap(jax.vmap(norm2))(end.path)
    floor = ROUNDING * jnp.finfo(size.dtype).eps * size
    solved = (end.lane.exit == Exit.CONVERGED) | (end.lane.exit == Exit.CONVERGED_TO_PRECISION)
    code = jnp.where(solved, jnp.int32(Exit.STALLED), end.lane.exit)[:, None]  # memories at rest over an unsolved step
    code = jnp.where(end.residual <= floor, jnp.int32(Exit.CONVERGED_TO_PRECISION), code)
    code = jnp.where(end.residual <= goal.tol, jnp.int32(Exit.CONVERGED), code)
    return end.inner._replace(
        y=end.path[:, -1],
        exit=code,
        residual=end.residual,
        rate=jnp.broadcast_to(end.lane.rate[:, None], shape),
        iterations=jnp.broadcast_to(end.lane.iterations[:, None] + 1, shape),
        evaluations=end.evaluations,
        error=jnp.full_like(end.residual, jnp.inf),
        basis=jnp.full(shape, Basis.RESIDUAL, jnp.int32),
    )


def _axis(a, ndim: int, at: int = 1):
    """``a`` (one axis) as an array of ``ndim`` axes whose axis ``at`` is that one."""
    return a.reshape(*[1] * at, -1, *[1] * (ndim - at - 1))


class Coupling(NamedTuple):
    """What a multistep step's Jacobian is made of, for one image.

    Attributes:
      modulus: (steps,), smallest eigenvalue of the symmetric part of M_i, the Jacobian of y_(i+1) -> y_i when the noisier
        states follow; NaN where some M above is singular.
      norm: (steps,), ||M_i||_2.
    """

    modulus: np.ndarray
    norm: np.ndarray


def coupling(jacobians, rho, weights) -> Coupling:
    """M_i = A_i + sum_(k >= 2) B_ik·(M_(i+k-1)·…·M_(i+1))^-1, the Jacobians of the steps of one trajectory.

    Here A_i = rho_i + (1 - rho_i)·w_i1·J_(i+1) and B_ik = (1 - rho_i)·w_ik·J_(i+k).

    Args:
      jacobians: J_D at y_1 … y_N of one trajectory, (steps, d, d). rho: (steps,). weights: (steps, K).
    """
    steps, d, _ = jacobians.shape
    inverse: dict[int, np.ndarray] = {}  # of M_j
    modulus, norm = np.full(steps, np.nan), np.full(steps, np.nan)
    for i in range(steps - 1, -1, -1):
        step = rho[i] * np.eye(d) + (1 - rho[i]) * weights[i, 0] * jacobians[i]
        follow = np.eye(d)  # d y_(i+k) / d y_(i+1)
        for k in range(1, min(weights.shape[1], steps - i)):
            follow = inverse[i + k] @ follow
            step = step + (1 - rho[i]) * weights[i, k] * jacobians[i + k] @ follow
        if not np.isfinite(step).all():
            break
        modulus[i] = np.linalg.eigvalsh((step + step.T) / 2)[0]
        norm[i] = np.linalg.norm(step, 2)
        try:
            inverse[i] = np.linalg.inv(step)
        except np.linalg.LinAlgError:
            break
    return Coupling(modulus, norm)


@jax.jit
def jacobians(x: Inputs, table: Table, path) -> jax.Array:
    """J_D at every state y_1 … y_N of ``path`` (n, steps + 1, *shape), dense: (n, steps, d, d)."""

    def one(y, sigma, c):
        flat = jax.jacfwd(lambda v: evaluate(x.den, v.reshape(y.shape), sigma, c, x.guidance).reshape(-1))
        return flat(y.reshape(-1))

    image = jax.vmap(one, (0, 0, None))
    return jax.lax.map(lambda v: image(v[0], table.sigma, v[1]), (path[:, 1:], x.condition))


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
