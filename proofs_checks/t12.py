"""T12: how many steps a contraction factor costs: ceil( log(sigma_T/sigma_0) / -log(1 - q/K) ).

**Statement.** Let kappa = (1 - rho_k)·K <= q be wanted at every step from sigma_k to sigma_{k+1},
rho_k = sigma_k/sigma_{k+1}, with 0 < q < K. A grid of n steps from sigma_0 to sigma_T exists if and only if
n >= ceil(log(sigma_T/sigma_0)/-log(1 - q/K)). For any K(sigma) >= 0, the grid that always takes the largest
sigma_{k+1} <= sigma_T that is allowed is the shortest.

**Proof.** Let p = 1 - q/K in (0, 1). (1 - s/t)·K <= q means s >= p·t. So p^n·sigma_T <= sigma_0 along any grid; take
logarithms and divide by -log p > 0: n >= x with x = log(sigma_T/sigma_0)/-log p. If that holds,
sigma_k = min(sigma_T, sigma_0/p^k) is a grid: p·sigma_{k+1} <= min(sigma_T, sigma_0/p^k), and sigma_n = sigma_T.
An integer n is at least x if and only if it is at least ceil(x).
For K(sigma), let a be the greedy grid and b another, b_k <= a_k. Since (1 - a_k/b_{k+1})·K(b_{k+1}) is at most
(1 - b_k/b_{k+1})·K(b_{k+1}) <= q, b_{k+1} is allowed from a_k, so a_{k+1} >= b_{k+1}. By induction a is never behind. ∎
"""

import functools
import math

import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T12",
    title="the number of steps that a contraction factor needs",
    hypotheses={
        "range": "0 < q < K",
        "levels": "0 < sigma_0 < sigma_T",
    },
    claim="the shortest grid with (1 - rho)·K <= q has ceil(log(sigma_T/sigma_0)/-log(1 - q/K)) steps; for any K(sigma) "
    "the greedy grid is the shortest",
    source="THEORY T12",
    formal=(
        Formal(
            "t12.v",
            "t12_step_count",
            {
                "Hq": "0 < q < K",
                "Hsigma": "0 < sigma_0 < sigma_T",
                "Hc": "IZR c - 1 < ln (sigma_T / sigma_0) / - ln (1 - q / K) <= IZR c",
            },
        ),
        Formal(
            "t12.v",
            "t12_greedy",
            {
                "Hb_positive": "forall k, 0 < b k",
                "HK": "forall t, 0 < t -> 0 <= K t",
                "Hgreedy": "forall k t, 0 < t <= sigma_T -> (1 - a k / t) * K t <= q -> t <= a (S k)",
                "Hallowed": r"forall k, b (S k) <= sigma_T /\ (1 - b k / b (S k)) * K (b (S k)) <= q",
                "Hstart": "b O <= a O",
            },
        ),
    ),
)


def instance() -> Instance:
    """EDM's levels, 0.002 to 80, with K = 1.3."""
    return Instance({"q": 0.5, "K": 1.3, "sigma_0": 0.002, "sigma_T": 80.0})


def broken_instance() -> Instance:
    """q above K: any step is allowed, and the formula has no meaning."""
    return Instance({"q": 1.4, "K": 1.3, "sigma_0": 0.002, "sigma_T": 80.0}, violates="range")


def greedy(sigma_0: float, sigma_T: float, q: float, K) -> list[float]:
    """The grid that goes as far as allowed each time, by searching a fine list of levels: K(sigma) may be anything."""
    grid = [sigma_0]
    candidates = np.geomspace(sigma_0, sigma_T, 20001)
    while grid[-1] < sigma_T and len(grid) < 10_000:
        allowed = candidates[(1 - grid[-1] / candidates) * K(candidates) <= q]
        grid.append(float(allowed[-1]))
    return grid


@functools.cache
def length() -> bool:
    """(1 - s/t)·K <= q is s >= p·t with p = 1 - q/K, and p^x·sigma_T = sigma_0 at x = log(sigma_T/sigma_0)/-log p, by sympy."""
    s, t, q, bound, low, high, p = sympy.symbols("s t q K sigma_0 sigma_T p", positive=True)
    step = sympy.simplify(q - (1 - s / t) * bound - bound / t * (s - (1 - q / bound) * t)) == 0
    x = sympy.log(high / low) / -sympy.log(p)
    return step and sympy.simplify(sympy.expand_log(x * sympy.log(p) + sympy.log(high) - sympy.log(low))) == 0


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """The formula against the explicit grid and against random grids; greedy against random grids for a K with a bump."""
    q, bound, low, high = (instance.data[k] for k in ("q", "K", "sigma_0", "sigma_T"))
    hypotheses = {"range": 0 < q < bound, "levels": 0 < low < high}
    if not all(hypotheses.values()):
        return conclude(hypotheses, None, "symbolic, sampled", 0, f"q = {q}, K = {bound}: the formula does not apply")
    p = 1 - q / bound
    count = math.ceil(math.log(high / low) / -math.log(p))
    explicit = np.minimum(high, low / p ** np.arange(count + 1))
    factors = (1 - explicit[:-1] / explicit[1:]) * bound
    reached = explicit[-1] == high and factors.max() <= q * (1 + 1e-12) and low / p ** (count - 1) < high
    rng = np.random.default_rng(seed)
    # Random grids: each step takes a random share of what is allowed; none reaches sigma_T in fewer steps.
    shares = rng.uniform(0.5, 1.0, size=(samples, count - 1))
    furthest = float((low * np.prod(1 / p**shares, axis=1)).max())

    def bump(sigma):
        return bound * (1 + 2 * np.exp(-(np.log(sigma) ** 2)))

    best = greedy(low, high, q, bump)
    shortest = min(_random_length(rng, low, high, q, bump) for _ in range(min(samples, 50)))
    claim = reached and furthest < high and len(best) - 1 <= shortest and length()
    detail = (
        f"{count} steps reach sigma_T, {count - 1} do not; for a K(sigma) {len(best) - 1} greedy, {shortest} random"
    )
    figures = {"count": float(count), "greedy": float(len(best) - 1), "random": float(shortest)}
    return conclude(hypotheses, claim, "symbolic, sampled", samples, detail, figures)


def _random_length(rng, low: float, high: float, q: float, K) -> int:
    """The length of a grid that takes a random allowed step each time."""
    candidates = np.geomspace(low, high, 2001)
    at, steps = low, 0
    while at < high:
        allowed = candidates[(candidates > at) & ((1 - at / candidates) * K(candidates) <= q)]
        top = allowed[-1]
        at, steps = float(rng.choice(allowed[allowed >= top * 0.8])), steps + 1
    return steps
