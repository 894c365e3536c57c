"""The command: what it writes, and that bad input gets one sentence, exit code 2 and no partial report."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest

from fpjax.models import store

SMALL = ("--steps", "5", "--images", "2", "--guidance", "1")


def test_audit_writes_a_table_a_report_and_json(call, tmp_path):
    result = call("audit", "digits-monotone", *SMALL, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "uniqueness" in result.stdout
    assert str(tmp_path / "out" / "report.html") in result.stdout.replace("\n", "")
    data = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert len(data["rows"]) == 5 * 6


def test_json_alone_goes_to_stdout(call):
    result = call("audit", "digits-monotone", *SMALL, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["model"] == "digits-monotone"


def test_the_recorded_command_derives_the_rows_again(call):
    first = json.loads(call("audit", "digits-monotone", *SMALL, "--json").stdout)
    command = shlex.split(first["command"])
    assert command[:3] == ["fpjax", "audit", "digits-monotone"]
    again = json.loads(call(*command[1:], "--json").stdout)
    assert again["rows"] == first["rows"]
    assert again["curves"] == first["curves"]


def test_require_decides_the_exit_code(call):
    assert call("audit", "digits-monotone", *SMALL, "--require", "uniqueness").exit_code == 0
    failed = call("audit", "digits-monotone", *SMALL, "--require", "contraction")
    assert failed.exit_code == 1
    assert "contraction" in failed.stderr


def damaged(tmp_path):
    for suffix in (".json", ".safetensors"):
        shutil.copy(store.WEIGHTS / f"digits-plain{suffix}", tmp_path)
    file = tmp_path / "digits-plain.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    return file


def unconditional(tmp_path):
    from fpjax.models import exact

    den = exact.mixture(np.zeros((2, 8, 8)), 0.5)
    card = {
        "name": "pair",
        "shape": [8, 8],
        "conditions": [],
        "facts": {"symmetric": True, "monotone": True},
        "architecture": {"kind": "learned-mixture", "options": {}},
        "layers": [],
    }
    return store.save(tmp_path / "pair", card, {k: np.asarray(v, np.float32) for k, v in den.params.items()})


BAD = {
    "unknown model": lambda t: ["audit", "digits-wonderful"],
    "truncated weights": lambda t: ["audit", damaged(t)],
    "no steps": lambda t: ["audit", "--steps", "0"],
    "too many steps": lambda t: ["audit", "--steps", "2000"],
    "guidance without conditions": lambda t: ["audit", unconditional(t), "--guidance", "3"],
    "guidance no number": lambda t: ["audit", "--guidance", "strong"],
    "guidance nan": lambda t: ["audit", "--guidance", "nan", "--steps", "2"],
    "no images": lambda t: ["audit", "--images", "0"],
    "too many images": lambda t: ["audit", "--images", "100000"],
    "unwritable out": lambda t: ["audit", "--out", "/dev/null/report"],
    "out is a file": lambda t: ["audit", "--out", damaged(t)],
    "unknown solver": lambda t: ["audit", "--solver", "guess", "--steps", "2"],
    "unknown recipe": lambda t: ["train", "digits-wonderful"],
    "no updates": lambda t: ["train", "digits-plain", "--updates", "0"],
    "train unwritable": lambda t: ["train", "digits-plain", "--out", "/dev/null/x"],
    "invert bad tol": lambda t: ["invert", "--tol", "-1", "--steps", "2"],
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_bad_input_gets_one_sentence_and_no_report(call, tmp_path, kind):
    result = call(*BAD[kind](tmp_path))
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.strip().splitlines() if line.startswith("fpjax: ")]
    assert len(lines) == 1
    assert "Traceback" not in result.output
    assert not list(tmp_path.rglob("report.html"))
    assert not list(tmp_path.rglob("audit.json"))
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_images_that_are_not_finite_are_refused(bad):
    import fpjax

    x, c = fpjax.samples("digits", 2)
    x[0, 0, 0] = bad
    with pytest.raises(fpjax.FpjaxError, match="NaN or infinite"):
        fpjax.audit(fpjax.load("digits-plain"), fpjax.process.ddim(2), images=x, condition=c)


def test_an_unwritable_folder_leaves_the_old_report_alone(call, tmp_path, monkeypatch):
    """A full disk: the write fails half way, and what was there stays."""
    out = tmp_path / "out"
    assert call("audit", *SMALL, "--out", out).exit_code == 0
    before = {p.name: p.read_bytes() for p in out.glob("*.*")}

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = call("audit", *SMALL, "--out", out)
    assert result.exit_code == 2
    assert "no space left" in result.stderr.lower()
    assert {p.name: p.read_bytes() for p in out.glob("*.*")} == before
    assert set(before) == {"audit.json", "report.html", "report.md"}
    assert not list(out.rglob("*.part"))


def test_invert_writes_latents(call, tmp_path):
    result = call("invert", "--steps", "3", "--images", "2", "--out", "z.npz")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "z.npz") as data:
        assert data["latent"].shape == (2, 8, 8)
        assert np.isfinite(data["error_bound"]).all()


def test_models_and_doctor(call):
    listed = call("models")
    assert listed.exit_code == 0
    assert "30,120" in listed.stdout
    assert "jaxlib" in call("doctor").stdout


def test_as_a_real_process():
    """The installed command, in its own process: exit code 2, one line, no traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "fpjax.cli", "audit", "nope"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("fpjax: unknown model 'nope'")
    assert not done.stdout


def test_audit_certifies_what_the_kernel_proves(call, tmp_path):
    """CERTIFIED comes with a file that the kernel accepts and, once altered, rejects."""
    result = call("audit", "digits-monotone", *SMALL, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "audit.json").read_text())["rows"]
    settled = {r["question"] for r in rows if r["verdict"] == "CERTIFIED"}
    assert settled == {"existence", "uniqueness"}
    file = tmp_path / "out" / "certificates" / "structure.json"
    assert call("check", file).exit_code == 0
    file.write_text(file.read_text().replace("digits-monotone", "digits-plain"))
    rejected = call("check", file)
    assert rejected.exit_code == 1
    assert "REJECTED" in rejected.stderr
    assert "Traceback" not in rejected.output


@pytest.mark.long
def test_the_ordinary_model_gets_no_structure_certificate(call, tmp_path):
    result = call("audit", "digits-plain", *SMALL, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "out" / "audit.json").read_text())["rows"]
    assert all(r["verdict"] != "CERTIFIED" for r in rows)
