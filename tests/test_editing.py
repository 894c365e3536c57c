"""Edits: what comes back, what a strength and a mask keep, and that the sentence about a latent is true of it."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import fpjax
from fpjax import editing, process
from fpjax.denoiser import Denoiser, Facts
from fpjax.evidence import Evidence, FpjaxError, Verdict
from fpjax.models import exact
from fpjax.step import F, Step
from fpjax.trajectory import generate, invert

GRID = process.edm(6, sigma_min=0.2, sigma_max=4.0)
MEANS = np.asarray([[1.0, 0.2], [-0.8, 0.5], [0.1, -0.9]])


def classes(params, y, sigma, condition):
    """The exact denoiser of one Gaussian, N(mean of the condition, 0.3²); none is the Gaussian in the middle."""
    return (params[condition] * sigma**2 + 0.09 * y) / (sigma**2 + 0.09)


def gaussians(facts: Facts) -> Denoiser:
    rows = jnp.asarray(np.concatenate([MEANS, MEANS.mean(axis=0, keepdims=True)]))
    return Denoiser.from_function(classes, rows, (2,), conditions=("a", "b", "c"), facts=facts, name="gaussians")


DEN = gaussians(Facts(symmetric=True, monotone=True, lipschitz=lambda sigma: 0.09 / (sigma**2 + 0.09)))
X = MEANS[:2] + 0.1


def test_the_same_condition_gives_the_image_back_and_another_moves_it_there():
    done = editing.edit(DEN, X, GRID, source=["a", "b"], target=["a", "b"])
    assert np.allclose(done.images, X, atol=1e-8)
    assert np.allclose(done.back, np.abs(np.asarray(done.images) - X).max(axis=1), atol=1e-14)
    assert all("gives the image back to" in f.words for f in done.findings)
    moved = editing.edit(DEN, X, GRID, source=["a", "b"], target="c")
    # Every step scales the distance from the mean by the same slope, whatever the mean.
    slopes = GRID.rho + (1 - GRID.rho) * 0.09 / (GRID.sigmas[1:] ** 2 + 0.09)
    assert np.allclose(moved.images, MEANS[2] + 0.1 + np.prod(slopes) * (MEANS[:2] - MEANS[2]), atol=1e-8)
    assert (moved.evaluations == np.asarray(moved.inversion.evaluations).sum(axis=1) + GRID.steps).all()


def test_a_declared_modulus_makes_the_latent_known_and_the_bound_holds():
    truth = invert(DEN, X, GRID, condition="a", tol=1e-13).latent
    for tol in (1e-3, 1e-6):
        done = editing.edit(DEN, X, GRID, source="a", target="b", tol=tol, solver="picard")
        for i, finding in enumerate(done.findings):
            assert (finding.verdict, finding.step) == (Verdict.SUPPORTED, None)
            assert finding.error.evidence == Evidence.ASSUMED
            away = float(np.linalg.norm(np.asarray(done.latent[i] - truth[i])))
            assert 0 < away <= finding.error.value
            assert f"unique and known to {finding.error.value:.1e}" in finding.words


def test_a_bound_stands_where_the_iteration_limit_came_first_and_the_words_say_so():
    done = editing.edit(DEN, X, GRID, source="a", target="b", limit=1, solver="picard")
    truth = invert(DEN, X, GRID, condition="a", tol=1e-13).latent
    for i, finding in enumerate(done.findings):
        assert (finding.verdict, finding.step) == (Verdict.INCONCLUSIVE, 1)
        assert "step 1 was not solved (STEP_LIMIT" in finding.words
        assert np.linalg.norm(np.asarray(done.latent[i] - truth[i])) <= finding.error.value


def test_without_a_declaration_the_states_are_looked_at_and_nothing_is_called_a_bound():
    done = editing.edit(gaussians(Facts()), X, GRID, source="a", target="b")
    for finding in done.findings:
        assert (finding.verdict, finding.step) == (Verdict.SUPPORTED, None)
        assert finding.error.evidence == Evidence.SAMPLED
        assert "estimate" in finding.words
        assert "unique and known" not in finding.words
    assert editing.edit(DEN, X, GRID, source="a", target="b", look=False).back is None


def folded(params, y, sigma, condition):
    """With rho = 1/4: F(y) = y - 2·tanh(y) in the first coordinate, which takes every value near 0 three times."""
    return jnp.where(jnp.arange(2) == 0, (0.75 * y - 2 * jnp.tanh(y)) / 0.75, params[condition])


ONE = process.edm(1, sigma_min=0.5, sigma_max=2.0)
FOLDED = Denoiser.from_function(folded, jnp.asarray([0.3, 0.4]), (2,), conditions=("a",), name="folded")


def test_a_second_solution_refutes_uniqueness_and_is_one():
    x = np.asarray([[0.0, 0.1]])
    # The plain start converges to a branch of positive slope; started on the middle branch the solver stays at 0, where F' < 0.
    done = editing.edit(FOLDED, x, ONE, source="a", target="a", solver="newton_krylov")
    (finding,) = done.findings
    assert (finding.verdict, finding.step, finding.error) == (Verdict.REFUTED, 1, None)
    assert "not well posed from step 1" in finding.words
    assert "depends on the start" in finding.words
    step = Step(FOLDED.astype(jnp.float64), jnp.asarray(2.0), jnp.asarray(0.25), jnp.asarray(x[0]), jnp.int32(0))
    mine = np.asarray(done.inversion.path)[0, 1]
    for y in (mine, finding.other):
        assert np.allclose(F(jnp.asarray(y), step), x[0], atol=1e-9)
    assert np.linalg.norm(mine - finding.other) > 1


def turned(params, y, sigma, condition):
    """With rho = 1/4: F turns y by 120 degrees. The symmetric part of its Jacobian is -1/2, and F has an inverse all the same."""
    return (params @ y - y / 4) / 0.75


def test_where_m_is_negative_and_no_second_solution_is_found_uniqueness_stays_open():
    angle = 2 * np.pi / 3
    rotation = np.asarray([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    den = Denoiser.from_function(turned, jnp.asarray(rotation), (2,), conditions=("a",))
    done = editing.edit(den, np.asarray([[0.4, -0.3]]), ONE, source="a", target="a")
    (finding,) = done.findings
    assert (finding.verdict, finding.step, finding.error, finding.other) == (Verdict.INCONCLUSIVE, 1, None, None)
    assert "m is at most -0.5" in finding.words
    assert done.back[0] < 1e-9


def bounded(params, y, sigma, condition):
    """With rho = 1/4: F(y) = tanh(y)/2, which reaches no target beyond 1/2."""
    return (params[condition] * jnp.tanh(y) / 2 - y / 4) / 0.75


def test_a_step_without_a_solution_is_named_and_no_error_is_stated():
    den = Denoiser.from_function(bounded, jnp.asarray([1.0, 1.0]), (1,), conditions=("a",))
    done = editing.edit(den, np.asarray([[0.8], [0.1]]), ONE, source="a", target="a")
    lost, found = done.findings
    assert (lost.verdict, lost.step, lost.error) == (Verdict.INCONCLUSIVE, 1, None)
    assert "step 1 was not solved" in lost.words
    assert 0.29 < done.back[0] < 0.5  # F stays below 1/2
    assert f"does not give the image back (off by {done.back[0]:.1g})" in lost.words
    assert "gives the image back to" in found.words
    assert found.verdict is Verdict.SUPPORTED


def test_strength_inverts_the_first_levels_only():
    part = editing.shortened(GRID, 3)
    assert part.levels == GRID.levels[:4]
    done = editing.edit(DEN, X, GRID, source="a", target="c", strength=0.5)
    latent = invert(DEN, X, part, condition="a", tol=1e-10).latent
    assert np.allclose(done.images, generate(DEN, latent, part, condition="c"), atol=1e-9)
    sizes = [
        np.abs(np.asarray(editing.edit(DEN, X, GRID, source="a", target="c", strength=s, look=False).images) - X).max()
        for s in (0.01, 0.5, 1.0)
    ]
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    assert editing.edit(DEN, X, GRID, source="a", target="c", strength=0.01, look=False).process.steps == 1


def test_a_mask_keeps_what_lies_outside_it():
    x, c = fpjax.samples("digits", 2)
    den, grid = fpjax.load("digits-monotone"), process.ddim(5)
    x, mask = x.astype(np.float64), np.zeros((8, 8))
    mask[:, 4:] = 1
    plain = editing.edit(den, x, grid, source=c, target=(c + 1) % 10, look=False)
    done = editing.edit(den, x, grid, source=c, target=(c + 1) % 10, mask=mask, look=False)
    assert np.allclose(done.images[:, :, :4], x[:, :, :4], atol=1e-14)
    assert np.abs(np.asarray(done.images)[:, :, 4:] - x[:, :, 4:]).max() > 0.1
    whole = editing.edit(den, x, grid, source=c, target=(c + 1) % 10, mask=np.ones((8, 8)), look=False)
    assert np.allclose(whole.images, plain.images, atol=1e-12)


def test_a_masked_step_by_hand():
    two = process.edm(2, sigma_min=0.5, sigma_max=2.0)
    mask = np.asarray([0.25, 1.0])
    done = editing.edit(DEN, X[:1], two, source="a", target="c", mask=mask)
    path = np.asarray(done.inversion.path)[0]
    y = path[2]
    for i in (1, 0):
        sigma, rho = two.sigmas[i + 1], two.rho[i]
        y = rho * y + (1 - rho) * (MEANS[2] * sigma**2 + 0.09 * y) / (sigma**2 + 0.09)
        y = mask * y + (1 - mask) * path[i]
    assert np.allclose(done.images[0], y, rtol=1e-12)


def test_safe_guidance_stays_below_the_limit_and_gives_the_image_back():
    strong = editing.edit(DEN, X, GRID, source="a", target="a", guidance=7.5)
    assert np.abs(np.asarray(strong.images) - X).max() > 0.1  # inverted without, generated with
    done = editing.edit(DEN, X, GRID, source="a", target="a", guidance=7.5, safe=True)
    assert np.allclose(done.images, X, atol=1e-7)
    lipschitz = 0.09 / (GRID.sigmas[1:] ** 2 + 0.09)
    limit = 1 + GRID.rho / ((1 - GRID.rho) * lipschitz)
    assert (done.weights < limit).all()
    assert (done.weights >= 1).all()
    assert done.weights.max() > 1.5
    assert all(f.verdict is Verdict.SUPPORTED and f.error.evidence == Evidence.ASSUMED for f in done.findings)
    sampled = dataclasses.replace(DEN, facts=Facts(monotone=True))
    looked = editing.edit(sampled, X, GRID, source="a", target="a", guidance=7.5, safe=True)
    assert all(f.error.evidence == Evidence.SAMPLED for f in looked.findings)


def test_what_is_refused():
    for options, sentence in [
        ({"strength": 0.0}, "strength"),
        ({"strength": 1.5}, "strength"),
        ({"mask": np.full(2, 2.0)}, "between 0"),
        ({"mask": np.ones((3, 3, 3))}, "mask has the shape"),
        ({"mask": np.full(2, np.nan)}, "between 0"),
        ({"target": "z"}, "unknown condition"),
        ({"target": None, "guidance": 3.0}, "needs a condition"),
        ({"safe": True, "guidance": 3.0, "inversion_guidance": 3.0}, "leave inversion_guidance out"),
    ]:
        with pytest.raises(FpjaxError, match=sentence):
            editing.edit(DEN, X, GRID, **({"source": "a", "target": "b"} | options))
    with pytest.raises(FpjaxError, match="monotone"):
        editing.edit(gaussians(Facts()), X, GRID, source="a", target="b", guidance=3.0, safe=True)
    with pytest.raises(FpjaxError, match="E1"):
        editing.edit(DEN, X, fpjax.samplers.with_sampler(GRID, "heun"), source="a", target="b")
    with pytest.raises(FpjaxError, match="6 steps"):
        editing.shortened(GRID, 7)
    pure = exact.mixture(MEANS, 0.3)
    assert editing.edit(pure, X, GRID).findings[0].verdict is Verdict.SUPPORTED  # without conditions: there and back


def test_images_of_any_size_are_made_to_fit():
    ramp = np.linspace(-1, 1, 6 * 10).reshape(6, 10)
    point, told = editing.fit(ramp, (6, 6))
    assert np.allclose(point, ramp[:, 2:8])
    assert told == "10×6: its middle 6×6 taken"
    colour = np.stack([np.full((4, 4), v) for v in (1.0, 0.0, -1.0)], axis=2)
    point, told = editing.fit(colour, (1, 4, 4))
    assert point.shape == (1, 4, 4)
    assert np.allclose(point, 0.299 - 0.114, atol=1e-6)
    assert told == "4×4: made grey"
    point, told = editing.fit(colour, (3, 2, 2))
    assert np.allclose(point[0], 1)
    assert np.allclose(point[2], -1)
    assert told == "4×4: resized to 2×2"
    point, told = editing.fit(np.full((5, 3), 0.25), (3, 3, 3))
    assert np.allclose(point, 0.25)
    assert told == "3×5: its grey put into three channels, its middle 3×3 taken"
    assert editing.fit(np.zeros((8, 8)), (8, 8))[1] == "8×8: taken as it is"
    fine = np.full((16, 16), 1000 / 32767.5 - 1)  # a 16-bit value that 8 bits do not have
    assert np.allclose(editing.fit(fine, (8, 8))[0], fine[0, 0], atol=1e-6)
    for values, shape in [(np.zeros((2, 2, 4)), (8, 8)), (np.zeros((8, 8)), (4, 8, 8)), (np.zeros((0, 8)), (8, 8))]:
        with pytest.raises(FpjaxError):
            editing.fit(values, shape)
    assert editing.shown(np.full((3, 2, 4), 2.0)).shape == (2, 4, 3)
    assert editing.shown(np.zeros((1, 2, 4))).shape == (2, 4)
