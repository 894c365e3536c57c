"""A network that takes the weight of guidance: monotone at every weight, near its teacher, the same after an interruption."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import fpjax
from fpjax.certify import propose
from fpjax.certify.check import CertificateError
from fpjax.denoiser import evaluate
from fpjax.evidence import FpjaxError
from fpjax.models import distilled, distilling, priors, quality, recipes, store, training, tree

WEIGHTS = (1.0, 3.0, 7.5, 15.0)
AT, ANSWER = jax.jit(distilled.at), jax.jit(evaluate)
SMALL = dataclasses.replace(recipes.recipe("digits-guided"), updates=6, batch=32)


@jax.jit
def jacobians(den, y, sigma, condition):
    of = jax.jacfwd(lambda v, c: evaluate(den, v, sigma, c))
    return jax.vmap(of)(y, condition)


@pytest.fixture
def single():
    """Training is in float32."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module")
def den():
    return fpjax.load("digits-guided")


def test_the_tree_of_a_weight_lies_between_its_knots(den):
    knots, logs = den.params["knots"], np.log(np.asarray(den.params["weights"], float))
    for k, knot in enumerate(knots):
        exact = AT(den.params, den.params["weights"][k])
        assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(exact), jax.tree.leaves(knot), strict=True))
    middle = AT(den.params, np.exp((logs[1] + logs[2]) / 2))
    for name in middle:
        for got, a, b in zip(*(jax.tree.leaves(p[name]) for p in (middle, *knots[1:3])), strict=True):
            want = np.sqrt(a * b) if name in distilled.POSITIVE else (a + b) / 2
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5)
    single = {"weights": jnp.ones(1, jnp.float32), "knots": knots[2:3]}
    assert np.array_equal(AT(single, 4.0)["leaf"], knots[2]["leaf"])
    assert np.array_equal(AT(den.params, 99.0)["root"], knots[-1]["root"])


def test_guidance_one_is_the_first_knot(den):
    y = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    want = jax.jit(tree.denoise)(den.params["knots"][0], y, np.float32(0.5), 3)
    assert np.allclose(den(y, 0.5, 3), want, atol=1e-6)
    assert np.allclose(distilled.guided(den, 1.0)(y, 0.5, 3), want, atol=1e-6)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_it_is_monotone_at_every_weight(den, weight):
    one = distilled.guided(den, weight).astype(jnp.float64)
    assert one.facts.monotone
    x, c = fpjax.samples("digits", 3)
    for sigma in (0.05, 0.6, 8.0):
        y = x.astype(np.float64) + sigma * np.random.default_rng(0).normal(size=x.shape)
        j = np.asarray(jacobians(one, y, jnp.asarray(sigma), c)).reshape(3, 64, 64)
        assert np.abs(j - j.transpose(0, 2, 1)).max() < 1e-12
        assert np.linalg.eigvalsh((j + j.transpose(0, 2, 1)) / 2).min() > 0


def test_images_come_back_at_the_largest_weight(den):
    one, grid = distilled.guided(den, 15.0).astype(np.float64), fpjax.process.ddim(3)
    x, c = fpjax.samples("digits", 4)
    x = x.astype(np.float64)
    inv = fpjax.invert(one, x, grid, condition=c, tol=1e-13)
    assert np.linalg.norm(np.asarray(fpjax.generate(one, inv.latent, grid, condition=c)) - x) < 1e-10 * np.linalg.norm(
        x
    )


@pytest.mark.parametrize("weight", [3.0, 15.0])
def test_it_is_nearer_to_its_teacher_than_guidance_of_the_prior(den, weight):
    teacher = fpjax.load("digits-tree")
    reached = {}
    for one, w in ((teacher, weight), (priors.guided(teacher, weight), 1.0), (distilled.guided(den, weight), 1.0)):
        reached[one.name] = quality.sample(one, 40, 10, seed=3, guidance=w)[0]
    want, *others = reached.values()
    prior, student = (np.linalg.norm(x - want) for x in others)
    assert student < 0.6 * prior


