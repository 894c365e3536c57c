"""Samplers that invert without solving anything: EDICT, BDIA and O-BELM, for comparison.

Each keeps two states and moves from one pair to the next by a map that is inverted in closed form, whatever the network. The
price is stability. On the linear test problem dy = lambda·y, mu = h·lambda, a step is a 2×2 matrix (:func:`amplification`)
whose eigenvalues multiply to p² (EDICT), -gamma (BDIA) or -1 (O-BELM): what the sampler damps on the way down its inverse
amplifies on the way up. So EDICT, and BDIA with gamma < 1, are stable both ways for no mu at all, not even 0; BDIA with
gamma = 1 and O-BELM are the leapfrog, stable for mu on the imaginary axis between -i and i and nowhere else.

In this room: those maps, from the formulas of the papers alone, for every process. Not in this room: E2 and its solvers.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.denoiser import evaluate
from fpjax.evidence import FpjaxError
from fpjax.process import Process
from fpjax.trajectory import prepare

MIXING = 0.93  # EDICT's p, of its paper
GAMMA = 1.0  # BDIA's gamma; its paper uses 0.96 for editing


class Row(NamedTuple):
    """One step's numbers: noise levels below, here and above, and the scales z/y there (all scalars)."""

    low: jax.Array
    here: jax.Array
    high: jax.Array
    scale_low: jax.Array
    scale: jax.Array
    scale_high: jax.Array


def _ddim(z, e, start, end, scale_start, scale_end):
    """E1 in z and eps: z_end = scale_end·(z/scale_start - (start - end)·e), up or down."""
    return scale_end * (z / scale_start - (start - end) * e)


def edict_down(eps, pair, r: Row, p: float):
    """EDICT (Wallace et al. 2211.12446, Eq. 14): two coupled sequences, each moved by the noise seen at the other."""
    x, y = pair
    x = _ddim(x, eps(y), r.here, r.low, r.scale, r.scale_low)
    y = _ddim(y, eps(x), r.here, r.low, r.scale, r.scale_low)
    x = p * x + (1 - p) * y
    return x, p * y + (1 - p) * x


def edict_up(eps, pair, r: Row, p: float):
    """The inverse of :func:`edict_down`, term by term."""
    x, y = pair
    y = (y - (1 - p) * x) / p
    x = (x - (1 - p) * y) / p
    y = _ddim(y, eps(x), r.low, r.here, r.scale_low, r.scale)
    return _ddim(x, eps(y), r.low, r.here, r.scale_low, r.scale), y


def bdia_down(eps, pair, r: Row, gamma: float):
    """BDIA (Zhang et al. 2307.10829, Eq. 16): (z_high, z) -> (z, z_low)."""
    high, z = pair
    e = eps(z)
    up = _ddim(z, e, r.here, r.high, r.scale, r.scale_high)
    return z, _ddim(z, e, r.here, r.low, r.scale, r.scale_low) + gamma * (high - up)


def bdia_up(eps, pair, r: Row, gamma: float):
    """The inverse of :func:`bdia_down`."""
    z, low = pair
    e = eps(z)
    up = _ddim(z, e, r.here, r.high, r.scale, r.scale_high)
    return up + (low - _ddim(z, e, r.here, r.low, r.scale, r.scale_low)) / gamma, z


def obelm_down(eps, pair, r: Row, _):
    """O-BELM (Wang et al. 2410.07273, Eq. 18): the two-step formula of highest accuracy, in y = z/scale."""
    high, z = pair
    h, above = r.here - r.low, r.high - r.here
    ratio = (h / above) ** 2
    y = ratio * high / r.scale_high + (1 - ratio) * z / r.scale - h * (h + above) / above * eps(z)
    return z, r.scale_low * y


def obelm_up(eps, pair, r: Row, _):
    """The inverse of :func:`obelm_down`."""
    z, low = pair
    h, above = r.here - r.low, r.high - r.here
    ratio = (h / above) ** 2
    y = low / r.scale_low - (1 - ratio) * z / r.scale + h * (h + above) / above * eps(z)
    return r.scale_high * y / ratio, z


MAPS = {
    "edict": (edict_down, edict_up, MIXING),
    "bdia": (bdia_down, bdia_up, GAMMA),
    "obelm": (obelm_down, obelm_up, 0.0),
}
METHODS = tuple(MAPS)


class Pair(NamedTuple):
    """The two states (n, *shape) that a method keeps, in the process's own coordinates.

    At the noisy end both of EDICT's sequences, and otherwise the last two states, noisier first. ``image`` or ``latent`` is
    the one of them that other samplers know.
    """

    first: jax.Array
    second: jax.Array


def _rows(process: Process, method: str) -> np.ndarray:
    """:class:`Row` of every application in inversion order: one a step for EDICT, one less for the others."""
    process.require_e1(method)
    levels = np.asarray(process.levels)
    scale = np.asarray([process.scale(s) for s in process.levels])
    if method == "edict":
        columns = (levels[:-1], levels[1:], levels[1:], scale[:-1], scale[1:], scale[1:])
    else:
        columns = (levels[:-2], levels[1:-1], levels[2:], scale[:-2], scale[1:-1], scale[2:])
    return np.stack(columns, axis=1)


