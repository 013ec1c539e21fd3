//! What systemd is told, if systemd started us.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// A save takes at most this long before the watchdog is left to bite: a gigabyte at the 10 MB/s
/// of a poor disk. Longer is a disk that hangs.
const SAVE_MAX: Duration = Duration::from_secs(120);

/// Readiness, status line and watchdog.
#[derive(Debug)]
pub struct Service {
    watchdog: Option<Watchdog>,
}

/// What the workers have to show for themselves. The loop shows that it lives by asking.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// Steps and jobs that the compute thread has done.
    pub progress: u64,
    /// Whether it has nothing to do.
    pub idle: bool,
    /// How long the save under way has taken so far.
    pub saving_for: Option<Duration>,
}

#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    pinged: Instant,
    progress: u64,
}

impl Watchdog {
    /// Whether to ping at `now`: three times in an interval, unless a worker is neither idle by its
    /// own account nor within its time.
    fn is_due(&mut self, now: Instant, signs: Signs) -> bool {
        let moved = signs.idle || signs.progress != self.progress;
        let saves = signs.saving_for.is_none_or(|so_far| so_far < SAVE_MAX);
        let due = now.duration_since(self.pinged) >= self.interval / 3 && moved && saves;
        if due {
            (self.pinged, self.progress) = (now, signs.progress);
        }
        due
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(states);
}

impl Service {
    /// Reads what the service manager asks for.
    pub fn new() -> Self {
        let watchdog = sd_notify::watchdog_enabled();
        let pinged = Instant::now();
        let watchdog = watchdog.map(|interval| Watchdog { interval, pinged, progress: 0 });
        Self { watchdog }
    }

    /// Configuration, key, checkpoint and listener are there.
    pub fn ready(&self, status: &str) {
        notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// The configuration is being read again; [`Service::ready`] ends that.
    pub fn reloading(&self) {
        // Newer managers want to know since when.
        let since = NotifyState::monotonic_usec_now();
        notify(&[NotifyState::Reloading].into_iter().chain(since.ok()).collect::<Vec<_>>());
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        notify(&[NotifyState::Status(status)]);
    }

    /// The daemon saves and leaves.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// Pings the watchdog if all workers are well.
    pub fn watch(&mut self, signs: Signs) {
        if self.watchdog.as_mut().is_some_and(|dog| dog.is_due(Instant::now(), signs)) {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_hears_of_work_of_rest_and_of_nothing_else() {
        let began = Instant::now();
        let interval = Duration::from_secs(60);
        let mut dog = Watchdog { interval, pinged: began, progress: 0 };
        let at = |seconds| began + Duration::from_secs(seconds);
        let works = |progress| Signs { progress, idle: false, saving_for: None };
        assert!(!dog.is_due(at(19), works(1)), "three times an interval is enough");
        assert!(dog.is_due(at(20), works(1)));
        assert!(!dog.is_due(at(40), works(1)), "a thread that hangs");
        assert!(!dog.is_due(at(79), works(1)));
        assert!(dog.is_due(at(79), works(2)), "or was only slow");
        assert!(dog.is_due(at(99), Signs { idle: true, ..works(2) }), "or has nothing to do");
        let saving = |seconds| Some(Duration::from_secs(seconds));
        assert!(dog.is_due(at(119), Signs { saving_for: saving(119), ..works(3) }));
        assert!(!dog.is_due(at(139), Signs { saving_for: saving(120), ..works(4) }));
        assert!(!dog.is_due(at(139), Signs { saving_for: saving(120), idle: true, ..works(4) }));
    }
}
