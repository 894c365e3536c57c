"""Assertions are right about denoisers whose constants are known exactly; strategies are what they say and shrink."""

import dataclasses

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fpjax
from fpjax import process, testing
from fpjax.denoiser import Denoiser
from fpjax.evidence import Evidence, FpjaxError, Verdict
from fpjax.step import G, Step, denoised
from fpjax.testing import asserting, strategies

KNOWN = st.one_of(testing.gaussians(), testing.mixtures(), testing.networks())
SIGMAS = st.sampled_from([0.05, 0.5, 3.0])
N = 8  # points, the same everywhere so that compiled code is shared


def saturating(params, y, sigma, condition):
    return params * jnp.tanh(y)


def step(den, witness) -> Step:
    point = jnp.asarray(witness["point"])
    rho = jnp.asarray(witness.get("rho", 0.0))
    return Step(den, jnp.asarray(witness["sigma"]), rho, jnp.zeros_like(point), jnp.int32(den.null))


# --- strategies: what they say is true -------------------------------------------------------------------------------


@given(KNOWN, SIGMAS, st.integers(0, 2**20))
def test_eigenvalues_stay_within_the_known_ones(known, sigma, seed):
    seen = asserting.look(known.den, [sigma], [0.0], None, None, 1.0, N, seed)
    rounding = 1e-12 * seen.scale
    assert (seen.low >= known.low(sigma) - rounding).all()
    assert (seen.departure <= known.kappa(0.0, sigma) + rounding).all()


@given(KNOWN, SIGMAS)
def test_the_known_ends_are_reached(known, sigma):
    """So the constants are no mere bounds: each is a value at the bend, or that of points far away.

    How far a mixture's smallest eigenvalue is attained depends on its means, so only its largest is looked for.
    """
    mixture = known.name.startswith("mixture")
    far = np.random.default_rng(0).normal(size=(N - 1, *known.den.shape)) * (0.0 if mixture else 1e9)
    points = jnp.concatenate([known.bend[None], known.bend + far])
    varying = (jnp.full(N, sigma), jnp.zeros(N), jnp.zeros(N, jnp.int32), None)
    values = np.linalg.eigvalsh(asserting._jacobians((known.den, varying), points))
    assert values.max() == pytest.approx(known.high(sigma), rel=1e-9, abs=1e-12)
    if not mixture:
        assert values.min() == pytest.approx(known.low(sigma), rel=1e-9, abs=1e-12)


@given(testing.networks(), st.floats(0, 0.9))
def test_labels_of_networks_are_true(known, rho):
    label = known.name.split()[0]
    assert (known.modulus(rho, 1.0) >= rho - 1e-12) == (label != "neither")
    if label == "contractive":
        assert known.kappa(rho, 1.0) < 1
    if label == "neither":
        assert known.kappa(0.0, 1.0) > 1
    assert known.den.facts.monotone == (label != "neither")


@given(testing.processes(final_sigma_zero=None), st.data())
def test_processes_are_processes(grid, data):
    assert (np.diff(grid.sigmas) > 0).all()
    assert 1 <= grid.steps <= 20
    assert ((grid.rho >= 0) & (grid.rho < 1)).all()
    level = data.draw(st.integers(0, grid.steps))
    assert np.isfinite(grid.scale(grid.levels[level]))


@given(testing.images((2, 3), n=2), testing.images((4,), dtype=np.float32))
def test_images_lie_in_their_range(x, y):
    assert x.shape == (2, 2, 3)
    assert y.shape == (1, 4)
    assert y.dtype == np.float32
    assert max(np.abs(x).max(), np.abs(y).max()) <= 1


@given(st.data())
def test_conditions_are_accepted(data):
    den = fpjax.Denoiser.from_function(saturating, np.float64(1.0), (2,), conditions=("a", "b"))
    assert 0 <= den.index(data.draw(testing.conditions(den))) <= 2
    plain = dataclasses.replace(den, conditions=())
    assert data.draw(testing.conditions(plain)) is None


