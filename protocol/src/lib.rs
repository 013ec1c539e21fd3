//! What Starling peers say to each other, and the pure rules of saying it.
//!
//! Owns: identities, the wire format, the border for hostile bytes, admission by tickets and
//! certificates, and the bookkeeping of pair exchanges (partner view, time-outs, buckets, gate
//! thresholds, scores). Knows no socket, clock, file or floating-point model: a model crosses this
//! crate as opaque bytes beside its digest and its age. Time is an argument, randomness a seeded
//! generator passed in.
//!
//! The order at the border: [`envelope::open_header`] checks 240 bytes and says how many more may
//! be read, [`envelope::SealedHeader::open`] checks those and yields a [`envelope::Verified`]
//! message, and nothing below accepts anything else.
#![forbid(unsafe_code)]

pub mod admission;
pub mod bucket;
pub mod codec;
pub mod envelope;
pub mod fault;
pub mod gate;
pub mod id;
pub mod latency;
pub mod limits;
pub mod message;
pub mod score;
pub mod ticket;
pub mod time;
pub mod version;
pub mod view;
pub mod window;
