//! What hostile nodes cost a flock, and what they would cost one without defences.

use rayon::prelude::*;
use starling_config::profile::Profile;
use starling_node::sim::Report;

use super::{built_in, fly};

/// One seed's accuracy under flipped labels strays by 1.4 points, so the mean of six by 0.6.
const SEEDS: u64 = 6;

/// Accuracy of the mean node, over all seeds.
fn accuracy(name: &str, profile: Profile) -> f64 {
    let runs = reports(name, profile);
    runs.iter().map(Report::accuracy_mean).sum::<f64>() / runs.len() as f64
}

fn reports(name: &str, profile: Profile) -> Vec<Report> {
    let run = |seed| {
        let mut scenario = built_in(name);
        (scenario.seed, scenario.profile) = (seed, profile);
        let report = fly(&scenario);
        assert_eq!(report.violations, [""; 0], "{name}, seed {seed}");
        report
    };
    (0..SEEDS).into_par_iter().map(run).collect()
}

#[test]
fn three_of_sixteen_cost_little_and_would_ruin_a_flock_without_defences() {
    let alone = accuracy("hostile-none", Profile::Closed);
    assert!(alone >= 0.965, "{alone}");
    // Attack, what it may cost, and what is left at most without gate, filter, trial and ages.
    for (name, cost, ruin) in [
        ("hostile-signflip", 0.015, 0.2),
        ("hostile-noise", 0.015, 0.92),
        ("hostile-labelflip", 0.03, 0.945),
        ("hostile-alie", 0.015, 0.945),
        ("hostile-gatefit", 0.015, 0.3),
        ("hostile-flood", 0.015, 0.2),
    ] {
        let defended = accuracy(name, Profile::Closed);
        assert!(defended >= alone - cost, "{name}: {defended} where {alone} is usual");
        let control = accuracy(name, Profile::MeanOnly);
        assert!(control <= ruin, "{name}: {control} without defence");
    }
    for name in ["hostile-gatefit-nimble", "hostile-gatefit-far", "hostile-lone", "hostile-stale"] {
        let defended = accuracy(name, Profile::Closed);
        assert!(defended >= alone - 0.02, "{name}: {defended} where {alone} is usual");
    }
}

#[test]
fn a_liar_about_age_moves_honest_ages_by_less_than_a_twentieth() {
    let rounds = |name: &str| {
        let runs = reports(name, Profile::Closed);
        runs.iter().map(|report| report.rounds_mean).sum::<f64>() / runs.len() as f64
    };
    // A flock is done at one age: what it took to get there is how far its ages were moved.
    let usual = rounds("hostile-none");
    for liar in ["hostile-age", "hostile-age-low"] {
        let moved = rounds(liar) / usual - 1.0;
        assert!(moved.abs() <= 0.05, "{liar}: {moved}");
    }
}

#[test]
fn who_does_not_answer_costs_little_time() {
    let seconds = |name: &str| -> f64 {
        let mut scenario = built_in(name);
        scenario.steps_per_round = 8;
        scenario.steps = 1000;
        fly(&scenario).virtual_time.as_secs_f64()
    };
    let usual = seconds("hostile-none");
    for name in ["hostile-tarpit", "hostile-dawdle"] {
        let lost = seconds(name) / usual - 1.0;
        assert!(lost <= 0.05, "{name}: {lost}");
    }
}

#[test]
fn strangers_are_never_merged_and_cost_nothing() {
    for report in reports("hostile-stranger", Profile::Closed) {
        assert!(report.accuracy_worst() >= 0.96, "{report:?}");
        assert_eq!(report.honest_bans, 0);
    }
}

#[test]
fn several_attacks_at_once_are_survived() {
    for report in reports("hostile-together", Profile::Closed) {
        assert!(report.accuracy_worst() >= 0.94, "{report:?}");
    }
}
