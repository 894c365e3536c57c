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
from safetensors.numpy import load_file

import fpjax.certify
import fpjax.certify.check as kernel
from fpjax.certify import propose

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
    assert kinds == set(kernel.kinds(kernel.Model(entries[0][2])))


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
    """Its files import those before them, python-flint and the standard library; only the fast path takes numpy."""
    files = (*kernel.FILES, "check")
    for i, name in enumerate((*files, "fast")):
        found, before = set(), {f"fpjax.certify.{other}" for other in files[:i]}
        for node in ast.walk(ast.parse((ROOM / f"{name}.py").read_text())):
            if isinstance(node, ast.Import):
                found |= {n.name.split(".")[0] for n in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                found |= set() if node.module in before else {(node.module or "").split(".")[0]}
        others = found - set(sys.stdlib_module_names)
        assert others <= ({"flint", "numpy"} if name == "fast" else {"flint"}), (name, others)


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
        assert run.returncode == 0 and "CERTIFIED (Arb): structure" in run.stdout and not run.stderr, run
        run = subprocess.run([*command, "--fast"], capture_output=True, text=True, cwd=where, timeout=60, check=False)
        assert run.returncode == 0 and "CERTIFIED (fast: float64" in run.stdout and not run.stderr, run
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


def structure_of(tmp_path, layers, tensors, d=2, guidance=1.0, classes=0, shape=None):
    card = zoo.write(tmp_path, "s", layers, tensors, shape or (d,), classes)
    try:
        return kernel.Step(kernel.Model(card), 0, guidance, 0.5, 1.0).monotone()
    except kernel.CertificateError:
        return False


def edited(layers, **changes):
    """The layers with some replaced, those of the potential too."""
    out = [{**op, **changes.get(op["out"], {})} for op in layers]
    return [{**op, "layers": edited(op["layers"], **changes)} if "layers" in op else op for op in out]


def flipped(tensors, name):
    """One sign changed in one tensor."""
    new = np.array(tensors[name])
    new.flat[0] *= -1
    return {**tensors, name: new}


def test_only_convex_potentials_are_monotone(tmp_path):
    """Gradients of elementwise and softmax potentials pass; one negative weight, another function, a falling sum not."""
    rng = np.random.default_rng(1)
    base, layers = zoo.gradient_tensors(rng, 2, 4), zoo.gradient_layers()
    for fn in ("logcosh", "softplus", "square", "relu2", "exp"):
        assert structure_of(tmp_path, zoo.gradient_layers(fn), base)
    assert not structure_of(tmp_path, layers, flipped(base, "E"))
    for fn in ("cos", "silu", "tanh", "identity"):
        assert not structure_of(tmp_path, edited(layers, h={"fn": fn}), base)
    falling = [{"op": "affine", "out": "v", "in": "y", "weight": "V"}, {"op": "add", "out": "D", "in": ["s", "g", "v"]}]
    assert not structure_of(tmp_path, [*layers[:-1], *falling], {**base, "V": zoo.f32(-np.eye(2))})
    negative = [*layers[:-1], {"op": "scale", "out": "n", "in": "g", "by": "minus"}]
    negative += [{"op": "add", "out": "D", "in": ["s", "n"]}]
    assert not structure_of(tmp_path, negative, {**base, "minus": zoo.f32([-1.0])})
    assert structure_of(tmp_path, negative, {**base, "minus": zoo.f32([1.0])})
    soft, tensors = zoo.gradient_layers(softmax=True), zoo.gradient_tensors(rng, 2, 4, softmax=True)
    assert structure_of(tmp_path, soft, tensors)
    turned = [{"op": "multiply", "out": "gm", "in": "g", "by": "twist"}, {"op": "add", "out": "D", "in": ["s", "gm"]}]
    assert not structure_of(tmp_path, [*soft[:-1], *turned], {**tensors, "twist": zoo.f32([1, 2])})


def test_input_convex_networks_with_skip_connections(tmp_path):
    """Two hidden layers: nonnegative hidden weights and a rising second function; each sign flipped is refused."""
    tensors, layers = zoo.convex_tensors(np.random.default_rng(2), 2), zoo.convex_layers()
    assert structure_of(tmp_path, layers, tensors)
    assert structure_of(tmp_path, zoo.convex_layers("logcosh"), tensors)
    assert structure_of(tmp_path, layers, flipped(tensors, "W2"))  # the skip connection is free
    for name in ("U", "E"):
        assert not structure_of(tmp_path, layers, flipped(tensors, name))
    assert not structure_of(tmp_path, zoo.convex_layers("softplus", "logcosh"), tensors)


def test_mixtures_patches_and_guided_priors(tmp_path):
    """Posterior means, sums of patches, guidance of the prior at every weight; and one flipped sign in each."""
    rng = np.random.default_rng(3)
    mixture = zoo.mixture_tensors(rng, 2, 3, 1, 1)
    assert structure_of(tmp_path, zoo.MIXTURE, mixture, classes=1)
    both = [{**zoo.MIXTURE[0], "out": "m"}, {"op": "add", "out": "D", "in": ["m", "y"]}]
    assert structure_of(tmp_path, both, mixture, classes=1)
    for key in ("variances", "floor"):
        assert not structure_of(tmp_path, zoo.MIXTURE, flipped(mixture, key), classes=1)
        assert not structure_of(tmp_path, zoo.guided_prior(), flipped(mixture, key), classes=1)
    for w in (3.0, 7.5, 15.0, -2.0):
        assert structure_of(tmp_path, zoo.guided_prior(), mixture, classes=1, guidance=w)
        assert not structure_of(tmp_path, zoo.MIXTURE, mixture, classes=1, guidance=w)
    patches, tensors = zoo.patch_layers((1, 2, 3), (1, 2)), zoo.patch_tensors(rng, 6)
    assert structure_of(tmp_path, patches, tensors, shape=(1, 2, 3))
    assert not structure_of(tmp_path, patches, flipped(tensors, "share"), shape=(1, 2, 3))
    assert not structure_of(tmp_path, patches, flipped(tensors, "variances"), shape=(1, 2, 3))
    image = (1, 2, 4)
    reflected, tensors = zoo.reflected_layers(image, (2, 2), (1, 2)), zoo.patch_tensors(rng, 8, 4)
    assert structure_of(tmp_path, reflected, tensors, shape=image)
    assert not structure_of(tmp_path, reflected, flipped(tensors, "floor"), shape=image)
    for patch, stride in (((2, 2), (1, 4)), ((2, 3), (1, 1))):
        assert not structure_of(tmp_path, zoo.reflected_layers(image, patch, stride), tensors, shape=image)
    tensors = zoo.patch_tensors(rng, 6)
    plain = [{**patches[0], "layers": [{"op": "elementwise", "out": "D", "in": "y", "fn": "sin"}]}, patches[1]]
    assert not structure_of(tmp_path, plain, tensors, shape=(1, 2, 3))


def test_latent_trees(tmp_path):
    """Whatever the shape of the image and the weights; a negative variance or a weight that is not positive is no tree."""
    rng = np.random.default_rng(5)
    for image, alike, n, *blocks in (
        ((1, 2), False, 0),
        ((3, 2), True, 0),
        ((2, 3), True, 0),
        ((3, 5), False, 0),
        ((3, 2), False, 4),
        ((3, 2), False, 4, (3, 5)),
    ):
        layers = zoo.tree_layers(image, n)
        tensors = zoo.tree_tensors(rng, image, classes=1, alike=alike, window=n, blocks=(*blocks, (1, 1))[0])
        assert structure_of(tmp_path, layers, tensors, shape=image, classes=1)
        assert not structure_of(tmp_path, layers, tensors, shape=image, classes=1, guidance=3.0)
        guided = [{**layers[0], "guidance": "prior"}]
        assert structure_of(tmp_path, guided, tensors, shape=image, classes=1, guidance=15.0)
        for name in ("variances", *(n for n in tensors if n.startswith(("leaf", "level")))):
            assert not structure_of(tmp_path, layers, flipped(tensors, name), shape=image, classes=1)
        zero = tensors["leaf"].copy()
        zero.flat[-1] = 0
        assert not structure_of(tmp_path, layers, tensors | {"leaf": zero}, shape=image, classes=1)


def test_interval_constants_that_may_be_negative_are_not_gains(tmp_path):
    """A gain that is exactly 0 is allowed, one whose enclosure reaches below 0 is not."""
    tensors = {"E": zoo.f32([[1, 1]]), "z": zoo.f32([0.0, 1.0]), "n": zoo.f32([-1e-30, 1.0])}
    potential = [
        {"op": "elementwise", "out": "h", "in": "y", "fn": "softplus"},
        {"op": "multiply", "out": "g", "in": "h", "by": "z"},
        {"op": "affine", "out": "p", "in": "g", "weight": "E"},
    ]
    layers = [{"op": "gradient", "out": "D", "in": "y", "layers": potential}]
    assert structure_of(tmp_path, layers, tensors)
    potential[1]["by"] = "n"
    assert not structure_of(tmp_path, layers, tensors)


def test_a_guided_prior_has_no_guidance_limit(tmp_path):
    """Concavity in the guidance holds for the score's guidance only, so the kernel refuses the claim."""
    tensors = zoo.mixture_tensors(np.random.default_rng(4), 2, 3, 1, 1)
    card = zoo.write(tmp_path, "s", zoo.guided_prior(), tensors, (2,), 1)
    claim = {
        "condition": 0,
        "sigma_to": (0.5).hex(),
        "sigma_from": (1.0).hex(),
        "region": "everywhere",
        "limit": (2.0).hex(),
    }
    with pytest.raises(kernel.CertificateError, match="no guidance limit"):
        kernel.check_data(zoo.certificate(card, "guidance-limit", claim, {}), card)


def test_multipliers_prove_far_more_than_the_layers_norms(tmp_path):
    """LipSDP on a plain network: better bounds verify, and 1 % better ones or broken multipliers do not."""
    card = zoo.write(tmp_path, "p", zoo.plain_layers(1), zoo.plain_tensors(np.random.default_rng(5), 2, 5, 1), (2,))
    path, model = propose.load_model(str(card))
    p = propose.Problem(path, model, 0, 1.0, 0.4, 0.8)
    loose, tight = propose.lipschitz(p), propose.lipschitz(p, tight=True)
    assert kernel.check_data(tight.data, path).verdict == "CERTIFIED"
    a, b = (
        {k: float.fromhex(c.data["claim"][k]) for k in ("contraction", "modulus", "lipschitz")} for c in (loose, tight)
    )
    assert b["lipschitz"] < 0.9 * a["lipschitz"]
    assert b["contraction"] < 0.9 * a["contraction"]
    assert b["modulus"] > a["modulus"] + 0.05
    rng = np.random.default_rng(6)
    for _ in range(50):
        y = 3 * rng.standard_normal(2)
        j = zoo.jacobian(lambda v: zoo.step(zoo.plain_layers(1), tensors_of(card), v, 0.4, 0.8), y)
        assert np.linalg.norm(j, 2) <= b["lipschitz"] + 1e-8
        assert np.linalg.norm(np.eye(2) - j, 2) <= b["contraction"] + 1e-8
        assert np.linalg.eigvalsh((j + j.T) / 2)[0] >= b["modulus"] - 1e-8
    for key, value in b.items():
        new = json.loads(json.dumps(tight.data))
        new["claim"][key] = (value - 0.01 * abs(value) if key != "modulus" else value + 0.01).hex()
        with pytest.raises(kernel.CertificateError, match="not proved"):
            kernel.check_data(kernel.seal(new), path)
    for weights in (["0x1.0000000000000p-30"] * 10, tight.data["proof"]["multipliers"]["lipschitz"][:-1]):
        new = json.loads(json.dumps(tight.data))
        new["proof"]["multipliers"]["lipschitz"] = weights
        with pytest.raises(kernel.CertificateError, match=r"not proved|multipliers >= 0 are needed"):
            kernel.check_data(kernel.seal(new), path)


def tensors_of(card):
    return {k: np.asarray(v, np.float64) for k, v in load_file(card.with_suffix(".safetensors")).items()}
