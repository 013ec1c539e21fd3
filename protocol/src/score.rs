//! Misbehaviour adds up, fades, and ends in a ban. Pure: faults and time in, verdicts out.
//!
//! The scale is Lighthouse's: 0 at start, -100 at worst, half-life ten minutes, banned at -50. Time
//! -outs and unusual models never score; honest nodes are slow and unlike each other.

use core::time::Duration;
use std::collections::BTreeMap;

use crate::fault::Severity;
use crate::id::NodeId;
use crate::limits::SCORES_MAX;
use crate::time::Time;

const HALF_LIFE_S: f64 = 600.0;
const WORST: f64 = -100.0;
const BANNED_AT: f64 = -50.0;
/// A ban holds this long before the score fades.
const BAN: Duration = Duration::from_secs(12 * 3600);

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Strangers have as many keys as they like, so they are forgotten first.
    member: bool,
    score: f64,
    at: Time,
    banned_until: Option<Time>,
}

/// Scores of peers that misbehaved.
#[derive(Clone, Debug, Default)]
pub struct Scores(BTreeMap<NodeId, Entry>);

impl Scores {
    /// Counts a fault of a `member` or a stranger; true if it brought a ban.
    pub fn count(&mut self, peer: NodeId, severity: Severity, member: bool, now: Time) -> bool {
        let cost = match severity {
            Severity::None => return false,
            Severity::High => 1.0,
            Severity::Mid => 5.0,
            Severity::Low => 10.0,
            Severity::Fatal => 100.0,
        };
        let was_banned = self.is_banned(peer, now);
        let score = (self.score(peer, now) - cost).max(WORST);
        let banned_until = (score <= BANNED_AT).then(|| now + BAN);
        let member = member || self.0.get(&peer).is_some_and(|known| known.member);
        self.0.insert(peer, Entry { member, score, at: now, banned_until });
        self.forget_mildest(now);
        banned_until.is_some() && !was_banned
    }

    /// The faded score.
    #[must_use]
    pub fn score(&self, peer: NodeId, now: Time) -> f64 {
        self.0.get(&peer).map_or(0.0, |entry| {
            let from = entry.banned_until.unwrap_or(entry.at);
            entry.score * 0.5_f64.powf(now.since(from).as_secs_f64() / HALF_LIFE_S)
        })
    }

    /// Whether the peer is banned now.
    #[must_use]
    pub fn is_banned(&self, peer: NodeId, now: Time) -> bool {
        self.0.get(&peer).and_then(|entry| entry.banned_until).is_some_and(|until| now < until)
    }

    /// Forgets what a peer did; whether it was banned.
    pub fn forgive(&mut self, peer: NodeId, now: Time) -> bool {
        let was_banned = self.is_banned(peer, now);
        self.0.remove(&peer);
        was_banned
    }

    /// Who is banned now.
    pub fn banned(&self, now: Time) -> impl Iterator<Item = NodeId> + '_ {
        self.0.keys().copied().filter(move |peer| self.is_banned(*peer, now))
    }

    fn forget_mildest(&mut self, now: Time) {
        if self.0.len() <= SCORES_MAX {
            return;
        }
        let mildest = self
            .0
            .iter()
            .max_by(|(a, of_a), (b, of_b)| {
                let mildness = self.score(**a, now).total_cmp(&self.score(**b, now));
                (!of_a.member).cmp(&!of_b.member).then(mildness)
            })
            .map(|(peer, _)| *peer);
        if let Some(peer) = mildest {
            self.0.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: NodeId = NodeId([1; 32]);

    #[test]
    fn one_fatal_fault_or_many_small_ones_ban() {
        let mut scores = Scores::default();
        assert!(scores.count(PEER, Severity::Fatal, true, Time::ZERO));
        assert!(!scores.count(PEER, Severity::Fatal, true, Time::ZERO));
        assert!(scores.is_banned(PEER, Time::ZERO + BAN - Duration::from_secs(1)));
        assert!(!scores.is_banned(PEER, Time::ZERO + BAN));

        let (mut scores, mut bans) = (Scores::default(), 0);
        for count in 1..=10 {
            bans += u32::from(scores.count(PEER, Severity::Mid, true, Time::ZERO));
            assert_eq!(bans, u32::from(count == 10));
        }
        assert!(!scores.count(NodeId([2; 32]), Severity::None, true, Time::ZERO));
        assert_eq!(scores.score(NodeId([2; 32]), Time::ZERO), 0.0);
    }

    #[test]
    fn who_is_forgiven_starts_anew() {
        let mut scores = Scores::default();
        scores.count(PEER, Severity::Fatal, true, Time::ZERO);
        assert_eq!(scores.banned(Time::ZERO).collect::<Vec<_>>(), [PEER]);
        assert!(scores.forgive(PEER, Time::ZERO));
        assert!(!scores.is_banned(PEER, Time::ZERO));
        assert_eq!(scores.score(PEER, Time::ZERO), 0.0);
        assert!(!scores.forgive(PEER, Time::ZERO));
    }

    #[test]
    fn small_faults_fade() {
        let mut scores = Scores::default();
        scores.count(PEER, Severity::Low, true, Time::ZERO);
        let later = Time::ZERO + Duration::from_secs(600);
        assert!((scores.score(PEER, later) + 5.0).abs() < 1e-9);
    }

    #[test]
    fn strangers_cannot_wash_out_the_ban_of_a_member() {
        let mut scores = Scores::default();
        scores.count(NodeId([255; 32]), Severity::Fatal, true, Time::ZERO);
        for index in 0..2 * SCORES_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&index.to_le_bytes());
            assert!(scores.count(NodeId(id), Severity::Fatal, false, Time::ZERO));
        }
        assert_eq!(scores.0.len(), SCORES_MAX);
        assert!(scores.is_banned(NodeId([255; 32]), Time::ZERO));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_worst() {
        let mut scores = Scores::default();
        scores.count(PEER, Severity::Fatal, true, Time::ZERO);
        for index in 0..2 * SCORES_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(index + 2).to_le_bytes());
            scores.count(NodeId(id), Severity::High, true, Time::ZERO);
        }
        assert_eq!(scores.0.len(), SCORES_MAX);
        assert!(scores.is_banned(PEER, Time::ZERO));
    }
}
