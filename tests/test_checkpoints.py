"""Diffusers folders on a machine without torch: the native network, damaged folders, and what the bridge says."""

import importlib.util
import json
import pickle
import re
import shutil
import sys

import checkpoints
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import fpjax
from fpjax import subject
from fpjax.cli import app
from fpjax.diffusers import bridge
from fpjax.evidence import FpjaxError
from fpjax.models import unet

WITHOUT_TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="what is said without torch")


@pytest.fixture
def folder(tmp_path):
    return checkpoints.write(tmp_path / "tiny")


@pytest.mark.long
def test_an_unconditional_folder_needs_no_torch(folder):
    den = fpjax.load(folder)
    assert den.shape == (1, 8, 8)
    assert den.conditions == ()
    assert "torch" not in sys.modules or importlib.util.find_spec("torch")
    grid = fpjax.diffusers.open_checkpoint(folder).process(3)
    x = np.random.default_rng(0).normal(size=(2, 1, 8, 8))
    inv = fpjax.invert(den, x, grid)
    assert inv.solved.all()
    assert float(fpjax.round_trip(den, x, grid, inv).max()) < 1e-7


def test_the_denoiser_is_the_network_in_ddim_coordinates(folder):
    """D = y - sigma·eps(z, t) at a level of the schedule, against the network itself."""
    den, config = fpjax.load(folder), checkpoints.config_of(checkpoints.UNET)
    tensors = {k: jnp.asarray(v, jnp.float64) for k, v in load_file(folder / "unet" / checkpoints.WEIGHTS).items()}
    abar = fpjax.process.alphas_bar("linear")[300]
    sigma = np.sqrt((1 - abar) / abar)
    y = np.random.default_rng(1).normal(size=(1, 8, 8))
    eps = unet.apply(tensors, config, jnp.asarray(y * np.sqrt(abar)), jnp.float64(300))
    assert np.allclose(den(y, sigma), y - sigma * np.asarray(eps), atol=1e-12)


def test_two_folders_of_one_shape_compile_once(folder, tmp_path):
    other = checkpoints.write(tmp_path / "other", tensors=unet.random(checkpoints.config_of(checkpoints.UNET), 1))
    one, two = fpjax.load(folder), fpjax.load(other)
    assert jax.tree.structure(one) == jax.tree.structure(two)
    y = np.zeros((1, 8, 8))
    assert not np.allclose(one(y, 1.0), two(y, 1.0))


def test_files_may_lie_beside_the_index(folder, tmp_path):
    """google/ddpm-* keep everything in one folder."""
    flat = tmp_path / "flat"
    flat.mkdir()
    shutil.copy(folder / "model_index.json", flat)
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            shutil.copy(file, flat)
    y = np.ones((1, 8, 8))
    assert np.array_equal(fpjax.load(flat)(y, 2.0), fpjax.load(folder)(y, 2.0))


def test_weights_in_pieces_and_old_names(folder):
    whole = folder / "unet" / checkpoints.WEIGHTS
    want = fpjax.load(folder)(np.ones((1, 8, 8)), 2.0)
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    tensors = load_file(whole)
    for new, was in old.items():
        tensors = {(k.replace(new, was) if ".attentions." in k else k): v for k, v in tensors.items()}
    names = sorted(tensors)
    pieces = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in pieces.items():
        save_file({k: tensors[k] for k in held}, folder / "unet" / file)
    index = {"weight_map": {k: file for file, held in pieces.items() for k in held}}
    (folder / "unet" / f"{checkpoints.WEIGHTS}.index.json").write_text(json.dumps(index))
    whole.unlink()
    assert any(".query." in name for name in names)
    assert np.array_equal(fpjax.load(folder)(np.ones((1, 8, 8)), 2.0), want)


class Bomb:
    def __reduce__(self):
        return (print, ("executed",))


def change(folder, part="unet/config.json", **values):
    file = folder / part
    data = json.loads(file.read_text())
    data.update(values)
    file.write_text(json.dumps(data))


