"""Mutants of the kernel, and the suite that must kill each: comparisons flipped, refusals and roundings dropped."""

import ast
import contextlib
import copy
import faulthandler
import json
import os
import resource
import signal
import sys
import time
import types
from pathlib import Path

import certify_fast
import certify_zoo as zoo
import numpy as np
from flint import arb, arb_mat, ctx

import fpjax.certify.check as kernel
import fpjax.certify.fast  # noqa: F401 - its module is looked up by name

ROOM, FILES = Path(kernel.__file__).parent, (*kernel.FILES, "fast", "check")
SOURCES = {name: (ROOM / f"{name}.py").read_text() for name in FILES}
FLIPS = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}


def sites(tree, file=""):
    """(label, edit) of every mutant: edit(tree copy's node) changes it in place; nodes are found by their order."""
    for index, node in enumerate(ast.walk(tree)):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Compare):
            for i, op in enumerate(node.ops):
                if type(op) in FLIPS:
                    yield index, line, f"flip {ast.unparse(node)}", ("flip", i)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and name_of(node.value) == "require":
            yield index, line, f"drop {ast.unparse(node)}", ("drop", 0)
        if isinstance(node, ast.Call) and name_of(node) in ("upper", "abs_upper"):
            yield index, line, f"no rounding {ast.unparse(node)}", ("midpoint", 0)
        if isinstance(node, ast.Call) and name_of(node) == "arb" and len(node.args) == 2:
            yield index, line, f"no radius {ast.unparse(node)}", ("radius", 0)
        if isinstance(node, ast.Call) and name_of(node) == "rad":
            yield index, line, f"no radius {ast.unparse(node)}", ("zero", 0)
        if file != "fast":  # below: the roundings of the fast arithmetic, term by term
            continue
        if isinstance(node, ast.Call) and name_of(node) in ("up", "above") and len(node.args) > 0:
            yield index, line, f"no rounding {ast.unparse(node)}", ("argument", 0)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and not constant_term(node):
            for side in ("left", "right"):
                yield index, line, f"drop the {side} of {ast.unparse(node)}", (side, 0)


def constant_term(node: ast.BinOp) -> bool:
    """Whether a sum has a constant term: those count roundings, with room to spare."""
    return isinstance(node.right, ast.Constant) or isinstance(node.left, ast.Constant)


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


class Kernel:
    """The names of the kernel's files as one; what is set, is set where it is."""

    def __init__(self, modules):
        object.__setattr__(self, "modules", modules)

    def __getattr__(self, name):
        for module in reversed(self.modules):
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(name)

    def __setattr__(self, name, value):
        next(setattr(m, name, value) for m in self.modules if hasattr(m, name))


def right() -> Kernel:
    """The kernel as it is."""
    return Kernel([sys.modules[f"fpjax.certify.{name}"] for name in FILES])


def changed(file: str, index: int, how) -> ast.Module:
    """The file with one node changed."""
    tree = ast.parse(SOURCES[file])
    change(list(ast.walk(tree))[index], how)
    return ast.fix_missing_locations(tree)


def mutate(file: str, mutant: ast.Module) -> Kernel:
    """The kernel with this for one of its files, made of new modules under the old names: for a process of its own."""
    modules = []
    for name in FILES:
        tree = mutant if name == file else ast.parse(SOURCES[name])
        module = types.ModuleType(f"fpjax.certify.{name}")
        module.__package__ = "fpjax.certify"
        sys.modules[module.__name__] = module
        exec(compile(tree, f"mutant {name}", "exec"), module.__dict__)
        modules.append(module)
    return Kernel(modules)


def change(node, how) -> None:
    """Changes one node in place."""
    kind, i = how
    if kind == "flip":
        node.ops[i] = FLIPS[type(node.ops[i])]()
    elif kind == "drop":
        node.value = ast.Constant(value=None)
    elif kind == "midpoint":
        inner = node.func.value if isinstance(node.func, ast.Attribute) else node.args[0]
        node.func, node.args, node.keywords = ast.Attribute(value=inner, attr="mid", ctx=ast.Load()), [], []
    elif kind == "argument":
        node.func, node.args = (
            ast.Name(id="float" if name_of(node) == "above" else "abs", ctx=ast.Load()),
            node.args[:1],
        )
    elif kind in ("left", "right"):
        kept = node.right if kind == "left" else node.left
        node.op, node.left, node.right = ast.Mult(), kept, ast.Constant(value=1)
    elif kind == "radius":
        node.args = node.args[:1]
    else:
        node.func, node.args = ast.Name(id="arb", ctx=ast.Load()), [ast.Constant(value=0)]


