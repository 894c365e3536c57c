"""Every method of the literature, and ours, in one form: an image to a latent, and from there to an image again or to an edit.

In this room: one table of methods, and the two things that people do with them (:func:`reconstruct`, :func:`edit`), counted in
network evaluations. None of the others says whether it failed. Not in this room: the methods themselves (baselines,
exact_inverses, pivotal, trajectory), what our inversion knows of an edit (editing).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import baselines, exact_inverses, pivotal
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.lanes import Inputs
from fpjax.process import Process
from fpjax.trajectory import generate, invert, prepare

FIRST = "fpjax"  # our own


class Inverted(NamedTuple):
    """What a method made of n images.

    Attributes:
      latent: (n, *shape), the noisiest state in the process's own coordinates; of a method with two states, the noisier.
      evaluations: (n,) int32, network evaluations up to here; a guided one counts 2.
      failed: (n,) bool, where the method itself says that it did not succeed. Only "fpjax" ever does.
      carried: what generation needs besides, the method's own.
    """

    latent: jax.Array
    evaluations: np.ndarray
    failed: np.ndarray
    carried: Any = None


class Made(NamedTuple):
    """Images (n, *shape) that a method generated, the latent that they are from, and evaluations in all (n,), as in
    :class:`Inverted`."""

    images: jax.Array
    latent: jax.Array
    evaluations: np.ndarray
    failed: np.ndarray


class Method(NamedTuple):
    """``invert(den, images, process, condition, guidance, ahead, seed, options) -> Inverted``, with ``ahead`` the guidance of
    the generation that follows, and ``generate(den, inverted, process, condition, guidance) -> images``; what it costs to
    generate a step, in network calls.
    """

    invert: Callable[..., Inverted]
    generate: Callable[..., jax.Array]
    calls: int = 1


def _silent(x) -> np.ndarray:
    return np.zeros(len(x), bool)


def _own(den, x, process, condition, guidance, ahead, seed, options) -> Inverted:
    out = invert(den, x, process, condition=condition, guidance=guidance, **options)
    return Inverted(out.latent, np.asarray(out.evaluations).sum(axis=1), ~out.solved[:, -1])


def _stepwise(name: str) -> Method:
    def backward(den, x, process, condition, guidance, ahead, seed, options) -> Inverted:
        run = baselines.invert(den, x, process, name, condition=condition, guidance=guidance, seed=seed, **options)
        return Inverted(run.latent, np.asarray(run.evaluations).sum(axis=1), _silent(x))

    return Method(backward, _plain)


def _plain(den, inverted, process, condition, guidance):
    return generate(den, inverted.latent, process, condition=condition, guidance=guidance)


def _exact(name: str) -> Method:
    calls = 2 if name == "edict" else 1

    def backward(den, x, process, condition, guidance, ahead, seed, options) -> Inverted:
        pair = exact_inverses.invert(den, x, process, name, condition=condition, guidance=guidance, **options)
        spent = calls * process.steps * (1 if guidance == 1.0 else 2)
        return Inverted(pair.first, np.full(len(x), spent, np.int32), _silent(x), (pair, options))

    def forward(den, inverted, process, condition, guidance):
        pair, options = inverted.carried
        return exact_inverses.generate(
            den, pair, process, name, condition=condition, guidance=guidance, **options
        ).second

    return Method(backward, forward, calls)


def _pivot(name: str) -> Method:
    def backward(den, x, process, condition, guidance, ahead, seed, options) -> Inverted:
        run = baselines.invert(den, x, process, "naive", condition=condition)
        found = prepare(den, x, condition, ahead)
        if name == "direct":
            corrections = pivotal.differences(found, run.path, process)
        elif ahead == 1.0:  # no step sees the null embedding
            corrections = pivotal.Corrections(None, (), jnp.zeros(len(x), jnp.int32))
        else:
            corrections = pivotal.optimise_null(found, run.path, process, **options)
        spent = np.asarray(run.evaluations).sum(axis=1) + np.asarray(corrections.evaluations)
        return Inverted(run.latent, spent, _silent(x), corrections)

    def forward(den, inverted, process, condition, guidance):
        found = prepare(den, inverted.latent, condition, guidance)
        return pivotal.generate(found, found.z, process, inverted.carried)

    return Method(backward, forward)


METHODS: dict[str, Method] = {
    FIRST: Method(_own, _plain),
    **{name: _stepwise(name) for name in baselines.BASELINES},
    **{name: _pivot(name) for name in ("direct", "null_text")},
    **{name: _exact(name) for name in exact_inverses.METHODS},
}


def reconstruct(
    den: Denoiser,
    images,
    process: Process,
    method: str,
    *,
    condition=None,
    guidance: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> Made:
    """The images again, from the latents that a method finds: inverted and generated with the same condition and guidance.

    Direct inversion and null-text optimisation invert without guidance, as in their papers, and then follow that path.

    Args:
      den, images, process, condition, guidance: as in :func:`fpjax.invert`; process of E1's steps.
      method: a name in METHODS. seed: of a method that draws noise.
      options: the method's own, as in :func:`fpjax.baselines.invert`, :func:`fpjax.exact_inverses.invert`,
        :func:`fpjax.pivotal.optimise_null` or :func:`fpjax.invert`.

    Raises:
      FpjaxError: for an unknown method or bad input.
    """
    return edit(
        den,
        images,
        process,
        method,
        source=condition,
        target=condition,
        guidance=guidance,
        inversion_guidance=guidance,
        seed=seed,
        **options,
    )


def edit(
    den: Denoiser,
    images,
    process: Process,
    method: str,
    *,
    source=None,
    target=None,
    guidance: float = 1.0,
    inversion_guidance: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> Made:
    """Inverted under ``source`` and generated under ``target``; what a method stored on the way is used again.

    Direct inversion's differences are added to the edit too (its paper adds them to the source's branch alone, which acts on
    an edit through attention: without attention that is naive inversion).

    Args:
      source, target: conditions, one for all or n. guidance: of the generation. inversion_guidance: of the inversion.
      The rest: see :func:`reconstruct`.

    Raises:
      FpjaxError: for an unknown method or bad input.
    """
    if method not in METHODS:
        raise FpjaxError(f"unknown method {method!r}; choose one of {', '.join(METHODS)}")
    process.require_e1(method)
    x: Inputs = prepare(den, images, source, inversion_guidance)
    m = METHODS[method]
    inverted = m.invert(den, x.z, process, source, inversion_guidance, guidance, seed, options)
    made = m.generate(den, inverted, process, target, guidance)
    spent = m.calls * process.steps * (1 if guidance == 1.0 else 2)
    return Made(made, inverted.latent, inverted.evaluations + spent, inverted.failed)
