//! What a node shows over HTTP: a dashboard, metrics, health. Nothing here changes anything.
//!
//! The driver publishes its status once a second into a [`Board`], which keeps what the pages need
//! beyond the present: a bounded history, and who was a neighbour. The server reads the board.

mod answer;
mod events;
mod export;
mod health;
mod history;
mod metrics;
mod server;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use starling_config::Config;
use starling_node::event::Event;
use tokio::sync::watch;

use self::history::History;
use self::metrics::{Family, Machine};
use crate::log::{self, Followed};
use crate::memory;

/// Nodes whose history is kept: as many as a demo may have.
const NODES_MAX: usize = 64;
/// Samples in one answer, of all nodes: with eleven figures of ten bytes or so each 80 kB, which
/// beside the page itself is what a browser has to load.
const SAMPLES_SHOWN_MAX: usize = 600;
/// Former neighbours that are still shown, and for how long.
const GONE_MAX: usize = 64;
const GONE_SHOWN: Duration = Duration::from_secs(3600);

/// Who hands out the log to those who follow it.
type Follow = Box<dyn Fn() -> Option<Followed> + Send + Sync>;

/// One published status.
#[derive(Debug)]
struct Published {
    at: Instant,
    status: Value,
    text: Arc<str>,
}

#[derive(Debug, Default)]
struct Memory {
    histories: BTreeMap<String, History>,
    neighbours: BTreeMap<String, (Value, Instant)>,
}

struct Shared {
    began: Instant,
    published: watch::Sender<Arc<Published>>,
    memory: Mutex<Memory>,
    follow: Follow,
    /// Log lines that no collector took.
    dropped: AtomicU64,
    /// Where it is served.
    url: OnceLock<String>,
    /// Of the node; a flock has none.
    state_dir: Option<PathBuf>,
}

/// What is shown, shared by those who write it and those who show it.
#[derive(Clone)]
pub struct Board(Arc<Shared>);

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

impl Board {
    /// A board that shows a node, or without a directory a flock.
    pub fn new(state_dir: Option<PathBuf>, follow: Follow) -> Self {
        let nothing = Published { at: Instant::now(), status: json!({}), text: "{}".into() };
        Self(Arc::new(Shared {
            began: Instant::now(),
            published: watch::Sender::new(Arc::new(nothing)),
            memory: Mutex::default(),
            follow,
            dropped: AtomicU64::new(0),
            url: OnceLock::new(),
            state_dir,
        }))
    }

    /// Shows the status of a node, or of several as `nodes`.
    pub fn publish(&self, mut status: Value) {
        let now = Instant::now();
        let time = now.duration_since(self.0.began).as_secs_f64();
        let mut memory = self.memory();
        match status.get("nodes").and_then(Value::as_array) {
            Some(nodes) => nodes.iter().for_each(|node| memory.remember(time, node)),
            None => {
                memory.remember(time, &status);
                let gone = memory.departed(&status, now);
                if let Some(status) = status.as_object_mut() {
                    status.insert("gone".into(), gone);
                    let dropped = self.0.dropped.load(Ordering::Relaxed);
                    status.insert("export_dropped".into(), dropped.into());
                }
            }
        }
        drop(memory);
        if let Some(status) = status.as_object_mut() {
            status.insert("time_s".into(), ((time * 1e3).round() / 1e3).into());
        }
        let text = status.to_string().into();
        self.0.published.send_replace(Arc::new(Published { at: now, status, text }));
    }

    /// What to type into a browser on this machine, if it is served.
    pub fn url(&self) -> Option<&str> {
        self.0.url.get().map(String::as_str)
    }

    /// All metrics as of now, if it is a node's.
    fn families(&self) -> Option<Vec<Family>> {
        let (latest, directory) = (self.latest(), self.0.state_dir.as_ref()?);
        let (ready, _) = health::ready(latest.at.elapsed(), &latest.status, directory);
        let machine = Machine {
            ready,
            disk_free: health::free_bytes(directory),
            memory: memory::now(),
            lines_held_back: log::held_back(),
        };
        Some(metrics::families(&latest.status, &log::counts(), &machine))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        // It stays whole whoever panicked while holding it.
        self.0.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> Arc<Published> {
        Arc::clone(&self.0.published.borrow())
    }

    fn history(&self) -> Value {
        let memory = self.memory();
        let each = SAMPLES_SHOWN_MAX / memory.histories.len().max(1);
        let histories = memory.histories.iter();
        histories.map(|(node, history)| (node.clone(), history.columns(each))).collect()
    }
}

impl Memory {
    fn remember(&mut self, time: f64, status: &Value) {
        let Some(node) = status.get("node").and_then(Value::as_str) else { return };
        if self.histories.len() < NODES_MAX || self.histories.contains_key(node) {
            self.histories.entry(node.to_owned()).or_default().sample(time, status);
        }
    }

