"""The notebook widget's view in a real browser: what the state says, as text."""

from importlib import resources

STATE = {
    "done": 3,
    "total": 8,
    "what": "<img src=x onerror=alert(1)>",
    "lines": [{"name": '<b>m</b> "x"', "counts": {"uniqueness": {"SUPPORTED": 2, "REFUTED": 1}}}],
    "failures": ["it <i>broke</i>"],
}
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,"><title>w</title></head>
<body><main><h1>w</h1><div id="el"></div></main><script type="module">SOURCE
const heard = [];
window.model = { state: null, get: () => window.model.state, on: (name, f) => heard.push(f) };
window.set = s => { window.model.state = s; heard.forEach(f => f()); };
window.start = s => { window.model.state = s; render({ model: window.model, el: document.getElementById("el") }); };
</script></body></html>"""


def test_the_widget_shows_its_state_as_text_and_follows_it(page, tmp_path):
    source = resources.files("fpjax").joinpath("notebook.js").read_text()
    (tmp_path / "w.html").write_text(PAGE.replace("SOURCE", source))
    page.open(tmp_path / "w.html")
    page.wait("return !!window.start")
    page.js("window.start(arguments[0])", STATE)
    assert "3 of 8 · <img src=x onerror=alert(1)>" in page.text("#el")
    assert '<b>m</b> "x"' in page.text("#el")
    assert "2 supported" in page.text("#el")
    assert "failed: it <i>broke</i>" in page.text("#el")
    assert page.all("#el img, #el b, #el i") == []
    assert page.js("return document.querySelector('progress').value") == 3
    page.js("window.set(arguments[0])", STATE | {"done": 8})
    assert page.js("return document.querySelector('progress').value") == 8
    assert page.console() == []
    assert page.requests() == []
    assert page.axe() == []
