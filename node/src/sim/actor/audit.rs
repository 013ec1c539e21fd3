//! What is held against a simulated node: merges, bounds, and what is broken on purpose to show
//! that it would be found.

use core::time::Duration;

use starling_learning::params::first_non_finite;
use starling_protocol::envelope::Verified;
use starling_protocol::id::NodeId;
use starling_protocol::message::Kind;
use starling_protocol::time::Time;

use super::Actor;
use crate::jobs::{Done, Job};
use crate::sim::ledger::Move;
use crate::sim::queue::Cargo;
use crate::sim::scenario::Sabotage;

/// One frame in so many is sent again under `Sabotage::Replay`.
const SABOTAGE_EVERY: u64 = 16;

impl Actor {
    /// Models that are about to be merged: of whom they are.
    pub(super) fn watch_merge(&mut self, job: &Job) {
        let (ids, scenario) = (&self.ids, &self.scenario);
        let stranger = |index| scenario.is_stranger(index, ids.nodes.len());
        match job {
            Job::Answer { peer, request: model, .. } | Job::Absorb { peer, reply: model, .. } => {
                let Some(index) = ids.index(*peer) else { return };
                let linked = self.links.contains_key(&index);
                self.watch.merging(index, linked, stranger(index), model);
            }
            Job::Mix { models, .. } | Job::Adopt { snapshots: models } => {
                self.watch.mixing(models, |index| !stranger(index));
            }
            _ => {}
        }
    }

    pub(super) fn replay_past_the_window(&mut self, now: Time, peer: usize, verified: &Verified) {
        let asks = verified.frame.message.kind() == Kind::ExchangeRequest;
        if self.sabotages(Sabotage::Replay)
            && asks
            && verified.address.sequence.is_multiple_of(SABOTAGE_EVERY)
        {
            let mut copy = verified.clone();
            // Far ahead of all that is sent in a run, so the window takes it.
            copy.address.sequence += 1 << 32;
            self.post(now, peer, Cargo::Copy(copy));
        }
    }

    /// Books what a merge between honest nodes moved our model by.
    pub(super) fn book(&mut self, peer: NodeId, before: &[f32], done: &Done) {
        let merge = match done {
            Done::Absorbed(merge) => *merge,
            Done::Answered { merge: Some(merge), .. } => *merge,
            _ => return,
        };
        let honest = self.scenario.honest(self.ids.nodes.len());
        let (Some(live), Some(other)) = (&mut self.live, self.ids.index(peer)) else { return };
        if self.index >= honest || other >= honest {
            return;
        }
        if self.scenario.sabotage == Some(Sabotage::Mean) && merge.moved > 0.0 {
            let bent: Vec<f32> =
                live.worker.replica().params().iter().map(|value| value * 1.01).collect();
            live.worker.replace_params(&bent);
        }
        let after = live.worker.replica().params();
        let ends = (self.index, other);
        self.moves.push(Move::of(ends, merge.distance, merge.moved, before, after));
    }

    /// What did not hold here, after so long.
    pub(in crate::sim) fn violations(&mut self, time: Duration) -> Vec<String> {
        let totals = self.totals();
        self.watch.check_bounds(totals.rounds, self.epoch, time);
        if self.sabotages(Sabotage::Finite)
            && let Some(live) = &mut self.live
        {
            let broken = vec![f32::NAN; live.worker.replica().params().len()];
            live.worker.replace_params(&broken);
        }
        let references = self.live.as_ref().map(|live| live.worker.replica().reference_bytes());
        if references.is_some_and(|(held, most)| held > most) {
            self.watch.violated("holds more pair references than it may");
        }
        if totals.bans > 0 {
            self.watch.violated(format!("banned {} honest nodes", totals.bans));
        }
        let broken = self.live.as_ref().is_some_and(|live| {
            let replica = live.worker.replica();
            [replica.params(), replica.served()].iter().any(|v| first_non_finite(v).is_some())
        });
        if broken {
            self.watch.violated("holds parameters that are no numbers");
        }
        self.watch.found().iter().map(|what| format!("node {}: {what}", self.index)).collect()
    }
}
