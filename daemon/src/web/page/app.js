// The page: takes the history once, then follows status and log lines as they come.
import { Chart } from "/chart.js";
import { Dealings } from "/dealings.js";
import { arrange, fill, html, say } from "/dom.js";
import { ago, bytes, duration, fixed, mean, percent, plain, scaled, short } from "/format.js";
import { Graph } from "/graph.js";
import { Sky } from "/sky.js";

const SAMPLES_MAX = 1440;
const LINES_MAX = 300;
const SILENCE_MS = 8000;
const HUNG_MS = 10000;
const DIVERGED_MS = 120000;
const FIGURES = ["loss", "cross_accuracy", "test_accuracy", "consensus", "sent_bytes",
  "received_bytes"];
const at = (id) => document.getElementById(id);

// Samples of each node, by its id.
const history = new Map();
const seen = { lines: new Set(), status: null, heard: 0, hung: null, diverged: new Map(), open: false };
const dealings = new Dealings();
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
  const note = (tone, title, text, who = "") =>
    notes.push({ key: title + who, tone, title, text: who ? who + text : text[0].toUpperCase() + text.slice(1) });
  if (!seen.open) {
    const since = seen.heard ? ` since ${new Date(seen.heard).toLocaleTimeString()}` : "";
    note("bad", "Disconnected.", `Nothing is heard from the daemon${since}; the values below are ` +
      "from then. It is tried again by itself.");
  } else if (seen.hung && !status.nodes) {
    note("bad", "Hanging.", "The daemon answers, but its loop has not moved since " +
      `${new Date(seen.hung).toLocaleTimeString()}.`);
  }
  if (status.verdict) {
    const v = status.verdict;
    note("calm", "Landed.", `Each node alone ${percent(v.accuracy_local_only)}, the flock ` +
      `${percent(v.accuracy_mean)}, its worst node ${percent(v.accuracy_worst)}, all rows in one ` +
      `place ${percent(v.accuracy_pooled)}; ${bytes(v.sent_bytes_per_node_mean)} sent per node.`);
  }
  for (const node of nodes) {
    const who = status.nodes ? `Node ${short(node.node)}: ` : "";
    if (node.phase === "killed") note("warn", "Killed.", "it comes back by itself.", who);
    if (node.paused) note("calm", "Paused.", "paused by the operator: no training until " +
      "`starling resume`; peers are answered.", who);
    if (node.degraded) note("bad", "Degraded.", "checkpoints cannot be saved. Look at disk space " +
      "and permissions of the state directory.", who);
    if (node.isolated) note("bad", "Isolated.", "nobody has exchanged with it for five rounds and " +
      "five seconds. Check the network and the peers.", who);
    else if (node.obstacle) note("warn", "Waiting.", `${node.obstacle}.`, who);
    if (Date.now() - (seen.diverged.get(short(node.node)) ?? 0) < DIVERGED_MS) {
      note("bad", "Diverging.", "training left the range of numbers and went on from the served " +
        "model. Lower the learning rate if it repeats.", who);
    }
  }
  if (!status.verdict && nodes.length && nodes.every((node) => node.phase === "done")) {
    note("calm", "Learnt.", "The age at which learning ends is reached; from here on the model is " +
      "served.");
  }
  // Only what needs somebody interrupts who listens.
  place(at("alarms"), notes.filter(({ tone }) => tone === "bad"));
  place(at("notes"), notes.filter(({ tone }) => tone !== "bad"));
}

