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

/// Of networks smaller than this many seeds are run before their verdicts are shown, of larger ones
/// as many as there are threads.
const SIDE_BY_SIDE_BELOW: usize = 12;
const BATCH: usize = 64;
/// A network as large as this has all threads and the memory to itself.
const ALONE_FROM: usize = 257;
/// Most seeds of which each has its row for people.
const ROWS_MAX: usize = 64;
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
    let batch = match first.nodes {
        0..SIDE_BY_SIDE_BELOW => BATCH,
        SIDE_BY_SIDE_BELOW..ALONE_FROM => rayon::current_num_threads(),
        _ => 1,
    };
    let (began, alone) = (Instant::now(), seeds.len() == 1);
    let few = seeds.len() <= ROWS_MAX;
    let mut verdicts = Vec::new();
    for (index, batch) in seeds.chunks(batch).enumerate() {
        let one = |place: usize, seed: u64| run_seed(options, lab, seed, alone, index + place == 0);
        let runs: Result<Vec<Vec<Value>>, Failure> =
            batch.par_iter().enumerate().map(|(place, seed)| one(place, *seed)).collect();
        for rows in runs? {
            if few && !options.json && (alone || verdicts.is_empty()) {
                say(verdict::HEADING);
            }
            if few || options.json {
                rows.iter().for_each(|found| show(found, options.json, alone));
            }
            verdicts.extend(rows.into_iter().find(|found| found.get("baseline").is_none()));
        }
    }
    if !options.json && !alone {
        let bad = verdicts.iter().filter(|found| violations(found) > 0).count();
        let (count, seconds) = (seeds.len(), began.elapsed().as_secs_f64());
        say(format!("{count} seeds in {seconds:.1} s, {bad} with violations"));
        verdict::summary(&verdicts).into_iter().for_each(say);
    }
    judge(options, &verdicts)
}

/// What one seed came to, and beside it the baselines if they are wanted. As lines for scripts ours
/// is the last.
fn run_seed(
    options: &Simulate,
    lab: Option<LabRule>,
    seed: u64,
    alone: bool,
    first: bool,
) -> Result<Vec<Value>, Failure> {
    let scenario = read_scenario(options, Some(seed))?;
    let world = World::new(&scenario)?;
    let of_lab = |rule, outer| verdict::of_lab(&scenario, &world, rule, outer, options.rate);
    let plot = options.plot.as_ref().filter(|_| first);
    let mut rows = vec![match lab {
        Some(rule) => of_lab(rule, options.outer),
        None if alone || plot.is_some() => {
            let mut curve = Curve::new(scenario.steps, options.json, !alone);
            let found = fly(&scenario, &world, &mut curve);
            if let Some(path) = plot {
                curve.draw(path, &format!("{}, seed {seed}", scenario.name))?;
            }
            found
        }
        None => {
            let before = (Instant::now(), memory::now());
            verdict::of_starling(&scenario, &report(&scenario, &world, |_, _| {}), before)
        }
    }];
    if options.compare {
        for (rule, outer) in BASELINES {
            let mut found = of_lab(*rule, *outer);
            found["baseline"] = true.into();
            rows.push(found);
        }
    }
    if options.json {
        rows.rotate_left(1);
    }
    Ok(rows)
}

/// Before a long run, not after it.
fn check_plot(options: &Simulate) -> Result<(), Failure> {
    let Some(path) = &options.plot else { return Ok(()) };
    if options.rule != "starling" {
        let message = "--plot draws a run of Starling: leave out --rule";
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
    scenario.exchanges_per_round =
        given.exchanges_per_round.unwrap_or(scenario.exchanges_per_round);
    scenario.data = given.data.unwrap_or(scenario.data);
    scenario.split = given.split.unwrap_or(scenario.split);
    scenario.profile = given.profile.unwrap_or(scenario.profile);
    scenario.codec = given.codec.unwrap_or(scenario.codec);
    scenario.rate = given.rate.unwrap_or(scenario.rate);
    scenario.view_max = given.view.unwrap_or(scenario.view_max);
    scenario.sabotage = given.sabotage.or(scenario.sabotage);
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

fn show(found: &Value, json: bool, whole: bool) {
    if json {
        return say(found.to_string());
    }
    say(verdict::row(found));
    let keys =
        ["wire_bytes_per_node_mean", "consensus", "honest_bans", "violations", "trace_digest"];
    for key in keys.iter().filter(|_| whole) {
        if let Some(value) = found.get(*key) {
            say(format!("  {key:28} {value}"));
        }
    }
}
