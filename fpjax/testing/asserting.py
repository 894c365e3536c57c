"""Assertions about one step at sampled points: T2 (well posed, monotone) and T3 (contraction).

In this room: where the points come from, what is measured there, what a failure says. Jacobians are dense up to
DENSE values in a point (all eigenvalues, to rounding) and Lanczos beyond (one-sided estimates on the safe side: what is
reported as violated is violated). Not in this room: whole trajectories (trajectories).
"""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import plugin
from fpjax.denoiser import Denoiser, check_guidance
from fpjax.evidence import Bound, Evidence, FpjaxError, Verdict
from fpjax.jacobian import spectrum
from fpjax.process import Process
from fpjax.step import G, Step, denoised

DENSE = 128  # values in a point up to which its Jacobian is formed
SIGMAS = (1e-2, 1e2)  # noise levels of assert_monotone unless a process is given
SHOWN = 8  # entries of a vector that a message prints
PAIRS = (1e-1, 1e-2, 1e-3, 1e-4)  # lengths of a witness pair, relative to the point's norm
SLACK = 64  # rounding units by which an eigenvalue may miss its limit


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an assertion found.

    Attributes:
      assertion: name of the function. model: name of the denoiser. theorem: the theorem behind it.
      verdict: SUPPORTED where it passed; REFUTED or INCONCLUSIVE in a PropertyError.
      points: how many points were looked at.
      worst: the number that decides, at the worst point, with its evidence: SAMPLED, never a bound over all points.
      detail: one sentence.
      witness: what anyone can evaluate again; empty where the assertion passed.
      seconds: time taken.
    """

    assertion: str
    model: str
    theorem: str
    verdict: Verdict
    points: int
    worst: Bound
    detail: str
    witness: dict[str, Any] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0


class PropertyError(AssertionError):
    """A property that does not hold; ``outcome`` carries the witness."""

    def __init__(self, outcome: Outcome):
        self.outcome = outcome
        lines = [f"{outcome.assertion}({outcome.model}): {outcome.verdict} ({outcome.theorem}): {outcome.detail}"]
        lines += [f"  {name} = {_show(value)}" for name, value in outcome.witness.items()]
        lines.append("  the whole witness: error.outcome.witness")
        super().__init__("\n".join(lines))


def conclude(outcome: Outcome, began: float) -> Outcome:
    """The outcome with its time, noted for the table; raised unless it is SUPPORTED.

    Raises:
      PropertyError: with the witness.
    """
    outcome = dataclasses.replace(outcome, seconds=time.perf_counter() - began)
    plugin.STATE.add(
        plugin.Row(
            outcome.assertion, outcome.model, outcome.theorem, str(outcome.verdict), outcome.points, outcome.seconds
        )
    )
    if not outcome.verdict.holds:
        raise PropertyError(outcome)
    return outcome


class Looked(NamedTuple):
    """Points and what was measured there; the leading axis counts points.

    Attributes:
      step: the batched step of each point (sigma, rho, condition). number: index of its step, from 0. y: the points.
      low, low_vector: smallest eigenvalue of sym J and its direction.
      departure, direction: ||I - J|| and its right singular vector.
      scale: max(1, ||J||), for rounding.
    """

    step: Step
    number: np.ndarray
    y: np.ndarray
    low: np.ndarray
    low_vector: np.ndarray
    departure: np.ndarray
    direction: np.ndarray
    scale: np.ndarray

    @property
    def rho(self) -> np.ndarray:
        """rho of each point's step."""
        return np.asarray(self.step.rho, np.float64)