@contextlib.contextmanager
def time_limit(seconds: int):
    """Ends a mutant that hangs, by processor time; the kernel's limits are part of what is mutated."""

    def stop(*_):
        raise TimeoutError

    old = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)


def killed(k, cases) -> str | None:
    """The first case that tells this kernel from a right one, or None. A crash other than a rejection kills too."""
    try:
        with time_limit(30):
            for name, case in cases:
                if not case(k):
                    return name
    except Exception as error:
        return f"crash {type(error).__name__}"
    return None


def killed_apart(file: str, index: int, how, cases) -> str | None:
    """Like :func:`killed` for one mutant, in a child process with 4 GiB: a mutant may abort or eat all memory."""
    mutant = changed(file, index, how)  # here, where a failure is no kill
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_AS, (1 << 32, 1 << 32))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            answer = killed(mutate(file, mutant), cases) or ""
        except BaseException as error:
            answer = f"crash at import {type(error).__name__}"
        os.write(write, answer.encode()[:500])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return answer or None if status == 0 else "crash of the process"


def verdict(data, card, wanted, word=None, limit=200.0):
    """A case: the kernel accepts or rejects, where it rejects with that word in its reason."""

    def case(k):
        try:
            k.check_data(data, card, limit)
        except k.CertificateError as error:
            return not wanted and "broke off" not in str(error) and (word is None or word in str(error))
        return wanted

    return case


