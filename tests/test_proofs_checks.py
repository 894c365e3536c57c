import ast
import copy
import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import proofs_checks
from proofs_checks import claims, page
from proofs_checks.__main__ import main, problems, run, run_claim
from proofs_checks.base import Outcome, conclude
from proofs_checks.claims.base import search, size

ROOT = Path(proofs_checks.__file__).parent
MODULES = proofs_checks.modules()
CLAIMS = claims.modules()
PLAN = ["E1", "E2", "E3", *(f"T{i}" for i in range(1, 17))]
SYMBOLIC = ("e1.symbolic", "e2.symbolic", "e3.symbolic", "t1.symbolic", "t3.window", "t4.factor_formula", "t5.best",
            "t6.best", "t7.lag_formula", "t11.limit", "t12.length", "t14.affine_identity")  # fmt: skip


def name(module):
    return module.statement.name


@pytest.fixture(scope="module")
def rows():
    """One run of every theorem, shared by the tests below."""
    return {name(m): run(m, samples=100, seed=1) for m in MODULES}


def test_modules_are_found_by_folder():
    assert [name(m) for m in MODULES] == PLAN


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_the_instance_holds_and_the_broken_one_violates_one_hypothesis(module, rows):
    row = rows[name(module)]
    assert row["verdict"] == "holds", row["detail"]


@pytest.mark.parametrize("module", MODULES, ids=name)
def test_a_module_has_its_proof_and_names(module):
    assert module.broken_instance().violates in module.statement.hypotheses
    assert module.instance().violates is None
    text = ast.get_docstring(ast.parse(Path(module.__file__).read_text(encoding="utf-8")))
    assert len(text.splitlines()) <= 40
    assert "**Proof**" in text or "**Proof.**" in text
    assert "∎" in text


def test_the_runner_notices_what_a_module_does_wrong():
    t2 = importlib.import_module("proofs_checks.t2")
    good = conclude({"range": True, "modulus": True}, True, "sampled", 1, "")
    broken = t2.broken_instance()
    bad = conclude({"range": True, "modulus": False}, None, "sampled", 1, "")
    assert problems(t2, good, broken, bad) == []
    two = conclude({"range": False, "modulus": False}, None, "sampled", 1, "")
    other = conclude({"range": False, "modulus": True}, None, "sampled", 1, "")
    half = conclude({"range": True}, True, "sampled", 1, "")
    for wrong in (two, other, good, half):
        assert problems(t2, good, broken, wrong)
    for wrong in (bad, half, conclude({"range": True, "modulus": True}, False, "sampled", 1, "")):
        assert problems(t2, wrong, broken, bad)


def test_a_hypothesis_or_the_claim_alone_makes_an_outcome_fail():
    assert conclude({"a": True}, True, "sampled", 1, "").holds
    for wrong in (conclude({"a": False}, True, "", 0, ""), conclude({"a": True}, False, "", 0, "")):
        assert not wrong.holds
    assert conclude({"a": False, "b": True}, False, "", 0, "").failed == ("a", "claim")
    assert not conclude({"a": True}, None, "", 0, "").holds


@pytest.mark.parametrize("path", SYMBOLIC)
def test_identities_are_proved_symbolically(path, rows):
    module, function = path.split(".")
    module = importlib.import_module(f"proofs_checks.{module}")
    assert getattr(module, function)() is True
    assert "symbolic" in rows[name(module)]["how"]


@pytest.mark.parametrize(
    ("file", "function", "old", "new"),
    [
        ("e2", "symbolic", "(1 - rho) * (y - d), rho", "(1 - rho) * (y + d), rho"),
        ("e3", "symbolic", "covariance / s**2", "covariance / s"),
        ("t4", "factor_formula", "wanted = (1 - s / t)", "wanted = s / t"),
        ("t5", "best", "[m / lipschitz**2]", "[m / lipschitz]"),
        ("t6", "best", "2 / (2 * rho + keep * bound), keep", "1 / (2 * rho + keep * bound), keep"),
        ("t7", "lag_formula", "/ sympy.log(1 / kappa) - 1", "/ sympy.log(1 / kappa)"),
        ("t12", "length", "-sympy.log(p)", "sympy.log(p)"),
        ("t14", "affine_identity", "(1 - alpha) * r(second)", "alpha * r(second)"),
        ("t1", "symbolic", "a = rho + (1 - rho) * c", "a = rho + c"),
    ],
)
def test_a_wrong_identity_is_not_proved(file, function, old, new):
    source = (ROOT / f"{file}.py").read_text(encoding="utf-8")
    assert source.count(old) == 1
    space = {"__name__": f"wrong_{file}"}
    exec(compile(source.replace(old, new), file, "exec"), space)
    assert space[function]() is False


