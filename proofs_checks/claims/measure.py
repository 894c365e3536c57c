"""The models that claims are measured on, and what is measured of them at every (image, step).

Two trained networks, and three exact denoisers of the same training images: of a Gaussian with their mean and covariance,
of a mixture with one component a class, and of the images themselves (300 of them). Everything is float64.

At each step y_t = x + sigma_t·n is drawn and y_s = F(y_t), so that a solution is known whatever any solver does.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

STEPS = 50  # as in the paper's experiments
GRIDS = (STEPS, 10)  # where the number of steps decides, fewer steps are looked at too
ITERATIONS = 100
DESCENT = 1000  # steps of gradient descent
BATCH = 50
MODELS = ("digits-plain", "digits-monotone", "gaussian", "mixture", "empirical data")
NETWORKS = MODELS[:2]


class Measured(NamedTuple):
    """Arrays over (steps, images, ...), noisier level of each step first axis, smallest first; iterations last.

    Attributes:
      rho, sigma, scale: (steps,); scale is sqrt(abar_t).
      jacobian: J_D at the known solution, (steps, images, d, d).
      gap: |dz| of a second point at z + n, n ~ N(0, I), in z-coordinates (steps, images).
      image: |dD|, the difference of the two predicted clean images; along: <dD, dz>/|dz|.
      ratio: |f(z) - f(z + n)|/|n|.
      intra: |f(z_k) - z_k| along plain iteration from z_s (steps, images, ITERATIONS), in z.
      inter: |f(z_k) - f(zhat_k)|, the second path started at z_s + n.
      error: |z_k - z*| to the known solution.
      other: the same for the second path.
    """

    rho: np.ndarray
    sigma: np.ndarray
    scale: np.ndarray
    jacobian: np.ndarray
    gap: np.ndarray
    image: np.ndarray
    along: np.ndarray
    ratio: np.ndarray
    intra: np.ndarray
    inter: np.ndarray
    error: np.ndarray
    other: np.ndarray

    @property
    def kappa(self) -> np.ndarray:
        """||J_G|| = (1 - rho)·||I - J_D|| at the solution, (steps, images)."""
        eye = np.eye(self.jacobian.shape[-1])
        return (1 - self.rho[:, None]) * np.linalg.norm(eye - self.jacobian, 2, axis=(2, 3))

    @property
    def modulus(self) -> np.ndarray:
        """rho + (1 - rho)·lambda_min(sym J_D) at the solution, (steps, images)."""
        lowest = np.linalg.eigvalsh((self.jacobian + np.swapaxes(self.jacobian, 2, 3)) / 2)[..., 0]
        return self.rho[:, None] + (1 - self.rho[:, None]) * lowest

    @property
    def converged(self) -> np.ndarray:
        """Whether plain iteration from z_s reached 1e-6 of its first residual, or was still on its way, (steps, images)."""
        return (self.intra[..., -1] <= 1e-6 * np.maximum(self.intra[..., 0], 1e-300)) | falling(self.intra)


def falling(residuals) -> np.ndarray:
    """Whether the last axis fell at each of its last 20 iterations: slow, but converging."""
    last = residuals[..., -20:]
    return (last[..., 1:] < last[..., :-1]).all(axis=-1)


@functools.cache
def denoiser(name: str):
    """The model of that name, float64."""
    import fpjax
    from fpjax import data
    from fpjax.models import exact

    if name in NETWORKS:
        return fpjax.load(name).astype(jnp.float64)
    split = data.load("digits")
    flat = split.train.reshape(len(split.train), -1).astype(np.float64)
    if name == "gaussian":
        den = exact.gaussian(flat.mean(axis=0).reshape(8, 8), np.cov(flat.T))
    elif name == "mixture":
        groups = [flat[split.train_labels == c] for c in range(10)]
        means = np.stack([g.mean(axis=0) for g in groups])
        spread = np.sqrt(np.mean([g.var(axis=0).mean() for g in groups]))
        den = exact.mixture(means.reshape(-1, 8, 8), spread, np.asarray([len(g) for g in groups], float))
    else:
        den = exact.empirical(split.train[:300].astype(np.float64))
    return den.astype(jnp.float64)


def conditions(den, labels) -> np.ndarray:
    """The class of each image where the model has classes, "no condition" otherwise."""
    return np.asarray(labels if den.conditions else np.full(len(labels), den.null), np.int32)


@jax.jit
def _at(den, sigma, rho, y, n, c):
    """One lane: everything of Measured at one (image, step), in y-coordinates."""
    from fpjax.step import F, G, Step, denoised

    def lane(args):
        sigma, rho, y, n, c = args

        def p(target):
            return Step(den, sigma, rho, target, c)

        target = F(y, p(y))
        d, size = (lambda v: denoised(v, p(target))), y.size
        jacobian = jax.jacfwd(d)(y).reshape(size, size)
        shifted, change = y + n, d(y + n) - d(y)
        norm = jnp.linalg.norm
        ratio = norm((G(shifted, p(target)) - G(y, p(target))).ravel()) / norm(n.ravel())

        def move(pair, _):
            a, b = pair
            fa, fb = G(a, p(target)), G(b, p(target))
            return (fa, fb), tuple(norm(v.ravel()) for v in (fa - a, fa - fb, a - y, b - y))

        losses = jax.lax.scan(move, (target, target + n), None, length=ITERATIONS)[1]
        return jacobian, norm(n.ravel()), norm(change.ravel()), jnp.sum(change * n) / norm(n.ravel()), ratio, *losses

    return jax.lax.map(lane, (sigma, rho, y, n, c), batch_size=BATCH)


def states(name: str, images: int, seed: int, steps: int):
    """The process, the model, states y_t = x + sigma_t·n and shifts (steps, images, *shape), and conditions (images,)."""
    import fpjax
    from fpjax import process

    grid, den = process.ddim(steps), denoiser(name)
    x, labels = fpjax.samples("digits", images, seed)
    first, second = np.random.default_rng(seed).normal(size=(2, steps, *x.shape))
    wide = (slice(None), *[None] * x.ndim)
    scale = np.asarray(grid.scale(grid.sigmas[1:]))
    return grid, den, x[None] + grid.sigmas[1:][wide] * first, second / scale[wide], conditions(den, labels)


@functools.cache
def measure(name: str, images: int = 20, seed: int = 0, steps: int = STEPS) -> Measured:
    """Everything, on held-out images at each of the steps of DDIM on DDPM's linear schedule."""
    grid, den, y, n, c = states(name, images, seed, steps)
    sigma, rho, scale = grid.sigmas[1:], grid.rho, np.asarray(grid.scale(grid.sigmas[1:]))
    lanes = [np.repeat(v, images) for v in (sigma, rho)]
    flat = [v.reshape(-1, *y.shape[2:]) for v in (y, n)]
    found = _at(den, *map(jnp.asarray, (*lanes, *flat, np.tile(c, steps))))
    jacobian, gap, image, along, ratio, *losses = (np.asarray(v).reshape(steps, images, *v.shape[1:]) for v in found)
    times = scale[:, None]
    losses = [v * times[..., None] for v in losses]
    return Measured(rho, sigma, scale, jacobian, gap * times, image, along, ratio, *losses)


