"""lockstep.py: lanes agree on when to stop, keep their own answers, and the basis stays orthonormal."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpjax import jacobian, lockstep


def test_every_is_one_flag_for_all_lanes():
    flags = jnp.asarray([[True, True], [True, False]])
    found = jax.vmap(jax.vmap(lambda f: lockstep.every(f) | jnp.zeros_like(f)))
    assert not found(flags).any()
    assert found(flags[:1]).all()
    assert bool(lockstep.every(jnp.asarray(True)))


def test_a_loop_under_vmap_has_one_counter():
    """The condition is a scalar in the program itself: no lane's state is copied to hold it back."""

    def count(limit):
        def body(state):
            k, _ = state
            return k + 1, k + 1 >= limit

        return jax.lax.while_loop(lambda s: ~lockstep.every(s[1]), body, (jnp.int32(0), jnp.asarray(False)))[0]

    program = jax.make_jaxpr(jax.vmap(count))(jnp.arange(1, 4, dtype=jnp.int32))
    loop = next(eqn for eqn in program.jaxpr.eqns if eqn.primitive.name == "while")
    assert loop.params["cond_jaxpr"].out_avals[0].shape == ()
    np.testing.assert_array_equal(jax.vmap(count)(jnp.arange(1, 4, dtype=jnp.int32)), 3)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 20])
def test_basis_is_orthonormal_and_combines(count):
    d = 30
    # Nearly parallel vectors: one pass of Gram-Schmidt alone would lose orthogonality.
    vectors = jnp.ones((count, d)) + 1e-6 * jax.random.normal(jax.random.key(0), (count, d))
    basis = lockstep.grow(lockstep.empty(vectors[0]), count)
    basis = lockstep.append(basis, vectors[0] / jnp.linalg.norm(vectors[0]), 0)
    for i in range(1, count):
        w = lockstep.orthogonalise(basis, vectors[i], jnp.int32(i))
        basis = lockstep.append(basis, w / jnp.linalg.norm(w), i)
    rows = np.asarray(basis.rows).reshape(-1, d)[:count]
    np.testing.assert_allclose(rows @ rows.T, np.eye(count), atol=1e-14)
    weights = jnp.arange(1.0, count + 1)
    np.testing.assert_allclose(lockstep.combine(basis, weights, count), np.asarray(weights) @ rows, rtol=1e-13)


def test_lanes_stop_on_their_own_and_a_broken_one_holds_nobody_back():
    """An easy operator, a hard one and NaN: each lane's count and value are its own."""
    d = 300
    easy = np.r_[10.0, np.linspace(0, 0.1, d - 1)]
    hard = np.linspace(0, 1, d) ** 0.5
    lanes = jnp.asarray(np.stack([easy, hard, np.full(d, np.nan)]))
    keys = jax.random.split(jax.random.key(0), 3)
    run = jax.jit(jax.vmap(lambda a, k: jacobian.spectral_norm(lambda v: a * v, lambda v: a * v, d, k, tol=1e-6)))
    found = run(lanes, keys)
    np.testing.assert_allclose(found.value[:2], [10, 1], rtol=1e-9)
    assert np.isnan(found.value[2])
    assert found.products[0] == 2 * jacobian.FIRST + 2 < 40 < found.products[1]
    alone = run(lanes[1:2], keys[1:2])
    assert alone.products[0] == found.products[1]
