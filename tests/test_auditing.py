"""The audit's verdicts: they follow from the measurements, witnesses can be evaluated again, and nothing is said too loudly."""

import json

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest

import fpjax
from fpjax import process, report
from fpjax.evidence import Bound, Evidence, FpjaxError, Verdict
from fpjax.models import exact
from fpjax.step import G, Step, denoised


@pytest.fixture(scope="module")
def monotone():
    x, c = fpjax.samples("digits", 4)
    den = fpjax.load("digits-monotone")
    return fpjax.audit(
        den, process.ddim(5), images=x.astype(np.float64), condition=c, guidance=[1.0, 7.5], histories=()
    )


@pytest.fixture(scope="module")
def plain():
    x, c = fpjax.samples("digits", 4)
    den = fpjax.load("digits-plain")
    return fpjax.audit(den, process.ddim(10), images=x.astype(np.float64), condition=c, limit=20, histories=())


def rows(rep, question, guidance=1.0):
    return [r for r in rep.table if r["question"] == question and r["guidance"] == guidance]


def step_of(rep, row, image):
    """The step of a row, rebuilt from what the report says, for one image."""
    den = fpjax.load(rep.model).astype(jnp.float64)
    _, c = fpjax.samples("digits", 4)
    w = None if row["guidance"] == 1.0 else jnp.asarray(row["guidance"])
    sigma, rho = jnp.asarray(row["sigma_from"]), jnp.asarray(row["sigma_to"] / row["sigma_from"])
    return Step(den, sigma, rho, jnp.zeros(den.shape), jnp.asarray(c[image]), w)


def test_every_step_gets_every_question(monotone):
    assert len(monotone.table) == 2 * 5 * 6
    keys = {(r["guidance"], r["step"], r["question"]) for r in monotone.table}
    assert len(keys) == len(monotone.table)
    for row in monotone.table:
        assert row["rho"] == pytest.approx(row["sigma_to"] / row["sigma_from"])


def test_the_monotone_model_is_never_refuted_or_unsupported_on_uniqueness(monotone):
    assert all(Verdict(v).holds for v in monotone.verdicts("uniqueness", 1.0))
    assert all(Verdict(v).holds for v in monotone.verdicts("existence", 1.0))
    assert monotone.round_trip[0]["solved"] == 4
    assert monotone.round_trip[0]["max_error"] < 1e-8


def test_the_plain_model_fails_at_small_sigma_with_a_witness(plain):
    first = rows(plain, "uniqueness")[0]
    assert first["step"] == 1
    assert first["verdict"] == "INCONCLUSIVE"
    assert first["value"] < 0
    witness = first["witness"]
    p = step_of(plain, first, witness["image"])
    v = jnp.asarray(witness["direction"]).reshape(8, 8)
    y = jnp.asarray(witness["point"]).reshape(8, 8)
    jv = jax.jvp(lambda u: denoised(u, p), (y,), (v,))[1]
    again = first["rho"] + (1 - first["rho"]) * float(jnp.vdot(v, jv) / jnp.vdot(v, v))
    assert again == pytest.approx(witness["modulus"], rel=1e-6)
    assert plain.round_trip[0]["solved"] < 4
    assert rows(plain, "existence")[0]["verdict"] == "INCONCLUSIVE"
    assert rows(plain, "existence")[0]["witness"]["exit"] in ("STALLED", "STEP_LIMIT", "DIVERGED", "NONFINITE")


def test_refuted_contraction_has_a_pair_that_anyone_can_evaluate(monotone, plain):
    count = 0
    for rep in (monotone, plain):
        for row in rep.table:
            if row["question"] == "contraction" and row["verdict"] == "REFUTED":
                w = row["witness"]
                p = step_of(rep, row, w["image"])
                a, b = (jnp.asarray(w[k]).reshape(8, 8) for k in "ab")
                ratio = float(jnp.linalg.norm((G(a, p) - G(b, p)).ravel()) / jnp.linalg.norm((a - b).ravel()))
                assert ratio == pytest.approx(w["ratio"], rel=1e-9)
                assert ratio > 1
                count += 1
    assert count > 0


def test_nothing_is_called_certified_without_a_checker(monotone, plain):
    for row in monotone.table + plain.table:
        assert row["verdict"] != "CERTIFIED"
        assert row["evidence"] in ("ASSUMED", "SAMPLED")


