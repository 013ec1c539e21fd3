//! Labelled rows: a checked data set, one node's share of it, and what can go wrong reading one.

use std::sync::Arc;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

pub mod csv;
pub mod digits;
pub mod idx;
pub mod partition;

/// Most rows of a data set.
pub const ROWS_MAX: usize = 50_000_000;
/// Most values per row.
pub const FEATURES_MAX: usize = 65_536;
/// Most classes: a label is a `u16`.
pub const CLASSES_MAX: usize = 65_536;
/// Most bytes that the values of a data set may take in memory, four for each: 2 GiB.
pub const VALUES_MAX: usize = 1 << 31;
/// Most rows that [`Shard::split_holdout`] holds out.
pub const HOLDOUT_ROWS_MAX: usize = 256;
/// One row in this many is held out.
const HOLDOUT_ONE_IN: usize = 10;

/// Why there is no data set.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The input could not be read or decompressed.
    #[error("reading {what}: {source}; check that the file is complete and readable")]
    Io {
        /// What was read.
        what: &'static str,
        /// What the reader said.
        source: std::io::Error,
    },
    /// There is nothing where something is needed.
    #[error("{what}: found none, expected at least one")]
    Empty {
        /// What is missing.
        what: &'static str,
    },
    /// A value is infinite or not a number.
    #[error(
        "row {row}, column {column}: found a value that is not finite, expected a number; \
         remove the row or fill the value in"
    )]
    NotFinite {
        /// Row, from zero.
        row: usize,
        /// Column among the features, from zero.
        column: usize,
    },
    /// A label names no class.
    #[error(
        "row {row}: found label {label}, expected one below {classes}; \
         correct the label or the number of classes"
    )]
    LabelOutOfRange {
        /// Row, from zero.
        row: usize,
        /// The label found.
        label: u16,
        /// Number of classes.
        classes: usize,
    },
    /// A row number is beyond the data set.
    #[error("found row number {row}, expected one below {rows}")]
    RowOutOfRange {
        /// The row number found.
        row: u32,
        /// Rows there are.
        rows: usize,
    },
    /// Two things that belong together differ in length.
    #[error("{what}: found {found}, expected {expected}; check that the parts belong together")]
    LengthMismatch {
        /// What was counted.
        what: &'static str,
        /// Its number.
        found: usize,
        /// The number it should have.
        expected: usize,
    },
    /// Something exceeds its bound.
    #[error("{what}: found {found}, expected at most {max}; use less")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// Its number; `u64::MAX` if it cannot be counted.
        found: u64,
        /// Its bound.
        max: u64,
    },
    /// An IDX file does not begin like one.
    #[error(
        "{what}: found the bytes {found:02x?} at the start, expected two zero bytes, a type and a \
         rank; check that it is an IDX file"
    )]
    BadMagic {
        /// Which file.
        what: &'static str,
        /// Its first four bytes.
        found: [u8; 4],
    },
    /// An IDX file has values of a type that is not read.
    #[error("{what}: found IDX type {found:#04x}, expected {expected}; convert the file")]
    BadType {
        /// Which file.
        what: &'static str,
        /// The type found.
        found: u8,
        /// The types read.
        expected: &'static str,
    },
    /// An IDX file has an unexpected number of axes.
    #[error("{what}: found {found} axes, expected {expected}; check which file is which")]
    BadRank {
        /// Which file.
        what: &'static str,
        /// The rank found.
        found: u8,
        /// The ranks read.
        expected: &'static str,
    },
    /// The scale of the values is no use.
    #[error("scale: found {found}, expected a finite number other than zero")]
    BadScale {
        /// The scale found.
        found: f32,
    },
    /// The input ends early.
    #[error("{what}: found {found} bytes, expected {expected}; fetch the file again")]
    Truncated {
        /// Which part of the input.
        what: &'static str,
        /// Bytes found.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },
    /// The input goes on after its end.
    #[error("{what}: found more than the {expected} bytes expected; check that it is one IDX file")]
    Trailing {
        /// Which part of the input.
        what: &'static str,
        /// Bytes expected.
        expected: u64,
    },
    /// More than one row in a hundred is unusable.
    #[error(
        "found {bad} unusable rows of {total}, expected at most 1 in 100; first bad lines: \
         {first_lines:?}; correct or remove them"
    )]
    TooManyBadRows {
        /// Rows rejected.
        bad: u64,
        /// Rows read.
        total: u64,
        /// Lines of the first of them, from one.
        first_lines: Vec<u64>,
    },
    /// The header lacks a column.
    #[error("column {name:?}: found none of that name, expected one of {available:?}")]
    MissingColumn {
        /// The column asked for.
        name: String,
        /// Columns there are.
        available: Vec<String>,
    },
    /// Two columns, or two words of the vocabulary, have one name.
    #[error("{what}: found {name:?} twice, expected names that differ; rename one")]
    Duplicate {
        /// What was listed.
        what: &'static str,
        /// The name that occurs twice.
        name: String,
    },
    /// A split cannot be read or applied.
    #[error("split: {0}")]
    Split(String),
}

