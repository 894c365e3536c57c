"""The report in a real browser: it opens alone and fast, answers the pointer and the keyboard, and shows every word as text."""

import json
import re
from pathlib import Path

import pytest
import report_audits
from conftest import WIDTHS
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from fpjax.report import read
from fpjax.report.page import render_pair

DEFAULT = Path(__file__).parents[2] / "fpjax-report"  # of `fpjax audit`, which make test-browser runs first


@pytest.fixture(scope="module")
def audited():
    return report_audits.audit()


@pytest.fixture(scope="module")
def small(audited, tmp_path_factory):
    """A real audit of a cheap model with hostile names, as a page."""
    return audited.save(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def pair(small, tmp_path_factory):
    """Two audits side by side: the one above, and one with fewer steps and other weights."""
    a = read(small.parent)
    other = report_audits.audit(steps=5, guidance=(1.0, 7.5), histories=())
    path = tmp_path_factory.mktemp("pair") / "pair.html"
    path.write_text(render_pair(a, other.to_json(), ("first <b>", 'second "')))
    return path


@pytest.fixture(scope="module")
def pages(small, pair):
    assert (DEFAULT / "report.html").exists(), "there is no report of the default run: run make test-browser"
    return {"default": DEFAULT / "report.html", "hostile": small, "pair": pair}


NAMES = ("default", "hostile", "pair")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_it_opens_alone_and_fits_every_width(page, pages, name, theme):
    for width in WIDTHS:
        page.open(pages[name], width=width, height=min(width * 2, 1200), theme=theme)
        page.wait("return window.page && document.querySelectorAll('.chart svg').length > 0")
        assert page.overflow() == [], width
        page.screenshot(f"{name}-{width}-{theme}", full=True)
        assert page.console() == []
        assert page.requests() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", NAMES)
def test_axe_finds_nothing_serious(page, pages, name, width, theme):
    page.open(pages[name], width=width, theme=theme)
    assert page.axe() == []


def test_the_default_run_is_small():
    assert (DEFAULT / "report.html").stat().st_size < 3_000_000


def test_no_word_of_an_audit_becomes_markup(page, pages):
    for name in ("hostile", "pair"):
        page.open(pages[name])
        assert page.all("img[src='x'], b.caption, body > b, main b b") == []
        assert page.js("return document.querySelectorAll('[onerror]').length") == 0
        assert report_audits.EVIL in page.text("h1" if name == "hostile" else ".head .meta")
    page.open(pages["hostile"])
    captions = page.js("return [...document.querySelectorAll('.caption')].map(e => e.textContent)")
    assert set(report_audits.CAPTIONS) <= set(captions)
    alts = page.js("return [...document.images].map(e => e.alt)")
    assert any(report_audits.CAPTIONS[0] in alt for alt in alts)
    page.open(pages["pair"])
    assert page.text(".side-0") == "first <b>"


def cells(page) -> list[dict]:
    """What the evidence shows of every cell of the map, by selecting each."""
    return page.js("""
      const p = window.page, out = [];
      for (const w of p.weights) for (let s = 1; s <= p.steps; s++) for (const q of p.questions) {
        p.select({step: s, guidance: w, question: q});
        const e = document.querySelector('#evidence .half'), get = c => (e.querySelector(c) || {textContent: ''}).textContent;
        out.push({step: s, guidance: w, question: q, verdict: get('.badge'), detail: get('.detail'), theorem: get('.theorem'),
          value: get('.big'), evidence: e.querySelector('h3 + p b').textContent, command: get('.command'),
          where: document.querySelector('#evidence .where').textContent, witness: e.textContent.includes('Witness'),
          heading: [...e.querySelectorAll('h3')].map(h => h.textContent)});
      }
      return out;""")


@pytest.mark.parametrize("name", ["default", "hostile"])
def test_every_verdict_opens_its_own_evidence(page, pages, name):
    data = read(pages[name].parent)
    rows = {(r["guidance"], r["step"], r["question"]): r for r in data["rows"]}
    page.open(pages[name])
    shown = cells(page)
    assert len(shown) == len(rows)
    for c in shown:
        row = rows[c["guidance"], c["step"], c["question"]]
        assert (c["verdict"], c["detail"], c["evidence"]) == (row["verdict"], row["detail"], row["evidence"])
        assert c["witness"] == bool(row["witness"])
        assert f"Theorem {row['theorem']}" in c["heading"]
        assert len(c["theorem"]) > 20
        if row["value"] is not None:
            assert float(c["value"]) == pytest.approx(row["value"], rel=1e-2)
        else:
            assert c["value"] == "–"
        if row["verdict"] == "CERTIFIED":
            assert c["command"] == "fpjax check certificates/structure.json"
        else:
            assert re.search(rf"--guidance {row['guidance']:g}\b", c["command"]), c["command"]
    if name == "default":
        assert {"CERTIFIED", "SUPPORTED", "REFUTED"} <= {c["verdict"] for c in shown}


def test_pointing_shows_numbers_in_the_plot_and_the_same_step_everywhere(page, pages):
    data = read(pages["hostile"].parent)
    page.open(pages["hostile"], width=1280, height=1400)
    plot = page.find("#chart-kappa .plot")
    page.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plot)
    page.hover(plot, dx=0)
    tip = page.text("#chart-kappa .tip")
    step = int(re.match(r"step (\d+)", tip)[1])
    for line in tip.splitlines()[1:]:
        w, value = re.match(r"w = (\S+) (\S+)", line).groups()
        (row,) = [
            r for r in data["rows"] if (r["question"], r["step"], r["guidance"]) == ("contraction", step, float(w))
        ]
        assert float(value) == pytest.approx(row["value"], rel=1e-3)
    assert len(tip.splitlines()) == 1 + len(data["guidance"])
    assert page.js("return window.page.hovered") == step
    for chart in ("modulus", "spectrum", "error"):  # linked: a crosshair at the step in every plot
        assert len(page.all(f"#chart-{chart} .cross:not(.fixed)")) == 1
    page.hover(page.find("#chart-histories .plot"))
    assert "after" in page.text("#chart-histories .tip")
    assert not page.find("#chart-kappa .tip").is_displayed()


