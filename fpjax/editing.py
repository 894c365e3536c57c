"""Edits by inversion: the latent of an image under one condition, an image from it under another, and what is known of both.

In this room: :func:`edit` with its strength, mask and safe guidance; images of any size made to fit a model. Not in this room:
how a latent is found (trajectory) and what is known of it (findings), attention control (diffusers.attention).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from fpjax import findings
from fpjax import guidance as guiding
from fpjax.denoiser import Denoiser, check_guidance
from fpjax.evidence import Evidence, FpjaxError
from fpjax.findings import Finding
from fpjax.images import checked
from fpjax.lanes import Inputs
from fpjax.process import Process
from fpjax.step import F, Step
from fpjax.trajectory import Inversion, declared_modulus, generate, guided_modulus, invert, prepare, round_trip

GREY_LEVEL = 2 / 255  # of 8 bits, in [-1, 1]
GREY = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601), as Pillow's


@dataclasses.dataclass(frozen=True)
class Edit:
    """The outcome of :func:`edit` for n images.

    Attributes:
      images: (n, *shape), edited, in the process's own coordinates.
      latent: (n, *shape), the states that they were generated from, likewise.
      findings: what is known of each latent (:class:`fpjax.findings.Finding`); empty if nobody looked.
      back: (n,), the largest difference between an image and what its latent generates under its own condition and the
        guidance of the inversion: a known latent can give an image back badly, where its error grows on the way down.
      evaluations: (n,) network evaluations of inversion and generation (not of looking); a guided one counts 2.
      inversion: the record of the inversion. process: its levels, fewer than asked for with a strength below 1.
      weights: (steps,) guidance at each step of the generation, in inversion order.
    """

    images: jax.Array
    latent: jax.Array
    findings: tuple[Finding, ...]
    back: np.ndarray | None
    evaluations: np.ndarray
    inversion: Inversion
    process: Process
    weights: np.ndarray


def edit(
    den: Denoiser,
    images,
    process: Process,
    *,
    source=None,
    target=None,
    guidance: float = 1.0,
    inversion_guidance: float = 1.0,
    strength: float = 1.0,
    mask=None,
    safe: bool = False,
    solver: str = "auto",
    tol: float | None = None,
    limit: int = 200,
    look: bool = True,
    seed: int = 0,
) -> Edit:
    """Inverts images under ``source`` and generates again under ``target``.

    Args:
      den: the denoiser. images: (n, *shape) at the process's smallest level; their dtype is the precision.
      process: noise levels, of E1's steps.
      source, target: conditions, one for all or n of them; None for no condition.
      guidance: w of the generation. inversion_guidance: w of the inversion, which 1 leaves well posed (T11) where D_c is.
      strength: the share of the levels that are inverted, in (0, 1]: the first round(strength·steps) of them, at least 1.
      mask: (n, *shape), or an image's shape or its height and width, from 0 (kept) to 1 (edited). After each step the state is
        mask·edit + (1 - mask)·(the inversion's state at that level), so what is kept ends as it was.
      safe: invert *and* generate with ``guidance``, cut at each step to T11's limit (:func:`fpjax.guidance.safe`); the same
        image then comes back under the same condition.
      solver, tol, limit: of the inversion, see :func:`fpjax.invert`; tol is 1e-10 in float64 and 1e-6 in float32 if left out.
      look: whether to find out what is known of the latents, which costs Jacobian products where no modulus is declared.
      seed: of what looks.

    Raises:
      FpjaxError: for bad input, a strength outside (0, 1], a mask of another shape or outside [0, 1], steps that are not E1's, or
        safe guidance of a denoiser that is not declared monotone.
    """
    process.require_e1("editing")
    if not 0 < strength <= 1:
        raise FpjaxError(f"the strength of an edit must lie above 0 and be at most 1, got {strength}")
    part = shortened(process, max(1, round(strength * process.steps)))
    x = prepare(den, images, source, inversion_guidance)
    check_guidance(den, guidance, target is not None)
    weights, modulus = np.full(part.steps, guidance), declared_modulus(den, part, inversion_guidance)
    if safe:
        if inversion_guidance != 1.0:
            raise FpjaxError("safe guidance is that of the inversion too; leave inversion_guidance out")
        den, weights, modulus = _safe(den, part, guidance, x.z)
        x, guidance = prepare(den, x.z, source), 1.0
    shares = None if mask is None else _mask(mask, x.z)
    tol = findings.tolerance(x.z.dtype) if tol is None else tol
    options = {"solver": solver, "tol": tol, "limit": limit}
    inversion = invert(den, x.z, part, condition=x.condition, guidance=inversion_guidance, **options)
    if shares is None:
        made = generate(den, inversion.latent, part, condition=target, guidance=guidance)
    else:
        made = masked(prepare(den, inversion.latent, target, guidance), inversion.path, part, shares)
    found, back = (), None
    if look:
        own = {"condition": x.condition, "guidance": inversion_guidance}
        back = np.asarray(round_trip(den, x.z, part, inversion, **own), np.float64)
        found = known(x, part, inversion, modulus, back, seed)
    calls = part.steps * (1 if guidance == 1.0 else 2)
    spent = np.asarray(inversion.evaluations).sum(axis=1)
    if safe:  # both branches at every evaluation
        calls, spent = 2 * calls, 2 * spent
    return Edit(made, inversion.latent, found, back, spent + calls, inversion, part, weights)


def known(x: Inputs, process: Process, inversion: Inversion, modulus, back, seed: int = 0) -> tuple[Finding, ...]:
    """The findings of :func:`fpjax.findings.find`, whose words also say whether each latent gives its image back.

    Args:
      back: (n,), by how much it does not; see :class:`Edit`. The others: see :func:`fpjax.findings.find`.
    """
    found = findings.find(x, process, inversion, modulus, seed=seed)
    return tuple(f._replace(words=f"{f.words}; {_back(b)}") for f, b in zip(found, back, strict=True))


def shortened(process: Process, steps: int) -> Process:
    """The first ``steps`` steps of a process, from the clean end.

    Raises:
      FpjaxError: for fewer than 1 or more than there are.
    """
    if not 1 <= steps <= process.steps:
        raise FpjaxError(f"the process has {process.steps} steps, so 1 to that many can be kept, not {steps}")
    return dataclasses.replace(
        process,
        levels=process.levels[: steps + 1],
        timesteps=process.timesteps[: steps + 1],
        table=process.table[:steps],
        pure_noise=process.pure_noise and steps == process.steps,
    )


def _back(away: float) -> str:
    if away <= GREY_LEVEL:
        return f"it gives the image back to {away:.0e}"
    return f"it does not give the image back (off by {away:.1g})"


def _safe(den: Denoiser, process: Process, weight: float, images):
    """The safely guided denoiser, its weights, and the moduli that T11 gives it: 0 where Lambda was only sampled."""
    guided, limits = guiding.safe(den, process, weight, images=images)
    weights = np.asarray(guided.params["weights"], np.float64)
    m = guided_modulus(process.rho, weights, np.maximum(limits.lipschitz, 0))
    return guided, weights, m if limits.evidence is not Evidence.SAMPLED else np.zeros_like(m)


def _mask(mask, z) -> jax.Array:
    shares = np.asarray(mask, np.float64)
    if shares.shape == z.shape[-2:] or shares.shape == z.shape[1:]:
        shares = np.broadcast_to(shares, z.shape)
    if shares.shape != z.shape:
        raise FpjaxError(
            f"the mask has the shape {np.shape(mask)}; it must be {z.shape[-2:]}, {z.shape[1:]} or {z.shape}"
        )
    if not ((shares >= 0) & (shares <= 1)).all():
        raise FpjaxError("the mask must lie between 0 (kept) and 1 (edited) everywhere")
    return jnp.asarray(shares, z.dtype)


def masked(x: Inputs, path, process: Process, mask) -> jax.Array:
    """Images generated from latents x.z in the process's own coordinates, with the inversion's path kept where the mask is 0.

    Args:
      x: latents with the condition and guidance of the generation. path: (n, steps + 1, *shape) in y-coordinates.
      mask: of x.z's shape.
    """
    dtype = x.z.dtype
    levels = (jnp.asarray(process.sigmas[:0:-1].copy(), dtype), jnp.asarray(process.rho[::-1].copy(), dtype))
    x = x._replace(z=x.z / jnp.asarray(process.scale(process.levels[-1]), dtype))
    return _masked(x, path, mask, levels) * jnp.asarray(process.scale(process.levels[0]), dtype)


@jax.jit
def _masked(x: Inputs, path, mask, levels):
    def one_step(y, level):
        sigma, rho, kept = level
        made = jax.vmap(lambda v, c: F(v, Step(x.den, sigma, rho, v, c, x.guidance)))(y, x.condition)
        return mask * made + (1 - mask) * kept, None

    below = jnp.swapaxes(path, 0, 1)[-2::-1]
    return jax.lax.scan(one_step, x.z, (*levels, below))[0]


def fit(values, shape: tuple[int, ...]) -> tuple[np.ndarray, str]:
    """An image of any size as a point that a model takes, float32, and a sentence about what was done to it.

    Colours become grey where the model has one channel (and grey three equal ones where it has three), the middle of the
    model's proportions is cut out, and that is resized (bicubic, each channel alone, so 16 bits stay what they are).

    Args:
      values: (height, width) or (height, width, 3) in [-1, 1], as :func:`fpjax.images.read` gives them.
      shape: (h, w), (1, h, w) or (3, h, w).

    Raises:
      FpjaxError: for values of another shape, or a model whose points are no images.
    """
    channels = 1 if len(shape) == 2 else shape[0]
    if len(shape) not in (2, 3) or channels not in (1, 3):
        raise FpjaxError(f"image files have 1 or 3 channels, and this model takes points of shape {shape}")
    array = checked(values, np.float32)
    h, w, done = *array.shape[:2], []
    if array.ndim == 3 and channels == 1:
        array = array @ np.asarray(GREY, np.float32)
        done.append("made grey")
    planes = np.moveaxis(array, 2, 0) if array.ndim == 3 else array[None]
    if channels == 3 and len(planes) == 1:
        planes = np.repeat(planes, 3, axis=0)
        done.append("its grey put into three channels")
    wanted = shape[-2] / shape[-1]
    inner = min(h, round(w * wanted)), min(w, round(h / wanted))
    inner = max(inner[0], 1), max(inner[1], 1)
    if inner != (h, w):
        top, left = (h - inner[0]) // 2, (w - inner[1]) // 2
        planes = planes[:, top : top + inner[0], left : left + inner[1]]
        done.append(f"its middle {inner[1]}×{inner[0]} taken")
    if inner != tuple(shape[-2:]):
        size = (shape[-1], shape[-2])
        planes = np.stack([np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p in planes])
        done.append(f"resized to {size[0]}×{size[1]}")
    return np.clip(planes, -1, 1).reshape(shape), f"{w}×{h}: {', '.join(done) if done else 'taken as it is'}"


def shown(point) -> np.ndarray:
    """A point (h, w), (1, h, w) or (3, h, w) as an image (h, w) or (h, w, 3), clipped to [-1, 1]."""
    array = np.clip(np.asarray(point, np.float64), -1, 1)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, 2)
    return array
