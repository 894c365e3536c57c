"""Guidance within T11's limit: unique where the wanted weight is not, and no further than it."""

import jax.numpy as jnp
import numpy as np
import pytest

import fpjax
from fpjax import guidance
from fpjax.denoiser import Denoiser, Facts
from fpjax.evidence import Evidence, FpjaxError


def linear(params, y, sigma, condition):
    """D_c = 0, D_0 = gain·y."""
    return jnp.where(condition == 1, params, 0.0) * y


def of_gain(gain: float, bound=None) -> Denoiser:
    return Denoiser(
        jnp.asarray(gain),
        linear,
        (3,),
        "x0",
        ("only",),
        Facts(symmetric=True, monotone=True, lipschitz=bound),
        None,
        "l",
    )


def test_limits_are_t11s():
    grid, x = fpjax.process.ddim(4), np.zeros((2, 3))
    found = guidance.limits(of_gain(0.5), grid, images=x)
    assert np.allclose(found.lipschitz, 0.5)
    assert np.allclose(found.limit, 1 + grid.rho / ((1 - grid.rho) * 0.5))
    assert found.evidence is Evidence.SAMPLED
    declared = guidance.limits(of_gain(0.5, lambda sigma: 2.0), grid, images=x)
    assert np.allclose(declared.limit, 1 + grid.rho / ((1 - grid.rho) * 2.0))
    assert declared.evidence is Evidence.ASSUMED


def stepped(params, y, sigma, condition):
    """D_c = 0, and D_0 = gain·y where y is above 5."""
    return jnp.where((condition == 1) & (y > 5), params, 0.0) * y


def test_limits_are_those_of_the_worst_image():
    grid, x = fpjax.process.from_sigmas(np.asarray([0.01, 0.1, 1.0]), "ddim"), np.asarray([[-30.0], [30.0], [-30.0]])
    facts = Facts(symmetric=True, monotone=True)
    den = Denoiser(jnp.asarray(0.7), stepped, (1,), "x0", ("only",), facts)
    assert np.allclose(guidance.limits(den, grid, images=x).lipschitz, 0.7)
    assert np.allclose(guidance.limits(den, grid, images=x[:1]).lipschitz, 0.0)


def test_safe_keeps_a_modulus_where_the_wanted_weight_has_none():
    """F' = rho + (1 - rho)(1 - w)·gain, which the limit makes zero: here T11 is sharp."""
    grid, den = fpjax.process.ddim(4), of_gain(0.9)
    safe, _ = guidance.safe(den, grid, 15.0, images=np.zeros((2, 3)), share=0.9)
    y = np.ones(3)
    for sigma, rho in zip(grid.sigmas[1:], grid.rho, strict=True):
        slopes = [float(rho + (1 - rho) * d(y, sigma, 0, *w)[0]) for d, w in ((safe, ()), (den, (15.0,)))]
        assert slopes[1] < 0.9 * slopes[0]
        assert np.isclose(slopes[0], max(0.1 * rho, rho + (1 - rho) * (1 - 15) * 0.9), rtol=1e-5)


def test_a_weight_within_the_limit_is_left_alone():
    grid, den = fpjax.process.ddim(4), of_gain(1e-6)
    safe, _ = guidance.safe(den, grid, 3.0, images=np.zeros((2, 3)))
    y = np.ones(3)
    assert np.allclose(safe(y, grid.sigmas[2], 0), den(y, grid.sigmas[2], 0, 3.0), rtol=1e-6)


@pytest.mark.long
def test_digits_come_back_at_any_weight():
    den, grid = fpjax.load("digits-tree").astype(np.float64), fpjax.process.ddim(5)
    x, c = fpjax.samples("digits", 16)
    x = x.astype(np.float64)
    safe, _ = guidance.safe(den, grid, 7.5, images=x)
    inv = fpjax.invert(safe, x, grid, condition=c, tol=1e-12)
    again = fpjax.generate(safe, inv.latent, grid, condition=c)
    assert np.abs(np.asarray(again) - x).max() < 1e-8


def test_refusals():
    grid, x = fpjax.process.ddim(4), np.zeros((2, 3))
    plain = Denoiser(jnp.asarray(1.0), linear, (3,), "x0", ("only",))
    for den, weight, share, words in (
        (plain, 3.0, 0.9, "monotone denoiser with conditions"),
        (of_gain(1.0), 0.5, 0.9, "at least 1"),
        (of_gain(1.0), 3.0, 1.0, "share"),
        (of_gain(1.0), np.inf, 0.9, "finite"),
    ):
        with pytest.raises(FpjaxError, match=words):
            guidance.safe(den, grid, weight, images=x, share=share)
