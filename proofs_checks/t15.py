"""T15: randomised Lanczos underestimates, and by how much with what probability.

**Statement.** Let A be symmetric positive semidefinite of order d, b uniform on the unit sphere and independent of A, and
theta_k the largest Ritz value after k steps of Lanczos from b. Then theta_k <= lambda_max always, and for 0 < e < 1

    P( theta_k < (1 - e)·lambda_max ) <= 1.648·sqrt(d)·exp( -sqrt(e)·(2k - 1) ).

**Proof.** theta_k is the largest Rayleigh quotient over the Krylov space, hence at most lambda_max. The tail bound is
Kuczynski & Wozniakowski 1992, Theorem 3.2: p(A) b with p the Chebyshev polynomial that is small on [0, (1 - e)·lambda_max]
has a Rayleigh quotient that large unless b's part in the top eigenspace is tiny, which a uniform b makes unlikely. ∎

The start must be independent of A: one that is orthogonal to the top eigenvector never sees it, in exact arithmetic, and
then the claim is false for every k. That is the hypothesis which ``broken_instance`` drops.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fpjax.confidence import failure_probability
from fpjax.tridiagonal import extremes
from proofs_checks.base import Instance, Outcome, Statement, conclude

statement = Statement(
    name="T15",
    title="power and Lanczos iteration give lower estimates; a probability for the shortfall",
    hypotheses={
        "semidefinite": "A is symmetric positive semidefinite",
        "uniform-start": "the start is uniform on the sphere, independent of A",
    },
    claim="theta_k <= lambda_max, and P(theta_k < (1 - e)·lambda_max) <= 1.648·sqrt(d)·exp(-sqrt(e)·(2k - 1))",
    source="Kuczynski & Wozniakowski 1992, SIAM J. Matrix Anal. Appl. 13(4); THEORY T15",
)


def instance() -> Instance:
    """Eigenvalues spread so that Lanczos is slow (Chebyshev points and one at the top), for several e."""
    d = 100
    spectrum = np.r_[(1 + np.cos(np.pi * (np.arange(d - 1) + 0.5) / (d - 1))) / 2 * 0.99, 1.0]
    return Instance({"spectrum": spectrum, "steps": 12, "shortfalls": (0.05, 0.1, 0.2), "blind": False})


def broken_instance() -> Instance:
    """A start without any part in the top eigenvector, which stands well clear of the others."""
    spectrum = np.r_[np.linspace(0, 0.5, 99), 1.0]
    return Instance({"spectrum": spectrum, "steps": 12, "shortfalls": (0.2,), "blind": True}, violates="uniform-start")


@functools.partial(jax.jit, static_argnames=("steps",))
def ritz(spectrum, starts, steps: int):
    """The largest Ritz value after each of 1..steps Lanczos steps on diag(spectrum), from each start (n, d): (n, steps)."""

    def lane(b):
        basis = jnp.zeros((steps + 1, b.size), b.dtype).at[0].set(b / jnp.linalg.norm(b))

        def step(basis, j):
            w = spectrum * basis[j]
            a = basis[j] @ w
            for _ in range(2):
                w = w - (basis @ w) @ basis
            beta = jnp.linalg.norm(w)
            return basis.at[j + 1].set(w / jnp.where(beta > 0, beta, 1)), (a, beta)

        alpha, beta = jax.lax.scan(step, basis, jnp.arange(steps))[1]
        rows = jnp.arange(steps)

        def top(k):
            # Unused rows hold 0, which a semidefinite matrix's largest Ritz value is never below.
            inside = jnp.where(rows < k, alpha, 0)
            return extremes(inside, jnp.where(rows[1:] < k, beta[:-1], 0))[1].value

        return jax.vmap(top)(rows + 1)

    return jax.lax.map(lane, starts, batch_size=500)


def check(instance: Instance, samples: int = 500, seed: int = 0) -> Outcome:
    """Failure frequencies over random starts for every k up to ``steps`` and every e, against the stated probability."""
    data = instance.data
    spectrum = np.asarray(data["spectrum"], np.float64)
    starts = np.random.default_rng(seed).normal(size=(samples, spectrum.size))
    if data["blind"]:
        starts[:, np.argmax(spectrum)] = 0.0
    seen = starts[:, np.argmax(spectrum)] ** 2 / (starts**2).sum(axis=1)
    # A uniform start has mean 1/d in each direction.
    uniform = abs(seen.mean() * spectrum.size - 1) <= 6 * np.sqrt(2 / samples)
    values = np.asarray(ritz(jnp.asarray(spectrum), jnp.asarray(starts), data["steps"]))
    top = spectrum.max()
    worst, over = 0.0, float((values.max() - top) / top)
    for e in data["shortfalls"]:
        for k in range(1, data["steps"] + 1):
            stated = failure_probability(spectrum.size, k, e)
            frequency = float((values[:, k - 1] < (1 - e) * top).mean())
            worst = max(worst, frequency / stated if stated < 1 else 0.0)  # a probability of 1 promises nothing
    hypotheses = {"semidefinite": (spectrum >= 0).all(), "uniform-start": uniform}
    detail = (
        f"largest observed failure frequency is {worst:.3g} of the stated probability; over lambda_max by {over:.1e}"
    )
    claim = worst <= 1 and over <= 1e-12
    return conclude(hypotheses, claim, "sampled", samples, detail, {"worst": worst, "over": over})
