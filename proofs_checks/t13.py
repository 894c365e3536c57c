"""T13: Newton-Kantorovich in radii form, and along a whole trajectory.

**Statement.** Let A be an invertible matrix, Y >= |A·(F(ybar) - y_s)| and Z >= sup over the ball B(ybar, r) of ||I - A·F'||. If
Y + Z·r <= r and Z < 1, F(y) = y_s has exactly one solution in the ball. If y_s is known only within r_s of ybar_s, the same
holds with Y = |A·(F(ybar) - ybar_s)| + ||A||·r_s; so, step by step, the last radius encloses the true latent.

**Proof.** Let T(y) = y - A·(F(y) - y_s). T' = I - A·F', so by the mean value inequality (the ball is convex) T is Z-Lipschitz on
the ball. For y in the ball |T(y) - ybar| <= |T(y) - T(ybar)| + |T(ybar) - ybar| <= Z·r + Y <= r: T maps the closed ball, a
complete space, into itself and contracts. Banach: exactly one fixed point. T(y) = y is A·(F(y) - y_s) = 0, that is F(y) = y_s,
because A is invertible (in R^d this follows from Z < 1: A·F' is invertible, so A is onto). For inexact data
|A·(F(ybar) - y_s)| <= |A·(F(ybar) - ybar_s)| + ||A||·|ybar_s - y_s|. The trajectory is this step repeated. ∎

Z is sampled over the ball plus a margin here; the certificates of the ball and of the trajectory enclose it with ball
arithmetic, and the kernel refuses the broken instance.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import sympy

from proofs_checks.base import Formal, Instance, Outcome, Statement, conclude

statement = Statement(
    name="T13",
    title="radii-polynomial ball: existence, uniqueness and enclosure",
    hypotheses={
        "invertible": "A is one-to-one",
        "contraction": "Z < 1 with Z >= ||I - A·F'|| on the ball",
        "radii": "Y + Z·r <= r with Y >= |A·(F(ybar) - y_s)|",
    },
    claim="exactly one solution in B(ybar, r), and step by step the last radius encloses the true latent",
    source="Newton-Kantorovich theorem in radii form (Day, Lessard & Mischaikow 2007); THEORY T13",
    formal=(
        Formal(
            "t13.v",
            "t13_operator",
            {
                "HV": "complete V",
                "HA_plus": "forall u v, A (u [+] v) = A u [+] A v",
                "HA_scal": "forall a u, A (a [*] u) = a [*] A u",
                "HA_injective": "forall u, A u = zero -> u = zero",
                "HY": "norm (A (F ybar [-] y_s)) <= Y",
                "HZ": (
                    "forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r -> norm ((u [-] v) [-] A (F u [-] F "
                    "v)) <= Z * norm (u [-] v)"
                ),
                "HYZ": "Y + Z * r <= r",
                "HZ1": "0 <= Z < 1",
            },
        ),
        Formal(
            "t13.v",
            "t13_radii",
            {
                "HV": "complete V",
                "HA": "is_linear A",
                "HA_injective": "forall u, A u = zero -> u = zero",
                "HDF": "forall y, norm (y [-] ybar) <= r -> filterdiff F (locally y) (DF y)",
                "HY": "norm (A (F ybar [-] y_s)) <= Y",
                "HZ": "forall y h, norm (y [-] ybar) <= r -> norm (h [-] A (DF y h)) <= Z * norm h",
                "HYZ": "Y + Z * r <= r",
                "HZ1": "0 <= Z < 1",
            },
        ),
        Formal(
            "t13.v",
            "t13_inexact",
            {
                "HV": "complete V",
                "HA_plus": "forall u v, A (u [+] v) = A u [+] A v",
                "HA_scal": "forall a u, A (a [*] u) = a [*] A u",
                "HA_injective": "forall u, A u = zero -> u = zero",
                "HA_norm": "forall v, norm (A v) <= a * norm v",
                "Ha": "0 <= a",
                "Hy_s": "norm (y_s [-] ybar_s) <= r_s",
                "HY": "norm (A (F ybar [-] ybar_s)) <= Y",
                "HZ": (
                    "forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r -> norm ((u [-] v) [-] A (F u [-] F "
                    "v)) <= Z * norm (u [-] v)"
                ),
                "HYZ": "Y + a * r_s + Z * r <= r",
                "HZ1": "0 <= Z < 1",
            },
        ),
        Formal(
            "t13_monotone.v",
            "t13_monotone",
            {
                "HV": "complete V",
                "Hm": "0 < m",
                "HL": "0 < L",
                "Hmonotone": (
                    "forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r -> m * norm (u [-] v) ^ 2 <= ⟨F u "
                    "[-] F v, u [-] v⟩"
                ),
                "Hlipschitz": (
                    "forall u v, norm (u [-] ybar) <= r -> norm (v [-] ybar) <= r -> norm (F u [-] F v) <= L * norm "
                    "(u [-] v)"
                ),
                "Hcentre": "norm (F ybar [-] y_s) <= m * r",
            },
        ),
        Formal(
            "t13_trajectory.v",
            "t13_trajectory",
            {
                "HV": "complete V",
                "Hx": "norm (x [-] ybar O) <= r O",
                "HA_plus": "forall k u v, A k (u [+] v) = A k u [+] A k v",
                "HA_scal": "forall k c u, A k (c [*] u) = c [*] A k u",
                "HA_injective": "forall k u, A k u = zero -> u = zero",
                "HA_norm": "forall k v, norm (A k v) <= a k * norm v",
                "Ha": "forall k, 0 <= a k",
                "HY": "forall k, (k < n)%nat -> norm (A k (F k (ybar (S k)) [-] ybar k)) <= Y k",
                "HZ": (
                    "forall k u v, (k < n)%nat -> norm (u [-] ybar (S k)) <= r (S k) -> norm (v [-] ybar (S k)) <= r "
                    "(S k) -> norm ((u [-] v) [-] A k (F k u [-] F k v)) <= Z k * norm (u [-] v)"
                ),
                "HYZ": "forall k, (k < n)%nat -> Y k + a k * r k + Z k * r (S k) <= r (S k)",
                "HZ1": "forall k, (k < n)%nat -> 0 <= Z k < 1",
            },
        ),
    ),
)

POINTS = np.array([[-1.0, 0.2], [1.0, 0.0], [0.3, 0.8]])


def instance() -> Instance:
    """An approximate solution 1e-4 off, a ball of radius 1e-3, and levels for a trajectory."""
    return Instance({"sigma": 0.5, "rho": 0.6, "off": 1e-4, "r": 1e-3, "sigmas": [0.2, 0.3, 0.5, 0.8]})


def broken_instance() -> Instance:
    """The same approximate solution with a ball too small to reach the true one."""
    data = {"sigma": 0.5, "rho": 0.6, "off": 1e-4, "r": 5e-5, "sigmas": [0.2, 0.3, 0.5, 0.8]}
    return Instance(data, violates="radii")


@functools.cache
def least_radius() -> bool:
    """For Z < 1, Y + Z·r <= r if and only if r is at least Y/(1 - Z), by sympy."""
    y, z, r = sympy.symbols("Y Z r", nonnegative=True)
    least = y / (1 - z)
    return sympy.simplify(r - (y + z * r) - (1 - z) * (r - least)) == 0  # what is left over has the sign of r - least


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Y, Z and the radii inequality, then Newton from many points of the ball; then a trajectory with a known latent."""
    from fpjax.models import exact, mixture

    params = jax.tree.map(jnp.asarray, exact.empirical(POINTS).params)
    rng = np.random.default_rng(seed)

    def step(y, rho, sigma):
        return rho * y + (1 - rho) * mixture.denoise(params, y, jnp.asarray(sigma), jnp.asarray(0))

    def certificate(f, ybar, r):
        """A, its norm, and Z sampled over the ball, with one tenth on top for what sampling misses."""
        a = jnp.linalg.inv(jax.jacfwd(f)(ybar))
        ball = ybar[None, :] + jnp.asarray(_in_disc(rng, samples) * r)
        gaps = jnp.eye(2)[None] - jnp.einsum("ij,njk->nik", a, jax.vmap(jax.jacfwd(f))(ball))
        return a, float(jnp.linalg.norm(a, 2)), 1.1 * float(jnp.linalg.norm(gaps, 2, axis=(1, 2)).max())

    data = instance.data
    sigma, rho, r = data["sigma"], data["rho"], data["r"]

    def f(y):
        return step(y, rho, sigma)

    star = jnp.asarray([0.4, 0.3])
    ybar = star + data["off"] * jnp.asarray([0.6, 0.8])
    a, _, z = certificate(f, ybar, r)
    y = float(jnp.linalg.norm(a @ (f(ybar) - f(star))))
    ends = ybar[None, :] + jnp.asarray(_in_disc(rng, samples) * r)
    for _ in range(60):
        ends = ends - jnp.einsum("ij,nj->ni", a, jax.vmap(f)(ends) - f(star)[None, :])
    distance = float(jnp.linalg.norm(star - ybar))
    spread = float(jnp.linalg.norm(ends - star[None, :], axis=1).max())
    enclosed, last = _trajectory(step, data["sigmas"], rng)
    proved = _kernel(ybar, f(star), rho, sigma, r)
    hypotheses = {
        "invertible": abs(float(jnp.linalg.det(a))) >= 1e-12,
        "contraction": z < 1,
        "radii": y + z * r <= r,
    }
    claim = distance <= r and spread <= 1e-12 and enclosed and proved.holds and least_radius()
    detail = f"Y = {y:.3g}, Z = {z:.3g}, r = {r:.3g}; {samples} starts end within {spread:.1e}; last radius {last:.3g}"
    detail += f"; the kernel: {proved.detail}"
    figures = {"Y": y, "Z": z, "r": r, "last_radius": last, "proved": float(proved.holds)}
    return conclude(hypotheses, claim, "symbolic, sampled, ball arithmetic", samples, detail, figures)


