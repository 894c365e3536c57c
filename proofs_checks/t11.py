"""T11: how much guidance a step takes: inversion stays unique while w < 1 + rho/((1 - rho)·Lambda).

**Statement.** Let D_w = D_0 + w·(D_c - D_0), w >= 1, with J_c >= 0 and J_0 <= Lambda as quadratic forms (exact denoisers:
E3). Then <J_w v, v> >= -(w - 1)·Lambda·|v|², the guided step F_w = rho·I + (1 - rho)·D_w has modulus at least
m = rho - (1 - rho)·(w - 1)·Lambda, and m > 0 if and only if w < 1 + rho/((1 - rho)·Lambda); then F_w is one-to-one (T2).

**Proof.** J_w = w·J_c - (w - 1)·J_0, so <J_w v, v> = w·<J_c v, v> - (w - 1)·<J_0 v, v> >= 0 - (w - 1)·Lambda·|v|², because w >= 0
and w - 1 >= 0. Hence <F_w' v, v> >= (rho - (1 - rho)·(w - 1)·Lambda)·|v|² = m·|v|². Solving m > 0 for w gives the limit. T2
with this m gives uniqueness. ∎

**Sharp**: D_0 = Lambda·y, D_c = 0 and w at the limit make F_w = 0. The same bound with differences in place of Jacobians,
<D_c(a) - D_c(b), a - b> >= 0 and <D_0(a) - D_0(b), a - b> <= Lambda·|a - b|², needs no derivative.

Checked with certificates too: on a ball the kernel proves m > 0 for every guidance up to w; for the broken instance it
refuses, and proves two points of the ball between which F_w decreases.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T11",
    title="a safe guidance for every step",
    hypotheses={
        "range": "0 <= rho < 1",
        "conditional": "J_c >= 0",
        "unconditional": "J_0 <= Lambda, Lambda > 0",
        "guidance": "1 <= w < 1 + rho/((1 - rho)·Lambda)",
    },
    claim="lambda_min(J_w) >= -(w - 1)·Lambda, and F_w is strongly monotone with m = rho - (1 - rho)·(w - 1)·Lambda > 0",
    source="THEORY T11",
    formal=(
        Formal(
            "t11.v",
            "t11_quadratic_form",
            {
                "HJ_c": "forall v, 0 <= ⟨J_c v, v⟩",
                "HJ_0": "forall v, ⟨J_0 v, v⟩ <= Lambda * norm v ^ 2",
                "Hw": "1 <= w",
                "Hrho": "0 <= rho < 1",
            },
        ),
        Formal(
            "t11.v",
            "t11_limit",
            {
                "HLambda": "0 < Lambda",
                "Hrho": "0 <= rho < 1",
            },
        ),
        Formal(
            "t11.v",
            "t11_unique",
            {
                "HD_c": "forall u v, 0 <= ⟨D_c u [-] D_c v, u [-] v⟩",
                "HD_0": "forall u v, ⟨D_0 u [-] D_0 v, u [-] v⟩ <= Lambda * norm (u [-] v) ^ 2",
                "HLambda": "0 < Lambda",
                "Hrho": "0 <= rho < 1",
                "Hw": "1 <= w < 1 + rho / ((1 - rho) * Lambda)",
            },
        ),
        Formal(
            "t11.v",
            "t11_sharp",
            {
                "HLambda": "0 < Lambda",
                "Hrho": "0 <= rho < 1",
                "Hw": "w = 1 + rho / ((1 - rho) * Lambda)",
            },
        ),
    ),
)

POINTS = np.array([[-1.0, 0.2], [1.0, 0.0], [0.3, 0.8], [0.6, -0.5]])
CLASS = [1, 3]


def instance() -> Instance:
    """Four points in the plane, two of them in the class; nine tenths of the safe extra guidance."""
    return Instance({"sigma": 0.7, "rho": 0.4, "extra": 0.9})


def broken_instance() -> Instance:
    """Four times the extra guidance that the limit allows."""
    return Instance({"sigma": 0.7, "rho": 0.4, "extra": 4.0}, violates="guidance")


@functools.cache
def limit() -> bool:
    """m = 0 exactly at the limit, m falls with w, and the sharp example vanishes there, by sympy."""
    rho, bound, w, y = sympy.symbols("rho Lambda w y", positive=True)
    m = rho - (1 - rho) * (w - 1) * bound
    edge = 1 + rho / ((1 - rho) * bound)
    sharp = rho * y + (1 - rho) * (bound * y + edge * (0 - bound * y))
    return sympy.simplify(m.subs(w, edge)) == 0 and m.diff(w).equals(-(1 - rho) * bound) and sympy.simplify(sharp) == 0


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Jacobians of both exact denoisers at random points, then the monotonicity of F_w on random pairs."""
    from fpjax.models import exact, mixture

    sigma, rho = instance.data["sigma"], instance.data["rho"]
    everything = jax.tree.map(jnp.asarray, exact.empirical(POINTS).params)
    some = jax.tree.map(jnp.asarray, exact.empirical(POINTS[CLASS]).params)
    # Popoviciu: points within a set of this diameter vary by at most a quarter of its square in any direction.
    diameter = max(np.linalg.norm(a - b) for a in POINTS for b in POINTS)
    bound = float(diameter**2 / (4 * sigma**2))
    edge = 1 + rho / ((1 - rho) * bound)
    w = 1 + instance.data["extra"] * (edge - 1)
    m = rho - (1 - rho) * (w - 1) * bound

    def jacobians(params, points):
        return jax.vmap(lambda y: mixture.jacobian(params, y, jnp.asarray(sigma), jnp.asarray(0)))(points)

    @jax.vmap
    def f(y):
        d_0, d_c = (mixture.denoise(p, y, jnp.asarray(sigma), jnp.asarray(0)) for p in (everything, some))
        return rho * y + (1 - rho) * (d_0 + w * (d_c - d_0))

    rng = np.random.default_rng(seed)
    a, b = jnp.asarray(rng.normal(size=(2, samples, 2)) * 1.5)
    j_0, j_c = jacobians(everything, a), jacobians(some, a)
    lowest = float(jnp.linalg.eigvalsh(j_0 + w * (j_c - j_0)).min())
    d, e = a - b, f(a) - f(b)
    slack = float((jnp.sum(e * d, axis=1) - m * jnp.sum(d * d, axis=1)).min())
    hypotheses = {
        "range": 0 <= rho < 1,
        "conditional": float(jnp.linalg.eigvalsh(j_c).min()) >= -1e-12,
        "unconditional": float(jnp.linalg.eigvalsh(j_0).max()) <= bound + 1e-12,
        "guidance": 1 <= w < edge,
    }
    proved, refuted = _kernel(sigma, rho, w)
    positive = (m > 0 and proved.holds) or not all(hypotheses.values())
    claim = lowest >= -(w - 1) * bound - 1e-12 and slack >= -1e-12 and positive and limit()
    detail = f"w = {w:.3g} of at most {edge:.3g}; lambda_min {lowest:.3g} >= {-(w - 1) * bound:.3g}; m = {m:.3g}"
    detail += f"; the kernel: {refuted.detail if refuted.holds else proved.detail}"
    figures = {
        "w": w,
        "limit": edge,
        "lowest": lowest,
        "m": m,
        "proved": float(proved.holds),
        "refuted": float(refuted.holds),
    }
    return conclude(hypotheses, claim, "symbolic, sampled, ball arithmetic", samples, detail, figures)


def _kernel(sigma: float, rho: float, w: float) -> tuple:
    """What the kernel makes of m > 0 for guidance from 1 to w on a ball between the two farthest points, and of a pair of
    points there between which F_w decreases. The class is the points' logits, 0 or -200."""
    from fpjax.certify import propose
    from proofs_checks import certificates as cert

    rows = tuple(0.0 if k in CLASS else -200.0 for k in range(len(POINTS))), (0.0,) * len(POINTS)
    p = cert.step(cert.blurred(tuple(map(tuple, POINTS)), 0.0, rows), rho * sigma, sigma)
    middle, axis = (POINTS[0] + POINTS[1]) / 2, (POINTS[1] - POINTS[0]) / np.linalg.norm(POINTS[1] - POINTS[0])

    def claimed(claim):
        claim.update(limit=float(w).hex())

    holds = cert.derive(propose.guidance_limit, p, middle, 0.02, edit=claimed)
    at_w = dataclasses.replace(p, guidance=w)
    return holds, cert.derive(propose.decrease_witness, at_w, middle - 0.01 * axis, middle + 0.01 * axis)
