//! A node's own rounds: train, exchange with one partner, finish, pause.

use core::time::Duration;
use std::collections::BTreeMap;

use rand::RngExt;
use starling_learning::compress::Codec;
use starling_protocol::envelope::Frame;
use starling_protocol::fault::Rejection;
use starling_protocol::gate::merge_weight;
use starling_protocol::id::NodeId;
use starling_protocol::limits::{AGE_MAX, COOLDOWN_MAX};
use starling_protocol::message::{ExchangeOutcome, ExchangeReply, ExchangeRequest, Message};
use starling_protocol::time::Time;
use starling_protocol::view::choose;

use super::links::Link;
use super::{Node, Pending, Phase};
use crate::event::Event;
use crate::jobs::{Base, Done, Encoded, Job, Merge, MergeTerms};

/// Share of its life that a founder may train before anyone else is there.
const ALONE_SHARE: f64 = 0.05;
/// The same in networks without an end, local steps.
const ALONE_STEPS: f64 = 1000.0;
/// What is kept per round of the gradient's largest length.
const SCALE_DECAY: f64 = 0.999;
/// A round without training takes at least this long: there is nothing else to slow it down.
const HOLD_PERIOD: Duration = Duration::from_millis(100);
/// Until so many merges after a restart the gate's floor is higher for partners that we drew: a
/// node that was away is far from everyone, by its own fault. Who asks us gains nothing by it.
const CATCHING_UP_MERGES: u64 = 3;
const CATCHING_UP_FACTOR: f64 = 4.0;
/// While one linked member in so many is far off, or one in a small flock, no other is quarantined.
const FAR_OFF_SHARE: usize = 3;
/// A partner that takes much longer than usual is not drawn again before so many times that.
const DAWDLER_SPARED: u32 = 16;
/// Between two `train.diverged` lines.
const DIVERGED_INTERVAL: Duration = Duration::from_secs(10);
/// Between two `round.completed` lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Where the round stands.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    Idle,
    Training {
        begun: Time,
        age: f64,
    },
    Encoding {
        peer: NodeId,
        second: bool,
    },
    Waiting {
        peer: NodeId,
        exchange: u64,
        sent: Time,
        deadline: Time,
        second: bool,
        /// Whether the request named a pair reference.
        based: bool,
    },
    Absorbing {
        peer: NodeId,
        age: f64,
        weight: f64,
        threshold: f64,
    },
    /// Models of several partners are on their way, each with its age once it is there.
    Pulling {
        asked: BTreeMap<NodeId, Option<(f64, Encoded)>>,
        sent: Time,
        deadline: Time,
    },
    Mixing {
        age: f64,
    },
    /// The partner asked at the same time and its request won: ours is void, theirs is answered.
    Crossing,
    Finishing,
    Pausing {
        until: Time,
    },
}

impl Stage {
    pub(super) fn wakeup(&self) -> Option<Time> {
        match self {
            Self::Waiting { deadline, .. } | Self::Pulling { deadline, .. } => Some(*deadline),
            Self::Pausing { until } => Some(*until),
            _ => None,
        }
    }

    /// Whether an exchange of our own is open.
    pub(super) fn exchanging(&self) -> bool {
        matches!(
            self,
            Self::Encoding { .. } | Self::Waiting { .. } | Self::Absorbing { .. } | Self::Crossing
        )
    }
}

impl Node {
    pub(super) fn run_round(&mut self) {
        if self.phase != Phase::Train {
            return;
        }
        match self.stage {
            Stage::Idle => self.begin_round(),
            Stage::Pausing { until } if self.now >= until => self.begin_round(),
            Stage::Waiting { peer, exchange, sent, deadline, .. } if self.now >= deadline => {
                self.cool_down(peer);
                if let Some(conduct) = self.conducts.get_mut(peer) {
                    conduct.given_up = Some((exchange, sent));
                }
                self.partner_lost(peer, "timeout");
            }
            Stage::Pulling { deadline, .. } if self.now >= deadline => self.pull_on(),
            _ => {}
        }
    }

