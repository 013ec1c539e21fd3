//! Prints the trace digest of a built-in scenario, flown on digits, at one thread and at two:
//! `cargo run -p starling-config --example trace -- stress 24`. `scripts/same-trace` compares what
//! a debug and a release build print.
#![allow(clippy::expect_used, missing_docs)]

use std::sync::Arc;

use starling_config::scenario::{LIBRARY, ScenarioFile};
use starling_learning::data::Shard;
use starling_learning::data::digits::digits;
use starling_node::sim::Simulation;

fn digest(scenario: &ScenarioFile) -> String {
    let (train, test) = digits().expect("embedded");
    let (train, test) = (Arc::new(train), Shard::all(Arc::new(test)));
    let network = scenario.network(train.features(), train.classes()).expect("in bounds");
    let shards = scenario.shards(&train).expect("enough rows");
    let mut simulation = Simulation::new(&network, &scenario.scenario(), shards);
    simulation.run(|_, _| {});
    let report = simulation.report(&test);
    let digest: String = report.trace.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digest} {:.6}", report.accuracy_mean())
}

fn main() {
    let name = std::env::args().nth(1).unwrap_or_else(|| "digits-n16".into());
    let (_, text) = LIBRARY.iter().find(|(known, _)| *known == name).expect("a built-in name");
    let mut scenario = ScenarioFile::parse(&name, text).expect("valid");
    scenario.data = "digits".into();
    scenario.hidden = vec![32];
    scenario.steps = 100;
    if let Some(nodes) = std::env::args().nth(2) {
        scenario.nodes = nodes.parse().expect("a number of nodes");
    }
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        println!("{name} {threads} {}", pool.install(|| digest(&scenario)));
    }
}
