//! What the screen knows: the last answers, curves since it was opened, and what is alarming.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::exit::Failure;
use crate::log::short;

/// Answers kept for the curves: an hour.
const SAMPLES_MAX: usize = 3600;
/// A node that trains without any merge for this long and so many rounds is as good as alone.
const LONELY: Duration = Duration::from_secs(30);
const LONELY_ROUNDS: u64 = 5;

/// What the daemon says of itself and of its peers.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub status: Value,
    pub peers: Vec<Value>,
}

/// One answer's numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Seconds since the screen was opened.
    pub seconds: f64,
    pub loss: Option<f64>,
    pub accuracy: Option<f64>,
    sent: f64,
    received: f64,
}

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct View {
    pub samples: VecDeque<Sample>,
    pub status: Value,
    pub peers: Vec<Value>,
    opened: Option<Instant>,
    /// Since when nobody answers, and why.
    silent: Option<(Instant, String)>,
    /// Time and round of the last merge.
    merged: Option<(Instant, u64)>,
    accepted: u64,
    now: Option<Instant>,
}

impl View {
    pub(super) fn update(&mut self, now: Instant, answers: Result<Answers, Failure>) {
        self.now = Some(now);
        let opened = *self.opened.get_or_insert(now);
        let Answers { status, peers } = match answers {
            Ok(answers) => answers,
            Err(failure) => {
                let since = self.silent.as_ref().map_or(now, |(since, _)| *since);
                self.silent = Some((since, failure.message));
                return;
            }
        };
        self.silent = None;
        (self.status, self.peers) = (status, peers);
        let accepted = self.whole("accepted");
        // It counts anew after a restart.
        if self.merged.is_none() || accepted != self.accepted {
            self.merged = Some((now, self.whole("round")));
            self.accepted = accepted;
        }
        if self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample {
            seconds: now.saturating_duration_since(opened).as_secs_f64(),
            loss: self.number("loss"),
            accuracy: self.number("cross_accuracy"),
            sent: self.number("sent_bytes").unwrap_or_default(),
            received: self.number("received_bytes").unwrap_or_default(),
        });
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.status.get(key).and_then(Value::as_str).unwrap_or("-")
    }

    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.status.get(key).and_then(Value::as_f64)
    }

    pub(super) fn whole(&self, key: &str) -> u64 {
        self.status.get(key).and_then(Value::as_u64).unwrap_or_default()
    }

    fn is(&self, key: &str) -> bool {
        self.status.get(key).and_then(Value::as_bool).unwrap_or_default()
    }

    /// Bytes a second, sent and received, between the last two answers; none after a restart.
    pub(super) fn rates(&self) -> Option<(f64, f64)> {
        let mut newest = self.samples.iter().rev();
        let (new, old) = (newest.next()?, newest.next()?);
        let seconds = new.seconds - old.seconds;
        let rates = ((new.sent - old.sent) / seconds, (new.received - old.received) / seconds);
        (seconds > 0.0 && rates.0 >= 0.0 && rates.1 >= 0.0).then_some(rates)
    }

    /// What an operator should look at, the worst first.
    pub(super) fn alarms(&self) -> Vec<String> {
        let now = self.now.unwrap_or_else(Instant::now);
        let ago = |since: Instant| clock(now.saturating_duration_since(since).as_secs());
        let mut alarms = Vec::new();
        if let Some((since, why)) = &self.silent {
            return vec![format!("NO ANSWER for {}: {why}", ago(*since))];
        }
        if self.is("degraded") {
            alarms.push("DEGRADED: checkpoints cannot be saved; see the log".to_owned());
        }
        let linked = self.peers.iter().filter(|peer| is_linked(peer)).count();
        let training = self.text("phase") != "done" && !self.is("paused");
        if linked == 0 && training {
            alarms.push("ISOLATED: no peer is linked".to_owned());
        } else if let Some((since, round)) = self.merged
            && training
            && now.saturating_duration_since(since) >= LONELY
            && self.whole("round").saturating_sub(round) >= LONELY_ROUNDS
        {
            alarms.push(format!("NO MERGE for {}, since round {round}", ago(since)));
        }
        // No loss is known before the first round of a boot.
        if training && self.whole("rounds") > 0 && self.number("loss").is_none() {
            alarms.push("DIVERGING: the loss is no number".to_owned());
        }
        if self.is("paused") {
            alarms.push("PAUSED by the operator: `starling resume`".to_owned());
        }
        for peer in &self.peers {
            let is = |key: &str| peer.get(key).and_then(Value::as_bool).unwrap_or_default();
            if is("quarantined") {
                let id = peer.get("id").and_then(Value::as_str).unwrap_or("-");
                alarms.push(format!("QUARANTINE: models of {} are too far off", short(id)));
            }
        }
        alarms
    }
}

