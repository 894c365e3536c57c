"""T3: plain iteration converges when G contracts; for symmetric J that is a window for its spectrum.

**Statement.** Let G(y) = y_s + (1 - rho)·(y - D(y)) and kappa = (1 - rho)·sup |I - J_D| < 1 on R^d. Then G has exactly one
fixed point y*, plain iteration converges to it from everywhere with |y_k - y*| <= kappa^k·|y_0 - y*|, and
|y - y*| <= |G(y) - y|/(1 - kappa). If J_D is symmetric, kappa < 1 at a point if and only if the spectrum of J_D there
lies in the open window ( -rho/(1 - rho), (2 - rho)/(1 - rho) ).

**Proof.** |G(a) - G(b)| <= (1 - rho)·sup |I - J|·|a - b| = kappa·|a - b| by the mean value inequality, and Banach's theorem
gives the rest: |y_{k+1} - y*| = |G(y_k) - G(y*)| <= kappa·|y_k - y*|; and |y - y*| <= |y - G(y)| + |G(y) - G(y*)| <=
|y - G(y)| + kappa·|y - y*|. For symmetric J with eigenvalues l, |I - J| = max |1 - l|, and (1 - rho)·|1 - l| < 1 is
1 - 1/(1 - rho) < l < 1 + 1/(1 - rho), that is -rho/(1 - rho) < l < (2 - rho)/(1 - rho). ∎

The lower edge is T2's edge (m = 0). The upper edge is about convergence only: there the paper's hypothesis fails while
the solution stays unique (T4). On a ball B(y0, r) the same holds if also |G(y0) - y0| <= (1 - kappa)·r.

Checked with certificates too, on a ball between the modes: the kernel bounds kappa there, and for the broken instance it
proves a pair of points that G pushes apart.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T3",
    title="plain iteration converges under contraction; the spectral window",
    hypotheses={
        "range": "0 <= rho < 1",
        "contraction": "kappa = (1 - rho)·sup ||I - J_D|| < 1",
    },
    claim="one fixed point; errors fall by kappa an iteration; error <= residual/(1 - kappa); window for symmetric J",
    source="Banach 1922; THEORY T3",
    formal=(
        Formal(
            "t3.v",
            "t3_banach",
            {
                "HV": "complete V",
                "Hkappa": "0 <= kappa < 1",
                "HG": "forall u v, norm (G u [-] G v) <= kappa * norm (u [-] v)",
            },
        ),
        Formal(
            "t3.v",
            "t3_ball",
            {
                "HV": "complete V",
                "Hkappa": "0 <= kappa < 1",
                "HG": (
                    "forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r -> norm (G u [-] G v) <= kappa * "
                    "norm (u [-] v)"
                ),
                "Hcentre": "norm (G ybar [-] ybar) <= (1 - kappa) * r",
            },
        ),
        Formal(
            "t3_jacobian.v",
            "t3_jacobian",
            {
                "Hrho": "0 <= rho <= 1",
                "HJ": "forall y, norm (y [-] ybar) <= r -> filterdiff D (locally y) (J y)",
                "Hkappa": "forall y v, norm (y [-] ybar) <= r -> (1 - rho) * norm (v [-] J y v) <= kappa * norm v",
            },
        ),
        Formal(
            "t3_window.v",
            "t3_window_scalar",
            {
                "Hrho": "0 <= rho < 1",
            },
        ),
        Formal(
            "t3_window.v",
            "t3_window_diagonal",
            {
                "Hrho": "0 <= rho < 1",
            },
        ),
        Formal(
            "t3_window.v",
            "t3_window_symmetric",
            {
                "Hrho": "0 <= rho < 1",
                "Hplus": "forall u v, J (u [+] v) = J u [+] J v",
                "Hscal": "forall a u, J (a [*] u) = a [*] J u",
                "Hsymmetric": "forall u v, ⟨J u, v⟩ = ⟨u, J v⟩",
                "Hlower": "forall v, lower * norm v ^ 2 <= ⟨J v, v⟩",
                "Hupper": "forall v, ⟨J v, v⟩ <= upper * norm v ^ 2",
                "Hwindow": r"- rho / (1 - rho) < lower /\ upper < (2 - rho) / (1 - rho)",
            },
        ),
    ),
)


def instance() -> Instance:
    """A Gaussian mixture whose modes are close for this noise level: the spectrum lies in the window."""
    return Instance({"distance": 1.0, "sigma": 0.8, "rho": 0.6})


def broken_instance() -> Instance:
    """Modes far apart and less noise: posterior variance beyond the window's upper edge."""
    return Instance({"distance": 2.0, "sigma": 0.2, "rho": 0.3}, violates="contraction")


