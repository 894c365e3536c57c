"""T16: with rounding noise delta the residual stalls near delta, and the error is at most (residual + delta)/m.

**Statement.** Let F be strongly monotone with modulus m > 0 and Lipschitz with constant L, F(y*) = y_s, and let the computed
F^ satisfy |F^(y) - F(y)| <= delta at the points visited. For the computed residual r^ = |y_s - F^(y)| there:
|y - y*| <= (r^ + delta)/m. Relaxed iteration with F^ (T5, factor q < 1, each move rounded by at most e) ends within
(omega·delta + e)/(1 - q) of y*, so with a residual of at most L·(omega·delta + e)/(1 - q) + delta. Over several steps with
moduli m_k these errors add up, each multiplied by the 1/m_j of its own step and of those after it (T9).

**Proof.** m·|y - y*|² <= <F(y) - y_s, y - y*> <= (r^ + delta)·|y - y*|, as |F(y) - y_s| <= |F^(y) - y_s| + |F^(y) - F(y)|. For
the iteration let T(y) = y + omega·(y_s - F(y)) and T^ its computed form: |T^(y) - y*| <= |T^(y) - T(y)| + |T(y) - T(y*)|
<= (omega·delta + e) + q·|y - y*|, so limsup |y_k - y*| <= (omega·delta + e)/(1 - q), and the residual there is at most
|F(y) - F(y*)| + delta <= L·|y - y*| + delta.
Over steps, if y_{k-1} is wrong by E, the exact solution for it is wrong by at most E/m_k (T9), and the computed one by
(r^ + delta)/m_k more. ∎

So no certificate can promise a float32 run a radius below its rounding noise, and ours do not: they enclose the solution of
the network in exact real arithmetic, and a run's distance from it is (r^ + delta)/m, here with F enclosed by Arb.
**The paper** and its successors report residuals of half-precision runs and take them for errors.
"""

import itertools

import numpy as np

from proofs_checks.base import Instance, Outcome, Statement, conclude

statement = Statement(
    name="T16",
    title="finite precision: where the residual stalls, and what error that means",
    hypotheses={
        "noise": "|F^(y) - F(y)| <= delta at the points visited",
        "modulus": "F is strongly monotone with modulus m > 0",
        "radius": "the radius claimed is at least (r^ + delta)/m",
    },
    claim="the solution lies within the claimed radius of the computed result; the residual stalls at a multiple of delta; "
    "over the steps of an inversion the errors add up with T9's amplification",
    source="forward error analysis as in Higham 2002, chapter 1; THEORY T16",
)

LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8)


def instance() -> Instance:
    """Three points in float32, and the radius that the theorem allows."""
    return Instance({"target": (0.45, 0.27), "share": 1.0})


def broken_instance() -> Instance:
    """The same run with a thousandth of that radius: below its rounding noise."""
    return Instance({"target": (0.45, 0.27), "share": 1e-3}, violates="radius")


def computed(y, points, rho: float, sigma: float):
    """F in the arithmetic of y, for equally likely points."""
    kind = y.dtype.type
    logits = -((y[None, :] - points) ** 2).sum(axis=1) / kind(2 * sigma**2)
    weights = np.exp(logits - logits.max())
    return kind(rho) * y + kind(1 - rho) * (weights @ points / weights.sum())


def run(target, points, rho: float, sigma: float, dtype) -> tuple[np.ndarray, float]:
    """T6's relaxed iteration in one precision until no smaller residual was seen for 100 iterations: point and residual."""
    points, target = points.astype(dtype), np.asarray(target, dtype)
    diameter = max(np.linalg.norm(a - b) for a in points for b in points)
    omega = dtype(2 / (2 * rho + (1 - rho) * float(diameter) ** 2 / (4 * sigma**2)))
    y, best, least, since = target.copy(), target.copy(), np.inf, 0
    while since < 100:
        rest = target - computed(y, points, rho, sigma)
        size = float(np.linalg.norm(rest.astype(np.float64)))
        best, least, since = (y, size, 0) if size < least else (best, least, since + 1)
        y = y + omega * rest
    return best, least


