"""A convolutional denoiser for any image size, with random weights: for tests of memory and cost, not of quality.

A residual stack of 3×3 convolutions under the preconditioning of Karras et al. 2022, as one pure function.
"""

import jax
import jax.numpy as jnp

from fpjax.denoiser import Denoiser

DATA_STD = 0.5


def _convolve(x, kernel):
    """x (channels, h, w) with kernel (out, in, 3, 3), same size, periodic so that no border is special."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1)), mode="wrap")
    return jax.lax.conv_general_dilated(padded[None], kernel, (1, 1), "VALID")[0]


def denoise(params, y, sigma, condition):
    """D(y, sigma) = c_skip·y + c_out·network(c_in·y, ln(sigma)/4) for y (channels, h, w); ``condition`` is not used."""
    total = sigma**2 + DATA_STD**2
    h = _convolve(y / jnp.sqrt(total), params["enter"])
    level = jnp.log(sigma) / 4
    for kernel, shift in zip(params["blocks"], params["shifts"], strict=True):
        h = h + jnp.tanh(_convolve(h, kernel) + (level * shift)[:, None, None])
    out = _convolve(h, params["leave"])
    return DATA_STD**2 / total * y + sigma * DATA_STD / jnp.sqrt(total) * out


def convolutional(
    shape: tuple[int, int, int] = (3, 512, 512), *, width: int = 8, depth: int = 2, gain: float = 0.5, seed: int = 0
) -> Denoiser:
    """A denoiser of images ``shape`` = (channels, h, w) with random float32 weights.

    Args:
      width: hidden channels. depth: residual blocks. gain: of each kernel, relative to variance-preserving weights.
      seed: of the weights.
    """
    keys = jax.random.split(jax.random.key(seed), depth + 3)

    def kernel(key, out: int, into: int):
        return gain * jax.random.normal(key, (out, into, 3, 3), jnp.float32) / (9 * into) ** 0.5

    params = {
        "enter": kernel(keys[0], width, shape[0]),
        "blocks": [kernel(k, width, width) for k in keys[3:]],
        "shifts": [0.1 * jax.random.normal(keys[2], (width,), jnp.float32)] * depth,
        "leave": kernel(keys[1], shape[0], width),
    }
    return Denoiser.from_function(denoise, params, shape, name="convolutional")
