//! What the verdict is read against: each node alone (the floor), and all rows in one place (the
//! ceiling), with as many steps as a node of the flock.

use starling_learning::data::Shard;
use starling_learning::eval::evaluate;
use starling_learning::model::Workspace;
use starling_learning::optim::Schedule;
use starling_learning::trainer::Trainer;

use super::flock::Plan;

/// Plain SGD without outer momentum wants a higher rate than a node of the flock.
const PLAIN_RATE: f64 = 4.0 / 3.0;

/// Accuracies on the common test rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Baseline {
    /// Mean of the nodes alone.
    pub(super) local_only: f64,
    /// One model on all rows.
    pub(super) pooled: f64,
}

impl Baseline {
    pub(super) fn train(plan: &Plan) -> Self {
        let local: f64 = plan.shards.iter().map(|shard| accuracy(plan, shard)).sum();
        let local_only = local / plan.shards.len().max(1) as f64;
        Self { local_only, pooled: accuracy(plan, &plan.pooled) }
    }
}

fn accuracy(plan: &Plan, shard: &Shard) -> f64 {
    let model = &plan.model;
    let seed = u64::from(plan.seed);
    let schedule = Schedule { rate: plan.rate * PLAIN_RATE, age_max: Some(f64::from(plan.steps)) };
    let mut trainer = Trainer::new(shard.clone(), plan.batch, 0.0, seed);
    let (mut params, mut space) = (model.genesis(seed), Workspace::default());
    for step in 0..plan.steps {
        trainer.step(model, &mut params, schedule.rate_at(f64::from(step)), &mut space);
    }
    evaluate(model, &params, &plan.test, None, &mut space).accuracy()
}
