//! `starling demo`: what it proves, and that nothing of it stays behind.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process_group};
use serde_json::Value;

use crate::harness::{
    PATIENCE, Process, call, call_within, folder, number, processes_naming, starling, wait_for,
    whole,
};

/// Whoever is told to end does so within this time, and its orphans too.
const END_MAX: Duration = Duration::from_secs(15);
const NODES: usize = 3;
/// The demo's daemons yield to everyone: on a busy machine it takes minutes, and gives up itself.
pub const FLIGHT_MAX: Duration = Duration::from_secs(300);

fn demo(folder: &Path, options: &[&str]) -> Command {
    let mut command = starling();
    if !options.contains(&"--nodes") {
        command.args(["demo", "--nodes", "3"]);
    } else {
        command.arg("demo");
    }
    command.arg("--json").args(options).env("TMPDIR", folder);
    command
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("readable").filter_map(Result::ok);
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Starts a long flight and waits until it is under way.
fn in_flight(folder: &Path) -> Process {
    let process = Process::start(demo(folder, &["--seconds", "600"]).process_group(0));
    wait_for("the flight", FLIGHT_MAX, || {
        process.out().iter().any(|line| line.contains("the flight begins")).then_some(())
    });
    assert_eq!(processes_naming(folder).len(), NODES);
    assert_eq!(left_in(folder).len(), 1);
    process
}

fn wait_gone(folder: &Path) {
    wait_for("the end of all daemons", END_MAX, || {
        processes_naming(folder).is_empty().then_some(())
    });
}

#[test]
fn the_flock_beats_each_node_alone_and_leaves_nothing_behind() {
    let folder = folder();
    let outcome = call_within(FLIGHT_MAX, &mut demo(folder.path(), &["--fast"]));
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
    assert_eq!(outcome.err, "");
    assert_eq!(processes_naming(folder.path()), [0; 0]);
    assert_eq!(left_in(folder.path()), [""; 0]);

    let last = outcome.out.lines().last().expect("a line");
    let verdict: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(verdict["event"], "demo.verdict");
    assert_eq!(verdict["exit_ok"], true);
    assert_eq!((whole(&verdict, "nodes"), whole(&verdict, "kills")), (3, 0));
    let mean = number(&verdict, "accuracy_mean");
    assert!(mean >= 0.9, "{verdict}");
    assert!(mean > number(&verdict, "accuracy_local_only") + 0.3, "{verdict}");
    assert!(number(&verdict, "accuracy_worst") > 0.85, "{verdict}");
    let payload = number(&verdict, "payload_bytes_per_node_mean");
    assert!(payload > 0.0, "{verdict}");
    assert!(number(&verdict, "sent_bytes_per_node_mean") > payload, "{verdict}");
    assert!(number(&verdict, "rounds_mean") >= 100.0, "{verdict}");
}

#[test]
fn every_profile_flies_in_real_daemons() {
    // Paranoid trims what few know: with two classes a node it is no match for the others.
    for (profile, split, models_per_round) in
        [("safe", "shards=2", 1.0..3.0), ("paranoid", "iid", 3.0..8.0)]
    {
        let folder = folder();
        let options = ["--fast", "--nodes", "5", "--profile", profile, "--split", split];
        let outcome = call_within(FLIGHT_MAX, &mut demo(folder.path(), &options));
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        let last = outcome.out.lines().last().expect("a line");
        let verdict: Value = serde_json::from_str(last).expect("JSON");
        assert_eq!((&verdict["profile"], &verdict["exit_ok"]), (&profile.into(), &true.into()));
        assert!(number(&verdict, "accuracy_mean") >= 0.9, "{verdict}");
        // Safe sends differences of under two bits a parameter, paranoid whole int8 models to as
        // many as pull from it.
        let model = if profile == "safe" { 2410.0 * 1.9 / 8.0 } else { 2410.0 * 8.25 / 8.0 };
        let rounds = number(&verdict, "rounds_mean");
        let models = number(&verdict, "payload_bytes_per_node_mean") / rounds / model;
        assert!(models_per_round.contains(&models), "{models} models a round: {verdict}");
    }
}

#[test]
fn a_flock_that_loses_nodes_comes_to_its_end() {
    let folder = folder();
    let mut command = demo(folder.path(), &["--seconds", "8", "--kill-every", "3"]);
    let outcome = call_within(FLIGHT_MAX, &mut command);
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
    let events: Vec<Value> =
        outcome.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let verdict = events.last().expect("a line");
    let count = |name: &str| events.iter().filter(|event| event["event"] == name).count() as u64;
    let kills = whole(verdict, "kills");
    assert!(kills >= 1, "{verdict}");
    assert_eq!(count("demo.node_killed"), kills);
    assert!(count("demo.node_restored") >= 1, "{verdict}");
    for restored in events.iter().filter(|event| event["event"] == "demo.node_restored") {
        assert!(number(restored, "age") >= number(restored, "saved_age"), "{restored}");
    }
    assert!(number(verdict, "accuracy_mean") >= 0.9, "{verdict}");
    assert_eq!(processes_naming(folder.path()), [0; 0]);
    assert_eq!(left_in(folder.path()), [""; 0]);
}

#[test]
fn an_interrupted_demo_takes_everything_with_it() {
    let folder = folder();
    // To the parent alone, as a supervisor does, and to all of them, as a terminal does.
    for to_all in [false, true] {
        let mut process = in_flight(folder.path());
        let asked = Instant::now();
        if to_all {
            kill_process_group(process.pid(), Signal::INT).expect("signalled");
        } else {
            process.signal(Signal::INT);
        }
        let status = process.ended(PATIENCE);
        assert!(asked.elapsed() < END_MAX, "{:?}", asked.elapsed());
        assert_eq!(status.code(), Some(75), "to all: {to_all}, {:?}", process.err());
        assert_eq!(process.err().len(), 1, "{:?}", process.err());
        assert!(process.err()[0].starts_with("starling: stopped by SIGINT"), "{:?}", process.err());
        wait_gone(folder.path());
        assert_eq!(left_in(folder.path()), [""; 0]);
    }
}

#[test]
fn daemons_of_a_killed_demo_notice_and_clean_up() {
    let folder = folder();
    let mut process = in_flight(folder.path());
    process.signal(Signal::KILL);
    assert_eq!(process.ended(PATIENCE).code(), None);
    wait_gone(folder.path());
    wait_for("an empty folder", END_MAX, || left_in(folder.path()).is_empty().then_some(()));
}

#[test]
fn a_demo_of_nonsense_is_64() {
    let folder = folder();
    for (options, part) in [
        (["--data", "nonsense"], "--data nonsense"),
        (["--codec", "zip"], "zip"),
        (["--profile", "mean-only"], "--profile mean-only"),
        (["--kill-every", "0.1"], "--kill-every"),
    ] {
        let outcome = call(&mut demo(folder.path(), &options));
        assert_eq!(outcome.code, Some(64), "{}", outcome.err);
        assert!(outcome.err.starts_with("starling: "), "{}", outcome.err);
        assert!(outcome.err.contains(part), "{}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
    }
    assert_eq!(left_in(folder.path()), [""; 0]);
}
