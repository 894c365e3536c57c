"""What a study will cost, from cells that were measured.

In this room: a model with two coefficients for each kind of cell, fitted to the store's measurements. Work that a cell does
is proportional to its image-steps (images × steps), beside a part that does not depend on them; compiling is paid once a
worker for each shape of cell; memory is that of the worker process. Not in this room: measuring (meter), the network calls of
models that are not here (docs/planning.md).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fpjax.study.plan import Cell

Measured = tuple[Cell, float, float, int]  # cell, seconds, compile_s, peak_bytes


def kind(cell: Cell) -> tuple:
    """Cells of one kind do the same work for an image and a step. Guidance other than 1 is another program."""
    return cell.card, cell.precision, cell.solver, cell.process, cell.guidance != 1.0


def shape(cell: Cell) -> tuple:
    """Cells of one shape share their compiled programs."""
    return *kind(cell), cell.steps, cell.count


def units(cell: Cell) -> int:
    """Image-steps."""
    return cell.steps * cell.count


class Forecast(NamedTuple):
    """What cells will cost.

    Attributes:
      cells: how many are predicted. unknown: how many are of kinds that were not measured.
      work_s: seconds of one worker for them all, compiling not counted. compile_s: of one worker, once.
      wall_s: until they are done by ``workers``, each of which compiles for itself.
      workers: how many. peak_bytes: memory of one worker at most.
      spread: lowest and highest ratio of a measured cell's time to what the model says of it.
    """

    cells: int
    unknown: int
    work_s: float
    compile_s: float
    wall_s: float
    workers: int
    peak_bytes: float
    spread: tuple[float, float]

    def __str__(self):
        if not self.cells:
            return "nothing is known yet of what its cells cost"
        low, high = self.spread
        more = f"; {self.unknown} cells of kinds that were not measured come on top" if self.unknown else ""
        return (
            f"{self.cells} cells: about {clock(self.wall_s)} with {self.workers} workers ({clock(self.work_s)} of work, "
            f"{clock(self.compile_s)} of compiling for each), up to {self.peak_bytes / 2**20:.0f} MiB of memory a worker; "
            f"measured cells took {low:.2f} to {high:.2f} times what this says of them{more}"
        )


def clock(seconds: float) -> str:
    """A duration in a unit that fits."""
    for size, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"


class _Line(NamedTuple):
    """value ≈ base + rate·units, neither below 0."""

    base: float
    rate: float

    def __call__(self, n) -> float:
        return self.base + self.rate * n


def _fitted(n: np.ndarray, values: np.ndarray) -> _Line:
    """Least squares of the relative error; one size alone says nothing about the base, which is then 0."""
    from scipy.optimize import nnls

    values = np.maximum(values, 1e-9)
    if len(set(n.tolist())) == 1:
        return _Line(0.0, float(np.mean(values) / n[0]))
    both, _ = nnls(np.stack([1 / values, n / values], axis=1), np.ones(len(n)))
    return _Line(float(both[0]), float(both[1]))


class Costs:
    """The model, fitted to measured cells."""

    def __init__(self, measured: Iterable[Measured]):
        groups = defaultdict(list)
        for m in measured:
            groups[kind(m[0])].append(m)
        self.time, self.memory, self.compile, ratios = {}, {}, {}, []
        for k, group in groups.items():
            n = np.array([units(m[0]) for m in group], float)
            work = np.array([m[1] - m[2] for m in group])
            self.time[k] = _fitted(n, work)
            self.memory[k] = _fitted(n, np.array([float(m[3]) for m in group]))
            self.compile[k] = max(m[2] for m in group)  # a cell's first run in a worker compiles everything it needs
            ratios += [w / max(self.time[k](u), 1e-9) for w, u in zip(work, n, strict=True)]
        self.spread = (min(ratios), max(ratios)) if ratios else (0.0, 0.0)

    def predict(self, cells: Iterable[Cell], workers: int) -> Forecast:
        """What these cells will cost."""
        work = peak = 0.0
        count, unknown, shapes = 0, 0, set()
        for cell in cells:
            k = kind(cell)
            if k not in self.time:
                unknown += 1
                continue
            count += 1
            work += self.time[k](units(cell))
            peak = max(peak, self.memory[k](units(cell)))
            shapes.add(shape(cell))
        compiling = sum(self.compile[s[:-2]] for s in shapes)
        wall = work / workers + compiling
        return Forecast(count, unknown, work, compiling, wall, workers, peak, self.spread)


def samples(cells: Sequence[Cell], measured: Iterable[Measured]) -> list[Cell]:
    """The cells to measure before a study can be predicted: of each kind, the smallest and the largest, unless one as large
    is known."""
    known = defaultdict(set)
    for m in measured:
        known[kind(m[0])].add(units(m[0]))
    ends: dict[tuple, dict[int, Cell]] = defaultdict(dict)
    for cell in cells:
        ends[kind(cell)].setdefault(units(cell), cell)
    return [
        group[n] for k, group in ends.items() for n in sorted({min(group), max(group)}) if n not in known[k]
    ]  # fmt: skip