def weights(folder, edit):
    file = folder / "unet" / checkpoints.WEIGHTS
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


def pickled(folder):
    (folder / "unet" / checkpoints.WEIGHTS).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))


def outside(folder):
    (folder / "unet" / checkpoints.WEIGHTS).rename(folder / "stolen.safetensors")
    index = {"weight_map": {"conv_in.weight": "../stolen.safetensors"}}
    (folder / "unet" / f"{checkpoints.WEIGHTS}.index.json").write_text(json.dumps(index))


def script(folder):
    (folder / "unet" / "modeling.py").write_text("raise SystemExit('executed')\n")


def truncated(folder):
    file = folder / "unet" / checkpoints.WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])


def with_nan(tensors):
    tensors["conv_in.weight"][0, 0, 0, 0] = np.nan


BAD = {
    "pickled weights": (pickled, "never unpickles"),
    "no config": (lambda f: (f / "unet" / "config.json").unlink(), "has no config.json"),
    "config no JSON": (lambda f: (f / "unet" / "config.json").write_text("{"), "cannot be read as JSON"),
    "config a list": (lambda f: (f / "unet" / "config.json").write_text("[]"), "no JSON object"),
    "no class": (lambda f: change(f, _class_name=None), "does not name its class"),
    "wrong class": (lambda f: change(f, _class_name="VQModel"), "no network that fpjax can read"),
    "autoencoder as network": (lambda f: change(f, _class_name="AutoencoderKL"), "denoises nothing|no network"),
    "other width": (lambda f: change(f, block_out_channels=[8, 8]), "do not fit its config.json"),
    "unknown option": (lambda f: change(f, magic=True), "no option 'magic'"),
    "groups do not divide": (lambda f: change(f, norm_num_groups=3), "do not divide evenly"),
    "missing tensor": (lambda f: weights(f, lambda t: t.pop("conv_in.bias")), "'conv_in.bias' is missing"),
    "unknown tensor": (lambda f: weights(f, lambda t: t.update(x=np.zeros(1))), "'x' is unknown"),
    "NaN weights": (lambda f: weights(f, with_nan), "NaN or infinite"),
    "empty file": (lambda f: (f / "unet" / checkpoints.WEIGHTS).write_bytes(b""), "is empty"),
    "truncated file": (truncated, "damaged or truncated"),
    "no weights": (lambda f: (f / "unet" / checkpoints.WEIGHTS).unlink(), "has no weights"),
    "index leads out": (outside, "not opened"),
    "custom code": (lambda f: change(f, auto_map={"AutoModel": "modeling.Net"}), "no code from a checkpoint is run"),
    "a script": (script, "no code from a checkpoint is run"),
    "part of its own": (lambda f: change(f, "model_index.json", unet=["my_code", "Net"]), "needs code of its own"),
    "index names no class": (lambda f: change(f, "model_index.json", unet=["diffusers", 3]), "names no class"),
    "nothing to invert": (lambda f: change(f, "model_index.json", unet=[None, None]), "no unet and no transformer"),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), "has no scheduler_config.json"),
    "unknown scheduler": (lambda f: change(f, "scheduler/scheduler_config.json", _class_name="Magic"), "is not mapped"),
    "clipping": (lambda f: change(f, "scheduler/scheduler_config.json", clip_sample=True), "clip_sample=True"),
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_bad_checkpoints_get_one_sentence_and_run_nothing(folder, tmp_path, capfd, monkeypatch, kind):
    damage, sentence = BAD[kind]
    damage(folder)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["audit", str(folder), "--steps", "2", "--images", "1"])
    jax.config.update("jax_enable_x64", True)
    assert result.exit_code == 2, result.output
    lines = result.stderr.strip().splitlines()
    assert len([line for line in lines if line.startswith("fpjax: ")]) == 1, lines
    assert re.search(sentence, result.stderr.replace("\n", " ")), result.stderr
    assert "executed" not in result.output + "".join(capfd.readouterr())
    assert not list(tmp_path.rglob("report.html"))


