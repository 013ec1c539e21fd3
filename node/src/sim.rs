//! Whole networks in one process: the production state machine and the production weights' owner
//! of every node, under virtual time, on a virtual network that delays, loses and cuts as a
//! scenario says.
//!
//! Every frame takes at least [`Scenario::delay_min`], so what happens in a window of that length
//! at one node cannot reach another within it: windows are computed node by node, on all threads
//! there are, and then the frames are handed over in a fixed order. A seed therefore gives one
//! trace, whatever the number of threads.

mod actor;
mod attack;
pub mod lab;
mod ledger;
mod queue;
mod scenario;
mod watch;

use core::time::Duration;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use starling_learning::data::Shard;
use starling_protocol::admission;
use starling_protocol::id::{Keypair, NodeId};
use starling_protocol::message::Hint;
use starling_protocol::time::Time;

pub use self::attack::Attack;
pub use self::scenario::{Churn, Partition, Sabotage, Scenario};

use self::actor::{Actor, Directory, Person};
use self::attack::Crowd;
use self::ledger::Ledger;
use self::queue::Parcel;
use crate::spec::{Membership, Network};

/// Fewer active nodes than this in a window are not worth a second thread.
const PARALLEL_FROM: usize = 6;

/// In larger networks nobody invites more than a few: a thousand newcomers at one door in the same
/// second are not what is to be shown.
const ONE_INVITER_MAX: usize = 64;
const INVITES_EACH: usize = 8;
/// Unbalanced merges remembered.
const UNBALANCED_MAX: usize = 4;
/// Windows between two calls of `progress`.
const WINDOWS_PER_LOOK: u64 = 64;

/// What a simulated network came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Accuracy of each live node's served model on the common test rows.
    pub accuracies: Vec<f64>,
    /// Rounds per node.
    pub rounds_mean: f64,
    /// Age of honest models that live.
    pub age_mean: f64,
    /// Mean difference between what peers scored a node's model at and its accuracy.
    pub cross_error_mean: f64,
    /// Root-mean-square distance of working models from their mean, by the mean's length.
    pub consensus: f64,
    /// What nodes believe it to be, on average.
    pub consensus_believed: f64,
    /// Model bytes sent per node.
    pub payload_bytes_mean: f64,
    /// All bytes of frames sent per node.
    pub wire_bytes_mean: f64,
    /// Bytes of the newest checkpoint of a node: its simulated disk.
    pub saved_bytes_mean: f64,
    /// Frames sent per node.
    pub messages_mean: f64,
    /// Merges taken and rejected, own exchanges failed, all nodes.
    pub merges: (u64, u64, u64),
    /// Bans of honest nodes by honest nodes.
    pub honest_bans: u64,
    /// What did not hold that must always hold.
    pub violations: Vec<String>,
    /// Exchanges whose two merges were held against each other.
    pub pairs_checked: u64,
    /// Virtual time at the end.
    pub virtual_time: Duration,
    /// Hash of when every node did something, of all that it sent and told, and of what it learnt.
    pub trace: [u8; 32],
}

impl Report {
    /// Mean accuracy.
    #[must_use]
    pub fn accuracy_mean(&self) -> f64 {
        self.accuracies.iter().sum::<f64>() / self.accuracies.len().max(1) as f64
    }

    /// Accuracy of the worst node.
    #[must_use]
    pub fn accuracy_worst(&self) -> f64 {
        self.accuracies.iter().copied().reduce(f64::min).unwrap_or_default()
    }
}

/// Many nodes under virtual time.
#[derive(Debug)]
pub struct Simulation {
    actors: Vec<Actor>,
    window: Duration,
    until: Time,
    now: Time,
    /// What hostile nodes know, and when it is brought up to date.
    crowd: Arc<Crowd>,
    attack_memory: f32,
    victims_known: bool,
    next_look: Time,
    look_interval: Option<Duration>,
    /// Whether training has an end, and all live nodes came to it.
    finite: bool,
    over: bool,
    ledger: Ledger,
    /// Merges that did not keep the mean, the first few.
    unbalanced: Vec<String>,
}

