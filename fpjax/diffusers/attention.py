"""Attention control as in prompt-to-prompt (Hertz et al. 2208.01626): an edit that keeps the source's attention maps.

Source and target are generated together from one latent. For the first share of the steps the target's cross-attention maps
are the source's, so what the words attend to stays where it was; so, for another share, are its self-attention maps.
In this room: maps replaced inside a bridged network, which tokens take whose, the coupled generation. Not in this room: how the
latent is found (trajectory) and what is known of it (findings, editing), networks whose text and image attend jointly.
"""

import copy
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import editing, findings
from fpjax.denoiser import Denoiser, check_guidance, predict
from fpjax.diffusers import bridge, families, text
from fpjax.diffusers.bridge import need
from fpjax.diffusers.checkpoint import Bridged, Checkpoint
from fpjax.evidence import FpjaxError
from fpjax.process import Process
from fpjax.trajectory import declared_modulus, invert, prepare

KIND = "UNet2DConditionModel"
PLAIN = ("AttnProcessor", "AttnProcessor2_0")
SELF_TOKENS = 32**2  # larger self-attention is left alone, as the authors' code does


class Control(NamedTuple):
    """What is replaced, in one step or (with a leading axis) in each; k tokens of the text.

    Attributes:
      index: (k,) int32, the source's token that each token of the target takes its cross-attention map from.
      taken, own: (k,), how much of that map and how much of its own it gets.
      self_: scalar, the source's share of the target's self-attention maps.
    """

    index: jax.Array
    taken: jax.Array
    own: jax.Array
    self_: jax.Array


def replaced(maps, control, crossed: bool):
    """Attention maps (2·heads, queries, keys) of a batch [source, target], each half apart, the target's by ``control``."""
    source, target = maps.chunk(2)
    if crossed:
        return source, source.index_select(-1, control["index"]) * control["taken"] + target * control["own"]
    return source, source * control["self_"] + target * (1 - control["self_"])


class _Attention:
    """diffusers' Attention with other maps; everything else is its own."""

    def __init__(self, attention, control, crossed: bool):
        self.attention, self.control, self.crossed = attention, control, crossed

    def __getattr__(self, name):
        return getattr(self.attention, name)

    def get_attention_scores(self, query, key, mask=None):
        """The maps, the target's replaced."""
        maps = self.attention.get_attention_scores(query, key, mask)
        return need("torch", "attention control").cat(replaced(maps, self.control, self.crossed))


