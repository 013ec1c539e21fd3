//! The simulator tells the truth: eight real daemons and eight simulated nodes with the same data,
//! splits, seeds and rounds of four steps come to the same accuracy for the same bytes.

use crate::demo::FLIGHT_MAX;
use crate::harness::{call_within, folder, number, starling, whole, write_file};

/// Points of accuracy, as a share of one.
const ACCURACY_APART_MAX: f64 = 0.015;
/// Share of the payload of a round.
const PAYLOAD_APART_MAX: f64 = 0.10;
const SCENARIO: &str = "
    name = \"demo\"
    nodes = 8
    data = \"digits\"
    split = \"shards=2\"
    hidden = [32]
    steps = 1600
    steps_per_round = 4
    rate = 0.15
    seed = 2
";

#[test]
fn a_simulated_flock_and_a_real_one_agree() {
    let folder = folder();
    let file = folder.path().join("demo.toml");
    write_file(&file, SCENARIO);
    let options = ["demo", "--nodes", "8", "--seed", "2", "--fast", "--json"];
    let real = call_within(FLIGHT_MAX, starling().args(options).env("TMPDIR", folder.path()));
    let simulated = call_within(FLIGHT_MAX, starling().arg("simulate").arg(&file).arg("--json"));
    let [real, simulated] = [real, simulated].map(|outcome| {
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        let last = outcome.out.lines().last().expect("a verdict").to_owned();
        serde_json::from_str::<serde_json::Value>(&last).expect("JSON")
    });
    assert_eq!((whole(&real, "nodes"), whole(&simulated, "nodes")), (8, 8));
    let accuracy = [number(&real, "accuracy_mean"), number(&simulated, "accuracy_served_mean")];
    assert!((accuracy[0] - accuracy[1]).abs() <= ACCURACY_APART_MAX, "{real} {simulated}");
    let [real_round, simulated_round] = [&real, &simulated].map(|verdict| {
        number(verdict, "payload_bytes_per_node_mean") / number(verdict, "rounds_mean")
    });
    let ratio = real_round / simulated_round;
    assert!((ratio - 1.0).abs() <= PAYLOAD_APART_MAX, "{ratio}: {real} {simulated}");
}
