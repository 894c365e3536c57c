"""Denoisers invertible by construction (T6): the gradient in y of a convex function, at every noise level.

``LearnedMixture`` is the exact denoiser of a learned prior, a mixture of low-rank Gaussians; the proof that it is
monotone is in :mod:`fpjax.models.mixture` and needs only floor >= 0 and variances >= 0 of what is stored.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fpjax.models import mixture

TENSORS = ("means", "factors", "variances", "floor", "logits")


class LearnedMixture(nnx.Module):
    """Trainable means, factors, variances and class weights of a mixture prior.

    Args:
      images, labels: training data (n, *shape), (n,); the start is k-means within each class, with the principal
        directions of each cluster.
      conditions: how many classes.
      per_class: components for each class. rank: directions of each component.
      seed: of the k-means.
    """

    def __init__(self, images, labels, conditions: int, *, per_class: int = 6, rank: int = 8, seed: int = 0):
        start = _clusters(np.asarray(images).reshape(len(images), -1), labels, conditions, per_class, rank, seed)
        self.means = nnx.Param(jnp.asarray(start["means"], jnp.float32))
        self.directions = nnx.Param(jnp.asarray(start["factors"], jnp.float32))
        self.log_variances = nnx.Param(jnp.log(jnp.asarray(start["variances"], jnp.float32)))
        self.log_floor = nnx.Param(jnp.log(jnp.asarray(start["floor"], jnp.float32)))
        self.class_logits = nnx.Param(jnp.asarray(start["logits"], jnp.float32))

    def tensors(self) -> dict[str, jax.Array]:
        """What is stored: the parameters of :func:`fpjax.models.mixture.denoise`; factors orthonormal by QR.

        The row without a condition is the average of the classes' weights, so the prior is one joint distribution.
        """
        logits = jax.nn.log_softmax(self.class_logits[...], axis=1)
        null = jax.nn.logsumexp(logits, axis=0, keepdims=True) - np.log(logits.shape[0]).astype(np.float32)
        return {
            "means": self.means[...],
            "factors": jnp.linalg.qr(self.directions[...])[0],
            "variances": jnp.exp(self.log_variances[...]),
            "floor": jnp.exp(self.log_floor[...]),
            "logits": jnp.concatenate([logits, null]),
        }

    def __call__(self, y, sigma, condition):
        """D(y, sigma) under a condition index."""
        return mixture.denoise(self.tensors(), y, sigma, condition)

    def layers(self) -> list[dict]:
        """The program for the certificate kernel: one operation."""
        return [{"op": "mixture", "out": "D", "in": "y", **{name: name for name in TENSORS}}]


def _clusters(points, labels, conditions, per_class, rank, seed) -> dict[str, np.ndarray]:
    """k-means within each class; each cluster's mean, leading directions and remaining variance."""
    from sklearn.cluster import KMeans

    d = points.shape[1]
    means, factors, variances, floors, logits = [], [], [], [], []
    for c in range(conditions):
        mine = points[labels == c]
        kmeans = KMeans(per_class, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
        assigned = kmeans.fit_predict(mine)
        for k in range(per_class):
            cluster = mine[assigned == k]
            centre = cluster.mean(axis=0)
            _, s, vt = np.linalg.svd(cluster - centre, full_matrices=True)
            values = np.zeros(d)
            values[: len(s)] = s**2 / len(cluster)
            floor = max(values[rank:].mean(), 1e-2)
            means.append(centre)
            factors.append(vt[:rank].T)
            variances.append(np.maximum(values[:rank] - floor, 1e-2))
            floors.append(floor)
            row = np.full(conditions, -6.0)
            row[c] = np.log(len(cluster) / len(mine))
            logits.append(row)
    columns = {"means": means, "factors": factors, "variances": variances, "floor": floors}
    return {name: np.stack(v) for name, v in columns.items()} | {"logits": np.stack(logits, axis=1)}
