//! Pair references: the mid-point of the last exchange with each partner, held at both ends, so
//! that the next one need only send the small difference to it. Rounded to bf16, which halves the
//! memory: nothing depends on where exactly the mid-point is, as long as both ends agree.

use std::collections::BTreeMap;

use half::bf16;
use starling_learning::params::digest64;
use starling_protocol::id::NodeId;

/// Most references held, whatever their size. A node in a large network knows ten others and is
/// known to about as many; one more or less is 2 % of the model bytes against 2 % of the memory.
const REFERENCES_MAX: usize = 21;
/// Bytes a parameter.
const BYTES: usize = size_of::<bf16>();

#[derive(Clone, Debug)]
struct MidPoint {
    values: Vec<bf16>,
    hash: u64,
}

impl MidPoint {
    fn of(values: Vec<bf16>) -> Self {
        Self { hash: digest64(&wide(&values)), values }
    }

    fn between(a: &[f32], b: &[f32]) -> Self {
        // A peer may send values whose sum, or whose rounding, is infinite.
        let (least, most) = (bf16::MIN.to_f32(), bf16::MAX.to_f32());
        let middle = a.iter().zip(b).map(|(a, b)| ((a + b) * 0.5).clamp(least, most));
        Self::of(middle.map(bf16::from_f32).collect())
    }
}

fn wide(values: &[bf16]) -> Vec<f32> {
    values.iter().map(|value| value.to_f32()).collect()
}

#[derive(Clone, Debug)]
struct Reference {
    newest: MidPoint,
    /// What the newest came from: if the reply that made it was lost, the partner still names this.
    before: Option<MidPoint>,
    used: u64,
}

/// The references of one node, the least recently used forgotten first.
#[derive(Clone, Debug)]
pub(crate) struct References {
    held: BTreeMap<NodeId, Reference>,
    capacity: usize,
    clock: u64,
}

impl References {
    /// As many as fit `bytes_max`, at two vectors of `count` parameters each.
    pub(crate) fn new(bytes_max: usize, count: usize) -> Self {
        let capacity = (bytes_max / (2 * BYTES * count.max(1))).min(REFERENCES_MAX);
        Self { held: BTreeMap::new(), capacity, clock: 0 }
    }

    /// Bytes held, and the most that will be.
    pub(crate) fn bytes(&self, count: usize) -> (usize, usize) {
        let vectors = self.held.values().map(|held| 1 + usize::from(held.before.is_some()));
        (vectors.sum::<usize>() * BYTES * count, self.capacity * 2 * BYTES * count)
    }

    /// The newest reference with `peer` and its hash.
    pub(crate) fn newest(&self, peer: NodeId) -> Option<(Vec<f32>, u64)> {
        self.held.get(&peer).map(|held| (wide(&held.newest.values), held.newest.hash))
    }

    /// The hash of the newest reference with `peer`.
    pub(crate) fn newest_hash(&self, peer: NodeId) -> Option<u64> {
        self.held.get(&peer).map(|held| held.newest.hash)
    }

    /// The reference with `peer` that has this hash, if it is one of the last two.
    pub(crate) fn find(&self, peer: NodeId, hash: u64) -> Option<Vec<f32>> {
        let held = self.held.get(&peer)?;
        let mut both = core::iter::once(&held.newest).chain(&held.before);
        both.find(|point| point.hash == hash).map(|point| wide(&point.values))
    }

