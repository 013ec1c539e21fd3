//! Who gets which rows: splits of one data set over many nodes, even or skewed.

use core::cmp::Reverse;
use core::fmt;
use core::str::FromStr;
use std::collections::BinaryHeap;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, OpenClosed01};
use serde::{Deserialize, Serialize};

use super::{CLASSES_MAX, DataError, ROWS_MAX, bounded, check_labels};

/// Most shards for each part.
pub const SHARDS_MAX: usize = 1024;
/// Least concentration: below it each class is with one part anyway.
pub const ALPHA_MIN: f64 = 1e-4;
/// Greatest concentration: above it the parts are even anyway.
pub const ALPHA_MAX: f64 = 1e6;

/// How rows are split over parts. Its text is `iid`, `shards=2` or `dirichlet=0.1`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Split {
    /// Shuffled and dealt round: parts differ by one row at most.
    Iid,
    /// Sorted by label and cut into equal shards, so many at random to each part, within
    /// 1 to [`SHARDS_MAX`]: few labels in each part.
    Shards(usize),
    /// Each class spread over the parts as a Dirichlet draw of this concentration, within
    /// [`ALPHA_MIN`] to [`ALPHA_MAX`]: the smaller, the more skewed.
    Dirichlet(f64),
}

impl Split {
    /// Fails if a number is out of its bounds.
    fn check(&self) -> Result<(), DataError> {
        match *self {
            Self::Shards(count) if !(1..=SHARDS_MAX).contains(&count) => Err(DataError::Split(
                format!("found shards={count}, expected a number from 1 to {SHARDS_MAX}"),
            )),
            Self::Dirichlet(alpha) if !(ALPHA_MIN..=ALPHA_MAX).contains(&alpha) => {
                Err(DataError::Split(format!(
                    "found dirichlet={alpha}, expected a number from {ALPHA_MIN} to {ALPHA_MAX}"
                )))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Iid => f.write_str("iid"),
            Self::Shards(count) => write!(f, "shards={count}"),
            Self::Dirichlet(alpha) => write!(f, "dirichlet={alpha}"),
        }
    }
}

impl FromStr for Split {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let split = match text.split_once('=') {
            None if text == "iid" => Some(Self::Iid),
            Some(("shards", count)) => count.parse().ok().map(Self::Shards),
            Some(("dirichlet", alpha)) => alpha.parse().ok().map(Self::Dirichlet),
            _ => None,
        };
        let Some(split) = split else {
            return Err(DataError::Split(format!(
                "found {text:?}, expected iid, shards=N or dirichlet=ALPHA, as in shards=2"
            )));
        };
        split.check()?;
        Ok(split)
    }
}

impl TryFrom<String> for Split {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self, DataError> {
        text.parse()
    }
}

impl From<Split> for String {
    fn from(split: Split) -> Self {
        split.to_string()
    }
}

