//! The thread that owns the weights. Training never runs on a thread that serves the network, and
//! nothing but this thread touches the parameters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;

use starling_node::jobs::{Done, Job};
use starling_node::replica::Replica;
use starling_node::worker::{JobId, Worker};
use tokio::sync::mpsc;

use crate::exit::{Code, Failure};

/// Jobs under way at a time. The state machine asks for far fewer: `JOBS_PENDING_MAX`.
const JOBS_MAX: usize = 256;

/// The driver's end of the mailbox.
#[derive(Debug)]
pub struct Compute {
    jobs: SyncSender<(JobId, Job)>,
    results: mpsc::Receiver<(JobId, Done)>,
    gauges: Arc<Gauges>,
    reference_bytes_max: usize,
}

/// What the thread tells without being asked.
#[derive(Debug, Default)]
struct Gauges {
    progress: AtomicU64,
    reference_bytes: AtomicUsize,
}

impl Compute {
    /// Starts the thread.
    pub fn start(replica: Replica) -> Result<Self, Failure> {
        let (jobs, mailbox) = sync_channel(JOBS_MAX);
        let (done, results) = mpsc::channel(JOBS_MAX);
        let gauges = Arc::<Gauges>::default();
        let told = Arc::clone(&gauges);
        let (_, reference_bytes_max) = replica.reference_bytes();
        thread::Builder::new()
            .name("compute".into())
            .spawn(move || run(Worker::new(replica), &mailbox, &done, &told))
            .map_err(|error| Failure::new(Code::Temporary, format!("no thread: {error}")))?;
        Ok(Self { jobs, results, gauges, reference_bytes_max })
    }

    /// Steps and jobs done: moves as long as the thread does.
    pub fn progress(&self) -> u64 {
        self.gauges.progress.load(Ordering::Relaxed)
    }

    /// Bytes of pair references held, and the most that will be.
    pub fn reference_bytes(&self) -> (usize, usize) {
        (self.gauges.reference_bytes.load(Ordering::Relaxed), self.reference_bytes_max)
    }

    /// Hands a job over.
    pub fn submit(&self, id: JobId, job: Job) -> Result<(), Failure> {
        self.jobs.try_send((id, job)).map_err(|_| {
            Failure::new(Code::Internal, "the compute thread has stopped or does not keep up")
        })
    }

    /// The next result; none if the thread has ended, which only a defect makes it do. Cancel safe.
    pub async fn next(&mut self) -> Option<(JobId, Done)> {
        self.results.recv().await
    }
}

fn run(
    mut worker: Worker,
    mailbox: &Receiver<(JobId, Job)>,
    done: &mpsc::Sender<(JobId, Done)>,
    gauges: &Gauges,
) {
    loop {
        let job = if worker.is_training() {
            match mailbox.try_recv() {
                Ok(job) => Some(job),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => return,
            }
        } else {
            match mailbox.recv() {
                Ok(job) => Some(job),
                Err(_) => return,
            }
        };
        let result = match job {
            Some((id, job)) => worker.submit(id, job).map(|done| (id, done)),
            None => worker.advance(),
        };
        gauges.progress.fetch_add(1, Ordering::Relaxed);
        if result.is_some() {
            let (held, _) = worker.replica().reference_bytes();
            gauges.reference_bytes.store(held, Ordering::Relaxed);
        }
        if let Some(result) = result
            && done.blocking_send(result).is_err()
        {
            return;
        }
    }
}
