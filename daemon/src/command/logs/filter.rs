//! Which lines are wanted.

use std::time::SystemTime;

use serde_json::{Map, Value};
use starling_config::{LogLevel, nearest};
use starling_node::event::CATALOGUE;

use crate::cli::Logs;
use crate::exit::{Code, Failure};

/// What was asked for; what is empty or none lets all pass.
#[derive(Debug, Default)]
pub(super) struct Filter {
    events: Vec<String>,
    peer: Option<String>,
    node: Option<String>,
    severity: Option<LogLevel>,
    /// The oldest time wanted, as lines have it.
    since: Option<String>,
}

impl Filter {
    pub(super) fn new(options: &Logs, since: Option<SystemTime>) -> Result<Self, Failure> {
        options.event.iter().try_for_each(|pattern| check_pattern(pattern))?;
        // People copy what they see.
        let id = |id: &Option<String>| id.as_ref().map(|id| id.trim_start_matches('…').to_owned());
        Ok(Self {
            events: options.event.clone(),
            peer: id(&options.peer),
            node: id(&options.node),
            severity: options.severity,
            since: since.map(|since| humantime::format_rfc3339_micros(since).to_string()),
        })
    }

    /// Whether lines that are no events are wanted as well.
    pub(super) fn is_open(&self) -> bool {
        self.events.is_empty()
            && self.peer.is_none()
            && self.node.is_none()
            && self.severity.is_none()
    }

    pub(super) fn wants(&self, line: &Map<String, Value>) -> bool {
        let text = |key: &str| line.get(key).and_then(Value::as_str).unwrap_or_default();
        let ends = |key: &str, end: &Option<String>| {
            end.as_ref().is_none_or(|end| text(key).ends_with(end.as_str()))
        };
        let event = text("event");
        // An unknown severity is of a newer version, and may matter.
        let severity = text("severity").to_lowercase().parse().unwrap_or(LogLevel::Error);
        (self.events.is_empty() || self.events.iter().any(|pattern| matches(pattern, event)))
            && ends("peer", &self.peer)
            && ends("node", &self.node)
            && self.severity.is_none_or(|least| severity >= least)
            && self.since.as_ref().is_none_or(|since| text("ts") >= since.as_str())
    }
}

fn check_pattern(pattern: &str) -> Result<(), Failure> {
    let names = || CATALOGUE.iter().map(|entry| entry.name);
    if names().any(|name| matches(pattern, name)) {
        return Ok(());
    }
    let meant = match pattern.strip_suffix(".*") {
        Some(noun) => nearest(noun, names().filter_map(|name| name.split('.').next()))
            .map(|noun| format!("{noun}.*")),
        None => nearest(pattern, names()).map(str::to_owned),
    };
    let meant = meant.map_or_else(String::new, |meant| format!("did you mean `{meant}`? "));
    let message = format!("--event {pattern}: no such event; {meant}`starling events` lists them");
    Err(Failure::new(Code::Usage, message))
}

/// Whether `*`, each for any letters, make the pattern the text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for pattern in
            ["round.completed", "round.*", "*", "*.completed", "r*d.c*d", "round.completed*"]
        {
            assert!(matches(pattern, "round.completed"), "{pattern}");
        }
        for pattern in ["round", "peer.*", "", "*.failed", "round.completed.*", "*d.d*"] {
            assert!(!matches(pattern, "round.completed"), "{pattern}");
        }
        assert!(!matches("a*a", "a"));
        assert!(!matches("a*b*b", "ab"));
    }

    #[test]
    fn unknown_events_are_refused_with_what_was_meant() {
        let told = |pattern: &str| check_pattern(pattern).map_err(|failure| failure.message);
        assert_eq!(told("round.*"), Ok(()));
        let rest = "`starling events` lists them";
        for (pattern, meant) in [("round.complete", "round.completed"), ("pear.*", "peer.*")] {
            let expected =
                format!("--event {pattern}: no such event; did you mean `{meant}`? {rest}");
            assert_eq!(told(pattern), Err(expected));
        }
        assert_eq!(told("xyzzy"), Err(format!("--event xyzzy: no such event; {rest}")));
        assert_eq!(check_pattern("xyzzy").expect_err("unknown").code, Code::Usage);
    }

    #[test]
    fn each_condition_must_hold() {
        let line = json!({
            "ts": "2026-11-22T19:04:01.000000Z", "severity": "WARN", "event": "peer.denied",
            "node": "12D3nodeA", "peer": "12D3peerB",
        });
        let line = line.as_object().expect("an object");
        let some = |text: &str| Some(text.to_owned());
        let wants = |filter: Filter| filter.wants(line);
        assert!(wants(Filter::default()) && Filter::default().is_open());
        assert!(wants(Filter {
            events: vec!["round.*".into(), "peer.*".into()],
            ..Filter::default()
        }));
        assert!(!wants(Filter { events: vec!["round.*".into()], ..Filter::default() }));
        assert!(wants(Filter { peer: some("peerB"), node: some("nodeA"), ..Filter::default() }));
        assert!(!wants(Filter { peer: some("nodeA"), ..Filter::default() }));
        assert!(!wants(Filter { node: some("peerB"), ..Filter::default() }));
        for (level, wanted) in
            [(LogLevel::Info, true), (LogLevel::Warn, true), (LogLevel::Error, false)]
        {
            assert_eq!(wants(Filter { severity: Some(level), ..Filter::default() }), wanted);
        }
        assert!(wants(Filter { since: some("2026-11-22T19:04:01.000000Z"), ..Filter::default() }));
        assert!(!wants(Filter { since: some("2026-11-22T19:04:01.000001Z"), ..Filter::default() }));
    }
}
