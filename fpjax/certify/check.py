"""The trusted kernel: re-derives what a certificate claims, with python-flint balls and the standard library alone.

In this room: each kind of certificate (format.md), its fields and its last inequality. It stands on two more files and
nothing else of fpjax: reading.py (hostile files) and enclosure.py (networks over balls), so it also runs alone:
``python check.py FILE... --model CARD_OR_FOLDER``. Not in this room: anything that searches.
"""

import argparse
import importlib.util
import math
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from flint import arb, arb_mat, ctx, fmpq  # pyright: ignore[reportMissingModuleSource]

if not __package__:  # run as a plain file: the two files beside it, under the names that they have in the package
    for neighbour in (f"fpjax.certify.{name}" for name in ("reading", "enclosure")):
        if neighbour not in sys.modules:
            path = Path(__file__).resolve().with_name(neighbour.rpartition(".")[2] + ".py")
            spec = importlib.util.spec_from_file_location(neighbour, path)
            assert spec is not None
            assert spec.loader is not None
            sys.modules[neighbour] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[neighbour])

from fpjax.certify.enclosure import INF, ZERO, Step, Value, dot, exact, eye, guides_prior, largest, norm, norm2  # noqa: I001
from fpjax.certify.reading import CERTIFICATE, MAX_FILE, CertificateError, Model, anything, digest, levels, listof
from fpjax.certify.reading import load_bytes, load_json, nullable, real, record, require, seal, whole, word

__all__ = ["CertificateError", "Model", "Proved", "Step", "check", "check_data", "seal"]
MAX_BOXES = 20000
WELL_POSED = {"existence": "CERTIFIED", "uniqueness": "CERTIFIED"}
BOUNDS = ("contraction", "modulus", "lipschitz")


@dataclass(frozen=True)
class Proved:
    """What the kernel has re-derived: a sentence, the verdict on each audit question it settles, and numbers."""

    kind: str
    model: str
    statement: str
    questions: dict[str, str]
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """CERTIFIED, or REFUTED where the certificate proves that a property fails."""
        return "REFUTED" if "REFUTED" in self.questions.values() else "CERTIFIED"


def balls(values: list[float]) -> list[arb]:
    """Exact balls."""
    return [arb(v) for v in values]


def step_of(model: Model, claim: dict, guidance: float | None = None) -> Step:
    """The step that a claim is about."""
    w = claim["guidance"] if guidance is None else guidance
    return Step(model, claim["condition"], w, claim["sigma_to"], claim["sigma_from"])


def local_bounds(step: Step, centre: list[arb], radius: arb, form: str, a: arb_mat | None = None) -> tuple:
    """On B(centre, radius): (None, m > 0) for the monotone forms, (A, Z < 1) for the radii form. Either means that
    the ball holds at most one solution (T2; T13)."""
    if form == "structure":
        require(step.monotone(), "the layers are not of a form that is monotone by construction, or rho = 0")
        return None, step.rho
    value = step.denoise(centre, radius)
    if form == "monotone":
        m = step.modulus(value)
        require(m > 0, "m > 0 was not proved on the ball")
        return None, m
    f, e = step.derivative(value)
    a = f.mid().inv().mid() if a is None else a
    z = norm2(eye(step.model.size) - a * f) + norm2(a) * e
    require(z < 1, "Z < 1 was not proved on the ball")
    return a, z


def form_of(model: Model, proof: dict) -> tuple[str, arb_mat | None]:
    """The form of T13 and the preconditioner, if the certificate brings one."""
    a, n = proof["preconditioner"], model.size
    require(a is None or proof["form"] == "radii", "only the radii form takes a preconditioner")
    return proof["form"], None if a is None else arb_mat(n, n, [arb(v) for row in a for v in row])


def prove_ball(step: Step, target: list[arb], slack: arb, centre: list[arb], radius: arb, proof: dict) -> None:
    """T13: for every y_s within ``slack`` of ``target``, F(y) = y_s has exactly one solution in B(centre, radius)."""
    rest = step.residual(centre, target)
    a, bound = local_bounds(step, centre, radius, *form_of(step.model, proof))
    if a is None:
        require(norm(rest) + slack <= bound * radius, "||F(centre) - target|| + slack <= m r was not proved")
    else:
        y = norm((a * arb_mat(len(rest), 1, rest)).entries())
        require(y + norm2(a) * slack + bound * radius <= radius, "Y + ||A|| slack + Z r <= r was not proved")


def region_of(step: Step, region) -> tuple[list[arb], arb, str]:
    """Centre and radius of the region of a claim, "everywhere" or a ball, and the region in words."""
    if region == "everywhere":
        return [ZERO] * step.model.size, INF, region
    return balls(region["centre"]), arb(region["radius"]), f"on a ball of radius {region['radius']:.3g}"