/// Row numbers, ascending, of each of `parts` parts: every row is in exactly one part, and every
/// part has one at least (taken from the largest, should the split leave one without). Equal
/// arguments give equal parts.
///
/// # Errors
///
/// [`DataError::Split`] if `parts` is zero or beyond the rows, or a number of `split` is out of
/// bounds; [`DataError::Empty`] or [`DataError::TooLarge`] for the number of rows or classes;
/// [`DataError::LabelOutOfRange`].
pub fn partition(
    labels: &[u16],
    classes: usize,
    parts: usize,
    split: &Split,
    seed: u64,
) -> Result<Vec<Vec<u32>>, DataError> {
    split.check()?;
    bounded("rows", labels.len(), ROWS_MAX)?;
    bounded("classes", classes, CLASSES_MAX)?;
    check_labels(labels, classes)?;
    if !(1..=labels.len()).contains(&parts) {
        return Err(DataError::Split(format!(
            "found {parts} parts for {} rows, expected at least one part and at least one row \
             for each; use fewer parts or more rows",
            labels.len()
        )));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut dealt = match *split {
        Split::Iid => deal(labels.len(), parts, &mut rng),
        Split::Shards(count) => cut(labels, classes, parts, count, &mut rng),
        Split::Dirichlet(alpha) => spread(labels, classes, parts, alpha, &mut rng)?,
    };
    fill_empty(&mut dealt);
    for part in &mut dealt {
        part.sort_unstable();
    }
    Ok(dealt)
}

/// All rows, shuffled, one to each part in turn.
fn deal(rows: usize, parts: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
    let mut order: Vec<u32> = (0..).take(rows).collect();
    order.shuffle(rng);
    (0..parts).map(|part| order.iter().skip(part).step_by(parts).copied().collect()).collect()
}

/// Rows sorted by label, cut into `parts * count` shards that differ by one row at most, `count`
/// at random to each part.
fn cut(
    labels: &[u16],
    classes: usize,
    parts: usize,
    count: usize,
    rng: &mut ChaCha8Rng,
) -> Vec<Vec<u32>> {
    let mut rest = by_class(labels, classes, rng).concat();
    let shards = parts.saturating_mul(count);
    let mut owners: Vec<usize> = (0..shards).map(|shard| shard / count.max(1)).collect();
    owners.shuffle(rng);
    let mut dealt = vec![Vec::new(); parts];
    // From the back: what is left over goes one row each to the last shards.
    for (left, owner) in (1..=shards).rev().zip(owners) {
        let shard = rest.split_off(rest.len() - rest.len().div_ceil(left));
        if let Some(part) = dealt.get_mut(owner) {
            part.extend(shard);
        }
    }
    dealt
}

/// Each class cut at the running sums of proportions drawn from a Dirichlet distribution.
fn spread(
    labels: &[u16],
    classes: usize,
    parts: usize,
    alpha: f64,
    rng: &mut ChaCha8Rng,
) -> Result<Vec<Vec<u32>>, DataError> {
    let mut dealt = vec![Vec::new(); parts];
    for rows in by_class(labels, classes, rng) {
        if rows.is_empty() {
            continue;
        }
        let weights = dirichlet(parts, alpha, rng)?;
        let total: f64 = weights.iter().sum();
        let step = total / f64::from(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let mut middles = (0_u32..).map(|at| (f64::from(at) + 0.5) * step).zip(rows).peekable();
        let mut sum = 0.0;
        for (part, weight) in dealt.iter_mut().zip(weights) {
            sum += weight;
            while let Some((_, row)) = middles.next_if(|&(middle, _)| middle < sum) {
                part.push(row);
            }
        }
        // Rounding may leave a row over.
        if let Some(part) = dealt.last_mut() {
            part.extend(middles.map(|(_, row)| row));
        }
    }
    Ok(dealt)
}

/// Weights of a symmetric Dirichlet draw, the largest one.
///
/// Drawn as logarithms of gamma variates: at a small concentration most of the variates
/// themselves are too small for an `f64`, and all of them may be.
fn dirichlet(parts: usize, alpha: f64, rng: &mut ChaCha8Rng) -> Result<Vec<f64>, DataError> {
    let gamma = Gamma::new(alpha + 1.0, 1.0)
        .map_err(|error| DataError::Split(format!("found dirichlet={alpha}: {error}")))?;
    let mut weights: Vec<f64> = (0..parts)
        .map(|_| {
            let uniform: f64 = OpenClosed01.sample(rng);
            libm::log(gamma.sample(rng)) + libm::log(uniform) / alpha
        })
        .collect();
    let largest = weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    for weight in &mut weights {
        *weight = libm::exp(*weight - largest);
    }
    Ok(weights)
}

/// The rows of each class, shuffled class by class.
pub(super) fn by_class(labels: &[u16], classes: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<u32>> {
    let mut grouped = vec![Vec::new(); classes];
    for (row, &label) in (0_u32..).zip(labels) {
        if let Some(class) = grouped.get_mut(usize::from(label)) {
            class.push(row);
        }
    }
    for class in &mut grouped {
        class.shuffle(rng);
    }
    grouped
}

/// Moves one row to each empty part, always from the part that is largest then, the first of
/// equal ones.
fn fill_empty(dealt: &mut [Vec<u32>]) {
    let mut largest: BinaryHeap<(usize, Reverse<usize>)> =
        dealt.iter().enumerate().map(|(part, rows)| (rows.len(), Reverse(part))).collect();
    for empty in 0..dealt.len() {
        if dealt.get(empty).is_none_or(|rows| !rows.is_empty()) {
            continue;
        }
        let Some((len, Reverse(donor))) = largest.pop() else { return };
        let Some(row) = dealt.get_mut(donor).and_then(Vec::pop) else { return };
        largest.push((len.saturating_sub(1), Reverse(donor)));
        if let Some(rows) = dealt.get_mut(empty) {
            rows.push(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IntoDeserializer;
    use serde::de::value::{Error, StrDeserializer};

    use super::*;

    const ALL: [Split; 3] = [Split::Iid, Split::Shards(2), Split::Dirichlet(0.1)];

    /// A hundred rows of each of ten classes, in turn.
    fn labels() -> Vec<u16> {
        (0..1000).map(|row| row % 10).collect()
    }

    fn checksum(parts: &[Vec<u32>]) -> u64 {
        let words = parts.iter().flat_map(|part| part.iter().copied().chain([u32::MAX]));
        words.fold(0xcbf2_9ce4_8422_2325, |hash, word| {
            (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// How many classes each part has rows of.
    fn variety(parts: &[Vec<u32>]) -> Vec<usize> {
        let of = |part: &Vec<u32>| {
            (0..10).filter(|class| part.iter().any(|row| row % 10 == *class)).count()
        };
        parts.iter().map(of).collect()
    }

    fn message(result: Result<Vec<Vec<u32>>, DataError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn splits_are_pinned() {
        let sums = ALL.map(|split| checksum(&partition(&labels(), 10, 8, &split, 7).unwrap()));
        assert_eq!(sums, [0xce2c_e806_37fe_cb27, 0x62e3_4220_aabe_dfb1, 0xef30_3097_7d95_513b]);
    }

    #[test]
    fn seeds_decide() {
        for split in ALL {
            let of = |seed| partition(&labels(), 10, 8, &split, seed).unwrap();
            assert_eq!(of(1), of(1));
            assert_ne!(of(1), of(2));
        }
    }

    #[test]
    fn iid_parts_are_even_and_mixed() {
        let parts = partition(&labels(), 10, 7, &Split::Iid, 0).unwrap();
        let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(sizes, [143, 143, 143, 143, 143, 143, 142]);
        assert_eq!(variety(&parts), [10; 7]);
    }

    #[test]
    fn shards_are_even_and_of_few_labels() {
        let parts = partition(&labels(), 10, 10, &Split::Shards(2), 0).unwrap();
        assert!(parts.iter().all(|part| part.len() == 100));
        assert!(variety(&parts).iter().all(|&classes| classes <= 2));
        let uneven = partition(&labels(), 10, 7, &Split::Shards(1), 0).unwrap();
        let mut sizes: Vec<usize> = uneven.iter().map(Vec::len).collect();
        sizes.sort_unstable();
        assert_eq!(sizes, [142, 143, 143, 143, 143, 143, 143]);
    }

    #[test]
    fn dirichlet_skew_follows_the_concentration() {
        let mean = |alpha: f64| {
            let found = (0..10).flat_map(|seed| {
                variety(&partition(&labels(), 10, 10, &Split::Dirichlet(alpha), seed).unwrap())
            });
            found.sum::<usize>()
        };
        let (tiny, small, large) = (mean(ALPHA_MIN), mean(0.1), mean(ALPHA_MAX));
        assert_eq!(large, 1000);
        assert!((300..600).contains(&small), "{small}");
        // Each class with one part, but for single rows moved to parts without any.
        assert!((100..200).contains(&tiny), "{tiny}");
    }

    #[test]
    fn dirichlet_weights_have_the_mean_and_variance_of_the_distribution() {
        let (parts, alpha, draws) = (4, 0.5, 20_000);
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..draws {
            let weights = dirichlet(parts, alpha, &mut rng).unwrap();
            let share = weights.first().unwrap() / weights.iter().sum::<f64>();
            sum += share;
            squares += share * share;
        }
        let mean = sum / f64::from(draws);
        let variance = squares / f64::from(draws) - mean * mean;
        assert!((mean - 0.25).abs() < 0.01, "{mean}");
        // (1/4)(3/4) / (4 alpha + 1).
        assert!((variance - 0.0625).abs() < 0.003, "{variance}");
    }

    #[test]
    fn every_part_has_a_row_even_of_one_class() {
        for split in [Split::Iid, Split::Shards(1024), Split::Dirichlet(ALPHA_MIN)] {
            let parts = partition(&[3; 12], 5, 12, &split, 0).unwrap();
            assert!(parts.iter().all(|part| part.len() == 1), "{split}");
        }
        let mut dealt = vec![vec![], vec![0, 1, 2], vec![], vec![3, 4, 5]];
        fill_empty(&mut dealt);
        assert_eq!(dealt, [vec![2], vec![0, 1], vec![5], vec![3, 4]]);
    }

    #[test]
    fn texts_go_there_and_back() {
        for text in ["iid", "shards=2", "dirichlet=0.1", "dirichlet=100"] {
            let split: Split = text.parse().unwrap();
            assert_eq!(split.to_string(), text);
            let source: StrDeserializer<'_, Error> = text.into_deserializer();
            assert_eq!(Split::deserialize(source).unwrap(), split);
            assert_eq!(String::from(split), text);
        }
        assert_eq!("dirichlet=1e-1".parse::<Split>().unwrap(), Split::Dirichlet(0.1));
    }

    #[test]
    fn bad_texts_say_what_is_expected() {
        for text in ["", "even", "iid=1", "shards", "shards=", "shards=-1", "dirichlet=x", "IID"] {
            let found = text.parse::<Split>().unwrap_err().to_string();
            let expected = format!(
                "split: found {text:?}, expected iid, shards=N or dirichlet=ALPHA, as in shards=2"
            );
            assert_eq!(found, expected);
        }
        let of = |text: &str| text.parse::<Split>().unwrap_err().to_string();
        assert_eq!(of("shards=0"), "split: found shards=0, expected a number from 1 to 1024");
        let range = "expected a number from 0.0001 to 1000000";
        for text in ["0", "-1", "NaN", "inf", "10000000"] {
            let text = format!("dirichlet={text}");
            assert_eq!(of(&text), format!("split: found {text}, {range}"));
        }
        let source: StrDeserializer<'_, Error> = "shards=1025".into_deserializer();
        assert!(Split::deserialize(source).unwrap_err().to_string().contains("1 to 1024"));
    }

    #[test]
    fn arguments_out_of_range_are_errors() {
        let of = |parts, split| message(partition(&labels(), 10, parts, &split, 0));
        let end = "parts for 1000 rows, expected at least one part and at least one row for \
                   each; use fewer parts or more rows";
        assert_eq!(of(0, Split::Iid), format!("split: found 0 {end}"));
        assert_eq!(of(1001, Split::Iid), format!("split: found 1001 {end}"));
        assert!(of(2, Split::Shards(0)).contains("shards=0"));
        assert!(of(2, Split::Dirichlet(f64::NAN)).contains("dirichlet=NaN"));
        let label = partition(&[0, 2], 2, 1, &Split::Iid, 0).unwrap_err();
        let expected = DataError::LabelOutOfRange { row: 1, label: 2, classes: 2 };
        assert_eq!(label.to_string(), expected.to_string());
        let empty = message(partition(&[], 2, 1, &Split::Iid, 0));
        assert_eq!(empty, "rows: found none, expected at least one");
        let classes = message(partition(&[0], 65_537, 1, &Split::Iid, 0));
        assert_eq!(classes, "classes: found 65537, expected at most 65536; use less");
    }

    proptest! {
        #[test]
        fn parts_are_disjoint_ascending_and_cover_all_rows(
            labels in prop::collection::vec(0_u16..6, 1..200),
            share in 0.0_f64..=1.0,
            kind in 0_usize..3,
            count in 1_usize..5,
            power in -4.0_f64..6.0,
            seed: u64,
        ) {
            let rows = u32::try_from(labels.len()).unwrap();
            let wanted = share * f64::from(rows);
            let parts = 1 + (1..rows).filter(|&part| f64::from(part) < wanted).count();
            let split = match kind {
                0 => Split::Iid,
                1 => Split::Shards(count),
                _ => Split::Dirichlet(10_f64.powf(power)),
            };
            let dealt = partition(&labels, 6, parts, &split, seed).unwrap();
            prop_assert_eq!(dealt.len(), parts);
            prop_assert!(dealt.iter().all(|part| !part.is_empty() && part.is_sorted()));
            let mut all = dealt.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..rows).collect::<Vec<u32>>());
        }
    }
}
