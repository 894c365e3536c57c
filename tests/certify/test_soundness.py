"""Soundness fuzz: on random networks whose truth is known to 200 digits, the kernel never proves what is false.

FPJAX_FULL=1 runs the full count of problems; the ordinary run takes a sample with another seed each kind.
"""

# ruff: noqa: PT017

import collections
import copy
import dataclasses
import itertools
import json
import os

import certify_problems as problems
import certify_zoo as zoo
import mpmath
import numpy as np
import pytest

import fpjax.certify.check as kernel
from fpjax.certify import propose

FULL = os.environ.get("FPJAX_FULL") == "1"
pytestmark = pytest.mark.timeout(7200 if FULL else 300)
COUNT = 3200 if FULL else 120
SMALL = 1000 if FULL else 45


@pytest.fixture(autouse=True)
def _digits():
    with mpmath.workdps(200):
        yield


def proves(certificate, card) -> bool:
    """Whether the kernel accepts it; nothing but CertificateError may come out of a rejection."""
    data = certificate if isinstance(certificate, dict) else certificate.data
    try:
        kernel.check_data(kernel.seal(data), card, 60.0)
    except kernel.CertificateError as error:
        assert "broke off" not in str(error) or "ZeroDivision" in str(error), error
        return False
    return True


def propose_or_none(function, *args, **kwargs):
    try:
        return function(*args, **kwargs)
    except (kernel.CertificateError, np.linalg.LinAlgError):
        return None


def step_is_true(p, claim, roots) -> bool:
    """Whether a step claim (target_radius 0) agrees with the exact roots that are known."""
    centre, radius = problems.unhex(claim["centre"]), float.fromhex(claim["radius"])
    unique = claim["uniqueness_radius"]
    reach = mpmath.inf if unique == "everywhere" else mpmath.mpf(float.fromhex(unique))
    inside = [r for r in roots if problems.distance(r, centre) <= mpmath.mpf(radius)]
    near = [r for r in roots if problems.distance(r, centre) <= reach]
    return len(inside) == 1 and len(near) == 1


def corrupted(rng, data):
    """Step certificates that say something else: smaller balls, moved centres, wider uniqueness, other targets."""
    for _ in range(4):
        new = copy.deepcopy(data)
        claim, kind = new["claim"], rng.integers(6)
        radius = float.fromhex(claim["radius"])
        if kind == 0:
            claim["radius"] = (radius * float(rng.choice([0.0, 0.01, 0.3, 0.9]))).hex()
        elif kind == 1:
            centre = problems.unhex(claim["centre"])
            u = rng.standard_normal(len(centre))
            centre = centre + radius * rng.choice([0.5, 1.5, 4.0]) * u / np.linalg.norm(u)
            claim["centre"] = zoo.hexes(centre)
        elif kind == 2:
            claim["uniqueness_radius"] = str(rng.choice(["everywhere", (10.0).hex(), (0.5).hex(), (100.0).hex()]))
        elif kind == 3:
            claim["target"] = zoo.hexes(
                problems.unhex(claim["target"]) + radius * rng.standard_normal(len(claim["target"]))
            )
        elif kind == 4:
            claim["guidance"] = float(rng.choice([0.9, 1.1, 2.0])).hex()
        else:
            d = len(claim["centre"])
            form = str(rng.choice(["structure", "monotone", "radii"]))
            a = [zoo.hexes(row) for row in rng.standard_normal((d, d))] if form == "radii" else None
            new["proof"] = {"form": form, "preconditioner": a}
        yield new


@pytest.mark.long
def test_steps(tmp_path):
    """Kinds (c): honest certificates verify (>= 95 % of the certifiable), and none, honest or corrupted, is false."""
    rng, figures = np.random.default_rng(20 + FULL), collections.Counter()
    for _ in range(COUNT):
        p = problems.random_problem(rng, tmp_path)
        y, target, root = problems.planted(rng, p)
        if root is None:
            continue
        figures["problems"] += 1
        certifiable = problems.condition_number(p, root) < 1e6 and not kinked(p, root)
        figures["certifiable"] += certifiable
        roots = [root, *problems.other_roots(rng, p, target, root, 1)]
        forms = ("structure", "monotone", "radii") if rng.uniform() < 0.5 else ("radii",)
        cert = propose_or_none(propose.step_ball, p.prover(), target, y, forms=forms)
        accepted = cert is not None and proves(cert, p.card)
        figures["certified"] += accepted and certifiable
        if accepted:
            assert step_is_true(p, cert.data["claim"], roots), (cert.data["claim"], roots)
        for bad in corrupted(rng, cert.data) if cert is not None else ():
            figures["corrupted"] += 1
            if proves(bad, p.card):
                figures["corrupted, still true"] += 1
                q = p if bad["claim"]["guidance"] == cert.data["claim"]["guidance"] else regard(p, bad)
                target2 = problems.unhex(bad["claim"]["target"])
                near = q.solve(target2, problems.unhex(bad["claim"]["centre"]))
                assert near is not None
                known = roots if q is p and np.array_equal(target2, target) else [near]
                assert step_is_true(q, bad["claim"], known), (bad["claim"], known)
    report("steps", figures)
    assert figures["certified"] >= 0.95 * figures["certifiable"] > 0
    assert figures["corrupted"] > figures["corrupted, still true"]


