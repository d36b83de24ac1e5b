// A chart over time: lines, or areas on top of each other, in SVG. Its legend shows the values under the pointer (or
// where the arrow keys lead), and those of now otherwise.

import { clock } from "/format.js";

const SVG = "http://www.w3.org/2000/svg";
/** For the scale. */
const LEFT = 46;
const RIGHT = 4;
const TOP = 8;
const BOTTOM = 18;
const PIXELS_EACH = 2;

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function html(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Where lines across a chart stand: at 0, and at multiples of 1, 2, 2.5 or 5 times a power of ten; in powers of two
 * where the unit is one of bytes. */
function ticks(top, binary, wanted = 4) {
  const rough = top / wanted;
  const power = binary ? 2 ** Math.floor(Math.log2(rough)) : 10 ** Math.floor(Math.log10(rough));
  const factors = binary ? [1, 2] : [1, 2, 2.5, 5, 10];
  const step = factors.map((factor) => factor * power).find((size) => size >= rough * 0.999);
  return Array.from({ length: Math.floor(top / step * 1.0001) + 1 }, (_, i) => i * step);
}

export class Chart {
  /**
   * title, note: texts. series: [{name, label, value(sample) -> number or null, rare: only shown where there is some,
   * peaks: of several samples the highest counts}], the first at the bottom where they are `stacked`. format(value) ->
   * text; scale: likewise, beside the lines. least: the height of the scale that it has at least. binary: its unit is
   * one of bytes.
   */
  constructor(figure, { title, note = "", series, format, scale, stacked = false, least = 1, binary = false }) {
    this.binary = binary;
    this.scale = scale ?? format;
    this.series = series;
    this.format = format;
    this.stacked = stacked;
    this.least = least;
    this.samples = [];
    this.minutes = 5;
    this.at = null;
    this.title = title;
    this.time = html("span", { class: "time" });
    this.readings = series.map(() => html("b", {}, "–"));
    this.entries = series.map((one, i) => html("li", {},
      html("i", { class: `key ${stacked ? "area" : "line"} s-${one.name}`, "aria-hidden": "true" }),
      html("span", {}, one.label), this.readings[i]));
    const legend = html("ul", { class: "legend" }, ...this.entries);
    this.drawing = svg("svg", { class: "plot", role: "img", tabindex: "0", "aria-label": title });
    const heading = html("h2", {}, title, html("span", { class: "note" }, note));
    figure.append(html("figcaption", {}, heading, this.time), legend, this.drawing);
    this.drawing.addEventListener("pointermove", (event) => this.#point(event));
    this.drawing.addEventListener("pointerleave", () => this.#leave());
    this.drawing.addEventListener("blur", () => this.#leave());
    this.drawing.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.draw()).observe(this.drawing);
  }

  show(samples, minutes, now) {
    this.samples = samples;
    this.minutes = minutes;
    this.now = now;
    this.draw();
  }

  /** What is drawn: {t, gap, values}, at most one for every PIXELS_EACH, the mean of the samples that it stands for. */
  #points(width) {
    const from = this.now - this.minutes * 60000;
    const each = Math.max(1, Math.ceil(this.minutes * 60 * PIXELS_EACH / width)) * 1000;
    const groups = [];
    for (const sample of this.samples) {
      if (sample.t < from - each) continue;
      const slot = Math.floor(sample.t / each);
      if (groups.at(-1)?.slot === slot && !sample.gap) groups.at(-1).samples.push(sample);
      else groups.push({ slot, samples: [sample] });
    }
    return groups.map(({ samples }) => ({
      t: samples.at(-1).t,
      gap: samples[0].gap,
      values: this.series.map((one) => this.#mean(samples.map(one.value), one.peaks)),
    }));
  }

  #mean(values, peaks) {
    const known = values.filter((value) => value != null);
    if (!known.length) return null;
    return peaks ? Math.max(...known) : known.reduce((total, value) => total + value, 0) / known.length;
  }

  draw() {
    const { width, height } = this.drawing.getBoundingClientRect();
    if (!width || !height || !this.now) return;
    const shown = this.#points(width - LEFT - RIGHT);
    const most = Math.max(this.least, ...shown.map(({ values }) => this.stacked
      ? values.reduce((total, value) => total + (value ?? 0), 0) : Math.max(0, ...values.map((value) => value ?? 0))));
    const top = most * 1.08;
    const x = (t) => width - RIGHT - (this.now - t) / (this.minutes * 60000) * (width - LEFT - RIGHT);
    const y = (value) => height - BOTTOM - value / top * (height - TOP - BOTTOM);
    this.shown = shown;
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.drawing.replaceChildren(
      this.#grid(width, y, top), ...(this.stacked ? this.#areas(shown, x, y) : this.#lines(shown, x, y)),
      this.#times(width, height, x), this.#cursor(height, x, y));
    this.#read();
  }

  #grid(width, y, top) {
    const group = svg("g", { class: "grid" });
    for (const value of ticks(top, this.binary)) {
      const at = Math.round(y(value)) + 0.5;
      group.append(svg("line", { x1: LEFT, x2: width - RIGHT, y1: at, y2: at, class: value ? "" : "base" }));
      if (!value) continue;
      const text = this.scale(value).replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
      group.append(svg("text", { x: LEFT - 6, y: at + 3.5, "text-anchor": "end" }, text));
    }
    return group;
  }

  #times(width, height, x) {
    const group = svg("g", { class: "times" });
    const step = this.minutes > 5 ? 2 : 1;
    for (let minute = 0; minute <= this.minutes; minute += step) {
      const at = x(this.now - minute * 60000);
      if (at < LEFT - 1) break;
      const place = { x: at, y: height - 4, "text-anchor": minute ? "middle" : "end" };
      group.append(svg("text", place, minute ? `−${minute} min` : "now"));
    }
    return group;
  }

  /** Runs of points without a gap, as [from, to). */
  #runs(shown) {
    const runs = [];
    shown.forEach((point, i) => {
      if (i === 0 || point.gap) runs.push([i, i + 1]);
      else runs.at(-1)[1] = i + 1;
    });
    return runs;
  }

  #lines(shown, x, y) {
    return this.series.map((one, s) => {
      let path = "";
      let open = false;
      for (const { t, gap, values } of shown) {
        if (values[s] == null) {
          open = false;
          continue;
        }
        path += `${open && !gap ? "L" : "M"}${x(t).toFixed(1)} ${y(values[s]).toFixed(1)}`;
        open = true;
      }
      return svg("path", { d: path, class: `line s-${one.name}`, "data-series": one.name });
    });
  }

  #areas(shown, x, y) {
    let below = shown.map(() => 0);
    return this.series.flatMap((one, s) => {
      const above = shown.map(({ values }, i) => below[i] + (values[s] ?? 0));
      const point = (i, level) => `${x(shown[i].t).toFixed(1)} ${y(level[i]).toFixed(1)}`;
      let area = "";
      let edge = "";
      for (const [from, to] of this.#runs(shown)) {
        const run = Array.from({ length: to - from }, (_, i) => from + i);
        const along = (order, level) => order.map((i) => point(i, level)).join("L");
        area += `M${along(run, above)}L${along(run.toReversed(), below)}Z`;
        // Where there is nothing of it, its edge would only hide that of the one below.
        let open = false;
        for (const i of run) {
          const some = [i - 1, i, i + 1].some((near) => near >= from && near < to && shown[near].values[s] > 0);
          if (some) edge += (open ? "L" : "M") + point(i, above);
          open = some;
        }
      }
      below = above;
      return [svg("path", { d: area, class: `area s-${one.name}`, "data-series": one.name }),
        svg("path", { d: edge, class: `edge s-${one.name}` })];
    });
  }

  #cursor(height, x, y) {
    const group = svg("g", { class: "cursor" });
    const point = this.shown[this.#index()];
    if (this.at == null || !point) return group;
    const at = x(point.t);
    group.append(svg("line", { x1: at, x2: at, y1: TOP, y2: height - BOTTOM }));
    let level = 0;
    this.series.forEach((one, s) => {
      const value = point.values[s];
      if (value == null || (this.stacked && value === 0)) return;
      level = this.stacked ? level + value : value;
      group.append(svg("circle", { cx: at, cy: y(level), r: 3, class: `s-${one.name}` }));
    });
    return group;
  }

  /** The point under the cursor, or the last; -1: there is none. */
  #index() {
    if (this.at == null || !this.shown.length) return this.shown.length - 1;
    let best = 0;
    this.shown.forEach((point, i) => {
      if (Math.abs(point.t - this.at) < Math.abs(this.shown[best].t - this.at)) best = i;
    });
    return best;
  }

  #read() {
    const last = this.samples.at(-1);
    const point = this.at == null ? null : this.shown[this.#index()];
    const values = point?.values ?? this.series.map((one) => last ? one.value(last) : null);
    const texts = values.map((value) => this.format(value));
    this.series.forEach((one, s) => {
      if (one.rare) this.entries[s].hidden = !this.shown.some((each) => each.values[s]);
      if (this.readings[s].textContent !== texts[s]) this.readings[s].textContent = texts[s];
    });
    this.time.textContent = point ? clock(point.t) : "";
    if (point) return;
    const told = this.series.map((one, s) => `${one.label} ${texts[s]}`).join(", ");
    this.drawing.setAttribute("aria-label", `${this.title}, now: ${told}`);
  }

  #point(event) {
    if (!this.shown?.length) return;
    const box = this.drawing.getBoundingClientRect();
    const share = (box.width - RIGHT - (event.clientX - box.left)) / (box.width - LEFT - RIGHT);
    this.at = this.now - share * this.minutes * 60000;
    this.draw();
  }

  #leave() {
    this.at = null;
    this.draw();
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || !this.shown?.length) return;
    event.preventDefault();
    const i = Math.min(this.shown.length - 1, Math.max(0, this.#index() + step));
    this.at = this.shown[i].t;
    this.draw();
  }
}

/** A small line without a scale, for tables. */
export function sparkline(values, width = 96, height = 20) {
  const top = Math.max(1e-9, ...values);
  const x = (i) => width - (values.length - 1 - i) * (width / 59);
  const y = (value) => height - 1.5 - value / top * (height - 3);
  const line = values.map((value, i) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`).join("L");
  const drawn = svg("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  if (values.length > 1) {
    const under = `M${x(0).toFixed(1)} ${height}L${line}L${width} ${height}Z`;
    drawn.append(svg("path", { class: "under", d: under }), svg("path", { d: `M${line}` }));
  }
  return drawn;
}
