//! The log stream: one JSON line per event on standard error, or text on a terminal.
//!
//! `seq` has no gap within a boot, so a monitor notices lost lines. Events about one peer that
//! repeat are held back and counted. Warnings of libraries pass through as `library.logged`.

use std::collections::{BTreeMap, VecDeque};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};
use starling_config::LogFormat;
use starling_node::event::{Entry, Event, Severity};
use tokio::sync::broadcast;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer};

/// Lines of one event about one peer in a burst, and the time after which one more is let through.
const BURST: u32 = 5;
const REFILL: Duration = Duration::from_secs(10);
/// Kinds of (event, peer) whose rate is watched; the table is emptied when it is full.
const WATCHED_MAX: usize = 2048;
/// Longest text from a peer or a library in a line.
const TEXT_MAX: usize = 64;
/// Lines kept for those who ask later what happened.
const RECENT_MAX: usize = 1000;
/// Lines that a follower may be behind before it misses some.
const BEHIND_MAX: usize = 256;
/// Kinds of (event, reason) that are counted; reasons are from closed lists but for a few texts.
const COUNTED_MAX: usize = 512;

/// The process's log, once it is set up.
static LOG: OnceLock<Log> = OnceLock::new();

#[derive(Debug)]
struct Rate {
    tokens: u32,
    since: Instant,
    suppressed: u64,
}