SMALLEST = {
    "steps": (testing.processes(final_sigma_zero=None), lambda p: p.steps >= 5, lambda p: p == process.ddim(5)),
    "kind": (testing.processes(), lambda p: p.kind == "edm", lambda p: p == process.edm(1)),
    "network": (
        testing.networks(),
        lambda k: k.low(1.0) < 0,
        lambda k: k.name == "neither network(base=0.0, gains=[-1.0], bend=[0.0])",
    ),
    "gaussian": (
        testing.gaussians(),
        lambda k: k.high(1.0) >= 0.5,
        lambda k: k.name == "gaussian(mean=[0.0], variances=[1.0])",
    ),
    "mixture": (
        testing.mixtures(),
        lambda k: k.kappa(0.0, 0.5) > 2,
        lambda k: k.den.shape == (1,) and k.name == "mixture(means=±[1.0], std=0.0)",
    ),
    "images": (testing.images((2, 2)), lambda x: x.max() > 0.3, lambda x: sorted(x.ravel()) == [0, 0, 0, 1.0]),
}


@pytest.mark.parametrize("name", sorted(SMALLEST))
def test_failures_shrink_to_the_smallest_example(name):
    strategy, fails, smallest = SMALLEST[name]
    options = hypothesis.settings(database=None, derandomize=True, max_examples=2000)
    found = hypothesis.find(strategy, fails, settings=options)
    assert smallest(found), found


# --- assertions ------------------------------------------------------------------------------------------------------


@given(st.one_of(testing.gaussians(), testing.mixtures()), testing.processes(max_steps=N), st.integers(0, 2**20))
def test_exact_denoisers_are_well_posed_and_monotone(known, grid, seed):
    """E3 and T2: at every step count; the reported modulus is never below the true one."""
    out = testing.assert_wellposed(known.den, grid, samples=N, seed=seed)
    true = min(known.modulus(r, s) for r, s in zip(grid.rho, grid.sigmas[1:], strict=True))
    assert out.verdict is Verdict.SUPPORTED
    assert out.worst.evidence is Evidence.SAMPLED
    assert out.worst.value >= true - 1e-9
    assert out.points == N
    assert testing.assert_monotone(known.den, sigmas=grid.sigmas[1:], samples=N, seed=seed).points == N


@given(testing.networks(label="neither"), st.integers(0, 2**20))
def test_what_is_not_monotone_is_refuted_with_a_direction(known, seed):
    with pytest.raises(testing.PropertyError) as error:
        testing.assert_monotone(known.den, sigmas=[1e-6], images=known.bend[None], samples=N, seed=seed)
    out = error.value.outcome
    assert out.verdict is Verdict.REFUTED
    v = jnp.asarray(out.witness["direction"])
    p = step(known.den, out.witness)
    again = jax.jvp(lambda y: denoised(y, p), (jnp.asarray(out.witness["point"]),), (v,))[1] @ v
    assert float(again) == pytest.approx(out.witness["<v, J v>"], rel=1e-9)
    assert float(again) < 0
    assert "T2" in str(error.value)
    assert "direction = [" in str(error.value)


@given(testing.networks(label="neither"), st.integers(0, 2**20))
def test_no_modulus_leaves_uniqueness_open(known, seed):
    """rho below |lambda|/(1 + |lambda|): T2's hypothesis fails. The verdict must not say that uniqueness does."""
    bad = -known.low(1.0)
    grid = process.from_sigmas([1e-6 * bad / (2 + 2 * bad), 1e-6])
    with pytest.raises(testing.PropertyError) as error:
        testing.assert_wellposed(known.den, grid, images=known.bend[None], samples=N, seed=seed)
    assert error.value.outcome.verdict is Verdict.INCONCLUSIVE
    assert error.value.outcome.worst.value == pytest.approx(known.modulus(grid.rho[0], 1e-6), abs=1e-6)