// What is there already stays, so that only what is new is told.
function place(region, notes) {
  const make = ({ tone, title }) => () =>
    html("p", { className: `banner ${tone}` }, html("b", { textContent: title }), html("span"));
  arrange(region, notes.map((note) => [note.key, make(note)])).forEach((banner, i) =>
    say(banner.lastChild, ` ${notes[i].text}`));
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
    say(row.children[0], name);
    say(row.children[1].children[0], value);
    say(row.children[1].children[1], more ?? "");
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
    `Round ${plain(node.round)}, ${node.accepted ? `${plain(node.accepted)} models merged, the last ` +
      ago(node.merged_s) : "no model merged since the start"}.`,
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

// The worse of the two ends' opinions is that of a link.
const TONES = ["idle", "ok", "warn", "bad", "gone"];
const worse = (a, b) => (TONES.indexOf(a) > TONES.indexOf(b) ? a : b);
const counts = (peer) => [peer.accepted, peer.rejected, peer.failed].map((count) => count ?? 0);

function neighbourhood(status, node) {
  const verdicts = dealings.judge(node, status.time_s);
  const gone = (node.gone ?? []).filter((peer) => !(node.peers ?? []).some((p) => p.id === peer.id));
  const peers = [...(node.peers ?? []), ...gone].map((peer) => {
    const [cls, state] = verdicts.get(peer.id) ?? ["gone", `gone for ${duration(peer.gone_s)}`];
    return { ...peer, cls, state };
  });
  const self = { id: node.node, short: "this node", sub: `age ${plain(node.age)}`, centre: true,
    tone: node.isolated || node.degraded ? "bad" : "ok", kind: "self",
    share: node.age_max ? node.age / node.age_max : 0 };
  const birds = peers.map((peer) => ({ id: peer.id, short: short(peer.id), tone: peer.cls,
    kind: peer.cls === "gone" ? "killed" : "", sub: peer.cls === "gone" ? "gone" : `age ${plain(peer.age)}`,
    share: peer.cls !== "gone" && node.age_max ? peer.age / node.age_max : 0 }));
  const edges = peers.map((peer) =>
    ({ a: peer.id, b: node.node, tone: peer.cls, counts: counts(peer) }));
  graph.show([self, ...birds], edges,
    `This node and ${peers.length} neighbours: ` +
    peers.map((peer) => `${short(peer.id)} ${peer.state}`).join(", "));
  fill(at("peers"), "All linked directly; counts since the link was made, the state by the last exchanges",
    ["Peer", "State", "Age", "Merged", "Rejected", "Failed", "Last exchange"],
    peers.map((peer) => ({ key: peer.id, cls: peer.cls, cells: [short(peer.id), peer.state, plain(peer.age),
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
    const verdicts = dealings.judge(node, status.time_s);
    for (const peer of node.peers ?? []) {
      const [a, b] = [node.node, peer.id].sort();
      const known = edges.get(`${a} ${b}`) ?? { a, b, tone: "idle", counts: [0, 0, 0] };
      known.counts = counts(peer).map((count, i) => count + known.counts[i]);
      known.tone = worse(known.tone, dead.has(a) || dead.has(b) ? "gone" : verdicts.get(peer.id)[0]);
      edges.set(`${a} ${b}`, known);
    }
  }
  graph.show(birds, [...edges.values()], `${nodes.length} nodes, ${edges.size} links: ` +
    nodes.map((node) => `${short(node.node)} ${node.phase}`).join(", "));
  fill(at("peers"), "Test: rows that nobody trained on. By peers: rows that they hold out.",
    ["Node", "Phase", "Round", "Age", "Loss", "Test", "By peers", "Peers", "Sent", "Boots"],
    nodes.map((node) => ({ key: node.node, cls: phase(node), href: status.verdict ? null : node.dashboard,
      down: node.phase === "killed", cells: [short(node.node), node.phase, plain(node.round), plain(node.age), fixed(3)(node.loss), percent(node.test_accuracy), percent(node.cross_accuracy),
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
  if (event.event === "train.diverged") seen.diverged.set(short(event.node), Date.parse(event.ts));
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
    if (status.nodes) flock(status, nodes); else neighbourhood(status, nodes[0]);
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
    seen.hung = null;
    show(JSON.parse(event.data));
  });
  source.addEventListener("beat", (event) => {
    seen.heard = Date.now();
    const age = Number(event.data) * 1000;
    seen.hung = age < HUNG_MS ? null : (seen.hung ?? Date.now() - age);
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

// Where the browser blocks storage the choice lasts as long as the page.
let chosen = null;
try {
  chosen = localStorage.getItem("theme");
} catch { /* As if nothing were stored. */ }

function choose(next) {
  chosen = next;
  theme(next);
  try {
    localStorage.setItem("theme", next);
  } catch { /* It is shown all the same. */ }
}

at("theme").addEventListener("click", () => choose(at("theme").value === "dark" ? "light" : "dark"));
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("filter").addEventListener("input", draw);
at("severity").addEventListener("change", draw);
at("pause").addEventListener("click", () => {
  paused = !paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => theme(chosen));
theme(chosen);
setInterval(alive, 1000);
follow();