def helper_cases():
    """Properties of the helpers, at ordinary and at low precision."""

    def upper(k):
        wide = arb(1, 0.25)
        bad = (arb.nan(), arb(0, arb.pos_inf()))
        return bool(k.upper(-wide) >= 1.25) and not any(k.upper(b).is_finite() for b in bad)

    def largest(k):
        return bool(k.largest([arb(0.5), arb(1, 0.5), arb(-3, 0.5)]) >= 3.5) and not k.largest([arb.nan()]).is_finite()

    def norm(k):
        return bool(k.norm([arb(3, 0.5), arb(4)]) >= 5.3) and float(k.norm([arb(3), arb(4)])) < 5.01

    def norm2(k):
        rng = np.random.default_rng(0)
        good = k.ArbMatrix(arb_mat(2, 2)).norm2() == 0
        for precision in (128, 64, 20):
            with ctx.workprec(precision):
                for shape in ((3, 5), (5, 3), (4, 4)):
                    a = rng.standard_normal(shape)
                    wide = k.ArbMatrix.of(*shape, [arb(float(v), 0.01) for v in a.ravel()])
                    tight = float(k.ArbMatrix.of(*shape, [arb(float(v)) for v in a.ravel()]).norm2())
                    top = max(np.linalg.norm(a + 0.01 * rng.choice([-1, 1], shape), 2) for _ in range(50))
                    true = np.linalg.norm(a, 2)
                    good &= top <= float(wide.norm2()) <= 4 * top and true - 1e-13 <= tight
                    good &= precision < 64 or tight <= 1.002 * true
        with ctx.workprec(10):  # a third has no short expansion: the bound must not fall below it
            third = arb(1) / 3
            good &= bool(k.ArbMatrix.of(1, 1, [third]).norm2() >= arb(fraction(1, 3)))
        return bool(good)

    def quick(k):  # the smaller of the two Gram matrices is the one that is squared
        start = time.process_time()
        k.ArbMatrix.of(1, 400, [arb(1) / (i + 3) for i in range(400)]).norm2()
        return time.process_time() - start < 0.5

    def lambda_min(k):
        rng = np.random.default_rng(1)
        good = not bool(k.lambda_min(k.ArbMatrix.of(1, 1, [arb.nan()])) >= -1e300)
        for _ in range(10):
            a = rng.standard_normal((4, 4))
            s = (a + a.T) / 2
            wide = k.ArbMatrix.of(4, 4, [arb(float(v), 0.01) for v in s.ravel()])
            e = rng.choice([-1, 1], (4, 4))
            inside = s + 0.01 * np.triu(e) + 0.01 * np.triu(e, 1).T
            low, true = float(k.lambda_min(wide)), np.linalg.eigvalsh(inside)[0]
            good &= true - 2 * np.linalg.norm(a, 2) <= low <= true
            exactly = float(k.lambda_min(k.ArbMatrix.of(4, 4, [arb(float(v)) for v in s.ravel()])))
            good &= np.linalg.eigvalsh(s)[0] - 0.01 <= exactly
        return bool(good)

    def exact(k):
        return k.exact(0.1) * 2**55 == 3602879701896397

    def slopes(k):
        good = True
        for value, derivative, (low, high) in k.FUNCTIONS.values():
            d = k.slope(derivative, arb(0.3, 0.7), low, high)
            for x in np.linspace(-0.4, 1.0, 9):
                t = derivative(arb(float(x)))
                good &= bool(d.contains(t.mid())) and d.is_finite()
                f = (value(arb(float(x + 1e-7))) - value(arb(float(x - 1e-7)))) / 2e-7
                good &= abs(float(f) - float(t)) < 1e-5 or abs(x) < 1e-6
            everywhere = k.slope(derivative, arb(0, arb.pos_inf()), low, high)
            good &= everywhere.is_finite() is (high is not None)
        relu = k.FUNCTIONS["relu"][1]
        good &= float(relu(arb(2))) == 1 and float(relu(arb(-2))) == 0 and relu(arb(0, 1)).contains(1)
        return bool(good and k.softplus(arb(-40)) < 1e-17 and k.softplus(arb(50)) < 50.001)

    def mixture_change(k):  # the bound holds for every p in the balls; it rises with p
        rng, good = np.random.default_rng(2), True
        for i in range(60):
            p, n, h = rng.dirichlet(np.ones(3)), *rng.uniform(0.1, 2, (2, 3))
            radius = float(10.0 ** rng.uniform(-3, 1))
            with ctx.workprec(53 if i % 2 else 128):
                wide = [arb(float(v), 0.1 * float(v)) for v in p]
                found = k.mixture_change(wide, [arb(float(v)) for v in n], [arb(float(v)) for v in h], arb(radius))
            good &= change_in_floats(1.1 * p, n, h, radius) * (1 - 1e-9) <= float(found.upper())
            good &= float(found) <= 3 * change_in_floats(1.1 * p, n, h, radius) + 1e-12
        return bool(good)

    names = (upper, largest, norm, norm2, quick, lambda_min, exact, slopes, mixture_change)
    return [(f.__name__, f) for f in names]


def change_in_floats(p, n, h, radius) -> float:
    """The formula of the kernel's mixture_change, in floats."""
    low, most, x = np.exp(-(radius**2) * (p @ h) / 2), n + radius * h, radius * n + radius**2 * h / 2
    top = p * np.exp(x) / low

    def average(z):
        return min(top @ z, z.max())

    moved = p * np.maximum(np.exp(x) / low - 1, 1 - np.exp(-x) / (p @ np.exp(x)))
    s = most + min(moved @ most + radius * (p @ h), average(most))
    return min(radius * average(s * (s * s + 3 * h)), average(h + most**2) + p @ n**2)


def fraction(p, q):
    from flint import fmpq

    return arb(fmpq(p, q))


