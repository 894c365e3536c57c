"""``python benchmarks/certificates.py [PART...]``: what certificates cost and how much they certify, each from one run.

structure: the structure certificate of digits-monotone, all steps, all conditions. trajectories: digits-monotone at 20
steps, 50 images: time an image and radius. plain: digits-plain at 50 steps, guidance 1: image-steps certified, against
float64 Newton with a condition number below 1e4. limits: the guidance that digits-monotone takes at each of 20 steps (T11),
certified around the solutions of 50 images, what happens just below it, and what fails above it.

``python benchmarks/certificates.py page FILE...``: writes what these printed into docs/certificates.md.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

import fpjax
from fpjax import process, step
from fpjax.certify import propose
from fpjax.certify.check import CertificateError, check_data
from fpjax.solve import solve


def digits(name: str, images: int):
    x, c = fpjax.samples("digits", images)
    den = fpjax.load(name)
    card, model = propose.load_model(den)
    return den, x.astype(np.float64), [int(v) for v in c], card, model, propose.load_model(den, fast=True)[1]


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
    den, x, labels, card, _, _ = digits("digits-monotone", images)
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


def plain_image(den, card, model, quick, image, label, levels) -> dict:
    """Counts for one image: one T13 certificate an image-step, its target the solution of the step before, found in fast
    arithmetic and checked in Arb; then the whole trajectory with its propagated radius, in fast arithmetic."""
    row = dict.fromkeys(("tried", "converged", "mild", "certified", "mild not certified", "whole"), 0)
    row |= {"condition": 0.0, "radius": 0.0, "seconds": 0.0}
    target, path = image.ravel(), [image.ravel()]
    for low, high in itertools.pairwise(levels):
        at = step.Step(den, jnp.asarray(high), jnp.asarray(low / high), jnp.asarray(target), jnp.asarray(label))
        y, converged, condition = newton(target, at)
        mild = bool(converged) and condition < 1e4
        row["tried"], row["converged"], row["mild"] = row["tried"] + 1, row["converged"] + converged, row["mild"] + mild
        start = time.perf_counter()
        try:
            p = propose.Problem(card, quick, label, 1.0, low, high)
            certificate = propose.step_ball(p, target, y, forms=("radii",), widen=False)
            row["radius"] = max(row["radius"], check_data(certificate.data, model).facts["radius"])
            row["certified"] += 1
        except (CertificateError, np.linalg.LinAlgError) as error:
            row["mild not certified"] += mild
            print(f"plain: refused at {low:.3g} -> {high:.3g}, Newton converged {converged}, "
                  f"condition {condition:.3g}: {str(error)[:100]}", flush=True)  # fmt: skip
            if not converged:
                break
        row["seconds"] = max(row["seconds"], time.perf_counter() - start)
        row["condition"] = max(row["condition"], condition if converged else 0.0)
        target = y
        path.append(y)
    if len(path) == len(levels):
        try:
            certificate = propose.trajectory(card, quick, levels, path, label)
            print(f"plain: {check_data(certificate.data, quick, fast=True).statement}", flush=True)
            row["whole"] = 1
        except CertificateError as error:
            print(f"plain: whole trajectory refused: {error}", flush=True)
    return {k: float(v) for k, v in row.items()}


def plain(kept: str = "", images: int = 10, steps: int = 50) -> None:
    """digits-plain at guidance 1. Rows are kept in the file ``kept``, if given, and a later run goes on from there."""
    den, x, labels, card, model, quick = digits("digits-plain", images)
    rows = json.loads(Path(kept).read_text(encoding="utf-8")) if kept and Path(kept).exists() else []
    for i in range(len(rows), images):
        rows.append(plain_image(den, card, model, quick, x[i], labels[i], process.ddim(steps).levels))
        if kept:
            Path(kept).write_text(json.dumps(rows), encoding="utf-8")
        asked, total = len(rows) * steps, {k: int(sum(row[k] for row in rows)) for k in rows[0]}
        most = {k: max(row[k] for row in rows) for k in ("condition", "radius", "seconds")}
        print(
            f"plain: {len(rows)} images: {total['certified']} of {asked} image-steps certified "
            f"({total['certified'] / asked:.1%}; {asked - total['tried']} could not be tried); Newton converged on "
            f"{total['converged']}, with a condition below 1e4 on {total['mild']}, of which {total['mild not certified']} are "
            f"not certified; largest condition {most['condition']:.3g}, largest radius {most['radius']:.1e}, at most "
            f"{most['seconds']:.2f} s an image-step; whole trajectories with propagated radius (fast arithmetic): "
            f"{total['whole']} of {len(rows)}",
            flush=True,
        )


@jax.jit
def guided(den, sigma, rho, targets, starts, labels, w):
    """Solutions of F_w(y) = y_s from ``starts`` by the solver that fpjax chooses, one a row, and their residuals."""

    def one(target, start, label):
        at = step.Step(den, sigma, rho, target.reshape(den.shape), label, w)
        y = solve(step.G, start.reshape(den.shape), at, solver="auto", tol=1e-13, limit=200, stop="residual").y
        return y.ravel(), jnp.linalg.norm(step.F(y, at) - at.target)

    return jax.vmap(one)(targets, starts, labels)


@jax.jit
def rests(den, sigma, rho, targets, ys, labels, w):
    """F_w(y) - y_s at each row of ys (n, trials, d)."""

    def one(target, y, label):
        at = step.Step(den, sigma, rho, target.reshape(den.shape), label, w)
        return jax.vmap(lambda v: step.F(v.reshape(den.shape), at).ravel() - target)(y)

    return jax.vmap(one)(targets, ys, labels)


@jax.jit
def slopes(den, sigma, rho, ys, labels, w):
    """F_w' at each row."""

    def one(y, label):
        at = step.Step(den, sigma, rho, y.reshape(den.shape), label, w)
        return jax.jacfwd(lambda v: step.F(v.reshape(den.shape), at).ravel())(y)

    return jax.vmap(one)(ys, labels)


