//! How many lines are written: what peers cause must neither fill a disk nor hide the rest.
//!
//! Every line held back is counted once, in `suppressed` of the next line of its kind or in
//! `log.suppressed`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use starling_node::event::Severity;

/// After this time one more line of an event about one peer is let through.
const PERIOD: Duration = Duration::from_secs(10);
/// News about one peer come in bursts, as when it restarts a few times: the last line must tell
/// whether it is there. Warnings do not: a hostile peer makes as many as it likes.
const NEWS_BURST: u32 = 20;
/// Lines a second, whoever they are about. Events about nobody are bounded by their cause, so they
/// count but are not held back: no crowd of peers can hide that the disk is full.
const LINES_PER_SECOND_MAX: u64 = 100;
/// Kinds of (event, peer) whose rate is watched; beyond it all others of an event share one.
const WATCHED_MAX: usize = 2048;

#[derive(Debug)]
struct Rate {
    tokens: u32,
    burst: u32,
    since: Instant,
    suppressed: u64,
}

impl Rate {
    fn take(&mut self, now: Instant) -> bool {
        let periods = now.saturating_duration_since(self.since).as_secs() / PERIOD.as_secs();
        if periods > 0 {
            let refill = u32::try_from(periods).unwrap_or(self.burst);
            self.tokens = self.burst.min(self.tokens.saturating_add(refill));
            self.since = now;
        }
        let taken = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        taken
    }

    /// Whether it has been quiet for so long that perhaps no next line tells what was held back.
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= 2 * PERIOD
    }

    /// Whether it has been full for a period: then it is as good as new.
    fn is_idle(&self, now: Instant) -> bool {
        let missing = self.burst - self.tokens;
        now.saturating_duration_since(self.since) >= PERIOD * (missing + 1)
    }
}

/// Lets lines through, or holds them back.
#[derive(Debug, Default)]
pub(super) struct Limiter {
    rates: BTreeMap<(&'static str, String), Rate>,
    second: Option<Instant>,
    written: u64,
    held: u64,
}

impl Limiter {
    /// To be called before each line: how many were held back and will be told by no other line,
    /// at most once a second.
    pub(super) fn released(&mut self, now: Instant) -> u64 {
        let second = Duration::from_secs(1);
        if self.second.is_some_and(|since| now.saturating_duration_since(since) < second) {
            return 0;
        }
        self.second = Some(now);
        self.written = 0;
        let held = &mut self.held;
        self.rates.retain(|_, rate| {
            if rate.is_silent(now) {
                *held += std::mem::take(&mut rate.suppressed);
            }
            !rate.is_idle(now)
        });
        std::mem::take(&mut self.held)
    }

