"""Hostile input for the kernel: damaged weights, odd programs of layers, odd cards, odd files; each with a word that
the reason must contain."""

import hashlib
import json
import struct

import certify_zoo as zoo
import numpy as np

import fpjax.certify.check as kernel
from fpjax.certify import reading


def safetensors(header, body=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + body


WEIGHTS = {
    "empty weights": b"",
    "short": b"\x01\x02",
    "header beyond the file": safetensors({}, size=2**63),
    "header not JSON": safetensors(b"\xff\xfe{"),
    "header a list": safetensors(b"[]"),
    "deep header": safetensors(b'{"a":' * 100000),
    "overlap": safetensors({k: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for k in "ab"}, b"\0" * 4),
    "gap": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"\0" * 8),
    "tail": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"\0" * 8),
    "huge shape": safetensors({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"\0" * 4),
    "shape not a list": safetensors({"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}, b"\0" * 4),
    "shape of five sizes": safetensors({"a": {"dtype": "F32", "shape": [1] * 5, "data_offsets": [0, 4]}}, b"\0" * 4),
    "one offset": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, b"\0" * 4),
    "too many values": safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"\0" * 4),
    "negative": safetensors({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}),
    "other dtype": safetensors({"a": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
    "NaN": safetensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, struct.pack("<f", float("nan"))),
    "infinity": safetensors(
        {"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}, struct.pack("<d", float("inf"))
    ),
    "repeated": safetensors(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{}}'),
    "entry not an object": safetensors({"a": 5}),
}


def mixture(variances, floor):
    names = {"means": "m1", "factors": "u1", "variances": variances, "floor": floor, "logits": "l1"}
    return {"op": "mixture", "out": "D", "in": "y", **names}


Y = {"op": "elementwise", "in": "y", "fn": "tanh"}
PATCHES = {"op": "patches", "out": "D", "in": "y", "image": [1, 1, 2], "patch": [1, 1], "stride": [1, 1],
           "layers": [{**Y, "out": "D"}]}  # fmt: skip
GRADIENT = {"op": "gradient", "out": "D", "in": "y"}
LAST = {"op": "affine", "out": "potential", "in": "h", "weight": "row"}
LAYERS = {
    "no layers": [],
    "not objects": [1, None],
    "unknown op": [{"op": "eval", "out": "D", "in": "y"}],
    "unhashable op": [{"op": [], "out": "D"}],
    "missing keys": [{"op": "affine", "out": "D"}],
    "extra keys": [{**Y, "out": "D", "code": "1"}],
    "no output D": [{**Y, "out": "E"}],
    "D too early": [{**Y, "out": "D"}, {**Y, "out": "E"}],
    "rebinds y": [{**Y, "out": "y"}, {**Y, "out": "D"}],
    "rebinds a tensor": [{**Y, "out": "w"}, {**Y, "out": "D"}],
    "reads the future": [{**Y, "in": "E", "out": "D"}, {**Y, "out": "E"}],
    "reads itself": [{**Y, "in": "D", "out": "D"}],
    "operand not a name": [{**Y, "in": {"a": 1}, "out": "D"}],
    "unknown function": [{**Y, "fn": "__import__", "out": "D"}],
    "wrong size": [{"op": "affine", "out": "D", "in": "y", "weight": "b"}],
    "weight unhashable": [{"op": "affine", "out": "D", "in": "y", "weight": ["w"]}],
    "bias of another size": [{"op": "affine", "out": "D", "in": "y", "weight": "w", "bias": "v"}],
    "bias on no tensor": [{"op": "affine", "out": "D", "in": "y", "weight": "w", "bias": 7}],
    "conv bomb": [{"op": "conv", "out": "D", "in": "y", "weight": "k", "shape": [1, 4096, 4096]}],
    "conv shape": [{"op": "conv", "out": "D", "in": "y", "weight": "k", "shape": [1, -1, "x"]}],
    "conv shape of two": [{"op": "conv", "out": "D", "in": "y", "weight": "k", "shape": [1, 2]}],
    "conv on a matrix": [{"op": "conv", "out": "D", "in": "y", "weight": "w", "shape": [1, 1, 2]}],
    "add of nothing": [{"op": "add", "out": "D", "in": []}],
    "add of one name": [{"op": "add", "out": "D", "in": "y"}],
    "scale by a vector": [{"op": "scale", "out": "D", "in": "y", "by": "v3"}],
    "scale by y": [{"op": "multiply", "out": "D", "in": "y", "by": "y"}],
    "embed without table": [{"op": "embed", "out": "D", "table": {}}],
    "embed of a short table": [{"op": "embed", "out": "D", "table": "v"}],
    "edm of zero": [{"op": "edm", "out": "D", "which": "in", "data_std": 0}],
    "edm of nothing": [{"op": "edm", "out": "D", "which": ["in"], "data_std": 0.5}],
    "mixture of a hidden value": [{**Y, "out": "h"}, {**zoo.MIXTURE[0], "in": "h"}],
    "mixture without tensors": zoo.MIXTURE,
    "mixture of wrong factors": [{**zoo.MIXTURE[0], "factors": "w"}],
    "mixture of unhashable factors": [{**zoo.MIXTURE[0], "factors": [1]}],
    "a hidden layer called condition": [{**Y, "in": "condition", "out": "D"}],
    "fn unhashable": [{**Y, "fn": ["tanh"], "out": "D"}],
    "edm std text": [{"op": "edm", "out": "D", "which": "in", "data_std": "1"}],
    "edm std true": [{"op": "edm", "out": "D", "which": "in", "data_std": True}],
    "edm std huge": [{"op": "edm", "out": "D", "which": "in", "data_std": 1e300}],
    "D of another size": [{"op": "affine", "out": "D", "in": "y", "weight": "r"}],
    "conv of another image": [{"op": "conv", "out": "D", "in": "y", "weight": "k", "shape": [1, 2, 2]}],
    "conv of other channels": [{"op": "conv", "out": "D", "in": "y", "weight": "k2", "shape": [1, 1, 2]}],
    "conv with an even kernel": [{"op": "conv", "out": "D", "in": "y", "weight": "even", "shape": [1, 1, 2]}],
    "add of two sizes": [{"op": "add", "out": "D", "in": ["y", "v3"]}],
    "gain of another size": [{"op": "multiply", "out": "D", "in": "y", "by": "v3"}],
    "gain by a number": [{"op": "multiply", "out": "D", "in": "y", "by": 2}],
    "silly weight": [{"op": "affine", "out": "D", "in": "y", "weight": "empty"}],
    "mixture with d of another size": [{**zoo.MIXTURE[0], "factors": "cube"}],
    "mixture with a negative variance": [mixture("minus", "floor1")],
    "mixture with a negative floor": [mixture("var1", "fminus")],
    "mixture of another size": [{**mixture("var1", "floor1"), "factors": "cube", "means": "m3"}],
    "patches of another image": [{**PATCHES, "image": [1, 1, 1]}],
    "patches beyond the image": [{**PATCHES, "patch": [2, 1]}],
    "reflected patches of a stride that does not fit": [{**PATCHES, "border": "reflect", "stride": [1, 2]}],
    "a potential of two numbers": [{**GRADIENT, "layers": [{**Y, "out": "h"}]}],
    "a potential of a sine": [{**GRADIENT, "layers": [{**Y, "out": "h", "fn": "sin"}, LAST]}],
    "a potential of a softmax": [{**GRADIENT, "layers": [{"op": "softmax", "out": "h", "in": "y"}, LAST]}],
    "a long doubling chain": [{"op": "add", "out": f"a{i}", "in": ["y"] * 64} for i in range(1001)],
    "exploding exponents": [{**Y, "fn": "exp", "out": "e0"}]
    + [{"op": "elementwise", "out": f"e{i + 1}", "in": f"e{i}", "fn": "exp"} for i in range(30)]
    + [{"op": "elementwise", "out": "D", "in": "e30", "fn": "sin"}],
}
TENSORS = {"w": np.eye(2), "b": np.ones(3), "v": np.ones(3), "v3": np.ones(3), "k": np.ones((1, 1, 3, 3))}
TENSORS |= {"r": np.ones((3, 2)), "k2": np.ones((1, 2, 1, 1)), "even": np.ones((1, 1, 1, 2)), "empty": np.ones((0, 2))}
TENSORS |= {"cube": np.ones((1, 3, 1)), "u1": np.ones((1, 2, 1)), "m1": np.ones((1, 2)), "l1": np.zeros((1, 1))}
TENSORS |= {
    "var1": np.ones((1, 1)),
    "minus": -np.ones((1, 1)),
    "floor1": np.ones(1),
    "m3": np.ones((1, 3)),
    "row": np.ones((1, 2)),
    "fminus": -np.ones(1) / 2,
}


def claim_for(card_text, weights):
    """A step certificate whose hashes fit a hostile model, so that the kernel has to look at it."""
    keys = ("format", "shape", "conditions", "sha256", "layers")
    named = {
        "name": "m",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "program_sha256": reading.digest({k: card_text[k] for k in keys}),
    }
    y = [(0.5).hex()] * 2
    claim = {**zoo.problem(0, 1.0, 0.5, 1.0), "target": y, "target_radius": (0.0).hex(), "centre": y,
             "radius": (1e-3).hex(), "uniqueness_radius": (1e-3).hex()}  # fmt: skip
    proof = {"form": "radii", "preconditioner": None}
    body = {"format": reading.CERTIFICATE, "kind": "step", "model": named, "precision": 128}
    return kernel.seal({**body, "claim": claim, "proof": proof})


def model(folder, raw=None, layers=None, **card_changes):
    folder.mkdir(parents=True, exist_ok=True)
    layers = [{**Y, "out": "D"}] if layers is None else layers
    card = zoo.write(folder, "m", layers, TENSORS, (2,))
    text = json.loads(card.read_text())
    if raw is not None:
        (folder / "m.safetensors").write_bytes(raw)
        text["sha256"] = hashlib.sha256(raw).hexdigest()
    text |= card_changes
    card.write_text(json.dumps(text))
    return claim_for(text, (folder / "m.safetensors").read_bytes()), card


FILES = {
    "empty file": b"",
    "not JSON": b"\x00\x01\x02",
    "deep list": b"[" * 200000,
    "deep object": b'{"a":' * 200000,
    "closed deep list": b'{"claim":' + b"[" * 100000 + b"]" * 100000 + b"}",
    "long number": b'{"precision": ' + b"9" * 1_000_000 + b"}",
    "huge exponent": b'{"precision": 1e999999999}',
    "decimal": b'{"precision": 1.5}',
    "NaN in JSON": b'{"precision": NaN}',
    "infinity in JSON": b'{"precision": -Infinity}',
    "repeated key": b'{"a": 1, "a": 2}',
    "a list": b"[]",
    "surrogates": b'{"format": "\\ud800"}',
    "utf-16": '{"format": "x"}'.encode("utf-16"),
    "too large": b" " * ((1 << 24) + 1),
    "wide": b'{"claim": [' + b"[]," * 3_000_000 + b"[]]}",
    "long string": b'{"format": "' + b"x" * 10_000_000 + b'"}',
}


CARDS = {
    "shape empty": {"shape": []},
    "shape zero": {"shape": [0]},
    "shape negative": {"shape": [-2]},
    "shape fraction": {"shape": [2.0]},
    "shape text": {"shape": "22"},
    "shape of five": {"shape": [2] * 5},
    "shape large": {"shape": [5000]},
    "shape larger": {"shape": [64, 64]},
    "shape null": {"shape": None},
    "conditions number": {"conditions": 3},
    "format": {"format": "x"},
    "layers object": {"layers": {}},
    "weights elsewhere": {"weights": "../m.safetensors"},
    "weights number": {"weights": 3},
    "weights missing": {"weights": "none.safetensors"},
    "hash missing": {"sha256": None},
    "other name": {"name": "n"},
}


# what the kernel says of each
REASONS = {
    "shape not a list": "tensor 'a': shape must be a list of 0 to 4 entries",
    "shape of five sizes": "tensor 'a': shape must be a list of 0 to 4 entries",
    "one offset": "tensor 'a': data_offsets must be a list of 2 entries",
    "too many values": "offsets do not fit its shape",
    "conv shape of two": "layer conv: shape must be a list of 3 entries",
    "empty weights": "weights: the header does not fit the file",
    "short": "weights: the header does not fit the file",
    "header beyond the file": "weights: the header does not fit the file",
    "header not JSON": "weights header is not readable JSON",
    "header a list": "weights header is not a JSON object",
    "deep header": "weights header is not readable JSON",
    "overlap": "weights: tensors overlap or leave a gap",
    "gap": "weights: tensors overlap or leave a gap",
    "tail": "weights: tensors overlap or leave a gap",
    "huge shape": "tensor 'a': shape must be an integer from 0 to 4194304",
    "negative": "tensor 'a': shape must be an integer from 0 to 4194304",
    "other dtype": "tensor 'a': dtype must be F32 or F64",
    "NaN": "tensor 'a' has a value that is not finite",
    "infinity": "tensor 'a' has a value that is not finite",
    "repeated": "weights header: a key is repeated",
    "entry not an object": "tensor 'a' is not an object",
    "no layers": "model card: layers must be a list of 1 to 1000 entries",
    "not objects": "a layer is not an object with an op",
    "unknown op": "unknown op 'eval'",
    "unhashable op": "a layer is not an object with an op",
    "missing keys": "layer affine must have the keys ['in', 'op', 'out', 'weight']",
    "extra keys": "layer elementwise must have the keys ['fn', 'in', 'op', 'out']",
    "no output D": "the last value must be D, of the size of y",
    "D too early": "the last value must be D, of the size of y",
    "rebinds y": "a layer's output needs a new name",
    "rebinds a tensor": "a layer's output needs a new name",
    "reads the future": "the weights have no tensor 'E'",
    "reads itself": "the weights have no tensor 'D'",
    "operand not a name": "a layer's operand must be a name",
    "unknown function": "layer elementwise: fn must be identity o",
    "wrong size": "tensor 'b' has shape (3,), expected (None, None)",
    "weight unhashable": "the weights have no tensor \"['w']\"",
    "bias of another size": "tensor 'v' has shape (3,), expected (2,)",
    "bias on no tensor": "the weights have no tensor '7'",
    "conv bomb": "a convolution is too large for the kernel",
    "conv shape": "conv: shape must be an integer from 1 to 4096",
    "conv on a matrix": "tensor 'w' has shape (2, 2), expected (None, None, None, None)",
    "add of nothing": "layer add: in must be a list of 1 to 64 entries",
    "add of one name": "layer add: in must be a list of 1 to 64 entries",
    "scale by a vector": "operand 'v3' has size 3, expected 1",
    "scale by y": "a factor may not depend on y",
    "embed without table": "the weights have no tensor '{}'",
    "embed of a short table": "tensor 'v' has shape (3,), expected (1, None)",
    "edm of zero": "data_std must be a positive number",
    "edm of nothing": "layer edm: which must be in or skip or out or noise",
    "mixture of a hidden value": "mixture: in must be y",
    "mixture without tensors": "the weights have no tensor 'factors'",
    "mixture of wrong factors": "tensor 'w' has shape (2, 2), expected (2, 2, 0)",
    "mixture of unhashable factors": "the weights have no tensor '[1]'",
    "a hidden layer called condition": "the weights have no tensor 'condition'",
    "fn unhashable": "layer elementwise: fn must be identity o",
    "edm std text": "data_std must be a positive number",
    "edm std true": "data_std must be a positive number",
    "edm std huge": "data_std must be a positive number",
    "D of another size": "the last value must be D, of the size of y",
    "conv of another image": "layer with weight 'k': input of size 2, expected 4",
    "conv of other channels": "a convolution needs its channels and odd kernel sizes",
    "conv with an even kernel": "a convolution needs its channels and odd kernel sizes",
    "add of two sizes": "operand 'v3' has size 3, expected 2",
    "gain of another size": "operand 'v3' has size 3, expected 2",
    "gain by a number": "a layer's operand must be a name",
    "silly weight": "tensor 'empty' has shape (0, 2), expected (None, None)",
    "mixture with d of another size": "the weights have no tensor 'means'",
    "mixture with a negative variance": "mixture: a variance or a floor is negative",
    "mixture with a negative floor": "mixture: a variance or a floor is negative",
    "mixture of another size": "mixture: factors must have shape (K, d, r)",
    "patches of another image": "patches: the image or the patch does not fit y",
    "patches beyond the image": "patches: the image or the patch does not fit y",
    "reflected patches of a stride that does not fit": "patches: reflection needs even sides, of which as of the image's the "
    "stride is a divisor",
    "a potential of two numbers": "a potential must end in one number",
    "a potential of a sine": "a potential may not use sin",
    "a potential of a softmax": "a potential may not use softmax",
    "a long doubling chain": "model card: layers must be a list of 1 to 1000 entries",
    "exploding exponents": "Z < 1 was not proved on the ball",
    "shape empty": "model card: shape must be a list of 1 to 4 entries",
    "shape zero": "model card: shape must be an integer from 1 to 4096",
    "shape negative": "model card: shape must be an integer from 1 to 4096",
    "shape fraction": "model card: shape must be an integer from 1 to 4096",
    "shape text": "model card: shape must be a list of 1 to 4 entries",
    "shape of five": "model card: shape must be a list of 1 to 4 entries",
    "shape large": "model card: shape must be an integer from 1 to 4096",
    "shape larger": "the kernel takes at most 1024 pixels",
    "shape null": "model card: shape must be a list of 1 to 4 entries",
    "conditions number": "conditions must be a list",
    "format": "model card: format must be fpjax-model/1",
    "layers object": "model card: layers must be a list of 1 to 1000 entries",
    "weights elsewhere": "model card: weights is not plain",
    "weights number": "model card: weights is not plain",
    "weights missing": "cannot read 'none.safetensors': FileNotFoundError",
    "hash missing": "the weights do not have the SHA-256 that the model card states",
    "other name": "the certificate is for a model of another name",
    "empty file": "certificate is not readable JSON",
    "not JSON": "certificate is not readable JSON",
    "deep list": "certificate is not readable JSON",
    "deep object": "certificate is not readable JSON",
    "closed deep list": "certificate is not readable JSON",
    "long number": "certificate is not readable JSON",
    "huge exponent": "certificate: the number 1e999999999 is not allowed",
    "decimal": "certificate: the number 1.5 is not allowed",
    "NaN in JSON": "certificate: the number NaN is not allowed",
    "infinity in JSON": "certificate: the number -Infinity is not allowed",
    "repeated key": "certificate: a key is repeated",
    "a list": "certificate is not a JSON object",
    "surrogates": "certificate must have the keys ['claim', 'format', 'kind', 'model', 'precision', 'proof', 'seal']",
    "utf-16": "certificate is not readable JSON",
    "too large": "'c.json' is larger than 16777216 bytes",
    "wide": "certificate must have the keys ['claim', 'format', 'kind', 'model', 'precision', 'proof', 'seal']",
    "long string": "certificate must have the keys ['claim', 'format', 'kind', 'model', 'precision', 'proof', 'seal']",
}
