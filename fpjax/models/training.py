"""Training of the embedded models: one optimiser and one loop for every recipe (recipes).

The objective is the noise-prediction loss E |D(y, sigma) - x|²/sigma² per value, y = x + sigma·n, over the noise
levels of DDPM's linear schedule (Ho et al. 2020, Eq. 14, in y-coordinates); of a recipe with a teacher, the distance to it
(distilling). Everything is a function of the seed.
"""

import dataclasses
import functools
import io
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fpjax import data, process
from fpjax.evidence import FpjaxError
from fpjax.models import checkpoints, distilling, store
from fpjax.models.recipes import Recipe, build

Progress = Callable[[int, int, float], None]
CHUNK = 50  # updates in one point of the loss curve
TOGETHER = 3200  # values in one call of an evaluation: more do not fit a cache, and less is all overhead
SOME = 1000  # images that the losses of a card are measured on, at most


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training run leaves behind: the averaged model, its losses, and where the loss was measured."""

    model: nnx.Module
    train_loss: float
    held_out_loss: float
    curve: list[tuple[int, float]]
    seconds: float


def noise_levels() -> np.ndarray:
    """The 1,000 noise levels of the objective, float32."""
    return process.vp_sigma(process.alphas_bar("linear")).astype(np.float32)


def losses(model, images, labels, sigmas, noise) -> jax.Array:
    """The mean over values of |D(x + sigma·n, sigma, c) - x|²/sigma², for each image of a batch."""

    def one(x, c, sigma, n):
        return jnp.mean(((model(x + sigma * n, sigma, c) - x) / sigma) ** 2)

    return jax.vmap(one)(images, labels, sigmas, noise)


def loss(model, images, labels, sigmas, noise) -> jax.Array:
    """The objective on a batch."""
    return jnp.mean(losses(model, images, labels, sigmas, noise))


def evaluate(model: Callable, images, labels, repeats: int = 40, seed: int = 12345) -> float:
    """The objective on given images: every image at ``repeats`` stratified noise levels, with fixed noise."""
    return float(np.mean([value for _, value in evaluations(model, images, labels, repeats, seed)]))


def evaluations(model: Callable, images, labels, repeats: int = 40, seed: int = 12345) -> list[tuple[float, float]]:
    """(noise level, |D - x|²/sigma² per value) of each image at ``repeats`` stratified noise levels, with fixed noise."""
    levels, rng, out = noise_levels(), np.random.default_rng(seed), []
    measure = jax.jit(functools.partial(losses, model))
    if isinstance(model, nnx.Module):  # parameters that are constants would be worked on while compiling
        graph, state = nnx.split(model)
        measure = functools.partial(jax.jit(lambda state, *batch: losses(nnx.merge(graph, state), *batch)), state)
    batch = max(1, TOGETHER // images[0].size)
    for i in range(repeats):
        t = ((i + rng.random(len(images))) / repeats * len(levels)).astype(int)
        noise = rng.standard_normal(images.shape).astype(np.float32)
        for first in range(0, len(images), batch):
            part = slice(first, first + batch)
            values = measure(images[part], labels[part], levels[t[part]], noise[part])
            out += zip(levels[t[part]].tolist(), np.asarray(values).tolist(), strict=True)
    return out


def train(r: Recipe, progress: Progress | None = None, checkpoint: Path | None = None, every_s: float = 30.0) -> Run:
    """Trains a recipe from its seed, or goes on from a checkpoint; the result is the same to the last bit.

    Over several devices each batch is shared out (data parallel), where its size allows.

    Args:
      progress: called with (updates done, updates in all, mean loss of the last chunk).
      checkpoint: a file to go on from if it is there, and to write every ``every_s`` seconds; removed at the end.

    Raises:
      FpjaxError: if the loss becomes NaN or infinite, the data set or the teacher is missing, or the checkpoint is of another
        recipe.
    """
    begun, split = time.perf_counter(), data.load(r.dataset)
    if r.teacher and r.batch % (2 * distilling.GROUPS):
        raise FpjaxError(f"distillation needs batches of a multiple of {2 * distilling.GROUPS} images, not {r.batch}")
    graph, state = nnx.split(build(r))
    warmup = min(200, max(1, r.updates // 10))
    schedule = optax.warmup_cosine_decay_schedule(0.0, r.learning_rate, warmup, r.updates, r.learning_rate * 0.01)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=r.weight_decay))
    carry = (state, jax.tree.map(jnp.copy, state), optimiser.init(state))
    arrays = (jnp.asarray(split.train), jnp.asarray(split.train_labels), jnp.asarray(noise_levels()))
    if r.teacher:
        teacher = store.load(r.teacher)
        arrays += (teacher, distilling.paths(teacher, distilling.weights_of(r)))
    done, curve, before = 0, [], 0.0
    if checkpoint is not None and checkpoint.exists():
        carry, done, curve, before = checkpoints.read(checkpoint, r.to_json(), carry)
    # One update a call, as convolutions inside a compiled loop are slow on CPUs.
    update = jax.jit(functools.partial(_update, graph, optimiser, len(split.names), r), donate_argnums=1)
    start, saved, losses = begun - before, time.perf_counter(), []
    for step in range(done, r.updates):
        carry, value = update(arrays, carry, jnp.asarray(step))
        losses.append(value)
        if (step + 1) % CHUNK and step + 1 < r.updates:
            continue
        mean, losses = float(jnp.mean(jnp.stack(losses))), []
        if not np.isfinite(mean):
            raise FpjaxError("the training loss became NaN or infinite; lower the learning rate")
        curve.append((step + 1, mean))
        if progress is not None:
            progress(step + 1, r.updates, mean)
        if checkpoint is not None and time.perf_counter() - saved > every_s and step + 1 < r.updates:
            checkpoints.write(checkpoint, r.to_json(), carry, step + 1, curve, time.perf_counter() - start)
            saved = time.perf_counter()
    model, seconds = nnx.merge(graph, carry[1]), time.perf_counter() - start
    repeats = 40 if split.train[0].size <= 64 else 10
    train_loss = evaluate(model, split.train[:SOME], split.train_labels[:SOME], repeats)
    held_out_loss = evaluate(model, split.held_out[:SOME], split.held_out_labels[:SOME], repeats)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return Run(model, train_loss, held_out_loss, curve, seconds)


def draw(path: Path, run: Run) -> None:
    """The loss curve of a run as a PNG: the mean loss of each CHUNK updates, and the held-out loss at the end.

    Raises:
      FpjaxError: if the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*run.curve, strict=True), label="training, as it went")
    axes.axhline(
        run.held_out_loss, color="black", linestyle="--", label=f"held out, at the end: {run.held_out_loss:.4f}"
    )
    axes.set(xlabel="updates", ylabel="noise-prediction loss", yscale="log")
    axes.legend()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    store.write_atomic(path, out.getvalue())


