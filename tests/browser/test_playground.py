"""The playground's numbers are fpjax's, to 1e-6 on 200 random settings; and it is a page that anybody can use.

The page's own functions are called in Chromium; the same quantities come from the package: D and J from its denoisers,
kappa and m from derivatives of its F and G, solutions from its solvers, bounds from the facts it attaches.
"""

import dataclasses
import json
from pathlib import Path
from urllib.parse import quote

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import WIDTHS

import fpjax
from fpjax import process, solve, step

PAGE = Path(__file__).parents[2] / "docs" / "playground" / "index.html"
SETTINGS = 200
HALF = 2.5
GRID = jnp.asarray(np.stack(np.meshgrid(*2 * [np.linspace(-HALF, HALF, 41)], indexing="ij"), -1).reshape(-1, 2))
NEAR = np.stack(np.meshgrid(*2 * [np.linspace(-1, 1, 12)], indexing="ij"), -1).reshape(-1, 2)
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def settings() -> list[dict]:
    """Random problems: 2, 3 or 5 points, empirical data or blurred, half of them guided."""
    rng = np.random.default_rng(0)

    def one(i):
        k = int(rng.choice([2, 3, 5]))
        classes = [0, 1, *rng.integers(0, 2, k - 2)]
        points = [[*rng.uniform(-1.5, 1.5, 2).round(3).tolist(), int(c)] for c in classes]
        target = rng.uniform(-1.5, 1.5, 2).round(3).tolist()
        s, guided = float(rng.choice([0.0, 0.1, 0.3, 0.8])), i % 2 == 1
        sigma, rho = round(rng.uniform(0.2, 2), 3), round(rng.uniform(0.05, 0.9), 3)
        w = round(rng.uniform(1.05, 5), 2) if guided else 1.0
        start = rng.uniform(-1.5, 1.5, 2).round(3).tolist()
        return {"points": points, "s": s, "sigma": sigma, "rho": rho, "w": w, "conditional": guided} | {
            "target": target,
            "start": start,
        }

    return [one(i) for i in range(SETTINGS)]


def problem(t: dict) -> tuple[fpjax.Denoiser, step.Step]:
    """The same step from the package: exact.mixture, with a condition whose prior is the round class."""
    data = np.array([p[:2] for p in t["points"]])
    den = fpjax.models.exact.mixture(data, t["s"])
    condition, guidance = 0, None
    if t["conditional"]:
        chosen = np.array([p[2] == 0 for p in t["points"]])
        logits = np.stack([np.where(chosen, 0.0, -np.inf), np.zeros(len(data))])
        den = dataclasses.replace(den, params=den.params | {"logits": logits}, conditions=("round",))
        guidance = jnp.asarray(t["w"])
    rho, sigma, target = (jnp.asarray(t[name]) for name in ("rho", "sigma", "target"))
    return den, step.Step(den.astype(jnp.float64), sigma, rho, target, jnp.int32(condition), guidance)


@jax.jit
def local(points, p):
    """D, the spectrum of J, the norm of G' (kappa), the least eigenvalue of sym F' (m), and residuals, at many points."""

    def one(y):
        j = jax.jacfwd(step.denoised)(y, p)
        kappa = jnp.linalg.norm(jax.jacfwd(step.G)(y, p), 2)
        f = jax.jacfwd(step.F)(y, p)
        m = jnp.linalg.eigvalsh((f + f.T) / 2)[0]
        return step.denoised(y, p), jnp.linalg.eigvalsh(j), kappa, m, jnp.linalg.norm(step.F(y, p) - p.target)

    return jax.vmap(one)(points)


@jax.jit
def plain_iteration(start, p):
    def one(y, _):
        y = step.G(y, p)
        return y, jnp.linalg.norm(step.F(y, p) - p.target)

    return jax.lax.scan(one, start, None, length=8)[1]


