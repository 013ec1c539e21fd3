//! The log stream: one JSON line per event on standard error, or in the journal, or text on a
//! terminal.
//!
//! `seq` has no gap within a boot, so a monitor notices lost lines. Events about one peer that
//! repeat are held back and counted. Warnings of libraries pass through as `library.logged`.

mod journal;
mod limit;
mod text;

use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Instant, SystemTime};

use serde_json::{Map, Value};
use starling_config::{LogFormat, LogLevel};
use starling_node::event::{Event, Severity};
use tokio::sync::broadcast;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer};

use crate::exit::{Code, Failure};

use self::journal::Journal;
use self::limit::Limiter;
pub use self::text::{escaped, short, summary};

/// Longest text in a line.
const TEXT_MAX: usize = 256;
/// Problems named in one line.
pub const PROBLEMS_MAX: usize = 16;
/// Lines kept for those who ask later what happened.
const RECENT_MAX: usize = 1000;
/// Lines that a follower may be behind before it misses some.
const BEHIND_MAX: usize = 256;
/// Kinds of (event, reason) that are counted: more than there are events and closed reasons.
const COUNTED_MAX: usize = 512;

/// Events that are counted by their reason, which is from a closed list. Other reasons are texts,
/// which peers may have a hand in: they must not fill the table.
pub const BY_REASON: [&str; 7] = [
    "exchange.failed",
    "frame.rejected",
    "peer.banned",
    "peer.denied",
    "peer.disconnected",
    "peer.refused_us",
    "update.rejected",
];

/// Fields that every line may have, whatever its event; all but `suppressed` are always there.
pub const ENVELOPE: [&str; 10] =
    ["ts", "severity", "event", "schema", "node", "network", "boot", "seq", "suppressed", "msg"];

/// The process's log, once it is set up.
static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug, Default)]
struct State {
    level: LogLevel,
    seq: u64,
    node: String,
    network: String,
    boot: u64,
    limiter: Limiter,
    recent: VecDeque<Arc<str>>,
    counts: Counts,
    held_back: u64,
}

/// One event, ready to be written.
#[derive(Debug)]
struct Line {
    name: &'static str,
    severity: Severity,
    /// None if it is too unimportant to be written.
    seq: Option<u64>,
    json: Arc<str>,
    fields: Map<String, Value>,
}

/// Where lines go.
#[derive(Debug)]
enum Sink {
    Json,
    Text,
    Journal(Journal),
}

