//! What must hold in every simulated run, whatever befalls it.

use core::time::Duration;
use std::collections::BTreeMap;

use starling_protocol::envelope::Verified;
use starling_protocol::message::{ExchangeOutcome, Message};

use crate::jobs::Job;

/// Violations remembered of one node: the first tells most.
const VIOLATIONS_MAX: usize = 4;
/// Events of one node: so many for each of its rounds, for each virtual second, and for each boot.
const EVENTS_PER_ROUND: u64 = 4;
const EVENTS_PER_SECOND: f64 = 20.0;
const EVENTS_PER_BOOT: u64 = 500;
/// Inputs of one node, likewise: frames, ticks and finished jobs.
const INPUTS_PER_ROUND: u64 = 60;
const INPUTS_PER_SECOND: f64 = 200.0;
const INPUTS_PER_BOOT: u64 = 2000;

/// Models that a peer's distinct frames brought, less those that were handed on to be merged.
#[derive(Clone, Copy, Debug, Default)]
struct Unused {
    newest: (u64, u64),
    requests: u64,
    replies: u64,
}

/// The watch over one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    peers: BTreeMap<usize, Unused>,
    /// Whole models that distinct frames brought, less those handed on to be mixed or adopted.
    snapshots: u64,
    events: u64,
    inputs: u64,
    found: Vec<String>,
}

impl Watch {
    pub(super) fn found(&self) -> &[String] {
        &self.found
    }

    pub(super) fn violated(&mut self, what: impl Into<String>) {
        if self.found.len() < VIOLATIONS_MAX {
            self.found.push(what.into());
        }
    }

    /// What a dead boot left over can never be used.
    pub(super) fn crashed(&mut self) {
        self.peers.clear();
        self.snapshots = 0;
    }

    pub(super) fn input(&mut self) {
        self.inputs += 1;
    }

    pub(super) fn event(&mut self) {
        self.events += 1;
    }

    /// A frame arrives. Connections keep the order, so one that is not newer is a copy.
    pub(super) fn delivered(&mut self, peer: usize, frame: &Verified) {
        let unused = self.peers.entry(peer).or_default();
        let name = (frame.address.epoch, frame.address.sequence);
        if name <= unused.newest {
            return;
        }
        unused.newest = name;
        match &frame.frame.message {
            // One exchange of a peer is open at a time; that before may still wait for its turn.
            Message::ExchangeRequest(_) => unused.requests = (unused.requests + 1).min(2),
            Message::ExchangeReply(reply)
                if matches!(reply.outcome, ExchangeOutcome::Model { .. }) =>
            {
                // A later one is to a later request of ours.
                unused.replies = 1;
            }
            Message::SnapshotReply(reply) if reply.age.is_some() => self.snapshots += 1,
            _ => {}
        }
    }

    /// So many whole models are about to be mixed or adopted: all of them new.
    pub(super) fn mixing(&mut self, models: usize) {
        if models as u64 > self.snapshots {
            self.violated("mixed a whole model twice");
        }
        self.snapshots = self.snapshots.saturating_sub(models as u64);
    }

    /// A model of `peer` is about to be merged: it must be a linked member, and the model new.
    pub(super) fn merging(&mut self, peer: usize, linked: bool, stranger: bool, job: &Job) {
        let unused = self.peers.entry(peer).or_default();
        let left = match job {
            Job::Answer { .. } => &mut unused.requests,
            Job::Absorb { .. } => &mut unused.replies,
            _ => return,
        };
        let fresh = *left > 0;
        *left = left.saturating_sub(1);
        if !linked {
            self.violated(format!("merged a model of node {peer}, which is not linked"));
        }
        if stranger {
            self.violated(format!("merged a model of node {peer}, which is no member"));
        }
        if !fresh {
            self.violated(format!("merged a model of node {peer} twice"));
        }
    }

    /// Whether it said or did more than a node may, after so long.
    pub(super) fn check_bounds(&mut self, rounds: u64, boots: u64, time: Duration) {
        let allowed = INPUTS_PER_ROUND * rounds
            + INPUTS_PER_BOOT * boots
            + (INPUTS_PER_SECOND * time.as_secs_f64()) as u64;
        if self.inputs > allowed {
            let inputs = self.inputs;
            self.violated(format!("took {inputs} inputs where {allowed} are allowed"));
        }
        let allowed = EVENTS_PER_ROUND * rounds
            + EVENTS_PER_BOOT * boots
            + (EVENTS_PER_SECOND * time.as_secs_f64()) as u64;
        if self.events > allowed {
            let events = self.events;
            self.violated(format!("wrote {events} events where {allowed} are allowed"));
        }
    }
}

#[cfg(test)]
mod tests {
    use starling_learning::compress::{Codec, Codecs};
    use starling_protocol::envelope::{Address, Frame};
    use starling_protocol::id::NodeId;
    use starling_protocol::message::ExchangeRequest;

    use super::*;
    use crate::jobs::Encoded;

    fn request(sequence: u64) -> Verified {
        let (sender, recipient) = (NodeId([1; 32]), NodeId([2; 32]));
        let address = Address { sender, recipient, epoch: 1, sequence, recipient_epoch: 1 };
        let request = ExchangeRequest { exchange: 1, age: 0.0, codec: 2, base: None };
        let message = Message::ExchangeRequest(request);
        Verified::in_process(address, Frame { message, slab: vec![1] }).expect("well formed")
    }

    fn answer() -> Job {
        let request = Encoded { codec: Codec::Int8, base: None, slab: vec![1] };
        Job::Answer {
            peer: NodeId([1; 32]),
            request,
            terms: None,
            score: false,
            codecs: Codecs::ALL,
        }
    }

    #[test]
    fn a_copy_that_is_merged_is_found() {
        let mut watch = Watch::default();
        for sequence in [5, 5] {
            watch.delivered(3, &request(sequence));
        }
        watch.merging(3, true, false, &answer());
        assert_eq!(watch.found(), [""; 0]);
        watch.merging(3, true, false, &answer());
        assert_eq!(watch.found(), ["merged a model of node 3 twice"]);
    }

    #[test]
    fn a_stranger_and_a_chatterer_are_found() {
        let mut watch = Watch::default();
        watch.delivered(3, &request(1));
        watch.merging(3, false, false, &answer());
        (0..600).for_each(|_| watch.event());
        watch.check_bounds(10, 1, Duration::from_secs(1));
        let expected = [
            "merged a model of node 3, which is not linked",
            "wrote 600 events where 560 are allowed",
        ];
        assert_eq!(watch.found(), expected);
    }
}
