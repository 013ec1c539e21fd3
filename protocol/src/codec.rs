//! Bytes of control messages: the only file that names the encoding crate.
//!
//! Fixed-width little-endian integers, lengths as u64, enum tags as u32. The crate itself accepts
//! trailing bytes, so that is checked here; an explicit limit keeps the hostile length of a text
//! from allocating, and [`list`] that of a list. No wire type may hold a sequence of zero-sized
//! elements: such a length costs time and no bytes. The golden files of `tests/` define the format,
//! not the crate.

use core::fmt;
use core::marker::PhantomData;

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use serde::de::{DeserializeOwned, Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::CONTROL_BYTES_MAX;

const CONFIG: Configuration<LittleEndian, Fixint, Limit<CONTROL_BYTES_MAX>> =
    bincode::config::legacy().with_limit::<CONTROL_BYTES_MAX>();

/// Bytes that are no canonical encoding of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The bytes end early, name an unknown variant, or hold invalid text.
    #[error("undecodable: truncated, or of another version")]
    Malformed,
    /// The value is complete but bytes follow it.
    #[error("bytes follow the end of the message")]
    Trailing,
    /// More bytes than a control part may have.
    #[error("longer than {CONTROL_BYTES_MAX} bytes")]
    TooLong,
}

/// Encodes `value`.
///
/// # Errors
/// [`CodecError::TooLong`] if it does not fit a control part.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = bincode::serde::encode_to_vec(value, CONFIG).map_err(|_| CodecError::Malformed)?;
    if bytes.len() > CONTROL_BYTES_MAX { Err(CodecError::TooLong) } else { Ok(bytes) }
}

/// Decodes a value that must use up `bytes` exactly.
///
/// # Errors
/// Whatever keeps `bytes` from being the encoding of one `T`.
pub fn decode_exact<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > CONTROL_BYTES_MAX {
        return Err(CodecError::TooLong);
    }
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|_| CodecError::Malformed)?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::Trailing) }
}

/// Decodes a list of at most `MAX` items; every list on the wire is read by this. Left alone, serde
/// believes a length up to a mebibyte of items, and empty texts take three times their wire bytes.
///
/// # Errors
/// If the list is longer, or an item does not decode.
pub fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(AtMost::<T, MAX>(PhantomData))
}

struct AtMost<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for AtMost<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(item);
        }
        Ok(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_fixed_width_little_endian() {
        assert_eq!(encode(&(1_u16, 2_u64)), Ok(vec![1, 0, 2, 0, 0, 0, 0, 0, 0, 0]));
    }

    #[test]
    fn refuses_truncation_trailing_bytes_and_huge_lengths() {
        let bytes = encode(&vec![1_u32, 2, 3]).expect("fits");
        for end in 0..bytes.len() {
            assert_eq!(decode_exact::<Vec<u32>>(&bytes[..end]), Err(CodecError::Malformed));
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert_eq!(decode_exact::<Vec<u32>>(&longer), Err(CodecError::Trailing));
        let mut huge = bytes;
        huge[..8].copy_from_slice(&(1_u64 << 60).to_le_bytes());
        assert_eq!(decode_exact::<Vec<u32>>(&huge), Err(CodecError::Malformed));
        assert_eq!(
            decode_exact::<Vec<u8>>(&vec![0; CONTROL_BYTES_MAX + 1]),
            Err(CodecError::TooLong)
        );
    }
}
