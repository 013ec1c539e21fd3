//! How long exchanges take, and so how long to wait for one.

use core::time::Duration;
use std::collections::VecDeque;

use crate::limits::{
    EXCHANGE_TIMEOUT_FIRST, EXCHANGE_TIMEOUT_MAX, EXCHANGE_TIMEOUT_MIN, LATENCIES_MAX,
};

/// Durations of recent exchanges.
#[derive(Clone, Debug, Default)]
pub struct Latency(VecDeque<Duration>);

impl Latency {
    /// Remembers one completed exchange.
    pub fn observe(&mut self, duration: Duration) {
        if self.0.len() == LATENCIES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(duration);
    }

    fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted: Vec<Duration> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        sorted.get((last as f64 * share).round() as usize).copied()
    }

    /// Median duration, if any exchange was timed.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        self.quantile(0.5)
    }

    /// How long to wait for a partner whose local step takes `partner_step`: it answers at its next
    /// step boundary. Four times the ninetieth percentile, within bounds.
    #[must_use]
    pub fn timeout(&self, partner_step: Duration) -> Duration {
        let usual = self.quantile(0.9).map_or(EXCHANGE_TIMEOUT_FIRST, |slow| slow * 4);
        // What a partner claims of its step at most doubles the wait: a tarpit may claim anything.
        let step = partner_step.min(usual);
        usual.saturating_add(step).clamp(EXCHANGE_TIMEOUT_MIN, EXCHANGE_TIMEOUT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_four_times_the_slow_tail_within_bounds() {
        let mut latency = Latency::default();
        assert_eq!(latency.timeout(Duration::ZERO), EXCHANGE_TIMEOUT_FIRST);
        for ms in 1..=10 {
            latency.observe(Duration::from_millis(ms * 10));
        }
        assert_eq!(latency.timeout(Duration::ZERO), Duration::from_millis(360));
        assert_eq!(latency.timeout(Duration::from_secs(60)), Duration::from_millis(720));
        for _ in 0..LATENCIES_MAX {
            latency.observe(Duration::from_secs(10));
        }
        assert_eq!(latency.timeout(Duration::ZERO), EXCHANGE_TIMEOUT_MAX);
        for _ in 0..LATENCIES_MAX {
            latency.observe(Duration::from_micros(5));
        }
        assert_eq!(latency.timeout(Duration::ZERO), EXCHANGE_TIMEOUT_MIN);
        assert_eq!(latency.median(), Some(Duration::from_micros(5)));
    }
}
