//! The flock's dashboard: what the daemons answer and write, put on one board.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tokio::time::timeout;

use super::flock::{Flock, NodeView};
use crate::cli::Demo;
use crate::control;
use crate::exit::{Code, Failure};
use crate::web::{self, Board};

/// How often the daemons are asked, and how long they may take before the last answer is shown.
const LOOK: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_millis(500);
/// Lines kept for a page that comes later, and those that a page may be behind.
const RECENT_MAX: usize = 500;
const BEHIND_MAX: usize = 1024;

/// The lines of all daemons, for pages.
#[derive(Debug)]
pub(super) struct Lines {
    recent: Mutex<VecDeque<Arc<str>>>,
    followers: broadcast::Sender<Arc<str>>,
}

impl Lines {
    fn new() -> Arc<Self> {
        let (followers, _) = broadcast::channel(BEHIND_MAX);
        Arc::new(Self { recent: Mutex::default(), followers })
    }

    pub(super) fn push(&self, line: &str) {
        let line: Arc<str> = line.into();
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&line));
        // Nobody may be looking.
        let _ = self.followers.send(line);
    }
}

/// What shows the flock.
#[derive(Debug)]
pub(super) struct View {
    board: Board,
    pub(super) lines: Arc<Lines>,
    answers: Vec<Value>,
    about: Value,
    due: Instant,
}

impl View {
    /// Serves on this machine only, at a port that the system chooses.
    pub(super) fn open(options: &Demo, steps: u32) -> Result<Self, Failure> {
        let unusable = |error: std::io::Error| {
            Failure::new(Code::Unavailable, format!("cannot serve the dashboard: {error}"))
        };
        let lines = Lines::new();
        let source = Arc::clone(&lines);
        let board = Board::new(
            None,
            Box::new(move || {
                let recent = source.recent.lock().unwrap_or_else(PoisonError::into_inner);
                Some((recent.iter().cloned().collect(), source.followers.subscribe()))
            }),
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(unusable)?;
        web::serve_apart(listener, board.clone()).map_err(unusable)?;
        let about = json!({
            "data": options.data, "split": options.split.to_string(), "steps": steps, "kills": 0,
        });
        let answers = vec![json!({}); usize::from(options.nodes)];
        Ok(Self { board, lines, answers, about, due: Instant::now() })
    }

    pub(super) fn url(&self) -> &str {
        self.board.url().unwrap_or_default()
    }

    /// The same once a second at most.
    pub(super) async fn look(&mut self, flock: &Flock) {
        if Instant::now() < self.due {
            return;
        }
        self.look_now(flock).await;
    }

    /// Asks the daemons, and shows what they say.
    pub(super) async fn look_now(&mut self, flock: &Flock) {
        self.due = Instant::now() + LOOK;
        let asked = flock.nodes.iter().map(|node| async {
            let request = json!({"command": "status"});
            let socket = node.directory.join("control.sock");
            let answer = timeout(PATIENCE, control::ask(&socket, &request)).await;
            answer.ok().and_then(Result::ok)
        });
        for (known, answer) in self.answers.iter_mut().zip(join_all(asked).await) {
            if let Some(answer) = answer {
                *known = answer;
            }
        }
        self.show(flock);
    }

    /// Shows how it ended; the page stays for as long as this process does.
    pub(super) fn landed(&mut self, flock: &Flock, verdict: Value) {
        if let Some(about) = self.about.as_object_mut() {
            about.insert("verdict".into(), verdict);
        }
        self.show(flock);
    }

    fn show(&mut self, flock: &Flock) {
        let nodes = flock.nodes.iter().zip(&self.answers);
        let nodes: Vec<Value> = nodes.map(|(node, answer)| told(node, answer)).collect();
        let mut status = self.about.clone();
        if let Some(fields) = status.as_object_mut() {
            fields.insert("kills".into(), flock.kills.into());
            fields.insert("nodes".into(), nodes.into());
        }
        self.board.publish(status);
    }
}

/// What a daemon last answered, with what only the demo knows of it.
fn told(node: &NodeView, answer: &Value) -> Value {
    let mut told = answer.clone();
    if let Some(fields) = told.as_object_mut() {
        fields.insert("node".into(), node.id.clone().into());
        fields.insert("boots".into(), node.boots.into());
        fields.insert("test_accuracy".into(), node.accuracy.into());
        fields.insert("sent_bytes".into(), node.sent_bytes().into());
        match node.phase() {
            phase @ "killed" => {
                fields.insert("phase".into(), phase.into());
                fields.insert("obstacle".into(), Value::Null);
                fields.insert("dashboard".into(), Value::Null);
            }
            phase @ "done" => {
                fields.insert("phase".into(), phase.into());
            }
            _ => {}
        }
    }
    told
}