/// How often each event happened, by its reason if that is from a closed list, else by "".
pub type Counts = BTreeMap<(&'static str, String), u64>;

/// Lines that were, and those to come.
pub type Followed = (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>);

/// Writes events.
#[derive(Debug)]
pub struct Log {
    sink: Sink,
    state: Mutex<State>,
    followers: broadcast::Sender<Arc<str>>,
}

/// Sets the process's log up. Later calls change nothing.
pub fn init(format: LogFormat) {
    let journal = || Journal::open().map_or(Sink::Json, Sink::Journal);
    let sink = match format {
        LogFormat::Json => Sink::Json,
        LogFormat::Text => Sink::Text,
        LogFormat::Journal => journal(),
        LogFormat::Auto if journal::takes_stderr() => journal(),
        LogFormat::Auto if std::io::stderr().is_terminal() => Sink::Text,
        LogFormat::Auto => Sink::Json,
    };
    let (followers, _) = broadcast::channel(BEHIND_MAX);
    if LOG.set(Log { sink, state: Mutex::new(State::default()), followers }).is_ok() {
        let filter = EnvFilter::try_from_env("STARLING_LOG")
            .unwrap_or_else(|_| EnvFilter::new("error,libp2p_mdns=off"));
        let subscriber = tracing_subscriber::registry().with(Library.with_filter(filter));
        // It fails if a subscriber is set already, which then does this one's work.
        let _ = tracing::subscriber::set_global_default(subscriber);
    }
}

/// Writes from now on only what is at least this severe.
pub fn set_level(level: LogLevel) {
    if let Some(mut state) = LOG.get().and_then(|log| log.state.lock().ok()) {
        state.level = level;
    }
}

/// Names the node in all further lines.
pub fn identify(node: String, network: String, boot: u64) {
    if let Some(mut state) = LOG.get().and_then(|log| log.state.lock().ok()) {
        (state.node, state.network, state.boot) = (node, network, boot);
    }
}

/// The last JSON lines, and all that follow them.
pub fn follow() -> Option<Followed> {
    let log = LOG.get()?;
    let state = log.state.lock().ok()?;
    Some((state.recent.iter().cloned().collect(), log.followers.subscribe()))
}

/// Lines kept, and how many are at most.
pub fn kept() -> (usize, usize) {
    let state = LOG.get().and_then(|log| log.state.lock().ok());
    (state.map_or(0, |state| state.recent.len()), RECENT_MAX)
}

/// How often each event happened in this boot, those held back included.
pub fn counts() -> Counts {
    let state = LOG.get().and_then(|log| log.state.lock().ok());
    state.map(|state| state.counts.clone()).unwrap_or_default()
}

/// Lines of this boot that were held back because there were too many of their kind.
pub fn held_back() -> u64 {
    let state = LOG.get().and_then(|log| log.state.lock().ok());
    state.map_or(0, |state| state.held_back)
}

/// Writes one event.
pub fn emit(event: &Event) {
    let entry = event.entry();
    write(entry.name, entry.severity, fields_of(event));
}

/// Tells of what ends the process, where lines are read by programs; what is left for `main` to say
/// to people. Who calls it before the configuration is read gets the log that suits standard error.
pub fn failed(failure: Failure) -> Failure {
    init(LogFormat::Auto);
    let for_people = LOG.get().is_none_or(|log| matches!(log.sink, Sink::Text));
    if for_people || failure.code == Code::Usage || failure.message.is_empty() {
        return failure;
    }
    let mut lines = failure.message.lines().map(str::to_owned);
    emit(&Event::DaemonFailed {
        exit_code: failure.code as u8,
        reason: lines.next().unwrap_or_default(),
        problems: lines.take(PROBLEMS_MAX).collect(),
    });
    Failure::new(failure.code, "")
}

/// Writes one event, and waits for nobody: who panics may be in the middle of a line.
pub fn emit_at_once(event: &Event) {
    let entry = event.entry();
    match LOG.get().map(|log| (log, log.state.try_lock())) {
        Some((log, Ok(state))) => {
            log.write(state, entry.name, entry.severity, fields_of(event));
        }
        _ => {
            let line = format!("starling: {} {}\n", entry.name, summary(&fields_of(event)));
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
}

fn write(name: &'static str, severity: Severity, fields: Map<String, Value>) {
    let Some(log) = LOG.get() else { return };
    let Ok(state) = log.state.lock() else { return };
    log.write(state, name, severity, fields);
}

impl Log {
    fn write(
        &self,
        mut state: MutexGuard<'_, State>,
        name: &'static str,
        severity: Severity,
        fields: Map<String, Value>,
    ) {
        for line in state.record(Instant::now(), name, severity, fields) {
            // Nobody may be following.
            let _ = self.followers.send(Arc::clone(&line.json));
            if line.seq.is_some() {
                self.sink.write(&line, &state.node);
            }
        }
    }
}

impl Sink {
    fn write(&self, line: &Line, node: &str) {
        let text = match self {
            Self::Json => None,
            Self::Text => Some(for_terminal(line)),
            Self::Journal(journal) if journal.send(line, node) => return,
            // A journal that is gone may be back behind standard error.
            Self::Journal(_) => None,
        };
        // A closed standard error must not end the daemon.
        let _ = std::io::stderr().write_all(text.as_deref().unwrap_or(&line.json).as_bytes());
    }
}

impl State {
    /// The lines that an event makes: itself unless it is held back, and what was before.
    fn record(
        &mut self,
        now: Instant,
        name: &'static str,
        severity: Severity,
        mut fields: Map<String, Value>,
    ) -> Vec<Line> {
        let text = |key: &str| fields.get(key).and_then(Value::as_str);
        let reason = text("reason").filter(|_| BY_REASON.contains(&name));
        self.count(name, reason.unwrap_or_default());
        let subject = text("peer").or(text("source")).map(str::to_owned);
        let mut lines = Vec::new();
        let released = self.limiter.released(now);
        if released > 0 {
            let event = Event::LogSuppressed { lines: released };
            let entry = event.entry();
            lines.push(self.line(entry.name, entry.severity, fields_of(&event)));
        }
        if let Some(suppressed) = self.limiter.admit(now, name, severity, subject.as_deref()) {
            if suppressed > 0 {
                fields.insert("suppressed".into(), suppressed.into());
            }
            lines.push(self.line(name, severity, fields));
        } else {
            self.held_back += 1;
        }
        lines
    }

    fn count(&mut self, name: &'static str, reason: &str) {
        let key = (name, reason.to_owned());
        if self.counts.len() < COUNTED_MAX || self.counts.contains_key(&key) {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    /// Makes a line and keeps it.
    fn line(
        &mut self,
        name: &'static str,
        severity: Severity,
        mut fields: Map<String, Value>,
    ) -> Line {
        // What is not written has no number, so that what is written has no gap.
        let seq = (level_of(severity) >= self.level).then(|| {
            self.seq += 1;
            self.seq
        });
        fields.values_mut().for_each(bound);
        let json: Arc<str> = self.json(name, severity, seq, fields.clone()).into();
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&json));
        Line { name, severity, seq, json, fields }
    }

    fn json(
        &self,
        name: &str,
        severity: Severity,
        seq: Option<u64>,
        fields: Map<String, Value>,
    ) -> String {
        let mut line = Map::new();
        line.insert("ts".into(), timestamp().into());
        line.insert("severity".into(), severity_name(severity).into());
        line.insert("event".into(), name.into());
        line.insert("schema".into(), 1.into());
        line.insert("node".into(), self.node.clone().into());
        line.insert("network".into(), self.network.clone().into());
        line.insert("boot".into(), self.boot.into());
        if let Some(seq) = seq {
            line.insert("seq".into(), seq.into());
        }
        let message = summary(&fields);
        line.extend(fields);
        line.insert("msg".into(), format!("{name} {message}").trim_end().into());
        let mut line = Value::Object(line).to_string();
        line.push('\n');
        line
    }
}

fn fields_of(event: &Event) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { return Map::new() };
    // Not `remove`, which would put the last field in its place.
    fields.shift_remove("event");
    fields
}

fn bound(value: &mut Value) {
    match value {
        Value::String(text) if text.chars().count() > TEXT_MAX => {
            *text = text.chars().take(TEXT_MAX).chain(['…']).collect();
        }
        Value::Array(values) => values.iter_mut().for_each(bound),
        _ => {}
    }
}

fn for_terminal(line: &Line) -> String {
    let clock = timestamp();
    let time = clock.get(11..19).unwrap_or_default();
    let (severity, fields) = (severity_name(line.severity), summary(&line.fields));
    format!("{time} {severity:5} {:20} {fields}\n", line.name)
}

fn level_of(severity: Severity) -> LogLevel {
    match severity {
        Severity::Info => LogLevel::Info,
        Severity::Warn => LogLevel::Warn,
        Severity::Error => LogLevel::Error,
    }
}

/// The stable name of a severity.
pub fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "INFO",
        Severity::Warn => "WARN",
        Severity::Error => "ERROR",
    }
}

