// A murmuration behind the headline: the flock flies the closer together the more its models agree.
const BIRDS = 90;
const FRAME_MS = 33;
const still = matchMedia("(prefers-reduced-motion: reduce)");

export class Sky {
  constructor(canvas) {
    this.canvas = canvas;
    this.unity = 0.5;
    this.time = 0;
    this.birds = Array.from({ length: BIRDS }, (_, i) => {
      // The golden angle spreads them evenly without a random draw.
      const angle = i * 2.39996;
      const radius = Math.sqrt((i + 0.5) / BIRDS);
      return { x: Math.cos(angle) * radius, y: Math.sin(angle) * radius, phase: i * 0.61 };
    });
    this.last = 0;
    const frame = (now) => {
      if (!document.hidden && now - this.last >= FRAME_MS) {
        this.time += Math.min(now - this.last, 100) / 1000;
        this.last = now;
        this.draw();
      }
      if (!still.matches) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    new ResizeObserver(() => this.draw()).observe(canvas);
    still.addEventListener("change", () => requestAnimationFrame(frame));
  }

  // Consensus is a distance: 0 is one model, 1 as far apart as the model is long.
  agree(consensus) {
    const wanted = consensus == null ? 0.5 : 1 / (1 + 6 * Math.max(consensus, 0));
    this.unity += (wanted - this.unity) * 0.2;
  }

  draw() {
    const { canvas } = this;
    const scale = devicePixelRatio || 1;
    const [w, h] = [canvas.clientWidth, canvas.clientHeight];
    if (!w || !h) return;
    if (canvas.width !== Math.round(w * scale)) canvas.width = Math.round(w * scale);
    if (canvas.height !== Math.round(h * scale)) canvas.height = Math.round(h * scale);
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, w, h);
    pen.fillStyle = getComputedStyle(canvas).color;
    const t = this.time * 0.35;
    const spread = 0.55 + 0.75 * (1 - this.unity);
    const narrow = w < 620;
    const [mx, my] = narrow ? [0.72, 0.3] : [0.56, 0.42];
    const [cx, cy] = [w * (mx + 0.07 * Math.sin(t * 0.7)), h * (my + 0.07 * Math.cos(t))];
    const [rx, ry] = [Math.min(w * 0.3, 330) * spread, h * 0.36 * spread];
    for (const bird of this.birds) {
      // The cloud turns over like a ribbon; each bird wanders a little within it.
      const fold = Math.sin(t + bird.x * 1.9);
      const x = cx + rx * (bird.x + 0.25 * fold + 0.05 * Math.sin(t * 3 + bird.phase));
      const y = cy + ry * (bird.y * (0.45 + 0.35 * fold) + 0.5 * Math.sin(bird.x * 2.3 + t));
      const size = 1.5 + 0.9 * Math.sin(bird.phase * 7 + t);
      const wing = 1 + 1.4 * Math.abs(Math.sin(t * 12 + bird.phase));
      pen.globalAlpha = 0.16 + 0.3 * (0.5 + 0.5 * fold);
      pen.beginPath();
      pen.ellipse(x, y, size * wing, size * 0.55, 0.35 * fold, 0, 7);
      pen.fill();
    }
    pen.globalAlpha = 1;
  }
}
