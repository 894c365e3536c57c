"""The kernel's proofs that a property fails: two solutions, a pair that G pushes apart, no solution in a box."""

import math

from flint import arb, fmpq  # pyright: ignore[reportMissingModuleSource]

from fpjax.certify.matrices import ZERO, balls, dot, exact, largest, norm
from fpjax.certify.newton import prove_ball, step_of
from fpjax.certify.reading import Model, require

MAX_BOXES = 20000


def prove_non_uniqueness(model: Model, claim: dict, proof: dict) -> tuple:
    """(e) Two disjoint balls, each proved to hold a solution (T13)."""
    step, target, pair = step_of(model, claim), balls(claim["target"]), claim["balls"]
    for ball, form in zip(pair, proof["balls"], strict=True):
        prove_ball(step, target, ZERO, ball, form)
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
