"""The problem zoo of benchmarks/solvers.py: fixed points y = step(y, params) whose solution is known in float64.

Each family is one ``step`` with stacked params, so that all its members compile once. The solution is chosen first and
the map built around it. Where several solutions may exist (learned networks, tanh maps beyond contraction) the chosen
one need not be the one a method finds; the benchmark counts another exact solution as right.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import fpjax
from fpjax import process
from fpjax.models import exact
from fpjax.step import F, G, Step


class Family(NamedTuple):
    """``n`` problems of one kind: params and start with a leading axis of n, and the known solutions (n, d)."""

    name: str
    step: Callable
    params: Any
    y0: jax.Array
    truth: jax.Array
    unique: bool = True
    bounded_below: bool = False  # T2's modulus is at least rho

    @property
    def n(self) -> int:
        return self.truth.shape[0]


def affine(y, p):
    """y -> y* + A (y - y*)."""
    a, truth = p
    return truth + a @ (y - truth)


def wave(y, p):
    """y -> y* + A (tanh(y) - tanh(y*)): slopes fall off away from 0."""
    a, truth = p
    return truth + a @ (jnp.tanh(y) - jnp.tanh(truth))


def _stack(items):
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *items)


def _symmetric(rng, eigenvalues):
    d = len(eigenvalues)
    q = np.linalg.qr(rng.normal(size=(d, d)))[0]
    return q @ np.diag(eigenvalues) @ q.T


def _family(name, step, matrices, rng, unique=True) -> Family:
    d = matrices[0].shape[0]
    truth = rng.normal(size=(len(matrices), d))
    params = (jnp.asarray(np.stack(matrices)), jnp.asarray(truth))
    return Family(name, step, params, jnp.zeros((len(matrices), d)), jnp.asarray(truth), unique)


def random_maps(seed: int = 0, n: int = 20) -> list[Family]:
    """Contractions, near-singular, oscillating, expanding and non-symmetric maps in 1, 2, 10 and 64 dimensions."""
    rng = np.random.default_rng(seed)
    out = []
    for d in (2, 10, 64):
        gauss = [rng.normal(size=(d, d)) / d**0.5 for _ in range(n)]
        scale = np.linspace(0.1, 0.9, n)
        unit = [g / np.linalg.norm(g, 2) for g in gauss]
        out += [
            _family(f"contraction affine {d}", affine, [s * u for s, u in zip(scale, unit, strict=True)], rng),
            _family(f"contraction tanh {d}", wave, [s * u for s, u in zip(scale, unit, strict=True)], rng),
            _family(
                f"near-singular {d}",
                affine,
                [_symmetric(rng, np.r_[1 - 10 ** -rng.uniform(2, 4), rng.uniform(-0.5, 0.5, d - 1)]) for _ in range(n)],
                rng,
            ),
            _family(
                f"oscillating {d}",
                wave,
                [_symmetric(rng, np.r_[-rng.uniform(0.95, 2), rng.uniform(-0.5, 0.5, d - 1)]) for _ in range(n)],
                rng,
            ),
            _family(
                f"expanding {d}",
                affine,
                [_symmetric(rng, -rng.uniform(0, s, d)) for s in np.linspace(1.5, 30, n)],
                rng,
            ),
            _family(
                f"non-symmetric {d}", affine, [s * g for s, g in zip(np.linspace(0.3, 1.2, n), gauss, strict=True)], rng
            ),
        ]
    return out


def _steps(name, den, sigmas, rhos, truths, conditions=None, guidance=None, unique=True) -> Family:
    """Inversion steps whose y_t is known: y_s = F(y_t)."""
    n = len(truths)
    c = jnp.asarray(np.full(n, den.null) if conditions is None else conditions, jnp.int32)
    w = None if guidance is None else jnp.full(n, float(guidance))
    p = Step(den, jnp.asarray(sigmas), jnp.asarray(rhos), jnp.asarray(truths), c, w)
    axes = Step(None, 0, 0, 0, 0, None if w is None else 0)  # pyright: ignore
    target = jax.jit(jax.vmap(F, in_axes=(0, axes)))(jnp.asarray(truths), p)
    p = p._replace(target=target, den=jax.tree.map(lambda a: jnp.broadcast_to(a, (n, *a.shape)), den))
    return Family(name, G, p, target, jnp.asarray(truths), unique, unique and den.facts.monotone)


def inversion_steps(den, name, steps: int, images: int, *, guidance=None, unique=True, seed=0, skip=0) -> Family:
    """Every step of a DDIM grid for held-out digits, at their noised versions."""
    grid = process.ddim(steps)
    x, c = fpjax.samples("digits", images, seed)
    rng = np.random.default_rng(seed)
    den = den.astype(jnp.float64)
    sigma = np.repeat(grid.sigmas[1 + skip :], images)
    rho = np.repeat(grid.rho[skip:], images)
    clean = np.tile(x.astype(np.float64), (steps - skip, 1, 1))
    truth = clean + sigma[:, None, None] * rng.normal(size=clean.shape)
    return _steps(name, den, sigma, rho, truth, np.tile(c, steps - skip), guidance, unique)


def exact_denoisers(seed: int = 1, n: int = 16) -> list[Family]:
    """Mixtures of narrow Gaussians, whose Jacobian is far beyond contraction at small noise."""
    rng = np.random.default_rng(seed)
    out = []
    for d, std in ((1, 0.05), (2, 0.1), (16, 0.3)):
        den = exact.mixture(rng.normal(size=(6, d)), std).astype(jnp.float64)
        sigma = np.geomspace(0.1, 5, n)
        rho = rng.uniform(0.1, 0.9, n)
        truth = np.asarray(den.params["means"])[rng.integers(0, 6, n)] + sigma[:, None] * rng.normal(size=(n, d))
        out.append(_steps(f"exact mixture {d}", den, sigma, rho, truth))
    return out


def families(quick: bool = False) -> list[Family]:
    """All of the zoo, at least 500 problems."""
    monotone, plain = fpjax.load("digits-monotone"), fpjax.load("digits-plain")
    images = 2 if quick else 4
    learned = [
        inversion_steps(monotone, f"learned prior N={n}", n, max(images, 24 // n), unique=True) for n in (2, 5, 20)
    ]
    plain_steps = inversion_steps(plain, "plain network N=10", 10, images, unique=False)
    guided = inversion_steps(monotone, "guided 3 N=10", 10, images, guidance=3.0, unique=False)
    return [*random_maps(n=6 if quick else 20), *exact_denoisers(), *learned, plain_steps, guided]
