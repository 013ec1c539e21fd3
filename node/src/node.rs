//! The state machine of one node: inputs in, outputs out, at a time that is an argument.
//!
//! Phases: `Join` (find members, take over their model), `Train`, `Done` (age reached: serve and
//! answer), `Leaving`. A round is train, encode, wait for the partner, absorb, finish, pause; while
//! the partner is awaited nobody else is answered, so that one exchange is applied at a time.

mod answers;
mod conduct;
mod counters;
mod disclosed;
mod joining;
mod links;
mod neighbours;
mod operator;
mod pulling;
mod rounds;
mod standing;
#[cfg(test)]
mod table;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use starling_protocol::admission::Certificate;
use starling_protocol::envelope::{Address, Frame, Verified};
use starling_protocol::fault::Rejection;
use starling_protocol::gate::{Ages, Distances};
use starling_protocol::id::{Keypair, NodeId};
use starling_protocol::latency::Latency;
use starling_protocol::limits::{
    BANS_MAX, CANDIDATES_MAX, CANDIDATES_PER_MEMBER, CROSS_SCORES_MAX, JOBS_PENDING_MAX,
    LINKS_PER_MEMBER, SCORES_MAX, TICKETS_COUNTED_MAX,
};
use starling_protocol::message::{CrossScore, Hint};
use starling_protocol::score::Scores;
use starling_protocol::time::Time;
use starling_protocol::view::View;

pub use self::counters::{Counters, Durations};
pub use self::disclosed::{Disclosed, Sent};
pub use self::operator::{Peer, Tuning};
pub use self::standing::{Standing, StandingError};

use crate::event::Event;
use crate::jobs::{Done, Encoded, Job};
use crate::settings::Settings;
use crate::spec::Network;
use crate::worker::JobId;

use self::conduct::Conducts;
use self::links::Link;
use self::rounds::Stage;

/// What a node that has no rounds of its own any more takes for one at least.
const ROUND_TIME_MIN: Duration = Duration::from_millis(10);

/// What happens to a node.
#[derive(Debug)]
pub enum Input {
    /// The process is up and its state is loaded.
    Start,
    /// The time that [`Node::next_wakeup`] named has come.
    Tick,
    /// We listen at these addresses.
    Listening(Vec<String>),
    /// Someone may be there.
    Discovered(Hint),
    /// A connection to this node exists.
    LinkUp(NodeId),
    /// No connection to this node exists any more.
    LinkDown(NodeId),
    /// A frame passed the border.
    Received(Verified),
    /// A frame of this node did not, and its stream has ended.
    Refused(NodeId, Rejection),
    /// A job is done.
    JobDone(JobId, Done),
    /// Unix time, for dates of tickets only.
    WallClock(u64),
    /// The checkpoint of the last [`Output::Save`] is on disk, or could not be put there.
    Saved(bool),
    /// Put a checkpoint on disk now.
    Save,
    /// No training and no drawing from the end of this round on; others are answered.
    Pause,
    /// The end of a pause.
    Resume,
    /// Nothing to do with this node until [`Input::Unban`].
    Ban(NodeId),
    /// The end of any ban of this node.
    Unban(NodeId),
    /// The operator changed what may change while a node runs.
    Tune(Tuning),
    /// Save, say goodbye, stop.
    Leave,
}

/// What a node wants done.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Sign and send.
    Send(Address, Frame),
    /// A linked node is a member: it may send models from now on.
    Admitted(NodeId),
    /// Connect to a node at one of its addresses.
    Dial(Hint),
    /// Close all connections to a node after what was sent.
    Disconnect(NodeId),
    /// Hand a job to the owner of the weights.
    Compute(JobId, Job),
    /// Put a checkpoint on disk.
    Save {
        /// Its bytes.
        bytes: Vec<u8>,
        /// Age of its model.
        age: f64,
        /// Round it was taken in.
        round: u64,
    },
    /// Tell the operator.
    Event(Event),
    /// The last checkpoint was asked for and goodbye was said: the process may end.
    Left,
}

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Finds members and takes over their model.
    Join,
    /// Trains and exchanges.
    Train,
    /// Serves and answers; learning has ended.
    Done,
    /// Saves and stops.
    Leaving,
}

impl Phase {
    /// For people and scripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Train => "train",
            Self::Done => "done",
            Self::Leaving => "leaving",
        }
    }
}

