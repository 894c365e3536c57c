"""T6: for a gradient denoiser inversion is strongly convex minimisation, and one relaxation is best.

**Statement.** Let D = grad Phi with Phi convex and ||J_D|| <= Lambda, and 0 < rho < 1. The solutions of F(y) = y_s are the
minimisers of phi(y) = rho/2·|y|² + (1 - rho)·Phi(y) - <y_s, y>, which is strongly convex: there is exactly one, and
phi(y) >= phi(y*) + rho/2·|y - y*|². With omega = 2/(2·rho + (1 - rho)·Lambda) the relaxed iteration of T5 contracts with
q = (1 - rho)·Lambda/(2·rho + (1 - rho)·Lambda), and no omega has a smaller factor for all such D.

**Proof.** grad phi = rho·y + (1 - rho)·D - y_s = F(y) - y_s, so critical points are solutions. The Hessian
H = rho·I + (1 - rho)·J_D is symmetric with spectrum in [rho, rho + (1 - rho)·Lambda]: the lower edge is strong convexity.
T(y) = y + omega·(y_s - F(y)) has Jacobian I - omega·H, symmetric with spectrum in [1 - omega·(rho + (1 - rho)·Lambda),
1 - omega·rho]; its norm is at most the larger absolute value of the two ends. They are equal in size and opposite exactly at
this omega, with value q; any other omega makes one of them larger, and both are attained by D(y) = Lambda·(first
coordinate). The mean value inequality turns the bound on the Jacobian into the contraction. ∎

Symmetry is needed: a curl of D leaves the monotone part alone and still makes I - omega·H longer than q.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T6",
    title="inverting a gradient denoiser is strongly convex minimisation",
    hypotheses={
        "gradient": "J_D is symmetric everywhere",
        "convex": "J_D is positive semidefinite everywhere",
        "lipschitz": "||J_D|| <= Lambda everywhere",
        "interval": "0 < rho < 1",
    },
    claim="y* is the minimiser of a rho-strongly convex function, and relaxation with 2/(2·rho + (1 - rho)·Lambda) "
    "contracts with (1 - rho)·Lambda/(2·rho + (1 - rho)·Lambda)",
    source="Nesterov 2004, Theorem 2.1.15 at the two ends of the spectrum; THEORY T6",
    formal=(
        Formal(
            "t6.v",
            "t6_minimiser",
            {
                "Hrho": "0 <= rho <= 1",
                "Hgradient": "forall u v, Phi u + ⟨D u, v [-] u⟩ <= Phi v",
                "Hsolution": "rho [*] y [+] (1 - rho) [*] D y = y_s",
            },
        ),
        Formal(
            "t6.v",
            "t6_solution",
            {
                "Hrho": "0 <= rho <= 1",
                "HLambda": "0 <= Lambda",
                "Hgradient": "forall u v, Phi u + ⟨D u, v [-] u⟩ <= Phi v",
                "Hlipschitz": "forall u v, norm (D u [-] D v) <= Lambda * norm (u [-] v)",
                "Hminimiser": "forall v, rho / 2 * norm y ^ 2 + (1 - rho) * Phi y - ⟨y_s, y⟩"
                " <= rho / 2 * norm v ^ 2 + (1 - rho) * Phi v - ⟨y_s, v⟩",
            },
        ),
        Formal(
            "t6.v",
            "t6_rate",
            {
                "Hrho": "0 < rho <= 1",
                "HLambda": "0 <= Lambda",
                "HJ": "forall y, filterdiff D (locally y) (J y)",
                "Hsymmetric": "forall y u v, ⟨J y u, v⟩ = ⟨u, J y v⟩",
                "Hlower": "forall y v, 0 <= ⟨J y v, v⟩",
                "Hupper": "forall y v, ⟨J y v, v⟩ <= Lambda * norm v ^ 2",
            },
        ),
    ),
)

POINTS = np.array([[-1.0, 0.2], [1.0, 0.0], [0.3, 0.8]])
TURN = np.array([[0.0, -1.0], [1.0, 0.0]])


def instance() -> Instance:
    """Three points in the plane, at a noise level where plain iteration fails."""
    return Instance({"sigma": 0.35, "rho": 0.2, "curl": 0.0})


def broken_instance() -> Instance:
    """The same denoiser plus a rotation: still monotone, no longer a gradient."""
    return Instance({"sigma": 0.35, "rho": 0.2, "curl": 1.0}, violates="gradient")


@functools.cache
def best() -> bool:
    """The larger of |1 - omega·rho| and |1 - omega·(rho + (1 - rho)·Lambda)| is least, and q, at the stated omega, by sympy."""
    rho, bound, omega = sympy.symbols("rho Lambda omega", positive=True)
    keep = sympy.Symbol("keep", positive=True)  # 1 - rho
    low, high = 1 - omega * (rho + keep * bound), 1 - omega * rho
    at, q = 2 / (2 * rho + keep * bound), keep * bound / (2 * rho + keep * bound)
    ends = [sympy.simplify(end.subs(omega, at)) for end in (low, high)]
    # Both ends fall in omega, so a smaller omega makes |high| larger and a larger one |low|.
    falling = sympy.diff(high, omega).is_negative and sympy.diff(low, omega).is_negative
    return sympy.simplify(ends[0] + q) == 0 and sympy.simplify(ends[1] - q) == 0 and bool(falling)


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Jacobians and pairs at sampled points; the potential's gradient and its strong convexity around known solutions."""
    from fpjax.models import exact, mixture

    sigma, rho, curl = (instance.data[k] for k in ("sigma", "rho", "curl"))
    params = jax.tree.map(jnp.asarray, exact.empirical(POINTS).params)
    diameter = max(np.linalg.norm(a - b) for a in POINTS for b in POINTS)
    bound = diameter**2 / (4 * sigma**2) + curl

    def denoise(y):
        turned = curl * jnp.asarray(TURN) @ y
        return mixture.denoise(params, y, jnp.asarray(sigma), jnp.asarray(0)) + turned

    def potential(y):  # Phi of the three points; log-sum-exp of affine functions of y
        means = jnp.asarray(POINTS)
        return sigma**2 * jax.nn.logsumexp((means @ y - jnp.sum(means**2, axis=1) / 2) / sigma**2)

    def f(y):
        return rho * y + (1 - rho) * denoise(y)

    rng = np.random.default_rng(seed)
    a, b, star = jnp.asarray(rng.normal(size=(3, samples, 2)) * 1.5)
    jacobians = np.asarray(jax.vmap(jax.jacfwd(denoise))(a))
    skew = float(np.abs(jacobians - np.swapaxes(jacobians, 1, 2)).max())
    lowest = float(np.linalg.eigvalsh((jacobians + np.swapaxes(jacobians, 1, 2)) / 2).min())
    longest = float(np.linalg.norm(jacobians, 2, axis=(1, 2)).max())
    omega, q = 2 / (2 * rho + (1 - rho) * bound), (1 - rho) * bound / (2 * rho + (1 - rho) * bound)
    image = jax.vmap(f)
    moved = jnp.linalg.norm((a - b) - omega * (image(a) - image(b)), axis=1) / jnp.linalg.norm(a - b, axis=1)
    factor = float(moved.max())
    gap = float(jnp.abs(jax.vmap(jax.grad(potential))(a) - jax.vmap(denoise)(a)).max())

    def energy(y, target):
        return rho / 2 * jnp.sum(y**2) + (1 - rho) * potential(y) - target @ y

    rise = jax.vmap(energy)(a, image(star)) - jax.vmap(energy)(star, image(star))
    convex = bool((rise >= rho / 2 * jnp.sum((a - star) ** 2, axis=1) - 1e-12).all())
    hypotheses = {
        "gradient": skew <= 1e-10,
        "convex": lowest >= -1e-10,
        "lipschitz": longest <= bound + 1e-10,
        "interval": 0 < rho < 1,
    }
    claim = factor <= q + 1e-12 and gap < 1e-10 and convex and best()
    detail = f"relaxed factor at most {factor:.6f} (q = {q:.6f}), gradient of the potential within {gap:.1e} of D"
    figures = {"q": q, "factor": factor, "skew": skew, "gap": gap}
    return conclude(hypotheses, claim, "symbolic, sampled", samples, detail, figures)
