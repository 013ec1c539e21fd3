//! The border against one wrong thing at a time: every cut, every flipped byte, every header field
//! and every range, each with the exact answer.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod common;

use core::ops::Range;

use common::forge::{
    CONTROL_LEN_AT, EPOCH_AT, FLAGS_AT, Forge, HASH_AT, KIND_AT, NETWORK_AT, PAYLOAD_AT,
    PAYLOAD_LEN_AT, RECIPIENT_AT, RECIPIENT_EPOCH_AT, RESERVED_AT, SENDER_AT, SIGNATURE_AT,
    VERSION_AT, signed_again,
};
use common::frames::{
    EPOCH, MODEL_BYTES_MAX, SENDER_EPOCH, address, border, frame, sealed, sender, third,
};
use common::fuzz::fuzz_frame;
use common::{open, open_as, open_prefix};
use starling_protocol::envelope::{Address, Border, Verified};
use starling_protocol::fault::{Rejection, Severity};
use starling_protocol::id::{NetworkId, NodeId};
use starling_protocol::limits::{
    CONTROL_BYTES_MAX, MODEL_BYTES_MAX as ANY_MODEL_BYTES_MAX, SPEC_BYTES_MAX, WINDOW_BITS,
};
use starling_protocol::message::Kind;
use starling_protocol::version;
use starling_protocol::window::ReplayWindow;

/// The two frames that everything is tried on, with the length of the control part and the largest
/// slab.
const TRIED: [(Kind, usize, usize); 2] =
    [(Kind::ExchangeRequest, 30, MODEL_BYTES_MAX), (Kind::Hello, 212, 0)];

/// What a byte that has all its bits flipped, and nothing signed anew, is refused for. Only the two
/// lengths depend on the frame.
const REGIONS: [(Range<usize>, Rejection); 13] = [
    (0..VERSION_AT, Rejection::BadMagic),
    (VERSION_AT..KIND_AT, Rejection::Unsupported),
    (KIND_AT..FLAGS_AT, Rejection::Unsupported),
    (FLAGS_AT..NETWORK_AT, Rejection::Unsupported),
    (NETWORK_AT..SENDER_AT, Rejection::WrongNetwork),
    (SENDER_AT..RECIPIENT_AT, Rejection::WrongSender),
    (RECIPIENT_AT..EPOCH_AT, Rejection::WrongRecipient),
    (EPOCH_AT..RECIPIENT_EPOCH_AT, Rejection::BadSignature),
    (RECIPIENT_EPOCH_AT..PAYLOAD_LEN_AT, Rejection::StaleEpoch),
    (HASH_AT..CONTROL_LEN_AT, Rejection::BadSignature),
    (RESERVED_AT..SIGNATURE_AT, Rejection::Unsupported),
    (SIGNATURE_AT..PAYLOAD_AT, Rejection::BadSignature),
    (PAYLOAD_AT..usize::MAX, Rejection::BadHash),
];

/// The two lengths of the two frames, byte by byte, all bits of it flipped.
const LENGTHS: [(Kind, usize, Rejection); 16] = [
    // 54 becomes 201: still a slab that fits a model.
    (Kind::ExchangeRequest, PAYLOAD_LEN_AT, Rejection::BadSignature),
    (Kind::ExchangeRequest, PAYLOAD_LEN_AT + 1, Rejection::TooLong),
    (Kind::ExchangeRequest, PAYLOAD_LEN_AT + 2, Rejection::TooLong),
    (Kind::ExchangeRequest, PAYLOAD_LEN_AT + 3, Rejection::TooLong),
    (Kind::ExchangeRequest, CONTROL_LEN_AT, Rejection::Malformed),
    (Kind::ExchangeRequest, CONTROL_LEN_AT + 1, Rejection::Malformed),
    (Kind::ExchangeRequest, CONTROL_LEN_AT + 2, Rejection::Malformed),
    (Kind::ExchangeRequest, CONTROL_LEN_AT + 3, Rejection::Malformed),
    // 212 becomes 43: less than the control part.
    (Kind::Hello, PAYLOAD_LEN_AT, Rejection::Malformed),
    (Kind::Hello, PAYLOAD_LEN_AT + 1, Rejection::TooLong),
    (Kind::Hello, PAYLOAD_LEN_AT + 2, Rejection::TooLong),
    (Kind::Hello, PAYLOAD_LEN_AT + 3, Rejection::TooLong),
    // 212 becomes 43: the rest would be a slab, which Hello has none of.
    (Kind::Hello, CONTROL_LEN_AT, Rejection::TooLong),
    (Kind::Hello, CONTROL_LEN_AT + 1, Rejection::Malformed),
    (Kind::Hello, CONTROL_LEN_AT + 2, Rejection::Malformed),
    (Kind::Hello, CONTROL_LEN_AT + 3, Rejection::Malformed),
];

