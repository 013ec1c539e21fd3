//! From nothing to a network: init, run, invite, join; and who is not let in.

use std::net::TcpListener;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use starling_protocol::id::Keypair;
use starling_protocol::ticket::Ticket;

use crate::harness::{Daemon, Home, digits, folder, whole, write_file};

/// Rounds that each node must add while it is watched.
const ROUNDS: u64 = 10;

fn founder(folder: &Path) -> Daemon {
    let home = Home::new(folder, "founder");
    home.init(&[&digits("1/3")[..], &["--age-max", "0"]].concat());
    home.run()
}

fn denied_for(daemon: &Daemon, reason: &str) {
    daemon.event_after(0, "peer.denied", |event| event["reason"] == reason);
}

/// The value behind a word at the start of a line, as `init` and `join` print them.
fn printed<'a>(text: &'a str, word: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(word)).expect(word);
    line.split_whitespace().next().expect("a value")
}

#[test]
fn three_nodes_join_by_hand_and_a_ticket_admits_as_many_as_it_says() {
    let folder = folder();
    let home = |name| Home::new(folder.path(), name);
    let printed_by_init =
        home("a").init(&[&digits("1/3")[..], &["--age-max", "0", "--name", "trio"]].concat());
    let a = home("a").run();
    let ticket = a.ticket(2);
    assert_eq!(ticket.lines().count(), 1);

    let printed_by_join = home("b").join(&ticket, &digits("2/3"));
    assert_eq!(printed(&printed_by_join, "network"), printed(&printed_by_init, "network"));
    assert!(printed_by_join.contains("\"trio\""), "{printed_by_join}");
    let b = home("b").run();
    home("c").join(&ticket, &digits("3/3"));
    let c = home("c").run();

    for daemon in [&a, &b, &c] {
        let before = daemon.wait_peers(2);
        let more = |status: &Value| {
            whole(status, "round") >= whole(&before, "round") + ROUNDS
                && whole(status, "accepted") > whole(&before, "accepted")
        };
        let status = daemon.status("rising rounds", more);
        assert_eq!(status["phase"], "train");
        assert_eq!(status["network"], before["network"]);
        assert_eq!(status["degraded"], false);
    }
    assert_eq!(b.event("daemon.started")["node"], printed(&printed_by_join, "node"));
    assert_eq!(whole(&b.event("daemon.started"), "parameters"), 64 * 32 + 32 + 32 * 10 + 10);

    // The third with a ticket for two.
    let outcome = home("d").try_join(&ticket, &digits("1/3"));
    assert_eq!(outcome.code, Some(77), "{}", outcome.err);
    assert!(outcome.err.contains("used up"), "{}", outcome.err);
    assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
    assert!(!home("d").path("network.toml").exists());
    denied_for(&a, "ticket_spent");
    let admitted = a.events().into_iter().filter(|event| event["event"] == "peer.admitted");
    assert_eq!(admitted.map(|event| whole(&event, "uses_left")).collect::<Vec<_>>(), [1, 0]);

    // Whoever is a member may invite; the same newcomer gets in with another ticket.
    home("d").join(&b.ticket(1), &digits("1/3"));
    assert_eq!(b.count("peer.admitted"), 1);
    let d = home("d").run();
    for daemon in [&a, &b, &c, &d] {
        daemon.wait_peers(3);
    }
    d.wait_exchanges(1);
}

#[test]
fn a_ticket_past_its_date_admits_nobody() {
    let folder = folder();
    let daemon = founder(folder.path());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("later").as_secs();
    let before = now();
    let text = daemon.home.ok("invite", &["--expires", "1m", "--uses", "3", "--json"]);
    let invitation: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(whole(&invitation, "uses"), 3);
    let not_after = whole(&invitation, "not_after");
    assert!((before + 60..=now() + 60).contains(&not_after), "{invitation}");

    // The same by the same member, of an hour ago.
    let mut terms =
        Ticket::parse(invitation["ticket"].as_str().expect("text")).expect("whole").terms;
    assert_eq!(terms.not_after, not_after);
    terms.not_after = before - 3600;
    let seed: [u8; 32] = daemon.home.read("identity.seed").try_into().expect("a seed");
    let ticket = Ticket::sign(&Keypair::from_seed(&seed), terms).and_then(|old| old.to_text());
    let late = Home::new(folder.path(), "late");
    let outcome = late.try_join(&ticket.expect("short enough"), &digits("2/3"));
    assert_eq!(outcome.code, Some(77), "{}", outcome.err);
    assert!(outcome.err.contains("expired"), "{}", outcome.err);
    assert!(!late.path("network.toml").exists());
    denied_for(&daemon, "ticket_expired");
    assert_eq!(daemon.count("peer.admitted"), 0);
}

