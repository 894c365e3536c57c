"""Mutation testing: every small change to a file of the numerics should fail a test.

    python benchmarks/mutation.py step process auditing solve    # tests what results.json does not hold yet
    python benchmarks/mutation.py process --survivors            # the survivors once more, after new tests
    python benchmarks/mutation.py --write                        # docs/mutation.md from the results

One mutant is one change of one expression or statement (:func:`changes`). JAX is imported once and a process is forked for
each mutant before any backend is started; the mutated source then takes the module's place when it is imported, so every
other file sees it too. The tests of the module run with ``-x``, quickest first; a process that takes four times the CPU time
of the unchanged code, and 5 s, is killed and counts as caught. Survivors that change nothing anyone can see are explained in
EQUIVALENT, one by one; they still count as survivors in the score.
"""

import argparse
import ast
import copy
import importlib.abc
import importlib.util
import json
import math
import os
import resource
import signal
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = {
    "step": ["tests/test_step.py"],
    "process": ["tests/test_process_values.py", "tests/test_process.py"],
    "auditing": ["tests/test_auditing_values.py", "tests/test_auditing.py::test_float32_audits_say_so"],
    "solve": ["tests/test_solve_rules.py", "tests/test_solve_methods.py"],
}
SEPARATOR = "  //  "
PAGE = ROOT / "docs" / "mutation.md"
REASONS = ROOT / "benchmarks" / "mutation_equivalent.json"

COMPARISONS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {
    "maximum": "minimum",
    "minimum": "maximum",
    "max": "min",
    "min": "max",
    "argmax": "argmin",
    "argmin": "argmax",
    "zeros_like": "ones_like",
    "ones_like": "zeros_like",
    "all": "any",
    "any": "all",
    "sin": "cos",
    "cos": "sin",
}


def changes(node: ast.AST, inside_raise: bool):
    """The replacements of one node: comparisons, operators, negations, constants, twin functions, removed statements."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            for new in COMPARISONS.get(type(op), ()):
                yield _with(node, ops=[*node.ops[:i], new(), *node.ops[i + 1 :]])
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        yield _with(node, op=OPERATORS[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, (ast.IfExp, ast.If)) and not isinstance(node.test, ast.Compare):  # those are negated above
        yield _with(node, test=ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Constant):
        yield from _constants(node, inside_raise)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield _with(node, attr=NAMES[node.attr])
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield _with(node, id=NAMES[node.id])
    elif isinstance(node, ast.Call) and node.keywords and not inside_raise:
        for i, keyword in enumerate(node.keywords):
            if keyword.arg:
                yield _with(node, keywords=node.keywords[:i] + node.keywords[i + 1 :])
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield _with(node, value=ast.Constant(None))
    elif isinstance(node, (ast.Raise, ast.Expr)) and not isinstance(getattr(node, "value", None), ast.Constant):
        yield ast.Pass()


def _constants(node, inside_raise):
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node.value, float):
        yield ast.Constant(node.value + 1.0)
        yield ast.Constant(node.value * 1.5 if node.value else -1.0)
    elif isinstance(node.value, str) and not inside_raise:
        yield ast.Constant(f"X{node.value}")


def _is_none(node) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _with(node, **fields):
    new = copy.copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def mutants(source: str):
    """(key, line, mutated tree) of every mutant; the key names function, line of text and change, not its position."""
    tree = ast.parse(source)
    lines = source.splitlines()
    seen: Counter = Counter()

    def walk(parent, where, in_raise):
        for field, value in ast.iter_fields(parent):
            if field in ("decorator_list", "annotation", "returns"):
                continue  # how a function is compiled or described, not what it computes
            for i, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(node, ast.AST) or _docstring(parent, field, i, node) or _excluded(node):
                    continue
                named = getattr(node, "name", None) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else None
                place = f"{where}.{named}".lstrip(".") if named else where
                raising = in_raise or isinstance(node, (ast.Raise, ast.JoinedStr))
                if hasattr(node, "lineno"):
                    for new in changes(node, in_raise or isinstance(node, ast.JoinedStr)):
                        text = SEPARATOR.join(
                            (place, lines[node.lineno - 1].strip(), f"{_short(node)} -> {_short(new)}")
                        )
                        seen[text] += 1
                        _put(parent, field, i, new)
                        yield f"{text}{SEPARATOR}{seen[text]}", node.lineno, copy.deepcopy(tree)
                        _put(parent, field, i, node)
                yield from walk(node, place, raising)

    yield from walk(tree, "", False)


def _put(parent, field, i, node):
    if i is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[i] = node


def _docstring(parent, field, i, node) -> bool:
    return field == "body" and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _excluded(node) -> bool:
    """Imports, and what is only for type checkers."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
        return True
    return isinstance(node, (ast.Import, ast.ImportFrom))


