"""``fpjax dehaze`` and ``fpjax super-resolve``: files in; PNG, a picture of both side by side and a gallery out."""

from pathlib import Path
from typing import Annotated

import typer

from fpjax.command import bar, guarded
from fpjax.evidence import FpjaxError

Files = Annotated[
    list[Path] | None, typer.Argument(help="PNG or JPEG files; a part of a photograph of scikit-image's if left out")
]
Folder = Annotated[Path, typer.Option(help="folder for the results")]
EXAMPLE, PART = "coffee", 192  # held out from every training; pixels a side of its part


def register(app: typer.Typer) -> None:
    """Adds the two commands."""
    app.command()(dehaze)
    app.command("super-resolve")(super_resolve)


@guarded
def dehaze(
    files: Files = None,
    out: Folder = Path("fpjax-dehaze"),
    model: Annotated[str, typer.Option(help="a mixture of patches with degrees of haze")] = "haze-monotone",
    degree: Annotated[str | None, typer.Option(help="light, medium, dense or thick; by evidence if left out")] = None,
    strength: Annotated[float, typer.Option(help="how far the inversion goes, above 0 and at most 1")] = 1.0,
    guidance: Annotated[float, typer.Option(help="guidance weight while generating")] = 1.0,
    steps: Annotated[int, typer.Option(help="number of steps")] = 10,
) -> None:
    """Take haze away: invert under its degree, generate under "clear", carry over to the full photograph."""
    from fpjax import dehazing

    options = {"degree": degree, "strength": strength, "guidance": guidance, "steps": steps}

    def one(image, _):
        found = dehazing.dehaze(image, model, **options)
        figures = {"degree": found.degree, "mean transmission": float(found.t.mean())}
        return image, found.image, found.verdict, figures | {"evaluations": str(found.evaluations)}

    _run(files, out, "dehazed", one, _hazy_example)


@guarded
def super_resolve(
    files: Files = None,
    factor: Annotated[int, typer.Option(help="how many times larger: 2 or 4")] = 2,
    out: Folder = Path("fpjax-super-resolve"),
    model: Annotated[str, typer.Option(help="a network of patches for photographs")] = "photos-monotone",
    steps: Annotated[int, typer.Option(help="data-consistent steps")] = 4,
    tile: Annotated[int, typer.Option(help="pixels on a side of a tile")] = 384,
) -> None:
    """Enlarge photographs 2 or 4 times, in tiles; before is bicubic interpolation."""
    from fpjax import restoration

    def one(image, tick):
        found = restoration.super_resolve(image, factor, model, steps=steps, tile=tile, progress=tick)
        text = f"block means are kept to {found.consistency:.1e} (root mean square of values in [-1, 1])"
        return found.start, found.image, text, {"evaluations": str(found.evaluations), "tiles": str(found.tiles)}

    _run(files, out, f"{factor}x", one, _example)


def _run(files, out: Path, suffix: str, one, example) -> None:
    """Every file is read before the first is restored; what is written is written whole."""
    from fpjax import gallery, images
    from fpjax.report import check_writable

    check_writable(out)
    given = [(path.stem, images.read(path)) for path in files] if files else [example()]
    names = [name for name, _ in given]
    if len(set(names)) < len(names):
        raise FpjaxError("two files have the same name, so one result would replace the other; rename one")
    cases = []
    with bar() as progress:
        for name, image in given:
            task = progress.add_task(name, total=None)

            def tick(done: int, total: int, _: str, task=task) -> None:
                progress.update(task, completed=done, total=total)

            before, after, text, figures = one(image, tick)
            progress.update(task, completed=1, total=1)
            path = images.write(out / f"{name}-{suffix}.png", after)
            gallery.side_by_side(out / f"{name}-side-by-side.png", [before, after], ["before", suffix])
            cases.append(gallery.Case(name, before, after, text, figures))
            print(f"{path}: {text}")
    print(f"gallery: {gallery.save(out, f'fpjax: {suffix}', cases).resolve()}")


def _example():
    """A part of an embedded photograph."""
    from fpjax import data

    photo = data.photograph(EXAMPLE)
    top, left = ((n - PART) // 2 for n in photo.shape[:2])
    return EXAMPLE, data.scaled(photo[top : top + PART, left : left + PART])


def _hazy_example():
    from fpjax import haze

    name, image = _example()
    depth = haze.smooth_depth(*image.shape[:2]) + 0.3
    return f"{name}-with-haze", haze.add(image, haze.transmission(depth, 0.8), 0.8)