@jax.jit
def _denoise(den, sigma, y, c):
    from fpjax.denoiser import evaluate

    return jax.lax.map(lambda args: evaluate(den, args[1], args[0], args[2], None), (sigma, y, c), batch_size=BATCH)


def denoise(den, sigma, y, c) -> np.ndarray:
    """D at each lane: sigma (n,), y (n, *shape), c (n,)."""
    return np.asarray(_denoise(den, jnp.asarray(sigma), jnp.asarray(y), jnp.asarray(c)))


def everywhere(images: int, seed: int):
    """(label, name, steps, measured) for each model and number of steps."""
    for steps in GRIDS:
        for name in MODELS:
            yield f"{name}, {steps} steps", name, steps, measure(name, images, seed, steps)


@functools.partial(jax.jit, static_argnames=("count", "periods"))
def _jump(den, sigma, rho, x, c, count: int, periods: int):
    from fpjax.step import G, Step

    def lane(args):
        target, c = args
        p = Step(den, sigma, rho, target, c)

        def size(v):
            return jnp.linalg.norm(v.ravel())

        def move(v, _):
            image = G(v, p)
            return image, (image, size(image - v))

        y, (_, residuals) = jax.lax.scan(move, target, None, length=count)
        after = jax.lax.scan(move, y, None, length=periods)[1][0]
        return residuals, jax.vmap(lambda v: size(v - y))(after) / (1 + size(y))

    return jax.lax.map(lane, (x, c), batch_size=BATCH)


@functools.partial(jax.jit, static_argnames=("limit",))
def solutions(den, sigma, rho, target, start, c, guidance, limit: int = 200):
    """The solver auto on lanes (sigma (n,), rho (n,), target, start (n, *shape), c (n,)): points and whether solved."""
    from fpjax.evidence import Exit
    from fpjax.solve import solve
    from fpjax.step import G, Step

    def lane(args):
        sigma, rho, target, start, c = args
        p = Step(den, sigma, rho, target, c, guidance)
        s = solve(G, start, p, solver="auto", tol=1e-9, limit=limit, stop="residual")
        return s.y, (s.exit == Exit.CONVERGED) | (s.exit == Exit.CONVERGED_TO_PRECISION)

    return jax.lax.map(lane, (sigma, rho, target, start, c), batch_size=BATCH)


