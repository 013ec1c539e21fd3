//! The one loop of a running daemon: whatever happens becomes an input of the state machine, and
//! its outputs are performed in order.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use starling_node::event::Event;
use starling_node::node::{Input, Node, Output};
use starling_protocol::envelope::seal;
use starling_protocol::id::{Keypair, NetworkId, NodeId};
use starling_protocol::time::Time;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout};

use crate::compute::Compute;
use crate::control::Request;
use crate::exit::{Code, Failure};
use crate::log;
use crate::net::{Net, NetEvent};
use crate::service::Service;
use crate::status::{self, Checkpoint, Sight};
use crate::store::{Store, fill_random};
use crate::web::Board;

/// A leaving node saves within this time, or ends without.
const DRAIN: Duration = Duration::from_secs(8);
/// How often the wall clock, the watchdog and the status line are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Longest time that a ticket may be valid: a year.
const TICKET_SECONDS_MAX: u64 = 366 * 86_400;
/// Most uses of a ticket.
const TICKET_USES_MAX: u32 = 10_000;

type Saved = Result<(u64, f64, u64, usize), Failure>;

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
    pub control: mpsc::Receiver<Request>,
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
    saving: Option<JoinHandle<Saved>>,
    next_save: Option<(Vec<u8>, f64, u64)>,
    save_begun: Instant,
    save_failed: bool,
    checkpoint: Option<Checkpoint>,
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
            saving: None,
            next_save: None,
            save_begun: Instant::now(),
            save_failed: false,
            checkpoint: None,
            ready: false,
            leaving: None,
            left: false,
        };
        running.main_loop().await?;
        running.stop().await
    }
}

