//! What is promised of every run is watched: each promise, broken on purpose, is found.

use starling_config::scenario::ScenarioFile;
use starling_node::sim::Sabotage;

use super::{built_in, fly};

fn small() -> ScenarioFile {
    let mut scenario = built_in("hostile-stranger");
    (scenario.nodes, scenario.steps, scenario.patience) = (8, 80, 4.0);
    scenario
}

#[test]
fn an_unbroken_run_has_no_violations_and_all_its_merges_are_checked() {
    let report = fly(&small());
    assert_eq!(report.violations, [""; 0]);
    let (merged, ..) = report.merges;
    // Two merges are a pair; of the others one end lost its weight or its frame.
    assert!(2 * report.pairs_checked > 4 * merged / 5, "{} of {merged}", report.pairs_checked);
}

#[test]
fn halves_that_grew_far_apart_grow_together_again() {
    for seed in 100..102 {
        let scenario = ScenarioFile { steps: 3000, seed, ..built_in("partition-long") };
        let report = fly(&scenario);
        assert!(report.accuracy_worst() >= 0.95, "seed {seed}: {report:?}");
    }
}

#[test]
fn each_promise_broken_on_purpose_is_found() {
    for (sabotage, expected) in [
        (Sabotage::Replay, "twice"),
        (Sabotage::Mean, "did not keep the mean"),
        (Sabotage::Stranger, "which is no member"),
        (Sabotage::Ban, "honest nodes"),
        (Sabotage::Finite, "no numbers"),
        (Sabotage::Stall, "did not come to its end"),
    ] {
        let scenario = ScenarioFile { sabotage: Some(sabotage), ..small() };
        let found = fly(&scenario).violations;
        let named = found.iter().any(|what| what.contains(expected));
        assert!(named, "{}: {found:?}", sabotage.name());
    }
    assert_eq!(Sabotage::ALL.len(), 6, "a new one belongs above");
}

#[test]
fn what_is_broken_is_left_when_a_scenario_shrinks() {
    let scenario = ScenarioFile {
        sabotage: Some(Sabotage::Mean),
        loss: 0.1,
        duplication: 0.2,
        slow_share: 0.25,
        ..small()
    };
    let small = scenario.shrink(|scenario| !fly(scenario).violations.is_empty());
    assert_eq!((small.loss, small.duplication, small.slow_share), (0.0, 0.0, 0.0));
    assert_eq!((small.nodes, small.hostile.len()), (2, 0));
    assert_eq!(small.sabotage, Some(Sabotage::Mean));
}

#[test]
fn one_seed_gives_one_trace_at_any_number_of_threads() {
    let mut scenario = built_in("stress");
    (scenario.nodes, scenario.steps) = (64, 40);
    let digest = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        pool.install(|| fly(&scenario))
    };
    let one = digest(1);
    assert_eq!(one, digest(2));
    assert_eq!(one, digest(3));
    scenario.seed += 1;
    assert_ne!(one.trace, fly(&scenario).trace);
}