    /// Notes the neighbours of now; those of before that are no more, as they were last.
    fn departed(&mut self, status: &Value, now: Instant) -> Value {
        for peer in status.get("peers").and_then(Value::as_array).into_iter().flatten() {
            if let Some(id) = peer.get("id").and_then(Value::as_str) {
                self.neighbours.insert(id.to_owned(), (peer.clone(), now));
            }
        }
        self.neighbours.retain(|_, (_, seen)| now.duration_since(*seen) < GONE_SHOWN);
        let mut gone: Vec<(&String, &(Value, Instant))> =
            self.neighbours.iter().filter(|(_, (_, seen))| *seen != now).collect();
        gone.sort_by_key(|(_, (_, seen))| now.duration_since(*seen));
        let forgotten: Vec<String> =
            gone.iter().skip(GONE_MAX).map(|(id, _)| (*id).clone()).collect();
        let shown = gone.iter().take(GONE_MAX).map(|(_, (peer, seen))| {
            let mut peer = peer.clone();
            if let Some(fields) = peer.as_object_mut() {
                fields.insert("gone_s".into(), now.duration_since(*seen).as_secs().into());
            }
            peer
        });
        let shown = shown.collect();
        for id in forgotten {
            self.neighbours.remove(&id);
        }
        shown
    }
}

/// What systemd passes to listen at: a socket, or why what it passed is none that serves.
pub type Passed = Option<std::io::Result<TcpListener>>;

/// The socket that systemd listens at for us, if it does. To be called before any thread exists.
pub fn passed_listener() -> Passed {
    listenfd::ListenFd::from_env().take_tcp_listener(0).transpose()
}

/// Shows a node where it is wished: to whoever calls, at an address or a passed socket, and to a
/// collector. A failure is told and no more: nobody watching is no reason not to learn.
pub fn start(state_dir: &Path, config: &Config, passed: Passed) -> Option<Board> {
    let listen = config.serve_listen;
    let from = match (&passed, listen) {
        (None, Some(listen)) => listen.to_string(),
        _ => "a passed socket".to_owned(),
    };
    let listener = match (passed, listen) {
        (Some(passed), _) => Some(passed),
        (None, Some(listen)) => Some(TcpListener::bind(listen)),
        (None, None) => None,
    };
    if listener.is_none() && config.serve_otlp.is_empty() {
        return None;
    }
    let board = Board::new(Some(state_dir.to_owned()), Box::new(log::follow));
    match listener.map(|listener| serve(listener?, board.clone())) {
        None => {}
        Some(Ok(())) => {
            let address = board.url().unwrap_or_default().to_owned();
            log::emit(&Event::ServeStarted { address });
        }
        Some(Err(error)) => {
            log::emit(&Event::ServeFailed { address: from, reason: error.to_string() });
        }
    }
    if !config.serve_otlp.is_empty() {
        tokio::spawn(export::run(config.serve_otlp.clone(), board.clone()));
    }
    Some(board)
}

/// Serves a board from a thread of its own, for callers that keep theirs busy.
pub fn serve_apart(listener: TcpListener, board: Board) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    serve(listener, board)?;
    drop(entered);
    let thread = std::thread::Builder::new().name("dashboard".into());
    thread.spawn(move || runtime.block_on(std::future::pending::<()>())).map(drop)
}

/// Serves a board until the process ends.
pub fn serve(listener: TcpListener, board: Board) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let url = if address.ip().is_unspecified() {
        format!("http://localhost:{}/", address.port())
    } else {
        format!("http://{address}/")
    };
    // Nobody has set it: a board is served once.
    let _ = board.0.url.set(url);
    tokio::spawn(server::run(listener, address, board));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board::new(None, Box::new(|| None))
    }

    fn status(peers: &[&str]) -> Value {
        let peers: Vec<Value> = peers.iter().map(|id| json!({"id": id, "accepted": 3})).collect();
        json!({"node": "me", "peers": peers})
    }

    #[test]
    fn who_leaves_is_remembered_and_who_returns_is_not_gone() {
        let board = board();
        board.publish(status(&["a", "b"]));
        assert_eq!(board.latest().status["gone"], json!([]));
        board.publish(status(&["b"]));
        let gone = json!([{"id": "a", "accepted": 3, "gone_s": 0}]);
        assert_eq!(board.latest().status["gone"], gone);
        board.publish(status(&["a"]));
        assert_eq!(board.latest().status["gone"][0]["id"], "b");
    }

    #[test]
    fn memory_is_bounded_whoever_comes_and_goes() {
        let board = board();
        for peer in 0..3 * GONE_MAX {
            board.publish(status(&[&peer.to_string()]));
        }
        assert_eq!(board.latest().status["gone"].as_array().map(Vec::len), Some(GONE_MAX));
        assert!(board.memory().neighbours.len() <= GONE_MAX + 1);
        let nodes: Vec<Value> =
            (0..2 * NODES_MAX).map(|node| json!({"node": node.to_string()})).collect();
        board.publish(json!({ "nodes": nodes }));
        assert_eq!(board.memory().histories.len(), NODES_MAX);
    }
}
