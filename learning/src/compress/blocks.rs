//! Block quantisation on symmetric levels, and `int8`: 127 levels on either side of zero.
//!
//! Layout of int8: the 16-bit scales of all blocks, then a byte a value, offset so that the lowest
//! level is zero. A scale is the block's largest magnitude rounded up to half
//! precision, so that no value lies beyond the outermost level.

use half::f16;

use super::CompressError;

/// Values that share a scale.
const BLOCK: usize = 64;
/// Largest scale: half precision ends here, and models whose values differ by more are broken.
pub(super) const SCALE_MAX: f32 = 65_504.0;

/// Levels of int8 on either side of zero.
const LIMIT: i32 = 127;

pub(super) fn encoded_len(count: usize) -> usize {
    2 * count.div_ceil(BLOCK) + count
}

/// The scale of a block.
pub(super) fn scale_of(block: &[f32]) -> f16 {
    // Magnitudes of finite values are ordered as their bits are; whole numbers vectorise.
    let magnitude = |value: &f32| value.to_bits() & !(1 << 31);
    let top = block.iter().fold(0, |top, value| magnitude(value).max(top));
    let top = f32::from_bits(top).min(SCALE_MAX);
    let scale = f16::from_f32(top);
    if scale.to_f32() < top { f16::from_bits(scale.to_bits() + 1) } else { scale }
}

/// Writes the level of each value, plus `limit`, as a symbol, and rounds the value to it.
pub(super) fn quantise(block: &mut [f32], scale: f16, limit: i32, symbols: &mut [u8]) {
    let (scale, limit) = (scale.to_f32(), limit as f32);
    let inverse = if scale > 0.0 { limit / scale } else { 0.0 };
    let step = scale / limit;
    for (symbol, value) in symbols.iter_mut().zip(block) {
        // Adding and taking away 1.5 * 2^23 rounds to nearest even without a library call.
        let level = (*value * inverse + 12_582_912.0) - 12_582_912.0;
        let level = level.clamp(-limit, limit);
        *symbol = (level + limit) as u8;
        // A decoder counts levels in whole numbers, which know no negative zero.
        *value = (level + 0.0) * step;
    }
}

pub(super) fn encode(values: &mut [f32], bytes: &mut Vec<u8>) {
    let scales: Vec<f16> = values.chunks(BLOCK).map(scale_of).collect();
    bytes.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
    let mut symbols = [0_u8; BLOCK];
    for (block, scale) in values.chunks_mut(BLOCK).zip(scales) {
        quantise(block, scale, LIMIT, &mut symbols);
        bytes.extend_from_slice(symbols.get(..block.len()).unwrap_or_default());
    }
}

pub(super) fn decode(
    bytes: &[u8],
    count: usize,
    values: &mut Vec<f32>,
) -> Result<(), CompressError> {
    let (scales, symbols) = bytes.split_at(2 * count.div_ceil(BLOCK));
    for (scale, symbols) in scales.as_chunks::<2>().0.iter().zip(symbols.chunks(BLOCK)) {
        let scale = f16::from_le_bytes(*scale);
        if !scale.is_finite() || scale.is_sign_negative() {
            return Err(CompressError::BadValue);
        }
        let highest = symbols.iter().fold(0, |top, symbol| top.max(*symbol));
        if i32::from(highest) > 2 * LIMIT {
            return Err(CompressError::NotCanonical);
        }
        let step = scale.to_f32() / LIMIT as f32;
        values.extend(symbols.iter().map(|symbol| (i32::from(*symbol) - LIMIT) as f32 * step));
    }
    Ok(())
}
