//! Levels, entropy-coded: those of a bell-shaped vector are far from uniform, so they are written
//! by an asymmetric numeral system (Duda, arXiv 1311.2540), one frequency table per vector.
//!
//! `ref3`, for the small differences to a pair reference: fifteen levels, each 1.2
//! root-mean-squares of its block wide, about 1.8 bits a value. Accuracy against bytes (16 nodes,
//! 14x14 Fashion-MNIST, tuning seeds): seven levels of a third of the largest value 85.1 % at
//! 2.09 MB; these 85.1 % at 1.81 MB; 1.35 wide 84.8 % at 1.68 MB. `int6`, for whole models: 63
//! levels an eighth wide, about 5 bits a value; a quarter wide saves 4 % of what 256 nodes send and
//! cost them 0.2 points.
//!
//! Layout: 16-bit scales of all blocks | 12-bit frequencies of all levels as u16, summing to 4096 |
//! two 32-bit states | 16-bit words in the order the decoder takes them. All little-endian. The
//! decoder must end with both states at their start value and no word left.

use half::f16;

use super::CompressError;
use super::blocks::{SCALE_MAX, quantise, scale_of};
use crate::params::dot;

/// Values that share a scale: larger than int8's block, since the coder pays for scales only.
const BLOCK: usize = 512;
const FREQUENCY_BITS: u32 = 12;
const TOTAL: u32 = 1 << FREQUENCY_BITS;
/// States stay within [2^16, 2^32).
const LOWEST: u32 = 1 << 16;

/// So many levels, as many below zero as above.
pub(super) struct Levels<const SYMBOLS: usize> {
    /// Width of a level, root-mean-squares of the block.
    width: f32,
    /// Most bits that a value takes: those of equally frequent levels, and of rounded frequencies.
    bits_max: f64,
}

pub(super) const REF3: Levels<15> = Levels { width: 1.2, bits_max: 4.0 };
pub(super) const INT6: Levels<63> = Levels { width: 0.125, bits_max: 6.125 };

fn scales_len(count: usize) -> usize {
    2 * count.div_ceil(BLOCK)
}

impl<const SYMBOLS: usize> Levels<SYMBOLS> {
    const LIMIT: i32 = SYMBOLS as i32 / 2;
    const HEADER: usize = 2 * SYMBOLS + 8;

    /// The longest encoding.
    pub(super) fn encoded_len_max(&self, count: usize) -> usize {
        let symbols = (count as f64 * self.bits_max / 8.0).ceil() as usize;
        if count == 0 { 0 } else { scales_len(count) + Self::HEADER + symbols + 64 }
    }

    /// The scale of a block, at which its largest value is still within the outermost level.
    fn scale_of(&self, block: &[f32]) -> f16 {
        let rms = (dot(block, block) / block.len().max(1) as f64).sqrt() as f32;
        let wide = f16::from_f32((Self::LIMIT as f32 * self.width * rms).min(SCALE_MAX));
        let least = scale_of(block);
        if wide > least { wide } else { least }
    }