def prove_structure(model: Model, claim: dict, proof: dict) -> tuple:
    """(a) Monotone by construction at every step: exactly one solution for every target (T2, T6)."""
    pairs = list(pairwise(claim["levels"]))
    for condition in claim["conditions"]:
        for low, high in pairs:
            step = Step(model, condition, claim["guidance"], low, high)
            require(step.monotone(), "the layers are not of a form that is monotone by construction, or rho = 0")
    text = f"each of {len(pairs)} steps has exactly one solution for every target, modulus >= rho"
    return text, WELL_POSED, {"modulus": min(a / b for a, b in pairs)}


def prove_lipschitz(model: Model, claim: dict, proof: dict) -> tuple:
    """(b) Bounds on a region: of the Lipschitz constants of G and F, and of the modulus (T2, T3, T5)."""
    step, parts = step_of(model, claim), {k: claim[k] for k in BOUNDS if claim[k] is not None}
    require(len(parts) > 0, "the claim states no bound")
    centre, radius, place = region_of(step, claim["region"])
    given = {k: v for k, v in proof.get("multipliers", {}).items() if v is not None}
    value: Value | None = None
    for k, stated in parts.items():
        if k in given:
            holds = step.multiplied(centre, radius, k, arb(stated), balls(given[k]))
        else:
            value = step.denoise(centre, radius) if value is None else value
            bound = step.modulus(value) if k == "modulus" else step.lipschitz(value)[k == "lipschitz"]
            holds = bool(bound >= stated) if k == "modulus" else bool(bound <= stated)
        require(holds, f"the bound of the {k} was not proved")
    one = parts.get("contraction", 2.0) < 1
    many = one or parts.get("modulus", 0.0) > 0
    questions = {"uniqueness": many, "existence": many and place == "everywhere", "contraction": one}
    text = ", ".join(f"{k} {v:.6g}" for k, v in parts.items()) + f" {place}"
    return text, {k: "CERTIFIED" for k, v in questions.items() if v} or {"bound": "CERTIFIED"}, parts


def prove_guidance_limit(model: Model, claim: dict, proof: dict) -> tuple:
    """(b, T11) m > 0 on the region for all guidance from 1 to the limit: lambda_min is concave in the guidance, so
    m > 0 at both ends is enough. (Guidance of the prior is not linear in w, and needs no limit.)"""
    require(not guides_prior(model.layers), "a guided prior has no guidance limit: it is monotone at every guidance")
    place, limit = "", claim["limit"]
    for w, t in zip((1.0, limit), proof.get("multipliers", (None, None)), strict=True):
        step = step_of(model, claim, w)
        centre, radius, place = region_of(step, claim["region"])
        if t is None:
            holds = bool(step.modulus(step.denoise(centre, radius)) > 0)
        else:
            holds = step.multiplied(centre, radius, "modulus", ZERO, balls(t))
        require(holds, f"m > 0 was not proved at guidance {w:.6g}")
    return f"unique {place} at every guidance from 1 to {limit:.6g}", {"guidance-limit": "CERTIFIED"}, {"limit": limit}


def prove_step(model: Model, claim: dict, proof: dict) -> tuple:
    """(c) One step: existence in B(centre, radius), uniqueness in B(centre, uniqueness_radius) (T13)."""
    step, unique, radius = step_of(model, claim), claim["uniqueness_radius"], claim["radius"]
    centre = balls(claim["centre"])
    prove_ball(step, balls(claim["target"]), arb(claim["target_radius"]), centre, arb(radius), proof)
    if unique == "everywhere":
        require(step.monotone(), "uniqueness everywhere was not proved")
    else:
        require(unique >= radius, "uniqueness_radius must be at least radius")
        local_bounds(step, centre, arb(unique), *form_of(model, proof))
    text = f"exactly one solution within {radius:.3g} of the centre, no other "
    text += unique if unique == "everywhere" else f"within {unique:.3g}"
    return text, WELL_POSED | {"error": "CERTIFIED"}, {"radius": radius}


def prove_trajectory(model: Model, claim: dict, proof: dict) -> tuple:
    """(d) A whole trajectory: each solution lies in its ball, given that the one before does (T13)."""
    pairs, everywhere = list(pairwise(claim["levels"])), claim["unique"] == "everywhere"
    for part in (claim["centres"], claim["radii"], proof["steps"]):
        require(len(part) == len(pairs), "the trajectory needs one entry for each step")
    target, slack = balls(claim["image"]), ZERO
    for i, (low, high) in enumerate(pairs):
        step, centre, radius = Step(model, claim["condition"], claim["guidance"], low, high), *ball_at(claim, i)
        try:
            prove_ball(step, target, slack, centre, radius, proof["steps"][i])
            require(not everywhere or step.monotone(), "uniqueness everywhere was not proved")
        except CertificateError as error:
            raise CertificateError(f"step {i}: {error}") from None
        target, slack = centre, radius
    radius = claim["radii"][-1]
    text = (
        f"the inversion over {len(pairs)} steps has exactly one solution {'' if everywhere else 'in the balls given '}"
    )
    text += f"and its latent lies within {radius:.3g} of the last centre"
    return text, WELL_POSED | {"error": "CERTIFIED"}, {"radius": radius}