def _update(graph, optimiser, null, r: Recipe, arrays, carry, step):
    """One update: a batch drawn from the step's own key, so that a run can start anywhere."""
    state, average, moments = carry
    key = jax.random.fold_in(jax.random.key(r.seed), step)
    batch = distilling.draw(r, arrays, key) if r.teacher else _draw(r, null, arrays, key)
    value, gradient = _gradient(graph, r, state, batch)
    updates, moments = optimiser.update(gradient, moments, state)
    if r.slower != 1:
        updates = jax.tree_util.tree_map_with_path(functools.partial(_slowed, r.slower), updates)
    state = optax.apply_updates(state, updates)
    decay = jnp.minimum(r.ema, (1.0 + step) / (10.0 + step))
    average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, state)
    return (state, average, moments), value


def _slowed(factor: float, path, update):
    """The update of one parameter of a learned prior, of means and directions ``factor`` times as large."""
    names = jax.tree_util.keystr(path)
    return update * factor if "means" in names or "directions" in names else update


def _draw(r: Recipe, null, arrays, key):
    """A batch of the objective: images, labels, noise levels and noise."""
    images, labels, levels = arrays
    k = jax.random.split(key, 4)
    rows = jax.random.randint(k[0], (r.batch,), 0, images.shape[0])
    # Stratified noise levels: the same expectation with less variance.
    u = (jnp.arange(r.batch) + jax.random.uniform(k[1], (r.batch,))) / r.batch
    sigmas = levels[(u * levels.shape[0]).astype(jnp.int32)]
    noise = jax.random.normal(k[2], (r.batch, *images.shape[1:]))
    drop = jax.random.uniform(k[3], (r.batch,)) < distilling.DROPOUT
    return images[rows], jnp.where(drop, null, labels[rows]), sigmas, noise


def _gradient(graph, r: Recipe, state, batch):
    """The objective and its gradient: of all images at once, or, on one device, ``r.chunk`` after ``r.chunk`` added up."""
    objective = distilling.loss if r.teacher else loss
    if not r.chunk or len(jax.devices()) > 1:
        evaluated = jax.value_and_grad(lambda state, *batch: objective(nnx.merge(graph, state), *batch))
        return evaluated(state, *(shared(x) for x in batch))
    model, inner, back = nnx.merge(graph, state), state, lambda slope: (slope,)
    network = functools.partial(nnx.merge, graph)
    if hasattr(model, "prior"):  # made of the parameters once, not for each chunk
        inner, back = jax.vjp(lambda state: nnx.merge(graph, state).prior(), state)
        network = lambda prior: functools.partial(model.function, prior)  # noqa: E731
    evaluated = jax.value_and_grad(lambda inner, *batch: objective(network(inner), *batch))
    count = r.batch // r.chunk

    def add(total, part):
        return jax.tree.map(jnp.add, total, evaluated(inner, *part)), None

    parts = [x.reshape(count, r.chunk, *x.shape[1:]) for x in batch]
    (value, slope), _ = jax.lax.scan(add, (jnp.zeros(()), jax.tree.map(jnp.zeros_like, inner)), parts)
    return value / count, back(jax.tree.map(lambda x: x / count, slope))[0]


def shared(batch):
    """An array with its first axis shared out over all devices, if it divides evenly."""
    devices = jax.devices()
    if len(devices) == 1 or batch.shape[0] % len(devices):
        return batch
    mesh = jax.sharding.Mesh(np.asarray(devices), ("batch",))
    return jax.lax.with_sharding_constraint(
        batch, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    )
