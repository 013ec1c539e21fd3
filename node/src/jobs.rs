//! What the state machine asks of the owner of the weights, and what it is told in return: bytes
//! and scalars, never vectors.

use starling_learning::compress::{Codec, Codecs};
use starling_protocol::id::NodeId;

/// Terms under which a partner's model may be merged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MergeTerms {
    /// Usual distance to a partner's model.
    pub threshold: f64,
    /// Weight by the two ages, 0 to 0.5.
    pub weight: f64,
    /// If the gate rejects: take it that we are the outlier, and let ourselves be pulled.
    pub recover: bool,
}

/// A model as it came from the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// How it is written.
    pub codec: Codec,
    /// Hash of the pair reference it is relative to.
    pub base: Option<u64>,
    /// The bytes.
    pub slab: Vec<u8>,
}

/// The pair reference that a model is encoded relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The newest that we hold, if any.
    Newest,
    /// The one with this hash, which the partner holds, if we do too.
    Held(u64),
    /// None.
    Absent,
}

/// Something for the owner of the weights to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Local steps from `age` on. The only job that takes long; others come between its steps.
    Train {
        /// How many.
        steps: u32,
        /// Age of the model at the first.
        age: f64,
    },
    /// Our model, for `peer`.
    Encode {
        /// The partner.
        peer: NodeId,
        /// Relative to what.
        base: Base,
        /// What the partner decodes.
        codecs: Codecs,
    },
    /// The partner's reply to what we encoded last.
    Absorb {
        /// The partner.
        peer: NodeId,
        /// Its model, relative to ours.
        reply: Encoded,
        /// How it may be merged.
        terms: MergeTerms,
    },
    /// A partner's request.
    Answer {
        /// The partner.
        peer: NodeId,
        /// Its model.
        request: Encoded,
        /// How it may be merged; none if it is only to be answered.
        terms: Option<MergeTerms>,
        /// Whether to score it on our hold-out rows.
        score: bool,
        /// What the partner decodes.
        codecs: Codecs,
    },
    /// The round ends: outer step, served average.
    Finish {
        /// Age of the model.
        age: f64,
    },
    /// Our working model, for a newcomer: the served one lags behind while much is learnt.
    Snapshot {
        /// The newcomer.
        peer: NodeId,
        /// What it decodes.
        codecs: Codecs,
    },
    /// Mix ours with these, of which `trim` may be hostile.
    Mix {
        /// Models from members.
        models: Vec<Encoded>,
        /// Most of them that may be hostile.
        trim: usize,
    },
    /// Start from the median of these.
    Adopt {
        /// Models from members.
        snapshots: Vec<Encoded>,
    },
    /// The whole state, with the state machine's own part.
    Checkpoint {
        /// That part.
        standing: Vec<u8>,
    },
}

/// What a merge came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Merge {
    /// Distance of the two models as they were on the wire.
    pub distance: f64,
    /// Whether it was taken.
    pub accepted: bool,
    /// Share of its weight that gate, direction filter and trial left, but for the clip.
    pub trusted: f64,
    /// Share of the difference that our model moved by: weight, clip and trust together.
    pub moved: f64,
}

/// What a job came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// [`Job::Train`].
    Trained {
        /// Steps taken.
        steps: u32,
        /// Mean loss.
        loss: f64,
        /// Length of the local update.
        update_norm: f64,
    },
    /// [`Job::Encode`].
    Encoded(Encoded),
    /// [`Job::Absorb`] or [`Job::Answer`] of something that is no model of this network.
    BadModel,
    /// [`Job::Answer`] of a request relative to a reference that is not held.
    BaseMismatch {
        /// Hash of the newest one that is.
        held: Option<u64>,
    },
    /// [`Job::Absorb`].
    Absorbed(Merge),
    /// [`Job::Answer`].
    Answered {
        /// Our model, relative to the partner's.
        reply: Encoded,
        /// What its merge came to.
        merge: Option<Merge>,
        /// Correct and total rows.
        score: Option<(u32, u32)>,
        /// Steps of the running round that our model already has.
        taken: u32,
    },
    /// [`Job::Finish`].
    Finished {
        /// Length of the parameter vector.
        norm: f64,
        /// Whether training had diverged and was set back to the served model.
        diverged: bool,
    },
    /// [`Job::Snapshot`].
    Snapshot(Encoded),
    /// [`Job::Mix`]: how many could be used.
    Mixed(usize),
    /// [`Job::Adopt`]: how many were used; none if what they came to cannot be a model of this
    /// task.
    Adopted(usize),
    /// [`Job::Checkpoint`].
    Checkpoint(Vec<u8>),
}
