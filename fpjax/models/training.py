"""Training of the embedded models: one objective, one optimiser, one loop, a recipe for each model.

The objective is the noise-prediction loss E |D(y, sigma) - x|²/sigma² per value, y = x + sigma·n, over the noise
levels of DDPM's linear schedule (Ho et al. 2020, Eq. 14, in y-coordinates). Everything is a function of the seed.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from fpjax import data, process
from fpjax.evidence import FpjaxError
from fpjax.models.monotone import LearnedMixture
from fpjax.models.plain import EDMNetwork

CHUNK = 200  # updates in one compiled call
DROPOUT = 0.1  # share of samples trained without their condition


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one embedded model is made.

    The two digit models have the same number of parameters to 1 % and take about the same time to train.

    Attributes:
      kind: "learned-mixture" or "edm-network". dataset: a name of :mod:`fpjax.data`.
      options: arguments of the architecture.
      updates, batch, learning_rate, weight_decay: of AdamW with a cosine schedule and 200 updates of warm-up.
      ema: decay of the running average of the parameters, which is what is kept.
      seed: of everything.
    """

    kind: str
    dataset: str
    options: tuple[tuple[str, Any], ...]
    updates: int
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    ema: float = 0.999
    seed: int = 0


RECIPES = {
    "digits-monotone": Recipe(
        "learned-mixture", "digits", (("per_class", 2), ("rank", 22)), updates=2000, learning_rate=1e-3
    ),
    "digits-plain": Recipe(
        "edm-network",
        "digits",
        (("width", 64), ("hidden", 128), ("depth", 1), ("embedding", 32), ("frequencies", 16), ("data_std", 0.75)),
        updates=20000,
        learning_rate=2e-3,
    ),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """What a training run leaves behind: the averaged model, its losses, and where the loss was measured."""

    model: LearnedMixture | EDMNetwork
    train_loss: float
    held_out_loss: float
    curve: list[tuple[int, float]]
    seconds: float


def recipe(name: str) -> Recipe:
    """The recipe of an embedded model.

    Raises:
      FpjaxError: for an unknown name.
    """
    if name not in RECIPES:
        raise FpjaxError(f"no training recipe for {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def build(r: Recipe) -> LearnedMixture | EDMNetwork:
    """The untrained model of a recipe."""
    split = data.load(r.dataset)
    conditions = int(split.train_labels.max()) + 1
    options = dict(r.options)
    if r.kind == "learned-mixture":
        return LearnedMixture(split.train, split.train_labels, conditions, seed=r.seed, **options)
    return EDMNetwork(split.train[0].size, conditions, rngs=nnx.Rngs(r.seed), **options)


def noise_levels() -> np.ndarray:
    """The 1,000 noise levels of the objective, float32."""
    return process.vp_sigma(process.alphas_bar("linear")).astype(np.float32)


def loss(model, images, labels, sigmas, noise) -> jax.Array:
    """The objective on a batch: mean over samples and values of |D(x + sigma·n, sigma, c) - x|²/sigma²."""

    def one(x, c, sigma, n):
        return jnp.mean(((model(x + sigma * n, sigma, c) - x) / sigma) ** 2)

    return jnp.mean(jax.vmap(one)(images, labels, sigmas, noise))


@functools.partial(jax.jit, static_argnames="graph")
def _batch_loss(graph, state, *batch):
    return loss(nnx.merge(graph, state), *batch)


def evaluate(model: nnx.Module, images, labels, repeats: int = 40, seed: int = 12345) -> float:
    """The objective on given images: every image at ``repeats`` stratified noise levels, with fixed noise."""
    graph, state = nnx.split(model)
    levels = noise_levels()
    rng = np.random.default_rng(seed)
    total = 0.0
    for i in range(repeats):
        t = ((i + rng.random(len(images))) / repeats * len(levels)).astype(int)
        noise = rng.standard_normal(images.shape).astype(np.float32)
        total += float(_batch_loss(graph, state, images, labels, levels[t], noise))
    return total / repeats


def train(r: Recipe, progress: Callable[[int, int, float], None] | None = None) -> Run:
    """Trains a recipe from its seed.

    Args:
      progress: called with (updates done, updates in all, mean loss of the last chunk).

    Raises:
      FpjaxError: if the loss becomes NaN or infinite.
    """
    split = data.load(r.dataset)
    graph, state = nnx.split(build(r))
    warmup = min(200, max(1, r.updates // 10))
    schedule = optax.warmup_cosine_decay_schedule(0.0, r.learning_rate, warmup, r.updates, r.learning_rate * 0.01)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=r.weight_decay))
    carry = (state, state, optimiser.init(state))
    arrays = (jnp.asarray(split.train), jnp.asarray(split.train_labels), jnp.asarray(noise_levels()))
    null = int(split.train_labels.max()) + 1
    key = jax.random.key(r.seed)

    def chunk(carry, steps):
        return jax.lax.scan(functools.partial(_update, graph, optimiser, arrays, null, r, key), carry, steps)

    chunk = jax.jit(chunk)
    start, curve = time.perf_counter(), []
    for first in range(0, r.updates, CHUNK):
        steps = jnp.arange(first, min(first + CHUNK, r.updates))
        carry, losses = chunk(carry, steps)
        mean = float(jnp.mean(losses))
        if not np.isfinite(mean):
            raise FpjaxError("the training loss became NaN or infinite; lower the learning rate")
        curve.append((int(steps[-1]) + 1, mean))
        if progress is not None:
            progress(int(steps[-1]) + 1, r.updates, mean)
    model = nnx.merge(graph, carry[1])
    seconds = time.perf_counter() - start
    return Run(
        model,
        evaluate(model, split.train, split.train_labels),
        evaluate(model, split.held_out, split.held_out_labels),
        curve,
        seconds,
    )


def card(name: str, r: Recipe, run: Run) -> dict[str, Any]:
    """The model card of a run: what it is, what it was made from, how well it does and how to make it again."""
    split = data.load(r.dataset)
    monotone = r.kind == "learned-mixture"
    source = "T6: gradient of a log-sum-exp of convex quadratics (fpjax.models.mixture)" if monotone else ""
    return {
        "name": name,
        "shape": list(split.train.shape[1:]),
        "conditions": [str(c) for c in range(int(split.train_labels.max()) + 1)],
        "facts": {"symmetric": monotone, "monotone": monotone, "source": source},
        "architecture": {"kind": r.kind, "options": {} if monotone else dict(r.options)},
        "layers": run.model.layers(),
        "training": {
            "command": f"fpjax train {name}",
            "recipe": dataclasses.asdict(r) | {"options": dict(r.options)},
            "data": data.CREDITS[r.dataset],
            "train_images": len(split.train),
            "held_out_images": len(split.held_out),
            "objective": "mean of |D(y, sigma) - x|²/sigma² per value over DDPM's linear schedule (noise-prediction loss)",
            "train_loss": run.train_loss,
            "held_out_loss": run.held_out_loss,
            "loss_curve": [[n, round(v, 6)] for n, v in run.curve],
            "seconds": round(run.seconds, 1),
        },
    }


def _update(graph, optimiser, arrays, null, r: Recipe, key, carry, step):
    """One update: a batch drawn from the step's own key, so that a run can start anywhere."""
    state, average, moments = carry
    images, labels, levels = arrays
    k = jax.random.split(jax.random.fold_in(key, step), 4)
    rows = jax.random.randint(k[0], (r.batch,), 0, images.shape[0])
    # Stratified noise levels: the same expectation with less variance.
    u = (jnp.arange(r.batch) + jax.random.uniform(k[1], (r.batch,))) / r.batch
    sigmas = levels[(u * levels.shape[0]).astype(jnp.int32)]
    noise = jax.random.normal(k[2], (r.batch, *images.shape[1:]))
    drop = jax.random.uniform(k[3], (r.batch,)) < DROPOUT
    c = jnp.where(drop, null, labels[rows])

    def objective(state):
        return loss(nnx.merge(graph, state), images[rows], c, sigmas, noise)

    value, gradient = jax.value_and_grad(objective)(state)
    updates, moments = optimiser.update(gradient, moments, state)
    state = optax.apply_updates(state, updates)
    decay = jnp.minimum(r.ema, (1.0 + step) / (10.0 + step))
    average = jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, average, state)
    return (state, average, moments), value
