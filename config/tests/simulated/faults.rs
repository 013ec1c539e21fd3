//! Random fault schedules: whatever befalls a network, nothing that must hold is broken.
//! `starling simulate faults --seeds 10000` runs more, `starling simulate faults --seed 17` one.

use rayon::prelude::*;
use starling_config::scenario::ScenarioFile;

use super::fly;

const SEEDS: u64 = 200;

#[test]
fn no_schedule_of_faults_breaks_a_promise() {
    let violations = |scenario: &ScenarioFile| fly(scenario).violations;
    let mut failures: Vec<(ScenarioFile, Vec<String>)> = (0..SEEDS)
        .into_par_iter()
        .map(|seed| {
            let scenario = ScenarioFile::faults(seed);
            let found = violations(&scenario);
            (scenario, found)
        })
        .filter(|(_, found)| !found.is_empty())
        .collect();
    if let Some((scenario, found)) = failures.pop() {
        let (seed, count) = (scenario.seed, failures.len() + 1);
        let small = scenario.shrink(|scenario| !violations(scenario).is_empty());
        panic!("{count} of {SEEDS}; seed {seed}: {found:?}; the smallest that fails: {small:#?}");
    }
}