/// The identity of the founder of a simulated network that asks for certificates.
#[must_use]
pub fn founder(seed: u64) -> NodeId {
    actor::key(seed, 0).id()
}

impl Simulation {
    /// One node per shard. All know a few others, as if each had been invited by them.
    #[must_use]
    pub fn new(network: &Network, scenario: &Scenario, shards: Vec<Shard>) -> Self {
        let count = shards.len();
        let keys: Vec<Keypair> = (0..count).map(|index| actor::key(scenario.seed, index)).collect();
        let ids = Arc::new(Directory::new(keys.iter().map(Keypair::id).collect()));
        let scenario = Arc::new(scenario.clone());
        let mut rng = ChaCha8Rng::seed_from_u64(scenario.seed);
        let mut actors = Vec::with_capacity(count);
        let attacks = scenario.attacks.iter().map(|(attack, _)| *attack);
        let attack_memory = attacks.map(Attack::memory).fold(0.0, f32::max);
        let root = keys.first().cloned();
        for (index, (key, shard)) in keys.into_iter().zip(shards).enumerate() {
            let certified = network.spec.membership == Membership::Invite
                && (!scenario.is_stranger(index, count)
                    || scenario.sabotage == Some(Sabotage::Stranger));
            let chain = root
                .as_ref()
                .filter(|_| certified && index > 0)
                .and_then(|root| admission::extend_chain(root, network.id, &[], key.id()).ok());
            let contacts = contacts(&ids.nodes, index, scenario.settings.view_max, &mut rng);
            let (ids, scenario) = (Arc::clone(&ids), Arc::clone(&scenario));
            let chain = chain.unwrap_or_default();
            let person = Person { index, key, chain, contacts };
            actors.push(Actor::new(network, scenario, ids, person, shard));
        }
        let round = scenario.step * scenario.settings.steps_per_round;
        Self {
            actors,
            window: scenario.delay_min(),
            until: Time::ZERO + scenario.duration_max,
            now: Time::ZERO,
            crowd: Arc::default(),
            next_look: Time::ZERO,
            finite: network.spec.training.age_max.is_some(),
            over: false,
            attack_memory,
            victims_known: scenario.attacks.iter().any(|(attack, _)| attack.fits_victims()),
            look_interval: (!scenario.attacks.is_empty())
                .then(|| round.max(scenario.settings.round_period)),
            ledger: Ledger::default(),
            unbalanced: Vec::new(),
        }
    }

    /// Runs until every live node has finished, or the scenario's time is over. `progress` is told
    /// the virtual time now and then.
    pub fn run(&mut self, mut progress: impl FnMut(Time, &mut Self)) {
        let mut windows = 0_u64;
        while let Some(begin) = self.actors.iter().filter_map(Actor::next_event).min() {
            self.over = self.is_over();
            if begin > self.until || self.over {
                break;
            }
            if let Some(interval) = self.look_interval.filter(|_| begin >= self.next_look) {
                self.next_look = begin + interval;
                self.inform_attackers();
            }
            let end = begin + self.window;
            self.run_window(end);
            self.now = begin;
            windows += 1;
            if windows.is_multiple_of(WINDOWS_PER_LOOK) {
                progress(self.now, self);
            }
        }
    }

    fn is_over(&self) -> bool {
        let at_rest = |actor: &Actor| actor.finished() || actor.is_hostile() || !actor.is_live();
        self.actors.iter().any(Actor::finished) && self.actors.iter().all(at_rest)
    }

