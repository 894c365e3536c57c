"""E3: the exact denoiser's Jacobian is the posterior covariance over sigma²; the denoiser is a convex function's gradient.

**Statement.** Let x0 have any distribution on a bounded set, y = x0 + sigma·n with n ~ N(0, I) independent, and
D(y) = E[x0 | y]. Then J_D(y) = Cov(x0 | y)/sigma². So J_D is symmetric and positive semidefinite, D is monotone, and D = grad Phi
for the convex function Phi(y) = |y|²/2 + sigma²·log p(y), p the density of y.

**Proof.** Let k(y, x) = exp(-|y - x|²/(2·sigma²)), so p(y) is E[k(y, x0)] up to a constant and D = E[x0·k]/E[k]. As x0 is bounded
one may differentiate under E: dk/dy_j = (x_j - y_j)/sigma²·k. Write <a> = E[a·k]/E[k] for the posterior mean. The quotient rule
gives dD_i/dy_j = <x_i·(x_j - y_j)>/sigma² - <x_i>·<x_j - y_j>/sigma² = (<x_i·x_j> - <x_i>·<x_j>)/sigma²: y_j cancels, and this is
the covariance. A covariance is symmetric and positive semidefinite. By the same rule grad log E[k] = <x - y>/sigma²
= (D - y)/sigma² (Tweedie), so grad Phi = y + (D - y) = D, and Phi is convex because its Hessian J_D is positive
semidefinite. Integrating J_D along a segment, <D(a) - D(b), a - b> >= 0. ∎

The noise must be Gaussian: dk/dy = (x - y)/sigma²·k is the only place where that enters, and with Laplace noise it is false;
there the posterior mean may have a Jacobian that is no covariance over sigma². T2's m >= rho rests on this theorem.
**The paper** takes J_D to be a scalar k·sqrt(abar) with 0 < k < 1 instead; see T4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Instance, Outcome, Statement, conclude

statement = Statement(
    name="E3",
    title="the exact denoiser's Jacobian is Cov(x0 | y)/sigma²",
    hypotheses={
        "gaussian": "the noise is Gaussian: the gradient of its log-density at n is -n/sigma²",
        "bounded": "the data lie in a bounded set",
        "exact": "D(y) = E[x0 | y]",
    },
    claim="J_D = Cov(x0 | y)/sigma², symmetric and positive semidefinite; D = grad(|y|²/2 + sigma²·log p(y)), a convex function",
    source="Tweedie's formula, first and second order (Robbins 1956; Efron 2011); THEORY E3",
)

POINTS = np.array([[-1.0, 0.2], [1.0, 0.0], [0.3, 0.8]])
WEIGHTS = np.array([0.5, 0.3, 0.2])


def gaussian(n, sigma):
    """The log-density of N(0, sigma²·I), up to a constant."""
    return -jnp.sum(n**2) / (2 * sigma**2)


def laplace(n, sigma):
    """The log-density of independent Laplace noise of the same variance, up to a constant."""
    return -jnp.sqrt(2.0) / sigma * jnp.sum(jnp.abs(n))


def instance() -> Instance:
    """Three points in the plane, unequal weights, Gaussian noise."""
    return Instance({"sigma": 0.5, "noise": gaussian})


def broken_instance() -> Instance:
    """The same with Laplace noise: still the exact posterior mean, but of another noise."""
    return Instance({"sigma": 0.5, "noise": laplace}, violates="gaussian")


@functools.cache
def symbolic() -> bool:
    """dD_i/dy_j = Cov_ij/sigma² and grad Phi = D for three arbitrary weighted points of the plane, by sympy."""
    y = sympy.symbols("y1 y2", real=True)
    s = sympy.Symbol("sigma", positive=True)
    # k_n up to the common factor exp(-|y|²/(2·sigma²)), which cancels; w_n takes in exp(-|x_n|²/(2·sigma²)).
    x = [sympy.symbols(f"x{n}1 x{n}2", real=True) for n in range(3)]
    w = sympy.symbols("w0 w1 w2", positive=True)
    k = [wn * sympy.exp((xn[0] * y[0] + xn[1] * y[1]) / s**2) for wn, xn in zip(w, x, strict=True)]
    total = sum(k)

    def mean(values):
        return sum(v * kn for v, kn in zip(values, k, strict=True)) / total

    d = [mean([xn[i] for xn in x]) for i in range(2)]
    gaps = [s**2 * sympy.diff(sympy.log(total), y[i]) - d[i] for i in range(2)]
    for i in range(2):
        for j in range(2):
            covariance = mean([xn[i] * xn[j] for xn in x]) - d[i] * d[j]
            gaps.append(sympy.diff(d[i], y[j]) - covariance / s**2)
    return all(sympy.simplify(gap) == 0 for gap in gaps)


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """The Jacobian by automatic differentiation against the covariance, its eigenvalues, and the potential's gradient."""
    sigma, noise = instance.data["sigma"], instance.data["noise"]
    points, log_weights = jnp.asarray(POINTS), jnp.asarray(np.log(WEIGHTS))

    def log_terms(y):
        return log_weights + jax.vmap(lambda x: noise(y - x, sigma))(points)

    def posterior(y):
        return jax.nn.softmax(log_terms(y))

    def d(y):
        return posterior(y) @ points

    def covariance(y):
        centred = points - d(y)[None, :]
        return (centred * posterior(y)[:, None]).T @ centred

    def potential(y):
        return y @ y / 2 + sigma**2 * jax.nn.logsumexp(log_terms(y))

    rng = np.random.default_rng(seed)
    ys = jnp.asarray(rng.normal(size=(samples, 2)) * 1.5)
    found = jax.jit(
        lambda v: (
            jax.vmap(jax.jacfwd(d))(v),
            jax.vmap(covariance)(v) / sigma**2,
            jax.vmap(jax.grad(potential))(v) - jax.vmap(d)(v),
            jax.vmap(jax.grad(lambda n: noise(n, sigma)))(v) + v / sigma**2,
            jax.vmap(d)(v),
        )
    )(ys)
    jacobian, expected, gradient, score, mean = (np.asarray(v) for v in found)
    gap = float(np.abs(jacobian - expected).max())
    skew = float(np.abs(jacobian - np.swapaxes(jacobian, 1, 2)).max())
    lowest = float(np.linalg.eigvalsh((jacobian + np.swapaxes(jacobian, 1, 2)) / 2).min())
    slope = float(np.abs(gradient).max())
    hypotheses = {
        "gaussian": np.abs(score).max() < 1e-12,
        "bounded": np.isfinite(POINTS).all(),
        "exact": np.abs(mean - _posterior_mean(np.asarray(ys), sigma, noise)).max() < 1e-12,
    }
    claim = gap < 1e-12 and skew < 1e-12 and lowest > -1e-12 and slope < 1e-12 and symbolic()
    detail = (
        f"J_D against Cov/sigma²: {gap:.1e}; asymmetry {skew:.1e}; smallest eigenvalue {lowest:.1e}; "
        f"grad Phi against D: {slope:.1e}"
    )
    figures = {"gap": gap, "skew": skew, "lowest": lowest, "gradient": slope}
    return conclude(hypotheses, claim, "symbolic, sampled", samples, detail, figures)


def _posterior_mean(ys, sigma: float, noise) -> np.ndarray:
    """E[x0 | y] by Bayes's rule, a sum over the points that shares no code with D above."""
    away = jnp.asarray(ys[None, :, :] - POINTS[:, None, :])
    likelihood = WEIGHTS[:, None] * np.exp(jax.vmap(jax.vmap(lambda n: noise(n, sigma)))(away))
    return np.einsum("ns,nd->sd", likelihood / likelihood.sum(axis=0), POINTS)
