//! The direction filter: peers that keep pulling in one direction, or against everyone else, lose
//! weight.
//!
//! Each merged model is reduced to 256 numbers by a count sketch with a private seed, and its
//! deviation from the recent median is added to the peer's history. Peers whose histories point the
//! same way, and who hide in the middle of the crowd or are nearly the same, are not believed; the
//! idea is that of FoolsGold (Fung, Yoon, Beschastnikh, arXiv 1808.04866), on sketches instead of
//! gradients. Nor is a peer whose history opposes those of the others more than is usual among
//! them: whoever holds the flock back, by whatever little, alone or with changing directions, shows
//! there first.

use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::norm;
use super::robust::coordinate_median;
use crate::params::dot;

const WIDTH: usize = 256;
/// Models that the recent median is taken over.
const RECENT: usize = 12;
/// Fewer recent models than this say nothing.
const RECENT_ENOUGH: usize = 8;
/// Share of a peer's history that is kept at each observation.
const KEEP: f32 = 0.8;
/// Among fewer peers than this likeness says nothing: flocks of three nodes with two classes each
/// lost a quarter of all weight to it (`digits-n16 --nodes 3`), flocks of six hardly any.
const PEERS_MIN: usize = 5;
/// Above this cosine two peers that hide are taken to collude: of honest ones, with two classes
/// each, two in a hundred reach it.
const COSINE_LIMIT: f64 = 0.75;
/// So much above, nothing of the weight is left.
const COSINE_RAMP: f64 = 0.07;
/// Peers alike that agree with the others less than is usual, by so much, do not hide, and are
/// left to the rule on dissent. Attackers within the honest spread (ALIE) agree with the others
/// more than is usual; three honest nodes of sixteen with the same two classes of ten agree less,
/// and shut out they cost their flock four points (four steps, two exchanges a round, seed 107).
const APART: f64 = 0.05;
/// Beyond this cosine that does not help: honest peers reach it once they are shut out, for then
/// nothing keeps them from drifting apart from the others. At 0.84, attackers within the honest
/// spread cost 0.2 points more.
const COSINE_SAME: f64 = 0.8;
/// Among fewer peers than this dissent says nothing: who agrees with whom is chance.
const PEERS_ENOUGH: usize = 9;
/// A peer's agreement with the others, the median of its cosines with them, may lie below the usual
/// one by so many usual deviations. At three, gate-fitting attackers get through; at one, too many
/// honest peers with two classes each do not.
const DISSENT: f64 = 2.0;
/// And by so much in any case: where hardly anyone agrees, as with two classes each, deviations are
/// small, and honest peers that share no class with others were shut out (one step a round, two
/// exchanges a round, seed 107: 84.5 % where 86.7 are usual). At 0.2, attackers that turn with
/// every round get through.
const DISSENT_MIN: f64 = 0.15;
/// So much further below, nothing of the weight is left.
const DISSENT_RAMP: f64 = 0.1;
/// A steady voice may dissent so much more: a node that alone knows a class differs from all
/// others, always in the same way, where an attacker that turns with the flock does not.
const STEADY_EXCUSE: f64 = 0.1;
/// Length of a history from which on it counts as steady, and from which on wholly: 5 is one that
/// never changed, 1.7 one of chance.
const STEADY: (f64, f64) = (2.0, 2.5);

#[derive(Clone, Debug)]
struct History {
    direction: Vec<f32>,
    length: f64,
    /// Median of its cosines with the others when it was last seen.
    agreement: f64,
    used: u64,
}

/// Histories of the peers `K` that we merged with.
#[derive(Clone, Debug)]
pub struct DirectionFilter<K> {
    /// Per parameter: bucket in the low eight bits, sign in the next.
    hashes: Vec<u16>,
    recent: VecDeque<Vec<f32>>,
    histories: BTreeMap<K, History>,
    peers_max: usize,
    clock: u64,
}

impl<K: Ord + Copy> DirectionFilter<K> {
    /// A filter for models of `count` parameters that remembers at most `peers_max` peers. The seed
    /// must be private to the node and differ at each start, or an attacker can hide from it.
    #[must_use]
    pub fn new(count: usize, peers_max: usize, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let hashes = (0..count).map(|_| (rng.next_u32() & 0x1ff) as u16).collect();
        let (recent, histories) = (VecDeque::new(), BTreeMap::new());
        Self { hashes, recent, histories, peers_max: peers_max.max(1), clock: 0 }
    }

