"""The fast arithmetic: exact answers lie inside its balls, Arb's enclosures inside its enclosures, and verdicts say so."""

# ruff: noqa: PT017

import certify_fast
import certify_gallery as gallery
import certify_mutants
import certify_problems as problems
import certify_zoo as zoo
import numpy as np
import pytest
from flint import arb, ctx

import fpjax
import fpjax.certify.check as kernel
from fpjax.certify import enclosure, fast, propose
from fpjax.certify.matrices import ArbMatrix

CASES = dict(certify_fast.cases())


@pytest.mark.parametrize("name", CASES)
def test_exact_answers_lie_inside(name):
    assert CASES[name](certify_mutants.right())


def test_both_arithmetics_have_the_same_methods():
    public = {n for n in dir(ArbMatrix) if not n.startswith("_")} | {"__add__", "__sub__", "__matmul__", "__mul__"}
    assert public <= set(dir(fast.FloatMatrix))


def compare(card, centre, radii, levels, conditions, guidances):
    """Asserts that the fast enclosures contain Arb's; returns how many were compared."""
    slow, quick, count = kernel.Model(card), kernel.Model(card, fast=True), 0
    with ctx.workprec(128):
        for condition, guidance, (low, high) in ((c, g, p) for c in conditions for g in guidances for p in levels):
            steps = [kernel.Step(m, condition, guidance, low, high) for m in (quick, slow)]
            for radius in radii:
                values = [s.denoise([arb(float(v)) for v in centre], radius) for s in steps]
                assert certify_fast.outside(*values) == "", (card.name, condition, guidance, low, high, radius)
                count += 1
                if radius is None:
                    continue
                below, modulus = (s.modulus(v) for s, v in zip(steps, values, strict=True))
                assert not below > modulus
                above, bounds = (s.lipschitz(v) for s, v in zip(steps, values, strict=True))
                assert all(not a < b for a, b in zip(above, bounds, strict=True))
    return count


RADII = (None, arb(0), arb(1e-10), arb(1e-2), arb(1), arb.pos_inf())


def test_enclosures_contain_those_of_arb_on_the_gallery(tmp_path):
    for card in gallery.models(tmp_path).values():
        size, classes = kernel.Model(card).size, kernel.Model(card).classes
        centre = np.random.default_rng(0).standard_normal(size)
        guidances = (1.0, 3.0) if classes else (1.0,)
        count = compare(card, centre, RADII, ((0.001, 0.01), (0.4, 0.7)), range(classes + 1), guidances)
        assert count == 2 * len(RADII) * (classes + 1) * len(guidances)


def test_enclosures_contain_those_of_arb_on_random_networks(tmp_path):
    rng, count = np.random.default_rng(5), 0
    for i in range(40):
        p = problems.random_problem(rng, tmp_path, problems.FAMILIES[i % len(problems.FAMILIES)])
        centre = rng.standard_normal(p.d) * 10.0 ** rng.uniform(-3, 2)
        count += compare(p.card, centre, RADII, [(p.sigma_to, p.sigma_from)], [p.condition], [p.guidance])
    assert count == 40 * len(RADII)


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e-60, 1e40, 1e160, 1e300])
def test_enclosures_contain_those_of_arb_at_extreme_scales(tmp_path, scale):
    """Weights, states and noise levels near the ends of float64, subnormal ones among them."""
    rng = np.random.default_rng(6)
    for name, layers, tensors in (
        ("plain", zoo.plain_layers(1), zoo.plain_tensors(rng, 2, 5, 1, 1, 1.0)),
        ("gradient", zoo.gradient_layers(), zoo.gradient_tensors(rng, 2, 4, 1)),
        ("mixture", zoo.MIXTURE, zoo.mixture_tensors(rng, 2, 3, 1, 1)),
    ):
        big = {k: v.astype(np.float64) * (scale if v.ndim > 1 and k != "logits" else 1) for k, v in tensors.items()}
        card = zoo.write(tmp_path, name, layers, big, (2,), 1, np.float64)
        centre = rng.standard_normal(2) * (scale if name == "mixture" else 1)
        compare(card, centre, RADII, [(0.3, 0.9)], [0], [1.0, 2.0])


