//! `starling simulate`: many nodes under virtual time.

mod curve;
mod verdict;
mod world;

use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use serde_json::Value;
use starling_config::scenario::{FAULTS, LIBRARY, ScenarioFile};
use starling_node::sim::lab::LabRule;
use starling_node::sim::{Report, Simulation};

use self::curve::Curve;
use self::world::World;
use crate::cli::Simulate;
use crate::exit::{Code, Failure, say};
use crate::memory;

/// Networks smaller than this are run side by side, larger ones on all threads.
const SIDE_BY_SIDE_BELOW: usize = 12;
/// Runs side by side before their verdicts are shown.
const BATCH: usize = 64;
/// Baselines of `--compare`, and whether they get our outer step.
const BASELINES: &[(LabRule, bool)] = &[
    (LabRule::Local, false),
    (LabRule::Pooled, false),
    (LabRule::Full, false),
    (LabRule::Ring, false),
    (LabRule::FourRegular, false),
    (LabRule::Push(2), false),
    (LabRule::Push(2), true),
    (LabRule::Pull(2), false),
];

/// Runs the command.
pub fn run(options: &Simulate) -> Result<(), Failure> {
    let first = read_scenario(options, options.seed)?;
    let lab = match options.rule.as_str() {
        "starling" => None,
        text => Some(text.parse::<LabRule>().map_err(|error| Failure::new(Code::Usage, error))?),
    };
    check_plot(options)?;
    if !options.json {
        say(format!("{}: {} {} nodes.", first.name, first.about, first.nodes));
    }
    let seeds: Vec<u64> = (first.seed..first.seed.saturating_add(options.seeds.max(1))).collect();
    let plain = lab.is_none() && !options.compare;
    if plain && seeds.len() > 1 && first.nodes < SIDE_BY_SIDE_BELOW {
        return run_side_by_side(options, &seeds);
    }
    let mut verdicts = Vec::new();
    for seed in seeds {
        let scenario = read_scenario(options, Some(seed))?;
        let world = World::new(&scenario)?;
        let mut curve = Curve::new(scenario.steps, options.json);
        let found = match lab {
            Some(rule) => verdict::of_lab(&scenario, &world, rule, options.outer, options.rate),
            None => fly(&scenario, &world, &mut curve),
        };
        if !options.json {
            say(verdict::HEADING);
        }
        show(&found, options.json);
        if let Some(path) = &options.plot {
            curve.draw(path, &format!("{}, seed {seed}", scenario.name))?;
        }
        if options.compare {
            for (rule, outer) in BASELINES {
                let found = verdict::of_lab(&scenario, &world, *rule, *outer, options.rate);
                show(&found, options.json);
            }
        }
        verdicts.push(found);
    }
    if let Some(summary) = verdict::summary(&verdicts).filter(|_| !options.json) {
        say(summary);
    }
    judge(options, &verdicts)
}

/// Small networks, many of them: what is wanted is whether anything was violated.
fn run_side_by_side(options: &Simulate, seeds: &[u64]) -> Result<(), Failure> {
    let began = Instant::now();
    let mut all = Vec::new();
    for batch in seeds.chunks(BATCH) {
        let one = |seed: &u64| -> Result<Value, Failure> {
            let scenario = read_scenario(options, Some(*seed))?;
            let before = (Instant::now(), memory::now());
            let report = report(&scenario, &World::new(&scenario)?, |_, _| {});
            Ok(verdict::of_starling(&scenario, &report, before))
        };
        let verdicts: Result<Vec<Value>, Failure> = batch.par_iter().map(one).collect();
        for found in verdicts? {
            if options.json {
                show(&found, true);
            }
            all.push(found);
        }
    }
    if !options.json {
        let bad = all.iter().filter(|found| violations(found) > 0).count();
        let (count, seconds) = (seeds.len(), began.elapsed().as_secs_f64());
        say(format!("{count} seeds in {seconds:.1} s, {bad} with violations"));
        verdict::summary(&all).into_iter().for_each(say);
    }
    judge(options, &all)
}

