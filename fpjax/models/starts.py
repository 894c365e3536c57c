"""Where the training of learned priors starts: k-means, and what its clusters look like."""

import jax
import numpy as np
from scipy.optimize import nnls
from sklearn.cluster import KMeans

from fpjax.models.tree import merges

SAMPLE = 20_000  # pixels that the Gaussians of a tree start from
WINDOWED = 400  # images whose windows a tree of windows starts from
FINEST = 1e-4  # variance of a patch in any direction
LEAST = 1e-5  # variance of such a Gaussian: a step of 8 bits has 5e-6


def mixture(points, labels, conditions, per_class, rank, seed, least: float = 1e-2) -> dict[str, np.ndarray]:
    """k-means within each class; each cluster's mean, leading directions and remaining variance, none below ``least``."""
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
            floor = max(values[rank:].mean(), least)
            means.append(centre)
            factors.append(vt[:rank].T)
            variances.append(np.maximum(values[:rank] - floor, least))
            floors.append(floor)
            row = np.full(conditions, -6.0)
            row[c] = np.log(len(cluster) / len(mine))
            logits.append(row)
    columns = {"means": means, "factors": factors, "variances": variances, "floor": floors}
    return {name: np.stack(v) for name, v in columns.items()} | {"logits": np.stack(logits, axis=1)}


