//! `starling status --watch`: one screen about a running node, asked once a second.

mod screen;
mod view;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use self::view::{Answers, View};
use crate::cli::Status;
use crate::control;
use crate::exit::{Code, Failure};
use crate::setup;
use crate::store::Store;

/// How often the daemon is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a key or an answer may wait to be seen.
const BLINK: Duration = Duration::from_millis(100);
/// How long the screen may take to end by itself.
const GRACE: Duration = Duration::from_millis(500);
/// Answers that may wait for the screen.
const WAITING_MAX: usize = 2;

/// What the screen is told.
enum Heard {
    Daemon(Result<Answers, Failure>),
    /// The process is to end.
    Stop,
}

/// Runs the command.
pub fn run(options: &Status) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        let message = "--watch fills a terminal, and standard output is none: use `starling \
                       status --json` in scripts";
        return Err(Failure::new(Code::Usage, message));
    }
    let path = Store::open(&setup::state_dir(&options.place)?)?.path("control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Code::Temporary, format!("no threads: {error}")))?;
    // Whoever mistypes a directory is told so instead of watching nothing.
    let first = runtime.block_on(ask(&path))?;
    let mut view = View::default();
    view.update(Instant::now(), Ok(first));
    let (sender, receiver) = sync_channel(WAITING_MAX);
    // It ends with the process.
    std::thread::spawn(move || runtime.block_on(listen(path, sender)));
    let mut terminal = ratatui::try_init().map_err(unusable)?;
    let ended = show(&mut terminal, &mut view, &receiver);
    ratatui::restore();
    ended.map_err(unusable)
}

fn unusable(error: std::io::Error) -> Failure {
    Failure::new(Code::Io, format!("cannot use the terminal: {error}"))
}

async fn ask(path: &Path) -> Result<Answers, Failure> {
    let status = control::ask(path, &json!({"command": "status"})).await?;
    // An older daemon does not know this question.
    let peers = control::ask(path, &json!({"command": "peers"})).await;
    let peers = peers.ok().as_ref().and_then(|answer| answer.get("peers").cloned());
    let peers = peers.or_else(|| status.get("peers").cloned()).unwrap_or_default();
    let Value::Array(peers) = peers else { return Ok(Answers { status, peers: Vec::new() }) };
    Ok(Answers { status, peers })
}

/// Asks until nobody wants to know, or a signal ends the process.
async fn listen(path: PathBuf, sender: SyncSender<Heard>) {
    let (Ok(mut terminate), Ok(mut hang_up)) =
        (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return;
    };
    let asking = async {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !tell(&sender, Heard::Daemon(ask(&path).await)) {
                break;
            }
        }
    };
    tokio::select! {
        () = asking => return,
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    // The screen may have gone first, or hang: then it ends by the exit below.
    tell(&sender, Heard::Stop);
    tokio::time::sleep(GRACE).await;
    // crossterm reads for ever from a terminal that is gone.
    ratatui::restore();
    std::process::exit(0);
}

/// Tells the screen unless it is behind; false if it is gone. Waiting for it would keep signals
/// from being heard, as they are on the same thread.
fn tell(sender: &SyncSender<Heard>, what: Heard) -> bool {
    !matches!(sender.try_send(what), Err(TrySendError::Disconnected(_)))
}

fn show(
    terminal: &mut DefaultTerminal,
    view: &mut View,
    heard: &Receiver<Heard>,
) -> std::io::Result<()> {
    loop {
        terminal.draw(|frame| screen::draw(frame, view))?;
        // Drawn again when there is something new, and not before.
        let mut changed = false;
        while !changed {
            if event::poll(BLINK)? {
                let event = event::read()?;
                if is_quit(&event) {
                    return Ok(());
                }
                changed = matches!(event, Event::Resize(..));
            }
            for told in heard.try_iter() {
                match told {
                    Heard::Daemon(answers) => view.update(Instant::now(), answers),
                    Heard::Stop => return Ok(()),
                }
                changed = true;
            }
        }
    }
}

fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && match key.code {
            KeyCode::Char('c') => control,
            KeyCode::Char('q') | KeyCode::Esc => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_that_is_behind_is_not_waited_for() {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        assert!((0..WAITING_MAX + 1).all(|_| tell(&sender, Heard::Stop)));
        assert_eq!(receiver.try_iter().count(), WAITING_MAX);
        drop(receiver);
        assert!(!tell(&sender, Heard::Stop));
    }
}
