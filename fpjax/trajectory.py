"""Whole trajectories: generate (E1 step by step), invert (E2 step by step), round trip.

In this room: checking a user's arrays at the edge, one compiled scan over the steps of vmapped solves, and what the
residuals imply for the error of the latent (T8, T9). Not in this room: how one equation is solved (solve), verdicts.
"""

import dataclasses
import warnings

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fpjax import compaction, composite, lanes, multistep, parallel, sharding
from fpjax.denoiser import Denoiser, check_guidance
from fpjax.evidence import Evidence, Exit, FpjaxError
from fpjax.lanes import ORDERS, Inputs, Levels, Options, Record, extrapolation_weights
from fpjax.process import Process
from fpjax.samplers import MULTISTEP, with_sampler
from fpjax.solve import check_solver, make_goal
from fpjax.solvers import CLASSIC, GRADIENT
from fpjax.step import F, Step

LAYOUTS = ("lanes", "scan", "compact", "parallel")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inversion:
    """The outcome of :func:`invert` for n images and the process's steps, in inversion order.

    Attributes:
      latent: (n, *shape), the noisiest state, in the process's own coordinates.
      exit: (n, steps) int32 :class:`fpjax.Exit` codes.
      residual: (n, steps), ||y_s - F(y_t)||_2 in y-coordinates, at the state that the trajectory goes on from.
      error_bound: (n, steps), a bound in y-coordinates on the distance to the exact trajectory (T8 with T9: each step adds
        its residual, rounding noise not counted, and divides by its modulus m); infinite where no modulus is known.
      evaluations: (n, steps) int32, evaluations of the network.
      iterations: (n, steps) int32.
      rate: (n, steps), the last observed ratio of residuals.
      path: (n, steps + 1, *shape), the states in y-coordinates, from the image to the latent; None without history.
      step_error: (n, steps), what the residual alone implies for the distance to this step's solution (T8).
      basis: (n, steps) int32 :class:`fpjax.evidence.Basis` codes: what ``step_error`` rests on.
      newton: (n, steps) int32, Newton steps taken.
      reason: (n, steps) int32, why auto turned to Newton; see :class:`fpjax.solve.Solution`.
      calls: batched network calls made for the whole batch, int32; a guided call evaluates the network twice.
      computed: points that the network was evaluated at in those calls, idle lanes counted, int32.
      evidence: what ``error_bound`` rests on; ASSUMED where the modulus comes from a declared fact.
      solver: the method used.
    """

    latent: jax.Array
    exit: jax.Array
    residual: jax.Array
    error_bound: jax.Array
    evaluations: jax.Array
    iterations: jax.Array
    rate: jax.Array
    path: jax.Array | None
    step_error: jax.Array
    basis: jax.Array
    newton: jax.Array
    reason: jax.Array
    calls: jax.Array
    computed: jax.Array
    evidence: Evidence = dataclasses.field(default=Evidence.ASSUMED, metadata={"static": True})
    solver: str = dataclasses.field(default="auto", metadata={"static": True})

    @property
    def solved(self) -> np.ndarray:
        """(n, steps) bool: the step ended CONVERGED or CONVERGED_TO_PRECISION, and so did all before it."""
        codes = np.asarray(self.exit)
        ok = np.isin(codes, [code for code in Exit if code.solved])
        return np.logical_and.accumulate(ok, axis=1)

    def to_diffusers(self, scheduler=None, *, packed: bool = False):
        """``latent`` as a torch tensor for a diffusers pipeline; see :func:`fpjax.diffusers.export.latents`."""
        from fpjax.diffusers.export import latents  # needs torch, and stands below this file

        return latents(self.latent, scheduler, packed=packed)


