//! Everything one node can say to another. A message is a small control part; the four kinds that
//! carry a model, and Welcome, have raw bytes ("slab") beside it.

use serde::{Deserialize, Serialize};

use crate::admission::Certificate;
use crate::codec;
use crate::fault::{Denial, Rejection};
use crate::id::NodeId;
use crate::limits::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, AGE_MAX, CHAIN_MAX, HINTS_MAX, SPEC_BYTES_MAX,
    TICKET_CHARS_MAX,
};

/// A welcome names its sender too.
const WELCOME_HINTS_MAX: usize = HINTS_MAX + 1;

/// What a frame holds, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// First frame on a link, either way.
    Hello = 1,
    /// The peer is not let in.
    Denied = 2,
    /// A ticket holder asks for membership.
    Join = 3,
    /// Answer to Join: the network's specification and a certificate.
    Welcome = 4,
    /// Sign of life.
    Beat = 5,
    /// My model, for yours.
    ExchangeRequest = 6,
    /// My model, or why not.
    ExchangeReply = 7,
    /// How your model did on my hold-out rows.
    CrossScore = 8,
    /// A newcomer asks for a model to start from.
    SnapshotRequest = 9,
    /// That model.
    SnapshotReply = 10,
    /// I leave.
    Bye = 11,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 11] = [
        Self::Hello,
        Self::Denied,
        Self::Join,
        Self::Welcome,
        Self::Beat,
        Self::ExchangeRequest,
        Self::ExchangeReply,
        Self::CrossScore,
        Self::SnapshotRequest,
        Self::SnapshotReply,
        Self::Bye,
    ];

    /// The kind with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// Largest slab, where a model of this network takes at most `model_bytes_max`.
    #[must_use]
    pub fn slab_bytes_max(self, model_bytes_max: usize) -> usize {
        match self {
            Self::ExchangeRequest | Self::ExchangeReply | Self::SnapshotReply => model_bytes_max,
            Self::Welcome => SPEC_BYTES_MAX,
            _ => 0,
        }
    }

    /// Whether a node that knows nothing of the recipient yet may send it.
    #[must_use]
    pub fn opens_a_link(self) -> bool {
        matches!(self, Self::Hello | Self::Denied | Self::Join)
    }

    /// Whether it asks for a model.
    #[must_use]
    pub fn asks(self) -> bool {
        matches!(self, Self::ExchangeRequest | Self::SnapshotRequest)
    }
}

/// Where a node stands; travels in Hello and Beat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Lineage age of the model, in local steps, averaged at merges.
    pub age: f64,
    /// Own rounds completed. Informational: never used for order.
    pub round: u64,
    /// Whether it answers exchange requests now.
    pub answers: bool,
    /// Duration of one local step, nanoseconds; a partner adds it to its time-out.
    pub step_ns: u64,
}

impl Standing {
    fn check(&self) -> Result<(), Rejection> {
        check_age(self.age)
    }
}

/// Where another node may be found. A hint: whoever dials checks the identity it finds there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The node.
    pub id: NodeId,
    /// Its addresses, as multiaddr text without the trailing peer id.
    #[serde(deserialize_with = "codec::list::<_, _, ADDRESSES_MAX>")]
    pub addresses: Vec<String>,
}

/// First frame on a link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest version spoken.
    pub version_min: u16,
    /// Newest version spoken.
    pub version_max: u16,
    /// Bit set of codecs that the sender decodes; bit n is codec n of the learning layer.
    pub codecs: u32,
    /// Where the sender stands.
    pub standing: Standing,
    /// The way from the root to the sender; empty for the root itself and in open networks.
    #[serde(deserialize_with = "codec::list::<_, _, CHAIN_MAX>")]
    pub chain: Vec<Certificate>,
    /// Where the sender listens.
    #[serde(deserialize_with = "codec::list::<_, _, ADDRESSES_MAX>")]
    pub addresses: Vec<String>,
}

