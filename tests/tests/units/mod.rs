//! What is packaged: systemd accepts and confines the units, the two are alike, and the example
//! configuration is one.
//!
//! Whether a service manager really starts, restarts and stops them is for `scripts/try-systemd`.

use std::fs;
use std::io::{Write, stderr};
use std::process::{Command, Output};

use starling_tests::repo_root;

const UNITS: [&str; 2] = ["starling.service", "starling@.service"];
/// An example for the operator to install; it is nothing without the first of the units.
const SOCKET: &str = "starling-metrics.socket";
/// What the units start, and what is there where Starling is not installed.
const BINARY: &str = "/usr/bin/starling";
const STAND_IN: &str = "/bin/sh";
/// Highest exposure of a unit, of 10; 0.8 of it is for having a network at all.
const EXPOSURE_MAX: f64 = 1.3;
/// The systemd that first judges a unit file which is not loaded.
const SYSTEMD_MIN: u32 = 250;
/// Settings in which one node of many differs from the only one.
const OWN_SETTINGS: [&str; 6] = [
    "Description",
    "DynamicUser",
    "EnvironmentFile",
    "StateDirectory",
    "StateDirectoryMode",
    "User",
];

#[test]
fn systemd_accepts_the_units() {
    for name in UNITS.into_iter().chain([SOCKET]) {
        let Some(output) = analyze(&["verify", "--man=no"], name) else { return };
        let text = String::from_utf8_lossy(&output.stderr);
        let findings = verify_findings(&text);
        assert!(findings.is_empty(), "{name}:\n{}", findings.join("\n"));
    }
}

#[test]
fn the_units_are_confined() {
    for name in UNITS {
        let Some(output) = analyze(&["security", "--offline=true"], name) else { return };
        let text = String::from_utf8_lossy(&output.stdout);
        let exposure = exposure(&text)
            .unwrap_or_else(|| panic!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
        assert!(exposure <= EXPOSURE_MAX, "{name} has {exposure}:\n{text}");
    }
}

#[test]
fn the_units_are_alike() {
    let [only, one_of_many] = UNITS.map(packaged);
    assert_eq!(common(&only), common(&one_of_many));
}

#[test]
fn the_example_configuration_is_valid() {
    let text = packaged("example.toml");
    if let Err(errors) = starling_config::load("packaging/example.toml", &text, &[], &[]) {
        panic!("{errors}");
    }
}

fn packaged(name: &str) -> String {
    let path = repo_root().join("packaging").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Asks `systemd-analyze` about a unit; none where it is missing or too old.
fn analyze(arguments: &[&str], unit: &str) -> Option<Output> {
    let version = Command::new("systemd-analyze").arg("--version").output().ok();
    let version =
        version.and_then(|output| systemd_version(&String::from_utf8_lossy(&output.stdout)));
    if version.is_none_or(|version| version < SYSTEMD_MIN) {
        skipped(unit, &format!("systemd-analyze of systemd {SYSTEMD_MIN} is not installed"));
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in UNITS.into_iter().chain([SOCKET]) {
        let copy = packaged(name).replace(BINARY, STAND_IN);
        fs::write(folder.path().join(name), copy).expect("a copy of the unit");
    }
    let path = folder.path().join(unit);
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(&path)
        .envs([("SYSTEMD_COLORS", "0"), ("SYSTEMD_EMOJI", "0"), ("SYSTEMD_PAGER", "cat")])
        .env("LC_ALL", "C")
        .output();
    Some(output.expect("systemd-analyze starts"))
}

/// Says so even where the output of tests that pass is kept back, as `eprintln` is.
fn skipped(what: &str, reason: &str) {
    writeln!(stderr(), "SKIPPED, {what} was not judged: {reason}").expect("standard error is open");
}

/// The number in `systemd 252 (252.38-1~deb12u1)`.
fn systemd_version(text: &str) -> Option<u32> {
    text.strip_prefix("systemd ")?.split_whitespace().next()?.parse().ok()
}

/// The lines about our units; others of the machine are not our business.
fn verify_findings(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains("starling")).collect()
}

/// The number in `Overall exposure level for starling.service: 1.2 OK`.
fn exposure(text: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.contains("Overall exposure level"))?;
    line.split_once(": ")?.1.split_whitespace().next()?.parse().ok()
}

/// All settings of a unit but its own, in order.
fn common(unit: &str) -> Vec<&str> {
    let own = |line: &str| {
        let key = line.split_once('=').map(|(key, _)| key);
        key.is_some_and(|key| OWN_SETTINGS.contains(&key))
    };
    unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#') && !own(line)).collect()
}

mod can_fail {
    use super::*;

    #[test]
    fn verify() {
        let foreign = "/lib/systemd/system/other.service:3: Unknown key 'A'";
        let ours = "/tmp/a/starling@.service:9: Unknown key 'B' in section [Service], ignoring.";
        assert_eq!(verify_findings(&format!("{foreign}\n{ours}\n")), [ours]);
    }

    #[test]
    fn security() {
        let level = "x 0.1\n→ Overall exposure level for starling@i.service: 9.6 UNSAFE\n";
        assert_eq!(exposure(level), Some(9.6));
        assert_eq!(exposure("Unknown option"), None);
        assert_eq!(systemd_version("systemd 252 (252.38-1~deb12u1)\n+PAM"), Some(252));
        assert_eq!(systemd_version(""), None);
    }

    #[test]
    fn likeness() {
        let only = "# a\n[Service]\nUser=starling\nTasksMax=1\n";
        let many = "# b\n[Service]\nUser=starling-%i\n\nTasksMax=2\n";
        assert_eq!(common(only), ["[Service]", "TasksMax=1"]);
        assert_ne!(common(only), common(many));
    }
}
