//! Hostile nodes: production nodes whose model is replaced whenever they are about to send it, or
//! whose data or manners are bad. They know all honest models, as of the last step of time.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use starling_learning::mix::norm;

/// Requests that a flooding node makes of one, at most.
pub(super) const COPIES_MAX: u32 = 64;

/// What hostile nodes do. Those without a parameter have braces, so that serde refuses one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Attack {
    /// Send the honest mean with its sign turned.
    SignFlip {},
    /// Send the honest mean with normal noise of this standard deviation on each value.
    Noise {
        /// Standard deviation.
        sigma: f32,
    },
    /// Send the honest mean shifted by so many honest standard deviations, all the same way
    /// ("A Little Is Enough", Baruch et al., 2019).
    Alie {
        /// Standard deviations.
        z: f32,
    },
    /// The same, but each attacker shifts only its own share of the parameters and sends an honest
    /// node's values for the rest, so that no two of them look alike: what the direction filter
    /// invites.
    AlieSplit {
        /// Standard deviations.
        z: f32,
    },
    /// Send the honest mean moved back against its progress by so many rounds ("inner-product
    /// manipulation", Xie et al., 2019).
    InnerProduct {
        /// Rounds of progress taken back.
        rounds: f32,
    },
    /// Train on labels turned round: class c becomes the last class minus c.
    LabelFlip {},
    /// Send each victim its own model, moved against progress by this share of its gate's
    /// threshold: up to one it is taken whole, up to two it is clipped.
    GateFit {
        /// Share of the victim's threshold.
        share: f32,
        /// Which progress: what is kept of earlier rounds' at each round. 0 looks at the last one
        /// only and turns with every round, 1 at all since the start.
        memory: f32,
    },
    /// Ask so many random partners at once instead of one, with the honest mean's sign turned.
    Flood {
        /// How many.
        factor: u32,
    },
    /// Send the starting parameters for ever.
    Stale {},
    /// Accept everything, answer nothing.
    Tarpit {},
    /// Answer at the last moment: after this share of the time that a partner waits.
    Dawdle {
        /// Share of its time-out.
        share: f64,
    },
    /// Belong to nobody: no certificate, in a network that asks for one.
    Stranger {},
    /// Claim an age so many times the true one.
    FalseAge {
        /// Factor.
        factor: f64,
    },
}

impl Attack {
    /// A parameter that is out of range: name, value, and the most that is allowed; the least is 0.
    #[must_use]
    pub fn out_of_range(self) -> Option<(&'static str, f64, f64)> {
        let (name, value, most) = match self {
            Self::Noise { sigma } => ("sigma", f64::from(sigma), 1000.0),
            Self::Alie { z } | Self::AlieSplit { z } => ("z", f64::from(z), 1000.0),
            Self::InnerProduct { rounds } => ("rounds", f64::from(rounds), 1000.0),
            Self::GateFit { memory, .. } if !(0.0..=1.0).contains(&memory) => {
                ("memory", f64::from(memory), 1.0)
            }
            Self::GateFit { share, .. } => ("share", f64::from(share), 1000.0),
            Self::Flood { factor } => ("factor", f64::from(factor), f64::from(COPIES_MAX)),
            Self::Dawdle { share } => ("share", share, 1.0),
            // Of the longest training a claim beyond it is no age, and no frame would be sent.
            Self::FalseAge { factor } => ("factor", factor, 1e8),
            Self::SignFlip {}
            | Self::LabelFlip {}
            | Self::Stale {}
            | Self::Tarpit {}
            | Self::Stranger {} => return None,
        };
        (!(0.0..=most).contains(&value)).then_some((name, value, most))
    }

    /// What is kept of earlier progress at each look.
    pub(super) fn memory(self) -> f32 {
        if let Self::GateFit { memory, .. } = self { memory } else { 0.0 }
    }

    /// Whether its nodes need to know each victim's model.
    pub(super) fn fits_victims(self) -> bool {
        matches!(self, Self::GateFit { .. })
    }
}

/// What hostile nodes know: statistics of all live honest models.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd {
    pub(super) mean: Vec<f32>,
    pub(super) deviation: Vec<f32>,
    /// One honest model, another at each look.
    pub(super) one: Vec<f32>,
    /// How far the mean has come since the last look, and a share of what was so before.
    pub(super) progress: Vec<f32>,
    /// Model and gate threshold of each honest node that lives, where an attack is fitted to it.
    pub(super) victims: BTreeMap<usize, Victim>,
    looks: usize,
}

/// What a fitted attack knows of its victim.
#[derive(Clone, Debug, Default)]
pub(super) struct Victim {
    pub(super) model: Vec<f32>,
    pub(super) threshold: f64,
}

impl Crowd {
    /// Looks at all honest models, and keeps a share of the `progress` before.
    pub(super) fn of(models: &[&[f32]], before: &Self, memory: f32) -> Self {
        let count = models.len().max(1) as f32;
        let length = models.first().map_or(0, |model| model.len());
        let mut mean = vec![0.0_f32; length];
        for model in models {
            for (sum, value) in mean.iter_mut().zip(*model) {
                *sum += value / count;
            }
        }
        let mut deviation = vec![0.0_f32; length];
        for model in models {
            for ((sum, value), mean) in deviation.iter_mut().zip(*model).zip(&mean) {
                *sum += (value - mean).powi(2) / count;
            }
        }
        deviation.iter_mut().for_each(|value| *value = value.sqrt());
        let progress = if before.mean.len() == length {
            let moved = mean.iter().zip(&before.mean).map(|(now, then)| now - then);
            moved.zip(&before.progress).map(|(step, old)| step + memory * old).collect()
        } else {
            vec![0.0; length]
        };
        let looks = before.looks + 1;
        let one = models.get(looks % models.len().max(1)).map(|model| model.to_vec());
        let victims = BTreeMap::new();
        Self { mean, deviation, one: one.unwrap_or_default(), progress, victims, looks }
    }
}