def assert_wellposed(
    model: Denoiser,
    process: Process,
    *,
    images=None,
    condition=None,
    guidance: float = 1.0,
    samples: int | None = None,
    seed: int = 0,
) -> Outcome:
    """Every step of the process has at most one solution, as far as T2 sees: m = rho + (1 - rho)·lambda_min(sym J) > 0.

    A point with m <= 0 refutes the hypothesis of T2, not uniqueness itself, so the failure is INCONCLUSIVE.

    Args:
      model: the denoiser; wrap a plain function by ``fpjax.Denoiser.from_function`` or :func:`fpjax.testing.from_torch`.
      process: noise levels.
      images: (n, *model.shape) clean points in the process's own coordinates, to which noise is added; standard normal
        if left out.
      condition: one for all points, or None. guidance: the weight w.
      samples: points in all, spread over the steps, at least one each; ``--fpjax-samples`` or 64 if left out.
      seed: of images and noise.

    Returns:
      An Outcome whose ``worst`` is the smallest m.

    Raises:
      PropertyError: with the point and direction of the smallest m.
      FpjaxError: for bad input.
    """
    began = time.perf_counter()
    process.require_e1("this assertion")
    seen = look(model, process.sigmas[1:], process.rho, images, condition, guidance, samples, seed)
    m = seen.rho + (1 - seen.rho) * seen.low
    worst = _first_worst(-m)
    i = int(seen.number[worst])
    where = f"step {i + 1} of {process.steps} (sigma {process.levels[i + 1]:.4g} to {process.levels[i]:.4g})"
    common = outcome_fields("assert_wellposed", model, "T2", len(m), m[worst])
    if not np.isfinite(m[worst]):
        return _not_finite(common, seen, worst, where, began)
    if m[worst] > 0:
        detail = f"modulus m > 0 at {len(m)} points, smallest {m[worst]:.4g} at {where}"
        return conclude(Outcome(**common, verdict=Verdict.SUPPORTED, detail=detail), began)
    t10 = "; rho = 0 here, so the step is the denoiser itself (T10)" if seen.rho[worst] == 0 else ""
    detail = (
        f"modulus m = {m[worst]:.4g} <= 0 at {where}, at {int((m <= 0).sum())} of {len(m)} points: "
        f"F is not monotone there, so T2 does not give uniqueness{t10}"
    )
    witness = _witness(seen, worst) | {"direction": seen.low_vector[worst], "lambda_min(sym J)": float(seen.low[worst])}
    return conclude(Outcome(**common, verdict=Verdict.INCONCLUSIVE, detail=detail, witness=witness), began)


def assert_monotone(
    model: Denoiser,
    *,
    sigmas=None,
    images=None,
    condition=None,
    guidance: float = 1.0,
    samples: int | None = None,
    seed: int = 0,
) -> Outcome:
    """sym J >= 0 at every noise level: T2 then gives m >= rho > 0 at every step of every process, however few steps.

    Args:
      sigmas: noise levels; 8 of them between 0.01 and 100 if left out.
      images: (n, *model.shape) clean points in y-coordinates.
      model, condition, guidance, samples, seed: as in :func:`assert_wellposed`.

    Returns:
      An Outcome whose ``worst`` is the smallest eigenvalue of sym J.

    Raises:
      PropertyError: REFUTED, with a point y and a direction v such that <v, J v> < 0, and the steps that suffer.
      FpjaxError: for bad input.
    """
    began = time.perf_counter()
    levels = np.geomspace(*SIGMAS, 8) if sigmas is None else np.asarray(sigmas, np.float64).reshape(-1)
    if levels.size == 0 or not (np.isfinite(levels) & (levels > 0)).all():
        raise FpjaxError("sigmas must be positive finite noise levels; give at least one")
    seen = look(model, levels, np.zeros_like(levels), images, condition, guidance, samples, seed)
    slack = -SLACK * np.finfo(seen.y.dtype).eps * seen.scale
    worst = _first_worst(slack - seen.low)
    where = f"sigma {levels[seen.number[worst]]:.4g}"
    common = outcome_fields("assert_monotone", model, "T2", len(seen.low), seen.low[worst])
    if not np.isfinite(seen.low[worst]):
        return _not_finite(common, seen, worst, where, began)
    if seen.low[worst] >= slack[worst]:
        detail = f"sym J >= 0 at {len(seen.low)} points, smallest eigenvalue {seen.low[worst]:.4g} at {where}"
        return conclude(Outcome(**common, verdict=Verdict.SUPPORTED, detail=detail), began)
    bad = -seen.low[worst]
    detail = (
        f"<v, J v> = {-bad:.4g} < 0 for a unit direction v at {where}, so D is not monotone: "
        f"a step from there with rho <= {bad / (1 + bad):.4g} has no modulus"
    )
    witness = _witness(seen, worst) | {"direction": seen.low_vector[worst], "<v, J v>": -float(bad)}
    del witness["rho"]
    return conclude(Outcome(**common, verdict=Verdict.REFUTED, detail=detail, witness=witness), began)