def noise(step, points, rho: float, sigma: float, ys) -> float:
    """An upper bound of |F^(y) - F(y)| over float32 points, F enclosed by the kernel's ball arithmetic."""
    from flint import ctx

    from fpjax.certify import propose

    worst = 0.0
    with ctx.workprec(propose.PRECISION):
        for y in ys:
            there = computed(y, points.astype(np.float32), rho, sigma).astype(np.float64)
            gap = step.residual(propose.balls(y.astype(np.float64)), propose.balls(there))
            worst = max(worst, propose.above(propose.norm(gap)))
    return worst


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """A float32 run, a certificate around its result, and a whole float32 inversion against a certified trajectory."""
    from fpjax.certify import propose
    from proofs_checks import certificates as cert

    target = np.asarray(instance.data["target"], np.float32)
    points, (low, high) = np.asarray(cert.POINTS), LEVELS[-2:]
    rho, p, rng = low / high, cert.step("points", low, high), np.random.default_rng(seed)
    y, residual = run(target, points, rho, high, np.float32)
    near = y[None, :] + (rng.normal(size=(samples, 2)) * 1e-4).astype(np.float32)
    delta = noise(p.step, points, rho, high, [y, *near])
    allowed = (residual + delta) / rho  # m = rho for an exact denoiser (E3)
    claimed = instance.data["share"] * allowed
    centre, wanted = [[float(v).hex() for v in a.astype(np.float64)] for a in (y, target)]

    def around(claim):
        claim.update(centre=centre, target=wanted, radius=float(claimed).hex())

    found = cert.derive(propose.step_ball, p, target, y, forms=("structure",), edit=around)
    exact = cert.derive(propose.step_ball, p, target, y, forms=("structure",))
    true = np.asarray([float.fromhex(v) for v in exact.certificate.data["claim"]["centre"]])
    error = float(np.linalg.norm(y.astype(np.float64) - true))
    latent, total = _inversion(points, target, cert, propose)
    hypotheses = {
        "noise": delta >= noise(p.step, points, rho, high, [y]),
        "modulus": cert.derive(propose.structure, p.card, p.model, [low, high]).holds,
        "radius": claimed >= allowed,
    }
    stalls = residual <= 20 * delta and exact.facts["radius"] < 1e-3 * error
    claim = found.holds and error <= claimed and stalls and latent <= total
    detail = (
        f"float32: delta {delta:.2g}, residual stalls at {residual:.2g}, error {error:.2g}, claimed {claimed:.2g}: "
        f"{'proved' if found.holds else 'the kernel refuses'}; {len(LEVELS) - 1} steps: error {latent:.2g}, "
        f"allowed {total:.2g}"
    )
    figures = {"delta": delta, "residual": residual, "error": error, "claimed": claimed, "latent": latent}
    return conclude(hypotheses, claim, "ball arithmetic, sampled", samples, detail, figures)


def _inversion(points, target, cert, propose) -> tuple[float, float]:
    """A float32 inversion over LEVELS: its latent's distance to the certified one, and the theorem's bound of it."""
    y, bound, path = target, 0.0, [target.astype(np.float64)]
    for low, high in itertools.pairwise(LEVELS):
        rho = low / high
        y, residual = run(y, points, rho, high, np.float32)
        delta = noise(cert.step("points", low, high).step, points, rho, high, [y])
        bound = (bound + residual + delta) / rho
        path.append(y.astype(np.float64))
    p = cert.step("points", *LEVELS[:2])
    found = cert.derive(propose.trajectory, p.card, p.model, LEVELS, path, 0)
    true = np.asarray([float.fromhex(v) for v in found.certificate.data["claim"]["centres"][-1]])
    return float(np.linalg.norm(path[-1] - true)), bound + found.facts["radius"]
