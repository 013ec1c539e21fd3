//! Lab baselines: what others do, in synchronous rounds with lossless links and fp32 models, so
//! that every comparison can print them beside ours. They get the same model, data, batches, steps
//! and schedule down to zero; [`Lab::rate`] is theirs to tune.

use core::fmt;
use core::str::FromStr;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use starling_learning::data::Shard;
use starling_learning::eval::evaluate;
use starling_learning::mix::outer::{Average, OuterRule};
use starling_learning::model::{Model, Workspace};
use starling_learning::optim::Schedule;
use starling_learning::trainer::Trainer;

/// How the nodes of a lab run mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabRule {
    /// Not at all.
    Local,
    /// One model on all rows.
    Pooled,
    /// Everybody with everybody (full averaging).
    Full,
    /// D-PSGD on a ring (arXiv 1705.09056).
    Ring,
    /// D-PSGD with the two nearest on either side.
    FourRegular,
    /// Epidemic Learning (arXiv 2310.01972): each sends to k random others.
    Push(usize),
    /// Each fetches from k random others.
    Pull(usize),
}

impl fmt::Display for LabRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Pooled => f.write_str("pooled"),
            Self::Full => f.write_str("full"),
            Self::Ring => f.write_str("ring"),
            Self::FourRegular => f.write_str("four-regular"),
            Self::Push(count) => write!(f, "push={count}"),
            Self::Pull(count) => write!(f, "pull={count}"),
        }
    }
}

impl FromStr for LabRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let counted = |prefix: &str| text.strip_prefix(prefix).and_then(|k| k.parse().ok());
        Ok(match text {
            "local" => Self::Local,
            "pooled" => Self::Pooled,
            "full" => Self::Full,
            "ring" => Self::Ring,
            "four-regular" => Self::FourRegular,
            _ => match (counted("push="), counted("pull=")) {
                (Some(count @ 1..=64), _) => Self::Push(count),
                (_, Some(count @ 1..=64)) => Self::Pull(count),
                _ => {
                    return Err(format!(
                        "`{text}` is no rule: expected starling, local, pooled, full, ring, \
                         four-regular, push=K or pull=K"
                    ));
                }
            },
        })
    }
}

/// One lab run.
#[derive(Clone, Debug)]
pub struct Lab {
    /// How they mix.
    pub rule: LabRule,
    /// Learning rate at the start.
    pub rate: f64,
    /// The outer step of Starling on top, if asked for.
    pub outer: Option<OuterRule>,
    /// Local steps of each node.
    pub steps: u32,
    /// Of these in a round.
    pub steps_per_round: u32,
    /// Rows of a batch.
    pub batch: usize,
    /// Seed.
    pub seed: u64,
}

/// What it came to.
#[derive(Clone, Debug, PartialEq)]
pub struct LabReport {
    /// Accuracy of each node's served model.
    pub accuracies: Vec<f64>,
    /// Model bytes sent per node.
    pub payload_bytes_mean: f64,
}

struct Peer {
    trainer: Trainer,
    space: Workspace,
    x: Vec<f32>,
    anchor: Vec<f32>,
    velocity: Vec<f32>,
    served: Average,
}

impl Lab {
    /// Runs it on one shard per node.
    #[must_use]
    pub fn run(&self, model: &Model, shards: &[Shard], pooled: &Shard, test: &Shard) -> LabReport {
        let pool = [pooled.clone()];
        let shards = if self.rule == LabRule::Pooled { &pool[..] } else { shards };
        let genesis = model.genesis(self.seed);
        let peer = |(index, shard): (usize, &Shard)| Peer {
            trainer: Trainer::new(
                shard.clone(),
                self.batch,
                0.0,
                self.seed.wrapping_mul(1009) + index as u64,
            ),
            space: Workspace::default(),
            x: genesis.clone(),
            anchor: genesis.clone(),
            velocity: vec![0.0; genesis.len()],
            served: Average::of(&genesis, 0.9),
        };
        let mut peers: Vec<Peer> = shards.iter().enumerate().map(peer).collect();
        let schedule = Schedule { rate: self.rate, age_max: Some(f64::from(self.steps)) };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let mut sent = 0_usize;
        for round in 0..self.steps / self.steps_per_round.max(1) {
            peers.par_iter_mut().for_each(|peer| {
                for step in 0..self.steps_per_round {
                    let age = f64::from(round * self.steps_per_round + step);
                    let rate = schedule.rate_at(age);
                    peer.trainer.step(model, &mut peer.x, rate, &mut peer.space);
                }
            });
            let sources = self.sources(peers.len(), &mut rng);
            sent += sources.iter().map(Vec::len).sum::<usize>();
            mix(&mut peers, &sources);
            for peer in &mut peers {
                if let Some(outer) = &self.outer {
                    outer.step(&mut peer.x, &mut peer.anchor, &mut peer.velocity, f64::INFINITY);
                }
                peer.served.update(&peer.x);
            }
        }
        let score = |peer: &mut Peer| {
            evaluate(model, peer.served.values(), test, None, &mut peer.space).accuracy()
        };
        let count = peers.len().max(1) as f64;
        LabReport {
            accuracies: peers.par_iter_mut().map(score).collect(),
            payload_bytes_mean: (sent * 4 * model.len()) as f64 / count,
        }
    }

