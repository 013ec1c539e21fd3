//! Server-sent events: the status as it is published, log lines as they are written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

use super::{Board, Published};

/// Lines of before that a follower gets first.
const PAST_MAX: usize = 200;
/// When nothing else happens: a follower shall know that we are there, and how old the status is.
const BEAT: Duration = Duration::from_secs(3);

/// One who follows.
#[derive(Debug)]
pub(super) struct Follower {
    status: watch::Receiver<Arc<Published>>,
    lines: Option<broadcast::Receiver<Arc<str>>>,
    waiting: VecDeque<String>,
}

fn line(text: &str) -> String {
    // One log line is one JSON object without a line break in it.
    format!("event: line\ndata: {}\n\n", text.trim_end())
}

impl Follower {
    pub(super) fn new(board: &Board) -> Self {
        let (past, lines) = match (board.0.follow)() {
            Some((past, lines)) => (past, Some(lines)),
            None => (Vec::new(), None),
        };
        let skipped = past.len().saturating_sub(PAST_MAX);
        let mut waiting: VecDeque<String> =
            past.iter().skip(skipped).map(|text| line(text)).collect();
        let latest = board.latest();
        waiting.push_front(format!("retry: 2000\nevent: status\ndata: {}\n\n", latest.text));
        Self { status: board.0.published.subscribe(), lines, waiting }
    }

    /// The next piece of the stream; none once the daemon ends. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<String> {
        if let Some(text) = self.waiting.pop_front() {
            return Some(text);
        }
        let lines = &mut self.lines;
        let written = async {
            match lines {
                Some(lines) => lines.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep(BEAT) => {
                let age = self.status.borrow().at.elapsed().as_secs_f64();
                Some(format!("event: beat\ndata: {age}\n\n"))
            }
            changed = self.status.changed() => {
                changed.ok()?;
                let text = Arc::clone(&self.status.borrow_and_update().text);
                Some(format!("event: status\ndata: {text}\n\n"))
            }
            written = written => match written {
                Ok(text) => Some(line(&text)),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    Some(format!("event: missed\ndata: {missed}\n\n"))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            },
        }
    }
}