def test_a_click_in_a_plot_selects_step_and_line(page, pages):
    page.open(pages["hostile"], width=1280, height=1400)
    plot = page.find("#chart-modulus .plot")
    page.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plot)
    x, y = page.js("""const c = window.page.charts.find(c => c.spec.id === 'modulus');
      const s = c.shown.series.find(s => s.label === 'w = 7.5');
      const r = c.plot.getBoundingClientRect(); return [c.x.at(s.xs[2]) - r.width / 2, c.y.at(s.ys[2]) - r.height / 2];""")
    page.hover(plot, x, y)
    ActionChains(page.driver).click().perform()
    state = page.js("return window.page.state")
    assert (state["step"], state["guidance"]) == (3, 7.5)
    assert "step 3, guidance 7.5" in page.text("#evidence .where")
    assert "step=3&guidance=7.5" in page.js("return location.hash")
    assert "guidance 7.5" in page.text("#chart-spectrum .chart-title")
    assert "step 3" in page.text("#chart-histories .chart-title")


def test_a_click_on_a_verdict_opens_its_evidence_also_on_a_phone(page, pages):
    page.open(pages["hostile"], width=360, height=700)
    row = page.find("[aria-label='contraction, guidance 7.5']")
    bar = row.find_element(By.CSS_SELECTOR, "svg")
    page.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", row)
    page.hover(bar)
    bar.click()
    state = page.js("return window.page.state")
    assert (state["guidance"], state["question"]) == (7.5, "contraction")
    assert state["step"] in (4, 5)
    assert page.js(
        "const r = document.getElementById('evidence').getBoundingClientRect(); return r.top < innerHeight - 60"
    )
    page.screenshot("evidence-360")