    fn inform_attackers(&mut self) {
        let honest = self.actors.iter().filter(|actor| !actor.is_hostile());
        let models: Vec<&[f32]> = honest.filter_map(Actor::params).collect();
        let mut crowd = Crowd::of(&models, &self.crowd, self.attack_memory);
        if self.victims_known {
            let honest = self.actors.iter().filter(|actor| !actor.is_hostile());
            crowd.victims = honest.filter_map(Actor::victim).collect();
        }
        self.crowd = Arc::new(crowd);
        for actor in &mut self.actors {
            actor.inform(&self.crowd);
        }
    }

    fn run_window(&mut self, end: Time) {
        let mut active: Vec<&mut Actor> =
            self.actors.iter_mut().filter(|actor| actor.next_event() < Some(end)).collect();
        active.retain(|actor| actor.next_event().is_some());
        if active.len() < PARALLEL_FROM {
            active.iter_mut().for_each(|actor| actor.run_until(end));
        } else {
            active.par_iter_mut().for_each(|actor| actor.run_until(end));
        }
        let moves: Vec<_> = active.iter_mut().flat_map(|actor| actor.take_moves()).collect();
        let mut parcels: Vec<Parcel> =
            active.iter_mut().flat_map(|actor| actor.take_outbox()).collect();
        parcels.sort_by_key(|parcel| (parcel.at, parcel.from, parcel.sequence));
        for parcel in parcels {
            if let Some(actor) = self.actors.get_mut(parcel.to) {
                actor.deliver(parcel);
            }
        }
        let nodes = self.actors.len();
        for entry in moves {
            let found = self.ledger.book(entry, nodes);
            if self.unbalanced.len() < UNBALANCED_MAX {
                self.unbalanced.extend(found);
            }
        }
    }

    /// How far, on average, peers' scores are from the `accuracies` of live honest nodes, and how
    /// far from each other nodes believe to be.
    fn estimates(&self, accuracies: &[f64]) -> (f64, f64) {
        let honest = self.actors.iter().filter(|actor| !actor.is_hostile() && actor.is_live());
        let (mut errors, mut believed) = (Vec::new(), Vec::new());
        for (actor, accuracy) in honest.zip(accuracies) {
            let (cross, consensus) = actor.estimates();
            errors.extend(cross.map(|cross| (cross - accuracy).abs()));
            believed.extend(consensus);
        }
        let mean = |all: Vec<f64>| all.iter().sum::<f64>() / all.len().max(1) as f64;
        (mean(errors), mean(believed))
    }

    /// Mean age of honest nodes that live: how far the run is.
    #[must_use]
    pub fn mean_age(&self) -> f64 {
        let honest = self.actors.iter().filter(|actor| !actor.is_hostile());
        let ages: Vec<f64> = honest.filter_map(Actor::age).collect();
        ages.iter().sum::<f64>() / ages.len().max(1) as f64
    }

    /// Model bytes sent per honest node so far.
    #[must_use]
    pub fn payload_mean(&self) -> f64 {
        let honest: Vec<&Actor> = self.actors.iter().filter(|actor| !actor.is_hostile()).collect();
        let sent: u64 = honest.iter().map(|actor| actor.totals().payload).sum();
        sent as f64 / honest.len().max(1) as f64
    }

    /// Virtual time reached.
    #[must_use]
    pub fn now(&self) -> Time {
        self.now
    }

