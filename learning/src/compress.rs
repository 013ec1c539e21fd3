//! Codecs: parameter vectors to bytes and back.
//!
//! `fp32` and `bf16` are dense. The others cut the vector into blocks, scale each by its
//! magnitudes and round to nearest on symmetric levels; `int6` and `ref3` are entropy-coded
//! besides. `ref3` is for the small differences to a pair reference only: what is lost stays in the
//! sender's parameters and comes with the next. Without a reference so few levels diverge under
//! momentum.

mod blocks;
mod entropy;

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::params::first_non_finite;

/// How a vector is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Codec {
    /// Four bytes a value, exact.
    Fp32 = 0,
    /// Two bytes a value: the upper half of fp32, rounded to nearest even.
    Bf16 = 1,
    /// Eight bits a value and a 16-bit scale per block.
    Int8 = 2,
    /// Fifteen coarse levels, entropy-coded: about 1.8 bits a value, at most 4, and a 16-bit scale
    /// per block. Named after the three bits that it began with.
    Ref3 = 3,
    /// 63 levels, entropy-coded: about 5 bits a value, at most 6.125, and a 16-bit scale per block.
    Int6 = 4,
}

/// A set of codecs: bit n is codec n.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Codecs(u32);

impl Codecs {
    /// All that this build knows.
    pub const ALL: Self = Self((1 << Codec::ALL.len()) - 1);

    /// The set with these bits; unknown ones are kept, for a newer node may set them.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether `codec` is in it.
    #[must_use]
    pub fn contains(self, codec: Codec) -> bool {
        self.0 & 1 << codec as u32 != 0
    }
}

/// Bytes or values that the codec refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressError {
    /// A value to be encoded is no number or infinite.
    #[error("value {0} is not finite")]
    NotFinite(usize),
    /// The bytes are not as many as the vector needs.
    #[error("{found} bytes where the model needs {expected}, or at most so many in int6 and ref3")]
    Length {
        /// Bytes that arrived.
        found: usize,
        /// Bytes that the vector takes.
        expected: usize,
    },
    /// A decoded value or a scale is no number, infinite or negative.
    #[error("holds a value that is no finite number")]
    BadValue,
    /// Unused bits are set, or a symbol that no encoder writes.
    #[error("not in canonical form")]
    NotCanonical,
}

impl Codec {
    /// All codecs.
    pub const ALL: [Self; 5] = [Self::Fp32, Self::Bf16, Self::Int8, Self::Ref3, Self::Int6];

    /// The codec with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| *codec as u8 == byte)
    }

    /// Bytes of a vector of `count` values: at most in `int6` and `ref3`, exactly otherwise.
    #[must_use]
    pub fn encoded_len_max(self, count: usize) -> usize {
        match self {
            Self::Fp32 => 4 * count,
            Self::Bf16 => 2 * count,
            Self::Int8 => blocks::encoded_len(count),
            Self::Ref3 => entropy::REF3.encoded_len_max(count),
            Self::Int6 => entropy::INT6.encoded_len_max(count),
        }
    }

    /// Whether so many bytes can encode `count` values.
    #[must_use]
    pub fn may_be_len(self, bytes: usize, count: usize) -> bool {
        let most = self.encoded_len_max(count);
        if self.is_entropy_coded() { bytes <= most } else { bytes == most }
    }

    fn is_entropy_coded(self) -> bool {
        matches!(self, Self::Int6 | Self::Ref3)
    }

    /// Replaces `bytes` with the encoding of `values`, and `values` with what a decoder will find.
    ///
    /// # Errors
    /// [`CompressError::NotFinite`].
    pub fn encode(self, values: &mut [f32], bytes: &mut Vec<u8>) -> Result<(), CompressError> {
        if let Some(index) = first_non_finite(values) {
            return Err(CompressError::NotFinite(index));
        }
        bytes.clear();
        bytes.reserve(self.encoded_len_max(values.len()));
        match self {
            Self::Fp32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::Bf16 => {
                for value in values.iter_mut() {
                    // Rounding up may overflow to infinity, which no decoder takes.
                    let short = half::bf16::from_f32(*value);
                    let short = if short.is_finite() { short } else { truncated(*value) };
                    bytes.extend_from_slice(&short.to_le_bytes());
                    *value = short.to_f32();
                }
            }
            Self::Int8 => blocks::encode(values, bytes),
            Self::Ref3 => entropy::REF3.encode(values, bytes),
            Self::Int6 => entropy::INT6.encode(values, bytes),
        }
        Ok(())
    }

    /// Replaces `values` with the `count` values that `bytes` encode. The length is checked before
    /// anything is allocated.
    ///
    /// # Errors
    /// Whatever no encoder would have written.
    pub fn decode(
        self,
        bytes: &[u8],
        count: usize,
        values: &mut Vec<f32>,
    ) -> Result<(), CompressError> {
        if !self.may_be_len(bytes.len(), count) {
            let expected = self.encoded_len_max(count);
            return Err(CompressError::Length { found: bytes.len(), expected });
        }
        values.clear();
        values.reserve_exact(count);
        match self {
            Self::Fp32 => values
                .extend(bytes.as_chunks::<4>().0.iter().map(|chunk| f32::from_le_bytes(*chunk))),
            Self::Bf16 => values.extend(
                bytes.as_chunks::<2>().0.iter().map(|c| half::bf16::from_le_bytes(*c).to_f32()),
            ),
            Self::Int8 => return blocks::decode(bytes, count, values),
            Self::Ref3 => return entropy::REF3.decode(bytes, count, values),
            Self::Int6 => return entropy::INT6.decode(bytes, count, values),
        }
        if first_non_finite(values).is_some() { Err(CompressError::BadValue) } else { Ok(()) }
    }
}

