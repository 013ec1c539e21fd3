//! One simulated node: state machine, weights, event queue, and the faults that befall it.

mod audit;
mod hostile;

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use starling_learning::data::Shard;
use starling_learning::params::first_non_finite;
use starling_protocol::admission::Certificate;
use starling_protocol::envelope::{Address, Frame, Verified};
use starling_protocol::fault::Rejection;
use starling_protocol::id::{Keypair, NodeId};
use starling_protocol::limits::JOBS_PENDING_MAX;
use starling_protocol::message::{ExchangeOutcome, ExchangeReply, Hint, Kind, Message};
use starling_protocol::time::Time;

use super::attack::{Attack, Attacker, Victim};
use super::ledger::Move;
use super::queue::{Cargo, Happening, Parcel, Queued};
use super::scenario::{Sabotage, Scenario};
use super::watch::Watch;
use crate::checkpoint;
use crate::event::Event;
use crate::jobs::Job;
use crate::node::{Identity, Input, Node, Output, Phase, Standing};
use crate::replica::Replica;
use crate::spec::Network;
use crate::worker::{JobId, Worker};

/// Happenings of one node in one window; more are a loop that time does not end.
const HAPPENINGS_MAX: u32 = 100_000;

/// The key of node `index`.
pub(super) fn key(seed: u64, index: usize) -> Keypair {
    let hash = blake3::hash(format!("starling simulation {seed} {index}").as_bytes());
    Keypair::from_seed(hash.as_bytes())
}

/// The address of node `index`.
pub(super) fn address(index: usize) -> String {
    format!("/sim/{index}")
}

/// Totals over all boots of a node.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) rounds: u64,
    pub(super) payload: u64,
    pub(super) wire: u64,
    pub(super) messages: u64,
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    pub(super) failed: u64,
    /// Of honest nodes.
    pub(super) bans: u64,
}

/// The live half of a node; gone while it is down.
#[derive(Debug)]
struct Live {
    node: Node,
    worker: Worker,
    mailbox: VecDeque<(JobId, Job)>,
    /// When the running training job began, and how many of its steps were taken.
    training: Option<(Time, u32, u32)>,
}

/// Who is who.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) nodes: Vec<NodeId>,
    indices: BTreeMap<NodeId, usize>,
}

impl Directory {
    pub(super) fn new(nodes: Vec<NodeId>) -> Self {
        let indices = nodes.iter().enumerate().map(|(index, id)| (*id, index)).collect();
        Self { nodes, indices }
    }

    pub(super) fn index(&self, id: NodeId) -> Option<usize> {
        self.indices.get(&id).copied()
    }
}

/// Who a node is.
#[derive(Debug)]
pub(super) struct Person {
    pub(super) index: usize,
    pub(super) key: Keypair,
    pub(super) chain: Vec<Certificate>,
    pub(super) contacts: Vec<Hint>,
}

/// One simulated node.
#[derive(Debug)]
pub(super) struct Actor {
    index: usize,
    ids: Arc<Directory>,
    scenario: Arc<Scenario>,
    attacker: Option<Attacker>,
    network: Network,
    key: Keypair,
    chain: Vec<Certificate>,
    shard: Shard,
    contacts: Vec<Hint>,
    epoch: u64,
    live: Option<Live>,
    saved: Option<Vec<u8>>,
    /// Linked nodes with their boot.
    links: BTreeMap<usize, u64>,
    /// When the last parcel to a node arrives: connections keep the order.
    last_arrival: BTreeMap<usize, Time>,
    queue: BinaryHeap<Reverse<Queued>>,
    outbox: Vec<Parcel>,
    moves: Vec<Move>,
    sequence: u64,
    tick_at: Option<Time>,
    rng: ChaCha8Rng,
    before: Totals,
    bans: u64,
    watch: Watch,
    trace: blake3::Hasher,
}

