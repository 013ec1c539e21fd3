//! The paranoid round: models pulled from several partners of our own choice, so that no attacker
//! chooses its audience (RPEL, arXiv 2510.08311), and mixed by a rule that needs no trust in any of
//! them. Pairs that ask us are answered, but move nothing.

use core::time::Duration;
use std::collections::BTreeMap;

use starling_protocol::fault::Rejection;
use starling_protocol::gate::lower_median;
use starling_protocol::id::NodeId;
use starling_protocol::message::{Message, SnapshotReply};
use starling_protocol::view::choose;

use super::rounds::Stage;
use super::{Node, Pending};
use crate::jobs::Job;

/// What a pull that was given up goes by: no exchange has this number.
const PULL: u64 = 0;

impl Node {
    pub(super) fn begin_pull(&mut self) {
        let mut pool = self.draw_pool();
        let mut asked = BTreeMap::new();
        let mut slowest = Duration::ZERO;
        while asked.len() < self.settings.rule.pull {
            let Some(peer) = choose(pool.iter().copied(), &mut self.rng) else { break };
            pool.retain(|id| *id != peer);
            let step_ns = self.links.get(&peer).map_or(0, |link| link.standing.step_ns);
            slowest = slowest.max(Duration::from_nanos(step_ns));
            asked.insert(peer, None);
            self.send(peer, Message::SnapshotRequest.into());
        }
        if asked.is_empty() {
            return self.finish_round();
        }
        let own_step = Duration::from_nanos(self.counters.step_ns);
        let wait = self.latency.timeout(slowest, own_step);
        self.stage = Stage::Pulling { asked, sent: self.now, deadline: self.now + wait };
    }

    /// A model that we pulled, if we did.
    pub(super) fn pulled(&mut self, peer: NodeId, reply: SnapshotReply, slab: Vec<u8>) {
        self.learn_from_late(peer, PULL, reply.age.is_some());
        let Stage::Pulling { asked, sent, .. } = &mut self.stage else { return };
        if asked.get(&peer).is_none_or(Option::is_some) {
            return;
        }
        let sent = *sent;
        asked.remove(&peer);
        if let Some(age) = reply.age {
            let step_ns = self.links.get(&peer).map_or(0, |link| link.standing.step_ns);
            self.latency.observe(self.now.since(sent), Duration::from_nanos(step_ns));
            self.ages.observe(peer, age, self.standing.age);
            let model = self.read_model(reply.codec, None, slab);
            match model.filter(|_| !Self::needs_reference(reply.codec)) {
                Some(model) => {
                    if let Stage::Pulling { asked, .. } = &mut self.stage {
                        asked.insert(peer, Some((age, model)));
                    }
                }
                None => self.fault(peer, Rejection::BadModel),
            }
        }
        self.pull_on();
    }

    /// A partner whose model was pulled is gone.
    pub(super) fn pull_lost(&mut self, peer: NodeId) {
        let Stage::Pulling { asked, .. } = &mut self.stage else { return };
        if asked.get(&peer).is_some_and(Option::is_none) {
            asked.remove(&peer);
            self.counters.failed += 1;
            self.pull_on();
        }
    }

    /// Mixes once all have answered, or the deadline is over.
    pub(super) fn pull_on(&mut self) {
        let Stage::Pulling { asked, sent, deadline } = &mut self.stage else { return };
        let sent = *sent;
        let late: Vec<NodeId> =
            asked.iter().filter(|(_, given)| given.is_none()).map(|(id, _)| *id).collect();
        if !late.is_empty() && self.now < *deadline {
            return;
        }
        let given: Vec<_> = core::mem::take(asked).into_values().flatten().collect();
        for peer in late {
            self.counters.failed += 1;
            self.cool_down(peer);
            if let Some(conduct) = self.conducts.get_mut(peer) {
                conduct.given_up = Some((PULL, sent));
            }
        }
        if given.is_empty() {
            return self.finish_round();
        }
        let round = f64::from(self.settings.steps_per_round);
        let own = self.standing.age;
        let believed = given.iter().map(|(age, _)| self.ages.believe(*age, own, round));
        let age = lower_median(believed.chain([own])).unwrap_or(own);
        self.stage = Stage::Mixing { age };
        let models = given.into_iter().map(|(_, model)| model).collect();
        self.compute(Job::Mix { models, trim: self.settings.rule.trim }, Pending::Round);
    }

    pub(super) fn mixed(&mut self, age: f64, used: usize) {
        if used > 0 {
            self.standing.age = age;
            self.met_someone();
            self.counters.accepted += 1;
            self.counters.merged_at = Some(self.now);
        }
        self.finish_round();
    }
}

#[cfg(test)]
mod tests;
