"""Compiled inversions of a whole batch over a whole trajectory.

In this room: two layouts of the same solves. "lanes": one while_loop in which every image carries its own step index, so
an image that has converged moves to its next noise level at once, and each iteration makes one batched network call.
"scan": a scan over steps of a batched while_loop, in which every image waits for the slowest of each step. Starting
points from the steps before, and derivatives through all steps by the implicit function theorem. Not in this room:
checking arguments, coordinates, error bounds (trajectory).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.denoiser import Denoiser
from fpjax.evidence import Exit
from fpjax.methods import norm2
from fpjax.solve import (
    Goal,
    Lane,
    Solution,
    adjoint,
    advance,
    newton_gmres,
    record,
    restart,
    slots,
    start,
    zero_cotangent,
)
from fpjax.solvers import CLASSIC, named
from fpjax.step import G, Step

ORDERS = 3  # noise predictions of earlier steps that a starting point may use


class Inputs(NamedTuple):
    """The denoiser, states y (n, *shape) at the smallest noise level, conditions (n,) and guidance."""

    den: Denoiser
    z: jax.Array
    condition: jax.Array
    guidance: jax.Array | None


class Levels(NamedTuple):
    """What each step needs, leading axis the steps: sigma_t, rho, T2's modulus (0 unknown) and ``weights`` (steps, 3)."""

    sigma: jax.Array
    rho: jax.Array
    modulus: jax.Array
    weights: jax.Array


class Options(NamedTuple):
    """Static choices: method, layout "lanes" or "scan", whether every state is kept, how many secant pairs are, and
    whether each step has a record of its own."""

    solver: str = "auto"
    layout: str = "lanes"
    history: bool = True
    depth: int = 8
    records: bool = True


class Record(NamedTuple):
    """What is kept of each image (n) and step: path (n, steps + 1, *shape) or None, and a Solution of (n, steps)
    arrays whose y is the last state (n, *shape); (n, 1) without records, see :func:`_merged`. ``calls``: batched network
    calls made, int32.
    """

    path: jax.Array | None
    solution: Solution
    calls: jax.Array


def extrapolation_weights(sigmas: np.ndarray, order: int) -> np.ndarray:
    """Weights (steps, 3) that predict a step's noise direction (y_t - y_s)/(sigma_t - sigma_s) from those before it.

    Row i extrapolates the last min(i, order) of them, newest first, as a polynomial in log sigma_t. All zero for
    order 0 and for the first step: the starting point is then y_s itself, the naive DDIM start.

    Args:
      sigmas: (steps + 1,), increasing.
    """
    nodes = np.log(sigmas[1:])
    weights = np.zeros((len(nodes), ORDERS))
    for i in range(1, len(nodes)):
        count = min(i, order)
        known = nodes[i - count : i][::-1]
        for j in range(count):
            others = np.delete(known, j)
            weights[i, j] = np.prod((nodes[i] - others) / (known[j] - others))
    return weights


class Carry(NamedTuple):
    """A batch on its way; every leaf but the last two has a leading axis of lanes."""

    lane: Lane  # batched
    index: jax.Array  # (n,) the step each image is at
    target: jax.Array  # (n, *shape) y_s
    noise: jax.Array  # (n, ORDERS, *shape) directions of earlier steps, newest first
    out: Any
    slot: jax.Array
    calls: jax.Array


def _step_at(x: Inputs, levels: Levels, index, target) -> Step:
    return Step(x.den, levels.sigma[index], levels.rho[index], target, x.condition, x.guidance)


def _axes() -> Step:
    return Step(None, 0, 0, 0, 0, None)  # pyright: ignore[reportArgumentType]


def _images(query, p: Step):
    """One batched network call."""
    return jax.vmap(G, in_axes=(0, _axes()))(query, p)


def _guess(y, noise, levels: Levels, index):
    """Where to start step ``index`` from y_s = y, and the length of the move that this predicts."""
    gap = levels.sigma[index] * (1 - levels.rho[index])
    move = gap * jnp.tensordot(levels.weights[index], noise, 1)
    return y + move, gap * norm2(noise[0])


