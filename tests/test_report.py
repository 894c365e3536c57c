"""What is made from an audit: nothing is lost or becomes markup, and two audits compare; the browser's part is tests/browser."""

import copy
import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import report_audits
from hypothesis import given
from hypothesis import strategies as st

import fpjax
from fpjax import curves, process, report
from fpjax.jacobian import Extremes
from fpjax.models import exact
from fpjax.report import columns, comparing, figures, pictures, text, words
from fpjax.report.page import render


@pytest.fixture(scope="module")
def rep():
    return report_audits.audit(steps=4, guidance=(1.0, 7.5), histories=("picard", "relaxed"))


@pytest.fixture(scope="module")
def data(rep):
    return rep.to_json()


# --- what the audit keeps for plots --------------------------------------------------------------------------------


@pytest.mark.long
def test_a_history_is_plain_iteration_step_by_step():
    """For J = a·I (a Gaussian of variance v: a = v/(v + sigma²)) the residual of plain iteration falls by (1 - rho)·(1 - a)."""
    den = exact.gaussian(np.zeros(2), 0.25 * np.eye(2))
    grid = process.from_sigmas([0.5, 1.0, 2.0])
    rep = fpjax.audit(den, grid, images=np.asarray([[1.0, 0.0]]), histories=("picard",))
    (kept,) = rep.curves
    assert kept["histories"]["steps"] == [1, 2]
    for k, (sigma, rho) in enumerate(zip(grid.sigmas[1:], grid.rho, strict=True)):
        a = 0.25 / (0.25 + sigma**2)
        assert kept["lambda_min"][k] == pytest.approx(a, rel=1e-5)
        assert kept["lambda_max"][k] == pytest.approx(a, rel=1e-5)
        assert (kept["window_low"][k], kept["window_high"][k]) == pytest.approx(
            (-rho / (1 - rho), (2 - rho) / (1 - rho)), rel=1e-5
        )
        line = np.asarray(kept["histories"]["residuals"]["picard"][k][:6])
        assert line[1:] / line[:-1] == pytest.approx(np.full(5, (1 - rho) * (1 - a)), rel=2e-2)
        assert kept["histories"]["residuals"]["picard"][k][-1] <= kept["histories"]["tol"]


def test_the_window_of_t3_is_where_kappa_is_below_1():
    rho = np.asarray([0.1, 0.5, 0.9])
    low, high = curves.window(rho)
    for edge in (low, high):
        assert (1 - rho) * np.abs(1 - edge) == pytest.approx(np.ones(3))


def test_many_steps_keep_some_histories():
    assert curves.shown(5) == [0, 1, 2, 3, 4]
    shown = curves.shown(1000)
    assert (shown[0], shown[-1]) == (0, 999)
    assert len(shown) <= curves.SHOWN
    assert shown == sorted(set(shown))


def test_edges_are_the_outermost():
    def extremes(low, high):
        zero = np.zeros(2)
        return Extremes(np.asarray(low), np.asarray(high), zero, zero, zero, zero, zero)

    class Measured:
        symmetric = extremes([0.1, -0.2], [1.0, 3.0])

    assert curves.edges(Measured) == (-0.2, 3.0)


def test_an_audit_without_curves_is_still_read_and_drawn(rep, tmp_path):
    old = rep.to_json()
    for key in ("curves", "command", "certificates"):
        old.pop(key)
    (tmp_path / "audit.json").write_text(json.dumps(old))
    assert report.read(tmp_path) == old
    assert "verdicts.svg" in figures.figures(old)
    assert "spectrum.svg" not in figures.figures(old)


# --- words ----------------------------------------------------------------------------------------------------------


def made(verdicts: dict[str, str], limits=(1.85,)) -> dict:
    """An audit whose questions have one letter a step."""
    names = {"C": "CERTIFIED", "S": "SUPPORTED", "I": "INCONCLUSIVE", "R": "REFUTED"}
    rows = [
        {"guidance": 1.0, "step": k + 1, "question": q, "verdict": names[v], "value": 1.0}
        for q, line in verdicts.items()
        for k, v in enumerate(line)
    ]
    rows += [
        {"guidance": 1.0, "step": k + 1, "question": "guidance-limit", "verdict": "SUPPORTED", "value": v}
        for k, v in enumerate(limits)
    ]
    n = len(next(iter(verdicts.values())))
    return {
        "guidance": [1.0],
        "process": {"steps": n},
        "rows": rows,
        "settings": {"picard_limit": 200},
        "round_trip": [],
    }


