"""Small networks as model cards, and claims about them that the kernel of ``fpjax.certify`` must re-derive.

In this room: layer lists and weights of a few families (the format is fpjax/certify/format.md), four ready networks,
and :func:`derive`, which makes a certificate and asks the kernel. Not in this room: theorems; nothing here is trusted.

Use in a theorem module::

    from proofs_checks import certificates as cert
    p = cert.step("points", sigma_to=0.07, sigma_from=0.35)             # a propose.Problem
    found = cert.derive(propose.step_ball, p, target, start)            # found.holds, .detail, .facts, .certificate
    found = cert.derive(propose.step_ball, p, target, start, edit=lambda claim: claim.update(...))  # a changed claim
"""

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from fpjax.models.tree import merges, sizes

KEYS = ("means", "factors", "variances", "floor", "logits")
MIXTURE = [{"op": "mixture", "out": "D", "in": "y"} | {k: k for k in KEYS}]
TREE = ("means", "variances", "leaf", "root")
POINTS = ((-1.0, 0.2), (1.0, 0.0), (0.3, 0.8))


def write(folder: Path, name: str, layers: list, tensors: dict, shape, classes: int = 0, dtype=np.float32) -> Path:
    """Writes NAME.safetensors and NAME.json into a folder; returns the path of the card."""
    raw = save({k: np.ascontiguousarray(v, dtype) for k, v in tensors.items()})
    (folder / f"{name}.safetensors").write_bytes(raw)
    card = {
        "format": "fpjax-model/1",
        "name": name,
        "shape": list(shape),
        "conditions": [str(i) for i in range(classes)],
        "weights": f"{name}.safetensors",
        "sha256": hashlib.sha256(raw).hexdigest(),
        "layers": layers,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(card))
    return path


def f32(x) -> np.ndarray:
    """The float64 value of the float32 that will be stored."""
    return np.asarray(x, np.float32).astype(np.float64)


def points_tensors(points=POINTS, logits=None, std: float = 0.0) -> dict[str, np.ndarray]:
    """The exact denoiser of equally likely points, or of the given logits, one row a condition; blurred by std."""
    points = np.asarray(points, np.float64)
    n, d = points.shape
    return {
        "means": points,
        "factors": np.zeros((n, d, 1)),
        "variances": np.zeros((n, 1)),
        "floor": np.full(n, std**2),
        "logits": np.zeros((1, n)) if logits is None else np.asarray(logits, np.float64),
    }


def twisted_layers() -> list[dict]:
    """A mixture plus ``twist`` times y: with a twist below -rho/(1 - rho) the step is no longer monotone (T2)."""
    tail = [{"op": "scale", "out": "t", "in": "y", "by": "twist"}, {"op": "add", "out": "D", "in": ["m", "t"]}]
    return [{**MIXTURE[0], "out": "m"}, *tail]


def mixture_tensors(rng, d: int, components=5, rank=2, classes=0, spread=1.0) -> dict[str, np.ndarray]:
    """A random mixture of low-rank Gaussians."""
    u = np.stack([np.linalg.qr(rng.standard_normal((d, rank)))[0] for _ in range(components)])
    return {
        "means": f32(spread * rng.standard_normal((components, d))),
        "factors": f32(u),
        "variances": f32(rng.uniform(0.05, 1.0, (components, rank))),
        "floor": f32(rng.uniform(0.001, 0.05, components)),
        "logits": f32(rng.standard_normal((classes + 1, components))),
    }


def gradient_layers(fn="logcosh", softmax=False) -> list[dict]:
    """W diag(a) phi(diag(a) W^T y + c) + skip*y + b, gains and biases from (sigma, condition): the pattern of T6.

    Written as the gradient of a potential: phi = tanh for fn = logcosh, sigmoid for softplus, relu for relu2, identity
    for square; the softmax is the gradient of log-sum-exp.
    """
    last = [
        {"op": "elementwise", "out": "h", "in": "p", "fn": fn},
        {"op": "affine", "out": "potential", "in": "h", "weight": "E"},
    ]
    potential = [
        {"op": "affine_t", "out": "u", "in": "y", "weight": "W"},
        {"op": "scale" if softmax else "multiply", "out": "ua", "in": "u", "by": "a"},
        {"op": "add", "out": "p", "in": ["ua", "c"]},
        *([{"op": "logsumexp", "out": "potential", "in": "p"}] if softmax else last),
    ]
    return [
        {"op": "edm", "out": "noise", "which": "noise", "data_std": 0.5},
        {"op": "edm", "out": "skip", "which": "skip", "data_std": 0.5},
        {"op": "affine", "out": "na", "in": "noise", "weight": "Wa", "bias": "ba"},
        {"op": "elementwise", "out": "a", "in": "na", "fn": "softplus"},
        {"op": "embed", "out": "c", "table": "table"},
        {"op": "gradient", "out": "g", "in": "y", "layers": potential},
        {"op": "scale", "out": "s", "in": "y", "by": "skip"},
        {"op": "add", "out": "D", "in": ["s", "g", "b"]},
    ]


