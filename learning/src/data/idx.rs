//! Reading IDX files, the format of MNIST: images or vectors in one file, labels in another.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::{DataError, Dataset, ROWS_MAX, checked_size, too_large};

/// How a gzip stream begins.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
/// IDX type of unsigned bytes.
const TYPE_U8: u8 = 0x08;
/// IDX type of big-endian 32-bit floats.
const TYPE_F32: u8 = 0x0D;
/// Bytes decoded at a time, a multiple of four: what a hostile header can make a reader allocate.
const CHUNK_BYTES: u64 = 64 * 1024;

const IMAGES: &str = "images";
const LABELS: &str = "labels";

/// The data set of an IDX file of images (unsigned bytes or big-endian floats, two axes or more,
/// all but the first flattened to one row) and one of labels (unsigned bytes), either of them
/// gzipped or not. Values are multiplied by `scale`, finite and not zero.
///
/// Headers are checked against the bounds of [`super`] before anything is allocated, and memory
/// grows with the bytes that arrive.
///
/// # Errors
///
/// [`DataError::BadMagic`], [`DataError::BadType`], [`DataError::BadRank`],
/// [`DataError::Truncated`] and [`DataError::Trailing`] for a file that is no such IDX file,
/// [`DataError::LengthMismatch`] for files that do not belong together,
/// [`DataError::BadScale`], [`DataError::Io`], and whatever [`Dataset::new`] finds.
pub fn read_idx_pair(
    images: impl Read,
    labels: impl Read,
    scale: f32,
    classes: usize,
) -> Result<Dataset, DataError> {
    if !scale.is_finite() || scale == 0.0 {
        return Err(DataError::BadScale { found: scale });
    }
    let mut images = Source::open(IMAGES, images)?;
    let mut labels = Source::open(LABELS, labels)?;
    let (kind, shape) = images.header()?;
    let (rows, features) = image_shape(&shape)?;
    let width: u64 = match kind {
        TYPE_U8 => 1,
        TYPE_F32 => 4,
        found => {
            let expected = "0x08 (unsigned byte) or 0x0d (float)";
            return Err(DataError::BadType { what: IMAGES, found, expected });
        }
    };
    let count = checked_size(rows, features)?;
    labels.check_labels(rows)?;

    let mut values = Vec::new();
    images.read(count as u64 * width, |chunk| {
        if width == 1 {
            values.extend(chunk.iter().map(|&byte| f32::from(byte) * scale));
        } else {
            let (words, _) = chunk.as_chunks();
            values.extend(words.iter().map(|&word| f32::from_be_bytes(word) * scale));
        }
    })?;
    let mut found = Vec::new();
    labels.read(rows as u64, |chunk| found.extend(chunk.iter().map(|&byte| u16::from(byte))))?;
    Dataset::new(features, classes, values, found)
}

/// Rows and the product of the other axes.
fn image_shape(shape: &[usize]) -> Result<(usize, usize), DataError> {
    let (Some(&rows), rest @ [_, ..]) = (shape.first(), shape.get(1..).unwrap_or(&[])) else {
        let found = u8::try_from(shape.len()).unwrap_or(u8::MAX);
        return Err(DataError::BadRank { what: IMAGES, found, expected: "two or more" });
    };
    let features = rest.iter().try_fold(1_usize, |product, &axis| product.checked_mul(axis));
    let max = super::FEATURES_MAX;
    Ok((rows, features.ok_or_else(|| too_large("features", usize::MAX, max))?))
}

/// One file, decompressed as it is read.
struct Source<'a> {
    what: &'static str,
    inner: Box<dyn Read + 'a>,
}

