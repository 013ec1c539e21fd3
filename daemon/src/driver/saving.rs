//! Checkpoints on their way to the disk, who waits for them, and the end of the process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use starling_node::event::Event;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{DRAIN, Running};
use crate::control::Answer;
use crate::exit::{Code, Failure};
use crate::log;
use crate::status;
use crate::store::Store;

/// Operators that wait for a checkpoint; one that gave up keeps its place until the disk answers.
const WAITING_MAX: usize = crate::control::CLIENTS_MAX;

/// A checkpoint, numbered in the order in which they were begun.
struct Checkpoint {
    number: u64,
    bytes: Vec<u8>,
    age: f64,
    round: u64,
}

/// One that is on disk, or not.
pub(super) struct Saved {
    number: u64,
    result: Result<Durable, Failure>,
}

struct Durable {
    generation: u64,
    age: f64,
    round: u64,
    bytes: usize,
}

/// One save at a time; if the disk is slow the newest checkpoint waits, older ones are left out.
#[derive(Default)]
pub(super) struct Saver {
    begun: u64,
    ordered: u64,
    task: Option<(Instant, JoinHandle<Saved>)>,
    next: Option<Checkpoint>,
    waiting: Vec<(u64, oneshot::Sender<Answer>)>,
    /// The newest checkpoint of this boot.
    pub(super) last: Option<status::Checkpoint>,
    /// Whether the last save failed.
    pub(super) failed: bool,
}

impl Saver {
    /// The state machine asks the owner of the weights for a checkpoint.
    pub(super) fn begin(&mut self) {
        self.begun += 1;
    }

    /// The checkpoint that was begun first and not yet ordered is to be put on disk.
    pub(super) fn order(&mut self, store: &Arc<Store>, bytes: Vec<u8>, age: f64, round: u64) {
        self.ordered += 1;
        self.next = Some(Checkpoint { number: self.ordered, bytes, age, round });
        self.save_next(store);
    }

    fn save_next(&mut self, store: &Arc<Store>) {
        if self.task.is_some() {
            return;
        }
        let Some(Checkpoint { number, bytes, age, round }) = self.next.take() else { return };
        let store = Arc::clone(store);
        let task = tokio::task::spawn_blocking(move || {
            let durable = |generation| Durable { generation, age, round, bytes: bytes.len() };
            Saved { number, result: store.save_checkpoint(&bytes).map(durable) }
        });
        self.task = Some((Instant::now(), task));
    }

    /// The end of the save under way; never, if there is none. Cancel safe.
    pub(super) async fn saved(&mut self) -> Saved {
        let Some((_, task)) = &mut self.task else { return std::future::pending().await };
        let number = self.ordered;
        task.await.unwrap_or_else(|error| {
            let failure = Failure::new(Code::Internal, format!("saving ended badly: {error}"));
            Saved { number, result: Err(failure) }
        })
    }

    /// How long the save under way has taken so far.
    pub(super) fn saving_for(&self) -> Option<Duration> {
        self.task.as_ref().map(|(since, _)| since.elapsed())
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.task.is_none()
    }

    /// Answers `reply` once a checkpoint is durable that is begun from now on.
    pub(super) fn wait(&mut self, reply: oneshot::Sender<Answer>) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push((self.begun + 1, reply));
        } else {
            let message = "too many wait for the disk already: try again later";
            // A client that went away needs no answer.
            let _ = reply.send(Err(Failure::new(Code::Temporary, message)));
        }
    }

    /// Takes note of a save that has ended, tells those who waited for it and begins the next one;
    /// whether it is durable.
    pub(super) fn done(&mut self, store: &Arc<Store>, saved: Saved) -> bool {
        let Saved { number, result } = saved;
        let duration = self.saving_for().unwrap_or_default();
        self.task = None;
        match &result {
            Ok(Durable { generation, age, round, bytes }) => {
                let (generation, age, round, bytes) = (*generation, *age, *round, *bytes);
                let at = Instant::now();
                self.last = Some(status::Checkpoint { generation, age, bytes, at, duration });
                log::emit(&Event::CheckpointSaved { generation, age, round, bytes });
                if std::mem::take(&mut self.failed) {
                    let reason = "checkpoints are saved again".to_owned();
                    log::emit(&Event::DaemonRecovered { reason });
                }
            }
            Err(failure) => {
                log::emit(&Event::CheckpointFailed { reason: failure.message.clone() });
                if !std::mem::replace(&mut self.failed, true) {
                    let reason = "checkpoints cannot be saved".to_owned();
                    log::emit(&Event::DaemonDegraded { reason });
                }
            }
        }
        let all = std::mem::take(&mut self.waiting);
        let (due, waiting) = all.into_iter().partition(|(wanted, _)| *wanted <= number);
        self.waiting = waiting;
        for (_, reply) in due {
            let answer = result.as_ref().map(|saved| {
                let Durable { generation, age, round, bytes } = saved;
                json!({"generation": generation, "age": age, "round": round, "bytes": bytes})
            });
            let _ = reply.send(answer.map_err(Clone::clone));
        }
        self.save_next(store);
        result.is_ok()
    }

    /// Waits until nothing is under way, for as long as `left` says; whether it came to that.
    async fn finish(&mut self, store: &Arc<Store>, left: impl Fn() -> Duration) -> bool {
        while !self.is_idle() {
            let Ok(saved) = timeout(left(), self.saved()).await else { return false };
            self.done(store, saved);
        }
        true
    }

    /// The last checkpoint did not become durable in time.
    fn give_up(&mut self) {
        self.failed = true;
        let reason = "the last checkpoint was not on disk when the node had to end";
        log::emit(&Event::CheckpointFailed { reason: reason.to_owned() });
        for (_, reply) in std::mem::take(&mut self.waiting) {
            let _ = reply.send(Err(Failure::new(Code::Io, reason)));
        }
    }
}