    fn sketch(&self, model: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0; WIDTH];
        for (value, hash) in model.iter().zip(&self.hashes) {
            let signed = if hash & 0x100 == 0 { *value } else { -*value };
            if let Some(sum) = sums.get_mut(usize::from(hash & 0xff)) {
                *sum += signed;
            }
        }
        sums
    }

    /// Takes note of `peer`'s model and says how much of its weight it keeps, 0 to 1.
    pub fn observe(&mut self, peer: K, model: &[f32]) -> f64 {
        let sketch = self.sketch(model);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(sketch.clone());
        let recent: Vec<&[f32]> = self.recent.iter().map(Vec::as_slice).collect();
        let Some(median) = coordinate_median(&recent) else { return 1.0 };
        let deviation: Vec<f32> = sketch.iter().zip(&median).map(|(own, mid)| own - mid).collect();
        let length = norm(&deviation);
        self.clock += 1;
        let clock = self.clock;
        let fresh =
            || History { direction: vec![0.0; WIDTH], length: 0.0, agreement: 0.0, used: clock };
        let history = self.histories.entry(peer).or_insert_with(fresh);
        history.used = clock;
        if length > 0.0 {
            for (mean, value) in history.direction.iter_mut().zip(&deviation) {
                *mean = KEEP * *mean + value / length as f32;
            }
            history.length = norm(&history.direction);
        }
        let own = history.clone();
        self.forget_oldest();
        if self.recent.len() < RECENT_ENOUGH || self.histories.len() < PEERS_MIN {
            return 1.0;
        }
        let others = self.histories.iter().filter(|(other, _)| **other != peer);
        let cosines: Vec<f64> = others.map(|(_, other)| own.cosine(other)).collect();
        let closest = cosines.iter().copied().fold(0.0, f64::max);
        let agreement = lower_median(cosines);
        if let Some(history) = self.histories.get_mut(&peer) {
            history.agreement = agreement;
        }
        let (usual, deviation) = self.usual_agreement();
        let heard = 1.0 - collusion(closest, usual - agreement);
        if self.histories.len() < PEERS_ENOUGH {
            return heard;
        }
        let least = usual - dissent_allowed(deviation, own.length);
        heard * (1.0 - ((least - agreement) / DISSENT_RAMP).clamp(0.0, 1.0))
    }

    /// The median of the peers' agreements, and the median deviation from it.
    fn usual_agreement(&self) -> (f64, f64) {
        let all = || self.histories.values().map(|history| history.agreement);
        let usual = lower_median(all().collect());
        let deviation = lower_median(all().map(|agreement| (agreement - usual).abs()).collect());
        (usual, deviation)
    }

    fn forget_oldest(&mut self) {
        if self.histories.len() > self.peers_max {
            let oldest = self.histories.iter().min_by_key(|(_, history)| history.used);
            if let Some(peer) = oldest.map(|(peer, _)| *peer) {
                self.histories.remove(&peer);
            }
        }
    }
}

impl History {
    fn cosine(&self, other: &Self) -> f64 {
        let lengths = self.length * other.length;
        if lengths > 0.0 { dot(&self.direction, &other.direction) / lengths } else { 0.0 }
    }
}

/// How much of its weight a peer loses that is so like another, and agrees with all of them by
/// `below` less than is usual.
fn collusion(closest: f64, below: f64) -> f64 {
    let beyond = |limit: f64| ((closest - limit) / COSINE_RAMP).clamp(0.0, 1.0);
    let hides = 1.0 - (below / APART).clamp(0.0, 1.0);
    (hides * beyond(COSINE_LIMIT)).max(beyond(COSINE_SAME))
}

/// How far below the usual agreement a peer with a history of this length may be.
fn dissent_allowed(deviation: f64, length: f64) -> f64 {
    let steady = ((length - STEADY.0) / (STEADY.1 - STEADY.0)).clamp(0.0, 1.0);
    (DISSENT * deviation).max(DISSENT_MIN) + STEADY_EXCUSE * steady
}

