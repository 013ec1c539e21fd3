//! What a node believes of models it has not merged yet: how far is too far, and how old is old.
//! Scalars only; the vectors are the learning layer's.
//!
//! Both are learnt only from partners that our own generator drew: an attacker that asks us often
//! cannot move them.

use std::collections::{BTreeMap, VecDeque};

use crate::id::NodeId;
use crate::limits::{AGES_MAX, DISTANCES_MAX};

/// Distances of recent exchanges that we initiated.
#[derive(Clone, Debug, Default)]
pub struct Distances(VecDeque<f64>);

impl Distances {
    /// Fewer than this many distances say nothing.
    const ENOUGH: usize = 4;

    /// The usual distance: the median, or twice the length of our own update while too few are
    /// known.
    #[must_use]
    pub fn threshold(&self, own_update_norm: f64) -> f64 {
        if self.0.len() < Self::ENOUGH { 2.0 * own_update_norm } else { median(&self.0) }
    }

    /// Remembers a distance, capped at four thresholds so that one far model cannot open the gate.
    pub fn observe(&mut self, distance: f64, threshold: f64) {
        if distance.is_nan() {
            return;
        }
        push_bounded(&mut self.0, distance.min(4.0 * threshold), DISTANCES_MAX);
    }

    /// Estimated root-mean-square distance of nodes from their mean: for uniformly drawn pairs the
    /// mean square pair distance is twice it squared. None before any exchange.
    #[must_use]
    pub fn spread(&self) -> Option<f64> {
        if self.0.is_empty() {
            return None;
        }
        let squares: f64 = self.0.iter().map(|distance| distance * distance).sum();
        Some((squares / self.0.len() as f64 / 2.0).sqrt())
    }
}

/// How much older than ours the models of partners that we drew claimed to be: the recent claims,
/// and of no peer more than the usual number of them. So one that is drawn often has no more say
/// than others, and one that is gone soon has none.
#[derive(Clone, Debug, Default)]
pub struct Ages(VecDeque<(NodeId, f64)>);

impl Ages {
    /// Fewer peers than this say nothing of each other,
    const ENOUGH: usize = 4;
    /// unless so many claims came from two or three: there are no more, then.
    const CLAIMS_OF_FEW: usize = 12;

    /// Remembers the claim of `peer`, as its difference to our age at that time.
    pub fn observe(&mut self, peer: NodeId, claim: f64, own_age: f64) {
        push_bounded(&mut self.0, (peer, claim - own_age), AGES_MAX);
    }

    /// The differences that count, if there are enough.
    fn voices(&self) -> Option<Vec<f64>> {
        let mut claims = BTreeMap::<NodeId, Vec<f64>>::new();
        for (peer, difference) in self.0.iter().rev() {
            claims.entry(*peer).or_default().push(*difference);
        }
        let few_but_all = claims.len() >= 2 && self.0.len() >= Self::CLAIMS_OF_FEW;
        if claims.len() < Self::ENOUGH && !few_but_all {
            return None;
        }
        let usual = lower_median(claims.values().map(|claims| claims.len() as f64))? as usize;
        Some(claims.into_values().flat_map(|claims| claims.into_iter().take(usual)).collect())
    }

    /// What a claim is taken for. One that is above the usual difference by more than twice the
    /// usual deviation and two rounds of `round_steps` is taken for a usual one, so a liar moves
    /// nothing, and a node that was away still believes the many who tell it so. Low claims are
    /// believed: nodes that are slow or were away make them; how far one peer's may move an age is
    /// bounded where they are taken over. While few claims are known, none is believed to be more
    /// than a few rounds above our own age: a liar that meets a node that has just been started
    /// must not end its learning either.
    #[must_use]
    pub fn believe(&self, claim: f64, own_age: f64, round_steps: f64) -> f64 {
        let Some(voices) = self.voices() else {
            let few = 16.0 * round_steps;
            return claim.min(own_age + few);
        };
        let usual = lower_median(voices.iter().copied()).unwrap_or_default();
        let deviations = voices.iter().map(|difference| (difference - usual).abs());
        let limit = 2.0 * lower_median(deviations).unwrap_or_default() + 2.0 * round_steps;
        let difference = claim - own_age;
        let believed = if difference > usual + limit { usual } else { difference };
        (own_age + believed).max(0.0)
    }
}