def enclosure_cases(cards):
    """Jacobians and values over balls hold at the points of the ball, also with few bits; and they are not vacuous."""

    def make(card, layers, tensors, sigma, guidance, radius, precision, condition=0, classes=1):
        def case(k):
            m = k.Model(card)
            rng = np.random.default_rng(3)
            with ctx.workprec(precision):
                step = k.Step(m, condition, guidance, sigma / 2, sigma)
                y = [0.3, -0.4]
                centre = [arb(v) for v in y]
                value = step.denoise(centre, arb(radius))
                f, e = step.derivative(value)
                modulus, (g_bound, f_bound) = step.modulus(value), step.lipschitz(value)
                point = step.residual(centre, [arb(0)] * 2)

            def true(v):
                return zoo.step(layers, tensors, v, sigma / 2, sigma, condition, guidance, classes)

            mid = np.asarray([float(v.mid()) for v in f.entries()]).reshape(2, 2)
            rad = np.asarray([float(v.rad()) for v in f.entries()]).reshape(2, 2)
            if not all(
                abs(float(p.mid()) - t) <= float(p.rad()) + 1e-12
                for p, t in zip(point, true(np.asarray(y)), strict=True)
            ):
                return False
            seen = 0.0
            for i in range(12):
                u = rng.standard_normal(2)
                away = 0 if i == 0 else radius * (1 - 1e-6)
                j = zoo.jacobian(true, np.asarray(y) + away * u / np.linalg.norm(u), 1e-6)
                gap = np.linalg.norm(np.maximum(abs(j - mid) - rad, 0), 2)
                seen = max(seen, gap)
                if gap > float(e) * (1 + 1e-6) + 2e-9:
                    return False
                if np.linalg.eigvalsh((j + j.T) / 2)[0] < float(modulus) - 2e-9:
                    return False
                if (
                    np.linalg.norm(j, 2) > float(f_bound) + 2e-9
                    or np.linalg.norm(np.eye(2) - j, 2) > float(g_bound) + 2e-9
                ):
                    return False
            if layers[0]["op"] == "tree":  # plain intervals: good on small balls only
                return radius != 1e-3 or precision < 60 or float(e) < 1e3
            tight = precision > 60 and radius <= 1e-3
            return bool(float(e) < 20 * seen + 1e-3) if tight else True

        return case

    out = []
    for name, (card, layers, tensors, classes) in cards.items():
        for sigma in (0.1, 0.8):
            for guidance in (1.0, 3.0) if classes else (1.0,):
                for radius, precision in ((1e-3, 128), (0.3, 128), (1e-9, 14), (0.0, 10)):
                    case = make(card, layers, tensors, sigma, guidance, radius, precision, classes=classes)
                    out.append((f"enclosure {name} {sigma} {guidance} {radius} {precision}", case))
    return out


def tree_cases(folder):
    """A latent tree's values, whatever the shape of the image; and what is no tree is refused for its own reason."""

    def values(card, layers, tensors, d):
        def case(k):
            y = np.random.default_rng(9).standard_normal(d)
            with ctx.workprec(128):
                found = k.Step(k.Model(card), 1, 1.0, 0.2, 0.6).denoise([arb(float(v)) for v in y], None)
            true = zoo.evaluate(layers, tensors, y, 0.6, 1)
            return found.psd and all(abs(float(c.mid()) - t) < 1e-12 for c, t in zip(found.c, true, strict=True))

        return case

    def refused(card, d, reason):
        def case(k):
            try:
                k.Step(k.Model(card), 1, 1.0, 0.2, 0.6).denoise([arb(0)] * d, None)
            except k.CertificateError as error:
                return reason in str(error)
            return False

        return case

    out, rng = [], np.random.default_rng(31)
    kinds = (
        ((1, 3), False, 0),
        ((3, 2), True, 0),
        ((2, 3), True, 0),
        ((2, 2), False, 0),
        ((2, 3), False, 2),
        ((3, 2), False, 4),
        ((3, 2), False, 4, (2, 5)),
    )
    for i, (image, alike, n, *blocks) in enumerate(kinds):
        layers = zoo.tree_layers(image, n)
        tensors = zoo.tree_tensors(rng, image, classes=1, alike=alike, window=n, blocks=(*blocks, (1, 1))[0])
        card = zoo.write(folder, f"tree-{i}", layers, tensors, image, 1)
        out.append((f"tree {image}", values(card, layers, tensors, image[0] * image[1])))
    layers, tensors = zoo.tree_layers((2, 2)), zoo.tree_tensors(rng, (2, 2), classes=1)
    zero, minus = tensors["leaf"].copy(), tensors["variances"].copy()
    zero.flat[-1], minus[-1] = 0, -1e-9
    for word, edit, changed in (
        ("a weight is not positive", {}, {"leaf": zero}),
        ("a variance is negative", {}, {"variances": minus}),
        ("one tensor for each merge", {"levels": []}, {}),
        ("and one more", {"levels": ["level.0", "last", "last"]}, {"last": np.ones((1, 1, 3, 3))}),
        ("too large for the kernel", {"levels": ["level.0"] * 21 + ["last"]}, {"last": np.ones((1, 1, 3, 3))}),
        ("windows share", {"levels": ["level.0", "last"]}, {"last": np.ones((1, 1, 3, 3))}),
        (
            "cut into blocks",
            {"levels": ["alike", "last"]},
            {"leaf": np.ones((1, 2, 3, 2)), "alike": np.ones((2, 1, 3, 3)), "last": np.ones((2, 3, 3, 3))},
        ),
        ("of all regions, or of two alike", {}, {"leaf": tensors["leaf"][:, :1]}),
        ("of all regions, or of two alike", {}, {"leaf": tensors["leaf"][:1, :1]}),
        (
            "the image does not fit y",
            {"image": [1, 3], "levels": ["level.0"]},
            {"leaf": np.ones((1, 2, 3, 2)), "level.0": np.ones((1, 2, 3, 3))},
        ),
    ):
        card = zoo.write(folder, f"tree-bad-{len(out)}", [{**layers[0], **edit}], tensors | changed, (2, 2), 1)
        out.append((f"no tree: {word}", refused(card, 4, word)))
    exact = zoo.write(
        folder, "tree-exact", layers, tensors | {"variances": np.zeros(2)}, (2, 2), 1
    )  # a variance of 0 is allowed
    out.append(("tree of points", values(exact, layers, tensors | {"variances": np.zeros(2)}, 4)))
    return out


