//! Whom we keep up with: beats, the view, surplus and silent links, partners to be left alone.

use core::time::Duration;

use rand::RngExt;
use starling_protocol::fault::Denial;
use starling_protocol::id::NodeId;
use starling_protocol::limits::{BEAT_INTERVAL, COOLDOWN_MAX, HINTS_MAX};
use starling_protocol::message::{Beat, Message};
use starling_protocol::time::Time;

use super::links::Link;
use super::{Node, Output, Phase};
use crate::event::Event;

/// Links kept for each place in the view: our own, those in whose views we are, and a few spare.
const LINKS_KEPT_PER_MEMBER: f64 = 2.5;
/// One beat in so many goes to all links, the others to the view: idle traffic must not grow with
/// the number of views that hold us.
const BEATS_TO_ALL: u64 = 16;
/// A step that takes so many times what all were last told, or what they were told so many times
/// it, goes to all at the next beat: time-outs of whoever draws us follow from it.
const PACE_CHANGE: u64 = 2;

/// Rounds without any exchange after which a node no longer trains.
const SILENT_ROUNDS: u64 = 5;
/// That silence lasts at least so long before it is called isolation: five rounds of a small model
/// are over before a busy machine lets its neighbour answer.
const ISOLATED_TIME: Duration = Duration::from_secs(5);

impl Node {
    /// Whether a node that goes on by itself would leave its flock.
    pub(super) fn silent(&self) -> bool {
        self.counters.silent_rounds >= SILENT_ROUNDS
    }

    /// A round is over or about to be, and nobody has exchanged with us in it so far.
    pub(super) fn count_silent_round(&mut self) {
        if self.counters.silent_rounds == 0 {
            self.counters.silent_since = self.now;
        }
        self.counters.silent_rounds += 1;
    }

    pub(super) fn note_isolation(&mut self) {
        let lasted = self.now.since(self.counters.silent_since);
        let isolated = self.silent() && lasted >= ISOLATED_TIME && self.standing.met;
        if isolated && !self.counters.isolated && self.phase == Phase::Train {
            self.counters.isolated = true;
            let reason = if self.peers() == 0 { "no peers" } else { "no peer answers" };
            let rounds = self.counters.silent_rounds;
            self.event(Event::MeshIsolated { rounds, reason: reason.to_owned() });
        }
    }

    /// Whether nobody has exchanged with us for five rounds and five seconds.
    #[must_use]
    pub fn isolated(&self) -> bool {
        self.counters.isolated
    }

    pub(super) fn met_someone(&mut self) {
        self.standing.met = true;
        self.counters.silent_rounds = 0;
        if core::mem::take(&mut self.counters.isolated) {
            let (age, peers) = (self.standing.age, self.peers());
            self.event(Event::MeshJoined { age, snapshots: 0, peers });
        }
    }

