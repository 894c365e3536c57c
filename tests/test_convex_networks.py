"""Gradients of convex potentials, and the capped network: monotone, proved, of any size, stored and refused."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flint import arb, ctx

import fpjax
from fpjax.certify import CertificateError, propose
from fpjax.certify import check as kernel
from fpjax.denoiser import Denoiser
from fpjax.evidence import FpjaxError
from fpjax.models import capped, potentials, priors, recipes, store, training

TINY = {"embedding": 5, "frequencies": 4, "data_std": 0.75}
KINDS = {
    "wide": ({"widths": (7,), "components": 6}, (4, 4)),
    "input-convex": ({"widths": (6, 5, 4), "components": 3}, (4, 4)),
    "convolutional": ({"widths": (5, 4), "side": 4}, (4, 6)),
    "multi-scale": ({"widths": (4, 3), "components": 2, "side": 2, "scales": (1, 2)}, (2, 4, 6)),
}


def network(kind, seed=0):
    """A network with every parameter moved away from its start, weights of either sign where they may be."""
    options, shape = KINDS[kind]
    net = potentials.GradientNetwork(shape, 2, rngs=nnx.Rngs(seed), **options, **TINY)
    graph, state = nnx.split(net)
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda a: a + 0.3 * jnp.asarray(rng.normal(size=a.shape), a.dtype), state)
    return nnx.merge(graph, moved)


@functools.cache
def built(kind):
    """The card and the tensors of a network, both to be copied before they are changed."""
    net, options = network(kind), KINDS[kind][0] | TINY
    card = {
        "name": "small",
        "shape": list(KINDS[kind][1]),
        "conditions": ["a", "b"],
        "facts": {"symmetric": True, "monotone": True, "bounded": True},
        "architecture": {
            "kind": kind,
            "options": {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()},
        },
        "layers": net.layers(),
    }
    return card, store.tensors_of(net)


def saved(kind, folder, change=None):
    card, tensors = built(kind)
    tensors = {name: np.array(value, np.float32) for name, value in tensors.items()}
    if change is not None:
        change(tensors)
    return store.save(folder, card, tensors)


@jax.jit
def _jacobian(den, y, sigma, condition):
    return jax.jacfwd(lambda v: den.fn(den.params, v.reshape(den.shape), sigma, condition).ravel())(y.ravel())


def jacobian(den, y, sigma, condition=0):
    return np.asarray(_jacobian(den, jnp.asarray(y, jnp.float64), jnp.asarray(sigma), jnp.int32(condition)))


def kept(den, sigma, condition):
    net = nnx.merge(den.fn.graph, den.params)
    sigma = jnp.asarray(sigma)
    return float(net.kept(sigma, net.level(sigma, jnp.int32(condition))))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    paths = {kind: saved(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}
    return {kind: (path, store.load(path)) for kind, path in paths.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_the_jacobian_is_symmetric_and_positive(kind, loaded):
    """At random points, near and far, at every noise level; without k·I too, which alone would make it positive."""
    den = loaded[kind][1].astype(jnp.float64)
    rng, some = np.random.default_rng(1), 0.0
    for sigma in (0.05, 0.7, 8.0):
        for far in (0.3, 3.0):
            y = rng.normal(size=den.shape) * (far + sigma)
            c = int(rng.integers(3))
            j, k = jacobian(den, y, sigma, c), kept(den, sigma, c)
            size = np.abs(j).max()
            assert np.abs(j - j.T).max() <= 1e-12 * size
            values = np.linalg.eigvalsh((j + j.T) / 2)
            assert values[0] >= k - 1e-12 * size
            some = max(some, values[-1] / values[0])
    assert some > 1.5  # it is no multiple of y


def test_a_share_turned_round_is_found_out(loaded):
    """The same potential with a negative share has a negative eigenvalue: the test above can fail."""
    den = loaded["input-convex"][1].astype(jnp.float64)
    x = jnp.asarray(np.random.default_rng(0).normal(size=den.size))

    @jax.jit
    def hessian(params, sign):
        net = nnx.merge(den.fn.graph, params)
        found = [
            (*rest, sign * share)
            for *rest, share in net.parts[0].conditioned(net.level(jnp.asarray(0.7), jnp.int32(0)))
        ]
        return jax.hessian(lambda v: net.parts[0](v, found))(x)

    assert np.linalg.eigvalsh(hessian(den.params, 1.0)).min() > -1e-12
    assert np.linalg.eigvalsh(hessian(den.params, -1.0)).min() < -1e-2


@pytest.mark.parametrize("kind", KINDS)
def test_it_depends_on_sigma_and_the_condition(kind, loaded):
    den = loaded[kind][1]
    y = jnp.asarray(np.random.default_rng(0).normal(size=den.shape), jnp.float32)
    found = [den(y, s, c) for s, c in ((0.5, 0), (0.5, 1), (0.5, None), (1.0, 0))]
    assert min(float(jnp.abs(found[0] - other).max()) for other in found[1:]) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_far_away_it_is_a_multiple_of_y_and_a_bounded_part(kind, loaded):
    """T1's hypothesis, which the card declares."""
    den = loaded[kind][1].astype(jnp.float64)
    assert den.facts.bounded
    direction = np.random.default_rng(3).normal(size=den.shape)
    k = float(den(1e9 * direction, 0.7, 0).ravel() @ direction.ravel() / (1e9 * (direction**2).sum()))
    assert 0 < k < 1
    rest = [np.linalg.norm(den(r * direction, 0.7, 0) - k * r * direction) for r in (1e3, 1e5)]
    assert rest[1] < rest[0] + 1
    assert rest[0] > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_computes_the_same_and_accepts(kind, loaded):
    path, den = loaded[kind]
    den = den.astype(jnp.float64)
    model = kernel.Model(path)
    y = np.random.default_rng(2).normal(size=den.shape)
    with ctx.workprec(128):
        ball = kernel.Step(model, 1, 1.0, 0.1, 0.9).denoise([arb(float(v)) for v in y.ravel()], None).c
    ours = np.asarray(den(y, 0.9, 1)).ravel()
    assert np.abs([float(b.mid()) for b in ball] - ours).max() <= 1e-12 * np.abs(ours).max()
    card, model = propose.load_model(path)
    proved = propose.structure(card, model, [0.1, 1.0, 10.0], [0, 2]).verify()
    assert proved.questions == {"existence": "CERTIFIED", "uniqueness": "CERTIFIED"}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("wide", "parts.0.hidden.0.last"),
        ("input-convex", "parts.0.hidden.0.last"),
        ("input-convex", "parts.0.hidden.1.mix"),
        ("input-convex", "parts.0.hidden.2.mix"),
        ("convolutional", "parts.0.hidden.1.mix"),
        ("multi-scale", "parts.1.hidden.1.last"),
        ("multi-scale", "parts.0.hidden.1.mix"),
    ],
)
def test_one_sign_turned_in_the_file_is_refused_by_the_kernel_and_the_loader(kind, name, tmp_path):
    path = saved(kind, tmp_path, lambda t: t[name].flat.__setitem__(-1, -abs(t[name].flat[-1])))
    with pytest.raises(FpjaxError, match="negative weight"):
        store.load(path)
    model = kernel.Model(path)
    assert not kernel.Step(model, 0, 1.0, 0.1, 0.5).monotone()