/// What woke the loop up.
enum Wake {
    Net(Option<NetEvent>),
    Job(Option<(starling_node::worker::JobId, starling_node::jobs::Done)>),
    Saved(Saved),
    Asked(Option<Request>),
    Stop(&'static str),
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

async fn saved(saving: &mut Option<JoinHandle<Saved>>) -> Saved {
    match saving {
        Some(task) => task.await.unwrap_or_else(|error| {
            Err(Failure::new(Code::Internal, format!("saving ended badly: {error}")))
        }),
        None => std::future::pending().await,
    }
}

impl Running {
    async fn main_loop(&mut self) -> Result<(), Failure> {
        let (mut terminate, mut interrupt) =
            (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
        self.step(Input::Start)?;
        self.step(Input::WallClock(unix_now()))?;
        while !(self.left && self.saving.is_none()) {
            let now = self.now();
            let until_tick = self.driver.node.next_wakeup().since(now);
            let wakeup = tokio::time::Instant::now() + until_tick.min(Duration::from_secs(3600));
            let driver = &mut self.driver;
            let wake = tokio::select! {
                biased;
                _ = terminate.recv() => Wake::Stop("SIGTERM"),
                _ = interrupt.recv() => Wake::Stop("SIGINT"),
                () = parent_gone(&mut driver.parent) => Wake::Stop("standard input closed"),
                saved = saved(&mut self.saving) => Wake::Saved(saved),
                job = driver.compute.next() => Wake::Job(job),
                event = driver.net.next() => Wake::Net(event),
                request = driver.control.recv() => Wake::Asked(request),
                () = sleep_until(wakeup) => Wake::Tick,
                _ = housekeeping.tick() => Wake::Housekeeping,
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
                self.saving = None;
                let durable = saved.is_ok();
                self.save_done(saved);
                self.step(Input::Saved(durable))?;
            }
            Wake::Asked(Some((request, reply))) => {
                let answer = self.answer(&request);
                // A client that went away needs no answer.
                let _ = reply.send(answer);
            }
            Wake::Asked(None) => return Err(defect("the control task ended")),
            Wake::Tick => self.step(Input::Tick)?,
            Wake::Housekeeping => {
                self.step(Input::WallClock(unix_now()))?;
                let idle = !self.driver.node.is_training();
                self.service.watch(&self.driver.compute.progress, idle);
                self.service.status(&self.status_line());
                self.publish();
                if self.leaving.is_some_and(|since| since.elapsed() > DRAIN) {
                    return Ok(true);
                }
            }
            Wake::Stop(reason) => {
                if self.leaving.is_some() {
                    return Ok(true);
                }
                self.driver.parent = None;
                self.leaving = Some(Instant::now());
                self.service.stopping();
                log::emit(&Event::DaemonStopping { reason: reason.to_owned() });
                self.step(Input::Leave)?;
            }
        }
        Ok(false)
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
            Output::Compute(id, job) => driver.compute.submit(id, job)?,
            Output::Save { bytes, age, round } => {
                // If the disk is slow the newest checkpoint waits, older ones are left out.
                self.next_save = Some((bytes, age, round));
                self.save_next();
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
            NetEvent::Refused(peer, rejection) => {
                self.driver.net.disconnect(peer);
                Input::Refused(peer, rejection)
            }
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

    fn save_next(&mut self) {
        if self.saving.is_some() {
            return;
        }
        let Some((bytes, age, round)) = self.next_save.take() else { return };
        let store = Arc::clone(&self.driver.store);
        self.save_begun = Instant::now();
        self.saving = Some(tokio::task::spawn_blocking(move || {
            let generation = store.save_checkpoint(&bytes)?;
            Ok((generation, age, round, bytes.len()))
        }));
    }

    fn save_done(&mut self, saved: Saved) {
        match saved {
            Ok((generation, age, round, bytes)) => {
                let (at, duration) = (Instant::now(), self.save_begun.elapsed());
                self.checkpoint = Some(Checkpoint { generation, age, bytes, at, duration });
                log::emit(&Event::CheckpointSaved { generation, age, round, bytes });
                if std::mem::take(&mut self.save_failed) {
                    let reason = "checkpoints are saved again".to_owned();
                    log::emit(&Event::DaemonRecovered { reason });
                }
            }
            Err(failure) => {
                log::emit(&Event::CheckpointFailed { reason: failure.message.clone() });
                if !std::mem::replace(&mut self.save_failed, true) {
                    let reason = "checkpoints cannot be saved".to_owned();
                    log::emit(&Event::DaemonDegraded { reason });
                }
            }
        }
        self.save_next();
    }

    fn answer(&self, request: &Value) -> Value {
        match request.get("command").and_then(Value::as_str) {
            Some("status") => self.status(),
            Some("invite") => self.invite(request).unwrap_or_else(|error| json!({"error": error})),
            _ => json!({"error": "unknown command: expected status or invite"}),
        }
    }

    fn invite(&self, request: &Value) -> Result<Value, String> {
        let number = |name: &str| request.get(name).and_then(Value::as_u64).unwrap_or_default();
        let uses = u32::try_from(number("uses")).ok().filter(|n| (1..=TICKET_USES_MAX).contains(n));
        let uses = uses.ok_or(format!("--uses: expected 1 to {TICKET_USES_MAX}"))?;
        let seconds = number("seconds");
        if !(1..=TICKET_SECONDS_MAX).contains(&seconds) {
            return Err("--expires: expected one second to 366 days".into());
        }
        if self.addresses.is_empty() {
            return Err("this node listens nowhere: set network.listen".into());
        }
        let mut nonce = [0; 16];
        fill_random(&mut nonce).map_err(|failure| failure.message)?;
        let not_after = unix_now().saturating_add(seconds);
        let ticket = self.driver.node.invite(uses, not_after, nonce, self.addresses.clone());
        let ticket = ticket.map_err(|error| error.to_string())?;
        Ok(json!({"ticket": ticket, "uses": uses, "not_after": not_after}))
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
            degraded: self.save_failed,
            checkpoint: self.checkpoint.as_ref(),
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
        format!(
            "{}: round {}, {} peers, loss {:.3}{accuracy}",
            node.phase().name(),
            node.standing().round,
            node.peers(),
            node.counters().loss
        )
    }

    async fn stop(mut self) -> Result<(), Failure> {
        if let Some(task) = self.saving.take()
            && let Ok(Ok(saved)) = timeout(DRAIN, task).await
        {
            self.save_done(saved);
        }
        let (standing, counters) = (self.driver.node.standing(), self.driver.node.counters());
        let event = Event::DaemonStopped {
            exit_code: if self.save_failed { Code::Io as u8 } else { 0 },
            age: standing.age,
            round: standing.round,
            sent_bytes: counters.sent_bytes,
            received_bytes: counters.received_bytes,
            payload_sent_bytes: counters.payload_sent_bytes,
        };
        self.driver.net.stop().await;
        log::emit(&event);
        if self.save_failed {
            return Err(Failure::new(Code::Io, ""));
        }
        Ok(())
    }
}

fn defect(what: &str) -> Failure {
    Failure::new(Code::Internal, format!("{what}: this is a defect of starling, please report it"))
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