def ball_at(claim: dict, i: int) -> tuple[list[arb], arb]:
    """Ball i of a trajectory."""
    return balls(claim["centres"][i]), arb(claim["radii"][i])


def prove_non_uniqueness(model: Model, claim: dict, proof: dict) -> tuple:
    """(e) Two disjoint balls, each proved to hold a solution (T13)."""
    step, target, pair = step_of(model, claim), balls(claim["target"]), claim["balls"]
    for ball, form in zip(pair, proof["balls"], strict=True):
        prove_ball(step, target, ZERO, balls(ball["centre"]), arb(ball["radius"]), form)
    first, second = ([exact(v) for v in b["centre"]] for b in pair)
    reach = exact(pair[0]["radius"]) + exact(pair[1]["radius"])
    distance2 = sum(((p - q) ** 2 for p, q in zip(first, second, strict=True)), fmpq(0))
    require(bool(distance2 > reach**2), "the balls are not disjoint")
    facts = {"distance": math.sqrt(float(arb(distance2)))}
    return "two different solutions", {"existence": "CERTIFIED", "uniqueness": "REFUTED"}, facts


def prove_witness(model: Model, claim: dict, proof: dict) -> tuple:
    """(f) A pair of points that G pushes apart by more than ``factor`` >= 1 (T3 fails on any set that holds both), or,
    where ``factor`` is null, a pair between which F decreases (T2's hypothesis fails)."""
    step, factor = step_of(model, claim), claim["factor"]
    first, second = (balls(p) for p in claim["points"])
    gap = [p - q for p, q in zip(first, second, strict=True)]
    images = [p - q for p, q in zip(*(step.residual(v, [ZERO] * len(v)) for v in (first, second)), strict=True)]
    if factor is None:
        require(dot(images, gap) < 0, "that F decreases between the points was not proved")
        return "F is not monotone: it decreases between the two points", {"monotonicity": "REFUTED"}, {}
    moved = [p - q for p, q in zip(gap, images, strict=True)]
    require(dot(moved, moved) > arb(factor) ** 2 * dot(gap, gap), "that G pushes the points apart was not proved")
    return f"G pushes two points apart by more than {factor:.6g}", {"contraction": "REFUTED"}, {"factor": factor}


def prove_no_solution(model: Model, claim: dict, proof: dict) -> tuple:
    """(g) No solution in a box, by bisection: on each piece a component of F - target keeps its sign."""
    step, n, target = step_of(model, claim), model.size, balls(claim["target"])
    require(n <= 4, "a box of at most 4 dimensions is needed")
    boxes, count = [list(zip(claim["lower"], claim["upper"], strict=True))], 0
    require(all(a <= b for a, b in boxes[0]), "lower must not exceed upper")
    while boxes:
        box, count = boxes.pop(), count + 1
        require(count <= MAX_BOXES, f"not proved with {MAX_BOXES} boxes")
        middle = [a / 2 + b / 2 for a, b in box]
        half = [largest([arb(b) - arb(m), arb(m) - arb(a)]) for (a, b), m in zip(box, middle, strict=True)]
        centre, radius = balls(middle), norm(half)
        (f, e), flat = step.derivative(step.denoise(centre, radius)), step.residual(centre, target)
        slopes = [dot([abs(v) for v in f.entries()[i * n : i * n + n]], half) + e * radius for i in range(n)]
        if any(s < abs(v) for s, v in zip(slopes, flat, strict=True)):
            continue
        widest = max(range(n), key=lambda i: box[i][1] - box[i][0])
        a, b = box[widest]
        require(a < middle[widest] < b, "not proved: a piece cannot be cut further")
        boxes += [[*box[:widest], piece, *box[widest + 1 :]] for piece in ((a, middle[widest]), (middle[widest], b))]
    return f"no solution in the box ({count} pieces)", {"existence in the box": "REFUTED"}, {"pieces": float(count)}


