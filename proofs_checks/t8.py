"""T8: the residual bounds the error: by r/m under monotonicity, by r/(1 - kappa) under contraction.

**Statement.** Let F(y*) = y_s and r = |y_s - F(y)|. If F is strongly monotone with modulus m > 0, |y - y*| <= r/m.
If G(y) = y_s + (1 - rho)·(y - D(y)) contracts with kappa < 1, |y - y*| <= r/(1 - kappa).

**Proof.** Let d = y - y*. By monotonicity and Cauchy-Schwarz m·|d|² <= <F(y) - F(y*), d> <= |F(y) - y_s|·|d| = r·|d|; divide.
For the second, G(y) - y = y_s - F(y) (E2) and G(y*) = y*, so |d| <= |y - G(y)| + |G(y) - G(y*)| <= r + kappa·|d|. ∎

So the step-to-step residual is a sound stopping rule as soon as m or kappa is known, and no rule at all when neither is.
For the exact denoiser m >= rho is always known (E3).
"""

import jax
import jax.numpy as jnp
import numpy as np

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T8",
    title="residual to error: r/m and r/(1 - kappa)",
    hypotheses={
        "solution": "F(y*) = y_s",
        "modulus": "m = rho + (1 - rho)·inf lambda_min(sym J_D) > 0",
        "contraction": "kappa = (1 - rho)·sup ||I - J_D|| < 1 (for the second bound)",
    },
    claim="|y - y*| <= r/m and |y - y*| <= r/(1 - kappa), with r = |y_s - F(y)|",
    source="THEORY T8",
    formal=(
        Formal(
            "t8.v",
            "t8_monotone",
            {
                "Hm": "0 < m",
                "HF": "forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩",
                "Hsolution": "F y_star = y_s",
            },
        ),
        Formal(
            "t8.v",
            "t8_contraction",
            {
                "Hkappa": "kappa < 1",
                "HG": (
                    "forall u v, norm ((1 - rho) [*] (u [-] D u) [-] (1 - rho) [*] (v [-] D v)) <= kappa * norm (u "
                    "[-] v)"
                ),
                "Hsolution": "rho [*] y_star [+] (1 - rho) [*] D y_star = y_s",
            },
        ),
    ),
)


def instance() -> Instance:
    """Two modes close to each other for this noise level: both hypotheses hold."""
    return Instance({"distance": 1.0, "sigma": 0.8, "rho": 0.6})


def broken_instance() -> Instance:
    """Modes far apart and less noise: G does not contract. The first bound stays true, the second has no meaning."""
    return Instance({"distance": 2.0, "sigma": 0.3, "rho": 0.6}, violates="contraction")


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """m and kappa from the closed-form Jacobian on a fine grid of the line; both bounds at random pairs (y*, y)."""
    from fpjax.models import exact, mixture

    distance, sigma, rho = (instance.data[k] for k in ("distance", "sigma", "rho"))
    den = exact.mixture(np.array([[-distance / 2], [distance / 2]]), 0.1)
    params = jax.tree.map(jnp.asarray, den.params)

    def f(y):
        return rho * y + (1 - rho) * mixture.denoise(params, y, jnp.asarray(sigma), jnp.asarray(0))

    def slope(y):
        return mixture.jacobian(params, y, jnp.asarray(sigma), jnp.asarray(0))[0, 0]

    grid = jnp.linspace(-6, 6, 20 * samples + 1)[:, None]
    slopes = jax.vmap(slope)(grid)
    m = float(rho + (1 - rho) * slopes.min())
    kappa = float((1 - rho) * jnp.abs(1 - slopes).max())
    rng = np.random.default_rng(seed)
    star, noise = jnp.asarray(rng.normal(size=(2, samples, 1)))
    y = star + noise * jnp.asarray(10.0 ** rng.uniform(-8, 0, size=(samples, 1)))
    target = jax.vmap(f)(star)
    solved = float(jnp.abs(jax.vmap(f)(star) - target).max())
    residual = jnp.abs(target - jax.vmap(f)(y))[:, 0]
    error = jnp.abs(y - star)[:, 0]
    # Rounding: F is known to a few units in the last place, so a residual below 1e-15 says nothing.
    by_modulus = float((error / (residual / m + 1e-14)).max()) if m > 0 else float("nan")
    by_kappa = float((error / (residual / (1 - kappa) + 1e-14)).max()) if kappa < 1 else float("nan")
    hypotheses = {"solution": solved <= 1e-14, "modulus": m > 0, "contraction": kappa < 1}
    claim = by_modulus <= 1 + 1e-9 and by_kappa <= 1 + 1e-9 if all(hypotheses.values()) else None
    detail = f"error over r/m at most {by_modulus:.3g} (m = {m:.3g}), over r/(1 - kappa) {by_kappa:.3g} (kappa = {kappa:.3g})"
    figures = {"m": m, "kappa": kappa, "by_modulus": by_modulus, "by_kappa": by_kappa}
    return conclude(hypotheses, claim, "sampled", samples, detail, figures)
