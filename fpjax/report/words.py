"""What a report says in words: theorems in one line, questions, grades of evidence, the headline and the first figures.

Takes the plain data of ``audit.json``. Counts and smallest values only; not in this room: HTML, Markdown, LaTeX.
"""

import math
from typing import Any

from fpjax.rules import QUESTIONS

THEOREMS = {
    "T1": "Coercivity: a solution exists whenever rho > 0 and D is a multiple of y plus a bounded part.",
    "T2": "Strong monotonicity: m = rho + (1 - rho)·inf lambda_min(sym J) > 0 gives exactly one solution.",
    "T3": "Contraction: kappa = (1 - rho)·sup ||I - J|| < 1 makes plain iteration converge.",
    "T8": "Residual to error: ||y - y*|| <= residual/m.",
    "T11": "Guidance: uniqueness is kept while w < 1 + rho/((1 - rho)·Lambda), if J_c >= 0 and J_0 <= Lambda.",
    "T13": "Newton-Kantorovich: a ball round a small residual holds exactly one solution if a bound verifies.",
}

ASKED = {
    "existence": "Does a solution exist?",
    "uniqueness": "Is the solution unique?",
    "contraction": "Does G contract?",
    "convergence": "Does plain iteration arrive?",
    "error": "How far off is the answer?",
    "guidance-limit": "Is this guidance safe?",
}

VALUES = {
    "existence": "largest residual",
    "uniqueness": "modulus m",
    "contraction": "kappa, a lower estimate",
    "convergence": "share of images that arrive",
    "error": "error, 2-norm in y-coordinates",
    "guidance-limit": "safe guidance w",
}

VERDICTS = {
    "CERTIFIED": "the independent checker re-derived a proof",
    "SUPPORTED": "no violation at the points looked at",
    "INCONCLUSIVE": "open: not converged, not finite, or a hypothesis not met",
    "REFUTED": "a stored witness contradicts it",
}

EVIDENCE = {
    "ASSUMED": "declared by the model's author; nothing was checked",
    "SAMPLED": "computed at some points; says nothing about the others",
    "PROBABLE": "true with a stated probability (T15)",
    "ENCLOSED": "inside an interval computed with outward rounding",
}

HOLDS = ("SUPPORTED", "CERTIFIED")


def questions(data: dict[str, Any]) -> list[str]:
    """The questions that the audit asked, in the usual order."""
    asked = {row["question"] for row in data["rows"]}
    return [q for q in QUESTIONS if q in asked]


def by_verdict(data: dict[str, Any], guidance: float, question: str) -> dict[str, list[int]]:
    """verdict -> the steps that have it."""
    found: dict[str, list[int]] = {}
    for row in data["rows"]:
        if row["guidance"] == guidance and row["question"] == question:
            found.setdefault(row["verdict"], []).append(row["step"])
    return found


def summary(data: dict[str, Any], guidance: float) -> dict[str, str]:
    """One line for each question at one guidance: the verdicts of the steps, with the steps."""
    lines = {}
    for question in questions(data):
        found = by_verdict(data, guidance, question)
        if found:
            lines[question] = "; ".join(f"{v} {spans(steps)}" for v, steps in found.items())
    return lines


def spans(steps: list[int]) -> str:
    """[1, 2, 3, 5] -> "steps 1–3, 5"."""
    runs: list[list[int]] = []
    for step in sorted(steps):
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    text = ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)
    return f"step {text}" if len(steps) == 1 else f"steps {text}"


def at(steps: list[int], of: int) -> str:
    """ "at steps 1–3", "at every step", or how many where there are too many runs to read."""
    if len(steps) == of:
        return "at every step"
    text = spans(steps)
    return f"at {text}" if text.count(",") < 4 else f"at {len(steps)} of {of} steps"


