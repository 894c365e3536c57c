"""The harness sees what it is there to see: a page with every fault, and one with none."""

import pytest

HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>t</title>{}</head>'
    "<body><main><h1>h</h1>{}</main></body></html>"
)
FAULTY = HEAD.format(
    "<style>p { color: #999; background: #bbb } div { width: 2000px }</style>",
    '<p>pale</p><div>wide</div><img src="missing.png">'
    '<script>fetch("https://example.org/x").catch(() => 0); undefined.x</script>',
)


@pytest.fixture
def opened(page, tmp_path):
    def open_(text, **how):
        (tmp_path / "p.html").write_text(text)
        page.open(tmp_path / "p.html", **how)
        return page

    return open_


def test_faults_are_seen(opened):
    page = opened(FAULTY, width=360)
    page.wait("return document.readyState === 'complete'")
    assert any("TypeError" in line for line in page.console())
    asked = page.requests()
    assert any("missing.png" in u for u in asked)
    assert "https://example.org/x" in asked
    assert any(line.startswith("color-contrast") for line in page.axe())
    assert any(line.startswith("image-alt") for line in page.axe())
    assert page.overflow()


def test_a_clean_page_has_none(opened):
    page = opened(HEAD.format("", "<p>fine</p><img alt='a dot' src='data:image/gif;base64,R0lGODlhAQABAAAAACw='>"))
    assert page.console() == []
    assert page.requests() == []
    assert page.axe() == []
    assert page.overflow() == []


def test_sizes_and_themes(opened):
    page = opened(HEAD.format("", ""), width=3840, height=2160, theme="dark")
    assert page.js("return innerWidth") == 3840
    assert page.js("return matchMedia('(prefers-color-scheme: dark)').matches")
    page.size(360, 640)
    page.theme("light")
    assert page.js("return innerWidth") == 360
    assert not page.js("return matchMedia('(prefers-color-scheme: dark)').matches")
    assert page.screenshot("harness").stat().st_size > 1000