    fn begin_round(&mut self) {
        self.stage = Stage::Idle;
        if self.paused {
            return;
        }
        if let Some((wanted, reason)) = self.reason_to_wait() {
            if !self.counters.waiting_reported {
                self.counters.waiting_reported = true;
                let (peers, reason) = (self.peers(), reason.to_owned());
                self.event(Event::MeshWaiting { peers, wanted, reason });
            }
            return;
        }
        self.counters.waiting_reported = false;
        self.counters.round_begun = self.now;
        if self.holds() {
            self.count_silent_round();
            // A round without training is one all the same: quarantines end by it.
            self.standing.round += 1;
            return self.begin_exchanges();
        }
        let (steps, age) = (self.settings.steps_per_round, self.standing.age);
        self.stage = Stage::Training { begun: self.now, age };
        self.compute(Job::Train { steps, age }, Pending::Round);
    }

    /// Whether to ask without training: nobody answers, or a founder that trained alone has its
    /// first guests, who are about to start from its model and must still find it there.
    fn holds(&self) -> bool {
        let first_guests = !self.standing.met && self.standing.age > 0.0;
        self.peers() > 0 && (self.silent() || first_guests)
    }

    /// A node alone drifts towards its own data, so it holds: before the start until enough peers
    /// are there, a founder after a short while, anyone else once everybody is gone.
    fn reason_to_wait(&self) -> Option<(usize, &'static str)> {
        let peers = self.peers();
        if !self.standing.met {
            let wanted = self.settings.start_peers;
            if peers < wanted {
                return Some((wanted, "not enough peers to start"));
            }
            let limit =
                self.network.spec.training.age_max.map_or(ALONE_STEPS, |age| age * ALONE_SHARE);
            return (peers == 0 && self.standing.age >= limit).then_some((1, "alone so far"));
        }
        (peers == 0 && self.silent()).then_some((1, "all peers are gone"))
    }

