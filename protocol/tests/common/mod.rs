//! What all tests of the wire format share: fixed keys and frames, a header writer that knows the
//! format by itself, and the one function that is fuzzed.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub mod counting;
pub mod forge;
pub mod frames;
pub mod fuzz;

use std::path::PathBuf;

use starling_protocol::envelope::{Border, Verified, open_header};
use starling_protocol::fault::Rejection;
use starling_protocol::id::NodeId;
use starling_protocol::limits::PREFIX_BYTES;

/// What a reader does with one frame: the prefix first, and what follows only if that holds.
pub fn open_as(border: &Border, peer: NodeId, bytes: &[u8]) -> Result<Verified, Rejection> {
    let (prefix, payload) =
        bytes.split_first_chunk::<PREFIX_BYTES>().ok_or(Rejection::Truncated)?;
    open_header(border, peer, prefix)?.open(payload.to_vec())
}

/// [`open_as`] of the fixed recipient, on its link to the fixed sender.
pub fn open(bytes: &[u8]) -> Result<Verified, Rejection> {
    open_as(&frames::border(), frames::sender().id(), bytes)
}

/// What the prefix alone says: nothing behind it is there to be read.
pub fn open_prefix(bytes: &[u8]) -> Result<(), Rejection> {
    let prefix = bytes.first_chunk::<PREFIX_BYTES>().ok_or(Rejection::Truncated)?;
    open_header(&frames::border(), frames::sender().id(), prefix).map(drop)
}

/// Whether stored files are to be written anew: `STARLING_BLESS=1`.
pub fn blessing() -> bool {
    std::env::var_os("STARLING_BLESS").is_some_and(|value| value == "1")
}

/// A file or folder beside the tests.
pub fn stored(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", path].iter().collect()
}