def _advance_all(method, lane, image, slot, goal: Goal):
    axes = Goal(None, None, 0, None, None)  # pyright: ignore[reportArgumentType]
    return jax.vmap(functools.partial(advance, method), in_axes=(0, 0, None, axes))(lane, image, slot, goal)


def _per_lane(condition, a, b):
    """``a`` for the lanes where ``condition`` (n,) holds, else ``b``."""
    return jax.tree.map(lambda u, v: jnp.where(condition.reshape(-1, *[1] * (u.ndim - 1)), u, v), a, b)


def _merged(old: Solution, new: Solution, first) -> Solution:
    """One record for all steps so far: counts add up, the largest residual and error and the weakest basis stay, and so
    does the first exit that did not solve its step; rate and reason are the newest."""
    unsolved = jnp.all(jnp.stack([old.exit != code for code in Exit if code.solved]), axis=0)
    both = new._replace(
        exit=jnp.where(unsolved, old.exit, new.exit),
        residual=jnp.maximum(old.residual, new.residual),
        error=jnp.maximum(old.error, new.error),
        basis=jnp.minimum(old.basis, new.basis),
        iterations=old.iterations + new.iterations,
        evaluations=old.evaluations + new.evaluations,
        newton=old.newton + new.newton,
    )
    return _per_lane(first, new, both)


def _finish(x: Inputs, levels: Levels, goal: Goal, c: Carry, done, records: bool) -> Carry:
    """Writes down the lanes that ended and sends them to their next step."""
    steps = levels.sigma.shape[0]
    rows = jnp.arange(c.index.shape[0])
    columns = jnp.where(done, c.index, steps + 1)  # out of bounds: nothing is written
    solved = jax.vmap(record, in_axes=(0, Goal(None, None, 0, None, None)))(c.lane, goal)  # pyright: ignore
    y = c.lane.point.y
    path, kept = c.out
    if path is not None:
        path = path.at[rows, jnp.where(done, c.index + 1, steps + 1)].set(y, mode="drop")
    if records:
        fields = [k.at[rows, columns].set(v, mode="drop") for k, v in zip(kept, solved[1:], strict=True)]
    else:
        whole = _merged(Solution(y, *(k[:, 0] for k in kept)), solved, c.index == 0)
        fields = [jnp.where(done, v, k[:, 0])[:, None] for k, v in zip(kept, whole[1:], strict=True)]

    gap = (levels.sigma * (1 - levels.rho))[jnp.minimum(c.index, steps - 1)].reshape(-1, *[1] * (y.ndim - 1))
    newest = ((y - c.target) / gap)[:, None]
    noise = _per_lane(done, jnp.concatenate([newest, c.noise[:, :-1]], axis=1), c.noise)
    index = jnp.where(done, c.index + 1, c.index)
    target = _per_lane(done, y, c.target)
    query, _ = jax.vmap(_guess, in_axes=(0, 0, None, 0))(target, noise, levels, jnp.minimum(index, steps - 1))
    more = done & (index < steps)
    lane = c.lane._replace(exit=jnp.where(more, Exit.RUNNING, c.lane.exit))
    again = jax.vmap(restart)(lane, query)
    light = again._replace(memory=lane.memory)  # the memory drops itself
    lane = light._replace(**{f: _per_lane(more, getattr(light, f), getattr(lane, f)) for f in _RESET})
    return c._replace(lane=lane, index=index, target=target, noise=noise, out=(path, tuple(fields)))


_RESET = ("query", "fresh", "exit", "stalled", "rate", "ratio", "reach", "iterations", "evaluations")


def _second_start(levels: Levels, c: Carry, fresh) -> Carry:
    """Where a predicted start is worse than the naive one should be, the naive one is the next trial."""
    _, expected = jax.vmap(_guess, in_axes=(0, 0, None, 0))(c.target, c.noise, levels, c.index)
    poor = fresh & (c.index > 0) & ~(c.lane.point.norm <= expected) & (c.lane.exit == Exit.RUNNING)
    return c._replace(lane=c.lane._replace(query=_per_lane(poor, c.target, c.lane.query)))


