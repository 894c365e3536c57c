import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fpjax
from fpjax import process
from fpjax.evidence import Exit, FpjaxError
from fpjax.models import exact
from fpjax.trajectory import accumulate_error, declared_modulus


def mixture(seed=0):
    return exact.mixture(np.random.default_rng(seed).normal(size=(6, 5)), 0.3)


@given(st.integers(0, 1000), st.sampled_from(["ddim", "edm", "rectified-flow"]), st.sampled_from([3, 6]))
@settings(max_examples=12)
def test_generating_from_the_latent_gives_the_image_back(seed, kind, steps):
    den = mixture()
    x = np.random.default_rng(seed).normal(size=(4, 5)) * 0.7
    grid = process.make(kind, steps)
    inv = fpjax.invert(den, x, grid, tol=1e-11)
    solved = inv.solved[:, -1]
    error = np.asarray(fpjax.round_trip(den, x, grid, inv))
    assert solved.all()
    assert (error[solved] < 1e-7).all()


@pytest.mark.parametrize("kind", ["ddim", "edm", "rectified-flow"])
def test_a_generated_image_inverts_to_its_latent(kind):
    """The true latent is known; the declared modulus turns residuals into a bound that contains the error (T8, T9)."""
    den, grid = mixture(), process.make(kind, 5)
    latent = np.random.default_rng(3).normal(size=(8, 5)) * grid.scale(grid.levels[-1]) * grid.levels[-1]
    x = fpjax.generate(den, latent, grid)
    inv = fpjax.invert(den, x, grid, tol=1e-11)
    assert inv.solved.all()
    error = np.linalg.norm(np.asarray(inv.latent) - latent, axis=1) / grid.scale(grid.levels[-1])
    assert (error <= np.asarray(inv.error_bound)[:, -1] + 1e-8 * grid.levels[-1]).all()


def test_the_digits_round_trip():
    """64 digits, 5 steps: below 1e-8 in float64 and 1e-3 in float32 for every image (also: the default tolerance)."""
    den, grid = fpjax.load("digits-monotone"), process.ddim(5)
    x, c = fpjax.samples("digits", 64)
    for dtype, tol, limit in ((np.float64, 1e-11, 1e-8), (np.float32, 1e-6, 1e-3)):
        inv = fpjax.invert(den, x.astype(dtype), grid, condition=c, tol=tol)
        assert inv.solved.all()
        assert inv.latent.dtype == dtype
        assert float(fpjax.round_trip(den, x.astype(dtype), grid, inv, condition=c).max()) < limit


def test_plain_digits_fail_at_small_sigma():
    den, grid = fpjax.load("digits-plain"), process.ddim(10)
    x, c = fpjax.samples("digits", 16)
    inv = fpjax.invert(den, x.astype(np.float64), grid, condition=c, solver="anderson", limit=60)
    codes = np.asarray(inv.exit)
    assert (codes[:, 0] != Exit.CONVERGED).mean() > 0.5
    assert not inv.solved[:, -1].all()


def test_shapes_and_accounting():
    den, grid = mixture(), process.ddim(4)
    x = np.zeros((3, 5))
    inv = fpjax.invert(den, x, grid)
    for name in ("exit", "residual", "error_bound", "evaluations", "iterations", "rate"):
        assert getattr(inv, name).shape == (3, 4), name
    assert inv.latent.shape == (3, 5)
    assert inv.path.shape == (3, 5, 5)
    assert (np.asarray(inv.evaluations) >= 1).all()
    assert np.allclose(np.asarray(inv.path[:, -1]) * grid.scale(grid.levels[-1]), inv.latent)
    assert np.allclose(np.asarray(inv.path[:, 0]) * grid.scale(grid.levels[0]), x)


def test_a_failed_step_marks_the_rest_of_its_trajectory():
    den, grid = fpjax.load("digits-plain"), process.ddim(10)
    x, c = fpjax.samples("digits", 8)
    inv = fpjax.invert(den, x.astype(np.float64), grid, condition=c, solver="picard", limit=20)
    solved = inv.solved
    assert (solved[:, 1:] <= solved[:, :-1]).all()


