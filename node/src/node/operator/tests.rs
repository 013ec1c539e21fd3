//! One founder in an open network, with peers that this file plays.

use std::collections::BTreeSet;
use std::sync::Arc;

use starling_learning::compress::Codec;
use starling_learning::data::Shard;
use starling_learning::data::digits::digits;
use starling_learning::model::ModelSpec;
use starling_protocol::envelope::{Address, Frame, Verified};
use starling_protocol::id::Keypair;
use starling_protocol::message::{self, Hello, Kind, Message};
use starling_protocol::time::Time;
use starling_protocol::version;

use super::*;
use crate::node::{Identity, Input, Output};
use crate::replica::Replica;
use crate::settings::Settings;
use crate::spec::{FeatureSpec, Membership, NetworkSpec, TrainingSpec};
use crate::worker::Worker;

const SECOND: Duration = Duration::from_secs(1);

struct Table {
    node: Node,
    worker: Worker,
    now: Time,
    sequence: u64,
    /// All that the node wanted but the jobs, which are done at once.
    outputs: Vec<Output>,
}

impl Table {
    fn new(banned: BTreeSet<NodeId>) -> Self {
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
        let settings = Settings { round_period: SECOND, ..Settings::default() };
        let worker = Worker::new(Replica::new(&network, &shard, &settings, 7));
        let (chain, contacts) = (Vec::new(), Vec::new());
        let identity = Identity { key, epoch: 1, chain, contacts, resumed: None, banned };
        let node = Node::new(network, settings, identity);
        let mut table = Self { node, worker, now: Time::ZERO, sequence: 0, outputs: Vec::new() };
        table.step(Input::Start);
        table
    }

    fn step(&mut self, input: Input) {
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
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now = self.now + SECOND / 10;
            self.step(Input::Tick);
        }
    }

    fn link(&mut self, peer: NodeId) {
        self.step(Input::LinkUp(peer));
        let hello = Hello {
            version_min: version::MIN,
            version_max: version::MAX,
            codecs: 0,
            standing: message::Standing { answers: true, ..message::Standing::default() },
            chain: Vec::new(),
            addresses: vec!["/ip4/192.0.2.1/tcp/4001".into()],
        };
        self.sequence += 1;
        let (recipient, sequence) = (self.node.id(), self.sequence);
        let address = Address { sender: peer, recipient, epoch: 1, sequence, recipient_epoch: 0 };
        let frame = Frame { message: Message::Hello(hello), slab: Vec::new() };
        self.step(Input::Received(Verified { address, frame }));
    }

    fn sent(&mut self, kind: Kind) -> usize {
        let outputs = core::mem::take(&mut self.outputs);
        let of_kind = |output: &&Output| match output {
            Output::Send(_, frame) => frame.message.kind() == kind,
            _ => false,
        };
        outputs.iter().filter(of_kind).count()
    }

    fn events(&self, name: &str) -> usize {
        let named =
            |output: &&Output| matches!(output, Output::Event(event) if event.entry().name == name);
        self.outputs.iter().filter(named).count()
    }

    fn saves(&self) -> usize {
        self.outputs.iter().filter(|output| matches!(output, Output::Save { .. })).count()
    }
}

fn peer(index: u8) -> NodeId {
    Keypair::from_seed(&[index; 32]).id()
}

#[test]
fn a_pause_ends_rounds_and_nothing_else() {
    let mut table = Table::new(BTreeSet::new());
    table.pass(3 * SECOND);
    let before = table.node.standing().round;
    assert!(before >= 2, "{before}");

    table.step(Input::Pause);
    table.step(Input::Pause);
    assert!(table.node.is_paused() && table.events("train.paused") == 1);
    table.link(peer(2));
    table.pass(20 * SECOND);
    assert_eq!(table.node.standing().round, before, "the round was over when the pause came");
    assert!(table.node.is_idle());
    assert!(table.node.next_wakeup() > table.now, "a pause costs no processor");
    assert_eq!(table.node.peers(), 1);
    assert!(table.sent(Kind::Beat) >= 2, "peers still hear of it");

    table.step(Input::Resume);
    table.pass(3 * SECOND);
    assert!(!table.node.is_paused());
    assert!(table.node.standing().round >= before + 2);
}

