//! The one loop of a running daemon: whatever happens becomes an input of the state machine, and
//! its outputs are performed in order.

mod asked;
mod bans;
mod reload;
mod saving;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use starling_config::Config;
use starling_node::event::Event;
use starling_node::jobs::Job;
use starling_node::node::{Input, Node, Output};
use starling_protocol::envelope::seal;
use starling_protocol::id::{Keypair, NetworkId, NodeId};
use starling_protocol::time::Time;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, sleep_until};

use crate::compute::Compute;
use crate::control::{Control, Request};
use crate::exit::{Code, Failure};
use crate::log;
use crate::net::{Net, NetEvent};
use crate::service::{Service, Signs};
use crate::status::{self, Sight};
use crate::store::Store;
use crate::web::Board;

use self::bans::Bans;
use self::saving::{Saved, Saver};

/// A leaving node saves within this time, or ends without: all that comes before the process's end
/// together takes ten seconds at most.
const DRAIN: Duration = Duration::from_secs(8);
/// How often the wall clock, the watchdog and the status line are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Everything that runs.
pub struct Driver {
    /// The state machine.
    pub node: Node,
    /// Its key.
    pub key: Keypair,
    /// Its network.
    pub network: NetworkId,
    /// The sockets.
    pub net: Net,
    /// The weights.
    pub compute: Compute,
    /// The files.
    pub store: Arc<Store>,
    /// Questions of the operator.
    pub control: Control,
    /// The configuration in force.
    pub config: Config,
    /// Where it was read from, if not from the state directory.
    pub config_file: Option<PathBuf>,
    /// Rows that it learns from.
    pub rows: usize,
    /// Ends when whoever started us goes away, if that matters.
    pub parent: Option<oneshot::Receiver<()>>,
    /// Age at which learning ends, for the status.
    pub age_max: Option<f64>,
    /// How often the node was started, for the status.
    pub boot: u64,
    /// Where the status is shown, if anywhere.
    pub board: Option<Board>,
}

struct Running {
    driver: Driver,
    began: Instant,
    service: Service,
    addresses: Vec<String>,
    saver: Saver,
    bans: Bans,
    ready: bool,
    leaving: Option<Instant>,
    left: bool,
}

impl Driver {
    /// Runs until told to stop, or until something that cannot be helped.
    pub async fn run(self) -> Result<(), Failure> {
        let mut running = Running {
            driver: self,
            began: Instant::now(),
            service: Service::new(),
            addresses: Vec::new(),
            saver: Saver::default(),
            bans: Bans::default(),
            ready: false,
            leaving: None,
            left: false,
        };
        let ended = running.main_loop().await;
        running.stop(ended).await
    }
}

/// What woke the loop up.
enum Wake {
    Net(Option<NetEvent>),
    Job(Option<(starling_node::worker::JobId, starling_node::jobs::Done)>),
    Saved(Saved),
    BansWritten(Result<(), Failure>),
    Asked(Option<Request>),
    Stop(&'static str),
    Reload,
    Tick,
    Housekeeping,
}

fn on(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::new(Code::Internal, format!("signals: {error}")))
}

async fn parent_gone(parent: &mut Option<oneshot::Receiver<()>>) {
    match parent {
        Some(gone) => {
            // Sent or dropped, it means the same.
            let _ = gone.await;
        }
        None => std::future::pending().await,
    }
}