impl<'a> Source<'a> {
    /// A reader of `input`, through a decompressor if it begins like a gzip stream.
    fn open(what: &'static str, input: impl Read + 'a) -> Result<Self, DataError> {
        let mut magic = Vec::with_capacity(GZIP_MAGIC.len());
        let mut input = BufReader::new(input);
        let io = |source| DataError::Io { what, source };
        (&mut input).take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic).map_err(io)?;
        let is_gzip = magic == GZIP_MAGIC;
        let whole = std::io::Cursor::new(magic).chain(input);
        let inner: Box<dyn Read + 'a> =
            if is_gzip { Box::new(BufReader::new(gunzip(whole))) } else { Box::new(whole) };
        Ok(Self { what, inner })
    }

    /// Exactly `N` bytes.
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], DataError> {
        let what = self.what;
        let mut bytes = Vec::with_capacity(N);
        let io = |source| DataError::Io { what, source };
        (&mut self.inner).take(N as u64).read_to_end(&mut bytes).map_err(io)?;
        let found = bytes.len() as u64;
        bytes.try_into().map_err(|_| DataError::Truncated { what, found, expected: N as u64 })
    }

    /// The type of the values and the lengths of the axes.
    fn header(&mut self) -> Result<(u8, Vec<usize>), DataError> {
        let found = self.bytes::<4>()?;
        let [0, 0, kind, rank] = found else {
            return Err(DataError::BadMagic { what: self.what, found });
        };
        let mut shape = Vec::with_capacity(usize::from(rank));
        for _ in 0..rank {
            shape.push(u32::from_be_bytes(self.bytes()?) as usize);
        }
        Ok((kind, shape))
    }

    /// Reads a header and fails unless it is that of `rows` labels.
    fn check_labels(&mut self, rows: usize) -> Result<(), DataError> {
        let what = self.what;
        let (kind, shape) = self.header()?;
        if kind != TYPE_U8 {
            return Err(DataError::BadType { what, found: kind, expected: "0x08 (unsigned byte)" });
        }
        let [count] = *shape.as_slice() else {
            let found = u8::try_from(shape.len()).unwrap_or(u8::MAX);
            return Err(DataError::BadRank { what, found, expected: "one" });
        };
        if count > ROWS_MAX {
            return Err(too_large("labels", count, ROWS_MAX));
        }
        if count != rows {
            return Err(DataError::LengthMismatch { what, found: count, expected: rows });
        }
        Ok(())
    }

    /// Hands over `expected` bytes in chunks, and fails if the file has fewer or more.
    fn read(mut self, expected: u64, mut each: impl FnMut(&[u8])) -> Result<(), DataError> {
        let what = self.what;
        let io = |source| DataError::Io { what, source };
        let mut left = expected;
        let mut chunk = Vec::new();
        while left > 0 {
            chunk.clear();
            let size = left.min(CHUNK_BYTES);
            (&mut self.inner).take(size).read_to_end(&mut chunk).map_err(io)?;
            left -= chunk.len() as u64;
            if (chunk.len() as u64) < size {
                return Err(DataError::Truncated { what, found: expected - left, expected });
            }
            each(&chunk);
        }
        // Reading on also makes the decompressor compare the checksum.
        match self.inner.take(1).read_to_end(&mut chunk).map_err(io)? {
            0 => Ok(()),
            _ => Err(DataError::Trailing { what, expected }),
        }
    }
}