def test_broken_instances_do_not_certify():
    """T1, T10 and T16 by the kernel: no structure and no solution at rho = 0, and no radius below the rounding noise."""
    from proofs_checks import t1, t10, t16

    for module, told in ((t1, "no solution in the box"), (t10, "no solution in the box"), (t16, "the kernel refuses")):
        bad = module.check(module.broken_instance(), samples=20)
        assert "claim" in bad.failed
        assert told in bad.detail


def test_existence_needs_each_of_its_hypotheses():
    """T1: where D pulls back as far as rho pushes, F is bounded, and the kernel proves that a target is not reached."""
    from proofs_checks import t1

    data = t1.instance().data
    rho = data["sigma_to"] / data["sigma_from"]
    bad = t1.check(dataclasses.replace(t1.instance(), data={**data, "c": -rho / (1 - rho)}), samples=20)
    assert bad.failed == ("linear", "claim")
    assert "no solution in the box" in bad.detail


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_radius_below_the_error_is_never_proved(share):
    from fpjax.certify import propose
    from proofs_checks import certificates as cert
    from proofs_checks import t16

    found = t16.check(t16.instance(), samples=10)
    small = copy.copy(t16.instance())
    below = share * found.figures["error"] / found.figures["claimed"]
    bad = t16.check(dataclasses.replace(small, data={**small.data, "share": below}), samples=10)
    assert not bad.holds
    assert "the kernel refuses" in bad.detail
    assert cert.derive(propose.no_solution, cert.step("points", 0.1, 0.4), [0.4, 0.3], [-4, -4], [4, 4]).holds is False


def test_a_failing_theorem_makes_the_command_fail(monkeypatch, capsys):
    """Break a theorem: an instance that does not hold must give exit code 1."""
    from proofs_checks import t8

    assert main(["T8", "--samples", "20"]) == 0
    monkeypatch.setattr(t8, "instance", t8.broken_instance)
    assert main(["T8", "--samples", "20", "--json"]) == 1
    out = capsys.readouterr().out
    assert json.loads(out[out.index("[") :])[0]["verdict"] == "FAILS"


def test_a_check_that_always_says_yes_is_caught(monkeypatch):
    from proofs_checks import e1

    monkeypatch.setattr(e1, "check", lambda instance, samples, seed: Outcome(True, "sampled", samples, "fine"))
    assert run(e1, 10, 0)["verdict"] == "FAILS"


