"""Direct inversion and null-text optimisation against steps computed by hand, and every method in one form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fpjax import baselines, exact_inverses, peers, pivotal, process
from fpjax.denoiser import Denoiser, Facts
from fpjax.evidence import FpjaxError
from fpjax.trajectory import generate, prepare

ROWS = np.asarray([0.8, 0.3, 0.5])  # D = row·y; conditions a and b, and none
W = 3.0
GRID = process.edm(2, sigma_min=0.5, sigma_max=2.0)  # z = y
X = np.asarray([[0.3, -0.1], [0.7, 0.2]])


def linear(params, y, sigma, condition):
    return params["classes"][condition] * y


def make(rows=ROWS, facts=None):
    return Denoiser.from_function(
        linear, {"classes": jnp.asarray(rows)}, (2,), conditions=("a", "b"), facts=facts, name="linear"
    )


DEN = make(facts=Facts(symmetric=True, monotone=True))


def step(y, rho, condition, w=1.0, null=ROWS[-1]):
    """F by hand."""
    row = null + w * (ROWS[condition] - null)
    return rho * y + (1 - rho) * row * y


def pivot(x, condition):
    """Naive inversion by hand, without guidance: D at y_s."""
    path = [x]
    for rho in GRID.rho:
        y = path[-1]
        path.append(y + (1 - rho) * (y - ROWS[condition] * y))
    return np.stack(path, axis=1)


def test_direct_inversion_stores_what_a_guided_step_misses():
    path = pivot(X, 0)
    found = pivotal.differences(prepare(DEN, X, "a", W), jnp.asarray(path), GRID)
    for i, rho in enumerate(GRID.rho):
        assert np.allclose(found.offsets[:, i], path[:, i] - step(path[:, i + 1], rho, 0, W), rtol=1e-13)
    assert np.asarray(found.evaluations).tolist() == [4, 4]
    y = path[:, 2]
    for i in (1, 0):
        y = step(y, GRID.rho[i], 1, W) + np.asarray(found.offsets)[:, i]
    made = pivotal.generate(prepare(DEN, path[:, 2], "b", W), jnp.asarray(path[:, 2]), GRID, found)
    assert np.allclose(made, y, rtol=1e-12)


def by_hand(path, iterations, rate, stop):
    """Null-text optimisation of one path (steps + 1, 2) with Adam, in numpy: the rows, and gradients taken."""
    y, row, rows, spent = path[-1], ROWS[-1], [], 0
    for i, (rho, below) in enumerate(zip(GRID.rho[::-1], path[-2::-1], strict=True)):
        m = v = 0.0
        for k in range(1, iterations + 1):
            away = step(y, rho, 0, W, row) - below
            gradient = np.mean(2 * away * (1 - rho) * (1 - W) * y)
            m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
            row = row - rate * (1 - i / 100) * (m / (1 - 0.9**k)) / (np.sqrt(v / (1 - 0.999**k)) + 1e-8)
            spent += 1
            if np.mean(away**2) < stop + i * 2e-5:
                break
        rows.append(row)
        y = step(y, rho, 0, W, row)
    return rows[::-1], spent, y


@pytest.mark.parametrize(("iterations", "stop"), [(1, 1e-5), (7, 1e-5), (60, 3e-3), (60, 1e-7)])
def test_null_text_optimisation_takes_adam_steps_towards_the_pivot(iterations, stop):
    path = pivot(X, 0)
    x = prepare(DEN, X, "a", W)
    found = pivotal.optimise_null(x, jnp.asarray(path), GRID, iterations=iterations, rate=1e-2, stop=stop)
    made = pivotal.generate(x, jnp.asarray(path[:, -1]), GRID, found)
    for n in range(2):
        rows, spent, image = by_hand(path[n], iterations, 1e-2, stop)
        assert np.allclose(found.null[0][n], rows, rtol=1e-9)
        assert int(found.evaluations[n]) == 3 * spent + 2 * GRID.steps
        assert np.allclose(made[n], image, rtol=1e-9)
    if stop == 3e-3:
        assert int(found.evaluations.min()) < 3 * 60 * 2 + 4  # it stopped early


def test_null_text_optimisation_needs_an_embedding_and_guidance():
    path = jnp.asarray(pivot(X, 0))
    bare = Denoiser.from_function(lambda p, y, s, c: p[c] * y, jnp.asarray(ROWS), (2,), conditions=("a", "b"))
    with pytest.raises(FpjaxError, match="no embedding"):
        pivotal.optimise_null(prepare(bare, X, "a", W), path, GRID)
    with pytest.raises(FpjaxError, match="needs guidance"):
        pivotal.optimise_null(prepare(DEN, X, "a"), path, GRID)


@pytest.mark.parametrize("name", ["digits-plain", "digits-tree"])
def test_the_null_rows_of_embedded_networks(name):
    import fpjax

    den = fpjax.load(name)
    rows = pivotal.null_embedding(den)
    y = jnp.full(den.shape, 0.1, jnp.float32)
    moved = pivotal.with_null(
        den, jax.tree.map(lambda r: r + jnp.linspace(0, 1, r.size, dtype=r.dtype).reshape(r.shape), rows)
    )
    assert np.array_equal(moved(y, 0.7, 3), den(y, 0.7, 3))
    assert not np.allclose(moved(y, 0.7), den(y, 0.7), atol=1e-6)
    assert np.array_equal(pivotal.with_null(den, rows)(y, 0.7), den(y, 0.7))


EXACT = ("direct", *exact_inverses.METHODS)
GRIDS = process.edm(6, sigma_min=0.5, sigma_max=2.0)


@pytest.mark.parametrize("method", peers.METHODS)
def test_every_method_reconstructs_and_edits_in_one_form(method):
    made = peers.reconstruct(DEN, X, GRIDS, method, condition="a")
    assert made.images.shape == made.latent.shape == X.shape
    assert made.evaluations.shape == made.failed.shape == (2,)
    assert not made.failed.any()
    error = float(np.abs(np.asarray(made.images) - X).max())
    assert error < (1e-7 if method in (peers.FIRST, *EXACT) else 0.3)
    edited = peers.edit(DEN, X, GRIDS, method, source="a", target="b", guidance=W)
    assert np.abs(np.asarray(edited.images) - X).max() > 0.1
    assert (edited.evaluations > made.evaluations).all()
    same = peers.edit(DEN, X, GRIDS, method, source="a", target="a")
    assert np.array_equal(same.images, made.images)


def test_evaluations_of_methods_that_can_be_counted_by_hand():
    n = GRIDS.steps
    wanted = {"naive": 2 * n, "fpi": 4 * n, "direct": 3 * n, "edict": 4 * n, "bdia": 2 * n, "obelm": 2 * n}
    for method, count in wanted.items():
        assert peers.reconstruct(DEN, X, GRIDS, method, condition="a").evaluations.tolist() == [count] * 2
    guided = peers.reconstruct(DEN, X, GRIDS, "naive", condition="a", guidance=W)
    assert guided.evaluations.tolist() == [4 * n] * 2


def test_a_method_is_what_its_own_file_does():
    run = baselines.invert(DEN, X, GRIDS, "renoise", condition="a", iterations=2)
    made = peers.reconstruct(DEN, X, GRIDS, "renoise", condition="a", iterations=2)
    assert np.array_equal(made.latent, run.latent)
    assert np.array_equal(made.images, generate(DEN, run.latent, GRIDS, condition="a"))
    pair = exact_inverses.invert(DEN, X, GRIDS, "bdia", condition="a", option=0.9)
    again = peers.reconstruct(DEN, X, GRIDS, "bdia", condition="a", option=0.9)
    assert np.array_equal(again.latent, pair.first)
    assert np.abs(np.asarray(again.images) - X).max() < 1e-10


def bounded(params, y, sigma, condition):
    """With rho = 1/4: F(y) = tanh(y)/2, which reaches no target beyond 1/2."""
    return (params * jnp.tanh(y) / 2 - y / 4) / 0.75


def test_only_our_own_says_that_it_failed():
    den = Denoiser.from_function(bounded, jnp.asarray(1.0), (1,))
    one = process.edm(1, sigma_min=0.5, sigma_max=2.0)
    x = np.asarray([[0.1], [0.8]])
    failed = {m: peers.reconstruct(den, x, one, m).failed.tolist() for m in (peers.FIRST, "fpi", "aidi_anderson")}
    assert failed == {peers.FIRST: [False, True], "fpi": [False, False], "aidi_anderson": [False, False]}


def test_what_peers_refuse():
    with pytest.raises(FpjaxError, match="unknown method"):
        peers.reconstruct(DEN, X, GRIDS, "guess", condition="a")
    with pytest.raises(FpjaxError, match="has no option"):
        peers.reconstruct(DEN, X, GRIDS, "fpi", condition="a", averaged=2)
    with pytest.raises(FpjaxError, match="needs a condition"):
        peers.reconstruct(DEN, X, GRIDS, "naive", guidance=W)
    from fpjax.samplers import with_sampler

    with pytest.raises(FpjaxError, match="E1"):
        peers.reconstruct(DEN, X, with_sampler(GRIDS, "heun"), "naive", condition="a")