def format_cases(entries):
    """Resealed format breaks: rejected for the right reason."""
    table = {name: (data, card) for name, data, card in entries}
    out = []

    def add(of, path, value, word):
        data, card = copy.deepcopy(table[of][0]), table[of][1]
        node = data
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
        out.append((f"{of} {path} {value!r}", verdict(kernel.seal(data), card, False, word)))

    step, many = "step radii", "trajectory mixture"
    one = [(1.0).hex()]
    for key in ("target", "centre"):
        add(step, ("claim", key), one, "list of 2")
    for key in ("radius", "target_radius", "sigma_to", "sigma_from"):
        add(step, ("claim", key), (-1.0).hex(), "at least")
        add(step, ("claim", key), "0x1p0", "hexadecimal")
        add(step, ("claim", key), "nan", "hexadecimal")
    add(step, ("claim", "uniqueness_radius"), (1e-300).hex(), "at least radius")
    add(step, ("claim", "sigma_to"), (5.0).hex(), "sigma_to < sigma_from")
    add(step, ("claim", "condition"), 7, "integer")
    add(step, ("claim", "condition"), -1, "integer")
    add(step, ("claim", "condition"), True, "integer")
    add(step, ("claim", "extra"), 1, "keys")
    add(step, ("proof", "extra"), 1, "keys")
    add(step, ("proof", "form"), "wish", "form must be")
    add(step, ("proof", "preconditioner"), [one], "list of 2 entries")
    add("step monotone", ("proof", "preconditioner"), [[(1.0).hex()] * 2] * 2, "only the radii")
    add(many, ("claim", "levels"), [(0.4).hex(), (0.1).hex(), (0.7).hex()], "increase")
    add(many, ("claim", "levels"), [(0.4).hex()], "list of 2 to")
    add(many, ("claim", "radii"), one, "one entry")
    add(many, ("claim", "unique"), "perhaps", "unique must")
    for kind in ("structure mixture", "bound ball", "guidance limit ball", "expansion", "no solution"):
        add(kind, ("proof", "extra"), 1, "keys")
        add(kind, ("claim", "extra"), 1, "keys")
    add("structure mixture", ("claim", "conditions"), [], "conditions")
    add("structure mixture", ("claim", "conditions"), "0", "conditions")
    add("two solutions", ("claim", "balls"), [], "list of 2 entries")
    add("two solutions", ("claim", "extra"), 1, "keys")
    add("two solutions", ("proof", "extra"), 1, "keys")
    add("two solutions", ("claim", "balls", 0, "extra"), 1, "keys")
    add("trajectory mixture", ("claim", "extra"), 1, "keys")
    add("trajectory mixture", ("proof", "extra"), 1, "keys")
    add("expansion", ("claim", "points"), [one], "list of 2 entries")
    add("no solution", ("claim", "lower"), [(9.0).hex()], "exceed")
    add("no solution", ("claim", "lower"), one * 2, "list of 1 entries")
    add("bound ball", ("claim", "region", "radius"), (-1.0).hex(), "at least")
    add("bound ball", ("claim", "region", "extra"), 1, "keys")
    empty = copy.deepcopy(table["bound ball"])
    empty[0]["claim"].update(contraction=None, modulus=None, lipschitz=None)
    out.append(("no bound", verdict(kernel.seal(empty[0]), empty[1], False, "no bound")))
    for key, value, word in (
        ("format", "x", "format"), ("kind", "x", "kind must be"), ("precision", 63, "integer"), ("precision", 1025, "integer"),
        ("extra", 1, "keys"), ("model", {}, "keys"),
    ):  # fmt: skip
        add(step, (key,), value, word)
    for key, word in (
        ("name", "another name"),
        ("weights_sha256", "other weights"),
        ("program_sha256", "another program"),
    ):
        add(step, ("model", key), "0" * 64, word)
    stale = copy.deepcopy(table[step][0])
    stale["precision"] = 96
    out.append(("stale seal", verdict(stale, table[step][1], False, "seal")))
    good = kernel.seal(stale)
    out.append(("fresh seal", verdict(good, table[step][1], True)))
    return out