def test_the_headline_says_where():
    posed = {"existence": "CCCCC", "uniqueness": "CCCCC"}
    assert words.headline(made(posed | {"contraction": "RRRSS"}, [1.8567, 9.0])) == (
        "At guidance 1: well posed at every step (proved); contraction fails at steps 1–3; safe guidance 1.856."
    )
    assert "well posed at every step (as far as was looked); no sign against contraction" in words.headline(
        made({"existence": "SSSSS", "uniqueness": "CSSSS", "contraction": "SSSSS"})
    )
    lost = words.headline(made({"existence": "SSSSI", "uniqueness": "RISSS", "contraction": "IIIII"}, [None, 2.0]))
    assert "existence is open at step 5; uniqueness fails at step 1; uniqueness is open at step 2" in lost
    assert "contraction is open at every step" in lost
    assert "well posed" not in lost
    assert "safe guidance" not in lost  # one step has none
    many = words.headline(made({"existence": "SISISISISISI", "uniqueness": "S" * 12, "contraction": "S" * 12}))
    assert "existence is open at 6 of 12 steps" in many


def test_safe_guidance_is_rounded_down():
    data = made({"contraction": "S"}, [1.99999])
    assert words.safe_guidance(data, 1.0) == "1.999"
    assert words.safe_guidance(made({"contraction": "S"}, [12345.6]), 1.0) == "1.234e+04"


# --- nothing is lost, nothing becomes markup --------------------------------------------------------------------------


def test_columns_lose_no_row(data):
    packed = columns.pack(data)
    cells = [(w, s, q) for w in data["guidance"] for s in packed["steps"] for q in packed["questions"]]
    rows = {(r["guidance"], r["step"], r["question"]): r for r in data["rows"]}
    assert len(cells) == len(rows) == len(packed["verdict"])
    for i, cell in enumerate(cells):
        row = rows[cell]
        assert (packed["verdict"][i], packed["evidence"][i]) == (row["verdict"][0], row["evidence"][0])
        assert packed["theorems"][packed["theorem"][i]] == row["theorem"]
        assert columns.detail(packed, i) == row["detail"]
        assert packed["value"][i] == (None if row["value"] is None else pytest.approx(row["value"], rel=1e-5))
        assert (i in packed["witnesses"]) == bool(row["witness"])


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_any_detail_comes_back(details):
    base = {"guidance": 1.0, "sigma_from": 1.0, "sigma_to": 0.5, "rho": 0.5, "question": "error", "theorem": "T8"}
    base |= {"verdict": "SUPPORTED", "value": 0.1, "evidence": "SAMPLED", "witness": None}
    rows = [base | {"step": k + 1, "detail": d} for k, d in enumerate(details)]
    packed = columns.pack({"guidance": [1.0], "process": {"steps": len(rows)}, "rows": rows})
    assert [columns.detail(packed, k) for k in range(len(rows))] == details


def test_witnesses_beyond_the_room_keep_their_numbers_but_not_their_vectors(data, monkeypatch):
    monkeypatch.setattr(columns, "ROOM", 0)
    kept = [w for w in columns.pack(data)["witnesses"].values() if "a" in w]
    assert kept
    assert all(w["a"] == {"length": 16} for w in kept)


def test_60000_rows_stay_small(rep):
    big = report_audits.enlarged(rep)
    assert len(big.table) == 60_000
    assert len(render(big).encode()) < 10_000_000


def test_names_and_captions_stay_text(rep, data, tmp_path):
    page = rep.save(tmp_path).read_text()
    head = page[: page.index('<script type="application/json"')]
    payload = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    assert "<img src=x" not in page
    assert "&lt;img src=x" in head
    assert "<" not in payload
    assert json.loads(payload)["audits"][0]["model"] == report_audits.EVIL
    assert not re.search(r'(?:src|href)="(?:https?:|//)|@import|url\(', page)
    shown = (tmp_path / "report.md").read_text()
    assert "<img" not in shown
    assert shown.splitlines()[0] == r"# Audit of &lt;img src=x onerror=alert\(1\)&gt;"


def test_markdown_and_latex_escape_what_they_must():
    assert text.md("a|b `c` [d](e)\n# f <g>") == r"a\|b \`c\` \[d\]\(e\) \# f &lt;g&gt;"
    assert text.tex("50% & $x_1$ #{~^\\} <a>\n") == (
        r"50\% \& \$x\_1\$ \#\{\textasciitilde{}\textasciicircum{}\textbackslash{}\} \textless{}a\textgreater{}"
    )
    assert text._fenced("a ``` b").startswith("````sh\n")


def test_the_latex_table_is_whole(data):
    table = text.latex(data)
    assert table.count(r"\begin{") == table.count(r"\end{") == 2
    body = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len(body) == 1 + 6 * 2
    assert all(len(re.findall(r"(?<!\\)&", line)) == 2 for line in body)
    braces = re.sub(r"\\[{}]", "", table)
    assert braces.count("{") == braces.count("}")
    assert r"\textless{}img src=x" in table


