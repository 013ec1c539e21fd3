// Elements, and tables that change in place: whoever reads in them or has the focus stays there.
const NS = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, parent = null) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (parent) parent.append(element);
  return element;
}

export function html(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Makes the children of `parent` those of `wanted`, [key, make] each, in their order. Who has a key
// already keeps its element, and is not moved unless its place has changed.
export function arrange(parent, wanted) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const keys = new Set(wanted.map(([key]) => key));
  for (const [key, child] of known) if (!keys.has(key)) child.remove();
  return wanted.map(([key, make], i) => {
    const child = known.get(key) ?? make();
    child.dataset.key = key;
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] ?? null);
    return child;
  });
}

function name(cell, text, href, down) {
  if (!href && !down) {
    if (cell.firstElementChild) cell.replaceChildren();
    return say(cell, text);
  }
  const link = cell.firstElementChild ?? html("a");
  if (!link.parentElement) cell.replaceChildren(link);
  say(link, text);
  // The link of a node that is down stays, or its focus would be lost: it leads there again soon.
  if (href && link.getAttribute("href") !== href) link.href = href;
  link.ariaDisabled = down ? "true" : null;
}

// Each row: {key, cells, cls, href, down}; the first cell names it, the second is its state.
export function fill(table, caption, heads, rows) {
  say(table.caption ?? table.createCaption(), caption);
  const head = table.tHead ?? table.createTHead();
  if (!head.rows.length) head.append(html("tr"));
  const columns = heads.map((text, i) => [`${i}`, () => html("th", { scope: "col" })]);
  arrange(head.rows[0], columns).forEach((cell, i) => say(cell, heads[i]));
  if (!table.tBodies.length) table.append(html("tbody"));
  const lines = rows.map(({ key }) => [key, () => html("tr")]);
  arrange(table.tBodies[0], lines).forEach((line, at) => {
    const { cells, cls, href, down } = rows[at];
    line.className = cls === "gone" ? "gone" : "";
    const make = (i) => (i ? html("td") : html("th", { scope: "row" }));
    const places = cells.map((_, i) => [`${i}`, () => make(i)]);
    arrange(line, places).forEach((cell, i) => {
      if (i === 0) return name(cell, cells[i], href, down);
      if (i === 1 && cls) cell.className = `state ${cls}`;
      say(cell, cells[i]);
    });
  });
}
