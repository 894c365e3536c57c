"""The prover: finds centres, radii and preconditioners that the kernel will accept. Nothing here is trusted.

In this room: Newton refinement around the solver's answer, the search for tight radii and large uniqueness balls,
witnesses, and writing certificates. Not in this room: anything a proof rests on; every number that goes into a
certificate is re-derived by check.py, whose bounds are used here only to find numbers that will verify.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flint import arb, ctx  # pyright: ignore[reportMissingModuleSource]

import fpjax.certify.check as kernel
from fpjax.certify import model_card, reading
from fpjax.certify.lipsdp import multiplied
from fpjax.certify.matrices import dot, norm
from fpjax.certify.multipliers import multipliers, search
from fpjax.evidence import FpjaxError

PRECISION = 128
RADIUS_GOAL = 1e-9


@dataclass(frozen=True)
class Certificate:
    """A claim with its proof, as format.md describes it; only the kernel decides whether it holds.

    Attributes:
      data: the JSON object, sealed.
      card: the model card that it was made for.
    """

    data: dict
    card: Path

    @property
    def kind(self) -> str:
        """structure, lipschitz, guidance-limit, step, trajectory, non-uniqueness, witness or no-solution."""
        return self.data["kind"]

    @property
    def radius(self) -> float:
        """The radius of the (last) ball, in y-coordinates and the 2-norm; NaN for kinds without one."""
        claim = self.data["claim"]
        text = claim["radii"][-1] if "radii" in claim else claim.get("radius", "nan")
        return float.fromhex(text)

    def verify(self, limit_s: float = 600.0, fast: bool = False) -> kernel.Proved:
        """Runs the kernel; see :func:`fpjax.certify.verify`."""
        return kernel.check_data(self.data, self.card, limit_s, fast)

    def save(self, path) -> Path:
        """Writes the certificate as JSON, by renaming a complete file into its place.

        Raises:
          FpjaxError: if the file cannot be written.
        """
        path = Path(path)
        temporary = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self.data) + "\n", encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise FpjaxError(f"cannot write {path} ({error.strerror}); choose another folder or make room") from error
        return path


def seal(card, model: kernel.Model, kind: str, claim: dict, proof: dict | None = None) -> Certificate:
    """A sealed certificate for a loaded model."""
    named = {"name": model.name, "weights_sha256": model.weights_sha256, "program_sha256": model.program_sha256}
    body = {"format": reading.CERTIFICATE, "kind": kind, "model": named, "precision": PRECISION}
    return Certificate(kernel.seal({**body, "claim": claim, "proof": proof or {}}), Path(card))


def load_model(den_or_model, fast: bool = False) -> tuple[Path, kernel.Model]:
    """The card and the kernel's model of a Denoiser (by its name), an embedded model's name, or a path.

    ``fast`` gives the model in the kernel's fast arithmetic, whose bounds are a little wider than Arb's: a search with it
    finds what Arb will prove, sooner.

    Raises:
      FpjaxError: if it has no card, for instance a denoiser made from a Python function.
    """
    # A path has a `name` too, which is not what is meant.
    name = den_or_model if isinstance(den_or_model, str | Path) else den_or_model.name
    card = model_card(name)
    if not card.exists():
        raise FpjaxError(f"{name!s} has no model card, so nothing can be certified; give model=, the path of one")
    if card.is_dir():
        cards = sorted(p for p in card.glob("*.json") if p.with_suffix(".safetensors").exists())
        if len(cards) != 1:
            raise FpjaxError(f"{card} holds {len(cards)} models; name one card")
        card = cards[0]
    with ctx.workprec(PRECISION):
        return card, kernel.Model(card, fast=fast)


def hexes(values) -> list[str]:
    """Exact hexadecimal floats."""
    return [float(v).hex() for v in np.asarray(values, np.float64).ravel()]


def balls(values) -> list[arb]:
    """Exact balls."""
    return [arb(float(v)) for v in np.asarray(values, np.float64).ravel()]


def floats(values) -> np.ndarray:
    """Midpoints of balls."""
    return np.asarray([float(v.mid()) for v in values])


def above(x) -> float:
    """A float above an upper bound; inf if there is none."""
    value = float(x.upper()) if isinstance(x, arb) else float(x)
    return math.nextafter(value + abs(value) * 1e-12, math.inf) if math.isfinite(value) else math.inf


def refine(step: kernel.Step, y, target, tries: int = 8) -> np.ndarray:
    """Newton's method with one fixed Jacobian and the kernel's residual, down to float64's rounding noise."""
    target, best, size, inverse = balls(target), np.asarray(y, np.float64).ravel(), math.inf, None
    y = best
    for _ in range(tries):
        rest = floats(step.residual(balls(y), target))
        found = float(np.linalg.norm(rest))
        if not found < size:
            break
        done = found <= np.finfo(np.float64).eps * (1 + np.linalg.norm(y)) / 2 or found > size / 2
        best, size = y, found
        if done:
            break
        if inverse is None:
            f, _ = step.derivative(step.denoise(balls(y), arb(0)))
            inverse = np.linalg.inv(floats(f.entries()).reshape(f.shape))
        y = y - inverse @ rest
    return best