class Processor:
    """A processor of diffusers that writes its maps out: ``plain`` with a control, ``usual`` without one."""

    def __init__(self, plain, usual):
        self.plain, self.usual = plain, usual

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, control=None):
        """What an attention layer returns for a batch [source, target]."""
        crossed = encoder_hidden_states is not None
        if control is None or (not crossed and hidden_states.shape[1] > SELF_TOKENS):
            return self.usual(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        return self.plain(
            _Attention(attn, control, crossed), hidden_states, encoder_hidden_states, attention_mask, temb
        )


@functools.lru_cache(maxsize=2)  # one network is one program
def controlled(network: Bridged) -> Bridged:
    """A network with a :class:`Processor` in every transformer's attention; it shares its tensors with ``network``.

    Raises:
      FpjaxError: if there is no cross-attention, or one whose maps diffusers' plain processor does not compute.
    """
    processing: Any = need("diffusers.models.attention_processor", "attention control")
    old = network.function.module
    module = copy.deepcopy(old, {id(t): t for t in (*old.parameters(), *old.buffers())})
    crossed = False
    for name, part in module.named_modules():
        if not isinstance(part, processing.Attention) or ".transformer_blocks." not in name:
            continue
        if type(part.processor).__name__ not in PLAIN or getattr(part, "norm_q", None) is not None:
            raise FpjaxError(f"attention control needs plain attention, and {name} has {type(part.processor).__name__}")
        crossed |= part.is_cross_attention
        part.set_processor(Processor(processing.AttnProcessor(), part.processor))
    if not crossed:
        raise FpjaxError("attention control needs a network with cross-attention, and this one has none")
    return dataclasses.replace(network, function=bridge.Function(module))


def tokens(checkpoint: Checkpoint, condition) -> list[int]:
    """The tokens of a prompt, its beginning and end among them and padding not, by the pipeline's first tokenizer.

    Raises:
      FpjaxError: if the checkpoint came without its tokenizer, or has no such condition.
    """
    den = checkpoint.denoiser
    prompt, index = (*den.conditions, ""), den.index(condition)
    return text.tokens(checkpoint.path, prompt[index], den.params["conditions"]["text"].shape[1])


def aligned(source: Sequence[int], target: Sequence[int], length: int) -> np.ndarray:
    """(length,), for each token of the target the same token of the source, in order, -1 where it is new; padding is its own."""
    found = np.arange(length)
    found[: len(target)] = -1
    for a, b, size in SequenceMatcher(None, source, target, autojunk=False).get_matching_blocks():
        found[b : b + size] = np.arange(a, a + size)
    return found


def _alignment(checkpoint: Checkpoint, source, target, align, length: int) -> np.ndarray:
    if not isinstance(align, str):
        given = np.asarray(align)
        whole = given.shape == (length,) and np.issubdtype(given.dtype, np.integer)
        if not whole or given.min() < -1 or given.max() >= length:
            raise FpjaxError(
                f"align= takes {length} integers, each a token of the source or -1 for the target's own map"
            )
        return given
    if align not in ("same", "shared"):
        raise FpjaxError(f'align= must be "same", "shared" or {length} integers, not {align!r}')
    ours, theirs = tokens(checkpoint, source), tokens(checkpoint, target)
    if align == "shared":
        return aligned(ours, theirs, length)
    if len(ours) != len(theirs):
        raise FpjaxError(
            f'the prompts have {len(ours)} and {len(theirs)} tokens, so their maps do not correspond; use align="shared"'
        )
    return np.arange(length)


def _factors(checkpoint: Checkpoint, target, reweight: Mapping[str | int, float] | None, length: int) -> np.ndarray:
    """(length,), c of each token of the target."""
    factors = np.ones(length)
    for word, factor in (reweight or {}).items():
        if not np.isfinite(factor):
            raise FpjaxError(f"the factor of {word!r} must be a finite number, got {factor}")
        if isinstance(word, str):
            ids, own = tokens(checkpoint, target), text.tokens(checkpoint.path, word, length, marks=False)
            places = [i for i in range(len(ids)) if own and ids[i : i + len(own)] == own]
            factors[[i + j for i in places for j in range(len(own))]] = factor
        else:
            places = [word] if 0 <= word < length else []
            factors[places] = factor
        if not places:
            raise FpjaxError(f"reweight= names {word!r}, which is no word of the target's prompt")
    return factors


def control(steps: int, alignment, factors, cross: float, self_: float) -> Control:
    """The controls of all steps, in the order of generation.

    The target's map of token i is c_i·(the source's of token alignment_i, or its own at -1) in the first round(cross·steps)
    steps, and its own after them.
    """
    now = (np.arange(steps) < round(cross * steps))[:, None]
    taken = np.where(now & (alignment >= 0), factors, 0.0)
    own = np.where(now, np.where(alignment >= 0, 0.0, factors), 1.0)
    index = np.tile(np.maximum(alignment, 0), (steps, 1)).astype(np.int32)
    return Control(index, taken, own, 1.0 * (np.arange(steps) < round(self_ * steps)))  # pyright: ignore


def pair(den: Denoiser, y, sigma, conditions, weights, control: Control) -> jax.Array:
    """D of a point of each branch, y (2, *shape) = [source, target], with the target's maps controlled.

    Args:
      den: its network from :func:`with_control`. conditions: (2,) int32.
      weights: guidance of each branch, None for none; the branches without a condition are left alone.
    """
    net, params, out = den.fn, den.params, []
    arguments = []
    for v, c in zip(y, conditions, strict=True):
        row = {name: table[c] for name, table in params["conditions"].items()}
        x, t = net.seen.c_in(sigma) * v, net.seen.c_noise(sigma)
        arguments.append(families.family(KIND).arguments(net.predict.config, x, t, row))
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts), *arguments)
    kwargs = {"control": dict(control._asdict())}
    said = net.predict.function(params["network"], **both, cross_attention_kwargs=kwargs, return_dict=False)[0]
    for i, (v, w) in enumerate(zip(y, weights, strict=True)):
        d = net.seen.c_skip(sigma) * v + net.seen.c_out(sigma) * families.outcome(KIND, (said[i : i + 1],), v.shape)
        if w is not None:
            null = predict(den, v, sigma, jnp.int32(den.null))
            d = null + w * (d - null)
        out.append(d)
    return jnp.stack(out)


def with_control(den: Denoiser) -> Denoiser:
    """The same denoiser, whose network also takes a control; see :func:`pair`.

    Raises:
      FpjaxError: for a network without cross-attention of its own.
    """
    network: Any = den.fn
    predicts = getattr(network, "predict", None)
    if not isinstance(predicts, Bridged) or predicts.kind != KIND or "text" not in den.params["conditions"]:
        raise FpjaxError(
            f"attention control needs the cross-attention of a {KIND} that reads a text, and {den.name} has none"
        )
    return dataclasses.replace(den, fn=dataclasses.replace(network, predict=controlled(predicts)))