def hostile_cases(folder, card):
    """Every hostile model and file, rejected for its reason."""
    import certify_hostile as hostile

    made = {name: {"raw": v} for name, v in hostile.WEIGHTS.items()}
    made |= {name: {"layers": v} for name, v in hostile.LAYERS.items()}
    made |= hostile.CARDS
    out = []
    for i, (name, changes) in enumerate(made.items()):
        data, path = hostile.model(folder / f"hostile{i}", **changes)
        out.append((f"hostile {name}", verdict(data, path, False, hostile.REASONS[name])))
    data, path = hostile.model(folder / "hostile", **{})
    for bad in ("a/b", "", "../m"):
        renamed = copy.deepcopy(data)
        renamed["model"]["name"] = bad
        out.append((f"hostile name {bad!r}", verdict(kernel.seal(renamed), path.parent, False, "is not plain")))

    def file(k, name):
        target = folder / "c.json"
        target.write_bytes(hostile.FILES[name])
        try:
            k.check(target, card)
        except k.CertificateError as error:
            return hostile.REASONS[name] in str(error)
        return False

    out += [(f"hostile file {name}", lambda k, name=name: file(k, name)) for name in hostile.FILES]

    def too_large(k):
        m = k.Model(card)
        try:
            m.tick(k.MAX_WORK + 1)
        except k.CertificateError:
            m.tick(k.MAX_WORK)
            m.deadline = -1.0
            try:
                m.tick()
            except k.CertificateError:
                return True
        return False

    return [*out, ("hostile work", too_large)]


def question_cases(entries):
    """What a bound settles: contraction below 1 only, uniqueness for m > 0 only, existence everywhere only."""
    table = {name: (data, card) for name, data, card in entries}

    def case(contraction, modulus, place, wanted):
        data, card = copy.deepcopy(table["bound ball" if place == "ball" else "bound everywhere gradient"])
        data["claim"].update(contraction=contraction, modulus=modulus, lipschitz=(1e9).hex())
        data = kernel.seal(data)
        return (
            f"questions {contraction} {modulus} {place}",
            lambda k: set(k.check_data(data, card).questions) == wanted,
        )

    def structure_form(k):
        data, card = copy.deepcopy(table["step radii"])
        data["claim"].update(radius=(100.0).hex(), uniqueness_radius=(100.0).hex())
        data["proof"]["form"] = "structure"
        return verdict(kernel.seal(data), card, False, "monotone by construction")(k)

    def too_many_boxes(k):
        data, card = table["no solution 2d"]
        most, k.MAX_BOXES = k.MAX_BOXES, 0
        try:
            return verdict(data, card, False, "with 0 boxes")(k)
        finally:
            k.MAX_BOXES = most

    def a_point(k):
        data, card = copy.deepcopy(table["no solution"])  # without a condition the wells are symmetric: F(0) = 0
        zero = [(0.0).hex()]
        data["claim"].update(condition=1, target=zero, lower=zero, upper=zero)
        return verdict(kernel.seal(data), card, False, "cut further", 250.0)(k)

    big, small = (1e9).hex(), (-1e9).hex()
    bound = table["bound ball"][0]["claim"]
    everywhere = table["bound everywhere gradient"][0]["claim"]
    out = [case(big, small, "ball", {"bound"}), case(big, bound["modulus"], "ball", {"uniqueness"})]
    out.append(case(big, everywhere["modulus"], "everywhere", {"uniqueness", "existence"}))
    if float.fromhex(bound["contraction"]) < 1:
        out.append(case(bound["contraction"], small, "ball", {"uniqueness", "contraction"}))
    out += [("structure form", structure_form), ("a point", a_point), ("too many boxes", too_many_boxes)]
    return out


