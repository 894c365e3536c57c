"""Latent trees: the kernel's and JAX's posterior mean against Bayes with every hidden state summed, in 200 digits."""

import functools

import certify_zoo as zoo
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from flint import arb, ctx

import fpjax
import fpjax.certify.check as kernel
from fpjax.models import priors, tree

IMAGES = ((1, 2), (2, 1), (2, 2), (2, 3), (3, 5))
ONE = (1, 1)
WINDOWS = [(*image, False, 2, ONE) for image in IMAGES]
WINDOWS += [(1, 1, False, 2, ONE), (1, 2, False, 4, ONE), (3, 2, False, 4, ONE)]
WINDOWS += [(2, 3, False, 2, (3, 2)), (3, 2, False, 4, (2, 5)), (3, 2, False, 4, (6, 1)), (1, 2, False, 2, (2, 3))]


def problem(image, alike, window=0, seed=0, blocks=(1, 1)):
    rng = np.random.default_rng(seed)
    tensors = zoo.tree_tensors(rng, image, classes=2, alike=alike, window=window, blocks=blocks)
    return zoo.tree_layers(image, window), tensors, rng.standard_normal(image[0] * image[1]).round(3)


@pytest.mark.parametrize(
    ("rows", "columns", "alike", "window", "blocks"),
    [(*image, alike, 0, ONE) for image in IMAGES for alike in (False, True)] + WINDOWS,
)
def test_three_ways_agree(rows, columns, alike, window, blocks, tmp_path):
    image = (rows, columns)
    layers, tensors, y = problem(image, alike, window, blocks=blocks)
    model = kernel.Model(zoo.write(tmp_path, "m", layers, tensors, image, 2))
    params = priors.of_tensors("latent-tree", {k: np.asarray(v) for k, v in tensors.items()}, image, 3)
    for condition, sigma in ((0, 0.05), (1, 0.7), (2, 20.0)):
        with mpmath.workdps(200):
            truth = zoo.evaluate(layers, tensors, y, sigma, condition, zoo.Digits)
        with ctx.workprec(128):
            found = kernel.Step(model, condition, 1.0, 0.0, sigma).denoise([arb(float(v)) for v in y], None)
            for ball, value in zip(found.c, truth, strict=True):
                man, exp = ball.mid().man_exp()
                with mpmath.workdps(200):
                    gap = abs(mpmath.ldexp(mpmath.mpf(int(man)), int(exp)) - value)
                    assert gap <= mpmath.mpf(float(ball.rad())) * (1 + 1e-9) + mpmath.mpf(10) ** -60
                assert float(ball.rad()) < 1e-30
        ours = tree.denoise(params, jnp.asarray(y).reshape(image), sigma, condition).ravel()
        assert np.abs(np.asarray(ours) - np.asarray(truth, float)).max() <= 1e-12 * (1 + sigma)


@pytest.mark.parametrize(("window", "blocks"), [(2, ONE), (4, ONE), (4, (4, 3))])
def test_windows_are_monotone(window, blocks):
    """Symmetric and positive definite, though no covariance."""
    image, sigma = (5, 6), 0.4
    _, tensors, _ = problem(image, False, window, seed=3, blocks=blocks)
    params = priors.of_tensors("latent-tree", {k: np.asarray(v) for k, v in tensors.items()}, image, 3)
    y = jnp.asarray(np.random.default_rng(0).standard_normal(image))
    f = lambda v: tree.denoise(params, v.reshape(image), sigma, 1).ravel()  # noqa: E731
    j = np.asarray(jax.jacfwd(f)(y.ravel()))
    assert np.abs(j - j.T).max() <= 1e-14
    assert np.linalg.eigvalsh(j).min() > 0


