//! Pair references: the mid-point of the last exchange with each partner, held at both ends, so
//! that the next one need only send the small difference to it.

use std::collections::BTreeMap;

use starling_learning::params::digest64;
use starling_protocol::id::NodeId;

/// Most references held, whatever their size.
const REFERENCES_MAX: usize = 32;

#[derive(Clone, Debug)]
struct Reference {
    newest: (Vec<f32>, u64),
    /// What the newest came from: if the reply that made it was lost, the partner still names this.
    before: Option<(Vec<f32>, u64)>,
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
        let capacity = (bytes_max / (8 * count.max(1))).min(REFERENCES_MAX);
        Self { held: BTreeMap::new(), capacity, clock: 0 }
    }

    /// Bytes held, and the most that will be.
    pub(crate) fn bytes(&self, count: usize) -> (usize, usize) {
        let vectors = self.held.values().map(|held| 1 + usize::from(held.before.is_some()));
        (vectors.sum::<usize>() * 4 * count, self.capacity * 8 * count)
    }

    /// The newest reference with `peer` and its hash.
    pub(crate) fn newest(&self, peer: NodeId) -> Option<(&[f32], u64)> {
        self.held.get(&peer).map(|held| (held.newest.0.as_slice(), held.newest.1))
    }

    /// The reference with `peer` that has this hash, if it is one of the last two.
    pub(crate) fn find(&self, peer: NodeId, hash: u64) -> Option<&[f32]> {
        let held = self.held.get(&peer)?;
        let both = core::iter::once(&held.newest).chain(&held.before);
        both.into_iter().find(|(_, own)| *own == hash).map(|(values, _)| values.as_slice())
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
        let before = both.into_iter().find(|(_, hash)| Some(*hash) == base);
        let values: Vec<f32> = a.iter().zip(b).map(|(a, b)| (a + b) * 0.5).collect();
        let hash = digest64(&values);
        let reference = Reference { newest: (values, hash), before, used: self.clock };
        self.held.insert(peer, reference);
    }

    /// The newest with each partner, the most recently used first: for a checkpoint.
    pub(crate) fn recent(&self) -> Vec<(NodeId, &[f32])> {
        let mut all: Vec<(&NodeId, &Reference)> = self.held.iter().collect();
        all.sort_by_key(|(_, reference)| core::cmp::Reverse(reference.used));
        all.into_iter().map(|(peer, held)| (*peer, held.newest.0.as_slice())).collect()
    }

    /// Takes back what a checkpoint held, the most recently used first.
    pub(crate) fn restore(&mut self, recent: Vec<(NodeId, Vec<f32>)>) {
        for (peer, values) in recent.into_iter().take(self.capacity).rev() {
            self.clock += 1;
            let hash = digest64(&values);
            let reference = Reference { newest: (values, hash), before: None, used: self.clock };
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
        let (mut ours, mut theirs) = (References::new(48, 2), References::new(48, 2));
        let peer = |index| NodeId([index; 32]);
        ours.remember(peer(1), None, &[0.1, 0.2], &[0.3, 0.7]);
        theirs.remember(peer(1), None, &[0.3, 0.7], &[0.1, 0.2]);
        assert_eq!(ours.newest(peer(1)), theirs.newest(peer(1)));
        for index in 2..=4 {
            ours.remember(peer(index), None, &[0.0; 2], &[0.0; 2]);
        }
        assert_eq!(ours.held.len(), 3);
        assert_eq!(ours.bytes(2), (24, 48));
        assert_eq!(ours.newest(peer(1)), None);
        let mut none = References::new(15, 2);
        none.remember(peer(1), None, &[0.0; 2], &[0.0; 2]);
        assert_eq!(none.newest(peer(1)), None);
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
        assert_eq!(found, [None, None, Some(&[3.0][..]), Some(&[4.0][..])]);
    }

    #[test]
    fn a_checkpoint_brings_back_the_newest_of_each() {
        let mut held = References::new(1000, 1);
        for (id, value) in [(1, 1.0), (2, 2.0), (1, 3.0)] {
            held.remember(NodeId([id; 32]), None, &[value], &[value]);
        }
        let saved: Vec<_> = held.recent().into_iter().map(|(id, v)| (id, v.to_vec())).collect();
        assert_eq!(saved, [(NodeId([1; 32]), vec![3.0]), (NodeId([2; 32]), vec![2.0])]);
        let mut back = References::new(1000, 1);
        back.restore(saved);
        assert_eq!(back.newest(NodeId([1; 32])), held.newest(NodeId([1; 32])));
        assert_eq!(back.recent(), held.recent());
    }
}
