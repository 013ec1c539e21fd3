//! From the configuration to the settings of a node.

use core::time::Duration;

use starling_node::settings::{Rule, Settings};

use crate::Config;
use crate::table::{FIELDS, Field};

impl Config {
    /// The dotted keys in which two configurations differ, in the order of the file.
    #[must_use]
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let differs = |field: &&Field| (field.get)(self) != (field.get)(other);
        FIELDS.iter().filter(differs).map(Field::dotted).collect()
    }

    /// What the node takes from this configuration; the rest as by default.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let default = Settings::default();
        // The fields are public, so a caller may have put in what no file can.
        let interval = Duration::try_from_secs_f64(self.checkpoint_interval_s);
        Settings {
            rule: Rule { codec: self.codec, ..self.profile.rule() },
            steps_per_round: self.steps_per_round,
            exchanges_per_round: self.exchanges_per_round,
            round_period: Duration::from_millis(self.round_period_ms),
            start_peers: self.start_peers,
            checkpoint_interval: interval.unwrap_or(default.checkpoint_interval),
            seed: self.seed,
            ..default
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_learning::compress::Codec;

    use super::*;
    use crate::profile::Profile;

    #[test]
    fn the_default_is_the_nodes_own() {
        assert_eq!(Config::default().settings(), Settings::default());
    }

    #[test]
    fn every_setting_arrives() {
        let config = Config {
            codec: Codec::Int8,
            profile: Profile::Paranoid,
            steps_per_round: 7,
            exchanges_per_round: 2,
            round_period_ms: 1500,
            start_peers: 3,
            checkpoint_interval_s: 0.5,
            seed: 9,
            ..Config::default()
        };
        let expected = Settings {
            rule: Rule { codec: Codec::Int8, ..Profile::Paranoid.rule() },
            steps_per_round: 7,
            exchanges_per_round: 2,
            round_period: Duration::from_millis(1500),
            start_peers: 3,
            checkpoint_interval: Duration::from_millis(500),
            seed: 9,
            ..Settings::default()
        };
        assert_eq!(config.settings(), expected);
    }

    #[test]
    fn every_changed_key_is_named_and_no_other() {
        for field in FIELDS {
            let mut config = Config::default();
            (field.set)(&mut config, crate::values::Found::Plain(field.example)).expect("fits");
            assert_eq!(Config::default().changes(&config), [field.dotted()]);
            assert!(config.changes(&config).is_empty());
        }
    }

    #[test]
    fn an_impossible_interval_is_the_default_one() {
        let config = Config { checkpoint_interval_s: f64::NAN, ..Config::default() };
        assert_eq!(config.settings(), Settings::default());
    }
}
