//! The metrics of a node in Prometheus's text format 0.0.4, made from the published status and the
//! counts of the log, so that all three agree.
//!
//! Written by hand: the client libraries keep counters of their own beside those that the node has,
//! and the maintained one speaks OpenMetrics only, which `promtool check metrics` does not take.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use starling_node::event::CATALOGUE;
use starling_protocol::fault::Rejection;

use crate::log::Counts;

/// What the answer is.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Phases of a node, as the status names them.
const PHASES: [&str; 4] = ["join", "train", "done", "leaving"];

/// Names and meanings of the counters of `log::BY_REASON`.
const BY_REASON: [(&str, &str, &str); 7] = [
    ("updates_rejected_total", "update.rejected", "Models of peers that the gate rejected."),
    ("exchanges_failed_total", "exchange.failed", "Own exchanges that came to nothing."),
    ("frames_rejected_total", "frame.rejected", "Frames refused at the border."),
    ("connections_denied_total", "peer.denied", "Nodes that were not let in."),
    ("memberships_refused_total", "peer.refused_us", "Members that did not let this node in."),
    ("peers_banned_total", "peer.banned", "Peers cut off: by the operator, or for what they sent."),
    ("peers_disconnected_total", "peer.disconnected", "Links to members that ended."),
];

/// For what a node bans by itself: all that weighs against a peer.
const BANNED_FOR: [Rejection; 11] = [
    Rejection::BadHash,
    Rejection::BadMagic,
    Rejection::BadModel,
    Rejection::BadSignature,
    Rejection::Flood,
    Rejection::Malformed,
    Rejection::OutOfRange,
    Rejection::TooLong,
    Rejection::Unexpected,
    Rejection::WrongRecipient,
    Rejection::WrongSender,
];

/// A plain number of the status: name, kind, where it stands, meaning.
type Plain = (&'static str, &'static str, &'static str, &'static str);
const PLAIN: [Plain; 22] = [
    ("uptime_seconds", "gauge", "/uptime_s", "Time since the daemon started."),
    ("round", "gauge", "/round", "Own rounds over all boots."),
    ("rounds_total", "counter", "/rounds", "Own rounds with training in this boot."),
    ("model_age_steps", "gauge", "/age", "Lineage age of the model, local steps."),
    ("model_age_limit_steps", "gauge", "/age_max", "Age at which learning ends, if it does."),
    ("learning_rate", "gauge", "/rate", "Learning rate of the next step."),
    ("train_loss", "gauge", "/loss", "Mean training loss of the last round."),
    (
        "validation_accuracy_ratio",
        "gauge",
        "/cross_accuracy",
        "Accuracy of this node's model on rows that peers hold out.",
    ),
    (
        "consensus_distance",
        "gauge",
        "/consensus",
        "Usual distance of peers' models from their mean, by the length of ours.",
    ),
    ("exchanges_answered_total", "counter", "/answered", "Exchanges that peers asked for."),
    ("frames_sent_total", "counter", "/messages_sent", "Frames sent."),
    ("exchange_duration_seconds", "gauge", "/exchange_s", "Median duration of an exchange."),
    ("degraded", "gauge", "/degraded", "Whether checkpoints cannot be saved."),
    ("paused", "gauge", "/paused", "Whether the operator paused training."),
    ("isolated", "gauge", "/isolated", "Whether nobody exchanged for five rounds and 5 s."),
    (
        "checkpoint_age_seconds",
        "gauge",
        "/checkpoint/saved_s",
        "Time since a checkpoint was saved; since the start if none was.",
    ),
    (
        "checkpoint_duration_seconds",
        "gauge",
        "/checkpoint/duration_s",
        "How long saving the last checkpoint took.",
    ),
    ("checkpoint_bytes", "gauge", "/checkpoint/bytes", "Size of the last checkpoint."),
    (
        "last_merge_age_seconds",
        "gauge",
        "/merged_s",
        "Time since a model was merged; since the start if none was.",
    ),
    ("peers_quarantined", "gauge", "/quarantined", "Linked members left alone for a while."),
    (
        "peers_distrusted",
        "gauge",
        "/distrusted",
        "Linked members whose newest model kept less than a tenth of its weight.",
    ),
    ("boot", "gauge", "/boot", "How often the node was started."),
];

