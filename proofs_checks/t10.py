"""T10: the first inversion step has no solution if its clean level is sigma = 0, and is well posed for any sigma_s > 0.

**Statement.** Let D be monotone and continuous, |D(y)| <= M. If sigma_s = 0, then rho = 0 and F = D: F(y) = y_s has no solution
for any |y_s| > M (more exactly: outside D's range), and F has no modulus. If sigma_s > 0, then for every y_s there is exactly
one solution, and |a - b| <= |F(a) - F(b)|/rho: the condition is at most 1/rho = sigma_t/sigma_s.

**Proof.** rho = sigma_s/sigma_t = 0 gives F(y) = 0·y + 1·D(y) = D(y), and |D(y)| <= M < |y_s| for every y. No modulus: D is
bounded, so <D(a) - D(b), a - b> <= 2·M·|a - b|, which is below m·|a - b|² for |a - b| > 2·M/m, whatever m > 0. If sigma_s > 0,
rho > 0: a solution exists (T1 with c = 0), and <F(a) - F(b), a - b> >= rho·|a - b|² since D is monotone, hence by
Cauchy-Schwarz rho·|a - b| <= |F(a) - F(b)|; two solutions for one y_s are therefore equal. ∎

Samplers whose last level is sigma = 0 (``set_alpha_to_one=True`` in diffusers, EDM's t_N = 0) give an inversion whose first
step asks for an image's preimage under the denoiser. A held-out image lies outside the convex hull of the training data,
the range of their exact denoiser. ``final_sigma_zero=False``, fpjax's default, ends at a small sigma_s instead.

**The paper** proves existence and uniqueness at every step and does not set this one apart; others report that it fails.
"""

import numpy as np

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T10",
    title="the first step: no solution at sigma_s = 0, condition 1/rho above",
    hypotheses={
        "level": "0 < sigma_s < sigma_t",
        "monotone": "<D(a) - D(b), a - b> >= 0",
        "bounded": "|D(y)| <= M",
    },
    claim="exactly one solution for every y_s, and |a - b| <= |F(a) - F(b)|/rho",
    source="THEORY T10",
    formal=(
        Formal(
            "t10.v",
            "t10_no_solution",
            {"Hbounded": "forall y, norm (D y) <= M", "Houtside": "M < norm y_s"},
        ),
        Formal(
            "t10.v",
            "t10_repaired",
            {"Hrho": "0 < rho <= 1", "HD": "forall u v, 0 <= ⟨D u [-] D v, u [-] v⟩"},
        ),
    ),
)

TARGET = (1.1, -0.1)  # longer than every point, so outside their hull
BOX = 3.0  # half the edge of the box that the kernel searches for solutions


def instance() -> Instance:
    """A first step down to sigma_s = 0.02, for a target outside the data's hull."""
    return Instance({"sigma_to": 0.02, "sigma_from": 0.35})


def broken_instance() -> Instance:
    """The same step down to sigma_s = 0."""
    return Instance({"sigma_to": 0.0, "sigma_from": 0.35}, violates="level")


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Monotonicity, the bound and the condition on random pairs; existence or its lack by the certificate kernel."""
    from fpjax.certify import propose
    from proofs_checks import certificates as cert
    from proofs_checks.t1 import mean

    low, high = instance.data["sigma_to"], instance.data["sigma_from"]
    points, rho = np.asarray(cert.POINTS), low / high
    bound = float(np.linalg.norm(points, axis=1).max())
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(samples, 2)) * 10.0 ** rng.uniform(-1, 1.5, size=(samples, 1))
    b = a + rng.normal(size=(samples, 2)) * 10.0 ** rng.uniform(-4, 1, size=(samples, 1))
    d_a, d_b = (np.asarray([mean(points, y, high) for y in v]) for v in (a, b))
    gap = np.linalg.norm(a - b, axis=1)
    image = np.linalg.norm(rho * (a - b) + (1 - rho) * (d_a - d_b), axis=1)
    with np.errstate(divide="ignore"):
        condition = float((gap / image).max())
    p = cert.step("points", low, high)
    solved = cert.derive(propose.structure, p.card, p.model, [low, high])
    hypotheses = {
        "level": 0 < low < high,
        "monotone": (((d_a - d_b) * (a - b)).sum(axis=1) >= -1e-12).all(),
        "bounded": np.linalg.norm(d_a, axis=1).max() <= bound + 1e-12,
    }
    conditioned = condition * rho <= 1 + 1e-6
    claim, told = solved.holds and conditioned, solved
    if not solved.holds:
        told = cert.derive(propose.no_solution, p, list(TARGET), [-BOX, -BOX], [BOX, BOX])
    detail = f"condition {condition:.4g}, at most 1/rho = {1 / rho if rho else np.inf:.4g}; the kernel: {told.detail}"
    return conclude(hypotheses, claim, "sampled, ball arithmetic", samples, detail, {"condition": condition})
