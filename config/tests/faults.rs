//! Random fault schedules: whatever befalls a network, nothing that must hold is broken.
//! `starling simulate faults --seeds 10000` runs more, `starling simulate faults --seed 17` one.
#![allow(clippy::expect_used, missing_docs)]

use std::sync::Arc;

use rayon::prelude::*;
use starling_config::scenario::ScenarioFile;
use starling_learning::data::digits::digits;
use starling_learning::data::{Dataset, Shard};
use starling_node::sim::{Report, Simulation};

const SEEDS: u64 = 200;

fn run(scenario: &ScenarioFile, train: &Arc<Dataset>, test: &Shard) -> Report {
    let network = scenario.network(train.features(), train.classes()).expect("in bounds");
    let shards = scenario.shards(train).expect("enough rows");
    let mut simulation = Simulation::new(&network, &scenario.scenario(), shards);
    simulation.run(|_, _| {});
    simulation.report(test)
}

#[test]
fn no_schedule_of_faults_breaks_a_promise() {
    let (train, test) = digits().expect("embedded");
    let (train, test) = (Arc::new(train), Shard::all(Arc::new(test)));
    let violations = |scenario: &ScenarioFile| run(scenario, &train, &test).violations;
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
