"""AutoencoderKL: pixels to the latents that a latent model is audited on, and back."""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp

from fpjax.denoiser import cast
from fpjax.diffusers import bridge, folder
from fpjax.evidence import FpjaxError


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """The two halves of an AutoencoderKL as pure functions; images (n, channels, h, w) in [-1, 1].

    Latents are in the units that the denoising network sees: (mean - shift)·scale.

    Attributes:
      params: tensors. encoder, decoder: pure functions of them. scale, shift: of the configuration.
      channels: of an image. factor: image pixels to a latent pixel, along each side.
    """

    params: dict[str, jax.Array]
    encoder: bridge.Function
    decoder: bridge.Function
    scale: float
    shift: float
    channels: int
    factor: int

    def encode(self, images) -> jax.Array:
        """The mean latents (n, ·, h/factor, w/factor) of images; nothing is sampled.

        Raises:
          FpjaxError: for another shape.
        """
        images = jnp.asarray(images)
        if images.ndim != 4 or images.shape[1] != self.channels or any(n % self.factor for n in images.shape[2:]):
            raise FpjaxError(
                f"the autoencoder takes images of shape (n, {self.channels}, h, w) with sides divisible by {self.factor}, "
                f"got {images.shape}"
            )
        return (_run(self.encoder, self.params, images) - self.shift) * self.scale

    def decode(self, latents) -> jax.Array:
        """Images (n, channels, h, w) of latents; not clipped."""
        return _run(self.decoder, self.params, jnp.asarray(latents) / self.scale + self.shift)


@functools.partial(jax.jit, static_argnums=0)
def _run(function: bridge.Function, params, x):
    return function(cast(params, x.dtype), x=x)


def load(path: Path) -> Autoencoder:
    """The autoencoder of a folder: an AutoencoderKL's own, or a pipeline's part "vae".

    Raises:
      FpjaxError: if there is none, or it is damaged; see :mod:`fpjax.diffusers.folder`.
    """
    path = path / "vae" if (path / "vae").is_dir() else path
    part = folder.read_part(path)
    if part.kind != "AutoencoderKL":
        raise FpjaxError(f"{path} is a {part.kind}, not an AutoencoderKL")
    torch = bridge.need("torch", f"the autoencoder of {path}")
    vae = bridge.build(part)

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.vae = vae

        def forward(self, x):
            return self.vae.encode(x).latent_dist.mean

    class Decoder(Encoder):
        def forward(self, x):
            return self.vae.decode(x, return_dict=False)[0]

    encoder, decoder = Encoder().eval(), Decoder().eval()
    return Autoencoder(
        bridge.extract(encoder),
        bridge.Function(encoder),
        bridge.Function(decoder),
        float(part.config.get("scaling_factor", 0.18215)),
        float(part.config.get("shift_factor") or 0.0),
        int(part.config.get("in_channels", 3)),
        2 ** (len(part.config.get("block_out_channels", (64,))) - 1),
    )
