"""The paper, Eq. 12-14, first assumption: the predicted clean images differ by a number k times the states' difference."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import PAPER, Claim, Row, percent, quantiles
from proofs_checks.claims.measure import MODELS, measure

statement = Claim(
    name="Eq. 12–14: one k",
    who=PAPER,
    text="x0(a) - x0(b) = k·(a - b) with a number k: the two predicted clean images differ in the direction of the states",
    terms="D(a) - D(b) is parallel to a - b, so J_D acts as a number",
    reason="E3: J_D is a covariance matrix over sigma²; it acts as a number only where the posterior is equally wide everywhere",
    order=3,
)

STRAIGHT = 0.99  # |cosine| of the angle above which the two differences count as parallel


def instance() -> Instance:
    """On the line every two differences are parallel."""
    return Instance({"points": [[0], [1]], "high": 10, "low": 1, "a": [0], "b": [3]})


def broken_instance() -> Instance:
    """Two points of the plane: predictions differ along the line through them, whatever the states do."""
    return Instance({"points": [(0, 1), (1, 0)], "a": [0, 0], "b": [0, 1], "high": 2, "low": 1}, violates="claim")


def cases():
    """Two or three points of the plane, two states."""
    from hypothesis import strategies as st

    state = st.tuples(*[st.integers(-10, 10)] * 2).map(list)
    pair = st.fixed_dictionaries({"a": state, "b": state})
    return st.tuples(problems.strategy(2, fewest=2), pair).map(lambda parts: {**parts[1], **parts[0]})


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """The cosine of the angle between the two differences; differences below 1e-6 say nothing."""
    p = problems.problem(instance)
    a, b = (np.asarray(instance.data[k], float) / problems.UNIT for k in ("a", "b"))
    change, gap = p.denoise(a) - p.denoise(b), a - b
    sizes = np.linalg.norm(change) * np.linalg.norm(gap)
    cosine = float(abs(change @ gap) / sizes) if sizes > 1e-6 else 1.0
    return conclude({}, cosine >= STRAIGHT, "sampled", 1, f"|cosine| = {cosine:.3g}", {"cosine": cosine})


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """Cosines at every (image, step), for two states that differ by n ~ N(0, I) in z."""
    found = []
    for name in MODELS:
        m = measure(name, images, seed)
        cosine = m.along / np.maximum(m.image, 1e-300)
        share = float((np.abs(cosine) >= STRAIGHT).mean())
        seen = quantiles(cosine)
        detail = f"parallel (|cosine| >= {STRAIGHT}) at {percent(share)} of the (image, step); median cosine {seen['50 %']:.3g}"
        found.append(Row(name, "holds" if share == 1 else "fails", detail, {"share": share, **seen}))
    return found
