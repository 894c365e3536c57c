"""What DDIMInverseScheduler computes, to rounding, and where it is off by a step.

It steps a state z_s at time t - num_train_timesteps // steps up to time t with the network's output for (z_s, t): told the
time of the level it goes to, given the state of the level it comes from (huggingface/diffusers 10695, and 5145 for how the
times came to be what they are). With eps prediction that is naive DDIM inversion, the zeroth iterate of f in z-coordinates.
With v prediction the output, which belongs to time t, is converted to eps by the alphas of the level below: off by a step.
With sample prediction and set_alpha_to_one the first step divides by zero.
"""

import itertools

import numpy as np
import pytest
from test_parity import BETAS, COUNT, SHAPE, network, precision

import fpjax
from fpjax import schedulers


def theirs(config: dict, steps: int, z, dtype="float64"):
    """Latents of DDIMInverseScheduler from images z, and its times."""
    import torch

    with precision("DDIMInverseScheduler", dtype) as module:
        scheduler = module.DDIMInverseScheduler(**config)
        scheduler.set_timesteps(steps)
        state = torch.tensor(z)
        for t in scheduler.timesteps:
            state = scheduler.step(network(torch, state, t.to(state.dtype)), int(t), state).prev_sample
    return state.numpy(), scheduler.timesteps.tolist()


def by_formula(config: dict, steps: int, z, consistent: bool = False, tables: str = "float64"):
    """The same from fpjax's levels; ``consistent`` reads v at the level whose time the network was told."""
    p = schedulers.from_config(config | {"_class_name": "DDIMInverseScheduler"}, steps, tables=tables)
    kind = schedulers.prediction(config | {"_class_name": "DDIMInverseScheduler"})
    for s, t, time in zip(p.levels, p.levels[1:], p.timesteps[1:], strict=False):
        out, a, b = network(np, z, time), p.scale(s), p.scale(t)
        root = s * a  # sqrt(1 - abar_s)
        if kind == "eps":
            eps = out
        elif kind == "v":
            eps = b * out + t * b * z if consistent else a * out + root * z
        else:
            eps = (z - a * out) / root
        z = b * (z / a + (t - s) * eps)
    return z


CASES = list(
    itertools.product(
        ("linear", "scaled_linear", "squaredcos", "trained"),
        ("leading", "trailing"),
        (True, False),
        ("epsilon", "v_prediction", "sample"),
        (10, 20, 50),
    )
)


def config_of(betas, spacing, one, predicts):
    grid = {"timestep_spacing": spacing, "set_alpha_to_one": one, "prediction_type": predicts, "clip_sample": False}
    return BETAS[betas] | grid


@pytest.mark.parametrize(("dtype", "tol"), [("float64", 1e-10), ("float32", 1e-5)])
def test_it_computes_this_formula(dtype, tol):
    """In float64, and untouched in float32 against levels rounded as its own are."""
    z = np.random.default_rng(0).uniform(-1, 1, (COUNT, *SHAPE)).astype(dtype)
    worst, count = 0.0, 0
    for betas, spacing, one, predicts, steps in CASES:
        if predicts == "sample" and one:
            continue  # 0/0, below
        config = config_of(betas, spacing, one, predicts)
        want, _ = theirs(config, steps, z, dtype)
        got = by_formula(config, steps, z.astype(np.float64), tables=dtype)
        error = np.max(np.abs(got - want)) / (1 + np.max(np.abs(want)))
        assert error <= tol, (betas, spacing, one, predicts, steps, error)
        worst, count = max(worst, error), count + 1
    print(
        f"DDIMInverseScheduler, {dtype}: {count} configurations x {COUNT} trajectories, largest difference {worst:.2e}"
    )
    assert count == 120


def test_its_times_are_one_step_ahead_of_its_states():
    """The first state is the image itself, below t = 49, and the network is told 49."""
    config = config_of("linear", "trailing", True, "epsilon")
    _, times = theirs(config, 20, np.zeros((1, *SHAPE)))
    p = schedulers.from_config(config | {"_class_name": "DDIMInverseScheduler"}, 20)
    assert times[0] == 49
    assert (p.levels[0], p.timesteps[1]) == (0.0, 49.0)
    assert times == list(p.timesteps[1:])


def test_v_prediction_is_read_one_level_too_low():
    z = np.random.default_rng(1).uniform(-1, 1, (COUNT, *SHAPE))
    config = config_of("linear", "trailing", False, "v_prediction")
    want, _ = theirs(config, 10, z)
    assert np.allclose(by_formula(config, 10, z), want, atol=1e-12)
    assert np.max(np.abs(by_formula(config, 10, z, consistent=True) - want)) > 0.05


def test_sample_prediction_from_a_clean_image_is_not_a_number():
    config = config_of("linear", "trailing", True, "sample")
    latent, _ = theirs(config, 10, np.ones((1, *SHAPE)))
    assert np.isnan(latent).all()


def test_it_does_not_undo_ddim_and_solving_the_equation_does():
    import torch
    from test_parity import Told, denoise

    z = np.random.default_rng(2).uniform(-1, 1, (COUNT, *SHAPE))
    config = config_of("scaled_linear", "trailing", False, "epsilon")
    naive, _ = theirs(config, 10, z)
    p = schedulers.from_config(config | {"_class_name": "DDIMScheduler"}, 10)
    den = fpjax.Denoiser.from_function(
        denoise, Told(config | {"_class_name": "DDIMScheduler"}, p, "float64", {}).params, SHAPE
    )
    inversion = fpjax.invert(den, z, p, tol=1e-12)
    assert inversion.solved.all()

    def again(latent):
        with precision("DDIMScheduler", "float64") as module:
            scheduler = module.DDIMScheduler(**config)
            scheduler.set_timesteps(10)
            state = torch.tensor(np.asarray(latent))
            for t in scheduler.timesteps:
                state = scheduler.step(network(torch, state, t.to(state.dtype)), int(t), state).prev_sample
        return np.max(np.abs(state.numpy() - z))

    assert again(naive) > 0.05
    assert again(inversion.latent) < 1e-9
