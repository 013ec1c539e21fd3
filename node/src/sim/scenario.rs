//! What a virtual network does to its nodes.

use core::time::Duration;

use super::attack::Attack;
use crate::settings::Settings;

/// Nodes that go away and come back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Churn {
    /// Share of the time that a node is down.
    pub down_share: f64,
    /// Mean time up, exponentially distributed.
    pub up_mean: Duration,
    /// Whether a node comes back without its checkpoint.
    pub fresh: bool,
}

/// A time during which the network is in two halves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partition {
    /// When it begins.
    pub begin: Duration,
    /// When it heals.
    pub end: Duration,
    /// Share of the nodes on the smaller side.
    pub share: f64,
}

/// One node that is down for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outage {
    /// Which node.
    pub node: usize,
    /// When it crashes.
    pub begin: Duration,
    /// When it is started again.
    pub end: Duration,
}

/// A virtual network.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Seed of everything random.
    pub seed: u64,
    /// What each node decides for itself.
    pub settings: Settings,
    /// Duration of a local step at a usual node.
    pub step: Duration,
    /// Share of nodes that are slow.
    pub slow_share: f64,
    /// How many times slower these are.
    pub slow_factor: u32,
    /// Mean one-way delay of a frame; half of it is fixed, half exponentially distributed.
    pub delay: Duration,
    /// Share of exchange requests and replies lost.
    pub loss: f64,
    /// Share of frames delivered twice.
    pub duplication: f64,
    /// Nodes that go away and come back.
    pub churn: Option<Churn>,
    /// Single crashes.
    pub outages: Vec<Outage>,
    /// A cut.
    pub partition: Option<Partition>,
    /// What the last nodes do, and how many of them, if any are hostile.
    pub attack: Option<(Attack, usize)>,
    /// Virtual time at the latest end.
    pub duration_max: Duration,
}

impl Default for Scenario {
    fn default() -> Self {
        let step = Duration::from_millis(1);
        Self {
            seed: 0,
            settings: Settings { settle: Duration::from_millis(50), ..Settings::default() },
            step,
            slow_share: 0.0,
            slow_factor: 5,
            delay: step / 10,
            loss: 0.0,
            duplication: 0.0,
            churn: None,
            outages: Vec::new(),
            partition: None,
            attack: None,
            duration_max: Duration::from_secs(3600),
        }
    }
}

impl Scenario {
    /// The least delay of a frame, and so the length of a window that is computed at once.
    #[must_use]
    pub fn delay_min(&self) -> Duration {
        (self.delay / 2).max(Duration::from_micros(1))
    }
}