def fit_ball(step: kernel.Step, target, slack: float, centre, form: str) -> float:
    """A radius, nearly the smallest, with which the kernel's T13 holds in this form.

    Raises:
      CertificateError: if none was found.
    """
    centre, room = balls(centre), arb(slack)
    rest, radius = step.residual(centre, balls(target)), arb(0)
    if form == "structure":
        reading.require(step.monotone(), "not monotone by construction")
        return above((norm(rest) + room) / step.rho)
    for _ in range(13):
        a, bound = kernel.local_bounds(step, centre, radius, form, None)
        fixed = kernel.need(step, rest, room, arb(0), a, bound)
        if radius > 0 and kernel.need(step, rest, room, radius, a, bound) <= (bound * radius if a is None else radius):
            return float(radius)
        radius = arb(max(above(fixed / (bound if a is None else 1 - bound)) * 1.001, 1e-300))
    raise kernel.CertificateError("no radius was found")


def best_ball(step: kernel.Step, target, slack: float, centre, forms) -> tuple[float, str]:
    """The smallest radius over several forms of T13, and its form."""
    found, reasons = [], []
    for form in forms:
        try:
            found.append((fit_ball(step, target, slack, centre, form), form))
        except (kernel.CertificateError, ZeroDivisionError) as error:
            reasons.append(f"{form}: {error}")
    if not found or not math.isfinite(min(found)[0]):
        raise kernel.CertificateError("; ".join(reasons) or "no finite radius")
    return min(found)


def widest_ball(step: kernel.Step, centre, radius: float, form: str) -> float:
    """The largest radius found, at least ``radius``, on which the kernel proves uniqueness in this form."""

    def holds(r):
        try:
            kernel.local_bounds(step, balls(centre), arb(r), form, None)
        except (kernel.CertificateError, ZeroDivisionError):
            return False
        return True

    low, high = radius, max(radius * 16, 1e-6)
    while high < 1e6 and holds(high):
        low, high = high, high * 16
    while high > 1.3 * low:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def how(form: str) -> dict:
    """The proof of a ball; the kernel inverts the midpoint of F' itself."""
    return {"form": form, "preconditioner": None}


def precise(function):
    """Runs a function at the precision that certificates are written for."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        with ctx.workprec(PRECISION):
            return function(*args, **kwargs)

    return run


@dataclass(frozen=True)
class Problem:
    """One inversion step of a model, ready for the kernel.

    Attributes:
      card, model: from :func:`load_model`.
      condition: index; the last one is "no condition".
      guidance: w.
      sigma_to, sigma_from: the noise levels of E1.
    """

    card: Path
    model: kernel.Model
    condition: int
    guidance: float
    sigma_to: float
    sigma_from: float

    @property
    def step(self) -> kernel.Step:
        """The kernel's view of it."""
        return kernel.Step(self.model, self.condition, self.guidance, self.sigma_to, self.sigma_from)

    @property
    def claim(self) -> dict:
        """The part of a claim that names the step."""
        return {
            "condition": int(self.condition),
            "guidance": float(self.guidance).hex(),
            "sigma_to": float(self.sigma_to).hex(),
            "sigma_from": float(self.sigma_from).hex(),
        }


