//! Gossip between two nodes moves weight from one to the other and makes none: the mean of their
//! parameters is the same before and after, whatever the codec, to the last bits of fp32.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use starling_learning::compress::{Codec, Codecs};
use starling_learning::data::Shard;
use starling_learning::data::digits::digits;
use starling_learning::model::ModelSpec;
use starling_node::jobs::{Base, Done, Encoded, Job, MergeTerms};
use starling_node::replica::Replica;
use starling_node::settings::{Rule, Settings};
use starling_node::spec::{FeatureSpec, Membership, Network, NetworkSpec, TrainingSpec};
use starling_node::worker::{JobId, Worker};
use starling_protocol::id::NodeId;

fn network() -> Network {
    let spec = NetworkSpec {
        version: 1,
        name: "pair".into(),
        genesis_seed: 1,
        codecs: Codec::ALL.to_vec(),
        membership: Membership::Open,
        root: NodeId([0; 32]),
        model: ModelSpec { features: 64, hidden: vec![32], classes: 10 },
        training: TrainingSpec { rate: 0.3, momentum: 0.0, batch: 32, age_max: Some(400.0) },
        features: FeatureSpec::default(),
    };
    spec.check().expect("in bounds")
}

fn worker(network: &Network, rows: core::ops::Range<u32>, codec: Codec) -> Worker {
    let (train, _) = digits().expect("embedded");
    let shard = Shard::new(Arc::new(train), rows.collect()).expect("in range");
    let rule = Rule { codec, ..Rule::default() };
    Worker::new(Replica::new(network, &shard, &Settings { rule, ..Settings::default() }, 7))
}

fn train(worker: &mut Worker) {
    worker.submit(JobId(0), Job::Train { steps: 4, age: 0.0 });
    while worker.advance().is_none() {}
}

fn encoded(done: Option<Done>) -> Encoded {
    match done {
        Some(Done::Encoded(model) | Done::Answered { reply: model, .. }) => model,
        other => panic!("{other:?}"),
    }
}

fn mean(pair: [&Worker; 2]) -> Vec<f64> {
    let [a, b] = pair.map(|worker| worker.replica().params());
    a.iter().zip(b).map(|(a, b)| f64::midpoint(f64::from(*a), f64::from(*b))).collect()
}

#[test]
fn an_exchange_keeps_the_mean_and_brings_the_two_together() {
    let (asker, answerer) = (NodeId([1; 32]), NodeId([2; 32]));
    let terms = MergeTerms { threshold: 1e9, weight: 0.5, recover: false };
    for codec in Codec::ALL {
        let network = network();
        let mut one = worker(&network, 0..400, codec);
        let mut two = worker(&network, 400..800, codec);
        for _ in 0..5 {
            train(&mut one);
            train(&mut two);
            let before = mean([&one, &two]);
            let job = Job::Encode { peer: answerer, base: Base::Newest, codecs: Codecs::ALL };
            let request = encoded(one.submit(JobId(1), job));
            let (peer, score) = (asker, false);
            let job = Job::Answer { peer, request, terms: Some(terms), score, codecs: Codecs::ALL };
            let reply = encoded(two.submit(JobId(2), job));
            one.submit(JobId(3), Job::Absorb { peer: answerer, reply, terms });
            let after = mean([&one, &two]);
            for (before, after) in before.iter().zip(&after) {
                assert!((before - after).abs() < 1e-6, "{codec}: {before} became {after}");
            }
        }
        let [a, b] = [&one, &two].map(|worker| worker.replica().params().to_vec());
        let apart = starling_learning::mix::distance(&a, &b) / starling_learning::mix::norm(&a);
        assert!(apart < 0.1, "{codec}: {apart}");
    }
}
