"use strict";
// The page: one state (step, guidance, question), shown by the map, the plots and the evidence, and kept in the address.

const METHOD_HUES = { picard: 20, relaxed: 75, anderson: 250, newton_krylov: 155, auto: 310 };

function hue(h) { return `light-dark(oklch(0.52 0.14 ${h}), oklch(0.77 0.12 ${h}))`; }

class Page {
  constructor(data) {
    Object.assign(this, { audits: data.audits, texts: data.texts, hovered: null, bySigma: false });
    this.questions = [...new Set(this.audits.flatMap(a => a.cells.questions))];
    this.weights = [...new Set(this.audits.flatMap(a => a.guidance))].sort((p, q) => p - q);
    this.steps = this.audits[0].cells.steps.length;
    this.state = this.fromAddress();
    this.map = new VerdictMap(document.getElementById("map"), this);
    this.evidence = new Evidence(document.getElementById("evidence"), this);
    this.charts = specs(this).map(spec => new Chart(spec, this));
    document.getElementById("plots").append(...this.charts.map(c => c.host));
    this.tools();
    this.draw();
    let width = innerWidth;
    addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; this.draw(); } });
    addEventListener("beforeprint", () => this.draw());
    addEventListener("hashchange", () => { this.state = this.fromAddress(); this.refresh(); });
  }

  cell(a, g, i, q) {
    const c = this.audits[a].cells;
    return (g * c.steps.length + i) * c.questions.length + q;
  }

  // A step of the first audit as an index into audit a: the same step, or the nearest noise level.
  toAudit(a, step) {
    if (a === 0) return step - 1;
    const cells = this.audits[a].cells, own = this.audits[0].cells;
    if (cells.steps.length === own.steps.length && !this.bySigma) return step - 1;
    return nearestIndex(cells.sigma_from.map(Math.log), Math.log(own.sigma_from[step - 1]));
  }

  fromAudit(a, i) {
    const cells = this.audits[a].cells, own = this.audits[0].cells;
    if (a === 0 || (cells.steps.length === own.steps.length && !this.bySigma)) return i + 1;
    return nearestIndex(own.sigma_from.map(Math.log), Math.log(cells.sigma_from[i])) + 1;
  }

  xOf(a, step) { return this.xs(a)[step - 1]; }
  xs(a) { const c = this.audits[a].cells; return this.bySigma ? c.sigma_from : c.steps; }

  nearestStep(px, scale) { return nearestIndex(this.xs(0).map(x => scale.at(x)), px) + 1; }

  fromAddress() {
    const asked = new URLSearchParams(location.hash.slice(1));
    const worst = firstOpen(this.audits[0], this.questions);
    const step = Number(asked.get("step")), w = Number(asked.get("guidance") ?? NaN), question = asked.get("question");
    return {
      step: step >= 1 && step <= this.steps && Number.isInteger(step) ? step : worst.step,
      guidance: this.weights.includes(w) ? w : worst.guidance,
      question: this.questions.includes(question) ? question : worst.question,
    };
  }

  select(change) {
    const before = JSON.stringify(this.state);
    Object.assign(this.state, change);
    if (JSON.stringify(this.state) === before) return;
    const s = this.state;
    try {
      history.replaceState(null, "", `#step=${s.step}&guidance=${s.guidance}&question=${encodeURIComponent(s.question)}`);
    } catch (e) { /* an address that may not be changed is no reason to stop */ }
    this.refresh();
  }

  refresh() {
    this.map.update();
    this.evidence.draw();
    for (const c of this.charts) c.draw();
  }

  hover(step) {
    if (step === this.hovered) return;
    this.hovered = step;
    this.map.update();
    for (const c of this.charts) c.cross();
  }

  walk(event) {
    const s = this.state.step, far = Math.max(1, Math.round(this.steps / 10));
    const to = { ArrowLeft: s - 1, ArrowRight: s + 1, ArrowDown: s - 1, ArrowUp: s + 1, PageUp: s + far, PageDown: s - far, Home: 1, End: this.steps }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.select({ step: Math.min(this.steps, Math.max(1, to)) });
  }

  // Shows the evidence; the keyboard goes there, the pointer only where it is out of sight.
  open(focus) {
    const host = this.evidence.host;
    if (focus) host.focus({ preventScroll: true });
    const r = host.getBoundingClientRect();
    if (r.top > innerHeight - 120 || r.bottom < 60) host.scrollIntoView({ block: "start" });
    const found = host.querySelector("[data-verdict]");
    document.getElementById("live").textContent =
      `${host.querySelector(".where").textContent}: ${found ? found.dataset.verdict : "not asked"}. ${(host.querySelector(".detail") || {}).textContent || ""}`;
  }

  draw() {
    this.map.draw();
    this.evidence.draw();
    for (const c of this.charts) c.draw();
  }

  tools() {
    const theme = document.getElementById("theme"), names = ["auto", "light", "dark"], root = document.documentElement;
    theme.hidden = false;
    theme.addEventListener("click", () => {
      const next = names[(names.indexOf(root.dataset.theme || "auto") + 1) % 3];
      if (next === "auto") delete root.dataset.theme; else root.dataset.theme = next;
      theme.textContent = "Theme: " + next;
    });
    const axis = document.getElementById("axis");
    axis.hidden = false;
    axis.addEventListener("click", () => {
      this.bySigma = !this.bySigma;
      axis.textContent = this.bySigma ? "Axis: noise level σ" : "Axis: step";
      axis.setAttribute("aria-pressed", String(this.bySigma));
      this.refresh();
    });
  }
}

