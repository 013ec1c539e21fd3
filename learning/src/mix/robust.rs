//! Coordinate-wise rules over several vectors: bootstrap of newcomers, and mixing for networks
//! that suspect collusion.

use crate::mix::distance;

/// Coordinate-wise median: the mean of the middle two if their number is even. None without
/// vectors or if lengths differ.
#[must_use]
pub fn coordinate_median(vectors: &[&[f32]]) -> Option<Vec<f32>> {
    trimmed_mean(vectors, vectors.len().saturating_sub(1) / 2)
}

/// Coordinate-wise mean without the `trim` lowest and highest values. None if that leaves nothing,
/// or if lengths differ.
#[must_use]
pub fn trimmed_mean(vectors: &[&[f32]], trim: usize) -> Option<Vec<f32>> {
    let length = vectors.first()?.len();
    let kept = vectors.len().checked_sub(2 * trim).filter(|kept| *kept > 0)?;
    if vectors.iter().any(|vector| vector.len() != length) {
        return None;
    }
    let mut column = vec![0.0; vectors.len()];
    let mean = (0..length).map(|index| {
        for (place, vector) in column.iter_mut().zip(vectors) {
            *place = vector.get(index).copied().unwrap_or_default();
        }
        column.sort_unstable_by(f32::total_cmp);
        column.iter().skip(trim).take(kept).sum::<f32>() / kept as f32
    });
    Some(mean.collect())
}

/// Replaces each vector by the mean of its `near` nearest, itself included ("nearest-neighbour
/// mixing", Allouah et al., arXiv 2302.01772).
#[must_use]
pub fn nearest_neighbour_means(vectors: &[&[f32]], near: usize) -> Vec<Vec<f32>> {
    let near = near.clamp(1, vectors.len().max(1));
    let mean_of_nearest = |own: &&[f32]| {
        let mut order: Vec<(f64, &[f32])> =
            vectors.iter().map(|other| (distance(own, other), *other)).collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut mean = vec![0.0; own.len()];
        for (_, vector) in order.iter().take(near) {
            for (sum, value) in mean.iter_mut().zip(*vector) {
                *sum += value / near as f32;
            }
        }
        mean
    };
    vectors.iter().map(mean_of_nearest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_trimmed_means() {
        let vectors: [&[f32]; 4] = [&[1.0, 9.0], &[2.0, -9.0], &[3.0, 1.0], &[100.0, 2.0]];
        assert_eq!(coordinate_median(&vectors), Some(vec![2.5, 1.5]));
        assert_eq!(coordinate_median(&vectors[..3]), Some(vec![2.0, 1.0]));
        assert_eq!(coordinate_median(&vectors[..1]), Some(vec![1.0, 9.0]));
        assert_eq!(trimmed_mean(&vectors, 0), Some(vec![26.5, 0.75]));
        assert_eq!(trimmed_mean(&vectors, 2), None);
        assert_eq!(coordinate_median(&[]), None);
        assert_eq!(coordinate_median(&[&[1.0], &[1.0, 2.0]]), None);
    }

    #[test]
    fn the_far_one_is_pulled_in() {
        let vectors: [&[f32]; 3] = [&[0.0], &[1.0], &[50.0]];
        assert_eq!(nearest_neighbour_means(&vectors, 2), [vec![0.5], vec![0.5], vec![25.5]]);
    }
}