@pytest.mark.parametrize("kind", KINDS)
def test_what_must_not_be_negative_is_named(kind):
    """Every tensor that no exponential makes positive and that stands after a function that is not affine."""
    named = {n for n in built(kind)[1] if potentials.nonnegative(n)}
    assert named == {n for n in built(kind)[1] if n.endswith(("last", "mix"))} != set()
    assert all((built(kind)[1][n] >= 0).all() for n in named)


def test_a_program_with_a_gain_of_either_sign_is_refused_by_the_kernel(tmp_path):
    """A gain that is an affine function, not the exponential of one, proves nothing; nor one turned round."""
    path = saved("input-convex", tmp_path)
    text = json.loads(path.read_text())
    for layer in text["layers"]:
        if layer["out"] == "g0_0":
            layer["fn"] = "identity"
    path.write_text(json.dumps(text))
    model = kernel.Model(path)
    assert not all(kernel.Step(model, c, 1.0, 0.1, s).monotone() for c in (0, 1, 2) for s in (0.5, 5.0))


@pytest.mark.parametrize("kind", ["convolutional", "multi-scale"])
def test_it_runs_at_any_size_and_knows_no_place(kind, loaded):
    """An image on an even ground, moved by as much as the coarsest scale, gives the same moved; a size of no factor runs."""
    den = loaded[kind][1].astype(jnp.float64)
    channels, step = den.shape[:-2], 2 if kind == "multi-scale" else 1
    rng, large = np.random.default_rng(0), priors.at_size(den, 24, 24)
    images = [np.full((*channels, 24, 24), -1.0) for _ in range(2)]
    small = rng.normal(size=(*channels, 6, 6))
    images[0][..., 8:14, 8:14] = small
    images[1][..., 8 + step : 14 + step, 8:14] = small
    first, second = (np.asarray(large(image, 0.5, 1)) for image in images)
    inside = first[..., 3:20, 3:21]
    np.testing.assert_allclose(second[..., 3 + step : 20 + step, 3:21], inside, atol=1e-12)
    assert np.ptp(inside) > 0.1
    assert np.abs(second - first).max() > 0.1
    odd = priors.at_size(den, 5, 11)
    y = rng.normal(size=odd.shape)
    assert np.linalg.eigvalsh(jacobian(odd, y, 0.5)).min() > 0
    with pytest.raises(FpjaxError, match="at least"):
        priors.at_size(den, den.fn.least - 1, 30)


