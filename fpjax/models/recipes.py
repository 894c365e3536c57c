"""How each embedded model is made: its architecture, data and optimiser, and the model card of a run.

Not in this room: the training itself (training).
"""

import dataclasses
from typing import Any

from flax import nnx

from fpjax import data
from fpjax.evidence import FpjaxError
from fpjax.models import store
from fpjax.models.capped import CappedNetwork, Normalised
from fpjax.models.monotone import GuidedTree, LatentTree, LearnedMixture, PatchMixture, PriorSum
from fpjax.models.plain import EDMNetwork, UNet
from fpjax.models.potentials import GradientNetwork

MONOTONE = {
    "learned-mixture": "T6: gradient of a log-sum-exp of convex quadratics (fpjax.models.mixture)",
    "latent-tree": "T6: gradient of a logarithm of sums and products of exponentials of convex quadratics (fpjax.models.tree)",
    "patch-mixture": "T6: mean of gradients of log-sum-exps of convex quadratics of patches (fpjax.models.patches)",
    "prior-sum": "T6: positive multiples of gradients of convex functions (fpjax.models.priors)",
    "guided-tree": "T6: a latent tree at every weight of guidance (fpjax.models.distilled)",
}
GRADIENTS = dict.fromkeys(store.GRADIENTS, "T6: gradient of a convex potential (fpjax.models.potentials)")
LEARNED = {"learned-mixture": LearnedMixture, "patch-mixture": PatchMixture, "latent-tree": LatentTree}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one model is made.

    Attributes:
      kind: "learned-mixture", "patch-mixture", "latent-tree", "prior-sum", "guided-tree", "wide", "input-convex",
        "convolutional", "multi-scale", "edm-network", "capped-network" or "unet".
      dataset: a name of :mod:`fpjax.data`.
      options: arguments of the architecture; of "prior-sum", those of each part by its kind (LEARNED); of "guided-tree", the
        latent tree that it starts from and the weights of guidance.
      updates, batch, learning_rate, weight_decay: of AdamW with a cosine schedule and up to 200 updates of warm-up.
      chunk: images whose gradient is computed at once on one device, 0 for all of a batch: as many as its cache takes.
      ema: decay of the running average of the parameters, which is what is kept.
      seed: of everything.
      slower: the learning rate of a prior's means and directions, in units of the data, over that of all else, logarithms.
      teacher: the model that this one is distilled from (distilling), or "" for training on data.
    """

    kind: str
    dataset: str
    options: tuple[tuple[str, Any], ...]
    updates: int
    batch: int = 256
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    ema: float = 0.999
    chunk: int = 0
    seed: int = 0
    teacher: str = ""
    slower: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """The recipe as plain data."""
        several = self.kind == "prior-sum"  # parts of one kind may come twice
        options = [[kind, dict(given)] for kind, given in self.options] if several else dict(self.options)
        return dataclasses.asdict(self) | {"options": options}


WINDOWS = (("states", 64), ("gaussians", 24), ("window", 8), ("places", 7), ("per_class", 13))
SUM = (("learned-mixture", (("per_class", 2), ("rank", 9))), ("latent-tree", WINDOWS))
COLOURED = (
    ("patch-mixture", (("components", 80), ("rank", 24), ("side", 8))),
    ("patch-mixture", (("components", 20), ("rank", 12), ("side", 16))),
)
SMALL = (("embedding", 24), ("frequencies", 16), ("data_std", 0.75))
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
    "digits-tree": Recipe(
        "latent-tree", "digits", (("states", 16), ("gaussians", 12), ("alike", 0)), 500, learning_rate=3e-2, ema=0.99
    ),
    "digits-wide": Recipe(
        "wide", "digits", (("widths", (110,)), ("components", 110), *SMALL), 6000, learning_rate=4e-3
    ),
    "digits-convex": Recipe("input-convex", "digits", (("widths", (84, 80)), *SMALL), 5000, learning_rate=4e-3),
    "digits-convolutional": Recipe(
        "convolutional", "digits", (("widths", (90, 90)), ("side", 6), *SMALL), 1500, 64, 4e-3
    ),
    "digits-multi-scale": Recipe(
        "multi-scale", "digits", (("widths", (58, 58)), ("side", 4), ("scales", (1, 2)), *SMALL), 1500, 64, 4e-3
    ),
    "digits-capped": Recipe("capped-network", "digits", (("cap", 2.0), ("width", 96), ("data_std", 0.75)), 8000),
    "digits-guided": Recipe(
        "guided-tree",
        "digits",
        (("start", "digits-tree"), ("weights", (1.0, 2.5, 6.0, 15.0))),
        3000,
        learning_rate=1e-2,
        ema=0.99,
        teacher="digits-tree",
    ),
    "mnist-monotone": Recipe("prior-sum", "mnist", SUM, 800, 16, 6e-2, ema=0.98, chunk=1, slower=0.04),
    "mnist-plain": Recipe("unet", "mnist", (("widths", (32, 64, 72)),), 1000, 64, ema=0.99),
    "fashion-monotone": Recipe("prior-sum", "fashion", SUM, 800, 16, 6e-2, ema=0.98, chunk=1, slower=0.04),
    "fashion-plain": Recipe("unet", "fashion", (("widths", (32, 64, 72)),), 1000, 64, ema=0.99),
    "photos-monotone": Recipe("prior-sum", "photos", COLOURED, 400, 16, 1e-2, ema=0.98, chunk=1, slower=0.1),
    "photos-plain": Recipe("unet", "photos", (("widths", (32, 64, 72)),), 1500, 128, ema=0.99),
    "haze-monotone": Recipe(
        "patch-mixture",
        "haze",
        (("components", 35), ("rank", 12), ("side", 16), ("apart", True)),
        updates=150,
        batch=32,
        learning_rate=1e-3,
        ema=0.95,
        chunk=4,
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe of an embedded model.

    Raises:
      FpjaxError: for an unknown name.
    """
    if name not in RECIPES:
        raise FpjaxError(f"no training recipe for {name!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[name]


def build(r: Recipe) -> nnx.Module:
    """The untrained model of a recipe; for a learned prior, from its data.

    Raises:
      FpjaxError: if the data set is not installed.
    """
    if r.kind == "guided-tree":
        options = dict(r.options)
        return GuidedTree(store.load(options["start"]), options["weights"])
    split = data.load(r.dataset)
    shape, conditions, options = split.train.shape[1:], len(split.names), dict(r.options)
    start = (split.train[:10_000], split.train_labels[:10_000], conditions)
    if r.kind in LEARNED:
        return LEARNED[r.kind](*start, seed=r.seed, **options)
    if r.kind == "prior-sum":
        return PriorSum([LEARNED[kind](*start, seed=r.seed, **dict(given)) for kind, given in r.options], *start[:2])
    if r.kind == "unet" or r.kind in GRADIENTS:
        return (UNet if r.kind == "unet" else GradientNetwork)(shape, conditions, rngs=nnx.Rngs(r.seed), **options)
    if r.kind == "capped-network":
        return Normalised(CappedNetwork(split.train[0].size, conditions, rngs=nnx.Rngs(r.seed), **options))
    return EDMNetwork(split.train[0].size, conditions, rngs=nnx.Rngs(r.seed), **options)


def card(name: str, r: Recipe, run) -> dict[str, Any]:
    """The model card of a run (:class:`fpjax.models.training.Run`): what the model is, what it was made from, how well it
    does and how to make it again."""
    split = data.load(r.dataset)
    source = (MONOTONE | GRADIENTS).get(r.kind, "")
    facts = {"symmetric": bool(source), "monotone": bool(source), "source": source}
    if r.kind == "capped-network":
        facts["source"] = "bounded as tanh is (fpjax.models.capped)"
    layers = {"layers": run.model.layers()} if hasattr(run.model, "layers") else {}
    return {
        "name": name,
        "shape": list(split.train.shape[1:]),
        "conditions": list(split.names),
        "facts": facts | ({"bounded": True} if r.kind in (*GRADIENTS, "capped-network") else {}),
        "architecture": {"kind": r.kind, "options": {} if r.kind in MONOTONE else dict(r.options)},
        **layers,
        "training": {
            "command": f"fpjax train {name}",
            "recipe": r.to_json(),
            "data": data.CREDITS[r.dataset],
            "train_images": len(split.train),
            "held_out_images": len(split.held_out),
            "objective": _objective(r),
            "train_loss": run.train_loss,
            "held_out_loss": run.held_out_loss,
            "loss_curve": [[n, round(v, 6)] for n, v in run.curve],
            "seconds": round(run.seconds, 1),
        },
    }


def _objective(r: Recipe) -> str:
    loss = "mean of |D(y, sigma) - x|²/sigma² per value over DDPM's linear schedule (noise-prediction loss)"
    if not r.teacher:
        return loss
    return f"distance to {r.teacher} (fpjax.models.distilling); the losses below, of guidance 1: {loss}"