@jax.jit
def _coupled(den: Denoiser, z, conditions, weights, sigmas, rhos, controls: Control):
    """Both branches (n, 2, *shape) from the latents z (n, *shape), in y-coordinates; conditions (n, 2)."""

    def one_step(y, level):
        sigma, rho, now = level
        denoised = jax.vmap(lambda v, c: pair(den, v, sigma, c, weights, now))(y, conditions)
        return rho * y + (1 - rho) * denoised, None

    return jax.lax.scan(one_step, jnp.stack([z, z], axis=1), (sigmas, rhos, controls))[0]


def edit_with_attention(
    checkpoint: Checkpoint,
    images,
    process: Process,
    *,
    source,
    target,
    guidance: float = 1.0,
    inversion_guidance: float = 1.0,
    cross: float = 0.8,
    self_: float = 0.4,
    align: str | Sequence[int] = "same",
    reweight: Mapping[str | int, float] | None = None,
    solver: str = "auto",
    tol: float | None = None,
    limit: int = 200,
    look: bool = True,
    seed: int = 0,
) -> editing.Edit:
    """Inverts images under ``source`` and generates both prompts together, the target with the source's attention maps.

    The source's branch has the guidance of the inversion, so that its maps are those of the image itself; the maps of the
    branches without a condition are left alone. With both shares 0 this is :func:`fpjax.editing.edit`.

    Args:
      checkpoint: a text-to-image one, opened with both prompts, whose network is a UNet2DConditionModel (Stable Diffusion, SDXL).
      images: (n, *shape) at the process's smallest level (latents of the autoencoder); their dtype is the precision.
      process: of E1's steps; with :func:`fpjax.editing.shortened`, an edit of less strength.
      source, target: one condition each. guidance: w of the target. inversion_guidance: w of the inversion and the source.
      cross, self_: the shares of the steps, from noise, in which cross- and self-attention maps are the source's, in [0, 1];
        self-attention over more than 1024 places is left alone, as in the authors' code.
      align: "same": prompts of the same number of tokens, each takes its counterpart's map (word swap). "shared": tokens that
        both prompts have take the source's map, new ones keep their own (refinement). Or, for each token of the text, padding
        included, the source's token or -1.
      reweight: word of the target, or token's index -> factor of its map, as long as cross-attention maps are replaced.
      solver, tol, limit, look, seed: as of :func:`fpjax.editing.edit`.

    Returns:
      :class:`fpjax.editing.Edit`; ``back`` compares the source's branch with the images.

    Raises:
      FpjaxError: for bad input, a share outside [0, 1], a network without cross-attention, prompts of different numbers of
        tokens with "same", a word that is not in the target, or steps that are not E1's.
    """
    coupled = with_control(checkpoint.denoiser)
    process.require_e1("attention control")
    for name, share in (("cross", cross), ("self_", self_)):
        if not 0 <= share <= 1:
            raise FpjaxError(f"{name}, a share of the steps, must lie between 0 and 1, got {share}")
    den = checkpoint.denoiser
    pairs = den.index(source), den.index(target)
    check_guidance(den, guidance, target is not None)
    length = den.params["conditions"]["text"].shape[1]
    alignment = _alignment(checkpoint, source, target, align, length)
    controls = control(process.steps, alignment, _factors(checkpoint, target, reweight, length), cross, self_)
    x = prepare(den, images, source, inversion_guidance)
    dtype = x.z.dtype
    tol = findings.tolerance(dtype) if tol is None else tol
    options = {"solver": solver, "tol": tol, "limit": limit}
    inversion = invert(den, x.z, process, condition=x.condition, guidance=inversion_guidance, **options)

    weights = tuple(None if w == 1.0 else jnp.asarray(w, dtype) for w in (inversion_guidance, guidance))
    z = inversion.latent / jnp.asarray(process.scale(process.levels[-1]), dtype)
    levels = (jnp.asarray(a[::-1].copy(), dtype) for a in (process.sigmas[1:], process.rho))
    controls = Control(jnp.asarray(controls.index), *(jnp.asarray(a, dtype) for a in controls[1:]))
    conditions = jnp.tile(jnp.asarray(pairs, jnp.int32), (len(z), 1))
    made = _coupled(coupled.astype(dtype), z, conditions, weights, *levels, controls)
    made = made * jnp.asarray(process.scale(process.levels[0]), dtype)

    found, back = (), None
    if look:
        back = np.abs(np.asarray(made[:, 0] - x.z, np.float64)).reshape(len(z), -1).max(axis=1)
        found = editing.known(x, process, inversion, declared_modulus(den, process, inversion_guidance), back, seed)
    calls = process.steps * sum(1 if w is None else 2 for w in weights)
    spent = np.asarray(inversion.evaluations).sum(axis=1) + calls
    applied = np.full(process.steps, guidance)
    return editing.Edit(made[:, 1], inversion.latent, found, back, spent, inversion, process, applied)
