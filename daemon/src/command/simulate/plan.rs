//! What the command line asks for, and whether it goes together.

use std::io::ErrorKind;
use std::path::Path;

use starling_config::nearest;
use starling_config::profile::Profile;
use starling_config::scenario::{FAULTS, LIBRARY, ScenarioFile};
use starling_node::sim::lab::LabRule;
use starling_node::sim::{Attack, Sabotage};

use crate::cli::Simulate;
use crate::exit::{Code, Failure};

fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Code::Usage, message)
}

/// The scenario with what the command line changes of it.
pub(super) fn read_scenario(
    options: &Simulate,
    seed: Option<u64>,
) -> Result<ScenarioFile, Failure> {
    let name = options.scenario.as_str();
    let built_in = LIBRARY.iter().find(|(known, _)| *known == name);
    let mut scenario = match built_in {
        _ if name == FAULTS => ScenarioFile::faults(seed.unwrap_or(0)),
        Some((_, text)) => ScenarioFile::parse(name, text).map_err(usage)?,
        None => ScenarioFile::parse(name, &read_file(name)?).map_err(usage)?,
    };
    if scenario.name.is_empty() {
        let stem = Path::new(name).file_stem().unwrap_or_default();
        scenario.name = stem.to_string_lossy().into_owned();
    }
    let given = options.clone();
    scenario.nodes = given.nodes.unwrap_or(scenario.nodes);
    scenario.seed = seed.unwrap_or(scenario.seed);
    scenario.steps = given.steps.unwrap_or(scenario.steps);
    scenario.steps_per_round = given.steps_per_round.unwrap_or(scenario.steps_per_round);
    scenario.exchanges_per_round =
        given.exchanges_per_round.unwrap_or(scenario.exchanges_per_round);
    scenario.data = given.data.unwrap_or(scenario.data);
    scenario.split = given.split.unwrap_or(scenario.split);
    scenario.profile = given.profile.unwrap_or(scenario.profile);
    scenario.codec = given.codec.unwrap_or(scenario.codec);
    scenario.rate = given.rate.unwrap_or(scenario.rate);
    scenario.view_max = given.view.unwrap_or(scenario.view_max);
    scenario.sabotage = given.sabotage.or(scenario.sabotage);
    scenario.check(name).map_err(usage)?;
    if given.codec.is_some() && scenario.profile == Profile::Paranoid {
        return Err(usage("--codec: the profile paranoid pulls whole models: leave it out"));
    }
    let strange = scenario.hostile.iter().any(|group| group.attack == Attack::Stranger {});
    if scenario.sabotage == Some(Sabotage::Stranger) && !strange && name != FAULTS {
        let message = "--sabotage stranger: this scenario has none: use hostile-stranger";
        return Err(usage(message));
    }
    Ok(scenario)
}

fn read_file(name: &str) -> Result<String, Failure> {
    std::fs::read_to_string(name).map_err(|error| {
        if error.kind() != ErrorKind::NotFound {
            return usage(format!("cannot read the scenario {name}: {error}"));
        }
        let known = || LIBRARY.iter().map(|(name, _)| *name).chain([FAULTS]);
        let meant = nearest(name, known()).map(|near| format!(" Did you mean {near}?"));
        let all: Vec<&str> = known().collect();
        usage(format!(
            "no scenario {name}: none of that name is built in, nor is there such a file.{} \
             Built in are {}",
            meant.unwrap_or_default(),
            all.join(", ")
        ))
    })
}

/// The lab baseline that is to run instead of Starling, if one is.
pub(super) fn read_rule(
    options: &Simulate,
    scenario: &ScenarioFile,
) -> Result<Option<LabRule>, Failure> {
    let text = options.rule.as_str();
    if text == "starling" {
        if options.outer {
            return Err(usage("--outer goes with a lab baseline: add --rule, as in --rule push=2"));
        }
        return Ok(None);
    }
    let rule = text.parse::<LabRule>().map_err(usage)?;
    let useless = [
        ("--profile", options.profile.is_some()),
        ("--codec", options.codec.is_some()),
        ("--view", options.view.is_some()),
        ("--exchanges-per-round", options.exchanges_per_round.is_some()),
        ("--sabotage", scenario.sabotage.is_some()),
        ("--plot", options.plot.is_some()),
        ("--compare", options.compare),
    ];
    if let Some((option, _)) = useless.iter().find(|(_, given)| *given) {
        let message = format!("{option} is of Starling, not of the baseline {rule}: leave it out");
        return Err(usage(message));
    }
    let least = match rule {
        LabRule::Local | LabRule::Pooled | LabRule::Full => 1,
        LabRule::Ring => 3,
        LabRule::FourRegular => 5,
        LabRule::Push(count) | LabRule::Pull(count) => count + 1,
    };
    if scenario.nodes < least {
        let nodes = scenario.nodes;
        let message = format!(
            "--rule {rule} takes {least} nodes or more, here are {nodes}: give it more --nodes"
        );
        return Err(usage(message));
    }
    Ok(Some(rule))
}

