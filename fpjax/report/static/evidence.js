"use strict";
// The evidence of the selected verdict: what was found, how strong it is, the theorem, the witness or certificate, and the
// command that derives it again. Written as text nodes only: nothing in an audit can become markup.

const GRADES = { A: "ASSUMED", S: "SAMPLED", P: "PROBABLE", E: "ENCLOSED" };

// The detail of a cell: its words and its numbers, put together again.
function detailOf(cells, i) {
  const pieces = cells.details[cells.words[i]];
  cells.lines = cells.lines || cells.numbers.split("\n");
  const numbers = cells.lines[i].split(" ");
  return pieces.map((p, k) => (k ? numbers[k - 1] : "") + p).join("");
}

function badge(verdict) { return html("span", { class: "badge " + verdict }, verdict); }

function commandFor(audit, verdict, detail, w, question, step) {
  const file = (detail.match(/\(([^()]*\.json)\)/) || [])[1];
  if (verdict === "CERTIFIED" && file) return `fpjax check ${file}`;
  if (audit.command) return audit.command.replace(/--guidance \S+/, `--guidance ${w}`);
  const s = audit.settings;
  return `rep = fpjax.audit(den, process, images=images, condition=condition, guidance=${w},\n` +
    `                  solver="${s.solver}", tol=${s.tol}, seed=${s.seed})  # as this audit was made, from Python\n` +
    `[r for r in rep.table if (r["step"], r["question"]) == (${step}, "${question}")]`;
}

// A vector as a picture where it has the size of a square image.
function picture(key, values) {
  const side = Math.sqrt(values.length);
  if (!Number.isInteger(side) || side < 3) return null;
  const canvas = html("canvas", { width: side, height: side, role: "img", "aria-label": `${key} as a picture`, style: "width:72px;height:72px;image-rendering:pixelated;border-radius:4px" });
  const context = canvas.getContext("2d"), data = context.createImageData(side, side);
  const top = Math.max(...values.map(Math.abs)) || 1;
  values.forEach((v, i) => data.data.set([127.5 * (v / top + 1), 127.5 * (v / top + 1), 127.5 * (v / top + 1), 255], 4 * i));
  context.putImageData(data, 0, 0);
  return html("figure", { class: "picture", style: "display:inline-block;margin-right:.6rem" }, canvas, html("figcaption", {}, key));
}

function witnessOf(w) {
  const facts = [], vectors = [];
  for (const [key, v] of Object.entries(w)) {
    if (Array.isArray(v)) vectors.push([key, v]);
    else if (v && typeof v === "object") facts.push(`${key}: ${v.length} numbers, in audit.json`);
    else facts.push(`${key}: ${typeof v === "number" ? number(v) : v}`);
  }
  const out = [html("h3", {}, "Witness"), html("p", {}, facts.join(" · "))];
  if (vectors.length) {
    const shown = vectors.map(([k, v]) => picture(k, v)).filter(Boolean);
    if (shown.length) out.push(html("div", {}, ...shown));
    const text = vectors.map(([k, v]) => `${k} = [${v.map(number).join(", ")}]`).join("\n");
    out.push(html("details", {}, html("summary", {}, "the numbers"), html("pre", { tabindex: "0" }, text)));
  }
  return out;
}

class Evidence {
  constructor(host, page) { Object.assign(this, { host, page }); }

  half(a) {
    const { page } = this, audit = page.audits[a], cells = audit.cells, s = page.state;
    const i = page.toAudit(a, s.step), g = audit.guidance.indexOf(s.guidance), q = cells.questions.indexOf(s.question);
    const cell = g < 0 || q < 0 ? -1 : page.cell(a, g, i, q), verdict = cell < 0 ? "-" : cells.verdict[cell];
    const side = audit.name ? html("p", { class: "side side-" + a }, audit.name) : null;
    if (verdict === "-") return html("div", { class: "half" }, side, html("p", {}, "This audit did not ask this question here."));
    const name = LETTERS[verdict], detail = detailOf(cells, cell), theorem = cells.theorems[cells.theorem[cell]];
    const grade = GRADES[cells.evidence[cell]], step = cells.steps[i], witness = cells.witnesses[cell];
    const proofs = audit.certificates.filter(c => detail.includes(`(${c.file})`));
    return html("div", { class: "half", "data-verdict": name }, side,
      html("p", {}, badge(name), " ", page.texts.verdicts[name]),
      html("p", { class: "big" }, number(cells.value[cell])),
      html("p", { class: "where" }, page.texts.values[s.question] || "value"),
      html("p", { class: "detail" }, detail),
      html("p", { class: "where" }, `sigma ${number(cells.sigma_to[i])} → ${number(cells.sigma_from[i])}, rho ${number(cells.rho[i])}, step ${step} of ${cells.steps.length}`),
      html("h3", {}, "Evidence"), html("p", {}, html("b", {}, grade), ": " + page.texts.evidence[grade]),
      html("h3", {}, "Theorem " + theorem), html("p", { class: "theorem" }, page.texts.theorems[theorem] || ""),
      ...(witness ? witnessOf(witness) : []),
      ...proofs.flatMap(c => [html("h3", {}, "Certificate"), html("p", {}, c.statement), html("p", {}, html("a", { href: encodeURI(c.file) }, c.file))]),
      html("h3", {}, "Derive it again"), html("pre", { class: "command", tabindex: "0" }, commandFor(audit, name, detail, s.guidance, s.question, step)));
  }

  draw() {
    const { page } = this, s = page.state;
    const button = (text, change) => { const b = html("button", { type: "button" }, text); b.addEventListener("click", () => page.select(change())); return b; };
    const cycle = (list, now, by) => list[(list.indexOf(now) + by + list.length) % list.length];
    this.host.replaceChildren(
      html("h2", {}, page.texts.asked[s.question] || s.question),
      html("p", { class: "where" }, `${s.question}, step ${s.step}, guidance ${number(s.guidance)}`),
      ...page.audits.map((_, a) => this.half(a)),
      html("div", { class: "walk" },
        button("← step", () => ({ step: Math.max(1, s.step - 1) })),
        button("step →", () => ({ step: Math.min(page.steps, s.step + 1) })),
        button("next question", () => ({ question: cycle(page.questions, s.question, 1) })),
        page.weights.length > 1 ? button("next guidance", () => ({ guidance: cycle(page.weights, s.guidance, 1) })) : null));
  }
}
