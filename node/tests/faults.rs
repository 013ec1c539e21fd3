//! Random fault schedules: whatever befalls a network, it comes to its end, no honest node bans
//! another, and nothing leaves the range of numbers. `SEEDS=10000 cargo test --release -p
//! starling-node --test faults` runs more of them; `SEED=17` one again.
#![allow(clippy::expect_used, missing_docs)]

use core::time::Duration;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use starling_learning::compress::Codec;
use starling_learning::data::Shard;
use starling_learning::data::digits::digits;
use starling_learning::data::partition::{Split, partition};
use starling_learning::model::ModelSpec;
use starling_node::settings::Settings;
use starling_node::sim::{Churn, Partition, Report, Scenario, Simulation};
use starling_node::spec::{FeatureSpec, Membership, Network, NetworkSpec, TrainingSpec};
use starling_protocol::id::NodeId;

const AGE_MAX: f64 = 48.0;
const STEP: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(600);

fn network() -> Network {
    let spec = NetworkSpec {
        version: 1,
        name: "faults".into(),
        genesis_seed: 1,
        codecs: vec![Codec::Ref3, Codec::Int8],
        membership: Membership::Open,
        root: NodeId([0; 32]),
        model: ModelSpec { features: 64, hidden: vec![], classes: 10 },
        training: TrainingSpec { rate: 0.1, momentum: 0.0, batch: 8, age_max: Some(AGE_MAX) },
        features: FeatureSpec::default(),
    };
    spec.check().expect("in bounds")
}

/// Every fault at once, each as bad as the seed says.
fn scenario(seed: u64, nodes: usize, rng: &mut ChaCha8Rng) -> Scenario {
    let churn = rng.random_bool(0.5).then(|| Churn {
        down_share: rng.random_range(0.0..0.4),
        up_mean: STEP * rng.random_range(50..400),
        // Of a few nodes that forget everything, nobody may be left who knows anything.
        fresh: rng.random_bool(0.5) && nodes >= 5,
    });
    let begin = STEP * rng.random_range(0..40);
    let partition = rng.random_bool(0.5).then(|| Partition {
        begin,
        end: begin + STEP * rng.random_range(1..400),
        share: rng.random_range(0.0..0.6),
    });
    Scenario {
        seed,
        settings: Settings {
            settle: STEP * 20,
            checkpoint_interval: STEP * 20,
            ..Settings::default()
        },
        step: STEP,
        slow_share: rng.random_range(0.0..0.5),
        slow_factor: rng.random_range(1..10),
        delay: STEP.mul_f64(rng.random_range(0.01..4.0)),
        loss: rng.random_range(0.0..0.4),
        duplication: rng.random_range(0.0..0.5),
        churn,
        partition,
        duration_max: LONGEST,
        ..Scenario::default()
    }
}

fn run(
    network: &Network,
    train: &Arc<starling_learning::data::Dataset>,
    test: &Shard,
    seed: u64,
) -> Report {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let nodes = rng.random_range(2..9);
    let scenario = scenario(seed, nodes, &mut rng);
    let parts = partition(train.labels(), 10, nodes, &Split::Shards(2), seed).expect("enough rows");
    let shards =
        parts.into_iter().map(|rows| Shard::new(Arc::clone(train), rows).expect("in range"));
    let mut simulation = Simulation::new(network, &scenario, shards.collect());
    simulation.run(|_, _| {});
    simulation.report(test)
}

fn check(seed: u64, report: &Report) -> Result<(), String> {
    let fail = |what: &str| Err(format!("SEED={seed}: {what}: {report:?}"));
    if report.honest_bans > 0 {
        return fail("an honest node banned another");
    }
    if !report.consensus.is_finite() || report.accuracies.iter().any(|share| !share.is_finite()) {
        return fail("left the range of numbers");
    }
    if report.virtual_time >= LONGEST - Duration::from_secs(1) {
        return fail("did not come to its end");
    }
    if report.messages_mean > 200.0 * report.virtual_time.as_secs_f64() + 2000.0 {
        return fail("said too much");
    }
    Ok(())
}

#[test]
fn no_schedule_of_faults_breaks_a_promise() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (train, test) = digits().expect("embedded");
    let (train, test) = (Arc::new(train), Shard::all(Arc::new(test)));
    let network = network();
    let seeds = number("SEED").map_or(0..number("SEEDS").unwrap_or(200), |seed| seed..seed + 1);
    let failures: Vec<String> = seeds
        .into_par_iter()
        .filter_map(|seed| check(seed, &run(&network, &train, &test, seed)).err())
        .collect();
    assert!(failures.is_empty(), "{} of them, such as\n{}", failures.len(), failures[0]);
}