impl Actor {
    pub(super) fn new(
        network: &Network,
        scenario: Arc<Scenario>,
        ids: Arc<Directory>,
        person: Person,
        shard: Shard,
    ) -> Self {
        let Person { index, key, chain, contacts } = person;
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&scenario.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&(index as u64).to_le_bytes());
        let hostile = scenario.hostile(index, ids.nodes.len());
        let shard = match hostile {
            Some((Attack::LabelFlip {}, _)) => shard.with_flipped_labels(),
            _ => shard,
        };
        let attacker = hostile.map(|(attack, place)| {
            Attacker::new(attack, place, scenario.seed.wrapping_add(index as u64))
        });
        let mut actor = Self {
            index,
            ids,
            scenario,
            attacker,
            network: network.clone(),
            key,
            chain,
            shard,
            contacts,
            epoch: 0,
            live: None,
            saved: None,
            links: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            queue: BinaryHeap::new(),
            outbox: Vec::new(),
            moves: Vec::new(),
            sequence: 0,
            tick_at: None,
            rng: ChaCha8Rng::from_seed(seed),
            before: Totals::default(),
            bans: 0,
            watch: Watch::default(),
            trace: blake3::Hasher::new(),
        };
        // Nodes of a real network do not start in the same instant.
        let start = actor.scenario.step.mul_f64(actor.rng.random_range(0.0..4.0));
        actor.push(Time::ZERO + start, Happening::Restart);
        actor
    }

    fn push(&mut self, at: Time, happening: Happening) {
        self.sequence += 1;
        self.queue.push(Reverse(Queued { at, sequence: self.sequence, happening }));
    }

    pub(super) fn next_event(&self) -> Option<Time> {
        self.queue.peek().map(|Reverse(queued)| queued.at)
    }

    pub(super) fn deliver(&mut self, parcel: Parcel) {
        self.push(parcel.at, Happening::Arrival(parcel));
    }

    pub(super) fn take_outbox(&mut self) -> Vec<Parcel> {
        core::mem::take(&mut self.outbox)
    }

    pub(super) fn take_moves(&mut self) -> Vec<Move> {
        core::mem::take(&mut self.moves)
    }

    pub(super) fn run_until(&mut self, end: Time) {
        let mut happenings = 0;
        while self.next_event().is_some_and(|at| at < end) {
            if let Some(Reverse(queued)) = self.queue.pop() {
                self.happen(queued.at, queued.happening);
            }
            happenings += 1;
            if happenings > HAPPENINGS_MAX {
                self.watch.violated("does not come to rest in a moment of time");
                (self.live, self.queue) = (None, BinaryHeap::new());
            }
        }
    }

    fn happen(&mut self, now: Time, happening: Happening) {
        match happening {
            Happening::Restart => return self.start(now),
            Happening::Crash => return self.crash(now),
            Happening::Arrival(parcel) => self.arrive(now, parcel),
            Happening::Tick => {
                if self.tick_at == Some(now) {
                    self.tick_at = None;
                    self.step(now, Input::Tick);
                }
            }
            Happening::Boundary(epoch) if epoch == self.epoch => self.boundary(now),
            Happening::Boundary(_) => {}
            Happening::JobDone(id, done) => self.step(now, Input::JobDone(id, done)),
            Happening::Saved => self.step(now, Input::Saved(true)),
        }
        self.schedule_tick(now);
    }

    fn schedule_tick(&mut self, now: Time) {
        let Some(live) = &self.live else { return };
        let wakeup = live.node.next_wakeup().max(now);
        if self.tick_at.is_none_or(|at| wakeup < at) {
            self.tick_at = Some(wakeup);
            self.push(wakeup, Happening::Tick);
        }
    }

    fn start(&mut self, now: Time) {
        self.epoch += 1;
        let fresh = self.scenario.churn.is_some_and(|churn| churn.fresh);
        let saved = self.saved.as_deref().filter(|_| !fresh);
        let count = self.network.model.len();
        let restored = saved.map(|bytes| checkpoint::decode(bytes, self.network.id, count));
        let mut settings = self.scenario.settings.clone();
        settings.seed = self.scenario.seed.wrapping_mul(1_000_003) + self.index as u64;
        let secret = self.rng.random();
        let mut replica = Replica::new(&self.network, &self.shard, &settings, secret);
        let resumed = restored.and_then(|checkpoint| {
            let checkpoint = checkpoint.ok()?;
            replica.restore(checkpoint.vectors);
            Standing::decode(&checkpoint.standing).ok()
        });
        if resumed.is_none() && !fresh && self.saved.is_some() {
            self.watch.violated("wrote a checkpoint that it cannot read");
        }
        let identity = Identity {
            key: self.key.clone(),
            epoch: self.epoch,
            chain: self.chain.clone(),
            contacts: self.contacts.clone(),
            resumed,
            banned: BTreeSet::new(),
        };
        let node = Node::new(self.network.clone(), settings, identity);
        let worker = Worker::new(replica);
        self.live = Some(Live { node, worker, mailbox: VecDeque::new(), training: None });
        self.step(now, Input::Listening(vec![address(self.index)]));
        self.step(now, Input::Start);
        self.schedule_tick(now);
        if let Some(churn) = self.scenario.churn {
            let up = self.exponential(churn.up_mean);
            self.push(now + up, Happening::Crash);
        }
    }

    fn crash(&mut self, now: Time) {
        self.before = self.totals();
        self.watch.crashed();
        self.live = None;
        self.tick_at = None;
        for peer in core::mem::take(&mut self.links).into_keys() {
            self.post(now, peer, Cargo::Closed);
        }
        self.last_arrival.clear();
        if let Some(churn) = self.scenario.churn {
            let share = churn.down_share / (1.0 - churn.down_share);
            let down = self.exponential(churn.up_mean.mul_f64(share));
            self.push(now + down, Happening::Restart);
        }
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        let unit: f64 = self.rng.random_range(f64::MIN_POSITIVE..1.0);
        mean.mul_f64(-unit.ln())
    }

    fn step(&mut self, now: Time, input: Input) {
        self.trace.update(&now.0.to_le_bytes());
        self.watch.input();
        let Some(live) = &mut self.live else { return };
        let outputs = live.node.step(now, input);
        if let Some(table) = live.node.overflow() {
            self.watch.violated(format!("holds more {table} than it may"));
        }
        for output in outputs {
            self.perform(now, output);
        }
    }

    fn perform(&mut self, now: Time, output: Output) {
        match output {
            Output::Send(address, frame) => self.send(now, address, frame),
            Output::Dial(hint) => {
                if let Some(peer) = self.ids.index(hint.id).filter(|to| !self.cut(now, *to)) {
                    self.post(now, peer, Cargo::Connect);
                }
            }
            Output::Disconnect(id) => {
                if let Some(peer) = self.ids.index(id)
                    && self.links.remove(&peer).is_some()
                {
                    self.post(now, peer, Cargo::Closed);
                }
            }
            Output::Compute(id, job) => {
                self.watch_merge(&job);
                self.compute(now, id, job);
            }
            Output::Save { bytes, .. } => {
                self.saved = Some(bytes);
                self.push(now, Happening::Saved);
            }
            Output::Event(event) => {
                self.watch.event();
                if let Event::PeerBanned { peer, .. } = &event {
                    self.bans += u64::from(self.is_honest(peer));
                }
                self.trace.update(event.entry().name.as_bytes());
            }
            Output::Left | Output::Admitted(_) => {}
        }
    }

    fn sabotages(&self, sabotage: Sabotage) -> bool {
        self.scenario.sabotage == Some(sabotage)
    }

    fn send(&mut self, now: Time, address: Address, frame: Frame) {
        self.trace.update(&address.recipient.0);
        self.trace.update(&[frame.message.kind() as u8]);
        self.trace.update(&frame.slab);
        let Some(peer) = self.ids.index(address.recipient) else { return };
        if let Message::ExchangeReply(ExchangeReply { outcome, .. }) = &frame.message
            && matches!(
                outcome,
                ExchangeOutcome::Busy | ExchangeOutcome::RateLimited | ExchangeOutcome::Refused
            )
        {
            self.watch.turned_down(peer);
        }
        let address = self.spread(address);
        let Some(frame) = self.misreport(frame) else { return };
        let wait = self.hold_back(&address, &frame);
        let flood = frame.clone();
        // Streams lose nothing; what fails in a real network is an exchange, when a link breaks.
        let kind = frame.message.kind();
        let fragile = matches!(kind, Kind::ExchangeRequest | Kind::ExchangeReply);
        let lost = fragile && self.rng.random_bool(self.scenario.loss.clamp(0.0, 1.0));
        let twice = self.rng.random_bool(self.scenario.duplication.clamp(0.0, 1.0));
        let Ok(verified) = Verified::in_process(address, frame) else { return };
        if !self.links.contains_key(&peer) || lost || self.cut(now, peer) {
            return;
        }
        if twice {
            self.post(now, peer, Cargo::Frame(verified.clone()));
        }
        self.replay_past_the_window(now, peer, &verified);
        self.post(now + wait, peer, Cargo::Frame(verified));
        self.flood(now, address, &flood);
    }

    fn post(&mut self, now: Time, to: usize, cargo: Cargo) {
        let fixed = self.scenario.delay_min();
        let at = now + fixed + self.exponential(fixed);
        let last = self.last_arrival.get(&to).copied().unwrap_or(Time::ZERO);
        let at = at.max(last + Duration::from_nanos(1));
        self.last_arrival.insert(to, at);
        self.sequence += 1;
        let (from, sequence, epoch) = (self.index, self.sequence, self.epoch);
        self.outbox.push(Parcel { at, from, to, sequence, epoch, cargo });
    }

    fn cut(&self, now: Time, peer: usize) -> bool {
        self.scenario.partition.is_some_and(|partition| {
            let split = (self.ids.nodes.len() as f64 * partition.share) as usize;
            let within = now >= Time::ZERO + partition.begin && now < Time::ZERO + partition.end;
            within && (self.index < split) != (peer < split)
        })
    }

    fn arrive(&mut self, now: Time, parcel: Parcel) {
        if self.live.is_none() {
            return;
        }
        let peer = parcel.from;
        let Some(id) = self.ids.nodes.get(peer).copied() else { return };
        let known = self.links.get(&peer).copied();
        match parcel.cargo {
            Cargo::Connect => {
                self.links.insert(peer, parcel.epoch);
                self.post(now, peer, Cargo::Accepted);
                self.relink(now, id, known, parcel.epoch);
            }
            Cargo::Accepted => {
                self.links.insert(peer, parcel.epoch);
                self.relink(now, id, known, parcel.epoch);
            }
            Cargo::Closed if known == Some(parcel.epoch) => {
                self.links.remove(&peer);
                self.step(now, Input::LinkDown(id));
            }
            Cargo::Frame(frame) if known == Some(parcel.epoch) => {
                let meant = frame.address.recipient_epoch;
                if meant != self.epoch && !frame.frame.message.kind().opens_a_link() {
                    if meant == 0 {
                        self.step(now, Input::Refused(id, Rejection::StaleEpoch));
                    }
                    // What was on its way to our last boot is lost with its connection.
                    return;
                }
                self.watch.delivered(peer, &frame);
                if self.sabotages(Sabotage::Ban) && frame.frame.message.kind() == Kind::Beat {
                    return self.step(now, Input::Refused(id, Rejection::BadSignature));
                }
                self.step(now, Input::Received(frame));
            }
            Cargo::Copy(frame) if known == Some(parcel.epoch) => {
                self.step(now, Input::Received(frame));
            }
            Cargo::Closed | Cargo::Frame(_) | Cargo::Copy(_) => {}
        }
    }

    fn relink(&mut self, now: Time, id: NodeId, known: Option<u64>, epoch: u64) {
        if known == Some(epoch) {
            return;
        }
        if known.is_some() {
            self.step(now, Input::LinkDown(id));
        }
        self.step(now, Input::LinkUp(id));
    }

    fn is_honest(&self, name: &str) -> bool {
        let honest = self.scenario.honest(self.ids.nodes.len());
        self.ids.nodes.iter().take(honest).any(|id| id.to_string() == name)
    }

    fn compute(&mut self, now: Time, id: JobId, job: Job) {
        let (step, epoch) = (self.step_time(), self.epoch);
        let Some(live) = &mut self.live else { return };
        if let Job::Train { steps, .. } = job {
            live.worker.submit(id, job);
            live.training = Some((now, 0, steps));
            self.push(now + step * steps, Happening::Boundary(epoch));
        } else if let Some((begun, _, _)) = live.training {
            live.mailbox.push_back((id, job));
            if live.mailbox.len() > JOBS_PENDING_MAX {
                self.watch.violated("has more jobs waiting than it may");
            }
            let elapsed = now.since(begun).as_nanos().div_ceil(step.as_nanos().max(1));
            let next = begun + step * u32::try_from(elapsed).unwrap_or(u32::MAX);
            self.push(next, Happening::Boundary(epoch));
        } else {
            self.forge(&job);
            self.submit(now, id, job);
        }
    }

    fn submit(&mut self, now: Time, id: JobId, job: Job) {
        let Some(live) = &mut self.live else { return };
        let merged_with = match &job {
            Job::Answer { peer, .. } | Job::Absorb { peer, .. } => Some(*peer),
            _ => None,
        };
        let before = merged_with.map(|_| live.worker.replica().params().to_vec());
        // Training that broke down falls back in any job: that is no merge.
        let before = before.filter(|params| first_non_finite(params).is_none());
        let Some(done) = live.worker.submit(id, job) else { return };
        if let (Some(peer), Some(before)) = (merged_with, before) {
            self.book(peer, &before, &done);
        }
        self.push(now, Happening::JobDone(id, done));
    }

    fn boundary(&mut self, now: Time) {
        let step = self.step_time();
        let Some(live) = &mut self.live else { return };
        let mut results = Vec::new();
        if let Some((begun, taken, steps)) = &mut live.training {
            let due = now.since(*begun).as_nanos() / step.as_nanos().max(1);
            while u128::from(*taken) < due && *taken < *steps {
                *taken += 1;
                results.extend(live.worker.advance());
            }
            if *taken >= *steps {
                live.training = None;
            }
        }
        let mailbox = core::mem::take(&mut live.mailbox);
        for (id, done) in results {
            if !(self.sabotages(Sabotage::Stall) && self.index == 0) {
                self.push(now, Happening::JobDone(id, done));
            }
        }
        for (id, job) in mailbox {
            self.forge(&job);
            self.submit(now, id, job);
        }
    }

    pub(super) fn finished(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.node.phase() == Phase::Done)
    }

    pub(super) fn is_live(&self) -> bool {
        self.live.is_some()
    }

    pub(super) fn age(&self) -> Option<f64> {
        self.live.as_ref().map(|live| live.node.standing().age)
    }

    pub(super) fn params(&self) -> Option<&[f32]> {
        self.live.as_ref().map(|live| live.worker.replica().params())
    }

    pub(super) fn accuracy(&mut self, test: &Shard, rows: Option<usize>) -> Option<f64> {
        let live = self.live.as_mut().filter(|_| self.attacker.is_none());
        live.map(|live| live.worker.evaluate(test, rows).accuracy())
    }

    /// What peers scored its model at, and how far from the others it believes to be.
    pub(super) fn estimates(&self) -> (Option<f64>, Option<f64>) {
        let node = self.live.as_ref().map(|live| &live.node);
        (node.and_then(Node::cross_accuracy), node.and_then(Node::consensus))
    }

    pub(super) fn victim(&self) -> Option<(usize, Victim)> {
        let live = self.live.as_ref()?;
        let model = live.worker.replica().params().to_vec();
        Some((self.index, Victim { model, threshold: live.node.threshold() }))
    }

    /// Bytes of its newest checkpoint.
    pub(super) fn saved_bytes(&self) -> usize {
        self.saved.as_ref().map_or(0, Vec::len)
    }

    pub(super) fn totals(&self) -> Totals {
        let Some(live) = &self.live else { return Totals { bans: self.bans, ..self.before } };
        let (before, now) = (self.before, live.node.counters());
        Totals {
            rounds: before.rounds + now.rounds,
            payload: before.payload + now.payload_sent_bytes,
            wire: before.wire + now.sent_bytes,
            messages: before.messages + now.messages_sent,
            accepted: before.accepted + now.accepted,
            rejected: before.rejected + now.rejected,
            failed: before.failed + now.failed,
            bans: self.bans,
        }
    }

    pub(super) fn trace(&self) -> [u8; 32] {
        *self.trace.finalize().as_bytes()
    }
}
