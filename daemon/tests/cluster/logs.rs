//! `starling logs` on files, pipes and a journal.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{PATIENCE, Process, call, folder, starling, wait_for, write_file};

/// A line of a node at a minute of a day.
fn line(node: &str, minute: u32, severity: &str, event: &str, peer: &str) -> String {
    format!(
        "{{\"ts\":\"2026-11-22T19:{minute:02}:01.000000Z\",\"severity\":\"{severity}\",\
         \"event\":\"{event}\",\"schema\":1,\"node\":\"{node}\",\"network\":\"w\",\"boot\":1,\
         \"seq\":{minute},\"peer\":\"{peer}\",\"msg\":\"m\"}}"
    )
}

fn lines() -> Vec<String> {
    vec![
        line("nodeA", 1, "INFO", "peer.connected", "12D3KooWpeerB"),
        line("nodeA", 2, "WARN", "peer.denied", "12D3KooWpeerC"),
        line("nodeB", 3, "ERROR", "checkpoint.failed", ""),
        "Stopped starling.service.".to_owned(),
    ]
}

#[track_caller]
fn shown(file: &Path, arguments: &[&str]) -> Vec<String> {
    let outcome = call(starling().arg("logs").arg("--file").arg(file).args(arguments));
    assert_eq!(outcome.code, Some(0), "{}", outcome.err);
    outcome.out.lines().map(str::to_owned).collect()
}

#[test]
fn a_file_is_filtered_and_shown() {
    let folder = folder();
    let file = folder.path().join("run.log");
    let lines = lines();
    write_file(&file, lines.join("\n"));
    let expected = [
        "2026-11-22 19:01:01 INFO  peer.connected       peer=…3KooWpeerB",
        "2026-11-22 19:02:01 WARN  peer.denied          peer=…3KooWpeerC",
        "2026-11-22 19:03:01 ERROR nodeB checkpoint.failed    peer=",
    ];
    assert_eq!(shown(&file, &[]), expected);
    assert_eq!(shown(&file, &["--json"]), lines[..3]);
    let cases: [(&[&str], &[usize]); 7] = [
        (&["--event", "peer.*"], &[0, 1]),
        (&["--event", "peer.denied", "--event", "checkpoint.*"], &[1, 2]),
        (&["--severity", "warn"], &[1, 2]),
        (&["--peer", "peerC"], &[1]),
        (&["--node", "nodeB"], &[2]),
        (&["--node", "nodeA", "--severity", "error"], &[]),
        (&["--since", "1s"], &[]),
    ];
    for (arguments, wanted) in cases {
        let wanted: Vec<String> = wanted.iter().map(|index| lines[*index].clone()).collect();
        assert_eq!(shown(&file, &[arguments, &["--json"]].concat()), wanted, "{arguments:?}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let refused = |arguments: &[&str], code: i32, part: &str| {
        let outcome = call(starling().arg("logs").args(arguments).env("PATH", "/nowhere"));
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {}", outcome.err);
        assert!(outcome.err.contains(part), "{}", outcome.err);
    };
    refused(&["--event", "peer.conected"], 64, "did you mean `peer.connected`?");
    refused(&["--since", "soon"], 64, "--since soon: expected a time such as");
    refused(&["--severity", "loud"], 64, "expected info, warn or error");
    refused(&["--file", "/nowhere/run.log"], 74, "cannot read /nowhere/run.log");
    refused(&["--file", "x", "--unit", "y"], 64, "cannot be used with");
    let outcome = call(starling().args(["status", "--watch"]));
    assert_eq!(outcome.code, Some(64), "{}", outcome.err);
    assert!(outcome.err.contains("standard output is none"), "{}", outcome.err);
    refused(&[], 69, "journalctl (it is not installed): give a file");
}

#[test]
fn a_file_is_followed_also_when_it_is_replaced() {
    let folder = folder();
    let file = folder.path().join("run.log");
    let lines = lines();
    write_file(&file, format!("{}\n", lines[0]));
    let mut command = starling();
    command.args(["logs", "-f", "--json", "--file"]).arg(&file);
    let process = Process::start(&mut command);
    let sees = |count: usize| {
        wait_for("lines", PATIENCE, || (process.out().len() >= count).then_some(()));
        assert_eq!(process.out(), lines[..count]);
    };
    sees(1);
    let mut open = OpenOptions::new().append(true).open(&file).expect("there");
    let (half, rest) = lines[1].split_at(30);
    open.write_all(half.as_bytes()).expect("written");
    open.write_all(format!("{rest}\n").as_bytes()).expect("written");
    // Replaced before anyone has looked.
    fs::rename(&file, folder.path().join("run.log.1")).expect("moved");
    write_file(&file, format!("{}\n", lines[2]));
    sees(3);
}

#[test]
fn an_empty_journal_says_where_else_to_look() {
    let folder = folder();
    let script = folder.path().join("journalctl");
    write_file(&script, "#!/bin/sh\n");
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("set");
    let outcome = call(starling().arg("logs").env("PATH", folder.path()));
    assert_eq!((outcome.code, outcome.out.as_str()), (Some(0), ""));
    assert!(outcome.err.contains("no lines of starling. What"), "{}", outcome.err);
    assert!(outcome.err.contains("--file"), "{}", outcome.err);
}

#[test]
fn the_journal_is_asked_for_what_is_wanted() {
    let folder = folder();
    let script = folder.path().join("journalctl");
    let (text, asked) = (lines().join("\n"), folder.path().join("asked"));
    let body = format!("#!/bin/sh\necho \"$@\" > {}\ncat <<'E'\n{text}\nE\n", asked.display());
    write_file(&script, body);
    fs::set_permissions(&script, Permissions::from_mode(0o755)).expect("set");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let logs = |arguments: &[&str]| {
        let outcome = call(starling().arg("logs").args(arguments).env("PATH", &path));
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        let asked = fs::read_to_string(&asked).expect("asked");
        (outcome.out.lines().map(str::to_owned).collect::<Vec<_>>(), asked.trim_end().to_owned())
    };
    let (shown, asked) = logs(&[]);
    assert_eq!(asked, "--quiet --no-pager --output=cat --unit starling");
    assert_eq!(shown.len(), 4);
    assert_eq!(shown[3], "Stopped starling.service.");
    let (shown, asked) = logs(&["-f", "--unit", "starling@*", "--severity", "error"]);
    assert_eq!(asked, "--quiet --no-pager --output=cat --unit starling@* --follow");
    assert_eq!(shown.len(), 1);
    let (shown, asked) = logs(&["--since", "10m", "--json"]);
    assert!(
        asked.starts_with("--quiet --no-pager --output=cat --unit starling --since=@1"),
        "{asked}"
    );
    assert!(shown.is_empty(), "{shown:?}");
}
