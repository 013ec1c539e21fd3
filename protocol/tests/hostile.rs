//! Bytes of somebody who means harm: nothing panics, nothing forged is taken, nothing makes a
//! reader allocate more than twice what a control part may have.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::disallowed_methods, missing_docs)]

mod common;

use common::counting::{Counting, allocated};
use common::forge::{Forge, signed_again};
use common::frames::{NETWORK, address, border, frame, sealed, sender, ticket};
use common::fuzz::fuzz_frame;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use starling_protocol::admission::decode_chain;
use starling_protocol::codec;
use starling_protocol::envelope::{Border, Frame, open_header, seal};
use starling_protocol::limits::{CONTROL_BYTES_MAX, PREFIX_BYTES};
use starling_protocol::message::{Kind, Message};
use starling_protocol::ticket::{Ticket, TicketError};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What one message may cost its reader, whatever it claims.
const ALLOCATED_MAX: usize = 2 * CONTROL_BYTES_MAX;

/// One change to a frame.
#[derive(Clone, Debug)]
enum Edit {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    Append(Vec<u8>),
    /// Eight bytes of a number that lengths are made of.
    Number(Index, u64),
    /// From here on it is the fixed frame of another kind.
    Splice(Index, Kind),
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Self::Set(at, value) => bytes[at.index(length)] = *value,
            Self::Flip(at, mask) => bytes[at.index(length)] ^= mask,
            Self::Insert(at, value) => bytes.insert(at.index(length), *value),
            Self::Remove(at) => drop(bytes.remove(at.index(length))),
            Self::Cut(at) => bytes.truncate(at.index(length)),
            Self::Append(more) => bytes.extend(more),
            Self::Number(at, number) => {
                let at = at.index(length);
                let end = length.min(at + 8);
                bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
            }
            Self::Splice(at, kind) => {
                let at = at.index(length);
                let other = sealed(*kind);
                bytes.truncate(at);
                bytes.extend(other.get(at..).unwrap_or_default());
            }
        }
    }
}

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(Kind::ALL.to_vec())
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..16,
        any::<u64>(),
        (0_u32..64).prop_map(|bit| 1 << bit),
        Just(u64::MAX),
        any::<f64>().prop_map(f64::to_bits),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<Index>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, value)| Edit::Set(at, value)),
        (at(), 1_u8..=255).prop_map(|(at, mask)| Edit::Flip(at, mask)),
        (at(), any::<u8>()).prop_map(|(at, value)| Edit::Insert(at, value)),
        at().prop_map(Edit::Remove),
        at().prop_map(Edit::Cut),
        vec(any::<u8>(), 1..80).prop_map(Edit::Append),
        (at(), number()).prop_map(|(at, number)| Edit::Number(at, number)),
        (at(), kind()).prop_map(|(at, kind)| Edit::Splice(at, kind)),
    ]
}

fn edited(kind: Kind, edits: &[Edit]) -> Vec<u8> {
    let mut bytes = sealed(kind);
    edits.iter().for_each(|edit| edit.apply(&mut bytes));
    bytes
}

