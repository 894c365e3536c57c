"""T4: the paper's contraction factor 1 - k·sqrt(abar), 0 < k < 1, and a counterexample to it.

**The paper's claim.** |f(a) - f(b)| <= (1 - k·sqrt(abar_t))·|a - b| with a number 0 < k < 1, hence (Banach) existence,
uniqueness and convergence at every step. It rests on |c_t| <= sqrt(1 - abar_t) and on D(a) - D(b) = k·(a - b) in
z-coordinates for a scalar 0 < k < 1.

**What is true.** f'(z) = c_t/sqrt(1 - abar_t)·(1 - sqrt(abar_t)·k(z)) = (1 - rho)·(1 - J_D) with
k(z) = sqrt(abar_t)/(1 - abar_t)·Cov(x0 | z), a positive semidefinite matrix whose eigenvalues may be 0 or far above 1.

**Proof.** eps = (z - sqrt(abar)·D)/sqrt(1 - abar), so d eps/dz = (1 - sqrt(abar)·dD/dz)/sqrt(1 - abar), and dD/dz =
sqrt(abar)/(1 - abar)·Cov(x0 | z) =: k(z) by Tweedie (E3). c_t/sqrt(1 - abar_t) = 1 - rho by E1's coordinates. ∎

**Counterexample.** Data ±1 on the line, equally likely: D(y) = tanh(y/sigma²), Cov at y = 0 is 1. Stable Diffusion's schedule,
50 steps, t = 20, s = 0: k(0) is about 53 and f'(0) about -40.6. From z_s = 0.05 plain iteration does not converge; the
solution is unique all the same (T2: m >= rho > 0), and a relaxed iteration (T5) finds it.

The *claim* that is checked: where 0 < k(z) < 1 at every z, the paper's bound holds. The hypothesis is what fails.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T4",
    title="the paper's factor 1 - k·sqrt(abar) needs 0 < k < 1, which exact denoisers break",
    hypotheses={"k": "0 < k(z) < 1 with k = sqrt(abar)/(1 - abar)·Cov(x0 | z), at every z"},
    claim="|f'(z)| <= 1 - min k·sqrt(abar_t) < 1, and plain iteration converges",
    source="NeurIPS 2024, OpenReview 2wMJ4wq4az, Eq. 11-14, read against E3; THEORY T4",
    formal=(
        Formal(
            "t4.v",
            "t4_factor",
            {
                "Habar_t": "0 < abar_t < 1",
                "Habar_s": "0 < abar_s <= 1",
                "Hsigma_t": "sigma_t = sqrt (1 - abar_t) / sqrt abar_t",
                "Hsigma_s": "sigma_s = sqrt (1 - abar_s) / sqrt abar_s",
            },
        ),
        Formal(
            "t4.v",
            "t4_expands",
            {
                "Hrho": "0 <= rho < 1",
                "Heigenvector": "J v = lambda [*] v",
                "Hlambda": r"lambda <= - rho / (1 - rho) \/ (2 - rho) / (1 - rho) <= lambda",
            },
        ),
    ),
)


def instance() -> Instance:
    """Data ±1 with so much noise that the posterior variance is below sigma²: t = 900 of Stable Diffusion's schedule."""
    return Instance({"t": 900, "s": 880, "z_s": 0.05, "spread": 0.8})


def broken_instance() -> Instance:
    """The counterexample: t = 20 of 50 steps, z_s = 0.05."""
    return Instance({"t": 20, "s": 0, "z_s": 0.05, "spread": 0.8}, violates="k")


