//! How lines are shown.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};

use serde_json::{Map, Value};

use super::filter::Filter;
use crate::log::{ENVELOPE, escaped, short, summary};

const DIM: &str = "\u{1b}[2m";
const BOLD: &str = "\u{1b}[1m";
const RED: &str = "\u{1b}[31m";
const YELLOW: &str = "\u{1b}[33m";
const PLAIN: &str = "\u{1b}[0m";

/// Prints those lines that are wanted.
#[derive(Debug)]
pub(super) struct Printer {
    filter: Filter,
    json: bool,
    /// Whether other lines than events come from the unit, and not from anybody.
    journal: bool,
    colour: bool,
    node: Option<String>,
    /// Whether more than one node has spoken: from then on each line says which.
    several: bool,
    /// Lines that there were, wanted or not.
    pub(super) read: u64,
}

/// NO_COLOR counts unless it is empty: <https://no-color.org>.
fn has_colour(terminal: bool, no_color: Option<OsString>) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
}

impl Printer {
    pub(super) fn new(filter: Filter, json: bool, journal: bool) -> Self {
        let colour = has_colour(std::io::stdout().is_terminal(), std::env::var_os("NO_COLOR"));
        Self { filter, json, journal, colour, node: None, several: false, read: 0 }
    }

    /// Prints a line if it is wanted; false if nobody reads any more.
    pub(super) fn print(&mut self, line: &[u8]) -> bool {
        self.read += 1;
        let Some(text) = self.shown(line) else { return true };
        let mut out = std::io::stdout().lock();
        out.write_all(format!("{text}\n").as_bytes()).is_ok()
    }

    fn shown(&mut self, line: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end_matches(['\n', '\r']);
        let event = serde_json::from_str(text).ok().filter(is_event);
        let Some(Value::Object(event)) = event else {
            let wanted = self.journal && !self.json && self.filter.is_open() && !text.is_empty();
            return wanted.then(|| self.painted(DIM, &escaped(text)));
        };
        self.filter
            .wants(&event)
            .then(|| if self.json { text.to_owned() } else { self.for_people(&event) })
    }

    fn for_people(&mut self, event: &Map<String, Value>) -> String {
        let text = |key: &str| escaped(event.get(key).and_then(Value::as_str).unwrap_or_default());
        let (node, severity) = (text("node"), text("severity"));
        self.several |= self.node.as_ref().is_some_and(|first| *first != node);
        let time = text("ts").replace('T', " ");
        let time = time.get(..19).unwrap_or(&time);
        let from = if self.several { format!("{} ", short(&node)) } else { String::new() };
        self.node.get_or_insert(node);
        let colour = match severity.as_str() {
            "INFO" => "",
            "WARN" => YELLOW,
            _ => RED,
        };
        let own = |name: &str| name == "suppressed" || !ENVELOPE.contains(&name);
        let fields = event.iter().filter(|(name, _)| own(name));
        let fields = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
        let line = format!(
            "{} {} {from}{} {}",
            self.painted(DIM, time),
            self.painted(colour, &format!("{severity:5}")),
            self.painted(BOLD, &format!("{:20}", text("event"))),
            summary(&fields)
        );
        line.trim_end().to_owned()
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colour && !colour.is_empty() {
            format!("{colour}{text}{PLAIN}")
        } else {
            text.to_owned()
        }
    }
}

fn is_event(value: &Value) -> bool {
    ["ts", "severity", "event"].iter().all(|key| value.get(key).is_some_and(Value::is_string))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = concat!(
        r#"{"ts":"2026-11-22T19:04:01.123456Z","severity":"WARN","event":"peer.denied","#,
        r#""schema":1,"node":"12D3KooWnodeAAAAAAAAA","network":"w","boot":1,"seq":4,"#,
        r#""peer":"12D3KooWpeerBBBBBBBBB","reason":"a\u001b[2J","suppressed":3,"msg":"m"}"#
    );

    fn printer(journal: bool) -> Printer {
        let filter = Filter::default();
        Printer { filter, json: false, journal, colour: false, node: None, several: false, read: 0 }
    }

    #[test]
    fn colours_are_for_terminals_whose_user_wants_them() {
        assert!(has_colour(true, None) && has_colour(true, Some("".into())));
        assert!(!has_colour(true, Some("1".into())) && !has_colour(false, None));
    }

    #[test]
    fn an_event_is_one_line_for_people_or_as_it_was() {
        let expected = "2026-11-22 19:04:01 WARN  peer.denied          peer=…rBBBBBBBBB \
                        reason=a\\u{1b}[2J suppressed=3";
        assert_eq!(printer(false).shown(LINE.as_bytes()).as_deref(), Some(expected));
        let mut raw = Printer { json: true, ..printer(true) };
        assert_eq!(raw.shown(format!("{LINE}\n").as_bytes()).as_deref(), Some(LINE));
        assert_eq!(raw.shown(b"Started starling.service."), None);
        let painted = Printer { colour: true, ..printer(false) }.shown(LINE.as_bytes());
        let painted = painted.expect("shown");
        assert!(painted.contains("\u{1b}[33mWARN \u{1b}[0m"), "{painted}");
        assert_eq!(painted.matches('\u{1b}').count(), 6, "{painted}");
    }

    #[test]
    fn other_lines_are_shown_if_they_are_the_units() {
        let other = "Started \u{1b}]0;x\u{7}starling.service.\n".as_bytes();
        let expected = "Started \\u{1b}]0;x\\u{7}starling.service.";
        assert_eq!(printer(true).shown(other).as_deref(), Some(expected));
        assert_eq!(printer(false).shown(other), None);
        for other in ["", "\n", "{}", "[1]", "{\"event\":1,\"ts\":\"\",\"severity\":\"\"}"] {
            assert_eq!(printer(false).shown(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_node_is_named_once_there_is_another() {
        let mut printer = printer(false);
        let other = LINE.replace("nodeA", "nodeZ");
        let named = |line: Option<String>| line.expect("shown").contains("AAAA");
        assert!(!named(printer.shown(LINE.as_bytes())));
        assert!(named(printer.shown(other.as_bytes())));
        assert!(named(printer.shown(LINE.as_bytes())));
    }
}