def test_guided_calls_count_two_evaluations():
    den, grid = fpjax.load("digits-monotone"), process.ddim(3)
    x, c = fpjax.samples("digits", 2)
    one = fpjax.invert(den, x, grid, condition=c, solver="picard", limit=1)
    two = fpjax.invert(den, x, grid, condition=c, guidance=1.5, solver="picard", limit=1)
    assert (np.asarray(two.evaluations) == 2 * np.asarray(one.evaluations)).all()


def test_final_sigma_zero_is_inverting_the_denoiser():
    """T10: with sigma_s = 0 the first step has no modulus, so no error is claimed."""
    den, grid = mixture(), process.ddim(4, final_sigma_zero=True)
    inv = fpjax.invert(den, np.full((2, 5), 5.0), grid, limit=20)
    assert grid.rho[0] == 0
    assert np.isinf(np.asarray(inv.error_bound)).all()


def test_declared_modulus_follows_t2_and_t11():
    grid = process.ddim(4)
    bounded, plain = exact.mixture([[-1.0], [1.0]], 0.1), exact.mixture([[-1.0], [1.0]], [0.1, 0.2])
    assert np.array_equal(declared_modulus(bounded, grid), grid.rho)
    assert np.array_equal(declared_modulus(bounded, grid, 0.5), grid.rho)
    assert (declared_modulus(bounded, grid, 3.0) < grid.rho).all()
    assert (declared_modulus(plain, grid, 3.0) == 0).all()
    assert (declared_modulus(fpjax.load("digits-plain"), grid) == 0).all()


def test_errors_accumulate_as_t9_says():
    residual, modulus = np.array([[1.0, 2.0, 3.0]]), np.array([0.5, 0.25, 1.0])
    assert np.allclose(accumulate_error(residual, modulus), [[2.0, 16.0, 19.0]])
    assert np.isinf(accumulate_error(residual, np.array([0.5, 0.0, 1.0]))[0, 1:]).all()


def test_images_that_are_inverted_together_do_not_touch_each_other():
    den, grid = mixture(), process.ddim(3)
    x = np.random.default_rng(0).normal(size=(4, 5))
    together = fpjax.invert(den, x, grid)
    for i in range(4):
        alone = fpjax.invert(den, x[i : i + 1], grid)
        assert np.allclose(alone.latent[0], together.latent[i], rtol=1e-9, atol=1e-9)


BAD = {
    "shape": lambda d, g: fpjax.invert(d, np.zeros((2, 4)), g),
    "no batch axis": lambda d, g: fpjax.invert(d, np.zeros(5), g),
    "no images": lambda d, g: fpjax.invert(d, np.zeros((0, 5)), g),
    "nan": lambda d, g: fpjax.invert(d, np.full((1, 5), np.nan), g),
    "inf": lambda d, g: fpjax.generate(d, np.full((1, 5), np.inf), g),
    "guidance": lambda d, g: fpjax.invert(d, np.zeros((1, 5)), g, guidance=3.0),
    "condition": lambda d, g: fpjax.invert(d, np.zeros((1, 5)), g, condition=3),
    "solver": lambda d, g: fpjax.invert(d, np.zeros((1, 5)), g, solver="guess"),
    "tol": lambda d, g: fpjax.invert(d, np.zeros((1, 5)), g, tol=-1.0),
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_bad_input_gets_one_sentence(kind):
    with pytest.raises(FpjaxError) as error:
        BAD[kind](mixture(), process.ddim(3))
    assert "\n" not in str(error.value)


def test_conditions_must_fit_the_images():
    den, grid = fpjax.load("digits-monotone"), process.ddim(2)
    x, c = fpjax.samples("digits", 3)
    for condition in (c[:2], [0, 1, 99], ["0", "1", "cat"], 1.5):
        with pytest.raises(FpjaxError):
            fpjax.invert(den, x, grid, condition=condition)
    with pytest.raises(FpjaxError):
        fpjax.invert(den, x, grid, condition=[0, 1, 10], guidance=2.0)  # 10 is "no condition"
