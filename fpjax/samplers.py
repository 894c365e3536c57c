"""Samplers as tables of numbers: what a step is made of, for every process.

In this room: the coefficients of Heun, DPM-Solver++ 2S and 2M, and UniPC, in y-coordinates, where all of them keep
constant denoisers exact (so does E1) and none needs to know the process. Not in this room: networks, evaluation
(composite, multistep).

Two kinds of table. A one-step sampler's row is a :class:`Row`. A multistep sampler's row holds the weights of

    y_i = rho·y_(i+1) + (1 - rho)·sum_k w_k·D(y_(i+k), sigma_(i+k)),      k = 1 … K,  sum of w = 1,

i the step's lower level in inversion order; weights beyond the noisiest level are 0.
"""

import dataclasses
import itertools
import math
from typing import NamedTuple

import numpy as np

from fpjax.evidence import FpjaxError
from fpjax.process import PURE_NOISE, Process

ONE_STEP = ("euler", "heun", "dpm2s")
MULTISTEP = ("dpm2m", "unipc")
SAMPLERS = (*ONE_STEP, *MULTISTEP)


class Row(NamedTuple):
    """One step of a one-step sampler, F(y) = a·y + b1·d1 + b2·d2.

    d1 = D(e·y, sigma1) and, where b2 is not 0, d2 = D(c·y + g·d1, sigma2). E1 is a = rho, b1 = 1 - rho, e = 1.
    """

    a: float
    b1: float
    e: float
    sigma1: float
    c: float
    g: float
    b2: float
    sigma2: float


def first_order(a: float, b: float, sigma: float, e: float = 1.0) -> Row:
    """F(y) = a·y + b·D(e·y, sigma)."""
    return Row(a, b, e, sigma, 0.0, 0.0, 0.0, sigma)


def pure_noise_label(below: float) -> float:
    """A finite label S for the infinite noise level above ``below``: of its size, so that y = S·u is of y_s's size."""
    return 2 * below if below > 0 else 1.0


def pure_noise(sigma: float, label: float) -> Row:
    """E1 from pure noise u down to ``sigma``: y_s = sigma·u + D(u), with y = label·u."""
    return first_order(sigma / label, 1.0, PURE_NOISE, PURE_NOISE / label)


def two_stage(sigma_t: float, sigma_s: float, sigma_mid: float, theta: float) -> Row:
    """rho·y + (1 - rho)·[(1 - theta)·d1 + theta·d2], d2 at ``sigma_mid`` after an E1 step there."""
    rho, mid = sigma_s / sigma_t, sigma_mid / sigma_t
    return Row(rho, (1 - rho) * (1 - theta), 1.0, sigma_t, mid, 1 - mid, (1 - rho) * theta, sigma_mid)


def heun(sigma_t: float, sigma_s: float) -> Row:
    """Heun's step (Karras et al. 2022, algorithm 1): theta = 1/(2·rho), d2 at sigma_s; E1 where sigma_s is 0."""
    if sigma_s == 0:
        return first_order(0.0, 1.0, sigma_t)
    return two_stage(sigma_t, sigma_s, sigma_s, sigma_t / (2 * sigma_s))


def dpm2s(sigma_t: float, sigma_s: float, sigma_mid: float | None = None) -> Row:
    """DPM-Solver++(2S) (Lu et al. 2022b, algorithm 1, midpoint): theta = 1/(2·r), r the part of the step in log sigma.

    ``sigma_mid`` is half way (r = 1/2) unless given; E1 where sigma_s is 0.
    """
    if sigma_s == 0:
        return first_order(0.0, 1.0, sigma_t)
    mid = math.sqrt(sigma_t * sigma_s) if sigma_mid is None else sigma_mid
    r = math.log(sigma_t / mid) / math.log(sigma_t / sigma_s)
    return two_stage(sigma_t, sigma_s, mid, 1 / (2 * r))


def dpm2m(levels, *, solver_type: str = "midpoint", last: str = "auto") -> np.ndarray:
    """Weights (steps, 2) of DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2).

    Args:
      levels: noise levels, increasing. The first step from the noisiest level is E1.
      solver_type: "midpoint", or "heun" for the other second-order rule of diffusers.
      last: whether the cleanest step is "first" (E1) or "second" order; "auto" is first order below 15 steps or where
        it ends at sigma = 0 (diffusers' ``lower_order_final``).
    """
    steps = len(levels) - 1
    weights = np.zeros((steps, 2))
    weights[:, 0] = 1.0
    for i in range(steps - 1):
        ends = levels[i] == 0 or last == "first" or (last == "auto" and steps < 15)
        if i == 0 and ends:
            continue
        h, before = math.log(levels[i + 1] / levels[i]), math.log(levels[i + 2] / levels[i + 1])
        part = 0.5 if solver_type == "midpoint" else 1 / -math.expm1(-h) - 1 / h
        weights[i] = 1 + part * h / before, -part * h / before
    return weights


