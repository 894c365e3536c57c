"use strict";
// Plots: scales, axes and lines as SVG, drawn at the size they have on the page. Every plot over steps is also a slider,
// so that the keyboard walks through it and a screen reader says the values.

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, parent) {
  const e = document.createElementNS(SVG, tag);
  for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
  if (parent) parent.append(e);
  return e;
}

function html(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes || {})) e.setAttribute(k, v);
  e.append(...children.filter(c => c !== null && c !== undefined));
  return e;
}

// Four digits for reading; no value is a dash.
function number(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  const size = Math.abs(v);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return v.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return String(Number(v.toPrecision(4)));
}

const shapes = {
  linear: { to: v => v, from: v => v },
  log: { to: v => Math.log10(v), from: v => 10 ** v },
  symlog: { to: v => Math.asinh(v), from: v => Math.sinh(v) }, // linear near 0, logarithmic far out, both signs
};

function linearTicks(lo, hi, most) {
  const raw = (hi - lo) / Math.max(most, 1), unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(k => k * unit).find(k => k >= raw * 0.999);
  const out = [];
  for (let k = Math.ceil(lo / step - 1e-9); k * step <= hi + 1e-9 * step; k++) out.push(k * step);
  return out;
}

function ticks(kind, lo, hi, most) { // lo, hi in the values' own units
  if (kind === "linear") return linearTicks(lo, hi, most);
  if (kind === "log") {
    const a = Math.ceil(Math.log10(lo) - 1e-9), b = Math.floor(Math.log10(hi) + 1e-9);
    if (b - a < 1) {
      const near = [];
      for (let k = a - 1; k <= b; k++) for (const m of [1, 2, 5]) near.push(m * 10 ** k);
      const inside = near.filter(v => v >= lo * 0.999 && v <= hi * 1.001);
      return inside.length > 1 ? inside : linearTicks(lo, hi, 3);
    }
    const every = Math.ceil((b - a + 1) / most), out = [];
    for (let k = a; k <= b; k++) if ((k - a) % every === 0) out.push(10 ** k);
    return out;
  }
  const out = [0], top = Math.max(Math.abs(lo), Math.abs(hi), 1), decades = Math.ceil(Math.log10(top));
  for (let k = 0; k <= decades; k += Math.max(1, Math.ceil(decades / 3))) out.push(10 ** k, -(10 ** k));
  if (decades <= 1) out.push(3, -3);
  return out.filter(v => v >= lo && v <= hi).sort((p, q) => p - q);
}

class Scale {
  constructor(kind, lo, hi, from, to) {
    Object.assign(this, { kind, lo, hi, from, to });
    this.a = shapes[kind].to(lo);
    this.k = (to - from) / ((shapes[kind].to(hi) - this.a) || 1);
  }
  at(v) { return this.from + this.k * (shapes[this.kind].to(v) - this.a); }
  ticks(most) { return ticks(this.kind, this.lo, this.hi, most); }
}

// A scale that shows all values, with a little air; kind "auto" turns to symlog when they spread far.
function fitted(kind, values, from, to, include) {
  let seen = values.filter(v => Number.isFinite(v) && (kind !== "log" || v > 0));
  seen = seen.concat((include || []).filter(v => Number.isFinite(v)));
  if (!seen.length) seen = kind === "log" ? [0.1, 10] : [0, 1];
  let lo = Infinity, hi = -Infinity;
  for (const v of seen) { if (v < lo) lo = v; if (v > hi) hi = v; }
  if (kind === "auto") kind = Math.max(Math.abs(lo), Math.abs(hi)) > 8 ? "symlog" : "linear";
  const f = shapes[kind];
  let a = f.to(lo), b = f.to(hi);
  const air = 0.06 * (b - a) || (kind === "log" ? 0.5 : 0.5 * Math.abs(b) || 1);
  return new Scale(kind, f.from(a - air), f.from(b + air), from, to);
}

