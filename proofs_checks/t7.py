"""T7: step-to-step and path-to-path losses fall at the same rate; the second only starts further away.

**Statement.** Let G contract with kappa < 1, z_k = G^k(z_0) and zhat_k = G^k(z_0 + n). Then the intra-path loss
|G(z_k) - z_k| is at most kappa^k·|first step| and the inter-path loss |G(z_k) - G(zhat_k)| at most kappa^(k+1)·|n|. Where
both fall by exactly kappa, the inter-path loss reaches any level log(|n|/|first step|)/log(1/kappa) iterations after the
intra-path loss, less the one that its definition is ahead by. The inter-path loss can refute uniqueness (two paths, two
limits) and cannot prove it.

**Proof.** G(z_k) - z_k = G(z_k) - G(z_{k-1}), so each loss falls by kappa an iteration, from |G(z_0) - z_0| and from
|G(z_0) - G(z_0 + n)| <= kappa·|n|. Setting kappa^j·kappa·|n| = kappa^k·|first step| gives
j - k = log(|n|/|first step|)/log(1/kappa) - 1. Two limits of a contraction are equal, since
|a - b| = |G(a) - G(b)| <= kappa·|a - b|; that two paths agree says nothing about a third. ∎

The check runs on a trained network (digits-plain), at steps of several grids, with n ~ N(0, I) in the process's
coordinates as in the paper's Figure 1: intra settles after 2 or 3 iterations, inter about the 7th.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T7",
    title="intra- and inter-path losses share a rate, with a predictable lag",
    hypotheses={"contraction": "G contracts with kappa < 1 between the two paths"},
    claim="both losses fall by kappa; inter lags by log(|n|/|first step|)/log(1/kappa), within one iteration",
    source="Exploring Fixed Point in Image Editing (NeurIPS 2024), Figure 1, corrected; THEORY T7",
    formal=(
        Formal(
            "t7.v",
            "t7_rates",
            {
                "Hkappa": "0 <= kappa",
                "Hf": "forall u v, norm (f u [-] f v) <= kappa * norm (u [-] v)",
            },
        ),
    ),
)

LEVEL = 0.1  # a loss has settled below this, in the process's coordinates
ITERATIONS = 40


def instance() -> Instance:
    """A trained network at small noise in 20 steps, and at larger noise in 5 and 10."""
    return Instance({"model": "digits-plain", "steps": ((20, 1), (5, 1), (10, 4), (10, 9))})


def broken_instance() -> Instance:
    """The network's lowest noise levels, where its Jacobian is beyond contraction for most images."""
    steps = ((10, 0), (20, 0))
    return Instance({"model": "digits-plain", "steps": steps}, violates="contraction")


def losses(model: str, steps: int, index: int, images: int, seed: int):
    """Intra and inter losses (iterations, images) and |n| (images,) in z; G's Jacobians at y* and the ends (3, images, d, d)."""
    import fpjax
    from fpjax import process
    from fpjax.step import F, G, Step

    grid = process.ddim(steps)
    den = fpjax.load(model).astype(jnp.float64)
    x, c = fpjax.samples("digits", images, seed)
    sigma, rho = jnp.asarray(grid.sigmas[index + 1]), jnp.asarray(grid.rho[index])
    scale = grid.scale(grid.levels[index + 1])
    first, second = jax.random.split(jax.random.key(seed + index))
    y = jnp.asarray(x, jnp.float64) + sigma * jax.random.normal(first, x.shape, jnp.float64)
    n = jax.random.normal(second, x.shape, jnp.float64) / scale
    conditions = jnp.asarray(c, jnp.int32)

    @jax.jit
    def iterate(y, n):
        def step(v, target, c):
            return Step(den, sigma, rho, target, c)

        target = jax.vmap(lambda v, c: F(v, step(v, v, c)))(y, conditions)
        g = jax.vmap(lambda v, t, c: G(v, step(v, t, c)))

        def norm(v):
            return scale * jnp.linalg.norm(v.reshape(v.shape[0], -1), axis=1)

        def move(pair, _):
            a, b = pair
            fa, fb = g(a, target, conditions), g(b, target, conditions)
            return (fa, fb), (norm(fa - a), norm(fa - fb))

        (a, b), out = jax.lax.scan(move, (target, target + n), None, length=ITERATIONS)
        size = y[0].size
        slopes = [jax.vmap(jax.jacfwd(lambda v, t, c: G(v, step(v, t, c))))(w, target, conditions) for w in (y, a, b)]
        return (*out, norm(n), jnp.stack(slopes).reshape(3, -1, size, size))

    return tuple(np.asarray(v) for v in iterate(y, n))


@functools.cache
def lag_formula() -> bool:
    """j - k where kappa^j·kappa·|n| = kappa^k·|first step|, by sympy."""
    kappa, n, first, k, j = sympy.symbols("kappa n first k j", positive=True)
    equal = sympy.log(kappa) * (j + 1) + sympy.log(n) - (sympy.log(kappa) * k + sympy.log(first))
    (found,) = sympy.solve(equal, j)
    wanted = sympy.log(n / first) / sympy.log(1 / kappa) - 1
    return sympy.simplify(sympy.expand_log(found - k - wanted, force=True)) == 0


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Medians over the images where G contracts, at least half of all.

    When each loss settles, the lag between, and the lag that the formula predicts.
    """
    images = int(np.clip(samples // 10, 4, 20))
    share, off, told, figures = 1.0, 0.0, [], {}
    for steps, index in instance.data["steps"]:
        intra, inter, size, slopes = losses(instance.data["model"], steps, index, images, seed)
        contracts = np.linalg.norm(slopes, 2, axis=(2, 3)).max(axis=0) < 1
        share = min(share, float(contracts.mean()))
        if not contracts.any():
            continue
        intra, inter, size = intra[:, contracts], inter[:, contracts], size[contracts]
        kappa = (inter[6] / inter[0]) ** (1 / 6)
        expected = np.log(size / intra[0]) / np.log(1 / np.minimum(kappa, 1 - 1e-9))
        settle = [float(np.median(_crossing(loss))) for loss in (intra, inter)]
        lag, predicted = settle[1] - settle[0], float(np.median(expected))
        off = max(off, abs(lag - (predicted - 1)))
        told.append(
            f"{steps} steps, step {index + 1}: {settle[0]:.1f} and {settle[1]:.1f}, lag {lag:.1f} ({predicted:.1f})"
        )
        figures |= {f"{steps}/{index} intra": settle[0], f"{steps}/{index} inter": settle[1]}
    contraction = share >= 0.5
    detail = "intra and inter settle after " + "; ".join(told)
    claim = off <= 1 and lag_formula() if contraction else None
    return conclude({"contraction": contraction}, claim, "symbolic, sampled", images, detail, figures)


def _crossing(loss) -> np.ndarray:
    """The iteration (images,), interpolated in log, from which on a loss stays below LEVEL."""
    above = loss > LEVEL
    last = np.where(above.any(axis=0), loss.shape[0] - 1 - np.argmax(above[::-1], axis=0), 0)
    here = np.minimum(last, loss.shape[0] - 2)
    columns = np.arange(loss.shape[1])
    a, b = loss[here, columns], loss[here + 1, columns]
    inside = (a > LEVEL) & (b < LEVEL)
    share = np.log(a / LEVEL) / np.where(inside, np.log(a / np.where(inside, b, a / 2)), 1)
    return np.where(inside, here + share, np.where(above.any(axis=0), loss.shape[0], 0.0))
