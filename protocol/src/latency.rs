//! How long exchanges take, and so how long to wait for one.

use core::time::Duration;
use std::collections::VecDeque;

use crate::limits::{
    EXCHANGE_TIMEOUT_FIRST, EXCHANGE_TIMEOUT_MAX, EXCHANGE_TIMEOUT_MIN, LATENCIES_MAX,
};

/// A partner's step is waited for if it takes at most so many of our own: a tarpit may claim
/// anything, and a slow device is still a partner.
const SLOWER_MAX: u32 = 6;

/// See [`Latency::usual`].
const MEDIANS_MAX: u32 = 4;

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
    /// percentile, but no more than four medians, or a few partners that answer just in time would
    /// raise it each time.
    #[must_use]
    pub fn usual(&self) -> Option<Duration> {
        let rest = || self.recent.iter().map(|(_, rest)| *rest);
        let slow = quantile(rest(), 0.9).zip(quantile(rest(), 0.5));
        slow.map(|(slow, median)| slow.min(median * MEDIANS_MAX)).or(self.before)
    }

    /// Whether an exchange of this duration, with a partner whose local step takes `partner_step`,
    /// took more than twice what is usual.
    #[must_use]
    pub fn is_unusual(&self, duration: Duration, partner_step: Duration) -> bool {
        let usual = self.usual().unwrap_or(EXCHANGE_TIMEOUT_FIRST).max(EXCHANGE_TIMEOUT_MIN);
        duration.saturating_sub(partner_step) > usual * 2
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
    fn partners_that_answer_just_in_time_do_not_raise_the_time_out() {
        let mut latency = Latency::default();
        for round in 0..1000 {
            // Every third one takes nine tenths of what we are ready to wait.
            let just_in_time = latency.timeout(Duration::ZERO, MS).mul_f64(0.9);
            let took = if round % 3 == 0 { just_in_time } else { MS * 20 };
            let late = took > MS * 20;
            assert_eq!(latency.is_unusual(took, Duration::ZERO), late && round > 0, "{round}");
            latency.observe(took, Duration::ZERO);
        }
        assert_eq!(latency.timeout(Duration::ZERO, MS), MS * 320);
    }

    #[test]
    fn a_restart_remembers_what_was_usual() {
        let mut latency = Latency::resumed(Some(MS * 30));
        assert_eq!(latency.timeout(Duration::ZERO, MS), MS * 120);
        latency.observe(MS * 50, Duration::ZERO);
        assert_eq!(latency.usual(), Some(MS * 50));
    }
}
