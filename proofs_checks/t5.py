"""T5: the relaxed iteration converges whenever m > 0, contraction or not.

**Statement.** Let F be strongly monotone with modulus m > 0 and Lipschitz with constant L, and 0 < omega < 2m/L². Then
y <- y + omega·(y_s - F(y)) converges from everywhere to the one solution y* of F(y) = y_s, with
|y_k - y*| <= q^k·|y_0 - y*|, q = sqrt(1 - 2·omega·m + omega²·L²) < 1. The best omega is m/L², with q = sqrt(1 - m²/L²).

**Proof** (Zarantonello 1960). Let T(y) = y + omega·(y_s - F(y)), d = a - b and e = F(a) - F(b). Then T(a) - T(b) is
d - omega·e and

    |d - omega·e|² = |d|² - 2·omega·<e, d> + omega²·|e|² <= (1 - 2·omega·m + omega²·L²)·|d|² = q²·|d|².

The bracket is below 1 exactly when omega·L² < 2m, so T contracts with q < 1. Banach's theorem (T3) gives one fixed point y*,
and the rate; T(y) = y is F(y) = y_s. Completing the square, q² = 1 - m²/L² + (omega·L - m/L)², least at omega = m/L². ∎

omega = 1 is plain iteration: T = G. It needs contraction; T5 does not.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T5",
    title="relaxed iteration converges for strongly monotone Lipschitz F",
    hypotheses={
        "modulus": "<F(a) - F(b), a - b> >= m·|a - b|² with m > 0",
        "lipschitz": "|F(a) - F(b)| <= L·|a - b|",
        "relaxation": "0 < omega < 2m/L²",
    },
    claim="errors fall by q = sqrt(1 - 2·omega·m + omega²·L²) < 1 an iteration; omega = m/L² is best, q = sqrt(1 - m²/L²)",
    source="Zarantonello 1960; THEORY T5",
    formal=(
        Formal(
            "t5.v",
            "t5_relaxed",
            {
                "HV": "complete V",
                "Hm": "0 < m",
                "HL": "0 < L",
                "Hmonotone": "forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩",
                "Hlipschitz": "forall u v, norm (F u [-] F v) <= L * norm (u [-] v)",
                "Homega": "0 < omega < 2 * m / L ^ 2",
            },
        ),
        Formal(
            "t5.v",
            "t5_best",
            {
                "Hm": "0 < m",
                "HL": "0 < L",
            },
        ),
    ),
)

POINTS = np.array([[-1.0, 0.2], [1.0, 0.0], [0.3, 0.8]])


def instance() -> Instance:
    """Three points in the plane and a step at which plain iteration fails; the best relaxation."""
    return Instance({"sigma": 0.35, "rho": 0.2, "relaxation": 1.0})


def broken_instance() -> Instance:
    """The same with a relaxation beyond 2m/L²."""
    return Instance({"sigma": 0.35, "rho": 0.2, "relaxation": 2.5}, violates="relaxation")


@functools.cache
def best() -> bool:
    """q² = 1 - m²/L² + (omega·L - m/L)², least at m/L²; q² < 1 exactly for 0 < omega < 2m/L², by sympy."""
    m, lipschitz, omega = sympy.symbols("m L omega", positive=True)
    q2 = 1 - 2 * omega * m + omega**2 * lipschitz**2
    square = sympy.expand(q2 - (1 - m**2 / lipschitz**2 + (omega * lipschitz - m / lipschitz) ** 2)) == 0
    least = sympy.solve(sympy.diff(q2, omega), omega) == [m / lipschitz**2]
    edge = sympy.expand(1 - q2 - omega * lipschitz**2 * (2 * m / lipschitz**2 - omega)) == 0
    return square and least and edge


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """m = rho and L = rho + (1 - rho)·Lambda are proved for exact denoisers (E3); tested on pairs, then 500 iterations."""
    from fpjax.models import exact, mixture

    sigma, rho, relaxation = (instance.data[k] for k in ("sigma", "rho", "relaxation"))
    den = exact.empirical(POINTS)
    params = jax.tree.map(jnp.asarray, den.params)
    diameter = max(np.linalg.norm(a - b) for a in POINTS for b in POINTS)
    m, lipschitz = rho, rho + (1 - rho) * diameter**2 / (4 * sigma**2)
    omega = relaxation * m / lipschitz**2

    @jax.vmap
    def f(y):
        return rho * y + (1 - rho) * mixture.denoise(params, y, jnp.asarray(sigma), jnp.asarray(0))

    rng = np.random.default_rng(seed)
    a, b, star = jnp.asarray(rng.normal(size=(3, samples, 2)) * 1.5)
    d, e = a - b, f(a) - f(b)
    monotone = bool((jnp.sum(e * d, axis=1) >= m * jnp.sum(d * d, axis=1) - 1e-12).all())
    bounded = bool((jnp.linalg.norm(e, axis=1) <= lipschitz * jnp.linalg.norm(d, axis=1) + 1e-12).all())
    allowed = 0 < omega < 2 * m / lipschitz**2
    q = float(np.sqrt(1 - 2 * omega * m + omega**2 * lipschitz**2))
    target = f(star)

    def move(y, _):
        y = y + omega * (target - f(y))
        return y, jnp.linalg.norm(y - star, axis=1)

    errors = jax.lax.scan(move, a, None, length=500)[1]
    start = jnp.linalg.norm(a - star, axis=1)
    powers = jnp.asarray(q ** np.arange(1, 501))
    worst = float((errors / (powers[:, None] * start[None, :])).max())
    plain = jax.lax.scan(lambda y, _: (y + target - f(y), None), a, None, length=500)[0]
    lost = float((jnp.linalg.norm(target - f(plain), axis=1) > 1e-3).mean())
    hypotheses = {"modulus": m > 0 and monotone, "lipschitz": bounded, "relaxation": allowed}
    claim = q < 1 and worst <= 1 + 1e-9 and best() if allowed else None
    detail = (
        f"q = {q:.6f}, error over its bound at most {worst:.4g}; plain iteration misses {lost:.0%} of the solutions"
    )
    figures = {"q": q, "worst": worst, "plain_lost": lost}
    return conclude(hypotheses, claim, "symbolic, sampled", samples, detail, figures)
