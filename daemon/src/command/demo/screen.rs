//! What the demo shows: a table that is drawn over on a terminal, plain lines when piped, JSON
//! lines on request.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::flock::NodeView;

/// Between two summary lines when nobody watches a terminal.
const SUMMARY: Duration = Duration::from_secs(3);

/// Where and how it is shown.
#[derive(Debug)]
pub(super) struct Screen {
    json: bool,
    terminal: bool,
    lines_drawn: usize,
    summary_due: Instant,
}

/// A reader that went away (`| head`) must not end the demo before it has cleaned up.
fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}", share * 100.0))
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal() && !json;
        Self { json, terminal, lines_drawn: 0, summary_due: Instant::now() }
    }

    /// Whether somebody watches.
    pub(super) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One sentence for people.
    pub(super) fn say(&mut self, text: &str) {
        if self.json {
            put(&format!("{}\n", json!({"event": "demo.said", "text": text})));
        } else {
            self.lines_drawn = 0;
            put(&format!("{text}\n"));
        }
    }

    /// A fault, or the return of a node.
    pub(super) fn event(&mut self, event: &Value) {
        let name = event.get("event").and_then(Value::as_str).unwrap_or_default();
        if self.json {
            put(&format!("{event}\n"));
        } else if name.starts_with("demo.") {
            let text = event.get("text").and_then(Value::as_str).unwrap_or(name);
            self.lines_drawn = 0;
            put(&format!("{text}\n"));
        }
    }

    /// The state of all nodes.
    pub(super) fn draw(&mut self, nodes: &[NodeView], seconds: f64, steps: u32, last: bool) {
        if self.terminal || last && !self.json {
            self.draw_table(nodes, seconds, steps);
        } else if Instant::now() >= self.summary_due {
            self.summary_due = Instant::now() + SUMMARY;
            self.draw_summary(nodes, seconds);
        }
    }

    fn draw_table(&mut self, nodes: &[NodeView], seconds: f64, steps: u32) {
        let mut text = String::new();
        if self.terminal && self.lines_drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A", self.lines_drawn));
        }
        let clear = if self.terminal { "\u{1b}[K" } else { "" };
        text.push_str(&format!(
            "{clear}{seconds:6.1} s   node        phase   round   age    loss   peers' score %  \
             test %  peers  sent MB  boots\n"
        ));
        for node in nodes {
            text.push_str(&format!(
                "{clear}           {:10}  {:6} {:6}  {:5.0}  {:6.3}  {:>14}  {:>6}  {:5}  {:7.3}  \
                 {:5}\n",
                node.short,
                node.phase(),
                node.round,
                node.age,
                node.loss,
                percent(node.cross_accuracy),
                percent(node.accuracy),
                node.peers,
                node.sent_bytes() as f64 / 1e6,
                node.boots,
            ));
        }
        let age = nodes.iter().map(|node| node.age).sum::<f64>() / nodes.len().max(1) as f64;
        let filled = ((age / f64::from(steps)).clamp(0.0, 1.0) * 40.0) as usize;
        let (full, empty) = ("#".repeat(filled), ".".repeat(40 - filled));
        text.push_str(&format!("{clear}           [{full}{empty}] {age:.0} of {steps} steps\n"));
        self.lines_drawn = nodes.len() + 2;
        put(&text);
    }

    fn draw_summary(&mut self, nodes: &[NodeView], seconds: f64) {
        let known: Vec<f64> = nodes.iter().filter_map(|node| node.accuracy).collect();
        let count = nodes.len().max(1) as f64;
        let mean = |value: fn(&NodeView) -> f64| nodes.iter().map(value).sum::<f64>() / count;
        let accuracy = (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64);
        let worst = known.iter().copied().reduce(f64::min);
        let (age, loss) = (mean(|node| node.age), mean(|node| node.loss));
        let sent = mean(|node| node.sent_bytes() as f64);
        if self.json {
            let line = json!({
                "event": "demo.progress", "seconds": seconds, "age_mean": age, "loss_mean": loss,
                "accuracy_mean": accuracy, "accuracy_worst": worst,
                "sent_bytes_per_node_mean": sent,
            });
            put(&format!("{line}\n"));
        } else {
            put(&format!(
                "{seconds:6.1} s  age {age:5.0}  loss {loss:.3}  test mean {} % worst {} %  sent \
                 {:.3} MB per node\n",
                percent(accuracy),
                percent(worst),
                sent / 1e6
            ));
        }
    }

    /// How it went.
    pub(super) fn verdict(&mut self, verdict: &Value) {
        if self.json {
            return put(&format!("{verdict}\n"));
        }
        let number = |key: &str| verdict.get(key).and_then(Value::as_f64).unwrap_or_default();
        let share = |key: &str| number(key) * 100.0;
        put(&format!(
            "\nVerdict after {:.1} s, {:.0} rounds per node, {} kills.\n\
             Accuracy on the test rows of {}, which nobody trained on:\n\
             \u{20} each node alone     {:5.1} %\n\
             \u{20} the flock, mean     {:5.1} %\n\
             \u{20} the flock, worst    {:5.1} %\n\
             \u{20} all rows pooled     {:5.1} %\n\
             \u{20} sent per node       {:.3} MB, of it models {:.3} MB\n",
            number("seconds"),
            number("rounds_mean"),
            number("kills"),
            verdict.get("data").and_then(Value::as_str).unwrap_or_default(),
            share("accuracy_local_only"),
            share("accuracy_mean"),
            share("accuracy_worst"),
            share("accuracy_pooled"),
            number("sent_bytes_per_node_mean") / 1e6,
            number("payload_bytes_per_node_mean") / 1e6,
        ));
    }
}
