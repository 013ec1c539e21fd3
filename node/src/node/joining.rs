//! How a newcomer, or a node that was away for long, takes over the flock's model: it waits a
//! moment for members to show up, asks a few at random for theirs, and starts from the median.

use core::time::Duration;
use std::collections::BTreeMap;

use starling_protocol::fault::Rejection;
use starling_protocol::gate::lower_median;
use starling_protocol::id::NodeId;
use starling_protocol::message::{Message, SnapshotReply};
use starling_protocol::time::Time;
use starling_protocol::view::choose;

use super::rounds::Stage;
use super::{Node, Pending, Phase};
use crate::event::Event;
use crate::jobs::{Done, Encoded, Job};

/// Longest wait for the snapshots asked for.
const SNAPSHOT_DEADLINE: Duration = Duration::from_secs(10);
/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// Snapshots asked for, and in large neighbourhoods.
const SNAPSHOTS: usize = 3;
const SNAPSHOTS_MANY: usize = 5;
const MANY_PEERS: usize = 10;
/// What a member said when it was linked may be so many rounds old.
const STALE_ROUNDS: f64 = 16.0;
/// A flock has just begun for so many rounds, and for no more than this share of a training that
/// ends: its newcomers begin where all began, and must have time to learn.
const YOUNG_ROUNDS: f64 = 16.0;
const YOUNG_SHARE: f64 = 0.2;
/// Below this share of its peers' median age a resumed node starts over as a newcomer.
const TOO_OLD: f64 = 0.5;

/// An attempt to join.
#[derive(Clone, Debug, Default)]
pub(super) struct Joining {
    /// When members that have not shown up by then are not waited for any longer.
    settle_at: Option<Time>,
    /// Members asked, with what they gave.
    asked: BTreeMap<NodeId, Option<(f64, Encoded)>>,
    /// How many of those asked said that they have learnt nothing yet.
    nothing: usize,
    deadline: Option<Time>,
    adopting: bool,
    waiting_reported: bool,
}

impl Joining {
    pub(super) fn wakeup(&self) -> Option<Time> {
        if self.adopting { None } else { self.deadline.or(self.settle_at) }
    }

    pub(super) fn lost(&mut self, peer: NodeId) {
        if self.asked.get(&peer).is_some_and(Option::is_none) {
            self.asked.remove(&peer);
        }
    }
}

impl Node {
    pub(super) fn run_joining(&mut self) {
        if self.phase != Phase::Join || self.joining.adopting {
            return;
        }
        if self.joining.deadline.is_some() {
            return self.collect_snapshots();
        }
        if self.peers() == 0 {
            self.joining.settle_at = None;
            if !self.joining.waiting_reported {
                self.joining.waiting_reported = true;
                let reason = "no member is linked yet".to_owned();
                self.event(Event::MeshWaiting { peers: 0, wanted: 1, reason });
            }
            return;
        }
        let settle_at = *self.joining.settle_at.get_or_insert(self.now + self.settings.settle);
        if self.now >= settle_at {
            self.ask_or_begin();
        }
    }

    fn ask_or_begin(&mut self) {
        let members: Vec<(NodeId, f64)> = self
            .links
            .iter()
            .filter(|(_, link)| link.admitted())
            .map(|(id, link)| (*id, link.standing.age))
            .collect();
        let ages = members.iter().map(|(_, age)| *age);
        let median = lower_median(ages.clone()).unwrap_or_default();
        let oldest = ages.fold(0.0, f64::max);
        let few = members.len() < SNAPSHOTS;
        let resumes = self.resumed && (few || self.standing.age >= TOO_OLD * median);
        if resumes {
            return self.begin_training(0);
        }
        // What a member said when it was linked may be old: one that says it has learnt nothing is
        // asked like any other if nobody says more.
        let learnt = |age: f64| age > 0.0 || oldest == 0.0;
        let mut pool: Vec<NodeId> =
            members.iter().filter(|(_, age)| learnt(*age)).map(|(id, _)| *id).collect();
        let wanted = if members.len() >= MANY_PEERS { SNAPSHOTS_MANY } else { SNAPSHOTS };
        while self.joining.asked.len() < wanted {
            let Some(peer) = choose(pool.iter().copied(), &mut self.rng) else { break };
            pool.retain(|id| *id != peer);
            self.joining.asked.insert(peer, None);
            self.send(peer, Message::SnapshotRequest.into());
        }
        self.joining.deadline = Some(self.now + SNAPSHOT_DEADLINE);
    }

