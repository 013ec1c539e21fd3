//! What an operator asks of a running node, and what it makes of its configuration.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, Signal, getrlimit, prlimit};
use serde_json::Value;

use crate::harness::{
    Daemon, Home, PATIENCE, call, digits, flock, folder, number, starling, wait_for, whole,
    write_file,
};

/// What the last test of the watchdog gives a node to ping in.
const PING_MAX: Duration = Duration::from_secs(10);

fn asked(daemon: &Daemon, command: &str, arguments: &[&str]) -> Value {
    let out = daemon.home.ok(command, &[&["--json"], arguments].concat());
    serde_json::from_str(&out).expect("JSON")
}

fn id(daemon: &Daemon) -> String {
    daemon.event("daemon.started")["node"].as_str().expect("an id").to_owned()
}

fn round(daemon: &Daemon) -> u64 {
    whole(&daemon.status("an answer", |_| true), "round")
}

fn peer<'a>(answer: &'a Value, id: &str) -> &'a Value {
    let peers = answer["peers"].as_array().expect("a list");
    peers.iter().find(|peer| peer["id"] == id).unwrap_or_else(|| panic!("no {id} in {answer}"))
}

#[test]
fn a_banned_peer_is_gone_until_it_is_unbanned() {
    let folder = folder();
    let daemons = flock(folder.path(), 3, &[]);
    let [first, second, third] = daemons.try_into().map_err(|_| "three").expect("three");
    let banned = id(&second);
    assert_eq!(peer(&asked(&first, "peers", &[]), &banned)["linked"], true);
    for (name, part) in [("nobody", "no peer by the name of"), ("1", "no peer by the name of")] {
        let outcome = first.home.call("ban", &[name]);
        assert_eq!(outcome.code, Some(64), "{}", outcome.err);
        assert!(outcome.err.contains(part) && outcome.err.contains("starling peers"));
    }

    let answer = asked(&first, "ban", &[&banned[banned.len() - 8..]]);
    assert_eq!((&answer["peer"], &answer["banned"]), (&banned.as_str().into(), &true.into()));
    let told = first.event_after(0, "control.requested", |event| event["command"] == "ban");
    assert_eq!(whole(&told, "uid"), u64::from(uid()));
    assert!(whole(&told, "pid") > 1);
    assert_eq!(first.event("peer.banned")["reason"], "operator");
    first.wait_peers(1);
    second.event_after(0, "peer.refused_us", |event| event["reason"] == "banned");
    assert_eq!(peer(&asked(&first, "peers", &[]), &banned)["banned"], true);

    // Also over a restart, and the others keep theirs.
    let home = first.home.clone();
    first.stop();
    assert!(home.ok("check", &[]).contains("bans: 1 peers"));
    let first = home.run();
    first.wait_peers(1);
    second.wait_peers(1);
    let limits = asked(&first, "limits", &[]);
    let bans =
        limits["limits"].as_array().expect("a list").iter().find(|row| row["name"] == "bans");
    assert_eq!(bans.map(|row| whole(row, "used")), Some(1), "{limits}");

    assert_eq!(asked(&first, "unban", &[&banned])["banned"], false);
    first.event("peer.unbanned");
    let again = first.home.call("unban", &[&banned]);
    assert_eq!((again.code, again.err.contains("is not banned")), (Some(64), true));
    first.wait_peers(2);
    third.wait_peers(2);
}

fn uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[test]
fn a_paused_node_answers_and_does_no_rounds() {
    let folder = folder();
    let daemons = flock(folder.path(), 2, &["training.round_period_ms=20"]);
    let [first, second] = daemons.try_into().map_err(|_| "two").expect("two");
    second.wait_exchanges(3);
    assert!(first.home.ok("pause", &[]).starts_with("paused"));
    // The round under way is the last.
    let stood = wait_for("a standstill", PATIENCE, || {
        let before = round(&first);
        second.wait_exchanges(2);
        (round(&first) == before).then_some(before)
    });
    let answered = |status: &Value| whole(status, "answered");
    let before = answered(&first.status("an answer", |_| true));
    first.status("it still answers", |status| answered(status) >= before + 5);
    assert_eq!(round(&first), stood);
    let status = first.status("paused", |status| status["paused"] == true);
    assert_eq!(status["phase"], "train");
    assert!(first.home.ok("status", &[]).contains("train, paused"));

    assert_eq!(first.home.ok("resume", &[]), "training");
    first.status("rounds again", |status| whole(status, "round") > stood + 5);
    for name in ["train.paused", "train.resumed"] {
        assert_eq!(first.count(name), 1, "{name}");
    }
}