def kinds(model: Model) -> dict:
    """Kind -> (function, the fields of its claim, the fields of its proof), for networks of this size."""
    point, positive, number, n = listof(real(), model.size), real(0.0), real(), model.size
    condition, many = whole(0, model.classes), (1, 10000)
    problem = {"condition": condition, "guidance": number, "sigma_to": positive, "sigma_from": positive}
    matrix = nullable(listof(point, n))
    form, ball = (
        {"form": word("structure", "monotone", "radii"), "preconditioner": matrix},
        {"centre": point, "radius": positive},
    )

    def anywhere(reader):
        return lambda value, what: value if value == "everywhere" else reader(value, what)

    region = {"region": anywhere(record(ball))}
    bounds, multipliers = dict.fromkeys(BOUNDS, nullable(number)), nullable(listof(positive, *many))
    path = {"condition": condition, "guidance": number, "levels": levels, "image": point, "centres": listof(point, *many),
            "radii": listof(positive, *many), "unique": word("everywhere", "balls")}  # fmt: skip
    step = {"target": point, "target_radius": positive, **ball, "uniqueness_radius": anywhere(positive)}
    limit = {k: problem[k] for k in ("condition", "sigma_to", "sigma_from")} | region | {"limit": real(1.0)}
    witness = {"points": listof(point, 2), "factor": nullable(real(1.0))}
    shape = {"levels": levels, "conditions": listof(condition, *many), "guidance": number}
    return {
        "structure": (prove_structure, shape, {}),
        "lipschitz": (prove_lipschitz, problem | region | bounds, {"multipliers?": record(dict.fromkeys(BOUNDS, multipliers))}),
        "guidance-limit": (prove_guidance_limit, limit, {"multipliers?": listof(multipliers, 2)}),
        "step": (prove_step, problem | step, form),
        "trajectory": (prove_trajectory, path, {"steps": listof(record(form), *many)}),
        "non-uniqueness": (prove_non_uniqueness, {**problem, "target": point, "balls": listof(record(ball), 2)},
                           {"balls": listof(record(form), 2)}),
        "witness": (prove_witness, problem | witness, {}),
        "no-solution": (prove_no_solution, {**problem, "target": point, "lower": point, "upper": point}, {}),
    }  # fmt: skip


NAMES = dict.fromkeys(("name", "weights_sha256", "program_sha256"), anything)
FIELDS = {"format": word(CERTIFICATE), "kind": anything, "model": record(NAMES), "precision": whole(64, 1024),
          "claim": anything, "proof": anything, "seal": anything}  # fmt: skip


def check_data(data: dict, model: str | Path | Model, limit_s: float = 600.0) -> Proved:
    """Like :func:`check`, for a certificate that is already read."""
    found = record(FIELDS)(data, "certificate")
    require(data["seal"] == digest({k: v for k, v in data.items() if k != "seal"}), "the seal does not fit the content")
    with ctx.workprec(found["precision"]):
        try:
            net = model if isinstance(model, Model) else Model(model, found["model"]["name"])
            net.deadline = time.monotonic() + limit_s
            for key, what in (("name", "a model of another name"), ("weights_sha256", "other weights"),
                              ("program_sha256", "another program of layers")):  # fmt: skip
                require(found["model"][key] == getattr(net, key), f"the certificate is for {what}")
            table = kinds(net)
            prove, claim, proof = table[word(*table)(found["kind"], "kind")]
            read = record(claim)(data["claim"], "claim"), record(proof)(data["proof"], "proof")
            return Proved(found["kind"], net.name, *prove(net, *read))
        except CertificateError:
            raise
        except Exception as error:
            raise CertificateError(f"the check broke off: {type(error).__name__}: {str(error)[:80]}") from None


def check(path: str | Path, model: str | Path | Model, limit_s: float = 600.0) -> Proved:
    """Re-derives a certificate from the weights.

    Args:
      path: the certificate.
      model: a model card, the folder that holds it, or a loaded :class:`Model`.
      limit_s: seconds.

    Raises:
      CertificateError: if anything is malformed, or the claim was not proved.
    """
    return check_data(load_json(load_bytes(Path(path), MAX_FILE), "certificate"), model, limit_s)


def main(arguments: list[str] | None = None) -> int:
    """Checks files; returns 0 if every one was proved, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="fpjax.certify.check", description="Re-derive certificates from the weights.")
    parser.add_argument("files", nargs="+", metavar="FILE")
    parser.add_argument("--model", required=True, metavar="CARD_OR_FOLDER")
    parser.add_argument("--limit", type=float, default=600.0, metavar="SECONDS", help="time for one file")
    options, failed = parser.parse_args(arguments), 0
    for file in options.files:
        try:
            proved = check(file, options.model, options.limit)
            print(f"{file}: {proved.verdict}: {proved.kind}, {proved.model}: {proved.statement}")
        except CertificateError as error:
            failed = 1
            print(f"{file}: REJECTED: {error}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