def test_guidance_takes_the_guarantee_away(monotone):
    assert not all(Verdict(v).holds for v in monotone.verdicts("uniqueness", 7.5))
    limits = [r["value"] for r in rows(monotone, "guidance-limit")]
    assert all(limit > 1 for limit in limits)
    beyond = [r for r in rows(monotone, "guidance-limit", 7.5) if r["value"] < 7.5]
    assert all(r["verdict"] == "INCONCLUSIVE" for r in beyond)


@pytest.mark.long
def test_t4_through_the_audit():
    """Data ±1 at t = 20: contraction refuted, uniqueness supported, plain iteration fails, the solver arrives."""
    grid = process.ddim(50, schedule="scaled_linear", spacing="leading")
    first = process.from_sigmas(grid.sigmas[:2], kind="ddim")
    den = exact.mixture([[-1.0], [1.0]], 0.0)
    rep = fpjax.audit(den, first, images=np.asarray([[0.05]]), histories=())
    verdicts = {r["question"]: r for r in rep.table}
    assert verdicts["contraction"]["verdict"] == "REFUTED"
    assert verdicts["contraction"]["value"] > 30
    assert Verdict(verdicts["uniqueness"]["verdict"]).holds
    assert verdicts["convergence"]["verdict"] == "REFUTED"
    assert Verdict(verdicts["existence"]["verdict"]).holds
    assert rep.round_trip[0]["max_error"] < 1e-11
    assert "guidance-limit" not in verdicts  # there is nothing to guide


@pytest.mark.long
def test_a_contracting_problem_is_supported_throughout():
    den = exact.gaussian(np.zeros(3), np.eye(3))
    rep = fpjax.audit(den, process.edm(10, sigma_min=0.5, sigma_max=2.0), images=np.zeros((2, 3)) + 0.1, histories=())
    assert {r["verdict"] for r in rep.table} == {"SUPPORTED"}


def test_a_denoiser_that_returns_nan_is_inconclusive():
    den = fpjax.Denoiser.from_function(lambda p, y, s, c: y * jnp.nan, (), (2,))
    rep = fpjax.audit(den, process.ddim(2), images=np.ones((2, 2)), histories=("picard", "auto"))
    for row in rep.table:
        assert row["verdict"] in ("INCONCLUSIVE", "REFUTED")
        assert row["verdict"] != "REFUTED" or row["question"] == "convergence"
    json.loads(report.to_json(rep))


def test_the_json_follows_its_schema_and_a_wrong_one_does_not(monotone):
    data = json.loads(report.to_json(monotone))
    jsonschema.validate(data, report.schema())
    assert data["guidance"] == [1.0, 7.5]
    data["rows"][0]["verdict"] = "PROBABLY"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, report.schema())


def test_the_page_is_self_contained_and_escaped(monotone, tmp_path):
    monotone.model, kept = "<img src=x onerror=alert(1)>", monotone.model
    try:
        page = monotone.save(tmp_path).read_text()
    finally:
        monotone.model = kept
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page
    for foreign in ('src="http', 'href="http', "<script src", "@import"):
        assert foreign not in page
    assert sorted(p.name for p in tmp_path.iterdir()) == ["audit.json", "report.html", "report.md"]


@pytest.mark.long
def test_float32_audits_say_so():
    x, c = fpjax.samples("digits", 2)
    rep = fpjax.audit(fpjax.load("digits-monotone"), process.ddim(3), images=x, condition=c, histories=())
    assert (rep.settings["precision"], rep.settings["tol"], rep.settings["seed"]) == ("float32", 1e-6, 0)
    assert rep.guidance == [1.0]
    assert all(Verdict(v).holds for v in rep.verdicts("uniqueness"))


def test_bounds_combine_to_the_weaker_evidence():
    a, b = Bound(2.0, Evidence.ENCLOSED, source="T3"), Bound(3.0, Evidence.SAMPLED, source="T2")
    assert a.combine(b, 6.0) == Bound(6.0, Evidence.SAMPLED, "2", "T3 + T2")
    with pytest.raises(ValueError, match="norm"):
        a.combine(Bound(1.0, Evidence.SAMPLED, norm="inf"), 1.0)


def test_no_guidance_at_all_is_refused():
    with pytest.raises(FpjaxError):
        fpjax.audit(exact.gaussian(np.zeros(1), np.eye(1)), process.ddim(2), images=np.zeros((1, 1)), guidance=[])
