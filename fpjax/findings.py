"""What is known of the latents of an inversion: unique and how near, or from which step on it is not well posed.

A declared modulus m > 0 settles it (T2, T8, T9). Without one the states that the inversion went through are looked at: the
smallest eigenvalue of the symmetric part of J there. That is a Ritz value and says m <= what it gives, so it can take
uniqueness away from T2 and never give it; where it does, other starts along its eigenvector look for a second solution.

In this room: one :class:`Finding` for each image, as data and as a sentence. Not in this room: inverting (trajectory),
audits of whole problems (auditing), proofs (certify).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.adapting import network
from fpjax.evidence import Bound, Evidence, Exit, Verdict
from fpjax.jacobian import extreme_eigenvalues, symmetric_part
from fpjax.lanes import Inputs
from fpjax.process import Process
from fpjax.solve import solve
from fpjax.step import G, Step
from fpjax.trajectory import Inversion, accumulate_error

# other starts, in units of sigma_t, along an eigenvector
FARTHER = (-4.0, -2.0, -1.0, -0.5, -0.25, 0.25, 0.5, 1.0, 2.0, 4.0)
APART = 1e6  # two solutions are two where they are so many times their residuals apart
BATCH = 32  # spectra computed at once


class Finding(NamedTuple):
    """What is known of one image's latent.

    Attributes:
      verdict: on "the latent exists and is unique": SUPPORTED by a declaration or by what was looked at, REFUTED by a second
        solution, INCONCLUSIVE otherwise.
      words: one sentence.
      error: how far the latent is from the exact one, 2-norm in the process's own coordinates (T8, T9, rounding counted): a
        bound if the declared modulus holds (ASSUMED), an estimate from moduli at the states visited (SAMPLED), or None.
      step: the first step, counted from 1 at the image, from which on it is not known to be well posed; None if there is none.
      other: a second solution of that step, in y-coordinates, or None.
    """

    verdict: Verdict
    words: str
    error: Bound | None
    step: int | None
    other: np.ndarray | None


class _Case(NamedTuple):
    """One image: (steps,) arrays, and the error at the end."""

    exits: np.ndarray
    residual: np.ndarray
    modulus: np.ndarray
    error: float
    finite: bool


def find(x: Inputs, process: Process, inversion: Inversion, modulus: np.ndarray, *, seed: int = 0) -> list[Finding]:
    """One finding for each image.

    Args:
      x: what was inverted (:func:`fpjax.trajectory.prepare`). process: of E1's steps. inversion: with its history.
      modulus: (steps,) declared m of each step, 0 where none is.
      seed: of the Lanczos starts.
    """
    path = jnp.asarray(inversion.path)
    sizes = jnp.linalg.norm(path[:, 1:].reshape(*path.shape[:1], process.steps, -1), axis=-1)
    # a rounding of y is one of F (T16)
    residual = jnp.asarray(inversion.residual) + 2 * jnp.finfo(path.dtype).eps * sizes
    declared = bool((modulus > 0).all())
    if declared:
        moduli = np.broadcast_to(modulus, residual.shape)
        vectors = None
    else:
        low, vectors = lowest(x, path, process, seed)
        moduli = process.rho + (1 - process.rho) * np.asarray(low, np.float64)
    usable = jnp.asarray(np.where(np.isfinite(moduli), np.maximum(moduli, 0), 0), path.dtype)
    scale = process.scale(process.levels[-1])
    error = scale * np.asarray(accumulate_error(residual, usable)[:, -1], np.float64)
    cases = [
        _Case(np.asarray(e), np.asarray(r), m, float(d), bool(np.isfinite(p).all()))
        for e, r, m, d, p in zip(inversion.exit, inversion.residual, moduli, error, np.asarray(path), strict=True)
    ]
    if declared:
        return [_declared(case) for case in cases]
    first = np.asarray([_first(case) for case in cases])
    folded = np.asarray([i < process.steps and _solved(c.exits[i]) for c, i in zip(cases, first, strict=True)])
    others: list = [None] * len(cases)
    if folded.any():
        at = np.minimum(first, process.steps - 1)
        others = second_solutions(x, path, process, vectors, at)
    return [
        _looked_at(case, int(i), other if fold else None)
        for case, i, fold, other in zip(cases, first, folded, others, strict=True)
    ]


def tolerance(dtype) -> float:
    """The tolerance of an edit's inversion if none is given: 1e-10 in float64, 1e-6 in float32."""
    return 1e-10 if dtype == jnp.float64 else 1e-6


def _solved(code) -> bool:
    return Exit(int(code)).solved


def _first(case: _Case) -> int:
    """The first step that was not solved or where m is not known to be positive; the number of steps if there is none."""
    bad = ~np.asarray([_solved(code) for code in case.exits]) | ~(case.modulus > 0)
    return int(np.argmax(bad)) if bad.any() else len(bad)


def _stopped(case: _Case, i: int) -> str:
    return f"step {i + 1} was not solved ({Exit(int(case.exits[i])).name}, residual {case.residual[i]:.1e})"


