// What a screen reader and a keyboard find on a page. For scripts/try-dashboard.
const { check, until } = require("./telling.js");

// What is shown, and as what it has to be found.
const PARTS = [
  ["h1, main h2", "heading"],
  ["#figures dt", "term"],
  ["#figures dd", "definition"],
  ["thead th", "columnheader"],
  ["tbody th", "rowheader"],
  ["td", "cell"],
  ["caption", "caption"],
  [".banner, #summary, #identity", "paragraph"],
  // Of no role of their own: it is enough that they are read.
  ["#headline, #headline-name", null],
  ["#lines li, .key li", "listitem"],
  ["#shown, .chart output", "status"],
  ["button", "button"],
];
const STOPS_MAX = 80;

const plain = (text) => text.replace(/[\s\u00a0]+/g, "");

// The accessibility tree by the elements that its nodes are about.
class Heard {
  static async of(page) {
    const heard = new Heard();
    const { nodes } = await page.send("Accessibility.getFullAXTree");
    heard.page = page;
    heard.byId = new Map(nodes.map((node) => [node.nodeId, node]));
    heard.byElement = new Map(nodes.map((node) => [node.backendDOMNodeId, node]));
    heard.root = (await page.send("DOM.getDocument", { depth: 0 })).root.nodeId;
    return heard;
  }

  text(node) {
    if (node.role?.value === "StaticText") return node.ignored ? "" : node.name?.value ?? "";
    return (node.childIds ?? []).map((id) => this.byId.get(id)).filter(Boolean)
      .map((child) => this.text(child)).join("");
  }

  // The node of each element, in the order of the document.
  async all(selector) {
    const { nodeIds } = await this.page.send("DOM.querySelectorAll", { nodeId: this.root, selector });
    const found = nodeIds.map(async (nodeId) => {
      const { node } = await this.page.send("DOM.describeNode", { nodeId });
      return this.byElement.get(node.backendNodeId);
    });
    return Promise.all(found);
  }
}

// What is shown but not found as what it is, and how much is.
async function unheard(page) {
  const heard = await Heard.of(page);
  const missing = [];
  let count = 0;
  for (const [selector, role] of PARTS) {
    const shown = await page.run(`[...document.querySelectorAll(${JSON.stringify(selector)})].map((e) =>
      [e.checkVisibility(), e.textContent])`);
    const nodes = await heard.all(selector);
    shown.forEach(([visible, text], i) => {
      if (!visible || !plain(text)) return;
      count += 1;
      const node = nodes[i];
      const said = node ? heard.text(node) || (node.name?.value ?? "") : "";
      const found = node?.ignored ? "ignored" : node?.role.value;
      if ((role && found !== role) || plain(said) !== plain(text)) {
        missing.push(`${role} "${text.trim()}" is ${found} "${said}"`);
      }
    });
  }
  return { missing, count, heard };
}

// Every value is found as what it is. The source of the values must be held meanwhile.
async function checkHeard(page, name) {
  await page.run(`document.querySelectorAll("details").forEach((one) => { one.open = true; })`);
  await until("tables of the curves", () => page.run(
    `[...document.querySelectorAll(".chart table")].every((table) => table.rows.length > 10)`));
  const { missing, count, heard } = await unheard(page);
  check(missing.length === 0 && count > 150, `${name}: ${count} values are heard as what they are` +
    `${missing.length ? `, but for ${missing.slice(0, 5).join("; ")}` : ""}`);
  const charts = await heard.all(".chart svg");
  // The browser's own view of the tree leaves out the words of a slider's value.
  const words = await page.run(`[...document.querySelectorAll(".chart")].map((e) =>
    [e.querySelector("svg").ariaValueText, e.querySelector("output").textContent])`);
  check(charts.length === 4 && words.every(([value, output]) => value && value === output) &&
    charts.every(({ role, name: label, description }) => role.value === "slider" && label.value &&
      description.value.includes(" over ")), `${name}: each curve is a slider with its value in words`);
  const [graph] = await heard.all("#graph svg");
  const rows = await page.run(`[...document.querySelectorAll("#peers tbody tr")].map((row) =>
    [row.cells[0].textContent, row.cells[1].textContent])`);
  check(graph.role.value === "image" && rows.length > 0 &&
    rows.every(([id, state]) => graph.name.value.includes(`${id} ${state}`)),
  `${name}: the graph is told in words, with the state of each of ${rows.length}`);
  const roles = (await Promise.all(["#alarms", "#notes"].map((one) => heard.all(one)))).flat();
  check(roles.map((node) => node?.role.value).join() === "alert,status", `${name}: alarms interrupt, notes wait`);
  // A check that finds nothing whatever is hidden would be none.
  await page.run(`document.querySelector("#figures dd").ariaHidden = "true";
    document.querySelector("td").role = "presentation"`);
  const hidden = await unheard(page);
  check(hidden.missing.length === missing.length + 2, `${name}: what is hidden from a screen reader is noticed`);
  await page.run(`document.querySelector("#figures dd").ariaHidden = null;
    document.querySelector("td").removeAttribute("role");
    document.querySelectorAll("details").forEach((one) => { one.open = false; })`);
}

// Tab goes once through everything that can be used, in the order of the page, visibly, each with a
// name, whatever is updated meanwhile.
async function checkWalk(page, name, perStop) {
  const wanted = await page.run(`(() => {
    window.stops = [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
      .filter((e) => e.checkVisibility());
    scrollTo(0, 0);
    stops[0].focus();
    return stops.length;
  })()`);
  const walked = [];
  const faults = [];
  for (let i = 0; i < STOPS_MAX; i += 1) {
    const stop = await page.run(`(() => { const e = document.activeElement; const s = getComputedStyle(e);
      return { at: stops.indexOf(e), what: e.id || e.textContent.slice(0, 20) || e.className,
        ring: s.outlineStyle !== "none" && parseFloat(s.outlineWidth) >= 2 }; })()`);
    if (stop.at < 0 || (i > 0 && stop.at === 0)) break;
    const { name: label, role } = await page.focused();
    if (!label || !role) faults.push(`${stop.what} has no name`);
    // Given by a script, the first may have no ring.
    if (!stop.ring && i > 0) faults.push(`${stop.what} has no ring`);
    walked.push(stop.at);
    await perStop(page);
    await page.press("Tab");
  }
  const inOrder = walked.length === wanted && walked.every((at, i) => at === i);
  check(inOrder && faults.length === 0, `${name}: Tab goes through ${wanted} stops in their order` +
    `${inOrder ? "" : `, but walked ${walked.join(" ")}`}${faults.length ? `, but ${faults.join("; ")}` : ""}`);
}

// The figures change with each status.
async function updates(page, many) {
  const shown = () => page.run(`document.querySelector("#figures").textContent`);
  for (let i = 0; i < many; i += 1) {
    const before = await shown();
    await until("an update", async () => (await shown()) !== before);
  }
}

async function checkFocusKept(page, name, selector) {
  await page.run(`document.querySelector(${JSON.stringify(selector)}).focus();
    window.kept = document.activeElement;
    if (!kept.matches(${JSON.stringify(selector)})) throw new Error("no focus on ${selector.replaceAll('"', "'")}")`);
  await updates(page, 4);
  check(await page.run(`document.activeElement === window.kept && window.kept.isConnected`),
    `${name}: ${selector} has the focus after four updates`);
}

module.exports = { checkFocusKept, checkHeard, checkWalk, updates };