fn timestamp() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

/// Passes what libraries log on.
#[derive(Debug)]
struct Library;

#[derive(Default)]
struct Message(String);

impl tracing::field::Visit for Message {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Library {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut message = Message::default();
        event.record(&mut message);
        let source = event.metadata().target().to_owned();
        emit(&Event::LibraryLogged { source, text: message.0 });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::command::events::schema::render;

    fn denied(peer: &str) -> Event {
        Event::PeerDenied { peer: peer.to_owned(), reason: "not_member".to_owned() }
    }

    fn record(state: &mut State, now: Instant, event: &Event) -> Vec<Value> {
        let entry = event.entry();
        let lines = state.record(now, entry.name, entry.severity, fields_of(event));
        let lines: Vec<Value> =
            lines.iter().map(|line| serde_json::from_str(&line.json).expect("JSON")).collect();
        let schema = serde_json::from_str(&render()).expect("JSON");
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        for line in lines.iter().filter(|line| line.get("seq").is_some()) {
            assert!(validator.is_valid(line), "{line}");
        }
        lines
    }

    #[test]
    fn repeated_lines_about_one_peer_are_held_back_and_counted() {
        let mut state = State::default();
        let now = Instant::now();
        let first = record(&mut state, now, &denied("a"));
        assert_eq!(
            (first.len(), &first[0]["seq"], first[0].get("suppressed")),
            (1, &1.into(), None)
        );
        assert!(record(&mut state, now, &denied("a")).is_empty());
        let later = record(&mut state, now + Duration::from_secs(10), &denied("a"));
        assert_eq!((later.len(), &later[0]["seq"]), (1, &2.into()));
        assert_eq!(later[0]["suppressed"], 1);
        assert_eq!(state.counts, Counts::from([(("peer.denied", "not_member".to_owned()), 3)]));
        assert_eq!(state.recent.len(), 2);
    }

    #[test]
    fn what_a_crowd_loses_is_told() {
        let mut state = State::default();
        let now = Instant::now();
        let events = (0..150).map(|index| denied(&index.to_string()));
        let written: usize = events.map(|event| record(&mut state, now, &event).len()).sum();
        assert_eq!(written, 100);
        let next = record(&mut state, now + Duration::from_secs(1), &denied("next"));
        assert_eq!((next.len(), &next[0]["event"]), (2, &"log.suppressed".into()));
        assert_eq!((&next[0]["lines"], &next[0]["seq"]), (&50.into(), &101.into()));
        assert_eq!((&next[1]["peer"], &next[1]["seq"]), (&"next".into(), &102.into()));
    }