// At most four points for each pixel column: the first, the smallest, the largest and the last, so no extreme is lost.
function thin(points, width) {
  if (points.length <= 2 * width) return points;
  const out = [];
  for (let i = 0; i < points.length;) {
    const column = Math.round(points[i][0]);
    let j = i, low = i, high = i;
    for (; j < points.length && Math.round(points[j][0]) === column; j++) {
      if (points[j][1] < points[low][1]) low = j;
      if (points[j][1] > points[high][1]) high = j;
    }
    for (const k of [...new Set([i, low, high, j - 1])].sort((p, q) => p - q)) out.push(points[k]);
    i = j;
  }
  return out;
}

function pathOf(points) {
  return points.map((p, i) => (i ? "L" : "M") + p[0].toFixed(1) + " " + p[1].toFixed(1)).join("");
}

// One plot. spec: {title, note, x: {kind, label}, y: {kind, label, include}, draw(state) -> {series, bands, edges, bad}}
// A series is {xs, ys, colour, label, on, dash}; a band {xs, low, high, kind}; an edge {y, label}.
class Chart {
  constructor(spec, page) {
    Object.assign(this, { spec, page });
    this.title = html("h3", { class: "chart-title" }, spec.title, html("span", { class: "now" }));
    this.keys = html("ul", { class: "keys" });
    this.plot = html("div", { class: "plot" });
    this.tip = html("div", { class: "tip", hidden: "" });
    this.host = html("figure", { class: "chart", id: "chart-" + spec.id }, this.title, this.keys, this.plot,
      html("figcaption", {}, spec.note));
    if (spec.overSteps) {
      for (const [k, v] of Object.entries({ role: "slider", tabindex: "0", "aria-label": spec.title + ", by step" }))
        this.plot.setAttribute(k, v);
      this.plot.addEventListener("keydown", e => page.walk(e));
      this.plot.addEventListener("click", e => { const near = this.nearest(e); if (near) page.select(near); });
    }
    this.plot.addEventListener("pointermove", e => this.point(e));
    this.plot.addEventListener("pointerleave", () => { this.tip.hidden = true; page.hover(null); });
  }

  draw() {
    const width = Math.max(this.plot.clientWidth, 200), big = innerWidth >= 2400;
    const height = Math.round(Math.min(Math.max(width * 0.52, 190), big ? 460 : 300));
    const m = { left: big ? 72 : 52, right: 10, top: 10, bottom: big ? 52 : 40 };
    const d = this.shown = this.spec.draw(this.page.state);
    const ys = [], xs = [];
    for (const s of d.series) { ys.push(...s.ys); xs.push(...s.xs); }
    for (const b of d.bands || []) { ys.push(...b.low, ...b.high); xs.push(...b.xs); }
    const include = (d.edges || []).filter(e => !e.optional).map(e => e.y);
    this.y = fitted(d.yKind || this.spec.y.kind, ys, height - m.bottom, m.top, include);
    const lo = Math.min(...xs), hi = Math.max(...xs);
    this.x = xs.length ? new Scale(d.xKind || "linear", lo, hi > lo ? hi : lo + 1, m.left + 6, width - m.right - 6)
      : new Scale("linear", 0, 1, m.left, width - m.right);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    this.box = { ...m, width, height };
    this.axes(root, d);
    this.marks(root, d);
    this.lines = svg("g", {}, root);
    this.plot.replaceChildren(root, this.tip);
    this.legend(d);
    this.cross();
  }

