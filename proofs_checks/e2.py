"""E2: inverting a step means solving F(y) = y_s; the map that people iterate has exactly those fixed points.

**Statement.** Let F(y) = rho·y + (1 - rho)·D(y, sigma_t), rho = sigma_s/sigma_t, and G(y) = y_s + (1 - rho)·(y - D(y, sigma_t)).
Then G(y) - y = y_s - F(y): y is a fixed point of G if and only if the step takes y to y_s. In a variance-preserving
process with z = sqrt(abar)·y and eps = (y - D)/sigma_t, sqrt(abar_t)·G(z/sqrt(abar_t)) is the paper's map (its Eq. 7)

    f(z) = sqrt(abar_t/abar_s)·z_s + c_t·eps(z, t),   c_t = sqrt(1 - abar_t) - sqrt(abar_t/abar_s)·sqrt(1 - abar_s),

and f and G have the same Lipschitz constant. f(z_s), the first iterate from z_s, is naive DDIM inversion.

**Proof.** G(y) - y = y_s - rho·y - (1 - rho)·D(y) = y_s - F(y). For f put z = sqrt(abar_t)·y: sqrt(abar_t)·G(y) =
sqrt(abar_t)·y_s + sqrt(abar_t)·(1 - rho)·sigma_t·eps, where sqrt(abar_t)·y_s = sqrt(abar_t/abar_s)·z_s and, because
sqrt(abar_t)·sigma_t = sqrt(1 - abar_t) and sqrt(abar_t)·sigma_s = sqrt(abar_t/abar_s)·sqrt(1 - abar_s),
sqrt(abar_t)·(sigma_t - sigma_s) = c_t. If f(z) = a·g(z/a) with a > 0, |f(z) - f(w)| <= k·|z - w| for all z, w says
|g(y) - g(x)| <= k·|y - x| for all y, x: divide by a. ∎

**The paper** writes the same map; the identity holds for any eps whatsoever. What it needs in practice is that the network
is asked about the *noisier* level t: an inversion that evaluates eps(z, s), one index off, has other fixed points.
"""

import functools

import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="E2",
    title="inversion = solving F(y) = y_s; the paper's f is G in other coordinates",
    hypotheses={
        "levels": "0 <= sigma_s < sigma_t",
        "same-level": "G evaluates the denoiser where the step does, at sigma_t",
    },
    claim="G(y) - y = y_s - F(y); f(z) = sqrt(abar_t)·G(z/sqrt(abar_t)) with c_t = sqrt(1 - abar_t)·(1 - rho); "
    "f and G have the same Lipschitz constant",
    source="NeurIPS 2024, OpenReview 2wMJ4wq4az, Eq. 7; THEORY E2",
    formal=(
        Formal("e1.v", "e2_fixed_points", {}),
        Formal(
            "e1.v",
            "e2_paper_map",
            {
                "Habar_t": "0 < abar_t < 1",
                "Habar_s": "0 < abar_s <= 1",
                "Hsigma_t": "sigma_t = sqrt (1 - abar_t) / sqrt abar_t",
                "Hsigma_s": "sigma_s = sqrt (1 - abar_s) / sqrt abar_s",
                "HD": "forall z, D ((/ sqrt abar_t) [*] z) = (/ sqrt abar_t) [*] z [-] sigma_t [*] eps z",
            },
        ),
        Formal(
            "e1.v",
            "e2_scaling",
            {
                "Ha": "0 < a",
                "Hfg": "forall z, f z = a [*] g ((/ a) [*] z)",
            },
        ),
    ),
)


def instance() -> Instance:
    """DDPM's linear schedule, t = 700 to s = 650."""
    return Instance({"t": 700, "s": 650, "asked": 700})


def broken_instance() -> Instance:
    """The same with G one level off: it asks the network about s."""
    return Instance({"t": 700, "s": 650, "asked": 650}, violates="same-level")


@functools.cache
def symbolic() -> bool:
    """G(y) - y = y_s - F(y), f = sqrt(abar_t)·G, and c_t = sqrt(1 - abar_t)·(1 - rho), by sympy."""
    y, target, d, z = sympy.symbols("y y_s D z", real=True)
    s, t = sympy.symbols("sigma_s sigma_t", positive=True)
    rho = s / t
    g, f = target + (1 - rho) * (y - d), rho * y + (1 - rho) * d
    abar_s, abar_t = 1 / (1 + s**2), 1 / (1 + t**2)
    c = sympy.sqrt(1 - abar_t) - sympy.sqrt(abar_t / abar_s) * sympy.sqrt(1 - abar_s)
    paper = sympy.sqrt(abar_t / abar_s) * sympy.sqrt(abar_s) * target + c * (z / sympy.sqrt(abar_t) - d) / t
    gaps = (
        g - y - (target - f),
        paper - sympy.sqrt(abar_t) * g.subs(y, z / sympy.sqrt(abar_t)),
        c - sympy.sqrt(1 - abar_t) * (1 - rho),
    )
    return all(sympy.simplify(gap) == 0 for gap in gaps)


def network(z, t: int):
    """A nonlinear eps(z, t) that depends on the time."""
    mix = np.cos(np.arange(z.shape[-1] ** 2) * (1 + t / 1000)).reshape(z.shape[-1], -1)
    return np.tanh(z @ mix)


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Both identities and the Lipschitz ratios at random points; then a step downwards, whose start must be a fixed point."""
    from fpjax import process

    t, s, asked = (instance.data[k] for k in ("t", "s", "asked"))
    abar = process.alphas_bar("linear")
    (a_t, a_s), (sigma_t, sigma_s) = np.sqrt(abar[[t, s]]), process.vp_sigma(abar[[t, s]])
    rho, c_t = sigma_s / sigma_t, np.sqrt(1 - abar[t]) - a_t / a_s * np.sqrt(1 - abar[s])
    rng = np.random.default_rng(seed)
    z, w, z_s = rng.normal(size=(3, samples, 8))

    def down(y):
        return rho * y + (1 - rho) * (y - sigma_t * network(a_t * y, t))

    def g(y, y_s):
        return y_s + (1 - rho) * sigma_t * network(a_t * y, asked)

    def f(z, z_s):
        return a_t / a_s * z_s + c_t * network(z, t)

    y, x, y_s = z / a_t, w / a_t, z_s / a_s
    residual = float(np.abs(g(y, y_s) - y - (y_s - down(y))).max())
    scaled = float(np.abs(f(z, z_s) - a_t * g(y, y_s)).max())
    fixed = float(np.abs(g(y, down(y)) - y).max())

    def ratios(image, a, b):
        return np.linalg.norm(image(a) - image(b), axis=1) / np.linalg.norm(a - b, axis=1)

    lipschitz = float(np.abs(ratios(lambda v: f(v, z_s), z, w) - ratios(lambda v: g(v, y_s), y, x)).max())
    worst = max(residual, scaled, fixed, lipschitz)
    hypotheses = {
        "levels": 0 <= sigma_s < sigma_t,
        "same-level": bool((network(z, asked) == network(z, t)).all()),
    }
    detail = (
        f"G(y) - y against y_s - F(y): {residual:.1e}; f against G: {scaled:.1e}; true start as fixed point: {fixed:.1e}; "
        f"Lipschitz ratios: {lipschitz:.1e}; c_t symbolic"
    )
    figures = {"residual": residual, "scaled": scaled, "fixed": fixed, "lipschitz": lipschitz}
    return conclude(hypotheses, worst < 1e-10 and symbolic(), "symbolic, sampled", samples, detail, figures)
