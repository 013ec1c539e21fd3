//! How nodes mix, by name.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use starling_node::settings::Rule;

/// How nodes mix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Members are known: full momentum, gate, clip, direction filter and trial.
    #[default]
    Closed,
    /// Collusion is suspected: pulls six models a round, mixes their neighbourhoods and trims; no
    /// momentum, fifteen times the bytes.
    Paranoid,
    /// Anyone may join: less momentum, so that a small common bias is not amplified.
    Safe,
    /// A control without any defence: plain pair mean with momentum.
    MeanOnly,
}

impl Profile {
    /// The rule of this profile.
    #[must_use]
    pub fn rule(self) -> Rule {
        let usual = Rule::default();
        match self {
            Self::Closed => usual,
            Self::Safe => {
                let outer = usual.outer.map(|mut outer| {
                    (outer.momentum, outer.rate) = (0.5, 1.0);
                    outer
                });
                Rule { outer, ..usual }
            }
            Self::Paranoid => Rule { outer: None, pull: 6, trim: 2, ..usual },
            Self::MeanOnly => Rule { gate: false, filter: false, ages: false, ..usual },
        }
    }
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Safe, Self::Paranoid, Self::MeanOnly];

    /// Whether a node of a real network may have it.
    #[must_use]
    pub fn defends(self) -> bool {
        self != Self::MeanOnly
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Safe => "safe",
            Self::Paranoid => "paranoid",
            Self::MeanOnly => "mean-only",
        })
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|profile| profile.to_string() == text).ok_or_else(|| {
            format!("`{text}` is no profile: expected closed, safe, paranoid or mean-only")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_the_default_is_the_nodes_own() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert_eq!(Profile::default().rule(), Rule::default());
        assert!("trusting".parse::<Profile>().is_err());
    }
}