def refused_cases(folder, entries):
    """Claims that only one line of the kernel refuses."""
    rng = np.random.default_rng(8)
    out, everywhere = [], {"region": "everywhere", "contraction": (1e9).hex(), "modulus": None, "lipschitz": None}

    def add(word, card, kind, claim, proof=None):
        out.append((f"refused: {word}", verdict(zoo.certificate(card, kind, claim, proof or {}), card, False, word)))

    def bound(name, layers, tensors, weights, word):
        card = zoo.write(folder, name, layers, tensors, (2,))
        given = {"contraction": weights, "modulus": None, "lipschitz": None}
        add(word, card, "lipschitz", {**zoo.problem(0, 1.0, 0.5, 1.0), **everywhere}, {"multipliers": given})

    tanh = {"op": "elementwise", "in": "y", "fn": "tanh", "out": "D"}
    inside = {"op": "patches", "out": "D", "in": "y", "image": [1, 1, 2], "patch": [1, 1], "stride": [1, 1]}
    both = [{**zoo.MIXTURE[0], "out": "m"}, {**tanh, "out": "h"}, {"op": "add", "out": "D", "in": ["m", "h"]}]
    one, none, w = [(1.0).hex()] * 2, [(0.0).hex()] * 2, {"w": np.ones(2)}
    bound("pieces", [{**inside, "layers": [tanh]}], w, one, "patches do not take multipliers")
    bound("both", both, zoo.mixture_tensors(rng, 2, 3, 1), one, "the layers do not take multipliers")
    bound("exp", [{**tanh, "fn": "exp"}], w, one, "a multiplier belongs to an unbounded slope")
    bound("tanh", [tanh], w, none, "a function without a multiplier matters")
    bound("few", [tanh], w, one[:1], "2 multipliers >= 0 are needed")
    prior = next(card for name, _, card in entries if name == "structure prior")
    limit = {k: v for k, v in zoo.problem(0, 1.0, 0.5, 1.0).items() if k != "guidance"}
    region = {"centre": one, "radius": (1e-3).hex()}
    add("a guided prior has no", prior, "guidance-limit", {**limit, "region": region, "limit": (2.0).hex()})
    five = zoo.write(folder, "five", [tanh], {"w": np.ones(5)}, (5,))
    far = {"target": [(9.0).hex()] * 5, "lower": [(-0.1).hex()] * 5, "upper": [(0.1).hex()] * 5}
    add("at most 4 dimensions", five, "no-solution", {**zoo.problem(0, 1.0, 0.5, 1.0), **far})
    return out


def contained_cases(cards):
    """The fast arithmetic's enclosures contain Arb's, and are hardly wider."""

    def make(card, classes, radius, guidance):
        def case(k):
            with ctx.workprec(128):
                values = []
                for fast in (True, False):
                    step = k.Step(k.Model(card, fast=fast), 0, guidance, 0.3, 0.8)
                    values.append(step.denoise([arb(0.3), arb(-0.4)], arb(radius)))
                close = bool(values[0].e <= 1.001 * values[1].e + 1e-9)
            return certify_fast.outside(*values) == "" and close

        return case

    return [
        (f"contained {name} {radius} {guidance}", make(card, classes, radius, guidance))
        for name, (card, _, _, classes) in cards.items()
        for radius in (0.0, 1e-9, 1e-2)
        for guidance in ((1.0, 3.0) if classes else (1.0,))
    ]


PAIRED = zoo.patch_layers((1, 1, 2), (1, 1))


