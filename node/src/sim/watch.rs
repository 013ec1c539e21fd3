//! What must hold in every simulated run, whatever befalls it.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use starling_protocol::envelope::Verified;

use crate::jobs::Encoded;

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

/// Models of one peer that came and were not used yet: few wait, but who floods sends many that
/// are never looked at.
const UNUSED_MAX: usize = 64;
/// Bytes of a model that tell it from others.
const TELLING: usize = 512;

/// The watch over one node.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    /// The newest frame of each peer: boot and sequence.
    newest: BTreeMap<usize, (u64, u64)>,
    /// Digests of the models that distinct frames brought, less those that were merged or turned
    /// down.
    unused: BTreeMap<usize, VecDeque<u64>>,
    events: u64,
    inputs: u64,
    found: Vec<String>,
}

fn digest(slab: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    slab.len().hash(&mut hasher);
    slab.get(..TELLING).unwrap_or(slab).hash(&mut hasher);
    hasher.finish()
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
        self.newest.clear();
        self.unused.clear();
    }

    pub(super) fn input(&mut self) {
        self.inputs += 1;
    }

    pub(super) fn event(&mut self) {
        self.events += 1;
    }

    /// A frame arrives. Connections keep the order, so one that is not newer is a copy.
    pub(super) fn delivered(&mut self, peer: usize, frame: &Verified) {
        let newest = self.newest.entry(peer).or_default();
        let name = (frame.address.epoch, frame.address.sequence);
        if name <= *newest {
            return;
        }
        *newest = name;
        if !frame.frame.slab.is_empty() {
            let unused = self.unused.entry(peer).or_default();
            unused.push_back(digest(&frame.frame.slab));
            if unused.len() > UNUSED_MAX {
                unused.pop_front();
            }
        }
    }

    /// The newest model of `peer` was turned down as it came.
    pub(super) fn turned_down(&mut self, peer: usize) {
        if let Some(unused) = self.unused.get_mut(&peer) {
            unused.pop_back();
        }
    }

    /// Takes `model`, which one of the peers that `fit` must have sent, off the unused ones.
    fn uses(&mut self, model: &Encoded, fit: impl Fn(usize) -> bool) -> bool {
        let digest = digest(&model.slab);
        let found = self.unused.iter_mut().filter(|(peer, _)| fit(**peer)).any(|(_, unused)| {
            let place = unused.iter().position(|own| *own == digest);
            place.and_then(|place| unused.remove(place)).is_some()
        });
        // What the watch holds is told as memory of the node.
        self.unused.retain(|_, unused| !unused.is_empty());
        found
    }

    /// Whole models are about to be mixed or adopted: all of them new, and of members.
    pub(super) fn mixing(&mut self, models: &[Encoded], member: impl Fn(usize) -> bool) {
        if !models.iter().all(|model| self.uses(model, &member)) {
            self.violated("mixed a whole model twice, or one of no member");
        }
    }

    /// A model of `peer` is about to be merged: it must be a linked member, and the model new.
    pub(super) fn merging(&mut self, peer: usize, linked: bool, stranger: bool, model: &Encoded) {
        if !linked {
            self.violated(format!("merged a model of node {peer}, which is not linked"));
        }
        if stranger {
            self.violated(format!("merged a model of node {peer}, which is no member"));
        }
        if !self.uses(model, |of| of == peer) {
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
    use starling_learning::compress::Codec;
    use starling_protocol::envelope::{Address, Frame};
    use starling_protocol::id::NodeId;
    use starling_protocol::message::{ExchangeRequest, Message};

    use super::*;

    fn request(sequence: u64, slab: u8) -> Verified {
        let (sender, recipient) = (NodeId([1; 32]), NodeId([2; 32]));
        let address = Address { sender, recipient, epoch: 1, sequence, recipient_epoch: 1 };
        let request = ExchangeRequest { exchange: 1, age: 0.0, codec: 2, base: None };
        let message = Message::ExchangeRequest(request);
        Verified::in_process(address, Frame { message, slab: vec![slab] }).expect("well formed")
    }

    fn model(slab: u8) -> Encoded {
        Encoded { codec: Codec::Int8, base: None, slab: vec![slab] }
    }

    #[test]
    fn a_copy_that_is_merged_is_found_though_another_was_turned_down() {
        let mut watch = Watch::default();
        for (sequence, slab) in [(4, 9), (5, 1), (5, 1)] {
            watch.delivered(3, &request(sequence, slab));
        }
        watch.merging(3, true, false, &model(1));
        assert_eq!(watch.found(), [""; 0]);
        watch.merging(3, true, false, &model(1));
        assert_eq!(watch.found(), ["merged a model of node 3 twice"]);
    }

    #[test]
    fn a_whole_model_is_mixed_once_and_of_a_member_only() {
        let mut watch = Watch::default();
        (1..=3).for_each(|index| watch.delivered(index, &request(1, index as u8)));
        watch.mixing(&[model(1), model(2)], |peer| peer != 3);
        assert_eq!(watch.found(), [""; 0]);
        watch.mixing(&[model(3)], |peer| peer != 3);
        watch.mixing(&[model(1)], |_| true);
        assert_eq!(watch.found(), ["mixed a whole model twice, or one of no member"; 2]);
    }

    #[test]
    fn a_stranger_and_a_chatterer_are_found() {
        let mut watch = Watch::default();
        watch.delivered(3, &request(1, 1));
        watch.merging(3, false, false, &model(1));
        (0..600).for_each(|_| watch.event());
        watch.check_bounds(10, 1, Duration::from_secs(1));
        let expected = [
            "merged a model of node 3, which is not linked",
            "wrote 600 events where 560 are allowed",
        ];
        assert_eq!(watch.found(), expected);
    }
}