#[test]
fn a_ticket_that_is_no_good_is_told_apart() {
    let folder = folder();
    let daemon = founder(folder.path());
    let ticket = daemon.ticket(1);
    let newcomer = Home::new(folder.path(), "newcomer");
    let refused = |text: &str, code: i32, part: &str| {
        let outcome = newcomer.try_join(text, &digits("2/3"));
        assert_eq!(outcome.code, Some(code), "{}", outcome.err);
        assert!(outcome.err.contains(part), "{}", outcome.err);
        assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
    };
    // Every part of it: prefix, terms, signature.
    for place in [3, 20, ticket.len() / 2, ticket.len() - 40] {
        let mut altered = ticket.clone().into_bytes();
        altered[place] = if altered[place] == b'a' { b'b' } else { b'a' };
        refused(&String::from_utf8(altered).expect("ASCII"), 64, "ticket");
    }
    refused(&ticket[..ticket.len() - 8], 64, "ticket");
    refused("hello", 64, "starling1");
    assert!(!newcomer.0.exists(), "a wrong ticket makes no node");

    // Whole, but of a member that is not there.
    let address = daemon.address();
    daemon.stop();
    refused(&ticket, 69, "no member could be reached");
    refused(&ticket, 69, &format!("/ip4/127.0.0.1/tcp/{}", address.port()));
    assert!(!newcomer.path("network.toml").exists());
}

#[test]
fn a_node_made_by_init_joins_as_it_is_configured() {
    let folder = folder();
    let daemon = founder(folder.path());
    let ticket = daemon.ticket(1);
    let home = Home::new(folder.path(), "configured");
    let made = home.init(&digits("2/3"));
    let configuration = home.read("starling.toml");
    assert_ne!(home.read("network.toml"), daemon.home.read("network.toml"));

    let outcome = home.try_join(&ticket, &digits("3/3"));
    assert_eq!(outcome.code, Some(64), "{}", outcome.err);
    assert!(outcome.err.contains("starling.toml exists"), "{}", outcome.err);

    let joined = home.ok("join", &[&ticket]);
    assert_eq!(printed(&joined, "node"), printed(&made, "node"));
    assert_eq!(home.read("starling.toml"), configuration);
    assert_eq!(home.read("network.toml"), daemon.home.read("network.toml"));
    let member = home.run();
    member.wait_peers(1);
    member.wait_exchanges(1);
    // The rows of the second of three parts, not of all.
    let rows = whole(&member.event("daemon.started"), "rows");
    assert!((300..600).contains(&rows), "{rows} rows");

    // By now it has learnt something, and another network's ticket does not make it forget that.
    member.stop();
    let other = Home::new(folder.path(), "other");
    other.init(&digits("1/1"));
    let stranger = other.run();
    let outcome = home.call("join", &[&stranger.ticket(1)]);
    assert_eq!(outcome.code, Some(64), "{}", outcome.err);
    assert!(outcome.err.contains("has learnt something"), "{}", outcome.err);
    assert_eq!(stranger.count("peer.admitted"), 0);
}

#[test]
fn a_used_ticket_stays_used_when_its_member_is_killed() {
    let folder = folder();
    // The ticket names the member's address, so the port must be the same afterwards.
    let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let home = Home::new(folder.path(), "founder");
    home.init(&digits("1/3"));
    let configuration = String::from_utf8(home.read("starling.toml")).expect("UTF-8");
    let fixed = configuration.replace("127.0.0.1/tcp/0", &format!("127.0.0.1/tcp/{}", free.port()));
    assert_ne!(fixed, configuration);
    write_file(&home.path("starling.toml"), fixed);
    let daemon = home.run();
    let ticket = daemon.ticket(1);
    Home::new(folder.path(), "first").join(&ticket, &digits("2/3"));
    daemon.kill();
    let daemon = home.run();
    let second = Home::new(folder.path(), "second").try_join(&ticket, &digits("3/3"));
    assert_eq!(second.code, Some(77), "{}", second.err);
    denied_for(&daemon, "ticket_spent");
}