def other_arithmetic_case(data, card):
    """A model that was loaded for the fast arithmetic is not taken for Arb."""

    def case(k):
        try:
            k.check_data(data, k.Model(card, fast=True))
        except k.CertificateError as error:
            return "another arithmetic" in str(error)
        return False

    return case


def squared_case(card, tensors):
    """In the fast arithmetic a layer that Arb would not take is squared eight times: the bound of its norm is nearly exact."""

    def case(k):
        rooms = [m for m in k.modules if hasattr(m, "MAX_WORK")]
        most = rooms[0].MAX_WORK
        try:
            for room in rooms:
                room.MAX_WORK = 4
            model = k.Model(card, fast=True)
            layer = next(v for v in model.layers if v["op"] == "affine" and min(tensors[v["weight"]].shape) > 1)
            found = float(k.Run(model, arb(0.5), 0, arb(1), None).weight(layer)[1])
        finally:
            for room in rooms:
                room.MAX_WORK = most
        true = np.linalg.norm(np.asarray(tensors[layer["weight"]], np.float64), 2)
        return true <= found <= 1.02 * true

    return case


def suite(folder, entries):
    """All cases, cheapest first."""
    import certify_gallery as gallery

    rng = np.random.default_rng(21)
    soft = zoo.gradient_layers(softmax=True)
    parts = {
        "mix": (zoo.MIXTURE, zoo.mixture_tensors(rng, 2, 3, 1, 1), 1),
        "grad": (zoo.gradient_layers(), zoo.gradient_tensors(rng, 2, 4, 1), 1),
        "relu": (zoo.gradient_layers("relu2"), zoo.gradient_tensors(rng, 2, 4, 0), 0),
        "convex": (zoo.convex_layers(), zoo.convex_tensors(rng, 2, 3, 1), 1),
        "prior": (zoo.guided_prior(), zoo.mixture_tensors(rng, 2, 3, 1, 1), 1),
        "patches": (PAIRED, {**zoo.mixture_tensors(rng, 1, 3, 1), "share": zoo.f32([0.5])}, 0),
        "reflected": (zoo.reflected_layers((1, 1, 2), (1, 2)), zoo.patch_tensors(rng, 2, 2), 0),
        "soft": (soft, zoo.gradient_tensors(rng, 2, 4, 0, softmax=True), 0),
        "plain": (zoo.plain_layers(1), zoo.plain_tensors(rng, 2, 5, 1, 1, 1.0), 1),
        "tree": ([{**zoo.tree_layers((2, 1))[0], "guidance": "prior"}], zoo.tree_tensors(rng, (2, 1), classes=1), 1),
    }
    cards = {n: (zoo.write(folder, f"mutant-{n}", t[0], t[1], (2,), t[2]), *t) for n, t in parts.items()}
    cases = helper_cases() + certify_fast.cases() + contained_cases(cards)
    cases += [("other arithmetic", other_arithmetic_case(entries[0][1], entries[0][2]))]
    cases += [("squared", squared_case(cards["plain"][0], cards["plain"][2]))]
    cases += hostile_cases(folder, entries[0][2]) + tree_cases(folder)
    cases += [(f"valid {name}", verdict(data, card, True)) for name, data, card in entries]
    cases += [(f"false {name}", verdict(data, card, False)) for name, data, card in gallery.false(entries)]
    cases += format_cases(entries) + refused_cases(folder, entries)
    return cases + enclosure_cases(cards) + question_cases(entries)


def main() -> None:
    """Tries every ``stride``-th mutant (of some files); prints what a right kernel fails, how many there are, who survives."""
    import certify_gallery as gallery

    stride, folder, files = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] or FILES
    cases = suite(folder, gallery.valid(gallery.models(folder)))
    every = [
        (file, *site)
        for file, text in SOURCES.items()
        if file in files
        for site in sorted(sites(ast.parse(text), file), key=lambda s: s[0])
    ]
    tried = every[::stride]
    alive = [f"{f}.py, line {n}: {label}" for f, i, n, label, how in tried if killed_apart(f, i, how, cases) is None]
    print(json.dumps({"right": killed(right(), cases), "all": len(every), "tried": len(tried), "survivors": alive}))


if __name__ == "__main__":
    main()
