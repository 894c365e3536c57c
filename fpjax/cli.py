"""The command ``fpjax``: arguments in, one call, files out."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fpjax import edit_command, report_command, restoration_command
from fpjax.command import (
    Double,
    Images,
    Kind,
    Model,
    Pictures,
    Precision,
    ProcessKind,
    Question,
    Seed,
    Steps,
    bar,
    embedded_images,
    guarded,
    notes,
    numbers,
    use,
)
from fpjax.evidence import FpjaxError
from fpjax.study.command import app as study_app

app = typer.Typer(
    help="Is inverting this diffusion model a well-posed problem? Fixed points, measured and proved.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(study_app, name="study")
report_command.register(app)
restoration_command.register(app)
edit_command.register(app)


@app.command()
@guarded
def audit(
    model: Model = "digits-monotone",
    steps: Steps = 20,
    guidance: Annotated[
        str | None, typer.Option(help="guidance weights, comma-separated; 1,3 if left out, 1 without conditions")
    ] = None,
    images: Pictures = ["8"],  # noqa: B006 (typer copies it)
    process: Annotated[
        ProcessKind | None, typer.Option(help="noise process; a checkpoint's own scheduler, else ddim, if left out")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="a condition of a text-to-image checkpoint")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for a checkpoint's scheduler: clip_sample=false")
    ] = None,
    points: Annotated[int, typer.Option(help="points for each image and step, 1 to 3")] = 3,
    lanczos: Annotated[int, typer.Option(help="most Lanczos iterations of each spectrum")] = 256,
    out: Annotated[Path, typer.Option(help="folder for audit.json and report.html")] = Path("fpjax-report"),
    as_json: Annotated[bool, typer.Option("--json", help="print audit.json to stdout")] = False,
    require: Annotated[list[Question] | None, typer.Option(help="exit 1 unless this holds at every step")] = None,
    precision: Double = Precision.DOUBLE,
    solver: Annotated[str, typer.Option(help="auto, picard, relaxed, anderson or newton_krylov")] = "auto",
    seed: Seed = 0,
    sampler: Annotated[str | None, typer.Option(help="euler, heun, dpm2s, dpm2m or unipc")] = None,
) -> None:
    """Ask of every inversion step: does a solution exist, is it unique, is it found, how large is the error?"""
    use(precision)
    import numpy as np

    import fpjax
    from fpjax import subject
    from fpjax.budget import Budget
    from fpjax.models.store import is_diffusers
    from fpjax.report import check_writable, to_json

    kind = None if process is None else process.value
    named = subject.make(model, kind, steps, images, seed, prompts=prompt, settings=override)
    den, grid, x, labels = named.den, named.process, named.images, named.condition
    weights = numbers(guidance or ("1,3" if den.conditions else "1"), "--guidance")
    grid = grid if sampler is None else fpjax.samplers.with_sampler(grid, sampler)
    check_writable(out)
    with bar() as progress:
        task = progress.add_task("starting", total=None)

        def tick(done: int, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total, description=what)

        report = fpjax.audit(
            den,
            grid,
            images=x.astype(np.dtype(precision.value)),
            condition=labels,
            guidance=weights,
            solver=solver,
            seed=seed,
            budget=Budget(points, lanczos),
            progress=tick,
        )
    report.settings["source"] = named.source
    if precision is Precision.DOUBLE and 1.0 in weights and not is_diffusers(model):
        prove(report, den, grid, x, labels, model, out)
    options = [("steps", steps), ("guidance", ",".join(map(str, weights))), *(("images", name) for name in images)]
    options += [("process", kind)] if kind else []
    options += [("sampler", sampler)] if sampler else []
    options += [("prompt", text) for text in prompt or []] + [("set", text) for text in override or []]
    options += [
        ("points", points),
        ("lanczos", lanczos),
        ("precision", precision.value),
        ("solver", solver),
        ("seed", seed),
    ]
    report.command = shlex.join(["fpjax", "audit", model, *(str(p) for k, v in options for p in (f"--{k}", v))])
    page = report.save(out)
    if as_json:
        sys.stdout.write(to_json(report))
    else:
        show(report)
    print(f"report: {page.resolve()}", file=sys.stderr if as_json else sys.stdout)
    missing = [q for q in require or [] if not all(v in ("SUPPORTED", "CERTIFIED") for v in report.verdicts(q.value))]
    if missing:
        print(f"required, but not found to hold at every step: {', '.join(missing)}", file=sys.stderr)
        raise typer.Exit(1)


def prove(report, den, grid, x, condition, model: str, out: Path, budget_s: float = 20.0) -> None:
    """Writes the certificates that verify within a budget, and raises the verdicts that they settle."""
    import numpy as np

    from fpjax import certify
    from fpjax.auditing import apply_structure
    from fpjax.models import store

    card = store.card_path(model)
    few = x[:2].astype(np.float64)
    # The structure certificate names its conditions, so it is made for all images; trajectories only for a few.
    found = certify.audit_certificates(den, grid, None, condition, model=card, budget_s=budget_s)
    some = None if condition is None else condition[: len(few)]
    # The second call's structure certificate covers the conditions of a few images only: it must settle no row.
    rest = certify.audit_certificates(den, grid, few, some, model=card, budget_s=budget_s)
    found += [entry for entry in rest if entry[1].kind != "structure"]
    for certificate, proved, image in found:
        file = f"certificates/{proved.kind}{'' if image is None else f'-image-{image}'}.json"
        certificate.save(out / file)
        entry = {"file": file, "kind": proved.kind, "statement": proved.statement, "image": image}
        report.certificates.append(entry)
        if proved.kind == "structure":
            apply_structure(report, proved, file)
        notes.print(f"certified: {proved.statement}", highlight=False, soft_wrap=True)


def show(report) -> None:
    """The verdicts as a small table on stdout."""
    from fpjax.report import summary

    for w, trip in zip(report.guidance, report.round_trip, strict=True):
        table = Table(
            title=f"{escape(report.model)}, {report.process['kind']} {report.process['steps']} steps, guidance {w:g}"
        )
        table.add_column("question")
        table.add_column("verdict by step")
        for question, line in summary(report, w).items():
            table.add_row(question, line)
        error = "–" if trip["max_error_solved"] is None else f"{trip['max_error_solved']:.1e}"
        table.add_row(
            "round trip", f"{trip['solved']} of {trip['images']} images solved, largest error of those {error}"
        )
        Console().print(table)


@app.command()
@guarded
def models() -> None:
    """List the embedded models."""
    from fpjax.models import store

    table = Table("name", "shape", "conditions", "parameters", "held-out loss", "monotone by construction")
    for name in store.names():
        den, card = store.load(name), store.read_card(store.card_path(name))
        loss = f"{card['training']['held_out_loss']:.4f}"
        size = f"{store.parameters(den):,}"
        table.add_row(name, str(den.shape), str(len(den.conditions)), size, loss, "yes" if den.facts.monotone else "no")
    Console().print(table)


@app.command()
@guarded
def train(
    name: Annotated[str, typer.Argument(help="the embedded model to train again")],
    out: Annotated[Path, typer.Option(help="folder for the weights, the card and the pictures")] = Path("models"),
    updates: Annotated[int | None, typer.Option(help="number of updates, if not the recipe's")] = None,
    seed: Annotated[int | None, typer.Option(help="seed, if not the recipe's")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on with an interrupted run; the weights are the same")
    ] = False,
    checkpoint_every: Annotated[float, typer.Option(help="seconds between checkpoints")] = 30.0,
) -> None:
    """Train an embedded model again from its recipe: weights, card, loss curve and generated samples."""
    use(Precision.SINGLE)
    import dataclasses

    from rich.progress import TextColumn

    from fpjax.models import quality, recipes, store, training
    from fpjax.report import check_writable

    recipe = recipes.recipe(name)
    if updates is not None:
        if updates < 1:
            raise FpjaxError(f"--updates must be at least 1, got {updates}")
        recipe = dataclasses.replace(recipe, updates=updates)
    if seed is not None:
        recipe = dataclasses.replace(recipe, seed=seed)
    check_writable(out)
    checkpoint = out / f"{name}.checkpoint"
    if checkpoint.exists() and not resume:
        raise FpjaxError(f"{checkpoint} is an interrupted run; go on with it by --resume, or remove it to start again")
    with bar(TextColumn("{task.fields[rate]}")) as progress:
        task = progress.add_task("training", total=recipe.updates, rate="")

        def tick(done: int, total: int, loss: float) -> None:
            speed = progress.tasks[task].speed
            rate = f"{speed * recipe.batch:.0f} images/s" if speed else ""
            progress.update(task, completed=done, description=f"loss {loss:.4f}", rate=rate)

        run = training.train(recipe, tick, checkpoint, checkpoint_every)
    card, tensors = recipes.card(name, recipe, run), store.tensors_of(run.model)
    path = store.save(out, card, tensors)
    training.draw(out / f"{name}-loss.png", run)
    store.save(out, card | {"samples": quality.sheet(out / f"{name}-samples.png", store.load(path))}, tensors)
    print(f"held-out loss {run.held_out_loss:.5f}, training loss {run.train_loss:.5f}, {run.seconds:.0f} s: {path}")
    if name in store.names():
        shipped = store.read_card(store.card_path(name))["training"]["held_out_loss"]
        print(f"shipped model: {shipped:.5f}, ratio {run.held_out_loss / shipped:.4f}")


@app.command()
@guarded
def invert(
    model: Model = "digits-monotone",
    steps: Steps = 20,
    guidance: Annotated[float, typer.Option(help="guidance weight")] = 1.0,
    images: Images = 8,
    process: Kind = ProcessKind.DDIM,
    out: Annotated[Path, typer.Option(help="file for the latents and what is known of them")] = Path("latents.npz"),
    precision: Double = Precision.DOUBLE,
    solver: Annotated[str, typer.Option(help="auto, picard, relaxed, anderson or newton_krylov")] = "auto",
    tol: Annotated[float, typer.Option(help="residual asked for")] = 1e-10,
    seed: Seed = 0,
) -> None:
    """Invert embedded images and write their latents, exit codes, residuals and error bounds."""
    use(precision)
    import io

    import numpy as np

    import fpjax
    from fpjax.models.store import write_atomic

    den = fpjax.load(model)
    grid = fpjax.process.make(process.value, steps)
    x, labels = embedded_images(den, images, seed)
    condition = labels if den.conditions else None
    x = x.astype(np.dtype(precision.value))
    inversion = fpjax.invert(den, x, grid, condition=condition, guidance=guidance, solver=solver, tol=tol)
    arrays = {
        k: np.asarray(getattr(inversion, k)) for k in ("latent", "exit", "residual", "error_bound", "evaluations")
    }
    settings = {"model": den.name, "guidance": guidance, "process": grid.describe(), "solver": solver, "tol": tol}
    buffer = io.BytesIO()
    arrays |= {"source": x, "condition": labels, "settings": np.asarray(json.dumps(settings))}
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_atomic(out, buffer.getvalue())
    solved = inversion.solved[:, -1]
    error = np.asarray(fpjax.round_trip(den, x, grid, inversion, condition=condition, guidance=guidance))
    known = (
        "unknown"
        if not np.isfinite(arrays["error_bound"][:, -1]).all()
        else f"{arrays['error_bound'][:, -1].max():.1e}"
    )
    print(
        f"solved {int(solved.sum())} of {len(x)} images; round trip {error.max():.1e}; latent error bound {known}: {out}"
    )


@app.command()
@guarded
def certify(
    model: Model = "digits-monotone",
    steps: Steps = 20,
    guidance: Annotated[float, typer.Option(help="guidance weight")] = 1.0,
    images: Images = 2,
    process: Kind = ProcessKind.DDIM,
    out: Annotated[Path, typer.Option(help="folder for the certificates")] = Path("certificates"),
    seed: Seed = 0,
) -> None:
    """Prove what can be proved of inverting embedded images: existence, uniqueness and how near the latent is."""
    use(Precision.DOUBLE)
    import numpy as np

    import fpjax
    from fpjax.models import store

    den = fpjax.load(model)
    grid = fpjax.process.make(process.value, steps)
    x, labels = embedded_images(den, images, seed)
    condition = labels if den.conditions else None
    fpjax.denoiser.check_guidance(den, guidance, condition is not None)
    found = fpjax.certify.audit_certificates(
        den, grid, x.astype(np.float64), condition, guidance, model=store.card_path(model), budget_s=60.0 * (images + 1)
    )
    for certificate, proved, image in found:
        path = out / f"{proved.kind}{'' if image is None else f'-image-{image}'}.json"
        certificate.save(path)
        print(f"CERTIFIED {path}: {proved.statement}")
    proved_images = sum(image is not None for *_, image in found)
    print(f"{proved_images} of {images} images certified over the whole trajectory")


@app.command()
@guarded
def check(
    files: Annotated[list[Path], typer.Argument(help="certificates")],
    model: Annotated[
        str | None, typer.Option(help="the model they speak of; found among the embedded ones if left out")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="float64 with proved error bounds, for larger networks")] = False,
) -> None:
    """Re-derive certificates from the weights with the independent kernel; exit 1 unless every one verifies."""
    import fpjax

    failed = 0
    for file in files:
        try:
            proved = fpjax.certify.verify(file, model, fast=fast)
            print(f"{proved.verdict}{f' ({proved.arithmetic})' if fast else ''} {file}: {proved.statement}")
        except fpjax.certify.CertificateError as error:
            failed += 1
            print(f"REJECTED {file}: {error}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)


@app.command()
@guarded
def lipschitz(
    model: Model = "digits-monotone",
    steps: Annotated[str, typer.Option(help="step counts; the first one gets the curves")] = "20,5,10,50",
    guidance: Annotated[str, typer.Option(help="guidance weights")] = "1,3,7.5",
    images: Images = 16,
    process: Kind = ProcessKind.DDIM,
    out: Annotated[Path, typer.Option(help="folder for lipschitz.json, .html and .png")] = Path("fpjax-lipschitz"),
    precision: Double = Precision.DOUBLE,
    seed: Seed = 0,
) -> None:
    """Curves of kappa, m, ||J|| and asymmetry against sigma, and where contraction and uniqueness end."""
    use(precision)
    from fpjax.lipschitz import lipschitz_command
    from fpjax.report import check_writable

    counts, weights = numbers(steps, "--steps"), numbers(guidance, "--guidance")
    if any(n != int(n) for n in counts):
        raise FpjaxError(f"--steps takes whole numbers, not {steps!r}")
    check_writable(out)
    with bar() as progress:
        task = progress.add_task("starting", total=None)

        def tick(done: int, total: int, what: str) -> None:
            progress.update(task, completed=done, total=total, description=what)

        lipschitz_command(
            model,
            images=images,
            process=process.value,
            steps=[int(n) for n in counts],
            guidance=weights,
            precision=precision.value,
            seed=seed,
            out=str(out),
            progress=tick,
        )
    print(f"report: {(out / 'lipschitz.html').resolve()}")


@app.command()
@guarded
def doctor() -> None:
    """Print versions and devices, for bug reports."""
    import platform
    from importlib.metadata import version

    import jax

    import fpjax

    print(f"fpjax {fpjax.__version__}, Python {platform.python_version()}, {platform.platform()}")
    print(", ".join(f"{name} {version(name)}" for name in ("jax", "jaxlib", "flax", "lineax", "numpy", "python-flint")))
    print("devices: " + ", ".join(str(d) for d in jax.devices()))


def main() -> None:
    """The entry point; a broken pipe is no error."""
    try:
        app()
    except BrokenPipeError:
        sys.exit(0)


if __name__ == "__main__":
    main()