/// Sign of life to linked peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// Where the sender stands.
    pub standing: Standing,
    /// A few peers of the sender, drawn at random.
    #[serde(deserialize_with = "codec::list::<_, _, HINTS_MAX>")]
    pub hints: Vec<Hint>,
}

/// One half of a pair exchange.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeRequest {
    /// Names the exchange; the reply carries it.
    pub exchange: u64,
    /// Age of the model in the slab.
    pub age: f64,
    /// Codec of the slab.
    pub codec: u8,
    /// Hash of the pair reference that the slab is relative to; none if it is absolute.
    pub base: Option<u64>,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum ExchangeOutcome {
    /// The slab holds the sender's model relative to the one it received.
    Model {
        /// Age of the sender's model.
        age: f64,
        /// Codec of the slab.
        codec: u8,
    },
    /// In an exchange of its own.
    Busy,
    /// Asked too often.
    RateLimited,
    /// The reference named by the request is not held: ask again with this one, or with none.
    BaseMismatch {
        /// Hash of the newest reference with the asker that is held.
        held: Option<u64>,
    },
    /// Not training: joining, paused or leaving, or the asker is in quarantine.
    Refused,
}

/// The other half.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeReply {
    /// The request's number.
    pub exchange: u64,
    /// What came of it.
    pub outcome: ExchangeOutcome,
}

/// How the receiver's model did on the sender's hold-out rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct CrossScore {
    /// The exchange it belongs to.
    pub exchange: u64,
    /// Rows classified correctly.
    pub correct: u32,
    /// Rows scored.
    pub total: u32,
}

/// A model for a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotReply {
    /// Age of the model in the slab, or none if the sender has nothing to give.
    pub age: Option<f64>,
    /// Codec of the slab.
    pub codec: u8,
}

/// A ticket holder asks for membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// The ticket's text.
    pub ticket: String,
}

/// Membership. The slab is the canonical specification of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The way from the root to the newcomer.
    #[serde(deserialize_with = "codec::list::<_, _, CHAIN_MAX>")]
    pub chain: Vec<Certificate>,
    /// Peers to start from, the sender included.
    #[serde(deserialize_with = "codec::list::<_, _, WELCOME_HINTS_MAX>")]
    pub hints: Vec<Hint>,
}

/// The control part of a frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Denial`].
    Denied(Denial),
    /// See [`Join`].
    Join(Join),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// See [`Beat`].
    Beat(Beat),
    /// See [`ExchangeRequest`].
    ExchangeRequest(ExchangeRequest),
    /// See [`ExchangeReply`].
    ExchangeReply(ExchangeReply),
    /// See [`CrossScore`].
    CrossScore(CrossScore),
    /// A newcomer asks for a model to start from.
    SnapshotRequest,
    /// See [`SnapshotReply`].
    SnapshotReply(SnapshotReply),
    /// I leave.
    Bye,
}

