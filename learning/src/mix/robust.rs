//! Coordinate-wise rules over several vectors: bootstrap of newcomers, and mixing for networks
//! that suspect collusion.

use crate::mix::distance;

/// Columns sorted at a time: a few vector registers of each row.
const COLUMNS: usize = 64;

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
    let mut mean = Vec::with_capacity(length);
    let mut rows: Vec<[f32; COLUMNS]> = vec![[0.0; COLUMNS]; vectors.len()];
    for start in (0..length).step_by(COLUMNS) {
        let width = COLUMNS.min(length - start);
        for (row, vector) in rows.iter_mut().zip(vectors) {
            let values = vector.get(start..start + width).unwrap_or_default();
            row.iter_mut().zip(values).for_each(|(place, value)| *place = *value);
        }
        sort_columns(&mut rows);
        let mut sums = [0.0_f64; COLUMNS];
        for row in rows.iter().skip(trim).take(kept) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        mean.extend(sums.iter().take(width).map(|sum| (sum / kept as f64) as f32));
    }
    Some(mean)
}

/// Sorts each column by odd-even transposition (Habermann, 1972): as many passes as rows, each of
/// them whole rows at a time, which vectorises where sorting column by column does not.
fn sort_columns(rows: &mut [[f32; COLUMNS]]) {
    for pass in 0..rows.len() {
        for pair in rows.get_mut(pass % 2..).unwrap_or_default().chunks_exact_mut(2) {
            let [low, high] = pair else { continue };
            for (low, high) in low.iter_mut().zip(high) {
                let (a, b) = (*low, *high);
                (*low, *high) = if b < a { (b, a) } else { (a, b) };
            }
        }
    }
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
    fn every_column_is_sorted_whatever_their_number() {
        for (count, length) in [(1, 3), (2, 64), (7, 65), (12, 256), (13, 100)] {
            let value = |row: usize, column: usize| ((row * 7919 + column * 104_729) % 97) as f32;
            let vectors: Vec<Vec<f32>> = (0..count)
                .map(|row| (0..length).map(|column| value(row, column)).collect())
                .collect();
            let refs: Vec<&[f32]> = vectors.iter().map(Vec::as_slice).collect();
            let median = coordinate_median(&refs).expect("of one length");
            for (column, found) in median.iter().enumerate() {
                let mut sorted: Vec<f32> = (0..count).map(|row| value(row, column)).collect();
                sorted.sort_unstable_by(f32::total_cmp);
                let expected = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
                assert_eq!(*found, expected, "{count} {length} {column}");
            }
        }
    }

    #[test]
    fn large_values_do_not_overflow() {
        let vectors: [&[f32]; 2] = [&[f32::MAX], &[f32::MAX]];
        assert_eq!(coordinate_median(&vectors), Some(vec![f32::MAX]));
    }

    #[test]
    fn the_far_one_is_pulled_in() {
        let vectors: [&[f32]; 3] = [&[0.0], &[1.0], &[50.0]];
        assert_eq!(nearest_neighbour_means(&vectors, 2), [vec![0.5], vec![0.5], vec![25.5]]);
    }
}
