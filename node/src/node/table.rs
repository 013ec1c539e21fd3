//! One node in an open network, its founder if nothing else is said, with peers that the test
//! plays.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use starling_learning::compress::{Codec, Codecs};
use starling_learning::data::Shard;
use starling_learning::data::digits::digits;
use starling_learning::model::ModelSpec;
use starling_protocol::envelope::{Address, Frame, Verified};
use starling_protocol::id::{Keypair, NodeId};
use starling_protocol::message::{
    self, ExchangeOutcome, ExchangeReply, ExchangeRequest, Hello, Kind, Message, SnapshotReply,
};
use starling_protocol::time::Time;
use starling_protocol::version;

use super::{Identity, Input, Node, Output};
use crate::replica::Replica;
use crate::settings::Settings;
use crate::spec::{FeatureSpec, Membership, NetworkSpec, TrainingSpec};
use crate::worker::Worker;

pub(super) const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Table {
    pub(super) node: Node,
    worker: Worker,
    pub(super) now: Time,
    sequence: u64,
    /// All that the node wanted but the jobs, which are done at once.
    pub(super) outputs: Vec<Output>,
}

impl Table {
    pub(super) fn new(banned: BTreeSet<NodeId>) -> Self {
        Self::with(banned, Settings::default())
    }

    /// A founder with these settings and a round a second.
    pub(super) fn with(banned: BTreeSet<NodeId>, settings: Settings) -> Self {
        let key = Keypair::from_seed(&[1; 32]);
        Self::seated(key.id(), key, banned, settings)
    }

    /// A newcomer to the network that `root` founded, paused so that it stays where it begins.
    pub(super) fn newcomer(root: NodeId) -> Self {
        let key = Keypair::from_seed(&[1; 32]);
        let mut table = Self::seated(root, key, BTreeSet::new(), Settings::default());
        table.step(Input::Pause);
        table
    }

