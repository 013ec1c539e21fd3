//! The bytes of a checkpoint: everything a node needs to go on after a crash.
//!
//! `magic "STCK" | version u16 | references u16 | network 32 | standing length u32 | parameters u32
//! | standing | ids of the references' peers, 32 each | x, anchor, velocity, served as fp32,
//! little-endian | references as bf16 | BLAKE3 of all before`. In version 2 references were fp32.

use half::bf16;
use starling_learning::params::first_non_finite;
use starling_protocol::id::{NetworkId, NodeId};
use starling_protocol::limits::{CONTROL_BYTES_MAX, VIEW_MAX};

const MAGIC: [u8; 4] = *b"STCK";
const VERSION: u16 = 3;
/// The oldest that is read.
const VERSION_MIN: u16 = 2;
const HEADER: usize = 48;
const HASH: usize = 32;
const VECTORS: usize = 4;
const ID: usize = 32;
/// Most references written to a checkpoint: of those we draw, and of as many that draw us.
pub const REFERENCES_SAVED_MAX: usize = 2 * VIEW_MAX;
/// Most that are read: part of the format, whatever a build writes.
const REFERENCES_READ_MAX: usize = 64;
/// Bytes of references in a checkpoint at most: beyond it a restart costs whole models instead of
/// every checkpoint a longer write.
pub const REFERENCE_BYTES_SAVED_MAX: usize = 16 * 1024 * 1024;

/// The vectors of a replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// Working parameters.
    pub x: Vec<f32>,
    /// Parameters after the last outer step.
    pub anchor: Vec<f32>,
    /// Outer velocity.
    pub velocity: Vec<f32>,
    /// Served parameters.
    pub served: Vec<f32>,
    /// Pair references: without them the next exchange with each partner would be a whole model.
    pub references: Vec<(NodeId, Vec<bf16>)>,
}

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The state machine's part, opaque here.
    pub standing: Vec<u8>,
    /// The replica's part.
    pub vectors: Vectors,
}

/// Why bytes are no checkpoint of this network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Cut short, or longer than its header says.
    #[error("truncated or over-long")]
    Length,
    /// Another file.
    #[error("not a starling checkpoint")]
    Magic,
    /// Written by another Starling.
    #[error(
        "of version {0}, this build reads {VERSION_MIN} to {VERSION}: use the one that wrote it"
    )]
    Version(u16),
    /// Of another network.
    #[error("of another network")]
    Network,
    /// Damaged on disk.
    #[error("damaged: the bytes differ from their hash")]
    Hash,
    /// Of another model, or with values that are no numbers.
    #[error("does not fit the network's model")]
    Model,
}

/// Writes a checkpoint.
#[must_use]
pub fn encode(
    network: NetworkId,
    standing: &[u8],
    vectors: [&[f32]; VECTORS],
    references: &[(NodeId, &[bf16])],
) -> Vec<u8> {
    let count = vectors[0].len();
    let fitting = (REFERENCE_BYTES_SAVED_MAX / (2 * count.max(1))).min(REFERENCES_SAVED_MAX);
    let references = references.get(..fitting).unwrap_or(references);
    let values = count * (4 * VECTORS + 2 * references.len());
    let length = HEADER + standing.len() + ID * references.len() + values + HASH;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&u16::try_from(references.len()).unwrap_or_default().to_le_bytes());
    bytes.extend_from_slice(&network.0);
    for length in [standing.len(), count] {
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    }
    bytes.extend_from_slice(standing);
    references.iter().for_each(|(peer, _)| bytes.extend_from_slice(&peer.0));
    for vector in vectors {
        bytes.extend(vector.iter().flat_map(|value| value.to_le_bytes()));
    }
    for (_, reference) in references {
        bytes.extend(reference.iter().flat_map(|value| value.to_le_bytes()));
    }
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// Reads a checkpoint of `network` whose model has `count` parameters.
///
/// # Errors
/// Why it cannot be used.
pub fn decode(
    bytes: &[u8],
    network: NetworkId,
    count: usize,
) -> Result<Checkpoint, CheckpointError> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>().ok_or(CheckpointError::Length)?;
    if header[..4] != MAGIC {
        return Err(CheckpointError::Magic);
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    if !(VERSION_MIN..=VERSION).contains(&version) {
        return Err(CheckpointError::Version(version));
    }
    let references = usize::from(u16::from_le_bytes([header[6], header[7]]));
    let length = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize
    };
    let (standing_len, found) = (length(40), length(44));
    let (body, hash) = bytes.split_last_chunk::<HASH>().ok_or(CheckpointError::Length)?;
    if *blake3::hash(body).as_bytes() != *hash {
        return Err(CheckpointError::Hash);
    }
    if header[8..40] != network.0 {
        return Err(CheckpointError::Network);
    }
    if found != count || standing_len > CONTROL_BYTES_MAX || references > REFERENCES_READ_MAX {
        return Err(CheckpointError::Model);
    }
    let ids_len = ID * references;
    let width = if version < 3 { 4 } else { 2 };
    let values_len = count * (4 * VECTORS + width * references);
    if rest.len() != standing_len + ids_len + values_len + HASH {
        return Err(CheckpointError::Length);
    }
    let (standing, rest) = rest.split_at(standing_len);
    let (ids, values) = rest.split_at(ids_len);
    let (vectors, references) = values.split_at(4 * VECTORS * count);
    let mut parts = vectors.chunks_exact((4 * count).max(1)).map(read_fp32);
    let mut part = || parts.next().ok_or(CheckpointError::Length)?;
    let (x, anchor, velocity, served) = (part()?, part()?, part()?, part()?);
    let references = references.chunks_exact((width * count).max(1)).map(|bytes| {
        if width == 2 {
            read_bf16(bytes)
        } else {
            Ok(read_fp32(bytes)?.into_iter().map(bf16::from_f32).collect())
        }
    });
    let ids = ids.as_chunks::<ID>().0.iter().map(|id| NodeId(*id));
    let references = ids.zip(references).map(|(id, values)| Ok((id, values?)));
    let references = references.collect::<Result<_, CheckpointError>>()?;
    let vectors = Vectors { x, anchor, velocity, served, references };
    Ok(Checkpoint { standing: standing.to_vec(), vectors })
}

