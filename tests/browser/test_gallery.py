"""Galleries are pages that anybody can use: the slider moves by pointer and by key, and shows what it says."""

import numpy as np
import pytest
from conftest import WIDTHS

from fpjax import gallery

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    """A gallery of a large coloured and a small grey picture."""
    wide, small = RNG.uniform(-1, 1, (300, 500, 3)), RNG.uniform(-1, 1, (8, 8))
    told = "not well posed from step 3: the edit depends on the start"
    cases = [
        gallery.Case("wide", wide, -wide, "known to 3e-9", {"PSNR": 27.1}),
        gallery.Case("small", small, -small, told),
    ]
    return gallery.save(tmp_path_factory.mktemp("gallery"), "Before and after", cases, "a note")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_is_accessible(page, where, width, theme):
    page.open(where, width=width, theme=theme)
    assert page.overflow() == []
    assert page.axe() == []
    assert page.console() == []
    assert page.requests() == []
    page.screenshot(f"gallery-{width}-{theme}", full=True)


def shown(page) -> float:
    return page.js("return parseFloat(getComputedStyle(document.querySelector('.pair')).getPropertyValue('--shown'))")


def test_the_slider_moves_by_key_and_by_pointer(page, where):
    page.open(where)
    assert shown(page) == 50
    page.find("input").click()
    page.press("HOME")
    assert shown(page) == 0
    page.press("ARROW_RIGHT")
    assert shown(page) == 1
    clip = page.js("return getComputedStyle(document.querySelector('.before')).clipPath")
    assert "99%" in clip
    pair = page.find(".pair")
    page.hover(pair, pair.size["width"] / 4)
    assert abs(shown(page) - 75) <= 1
    assert int(page.find("input").get_attribute("value")) == shown(page)
