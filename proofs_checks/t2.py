"""T2: strong monotonicity makes inversion well posed, contraction or not.

**Statement.** Let F(y) = rho·y + (1 - rho)·D(y) with D continuously differentiable, 0 <= rho < 1, and
m = rho + (1 - rho)·inf lambda_min(sym J_D) > 0. Then F is strongly monotone with modulus m,
<F(a) - F(b), a - b> >= m·|a - b|², F(y) = y_s has at most one solution, and F is a homeomorphism onto R^d.

**Proof.** Let h = a - b. F(a) - F(b) = int_0^1 F'(b + s·h) h ds, and <F'(y) h, h> = rho·|h|² + (1 - rho)·<sym J_D(y) h, h>
>= m·|h|². Hence the inequality. If F(a) = F(b) it gives m·|a - b|² <= 0, so a = b: F is injective. By Cauchy-Schwarz
|F(a) - F(b)| >= m·|a - b|, so the inverse on the range is Lipschitz with constant 1/m (T9), and the range is closed: if
F(y_n) converges, (y_n) is Cauchy. F'(y) is invertible everywhere (<F' h, h> > 0), so the range is open (inverse function
theorem). Closed, open and not empty: the range is R^d. ∎

For the exact denoiser J_D = Cov(x0 | y)/sigma² >= 0 (E3), so m >= rho > 0 at every step size. The paper asks for T3's
contraction instead, which is not needed for existence or uniqueness.

Checked with certificates too: the kernel proves the modulus of the instance for every y from the network's form, and for
the broken instance a pair of points between which F decreases.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T2",
    title="uniqueness from strong monotonicity, at every step size",
    hypotheses={
        "range": "0 <= rho < 1",
        "modulus": "m = rho + (1 - rho)·inf lambda_min(sym J_D) > 0",
    },
    claim="F(y) = y_s has exactly one solution for every y_s, and <F(a) - F(b), a - b> >= m·|a - b|²",
    source="Browder-Minty theory of monotone operators; THEORY T2",
    formal=(
        Formal(
            "t2.v",
            "t2_modulus",
            {
                "Hrho": "0 <= rho <= 1",
                "HD": "forall u v, lambda * norm (u [-] v) ^ 2 <= ⟨D u [-] D v, u [-] v⟩",
            },
        ),
        Formal(
            "t2.v",
            "t2_unique",
            {
                "Hm": "0 < m",
                "HF": "forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩",
            },
        ),
        Formal(
            "t2.v",
            "t2_exact",
            {
                "Hrho": "0 < rho <= 1",
                "HD": "forall u v, 0 <= ⟨D u [-] D v, u [-] v⟩",
            },
        ),
        Formal(
            "t2_jacobian.v",
            "t2_jacobian",
            {
                "Hrho": "0 <= rho <= 1",
                "HJ": "forall y, filterdiff D (locally y) (J y)",
                "Hlambda": "forall y v, lambda * norm v ^ 2 <= ⟨J y v, v⟩",
                "Hm": "0 < rho + (1 - rho) * lambda",
            },
        ),
        Formal(
            "t2_onto.v",
            "t2_onto",
            {
                "HV": "complete V",
                "Hm": "0 < m",
                "HL": "0 < L",
                "Hmonotone": "forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩",
                "Hlipschitz": "forall u v, norm (F u [-] F v) <= L * norm (u [-] v)",
            },
        ),
    ),
)

POINTS = np.array([[-1.0, 0.2], [1.0, 0.0], [0.3, 0.8]])


def instance() -> Instance:
    """Three points in the plane, their exact denoiser, and a step large enough that plain iteration fails."""
    return Instance({"sigma": 0.35, "rho": 0.2, "twist": 0.0})


def broken_instance() -> Instance:
    """The same denoiser minus a multiple of y, as guidance can make it: some eigenvalue falls below -rho/(1 - rho)."""
    return Instance({"sigma": 0.35, "rho": 0.2, "twist": 0.6}, violates="modulus")


@functools.cache
def symbolic() -> bool:
    """<F' h, h> = rho·|h|² + (1 - rho)·<sym J h, h> for an arbitrary 3×3 Jacobian, by sympy."""
    rho = sympy.Symbol("rho", real=True)
    j, h = sympy.MatrixSymbol("J", 3, 3).as_explicit(), sympy.MatrixSymbol("h", 3, 1).as_explicit()
    left = (h.T * (rho * sympy.eye(3) + (1 - rho) * j) * h)[0]
    return sympy.expand(left - rho * (h.T * h)[0] - (1 - rho) * (h.T * (j + j.T) / 2 * h)[0]) == 0


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Modulus by dense eigenvalues at random points; the inequality on random pairs; Newton from many starts."""
    from fpjax.models import exact, mixture

    sigma, rho, twist = (instance.data[k] for k in ("sigma", "rho", "twist"))
    params = jax.tree.map(jnp.asarray, exact.empirical(POINTS).params)

    def f(y):
        d = mixture.denoise(params, y, jnp.asarray(sigma), jnp.asarray(0)) - twist * y
        return rho * y + (1 - rho) * d

    rng = np.random.default_rng(seed)
    a, b = jnp.asarray(rng.normal(size=(2, samples, 2)) * 1.5)
    jacobians = jax.vmap(jax.jacfwd(f))(a)
    m = float(jnp.linalg.eigvalsh((jacobians + jnp.swapaxes(jacobians, 1, 2)) / 2).min())
    if twist == 0.0:
        m = min(m, rho)  # E3: sampling cannot see below the proved modulus, so the inequality is tested with rho
    fa, fb = jax.vmap(f)(a), jax.vmap(f)(b)
    slack = jnp.sum((fa - fb) * (a - b), axis=1) - m * jnp.sum((a - b) ** 2, axis=1)
    spread = _spread_of_solutions(f, rng, samples) if m > 0 else float("nan")
    lowest, axes = np.linalg.eigh((jacobians + jnp.swapaxes(jacobians, 1, 2)) / 2)
    at = int(np.argmin(lowest[:, 0]))
    proved, refuted = _kernel(sigma, rho, twist, np.asarray(a[at]), axes[at][:, 0])
    hypotheses = {"range": 0 <= rho < 1, "modulus": m > 0}
    claim = float(slack.min()) >= -1e-10 and spread <= 1e-8 and proved.holds and symbolic() if m > 0 else None
    detail = f"modulus {m:.3g} over {samples} points; {samples} starts end within {spread:.1e} of one another"
    detail += f"; the kernel: {proved.detail if m > 0 else refuted.detail}"
    figures = {"modulus": m, "spread": spread, "proved": float(proved.holds), "refuted": float(refuted.holds)}
    return conclude(hypotheses, claim, "symbolic, sampled, ball arithmetic", samples, detail, figures)


def _kernel(sigma: float, rho: float, twist: float, y: np.ndarray, axis: np.ndarray) -> tuple:
    """What the kernel makes of "monotone for every y" and of "F decreases across y along the axis"."""
    from fpjax.certify import propose
    from proofs_checks import certificates as cert

    p = cert.step("points", rho * sigma, sigma, twist=-twist if twist else None)
    everywhere = cert.derive(propose.structure, p.card, p.model, [p.sigma_to, p.sigma_from])
    return everywhere, cert.derive(propose.decrease_witness, p, y - 1e-3 * axis, y + 1e-3 * axis)


def _spread_of_solutions(f, rng, samples: int) -> float:
    """The largest distance between the solutions of F(y) = y_s found from many starts; infinite if one is not found."""
    target = jnp.asarray([0.1, 0.3])
    starts = jnp.asarray(rng.normal(size=(samples, 2)) * 2)

    def newton(y):
        def step(_, y):
            r = target - f(y)
            d = jnp.linalg.solve(jax.jacfwd(f)(y), r)
            sizes = 0.5 ** jnp.arange(12.0)
            trials = y[None, :] + sizes[:, None] * d[None, :]
            norms = jax.vmap(lambda t: jnp.linalg.norm(target - f(t)))(trials)
            return trials[jnp.argmin(norms)]

        y = jax.lax.fori_loop(0, 60, step, y)
        return y, jnp.linalg.norm(target - f(y))

    ends, residuals = jax.lax.map(newton, starts)
    if not float(residuals.max()) < 1e-10:
        return float("inf")
    return float(jnp.max(jnp.linalg.norm(ends - ends[:1], axis=1)))