/// One hostile node.
#[derive(Clone, Debug)]
pub(super) struct Attacker {
    pub(super) attack: Attack,
    pub(super) crowd: Arc<Crowd>,
    /// Which of how many attackers.
    place: (usize, usize),
    rng: ChaCha8Rng,
}

impl Attacker {
    pub(super) fn new(attack: Attack, place: (usize, usize), seed: u64) -> Self {
        Self { attack, crowd: Arc::default(), place, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// The parameters to send instead of our own to node `peer`, of whose model we know what it
    /// just sent, if anything.
    pub(super) fn forge(
        &mut self,
        genesis: impl FnOnce() -> Vec<f32>,
        peer: Option<usize>,
        sent: Option<Vec<f32>>,
    ) -> Option<Vec<f32>> {
        let crowd = Arc::clone(&self.crowd);
        if crowd.mean.is_empty() {
            return None;
        }
        let along = |from: &[f32], direction: &[f32], size: f32| -> Vec<f32> {
            from.iter().zip(direction).map(|(value, step)| value + size * step).collect()
        };
        match self.attack {
            Attack::SignFlip {} | Attack::Flood { .. } => {
                Some(crowd.mean.iter().map(|value| -value).collect())
            }
            Attack::Noise { sigma } => {
                Some(crowd.mean.iter().map(|value| value + sigma * self.normal()).collect())
            }
            Attack::Alie { z } => Some(along(&crowd.mean, &crowd.deviation, -z)),
            Attack::AlieSplit { z } => {
                let (own, all) = self.place;
                let shifted = along(&crowd.mean, &crowd.deviation, -z);
                let mine = |index: usize| index % all.max(1) == own;
                let both = crowd.one.iter().zip(&shifted).enumerate();
                Some(both.map(|(i, (one, far))| if mine(i) { *far } else { *one }).collect())
            }
            Attack::InnerProduct { rounds } => Some(along(&crowd.mean, &crowd.progress, -rounds)),
            Attack::GateFit { share, .. } => {
                let victim = peer.and_then(|peer| crowd.victims.get(&peer))?;
                let length = norm(&crowd.progress).max(f64::MIN_POSITIVE);
                let size = (f64::from(share) * victim.threshold / length) as f32;
                let from = sent.as_ref().unwrap_or(&victim.model);
                Some(along(from, &crowd.progress, -size))
            }
            Attack::Stale {} => Some(genesis()),
            Attack::LabelFlip {}
            | Attack::Tarpit {}
            | Attack::Dawdle { .. }
            | Attack::Stranger {}
            | Attack::FalseAge { .. } => None,
        }
    }

    /// A standard normal draw: the sum of twelve uniform ones less six.
    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.rng.random::<f32>()).sum::<f32>() - 6.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd() -> Crowd {
        let (mean, progress) = (vec![0.0, 0.0], vec![0.0, 0.0]);
        let before = Crowd { mean, progress, ..Crowd::default() };
        Crowd::of(&[&[1.0, 2.0], &[3.0, 2.0]], &before, 0.0)
    }

    #[test]
    fn the_crowd_has_mean_deviation_progress_and_distance() {
        let crowd = crowd();
        assert_eq!(crowd.mean, [2.0, 2.0]);
        assert_eq!(crowd.deviation, [1.0, 0.0]);
        assert_eq!(crowd.progress, [2.0, 2.0]);
    }

    #[test]
    fn progress_is_remembered_as_long_as_is_asked_for() {
        let models: [&[f32]; 1] = [&[1.0]];
        let before = Crowd { mean: vec![0.5], progress: vec![2.0], ..Crowd::default() };
        for (memory, progress) in [(0.0, 0.5), (0.5, 1.5), (1.0, 2.5)] {
            assert_eq!(Crowd::of(&models, &before, memory).progress, [progress]);
        }
    }

    #[test]
    fn forged_models_are_what_they_claim() {
        let forge = |attack, sent: Option<Vec<f32>>| {
            let mut attacker = Attacker::new(attack, (1, 2), 1);
            let mut crowd = crowd();
            let victim = Victim { model: vec![7.0, 7.0], threshold: 2.0_f64.sqrt() };
            crowd.victims = BTreeMap::from([(3, victim)]);
            attacker.crowd = Arc::new(crowd);
            attacker.forge(|| vec![9.0, 9.0], Some(3), sent)
        };
        assert_eq!(forge(Attack::SignFlip {}, None), Some(vec![-2.0, -2.0]));
        assert_eq!(forge(Attack::Alie { z: 1.5 }, None), Some(vec![0.5, 2.0]));
        assert_eq!(forge(Attack::AlieSplit { z: 1.5 }, None), Some(vec![3.0, 2.0]));
        assert_eq!(forge(Attack::InnerProduct { rounds: 1.0 }, None), Some(vec![0.0, 0.0]));
        assert_eq!(forge(Attack::Stale {}, None), Some(vec![9.0, 9.0]));
        assert_eq!(forge(Attack::Tarpit {}, None), None);
        let fit = Attack::GateFit { share: 1.0, memory: 0.0 };
        for (sent, expected) in [(Some(vec![5.0, 5.0]), 4.0), (None, 6.0)] {
            let pushed = forge(fit, sent).expect("forged");
            assert!(pushed.iter().all(|value| (value - expected).abs() < 1e-6), "{pushed:?}");
        }
    }
}
