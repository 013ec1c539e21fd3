//! Stochastic gradient descent and its learning-rate schedule.

/// Local steps of a cycle of a network without an end. Accuracy hardly depends on it: at 14x14
/// Fashion-MNIST, two classes a node, cycles of 500 and 1,000 differ by 0.2 points after 4,000
/// steps, where constant rates of any size or decay stay 3 points below a run with an end.
const CYCLE_STEPS: f64 = 500.0;
/// In a cycle the model is served while the rate is below this share of its start: before that it
/// is noisier than the end of the last cycle.
const SERVED_BELOW: f64 = 0.2;

/// Learning rate by age: a half cosine from `rate` to exactly zero at `age_max`, or in cycles, each
/// such a half cosine ("SGDR", Loshchilov and Hutter, arXiv 1608.03983).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Rate at age zero.
    pub rate: f64,
    /// Age, in local steps, at which learning ends; none for networks without an end.
    pub age_max: Option<f64>,
}

impl Schedule {
    /// The rate at `age`.
    #[must_use]
    pub fn rate_at(&self, age: f64) -> f64 {
        let share = match self.age_max {
            Some(age_max) if age >= age_max => return 0.0,
            Some(age_max) => (age / age_max).max(0.0),
            None => (age / CYCLE_STEPS).max(0.0).fract(),
        };
        self.rate * 0.5 * (1.0 + libm::cos(core::f64::consts::PI * share))
    }

    /// Whether a model of this age is fit to be served, once there is one that was.
    #[must_use]
    pub fn serves(&self, age: f64) -> bool {
        let first = self.age_max.is_some() || age < CYCLE_STEPS;
        first || self.rate_at(age) < SERVED_BELOW * self.rate
    }
}

/// Stochastic gradient descent, with heavy-ball momentum if asked for.
#[derive(Clone, Debug)]
pub struct Sgd {
    momentum: f32,
    velocity: Vec<f32>,
}

impl Sgd {
    /// Momentum within [0, 1); zero keeps no velocity.
    #[must_use]
    pub fn new(momentum: f32) -> Self {
        Self { momentum, velocity: Vec::new() }
    }

    /// Forgets its velocity: after a step that was no number all later ones would be none.
    pub fn reset(&mut self) {
        self.velocity.clear();
    }

    /// Moves `params` against `gradient` at `rate`.
    pub fn step(&mut self, params: &mut [f32], gradient: &[f32], rate: f32) {
        if self.momentum == 0.0 {
            for (param, slope) in params.iter_mut().zip(gradient) {
                *param -= rate * slope;
            }
            return;
        }
        self.velocity.resize(params.len(), 0.0);
        for ((param, slope), speed) in params.iter_mut().zip(gradient).zip(&mut self.velocity) {
            *speed = self.momentum * *speed + slope;
            *param -= rate * *speed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_to_exactly_zero() {
        let schedule = Schedule { rate: 0.2, age_max: Some(100.0) };
        assert_eq!(schedule.rate_at(0.0), 0.2);
        assert!((schedule.rate_at(50.0) - 0.1).abs() < 1e-12);
        assert_eq!(schedule.rate_at(100.0), 0.0);
        assert_eq!(schedule.rate_at(1e9), 0.0);
        assert!(schedule.serves(0.0) && schedule.serves(1e9));
    }

    #[test]
    fn without_an_end_the_rate_falls_again_and_again() {
        let schedule = Schedule { rate: 0.2, age_max: None };
        for begin in [0.0, 500.0, 1e6] {
            assert_eq!(schedule.rate_at(begin), 0.2);
            assert!((schedule.rate_at(begin + 250.0) - 0.1).abs() < 1e-12);
            assert!(schedule.rate_at(begin + 499.0) < 1e-5);
            assert!(schedule.serves(begin + 499.0));
        }
        assert!(schedule.serves(100.0) && !schedule.serves(600.0));
    }

    #[test]
    fn momentum_remembers() {
        let (mut plain, mut heavy) = (Sgd::new(0.0), Sgd::new(0.5));
        let (mut a, mut b) = ([1.0_f32], [1.0_f32]);
        for _ in 0..2 {
            plain.step(&mut a, &[1.0], 0.1);
            heavy.step(&mut b, &[1.0], 0.1);
        }
        assert!((a[0] - 0.8).abs() < 1e-6);
        assert!((b[0] - 0.75).abs() < 1e-6);
    }
}
