"""diffusers' scheduler configurations as processes, against numbers computed by hand; parity itself is tests/bridge."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

import fpjax
from fpjax import process, schedulers
from fpjax.evidence import FpjaxError
from fpjax.process import PURE_NOISE

SD = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}


def sigma(t: int) -> float:
    abar = np.prod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000)[: t + 1] ** 2)
    return math.sqrt((1 - abar) / abar)


def test_stable_diffusion_levels_by_hand():
    p = schedulers.from_config(SD, 50)
    assert p.timesteps == (0.0, *(1.0 + 20 * i for i in range(50)))
    assert np.allclose(p.levels, [sigma(int(t)) for t in p.timesteps], rtol=1e-12)
    assert (p.kind, p.table, p.pure_noise) == ("ddim", (), False)


def test_what_a_scheduler_in_memory_left_at_its_default_is_the_default_of_the_class_that_reads_it():
    """As diffusers' from_config: DDIM's unsaid "leading" does not make an Euler scheduler of its configuration leading."""
    said = {"_class_name": "EulerDiscreteScheduler", "steps_offset": 1}
    memory = said | {"timestep_spacing": "leading", "_use_default_values": ["timestep_spacing"]}
    assert schedulers.from_config(memory, 4) == schedulers.from_config(said, 4)
    assert schedulers.from_config(memory, 4, timestep_spacing="leading").timesteps[-1] == 751


def test_tables_rounded_as_diffusers_rounds_its_own():
    """alphas_cumprod of diffusers' Stable Diffusion schedule starts at float32(1 - 0.00085): a sigma of 0.02916753, not …716."""
    exact, rounded = schedulers.from_config(SD, 50), schedulers.from_config(SD, 50, tables="float32")
    assert rounded.levels[0] == pytest.approx(0.029167532920837402, rel=1e-7)
    assert 1e-6 < abs(rounded.levels[0] / exact.levels[0] - 1) < 1e-4
    assert rounded.describe()["tables"] == "float32"
    assert rounded.timesteps == exact.timesteps
    told = schedulers.preconditioning(SD, rounded, tables="float32").c_noise(jnp.asarray(rounded.levels[1:]))
    assert told.tolist() == list(rounded.timesteps[1:])


def test_a_configuration_of_ours_is_the_process_of_ours():
    """Leading, offset 0: the sampler's last step is the identity there and here."""
    config = {"_class_name": "DDPMScheduler", "clip_sample": False, "set_alpha_to_one": False}
    p, q = schedulers.from_config(config, 20), process.ddim(20, spacing="leading")
    assert p.levels == q.levels
    assert p.timesteps == q.timesteps


def test_steps_that_end_where_the_next_does_not_start():
    """DDIM with linspace: from t = 999 down to 999 - 1000//10, read again as t = 888."""
    p = schedulers.from_config(SD, 10, timestep_spacing="linspace")
    a, b, e, at = p.table[-1][:4]
    start, end, read = sigma(999), sigma(899), sigma(888)
    ratio = math.sqrt((1 + read**2) / (1 + end**2))
    assert (a, b, e, at) == pytest.approx((ratio * end / start, ratio * (1 - end / start), 1.0, start), rel=1e-12)
    assert p.levels[-2] == pytest.approx(read)


def test_a_flow_starts_from_pure_noise():
    """x_s = x + (t_s - t)·v from t = 1, where x is the noise itself."""
    p = schedulers.from_config(FLOW, 4)
    assert p.pure_noise
    assert p.timesteps[-1] == 1000
    t = np.asarray(p.timesteps[:-1]) / 1000
    assert np.allclose(p.levels[:-1], t / (1 - t), rtol=1e-12)
    noise = np.asarray([[0.3, -1.2]])
    den = fpjax.Denoiser.from_function(velocity, (), (2,), predicts="x0")
    got = fpjax.generate(den, noise, p)
    want, times = noise, [*p.timesteps[::-1]]
    for start, end in itertools.pairwise(times):
        want = want + (end - start) / 1000 * field(np, want, start)
    assert np.allclose(got, want, rtol=1e-12)


def field(lib, x, t):
    return lib.sin(x + t / 300) - 0.4 * x


def velocity(params, y, sigma, condition):
    p = schedulers.preconditioning(FLOW)
    return p.c_skip(sigma) * y + p.c_out(sigma) * field(jnp, p.c_in(sigma) * y, p.c_noise(sigma))


def test_a_trajectory_from_pure_noise_is_inverted():
    p = schedulers.from_config(FLOW, 4, sigmas=[1.0, 0.75, 0.5, 0.25])
    x = np.asarray([[0.2, -0.5], [0.1, 0.9]])
    den = fpjax.models.exact.mixture(np.asarray([[0.5, 0.5], [-0.5, 0.2]]), 0.3)
    ended = fpjax.generate(den, np.asarray([[0.4, -1.0], [1.5, 0.2]]), p)
    assert np.isfinite(np.asarray(ended)).all()
    above = process.Process(p.kind, p.levels[1:], p.timesteps[1:], table=p.table[1:], pure_noise=True)
    inv = fpjax.invert(den, x, above, tol=1e-12)
    assert inv.solved.all()
    assert np.max(fpjax.round_trip(den, x, above, inv)) < 1e-11