    fn seated(root: NodeId, key: Keypair, banned: BTreeSet<NodeId>, settings: Settings) -> Self {
        let spec = NetworkSpec {
            version: 1,
            name: "table".into(),
            genesis_seed: 1,
            codecs: Codec::ALL.to_vec(),
            membership: Membership::Open,
            root,
            model: ModelSpec { features: 64, hidden: vec![8], classes: 10 },
            training: TrainingSpec { rate: 0.1, momentum: 0.0, batch: 8, age_max: None },
            features: FeatureSpec::default(),
        };
        let network = spec.check().expect("in bounds");
        let (train, _) = digits().expect("embedded");
        let shard = Shard::new(Arc::new(train), (0..100).collect()).expect("in range");
        let settings = Settings { round_period: SECOND, ..settings };
        let worker = Worker::new(Replica::new(&network, &shard, &settings, 7));
        let (chain, contacts) = (Vec::new(), Vec::new());
        let identity = Identity { key, epoch: 1, chain, contacts, resumed: None, banned };
        let node = Node::new(network, settings, identity);
        let mut table = Self { node, worker, now: Time::ZERO, sequence: 0, outputs: Vec::new() };
        table.step(Input::Start);
        table
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for output in self.node.step(self.now, input) {
                let Output::Compute(id, job) = output else {
                    self.outputs.push(output);
                    continue;
                };
                let mut done = self.worker.submit(id, job);
                while done.is_none() && self.worker.is_training() {
                    done = self.worker.advance().map(|(_, done)| done);
                }
                inputs.push(Input::JobDone(id, done.expect("every job ends")));
            }
        }
    }

    /// Ticks through `span` in steps of a tenth of a second.
    pub(super) fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + SECOND / 10;
            self.step(Input::Tick);
        }
    }

    pub(super) fn link(&mut self, peer: NodeId) {
        self.link_as(peer, true);
    }

    pub(super) fn link_as(&mut self, peer: NodeId, answers: bool) {
        self.greet(peer, |hello| hello.standing.answers = answers);
    }

    /// Links a peer whose Hello differs from that of a member that answers.
    pub(super) fn greet(&mut self, peer: NodeId, change: impl FnOnce(&mut Hello)) {
        self.step(Input::LinkUp(peer));
        let mut hello = Hello {
            version_min: version::MIN,
            version_max: version::MAX,
            codecs: Codecs::ALL.bits(),
            standing: message::Standing { answers: true, ..message::Standing::default() },
            chain: Vec::new(),
            addresses: vec!["/ip4/192.0.2.1/tcp/4001".into()],
        };
        change(&mut hello);
        self.say(peer, Message::Hello(hello));
    }

    pub(super) fn say(&mut self, sender: NodeId, message: Message) {
        self.say_with(sender, message, Vec::new());
    }

    pub(super) fn say_with(&mut self, sender: NodeId, message: Message, slab: Vec<u8>) {
        self.sequence += 1;
        let (recipient, sequence) = (self.node.id(), self.sequence);
        let address = Address { sender, recipient, epoch: 1, sequence, recipient_epoch: 0 };
        self.step(Input::Received(Verified { address, frame: Frame { message, slab } }));
    }

    /// `peer` asks for an exchange with this model, whole; what it is told at once, if anything.
    pub(super) fn ask(&mut self, peer: NodeId, age: f64, model: &[f32]) -> Option<ExchangeOutcome> {
        self.ask_in(peer, age, Codec::Fp32, None, model)
    }

    /// The same with `values` in `codec`, relative to the reference `base` if there is one.
    pub(super) fn ask_in(
        &mut self,
        peer: NodeId,
        age: f64,
        codec: Codec,
        base: Option<u64>,
        values: &[f32],
    ) -> Option<ExchangeOutcome> {
        self.sequence += 1;
        let exchange = self.sequence;
        let request = ExchangeRequest { exchange, age, codec: codec as u8, base };
        self.say_with(peer, Message::ExchangeRequest(request), encoded(codec, values));
        let to_peer = |address: &Address, frame: &Frame| {
            let asked = |reply: &ExchangeReply| reply.exchange == exchange;
            address.recipient == peer
                && matches!(&frame.message, Message::ExchangeReply(reply) if asked(reply))
        };
        match self.take(to_peer)?.1.message {
            Message::ExchangeReply(reply) => Some(reply.outcome),
            _ => None,
        }
    }

    /// Whom the node asks for an exchange next, and how, within a minute.
    pub(super) fn asked(&mut self) -> (NodeId, ExchangeRequest) {
        let end = self.now + 60 * SECOND;
        loop {
            if let Some(asked) = self.asks() {
                return asked;
            }
            assert!(self.now < end, "nobody is asked within a minute");
            self.pass(SECOND / 10);
        }
    }

    /// Whom it asked and was not yet told of, if anybody.
    pub(super) fn asks(&mut self) -> Option<(NodeId, ExchangeRequest)> {
        match self.take(|_, frame| frame.message.kind() == Kind::ExchangeRequest)? {
            (peer, Frame { message: Message::ExchangeRequest(request), .. }) => {
                Some((peer, request))
            }
            _ => None,
        }
    }

    /// Answers an exchange of the node's with a model that differs by `offset` in each parameter
    /// from the one that it sent.
    pub(super) fn give(&mut self, peer: NodeId, exchange: u64, age: f64, offset: f32) {
        let slab = encoded(Codec::Fp32, &vec![offset; self.model().len()]);
        let outcome = ExchangeOutcome::Model { age, codec: Codec::Fp32 as u8 };
        self.say_with(peer, Message::ExchangeReply(ExchangeReply { exchange, outcome }), slab);
    }

    /// Answers it without a model.
    pub(super) fn decline(&mut self, peer: NodeId, exchange: u64, outcome: ExchangeOutcome) {
        self.say(peer, Message::ExchangeReply(ExchangeReply { exchange, outcome }));
    }

    /// Answers a request for a snapshot with a model of `value` in each parameter, or without one.
    pub(super) fn snapshot(&mut self, peer: NodeId, given: Option<(f64, f32)>) {
        let slab = given.map(|(_, value)| encoded(Codec::Fp32, &vec![value; self.model().len()]));
        let reply = SnapshotReply { age: given.map(|(age, _)| age), codec: Codec::Fp32 as u8 };
        self.say_with(peer, Message::SnapshotReply(reply), slab.unwrap_or_default());
    }

    /// The node's working parameters.
    pub(super) fn model(&self) -> &[f32] {
        self.worker.replica().params()
    }

    /// The hash of the newest pair reference with a peer.
    pub(super) fn reference(&self, peer: NodeId) -> Option<u64> {
        self.worker.replica().reference_hash(peer)
    }

    /// Takes the first frame out of the outputs that fits, with its recipient.
    pub(super) fn take(
        &mut self,
        fits: impl Fn(&Address, &Frame) -> bool,
    ) -> Option<(NodeId, Frame)> {
        let fits = |output: &Output| matches!(output, Output::Send(to, frame) if fits(to, frame));
        let index = self.outputs.iter().position(fits)?;
        match self.outputs.remove(index) {
            Output::Send(address, frame) => Some((address.recipient, frame)),
            _ => None,
        }
    }

    /// Recipients of all frames of this kind, which are taken out of the outputs.
    pub(super) fn recipients(&mut self, kind: Kind) -> Vec<NodeId> {
        let taken = core::iter::from_fn(|| self.take(|_, frame| frame.message.kind() == kind));
        taken.map(|(peer, _)| peer).collect()
    }

    pub(super) fn sent(&mut self, kind: Kind) -> usize {
        let outputs = core::mem::take(&mut self.outputs);
        let of_kind = |output: &&Output| match output {
            Output::Send(_, frame) => frame.message.kind() == kind,
            _ => false,
        };
        outputs.iter().filter(of_kind).count()
    }

    pub(super) fn events(&self, name: &str) -> usize {
        let named =
            |output: &&Output| matches!(output, Output::Event(event) if event.entry().name == name);
        self.outputs.iter().filter(named).count()
    }

    pub(super) fn saves(&self) -> usize {
        self.outputs.iter().filter(|output| matches!(output, Output::Save { .. })).count()
    }
}

pub(super) fn peer(index: u8) -> NodeId {
    Keypair::from_seed(&[index; 32]).id()
}

/// What a peer sends for these values.
pub(super) fn encoded(codec: Codec, values: &[f32]) -> Vec<u8> {
    let (mut values, mut slab) = (values.to_vec(), Vec::new());
    codec.encode(&mut values, &mut slab).expect("finite");
    slab
}