class Guided:
    """One step of the inversion of all images, at any guidance w."""

    def __init__(self, den, targets, labels, low: float, high: float):
        self.den, self.targets, self.labels, self.low, self.high = den, targets, jnp.asarray(labels), low, high
        self.rho = low / high

    def good(self, rest) -> np.ndarray:
        """Which residuals are float64's rounding noise."""
        return np.asarray(rest) <= 1e-11 * (1 + np.linalg.norm(self.targets, axis=1))

    def solve(self, w: float, starts) -> tuple[np.ndarray, np.ndarray]:
        """What fpjax's solver ends at from these starts, and for which images it converged."""
        ys, rest = guided(self.den, self.high, self.rho, self.targets, starts, self.labels, w)
        return np.asarray(ys), self.good(rest)

    def solved(self, w: float) -> int:
        """For how many images fpjax's solver converges from y_s."""
        return int(self.solve(w, self.targets)[1].sum())

    def followed(self, w: float, starts, stages: int = 16) -> tuple[int, int]:
        """For how many images it converges from the solutions at guidance 1: at once, and where that ends in a local minimum
        of the residual, along as many stages of guidance, each from the solution of the one before."""
        at_once = good = self.solve(w, starts)[1]
        for k in range(1, stages + 1) if not at_once.all() else ():
            starts, good = self.solve(1 + (w - 1) * k / stages, starts)
        return int(at_once.sum()), int((at_once | good).sum())

    def newton(self, w: float, starts=None, rounds: int = 25):
        """Solutions by Newton's method with backtracking, from y_s, and whether each converged."""
        y, sizes = np.array(self.targets if starts is None else starts), 0.5 ** np.arange(10.0)
        size = np.full(len(y), np.inf)
        for _ in range(rounds):
            rest = np.asarray(rests(self.den, self.high, self.rho, self.targets, y[:, None], self.labels, w))[:, 0]
            size = np.linalg.norm(rest, axis=1)
            if self.good(size).all():
                break
            move = np.linalg.solve(self.slopes(y, w), rest[:, :, None])[:, :, 0]
            trials = y[:, None] - sizes[None, :, None] * move[:, None]
            new = np.asarray(rests(self.den, self.high, self.rho, self.targets, trials, self.labels, w))
            new = np.linalg.norm(new, axis=-1)
            best = np.nanargmin(np.where(np.isfinite(new), new, 1e300), axis=1)
            picked, rows = trials[np.arange(len(y)), best], new[np.arange(len(y)), best]
            y = np.where((rows < size)[:, None], picked, y)
            if not (rows < size * (1 - 1e-4))[~self.good(size)].any():
                break
        return y, self.good(size)

    def slopes(self, ys, w: float) -> np.ndarray:
        """F_w' at each row."""
        return np.asarray(slopes(self.den, self.high, self.rho, ys, self.labels, w))

    def lowest(self, ys, w: float):
        """m at each row, the lowest eigenvalue of sym F_w', and its eigenvector."""
        f = self.slopes(ys, w)
        values, vectors = np.linalg.eigh((f + f.transpose(0, 2, 1)) / 2)
        return values[:, 0], vectors[:, :, 0]

    def lambda_0(self, ys) -> float:
        """The largest ||J_0||: at w = 0 the step is that of D_0."""
        f = self.slopes(ys, 0.0)
        return float((np.linalg.norm(f - self.rho * np.eye(f.shape[1]), 2, axis=(1, 2)) / (1 - self.rho)).max())

    def fine(self, w: float) -> bool:
        """Newton finds a solution with m > 0 for every image."""
        ys, good = self.newton(w)
        return bool(good.all() and (self.lowest(ys, w)[0] > 0).all())

    def limit(self, most: float = 1e6) -> float:
        """The largest w, to 1 % of w - 1, up to which this was so at every w tried: doublings, bisection, and shares."""
        low, high = 0.0, 2.0**-7
        while high < most and self.fine(1 + high):
            low, high = high, 2 * high
        while high - low > 0.01 * low + 1e-5:
            middle = (low + high) / 2
            low, high = (middle, high) if self.fine(1 + middle) else (low, middle)
        shares = (0.97, 0.85, 0.7, 0.5, 0.3)
        while low > 1e-6 and not all(self.fine(1 + s * low) for s in shares):
            low *= 0.9
        return 1 + low