def test_a_weight_alone_is_a_model_that_the_kernel_reads(den, tmp_path):
    one = distilled.guided(den, 7.5)
    path = store.export(tmp_path, one, "alone")
    again, y = store.load(path), np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    assert np.array_equal(again(y, 0.3, 2), one(y, 0.3, 2))
    card, model = propose.load_model(path)
    certificate = propose.structure(card, model, [0.1, 1.0, 10.0], [0, 7])
    assert certificate.verify().questions["uniqueness"] == "CERTIFIED"
    tensors = load_file(path.with_suffix(".safetensors"))
    tensors["leaf"][0, 0, 0, 0] *= -1
    rest = {k: v for k, v in store.read_card(path).items() if k not in ("format", "weights", "sha256")}
    card, model = propose.load_model(store.save(tmp_path / "flipped", rest, tensors))
    with pytest.raises(CertificateError):
        propose.structure(card, model, [0.1, 1.0, 10.0], [0, 7]).verify()
    guided_prior = store.load(store.export(tmp_path, priors.guided(fpjax.load("digits-tree"), 4.0), "prior"))
    assert guided_prior.facts.monotone


def test_the_embedded_card_is_proved_without_guidance():
    card, model = propose.load_model("digits-guided")
    assert propose.structure(card, model, [0.1, 1.0], [3]).verify().questions["uniqueness"] == "CERTIFIED"


def test_refusals(den, tmp_path):
    for call, words in (
        (lambda: distilled.guided(fpjax.load("digits-tree"), 3.0), "does not take the weight"),
        (lambda: distilled.guided(den, 0.5), "from 1 to 15, not 0.5"),
        (lambda: distilled.guided(den, 15.1), "from 1 to 15"),
        (lambda: distilled.guided(den, float("nan")), "from 1 to 15"),
        (lambda: priors.guided(den, 3.0), "no learned prior"),
        (lambda: store.export(tmp_path, den, "x"), "fix its weight"),
        (lambda: training.train(dataclasses.replace(SMALL, batch=40)), "multiple of 32"),
        (lambda: training.train(dataclasses.replace(SMALL, teacher="nobody")), "unknown model"),
    ):
        with pytest.raises(FpjaxError, match=words):
            call()


BROKEN = {
    "weights fall": lambda t: t["weights"].__setitem__(2, 2.0),
    "weights begin elsewhere": lambda t: t["weights"].__setitem__(0, 0.5),
    "a negative leaf": lambda t: t["knot.2.leaf"].__setitem__((0, 0, 0, 0), -1e-3),
    "a negative level": lambda t: t["knot.1.level.3"].__setitem__((0, 0, 0, 0), -1e-3),
    "a negative variance": lambda t: t["knot.3.variances"].__setitem__(1, -1e-3),
    "another shape": lambda t: t.update({"knot.1.root": t["knot.1.root"][:-1]}),
    "a missing knot": lambda t: [t.pop(name) for name in list(t) if name.startswith("knot.3.")],
    "no knot": lambda t: [t.pop(name) for name in list(t) if name.startswith("knot.")],
    "no weights": lambda t: t.pop("weights"),
    "one weight more": lambda t: t.update(weights=np.append(t["weights"], np.float32(20))),
    "an unknown tensor": lambda t: t.update(extra=t["weights"]),
}


@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_broken_knots_are_refused_in_one_sentence(broken, tmp_path):
    path = store.card_path("digits-guided")
    tensors = load_file(path.with_suffix(".safetensors"))
    BROKEN[broken](tensors)
    rest = {k: v for k, v in store.read_card(path).items() if k not in ("format", "weights", "sha256")}
    with pytest.raises(FpjaxError) as error:
        store.load(store.save(tmp_path, rest, tensors))
    assert "\n" not in str(error.value)