    pub(super) fn take_beat(&mut self, peer: NodeId, beat: Beat) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.standing = beat.standing;
        let Some(conduct) = self.conducts.get_mut(peer) else { return };
        // A peer that beats faster than it should must not steer whom we know.
        if now < conduct.hints_from {
            return;
        }
        conduct.hints_from = now + BEAT_INTERVAL / 2;
        for hint in beat.hints.iter().filter(|hint| hint.id != self.me) {
            self.view.learn(hint, false, &mut self.rng);
        }
        self.fill_view();
    }

    /// Once in [`BEAT_INTERVAL`].
    pub(super) fn beat(&mut self) {
        let jitter = self.rng.random_range(0.8..1.2);
        self.next_beat = self.now + BEAT_INTERVAL.mul_f64(jitter);
        self.view.give_up_on_unreachable(|id| self.links.contains_key(&id));
        self.fill_view();
        self.drop_surplus_links();
        self.beats = self.beats.wrapping_add(1);
        let (told, pace) = (self.step_told_ns, self.counters.step_ns);
        let changed = pace.max(told) > PACE_CHANGE.saturating_mul(pace.min(told));
        if changed || self.beats.is_multiple_of(BEATS_TO_ALL) {
            self.beat_to_all();
        } else {
            self.beat_to(|node, id| node.view.contains(id));
        }
    }

    /// Beats to all links, when they must know now how we stand.
    pub(super) fn beat_to_all(&mut self) {
        self.step_told_ns = self.counters.step_ns;
        self.beat_to(|_, _| true);
    }

    fn beat_to(&mut self, wanted: impl Fn(&Self, NodeId) -> bool) {
        let admitted = self.links.iter().filter(|(_, link)| link.admitted()).map(|(id, _)| *id);
        let peers: Vec<NodeId> = admitted.filter(|id| wanted(self, *id)).collect();
        for peer in peers {
            self.send_beat(peer);
        }
    }

    pub(super) fn send_beat(&mut self, peer: NodeId) {
        let hints = self.view.hints(HINTS_MAX, |id| id != peer, &mut self.rng);
        let standing = self.public_standing();
        self.send(peer, Message::Beat(Beat { standing, hints }).into());
    }

    pub(super) fn fill_view(&mut self) {
        let (links, scores, now, me) = (&self.links, &self.scores, self.now, self.me);
        let banned = &self.banned;
        self.view.fill(
            |id| links.contains_key(&id),
            |id| id != me && !scores.is_banned(id, now) && !banned.contains(&id),
            &mut self.rng,
        );
    }

    /// Rotation leaves links that nobody draws from: of members, beyond [`LINKS_KEPT_PER_MEMBER`],
    /// those that were not used the longest are closed, so that joiners find a free one. Strangers
    /// do not count, or they could push members out.
    fn drop_surplus_links(&mut self) {
        let kept = (LINKS_KEPT_PER_MEMBER * self.view.capacity() as f64) as usize;
        let members = || self.links.iter().filter(|(_, link)| link.admitted());
        let surplus = members().count().saturating_sub(kept);
        let outside = members().filter(|(id, _)| !self.view.contains(**id));
        let mut idle: Vec<(Time, NodeId)> = outside.map(|(id, link)| (link.used, *id)).collect();
        idle.sort_unstable();
        for (_, peer) in idle.into_iter().take(surplus) {
            self.send(peer, Message::Bye.into());
            self.disconnect(peer, "surplus");
        }
    }

    pub(super) fn drop_silent_links(&mut self) {
        let late = |link: &Link| link.hello_deadline().is_some_and(|at| self.now >= at);
        let waits = |id: NodeId| self.admissions.iter().any(|admission| admission.peer == id);
        let silent = self.links.iter().filter(|(id, link)| late(link) && !waits(**id));
        let silent: Vec<NodeId> = silent.map(|(id, _)| *id).collect();
        for peer in silent {
            self.deny(peer, Denial::NotMember);
        }
    }

    pub(super) fn dial(&mut self) {
        let links = &self.links;
        let due = self.view.due_for_dial(self.now, |id| links.contains_key(&id), &mut self.rng);
        self.outputs.extend(due.into_iter().map(Output::Dial));
    }

    /// Leaves a failing partner alone for a while: twice as long each time, from what waiting for
    /// it has cost.
    pub(super) fn cool_down(&mut self, peer: NodeId) {
        let jitter = self.rng.random_range(0.5..1.5);
        let cost = self.latency.timeout(Duration::ZERO, Duration::ZERO);
        if let Some(conduct) = self.conducts.get_mut(peer) {
            conduct.failed(self.now, cost, COOLDOWN_MAX, jitter);
        }
    }

    /// Does not ask a partner again before its rounds have given us a token.
    pub(super) fn spare(&mut self, peer: NodeId) {
        let (steps, view) = (self.settings.steps_per_round, self.view.members().count());
        let step_ns = self.links.get(&peer).map_or(0, |link| link.standing.step_ns);
        let round = Duration::from_nanos(step_ns).saturating_mul(steps);
        // Bounded before it is multiplied: a peer may claim any duration.
        let wait = round.min(COOLDOWN_MAX).mul_f64(view as f64 / 2.0).min(COOLDOWN_MAX);
        let until = self.now + wait;
        if let Some(conduct) = self.conducts.get_mut(peer) {
            conduct.cooldown_until = conduct.cooldown_until.max(until);
        }
    }
}

#[cfg(test)]
mod tests;
