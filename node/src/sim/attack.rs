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

/// What hostile nodes know: statistics of all live honest models.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd {
    pub(super) mean: Vec<f32>,
    pub(super) deviation: Vec<f32>,
    /// How far the mean has come since the last look.
    pub(super) progress: Vec<f32>,
    /// Usual distance between two honest models.
    pub(super) distance: f32,
}

impl Crowd {
    /// Looks at all honest models.
    pub(super) fn of(models: &[&[f32]], before: &Self) -> Self {
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
            mean.iter().zip(&before.mean).map(|(now, then)| now - then).collect()
        } else {
            vec![0.0; length]
        };
        // Two independent draws are the square root of two deviations apart.
        Self { mean, deviation, progress, distance: (2.0 * total).sqrt() }
    }
}

/// One hostile node.
#[derive(Clone, Debug)]
pub(super) struct Attacker {
    pub(super) attack: Attack,
    pub(super) crowd: Arc<Crowd>,
    rng: ChaCha8Rng,
}

impl Attacker {
    pub(super) fn new(attack: Attack, seed: u64) -> Self {
        Self { attack, crowd: Arc::default(), rng: ChaCha8Rng::seed_from_u64(seed) }
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
            Attack::InnerProduct { rounds } => Some(along(&crowd.mean, &crowd.progress, -rounds)),
            Attack::GateFit { share } => {
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
        let before = Crowd { mean: vec![0.0, 0.0], ..Crowd::default() };
        Crowd::of(&[&[1.0, 2.0], &[3.0, 2.0]], &before)
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
    fn forged_models_are_what_they_claim() {
        let forge = |attack, victim: Option<&[f32]>| {
            let mut attacker = Attacker::new(attack, 1);
            attacker.crowd = Arc::new(crowd());
            attacker.forge(&[9.0, 9.0], victim)
        };
        assert_eq!(forge(Attack::SignFlip, None), Some(vec![-2.0, -2.0]));
        assert_eq!(forge(Attack::Alie { z: 1.5 }, None), Some(vec![0.5, 2.0]));
        assert_eq!(forge(Attack::InnerProduct { rounds: 1.0 }, None), Some(vec![0.0, 0.0]));
        assert_eq!(forge(Attack::Stale, None), Some(vec![9.0, 9.0]));
        assert_eq!(forge(Attack::Tarpit, None), None);
        let pushed = forge(Attack::GateFit { share: 1.0 }, Some(&[5.0, 5.0])).expect("forged");
        assert!((pushed[0] - 4.0).abs() < 1e-6 && (pushed[1] - 4.0).abs() < 1e-6, "{pushed:?}");
    }
}
