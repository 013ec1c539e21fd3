//! Hostile nodes: production nodes whose model is replaced whenever they are about to send it, or
//! whose data or manners are bad. They know all honest models, as of the last step of time.

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// What hostile nodes do.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum Attack {
    /// Send the honest mean with its sign turned.
    SignFlip,
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
    LabelFlip,
    /// Answer each victim with its own model, moved against progress by this share of what its gate
    /// lets through.
    GateFit {
        /// Share of the victims' usual distance.
        share: f32,
        /// Which progress: what is kept of earlier rounds' at each round. 0 looks at the last one
        /// only and turns with every round, 1 at all since the start.
        memory: f32,
    },
    /// Ask so many times as often as others, with the honest mean's sign turned.
    Flood {
        /// How many times as often.
        factor: u32,
    },
    /// Send the starting parameters for ever.
    Stale,
    /// Accept everything, answer nothing.
    Tarpit,
    /// Claim an age so many times the true one.
    FalseAge {
        /// Factor.
        factor: f64,
    },
}

impl Attack {
    /// What is kept of earlier progress at each look.
    pub(super) fn memory(self) -> f32 {
        if let Self::GateFit { memory, .. } = self { memory } else { 0.0 }
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
    /// Usual distance between two honest models.
    pub(super) distance: f32,
    looks: usize,
}

impl Crowd {
    /// Looks at all honest models, and keeps a share of the progress `before`.
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
        let total: f32 = deviation.iter().sum();
        deviation.iter_mut().for_each(|value| *value = value.sqrt());
        let progress = if before.mean.len() == length {
            let moved = mean.iter().zip(&before.mean).map(|(now, then)| now - then);
            moved.zip(&before.progress).map(|(step, old)| step + memory * old).collect()
        } else {
            vec![0.0; length]
        };
        let looks = before.looks + 1;
        let one = models.get(looks % models.len().max(1)).map(|model| model.to_vec());
        // Two independent draws are the square root of two deviations apart.
        let distance = (2.0 * total).sqrt();
        Self { mean, deviation, one: one.unwrap_or_default(), progress, distance, looks }
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

    /// The parameters to send instead of `own`; `victim` is the partner's model where it is known.
    pub(super) fn forge(&mut self, genesis: &[f32], victim: Option<&[f32]>) -> Option<Vec<f32>> {
        let crowd = Arc::clone(&self.crowd);
        if crowd.mean.is_empty() {
            return None;
        }
        let along = |from: &[f32], direction: &[f32], size: f32| -> Vec<f32> {
            from.iter().zip(direction).map(|(value, step)| value + size * step).collect()
        };
        match self.attack {
            Attack::SignFlip | Attack::Flood { .. } => {
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
                let length: f32 = crowd.progress.iter().map(|step| step * step).sum();
                let size = share * crowd.distance / length.sqrt().max(f32::MIN_POSITIVE);
                Some(along(victim.unwrap_or(&crowd.mean), &crowd.progress, -size))
            }
            Attack::Stale => Some(genesis.to_vec()),
            Attack::LabelFlip | Attack::Tarpit | Attack::FalseAge { .. } => None,
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
        assert!((crowd.distance - 2.0_f32.sqrt()).abs() < 1e-6);
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
        let forge = |attack, victim: Option<&[f32]>| {
            let mut attacker = Attacker::new(attack, (1, 2), 1);
            attacker.crowd = Arc::new(crowd());
            attacker.forge(&[9.0, 9.0], victim)
        };
        assert_eq!(forge(Attack::SignFlip, None), Some(vec![-2.0, -2.0]));
        assert_eq!(forge(Attack::Alie { z: 1.5 }, None), Some(vec![0.5, 2.0]));
        assert_eq!(forge(Attack::AlieSplit { z: 1.5 }, None), Some(vec![3.0, 2.0]));
        assert_eq!(forge(Attack::InnerProduct { rounds: 1.0 }, None), Some(vec![0.0, 0.0]));
        assert_eq!(forge(Attack::Stale, None), Some(vec![9.0, 9.0]));
        assert_eq!(forge(Attack::Tarpit, None), None);
        let pushed =
            forge(Attack::GateFit { share: 1.0, memory: 0.0 }, Some(&[5.0, 5.0])).expect("forged");
        assert!((pushed[0] - 4.0).abs() < 1e-6 && (pushed[1] - 4.0).abs() < 1e-6, "{pushed:?}");
    }
}
