//! The mailbox of the owner of the weights: jobs in, results out, training in steps between them.
//!
//! The daemon drives one from a thread of its own, the simulator inline; both see the same order:
//! a job other than training is done at the next step boundary.

use starling_learning::data::Shard;
use starling_learning::eval::Evaluation;

use crate::jobs::{Done, Job};
use crate::replica::Replica;

/// Names a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

#[derive(Clone, Copy, Debug)]
struct Training {
    id: JobId,
    steps: u32,
    taken: u32,
    age: f64,
    loss: f64,
}

/// A replica with at most one training job under way.
#[derive(Clone, Debug)]
pub struct Worker {
    replica: Replica,
    training: Option<Training>,
}

impl Worker {
    /// A worker on `replica`.
    #[must_use]
    pub fn new(replica: Replica) -> Self {
        Self { replica, training: None }
    }

    /// What it owns.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Puts other parameters in the place of the working ones: what a hostile node does.
    pub(crate) fn replace_params(&mut self, params: &[f32]) {
        self.replica.replace_params(params);
    }

    /// Scores the served parameters on up to `rows` rows, or all.
    #[must_use]
    pub fn evaluate(&mut self, shard: &Shard, rows: Option<usize>) -> Evaluation {
        self.replica.evaluate(shard, rows)
    }

    /// Whether [`Worker::advance`] has something to do.
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.training.is_some()
    }

    /// Does `job` now, or begins it if it is training.
    pub fn submit(&mut self, id: JobId, job: Job) -> Option<Done> {
        if let Job::Train { steps, age } = job {
            self.replica.begin_round();
            self.training = Some(Training { id, steps, taken: 0, age, loss: 0.0 });
            return None;
        }
        let mut done = self.replica.perform(job);
        if let (Some(Done::Answered { taken, .. }), Some(training)) = (&mut done, self.training) {
            *taken = training.taken;
        }
        done
    }

    /// Takes one training step; the result once it was the last.
    pub fn advance(&mut self) -> Option<(JobId, Done)> {
        let training = self.training.as_mut()?;
        if training.taken < training.steps {
            training.loss += self.replica.train_step(training.age + f64::from(training.taken));
            training.taken += 1;
        }
        if training.taken < training.steps {
            return None;
        }
        let Training { id, steps, loss, .. } = *training;
        self.training = None;
        let loss = self.replica.end_training(loss / f64::from(steps.max(1)));
        Some((id, Done::Trained { steps, loss, update_norm: self.replica.update_norm() }))
    }
}
