"""Processes against formulas written out here, defaults against their papers, and the sentence of every refusal."""

import inspect
import math

import numpy as np
import pytest

from fpjax import process
from fpjax.evidence import FpjaxError
from fpjax.models import exact

SIGMA = 0.75


def test_scale_of_each_process():
    """z / y: sqrt(abar) with sigma² = (1 - abar)/abar; 1; 1 - t with sigma = t/(1 - t)."""
    for kind, scale in (("ddim", 0.8), ("edm", 1.0), ("rectified-flow", 1 / 1.75)):
        grid = process.from_sigmas([0.0, SIGMA], kind=kind)
        assert grid.scale(SIGMA) == pytest.approx(scale, rel=1e-15)
        assert np.asarray(grid.scale(np.full(3, SIGMA))).shape == (3,) or kind != "edm"
        assert grid.to_y(2.0, 1) == pytest.approx(2.0 / scale)
        assert grid.to_z(2.0, 1) == pytest.approx(2.0 * scale)
        assert grid.to_z(2.0, 0) == 2.0
        assert grid.pairs == [(SIGMA, 0.0)]
    assert process.from_sigmas([0.1, 0.2]).kind == "edm"


def test_a_process_knows_what_it_is():
    told = process.ddim(2, schedule="cosine", spacing="linspace", final_sigma_zero=True).describe()
    assert told["kind"] == "ddim"
    assert told["steps"] == 2
    assert told["sigmas"][0] == 0.0
    assert len(told["sigmas"]) == 3
    assert (told["schedule"], told["spacing"], told["final_sigma_zero"]) == ("cosine", "linspace", True)
    assert process.edm(2).describe()["final_sigma_zero"] is False
    flow = process.rectified_flow(2, shift=3.0, final_sigma_zero=True).describe()
    assert (flow["shift"], flow["final_sigma_zero"]) == (3.0, True)


def test_betas_follow_their_definitions():
    """Ho et al. 2020; Stable Diffusion's configuration; Nichol & Dhariwal 2021."""
    assert np.allclose(process.betas("linear"), np.arange(1000) / 999 * (0.02 - 1e-4) + 1e-4, rtol=1e-12)
    root = np.arange(1000) / 999 * (math.sqrt(0.012) - math.sqrt(8.5e-4)) + math.sqrt(8.5e-4)
    assert np.allclose(process.betas("scaled_linear"), root**2, rtol=1e-12)
    assert np.allclose(process.betas("scaled_linear", 3, 0.04, 0.16), [0.04, 0.09, 0.16], rtol=1e-12)
    cosine = process.betas("cosine")
    assert cosine.shape == (1000,)
    assert cosine.max() == cosine[-1] == 0.999
    assert process.betas("linear", 1).tolist() == [1e-4]
    assert np.allclose(process.betas("linear", 2, beta_end=0.999), [1e-4, 0.999])
    assert np.array_equal(process.alphas_bar(), np.cumprod(1 - process.betas("linear")))
    assert process.alphas_bar(train_steps=7).shape == (7,)
    assert process.vp_sigma(0.8) == pytest.approx(0.5)


def test_timesteps_at_the_edges():
    assert process.ddim(1000).steps == 999  # every training time; t = 0 is the final level itself
    assert process.ddim(1, train_steps=3).timesteps == (0.0, 2.0)
    assert process.ddim(3, train_steps=7, spacing="leading", offset=1).timesteps == (0.0, 1.0, 3.0, 5.0)
    assert process.ddim(2, train_steps=4, spacing="leading", offset=1).timesteps == (0.0, 1.0, 3.0)
    assert process.ddim(3, train_steps=4, spacing="leading").timesteps == (0.0, 1.0, 2.0)
    zero = process.ddim(1, spacing="linspace", final_sigma_zero=True)
    assert zero.timesteps == (-1.0, 0.0)
    assert process.ddim(2, spacing="linspace").steps == 1
    grid = process.ddim(3, train_steps=9)
    assert grid.timesteps == (0.0, 2.0, 5.0, 8.0)
    assert np.allclose(grid.sigmas, process.vp_sigma(process.alphas_bar(train_steps=9))[[0, 2, 5, 8]], rtol=1e-14)


def test_every_count_of_steps_has_that_many_times():
    for steps in range(1, 1001):
        times = process.sampler_timesteps(steps, 1000, "trailing", 0)
        assert len(times) == steps
        assert times[0] >= 0
        assert times[-1] == 999
        assert process.ddim(steps).steps == steps - (times[0] == 0)


def test_edm_and_flow_grids():
    assert process.edm(1).levels == pytest.approx((0.002, 80.0))
    assert process.edm(1, final_sigma_zero=True).levels == pytest.approx((0.0, 80.0))
    wanted = [(0.002 ** (1 / 7) + u * (80 ** (1 / 7) - 0.002 ** (1 / 7))) ** 7 for u in (0, 0.5, 1)]
    assert process.edm(2).levels == pytest.approx(wanted, rel=1e-12)
    assert process.edm(2).timesteps == process.edm(2).levels
    assert process.rectified_flow(2).timesteps == pytest.approx((0.01, 0.5, 0.99))
    assert process.rectified_flow(2).levels == pytest.approx((0.01 / 0.99, 1.0, 99.0), rel=1e-12)
    assert process.rectified_flow(1, final_sigma_zero=True).levels == pytest.approx((0.0, 99.0))
    shifted = process.rectified_flow(1, t_min=0.25, t_max=0.5, shift=3.0).timesteps
    assert shifted == pytest.approx((0.75 / 1.5, 1.5 / 2.0))
    assert process.rectified_flow(1, t_min=0.25, t_max=0.5, shift=0.5).timesteps[0] == pytest.approx(0.125 / 0.875)
    assert process.edm(2, sigma_min=0.5, sigma_max=2.0, power=0.5).levels[1] == pytest.approx(2.125**0.5)


