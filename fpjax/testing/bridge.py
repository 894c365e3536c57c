"""A plain PyTorch function as a Denoiser: PyTorch evaluates it, and its products with J come from torch.func.

torch is imported when :func:`from_torch` is called; it is not a dependency of fpjax. **This is a bridge for tests**: each
evaluation leaves the compiled program and runs eagerly in PyTorch, a point at a time, on the CPU.
"""

import dataclasses
import functools
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from fpjax.denoiser import Denoiser, Facts
from fpjax.evidence import FpjaxError


def _torch():
    """The module torch, imported when it is needed.

    Raises:
      FpjaxError: if it is not installed.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise FpjaxError("from_torch needs PyTorch; install it by: pip install torch") from error


@dataclasses.dataclass(frozen=True)
class TorchFunction:
    """fn(y, sigma, condition) of PyTorch as a JAX function (params, y, sigma, condition); hashes like fn.

    The JAX function is differentiable once: products J v and J^T u with the derivatives in y and sigma.
    """

    fn: Callable
    shape: tuple[int, ...]

    def __call__(self, params: Any, y, sigma, condition):
        """The value at one point."""
        return _evaluate(self, y, jnp.asarray(sigma, y.dtype), jnp.asarray(condition, jnp.int32))

    def value(self, y, sigma, condition):
        """fn on tensors, detached from any graph."""
        with _torch().no_grad():
            return self.fn(y, sigma, condition)

    def push(self, y, sigma, condition, v, s):
        """J v + s·dfn/dsigma."""
        return _torch().func.jvp(lambda a, b: self.fn(a, b, condition), (y, sigma), (v, s))[1]

    def pull(self, y, sigma, condition, u):
        """J^T u."""
        return _torch().func.vjp(lambda a: self.fn(a, sigma, condition), y)[1](u)[0]


def _each(function: Callable, cores: tuple[int, ...], *arrays):
    """Applies a torch function to every point of a batch of numpy arrays; ``cores`` is how many axes one point has."""
    torch = _torch()
    tensors = [torch.from_numpy(np.array(a)) for a in arrays]  # copied: PyTorch may not write into JAX's memory
    lead = tensors[0].shape[: tensors[0].ndim - cores[0]]
    flat = [t.reshape(-1, *t.shape[t.ndim - c :]) for t, c in zip(tensors, cores, strict=True)]
    out = [function(*point) for point in zip(*flat, strict=True)]
    return torch.stack(out).detach().reshape(*lead, *out[0].shape).numpy()


def _callback(function: Callable, cores: tuple[int, ...], result, *arrays):
    return jax.pure_callback(lambda *a: _each(function, cores, *a), result, *arrays, vmap_method="broadcast_all")


def _like(y):
    return jax.ShapeDtypeStruct(y.shape, y.dtype)


@jax.custom_jvp
def _once(y):
    """y itself; fails where a derivative of a derivative is asked for, which the bridge would get wrong."""
    return y


@_once.defjvp
def _(primals, tangents):
    raise FpjaxError(
        "a PyTorch function behind from_torch can be differentiated once, not twice; port it to JAX for this"
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _evaluate(f: TorchFunction, y, sigma, condition):
    return _callback(f.value, (len(f.shape), 0, 0), _like(y), y, sigma, condition)


@functools.partial(_evaluate.defjvp, symbolic_zeros=True)
def _(f: TorchFunction, primals, tangents):
    y, sigma, condition = primals
    v, s, _ = tangents
    out = jnp.zeros_like(y)
    if not isinstance(v, SymbolicZero):
        out = out + _product(f, _once(y), _once(sigma), condition, v)
    if not isinstance(s, SymbolicZero):
        n = len(f.shape)
        along = (_once(y), _once(sigma), condition, jnp.zeros_like(y), jnp.ones_like(sigma))
        out = out + s * _callback(f.push, (n, 0, 0, n, 0), _like(y), *along)
    return _evaluate(f, y, sigma, condition), out


def _product(f: TorchFunction, y, sigma, condition, v):
    """J v, with J^T u as its transpose.

    ``custom_linear_solve`` is the one linear map of JAX that may be defined by two functions and still be batched and
    transposed; its ``matvec`` would be needed for second derivatives only, which :func:`_once` refuses.
    """
    n = len(f.shape)

    def push(_, v):
        return _callback(f.push, (n, 0, 0, n, 0), _like(y), y, sigma, condition, v, jnp.zeros_like(sigma))

    def pull(_, u):
        return _callback(f.pull, (n, 0, 0, n), _like(y), y, sigma, condition, u)

    return jax.lax.custom_linear_solve(lambda x: x, v, push, transpose_solve=pull)


def from_torch(
    fn: Callable,
    shape: tuple[int, ...],
    *,
    predicts: str = "x0",
    conditions: tuple[str, ...] = (),
    facts: Facts | None = None,
    name: str = "torch",
) -> Denoiser:
    """A denoiser from a plain PyTorch function, for the assertions of this package.

    Args:
      fn: ``fn(y, sigma, condition)`` on CPU tensors: y one point of ``shape``, sigma a scalar and condition an int32
        scalar (``len(conditions)`` means none). It returns a tensor like y, of y's dtype, and must be differentiable by
        ``torch.func.jvp`` and ``vjp``. Put the module into ``eval()`` mode: dropout is not a function.
      shape, predicts, conditions, facts, name: as in :meth:`fpjax.Denoiser.from_function`.

    Raises:
      FpjaxError: if torch is missing, or fn or one of its products fails or returns another shape or dtype.
    """
    torch = _torch()
    shape = tuple(int(n) for n in shape)
    f = TorchFunction(fn, shape)
    dtype = torch.float64 if jax.config.jax_enable_x64 else torch.float32  # pyright: ignore[reportAttributeAccessIssue]
    y, sigma = torch.zeros(shape, dtype=dtype), torch.ones((), dtype=dtype)
    index = torch.tensor(len(conditions), dtype=torch.int32)
    try:
        out = f.value(y, sigma, index)
        f.push(y, sigma, index, torch.ones_like(y), torch.zeros_like(sigma))
        f.pull(y, sigma, index, torch.ones_like(y))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FpjaxError(
            f"the PyTorch function failed on a point of shape {shape} and dtype {dtype}: {reason}; it must accept "
            "(y, sigma, condition) and be differentiable by torch.func"
        ) from error
    if not isinstance(out, torch.Tensor) or tuple(out.shape) != shape or out.dtype != dtype:
        raise FpjaxError(
            f"the PyTorch function returns {getattr(out, 'dtype', type(out).__name__)} of shape "
            f"{tuple(getattr(out, 'shape', ()))} for a point of {dtype} and shape {shape}; it must return a tensor like y"
        )
    return Denoiser.from_function(f, (), shape, predicts=predicts, conditions=conditions, facts=facts, name=name)