def test_enclosures_contain_those_of_arb_where_arb_spares_work_on_norms(tmp_path, monkeypatch):
    """Large layers leave Arb time for few squarings of a norm; the fast path must not do more and be tighter."""
    monkeypatch.setattr(enclosure, "MAX_WORK", 2 * 12**3)
    rng = np.random.default_rng(8)
    card = zoo.write(tmp_path, "wide", zoo.plain_layers(1), zoo.plain_tensors(rng, 12, 12, 1), (12,))
    compare(card, rng.standard_normal(12), (arb(1e-8), arb(0.1)), [(0.3, 0.9)], [0], [1.0])


@pytest.mark.parametrize("name", ["digits-monotone", "digits-plain"])
def test_enclosures_contain_those_of_arb_on_the_embedded_networks(name):
    card, _ = propose.load_model(name)
    images, labels = fpjax.samples("digits", n=1, seed=0)
    levels = fpjax.process.ddim(steps=20).levels
    pairs = [(float(levels[i]), float(levels[i + 1])) for i in (0, 8)]
    assert compare(card, images[0].ravel(), (None, arb(1e-8), arb(0.1)), pairs, [int(labels[0])], [1.0]) == 6


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    return gallery.valid(gallery.models(tmp_path_factory.mktemp("gallery")))


def test_certificates_verify_and_false_ones_do_not(entries):
    """Whatever fast proves, Arb proves; what Arb proves, fast proves, but for bounds stated to Arb's last digits."""
    refused = []
    for name, data, card in entries:
        try:
            found = kernel.check_data(data, card, fast=True)
        except kernel.CertificateError as error:
            assert "broke off" not in str(error), (name, error)
            refused.append(name)
        else:
            assert found.arithmetic == "fast: float64 with proved error bounds"
            assert kernel.check_data(data, card).questions == found.questions
    print(f"\nfast: {len(entries) - len(refused)} of {len(entries)}, without {refused}")
    assert all(name.startswith(("bound", "guidance limit")) for name in refused)
    for name, data, card in gallery.false(entries):
        with pytest.raises(kernel.CertificateError):
            pytest.fail(f"{name}: {kernel.check_data(data, card, fast=True)}")


def test_what_a_search_in_fast_arithmetic_finds_arb_proves(tmp_path):
    rng, found = np.random.default_rng(7), 0
    for _ in range(12):
        p = problems.random_problem(rng, tmp_path, "plain", guidance=1.0, gain=0.5)
        card, quick = propose.load_model(str(p.card), fast=True)
        problem = propose.Problem(card, quick, p.condition, 1.0, p.sigma_to, p.sigma_from)
        y = rng.standard_normal(p.d)
        try:
            certificate = propose.step_ball(problem, y, y, forms=("radii", "monotone"))
        except (kernel.CertificateError, np.linalg.LinAlgError):
            continue
        assert certificate.verify().arithmetic == "Arb"
        assert certificate.verify(fast=True).arithmetic.startswith("fast")
        found += 1
    assert found >= 6


def test_the_default_is_arb_and_a_model_keeps_its_arithmetic(entries):
    _, data, card = entries[0]
    assert kernel.check_data(data, card).arithmetic == "Arb"
    with pytest.raises(kernel.CertificateError, match="another arithmetic"):
        kernel.check_data(data, kernel.Model(card, fast=True))
    with pytest.raises(kernel.CertificateError, match="another arithmetic"):
        kernel.check_data(data, kernel.Model(card), fast=True)


def test_larger_networks_fit_the_fast_path_only(tmp_path):
    """1,025 pixels are too many for Arb's path, and 4,097 for both."""
    layer = [{"op": "scale", "out": "D", "in": "y", "by": "half"}]
    for size, slow, quick in ((1024, True, True), (1025, False, True), (4096, False, True), (4097, False, False)):
        shape = (size,) if size <= 4096 else (17, 241)
        card = zoo.write(tmp_path, f"n{size}", layer, {"half": zoo.f32([0.5])}, shape)
        for wanted, how in ((slow, False), (quick, True)):
            try:
                kernel.Model(card, fast=how)
            except kernel.CertificateError as error:
                assert not wanted
                assert "pixels" in str(error)
            else:
                assert wanted
