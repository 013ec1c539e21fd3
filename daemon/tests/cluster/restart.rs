//! A node that ends, well or not, and comes back.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    Daemon, Home, PATIENCE, digits, flock, folder, number, wait_for, whole, write_file,
};

/// A daemon that is asked to end does so within this time, whatever it was doing.
const END_MAX: Duration = Duration::from_secs(10);

fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

/// Lines are numbered from one, without a gap.
fn assert_gapless(events: &[Value]) {
    for (event, expected) in events.iter().zip(1..) {
        assert_eq!(whole(event, "seq"), expected, "{event}");
    }
}

#[test]
fn who_says_goodbye_and_is_back_at_once_finds_its_flock() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 2, &["network.mdns=false"]);
    let mut leaver = daemons.pop().expect("two");
    let stayer = daemons.pop().expect("two");
    leaver.wait_exchanges(5);
    for _ in 0..3 {
        let home = leaver.home.clone();
        let mark = stayer.mark();
        leaver.stop();
        leaver = home.run();
        leaver.wait_exchanges(5);
        stayer.event_after(mark, "peer.connected", |_| true);
    }
}

#[test]
fn a_killed_node_comes_back_with_what_it_knew() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 3, &["storage.checkpoint_interval_s=0.5"]);
    let victim = daemons.pop().expect("three");
    victim.wait_exchanges(5);
    let mark = victim.mark();
    victim.event_after(mark, "checkpoint.saved", |saved| number(saved, "age") > 0.0);
    let home = victim.home.clone();
    let marks: Vec<usize> = daemons.iter().map(Daemon::mark).collect();

    let before = victim.kill();
    assert_gapless(&before);
    assert_eq!(named(&before, "daemon.stopped").len(), 0);
    let saved = *named(&before, "checkpoint.saved").last().expect("one");
    let node = before[0]["node"].as_str().expect("an id").to_owned();
    for (daemon, mark) in daemons.iter().zip(marks) {
        daemon.event_after(mark, "peer.disconnected", |event| event["peer"] == node.as_str());
        daemon.wait_peers(1);
    }

    let again = home.run();
    let started = again.event("daemon.started");
    assert_eq!(started["node"], node.as_str());
    assert_eq!(whole(&started, "boot"), whole(&before[0], "boot") + 1);
    let restored = again.event("checkpoint.restored");
    assert!(number(&restored, "age") >= number(saved, "age"), "{restored} after {saved}");
    assert!(whole(&restored, "generation") >= whole(saved, "generation"));
    assert_eq!(again.count("checkpoint.corrupt"), 0);
    let round = whole(&restored, "round");
    assert!(round > 0, "{restored}");
    again.event_after(0, "round.completed", |event| whole(event, "round") > round + 5);
    for daemon in daemons.iter().chain([&again]) {
        daemon.wait_peers(2);
    }
    again.wait_exchanges(5);
}

#[test]
fn sigterm_saves_says_goodbye_and_ends() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 2, &[]);
    let (leaving, staying) = (daemons.pop().expect("two"), daemons.pop().expect("two"));
    leaving.wait_exchanges(3);
    let home = leaving.home.clone();
    let node = leaving.event("daemon.started")["node"].clone();
    assert_eq!(home.files("checkpoints"), [""; 0], "no minute has passed");

    let (status, took, events) = leaving.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < END_MAX, "{took:?}");
    assert_gapless(&events);
    let stopping = named(&events, "daemon.stopping");
    assert_eq!(stopping.len(), 1);
    assert_eq!(stopping[0]["reason"], "SIGTERM");
    let last = events.last().expect("lines");
    assert_eq!(last["event"], "daemon.stopped");
    assert_eq!(whole(last, "exit_code"), 0);
    assert!(whole(last, "payload_sent_bytes") > 0);
    assert!(whole(last, "sent_bytes") > whole(last, "payload_sent_bytes"));
    let saved = *named(&events, "checkpoint.saved").last().expect("one");
    assert_eq!(saved["age"], last["age"]);
    assert_eq!(home.files("checkpoints"), ["ckpt-0000000000000001"]);
    assert!(!home.path("control.sock").exists());
    staying.event_after(0, "peer.disconnected", |event| {
        event["peer"] == node && event["reason"] == "left"
    });

    // Nothing was lost.
    let again = home.run();
    assert_eq!(again.event("checkpoint.restored")["age"], saved["age"]);
    again.wait_peers(1);
    assert_gapless(&again.stop());
    assert_gapless(&staying.stop());
}