@WITHOUT_TORCH
@pytest.mark.parametrize("kind", ["UNet2DConditionModel", "DiTTransformer2DModel", "covered only by diffusers"])
def test_the_bridge_says_which_extra_it_needs(folder, kind):
    if kind == "covered only by diffusers":
        change(folder, down_block_types=["DownBlock2D", "SkipDownBlock2D"])
    else:
        change(folder, _class_name=kind)
    with pytest.raises(fpjax.FpjaxError, match=r"pip install 'fpjax\[diffusers\]'"):
        fpjax.load(folder)
    assert "torch" not in sys.modules


@WITHOUT_TORCH
def test_going_back_says_which_extra_it_needs(folder):
    den = fpjax.load(folder)
    inv = fpjax.invert(den, np.zeros((1, 1, 8, 8)), fpjax.process.ddim(2), solver="picard", limit=2)
    with pytest.raises(fpjax.FpjaxError, match=r"pip install 'fpjax\[diffusers\]'"):
        inv.to_diffusers()


@pytest.mark.long
def test_audit_of_a_folder_end_to_end(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    one = {"block_out_channels": [4], "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
    folder = checkpoints.write(tmp_path / "tiny", checkpoints.UNET | one | {"mid_block_type": None})
    picture = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)).save(picture)
    quick = ["--steps", "2", "--points", "1", "--lanczos", "8", "--out", "out"]
    result = CliRunner().invoke(app, ["audit", str(folder), "--images", str(picture), *quick])
    jax.config.update("jax_enable_x64", True)
    assert result.exit_code == 0, result.output
    settings = json.loads((tmp_path / "out" / "audit.json").read_text())["settings"]
    assert settings["source"] == "image files photo.png"
    assert settings["lanczos"] == 8
    assert settings["source"] in (tmp_path / "out" / "report.html").read_text()


def test_images_of_a_checkpoint(folder, tmp_path):
    named = subject.make(str(folder), None, 2, ["3"])
    assert named.images.shape == (3, 1, 8, 8)
    assert named.source == "3 smooth random images, seed 0"
    assert np.abs(named.images).max() < 1
    assert np.abs(np.diff(named.images, axis=-1)).max() < np.abs(named.images).max()  # smooth
    picture = tmp_path / "grey.png"
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(picture)
    white = subject.make(str(folder), "edm", 2, [str(picture), str(picture)])
    assert white.images.shape == (2, 1, 8, 8)
    assert np.array_equal(white.images, np.ones_like(white.images))
    assert white.process.kind == "edm"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--images", "no.png"], "no.png cannot be read"),
        (["--images", "0"], "at least 1 image"),
        (["--set", "clip_sample"], "KEY=VALUE"),
        (["--set", "magic=1"], "no setting 'magic'"),
        (["--prompt", "a cat"], "takes no text"),
        (["--points", "4"], "1, 2 or 3 points"),
    ],
)
def test_bad_arguments(folder, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["audit", str(folder), "--steps", "2", *arguments])
    jax.config.update("jax_enable_x64", True)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr


def test_clipping_can_be_left_out(folder):
    change(folder, "scheduler/scheduler_config.json", clip_sample=True)
    checkpoint = fpjax.diffusers.open_checkpoint(folder)
    with pytest.raises(fpjax.FpjaxError, match="clip_sample=False"):
        checkpoint.process(2)
    assert checkpoint.process(2, clip_sample=False).steps == 2


def test_modules_that_do_not_fit_each_other_are_one_sentence(tmp_path, monkeypatch):
    """As torchax with a later torch: its import ends in an AttributeError."""
    (tmp_path / "misfit.py").write_text("raise AttributeError(\"'aten' object\\nhas no attribute 'qr'\")")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        FpjaxError, match=r"needs misfit, which cannot be imported here .*no attribute 'qr'.*fpjax\[diffusers\]"
    ):
        bridge.need("misfit", "the bridge")
