"""Taking haze away: invert under the condition of the haze, generate under "clear", and let the haze model carry it over.

In this room: how much haze there is, by evidence; the inversion at a coarse size; t and A from its outcome; the full photograph.
Not in this room: the haze model itself and the classical way (haze), training (models.recipes), other restorations (restoration).

The network (``haze-monotone``) is a mixture of 16×16 patches. On a photograph made so small that a patch sees a good part of it,
inverting under one degree of haze and generating under "clear" moves contrast and brightness as a whole. The coarse pair is
explained by I = J·t + A·(1 - t) with a smooth t and one A (least squares), and J = (I - A)/t + A is taken at full size: no
detail is invented, and memory is that of the photograph.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import haze, images, process
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.models import mixture, patches, priors, store
from fpjax.trajectory import Inversion, generate, invert

CLEAR = "clear"
SIDE = 48  # pixels of the coarse photograph's shorter side
LONGEST = 4  # times the shorter side
SIGMAS = 0.05, 60.0  # of the process, in y-coordinates
WINDOW, ROUNDS = 9, 5  # of the fit: pixels over which t is smooth, and how often t and A take turns
LEAST = 0.1  # t is not taken to be smaller


@dataclasses.dataclass(frozen=True)
class Dehazed:
    """The outcome of :func:`dehaze`.

    Attributes:
      image: J, of the shape of the input, float32 in [-1, 1].
      t: the transmission (h, w). airlight: A, (3,).
      degree: the condition that was inverted under. evidence: by condition, ln p(coarse patch | condition) in the mean, less
        the largest.
      inversion: the record of inverting the coarse photograph (:class:`fpjax.Inversion`).
      evaluations: of the network, in all. verdict: what is known of the latent, in a sentence.
    """

    image: np.ndarray
    t: np.ndarray
    airlight: np.ndarray
    degree: str
    evidence: dict[str, float]
    inversion: Inversion
    evaluations: int
    verdict: str


def dehaze(
    image,
    model: str | Denoiser = "haze-monotone",
    *,
    degree: str | None = None,
    strength: float = 1.0,
    guidance: float = 1.0,
    steps: int = 10,
    side: int = SIDE,
    tol: float = 1e-2,
) -> Dehazed:
    """A photograph without its haze.

    Args:
      image: (h, w) or (h, w, 3) in [-1, 1], sides of at least 16 pixels.
      model: a mixture of patches with the condition "clear" and one or more degrees of haze.
      degree: the condition to invert under; by default that with the largest evidence.
      strength: how far the noise level of the latent goes, in (0, 1]: less keeps more of the photograph's own brightness.
      guidance: classifier-free guidance towards "clear" while generating; inverting is without, so T2 holds.
      steps: of the process. side: of the coarse photograph. tol: asked for at each inversion step.

    Raises:
      FpjaxError: for other shapes, values that are not finite, a model without these conditions, or options out of range.
    """
    given = _photograph(image)
    den = store.load(model) if isinstance(model, str) else model
    _check(den, degree, strength, side)
    coarse = _coarse(given, side)
    den = priors.at_size(den, *coarse.shape[:2])
    y = coarse.transpose(2, 0, 1)
    degrees = [c for c in den.conditions if c != CLEAR]
    found = evidence(den, y)
    chosen = degree or max(degrees, key=lambda c: found[c])
    low, high = SIGMAS
    grid = process.edm(steps, sigma_min=low, sigma_max=low * (high / low) ** strength)
    inversion = invert(den, y[None], grid, condition=chosen, tol=tol, history=False)
    clear = generate(den, inversion.latent, grid, condition=CLEAR, guidance=guidance)
    clear = np.asarray(clear[0], np.float64).transpose(1, 2, 0)
    if not np.isfinite(clear).all():
        raise FpjaxError(f"{den.name} at guidance {guidance:g} generates NaN or infinite values; use less guidance")
    t, light = explain(coarse, clear)
    t = _enlarged(t, given)
    whole = np.clip((given - light) / np.maximum(t, LEAST)[..., None] + light, -1, 1).astype(np.float32)
    evaluations = int(np.asarray(inversion.evaluations).sum()) + steps * (1 if guidance == 1.0 else 2)
    whole = whole if np.ndim(image) == 3 else whole.mean(axis=2)
    return Dehazed(whole, t, light, chosen, found, inversion, evaluations, verdict(den, inversion, chosen))


def evidence(den: Denoiser, y, sigma: float = SIGMAS[0]) -> dict[str, float]:
    """ln p(patch | condition) in the mean over all patches of y (channels, h, w) with noise ``sigma``, less the largest.

    Overlapping patches are counted as if they were independent, so only differences mean something.
    """
    y = jnp.asarray(y, jnp.float32)
    values = np.asarray(_evidence(den.params, y, jnp.float32(sigma), jnp.arange(len(den.conditions), dtype=jnp.int32)))
    return {c: float(v) for c, v in zip(den.conditions, values - values.max(), strict=True)}


@jax.jit
def _evidence(params, y, sigma, conditions):
    inner = {"means": params["patch_means"], **params}
    n = patches.side(params["patch_means"].shape[1], y.shape[0])
    flat = patches.cut(y, n).reshape(-1, params["patch_means"].shape[1])

    def one(patch):
        return jax.vmap(lambda c: mixture.log_evidence(inner, patch, sigma, c))(conditions)

    return jnp.mean(jax.lax.map(one, flat, batch_size=patches.BATCH), axis=0)


def explain(hazy, clear, window: int = WINDOW, rounds: int = ROUNDS) -> tuple[np.ndarray, np.ndarray]:
    """t (h, w) in [0.05, 1] and A (3,) in [-1, 1] with hazy ≈ clear·t + A·(1 - t), by least squares in turns.

    Args:
      hazy, clear: (h, w, 3). window: pixels on a side over which t is constant, odd.
    """
    from scipy.ndimage import uniform_filter

    def mean(v):
        return uniform_filter(v, size=window, mode="reflect")

    hazy, clear = np.asarray(hazy, np.float64), np.asarray(clear, np.float64)
    light = 2 * haze.airlight(np.clip((hazy + 1) / 2, 0, 1), 3) - 1
    t = np.ones(hazy.shape[:2])
    for _ in range(rounds):
        away = clear - light
        t = mean(((hazy - light) * away).sum(axis=2)) / (mean((away**2).sum(axis=2)) + 1e-3)
        t = np.clip(t, LEAST / 2, 1.0)
        veil = (1 - t)[..., None]
        light = (veil * (hazy - t[..., None] * clear)).sum(axis=(0, 1)) / max(float((veil**2).sum()), 1e-6)
        light = np.clip(light, -1, 1)
    return t, light


def verdict(den: Denoiser, inversion: Inversion, condition: str) -> str:
    """What is known of the latent, in a sentence."""
    bound = float(np.asarray(inversion.error_bound)[0, -1])
    solved = int(inversion.solved[0].sum())
    if solved < inversion.solved.shape[1]:
        return f"inverting under {condition!r} is solved for {solved} of {inversion.solved.shape[1]} steps only"
    if not math.isfinite(bound):
        return f"the latent under {condition!r} may not be unique: nothing is known of the modulus (T2)"
    size = float(np.linalg.norm(np.asarray(inversion.latent)))
    return (
        f"the latent under {condition!r} is unique and known to {bound:.1e} of {size:.0f} (2-norm; T2, T8, T9; "
        f"{inversion.evidence.name.lower()}: monotone by construction, rounding not counted)"
    )


def _photograph(image) -> np.ndarray:
    """(h, w, 3) float64, after a look."""
    given = images.photograph(image, np.float64)
    if min(given.shape[:2]) < 16:
        raise FpjaxError(
            f"a photograph is (height, width) or (height, width, 3), sides at least 16, not {np.shape(image)}"
        )
    return given


def _check(den: Denoiser, degree: str | None, strength: float, side: int) -> None:
    if den.fn is not patches.denoise or CLEAR not in den.conditions or len(den.conditions) < 2:
        raise FpjaxError(f"{den.name} is no mixture of patches with the condition {CLEAR!r} and degrees of haze")
    if degree is not None and (degree == CLEAR or degree not in den.conditions):
        known = ", ".join(c for c in den.conditions if c != CLEAR)
        raise FpjaxError(f"unknown degree of haze {degree!r}; choose one of {known}")
    if not 0 < strength <= 1:
        raise FpjaxError(f"strength must lie in (0, 1], got {strength}")
    if side < 16:
        raise FpjaxError(f"the coarse photograph needs at least 16 pixels a side, got {side}")


def _coarse(image: np.ndarray, side: int) -> np.ndarray:
    """The photograph with ``side`` pixels on its shorter side, both multiples of 4, float32; smaller ones as they are."""
    h, w = image.shape[:2]
    scale = min(1.0, side / min(h, w))
    size = [min(max(16, round(n * scale / 4) * 4), LONGEST * max(16, side // 4 * 4)) for n in (h, w)]
    resized = jax.image.resize(jnp.asarray(image, jnp.float32), (*size, 3), "linear", antialias=True)
    return np.asarray(resized)


def _enlarged(t: np.ndarray, image: np.ndarray) -> np.ndarray:
    """t at the photograph's size, smoothed along its edges."""
    h, w = image.shape[:2]
    large = np.asarray(jax.image.resize(jnp.asarray(t, jnp.float32), (h, w), "linear"), np.float64)
    radius = max(1, round(min(h, w) / min(t.shape) * 2))
    return np.clip(haze.guided_filter((image.mean(axis=2) + 1) / 2, large, radius), LEAST, 1.0)