def structure(card: Path, model: kernel.Model, levels, conditions=None, guidance: float = 1.0) -> Certificate:
    """(a) Every step of these noise levels has exactly one solution for every target (T2, T6).

    Args:
      levels: noise levels, increasing, all positive.
      conditions: indices; None for all, with and without a condition.
    """
    chosen = range(model.classes + 1) if conditions is None else conditions
    claim = {"levels": hexes(levels), "conditions": [int(c) for c in chosen], "guidance": float(guidance).hex()}
    return seal(card, model, "structure", claim)


@precise
def step_ball(p: Problem, target, start, *, slack: float = 0.0, forms=("monotone", "radii"), widen=True):
    """(c) One step: a small ball that holds a solution and a large one that holds no other (T13).

    Args:
      target: y_s. start: a point near the solution. slack: y_s is known only to within this distance.
      forms: the forms of T13 to try; with "structure" uniqueness holds everywhere.
      widen: whether to search for a large uniqueness ball.

    Raises:
      CertificateError: if no form verifies.
    """
    step = p.step
    centre = refine(step, start, target)
    radius, form = best_ball(step, target, slack, centre, forms)
    wide = radius if step.monotone() or not widen else widest_ball(step, centre, radius, form)
    unique = "everywhere" if step.monotone() else wide.hex()
    sizes = {"target_radius": float(slack).hex(), "radius": radius.hex(), "uniqueness_radius": unique}
    claim = {**p.claim, "target": hexes(target), "centre": hexes(centre), **sizes}
    return seal(p.card, p.model, "step", claim, how(form))


@precise
def trajectory(card: Path, model: kernel.Model, levels, path, condition: int, guidance=1.0, *, tight=False):
    """(d) A whole trajectory from states near it, in y-coordinates (steps + 1, d); the first is the image.

    Monotone models take the structure form, at the cost of one evaluation a step; where that leaves the latent's ball
    wider than 1e-9, or with ``tight``, and for all other models, the local forms of T13.

    Raises:
      CertificateError: if a step does not verify; the message says which.
    """
    levels = [float(v) for v in levels]
    path = np.asarray(path, np.float64).reshape(len(levels), -1)
    pairs = list(itertools.pairwise(levels))
    steps = [kernel.Step(model, condition, guidance, low, high) for low, high in pairs]
    monotone = all(step.monotone() for step in steps)
    plans = [("structure",)] if monotone else []
    plans += [("monotone", "radii")] if tight or not monotone else []
    best = None
    centres = [path[0]]
    for step, start in zip(steps, path[1:], strict=True):
        centres.append(refine(step, start, centres[-1]))
    while plans:
        forms = plans.pop(0)
        found = _chain(steps, centres, forms)
        if best is None or found[0][-1] < best[0][-1]:
            best = found
        if forms == ("structure",) and not plans and best[0][-1] > RADIUS_GOAL:
            plans.append(("monotone", "structure"))
    assert best is not None
    radii, chosen = best
    claim = {
        "condition": int(condition),
        "guidance": float(guidance).hex(),
        "levels": hexes(levels),
        "image": hexes(centres[0]),
        "centres": [hexes(c) for c in centres[1:]],
        "radii": hexes(radii),
        "unique": "everywhere" if monotone else "balls",
    }
    return seal(card, model, "trajectory", claim, {"steps": [how(form) for form in chosen]})


def _chain(steps, centres, forms) -> tuple[list[float], list[str]]:
    """Radii and forms of a chain of balls, each for every target in the ball before."""
    slack, radii, chosen = 0.0, [], []
    for i, (step, target, centre) in enumerate(zip(steps, centres, centres[1:], strict=False)):
        try:
            slack, form = best_ball(step, target, slack, centre, forms)
        except kernel.CertificateError as error:
            raise kernel.CertificateError(f"step {i}: {error}") from None
        radii.append(slack)
        chosen.append(form)
    return radii, chosen


@precise
def non_uniqueness(p: Problem, target, starts, forms=("radii", "monotone")) -> Certificate:
    """(e) Two disjoint balls around two different solutions of one step.

    Raises:
      CertificateError: if a ball does not verify, or the balls meet.
    """
    step, found = p.step, []
    for start in starts:
        centre = refine(step, start, target)
        found.append((centre, *best_ball(step, target, 0.0, centre, forms)))
    (a, r, _), (b, s, _) = found
    reading.require(bool(np.linalg.norm(a - b) > 1.0001 * (r + s)), "the two starts lead to one solution")
    pair = [{"centre": hexes(c), "radius": size.hex()} for c, size, _ in found]
    claim = {**p.claim, "target": hexes(target), "balls": pair}
    return seal(p.card, p.model, "non-uniqueness", claim, {"balls": [how(form) for _, _, form in found]})


