"""The kernel's bounds by multipliers: LipSDP (Fazlyab et al. 2019), for layers made of affine and elementwise ones.

In this room: whether given multipliers prove a bound. Finding them is the prover's business (multipliers.py).
"""

from flint import arb  # pyright: ignore[reportMissingModuleSource]

from fpjax.certify.enclosure import Step
from fpjax.certify.matrices import INF, ONE, ArbMatrix, lambda_min
from fpjax.certify.reading import require


def traced(step: Step, centre: list[arb], radius: arb) -> tuple[list[arb], list[ArbMatrix], ArbMatrix]:
    """With u the change of y and w that of every elementwise value: the slopes of the elementwise functions over the
    ball, the blocks of the matrix V that takes (u, w) to the changes of their arguments, and that of D's change."""
    slopes: list[arb] = []
    step.denoise(centre, radius, slopes=slopes)
    wide, rows = step.model.size + len(slopes), []
    step.model.tick(wide**3)
    value = step.denoise(centre, INF, rows=rows, columns=wide, slopes=slopes)
    require(value.e == 0 and value.M is not None, "the layers do not take multipliers")
    assert value.M is not None
    return slopes, rows, value.M


def multiplied(step: Step, centre: list[arb], radius: arb, what: str, bound: arb, t: list[arb]) -> bool:
    """Whether multipliers t >= 0 prove a bound over the ball.

    With (u, w) and V as in :func:`traced`, the slopes in [a, b], and S(u, w) the change of G or F,
    (w - a V)(b V - w) >= 0 entry by entry. So the bound L of the Lipschitz constant holds if
    L^2 |u|^2 - |S|^2 - 2 sum t (w - a V)(b V - w) is positive definite in (u, w); the bound m of the modulus if
    <u, S> - m |u|^2 - 2 sum t (w - a V)(b V - w) is.
    """
    slopes, blocks, d = traced(step, centre, radius)
    n, wide, flat = step.model.size, d.shape[1], [v for block in blocks for v in block.entries()]
    require(len(t) == len(slopes) and all(v >= 0 for v in t), f"{len(slopes)} multipliers >= 0 are needed")
    used = [i for i, v in enumerate(t) if v != 0]
    require(all(slopes[i].is_finite() for i in used), "a multiplier belongs to an unbounded slope")
    kept, h = [*range(n), *(n + i for i in used)], len(used)
    rows = d.of(h, wide, (v for i in used for v in flat[i * wide : (i + 1) * wide]))
    lost = [j for j in range(wide) if j not in set(kept)]
    missing = [*rows.take(lost).entries(), *d.take(lost).entries()]
    require(all(v == 0 for v in missing), "a function without a multiplier matters")
    rows, d, u = rows.take(kept), d.take(kept), d.eye(n, ONE, n + h)
    own = d.eye(h, ONE, n + h, n)
    left = own - rows.scaled([slopes[i].lower() for i in used])
    right = rows.scaled([slopes[i].upper() for i in used]) - own
    q = left.T @ right.scaled([t[i] for i in used])
    s = u * step.keep - d * step.keep if what == "contraction" else u * step.rho + d * step.keep
    if what == "modulus":
        form = u.T @ s
        form = (form + form.T) * arb(0.5) - u.T @ u * bound
    else:
        form = u.T @ u * (bound * bound) - s.T @ s
    return bool(lambda_min(form - q - q.T) > 0)
