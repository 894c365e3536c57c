"""The prover on the embedded models: what it proposes verifies, and is as tight as promised."""

import copy
import json
import os

import numpy as np
import pytest

import fpjax
import fpjax.certify.check as kernel
from fpjax import process
from fpjax.certify import propose

FULL = os.environ.get("FPJAX_FULL") == "1"
pytestmark = pytest.mark.timeout(7200 if FULL else 300)
IMAGES = 50 if FULL else 3


@pytest.fixture(scope="module")
def monotone():
    images, conditions = fpjax.samples("digits", n=IMAGES, seed=0)
    return fpjax.load("digits-monotone"), images, [int(c) for c in conditions]


def test_structure_of_the_monotone_model_at_every_step(monotone):
    den, _, _ = monotone
    card, model = propose.load_model(den)
    proved = propose.structure(card, model, process.ddim(steps=20).levels).verify(limit_s=30)
    assert proved.verdict == "CERTIFIED"
    assert "20 steps" in proved.statement


@pytest.mark.long
def test_whole_trajectories_to_1e9(monotone, tmp_path):
    """Every image: certified, unique everywhere, latent known to 1e-9 in y-coordinates; inside the solver's answer."""
    den, images, conditions = monotone
    proc = process.ddim(steps=20)
    for i, (image, c) in enumerate(zip(images, conditions, strict=True)):
        certificate = fpjax.certify.propose(den, image, proc, condition=c)
        certificate.save(tmp_path / f"{i}.json")
        assert fpjax.certify.check(tmp_path / f"{i}.json", model="digits-monotone") is fpjax.Verdict.CERTIFIED
        claim = certificate.data["claim"]
        assert certificate.radius <= 1e-9
        assert claim["unique"] == "everywhere"
        inversion = fpjax.invert(den, np.asarray(image, np.float64)[None], proc, condition=[c], tol=1e-10)
        latent = np.asarray(inversion.path, np.float64)[0, -1].ravel()
        centre = np.asarray([float.fromhex(v) for v in claim["centres"][-1]])
        assert np.linalg.norm(latent - centre) <= 1e-2 * np.linalg.norm(centre)


def test_the_image_of_a_certified_latent_is_the_image(monotone):
    """Truth from the other side: generating from the centre gives the image back."""
    den, images, conditions = monotone
    proc = process.ddim(steps=5)
    certificate = fpjax.certify.propose(den, images[0], proc, condition=conditions[0])
    import jax

    with jax.enable_x64(True):
        centre = np.asarray([float.fromhex(v) for v in certificate.data["claim"]["centres"][-1]])
        latent = np.asarray(proc.to_z(centre, proc.steps)).reshape(1, *den.shape)
        image = fpjax.generate(den, latent, proc, condition=[conditions[0]])
    assert np.max(np.abs(np.asarray(image)[0] - images[0])) < 1e-9


def test_steps_of_the_plain_model_verify_locally():
    """digits-plain: T13 in balls for the whole trajectory; no structure, so uniqueness in balls only."""
    den = fpjax.load("digits-plain")
    images, conditions = fpjax.samples("digits", n=1, seed=0)
    levels = process.ddim(steps=50).levels
    proc = process.from_sigmas(levels if FULL else levels[:6], "ddim")
    certificate = fpjax.certify.propose(den, images[0], proc, condition=int(conditions[0]))
    proved = certificate.verify()
    assert proved.verdict == "CERTIFIED"
    assert certificate.data["claim"]["unique"] == "balls"
    for path in (("radii", -1), ("radii", 0)):
        data = copy.deepcopy(certificate.data)
        data["claim"]["radii"][path[1]] = (certificate.radius * 1e-6).hex()
        with pytest.raises(kernel.CertificateError, match="not proved"):
            kernel.check_data(kernel.seal(data), certificate.card)


def test_uniqueness_ball_is_much_larger_than_the_existence_ball():
    den = fpjax.load("digits-plain")
    images, conditions = fpjax.samples("digits", n=1, seed=0)
    proc = process.ddim(steps=50)
    card, model = propose.load_model(den)
    p = propose.Problem(card, model, int(conditions[0]), 1.0, *proc.levels[-2:])
    target = images[0].ravel() * 1.0 + proc.levels[-2] * np.random.default_rng(0).standard_normal(64)
    claim = propose.step_ball(p, target, target, forms=("radii",)).data["claim"]
    assert float.fromhex(claim["uniqueness_radius"]) > 1e3 * float.fromhex(claim["radius"])


@pytest.mark.long
def test_guidance_limit_holds_below_and_not_much_above(monotone):
    """T11 on a ball around a trajectory: the limit verifies, a tenth more does not with these bounds."""
    den, images, conditions = monotone
    proc = process.ddim(steps=20)
    certificate = fpjax.certify.propose(den, images[0], proc, condition=conditions[0])
    card, model = propose.load_model(den)
    centre = [float.fromhex(v) for v in certificate.data["claim"]["centres"][9]]
    p = propose.Problem(card, model, conditions[0], 1.0, *proc.levels[9:11])
    limit = propose.guidance_limit(p, centre, 1e-6)
    assert limit.verify().facts["limit"] > 1
    above = copy.deepcopy(limit.data)
    value = float.fromhex(above["claim"]["limit"])
    above["claim"]["limit"] = (1 + 1.1 * (value - 1)).hex()
    with pytest.raises(kernel.CertificateError, match="guidance"):
        kernel.check_data(kernel.seal(above), card)


def test_audit_certificates_within_a_budget(monotone):
    den, images, conditions = monotone
    proc = process.ddim(steps=5)
    results = fpjax.certify.audit_certificates(den, proc, images[:2], conditions[:2], budget_s=60.0)
    assert [c.kind for c, _, _ in results] == ["structure", "trajectory", "trajectory"]
    assert [image for _, _, image in results] == [None, 0, 1]
    assert all(proved.verdict == "CERTIFIED" for _, proved, _ in results)
    assert fpjax.certify.audit_certificates(den, proc, images[:2], conditions[:2], budget_s=0.0) == []
    user = fpjax.Denoiser.from_function(lambda params, y, sigma, condition: y * 0.5, (), (2,))
    assert fpjax.certify.audit_certificates(user, proc, np.zeros((1, 2))) == []
    with pytest.raises(fpjax.FpjaxError, match="no model card"):
        fpjax.certify.propose(user, np.zeros(2), proc)


def test_proposing_for_the_wrong_weights_is_caught(monotone, tmp_path):
    """A certificate for one model is refused for the other."""
    den, images, conditions = monotone
    certificate = fpjax.certify.propose(den, images[0], process.ddim(steps=5), condition=conditions[0])
    (tmp_path / "c.json").write_text(json.dumps(certificate.data))
    with pytest.raises(fpjax.certify.CertificateError, match="another name"):
        fpjax.certify.check(tmp_path / "c.json", model="digits-plain")
