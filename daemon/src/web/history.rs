//! How a node's figures went since it was first seen: a bounded row of samples that covers all of
//! it, finer while it is short.

use serde_json::{Map, Value};

/// Samples kept. When so many are there every second one goes, and half as many are taken.
const SAMPLES_MAX: usize = 720;
/// Between two samples at first.
const INTERVAL_FIRST_S: f64 = 1.0;
/// Beyond it a floating-point number no longer counts by ones.
const COUNT_MAX: f64 = 9e15;
/// What is sampled of a status.
const FIGURES: [&str; 11] = [
    "round",
    "age",
    "loss",
    "cross_accuracy",
    "test_accuracy",
    "consensus",
    "accepted",
    "rejected",
    "failed",
    "sent_bytes",
    "received_bytes",
];

#[derive(Clone, Debug)]
struct Sample {
    time: f64,
    figures: [Option<f64>; FIGURES.len()],
}

/// The samples of one node.
#[derive(Clone, Debug)]
pub(super) struct History {
    interval: f64,
    samples: Vec<Sample>,
}

impl Default for History {
    fn default() -> Self {
        Self { interval: INTERVAL_FIRST_S, samples: Vec::new() }
    }
}

impl History {
    /// Takes a sample if one is due.
    pub(super) fn sample(&mut self, time: f64, status: &Value) {
        // Whoever publishes once a second is a little early or late each time.
        let due = |last: &Sample| time - last.time >= self.interval - 0.5 * INTERVAL_FIRST_S;
        if !self.samples.last().is_none_or(due) {
            return;
        }
        let figures = FIGURES.map(|figure| status.get(figure).and_then(Value::as_f64));
        self.samples.push(Sample { time, figures });
        if self.samples.len() >= SAMPLES_MAX {
            let mut index = 0;
            self.samples.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.interval *= 2.0;
        }
    }

    /// A list for each figure, and one of the times: of so many samples at most, from the first to
    /// the last.
    pub(super) fn columns(&self, samples_max: usize) -> Value {
        let count = self.samples.len().min(samples_max);
        let (last, gaps) = (self.samples.len().saturating_sub(1), count.saturating_sub(1).max(1));
        let shown: Vec<&Sample> =
            (0..count).filter_map(|place| self.samples.get(place * last / gaps)).collect();
        let mut columns = Map::new();
        let times = shown.iter().map(|sample| short((sample.time * 10.0).round() / 10.0));
        columns.insert("time_s".into(), times.collect());
        for (place, figure) in FIGURES.iter().enumerate() {
            let column = shown.iter().map(|sample| {
                sample.figures.get(place).copied().flatten().map_or(Value::Null, short)
            });
            columns.insert((*figure).into(), column.collect());
        }
        columns.into()
    }
}

/// A curve needs no more than five digits, and the page loads the sooner. Counts stay whole.
fn short(number: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    if number.fract() == 0.0 && number.abs() < COUNT_MAX {
        return Value::from(number as i64);
    }
    let digits = if number.abs() < 1e4 { format!("{number:.4e}") } else { format!("{number:.1}") };
    digits.parse().unwrap_or(number).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_day_fits_and_is_covered_evenly() {
        let mut history = History::default();
        for second in 0..86_400 {
            history.sample(f64::from(second), &json!({"loss": 1.0 / 3.0, "round": second}));
            assert!(history.samples.len() < SAMPLES_MAX);
        }
        assert!(history.samples.len() >= SAMPLES_MAX / 2 - 1, "{}", history.samples.len());
        let columns = history.columns(SAMPLES_MAX);
        let times: Vec<f64> =
            columns["time_s"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        assert_eq!(times[0], 0.0);
        assert!(times[times.len() - 1] > 86_000.0);
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let (least, most) =
            gaps.fold((f64::MAX, 0.0), |(a, b): (f64, f64), gap| (a.min(gap), b.max(gap)));
        assert_eq!(least, most, "{least} {most}");
        assert_eq!(columns["loss"][0], 0.33333);
        assert_eq!(columns["round"][1].to_string(), "128");
        assert_eq!(columns["consensus"][0], Value::Null);
        assert!(columns.to_string().len() < 100_000);

        let few = history.columns(100);
        let count = times.len();
        for (key, column) in few.as_object().unwrap() {
            assert_eq!(column.as_array().map(Vec::len), Some(100), "{key}");
            assert_eq!(column[0], columns[key][0], "{key}");
            assert_eq!(column[99], columns[key][count - 1], "{key}");
        }
        assert_eq!(history.columns(1)["round"], json!([0]));
        assert_eq!(history.columns(0)["round"], json!([]));
        assert_eq!(History::default().columns(9)["loss"], json!([]));
    }
}
