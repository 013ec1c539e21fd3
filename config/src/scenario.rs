//! Scenario files of `starling simulate`: what a researcher writes, and what of it the simulator
//! takes. Times are in local steps of a usual node, so that a scenario says the same for any model.

mod faults;
mod library;

use core::time::Duration;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use starling_learning::compress::Codec;
use starling_learning::data::partition::{Split, partition};
use starling_learning::data::{DataError, Dataset, Shard};
use starling_learning::model::ModelSpec;
use starling_node::settings::{Rule, Settings};
use starling_node::sim::{Attack, Churn, Partition, Sabotage, Scenario, founder};
use starling_node::spec::{FeatureSpec, Membership, Network, NetworkSpec, TrainingSpec};
use starling_protocol::limits::{EXCHANGES_PER_ROUND_MAX, VIEW_MAX};

use crate::profile::Profile;

pub use self::faults::FAULTS;
pub use self::library::LIBRARY;

/// Greatest seed: scripts read numbers of JSON lines as doubles.
pub const SEED_MAX: u64 = 1 << 53;
/// Fewer partners do not hold a network together.
const VIEW_MIN: usize = 3;
/// Most nodes of a simulation.
pub const NODES_MAX: usize = 20_000;

/// Hostile nodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hostile {
    /// How many: the last ones.
    pub nodes: usize,
    /// What they do.
    #[serde(flatten)]
    pub attack: Attack,
}

/// Nodes that go away and come back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChurnFile {
    /// Share of the time that a node is down, below 1.
    pub down_share: f64,
    /// Mean time up, steps.
    pub up_steps: f64,
    /// Whether they come back with nothing.
    #[serde(default)]
    pub fresh: bool,
}

/// A cut that heals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionFile {
    /// When it begins, steps.
    pub begin_steps: f64,
    /// When it heals, steps.
    pub end_steps: f64,
    /// Share of the nodes on the smaller side.
    pub share: f64,
}

/// A scenario file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScenarioFile {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub about: String,
    /// Nodes.
    pub nodes: usize,
    /// digits, fashion-mnist, or fashion-mnist-14 (pooled to 14x14).
    pub data: String,
    /// How rows are cut among nodes.
    pub split: Split,
    /// Rows drawn with replacement for each node instead of a cut; 0 for a cut.
    pub rows_per_node: usize,
    /// Units of hidden layers.
    pub hidden: Vec<usize>,
    /// Local steps of each node.
    pub steps: u32,
    /// Of these in a round.
    pub steps_per_round: u32,
    /// Exchanges of each round.
    pub exchanges_per_round: u32,
    /// Rows of a batch.
    pub batch: u32,
    /// Learning rate at the start.
    pub rate: f64,
    /// Whether training has no end: the learning rate falls in cycles, until `steps` are over.
    pub continuous: bool,
    /// How nodes mix.
    pub profile: Profile,
    /// Codec of differences.
    pub codec: Codec,
    /// Partners that a node draws from: the production's ten, or as many as there are nodes for
    /// uniform draws.
    pub view_max: usize,
    /// Mean one-way delay, steps.
    pub delay_steps: f64,
    /// Share of exchange requests and replies lost.
    pub loss: f64,
    /// Share of frames delivered twice.
    pub duplication: f64,
    /// Share of slow nodes.
    pub slow_share: f64,
    /// How many times slower they are.
    pub slow_factor: u32,
    /// Nodes that go away and come back.
    pub churn: Option<ChurnFile>,
    /// A cut that heals.
    pub partition: Option<PartitionFile>,
    /// Groups of hostile nodes.
    pub hostile: Vec<Hostile>,
    /// Who may be a member: anyone, or whom the founder certified.
    pub membership: Membership,
    /// What is broken on purpose: see that it is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sabotage: Option<Sabotage>,
    /// A run may take so many times its steps before it is cut off.
    pub patience: f64,
    /// Seed.
    pub seed: u64,
}

