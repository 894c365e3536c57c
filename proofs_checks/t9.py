"""T9: conditioning: a step's inverse amplifies by at most 1/m, a whole inversion by sigma_T/sigma_0 for exact denoisers.

**Statement.** If F is strongly monotone with modulus m > 0, |a - b| <= |F(a) - F(b)|/m. Along steps F_k with moduli m_k,
two trajectories with F_k(y_{k+1}) = y_k and F_k(z_{k+1}) = z_k satisfy |y_n - z_n| <= |y_0 - z_0|·prod 1/m_k. For the exact
denoiser m_k >= rho_k = sigma_k/sigma_{k+1} and the product telescopes: |y_n - z_n| <= |y_0 - z_0|·sigma_n/sigma_0.

**Proof.** With d = a - b: m·|d|² <= <F(a) - F(b), d> <= |F(a) - F(b)|·|d|. Divide by m·|d|. By induction
|y_{k+1} - z_{k+1}| <= |F_k(y_{k+1}) - F_k(z_{k+1})|/m_k = |y_k - z_k|/m_k. For the exact denoiser J_D >= 0 (E3), so D_k is
monotone and m_k >= rho_k (T2); prod_{k<n} sigma_{k+1}/sigma_k = sigma_n/sigma_0. ∎

The bound is attained where D is constant (J = 0), far from all data; near the data J > 0 and inversion does better.

Checked with certificates too: of the last step the kernel proves that targets within s of one another have solutions within
s/rho, and refuses it for the broken instance.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T9",
    title="conditioning of a step and of a whole inversion",
    hypotheses={
        "levels": "0 < sigma_0 <= sigma_1 <= ... <= sigma_T",
        "monotone": "<D(a, sigma_k) - D(b, sigma_k), a - b> >= 0 at every level",
    },
    claim="|y_n - z_n| <= |y_0 - z_0|·sigma_n/sigma_0 for two trajectories F_k(y_{k+1}) = y_k, and |a - b| <= |F(a) - F(b)|/rho",
    source="THEORY T9",
    formal=(
        Formal(
            "t9.v",
            "t9_step",
            {
                "Hm": "0 < m",
                "HF": "forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩",
            },
        ),
        Formal(
            "t9.v",
            "t9_trajectory",
            {
                "Hm": "forall k, 0 < m k",
                "HF": "forall k u v, m k * norm (u [-] v) ^ 2 <= ⟨F k u [-] F k v, u [-] v⟩",
                "Hy": "forall k, F k (y (S k)) = y k",
                "Hz": "forall k, F k (z (S k)) = z k",
            },
        ),
        Formal(
            "t9.v",
            "t9_exact",
            {
                "Hsigma": "forall k, 0 < sigma k <= sigma (S k)",
                "HD": "forall k u v, 0 <= ⟨D k u [-] D k v, u [-] v⟩",
                "Hy": (
                    "forall k, sigma k / sigma (S k) [*] y (S k) [+] (1 - sigma k / sigma (S k)) [*] D k (y (S k)) = "
                    "y k"
                ),
                "Hz": (
                    "forall k, sigma k / sigma (S k) [*] z (S k) [+] (1 - sigma k / sigma (S k)) [*] D k (z (S k)) = "
                    "z k"
                ),
            },
        ),
    ),
)

POINTS = np.array([[-1.0, 0.2], [1.0, 0.0], [0.3, 0.8]])


def instance() -> Instance:
    """Eight levels from 0.02 to 10, the exact denoiser of three points."""
    return Instance({"sigmas": np.geomspace(0.02, 10.0, 8), "twist": 0.0})


def broken_instance() -> Instance:
    """The denoiser minus a multiple of y: no longer monotone."""
    return Instance({"sigmas": np.geomspace(0.02, 10.0, 8), "twist": 0.3}, violates="monotone")


@functools.cache
def telescopes(steps: int = 12) -> bool:
    """prod 1/rho_k = sigma_n/sigma_0 for rho_k = sigma_k/sigma_{k+1} and any levels, by sympy."""
    levels = sympy.symbols(f"sigma0:{steps + 1}", positive=True)
    factors = [high / low for low, high in itertools.pairwise(levels)]
    return all(sympy.prod(factors[:n]) == levels[n] / levels[0] for n in range(1, steps + 1))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Pairs of latents generated down the levels, so that every inversion is known exactly; compared level by level."""
    from fpjax.models import exact, mixture

    sigmas, twist = instance.data["sigmas"], instance.data["twist"]
    params = jax.tree.map(jnp.asarray, exact.empirical(POINTS).params)

    def d(y, sigma):
        return mixture.denoise(params, y, jnp.asarray(sigma), jnp.asarray(0)) - twist * y

    rng = np.random.default_rng(seed)
    y = jnp.asarray(rng.normal(size=(samples, 2)) * sigmas[-1])
    z = y + jnp.asarray(rng.normal(size=(samples, 2)) * 10.0 ** rng.uniform(-3, 0.5, size=(samples, 1)))
    gaps, lowest, step_worst = [jnp.linalg.norm(y - z, axis=1)], np.inf, 0.0
    for low, high in zip(sigmas[-2::-1], sigmas[:0:-1], strict=True):
        dy, dz = (jax.vmap(lambda p, s=high: d(p, s))(points) for points in (y, z))
        lowest = min(lowest, float((jnp.sum((dy - dz) * (y - z), axis=1) / jnp.sum((y - z) ** 2, axis=1)).min()))
        rho = float(low / high)
        before = jnp.linalg.norm(y - z, axis=1)
        y, z = rho * y + (1 - rho) * dy, rho * z + (1 - rho) * dz
        gaps.append(jnp.linalg.norm(y - z, axis=1))
        step_worst = max(step_worst, float((rho * before / (gaps[-1] + 1e-14)).max()))
    # gaps[0] belongs to the last level; the bound for level n reads gap_n <= gap_0·sigma_n/sigma_0.
    growth = jnp.stack(gaps) * jnp.asarray(sigmas[0] / sigmas[::-1])[:, None]
    worst = float((growth[:-1] / (gaps[-1][None, :] + 1e-14)).max())
    levels = bool(sigmas[0] > 0 and (np.diff(sigmas) >= 0).all())
    hypotheses = {"levels": levels, "monotone": lowest >= -1e-9}
    proved = _kernel(float(sigmas[-2]), float(sigmas[-1]), twist)
    claim = worst <= 1 + 1e-6 and step_worst <= 1 + 1e-6 and proved.holds and telescopes(len(sigmas) - 1)
    detail = f"amplification over sigma_n/sigma_0 at most {worst:.4g}, one step over 1/rho at most {step_worst:.4g}"
    detail += f"; the kernel: {proved.detail}"
    figures = {"worst": worst, "step_worst": step_worst, "lowest": lowest, "proved": float(proved.holds)}
    return conclude(hypotheses, claim, "symbolic, sampled, ball arithmetic", samples, detail, figures)


def _kernel(low: float, high: float, twist: float):
    """The kernel on: every target within s of one far from the data has its solution within 1.001·s/rho of one point."""
    from fpjax.certify import propose
    from proofs_checks import certificates as cert

    s, target = 1e-3, [1.0, -0.5]
    p = cert.step("points", low, high, twist=-twist if twist else None)
    size = float(1.001 * s * high / low).hex()

    def claimed(claim):
        claim.update(radius=size, uniqueness_radius=size)

    return cert.derive(propose.step_ball, p, target, target, slack=s, forms=("monotone",), widen=False, edit=claimed)
