"""The prover's search for multipliers: diagonal weights with which a Lipschitz bound of a network is far below the product
of its layers' (LipSDP). Nothing here is trusted: the kernel proves the matrix inequality that they make.

In this room: the float problem (:func:`problem_of`), its minimisation, and margins that the kernel will accept. The
bound for given weights t is the largest eigenvalue of a Schur complement; its gradient is known from the eigenvectors,
and L-BFGS over log t does the rest.
"""

import numpy as np
from flint import arb  # pyright: ignore[reportMissingModuleSource]
from scipy.optimize import minimize

from fpjax.certify.lipsdp import multiplied, traced
from fpjax.certify.reading import CertificateError, require

IDLE = 1e-3  # of the largest multiplier; the kernel's bound of an eigenvalue loses about 1e-5 of the norm
MARGINS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def problem_of(step, centre: list[arb], radius: arb, what: str) -> tuple[np.ndarray, ...]:
    """(V, S, low, high): with u the change of y and w those of the elementwise functions, V (u, w) the changes of their
    arguments, S (u, w) the change of F or of G, and the slopes over the ball; from the kernel's own pass."""
    slopes, rows, move = traced(step, centre, radius)
    require(len(slopes) > 0, "the layers do not take multipliers")
    n, wide = move.shape
    v = np.vstack([np.asarray([float(x.mid()) for x in block.entries()]).reshape(block.shape) for block in rows])
    d = np.asarray([float(x.mid()) for x in move.entries()]).reshape(n, wide)
    start, sign = (float(step.keep), -1.0) if what == "contraction" else (float(step.rho), 1.0)
    s = start * np.eye(n, wide) + sign * float(step.keep) * d
    return v, s, np.asarray([float(x.lower()) for x in slopes]), np.asarray([float(x.upper()) for x in slopes])


def form(v, s, low, high, t, what: str) -> np.ndarray:
    """The kernel's quadratic form without its term in the bound: see lipsdp.multiplied."""
    n, wide = s.shape
    own = np.eye(wide)[n:]
    left, right = own - low[:, None] * v, high[:, None] * v - own
    q = left.T @ (t[:, None] * right)
    first = np.eye(wide)[:, :n] @ s
    base = (first + first.T) / 2 if what == "modulus" else -s.T @ s
    return base - q - q.T


def worst(v, s, low, high, t, what: str, sharp: float) -> tuple[float, np.ndarray]:
    """The bound that t gives (L², or -m), smoothed over the largest eigenvalues, and its gradient in t."""
    n = s.shape[0]
    a = form(v, s, low, high, t, what)
    try:
        np.linalg.cholesky(a[n:, n:])
    except np.linalg.LinAlgError:
        return np.inf, np.zeros_like(t)
    back = -np.linalg.solve(a[n:, n:], a[n:, :n])
    schur = -(a[:n, :n] + a[:n, n:] @ back)
    values, vectors = np.linalg.eigh((schur + schur.T) / 2)
    weights = np.exp(sharp * (values - values[-1]) / max(abs(values[-1]), 1e-9))
    z = np.vstack([vectors, back @ vectors])
    moved, w = v @ z, z[n:]
    grads = 2 * (w - low[:, None] * moved) * (high[:, None] * moved - w)
    return float(values[-1]), grads @ (weights / weights.sum())


def start(v, s, low, high, what: str) -> np.ndarray:
    """Weights with which the form is definite in w: earlier layers weigh more."""
    n, size = s.shape[0], max(np.linalg.norm(s, 2), 1e-6) ** (1 if what == "modulus" else 2)
    depth = np.zeros(len(low))
    for i, row in enumerate(v[:, n:]):  # an argument depends on earlier functions only
        depth[i] = 1 + max(depth[row != 0], default=0)
    for ratio in 4.0 ** np.arange(8):
        for scale in 4.0 ** np.arange(-2, 7):
            t = scale * size * ratio ** (depth.max() - depth)
            if np.isfinite(worst(v, s, low, high, t, what, 1e6)[0]):
                return t
    raise CertificateError("no multipliers make the form definite")


def search(step, centre: list[arb], radius: arb, what: str, rounds: int = 150) -> tuple[float, np.ndarray]:
    """(bound, t): the best bound of that kind ("contraction", "lipschitz" or "modulus") found in floats.

    Raises:
      CertificateError: if the layers take no multipliers, or no weights make the form definite.
    """
    v, s, low, high = problem_of(step, centre, radius, what)
    bounded = np.isfinite(low) & np.isfinite(high)
    if not bounded.all():
        raise CertificateError("a slope is unbounded")
    t = start(v, s, low, high, what)
    for sharp in (30.0, 300.0):

        def target(x, sharp=sharp):
            value, gradient = worst(v, s, low, high, np.exp(x), what, sharp)
            return (1e12, np.zeros_like(x)) if not np.isfinite(value) else (value, gradient * np.exp(x))

        t = np.exp(minimize(target, np.log(t), jac=True, method="L-BFGS-B", options={"maxiter": rounds}).x)
    # Those without effect need none in Arb; the fast arithmetic cannot tell no effect from a tiny one.
    t = np.where((v[:, s.shape[0] :] != 0).any(0) | (s[:, s.shape[0] :] != 0).any(0), t, IDLE * t.max())
    best = worst(v, s, low, high, t, what, 1e6)[0]
    return (-best if what == "modulus" else float(np.sqrt(max(best, 0.0)))), t


def multipliers(step, centre: list[arb], radius: arb, what: str) -> tuple[float, list[float]]:
    """(bound, t) that the kernel accepts, with as small a margin as it needs.

    Raises:
      CertificateError: if there are none.
    """
    bound, t = search(step, centre, radius, what)
    for margin in MARGINS:
        stated = bound - margin * (1 + abs(bound)) if what == "modulus" else bound * (1 + margin) + 1e-12
        if multiplied(step, centre, radius, what, arb(float(stated)), [arb(float(x)) for x in t]):
            return float(stated), [float(x) for x in t]
    raise CertificateError("the kernel did not accept the multipliers")
