"""The kernel's proofs of bounds on a region: Lipschitz constants and the modulus (T2, T3, T5), and guidance (T11)."""

from flint import arb  # pyright: ignore[reportMissingModuleSource]

from fpjax.certify.enclosure import Step, Value, guides_prior
from fpjax.certify.lipsdp import multiplied
from fpjax.certify.matrices import INF, ZERO, balls
from fpjax.certify.newton import step_of
from fpjax.certify.reading import Model, require

BOUNDS = ("contraction", "modulus", "lipschitz")


def region_of(step: Step, region) -> tuple[list[arb], arb, str]:
    """Centre and radius of the region of a claim, "everywhere" or a ball, and the region in words."""
    if region == "everywhere":
        return [ZERO] * step.model.size, INF, region
    return balls(region["centre"]), arb(region["radius"]), f"on a ball of radius {region['radius']:.3g}"


def prove_lipschitz(model: Model, claim: dict, proof: dict) -> tuple:
    """(b) Bounds on a region: of the Lipschitz constants of G and F, and of the modulus (T2, T3, T5)."""
    step, parts = step_of(model, claim), {k: claim[k] for k in BOUNDS if claim[k] is not None}
    require(len(parts) > 0, "the claim states no bound")
    centre, radius, place = region_of(step, claim["region"])
    given = {k: v for k, v in proof.get("multipliers", {}).items() if v is not None}
    value: Value | None = None
    for k, stated in parts.items():
        if k in given:
            holds = multiplied(step, centre, radius, k, arb(stated), balls(given[k]))
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
        step = step_of(model, {**claim, "guidance": w})
        centre, radius, place = region_of(step, claim["region"])
        if t is None:
            holds = bool(step.modulus(step.denoise(centre, radius)) > 0)
        else:
            holds = multiplied(step, centre, radius, "modulus", ZERO, balls(t))
        require(holds, f"m > 0 was not proved at guidance {w:.6g}")
    return f"unique {place} at every guidance from 1 to {limit:.6g}", {"guidance-limit": "CERTIFIED"}, {"limit": limit}