def patches(
    images, components: int, rank: int, side: int, conditions: int, seed: int, labels=None
) -> dict[str, np.ndarray]:
    """The same of patches drawn from images (n, channels, h, w) with mirrored borders, whatever their class; with labels
    (n,), each class has its share of the components."""
    rng, half = np.random.default_rng(seed), side // 2
    padded = np.pad(images, ((0, 0), (0, 0), (half, half), (half, half)), mode="symmetric")
    every = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(2, 3))
    rows = [rng.integers(n, size=SAMPLE) for n in (len(images), *every.shape[2:4])]
    points = every[rows[0], :, rows[1], rows[2]].reshape(SAMPLE, -1)
    if labels is not None:
        return mixture(points, labels[rows[0]], conditions, components // conditions, rank, seed, FINEST)
    start = mixture(points, np.zeros(SAMPLE, int), 1, components, rank, seed, FINEST)
    return start | {"logits": np.repeat(start["logits"], conditions, axis=0)}


def tree(
    images, labels, conditions, states, gaussians, alike, seed, window: int = 0, places: int = 1, per_class: int = 1
) -> dict:
    """k-means of the pixels' values and of every region; the weights are how often a cluster meets the cluster of the
    region that it is merged into, plus a little. In the first ``alike`` merges, regions everywhere share their clusters.

    With a window, this is done for all windows of that side of some images, in ``places`` blocks each way; and the state
    that they go to is the kind of image, one of ``per_class`` clusters of its class.
    """
    rng = np.random.default_rng(seed)
    start = _kmeans(rng.choice(images.reshape(-1, 1), SAMPLE), gaussians, seed)
    means = start.cluster_centers_[:, 0]
    inner = np.asarray(start.predict(images.reshape(-1, 1))).reshape(images.shape)
    away = [images[inner == j] - mean for j, mean in enumerate(means)]
    variances = [max(float(np.mean(v**2)), LEAST) if v.size else LEAST for v in away]
    if window:
        some = rng.permutation(len(images))[:WINDOWED]
        cut = _windows(inner[some], window)
        tables, top = _climb(_windows(images[some], window), cut, len(means), states, len(cut), rng)
        kinds, last = _kinds(images, labels, conditions, per_class, seed), conditions * per_class
        sides = [side + window - 1 for side in images.shape[1:]]
        tables.append(_placed(kinds[some], top.reshape(len(some), *sides), last, states, places))
        top = kinds
    else:
        tables, top = _climb(images, inner, len(means), states, alike, rng)
        last = states
    root = np.log(_meetings(labels, top.ravel(), conditions, last))
    return {"means": means, "variances": np.asarray(variances), "leaf": tables[0], "levels": tables[1:], "root": root}


def _kinds(images, labels, conditions: int, per_class: int, seed: int):
    """The kind of each image (n,): its class, and which of ``per_class`` clusters of that."""
    kinds, flat = labels * per_class, images.reshape(len(images), -1)
    for c in range(conditions if per_class > 1 else 0):
        mine = labels == c
        kinds[mine] += _kmeans(flat[mine], per_class, seed).predict(flat[mine])
    return kinds


def _placed(kinds, top, rows: int, columns: int, places: int):
    """How often kinds of images (n,) meet the clusters of their windows (n, h, w) in each block of windows, as probabilities
    (places, places, rows, columns)."""
    (n, h, w), found = top.shape, []
    blocks = top.reshape(n, places, h // places, places, w // places).transpose(1, 3, 0, 2, 4)
    for block in blocks.reshape(places**2, n, -1):
        found.append(_meetings(kinds.repeat(block.shape[1]), block.ravel(), rows, columns))
    return np.stack(found).reshape(places, places, rows, columns)


def _windows(images, side: int):
    """All windows (n·a·b, side, side) of images (n, h, w); pixels beyond the border repeat it."""
    padded = np.pad(images, ((0, 0), (side - 1, side - 1), (side - 1, side - 1)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2)).reshape(-1, side, side)


def _climb(images, inner, count: int, states, alike: int, rng):
    """The tables of all merges of images whose pixels have the clusters ``inner`` (n, h, w), ``count`` of them, and the
    clusters of the last region."""
    tables, blocks = [], images[..., None]
    for m, axis in enumerate(merges(*images.shape[1:])):
        blocks = _merged(blocks, axis)
        outer = _clusters(blocks, states, m < alike, rng)
        over = outer.repeat(2, axis=axis + 1)[:, : inner.shape[1], : inner.shape[2]]  # the new region of each old one
        tables.append(_tables(over, inner, states, count, axis if m < alike else None))
        inner, count = outer, states
    return tables, inner


def _kmeans(points, clusters: int, seed: int) -> KMeans:
    """k-means of points (n, values); fewer clusters where there are fewer different points."""
    points, counts = np.unique(points, axis=0, return_counts=True)
    kmeans = KMeans(min(clusters, len(points)), n_init=1, max_iter=20, random_state=seed)  # pyright: ignore[reportArgumentType]
    return kmeans.fit(points, sample_weight=counts)


def _clusters(blocks, states: int, alike: bool, rng):
    """The cluster of each region (n, h, w) of blocks (n, h, w, values): of all regions at once, or of each."""
    n, h, w, values = blocks.shape
    flat = blocks.reshape(n * h * w, 1, values) if alike else blocks.reshape(n, h * w, values)
    found = []
    for i in range(flat.shape[1]):
        points = flat[:, i]
        some = points[rng.permutation(len(points))[: 100 * states]]
        found.append(_kmeans(some, states, int(rng.integers(1 << 31))).predict(points))
    return np.stack(found, axis=1).reshape(n, h, w)


def _tables(over, inner, rows: int, columns: int, axis: int | None):
    """The meetings of the clusters ``over`` and ``inner`` (n, h, w) at each place, (h, w, rows, columns); or those of all
    first and all second parts along an axis, (2, 1, rows, columns) or (1, 2, rows, columns)."""
    if axis is None:
        h, w = inner.shape[1:]
        places = [(over[:, i, j], inner[:, i, j]) for i in range(h) for j in range(w)]
        return np.stack([_meetings(a, b, rows, columns) for a, b in places]).reshape(h, w, rows, columns)
    swapped = [np.moveaxis(v, axis + 1, 0) for v in (over, inner)]
    pairs = np.stack([_meetings(swapped[0][i::2].ravel(), swapped[1][i::2].ravel(), rows, columns) for i in (0, 1)])
    return pairs[:, None] if axis == 0 else pairs[None]


def _merged(blocks, axis: int):
    """Neighbours of blocks (n, h, w, values) joined along h or w (axis 0, 1); the last of an odd number with zeros."""
    if blocks.shape[axis + 1] % 2:
        blocks = np.pad(blocks, [(0, int(i == axis + 1)) for i in range(4)])
    halves = (blocks[:, ::2], blocks[:, 1::2]) if axis == 0 else (blocks[:, :, ::2], blocks[:, :, 1::2])
    return np.concatenate(halves, axis=-1)


def _meetings(outer, inner, rows: int, columns: int):
    """How often each outer cluster meets each inner one, as probabilities (rows, columns) of the inner ones."""
    counts = np.zeros((rows, columns))
    np.add.at(counts, (outer, inner), 1)
    counts += 0.5 / columns + 0.05 * counts.sum(axis=0) / len(outer)
    return counts / counts.sum(axis=1, keepdims=True)


def shares(parts, images, labels, levels, seed: int = 0):
    """log shares (parts, levels): at each noise level the weighted mean of the parts' posterior means that comes closest
    to the clean images, by least squares; no share below a thousandth.

    Args:
      parts: learned priors (monotone).
    """
    rng, found = np.random.default_rng(seed), []
    some = rng.permutation(len(images))[:256]
    images, labels = images[some], labels[some]
    batched = [(jax.jit(jax.vmap(part.function, in_axes=(None, 0, None, 0))), part.prior()) for part in parts]
    for sigma in np.asarray(levels, np.float32):
        noisy = images + sigma * rng.standard_normal(images.shape).astype(np.float32)
        guesses = [np.asarray(f(prior, noisy, sigma, labels), np.float64).ravel() for f, prior in batched]
        columns = np.stack(guesses, axis=1)
        heavy = 1e4 * np.ones((1, len(parts)))  # one more equation: the shares sum to 1
        target = np.append(images.ravel().astype(np.float64), 1e4)
        found.append(np.maximum(nnls(np.concatenate([columns, heavy]), target)[0], 1e-3))
    return np.log(np.stack(found, axis=1))
