"""The audit: the questions of THEORY section 1, asked of every step, each answered with verdict, value and evidence.

In this room: which points are looked at, what is measured there (:func:`_measure`), and the rules that turn
measurements into verdicts (:mod:`fpjax.rules`). Not in this room: HTML, plots, files (report), proofs (certify).
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fpjax import curves, multistep, programs, rules, sharding
from fpjax.budget import BUDGET, Budget
from fpjax.denoiser import Denoiser
from fpjax.evidence import Evidence, FpjaxError, Verdict
from fpjax.jacobian import Extremes, Spectrum, extreme_eigenvalues, spectrum, symmetric_part
from fpjax.process import Process
from fpjax.samplers import MULTISTEP, first_order, with_sampler
from fpjax.solve import Solution, check_solver, solve
from fpjax.step import G, Step, denoised
from fpjax.trajectory import Inversion, declared_modulus, generate, invert, prepare, stepped

SPECTRUM_TOL = 1e-6  # Ritz residual, relative; in float32 a hundred roundings, which is more
DENSE = 1024  # values in a point up to which dense Jacobians are taken
PAIR_SIZES = (1e-1, 1e-2, 1e-3, 1e-4)  # lengths of a witness pair, relative to the point's norm


class Measured(NamedTuple):
    """What one step's points say; the leading axis counts points, a few for each image (:func:`_points`).

    Attributes:
      y: the points, in y-coordinates.
      image: the image each point belongs to.
      spectrum: of J, the Jacobian of the guided denoiser.
      null, conditional: extremes of the symmetric parts of J_0 and J_c, or None for unconditional models.
      ratio, pair: the largest ||G(a) - G(b)||/||a - b|| of the pairs tried along the top singular vector, and b.
      picard: plain iteration from the naive start, one for each image.
      coupled: of a multistep sampler, the modulus of this step when the noisier states follow it (multistep.coupling),
        one for each image; then the other fields are those of the step with its memory frozen. None otherwise.
    """

    y: jax.Array
    image: np.ndarray
    spectrum: Spectrum
    null: Extremes | None
    conditional: Extremes | None
    ratio: jax.Array
    pair: jax.Array
    picard: Solution
    coupled: np.ndarray | None = None


@dataclasses.dataclass
class Report:
    """The outcome of :func:`audit`.

    Attributes:
      model: name of the model. process: its description. guidance: the guidance weights audited.
      table: the rows of ``audit.json``, plain data.
      round_trip: for each guidance, the largest round-trip error over the images whose every step was solved, how many
        those are, and network evaluations for an image.
      images: for each guidance, arrays ``source``, ``latent``, ``again`` (n, *shape) in the process's coordinates; for
        models with several conditions also ``edit``, the latent regenerated under another one, and their names ``caption``
        and ``edited`` (n,).
      settings: what was asked for: images, precision, solver, tol, seed.
      curves: for each guidance, what plots are drawn from (:func:`fpjax.curves.record`).
      command: the command line that made this, or None when it was made from Python.
      certificates: those written beside the report: ``file``, ``kind``, ``statement``, ``image`` (or None).
    """

    model: str
    process: dict[str, Any]
    guidance: list[float]
    table: list[dict[str, Any]]
    round_trip: list[dict[str, Any]]
    images: list[dict[str, np.ndarray]]
    settings: dict[str, Any]
    curves: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    command: str | None = None
    certificates: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The report as plain data, valid against ``fpjax/report/audit.schema.json``."""
        command = {} if self.command is None else {"command": self.command}
        return {
            "format": "fpjax-audit/1",
            "model": self.model,
            "process": self.process,
            "guidance": self.guidance,
            "settings": self.settings,
            "round_trip": self.round_trip,
            "rows": self.table,
            "curves": self.curves,
            "certificates": self.certificates,
        } | command

    def verdicts(self, question: str, guidance: float | None = None) -> list[str]:
        """The verdicts on one question, in the order of the steps."""
        return [
            row["verdict"] for row in self.table if row["question"] == question and guidance in (None, row["guidance"])
        ]

    def save(self, folder: str | Path) -> Path:
        """Writes ``audit.json``, ``report.html`` and ``report.md`` into a folder and returns the path of the page.

        Raises:
          FpjaxError: if the folder cannot be written; no partial file is left.
        """
        from fpjax.report import write  # the page is made from a finished report, never the other way round

        return write(self, Path(folder))