def _short(node) -> str:
    node = ast.fix_missing_locations(copy.deepcopy(node))
    if isinstance(node, ast.If):
        return f"if {ast.unparse(node.test)}"
    return " ".join(ast.unparse(node).split())


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives the import system the mutated tree in place of the file."""

    def __init__(self, name: str, path: Path, tree):
        self.name, self.path, self.tree = name, path, tree

    def find_spec(self, fullname, path=None, target=None):
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(compile(ast.fix_missing_locations(self.tree), str(self.path), "exec"), module.__dict__)


def outcome(module: str, tree, limit: float, log: Path) -> tuple[str, float]:
    """killed, timeout or survived, and CPU seconds, of the module's tests in a fork with the mutated tree in place."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), math.ceil(limit) + 5))
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            sys.meta_path.insert(0, _Mutated(f"fpjax.{module}", ROOT / "fpjax" / f"{module}.py", tree))
            import pytest

            # Rewriting asserts would put pytest's own loader of fpjax, which has a pytest plugin, before ours.
            options = ["--assert=plain", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:timeout"]
            code = int(pytest.main([*options, "-o", "addopts=", "-o", "timeout=0", *TESTS[module]]))
        except BaseException:
            code = 1
        finally:
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    code = os.waitstatus_to_exitcode(status)
    if code in (-signal.SIGXCPU, -signal.SIGKILL):
        return "timeout", seconds
    return ("survived" if code == 0 else "killed"), seconds


def prepare() -> None:
    """What every fork shares: JAX without a backend, and a cache for what it compiles."""
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    os.environ["HYPOTHESIS_PROFILE"] = "mutation"  # nobody reads the smallest example of a mutant
    import warnings

    import hypothesis
    import jax
    import pytest  # noqa: F401

    hypothesis.settings  # noqa: B018
    jax.config.update("jax_compilation_cache_dir", str(ROOT / "build" / "mutation-cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    warnings.filterwarnings("ignore", message=".*fork.*")


def run(module: str, results: Path, survivors: bool, every: int) -> None:
    """Tests the mutants of one module that ``results`` does not hold, and writes it after each."""
    source = (ROOT / "fpjax" / f"{module}.py").read_text()
    everything = list(mutants(source))
    known = json.loads(results.read_text()) if results.exists() else {}
    mine = {key: v for key, v in known.get(module, {}).items() if key in {k for k, _, _ in everything}}
    log = results.with_suffix(f".{module}.log")
    state, _ = outcome(module, ast.parse(source), 600, log)  # fills the cache
    state, baseline = outcome(module, ast.parse(source), 600, log)
    if state != "survived":
        raise SystemExit(f"the tests of {module} fail on the unchanged code: see {log}")
    if outcome(module, ast.parse("raise ImportError"), 600, log)[0] == "survived":
        raise SystemExit(f"the tests of {module} do not see the changed code: see {log}")
    todo = [m for m in everything if m[0] not in mine or (survivors and mine[m[0]]["state"] == "survived")]
    print(f"{module}: {len(everything)} mutants, {len(todo)} to do, {baseline:.1f} s of CPU time unchanged", flush=True)
    for n, (key, line, tree) in enumerate(todo):
        if n % every:
            continue
        state, seconds = outcome(module, tree, 4 * baseline + 5, log)
        mine[key] = {"state": state, "line": line, "seconds": round(seconds, 2)}
        if state == "survived":
            print(f"  {line}: {key}", flush=True)
        known = json.loads(results.read_text()) if results.exists() else {}
        results.write_text(json.dumps(known | {module: mine}, indent=0))
    results.write_text(json.dumps(known | {module: mine}, indent=0))
    print(summary(module, mine), flush=True)


def summary(module: str, mine: dict) -> str:
    """One line for a module."""
    count = Counter(v["state"] for v in mine.values())
    caught = count["killed"] + count["timeout"]
    return f"{module}: {caught} of {len(mine)} caught ({100 * caught / max(len(mine), 1):.1f} %), {count['timeout']} by time"


def write(results: Path) -> int:
    """docs/mutation.md from the results; returns how many survivors have no reason."""
    known = json.loads(results.read_text())
    reasons = json.loads(REASONS.read_text())
    unexplained = 0
    text = [
        "# Mutation testing",
        "",
        "Written by `python benchmarks/mutation.py --write`. One mutant is one change of one expression or statement of a",
        "file; it is caught when a test fails, or when the tests take four times the CPU time of the unchanged code, and 5 s.",
        "Survivors count against the score also where they change nothing that can be seen; each has its reason. The",
        "certificate kernel is mutated by its own test, `FPJAX_FULL=1 python -m pytest -s tests/certify/test_mutants.py`.",
        "",
        "| file | mutants | tested | caught | of these by time | survived | score of those tested |",
        "|---|---|---|---|---|---|---|",
    ]
    for module, mine in known.items():
        count = Counter(v["state"] for v in mine.values())
        caught = count["killed"] + count["timeout"]
        total = sum(1 for _ in mutants((ROOT / "fpjax" / f"{module}.py").read_text()))
        cells = (f"{module}.py", total, len(mine), caught, count["timeout"], count["survived"])
        text.append(f"| {' | '.join(map(str, cells))} | {100 * caught / len(mine):.1f} % |")
    for module, mine in known.items():
        left = {k: v for k, v in mine.items() if v["state"] == "survived"}
        text += ["", f"## Survivors of {module}.py", ""]
        text += ["None."] if not left else ["| line | function | change | why it survives |", "|---|---|---|---|"]
        for key, value in sorted(left.items(), key=lambda kv: kv[1]["line"]):
            place, _, change, _ = key.split(SEPARATOR)
            reason = reasons.get(module, {}).get(key, "")
            unexplained += not reason
            change = change.replace("|", "\\|")
            text.append(f"| {value['line']} | {place or 'module'} | `{change}` | {reason or '**not explained**'} |")
    PAGE.write_text("\n".join(text) + "\n")
    return unexplained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", choices=[*TESTS, []])
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "mutation.json")
    parser.add_argument("--survivors", action="store_true", help="run the survivors once more")
    parser.add_argument("--every", type=int, default=1, help="only every n-th mutant that is left")
    parser.add_argument("--write", action="store_true", help="write docs/mutation.md")
    options = parser.parse_args()
    options.results.parent.mkdir(exist_ok=True)
    if options.modules:
        prepare()
    for module in options.modules:
        run(module, options.results, options.survivors, options.every)
    if options.write:
        sys.exit(f"{n} survivors have no reason in {REASONS.name}" if (n := write(options.results)) else 0)


if __name__ == "__main__":
    main()