    #[test]
    fn a_million_bad_frames_of_three_peers_are_a_line_in_ten_seconds_each_and_none_is_lost() {
        const FRAMES: u32 = 1_000_000;
        let mut state = State::default();
        let (start, peers) = (Instant::now(), ["a", "b", "c"]);
        let event = |peer: &str| Event::FrameRejected {
            peer: peer.to_owned(),
            reason: "bad_signature".to_owned(),
        };
        let (entry, fields) = (event("a").entry(), peers.map(|peer| fields_of(&event(peer))));
        let (mut written, mut told) = (Vec::new(), 0);
        let mut seen: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
        for index in 0..=FRAMES {
            // A hundred seconds of them; the last comes when all others have fallen silent.
            let late = Duration::from_secs(if index == FRAMES { 200 } else { 0 });
            let at = Duration::from_micros(100) * index + late;
            let fields = fields[index as usize % peers.len()].clone();
            for line in state.record(start + at, entry.name, entry.severity, fields) {
                let text = |key: &str| line.fields.get(key).and_then(Value::as_str);
                let number = |key: &str| line.fields.get(key).and_then(Value::as_u64);
                if let Some(peer) = text("peer") {
                    seen.entry(peer.to_owned()).or_default().push(at);
                    told += 1;
                }
                told += number("suppressed").or(number("lines")).unwrap_or(0);
                written.push(line.seq);
            }
        }
        let spaced = |times: &[Duration]| {
            times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(10))
        };
        assert!(seen.values().all(|times| spaced(times)), "{seen:?}");
        let lines: Vec<usize> = seen.values().map(Vec::len).collect();
        // The last frame is one more of the second peer.
        assert_eq!(lines, [10, 11, 10]);
        assert_eq!(told, u64::from(FRAMES) + 1, "each is a line or counted in one");
        let gapless: Vec<Option<u64>> = (1..=written.len() as u64).map(Some).collect();
        assert_eq!(written, gapless);
        let counted = ("frame.rejected", "bad_signature".to_owned());
        assert_eq!(state.counts[&counted], u64::from(FRAMES) + 1);
        assert_eq!(state.held_back, u64::from(FRAMES) + 1 - 31);
    }

    #[test]
    fn what_is_below_the_level_is_kept_and_counted_without_a_number() {
        let mut state = State { level: LogLevel::Warn, ..State::default() };
        let now = Instant::now();
        let quiet = Event::DaemonRecovered { reason: "r".to_owned() };
        let lines = [&quiet, &denied("a"), &quiet, &denied("b")]
            .map(|event| record(&mut state, now, event).remove(0));
        let numbers = lines.each_ref().map(|line| line.get("seq").and_then(Value::as_u64));
        assert_eq!(numbers, [None, Some(1), None, Some(2)]);
        assert_eq!(state.recent.len(), 4);
        assert_eq!(state.counts[&("daemon.recovered", String::new())], 2);
        state.level = LogLevel::Info;
        assert_eq!(record(&mut state, now, &quiet)[0]["seq"], 3);
    }

    #[test]
    fn no_text_of_a_peer_keeps_an_event_from_being_counted() {
        let mut state = State::default();
        let now = Instant::now();
        for index in 0..=COUNTED_MAX {
            let reason = format!("/ip4/127.0.0.1/tcp/{index}: refused");
            record(&mut state, now, &Event::PeerUnreachable { peer: "a".to_owned(), reason });
        }
        record(&mut state, now, &Event::CheckpointFailed { reason: "no room".to_owned() });
        record(&mut state, now, &denied("a"));
        let expected = [
            (("checkpoint.failed", String::new()), 1),
            (("peer.denied", "not_member".to_owned()), 1),
            (("peer.unreachable", String::new()), COUNTED_MAX as u64 + 1),
        ];
        assert_eq!(state.counts, Counts::from(expected));
    }

    #[test]
    fn long_texts_are_cut_wherever_they_stand() {
        let long = "é".repeat(TEXT_MAX + 1);
        let mut value = serde_json::json!([long, "short"]);
        bound(&mut value);
        assert_eq!(value[0].as_str().map(|text| text.chars().count()), Some(TEXT_MAX + 1));
        assert_eq!(value[0].as_str().and_then(|text| text.chars().last()), Some('…'));
        assert_eq!(value[1], "short");
    }

    #[test]
    fn one_line_stays_one_json_line_whatever_it_holds() {
        let mut fields = Map::new();
        fields.insert("reason".into(), "a\nb\"}\u{1b}[2J".into());
        let line = State::default().json("peer.denied", Severity::Warn, Some(1), fields);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{1b}'));
        let value: Value = serde_json::from_str(&line).expect("json");
        assert_eq!(value["reason"], "a\nb\"}\u{1b}[2J");
    }

    #[test]
    fn timestamps_are_rfc3339() {
        let now = timestamp();
        assert_eq!(now.len(), 27);
        assert!(now.starts_with("20") && now.ends_with('Z'), "{now}");
    }
}
