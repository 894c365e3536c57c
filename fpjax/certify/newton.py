"""The kernel's proofs of existence and uniqueness: by structure (T2, T6), and T13 in balls, for a step and a trajectory.

In this room: the hypotheses and the last inequality of each. A proof is a function (model, claim, proof) -> (sentence,
verdict on each audit question, numbers) that raises CertificateError with the reason where something was not proved.
"""

from itertools import pairwise

from flint import arb  # pyright: ignore[reportMissingModuleSource]

from fpjax.certify.enclosure import Step
from fpjax.certify.matrices import ZERO, ArbMatrix, balls, norm
from fpjax.certify.reading import CertificateError, Model, require

WELL_POSED = {"existence": "CERTIFIED", "uniqueness": "CERTIFIED"}
PROVED = WELL_POSED | {"error": "CERTIFIED"}
NOT_MONOTONE = "the layers are not of a form that is monotone by construction, or rho = 0"


def step_of(model: Model, claim: dict) -> Step:
    """The step that a claim is about."""
    return Step(model, claim["condition"], claim["guidance"], claim["sigma_to"], claim["sigma_from"])


def local_bounds(step: Step, centre: list[arb], radius: arb, form: str, a: ArbMatrix | None = None) -> tuple:
    """On B(centre, radius): (None, m > 0) for the monotone forms, (A, Z < 1) for the radii form. Either means that
    the ball holds at most one solution (T2; T13)."""
    if form == "structure":
        require(step.monotone(), NOT_MONOTONE)
        return None, step.rho
    value = step.denoise(centre, radius)
    if form == "monotone":
        m = step.modulus(value)
        require(m > 0, "m > 0 was not proved on the ball")
        return None, m
    f, e = step.derivative(value)
    a = f.inverse() if a is None else a
    z = (step.eye() - a @ f).norm2() + a.norm2() * e
    require(z < 1, "Z < 1 was not proved on the ball")
    return a, z


def form_of(model: Model, proof: dict) -> tuple[str, ArbMatrix | None]:
    """The form of T13 and the preconditioner, if the certificate brings one."""
    a, n = proof["preconditioner"], model.size
    require(a is None or proof["form"] == "radii", "only the radii form takes a preconditioner")
    return proof["form"], None if a is None else model.matrix.of(n, n, [v for row in a for v in row])


def need(step: Step, rest: list[arb], slack: arb, radius: arb, a: ArbMatrix | None, bound: arb) -> arb:
    """T13's left side, at most ``bound`` m times the radius or (radii form) the radius itself, where it holds: for
    every y_s within ``slack`` of a target that F(centre) misses by ``rest``."""
    return norm(rest) + slack if a is None else norm(a.apply(rest)) + a.norm2() * slack + bound * radius


def prove_ball(step: Step, target: list[arb], slack: arb, ball: dict, proof: dict) -> tuple[list[arb], arb]:
    """T13: for every y_s within ``slack`` of ``target``, F(y) = y_s has exactly one solution in the ball."""
    centre, radius = balls(ball["centre"]), arb(ball["radius"])
    a, bound = local_bounds(step, centre, radius, *form_of(step.model, proof))
    most = bound * radius if a is None else radius
    reason = "||F(centre) - target|| + slack <= m r" if a is None else "Y + ||A|| slack + Z r <= r"
    require(need(step, step.residual(centre, target), slack, radius, a, bound) <= most, f"{reason} was not proved")
    return centre, radius


def prove_structure(model: Model, claim: dict, proof: dict) -> tuple:
    """(a) Monotone by construction at every step: exactly one solution for every target (T2, T6)."""
    pairs = list(pairwise(claim["levels"]))
    for condition in claim["conditions"]:
        for low, high in pairs:
            require(Step(model, condition, claim["guidance"], low, high).monotone(), NOT_MONOTONE)
    text = f"each of {len(pairs)} steps has exactly one solution for every target, modulus >= rho"
    return text, WELL_POSED, {"modulus": min(a / b for a, b in pairs)}


def prove_step(model: Model, claim: dict, proof: dict) -> tuple:
    """(c) One step: existence in B(centre, radius), uniqueness in B(centre, uniqueness_radius) (T13)."""
    step, unique, radius = step_of(model, claim), claim["uniqueness_radius"], claim["radius"]
    centre, _ = prove_ball(step, balls(claim["target"]), arb(claim["target_radius"]), claim, proof)
    if unique == "everywhere":
        require(step.monotone(), "uniqueness everywhere was not proved")
    else:
        require(unique >= radius, "uniqueness_radius must be at least radius")
        local_bounds(step, centre, arb(unique), *form_of(model, proof))
    where = unique if unique == "everywhere" else f"within {unique:.3g}"
    return f"exactly one solution within {radius:.3g} of the centre, no other {where}", PROVED, {"radius": radius}


def prove_trajectory(model: Model, claim: dict, proof: dict) -> tuple:
    """(d) A whole trajectory: each solution lies in its ball, given that the one before does (T13)."""
    pairs, everywhere = list(pairwise(claim["levels"])), claim["unique"] == "everywhere"
    for part in (claim["centres"], claim["radii"], proof["steps"]):
        require(len(part) == len(pairs), "the trajectory needs one entry for each step")
    target, slack = balls(claim["image"]), ZERO
    for i, (low, high) in enumerate(pairs):
        step = Step(model, claim["condition"], claim["guidance"], low, high)
        ball = {"centre": claim["centres"][i], "radius": claim["radii"][i]}
        try:
            target, slack = prove_ball(step, target, slack, ball, proof["steps"][i])
            require(not everywhere or step.monotone(), "uniqueness everywhere was not proved")
        except CertificateError as error:
            raise CertificateError(f"step {i}: {error}") from None
    radius, where = claim["radii"][-1], "" if everywhere else "in the balls given "
    text = f"the inversion over {len(pairs)} steps has exactly one solution {where}"
    return f"{text}and its latent lies within {radius:.3g} of the last centre", PROVED, {"radius": radius}
