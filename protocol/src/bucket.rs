//! Token buckets: how often a peer may ask.

/// Tokens that refill as the owner's rounds (or seconds) go by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    tokens: f64,
    capacity: f64,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn full(capacity: f64) -> Self {
        Self { tokens: capacity, capacity }
    }

    /// Adds `tokens`, up to the capacity.
    pub fn refill(&mut self, tokens: f64) {
        self.tokens = (self.tokens + tokens).min(self.capacity);
    }

    /// Takes one token if there is one.
    #[must_use]
    pub fn take(&mut self) -> bool {
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Takes as many of the `wanted` tokens as there are.
    #[must_use]
    pub fn take_up_to(&mut self, wanted: f64) -> f64 {
        let taken = wanted.clamp(0.0, self.tokens);
        self.tokens -= taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::full(2.0);
        assert_eq!([bucket.take(), bucket.take(), bucket.take()], [true, true, false]);
        bucket.refill(0.5);
        assert!(!bucket.take());
        bucket.refill(0.5);
        assert!(bucket.take());
        bucket.refill(100.0);
        assert_eq!([bucket.take(), bucket.take(), bucket.take()], [true, true, false]);
    }

    #[test]
    fn gives_a_part_where_less_is_there() {
        let mut bucket = Bucket::full(2.0);
        assert_eq!(
            [1.5, -1.0, 1.5, 1.5].map(|wanted| bucket.take_up_to(wanted)),
            [1.5, 0.0, 0.5, 0.0]
        );
    }
}
