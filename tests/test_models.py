import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import fpjax
from fpjax.evidence import FpjaxError
from fpjax.models import exact, mixture, recipes, store, training


def zoo(seed: int):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(4, 4))
    return {
        "gaussian": exact.gaussian(rng.normal(size=4), factor @ factor.T),
        "singular gaussian": exact.gaussian(rng.normal(size=4), np.outer(factor[0], factor[0])),
        "isotropic": exact.gaussian(rng.normal(size=(2, 2)), 0.3 * np.eye(4)),
        "mixture": exact.mixture(rng.normal(size=(5, 4)), rng.uniform(0.1, 1, 5), rng.uniform(0.1, 1, 5)),
        "common std": exact.mixture(rng.normal(size=(5, 2, 2)), 0.3),
        "empirical": exact.empirical(rng.normal(size=(7, 4))),
    }


def dense(den, y, sigma):
    f = lambda v: den.fn(den.params, v, jnp.asarray(sigma), jnp.int32(0))  # noqa: E731
    return np.asarray(jax.jacfwd(f)(jnp.asarray(y))).reshape(den.size, den.size)


@pytest.mark.parametrize("sigma", [0.1, 3.4, 157.0])
@pytest.mark.parametrize("name", ["digits-monotone", "digits-tree"])
def test_float32_keeps_its_digits_far_from_the_images(name, sigma):
    """Inversions in few steps go to |y| of 30 sigma a pixel, where what all components have in common has a million times
    the size of what tells them apart."""
    den, sigma = fpjax.load(name), np.float32(sigma)
    for noise in np.random.default_rng(0).normal(size=(3, *den.shape)):
        y = (30 * sigma * noise).astype(np.float32)
        single, double = (
            np.asarray(den.astype(t)(jnp.asarray(y, t), jnp.asarray(sigma, t), 1), np.float64)
            for t in (jnp.float32, jnp.float64)
        )
        assert np.linalg.norm(single - double) <= 1e-6 * np.linalg.norm(double)


@given(st.sampled_from(sorted(zoo(0))), st.integers(0, 50), st.floats(0.2, 5), st.floats(0.1, 3))
def test_closed_form_jacobians_and_declared_facts(kind, seed, sigma, spread):
    den = zoo(seed)[kind].astype(jnp.float64)
    y = np.random.default_rng(seed + 1).normal(size=den.shape) * spread
    jacobian = dense(den, y, sigma)
    closed = np.asarray(den.jacobian(den.params, jnp.asarray(y), jnp.asarray(sigma), jnp.int32(0)))
    scale = max(1.0, np.abs(jacobian).max())
    assert np.abs(closed - jacobian).max() <= 1e-11 * scale
    facts = den.facts
    assert facts.symmetric
    assert facts.monotone
    assert np.abs(jacobian - jacobian.T).max() <= 1e-11 * scale
    eigenvalues = np.linalg.eigvalsh((jacobian + jacobian.T) / 2)
    assert eigenvalues[0] >= -1e-11 * scale
    if facts.lipschitz is not None:
        assert eigenvalues[-1] <= facts.lipschitz(sigma) * (1 + 1e-10)


def test_the_common_std_bound_is_tight_for_two_points():
    den = exact.mixture([[-1.0], [1.0]], 0.0)
    assert den.facts.lipschitz(0.5) == pytest.approx(dense(den, np.zeros(1), 0.5)[0, 0], rel=1e-12)


@pytest.mark.parametrize("kind", ["isotropic", "common std", "empirical"])
def test_bounded_means_a_multiple_of_y_plus_a_bounded_part(kind):
    """T1's hypothesis: far away the Jacobian's c does not change and D(y) - c·y does not grow."""
    den = zoo(3)[kind].astype(jnp.float64)
    assert den.facts.bounded
    direction = np.random.default_rng(0).normal(size=den.shape)
    sigma = 0.7
    far = [direction * r for r in (1e2, 1e3, 1e4)]
    c = dense(den, far[-1], sigma)[0, 0]
    rest = [np.linalg.norm(np.asarray(den(y, sigma)) - c * y) for y in far]
    assert rest[2] <= rest[0] + 10