def _begin(den, z, process: Process, method: str, condition, guidance: float):
    if method not in MAPS:
        raise FpjaxError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    if process.levels[0] == 0 and method != "edict":
        raise FpjaxError(
            f"{method} evaluates the noise at every level but the last, so the lowest must be above 0 (T10)"
        )
    x = prepare(den, z, condition, guidance)
    return x, jnp.asarray(_rows(process, method), x.z.dtype)


def _eps(x, row: Row):
    """eps_w(z) of one state at the row's own level."""

    def eps(z, c):
        y = z / row.scale
        return (y - evaluate(x.den, y, row.here, c, x.guidance)) / row.here

    return lambda z: jax.vmap(eps)(z, x.condition)


@functools.partial(jax.jit, static_argnames=("method", "up"))
def _run(x, pair: Pair, rows, option, method: str, up: bool) -> Pair:
    down_map, up_map, _ = MAPS[method]

    def one(pair, row):
        r = Row(*row)
        return Pair(*(up_map if up else down_map)(_eps(x, r), pair, r, option)), None

    return jax.lax.scan(one, pair, rows if up else rows[::-1])[0]


def _option(method: str, option, dtype):
    value = MAPS[method][2] if option is None else option
    if not 0 <= value <= 1 or (method != "obelm" and value == 0):
        raise FpjaxError(f"the option of {method} must lie in (0, 1], got {value}")
    return jnp.asarray(value, dtype)


def invert(den, images, process: Process, method: str, *, condition=None, guidance: float = 1.0, option=None) -> Pair:
    """The pair at the noisy end from which :func:`generate` makes the images again, exactly but for rounding.

    EDICT starts from the image twice; BDIA and O-BELM from the image and a naive DDIM inversion step.

    Args:
      den, images, process, condition, guidance: as in :func:`fpjax.invert`.
      method: one of :data:`METHODS`.
      option: EDICT's p, BDIA's gamma; None for the papers' own.

    Raises:
      FpjaxError: for an unknown method, a process it cannot take, and bad input.
    """
    x, rows = _begin(den, images, process, method, condition, guidance)
    pair = Pair(x.z, x.z) if method == "edict" else _naive(x, process)
    return _run(x, pair, rows, _option(method, option, x.z.dtype), method, True)


def generate(
    den, pair: Pair, process: Process, method: str, *, condition=None, guidance: float = 1.0, option=None
) -> Pair:
    """The pair at the clean end; ``second`` is the image (EDICT has one in each). Arguments as in :func:`invert`."""
    x, rows = _begin(den, pair.second, process, method, condition, guidance)
    first = jnp.asarray(pair.first, x.z.dtype)
    return _run(x, Pair(first, x.z), rows, _option(method, option, x.z.dtype), method, False)


def _naive(x, process: Process) -> Pair:
    """(z_1, z_0): z_1 by DDIM inversion with the noise predicted at z_0."""
    s, t = process.levels[:2]
    a, b = (jnp.asarray(process.scale(v), x.z.dtype) for v in (s, t))
    row = Row(*(jnp.asarray(v, x.z.dtype) for v in (s, s, t, a, a, b)))
    return Pair(_ddim(x.z, _eps(x, row)(x.z), row.here, row.high, a, b), x.z)


def amplification(method: str, mu, option: float | None = None) -> np.ndarray:
    """The 2×2 matrix of one step down on dy = lambda·y with equal steps, mu = h·lambda, complex128; its inverse goes up.

    A method is stable at mu where both eigenvalues lie in the closed unit disc (simple on its edge). "euler" and "heun"
    are one-step samplers for comparison; their second row is empty.

    Args:
      method: one of :data:`METHODS`, "euler" or "heun". mu: a complex number.
    """
    mu = complex(mu)
    if method == "euler":
        return np.diag([1 + mu, 0])
    if method == "heun":
        return np.diag([1 + mu + mu**2 / 2, 0])
    if method not in MAPS:
        raise FpjaxError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}, euler, heun")
    p = MAPS[method][2] if option is None else option
    if method == "edict":
        move = np.array([[1, 0], [mu, 1]]) @ np.array([[1, mu], [0, 1]])
        return np.array([[1, 0], [1 - p, p]]) @ np.array([[p, 1 - p], [0, 1]]) @ move
    g = 1.0 if method == "obelm" else p
    return np.array([[0, 1], [g, 1 - g + (1 + g) * mu]])


def stable(method: str, mu, up: bool = False, option: float | None = None, tol: float = 1e-9) -> bool:
    """Whether powers of :func:`amplification` (of its inverse with ``up``) stay bounded, up to ``tol`` in the radius."""
    matrix = amplification(method, mu, option)
    if up and method in ("euler", "heun"):
        return bool(abs(matrix[0, 0]) >= 1 - tol)
    values = np.linalg.eigvals(np.linalg.inv(matrix) if up else matrix)
    if np.max(np.abs(values)) > 1 + tol:
        return False
    double = abs(values[0] - values[1]) < 1e-7 and abs(values[0]) > 1 - 1e-7
    return not double or bool(np.allclose(matrix, values[0] * np.eye(2)))