def figures(t: int, s: int, z_s: float) -> dict[str, float]:
    """k(0), f'(0), and what plain and relaxed iteration reach from z_s, for data ±1 on Stable Diffusion's schedule."""
    from fpjax import process
    from fpjax.models import exact
    from fpjax.solve import solve
    from fpjax.step import G, Step

    abar = process.alphas_bar("scaled_linear")
    sigma_t, sigma_s = process.vp_sigma(abar[t]), process.vp_sigma(abar[s])
    rho = sigma_s / sigma_t
    den = exact.mixture(np.array([[-1.0], [1.0]]), 0.0).astype(jnp.float64)
    y_s = jnp.asarray([z_s / np.sqrt(abar[s])])
    p = Step(den, jnp.asarray(sigma_t), jnp.asarray(rho), y_s, jnp.int32(0))
    slope = jax.jacfwd(lambda y: G(y, p))(jnp.zeros(1))[0, 0]
    plain = solve(G, y_s, p, solver="picard", tol=1e-12, limit=200)
    relaxed = solve(G, y_s, p, solver="relaxed", tol=1e-12, limit=200)
    return {
        "k(0)": float(np.sqrt(abar[t]) / (1 - abar[t])),
        "slope(0)": float(slope),
        "rho": float(rho),
        "plain residual": float(plain.residual),
        "plain exit": float(plain.exit),
        "relaxed residual": float(relaxed.residual),
        "relaxed exit": float(relaxed.exit),
        "solution": float(relaxed.y[0]),
    }


@functools.cache
def factor_formula() -> bool:
    """f'(z) = (1 - rho)·(1 - sqrt(abar_t)·k) with k = sqrt(abar_t)/(1 - abar_t)·Cov, and c_t/sqrt(1 - abar_t) = 1 - rho."""
    z, target, covariance = sympy.symbols("z z_s Cov", real=True)
    s, t = sympy.symbols("sigma_s sigma_t", positive=True)
    abar_s, abar_t = 1 / (1 + s**2), 1 / (1 + t**2)
    c = sympy.sqrt(1 - abar_t) - sympy.sqrt(abar_t / abar_s) * sympy.sqrt(1 - abar_s)
    d = sympy.Function("d")  # D as a function of y; E3: its slope is Cov/sigma²
    eps = (z - sympy.sqrt(abar_t) * d(z / sympy.sqrt(abar_t))) / sympy.sqrt(1 - abar_t)
    slope = sympy.diff(sympy.sqrt(abar_t / abar_s) * target + c * eps, z).doit()
    inner = next(iter(slope.atoms(sympy.Subs)), None) or next(iter(slope.atoms(sympy.Derivative)))
    slope = slope.subs(inner, covariance / t**2)
    k = sympy.sqrt(abar_t) / (1 - abar_t) * covariance
    wanted = (1 - s / t) * (1 - sympy.sqrt(abar_t) * k)
    return sympy.simplify(slope - wanted) == 0 and sympy.simplify(c / sympy.sqrt(1 - abar_t) - (1 - s / t)) == 0


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """k(z) on a grid, |f'| against the paper's factor there, and plain against relaxed iteration."""
    from fpjax import process

    t, s, z_s, spread = (instance.data[k] for k in ("t", "s", "z_s", "spread"))
    abar = process.alphas_bar("scaled_linear")
    sigma_t = process.vp_sigma(abar[t])
    rho = process.vp_sigma(abar[s]) / sigma_t
    y = np.linspace(-spread, spread, samples)
    covariance = 1 - np.tanh(y / sigma_t**2) ** 2
    k = np.sqrt(abar[t]) / (1 - abar[t]) * covariance
    slope = (1 - rho) * (1 - covariance / sigma_t**2)
    factor = 1 - k.min() * np.sqrt(abar[t])
    found = figures(t, s, z_s)
    ok = bool(np.abs(slope).max() <= factor + 1e-12 and found["plain residual"] <= 1e-12)
    hypotheses = {"k": k.min() > 0 and k.max() < 1}
    detail = (
        f"k in [{k.min():.3g}, {k.max():.3g}], f'(0) = {found['slope(0)']:.4g}; plain iteration ends at residual "
        f"{found['plain residual']:.2g}, relaxed at {found['relaxed residual']:.1e}"
    )
    return conclude(hypotheses, ok and factor_formula(), "symbolic, sampled", samples, detail, found)
