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


@functools.cache
def environment():
    """torchax's translation of torch to JAX, but for convolutions of images, which are computed channels last."""
    torch, tensor = need("torch", "the bridge"), need("torchax.tensor", "the bridge")
    jaten = need("torchax.ops.jaten", "the bridge")
    env = tensor.Environment()

    def convolution(x, kernel, bias, stride, padding, dilation, transposed, output_padding, groups):
        x, kernel, bias = env.t2j_iso((x, kernel, bias))
        if transposed or x.ndim != 4 or len(padding) != 2:
            rest = (stride, padding, dilation, transposed, output_padding, groups)
            return env.j2t_iso(jaten._aten_convolution(x, kernel, bias, *rest))
        out = channels_last(x, kernel, tuple(stride), [(p, p) for p in padding], tuple(dilation), groups)
        return env.j2t_iso(out if bias is None else out + bias[:, None, None])

    def conv2d(x, kernel, bias=None, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1):
        return convolution(x, kernel, bias, stride, padding, dilation, False, (0, 0), groups)

    env.override_op_definition(torch.ops.aten.convolution, convolution)
    env.override_op_definition(torch.ops.aten.conv2d, conv2d)
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