def test_defaults_are_those_of_the_signature():
    for maker in (process.ddim, process.edm, process.rectified_flow):
        defaults = {k: p.default for k, p in inspect.signature(maker).parameters.items()}
        assert defaults["steps"] == 20
        assert defaults["final_sigma_zero"] is False
        assert maker().steps == 20
    assert inspect.signature(process.ddim).parameters["schedule"].default == "linear"
    for function in (process.ddim, process.betas, process.alphas_bar):
        assert inspect.signature(function).parameters["train_steps"].default == 1000


@pytest.mark.parametrize(("name", "maker"), [("ddim", "ddim"), ("edm", "edm"), ("rectified-flow", "rectified_flow")])
def test_make_finds_each_by_name(name, maker):
    made = process.make(name, 3, final_sigma_zero=True)
    assert made == getattr(process, maker)(3, final_sigma_zero=True)
    assert made.kind == name


def test_whole_numbers_of_numpy_are_whole_numbers():
    assert process.edm(np.int64(3)).steps == 3  # pyright: ignore


def test_adapt_is_the_one_of_adapting():
    with pytest.raises(FpjaxError, match="rate"):
        process.adapt(exact.gaussian(np.zeros(2), np.eye(2)), images=np.zeros((1, 2)), target_rate=-1.0)


REFUSED = {
    "unknown process": lambda: process.Process("ddpm", (0.0, 1.0), (0.0, 1.0)),
    "at least one step": lambda: process.Process("edm", (1.0,), (1.0,)),
    "finite and at least 0": lambda: process.from_sigmas([-1.0, 1.0]),
    "finite and at least": lambda: process.from_sigmas([1.0, np.inf]),
    "increase strictly": lambda: process.from_sigmas([1.0, 1.0]),
    "must increase strictly": lambda: process.from_sigmas([0.1, 0.5, 0.4]),
    "train_steps must be at least 1": lambda: process.betas("linear", 0),
    "takes no beta_start": lambda: process.betas("cosine", beta_end=0.1),
    "unknown schedule": lambda: process.betas("quadratic"),
    "must lie between 0 and 1$": lambda: process.betas("linear", beta_start=0.0),
    "must lie between 0 and 1": lambda: process.betas("linear", beta_end=0.0),
    "between 0 and 1$": lambda: process.betas("linear", beta_end=1.0),
    "between 0 and 1": lambda: process.betas("linear", beta_start=1.0),
    "must lie between 0": lambda: process.betas("linear", beta_start=-0.5),
    "lie between 0 and 1": lambda: process.betas("linear", beta_end=-0.5),
    "unknown timestep spacing": lambda: process.ddim(2, spacing="log"),
    r"offset 500 puts a timestep at 1400, past the last of 1000": lambda: process.ddim(
        10, spacing="leading", offset=500
    ),
    r"offset 2 puts a timestep at 4, past the last of 4": lambda: process.ddim(
        2, train_steps=4, spacing="leading", offset=2
    ),
    r"steps must be at most train_steps \(3\), got 4": lambda: process.ddim(4, train_steps=3),
    "offset must be at least 0": lambda: process.ddim(2, offset=-1),
    "a single step is the identity": lambda: process.ddim(1, spacing="linspace"),
    "edm needs": lambda: process.edm(2, sigma_min=0.0),
    "edm needs 0": lambda: process.edm(2, sigma_min=1.0, sigma_max=1.0),
    "edm needs 0 <": lambda: process.edm(2, sigma_max=math.inf),
    "edm needs 0 < sigma_min": lambda: process.edm(2, power=0.0),
    "edm needs 0 < sigma_min <": lambda: process.edm(2, power=math.inf),
    "edm needs 0 < sigma_min < sigma_max": lambda: process.edm(2, power=-0.5),
    "edm needs 0 < sigma_min < sigma_max and": lambda: process.edm(2, sigma_min=-0.5),
    "rectified_flow needs": lambda: process.rectified_flow(2, t_min=0.0),
    "rectified_flow needs 0": lambda: process.rectified_flow(2, t_min=0.5, t_max=0.5),
    "rectified_flow needs 0 <": lambda: process.rectified_flow(2, t_min=-0.5),
    "rectified_flow needs 0 < t_min": lambda: process.rectified_flow(2, t_max=1.0),
    "rectified_flow needs 0 < t_min <": lambda: process.rectified_flow(2, shift=0.0),
    "rectified_flow needs 0 < t_min < t_max": lambda: process.rectified_flow(2, shift=math.inf),
    "rectified_flow needs 0 < t_min < t_max <": lambda: process.rectified_flow(2, shift=-0.5),
    r"a whole number, at least 1, got 0": lambda: process.edm(0),
    r"a whole number, at least 1, got 2.5": lambda: process.rectified_flow(2.5),  # pyright: ignore
    r"a whole number, at least 1, got True": lambda: process.rectified_flow(True),
}


@pytest.mark.parametrize("sentence", sorted(REFUSED))
def test_refusals_say_what_was_wrong(sentence):
    with pytest.raises(FpjaxError, match=sentence):
        REFUSED[sentence]()


def test_the_smallest_arguments_are_accepted():
    assert process.betas("cosine", 1).shape == (1,)
    assert process.ddim(3, train_steps=3, final_sigma_zero=True).steps == 3
    assert process.rectified_flow(1).steps == process.edm(1).steps == 1