function nearestIndex(values, v) {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (Math.abs(values[i] - v) < Math.abs(values[best] - v)) best = i;
  return best;
}

// Where a reader wants to look first: a refutation, else an open question, else the first verdict.
function firstOpen(audit, questions) {
  const { verdict, steps, questions: asked } = audit.cells;
  const i = Math.max(0, ["R", "I"].map(l => verdict.indexOf(l)).find(k => k >= 0) ?? 0);
  const q = i % asked.length, s = Math.floor(i / asked.length) % steps.length;
  return { step: s + 1, guidance: audit.guidance[Math.floor(i / asked.length / steps.length)], question: asked[q] || questions[0] };
}

function colour(page, a, g) {
  const n = page.audits[a].guidance.length;
  if (page.audits.length > 1) return hue([250, 45][a]);
  return hue(n <= 4 ? [250, 45, 155, 310][g] : 265 - (240 * g) / (n - 1));
}

// One line for each audit and guidance; the selected guidance stands out.
function lines(page, values, more) {
  const out = [];
  page.audits.forEach((audit, a) => audit.guidance.forEach((w, g) => {
    const ys = values(audit, g, a);
    if (!ys) return;
    const on = w === page.state.guidance;
    out.push({ xs: page.xs(a), ys: ys.map(v => (v === null ? NaN : v)), colour: colour(page, a, g), on, a, pick: { guidance: w },
      label: (page.audits.length > 1 ? "AB"[a] + ", " : "") + `w = ${number(w)}`, at: step => ys[page.toAudit(a, step)], ...more });
  }));
  return out;
}

function keysOf(series) { return series.map(({ label, colour, on, dash }) => ({ label, colour, on, dash })); }

function ofQuestion(question) {
  return (audit, g, a) => {
    const q = audit.cells.questions.indexOf(question), n = audit.cells.steps.length, k = audit.cells.questions.length;
    return q < 0 ? null : audit.cells.steps.map((_, i) => audit.cells.value[(g * n + i) * k + q]);
  };
}

function overSteps(page, more) {
  return { overSteps: true, x: "inversion step (1 = cleanest)", ...more, draw: state => {
    const d = more.draw(state);
    return { ...d, keys: d.keys || keysOf(d.series), xKind: page.bySigma ? "log" : "linear", xLabel: page.bySigma ? "noise level sigma" : undefined };
  } };
}

function specs(page) {
  const has = key => page.audits.some(a => a.curves.length && a.curves.some(c => c[key]));
  const plain = (id, question, title, note, y, rest) => overSteps(page, { id, title, note, y, draw: () => ({ series: lines(page, ofQuestion(question)), ...rest }) });
  const out = [
    plain("kappa", "contraction", "kappa of plain iteration (T3)",
      "The largest expansion of G seen at each step, a lower estimate of kappa. Above 1, plain iteration need not converge.",
      { kind: "log" }, { edges: [{ y: 1, label: "kappa = 1" }], bad: [[1, Infinity]] }),
    plain("modulus", "uniqueness", "modulus m of monotonicity (T2)",
      "The proved lower bound where the step is certified, the smallest value seen otherwise. Where m > 0 everywhere, the solution is unique.",
      { kind: "auto" }, { edges: [{ y: 0, label: "m = 0" }], bad: [[-Infinity, 0]] }),
  ];
  if (has("lambda_min")) out.push(spectrum(page));
  if (has("histories")) out.push(histories(page));
  out.push(errors(page));
  if (page.questions.includes("guidance-limit"))
    out.push(plain("limit", "guidance-limit", "guidance limit (T11)",
      "Guidance below the curve keeps the solution unique, as far as the points looked at tell.", { kind: "log" },
      { edges: page.weights.map(w => ({ y: w, label: `w = ${number(w)}`, optional: true })) }));
  return out.filter(s => s.id !== "limit" || page.audits.some((a, i) => a.guidance.some((_, g) => (ofQuestion("guidance-limit")(a, g, i) || []).some(v => v !== null))));
}

