//! How long exchanges take, and so how long to wait for one.

use core::time::Duration;
use std::collections::VecDeque;

use crate::limits::{
    EXCHANGE_TIMEOUT_FIRST, EXCHANGE_TIMEOUT_MAX, EXCHANGE_TIMEOUT_MIN, LATENCIES_MAX,
};

/// A partner's step is waited for if it takes at most so many of our own: a tarpit may claim
/// anything, and a slow device is still a partner.
const SLOWER_MAX: u32 = 6;

/// Durations of recent exchanges: whole, and without the step that the partner had to finish.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    recent: VecDeque<(Duration, Duration)>,
    /// What an earlier boot found usual.
    before: Option<Duration>,
}

impl Latency {
    /// Goes on from what an earlier boot found [`Latency::usual`].
    #[must_use]
    pub fn resumed(before: Option<Duration>) -> Self {
        Self { recent: VecDeque::new(), before }
    }

    /// Remembers one completed exchange with a partner whose local step takes `partner_step`.
    pub fn observe(&mut self, duration: Duration, partner_step: Duration) {
        if self.recent.len() == LATENCIES_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((duration, duration.saturating_sub(partner_step)));
    }

    /// Median duration, if any exchange was timed.
    #[must_use]
    pub fn median(&self) -> Option<Duration> {
        quantile(self.recent.iter().map(|(whole, _)| *whole), 0.5)
    }

    /// What an exchange takes at most as a rule, apart from the partner's step: the ninetieth
    /// percentile.
    #[must_use]
    pub fn usual(&self) -> Option<Duration> {
        quantile(self.recent.iter().map(|(_, rest)| *rest), 0.9).or(self.before)
    }

    /// How long to wait for a partner whose local step takes `partner_step`, where ours takes
    /// `own_step`: it answers at its next step boundary. Four times what is usual, within bounds,
    /// and the step.
    #[must_use]
    pub fn timeout(&self, partner_step: Duration, own_step: Duration) -> Duration {
        let rest = self.usual().map_or(EXCHANGE_TIMEOUT_FIRST, |usual| usual * 4);
        let step = partner_step.min(rest.max(own_step.saturating_mul(SLOWER_MAX)));
        let rest = rest.clamp(EXCHANGE_TIMEOUT_MIN, EXCHANGE_TIMEOUT_MAX);
        rest.saturating_add(step).min(EXCHANGE_TIMEOUT_MAX)
    }
}

fn quantile(durations: impl Iterator<Item = Duration>, share: f64) -> Option<Duration> {
    let mut sorted: Vec<Duration> = durations.collect();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn waits_four_times_the_slow_tail_and_a_step_within_bounds() {
        let mut latency = Latency::default();
        assert_eq!(latency.timeout(Duration::ZERO, MS), EXCHANGE_TIMEOUT_FIRST);
        for ms in 1..=10 {
            latency.observe(MS * (ms * 10 + 5), MS * 5);
        }
        assert_eq!(latency.timeout(Duration::ZERO, MS), MS * 360);
        assert_eq!(latency.timeout(MS * 50, MS), MS * 410);
        assert_eq!(latency.timeout(Duration::from_secs(60), MS), MS * 720);
        assert_eq!(latency.timeout(Duration::from_secs(60), MS * 100), MS * 960);
        assert_eq!(latency.median(), Some(MS * 65));
        for _ in 0..LATENCIES_MAX {
            latency.observe(Duration::from_secs(10), Duration::ZERO);
        }
        assert_eq!(latency.timeout(Duration::ZERO, MS), EXCHANGE_TIMEOUT_MAX);
        for _ in 0..LATENCIES_MAX {
            latency.observe(Duration::from_micros(5), Duration::ZERO);
        }
        assert_eq!(latency.timeout(Duration::ZERO, MS), EXCHANGE_TIMEOUT_MIN);
        assert_eq!(latency.median(), Some(Duration::from_micros(5)));
    }

    #[test]
    fn a_restart_remembers_what_was_usual() {
        let mut latency = Latency::resumed(Some(MS * 30));
        assert_eq!(latency.timeout(Duration::ZERO, MS), MS * 120);
        latency.observe(MS * 50, Duration::ZERO);
        assert_eq!(latency.usual(), Some(MS * 50));
    }
}