/// One number with its labels; a histogram's have suffixes.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    suffix: &'static str,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: f64,
}

/// All samples of one metric.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: &'static str,
    pub(super) help: &'static str,
    pub(super) samples: Vec<Sample>,
}

impl Family {
    /// Of a histogram: its bounds, how many lie between them, and the sum of all.
    pub(super) fn buckets(&self) -> (Vec<f64>, Vec<u64>, f64) {
        let (mut bounds, mut counts, mut sum, mut below) = (Vec::new(), Vec::new(), 0.0, 0.0);
        for sample in &self.samples {
            match sample.suffix {
                "_bucket" => {
                    let bound = sample.labels.first().and_then(|(_, bound)| bound.parse().ok());
                    bounds.extend(bound.filter(|bound: &f64| bound.is_finite()));
                    counts.push((sample.value - below) as u64);
                    below = sample.value;
                }
                "_sum" => sum = sample.value,
                _ => {}
            }
        }
        (bounds, counts, sum)
    }
}

/// The metrics, growing.
struct Page<'a> {
    families: Vec<Family>,
    status: &'a Value,
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(|truth| f64::from(u8::from(truth))))
}

/// A label's value, as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

impl Page<'_> {
    fn head(&mut self, name: &'static str, kind: &'static str, help: &'static str) {
        self.families.push(Family { name, kind, help, samples: Vec::new() });
    }

    /// A sample of the last family.
    fn sample(&mut self, labels: &[(&'static str, &str)], value: f64) {
        self.part("", labels, value);
    }

    fn part(&mut self, suffix: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(key, text)| (*key, (*text).to_owned())).collect();
        if let Some(family) = self.families.last_mut() {
            family.samples.push(Sample { suffix, labels, value });
        }
    }

    fn at(&self, pointer: &str) -> Option<f64> {
        self.status.pointer(pointer).and_then(number)
    }

    fn text_at(&self, key: &str) -> String {
        self.status.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
    }

    fn who(&mut self) {
        let (version, network) = (self.text_at("version"), self.text_at("network"));
        self.head("build_info", "gauge", "The version that runs and its network; always 1.");
        self.sample(&[("network", &network), ("version", &version)], 1.0);
        let phase = self.text_at("phase");
        self.head("phase", "gauge", "1 for the phase that the node is in, 0 for others.");
        for name in PHASES {
            self.sample(&[("phase", name)], f64::from(u8::from(name == phase)));
        }
        let peers = self.status.get("peers").and_then(Value::as_array).map_or(0, Vec::len);
        self.head("peers", "gauge", "Linked members.");
        self.sample(&[("state", "linked")], peers as f64);
    }

    fn plain(&mut self) {
        for (name, kind, pointer, help) in PLAIN {
            self.head(name, kind, help);
            // What is not known yet has no sample.
            if let Some(value) = self.at(pointer) {
                self.sample(&[], value);
            }
        }
    }

    fn traffic(&mut self) {
        self.head("updates_received_total", "counter", "Models of peers, by what became of them.");
        for result in ["accepted", "rejected"] {
            let value = self.at(&format!("/{result}")).unwrap_or_default();
            self.sample(&[("result", result)], value);
        }
        self.head("network_bytes_total", "counter", "Bytes of frames: of models, and all others.");
        for direction in ["sent", "received"] {
            let all = self.at(&format!("/{direction}_bytes")).unwrap_or_default();
            let models = self.at(&format!("/payload_{direction}_bytes")).unwrap_or_default();
            for (kind, value) in [("model", models), ("control", (all - models).max(0.0))] {
                let labels = [("direction", direction), ("kind", kind)];
                self.sample(&labels, value);
            }
        }
    }

    fn rounds(&mut self) {
        let list = |key: &str| -> Vec<f64> {
            let values = self.status.pointer(key).and_then(Value::as_array);
            values.into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        let (bounds, counts) = (list("/round_times/bounds_s"), list("/round_times/counts"));
        let total = self.at("/round_times/total_s").unwrap_or_default();
        self.head("round_duration_seconds", "histogram", "Duration of own rounds.");
        let mut below = 0.0;
        for (place, count) in counts.iter().enumerate() {
            below += count;
            let bound = bounds.get(place).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.part("_bucket", &[("le", &bound)], below);
        }
        self.part("_sum", &[], total);
        self.part("_count", &[], below);
    }

    fn limits(&mut self) {
        let rows = self.status.get("limits").and_then(Value::as_array).into_iter().flatten();
        for (name, key, help) in [
            ("limit_used", "used", "How full each bounded table and queue is."),
            ("limit_max", "max", "How much each bounded table and queue takes."),
        ] {
            self.head(name, "gauge", help);
            for row in rows.clone() {
                let label = row.get("name").and_then(Value::as_str).unwrap_or_default();
                let value = row.get(key).and_then(Value::as_f64).unwrap_or_default();
                self.sample(&[("name", label)], value);
            }
        }
    }

    fn counted(&mut self, counts: &Counts) {
        for (name, event, help) in BY_REASON {
            self.head(name, "counter", help);
            let mut reasons = BTreeMap::new();
            if event == "peer.banned" {
                // An alert needs them from the start, as those of `events_total` below.
                reasons.extend(BANNED_FOR.map(|reason| (reason.name(), 0)));
                reasons.insert("operator", 0);
            }
            let found = counts.iter().filter(|((counted, _), _)| *counted == event);
            reasons.extend(found.map(|((_, reason), count)| (reason.as_str(), *count)));
            for (reason, count) in reasons {
                self.sample(&[("reason", reason)], count as f64);
            }
        }
        let of = |wanted: &str| -> f64 {
            let found = counts.iter().filter(|((event, _), _)| *event == wanted);
            found.map(|(_, count)| *count).sum::<u64>() as f64
        };
        self.head("checkpoints_total", "counter", "Checkpoints, by what became of them.");
        for (result, event) in [
            ("saved", "checkpoint.saved"),
            ("failed", "checkpoint.failed"),
            ("corrupt", "checkpoint.corrupt"),
        ] {
            self.sample(&[("result", result)], of(event));
        }
        for (name, event, help) in [
            ("dials_failed_total", "peer.unreachable", "Known nodes that could not be reached."),
            ("isolations_total", "mesh.isolated", "How often the node became isolated."),
            (
                "divergences_total",
                "train.diverged",
                "How often training left the range of numbers.",
            ),
            ("quarantines_total", "peer.quarantined", "How often a peer was left alone."),
        ] {
            self.head(name, "counter", help);
            self.sample(&[], of(event));
        }
        self.head("export_dropped_total", "counter", "Log lines that no collector took.");
        self.sample(&[], self.at("/export_dropped").unwrap_or_default());
        self.head("events_total", "counter", "Log events by name, those held back included.");
        // All of them from the start: an increase from nothing to one is none to Prometheus.
        for entry in CATALOGUE {
            self.sample(&[("event", entry.name)], of(entry.name));
        }
    }
}

/// What the status does not tell.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) ready: bool,
    pub(super) disk_free: Option<u64>,
    pub(super) memory: Option<u64>,
    pub(super) lines_held_back: u64,
}

