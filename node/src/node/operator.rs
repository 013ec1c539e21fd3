//! What an operator does to a node that runs: pause it, ban its peers, tune its pace, look at it.

use core::time::Duration;
use std::collections::BTreeMap;

use starling_protocol::fault::Denial;
use starling_protocol::id::NodeId;
use starling_protocol::limits::BANS_MAX;
use starling_protocol::message::Hint;
use starling_protocol::time::Time;

use super::links::{Link, Tally};
use super::rounds::Stage;
use super::{Disclosed, Node};
use crate::event::Event;

/// What may change while a node runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Tuning {
    /// A round takes at least this long.
    pub round_period: Duration,
    /// Between checkpoints.
    pub checkpoint_interval: Duration,
    /// Members to dial, beside those that are known.
    pub contacts: Vec<Hint>,
}

/// What is known of one peer; counts are those of its present link.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Who it is.
    pub id: NodeId,
    /// One of its addresses, if any is known.
    pub address: Option<String>,
    /// Whether it is linked, a member, and may exchange.
    pub linked: bool,
    /// Whether it is one of those that we draw our partners from.
    pub drawn: bool,
    /// Lineage age of its model, as it last said.
    pub age: f64,
    /// Its round, as it last said.
    pub round: u64,
    /// Models of it that were merged, whoever asked for the exchange.
    pub accepted: u64,
    /// Models of it that the gate rejected.
    pub rejected: u64,
    /// Exchanges with it that came to nothing.
    pub failed: u64,
    /// Those of them that we asked for since the last that did not.
    pub failures: u32,
    /// Time since the last exchange, whatever came of it.
    pub last_exchange: Option<Duration>,
    /// What gate, direction filter and the trial on our rows left of the weight of its newest
    /// model: 0 to 1; none before the first, and where models are pulled and mixed.
    pub trusted: Option<f64>,
    /// Whether it is left alone for a while, for its models were too far off too often.
    pub quarantined: bool,
    /// Whether it is cut off, by the operator or for what it did.
    pub banned: bool,
}

impl Node {
    pub(super) fn pause(&mut self, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        let round = self.standing.round;
        self.event(if paused {
            Event::TrainPaused { round }
        } else {
            Event::TrainResumed { round }
        });
    }

    pub(super) fn ban(&mut self, peer: NodeId) {
        if peer == self.me || self.banned.len() >= BANS_MAX || !self.banned.insert(peer) {
            return;
        }
        self.view.drop_member(peer);
        let (name, reason) = (peer.to_string(), "operator".to_owned());
        self.event(Event::PeerBanned { peer: name, reason });
        if self.links.contains_key(&peer) {
            self.deny(peer, Denial::Banned);
        }
        self.fill_view();
    }

    pub(super) fn unban(&mut self, peer: NodeId) {
        let by_score = self.scores.forgive(peer, self.now);
        if self.banned.remove(&peer) || by_score {
            self.event(Event::PeerUnbanned { peer: peer.to_string() });
            self.fill_view();
        }
    }

    pub(super) fn tune(&mut self, tuning: Tuning) {
        let Tuning { round_period, checkpoint_interval, contacts } = tuning;
        self.settings.round_period = round_period;
        self.settings.checkpoint_interval = checkpoint_interval;
        // What was longer must not be waited out; what is due must not be put off.
        self.next_checkpoint = self.next_checkpoint.min(self.now + checkpoint_interval);
        if let Stage::Pausing { until } = &mut self.stage {
            *until = (*until).min(self.now + round_period);
        }
        for hint in contacts.iter().filter(|hint| hint.id != self.me) {
            self.view.learn(hint, true, &mut self.rng);
        }
        self.fill_view();
    }

    pub(super) fn is_banned(&self, peer: NodeId) -> bool {
        self.banned.contains(&peer) || self.scores.is_banned(peer, self.now)
    }

    /// Whether the operator paused training.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Everyone known, linked, remembered or banned, at `now`.
    #[must_use]
    pub fn peer_table(&self, now: Time) -> Vec<Peer> {
        let addresses = |hint: Hint| (hint.id, hint.addresses.into_iter().next());
        let mut known: BTreeMap<_, _> = self.view.candidates().map(addresses).collect();
        let unlisted = self.links.keys().copied().chain(self.banned.iter().copied());
        for id in unlisted.chain(self.scores.banned(self.now)) {
            known.entry(id).or_default();
        }
        known.into_iter().map(|(id, address)| self.peer(now, id, address)).collect()
    }

    fn peer(&self, now: Time, id: NodeId, address: Option<String>) -> Peer {
        let (link, conduct) = (self.links.get(&id), self.conducts.get(id));
        let tally = link.map_or(Tally::default(), |link| link.tally);
        Peer {
            id,
            address,
            linked: link.is_some_and(Link::admitted),
            drawn: self.view.contains(id),
            age: link.map_or(0.0, |link| link.standing.age),
            round: link.map_or(0, |link| link.standing.round),
            accepted: tally.accepted,
            rejected: tally.rejected,
            failed: tally.failed,
            failures: conduct.map_or(0, |conduct| conduct.failures),
            last_exchange: tally.last.map(|last| now.since(last)),
            trusted: conduct.and_then(|conduct| conduct.trusted),
            quarantined: conduct.is_some_and(|known| known.is_quarantined(self.standing.round)),
            banned: self.is_banned(id),
        }
    }

    /// Whom the operator banned.
    pub fn operator_bans(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.banned.iter().copied()
    }

    /// What has left this machine.
    #[must_use]
    pub fn disclosed(&self) -> &Disclosed {
        &self.disclosed
    }
}

#[cfg(test)]
mod tests;