#[test]
fn a_checkpoint_is_durable_when_it_is_answered_and_so_is_the_last() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 1, &[]);
    let daemon = daemons.pop().expect("one");
    assert_eq!(daemon.home.files("checkpoints"), [""; 0]);
    for generation in 1..=2 {
        let answer = asked(&daemon, "checkpoint", &[]);
        assert_eq!(whole(&answer, "generation"), generation);
        let name = format!("ckpt-{generation:016x}");
        assert!(daemon.home.files("checkpoints").contains(&name));
        let length = daemon.home.read(&format!("checkpoints/{name}")).len() as u64;
        assert_eq!(length, whole(&answer, "bytes"));
    }
    let limits = asked(&daemon, "limits", &[]);
    for limit in limits["limits"].as_array().expect("a list") {
        assert!(whole(limit, "used") <= whole(limit, "max"), "{limit}");
    }

    let home = daemon.home.clone();
    assert_eq!(whole(&asked(&daemon, "leave", &[]), "generation"), 3);
    let (status, events) = daemon.ended();
    assert_eq!(status.code(), Some(0));
    let stopping = events.iter().find(|event| event["event"] == "daemon.stopping");
    assert_eq!(stopping.expect("said so")["reason"], "operator");
    assert_eq!(home.call("leave", &[]).code, Some(69));
    let checked = home.ok("check", &[]);
    assert!(checked.contains("ok    checkpoints: generation 3, round "), "{checked}");

    // Damaged ones are named and stay where they are.
    write_file(&home.path("checkpoints/ckpt-0000000000000003"), "torn");
    let checked = home.ok("check", &[]);
    assert!(checked.contains("checkpoints: generation 2, "), "{checked}");
    assert!(checked.contains("; generation 3 is not used: "), "{checked}");
    assert_eq!(home.files("checkpoints").len(), 3);
    for generation in 1..=2 {
        write_file(&home.path(&format!("checkpoints/ckpt-{generation:016x}")), "torn");
    }
    let outcome = home.call("check", &[]);
    assert_eq!(outcome.code, Some(65), "{}", outcome.out);
    assert!(outcome.out.contains("FAIL  checkpoints: no checkpoint in "), "{}", outcome.out);
}

#[test]
fn what_left_the_machine_is_told_without_a_promise() {
    let folder = folder();
    let daemons = flock(folder.path(), 2, &[]);
    daemons[0].wait_exchanges(3);
    let told = asked(&daemons[0], "privacy", &[]);
    assert!(told["epsilon"].is_null());
    assert_eq!(told["differential_privacy"], false);
    assert!(whole(&told, "rows_here") > 100);
    let recipients = told["recipients"].as_array().expect("a list");
    assert_eq!(recipients.len(), 1);
    assert_eq!(recipients[0]["peer"], id(&daemons[1]).as_str());
    assert_eq!(recipients[0]["model_bytes"], told["model_bytes_sent"]);
    assert!(whole(&told, "models_sent") >= 3);
    let status = daemons[0].status("an answer", |_| true);
    assert!(whole(&told, "model_bytes_sent") <= whole(&status, "payload_sent_bytes"));
    let text = daemons[0].home.ok("privacy", &[]);
    assert!(text.contains("epsilon   unbounded"), "{text}");
    assert!(text.contains("stays     rows and labels"), "{text}");
}

fn edit(home: &Home, from: &str, to: &str) {
    let text = String::from_utf8(home.read("starling.toml")).expect("UTF-8");
    assert!(text.contains(from), "{text}");
    write_file(&home.path("starling.toml"), text.replace(from, to));
}

