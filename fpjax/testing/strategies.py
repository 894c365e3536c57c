"""Hypothesis strategies: noise processes, denoisers whose constants are known exactly, images, conditions.

Everything shrinks towards few steps, one dimension, whole numbers and zeros. Not in this room: assertions (asserting).
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from fpjax import process
from fpjax.denoiser import Denoiser, Facts
from fpjax.evidence import FpjaxError
from fpjax.models import exact
from fpjax.models.exact import CommonStdBound, LinearBound

try:
    from hypothesis import strategies as st
    from hypothesis.extra import numpy as hnp
except ImportError as error:
    raise ImportError("the strategies need hypothesis; install it by: pip install 'fpjax[testing]'") from error

LABELS = ("monotone", "contractive", "neither")


@dataclasses.dataclass(frozen=True, repr=False)
class Known:
    """A denoiser with symmetric Jacobian whose constants are known exactly.

    Attributes:
      den: the denoiser.
      low, high: infimum and supremum over all y of the eigenvalues of J(y, sigma), as functions of sigma.
      bend: a point where every end that is attained at all is attained, or None. The others are approached far away.
    """

    den: Denoiser
    low: Callable
    high: Callable
    bend: np.ndarray | None = None

    def modulus(self, rho: float, sigma: float) -> float:
        """T2's m of a step: rho + (1 - rho)·inf lambda_min, exact."""
        return rho + (1 - rho) * self.low(sigma)

    def kappa(self, rho: float, sigma: float) -> float:
        """T3's kappa of a step: (1 - rho)·sup ||I - J||, exact."""
        return (1 - rho) * max(1 - self.low(sigma), self.high(sigma) - 1)

    @property
    def name(self) -> str:
        """What it is, with its numbers."""
        return self.den.name

    def __repr__(self):
        return f"<Known {self.name}>"


def _between(low: float, high: float):
    return st.floats(low, high, allow_subnormal=False, width=32)


def processes(
    *,
    kinds: tuple[str, ...] = process.KINDS,
    min_steps: int = 1,
    max_steps: int = 20,
    final_sigma_zero: bool | None = False,
):
    """Noise processes of fpjax.process.

    Args:
      kinds: "ddim", "edm", "rectified-flow". min_steps, max_steps: range of the number of steps.
      final_sigma_zero: whether the last level is 0 (T10); None for both.

    Raises:
      FpjaxError: for an unknown kind or an empty range.
    """
    if not kinds or set(kinds) - set(process.KINDS):
        raise FpjaxError(f"kinds must be some of {', '.join(process.KINDS)}, got {kinds!r}")
    if not 1 <= min_steps <= max_steps:
        raise FpjaxError(
            f"the number of steps must satisfy 1 <= min_steps <= max_steps, got {min_steps} and {max_steps}"
        )
    return _processes(kinds, min_steps, max_steps, final_sigma_zero)


@st.composite
def _processes(draw, kinds, min_steps: int, max_steps: int, final_sigma_zero: bool | None) -> process.Process:
    kind = draw(st.sampled_from(kinds))
    steps = draw(st.integers(min_steps, max_steps))
    zero = draw(st.booleans()) if final_sigma_zero is None else final_sigma_zero
    if kind == "ddim":
        schedule = draw(st.sampled_from(["linear", "scaled_linear", "cosine"]))
        return process.ddim(steps, schedule=schedule, final_sigma_zero=zero)
    if kind == "edm":
        smallest = draw(st.sampled_from([0.002, 0.02, 0.2]))
        return process.edm(steps, sigma_min=smallest, final_sigma_zero=zero)
    return process.rectified_flow(steps, shift=draw(st.sampled_from([1.0, 3.0])), final_sigma_zero=zero)


@st.composite
def _reflections(draw, d: int):
    """I - 2 v v^T/|v|²: orthogonal and symmetric; the identity for v = 0, to which it shrinks."""
    v = np.asarray(draw(st.lists(st.integers(-3, 3), min_size=d, max_size=d)), float)
    return np.eye(d) - 2 * np.outer(v, v) / max(v @ v, 1.0)


def _dims(dims: tuple[int, ...]):
    if not dims or min(dims) < 1:
        raise FpjaxError(f"dims must be dimensions, each at least 1, got {dims!r}")
    return st.sampled_from(dims)


def gaussians(*, dims: tuple[int, ...] = (1, 2, 3)):
    """Exact denoisers of Gaussian data, as Known: the eigenvalues of J are c/(c + sigma²) everywhere."""
    return _gaussians(_dims(dims))


