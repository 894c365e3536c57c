"""Patches with mirrored borders: the kernel, JAX and sums over a padded image in 200 digits agree; their structure is proved."""

import certify_zoo as zoo
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flint import arb, ctx

import fpjax.certify.check as kernel
from fpjax.models import patches


@pytest.mark.parametrize(
    ("image", "n"), [((1, 2, 2), 2), ((2, 3, 4), 2), ((1, 4, 6), 4), ((3, 2, 2), 1), ((1, 8, 12), 8)], ids=str
)
def test_three_ways_agree(image, n, tmp_path):
    rng = np.random.default_rng(0)
    channels, height, width = image
    strides = patches.strides(n, height, width)
    first, second = zoo.reflected_layers(image, (n, n), strides)
    tensors = zoo.patch_tensors(rng, channels * height * width, channels * n * n, 1)
    tensors["share"] = zoo.f32([1.0])
    model = kernel.Model(zoo.write(tmp_path, "m", [first, second], tensors, image, 1))
    params = {k: jnp.asarray(np.asarray(v, np.float64)) for k, v in tensors.items() if k != "share"}
    params["patch_means"] = params.pop("means")
    y = rng.standard_normal(channels * height * width).round(3)
    for condition, sigma in ((0, 0.3), (1, 5.0)):
        with mpmath.workdps(50):
            truth = zoo.evaluate([first, second], tensors, y, sigma, condition, zoo.Digits)
        with ctx.workprec(128):
            found = kernel.Step(model, condition, 1.0, 0.0, sigma).denoise([arb(float(v)) for v in y], None)
        ours = patches.denoise(params, jnp.asarray(y).reshape(image), sigma, condition).ravel()
        for ball, value, mine in zip(found.c, truth, ours, strict=True):
            assert abs(float(ball.mid()) - float(value)) <= float(ball.rad()) + 1e-15 * (1 + abs(float(value)))
            assert float(ball.rad()) < 1e-30
            assert abs(float(mine) - float(value)) <= 1e-12 * (1 + sigma)


def test_a_corner_moves_its_patch_four_times(tmp_path):
    """The patch at a corner is one pixel four times over, so a ball of y is one of twice the radius there: from the flat side
    of max(u, 0)²/2, u = 4 y_0 = -40, the ball of radius 11 reaches its bend."""
    potential = [
        {"op": "affine", "out": "u", "in": "y", "weight": "W"},
        {"op": "elementwise", "out": "f", "in": "u", "fn": "relu2"},
    ]
    inside = [{"op": "gradient", "out": "D", "in": "y", "layers": potential}]
    cut = {"image": [1, 2, 2], "patch": [2, 2], "stride": [1, 1], "border": "reflect"}
    layers = [{"op": "patches", "out": "D", "in": "y", **cut, "layers": inside}]
    model = kernel.Model(zoo.write(tmp_path, "m", layers, {"W": zoo.f32(np.ones((1, 4)))}, (1, 2, 2)))
    y = [-10.0, -1000.0, -1000.0, -1000.0]
    with ctx.workprec(128):
        found = kernel.Step(model, 0, 1.0, 0.0, 1.0).denoise([arb(v) for v in y], arb(11))
        corner = found.M.entries()[0]
    for truth in (0, 1):  # d D_0/d y_0 of the corner's patch, 16 for u > 0, of weight 1/16; all other patches are flat
        assert abs(truth - float(corner.mid())) <= float(corner.rad()) + float(found.e.upper())