    pub(super) fn encode(&self, values: &mut [f32], bytes: &mut Vec<u8>) {
        if values.is_empty() {
            return;
        }
        let mut symbols = vec![0_u8; values.len()];
        for (block, symbols) in values.chunks_mut(BLOCK).zip(symbols.chunks_mut(BLOCK)) {
            let scale = self.scale_of(block);
            bytes.extend_from_slice(&scale.to_le_bytes());
            quantise(block, scale, Self::LIMIT, symbols);
        }
        let frequencies = frequencies::<SYMBOLS>(&symbols);
        let starts = starts(&frequencies);
        let mut states = [LOWEST; 2];
        let mut words = Vec::with_capacity(values.len() / 3);
        for (place, symbol) in symbols.iter().enumerate().rev() {
            let symbol = usize::from(*symbol).min(SYMBOLS - 1);
            let (frequency, start) = (frequencies[symbol], starts[symbol]);
            let state = &mut states[place & 1];
            if u64::from(*state) >= u64::from(frequency) << (32 - FREQUENCY_BITS) {
                words.push(*state as u16);
                *state >>= 16;
            }
            *state = ((*state / frequency) << FREQUENCY_BITS) + *state % frequency + start;
        }
        for frequency in frequencies {
            bytes.extend_from_slice(&(frequency as u16).to_le_bytes());
        }
        for state in states {
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.extend(words.iter().rev().flat_map(|word| word.to_le_bytes()));
    }

    pub(super) fn decode(
        &self,
        bytes: &[u8],
        count: usize,
        values: &mut Vec<f32>,
    ) -> Result<(), CompressError> {
        let short =
            || CompressError::Length { found: bytes.len(), expected: self.encoded_len_max(count) };
        if count == 0 {
            return if bytes.is_empty() { Ok(()) } else { Err(short()) };
        }
        let (scales, rest) = bytes.split_at_checked(scales_len(count)).ok_or_else(short)?;
        let (table, rest) = rest.split_at_checked(2 * SYMBOLS).ok_or_else(short)?;
        let (first, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (second, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let (words, odd) = rest.as_chunks::<2>();
        let frequencies = read_frequencies::<SYMBOLS>(table)?;
        let slots = slots(&frequencies);
        let mut states = [u32::from_le_bytes(*first), u32::from_le_bytes(*second)];
        if !odd.is_empty() || states.iter().any(|state| *state < LOWEST) {
            return Err(CompressError::NotCanonical);
        }
        let mut words = words.iter();
        let mut place = 0_usize;
        for (index, scale) in scales.as_chunks::<2>().0.iter().enumerate() {
            let scale = f16::from_le_bytes(*scale);
            if !scale.is_finite() || scale.is_sign_negative() {
                return Err(CompressError::BadValue);
            }
            let step = scale.to_f32() / Self::LIMIT as f32;
            for _ in index * BLOCK..((index + 1) * BLOCK).min(count) {
                let state = &mut states[place & 1];
                place += 1;
                let slot = slots[(*state & (TOTAL - 1)) as usize];
                *state = slot.frequency() * (*state >> FREQUENCY_BITS) + slot.offset();
                if *state < LOWEST {
                    let word = words.next().ok_or(CompressError::NotCanonical)?;
                    *state = *state << 16 | u32::from(u16::from_le_bytes(*word));
                }
                values.push((slot.symbol() - Self::LIMIT) as f32 * step);
            }
        }
        if states != [LOWEST; 2] || words.next().is_some() {
            return Err(CompressError::NotCanonical);
        }
        Ok(())
    }
}

/// What a decoder reads off the low bits of its state, in one word so that the table stays in the
/// first-level cache: frequency of the symbol | place among its slots | symbol.
#[derive(Clone, Copy)]
struct Slot(u32);

impl Slot {
    const OFFSET: u32 = FREQUENCY_BITS + 1;
    const SYMBOL: u32 = Self::OFFSET + FREQUENCY_BITS;

    fn frequency(self) -> u32 {
        self.0 & ((1 << Self::OFFSET) - 1)
    }

    fn offset(self) -> u32 {
        self.0 >> Self::OFFSET & (TOTAL - 1)
    }

    fn symbol(self) -> i32 {
        (self.0 >> Self::SYMBOL).cast_signed()
    }
}

/// One slot for each value of the low bits; the frequencies sum to their number.
fn slots<const SYMBOLS: usize>(frequencies: &[u32; SYMBOLS]) -> [Slot; TOTAL as usize] {
    let mut slots = [Slot(0); TOTAL as usize];
    let mut rest = slots.iter_mut();
    for (symbol, frequency) in frequencies.iter().enumerate() {
        let first = frequency | (symbol as u32) << Slot::SYMBOL;
        for (slot, offset) in rest.by_ref().take(*frequency as usize).zip(0..) {
            *slot = Slot(first | offset << Slot::OFFSET);
        }
    }
    slots
}

/// Counts scaled to sum to [`TOTAL`]; what occurs keeps at least one.
fn frequencies<const SYMBOLS: usize>(symbols: &[u8]) -> [u32; SYMBOLS] {
    let mut counts = [0_u64; SYMBOLS];
    for symbol in symbols {
        if let Some(count) = counts.get_mut(usize::from(*symbol)) {
            *count += 1;
        }
    }
    let all = symbols.len().max(1) as u64;
    let mut scaled = counts.map(|count| {
        let share = count * u64::from(TOTAL) / all;
        if count == 0 { 0 } else { u32::try_from(share).unwrap_or(TOTAL).max(1) }
    });
    // The most frequent symbol takes the difference: it hurts there least.
    let sum: u32 = scaled.iter().sum();
    if let Some(top) = scaled.iter_mut().max() {
        *top = (*top + TOTAL).saturating_sub(sum);
    }
    scaled
}

fn starts<const SYMBOLS: usize>(frequencies: &[u32; SYMBOLS]) -> [u32; SYMBOLS] {
    let mut start = 0;
    frequencies.map(|frequency| {
        let own = start;
        start += frequency;
        own
    })
}

/// Frequencies as they came, if they make a table.
fn read_frequencies<const SYMBOLS: usize>(bytes: &[u8]) -> Result<[u32; SYMBOLS], CompressError> {
    let mut frequencies = [0; SYMBOLS];
    for (place, pair) in frequencies.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *place = u32::from(u16::from_le_bytes(*pair));
    }
    if frequencies.iter().sum::<u32>() == TOTAL {
        Ok(frequencies)
    } else {
        Err(CompressError::NotCanonical)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn round_trip(values: &[f32]) -> (usize, Vec<f32>) {
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        REF3.encode(&mut values.to_vec(), &mut bytes);
        assert!(bytes.len() <= REF3.encoded_len_max(values.len()));
        REF3.decode(&bytes, values.len(), &mut back).expect("own bytes");
        (bytes.len(), back)
    }

    #[test]
    fn bell_shaped_values_take_the_bits_that_the_codecs_promise() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut draw = || (0..12).map(|_| rng.random::<f32>()).sum::<f32>() - 6.0;
        let values: Vec<f32> = (0..12_800).map(|_| draw()).collect();
        let (length, _) = round_trip(&values);
        let bits = length as f64 * 8.0 / values.len() as f64;
        assert!((1.8..1.95).contains(&bits), "{bits}");
        let mut bytes = Vec::new();
        INT6.encode(&mut values.clone(), &mut bytes);
        let bits = bytes.len() as f64 * 8.0 / values.len() as f64;
        assert!((5.0..5.2).contains(&bits), "{bits}");
    }

    #[test]
    fn extremes_survive() {
        for values in [vec![0.0; 300], vec![1.0; 513], vec![-2.0; 1], vec![]] {
            let (_, back) = round_trip(&values);
            assert!(values.iter().zip(&back).all(|(value, back)| (value - back).abs() < 0.5));
            assert_eq!(values.len(), back.len());
        }
        // All levels equally often, as far as their width allows: the longest there is.
        let uniform: Vec<f32> = (0..7500).map(|index| (index % 15) as f32 - 7.0).collect();
        let (length, _) = round_trip(&uniform);
        assert!(length <= REF3.encoded_len_max(7500));
        for count in [1, 63, 64, 6300, 7000] {
            let uniform: Vec<f32> = (0..count).map(|index| (index % 63) as f32 - 31.0).collect();
            let (mut bytes, mut back) = (Vec::new(), Vec::new());
            INT6.encode(&mut uniform.clone(), &mut bytes);
            assert!(bytes.len() <= INT6.encoded_len_max(count), "{count}: {}", bytes.len());
            INT6.decode(&bytes, count, &mut back).expect("own bytes");
        }
    }

    #[test]
    fn a_lone_large_value_is_not_cut_off() {
        let mut values = vec![0.001; 512];
        values[100] = 5.0;
        let (_, back) = round_trip(&values);
        assert!((back[100] - 5.0).abs() < 0.01, "{}", back[100]);
    }

    /// Every cut is refused, and of flipped bytes after the scales nine in ten.
    fn notices_cuts_and_flips<const SYMBOLS: usize>(levels: &Levels<SYMBOLS>) {
        let values: Vec<f32> = (0..300).map(|index| ((index * 37) % 11) as f32 - 5.0).collect();
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        levels.encode(&mut values.clone(), &mut bytes);
        for end in 0..bytes.len() {
            back.clear();
            assert!(levels.decode(&bytes[..end], 300, &mut back).is_err(), "cut at {end}");
        }
        let mut noticed = 0;
        for place in scales_len(300)..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[place] ^= 0x11;
            back.clear();
            noticed += usize::from(levels.decode(&flipped, 300, &mut back).is_err());
        }
        let all = bytes.len() - scales_len(300);
        assert!(noticed * 10 >= all * 9, "{noticed} of {all}");
    }

    #[test]
    fn every_cut_and_most_flips_are_noticed_and_none_panics() {
        notices_cuts_and_flips(&REF3);
        notices_cuts_and_flips(&INT6);
    }

    #[test]
    fn no_table_and_no_words_make_it_panic() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut decoded = 0;
        for _ in 0..20_000 {
            let mut bytes = Vec::new();
            INT6.encode(&mut [1.0, -1.0, 0.5, 0.0], &mut bytes);
            let table = 2..2 + 2 * 63;
            // Any table that sums up, the whole on one level included.
            let mut left = TOTAL as u16;
            for place in table.clone().step_by(2) {
                let share =
                    if rng.random_range(0..8) == 0 { rng.random_range(0..=left) } else { 0 };
                let share = if place == table.end - 2 { left } else { share };
                left -= share;
                bytes[place..place + 2].copy_from_slice(&share.to_le_bytes());
            }
            for byte in &mut bytes[table.end..] {
                *byte ^= rng.random::<u8>() & rng.random::<u8>();
            }
            let mut back = Vec::new();
            if INT6.decode(&bytes, 4, &mut back).is_ok() {
                decoded += 1;
                assert!(back.len() == 4 && back.iter().all(|value| value.is_finite()));
            }
        }
        // The end of both states is a check that hardly anything passes by chance.
        assert!(decoded < 20, "{decoded}");
    }
}
