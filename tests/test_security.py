"""Nothing that is read can run: no pickle, no eval, no code from models; fuzzed readers; bounded headers."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest
import report_audits

import fpjax
from fpjax.certify import reading
from fpjax.evidence import FpjaxError
from fpjax.models import store

ROOT = Path(fpjax.__file__).parent
sys.path.insert(0, str(ROOT.parent / "benchmarks"))
import fuzz  # noqa: E402

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "code", "codeop", "imp"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
FORBIDDEN_METHODS = {("torch", "load"), ("os", "system"), ("os", "popen"), ("yaml", "load"), ("tarfile", "open")}
SOURCES = sorted(ROOT.rglob("*.py"))


def offences(tree: ast.AST) -> list[str]:
    """What a file does that could run what it reads."""
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        found += [f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN_MODULES]
        if isinstance(node, ast.Call):
            f = node.func
            if isinstance(f, ast.Name) and f.id in FORBIDDEN_CALLS:
                found.append(f"calls {f.id}")
            if (
                isinstance(f, ast.Attribute)
                and isinstance(f.value, ast.Name)
                and (f.value.id, f.attr) in FORBIDDEN_METHODS
            ):
                found.append(f"calls {f.value.id}.{f.attr}")
            for word in node.keywords:
                true = isinstance(word.value, ast.Constant) and word.value.value is True
                if word.arg in ("allow_pickle", "trust_remote_code", "shell") and true:
                    found.append(f"says {word.arg}=True")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_that_is_read_is_run(path):
    assert not offences(ast.parse(path.read_text()))


def test_the_search_finds_what_it_forbids():
    text = (
        "import pickle\nfrom dill import loads\neval('1')\nexec('')\nos.system('x')\ntorch.load(f)\n"
        "np.load(f, allow_pickle=True)\nsubprocess.run('x', shell=True)\nload(m, trust_remote_code=True)\n"
    )
    assert len(offences(ast.parse(text))) == 9


def test_templates_escape_what_they_show():
    """Every environment of jinja2 escapes, and no template says that something is safe without a reason beside it."""
    made = [p for p in SOURCES if "jinja2" in p.read_text()]
    assert made
    for path in made:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in (
                "Environment",
                "Template",
            ):
                assert any(w.arg == "autoescape" for w in node.keywords), path.name


def test_a_report_escapes_a_hostile_name(tmp_path):
    hostile = "<script>alert(1)</script>"
    report = report_audits.audit(steps=2, guidance=(1.0,), histories=())
    report.model = hostile
    page = report.save(tmp_path).read_text()
    assert hostile not in page
    assert "&lt;script&gt;alert" in page


@pytest.mark.parametrize(
    "weights", ["../secret.safetensors", "/etc/passwd", "a/../../b.safetensors", "..\\x.safetensors"]
)
def test_a_card_cannot_point_out_of_its_folder(weights, tmp_path):
    card = json.loads(store.card_path("digits-plain").read_bytes())
    path = tmp_path / "digits-plain.json"
    path.write_text(json.dumps({**card, "weights": weights}))
    with pytest.raises(FpjaxError, match=r"must be digits-plain\.safetensors beside it"):
        store.load(path)
    with pytest.raises(reading.CertificateError):
        reading.Model(path)


@pytest.mark.parametrize("size", [2**63, 2**40, 10**9, 101_000_000])
def test_a_safetensors_header_is_bounded(size):
    """What the file claims of its header is compared with what there is, before any of it is read."""
    raw = size.to_bytes(8, "little") + b'{"a":1}'
    with pytest.raises(reading.CertificateError, match="header does not fit"):
        reading.read_tensors(raw)
    from safetensors import SafetensorError
    from safetensors.numpy import load

    with pytest.raises(SafetensorError):
        load(raw)


@pytest.mark.parametrize("name", fuzz.SHARES)
def test_damaged_files_are_a_value_or_one_sentence(name):
    """The first inputs of benchmarks/fuzz.py, which counts a million."""
    found = fuzz.fuzz(name, 250, 0, None)
    assert found["inputs"] == 250
    assert not found["crashes"]
    assert found["accepted"] < 150  # the mutations do damage


def test_the_fuzzer_sees_a_reader_that_crashes(monkeypatch):
    def crashes(raw):
        raise KeyError("x")

    monkeypatch.setattr(fuzz, "reader", lambda name, folder: (crashes, [b"abc"], (FpjaxError,)))
    assert len(fuzz.fuzz("study", 5, 0, None)["crashes"]) == 5


def test_an_audit_that_looked_nothing_up_does_not_say_safe():
    import importlib.util

    where = importlib.util.spec_from_file_location("audit", ROOT.parent / ".ci" / "audit.py")
    assert where is not None
    audit = importlib.util.module_from_spec(where)
    where.loader.exec_module(audit)  # pyright: ignore
    clean = {"name": "a", "version": "1", "vulns": []}
    skipped = {"name": "b", "skip_reason": "not found"}
    bad = {"name": "c", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": []}]}
    assert audit.judged({"dependencies": [clean]}) == (["1 packages looked up, 0 vulnerabilities"], 0)
    told, code = audit.judged({"dependencies": [clean, skipped]})
    assert code == 0
    assert "NOT LOOKED UP" in told[-1]
    told, code = audit.judged({"dependencies": [bad]})
    assert code == 1
    assert "PYSEC-1" in told[0]


def test_docs_say_how_a_cluster_is_closed_to_others():
    page = (ROOT.parent / "docs" / "studies.md").read_text()
    assert re.search(r"--tls-ca-file.*--tls-cert.*--tls-key", page, re.DOTALL)
