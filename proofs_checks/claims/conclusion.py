"""The paper's conclusion: by Banach's theorem a fixed point exists, is unique, and plain iteration finds it, at every step."""

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import PAPER, Claim, Row, percent
from proofs_checks.claims.measure import ITERATIONS, everywhere

statement = Claim(
    name="Banach's conclusion",
    who=PAPER,
    text="a fixed point exists, it is the only one, and iterating f finds it",
    terms="F(y) = y_s has exactly one solution, and y <- G(y) converges to it from y_s",
    reason="T1 and T2 give the first two for every exact or monotone denoiser, at any step; convergence needs T3's window",
    order=6,
)

COUNT = 200


def instance() -> Instance:
    """Two points close to each other for this noise."""
    return Instance({"points": [0, 1], "high": 20, "low": 10, "at": 3})


def broken_instance() -> Instance:
    """The smallest step at which plain iteration goes round in a circle about the one solution."""
    return Instance({"points": [-1, 1], "at": 1, "high": 2, "low": 1}, violates="claim")


def cases():
    """Two or three points on the line and a y_s."""
    return problems.strategy(fewest=2, extra=("at",))


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """The residual after COUNT iterations from y_s; with rho >= 1/10 a slow convergence would have arrived by then."""
    p = problems.problem(instance)
    y = p.iterate(p.target, COUNT)
    residual = p.residual(y)
    detail = f"residual {residual:.3g} after {COUNT} iterations; exactly one solution by T2, modulus {p.rho:.3g}"
    return conclude({}, residual < 1e-6, "sampled", 1, detail, {"residual": residual})


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """Where plain iteration from y_s arrives, and the modulus at the solutions."""
    found = []
    for label, name, _, m in everywhere(images, seed):
        share, lowest = float(m.converged.mean()), float(m.modulus.min())
        unique = "the only one by T2" if name != "digits-plain" else f"smallest modulus seen {lowest:.3g}"
        detail = (
            f"plain iteration converges at {percent(share)} of the (image, step), judged after {ITERATIONS} iterations; "
            f"a solution exists by construction, {unique}"
        )
        figures = {"share": share, "modulus": lowest, "kappa": float(m.kappa.max())}
        verdict = "fails" if share < 1 else "holds" if lowest > 0 else "undecided"
        found.append(Row(label, verdict, detail, figures))
    return found
