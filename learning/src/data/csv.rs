//! Reading tables of comma-separated values: numeric features and one column of labels.

use std::collections::BTreeMap;
use std::io::{self, Read};

use ::csv::{ByteRecord, Reader, ReaderBuilder, StringRecord, Terminator, Trim};

use super::{
    CLASSES_MAX, DataError, Dataset, FEATURES_MAX, ROWS_MAX, bounded, checked_size, too_large,
};

/// Most bytes of a field.
pub const FIELD_BYTES_MAX: usize = 256;
/// Most bytes of one record, give or take the bytes read ahead: what an open quote can cost.
pub const RECORD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most line numbers kept of rejected rows.
pub const REJECTED_KEPT_MAX: usize = 100;
/// One row in this many may be rejected.
const REJECTED_ONE_IN: u64 = 100;
/// Most line numbers or column names that an error lists.
const LISTED_MAX: usize = 10;

/// What a table holds.
#[derive(Clone, Debug, PartialEq)]
pub struct CsvTable {
    /// The rows accepted, in the order of the file.
    pub data: Dataset,
    /// Name of each feature, in the order of the columns.
    pub feature_names: Vec<String>,
    /// Name of each class: the vocabulary.
    pub label_names: Vec<String>,
    /// Lines of rejected rows, from one: the first [`REJECTED_KEPT_MAX`] of them.
    pub rejected: Vec<u64>,
    /// How many rows were rejected.
    pub rejected_total: u64,
}

/// The table of a header and rows of numbers, except for the labels in `label_column`. A label's
/// class is its place in `vocabulary`, or else among all labels found, sorted as text. Space
/// around a field does not count.
///
/// Rejected are rows with more or fewer fields than the header, a feature that is no finite
/// number, a field of more than [`FIELD_BYTES_MAX`] bytes, or a label that is empty or not in
/// `vocabulary`.
///
/// # Errors
///
/// [`DataError::TooManyBadRows`] if more than one row in a hundred was rejected,
/// [`DataError::MissingColumn`], [`DataError::Duplicate`] if the label column or a word of
/// `vocabulary` occurs twice, [`DataError::Empty`] or [`DataError::TooLarge`] for the numbers of
/// rows, features and classes and the length of names and records, [`DataError::Io`] also for a
/// header that is not UTF-8.
pub fn read_csv(
    input: impl Read,
    label_column: &str,
    vocabulary: Option<&[String]>,
) -> Result<CsvTable, DataError> {
    let mut classes = Classes::new(vocabulary)?;
    let limited = Limited { inner: input, left: RECORD_BYTES_MAX, ended: false };
    // Ending records at line feeds alone keeps the line numbers right: returns are trimmed off.
    let mut reader = ReaderBuilder::new()
        .flexible(true)
        .trim(Trim::Headers)
        .terminator(Terminator::Any(b'\n'))
        .from_reader(limited);
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => return Err(failed(&reader, error)),
    };
    let (label_at, feature_names) = columns(&header, label_column)?;
    let mut rows = Rows { label_at, columns: header.len(), ..Rows::default() };
    let mut record = ByteRecord::new();
    let (mut rejected, mut total) = (Vec::new(), 0_usize);
    loop {
        reader.get_mut().left = RECORD_BYTES_MAX;
        match reader.read_byte_record(&mut record) {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return Err(failed(&reader, error)),
        }
        if is_blank(&record) {
            continue;
        }
        total += 1;
        checked_size(total, feature_names.len())?;
        if !rows.push(&record, &mut classes)? && rejected.len() < REJECTED_KEPT_MAX {
            rejected.push(line_of(&record, &reader));
        }
    }
    let rejected_total = (total - rows.labels.len()) as u64;
    let total = total as u64;
    if rejected_total > total / REJECTED_ONE_IN {
        rejected.truncate(LISTED_MAX);
        let (bad, first_lines) = (rejected_total, rejected);
        return Err(DataError::TooManyBadRows { bad, total, first_lines });
    }
    bounded("rows", rows.labels.len(), ROWS_MAX)?;
    let label_names = classes.finish(&mut rows.labels);
    let (features, classes) = (feature_names.len(), label_names.len());
    let data = Dataset::new(features, classes, rows.values, rows.labels)?;
    Ok(CsvTable { data, feature_names, label_names, rejected, rejected_total })
}

