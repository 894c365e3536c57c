"""What the commands share: how failures end, options by name, progress, embedded images.

Bad input is one sentence on stderr and exit code 2. Not in this room: the commands themselves (cli).
"""

import functools
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from fpjax.evidence import FpjaxError

notes = Console(stderr=True)


class ProcessKind(StrEnum):
    """Processes by name."""

    DDIM = "ddim"
    EDM = "edm"
    FLOW = "rectified-flow"


class Precision(StrEnum):
    """Floating-point precision by name."""

    SINGLE = "float32"
    DOUBLE = "float64"


class Question(StrEnum):
    """Questions that ``--require`` takes."""

    EXISTENCE = "existence"
    UNIQUENESS = "uniqueness"
    CONTRACTION = "contraction"
    CONVERGENCE = "convergence"
    ERROR = "error"
    GUIDANCE = "guidance-limit"


def guarded(command: Callable) -> Callable:
    """Turns every expected failure into one sentence and exit code 2, and an interrupt into 130."""

    @functools.wraps(command)
    def run(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except FpjaxError as error:
            fail(str(error))
        except MemoryError:
            fail("there is not enough memory; use fewer images or a smaller model")
        except KeyboardInterrupt:
            print("interrupted; nothing was written", file=sys.stderr)
            raise typer.Exit(130) from None

    return run


def fail(sentence: str) -> None:
    """Prints one sentence and ends with exit code 2."""
    print(f"fpjax: {' '.join(sentence.split())}", file=sys.stderr)
    raise typer.Exit(2)


def use(precision: Precision) -> None:
    """Sets JAX's precision; before the first array is made."""
    import jax

    jax.config.update("jax_enable_x64", precision is Precision.DOUBLE)


def numbers(text: str, what: str) -> list[float]:
    """Comma-separated numbers.

    Raises:
      FpjaxError: if they are not.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise FpjaxError(f"{what} takes numbers with commas between them, like 1,3,7.5, not {text!r}") from None


def bar(*more: ProgressColumn) -> Progress:
    """A progress bar on stderr, so that stdout stays clean for JSON, with more columns at its end if wanted."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), *more)
    return Progress(*columns, console=notes)


Model = Annotated[str, typer.Argument(help="an embedded model's name, or a folder or file with a model")]
Steps = Annotated[int, typer.Option(help="number of steps")]
Kind = Annotated[ProcessKind, typer.Option("--process", help="noise process")]
Images = Annotated[int, typer.Option(help="how many embedded held-out images")]
Pictures = Annotated[list[str], typer.Option("--images", help="how many images, or an image file (repeat for more)")]
Seed = Annotated[int, typer.Option(help="seed of every random choice")]
Double = Annotated[Precision, typer.Option(help="floating-point precision")]


def embedded_images(den, n: int, seed: int):
    """Held-out images that fit a model.

    Raises:
      FpjaxError: if no embedded data set has the model's shape.
    """
    from fpjax import subject

    found = subject.embedded(den, n, seed)
    if found is None:
        raise FpjaxError(
            f"no embedded images have the shape {den.shape} of {den.name}; call fpjax.audit from Python with yours"
        )
    return found[0], found[1]