  axes(root, d) {
    const { left, right, top, bottom, width, height } = this.box, floor = height - bottom;
    for (const v of this.y.ticks(5)) {
      const y = this.y.at(v);
      if (y < top - 1 || y > floor + 1) continue;
      svg("line", { x1: left, x2: width - right, y1: y, y2: y, class: "gridline" }, root);
      svg("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, root).textContent = number(v);
    }
    svg("line", { x1: left, x2: width - right, y1: floor, y2: floor, class: "axisline" }, root);
    let last = -Infinity;
    for (const v of this.x.ticks(Math.max(2, Math.floor(width / 80)))) {
      const x = this.x.at(v);
      if (x < left - 1 || x > width - right + 1 || x - last < 30 || (this.x.kind === "linear" && v % 1)) continue;
      last = x;
      svg("line", { x1: x, x2: x, y1: floor, y2: floor + 4, class: "axisline" }, root);
      svg("text", { x, y: floor + (left > 60 ? 22 : 17), "text-anchor": "middle" }, root).textContent = number(v);
    }
    svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, root).textContent = d.xLabel || this.spec.x;
  }

  marks(root, d) {
    const { left, right, top, bottom, width, height } = this.box, floor = height - bottom;
    const inside = y => Math.min(Math.max(y, top), floor);
    for (const [a, b] of d.bad || []) {
      const y1 = inside(this.y.at(b)), y2 = inside(this.y.at(a));
      if (y2 > y1) svg("rect", { x: left, width: width - left - right, y: y1, height: y2 - y1, class: "bad" }, root);
    }
    for (const b of d.bands || []) this.band(root, b);
    for (const e of d.edges || []) {
      const y = this.y.at(e.y);
      if (!(y >= top && y <= floor)) continue;
      svg("line", { x1: left, x2: width - right, y1: y, y2: y, class: "edge" }, root);
      svg("text", { x: width - right - 2, y: y - 5 < top + 8 ? y + 14 : y - 5, "text-anchor": "end", class: "edge-label" }, root).textContent = e.label;
    }
    for (const s of [...d.series].sort((p, q) => Number(p.on) - Number(q.on))) {
      const at = i => [this.x.at(s.xs[i]), this.y.at(s.ys[i])];
      let runs = [[]];
      s.ys.forEach((v, i) => {
        if (Number.isFinite(v) && (this.y.kind !== "log" || v > 0)) runs[runs.length - 1].push(at(i));
        else if (runs[runs.length - 1].length) runs.push([]);
      });
      const on = s.on ? " on" : "", style = `stroke:${s.colour}` + (s.dash ? `;stroke-dasharray:${s.dash}` : "");
      runs = runs.filter(r => r.length);
      svg("path", { d: runs.map(r => pathOf(thin(r, width))).join(""), class: "series" + on, style }, root);
      const points = runs.flat();
      if (points.length <= 60 && !s.bare)
        svg("path", { d: points.map(p => `M${p[0] - 3} ${p[1]}a3 3 0 1 0 6 0a3 3 0 1 0-6 0`).join(""), class: "dots" + on, style: `fill:${s.colour}` }, root);
    }
  }

  band(root, b) {
    const up = [], down = [];
    b.xs.forEach((x, i) => {
      if (!Number.isFinite(b.low[i]) || !Number.isFinite(b.high[i])) return;
      up.push([this.x.at(x), this.y.at(b.high[i])]);
      down.push([this.x.at(x), this.y.at(b.low[i])]);
    });
    if (!up.length) return;
    if (b.bars && up.length <= 60) { // measured spectra, a bar a step; what leaves the window is red
      const w = Math.max(3, Math.min(14, 0.5 * (this.box.width - this.box.left) / up.length));
      up.forEach((p, i) => svg("rect", { x: p[0] - w / 2, width: w, y: p[1], height: Math.max(1.5, down[i][1] - p[1]), rx: 2,
        class: "measured" + (b.outside(i) ? " outside" : ""), style: b.outside(i) ? "" : `fill:${b.colour}` }, root));
      return;
    }
    const area = pathOf(thin(up, this.box.width)) + pathOf(thin(down, this.box.width).reverse()).replace("M", "L") + "Z";
    svg("path", { d: area, class: b.kind, style: b.colour ? `fill:${b.colour}` : "" }, root);
    if (b.kind === "window") for (const edge of [up, down]) svg("path", { d: pathOf(thin(edge, this.box.width)), class: "window-line" }, root);
  }