/// Decompresses one gzip stream after another until the input ends.
fn gunzip(input: impl BufRead) -> impl Read {
    MultiGzDecoder::new(input)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// An IDX file of these axes and bytes.
    fn idx(kind: u8, shape: &[u32], bytes: &[u8]) -> Vec<u8> {
        let mut file = vec![0, 0, kind, u8::try_from(shape.len()).unwrap()];
        file.extend(shape.iter().flat_map(|axis| axis.to_be_bytes()));
        file.extend(bytes);
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn images() -> Vec<u8> {
        idx(TYPE_U8, &[3, 1, 2], &[0, 1, 2, 3, 4, 255])
    }

    fn labels() -> Vec<u8> {
        idx(TYPE_U8, &[3], &[0, 1, 2])
    }

    fn read(images: &[u8], labels: &[u8]) -> Result<Dataset, DataError> {
        read_idx_pair(images, labels, 0.5, 3)
    }

    fn message(images: &[u8], labels: &[u8]) -> String {
        read(images, labels).unwrap_err().to_string()
    }

    /// Hands out one byte at a time, then fails.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = buffer.len().min(1);
            match (&mut self.0).take(count as u64).read(buffer)? {
                0 => Err(std::io::Error::other("unplugged")),
                count => Ok(count),
            }
        }
    }

    #[test]
    fn bytes_are_scaled_and_flattened() {
        let expected =
            Dataset::new(2, 3, vec![0.0, 0.5, 1.0, 1.5, 2.0, 127.5], vec![0, 1, 2]).unwrap();
        assert_eq!(read(&images(), &labels()).unwrap(), expected);
        assert_eq!(read(&gzip(&images()), &labels()).unwrap(), expected);
        assert_eq!(read(&images(), &gzip(&labels())).unwrap(), expected);
        let flat = idx(TYPE_U8, &[3, 2], &[0, 1, 2, 3, 4, 255]);
        assert_eq!(read(&flat, &labels()).unwrap(), expected);
    }

    #[test]
    fn floats_are_big_endian_across_chunks() {
        let values: Vec<f32> = (0..40_000_u16).map(f32::from).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_be_bytes()).collect();
        let images = idx(TYPE_F32, &[2, 100, 200], &bytes);
        let data = read_idx_pair(images.as_slice(), &*idx(TYPE_U8, &[2], &[0, 1]), 1.0, 2).unwrap();
        assert_eq!((data.len(), data.features()), (2, 20_000));
        assert_eq!(data.values(), values);
    }

    #[test]
    fn gzip_streams_may_follow_each_other() {
        let (file, labels) = (images(), labels());
        let (head, tail) = file.split_at(9);
        let joined = [gzip(head), gzip(tail)].concat();
        assert_eq!(read(&joined, &labels).unwrap(), read(&file, &labels).unwrap());
    }

    #[test]
    fn files_that_are_not_idx_are_errors() {
        assert_eq!(
            message(b"PNG, not IDX", &labels()),
            "images: found the bytes [50, 4e, 47, 2c] at the start, expected two zero bytes, a \
             type and a rank; check that it is an IDX file"
        );
        assert_eq!(
            message(&idx(0x09, &[3, 2], &[0; 6]), &labels()),
            "images: found IDX type 0x09, expected 0x08 (unsigned byte) or 0x0d (float); convert \
             the file"
        );
        assert_eq!(
            message(&images(), &idx(TYPE_F32, &[3], &[0; 12])),
            "labels: found IDX type 0x0d, expected 0x08 (unsigned byte); convert the file"
        );
        assert_eq!(
            message(&labels(), &images()),
            "images: found 1 axes, expected two or more; check which file is which"
        );
        assert_eq!(
            message(&images(), &images()),
            "labels: found 3 axes, expected one; check which file is which"
        );
        assert!(matches!(
            read(&idx(TYPE_U8, &[], &[]), &labels()),
            Err(DataError::BadRank { found: 0, .. })
        ));
    }

    #[test]
    fn every_cut_and_every_addition_is_an_error() {
        for (file, expected) in [(images(), 6), (labels(), 3)] {
            let is_images = expected == 6;
            let with = |bytes: &[u8]| {
                if is_images { read(bytes, &labels()) } else { read(&images(), bytes) }
            };
            for end in 0..file.len() {
                let found = with(file.get(..end).unwrap());
                assert!(matches!(found, Err(DataError::Truncated { .. })), "{end}: {found:?}");
            }
            let longer = [file, vec![0]].concat();
            for bytes in [longer.clone(), gzip(&longer)] {
                let found = with(&bytes);
                assert!(
                    matches!(found, Err(DataError::Trailing { expected: e, .. }) if e == expected)
                );
            }
        }
        let images = images();
        assert_eq!(
            message(images.get(..20).unwrap(), &labels()),
            "images: found 4 bytes, expected 6; fetch the file again"
        );
        assert_eq!(
            message(&[images, vec![7]].concat(), &labels()),
            "images: found more than the 6 bytes expected; check that it is one IDX file"
        );
    }

    #[test]
    fn damaged_gzip_is_an_error() {
        let whole = gzip(&images());
        for end in 2..whole.len() {
            let found = read(whole.get(..end).unwrap(), &labels());
            assert!(matches!(found, Err(DataError::Io { what: "images", .. })), "{end}: {found:?}");
        }
        let mut flipped = whole.clone();
        *flipped.iter_mut().nth_back(5).unwrap() ^= 1;
        assert!(matches!(read(&flipped, &labels()), Err(DataError::Io { .. })));
        let garbage = [whole, b"garbage".to_vec()].concat();
        assert!(matches!(read(&garbage, &labels()), Err(DataError::Io { .. })));
    }

    #[test]
    fn failing_readers_are_errors() {
        let (images, labels) = (images(), labels());
        let found = read_idx_pair(Trickle(images.get(..18).unwrap()), &*labels, 1.0, 3);
        assert_eq!(
            found.unwrap_err().to_string(),
            "reading images: unplugged; check that the file is complete and readable"
        );
        let found = read_idx_pair(&*images, Trickle(&labels), 1.0, 3);
        assert!(matches!(found, Err(DataError::Io { what: "labels", .. })));
    }

    #[test]
    fn headers_are_bounded_before_anything_is_allocated() {
        let of = |shape: &[u32]| message(&idx(TYPE_U8, shape, &[]), &labels());
        assert_eq!(
            of(&[50_000_001, 1]),
            "rows: found 50000001, expected at most 50000000; use less"
        );
        assert_eq!(of(&[1, 256, 257]), "features: found 65792, expected at most 65536; use less");
        let most = u64::MAX;
        assert_eq!(
            of(&[1, u32::MAX, u32::MAX, u32::MAX]),
            format!("features: found {most}, expected at most 65536; use less")
        );
        assert_eq!(
            of(&[50_000_000, 65_536]),
            "bytes of values: found 13107200000000, expected at most 2147483648; use less"
        );
        assert_eq!(of(&[0, 4]), "rows: found none, expected at least one");
        assert_eq!(of(&[3, 0, 4]), "features: found none, expected at least one");
        let labels = idx(TYPE_U8, &[u32::MAX], &[]);
        assert_eq!(
            message(&images(), &labels),
            "labels: found 4294967295, expected at most 50000000; use less"
        );
        // Two gigabytes announced, none sent: fails without having asked for them.
        let huge = idx(TYPE_U8, &[8192, 65_536], &[]);
        assert_eq!(
            message(&huge, &idx(TYPE_U8, &[8192], &[])),
            "images: found 0 bytes, expected 536870912; fetch the file again"
        );
    }

    #[test]
    fn contents_are_checked() {
        assert_eq!(
            message(&images(), &idx(TYPE_U8, &[2], &[0, 1])),
            "labels: found 2, expected 3; check that the parts belong together"
        );
        let of = |bytes: &[u8]| read(&images(), &idx(TYPE_U8, &[3], bytes));
        assert!(matches!(of(&[0, 3, 1]), Err(DataError::LabelOutOfRange { row: 1, label: 3, .. })));
        let nan = [1.0, 1.0, 1.0, f32::NAN, 1.0, 1.0].map(f32::to_be_bytes).concat();
        let found = read(&idx(TYPE_F32, &[3, 2], &nan), &labels());
        assert!(matches!(found, Err(DataError::NotFinite { row: 1, column: 1 })));
        for scale in [0.0, f32::NAN, f32::INFINITY] {
            let found = read_idx_pair(&*images(), &*labels(), scale, 3).unwrap_err().to_string();
            let end = "expected a finite number other than zero";
            assert_eq!(found, format!("scale: found {scale}, {end}"));
        }
    }
}