function curveOf(page, a) { return page.audits[a].curves.find(c => c.guidance === page.state.guidance); }

function spectrum(page) {
  return overSteps(page, { id: "spectrum", title: "spectrum of J in T3's window", y: { kind: "symlog" },
    note: "Bars: smallest to largest eigenvalue of sym J seen. Band: the window in which G contracts when J is symmetric. Its lower edge is T2's; a bar that leaves it is red.",
    draw: () => {
      const bands = [];
      page.audits.forEach((audit, a) => {
        const c = curveOf(page, a), name = page.audits.length > 1 ? "AB"[a] + " " : "";
        if (!c) return;
        const nan = v => v.map(x => (x === null ? NaN : x)), xs = page.xs(a), at = (lo, hi) => s => { const i = page.toAudit(a, s); return lo[i] === null ? null : [lo[i], hi[i]]; };
        if (a === 0 || !curveOf(page, 0)) bands.push({ xs, low: nan(c.window_low), high: nan(c.window_high), kind: "window", label: name + "window", at: at(c.window_low, c.window_high) });
        bands.push({ xs, low: nan(c.lambda_min), high: nan(c.lambda_max), kind: "measured", bars: true, colour: colour(page, a, page.audits[a].guidance.indexOf(c.guidance)),
          outside: i => c.lambda_min[i] <= c.window_low[i] || c.lambda_max[i] >= c.window_high[i], label: name + "spectrum", at: at(c.lambda_min, c.lambda_max) });
      });
      const measured = bands.find(b => b.bars);
      return { series: [], bands, now: `guidance ${number(page.state.guidance)}`, keys: [{ label: "T3's window", fill: "window" }, { label: "spectrum seen", fill: "measured", colour: measured && measured.colour }] };
    } });
}

function histories(page) {
  return { id: "histories", title: "residual by method", x: "evaluations of the step", y: { kind: "log" },
    note: "One image, from the naive start: the residual of the point each method stands on. Select a step to see its own.",
    draw: state => {
      const series = [];
      let now = "", tol = null;
      page.audits.forEach((audit, a) => {
        const c = curveOf(page, a);
        if (!c || !c.histories.steps.length) return;
        const i = nearestIndex(c.histories.steps, page.toAudit(a, state.step) + 1);
        tol = c.histories.tol;
        now = `step ${c.histories.steps[i]}` + (c.histories.steps[i] === page.toAudit(a, state.step) + 1 ? "" : ", the nearest that was kept") + `, guidance ${number(state.guidance)}`;
        for (const [method, runs] of Object.entries(c.histories.residuals))
          series.push({ xs: runs[i].map((_, k) => k + 1), ys: runs[i], colour: hue(METHOD_HUES[method] ?? 200), on: method === "auto", bare: true, dash: a ? "5 4" : undefined,
            label: (page.audits.length > 1 ? "AB"[a] + ", " : "") + method });
      });
      const words = series.map(s => s.ys.length ? `${s.label} ends at ${number(s.ys[s.ys.length - 1])} after ${s.ys.length}` : `${s.label} has no finite residual`).join("; ");
      return { series, keys: keysOf(series), now, words, edges: tol === null ? [] : [{ y: tol, label: "tolerance", optional: true }] };
    },
    readout: (d, px, scale) => {
      const most = Math.max(0, ...d.series.map(s => s.xs.length));
      if (!most) return null;
      const k = nearestIndex(Array.from({ length: most }, (_, i) => scale.at(i + 1)), px);
      return [`after ${k + 1} evaluations`, ...d.series.map(s => `${s.label}: ${k < s.ys.length ? number(s.ys[k]) : "ended at " + number(s.ys[s.ys.length - 1])}`)];
    } };
}

function errors(page) {
  return overSteps(page, { id: "error", title: "error that the residual implies (T8)", y: { kind: "log" },
    note: "Solid: residual over the modulus, step by step. Dashed: bound on the distance to the exact trajectory so far (T8 with T9), where a modulus is declared.",
    draw: () => {
      const own = lines(page, ofQuestion("error"));
      const total = lines(page, (audit, g) => { const c = audit.curves.find(k => k.guidance === audit.guidance[g]); return c && audit.guidance[g] === page.state.guidance ? c.latent_error_bound : null; }, { dash: "6 4", bare: true })
        .filter(s => s.ys.some(Number.isFinite)).map(s => ({ ...s, label: s.label + ", so far" }));
      return { series: own.concat(total) };
    } });
}

window.page = new Page(JSON.parse(document.getElementById("data").textContent));
