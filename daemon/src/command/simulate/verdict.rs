//! What a run came to, for people and scripts.

use std::time::Instant;

use serde_json::{Value, json};
use starling_config::scenario::{STEP, ScenarioFile};
use starling_node::settings::Rule;
use starling_node::sim::Report;
use starling_node::sim::lab::{Lab, LabRule};

use super::plan::left_out;
use super::rounded;
use super::world::World;
use crate::memory;

/// Our rate is three quarters of what suits plain averaging; baselines get theirs.
const OUR_SHARE_OF_RATE: f64 = 0.75;

/// The scenario as it was run, but for what the verdict says anyway.
fn parameters(scenario: &ScenarioFile) -> Value {
    let mut all = serde_json::to_value(scenario).unwrap_or_default();
    if let Some(all) = all.as_object_mut() {
        ["name", "about", "nodes", "seed"].iter().for_each(|key| drop(all.shift_remove(*key)));
    }
    all
}

/// Of our own rule.
pub(super) fn of_starling(
    scenario: &ScenarioFile,
    report: &Report,
    (began, memory_before): (Instant, Option<u64>),
) -> Value {
    let digest: String = report.trace.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let (accepted, rejected, failed) = report.merges;
    json!({
        "event": "simulate.verdict",
        "scenario": scenario.name,
        "version": env!("CARGO_PKG_VERSION"),
        "rule": "starling",
        "seed": scenario.seed,
        "nodes": scenario.nodes,
        "parameters": parameters(scenario),
        "rounds_mean": rounded(report.rounds_mean, 1),
        "rounds_per_second": rounded(report.rounds_mean / report.virtual_time.as_secs_f64(), 4),
        "age_mean": rounded(report.age_mean, 1),
        "accuracy_served_mean": rounded(report.accuracy_mean(), 4),
        "accuracy_worst": rounded(report.accuracy_worst(), 4),
        "cross_error_mean": rounded(report.cross_error_mean, 4),
        "consensus": rounded(report.consensus, 6),
        "consensus_believed": rounded(report.consensus_believed, 6),
        "payload_bytes_per_node_mean": report.payload_bytes_mean.round(),
        "wire_bytes_per_node_mean": report.wire_bytes_mean.round(),
        "saved_bytes_per_node_mean": report.saved_bytes_mean.round(),
        "messages_per_node_mean": rounded(report.messages_mean, 1),
        "accepted": accepted,
        "rejected": rejected,
        "failed": failed,
        "honest_bans": report.honest_bans,
        "violations": report.violations,
        "pairs_checked": report.pairs_checked,
        "virtual_seconds": rounded(report.virtual_time.as_secs_f64(), 2),
        "trace_digest": digest,
        "memory_peak_bytes": memory::peak(),
        "memory_before_bytes": memory_before,
        "seconds": rounded(began.elapsed().as_secs_f64(), 2),
    })
}

/// Of a lab baseline.
pub(super) fn of_lab(
    scenario: &ScenarioFile,
    world: &World,
    rule: LabRule,
    outer: bool,
    rate: Option<f64>,
) -> Value {
    let began = Instant::now();
    let lab = Lab {
        rule,
        rate: rate.unwrap_or(scenario.rate / if outer { 1.0 } else { OUR_SHARE_OF_RATE }),
        outer: if outer { Rule::default().outer } else { None },
        steps: scenario.steps,
        steps_per_round: scenario.steps_per_round,
        batch: scenario.batch as usize,
        seed: scenario.seed,
    };
    let report = lab.run(&world.network.model, &world.shards, &world.pooled, &world.test);
    let count = report.accuracies.len().max(1) as f64;
    let mean = report.accuracies.iter().sum::<f64>() / count;
    let worst = report.accuracies.iter().copied().reduce(f64::min);
    json!({
        "event": "simulate.verdict",
        "scenario": scenario.name,
        "version": env!("CARGO_PKG_VERSION"),
        "baseline": true,
        "leaves_out": left_out(scenario),
        "rule": if outer { format!("{rule}+outer") } else { rule.to_string() },
        "rate": rounded(lab.rate, 4),
        "seed": scenario.seed,
        "nodes": scenario.nodes,
        "parameters": parameters(scenario),
        "accuracy_served_mean": rounded(mean, 4),
        "accuracy_worst": rounded(worst.unwrap_or_default(), 4),
        "payload_bytes_per_node_mean": report.payload_bytes_mean.round(),
        "seconds": rounded(began.elapsed().as_secs_f64(), 2),
    })
}