def gradient_tensors(rng, d: int, width=6, classes=0, scale=0.5, softmax=False) -> dict[str, np.ndarray]:
    """Random weights for :func:`gradient_layers`."""
    n = 1 if softmax else width
    return {
        "W": f32(scale * rng.standard_normal((d, width))),
        "Wa": f32(0.3 * rng.standard_normal((n, 1))),
        "ba": f32(rng.standard_normal(n)),
        "table": f32(rng.standard_normal((classes + 1, width))),
        "b": f32(0.1 * rng.standard_normal(d)),
        "E": f32(np.ones((1, width))),
    }


def convex_layers(first="softplus", second="softplus") -> list[dict]:
    """skip*y + the gradient of an input-convex network of two hidden layers, the second with a skip connection from y.

    Hidden weights U and the last row E are nonnegative, and ``second`` is nondecreasing.
    """
    potential = [
        {"op": "affine", "out": "p1", "in": "y", "weight": "W1", "bias": "b1"},
        {"op": "elementwise", "out": "z1", "in": "p1", "fn": first},
        {"op": "affine", "out": "q", "in": "z1", "weight": "U"},
        {"op": "affine", "out": "r", "in": "y", "weight": "W2", "bias": "b2"},
        {"op": "add", "out": "p2", "in": ["q", "r", "c"]},
        {"op": "elementwise", "out": "z2", "in": "p2", "fn": second},
        {"op": "affine", "out": "potential", "in": "z2", "weight": "E"},
    ]
    return [
        {"op": "edm", "out": "skip", "which": "skip", "data_std": 0.5},
        {"op": "embed", "out": "c", "table": "table"},
        {"op": "gradient", "out": "g", "in": "y", "layers": potential},
        {"op": "scale", "out": "s", "in": "y", "by": "skip"},
        {"op": "add", "out": "D", "in": ["s", "g"]},
    ]


def convex_tensors(rng, d: int, width=4, classes=0, scale=0.5) -> dict[str, np.ndarray]:
    """Random weights for :func:`convex_layers`."""
    return {
        "W1": f32(scale * rng.standard_normal((width, d))),
        "b1": f32(rng.standard_normal(width)),
        "U": f32(scale * abs(rng.standard_normal((3, width)))),
        "W2": f32(scale * rng.standard_normal((3, d))),
        "b2": f32(rng.standard_normal(3)),
        "table": f32(rng.standard_normal((classes + 1, 3))),
        "E": f32(abs(rng.standard_normal((1, 3)))),
    }


def patch_layers(image, patch, stride=(1, 1)) -> list[dict]:
    """A nonnegative multiple of sum_i P_i^T D(P_i y), D the posterior mean of a mixture of patches."""
    inside = {"op": "patches", "out": "sum", "in": "y", "image": [*image], "patch": [*patch], "stride": [*stride]}
    return [{**inside, "layers": MIXTURE}, {"op": "scale", "out": "D", "in": "sum", "by": "share"}]


def reflected_layers(image, patch, stride=(1, 1)) -> list[dict]:
    """The same mean over all patches of the image continued by its mirror images."""
    first, second = patch_layers(image, patch, stride)
    return [{**first, "border": "reflect"}, second]


def patch_tensors(rng, d: int, patch=2, classes=0) -> dict[str, np.ndarray]:
    """Random weights for :func:`patch_layers`, whatever the size d of the image."""
    return {**mixture_tensors(rng, patch, 3, 1, classes), "share": f32([0.5])}


