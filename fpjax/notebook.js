// The widget's view: text nodes and a <progress>; nothing in a study can become markup.
function element(tag, text, style) {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  if (style) e.style.cssText = style;
  return e;
}

const COLOURS = { CERTIFIED: "#1c5fa8", SUPPORTED: "#2f7d66", INCONCLUSIVE: "#8a6400", REFUTED: "#b03a28" };

function draw(state, el) {
  const bar = element("progress", undefined, "width:100%;height:1rem");
  if (state.total) { bar.max = state.total; bar.value = state.done; }
  bar.setAttribute("aria-label", state.what);
  const parts = [bar, element("div", `${state.done} of ${state.total} · ${state.what}`, "font:13px system-ui,sans-serif;margin:.2rem 0")];
  if (state.lines.length) {
    const table = element("table", undefined, "font:13px system-ui,sans-serif;border-collapse:collapse;margin:.4rem 0");
    const asked = [...new Set(state.lines.flatMap(l => Object.keys(l.counts)))];
    const head = table.createTHead().insertRow();
    for (const name of ["", ...asked]) head.append(element("th", name, "text-align:left;padding:.1rem .7rem .1rem 0"));
    const body = table.createTBody();
    for (const line of state.lines) {
      const row = body.insertRow();
      row.append(element("td", line.name, "padding:.1rem .7rem .1rem 0"));
      for (const question of asked) {
        const cell = element("td", undefined, "padding:.1rem .7rem .1rem 0");
        for (const [verdict, n] of Object.entries(line.counts[question] || {}))
          cell.append(element("span", `${n} ${verdict.toLowerCase()} `, `color:${COLOURS[verdict] || "inherit"};margin-right:.4rem`));
        row.append(cell);
      }
    }
    parts.push(table);
  }
  for (const why of state.failures) parts.push(element("div", `failed: ${why}`, `font:13px system-ui,sans-serif;color:${COLOURS.REFUTED}`));
  el.replaceChildren(...parts);
}

function render({ model, el }) {
  const update = () => draw(model.get("state"), el);
  model.on("change:state", update);
  update();
}

export default { render };
