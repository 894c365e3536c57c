"use strict";
// The map of verdicts: a row for each question and guidance (and audit, when two are compared), runs of equal verdicts as
// one bar. A row is a slider over the steps; the arrow keys up and down go from row to row.

const LETTERS = { C: "CERTIFIED", S: "SUPPORTED", I: "INCONCLUSIVE", R: "REFUTED", "-": "not asked" };

class VerdictMap {
  constructor(host, page) {
    Object.assign(this, { host, page, rows: [] });
    const two = page.audits.length > 1;
    for (const question of page.questions) {
      host.append(html("div", { class: "map-question" }, question, html("span", {}, page.texts.asked[question] || "")));
      for (const w of page.weights) {
        page.audits.forEach((audit, a) => {
          const g = audit.guidance.indexOf(w), q = audit.cells.questions.indexOf(question);
          if (g < 0 || q < 0) return;
          const name = `w = ${number(w)}` + (two ? " " + "AB"[a] : "");
          const row = html("div", { class: "map-row", role: "slider", tabindex: "-1",
            "aria-label": `${question}, guidance ${number(w)}` + (two ? `, ${audit.name}` : ""), "aria-describedby": "map-hint" });
          row.append(html("span", { class: "label" }, name), svg("svg", { "aria-hidden": "true" }));
          const entry = { row, a, g, q, w, question };
          row.addEventListener("click", e => this.pick(entry, e));
          row.addEventListener("pointermove", e => page.hover(this.stepAt(entry, e)));
          row.addEventListener("pointerleave", () => page.hover(null));
          row.addEventListener("keydown", e => this.key(entry, e));
          row.addEventListener("focus", () => page.select({ guidance: w, question }));
          this.rows.push(entry);
          host.append(row);
        });
      }
    }
    const axis = html("div", { class: "map-row" });
    axis.append(html("span", { class: "label" }, "step"), svg("svg", { "aria-hidden": "true" }));
    this.axis = axis.lastChild;
    host.append(axis);
  }

  edges(entry) { return this.page.audits[entry.a].cells.steps.length; }

  stepAt(entry, event) {
    const r = entry.row.lastChild.getBoundingClientRect(), n = this.edges(entry);
    const i = Math.min(n - 1, Math.max(0, Math.floor(((event.clientX - r.left) / r.width) * n)));
    return this.page.fromAudit(entry.a, i);
  }

  pick(entry, event) {
    entry.row.focus({ preventScroll: true });
    this.page.select({ step: this.stepAt(entry, event), guidance: entry.w, question: entry.question });
    this.page.open(false);
  }

  key(entry, event) {
    const i = this.rows.indexOf(entry), to = { ArrowUp: i - 1, ArrowDown: i + 1 }[event.key];
    if (to !== undefined) {
      if (this.rows[to]) this.rows[to].row.focus();
      event.preventDefault();
    } else if (event.key === "Enter" || event.key === " ") {
      this.page.open(true);
      event.preventDefault();
    } else this.page.walk(event);
  }

  draw() {
    for (const entry of this.rows) this.drawRow(entry);
    const width = Math.max(this.axis.clientWidth, 100), n = this.page.steps;
    this.axis.setAttribute("viewBox", `0 0 ${width} 18`);
    this.axis.setAttribute("height", 18);
    this.axis.replaceChildren();
    let last = -Infinity;
    for (let k = 1; k <= n; k++) {
      const x = ((k - 0.5) / n) * width;
      if (k !== 1 && (k % this.every(n, width) || x - last < 24 || x > width - 10)) continue;
      svg("text", { x, y: 13, "text-anchor": k === 1 && n > 40 ? "start" : "middle" }, this.axis).textContent = k;
      last = x;
    }
    this.update();
  }

  every(n, width) {
    const raw = (n * 34) / width;
    return [1, 2, 5, 10, 20, 50, 100, 200, 500].find(k => k >= raw) || 1000;
  }

  drawRow(entry) {
    const { row, a, g, q } = entry, cells = this.page.audits[a].cells, n = cells.steps.length;
    const root = row.lastChild, width = Math.max(root.clientWidth, 100), tall = width > 1800 ? 26 : 20;
    root.setAttribute("viewBox", `0 0 ${width} ${tall}`);
    root.setAttribute("height", tall);
    root.replaceChildren();
    const letter = i => cells.verdict[this.page.cell(a, g, i, q)];
    const apart = width / n >= 7; // single steps, or runs where they would be hairlines
    for (let i = 0; i < n;) {
      let j = i + 1;
      while (!apart && j < n && letter(j) === letter(i)) j++;
      const x = (i / n) * width, w = ((j - i) / n) * width;
      if (letter(i) !== "-")
        svg("rect", { x: x + (apart ? 0.75 : 0), y: 2, width: Math.max(0.6, w - (apart ? 1.5 : 0)), height: tall - 4, rx: apart ? 3 : 0, class: "cell " + letter(i), "stroke-width": 0 }, root);
      if (apart && w >= 10) this.glyph(root, letter(i), x + w / 2, tall / 2);
      i = j;
    }
    entry.here = svg("g", {}, root);
    entry.box = { width, tall, n };
  }

  // Not by colour alone: a proof is a full dot, a refutation a cross, an open question a ring.
  glyph(root, letter, x, y) {
    const d = { R: `M${x - 3} ${y - 3}l6 6m0-6l-6 6`, I: `M${x - 3} ${y}a3 3 0 1 0 6 0a3 3 0 1 0-6 0`, C: `M${x - 3.5} ${y}l2.5 3l4.5-6` }[letter];
    if (d) svg("path", { d, class: "mark " + letter }, root);
  }

  update() {
    const s = this.page.state;
    for (const e of this.rows) {
      if (!e.box) continue;
      const { width, tall, n } = e.box, chosen = e.w === s.guidance && e.question === s.question;
      const at = step => this.page.toAudit(e.a, step), w = Math.max(width / n, 3);
      e.here.replaceChildren();
      for (const step of [this.page.hovered, s.step])
        if (step !== null) svg("rect", { x: ((at(step) + 0.5) / n) * width - w / 2, y: -1.5, width: w, height: tall + 3, class: "here" }, e.here);
      if (chosen) svg("rect", { x: ((at(s.step) + 0.5) / n) * width - Math.max(w, 7) / 2, y: 0, width: Math.max(w, 7), height: tall, rx: 4, class: "pick" }, e.here);
      chosen ? e.row.setAttribute("aria-current", "true") : e.row.removeAttribute("aria-current");
      const cells = this.page.audits[e.a].cells, i = at(s.step);
      e.row.tabIndex = chosen && (e.a === 0 || !this.rows.some(o => o.a === 0 && o.w === e.w && o.question === e.question)) ? 0 : -1;
      e.row.setAttribute("aria-valuemin", "1");
      e.row.setAttribute("aria-valuemax", String(n));
      e.row.setAttribute("aria-valuenow", String(i + 1));
      e.row.setAttribute("aria-valuetext", `step ${i + 1}: ${LETTERS[cells.verdict[this.page.cell(e.a, e.g, i, e.q)]]}`);
    }
  }
}
