"""Parallel in time: all steps of a trajectory as one triangular system, one batched network call for all of them at once.

The unknowns are y_1 … y_T, the equations y_i = y_{i-1} + d_i(y_i) with d_i(y) = (1 - rho_i)·(y - D(y, sigma_i)) (E2), and
Phi_i(Y) = y_0 + d_1(y_1) + … + d_i(y_i) has the trajectory as its fixed point. Block Picard iterates Phi (ParaDiGMS, for
inversion); triangular Anderson gives each step its own mixture of the iterates before, fitted to the steps up to it, so
that no step waits for later ones (ParaTAA, 2402.09970). Fewer calls in a row, more evaluations in all: for accelerators
whose batch is not full. Not in this room: the sequential forms (lanes), derivatives.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fpjax import secants
from fpjax.denoiser import evaluate
from fpjax.evidence import Basis, Exit
from fpjax.lanes import Inputs, Levels, Options, Record
from fpjax.methods import ROUNDING
from fpjax.solve import GROWTH, Goal, Solution

METHODS = ("picard", "anderson")


class _State(NamedTuple):
    """``y``, ``image``: the iterate and Phi of it, (n, T, d); the differences behind them, newest first, (depth, n, T, d);
    ``local``: the residual of each step's own equation (n, T).
    """

    y: jax.Array
    image: jax.Array
    dy: jax.Array
    de: jax.Array
    count: jax.Array  # (n,) pairs in use
    first: jax.Array
    size: jax.Array  # (n,) the smallest ||Phi(Y) - Y|| so far
    local: jax.Array
    k: jax.Array


def _phi(x: Inputs, levels: Levels, y):
    """Phi(Y) and the local residuals of Y (n, T, d), by one batched call for all images and steps."""
    shape = x.z.shape[1:]

    def one(v, sigma, rho, c):
        v = v.reshape(shape)
        return ((1 - rho) * (v - evaluate(x.den, v, sigma, c, x.guidance))).reshape(-1)

    over_steps = jax.vmap(one, in_axes=(0, 0, 0, None))
    d = jax.vmap(over_steps, in_axes=(0, None, None, 0))(y, levels.sigma, levels.rho, x.condition)
    y0 = x.z.reshape(x.z.shape[0], 1, -1)
    before = jnp.concatenate([y0, y[:, :-1]], axis=1)
    local = before + d - y
    return y0 + jnp.cumsum(d, axis=1), jnp.sqrt(jnp.sum(local**2, axis=-1))


def _mix(s: _State, e):
    """Triangular Anderson: gamma of step i fits the residuals of steps 1 … i, by secant pairs; the next iterate (n, T, d)."""
    gram = jnp.cumsum(jnp.einsum("kntd,lntd->ntkl", s.de, s.de), axis=1)
    b = jnp.cumsum(jnp.einsum("kntd,ntd->ntk", s.de, e), axis=1)
    valid = jnp.arange(s.dy.shape[0], dtype=jnp.int32)[None] < s.count[:, None]
    valid = jnp.broadcast_to(valid[:, None], b.shape)
    gamma = jax.vmap(jax.vmap(secants.fitted))(gram, b, valid)
    return s.y + e - jnp.einsum("ntk,kntd->ntd", gamma, s.dy + s.de)


def _judge(s: _State, levels: Levels, goal: Goal, ended):
    """Exit codes (n, T), what the residuals imply for the errors, and on what basis."""
    modulus = jnp.broadcast_to(levels.modulus[None], s.local.shape)
    known = modulus > 0
    error = jnp.where(known, s.local / jnp.where(known, modulus, jnp.ones_like(modulus)), jnp.inf)
    rests = jnp.where(known, error, s.local)
    wanted = jnp.where(goal.on_error, jnp.maximum(s.local, rests), s.local) <= goal.tol
    floor = ROUNDING * jnp.finfo(s.y.dtype).eps * 2 * jnp.sqrt(jnp.sum(s.y**2, axis=-1))
    cases = [
        (~jnp.isfinite(s.local), Exit.NONFINITE),
        (wanted, Exit.CONVERGED),
        (ended & (s.local <= floor), Exit.CONVERGED_TO_PRECISION),
        (s.local > GROWTH * s.first[:, None], Exit.DIVERGED),
        (jnp.broadcast_to(ended, s.local.shape), Exit.STEP_LIMIT),
    ]
    code = jnp.select([c for c, _ in cases], [jnp.int32(v) for _, v in cases], jnp.int32(Exit.RUNNING))
    found = jnp.where(goal.certified, jnp.int32(Basis.CERTIFIED), jnp.int32(Basis.ASSUMED))
    return code, error, jnp.where(known, found, jnp.int32(Basis.RESIDUAL))


@functools.partial(jax.jit, static_argnames="options")
def run(x: Inputs, levels: Levels, goal: Goal, options: Options) -> Record:
    """All steps of all images; ``options.solver`` "picard" or "anderson" (and "auto", which is that).

    An image's iteration ends when all its steps have. ``evaluations`` of a step is the number of calls until then, the
    same for all steps; ``goal.limit`` is for the whole trajectory.
    """
    n, steps = x.z.shape[0], levels.sigma.shape[0]
    flat = x.z.reshape(n, 1, -1)
    y = jnp.broadcast_to(flat, (n, steps, flat.shape[-1]))
    depth = 1 if options.solver == "picard" else options.depth
    none = jnp.zeros((depth, *y.shape), y.dtype)
    image, local = _phi(x, levels, y)
    size = jnp.sqrt(jnp.sum((image - y) ** 2, axis=(1, 2)))
    state = _State(y, image, none, none, jnp.zeros(n, jnp.int32), size, size, local, jnp.int32(1))
    spent = jnp.ones(n, jnp.int32)

    def open_lanes(s: _State):
        return jnp.any(_judge(s, levels, goal, jnp.bool_(False))[0] == Exit.RUNNING, axis=1)

    def body(carry):
        s, spent = carry
        live = open_lanes(s)
        e = s.image - s.y
        new = s.image if options.solver == "picard" else _mix(s, e)
        image, local = _phi(x, levels, new)
        size = jnp.sqrt(jnp.sum((image - new) ** 2, axis=(1, 2)))
        keep = live[:, None, None]
        y = jnp.where(keep, new, s.y)
        image = jnp.where(keep, image, s.image)
        dy = jnp.concatenate([(y - s.y)[None], s.dy[:-1]])
        de = jnp.concatenate([(image - y - e)[None], s.de[:-1]])
        # Pairs that led far uphill are forgotten: the next step is then a plain one.
        count = jnp.where(size > 10 * s.size, 0, jnp.minimum(s.count + 1, depth))
        local = jnp.where(live[:, None], local, s.local)
        s = _State(y, image, dy, de, count, s.first, jnp.fmin(size, s.size), local, s.k + 1)
        return s, spent + live.astype(jnp.int32)

    def going(carry):
        return (carry[0].k < goal.limit) & jnp.any(open_lanes(carry[0]))

    state, spent = jax.lax.while_loop(going, body, (state, spent))
    return _record(x, levels, goal, options, state, spent)


def _record(x: Inputs, levels: Levels, goal: Goal, options: Options, s: _State, spent) -> Record:
    code, error, basis = _judge(s, levels, goal, jnp.bool_(True))
    path = jnp.concatenate([x.z[:, None], s.y.reshape(*s.y.shape[:2], *x.z.shape[1:])], axis=1)
    each = jnp.broadcast_to(spent[:, None], code.shape)
    zero = jnp.zeros_like(each)
    rate = jnp.full_like(s.local, jnp.nan)
    solution = Solution(path[:, -1], code, s.local, rate, each - 1, each, error, basis, zero, zero)
    return Record(path if options.history else None, solution, s.k)