/// Before a long run, not after it.
fn check_plot(options: &Simulate) -> Result<(), Failure> {
    let Some(path) = &options.plot else { return Ok(()) };
    if options.seeds > 1 || options.rule != "starling" {
        let message = "--plot draws one run of Starling: leave out --seeds and --rule";
        return Err(Failure::new(Code::Usage, message));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if parent.is_none_or(Path::is_dir) {
        return Ok(());
    }
    let message = format!("--plot {}: its folder does not exist: make it first", path.display());
    Err(Failure::new(Code::Usage, message))
}

fn read_scenario(options: &Simulate, seed: Option<u64>) -> Result<ScenarioFile, Failure> {
    let name = options.scenario.as_str();
    let usage = |message: String| Failure::new(Code::Usage, message);
    let built_in = LIBRARY.iter().find(|(known, _)| *known == name);
    let mut scenario = match built_in {
        _ if name == FAULTS => ScenarioFile::faults(seed.unwrap_or(0)),
        Some((_, text)) => ScenarioFile::parse(name, text).map_err(usage)?,
        None => {
            let text = std::fs::read_to_string(Path::new(name)).map_err(|error| {
                let known: Vec<&str> = LIBRARY.iter().map(|(name, _)| *name).collect();
                let known = known.join(", ");
                let message = format!(
                    "no scenario {name}: none of that name is built in, and as a file: {error}. \
                     Built in are {known}, faults"
                );
                Failure::new(Code::Usage, message)
            })?;
            ScenarioFile::parse(name, &text).map_err(usage)?
        }
    };
    let given = options.clone();
    scenario.nodes = given.nodes.unwrap_or(scenario.nodes);
    scenario.seed = seed.unwrap_or(scenario.seed);
    scenario.steps = given.steps.unwrap_or(scenario.steps);
    scenario.steps_per_round = given.steps_per_round.unwrap_or(scenario.steps_per_round);
    scenario.data = given.data.unwrap_or(scenario.data);
    scenario.split = given.split.unwrap_or(scenario.split);
    scenario.profile = given.profile.unwrap_or(scenario.profile);
    scenario.codec = given.codec.unwrap_or(scenario.codec);
    scenario.rate = given.rate.unwrap_or(scenario.rate);
    scenario.view_max = given.view.unwrap_or(scenario.view_max);
    scenario.check(name).map_err(usage)?;
    Ok(scenario)
}

fn report(
    scenario: &ScenarioFile,
    world: &World,
    progress: impl FnMut(starling_protocol::time::Time, &mut Simulation),
) -> Report {
    let mut simulation =
        Simulation::new(&world.network, &scenario.scenario(), world.shards.clone());
    simulation.run(progress);
    simulation.report(&world.test)
}

fn fly(scenario: &ScenarioFile, world: &World, curve: &mut Curve) -> Value {
    let before = (Instant::now(), memory::now());
    let found = report(scenario, world, |now, running| curve.progress(now, running, &world.test));
    verdict::of_starling(scenario, &found, before)
}

fn violations(verdict: &Value) -> usize {
    verdict.get("violations").and_then(Value::as_array).map_or(0, Vec::len)
}

/// A violation is a defect: says what it was and the smallest scenario that shows it, which is all
/// that is needed to see it again. On stderr: who reads the verdicts finds the violation in them.
fn judge(options: &Simulate, verdicts: &[Value]) -> Result<(), Failure> {
    let Some(bad) = verdicts.iter().find(|verdict| violations(verdict) > 0) else { return Ok(()) };
    let seed = bad.get("seed").and_then(Value::as_u64).unwrap_or_default();
    let scenario = read_scenario(options, Some(seed))?;
    let fails = |scenario: &ScenarioFile| {
        let world = World::new(scenario);
        world.is_ok_and(|world| !report(scenario, &world, |_, _| {}).violations.is_empty())
    };
    let found = bad.get("violations").map(Value::to_string).unwrap_or_default();
    let small = toml::to_string(&scenario.shrink(fails)).unwrap_or_default();
    let replay = replay();
    let message = format!(
        "what must always hold did not, a defect of Starling. Seed {seed}: {found}\n\
         See it again: {replay} --seeds 1 --seed {seed}\n\
         The smallest scenario found that fails, for a report:\n\n{small}"
    );
    Err(Failure::new(Code::Internal, message))
}

/// The command line as it was given; a later option of the same name wins.
fn replay() -> String {
    let given: Vec<String> = std::env::args().skip(1).collect();
    format!("starling {}", given.join(" "))
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

fn show(found: &Value, json: bool) {
    if json {
        return say(found.to_string());
    }
    say(verdict::row(found));
    for key in
        ["wire_bytes_per_node_mean", "consensus", "honest_bans", "violations", "trace_digest"]
    {
        if let Some(value) = found.get(key) {
            say(format!("  {key:28} {value}"));
        }
    }
}
