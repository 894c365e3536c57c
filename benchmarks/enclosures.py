"""``python benchmarks/enclosures.py [PART...]``: the kernel's enclosures against its fast path, plain products and others.

fast: Arb against float64 with proved error bounds (fast.py) on networks of growing size: time of the last inequality of
T13 on a ball, and its Z. bounds: global and local Lipschitz bounds of F, against the plain product of the layers' norms.
libraries: J over a ball by the kernel, by mpmath's interval arithmetic and by immrax: width of the entries and time;
immrax where this Python has it. ``python benchmarks/certificates.py page FILE...`` puts the lines into the page.
"""

import itertools
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flint import arb, ctx

import fpjax.certify.check as kernel
from fpjax.certify import enclosure, propose
from proofs_checks import certificates as nets

PRECISION = 128


def balls(values) -> list[arb]:
    return [arb(float(v)) for v in values]


def conv_layers(image, channels: int) -> list[dict]:
    """A residual convolutional network of three 3 x 3 layers."""
    size = [channels, *image[1:]]
    return [
        {"op": "conv", "out": "p", "in": "y", "weight": "w0", "shape": [*image]},
        {"op": "elementwise", "out": "h", "in": "p", "fn": "silu"},
        {"op": "conv", "out": "q", "in": "h", "weight": "w1", "shape": size},
        {"op": "elementwise", "out": "g", "in": "q", "fn": "silu"},
        {"op": "conv", "out": "r", "in": "g", "weight": "w2", "shape": size},
        {"op": "scale", "out": "s", "in": "y", "by": "half"},
        {"op": "add", "out": "D", "in": ["s", "r"]},
    ]


def conv_tensors(rng, image, channels: int) -> dict:
    def w(o, i):
        return nets.f32(0.5 * rng.standard_normal((o, i, 3, 3)) / np.sqrt(9 * i))

    c = image[0]
    return {"w0": w(channels, c), "w1": w(channels, channels), "w2": w(c, channels), "half": nets.f32([0.5])}


def larger(folder: Path) -> dict[str, tuple[Path, int, bool]]:
    """name -> (card, d, whether Arb can take it)."""
    rng = np.random.default_rng(0)
    digits, _ = propose.load_model("digits-plain")
    out = {"digits-plain, d = 64": (digits, 64, True)}

    def add(name, layers, tensors, shape, slow):
        card = nets.write(folder, f"n{len(out)}", layers, tensors, shape)
        out[f"{name}, d = {int(np.prod(shape)):,}"] = (card, int(np.prod(shape)), slow)

    add("convolutions, 4 channels", conv_layers((1, 16, 16), 4), conv_tensors(rng, (1, 16, 16), 4), (1, 16, 16), True)
    add("mixture of 10, rank 8", nets.MIXTURE, nets.mixture_tensors(rng, 256, 10, 8), (1, 16, 16), True)
    add("MLP, 512 wide", nets.plain_layers(1), nets.plain_tensors(rng, 784, 512, 1), (1, 28, 28), True)
    add("MLP, 512 wide", nets.plain_layers(1), nets.plain_tensors(rng, 3072, 512, 1), (3, 32, 32), False)
    return out


def fast(folder: Path, radius: float = 1e-8) -> None:
    for name, (card, d, slow) in larger(folder).items():
        told, times = [], []
        centre = balls(np.random.default_rng(1).standard_normal(d))
        for quick in (True, False) if slow else (True,):
            with ctx.workprec(PRECISION):
                step = kernel.Step(kernel.Model(card, limit_s=3600, fast=quick), 0, 1.0, 0.4, 0.8)
                step.denoise(centre, arb(radius))  # weights and the bounds of their norms are kept
                start = time.perf_counter()
                _, z = kernel.local_bounds(step, centre, arb(radius), "radii")
                times.append(time.perf_counter() - start)
            told.append(f"{'fast' if quick else 'Arb'} {times[-1]:.2f} s, Z = {float(z):.6g}")
        more = f"; {times[1] / times[0]:.0f} times as quick" if slow else "; too large for Arb's path"
        print(f"fast: {name}: {', '.join(told)}{more}", flush=True)


