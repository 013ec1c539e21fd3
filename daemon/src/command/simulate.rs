//! `starling simulate`: many nodes under virtual time.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use starling_config::load;
use starling_config::scenario::{LIBRARY, ScenarioFile};
use starling_learning::data::partition::partition;
use starling_learning::data::{DataError, Dataset, Shard};
use starling_node::settings::Rule;
use starling_node::sim::lab::{Lab, LabRule};
use starling_node::sim::{Report, Simulation};
use starling_node::spec::Network;

use crate::cli::Simulate;
use crate::dataset;
use crate::exit::{Code, Failure, say};

/// Side of the images that are pooled to half of it.
const IMAGE_SIDE: usize = 28;

/// Runs the command.
pub fn run(options: &Simulate) -> Result<(), Failure> {
    let scenario = read_scenario(options)?;
    let world = World::new(&scenario)?;
    let began = Instant::now();
    let verdict = match options.rule.as_str() {
        "starling" => {
            let report = fly(&scenario, &world, options.json);
            starling_verdict(&scenario, &report, began)
        }
        text => {
            let rule: LabRule = text.parse().map_err(|e: String| Failure::new(Code::Usage, e))?;
            lab_verdict(&scenario, &world, options, rule, began)
        }
    };
    show(&verdict, options.json);
    Ok(())
}

fn read_scenario(options: &Simulate) -> Result<ScenarioFile, Failure> {
    let name = options.scenario.as_str();
    let usage = |message: String| Failure::new(Code::Usage, message);
    let mut scenario = match LIBRARY.iter().find(|(known, _)| *known == name) {
        Some((_, text)) => ScenarioFile::parse(name, text).map_err(usage)?,
        None => {
            let text = std::fs::read_to_string(Path::new(name)).map_err(|error| {
                let known: Vec<&str> = LIBRARY.iter().map(|(name, _)| *name).collect();
                let known = known.join(", ");
                let message = format!("cannot read {name}: {error}. Built in are: {known}");
                Failure::new(Code::Usage, message)
            })?;
            ScenarioFile::parse(name, &text).map_err(usage)?
        }
    };
    if let Some(nodes) = options.nodes {
        scenario.nodes = nodes;
    }
    if let Some(seed) = options.seed {
        scenario.seed = seed;
    }
    if let Some(data) = &options.data {
        scenario.data.clone_from(data);
    }
    if let Some(split) = &options.split {
        scenario.split = split.clone();
    }
    if let Some(profile) = options.profile {
        scenario.profile = profile;
    }
    if let Some(rate) = options.rate {
        scenario.rate = rate;
    }
    scenario.check(name).map_err(usage)?;
    Ok(scenario)
}

/// Data and network of a scenario.
struct World {
    network: Network,
    shards: Vec<Shard>,
    pooled: Shard,
    test: Shard,
}

fn unusable(error: &DataError) -> Failure {
    Failure::new(Code::Data, error.to_string())
}

impl World {
    fn new(scenario: &ScenarioFile) -> Result<Self, Failure> {
        let (name, pooled_images) = match scenario.data.as_str() {
            "fashion-mnist-14" => ("fashion-mnist", true),
            "digits" | "fashion-mnist" => (scenario.data.as_str(), false),
            other => {
                let message = format!(
                    "data: found {other}, allowed is digits, fashion-mnist or fashion-mnist-14"
                );
                return Err(Failure::new(Code::Usage, message));
            }
        };
        let source = [("data.source".to_owned(), name.to_owned())];
        let config = load("scenario", "", &[], &source)
            .map_err(|errors| Failure::new(Code::Internal, errors.to_string()))?;
        let source = dataset::read(&config, None)?;
        let test = source.test.unwrap_or_else(|| source.train.clone());
        let (train, test) = if pooled_images {
            let half = |data: &Dataset| halved(data).map_err(|error| unusable(&error));
            (half(&source.train)?, half(&test)?)
        } else {
            (source.train, test)
        };
        let network = scenario
            .network(train.features(), train.classes())
            .map_err(|error| Failure::new(Code::Usage, error))?;
        let parts = if scenario.rows_per_node > 0 {
            let draw = |node| draw_rows(train.len(), scenario.rows_per_node, scenario.seed, node);
            (0..scenario.nodes).map(draw).collect()
        } else {
            let (classes, split) = (train.classes(), &scenario.split);
            partition(train.labels(), classes, scenario.nodes, split, scenario.seed)
                .map_err(|error| unusable(&error))?
        };
        let (train, test) = (Arc::new(train), Arc::new(test));
        let shards = parts.into_iter().map(|rows| Shard::new(Arc::clone(&train), rows));
        let shards: Result<Vec<Shard>, DataError> = shards.collect();
        Ok(Self {
            network,
            shards: shards.map_err(|error| unusable(&error))?,
            pooled: Shard::all(train),
            test: Shard::all(test),
        })
    }
}

