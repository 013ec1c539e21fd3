// One line per check, and waiting. For scripts/try-dashboard.
const PATIENCE_MS = 90_000;
let failures = 0;

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function check(ok, what) {
  console.log(`${ok ? "ok  " : "FAIL"} ${what}`);
  if (!ok) failures += 1;
}

async function until(what, probe, patience = PATIENCE_MS) {
  const end = Date.now() + patience;
  while (Date.now() < end) {
    const value = await probe();
    if (value) return value;
    await pause(100);
  }
  throw new Error(`waited ${patience / 1000} s in vain for ${what}`);
}

module.exports = { check, pause, until, failed: () => failures };