impl Message {
    /// The kind that the header must name.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Denied(_) => Kind::Denied,
            Self::Join(_) => Kind::Join,
            Self::Welcome(_) => Kind::Welcome,
            Self::Beat(_) => Kind::Beat,
            Self::ExchangeRequest(_) => Kind::ExchangeRequest,
            Self::ExchangeReply(_) => Kind::ExchangeReply,
            Self::CrossScore(_) => Kind::CrossScore,
            Self::SnapshotRequest => Kind::SnapshotRequest,
            Self::SnapshotReply(_) => Kind::SnapshotReply,
            Self::Bye => Kind::Bye,
        }
    }

    /// Whether raw bytes may follow the control part.
    #[must_use]
    pub fn takes_slab(&self) -> bool {
        match self {
            Self::Welcome(_) | Self::ExchangeRequest(_) => true,
            Self::ExchangeReply(reply) => matches!(reply.outcome, ExchangeOutcome::Model { .. }),
            Self::SnapshotReply(reply) => reply.age.is_some(),
            _ => false,
        }
    }

    /// Checks every field that has a range.
    ///
    /// # Errors
    /// [`Rejection::OutOfRange`] if a number is not finite or negative, a list too long, a text too
    /// long or with control characters.
    pub fn check(&self) -> Result<(), Rejection> {
        match self {
            Self::Hello(hello) => {
                hello.standing.check()?;
                check_chain(&hello.chain)?;
                check_addresses(&hello.addresses)
            }
            Self::Beat(beat) => {
                beat.standing.check()?;
                check_hints(&beat.hints, HINTS_MAX)
            }
            Self::Welcome(welcome) => {
                check_chain(&welcome.chain)?;
                check_hints(&welcome.hints, WELCOME_HINTS_MAX)
            }
            Self::Join(join) => within(join.ticket.len() <= TICKET_CHARS_MAX),
            Self::ExchangeRequest(request) => check_age(request.age),
            Self::ExchangeReply(ExchangeReply {
                outcome: ExchangeOutcome::Model { age, .. },
                ..
            }) => check_age(*age),
            Self::SnapshotReply(SnapshotReply { age: Some(age), .. }) => check_age(*age),
            Self::CrossScore(score) => within(score.correct <= score.total),
            Self::Denied(_)
            | Self::ExchangeReply(_)
            | Self::SnapshotReply(_)
            | Self::SnapshotRequest
            | Self::Bye => Ok(()),
        }
    }
}

fn within(holds: bool) -> Result<(), Rejection> {
    if holds { Ok(()) } else { Err(Rejection::OutOfRange) }
}

fn check_age(age: f64) -> Result<(), Rejection> {
    within((0.0..=AGE_MAX).contains(&age))
}

fn check_chain(chain: &[Certificate]) -> Result<(), Rejection> {
    within(chain.len() <= CHAIN_MAX)
}

/// Checks addresses as every message with some does.
///
/// # Errors
/// [`Rejection::OutOfRange`] if there are too many, or one is too long or not plain text.
pub fn check_addresses(addresses: &[String]) -> Result<(), Rejection> {
    within(
        addresses.len() <= ADDRESSES_MAX
            && addresses.iter().all(|address| {
                address.len() <= ADDRESS_BYTES_MAX
                    && address.bytes().all(|byte| byte.is_ascii_graphic())
            }),
    )
}

fn check_hints(hints: &[Hint], max: usize) -> Result<(), Rejection> {
    within(hints.len() <= max)?;
    hints.iter().try_for_each(|hint| check_addresses(&hint.addresses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_stable_numbers() {
        assert_eq!(Kind::from_byte(0), None);
        assert_eq!(Kind::from_byte(12), None);
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index + 1);
            assert_eq!(Kind::from_byte(kind as u8), Some(kind));
        }
    }

    #[test]
    fn ages_that_are_no_ages_are_refused() {
        for age in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, AGE_MAX * 2.0] {
            let request = ExchangeRequest { exchange: 1, age, codec: 0, base: None };
            assert_eq!(Message::ExchangeRequest(request).check(), Err(Rejection::OutOfRange));
        }
    }

    #[test]
    fn lists_and_texts_are_bounded() {
        let beat = |hints| Message::Beat(Beat { standing: Standing::default(), hints });
        let hint = |address: String| Hint { id: NodeId([0; 32]), addresses: vec![address] };
        assert_eq!(beat(vec![hint("/ip4/127.0.0.1/tcp/1".into())]).check(), Ok(()));
        for wrong in ["x".repeat(ADDRESS_BYTES_MAX + 1), "a\nb".into(), "\u{1b}[2J".into()] {
            assert_eq!(beat(vec![hint(wrong)]).check(), Err(Rejection::OutOfRange));
        }
        let many = vec![hint(String::new()); HINTS_MAX + 1];
        assert_eq!(beat(many).check(), Err(Rejection::OutOfRange));
        let score = CrossScore { exchange: 0, correct: 2, total: 1 };
        assert_eq!(Message::CrossScore(score).check(), Err(Rejection::OutOfRange));
    }
}
