//! What a virtual network does to its nodes.

use core::time::Duration;

use serde::{Deserialize, Serialize};

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
    /// A cut.
    pub partition: Option<Partition>,
    /// What the last nodes do, group by group, and how many each has.
    pub attacks: Vec<(Attack, usize)>,
    /// What is broken on purpose, to see that it is found.
    pub sabotage: Option<Sabotage>,
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
            partition: None,
            attacks: Vec::new(),
            sabotage: None,
            duration_max: Duration::from_secs(3600),
        }
    }
}

/// A promise that the simulator breaks for a node, to show that the watch over all runs sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// A copy of a frame is let past the replay window.
    Replay,
    /// A merge moves a node by more than it moves its partner.
    Mean,
    /// Frames of nodes that are not members are merged.
    Stranger,
    /// Honest nodes ban each other.
    Ban,
    /// Parameters are no numbers at the end: in mid-run a node would heal itself.
    Finite,
    /// A node is never done with its first steps.
    Stall,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Replay, Self::Mean, Self::Stranger, Self::Ban, Self::Finite, Self::Stall];

    /// As in files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Mean => "mean",
            Self::Stranger => "stranger",
            Self::Ban => "ban",
            Self::Finite => "finite",
            Self::Stall => "stall",
        }
    }
}

impl core::str::FromStr for Sabotage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or_else(|| {
            format!(
                "`{text}` breaks nothing: expected replay, mean, stranger, ban, finite or stall"
            )
        })
    }
}

impl Scenario {
    /// What node `index` of `nodes` does, and its place among those who do the same; none if it is
    /// honest.
    #[must_use]
    pub fn hostile(&self, index: usize, nodes: usize) -> Option<(Attack, (usize, usize))> {
        let mut place = index.checked_sub(self.honest(nodes))?;
        for (attack, count) in &self.attacks {
            if place < *count {
                return Some((*attack, (place, *count)));
            }
            place -= count;
        }
        None
    }

    /// Whether node `index` of `nodes` has no certificate.
    #[must_use]
    pub fn is_stranger(&self, index: usize, nodes: usize) -> bool {
        matches!(self.hostile(index, nodes), Some((Attack::Stranger {}, _)))
    }

    /// How many of `nodes` are honest: the first ones.
    #[must_use]
    pub fn honest(&self, nodes: usize) -> usize {
        let hostile: usize = self.attacks.iter().map(|(_, count)| count).sum();
        nodes.saturating_sub(hostile)
    }

    /// The least delay of a frame, and so the length of a window that is computed at once.
    #[must_use]
    pub fn delay_min(&self) -> Duration {
        (self.delay / 2).max(Duration::from_micros(1))
    }
}