  legend(d) {
    this.keys.replaceChildren(...(d.keys || []).map(k => {
      const sample = svg("svg", { viewBox: "0 0 22 8", "aria-hidden": "true" });
      if (k.fill) svg("rect", { x: 1, y: 0, width: 20, height: 8, rx: 2, class: k.fill, style: k.colour ? `fill:${k.colour}` : "" }, sample);
      else svg("line", { x1: 1, x2: 21, y1: 4, y2: 4, style: `stroke:${k.colour};stroke-width:${k.on ? 3 : 2}` + (k.dash ? `;stroke-dasharray:${k.dash}` : "") }, sample);
      return html("li", {}, sample, k.on ? html("b", {}, k.label) : k.label);
    }));
    this.title.lastChild.textContent = d.now ? " · " + d.now : "";
    if (this.spec.overSteps) {
      const s = this.page.state;
      this.plot.setAttribute("aria-valuemin", "1");
      this.plot.setAttribute("aria-valuemax", String(this.page.steps));
      this.plot.setAttribute("aria-valuenow", String(s.step));
      this.plot.setAttribute("aria-valuetext", this.readout(s.step).join(", "));
    } else {
      this.plot.setAttribute("role", "img");
      this.plot.setAttribute("aria-label", this.spec.title + ": " + (d.words || ""));
    }
  }

  // Crosshairs at the selected step and at the one pointed at; cheap, so that hovering stays smooth.
  cross() {
    if (!this.spec.overSteps || !this.lines) return;
    const { top, bottom, height } = this.box;
    this.lines.replaceChildren();
    for (const [step, cls] of [[this.page.hovered, "cross"], [this.page.state.step, "cross fixed"]]) {
      if (step === null) continue;
      const x = this.x.at(this.page.xOf(0, step));
      svg("line", { x1: x, x2: x, y1: top, y2: height - bottom, class: cls }, this.lines);
    }
  }

  readout(step) {
    const out = [`step ${step}`];
    for (const s of this.shown.series) if (s.at) { const v = s.at(step); if (v !== undefined) out.push(`${s.label} ${number(v)}`); }
    for (const b of this.shown.bands || []) if (b.at) { const v = b.at(step); if (v) out.push(`${b.label} ${number(v[0])} to ${number(v[1])}`); }
    return out;
  }

  // What is under the pointer: the nearest step, and the nearest line there.
  nearest(event) {
    if (!this.x) return null;
    const r = this.plot.getBoundingClientRect(), px = event.clientX - r.left, py = event.clientY - r.top;
    const step = this.page.nearestStep(px, this.x);
    let found = { step }, best = 30;
    for (const s of this.shown.series) {
      if (!s.pick || !s.at) continue;
      const v = s.at(step), gap = Math.abs(this.y.at(v) - py);
      if (Number.isFinite(v) && gap < best) { best = gap; found = { step, ...s.pick }; }
    }
    return found;
  }

  point(event) {
    if (!this.x) return;
    const r = this.plot.getBoundingClientRect(), px = event.clientX - r.left;
    const lines = this.spec.overSteps ? this.readout(this.nearest(event).step) : this.spec.readout(this.shown, px, this.x);
    if (!lines) return;
    if (this.spec.overSteps) this.page.hover(this.nearest(event).step);
    this.tip.replaceChildren(...lines.slice(0, 14).map((line, i) => html("div", i ? {} : { class: "tip-head" }, line)));
    this.tip.hidden = false;
    const left = px > r.width / 2;
    this.tip.style.left = left ? "auto" : px + 14 + "px";
    this.tip.style.right = left ? r.width - px + 14 + "px" : "auto";
    this.tip.style.top = "8px";
  }
}
