"""Writes what ``benchmarks/editing.py`` measured into docs/editing.md and editing-results.md; draws docs/figures/editing.png.

python benchmarks/editing_page.py FOLDER    # its files reconstruct*.json, edits*.json and claim*.json
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from page import fill
from scipy import stats

DOCS = Path(__file__).parent.parent / "docs"
OURS = "fpjax"
BY_CONSTRUCTION = ("direct", "edict", "bdia", "obelm")  # give the image back whatever the latent is
SHARES = (0.8, 0.9, 0.95)  # of edits that succeed, at which methods are compared


def load(folder: Path, name: str) -> list[dict]:
    """The rows of all files of a part."""
    rows = []
    for path in sorted(folder.glob(f"{name}*.json")):
        rows += json.loads(path.read_text())["rows"]
    return rows


def lines_of(rows: list[dict]) -> dict[tuple, list[dict]]:
    """Rows by network, steps and weight, in that order."""
    lines = defaultdict(list)
    for row in rows:
        lines[row["network"], row["steps"], row["w"]].append(row)
    return dict(sorted(lines.items(), key=lambda item: (item[0][0], item[0][2], item[0][1])))


def effort(row: dict) -> tuple:
    """More iterations a step come first, then a smaller tolerance."""
    return row["limit"], -row.get("tol", 1e-8)


def ours_at(line: list[dict], evaluations: float) -> dict:
    """fpjax with the most effort that needs no more evaluations than these, or the run with the fewest."""
    own = [r for r in line if r["method"] == OURS]
    within = [r for r in own if r["evaluations"] <= evaluations * 1.005]
    return max(within, key=effort) if within else min(own, key=lambda r: r["evaluations"])


def number(value: float) -> str:
    return "–" if not np.isfinite(value) else f"{value:.1f}" if abs(value) >= 0.05 else f"{value:.0e}"


def small(value: float) -> str:
    return "∞" if not np.isfinite(value) else f"{value:.2g}" if 0.01 <= value < 100 else f"{value:.0e}"


OTHER = ("method", "evaluations", "PSNR, dB", "failed", "of these, told", "error of the latent")
MINE = ("fpjax with no more evaluations:", "PSNR, dB", "failed", "error of the latent")


def header(*names: str) -> str:
    return f"| {' | '.join(names)} |\n{'|---' * len(names)}|"


def table(line: list[dict]) -> str:
    """One line: every method, and what fpjax does with no more evaluations."""
    out = [header(*OTHER, *MINE)]
    for r in line:
        cells = [f"{r['evaluations']:.0f}", number(r["psnr"]), str(r["failures"]), str(r["failures"] - r["silent"])]
        cells.append(small(r["latent"]))
        if r["method"] == OURS:
            continue
        o = ours_at(line, r["evaluations"])
        more = " (more)" if o["evaluations"] > r["evaluations"] * 1.005 else ""
        cells += [f"{o['evaluations']:.0f}{more}", number(o["psnr"]), str(o["failures"]), small(o["latent"])]
        out.append(f"| {r['method']} | " + " | ".join(cells) + " |")
    o = fully(line)
    cells = [
        f"{o['evaluations']:.0f}",
        number(o["psnr"]),
        str(o["failures"]),
        str(o["failures"] - o["silent"]),
        small(o["latent"]),
    ]
    out.append(f"| **fpjax**, at most {o['limit']} iterations a step | " + " | ".join(cells) + " | | | | |")
    return "\n".join(out)


def fully(line: list[dict]) -> dict:
    """fpjax with its largest limit and its smallest tolerance."""
    return max((r for r in line if r["method"] == OURS), key=effort)


def compared(lines: list[list[dict]], name: str, left_out=()) -> str:
    """How often fpjax is better with no more evaluations, as a sentence."""
    fair, unfair = [], []
    for line in lines:
        for r in line:
            if r["method"] == OURS or r["method"] in left_out:
                continue
            o = ours_at(line, r["evaluations"])
            won = o[name] <= r[name] if name == "latent" else o[name] >= r[name]
            where = f"{r['method']} (N = {r['steps']}, w = {r['w']:g}, {r['network']})"
            (fair if o["evaluations"] <= r["evaluations"] * 1.005 else unfair).append((won, where, r["method"]))
    lost = [where for won, where, _ in fair if not won]
    told = f"fpjax is better in {len(fair) - len(lost)} of {len(fair)} comparisons with no more evaluations"
    if lost:
        told += f"; better there: {', '.join(lost) if len(lost) <= 8 else f'{len(lost)} of the other methods'}"
    if unfair:
        names = ", ".join(sorted({m for *_, m in unfair}))
        told += f". {len(unfair)} more take fewer evaluations than fpjax can ({names}); its cheapest run beats "
        told += f"{sum(won for won, *_ in unfair)} of them"
    return told


def summary(lines: dict) -> str:
    """Who has the lower error, over all comparisons."""
    out = []
    for posed, what in (
        (True, "well posed by structure (`digits-monotone`, w = 1)"),
        (False, "where nothing makes it so"),
    ):
        chosen = [v for k, v in lines.items() if (k[0] == "digits-monotone" and k[2] == 1) == posed]
        if not chosen:
            continue
        ends = [fully(line) for line in chosen]
        failed, silent = sum(r["failures"] for r in ends), sum(r["silent"] for r in ends)
        out += [
            f"- {len(chosen)} lines {what}, error of the latent: {compared(chosen, 'latent')}.",
            (
                f"- The same lines, PSNR, without {', '.join(BY_CONSTRUCTION)}, which give any image back by construction: "
                f"{compared(chosen, 'psnr', BY_CONSTRUCTION)}."
            ),
            (
                f"- With its largest limit there fpjax does not give back {failed} of {sum(map(images, ends))} images to a grey "
                f"level; of these it names {failed - silent}, and the other methods name none of theirs."
            ),
        ]
    return "\n".join(out)


def images(row: dict) -> int:
    return row.get("images", 256)


def at_share(rows: list[dict], share: float) -> dict | None:
    """The figures of one method where ``share`` of its edits succeed: interpolated along the strength, the least distance of all
    weights; None where so many never do. ``least`` says that more succeed at the least strength already."""
    found = []
    for w in {r["w"] for r in rows}:
        line = sorted((r for r in rows if r["w"] == w), key=lambda r: r["strength"])
        for a, b in zip([line[0], *line], line, strict=False):
            if b["success"] >= share and (a is b or a["success"] < share):
                t = 1.0 if a is b else (share - a["success"]) / (b["success"] - a["success"])
                keys = ("strength", "success", "distance", "structure", "variety", "deviation", "evaluations")
                found.append({k: a[k] + t * (b[k] - a[k]) for k in keys} | {"w": w, "least": a is b})
                break
    return min(found, key=lambda r: r["distance"]) if found else None


def edits(rows: list[dict], network: str) -> str:
    methods = list(dict.fromkeys(r["method"] for r in rows))
    out = [
        "| method | "
        + " | ".join(f"{s:.0%}: distance, structure" for s in SHARES)
        + " | variety | deviation of the latent | evaluations | most that succeed |"
    ]
    out.append("|---" * (len(SHARES) + 5) + "|")
    for method in methods:
        mine = [r for r in rows if r["method"] == method]
        found = [at_share(mine, s) for s in SHARES]
        cells = ["–" if f is None else f"{f['distance']:.3f}, {f['structure']:.3f}{'*' * f['least']}" for f in found]
        f = found[1] or max(mine, key=lambda r: r["success"])
        cells += [
            f"{f['variety']:.2f}",
            f"{f['deviation']:.2f}",
            f"{f['evaluations']:.0f}",
            f"{max(r['success'] for r in mine):.0%}",
        ]
        name = f"**{method}**" if method.startswith(OURS) else method
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    return f"`{network}`:\n\n" + "\n".join(out)


def rule(rows: list[dict], seed: int, name: str, column: str):
    mine = sorted((r for r in rows if r["seed"] == seed and r["rule"] == name), key=lambda r: r["evaluations"])
    return np.asarray([r["evaluations"] for r in mine]), np.asarray([r[column] for r in mine])


def difference(rows: list[dict], column: str, log: bool):
    """inter - intra at equal evaluations, for each seed: the mean over nine counts that both rules reach."""
    out = []
    for seed in sorted({r["seed"] for r in rows}):
        (a, ya), (b, yb) = (rule(rows, seed, name, column) for name in ("intra_path", "inter_path"))
        if log:
            ya, yb = (np.log10(np.clip(y, 1e-12, 1e3)) for y in (ya, yb))
        budgets = np.linspace(max(a[0], b[0]), min(a[-1], b[-1]), 9)
        out.append(np.mean(np.interp(budgets, b, yb) - np.interp(budgets, a, ya)))
    mean, half = np.mean(out), stats.t.ppf(0.975, len(out) - 1) * np.std(out, ddof=1) / np.sqrt(len(out))
    return float(mean), float(mean - half), float(mean + half)


def by_tolerance(rows: list[dict], name: str) -> list[tuple[float, float]]:
    """(median error, mean evaluations) over the seeds, for every tolerance of a rule."""
    mine = [[r for r in rows if r["rule"] == name and r["tol"] == tol] for tol in sorted({r["tol"] for r in rows})]
    return [(float(np.median([r["error"] for r in m])), float(np.mean([r["evaluations"] for r in m]))) for m in mine]


def claim(rows: list[dict]) -> str:
    edited = ("edits that succeed, inter less intra", "distance of edits, inter less intra")
    least = "least error of any tolerance, and its evaluations: intra; inter"
    errors = ("error, inter over intra", "error by tolerance, intra: 0.1, 0.001", least)
    out = [header("network", "N", "w", *errors, *edited, "evaluations at tolerance 0.1: intra, inter")]
    for (network, n, w), line in lines_of(rows).items():
        cells = [network, str(n), f"{w:g}"]
        cells.append("{:.2f} ({:.2f} to {:.2f})".format(*(10**v for v in difference(line, "error", True))))
        shown = [[r["error"] for r in line if r["rule"] == "intra_path" and r["tol"] == tol] for tol in (0.1, 0.001)]
        cells.append(", ".join(small(float(np.median(v))) for v in shown))
        best = [min(by_tolerance(line, name)) for name in ("intra_path", "inter_path")]
        cells.append("; ".join(f"{small(error)} at {spent:.0f}" for error, spent in best))
        for column in ("edit success", "edit distance"):
            cells.append(
                "{:+.3f} ({:+.3f} to {:+.3f})".format(*difference(line, column, False)) if column in line[0] else "–"
            )
        spent = [
            np.mean([r["evaluations"] for r in line if r["rule"] == name and r["tol"] == 0.1])
            for name in ("intra_path", "inter_path")
        ]
        out.append("| " + " | ".join([*cells, f"{spent[0]:.0f}, {spent[1]:.0f}"]) + " |")
    return "\n".join(out)


def picture(lines: dict, rows: list[dict], path: Path) -> None:
    """Error of the latent against evaluations on a well-posed line, and success against distance of edits."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    line = lines["digits-monotone", 20, 1.0]
    for tol in sorted({r.get("tol", 1e-8) for r in line if r["method"] == OURS}):
        own = [r for r in line if r["method"] == OURS and r.get("tol", 1e-8) == tol]
        own.sort(key=lambda r: r["limit"])
        left.loglog(
            [r["evaluations"] for r in own], [r["latent"] for r in own], "o-", ms=3, label=f"fpjax, tolerance {tol:g}"
        )
    others = [r for r in line if r["method"] != OURS]
    for r, mark in zip(others, "sv^<>dDpPhHX*+x1234", strict=False):
        left.plot(r["evaluations"], r["latent"], mark, ms=6, alpha=0.8, label=r["method"])
    left.set(
        xlabel="network evaluations for an image",
        ylabel="relative error of the latent",
        title="Inversion, digits-monotone, N = 20",
    )
    left.legend(fontsize=6.5, ncols=2, loc="lower right")
    left.set_xlim(right=9000)
    for method in (
        "naive",
        "easyinv",
        "renoise",
        "aidi_anderson",
        "direct",
        "obelm",
        OURS,
        "fpjax, prior guided",
    ):
        mine = sorted((r for r in rows if r["method"] == method and r["w"] == 3), key=lambda r: r["strength"])
        style = {"lw": 2.2} if method.startswith(OURS) else {"lw": 1, "alpha": 0.8}
        right.plot([r["distance"] for r in mine], [r["success"] for r in mine], "o-", ms=3, label=method, **style)
    right.set(
        xlabel="distance from the source (RMS)", ylabel="edits that succeed", title="Edits at guidance 3, by strength"
    )
    right.legend(fontsize=7)
    figure.savefig(path, dpi=130)


def main() -> None:
    folder = Path(sys.argv[1])
    lines, found = lines_of(load(folder, "reconstruct")), load(folder, "edits")
    parts = {
        "editing-summary": summary(lines),
        "editing-line": table(lines["digits-monotone", 20, 1.0]),
        "editing-claim": claim(load(folder, "claim")),
    }
    networks = list(dict.fromkeys(r["network"] for r in found))
    parts["editing-edits"] = "\n\n".join(edits([r for r in found if r["network"] == n], n) for n in networks)
    page = DOCS / "editing.md"
    page.write_text(fill(page.read_text(encoding="utf-8"), parts), encoding="utf-8")
    whole = [
        "# Reconstructions, all lines",
        "",
        "Written by `python benchmarks/editing_page.py`; what the columns mean: [editing](editing.md).",
        "",
    ]
    for (network, n, w), line in lines.items():
        whole += [f"## {network}, N = {n}, w = {w:g}", "", table(line), ""]
    (DOCS / "editing-results.md").write_text("\n".join(whole), encoding="utf-8")
    picture(lines, [r for r in found if r["network"] == "digits-monotone"], DOCS / "figures" / "editing.png")


if __name__ == "__main__":
    main()
