"""Sets of points in which a worst case is sought: a ball, a tube round a trajectory, the shell where noisy data lies.

In this room: sampling a region and projecting onto it. Each is a pytree of arrays, so a batch of regions is one record
whose leaves have a leading axis. Not in this room: what is sought there (worst).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Ball(NamedTuple):
    """{ y : |y - centre| <= radius }; centre has the shape of a point, radius is a scalar > 0."""

    centre: jax.Array
    radius: jax.Array

    def sample(self, key):
        """A point, uniform in the ball."""
        direction, length = jax.random.split(key)
        v = jax.random.normal(direction, self.centre.shape, self.centre.dtype)
        u = jax.random.uniform(length, (), self.centre.dtype) ** (1 / self.centre.size)
        return self.centre + self.radius * u * v / _norm(v)

    def project(self, y):
        """The nearest point of the ball."""
        return _towards(self.centre, y, self.radius)

    @property
    def scale(self):
        """A length typical of the region."""
        return self.radius


class Tube(NamedTuple):
    """{ y : distance to the polyline through ``path`` <= radius }; path is (k, *shape) with k at least 2."""

    path: jax.Array
    radius: jax.Array

    def sample(self, key):
        """A point: a uniform segment, a uniform place on it, uniform in the ball there."""
        which, along, around = jax.random.split(key, 3)
        i = jax.random.randint(which, (), 0, self.path.shape[0] - 1)
        u = jax.random.uniform(along, (), self.path.dtype)
        centre = (1 - u) * self.path[i] + u * self.path[i + 1]
        return Ball(centre, self.radius).sample(around)

    def project(self, y):
        """Towards the nearest point of the polyline, until within the radius."""
        start, step = self.path[:-1], self.path[1:] - self.path[:-1]
        k = start.shape[0]
        flat = step.reshape(k, -1)
        length = jnp.sum(flat * flat, axis=1)
        place = (flat @ y.reshape(-1) - jnp.sum(flat * start.reshape(k, -1), axis=1)) / jnp.where(length > 0, length, 1)
        feet = start.reshape(k, -1) + jnp.clip(place, 0, 1)[:, None] * flat
        away = jnp.linalg.norm(feet - y.reshape(1, -1), axis=1)
        return _towards(feet[jnp.argmin(away)].reshape(y.shape), y, self.radius)

    @property
    def scale(self):
        """A length typical of the region."""
        return self.radius


class Shell(NamedTuple):
    """{ x0 + sigma·n : | |n| - sqrt(d) | <= width }: where x0 plus Gaussian noise lies, but for a probability below
    2·exp(-width²/2) (the norm is 1-Lipschitz). origin: x0; sigma, width: scalars > 0."""

    origin: jax.Array
    sigma: jax.Array
    width: jax.Array

    def sample(self, key):
        """x0 + sigma·n with n Gaussian, moved into the shell if it fell outside."""
        return self.project(self.origin + self.sigma * jax.random.normal(key, self.origin.shape, self.origin.dtype))

    def project(self, y):
        """The nearest point of the shell."""
        n = (y - self.origin) / self.sigma
        size = _norm(n)
        middle = math.sqrt(self.origin.size)
        wanted = jnp.clip(size, jnp.maximum(middle - self.width, 0), middle + self.width)
        return jnp.where(size > 0, self.origin + self.sigma * n * (wanted / jnp.where(size > 0, size, 1)), y)

    @property
    def scale(self):
        """A length typical of the region."""
        return self.sigma * math.sqrt(self.origin.size)


Region = Ball | Tube | Shell


def outside(region: Region, y):
    """How far y lies from the region: 0 inside."""
    return _norm(region.project(y) - y)


def _norm(v):
    return jnp.linalg.norm(v.reshape(-1))


def _towards(centre, y, radius):
    away = y - centre
    size = _norm(away)
    return jnp.where(size > radius, centre + away * (radius / jnp.where(size > 0, size, 1)), y)
