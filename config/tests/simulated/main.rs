//! Scenarios as a researcher writes them, on the embedded digits.
#![allow(clippy::expect_used, missing_docs)]

mod faults;
mod hostile;
mod promises;

use std::sync::{Arc, LazyLock};

use starling_config::scenario::{LIBRARY, ScenarioFile};
use starling_learning::data::digits::digits;
use starling_learning::data::{Dataset, Shard};
use starling_node::sim::{Report, Simulation};

static DIGITS: LazyLock<(Arc<Dataset>, Shard)> = LazyLock::new(|| {
    let (train, test) = digits().expect("embedded");
    (Arc::new(train), Shard::all(Arc::new(test)))
});

/// Runs a scenario on the digits.
fn fly(scenario: &ScenarioFile) -> Report {
    let (train, test) = &*DIGITS;
    let network = scenario.network(train.features(), train.classes()).expect("in bounds");
    let shards = scenario.shards(train).expect("enough rows");
    let mut simulation = Simulation::new(&network, &scenario.scenario(), shards);
    simulation.run(|_, _| {});
    simulation.report(test)
}

/// A built-in scenario, with the digits and a model that suits them in the place of its own.
fn built_in(name: &str) -> ScenarioFile {
    let (_, text) = LIBRARY.iter().find(|(known, _)| *known == name).expect(name);
    let mut scenario = ScenarioFile::parse(name, text).expect("valid");
    scenario.data = "digits".into();
    scenario.hidden = vec![32];
    scenario.steps = 400;
    scenario.steps_per_round = 4;
    scenario
}
