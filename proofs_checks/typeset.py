"""The plain-text mathematics of the docstrings as Markdown: λ_min(J) ≤ 1 with subscripts, nothing that needs a script to show.

The text stays the one that stands in the code; only its spelling changes. Not in this room: what the text says.
"""

import html
import re

GREEK = {
    "alpha": "α", "beta": "β", "delta": "δ", "epsilon": "ε", "eps": "ε", "eta": "η", "theta": "θ", "kappa": "κ",
    "lambda": "λ", "mu": "μ", "nu": "ν", "pi": "π", "rho": "ρ", "sigma": "σ", "phi": "φ", "chi": "χ", "psi": "ψ",
    "omega": "ω", "Lambda": "Λ", "Phi": "Φ", "Sigma": "Σ", "Omega": "Ω", "Delta": "Δ", "abar": "ᾱ", "grad": "∇",
}  # fmt: skip
_WORD = re.compile(r"(?<![A-Za-z])(" + "|".join(sorted(GREEK, key=len, reverse=True)) + r")(?![A-Za-z])")
_KEPT = re.compile(r"(``[^`]+``|`[^`]+`|\*\*[^*\n]+\*\*|(?<![\w*])\*[A-Za-z][^*\n]*[A-Za-z]\*(?!\w))")
_SIGNS = [("<=>", "⇔"), ("<=", "≤"), (">=", "≥"), ("!=", "≠"), ("->", "→"), ("||", "‖"), ("int_0^1", "∫₀¹ ")]
_TIGHT = r"[A-Za-z0-9Α-Ωα-ωᾱ')\]}|‖∇²⟩̂]"  # what may carry an index or an exponent


def formula(text: str) -> str:
    """A piece of text without code or bold parts."""
    text = re.sub(r"<([^<>=;]*?,[^<>=;]*?)>", r"⟨\1⟩", text)  # an inner product
    text = re.sub(r"<([^<>=;,]{1,24}?)>(?=[ ;./·)\n]|$)", r"⟨\1⟩", text)  # a mean
    for plain, sign in _SIGNS:
        text = text.replace(plain, sign)
    text = _WORD.sub(lambda m: GREEK[m[1]], text)
    text = re.sub(r"([A-Za-z])\^(?=[\s(|,;:.]|$)(?!\()", "\\1\u0302", text)
    text = re.sub(r"([FTGr])\^(?=\()(?!\(-?\d)", "\\1\u0302", text)
    text = html.escape(text, quote=False)
    text = re.sub(r"(?<=[A-Za-zα-ω])\*(?!\*)", "<sup>∗</sup>", text)
    text = text.replace("\\", "\\\\").replace("*", "\\*").replace("[", "\\[")
    text = re.sub(rf"(?<={_TIGHT})_(?:\{{([^}}]+)\}}|([A-Za-z0-9α-ω]+))", lambda m: f"<sub>{m[1] or m[2]}</sub>", text)
    text = re.sub(
        rf"(?<={_TIGHT})\^(?:\{{([^}}]+)\}}|\(([^)]+)\)|(-?[A-Za-z0-9]+))",
        lambda m: f"<sup>{m[1] or m[2] or m[3]}</sup>",
        text,
    )
    text = re.sub(r"(?<=[A-Za-z)>])\^(?=-?\d)", "^", text)
    return text.replace("_", "\\_")


def typeset(text: str) -> str:
    """Text with ``code``, **bold** and *emphasised* parts, which stay as they are."""
    parts = _KEPT.split(text)
    kept = [f"`{p.strip('`')}`" if p.startswith("`") else p for p in parts]
    return "".join(kept[i] if i % 2 else formula(p) for i, p in enumerate(parts))


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring, each typeset; indented lines become displayed formulas."""
    out = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if all(line.startswith("    ") for line in block.splitlines()):
            out.append(
                '<p class="display">' + "<br>".join(typeset(line.strip()) for line in block.splitlines()) + "</p>"
            )
        else:
            out.append(typeset(block))
    return out


def cell(text: str) -> str:
    """Typeset text inside a table."""
    return typeset(text).replace("|", "\\|")