@functools.cache
def window() -> bool:
    """(1 - rho)·|1 - l| < 1 if and only if l is in the window, by sympy on both edges."""
    l, rho = sympy.symbols("l rho", real=True)
    low, high = -rho / (1 - rho), (2 - rho) / (1 - rho)
    at_edges = [sympy.simplify((1 - rho) * (1 - edge)) for edge in (low, high)]
    # (1 - rho)(1 - l) is affine and falling in l, so it lies in (-1, 1) exactly between the edges where it is 1 and -1.
    return at_edges == [1, -1] and sympy.simplify(sympy.diff((1 - rho) * (1 - l), l) + 1 - rho) == 0


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """kappa on a fine grid (right to about 1e-7, hence the slack of 1e-6); both bounds along plain iterations."""
    from fpjax.models import exact, mixture

    distance, sigma, rho = (instance.data[k] for k in ("distance", "sigma", "rho"))
    den = exact.mixture(np.array([[-distance / 2], [distance / 2]]), 0.1)
    params = jax.tree.map(jnp.asarray, den.params)

    def d(y):
        return mixture.denoise(params, y, jnp.asarray(sigma), jnp.asarray(0))

    grid = jnp.linspace(-4, 4, 100 * samples + 1)[:, None]
    slope = jax.vmap(jax.jacfwd(d))(grid)[:, 0, 0]
    # The slope's limit far away is the components' own, c = std²/(std² + sigma²): the supremum may be there.
    far = 0.1**2 / (0.1**2 + sigma**2)
    kappa = float((1 - rho) * jnp.maximum(jnp.abs(1 - slope).max(), abs(1 - far)))
    low, high = -rho / (1 - rho), (2 - rho) / (1 - rho)
    inside = bool((slope > low).all() & (slope < high).all())
    hypotheses = {"range": 0 <= rho < 1, "contraction": kappa < 1}
    worst = float("nan")
    if all(hypotheses.values()):
        worst = _worst_ratio(lambda y, t: t + (1 - rho) * (y - d(y)), kappa, samples, seed)
    agree = inside == (kappa < 1) and window()
    bound, witness = _kernel(distance, sigma, rho)
    certified = bound.questions.get("contraction") == "CERTIFIED" and bound.facts["contraction"] <= kappa + 0.05
    claim = agree and ((worst <= 1 + 1e-6 and certified) or not all(hypotheses.values()))
    detail = (
        f"kappa {kappa:.4g}, spectrum {'inside' if inside else 'outside'} the window; error over its bound {worst:.4g}"
    )
    detail += f"; the kernel: {witness.detail if witness.holds else bound.detail}"
    figures = {"kappa": kappa, "worst": worst, "proved": float(certified), "refuted": float(witness.holds)}
    return conclude(hypotheses, claim, "symbolic, sampled, ball arithmetic", samples, detail, figures)


def _kernel(distance: float, sigma: float, rho: float) -> tuple:
    """What the kernel proves of kappa on the ball of radius 0.05 around 0, and of two points there that G pushes apart."""
    from fpjax.certify import propose
    from proofs_checks import certificates as cert

    p = cert.step(cert.blurred(((-distance / 2,), (distance / 2,)), 0.1), rho * sigma, sigma)
    ball = cert.derive(propose.lipschitz, p, [0.0], 0.05)
    return ball, cert.derive(propose.expansion_witness, p, [-0.01], [0.01])


def _worst_ratio(g, kappa: float, samples: int, seed: int) -> float:
    """The largest error along plain iterations, divided by what T3 allows, both a priori and a posteriori."""
    rng = np.random.default_rng(seed)
    targets, starts = jnp.asarray(rng.normal(size=(2, samples, 1)))

    def one(target, y0):
        star = jax.lax.fori_loop(0, 2000, lambda _, y: g(y, target), y0)

        def step(y, k):
            error = jnp.abs(y - star)[0]
            a_priori = kappa**k * jnp.abs(y0 - star)[0] + 1e-12
            a_posteriori = jnp.abs(g(y, target) - y)[0] / (1 - kappa) + 1e-12
            return g(y, target), jnp.maximum(error / a_priori, error / a_posteriori)

        return jax.lax.scan(step, y0, jnp.arange(30.0))[1].max()

    return float(jax.vmap(one)(targets, starts).max())