def test_the_keyboard_reaches_everything(page, pages):
    page.open(pages["hostile"])
    for _ in range(12):
        page.press("TAB")
        if page.js("return document.activeElement.className") == "map-row":
            break
    focus = "return document.activeElement.getAttribute(arguments[0])"
    assert page.js(focus, "role") == "slider"
    page.press("HOME")
    assert page.js(focus, "aria-valuenow") == "1"
    page.press("ARROW_RIGHT")
    page.press("ARROW_RIGHT")
    assert page.js(focus, "aria-valuetext").startswith("step 3: ")
    before = page.js(focus, "aria-label")
    page.press("ARROW_DOWN")
    assert page.js(focus, "aria-label") != before
    assert page.js("return window.page.state.step") == 3
    page.press("ENTER")
    assert page.js("return document.activeElement.id") == "evidence"
    assert "step 3" in page.js("return document.getElementById('live').textContent")
    page.js("""window.reached = [];
      addEventListener('focusin', e => reached.push(e.target.getAttribute('aria-label') || e.target.textContent));""")
    page.press(*["TAB"] * 14)
    reached = page.js("return window.reached")
    assert "step →" in reached
    page.js("document.querySelector('#chart-kappa .plot').focus()")
    page.press("END")
    assert page.js(focus, "aria-valuenow") == "8"
    assert "w = 7.5" in page.js(focus, "aria-valuetext")


def test_the_address_keeps_the_place(page, pages):
    page.open(pages["hostile"].as_uri() + "#step=5&guidance=2&question=uniqueness")
    assert page.text("#evidence .where") == "uniqueness, step 5, guidance 2"
    page.open(pages["hostile"].as_uri() + "#step=99&guidance=x&question=%3Cb%3E")
    assert page.console() == []
    assert page.js("return window.page.state.step") <= 8


def test_both_themes_by_system_and_by_button(page, pages):
    back = "return getComputedStyle(document.body).backgroundColor"
    page.open(pages["hostile"], theme="light")
    light = page.js(back)
    page.theme("dark")
    dark = page.js(back)
    assert light != dark
    page.find("#theme").click()
    assert page.js(back) == light
    page.find("#theme").click()
    page.theme("light")
    assert page.js(back) == dark


def test_the_axis_can_be_the_noise_level(page, pages):
    page.open(pages["hostile"])
    page.find("#axis").click()
    assert "noise level" in page.js("return document.querySelector('#chart-kappa .plot svg').textContent")
    assert page.console() == []


def test_it_prints_and_works_without_javascript(page, pages):
    page.open(pages["default"], width=800)
    page.theme("light", media="print")
    page.screenshot("print", full=True)
    assert page.overflow() == []
    assert not page.find("#theme").is_displayed()
    pdf = page.driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert len(pdf) > 20_000
    page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.open(pages["default"])
        text = page.text()
        assert "CERTIFIED steps 1–20" in text
        assert "need JavaScript" in text
    finally:
        page.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_two_audits_side_by_side(page, pages):
    page.open(pages["pair"], height=1400)
    assert len(page.all("#evidence .half")) == 2
    page.js("window.page.select({step: 8, guidance: 7.5, question: 'contraction'})")
    assert [e.text for e in page.all("#evidence .half .where + h3")] == ["Evidence", "Evidence"]
    assert "step 5 of 5" in page.all("#evidence .half")[1].text  # the nearest noise level of 8 steps' last one
    assert page.js("return window.page.charts[0].shown.series.length") == 5
    page.js("window.page.select({guidance: 2})")
    assert "did not ask" in page.text("#evidence")


@pytest.fixture(scope="module")
def big(audited, tmp_path_factory):
    return report_audits.enlarged(audited).save(tmp_path_factory.mktemp("big"))


def test_60000_verdicts_open_in_3_seconds(page, big):
    data = json.loads((big.parent / "audit.json").read_text())
    assert len(data["rows"]) == 1000 * 10 * 6
    assert big.stat().st_size < 10_000_000
    seconds = min(page.open(big) for _ in range(3))
    print(f"{big.stat().st_size / 1e6:.2f} MB, {seconds:.2f} s")
    assert seconds < 3
    assert page.console() == []
    assert page.requests() == []
    assert page.overflow() == []
    page.screenshot("big-1280", full=True)
    rows = {(r["guidance"], r["step"], r["question"]): r for r in data["rows"]}
    for step, w, q in ((1, 1, "existence"), (777, 7, "contraction"), (1000, 10, "guidance-limit")):
        page.js("window.page.select({step: arguments[0], guidance: arguments[1], question: arguments[2]})", step, w, q)
        assert page.text("#evidence .detail") == rows[w, step, q]["detail"]
    took = page.js("""const t = performance.now(); for (let s = 1; s <= 20; s++) window.page.hover(40 * s);
      return (performance.now() - t) / 20;""")
    assert took < 100
    page.open(big, width=360)
    assert page.overflow() == []