def _kernel(ybar, target, rho: float, sigma: float, r: float):
    """The kernel on the radii form in B(ybar, r)."""
    from fpjax.certify import propose
    from proofs_checks import certificates as cert

    centre, size = [float(v).hex() for v in ybar], float(r).hex()

    def claimed(claim):
        claim.update(centre=centre, radius=size, uniqueness_radius=size)

    p = cert.step("points", rho * sigma, sigma)
    return cert.derive(propose.step_ball, p, target, ybar, forms=("radii",), widen=False, edit=claimed)


def _trajectory(step, sigmas, rng) -> tuple[bool, float]:
    """A certified trajectory through the levels, whose latent is known because it was generated; is it enclosed?"""
    from fpjax.certify import propose
    from proofs_checks import certificates as cert

    path = [jnp.asarray(rng.normal(size=2) * sigmas[-1])]
    for low, high in zip(sigmas[-2::-1], sigmas[:0:-1], strict=True):
        path.append(step(path[-1], low / high, high))
    path = [np.asarray(y) for y in path[::-1]]
    p = cert.step("points", *sigmas[:2])
    found = cert.derive(propose.trajectory, p.card, p.model, sigmas, path, 0, tight=True)
    if not found.holds:
        return False, float("inf")
    latent = [float.fromhex(v) for v in found.certificate.data["claim"]["centres"][-1]]
    r = found.facts["radius"]
    # The latent that was generated solves the steps up to float64's rounding noise, amplified as T9 says.
    noise = 1e-15 * sigmas[-1] / sigmas[0]
    return bool(np.linalg.norm(path[-1] - latent) <= r + noise) and r <= 1e-10, r


def _in_disc(rng, n: int) -> np.ndarray:
    """n points of the unit disc, the first quarter of them on its edge."""
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.sqrt(rng.uniform(size=n))
    radius[: n // 4] = 1.0
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
