"""Training: the same weights after kill -9 and over several devices, checkpoints that are refused, data sets."""

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

import fpjax
from fpjax import data
from fpjax.evidence import FpjaxError
from fpjax.models import checkpoints, patches, priors, recipes, starts, store, training, tree

TREE = (("states", 3), ("gaussians", 4), ("alike", 2))
WINDOWS = (("states", 3), ("gaussians", 4), ("window", 2))
PLACED = (*WINDOWS, ("places", 3), ("per_class", 2))
MIXTURE = (("per_class", 1), ("rank", 4))
PATCHES = (("components", 3), ("rank", 2), ("side", 4))
PARTS = (("learned-mixture", MIXTURE), ("latent-tree", TREE), ("latent-tree", WINDOWS), ("patch-mixture", PATCHES))
SMALL = recipes.Recipe("prior-sum", "digits", PARTS, 8, batch=16)


@pytest.fixture(autouse=True)
def _single():
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def command(folder, *more):
    """(process, file of what it says) of a training run of 3,000 updates."""
    line = [Path(sys.executable).parent / "fpjax", "train", "digits-plain", "--updates", "3000", "--out", folder, *more]
    folder.parent.mkdir(exist_ok=True)
    said = folder.parent / f"{folder.name}{len(more)}.txt"
    with said.open("w") as file:
        return subprocess.Popen([*map(str, line)], stdout=file, stderr=file), said


@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    whole, said = command(tmp_path / "whole")
    killed, _ = command(tmp_path / "killed", "--checkpoint-every", "0")
    file, limit = tmp_path / "killed" / "digits-plain.checkpoint", time.monotonic() + 200
    while not file.exists():
        assert killed.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert not (tmp_path / "killed" / "digits-plain.json").exists()
    refused, why = command(tmp_path / "killed")
    assert refused.wait(100) == 2
    assert "--resume" in why.read_text()
    resumed, why = command(tmp_path / "killed", "--resume")
    assert resumed.wait(250) == 0, why.read_text()
    assert whole.wait(250) == 0, said.read_text()
    first, second = ((tmp_path / n / "digits-plain.safetensors").read_bytes() for n in ("whole", "killed"))
    assert first == second
    assert not file.exists()
    curves = [
        store.read_card(tmp_path / n / "digits-plain.json")["training"]["loss_curve"] for n in ("whole", "killed")
    ]
    assert curves[0] == curves[1]
    assert (tmp_path / "killed" / "digits-plain-loss.png").read_bytes().startswith(b"\x89PNG")
    samples = store.read_card(tmp_path / "killed" / "digits-plain.json")["samples"]
    assert (samples["images"], samples["steps"], samples["seed"]) == (16, 20, 0)
    sheets = [(tmp_path / n / samples["file"]).read_bytes() for n in ("whole", "killed")]
    assert sheets[0] == sheets[1]


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path):
    file = tmp_path / "x.checkpoint"
    carry = (np.arange(3.0, dtype=np.float32), np.int32(4))
    checkpoints.write(file, SMALL.to_json(), carry, 4, [(4, 0.5)], 1.5)
    again, step, curve, seconds = checkpoints.read(file, SMALL.to_json(), carry)
    assert (step, curve, seconds) == (4, [(4, 0.5)], 1.5)
    assert all(np.array_equal(a, b) for a, b in zip(again, carry, strict=True))
    other = dataclasses.replace(SMALL, seed=1).to_json()
    with pytest.raises(FpjaxError, match="another recipe"):
        checkpoints.read(file, other, carry)
    with pytest.raises(FpjaxError, match="another recipe"):
        checkpoints.read(file, SMALL.to_json(), (carry[0][:2], carry[1]))
    raw = file.read_bytes()
    for bad in (raw[:50], b"", b"\xff" * 100, raw.replace(b"step", b"stop")):
        file.write_bytes(bad)
        with pytest.raises(FpjaxError, match="damaged"):
            checkpoints.read(file, SMALL.to_json(), carry)


KINDS = {
    "tree": ("latent-tree", TREE),
    "windows": ("latent-tree", WINDOWS),
    "placed": ("latent-tree", PLACED),
    "patches": ("patch-mixture", PATCHES),
    "sum": ("prior-sum", PARTS),
}