/// All metrics of a node.
pub(super) fn families(status: &Value, counts: &Counts, machine: &Machine) -> Vec<Family> {
    let mut page = Page { families: Vec::new(), status };
    page.who();
    page.plain();
    page.traffic();
    page.rounds();
    page.limits();
    page.counted(counts);
    page.head("ready", "gauge", "Whether all checks of /readyz hold.");
    page.sample(&[], f64::from(u8::from(machine.ready)));
    for (name, help, value) in [
        ("disk_free_bytes", "Free space where the state directory lies.", machine.disk_free),
        ("resident_memory_bytes", "Memory that the daemon holds.", machine.memory),
    ] {
        page.head(name, "gauge", help);
        if let Some(value) = value {
            page.sample(&[], value as f64);
        }
    }
    page.head("log_lines_suppressed_total", "counter", "Log lines held back.");
    page.sample(&[], machine.lines_held_back as f64);
    page.families
}

/// As Prometheus reads them.
pub(super) fn render(families: &[Family]) -> String {
    let mut text = String::new();
    for Family { name, kind, help, samples } in families {
        let _ = writeln!(text, "# HELP starling_{name} {help}\n# TYPE starling_{name} {kind}");
        for Sample { suffix, labels, value } in samples {
            let labels: Vec<String> =
                labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
            let labels =
                if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(text, "starling_{name}{suffix}{labels} {value}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> String {
        let status = json!({
            "version": "1.2.3", "network": "a\"b", "phase": "train", "round": 7, "ready": true,
            "paused": true,
            "limits": [{"name": "links", "used": 3, "max": 36}],
            "peers": [{}, {}], "accepted": 5, "rejected": 2, "sent_bytes": 100,
            "payload_sent_bytes": 60, "loss": 0.25, "cross_accuracy": null,
            "round_times": {"bounds_s": [0.5, 1.0], "counts": [3, 2, 1], "total_s": 4.5},
        });
        let mut counts = Counts::new();
        counts.insert(("checkpoint.failed", "no \"room\"\nleft".into()), 2);
        counts.insert(("checkpoint.failed", "broken".into()), 1);
        counts.insert(("frame.rejected", "flood".into()), 9);
        counts.insert(("peer.banned", "operator".into()), 1);
        let machine = Machine {
            ready: true,
            disk_free: Some(1 << 40),
            memory: Some(1 << 24),
            lines_held_back: 8,
        };
        render(&families(&status, &counts, &machine))
    }

    #[test]
    fn numbers_are_those_of_the_status_and_of_the_log() {
        let text = example();
        for line in [
            "starling_build_info{network=\"a\\\"b\",version=\"1.2.3\"} 1",
            "starling_phase{phase=\"train\"} 1",
            "starling_phase{phase=\"join\"} 0",
            "starling_peers{state=\"linked\"} 2",
            "starling_round 7",
            "starling_ready 1",
            "starling_paused 1",
            "starling_train_loss 0.25",
            "starling_updates_received_total{result=\"accepted\"} 5",
            "starling_network_bytes_total{direction=\"sent\",kind=\"model\"} 60",
            "starling_network_bytes_total{direction=\"sent\",kind=\"control\"} 40",
            "starling_round_duration_seconds_bucket{le=\"1\"} 5",
            "starling_round_duration_seconds_bucket{le=\"+Inf\"} 6",
            "starling_round_duration_seconds_sum 4.5",
            "starling_round_duration_seconds_count 6",
            "starling_frames_rejected_total{reason=\"flood\"} 9",
            "starling_peers_banned_total{reason=\"operator\"} 1",
            "starling_peers_banned_total{reason=\"bad_signature\"} 0",
            "starling_checkpoints_total{result=\"failed\"} 3",
            "starling_events_total{event=\"checkpoint.failed\"} 3",
            "starling_disk_free_bytes 1099511627776",
            "starling_resident_memory_bytes 16777216",
            "starling_log_lines_suppressed_total 8",
            "starling_limit_used{name=\"links\"} 3",
            "starling_limit_max{name=\"links\"} 36",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains("starling_events_total{event=\"peer.refused_us\"} 0"), "{text}");
        let unknown = text.lines().find(|line| line.starts_with("starling_validation"));
        assert_eq!(unknown, None, "what is not known has no sample");
        assert!(!text.contains("room"), "a text became a label");
    }

    #[test]
    fn counters_with_reasons_are_those_that_the_log_keeps() {
        let mut events = BY_REASON.map(|(_, event, _)| event);
        events.sort_unstable();
        assert_eq!(events, crate::log::BY_REASON);
    }

    #[test]
    fn every_sample_has_help_and_type_and_stands_once() {
        let text = example();
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(seen.insert(line.rsplit_once(' ').unwrap().0), "{line} twice");
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end).filter(|name| name.ends_with("_seconds")))
                .unwrap_or(name);
            for word in ["HELP", "TYPE"] {
                assert_eq!(text.matches(&format!("# {word} {family} ")).count(), 1, "{family}");
            }
        }
    }
}
