"""Small models in the card format, with a float64 and a 200-digit evaluation that share no code with the kernel."""

import mpmath
import numpy as np

from fpjax.certify import check as kernel
from proofs_checks.certificates import (  # noqa: F401
    MIXTURE,
    f32,
    gradient_layers,
    gradient_tensors,
    mixture_tensors,
    plain_layers,
    plain_tensors,
    write,
)


class Floats:
    """Arithmetic in float64."""

    exp, log, cos, sin, sqrt = np.exp, np.log, np.cos, np.sin, np.sqrt

    @staticmethod
    def number(v):
        return float(v)

    @staticmethod
    def array(v):
        return np.asarray(v, np.float64)


class Digits:
    """Arithmetic with mpmath, on numpy object arrays (200 digits unless the context says otherwise)."""

    exp, log, cos, sin, sqrt = (np.frompyfunc(getattr(mpmath, f), 1, 1) for f in ("exp", "log", "cos", "sin", "sqrt"))

    @staticmethod
    def number(v):
        return mpmath.mpf(float(v)) if not isinstance(v, mpmath.mpf) else v

    @staticmethod
    def array(v):
        return np.frompyfunc(Digits.number, 1, 1)(np.asarray(v, object))


def sigmoid(x, ar):
    return 1 / (1 + ar.exp(-x))


def apply(fn, x, ar):
    if fn == "identity":
        return x
    if fn == "relu":
        return x * (x > 0)
    if fn == "tanh":
        return 2 * sigmoid(2 * x, ar) - 1
    if fn == "silu":
        return x * sigmoid(x, ar)
    if fn == "softplus":
        return ar.log(1 + ar.exp(x))
    return sigmoid(x, ar) if fn == "sigmoid" else getattr(ar, fn)(x)


def evaluate(layers, tensors, y, sigma, condition=0, ar=Floats):
    """D(y, sigma, condition): the card's semantics a second time, without derivatives."""
    t = {k: ar.array(v) for k, v in tensors.items()}
    s = ar.number(sigma)
    v = {"y": ar.array(y), "sigma": ar.array([s])}
    for op in layers:
        kind = op["op"]
        x = v.get(op.get("in")) if isinstance(op.get("in"), str) else None
        if kind == "edm":
            sd = ar.number(op["data_std"])
            r2 = s * s + sd * sd
            root = ar.sqrt(r2)
            out = {"in": 1 / root, "skip": sd * sd / r2, "out": s * sd / root, "noise": ar.log(s) / 4}[op["which"]]
            out = ar.array([out])
        elif kind == "embed":
            out = t[op["table"]][condition]
        elif kind in ("affine", "affine_t"):
            w = t[op["weight"]].T if kind == "affine_t" else t[op["weight"]]
            out = w @ x + (t[op["bias"]] if "bias" in op else 0)
        elif kind == "conv":
            out = convolve(x, t[op["weight"]], t.get(op.get("bias")), op["shape"])
        elif kind == "elementwise":
            out = apply(op["fn"], x, ar)
        elif kind in ("scale", "multiply"):
            out = x * (v[op["by"]] if op["by"] in v else t[op["by"]])
        elif kind == "add":
            out = sum(v[n] if n in v else t[n] for n in op["in"])
        elif kind == "softmax":
            p = ar.exp(x - max(x))
            out = p / p.sum()
        else:
            out = posterior_mean(t, op, v["y"], s, condition, ar)
        v[op["out"]] = out
    return v["D"]


def convolve(x, w, b, shape):
    c, h, width = shape
    image, (n_out, _, kh, kw) = x.reshape(c, h, width), w.shape
    padded = np.zeros((c, h + kh - 1, width + kw - 1), x.dtype)
    padded[:, kh // 2 : kh // 2 + h, kw // 2 : kw // 2 + width] = image
    out = [
        [[(w[o] * padded[:, i : i + kh, j : j + kw]).sum() + (b[o] if b is not None else 0) for j in range(width)]
         for i in range(h)]
        for o in range(n_out)
    ]  # fmt: skip
    return np.asarray(out).reshape(-1)


def posterior_mean(t, op, y, s, condition, ar):
    means, u, var = t[op["means"]], t[op["factors"]], t[op["variances"]]
    floor, logits, d = t[op["floor"]], t[op["logits"]][condition], len(y)
    logp, grads = [], []
    for k in range(len(floor)):
        f2 = floor[k] + s * s
        r = y - means[k]
        b = var[k] / (f2 * (f2 + var[k]))
        proj = u[k].T @ r
        logs = ar.log(f2 + var[k]).sum() + (d - len(proj)) * ar.log(f2)
        logp.append(logits[k] - logs / 2 - (r @ r / f2 - (b * proj * proj).sum()) / 2)
        grads.append(-r / f2 + u[k] @ (b * proj))
    p = ar.exp(np.asarray(logp) - max(logp))
    p = p / p.sum()
    return y + s * s * sum(pk * g for pk, g in zip(p, grads, strict=True))


def denoise(layers, tensors, y, sigma, condition=0, guidance=1.0, classes=0, ar=Floats):
    """D with guidance."""
    d = evaluate(layers, tensors, y, sigma, condition, ar)
    if guidance == 1 or condition == classes:
        return d
    null = evaluate(layers, tensors, y, sigma, classes, ar)
    return null + ar.number(guidance) * (d - null)


def step(layers, tensors, y, sigma_to, sigma_from, condition=0, guidance=1.0, classes=0, ar=Floats):
    """F(y) of E1."""
    rho = ar.number(sigma_to) / ar.number(sigma_from)
    d = denoise(layers, tensors, y, sigma_from, condition, guidance, classes, ar)
    return rho * ar.array(y) + (1 - rho) * d


def jacobian(f, y, h=1e-6):
    """Central differences."""
    y = np.asarray(y, np.float64)
    cols = [(f(y + h * e) - f(y - h * e)) / (2 * h) for e in np.eye(len(y))]
    return np.stack(cols, axis=1)


def hexes(v):
    return [float(x).hex() for x in np.asarray(v).ravel()]


def certificate(card, kind, claim, proof, precision=128):
    """A sealed certificate for the model of a card."""
    model = kernel.Model(card)
    named = {
        "name": model.name,
        "weights_sha256": model.weights_sha256,
        "program_sha256": model.program_sha256,
    }
    body = {"format": kernel.CERTIFICATE, "kind": kind, "model": named, "precision": precision}
    return kernel.seal({**body, "claim": claim, "proof": proof})


def problem(condition, guidance, sigma_to, sigma_from):
    return {
        "condition": condition,
        "guidance": float(guidance).hex(),
        "sigma_to": float(sigma_to).hex(),
        "sigma_from": float(sigma_from).hex(),
    }