@given(
    testing.networks(label="contractive"), testing.processes(max_steps=N, final_sigma_zero=None), st.integers(0, 2**20)
)
def test_contractive_networks_contract(known, grid, seed):
    out = testing.assert_contracts(known.den, grid, samples=N, seed=seed)
    assert out.worst.value <= max(known.kappa(r, 1.0) for r in grid.rho) + 1e-12
    assert "lower estimate" in out.detail


@given(testing.networks(label="neither"), st.integers(0, 2**20))
def test_expansion_is_refuted_with_a_pair(known, seed):
    with pytest.raises(testing.PropertyError) as error:
        testing.assert_contracts(
            known.den, process.from_sigmas([1e-9, 1e-6]), images=known.bend[None], samples=N, seed=seed
        )
    out = error.value.outcome
    assert out.verdict is Verdict.REFUTED
    p, a, b = step(known.den, out.witness), jnp.asarray(out.witness["point"]), jnp.asarray(out.witness["other point"])
    ratio = float(jnp.linalg.norm(G(a, p) - G(b, p)) / jnp.linalg.norm(a - b))
    assert ratio == pytest.approx(out.witness["||G(a) - G(b)|| / ||a - b||"], rel=1e-6)
    assert ratio > 1


def test_a_point_where_nothing_is_pushed_apart_is_inconclusive():
    """y - D(y) turns by 45°: ||I - J|| = 1 exactly, and no pair moves apart."""
    den = fpjax.Denoiser.from_function(lambda p, y, s, c: y - p @ y, np.asarray([[0.0, -1.0], [1.0, 0.0]]), (2,))
    with pytest.raises(testing.PropertyError) as error:
        testing.assert_contracts(den, process.from_sigmas([0.0, 1.0]), samples=N)
    assert error.value.outcome.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize("check", [testing.assert_wellposed, testing.assert_contracts])
def test_nan_is_inconclusive_and_said_first(check):
    den = fpjax.Denoiser.from_function(lambda p, y, s, c: jnp.where(s > 1, y * jnp.nan, y / 2), (), (2,), name="broken")
    with pytest.raises(testing.PropertyError, match="NaN or infinite") as error:
        check(den, process.edm(4), samples=N)
    assert error.value.outcome.verdict is Verdict.INCONCLUSIVE
    assert "broken" in str(error.value)


def test_lanczos_and_dense_agree(monkeypatch):
    rng = np.random.default_rng(0)
    den = fpjax.Denoiser.from_function(lambda p, y, s, c: jnp.tanh(p @ y), rng.normal(size=(6, 6)), (6,))
    dense = asserting.look(den, [0.5], [0.1], None, None, 1.0, 4, 0)
    monkeypatch.setattr(asserting, "DENSE", 5)
    sparse = asserting.look(den, [0.5], [0.1], None, None, 1.0, 4, 0)
    assert np.allclose(dense.low, sparse.low, atol=1e-8)
    assert np.allclose(dense.departure, sparse.departure, atol=1e-8)
    assert np.allclose(np.abs(np.sum(dense.low_vector * sparse.low_vector, axis=1)), 1, atol=1e-5)


def test_guidance_and_condition_are_used():
    def pull(params, y, sigma, condition):
        return jnp.where(condition == 0, 2.0, 0.5).astype(y.dtype) * y

    den = fpjax.Denoiser.from_function(pull, (), (2,), conditions=("far",))
    grid = process.from_sigmas([0.5, 1.0])
    assert testing.assert_wellposed(den, grid, condition="far", samples=2).worst.value == pytest.approx(1.5)
    out = testing.assert_wellposed(den, grid, condition="far", guidance=3.0, samples=2)  # D = 0.5 + 3·1.5 = 5
    assert out.worst.value == pytest.approx(3.0)
    assert testing.assert_wellposed(den, grid, samples=2).worst.value == pytest.approx(0.75)
    with pytest.raises(testing.PropertyError) as error:
        testing.assert_contracts(den, grid, condition="far", guidance=3.0, samples=2)
    assert error.value.outcome.witness["guidance"] == 3.0
    assert error.value.outcome.witness["condition"] == 0


