//! What is packaged for monitoring: alert rules that fire when they should, each with a page of
//! the runbook, and a Grafana dashboard whose queries mean something.
//!
//! That a daemon has the metrics that both name is for `cluster::web`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Write, stderr};
use std::process::Command;

use serde_json::Value;
use starling_tests::repo_root;

const RULES: &str = "packaging/prometheus/starling.rules.yml";
const RULES_TESTS: &str = "packaging/prometheus/starling.rules.test.yml";
const DASHBOARD: &str = "packaging/grafana/starling.json";
const RUNBOOK: &str = "docs/monitor.md";
/// Width of a Grafana dashboard, in its columns.
const COLUMNS: u64 = 24;

fn text(path: &str) -> String {
    fs::read_to_string(repo_root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs `promtool`; false if it is not there, which is said where test harnesses do not hide it.
fn promtool(arguments: &[&str]) -> bool {
    let run = Command::new("promtool").args(arguments).current_dir(repo_root()).output();
    let Ok(output) = run else {
        let _ = writeln!(stderr(), "SKIPPED: promtool is not installed ({})", arguments[0]);
        return false;
    };
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{arguments:?}\n{}", String::from_utf8_lossy(&said));
    true
}

fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let lines = text.lines().map(|line| line.trim().trim_start_matches("- "));
    lines.filter_map(|line| line.strip_prefix(key)).map(str::trim).collect()
}

#[test]
fn alerts_are_valid_and_fire_when_they_should() {
    if promtool(&["check", "rules", RULES]) {
        promtool(&["test", "rules", RULES_TESTS]);
    }
}

#[test]
fn each_alert_is_provoked_and_explained() {
    let (rules, tests, runbook) = (text(RULES), text(RULES_TESTS), text(RUNBOOK));
    let alerts = values(&rules, "alert:");
    assert!(alerts.len() >= 10, "{alerts:?}");
    let provoked: BTreeSet<&str> = values(&tests, "alertname:").into_iter().collect();
    let runbooks = values(&rules, "runbook:");
    for (alert, link) in alerts.iter().zip(&runbooks) {
        assert!(provoked.contains(alert), "no test provokes {alert}");
        let quiet = format!("alertname: {alert}, exp_alerts: []");
        assert!(tests.contains(&quiet), "no test shows that {alert} stays quiet");
        assert!(runbook.contains(&format!("\n### {alert}\n")), "{RUNBOOK} lacks {alert}");
        assert_eq!(**link, format!("{RUNBOOK}#{}", alert.to_lowercase()));
    }
    assert_eq!(alerts.len(), runbooks.len());
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().expect("panels")
}

fn whole(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no whole number: {value}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&text(DASHBOARD)).expect("JSON")
}

fn queries(dashboard: &Value) -> Vec<String> {
    let targets = panels(dashboard).iter().flat_map(|panel| {
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("no targets: {panel}"));
        assert!(!targets.is_empty(), "{panel}");
        targets
    });
    targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect()
}

#[test]
fn the_dashboard_is_one_that_grafana_reads() {
    let dashboard = dashboard();
    for key in ["title", "uid", "schemaVersion", "time", "templating", "annotations", "refresh"] {
        assert!(!dashboard[key].is_null(), "{key}");
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = variables.iter().filter_map(|each| each["name"].as_str()).collect();
    assert_eq!(names, ["source", "job", "instance"]);
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels(&dashboard) {
        assert!(ids.insert(whole(&panel["id"])), "an id twice: {panel}");
        assert!(["stat", "timeseries"].contains(&panel["type"].as_str().expect("a type")));
        for key in ["title", "description"] {
            assert!(panel[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {panel}");
        }
        assert_eq!(panel["datasource"]["uid"], "${source}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string());
        assert!(panel["options"].is_object());
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().expect("targets") {
            assert_eq!(target["datasource"], panel["datasource"]);
            assert!(letters.insert(target["refId"].as_str().expect("a letter")));
        }
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| whole(&panel["gridPos"][key]));
        assert!(w > 0 && h > 0 && x + w <= COLUMNS, "{panel}");
        for cell in (x..x + w).flat_map(|column| (y..y + h).map(move |row| (column, row))) {
            assert!(taken.insert(cell), "panels overlap: {}", panel["title"]);
        }
    }
}

#[test]
fn the_dashboards_queries_are_valid() {
    let rules = queries(&dashboard()).into_iter().enumerate().map(|(number, query)| {
        let query = query.replace("$__rate_interval", "5m");
        format!("  - record: starling:query{number}\n    expr: |\n      {query}\n")
    });
    let file = format!("groups:\n- name: queries\n  rules:\n{}", rules.collect::<String>());
    let mut folder = tempfile::NamedTempFile::with_suffix(".yml").expect("a file");
    folder.write_all(file.as_bytes()).expect("written");
    promtool(&["check", "rules", folder.path().to_str().expect("UTF-8")]);
}
