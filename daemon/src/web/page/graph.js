// Who exchanges with whom: around one node its neighbours, or all nodes of a flock in a ring.
import { svg } from "/chart.js";

// Units across; how many there are down follows from the place that the page gives.
const W = 460;
const [LOW, HIGH] = [300, 540];
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
    this.merged = new Map();
  }

  // Nodes: {id, short, sub, tone, kind, share, centre}; edges: {a, b, tone, merges}.
  show(nodes, edges, says) {
    this.shown = [nodes, edges, says];
    this.svg.setAttribute("aria-label", says);
    const shape = this.svg.clientHeight / this.svg.clientWidth || 0.85;
    this.height = Math.min(Math.max(W * shape, LOW), HIGH);
    this.centre = { x: W / 2, y: this.height / 2 };
    this.svg.setAttribute("viewBox", `0 0 ${W} ${this.height}`);
    const places = this.places(nodes);
    this.edges.replaceChildren();
    // Many lines must not become one surface.
    const fine = Math.min(1, Math.sqrt(24 / Math.max(edges.length, 1)));
    for (const { a, b, tone, merges } of edges) {
      const [from, to] = [places.get(a), places.get(b)];
      if (!from || !to) continue;
      const width = (fine * (1 + Math.min(Math.log2(1 + merges) * 0.45, 4))).toFixed(2);
      const line = { x1: from.x, y1: from.y, x2: to.x, y2: to.y };
      svg("line", { class: `edge ${tone}`, "stroke-width": width, "stroke-opacity": (0.8 * fine).toFixed(2), ...line }, this.edges);
      const name = `${a} ${b}`;
      const before = this.merged.get(name);
      if (before != null && merges > before) this.pulse(from, to, tone);
      this.merged.set(name, merges);
    }
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
        x: this.centre.x + Math.cos(angle) * (W / 2 - 62) * reach,
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

  pulse(from, to, tone) {
    if (still.matches || document.hidden || this.pulses.childElementCount > 60) return;
    const dot = svg("circle", { class: `pulse ${tone}`, r: 3.4 }, this.pulses);
    const at = (place) => `translate(${place.x}px, ${place.y}px)`;
    const path = [{ transform: at(from), opacity: 1 }, { transform: at(to), opacity: 0.2 }];
    dot.animate(path, { duration: 850, easing: "ease-in-out" }).onfinish = () => dot.remove();
  }
}