def regard(p, data):
    return dataclasses.replace(p, guidance=float.fromhex(data["claim"]["guidance"]))


def kinked(p, root) -> bool:
    """Whether a relu of the network switches within 1e-9 of the root: then F has no derivative to speak of."""
    if '"relu2"' not in json.dumps(p.layers):
        return False
    with mpmath.workdps(40):
        r = [p.jacobian(root + np.asarray([mpmath.mpf(s)] * p.d, object)) for s in (1e-9, -1e-9)]
        return mpmath.mnorm(r[0] - r[1], 1) > 1e-6


def report(name, figures):
    print(f"\nsoundness, {name}: " + ", ".join(f"{k} {v}" for k, v in figures.items()))


def test_witnesses(tmp_path):
    """Kind (f): a factor is accepted below the exact ratio and refused above it, down to the last float."""
    rng, figures = np.random.default_rng(30 + FULL), collections.Counter()
    for _ in range(SMALL):
        p = problems.random_problem(rng, tmp_path, str(rng.choice(["plain", "mixture"])), guidance=4.0, gain=60.0)
        p.sigma_to, p.condition = 0.2 * p.sigma_from, 0
        a = rng.standard_normal(p.d)
        b = a + rng.standard_normal(p.d) * rng.choice([1e-9, 1e-3, 1.0])
        ga, gb = (zoo.Digits.array(v) - p.f(v) for v in (a, b))
        ratio = problems.distance(ga, gb) / problems.distance(a, b)
        inner = sum((u - v) * (float(s) - float(t)) for u, v, s, t in zip(p.f(a), p.f(b), a, b, strict=True))
        pp = p.prover()
        factor = float(ratio)
        below, over = (factor, np.nextafter(factor, np.inf)) if factor < ratio else (np.nextafter(factor, 0), factor)
        for value, true in ((below, True), (max(1.0, over), False)):
            if not 1 <= value < 1e12:
                continue
            claim = {**pp.claim, "points": [zoo.hexes(a), zoo.hexes(b)], "factor": float(value).hex()}
            assert proves(propose.seal(pp.card, pp.model, "witness", claim), p.card) is true, (factor, value)
            figures["planted" if true else "false"] += 1
        falls = proves(propose.decrease_witness(pp, a, b), p.card)
        assert falls is bool(inner < 0)
        figures["decreases"] += falls
    report("witnesses", figures)
    assert figures["planted"]
    assert figures["false"]
    assert figures["decreases"]


def double_root(rng, folder):
    """A 1-D step with an extremum of F: (problem, extremum y_e, F(y_e)) with y_e to 60 digits, or None."""
    p = problems.random_problem(rng, folder, str(rng.choice(["plain", "mixture", "convolution"])), 1, 4.0, 3.0)
    p.condition = 0
    grid = np.linspace(-3, 3, 81) * max(1.0, p.sigma_from)
    values = np.asarray([p.f([v], zoo.Floats)[0] for v in grid])
    turn = np.nonzero(np.diff(np.sign(np.diff(values))))[0]
    if not np.isfinite(values).all() or len(turn) == 0:
        return None
    low, high = grid[turn[0]], grid[turn[0] + 2]
    h = mpmath.mpf(10) ** -50
    try:
        y = mpmath.findroot(lambda v: (p.f([v + h])[0] - p.f([v - h])[0]) / (2 * h), (low, high), solver="anderson",
                            tol=1e-40, maxsteps=60)  # fmt: skip
    except (ValueError, ZeroDivisionError):
        return None
    return (p, y, p.f([y])[0]) if low < y < high else None