def prepare(den: Denoiser, images, condition=None, guidance: float = 1.0) -> Inputs:
    """Looks at a user's arrays before anything is compiled.

    Args:
      images: (n, *den.shape), finite; integers become the default float.
      condition: None, one condition for all, or n of them (indices or names).
      guidance: w.

    Raises:
      FpjaxError: for a wrong shape, NaN or infinite values, an unknown condition, or guidance without a condition.
    """
    array = images if isinstance(images, jax.Array) else np.asarray(images)
    if array.ndim != len(den.shape) + 1 or tuple(array.shape[1:]) != den.shape:
        raise FpjaxError(
            f"{den.name} takes images of shape {('n', *den.shape)}, got {tuple(array.shape)}; "
            "reshape them, and put a batch axis first"
        )
    if array.shape[0] == 0:
        raise FpjaxError("there are no images; give at least one")
    if not np.issubdtype(array.dtype, np.floating):
        array = np.asarray(array, np.float64)
    with warnings.catch_warnings():  # float64 input without x64 becomes float32, which is the documented default
        warnings.simplefilter("ignore", UserWarning)
        z = jnp.asarray(array)
    if not isinstance(z, Tracer) and not bool(jnp.all(jnp.isfinite(z))):
        raise FpjaxError("the images have NaN or infinite values; replace them first")
    return Inputs(den.astype(z.dtype), z, *_conditions(den, condition, guidance, z))


def _conditions(den: Denoiser, condition, guidance: float, z):
    n = z.shape[0]
    check_guidance(den, guidance, condition is not None)
    if condition is None or isinstance(condition, str) or np.ndim(condition) == 0:
        indices = [den.index(condition)] * n
    else:
        indices = [den.index(c) for c in list(condition)]
    if len(indices) != n:
        raise FpjaxError(f"{len(indices)} conditions for {n} images; give one for each, or one for all")
    if guidance != 1.0 and den.null in indices:
        raise FpjaxError(f"guidance {guidance} needs a condition for every image")
    w = None if guidance == 1.0 else jnp.asarray(guidance, z.dtype)
    return jnp.asarray(indices, jnp.int32), w


def invert(
    den: Denoiser,
    images,
    process: Process,
    *,
    condition=None,
    guidance: float = 1.0,
    solver: str = "auto",
    tol: float = 1e-8,
    limit: int = 200,
    stop: str = "error",
    layout: str = "lanes",
    order: int = 2,
    history: bool = True,
    depth: int = 8,
    records: bool = True,
    sampler: str | None = None,
) -> Inversion:
    """The latents from which ``process`` generates ``images``: solves E2 at every step.

    A step that is not solved is recorded with its exit code, and the trajectory goes on from where it stands; see
    ``Inversion.solved``. Reverse-mode derivatives of ``latent`` and ``path`` go through the solutions (implicit function
    theorem), not through the iterations.

    Args:
      images: (n, *shape) states at the process's smallest noise level, in its own coordinates. Their dtype is the
        precision of the whole computation.
      condition, guidance: see :func:`prepare`.
      solver: one of :data:`fpjax.solvers.SOLVERS`; "convex", "conjugate" and "accelerated" need a denoiser declared
        symmetric (T6).
      tol: error asked for at each step, 2-norm in y-coordinates, given the state before it (T8; see
        :func:`fpjax.solve.solve`). How steps add up is in ``error_bound``.
      limit: iterations allowed for each step.
      stop: "error", or "residual" to ask for residual <= tol only.
      layout: "lanes" (every image moves on as soon as it has converged), "scan" (all wait for the slowest), "compact"
        ("lanes", with the batch halved on the host whenever half of it has ended; for large batches, no derivatives) or
        "parallel" (all steps at once by "picard", "anderson" or "auto", see :mod:`fpjax.parallel`; no derivatives).
      order: how many earlier steps a starting point is extrapolated from, 0 (naive: y_s) to 3. Where the residual there
        is larger than the naive start's should be, that one is tried too and the better one kept.
      history: whether every state is kept in ``path``; needed for derivatives.
      depth: secant pairs kept by anderson, newton_krylov and auto; more save evaluations on hard steps and cost a
        little time and memory on each.
      records: whether each step has a record of its own. Without, every (n, steps) array of the result is (n, 1): sums of
        counts, the largest residual and error, the first exit that did not solve its step, and a bound that takes the
        largest residual at every step. With ``history=False`` too, memory does not grow with the number of steps.
      sampler: one of :data:`fpjax.samplers.SAMPLERS` on the process's levels; None for the process's own. One-step
        samplers are E1 for an effective denoiser (:mod:`fpjax.composite`); multistep ones are inverted as one system by
        sweeps (:mod:`fpjax.multistep`), which take no layout, order, history or records.

    Raises:
      FpjaxError: for bad input; see :func:`prepare`.
    """
    check_solver(solver, tol, limit, stop)
    process = process if sampler is None else with_sampler(process, sampler)
    x = stepped(prepare(den, images, condition, guidance), process)
    _check_layout(x.den, solver, layout, order)
    if not records and layout not in ("lanes", "compact"):
        raise FpjaxError(f"records=False needs the layout lanes or compact, not {layout}")
    dtype = x.z.dtype
    modulus = declared_modulus(x.den if process.table else den, process, guidance)
    levels = make_levels(process, modulus, order, dtype)
    y0 = x.z / jnp.asarray(process.scale(process.levels[0]), dtype)
    goal = make_goal(dtype, tol, limit, stop)
    if process.sampler in MULTISTEP:
        out = multistep.run(x._replace(z=y0), multistep.make_table(process, dtype), goal, solver, depth)
        computed = x.z.shape[0] * out.calls
    else:
        out, computed = _dispatch(x._replace(z=y0), levels, goal, Options(solver, layout, history, depth, records))
    s = out.solution
    calls = (1 if guidance == 1.0 else 2) * composite.stages(process)
    return Inversion(
        latent=s.y * jnp.asarray(process.scale(process.levels[-1]), dtype),
        exit=s.exit,
        residual=s.residual,
        error_bound=accumulate_error(s.residual, modulus) if records else _last_error(s.residual, modulus),
        evaluations=s.evaluations * calls,
        iterations=s.iterations,
        rate=s.rate,
        path=out.path,
        step_error=s.error,
        basis=s.basis,
        newton=s.newton,
        reason=s.reason,
        calls=out.calls,
        computed=computed,
        solver=solver,
    )