    /// Remembers the mid-point of two decoded models. Both ends compute the same bits: addition
    /// commutes. `base` is what the exchange was relative to: it is kept beside, for the partner
    /// names it again if the reply is lost.
    pub(crate) fn remember(&mut self, peer: NodeId, base: Option<u64>, a: &[f32], b: &[f32]) {
        if self.capacity == 0 {
            return;
        }
        self.clock += 1;
        if self.held.len() >= self.capacity && !self.held.contains_key(&peer) {
            let oldest = self.held.iter().min_by_key(|(_, reference)| reference.used);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                self.held.remove(&oldest);
            }
        }
        let old = self.held.remove(&peer);
        let both = old.into_iter().flat_map(|old| core::iter::once(old.newest).chain(old.before));
        let before = both.into_iter().find(|point| Some(point.hash) == base);
        let newest = MidPoint::between(a, b);
        let reference = Reference { newest, before, used: self.clock };
        self.held.insert(peer, reference);
    }

    /// The newest with each partner, the most recently used first: for a checkpoint.
    pub(crate) fn recent(&self) -> Vec<(NodeId, &[bf16])> {
        let mut all: Vec<(&NodeId, &Reference)> = self.held.iter().collect();
        all.sort_by_key(|(_, reference)| core::cmp::Reverse(reference.used));
        all.into_iter().map(|(peer, held)| (*peer, held.newest.values.as_slice())).collect()
    }

    /// Takes back what a checkpoint held, the most recently used first.
    pub(crate) fn restore(&mut self, recent: Vec<(NodeId, Vec<bf16>)>) {
        for (peer, values) in recent.into_iter().take(self.capacity).rev() {
            self.clock += 1;
            let newest = MidPoint::of(values);
            let reference = Reference { newest, before: None, used: self.clock };
            self.held.insert(peer, reference);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_hold_the_same_bits_and_only_so_many() {
        let (mut ours, mut theirs) = (References::new(24, 2), References::new(24, 2));
        let peer = |index| NodeId([index; 32]);
        ours.remember(peer(1), None, &[0.1, 0.2], &[0.3, 0.7]);
        theirs.remember(peer(1), None, &[0.3, 0.7], &[0.1, 0.2]);
        assert_eq!(ours.newest(peer(1)), theirs.newest(peer(1)));
        for index in 2..=4 {
            ours.remember(peer(index), None, &[0.0; 2], &[0.0; 2]);
        }
        assert_eq!(ours.held.len(), 3);
        assert_eq!(ours.bytes(2), (12, 24));
        assert_eq!(ours.newest(peer(1)), None);
        let mut none = References::new(7, 2);
        none.remember(peer(1), None, &[0.0; 2], &[0.0; 2]);
        assert_eq!(none.newest(peer(1)), None);
    }

    #[test]
    fn no_reference_is_infinite() {
        let (mut held, peer) = (References::new(1000, 2), NodeId([1; 32]));
        held.remember(peer, None, &[f32::MAX, f32::MIN], &[f32::MAX, f32::MIN]);
        let (values, _) = held.newest(peer).expect("held");
        assert!(values.iter().all(|value| value.is_finite()), "{values:?}");
    }

    #[test]
    fn what_the_partner_may_still_name_is_found() {
        let (mut held, peer) = (References::new(1000, 1), NodeId([1; 32]));
        let mut hashes = Vec::new();
        // The replies that made 2 and 3 are lost: the partner names 1 each time.
        for (value, base) in [(1.0, None), (2.0, Some(0)), (3.0, Some(0)), (4.0, Some(2))] {
            let base = base.and_then(|index: usize| hashes.get(index).copied());
            held.remember(peer, base, &[value], &[value]);
            hashes.extend(held.newest(peer).map(|(_, hash)| hash));
        }
        let found: Vec<_> = hashes.iter().map(|hash| held.find(peer, *hash)).collect();
        assert_eq!(found, [None, None, Some(vec![3.0]), Some(vec![4.0])]);
    }

    #[test]
    fn a_checkpoint_brings_back_the_newest_of_each() {
        let mut held = References::new(1000, 1);
        for (id, value) in [(1, 1.0), (2, 2.0), (1, 3.0)] {
            held.remember(NodeId([id; 32]), None, &[value], &[value]);
        }
        let saved: Vec<_> = held.recent().into_iter().map(|(id, v)| (id, v.to_vec())).collect();
        let one = |value| vec![bf16::from_f32(value)];
        assert_eq!(saved, [(NodeId([1; 32]), one(3.0)), (NodeId([2; 32]), one(2.0))]);
        let mut back = References::new(1000, 1);
        back.restore(saved);
        assert_eq!(back.newest(NodeId([1; 32])), held.newest(NodeId([1; 32])));
        assert_eq!(back.recent(), held.recent());
    }
}