@precise
def expansion_witness(p: Problem, first, second) -> Certificate:
    """(f) Two points that G pushes apart, with nearly the largest factor that verifies.

    Raises:
      CertificateError: if G does not push them apart.
    """
    a, b = np.asarray(first, np.float64).ravel(), np.asarray(second, np.float64).ravel()
    zero, step = [arb(0)] * a.size, p.step
    change = [u - v for u, v in zip(step.residual(balls(a), zero), step.residual(balls(b), zero), strict=True)]
    gap = [u - v for u, v in zip(balls(a), balls(b), strict=True)]
    moved = [u - v for u, v in zip(gap, change, strict=True)]
    ratio = (dot(moved, moved) / dot(gap, gap)).sqrt()
    factor = float(ratio.lower()) * (1 - 1e-9)
    reading.require(factor >= 1, "G does not push these points apart")
    return seal(p.card, p.model, "witness", {**p.claim, "points": [hexes(a), hexes(b)], "factor": factor.hex()})


def decrease_witness(p: Problem, first, second) -> Certificate:
    """(f) Two points between which F decreases: T2's hypothesis fails. Whether it does is for the kernel to say."""
    return seal(p.card, p.model, "witness", {**p.claim, "points": [hexes(first), hexes(second)], "factor": None})


def no_solution(p: Problem, target, lower, upper) -> Certificate:
    """(g) No solution in the box [lower, upper] (at most 4 dimensions). Whether that holds is for the kernel to say."""
    box = {"lower": hexes(lower), "upper": hexes(upper)}
    return seal(p.card, p.model, "no-solution", {**p.claim, "target": hexes(target), **box})


def region(centre=None, radius: float | None = None):
    """The region of a bound: everywhere, or a ball."""
    if centre is None or radius is None:
        return "everywhere"
    return {"centre": hexes(centre), "radius": float(radius).hex()}


@precise
def lipschitz(p: Problem, centre=None, radius: float | None = None, *, tight: bool = False) -> Certificate:
    """(b) Bounds of G's Lipschitz constant, F's, and the modulus m, everywhere or on a ball (T2, T3, T5).

    Args:
      p: the step. centre, radius: the ball; everywhere if left out.
      tight: look for multipliers (LipSDP), which prove much better bounds for affine and elementwise layers.

    Raises:
      CertificateError: if no bound is finite.
    """
    step = p.step
    where = ([arb(0)] * p.model.size, arb.pos_inf()) if centre is None else (balls(centre), arb(float(radius or 0.0)))
    value = step.denoise(*where)
    g, f = step.lipschitz(value)
    m = step.modulus(value)
    below = -above(-m) if m.is_finite() else -math.inf
    bounds, found = {"contraction": above(g), "modulus": below, "lipschitz": above(f)}, {}
    for what in bounds if tight else ():
        with contextlib.suppress(kernel.CertificateError, np.linalg.LinAlgError):
            bound, weights = multipliers(step, *where, what)
            if bound > bounds[what] if what == "modulus" else bound < bounds[what]:
                bounds[what], found[what] = bound, [w.hex() for w in weights]
    stated = {k: v.hex() if math.isfinite(v) else None for k, v in bounds.items()}
    reading.require(any(stated.values()), "no finite bound was found")
    proof = {"multipliers": {k: found.get(k) for k in bounds}} if found else {}
    return seal(p.card, p.model, "lipschitz", {**p.claim, "region": region(centre, radius), **stated}, proof)


