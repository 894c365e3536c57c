"""Every kind of certificate: a valid instance verifies, a broken instance does not; and the room's walls."""

# ruff: noqa: PT017, PT018

import ast
import json
import subprocess
import sys
from pathlib import Path

import certify_gallery as gallery
import certify_zoo as zoo
import jsonschema
import numpy as np
import pytest

import fpjax.certify
import fpjax.certify.check as kernel

ROOM = Path(kernel.__file__).parent


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return gallery.valid(gallery.models(tmp_path_factory.mktemp("gallery")))


def test_valid_certificates_of_every_kind_verify(entries):
    kinds = set()
    for name, data, card in entries:
        proved = kernel.check_data(data, card)
        assert proved.verdict in ("CERTIFIED", "REFUTED") and proved.statement, name
        kinds.add(proved.kind)
    assert kinds == set(kernel.KINDS)


def test_broken_certificates_do_not_verify(entries):
    for name, data, card in gallery.false(entries):
        try:
            proved = kernel.check_data(data, card)
        except kernel.CertificateError as error:
            assert "broke off" not in str(error) and "seal" not in str(error), (name, error)
        else:
            pytest.fail(f"{name}: {proved}")


def test_verdicts_name_the_questions(entries):
    table = {name: kernel.check_data(data, card) for name, data, card in entries}
    assert table["structure mixture"].questions == {"existence": "CERTIFIED", "uniqueness": "CERTIFIED"}
    assert table["two solutions"].questions["uniqueness"] == "REFUTED"
    assert table["expansion"].questions == {"contraction": "REFUTED"}
    assert table["no solution"].verdict == "REFUTED"
    assert table["trajectory mixture"].questions["error"] == "CERTIFIED"
    assert table["guidance limit ball"].facts["limit"] > 1