def test_gaussian_against_the_textbook():
    rng = np.random.default_rng(5)
    factor = rng.normal(size=(4, 4))
    mean, covariance, sigma = rng.normal(size=4), factor @ factor.T, 0.8
    y = rng.normal(size=4)
    wanted = mean + covariance @ np.linalg.solve(covariance + sigma**2 * np.eye(4), y - mean)
    assert np.allclose(exact.gaussian(mean, covariance)(y, sigma), wanted, rtol=1e-10, atol=1e-12)


def test_empirical_against_a_softmax():
    rng = np.random.default_rng(6)
    data, y, sigma = rng.normal(size=(9, 3)), rng.normal(size=3), 0.6
    w = np.exp(-((y - data) ** 2).sum(axis=1) / (2 * sigma**2))
    assert np.allclose(exact.empirical(data)(y, sigma), w @ data / w.sum(), rtol=1e-12)


def test_tweedie_on_a_mixture():
    """D(y) = y + sigma²·grad log p(y), with the density written out."""
    rng = np.random.default_rng(7)
    means, stds, weights = rng.normal(size=(4, 3)), rng.uniform(0.2, 1, 4), rng.uniform(0.1, 1, 4)
    sigma, y = 0.5, rng.normal(size=3)

    def log_density(v):
        variance = jnp.asarray(stds**2 + sigma**2)
        square = jnp.sum((v[None, :] - means) ** 2, axis=1)
        return jax.nn.logsumexp(jnp.log(jnp.asarray(weights)) - square / (2 * variance) - 1.5 * jnp.log(variance))

    wanted = y + sigma**2 * jax.grad(log_density)(jnp.asarray(y))
    assert np.allclose(exact.mixture(means, stds, weights)(y, sigma), wanted, rtol=1e-11)


@pytest.mark.parametrize("sigma", [0.3, 4.0])
def test_tweedie_on_a_mixture_with_directions(sigma):
    """The same of Gaussians with low-rank covariances, each written out as a full matrix."""
    rng, shape = np.random.default_rng(8), (3, 5, 2)
    params = {
        "means": rng.normal(size=shape[:2]),
        "factors": np.linalg.qr(rng.normal(size=shape))[0],
        "variances": rng.uniform(0.5, 2, (3, 2)),
        "floor": rng.uniform(0.1, 0.5, 3),
        "logits": rng.normal(size=(1, 3)),
    }
    y = rng.normal(size=5)

    def log_density(v):
        of = []
        for k in range(3):
            u, floor = params["factors"][k], params["floor"][k]
            covariance = u * params["variances"][k] @ u.T + (floor + sigma**2) * np.eye(5)
            r = v - params["means"][k]
            of.append(params["logits"][0, k] - (r @ np.linalg.solve(covariance, np.eye(5)) @ r) / 2)
            of[-1] -= np.linalg.slogdet(covariance)[1] / 2
        return jax.nn.logsumexp(jnp.stack(of))

    wanted = y + sigma**2 * jax.grad(log_density)(jnp.asarray(y))
    assert np.allclose(mixture.denoise(params, jnp.asarray(y), sigma, jnp.int32(0)), wanted, rtol=1e-11)


@pytest.mark.parametrize(
    "call",
    [
        lambda: exact.gaussian(np.zeros(2), np.eye(3)),
        lambda: exact.gaussian(np.zeros(2), -np.eye(2)),
        lambda: exact.gaussian(np.zeros(2), np.array([[1.0, 0.5], [0.2, 1.0]])),
        lambda: exact.gaussian(np.array([0.0, np.nan]), np.eye(2)),
        lambda: exact.mixture(np.zeros((2, 3)), -1.0),
        lambda: exact.mixture(np.zeros((2, 3)), np.ones(3)),
        lambda: exact.mixture(np.zeros((2, 3)), 1.0, [1.0, 0.0]),
    ],
)
def test_bad_priors_are_refused(call):
    with pytest.raises(FpjaxError):
        call()