/// The place of the label column and the names of the others.
fn columns(header: &StringRecord, label: &str) -> Result<(usize, Vec<String>), DataError> {
    bounded("columns", header.len(), FEATURES_MAX + 1)?;
    if let Some(name) = header.iter().find(|name| name.len() > FIELD_BYTES_MAX) {
        return Err(too_large("bytes of a column name", name.len(), FIELD_BYTES_MAX));
    }
    let mut found = header.iter().enumerate().filter(|&(_, name)| name == label);
    let Some((at, _)) = found.next() else {
        let available = header.iter().take(LISTED_MAX).map(str::to_owned).collect();
        return Err(DataError::MissingColumn { name: label.to_owned(), available });
    };
    if found.next().is_some() {
        return Err(DataError::Duplicate { what: "columns", name: label.to_owned() });
    }
    let others = header.iter().enumerate().filter(|&(column, _)| column != at);
    let names: Vec<String> = others.map(|(_, name)| name.to_owned()).collect();
    bounded("features", names.len(), FEATURES_MAX)?;
    Ok((at, names))
}

/// What went wrong in the reader.
fn failed<R: Read>(reader: &Reader<Limited<R>>, error: ::csv::Error) -> DataError {
    if reader.get_ref().left == 0 {
        return too_large("bytes of a record", RECORD_BYTES_MAX + 1, RECORD_BYTES_MAX);
    }
    DataError::Io { what: "table", source: error.into() }
}

/// Whether the record is a line without anything in it.
fn is_blank(record: &ByteRecord) -> bool {
    record.len() == 1 && record.as_slice().trim_ascii().is_empty()
}

/// The line on which the record just read begins, from one. (The position of a record is that of
/// the blank lines before it.)
fn line_of<R: Read>(record: &ByteRecord, reader: &Reader<Limited<R>>) -> u64 {
    let within = record.as_slice().iter().filter(|&&byte| byte == b'\n').count() as u64;
    // Only a record without a line feed at its end makes the reader look for more input.
    let after = u64::from(!reader.get_ref().ended);
    reader.position().line().saturating_sub(within + after)
}

/// A reader that fails once it was asked for more than is left.
struct Limited<R> {
    inner: R,
    left: usize,
    ended: bool,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::other("record too long"));
        }
        let count = self.inner.by_ref().take(self.left as u64).read(buffer)?;
        self.left = self.left.saturating_sub(count);
        self.ended = count == 0;
        Ok(count)
    }
}

/// The rows accepted so far.
#[derive(Default)]
struct Rows {
    label_at: usize,
    columns: usize,
    values: Vec<f32>,
    labels: Vec<u16>,
}

impl Rows {
    /// Takes the row in; false if it is to be rejected.
    fn push(&mut self, record: &ByteRecord, classes: &mut Classes) -> Result<bool, DataError> {
        let start = self.values.len();
        match self.push_values(record, classes)? {
            Some(label) => self.labels.push(label),
            None => self.values.truncate(start),
        }
        Ok(self.values.len() > start)
    }

    /// Takes the features in, and gives the label if both are good.
    fn push_values(
        &mut self,
        record: &ByteRecord,
        classes: &mut Classes,
    ) -> Result<Option<u16>, DataError> {
        if record.len() != self.columns {
            return Ok(None);
        }
        for (_, field) in record.iter().enumerate().filter(|&(at, _)| at != self.label_at) {
            let Some(value) = number(field) else { return Ok(None) };
            self.values.push(value);
        }
        match record.get(self.label_at).and_then(text) {
            Some(name) => classes.class_of(name),
            None => Ok(None),
        }
    }
}

/// The text of a field without the space around it, if there is any and it is not too long.
fn text(field: &[u8]) -> Option<&str> {
    let field = field.trim_ascii();
    if field.is_empty() || field.len() > FIELD_BYTES_MAX {
        return None;
    }
    str::from_utf8(field).ok()
}

/// The finite number in a field.
fn number(field: &[u8]) -> Option<f32> {
    text(field)?.parse().ok().filter(|value: &f32| value.is_finite())
}

/// The classes known so far, each with a number.
struct Classes {
    numbers: BTreeMap<String, u16>,
    given: bool,
}

impl Classes {
    fn new(vocabulary: Option<&[String]>) -> Result<Self, DataError> {
        let mut classes = Self { numbers: BTreeMap::new(), given: vocabulary.is_some() };
        let Some(names) = vocabulary else { return Ok(classes) };
        bounded("classes", names.len(), CLASSES_MAX)?;
        for (number, name) in (0..=u16::MAX).zip(names) {
            if classes.numbers.insert(name.clone(), number).is_some() {
                return Err(DataError::Duplicate { what: "vocabulary", name: name.clone() });
            }
        }
        Ok(classes)
    }