    /// Accuracy of every live node's served model on `test`.
    #[must_use]
    pub fn accuracies(&mut self, test: &Shard) -> Vec<f64> {
        let found = self.actors.par_iter_mut().map(|actor| actor.accuracy(test, None));
        found.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    /// The same of up to `nodes` of them, spread over all, on up to `rows` rows.
    #[must_use]
    pub fn sample(&mut self, test: &Shard, nodes: usize, rows: usize) -> Vec<f64> {
        let every = self.actors.len().div_ceil(nodes.max(1)).max(1);
        let chosen: Vec<&mut Actor> = self.actors.iter_mut().step_by(every).collect();
        let found = chosen.into_par_iter().map(|actor| actor.accuracy(test, Some(rows)));
        found.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    /// Sums up.
    #[must_use]
    pub fn report(&mut self, test: &Shard) -> Report {
        let accuracies = self.accuracies(test);
        let (cross_error_mean, consensus_believed) = self.estimates(&accuracies);
        let violations = self.violations();
        let honest = self.actors.iter().filter(|actor| !actor.is_hostile());
        let totals: Vec<_> = honest.map(Actor::totals).collect();
        let mean = |value: fn(&actor::Totals) -> u64| {
            totals.iter().map(value).sum::<u64>() as f64 / totals.len().max(1) as f64
        };
        let sum = |value: fn(&actor::Totals) -> u64| totals.iter().map(value).sum::<u64>();
        let mut trace = blake3::Hasher::new();
        for actor in &self.actors {
            trace.update(&actor.trace());
            for value in actor.params().unwrap_or_default() {
                trace.update(&value.to_le_bytes());
            }
        }
        Report {
            accuracies,
            rounds_mean: mean(|totals| totals.rounds),
            age_mean: self.mean_age(),
            cross_error_mean,
            consensus: self.consensus(),
            consensus_believed,
            payload_bytes_mean: mean(|totals| totals.payload),
            wire_bytes_mean: mean(|totals| totals.wire),
            saved_bytes_mean: self.actors.iter().map(Actor::saved_bytes).sum::<usize>() as f64
                / self.actors.len().max(1) as f64,
            messages_mean: mean(|totals| totals.messages),
            merges: (
                sum(|totals| totals.accepted),
                sum(|totals| totals.rejected),
                sum(|totals| totals.failed),
            ),
            honest_bans: sum(|totals| totals.bans),
            violations,
            pairs_checked: self.ledger.checked,
            virtual_time: self.now.since(Time::ZERO),
            trace: *trace.finalize().as_bytes(),
        }
    }

    fn violations(&mut self) -> Vec<String> {
        let time = self.now.since(Time::ZERO);
        let honest = self.actors.iter_mut().filter(|actor| !actor.is_hostile());
        let mut found: Vec<String> = honest.flat_map(|actor| actor.violations(time)).collect();
        found.append(&mut self.unbalanced);
        if self.finite && !self.over {
            found.push(format!("training did not come to its end within {} s", time.as_secs()));
        }
        found
    }

    /// Root-mean-square distance of honest working models from their mean, by the mean's length.
    #[must_use]
    pub fn consensus(&self) -> f64 {
        let honest = self.actors.iter().filter(|actor| !actor.is_hostile());
        let models: Vec<&[f32]> = honest.filter_map(Actor::params).collect();
        let Some(first) = models.first() else { return 0.0 };
        let mut mean = vec![0.0_f64; first.len()];
        for model in &models {
            for (sum, value) in mean.iter_mut().zip(*model) {
                *sum += f64::from(*value) / models.len() as f64;
            }
        }
        let length = mean.iter().map(|value| value * value).sum::<f64>().sqrt();
        let squares = models.iter().map(|model| {
            model.iter().zip(&mean).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum::<f64>()
        });
        (squares.sum::<f64>() / models.len() as f64).sqrt() / length.max(f64::MIN_POSITIVE)
    }
}

/// A few random others, and always who invited this node, so that the graph is connected.
fn contacts(ids: &[NodeId], own: usize, view_max: usize, rng: &mut ChaCha8Rng) -> Vec<Hint> {
    let inviter = if ids.len() > ONE_INVITER_MAX { own / INVITES_EACH } else { 0 };
    let mut chosen = std::collections::BTreeSet::from([inviter]);
    while chosen.len() < view_max.min(ids.len()) {
        chosen.insert(rng.random_range(0..ids.len()));
    }
    chosen.remove(&own);
    let hint = |index: usize| {
        ids.get(index).map(|id| Hint { id: *id, addresses: vec![actor::address(index)] })
    };
    chosen.into_iter().filter_map(hint).collect()
}