/// Fails if `found` is zero or above `max`.
fn bounded(what: &'static str, found: usize, max: usize) -> Result<(), DataError> {
    match found {
        0 => Err(DataError::Empty { what }),
        _ if found > max => Err(too_large(what, found, max)),
        _ => Ok(()),
    }
}

/// The error that `found` exceeds `max`.
fn too_large(what: &'static str, found: usize, max: usize) -> DataError {
    DataError::TooLarge {
        what,
        found: u64::try_from(found).unwrap_or(u64::MAX),
        max: u64::try_from(max).unwrap_or(u64::MAX),
    }
}

/// Rows times features, if both and the bytes that as many values take are within bounds.
fn checked_size(rows: usize, features: usize) -> Result<usize, DataError> {
    bounded("rows", rows, ROWS_MAX)?;
    bounded("features", features, FEATURES_MAX)?;
    let bytes = rows.checked_mul(features).and_then(|values| values.checked_mul(size_of::<f32>()));
    match bytes {
        Some(bytes) if bytes <= VALUES_MAX => Ok(bytes / size_of::<f32>()),
        _ => Err(too_large("bytes of values", bytes.unwrap_or(usize::MAX), VALUES_MAX)),
    }
}

/// Rows of finite values, each with a label; at least one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    features: usize,
    classes: usize,
    values: Vec<f32>,
    labels: Vec<u16>,
}

impl Dataset {
    /// `labels.len()` rows of `features` values each, row-major, labelled below `classes`.
    ///
    /// # Errors
    ///
    /// [`DataError::Empty`] or [`DataError::TooLarge`] if a number is zero or beyond its bound,
    /// [`DataError::LengthMismatch`] if the values are not rows times features,
    /// [`DataError::NotFinite`], [`DataError::LabelOutOfRange`].
    pub fn new(
        features: usize,
        classes: usize,
        values: Vec<f32>,
        labels: Vec<u16>,
    ) -> Result<Self, DataError> {
        bounded("classes", classes, CLASSES_MAX)?;
        let expected = checked_size(labels.len(), features)?;
        if values.len() != expected {
            let found = values.len();
            return Err(DataError::LengthMismatch { what: "values", found, expected });
        }
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(DataError::NotFinite { row: at / features, column: at % features });
        }
        check_labels(&labels, classes)?;
        Ok(Self { features, classes, values, labels })
    }

    /// Values per row.
    #[must_use]
    pub fn features(&self) -> usize {
        self.features
    }

    /// Classes to tell apart.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no rows: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The values of row `i`; empty if there is no such row.
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        let start = i.saturating_mul(self.features);
        self.values.get(start..start.saturating_add(self.features)).unwrap_or(&[])
    }

    /// The label of row `i`; zero if there is no such row.
    #[must_use]
    pub fn label(&self, i: usize) -> u16 {
        self.labels.get(i).copied().unwrap_or(0)
    }

    /// One label per row.
    #[must_use]
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// All values, row-major.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// A copy of these rows, in this order.
    ///
    /// # Errors
    ///
    /// [`DataError::Empty`] if `rows` is, [`DataError::RowOutOfRange`], and
    /// [`DataError::TooLarge`] if repeated rows exceed a bound.
    pub fn subset(&self, rows: &[u32]) -> Result<Self, DataError> {
        check_rows(rows, self.len())?;
        let mut values = Vec::with_capacity(checked_size(rows.len(), self.features)?);
        let mut labels = Vec::with_capacity(rows.len());
        for &row in rows {
            values.extend_from_slice(self.row(row as usize));
            labels.push(self.label(row as usize));
        }
        Ok(Self { values, labels, ..*self })
    }
}

/// Fails at the first label that is not below `classes`.
fn check_labels(labels: &[u16], classes: usize) -> Result<(), DataError> {
    match labels.iter().enumerate().find(|&(_, &label)| usize::from(label) >= classes) {
        Some((row, &label)) => Err(DataError::LabelOutOfRange { row, label, classes }),
        None => Ok(()),
    }
}

