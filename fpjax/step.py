"""E1 and E2: one denoising step F, and the fixed-point map G whose fixed points invert it.

Both take ``(y, params)`` with params a :class:`Step`, so that data is never closed over.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fpjax.denoiser import Denoiser, cast, evaluate
from fpjax.evidence import FpjaxError
from fpjax.process import Process


class Step(NamedTuple):
    """What one inversion step depends on, for one image.

    Attributes:
      den: the denoiser.
      sigma: sigma_t, the noisier level, where the denoiser is evaluated.
      rho: sigma_s / sigma_t in [0, 1).
      target: y_s, the state whose preimage is sought.
      condition: int32 index.
      guidance: scalar w, or None for D_c alone.
    """

    den: Denoiser
    sigma: jax.Array
    rho: jax.Array
    target: jax.Array
    condition: jax.Array
    guidance: jax.Array | None = None


def denoised(y, p: Step) -> jax.Array:
    """D_w(y, sigma_t)."""
    return evaluate(p.den, y, p.sigma, p.condition, p.guidance)


def F(y, p: Step) -> jax.Array:
    """E1: the step from sigma_t down to sigma_s, rho·y + (1 - rho)·D(y, sigma_t)."""
    return p.rho * y + (1 - p.rho) * denoised(y, p)


def G(y, p: Step) -> jax.Array:
    """E2: y_s + (1 - rho)·(y - D(y, sigma_t)); G(y) - y = y_s - F(y)."""
    return p.target + (1 - p.rho) * (y - denoised(y, p))


class UserStep(NamedTuple):
    """A user's own step (or steps, leading axis of ``params``) as a denoiser's parameters; see :func:`from_function`."""

    fn: Any
    params: Any
    sigma: jax.Array
    rho: jax.Array


def from_function(
    fn: Callable, params: Any = (), shape: tuple[int, ...] = (), *, steps: int = 1, name: str = "user step"
) -> tuple[Denoiser, Process]:
    """A step of your own, y_s = fn(y, params), as a denoiser and a process: audit, invert and generate take them.

    F = fn is written as E1, F(y) = rho·y + (1 - rho)·D~(y) with D~(y) = (fn(y, params) - rho·y)/(1 - rho). Neither G nor
    m, kappa and the errors depend on rho, which is 1/2 here: G(y) = y + y_s - fn(y, params) and J_F = fn's Jacobian.

    Args:
      fn: a top-level function (y, params) -> y_s of y's shape, deterministic.
      params: pytree of arrays. With ``steps`` > 1 every leaf has a leading axis of steps, **in inversion order**: step 0
        is the last one that generation takes.
      shape: of y.
      steps: the number of steps.
      name: for reports.

    Returns:
      (denoiser, process), the process with levels 1, 2, 4 … as labels and the identity as scaling.

    Raises:
      FpjaxError: if fn fails, returns another shape, or a leaf lacks its axis of steps.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise FpjaxError(f"steps must be a whole number, at least 1, got {steps!r}")
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    if steps > 1 and any(leaf.ndim == 0 or leaf.shape[0] != steps for leaf in leaves):
        raise FpjaxError(f"with {steps} steps every leaf of params needs a leading axis of {steps}")
    stacked = params if steps > 1 else jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], params)
    levels = tuple(2.0**i for i in range(steps + 1))
    shape = tuple(int(n) for n in shape)
    first = jax.tree.map(lambda leaf: leaf[0], cast(stacked, jnp.float32))
    try:
        out = jax.eval_shape(fn, jax.ShapeDtypeStruct(shape, jnp.float32), first)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FpjaxError(
            f"the step failed on a state of shape {shape}: {reason}; it must accept (y, params)"
        ) from error
    if getattr(out, "shape", None) != shape:
        raise FpjaxError(f"the step returns shape {getattr(out, 'shape', None)} for a state of shape {shape}")
    inside = UserStep(jax.tree_util.Partial(fn), stacked, jnp.asarray(levels[1:]), jnp.asarray(0.5))
    return Denoiser(inside, _user_step, shape, name=name), Process("edm", levels, levels, (("steps of", name),))


def _user_step(p: UserStep, y, sigma, condition):
    i = jnp.argmin(jnp.abs(p.sigma - sigma))
    image = p.fn(y, jax.tree.map(lambda leaf: leaf[i], p.params))
    return (image - p.rho * y) / (1 - p.rho)
