"""The paper's Eq. 7: inverting a DDIM step is a fixed-point equation z = f(z). Holds for any network whatsoever (E2)."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import PAPER, Claim, Row
from proofs_checks.claims.measure import MODELS, STEPS, conditions, denoise, denoiser

statement = Claim(
    name="Eq. 7",
    who=PAPER,
    text="the ideal inversion z_t of z_s is a fixed point of f(z) = sqrt(abar_t/abar_s)·z_s + c_t·eps(z, t)",
    terms="F(y_t) = y_s if and only if G(y_t) = y_t, and f is G in z-coordinates",
    reason="E2: an identity, for every function eps",
    order=1,
)


def instance() -> Instance:
    """Two points on the line."""
    return Instance({"points": [0, 1], "high": 2, "low": 1, "at": 3})


def broken_instance() -> None:
    """None: it is an identity."""
    return


def cases():
    """Problems on the line with a state."""
    return problems.strategy(extra=("at",))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """From a state y_t down to y_s by F; f must have z_t as its fixed point."""
    p = problems.problem(instance)
    y_t = p.target
    y_s, abar_s = p.step(y_t), 1 / (1 + p.low**2)
    gap = _gap(y_t, y_s, p.denoise(y_t), p.sigma, p.abar, abar_s)
    return conclude({}, gap < 1e-10, "sampled", 1, f"|f(z) - z| = {gap:.1e} at the true z_t")


def _gap(y_t, y_s, d, sigma, abar_t, abar_s) -> float:
    """|f(z_t) - z_t| by the paper's formula, relative to |z_t| where that is above 1."""
    z_t, z_s, eps = np.sqrt(abar_t) * y_t, np.sqrt(abar_s) * y_s, (y_t - d) / sigma
    c_t = np.sqrt(1 - abar_t) - np.sqrt(abar_t / abar_s) * np.sqrt(1 - abar_s)
    f = np.sqrt(abar_t / abar_s) * z_s + c_t * eps
    return float(np.linalg.norm(f - z_t) / max(1.0, np.linalg.norm(z_t)))


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """The largest relative |f(z_t) - z_t| over images and steps."""
    import fpjax
    from fpjax import process

    grid, (x, labels) = process.ddim(STEPS), fpjax.samples("digits", images, seed)
    y = x[None] + grid.sigmas[1:, None, None, None] * np.random.default_rng(seed).normal(size=(STEPS, *x.shape))
    found = []
    for name in MODELS:
        den = denoiser(name)
        sigma = np.repeat(grid.sigmas[1:], images)
        d = denoise(den, sigma, y.reshape(-1, *x.shape[1:]), np.tile(conditions(den, labels), STEPS)).reshape(y.shape)
        worst = 0.0
        for i, (high, low, rho) in enumerate(zip(grid.sigmas[1:], grid.sigmas[:-1], grid.rho, strict=True)):
            for state, clean in zip(y[i], d[i], strict=True):
                below = rho * state + (1 - rho) * clean
                worst = max(worst, _gap(state, below, clean, high, 1 / (1 + high**2), 1 / (1 + low**2)))
        verdict = "holds" if worst < 1e-10 else "fails"
        found.append(Row(name, verdict, f"f moves the true z_t by at most {worst:.1e}, relative", {"worst": worst}))
    return found