/// Fails if there are no row numbers or one is not below `count`.
fn check_rows(rows: &[u32], count: usize) -> Result<(), DataError> {
    if rows.is_empty() {
        return Err(DataError::Empty { what: "rows" });
    }
    match rows.iter().find(|&&row| row as usize >= count) {
        Some(&row) => Err(DataError::RowOutOfRange { row, rows: count }),
        None => Ok(()),
    }
}

/// The rows of a shared data set that one node learns from; at least one.
#[derive(Clone, Debug)]
pub struct Shard {
    data: Arc<Dataset>,
    rows: Vec<u32>,
}

impl Shard {
    /// The same rows with class c turned into the last class minus c: what a hostile node may train
    /// on.
    #[must_use]
    pub fn with_flipped_labels(&self) -> Self {
        let last = u16::try_from(self.data.classes.saturating_sub(1)).unwrap_or(u16::MAX);
        let labels = self.data.labels.iter().map(|label| last.saturating_sub(*label)).collect();
        let data = Dataset { labels, ..(*self.data).clone() };
        Self { data: Arc::new(data), rows: self.rows.clone() }
    }

    /// Every row of `data`, in order.
    #[must_use]
    pub fn all(data: Arc<Dataset>) -> Self {
        let rows = (0..).take(data.len()).collect();
        Self { data, rows }
    }

    /// These rows of `data`, in this order.
    ///
    /// # Errors
    ///
    /// [`DataError::Empty`] if `rows` is, [`DataError::RowOutOfRange`].
    pub fn new(data: Arc<Dataset>, rows: Vec<u32>) -> Result<Self, DataError> {
        check_rows(&rows, data.len())?;
        Ok(Self { data, rows })
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are no rows: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Values per row.
    #[must_use]
    pub fn features(&self) -> usize {
        self.data.features()
    }

    /// Classes to tell apart.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.data.classes()
    }

    /// Fills `rows` (row-major) and `labels` anew with the rows at `positions` of this shard;
    /// positions beyond it are left out of both.
    pub fn gather(&self, positions: &[u32], rows: &mut Vec<f32>, labels: &mut Vec<u16>) {
        rows.clear();
        labels.clear();
        for &row in positions.iter().filter_map(|&position| self.rows.get(position as usize)) {
            rows.extend_from_slice(self.data.row(row as usize));
            labels.push(self.data.label(row as usize));
        }
    }

