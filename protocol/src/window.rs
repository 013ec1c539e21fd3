//! Which frames of a sender were already taken: the (boot epoch, sequence) window.
//!
//! A sender counts its boots durably and its frames within a boot. An older boot, an older frame
//! than the window reaches, and a frame taken before are replays. The shape is the sliding window
//! of RFC 6479.

use crate::fault::Rejection;
use crate::limits::WINDOW_BITS;

const WORDS: usize = (WINDOW_BITS / 64) as usize;

/// One sender's window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayWindow {
    epoch: u64,
    newest: u64,
    taken: [u64; WORDS],
}

impl ReplayWindow {
    /// Takes the frame (`epoch`, `sequence`) once.
    ///
    /// # Errors
    /// [`Rejection::Replay`] if it was taken before or lies behind the window.
    pub fn take(&mut self, epoch: u64, sequence: u64) -> Result<(), Rejection> {
        if epoch < self.epoch || sequence == 0 {
            return Err(Rejection::Replay);
        }
        if epoch > self.epoch {
            *self = Self { epoch, ..Self::default() };
        }
        if sequence > self.newest {
            let gap = sequence - self.newest;
            if gap >= WINDOW_BITS {
                self.taken = [0; WORDS];
            } else {
                for passed in self.newest + 1..sequence {
                    self.clear(passed);
                }
            }
            self.newest = sequence;
            self.clear(sequence);
        } else if self.newest - sequence >= WINDOW_BITS || self.is_taken(sequence) {
            return Err(Rejection::Replay);
        }
        let (word, bit) = Self::place(sequence);
        self.taken[word] |= bit;
        Ok(())
    }

    fn place(sequence: u64) -> (usize, u64) {
        let index = sequence % WINDOW_BITS;
        ((index / 64) as usize, 1 << (index % 64))
    }

    fn is_taken(&self, sequence: u64) -> bool {
        let (word, bit) = Self::place(sequence);
        self.taken[word] & bit != 0
    }

    fn clear(&mut self, sequence: u64) {
        let (word, bit) = Self::place(sequence);
        self.taken[word] &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_older_boot_is_a_replay_and_a_newer_one_starts_afresh() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.take(3, 7), Ok(()));
        assert_eq!(window.take(3, 7), Err(Rejection::Replay));
        assert_eq!(window.take(2, 9), Err(Rejection::Replay));
        assert_eq!(window.take(4, 1), Ok(()));
        assert_eq!(window.take(3, 8), Err(Rejection::Replay));
        assert_eq!(window.take(4, 0), Err(Rejection::Replay));
        assert_eq!(window.take(4, u64::MAX), Ok(()));
        assert_eq!(window.take(4, u64::MAX), Err(Rejection::Replay));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set_of_everything_taken(
            sequences in proptest::collection::vec(1_u64..4000, 1..400),
        ) {
            let (mut window, mut taken, mut newest) = (ReplayWindow::default(), BTreeSet::new(), 0);
            for sequence in sequences {
                let behind = newest >= WINDOW_BITS && sequence <= newest - WINDOW_BITS;
                let expected = !behind && taken.insert(sequence);
                prop_assert_eq!(window.take(0, sequence).is_ok(), expected);
                newest = newest.max(sequence);
            }
        }
    }
}