/// Who a node is and where it begins.
#[derive(Debug)]
pub struct Identity {
    /// Its key.
    pub key: Keypair,
    /// How often it was started, this time included.
    pub epoch: u64,
    /// Its way from the root; empty for the root.
    pub chain: Vec<Certificate>,
    /// Members to dial.
    pub contacts: Vec<Hint>,
    /// What a checkpoint said, if there was one.
    pub resumed: Option<Standing>,
    /// Whom the operator banned.
    pub banned: BTreeSet<NodeId>,
}

#[derive(Debug)]
enum Pending {
    Round,
    Answer { peer: NodeId, exchange: u64, age: f64, weight: f64, crossing: bool },
    Snapshot { peer: NodeId },
    Adopt { age: f64 },
    Checkpoint { age: f64, round: u64 },
}

/// One node.
#[derive(Debug)]
pub struct Node {
    key: Keypair,
    me: NodeId,
    epoch: u64,
    chain: Vec<Certificate>,
    network: Network,
    settings: Settings,
    rng: ChaCha8Rng,
    now: Time,
    unix: u64,
    phase: Phase,
    stage: Stage,
    standing: Standing,
    resumed: bool,
    addresses: Vec<String>,
    view: View,
    links: BTreeMap<NodeId, Link>,
    conducts: Conducts,
    /// Own rounds, by which peers earn the right to ask. Where there are none any more, time goes
    /// on for them at the pace that they had.
    token_rounds: f64,
    tokens_at: Time,
    scores: Scores,
    latency: Latency,
    distances: Distances,
    ages: Ages,
    /// Newest score of each peer, and our round when it came.
    cross: BTreeMap<NodeId, (CrossScore, u64)>,
    counters: Counters,
    joining: joining::Joining,
    pending: BTreeMap<JobId, Pending>,
    next_job: u64,
    sequence: u64,
    next_exchange: u64,
    next_beat: Time,
    beats: u64,
    /// Our pace as all links were last told.
    step_told_ns: u64,
    next_checkpoint: Time,
    /// A checkpoint is under way, and whether another is wanted after it.
    saving: bool,
    save_again: bool,
    admissions: Vec<links::Admission>,
    /// Banned by the operator, at most [`BANS_MAX`]; bans for misbehaviour are in the scores.
    banned: BTreeSet<NodeId>,
    paused: bool,
    disclosed: Disclosed,
    outputs: Vec<Output>,
}

impl Node {
    /// A node that has not started.
    #[must_use]
    pub fn new(network: Network, settings: Settings, identity: Identity) -> Self {
        let Identity { key, epoch, chain, contacts, resumed, banned } = identity;
        // Restarts must not repeat draws, and nodes of one seed must not draw alike.
        let me = key.id();
        let seed = [&me.0[..], &settings.seed.to_le_bytes(), &epoch.to_le_bytes()].concat();
        let mut rng = ChaCha8Rng::from_seed(*blake3::hash(&seed).as_bytes());
        let mut view = View::of(settings.view_max);
        let met = resumed.iter().flat_map(|standing| &standing.peers);
        met.filter(|hint| hint.id != me).for_each(|hint| view.reached(hint, &mut rng));
        let given = contacts.iter().filter(|hint| hint.id != me);
        given.for_each(|hint| view.learn(hint, true, &mut rng));
        let usual = resumed.as_ref().map(|standing| standing.exchange_ns).filter(|ns| *ns > 0);
        Self {
            me,
            key,
            epoch,
            chain,
            network,
            settings,
            rng,
            now: Time::ZERO,
            unix: 0,
            phase: Phase::Join,
            stage: Stage::Idle,
            // A checkpoint of a node that never learnt or met anyone says no more than none.
            resumed: resumed.as_ref().is_some_and(|standing| standing.met || standing.age > 0.0),
            latency: Latency::resumed(usual.map(Duration::from_nanos)),
            standing: resumed.unwrap_or_default(),
            addresses: Vec::new(),
            view,
            links: BTreeMap::new(),
            conducts: Conducts::default(),
            token_rounds: 0.0,
            tokens_at: Time::ZERO,
            scores: Scores::default(),
            distances: Distances::default(),
            ages: Ages::default(),
            cross: BTreeMap::new(),
            counters: Counters::default(),
            joining: joining::Joining::default(),
            pending: BTreeMap::new(),
            next_job: 1,
            sequence: 0,
            next_exchange: 1,
            next_beat: Time(u64::MAX),
            beats: 0,
            step_told_ns: 0,
            next_checkpoint: Time(u64::MAX),
            saving: false,
            save_again: false,
            admissions: Vec::new(),
            banned,
            paused: false,
            disclosed: Disclosed::default(),
            outputs: Vec::new(),
        }
    }