fn read_fp32(bytes: &[u8]) -> Result<Vec<f32>, CheckpointError> {
    let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let values: Vec<f32> = values.collect();
    if first_non_finite(&values).is_some() { Err(CheckpointError::Model) } else { Ok(values) }
}

fn read_bf16(bytes: &[u8]) -> Result<Vec<bf16>, CheckpointError> {
    let values = bytes.as_chunks::<2>().0.iter().map(|bytes| bf16::from_le_bytes(*bytes));
    let values: Vec<bf16> = values.collect();
    if values.iter().all(|value| value.is_finite()) {
        Ok(values)
    } else {
        Err(CheckpointError::Model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: NetworkId = NetworkId([4; 32]);

    fn bytes() -> Vec<u8> {
        let vectors: [&[f32]; VECTORS] = [&[1.0, 2.0], &[3.0, 4.0], &[5.0, 6.0], &[7.0, -8.0]];
        let reference = [0.5, -0.5].map(bf16::from_f32);
        encode(NETWORK, b"standing", vectors, &[(NodeId([9; 32]), &reference)])
    }

    #[test]
    fn bytes_are_golden() {
        let older = include_bytes!("../tests/golden/checkpoint-v2.bin");
        let golden = include_bytes!("../tests/golden/checkpoint-v3.bin");
        assert_eq!(bytes(), golden);
        for bytes in [&older[..], golden] {
            let checkpoint = decode(bytes, NETWORK, 2).expect("golden");
            assert_eq!(checkpoint.standing, b"standing");
            assert_eq!(checkpoint.vectors.served, [7.0, -8.0]);
            let reference = [0.5, -0.5].map(bf16::from_f32).to_vec();
            assert_eq!(checkpoint.vectors.references, [(NodeId([9; 32]), reference)]);
        }
    }

    #[test]
    fn every_cut_and_every_flipped_byte_is_noticed() {
        let good = bytes();
        for end in 0..good.len() {
            assert!(decode(&good[..end], NETWORK, 2).is_err(), "cut at {end}");
        }
        for place in 0..good.len() {
            let mut flipped = good.clone();
            flipped[place] ^= 0x20;
            assert!(decode(&flipped, NETWORK, 2).is_err(), "flipped {place}");
        }
        let longer = [good.as_slice(), &[0]].concat();
        assert!(decode(&longer, NETWORK, 2).is_err());
    }

    #[test]
    fn says_why_it_cannot_be_used() {
        let good = bytes();
        assert_eq!(decode(&good, NetworkId([5; 32]), 2), Err(CheckpointError::Network));
        assert_eq!(decode(&good, NETWORK, 3), Err(CheckpointError::Model));
        assert_eq!(decode(b"", NETWORK, 2), Err(CheckpointError::Length));
        assert_eq!(decode(&[0; 200], NETWORK, 2), Err(CheckpointError::Magic));
        let mut newer = good;
        newer[4] = 4;
        assert_eq!(decode(&newer, NETWORK, 2), Err(CheckpointError::Version(4)));
        let broken = encode(NETWORK, b"", [&[f32::NAN], &[0.0], &[0.0], &[0.0]], &[]);
        assert_eq!(decode(&broken, NETWORK, 1), Err(CheckpointError::Model));
    }

    #[test]
    fn only_so_many_references_are_kept() {
        let vector = vec![0.0; REFERENCE_BYTES_SAVED_MAX / 4];
        let reference = vec![bf16::ZERO; vector.len()];
        let all: Vec<_> = (0..4).map(|id| (NodeId([id; 32]), reference.as_slice())).collect();
        let bytes = encode(NETWORK, b"", [&vector; VECTORS], &all);
        let read = decode(&bytes, NETWORK, vector.len()).expect("in bounds");
        let kept: Vec<u8> = read.vectors.references.iter().map(|(peer, _)| peer.0[0]).collect();
        assert_eq!(kept, [0, 1]);
        let many: Vec<_> = (0..40).map(|id| (NodeId([id; 32]), &[bf16::ONE][..])).collect();
        let bytes = encode(NETWORK, b"", [&[0.0]; VECTORS], &many);
        let read = decode(&bytes, NETWORK, 1).expect("in bounds");
        assert_eq!(read.vectors.references.len(), REFERENCES_SAVED_MAX);
    }

    #[test]
    fn what_a_build_with_a_larger_view_wrote_is_read() {
        let with = |references: u16| {
            let mut bytes = encode(NETWORK, b"", [&[0.0]; VECTORS], &[]);
            bytes[6..8].copy_from_slice(&references.to_le_bytes());
            bytes.truncate(bytes.len() - HASH);
            let values = bytes.split_off(HEADER);
            bytes.extend(vec![7; ID * usize::from(references)]);
            bytes.extend(values);
            bytes.extend(vec![0; 2 * usize::from(references)]);
            let hash = blake3::hash(&bytes);
            bytes.extend_from_slice(hash.as_bytes());
            bytes
        };
        let read = decode(&with(24), NETWORK, 1).expect("in the format's bounds");
        assert_eq!(read.vectors.references.len(), 24);
        assert_eq!(decode(&with(65), NETWORK, 1), Err(CheckpointError::Model));
    }
}