def test_every_certificate_and_only_those_fit_the_schema(entries):
    schema = json.loads((ROOM / "certificate.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    for name, data, _ in entries:
        assert not list(validator.iter_errors(data)), name
        for key in data:
            assert list(validator.iter_errors({k: v for k, v in data.items() if k != key})), (name, key)
        for key in data["claim"]:
            claim = {k: v for k, v in data["claim"].items() if k != key}
            assert list(validator.iter_errors({**data, "claim": claim})), (name, key)


def test_the_kernel_imports_only_flint_and_the_standard_library():
    found = set()
    for node in ast.walk(ast.parse((ROOM / "check.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {n.name.split(".")[0] for n in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add((node.module or "").split(".")[0])
    assert found - set(sys.stdlib_module_names) == {"flint"}


@pytest.mark.parametrize("alone", [True, False])
def test_command_line_alone_and_as_a_module(entries, tmp_path, alone):
    """Run as a plain file from elsewhere, or with -m: proves, rejects with a reason, and never loads JAX."""
    _, data, card = entries[0]
    (tmp_path / "good.json").write_text(json.dumps(data))
    (tmp_path / "bad.json").write_text(json.dumps({**data, "precision": 96}))
    how = [str(ROOM / "check.py")] if alone else ["-m", "fpjax.certify.check"]
    where = tmp_path if alone else ROOM.parent.parent
    for folder in (card, card.parent):
        command = [sys.executable, *how, str(tmp_path / "good.json"), "--model", str(folder)]
        run = subprocess.run(command, capture_output=True, text=True, cwd=where, timeout=60, check=False)
        assert run.returncode == 0 and "CERTIFIED: structure" in run.stdout and not run.stderr, run
    run = subprocess.run([*command[:-2], str(tmp_path / "bad.json"), str(tmp_path / "none.json"), "--model", str(card)],
                         capture_output=True, text=True, cwd=where, timeout=60, check=False)  # fmt: skip
    assert run.returncode == 1
    assert run.stdout.count("REJECTED") == 2
    assert "seal" in run.stdout
    assert not run.stderr
    if not alone:
        probe = "import sys, fpjax.certify.check; assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
        subprocess.run([sys.executable, "-c", probe], check=True, cwd=where, timeout=60)


def test_public_names_work_in_any_import_order(entries, tmp_path):
    _, data, card = entries[0]
    (tmp_path / "c.json").write_text(json.dumps(data))
    code = (
        "import fpjax, importlib, sys\n"
        "if sys.argv[3] == 'module': import fpjax.certify.check, fpjax.certify.propose\n"
        "v = fpjax.certify.check(sys.argv[1], model=sys.argv[2])\n"
        "assert v is fpjax.Verdict.CERTIFIED and callable(fpjax.certify.propose)\n"
        "assert issubclass(fpjax.certify.CertificateError, ValueError)\n"
    )
    for order in ("module", "name"):
        command = [sys.executable, "-c", code, str(tmp_path / "c.json"), str(card), order]
        subprocess.run(command, check=True, cwd=ROOM.parent.parent, timeout=120)


def test_saved_certificates_come_back(entries, tmp_path):
    _, data, card = entries[0]
    certificate = fpjax.certify.Certificate(data, card)
    assert json.loads(certificate.save(tmp_path / "deep" / "c.json").read_text()) == data
    assert certificate.verify().verdict == "CERTIFIED"
    with pytest.raises(fpjax.FpjaxError, match="cannot write"):
        certificate.save(tmp_path / "deep" / "c.json" / "x.json")


def structure_of(tmp_path, layers, tensors, d=2):
    card = zoo.write(tmp_path, "s", layers, tensors, (d,))
    return kernel.Step(kernel.Model(card), 0, 1.0, 0.5, 1.0).monotone()


def test_only_monotone_patterns_are_monotone(tmp_path):
    """W phi(W^T y) passes; another W, the wrong transposition, a negative gain, silu or a vector gain around softmax not."""
    rng = np.random.default_rng(1)
    base = zoo.gradient_tensors(rng, 2, 4)
    layers = zoo.gradient_layers()

    square = {**base, "W": zoo.f32(rng.standard_normal((4, 4))), "b": zoo.f32(np.zeros(4))}

    def edited(**changes):
        return [{**op, **changes.get(op["out"], {})} for op in layers]

    assert structure_of(tmp_path, layers, base)
    assert not structure_of(tmp_path, edited(g={"weight": "V"}), {**base, "V": base["W"]})
    assert not structure_of(tmp_path, edited(g={"op": "affine_t"}), square, 4)
    assert not structure_of(tmp_path, edited(h={"fn": "silu"}), base)
    assert not structure_of(tmp_path, edited(h={"fn": "cos"}), base)
    assert not structure_of(tmp_path, edited(a={"fn": "identity"}), {**base, "ba": zoo.f32(-np.ones(4))})
    falling = [{"op": "affine", "out": "v", "in": "y", "weight": "V"}, {"op": "add", "out": "D", "in": ["s", "g", "v"]}]
    assert not structure_of(tmp_path, [*layers[:-1], *falling], {**base, "V": zoo.f32(-np.eye(2))})
    soft, tensors = zoo.gradient_layers(softmax=True), zoo.gradient_tensors(rng, 2, 4, softmax=True)
    assert structure_of(tmp_path, soft, tensors)
    vector = [{**op, "op": "multiply", "by": "gain"} if op["out"] == "ua" else op for op in soft]
    assert not structure_of(tmp_path, vector, {**tensors, "gain": zoo.f32([1, 2, 3, 4])})
    after = [{**op, "op": "multiply", "by": "gain"} if op["out"] == "hb" else op for op in soft]
    assert not structure_of(tmp_path, after, {**tensors, "gain": zoo.f32([1, 2, 3, 4])})
    mixture = zoo.mixture_tensors(rng, 2, 3, 1)
    assert structure_of(tmp_path, zoo.MIXTURE, mixture)
    both = [{**zoo.MIXTURE[0], "out": "m"}, {"op": "add", "out": "D", "in": ["m", "y"]}]
    assert structure_of(tmp_path, both, mixture)
    for key in ("variances", "floor"):
        with pytest.raises(kernel.CertificateError, match="negative"):
            structure_of(tmp_path, zoo.MIXTURE, {**mixture, key: mixture[key] - 5})


def test_interval_constants_that_may_be_negative_are_not_gains(tmp_path):
    """A gain that is exactly 0 is allowed, one whose enclosure reaches below 0 is not."""
    tensors = {"W": zoo.f32(np.eye(2)), "z": zoo.f32([0.0, 1.0]), "n": zoo.f32([-1e-30, 1.0])}
    layers = [
        {"op": "affine_t", "out": "u", "in": "y", "weight": "W"},
        {"op": "elementwise", "out": "h", "in": "u", "fn": "tanh"},
        {"op": "multiply", "out": "g", "in": "h", "by": "z"},
        {"op": "affine", "out": "D", "in": "g", "weight": "W"},
    ]
    assert structure_of(tmp_path, layers, tensors)
    layers[2]["by"] = "n"
    assert not structure_of(tmp_path, layers, tensors)
