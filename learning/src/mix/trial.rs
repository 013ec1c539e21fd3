//! The trial: whose models do badly on our own rows, by the measure of the others.
//!
//! A model that is to be merged is tried on a few rows that we hold back, as UBAR (Guo et al.,
//! arXiv 2002.08569) and others do before a merge. Honest partners do worse on our rows than we
//! do, each by an amount of its own, the more so the less their data is like ours; so what counts
//! is not the loss but how it compares with that of the other partners. Whoever holds the flock
//! back must raise its loss, in whatever direction and however little each time.

use std::collections::BTreeMap;

/// Share of a peer's usual excess that is kept at each trial.
const KEEP: f64 = 0.7;
/// Fewer other peers than this have no usual excess.
const PEERS_ENOUGH: usize = 5;
/// A peer's excess may lie above the usual one by so many usual deviations, and in nats by so much
/// in any case: a flock that agrees closely has hardly any deviation. At three, attackers that push
/// each victim back along the last round's progress cost 0.8 points where they cost 3.3 without a
/// trial, and flocks of two classes a node, where honest excesses differ most, lose nothing.
const DEVIATIONS: f64 = 5.0;
const EXCESS_MIN: f64 = 0.1;
/// A record is fresh for so many trials of each peer that is remembered.
const FRESH: u64 = 4;
/// What stands for a loss that is no number.
const HOPELESS: f64 = 1e9;

#[derive(Clone, Copy, Debug)]
struct Record {
    excess: f64,
    used: u64,
}

/// How much more than ours the models of the peers `K` lost on our rows.
#[derive(Clone, Debug)]
pub struct Trials<K> {
    records: BTreeMap<K, Record>,
    peers_max: usize,
    clock: u64,
}

impl<K: Ord + Copy> Trials<K> {
    /// Remembers at most `peers_max` peers.
    #[must_use]
    pub fn new(peers_max: usize) -> Self {
        Self { records: BTreeMap::new(), peers_max: peers_max.max(1), clock: 0 }
    }

    /// How much of its weight `peer` keeps, 0 to 1, whose model lost `excess` more than ours.
    #[must_use]
    pub fn judge(&self, peer: K, excess: f64) -> f64 {
        let others =
            self.records.iter().filter(|(id, record)| **id != peer && self.is_fresh(record));
        let others: Vec<f64> = others.map(|(_, record)| record.excess).collect();
        if others.len() < PEERS_ENOUGH {
            return 1.0;
        }
        let middle = median(others.clone());
        let deviation = median(others.iter().map(|excess| (excess - middle).abs()).collect());
        let allowed = (DEVIATIONS * deviation).max(EXCESS_MIN);
        1.0 - ((self.usual(peer, excess) - middle) / allowed - 1.0).clamp(0.0, 1.0)
    }

    /// Remembers what the model of `peer` lost more than ours. Only of partners that our own
    /// generator drew: those who ask could make any excess look usual, with as many names as it
    /// takes.
    pub fn observe(&mut self, peer: K, excess: f64) {
        let excess = self.usual(peer, excess);
        self.clock += 1;
        self.records.insert(peer, Record { excess, used: self.clock });
        if self.records.len() > self.peers_max {
            let oldest = self.records.iter().min_by_key(|(_, record)| record.used);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.records.remove(&oldest);
            }
        }
    }

    /// With what is remembered of it; what was long ago says nothing of today, for excesses fall as
    /// a flock learns.
    fn usual(&self, peer: K, excess: f64) -> f64 {
        let excess = if excess.is_finite() { excess.min(HOPELESS) } else { HOPELESS };
        let known = self.records.get(&peer).filter(|record| self.is_fresh(record));
        known.map_or(excess, |record| KEEP * record.excess + (1.0 - KEEP) * excess)
    }

    fn is_fresh(&self, record: &Record) -> bool {
        self.clock - record.used <= FRESH * self.records.len() as u64
    }
}

/// The upper of the two in the middle if their number is even; 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(trials: &mut Trials<usize>, peer: usize, excess: f64) -> f64 {
        let kept = trials.judge(peer, excess);
        trials.observe(peer, excess);
        kept
    }

    #[test]
    fn who_does_worse_on_our_rows_than_all_others_loses_its_weight() {
        let mut trials = Trials::new(32);
        let mut kept = [0.0; 10];
        for round in 0..8 {
            for (peer, kept) in kept.iter_mut().enumerate() {
                // Honest excesses differ by peer and by chance; the last peer's is higher.
                let chance = ((7 * round + 3 * peer) % 5) as f64 / 50.0;
                let own = if peer == 9 { 4.0 } else { 0.1 * peer as f64 };
                *kept = trial(&mut trials, peer, own + chance);
            }
        }
        assert_eq!(kept[9], 0.0);
        assert_eq!(kept[..9], [1.0; 9]);
    }

    #[test]
    fn few_peers_say_nothing_and_a_loss_that_is_no_number_is_the_worst() {
        let mut trials = Trials::new(32);
        for peer in 0..5 {
            let excess = if peer == 0 { f64::NAN } else { 0.1 };
            assert_eq!(trial(&mut trials, peer, excess), 1.0);
        }
        trials.observe(5, 0.1);
        assert_eq!(trials.judge(0, f64::INFINITY), 0.0);
        assert_eq!(trials.judge(6, f64::NEG_INFINITY), 0.0);
        assert_eq!(trials.judge(6, 0.1), 1.0);
    }

    #[test]
    fn who_only_asks_does_not_decide_what_is_usual() {
        let mut trials = Trials::new(32);
        for peer in 0..8 {
            trials.observe(peer, 0.1 * peer as f64);
        }
        for stranger in 100..1000 {
            assert_eq!(trials.judge(stranger, 0.0), 1.0);
        }
        assert_eq!(trials.judge(7, 0.7), 1.0);
    }

    #[test]
    fn who_comes_back_is_judged_by_what_it_brings() {
        let mut trials = Trials::new(32);
        for peer in 0..8 {
            trials.observe(peer, 2.0);
        }
        for round in 0..100 {
            trials.observe(round % 7, 0.05);
        }
        assert_eq!(trials.judge(7, 0.05), 1.0);
    }

    #[test]
    fn remembers_a_bounded_number_of_peers() {
        let mut trials = Trials::new(3);
        for peer in 0..20 {
            trials.observe(peer, 0.0);
        }
        assert_eq!(trials.records.keys().copied().collect::<Vec<_>>(), [17, 18, 19]);
    }
}