def test_bad_arguments(capsys):
    assert main(["T99"]) == 2
    assert main(["--claims", "eq99"]) == 2
    assert main(["--samples", "0"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_the_command():
    done = subprocess.run([sys.executable, "-m", "proofs_checks", "E1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("E1   holds")
    assert "symbolic, sampled (200), formal (Coq)" in done.stdout


def test_the_html_page_escapes_and_closes_what_it_opens(capsys):
    from html.parser import HTMLParser

    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.text = [], []

        def handle_starttag(self, tag, attrs):
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

        def handle_data(self, data):
            self.text.append(data)

    assert main(["E2", "--samples", "5", "--html"]) == 0
    reader = Reader()
    out = capsys.readouterr().out
    reader.feed(out)
    assert reader.open == []
    assert "0 <= sigma_s < sigma_t" in reader.text
    assert "http" not in out  # nothing is fetched


def test_the_page_of_theorems_is_the_one_that_the_command_writes(rows):
    """Words, methods and proofs; the numbers of points are those of the command's default."""
    shown = (ROOT.parent / "docs" / "theorems.md").read_text(encoding="utf-8")
    for module in MODULES:
        row = rows[name(module)]
        assert f"| [{row['name']}](#{row['name'].lower()}) | {page._cell(row['title'])} | " in shown
        assert (module.__doc__ or "").strip() in shown
        for text in (*row["hypotheses"].values(), row["claim"], row["source"]):
            assert page._cell(text) in shown or text in shown
    assert "FAILS" not in shown


@pytest.mark.parametrize("module", CLAIMS, ids=lambda m: m.__name__.split(".")[-1])
def test_a_claim_on_its_small_problems(module):
    """The example holds, the counterexample does not, and no smaller one is found."""
    example, counter = module.instance(), module.broken_instance()
    if example is not None:
        assert module.check(example).holds
    if counter is not None:
        assert not module.check(counter).holds
    stored = example if module.statement.exists else counter
    found = search(module, seed=1, examples=250)
    if stored is None:
        assert found is None
        return
    assert found is not None
    assert module.check(found).holds is module.statement.exists
    assert size(found) >= size(stored), found.data


def test_the_smallest_problems_are_checked_by_exact_arithmetic():
    """Data -1 and 1, sigma_t = 0.2, sigma_s = 0.1: f has slope -12 between them, in closed form."""
    from proofs_checks.claims import renoise

    p = renoise.problems.problem(renoise.broken_instance())
    assert renoise.local_factor(p, p.target) == pytest.approx(abs(0.5 * (1 - 1 / 0.2**2)), rel=1e-12)


def test_every_claim_is_on_the_page_with_a_reason():
    shown = (ROOT.parent / "docs" / "claims.md").read_text(encoding="utf-8")
    assert len(CLAIMS) == 13
    assert len({m.statement.order for m in CLAIMS}) == len(CLAIMS)
    for module in CLAIMS:
        s = module.statement
        assert f"## {s.name}\n\n{s.who}: {s.text}.\n" in shown
        assert f"Why: {s.reason}." in shown
        assert any(mark in s.reason for mark in ("T", "E2", "E3"))


def test_a_claim_gives_a_verdict_for_each_model(monkeypatch):
    """The factor of T4 on four images: shares agree with their definition, and both embedded models have theirs."""
    from proofs_checks.claims import factor, measure

    monkeypatch.setattr(measure, "GRIDS", (10,))
    row = run_claim(factor, 40, 0)
    by_model = {r["model"]: r for r in row["rows"]}
    assert set(by_model) == {f"{m}, {n} steps" for m in measure.MODELS for n in measure.GRIDS}
    m = measure.measure("digits-monotone", 4, 0, 10)
    figures = by_model["digits-monotone, 10 steps"]["figures"]
    assert figures["share, at the solution"] == (m.kappa < 1).mean()
    assert figures["share, k = 0.5"] <= figures["share, k = 0.1"] <= figures["share, at the solution"]
    assert figures["ratio least"] <= figures["ratio 50 %"] <= figures["ratio largest"] == m.kappa.max()
    assert by_model["gaussian, 10 steps"]["verdict"] == "holds"  # J < 1 for a Gaussian, at every step (E3)
    assert by_model["empirical data, 10 steps"]["verdict"] == "fails"


def test_what_is_measured_is_what_it_says():
    """A known solution, its Jacobian by differences, and plain iteration by hand, for one lane."""
    import jax.numpy as jnp
    import numpy as np

    from proofs_checks.claims import measure

    m = measure.measure("mixture", 4, 0, 10)
    assert m.jacobian.shape == (10, 4, 64, 64)
    assert (np.linalg.eigvalsh(m.jacobian[3, 1]) > -1e-12).all()
    np.testing.assert_allclose(m.jacobian, np.swapaxes(m.jacobian, 2, 3), atol=1e-12)
    assert (m.ratio <= 1 + 1e-9).all()
    # Where G contracts at both ends, losses fall at most by that factor and the solution is reached.
    assert (m.error[m.converged][:, -1] <= m.error[m.converged][:, 0]).all()
    den = measure.denoiser("mixture")
    assert den.params["means"].dtype == jnp.float64
    far = den(jnp.full((8, 8), 0.1), 1e3)
    np.testing.assert_allclose(far, np.tensordot(_weights(den), den.params["means"], 1).reshape(8, 8), atol=1e-3)


def _weights(den):
    import numpy as np

    logits = np.asarray(den.params["logits"])[0]
    return np.exp(logits) / np.exp(logits).sum()


@pytest.mark.slow
def test_the_verdicts_on_the_page_are_reproduced(capsys):
    shown = (ROOT.parent / "docs" / "claims.md").read_text(encoding="utf-8")
    for module in CLAIMS:
        row = run_claim(module, 200, 0)
        section = shown.split(f"\n## {row['name']}\n")[1].split("\n## ")[0]
        for r in row["rows"]:
            assert f"| {r['model']} | {r['verdict']} |" in section
