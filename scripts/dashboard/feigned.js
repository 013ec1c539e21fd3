// The page under statuses and lines that no honest flock would give it. For scripts/try-dashboard.
const { Page } = require("./browser.js");
const { check, until } = require("./telling.js");

// In the place of the stream; `feign` gives the page what the daemon would.
const BEFORE = `
  window.EventSource = class {
    constructor() { window.stream = this; this.hands = {}; }
    addEventListener(name, hand) { this.hands[name] = hand; }
    close() {}
  };
  window.feign = (name, value) => stream.hands[name]({ data: JSON.stringify(value) });
  window.ways = [];
  addEventListener("DOMContentLoaded", () => new MutationObserver((changes) => {
    for (const { addedNodes } of changes) for (const { className } of addedNodes) {
      const way = /pulse (.*)/.exec(className?.baseVal ?? "")?.[1];
      if (way) ways.push(way);
    }
  }).observe(document.getElementById("graph"), { subtree: true, childList: true }));`;

const PEERS = ["12D3KooWhostile", "12D3KooWsilent0", "12D3KooWhonest0", "12D3KooWbroken0"];

// One second of a node that has merged a thousand models of each peer.
class Node {
  constructor(page) {
    Object.assign(this, { page, time: 100, peers: PEERS.map((id) => ({ id, age: 5, round: 5, accepted: 1000,
      rejected: 2, failed: 1, last_exchange_s: 0.1, quarantined: false })) });
  }

  async tell(changes = {}, dealings = []) {
    this.time += 1;
    dealings.forEach((counts, i) => {
      for (const [key, more] of Object.entries(counts)) this.peers[i][key] += more;
    });
    const status = { node: "12D3KooWfeigned", network: "n", version: "0", phase: "train", boot: 1, round: this.time,
      rounds: this.time, age: this.time, age_max: null, loss: 0.1, rate: 0.1, cross_accuracy: 0.9, consensus: 0.1,
      accepted: 1, rejected: 0, failed: 0, answered: 0, sent_bytes: 1, received_bytes: 1, quarantined: 0,
      merged_s: 0, uptime_s: this.time, time_s: this.time, checkpoint: {}, gone: [], peers: this.peers, ...changes };
    await this.page.run(`feign("status", ${JSON.stringify(status)})`);
  }

  async states() {
    return this.page.run(`[...document.querySelectorAll("#peers tbody tr")].map((row) => row.cells[1].textContent)`);
  }
}

const merge = { accepted: 4 };
const refuse = { rejected: 4 };

async function tryLinks(page, node) {
  await node.tell();
  check((await node.states()).every((state) => state === "merges"), "feigned: links with many merges merge");
  for (let i = 0; i < 4; i += 1) await node.tell({}, [merge, merge, merge, merge]);
  await page.run("ways.length = 0");
  await node.tell({}, [refuse, {}, merge, { failed: 1 }]);
  const ways = await page.run("ways.join()");
  check(ways === "warn,ok,bad", `feigned: exchanges refused, merged and failed are drawn: ${ways}`);
  const once = await node.states();
  check(once.every((state) => state === "merges"), "feigned: one refusal or failure is no state yet");
  await node.tell({}, [refuse, {}, merge, { failed: 1 }]);
  let states = (await node.states()).join();
  check(states === "often rejected,merges,merges,fails",
    `feigned: a thousand merges do not hide a peer that turned two seconds ago: ${states}`);
  const colours = await page.run(`[...document.querySelectorAll(".edge")].map((e) => e.classList[1]).join()`);
  check(colours === "warn,ok,ok,bad", `feigned: nor does the colour of its line: ${colours}`);
  let seconds = 2;
  while ((await node.states())[1] !== "silent" && seconds < 60) {
    await node.tell({}, [refuse, {}, merge, { failed: 1 }]);
    seconds += 1;
  }
  check(seconds < 20, `feigned: a peer that says nothing is silent after ${seconds} s`);
  for (let i = 0; i < 2; i += 1) await node.tell({}, [merge, merge, merge, merge]);
  states = (await node.states()).join();
  check(states === "merges,merges,merges,merges", `feigned: who comes to its senses is told so: ${states}`);
  node.peers[0].quarantined = true;
  Object.assign(node.peers[1], { accepted: 1, rejected: 0, failed: 0 });
  await node.tell({}, []);
  states = (await node.states()).join();
  check(states === "quarantined,merges,merges,merges", `feigned: quarantine shows at once, and a link made anew begins anew: ${states}`);
  node.peers[0].quarantined = false;
}

async function tryBanners(page, node) {
  const cases = [
    [{ degraded: true }, "alarms", "Degraded."],
    [{ isolated: true }, "alarms", "Isolated."],
    [{ obstacle: "no member can be reached" }, "notes", "Waiting."],
    [{ paused: true }, "notes", "Paused."],
    [{ phase: "done" }, "notes", "Learnt."],
  ];
  const shown = (region) => page.run(`document.getElementById("${region}").textContent`);
  for (const [changes, region, title] of cases) {
    await node.tell(changes);
    check((await shown(region)).includes(title), `feigned: banner "${title}" in #${region}`);
    await node.tell();
    check(!(await shown(region)).includes(title), `feigned: and it goes again`);
  }
  await node.tell({ degraded: true });
  await page.run(`window.kept = document.querySelector("#alarms p")`);
  await node.tell({ degraded: true, isolated: true });
  check(await page.run(`document.querySelector("#alarms p") === kept && kept.parentElement.children.length === 2`),
    "feigned: an alarm that is told already is not told again");
  await page.run(`feign("beat", 30)`);
  await until("the banner of a node that hangs", async () => (await shown("alarms")).includes("Hanging."));
  await page.run(`feign("line", { event: "train.diverged", severity: "WARN", node: "12D3KooWfeigned", boot: 1,
    seq: 9, ts: new Date().toISOString(), msg: "train.diverged round=3" })`);
  await node.tell();
  check((await shown("alarms")).includes("Diverging."), `feigned: banner "Diverging."`);
  check(page.errors.length === 0, `feigned: no error in the console ${page.errors.join("; ")}`);
}

async function tryFeigned(browser, address) {
  const page = await Page.open(browser, address, BEFORE);
  await until("the stream", () => page.run("Boolean(window.stream)"));
  const node = new Node(page);
  await tryLinks(page, node);
  await tryBanners(page, node);
  await page.close();
}

// A browser that blocks storage throws at each touch of it.
async function tryWithoutStorage(browser, address) {
  const page = await Page.open(browser, address, `Object.defineProperty(window, "localStorage",
    { get() { throw new DOMException("blocked", "SecurityError"); } })`);
  await until("figures without storage", () => page.run(`document.querySelectorAll("#figures dd").length > 5`));
  await page.run(`document.getElementById("theme").click()`);
  check((await page.run("document.documentElement.dataset.theme")) !== undefined && page.errors.length === 0,
    `storage blocked: the page works, and the theme can be switched ${page.errors.join("; ")}`);
  await page.close();
}

module.exports = { tryFeigned, tryWithoutStorage };