    /// The number of a class, a new one unless the vocabulary was given.
    fn class_of(&mut self, name: &str) -> Result<Option<u16>, DataError> {
        if let Some(&number) = self.numbers.get(name) {
            return Ok(Some(number));
        }
        if self.given {
            return Ok(None);
        }
        let count = self.numbers.len();
        let Ok(number) = u16::try_from(count) else {
            return Err(too_large("classes", count + 1, CLASSES_MAX));
        };
        self.numbers.insert(name.to_owned(), number);
        Ok(Some(number))
    }

    /// The names in the order of their numbers, which are those of `labels` from now on.
    fn finish(self, labels: &mut [u16]) -> Vec<String> {
        let mut pairs: Vec<(String, u16)> = self.numbers.into_iter().collect();
        if self.given {
            pairs.sort_by_key(|&(_, number)| number);
        } else {
            let mut sorted = vec![0_u16; pairs.len()];
            for (place, (_, number)) in (0..=u16::MAX).zip(&pairs) {
                if let Some(slot) = sorted.get_mut(usize::from(*number)) {
                    *slot = place;
                }
            }
            for label in labels {
                *label = sorted.get(usize::from(*label)).copied().unwrap_or(*label);
            }
        }
        pairs.into_iter().map(|(name, _)| name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<CsvTable, DataError> {
        read_csv(text.as_bytes(), "kind", None)
    }

    fn message(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    /// A header, `good` good rows and these lines.
    fn table(good: usize, last: &str) -> String {
        format!("x,kind,y\n{}{last}", "1,a,2\n".repeat(good))
    }

    #[test]
    fn a_table_is_read() {
        let table =
            read("\u{feff}x, kind ,y\r\n1, b ,-2.5\r\n\r\n\"3\",\"a\",4e-1\r\n5,b,6").unwrap();
        let values = vec![1.0, -2.5, 3.0, 0.4, 5.0, 6.0];
        assert_eq!(table.data, Dataset::new(2, 2, values, vec![1, 0, 1]).unwrap());
        assert_eq!(table.feature_names, ["x", "y"]);
        assert_eq!(table.label_names, ["a", "b"]);
        assert_eq!((table.rejected, table.rejected_total), (vec![], 0));
    }

    #[test]
    fn classes_are_sorted_as_text_or_given() {
        let text = "kind,x\n9,0\n10,0\nz,0\n9,0\n";
        let table = read(text).unwrap();
        assert_eq!(table.label_names, ["10", "9", "z"]);
        assert_eq!(table.data.labels(), [1, 0, 2, 1]);
        let given = words(&["z", "unseen", "9", "10"]);
        let table = read_csv(text.as_bytes(), "kind", Some(&given)).unwrap();
        assert_eq!(table.label_names, given);
        assert_eq!(table.data.labels(), [2, 3, 0, 2]);
        assert_eq!(table.data.classes(), 4);
    }

    #[test]
    fn bad_rows_are_rejected_and_counted() {
        let long = format!("{}1,a,2", "0".repeat(FIELD_BYTES_MAX));
        let bad =
            ["1,a", "1,a,2,3", "x,a,2", "NaN,a,2", "1,a,inf", "1,a,1e39", ",a,2", "1,,2", &long];
        for row in bad {
            let table = read(&table(199, &format!("{row}\n1,a,2\n"))).unwrap();
            assert_eq!((table.data.len(), table.rejected), (200, vec![201]), "{row}");
            assert_eq!(table.rejected_total, 1);
            assert_eq!(table.data.values().len(), 400);
        }
        let given = words(&["a"]);
        let text = table(99, "1,c,2\n");
        let found = read_csv(text.as_bytes(), "kind", Some(&given)).unwrap();
        assert_eq!((found.data.len(), found.rejected), (99, vec![101]));
        let mut bytes = table(99, "1,").into_bytes();
        bytes.extend(b"\xff,2\n");
        assert_eq!(read_csv(bytes.as_slice(), "kind", None).unwrap().rejected, [101]);
        // A rejected row adds no class.
        assert_eq!(read(&table(99, "x,new,2\n")).unwrap().label_names, ["a"]);
    }

    #[test]
    fn lines_are_counted_with_blank_ones_quotes_and_returns() {
        let good = "1,a,2\n".repeat(398);
        let text = format!("x,kind,y\n{good}\n\nbad\n1,\"a\nb\",2\nx,\"a\n\nb\",2\n \n1,a,2,3");
        for text in [text.replace('\n', "\r\n"), text] {
            assert_eq!(read(&text).unwrap().rejected, [402, 405, 409]);
        }
    }

    #[test]
    fn more_than_one_bad_row_in_a_hundred_is_an_error() {
        assert_eq!(read(&table(198, "x\ny\n")).unwrap().rejected_total, 2);
        assert_eq!(
            message(&table(197, "x\ny\n")),
            "found 2 unusable rows of 199, expected at most 1 in 100; first bad lines: \
             [199, 200]; correct or remove them"
        );
        let found = read(&table(0, &"x\n".repeat(50))).unwrap_err();
        let DataError::TooManyBadRows { bad: 50, total: 50, first_lines } = found else {
            panic!("{found}");
        };
        assert_eq!(first_lines, (2..12).collect::<Vec<u64>>());
    }

    #[test]
    fn rejected_lines_kept_are_bounded() {
        let table = read(&table(20_000, &"x\n".repeat(150))).unwrap();
        assert_eq!((table.rejected.len(), table.rejected_total), (REJECTED_KEPT_MAX, 150));
        assert_eq!(table.rejected.last(), Some(&20_101));
    }

    #[test]
    fn headers_are_checked() {
        assert_eq!(
            message("x,y\n1,2\n"),
            "column \"kind\": found none of that name, expected one of [\"x\", \"y\"]"
        );
        let DataError::MissingColumn { available, .. } = read(&"x,".repeat(99)).unwrap_err() else {
            panic!("expected a missing column");
        };
        assert_eq!(available.len(), LISTED_MAX);
        assert_eq!(
            message("kind,x,kind\na,1,b\n"),
            "columns: found \"kind\" twice, expected names that differ; rename one"
        );
        assert_eq!(message(""), "columns: found none, expected at least one");
        assert_eq!(message("kind\na\n"), "features: found none, expected at least one");
        assert_eq!(message("kind,x\n"), "rows: found none, expected at least one");
        let utf8 = read_csv(b"kind,\xff\n".as_slice(), "kind", None);
        assert!(matches!(utf8, Err(DataError::Io { what: "table", .. })));
        let name = "n".repeat(FIELD_BYTES_MAX + 1);
        assert_eq!(
            message(&format!("kind,{name}\n")),
            "bytes of a column name: found 257, expected at most 256; use less"
        );
        assert_eq!(
            message(&format!("kind{}\n", ",x".repeat(FEATURES_MAX + 1))),
            "columns: found 65538, expected at most 65537; use less"
        );
    }

    #[test]
    fn vocabularies_are_checked() {
        let of = |given: &[String]| {
            read_csv(b"kind,x\na,1\n".as_slice(), "kind", Some(given)).unwrap_err().to_string()
        };
        assert_eq!(of(&[]), "classes: found none, expected at least one");
        assert_eq!(
            of(&words(&["a", "b", "a"])),
            "vocabulary: found \"a\" twice, expected names that differ; rename one"
        );
        let many: Vec<String> = (0..=CLASSES_MAX).map(|class| class.to_string()).collect();
        assert_eq!(of(&many), "classes: found 65537, expected at most 65536; use less");
        let rows: String = many.iter().map(|class| format!("{class},1\n")).collect();
        assert_eq!(
            message(&format!("kind,x\n{rows}")),
            "classes: found 65537, expected at most 65536; use less"
        );
    }

    #[test]
    fn an_open_quote_ends_at_the_bound() {
        let text = format!("kind,x\na,1\n\"{}", "a\n".repeat(RECORD_BYTES_MAX));
        assert_eq!(
            message(&text),
            "bytes of a record: found 16777217, expected at most 16777216; use less"
        );
        let header = format!("\"{}", "a\n".repeat(RECORD_BYTES_MAX));
        assert!(matches!(read(&header), Err(DataError::TooLarge { .. })));
        // The bound is one on each record, not on the table.
        let row = format!("{},a,2\n", "1".repeat(30));
        let text = format!("x,kind,y\n{}", row.repeat(RECORD_BYTES_MAX / row.len() + 9));
        assert_eq!(read(&text).unwrap().data.len(), RECORD_BYTES_MAX / row.len() + 9);
    }

    #[test]
    fn failing_readers_are_errors() {
        struct Unplugged;
        impl Read for Unplugged {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("unplugged"))
            }
        }
        let found = read_csv(b"kind,x\na,1\n".as_slice().chain(Unplugged), "kind", None);
        assert_eq!(
            found.unwrap_err().to_string(),
            "reading table: unplugged; check that the file is complete and readable"
        );
    }
}