# --- embedded models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits-monotone", "digits-plain"])
def test_embedded_models_load_and_their_cards_tell_the_loss(name):
    den = fpjax.load(name)
    assert den.shape == (8, 8)
    assert len(den.conditions) == 10
    card = store.read_card(store.card_path(name))
    split = fpjax.data.load("digits")
    model = lambda y, s, c: den.fn(den.params, y, s, c)  # noqa: E731
    t = np.arange(len(split.held_out)) % 1000
    levels = training.noise_levels()[np.random.default_rng(0).permutation(1000)[t]]
    noise = np.random.default_rng(1).normal(size=split.held_out.shape).astype(np.float32)
    loss = float(training.loss(model, split.held_out, split.held_out_labels, jnp.asarray(levels), jnp.asarray(noise)))
    assert loss == pytest.approx(card["training"]["held_out_loss"], rel=0.25)  # one draw of the noise, not forty


def test_the_pair_of_models_is_comparable():
    sizes = [store.parameters(fpjax.load(n)) for n in ("digits-monotone", "digits-plain")]
    assert abs(sizes[0] / sizes[1] - 1) < 0.05


def test_only_the_monotone_model_is_monotone():
    x, c = fpjax.samples("digits", 8)
    lowest = {}
    for name in ("digits-monotone", "digits-plain"):
        den = fpjax.load(name).astype(jnp.float64)
        f = lambda y, c, den=den: den.fn(den.params, y, jnp.asarray(0.3), c)  # noqa: E731
        j = jax.vmap(jax.jacfwd(f))(jnp.asarray(x, jnp.float64), jnp.asarray(c)).reshape(8, 64, 64)
        lowest[name] = float(np.linalg.eigvalsh(np.asarray(j + np.swapaxes(j, 1, 2)) / 2).min())
    assert lowest["digits-monotone"] >= -1e-10
    assert lowest["digits-plain"] < 0


def test_learned_prior_jacobian_is_its_closed_form():
    den = fpjax.load("digits-monotone").astype(jnp.float64)
    y = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)))
    f = lambda v: den.fn(den.params, v, jnp.asarray(0.4), jnp.int32(2))  # noqa: E731
    auto = np.asarray(jax.jacfwd(f)(y)).reshape(64, 64)
    closed = np.asarray(den.jacobian(den.params, y, jnp.asarray(0.4), jnp.int32(2)))
    assert np.abs(auto - closed).max() <= 1e-10 * np.abs(auto).max()


@pytest.mark.long
@pytest.mark.parametrize("name", ["digits-monotone", "digits-plain"])
def test_a_short_training_run_is_reproducible_and_survives_the_disk(name, tmp_path):
    recipe = dataclasses.replace(recipes.recipe(name), updates=40, batch=32)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        runs = [training.train(recipe) for _ in range(2)]
        tensors = [store.tensors_of(run.model) for run in runs]
        path = store.save(tmp_path, recipes.card(name, recipe, runs[0]), tensors[0])
    assert all(np.array_equal(tensors[0][k], tensors[1][k]) for k in tensors[0])
    assert runs[0].curve[-1][0] == 40
    den = store.load(path)
    again = jax.tree.leaves(store.load(tmp_path).params)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(den.params), again, strict=True))
    y = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
    wanted = runs[0].model(jnp.asarray(y), jnp.float32(0.5), jnp.int32(3)) if name == "digits-plain" else None
    if wanted is not None:
        assert np.allclose(den(y, 0.5, 3), wanted, rtol=1e-5, atol=1e-6)


@pytest.fixture
def folder(tmp_path):
    for suffix in (".json", ".safetensors"):
        shutil.copy(store.WEIGHTS / f"digits-plain{suffix}", tmp_path)
    return tmp_path


def edit_card(folder, **changes):
    path = folder / "digits-plain.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_options(folder, **changes):
    kept = json.loads((folder / "digits-plain.json").read_text())["architecture"]
    edit_card(folder, architecture=kept | {"options": kept["options"] | changes})


def rewrite(folder, change):
    """Changes the tensors and gives the card their new hash, so that only the change itself can be found fault with."""
    import hashlib

    file = folder / "digits-plain.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    edit_card(folder, sha256=hashlib.sha256(file.read_bytes()).hexdigest())