/// The kind with one bit flipped, from the lowest.
const KINDS: [(Kind, [Rejection; 8]); 2] = [
    (
        Kind::ExchangeRequest,
        [
            Rejection::BadSignature, // ExchangeReply
            Rejection::BadSignature, // Welcome
            Rejection::StaleEpoch,   // Denied, which opens a link
            Rejection::Unsupported,
            Rejection::Unsupported,
            Rejection::Unsupported,
            Rejection::Unsupported,
            Rejection::Unsupported,
        ],
    ),
    (
        Kind::Hello,
        [
            Rejection::Unsupported,
            Rejection::BadSignature, // Join
            Rejection::StaleEpoch,   // Beat
            Rejection::StaleEpoch,   // SnapshotRequest
            Rejection::Unsupported,
            Rejection::Unsupported,
            Rejection::Unsupported,
            Rejection::Unsupported,
        ],
    ),
];

fn flipped(bytes: &[u8], at: usize, mask: u8) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    flipped[at] ^= mask;
    flipped
}

fn region(at: usize) -> Option<Rejection> {
    let found = REGIONS.into_iter().find(|(range, _)| range.contains(&at));
    found.map(|(_, rejection)| rejection)
}

#[test]
fn the_frames_tried_are_good_ones() {
    for (kind, control, _) in TRIED {
        let verified = open(&sealed(kind)).expect("an honest frame");
        assert_eq!(verified, Verified { address: address(kind, kind as u64), frame: frame(kind) });
        assert_eq!(Forge::of(kind).control_len as usize, control);
    }
}

#[test]
fn cut_at_every_byte() {
    for (kind, ..) in TRIED {
        let bytes = sealed(kind);
        for end in 0..bytes.len() {
            assert_eq!(open(&bytes[..end]), Err(Rejection::Truncated), "{kind:?} cut at {end}");
        }
    }
}

#[test]
fn bytes_behind_the_end() {
    for (kind, ..) in TRIED {
        for more in [&[0][..], &[0; 64], &sealed(kind)] {
            let longer = [&sealed(kind)[..], more].concat();
            assert_eq!(open(&longer), Err(Rejection::Truncated), "{kind:?}");
        }
    }
}

#[test]
fn every_byte_flipped() {
    for (kind, ..) in TRIED {
        let bytes = sealed(kind);
        for at in 0..bytes.len() {
            let length = LENGTHS.into_iter().find(|(of, byte, _)| (*of, *byte) == (kind, at));
            let expected = length.map(|(.., rejection)| rejection).or_else(|| region(at));
            let got = open(&flipped(&bytes, at, 0xff));
            assert_eq!(got.err(), expected, "{kind:?} byte {at}");
            assert!(expected.is_some(), "no answer stated for byte {at}");
        }
    }
}

#[test]
fn every_bit_flipped() {
    for ((kind, control, slab_max), (_, kinds)) in TRIED.into_iter().zip(KINDS) {
        let bytes = sealed(kind);
        for (at, bit) in (0..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let wrong = flipped(&bytes, at, 1 << bit);
            let payload = bytes.len() - PAYLOAD_AT;
            let length = |value: usize| value ^ 1 << (8 * (at % 4) + bit);
            let expected = match at & !3 {
                _ if at == KIND_AT => kinds[bit],
                PAYLOAD_LEN_AT => length_answer(length(payload), control, slab_max),
                CONTROL_LEN_AT => length_answer(payload, length(control), slab_max),
                _ => region(at).expect("only the lengths are left out"),
            };
            assert_eq!(open(&wrong), Err(expected), "{kind:?} byte {at} bit {bit}");
        }
    }
}

/// What two lengths that nobody signed are refused for.
fn length_answer(payload: usize, control: usize, slab_max: usize) -> Rejection {
    if control > payload {
        Rejection::Malformed
    } else if control > CONTROL_BYTES_MAX || payload - control > slab_max {
        Rejection::TooLong
    } else {
        Rejection::BadSignature
    }
}

