//! How a node's figures went since it was first seen: a bounded row of samples that covers all of
//! it, finer while it is short.

use serde_json::{Map, Value};

/// Samples kept. When so many are there every second one goes, and half as many are taken.
const SAMPLES_MAX: usize = 720;
/// Between two samples at first.
const INTERVAL_FIRST_S: f64 = 1.0;
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

    /// A list for each figure, and one of the times.
    pub(super) fn columns(&self) -> Value {
        let short = |number: f64| {
            // A curve needs no more than six digits, and the page loads the sooner.
            let digits = format!("{number:.5e}").parse::<f64>().unwrap_or(number);
            if number.fract() == 0.0 { number } else { digits }
        };
        let mut columns = Map::new();
        let times =
            self.samples.iter().map(|sample| Value::from((sample.time * 10.0).round() / 10.0));
        columns.insert("time_s".into(), times.collect());
        for (place, figure) in FIGURES.iter().enumerate() {
            let column = self.samples.iter().map(|sample| {
                let number = sample.figures.get(place).copied().flatten();
                number.map_or(Value::Null, |number| short(number).into())
            });
            columns.insert((*figure).into(), column.collect());
        }
        columns.into()
    }
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
        let columns = history.columns();
        let times: Vec<f64> =
            columns["time_s"].as_array().unwrap().iter().filter_map(Value::as_f64).collect();
        assert_eq!(times[0], 0.0);
        assert!(times[times.len() - 1] > 86_000.0);
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let (least, most) =
            gaps.fold((f64::MAX, 0.0), |(a, b): (f64, f64), gap| (a.min(gap), b.max(gap)));
        assert_eq!(least, most, "{least} {most}");
        assert_eq!(columns["loss"][0], 0.333333);
        assert_eq!(columns["consensus"][0], Value::Null);
        assert!(columns.to_string().len() < 100_000);
    }
}