/// Three checkpoints of a node alone, and the age of each.
fn with_three_checkpoints(home: &Home) -> BTreeMap<u64, f64> {
    let pace = ["--set", "storage.checkpoint_interval_s=0.2", "--age-max", "0"];
    home.init(&[&digits("1/1")[..], &pace].concat());
    let daemon = home.run();
    daemon.event_after(0, "checkpoint.saved", |saved| whole(saved, "generation") >= 3);
    let events = daemon.stop();
    let saved = named(&events, "checkpoint.saved").into_iter();
    let mut ages: BTreeMap<u64, f64> =
        saved.map(|saved| (whole(saved, "generation"), number(saved, "age"))).collect();
    while ages.len() > 3 {
        ages.pop_first();
    }
    let names: Vec<String> = ages.keys().map(|generation| file_of(*generation)).collect();
    assert_eq!(home.files("checkpoints"), names);
    ages
}

fn file_of(generation: u64) -> String {
    format!("ckpt-{generation:016x}")
}

/// Flips one bit in the middle of a checkpoint; what it holds now.
fn damage(home: &Home, generation: u64) -> Vec<u8> {
    let name = format!("checkpoints/{}", file_of(generation));
    let mut bytes = home.read(&name);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write_file(&home.path(&name), &bytes);
    bytes
}

#[test]
fn a_damaged_checkpoint_costs_no_more_than_itself() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    let ages = with_three_checkpoints(&home);
    let (newest, older) = (*ages.keys().nth(2).expect("three"), *ages.keys().nth(1).expect("two"));
    let damaged = damage(&home, newest);

    let daemon = home.run();
    let corrupt = daemon.event("checkpoint.corrupt");
    assert_eq!(whole(&corrupt, "generation"), newest);
    assert_eq!(corrupt["severity"], "WARN");
    let restored = daemon.event("checkpoint.restored");
    assert_eq!(whole(&restored, "generation"), older);
    assert_eq!(number(&restored, "age"), ages[&older]);
    assert_eq!(daemon.count("checkpoint.corrupt"), 1);
    assert_eq!(home.files("bad"), [file_of(newest)]);
    assert_eq!(home.read(&format!("bad/{}", file_of(newest))), damaged);
    daemon.stop();
}

#[test]
fn without_any_readable_checkpoint_it_ends_and_keeps_them_all() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    let ages = with_three_checkpoints(&home);
    let damaged: Vec<Vec<u8>> = ages.keys().map(|generation| damage(&home, *generation)).collect();

    let outcome = home.refused_run();
    assert_eq!(outcome.code, Some(65), "{}", outcome.err);
    let last = outcome.err.lines().last().expect("a line");
    assert!(last.contains("\"event\":\"daemon.failed\""), "{last}");
    assert!(last.contains("\"reason\":\"no checkpoint in "), "{last}");
    assert_eq!(outcome.err.matches("\"event\":\"checkpoint.corrupt\"").count(), 3);
    assert_eq!(home.files("checkpoints"), [""; 0]);
    for (generation, bytes) in ages.keys().zip(&damaged) {
        assert_eq!(&home.read(&format!("bad/{}", file_of(*generation))), bytes);
    }
}

#[test]
fn without_any_readable_checkpoint_it_ends_however_often_it_is_started() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    for generation in with_three_checkpoints(&home).keys() {
        damage(&home, *generation);
    }
    for start in 1..=3 {
        assert_eq!(home.refused_run().code, Some(65), "start {start}");
    }
}

#[test]
fn a_founder_of_another_network_keeps_its_checkpoints_where_they_are() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    with_three_checkpoints(&home);
    let names = home.files("checkpoints");
    let description = String::from_utf8(home.read("network.toml")).expect("UTF-8");
    write_file(&home.path("network.toml"), description.replace("rate = 0.15", "rate = 0.25"));
    let outcome = home.refused_run();
    assert_eq!(outcome.code, Some(78), "{}", outcome.err);
    assert_eq!(home.files("checkpoints"), names);
    // The mistake undone, all is as it was.
    write_file(&home.path("network.toml"), description);
    home.run().event("checkpoint.restored");
}

