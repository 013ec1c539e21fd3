//! How each peer behaves, remembered whether it is linked or not: who breaks off and comes back
//! finds what it left, its empty buckets and its quarantine among it.

use core::time::Duration;
use std::collections::BTreeMap;

use starling_protocol::bucket::Bucket;
use starling_protocol::id::NodeId;
use starling_protocol::limits::{QUARANTINE_ROUNDS, SCORES_MAX};
use starling_protocol::time::Time;
use starling_protocol::window::ReplayWindow;

/// Of the last sixteen models of a peer so many may be rejected.
const REJECTS_MAX: u32 = 8;
/// Frames a peer may send in a burst, and per second: an unpaced node sends a few hundred.
const FRAMES_BURST: f64 = 4000.0;
const FRAMES_PER_SECOND: f64 = 2000.0;
/// Exchanges a peer may ask for in a burst: twice an honest peer's share.
const EXCHANGES_BURST: f64 = 2.0;
/// Rounds by which one peer may make us younger at once. More than this above its own age a node
/// does not believe (`Ages::believe`), so it would not be raised again by those it lags behind.
const YOUNGER_BURST: f64 = 2.0;
/// Rounds by which all peers together may make us younger per round in the long run. With a quarter
/// of the nodes five times slower, ages advance by 0.8 of what the fast ones do.
const YOUNGER_SHARE: f64 = 0.25;

/// One peer.
#[derive(Clone, Debug)]
pub(super) struct Conduct {
    pub(super) window: ReplayWindow,
    /// Whether it was ever let in. Strangers have as many keys as they like and are forgotten
    /// first.
    pub(super) member: bool,
    /// Its newest boot.
    epoch: u64,
    frames: Bucket,
    frames_refilled: Time,
    exchanges: Bucket,
    /// Own rounds when the bucket of exchanges was last refilled.
    refilled: f64,
    /// Rounds of age that it may take from us, and our own rounds when this was last refilled.
    younger: Bucket,
    younger_refilled: f64,
    /// Hints of its beats are heard from then on.
    pub(super) hints_from: Time,
    /// Our exchange with it that it may still score.
    pub(super) unscored: Option<u64>,
    /// Our last exchange with it that we gave up, and when we had asked.
    pub(super) given_up: Option<(u64, Time)>,
    pub(super) failures: u32,
    pub(super) cooldown_until: Time,
    /// The last sixteen merges, one bit each: set if the gate rejected it.
    rejects: u16,
    merges: u32,
    /// What gate, filter and trial left of the weight of its newest model.
    pub(super) trusted: Option<f64>,
    quarantine_until: u64,
    seen: Time,
}

impl Conduct {
    fn new(now: Time, rounds: f64) -> Self {
        Self {
            window: ReplayWindow::default(),
            member: false,
            epoch: 0,
            frames: Bucket::full(FRAMES_BURST),
            frames_refilled: now,
            exchanges: Bucket::full(EXCHANGES_BURST),
            refilled: rounds,
            younger: Bucket::full(YOUNGER_BURST),
            younger_refilled: rounds,
            hints_from: Time::ZERO,
            unscored: None,
            given_up: None,
            failures: 0,
            cooldown_until: Time::ZERO,
            rejects: 0,
            merges: 0,
            trusted: None,
            quarantine_until: 0,
            seen: now,
        }
    }

    pub(super) fn takes_frame(&mut self, now: Time) -> bool {
        let elapsed = now.since(self.frames_refilled).as_secs_f64();
        self.frames_refilled = now;
        self.frames.refill(elapsed * FRAMES_PER_SECOND);
        self.frames.take()
    }

    /// Whether it may ask for a model now, where each of our `rounds` earns it a `share`.
    pub(super) fn takes_exchange(&mut self, rounds: f64, share: f64) -> bool {
        self.exchanges.refill((rounds - self.refilled).max(0.0) * share);
        self.refilled = rounds;
        self.exchanges.take()
    }

    /// What it makes of our age, in rounds, where its models would make `change`. It may give as
    /// much as `Ages` believes, and takes no more than it gave and has earned by our `rounds`, of
    /// which a `share` is its own.
    pub(super) fn moves_age(&mut self, change: f64, rounds: f64, share: f64) -> f64 {
        let passed = (rounds - self.younger_refilled).max(0.0);
        self.younger_refilled = rounds;
        self.younger.refill(passed * share * YOUNGER_SHARE);
        if change < 0.0 {
            return -self.younger.take_up_to(-change);
        }
        self.younger.refill(change);
        change
    }

    /// It was let in, in its boot `epoch`. One that was started anew has nothing to do with why it
    /// did not answer before.
    pub(super) fn admitted(&mut self, epoch: u64) {
        self.member = true;
        if epoch > self.epoch {
            self.epoch = epoch;
            self.failures = 0;
            self.cooldown_until = Time::ZERO;
        }
    }