def guided_prior() -> list[dict]:
    """A mixture whose guidance moves its logits (T11): monotone at every guidance weight."""
    return [{**MIXTURE[0], "guidance": "prior"}]


def tree_layers(image, window=0) -> list[dict]:
    """The posterior mean of a latent tree over an image (rows, columns), or of one over every window."""
    levels = 2 * (window.bit_length() - 1) if window else len(merges(*image)) - 1
    names = {"levels": [f"level.{i}" for i in range(levels)]} | {k: k for k in TREE}
    return [{"op": "tree", "out": "D", "in": "y", "image": [*image], **names}]


def tree_tensors(rng, image, states=3, gaussians=2, classes=0, alike=False, window=0, blocks=(1, 1)) -> dict:
    """A random latent tree, or one of windows, in blocks; ``alike``: the first merge has the same weights everywhere."""
    size = (window, window) if window else image
    places = list(zip(sizes(*size), merges(*size), strict=True))
    places = [
        ((2, 1) if axis == 0 else (1, 2)) if window or (alike and not i) else n for i, (n, axis) in enumerate(places)
    ]
    tensors, inner = {}, gaussians
    for i, place in enumerate([*places, *([blocks] if window else [])]):
        outer = states + i if window else states
        tensors["leaf" if i == 0 else f"level.{i - 1}"] = f32(rng.uniform(0.01, 1.0, (*place, outer, inner)) ** 3)
        inner = outer
    return tensors | {
        "means": f32(rng.standard_normal(gaussians)),
        "variances": f32(rng.uniform(0.01, 0.5, gaussians)),
        "root": f32(rng.standard_normal((classes + 1, inner))),
    }


def plain_layers(blocks=2) -> list[dict]:
    """An EDM-preconditioned residual MLP: no structure that would make it monotone."""
    layers = [{"op": "edm", "out": f"c_{k}", "which": k, "data_std": 0.5} for k in ("in", "skip", "out", "noise")]
    layers += [
        {"op": "affine", "out": "f", "in": "c_noise", "weight": "freq", "bias": "phase"},
        {"op": "elementwise", "out": "fc", "in": "f", "fn": "cos"},
        {"op": "affine", "out": "e0", "in": "fc", "weight": "We", "bias": "be"},
        {"op": "embed", "out": "ce", "table": "table"},
        {"op": "add", "out": "e1", "in": ["e0", "ce"]},
        {"op": "elementwise", "out": "e", "in": "e1", "fn": "silu"},
        {"op": "scale", "out": "x", "in": "y", "by": "c_in"},
        {"op": "affine", "out": "h0", "in": "x", "weight": "Win", "bias": "bin"},
    ]
    for i in range(blocks):
        layers += [
            {"op": "affine", "out": f"p{i}", "in": f"h{i}", "weight": f"A{i}", "bias": f"a{i}"},
            {"op": "affine", "out": f"q{i}", "in": "e", "weight": f"E{i}"},
            {"op": "add", "out": f"r{i}", "in": [f"p{i}", f"q{i}"]},
            {"op": "elementwise", "out": f"s{i}", "in": f"r{i}", "fn": "silu"},
            {"op": "affine", "out": f"t{i}", "in": f"s{i}", "weight": f"B{i}", "bias": f"b{i}"},
            {"op": "add", "out": f"h{i + 1}", "in": [f"h{i}", f"t{i}"]},
        ]
    return [
        *layers,
        {"op": "elementwise", "out": "z", "in": f"h{blocks}", "fn": "silu"},
        {"op": "affine", "out": "o", "in": "z", "weight": "Wout", "bias": "bout"},
        {"op": "scale", "out": "co", "in": "o", "by": "c_out"},
        {"op": "scale", "out": "cs", "in": "y", "by": "c_skip"},
        {"op": "add", "out": "D", "in": ["cs", "co"]},
    ]


