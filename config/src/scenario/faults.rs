//! Random schedules of faults, and how a failing one is made smaller.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use starling_node::sim::Attack;
use starling_node::spec::Membership;

use super::{ChurnFile, Hostile, PartitionFile, ScenarioFile};

/// Name under which `starling simulate` makes a schedule from the seed.
pub const FAULTS: &str = "faults";

impl ScenarioFile {
    /// A few nodes that learn a little, under every fault at once, each as bad as the seed says.
    #[must_use]
    pub fn faults(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let nodes = rng.random_range(2..9);
        let churn = rng.random_bool(0.5).then(|| ChurnFile {
            down_share: rng.random_range(0.0..0.4),
            // A session must hold a few rounds of a slow node, or nothing is ever learnt.
            up_steps: f64::from(rng.random_range(100..400)),
            // Of a few nodes that forget everything, nobody may be left who knows anything.
            fresh: rng.random_bool(0.5) && nodes >= 5,
        });
        let begin_steps = f64::from(rng.random_range(0..40));
        let partition = rng.random_bool(0.5).then(|| PartitionFile {
            begin_steps,
            end_steps: begin_steps + f64::from(rng.random_range(1..400)),
            share: rng.random_range(0.0..0.6),
        });
        // In half of the networks someone knocks who is no member.
        let invite = nodes >= 4 && rng.random_bool(0.5);
        let stranger = Hostile { nodes: 1, attack: Attack::Stranger {} };
        Self {
            name: FAULTS.into(),
            about: "A random schedule of faults, by seed.".into(),
            nodes,
            hidden: Vec::new(),
            steps: 48,
            batch: 8,
            rate: 0.1,
            delay_steps: rng.random_range(0.01..4.0),
            loss: rng.random_range(0.0..0.4),
            duplication: rng.random_range(0.0..0.5),
            slow_share: rng.random_range(0.0..0.5),
            slow_factor: rng.random_range(1..10),
            churn,
            partition,
            hostile: if invite { vec![stranger] } else { Vec::new() },
            membership: if invite { Membership::Invite } else { Membership::Open },
            patience: 400.0,
            seed,
            ..Self::default()
        }
    }

    /// The same with one fault less, or fewer nodes: what is tried to make a failing one smaller.
    fn simpler(&self) -> Vec<Self> {
        let without = |change: fn(&mut Self)| {
            let mut simpler = self.clone();
            change(&mut simpler);
            simpler
        };
        let mut all = vec![
            without(|scenario| scenario.churn = None),
            without(|scenario| scenario.partition = None),
            without(|scenario| {
                scenario.hostile.pop();
            }),
            without(|scenario| scenario.loss = 0.0),
            without(|scenario| scenario.duplication = 0.0),
            without(|scenario| scenario.slow_share = 0.0),
            without(|scenario| scenario.delay_steps = Self::default().delay_steps),
            without(|scenario| scenario.nodes = scenario.nodes.div_ceil(2).max(2)),
        ];
        all.retain(|simpler| simpler != self && simpler.check("").is_ok());
        all
    }

    /// The smallest scenario that still `fails`, found by leaving out one fault after the other.
    /// Each look costs a run; there are eight kinds of faults.
    #[must_use]
    pub fn shrink(mut self, mut fails: impl FnMut(&Self) -> bool) -> Self {
        while let Some(simpler) = self.simpler().into_iter().find(|simpler| fails(simpler)) {
            self = simpler;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schedule_is_valid_and_a_seed_gives_one() {
        for seed in 0..500 {
            let scenario = ScenarioFile::faults(seed);
            assert_eq!(scenario.check("faults"), Ok(()), "{seed}");
            assert_eq!(scenario, ScenarioFile::faults(seed));
        }
    }

    #[test]
    fn only_the_fault_that_matters_is_left() {
        let seed = (0..).find(|seed| ScenarioFile::faults(*seed).churn.is_some()).expect("one");
        let small = ScenarioFile::faults(seed).shrink(|scenario| scenario.churn.is_some());
        assert!(small.churn.is_some() && small.partition.is_none());
        assert_eq!(
            (small.nodes, small.loss, small.duplication, small.slow_share),
            (2, 0.0, 0.0, 0.0)
        );
    }
}