/// The lower of the two in the middle if their number is even; 0 of nothing.
fn lower_median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len().saturating_sub(1) / 2;
    values.get(middle).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn colluders_lose_their_weight_and_honest_peers_keep_it() {
        let (count, mut rng) = (2000, ChaCha8Rng::seed_from_u64(5));
        let mut filter = DirectionFilter::new(count, 32, 9);
        let mut noise =
            |size: f32| -> Vec<f32> { (0..count).map(|_| rng.random_range(-size..size)).collect() };
        let habits: Vec<Vec<f32>> = (0..8).map(|_| noise(1.0)).collect();
        let (mut honest, mut colluding) = (1.0_f64, 1.0_f64);
        for round in 0..10 {
            for peer in 0..8_usize {
                // The last two share one habit.
                let habit = &habits[peer.min(6)];
                let model: Vec<f32> =
                    noise(0.3).iter().zip(habit).map(|(noise, habit)| noise + habit).collect();
                let weight = filter.observe(peer, &model);
                if round >= 5 {
                    let kept = if peer < 6 { &mut honest } else { &mut colluding };
                    *kept = kept.min(weight);
                }
            }
        }
        assert_eq!(honest, 1.0);
        assert!(colluding < 0.2, "{colluding}");
    }

    #[test]
    fn who_opposes_all_others_loses_its_weight_even_alone() {
        let (count, mut rng) = (2000, ChaCha8Rng::seed_from_u64(5));
        let mut filter = DirectionFilter::new(count, 32, 9);
        let mut noise =
            |size: f32| -> Vec<f32> { (0..count).map(|_| rng.random_range(-size..size)).collect() };
        // All move one way, so that what is new is ahead of the recent median; the last one is not.
        let (way, mut kept) = (noise(1.0), [0.0_f64; 12]);
        for round in 0..10 {
            for (peer, kept) in kept.iter_mut().enumerate() {
                let back = if peer == 11 { 3.0 } else { 0.0 };
                let progress = 0.1 * (12 * round + peer) as f32 - back;
                let model: Vec<f32> = noise(1.0)
                    .iter()
                    .zip(&way)
                    .map(|(noise, way)| noise + progress * way)
                    .collect();
                let weight = filter.observe(peer, &model);
                if round >= 5 {
                    *kept += weight / 5.0;
                }
            }
        }
        assert_eq!(kept[11], 0.0);
        assert!(kept[..11].iter().all(|weight| *weight > 0.75), "{kept:?}");
    }

    #[test]
    fn dissent_begins_two_deviations_below_the_usual_but_not_at_a_trifle() {
        assert_eq!(dissent_allowed(0.2, 1.7), 0.4);
        assert_eq!(dissent_allowed(0.01, 1.7), 0.15);
        assert_eq!(dissent_allowed(0.01, 3.0), 0.25);
        let mut filter = DirectionFilter::new(1, 32, 9);
        for (peer, agreement) in [0.5, 0.25, 0.125, -0.125, -0.5].into_iter().enumerate() {
            let history = History { direction: Vec::new(), length: 0.0, agreement, used: 0 };
            filter.histories.insert(peer, history);
        }
        assert_eq!(filter.usual_agreement(), (0.125, 0.25));
    }

    #[test]
    fn peers_alike_lose_their_weight_if_they_hide_or_are_nearly_the_same() {
        assert_eq!(collusion(0.8, 0.1), 0.0);
        assert_eq!(collusion(0.83, 0.0), 1.0);
        assert_eq!(collusion(0.88, 0.1), 1.0);
        assert_eq!(collusion(0.74, 0.0), 0.0);
    }

    #[test]
    fn fewer_than_five_peers_are_not_taken_for_colluders() {
        let (count, mut rng) = (2000, ChaCha8Rng::seed_from_u64(5));
        let mut noise =
            |size: f32| -> Vec<f32> { (0..count).map(|_| rng.random_range(-size..size)).collect() };
        // The last two share one habit.
        let mut least = |peers: usize| -> f64 {
            let habits: Vec<Vec<f32>> = (1..peers).map(|_| noise(1.0)).collect();
            let mut filter = DirectionFilter::new(count, 32, 9);
            let merges = (0..10 * peers).map(|merge| {
                let peer = merge % peers;
                let habit = &habits[peer.min(peers - 2)];
                let model: Vec<f32> =
                    noise(0.1).iter().zip(habit).map(|(noise, habit)| noise + habit).collect();
                filter.observe(peer, &model)
            });
            merges.fold(1.0, f64::min)
        };
        assert_eq!([2, 3, 4, 5].map(&mut least), [1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn remembers_a_bounded_number_of_peers() {
        let mut filter = DirectionFilter::new(10, 3, 1);
        for peer in 0..20 {
            filter.observe(peer, &[1.0; 10]);
        }
        assert_eq!(filter.histories.keys().copied().collect::<Vec<_>>(), [17, 18, 19]);
    }
}
