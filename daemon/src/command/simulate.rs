//! `starling simulate`: many nodes under virtual time.

mod curve;
mod plan;
mod verdict;
mod world;

use std::time::Instant;

use rayon::prelude::*;
use serde_json::Value;
use starling_config::scenario::{FAULTS, ScenarioFile};
use starling_node::sim::lab::LabRule;
use starling_node::sim::{Report, Simulation};

use self::curve::Curve;
use self::plan::{left_out, read_rule, read_scenario};
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
    let lab = read_rule(options, &first)?;
    plan::check_plot(options)?;
    if !options.json {
        introduce(options, &first, lab);
    }
    let seeds: Vec<u64> = (first.seed..).take(options.seeds as usize).collect();
    let batch = match first.nodes {
        0..SIDE_BY_SIDE_BELOW => BATCH,
        SIDE_BY_SIDE_BELOW..ALONE_FROM => rayon::current_num_threads(),
        _ => 1,
    };
    let (began, alone, few) = (Instant::now(), seeds.len() == 1, seeds.len() <= ROWS_MAX);
    let (mut all, mut note): (Vec<Vec<Value>>, Option<String>) = (Vec::new(), None);
    for (index, batch) in seeds.chunks(batch).enumerate() {
        let one = |(place, seed): (usize, &u64)| {
            // Many curves at once are hard to read on a terminal.
            let quiet = !few || !(alone || options.json);
            run_seed(options, lab, *seed, quiet, index + place == 0)
        };
        let runs: Result<Vec<Vec<Value>>, Failure> =
            batch.par_iter().enumerate().map(one).collect();
        for mut rows in runs? {
            if few && !options.json && (alone || all.is_empty()) {
                say(verdict::HEADING);
            }
            if few || options.json {
                show(&rows, options.json, alone);
            }
            if options.scenario != FAULTS {
                note = note.or_else(|| rows.iter().find_map(verdict::unmet));
            }
            // Not needed any more, and of many seeds a lot.
            rows.iter_mut().for_each(|row| row["parameters"] = Value::Null);
            all.push(rows);
        }
    }
    let own: Vec<&Value> = all.iter().filter_map(|rows| rows.first()).collect();
    if !options.json && !alone {
        let bad = own.iter().filter(|found| violations(found) > 0).count();
        let (count, seconds) = (seeds.len(), began.elapsed().as_secs_f64());
        say(format!("{count} seeds in {seconds:.1} s, {bad} with violations"));
        verdict::summary(&all).into_iter().for_each(say);
    }
    if let Some(note) = note {
        eprintln!("starling: {note}");
    }
    judge(options, first.sabotage.is_some(), &own)
}

/// What is about to run.
fn introduce(options: &Simulate, first: &ScenarioFile, lab: Option<LabRule>) {
    // Schedules of faults draw how many.
    let nodes = if options.scenario == FAULTS && options.nodes.is_none() {
        String::new()
    } else {
        format!(" {} nodes.", first.nodes)
    };
    say(format!("{}: {}{nodes}", first.name, first.about));
    let out = left_out(first);
    if (lab.is_some() || options.compare) && !out.is_empty() {
        say(format!("Baselines run in synchronous rounds without: {}.", out.join(", ")));
    }
}

/// What one seed came to, and after it the baselines if they are wanted.
fn run_seed(
    options: &Simulate,
    lab: Option<LabRule>,
    seed: u64,
    quiet: bool,
    is_first: bool,
) -> Result<Vec<Value>, Failure> {
    let scenario = read_scenario(options, Some(seed))?;
    let world = World::new(&scenario)?;
    let of_lab = |rule, outer| verdict::of_lab(&scenario, &world, rule, outer, options.rate);
    let mut rows = vec![match lab {
        Some(rule) => of_lab(rule, options.outer),
        None => {
            let plot = options.plot.as_ref().filter(|_| is_first);
            let mut curve = Curve::new(&scenario, options.json, quiet);
            let looks = !quiet || plot.is_some();
            let before = (Instant::now(), memory::now());
            let found = report(&scenario, &world, |now, running| {
                if looks {
                    curve.progress(now, running, &world.test);
                }
            });
            if let Some(path) = plot {
                curve.draw(path, &format!("{}, seed {seed}", scenario.name))?;
            }
            verdict::of_starling(&scenario, &found, before)
        }
    }];
    if options.compare {
        rows.extend(BASELINES.iter().map(|(rule, outer)| of_lab(*rule, *outer)));
    }
    Ok(rows)
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

fn violations(verdict: &Value) -> usize {
    verdict.get("violations").and_then(Value::as_array).map_or(0, Vec::len)
}

/// A violation is a defect: says what it was and the smallest scenario that shows it, which is all
/// that is needed to see it again. On stderr: who reads the verdicts finds the violation in them.
fn judge(options: &Simulate, sabotaged: bool, own: &[&Value]) -> Result<(), Failure> {
    let Some(bad) = own.iter().find(|verdict| violations(verdict) > 0) else {
        if !sabotaged {
            return Ok(());
        }
        let message = "what was broken on purpose was not found: a defect of the watch over \
                       simulated runs, or a scenario in which it does not matter. Try digits-n16, \
                       and report it if it is not found there either";
        return Err(Failure::new(Code::Internal, message));
    };
    let seed = bad.get("seed").and_then(Value::as_u64).unwrap_or_default();
    let scenario = read_scenario(options, Some(seed))?;
    let fails = |scenario: &ScenarioFile| {
        let world = World::new(scenario);
        world.is_ok_and(|world| !report(scenario, &world, |_, _| {}).violations.is_empty())
    };
    let found = bad.get("violations").map(Value::to_string).unwrap_or_default();
    let small = toml::to_string(&scenario.shrink(fails)).unwrap_or_default();
    let replay = replay(std::env::args().skip(1));
    let what = if sabotaged {
        "what was broken on purpose was found"
    } else {
        "what must always hold did not, a defect of Starling"
    };
    let message = format!(
        "{what}. Seed {seed}: {found}\n\
         See it again: starling {replay} --seed {seed}\n\
         The smallest scenario found that fails, for a report:\n\n{small}"
    );
    Err(Failure::new(Code::Internal, message))
}

/// The command line as it was given, without its seeds.
fn replay(given: impl Iterator<Item = String>) -> String {
    let (mut kept, mut value_follows) = (Vec::new(), false);
    for word in given {
        let of_seeds = ["--seed", "--seeds"].contains(&word.as_str());
        if !of_seeds
            && !value_follows
            && !word.starts_with("--seed=")
            && !word.starts_with("--seeds=")
        {
            kept.push(word);
        }
        value_follows = of_seeds;
    }
    kept.join(" ")
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Shows what one seed came to. As lines for scripts our own verdict is the last.
fn show(rows: &[Value], json: bool, whole: bool) {
    if json {
        let (own, baselines) = rows.split_at(rows.len().min(1));
        return baselines.iter().chain(own).for_each(|found| say(found.to_string()));
    }
    let keys =
        ["wire_bytes_per_node_mean", "consensus", "honest_bans", "violations", "trace_digest"];
    for found in rows {
        say(verdict::row(found));
        for key in keys.iter().filter(|_| whole) {
            if let Some(value) = found.get(*key) {
                say(format!("  {key:28} {value}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_is_the_command_without_its_seeds() {
        let given = "simulate stress --seeds 9 --sabotage mean --seed=4 --json --seed 3";
        let words = given.split(' ').map(str::to_owned);
        assert_eq!(replay(words), "simulate stress --sabotage mean --json");
    }
}
