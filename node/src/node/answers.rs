//! What a node answers: exchange requests, snapshot requests, scores.

use starling_protocol::envelope::Frame;
use starling_protocol::fault::Rejection;
use starling_protocol::id::NodeId;
use starling_protocol::limits::{AGE_MAX, ANSWERS_PENDING_MAX, CROSS_SCORES_MAX, SCORE_ROWS_MAX};
use starling_protocol::message::{
    CrossScore, ExchangeOutcome, ExchangeReply, ExchangeRequest, Message, SnapshotReply,
};

use super::rounds::Stage;
use super::{Node, Pending, Phase};
use crate::jobs::{Done, Job};

impl Node {
    pub(super) fn exchange_requested(
        &mut self,
        peer: NodeId,
        request: &ExchangeRequest,
        slab: Vec<u8>,
    ) {
        let exchange = request.exchange;
        let relative = Self::needs_reference(request.codec);
        let model = self.read_model(request.codec, request.base, slab);
        let Some(model) = model.filter(|model| model.base.is_some() == relative) else {
            return self.fault(peer, Rejection::BadModel);
        };
        let crossing =
            matches!(self.stage, Stage::Waiting { peer: partner, .. } if partner == peer);
        if crossing && self.me < peer {
            // Both asked at once and our request wins: the other end answers it.
            return;
        }
        // A crossing request is answered without a token: our own is void by it, so it is one.
        let refusal = if crossing { None } else { self.refusal(peer) };
        if let Some(refusal) = refusal {
            return self.reply(peer, exchange, refusal, Vec::new());
        }
        let answering =
            self.pending.values().filter(|job| matches!(job, Pending::Answer { .. })).count();
        if !crossing && (answering >= ANSWERS_PENDING_MAX || self.stage.exchanging()) {
            return self.reply(peer, exchange, ExchangeOutcome::Busy, Vec::new());
        }
        if crossing {
            self.stage = Stage::Crossing;
        }
        let (age, terms) = self.terms(request.age, false);
        self.counters.answered += 1;
        let score = self.counters.answered.is_multiple_of(self.settings.score_every.max(1));
        // Who pulls takes nothing that it did not ask for.
        let merges = self.phase == Phase::Train && self.settings.rule.pull == 0;
        let terms = merges.then_some(terms);
        let weight = terms.map_or(0.0, |terms| terms.weight);
        let codecs = self.links.get(&peer).map(|link| link.codecs).unwrap_or_default();
        let job = Job::Answer { peer, request: model, terms, score, codecs };
        self.compute(job, Pending::Answer { peer, exchange, age, weight, crossing });
    }

    /// Why `peer` is not answered now, if so.
    fn refusal(&mut self, peer: NodeId) -> Option<ExchangeOutcome> {
        if !matches!(self.phase, Phase::Train | Phase::Done) {
            return Some(ExchangeOutcome::Refused);
        }
        let round = self.standing.round;
        let quarantined = self.conducts.get(peer).is_none_or(|known| known.is_quarantined(round));
        if quarantined && self.phase == Phase::Train {
            return Some(ExchangeOutcome::Refused);
        }
        (!self.take_token(peer)).then_some(ExchangeOutcome::RateLimited)
    }

    /// Tokens that a round gives each peer: twice an honest one's share of what it asks for.
    pub(super) fn token_share(&self) -> f64 {
        let asks = match self.settings.rule.pull {
            0 => f64::from(self.settings.exchanges_per_round),
            pull => pull as f64,
        };
        2.0 * asks / self.view.members().count().max(1) as f64
    }

    /// Whether `peer` may ask now.
    fn take_token(&mut self, peer: NodeId) -> bool {
        let (rounds, share) = (self.token_rounds, self.token_share());
        self.conducts.get_mut(peer).is_some_and(|conduct| conduct.takes_exchange(rounds, share))
    }

    fn reply(&mut self, peer: NodeId, exchange: u64, outcome: ExchangeOutcome, slab: Vec<u8>) {
        let message = Message::ExchangeReply(ExchangeReply { exchange, outcome });
        self.send(peer, Frame { message, slab });
    }

    pub(super) fn answered(
        &mut self,
        peer: NodeId,
        exchange: u64,
        (age, weight): (f64, f64),
        done: Done,
    ) {
        match done {
            Done::Answered { reply, merge, score, taken } => {
                let own_age = (self.standing.age + f64::from(taken)).min(AGE_MAX);
                let outcome = ExchangeOutcome::Model { age: own_age, codec: reply.codec as u8 };
                if self.links.contains_key(&peer) {
                    self.reply(peer, exchange, outcome, reply.slab);
                    if let Some((correct, total)) = score {
                        let score = CrossScore { exchange, correct, total };
                        self.send(peer, Message::CrossScore(score).into());
                    }
                }
                // An answer under way when learning ended must not make the end younger.
                if let Some(merge) = merge.filter(|_| self.phase == Phase::Train) {
                    let threshold = self.threshold();
                    self.merged(peer, age - own_age, weight, threshold, &merge);
                }
            }
            Done::BaseMismatch { held } => {
                self.reply(peer, exchange, ExchangeOutcome::BaseMismatch { held }, Vec::new());
            }
            _ => self.fault(peer, Rejection::BadModel),
        }
    }

    /// Takes the one score that comes with each reply.
    pub(super) fn cross_scored(&mut self, peer: NodeId, score: CrossScore) {
        let due = self.conducts.get_mut(peer).and_then(|conduct| conduct.unscored.take());
        if due != Some(score.exchange) || score.total == 0 || score.total > SCORE_ROWS_MAX {
            return;
        }
        self.cross.insert(peer, (score, self.standing.round));
        if self.cross.len() > CROSS_SCORES_MAX {
            let oldest = self.cross.iter().min_by_key(|(_, (_, round))| *round);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.cross.remove(&oldest);
            }
        }
    }

    pub(super) fn snapshot_requested(&mut self, peer: NodeId) {
        let able = matches!(self.phase, Phase::Train | Phase::Done) && self.standing.age > 0.0;
        let giving =
            self.pending.values().filter(|job| matches!(job, Pending::Snapshot { .. })).count();
        if able && giving < ANSWERS_PENDING_MAX && self.take_token(peer) {
            let codecs = self.links.get(&peer).map(|link| link.codecs).unwrap_or_default();
            self.compute(Job::Snapshot { peer, codecs }, Pending::Snapshot { peer });
        } else {
            let reply = SnapshotReply { age: None, codec: 0 };
            self.send(peer, Message::SnapshotReply(reply).into());
        }
    }

    pub(super) fn snapshot_taken(&mut self, peer: NodeId, done: Done) {
        if let (Done::Snapshot(model), true) = (done, self.links.contains_key(&peer)) {
            let reply = SnapshotReply { age: Some(self.standing.age), codec: model.codec as u8 };
            let message = Message::SnapshotReply(reply);
            self.send(peer, Frame { message, slab: model.slab });
        }
    }
}

#[cfg(test)]
mod tests;
