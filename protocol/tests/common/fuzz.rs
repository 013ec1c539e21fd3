//! The one function behind every fuzzer of this crate: a fuzz target calls it with what the fuzzer
//! made up, the corpus test with what is stored, property tests with mutations.

use starling_protocol::admission::{decode_chain, encode_chain};
use starling_protocol::codec;
use starling_protocol::envelope::{Verified, seal};
use starling_protocol::fault::Rejection;
use starling_protocol::message::Message;
use starling_protocol::ticket::Ticket;

use super::forge::signed_again;
use super::{frames, open};

/// Feeds `data` to every parser that a peer's bytes reach, as it is and as a frame signed anew (no
/// fuzzer finds a signature). Panics if one of them does, or accepts what is not exactly the bytes
/// that an honest node would have written for the same meaning. Returns what became of `data` as a
/// frame.
pub fn fuzz_frame(data: &[u8]) -> Result<(), Rejection> {
    if let Ok(message) = codec::decode_exact::<Message>(data) {
        // A length, an age or a text may still be out of range here: any answer will do.
        let _ = message.check();
        assert_eq!(codec::encode(&message).as_deref(), Ok(data), "two encodings of {message:?}");
    }
    if let Ok(chain) = decode_chain(data) {
        assert_eq!(encode_chain(&chain).as_deref(), Ok(data), "two encodings of a chain");
    }
    if let Ok(text) = core::str::from_utf8(data)
        && let Ok(ticket) = Ticket::parse(text)
    {
        let printed = ticket.to_text().expect("it was read from one");
        assert!(printed.eq_ignore_ascii_case(text.trim()), "two texts of one ticket");
    }
    if let Some(again) = signed_again(data)
        && let Ok(verified) = open(&again)
    {
        assert_eq!(sealed(&verified), again, "two frames of one meaning");
        assert_eq!(verified.frame.message.check(), Ok(()));
    }
    let verified = open(data)?;
    assert_eq!(sealed(&verified), data, "a forged frame");
    Ok(())
}

fn sealed(verified: &Verified) -> Vec<u8> {
    seal(&frames::sender(), frames::NETWORK, &verified.address, &verified.frame)
        .expect("it came in a frame")
}
