//! The built-in data set: 1797 handwritten digits of 8 by 8 pixels, from the UCI repository.
//!
//! E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, 1998, CC BY 4.0; the
//! test part of it, as scikit-learn ships it, with pixels of 0 to 16.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::idx::read_idx_pair;
use super::partition::by_class;
use super::{DataError, Dataset};

/// Digits to tell apart.
pub const CLASSES: usize = 10;
/// Pixels of an image, row by row.
pub const FEATURES: usize = 64;
/// Rows of the test set.
const TEST_ROWS: usize = 450;
/// The largest pixel.
const PIXEL_MAX: f32 = 16.0;
/// Decides which rows are for testing: changing it changes every accuracy ever reported.
const SPLIT_SEED: u64 = 0;

const IMAGES: &[u8] = include_bytes!("../../data/digits-images.idx.gz");
const LABELS: &[u8] = include_bytes!("../../data/digits-labels.idx.gz");

/// The training set of 1347 rows and the test set of 450, with the classes in proportion and
/// pixels within [0, 1]: the same two on every call.
///
/// # Errors
///
/// Any [`DataError`] if the data built in is damaged.
pub fn digits() -> Result<(Dataset, Dataset), DataError> {
    let all = read_idx_pair(IMAGES, LABELS, PIXEL_MAX.recip(), CLASSES)?;
    let mut rng = ChaCha8Rng::seed_from_u64(SPLIT_SEED);
    let classes = by_class(all.labels(), CLASSES, &mut rng);
    let counts: Vec<usize> = classes.iter().map(Vec::len).collect();
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (class, count) in classes.iter().zip(apportion(TEST_ROWS, &counts)) {
        let (head, tail) = class.split_at(count.min(class.len()));
        test.extend_from_slice(head);
        train.extend_from_slice(tail);
    }
    train.sort_unstable();
    test.sort_unstable();
    Ok((all.subset(&train)?, all.subset(&test)?))
}

/// `seats` in proportion to `weights` by largest remainder, the first of equal ones first.
fn apportion(seats: usize, weights: &[usize]) -> Vec<usize> {
    let total = weights.iter().sum::<usize>().max(1);
    let mut shares: Vec<usize> = weights.iter().map(|weight| weight * seats / total).collect();
    let left = seats.saturating_sub(shares.iter().sum());
    let mut order: Vec<(usize, &mut usize)> =
        weights.iter().map(|weight| weight * seats % total).zip(&mut shares).collect();
    order.sort_by_key(|&(remainder, _)| core::cmp::Reverse(remainder));
    for (_, share) in order.into_iter().take(left) {
        *share += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(data: &Dataset) -> Vec<usize> {
        let of = |class| data.labels().iter().filter(|&&label| usize::from(label) == class).count();
        (0..CLASSES).map(of).collect()
    }

    #[test]
    fn digits_are_the_published_ones_in_a_fixed_stratified_split() {
        let (train, test) = digits().unwrap();
        assert_eq!((train.len(), train.features(), train.classes()), (1347, 64, 10));
        assert_eq!((test.len(), test.features(), test.classes()), (450, 64, 10));
        assert_eq!(counts(&test), [45, 46, 44, 46, 45, 46, 45, 45, 43, 45]);
        assert_eq!(counts(&train), [133, 136, 133, 137, 136, 136, 136, 134, 131, 135]);
        // The sum of all pixels of scikit-learn's digits.csv.gz.
        let sum: f32 = train.values().iter().chain(test.values()).map(|value| value * 16.0).sum();
        assert_eq!(sum, 561_718.0);
        assert!(train.values().iter().all(|value| (0.0..=1.0).contains(value)));
    }

    #[test]
    fn split_is_pinned() {
        let (train, test) = digits().unwrap();
        let sum = |data: &Dataset| {
            data.values().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, value| {
                (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3)
            })
        };
        assert_eq!((sum(&train), sum(&test)), (0x3fd7_29dc_07e4_1225, 0xad5d_f958_a28d_ad25));
        assert_eq!(digits().unwrap(), (train, test));
    }

    #[test]
    fn apportion_gives_every_seat_to_the_largest_remainders() {
        assert_eq!(apportion(10, &[5, 3, 1]), [6, 3, 1]);
        assert_eq!(apportion(2, &[1, 1, 1]), [1, 1, 0]);
        assert_eq!(apportion(0, &[4, 4]), [0, 0]);
        assert_eq!(apportion(3, &[0, 0]), [1, 1]);
    }
}
