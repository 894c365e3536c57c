"""T14: Anderson acceleration is never slower than plain iteration where that contracts, and has no guarantee elsewhere.

**Statement.** Let G be affine, y -> A y + b, with kappa = ||A|| < 1, and r(y) = G(y) - y. Anderson acceleration of any depth m
has |r_{k+1}| <= kappa·|r_k|. For G with a Lipschitz derivative, contracting with kappa near y*, and mixing coefficients that
stay bounded, it converges from near enough r-linearly with any factor above kappa (Toth & Kelley 2015, Theorem 2.3).

**Proof** of the affine part (Toth & Kelley 2015, Theorem 2.1). A step takes coefficients alpha with sum 1 over the last
points that minimise |sum alpha_i r_i|, and y_{k+1} = sum alpha_i G(y_i). As G is affine and the alpha_i sum to 1,
y_{k+1} = G(ybar) with ybar = sum alpha_i y_i and r(ybar) = sum alpha_i r_i. So
r_{k+1} = G(G(ybar)) - G(ybar) = A (G(ybar) - ybar) = A r(ybar), and |r_{k+1}| <= kappa·|sum alpha_i r_i| <= kappa·|r_k|,
the last because alpha = (0, ..., 0, 1) was allowed. ∎

Without contraction the last line says nothing: that is why fpjax accepts a step only where the residual falls.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Instance, Outcome, Statement, conclude

statement = Statement(
    name="T14",
    title="Anderson acceleration keeps the factor of a contraction",
    hypotheses={
        "contraction": "kappa = ||A|| < 1",
        "coefficients": "the mixing coefficients stay bounded (nonlinear part)",
    },
    claim="residuals fall at least by kappa an iteration for affine G, and r-linearly with factor kappa near a solution",
    source="Toth & Kelley 2015, Theorems 2.1 and 2.3; THEORY T14",
)

DIMENSION, DEPTH, ITERATIONS = 12, 3, 25


def instance() -> Instance:
    """Non-symmetric matrices of norm 0.9, and the same followed by tanh."""
    return Instance({"kappa": 0.9})


def broken_instance() -> Instance:
    """The same matrices with norm 1.3: no contraction."""
    return Instance({"kappa": 1.3}, violates="contraction")


def anderson(g, y, depth: int, iterations: int) -> tuple[np.ndarray, float]:
    """Anderson acceleration, type II, undamped, no safeguard: residual norms, and the largest sum of |coefficients|."""
    ys, rs, norms, largest = [y], [g(y) - y], [], 1.0
    for _ in range(iterations):
        norms.append(float(np.linalg.norm(rs[-1])))
        dy = np.array([ys[-1] - v for v in ys[:-1]]).reshape(len(ys) - 1, y.size)
        dr = np.array([rs[-1] - v for v in rs[:-1]]).reshape(len(ys) - 1, y.size)
        gamma = np.linalg.lstsq(dr.T, rs[-1], rcond=1e-10)[0] if len(dr) else np.zeros(0)
        largest = max(largest, abs(1 - gamma.sum()) + np.abs(gamma).sum())
        following = ys[-1] + rs[-1] - gamma @ (dy + dr)
        ys, rs = [*ys[-depth:], following], [*rs[-depth:], g(following) - following]
    return np.asarray(norms), largest


@functools.cache
def affine_identity() -> bool:
    """r(sum alpha_i G(y_i)) = A sum alpha_i r(y_i) for coefficients of sum 1, in the plane, by sympy."""
    a, b = sympy.Matrix(2, 2, sympy.symbols("a:4")), sympy.Matrix(sympy.symbols("b:2"))
    first, second = sympy.Matrix(sympy.symbols("u:2")), sympy.Matrix(sympy.symbols("v:2"))
    alpha = sympy.Symbol("alpha")

    def r(y):
        return a * y + b - y

    following = alpha * (a * first + b) + (1 - alpha) * (a * second + b)
    return (r(following) - a * (alpha * r(first) + (1 - alpha) * r(second))).expand() == sympy.zeros(2, 1)


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Every affine step against kappa; the overall factor of the nonlinear map; fpjax's safeguarded form on both."""
    from fpjax.evidence import Exit
    from fpjax.solve import solve

    kappa = instance.data["kappa"]
    rng = np.random.default_rng(seed)
    worst, overall, largest, lost = 0.0, 0.0, 1.0, 0
    problems = max(1, samples // 20)
    for _ in range(problems):
        a = rng.normal(size=(DIMENSION, DIMENSION))
        a *= kappa / np.linalg.norm(a, 2)
        b = rng.normal(size=DIMENSION)
        norms, size = anderson(lambda y, a=a, b=b: a @ y + b, np.zeros(DIMENSION), DEPTH, ITERATIONS)
        above = norms[:-1] > 1e-12 * norms[0]
        worst = max(worst, float((norms[1:] / norms[:-1])[above].max()))
        star = 0.1 * b
        norms, size = anderson(lambda y, a=a, s=star: s + a @ (np.tanh(y) - np.tanh(s)), star + 0.01, DEPTH, ITERATIONS)
        overall = max(overall, float((norms[-1] / norms[0]) ** (1 / (ITERATIONS - 1))))
        largest = max(largest, size)
        s = solve(
            _affine, jnp.zeros(DIMENSION), (jnp.asarray(a), jnp.asarray(b)), solver="anderson", tol=1e-9, limit=400
        )
        lost += int(s.exit) != Exit.CONVERGED
    hypotheses = {"contraction": kappa < 1, "coefficients": largest < 1e6}
    claim = worst <= kappa + 1e-9 and overall <= kappa and lost == 0 and affine_identity() if kappa < 1 else None
    detail = (
        f"worst affine factor {worst:.4f}, overall nonlinear factor {overall:.4f} for kappa = {kappa}; "
        f"coefficients at most {largest:.3g}"
    )
    figures = {"worst": worst, "overall": overall, "coefficients": largest, "lost": float(lost)}
    return conclude(hypotheses, claim, "symbolic, sampled", problems, detail, figures)


def _affine(y: jax.Array, params) -> jax.Array:
    a, b = params
    return a @ y + b
