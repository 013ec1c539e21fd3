//! Pair references: the mid-point of the last exchange with each partner, held at both ends, so
//! that the next one need only send the small difference to it.

use std::collections::BTreeMap;

use starling_learning::params::digest64;
use starling_protocol::id::NodeId;

/// Most references held, whatever their size.
const REFERENCES_MAX: usize = 32;

#[derive(Clone, Debug)]
struct Reference {
    values: Vec<f32>,
    hash: u64,
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
    /// As many as fit `bytes_max`, at four bytes for each of `count` parameters.
    pub(crate) fn new(bytes_max: usize, count: usize) -> Self {
        let capacity = (bytes_max / (4 * count.max(1))).min(REFERENCES_MAX);
        Self { held: BTreeMap::new(), capacity, clock: 0 }
    }

    /// The reference with `peer` and its hash.
    pub(crate) fn get(&self, peer: NodeId) -> Option<(&[f32], u64)> {
        self.held.get(&peer).map(|reference| (reference.values.as_slice(), reference.hash))
    }

    /// Remembers the mid-point of two decoded models. Both ends compute the same bits: addition
    /// commutes.
    pub(crate) fn remember(&mut self, peer: NodeId, a: &[f32], b: &[f32]) {
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
        let mut values = self.held.remove(&peer).map(|old| old.values).unwrap_or_default();
        values.clear();
        values.extend(a.iter().zip(b).map(|(a, b)| (a + b) * 0.5));
        let hash = digest64(&values);
        self.held.insert(peer, Reference { values, hash, used: self.clock });
    }

    pub(crate) fn forget(&mut self, peer: NodeId) {
        self.held.remove(&peer);
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
        ours.remember(peer(1), &[0.1, 0.2], &[0.3, 0.7]);
        theirs.remember(peer(1), &[0.3, 0.7], &[0.1, 0.2]);
        assert_eq!(ours.get(peer(1)), theirs.get(peer(1)));
        for index in 2..=4 {
            ours.remember(peer(index), &[0.0; 2], &[0.0; 2]);
        }
        assert_eq!(ours.held.len(), 3);
        assert_eq!(ours.get(peer(1)), None);
        ours.forget(peer(4));
        assert_eq!(ours.get(peer(4)), None);
        let mut none = References::new(7, 2);
        none.remember(peer(1), &[0.0; 2], &[0.0; 2]);
        assert_eq!(none.get(peer(1)), None);
    }
}
