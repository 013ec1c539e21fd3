//! The scenarios that come with the program, by name.

macro_rules! library {
    ($($name:literal),* $(,)?) => {
        /// Name and text of each.
        pub const LIBRARY: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),*];
    };
}

library!(
    "churn-fresh",
    "digits-n16",
    "flat",
    "fm-784-n16",
    "fm14-churn",
    "fm14-continuous",
    "fm14-delay",
    "fm14-dir01",
    "fm14-loss",
    "fm14-n16-h4",
    "fm14-n16-h8",
    "fm14-n64-h4",
    "fm14-slow",
    "hostile-age",
    "hostile-age-low",
    "hostile-alie",
    "hostile-alie-half",
    "hostile-alie-one",
    "hostile-dawdle",
    "hostile-endless",
    "hostile-flood",
    "hostile-gatefit",
    "hostile-gatefit-drift",
    "hostile-gatefit-far",
    "hostile-gatefit-nimble",
    "hostile-inner",
    "hostile-labelflip",
    "hostile-lone",
    "hostile-lone-nimble",
    "hostile-noise",
    "hostile-none",
    "hostile-signflip",
    "hostile-split",
    "hostile-stale",
    "hostile-stranger",
    "hostile-tarpit",
    "hostile-together",
    "partition",
    "partition-long",
    "stress",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::ScenarioFile;

    #[test]
    fn every_scenario_is_valid_and_says_what_it_shows() {
        for (name, text) in LIBRARY {
            let scenario = ScenarioFile::parse(name, text).expect(name);
            assert_eq!(scenario.name, *name);
            assert!(!scenario.about.is_empty(), "{name}");
        }
    }
}