/// What of a scenario lab baselines do not meet: nothing goes wrong in a lab.
pub(super) fn left_out(scenario: &ScenarioFile) -> Vec<&'static str> {
    let all = [
        ("hostile nodes", !scenario.hostile.is_empty()),
        ("churn", scenario.churn.is_some()),
        ("partition", scenario.partition.is_some()),
        ("loss", scenario.loss > 0.0),
        ("duplication", scenario.duplication > 0.0),
        ("slow nodes", scenario.slow_share > 0.0),
        ("delay", scenario.delay_steps > ScenarioFile::default().delay_steps),
    ];
    all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
}

/// Before a long run, not after it.
pub(super) fn check_plot(options: &Simulate) -> Result<(), Failure> {
    let Some(path) = &options.plot else { return Ok(()) };
    let named = |what: &str| usage(format!("--plot {}: {what}", path.display()));
    if path.extension().is_none_or(|kind| !kind.eq_ignore_ascii_case("svg")) || path.is_dir() {
        return Err(named("it draws SVG: name a file that ends in .svg"));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if parent.is_none_or(Path::is_dir) {
        return Ok(());
    }
    Err(named("its folder does not exist: make it first"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    fn refusal(line: &str) -> String {
        let words = format!("starling simulate {line}");
        let cli = match Cli::try_parse_from(words.split(' ')) {
            Ok(cli) => cli,
            Err(error) => return error.to_string(),
        };
        let Command::Simulate(options) = cli.command else { panic!("{line}") };
        let read = read_scenario(&options, options.seed)
            .and_then(|scenario| read_rule(&options, &scenario))
            .and_then(|_| check_plot(&options));
        read.err().map_or_else(|| "accepted".to_owned(), |failure| failure.message)
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let cases = [
            ("digits-n16", "accepted"),
            ("digits-n16 --rule push=2 --outer --rate 0.2 --steps 100", "accepted"),
            ("digits-n16 --outer", "--outer goes with a lab baseline"),
            ("digits-n16 --rule push=2 --codec fp32", "--codec is of Starling"),
            ("digits-n16 --rule push=2 --profile safe", "--profile is of Starling"),
            ("digits-n16 --rule full --sabotage mean", "--sabotage is of Starling"),
            ("digits-n16 --rule push=16", "--rule push=16 takes 17 nodes or more, here are 16"),
            ("digits-n16 --rule four-regular --nodes 4", "--rule four-regular takes 5 nodes"),
            ("digits-n16 --profile paranoid --codec fp32", "--codec: the profile paranoid"),
            ("digits-n16 --sabotage stranger", "--sabotage stranger: this scenario has none"),
            ("hostile-stranger --sabotage stranger", "accepted"),
            ("digits-n16 --view 2", "digits-n16: view_max: found 2, allowed is 3 to 1024"),
            ("digits-n16 --plot out.png", "--plot out.png: it draws SVG"),
            ("digits-n16 --plot nowhere/at/all.svg", "--plot nowhere/at/all.svg: its folder"),
            ("digit-n16", "no scenario digit-n16: none of that name is built in, nor is there"),
        ];
        for (line, expected) in cases {
            let found = refusal(line);
            assert!(found.starts_with(expected), "{line}: {found}");
        }
        assert!(refusal("digit-n16").contains("Did you mean digits-n16?"));
    }

    #[test]
    fn numbers_out_of_range_are_named() {
        let cases = [
            ("digits-n16 --seeds 0", "0 is not in 1..=100000"),
            ("digits-n16 --seeds 100000000000", "100000000000 is not in 1..=100000"),
            ("digits-n16 --seed 18446744073709551615", "is not in 0..=9007199254740992"),
            ("digits-n16 --nodes -3", "invalid value '-3' for '--nodes"),
        ];
        for (line, expected) in cases {
            let found = refusal(line);
            assert!(found.contains(expected), "{line}: {found}");
        }
    }

    #[test]
    fn what_a_lab_does_not_meet_is_told() {
        let of = |name: &str| {
            let (_, text) = LIBRARY.iter().find(|(known, _)| *known == name).expect("built in");
            left_out(&ScenarioFile::parse(name, text).expect("valid"))
        };
        assert_eq!(of("digits-n16"), [""; 0]);
        assert_eq!(of("hostile-alie"), ["hostile nodes"]);
        assert_eq!(of("stress"), ["churn", "loss", "slow nodes"]);
    }
}