def _declared(case: _Case) -> Finding:
    open_ = [i for i, code in enumerate(case.exits) if not _solved(code)]
    if not case.finite:
        return Finding(
            Verdict.INCONCLUSIVE, f"{_stopped(case, open_[0])}: no latent is known", None, open_[0] + 1, None
        )
    error = Bound(case.error, Evidence.ASSUMED, source="T8, T9, declared modulus")
    words = (
        f"the latent is unique and known to {case.error:.1e} (m >= {case.modulus.min():.2g} by the network's structure)"
    )
    if not open_:
        return Finding(Verdict.SUPPORTED, words, error, None, None)
    words = f"{_stopped(case, open_[0])}; {words}"
    return Finding(Verdict.INCONCLUSIVE, words, error, open_[0] + 1, None)


def _looked_at(case: _Case, i: int, other) -> Finding:
    if i == len(case.exits):
        error = Bound(case.error, Evidence.SAMPLED, source="T8, T9, moduli at the states visited")
        words = (
            f"no sign against uniqueness at the {i} states looked at (m at most {case.modulus.min():.2g}), "
            f"and the latent is known to about {case.error:.1e}, an estimate"
        )
        return Finding(Verdict.SUPPORTED, words, error, None, None)
    if not _solved(case.exits[i]):
        words = (
            f"no latent is known from step {i + 1} on: {_stopped(case, i)}, and the edit starts from where it stopped"
        )
        return Finding(Verdict.INCONCLUSIVE, words, None, i + 1, None)
    if other is not None:
        y, away = other
        words = f"not well posed from step {i + 1}: two states {away:.2g} apart lead to this image; the edit depends on the start"
        return Finding(Verdict.REFUTED, words, None, i + 1, y)
    words = (
        f"open from step {i + 1}: m is at most {case.modulus[i]:.2g} there, so nothing says that the latent is unique; "
        "other starts found no second one"
    )
    return Finding(Verdict.INCONCLUSIVE, words, None, i + 1, None)


def lowest(x: Inputs, path, process: Process, seed: int = 0):
    """The smallest Ritz value of sym J_D (n, steps) at the states y_1 … y_N of a path, and its unit vectors (n, steps, d)."""
    safe = jnp.where(jnp.isfinite(path), path, jnp.zeros_like(path))
    return _lowest(x, safe[:, 1:], jnp.asarray(process.sigmas[1:], path.dtype), jax.random.key(seed))


@jax.jit
def _lowest(x: Inputs, states, sigmas, key):
    n, steps = states.shape[:2]

    def one(point):
        y, sigma, c = point
        params = (x.den, sigma, c, x.guidance)
        operator = symmetric_part(lambda v: network(v, params), y)
        found = extreme_eigenvalues(operator, y.size, key, tol=1e-4, dtype=y.dtype)
        return found.low, found.low_vector

    flat = (states.reshape(n * steps, *states.shape[2:]), jnp.tile(sigmas, n), jnp.repeat(x.condition, steps))
    low, vectors = jax.lax.map(one, flat, batch_size=BATCH)
    return low.reshape(n, steps), vectors.reshape(n, steps, -1)


def second_solutions(
    x: Inputs, path, process: Process, vectors, at: np.ndarray
) -> list[tuple[np.ndarray, float] | None]:
    """For each image the solution of its step ``at`` that is farthest from the path's, with the distance; None where no start
    led to another.

    Starts lie along ``vectors`` (n, steps, d) from the path's solution, at FARTHER·sigma_t. Both must be solved, and APART.
    """
    rows = np.arange(len(at))
    sigma, rho = (jnp.asarray(v[at], path.dtype) for v in (process.sigmas[1:], process.rho))
    here, target = path[rows, at + 1], path[rows, at]
    direction = jnp.asarray(vectors)[rows, at].reshape(here.shape)
    out, residual = _restarted(x, here, target, direction, sigma, rho)
    away = np.linalg.norm(np.asarray(out - here[:, None]).reshape(*out.shape[:2], -1), axis=-1)
    floor = np.finfo(path.dtype).eps * np.linalg.norm(np.asarray(here).reshape(len(at), -1), axis=1)
    own = np.linalg.norm(np.asarray(_residual(x, here, target, sigma, rho)).reshape(len(at), -1), axis=1)
    worst = np.maximum(np.maximum(np.asarray(residual), own[:, None]), floor[:, None])
    away = np.where(away > APART * worst, away, 0.0)  # inf and NaN compare as False
    best = away.argmax(axis=1)
    return [
        (np.asarray(out[i, b]), float(away[i, b])) if away[i, b] > 0 else None for i, b in zip(rows, best, strict=True)
    ]


@jax.jit
def _restarted(x: Inputs, here, target, direction, sigma, rho):
    def one(y, y_s, v, c, sigma, rho):
        p = Step(x.den, sigma, rho, y_s, c, x.guidance)

        def again(length):
            return solve(G, y + length * sigma * v, p, tol=tolerance(y.dtype), limit=200, stop="residual")

        found = jax.vmap(again)(jnp.asarray(FARTHER, y.dtype))
        good = (found.exit == Exit.CONVERGED) | (found.exit == Exit.CONVERGED_TO_PRECISION)
        return found.y, jnp.where(good, found.residual, jnp.full_like(found.residual, jnp.inf))

    return jax.vmap(one)(here, target, direction, x.condition, sigma, rho)


@jax.jit
def _residual(x: Inputs, here, target, sigma, rho):
    def one(y, y_s, c, sigma, rho):
        return G(y, Step(x.den, sigma, rho, y_s, c, x.guidance)) - y

    return jax.vmap(one)(here, target, x.condition, sigma, rho)