def test_t10_is_named_where_the_last_level_is_zero():
    den = fpjax.Denoiser.from_function(lambda p, y, s, c: y * 0, (), (2,))
    with pytest.raises(testing.PropertyError, match="T10"):
        testing.assert_wellposed(den, process.ddim(2, final_sigma_zero=True), samples=2)


# --- trajectories ----------------------------------------------------------------------------------------------------

MIXTURE = fpjax.models.exact.mixture([[-1.0, 0.0], [1.0, 0.5]], 0.3)
GRIDS = [process.ddim(4), process.edm(4), process.rectified_flow(4), process.ddim(4, final_sigma_zero=True)]


def sampler(grid, shift=0):
    """DDIM, EDM Euler or rectified-flow Euler, written in the process's own coordinates and times."""
    abar = process.alphas_bar()
    den = MIXTURE

    def vp(z, t, s):
        a, b = abar[int(t)], 1.0 if s < 0 else abar[max(int(s) - shift, 0)]
        x0 = den(z / a**0.5, ((1 - a) / a) ** 0.5)
        return b**0.5 * x0 + (1 - b) ** 0.5 * (z - a**0.5 * x0) / (1 - a) ** 0.5

    def euler(x, t, s):
        return x + (s - t) * (x - den(x, t)) / t

    def flow(x, t, s):
        x0 = den(x / (1 - t), t / (1 - t))
        return x + (s - t) * (x - x0) / t

    return {"ddim": vp, "edm": euler, "rectified-flow": flow}[grid.kind]


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{g.kind}-{g.levels[0] == 0}")
def test_samplers_written_in_other_coordinates_match(grid):
    out = testing.assert_matches_schedule(MIXTURE, grid, sampler(grid), samples=N)
    assert out.worst.value < 1e-11


def test_an_off_by_one_in_training_time_is_found():
    with pytest.raises(testing.PropertyError, match="E1") as error:
        testing.assert_matches_schedule(MIXTURE, process.ddim(4), sampler(process.ddim(4), shift=1), samples=N)
    witness = error.value.outcome.witness
    assert np.abs(witness["sampler"] - witness["E1"]).max() > 1e-6


def test_an_off_by_one_in_the_sampler_s_levels_is_named():
    grid = process.edm(4)
    times = dict(zip(grid.timesteps[2:], grid.timesteps[:-2], strict=True))  # jumps two levels at once
    euler = sampler(grid)
    with pytest.raises(testing.PropertyError, match="look for an off-by-one"):
        testing.assert_matches_schedule(MIXTURE, grid, lambda z, t, s: euler(z, t, times.get(t, s)), samples=N)


def test_round_trips():
    x = np.random.default_rng(0).normal(size=(3, 2))
    out = testing.assert_roundtrip(MIXTURE, process.ddim(4), x)
    assert out.points == 3
    assert out.worst.value < 1e-8
    with pytest.raises(testing.PropertyError) as error:
        testing.assert_roundtrip(MIXTURE, process.ddim(4), x, tol=1e-18)
    assert error.value.outcome.verdict is Verdict.REFUTED


def test_a_step_that_is_not_solved_is_named():
    known = hypothesis.find(testing.networks(label="neither", dims=(2,)), lambda k: True)
    den = dataclasses.replace(
        known.den, params=(*known.den.params[:1], np.asarray([-30.0, 1.0]), *known.den.params[2:])
    )
    with pytest.raises(testing.PropertyError, match=r"step \d of 4 ended") as error:
        testing.assert_roundtrip(den, process.ddim(4), np.ones((3, 2)), solver="picard", limit=30)
    assert error.value.outcome.verdict is Verdict.INCONCLUSIVE