fn draw_rows(rows: usize, wanted: usize, seed: u64, node: usize) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(1_000_003) + node as u64);
    let rows = u32::try_from(rows).unwrap_or(u32::MAX).max(1);
    (0..wanted).map(|_| rng.random_range(0..rows)).collect()
}

/// 28x28 images averaged over squares of two by two.
fn halved(data: &Dataset) -> Result<Dataset, DataError> {
    let half = IMAGE_SIDE / 2;
    let mut values = Vec::with_capacity(data.len() * half * half);
    for row in data.values().chunks_exact(IMAGE_SIDE * IMAGE_SIDE) {
        let pixel = |y: usize, x: usize| row.get(y * IMAGE_SIDE + x).copied().unwrap_or_default();
        for (y, x) in (0..half).flat_map(|y| (0..half).map(move |x| (2 * y, 2 * x))) {
            values.push(
                (pixel(y, x) + pixel(y, x + 1) + pixel(y + 1, x) + pixel(y + 1, x + 1)) / 4.0,
            );
        }
    }
    Dataset::new(half * half, data.classes(), values, data.labels().to_vec())
}

fn fly(scenario: &ScenarioFile, world: &World, json: bool) -> Report {
    let mut simulation =
        Simulation::new(&world.network, &scenario.scenario(), world.shards.clone());
    let terminal = std::io::stderr().is_terminal() && !json;
    let mut shown = Instant::now();
    simulation.run(|now, simulation| {
        if terminal && shown.elapsed().as_millis() > 500 {
            shown = Instant::now();
            let (age, steps) = (simulation.mean_age(), scenario.steps);
            let line = format!("\r{:8.1} virtual s, {age:.0} of {steps} steps", now.as_secs_f64());
            // Progress is a courtesy.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    });
    if terminal {
        let _ = std::io::stderr().write_all(b"\r\x1b[K");
    }
    simulation.report(&world.test)
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

fn starling_verdict(scenario: &ScenarioFile, report: &Report, began: Instant) -> Value {
    let digest: String = report.trace.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let (accepted, rejected, failed) = report.merges;
    json!({
        "event": "simulate.verdict",
        "scenario": scenario.name,
        "rule": "starling",
        "seed": scenario.seed,
        "nodes": scenario.nodes,
        "rounds_mean": rounded(report.rounds_mean, 1),
        "accuracy_served_mean": rounded(report.accuracy_mean(), 4),
        "accuracy_worst": rounded(report.accuracy_worst(), 4),
        "consensus": rounded(report.consensus, 6),
        "payload_bytes_per_node_mean": report.payload_bytes_mean.round(),
        "wire_bytes_per_node_mean": report.wire_bytes_mean.round(),
        "messages_per_node_mean": rounded(report.messages_mean, 1),
        "accepted": accepted,
        "rejected": rejected,
        "failed": failed,
        "honest_bans": report.honest_bans,
        "virtual_seconds": rounded(report.virtual_time.as_secs_f64(), 2),
        "trace_digest": digest,
        "seconds": rounded(began.elapsed().as_secs_f64(), 2),
    })
}

fn lab_verdict(
    scenario: &ScenarioFile,
    world: &World,
    options: &Simulate,
    rule: LabRule,
    began: Instant,
) -> Value {
    let lab = Lab {
        rule,
        rate: scenario.rate,
        outer: if options.outer { Rule::default().outer } else { None },
        steps: scenario.steps,
        steps_per_round: scenario.steps_per_round,
        batch: scenario.batch as usize,
        seed: scenario.seed,
    };
    let report = lab.run(&world.network.model, &world.shards, &world.pooled, &world.test);
    let count = report.accuracies.len().max(1) as f64;
    let mean = report.accuracies.iter().sum::<f64>() / count;
    json!({
        "event": "simulate.verdict",
        "scenario": scenario.name,
        "rule": rule.to_string(),
        "outer": options.outer,
        "rate": scenario.rate,
        "seed": scenario.seed,
        "nodes": scenario.nodes,
        "accuracy_served_mean": rounded(mean, 4),
        "accuracy_worst": rounded(report.accuracies.iter().copied().fold(1.0, f64::min), 4),
        "payload_bytes_per_node_mean": report.payload_bytes_mean.round(),
        "seconds": rounded(began.elapsed().as_secs_f64(), 2),
    })
}

fn show(verdict: &Value, json: bool) {
    if json {
        say(format!("{verdict}"));
        return;
    }
    for (key, value) in verdict.as_object().into_iter().flatten() {
        say(format!("{key:30} {value}"));
    }
}
