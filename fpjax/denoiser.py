"""The Denoiser record: D(y, sigma) of THEORY section 0 as a pure function with its parameters.

In this room: the record, conversions from what networks predict to D, classifier-free guidance.
Not in this room: how networks look (models/), which noise levels there are (process).
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from fpjax.evidence import FpjaxError

PREDICTS = ("x0", "eps", "v", "velocity", "score")


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the author of a denoiser declares about J_D; every entry is ASSUMED until something checks it.

    Attributes:
      symmetric: J_D(y, sigma) is symmetric, that is D is a gradient.
      monotone: the symmetric part of J_D is positive semidefinite everywhere (T2 then gives m >= rho).
      bounded: D(y) = c·y + B(y) with c >= 0 and B bounded (T1: a solution exists whenever rho > 0).
      lipschitz: ``lipschitz(sigma)``, a bound Lambda on ||J_D(y, sigma)|| at every y, or None; hashable.
      source: why this is believed.
    """

    symmetric: bool = False
    monotone: bool = False
    bounded: bool = False
    lipschitz: Callable | None = None
    source: str = ""


def cast(params, dtype):
    """The same pytree with its floating-point leaves cast to ``dtype``."""

    def one(leaf):
        leaf = jnp.asarray(leaf)
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, params)


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """A denoiser for one point: D(y, sigma) ≈ E[x0 | x0 + sigma·n = y].

    A Denoiser is a pytree whose leaves are ``params``, so it passes through jit as an argument and one shape compiles
    once. ``fn`` should be a top-level function (or hash like one). Inside jit (and in the result of ``jax.tree.map``)
    ``name``, ``jacobian`` and the bound and source among the facts are left behind: they would make every model with
    other numbers compile again.

    Attributes:
      params: pytree of arrays.
      fn: ``fn(params, y, sigma, condition)`` with y of ``shape``, sigma a scalar and condition an int32 scalar from 0 to
        ``len(conditions)``, where the last means "no condition".
      shape: the shape of one point.
      predicts: what ``fn`` returns: "x0" (D itself), "eps", "v", "velocity" or "score".
      conditions: names of the conditions; empty for an unconditional denoiser.
      facts: declared properties.
      jacobian: ``jacobian(params, y, sigma, condition)``, the closed-form (d, d) Jacobian of D, or None.
      name: for reports.
    """

    params: Any
    fn: Callable
    shape: tuple[int, ...]
    predicts: str = "x0"
    conditions: tuple[str, ...] = ()
    facts: Facts = Facts()
    jacobian: Callable | None = None
    name: str = "user"

    @classmethod
    def from_function(
        cls,
        fn: Callable,
        params: Any = (),
        shape: tuple[int, ...] = (),
        *,
        predicts: str = "x0",
        conditions: tuple[str, ...] = (),
        facts: Facts | None = None,
        name: str = "user",
    ) -> "Denoiser":
        """A denoiser from a user's own ``fn(params, y, sigma, condition)``.

        ``fn`` sees the scaled state y of THEORY section 0 (noise of standard deviation sigma on a clean image).

        Raises:
          FpjaxError: if ``predicts`` is unknown, or ``fn`` fails or returns another shape than ``shape``.
        """
        if predicts not in PREDICTS:
            raise FpjaxError(f"unknown prediction type {predicts!r}; choose one of {', '.join(PREDICTS)}")
        shape = tuple(int(n) for n in shape)
        den = cls(params, fn, shape, predicts, tuple(conditions), facts or Facts(), None, name)
        y = jax.ShapeDtypeStruct(shape, jnp.float32)
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        index = jax.ShapeDtypeStruct((), jnp.int32)
        try:
            out = jax.eval_shape(lambda *x: fn(cast(params, jnp.float32), *x), y, scalar, index)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise FpjaxError(
                f"the denoiser function failed on a point of shape {shape}: {reason}; "
                "it must accept (params, y, sigma, condition)"
            ) from error
        if getattr(out, "shape", None) != shape:
            raise FpjaxError(
                f"the denoiser function returns shape {getattr(out, 'shape', None)} for a point of shape {shape}; "
                "it must return one array of the same shape"
            )
        return den

    @property
    def size(self) -> int:
        """The number of values in one point, d."""
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def null(self) -> int:
        """The index that means "no condition"."""
        return len(self.conditions)

    def astype(self, dtype) -> "Denoiser":
        """The same denoiser with floating-point parameters cast to ``dtype``."""
        return dataclasses.replace(self, params=cast(self.params, dtype))

    def index(self, condition) -> int:
        """The index of one condition given as None, an index, or a name.

        Raises:
          FpjaxError: if there is no such condition.
        """
        if condition is None:
            return self.null
        if isinstance(condition, str):
            if condition in self.conditions:
                return self.conditions.index(condition)
            raise FpjaxError(f"unknown condition {condition!r}; {self._choices()}")
        try:
            value = int(condition)
        except (TypeError, ValueError, OverflowError):
            value = -1
        if value != condition or not 0 <= value <= self.null:
            raise FpjaxError(f"unknown condition {condition!r}; {self._choices()}")
        return value

    def _choices(self) -> str:
        if not self.conditions:
            return "this model has no conditions, so leave it out"
        return f"this model knows {', '.join(self.conditions)} (indices 0 to {self.null - 1})"

    def __call__(self, y, sigma, condition=None, guidance: float = 1.0) -> jax.Array:
        """D_w(y, sigma) at one point y of shape ``shape``; see :func:`evaluate`.

        Raises:
          FpjaxError: for a wrong shape, an unknown condition, or guidance without a condition.
        """
        y = jnp.asarray(y)
        if y.shape != self.shape:
            raise FpjaxError(f"expected one point of shape {self.shape}, got shape {y.shape}; use jax.vmap for batches")
        if not jnp.issubdtype(y.dtype, jnp.floating):
            y = y.astype(jnp.result_type(float))
        check_guidance(self, guidance, condition is not None)
        c = jnp.asarray(self.index(condition), jnp.int32)
        w = None if guidance == 1.0 else jnp.asarray(guidance, y.dtype)
        return _evaluate(self.astype(y.dtype), y, jnp.asarray(sigma, y.dtype), c, w)