def assert_contracts(
    model: Denoiser,
    process: Process,
    *,
    images=None,
    condition=None,
    guidance: float = 1.0,
    samples: int | None = None,
    seed: int = 0,
) -> Outcome:
    """Plain iteration contracts at every step: kappa = (1 - rho)·||I - J|| < 1 (T3).

    Arguments and errors are those of :func:`assert_wellposed`.

    Returns:
      An Outcome whose ``worst`` is the largest kappa: a lower estimate of the supremum.

    Raises:
      PropertyError: REFUTED with a pair of points that G pushes apart, or INCONCLUSIVE where kappa >= 1 but no pair is.
      FpjaxError: for bad input.
    """
    began = time.perf_counter()
    process.require_e1("this assertion")
    seen = look(model, process.sigmas[1:], process.rho, images, condition, guidance, samples, seed)
    kappa = (1 - seen.rho) * seen.departure
    worst = _first_worst(kappa)
    i = int(seen.number[worst])
    where = f"step {i + 1} of {process.steps} (sigma {process.levels[i + 1]:.4g} to {process.levels[i]:.4g})"
    common = outcome_fields("assert_contracts", model, "T3", len(kappa), kappa[worst])
    if not np.isfinite(kappa[worst]):
        return _not_finite(common, seen, worst, where, began)
    if kappa[worst] < 1:
        detail = f"local kappa below 1 at {len(kappa)} points, largest {kappa[worst]:.4g} at {where} (a lower estimate)"
        return conclude(Outcome(**common, verdict=Verdict.SUPPORTED, detail=detail), began)
    ratio, other = _pair(seen, worst)
    text = f"local kappa {kappa[worst]:.4g} at {where}, at least 1 at {int((kappa >= 1).sum())} of {len(kappa)} points"
    if not ratio > 1:
        detail = f"{text}, but no pair of points was pushed apart"
        return conclude(
            Outcome(**common, verdict=Verdict.INCONCLUSIVE, detail=detail, witness=_witness(seen, worst)), began
        )
    detail = f"G pushes two points apart by {ratio:.4g}; {text}"
    witness = _witness(seen, worst) | {"other point": other, "||G(a) - G(b)|| / ||a - b||": ratio}
    return conclude(Outcome(**common, verdict=Verdict.REFUTED, detail=detail, witness=witness), began)


def look(model, sigmas, rhos, images, condition, guidance, samples, seed) -> Looked:
    """Measures J at points x + sigma·n, the steps in turn.

    Raises:
      FpjaxError: for bad input.
    """
    expect_denoiser(model)
    check_guidance(model, guidance, condition is not None)
    count = max(sample_count(samples), len(sigmas))
    rng = np.random.default_rng(seed)
    clean = clean_points(model, images, count, rng)
    number = np.arange(count) % len(sigmas)
    dtype = clean.dtype
    noise = rng.normal(size=clean.shape).astype(dtype)
    sigma = np.asarray(sigmas, dtype)[number]
    y = clean + sigma.reshape(-1, *[1] * len(model.shape)) * noise
    w = None if guidance == 1.0 else jnp.full(count, guidance, dtype)
    index = jnp.full(count, model.index(condition), jnp.int32)
    rho = jnp.asarray(np.asarray(rhos, dtype)[number])
    step = Step(model.astype(dtype), jnp.asarray(sigma), rho, jnp.zeros_like(y), index, w)
    return Looked(step, number, y, *measure(step, y))


def expect_denoiser(model) -> None:
    """Raises a FpjaxError that says how to wrap what was given."""
    if not isinstance(model, Denoiser):
        raise FpjaxError(
            f"expected a fpjax.Denoiser, got {type(model).__name__}; wrap a JAX function by "
            "fpjax.Denoiser.from_function(fn, params, shape) or a PyTorch one by fpjax.testing.from_torch(fn, shape)"
        )


def sample_count(samples: int | None) -> int:
    """The number of points asked for, or that of ``--fpjax-samples``.

    Raises:
      FpjaxError: unless it is a whole number, at least 1.
    """
    count = plugin.default_samples() if samples is None else samples
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise FpjaxError(f"samples must be a whole number, at least 1, got {count!r}")
    return int(count)


def clean_points(model: Denoiser, images, count: int, rng) -> np.ndarray:
    """``count`` points (count, *shape): the images in turn, or standard normal ones; their dtype is the precision.

    Raises:
      FpjaxError: if the images are not finite floating-point numbers of the model's shape.
    """
    if images is None:
        return rng.normal(size=(count, *model.shape)).astype(jnp.result_type(float))
    images = np.asarray(images)
    if images.ndim < 1 or images.shape[1:] != model.shape or len(images) < 1:
        raise FpjaxError(f"images must have shape (n, {', '.join(map(str, model.shape))}), got {images.shape}")
    images = images.astype(jnp.result_type(images.dtype if images.dtype.kind == "f" else float))
    if not np.isfinite(images).all():
        raise FpjaxError("images must be finite, but have NaN or infinite values")
    return images[np.arange(count) % len(images)]