@precise
def guidance_limit(p: Problem, centre=None, radius: float | None = None, most: float = 1e4, *, tight: bool = False):
    """(T11) The largest guidance found for which m > 0 is proved on the region, for every guidance from 1 up to it.

    Args:
      p: the step. centre, radius: the ball; everywhere if left out.
      most: where the search ends.
      tight: look for multipliers too; the only way to a limit that holds everywhere.

    Raises:
      CertificateError: if m > 0 is not proved at guidance 1.
    """
    where = ([arb(0)] * p.model.size, arb.pos_inf()) if centre is None else (balls(centre), arb(float(radius or 0.0)))

    def proof(w) -> tuple[bool, list | None]:
        step = dataclasses.replace(p, guidance=w).step
        if step.modulus(step.denoise(*where)) > 0:
            return True, None
        with contextlib.suppress(kernel.CertificateError, np.linalg.LinAlgError):
            bound, weights = search(step, *where, "modulus") if tight else (-1.0, [])
            if bound > 0 and multiplied(step, *where, "modulus", arb(0), balls(weights)):
                return True, hexes(weights)
        return False, None

    reading.require(proof(1.0)[0], "m > 0 was not proved at guidance 1")
    low, high = 1.0, 2.0
    while high < most and proof(high)[0]:
        low, high = high, 2 * high
    while high - low > 1e-3 * (low - 1) + 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if proof(middle)[0] else (low, middle)
    ends = [proof(w)[1] for w in (1.0, low)]
    claim = {k: v for k, v in p.claim.items() if k != "guidance"} | {
        "region": region(centre, radius),
        "limit": low.hex(),
    }
    return seal(p.card, p.model, "guidance-limit", claim, {"multipliers": ends} if any(ends) else {})


def solver_path(den, image, process, condition, guidance: float, solver: str = "auto", tol: float = 1e-11):
    """States near the trajectory, (steps + 1, d) float64 in y-coordinates, from :func:`fpjax.invert` in float64."""
    import jax

    from fpjax.trajectory import invert

    with jax.enable_x64(True):
        x = np.asarray(image, np.float64)[None]
        c = None if condition is None else [condition]
        inversion = invert(den, x, process, condition=c, guidance=guidance, solver=solver, tol=tol)
        path = np.asarray(inversion.path, np.float64)[0]
    return path.reshape(path.shape[0], -1)


def propose(den, image, process, *, condition=None, guidance=1.0, solver="auto", model=None, tight=False):
    """A certificate for the inversion of one image over all steps of a process: kind (d), T13.

    Args:
      den: a Denoiser with a model card (an embedded one, or give ``model``).
      image: one image of ``den.shape``, in the process's own coordinates.
      process: noise levels, see :mod:`fpjax.process`.
      condition: None, an index or a name.
      guidance: w.
      solver: the method that finds the trajectory.
      model: the path of the model card, where the name of ``den`` does not say it.
      tight: search for smaller radii on monotone models too; about 0.2 s a step instead of 0.01 s.

    Returns:
      A Certificate. It claims; :func:`fpjax.certify.check` proves.

    Raises:
      CertificateError: if a step does not verify; the message says which step and why.
      FpjaxError: for bad input, or a denoiser without a model card.
    """
    process.require_e1("a certificate of a trajectory")
    card, loaded = load_model(den if model is None else model, fast=True)
    path = solver_path(den, image, process, condition, guidance, solver)
    return trajectory(card, loaded, process.levels, path, den.index(condition), guidance, tight=tight)


def audit_certificates(den, process, images=None, condition=None, guidance=1.0, *, model=None, budget_s=30.0):
    """What an audit can prove within a time budget: structure first, then whole trajectories image by image.

    Args:
      images: (n, *shape) or None. condition: one for all, n of them, or None.
      budget_s: seconds for proposing and checking together; what was not reached is left out.

    Returns:
      A list of (certificate, proved, image), ``image`` the index or None for all images; each was re-derived by the
      kernel here. Empty if nothing could be proved, or if the denoiser has no model card.
    """
    end, results = time.monotonic() + budget_s, []
    if process.table:  # the kernel knows steps of E1 only
        return results
    try:
        card, loaded = load_model(den if model is None else model)
    except (FpjaxError, kernel.CertificateError):
        return results
    pictures = [] if images is None else list(images)
    one = condition is None or isinstance(condition, str) or np.ndim(condition) == 0
    each = [condition] * max(len(pictures), 1) if one else list(np.asarray(condition))
    indices = sorted({den.index(c) for c in each})

    def attempt(make, image):
        left = end - time.monotonic()
        if left > 0:
            try:
                certificate = make()
                results.append((certificate, kernel.check_data(certificate.data, loaded, max(left, 1.0)), image))
            except kernel.CertificateError:
                return

    attempt(lambda: structure(card, loaded, process.levels, indices, guidance), None)
    for i, picture in enumerate(pictures):
        attempt(lambda i=i, x=picture: propose(den, x, process, condition=each[i], guidance=guidance, model=model), i)
    return results
