"""One-step samplers beyond E1, written as E1: every step F is rho·y + (1 - rho)·D~(y) with an effective denoiser D~.

    D~(y) = (F(y) - rho·y)/(1 - rho),      J_F = rho + (1 - rho)·J~,      G(y) = y_s + (1 - rho)·(y - D~(y))

so that T2, T3, T5, T8, T9 and T13 hold word for word with J~ for J, and every solver and question of the package applies. By
the chain rule a step with two stages (Heun, DPM-Solver++ 2S) has, J1 at y and J2 at the middle state c·y + (1 - c)·D(y),

    J~ = (1 - theta)·J1 + theta·J2·(c + (1 - c)·J1)

which is in general not symmetric and not monotone even where J1 and J2 are: E3 and T6 are lost, and so is the safety of T2 at
every step size. For T3, with K = ||I - J|| at either point and

    I - J~ = (1 - theta)·(I - J1) + theta·[(I - J2) + (1 - c)·J2·(I - J1)]

one has kappa <= (1 - rho)·[(|1 - theta| + |theta|·(1 - c)·||J2||)·K1 + |theta|·K2]. The audit measures J~ itself.

In this room: that denoiser. Not in this room: coefficients (samplers), multistep samplers, whose step has a memory (multistep).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.denoiser import Denoiser, Facts, evaluate
from fpjax.evidence import FpjaxError
from fpjax.process import Process
from fpjax.samplers import MULTISTEP, Row


class Stages(NamedTuple):
    """What an effective denoiser depends on.

    Attributes:
      den: the denoiser. guidance: scalar w, applied at every stage, or None.
      sigma: sigma_t of each step, by which a step's row is found, (steps,).
      rho: of each step, (steps,). rows: :class:`fpjax.samplers.Row` of each step, (steps, 8).
    """

    den: Denoiser
    guidance: jax.Array | None
    sigma: jax.Array
    rho: jax.Array
    rows: jax.Array


def _one_stage(params: Stages, y, sigma, condition):
    return _denoise(params, y, sigma, condition, False)


def _two_stages(params: Stages, y, sigma, condition):
    return _denoise(params, y, sigma, condition, True)


def _denoise(p: Stages, y, sigma, condition, second: bool):
    """D~ at y, for the step whose sigma_t is nearest to ``sigma``."""
    i = jnp.argmin(jnp.abs(p.sigma - sigma))
    rho, r = p.rho[i], Row(*p.rows[i])
    d = evaluate(p.den, r.e * y, r.sigma1, condition, p.guidance)
    image = (r.a - rho) * y + r.b1 * d
    if second:
        image = image + r.b2 * evaluate(p.den, r.c * y + r.g * d, r.sigma2, condition, p.guidance)
    return image / (1 - rho)


def stages(process: Process) -> int:
    """Evaluations of D in one step (the most of any step)."""
    return 2 if any(Row(*row).b2 for row in process.table if process.sampler not in MULTISTEP) else 1


def effective(den: Denoiser, process: Process, guidance=None) -> Denoiser:
    """D~ of a process: the denoiser with which its steps are E1 at the process's own ``rho``.

    It has no conditions of its own by name, but is called with the same indices. Declared facts are kept where they hold:
    symmetry and monotonicity where every step has one stage and a >= rho.

    Args:
      den: the denoiser, its parameters in the precision of the computation. process: with a one-step sampler.
      guidance: scalar w at every stage, or None.

    Raises:
      FpjaxError: for a multistep sampler.
    """
    if process.sampler in MULTISTEP:
        raise FpjaxError(f"a step of {process.sampler} also depends on states before it; it has no effective denoiser")
    if not process.table:
        raise FpjaxError("the steps of this process are E1 already; its denoiser is the denoiser")
    rows = np.asarray(process.table, np.float64)
    columns = (jnp.asarray(a) for a in (process.sigmas[1:], process.rho, rows))
    params = Stages(den, guidance, *columns)
    two = stages(process) == 2
    single = not two and guidance is None
    kept = single and bool((rows[:, 0] >= process.rho * (1 - 1e-12)).all())
    facts = Facts(single and den.facts.symmetric, kept and den.facts.monotone, kept and den.facts.bounded)
    name = f"{den.name} ({process.sampler})"
    return Denoiser(params, _two_stages if two else _one_stage, den.shape, facts=facts, name=name)