    /// Why learning does not go on with others, if so.
    #[must_use]
    pub fn obstacle(&self) -> Option<&'static str> {
        match self.phase {
            Phase::Join if self.peers() > 0 => Some("no member has given it a model yet"),
            Phase::Join => Some("no member has let this node in yet"),
            Phase::Train if self.counters.isolated => Some("isolated"),
            Phase::Train => self.reason_to_wait().map(|(_, reason)| reason),
            Phase::Done | Phase::Leaving => None,
        }
    }

    pub(super) fn round_job_done(&mut self, done: Done) {
        if self.phase != Phase::Train {
            return;
        }
        match (self.stage.clone(), done) {
            (Stage::Training { begun, age }, Done::Trained { steps, loss, update_norm }) => {
                self.trained((begun, age), steps, loss, update_norm);
            }
            (Stage::Encoding { peer, second }, Done::Encoded(own)) => {
                self.request(peer, second, own);
            }
            (Stage::Absorbing { peer, age, weight, threshold }, Done::Absorbed(merge)) => {
                self.distances.observe(merge.distance, threshold);
                let in_a_row = &mut self.counters.rejected_in_a_row;
                *in_a_row = if merge.accepted { 0 } else { *in_a_row + 1 };
                self.merged(peer, age - self.standing.age, weight, threshold, &merge);
                self.exchange_over();
            }
            (Stage::Absorbing { peer, .. }, Done::BadModel) => {
                self.fault(peer, Rejection::BadModel);
                self.exchange_over();
            }
            (Stage::Mixing { age }, Done::Mixed(used)) => self.mixed(age, used),
            (Stage::Finishing, Done::Finished { norm, diverged }) => {
                self.round_finished(norm, diverged);
            }
            _ => {}
        }
    }

    fn trained(&mut self, (begun, age): (Time, f64), steps: u32, loss: f64, update_norm: f64) {
        let counters = &mut self.counters;
        counters.loss = loss;
        counters.update_norm = update_norm;
        let elapsed = self.now.since(begun).as_nanos() / u128::from(steps.max(1));
        counters.step_ns = u64::try_from(elapsed).unwrap_or(u64::MAX);
        counters.rounds += 1;
        self.count_silent_round();
        // The rate of each step: where a cycle begins, that of the first says nothing of the rest.
        let schedule = self.network.schedule();
        let rates: f64 = (0..steps).map(|step| schedule.rate_at(age + f64::from(step))).sum();
        if rates > 0.0 {
            let gradient = update_norm / rates;
            let scale = &mut self.standing.gradient_scale;
            *scale = gradient.max(*scale * SCALE_DECAY);
        }
        self.standing.round += 1;
        self.standing.steps += u64::from(steps);
        // Lineage does not age in isolation, or a fast island would replace the flock.
        if self.peers() > 0 || !self.standing.met {
            self.standing.age = (self.standing.age + f64::from(steps)).min(AGE_MAX);
        }
        self.begin_exchanges();
    }

    fn begin_exchanges(&mut self) {
        if self.settings.rule.pull > 0 {
            return self.begin_pull();
        }
        self.counters.exchanges_left = self.settings.exchanges_per_round.max(1);
        self.begin_exchange(None, false);
    }

    /// Whatever came of an exchange: the round's next one, or its end. Who leaves asks nobody more.
    pub(super) fn exchange_over(&mut self) {
        self.counters.exchanges_left = self.counters.exchanges_left.saturating_sub(1);
        if self.counters.exchanges_left > 0 && self.phase == Phase::Train {
            self.begin_exchange(None, false);
        } else {
            self.finish_round();
        }
    }

    fn begin_exchange(&mut self, refused_by: Option<NodeId>, second: bool) {
        let Some(peer) = self.draw_partner(refused_by) else { return self.finish_round() };
        self.counters.last_partner = Some(peer);
        self.stage = Stage::Encoding { peer, second };
        self.encode(peer, Base::Newest);
    }

    fn encode(&mut self, peer: NodeId, base: Base) {
        let codecs = self.links.get(&peer).map(|link| link.codecs).unwrap_or_default();
        self.compute(Job::Encode { peer, base, codecs }, Pending::Round);
    }

    fn draw_partner(&mut self, refused_by: Option<NodeId>) -> Option<NodeId> {
        let mut pool = self.draw_pool();
        pool.retain(|id| Some(*id) != refused_by);
        if pool.len() > 2 {
            pool.retain(|id| Some(*id) != self.counters.last_partner);
        }
        choose(pool.into_iter(), &mut self.rng)
    }

    /// Whom we may draw.
    pub(super) fn draw_pool(&mut self) -> Vec<NodeId> {
        self.view.rotate(&mut self.rng);
        self.fill_view();
        self.fit_partners()
    }

    fn fit_partners(&self) -> Vec<NodeId> {
        let fit = |id: &NodeId| {
            self.links.get(id).is_some_and(|link| link.admitted() && link.standing.answers)
                && self.conducts.get(*id).is_some_and(|conduct| {
                    self.now >= conduct.cooldown_until
                        && !conduct.is_quarantined(self.standing.round)
                })
        };
        let pool: Vec<NodeId> = self.view.members().filter(fit).collect();
        // Who does not decode what we write costs many times the bytes: if there is nobody else.
        let decodes = |id: &NodeId| {
            self.links.get(id).is_some_and(|link| link.codecs.contains(self.settings.rule.codec))
        };
        let (compact, others): (Vec<NodeId>, Vec<NodeId>) = pool.into_iter().partition(decodes);
        if compact.is_empty() { others } else { compact }
    }

    fn request(&mut self, peer: NodeId, second: bool, own: Encoded) {
        if !self.links.get(&peer).is_some_and(Link::admitted) {
            return self.exchange_over();
        }
        let wait = self.patience(peer);
        let exchange = self.next_exchange;
        self.next_exchange += 1;
        let (sent, deadline) = (self.now, self.now + wait);
        let based = own.base.is_some();
        self.stage = Stage::Waiting { peer, exchange, sent, deadline, second, based };
        let (age, codec, base) = (self.standing.age, own.codec as u8, own.base);
        let message = Message::ExchangeRequest(ExchangeRequest { exchange, age, codec, base });
        self.send(peer, Frame { message, slab: own.slab });
    }

    pub(super) fn exchange_replied(&mut self, peer: NodeId, reply: &ExchangeReply, slab: Vec<u8>) {
        if reply.exchange >= self.next_exchange {
            return self.fault(peer, Rejection::Unexpected);
        }
        let is_model = matches!(reply.outcome, ExchangeOutcome::Model { .. });
        self.learn_from_late(peer, reply.exchange, is_model);
        let Stage::Waiting { peer: partner, exchange, sent, second, based, .. } = self.stage else {
            return;
        };
        // A reply to an exchange that was given up is dropped: merged late it does harm.
        if partner != peer || exchange != reply.exchange {
            return;
        }
        match reply.outcome {
            ExchangeOutcome::Model { age, codec } => {
                self.ages.observe(peer, age, self.standing.age);
                self.partner_replied(peer, exchange, age, self.now.since(sent));
                let Some(reply) = self.read_model(codec, None, slab) else {
                    self.exchange_over();
                    return self.fault(peer, Rejection::BadModel);
                };
                let (age, mut terms) = self.terms(age, self.counters.rejected_in_a_row >= 1);
                if self.resumed && self.counters.accepted < CATCHING_UP_MERGES {
                    terms.threshold = terms.threshold.max(CATCHING_UP_FACTOR * self.fresh_length());
                }
                let MergeTerms { threshold, weight, .. } = terms;
                self.stage = Stage::Absorbing { peer, age, weight, threshold };
                self.compute(Job::Absorb { peer, reply, terms }, Pending::Round);
            }
            ExchangeOutcome::Busy | ExchangeOutcome::RateLimited => {
                if reply.outcome == ExchangeOutcome::RateLimited {
                    self.spare(peer);
                }
                if second {
                    self.partner_lost(peer, "busy");
                } else {
                    self.begin_exchange(Some(peer), true);
                }
            }
            ExchangeOutcome::BaseMismatch { .. } if !based => {
                self.fault(peer, Rejection::Unexpected);
                self.partner_lost(peer, "refused");
            }
            ExchangeOutcome::BaseMismatch { held } => {
                self.stage = Stage::Encoding { peer, second: true };
                // Asked again once with what it holds; then whole, or a peer could ask for ever.
                let base = held.filter(|_| !second).map_or(Base::Absent, Base::Held);
                self.encode(peer, base);
            }
            ExchangeOutcome::Refused => {
                self.cool_down(peer);
                self.partner_lost(peer, "refused");
            }
        }
    }

    /// Takes note of how long a partner took. One that keeps us waiting is left alone in
    /// proportion: just in time for every time-out would cost a round each time.
    fn partner_replied(&mut self, peer: NodeId, exchange: u64, age: f64, took: Duration) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.standing.age = age;
        let step_ns = link.standing.step_ns;
        let step = Duration::from_nanos(step_ns);
        let dawdles = self.latency.is_unusual(took, step);
        self.latency.observe(took, step);
        let until = self.now + took.saturating_mul(DAWDLER_SPARED).min(COOLDOWN_MAX);
        if let Some(conduct) = self.conducts.get_mut(peer) {
            conduct.unscored = Some(exchange);
            conduct.failures = 0;
            if dawdles {
                conduct.cooldown_until = until;
            }
        }
        // A slow partner's bucket fills slowly: a request before that is wasted.
        if step_ns > 2 * self.counters.step_ns {
            self.spare(peer);
        }
    }

    /// Takes note of how long a reply took that we did not wait for: else a node that has known
    /// faster times, as before others started on the same machine, gives all exchanges up for ever.
    /// If nobody is left to draw, it is we who wait too short, and not they who are to be left
    /// alone.
    pub(super) fn learn_from_late(&mut self, peer: NodeId, exchange: u64, is_model: bool) {
        let given_up = self.conducts.get(peer).and_then(|conduct| conduct.given_up);
        let Some((_, sent)) = given_up.filter(|(given_up, _)| *given_up == exchange) else {
            return;
        };
        let step_ns = self.links.get(&peer).map_or(0, |link| link.standing.step_ns);
        if is_model {
            self.latency.observe(self.now.since(sent), Duration::from_nanos(step_ns));
        }
        let (now, nobody) = (self.now, self.fit_partners().is_empty());
        if let Some(conduct) = self.conducts.get_mut(peer) {
            conduct.given_up = None;
            if nobody {
                (conduct.failures, conduct.cooldown_until) = (0, now);
            }
        }
    }

    /// What a claimed age is taken for, and the terms that follow.
    pub(super) fn terms(&self, claim: f64, recover: bool) -> (f64, MergeTerms) {
        let rule = &self.settings.rule;
        let round = f64::from(self.settings.steps_per_round);
        let age = self.ages.believe(claim, self.standing.age, round);
        // A low claim is always believed where it only costs the claimant its weight.
        let young = claim.min(age);
        let weight = if rule.ages { merge_weight(self.standing.age, young) } else { 0.5 };
        let threshold = self.threshold();
        (age, MergeTerms { threshold, weight, recover })
    }

    /// How far a partner's model usually is, or may be at the present learning rate.
    pub(crate) fn threshold(&self) -> f64 {
        let usual = self.distances.threshold(self.counters.update_norm);
        usual.max(self.fresh_length())
    }

    /// The floor of the gate: so many local updates of an unlearnt model at the present rate.
    fn fresh_length(&self) -> f64 {
        let rate = self.network.schedule().rate_at(self.standing.age);
        let fresh = rate * f64::from(self.settings.steps_per_round) * self.standing.gradient_scale;
        self.settings.rule.gate_floor * fresh
    }

    /// Books a merge, whoever asked for it, with a model `older` steps older than ours.
    pub(super) fn merged(
        &mut self,
        peer: NodeId,
        older: f64,
        weight: f64,
        threshold: f64,
        merge: &Merge,
    ) {
        self.met_someone();
        let (round, now) = (self.standing.round, self.now);
        if let Some(link) = self.links.get_mut(&peer) {
            link.count_merge(!merge.accepted, now);
        }
        let may = !merge.accepted && self.may_quarantine(peer);
        let quarantined = self.conducts.get_mut(peer).is_some_and(|conduct| {
            conduct.trusted = Some(merge.trusted);
            conduct.observe_merge(!merge.accepted, round, may)
        });
        if merge.accepted {
            self.counters.accepted += 1;
            self.counters.merged_at = Some(self.now);
            let round_steps = f64::from(self.settings.steps_per_round);
            let (rounds, share) =
                (self.token_rounds, 1.0 / self.view.members().count().max(1) as f64);
            let change = weight * merge.trusted * older / round_steps;
            let known = self.conducts.get_mut(peer);
            let change = known.map_or(0.0, |known| known.moves_age(change, rounds, share));
            self.standing.age = (self.standing.age + change * round_steps).clamp(0.0, AGE_MAX);
            return;
        }
        self.counters.rejected += 1;
        let (name, reason) = (peer.to_string(), "distance".to_owned());
        let distance = merge.distance;
        self.event(Event::UpdateRejected { peer: name.clone(), reason, distance, threshold });
        if quarantined {
            let rounds = starling_protocol::limits::QUARANTINE_ROUNDS;
            self.event(Event::PeerQuarantined { peer: name, rounds });
        }
    }

    /// Whether `peer` may be left alone for its models. Where many are far off, as after a long
    /// cut, it is perhaps we who are: halves of a flock that no longer ask each other never learn
    /// how far apart they are, and never grow together again.
    fn may_quarantine(&self, peer: NodeId) -> bool {
        let round = self.standing.round;
        let others = self.links.keys().filter(|id| **id != peer);
        let conducts = others.filter_map(|id| self.conducts.get(*id));
        let far_off = conducts.filter(|conduct| conduct.is_far_off(round)).count();
        far_off < (self.peers() / FAR_OFF_SHARE).max(1)
    }

    /// How long we wait for `peer` to answer.
    pub(crate) fn patience(&self, peer: NodeId) -> Duration {
        let step_ns = self.links.get(&peer).map_or(0, |link| link.standing.step_ns);
        let own_step = Duration::from_nanos(self.counters.step_ns);
        self.latency.timeout(Duration::from_nanos(step_ns), own_step)
    }

    /// The partner of the open exchange will not answer: the round goes on without it.
    pub(super) fn partner_lost(&mut self, peer: NodeId, reason: &str) {
        let Stage::Waiting { peer: partner, .. } = self.stage else { return };
        if partner == peer {
            self.counters.failed += 1;
            if let Some(link) = self.links.get_mut(&peer) {
                link.tally.failed += 1;
                link.tally.last = Some(self.now);
            }
            self.event(Event::ExchangeFailed { peer: peer.to_string(), reason: reason.to_owned() });
            self.exchange_over();
        }
    }

    pub(super) fn finish_round(&mut self) {
        self.stage = Stage::Finishing;
        self.compute(Job::Finish { age: self.standing.age }, Pending::Round);
    }

    fn round_finished(&mut self, norm: f64, diverged: bool) {
        let counters = &mut self.counters;
        counters.norm = norm;
        counters.round_time = self.now.since(counters.round_begun);
        counters.round_times.observe(counters.round_time);
        let round = self.standing.round;
        // Training that begins to diverge may do so in every round.
        let silent = self.now.since(self.counters.diverged_at) >= DIVERGED_INTERVAL;
        if diverged && (silent || self.counters.diverged_at == Time::ZERO) {
            self.counters.diverged_at = self.now;
            self.event(Event::TrainDiverged { round });
        }
        self.token_rounds += 1.0;
        let finished = self.finished();
        if finished || self.now.since(self.counters.reported_at) >= REPORT_INTERVAL {
            self.report_rounds();
        }
        if finished {
            self.phase = Phase::Done;
            self.stage = Stage::Idle;
            self.event(Event::TrainingCompleted { age: self.standing.age, round });
            self.checkpoint();
            return;
        }
        let training = Duration::from_nanos(self.counters.step_ns) * self.settings.steps_per_round;
        let least = if self.holds() { HOLD_PERIOD } else { Duration::ZERO };
        let exchanges = self.exchange_time() * self.settings.exchanges_per_round;
        let period = self.settings.round_period.max(exchanges * 4).max(training);
        let period = period.max(least);
        // Nodes of one pace must not all ask at once, or they find each other busy.
        let period = period.mul_f64(self.rng.random_range(0.9..1.1));
        self.stage = Stage::Pausing { until: self.counters.round_begun + period };
        self.run_round();
    }

    fn report_rounds(&mut self) {
        let consensus = self.consensus();
        let cross_accuracy = self.cross_accuracy();
        let peers = self.peers();
        let rate = self.learning_rate();
        let counters = &mut self.counters;
        let rounds = counters.rounds - counters.reported_rounds;
        counters.reported_rounds = counters.rounds;
        counters.reported_at = self.now;
        let event = Event::RoundCompleted {
            round: self.standing.round,
            rounds,
            age: self.standing.age,
            loss: counters.loss,
            rate,
            cross_accuracy,
            consensus,
            peers,
            accepted: counters.accepted,
            rejected: counters.rejected,
            failed: counters.failed,
            sent_bytes: counters.sent_bytes,
            received_bytes: counters.received_bytes,
            payload_sent_bytes: counters.payload_sent_bytes,
            duration_ms: counters.round_time.as_secs_f64() * 1e3,
        };
        self.event(event);
    }

    /// Whether `codec` needs a pair reference.
    pub(super) fn needs_reference(codec: u8) -> bool {
        Codec::from_byte(codec) == Some(Codec::Ref3)
    }
}

#[cfg(test)]
mod tests;
