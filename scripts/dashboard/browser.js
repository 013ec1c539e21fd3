// A headless Chromium, spoken to through a pipe, and its pages. For scripts/try-dashboard.
const { spawn } = require("node:child_process");
const { writeFileSync } = require("node:fs");
const { join } = require("node:path");
const { check, pause } = require("./telling.js");

const FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
  "--remote-debugging-pipe"];
const KEYS = { Tab: 9, Home: 36, ArrowLeft: 37, Enter: 13 };

// One JSON message after the other, each ended by a zero.
class Browser {
  constructor(program, profile) {
    const args = [...FLAGS, `--user-data-dir=${profile}`, "about:blank"];
    this.child = spawn(program, args, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
    Object.assign(this, { next: 1, waiting: new Map(), watchers: [] });
    let rest = Buffer.alloc(0);
    this.child.stdio[4].on("data", (bytes) => {
      rest = Buffer.concat([rest, bytes]);
      for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
        this.take(JSON.parse(rest.subarray(0, end)));
        rest = rest.subarray(end + 1);
      }
    });
  }

  take(message) {
    if (!message.id) { for (const watcher of this.watchers) watcher(message); return; }
    const { done, failed } = this.waiting.get(message.id);
    this.waiting.delete(message.id);
    if (message.error) failed(new Error(message.error.message)); else done(message.result);
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.next;
    this.next += 1;
    this.child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return new Promise((done, failed) => this.waiting.set(id, { done, failed }));
  }
}

class Page {
  // `before` is run in the page before its own scripts.
  static async open(browser, url, before = "") {
    const page = new Page();
    const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
    Object.assign(page, { url, errors: [], requests: [], bytes: 0, streams: new Set() });
    page.send = (method, params) => browser.send(method, params, sessionId);
    page.close = () => browser.send("Target.closeTarget", { targetId });
    browser.watchers.push((message) => {
      if (message.sessionId === sessionId) page.take(message);
    });
    for (const domain of ["Page", "Runtime", "Network", "Log", "Accessibility", "DOM"]) {
      await page.send(`${domain}.enable`);
    }
    // Key presses and animations are only for the page in front.
    await page.send("Page.bringToFront");
    if (before) await page.send("Page.addScriptToEvaluateOnNewDocument", { source: before });
    await page.send("Page.navigate", { url });
    return page;
  }

  take({ method, params }) {
    if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
    if (method === "Network.responseReceived" && params.type === "EventSource") {
      this.streams.add(params.requestId);
    }
    if (method === "Network.dataReceived" && !this.streams.has(params.requestId)) {
      this.bytes += params.dataLength;
    }
    if (method === "Runtime.exceptionThrown") {
      this.errors.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    }
    // A cut connection is told as well, and is no defect of the page.
    if (method === "Log.entryAdded" && params.entry.level === "error" &&
      params.entry.source !== "network") this.errors.push(params.entry.text);
  }

  async evaluate(expression, returnByValue) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate",
      { expression, returnByValue, awaitPromise: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description);
    return result;
  }

  async run(expression) { return (await this.evaluate(expression, true)).value; }

  async press(key) {
    for (const type of ["keyDown", "keyUp"]) {
      await this.send("Input.dispatchKeyEvent", { type, key, code: key, windowsVirtualKeyCode: KEYS[key] });
    }
  }

  // What a screen reader is told of what has the focus.
  async focused() {
    const { objectId } = await this.evaluate("document.activeElement", false);
    const { nodes } = await this.send("Accessibility.getPartialAXTree", { objectId, fetchRelatives: false });
    return { role: nodes[0]?.role?.value, name: nodes[0]?.name?.value ?? "" };
  }

  async look(output, name, [width, height], scheme) {
    await this.send("Emulation.setDeviceMetricsOverride",
      { width, height, deviceScaleFactor: 1, mobile: false });
    await this.send("Emulation.setEmulatedMedia",
      { features: [{ name: "prefers-color-scheme", value: scheme }] });
    await this.run("scrollTo(0, 0)");
    // Two frames: one to lay out anew, one to draw.
    await this.run(`new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))`);
    await pause(400);
    const wide = await this.run("document.documentElement.scrollWidth - innerWidth");
    check(wide <= 0, `${name} fits ${width} px, ${scheme}${wide > 0 ? `: ${wide} px too wide` : ""}`);
    const thin = await this.run(`[...document.querySelectorAll("main > section, .chart")].filter((e) =>
      e.clientWidth < Math.min(innerWidth, 400) * 0.8).length`);
    check(thin === 0, `${name} gives each part room at ${width} px`);
    // What stays in sight while the page is moved must not cover the rest.
    const covered = await this.run(`(() => {
      const places = () => [...document.querySelectorAll("main > section")].map((e) => [e.id || e.className,
        (e.querySelector(":scope > .pinned") ?? e).getBoundingClientRect()]);
      const found = [];
      for (let y = 0; y < document.documentElement.scrollHeight; y += 200) {
        scrollTo(0, y);
        const all = places();
        all.forEach(([a, p], i) => all.slice(i + 1).forEach(([b, q]) => {
          if (Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1 &&
            Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1) found.push(a + " and " + b);
        }));
      }
      scrollTo(0, 0);
      return [...new Set(found)].join(", ");
    })()`);
    check(!covered, `${name} covers nothing while it is scrolled at ${width} px ${covered}`);
    const whole = { format: "png", captureBeyondViewport: true };
    const { data } = await this.send("Page.captureScreenshot", whole);
    writeFileSync(join(output, `${name}-${width}-${scheme}.png`), Buffer.from(data, "base64"));
  }
}

module.exports = { Browser, Page };