def test_windows_move_with_the_image():
    """What lies as far as a window away from a cut does not feel it, for a root of one state; fixed regions feel it."""
    sigma, rng, far = 0.4, np.random.default_rng(1), []
    y = jnp.asarray(rng.standard_normal((12, 12)))
    tensors = zoo.tree_tensors(rng, (12, 12), window=4)
    last = "level.3"
    tensors |= {last: tensors[last][:, :, :1], "root": tensors["root"][:, :1]}
    for have in (tensors, zoo.tree_tensors(rng, (12, 12), alike=True)):
        params = priors.of_tensors("latent-tree", {k: np.asarray(v) for k, v in have.items()}, (12, 12), 1)
        den = fpjax.Denoiser(params, tree.denoise, (12, 12), name="t")
        cut = priors.at_size(den, 11, 12) if have is tensors else den
        shorter = y[1:] if have is tensors else jnp.roll(y, -1, axis=0)
        far.append(float(jnp.abs(den(y, sigma)[5:11] - cut(shorter, sigma)[4:10]).max()))
    assert far[0] <= 1e-14
    assert far[1] > 1e-4
    blocks = priors.of_tensors("latent-tree", zoo.tree_tensors(rng, (12, 12), window=4, blocks=(3, 5)), (12, 12), 1)
    placed = fpjax.Denoiser(blocks, tree.denoise, (12, 12), name="p")
    for known in (den, placed, fpjax.load("digits-monotone")):
        bad = functools.partial(priors.at_size, known, 8, 8)
        with pytest.raises(fpjax.FpjaxError, match="knows the size"):
            bad()


def test_the_jacobian_is_a_covariance():
    """Symmetric, positive semidefinite, and Cov(x0 | y)/sigma² by differences of Bayes' posterior mean (E3)."""
    image, sigma = (2, 3), 0.4
    layers, tensors, y = problem(image, True, seed=2)
    params = priors.of_tensors("latent-tree", {k: np.asarray(v) for k, v in tensors.items()}, image, 3)
    f = lambda v: tree.denoise(params, v.reshape(image), sigma, 1).ravel()  # noqa: E731
    j = np.asarray(jax.jacfwd(f)(jnp.asarray(y)))
    assert np.abs(j - j.T).max() <= 1e-14
    assert np.linalg.eigvalsh(j).min() > 0
    differences = zoo.jacobian(lambda v: zoo.evaluate(layers, tensors, v, sigma, 1), y, 1e-5)
    assert np.abs(j - differences).max() <= 1e-8


def test_guidance_of_the_prior_is_the_kernels(tmp_path):
    """At any weight (T11): the same network as the kernel's, and monotone; weight 1 changes nothing."""
    image, sigma, w = (2, 2), 0.5, 7.5
    layers, tensors, y = problem(image, False, seed=6)
    params = priors.of_tensors("latent-tree", {k: np.asarray(v) for k, v in tensors.items()}, image, 3)
    den = fpjax.Denoiser(params, tree.denoise, image, conditions=("a", "b"), name="t")
    guided = priors.guided(den, w)
    model = kernel.Model(zoo.write(tmp_path, "m", [{**layers[0], "guidance": "prior"}], tensors, image, 2))
    with ctx.workprec(128):
        found = kernel.Step(model, 1, w, 0.1, sigma).denoise([arb(float(v)) for v in y], None)
    point = jnp.asarray(y).reshape(image)
    assert np.abs(np.asarray(guided(point, sigma, 1)).ravel() - [float(v.mid()) for v in found.c]).max() < 1e-13
    assert np.abs(np.asarray(den(point, sigma, 1)) - np.asarray(guided(point, sigma, 1))).max() > 1e-5
    assert np.array_equal(den(point, sigma, 1), priors.guided(den, 1.0)(point, sigma, 1))
    assert np.array_equal(den(point, sigma), guided(point, sigma))
    j = np.asarray(jax.jacfwd(lambda v: guided(v.reshape(image), sigma, 1).ravel())(jnp.asarray(y)))
    assert np.linalg.eigvalsh((j + j.T) / 2).min() > 0
    for bad in (lambda: priors.guided(den, float("nan")), lambda: priors.guided(fpjax.load("digits-plain"), 3.0)):
        with pytest.raises(fpjax.FpjaxError):
            bad()


