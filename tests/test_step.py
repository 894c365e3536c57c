"""E1 and E2 against numbers computed by hand, and the identity that makes inversion a fixed-point problem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fpjax.denoiser import Denoiser
from fpjax.step import F, G, Step, denoised

SHAPE = (3,)


def network(params, y, sigma, condition):
    return jnp.tanh(params * y) / (1 + sigma) + 0.125 * condition.astype(y.dtype)


DEN = Denoiser.from_function(network, np.float64(1.5), SHAPE, conditions=("a", "b"))
VALUES = st.floats(-4, 4, allow_subnormal=False)
_F, _G, _D = jax.jit(F), jax.jit(G), jax.jit(denoised)


def step(sigma=2.0, rho=0.25, target=0.5, condition=1, guidance=None) -> Step:
    target = jnp.full(SHAPE, target)
    w = None if guidance is None else jnp.asarray(guidance)
    return Step(DEN, jnp.asarray(sigma), jnp.asarray(rho), target, jnp.asarray(condition, jnp.int32), w)


@given(VALUES, VALUES, st.floats(0.01, 50), st.floats(0, 0.99), st.sampled_from([0, 1, 2]))
def test_g_minus_y_is_target_minus_f(y, target, sigma, rho, condition):
    """E2, at any point and step."""
    p = step(sigma, rho, target, condition)
    point = jnp.asarray([y, 0.5 * y, -y])
    left, right = np.asarray(_G(point, p) - point), np.asarray(p.target - _F(point, p))
    assert np.allclose(left, right, rtol=0, atol=1e-14 * (1 + abs(y) + abs(target)))


def test_values_by_hand():
    y = jnp.asarray([0.4, -1.0, 2.0])
    d = np.tanh(1.5 * np.asarray(y)) / 3 + 0.125
    assert np.allclose(_D(y, step()), d, rtol=1e-14)
    assert np.allclose(_F(y, step()), 0.25 * np.asarray(y) + 0.75 * d, rtol=1e-14)
    assert np.allclose(_G(y, step()), 0.5 + 0.75 * (np.asarray(y) - d), rtol=1e-14)


def test_guidance_reaches_the_denoiser():
    y = jnp.asarray([0.4, -1.0, 2.0])
    base = np.tanh(1.5 * np.asarray(y)) / 3
    assert np.allclose(_D(y, step(condition=0, guidance=3.0)), base + 0.25 + 3 * (0.0 - 0.25), rtol=1e-13)
    assert step().guidance is None


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_the_image_of_a_step_is_a_fixed_point_of_its_inverse(rho):
    y = jnp.asarray([0.4, -1.0, 2.0])
    p = step(rho=rho)
    assert np.allclose(_G(y, p._replace(target=_F(y, p))), y, rtol=0, atol=1e-15)