impl Running {
    async fn main_loop(&mut self) -> Result<(), Failure> {
        let (mut terminate, mut interrupt) =
            (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
        let mut hang_up = on(SignalKind::hangup())?;
        // To one started by hand it means that the terminal is gone.
        let by_hand = std::io::stdin().is_terminal();
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        // After a halt once is enough.
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.step(Input::Start)?;
        self.step(Input::WallClock(unix_now()))?;
        while !(self.left && self.saver.is_idle()) {
            let now = self.now();
            let until_tick = self.driver.node.next_wakeup().since(now);
            let wakeup = tokio::time::Instant::now() + until_tick.min(Duration::from_secs(3600));
            let driver = &mut self.driver;
            let wake = tokio::select! {
                biased;
                _ = terminate.recv() => Wake::Stop("SIGTERM"),
                _ = interrupt.recv() => Wake::Stop("SIGINT"),
                _ = hang_up.recv() => {
                    if by_hand { Wake::Stop("SIGHUP") } else { Wake::Reload }
                }
                () = parent_gone(&mut driver.parent) => Wake::Stop("standard input closed"),
                saved = self.saver.saved() => Wake::Saved(saved),
                written = self.bans.written() => Wake::BansWritten(written),
                // Seldom ready, and before what peers can keep ready all the time.
                _ = housekeeping.tick() => Wake::Housekeeping,
                request = driver.control.next() => Wake::Asked(request),
                job = driver.compute.next() => Wake::Job(job),
                event = driver.net.next() => Wake::Net(event),
                // Last, as any other input runs the timers too.
                () = sleep_until(wakeup) => Wake::Tick,
            };
            if self.awake(wake)? {
                break;
            }
        }
        Ok(())
    }

    /// Handles one wake-up; true if the process must end now.
    fn awake(&mut self, wake: Wake) -> Result<bool, Failure> {
        match wake {
            Wake::Net(Some(event)) => self.network(event)?,
            Wake::Job(Some((id, done))) => self.step(Input::JobDone(id, done))?,
            Wake::Net(None) => return Err(defect("the network task ended")),
            Wake::Job(None) => return Err(defect("the compute thread ended")),
            Wake::Saved(saved) => {
                let durable = self.saver.done(&self.driver.store, saved);
                self.step(Input::Saved(durable))?;
            }
            Wake::BansWritten(written) => self.bans_written(written)?,
            Wake::Asked(Some(request)) => self.asked(request)?,
            // What came of it is in the log.
            Wake::Reload => drop(self.reload()?),
            Wake::Asked(None) => return Err(defect("the control task ended")),
            Wake::Tick => self.step(Input::Tick)?,
            Wake::Housekeeping => {
                self.step(Input::WallClock(unix_now()))?;
                self.service.watch(Signs {
                    progress: self.driver.compute.progress(),
                    idle: self.driver.node.is_idle(),
                    saving_for: self.saver.saving_for(),
                });
                self.service.status(&self.status_line());
                self.publish();
                if self.leaving.is_some_and(|since| since.elapsed() > DRAIN) {
                    return Ok(true);
                }
            }
            Wake::Stop(reason) => {
                if self.leaving.is_some() {
                    // Asked twice: what is not on disk by now will not be.
                    self.leaving = Instant::now().checked_sub(DRAIN);
                    return Ok(true);
                }
                self.leave(reason)?;
            }
        }
        Ok(false)
    }

    fn leave(&mut self, reason: &str) -> Result<(), Failure> {
        if self.leaving.is_some() {
            return Ok(());
        }
        self.driver.parent = None;
        self.leaving = Some(Instant::now());
        self.service.stopping();
        log::emit(&Event::DaemonStopping { reason: reason.to_owned() });
        self.step(Input::Leave)
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn step(&mut self, input: Input) -> Result<(), Failure> {
        let now = self.now();
        for output in self.driver.node.step(now, input) {
            self.perform(output)?;
        }
        Ok(())
    }

    fn perform(&mut self, output: Output) -> Result<(), Failure> {
        let driver = &mut self.driver;
        match output {
            Output::Send(address, frame) => {
                // What a peer would refuse is not sent: the link is cut instead, and made anew.
                let sealed = seal(&driver.key, driver.network, &address, &frame);
                if !sealed.is_ok_and(|sealed| driver.net.send(address.recipient, sealed)) {
                    driver.net.disconnect(address.recipient);
                }
            }
            Output::Admitted(peer) => driver.net.admit(peer),
            Output::Dial(hint) => driver.net.dial(hint),
            Output::Disconnect(peer) => driver.net.disconnect(peer),
            Output::Compute(id, job) => {
                if matches!(job, Job::Checkpoint { .. }) {
                    self.saver.begin();
                }
                driver.compute.submit(id, job)?;
            }
            Output::Save { bytes, age, round } => {
                self.saver.order(&driver.store, bytes, age, round);
            }
            Output::Event(event) => log::emit(&event),
            Output::Left => self.left = true,
        }
        Ok(())
    }

    fn network(&mut self, event: NetEvent) -> Result<(), Failure> {
        let input = match event {
            NetEvent::Listening(addresses) => {
                self.addresses.clone_from(&addresses);
                if !self.ready {
                    self.ready = true;
                    log::emit(&Event::DaemonReady { addresses: addresses.clone() });
                    self.service.ready(&self.status_line());
                    self.publish();
                }
                Input::Listening(addresses)
            }
            NetEvent::Up(peer) => Input::LinkUp(peer),
            NetEvent::Down(peer) => Input::LinkDown(peer),
            NetEvent::Frame(frame) => Input::Received(*frame),
            NetEvent::Refused(peer, rejection) => Input::Refused(peer, rejection),
            NetEvent::Broken(peer) => {
                self.driver.net.disconnect(peer);
                Input::LinkDown(peer)
            }
            NetEvent::Discovered(hint) => Input::Discovered(hint),
            NetEvent::DialFailed(peer, reason) => {
                let peer =
                    peer.map_or_else(|| "unknown".to_owned(), |peer: NodeId| peer.to_string());
                log::emit(&Event::PeerUnreachable { peer, reason });
                return Ok(());
            }
        };
        self.step(input)
    }

    fn status(&self) -> Value {
        status::of(&Sight {
            node: &self.driver.node,
            network: self.driver.network,
            now: self.now(),
            boot: self.driver.boot,
            age_max: self.driver.age_max,
            addresses: &self.addresses,
            dashboard: self.driver.board.as_ref().and_then(Board::url),
            ready: self.ready,
            degraded: self.saver.failed,
            checkpoint: self.saver.last.as_ref(),
            limits: self.limits(),
        })
    }

    /// Shows the status to whoever watches.
    fn publish(&self) {
        if let Some(board) = &self.driver.board {
            board.publish(self.status());
        }
    }

    fn status_line(&self) -> String {
        let node = &self.driver.node;
        let accuracy = node
            .cross_accuracy()
            .map_or_else(String::new, |accuracy| format!(", accuracy {:.1} %", accuracy * 100.0));
        let phase = if node.is_paused() { "paused" } else { node.phase().name() };
        format!(
            "{phase}: round {}, {} peers, loss {:.3}{accuracy}",
            node.standing().round,
            node.peers(),
            node.counters().loss
        )
    }
}

fn defect(what: &str) -> Failure {
    Failure::new(Code::Internal, format!("{what}: this is a defect of starling, please report it"))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
