import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpjax import process
from fpjax.evidence import FpjaxError

SCHEDULES = st.sampled_from(["linear", "scaled_linear", "cosine"])
SPACINGS = st.sampled_from(["trailing", "leading", "linspace"])


@st.composite
def processes(draw):
    steps = draw(st.integers(2, 60))
    zero = draw(st.booleans())
    kind = draw(st.sampled_from(["ddim", "edm", "flow"]))
    if kind == "ddim":
        return process.ddim(
            steps,
            schedule=draw(SCHEDULES),
            spacing=draw(SPACINGS),
            offset=draw(st.integers(0, 1)),
            final_sigma_zero=zero,
        )
    if kind == "edm":
        return process.edm(steps, final_sigma_zero=zero)
    return process.rectified_flow(steps, shift=draw(st.floats(0.3, 5)), final_sigma_zero=zero)


@given(processes())
def test_levels_rise_and_rho_lies_in_its_range(p):
    assert (np.diff(p.sigmas) > 0).all()
    assert ((p.rho >= 0) & (p.rho < 1)).all()
    assert (p.rho[1:] > 0).all()
    assert len(p.pairs) == p.steps == len(p.rho) == len(p.sigmas) - 1
    assert [s / t for t, s in p.pairs] == p.rho.tolist()


@given(processes(), st.data())
def test_scaling_to_y_and_back_is_the_identity(p, data):
    level = data.draw(st.integers(0, p.steps))
    z = np.linspace(-3, 3, 7)
    assert np.allclose(p.to_z(p.to_y(z, level), level), z, rtol=1e-14, atol=0)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_only_final_sigma_zero_gives_rho_zero(spacing):
    assert process.ddim(10, spacing=spacing, final_sigma_zero=True).rho[0] == 0.0
    assert process.ddim(10, spacing=spacing).rho[0] > 0


def test_number_of_pairs():
    assert process.ddim(20).steps == 20
    assert process.edm(20).steps == 20
    assert process.rectified_flow(20).steps == 20
    assert process.ddim(50, spacing="leading", offset=1).steps == 50
    # t = 0 and the final level coincide: that step would be the identity
    assert process.ddim(50, spacing="leading", offset=0).steps == 49
    assert process.ddim(50, spacing="leading", offset=0, final_sigma_zero=True).steps == 50


def test_timesteps_of_the_three_spacings():
    """Lin et al. 2024, Table 2, for 1000 training steps and 10 sampler steps."""
    assert process.ddim(10, spacing="leading", offset=0).timesteps == tuple(range(0, 1000, 100))
    assert process.ddim(10, spacing="trailing").timesteps[1:] == tuple(range(99, 1000, 100))
    assert process.ddim(10, spacing="linspace").timesteps == tuple(np.round(np.linspace(0, 999, 10)))


def test_sigma_against_a_hand_computed_schedule():
    p = process.ddim(2, schedule="linear", train_steps=4, beta_start=0.1, beta_end=0.4, spacing="trailing")
    abar = np.cumprod([0.9, 0.8, 0.7, 0.6])
    assert p.timesteps == (0.0, 1.0, 3.0)
    assert np.allclose(p.sigmas, np.sqrt((1 - abar) / abar)[[0, 1, 3]], rtol=1e-14)


def test_edm_grid_is_that_of_karras():
    p = process.edm(3, sigma_min=0.5, sigma_max=8.0, power=3.0, final_sigma_zero=True)
    wanted = [(8 ** (1 / 3) + i / 2 * (0.5 ** (1 / 3) - 8 ** (1 / 3))) ** 3 for i in range(3)]
    assert np.allclose(p.sigmas, [0.0, *wanted[::-1]], rtol=1e-13)


def test_cosine_schedule_follows_its_formula():
    abar = process.alphas_bar("cosine")
    t = np.arange(1, 900) / 1000
    f = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    assert np.allclose(abar[:899], f, rtol=1e-10)


@pytest.mark.parametrize(
    "call",
    [
        lambda: process.ddim(0),
        lambda: process.ddim(-1),
        lambda: process.ddim(2.5),
        lambda: process.ddim(True),
        lambda: process.ddim(1001),
        lambda: process.ddim(10, schedule="quadratic"),
        lambda: process.ddim(10, spacing="log"),
        lambda: process.ddim(10, beta_start=0.0),
        lambda: process.ddim(10, schedule="cosine", beta_start=0.1),
        lambda: process.ddim(10, offset=-1, spacing="leading"),
        lambda: process.ddim(10, offset=500, spacing="leading"),
        lambda: process.ddim(1, spacing="linspace"),
        lambda: process.edm(10, sigma_min=1.0, sigma_max=0.5),
        lambda: process.rectified_flow(10, t_max=1.0),
        lambda: process.make("ddpm", 10),
        lambda: process.from_sigmas([1.0, 0.5]),
        lambda: process.from_sigmas([0.1, np.nan]),
        lambda: process.from_sigmas([0.1]),
    ],
)
def test_bad_arguments_get_one_sentence(call):
    with pytest.raises(FpjaxError) as error:
        call()
    assert "\n" not in str(error.value)
