//! Room for models on their way in: those that are being read, and those that wait for the driver.
//! It is measured in bytes, so that it bounds memory and still takes many models if they are small.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Largest models that find room at a time.
const MODELS_MIN: usize = 4;
/// Room for smaller ones.
const BYTES_MIN: usize = 64 * 1024 * 1024;
/// What one permit stands for: their number is 32 bits wide, and a model may be larger than that.
const UNIT: usize = 1024;

/// Shared by all readers.
#[derive(Clone, Debug)]
pub(super) struct Room {
    units: Arc<Semaphore>,
    most: usize,
}

/// Part of the room, free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _units: OwnedSemaphorePermit,
}

impl Room {
    /// For models of at most so many bytes.
    pub(super) fn new(model_bytes_max: usize) -> Self {
        let most = model_bytes_max.saturating_mul(MODELS_MIN).max(BYTES_MIN) / UNIT;
        let most = most.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize);
        Self { units: Arc::new(Semaphore::new(most)), most }
    }

    /// Waits for room for so many bytes. Who came first is served first.
    pub(super) async fn take(&self, bytes: usize) -> Option<Place> {
        let units = u32::try_from(bytes.div_ceil(UNIT).min(self.most)).ok()?;
        let units = Arc::clone(&self.units).acquire_many_owned(units).await;
        Some(Place { _units: units.ok()? })
    }

    /// Bytes taken, and how many can be.
    pub(super) fn used(&self) -> (usize, usize) {
        let free = self.units.available_permits();
        (self.most.saturating_sub(free) * UNIT, self.most * UNIT)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn small_models_are_many_and_large_ones_few() {
        let mut places = Vec::new();
        let room = Room::new(MIB);
        while let Some(place) = room.take(MIB).now_or_never() {
            places.push(place.expect("open"));
        }
        assert_eq!((places.len(), room.used()), (64, (64 * MIB, 64 * MIB)));
        places.pop();
        assert!(room.take(MIB + 1).now_or_never().is_none(), "not that much");
        assert!(room.take(1).now_or_never().is_some());

        let room = Room::new(100 * MIB);
        let four: Vec<_> = (0..4).map(|_| room.take(100 * MIB).now_or_never()).collect();
        assert!(four.iter().all(Option::is_some));
        assert!(room.take(1).now_or_never().is_none());
        drop(four);
        assert_eq!(room.used(), (0, 400 * MIB));
    }
}
