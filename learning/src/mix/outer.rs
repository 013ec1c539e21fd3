//! The outer step: Nesterov momentum on what a round moved, merges included, as in DiLoCo
//! (arXiv 2311.08105) without its all-reduce; and the averaged model that is served.

use crate::mix::norm;

/// Coefficients of the outer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OuterRule {
    /// Momentum.
    pub momentum: f64,
    /// Outer learning rate.
    pub rate: f64,
    /// The velocity is at most this many own updates long: bounds what a merge can pump into it.
    pub velocity_clip: f64,
}

impl OuterRule {
    /// `x` after an outer step from `anchor`, which moves along. `own_update` is the length of this
    /// round's local update alone.
    pub fn step(&self, x: &mut [f32], anchor: &mut [f32], velocity: &mut [f32], own_update: f64) {
        let momentum = self.momentum as f32;
        for ((speed, from), to) in velocity.iter_mut().zip(&*anchor).zip(&*x) {
            *speed = momentum * *speed + (from - to);
        }
        let (length, limit) = (norm(velocity), self.velocity_clip * own_update);
        if length > limit {
            let shrink = (limit / length) as f32;
            velocity.iter_mut().for_each(|speed| *speed *= shrink);
        }
        let rate = self.rate as f32;
        for ((to, from), speed) in x.iter_mut().zip(anchor.iter_mut()).zip(&*velocity) {
            let displacement = *from - *to;
            *to = *from - rate * (displacement + momentum * speed);
            *from = *to;
        }
    }
}

/// Exponential moving average of a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Average {
    values: Vec<f32>,
    decay: f32,
}

impl Average {
    /// The average of `values` alone.
    #[must_use]
    pub fn of(values: &[f32], decay: f32) -> Self {
        Self { values: values.to_vec(), decay }
    }

    /// Takes `values` in.
    pub fn update(&mut self, values: &[f32]) {
        let decay = self.decay;
        for (mean, value) in self.values.iter_mut().zip(values) {
            *mean = decay * *mean + (1.0 - decay) * value;
        }
    }

    /// The average.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_outer_step_by_hand() {
        let rule = OuterRule { momentum: 0.9, rate: 0.7, velocity_clip: 10.0 };
        let (mut x, mut anchor, mut velocity) = ([0.0_f32], [1.0_f32], [0.5_f32]);
        rule.step(&mut x, &mut anchor, &mut velocity, 1.0);
        // v = .9 * .5 + 1 = 1.45; x = 1 - .7 (1 + .9 * 1.45)
        assert!((velocity[0] - 1.45).abs() < 1e-6);
        assert!((x[0] + 0.6135).abs() < 1e-6);
        assert_eq!(anchor, x);
    }

    #[test]
    fn the_velocity_is_clipped_to_own_updates() {
        let rule = OuterRule { momentum: 0.9, rate: 0.7, velocity_clip: 3.0 };
        let (mut x, mut anchor, mut velocity) = ([0.0_f32; 2], [30.0_f32, 40.0], [0.0_f32; 2]);
        rule.step(&mut x, &mut anchor, &mut velocity, 1.0);
        assert!((norm(&velocity) - 3.0).abs() < 1e-6);
    }

    #[test]
    fn no_momentum_and_full_rate_change_nothing() {
        let rule = OuterRule { momentum: 0.0, rate: 1.0, velocity_clip: f64::INFINITY };
        let (mut x, mut anchor, mut velocity) = ([2.0_f32], [1.0_f32], [7.0_f32]);
        rule.step(&mut x, &mut anchor, &mut velocity, 1.0);
        assert_eq!(x, [2.0]);
    }

    #[test]
    fn averages_forget_at_their_rate() {
        let mut average = Average::of(&[1.0], 0.9);
        average.update(&[2.0]);
        assert!((average.values()[0] - 1.1).abs() < 1e-6);
    }
}
