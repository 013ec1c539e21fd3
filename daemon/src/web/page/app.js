// The page: takes the history once, then follows status and log lines as they come.
import { Chart, duration, html } from "/chart.js";
import { Graph } from "/graph.js";
import { Sky } from "/sky.js";

const SAMPLES_MAX = 1440;
const LINES_MAX = 300;
const SILENCE_MS = 8000;
const DIVERGED_MS = 120000;
const FIGURES = ["loss", "cross_accuracy", "test_accuracy", "consensus", "sent_bytes",
  "received_bytes"];
const at = (id) => document.getElementById(id);

const plain = (value) => (value == null ? "–" : Math.round(value).toLocaleString("en"));
const fixed = (digits) => (value) => (value == null ? "–" : value.toFixed(digits));
const percent = (value) => (value == null ? "–" : `${(value * 100).toFixed(1)}\u00a0%`);
const bytes = (value, places = null) => {
  if (value == null) return "–";
  const [unit, size] = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, s]) => value >= s) ?? ["B", 1];
  return `${places ?? (value / size).toFixed(size === 1 ? 0 : value / size < 10 ? 2 : 1)}\u00a0${unit}`;
};
const ago = (seconds) => (seconds < 1 ? "just now" : `${duration(Math.round(seconds))} ago`);
// A curve's scale wants round numbers, its readout exact ones.
const scaled = {
  percent: (value, exact) => (exact ? percent(value) : `${+(value * 100).toFixed(1)} %`),
  loss: (value, exact) => (exact ? value.toFixed(4) : `${+value.toFixed(4)}`),
  bytes: (value, exact) => {
    const size = [1e9, 1e6, 1e3].find((s) => value >= s) ?? 1;
    return bytes(value, exact ? null : +(value / size).toFixed(2));
  },
};
const short = (id) => (id ?? "").slice(-10);
const mean = (values) => {
  const known = values.filter((value) => value != null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
};

// Samples of each node, by its id.
const history = new Map();
const seen = { lines: new Set(), status: null, heard: 0, age: 0, diverged: 0, open: false };
const sky = new Sky(at("sky"));
const graph = new Graph(at("graph"));
const charts = {
  accuracy: new Chart(at("charts"), { name: "Accuracy", format: scaled.percent, to: 1 }),
  loss: new Chart(at("charts"), { name: "Training loss", format: scaled.loss, least: 0.01 }),
  consensus: new Chart(at("charts"), { name: "Distance between models", format: scaled.percent, least: 0.01 }),
  bytes: new Chart(at("charts"), { name: "Traffic", format: scaled.bytes, least: 1000 }),
};

function remember(time, node) {
  if (!node.node) return;
  if (!history.has(node.node)) {
    history.set(node.node, { time_s: [], ...Object.fromEntries(FIGURES.map((f) => [f, []])) });
  }
  const columns = history.get(node.node);
  if (columns.time_s.length && time <= columns.time_s.at(-1)) return;
  columns.time_s.push(time);
  for (const figure of FIGURES) columns[figure].push(node.phase === "killed" ? null : node[figure] ?? null);
  if (columns.time_s.length < SAMPLES_MAX) return;
  for (const key of Object.keys(columns)) columns[key] = columns[key].filter((_, i) => i % 2 === 0);
}

async function recall() {
  const reply = await fetch("/api/history");
  const nodes = await reply.json();
  history.clear();
  for (const [node, columns] of Object.entries(nodes)) history.set(node, columns);
}

// ---------------------------------------------------------------- banners

function banners(status, nodes) {
  const notes = [];
  const note = (tone, title, text) =>
    notes.push({ tone, title, text: text[0].toUpperCase() + text.slice(1) });
  if (!seen.open) {
    const since = seen.heard ? ` since ${new Date(seen.heard).toLocaleTimeString()}` : "";
    note("bad", "Disconnected.", `Nothing is heard from the daemon${since}; the values below are ` +
      "from then. It is tried again by itself.");
  }
  if (seen.open && seen.age > 10 && !status.nodes) {
    note("bad", "Hanging.", `The daemon answers, but its loop has not moved for ` +
      `${duration(seen.age)}.`);
  }
  if (status.verdict) {
    const v = status.verdict;
    note("calm", "Landed.", `Each node alone ${percent(v.accuracy_local_only)}, the flock ` +
      `${percent(v.accuracy_mean)}, its worst node ${percent(v.accuracy_worst)}, all rows in one ` +
      `place ${percent(v.accuracy_pooled)}; ${bytes(v.sent_bytes_per_node_mean)} sent per node.`);
  }
  for (const node of nodes) {
    const who = status.nodes ? `Node ${short(node.node)}: ` : "";
    if (node.phase === "killed") note("bad", "Killed.", `${who}it comes back by itself.`);
    if (node.paused) note("calm", "Paused.", `${who}paused by the operator: no training until ` +
      "`starling resume`; peers are answered.");
    if (node.degraded) note("bad", "Degraded.", `${who}checkpoints cannot be saved. Look at disk ` +
      "space and permissions of the state directory.");
    if (node.isolated) note("bad", "Isolated.", `${who}nobody has exchanged with it for five ` +
      "rounds. Check the network and the peers.");
    else if (node.obstacle) note("warn", "Waiting.", `${who}${node.obstacle}.`);
  }
  if (Date.now() - seen.diverged < DIVERGED_MS) {
    note("bad", "Diverging.", "Training left the range of numbers and went on from the served " +
      "model. Lower the learning rate if it repeats.");
  }
  if (!status.verdict && nodes.length && nodes.every((node) => node.phase === "done")) {
    note("calm", "Learnt.", "The age at which learning ends is reached; from here on the model is " +
      "served.");
  }
  const text = notes.map((one) => one.title + one.text).join("|");
  if (at("banners").dataset.text === text) return;
  at("banners").dataset.text = text;
  at("banners").replaceChildren(...notes.map(({ tone, title, text: body }) =>
    html("p", { className: `banner ${tone}` }, html("b", { textContent: title }), ` ${body}`)));
}

// ---------------------------------------------------------------- figures

function figures(rows) {
  const list = at("figures");
  list.classList.toggle("ten", rows.length === 10);
  rows.forEach(([name, value, more], i) => {
    let row = list.children[i];
    if (!row) {
      row = html("div", {}, html("dt"), html("dd", {}, html("span"), html("small")));
      list.append(row);
    }
    const texts = [[row.children[0], name], [row.children[1].children[0], value],
      [row.children[1].children[1], more ?? ""]];
    for (const [element, text] of texts) if (element.textContent !== text) element.textContent = text;
  });
  while (list.children.length > rows.length) list.lastChild.remove();
}

function headline(name, value, title, identity, summary, done, text) {
  at("headline").textContent = percent(value);
  at("headline-name").textContent = name;
  at("title").textContent = title;
  at("identity").textContent = identity;
  at("summary").textContent = summary;
  at("progress").parentElement.hidden = done == null;
  at("progress").value = done ?? 0;
  at("progress-text").textContent = text;
}

const PHASES = { join: "Looks for its flock", train: "Learns", done: "Has learnt", leaving: "Leaves",
  killed: "Was killed" };

function one(node) {
  const peers = node.peers ?? [];
  const share = node.age_max ? node.age / node.age_max : null;
  const partners = peers.length === 1 ? "one neighbour" : `${peers.length || "no"} neighbours`;
  headline("accuracy, scored by peers on their own rows", node.cross_accuracy,
    `${PHASES[node.phase] ?? "A node"}${peers.length ? " with " + partners : ""}`,
    `node ${node.node} · network ${short(node.network)} · version ${node.version}`,
    `Round ${plain(node.round)}, ${plain(node.accepted)} models merged, the last ` +
      `${ago(node.merged_s)}.`,
    share, `${plain(node.age)} of ${plain(node.age_max)} steps`);
  document.title = `${percent(node.cross_accuracy)} · ${node.phase} · Starling`;
  const saved = node.checkpoint ?? {};
  figures([
    ["Loss", fixed(4)(node.loss), `rate ${fixed(4)(node.rate)}`],
    ["Distance to peers", percent(node.consensus), "of the model's length"],
    ["Age", plain(node.age), node.age_max ? `of ${plain(node.age_max)} steps` : "local steps"],
    ["Round", plain(node.round), `${plain(node.rounds)} since the start`],
    ["Neighbours", plain(peers.length), `${plain(node.quarantined)} in quarantine`],
    ["Merged", plain(node.accepted), `${plain(node.answered)} on request`],
    ["Rejected", plain(node.rejected), "too far off"],
    ["Failed", plain(node.failed), "exchanges without an answer"],
    ["Sent", bytes(node.sent_bytes), `models ${bytes(node.payload_sent_bytes)}`],
    ["Received", bytes(node.received_bytes), `models ${bytes(node.payload_received_bytes)}`],
    ["Checkpoint", saved.bytes ? ago(saved.saved_s) : "–", saved.bytes ? bytes(saved.bytes) : "none yet"],
    ["Up", duration(node.uptime_s), `boot ${plain(node.boot)}`],
  ]);
}

function many(status, nodes) {
  const alive = nodes.filter((node) => node.phase !== "killed");
  const scores = nodes.map((node) => node.test_accuracy ?? null).filter((value) => value != null);
  const score = mean(scores);
  const age = mean(nodes.map((node) => node.age)) ?? 0;
  headline("mean accuracy on rows that nobody trained on", score,
    `A flock of ${nodes.length}`, `data ${status.data ?? "–"} · split ${status.split ?? "–"}`,
    status.verdict ? `All have landed; ${plain(status.kills)} kills.` :
      `${alive.length} of ${nodes.length} nodes fly, ${plain(status.kills)} killed so far.`,
    status.steps ? age / status.steps : null, `${plain(age)} of ${plain(status.steps)} steps`);
  document.title = `${percent(score)} · flock of ${nodes.length} · Starling`;
  const total = (key) => nodes.reduce((sum, node) => sum + (node[key] ?? 0), 0);
  figures([
    ["Worst node", percent(scores.length ? Math.min(...scores) : null), "accuracy on test rows"],
    ["Scored by peers", percent(mean(nodes.map((node) => node.cross_accuracy))), "mean of the nodes"],
    ["Loss", fixed(4)(mean(nodes.map((node) => node.loss))), "mean of the nodes"],
    ["Distance", percent(mean(nodes.map((node) => node.consensus))), "of the model's length"],
    ["Merged", plain(total("accepted")), "models, all nodes"],
    ["Rejected", plain(total("rejected")), "too far off"],
    ["Failed", plain(total("failed")), "exchanges without an answer"],
    ["Sent", bytes(total("sent_bytes") / nodes.length), "by a node in the mean"],
    ["Kills", plain(status.kills), `${alive.length} of ${nodes.length} alive`],
    ["Time", duration(status.time_s), "since the start"],
  ]);
}

// ---------------------------------------------------------------- curves

function curves(ids) {
  const flock = ids.length > 1;
  const series = (figure, label, extra = {}) => ids.flatMap((id, i) => {
    const columns = history.get(id);
    if (!columns) return [];
    return [{ label: flock ? short(id) : label, tone: `c${i % 8}`, faint: flock,
      times: columns.time_s, values: columns[figure] ?? [], ...extra }];
  });
  const middle = (lines) => {
    if (!flock || !lines.length) return lines;
    const longest = lines.reduce((a, b) => (a.times.length >= b.times.length ? a : b));
    const later = lines.map(({ times, values }) => new Map(times.map((time, i) => [time, values[i]])));
    const values = longest.times.map((time) => mean(later.map((known) => known.get(time))));
    return [...lines, { label: "mean", tone: "cm", times: longest.times, values }];
  };
  const tested = ids.some((id) => history.get(id)?.test_accuracy?.some((value) => value != null));
  charts.accuracy.show(middle(series(tested ? "test_accuracy" : "cross_accuracy", "by peers")));
  charts.loss.show(middle(series("loss", "loss")));
  charts.consensus.show(middle(series("consensus", "distance")));
  const got = flock ? [] : series("received_bytes", "received", { tone: "c1", dashed: true });
  charts.bytes.show([...middle(series("sent_bytes", "sent")), ...got]);
}

// ---------------------------------------------------------------- neighbourhood

// Of the last dealings with a peer, by what changed since the status before.
function tone(peer) {
  if (peer.quarantined) return ["bad", "quarantined"];
  if (peer.rejected > peer.accepted) return ["warn", "often rejected"];
  if (peer.failed > peer.accepted + peer.rejected) return ["bad", "fails"];
  return peer.accepted ? ["ok", "merges"] : ["idle", "linked"];
}

function table(caption, heads, rows) {
  at("peers-name").textContent = caption;
  const cell = (text, i, cls, href) => {
    if (i) return html("td", { textContent: text, className: i === 1 ? `state ${cls}` : "" });
    return html("th", { scope: "row" }, href ? html("a", { textContent: text, href }) : text);
  };
  at("peers").tHead.replaceChildren(html("tr", {}, ...heads.map((text) =>
    html("th", { textContent: text, scope: "col" }))));
  at("peers").tBodies[0].replaceChildren(...rows.map(({ cls, cells, href }) =>
    html("tr", { className: cls === "gone" ? "gone" : "" }, ...cells.map((text, i) =>
      cell(text, i, cls, href)))));
}

function neighbourhood(node) {
  const gone = (node.gone ?? []).filter((peer) => !(node.peers ?? []).some((p) => p.id === peer.id));
  const peers = [...(node.peers ?? []), ...gone].map((peer) => {
    const [cls, state] = peer.gone_s == null ? tone(peer) : ["gone", `gone for ${duration(peer.gone_s)}`];
    return { ...peer, cls, state };
  });
  const self = { id: node.node, short: "this node", sub: `age ${plain(node.age)}`, centre: true,
    tone: node.isolated || node.degraded ? "bad" : "ok", kind: "self",
    share: node.age_max ? node.age / node.age_max : 0 };
  const birds = peers.map((peer) => ({ id: peer.id, short: short(peer.id), tone: peer.cls,
    kind: peer.cls === "gone" ? "killed" : "", sub: peer.cls === "gone" ? "gone" : `age ${plain(peer.age)}`,
    share: peer.cls !== "gone" && node.age_max ? peer.age / node.age_max : 0 }));
  const edges = peers.map((peer) =>
    ({ a: peer.id, b: node.node, tone: peer.cls, merges: peer.accepted }));
  graph.show([self, ...birds], edges,
    `This node and ${peers.length} neighbours: ` +
    peers.map((peer) => `${short(peer.id)} ${peer.state}`).join(", "));
  table("All linked directly; counts since the link was made",
    ["Peer", "State", "Age", "Merged", "Rejected", "Failed", "Last exchange"],
    peers.map((peer) => ({ cls: peer.cls, cells: [short(peer.id), peer.state, plain(peer.age),
      plain(peer.accepted), plain(peer.rejected), plain(peer.failed),
      peer.last_exchange_s == null ? "never" : ago(peer.last_exchange_s)] })));
}

function flock(status, nodes) {
  const phase = (node) => (node.phase === "killed" ? "gone" :
    node.degraded || node.isolated ? "bad" : node.obstacle ? "warn" : "ok");
  const birds = nodes.map((node) => ({ id: node.node, short: short(node.node), tone: phase(node),
    kind: node.phase, share: status.steps && node.phase !== "killed" ? node.age / status.steps : 0,
    sub: node.phase === "killed" ? "killed" : `age ${plain(node.age)}` }));
  const edges = new Map();
  const dead = new Set(nodes.filter((node) => node.phase === "killed").map((node) => node.node));
  for (const node of nodes) {
    for (const peer of node.peers ?? []) {
      const [a, b] = [node.node, peer.id].sort();
      const known = edges.get(`${a} ${b}`) ?? { a, b, tone: tone(peer)[0], merges: 0 };
      known.merges += peer.accepted;
      if (dead.has(a) || dead.has(b)) known.tone = "gone";
      edges.set(`${a} ${b}`, known);
    }
  }
  graph.show(birds, [...edges.values()], `${nodes.length} nodes, ${edges.size} links: ` +
    nodes.map((node) => `${short(node.node)} ${node.phase}`).join(", "));
  table("Test: rows that nobody trained on. By peers: rows that they hold out.",
    ["Node", "Phase", "Round", "Age", "Loss", "Test", "By peers", "Peers", "Sent", "Boots"],
    nodes.map((node) => ({ cls: phase(node), href: status.verdict ? null : node.dashboard, cells: [short(node.node), node.phase, plain(node.round),
      plain(node.age), fixed(3)(node.loss), percent(node.test_accuracy), percent(node.cross_accuracy),
      plain(node.peers?.length), bytes(node.sent_bytes), plain(node.boots)] })));
}

// ---------------------------------------------------------------- events

const SEVERITY = { INFO: 0, WARN: 1, ERROR: 2 };
const TONE = ["", "warn", "bad"];
let lines = [];
let paused = false;

function line(text) {
  const event = JSON.parse(text);
  // Lines below log.level have no number.
  const key = `${event.node} ${event.boot} ${event.seq ?? text}`;
  if (seen.lines.has(key)) return;
  seen.lines.add(key);
  if (event.event === "train.diverged") seen.diverged = Date.parse(event.ts);
  lines.unshift({ key, event, severity: SEVERITY[event.severity] ?? 0, row: null });
  for (const old of lines.splice(LINES_MAX)) seen.lines.delete(old.key);
  if (!paused) draw();
}

function row({ event, severity }) {
  const said = (event.msg ?? "").replace(`${event.event} `, "").replace(event.event, "");
  const when = html("time", { textContent: new Date(event.ts).toLocaleTimeString("en-GB"), dateTime: event.ts });
  const name = html("span", { className: `name ${TONE[severity]}`, textContent: event.event });
  const from = seen.status?.nodes ? [html("span", { className: "from", textContent: short(event.node) })] : [];
  return html("li", {}, when, ...from, name, html("span", { className: "text", textContent: said }));
}

let pending = false;
function draw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    const wanted = at("filter").value.trim().toLowerCase();
    const least = Number(at("severity").value);
    const shown = lines.filter(({ event, severity }) => severity >= least &&
      (!wanted || `${event.msg} ${event.node}`.toLowerCase().includes(wanted)));
    at("lines").classList.toggle("many", Boolean(seen.status?.nodes));
    at("lines").replaceChildren(...shown.map((one) => (one.row ??= row(one))));
    at("shown").textContent = `${shown.length} of ${lines.length} lines${paused ? ", paused" : ""}`;
  });
}