impl Default for ScenarioFile {
    fn default() -> Self {
        Self {
            name: String::new(),
            about: String::new(),
            nodes: 16,
            data: "digits".into(),
            split: Split::Shards(2),
            rows_per_node: 0,
            hidden: vec![32],
            steps: 400,
            steps_per_round: 4,
            exchanges_per_round: 1,
            batch: 32,
            rate: 0.15,
            continuous: false,
            profile: Profile::Closed,
            codec: Codec::Ref3,
            view_max: VIEW_MAX,
            delay_steps: 0.1,
            loss: 0.0,
            duplication: 0.0,
            slow_share: 0.0,
            slow_factor: 5,
            churn: None,
            partition: None,
            hostile: Vec::new(),
            membership: Membership::Open,
            sabotage: None,
            patience: 20.0,
            seed: 0,
        }
    }
}

/// One virtual step.
pub const STEP: Duration = Duration::from_millis(100);

fn out_of_range(file: &str, key: &str, found: impl ToString, expected: &str) -> String {
    format!("{file}: {key}: found {}, allowed is {expected}", found.to_string())
}

impl ScenarioFile {
    /// Reads a file.
    ///
    /// # Errors
    /// Where it is wrong, and what is allowed there.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let scenario: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| {
                text.get(..span.start).map_or(1, |before| before.matches('\n').count() + 1)
            });
            format!("{file}:{line}: {}", error.message())
        })?;
        scenario.check(file)?;
        Ok(scenario)
    }

    /// Checks every range.
    ///
    /// # Errors
    /// The first key that is out of range.
    pub fn check(&self, file: &str) -> Result<(), String> {
        if !(2..=NODES_MAX).contains(&self.nodes) {
            return Err(out_of_range(file, "nodes", self.nodes, "2 to 20000"));
        }
        if !(VIEW_MIN..=1024).contains(&self.view_max) {
            return Err(out_of_range(file, "view_max", self.view_max, "3 to 1024"));
        }
        if self.seed > SEED_MAX {
            return Err(out_of_range(file, "seed", self.seed, "0 to 2^53"));
        }
        if !(1..=10_000_000).contains(&self.steps) {
            return Err(out_of_range(file, "steps", self.steps, "1 to 10000000"));
        }
        if !(1..=self.steps).contains(&self.steps_per_round) {
            return Err(out_of_range(file, "steps_per_round", self.steps_per_round, "1 to steps"));
        }
        if !(1..=EXCHANGES_PER_ROUND_MAX).contains(&self.exchanges_per_round) {
            let found = self.exchanges_per_round;
            return Err(out_of_range(file, "exchanges_per_round", found, "1 to 16"));
        }
        if !(0.0..=1000.0).contains(&self.delay_steps) {
            return Err(out_of_range(file, "delay_steps", self.delay_steps, "0 to 1000"));
        }
        if !(1..=1000).contains(&self.slow_factor) {
            return Err(out_of_range(file, "slow_factor", self.slow_factor, "1 to 1000"));
        }
        if !(1.0..=1e6).contains(&self.patience) {
            return Err(out_of_range(file, "patience", self.patience, "1 to 1000000"));
        }
        self.check_faults(file)?;
        self.check_hostile(file)
    }

    fn check_faults(&self, file: &str) -> Result<(), String> {
        let share = |key: &str, value: f64| {
            if (0.0..=0.95).contains(&value) {
                Ok(())
            } else {
                Err(out_of_range(file, key, value, "0 to 0.95"))
            }
        };
        share("loss", self.loss)?;
        share("duplication", self.duplication)?;
        share("slow_share", self.slow_share)?;
        if let Some(churn) = self.churn {
            share("churn.down_share", churn.down_share)?;
            if !(1.0..=1e9).contains(&churn.up_steps) {
                return Err(out_of_range(file, "churn.up_steps", churn.up_steps, "1 to 1e9"));
            }
        }
        if let Some(partition) = self.partition {
            share("partition.share", partition.share)?;
            let ordered =
                0.0 <= partition.begin_steps && partition.begin_steps < partition.end_steps;
            if !ordered || partition.end_steps > 1e9 {
                let found = partition.end_steps;
                return Err(out_of_range(file, "partition.end_steps", found, "after its begin"));
            }
        }
        Ok(())
    }

    fn check_hostile(&self, file: &str) -> Result<(), String> {
        for (index, group) in self.hostile.iter().enumerate() {
            let key = |name: &str| format!("hostile[{index}].{name}");
            if group.nodes == 0 {
                return Err(out_of_range(file, &key("nodes"), 0, "1 or more"));
            }
            if let Some((name, found, most)) = group.attack.out_of_range() {
                return Err(out_of_range(file, &key(name), found, &format!("0 to {most}")));
            }
        }
        let hostile: usize = self.hostile.iter().map(|group| group.nodes).sum();
        if hostile + 2 > self.nodes {
            return Err(out_of_range(file, "hostile.nodes", hostile, "at most nodes - 2 in all"));
        }
        let open = self.membership == Membership::Open;
        if open && self.hostile.iter().any(|group| group.attack == Attack::Stranger {}) {
            return Err(out_of_range(file, "membership", "open", "invite, if there are strangers"));
        }
        Ok(())
    }

    /// The network that its nodes belong to, for rows of so many features and classes.
    ///
    /// # Errors
    /// What of it is out of bounds.
    pub fn network(&self, features: usize, classes: usize) -> Result<Network, String> {
        let spec = NetworkSpec {
            version: NetworkSpec::VERSION,
            name: self.name.clone(),
            genesis_seed: u32::try_from(self.seed % (1 << 31)).unwrap_or(0),
            codecs: Codec::ALL.to_vec(),
            membership: self.membership,
            root: founder(self.seed),
            model: ModelSpec { features, hidden: self.hidden.clone(), classes },
            training: TrainingSpec {
                rate: self.rate,
                momentum: 0.0,
                batch: self.batch,
                age_max: (!self.continuous).then(|| f64::from(self.steps)),
            },
            features: FeatureSpec::default(),
        };
        spec.check().map_err(|error| error.to_string())
    }

    /// The rows of each node.
    ///
    /// # Errors
    /// If there are too few rows to cut.
    pub fn shards(&self, train: &Arc<Dataset>) -> Result<Vec<Shard>, DataError> {
        let parts = if self.rows_per_node > 0 {
            (0..self.nodes).map(|node| self.drawn_rows(train.len(), node)).collect()
        } else {
            partition(train.labels(), train.classes(), self.nodes, &self.split, self.seed)?
        };
        parts.into_iter().map(|rows| Shard::new(Arc::clone(train), rows)).collect()
    }

    fn drawn_rows(&self, rows: usize, node: usize) -> Vec<u32> {
        let seed = self.seed.wrapping_mul(1_000_003) + node as u64;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rows = u32::try_from(rows).unwrap_or(u32::MAX).max(1);
        (0..self.rows_per_node).map(|_| rng.random_range(0..rows)).collect()
    }

    /// What the simulator does.
    #[must_use]
    pub fn scenario(&self) -> Scenario {
        let steps = |count: f64| STEP.mul_f64(count);
        let rule = Rule { codec: self.codec, ..self.profile.rule() };
        let settings = Settings {
            rule,
            steps_per_round: self.steps_per_round,
            exchanges_per_round: self.exchanges_per_round,
            checkpoint_interval: steps(20.0),
            settle: steps(20.0),
            view_max: self.view_max,
            ..Settings::default()
        };
        let longest = if self.continuous { 1.0 } else { self.patience };
        Scenario {
            seed: self.seed,
            settings,
            step: STEP,
            slow_share: self.slow_share,
            slow_factor: self.slow_factor,
            delay: steps(self.delay_steps),
            loss: self.loss,
            duplication: self.duplication,
            churn: self.churn.map(|churn| Churn {
                down_share: churn.down_share,
                up_mean: steps(churn.up_steps),
                fresh: churn.fresh,
            }),
            partition: self.partition.map(|partition| Partition {
                begin: steps(partition.begin_steps),
                end: steps(partition.end_steps),
                share: partition.share,
            }),
            attacks: self.hostile.iter().map(|group| (group.attack, group.nodes)).collect(),
            sabotage: self.sabotage,
            duration_max: steps(f64::from(self.steps) * longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_files_read_back() {
        assert_eq!(ScenarioFile::parse("x", ""), Ok(ScenarioFile::default()));
        let group = "[[hostile]]\nnodes = 2\nkind = \"alie\"\nz = 1.5\n";
        let text = &format!("nodes = 8\nsplit = \"dirichlet=1\"\n{group}");
        let scenario = ScenarioFile::parse("x", text).expect("valid");
        let expected = Hostile { nodes: 2, attack: Attack::Alie { z: 1.5 } };
        assert_eq!(scenario.hostile, [expected]);
        let rendered = toml::to_string(&scenario).expect("plain values");
        assert_eq!(ScenarioFile::parse("x", &rendered), Ok(scenario));
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let error = |text: &str| ScenarioFile::parse("x.toml", text).expect_err(text);
        assert!(error("\nnods = 3").starts_with("x.toml:2: unknown field `nods`"));
        assert_eq!(error("nodes = 1"), "x.toml: nodes: found 1, allowed is 2 to 20000");
        assert_eq!(error("loss = 1.5"), "x.toml: loss: found 1.5, allowed is 0 to 0.95");
        assert_eq!(
            error("nodes = 4\n[[hostile]]\nnodes = 3\nkind = \"sign-flip\""),
            "x.toml: hostile.nodes: found 3, allowed is at most nodes - 2 in all"
        );
        assert!(error("[[hostile]]\nnodes = 1\nkind = \"magic\"").contains("magic"));
        let hostile = |rest: &str| error(&format!("[[hostile]]\nnodes = 1\nkind = {rest}"));
        assert_eq!(
            hostile("\"dawdle\"\nshare = -1.0"),
            "x.toml: hostile[0].share: found -1, allowed is 0 to 1"
        );
        assert_eq!(
            hostile("\"gate-fit\"\nshare = 0.9\nmemory = nan"),
            "x.toml: hostile[0].memory: found NaN, allowed is 0 to 1"
        );
        assert!(hostile("\"sign-flip\"\nfactor = 8").contains("unknown field `factor`"));
        assert_eq!(
            error(&format!("seed = {}", SEED_MAX + 1)),
            "x.toml: seed: found 9007199254740993, allowed is 0 to 2^53"
        );
        let stranger = error("[[hostile]]\nnodes = 1\nkind = \"stranger\"");
        assert!(stranger.starts_with("x.toml: membership: found open"), "{stranger}");
    }

    #[test]
    fn the_page_on_scenarios_names_every_key_and_its_example_is_one() {
        let page = include_str!("../../docs/scenarios.md");
        let example = page.split("```").nth(1).and_then(|block| block.strip_prefix("toml"));
        let example = ScenarioFile::parse("page", example.expect("a block")).expect("valid");
        assert_eq!(example.hostile.len(), 2);
        let named = |key: &str| page.lines().any(|line| line.starts_with(&format!("| {key} |")));
        let sabotage = Some(Sabotage::Mean);
        let keys = toml::Table::try_from(ScenarioFile { sabotage, ..example }).expect("a table");
        for (key, value) in &keys {
            assert!(named(key), "{key}");
            let inner = value.as_table().into_iter().flat_map(|table| table.keys());
            inner.for_each(|key| assert!(named(key), "{key}"));
        }
        for (_, text) in LIBRARY {
            for group in ScenarioFile::parse("built in", text).expect("valid").hostile {
                let attack = toml::Table::try_from(group.attack).expect("a table");
                let kind = attack.get("kind").and_then(toml::Value::as_str).expect("a kind");
                assert!(named(kind), "{kind}");
            }
        }
    }
}
