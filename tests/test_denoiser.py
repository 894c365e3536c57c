import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fpjax
from fpjax import denoiser
from fpjax.evidence import FpjaxError


def shrink(params, y, sigma, condition):
    return y * params / (params + sigma**2)


@given(st.sampled_from(denoiser.PREDICTS), st.floats(0.01, 50), st.floats(-5, 5), st.floats(-5, 5))
def test_conversions_are_inverse_to_each_other(predicts, sigma, y, x0):
    back = denoiser.to_x0(predicts, denoiser.from_x0(predicts, x0, y, sigma), y, sigma)
    assert abs(back - x0) <= 1e-12 * (1 + abs(x0) + abs(y)) * (1 + sigma)


@pytest.mark.parametrize(("sigma", "x0", "n"), [(0.3, 0.7, -1.2), (4.0, -0.2, 0.5)])
def test_conversions_follow_the_definitions(sigma, x0, n):
    """From a clean image and its noise: what a perfect network of each kind would return."""
    y = x0 + sigma * n
    alpha, spread = 1 / np.sqrt(1 + sigma**2), sigma / np.sqrt(1 + sigma**2)
    outputs = {
        "x0": x0,
        "eps": n,
        "v": alpha * n - spread * x0,
        "velocity": n - x0,
        "score": -(y - x0) / sigma**2,
    }
    for predicts, output in outputs.items():
        assert denoiser.to_x0(predicts, output, y, sigma) == pytest.approx(x0, rel=1e-12), predicts


def test_guidance_is_the_affine_combination():
    den = fpjax.load("digits-plain").astype(jnp.float64)
    y = np.linspace(-1, 1, 64).reshape(8, 8)
    null, conditional = den(y, 0.7), den(y, 0.7, condition=3)
    guided = den(y, 0.7, condition=3, guidance=2.5)
    assert np.allclose(guided, null + 2.5 * (conditional - null), rtol=1e-12, atol=1e-12)
    assert np.array_equal(den(y, 0.7, condition=3, guidance=1.0), conditional)
    assert np.array_equal(den(y, 0.7, condition="3"), conditional)


def test_from_function_uses_the_users_parameters():
    den = fpjax.Denoiser.from_function(shrink, np.float64(2.0), shape=(3,))
    assert np.allclose(den(np.ones(3), 1.0), 2 / 3)
    as_eps = fpjax.Denoiser.from_function(lambda p, y, s, c: y * s / (p + s**2), np.float64(2.0), (3,), predicts="eps")
    assert np.allclose(as_eps(np.ones(3), 1.0), 2 / 3)


def test_one_shape_compiles_once():
    den = fpjax.Denoiser.from_function(shrink, np.float64(2.0), shape=(5,))
    before = denoiser._evaluate._cache_size()
    for value in (1.0, 2.0, 3.0):
        other = fpjax.Denoiser.from_function(shrink, np.float64(value), shape=(5,))
        other(np.ones(5), 0.5)
    assert denoiser._evaluate._cache_size() == before + 1
    assert jax.tree.leaves(den) == [2.0]


@pytest.mark.parametrize(
    "call",
    [
        lambda d: d(np.ones(7), 1.0),
        lambda d: d(np.ones(3), 1.0, guidance=2.0),
        lambda d: d(np.ones(3), 1.0, condition=1),
        lambda d: d(np.ones(3), 1.0, condition="cat"),
        lambda d: d(np.ones(3), 1.0, guidance=float("nan")),
        lambda d: fpjax.Denoiser.from_function(shrink, np.float64(1.0), (3,), predicts="noise"),
        lambda d: fpjax.Denoiser.from_function(lambda p, y: y, None, (3,)),
        lambda d: fpjax.Denoiser.from_function(lambda p, y, s, c: y.sum(), None, (3,)),
    ],
)
def test_bad_input_gets_one_sentence(call):
    den = fpjax.Denoiser.from_function(shrink, np.float64(2.0), shape=(3,))
    with pytest.raises(FpjaxError) as error:
        call(den)
    assert "\n" not in str(error.value)
