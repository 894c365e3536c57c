"""The PyTorch bridge against PyTorch's own derivatives; run by test_property_page.py where PyTorch is installed."""

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import fpjax  # noqa: E402
from fpjax import process, testing  # noqa: E402

torch.manual_seed(0)
TABLE = torch.randn(3, 6, 6, dtype=torch.float64)


def network(y, sigma, condition):
    return torch.tanh(TABLE[condition] @ y.reshape(-1) / (1 + sigma**2)).reshape(y.shape)


DEN = testing.from_torch(network, (2, 3), conditions=("a", "b"), name="torch")
Y = np.linspace(-1, 1, 6).reshape(2, 3)


def ported(params, y, sigma, condition):
    """The same network in JAX."""
    return jnp.tanh(params[condition] @ y.reshape(-1) / (1 + sigma**2)).reshape(y.shape)


JAX = fpjax.Denoiser.from_function(ported, jnp.asarray(TABLE.numpy()), (2, 3), conditions=("a", "b"), name="jax")


def call(den, condition):
    return lambda y, sigma: den.fn(den.params, y, sigma, jnp.int32(condition))


@pytest.mark.parametrize("transform", [jax.jacfwd, jax.jacrev])
def test_values_and_jacobians_are_those_of_pytorch(transform):
    for condition in (0, 2):
        f, g = call(DEN, condition), call(JAX, condition)
        assert np.allclose(f(Y, 0.7), g(Y, 0.7), rtol=1e-14)
        assert np.allclose(transform(f)(Y, 0.7), transform(g)(Y, 0.7), rtol=1e-12, atol=1e-15)
    exact = torch.func.jacrev(lambda y: network(y, torch.tensor(0.7, dtype=torch.float64), 0))(torch.from_numpy(Y))
    assert np.allclose(transform(call(DEN, 0))(Y, 0.7), exact, rtol=1e-12, atol=1e-15)


def test_derivatives_in_sigma_and_batches():
    f, g = call(DEN, 1), call(JAX, 1)
    assert np.allclose(jax.jacfwd(f, 1)(Y, 0.7), jax.jacfwd(g, 1)(Y, 0.7), rtol=1e-12)
    many = np.random.default_rng(0).normal(size=(4, 2, 3))
    sigmas = np.linspace(0.1, 2, 4)
    batched = [jax.jit(jax.vmap(jax.jacfwd(h)))(many, sigmas) for h in (f, g)]
    assert np.allclose(*batched, rtol=1e-12, atol=1e-14)
    forward, transpose = fpjax.jacobian.linear(lambda y: f(y, 0.7), jnp.asarray(Y))
    v, u = np.random.default_rng(1).normal(size=(2, 6))
    assert float(u @ forward(v)) == pytest.approx(float(transpose(u) @ v), rel=1e-12)


def test_assertions_say_the_same_of_both():
    said = []
    for den in (DEN, JAX):
        with pytest.raises(testing.PropertyError) as error:
            testing.assert_contracts(den, process.edm(3), condition="b", guidance=2.0, samples=6)
        said.append(error.value.outcome)
    assert said[0].verdict == said[1].verdict
    assert said[0].worst.value == pytest.approx(said[1].worst.value, rel=1e-9)
    assert np.allclose(said[0].witness["point"], said[1].witness["point"])


def test_second_derivatives_are_refused_not_wrong():
    with pytest.raises(fpjax.FpjaxError, match="once, not twice"):
        jax.hessian(lambda y: call(DEN, 0)(y, 0.7).sum())(Y)


def test_bad_functions_get_one_sentence():
    for bad in (
        lambda y: y,
        lambda y, s, c: y.reshape(-1),
        lambda y, s, c: y.float(),
        lambda y, s, c: np.zeros((2, 3)),
        lambda y, s, c: torch.from_numpy(np.tanh(y.numpy())),
    ):
        with pytest.raises(fpjax.FpjaxError) as error:
            testing.from_torch(bad, (2, 3))
        assert "\n" not in str(error.value)
