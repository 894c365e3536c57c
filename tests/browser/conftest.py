"""A real browser for pages: headless Chromium with what a test wants to know of a page, as the fixture ``page``.

`make test-browser` installs Chromium, its driver and axe-core, and runs this folder; nothing here is skipped. Pages are
opened from file://; screenshots go to tests/browser/screenshots (not in git; an output of CI).
"""

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

HERE = Path(__file__).parent
SCREENSHOTS = Path(os.environ.get("FPJAX_SCREENSHOTS", HERE / "screenshots"))
AXE = Path(os.environ.get("FPJAX_AXE", HERE / "node_modules/axe-core/axe.min.js"))
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)
WIDTHS = (360, 768, 1280, 1920, 3840)  # a phone to 4K


class Page:
    """A browser tab and what can be asked of it."""

    def __init__(self, driver: webdriver.Chrome):
        self.driver = driver

    def open(self, target: Path | str, *, width: int = 1280, height: int = 900, theme: str = "light") -> float:
        """Opens a file or address with empty logs; the seconds until its load event."""
        self.size(width, height)
        self.theme(theme)
        self.driver.get("about:blank")
        self._drain()
        url = target if isinstance(target, str) else target.resolve().as_uri()
        start = time.perf_counter()
        self.driver.get(url)
        self.url = url
        return time.perf_counter() - start

    def _drain(self) -> None:
        self.driver.get_log("browser")
        self.driver.get_log("performance")

    def size(self, width: int, height: int) -> None:
        """Sets the viewport, in CSS pixels."""
        self.width, self.height = width, height
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def theme(self, name: str, *, media: str = "") -> None:
        """What the operating system asks for: "light" or "dark"; media "print" shows the page as it prints."""
        features = [
            {"name": "prefers-color-scheme", "value": name},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def console(self) -> list[str]:
        """Everything the console said since it was last asked, uncaught errors included."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since this was last called, but for the page itself and data: URIs."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                p = message["params"]
                found.append(p["request"]["url"] if "request" in p else p["url"])
        own = self.url.split("#")[0]
        return [u for u in found if u.split("#")[0] != own and not u.startswith(("data:", "blob:", "about:"))]

    def axe(self, *, impacts=("serious", "critical")) -> list[str]:
        """What axe-core finds, one line for each node, of the given impacts."""
        self.driver.execute_script(AXE.read_text())
        self.driver.set_script_timeout(120)
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1]; axe.run(document, {resultTypes: ['violations']})"
            ".then(r => done(r.violations), e => done([{id: String(e), impact: 'critical', help: '', nodes: [{}]}]));"
        )
        return [
            f"{v['id']} ({v['impact']}): {v['help']}: {node.get('html', '')[:200]} {node.get('failureSummary', '')}"
            for v in found
            if v["impact"] in impacts
            for node in v["nodes"]
        ]

    def overflow(self) -> list[str]:
        """Elements that make the page scroll sideways, or text that is cut off; empty when everything fits."""
        return self.driver.execute_script("""
          const wide = document.documentElement.clientWidth, found = [];
          if (document.documentElement.scrollWidth > wide) found.push('page ' + document.documentElement.scrollWidth);
          const scrolls = e => { for (let p = e; p && p !== document.body; p = p.parentElement) {
            const o = getComputedStyle(p).overflowX; if (o === 'auto' || o === 'scroll' || o === 'hidden') return true; }
            return false; };
          for (const e of document.body.querySelectorAll('*')) {
            if (e.closest('svg') !== null && e.tagName !== 'svg') continue;
            const r = e.getBoundingClientRect();
            if (r.width && (r.right > wide + 1 || r.left < -1) && !scrolls(e) && getComputedStyle(e).visibility !== 'hidden'
                && !e.matches('.visually-hidden, .visually-hidden *, .skip'))
              found.push(e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + r.left + ' to ' + r.right);
          }
          return found;""")

    def screenshot(self, name: str, *, full: bool = False) -> Path:
        """Keeps a picture of the viewport, or of the whole page, under a name."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        if full:
            height = self.js("return document.documentElement.scrollHeight")
            width, old = self.width, self.height
            self.size(width, min(height, 16000))
            self.driver.save_screenshot(str(path))
            self.size(width, old)
        else:
            self.driver.save_screenshot(str(path))
        return path

    def js(self, code: str, *arguments):
        """Runs JavaScript in the page; what it returns."""
        return self.driver.execute_script(code, *arguments)

    def find(self, css: str):
        """The first element; selenium's error if there is none."""
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css: str) -> list:
        """Every element that matches."""
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def text(self, css: str = "body") -> str:
        """The text a reader sees."""
        return self.find(css).text

    def hover(self, element, dx: float = 0, dy: float = 0) -> None:
        """Moves the pointer to an element's middle, plus an offset in pixels."""
        webdriver.ActionChains(self.driver, duration=0).move_to_element_with_offset(element, dx, dy).perform()

    def press(self, *keys: str) -> None:
        """Keys to whatever has the focus: text, or names of selenium's Keys such as "TAB" and "ENTER"."""
        self.driver.switch_to.active_element.send_keys(*(getattr(Keys, k, k) for k in keys))

    def wait(self, code: str, seconds: float = 20.0):
        """Waits until JavaScript returns something true, and returns it.

        Raises:
          AssertionError: if it does not in time.
        """
        end = time.monotonic() + seconds
        while not (got := self.js(code)):
            assert time.monotonic() < end, f"never true: {code}"
            time.sleep(0.05)
        return got


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One Chromium with an empty profile."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert binary, "there is no chromium: run make test-browser, which installs it"
    assert driver, "there is no chromedriver: run make test-browser, which installs it"
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    chrome.set_page_load_timeout(120)
    yield chrome
    chrome.quit()


@pytest.fixture
def page(browser) -> Page:
    """A fresh look at the browser."""
    return Page(browser)