    /// Whose models each node receives in a round.
    fn sources(&self, count: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
        let near = |index: usize, reach: usize| -> Vec<usize> {
            let around =
                (1..=reach).flat_map(|d| [(index + d) % count, (index + count - d) % count]);
            let mut around: Vec<usize> = around.filter(|other| *other != index).collect();
            around.sort_unstable();
            around.dedup();
            around
        };
        let mut others = |index: usize, wanted: usize| -> Vec<usize> {
            let mut all: Vec<usize> = (0..count).filter(|other| *other != index).collect();
            let (chosen, _) = all.partial_shuffle(rng, wanted);
            chosen.to_vec()
        };
        match self.rule {
            LabRule::Local | LabRule::Pooled => vec![Vec::new(); count],
            LabRule::Full => (0..count).map(|index| near(index, count / 2)).collect(),
            LabRule::Ring => (0..count).map(|index| near(index, 1)).collect(),
            LabRule::FourRegular => (0..count).map(|index| near(index, 2)).collect(),
            LabRule::Pull(wanted) => (0..count).map(|index| others(index, wanted)).collect(),
            LabRule::Push(wanted) => {
                let mut sources = vec![Vec::new(); count];
                for index in 0..count {
                    for target in others(index, wanted) {
                        if let Some(list) = sources.get_mut(target) {
                            list.push(index);
                        }
                    }
                }
                sources
            }
        }
    }
}

/// Each node takes the mean of its own model and those it received.
fn mix(peers: &mut [Peer], sources: &[Vec<usize>]) {
    let models: Vec<Vec<f32>> = peers.iter().map(|peer| peer.x.clone()).collect();
    peers.par_iter_mut().zip(sources).for_each(|(peer, sources)| {
        if sources.is_empty() {
            return;
        }
        let share = 1.0 / (sources.len() + 1) as f32;
        peer.x.iter_mut().for_each(|value| *value *= share);
        for model in sources.iter().filter_map(|source| models.get(*source)) {
            for (value, other) in peer.x.iter_mut().zip(model) {
                *value += share * other;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lab(rule: LabRule) -> Lab {
        Lab { rule, rate: 0.1, outer: None, steps: 4, steps_per_round: 4, batch: 1, seed: 1 }
    }

    #[test]
    fn everyone_hears_from_whom_the_rule_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut degrees = |rule, count| -> Vec<usize> {
            lab(rule).sources(count, &mut rng).iter().map(Vec::len).collect()
        };
        assert_eq!(degrees(LabRule::Local, 3), [0, 0, 0]);
        assert_eq!(degrees(LabRule::Full, 5), [4; 5]);
        assert_eq!(degrees(LabRule::Full, 4), [3; 4]);
        assert_eq!(degrees(LabRule::Ring, 5), [2; 5]);
        assert_eq!(degrees(LabRule::Ring, 2), [1; 2]);
        assert_eq!(degrees(LabRule::FourRegular, 6), [4; 6]);
        assert_eq!(degrees(LabRule::Pull(3), 6), [3; 6]);
        assert_eq!(degrees(LabRule::Push(2), 6).iter().sum::<usize>(), 12);
    }

    #[test]
    fn rules_read_back() {
        for rule in ["local", "pooled", "full", "ring", "four-regular", "push=2", "pull=6"] {
            assert_eq!(rule.parse::<LabRule>().map(|rule| rule.to_string()), Ok(rule.to_owned()));
        }
        for wrong in ["", "push", "push=0", "pull=99", "krum"] {
            assert!(wrong.parse::<LabRule>().is_err(), "{wrong}");
        }
    }
}