    pub(super) fn snapshot_replied(&mut self, peer: NodeId, reply: SnapshotReply, slab: Vec<u8>) {
        if self.joining.asked.get(&peer).is_none_or(Option::is_some) {
            // Too late, or nobody asked, if it is not what a paranoid round pulls.
            self.pulled(peer, reply, slab);
            return;
        }
        let Some(age) = reply.age else {
            self.joining.asked.remove(&peer);
            // Who has learnt something is only too busy to give it now.
            let knows = self.links.get(&peer).is_some_and(|link| link.standing.age > 0.0);
            self.joining.nothing += usize::from(!knows);
            return self.run_joining();
        };
        let absolute = !Self::needs_reference(reply.codec);
        match self.read_model(reply.codec, None, slab).filter(|_| absolute) {
            Some(model) => {
                self.joining.asked.insert(peer, Some((age, model)));
            }
            None => {
                self.joining.asked.remove(&peer);
                self.fault(peer, Rejection::BadModel);
            }
        }
        self.run_joining();
    }

    fn collect_snapshots(&mut self) {
        let waiting = self.joining.asked.values().any(Option::is_none);
        let over = self.joining.deadline.is_some_and(|deadline| self.now >= deadline);
        if waiting && !over {
            return;
        }
        self.joining.deadline = None;
        let asked = core::mem::take(&mut self.joining.asked);
        let nothing = core::mem::take(&mut self.joining.nothing);
        let founder_gave = asked.get(&self.network.spec.root).is_some_and(Option::is_some);
        let given: Vec<(f64, Encoded)> = asked.into_values().flatten().collect();
        if nothing > 0 && given.len() <= nothing && !founder_gave && !self.resumed {
            // Most have learnt nothing yet: this is genesis. A few that claim more, before anyone
            // could, must not decide where all begin; the founder begins first, so it may.
            return self.begin_training(0);
        }
        let Some(age) = lower_median(given.iter().map(|(age, _)| *age)) else {
            self.joining.settle_at = Some(self.now + RETRY);
            return;
        };
        let age = self.believable(age);
        if age <= self.young() && !self.resumed {
            // There is hardly anything to take over but the age, and whoever is fast enough to be
            // asked first could decide where all begin.
            (self.standing.age, self.standing.met) = (age, true);
            return self.begin_training(0);
        }
        self.joining.adopting = true;
        let snapshots = given.into_iter().map(|(_, model)| model).collect();
        self.compute(Job::Adopt { snapshots }, Pending::Adopt { age });
    }

    /// A snapshot's age, bounded by what all members say where there are enough to ask: one liar
    /// must not end our learning before it begins.
    fn believable(&self, age: f64) -> f64 {
        if self.peers() < SNAPSHOTS {
            return age;
        }
        let linked = self.links.values().filter(|link| link.admitted());
        let usual = lower_median(linked.map(|link| link.standing.age)).unwrap_or(age);
        age.min(2.0 * usual + STALE_ROUNDS * f64::from(self.settings.steps_per_round))
    }

    /// Below this age a flock has just begun.
    fn young(&self) -> f64 {
        let rounds = YOUNG_ROUNDS * f64::from(self.settings.steps_per_round);
        let end = self.network.spec.training.age_max;
        end.map_or(rounds, |end| rounds.min(YOUNG_SHARE * end))
    }

    pub(super) fn adopted(&mut self, age: f64, done: &Done) {
        self.joining.adopting = false;
        if self.phase != Phase::Join {
            // It is about to leave.
            return;
        }
        match done {
            Done::Adopted(used) if *used > 0 => {
                self.standing.age = age;
                self.standing.met = true;
                self.begin_training(*used);
            }
            _ => self.joining.settle_at = Some(self.now + RETRY),
        }
    }

    fn begin_training(&mut self, snapshots: usize) {
        self.joining = Joining::default();
        self.stage = Stage::Idle;
        self.phase = if self.finished() { Phase::Done } else { Phase::Train };
        let (age, peers) = (self.standing.age, self.peers());
        self.event(Event::MeshJoined { age, snapshots, peers });
        // Nobody asks a node that does not answer: tell them that we do from now on.
        self.beat_to_all();
    }
}

#[cfg(test)]
mod tests;
