//! What a node may decide for itself: its mixing rule, its pace, its patience.

use core::time::Duration;

use starling_learning::compress::Codec;
use starling_learning::mix::outer::OuterRule;
use starling_protocol::limits::VIEW_MAX;

/// How a node mixes. The default is "N*": pair gossip on coarse pair-reference differences,
/// gated, clipped, filtered by direction, with a Nesterov outer step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Codec of differences to a pair reference; first contacts use the network's absolute codec.
    pub codec: Codec,
    /// Whether far models are rejected and clipped.
    pub gate: bool,
    /// The gate's threshold is at least so many local updates of a model that has everything to
    /// learn, at the present learning rate. Without it a flock that agrees closely shuts out the
    /// one node that knows what the others have forgotten.
    pub gate_floor: f64,
    /// Whether peers that pull in one direction, or do worse than others on our rows, lose weight.
    pub filter: bool,
    /// Whether ages weigh.
    pub ages: bool,
    /// The outer step; none for plain averaging.
    pub outer: Option<OuterRule>,
    /// Decay of the served average per round.
    pub serve_decay: f32,
    /// Rounds without a merge after which the outer step is taken all the same.
    pub idle_rounds_max: u32,
    /// Models pulled per round instead of one exchange in a pair; 0 for the pair.
    pub pull: usize,
    /// Of these, the most that may be hostile: as many are trimmed from either end.
    pub trim: usize,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            codec: Codec::Ref3,
            gate: true,
            gate_floor: 2.0,
            filter: true,
            ages: true,
            outer: Some(OuterRule { momentum: 0.9, rate: 0.7, velocity_clip: 3.0 }),
            serve_decay: 0.9,
            idle_rounds_max: 4,
            pull: 0,
            trim: 0,
        }
    }
}

/// Everything else.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How it mixes.
    pub rule: Rule,
    /// Local steps per round.
    pub steps_per_round: u32,
    /// Exchanges in a pair per round, one after the other.
    pub exchanges_per_round: u32,
    /// A round takes at least this long.
    pub round_period: Duration,
    /// Peers that must be linked before the first round.
    pub start_peers: usize,
    /// Between checkpoints.
    pub checkpoint_interval: Duration,
    /// Bytes of pair references held at most.
    pub reference_bytes_max: usize,
    /// Every how many answered exchanges the partner's model is scored on our hold-out rows.
    pub score_every: u64,
    /// Partners that are drawn from.
    pub view_max: usize,
    /// Longest wait for more members before a newcomer asks for a model.
    pub settle: Duration,
    /// Seed of everything random that is not secret.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rule: Rule::default(),
            steps_per_round: 4,
            exchanges_per_round: 1,
            round_period: Duration::ZERO,
            start_peers: 0,
            checkpoint_interval: Duration::from_secs(60),
            reference_bytes_max: 256 * 1024 * 1024,
            score_every: 2,
            view_max: VIEW_MAX,
            settle: Duration::from_millis(500),
            seed: 0,
        }
    }
}
