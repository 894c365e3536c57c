"""Back to diffusers: its own pipelines regenerate the image from our latents, and invert with our scheduler."""

import numpy as np
import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, DiffusionPipeline, EulerDiscreteScheduler

import fpjax

STEPS = 4


@pytest.fixture(scope="module")
def pipe(shelf):
    pipe = DiffusionPipeline.from_pretrained(shelf.folder("stable-diffusion"), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def image(shelf):
    return fpjax.subject.random_images(shelf.open("stable-diffusion").denoiser.shape, 1, 0)


def run(pipe, latents, scheduler):
    pipe.scheduler = scheduler
    options = {"num_inference_steps": STEPS, "guidance_scale": 1.0, "output_type": "latent"}
    return pipe("cat", latents=latents, **options).images


def error(a, b):
    return float(np.abs(np.asarray(a) - np.asarray(b)).max())


def test_a_pipeline_regenerates_the_image(shelf, pipe, image):
    checkpoint = shelf.open("stable-diffusion")
    inv = fpjax.invert(checkpoint.denoiser, image, checkpoint.process(STEPS), condition="cat", tol=1e-5)
    scheduler = DDIMScheduler.from_config(shelf.open("stable-diffusion").scheduler)
    latents = inv.to_diffusers(scheduler)
    assert latents.dtype == torch.float32
    assert inv.solved.all()
    assert error(run(pipe, latents, scheduler), image) < 1e-4


def test_a_pipeline_with_another_scale_of_noise(shelf, pipe, image):
    """Euler multiplies its latents by sigma_max, so they are handed over divided by it."""
    checkpoint = shelf.open("stable-diffusion")
    scheduler = EulerDiscreteScheduler.from_config(checkpoint.scheduler, final_sigmas_type="sigma_min")
    scheduler.set_timesteps(STEPS)
    assert float(scheduler.init_noise_sigma) > 2
    config = {"_class_name": "EulerDiscreteScheduler", **scheduler.config}
    grid = fpjax.schedulers.from_config(config, STEPS, tables="float32")
    assert grid.levels[::-1] == pytest.approx(scheduler.sigmas.tolist(), rel=1e-6)
    assert grid.levels[0] > 0
    inv = fpjax.invert(checkpoint.denoiser, image, grid, condition="cat", tol=1e-5)
    assert inv.solved.all()
    assert error(run(pipe, inv.to_diffusers(scheduler), scheduler), image) < 1e-3


def test_a_scheduler_in_memory_is_read_by_another_class_as_diffusers_reads_it():
    """What DDIM left at its default is not said: Euler's own default spacing holds, here as there."""
    ddim = DDIMScheduler(beta_schedule="scaled_linear", steps_offset=1)
    euler = EulerDiscreteScheduler.from_config(ddim.config)
    euler.set_timesteps(STEPS)
    ours = fpjax.schedulers.from_config(ddim.config, STEPS, _class_name="EulerDiscreteScheduler", tables="float32")
    assert ours.timesteps[:0:-1] == pytest.approx(euler.timesteps.tolist(), rel=1e-6)
    assert ours.levels[::-1] == pytest.approx(euler.sigmas.tolist(), rel=1e-6)
    assert euler.config.timestep_spacing != ddim.config.timestep_spacing


def test_one_changed_line_inverts_where_diffusers_guesses(shelf, pipe, image):
    config = {
        "_class_name": "DDIMScheduler",
        **DDIMScheduler.from_config(shelf.open("stable-diffusion").scheduler).config,
    }
    forward = DDIMScheduler.from_config(config)
    ours = fpjax.diffusers.InverseScheduler(forward, iterations=40)
    latent = run(pipe, torch.from_numpy(image), ours)
    assert len(ours.residuals) == 40 * STEPS
    solved = error(run(pipe, latent, forward), image)
    naive = run(pipe, torch.from_numpy(image), DDIMInverseScheduler.from_config(config))
    guessed = error(run(pipe, naive, forward), image)
    assert solved < 1e-3
    assert solved < guessed / 20
    once = fpjax.diffusers.InverseScheduler(forward, iterations=1)
    assert error(run(pipe, run(pipe, torch.from_numpy(image), once), forward), image) > 20 * solved


def test_the_inverse_scheduler_agrees_with_invert(shelf, pipe, image):
    checkpoint = shelf.open("stable-diffusion")
    inv = fpjax.invert(checkpoint.denoiser, image, checkpoint.process(STEPS), condition="cat", tol=1e-5)
    ours = fpjax.diffusers.InverseScheduler(checkpoint.scheduler, iterations=40)
    assert error(run(pipe, torch.from_numpy(image), ours), inv.latent) < 1e-3


def test_a_scheduler_that_is_not_e1_is_refused(shelf):
    with pytest.raises(fpjax.FpjaxError, match="clip_sample"):
        fpjax.diffusers.InverseScheduler(DDIMScheduler())
    ours = fpjax.diffusers.InverseScheduler(shelf.open("flux").scheduler)
    with pytest.raises(fpjax.FpjaxError, match=r"fpjax\.invert"):
        ours.set_timesteps(3)