    /// Takes one input at `now`, which must not lie before that of the last call. The outputs are
    /// to be performed in order.
    pub fn step(&mut self, now: Time, input: Input) -> Vec<Output> {
        self.now = now;
        self.earn_tokens();
        match input {
            Input::Start => self.start(),
            Input::Tick => {}
            Input::Listening(addresses) => self.addresses = addresses,
            Input::Discovered(hint) => self.discovered(&hint),
            Input::LinkUp(peer) => self.link_up(peer),
            Input::LinkDown(peer) => self.link_down(peer, "connection closed"),
            Input::Received(frame) => self.received(frame),
            Input::Refused(peer, rejection) => self.refused(peer, rejection),
            Input::JobDone(id, done) => self.job_done(id, done),
            Input::WallClock(unix) => self.unix = unix,
            Input::Saved(durable) => self.saved(durable),
            Input::Save => self.checkpoint(),
            Input::Pause => self.pause(true),
            Input::Resume => self.pause(false),
            Input::Ban(peer) => self.ban(peer),
            Input::Unban(peer) => self.unban(peer),
            Input::Tune(tuning) => self.tune(tuning),
            Input::Leave => self.leave(),
        }
        self.run_timers();
        core::mem::take(&mut self.outputs)
    }

    /// When [`Input::Tick`] is due at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Time {
        let linked = |id| self.links.contains_key(&id);
        let mut next = self.next_beat.min(self.next_checkpoint);
        for time in [self.stage.wakeup(), self.joining.wakeup(), self.view.next_dial(linked)] {
            next = time.map_or(next, |time| next.min(time));
        }
        let waits = |id: &NodeId| self.admissions.iter().any(|admission| admission.peer == *id);
        let expected = self.links.iter().filter(|(id, _)| !waits(id));
        let hello = expected.filter_map(|(_, link)| link.hello_deadline()).min();
        hello.map_or(next, |time| next.min(time))
    }

    fn start(&mut self) {
        self.next_beat = self.now;
        self.next_checkpoint = self.now + self.settings.checkpoint_interval;
        let founder = self.me == self.network.spec.root && !self.standing.met;
        if self.finished() {
            self.phase = Phase::Done;
        } else if founder {
            self.phase = Phase::Train;
        }
        self.fill_view();
    }

    fn earn_tokens(&mut self) {
        let elapsed = self.now.since(self.tokens_at);
        self.tokens_at = self.now;
        if self.phase == Phase::Done || self.paused {
            let round = self.counters.round_time.max(ROUND_TIME_MIN);
            self.token_rounds += elapsed.as_secs_f64() / round.as_secs_f64();
        }
    }

    fn run_timers(&mut self) {
        if self.phase == Phase::Leaving {
            return;
        }
        self.drop_silent_links();
        if self.now >= self.next_beat {
            self.beat();
        }
        if self.now >= self.next_checkpoint {
            self.checkpoint();
        }
        self.dial();
        self.run_joining();
        self.run_round();
        self.note_isolation();
    }

    fn job_done(&mut self, id: JobId, done: Done) {
        match self.pending.remove(&id) {
            Some(Pending::Round) => self.round_job_done(done),
            Some(Pending::Answer { peer, exchange, age, weight, crossing }) => {
                self.answered(peer, exchange, (age, weight), done);
                if crossing {
                    self.exchange_over();
                }
            }
            Some(Pending::Snapshot { peer }) => self.snapshot_taken(peer, done),
            Some(Pending::Adopt { age }) => self.adopted(age, &done),
            Some(Pending::Checkpoint { age, round }) => {
                if let Done::Checkpoint(bytes) = done {
                    self.outputs.push(Output::Save { bytes, age, round });
                }
                let another = |job: &Pending| matches!(job, Pending::Checkpoint { .. });
                if self.phase == Phase::Leaving && !self.pending.values().any(another) {
                    self.outputs.push(Output::Left);
                }
            }
            None => {}
        }
    }

    fn compute(&mut self, job: Job, pending: Pending) {
        let id = JobId(self.next_job);
        self.next_job += 1;
        self.pending.insert(id, pending);
        self.outputs.push(Output::Compute(id, job));
    }

    fn checkpoint(&mut self) {
        self.next_checkpoint = self.now + self.settings.checkpoint_interval;
        if self.saving {
            self.save_again = true;
            return;
        }
        self.saving = true;
        self.save_again = false;
        self.admissions.iter_mut().for_each(|admission| admission.covered = true);
        let mut standing = self.standing.clone();
        standing.peers = self.view.met().take(CANDIDATES_MAX).collect();
        let usual = self.latency.usual().unwrap_or_default();
        standing.exchange_ns = u64::try_from(usual.as_nanos()).unwrap_or(u64::MAX);
        let (age, round) = (standing.age, standing.round);
        let job = Job::Checkpoint { standing: standing.encode() };
        self.compute(job, Pending::Checkpoint { age, round });
    }

    fn saved(&mut self, durable: bool) {
        self.saving = false;
        self.admit_saved(durable);
        if self.save_again && self.phase != Phase::Leaving {
            self.checkpoint();
        }
    }

    fn leave(&mut self) {
        if self.phase == Phase::Leaving {
            return;
        }
        self.phase = Phase::Leaving;
        self.stage = Stage::Idle;
        let peers: Vec<NodeId> = self.links.keys().copied().collect();
        for peer in peers {
            self.send(peer, starling_protocol::message::Message::Bye.into());
        }
        self.saving = false;
        self.checkpoint();
    }

    fn event(&mut self, event: Event) {
        self.outputs.push(Output::Event(event));
    }

    fn finished(&self) -> bool {
        self.network.spec.training.age_max.is_some_and(|age_max| self.standing.age >= age_max)
    }

    fn read_model(&self, codec: u8, base: Option<u64>, slab: Vec<u8>) -> Option<Encoded> {
        let codec = starling_learning::compress::Codec::from_byte(codec)?;
        let known = self.network.spec.codecs.contains(&codec);
        let fits = codec.may_be_len(slab.len(), self.network.model.len());
        (known && fits).then_some(Encoded { codec, base, slab })
    }

    /// Every table of ours that grows: its name, its size, and the bound that the size keeps.
    #[must_use]
    pub fn limits(&self) -> [(&'static str, usize, usize); 10] {
        let view = self.view.capacity();
        let links = LINKS_PER_MEMBER * view;
        [
            ("links", self.links.len(), links),
            ("view", self.view.members().count(), view),
            ("candidates", self.view.candidates_len(), CANDIDATES_PER_MEMBER * view),
            ("peers_remembered", self.conducts.len(), SCORES_MAX.max(links)),
            ("admissions", self.admissions.len(), links),
            ("jobs_pending", self.pending.len(), JOBS_PENDING_MAX),
            ("cross_scores", self.cross.len(), CROSS_SCORES_MAX),
            ("tickets_counted", self.standing.tickets.len(), TICKETS_COUNTED_MAX),
            ("bans", self.banned.len(), BANS_MAX),
            ("peers_sent_to", self.disclosed.peers.len(), SCORES_MAX),
        ]
    }

    /// The first of our tables that is larger than its bound, if any is.
    #[must_use]
    pub fn overflow(&self) -> Option<&'static str> {
        self.limits().into_iter().find(|(_, size, bound)| size > bound).map(|(name, ..)| name)
    }

    /// Ourselves.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.me
    }

    /// Where we are in life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Whether the owner of the weights owes us nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// What is saved of us.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Totals of this boot.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Linked members.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.links.values().filter(|link| link.admitted()).count()
    }

    /// Usual distance of models from their mean, by the length of ours.
    #[must_use]
    pub fn consensus(&self) -> Option<f64> {
        let norm = Some(self.counters.norm).filter(|norm| *norm > 0.0)?;
        self.distances.spread().map(|spread| spread / norm)
    }

    /// Accuracy of our model on the hold-out rows of the peers that scored it last, one score each:
    /// where peers know different classes, that of one must not count for two.
    #[must_use]
    pub fn cross_accuracy(&self) -> Option<f64> {
        let sums = self.cross.values().fold((0_u64, 0_u64), |(correct, total), (score, _)| {
            (correct + u64::from(score.correct), total + u64::from(score.total))
        });
        (sums.1 > 0).then(|| sums.0 as f64 / sums.1 as f64)
    }

    /// Learning rate of the next step.
    #[must_use]
    pub fn learning_rate(&self) -> f64 {
        self.network.schedule().rate_at(self.standing.age)
    }

    /// The usual duration of an exchange.
    #[must_use]
    pub fn exchange_time(&self) -> Duration {
        self.latency.median().unwrap_or_default()
    }
}
