"""Several roots at one step of a rectified flow: impossible for exact and monotone denoisers (T2), possible with guidance."""

import numpy as np

from proofs_checks.base import Instance, Outcome, conclude
from proofs_checks.claims import problems
from proofs_checks.claims.base import Claim, Row
from proofs_checks.claims.measure import MODELS, conditions, denoiser, solutions

statement = Claim(
    name="several roots a step",
    who="SelFix (2606.17584)",
    text="the inversion equation of one step has several solutions",
    terms="F(y) = y_s has two different solutions, in a step of a rectified flow in 10 steps",
    reason="T2: impossible where m > 0, so for every exact or monotone denoiser; guidance can make m negative (T11), and then "
    "there are several",
    order=14,
    exists=True,
)

STEPS, STARTS = 10, 6
GRID = np.linspace(-20, 20, 2001)[:, None]


def instance() -> Instance:
    """The smallest guided example that the search found: two points, one of them the class."""
    return Instance({"points": [0, 1], "at": 0, "w": 2, "high": 2, "low": 1})


def broken_instance() -> None:
    """None: one example proves that it happens."""
    return


def cases():
    """Two or three points on the line, the first of them the class; y_s and the guidance, 1 for none."""
    from hypothesis import strategies as st

    guided = st.fixed_dictionaries({"w": st.integers(1, 20)})
    pair = st.tuples(problems.strategy(fewest=2, extra=("at",)), guided)
    return pair.map(lambda parts: {**parts[0], **parts[1]})


def guided_step(data: dict, ys) -> np.ndarray:
    """F_w on states (n, 1): D_w = D_0 + w·(D_c - D_0), the class being the first point alone, so D_c is that point."""
    p = problems.Problem(data)
    logits = -((ys - p.points.T) ** 2) / (2 * p.sigma**2)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    d_0 = weights @ p.points / weights.sum(axis=1, keepdims=True)
    d_w = d_0 + data["w"] * (p.points[0, 0] - d_0)
    return p.rho * ys + (1 - p.rho) * d_w


def check(instance: Instance, samples: int = 200, seed: int = 0) -> Outcome:
    """Sign changes of F_w - y_s on a grid: each holds a root, by the intermediate value theorem."""
    rest = guided_step(instance.data, GRID) - instance.data["at"] / problems.UNIT
    count = int((np.sign(rest[1:]) * np.sign(rest[:-1]) < 0).sum())
    return conclude({}, count >= 2, "sampled", GRID.size, f"{count} sign changes", {"roots": float(count)})


def rows(images: int = 20, seed: int = 0) -> list[Row]:
    """Proved impossible where the denoiser is exact or monotone; a search from several starts elsewhere, with a proof."""
    found = []
    for name in MODELS:
        if name == "digits-plain":
            found.append(_searched(name, 1.0, images, seed))
        elif name == "digits-monotone":
            found.append(Row(name, "fails", _structure(name)))
        else:
            found.append(Row(name, "fails", "exactly one solution at every step and for every y_s (E3 and T2)"))
    found.append(_searched("digits-monotone", 7.5, images, seed))
    found.append(_searched("digits-plain", 7.5, images, seed))
    return found


def _structure(name: str) -> str:
    from fpjax import process
    from fpjax.certify import propose

    card, model = propose.load_model(name)
    proved = propose.structure(card, model, process.rectified_flow(STEPS).levels).verify()
    return f"proved by the certificate kernel: {proved.statement}"


def _searched(name: str, guidance: float, images: int, seed: int) -> Row:
    """Solves each (image, step) from several starts; two different solutions are handed to the certificate kernel."""
    import jax.numpy as jnp

    import fpjax
    from fpjax import process

    images = min(images, 8)
    grid, den = process.rectified_flow(STEPS), denoiser(name)
    x, labels = fpjax.samples("digits", images, seed)
    c, rng = conditions(den, labels), np.random.default_rng(seed)
    sigma, rho = (np.repeat(v, images) for v in (grid.sigmas[1:], grid.rho))
    wide = (slice(None), *[None] * (x.ndim - 1))
    target, c = np.tile(x, (STEPS, 1, 1)).astype(np.float64), np.tile(c, STEPS)
    w, ends = (None if guidance == 1 else jnp.asarray(guidance)), []
    for i in range(STARTS):
        start = target + (i * sigma[wide] * rng.normal(size=target.shape) if i else 0)
        y, solved = solutions(den, *map(jnp.asarray, (sigma, rho, target, start, c)), w)
        ends.append((np.asarray(y), np.asarray(solved)))
    label = name if guidance == 1 else f"{name}, guidance {guidance:g}"
    return _told(label, name, guidance, grid, c, target, ends, images)


def _told(label, name, guidance, grid, c, target, ends, images) -> Row:
    from fpjax.certify import propose

    lanes = len(target)
    points, solved = np.stack([y.reshape(lanes, -1) for y, _ in ends]), np.stack([s for _, s in ends])
    several, proved, note = 0, 0, ""
    for lane in range(lanes):
        good = points[solved[:, lane], lane]
        apart = np.linalg.norm(good - good[:1], axis=1) if len(good) else np.zeros(1)
        if apart.max() <= 1e-4 * (1 + np.linalg.norm(good[0]) if len(good) else 1):
            continue
        several += 1
        if proved == 0 and several <= 3:
            low, high = grid.sigmas[lane // images], grid.sigmas[lane // images + 1]
            card, model = propose.load_model(name)
            p = propose.Problem(card, model, int(c[lane]), guidance, float(low), float(high))
            pair = [good[0], good[int(apart.argmax())]]
            try:
                result = propose.non_uniqueness(p, target[lane].ravel(), pair).verify()
                proved, note = 1, f"; at step {lane // images + 1} the kernel proves {result.statement}"
            except propose.kernel.CertificateError as error:
                note = f"; not proved: {error}"
    detail = f"several solutions found at {several} of {lanes} (image, step), {len(ends)} starts each{note}"
    verdict = "holds" if proved else "undecided"
    return Row(label, verdict, detail, {"several": float(several), "proved": float(proved)})