def test_a_network_of_whole_images_is_refused_at_another_size(loaded):
    with pytest.raises(FpjaxError, match="knows the size"):
        priors.at_size(loaded["wide"][1], 5, 5)


@pytest.mark.parametrize("kind", [k if k == "input-convex" else pytest.param(k, marks=pytest.mark.long) for k in KINDS])
def test_it_inverts_in_two_steps(kind, loaded):
    den = loaded[kind][1].astype(jnp.float64)
    x = np.random.default_rng(0).uniform(-1, 1, size=(3, *den.shape))
    process = fpjax.process.ddim(2)
    found = fpjax.invert(den, x, process, condition=[0, 1, 0], tol=1e-12)
    again = fpjax.generate(den, found.latent, process, condition=[0, 1, 0])
    assert np.abs(again - x).max() < 1e-9


BROKEN = {
    "nan": lambda t: t["skip.bias"].__setitem__(0, np.nan),
    "another shape": lambda t: t.update({"slope": np.ones(3, np.float32)}),
    "a tensor missing": lambda t: t.pop("parts.0.hidden.0.last"),
    "a tensor too many": lambda t: t.update({"extra": np.ones(3, np.float32)}),
    "no means": lambda t: t.pop("reduce.1"),
    "other means": lambda t: t["reduce.1"].__setitem__((0, 0), 0.5),
    "means of another shape": lambda t: t.update({"reduce.1": np.ones((2, 2), np.float32)}),
}


@pytest.mark.parametrize("broken", sorted(BROKEN))
def test_a_damaged_network_is_refused_in_one_sentence(broken, tmp_path):
    path = saved("multi-scale", tmp_path, BROKEN[broken])
    with pytest.raises(FpjaxError) as error:
        store.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("wide", {"widths": [7, 7]}),
        ("wide", {"side": 4}),
        ("input-convex", {"widths": [6]}),
        ("input-convex", {"widths": [0, 5]}),
        ("convolutional", {"side": 3}),
        ("convolutional", {"side": 0}),
        ("convolutional", {"side": 64}),
        ("convolutional", {"scales": [1, 2]}),
        ("multi-scale", {"scales": [1, 3]}),
        ("multi-scale", {"scales": [1, 16]}),
        ("multi-scale", {"data_std": 0}),
    ],
    ids=str,
)
def test_a_card_with_other_options_is_refused(kind, change, tmp_path):
    path = saved(kind, tmp_path)
    card = json.loads(path.read_text())
    card["architecture"]["options"] |= change
    path.write_text(json.dumps(card))
    with pytest.raises(FpjaxError) as error:
        store.load(path)
    assert "\n" not in str(error.value)


def test_points_without_sides_have_no_patches(tmp_path):
    path = saved("convolutional", tmp_path)
    card = json.loads(path.read_text()) | {"shape": [24]}
    path.write_text(json.dumps(card))
    with pytest.raises(FpjaxError, match="do not fit points"):
        store.load(path)


# ---- the capped network ----


def capped_model(cap=1.5):
    sizes = {"width": 9, "depth": 2, "embedding": 5, "frequencies": 4, "data_std": 0.6}
    net = capped.CappedNetwork(16, 2, cap=cap, rngs=nnx.Rngs(0), **sizes)
    for linear in net.linear:
        linear.weight[...] = 4 * linear.weight[...]
    return capped.Normalised(net)


def capped_card(model):
    options = {"cap": model.net.cap, "width": 9, "depth": 2, "embedding": 5, "frequencies": 4, "data_std": 0.6}
    return {
        "name": "capped",
        "shape": [4, 4],
        "conditions": ["a", "b"],
        "facts": {"bounded": True},
        "architecture": {"kind": "capped-network", "options": options},
        "layers": model.layers(),
    }


