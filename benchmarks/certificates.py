"""``python benchmarks/certificates.py [PART...]``: what certificates cost and how much they certify, each from one run.

structure: the structure certificate of digits-monotone, all steps, all conditions. trajectories: digits-monotone at 20
steps, 50 images: time an image and radius. plain: digits-plain at 50 steps, guidance 1: image-steps certified, against
float64 Newton with a condition number below 1e4.
"""

import itertools
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import fpjax
from fpjax import process, step
from fpjax.certify import propose
from fpjax.certify.check import CertificateError, check_data


def digits(name: str, images: int):
    x, c = fpjax.samples("digits", images)
    den = fpjax.load(name)
    return den, x.astype(np.float64), [int(v) for v in c], *propose.load_model(den)


def structure() -> None:
    start = time.perf_counter()
    card, model = propose.load_model("digits-monotone")
    certificate = propose.structure(card, model, process.ddim(20).levels)
    middle = time.perf_counter()
    proved = check_data(certificate.data, card)
    end = time.perf_counter()
    conditions = len(certificate.data["claim"]["conditions"])
    print(
        f"structure: {proved.statement}, {conditions} conditions; proposed in {middle - start:.2f} s, checked from the "
        f"files in {end - middle:.2f} s"
    )


def trajectories(images: int = 50) -> None:
    den, x, labels, card, _ = digits("digits-monotone", images)
    proc, rows = process.ddim(20), []
    propose.solver_path(den, x[0], proc, labels[0], 1.0)  # compile once
    for image, label in zip(x, labels, strict=True):
        start = time.perf_counter()
        certificate = propose.propose(den, image, proc, condition=label)
        middle = time.perf_counter()
        proved = check_data(certificate.data, card)
        rows.append((proved.facts["radius"], middle - start, time.perf_counter() - middle))
    radius, made, checked = np.max(rows, axis=0)
    total = max(a + b for _, a, b in rows)
    print(
        f"trajectories: {len(rows)} of {images} images certified over {proc.steps} steps; largest radius {radius:.1e}; an "
        f"image takes at most {total:.2f} s (proposing {made:.2f} s, checking {checked:.2f} s)"
    )


@jax.jit
def value_and_jacobian(y, p):
    def f(v):
        return step.F(v.reshape(p.den.shape), p).ravel() - p.target

    return f(y), jax.jacfwd(f)(y)


def newton(y, p, steps: int = 60):
    """Float64 Newton with backtracking from y: (solution, whether it converged, condition number of F' there)."""
    rest, jacobian = map(np.asarray, value_and_jacobian(y, p))
    for _ in range(steps):
        if np.linalg.norm(rest) <= 1e-13 * (1 + np.linalg.norm(y)):
            break
        move = np.linalg.solve(jacobian, rest)
        for size in 0.5 ** np.arange(30.0):
            new, slope = map(np.asarray, value_and_jacobian(y - size * move, p))
            if np.linalg.norm(new) < np.linalg.norm(rest):
                break
        else:
            break
        y, rest, jacobian = y - size * move, new, slope
    return y, np.linalg.norm(rest) <= 1e-12 * (1 + np.linalg.norm(y)), np.linalg.cond(jacobian)


def plain(images: int = 10, steps: int = 50) -> None:
    """One T13 certificate an image-step, its target the solution of the step before; then the whole trajectory."""
    den, x, labels, card, model = digits("digits-plain", images)
    levels = process.ddim(steps).levels
    counts = dict.fromkeys(("tried", "converged", "mild", "certified", "mild not certified", "whole"), 0)
    worst, radius, seconds = 0.0, 0.0, 0.0
    for image, label in zip(x, labels, strict=True):
        target, path = image.ravel(), [image.ravel()]
        for low, high in itertools.pairwise(levels):
            at = step.Step(den, jnp.asarray(high), jnp.asarray(low / high), jnp.asarray(target), jnp.asarray(label))
            y, converged, condition = newton(target, at)
            counts["tried"] += 1
            counts["converged"] += bool(converged)
            mild = bool(converged) and condition < 1e4
            counts["mild"] += mild
            start = time.perf_counter()
            try:
                p = propose.Problem(card, model, label, 1.0, low, high)
                certificate = propose.step_ball(p, target, y, forms=("radii",), widen=False)
                proved = check_data(certificate.data, model)
            except (CertificateError, np.linalg.LinAlgError) as error:
                counts["mild not certified"] += mild
                print(f"plain: refused at {low:.3g} -> {high:.3g}, Newton converged {converged}, "
                      f"condition {condition:.3g}: {str(error)[:100]}", flush=True)  # fmt: skip
                if not converged:
                    break
            else:
                counts["certified"] += 1
                radius = max(radius, proved.facts["radius"])
            seconds, worst = max(seconds, time.perf_counter() - start), max(worst, condition if converged else 0.0)
            target = y
            path.append(y)
        if len(path) == len(levels):
            try:
                certificate = propose.trajectory(card, model, levels, path, label)
                proved = check_data(certificate.data, model)
                counts["whole"] += 1
                print(f"plain: {proved.statement}", flush=True)
            except CertificateError as error:
                print(f"plain: whole trajectory refused: {error}", flush=True)
    asked = images * steps
    print(
        f"plain: {counts['certified']} of {asked} image-steps certified ({counts['certified'] / asked:.1%}; "
        f"{asked - counts['tried']} could not be tried); Newton converged on {counts['converged']}, with a condition "
        f"below 1e4 on {counts['mild']}, of which {counts['mild not certified']} are not certified; largest condition "
        f"{worst:.3g}, largest radius {radius:.1e}, at most {seconds:.2f} s an image-step; whole trajectories with "
        f"propagated radius: {counts['whole']} of {images}"
    )


if __name__ == "__main__":
    parts = {"structure": structure, "trajectories": trajectories, "plain": plain}
    for part in sys.argv[1:] or parts:
        parts[part]()