/// Weight of a partner's model in a merge, from the two ages: half, less for a young partner. A
/// weight above a half exists only in the bootstrap of a newcomer, which adopts a median of
/// snapshots instead; so a claimed age can never raise its liar's weight.
#[must_use]
pub fn merge_weight(own_age: f64, partner_age: f64) -> f64 {
    if partner_age < 0.1 * own_age {
        0.0
    } else if partner_age < 0.5 * own_age {
        0.2
    } else {
        0.5
    }
}

fn push_bounded<T>(ring: &mut VecDeque<T>, value: T, capacity: usize) {
    if ring.len() == capacity {
        ring.pop_front();
    }
    ring.push_back(value);
}

/// Median of claims, none of nothing; the lower of the two in the middle if their number is even:
/// high claims are what liars make, and half of those asked must not decide.
#[must_use]
pub fn lower_median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// Median of at least one value: the mean of the two in the middle if their number is even.
fn median(values: &VecDeque<f64>) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle).copied().unwrap_or(0.0);
    if sorted.len() % 2 == 1 {
        return upper;
    }
    let lower = middle.checked_sub(1).and_then(|below| sorted.get(below)).copied();
    lower.map_or(upper, |lower| f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(peer: usize) -> NodeId {
        NodeId([peer as u8; 32])
    }

    #[test]
    fn the_threshold_is_the_median_once_enough_is_known() {
        let mut distances = Distances::default();
        for distance in [1.0, 2.0, 3.0] {
            distances.observe(distance, 10.0);
            assert_eq!(distances.threshold(0.25), 0.5);
        }
        distances.observe(100.0, 10.0);
        assert_eq!(distances.threshold(0.25), 2.5);
        for _ in 0..DISTANCES_MAX {
            distances.observe(f64::INFINITY, 2.0);
        }
        assert_eq!(distances.threshold(0.25), 8.0);
        distances.observe(f64::NAN, 2.0);
        assert_eq!(distances.threshold(0.25), 8.0);
    }

    #[test]
    fn spread_inverts_the_pair_distance_identity() {
        let mut distances = Distances::default();
        assert_eq!(distances.spread(), None);
        distances.observe(2.0, 10.0);
        distances.observe(2.0, 10.0);
        assert!((distances.spread().expect("known") - 2.0_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn one_liar_cannot_move_what_is_believed_of_age() {
        let mut ages = Ages::default();
        assert_eq!(ages.believe(1e15, 1000.0, 4.0), 1064.0);
        assert_eq!(ages.believe(500.0, 1000.0, 4.0), 500.0);
        assert_eq!(ages.believe(0.0, 10.0, 4.0), 0.0);
        assert_eq!(ages.believe(12.0, 10.0, 4.0), 12.0);
        for (peer, claim) in [100.0, 101.0, 102.0, 1e15, 103.0].into_iter().enumerate() {
            ages.observe(id(peer), claim, 100.0);
        }
        assert_eq!(ages.believe(1e15, 200.0, 4.0), 202.0);
        assert_eq!(ages.believe(205.0, 200.0, 4.0), 205.0);
        assert_eq!(ages.believe(195.0, 200.0, 4.0), 195.0);
        assert_eq!(ages.believe(110.0, 200.0, 4.0), 110.0);
    }

    #[test]
    fn the_lower_of_the_two_in_the_middle() {
        assert_eq!(lower_median([].into_iter()), None);
        assert_eq!(lower_median([7.0].into_iter()), Some(7.0));
        assert_eq!(lower_median([9.0, 1.0].into_iter()), Some(1.0));
        assert_eq!(lower_median([9.0, 1.0, 4.0].into_iter()), Some(4.0));
    }

    #[test]
    fn two_lies_among_four_claims_do_not_decide() {
        let mut ages = Ages::default();
        for (peer, claim) in [10.0, 1e4, 12.0, 1e4].into_iter().enumerate() {
            ages.observe(id(peer), claim, 10.0);
        }
        assert_eq!(ages.believe(1e4, 10.0, 4.0), 12.0);
    }

    #[test]
    fn a_liar_has_no_more_say_however_often_it_is_drawn() {
        let mut ages = Ages::default();
        for peer in [0, 0, 0, 0, 1, 0, 0, 2, 0, 0] {
            ages.observe(id(peer), if peer == 0 { 1e4 } else { 10.0 }, 10.0);
            assert_eq!(ages.believe(1e4, 10.0, 4.0), 74.0, "few are known");
        }
        for peer in [0, 0, 3, 0, 0, 0, 0] {
            ages.observe(id(peer), if peer == 0 { 1e4 } else { 10.0 }, 10.0);
            let believed = ages.believe(1e4, 10.0, 4.0);
            assert!(believed == 74.0 || believed == 10.0, "{believed}");
        }
        assert_eq!(ages.believe(1e4, 10.0, 4.0), 10.0);
    }

    #[test]
    fn two_are_heard_if_there_are_no_more_and_one_alone_is_not_believed_at_once() {
        let believed = |peers: usize, claims: usize| {
            let mut ages = Ages::default();
            (0..claims).for_each(|claim| ages.observe(id(claim % peers), 900.0, 100.0));
            ages.believe(900.0, 100.0, 4.0)
        };
        assert_eq!([believed(2, 11), believed(2, 12), believed(1, 99)], [164.0, 900.0, 164.0]);
    }

    /// With one voice for each of four peers the deviation is that of the nearest two: a flock of
    /// five daemons took 473 rounds to its end where 415 are usual (`starling demo`).
    #[test]
    fn several_claims_of_each_tell_how_much_ages_differ() {
        let mut ages = Ages::default();
        let claims = [0.0, 30.0, 10.0, 25.0, 20.0, 5.0, 28.0, 3.0];
        for (draw, claim) in claims.into_iter().cycle().take(AGES_MAX).enumerate() {
            ages.observe(id(draw % 4), 100.0 + claim, 100.0);
        }
        assert_eq!(ages.believe(130.0, 100.0, 4.0), 130.0);
        assert_eq!(ages.believe(150.0, 100.0, 4.0), 110.0);
    }

    #[test]
    fn one_that_is_gone_does_not_hold_back_who_lags_behind_those_left() {
        let mut ages = Ages::default();
        (0..20).for_each(|claim| ages.observe(id(claim % 2), 10.0, 10.0));
        assert_eq!(ages.believe(900.0, 100.0, 4.0), 100.0);
        (0..AGES_MAX).for_each(|_| ages.observe(id(1), 900.0, 100.0));
        assert_eq!(ages.believe(900.0, 100.0, 4.0), 164.0);
    }

    #[test]
    fn a_node_that_was_away_believes_the_many() {
        let mut ages = Ages::default();
        for (peer, claim) in [900.0, 904.0, 908.0, 912.0].into_iter().enumerate() {
            ages.observe(id(peer), claim, 100.0);
        }
        assert_eq!(ages.believe(910.0, 100.0, 4.0), 910.0);
    }

    #[test]
    fn weights_follow_the_age_ratio_downward_only() {
        let weights = [5.0, 11.0, 49.0, 50.0, 1e9].map(|partner| merge_weight(100.0, partner));
        assert_eq!(weights, [0.0, 0.2, 0.2, 0.5, 0.5]);
        assert_eq!(merge_weight(0.0, 0.0), 0.5);
    }
}
