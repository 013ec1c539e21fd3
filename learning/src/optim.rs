//! Stochastic gradient descent and its learning-rate schedule.

/// Learning rate by age: a half cosine from `rate` to exactly zero at `age_max`, or constant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Rate at age zero.
    pub rate: f64,
    /// Age, in local steps, at which learning ends; none for continuous operation.
    pub age_max: Option<f64>,
}

impl Schedule {
    /// The rate at `age`.
    #[must_use]
    pub fn rate_at(&self, age: f64) -> f64 {
        let Some(age_max) = self.age_max else { return self.rate };
        if age >= age_max {
            return 0.0;
        }
        self.rate * 0.5 * (1.0 + libm::cos(core::f64::consts::PI * (age / age_max).max(0.0)))
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
        assert_eq!(Schedule { rate: 0.2, age_max: None }.rate_at(1e9), 0.2);
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