def truncate(folder):
    file = folder / "digits-plain.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def flip_a_byte(folder):
    file = folder / "digits-plain.safetensors"
    blob = bytearray(file.read_bytes())
    blob[-3] ^= 1
    file.write_bytes(bytes(blob))


DAMAGE = {
    "truncated": truncate,
    "empty": lambda f: (f / "digits-plain.safetensors").write_bytes(b""),
    "altered": flip_a_byte,
    "missing": lambda f: (f / "digits-plain.safetensors").unlink(),
    "nan": lambda f: rewrite(f, lambda t: t["leave.bias"].__setitem__(0, np.nan)),
    "wrong shape": lambda f: rewrite(f, lambda t: t.__setitem__("leave.bias", np.zeros(3, np.float32))),
    "missing tensor": lambda f: rewrite(f, lambda t: t.pop("leave.bias")),
    "extra tensor": lambda f: rewrite(f, lambda t: t.__setitem__("extra", np.zeros(3, np.float32))),
    "card not json": lambda f: (f / "digits-plain.json").write_text("{"),
    "card a list": lambda f: (f / "digits-plain.json").write_text("[]"),
    "deep card": lambda f: (f / "digits-plain.json").write_text("[" * 100_000),
    "other format": lambda f: edit_card(f, format="fpjax-model/9"),
    "other architecture": lambda f: edit_card(f, architecture={"kind": "gan", "options": {}}),
    "no architecture": lambda f: edit_card(f, architecture={}),
    "other weights": lambda f: edit_card(f, weights="../digits-monotone.safetensors"),
    "odd facts": lambda f: edit_card(f, facts={"wonderful": True}),
    # found by benchmarks/fuzz.py
    "no values": lambda f: edit_card(f, shape=[0, 8]),
    "a list as a size": lambda f: edit_card(f, shape=[[], 8]),
    "infinite size": lambda f: edit_card(f, shape=[float("inf"), 8]),
    "a size with a point": lambda f: edit_card(f, shape=[8.0, 8]),
    "too many values": lambda f: edit_card(f, shape=[65536] * 4),
    "no width": lambda f: edit_options(f, width=0),
    "endless depth": lambda f: edit_options(f, depth=2**32),
    "no spread": lambda f: edit_options(f, data_std=0.0),
}


@pytest.mark.parametrize("damage", sorted(DAMAGE))
def test_a_damaged_model_is_refused_in_one_sentence(folder, damage):
    store.load(folder)
    DAMAGE[damage](folder)
    with pytest.raises(FpjaxError) as error:
        store.load(folder / "digits-plain.json")
    assert "\n" not in str(error.value)


def prior(shape=(2, 3), kind="latent-tree", classes=2):
    """A small learned prior as a card and its tensors."""
    from proofs_checks import certificates

    rng = np.random.default_rng(0)
    tensors = certificates.tree_tensors(rng, shape, classes=classes)
    if kind == "prior-sum":
        tensors = {f"part.0.{k}": v for k, v in tensors.items()}
        mixture = certificates.mixture_tensors(rng, 6, 3, 2, classes)
        tensors |= {f"part.1.{k}": v for k, v in mixture.items()}
        tensors |= {
            "ones": np.ones((4, 1)),
            "minus_knots": np.arange(4.0),
            "weight": np.zeros((2, 4)),
            "bias": np.zeros(2),
        }
        tensors |= {"pick.0": np.array([[1.0, 0.0]]), "pick.1": np.array([[0.0, 1.0]])}
    card = {"name": "p", "shape": list(shape), "conditions": ["a", "b"][:classes], "facts": {"monotone": True}}
    return card | {"architecture": {"kind": kind, "options": {}}}, {
        k: np.asarray(v, np.float32) for k, v in tensors.items()
    }