def measure(step: Step, y):
    """low, low_vector, departure, direction and scale of :class:`Looked`."""
    n, d = len(y), y[0].size
    if d > DENSE:
        s = _spectra(_axes(step), y, jax.random.key(0))
        scale = jnp.maximum(s.norm.value, 1)
        found = s.symmetric.low, s.symmetric.low_vector, s.departure.value, s.departure.right, scale
        return tuple(np.asarray(a, np.float64) for a in found)
    j = np.asarray(_jacobians(_axes(step), y), np.float64).reshape(n, d, d)
    bad = np.logical_not(np.isfinite(j).all(axis=(1, 2)))
    j = np.where(bad[:, None, None], 0.0, j)
    low, vectors = np.linalg.eigh((j + np.swapaxes(j, 1, 2)) / 2)
    _, departure, right = np.linalg.svd(np.eye(d) - j)
    nan = np.where(bad, np.nan, 0.0)
    scale = np.maximum(np.linalg.norm(j, axis=(1, 2)), 1)
    return low[:, 0] + nan, vectors[:, :, 0], departure[:, 0] + nan, right[:, 0], scale


def _axes(step: Step):
    """What differs from point to point, apart from the denoiser, which does not."""
    return step.den, (step.sigma, step.rho, step.condition, step.guidance)


def _step(den, varying, y) -> Step:
    sigma, rho, condition, guidance = varying
    return Step(den, sigma, rho, y, condition, guidance)


@jax.jit
def _jacobians(axes, y):
    den, varying = axes
    return jax.vmap(lambda u, v: jax.jacfwd(denoised)(u, _step(den, v, u)))(y, varying)


@jax.jit
def _spectra(axes, y, key):
    den, varying = axes
    return jax.vmap(lambda u, v: spectrum(denoised, u, _step(den, v, u), key, tol=1e-6))(y, varying)


@jax.jit
def _images(axes, y):
    den, varying = axes
    return jax.vmap(lambda u, v: G(u, _step(den, v, jnp.zeros_like(u))))(y, varying)


def _pair(seen: Looked, worst: int):
    """The pair along the top singular vector that G pushes apart most, as (ratio, other point)."""
    y = seen.y[worst]
    lengths = [h * (1 + float(np.linalg.norm(y))) for h in PAIRS]
    others = [y + (h * seen.direction[worst]).reshape(y.shape).astype(y.dtype) for h in lengths]
    points = np.stack([y, *others])
    den, varying = _axes(seen.step)
    same = jax.tree.map(lambda a: jnp.broadcast_to(a[worst], (len(points),)), varying)
    moved = np.asarray(_images((den, same), points), np.float64).reshape(len(points), -1)
    apart = np.linalg.norm((points[1:] - y).astype(np.float64).reshape(len(PAIRS), -1), axis=1)
    ratios = np.nan_to_num(np.linalg.norm(moved[1:] - moved[0], axis=1) / apart, nan=0.0)
    best = int(np.argmax(ratios))
    return float(ratios[best]), others[best]


def _first_worst(badness: np.ndarray) -> int:
    """Index of the largest entry; NaN counts as the worst of all."""
    return int(np.argmax(np.where(np.isfinite(badness), badness, np.inf)))


def outcome_fields(assertion: str, model: Denoiser, theorem: str, points: int, value) -> dict[str, Any]:
    """What every Outcome of an assertion has in common, whatever its verdict."""
    worst = Bound(float(value), Evidence.SAMPLED, source=theorem)
    return {"assertion": assertion, "model": model.name, "theorem": theorem, "points": points, "worst": worst}


def _witness(seen: Looked, i: int) -> dict[str, Any]:
    step = seen.step
    witness = {"point": seen.y[i], "sigma": float(step.sigma[i]), "rho": float(step.rho[i])}
    if step.den.conditions:
        witness["condition"] = int(np.asarray(step.condition)[i])
    if step.guidance is not None:
        witness["guidance"] = float(step.guidance[i])
    return witness


def _not_finite(common, seen: Looked, worst: int, where: str, began: float) -> Outcome:
    detail = f"the model or its Jacobian is NaN or infinite at {where}"
    outcome = Outcome(**common, verdict=Verdict.INCONCLUSIVE, detail=detail, witness=_witness(seen, worst))
    return conclude(outcome, began)


def _show(value) -> str:
    if not isinstance(value, np.ndarray):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    flat = value.reshape(-1)
    text = ", ".join(f"{v:.6g}" for v in flat[:SHOWN])
    more = f", … ({flat.size} values, shape {value.shape})" if flat.size > SHOWN else ""
    return f"[{text}{more}]"
