// Numbers as people read them.
export const plain = (value) => (value == null ? "–" : Math.round(value).toLocaleString("en"));
export const fixed = (digits) => (value) => (value == null ? "–" : value.toFixed(digits));
export const percent = (value) => (value == null ? "–" : `${(value * 100).toFixed(1)}\u00a0%`);
export const short = (id) => (id ?? "").slice(-10);

export function bytes(value, places = null) {
  if (value == null) return "–";
  const [unit, size] = [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]].find(([, s]) => value >= s) ?? ["B", 1];
  return `${places ?? (value / size).toFixed(size === 1 ? 0 : value / size < 10 ? 2 : 1)}\u00a0${unit}`;
}

export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 100) return `${seconds < 10 ? +seconds.toFixed(1) : Math.round(seconds)} s`;
  if (seconds < 6000) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}

export const ago = (seconds) => (seconds < 1 ? "just now" : `${duration(Math.round(seconds))} ago`);

// A curve's scale wants round numbers, its readout exact ones.
export const scaled = {
  percent: (value, exact) => (exact ? percent(value) : `${+(value * 100).toFixed(1)} %`),
  loss: (value, exact) => (exact ? value.toFixed(4) : `${+value.toFixed(4)}`),
  bytes: (value, exact) => {
    const size = [1e9, 1e6, 1e3].find((s) => value >= s) ?? 1;
    return bytes(value, exact ? null : +(value / size).toFixed(2));
  },
};

export function mean(values) {
  const known = values.filter((value) => value != null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
}
