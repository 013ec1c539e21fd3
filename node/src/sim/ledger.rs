//! The ledger of merges: what an exchange moves one node by, it moves the other by in the opposite
//! direction, so that equal weights keep the mean of the pair. Both ends of every exchange between
//! honest nodes are held against each other.

use std::collections::BTreeMap;

/// Entries waiting for the other end, for each node: its reply may have been lost.
const WAITING_PER_NODE: usize = 32;
/// Moves smaller than this share of the difference drown in rounding.
const MOVED_MIN: f64 = 1e-3;
/// What rounding to f32 may add to a projection, by the length of the model.
const ROUNDING: f64 = 1e-5;
/// And what it may change of it.
const RELATIVE: f64 = 1e-3;

/// One end of a merge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move {
    /// Both nodes, the lower first, and the bits of the distance of their models on the wire, which
    /// both ends find alike.
    pub(super) pair: (usize, usize, u64),
    /// Whose end this is.
    pub(super) node: usize,
    /// Share of the difference that the model moved by.
    pub(super) moved: f64,
    /// The move, projected on a fixed direction.
    pub(super) projection: f64,
    /// Length of the model.
    pub(super) length: f64,
}

impl Move {
    /// The move from `before` to `after`.
    pub(super) fn of(
        (node, other): (usize, usize),
        distance: f64,
        moved: f64,
        before: &[f32],
        after: &[f32],
    ) -> Self {
        let pair = (node.min(other), node.max(other), distance.to_bits());
        let (mut projection, mut square) = (0.0, 0.0);
        for (index, (before, after)) in before.iter().zip(after).enumerate() {
            // A sign for each coordinate that no model knows: the top bit of a multiplicative hash.
            let up = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 63 == 0;
            let step = f64::from(*after) - f64::from(*before);
            projection += if up { step } else { -step };
            square += f64::from(*after) * f64::from(*after);
        }
        Self { pair, node, moved, projection, length: square.sqrt() }
    }

    /// Whether this and the `other` end are opposite.
    fn opposes(&self, other: &Self) -> bool {
        let least = self.moved.min(other.moved);
        let (own, theirs) = (self.projection / self.moved, other.projection / other.moved);
        let rounding = ROUNDING * self.length.max(other.length) / least;
        (own + theirs).abs() <= rounding + RELATIVE * own.abs().max(theirs.abs())
    }
}

/// Merges whose other end has not been seen yet.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    waiting: BTreeMap<(usize, usize, u64), (u64, Move)>,
    clock: u64,
    /// Pairs held against each other.
    pub(super) checked: u64,
}

impl Ledger {
    /// Books one end; what is wrong with it if the other is known and does not oppose it.
    pub(super) fn book(&mut self, entry: Move, nodes: usize) -> Option<String> {
        if entry.moved < MOVED_MIN {
            return None;
        }
        self.clock += 1;
        // A reply may be lost and the same asked again: the same end twice is no pair.
        let known = self.waiting.remove(&entry.pair);
        let Some((_, other)) = known.filter(|(_, other)| other.node != entry.node) else {
            self.waiting.insert(entry.pair, (self.clock, entry));
            if self.waiting.len() > WAITING_PER_NODE * nodes {
                let oldest = self.waiting.iter().min_by_key(|(_, (clock, _))| *clock);
                let oldest = oldest.map(|(pair, _)| *pair);
                oldest.and_then(|pair| self.waiting.remove(&pair));
            }
            return None;
        };
        self.checked += 1;
        let (a, b, _) = entry.pair;
        let kept = entry.opposes(&other);
        (!kept).then(|| format!("nodes {a} and {b}: an exchange did not keep the mean of the pair"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(shift: f32) -> [Move; 2] {
        let (a, b): (Vec<f32>, Vec<f32>) =
            (0..500).map(|index| ((index % 7) as f32, (index % 5) as f32)).unzip();
        let to = |from: &[f32], other: &[f32], share: f32| -> Vec<f32> {
            from.iter().zip(other).map(|(from, to)| from + share * (to - from)).collect()
        };
        let (after_a, mut after_b) = (to(&a, &b, 0.5), to(&b, &a, 0.3));
        after_b[3] += shift;
        [Move::of((0, 1), 7.0, 0.5, &a, &after_a), Move::of((1, 0), 7.0, 0.3, &b, &after_b)]
    }

    #[test]
    fn opposite_moves_pass_and_others_are_named() {
        for (shift, wrong) in [(0.0, false), (1.0, true)] {
            let mut ledger = Ledger::default();
            let found = ends(shift).map(|end| ledger.book(end, 2));
            assert_eq!(found[0], None);
            assert_eq!((found[1].is_some(), ledger.checked), (wrong, 1), "{found:?}");
        }
    }

    #[test]
    fn ends_without_another_are_forgotten() {
        let mut ledger = Ledger::default();
        for hash in 0..1000 {
            let pair = (0, 1, hash);
            let entry = Move { pair, node: 0, moved: 0.5, projection: 1.0, length: 1.0 };
            assert_eq!(ledger.book(entry, 2), None);
            assert_eq!(ledger.book(entry, 2), None, "the same end twice");
        }
        assert_eq!(ledger.waiting.len(), 2 * WAITING_PER_NODE);
    }
}