impl Running {
    /// The last things, within what is left of [`DRAIN`]. `ended` is what ended the loop.
    pub(super) async fn stop(mut self, ended: Result<(), Failure>) -> Result<(), Failure> {
        let ended = ended.map_err(log::failed);
        if self.leaving.is_none() {
            self.service.stopping();
        }
        let since = *self.leaving.get_or_insert_with(Instant::now);
        let left = || DRAIN.saturating_sub(since.elapsed());
        let durable = self.saver.finish(&self.driver.store, left).await && self.left;
        if !durable {
            self.saver.give_up();
        }
        let unsaved = Err(Failure::new(Code::Io, ""));
        let result = ended.and(if self.saver.failed { unsaved } else { Ok(()) });
        let (standing, counters) = (self.driver.node.standing(), self.driver.node.counters());
        let event = Event::DaemonStopped {
            exit_code: result.as_ref().err().map_or(0, |failure| failure.code as u8),
            age: standing.age,
            round: standing.round,
            sent_bytes: counters.sent_bytes,
            received_bytes: counters.received_bytes,
            payload_sent_bytes: counters.payload_sent_bytes,
        };
        tokio::join!(self.driver.net.stop(), self.driver.control.drained());
        log::emit(&event);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_hears_of_a_save_that_was_begun_afterwards() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(Store::create(folder.path()).expect("made"));
        let mut saver = Saver::default();
        saver.begin();
        saver.order(&store, b"one".to_vec(), 1.0, 1);
        let (reply, mut answered) = oneshot::channel();
        saver.wait(reply);
        let saved = saver.saved().await;
        assert!(saver.done(&store, saved));
        assert!(answered.try_recv().is_err(), "that one was under way before");

        saver.begin();
        saver.order(&store, b"two".to_vec(), 2.0, 2);
        let saved = saver.saved().await;
        assert!(saver.done(&store, saved));
        let answer = answered.try_recv().expect("an answer").expect("durable");
        assert_eq!((&answer["generation"], &answer["round"]), (&json!(2), &json!(2)));
    }

    #[tokio::test]
    async fn a_save_that_hangs_is_given_up_and_who_waits_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(Store::create(folder.path()).expect("made"));
        let mut saver = Saver::default();
        let (reply, mut answered) = oneshot::channel();
        saver.wait(reply);
        saver.task = Some((Instant::now(), tokio::spawn(std::future::pending())));
        assert!(!saver.finish(&store, || Duration::ZERO).await);
        saver.give_up();
        let failure = answered.try_recv().expect("an answer").expect_err("not durable");
        assert_eq!(failure.code, Code::Io);
        assert!(saver.failed && failure.message.contains("not on disk"), "{failure}");
    }

    #[tokio::test]
    async fn a_slow_disk_gets_the_newest_and_only_so_many_wait_for_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Arc::new(Store::create(folder.path()).expect("made"));
        let mut saver = Saver::default();
        let waiting = (0..=WAITING_MAX).map(|_| {
            let (reply, answered) = oneshot::channel();
            saver.wait(reply);
            answered
        });
        let mut waiting: Vec<_> = waiting.collect();
        let refused = waiting.pop().and_then(|mut last| last.try_recv().ok());
        assert_eq!(refused.expect("an answer").expect_err("refused").code, Code::Temporary);
        for index in 1..=3_u8 {
            saver.begin();
            saver.order(&store, vec![index], f64::from(index), 1);
        }
        let mut generations = 0;
        while !saver.is_idle() {
            let saved = saver.saved().await;
            assert!(saver.done(&store, saved));
            generations += 1;
        }
        assert_eq!(generations, 2, "the second was left out");
        for mut answered in waiting {
            assert_eq!(answered.try_recv().expect("an answer").expect("durable")["age"], 1.0);
        }
    }
}