@pytest.mark.parametrize(
    "name", ["tree", *(pytest.param(n, marks=pytest.mark.long) for n in ("patches", "windows", "placed", "sum"))]
)
def test_a_learned_prior_survives_the_disk_and_is_monotone(name, tmp_path):
    recipe = dataclasses.replace(SMALL, kind=KINDS[name][0], options=KINDS[name][1])
    run = training.train(recipe)
    path = store.save(tmp_path, recipes.card("small", recipe, run), store.tensors_of(run.model))
    den = store.load(path)
    assert den.facts.monotone
    x, c = fpjax.samples("digits", 2)
    for sigma in (0.05, 1.0):
        y = x[0] + sigma * np.random.default_rng(0).normal(size=(8, 8)).astype(np.float32)
        assert np.allclose(den(y, sigma, int(c[0])), run.model(y, np.float32(sigma), np.int32(c[0])), atol=1e-6)
    with jax.enable_x64(True):
        exact = den.astype(np.float64)
        f = lambda v: exact(v.reshape(8, 8), 0.3, 3).ravel()  # noqa: E731
        j = np.asarray(jax.jacfwd(f)(np.asarray(x[1], np.float64).ravel()))
        certificate = fpjax.certify.propose(exact, x[0], fpjax.process.ddim(2), condition=int(c[0]), model=path)
    assert np.abs(j - j.T).max() < 1e-13
    assert np.linalg.eigvalsh((j + j.T) / 2).min() > 0
    assert certificate.verify().questions["uniqueness"] == "CERTIFIED"


@pytest.mark.long
def test_a_gradient_in_chunks_is_that_of_the_batch():
    small = dataclasses.replace(SMALL, kind="learned-mixture", options=MIXTURE, updates=2)
    runs = [training.train(dataclasses.replace(small, chunk=chunk)) for chunk in (0, 4)]
    for name, value in store.tensors_of(runs[0].model).items():
        np.testing.assert_allclose(store.tensors_of(runs[1].model)[name], value, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(runs[1].curve, runs[0].curve, rtol=1e-4)
    # Adam does not feel a gradient's size, so once more alone; and a network that is no prior
    split, rng = data.load("digits"), np.random.default_rng(0)
    sigmas, noise = (rng.uniform(0.1, 3, 16), rng.standard_normal((16, 8, 8)))
    batch = (split.train[:16], split.train_labels[:16], sigmas.astype(np.float32), noise.astype(np.float32))
    plain = dataclasses.replace(recipes.recipe("digits-plain"), batch=16)
    for r in (small, plain):
        graph, state = nnx.split(recipes.build(r))
        whole, parts = (training._gradient(graph, dataclasses.replace(r, chunk=n), state, batch)[1] for n in (0, 4))
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4 * np.abs(a).max())


@pytest.mark.long
def test_windows_and_patches_take_images_of_any_size():
    """They move with the image, and away from the border know nothing of the image's size."""
    y, c = np.random.default_rng(0).normal(size=(18, 20)).astype(np.float32), tuple("0123456789")
    for kind, options, fn, size in (
        ("latent-tree", WINDOWS, tree.denoise, 1),
        ("patch-mixture", PATCHES, patches.denoise, 2),
    ):
        params = recipes.build(dataclasses.replace(SMALL, kind=kind, options=options)).prior()
        if kind == "latent-tree":  # else all windows are one vote
            params["root"] = np.where(np.eye(11, 10, dtype=bool), 0, -1e4).astype(np.float32)
        den = fpjax.Denoiser(params, fn, (8, 8), "x0", conditions=c)
        whole = np.asarray(priors.at_size(den, 18, 20)(y, 0.4, 3))
        moved = np.asarray(priors.at_size(den, 12, 14)(y[4:16, 5:19], 0.4, 3))
        assert whole.shape == (18, 20)
        assert np.abs(whole[8:12, 9:15] - moved[4:8, 4:10]).max() < 1e-5
        with pytest.raises(FpjaxError, match=f"sides of at least {size}, got 0×4"):
            priors.at_size(den, 0, 4)
    with pytest.raises(FpjaxError, match="knows the size"):
        priors.at_size(fpjax.load("digits-tree"), 16, 16)


