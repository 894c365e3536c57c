"""T1: a solution exists as soon as rho > 0 and D is a multiple of y plus something bounded.

**Statement.** Let 0 < rho <= 1 and D(y) = c·y + B(y) with c >= 0 and B continuous, |B| <= M. Then F(y) = y_s has a solution for
every y_s, within |y| <= R = (|y_s| + (1 - rho)·M)/(rho + (1 - rho)·c). No Lipschitz constant is needed.

**Proof.** Let a = rho + (1 - rho)·c > 0. F(y) = a·y + (1 - rho)·B(y), so F(y) = y_s is y = T(y) with
T(y) = (y_s - (1 - rho)·B(y))/a. T is continuous and |T(y)| <= (|y_s| + (1 - rho)·M)/a = R for every y: it maps the closed ball of
radius R into itself. Brouwer's theorem gives a fixed point of T there. ∎

It holds for every exact denoiser of bounded data: D is a mean of the data, so c = 0 and M is the largest norm of a datum.
With rho = 0 it fails: then F = D, a bounded map, which does not reach a y_s outside its range (T10). If instead D pulls
back as far as rho pushes, D = -rho/(1 - rho)·y + B, F is bounded again and c >= 0 is what is missing.

**The paper** obtains existence from Banach's theorem, that is from T3's contraction, which fails where existence does not.

Checked with certificates: the kernel proves in ball arithmetic that the instance's steps have a solution for every target,
and one ball within R that holds it; for the broken instance that a box around the data holds none.
"""

import functools

import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T1",
    title="existence from coercivity, without any Lipschitz constant",
    hypotheses={
        "rho": "0 < rho <= 1",
        "linear": "D(y) = c·y + B(y) with c >= 0",
        "bounded": "B is continuous and |B(y)| <= M",
    },
    claim="F(y) = y_s has a solution with |y| <= (|y_s| + (1 - rho)·M)/(rho + (1 - rho)·c), for every y_s",
    source="Brouwer 1911; THEORY T1",
    formal=(
        Formal(
            "t1.v",
            "t1_line",
            {
                "Hrho": "0 < rho <= 1",
                "Hc": "0 <= c",
                "Hbounded": "forall y, Rabs (B y) <= M",
                "Hcontinuous": "continuity B",
            },
            scope="on the line",
        ),
    ),
)

BOX = 4.0  # half the edge of the box that the kernel searches for solutions


def instance() -> Instance:
    """The exact denoiser of three points at a step where plain iteration fails; a target outside their hull."""
    return Instance({"sigma_to": 0.07, "sigma_from": 0.35, "c": 0.0, "target": (1.2, -0.6)})


def broken_instance() -> Instance:
    """The same denoiser and target with sigma_s = 0, so that rho = 0 and F is bounded."""
    return Instance({"sigma_to": 0.0, "sigma_from": 0.35, "c": 0.0, "target": (1.2, -0.6)}, violates="rho")


@functools.cache
def symbolic() -> bool:
    """F(y) - y_s = a·(y - T(y)), by sympy."""
    y, b, target, rho, c = sympy.symbols("y B y_s rho c", real=True)
    a = rho + (1 - rho) * c
    step = rho * y + (1 - rho) * (c * y + b)
    return sympy.simplify(step - target - a * (y - (target - (1 - rho) * b) / a)) == 0


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """B's bound at random points; then what the kernel proves of existence and of the lack of it."""
    from fpjax.certify import propose
    from proofs_checks import certificates as cert

    low, high, c, target = (instance.data[k] for k in ("sigma_to", "sigma_from", "c", "target"))
    points, rho = np.asarray(cert.POINTS), low / high
    bound = float(np.linalg.norm(points, axis=1).max())
    p = cert.step("points", low, high, twist=c or None)

    def denoise(y):
        return mean(points, y, high) + c * y

    rng = np.random.default_rng(seed)
    ys = rng.normal(size=(samples, 2)) * 10.0 ** rng.uniform(-1, 4, size=(samples, 1))
    rest = np.asarray([denoise(y) - c * y for y in ys])
    hypotheses = {
        "rho": 0 < rho <= 1,
        "linear": c >= 0,
        "bounded": np.linalg.norm(rest, axis=1).max() <= bound * (1 + 1e-9) + 1e-9 * np.abs(c * ys).max(),
    }
    radius = (np.linalg.norm(target) + (1 - rho) * bound) / max(rho + (1 - rho) * c, 1e-300)
    everywhere = cert.derive(propose.structure, p.card, p.model, [low, high])
    if not all(hypotheses.values()):
        nowhere = cert.derive(propose.no_solution, p, list(target), [-BOX, -BOX], [BOX, BOX])
        detail = f"rho = {rho:.3g}, c = {c:.3g}: the kernel proves {nowhere.detail if nowhere.holds else 'nothing'}"
        claim = everywhere.holds if nowhere.holds or everywhere.holds else None
        return conclude(hypotheses, claim, "symbolic, sampled, ball arithmetic", samples, detail)
    ball = cert.derive(propose.step_ball, p, target, solve(denoise, rho, target), forms=("structure",))
    size = norm_of_centre(ball) + ball.facts.get("radius", np.inf)
    claim = everywhere.holds and ball.holds and size <= radius and symbolic()
    detail = f"the kernel: {everywhere.detail}; one of norm {size:.4g}, at most R = {radius:.4g}; {ball.detail}"
    return conclude(
        hypotheses, claim, "symbolic, sampled, ball arithmetic", samples, detail, {"norm": size, "R": float(radius)}
    )


def mean(points, y, sigma: float) -> np.ndarray:
    """The posterior mean of equally likely points."""
    logits = -((y[None, :] - points) ** 2).sum(axis=1) / (2 * sigma**2)
    weights = np.exp(logits - logits.max())
    return weights @ points / weights.sum()


def solve(denoise, rho: float, target, iterations: int = 20_000) -> np.ndarray:
    """T5's relaxed iteration from the target, with a relaxation that is safe for points within a ball of radius 2."""
    y, omega = np.asarray(target, float), 0.01
    for _ in range(iterations):
        move = omega * (np.asarray(target) - rho * y - (1 - rho) * denoise(y))
        y = y + move
        if np.linalg.norm(move) < 1e-13:
            break
    return y


def norm_of_centre(ball) -> float:
    """The norm of the centre of a certified ball, infinite if there is none."""
    if not ball.holds:
        return float("inf")
    return float(np.linalg.norm([float.fromhex(v) for v in ball.certificate.data["claim"]["centre"]]))