def unipc(levels, *, order: int = 2, solver_type: str = "bh2", lower_order_final: bool = True) -> np.ndarray:
    """Weights (steps, 3) of UniPC (order 1 or 2) with its corrector (Zhao et al. 2023), for the predicted states.

    The corrector changes the state that a step starts from and not the one where the network is evaluated, and its
    changes are linear in the outputs of the network: seen from the predicted states the sampler is a linear multistep
    method, with one output more than the predictor alone.
    """
    steps = len(levels) - 1
    weights = np.zeros((steps, 3))
    shift = np.zeros(
        3
    )  # the corrected state minus the predicted one, as multiples of D at its own level and those above
    for i in range(steps - 1, -1, -1):
        rho = levels[i] / levels[i + 1]
        first = order == 1 or i == steps - 1 or (i == 0 and (lower_order_final or levels[0] == 0))
        step = np.asarray([1 - rho, 0.0, 0.0])  # of the prediction, as multiples of D at the levels from i + 1 on up
        if not first:
            step += _unipc_slope(levels, i, solver_type) * np.asarray([-0.5, 0.5, 0.0])
        weights[i] = (rho * shift + step) / (1 - rho)
        if i > 0:
            shift = _unipc_shift(levels, i, solver_type, first)
    return weights


def _unipc_step(levels, i: int, solver_type: str) -> tuple[float, float, float]:
    """Of step i: -h, B(h), and r of the output before (Zhao et al. 2023, theorem 3.1)."""
    h = math.log(levels[i + 1] / levels[i])
    before = math.log(levels[i + 2] / levels[i + 1]) if i + 2 < len(levels) else math.inf
    return -h, math.expm1(-h) if solver_type == "bh2" else -h, -before / h


def _unipc_slope(levels, i: int, solver_type: str) -> float:
    """What the prediction adds for each unit of half the difference of the last two outputs."""
    _, gap, r = _unipc_step(levels, i, solver_type)
    return -gap / r


def _unipc_shift(levels, i: int, solver_type: str, first: bool) -> np.ndarray:
    """The corrected state of level i minus the predicted one, as multiples of D at levels i, i + 1 and i + 2."""
    hh, gap, r = _unipc_step(levels, i, solver_type)
    if first:
        return -gap * 0.5 * np.asarray([1.0, -1.0, 0.0])
    phi = math.expm1(hh) / hh - 1
    right = np.asarray([phi, 2 * (phi / hh - 0.5)]) / gap
    back, new = np.linalg.solve(np.asarray([[1.0, 1.0], [r, 1.0]]), right)
    slope = np.asarray([0.0, -1.0, 1.0]) / r
    return -gap * (back * slope + new * np.asarray([1.0, -1.0, 0.0])) + gap * 0.5 * slope


def with_sampler(process: Process, sampler: str, **options) -> Process:
    """The same noise levels, stepped by another sampler.

    Args:
      process: noise levels of a process stepped by E1.
      sampler: one of :data:`SAMPLERS`.
      options: of the sampler; see :func:`dpm2s`, :func:`dpm2m`, :func:`unipc`.

    Raises:
      FpjaxError: for an unknown sampler or option, or a process that is not stepped by plain E1.
    """
    if sampler not in SAMPLERS:
        raise FpjaxError(f"unknown sampler {sampler!r}; choose one of {', '.join(SAMPLERS)}")
    if process.table:
        raise FpjaxError(
            f"this process already has coefficients of its own ({process.sampler}); start from a plain one"
        )
    levels, pairs = process.levels, list(itertools.pairwise(process.levels))
    makers = {
        "euler": lambda: (),
        "heun": lambda: [heun(t, s) for s, t in pairs],
        "dpm2s": lambda: [dpm2s(t, s) for s, t in pairs],
        "dpm2m": lambda **o: dpm2m(levels, **o).tolist(),
        "unipc": lambda **o: unipc(levels, **o).tolist(),
    }
    try:
        rows = makers[sampler](**options)
    except TypeError as error:
        raise FpjaxError(f"{sampler} does not take these options: {', '.join(options)}") from error
    return dataclasses.replace(process, sampler=sampler, table=tuple(tuple(map(float, row)) for row in rows))