@pytest.mark.parametrize(
    "config",
    [
        SD,
        {"_class_name": "EulerDiscreteScheduler"},
        {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True},
        {"_class_name": "EDMEulerScheduler"},
        FLOW,
        {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 1},
    ],
)
def test_the_network_is_told_the_times_of_the_process(config):
    p = schedulers.from_config(config, 7)
    at = jnp.asarray(p.levels[1:]).at[-1].set(PURE_NOISE if p.pure_noise else p.levels[-1])
    times = schedulers.network_time(config)(at)
    assert np.allclose(times, p.timesteps[1:], rtol=0, atol=1e-8)
    times = schedulers.network_time(config)(at.astype(jnp.float32))
    assert np.allclose(times, p.timesteps[1:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("predicts", ["epsilon", "sample", "v_prediction"])
def test_preconditioning_is_the_conversion_of_the_denoiser(predicts):
    from fpjax.denoiser import to_x0

    config = SD | {"prediction_type": predicts}
    p, kind = schedulers.preconditioning(config), schedulers.prediction(config)
    y, out, s = 0.7, -0.3, jnp.asarray(2.5)
    assert p.c_skip(s) * y + p.c_out(s) * out == pytest.approx(to_x0(kind, out, y, 2.5), rel=1e-14)
    assert p.c_in(s) == pytest.approx(1 / math.sqrt(1 + 2.5**2))


def test_edm_preconditioning():
    p = schedulers.preconditioning({"_class_name": "EDMEulerScheduler", "sigma_data": 0.4})
    s = jnp.asarray(1.5)
    total = 1.5**2 + 0.4**2
    got = (p.c_in(s), p.c_noise(s), p.c_skip(s), p.c_out(s))
    assert got == pytest.approx((total**-0.5, math.log(1.5) / 4, 0.16 / total, 0.6 * total**-0.5))


def test_dynamic_shift_of_flux():
    """mu is linear in the number of image tokens (256: 0.5, 4096: 1.15), t -> e^mu/(e^mu + 1/t - 1)."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    p = schedulers.from_config(config, 2, image_seq_len=2176, sigmas=[1.0, 0.5])
    mu = 0.5 + 0.65 * (2176 - 256) / (4096 - 256)
    assert p.timesteps[1] == pytest.approx(1000 * math.exp(mu) / (math.exp(mu) + 1), rel=1e-12)


REFUSALS = {
    "clip_sample=True": ({"_class_name": "DDIMScheduler"}, {}),
    "thresholding=True": (SD | {"thresholding": True}, {}),
    "eta > 0": (SD, {"eta": 0.5}),
    "stochastic_sampling": (FLOW | {"stochastic_sampling": True}, {}),
    "invert_sigmas": (FLOW | {"invert_sigmas": True}, {}),
    "sde-dpmsolver": ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}, {}),
    "solver_order 3": ({"_class_name": "DPMSolverMultistepScheduler", "solver_order": 3}, {}),
    "steps in eps": ({"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "dpmsolver"}, {}),
    "variance_type": ({"_class_name": "DPMSolverMultistepScheduler", "variance_type": "learned"}, {}),
    "log_linear": ({"_class_name": "EulerDiscreteScheduler", "interpolation_type": "log_linear"}, {}),
    "bh1": ({"_class_name": "UniPCMultistepScheduler", "solver_type": "bh1"}, {}),
    "UniPC on sigmas": ({"_class_name": "UniPCMultistepScheduler", "use_karras_sigmas": True}, {}),
    "give flow_shift": ({"_class_name": "DPMSolverMultistepScheduler", "use_dynamic_shifting": True}, {}),
    "terminal abar": (SD | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}, {}),
    "PNDMScheduler is refused": ({"_class_name": "PNDMScheduler"}, {}),
    "adds noise": ({"_class_name": "EulerAncestralDiscreteScheduler"}, {}),
    "not mapped; fpjax knows": ({"_class_name": "WonderScheduler"}, {}),
    "has no setting": (SD, {"colour": 1}),
    "needs mu": (FLOW | {"use_dynamic_shifting": True}, {}),
    "takes no 'mu'": (SD, {"mu": 1.0}),
    "_class_name": ({}, {}),
    "unknown beta_schedule": (SD | {"beta_schedule": "square"}, {}),
    "past the last": (SD | {"steps_offset": 400}, {}),
    "has 3 values": (SD | {"trained_betas": [0.1, 0.2, 0.3]}, {}),
}


@pytest.mark.parametrize("message", REFUSALS)
def test_what_is_refused_says_its_name_and_why(message):
    config, options = REFUSALS[message]
    with pytest.raises(FpjaxError, match=message):
        schedulers.from_config(config, 10, **options)


@pytest.mark.parametrize(
    ("name", "predicts"),
    [("EDMEulerScheduler", "sample"), ("EulerDiscreteScheduler", "flow_prediction"), ("DDIMScheduler", "x")],
)
def test_predictions_that_the_scheduler_does_not_have(name, predicts):
    config = {"_class_name": name, "prediction_type": predicts} | ({"clip_sample": False} if name[0] == "D" else {})
    with pytest.raises(FpjaxError, match=f"{name} has no prediction_type '{predicts}'"):
        schedulers.prediction(config)


def test_a_refusal_can_be_overridden_where_the_setting_is_a_choice():
    assert schedulers.from_config({"_class_name": "DDPMScheduler"}, 10, clip_sample=False).steps == 10
    assert schedulers.from_config({"_class_name": "PNDMScheduler"}, 10, _class_name="DDIMScheduler", clip_sample=False)
    with pytest.raises(FpjaxError, match="steps must be"):
        schedulers.from_config(SD, 0)
