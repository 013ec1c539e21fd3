//! What of a node outlives its process, beside its weights.

use serde::{Deserialize, Serialize};
use starling_protocol::codec::{self, CodecError};
use starling_protocol::limits::{AGE_MAX, TICKETS_COUNTED_MAX};
use starling_protocol::message::Hint;

/// Most peers that are read: part of the format, whatever a build writes.
const PEERS_READ_MAX: usize = 256;

/// How often a ticket was used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketUse {
    /// The ticket's fingerprint.
    pub ticket: [u8; 16],
    /// Nodes admitted with it by this node.
    pub used: u32,
}

/// The durable part of the state machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Lineage age of the model: local steps, averaged at merges.
    pub age: f64,
    /// Own rounds completed.
    pub round: u64,
    /// Own local steps.
    pub steps: u64,
    /// Whether it ever exchanged with anyone. From then on it does not age alone.
    pub met: bool,
    /// Length of a local step's gradient when everything was still to be learnt.
    pub gradient_scale: f64,
    /// What an exchange takes as a rule, nanoseconds; 0 if none was timed yet.
    pub exchange_ns: u64,
    /// Uses of tickets.
    pub tickets: Vec<TicketUse>,
    /// Nodes it knows.
    pub peers: Vec<Hint>,
}

/// Bytes that are no standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StandingError {
    /// They do not decode.
    #[error("the checkpoint's record is unreadable: {0}")]
    Undecodable(#[from] CodecError),
    /// A field is out of range.
    #[error("the checkpoint's record is out of range")]
    OutOfRange,
}

impl Standing {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bounded = self.clone();
        // Addresses may make the record too long for one control part: drop peers until it fits.
        loop {
            match codec::encode(&bounded) {
                Ok(bytes) => return bytes,
                Err(_) if !bounded.peers.is_empty() => {
                    bounded.peers.truncate(bounded.peers.len() / 2);
                }
                Err(_) => bounded.tickets.truncate(bounded.tickets.len() / 2),
            }
        }
    }

    /// Reads what a checkpoint holds.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn decode(bytes: &[u8]) -> Result<Self, StandingError> {
        let standing: Self = codec::decode_exact(bytes)?;
        let bounded = (0.0..=AGE_MAX).contains(&standing.age)
            && (0.0..=f64::MAX).contains(&standing.gradient_scale)
            && standing.peers.len() <= PEERS_READ_MAX
            && standing.tickets.len() <= TICKETS_COUNTED_MAX;
        if bounded { Ok(standing) } else { Err(StandingError::OutOfRange) }
    }
}

#[cfg(test)]
mod tests {
    use starling_protocol::id::NodeId;

    use super::*;

    #[test]
    fn reads_back_and_refuses_ages_that_are_none() {
        let mut standing = Standing { age: 12.5, round: 3, met: true, ..Standing::default() };
        assert_eq!(Standing::decode(&standing.encode()), Ok(standing.clone()));
        standing.age = f64::NAN;
        assert_eq!(Standing::decode(&standing.encode()), Err(StandingError::OutOfRange));
        assert!(Standing::decode(b"").is_err());
    }

    #[test]
    fn more_peers_than_this_build_knows_are_read() {
        let peers =
            |count: u8| (0..count).map(|id| Hint { id: NodeId([id; 32]), addresses: vec![] });
        let standing = Standing { peers: peers(120).collect(), ..Standing::default() };
        assert_eq!(Standing::decode(&standing.encode()), Ok(standing.clone()));
        let twice = standing.peers.iter().chain(&standing.peers).chain(&standing.peers).cloned();
        let far = Standing { peers: twice.collect(), ..Standing::default() };
        assert_eq!(Standing::decode(&far.encode()), Err(StandingError::OutOfRange));
    }

    #[test]
    fn long_addresses_cost_peers_not_the_record() {
        let addresses = vec!["x".repeat(400); 8];
        let peers = (0..96).map(|id| Hint { id: NodeId([id; 32]), addresses: addresses.clone() });
        let standing = Standing { age: 1.0, peers: peers.collect(), ..Standing::default() };
        let back = Standing::decode(&standing.encode()).expect("fits");
        assert_eq!(back.age, 1.0);
        assert!((10..96).contains(&back.peers.len()), "{}", back.peers.len());
    }
}
