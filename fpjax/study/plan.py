"""A study's plan: a TOML file becomes cells, each named by what it is made of.

In this room: what may be asked, and the key of a cell: the hash of its inputs, the SHA-256 of the model's card (which holds
that of the weights), precision and fpjax's version. Two studies that ask the same share the cell. Not in this room: doing
the work (work), keeping it (store).
"""

import hashlib
import itertools
import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fpjax
from fpjax import schemas
from fpjax.evidence import FpjaxError

MOST_CELLS = 10_000_000  # each is a row of a table on this machine's disk

_NUMBER = {"type": "number", "minimum": -1e6, "maximum": 1e6}
_WHOLE = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}


def _some(item: dict) -> dict:
    return {"type": "array", "items": item, "minItems": 1, "uniqueItems": True}


def _table(required: tuple[str, ...], **properties) -> dict:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


SCHEMA = _table(
    ("models", "process"),
    models=_some({"type": "string", "minLength": 1}),
    process={
        "type": "array",
        "minItems": 1,
        "items": _table(
            ("kind", "steps"),
            kind={"enum": ["ddim", "edm", "rectified-flow"]},
            steps=_some({"type": "integer", "minimum": 1, "maximum": 100_000}),
        ),
    },
    guidance=_some(_NUMBER),
    seeds=_some(_WHOLE),
    precision=_some({"enum": ["float32", "float64"]}),
    solver={"type": "string"},
    images=_table((), data={"type": "string"}, count=_WHOLE | {"minimum": 1}, batch=_WHOLE | {"minimum": 1}),
    budget=_table((), cell_s={"type": "number", "exclusiveMinimum": 0}, tries=_WHOLE | {"minimum": 1, "maximum": 100}),
)


@dataclass(frozen=True)
class Cell:
    """One piece of work: the audit of a few images by one model, process, guidance, seed and precision.

    Attributes:
      model: name or path. card: SHA-256 of its model card, which holds that of its weights.
      process, steps: the noise levels. guidance: weight. seed: of the choice of images and of every random point.
      precision: "float32" or "float64". solver: method of the inversion.
      data: the embedded data set. first, count: which of its images, in the order that the seed gives.
    """

    model: str
    card: str
    process: str
    steps: int
    guidance: float
    seed: int
    precision: str
    solver: str
    data: str
    first: int
    count: int

    @property
    def spec(self) -> dict[str, Any]:
        """The cell as plain data."""
        return asdict(self)

    @property
    def key(self) -> str:
        """SHA-256 of what determines the result; the same model in another place is the same cell."""
        told = {k: v for k, v in self.spec.items() if k != "model"} | {"fpjax": fpjax.__version__}
        return hashlib.sha256(json.dumps(told, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Plan:
    """A study: see docs/studies.md for the file.

    Attributes:
      text: the TOML text. asked: its contents with the defaults filled in. cards: model -> SHA-256 of its card.
    """

    text: str
    asked: dict[str, Any]
    cards: dict[str, str]

    @property
    def size(self) -> int:
        """How many cells."""
        return _size(self.asked)

    @property
    def cell_s(self) -> float | None:
        """The most seconds a cell may take, or None."""
        return self.asked["budget"]["cell_s"]

    @property
    def tries(self) -> int:
        """How often a cell is tried whose worker died."""
        return self.asked["budget"]["tries"]

    def cells(self) -> Iterator[Cell]:
        """Every cell; those that share compiled code follow one another."""
        a = self.asked
        processes = [(p["kind"], n) for p in a["process"] for n in p["steps"]]
        images = a["images"]
        starts = range(0, images["count"], images["batch"])
        axes = (a["precision"], a["models"], processes, a["guidance"], a["seeds"], starts)
        for precision, model, (kind, steps), guidance, seed, first in itertools.product(*axes):
            count = min(images["batch"], images["count"] - first)
            yield Cell(
                model, self.cards[model], kind, steps, float(guidance), seed, precision, a["solver"], images["data"],
                first, count,
            )  # fmt: skip


def _size(a: dict) -> int:
    processes = sum(len(p["steps"]) for p in a["process"])
    batches = -(-a["images"]["count"] // a["images"]["batch"])
    return math.prod([len(a["models"]), processes, len(a["guidance"]), len(a["seeds"]), len(a["precision"]), batches])


def read(path: str | Path) -> Plan:
    """The plan in a TOML file.

    Raises:
      FpjaxError: one sentence for a file that cannot be read, is not TOML, has an unknown key or a wrong value, asks for
        too many cells, or names a model that is not there.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FpjaxError(f"the study {path} cannot be read: {error}") from None
    return parse(text, str(path))


def parse(text: str, name: str = "the study") -> Plan:
    """The plan in TOML text; see :func:`read`."""
    try:
        asked = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise FpjaxError(f"{name} is not TOML: {error}") from None
    fault = schemas.fault(SCHEMA, asked)
    if fault is not None:
        raise FpjaxError(f"{name}, at {fault.where}: {fault.what}")
    _defaults(asked)
    if (size := _size(asked)) > MOST_CELLS:
        raise FpjaxError(f"{name} asks for {size:.3g} cells, more than {MOST_CELLS:,}; split it")
    _check_values(asked, name)
    return Plan(text, asked, {model: card_hash(model, whole=True) for model in asked["models"]})


def _defaults(a: dict) -> None:
    a.setdefault("guidance", [1.0])
    a.setdefault("seeds", [0])
    a.setdefault("precision", ["float64"])
    a.setdefault("solver", "auto")
    images = a.setdefault("images", {})
    images.update({"data": "digits", "count": 8, "batch": 8} | images)
    a["budget"] = {"cell_s": None, "tries": 3} | a.get("budget", {})


def _check_values(a: dict, name: str) -> None:
    """What the schema cannot say, found before any work begins."""
    from fpjax import data
    from fpjax.solve import check_solver

    if not all(math.isfinite(w) for w in a["guidance"]):
        raise FpjaxError(f"{name}: guidance weights are finite numbers")
    if a["images"]["data"] not in data.HELD_OUT:
        raise FpjaxError(f"{name}: unknown data set {a['images']['data']!r}; choose one of {', '.join(data.HELD_OUT)}")
    if a["images"]["count"] > (most := data.HELD_OUT[a["images"]["data"]]):
        raise FpjaxError(f"{name}: {a['images']['data']} has {most} held-out images, fewer than {a['images']['count']}")
    check_solver(a["solver"], 1e-6, 1)


def card_hash(model: str, *, whole: bool = False) -> str:
    """SHA-256 of a model's card.

    Args:
      whole: read and check the weights too, so that a damaged model is found now and not in every cell.

    Raises:
      FpjaxError: if the model is not there or is damaged.
    """
    from fpjax.models import store as models  # loads JAX, which asking for a study's status should not

    path = models.card_path(model)
    card = models.read_card(path)
    if whole:
        models.read_weights(path, card)
    return hashlib.sha256(path.read_bytes()).hexdigest()