def begin(x: Inputs, levels: Levels, goal: Goal, options: Options) -> Carry:
    """All lanes before their first evaluation."""
    n, steps = x.z.shape[0], levels.sigma.shape[0]
    lane = jax.vmap(functools.partial(start, named(options.solver, options.depth)))(x.z)
    path = None
    if options.history:
        path = jnp.zeros((n, steps + 1, *x.z.shape[1:]), x.z.dtype).at[:, 0].set(x.z)
    fields = jax.eval_shape(jax.vmap(record, in_axes=(0, None)), lane, goal)[1:]
    kept = tuple(jnp.zeros((n, steps if options.records else 1), f.dtype) for f in fields)
    noise = jnp.zeros((n, ORDERS, *x.z.shape[1:]), x.z.dtype)
    zero = jnp.int32(0)
    return Carry(lane, jnp.zeros(n, jnp.int32), x.z, noise, (path, kept), zero, zero)


def proceed(x: Inputs, levels: Levels, goal: Goal, options: Options, c: Carry) -> Carry:
    """One batched network call, and what each lane makes of it."""
    method, steps = named(options.solver, options.depth), levels.sigma.shape[0]

    def at(index) -> Goal:
        return goal._replace(modulus=levels.modulus[index])

    index = jnp.minimum(c.index, steps - 1)
    image = _images(c.lane.query, _step_at(x, levels, index, c.target))
    alive = c.index < steps
    fresh = c.lane.fresh & alive
    # An ended lane goes on computing what nobody reads; its index says so.
    c = c._replace(lane=_advance_all(method, c.lane, image, c.slot, at(index)))
    if options.solver != "picard":
        c = jax.lax.cond(
            jnp.any(fresh),
            lambda v: _second_start(levels, v._replace(index=index), fresh)._replace(index=v.index),
            lambda v: v,
            c,
        )
    done = alive & (c.lane.exit != Exit.RUNNING)
    c = jax.lax.cond(jnp.any(done), lambda v: _finish(x, levels, at(index), v, done, options.records), lambda v: v, c)
    return c._replace(slot=(c.slot + 1) % slots(c.lane), calls=c.calls + 1)


def _lanes(x: Inputs, levels: Levels, goal: Goal, options: Options) -> Record:
    steps = levels.sigma.shape[0]
    body = functools.partial(proceed, x, levels, goal, options)
    end = jax.lax.while_loop(lambda c: jnp.any(c.index < steps), body, begin(x, levels, goal, options))
    path, kept = end.out
    return Record(path, Solution(end.target, *kept), end.calls)


def _scan(x: Inputs, levels: Levels, goal: Goal, options: Options) -> Record:
    method = None if options.solver == CLASSIC else named(options.solver, options.depth)
    n = x.z.shape[0]
    axes = Goal(None, None, 0, None, None)  # pyright: ignore[reportArgumentType]

    def one_step(carry, level: tuple):
        y, noise, index = carry
        sigma, rho, modulus, weights = level
        gap = sigma * (1 - rho)
        p = Step(x.den, jnp.full(n, sigma), jnp.full(n, rho), y, x.condition, x.guidance)
        here = goal._replace(modulus=jnp.full(n, modulus))
        query = y + gap * jnp.tensordot(noise, weights, ((1,), (0,)))

        def body(c):
            lane, slot = c
            fresh = lane.fresh
            new = _advance_all(method, lane, _images(lane.query, p), slot, here)
            poor = fresh & (index > 0) & ~(new.point.norm <= gap * jax.vmap(norm2)(noise[:, 0]))
            if options.solver != "picard":
                new = new._replace(query=_per_lane(poor, y, new.query))
            lane = _per_lane(lane.exit == Exit.RUNNING, new, lane)
            return lane, (slot + 1) % slots(lane)

        if method is None:
            s = jax.vmap(functools.partial(newton_gmres, G), in_axes=(0, _axes(), axes))(query, p, here)
        else:
            lane = jax.vmap(functools.partial(start, method))(query)
            going = (lane, jnp.int32(0))
            lane, _ = jax.lax.while_loop(lambda c: jnp.any(c[0].exit == Exit.RUNNING), body, going)
            s = jax.vmap(record, in_axes=(0, axes))(lane, here)
        noise = jnp.concatenate([((s.y - y) / gap)[:, None], noise[:, :-1]], axis=1)
        kept = s if options.history else s._replace(y=jnp.zeros(n, y.dtype))
        return (s.y, noise, index + 1), (kept, jnp.max(s.evaluations))

    noise = jnp.zeros((n, ORDERS, *x.z.shape[1:]), x.z.dtype)
    (last, _, _), (kept, calls) = jax.lax.scan(one_step, (x.z, noise, jnp.int32(0)), tuple(levels))
    kept = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), kept)
    path = jnp.concatenate([x.z[:, None], kept.y], axis=1) if options.history else None
    return Record(path, kept._replace(y=last), jnp.sum(calls))