BAD = {
    "not a denoiser": lambda: testing.assert_monotone(np.tanh),  # pyright: ignore
    "not a denoiser for a trip": lambda: testing.assert_roundtrip(np.tanh, GRIDS[0], np.ones((1, 2))),  # pyright: ignore
    "samples": lambda: testing.assert_monotone(MIXTURE, samples=0),
    "samples as text": lambda: testing.assert_monotone(MIXTURE, samples="8"),  # pyright: ignore
    "samples as bool": lambda: testing.assert_monotone(MIXTURE, samples=True),
    "no sigmas": lambda: testing.assert_monotone(MIXTURE, sigmas=[]),
    "sigma 0": lambda: testing.assert_monotone(MIXTURE, sigmas=[0.0]),
    "sigma nan": lambda: testing.assert_monotone(MIXTURE, sigmas=[np.nan]),
    "images": lambda: testing.assert_wellposed(MIXTURE, GRIDS[0], images=np.ones((2, 3))),
    "no images": lambda: testing.assert_wellposed(MIXTURE, GRIDS[0], images=np.ones((0, 2))),
    "nan images": lambda: testing.assert_wellposed(MIXTURE, GRIDS[0], images=np.full((1, 2), np.nan)),
    "condition": lambda: testing.assert_wellposed(MIXTURE, GRIDS[0], condition=2),
    "guidance": lambda: testing.assert_contracts(MIXTURE, GRIDS[0], guidance=2.0),
    "tol": lambda: testing.assert_roundtrip(MIXTURE, GRIDS[0], np.ones((1, 2)), tol=0.0),
    "schedule tol": lambda: testing.assert_matches_schedule(MIXTURE, GRIDS[0], sampler(GRIDS[0]), tol=np.inf),
    "sampler fails": lambda: testing.assert_matches_schedule(MIXTURE, GRIDS[0], lambda z: z),
    "sampler shape": lambda: testing.assert_matches_schedule(MIXTURE, GRIDS[0], lambda z, t, s: z[:1]),
    "label": lambda: testing.networks(label="nice").example(),
    "kinds": lambda: testing.processes(kinds=("ddpm",)).example(),
    "steps": lambda: testing.processes(min_steps=3, max_steps=2).example(),
    "dims": lambda: testing.gaussians(dims=(0,)).example(),
    "dtype": lambda: testing.images((2,), dtype=np.int32),
}


@pytest.mark.parametrize("kind", sorted(BAD))
@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
def test_bad_input_gets_one_sentence(kind):
    with pytest.raises(FpjaxError) as error:
        BAD[kind]()
    assert "\n" not in str(error.value)


def test_every_public_name_can_be_had():
    for name in testing.__all__:
        assert getattr(testing, name) is not None
    with pytest.raises(AttributeError):
        testing.assert_wonderful  # noqa: B018
    assert strategies.LABELS == ("monotone", "contractive", "neither")


def test_what_rounding_does_to_a_jacobian_refutes_nothing():
    """J is singular here; by the plain chain rule its zero eigenvalue comes out as -4e-14, 180 roundings below 0."""
    den = fpjax.models.exact.mixture(np.array([[-1.0, -1.0], [1.0, 1.0]]), 0.0)
    sigmas = process.edm(4, sigma_min=0.002).sigmas[1:]
    for seed in range(40):
        testing.assert_monotone(den, sigmas=sigmas, samples=64, seed=seed)


def test_a_small_negative_eigenvalue_is_still_seen():
    den = Denoiser.from_function(lambda p, y, sigma, c: p * y, np.array([1.0, -1e-11]), (2,))
    with pytest.raises(testing.PropertyError, match="not monotone"):
        testing.assert_monotone(den, samples=8)