@jax.jit
def found_by_fpjax(starts, p):
    run = jax.vmap(lambda y0: solve.solve(step.G, y0, p, solver="newton_krylov", tol=1e-11, limit=100, stop="residual"))
    out = run(starts)
    return out.y, out.residual


def same_points(a, b) -> None:
    """Every point of either set is within 1e-6 of one of the other."""
    distance = np.linalg.norm(np.asarray(a)[:, None] - np.asarray(b)[None], axis=2)
    scale = 1e-6 * (1 + np.linalg.norm(np.asarray(b), axis=1).max())
    assert distance.min(axis=0).max() < scale
    assert distance.min(axis=1).max() < scale


@pytest.mark.timeout(1500)
def test_the_numbers_are_those_of_fpjax(page):
    page.open(PAGE)
    guided_counts, unsolved = [], 0
    for t in settings():
        shown = page.js("return JSON.parse(JSON.stringify(playground.numbers(arguments[0], arguments[1])))", t, HALF)
        den, p = problem(t)
        rows = shown["solutions"]
        y = jnp.asarray([row["y"] for row in rows])
        d, spectrum, kappa, m, residual = local(y, p)
        assert float(residual.max()) < 1e-9
        for name, values in {"d": d, "eigenvalues": spectrum, "kappa": kappa, "m": m}.items():
            np.testing.assert_allclose([row[name] for row in rows], values, err_msg=f"{name} {t}", **CLOSE)
        _, on_grid, kappas, moduli, _ = local(GRID, p)
        np.testing.assert_allclose(np.reshape(shown["spectrum"], (-1, 2)), on_grid, **CLOSE)
        np.testing.assert_allclose(shown["seen"]["kappa"], kappas.max(), **CLOSE)
        np.testing.assert_allclose(shown["seen"]["m"], moduli.min(), **CLOSE)
        bounds_agree(t, den, shown, kappas, moduli)
        values = shown["plain"]["residuals"][1:9]
        np.testing.assert_allclose(values, plain_iteration(jnp.asarray(t["start"]), p)[: len(values)], **CLOSE)
        starts = np.concatenate(
            [np.asarray(y) + 0.02, np.asarray(y) - 0.02, 4 * NEAR[::2], shown["radius"] * NEAR[1::2]]
        )
        ends, left = found_by_fpjax(jnp.asarray(np.resize(starts, (160, 2))), p)
        arrived = np.asarray(left) < 1e-10
        same_points(y, np.asarray(ends)[arrived])
        unsolved += int((~arrived).sum())
        assert shown["index"] == 1
        if t["conditional"]:
            guided_counts.append(len(rows))
        else:
            by_invert(t, den, y)
    assert sum(n > 1 for n in guided_counts) >= 5  # the guided settings include ones with several solutions
    assert unsolved < 0.2 * 160 * SETTINGS


def bounds_agree(t, den, shown, kappas, moduli) -> None:
    """The window, Lambda, T11's limit and T6's relaxation; and the bounds hold at every point of the grid."""
    rho = t["rho"]
    top = den.facts.lipschitz(t["sigma"])
    np.testing.assert_allclose(shown["window"], [-rho / (1 - rho), (2 - rho) / (1 - rho)], **CLOSE)
    np.testing.assert_allclose(shown["Lambda"], top, **CLOSE)
    np.testing.assert_allclose(shown["limit"], 1 + rho / ((1 - rho) * top), **CLOSE)
    if not t["conditional"]:
        np.testing.assert_allclose(shown["omega"], 2 / (2 * rho + (1 - rho) * top), **CLOSE)
    assert shown["m"] <= float(moduli.min()) + 1e-9
    assert shown["kappa"] >= float(kappas.max()) - 1e-9
    verdict = {row[0]: row[2] for row in shown["verdicts"]}
    assert (verdict["contraction"] == "refuted") == (shown["kappa"] >= 1 and float(kappas.max()) >= 1)
    if verdict["uniqueness"] == "holds":
        assert len(shown["solutions"]) == 1