@functools.partial(jax.jit, static_argnames="options")
def run(x: Inputs, levels: Levels, goal: Goal, options: Options) -> Record:
    """All steps of all images; ``jax.grad`` goes through the last state where ``options.history`` is true."""
    return _run(options, x, levels, goal)


def share(options: Options, shared, lanes) -> tuple[Record, jax.Array]:
    """:func:`run` as :func:`fpjax.sharding.over_devices` takes it: ``shared`` is (den, guidance, levels, goal), ``lanes`` is
    (z, condition); the count of calls is each device's own."""
    (den, guidance, levels, goal), (z, condition) = shared, lanes
    out: Record = _run(options, Inputs(den, z, condition, guidance), levels, goal)  # pyright: ignore[reportAssignmentType]
    return out._replace(calls=None), out.calls  # pyright: ignore[reportArgumentType]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(options: Options, x: Inputs, levels: Levels, goal: Goal) -> Record:
    return _solved(options, x, levels, goal)


def _solved(options: Options, x: Inputs, levels: Levels, goal: Goal) -> Record:
    return {"lanes": _lanes, "scan": _scan}[options.layout](x, levels, goal, options)


def _forward(options, x, levels, goal):
    out = _solved(options, x, levels, goal)
    if out.path is None:
        raise ValueError("derivatives of an inversion need history=True")
    return out, (x, levels, goal, out.path)


def _backward(options, kept, bar: Record):
    """Backwards through the steps: u = (I - J^T)^-1 v is the cotangent of y_s, and of everything G depends on (E2)."""
    x, levels, goal, path = kept
    bars = bar.path.at[:, -1].add(bar.solution.y)  # pyright: ignore[reportOptionalMemberAccess]

    def one_step(carry, i):
        v, total = carry

        def one_image(y, p, v):
            u = adjoint(G, y, p, v, goal)
            return u, jax.vjp(lambda p: G(y, p), p)[1](u)[0]

        p = _step_at(x, levels, jnp.full(v.shape[0], i), path[:, i])
        # The denoiser's cotangent is summed over images by mapping over its own copy.
        _, bars_p = jax.vmap(one_image, in_axes=(0, _axes(), 0))(path[:, i + 1], p, v)
        den = jax.tree.map(
            lambda t, b: t + jnp.sum(b, axis=0) if b.dtype != jax.dtypes.float0 else t, total[0], bars_p.den
        )
        w = None if x.guidance is None else total[1] + jnp.sum(bars_p.guidance)
        return (bars_p.target + bars[:, i], (den, w)), None

    zero = jax.tree.map(lambda a: jnp.zeros_like(a), (x.den, x.guidance))
    steps = jnp.arange(levels.sigma.shape[0])[::-1]
    (v, (den, w)), _ = jax.lax.scan(one_step, (bars[:, -1], zero), steps)
    return Inputs(den, v, zero_cotangent(x.condition), w), zero_cotangent(levels), zero_cotangent(goal)


_run.defvjp(_forward, _backward)
