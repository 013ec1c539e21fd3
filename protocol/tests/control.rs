//! The border against what is wrong inside a control part, in frames that are signed and hashed as
//! they should be: lengths, trailing bytes, and every range.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod common;

use common::forge::Forge;
use common::frames::{MODEL_BYTES_MAX, address, chain, frame, hint, message, slab, standing};
use common::open;
use starling_protocol::admission::Certificate;
use starling_protocol::codec;
use starling_protocol::envelope::{Frame, Verified};
use starling_protocol::fault::Rejection;
use starling_protocol::id::NodeId;
use starling_protocol::limits::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, AGE_MAX, CHAIN_MAX, CONTROL_BYTES_MAX, HINTS_MAX,
    TICKET_CHARS_MAX,
};
use starling_protocol::message::{
    Beat, CrossScore, ExchangeOutcome, ExchangeReply, ExchangeRequest, Hello, Hint, Join, Kind,
    Message, SnapshotReply, Standing, Welcome,
};

/// What becomes of this message, sent by a member; by the other way in too.
fn answer(message: Message) -> Result<(), Rejection> {
    let kind = message.kind();
    let slab = if kind.slab_bytes_max(MODEL_BYTES_MAX) > 0 { slab() } else { Vec::new() };
    let frame = Frame { message, slab };
    let opened = open(&Forge::honest(&frame).signed()).map(|verified| verified.frame);
    let in_process = Verified::in_process(address(kind, 1), frame.clone());
    assert_eq!(opened.is_ok(), in_process.is_ok(), "the two ways in disagree");
    opened.map(|opened| assert_eq!(opened, frame))
}

fn hello(change: impl FnOnce(&mut Hello)) -> Message {
    let Message::Hello(mut hello) = message(Kind::Hello) else { unreachable!() };
    change(&mut hello);
    Message::Hello(hello)
}

fn at(address: &str) -> Hint {
    Hint { id: NodeId([0; 32]), addresses: vec![address.to_owned()] }
}

fn beat(hints: Vec<Hint>) -> Message {
    Message::Beat(Beat { standing: standing(), hints })
}

fn welcome(chain: Vec<Certificate>, hints: Vec<Hint>) -> Message {
    Message::Welcome(Welcome { chain, hints })
}

/// Every message that tells an age.
fn telling(age: f64) -> [Message; 5] {
    let standing = Standing { age, ..standing() };
    let outcome = ExchangeOutcome::Model { age, codec: 0 };
    [
        hello(|hello| hello.standing = standing),
        Message::Beat(Beat { standing, hints: Vec::new() }),
        Message::ExchangeRequest(ExchangeRequest { exchange: 1, age, codec: 0, base: None }),
        Message::ExchangeReply(ExchangeReply { exchange: 1, outcome }),
        Message::SnapshotReply(SnapshotReply { age: Some(age), codec: 0 }),
    ]
}

#[test]
fn ages_that_are_none() {
    let signalling = f64::from_bits(0x7ff0_0000_0000_0001);
    let negative_nan = -f64::NAN;
    for age in [
        f64::NAN,
        negative_nan,
        signalling,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -1.0,
        -f64::MIN_POSITIVE,
        -f64::from_bits(1),
        AGE_MAX.next_up(),
        1e38,
        f64::MAX,
    ] {
        for message in telling(age) {
            let kind = message.kind();
            let got = open(&Forge::message(message).signed()).map(drop);
            assert_eq!(got, Err(Rejection::OutOfRange), "{kind:?} of age {age}");
        }
    }
    for age in [0.0, -0.0, f64::from_bits(1), 0.5, AGE_MAX] {
        for message in telling(age) {
            assert_eq!(answer(message), Ok(()), "age {age}");
        }
    }
}

#[test]
fn lists_up_to_their_bound_and_no_further() {
    let addresses = |count| vec!["/ip4/192.0.2.1/tcp/1".to_owned(); count];
    let links = |count| vec![chain()[0]; count];
    let hints = |count| vec![hint(); count];
    let found_at = |count| vec![Hint { id: NodeId([0; 32]), addresses: addresses(count) }];
    let cases = [
        (hello(|hello| hello.chain = links(CHAIN_MAX)), true),
        (hello(|hello| hello.chain = links(CHAIN_MAX + 1)), false),
        (hello(|hello| hello.addresses = addresses(ADDRESSES_MAX)), true),
        (hello(|hello| hello.addresses = addresses(ADDRESSES_MAX + 1)), false),
        (beat(hints(HINTS_MAX)), true),
        (beat(hints(HINTS_MAX + 1)), false),
        (beat(found_at(ADDRESSES_MAX)), true),
        (beat(found_at(ADDRESSES_MAX + 1)), false),
        (welcome(links(CHAIN_MAX), hints(HINTS_MAX + 1)), true),
        (welcome(links(CHAIN_MAX), hints(HINTS_MAX + 2)), false),
        (welcome(links(CHAIN_MAX + 1), Vec::new()), false),
        (welcome(Vec::new(), found_at(ADDRESSES_MAX + 1)), false),
        (welcome(Vec::new(), Vec::new()), true),
    ];
    for (message, fits) in cases {
        let expected = if fits { Ok(()) } else { Err(Rejection::Malformed) };
        assert_eq!(answer(message.clone()), expected, "{message:?}");
    }
}