    /// Takes note that it did not do what it was asked: it is left alone for a while, twice as long
    /// each time in a row.
    pub(super) fn failed(&mut self, now: Time, cost: Duration, longest: Duration, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        let factor = 2_f64.powi(self.failures.min(10).cast_signed()) * jitter;
        self.cooldown_until = now + cost.mul_f64(factor).min(longest);
    }

    /// Whether it is left alone for its models in our `round`.
    pub(super) fn is_quarantined(&self, round: u64) -> bool {
        round < self.quarantine_until
    }

    /// Whether more than [`REJECTS_MAX`] of the last sixteen of its models were rejected, or it is
    /// left alone for that.
    pub(super) fn is_far_off(&self, round: u64) -> bool {
        self.rejects.count_ones() > REJECTS_MAX || self.is_quarantined(round)
    }

    /// Remembers a merge; true if the peer has just earned a quarantine: more than eight of the
    /// last sixteen rejected, and fewer than two accepted. It `may` not by a model that was taken,
    /// nor where many others are far off too.
    pub(super) fn observe_merge(&mut self, rejected: bool, round: u64, may: bool) -> bool {
        self.rejects = self.rejects << 1 | u16::from(rejected);
        self.merges = self.merges.saturating_add(1);
        let rejects = self.rejects.count_ones();
        let accepts = self.merges.min(16) - rejects;
        let earned = may && rejects > REJECTS_MAX && accepts < 2 && !self.is_quarantined(round);
        if earned {
            self.quarantine_until = round + QUARANTINE_ROUNDS;
            (self.rejects, self.merges) = (0, 0);
        }
        earned
    }
}

/// All peers whose conduct is remembered: those that are linked, and at most [`SCORES_MAX`] in all
/// unless more are.
#[derive(Clone, Debug, Default)]
pub(super) struct Conducts(BTreeMap<NodeId, Conduct>);

impl Conducts {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn get(&self, peer: NodeId) -> Option<&Conduct> {
        self.0.get(&peer)
    }

    pub(super) fn get_mut(&mut self, peer: NodeId) -> Option<&mut Conduct> {
        self.0.get_mut(&peer)
    }

    /// Begins or goes on to remember `peer`; `rounds` are our own so far.
    pub(super) fn meet(
        &mut self,
        peer: NodeId,
        now: Time,
        rounds: f64,
        linked: impl Fn(NodeId) -> bool,
    ) {
        let fresh = || Conduct::new(now, rounds);
        self.0.entry(peer).or_insert_with(fresh).seen = now;
        if self.0.len() <= SCORES_MAX {
            return;
        }
        let idle = self.0.iter().filter(|(id, _)| **id != peer && !linked(**id));
        let oldest = idle.min_by_key(|(_, conduct)| (conduct.member, conduct.seen));
        if let Some(oldest) = oldest.map(|(id, _)| *id) {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u64) -> NodeId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&index.to_le_bytes());
        NodeId(id)
    }

    #[test]
    fn nine_rejected_of_ten_are_a_quarantine() {
        let mut conduct = Conduct::new(Time::ZERO, 0.0);
        let earned: Vec<bool> =
            (0..10).map(|merge| conduct.observe_merge(merge != 3, 5, true)).collect();
        assert_eq!(earned.iter().position(|earned| *earned), Some(9));
        assert!(conduct.is_quarantined(5 + QUARANTINE_ROUNDS - 1));
        assert!(!conduct.is_quarantined(5 + QUARANTINE_ROUNDS));
    }

    #[test]
    fn exchanges_are_earned_by_our_rounds() {
        let mut conduct = Conduct::new(Time::ZERO, 10.0);
        let mut take = |rounds| conduct.takes_exchange(rounds, 0.5);
        assert_eq!([take(10.0), take(10.0), take(10.0)], [true, true, false]);
        assert_eq!([take(11.0), take(12.0), take(12.0)], [false, true, false]);
    }

    #[test]
    fn who_makes_us_younger_gives_back_or_waits() {
        let mut conduct = Conduct::new(Time::ZERO, 10.0);
        let mut moves = |change, rounds| conduct.moves_age(change, rounds, 0.5);
        assert_eq!([moves(-1.5, 10.0), moves(-1.5, 10.0), moves(-1.5, 10.0)], [-1.5, -0.5, 0.0]);
        assert_eq!([moves(1.0, 10.0), moves(-1.5, 10.0)], [1.0, -1.0]);
        assert_eq!([moves(-1.5, 18.0), moves(-9.0, 1e3)], [-1.0, -2.0]);
    }

    #[test]
    fn strangers_are_forgotten_before_members_and_the_linked_never() {
        let mut all = Conducts::default();
        let linked = |peer| peer == id(1);
        for member in [0, 1] {
            all.meet(id(member), Time::ZERO, 0.0, linked);
            all.get_mut(id(member)).expect("met").member = member == 0;
        }
        for stranger in 2..3 * SCORES_MAX as u64 {
            all.meet(id(stranger), Time(stranger), 0.0, linked);
        }
        assert_eq!(all.len(), SCORES_MAX);
        assert!(all.get(id(0)).is_some() && all.get(id(1)).is_some());
        assert!(all.get(id(2)).is_none());
    }
}
