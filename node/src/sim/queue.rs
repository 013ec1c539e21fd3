//! What waits to happen to a simulated node, the earliest first.

use starling_protocol::envelope::Verified;
use starling_protocol::time::Time;

use crate::jobs::Done;
use crate::worker::JobId;

/// What travels between nodes.
#[derive(Clone, Debug)]
pub(super) enum Cargo {
    Connect,
    Accepted,
    Closed,
    Frame(Verified),
    /// What an honest network would not carry: see [`super::scenario::Sabotage::Replay`].
    Copy(Verified),
}

/// Something on its way to another node.
#[derive(Clone, Debug)]
pub(super) struct Parcel {
    pub(super) at: Time,
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) sequence: u64,
    /// The sender's boot: what an earlier one sent dies with its connections.
    pub(super) epoch: u64,
    pub(super) cargo: Cargo,
}

/// What happens to a node.
#[derive(Debug)]
pub(super) enum Happening {
    Arrival(Parcel),
    Tick,
    /// A step boundary at which the mailbox is looked at, or training ends.
    Boundary(u64),
    JobDone(JobId, Done),
    Saved,
    Crash,
    Restart,
}

/// And when.
#[derive(Debug)]
pub(super) struct Queued {
    pub(super) at: Time,
    pub(super) sequence: u64,
    pub(super) happening: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}
