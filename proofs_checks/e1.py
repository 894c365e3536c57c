"""E1: one deterministic first-order step is a relaxation towards the denoiser.

**Statement.** Let abar_s, abar_t in (0, 1), sigma = sqrt((1 - abar)/abar), z = sqrt(abar)·y, and let eps be any function. The
DDIM step with eta = 0 (Song et al. 2021, Eq. 12)

    z_s = sqrt(abar_s)·(z_t - sqrt(1 - abar_t)·eps)/sqrt(abar_t) + sqrt(1 - abar_s)·eps,   eps = eps(z_t, t)

is, in y-coordinates and with D = y_t - sigma_t·eps,

    y_s = rho·y_t + (1 - rho)·D,   rho = sigma_s/sigma_t.

**Proof.** Divide by sqrt(abar_s): y_s = z_t/sqrt(abar_t) - sqrt(1 - abar_t)/sqrt(abar_t)·eps + sqrt(1 - abar_s)/sqrt(abar_s)·eps
= y_t - sigma_t·eps + sigma_s·eps. From D: eps = (y_t - D)/sigma_t. So y_s = D + rho·(y_t - D). ∎

The EDM Euler step, y + (sigma_s - sigma_t)·(y - D)/sigma_t, is the same line; so is the rectified-flow Euler step
x_s = x_t + (s - t)·v with x = y/(1 + sigma), t = sigma/(1 + sigma) and v = (x_t - D)/t:
(1 + sigma_s)·x_s = y_s. All three are checked symbolically below, and DDIM's step on a schedule's numbers as well.
"""

import functools

import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="E1",
    title="one DDIM / EDM Euler / rectified-flow step is rho·y + (1 - rho)·D(y)",
    hypotheses={
        "levels": "0 <= sigma_s < sigma_t",
        "deterministic": "the step adds no fresh noise (eta = 0)",
    },
    claim="the step from sigma_t to sigma_s is y_s = rho·y_t + (1 - rho)·D(y_t, sigma_t), in every one of the processes",
    source="DDIM: Song, Meng & Ermon 2021, Eq. 12; EDM: Karras et al. 2022; THEORY E1",
    formal=(
        Formal(
            "e1.v",
            "e1_variance_preserving",
            {
                "Habar_t": "0 < abar_t < 1",
                "Habar_s": "0 < abar_s <= 1",
                "Hsigma_t": "sigma_t = sqrt (1 - abar_t) / sqrt abar_t",
                "Hsigma_s": "sigma_s = sqrt (1 - abar_s) / sqrt abar_s",
                "Hx0": "x0 = (/ sqrt abar_t) [*] (z_t [-] sqrt (1 - abar_t) [*] eps)",
                "Hstep": "z_s = sqrt abar_s [*] x0 [+] sqrt (1 - abar_s) [*] eps",
            },
        ),
        Formal(
            "e1.v",
            "e1_velocity",
            {
                "Habar": "0 < abar < 1",
                "Hz": "z = sqrt abar [*] x0 [+] sqrt (1 - abar) [*] eps",
                "Hv": "v = sqrt abar [*] eps [-] sqrt (1 - abar) [*] x0",
            },
        ),
        Formal(
            "e1.v",
            "e1_variance_exploding",
            {
                "Hsigma": "0 < sigma_t",
                "Hstep": "y_s = y_t [+] (sigma_s - sigma_t) [*] ((/ sigma_t) [*] (y_t [-] D))",
            },
        ),
        Formal(
            "e1.v",
            "e1_rectified_flow",
            {
                "Ht": "0 < t < 1",
                "Hs": "0 <= s < 1",
                "Hsigma_t": "sigma_t = t / (1 - t)",
                "Hsigma_s": "sigma_s = s / (1 - s)",
                "Hstep": "x_s = x_t [+] (s - t) [*] v",
            },
        ),
    ),
)


def instance() -> Instance:
    """DDPM's linear schedule, t = 700 to s = 650."""
    return Instance({"t": 700, "s": 650, "eta": 0.0})


def broken_instance() -> Instance:
    """The same with eta = 1: the step draws noise, and no relaxation gives it."""
    return Instance({"t": 700, "s": 650, "eta": 1.0}, violates="deterministic")


def ddim_step(z, eps, abar_t, abar_s, eta, noise):
    """DDIM's step in z-coordinates, written as in the paper."""
    spread = eta * np.sqrt((1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s))
    x0 = (z - np.sqrt(1 - abar_t) * eps) / np.sqrt(abar_t)
    return np.sqrt(abar_s) * x0 + np.sqrt(1 - abar_s - spread**2) * eps + spread * noise


@functools.cache
def symbolic() -> bool:
    """The DDIM, EDM and rectified-flow identities, by sympy."""
    y, d, eps = sympy.symbols("y D eps", real=True)
    s, t = sympy.symbols("sigma_s sigma_t", positive=True)
    step = s / t * y + (1 - s / t) * d
    root_s, root_t = 1 / sympy.sqrt(1 + s**2), 1 / sympy.sqrt(1 + t**2)  # sqrt(abar); sqrt(1 - abar) = sigma·sqrt(abar)
    x0 = (root_t * y - t * root_t * eps) / root_t
    ddim = (root_s * x0 + s * root_s * eps) / root_s
    edm = y + (s - t) * (y - d) / t
    time_s, time_t = s / (1 + s), t / (1 + t)
    x = y / (1 + t)
    flow = (x + (time_s - time_t) * (x - d) / time_t) * (1 + s)
    gaps = ddim - step.subs(d, y - t * eps), edm - step, flow - step
    return all(sympy.simplify(gap) == 0 for gap in gaps)


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Compares E1 with DDIM's formula on a nonlinear eps; relative 1e-12 in float64."""
    from fpjax import process

    abar = process.alphas_bar("linear")
    abar_t, abar_s, eta = abar[instance.data["t"]], abar[instance.data["s"]], instance.data["eta"]
    sigma_t, sigma_s = process.vp_sigma(abar_t), process.vp_sigma(abar_s)
    rho = sigma_s / sigma_t
    rng = np.random.default_rng(seed)
    z, noise = rng.normal(size=(2, samples, 8))
    eps = np.tanh(z @ rng.normal(size=(8, 8)))
    y = z / np.sqrt(abar_t)
    d = y - sigma_t * eps
    relaxation = (rho * y + (1 - rho) * d) * np.sqrt(abar_s)
    wanted = ddim_step(z, eps, abar_t, abar_s, eta, noise)
    error = float(np.abs(relaxation - wanted).max() / np.abs(wanted).max())
    hypotheses = {"levels": 0 <= sigma_s < sigma_t, "deterministic": eta == 0}
    detail = f"DDIM's formula against E1: {error:.1e} (relative); DDIM, EDM and flow symbolic"
    return conclude(hypotheses, error < 1e-12 and symbolic(), "symbolic, sampled", samples, detail, {"step": error})
