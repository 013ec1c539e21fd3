// What a peer does now. Its counts are totals of the link's life, in which a peer that turns hostile
// or silent would not be seen for hours; the differences between statuses show it at once.

// The last statuses in which something was dealt with it decide, each with the same weight: a link
// turns after two of them, so within seconds, and one failure among merges is none yet.
const DEALINGS = 3;
// A peer is silent after so many times its usual pause, and not before so many seconds.
const PAUSES = 8;
const SILENCE_S = 5;

export class Dealings {
  constructor() {
    this.links = new Map();
  }

  // One status of one node: what became of each peer, by its id, as [tone, words].
  judge(node, time) {
    const before = this.links.get(node.node) ?? new Map();
    const links = new Map();
    const verdicts = new Map();
    const busy = node.phase === "train" && !node.paused;
    for (const peer of node.peers ?? []) {
      const link = follow(before.get(peer.id), [peer.accepted, peer.rejected, peer.failed], time);
      links.set(peer.id, link);
      verdicts.set(peer.id, peer.quarantined ? ["bad", "quarantined"] : verdict(link, time, busy));
    }
    // A link made anew starts anew.
    this.links.set(node.node, links);
    return verdicts;
  }
}

function follow(link, counts, time) {
  const changes = link?.counts.map((count, i) => counts[i] - count);
  // Counts that fall are those of a new link.
  if (!link || changes.some((change) => change < 0)) {
    return { counts, recent: shares(counts), since: time, pause: 0 };
  }
  const [dealt] = shares(changes);
  if (!dealt) return { ...link, counts };
  const pause = Math.max(time - link.since, link.pause * 0.7);
  return { counts, recent: [...link.recent, dealt].slice(-DEALINGS), since: time, pause };
}

function shares(counts) {
  const total = counts.reduce((a, b) => a + b, 0);
  return total > 0 ? [counts.map((count) => count / total)] : [];
}

function verdict({ recent, since, pause }, time, busy) {
  const [accepted, rejected, failed] = [0, 1, 2].map((i) => recent.reduce((sum, one) => sum + one[i], 0));
  if (!recent.length) return ["idle", "linked"];
  if (failed > accepted + rejected) return ["bad", "fails"];
  if (busy && time - since > SILENCE_S + PAUSES * pause) return ["idle", "silent"];
  return rejected > accepted ? ["warn", "often rejected"] : ["ok", "merges"];
}
