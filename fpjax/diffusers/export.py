"""Back to diffusers: latents as a pipeline takes them, and a scheduler that inverts inside an ordinary pipeline.

Needs torch. Not in this room: how inversion is done in JAX (trajectory).
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np

from fpjax import schedulers
from fpjax.diffusers.bridge import need
from fpjax.diffusers.families import pack
from fpjax.evidence import FpjaxError


def latents(states, scheduler: Any = None, *, packed: bool = False):
    """A torch tensor for the argument ``latents`` of a diffusers pipeline.

    Pipelines multiply their ``latents`` by the scheduler's ``init_noise_sigma`` (the largest sigma of the Euler schedulers;
    1 for DDIM, DPM-Solver++ and flows), so the states are divided by it here.

    Args:
      states: (n, *shape), in the coordinates of the process that belongs to the scheduler.
      scheduler: the pipeline's, after ``set_timesteps``. packed: whether the pipeline takes Flux' tokens.

    Raises:
      FpjaxError: if torch is missing.
    """
    torch = need("torch", "to_diffusers")
    array = np.asarray(states)
    if packed:
        array = np.stack([np.asarray(pack(jnp.asarray(state))) for state in array])
    return torch.from_numpy(array / float(getattr(scheduler, "init_noise_sigma", 1.0)))


class InverseScheduler:
    """A diffusers scheduler that runs from an image to its latent by solving E2, where DDIMInverseScheduler takes one guess.

    ``pipe.scheduler = InverseScheduler(pipe.scheduler)``; then ``pipe(prompt, latents=image_latents,
    num_inference_steps=20, output_type="latent")`` returns the latent. Each noise level is visited ``iterations`` times: the
    pipeline evaluates its network, and ``step`` makes the next iterate by Anderson acceleration (T14) of E2, started naively.
    With ``iterations=1`` it is naive DDIM inversion. ``residuals`` says what was reached; nothing here promises convergence,
    :func:`fpjax.audit` says when it can be had.

    Args:
      scheduler: a diffusers scheduler or its configuration. options: settings that override it.
      iterations: network evaluations for each step. depth: secant pairs kept.

    Raises:
      FpjaxError: if the scheduler's steps are not E1 (see :func:`fpjax.schedulers.from_config`).
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, scheduler: Any, *, iterations: int = 10, depth: int = 4, **options):
        if iterations < 1 or depth < 1:
            raise FpjaxError("InverseScheduler needs at least 1 iteration and a depth of at least 1")
        found = scheduler if isinstance(scheduler, Mapping) else scheduler.config
        self.config = SimpleNamespace(**found)
        self.iterations, self.depth = iterations, depth
        self._settings = {"_class_name": type(scheduler).__name__, **found} if found is not scheduler else dict(found)
        self._options = options
        self._seen = schedulers.preconditioning(self._settings, **options)
        self.residuals: list[float] = []

    def set_timesteps(self, num_inference_steps: int, device: Any = None, **options) -> None:
        """Each of the scheduler's times ``iterations`` times, the smallest first."""
        torch = need("torch", "InverseScheduler")
        process = schedulers.from_config(self._settings, num_inference_steps, **self._options, **options)
        if process.table:
            raise FpjaxError("InverseScheduler takes E1's steps only; invert this scheduler's by fpjax.invert")
        self.process = process
        times = [float(self._seen.c_noise(jnp.float32(s))) for s in process.sigmas[1:] for _ in range(self.iterations)]
        self.timesteps = torch.tensor(times, device=device)
        self._count, self._target, self._pairs, self.residuals = 0, None, [], []

    def _level(self) -> int:
        return self._count // self.iterations + 1

    def _entering(self) -> float:
        """From the pipeline's latents to y: they are the process's own at the beginning, and y after that."""
        return 1.0 if self._count else 1 / float(self.process.scale(self.process.levels[0]))

    def scale_model_input(self, sample, timestep=None):
        """What the network is given."""
        return sample * (self._entering() * float(self._seen.c_in(jnp.float32(self.process.levels[self._level()]))))

    def step(self, model_output, timestep, sample, return_dict: bool = True, **unused):
        """The next iterate at this noise level, or the first at the next one."""
        level = self._level()
        sigma, rho = jnp.float32(self.process.levels[level]), float(self.process.rho[level - 1])
        y = sample * self._entering()
        if self._target is None:
            self._target = y
        clean = float(self._seen.c_skip(sigma)) * y + float(self._seen.c_out(sigma)) * model_output
        image = self._target + (1 - rho) * (y - clean)  # G of E2
        residual = (image - y).flatten(1).norm(dim=1)
        self.residuals.append(float(residual.max()))
        self._pairs.append((y, image, residual))
        best = min(self._pairs, key=lambda pair: float(pair[2].max()))
        after = self._anderson() if best is self._pairs[-1] else best[0]
        self._count += 1
        if self._count % self.iterations == 0:
            self._target, self._pairs = after, []
        elif (
            best is not self._pairs[-1]
        ):  # a step that went wrong: half a plain step from the best point, history dropped
            after, self._pairs = (best[0] + best[1]) / 2, [best]
        if self._count == len(self.timesteps):
            after = after * float(self.process.scale(self.process.levels[-1]))
        return SimpleNamespace(prev_sample=after) if return_dict else (after,)

    def _anderson(self):
        """Anderson's combination of the last images, for each of the batch; the plain image where there is one pair."""
        torch = need("torch", "InverseScheduler")
        pairs = self._pairs[-self.depth - 1 :]
        image = pairs[-1][1]
        if len(pairs) == 1:
            return image
        miss = torch.stack([(g - v).flatten(1) for v, g, _ in pairs], dim=-1)  # (batch, d, pairs)
        images = torch.stack([g.flatten(1) for _, g, _ in pairs], dim=-1)
        change, moved = miss.diff(dim=-1), images.diff(dim=-1)
        gram = change.mT @ change
        ridge = 1e-10 * gram.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None] + torch.finfo(gram.dtype).tiny
        right = change.mT @ miss[..., -1:]
        weights = torch.linalg.solve(gram + ridge * torch.eye(gram.shape[-1], dtype=gram.dtype), right)
        return (images[..., -1:] - moved @ weights)[..., 0].reshape(image.shape)
