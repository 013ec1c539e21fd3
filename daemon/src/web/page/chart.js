// Curves over time as SVG, each with a sentence, a readout that keys can move, and a table.
import { fill, html, svg } from "/dom.js";
import { duration } from "/format.js";

const LEFT = 52;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 22;
const ROWS = 12;
// By how much of the whole time a key moves.
const JUMPS = { ArrowLeft: -0.02, ArrowDown: -0.02, ArrowRight: 0.02, ArrowUp: 0.02,
  PageDown: -0.1, PageUp: 0.1, Home: -2, End: 2 };
let count = 0;

// A round step so that about `wanted` of them span the range.
function step(range, wanted) {
  const raw = range / wanted;
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999) ?? power;
}

export class Chart {
  // `from` and `to` bound the scale where the figure has natural bounds.
  constructor(parent, { name, format, from = 0, to = null, least = 1e-6 }) {
    Object.assign(this, { name, format, from, to, least, series: [], at: null });
    this.id = `chart-${(count += 1)}`;
    this.output = html("output", { ariaLive: "off" });
    // Keys move a moment along it, so to those who do not see it it is a slider.
    this.svg = svg("svg", { role: "slider", tabindex: "0", "aria-label": `${name}, moment to read`,
      "aria-describedby": `${this.id}-says`, "aria-valuemin": 0 });
    this.says = html("p", { id: `${this.id}-says`, className: "quiet" });
    this.table = html("table");
    this.details = html("details", {}, html("summary", { textContent: "As a table" }),
      html("div", { className: "scroll" }, this.table));
    this.details.addEventListener("toggle", () => this.tabulate());
    const caption = html("figcaption", {}, html("h2", { textContent: name }), this.output);
    parent.append(html("figure", { className: "chart" }, caption, this.svg, this.says, this.details));
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.move(null));
    this.svg.addEventListener("blur", () => this.move(null));
    this.svg.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.svg);
  }

  // Each series: {label, tone, dashed, faint, times, values}.
  show(series) {
    this.series = series;
    this.draw();
  }

  bounds() {
    let [end, low, high] = [1, Infinity, -Infinity];
    for (const { times, values } of this.series) {
      times.forEach((time, i) => {
        if (values[i] == null) return;
        end = Math.max(end, time);
        low = Math.min(low, values[i]);
        high = Math.max(high, values[i]);
      });
    }
    if (high < low) [low, high] = [0, 1];
    const bottom = this.from ?? low;
    const top = this.to ?? Math.max(high * 1.06, bottom + this.least);
    return { end, bottom, top };
  }

  draw() {
    const { svg: root } = this;
    const [w, h] = [root.clientWidth, root.clientHeight];
    if (!w) return;
    root.replaceChildren();
    root.setAttribute("viewBox", `0 0 ${w} ${h}`);
    const { end, bottom, top } = this.bounds();
    const x = (time) => LEFT + (time / end) * (w - LEFT - RIGHT);
    const y = (value) => h - BOTTOM - ((value - bottom) / (top - bottom)) * (h - TOP - BOTTOM);
    Object.assign(this, { end, x, y });
    const gap = step(top - bottom, 4);
    for (let v = Math.ceil(bottom / gap) * gap; v <= top + gap * 1e-6; v += gap) {
      svg("line", { class: "grid", x1: LEFT, x2: w - RIGHT, y1: y(v), y2: y(v) }, root);
      const text = svg("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, root);
      text.textContent = this.format(v);
    }
    const pace = step(end, Math.max(2, Math.floor(w / 90)));
    for (let t = 0; t <= end * 1.0001; t += pace) {
      const anchor = t + pace > end && x(t) > w - 40 ? "end" : t === 0 ? "start" : "middle";
      const text = svg("text", { x: x(t), y: h - 6, "text-anchor": anchor }, root);
      text.textContent = t === 0 ? "start" : duration(t);
    }
    for (const one of this.series) this.curve(one, root);
    this.cursor();
    this.speak();
    if (this.details.open) this.tabulate();
  }

  curve({ times, values, tone, dashed, faint }, root) {
    let [path, first, last, fresh] = ["", null, null, true];
    times.forEach((time, i) => {
      if (values[i] == null) { fresh = true; return; }
      const place = `${this.x(time).toFixed(1)} ${this.y(values[i]).toFixed(1)}`;
      path += `${fresh ? "M" : "L"}${place}`;
      fresh = false;
      first ??= time;
      last = i;
    });
    if (last == null) return;
    const alone = this.series.length <= 2 && !dashed;
    const [floor, to] = [this.svg.clientHeight - BOTTOM, this.x(times[last]).toFixed(1)];
    if (alone && !path.slice(1).includes("M")) {
      const area = `${path}L${to} ${floor}L${this.x(first).toFixed(1)} ${floor}Z`;
      svg("path", { class: `area ${tone}`, d: area }, root);
    }
    const style = `curve ${tone}${dashed ? " dashed" : ""}${faint ? " faint" : ""}`;
    svg("path", { class: style, d: path }, root);
    if (alone || tone === "cm") {
      svg("circle", { class: `end ${tone}`, cx: to, cy: this.y(values[last]), r: 3 }, root);
    }
  }

  point(event) {
    const place = event.clientX - this.svg.getBoundingClientRect().left;
    const width = this.svg.clientWidth - LEFT - RIGHT;
    this.move(Math.min(Math.max((place - LEFT) / width, 0), 1) * this.end);
  }

  key(event) {
    const jump = JUMPS[event.key];
    if (event.key === "Escape") return this.move(null);
    if (jump == null) return;
    event.preventDefault();
    const from = this.at ?? this.end;
    this.move(Math.min(Math.max(from + jump * this.end, 0), this.end));
  }

  move(at) {
    this.at = at;
    this.cursor();
  }

  // What each series was at a time: its last sample until then.
  then(at) {
    return this.series.map(({ label, times, values }) => {
      let found = null;
      for (let i = 0; i < times.length && times[i] <= at; i += 1) found = values[i] ?? found;
      return { label, value: found };
    });
  }

  cursor() {
    this.svg.querySelector(".cursor")?.remove();
    const shown = this.then(this.at ?? Infinity);
    if (this.at != null && this.x) {
      const at = this.x(this.at);
      const to = this.svg.clientHeight - BOTTOM;
      svg("line", { class: "cursor", x1: at, x2: at, y1: TOP, y2: to }, this.svg);
    }
    const known = shown.filter((one) => one.value != null);
    const few = known.length <= 2 ? known : known.filter((one) => one.label === "mean");
    const texts = few.map((one) =>
      (known.length > 1 ? `${one.label} ` : "") + this.format(one.value, true));
    const when = this.at == null ? "" : `${duration(this.at)}: `;
    this.output.textContent = when + (texts.join(", ") || "no value");
    // Told when keys asked for it, and not at every new sample.
    if (this.at == null && document.activeElement === this.svg) return;
    const moment = { valuemax: this.end, valuenow: this.at ?? this.end };
    for (const [key, value] of Object.entries(moment)) {
      this.svg.setAttribute(`aria-${key}`, (value ?? 0).toFixed(1));
    }
    this.svg.setAttribute("aria-valuetext", this.output.textContent);
  }

  speak() {
    const parts = this.series.map(({ label, values }) => {
      const known = values.filter((value) => value != null);
      if (!known.length) return `${label}: no value yet`;
      const f = (value) => this.format(value, true);
      return `${label}: ${f(known.at(-1))} now, ${f(known[0])} at first, between ` +
        `${f(Math.min(...known))} and ${f(Math.max(...known))}`;
    });
    const text = `${this.name} over ${duration(this.end)}. ${parts.join(". ")}.`;
    if (this.says.textContent !== text) this.says.textContent = text;
  }

  tabulate() {
    const heads = ["Time", ...this.series.map(({ label }) => label)];
    const rows = Array.from({ length: ROWS + 1 }, (_, i) => {
      const time = (this.end * i) / ROWS;
      const cells = this.then(time).map(({ value }) => (value == null ? "–" : this.format(value, true)));
      return { key: `${i}`, cells: [duration(time), ...cells] };
    });
    fill(this.table, `${this.name} over time`, heads, rows);
  }
}
