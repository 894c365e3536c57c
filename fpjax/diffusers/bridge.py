"""torch modules as pure JAX functions, by torchax. Everything of fpjax that needs torch goes through here.

torch, torchax, diffusers and transformers come with the extra ``fpjax[diffusers]`` and are imported when first needed.
In this room: building a module from a part of a checkpoint (its class looked up in diffusers, its weights read by
:mod:`fpjax.diffusers.folder`, so that nothing is unpickled), and turning it into a function. Not in this room: what a
network's arguments mean (families).
"""

import contextlib
import dataclasses
import functools
import importlib
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.diffusers import folder
from fpjax.diffusers.folder import Part
from fpjax.evidence import FpjaxError
from fpjax.models.unet import channels_last

EXTRA = "pip install 'fpjax[diffusers]'"


@contextlib.contextmanager
def quiet():
    """Other people's import warnings and loose promotion, kept from a user's strict settings."""
    with (
        warnings.catch_warnings(),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        warnings.simplefilter("ignore")
        yield


def need(name: str, why: str):
    """The module ``name`` of the extra.

    Raises:
      FpjaxError: saying which extra to install, where it is missing, or does not fit another module (torchax is written
        for one version of torch, and with a later one its import ends in an AttributeError).
    """
    try:
        with quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise FpjaxError(f"{why} needs {name.partition('.')[0]}, which is not installed; {EXTRA}") from error
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise FpjaxError(
            f"{why} needs {name}, which cannot be imported here ({told}); in a new environment, {EXTRA}"
        ) from error


def build(part: Part):
    """The torch module of a part, in eval mode, with its weights; float32.

    Raises:
      FpjaxError: if its class is not diffusers', its configuration describes no module, or its weights do not fit.
    """
    torch, diffusers = need("torch", f"{part.kind} of {part.path}"), need("diffusers", f"{part.kind} of {part.path}")
    tensors = folder.read_tensors(part.path)
    kind = getattr(diffusers, part.kind, None)
    if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        raise FpjaxError(f"{part.path} is a {part.kind}, which diffusers {diffusers.__version__} does not have")
    try:
        with quiet():
            module: Any = kind.from_config(part.config)
    except Exception as error:
        raise FpjaxError(f"config.json of {part.path} describes no {part.kind} ({first_line(error)})") from error
    wanted = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    folder.compare(part.path, wanted, tensors)
    module.load_state_dict({name: torch.from_numpy(np.array(t)) for name, t in tensors.items()}, assign=True)
    return module.eval().requires_grad_(False)


def first_line(error: BaseException) -> str:
    """What an exception says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _on_arrays(env, function):
    """A function of torch tensors from one of arrays."""

    @functools.wraps(function)
    def wrapped(*args, **kwargs):
        args, kwargs = env.t2j_iso((args, kwargs))
        return env.j2t_iso(function(*args, **kwargs))

    return wrapped


def _last(x):
    """x (n, channels, h, w) with its channels last."""
    return jnp.moveaxis(x, 1, -1)


def _first(x):
    return jnp.moveaxis(x, -1, 1)


@functools.cache
def environment():
    """torchax's translation of torch to JAX, but for what a network of images is made of, which is computed channels last.

    Convolutions are many times faster so where a ``while`` or a ``scan`` calls them, and between two of them the transposes
    cancel as long as everything in between keeps to the order: normalisation by groups (torchax's is a loop over images),
    activations, sums, concatenations and upsampling.
    """
    torch, tensor = need("torch", "the bridge"), need("torchax.tensor", "the bridge")
    jaten, jtorch = need("torchax.ops.jaten", "the bridge"), need("torchax.ops.jtorch", "the bridge")
    env = tensor.Environment()

    def image(x) -> bool:
        return getattr(x, "ndim", 0) == 4

    def convolution(x, kernel, bias, stride, padding, dilation, transposed, output_padding, groups):
        if transposed or not image(x) or len(padding) != 2:
            return jaten._aten_convolution(
                x, kernel, bias, stride, padding, dilation, transposed, output_padding, groups
            )
        pads = [(p, p) for p in padding]
        return _first(channels_last(_last(x), kernel, bias, tuple(stride), pads, tuple(dilation), groups))

    def conv2d(x, kernel, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
        return convolution(x, kernel, bias, stride, padding, dilation, False, (0, 0), groups)

    def group_norm(x, weight, bias, count, channels, size, groups, eps):
        inside = jnp.moveaxis(x, 1, -1).reshape(count, size, groups, channels // groups)
        mean = jnp.mean(inside, axis=(1, 3), keepdims=True)
        scale = jax.lax.rsqrt(jnp.mean((inside - mean) ** 2, axis=(1, 3), keepdims=True) + eps)
        out = ((inside - mean) * scale).reshape(count, *x.shape[2:], channels)
        wide = (1,) * (out.ndim - 1) + (channels,)
        out = out if weight is None else out * weight.reshape(wide)
        out = out if bias is None else out + bias.reshape(wide)
        return _first(out), mean[:, 0, :, 0], scale[:, 0, :, 0]

    def silu(x):
        return _first(jax.nn.silu(_last(x))) if image(x) else jax.nn.silu(x)

    def add(x, y, *, alpha=1):
        y = y if alpha == 1 else y * alpha
        return _first(_last(x) + _last(y)) if image(x) and image(y) else x + y

    def cat(parts, dim=0):
        if dim == 1 and all(image(x) for x in parts):
            return _first(jnp.concatenate([_last(x) for x in parts], axis=-1))
        return jnp.concatenate([x for x in parts if x.shape != (0,)], axis=dim)

    def pad(x, widths, mode="constant", value=None):
        if not image(x) or len(widths) != 4 or mode != "constant":
            return jtorch.pad(x, widths, mode, value)
        left, right, above, below = widths
        wide = ((0, 0), (above, below), (left, right), (0, 0))
        return _first(jnp.pad(_last(x), wide, constant_values=value or 0))

    def nearest(x, output_size, scale_factors=(), *_):
        size = output_size or [int(n * s) for n, s in zip(x.shape[2:], scale_factors, strict=True)]
        x = _last(x)
        for axis, n in zip((1, 2), size, strict=True):
            if n % x.shape[axis] == 0:
                x = jnp.repeat(x, n // x.shape[axis], axis=axis)
            else:
                x = jnp.take(x, jnp.arange(n) * x.shape[axis] // n, axis=axis)
        return _first(x)

    aten = torch.ops.aten
    ours = {
        aten.convolution: convolution,
        aten.conv2d: conv2d,
        aten.native_group_norm: group_norm,
        aten.silu: silu,
        aten.add.Tensor: add,
        aten.cat: cat,
        torch.nn.functional.pad: pad,
        aten.upsample_nearest2d.vec: nearest,
    }
    for name, function in ours.items():
        env.override_op_definition(name, _on_arrays(env, function))
    return env


@dataclasses.dataclass(frozen=True, eq=False)
class Function:
    """A torch module in eval mode as a pure JAX function of its tensors; hashes by identity."""

    module: Any

    def __call__(self, params: dict[str, jax.Array], /, **arguments):
        """What the module returns, for arrays and pytrees of arrays as keywords."""
        torch = need("torch", "the bridge")
        with quiet():
            env = environment()
            tensors, given = env.j2t_iso((dict(params), arguments))
            with env:
                return env.t2j_iso(torch.func.functional_call(self.module, tensors, (), given))


def extract(module) -> dict[str, jax.Array]:
    """The tensors of a module, parameters and buffers, as JAX arrays."""
    named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: jnp.asarray(np.asarray(t.detach().cpu().numpy())) for name, t in named.items()}