#[test]
fn texts_that_are_no_addresses() {
    let longest = "x".repeat(ADDRESS_BYTES_MAX);
    for good in ["", "/ip4/127.0.0.1/tcp/1", "!~", &longest] {
        assert_eq!(answer(beat(vec![at(good)])), Ok(()), "{good}");
    }
    let longer = "x".repeat(ADDRESS_BYTES_MAX + 1);
    for wrong in [
        "a b",
        "a\nb",
        "a\0",
        "\u{1b}[2J",
        "\u{7f}",
        "\u{e9}",
        "\u{202e}",
        "\"}\n{\"event\":\"x\"}",
        &longer,
    ] {
        let messages = [
            beat(vec![at("/ip4/127.0.0.1/tcp/1"), at(wrong)]),
            welcome(Vec::new(), vec![at(wrong)]),
            hello(|hello| hello.addresses = vec![wrong.to_owned()]),
        ];
        for message in messages {
            assert_eq!(answer(message), Err(Rejection::OutOfRange), "{wrong:?}");
        }
    }
}

#[test]
fn other_ranges() {
    let join = |length| Message::Join(Join { ticket: "x".repeat(length) });
    assert_eq!(answer(join(TICKET_CHARS_MAX)), Ok(()));
    assert_eq!(answer(join(TICKET_CHARS_MAX + 1)), Err(Rejection::OutOfRange));
    let score = |correct, total| Message::CrossScore(CrossScore { exchange: 1, correct, total });
    assert_eq!(answer(score(u32::MAX, u32::MAX)), Ok(()));
    assert_eq!(answer(score(0, 0)), Ok(()));
    assert_eq!(answer(score(1, 0)), Err(Rejection::OutOfRange));
    assert_eq!(answer(score(u32::MAX, u32::MAX - 1)), Err(Rejection::OutOfRange));
}

#[test]
fn bytes_behind_the_message() {
    for kind in Kind::ALL {
        let mut control = codec::encode(&message(kind)).expect("short");
        control.push(0);
        let got = open(&Forge::control(kind, &control).signed());
        assert_eq!(got, Err(Rejection::Malformed), "{kind:?}");
    }
}

#[test]
fn a_control_part_cut_at_every_byte() {
    for kind in Kind::ALL {
        let control = codec::encode(&message(kind)).expect("short");
        for end in 0..control.len() {
            let got = open(&Forge::control(kind, &control[..end]).signed());
            assert_eq!(got, Err(Rejection::Malformed), "{kind:?} cut at {end}");
        }
    }
}

#[test]
fn a_control_part_of_any_length() {
    for length in [0, 1, 3, 4, CONTROL_BYTES_MAX] {
        for filling in [0, 0xff, b'a'] {
            let got = open(&Forge::control(Kind::Hello, &vec![filling; length]).signed());
            assert_eq!(got, Err(Rejection::Malformed), "{length} times {filling}");
        }
    }
}

#[test]
fn lists_and_texts_that_claim_to_be_huge() {
    let places = [
        (Kind::Hello, &[37, 173, 181][..]),
        (Kind::Beat, &[29, 69, 77, 116]),
        (Kind::Welcome, &[4, 268, 308, 316, 355]),
        (Kind::Join, &[4]),
    ];
    for (kind, at) in places.iter().flat_map(|(kind, at)| at.iter().map(move |at| (*kind, *at))) {
        let honest = codec::encode(&message(kind)).expect("short");
        for length in [1 << 60, 1 << 34, u64::MAX, 1 << 63, CONTROL_BYTES_MAX as u64, 65] {
            let mut control = honest.clone();
            control[at..at + 8].copy_from_slice(&length.to_le_bytes());
            let got = open(&Forge::control(kind, &control).signed());
            assert_eq!(got, Err(Rejection::Malformed), "{kind:?} {length} at {at}");
        }
    }
}

#[test]
fn values_with_a_second_spelling() {
    // A truth value of 2, an option of 2, variants that do not exist, text that is no UTF-8.
    let cases = [
        (Kind::Hello, 28, 2),
        (Kind::Beat, 20, 0xff),
        (Kind::ExchangeRequest, 21, 2),
        (Kind::SnapshotReply, 4, 0xff),
        (Kind::ExchangeReply, 12, 5),
        (Kind::Denied, 4, 8),
        (Kind::Denied, 7, 1),
        (Kind::Bye, 0, 11),
        (Kind::Bye, 3, 1),
        (Kind::Hello, 189, 0xff),
        (Kind::Join, 12, 0xc0),
    ];
    for (kind, at, value) in cases {
        let mut control = codec::encode(&frame(kind).message).expect("short");
        assert_ne!(control[at], value);
        control[at] = value;
        let got = open(&Forge::control(kind, &control).signed());
        assert_eq!(got, Err(Rejection::Malformed), "{kind:?} byte {at}");
    }
}
