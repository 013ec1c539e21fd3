//! Whole networks of the production state machine, under virtual time.
#![allow(clippy::expect_used, missing_docs)]

use core::time::Duration;
use std::sync::Arc;

use starling_learning::compress::Codec;
use starling_learning::data::Shard;
use starling_learning::data::digits::digits;
use starling_learning::data::partition::{Split, partition};
use starling_learning::model::ModelSpec;
use starling_node::settings::{Rule, Settings};
use starling_node::sim::{Report, Scenario, Simulation};
use starling_node::spec::{FeatureSpec, Membership, Network, NetworkSpec, TrainingSpec};
use starling_protocol::id::Keypair;

fn network(age_max: f64) -> Network {
    let spec = NetworkSpec {
        version: 1,
        name: "digits".into(),
        genesis_seed: 1,
        codecs: vec![Codec::Ref3, Codec::Int8, Codec::Fp32],
        membership: Membership::Open,
        root: Keypair::from_seed(&[0; 32]).id(),
        model: ModelSpec { features: 64, hidden: vec![32], classes: 10 },
        training: TrainingSpec { rate: 0.3, momentum: 0.0, batch: 32, age_max: Some(age_max) },
        features: FeatureSpec::default(),
    };
    spec.check().expect("in bounds")
}

fn run(nodes: usize, age_max: f64, split: &Split, scenario: &Scenario) -> Report {
    let (train, test) = digits().expect("embedded");
    let parts = partition(train.labels(), 10, nodes, split, scenario.seed).expect("enough rows");
    let (train, test) = (Arc::new(train), Shard::all(Arc::new(test)));
    let shards = parts
        .into_iter()
        .map(|rows| Shard::new(Arc::clone(&train), rows).expect("in range"))
        .collect();
    let mut simulation = Simulation::new(&network(age_max), scenario, shards);
    simulation.run(|_, _| {});
    simulation.report(&test)
}

#[test]
fn sixteen_nodes_of_two_classes_learn_all_ten() {
    let runs = [0, 1, 2].map(|seed| {
        let scenario = Scenario { seed, ..Scenario::default() };
        let report = run(16, 400.0, &Split::Shards(2), &scenario);
        assert!(report.accuracy_worst() >= 0.96, "seed {seed}: {report:?}");
        assert!(report.payload_bytes_mean <= 250_000.0, "seed {seed}: {report:?}");
        report.accuracy_mean()
    });
    assert!(runs.iter().sum::<f64>() / 3.0 >= 0.97, "{runs:?}");
}

#[test]
fn one_seed_gives_one_trace() {
    for nodes in [2, 8] {
        let scenario = Scenario { seed: 7, loss: 0.1, ..Scenario::default() };
        let runs = [(); 2].map(|()| run(nodes, 100.0, &Split::Shards(2), &scenario));
        assert_eq!(runs[0], runs[1]);
        let other = run(nodes, 100.0, &Split::Shards(2), &Scenario { seed: 8, ..scenario });
        assert_ne!(runs[0].trace, other.trace);
    }
}

#[test]
fn who_pulls_learns_too_and_moves_nothing_for_those_who_ask() {
    let rule = Rule { outer: None, pull: 4, trim: 1, ..Rule::default() };
    let settings = Settings { rule, ..Scenario::default().settings };
    let scenario = Scenario { settings, ..Scenario::default() };
    let report = run(8, 300.0, &Split::Dirichlet(1.0), &scenario);
    assert!(report.accuracy_worst() >= 0.9, "{report:?}");
    assert_eq!(report.violations, [""; 0]);
    // Four whole int8 models a round are answered by each in the mean, and nothing else is sent.
    let model = 2410.0 * 8.25 / 8.0;
    let models = report.payload_bytes_mean / model / report.rounds_mean;
    assert!((3.0..=4.5).contains(&models), "{models}");
}

#[test]
fn what_a_node_sends_does_not_grow_with_the_network() {
    let step = Duration::from_millis(100);
    let scenario = Scenario { step, delay: step / 10, ..Scenario::default() };
    let [few, many] = [32, 128].map(|nodes| run(nodes, 400.0, &Split::Iid, &scenario));
    let payload = many.payload_bytes_mean / few.payload_bytes_mean;
    let wire = many.wire_bytes_mean / few.wire_bytes_mean;
    let messages = many.messages_mean / few.messages_mean;
    assert!(payload < 1.1 && wire < 1.1 && messages < 1.1, "{payload} {wire} {messages}");
}

#[test]
fn frames_cost_less_than_a_thirtieth_of_large_models() {
    let spec = NetworkSpec {
        model: ModelSpec { features: 64, hidden: vec![1400], classes: 10 },
        ..network(40.0).spec
    };
    let network = spec.check().expect("in bounds");
    assert!(network.model.len() > 100_000);
    let (train, _) = digits().expect("embedded");
    let parts = partition(train.labels(), 10, 4, &Split::Iid, 0).expect("enough rows");
    let train = Arc::new(train);
    let shards = parts.into_iter().map(|rows| Shard::new(Arc::clone(&train), rows));
    let shards = shards.map(|shard| shard.expect("in range")).collect();
    let step = Duration::from_millis(100);
    let scenario = Scenario { step, delay: step / 10, ..Scenario::default() };
    let mut simulation = Simulation::new(&network, &scenario, shards);
    simulation.run(|_, _| {});
    let report = simulation.report(&Shard::all(train));
    let overhead = report.wire_bytes_mean / report.payload_bytes_mean - 1.0;
    assert!((0.0..=0.03).contains(&overhead), "{overhead}");
}