@st.composite
def _gaussians(draw, dims) -> Known:
    d = draw(dims)
    values = np.asarray([draw(_between(0, 4)) for _ in range(d)])
    mean = np.asarray([draw(_between(-2, 2)) for _ in range(d)])
    q = draw(_reflections(d))
    name = f"gaussian(mean={mean.tolist()}, variances={values.tolist()})"
    covariance = (q * values) @ q.T
    den = exact.gaussian(mean, (covariance + covariance.T) / 2, name=name)
    return Known(den, LinearBound(float(values.min())), LinearBound(float(values.max())), mean)


@dataclasses.dataclass(frozen=True)
class _Within:
    """s²/(s² + sigma²): J of a mixture with common std s far from the place where its components meet."""

    std: float

    def __call__(self, sigma):
        return self.std**2 / (self.std**2 + sigma**2)


def mixtures(*, dims: tuple[int, ...] = (1, 2, 3)):
    """Exact denoisers of two equal Gaussians at -a and a, as Known: J lies between s²/(s² + sigma²) and its value at 0."""
    return _mixtures(_dims(dims))


@st.composite
def _mixtures(draw, dims) -> Known:
    d = draw(dims)
    a = np.asarray([draw(_between(0, 2)) for _ in range(d)])
    std = draw(_between(0, 1))
    den = exact.mixture(np.stack([-a, a]), std, name=f"mixture(means=±{a.tolist()}, std={std})")
    return Known(den, _Within(std), CommonStdBound(std, 2 * float(np.linalg.norm(a))), np.zeros(d))


def _bent(params, y, sigma, condition):
    """base·y + Q diag(gains) tanh(Q^T (y - bend))."""
    base, gains, q, bend = params
    return base * y + q @ (gains * jnp.tanh(q.T @ (y - bend)))


@dataclasses.dataclass(frozen=True)
class _Constant:
    value: float

    def __call__(self, sigma):
        return self.value


def networks(*, label: str | None = None, dims: tuple[int, ...] = (1, 2, 3)):
    """Small random networks, as Known: y -> base·y + Q diag(g) tanh(Q^T (y - b)), Q orthogonal, with a label that is true.

    J = Q diag(base + g_i·sech²) Q^T, and each sech² takes every value in (0, 1] on its own: the eigenvalues fill the
    interval from base + min(0, min g) to base + max(0, max g); an end other than base is attained at b, base far away.
    "monotone": sym J >= 0 everywhere (m >= rho at every step); "contractive": ||I - J|| < 1 everywhere (kappa < 1 at every
    step, also at rho = 0), which is monotone too; "neither": <v, J v> < 0 for some v, at b.

    Args:
      label: one of these, or None for any of them.

    Raises:
      FpjaxError: for an unknown label.
    """
    if label is not None and label not in LABELS:
        raise FpjaxError(f"unknown label {label!r}; choose one of {', '.join(LABELS)}")
    return _networks(st.sampled_from(LABELS) if label is None else st.just(label), _dims(dims))


@st.composite
def _networks(draw, labels, dims) -> Known:
    label, d = draw(labels), draw(dims)
    q = draw(_reflections(d))
    bend = np.asarray([draw(_between(-2, 2)) for _ in range(d)])
    if label == "contractive":
        base = 1.0
        gains = np.asarray([draw(_between(-0.875, 0.875)) for _ in range(d)])
    elif label == "monotone":
        base = draw(_between(0, 2))
        gains = np.asarray([draw(_between(0, 4)) for _ in range(d)])
    else:
        base = draw(_between(0, 1))
        gains = np.asarray([-base - draw(_between(0.125, 4)), *(draw(_between(-4, 4)) for _ in range(d - 1))])
    low, high = base + min(0.0, gains.min()), base + max(0.0, gains.max())
    name = f"{label} network(base={base}, gains={gains.tolist()}, bend={bend.tolist()})"
    facts = Facts(symmetric=True, monotone=bool(low >= 0), source="Q diag Q^T, by construction")
    den = Denoiser((np.float64(base), gains, q, bend), _bent, (d,), facts=facts, name=name)
    return Known(den, _Constant(float(low)), _Constant(float(high)), bend)


def images(shape: tuple[int, ...], *, n: int = 1, dtype=np.float64):
    """Arrays (n, *shape) with values in [-1, 1]."""
    kind = np.dtype(dtype)
    if kind.kind != "f" or n < 1:
        raise FpjaxError(f"images need a floating-point dtype and n at least 1, got {kind} and {n}")
    width = 8 * kind.itemsize
    elements = st.floats(-1, 1, allow_subnormal=False, width=width)  # pyright: ignore[reportArgumentType]
    return hnp.arrays(kind, (n, *shape), elements=elements, fill=st.nothing())  # so that each value shrinks alone


def conditions(den: Denoiser):
    """Conditions that a denoiser accepts: None or an index."""
    if not den.conditions:
        return st.none()
    return st.one_of(st.none(), st.integers(0, len(den.conditions) - 1))