#[derive(Debug, Default)]
struct State {
    seq: u64,
    node: String,
    network: String,
    boot: u64,
    rates: BTreeMap<(&'static str, String), Rate>,
    recent: VecDeque<Arc<str>>,
    counts: Counts,
}

/// How often each event happened, by its reason where it has one.
pub type Counts = BTreeMap<(&'static str, String), u64>;

/// Lines that were, and those to come.
pub type Followed = (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>);

/// Writes events.
#[derive(Debug)]
pub struct Log {
    json: bool,
    state: Mutex<State>,
    followers: broadcast::Sender<Arc<str>>,
}

/// Sets the process's log up. Later calls change nothing.
pub fn init(format: LogFormat) {
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let (followers, _) = broadcast::channel(BEHIND_MAX);
    if LOG.set(Log { json, state: Mutex::new(State::default()), followers }).is_ok() {
        let filter = EnvFilter::try_from_env("STARLING_LOG")
            .unwrap_or_else(|_| EnvFilter::new("error,libp2p_mdns=off"));
        let subscriber = tracing_subscriber::registry().with(Library.with_filter(filter));
        // It fails if a subscriber is set already, which then does this one's work.
        let _ = tracing::subscriber::set_global_default(subscriber);
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

/// How often each event happened in this boot, those held back included.
pub fn counts() -> Counts {
    let state = LOG.get().and_then(|log| log.state.lock().ok());
    state.map(|state| state.counts.clone()).unwrap_or_default()
}

/// Writes one event.
pub fn emit(event: &Event) {
    let entry = event.entry();
    let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { return };
    fields.remove("event");
    write(entry.name, entry.severity, fields);
}

fn write(name: &'static str, severity: Severity, mut fields: Map<String, Value>) {
    let Some(log) = LOG.get() else { return };
    let Ok(mut state) = log.state.lock() else { return };
    state.count(name, fields.get("reason").and_then(Value::as_str).unwrap_or_default());
    let peer = fields.get("peer").and_then(Value::as_str).map(str::to_owned);
    if let Some(peer) = peer {
        match state.admit(name, peer) {
            None => return,
            Some(0) => {}
            Some(suppressed) => {
                fields.insert("suppressed".into(), suppressed.into());
            }
        }
    }
    state.seq += 1;
    for value in fields.values_mut() {
        bound(value);
    }
    let line: Arc<str> = state.json(name, severity, fields.clone()).into();
    if state.recent.len() >= RECENT_MAX {
        state.recent.pop_front();
    }
    state.recent.push_back(Arc::clone(&line));
    // Nobody may be following.
    let _ = log.followers.send(Arc::clone(&line));
    let line = if log.json { line } else { text(name, severity, &fields).into() };
    // A closed standard error must not end the daemon.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

fn bound(value: &mut Value) {
    if let Value::String(text) = value
        && text.chars().count() > 4 * TEXT_MAX
    {
        *text = text.chars().take(4 * TEXT_MAX).chain(['…']).collect();
    }
}

impl State {
    fn count(&mut self, name: &'static str, reason: &str) {
        let key = (name, reason.to_owned());
        if self.counts.len() < COUNTED_MAX || self.counts.contains_key(&key) {
            *self.counts.entry(key).or_default() += 1;
        }
    }

    /// How many lines were held back before this one; none if this one is held back too.
    fn admit(&mut self, name: &'static str, peer: String) -> Option<u64> {
        if self.rates.len() >= WATCHED_MAX {
            self.rates.clear();
        }
        let now = Instant::now();
        let fresh = || Rate { tokens: BURST, since: now, suppressed: 0 };
        let rate = self.rates.entry((name, peer)).or_insert_with(fresh);
        let periods = now.duration_since(rate.since).as_secs() / REFILL.as_secs();
        if periods > 0 {
            rate.tokens = BURST.min(rate.tokens + u32::try_from(periods).unwrap_or(BURST));
            rate.since = now;
        }
        if rate.tokens == 0 {
            rate.suppressed += 1;
            return None;
        }
        rate.tokens -= 1;
        Some(std::mem::take(&mut rate.suppressed))
    }

    fn json(&self, name: &str, severity: Severity, fields: Map<String, Value>) -> String {
        let mut line = Map::new();
        line.insert("ts".into(), timestamp().into());
        line.insert("severity".into(), severity_name(severity).into());
        line.insert("event".into(), name.into());
        line.insert("schema".into(), 1.into());
        line.insert("node".into(), self.node.clone().into());
        line.insert("network".into(), self.network.clone().into());
        line.insert("boot".into(), self.boot.into());
        line.insert("seq".into(), self.seq.into());
        let message = summary(&fields);
        line.extend(fields);
        line.insert("msg".into(), format!("{name} {message}").trim_end().into());
        let mut line = Value::Object(line).to_string();
        line.push('\n');
        line
    }
}

fn text(name: &str, severity: Severity, fields: &Map<String, Value>) -> String {
    let clock = timestamp();
    let time = clock.get(11..19).unwrap_or_default();
    format!("{time} {:5} {name:20} {}\n", severity_name(severity), summary(fields))
}

fn summary(fields: &Map<String, Value>) -> String {
    let part = |(key, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::Number(number) if number.is_f64() => {
            Some(format!("{key}={:.4}", number.as_f64().unwrap_or_default()))
        }
        Value::String(text) if key == "peer" => {
            let tail = text.len().saturating_sub(10);
            Some(format!("peer=…{}", text.get(tail..).unwrap_or_default()))
        }
        Value::String(text) => Some(format!("{key}={text}")),
        other => Some(format!("{key}={other}")),
    };
    fields.iter().filter_map(part).collect::<Vec<_>>().join(" ")
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

/// The catalogue's entry as a table row.
pub fn describe(entry: &Entry) -> String {
    let fields: Vec<String> =
        entry.fields.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
    format!(
        "{:5} {}\n      {}\n      fields: {}\n      do: {}",
        severity_name(entry.severity),
        entry.name,
        entry.meaning,
        if fields.is_empty() { "none".to_owned() } else { fields.join(", ") },
        entry.action
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_lines_about_one_peer_are_held_back_and_counted() {
        let mut state = State::default();
        for _ in 0..BURST {
            assert_eq!(state.admit("frame.rejected", "a".into()), Some(0));
        }
        assert_eq!(state.admit("frame.rejected", "a".into()), None);
        assert_eq!(state.admit("frame.rejected", "b".into()), Some(0));
        let rate = state.rates.get_mut(&("frame.rejected", "a".to_owned())).expect("watched");
        rate.since -= REFILL;
        assert_eq!(state.admit("frame.rejected", "a".into()), Some(1));
        assert_eq!(state.admit("frame.rejected", "a".into()), None);
    }

    #[test]
    fn one_line_stays_one_json_line_whatever_it_holds() {
        let mut fields = Map::new();
        fields.insert("reason".into(), "a\nb\"}\u{1b}[2J".into());
        let line = State::default().json("peer.denied", Severity::Warn, fields);
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