def headline(data: dict[str, Any]) -> str:
    """One sentence for the first guidance."""
    w = data["guidance"][0]
    n = data["process"]["steps"]
    parts = [_posed(data, w, n)]
    found = by_verdict(data, w, "contraction")
    for verdict, words in (("REFUTED", "contraction fails"), ("INCONCLUSIVE", "contraction is open")):
        if verdict in found:
            parts.append(f"{words} {at(found[verdict], n)}")
    if found and not {"REFUTED", "INCONCLUSIVE"} & set(found):
        parts.append("no sign against contraction")
    limit = safe_guidance(data, w)
    if limit is not None:
        parts.append(f"safe guidance {limit}")
    return f"At guidance {w:g}: {'; '.join(parts)}."


def _posed(data, w, n) -> str:
    lost = []
    proved = True
    for question in ("existence", "uniqueness"):
        found = by_verdict(data, w, question)
        proved &= set(found) == {"CERTIFIED"}
        for verdict, words in (("REFUTED", "fails"), ("INCONCLUSIVE", "is open")):
            if verdict in found:
                lost.append(f"{question} {words} {at(found[verdict], n)}")
    if lost:
        return "; ".join(lost)
    return f"well posed at every step ({'proved' if proved else 'as far as was looked'})"


def safe_guidance(data: dict[str, Any], w: float) -> str | None:
    """The smallest guidance limit of all steps (T11), rounded down to four digits; None where a step has none."""
    rows = [r for r in data["rows"] if r["guidance"] == w and r["question"] == "guidance-limit"]
    limits = [r["value"] for r in rows if r["value"] is not None]
    if not rows or len(limits) < len(rows):
        return None
    low = min(limits)
    digits = 3 - math.floor(math.log10(low))  # low > 1 by T11
    return f"{math.floor(low * 10**digits) / 10**digits:.4g}"


def figures(data: dict[str, Any]) -> list[dict[str, str]]:
    """The four figures at the head of the page: title, value, note, and the verdict that colours them."""
    w = data["guidance"][0]
    n = data["process"]["steps"]
    unique, exists = by_verdict(data, w, "uniqueness"), by_verdict(data, w, "existence")
    posed = n - len({s for f in (unique, exists) for v in f if v not in HOLDS for s in f[v]})
    proved = set(unique) == set(exists) == {"CERTIFIED"}
    arrives = by_verdict(data, w, "convergence")
    arriving = sum(len(arrives.get(v, [])) for v in HOLDS)
    out = [
        {
            "title": "Well posed",
            "value": f"{posed} of {n} steps",
            "note": "exactly one solution, " + ("proved from the weights" if proved else "as far as was looked"),
            "verdict": "CERTIFIED" if proved else "SUPPORTED" if posed == n else "INCONCLUSIVE",
        },
        {
            "title": "Plain iteration arrives",
            "value": f"{arriving} of {n} steps",
            "note": f"for every image, within {data['settings']['picard_limit']} iterations",
            "verdict": "SUPPORTED" if arriving == n else "REFUTED" if "REFUTED" in arrives else "INCONCLUSIVE",
        },
    ]
    limit = safe_guidance(data, w)
    if "guidance-limit" in questions(data):
        note = "for every step, as far as was looked (T11)" if limit else "T11 does not apply at some step"
        out.append(
            {
                "title": "Safe guidance",
                "value": f"up to {limit}" if limit else "not known",
                "note": note,
                "verdict": "SUPPORTED" if set(by_verdict(data, w, "guidance-limit")) <= set(HOLDS) else "INCONCLUSIVE",
            }
        )
    for trip in data["round_trip"]:
        if trip["guidance"] == w:
            error = trip["max_error_solved"]
            out.append(
                {
                    "title": "Round trip",
                    "value": "–" if error is None else f"{error:.1e}",
                    "note": f"largest error of the {trip['solved']} of {trip['images']} images that were solved",
                    "verdict": "SUPPORTED" if trip["solved"] == trip["images"] else "INCONCLUSIVE",
                }
            )
    return out