def plain_tensors(rng, d: int, width=8, blocks=2, classes=0, gain=1.0) -> dict[str, np.ndarray]:
    """Random weights for :func:`plain_layers`."""

    def w(m, n, g=1.0):
        return f32(g * rng.standard_normal((m, n)) / np.sqrt(n))

    t = {
        "freq": w(width, 1), "phase": f32(rng.uniform(0, 6, width)), "We": w(width, width), "be": f32(np.zeros(width)),
        "table": w(classes + 1, width), "Win": w(width, d), "bin": f32(0.1 * rng.standard_normal(width)),
        "Wout": w(d, width, gain), "bout": f32(0.1 * rng.standard_normal(d)),
    }  # fmt: skip
    for i in range(blocks):
        t |= {f"A{i}": w(width, width), f"a{i}": f32(0.1 * rng.standard_normal(width)), f"E{i}": w(width, width)}
        t |= {f"B{i}": w(width, width, 0.5), f"b{i}": f32(0.1 * rng.standard_normal(width))}
    return t


def _networks() -> dict[str, tuple]:
    """name -> (layers, tensors, shape, number of conditions)."""
    rng = np.random.default_rng(11)
    wells = points_tensors([[-1.0], [1.0]], [[0.0, 0.5], [0.0, 0.0]], 0.1)
    return {
        "points": (MIXTURE, points_tensors(), (2,), 0),  # the exact denoiser of POINTS
        "wells": (MIXTURE, wells, (1,), 1),  # two modes; condition 0 prefers one, "no condition" neither
        "gradient": (gradient_layers(), gradient_tensors(rng, 2, 4), (2,), 0),
        "plain": (plain_layers(1), plain_tensors(rng, 2, 5, 1), (2,), 0),
    }


_FOLDERS: list[tempfile.TemporaryDirectory] = []  # kept until the process ends


@functools.cache
def card(name: str, twist: float | None = None) -> Path:
    """The card of a ready network ("points", "wells", "gradient", "plain"), written to a temporary folder once.

    Args:
      name: which one.
      twist: for a mixture: the network plus ``twist`` times y.
    """
    layers, tensors, shape, classes = _networks()[name]
    if twist is not None:
        layers, tensors = twisted_layers(), {**tensors, "twist": np.asarray([twist])}
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="fpjax-"))
    return write(Path(_FOLDERS[-1].name), name, layers, tensors, shape, classes, np.float64)


@functools.cache
def blurred(points: tuple, std: float = 0.0, logits: tuple | None = None) -> Path:
    """The card of the exact denoiser of ``points``, each blurred by ``std``; with two rows of logits, of one condition."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="fpjax-"))
    tensors = points_tensors(points, None if logits is None else list(logits), std)
    classes = 0 if logits is None else len(logits) - 1
    return write(Path(_FOLDERS[-1].name), "blurred", MIXTURE, tensors, (len(points[0]),), classes, np.float64)


def step(network, sigma_to: float, sigma_from: float, condition: int = 0, guidance: float = 1.0, twist=None):
    """One inversion step of a ready network (by name) or of a model card, as a ``propose.Problem``."""
    from fpjax.certify import propose

    path = card(network, twist) if isinstance(network, str) else network
    found, model = propose.load_model(path)
    return propose.Problem(found, model, condition, guidance, sigma_to, sigma_from)


@dataclass(frozen=True)
class Derived:
    """What the kernel made of a claim.

    Attributes:
      holds: whether the kernel proved it.
      detail: the kernel's sentence, or the reason of the refusal.
      questions: audit question -> CERTIFIED or REFUTED.
      facts: numbers of the proof (radius, limit, ...).
      certificate: the certificate, or None where the prover had none to offer.
    """

    holds: bool
    detail: str
    questions: dict[str, str] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    certificate: Any = field(default=None, repr=False)


def derive(make: Callable, *args, edit: Callable[[dict], None] | None = None, **kwargs) -> Derived:
    """Makes a certificate with ``make`` (a function of fpjax.certify.propose) and lets the kernel decide.

    Args:
      make: the prover's function; args and kwargs go to it.
      edit: changes the claim before it is sealed again, to see the kernel refuse what is not true.
    """
    from fpjax.certify import propose

    try:
        certificate = make(*args, **kwargs)
        if edit is not None:
            data = json.loads(json.dumps(certificate.data))
            edit(data["claim"])
            certificate = propose.Certificate(propose.kernel.seal(data), certificate.card)
        proved = certificate.verify(60.0)
    except propose.kernel.CertificateError as error:
        return Derived(False, str(error))
    return Derived(True, proved.statement, dict(proved.questions), dict(proved.facts), certificate)
