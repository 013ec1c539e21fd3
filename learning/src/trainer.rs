//! Local training, one step at a time, so that whoever drives it may stop or interleave anything
//! between two steps.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::data::Shard;
use crate::model::{Model, Workspace};
use crate::optim::Sgd;

/// Draws batches from one shard and steps down their gradient.
#[derive(Clone, Debug)]
pub struct Trainer {
    shard: Shard,
    batch: usize,
    sgd: Sgd,
    rng: ChaCha8Rng,
    /// Positions in the shard, shuffled anew each epoch.
    order: Vec<u32>,
    next: usize,
    rows: Vec<f32>,
    labels: Vec<u16>,
}

impl Trainer {
    /// Batches of `batch` rows (at least one, at most the shard) without replacement within an
    /// epoch, in an order that `seed` decides.
    #[must_use]
    pub fn new(shard: Shard, batch: usize, momentum: f32, seed: u64) -> Self {
        let count = u32::try_from(shard.len()).unwrap_or(u32::MAX);
        Self {
            batch: batch.clamp(1, shard.len().max(1)),
            shard,
            sgd: Sgd::new(momentum),
            rng: ChaCha8Rng::seed_from_u64(seed),
            order: (0..count).collect(),
            next: usize::MAX,
            rows: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// Forgets the momentum of the steps so far.
    pub fn reset_momentum(&mut self) {
        self.sgd.reset();
    }

    /// One step at `rate`; the loss of its batch before the step.
    pub fn step(
        &mut self,
        model: &Model,
        params: &mut [f32],
        rate: f64,
        space: &mut Workspace,
    ) -> f64 {
        let end = self.next.saturating_add(self.batch);
        if end > self.order.len() {
            self.order.shuffle(&mut self.rng);
            self.next = 0;
        }
        let positions = self.order.get(self.next..self.next + self.batch).unwrap_or_default();
        self.next += self.batch;
        self.shard.gather(positions, &mut self.rows, &mut self.labels);
        let loss = model.loss_gradient(params, &self.rows, &self.labels, space);
        self.sgd.step(params, space.gradient(), rate as f32);
        loss
    }
}