/// Puts a file where a folder was; the folder is kept beside it.
pub fn block(place: &Path) {
    let aside = place.with_extension("aside");
    wait_for("a moment without a checkpoint under way", PATIENCE, || {
        let _ = fs::rename(place, &aside);
        fs::File::create_new(place).ok()
    });
}

fn degraded(daemon: &Daemon, wanted: bool) {
    daemon.status("its word on its health", |status| status["degraded"] == wanted);
}

#[test]
fn a_disk_that_refuses_degrades_it_until_it_takes_again() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    let pace = ["--set", "storage.checkpoint_interval_s=0.2", "--age-max", "0"];
    home.init(&[&digits("1/1")[..], &pace].concat());
    let daemon = home.run();
    daemon.event("checkpoint.saved");
    degraded(&daemon, false);
    block(&home.path("checkpoints"));
    let failed = daemon.event("checkpoint.failed");
    let reason = failed["reason"].as_str().expect("text");
    assert!(reason.contains("checkpoints"), "{reason}");
    daemon.event("daemon.degraded");
    degraded(&daemon, true);
    let round = whole(&daemon.status("an answer", |_| true), "round");
    daemon.status("work going on", |status| whole(status, "round") > round + 5);

    fs::remove_file(home.path("checkpoints")).expect("removed");
    daemon.event("daemon.recovered");
    degraded(&daemon, false);
    assert_eq!(daemon.count("daemon.degraded"), 1);
    let saved = daemon.stop();
    let last = *named(&saved, "checkpoint.saved").last().expect("one");
    assert_eq!(home.run().event("checkpoint.restored")["age"], last["age"]);
}

#[test]
fn a_disk_that_refuses_at_the_end_shows_in_the_exit_code() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    home.init(&digits("1/1"));
    let daemon = home.run();
    write_file(&home.path("checkpoints"), "");
    let (status, _, events) = daemon.terminate();
    assert_eq!(named(&events, "checkpoint.failed").len(), 1);
    assert_eq!(status.code(), Some(74));
    assert_eq!(events.last().map(|last| whole(last, "exit_code")), Some(74));
}

#[test]
fn a_frozen_node_holds_nobody_up() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 3, &[]);
    let frozen = daemons.pop().expect("three");
    frozen.wait_exchanges(5);
    frozen.signal(Signal::STOP);
    for daemon in &daemons {
        daemon.wait_exchanges(20);
    }
    frozen.signal(Signal::CONT);
    frozen.wait_exchanges(5);
    for daemon in daemons.iter().chain([&frozen]) {
        daemon.wait_peers(2);
        assert_eq!(daemon.count("peer.banned"), 0);
    }
}

#[test]
fn a_flock_that_loses_its_power_finds_itself_again() {
    let folder = folder();
    let daemons = flock(folder.path(), 3, &[]);
    let before: Vec<SocketAddr> = daemons.iter().map(Daemon::address).collect();
    let homes: Vec<Home> = daemons.iter().map(|daemon| daemon.home.clone()).collect();
    // Nobody is left from whom the others could learn new addresses.
    daemons.into_iter().for_each(|daemon| drop(daemon.kill()));
    let daemons: Vec<Daemon> = homes.iter().map(Home::run).collect();
    daemons.iter().for_each(|daemon| drop(daemon.wait_peers(2)));
    let after = daemons.iter().map(Daemon::address);
    let same = after.zip(before).filter(|(after, before)| after == before).count();
    assert!(same >= 2, "one of the ports may have been taken meanwhile: {same}");
}

#[test]
fn a_founder_killed_early_finds_its_flock_again() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 2, &[]);
    let guest = daemons.pop().expect("two");
    guest.wait_exchanges(3);
    let home = daemons.pop().expect("two").home.clone();
    let again = home.run();
    again.wait_peers(1);
    guest.wait_exchanges(3);
}
