//! What a node counts: totals of one boot, how long its rounds take, where it stands with others.

use core::time::Duration;

use starling_protocol::id::NodeId;
use starling_protocol::time::Time;

/// Totals of one boot, and what the last round measured.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Bytes of frames sent.
    pub sent_bytes: u64,
    /// Bytes of frames received.
    pub received_bytes: u64,
    /// Model bytes sent.
    pub payload_sent_bytes: u64,
    /// Model bytes received.
    pub payload_received_bytes: u64,
    /// Frames sent.
    pub messages_sent: u64,
    /// Merges taken.
    pub accepted: u64,
    /// When the last of them was.
    pub merged_at: Option<Time>,
    /// Merges that the gate rejected.
    pub rejected: u64,
    /// Own exchanges that came to nothing.
    pub failed: u64,
    /// Exchanges answered.
    pub answered: u64,
    /// Frames refused.
    pub frames_rejected: u64,
    /// Peers banned.
    pub bans: u64,
    /// Rounds of this boot.
    pub rounds: u64,
    /// Mean loss of the last round.
    pub loss: f64,
    /// Length of the last local update.
    pub update_norm: f64,
    /// Length of the parameters.
    pub norm: f64,
    /// Duration of a local step.
    pub step_ns: u64,
    /// Duration of the last round.
    pub round_time: Duration,
    /// Durations of all rounds.
    pub round_times: Durations,
    pub(super) reported_rounds: u64,
    pub(super) reported_at: Time,
    pub(super) diverged_at: Time,
    pub(super) round_begun: Time,
    /// Exchanges of this round that are not over.
    pub(super) exchanges_left: u32,
    pub(super) silent_rounds: u64,
    pub(super) silent_since: Time,
    pub(super) rejected_in_a_row: u32,
    pub(super) last_partner: Option<NodeId>,
    pub(super) waiting_reported: bool,
    pub(super) isolated: bool,
}

/// How many durations fell below each bound, and what they add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Those up to the bound of the same place but above the one before; the last has no bound.
    pub counts: [u64; Self::BOUNDS_S.len() + 1],
    /// Sum of all.
    pub total: Duration,
}

impl Durations {
    /// Upper bounds, seconds: from a small model on one machine to a large one across a continent.
    pub const BOUNDS_S: [f64; 11] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 30.0];

    pub(super) fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let place = Self::BOUNDS_S.iter().take_while(|bound| seconds > **bound).count();
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.total += duration;
    }
}