#[test]
fn every_payload_bit_flipped_and_signed_again_means_exactly_its_bytes() {
    let taken = TRIED.map(|(kind, ..)| {
        let bytes = sealed(kind);
        let bits = (PAYLOAD_AT..bytes.len()).flat_map(|at| (0..8).map(move |bit| (at, bit)));
        bits.filter(|(at, bit)| {
            let wrong = signed_again(&flipped(&bytes, *at, 1 << bit)).expect("whole");
            fuzz_frame(&wrong).is_ok()
        })
        .count()
    });
    // What has no wrong values: numbers, identities, signatures of links (nobody checks a chain
    // here), the slab; an age but for its sign and four high bits of its exponent; the lowest bit
    // of a truth value; 140 bits of the 23 letters of the address. Never a tag or a length.
    let (age, address, link) = (64 - 5, 140, 128 * 8);
    let request = 64 + age + 8 + 64 + 24 * 8;
    let hello = 16 + 16 + 32 + age + 64 + 1 + 64 + link + address;
    assert_eq!(taken, [request, hello]);
}

#[test]
fn lengths_are_judged_before_anything_behind_the_prefix_is_there() {
    let exchange = || Forge::of(Kind::ExchangeRequest);
    let (control_max, model_max) = (CONTROL_BYTES_MAX as u32, MODEL_BYTES_MAX as u32);
    let spec_max = SPEC_BYTES_MAX as u32;
    let too_long = Err(Rejection::TooLong);
    let cases = [
        (exchange(), u32::MAX, 30, too_long),
        (exchange(), u32::MAX, u32::MAX, too_long),
        (exchange(), 54, u32::MAX, Err(Rejection::Malformed)),
        (exchange(), 54, 55, Err(Rejection::Malformed)),
        (exchange(), 0, 1, Err(Rejection::Malformed)),
        (exchange(), control_max + 1, control_max + 1, too_long),
        (exchange(), control_max, control_max, Ok(())),
        (exchange(), control_max + model_max, control_max, Ok(())),
        (exchange(), 30 + model_max + 1, 30, too_long),
        (exchange(), 30 + model_max, 30, Ok(())),
        (Forge::of(Kind::ExchangeReply), 25 + model_max + 1, 25, too_long),
        (Forge::of(Kind::SnapshotReply), 14 + model_max + 1, 14, too_long),
        (Forge::of(Kind::Welcome), 389 + spec_max + 1, 389, too_long),
        (Forge::of(Kind::Welcome), 389 + spec_max, 389, Ok(())),
    ];
    for (forge, payload_len, control_len, expected) in cases {
        let signed = Forge { payload_len, control_len, ..forge }.signed();
        assert_eq!(open_prefix(&signed), expected, "{payload_len} {control_len}");
    }
    for kind in Kind::ALL.into_iter().filter(|kind| kind.slab_bytes_max(1) == 0) {
        let forge = Forge::of(kind);
        let signed = Forge { payload_len: forge.control_len + 1, ..forge }.signed();
        assert_eq!(open_prefix(&signed), too_long, "{kind:?} has no slab");
    }
}

#[test]
fn no_network_makes_a_frame_too_long_for_its_length_field() {
    let border = Border { model_bytes_max: ANY_MODEL_BYTES_MAX, ..border() };
    let forge = Forge { payload_len: u32::MAX, ..Forge::of(Kind::ExchangeReply) };
    let got = open_as(&border, sender().id(), &forge.signed());
    assert_eq!(got, Err(Rejection::TooLong));
}

#[test]
fn lengths_that_lie_about_what_follows() {
    let exchange = Forge::of(Kind::ExchangeRequest);
    let cases = [
        // Less and more follows than the sender signed.
        (Forge { payload_len: 55, ..exchange.clone() }, Rejection::Truncated),
        (Forge { payload_len: 53, ..exchange.clone() }, Rejection::Truncated),
        // The control part reaches into the slab, and the other way round.
        (Forge { control_len: 31, ..exchange.clone() }, Rejection::Malformed),
        (Forge { control_len: 54, ..exchange.clone() }, Rejection::Malformed),
        (Forge { control_len: 29, ..exchange.clone() }, Rejection::Malformed),
        (Forge { control_len: 0, ..exchange.clone() }, Rejection::Malformed),
        // The right lengths with another hash.
        (Forge { hash: [0; 32], ..exchange }, Rejection::BadHash),
    ];
    for (forge, expected) in cases {
        assert_eq!(open(&forge.signed()), Err(expected), "{forge:?}");
    }
}