BROKEN = {
    "a negative variance": lambda t: t["variances"].__setitem__(0, -1),
    "a negative weight": lambda t: t["leaf"].flat.__setitem__(0, -1),
    "no weight at all": lambda t: t["level.0"].flat.__setitem__(0, 0),
    "a missing level": lambda t: t.pop("level.1"),
    "an unknown tensor": lambda t: t.update(extra=t["means"]),
    "a level of another image": lambda t: t.update({"level.0": t["level.0"][:1, :1]}),
    "no means": lambda t: t.pop("means"),
    "flat weights": lambda t: t.update(leaf=t["leaf"].ravel()),
    "a scalar": lambda t: t.update(root=np.zeros((), np.float32)),
}


@pytest.mark.parametrize("kind", ["latent-tree", "prior-sum"])
@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_broken_prior_is_refused_in_one_sentence(broken, kind, tmp_path):
    card, tensors = prior(kind=kind)
    assert store.load(store.save(tmp_path, card, tensors)).facts.monotone
    names = {
        k.removeprefix("part.0."): v for k, v in tensors.items() if k.startswith("part.0.") or kind == "latent-tree"
    }
    others = {k: v for k, v in tensors.items() if kind == "prior-sum" and not k.startswith("part.0.")}
    BROKEN[broken](names)
    prefix = "part.0." if kind == "prior-sum" else ""
    store.save(tmp_path, card, {prefix + k: v for k, v in names.items()} | others)
    with pytest.raises(FpjaxError) as error:
        store.load(tmp_path)
    assert "\n" not in str(error.value)


def test_windows_far_larger_than_their_images_are_refused(tmp_path):
    """A small file may name windows of any power of two, which no memory holds."""
    from proofs_checks import certificates

    card = prior()[0]
    for window, fits in ((4, True), (8, False), (1 << 20, False)):
        tensors = certificates.tree_tensors(np.random.default_rng(0), (2, 3), classes=2, window=window)
        store.save(tmp_path, card, tensors)
        if fits:
            assert store.load(tmp_path)(np.zeros((2, 3), np.float32), 1.0, 0).shape == (2, 3)
        else:
            with pytest.raises(FpjaxError, match="do not fit images"):
                store.load(tmp_path)


def test_windows_in_blocks_that_do_not_fit_are_refused(tmp_path):
    """The windows of an image are cut into equal blocks, and the last merge's tensor must be there."""
    from proofs_checks import certificates

    card = prior()[0]
    for blocks in ((5, 2), (2, 6), (4, 3)):
        tensors = certificates.tree_tensors(np.random.default_rng(0), (2, 3), classes=2, window=4, blocks=blocks)
        store.save(tmp_path, card, tensors)
        if blocks == (5, 2):
            assert store.load(tmp_path)(np.zeros((2, 3), np.float32), 1.0, 0).shape == (2, 3)
            continue
        with pytest.raises(FpjaxError, match="cannot be cut into"):
            store.load(tmp_path)


@pytest.mark.parametrize("extreme", [1e-20, 1e20])
def test_weights_whose_products_are_no_float32_are_refused(extreme, tmp_path):
    card, tensors = prior()
    leaf = tensors["leaf"].copy()
    leaf.flat[0] = extreme
    store.save(tmp_path, card, tensors | {"leaf": leaf})
    with pytest.raises(FpjaxError, match="beyond 1e-12 to 1e\\+12"):
        store.load(tmp_path)


@pytest.mark.parametrize("shape", [(6,), (3, 2, 2), (1, 6, 6), (2, 1), (5, 2, 3, 3)], ids=str)
@pytest.mark.parametrize("values", [4, 9, 36])
def test_patches_that_do_not_fit_their_images_are_refused(shape, values, tmp_path):
    """A patch has 1 or an even number of pixels on each side, in every channel, and at most two images' sides."""
    from proofs_checks import certificates

    card = prior()[0] | {"shape": list(shape), "architecture": {"kind": "patch-mixture", "options": {}}}
    tensors = certificates.mixture_tensors(np.random.default_rng(0), values, 3, 2, 2)
    tensors["patch_means"] = tensors.pop("means")
    store.save(tmp_path, card, tensors)
    if (shape, values) in (((1, 6, 6), 4), ((1, 6, 6), 36), ((2, 1), 4)):
        assert store.load(tmp_path)(np.zeros(shape, np.float32), 1.0, 0).shape == shape
    else:
        with pytest.raises(FpjaxError, match="do not fit images"):
            store.load(tmp_path)