def certify_limit(card, model, quick, at: Guided, ys, w: float, radius: float = 1e-6) -> int:
    """For how many images the kernel proves m > 0 for all guidance from 1 to w on a ball around the solution at w: in its
    fast arithmetic, and for the image with the least m in Arb too, without which none counts."""
    count, worst = 0, int(np.argmin(at.lowest(ys, w)[0]))
    for i, (y, label) in enumerate(zip(ys, at.labels, strict=True)):
        claim = propose.Problem(card, model, int(label), 1.0, at.low, at.high).claim
        claim = {k: v for k, v in claim.items() if k != "guidance"}
        claim |= {"region": propose.region(y, radius), "limit": float(w).hex()}
        try:
            data = propose.seal(card, model, "guidance-limit", claim).data
            check_data(data, quick, fast=True)
            count += 1
            if i == worst:
                check_data(data, model)
        except CertificateError:
            if i == worst:
                return 0
    return count


def failure(card, model, at: Guided, ys, w: float) -> tuple[str, str]:
    """What the kernel proves to fail at guidance w: (monotonicity, uniqueness), each "refuted" or "-"."""
    m, axes = at.lowest(ys, w)
    worst, found = int(np.argmin(m)), ["-", "-"]
    p = propose.Problem(card, model, int(at.labels[worst]), float(w), at.low, at.high)
    size = 1e-4 * at.high
    try:
        pair = ys[worst] - size * axes[worst], ys[worst] + size * axes[worst]
        check_data(propose.decrease_witness(p, *pair).data, model)
        found[0] = "refuted"
    except CertificateError:
        pass
    solutions = []
    for side in (-0.3, 0.3, -1, 1):
        y, good = at.newton(w, ys + side * at.high * axes)
        solutions.append(np.where(good[:, None], y, np.nan))
    gaps = np.linalg.norm(np.asarray(solutions)[:, None] - np.asarray(solutions)[None], axis=-1)
    gaps = np.where(gaps > 1e-3 * at.high, gaps, 0)  # NaN compares false
    for _ in range(3):
        a, b, i = np.unravel_index(int(np.argmax(gaps)), gaps.shape)
        if gaps[a, b, i] == 0:
            break
        try:
            p = propose.Problem(card, model, int(at.labels[i]), float(w), at.low, at.high)
            pair = [solutions[a][i], solutions[b][i]]
            check_data(propose.non_uniqueness(p, at.targets[i], pair, forms=("radii",)).data, model)
            found[1] = "refuted"
            break
        except (CertificateError, np.linalg.LinAlgError):
            gaps[:, :, i] = 0
    return found[0], found[1]