    /// How many lines of this event about this peer were held back before this one; none if this
    /// one is held back too.
    pub(super) fn admit(
        &mut self,
        now: Instant,
        name: &'static str,
        severity: Severity,
        subject: Option<&str>,
    ) -> Option<u64> {
        let Some(subject) = subject else {
            self.written += 1;
            return Some(0);
        };
        let mut key = (name, subject.to_owned());
        if self.rates.len() >= WATCHED_MAX && !self.rates.contains_key(&key) {
            key.1.clear();
        }
        let burst = if severity == Severity::Info { NEWS_BURST } else { 1 };
        let fresh = || Rate { tokens: burst, burst, since: now, suppressed: 0 };
        let rate = self.rates.entry(key).or_insert_with(fresh);
        if !rate.take(now) {
            rate.suppressed += 1;
            return None;
        }
        let suppressed = std::mem::take(&mut rate.suppressed);
        if self.written >= LINES_PER_SECOND_MAX {
            self.held += suppressed + 1;
            return None;
        }
        self.written += 1;
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: u32 = 1_000_000;
    const EVENT: &str = "frame.rejected";

    /// What came of many calls: when lines were written, and how many were told to be held back.
    #[derive(Default)]
    struct Seen {
        lines: Vec<Duration>,
        suppressed: u64,
        releases: u64,
    }

    fn call(limiter: &mut Limiter, seen: &mut Seen, start: Instant, at: Duration, peer: &str) {
        let now = start + at;
        let released = limiter.released(now);
        seen.releases += u64::from(released > 0);
        seen.suppressed += released;
        if let Some(suppressed) = limiter.admit(now, EVENT, Severity::Warn, Some(peer)) {
            seen.lines.push(at);
            seen.suppressed += suppressed;
        }
    }

    fn told(seen: &Seen) -> u64 {
        seen.lines.len() as u64 + seen.suppressed
    }

    #[test]
    fn a_million_bad_frames_of_one_peer_are_one_line_in_ten_seconds() {
        let (mut limiter, mut seen) = (Limiter::default(), Seen::default());
        let start = Instant::now();
        for index in 0..CALLS {
            let at = Duration::from_micros(100) * index;
            call(&mut limiter, &mut seen, start, at, "hostile");
        }
        assert_eq!(seen.lines.len(), 10, "{:?}", seen.lines);
        assert!(seen.lines.windows(2).all(|pair| pair[1] - pair[0] >= PERIOD), "{:?}", seen.lines);
        assert_eq!(seen.releases, 0);
        // The peer falls silent; the rest is told when somebody else speaks.
        call(&mut limiter, &mut seen, start, Duration::from_secs(200), "other");
        assert_eq!(told(&seen), u64::from(CALLS) + 1);
        assert_eq!(seen.releases, 1);
    }

    #[test]
    fn a_million_peers_are_a_hundred_lines_in_a_second() {
        let (mut limiter, mut seen) = (Limiter::default(), Seen::default());
        let start = Instant::now();
        for index in 0..CALLS {
            let at = Duration::from_micros(100) * index;
            call(&mut limiter, &mut seen, start, at, &format!("peer {index}"));
            assert!(limiter.rates.len() <= WATCHED_MAX + 1);
        }
        for second in 0..100 {
            let lines = seen.lines.iter().filter(|at| at.as_secs() == second).count();
            assert!(lines as u64 <= LINES_PER_SECOND_MAX, "{lines} in second {second}");
        }
        assert!(seen.lines.len() > 400, "{}", seen.lines.len());
        assert!(seen.releases <= 100, "{}", seen.releases);
        call(&mut limiter, &mut seen, start, Duration::from_secs(200), "other");
        assert_eq!(told(&seen), u64::from(CALLS) + 1);
    }

    #[test]
    fn a_crowd_of_peers_does_not_hide_what_is_about_nobody() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        limiter.released(now);
        for index in 0..CALLS / 100 {
            limiter.admit(now, EVENT, Severity::Warn, Some(&format!("peer {index}")));
        }
        assert_eq!(limiter.admit(now, "checkpoint.failed", Severity::Error, None), Some(0));
        assert_eq!(limiter.admit(now, "peer.connected", Severity::Info, Some("peer")), None);
    }

    #[test]
    fn news_come_in_bursts_and_peers_do_not_share_them() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        let news = |limiter: &mut Limiter, now, peer| {
            limiter.admit(now, "peer.connected", Severity::Info, Some(peer))
        };
        for _ in 0..NEWS_BURST {
            assert_eq!(news(&mut limiter, now, "a"), Some(0));
        }
        assert_eq!(news(&mut limiter, now, "a"), None);
        assert_eq!(news(&mut limiter, now, "b"), Some(0));
        assert_eq!(news(&mut limiter, now + PERIOD, "a"), Some(1));
        assert_eq!(news(&mut limiter, now + PERIOD, "a"), None);
    }

    #[test]
    fn what_was_held_back_of_a_burst_is_told_long_before_the_next_may_come() {
        let mut limiter = Limiter::default();
        let now = Instant::now();
        for _ in 0..NEWS_BURST + 4 {
            limiter.admit(now, "exchange.failed", Severity::Info, Some("a"));
        }
        assert_eq!(limiter.released(now + PERIOD), 0);
        assert_eq!(limiter.released(now + 2 * PERIOD), 4);
        assert_eq!(limiter.released(now + 30 * PERIOD), 0);
        assert!(limiter.rates.is_empty());
    }
}
