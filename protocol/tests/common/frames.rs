//! Fixed keys, one fixed frame of each kind, a chain and a ticket: what the golden files hold.

use starling_protocol::admission::{Certificate, extend_chain};
use starling_protocol::envelope::{Address, Border, Frame, seal};
use starling_protocol::fault::Denial;
use starling_protocol::id::{Keypair, NetworkId};
use starling_protocol::message::{
    Beat, CrossScore, ExchangeOutcome, ExchangeReply, ExchangeRequest, Hello, Hint, Join, Kind,
    Message, SnapshotReply, Standing, Welcome,
};
use starling_protocol::ticket::{Terms, Ticket};

pub const NETWORK: NetworkId = NetworkId(*b"a network of thirty-two letters!");
/// Boot count of the sender.
pub const SENDER_EPOCH: u64 = 3;
/// Boot count of the recipient.
pub const EPOCH: u64 = 0x0102_0304_0506_0708;
pub const MODEL_BYTES_MAX: usize = 1024;

pub fn root() -> Keypair {
    Keypair::from_seed(&[10; 32])
}

pub fn sender() -> Keypair {
    Keypair::from_seed(&[11; 32])
}

pub fn recipient() -> Keypair {
    Keypair::from_seed(&[12; 32])
}

/// Another member.
pub fn third() -> Keypair {
    Keypair::from_seed(&[13; 32])
}

/// What the recipient expects.
pub fn border() -> Border {
    Border {
        network: NETWORK,
        me: recipient().id(),
        epoch: EPOCH,
        model_bytes_max: MODEL_BYTES_MAX,
    }
}

/// The address of the sender's frame number `sequence` to the recipient.
pub fn address(kind: Kind, sequence: u64) -> Address {
    let recipient_epoch = if kind.opens_a_link() { 0 } else { EPOCH };
    Address {
        sender: sender().id(),
        recipient: recipient().id(),
        epoch: SENDER_EPOCH,
        sequence,
        recipient_epoch,
    }
}

/// The sender's chain: admitted by the root.
pub fn chain() -> Vec<Certificate> {
    extend_chain(&root(), NETWORK, &[], sender().id()).expect("one link")
}

/// A chain of two links.
pub fn longer_chain() -> Vec<Certificate> {
    extend_chain(&sender(), NETWORK, &chain(), third().id()).expect("two links")
}

pub fn hint() -> Hint {
    let addresses =
        vec!["/ip4/192.0.2.1/udp/4001/quic-v1".into(), "/dns/peer.example/tcp/4001".into()];
    Hint { id: third().id(), addresses }
}

pub fn standing() -> Standing {
    Standing { age: 1234.5, round: 77, answers: true, step_ns: 2_500_000 }
}

/// A slab of recognisable bytes.
pub fn slab() -> Vec<u8> {
    (0xa0..0xb8).collect()
}

pub fn ticket() -> Ticket {
    let terms = Terms {
        network: NETWORK,
        root: root().id(),
        inviter: sender().id(),
        chain: chain(),
        contacts: vec![hint()],
        nonce: *b"sixteen letters.",
        not_after: 1_900_000_000,
        uses: 5,
    };
    Ticket::sign(&sender(), terms).expect("short")
}

/// The message of the fixed frame of this kind.
pub fn message(kind: Kind) -> Message {
    match kind {
        Kind::Hello => Message::Hello(Hello {
            version_min: 1,
            version_max: 1,
            codecs: 0b1011,
            standing: standing(),
            chain: chain(),
            addresses: vec!["/ip4/192.0.2.7/tcp/4001".into()],
        }),
        Kind::Denied => Message::Denied(Denial::TicketSpent),
        Kind::Join => Message::Join(Join { ticket: ticket().to_text().expect("short") }),
        Kind::Welcome => Message::Welcome(Welcome { chain: longer_chain(), hints: vec![hint()] }),
        Kind::Beat => Message::Beat(Beat { standing: standing(), hints: vec![hint()] }),
        Kind::ExchangeRequest => Message::ExchangeRequest(ExchangeRequest {
            exchange: 42,
            age: 1234.5,
            codec: 3,
            base: Some(0xfeed_f00d_dead_beef),
        }),
        Kind::ExchangeReply => Message::ExchangeReply(ExchangeReply {
            exchange: 42,
            outcome: ExchangeOutcome::Model { age: 1300.25, codec: 2 },
        }),
        Kind::CrossScore => {
            Message::CrossScore(CrossScore { exchange: 42, correct: 57, total: 64 })
        }
        Kind::SnapshotRequest => Message::SnapshotRequest,
        Kind::SnapshotReply => {
            Message::SnapshotReply(SnapshotReply { age: Some(1234.5), codec: 1 })
        }
        Kind::Bye => Message::Bye,
    }
}

/// The fixed frame of this kind, with a slab if it may have one.
pub fn frame(kind: Kind) -> Frame {
    let slab = if kind.slab_bytes_max(MODEL_BYTES_MAX) > 0 { slab() } else { Vec::new() };
    Frame { message: message(kind), slab }
}

/// The fixed frame of this kind as it travels; its sequence number is the kind's.
pub fn sealed(kind: Kind) -> Vec<u8> {
    seal(&sender(), NETWORK, &address(kind, kind as u64), &frame(kind)).expect("short")
}