def by_invert(t, den, y) -> None:
    """The public way to the same solution."""
    proc = process.from_sigmas([t["rho"] * t["sigma"], t["sigma"]])
    inv = fpjax.invert(den, np.array([t["target"]]), proc, tol=1e-10)
    assert inv.solved.all()
    np.testing.assert_allclose(y, inv.latent, **CLOSE)


def hashed(t) -> str:
    return f"{PAGE.as_uri()}#{quote(json.dumps(t))}"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_in_order(page, theme):
    page.open(PAGE, theme=theme)
    page.wait("return document.getElementById('layer').dataset.ready === 'yes'")
    for width in WIDTHS:
        page.size(width, 900)
        assert page.overflow() == []
        assert page.axe() == []
        page.screenshot(f"playground-{theme}-{width}", full=True)
    for name in page.js("return [...document.getElementById('preset').options].map(o => o.value)"):
        page.js(
            "const e = document.getElementById('preset'); e.value = arguments[0]; e.dispatchEvent(new Event('change'))",
            name,
        )
        page.wait("return document.getElementById('layer').dataset.ready === 'yes'")
        assert page.axe() == [], name
        page.size(1280, 1000)
        page.screenshot(f"playground-{theme}-{name.split('(')[0].strip().replace(' ', '-').replace(',', '')}")
    assert page.console() == []
    assert page.requests() == []


def test_it_is_used_by_keyboard(page):
    page.open(PAGE)
    before = page.js("return playground.setting.points")
    page.js("document.querySelector('[data-key=point1]').focus()")
    page.press("ARROW_RIGHT", "ARROW_RIGHT")
    page.wait("return playground.setting.points[1][0] > arguments[0]".replace("arguments[0]", str(before[1][0] + 0.05)))
    assert (
        page.js("return document.activeElement.dataset.key") == "point1"
    )  # the focus stays while the plane is drawn again
    page.js("document.getElementById('rho').focus()")
    page.press("HOME")
    page.wait("return playground.setting.rho === 0")
    page.wait("return document.getElementById('headline').textContent.length > 10")
    page.press("END")
    page.wait("return document.querySelector('#verdicts .holds') && playground.now.kappa < 1")
    assert "contracts" in page.text("#headline")
    assert page.console() == []


def test_points_are_dragged(page):
    from selenium.webdriver import ActionChains

    page.open(PAGE)
    before = page.js("return playground.setting.target")
    target = page.find("[data-key=target0]")
    ActionChains(page.driver, duration=50).drag_and_drop_by_offset(target, 60, -40).perform()
    page.wait("return document.getElementById('layer').dataset.ready === 'yes'")
    after = page.js("return playground.setting.target")
    assert after[0] > before[0] + 0.1
    assert after[1] > before[1] + 0.1
    assert page.js("return playground.setting.start") == after


BAD = [
    "%",
    quote("{}"),
    quote('{"points": [["<img src=x onerror=alert(1)>", 0, 0]]}'),
    quote(json.dumps({"points": [[1e9, 0, 0]]})),
]


@pytest.mark.parametrize("text", BAD)
def test_a_bad_link_is_not_believed(page, text):
    page.open(f"{PAGE.as_uri()}#{text}")
    assert page.js("return playground.setting.points.length") == 3
    assert page.console() == []


def test_a_shared_link_and_its_python_agree(page):
    """The code box of a guided setting runs, and prints the solution that the page shows."""
    import contextlib
    import io

    t = settings()[0]
    page.open(hashed(t))
    assert page.js("return playground.setting.points") == t["points"]
    page.js("document.querySelector('details').open = true")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(page.text("#code"), "code", "exec"), {})
    y = page.js("return playground.now.solutions[0].y")
    assert f"{y[0]:.5f}"[:-1] in out.getvalue()
    page.js("playground.load(arguments[0])", {**settings()[1], "view": 3})
    page.wait("return document.getElementById('code').textContent.includes('guidance')")
    exec(compile(page.text("#code").replace("print(", "("), "code", "exec"), {})
