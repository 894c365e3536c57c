"""The kernel's reader: hostile JSON, exact numbers and safetensors become checked Python values, or a reason why not.

In this room: files, formats, hashes. Not in this room: mathematics. Only the standard library is imported.

A format is written as readers: functions (value, what) -> value that raise :class:`CertificateError`; ``what`` names the
place in the message. :func:`record` makes one for an object with fixed keys out of the readers of its fields.
"""

import array
import hashlib
import importlib
import json
import math
import re
import sys
import time
from itertools import pairwise
from pathlib import Path

CERTIFICATE, MODEL = "fpjax-certificate/1", "fpjax-model/1"
MAX_FILE, MAX_WEIGHTS, MAX_ENTRIES, MAX_WORK, MAX_LAYERS = 1 << 24, 1 << 26, 1 << 22, 1 << 31, 1000


class CertificateError(ValueError):
    """The certificate or the model is malformed, or what it claims was not proved. The message says why."""


def require(holds, reason: str) -> None:
    """Raises CertificateError(reason) unless ``holds`` is exactly True."""
    if holds is not True:
        raise CertificateError(reason)


def load_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a file of at most ``limit`` bytes."""
    try:
        with open(path, "rb") as f:
            raw = f.read(limit + 1)
    except (OSError, ValueError) as error:
        raise CertificateError(f"cannot read {path.name!r}: {type(error).__name__}") from None
    require(len(raw) <= limit, f"{path.name!r} is larger than {limit} bytes")
    return raw


def load_json(raw: bytes, what: str, floats: bool = False) -> dict:
    """A JSON object without repeated keys, NaN, infinities or (unless ``floats``) decimal fractions."""

    def reject(text):
        raise CertificateError(f"{what}: the number {text[:20]} is not allowed")

    def pairs(items):
        require(len({k for k, _ in items}) == len(items), f"{what}: a key is repeated")
        return dict(items)

    try:
        data = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=reject,
                          parse_float=float if floats else reject)  # fmt: skip
    except CertificateError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise CertificateError(f"{what} is not readable JSON ({type(error).__name__})") from None
    require(isinstance(data, dict), f"{what} is not a JSON object")
    return data


def digest(data) -> str:
    """SHA-256 of the canonical JSON text (sorted keys, no spaces, ASCII)."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(certificate: dict) -> dict:
    """The certificate with its digest: a guard against accidents and edits; the proof does not rest on it."""
    body = {k: v for k, v in certificate.items() if k != "seal"}
    return {**body, "seal": digest(body)}


# ---- readers ---------------------------------------------------------------------------------------------------------


def whole(low: int, high: int):
    """An integer in [low, high]."""

    def read(value, what):
        require(type(value) is int and low <= value <= high, f"{what} must be an integer from {low} to {high}")
        return value

    return read


def real(low: float = -math.inf):
    """A finite float64 of at least ``low``, in the one spelling that float.hex gives."""

    def read(text, what):
        try:
            value = float.fromhex(text) if isinstance(text, str) and len(text) < 40 else math.nan
        except (ValueError, OverflowError):
            value = math.nan
        require(math.isfinite(value) and value.hex() == text, f"{what} must be a finite hexadecimal float as float.hex")
        require(value >= low, f"{what} must be at least {low}")
        return value

    return read


def word(*words: str):
    """One of these strings."""

    def read(value, what):
        require(isinstance(value, str) and value in words, f"{what} must be {' or '.join(words)}")
        return value

    return read


def name(value, what):
    """A string without a path in it."""
    good = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]{1,80}", value) is not None
    require(good, f"{what} is not plain")
    return value


def anything(value, what):
    """Whatever it is: read later."""
    return value


def listof(reader, low: int, high: int | None = None):
    """A list of low to high (or exactly low) entries of one kind."""
    high = low if high is None else high

    def read(value, what):
        size = f"{low}" if low == high else f"{low} to {high}"
        require(isinstance(value, list) and low <= len(value) <= high, f"{what} must be a list of {size} entries")
        return [reader(v, what) for v in value]

    return read


def nullable(reader):
    """Null, or what the reader takes."""
    return lambda value, what: None if value is None else reader(value, what)


def record(spec: dict, others: bool = False):
    """An object with the keys of ``spec``; a key that ends in ? may be missing. ``others``: more keys are ignored."""
    needed = {k for k in spec if not k.endswith("?")}
    readers = {k.rstrip("?"): reader for k, reader in spec.items()}

    def read(value, what):
        require(isinstance(value, dict), f"{what} is not an object")
        fits = needed <= set(value) and (others or set(value) <= set(readers))
        require(fits, f"{what} must have the keys {sorted(needed)}")
        return {k: reader(value[k], f"{what}: {k}") for k, reader in readers.items() if k in value}

    return read