/// A variant's number and anything behind it, so that each variant is reached.
fn control() -> impl Strategy<Value = Vec<u8>> {
    (0_u8..12, vec(any::<u8>(), 0..400))
        .prop_map(|(variant, rest)| [&[variant, 0, 0, 0][..], &rest].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn arbitrary_bytes_are_no_frame(data in vec(any::<u8>(), 0..900)) {
        prop_assert!(fuzz_frame(&data).is_err());
    }

    #[test]
    fn arbitrary_prefixes_are_refused(prefix in any::<[[u8; 30]; 8]>()) {
        let mut whole = [0; PREFIX_BYTES];
        whole.copy_from_slice(&prefix.concat());
        prop_assert!(open_header(&border(), sender().id(), &whole).is_err());
    }

    #[test]
    fn a_frame_that_begins_well_and_ends_anyhow(
        kind in kind(), length in 0..PREFIX_BYTES, rest in vec(any::<u8>(), 0..500),
    ) {
        let data = [&sealed(kind)[..length], &rest].concat();
        prop_assert!(fuzz_frame(&data).is_err());
    }

    #[test]
    fn a_changed_frame_is_refused(kind in kind(), edits in vec(edit(), 1..6)) {
        let bytes = edited(kind, &edits);
        // Edits may undo each other, or splice into the whole of another honest frame.
        let honest = Kind::ALL.into_iter().any(|kind| sealed(kind) == bytes);
        prop_assert_eq!(fuzz_frame(&bytes).is_ok(), honest);
    }

    #[test]
    fn a_changed_frame_signed_by_a_member_means_exactly_its_bytes(
        kind in kind(), edits in vec(edit(), 1..6),
    ) {
        if let Some(bytes) = signed_again(&edited(kind, &edits)) {
            let _ = fuzz_frame(&bytes);
        }
    }

    #[test]
    fn any_control_part_signed_by_a_member(kind in kind(), control in control()) {
        let control = [&[kind as u8 - 1][..], &control[1..]].concat();
        let _ = fuzz_frame(&Forge::control(kind, &control).signed());
    }

    #[test]
    fn any_payload_behind_an_honest_header(
        kind in kind(),
        at in any::<Index>(),
        new in vec(any::<u8>(), 0..900),
        fits in any::<bool>(),
    ) {
        let bytes = sealed(kind);
        let (prefix, payload) = bytes.split_first_chunk::<PREFIX_BYTES>().expect("a whole frame");
        let header = open_header(&border(), sender().id(), prefix).expect("an honest header");
        prop_assert_eq!(header.payload_len(), payload.len());
        let mut other = [&payload[..at.index(payload.len())], &new].concat();
        if fits {
            other.resize(payload.len(), 0);
        }
        let same = other == payload;
        prop_assert_eq!(header.open(other).is_ok(), same);
    }

    #[test]
    fn any_bytes_as_a_message_or_a_chain(data in vec(any::<u8>(), 0..900), control in control()) {
        for bytes in [data, control] {
            let _ = codec::decode_exact::<Message>(&bytes);
            let _ = decode_chain(&bytes);
            let _ = fuzz_frame(&bytes);
        }
    }

    #[test]
    fn any_text_as_a_ticket(text in any::<String>(), bytes in vec(any::<u8>(), 0..900)) {
        prop_assert!(Ticket::parse(&text).is_err());
        let body = data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
        for body in [body, text] {
            let text = format!("starling1{body}");
            prop_assert!(Ticket::parse(&text).is_err());
        }
    }

    #[test]
    fn a_changed_ticket_is_refused(
        at in any::<Index>(), letter in "[a-z2-7]", cut in any::<bool>(),
    ) {
        let text = ticket().to_text().expect("short");
        let at = at.index(text.len());
        let rest = if cut { &text[at + 1..] } else { &text[at..] };
        let changed = [&text[..at], &letter, rest].concat();
        prop_assert_eq!(Ticket::parse(&changed).is_ok(), changed == text);
    }

    #[test]
    fn terms_that_a_member_made_up(
        chain in 0_usize..10,
        contacts in 0_usize..10,
        addresses in 0_usize..10,
        letter in any::<char>(),
    ) {
        let mut terms = ticket().terms;
        terms.chain = terms.chain.iter().cycle().take(chain).copied().collect();
        let mut contact = terms.contacts[0].clone();
        contact.addresses = vec![letter.to_string(); addresses];
        terms.contacts = vec![contact; contacts];
        let text = Ticket::sign(&sender(), terms).and_then(|ticket| ticket.to_text());
        let parsed = Ticket::parse(&text.expect("short")).map(drop);
        let readable = addresses == 0 || letter.is_ascii_graphic();
        let too_long = chain > 8 || contacts > 8 || contacts > 0 && addresses > 8;
        prop_assert_eq!(parsed, match (contacts, readable) {
            _ if too_long => {
                Err(TicketError::Damaged("its end is missing, or it is of another version"))
            }
            (1.., false) => {
                Err(TicketError::Damaged("too many addresses, or unreadable ones"))
            }
            _ if chain == 1 => Ok(()),
            _ => Err(TicketError::BadSignature),
        });
    }
}

/// Where the fixed frames' control parts hold the length of a list or text.
const LENGTHS_AT: [(Kind, &[usize]); 4] = [
    (Kind::Hello, &[37, 173, 181]),
    (Kind::Beat, &[29, 69, 77, 116]),
    (Kind::Welcome, &[4, 268, 308, 316, 355]),
    (Kind::Join, &[4]),
];

#[test]
fn lengths_lie_where_they_are_overwritten() {
    for (kind, places) in LENGTHS_AT {
        for at in places {
            let mut control = codec::encode(&frame(kind).message).expect("short");
            control[at + 7] = 0x80;
            let got = codec::decode_exact::<Message>(&control);
            assert_eq!(got, Err(codec::CodecError::Malformed), "{kind:?} {at}");
        }
    }
}

/// A control part with lengths that promise more than is there, or as much as there can be.
fn hostile_control(rng: &mut ChaCha8Rng) -> Vec<u8> {
    let (kind, places) = LENGTHS_AT[rng.random_range(0..LENGTHS_AT.len())];
    let mut control = codec::encode(&frame(kind).message).expect("short");
    for _ in 0..rng.random_range(1..3) {
        let at = places[rng.random_range(0..places.len())];
        let room = CONTROL_BYTES_MAX as u64 - rng.random_range(0..200);
        let length = match rng.random_range(0..6) {
            0 => 1 << 60,
            1 => u64::MAX >> rng.random_range(0..64),
            2 => rng.random_range(0..20),
            3 => room,
            4 => room / 8,
            _ => room / 40,
        };
        control.resize(control.len().max(at + 8), 0);
        control[at..at + 8].copy_from_slice(&length.to_le_bytes());
        if rng.random() {
            control.truncate(at + 8);
        }
    }
    match rng.random_range(0..4) {
        // Empty lists and texts to the end: the most values per byte.
        0 => control.resize(CONTROL_BYTES_MAX, 0),
        1 => control.resize(CONTROL_BYTES_MAX, b'a'),
        2 => control.truncate(rng.random_range(0..=control.len())),
        _ => {}
    }
    control
}

#[test]
fn hostile_lengths_allocate_no_more_than_twice_a_control_part() {
    let (mut worst, mut refused) = (0, 0);
    for seed in 0..2000 {
        let control = hostile_control(&mut ChaCha8Rng::seed_from_u64(seed));
        let (got, bytes) = allocated(|| codec::decode_exact::<Message>(&control));
        assert!(bytes <= ALLOCATED_MAX, "seed {seed}: {bytes} bytes for {got:?}");
        worst = worst.max(bytes);
        refused += u32::from(got.is_err());
    }
    assert!(refused >= 1500, "{refused} of 2000 refused");
    assert!(worst > 0, "the allocator counts nothing");
}

#[test]
fn the_allocator_counts() {
    let (grown, bytes) = allocated(|| {
        let mut grown: Vec<u8> = Vec::with_capacity(100);
        grown.reserve_exact(300);
        grown
    });
    assert_eq!((grown.capacity(), bytes), (300, 400));
}

#[test]
fn opening_a_model_makes_no_second_one() {
    const MODEL: usize = 1 << 20;
    let kind = Kind::ExchangeRequest;
    let frame = Frame { slab: vec![7; MODEL], ..frame(kind) };
    let bytes = seal(&sender(), NETWORK, &address(kind, 1), &frame).expect("short");
    let (prefix, payload) = bytes.split_first_chunk::<PREFIX_BYTES>().expect("a whole frame");
    let border = Border { model_bytes_max: MODEL, ..border() };
    let payload = payload.to_vec();
    let (opened, bytes) = allocated(|| open_header(&border, sender().id(), prefix)?.open(payload));
    assert_eq!(opened.map(|verified| verified.frame), Ok(frame));
    assert!(bytes < CONTROL_BYTES_MAX, "{bytes} bytes");
}
