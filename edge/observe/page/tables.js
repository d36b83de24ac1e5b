// Tables and lists that are kept up to date without being made anew: what a reader has selected, or scrolled to, stays.

import { html } from "/chart.js";

/** Puts text, or a node, where something else stood. */
function put(cell, content) {
  if (content instanceof Node) cell.replaceChildren(content);
  else if (cell.textContent !== String(content) || cell.firstElementChild) cell.textContent = content;
}

export class Table {
  /** columns: [{label, hint, cell(row) -> text or node, number: bool, state(row) -> class or ""}] */
  constructor(table, columns, nothing) {
    this.columns = columns;
    this.nothing = nothing;
    this.rows = new Map();
    this.body = html("tbody");
    const heads = columns.map(({ label, hint, number }) => html(
      "th", { scope: "col", class: number ? "number" : "", ...(hint ? { title: hint } : {}) }, label));
    table.append(html("thead", {}, html("tr", {}, ...heads)), this.body);
  }

  /** rows: [{key, ...}] in order. */
  show(rows) {
    const wanted = new Set(rows.map((row) => row.key));
    for (const [key, line] of this.rows) {
      if (!wanted.has(key)) {
        line.remove();
        this.rows.delete(key);
      }
    }
    if (!rows.length) {
      const cell = html("td", { colspan: this.columns.length, class: "nothing" }, this.nothing);
      this.body.replaceChildren(html("tr", {}, cell));
      return;
    }
    this.body.querySelector("td.nothing")?.parentElement.remove();
    rows.forEach((row, i) => {
      let line = this.rows.get(row.key);
      if (!line) {
        line = html("tr", {}, ...this.columns.map((column, c) => html(c ? "td" : "th", c ? {} : { scope: "row" })));
        this.rows.set(row.key, line);
      }
      if (this.body.children[i] !== line) this.body.insertBefore(line, this.body.children[i] ?? null);
      line.className = row.kind ?? "";
      this.columns.forEach((column, c) => {
        const cell = line.children[c];
        const classes = [column.number ? "number" : "", column.state?.(row) ?? ""].filter(Boolean).join(" ");
        if (cell.className !== classes) cell.className = classes;
        put(cell, column.cell(row));
      });
    });
  }
}

/** A word with a mark of its own shape: state is "good", "warn", "bad" or "off". */
export function badge(text, state) {
  const mark = { good: "●", warn: "▲", bad: "✖", off: "○" }[state];
  return html("span", { class: `badge ${state}` }, html("i", { "aria-hidden": "true" }, mark), text);
}

/** Pairs of a name and a value in a <dl>. */
export function showPairs(list, pairs) {
  while (list.children.length > pairs.length * 2) list.lastElementChild.remove();
  pairs.forEach(([name, value], i) => {
    if (!list.children[i * 2]) list.append(html("dt"), html("dd"));
    put(list.children[i * 2], name);
    put(list.children[i * 2 + 1], value);
  });
}

/** The number of list items that are wanted, made by make(); then fill(item, one) for each. */
export function showItems(list, wanted, make, fill) {
  while (list.children.length > wanted.length) list.lastElementChild.remove();
  wanted.forEach((one, i) => {
    if (!list.children[i]) list.append(make());
    fill(list.children[i], one);
  });
}