#[test]
fn header_fields_that_are_wrong_though_signed() {
    let hello = || Forge::of(Kind::Hello);
    let exchange = || Forge::of(Kind::ExchangeRequest);
    let unsupported = Rejection::Unsupported;
    let mut cases = vec![
        (Forge { magic: *b"STL2", ..hello() }, Rejection::BadMagic),
        (Forge { version: version::MAX + 1, ..hello() }, unsupported),
        (Forge { version: version::MIN - 1, ..hello() }, unsupported),
        (Forge { version: u16::MAX, ..exchange() }, unsupported),
        (Forge { network: NetworkId([0; 32]), ..hello() }, Rejection::WrongNetwork),
        (Forge { recipient: third().id(), ..exchange() }, Rejection::WrongRecipient),
        (Forge { recipient: sender().id(), ..exchange() }, Rejection::WrongRecipient),
        (Forge { recipient_epoch: EPOCH - 1, ..exchange() }, Rejection::StaleEpoch),
        (Forge { recipient_epoch: EPOCH + 1, ..exchange() }, Rejection::StaleEpoch),
        (Forge { recipient_epoch: 0, ..exchange() }, Rejection::StaleEpoch),
        (Forge { recipient_epoch: EPOCH, ..hello() }, Rejection::StaleEpoch),
        (Forge { recipient_epoch: 1, ..hello() }, Rejection::StaleEpoch),
    ];
    cases.extend((0..=u8::MAX).filter(|kind| Kind::from_byte(*kind).is_none()).map(|kind| {
        let forge = Forge { kind, ..hello() };
        (forge, unsupported)
    }));
    cases.extend((0..8).map(|bit| (Forge { flags: 1 << bit, ..hello() }, unsupported)));
    for at in 0..8 {
        let mut forge = exchange();
        forge.reserved[at] = 1;
        cases.push((forge, unsupported));
    }
    assert_eq!(cases.len(), 12 + 245 + 8 + 8);
    for (forge, expected) in cases {
        // Without a signature the answer is the same: what is cheap to see is seen first.
        let mut unsigned = forge.signed();
        unsigned[SIGNATURE_AT..PAYLOAD_AT].fill(0);
        assert_eq!(open_prefix(&forge.signed()), Err(expected), "{forge:?}");
        assert_eq!(open_prefix(&unsigned), Err(expected), "{forge:?}");
    }
}

#[test]
fn a_relayed_frame_is_nobodys() {
    for (kind, ..) in TRIED {
        // Signed by the sender, arriving over the link of another member.
        let relayed = open_as(&border(), third().id(), &sealed(kind));
        assert_eq!(relayed, Err(Rejection::WrongSender));
        // Another member in the sender's name, and the sender in another's.
        let signed = Forge::of(kind).signed_by(&third());
        assert_eq!(open(&signed), Err(Rejection::BadSignature));
        let named = Forge { sender: third().id(), ..Forge::of(kind) }.signed();
        assert_eq!(open(&named), Err(Rejection::WrongSender));
        assert_eq!(open_as(&border(), third().id(), &named), Err(Rejection::BadSignature));
        // Sent back to whom it came from.
        let mirror = Border { me: sender().id(), ..border() };
        let reflected = open_as(&mirror, sender().id(), &sealed(kind));
        assert_eq!(reflected, Err(Rejection::WrongRecipient));
    }
}

#[test]
fn a_signature_of_another_domain_or_form() {
    let forge = Forge::of(Kind::Bye);
    let header = forge.header();
    let with = |signature: [u8; 64]| {
        open(&[&header[..], &signature, &forge.payload].concat()).map(drop).err()
    };
    for domain in [&b""[..], b"starling/v1/certificate", b"starling/v1/ticket", b"starling/v1/"] {
        let signature = sender().sign(&[domain, &header].concat());
        assert_eq!(with(signature), Some(Rejection::BadSignature));
    }
    // The same signature with the order of the group added to its scalar: looser checks take both.
    let order = "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010";
    let order = data_encoding::HEXLOWER.decode(order.as_bytes()).expect("hex");
    let mut signature = [0; 64];
    signature.copy_from_slice(&forge.signed()[SIGNATURE_AT..PAYLOAD_AT]);
    assert_eq!(with(signature), None);
    let mut carry = 0;
    for (byte, added) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(added) + carry;
        (*byte, carry) = ((sum & 0xff) as u8, sum >> 8);
    }
    assert_eq!(carry, 0);
    assert_eq!(with(signature), Some(Rejection::BadSignature));
}