class Jump(NamedTuple):
    """What happens in one step of a rectified flow, (images,) of bool each.

    Attributes:
      converges: plain iteration from y_s reached 1e-6 of its first residual, or was still on its way.
      oscillates: neither that nor growing. periodic: with a short period.
      solved: whether the solver auto found a solution.
      beyond: whether J_D has an eigenvalue beyond T3's upper edge there.
      relaxed: the first again, for T6's relaxed iteration; None where no bound of J_D is known.
    """

    converges: np.ndarray
    oscillates: np.ndarray
    periodic: np.ndarray
    solved: np.ndarray
    beyond: np.ndarray
    relaxed: np.ndarray | None


def jump(name: str, time: float, images: int, seed: int, count: int, periods: int) -> Jump:
    """One step from t = 0.01 to ``time``: ``count`` plain iterations, then a look for periods of at most ``periods``."""
    import fpjax
    from fpjax import process

    grid, den = process.rectified_flow(1, t_min=0.01, t_max=time), denoiser(name)
    x, labels = fpjax.samples("digits", images, seed)
    x, c = jnp.asarray(x, jnp.float64), jnp.asarray(conditions(den, labels))
    sigma, rho = jnp.asarray(grid.sigmas[1]), jnp.asarray(grid.rho[0])
    residuals, back = (np.asarray(v) for v in _jump(den, sigma, rho, x, c, count, periods))
    converges = (residuals[:, -1] < 1e-6 * residuals[:, 0]) | falling(residuals)
    growing = ~np.isfinite(residuals[:, -1]) | (residuals[:, -1] > 100 * residuals[:, 0])
    oscillates = ~converges & ~growing
    lanes = (jnp.full(images, v) for v in (sigma, rho))
    y, solved = solutions(den, *lanes, x, x, c, None)
    edge = (2 - float(rho)) / (1 - float(rho))
    beyond = np.asarray(_largest_eigenvalue(den, sigma, y, c)) > edge
    relaxed = None
    if den.facts.lipschitz is not None:
        bound = den.facts.lipschitz(grid.sigmas[1])
        omega = jnp.asarray(2 / (2 * grid.rho[0] + (1 - grid.rho[0]) * bound))
        residuals = np.asarray(_relaxed(den, sigma, rho, x, c, omega))
        relaxed = (residuals[:, -1] < 1e-6 * residuals[:, 0]) | falling(residuals)
    return Jump(
        converges, oscillates, oscillates & (back[:, 1:].min(axis=1) < 1e-6), np.asarray(solved), beyond, relaxed
    )


@jax.jit
def _jacobians(den, sigma, y, c):
    from fpjax.denoiser import evaluate

    def lane(args):
        y, c = args
        return jax.jacfwd(lambda v: evaluate(den, v, sigma, c, None))(y).reshape(y.size, y.size)

    return jax.lax.map(lane, (y, c), batch_size=BATCH)


def _largest_eigenvalue(den, sigma, y, c) -> np.ndarray:
    """lambda_max of sym J_D at each point, (n,)."""
    jacobian = np.asarray(_jacobians(den, sigma, y, c))
    return np.linalg.eigvalsh((jacobian + np.swapaxes(jacobian, 1, 2)) / 2)[:, -1]


@jax.jit
def _relaxed(den, sigma, rho, x, c, omega):
    """Residuals of 2000 iterations of y <- y + omega·(y_s - F(y)) from y_s, (n, 2000)."""
    from fpjax.step import F, Step

    def lane(args):
        target, c = args
        p = Step(den, sigma, rho, target, c)

        def move(y, _):
            rest = target - F(y, p)
            return y + omega * rest, jnp.linalg.norm(rest.ravel())

        return jax.lax.scan(move, target, None, length=2000)[1]

    return jax.lax.map(lane, (x, c), batch_size=BATCH)


@jax.jit
def _descend(den, sigma, rho, y, rate, c):
    from fpjax.step import F, Step

    def lane(args):
        y, rate, c = args
        p = Step(den, sigma, rho, y, c)
        target = F(y, p)

        def energy(v):
            return jnp.sum((F(v, p) - target) ** 2) / 2

        end = jax.lax.fori_loop(0, DESCENT, lambda _, v: v - rate * jax.grad(energy)(v), target)
        return jnp.sqrt(energy(end) / energy(target))

    return jax.lax.map(lane, (y, rate, c), batch_size=BATCH)


def descent(name: str, images: int, seed: int, steps: int) -> np.ndarray:
    """Gradient descent on |F(y) - y_s|²/2 in the first step, from y_s: the residual left, over the first one (images,).

    The rate is 1/L², L twice the norm of F' at the solution, which stands for the norm on the way.
    """
    grid, den, y, _, c = states(name, images, seed, steps)
    m = measure(name, images, seed, steps)
    eye = np.eye(m.jacobian.shape[-1])
    size = np.linalg.norm(m.rho[0] * eye + (1 - m.rho[0]) * m.jacobian[0], 2, axis=(1, 2))
    sigma, rho = jnp.asarray(grid.sigmas[1]), jnp.asarray(grid.rho[0])
    return np.asarray(_descend(den, sigma, rho, jnp.asarray(y[0]), jnp.asarray(1 / (2 * size) ** 2), jnp.asarray(c)))