// ---------------------------------------------------------------- life

function show(status) {
  const nodes = status.nodes ?? (status.node ? [status] : []);
  seen.status = status;
  for (const node of nodes) remember(status.time_s, node);
  if (nodes.length) {
    if (status.nodes) many(status, nodes); else one(nodes[0]);
    if (status.nodes) flock(status, nodes); else neighbourhood(nodes[0]);
    curves(nodes.map((node) => node.node).filter(Boolean));
    sky.agree(mean(nodes.map((node) => node.consensus)));
  }
  at("mesh-name").textContent = status.nodes ? "The flock" : "Neighbourhood";
  at("list-name").textContent = status.nodes ? "Nodes" : "Neighbours";
  at("more").hidden = Boolean(status.nodes);
  alive();
}

function alive() {
  const open = Date.now() - seen.heard < SILENCE_MS;
  seen.open = open;
  at("dot").className = `dot ${open ? "on" : "off"}`;
  at("link").textContent = open ? "live" : "disconnected";
  banners(seen.status ?? {}, seen.status?.nodes ?? (seen.status?.node ? [seen.status] : []));
}

async function follow() {
  try {
    await recall();
  } catch {
    alive();
    setTimeout(follow, 2000);
    return;
  }
  const source = new EventSource("/api/events");
  source.addEventListener("status", (event) => {
    seen.heard = Date.now();
    seen.age = 0;
    show(JSON.parse(event.data));
  });
  source.addEventListener("beat", (event) => {
    seen.heard = Date.now();
    seen.age = Number(event.data);
  });
  source.addEventListener("line", (event) => line(event.data));
  source.addEventListener("error", () => {
    // The daemon may have been started anew: begin from its history again.
    source.close();
    setTimeout(follow, 2000);
  });
}

function theme(wanted) {
  const dark = wanted ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  if (wanted) document.documentElement.dataset.theme = wanted;
  at("theme").textContent = dark === "dark" ? "Light" : "Dark";
  at("theme").setAttribute("aria-label", `Switch to ${dark === "dark" ? "light" : "dark"} colours`);
  at("theme").value = dark;
}

at("theme").addEventListener("click", () => {
  const next = at("theme").value === "dark" ? "light" : "dark";
  localStorage.setItem("theme", next);
  theme(next);
});
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("filter").addEventListener("input", draw);
at("severity").addEventListener("change", draw);
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  draw();
});
const stored = () => localStorage.getItem("theme");
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(stored()));
theme(stored());
setInterval(alive, 1000);
follow();
