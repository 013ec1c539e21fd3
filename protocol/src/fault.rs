//! Whose fault it was. A [`Rejection`] is about one frame of a peer, a [`Denial`] about a peer's
//! wish to be let in. Both are closed sets: operators alert on their names.

use serde::{Deserialize, Serialize};

/// Why a frame was refused at the border. None of these can come from an honest node of the same
/// network and version, save where [`Rejection::severity`] says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Rejection {
    /// Fewer bytes than the header promises.
    #[error("truncated frame")]
    Truncated,
    /// Not a Starling frame.
    #[error("not a starling frame")]
    BadMagic,
    /// A version, kind, flag or reserved byte this build does not know.
    #[error("unsupported version or kind")]
    Unsupported,
    /// A frame of another network.
    #[error("frame of another network")]
    WrongNetwork,
    /// Signed by another node than the one at the end of the connection.
    #[error("sender is not the connected peer")]
    WrongSender,
    /// Meant for another node.
    #[error("frame for another recipient")]
    WrongRecipient,
    /// Meant for an earlier boot of ours.
    #[error("frame for an earlier boot of this node")]
    StaleEpoch,
    /// Longer than its kind may be in this network.
    #[error("longer than its kind allows")]
    TooLong,
    /// The signature does not hold.
    #[error("bad signature")]
    BadSignature,
    /// The payload is not the one that was signed.
    #[error("payload differs from its signed hash")]
    BadHash,
    /// The control part does not decode, or is not of the kind that the header names.
    #[error("malformed message")]
    Malformed,
    /// A field is outside its range: an age that is no number, over-long or unprintable text.
    #[error("field out of range")]
    OutOfRange,
    /// Taken before.
    #[error("replayed frame")]
    Replay,
    /// Valid, but not now: an exchange before Hello, a reply that nobody asked for.
    #[error("unexpected message")]
    Unexpected,
    /// A model of another shape, or with values that are no numbers.
    #[error("model of a wrong shape or with non-finite values")]
    BadModel,
    /// More frames than a peer may send.
    #[error("too many frames")]
    Flood,
}

impl Rejection {
    /// The stable name in events and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::BadMagic => "bad_magic",
            Self::Unsupported => "unsupported",
            Self::WrongNetwork => "wrong_network",
            Self::WrongSender => "wrong_sender",
            Self::WrongRecipient => "wrong_recipient",
            Self::StaleEpoch => "stale_epoch",
            Self::TooLong => "too_long",
            Self::BadSignature => "bad_signature",
            Self::BadHash => "bad_hash",
            Self::Malformed => "malformed",
            Self::OutOfRange => "out_of_range",
            Self::Replay => "replay",
            Self::Unexpected => "unexpected",
            Self::BadModel => "bad_model",
            Self::Flood => "flood",
        }
    }

    /// How much it weighs against the peer.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            // Another network or version, our own restart, and a connection that broke mid-frame
            // are nobody's misbehaviour; a frame that comes twice is dropped, and only its sender
            // could have sent it twice.
            Self::Unsupported
            | Self::WrongNetwork
            | Self::StaleEpoch
            | Self::Truncated
            | Self::Replay => Severity::None,
            // A late reply after a time-out looks like this.
            Self::Unexpected => Severity::High,
            Self::OutOfRange | Self::BadModel | Self::Flood => Severity::Low,
            Self::BadMagic
            | Self::WrongSender
            | Self::WrongRecipient
            | Self::TooLong
            | Self::BadSignature
            | Self::BadHash
            | Self::Malformed => Severity::Fatal,
        }
    }
}

/// How many of a fault are tolerated; the scale of [`crate::score`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// No misbehaviour.
    None,
    /// Tolerated often.
    High,
    /// Tolerated some times.
    Mid,
    /// Tolerated a few times.
    Low,
    /// Never tolerated.
    Fatal,
}

/// Why a peer was not let in; sent to it, so that a join never fails without a reason.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error,
)]
pub enum Denial {
    /// No certificate chain to the network's root, and no ticket.
    #[error("not a member: ask a member for a ticket (`starling invite`)")]
    NotMember,
    /// A certificate that does not hold.
    #[error("its certificate does not lead to the network's root")]
    InvalidCertificate,
    /// A ticket that does not hold.
    #[error("the ticket is not valid for this network")]
    InvalidTicket,
    /// A ticket past its date.
    #[error("the ticket has expired: ask for a new one")]
    TicketExpired,
    /// A ticket used as often as it may be.
    #[error("the ticket is used up: ask for a new one")]
    TicketSpent,
    /// Banned for misbehaviour.
    #[error("banned by this node")]
    Banned,
    /// All links are taken.
    #[error("this node has no free link: try another member")]
    Full,
    /// No common version.
    #[error("no common protocol version: upgrade the older node")]
    Version,
}

impl Denial {
    /// The stable name in events and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotMember => "not_member",
            Self::InvalidCertificate => "invalid_certificate",
            Self::InvalidTicket => "invalid_ticket",
            Self::TicketExpired => "ticket_expired",
            Self::TicketSpent => "ticket_spent",
            Self::Banned => "banned",
            Self::Full => "full",
            Self::Version => "version",
        }
    }
}