def test_figures_are_whole_and_say_the_model_as_text(data):
    made = figures.figures(data)
    assert {"verdicts.svg", "contraction.png", "spectrum.svg", "histories.svg"} <= set(made)
    for name, content in made.items():
        if name.endswith(".svg"):
            root = ET.fromstring(content)
            words_in = "".join(root.itertext())
            assert report_audits.EVIL in words_in, name
            assert not [e for e in root.iter() if e.tag.endswith("}img")]
        else:
            assert content.startswith(b"\x89PNG")
    assert figures.figures(data)["verdicts.svg"] == made["verdicts.svg"]


def test_a_dollar_in_a_name_is_no_mathematics(data):
    odd = copy.deepcopy(data) | {"model": r"cost $\frac{1$ and $$"}
    assert r"cost $\frac{1$ and $$" in "".join(ET.fromstring(figures.figures(odd)["verdicts.svg"]).itertext())


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1), (1, 8, 8), (8, 8, 3), (3, 8, 8)])
def test_images_of_every_layout(shape):
    assert pictures.uri(np.zeros(shape)).startswith("data:image/png;base64,")


def test_large_images_become_small_and_points_are_no_images():
    assert len(pictures.uri(np.random.default_rng(0).uniform(-1, 1, (3, 512, 512)))) < 20_000
    assert pictures.uri(np.zeros(2)) is None
    assert pictures.uri(np.full((4, 4), np.nan)) is not None


def test_the_gallery_shows_five_pictures_with_their_captions(rep):
    groups = pictures.gallery(rep)
    assert [g["guidance"] for g in groups] == [1.0, 7.5]
    card = groups[0]["cards"][0]
    assert [p["title"] for p in card["pictures"]] == ["source", "latent", "round trip", "difference", "edit"]
    assert card["pictures"][0]["note"] == report_audits.CAPTIONS[0]
    assert card["pictures"][4]["note"] == report_audits.CAPTIONS[1]


def test_the_edit_is_the_latent_under_the_other_condition(rep):
    den, arrays = report_audits.hostile(), rep.images[1]
    again = fpjax.generate(den, arrays["latent"], process.ddim(4), condition=[1, 0, 1], guidance=7.5)
    assert arrays["edit"] == pytest.approx(np.asarray(again), rel=1e-9)


# --- commands -------------------------------------------------------------------------------------------------------


def test_compare_says_where_verdicts_differ(call, rep, data, tmp_path):
    rep.save(tmp_path / "a")
    other = copy.deepcopy(data)
    changed = next(
        r for r in other["rows"] if r["question"] == "contraction" and r["step"] == 2 and r["guidance"] == 1.0
    )
    changed["verdict"] = "INCONCLUSIVE"
    other["guidance"].append(9.0)
    (tmp_path / "b.json").write_text(json.dumps(other))
    result = call("compare", "a", "b.json")
    assert result.exit_code == 0, result.output
    assert "only B audited guidance 9" in result.stdout
    assert (tmp_path / "fpjax-compare.html").exists()
    lines = {line.question: line.changed for line in comparing.differences(data, other)[1.0]}
    assert lines == dict.fromkeys(words.questions(data), "nowhere") | {"contraction": "at step 2"}


BAD = {
    "missing": lambda t, d: t / "none.json",
    "empty folder": lambda t, d: t,
    "no JSON": lambda t, d: written(t, "{"),
    "no audit": lambda t, d: written(t, "[1, 2]"),
    "another version": lambda t, d: written(t, json.dumps(d | {"format": "fpjax-audit/9"})),
    "another file": lambda t, d: written(t, json.dumps({"format": "fpjax-certificate/1"})),
    "a wrong verdict": lambda t, d: written(t, json.dumps(d | {"rows": [d["rows"][0] | {"verdict": "PROBABLY"}]})),
    "no rows": lambda t, d: written(t, json.dumps({k: v for k, v in d.items() if k != "rows"})),
    "bytes": lambda t, d: written(t, b"\xff\xfe\x00"),
    "deep": lambda t, d: written(t, "[" * 100_000),
}


def written(folder, content):
    path = folder / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("command", ["compare", "export"])
@pytest.mark.parametrize("kind", sorted(BAD))
def test_a_bad_audit_is_one_sentence(call, rep, data, tmp_path, kind, command):
    rep.save(tmp_path / "good")
    bad = BAD[kind](tmp_path, data)
    result = call("compare", tmp_path / "good", bad) if command == "compare" else call("export", bad)
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("fpjax: ")
    assert not result.stdout
    assert not (tmp_path / "fpjax-compare.html").exists()
    assert not (tmp_path / "fpjax-figures").exists()


def test_export_writes_figures_table_and_markdown(call, rep, tmp_path):
    rep.save(tmp_path / "a")
    result = call("export", "a", "--out", "paper")
    assert result.exit_code == 0, result.output
    names = {p.name for p in (tmp_path / "paper").iterdir()}
    assert {"table.tex", "report.md", "verdicts.svg", "verdicts.png"} <= names
    assert (tmp_path / "paper" / "report.md").read_text() == (tmp_path / "a" / "report.md").read_text()