def test_the_start_of_placed_windows_counts_meetings_in_each_block():
    """An image of two halves: windows of the left know nothing of the right; and kinds are clusters within a class."""
    images = np.zeros((6, 4, 4), np.float32)
    images[:, :, 2:] = np.arange(6)[:, None, None] % 2  # two kinds of one class
    found = starts.tree(images, np.zeros(6, int), 1, 2, 2, 0, 0, window=2, places=5, per_class=2)
    table, root = found["levels"][-1], found["root"]
    assert table.shape == (5, 5, 2, 2)
    assert root.shape == (1, 2)
    np.testing.assert_allclose(np.exp(root), 0.5)
    np.testing.assert_allclose(table.sum(axis=-1), 1)
    assert np.abs(table[:, 0, 0] - table[:, 0, 1]).max() < 1e-12  # what both kinds show there
    assert np.abs(table[:, -1, 0] - table[:, -1, 1]).max() > 0.5
    with pytest.raises(FpjaxError, match="4 blocks each way"):
        recipes.build(dataclasses.replace(SMALL, kind="latent-tree", options=(*WINDOWS, ("places", 4))))


def test_means_and_directions_go_slower():
    """By the factor that the recipe says, and nothing else does."""
    small = dataclasses.replace(SMALL, kind="learned-mixture", options=MIXTURE, updates=2)  # the first is of rate 0
    before = nnx.state(recipes.build(small))
    runs = [
        nnx.state(training.train(dataclasses.replace(small, slower=factor, ema=0.0)).model) for factor in (1.0, 0.25)
    ]
    for name, values in nnx.to_flat_state(before):
        steps = [dict(nnx.to_flat_state(run))[name][...] - values[...] for run in runs]
        factor = 0.25 if name[-1] in ("means", "directions") else 1.0
        np.testing.assert_allclose(steps[1], factor * steps[0], rtol=1e-2, atol=1e-6)
        assert np.abs(steps[0]).max() > 0


def test_patches_are_cut_with_mirrored_borders():
    """Each pixel has weights that sum to 1, and a patch's values are those of the mirrored image."""
    y = np.arange(24.0, dtype=np.float32).reshape(1, 4, 6)
    found = np.asarray(patches.cut(y, 4))
    mirrored = np.pad(y[0], 2, mode="symmetric")
    assert found.shape == (5, 7, 16)
    assert np.array_equal(found[1, 2].reshape(4, 4), mirrored[1:5, 2:6])
    for n, shape in ((4, (4, 6)), (8, (6, 10)), (1, (3, 5)), (8, (16, 12))):
        ones = np.ones((2, *shape), np.float32)
        cut, back = jax.vjp(lambda v, n=n: patches.cut(v, n), ones)
        total = back(np.asarray(patches.weights(n, *shape), np.float32)[..., None] * np.ones_like(cut))[0]
        np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_the_start_of_a_tree_counts_meetings():
    """Two images, black and white halves: the states follow the halves, and the tree gives them back."""
    images = np.full((40, 2, 4), -1.0, np.float32)
    images[20:, :, 2:] = 1.0
    labels = np.repeat([0, 1], 20)
    start = starts.tree(images, labels, 2, 2, 2, 0, 0)
    assert [t.shape for t in (start["leaf"], *start["levels"])] == [(2, 4, 2, 2), (2, 2, 2, 2), (2, 1, 2, 2)]
    params = {k: np.asarray(v, np.float32) for k, v in start.items() if k != "levels"}
    params["levels"] = [np.asarray(v, np.float32) for v in start["levels"]]
    for i, image in ((0, images[0]), (1, images[-1])):
        noisy = image + 0.3 * np.random.default_rng(i).normal(size=image.shape).astype(np.float32)
        assert np.abs(np.asarray(tree.denoise(params, noisy, np.float32(0.3), i)) - image).max() < 0.1


def test_data_sets_are_split_and_carried():
    for name, shape, sizes in (("mnist", (28, 28), (4000, 1000)), ("photos", (3, 16, 16), (14_000, 1000))):
        split = data.load(name)
        assert (len(split.train), len(split.held_out)) == sizes
        assert split.train.shape[1:] == shape
        assert -1 <= split.train.min() < split.train.max() <= 1
        images, labels = data.held_out(name)
        assert np.array_equal(images, split.held_out[:256])
        assert np.array_equal(labels, split.held_out_labels[:256])
        held = {image.tobytes() for image in split.held_out}
        assert not any(image.tobytes() in held for image in split.train)
    x, c = fpjax.samples("fashion", 256)
    assert x.shape == (256, 28, 28)
    assert set(np.unique(c)) == set(range(10))
    if data.FASHION.is_dir():
        assert np.array_equal(data.held_out("fashion")[0], data.load("fashion").held_out[:256])
    else:
        with pytest.raises(FpjaxError, match="dataset-fashion-mnist"):
            data.load("fashion")
