//! Mixing: what becomes of a node's parameters when another node's arrive.

use crate::params::{dot, sum_of};

pub mod filter;
pub mod gate;
pub mod outer;
pub mod robust;
pub mod trial;

/// Euclidean norm, accumulated in f64.
#[must_use]
pub fn norm(values: &[f32]) -> f64 {
    dot(values, values).sqrt()
}

/// Euclidean distance of two vectors of one length, accumulated in f64.
#[must_use]
pub fn distance(a: &[f32], b: &[f32]) -> f64 {
    let square = |a: f32, b: f32| f64::from(a - b) * f64::from(a - b);
    sum_of(a, b, square).sqrt()
}

/// `x += weight * (target - source)`.
pub fn add_scaled_difference(x: &mut [f32], target: &[f32], source: &[f32], weight: f32) {
    for ((value, target), source) in x.iter_mut().zip(target).zip(source) {
        *value += weight * (target - source);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_and_distances() {
        let values: Vec<f32> = (0..100_u8).map(f32::from).collect();
        let expected = (0..100_u32).map(|value| f64::from(value * value)).sum::<f64>().sqrt();
        assert!((norm(&values) - expected).abs() < 1e-9);
        assert!((distance(&values, &[0.0; 100]) - expected).abs() < 1e-9);
        assert_eq!(distance(&values, &values), 0.0);
        let mut x = [1.0];
        add_scaled_difference(&mut x, &[5.0], &[3.0], 0.5);
        assert_eq!(x, [2.0]);
    }
}