#[test]
fn a_ban_cuts_a_peer_off_until_it_is_ended() {
    let mut table = Table::new(BTreeSet::new());
    table.link(peer(2));
    table.link(peer(3));
    assert_eq!(table.node.peers(), 2);

    table.step(Input::Ban(peer(2)));
    assert_eq!(table.node.peers(), 1);
    assert_eq!(table.events("peer.banned"), 1);
    assert!(table.outputs.contains(&Output::Disconnect(peer(2))));
    assert_eq!(table.sent(Kind::Denied), 1);
    table.link(peer(2));
    assert_eq!(table.node.peers(), 1, "nor is it let in again");
    let rows = table.node.peer_rows();
    let banned: Vec<NodeId> = rows.iter().filter(|row| row.banned).map(|row| row.id).collect();
    assert_eq!(banned, [peer(2)]);
    table.pass(100 * SECOND);
    let dials = |output: &Output| matches!(output, Output::Dial(hint) if hint.id == peer(2));
    assert!(!table.outputs.iter().any(dials), "nor dialled");

    table.step(Input::Unban(peer(2)));
    table.step(Input::Unban(peer(2)));
    assert_eq!(table.events("peer.unbanned"), 1);
    table.link(peer(2));
    assert_eq!(table.node.peers(), 2);
}

#[test]
fn bans_outlive_a_restart_and_are_bounded() {
    let banned = BTreeSet::from([peer(2)]);
    let mut table = Table::new(banned);
    table.link(peer(2));
    assert_eq!(table.node.peers(), 0);
    assert_eq!(table.node.operator_bans().collect::<Vec<_>>(), [peer(2)]);
    table.step(Input::Ban(table.node.id()));
    for index in 0..2 * BANS_MAX as u64 {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&index.to_le_bytes());
        table.step(Input::Ban(NodeId(id)));
    }
    assert_eq!(table.node.operator_bans().count(), BANS_MAX);
    assert_eq!(table.node.overflow(), None);
}

#[test]
fn unban_also_ends_a_ban_for_misbehaviour() {
    let mut table = Table::new(BTreeSet::new());
    table.link(peer(2));
    table.step(Input::Refused(peer(2), starling_protocol::fault::Rejection::BadSignature));
    assert_eq!(table.node.peers(), 0);
    assert!(table.node.peer_rows().iter().any(|row| row.id == peer(2) && row.banned));
    table.step(Input::Unban(peer(2)));
    table.link(peer(2));
    assert_eq!(table.node.peers(), 1);
}

#[test]
fn a_checkpoint_is_taken_when_asked_and_again_if_one_was_under_way() {
    let mut table = Table::new(BTreeSet::new());
    table.step(Input::Save);
    assert_eq!(table.saves(), 1);
    table.step(Input::Save);
    assert_eq!(table.saves(), 1, "one at a time");
    table.step(Input::Saved(true));
    assert_eq!(table.saves(), 2);
}

#[test]
fn a_shorter_pace_holds_at_once() {
    let mut table = Table::new(BTreeSet::new());
    let slow = Tuning {
        round_period: 3600 * SECOND,
        checkpoint_interval: 3600 * SECOND,
        contacts: vec![Hint { id: peer(2), addresses: vec!["/ip4/192.0.2.1/tcp/1".into()] }],
    };
    table.step(Input::Tune(slow.clone()));
    let dials = |output: &Output| matches!(output, Output::Dial(hint) if hint.id == peer(2));
    assert!(table.outputs.iter().any(dials), "a new contact is dialled");
    table.pass(10 * SECOND);
    let before = table.node.standing().round;
    table.pass(10 * SECOND);
    assert_eq!(table.node.standing().round, before);
    assert_eq!(table.saves(), 0);

    let fast = Tuning { round_period: SECOND, checkpoint_interval: 2 * SECOND, ..slow };
    table.step(Input::Tune(fast));
    table.pass(5 * SECOND);
    assert!(table.node.standing().round >= before + 3);
    assert_eq!(table.saves(), 1, "the first is still under way");
}
