"""Small models in the card format, with a float64 and a 200-digit evaluation that share no code with the kernel."""

import json

import mpmath
import numpy as np

from fpjax.certify import check as kernel
from fpjax.certify import reading
from proofs_checks.certificates import (  # noqa: F401
    MIXTURE,
    convex_layers,
    convex_tensors,
    f32,
    gradient_layers,
    gradient_tensors,
    guided_prior,
    mixture_tensors,
    patch_layers,
    patch_tensors,
    plain_layers,
    plain_tensors,
    reflected_layers,
    tree_layers,
    tree_tensors,
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
    if fn in ("relu", "relu2"):
        return x * (x > 0) if fn == "relu" else x * x * (x > 0) / 2
    if fn == "square":
        return x * x / 2
    if fn == "logcosh":
        return x + ar.log((1 + ar.exp(-2 * x)) / 2)
    if fn == "tanh":
        return 2 * sigmoid(2 * x, ar) - 1
    if fn == "silu":
        return x * sigmoid(x, ar)
    if fn == "softplus":
        return ar.log(1 + ar.exp(x))
    return sigmoid(x, ar) if fn == "sigmoid" else getattr(ar, fn)(x)


SLOPES = {"softplus": "sigmoid", "logcosh": "tanh", "square": "identity", "relu2": "relu", "exp": "exp"}


def operate(op, x, t, v, condition, ar):
    """One layer that is neither nested nor a posterior mean."""
    kind = op["op"]
    if kind == "embed":
        return t[op["table"]][condition]
    if kind in ("affine", "affine_t"):
        w = t[op["weight"]].T if kind == "affine_t" else t[op["weight"]]
        return w @ x + (t[op["bias"]] if "bias" in op else 0)
    if kind == "conv":
        return convolve(x, t[op["weight"]], t.get(op.get("bias")), op["shape"])
    if kind == "elementwise":
        return apply(op["fn"], x, ar)
    if kind in ("scale", "multiply"):
        return x * (v[op["by"]] if op["by"] in v else t[op["by"]])
    if kind == "add":
        return sum(v[n] if n in v else t[n] for n in op["in"])
    p = ar.exp(x - max(x))
    return p / p.sum() if kind == "softmax" else ar.array([ar.log(p.sum()) + max(x)])


def evaluate(layers, tensors, y, sigma, condition=0, ar=Floats, guidance=1.0):
    """D(y, sigma, condition): the card's semantics a second time; gradients by forward derivatives."""
    t = {k: ar.array(v) for k, v in tensors.items()}
    s = ar.number(sigma)
    return run(layers, t, {"y": ar.array(y), "sigma": ar.array([s])}, s, condition, ar, ar.number(guidance))["D"]


def run(layers, t, v, s, condition, ar, w):
    for op in layers:
        kind = op["op"]
        if kind == "edm":
            sd = ar.number(op["data_std"])
            r2 = s * s + sd * sd
            root = ar.sqrt(r2)
            out = {"in": 1 / root, "skip": sd * sd / r2, "out": s * sd / root, "noise": ar.log(s) / 4}[op["which"]]
            out = ar.array([out])
        elif kind == "gradient":
            out = forward_gradient(op["layers"], t, v, condition, ar)
        elif kind == "patches":
            out = patched(op, t, v, s, condition, ar, w)
        elif kind == "mixture":
            out = posterior_mean(t, op, v["y"], s, condition, ar, w)
        elif kind == "tree":
            out = tree_mean(t, op, v["y"], s, condition, ar, w)
        else:
            out = operate(
                op, v.get(op["in"]) if "in" in op and isinstance(op["in"], str) else None, t, v, condition, ar
            )
        v[op["out"]] = out
    return v


def forward_gradient(layers, t, v, condition, ar):
    """The gradient of the last value by propagating Jacobians forwards (the kernel goes backwards)."""
    v, d = dict(v), len(v["y"])
    slopes = {"y": ar.array(np.eye(d))}
    for op in layers:
        names = [op["in"]] if isinstance(op.get("in"), str) else op.get("in", [])
        x = v.get(names[0]) if names else None
        out = operate(op, x, t, v, condition, ar)
        moving = [n for n in names if n in slopes]
        if moving and op["op"] == "elementwise":
            slopes[op["out"]] = apply(SLOPES[op["fn"]], x, ar)[:, None] * slopes[moving[0]]
        elif moving and op["op"] == "logsumexp":
            p = ar.exp(x - out[0])
            slopes[op["out"]] = (p @ slopes[moving[0]])[None, :]
        elif moving and op["op"] == "add":
            slopes[op["out"]] = sum(slopes[n] for n in moving)
        elif moving:
            linear = {k: val for k, val in op.items() if k != "bias"}
            columns = [operate(linear, slopes[moving[0]][:, j], t, v, condition, ar) for j in range(d)]
            slopes[op["out"]] = np.stack(columns, axis=1)
        v[op["out"]] = out
    return slopes[layers[-1]["out"]][0]


def patched(op, t, v, s, condition, ar, w):
    """sum_i P_i^T D(P_i y); at a reflecting border over a padded image, those of its edge counting half on each side."""
    (c, h, width), (ph, pw), (sh, sw) = op["image"], op["patch"], op["stride"]
    index = np.arange(c * h * width).reshape(c, h, width)
    total, reflected = ar.array(np.zeros(c * h * width)), "border" in op
    if reflected:
        index = np.pad(index, ((0, 0), *((n // 2, n // 2) for n in (ph, pw))), mode="symmetric")
    for i in range(0, index.shape[1] - ph + 1, sh):
        for j in range(0, index.shape[2] - pw + 1, sw):
            at = index[:, i : i + ph, j : j + pw].ravel()
            halves = (ph > 1 and i in (0, h)) + (pw > 1 and j in (0, width))
            share = ar.number(sh * sw) / ar.number(ph * pw * 2**halves) if reflected else 1
            inner = run(op["layers"], t, {"y": v["y"][at], "sigma": v["sigma"]}, s, condition, ar, w)["D"]
            for k, value in zip(at, inner, strict=True):
                total[k] = total[k] + share * value
    return total


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


def posterior_mean(t, op, y, s, condition, ar, w=1.0):
    means, u, var = t[op["means"]], t[op["factors"]], t[op["variances"]]
    floor, logits, d = t[op["floor"]], t[op["logits"]][condition], len(y)
    if "guidance" in op:
        logits = t[op["logits"]][-1] + w * (logits - t[op["logits"]][-1])
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


def tree_density(grid, height, width, tables):
    """The states' densities of the last region, from those of the Gaussians at each place of a grid."""
    while height * width > 1:
        weights, down = tables[0], height > width
        tables, above = tables[1:], {}
        for (i, j), p in grid.items():
            q = weights[i % weights.shape[0], j % weights.shape[1]] @ p
            to = (i // 2, j) if down else (i, j // 2)
            above[to] = above[to] * q if to in above else q
        grid, height, width = above, (height + 1) // 2 if down else height, width if down else (width + 1) // 2
    return grid[0, 0]


def tree_mean(t, op, y, s, condition, ar, w=1.0):
    """E[x_i | y] as Bayes says: the density with pixel i's Gaussians weighted by their means, over the density; no logarithms.

    Of windows: the mean over a pixel's windows of what each says under each state of the root, weighted by the states'
    probabilities, which are the geometric mean of what all windows give them, each pixel counted once."""
    (height, width), means, variances = op["image"], t[op["means"]], t[op["variances"]]
    root = t[op["root"]][condition]
    if "guidance" in op:
        root = t[op["root"]][-1] + w * (root - t[op["root"]][-1])
    total, tables = variances + s * s, [t[name] for name in (op["leaf"], *op["levels"])]
    densities = {}
    for i, v in enumerate(y):
        log = -(ar.log(total) + (v - means) ** 2 / total) / 2
        densities[divmod(i, width)] = ar.exp(log - max(log))  # a factor that cancels
    inner = {at: densities[at] * (means + variances * (y[i] - means) / total) for i, at in enumerate(sorted(densities))}
    a, b = tables[-1].shape[:2]
    if a * b == 2 or len(tables) < 3:
        whole = ar.exp(root) * tree_density(densities, height, width, tables)
        marked = [
            ar.exp(root) * tree_density(densities | {at: inner[at]}, height, width, tables) for at in sorted(densities)
        ]
        return np.asarray([m.sum() / whole.sum() for m in marked])
    n, absent = 2 ** (len(tables) // 2), ar.array(np.ones(len(means)))
    logs, sums = root, dict.fromkeys(densities, 0)
    for top in range(1 - n, height):
        for left in range(1 - n, width):
            places = [(i, j) for i in range(n) for j in range(n)]
            grid = {(i, j): densities.get((top + i, left + j), absent) for i, j in places}
            last = tables[-1][(top + n - 1) * a // (height + n - 1), (left + n - 1) * b // (width + n - 1)]
            says = lambda g, last=last: last @ tree_density(g, n, n, tables[:-1])  # noqa: E731
            alone = says(grid)
            logs = logs + ar.log(alone) / n**2
            for i, j in places:
                at = (top + i, left + j)
                if at in inner:
                    sums[at] = sums[at] + says(grid | {(i, j): inner[at]}) / alone / n**2
    states = ar.exp(logs - max(logs))
    return np.asarray([(states * sums[at]).sum() / states.sum() for at in sorted(densities)])


def denoise(layers, tensors, y, sigma, condition=0, guidance=1.0, classes=0, ar=Floats):
    """D with guidance."""
    if '"prior"' in json.dumps(layers):
        return evaluate(layers, tensors, y, sigma, condition, ar, guidance)
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
    body = {"format": reading.CERTIFICATE, "kind": kind, "model": named, "precision": precision}
    return kernel.seal({**body, "claim": claim, "proof": proof})


def problem(condition, guidance, sigma_to, sigma_from):
    return {
        "condition": condition,
        "guidance": float(guidance).hex(),
        "sigma_to": float(sigma_to).hex(),
        "sigma_from": float(sigma_from).hex(),
    }
