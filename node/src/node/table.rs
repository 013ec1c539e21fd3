//! One founder in an open network, with peers that the test plays.

use core::time::Duration;
use std::collections::BTreeSet;
use std::sync::Arc;

use starling_learning::compress::{Codec, Codecs};
use starling_learning::data::Shard;
use starling_learning::data::digits::digits;
use starling_learning::model::ModelSpec;
use starling_protocol::envelope::{Address, Verified};
use starling_protocol::id::{Keypair, NodeId};
use starling_protocol::message::{self, Hello, Kind, Message};
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
        let spec = NetworkSpec {
            version: 1,
            name: "table".into(),
            genesis_seed: 1,
            codecs: Codec::ALL.to_vec(),
            membership: Membership::Open,
            root: key.id(),
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
        self.step(Input::LinkUp(peer));
        let hello = Hello {
            version_min: version::MIN,
            version_max: version::MAX,
            codecs: Codecs::ALL.bits(),
            standing: message::Standing { answers, ..message::Standing::default() },
            chain: Vec::new(),
            addresses: vec!["/ip4/192.0.2.1/tcp/4001".into()],
        };
        self.say(peer, Message::Hello(hello));
    }

    pub(super) fn say(&mut self, sender: NodeId, message: Message) {
        self.sequence += 1;
        let (recipient, sequence) = (self.node.id(), self.sequence);
        let address = Address { sender, recipient, epoch: 1, sequence, recipient_epoch: 0 };
        self.step(Input::Received(Verified { address, frame: message.into() }));
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