/// The upper half of an fp32.
fn truncated(value: f32) -> half::bf16 {
    half::bf16::from_bits((value.to_bits() >> 16) as u16)
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Ref3 => "ref3",
            Self::Int6 => "int6",
        })
    }
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.to_string() == text)
            .ok_or_else(|| format!("`{text}` is no codec: expected fp32, bf16, int8, int6 or ref3"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn round_trip(codec: Codec, values: &[f32]) -> Vec<f32> {
        let (mut bytes, mut decoded, mut seen) = (Vec::new(), Vec::new(), values.to_vec());
        codec.encode(&mut seen, &mut bytes).expect("finite");
        assert!(codec.may_be_len(bytes.len(), values.len()));
        codec.decode(&bytes, values.len(), &mut decoded).expect("own bytes");
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&seen), bits(&decoded), "{codec}: both ends must hold the same bits");
        decoded
    }

    #[test]
    fn bytes_are_golden() {
        let values = [1.0, -2.0, 0.5, 0.0, 3.0, -3.0, 1.5, 2.9, -0.4];
        let golden = [
            (
                Codec::Fp32,
                "0000803f000000c00000003f0000000000004040000040c00000c03f9a993940cdccccbe",
            ),
            (Codec::Bf16, "803f00c0003f0000404040c0c03f3a40cdbe"),
            (Codec::Int8, "0042a92a947ffe00bffa6e"),
            (
                Codec::Ref3,
                "164c0000000000000000000000008e031d0755050000000000000000000000003d646600e3828a00",
            ),
            (
                Codec::Int6,
                "8a470000000000000000000000000000000000000000000000000000000000000000000000000000 \
                 c701000000000000c70100000000000000000000c7010000c7010000c7010000c7010000c7010000 \
                 00000000000000008f03000000000000000000000000000000000000000000000000000000000000 \
                 000000000000000036aa8a734612d20c",
            ),
        ];
        for (codec, expected) in golden {
            let mut bytes = Vec::new();
            codec.encode(&mut values.clone(), &mut bytes).expect("finite");
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected.replace(' ', ""), "{codec}");
        }
    }

    #[test]
    fn sizes_per_value() {
        assert_eq!(Codec::Int8.encoded_len_max(6400), 6600);
        assert_eq!(Codec::Ref3.encoded_len_max(6400), 3328);
        assert_eq!(Codec::Ref3.encoded_len_max(0), 0);
        assert!(Codec::Ref3.may_be_len(2000, 6400) && !Codec::Int8.may_be_len(6599, 6400));
    }

    #[test]
    fn refuses_what_no_encoder_writes() {
        let mut values = Vec::new();
        for codec in Codec::ALL {
            let mut bytes = Vec::new();
            assert_eq!(
                codec.encode(&mut [0.0, f32::NAN], &mut bytes),
                Err(CompressError::NotFinite(1))
            );
            codec.encode(&mut [1.0; 100], &mut bytes).expect("finite");
            for wrong in [&bytes[..bytes.len() - 1], &[bytes.as_slice(), &[0]].concat()] {
                let error = codec.decode(wrong, 100, &mut values);
                assert!(error.is_err(), "{codec}");
            }
        }
        for infinite in [f32::NAN, f32::INFINITY] {
            let bytes = infinite.to_le_bytes();
            assert_eq!(Codec::Fp32.decode(&bytes, 1, &mut values), Err(CompressError::BadValue));
            let bytes = half::bf16::from_f32(infinite).to_le_bytes();
            assert_eq!(Codec::Bf16.decode(&bytes, 1, &mut values), Err(CompressError::BadValue));
            let scale = half::f16::from_f32(infinite).to_le_bytes();
            let bytes = [scale[0], scale[1], 0];
            assert_eq!(Codec::Int8.decode(&bytes, 1, &mut values), Err(CompressError::BadValue));
        }
        let one = half::f16::from_f32(1.0).to_le_bytes();
        let minus = half::f16::from_f32(-1.0).to_le_bytes();
        let mut check = |codec: Codec, bytes: [u8; 3]| codec.decode(&bytes, 1, &mut values);
        assert_eq!(check(Codec::Int8, [minus[0], minus[1], 0]), Err(CompressError::BadValue));
        assert_eq!(check(Codec::Int8, [one[0], one[1], 0xff]), Err(CompressError::NotCanonical));
    }

    #[test]
    fn names_read_back() {
        for codec in Codec::ALL {
            assert_eq!(codec.to_string().parse(), Ok(codec));
            assert_eq!(Codec::from_byte(codec as u8), Some(codec));
            assert!(Codecs::ALL.contains(codec));
            assert!(!Codecs::from_bits(Codecs::ALL.bits() & !(1 << codec as u32)).contains(codec));
        }
        assert!("pickle".parse::<Codec>().is_err());
    }

    #[test]
    fn the_largest_values_stay_finite() {
        for codec in Codec::ALL {
            let decoded = round_trip(codec, &[f32::MAX, f32::MIN, 1.0]);
            assert_eq!(first_non_finite(&decoded), None, "{codec}");
        }
    }

    proptest! {
        #[test]
        fn error_is_within_half_a_level(
            values in proptest::collection::vec(-1e4_f32..1e4, 0..300),
            shrink in -30_i32..1,
        ) {
            let values: Vec<f32> = values.iter().map(|value| value * 2_f32.powi(shrink)).collect();
            // Level width of ref3: a seventh of the scale, which is at least 8.4 mean squares.
            for (codec, levels, size, rms) in [
                (Codec::Int8, 127.0, 64, 0.0),
                (Codec::Ref3, 7.0, 512, 8.4),
                (Codec::Int6, 31.0, 512, 3.875),
            ] {
                let decoded = round_trip(codec, &values);
                for (block, back) in values.chunks(size).zip(decoded.chunks(size)) {
                    let top = block.iter().fold(0.0_f32, |top, value| top.max(value.abs()));
                    let squares: f32 = block.iter().map(|value| value * value).sum();
                    let scale = top.max(rms * (squares / block.len() as f32).sqrt());
                    // Scales are rounded up to 11 bits; the smallest is 2^-24.
                    let scale = f64::from(scale) * 1.001 + 6e-8;
                    for (value, back) in block.iter().zip(back) {
                        let error = f64::from((value - back).abs());
                        prop_assert!(error <= scale / levels * 0.5001 + 1e-12, "{value} {back}");
                    }
                }
            }
            round_trip(Codec::Bf16, &values);
            prop_assert_eq!(round_trip(Codec::Fp32, &values), values);
        }

        #[test]
        fn damaged_encodings_decode_to_finite_values_or_not_at_all(
            values in proptest::collection::vec(-10_f32..10.0, 1..700),
            flips in proptest::collection::vec((any::<Index>(), any::<u8>()), 1..4),
            codec in proptest::sample::select(Codec::ALL.to_vec()),
        ) {
            let (mut bytes, mut back, count) = (Vec::new(), Vec::new(), values.len());
            codec.encode(&mut values.clone(), &mut bytes).expect("finite");
            for (place, byte) in flips {
                *place.get_mut(&mut bytes) = byte;
            }
            if codec.decode(&bytes, count, &mut back).is_ok() {
                prop_assert_eq!(back.len(), count);
                prop_assert_eq!(first_non_finite(&back), None);
            }
        }

        #[test]
        fn hostile_bytes_decode_to_finite_values_or_not_at_all(
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            count in 0_usize..70,
            codec in proptest::sample::select(Codec::ALL.to_vec()),
        ) {
            let mut values = Vec::new();
            if codec.decode(&bytes, count, &mut values).is_ok() {
                prop_assert_eq!(values.len(), count);
                prop_assert_eq!(first_non_finite(&values), None);
            }
        }
    }
}