#[test]
fn a_reload_applies_all_that_it_can_or_nothing() {
    let folder = folder();
    let settings = [
        "training.round_period_ms=86400000",
        "training.seed=3",
        "storage.checkpoint_interval_s=50",
        "resources.nice=1",
        "log.level=info",
    ];
    let mut daemons = flock(folder.path(), 1, &settings);
    let daemon = daemons.pop().expect("one");
    let home = daemon.home.clone();
    assert_eq!(home.ok("reload", &[]), "unchanged");
    daemon.status("the first round", |status| whole(status, "round") == 1);

    // Two keys that can be applied, one that cannot.
    edit(&home, "round_period_ms = 86400000", "round_period_ms = 20");
    edit(&home, "seed = 3", "seed = 4");
    edit(&home, "checkpoint_interval_s = 50.0", "checkpoint_interval_s = 0.5");
    let mark = daemon.mark();
    daemon.signal(Signal::HUP);
    let reloaded = daemon.event_after(mark, "config.reloaded", |_| true);
    let applied = ["training.round_period_ms", "storage.checkpoint_interval_s"];
    assert_eq!(reloaded["applied"], serde_json::json!(applied));
    let restart = daemon.event_after(mark, "config.reload_needs_restart", |_| true);
    assert_eq!(restart["keys"], serde_json::json!(["training.seed"]));
    daemon.status("rounds", |status| whole(status, "round") > 5);
    daemon.event_after(mark, "checkpoint.saved", |_| true);

    // One wrong key, and the right one beside it is not applied either.
    edit(&home, "round_period_ms = 20", "round_period_ms = 86400000");
    edit(&home, "nice = 1", "nice = 77");
    let mark = daemon.mark();
    let outcome = home.call("reload", &[]);
    assert_eq!(outcome.code, Some(78), "{}", outcome.out);
    assert!(outcome.err.contains("resources.nice: found 77"), "{}", outcome.err);
    let rejected = daemon.event_after(mark, "config.reload_rejected", |_| true);
    let problem = rejected["problems"][0].as_str().expect("a problem");
    let place = format!("{}:", home.path("starling.toml").display());
    assert!(problem.starts_with(&place) && problem.contains("resources.nice"), "{problem}");
    let before = round(&daemon);
    daemon.status("still the old pace", |status| whole(status, "round") > before + 5);

    // Right again; the restart is still asked for, and every thread is nice.
    edit(&home, "nice = 77", "nice = 3");
    let out = home.ok("reload", &[]);
    assert!(out.contains("applied   training.round_period_ms"), "{out}");
    assert!(out.contains("applied   resources.nice"), "{out}");
    assert!(out.contains("restart   training.seed"), "{out}");
    for nice in niceness(&daemon) {
        assert_eq!(nice, 3);
    }
    let mark = daemon.mark();
    edit(&home, "level = \"info\"", "level = \"error\"");
    assert!(home.ok("reload", &[]).contains("applied   log.level"));
    daemon.event_after(mark, "config.reloaded", |_| true);
    let quiet = daemon.mark();
    home.ok("pause", &[]);
    home.ok("checkpoint", &[]);
    assert_eq!(daemon.mark(), quiet, "{:?}", daemon.events().last());
}

/// Of every thread: the nineteenth field of its `stat`, the seventeenth after the name.
fn niceness(daemon: &Daemon) -> Vec<i64> {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("it lives");
    let stat = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat")).ok();
    let stats: Vec<String> = threads.filter_map(|thread| stat(thread.ok()?)).collect();
    let nice = |stat: &String| stat.rsplit_once(") ")?.1.split(' ').nth(16)?.parse().ok();
    stats.iter().map(|stat| nice(stat).expect("a number")).collect()
}

#[test]
fn a_disk_that_fails_degrades_and_one_that_works_recovers() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 1, &[]);
    let daemon = daemons.pop().expect("one");
    write_file(&daemon.home.path("checkpoints"), "no folder");
    let outcome = daemon.home.call("checkpoint", &[]);
    assert_eq!(outcome.code, Some(74), "{}", outcome.err);
    assert_eq!(daemon.event("daemon.degraded")["reason"], "checkpoints cannot be saved");
    assert_eq!(daemon.status("degraded", |_| true)["degraded"], true);
    fs::remove_file(daemon.home.path("checkpoints")).expect("removed");
    assert_eq!(whole(&asked(&daemon, "checkpoint", &[]), "generation"), 1);
    daemon.event("daemon.recovered");
    assert_eq!(daemon.status("well", |_| true)["degraded"], false);
    assert!(number(&daemon.event("checkpoint.saved"), "age") >= 0.0);
    daemon.stop();
}

