//! What systemd is told, if systemd started us.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// Readiness, status line and watchdog.
#[derive(Debug)]
pub struct Service {
    watchdog: Option<Duration>,
    pinged: Instant,
    progress: u64,
}

fn notify(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(states);
}

impl Service {
    /// Reads what the service manager asks for.
    pub fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), pinged: Instant::now(), progress: 0 }
    }

    /// Configuration, key, checkpoint and listener are there.
    pub fn ready(&self, status: &str) {
        notify(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, status: &str) {
        notify(&[NotifyState::Status(status)]);
    }

    /// The daemon saves and leaves.
    pub fn stopping(&self) {
        notify(&[NotifyState::Stopping]);
    }

    /// Pings the watchdog if the compute thread has moved since the last ping, or has nothing to
    /// do.
    pub fn watch(&mut self, progress: &AtomicU64, idle: bool) {
        let Some(interval) = self.watchdog else { return };
        if self.pinged.elapsed() < interval / 3 {
            return;
        }
        let now = progress.load(Ordering::Relaxed);
        if idle || now != self.progress {
            self.pinged = Instant::now();
            self.progress = now;
            notify(&[NotifyState::Watchdog]);
        }
    }
}