/// What the scenario has but the run was too short for.
pub(super) fn unmet(verdict: &Value) -> Option<String> {
    let begin = verdict.pointer("/parameters/partition/begin_steps")?.as_f64()?;
    let ended = verdict.get("virtual_seconds")?.as_f64()? / STEP.as_secs_f64();
    (ended <= begin).then(|| {
        format!(
            "the partition was to begin at step {begin}, but the run ended at {ended:.0}: \
             give it more --steps"
        )
    })
}

/// One row of the table that people see, with its heading.
pub(super) const HEADING: &str = "rule              seed  mean %  worst %  model MB  rounds    \
                                  merged  rejected  failed  seconds";

/// See [`HEADING`].
pub(super) fn row(verdict: &Value) -> String {
    let number = |key: &str| verdict.get(key).and_then(Value::as_f64);
    let shown = |key: &str, scale: f64, digits: usize| {
        number(key).map_or_else(|| "-".to_owned(), |found| format!("{:.digits$}", found * scale))
    };
    format!(
        "{:<16} {:>5} {:>7} {:>8} {:>9} {:>7} {:>9} {:>9} {:>7} {:>8}",
        verdict.get("rule").and_then(Value::as_str).unwrap_or_default(),
        shown("seed", 1.0, 0),
        shown("accuracy_served_mean", 100.0, 2),
        shown("accuracy_worst", 100.0, 2),
        shown("payload_bytes_per_node_mean", 1e-6, 3),
        shown("rounds_mean", 1.0, 0),
        shown("accepted", 1.0, 0),
        shown("rejected", 1.0, 0),
        shown("failed", 1.0, 0),
        shown("seconds", 1.0, 1),
    )
}

/// The mean over several seeds of each rule, in points and megabytes.
pub(super) fn summary(seeds: &[Vec<Value>]) -> Vec<String> {
    let count = seeds.iter().map(Vec::len).max().filter(|_| seeds.len() > 1).unwrap_or_default();
    let of_rule = |place: usize| {
        let rows: Vec<&Value> = seeds.iter().filter_map(|rows| rows.get(place)).collect();
        let mean = |key: &str| {
            let all: Vec<f64> = rows.iter().filter_map(|row| row.get(key)?.as_f64()).collect();
            (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
        };
        Some(format!(
            "over {} seeds: {:<16} {:.2} % mean, {:.2} % worst node, {:.3} MB of models per node",
            rows.len(),
            rows.first()?.get("rule")?.as_str()?,
            100.0 * mean("accuracy_served_mean")?,
            100.0 * mean("accuracy_worst")?,
            mean("payload_bytes_per_node_mean")? / 1e6
        ))
    };
    (0..count).filter_map(of_rule).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_scenarios_names_every_field() {
        let page = include_str!("../../../../docs/scenarios.md");
        let scenario = ScenarioFile { nodes: 3, steps: 8, ..ScenarioFile::default() };
        let world = World::new(&scenario).expect("digits are embedded");
        let mut simulation = starling_node::sim::Simulation::new(
            &world.network,
            &scenario.scenario(),
            world.shards.clone(),
        );
        simulation.run(|_, _| {});
        let own = of_starling(&scenario, &simulation.report(&world.test), (Instant::now(), None));
        let lab = of_lab(&scenario, &world, LabRule::Push(2), true, None);
        let fields = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        let named: Vec<&str> = fields.flat_map(|fields| fields.split(", ")).collect();
        for verdict in [own, lab] {
            for key in verdict.as_object().expect("an object").keys().filter(|key| *key != "event")
            {
                assert!(named.contains(&key.as_str()), "{key}");
            }
        }
    }
}