def limits(chosen: str = "", images: int = 50) -> None:
    """T11 at each step (or those ``chosen``, "3,5"); each image's state is that of its inversion at guidance 1."""
    den, x, labels, card, model, quick = digits("digits-monotone", images)
    proc = process.ddim(20)
    path = np.asarray(fpjax.invert(den, x, proc, condition=labels, solver="auto", tol=1e-11).path)
    path, counts = path.reshape(images, len(proc.levels), -1), np.zeros(4, int)
    pairs = list(enumerate(itertools.pairwise(map(float, proc.levels))))
    pairs = [pairs[int(i)] for i in chosen.split(",")] if chosen else pairs
    for i, (low, high) in pairs:
        at = Guided(den, path[:, i], labels, low, high)
        seen = at.limit()
        w = 1 + 0.99 * (seen - 1)
        ys, _ = at.newton(w)
        start = time.perf_counter()
        proved, crude = certify_limit(card, model, quick, at, ys, w), 1 + at.rho / ((1 - at.rho) * at.lambda_0(ys))
        seconds = time.perf_counter() - start
        less = 1 + 0.97 / 0.99 * (w - 1)
        (at_once, below), cold = at.followed(less, path[:, i + 1]), at.solved(less)
        staged = "" if at_once == below else f" ({below - at_once} of them in stages)"
        above = {k: (failure(card, model, at, ys, 1 + k * (w - 1)), at.solved(1 + k * (w - 1))) for k in (2, 5, 10)}
        told = ", ".join(f"{k}: {a}/{b}, {n} of {images} converge" for k, ((a, b), n) in above.items())
        counts += [proved == images, below == images, any(a == "refuted" for (a, _), _ in above.values()),
                   any(b == "refuted" for (_, b), _ in above.values())]  # fmt: skip
        print(
            f"limits: step {i}, sigma {low:.3g} -> {high:.3g}: limit {w:.5g} certified for {proved} of {images} images in "
            f"{seconds:.0f} s (in floats {seen:.5g}; from ||J_0|| alone {crude:.5g}); 2 % below it {below} of {images} "
            f"converge from the solution at guidance 1{staged}, {cold} from y_s; monotonicity/uniqueness at multiples of "
            f"the extra guidance: {told}",
            flush=True,
        )
    print(
        f"limits: of {len(pairs)} steps the limit is certified for all images on {counts[0]}, just below it all images "
        f"converge on {counts[1]}; above it a failure is certified on {counts[2]}, two solutions on {counts[3]}"
    )


ORDER = ("structure", "trajectories", "plain", "limits", "fast", "bounds", "libraries")


def place(line: str) -> tuple[int, int, str]:
    """Where a line stands on the page; of two lines with one place the later one stays."""
    part, what = line.split(":")[:2]
    number = int(what.split()[1].strip(",")) if part == "limits" else 0
    return ORDER.index(part), number, "" if part in ORDER[:4] else what


def page(files) -> None:
    """Puts the lines of saved outputs into the block of docs/certificates.md, each in the place of its old one."""
    path, start, end = (
        Path(__file__).parent.parent / "docs" / "certificates.md",
        "<!-- measured -->\n```measured\n",
        "```\n<!-- end -->",
    )
    before, rest = path.read_text(encoding="utf-8").split(start)
    old, after = rest.split(end)
    told = [line for file in files for line in Path(file).read_text(encoding="utf-8").splitlines()]
    told = [v for v in told if v.startswith(("structure:", "trajectories:", "limits: step", *(f"{k}:" for k in ORDER[4:])))
            or " image-steps " in v]  # fmt: skip
    lines = {place(line): line for line in (*old.splitlines(), *told)}
    text = "".join(f"{lines[k]}\n" for k in sorted(lines))
    path.write_text(before + start + text + end + after, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["page"]:
        page(sys.argv[2:])
        sys.exit()
    parts = {"structure": structure, "trajectories": trajectories, "plain": plain, "limits": limits}
    for part in sys.argv[1:] or parts:
        name, _, value = part.partition("=")  # plain=FILE keeps its rows there, limits=3,5 takes these steps
        parts[name](*([value] if value else []))