def test_a_prior_or_a_unet_of_another_shape_is_refused(tmp_path):
    card, tensors = prior()
    for change in (
        {"shape": [6]},
        {"shape": [3, 2]},
        {"conditions": ["a"]},
        {"architecture": {"kind": "prior-sum", "options": {}}},
        {"architecture": {"kind": "learned-mixture", "options": {}}},
        {"shape": [6], "architecture": {"kind": "unet", "options": {}}},
        {"architecture": {"kind": "unet", "options": {"widths": [0]}}},
        {"architecture": {"kind": "unet", "options": {"widths": "wide"}}},
        {"architecture": {"kind": "unet", "options": {"widths": [8]}}},
    ):
        store.save(tmp_path, card | change, tensors)
        with pytest.raises(FpjaxError) as error:
            store.load(tmp_path)
        assert "\n" not in str(error.value)


def test_unknown_models_are_refused(tmp_path):
    for source in ("digits-wonderful", tmp_path, tmp_path / "x.safetensors"):
        with pytest.raises(FpjaxError):
            fpjax.load(source)


def test_samples_are_held_out_and_in_range():
    x, c = fpjax.samples("digits", 64, seed=1)
    split = fpjax.data.load("digits")
    assert x.shape == (64, 8, 8)
    assert x.dtype == np.float32
    assert c.shape == (64,)
    assert np.abs(x).max() <= 1
    train = {image.tobytes() for image in split.train}
    assert sum(image.tobytes() in train for image in x) == 0
    assert np.array_equal(x, fpjax.samples("digits", 64, seed=1)[0])
    for call in (
        lambda: fpjax.samples("cats"),
        lambda: fpjax.samples("digits", 0),
        lambda: fpjax.samples("digits", 9999),
    ):
        with pytest.raises(FpjaxError):
            call()


@pytest.mark.parametrize("sigma", [0.002, 0.17, 3.0, 80.0])
def test_a_mixtures_products_are_those_of_its_jacobian(sigma):
    """jvp and vjp by the covariance (E3) against the closed form, far from the data too, and second derivatives exist."""
    rng = np.random.default_rng(0)
    den = fpjax.models.exact.mixture(rng.normal(size=(5, 4)), np.full(5, 0.3), np.arange(1, 6) / 15)
    for far in (1.0, 30.0):
        y, v = jnp.asarray(far * rng.normal(size=4)), jnp.asarray(rng.normal(size=4))
        s, c = jnp.asarray(sigma), jnp.int32(0)

        def at(y, s=s, c=c):
            return den.fn(den.params, y, s, c)

        dense = den.jacobian(den.params, y, s, c)
        scale = max(1.0, float(jnp.linalg.norm(dense, 2)))
        np.testing.assert_allclose(jax.jvp(at, (y,), (v,))[1], dense @ v, atol=1e-14 * scale, rtol=1e-13)
        np.testing.assert_allclose(jax.vjp(at, y)[1](v)[0], dense @ v, atol=1e-14 * scale, rtol=1e-13)
        np.testing.assert_allclose(dense, dense.T, atol=1e-15 * scale)
        assert np.isfinite(jax.hessian(lambda y: jnp.sum(at(y)))(y)).all()


def test_a_mixture_is_differentiated_by_its_parameters_and_sigma_too():
    rng = np.random.default_rng(1)
    den = fpjax.models.exact.mixture(rng.normal(size=(3, 2)), np.full(3, 0.5))
    y, s, c = jnp.asarray(rng.normal(size=2)), jnp.asarray(0.7), jnp.int32(0)
    direction = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), den.params)

    def along(t):
        moved = jax.tree.map(lambda a, b: a + t * b, den.params, direction)
        return den.fn(moved, y + t, s + 2 * t, c)

    h = 1e-5
    slope = (along(h) - along(-h)) / (2 * h)
    np.testing.assert_allclose(jax.jvp(along, (0.0,), (1.0,))[1], slope, rtol=1e-7)