def audit(
    den: Denoiser,
    process: Process,
    *,
    images,
    condition=None,
    guidance: float | Sequence[float] = 1.0,
    solver: str = "auto",
    tol: float | None = None,
    limit: int = 400,
    seed: int = 0,
    budget: Budget = BUDGET,
    histories: Sequence[str] = curves.METHODS,
    sampler: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Asks of every step of an inversion whether it is well posed, and by what evidence.

    Args:
      den: the denoiser. process: noise levels.
      images: (n, *den.shape) in the process's own coordinates; their dtype is the precision of the audit.
      condition: None, one for all, or n.
      guidance: one weight or several.
      solver, tol, limit: of the inversion; the default tol is 1e-12 in float64 and 1e-6 in float32.
      seed: of the random points and Lanczos starts.
      budget: how many points are looked at and how closely; see :class:`Budget`.
      histories: solvers whose residuals along the first image's steps are kept for the report; each one compiles a
        program, so leave them out where nobody looks.
      sampler: one of :data:`fpjax.samplers.SAMPLERS` on the process's levels; None for the process's own. A one-step
        sampler is audited through its effective denoiser (:mod:`fpjax.composite`). A multistep sampler's uniqueness and
        error are those of the whole system (:func:`fpjax.multistep.coupling`), and its contraction and convergence those
        of one step with the memory of the solution; there d is at most 1024, since Jacobians are dense.
      progress: called with (units done, units in all, what is being done).

    Raises:
      FpjaxError: for bad input; see :func:`fpjax.trajectory.prepare`.
    """
    weights = [float(w) for w in ([guidance] if np.ndim(guidance) == 0 else list(guidance))]  # pyright: ignore
    if not weights:
        raise FpjaxError("give at least one guidance weight")
    process = process if sampler is None else with_sampler(process, sampler)
    inputs = [(w, prepare(den, images, condition, w)) for w in weights]
    z = inputs[0][1].z
    dtype = z.dtype
    tol = (1e-12 if dtype == jnp.float64 else 1e-6) if tol is None else tol
    for name in (solver, *histories):
        check_solver(name, tol, limit)
    budget.check()
    programs.forget()
    total = len(weights) * (process.steps + 1)
    report = Report(den.name, process.describe(), weights, [], [], [], {})
    report.settings = {
        "images": len(z),
        "points": budget.points * len(z),
        "precision": str(dtype),
        "solver": solver,
        "tol": tol,
        "picard_limit": budget.picard,
        "lanczos": budget.lanczos,
        "seed": seed,
    }
    done = 0

    def tick(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(done, total, what)
        done += 1

    for w, x in inputs:
        tick(f"guidance {w:g}: inverting")
        inversion = invert(den, x.z, process, condition=x.condition, guidance=w, solver=solver, tol=tol, limit=limit)
        again = generate(den, inversion.latent, process, condition=x.condition, guidance=w)
        report.round_trip.append(_round_trip(w, x.z, again, inversion))
        report.images.append(_images(den, process, x, inversion, again, w))
        spectra = []
        seen = _seen(x, process, inversion)
        modulus = declared_modulus(seen.x.den if process.table else den, process, w)
        declared = seen.x.den.facts if process.table else den.facts
        for i in range(process.steps):
            tick(f"guidance {w:g}: step {i + 1} of {process.steps}")
            step = _step(seen.x, process, i)
            measured = _measure(step, inversion, i, jax.random.fold_in(jax.random.key(seed), i), tol, seen, budget)
            facts = rules.StepFacts(
                i + 1, process.levels[i + 1], process.levels[i], w, declared, float(modulus[i]), tol
            )
            report.table += rules.rows(facts, inversion, i, measured)
            spectra.append(curves.edges(measured.spectrum))
        kept = curves.record(_step(seen.x, process, 0), process, inversion, spectra, tol, histories, seen.memory)
        report.curves.append({"guidance": w, **kept})
    if progress is not None:
        progress(total, total, "done")
    return report


def apply_structure(report: Report, proved, file: str) -> None:
    """Raises the verdicts that a structure certificate settles to CERTIFIED, at guidance 1.

    Args:
      report: changed in place.
      proved: what the kernel re-derived (:class:`fpjax.certify.check.Proved` of kind "structure") for the report's model,
        noise levels and conditions: modulus m >= rho for every y, hence one solution (T2).
      file: name of the certificate's file, for the reader.
    """
    for row in report.table:
        if row["guidance"] == 1.0 and proved.questions.get(row["question"]) == str(Verdict.CERTIFIED):
            row |= {
                "theorem": "T2",
                "verdict": str(Verdict.CERTIFIED),
                "value": row["rho"],
                "evidence": Evidence.ENCLOSED.name,
                "detail": f"proved from the weights, whatever the target: m >= rho ({file}); sampled: {row['detail']}",
            }


def _images(den: Denoiser, process: Process, x, inversion: Inversion, again, w: float) -> dict[str, np.ndarray]:
    """What the report shows of each image; the edit asks for the condition after the image's own."""
    out = {"source": x.z, "latent": inversion.latent, "again": again}
    condition = np.asarray(x.condition)
    other = (condition + 1) % max(len(den.conditions), 1)
    if len(den.conditions) > 1:
        names = [*den.conditions, "no condition"]
        out["edit"] = generate(den, inversion.latent, process, condition=other, guidance=w)
        out |= {"caption": [names[c] for c in condition], "edited": [names[c] for c in other]}
    return {k: np.asarray(v) for k, v in out.items()}


def _step(x, process: Process, i: int) -> Step:
    """Step i without its target: ``Step.target`` is filled for each lane."""
    dtype = x.z.dtype
    sigma, rho = jnp.asarray(process.sigmas[i + 1], dtype), jnp.asarray(process.rho[i], dtype)
    return Step(x.den, sigma, rho, jnp.zeros(x.den.shape, dtype), x.condition, x.guidance)


def _round_trip(w: float, source, again, inversion: Inversion) -> dict[str, Any]:
    """Figures of the whole trajectory; a maximum over unsolved images would mix two questions."""
    error = np.max(np.abs(np.asarray(again) - np.asarray(source)).reshape(len(source), -1), axis=1)
    solved = inversion.solved[:, -1]
    bound = np.asarray(inversion.error_bound)[:, -1]
    return {
        "guidance": w,
        "images": len(error),
        "solved": int(solved.sum()),
        "max_error_solved": float(error[solved].max()) if solved.any() else None,
        "max_error": rules.finite(error.max()),
        "latent_error_bound": rules.finite(bound.max()),
        "evaluations": float(np.asarray(inversion.evaluations).sum(axis=1).mean()),
    }


def _points(key, y_s, y_t, x0, sigma, count: int):
    """Points for each image: the naive start, where the solver ended, and a fresh sample at this noise level.

    Of two, the first two; of one, the second.
    """
    ended = jnp.where(jnp.isfinite(y_t), y_t, y_s)
    if count == 1:
        return ended
    if count == 2:
        return jnp.concatenate([y_s, ended])
    noise = jax.random.normal(key, x0.shape, x0.dtype)
    return jnp.concatenate([y_s, ended, x0 + sigma * noise])


class _Seen(NamedTuple):
    """How a sampler's steps look as E1.

    Attributes:
      x: the inputs with the denoiser to look at. memory: (n, steps, *shape) that a target lacks, 0 of one-step samplers.
      coupled: (n, steps) moduli of a multistep sampler, or None.
    """

    x: Any
    memory: Any
    coupled: np.ndarray | None


def _seen(x, process: Process, inversion: Inversion) -> _Seen:
    if process.sampler not in MULTISTEP:
        return _Seen(stepped(x, process), None, None)
    if x.den.size > DENSE:
        raise FpjaxError(f"the audit of {process.sampler} takes dense Jacobians, for at most {DENSE} values a point")
    table = multistep.make_table(process, x.z.dtype)
    path = jnp.asarray(inversion.path)
    path = jnp.where(jnp.isfinite(path), path, path[:, :1])
    found = np.asarray(multistep.jacobians(x, table, path), np.float64)
    weights = np.asarray(process.table)
    coupled = np.stack([multistep.coupling(j, process.rho, weights).modulus for j in found])
    gaps = jnp.asarray(1 - process.rho, path.dtype).reshape(1, -1, *[1] * (path.ndim - 2))
    memory = gaps * multistep.memory_of(x, table, path[:, 1:])
    rows = [
        first_order(r, (1 - r) * w, s) for r, w, s in zip(process.rho, weights[:, 0], process.levels[1:], strict=True)
    ]
    frozen = dataclasses.replace(process, sampler="euler", table=tuple(map(tuple, rows)))
    return _Seen(stepped(x, frozen), memory, coupled)


def _measure(
    step: Step, inversion: Inversion, i: int, key, tol: float, seen: _Seen, budget: Budget = BUDGET
) -> Measured:
    path = jnp.asarray(inversion.path)
    y_s = jnp.where(jnp.isfinite(path[:, i]), path[:, i], path[:, 0])
    points = _points(jax.random.fold_in(key, 0), y_s, path[:, i + 1], path[:, 0], step.sigma, budget.points)
    image = np.tile(np.arange(y_s.shape[0]), budget.points)
    lanes = step._replace(condition=step.condition[image])
    measured, ratio, pair = _look(lanes, points, key, budget)
    null = conditional = None
    if step.den.conditions:
        null = _edges(lanes, points, jnp.full_like(lanes.condition, step.den.null), key, budget)
        conditional = _edges(lanes, points, lanes.condition, key, budget)
    picard = _picard(step, y_s if seen.memory is None else y_s - seen.memory[:, i], y_s, tol, budget)
    coupled = None if seen.coupled is None else seen.coupled[:, i]
    return Measured(points, image, measured, null, conditional, ratio, pair, picard, coupled)


def _spectrum_tol(dtype) -> float:
    return max(SPECTRUM_TOL, 100 * float(jnp.finfo(dtype).eps))


def _each(look, step: Step, points, key, budget: Budget):
    """``look`` at every point under its own condition, on all devices."""
    batch, shared = (points, step.condition), (step._replace(condition=None), key)
    return sharding.over_devices(look, budget, shared, batch, together=True)[0]


def _at_once(function: Callable, batch, budget: Budget):
    """``function`` of every point of a batch, as many of them together as the budget says."""
    if budget.at_once is None or budget.at_once >= len(batch[0]):
        return jax.vmap(function)(*batch)
    return jax.lax.map(lambda x: function(*x), batch, batch_size=None if budget.at_once == 1 else budget.at_once)


def _look(step: Step, points, key, budget: Budget = BUDGET):
    """Spectrum of J at every point, and the worst of a few pairs along its top singular vector (T3)."""
    return _each(_look_here, step, points, key, budget)


def _look_here(budget: Budget, shared, batch):
    step, key = shared

    def one(y, c):
        p = step._replace(condition=c)
        options = {"tol": _spectrum_tol(y.dtype), "steps": budget.lanczos, "norms": ("departure",)}
        s = spectrum(denoised, y, p, key, **options)
        base = G(y, p)
        size = jnp.linalg.norm(y.reshape(-1)) + 1
        direction = s.departure.right.reshape(y.shape)

        def stretch(h):
            other = y + h * size * direction
            moved = jnp.linalg.norm((G(other, p) - base).reshape(-1))
            return moved / jnp.linalg.norm((other - y).reshape(-1)), other

        ratios, others = jax.vmap(stretch)(jnp.asarray(PAIR_SIZES, y.dtype))
        best = jnp.argmax(ratios)
        return s, ratios[best], others[best]

    return _at_once(one, batch, budget), ()


def _edges(step: Step, points, condition, key, budget: Budget = BUDGET) -> Extremes:
    """Extremes of the symmetric part of the unguided Jacobian under the given conditions."""
    return _each(_edges_here, step._replace(condition=condition), points, key, budget)


def _edges_here(budget: Budget, shared, batch):
    step, key = shared

    def one(y, c):
        p = step._replace(condition=c, guidance=None)
        operator = symmetric_part(lambda v: denoised(v, p), y)
        options = {"tol": _spectrum_tol(y.dtype), "steps": budget.lanczos, "dtype": y.dtype}
        return extreme_eigenvalues(operator, y.size, key, **options)

    return _at_once(one, batch, budget), ()


def _picard(step: Step, targets, starts, tol, budget: Budget = BUDGET) -> Solution:
    batch, shared = (targets, starts, step.condition), (step._replace(condition=None), jnp.asarray(tol, targets.dtype))
    return sharding.over_devices(_picard_here, budget, shared, batch)[0]


def _picard_here(budget: Budget, shared, batch):
    def one(target, start, c):
        p = shared[0]._replace(target=target, condition=c)
        return solve(G, start, p, solver="picard", tol=shared[1], limit=budget.picard, stop="residual")

    return jax.vmap(one)(*batch), ()