    /// What to train on and what to hold out: a tenth of the rows, at least one and at most
    /// [`HOLDOUT_ROWS_MAX`], that `seed` draws. Both keep the order of this shard; they share no
    /// position of it, except that of a single row both are that row.
    #[must_use]
    pub fn split_holdout(&self, seed: u64) -> (Self, Self) {
        if self.rows.len() < 2 {
            return (self.clone(), self.clone());
        }
        let count = (self.rows.len() / HOLDOUT_ONE_IN).clamp(1, HOLDOUT_ROWS_MAX);
        let mut held: Vec<bool> = (0..self.rows.len()).map(|position| position < count).collect();
        held.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let pick = |wanted: bool| {
            let chosen = self.rows.iter().zip(&held).filter(|&(_, &is)| is == wanted);
            Self { data: Arc::clone(&self.data), rows: chosen.map(|(&row, _)| row).collect() }
        };
        (pick(false), pick(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows `[0, 0.5]`, `[1, 1.5]`, ... with labels 0, 1, 2, 0, ...
    fn data(rows: u16) -> Dataset {
        let values = (0..rows).flat_map(|row| [f32::from(row), f32::from(row) + 0.5]).collect();
        Dataset::new(2, 3, values, (0..rows).map(|row| row % 3).collect()).unwrap()
    }

    fn error(features: usize, classes: usize, values: Vec<f32>, labels: Vec<u16>) -> String {
        Dataset::new(features, classes, values, labels).unwrap_err().to_string()
    }

    #[test]
    fn rows_and_labels_are_where_they_belong() {
        let data = data(4);
        assert_eq!(
            (data.len(), data.features(), data.classes(), data.is_empty()),
            (4, 2, 3, false)
        );
        assert_eq!((data.row(3), data.label(3)), ([3.0, 3.5].as_slice(), 0));
        assert_eq!((data.row(4), data.label(4)), ([].as_slice(), 0));
        assert!(data.row(usize::MAX).is_empty());
        assert_eq!(data.labels(), [0, 1, 2, 0]);
        assert_eq!(data.values().len(), 8);
        let subset = data.subset(&[2, 0, 2]).unwrap();
        assert_eq!(subset.values(), [2.0, 2.5, 0.0, 0.5, 2.0, 2.5]);
        assert_eq!((subset.labels(), subset.classes()), ([2, 0, 2].as_slice(), 3));
    }

    #[test]
    fn a_data_set_is_checked() {
        let none = |what| format!("{what}: found none, expected at least one");
        assert_eq!(error(1, 2, vec![], vec![]), none("rows"));
        assert_eq!(error(0, 2, vec![], vec![0]), none("features"));
        assert_eq!(error(1, 0, vec![1.0], vec![0]), none("classes"));
        assert_eq!(
            error(65_537, 2, vec![], vec![0]),
            "features: found 65537, expected at most 65536; use less"
        );
        assert_eq!(
            error(1, 65_537, vec![1.0], vec![0]),
            "classes: found 65537, expected at most 65536; use less"
        );
        assert_eq!(
            error(2, 2, vec![1.0; 3], vec![0, 1]),
            "values: found 3, expected 4; check that the parts belong together"
        );
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(
                error(2, 2, vec![0.0, 0.0, 0.0, bad], vec![0, 1]),
                "row 1, column 1: found a value that is not finite, expected a number; remove \
                 the row or fill the value in"
            );
        }
        assert_eq!(
            error(1, 2, vec![0.0; 2], vec![1, 2]),
            "row 1: found label 2, expected one below 2; correct the label or the number of classes"
        );
    }

    #[test]
    fn sizes_are_bounded_without_overflow() {
        assert_eq!(checked_size(60_000, 784).unwrap(), 47_040_000);
        assert_eq!(checked_size(8192, FEATURES_MAX).unwrap() * 4, VALUES_MAX);
        let of = |rows, features| checked_size(rows, features).unwrap_err().to_string();
        assert_eq!(
            of(8193, FEATURES_MAX),
            "bytes of values: found 2147745792, expected at most 2147483648; use less"
        );
        assert_eq!(
            of(ROWS_MAX + 1, 1),
            "rows: found 50000001, expected at most 50000000; use less"
        );
    }

    #[test]
    fn rows_beyond_the_data_are_errors() {
        let data = Arc::new(data(3));
        let beyond = "found row number 3, expected one below 3";
        assert_eq!(data.subset(&[0, 3]).unwrap_err().to_string(), beyond);
        assert!(matches!(data.subset(&[]), Err(DataError::Empty { what: "rows" })));
        assert_eq!(Shard::new(Arc::clone(&data), vec![3]).unwrap_err().to_string(), beyond);
        assert!(matches!(Shard::new(data, vec![]), Err(DataError::Empty { what: "rows" })));
    }

    #[test]
    fn gather_starts_anew_and_keeps_rows_with_labels() {
        let shard = Shard::new(Arc::new(data(9)), vec![5, 7]).unwrap();
        let (mut rows, mut labels) = (vec![9.0; 9], vec![9; 9]);
        shard.gather(&[1, 2, 0, u32::MAX, 1], &mut rows, &mut labels);
        assert_eq!(rows, [7.0, 7.5, 5.0, 5.5, 7.0, 7.5]);
        assert_eq!(labels, [1, 2, 1]);
        assert_eq!((shard.len(), shard.features(), shard.classes()), (2, 2, 3));
        assert!(!shard.is_empty());
    }

    #[test]
    fn holdout_is_a_tenth_within_bounds() {
        for (rows, held) in [(2, 1), (19, 1), (20, 2), (999, 99), (2569, 256), (5000, 256)] {
            let shard = Shard::all(Arc::new(data(rows)));
            let (train, holdout) = shard.split_holdout(1);
            assert_eq!(holdout.len(), held);
            let mut both = [train.rows.clone(), holdout.rows.clone()].concat();
            assert!(train.rows.is_sorted() && holdout.rows.is_sorted());
            both.sort_unstable();
            assert_eq!(both, shard.rows);
        }
    }

    #[test]
    fn holdout_follows_the_seed() {
        let shard = Shard::all(Arc::new(data(300)));
        let of = |seed| shard.split_holdout(seed).1.rows;
        assert_eq!(of(5), of(5));
        assert_ne!(of(5), of(6));
    }

    #[test]
    fn a_single_row_is_both_trained_on_and_held_out() {
        let shard = Shard::new(Arc::new(data(4)), vec![2]).unwrap();
        let (train, holdout) = shard.split_holdout(0);
        assert_eq!((train.rows, holdout.rows), (vec![2], vec![2]));
    }
}