def product(step) -> float:
    """The plain product bound of ||J_D||: norms of layers multiplied along each path, slopes by their largest."""
    model, norms = step.model, {"y": 1.0}
    run = enclosure.Run(model, step.sigma, step.condition, step.guidance, None)
    values = {
        "sigma": enclosure.constant([step.sigma]),
        "y": enclosure.Value(*[balls(np.zeros(model.size))] * 2, bend=1),
    }
    run.execute(model.layers, values)

    def factor(layer):
        if layer["op"] in ("affine", "affine_t", "conv"):
            return float(run.weight(layer)[1])
        if layer["op"] == "elementwise":
            return max(abs(v) for v in enclosure.FUNCTIONS[layer["fn"]][2])
        return max(abs(float(v.mid())) for v in run.get(values, layer["by"]).c)

    def gradient(layers):  # W diag(a) phi(diag(a) W^T y): the factors of the way there, twice
        way = [p for p in layers if p["op"] in ("affine_t", "scale", "multiply")]
        inner = dict(values)
        run.execute(layers, inner)
        return float(np.prod([factor(p) if p["op"] == "affine_t" else max(abs(float(v)) for v in inner[p["by"]].c)
                              for p in way])) ** 2  # fmt: skip

    for layer in model.layers:
        names = layer["in"] if isinstance(layer.get("in"), list) else [layer.get("in")]
        inside = [norms.get(n, 0.0) for n in names]
        if layer["op"] == "gradient":
            norms[layer["out"]] = gradient(layer["layers"])
        else:
            norms[layer["out"]] = sum(inside) * (factor(layer) if sum(inside) and layer["op"] != "add" else 1.0)
    return norms["D"]


def bounds(folder: Path) -> None:
    rng = np.random.default_rng(2)
    digits, _ = propose.load_model("digits-plain")
    cards = {
        "digits-plain, d = 64": digits,
        "residual MLP, d = 16": nets.write(folder, "mlp", nets.plain_layers(2), nets.plain_tensors(rng, 16, 32), (16,)),
        "gradient network, d = 16": nets.write(
            folder, "gradient", nets.gradient_layers(), nets.gradient_tensors(rng, 16, 48), (16,)
        ),
    }
    for name, card in cards.items():
        with ctx.workprec(PRECISION):
            step = kernel.Step(kernel.Model(card, fast=True), 0, 1.0, 0.6, 0.8)
            zero = balls(np.zeros(step.model.size))
            plain = float(step.rho) + float(step.keep) * product(step)
            whole = float(step.lipschitz(step.everywhere())[1])
            tight, _ = propose.multipliers(step, zero, arb.pos_inf(), "lipschitz")
            local = {r: float(step.lipschitz(step.denoise(zero, arb(r)))[1]) for r in (1.0, 0.1, 1e-6)}
        ball = ", ".join(f"{v:.4g} (radius {r:g})" for r, v in local.items())
        print(
            f"bounds: {name}: Lipschitz constant of F, rho = 0.75: plain product {plain:.4g}, enclosure for all y "
            f"{whole:.4g}, with multipliers {tight:.4g} ({plain / tight:.1f} times below the product), on a ball {ball}",
            flush=True,
        )


def libraries(folder: Path, cases: int = 40) -> None:
    """The families that all three can write: residual MLPs and gradients of potentials, d = 1 to 3."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "certify"))
    import certify_problems as problems
    import test_agreement as agreement

    agreement.iv.prec = 100
    rng, widths, times = np.random.default_rng(60), {}, {}

    def kernel_widths(p, y, radius, quick):
        with ctx.workprec(PRECISION):
            step = kernel.Step(kernel.Model(p.card, fast=quick), p.condition, 1.0, 0.0, p.sigma_from)
            d = step.denoise(balls(y), arb(radius))
            return [2 * float(v.rad() + d.e) for v in d.M.entries()]

    def mpmath_widths(p, y, radius):
        flat = agreement.mp_enclosure(p, y, radius)
        n = p.d + 1
        return [b - a for i, (a, b) in enumerate(flat) if i % n]

    ways = {
        "Arb": lambda *a: kernel_widths(*a, False),
        "fast": lambda *a: kernel_widths(*a, True),
        "mpmath": mpmath_widths,
    }
    for radius, _ in itertools.product((1e-6, 1e-2), range(cases)):
        p = problems.random_problem(rng, folder, str(rng.choice(["plain", "gradient"])), guidance=1.0)
        y = rng.standard_normal(p.d).round(3)
        for name, way in ways.items():
            start = time.perf_counter()
            found = way(p, y, radius)
            times.setdefault((name, radius), []).append(time.perf_counter() - start)
            widths.setdefault((name, radius), []).append(sum(found))
    for radius in (1e-6, 1e-2):
        base = np.asarray(widths["mpmath", radius])
        told = ", ".join(
            f"{name} {np.median(np.asarray(widths[name, radius]) / np.maximum(base, 1e-300)):.2f} of the width, "
            f"{1e3 * np.median(times[name, radius]):.1f} ms" for name in ways
        )  # fmt: skip
        print(f"libraries: J over a ball of radius {radius:g}, {cases} networks, medians, mpmath 1: {told}", flush=True)


if __name__ == "__main__":
    parts = {"fast": fast, "bounds": bounds, "libraries": libraries}
    with tempfile.TemporaryDirectory() as room:
        for part in sys.argv[1:] or parts:
            parts[part](Path(room))