def stepped(x: Inputs, process: Process) -> Inputs:
    """The inputs with the denoiser for which the process's steps are E1: the effective one of a one-step sampler.

    A multistep sampler has none, and leaves them as they are.
    """
    if not process.table or process.sampler in MULTISTEP:
        return x
    den = composite.effective(x.den, process, x.guidance).astype(x.z.dtype)
    return x._replace(den=den, guidance=None)


def _check_layout(den: Denoiser, solver: str, layout: str, order: int) -> None:
    if layout not in LAYOUTS:
        raise FpjaxError(f"unknown layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    if not 0 <= order <= ORDERS:
        raise FpjaxError(f"order must be between 0 and {ORDERS}, got {order}")
    if solver in GRADIENT and not den.facts.symmetric:
        raise FpjaxError(f"{solver} needs a gradient denoiser (T6), and {den.name} is not declared symmetric; use auto")
    if solver == CLASSIC and layout != "scan":
        raise FpjaxError(f"{CLASSIC} makes several network calls in each iteration and has the layout scan only")
    if layout == "parallel" and solver not in ("auto", *parallel.METHODS):
        raise FpjaxError(
            f"the parallel layout has picard and anderson, not {solver}; use one of them or another layout"
        )


def _dispatch(x: Inputs, levels: Levels, goal, options: Options) -> tuple[Record, jax.Array]:
    """The record, and how many points the network was evaluated at."""
    n, steps = x.z.shape[0], levels.sigma.shape[0]
    if options.layout == "compact":
        if isinstance(x.z, Tracer):
            raise FpjaxError(
                "the compact layout gathers on the host and cannot be traced; use lanes inside jit or grad"
            )
        out, chunks = compaction.run(x, levels, goal, options)
        return out, jnp.int32(sum(batch * calls for batch, calls in chunks))
    if options.layout == "parallel":
        out = parallel.run(x, levels, goal, options)
        return out, n * steps * out.calls
    shared, batch = (x.den, x.guidance, levels, goal), (x.z, x.condition)
    out, calls, each = sharding.over_devices(lanes.share, options, shared, batch)
    return out._replace(calls=jnp.max(calls)), each * jnp.sum(calls, dtype=jnp.int32)


def make_levels(process: Process, modulus, order: int, dtype) -> Levels:
    """What each step needs, as arrays of ``dtype``; ``order`` as in :func:`invert`."""
    weights = extrapolation_weights(process.sigmas, order)
    return Levels(*(jnp.asarray(a, dtype) for a in (process.sigmas[1:], process.rho, modulus, weights)))


def declared_modulus(den: Denoiser, process: Process, guidance: float = 1.0) -> np.ndarray:
    """T2's modulus m of each step as far as the declared facts give it, shape (steps,); 0 where they do not.

    Without guidance a monotone denoiser has m >= rho. With guidance w > 1, T11 gives rho - (1 - rho)(w - 1)·Lambda.
    """
    rho = process.rho
    if not den.facts.monotone or process.sampler in MULTISTEP:
        return np.zeros_like(rho)
    if guidance == 1.0:
        return rho
    if guidance < 1.0:  # D_w is then a convex combination of D_0 and D_c
        return rho
    if den.facts.lipschitz is None:
        return np.zeros_like(rho)
    return np.maximum(guided_modulus(rho, guidance, [den.facts.lipschitz(s) for s in process.sigmas[1:]]), 0.0)


def guided_modulus(rho, guidance, lipschitz) -> np.ndarray:
    """T11: m >= rho - (1 - rho)·(w - 1)·Lambda of each step, of a monotone denoiser with guidance w >= 1 (one, or (steps,))."""
    return rho - (1 - rho) * (guidance - 1) * np.asarray(lipschitz)


def accumulate_error(residual, modulus) -> jax.Array:
    """T8 and T9 along a trajectory: e_i = (e_(i-1) + residual_i)/m_i, infinite from the first m_i = 0 on.

    Args:
      residual: (n, steps). modulus: (steps,) or (n, steps), at least 0.
    """
    residual = jnp.asarray(residual)
    return _accumulated(residual, jnp.broadcast_to(jnp.asarray(modulus, residual.dtype), residual.shape))


@jax.jit  # a scan outside jit is compiled again at every call, and the programs are kept
def _accumulated(residual, modulus):
    def add(error, x):
        error = _next_error(error, *x)
        return error, error

    _, errors = jax.lax.scan(add, jnp.zeros_like(residual[:, 0]), (residual.T, modulus.T))
    return errors.T


def _next_error(error, r, m):
    return jnp.where(m > 0, (error + r) / jnp.where(m > 0, m, jnp.ones_like(m)), jnp.inf)


def _last_error(residual, modulus) -> jax.Array:
    """:func:`accumulate_error` at the last step, (n, 1), where ``residual`` (n, 1) is the largest of all steps."""
    return _last(residual, jnp.asarray(modulus, residual.dtype))


@jax.jit
def _last(residual, modulus):
    def add(error, m):
        return _next_error(error, residual, m), None

    return jax.lax.scan(add, jnp.zeros_like(residual), modulus)[0]


def generate(
    den: Denoiser, latent, process: Process, *, condition=None, guidance: float = 1.0, sampler: str | None = None
) -> jax.Array:
    """Images (n, *shape) from latents (n, *shape), both in the process's own coordinates: E1, or the sampler, at every step.

    Raises:
      FpjaxError: for bad input; see :func:`prepare`.
    """
    process = process if sampler is None else with_sampler(process, sampler)
    x = stepped(prepare(den, latent, condition, guidance), process)
    dtype = x.z.dtype
    x = x._replace(z=x.z / jnp.asarray(process.scale(process.levels[-1]), dtype))
    scale = jnp.asarray(process.scale(process.levels[0]), dtype)
    if process.sampler in MULTISTEP:
        return _generate_multistep(x, multistep.make_table(process, dtype))[:, 0] * scale
    levels = jnp.asarray(process.sigmas[:0:-1].copy(), dtype)
    rho = jnp.asarray(process.rho[::-1].copy(), dtype)
    shared, batch = (x.den, x.guidance, levels, rho), (x.z, x.condition)
    return sharding.over_devices(_generate, None, shared, batch)[0] * scale


_generate_multistep = jax.jit(multistep.generate)


def _generate(_, shared, batch):
    den, guidance, sigmas, rhos = shared
    z, condition = batch

    def one_step(y, level):
        sigma, rho = level
        return jax.vmap(lambda v, c: F(v, Step(den, sigma, rho, v, c, guidance)))(y, condition), None

    return jax.lax.scan(one_step, z, (sigmas, rhos))[0], ()


def round_trip(
    den: Denoiser,
    images,
    process: Process,
    inversion: Inversion,
    *,
    condition=None,
    guidance: float = 1.0,
    sampler: str | None = None,
):
    """The largest difference, per image, between ``images`` and what its latent generates, shape (n,)."""
    options = {"condition": condition, "guidance": guidance, "sampler": sampler}
    again = generate(den, inversion.latent, process, **options)
    x = jnp.asarray(images, again.dtype)
    return jnp.max(jnp.abs(again - x).reshape(x.shape[0], -1), axis=1)