/// Whether this row is of a peer that is there; those of `status` all are.
pub(super) fn is_linked(peer: &Value) -> bool {
    peer.get("linked").and_then(Value::as_bool).unwrap_or(true)
}

/// A time for people.
pub(super) fn clock(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::exit::Code;

    fn answers(changes: &Value) -> Result<Answers, Failure> {
        let mut status = json!({
            "phase": "train", "round": 10, "rounds": 5, "loss": 0.5, "cross_accuracy": 0.9,
            "accepted": 3, "sent_bytes": 1000, "received_bytes": 500, "degraded": false,
            "peers": [{"id": "12D3KooWsomepeerAAAA", "age": 1.0, "round": 9}],
        });
        for (key, value) in changes.as_object().into_iter().flatten() {
            status[key] = value.clone();
        }
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        Ok(Answers { status, peers })
    }

    fn view(changes: &[Value]) -> View {
        let mut view = View::default();
        let start = Instant::now();
        for (change, second) in changes.iter().zip(0..) {
            view.update(start + LONELY * second, answers(change));
        }
        view
    }

    #[test]
    fn each_alarm_has_its_cause() {
        let cases = [
            (json!({}), ""),
            (json!({"degraded": true}), "DEGRADED: checkpoints cannot be saved; see the log"),
            (json!({"peers": []}), "ISOLATED: no peer is linked"),
            (json!({"peers": [], "phase": "done"}), ""),
            (json!({"peers": [{"linked": false}]}), "ISOLATED: no peer is linked"),
            (json!({"loss": null}), "DIVERGING: the loss is no number"),
            (json!({"loss": null, "rounds": 0}), ""),
            (json!({"paused": true, "peers": []}), "PAUSED by the operator: `starling resume`"),
            (
                json!({"peers": [{"id": "12D3KooWsomepeerAAAA", "quarantined": true}]}),
                "QUARANTINE: models of …mepeerAAAA are too far off",
            ),
        ];
        for (changes, expected) in cases {
            assert_eq!(
                view(std::slice::from_ref(&changes)).alarms().join("; "),
                expected,
                "{changes}"
            );
        }
    }

    #[test]
    fn no_merge_for_long_is_alarming_until_there_is_one() {
        let alone = [json!({}), json!({"round": 15})];
        assert_eq!(view(&alone).alarms(), ["NO MERGE for 30s, since round 10"]);
        assert!(view(&[json!({}), json!({"round": 14})]).alarms().is_empty());
        let again = [json!({}), json!({"round": 15}), json!({"round": 15, "accepted": 4})];
        assert!(view(&again).alarms().is_empty());
    }

    #[test]
    fn a_silent_daemon_is_told_and_forgotten_when_it_answers() {
        let mut view = view(&[json!({})]);
        let start = view.now.expect("updated");
        for seconds in [1, 5] {
            let failure = Failure::new(Code::Unavailable, "no daemon answers on X");
            view.update(start + Duration::from_secs(seconds), Err(failure));
        }
        assert_eq!(view.alarms(), ["NO ANSWER for 4s: no daemon answers on X"]);
        // A restarted daemon counts from zero: there is no rate then.
        view.update(start + LONELY, answers(&json!({"sent_bytes": 0, "received_bytes": 0})));
        assert!(view.alarms().is_empty());
        assert_eq!(view.rates(), None);
        view.update(start + LONELY * 2, answers(&json!({"sent_bytes": 600, "received_bytes": 30})));
        assert_eq!(view.rates(), Some((20.0, 1.0)));
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut view = View::default();
        let start = Instant::now();
        for second in 0..SAMPLES_MAX as u32 + 10 {
            view.update(start + Duration::from_secs(1) * second, answers(&json!({})));
        }
        assert_eq!(view.samples.len(), SAMPLES_MAX);
        assert_eq!(view.samples[0].seconds, 10.0);
    }
}