#[test]
fn keys_of_small_order_sign_nothing() {
    // The neutral element, and the point of order two: under a loose check the signature (R, 0)
    // with R the neutral element holds for every, or every second, message.
    let neutral = core::array::from_fn(|at| u8::from(at == 0));
    let mut order_two = [0xff; 32];
    (order_two[0], order_two[31]) = (0xec, 0x7f);
    for key in [neutral, order_two, [0; 32]] {
        for epoch in 0..8 {
            let forge = Forge { sender: NodeId(key), epoch, ..Forge::of(Kind::Bye) };
            let signature = [neutral, [0; 32]].concat();
            let bytes = [&forge.header()[..], &signature, &forge.payload].concat();
            assert_eq!(open_as(&border(), NodeId(key), &bytes), Err(Rejection::BadSignature));
        }
    }
}

#[test]
fn a_kind_in_the_header_that_the_message_is_not() {
    let mut tried = 0;
    for named in Kind::ALL {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != named) {
            let control = starling_protocol::codec::encode(&frame(kind).message).expect("short");
            let got = open(&Forge::control(named, &control).signed());
            assert_eq!(got, Err(Rejection::Malformed), "{kind:?} as {named:?}");
            tried += 1;
        }
    }
    assert_eq!(tried, 110);
}

#[test]
fn the_same_frame_twice_and_frames_of_older_boots() {
    let mut window = ReplayWindow::default();
    let mut take = |epoch, sequence| {
        let forge = Forge { epoch, sequence, ..Forge::of(Kind::ExchangeRequest) };
        let Address { epoch, sequence, .. } = open(&forge.signed()).expect("honest").address;
        window.take(epoch, sequence)
    };
    let replay = Err(Rejection::Replay);
    let script = [
        (SENDER_EPOCH, 0, replay),
        (SENDER_EPOCH, 1, Ok(())),
        (SENDER_EPOCH, 1, replay),
        (SENDER_EPOCH, 3, Ok(())),
        (SENDER_EPOCH, 2, Ok(())),
        (SENDER_EPOCH, 2, replay),
        (SENDER_EPOCH - 1, 4, replay),
        (0, u64::MAX, replay),
        (SENDER_EPOCH, WINDOW_BITS + 3, Ok(())),
        // Behind the window, and its last place.
        (SENDER_EPOCH, 3, replay),
        (SENDER_EPOCH, 4, Ok(())),
        (SENDER_EPOCH + 1, 1, Ok(())),
        (SENDER_EPOCH, WINDOW_BITS + 4, replay),
        (SENDER_EPOCH + 1, u64::MAX, Ok(())),
        (SENDER_EPOCH + 1, u64::MAX, replay),
        (SENDER_EPOCH + 1, 2, replay),
        (u64::MAX, u64::MAX, Ok(())),
        (u64::MAX, u64::MAX - WINDOW_BITS, replay),
        (u64::MAX, u64::MAX - WINDOW_BITS + 1, Ok(())),
    ];
    for (step, (epoch, sequence, expected)) in script.into_iter().enumerate() {
        assert_eq!(take(epoch, sequence), expected, "step {step}");
    }
}

#[test]
fn no_frame_survives_the_recipients_restart_but_those_that_open_a_link() {
    let restarted = Border { epoch: EPOCH + 1, ..border() };
    for kind in Kind::ALL {
        let got = open_as(&restarted, sender().id(), &sealed(kind)).map(drop);
        let opens = [Kind::Hello, Kind::Denied, Kind::Join].contains(&kind);
        assert_eq!(got, if opens { Ok(()) } else { Err(Rejection::StaleEpoch) }, "{kind:?}");
    }
}

#[test]
fn only_what_no_honest_node_sends_is_fatal() {
    // Another version, network or boot, and a broken connection, are nobody's misbehaviour.
    for innocent in [
        Rejection::Unsupported,
        Rejection::WrongNetwork,
        Rejection::StaleEpoch,
        Rejection::Truncated,
    ] {
        assert_eq!(innocent.severity(), Severity::None, "{innocent}");
    }
    for fatal in [
        Rejection::BadMagic,
        Rejection::WrongSender,
        Rejection::WrongRecipient,
        Rejection::TooLong,
        Rejection::BadSignature,
        Rejection::BadHash,
        Rejection::Malformed,
    ] {
        assert_eq!(fatal.severity(), Severity::Fatal, "{fatal}");
    }
}