/// What a service manager hears, up to and including a message with `wanted` in it.
fn heard(manager: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let Ok(length) = manager.recv(&mut buffer) else { continue };
        all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        if all.last().is_some_and(|last| last.contains(wanted)) {
            return all;
        }
    }
    panic!("waited in vain for {wanted} after {all:?}");
}

#[test]
fn a_service_manager_hears_of_work_of_rest_and_of_reloads() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    home.init(&[&digits("1/2")[..], &["--age-max", "0"]].concat());
    let socket = folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(PING_MAX)).expect("a time-out");
    let mut command = home.command("run", &[]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "3000000");
    let daemon = Daemon::start(&home, &mut command);
    heard(&manager, "READY=1\n");
    heard(&manager, "WATCHDOG=1");
    home.ok("pause", &[]);
    for _ in 0..3 {
        heard(&manager, "WATCHDOG=1");
    }
    daemon.signal(Signal::HUP);
    let told = heard(&manager, "RELOADING=1");
    assert!(told.last().is_some_and(|last| last.contains("MONOTONIC_USEC=")), "{told:?}");
    heard(&manager, "READY=1\nSTATUS=paused: round ");
    daemon.signal(Signal::TERM);
    let mut told = heard(&manager, "STOPPING=1");
    assert!(told.pop().is_some());
}

#[test]
fn what_root_makes_in_the_folder_of_another_is_the_others() {
    if uid() != 0 {
        let skipped = "SKIPPED, only root can try it: init as root for another user\n";
        std::io::stderr().write_all(skipped.as_bytes()).expect("standard error is open");
        return;
    }
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    fs::create_dir(&home.0).expect("made");
    chown(&home.0, Some(12345), Some(23456)).expect("given away");
    home.init(&digits("1/2"));
    let names = home.files(".");
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let found = fs::metadata(home.path(&name)).expect("there");
        assert_eq!((found.uid(), found.gid()), (12345, 23456), "{name}");
    }
}

#[test]
fn completions_and_pages_are_of_every_command() {
    let folder = folder();
    let pages = folder.path().to_str().expect("UTF-8");
    let outcome = call(starling().args(["man", pages]));
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
    let mut commands = 0;
    for page in fs::read_dir(folder.path()).expect("pages") {
        let name = page.expect("a page").file_name().into_string().expect("UTF-8");
        let Some(command) = name.strip_prefix("starling-") else { continue };
        commands += 1;
        let command = command.strip_suffix(".1").expect("of section 1");
        let help = call(starling().args([command, "--help"]));
        assert_eq!(help.code, Some(0), "{command}");
        assert!(help.out.contains("Example"), "{command} has no example: {}", help.out);
    }
    assert!(commands >= 21, "{commands}");
    for shell in ["bash", "zsh", "fish"] {
        let text = call(starling().args(["completions", shell]));
        assert_eq!(text.code, Some(0), "{}", text.err);
        assert!(text.out.contains("checkpoint") && text.out.contains("state-dir"), "{shell}");
    }
    assert_eq!(call(starling().args(["completions", "elvish"])).code, Some(64));
}

#[test]
fn a_lack_of_descriptors_delays_an_answer_and_ends_nothing() {
    let folder = folder();
    let daemon = flock(folder.path(), 1, &[]).pop().expect("one");
    let limit = |limit: Rlimit| {
        prlimit(Some(daemon.pid()), Resource::Nofile, limit).expect("a child can be limited")
    };
    let most = getrlimit(Resource::Nofile).maximum;
    let before = limit(Rlimit { current: Some(3), maximum: most });
    let mut client = UnixStream::connect(daemon.home.path("control.sock")).expect("it listens");
    client.set_read_timeout(Some(PATIENCE)).expect("set");
    client.write_all(b"{\"command\":\"status\"}\n").expect("queued");
    let mark = daemon.mark();
    daemon.event_after(mark, "round.completed", |_| true);
    limit(before);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("{\"node\":"), "{answer}");
    daemon.stop();
}