def test_a_batch_is_of_the_teachers_answers(single):
    teacher, split = fpjax.load("digits-tree"), fpjax.data.load("digits")
    found = distilling.paths(teacher, (1.0, 15.0), 40, 4)
    assert found.y.shape == (40, 4, 8, 8)
    w = np.geomspace(1, 15, 40).astype(np.float32)
    levels = [*np.asarray(found.sigma), np.float32(fpjax.process.ddim(4).sigmas[0])]
    for i in (0, 13, 39):  # each point follows from the one before
        for k in range(3):
            rho, at = levels[k + 1] / levels[k], found.y[i, k]
            d = ANSWER(teacher, at, levels[k], jnp.asarray(i % 10), w[i])
            np.testing.assert_allclose(found.y[i, k + 1], rho * at + (1 - rho) * d, rtol=1e-4, atol=1e-4)
    r = dataclasses.replace(SMALL, batch=64)
    arrays = (split.train, split.train_labels, jnp.asarray(training.noise_levels()), teacher, found)
    draw = jax.jit(distilling.draw, static_argnums=0)
    y, sigma, condition, target, weight = draw(r, arrays, jax.random.key(0))
    assert y.shape == target.shape == (16, 4, 8, 8)
    assert np.all(np.diff(weight) > 0)
    assert weight[0] >= 1
    assert weight[-1] <= 15
    on_paths = np.asarray(y[:, 2:]).reshape(-1, 64)
    apart = np.abs(on_paths[:, None] - np.asarray(found.y).reshape(1, -1, 64)).max(axis=2).min(axis=1)
    assert apart.max() == 0
    for g, i in ((0, 0), (7, 1), (15, 3)):
        want = ANSWER(teacher, y[g, i], sigma[g, i], condition[g, i], weight[g])
        np.testing.assert_allclose(target[g, i], want, rtol=1e-4, atol=1e-4)
    group = [v[4:5] for v in (y, sigma, condition, target, weight)]
    loss = jax.jit(lambda *batch: distilling.loss(lambda y, s, c: evaluate(teacher, y, s, c, weight[4]), *batch))
    assert loss(*group) < 1e-6
    want = np.mean((np.asarray(target[4]) / np.asarray(sigma[4])[:, None, None]) ** 2)  # |T - 2T|²/sigma²
    np.testing.assert_allclose(loss(*group[:3], 2 * group[3], group[4]), want, rtol=1e-3)
    # a student that takes no weight learns the teacher without a condition too
    plain = dataclasses.replace(SMALL, kind="latent-tree", options=(), batch=512)
    _, _, condition, _, weight = draw(plain, arrays, jax.random.key(0))
    assert np.all(np.asarray(weight) == 1)
    assert 0.02 < np.mean(np.asarray(condition) == teacher.null) < 0.2


class Stopped(Exception):
    pass


@pytest.mark.long
def test_an_interrupted_distillation_goes_on_to_the_same_weights(single, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHUNK", 2)
    whole = training.train(SMALL)

    def stop(done, total, loss):
        if done == 6:
            raise Stopped

    with pytest.raises(Stopped):
        training.train(SMALL, stop, tmp_path / "x.checkpoint", 0.0)
    again = training.train(SMALL, None, tmp_path / "x.checkpoint", 0.0)
    first, second = (store.tensors_of(run.model) for run in (whole, again))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert whole.curve == again.curve
    start = store.tensors_of(recipes.build(SMALL))
    assert any(not np.array_equal(first[name], start[name]) for name in first if name.startswith("knot.3"))
    card = recipes.card("small", SMALL, whole)
    loaded = store.load(store.save(tmp_path, card, first))
    assert loaded.facts.monotone
    assert "digits-tree" in card["training"]["objective"]
    y = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        distilled.guided(loaded, 5.0)(y, 0.5, 3), whole.model.at(5.0)(y, np.float32(0.5), np.int32(3)), atol=1e-5
    )


def read(path):
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_sheet_of_samples_and_how_it_was_made(den, tmp_path):
    made = quality.sheet(tmp_path / "a.png", den, columns=3, steps=3)
    assert made["guidance"] == [1.0, 2.5, 6.0, 15.0]
    assert (made["file"], made["images"], made["steps"], made["conditions"]) == ("a.png", 12, 3, "in turns")
    pixels = read(tmp_path / "a.png")
    assert pixels.shape == (4 * 40, 3 * 40)
    last = quality.grid(quality.sample(distilled.guided(den, 15.0), 3, 3)[0], 3)
    assert np.array_equal(pixels[-40::5, ::5], last)
    plain = quality.sheet(tmp_path / "b.png", fpjax.load("digits-plain"), columns=3, steps=3)
    assert (plain["guidance"], plain["images"]) == ([1.0], 6)
    want = quality.grid(quality.sample(fpjax.load("digits-plain"), 6, 3)[0], 3)
    assert np.array_equal(read(tmp_path / "b.png")[::5, ::5], want)


def test_every_embedded_card_has_its_samples():
    for name in store.names():
        samples = store.read_card(store.card_path(name))["samples"]
        assert samples["file"] == f"{name}-samples.png"
        assert read(store.WEIGHTS / samples["file"]).shape[1] >= 8 * 40