def test_a_step_and_a_trajectory_are_proved(tmp_path):
    """By structure: existence and uniqueness for every target; the error from the value at the centre alone."""
    from fpjax.certify import propose

    image = (2, 3)
    layers, tensors, y = problem(image, False, seed=4)
    card = zoo.write(tmp_path, "m", layers, tensors, image, 2)
    loaded = propose.load_model(str(card))
    proved = kernel.check_data(propose.structure(*loaded, [0.1, 0.4, 2.0], [0, 1, 2]).data, loaded[1])
    assert proved.questions == {"existence": "CERTIFIED", "uniqueness": "CERTIFIED"}
    centre = [float(v) for v in y]
    target = [float(v) for v in np.asarray(0.25 * y + 0.75 * zoo.evaluate(layers, tensors, y, 0.4, 1))]
    claim = {**zoo.problem(1, 1.0, 0.1, 0.4), "target": [v.hex() for v in target], "target_radius": (0.0).hex()}
    claim |= {"centre": [v.hex() for v in centre], "radius": (1e-12).hex(), "uniqueness_radius": "everywhere"}
    data = zoo.certificate(card, "step", claim, {"form": "structure", "preconditioner": None})
    assert kernel.check_data(data, loaded[1]).questions["error"] == "CERTIFIED"


@pytest.mark.parametrize(("window", "blocks"), [(0, ONE), (2, ONE), (2, (3, 4))])
@pytest.mark.parametrize("sigma", [0.15, 0.8])
def test_the_jacobian_over_a_ball(window, blocks, sigma, tmp_path):
    """M is the Jacobian at the centre; no point of the ball is further from it than e; and no bound is given of everything."""
    image, rng = (2, 3), np.random.default_rng(11)
    layers, tensors, y = problem(image, False, window, seed=5, blocks=blocks)
    model = kernel.Model(zoo.write(tmp_path, "m", layers, tensors, image, 2))
    f = lambda v: zoo.evaluate(layers, tensors, v, sigma, 1)  # noqa: E731
    with ctx.workprec(128):
        step = kernel.Step(model, 1, 1.0, 0.0, sigma)
        found = [step.denoise([arb(float(v)) for v in y], arb(r)) for r in (0.0, 1e-7, 1e-3, np.inf)]
    j = zoo.jacobian(f, y, 1e-6)
    for value, r in zip(found[:3], (0.0, 1e-7, 1e-3), strict=True):
        m = np.asarray([float(v.mid()) for v in value.M.entries()]).reshape(6, 6)
        assert np.abs(m - j).max() < 1e-8
        for _ in range(10):
            u = rng.standard_normal(6)
            there = zoo.jacobian(f, y + r * u / np.linalg.norm(u), 1e-6)
            assert np.linalg.norm(there - m, 2) <= float(value.e) + 1e-7
        assert float(value.e) <= (1e5 * r + 1e-30)
    assert not found[3].e.is_finite()


def test_guidance_of_a_tree_is_proved_on_a_ball(tmp_path):
    """D_w = D_0 + 3 (D_c - D_0), monotone by no theorem: existence, and uniqueness near by (T13)."""
    from fpjax.certify import propose

    image = (2, 3)
    layers, tensors, y = problem(image, False, seed=4)
    card = zoo.write(tmp_path, "m", layers, tensors, image, 2)
    p = propose.Problem(*propose.load_model(str(card)), 1, 3.0, 0.1, 0.4)
    target = zoo.step(layers, tensors, y, 0.1, 0.4, 1, 3.0, 2)
    proved = propose.step_ball(p, target, y)
    assert proved.radius < 1e-12
    assert proved.verify().questions == {"existence": "CERTIFIED", "uniqueness": "CERTIFIED", "error": "CERTIFIED"}
