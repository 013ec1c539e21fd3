//! Block quantisation on symmetric levels: `2^(BITS-1) - 1` on either side of zero.
//!
//! Layout: the 16-bit scales of all blocks, then the symbols packed little-endian, each offset so
//! that the lowest level is zero. A scale is the block's largest magnitude rounded up to half
//! precision, so that no value lies beyond the outermost level.

use half::f16;

use super::CompressError;

/// Values that share a scale.
const BLOCK: usize = 64;
/// Largest scale: half precision ends here, and models whose values differ by more are broken.
const SCALE_MAX: f32 = 65_504.0;

const fn levels<const BITS: usize>() -> i32 {
    (1 << (BITS - 1)) - 1
}

pub(super) fn encoded_len<const BITS: usize>(count: usize) -> usize {
    2 * count.div_ceil(BLOCK) + (count * BITS).div_ceil(8)
}

fn scale_of(block: &[f32]) -> f16 {
    let top = block.iter().fold(0.0_f32, |top, value| top.max(value.abs())).min(SCALE_MAX);
    let scale = f16::from_f32(top);
    if scale.to_f32() < top { f16::from_bits(scale.to_bits() + 1) } else { scale }
}

pub(super) fn encode<const BITS: usize>(values: &[f32], bytes: &mut Vec<u8>) {
    let scales = values.chunks(BLOCK).map(scale_of);
    bytes.extend(scales.clone().flat_map(f16::to_le_bytes));
    let limit = levels::<BITS>() as f32;
    let mut symbols = [0_u8; BLOCK];
    for (block, scale) in values.chunks(BLOCK).zip(scales) {
        let scale = scale.to_f32();
        let inverse = if scale > 0.0 { limit / scale } else { 0.0 };
        for (symbol, value) in symbols.iter_mut().zip(block) {
            // Adding and taking away 1.5 * 2^23 rounds to nearest even without a library call.
            let level = (value * inverse + 12_582_912.0) - 12_582_912.0;
            *symbol = (level.clamp(-limit, limit) + limit) as u8;
        }
        let symbols = symbols.get(..block.len()).unwrap_or_default();
        if BITS == 8 {
            bytes.extend_from_slice(symbols);
        } else {
            pack3(symbols, bytes);
        }
    }
}

/// Eight symbols make three bytes; a full block of 64 ends on a byte.
fn pack3(symbols: &[u8], bytes: &mut Vec<u8>) {
    for group in symbols.chunks(8) {
        let mut word = 0_u32;
        for (place, symbol) in group.iter().enumerate() {
            word |= u32::from(*symbol) << (3 * place);
        }
        let length = (3 * group.len()).div_ceil(8);
        bytes.extend_from_slice(word.to_le_bytes().get(..length).unwrap_or_default());
    }
}

pub(super) fn decode<const BITS: usize>(
    bytes: &[u8],
    count: usize,
    values: &mut Vec<f32>,
) -> Result<(), CompressError> {
    let (scales, mut packed) = bytes.split_at(2 * count.div_ceil(BLOCK));
    let limit = levels::<BITS>();
    let mut symbols = [0_u8; BLOCK];
    let mut left = count;
    for scale in scales.as_chunks::<2>().0 {
        let scale = f16::from_le_bytes(*scale);
        if !scale.is_finite() || scale.is_sign_negative() {
            return Err(CompressError::BadValue);
        }
        let length = left.min(BLOCK);
        left -= length;
        let (own, rest) = packed.split_at((length * BITS).div_ceil(8));
        packed = rest;
        let symbols = symbols.get_mut(..length).unwrap_or_default();
        if BITS == 8 {
            symbols.copy_from_slice(own);
        } else {
            unpack3(own, symbols)?;
        }
        let highest = symbols.iter().fold(0, |top, symbol| top.max(*symbol));
        if i32::from(highest) > 2 * limit {
            return Err(CompressError::NotCanonical);
        }
        let step = scale.to_f32() / limit as f32;
        values.extend(symbols.iter().map(|symbol| (i32::from(*symbol) - limit) as f32 * step));
    }
    Ok(())
}

fn unpack3(packed: &[u8], symbols: &mut [u8]) -> Result<(), CompressError> {
    for (group, bytes) in symbols.chunks_mut(8).zip(packed.chunks(3)) {
        let mut word = [0; 4];
        for (place, byte) in word.iter_mut().zip(bytes) {
            *place = *byte;
        }
        let word = u32::from_le_bytes(word);
        if word >> (3 * group.len()) != 0 {
            return Err(CompressError::NotCanonical);
        }
        for (place, symbol) in group.iter_mut().enumerate() {
            *symbol = (word >> (3 * place)) as u8 & 7;
        }
    }
    Ok(())
}
