// Who exchanges with whom: around one node its neighbours, or all nodes of a flock in a ring.
import { svg } from "/dom.js";

// One unit is a pixel as long as there is room for the names, so that they can be read.
const [NARROW, WIDE] = [280, 640];
const [LOW, HIGH] = [290, 600];
const PULSES_MAX = 60;
// How a dot runs for an exchange that was merged, one that was refused, and one that failed: all the
// way, half of it and back, and not far.
const WAYS = [{ tone: "ok", reach: [0, 1] }, { tone: "warn", reach: [0, 0.5, 0] },
  { tone: "bad", reach: [0, 0.3] }];
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Graph {
  constructor(parent) {
    this.svg = svg("svg", { role: "img" }, parent);
    this.shown = [[], [], ""];
    new ResizeObserver(() => this.show(...this.shown)).observe(this.svg);
    this.edges = svg("g", {}, this.svg);
    this.pulses = svg("g", {}, this.svg);
    this.nodes = svg("g", {}, this.svg);
    this.slots = new Map();
    this.counts = new Map();
  }

  // Nodes: {id, short, sub, tone, kind, share, centre}; edges: {a, b, tone, counts}, with
  // counts of exchanges merged, refused and failed.
  show(nodes, edges, says) {
    this.shown = [nodes, edges, says];
    this.svg.setAttribute("aria-label", says);
    const shape = this.svg.clientHeight / this.svg.clientWidth || 0.85;
    this.width = Math.min(Math.max(this.svg.clientWidth, NARROW), WIDE);
    this.height = Math.min(Math.max(this.width * shape, LOW), HIGH);
    this.centre = { x: this.width / 2, y: this.height / 2 };
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    const places = this.places(nodes);
    this.edges.replaceChildren();
    // Many lines must not become one surface.
    const fine = Math.min(1, Math.sqrt(24 / Math.max(edges.length, 1)));
    for (const { a, b, tone, counts } of edges) {
      const [from, to] = [places.get(a), places.get(b)];
      if (!from || !to) continue;
      const width = (fine * (1 + Math.min(Math.log2(1 + counts[0]) * 0.45, 4))).toFixed(2);
      const line = { x1: from.x, y1: from.y, x2: to.x, y2: to.y };
      svg("line", { class: `edge ${tone}`, "stroke-width": width, "stroke-opacity": (0.8 * fine).toFixed(2), ...line }, this.edges);
      const before = this.counts.get(`${a} ${b}`) ?? counts;
      counts.forEach((count, i) => { if (count > before[i]) this.pulse(from, to, WAYS[i]); });
    }
    this.counts = new Map(edges.map(({ a, b, counts }) => [`${a} ${b}`, counts]));
    this.nodes.replaceChildren();
    for (const node of nodes) this.node(node, places.get(node.id));
  }

  // A node keeps its place while others come and go.
  places(nodes) {
    const around = nodes.filter((node) => !node.centre);
    const here = new Set(around.map((node) => node.id));
    for (const id of this.slots.keys()) if (!here.has(id)) this.slots.delete(id);
    for (const { id } of around) {
      if (this.slots.has(id)) continue;
      const taken = new Set(this.slots.values());
      let slot = 0;
      while (taken.has(slot)) slot += 1;
      this.slots.set(id, slot);
    }
    const ring = Math.max(...this.slots.values(), 0) + 1;
    const places = new Map();
    for (const node of nodes) {
      if (node.centre) { places.set(node.id, this.centre); continue; }
      const angle = (this.slots.get(node.id) / ring) * 2 * Math.PI - Math.PI / 2;
      const reach = ring > 14 && this.slots.get(node.id) % 2 ? 0.72 : 1;
      places.set(node.id, {
        x: this.centre.x + Math.cos(angle) * (this.width / 2 - 62) * reach,
        y: this.centre.y + Math.sin(angle) * (this.height / 2 - 58) * reach,
      });
    }
    return places;
  }

  node({ short, sub, tone, kind, share, centre }, at) {
    const group = svg("g", { class: `node ${tone} ${kind}` }, this.nodes);
    const many = this.slots.size > 14;
    const radius = centre ? 22 : many ? 9 : 15;
    svg("circle", { class: "bird", cx: at.x, cy: at.y, r: radius }, group);
    if (share > 0) {
      const length = 2 * Math.PI * (radius + 5);
      svg("circle", {
        class: "ring", cx: at.x, cy: at.y, r: radius + 5,
        "stroke-dasharray": `${length * Math.min(share, 1)} ${length}`,
        transform: `rotate(-90 ${at.x} ${at.y})`,
      }, group);
    }
    if (kind === "killed") {
      const r = radius * 0.5;
      const cross = `M${at.x - r} ${at.y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`;
      svg("path", { class: "cross", d: cross, fill: "none" }, group);
    }
    // Names stand outside of the ring, where no line crosses them.
    const above = !centre && at.y < this.centre.y - 20;
    const gap = radius + (share > 0 ? 19 : 14);
    const first = above ? at.y - gap - (many ? -6 : 7) : at.y + gap;
    const place = { x: at.x, "text-anchor": "middle" };
    svg("text", { ...place, y: first }, group).textContent = short;
    if (!many) svg("text", { ...place, class: "sub", y: first + 13 }, group).textContent = sub;
  }

  pulse(from, to, { tone, reach }) {
    if (still.matches || document.hidden || this.pulses.childElementCount > PULSES_MAX) return;
    const dot = svg("circle", { class: `pulse ${tone}`, r: 3.4 }, this.pulses);
    const path = reach.map((share, i) => ({
      transform: `translate(${from.x + (to.x - from.x) * share}px, ${from.y + (to.y - from.y) * share}px)`,
      opacity: i === reach.length - 1 ? 0.2 : 1,
    }));
    dot.animate(path, { duration: 850, easing: "ease-in-out" }).onfinish = () => dot.remove();
  }
}
