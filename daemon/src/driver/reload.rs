//! Reading the configuration again while the daemon runs: all of what changed and can be applied
//! is, or nothing.

use serde_json::{Value, json};
use starling_config::Config;
use starling_node::event::Event;
use starling_node::node::{Input, Tuning};

use super::Running;
use crate::control::Answer;
use crate::exit::{Code, Failure};
use crate::log;
use crate::setup;

/// What a reload comes to.
#[derive(Debug, PartialEq)]
struct Plan {
    /// The configuration in force afterwards: the old one, with what can be taken from the file.
    /// No key of the one kind bears on a key of the other, so no mixture is wrong by itself.
    next: Config,
    /// Keys that it takes over.
    applied: Vec<String>,
    /// Keys that differ all the same.
    restart: Vec<String>,
}

fn plan(old: &Config, file: &Config) -> Plan {
    let next = Config {
        log_level: file.log_level,
        peers: file.peers.clone(),
        checkpoint_interval_s: file.checkpoint_interval_s,
        round_period_ms: file.round_period_ms,
        // Only root could take it back.
        nice: old.nice.max(file.nice),
        ..old.clone()
    };
    Plan { applied: old.changes(&next), restart: next.changes(file), next }
}

impl Running {
    /// Reads the configuration again, tells systemd and the log, and says what came of it. What
    /// cannot be helped is an error, and not one of the configuration.
    pub(super) fn reload(&mut self) -> Result<Answer, Failure> {
        if self.leaving.is_some() {
            return Ok(Err(Failure::new(Code::Unavailable, "the daemon is stopping")));
        }
        if self.ready {
            self.service.reloading();
        }
        let answer = match self.try_reload() {
            Ok((tuning, answer)) => {
                self.step(Input::Tune(tuning))?;
                Ok(answer)
            }
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &answer {
            let problems =
                failure.message.lines().take(log::PROBLEMS_MAX).map(str::to_owned).collect();
            log::emit(&Event::ConfigReloadRejected { problems });
        }
        if self.ready {
            self.service.ready(&self.status_line());
        }
        Ok(answer)
    }

    /// What the node is told of the new configuration, and who asked.
    fn try_reload(&mut self) -> Result<(Tuning, Value), Failure> {
        let driver = &self.driver;
        let file = setup::configuration(&driver.store, driver.config_file.as_deref())?;
        let contacts = setup::contacts(&driver.store, &file)?.hints;
        let Plan { next, applied, restart } = plan(&driver.config, &file);
        let raise = next.nice.saturating_sub(driver.config.nice);
        if raise > 0 {
            raise_niceness(i32::from(raise))?;
        }
        // From here on nothing can fail.
        let settings = next.settings();
        // A change of the level is told by whichever of the two says more.
        log::set_level(driver.config.log_level.min(next.log_level));
        log::emit(&Event::ConfigReloaded { applied: applied.clone() });
        log::set_level(next.log_level);
        if !restart.is_empty() {
            log::emit(&Event::ConfigReloadNeedsRestart { keys: restart.clone() });
        }
        self.driver.config = next;
        let tuning = Tuning {
            round_period: settings.round_period,
            checkpoint_interval: settings.checkpoint_interval,
            contacts,
        };
        Ok((tuning, json!({"applied": applied, "needs_restart": restart})))
    }
}

/// Every thread has a niceness of its own, and a new one takes that of the thread that makes it.
fn raise_niceness(more: i32) -> Result<(), Failure> {
    let failed = |error: std::io::Error| {
        let message = format!("resources.nice: the system does not allow it: {error}");
        Failure::new(Code::Permission, message)
    };
    let now = rustix::process::getpriority_process(None).map_err(|error| failed(error.into()))?;
    for thread in std::fs::read_dir("/proc/self/task").map_err(failed)? {
        let name = thread.map_err(failed)?.file_name();
        let id = name.to_str().and_then(|name| name.parse().ok());
        let Some(thread) = id.and_then(rustix::process::Pid::from_raw) else { continue };
        match rustix::process::setpriority_process(Some(thread), now + more) {
            // It has ended meanwhile.
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use starling_config::LogLevel;

    use super::*;

    #[test]
    fn what_can_be_applied_is_and_the_rest_is_named() {
        let old = Config { nice: 5, ..Config::default() };
        assert_eq!(plan(&old, &old).applied, [""; 0]);
        let file = Config {
            log_level: LogLevel::Warn,
            peers: vec!["a".into()],
            checkpoint_interval_s: 7.0,
            round_period_ms: 9,
            nice: 6,
            seed: 3,
            io_threads: 4,
            ..old.clone()
        };
        let first = plan(&old, &file);
        let applied = [
            "network.peers",
            "training.round_period_ms",
            "storage.checkpoint_interval_s",
            "log.level",
            "resources.nice",
        ];
        assert_eq!(first.applied, applied);
        assert_eq!(first.restart, ["training.seed", "resources.io_threads"]);
        assert_eq!((first.next.seed, first.next.io_threads), (old.seed, old.io_threads));

        // Once more: what needs a restart still does, and nothing else is new.
        let again = plan(&first.next, &file);
        assert_eq!((again.applied.len(), again.restart), (0, first.restart));
        // Politeness is not taken back.
        let ruder = plan(&old, &Config { nice: 4, ..old.clone() });
        assert_eq!((ruder.applied.len(), ruder.next.nice), (0, 5));
        assert_eq!(ruder.restart, ["resources.nice"]);
    }
}