@pytest.mark.parametrize("cap", [1.1, 1.5, 4.0])
def test_the_cap_holds(cap, tmp_path):
    """At every point tried ||J|| is below the bound at its noise level, that below the cap; and the bound is not idle."""
    model = capped_model(cap)
    den = store.load(store.save(tmp_path, capped_card(model), store.tensors_of(model))).astype(jnp.float64)
    bound, rng, most = den.facts.lipschitz, np.random.default_rng(0), 0.0
    assert bound.product == pytest.approx(capped.allowed(cap), rel=0.02)
    for sigma in (1e-3, 0.1, 0.3, 0.6, 1.5, 20.0):
        assert bound(sigma) <= cap
        for _ in range(3):
            j = jacobian(den, rng.normal(size=(4, 4)) * (0.1 + sigma), sigma, 1)
            norms = np.linalg.norm(j, 2), np.linalg.norm(np.eye(16) - j, 2)
            assert norms[0] <= bound(sigma)
            assert norms[1] <= bound.contraction(sigma) <= cap
            most = max(most, norms[0] / bound(sigma))
    assert most > 0.5
    assert np.max([bound(s) for s in np.geomspace(0.01, 10, 500)]) == pytest.approx(cap, rel=0.02)
    assert not den.facts.monotone


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (1, 4)])
def test_the_bound_of_a_norm_is_one(shape):
    w = jnp.asarray(np.random.default_rng(0).normal(size=shape))
    norm, bound = float(jnp.linalg.norm(w, 2)), float(capped.norm_bound(w))
    assert norm * (1 - 1e-12) <= bound <= 1.02 * norm
    assert float(capped.norm_bound(1e6 * jnp.eye(5))) == pytest.approx(1e6, rel=0.02)


def test_short_steps_contract_and_the_kernel_proves_it(tmp_path):
    """T3: (1 - rho)·L < 1 is a contraction everywhere; a long step of the same network is not proved to be one."""
    model = capped_model(2.0)
    path = store.save(tmp_path, capped_card(model), store.tensors_of(model))
    card, read = propose.load_model(path)
    short = propose.lipschitz(propose.Problem(card, read, 0, 1.0, 0.5, 0.6)).verify()
    assert short.questions["contraction"] == "CERTIFIED"
    long = propose.lipschitz(propose.Problem(card, read, 0, 1.0, 0.01, 0.6)).verify()
    assert "contraction" not in long.questions
    with pytest.raises(CertificateError):
        propose.structure(card, read, [0.1, 1.0], [0]).verify()


def test_layers_above_the_cap_are_refused(tmp_path):
    model = capped_model()
    tensors = store.tensors_of(model)
    store.load(store.save(tmp_path, capped_card(model), tensors))
    tensors["linear.1.weight"] = tensors["linear.1.weight"] * np.float32(1.01)
    path = store.save(tmp_path, capped_card(model), tensors)
    with pytest.raises(FpjaxError, match="allows"):
        store.load(path)
    card = capped_card(model)
    card["architecture"]["options"]["cap"] = 1.0
    with pytest.raises(FpjaxError, match="cap"):
        store.load(store.save(tmp_path, card, tensors))


# ---- recipes ----


NAMES = {
    "digits-wide": {"widths": (6,), "components": 5},
    "digits-convex": {"widths": (6, 5)},
    "digits-convolutional": {"widths": (4,), "side": 4},
    "digits-multi-scale": {"widths": (4,), "side": 4, "scales": (1, 2)},
    "digits-capped": {"width": 8, "depth": 1},
}


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_its_recipe_trains_stores_and_loads(name, tmp_path):
    recipe = recipes.recipe(name)
    options = tuple((dict(recipe.options) | NAMES[name]).items())
    recipe = dataclasses.replace(recipe, options=options, updates=30, batch=16)
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        run = training.train(recipe)
        path = store.save(tmp_path, recipes.card(name, recipe, run), store.tensors_of(run.model))
        den = store.load(path)
        y = np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
        again = run.model(jnp.asarray(y), jnp.float32(0.5), jnp.int32(3))
    assert isinstance(den, Denoiser)
    assert np.allclose(den(y, 0.5, 3), again, rtol=1e-5, atol=1e-5)
    assert run.held_out_loss < 0.9
    monotone = name != "digits-capped"
    assert den.facts.monotone is monotone
    assert kernel.Step(kernel.Model(path), 3, 1.0, 0.1, 0.5).monotone() is monotone