def levels(value, what):
    """Noise levels, strictly increasing, at least two."""
    found = listof(real(0.0), 2, 10000)(value, what)
    require(all(a < b for a, b in pairwise(found)), f"{what} must increase strictly")
    return found


# ---- models ----------------------------------------------------------------------------------------------------------


def read_tensors(raw: bytes) -> dict[str, tuple[tuple[int, ...], array.array]]:
    """Name -> (shape, values) of a safetensors file that its tensors tile without gap or overlap."""
    size = int.from_bytes(raw[:8], "little")
    require(8 + size <= len(raw), "weights: the header does not fit the file")
    header, body, tensors, spans = load_json(raw[8 : 8 + size], "weights header"), raw[8 + size :], {}, []
    entry = record({
        "dtype": word("F32", "F64"),
        "shape": listof(whole(0, MAX_ENTRIES), 0, 4),
        "data_offsets": listof(whole(0, len(body)), 2),
    })  # fmt: skip
    for key, value in header.items():
        if key != "__metadata__":
            found = entry(value, f"tensor {key!r}")
            (start, end), values = found["data_offsets"], array.array("f" if found["dtype"] == "F32" else "d")
            fits = end - start == math.prod(found["shape"]) * values.itemsize
            require(fits, f"tensor {key!r}: offsets do not fit its shape")
            values.frombytes(body[start:end])
            if sys.byteorder == "big":
                values.byteswap()
            require(all(map(math.isfinite, values)), f"tensor {key!r} has a value that is not finite")
            tensors[key], spans = (tuple(found["shape"]), values), [*spans, (start, end)]
    spans.sort()
    ends = [0, *(end for _, end in spans)]
    require([s for s, _ in spans] == ends[:-1] and ends[-1] == len(body), "weights: tensors overlap or leave a gap")
    return tensors


CARD = {
    "format": word(MODEL),
    "name": anything,
    "shape": listof(whole(1, 4096), 1, 4),
    "conditions": listof(anything, 0, 100000),
    "weights": name,
    "sha256": anything,
    "layers": listof(anything, 1, MAX_LAYERS),
}


class Model:
    """A network: its card, its exact weights, and the budget of time that a check may use.

    Args:
      path: the card (NAME.json) or the folder that holds it.
      called: the model that the certificate names.
      limit_s: seconds after which every operation ends in CertificateError.
      fast: whether its matrices are multiplied in float64 with proved error bounds (fast.py) instead of in Arb.
    """

    def __init__(self, path: str | Path, called: str | None = None, limit_s: float = 600.0, fast: bool = False):
        path, self.deadline, self.fast = Path(path), time.monotonic() + limit_s, fast
        home, kind = ("fast", "FloatMatrix") if fast else ("matrices", "ArbMatrix")
        self.matrix = getattr(importlib.import_module(f"fpjax.certify.{home}"), kind)
        if path.is_dir():
            path = path / f"{name(called, 'the name of the model')}.json"
        text = load_json(load_bytes(path, MAX_FILE), "model card", floats=True)
        card = record(CARD, others=True)(text, "model card")
        raw = load_bytes(path.parent / card["weights"], MAX_WEIGHTS)
        self.weights_sha256 = hashlib.sha256(raw).hexdigest()
        same = card["sha256"] == self.weights_sha256
        require(same, "the weights do not have the SHA-256 that the model card states")
        self.program_sha256 = digest({k: card[k] for k in CARD if k not in ("name", "weights")})
        self.name, self.layers, self.size = card["name"], card["layers"], math.prod(card["shape"])
        require(self.size <= self.matrix.pixels, f"the kernel takes at most {self.matrix.pixels} pixels")
        self.classes, self.tensors, self.cache = len(card["conditions"]), read_tensors(raw), {}

    def tick(self, work: int = 1) -> None:
        """Refuses one operation of more than MAX_WORK multiplications, and any after the deadline."""
        require(work <= MAX_WORK * self.matrix.scale, "an operation is too large for the kernel")
        require(time.monotonic() < self.deadline, "the time limit was reached")

    def shape(self, key) -> tuple[int, ...]:
        """The shape of a tensor."""
        require(isinstance(key, str) and key in self.tensors, f"the weights have no tensor {str(key)[:40]!r}")
        return self.tensors[key][0]

    def tensor(self, key, *shape) -> array.array:
        """The entries of a tensor of that shape; None stands for any size."""
        have = self.shape(key)
        fits = len(have) == len(shape) and all(s is None or s == h for h, s in zip(have, shape, strict=True))
        require(fits and math.prod(have) > 0, f"tensor {key!r} has shape {have}, expected {shape}")
        return self.tensors[key][1]
