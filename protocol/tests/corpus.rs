//! Stored inputs, replayed through the function that fuzzers call: seeds for them to start from,
//! and whatever they once found. A finding is stored here as a file of any name;
//! `STARLING_BLESS=1` writes the seeds.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod common;

use std::collections::BTreeMap;
use std::fs;

use common::forge::{Forge, PAYLOAD_AT, SIGNATURE_AT};
use common::frames::{longer_chain, message, sealed, slab, ticket};
use common::fuzz::fuzz_frame;
use common::{blessing, stored};
use starling_protocol::admission::encode_chain;
use starling_protocol::codec;
use starling_protocol::envelope::Frame;
use starling_protocol::fault::Rejection;
use starling_protocol::message::{ExchangeOutcome, ExchangeReply, ExchangeRequest, Kind, Message};

type Seed = (&'static str, Vec<u8>, Result<(), Rejection>);

/// Name, bytes, and what becomes of them as a frame.
fn seeds() -> Vec<Seed> {
    let mut unsigned = sealed(Kind::Beat);
    unsigned[SIGNATURE_AT..PAYLOAD_AT].fill(0);
    let mut cut = sealed(Kind::Welcome);
    cut.truncate(PAYLOAD_AT + 100);
    let chain = encode_chain(&longer_chain()).expect("short");
    let text = ticket().to_text().expect("short").into_bytes();
    vec![
        ("hello", sealed(Kind::Hello), Ok(())),
        ("join", sealed(Kind::Join), Ok(())),
        ("welcome", sealed(Kind::Welcome), Ok(())),
        ("exchange-request", sealed(Kind::ExchangeRequest), Ok(())),
        ("exchange-reply", sealed(Kind::ExchangeReply), Ok(())),
        ("bye", sealed(Kind::Bye), Ok(())),
        ("nothing", Vec::new(), Err(Rejection::Truncated)),
        ("cut-welcome", cut, Err(Rejection::Truncated)),
        ("unsigned-beat", unsigned, Err(Rejection::BadSignature)),
        ("length-of-everything", length_of_everything(), Err(Rejection::TooLong)),
        ("list-of-2-to-60", list_of_2_to_60(), Err(Rejection::Malformed)),
        ("sixty-four-empty-hints", empty_hints(), Err(Rejection::Malformed)),
        ("age-that-is-no-number", no_number(), Err(Rejection::OutOfRange)),
        ("trailing-byte", trailing_byte(), Err(Rejection::Malformed)),
        ("bye-called-hello", bye_called_hello(), Err(Rejection::Malformed)),
        ("busy-with-a-model", busy_with_a_model(), Err(Rejection::Malformed)),
        // No frames; the other parsers read them.
        ("chain", chain, Err(Rejection::BadMagic)),
        ("ticket", text, Err(Rejection::BadMagic)),
    ]
}

fn length_of_everything() -> Vec<u8> {
    Forge { payload_len: u32::MAX, ..Forge::of(Kind::SnapshotReply) }.signed()
}

fn list_of_2_to_60() -> Vec<u8> {
    let mut control = codec::encode(&message(Kind::Hello)).expect("short");
    control[37..45].copy_from_slice(&(1_u64 << 60).to_le_bytes());
    Forge::control(Kind::Hello, &control).signed()
}

/// A list as long as it says, of empty items.
fn empty_hints() -> Vec<u8> {
    const HINTS: u8 = 64;
    let mut control = codec::encode(&message(Kind::Beat)).expect("short");
    control[29..37].copy_from_slice(&u64::from(HINTS).to_le_bytes());
    control.truncate(37);
    control.resize(37 + usize::from(HINTS) * 40, 0);
    Forge::control(Kind::Beat, &control).signed()
}

fn no_number() -> Vec<u8> {
    let request = ExchangeRequest { exchange: 1, age: f64::NAN, codec: 0, base: None };
    Forge::message(Message::ExchangeRequest(request)).signed()
}

fn trailing_byte() -> Vec<u8> {
    let mut control = codec::encode(&message(Kind::CrossScore)).expect("short");
    control.push(0);
    Forge::control(Kind::CrossScore, &control).signed()
}

fn bye_called_hello() -> Vec<u8> {
    Forge::control(Kind::Hello, &codec::encode(&Message::Bye).expect("short")).signed()
}

/// A model that nobody could use, behind a reply that has none.
fn busy_with_a_model() -> Vec<u8> {
    let reply = ExchangeReply { exchange: 1, outcome: ExchangeOutcome::Busy };
    Forge::honest(&Frame { message: Message::ExchangeReply(reply), slab: slab() }).signed()
}

#[test]
fn every_stored_input_gets_its_answer() {
    let seeds = seeds();
    if blessing() {
        for (name, bytes, _) in &seeds {
            fs::write(stored("corpus").join(name), bytes).expect("the source tree is writable");
        }
    }
    let entries = fs::read_dir(stored("corpus")).expect("the corpus is there");
    let mut files: BTreeMap<String, Vec<u8>> = entries
        .map(|entry| {
            let entry = entry.expect("a readable folder");
            let name = entry.file_name().into_string().expect("a plain name");
            (name, fs::read(entry.path()).expect("a readable file"))
        })
        .collect();
    for (name, bytes, expected) in seeds {
        let stored = files.remove(name).expect("every seed is stored");
        assert!(stored == bytes, "{name} is not written as it was");
        assert_eq!(fuzz_frame(&stored), expected, "{name}");
    }
    for (_, bytes) in files {
        let _ = fuzz_frame(&bytes);
    }
}
