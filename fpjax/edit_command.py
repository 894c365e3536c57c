"""``fpjax edit``: image files (or embedded images) in, edited images, pictures side by side, a gallery and what is known out.

Everything is read and computed before the first file is written, and each file is written whole. Not in this room: the edit
(editing).
"""

import json
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from fpjax.command import Double, Kind, Precision, ProcessKind, Seed, Steps, bar, embedded_images, guarded, use
from fpjax.evidence import FpjaxError

BATCH = 8  # images edited at once


class Sources(NamedTuple):
    """Points (n, *shape), their names, what was done to make them fit, and conditions of source and target (n,)."""

    points: list
    names: list[str]
    told: list[str]
    source: list
    target: list


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(edit)


@guarded
def edit(
    files: Annotated[
        list[Path] | None, typer.Argument(help="PNG or JPEG files; embedded held-out images if left out")
    ] = None,
    model: Annotated[
        str, typer.Option(help="an embedded model's name, or a folder or file with a model")
    ] = "digits-monotone",
    source: Annotated[
        str | None,
        typer.Option(help="the condition that describes the images; embedded images have their own, files none"),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(help="the condition that they should have; for embedded images the one after their own"),
    ] = None,
    guidance: Annotated[float, typer.Option(help="guidance weight of the generation; the inversion has 1")] = 3.0,
    strength: Annotated[float, typer.Option(help="share of the noise levels that is inverted, above 0 to 1")] = 1.0,
    mask: Annotated[
        Path | None,
        typer.Option(help="an image, white where to edit, black where to keep; made to fit like the others"),
    ] = None,
    safe: Annotated[
        bool, typer.Option("--safe", help="invert with the guidance too, cut to T11's limit at each step")
    ] = False,
    steps: Steps = 20,
    images: Annotated[int, typer.Option(help="how many embedded images, where no files are given")] = 8,
    process: Kind = ProcessKind.DDIM,
    out: Annotated[Path, typer.Option(help="folder for everything that is written")] = Path("fpjax-edit"),
    precision: Double = Precision.DOUBLE,
    solver: Annotated[str, typer.Option(help="auto, picard, relaxed, anderson or newton_krylov")] = "auto",
    seed: Seed = 0,
) -> None:
    """Edit images: invert under one condition, generate under another, and say what is known of the latent."""
    use(precision)
    import numpy as np

    import fpjax
    from fpjax import editing
    from fpjax.images import read
    from fpjax.models import store
    from fpjax.report import check_writable

    if store.is_diffusers(model):
        raise FpjaxError(
            "fpjax edit takes models of fpjax; for a diffusers checkpoint call fpjax.editing.edit with its denoiser and latents"
        )
    den = fpjax.load(model)
    if not den.conditions:
        raise FpjaxError(f"{den.name} has no conditions to edit between; choose a model that has, like digits-monotone")
    found = _sources(den, files, source, target, images, seed)
    shares = None if mask is None else (editing.fit(read(mask), den.shape)[0] + 1) / 2
    grid = fpjax.process.make(process.value, steps)
    check_writable(out)
    points = np.stack(found.points).astype(np.dtype(precision.value))
    size = min(BATCH, len(points))
    given = {"guidance": guidance, "strength": strength, "mask": shares, "safe": safe, "solver": solver, "seed": seed}
    made, known, spent = [], [], []
    with bar() as progress:
        task = progress.add_task("editing", total=len(points))
        for start in range(0, len(points), size):
            rows = np.minimum(np.arange(start, start + size), len(points) - 1)  # one program serves all batches
            ends = {"source": [found.source[i] for i in rows], "target": [found.target[i] for i in rows]}
            done = editing.edit(den, points[rows], grid, **ends, **given)
            fresh = min(size, len(points) - start)
            made += list(np.asarray(done.images)[:fresh])
            known += list(done.findings[:fresh])
            spent += [int(n) for n in done.evaluations[:fresh]]
            progress.update(task, completed=start + fresh)
    settings = {"model": den.name, "process": grid.describe(), "guidance": guidance, "strength": strength, "safe": safe}
    page = _write(out, den, found, made, known, spent, settings)
    for name, told, finding in zip(found.names, found.told, known, strict=True):
        print(f"{name}: {told}{finding.words}")
    print(f"gallery: {page.resolve()}")


def _sources(den, files, source, target, images: int, seed: int) -> Sources:
    from fpjax import editing
    from fpjax.images import read

    wanted = None if target is None else den.index(target)
    if files:
        if wanted is None:
            raise FpjaxError(f"say by --target what the images should become: one of {', '.join(den.conditions)}")
        first = den.null if source is None else den.index(source)
        fitted = [editing.fit(read(file), den.shape) for file in files]
        names = _names(files)
        return Sources(
            [p for p, _ in fitted], names, [f"{t}; " for _, t in fitted], [first] * len(files), [wanted] * len(files)
        )
    x, labels = embedded_images(den, images, seed)
    labels = [int(c) for c in labels] if source is None else [den.index(source)] * len(x)
    targets = [(c + 1) % den.null if wanted is None else wanted for c in labels]
    return Sources(list(x), [f"{i:02d}" for i in range(len(x))], [""] * len(x), labels, targets)


def _names(files) -> list[str]:
    """The files' stems, numbered where two are equal."""
    stems = [file.stem for file in files]
    return [f"{i:02d}-{stem}" if stems.count(stem) > 1 else stem for i, stem in enumerate(stems)]


def _write(out: Path, den, found: Sources, made, known, spent, settings) -> Path:
    import numpy as np

    from fpjax import gallery
    from fpjax.editing import shown
    from fpjax.images import write
    from fpjax.models.store import write_atomic

    if not all(np.isfinite(y).all() for y in made):
        raise FpjaxError("some edited image has NaN or infinite values; use less guidance or another model")
    names = [*den.conditions, "none"]
    cases, rows = [], []
    for i, (name, y, finding) in enumerate(zip(found.names, made, known, strict=True)):
        ends = names[found.source[i]], names[found.target[i]]
        before, after = shown(found.points[i]), shown(y)
        write(out / f"{name}-edited.png", after)
        gallery.side_by_side(out / f"{name}-beside.png", [before, after], [f"source: {ends[0]}", f"edited: {ends[1]}"])
        error = (
            "unknown" if finding.error is None else f"{finding.error.value:.1e} ({finding.error.evidence.name.lower()})"
        )
        figures = {"verdict": str(finding.verdict), "error of the latent": error, "evaluations": str(spent[i])}
        cases.append(
            gallery.Case(f"{name}: {ends[0]} → {ends[1]}", before, after, f"{found.told[i]}{finding.words}", figures)
        )
        row = {
            "name": name,
            "source": ends[0],
            "target": ends[1],
            "verdict": str(finding.verdict),
            "words": finding.words,
        }
        known_error = None if finding.error is None else finding.error.value
        rows.append(row | {"step": finding.step, "latent_error": known_error, "evaluations": spent[i]})
    write_atomic(out / "edit.json", json.dumps({"settings": settings, "edits": rows}, indent=1).encode())
    w = settings["guidance"]
    return gallery.save(out, f"Edits by {den.name}", cases, f"Guidance {w:g}, {settings['process']['steps']} steps.")