def _flatten(den: Denoiser):
    facts = dataclasses.replace(den.facts, lipschitz=None, source="")
    return (den.params,), (den.fn, den.shape, den.predicts, den.conditions, facts)


def _unflatten(static, children) -> Denoiser:
    fn, shape, predicts, conditions, facts = static
    return Denoiser(children[0], fn, shape, predicts, conditions, facts)


jax.tree_util.register_pytree_node(Denoiser, _flatten, _unflatten)


def check_guidance(den: Denoiser, guidance: float, has_condition: bool) -> None:
    """Guidance needs something to guide towards.

    Raises:
      FpjaxError: if guidance is not finite, is below 0, or differs from 1 without a condition.
    """
    if not (0 <= guidance < float("inf")):
        raise FpjaxError(f"guidance must be a finite number, at least 0, got {guidance}")
    if guidance != 1.0 and not den.conditions:
        raise FpjaxError(
            f"guidance {guidance} needs a conditional model, but {den.name} is unconditional; use guidance 1"
        )
    if guidance != 1.0 and not has_condition:
        raise FpjaxError(f"guidance {guidance} needs a condition; give one or use guidance 1")


def predict(den: Denoiser, y, sigma, condition) -> jax.Array:
    """D(y, sigma) under one condition index; no checks, safe inside jit."""
    return to_x0(den.predicts, den.fn(den.params, y, sigma, condition), y, sigma)


def evaluate(den: Denoiser, y, sigma, condition, guidance=None) -> jax.Array:
    """Classifier-free guidance (T11): D_w = D_0 + w·(D_c - D_0); ``guidance`` None means D_c alone.

    D_0 is the denoiser without a condition. Costs one network evaluation with guidance None and two otherwise.
    """
    conditional = predict(den, y, sigma, condition)
    if guidance is None:
        return conditional
    null = predict(den, y, sigma, jnp.full_like(condition, den.null))
    return null + guidance * (conditional - null)


_evaluate = jax.jit(evaluate)


def to_x0(predicts: str, output, y, sigma):
    """D from what a network predicts at the scaled state y (THEORY section 0, table).

    "eps" and "v" are those of a variance-preserving process, "velocity" is n - x0 of a rectified flow, "score" is the
    gradient of the log-density of y.
    """
    if predicts == "x0":
        return output
    if predicts == "eps":
        return y - sigma * output
    if predicts == "v":
        return y / (1 + sigma**2) - sigma / (1 + sigma**2) ** 0.5 * output
    if predicts == "velocity":
        return (y - sigma * output) / (1 + sigma)
    return y + sigma**2 * output


def from_x0(predicts: str, x0, y, sigma):
    """The inverse of :func:`to_x0` for sigma > 0: what a network of that kind predicts where D is x0."""
    if predicts == "x0":
        return x0
    if predicts == "eps":
        return (y - x0) / sigma
    if predicts == "v":
        return (y / (1 + sigma**2) - x0) * (1 + sigma**2) ** 0.5 / sigma
    if predicts == "velocity":
        return (y - (1 + sigma) * x0) / sigma
    return (x0 - y) / sigma**2
