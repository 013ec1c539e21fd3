//! The bytes of version 1 of the wire format, stored. Whoever changes one of them makes a new
//! version; `STARLING_BLESS=1` writes files that do not exist yet.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod common;

use std::fs;

use common::forge::Forge;
use common::frames::{
    NETWORK, address, chain, frame, longer_chain, root, sealed, sender, third, ticket,
};
use common::{blessing, open, stored};
use starling_protocol::admission::{check_chain, decode_chain, encode_chain};
use starling_protocol::codec;
use starling_protocol::envelope::Verified;
use starling_protocol::fault::Denial;
use starling_protocol::limits::PREFIX_BYTES;
use starling_protocol::message::{ExchangeOutcome, ExchangeReply, Kind, Message};
use starling_protocol::ticket::Ticket;

/// A frame of each kind: file, its bytes, its length, the length of its control part.
const FRAMES: [(Kind, &str, &[u8], usize, usize); 11] = [
    (Kind::Hello, "hello", include_bytes!("golden/v1/hello.bin"), 452, 212),
    (Kind::Denied, "denied", include_bytes!("golden/v1/denied.bin"), 248, 8),
    (Kind::Join, "join", include_bytes!("golden/v1/join.bin"), 973, 733),
    (Kind::Welcome, "welcome", include_bytes!("golden/v1/welcome.bin"), 653, 389),
    (Kind::Beat, "beat", include_bytes!("golden/v1/beat.bin"), 390, 150),
    (
        Kind::ExchangeRequest,
        "exchange_request",
        include_bytes!("golden/v1/exchange_request.bin"),
        294,
        30,
    ),
    (
        Kind::ExchangeReply,
        "exchange_reply",
        include_bytes!("golden/v1/exchange_reply.bin"),
        289,
        25,
    ),
    (Kind::CrossScore, "cross_score", include_bytes!("golden/v1/cross_score.bin"), 260, 20),
    (
        Kind::SnapshotRequest,
        "snapshot_request",
        include_bytes!("golden/v1/snapshot_request.bin"),
        244,
        4,
    ),
    (
        Kind::SnapshotReply,
        "snapshot_reply",
        include_bytes!("golden/v1/snapshot_reply.bin"),
        278,
        14,
    ),
    (Kind::Bye, "bye", include_bytes!("golden/v1/bye.bin"), 244, 4),
];
const CHAIN: &[u8] = include_bytes!("golden/v1/chain.bin");
const TICKET: &str = include_str!("golden/v1/ticket.txt");

#[test]
fn every_kind_has_its_file() {
    assert_eq!(FRAMES.map(|(kind, ..)| kind), Kind::ALL);
}

#[test]
fn frames_are_written_as_ever() {
    for (kind, file, bytes, length, control) in FRAMES {
        let written = sealed(kind);
        bless(&format!("golden/v1/{file}.bin"), &written);
        assert_eq!(written.len(), length, "{file}");
        let encoded = codec::encode(&frame(kind).message).expect("short");
        assert_eq!(encoded.len(), control, "{file}");
        assert_eq!(frame(kind).wire_bytes(), length, "{file}");
        assert!(blessing() || written == bytes, "{file} is not written as it was");
        assert_eq!(Forge::of(kind).signed(), written, "{file} against the described format");
    }
}

#[test]
fn stored_frames_are_read_as_ever() {
    for (kind, file, bytes, ..) in FRAMES {
        let verified = Verified { address: address(kind, kind as u64), frame: frame(kind) };
        assert!(blessing() || open(bytes) == Ok(verified), "{file} is not read as it was");
    }
}

#[test]
fn the_header_lies_where_the_format_says() {
    let (.., control) = FRAMES[5];
    let bytes = sealed(Kind::ExchangeRequest);
    let payload = &bytes[PREFIX_BYTES..];
    assert_eq!(&bytes[..8], b"STL1\x01\x00\x06\x00");
    assert_eq!(&bytes[8..40], b"a network of thirty-two letters!");
    assert_eq!(bytes[40..72], sender().id().0);
    assert_eq!(bytes[104..112], [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[112..120], [6, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[120..128], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(bytes[128..132], [54, 0, 0, 0]);
    assert_eq!(bytes[132..164], *blake3::hash(payload).as_bytes());
    assert_eq!(bytes[164..176], [30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(payload[control..], (0xa0..0xb8).collect::<Vec<u8>>());
    let text = "05000000 2a00000000000000 00000000004a9340 03 01 efbeadde0df0edfe";
    let expected = data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes());
    assert_eq!(payload[..control], expected.expect("hex"));
}

#[test]
fn a_chain_is_written_and_read_as_ever() {
    let written = encode_chain(&longer_chain()).expect("short");
    bless("golden/v1/chain.bin", &written);
    assert_eq!(written.len(), 8 + 2 * 128);
    assert!(blessing() || written == CHAIN, "the chain is not written as it was");
    let read = decode_chain(&written).expect("just written");
    assert_eq!(read, longer_chain());
    assert_eq!(check_chain(NETWORK, root().id(), &read, third().id()), Ok(()));
    assert_eq!(check_chain(NETWORK, root().id(), &chain(), sender().id()), Ok(()));
}

#[test]
fn a_ticket_is_written_and_read_as_ever() {
    let written = ticket().to_text().expect("short");
    bless("golden/v1/ticket.txt", written.as_bytes());
    assert_eq!(written.len(), 721);
    assert!(blessing() || written == TICKET, "the ticket is not written as it was");
    assert_eq!(Ticket::parse(&written), Ok(ticket()));
}

#[test]
fn variants_keep_their_numbers() {
    let denials = [
        Denial::NotMember,
        Denial::InvalidCertificate,
        Denial::InvalidTicket,
        Denial::TicketExpired,
        Denial::TicketSpent,
        Denial::Banned,
        Denial::Full,
        Denial::Version,
    ];
    for (number, denial) in (0..).zip(denials) {
        let bytes = codec::encode(&Message::Denied(denial));
        assert_eq!(bytes, Ok(vec![1, 0, 0, 0, number, 0, 0, 0]), "{denial}");
    }
    let outcomes = [
        ExchangeOutcome::Model { age: 0.0, codec: 9 },
        ExchangeOutcome::Busy,
        ExchangeOutcome::RateLimited,
        ExchangeOutcome::BaseMismatch { held: None },
        ExchangeOutcome::Refused,
    ];
    for (number, outcome) in (0..).zip(outcomes) {
        let reply = Message::ExchangeReply(ExchangeReply { exchange: 1, outcome });
        let mut expected = vec![6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, number, 0, 0, 0];
        match number {
            0 => expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 9]),
            3 => expected.push(0),
            _ => {}
        }
        assert_eq!(codec::encode(&reply), Ok(expected));
    }
    for kind in Kind::ALL {
        let bytes = codec::encode(&frame(kind).message).expect("short");
        assert_eq!(bytes[..4], [kind as u8 - 1, 0, 0, 0], "{kind:?}");
    }
}

/// Writes a stored file anew, where that was asked for.
fn bless(file: &str, bytes: &[u8]) {
    if blessing() {
        fs::write(stored(file), bytes).expect("the source tree is writable");
    }
}