def test_double_roots_and_their_neighbours(tmp_path):
    """Planted double roots: no step certificate over both; two balls only where there are two roots; (g) only beyond."""
    rng, figures = np.random.default_rng(40 + FULL), collections.Counter()
    for _ in range(SMALL):
        made = double_root(rng, tmp_path)
        if made is None:
            continue
        p, y, value = made
        pp, h = p.prover(), mpmath.mpf("1e-3")
        curve = (p.f([y + h])[0] + p.f([y - h])[0] - 2 * value) / h**2
        if abs(curve) < 0.01:
            continue
        figures["double roots"] += 1
        # at the fold itself, rounded: whatever is accepted must be one simple root
        cert = propose_or_none(propose.step_ball, pp, [float(value)], [float(y)])
        if cert is not None and proves(cert, p.card):
            claim = cert.data["claim"]
            half = mpmath.sqrt(abs(2 * (mpmath.mpf(float(value)) - value) / curve))
            found = [p.solve([float(value)], [y + s * half], 40) for s in (1, -1)]
            assert step_is_true(p, claim, [r for r in found if r is not None])
            figures["one of a close pair"] += 1
        over = {**pp.claim, "target": [float(value).hex()], "target_radius": (0.0).hex(), "centre": [float(y).hex()],
                "radius": (1e-3).hex(), "uniqueness_radius": (1e-3).hex()}  # fmt: skip
        for form in ("monotone", "radii", "structure"):
            assert not proves(propose.seal(pp.card, pp.model, "step", over, propose.how(form)), p.card)
        # inside the fold: two roots; outside: none nearby
        sign = 1 if curve > 0 else -1
        inside, outside = float(value + sign * 1e-6), float(value - sign * 1e-6)
        half = float(mpmath.sqrt(2e-6 / abs(curve)))
        pair = propose_or_none(propose.non_uniqueness, pp, [inside], [[float(y) + half], [float(y) - half]])
        figures["pairs certified"] += pair is not None and proves(pair, p.card)
        if pair is not None:
            both = copy.deepcopy(pair.data)
            both["claim"]["balls"][1], both["proof"]["balls"][1] = both["claim"]["balls"][0], both["proof"]["balls"][0]
            assert not proves(both, p.card)
        box = [float(y) - half], [float(y) + half]
        assert not proves(propose.no_solution(pp, [inside], [box[0][0] - half], [box[1][0] + half]), p.card)
        figures["empty boxes"] += proves(propose.no_solution(pp, [outside], *box), p.card)
    report("double roots", figures)
    n = figures["double roots"]
    assert n
    assert figures["pairs certified"] >= 0.95 * n
    assert figures["empty boxes"] >= 0.95 * n


@pytest.mark.long
def test_trajectories_and_bounds(tmp_path):
    """Kinds (b) and (d): the exact latent lies in the ball; bounds below an observed slope are refused."""
    rng, figures = np.random.default_rng(50 + FULL), collections.Counter()
    for _ in range(SMALL):
        p = problems.random_problem(rng, tmp_path)
        levels = [0.05, 0.2, 0.6, 1.5]
        points, low = [rng.standard_normal(p.d).round(3)], p
        target = zoo.Digits.array(points[0])
        for a, b in itertools.pairwise(levels):
            p.sigma_to, p.sigma_from = a, b
            root = p.solve(target, [float(v) for v in target], 25)
            if root is None:
                break
            target = root
            points.append([float(v) for v in root])
        pp = p.prover()
        if len(points) == 4:
            figures["trajectories"] += 1
            cert = propose_or_none(propose.trajectory, pp.card, pp.model, levels, points, p.condition, p.guidance)
            if cert is not None and proves(cert, p.card):
                figures["certified"] += 1
                centre = problems.unhex(cert.data["claim"]["centres"][-1])
                assert problems.distance(centre, target) <= mpmath.mpf(cert.radius)
                short = copy.deepcopy(cert.data)
                away = float(problems.distance(centre, target))
                short["claim"]["radii"][-1] = (away * 0.99).hex()
                assert not proves(short, p.card)
        bound = propose_or_none(propose.lipschitz, pp, [0.1] * p.d, 0.01)
        if bound is None or not proves(bound, p.card):
            continue
        figures["bounds"] += 1
        j = np.asarray(low.jacobian([0.1] * p.d).tolist(), dtype=float)
        g, m = np.linalg.norm(np.eye(p.d) - j, 2), np.linalg.eigvalsh((j + j.T) / 2)[0]
        lies = {
            "contraction": g * (1 - 1e-9),
            "modulus": m + 1e-9 * (1 + abs(m)),
            "lipschitz": np.linalg.norm(j, 2) * (1 - 1e-9),
        }
        for key, value in lies.items():
            false = copy.deepcopy(bound.data)
            false["claim"][key] = float(value).hex()
            assert not proves(false, p.card), key
            figures["false bounds"] += 1
    report("trajectories and bounds", figures)
    assert figures["certified"]
    assert figures["bounds"]
    assert figures["false bounds"]
