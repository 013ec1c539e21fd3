//! The network: libp2p on one side, nodes, frames and links on the other. Nothing outside this
//! module names libp2p.
//!
//! Each node opens one stream to each linked node and writes frames on it; it reads frames from
//! the streams that others open. A reader takes a frame's 240-byte prefix, has it checked, waits
//! for its turn if a model follows, and only then reads on.

mod address;
mod door;
mod port;
mod room;
mod streams;
mod swarm;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use starling_protocol::envelope::{Border, Verified};
use starling_protocol::fault::Rejection;
use starling_protocol::id::{Keypair, NodeId};
use starling_protocol::limits::LINKS_MAX;
use starling_protocol::message::Hint;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;

pub use self::address::parse_contact;
use self::room::Place;

/// Events that may wait for the driver; readers wait when it is full.
const EVENTS_MAX: usize = 256;
/// A connection stays open so long after the last frame to a node that is shown out.
const LINGER: Duration = Duration::from_secs(1);
/// Commands that may wait for the swarm.
const COMMANDS_MAX: usize = 256;
/// A model that comes before its sender is admitted waits so long for that.
const ADMISSION_TIME: Duration = Duration::from_secs(2);
/// Frames that may wait for one slow peer; beyond it the link is cut.
const FRAMES_QUEUED_MAX: usize = 64;
/// Connected nodes, each with what is cancelled once no connection to it is left.
type Connected = Arc<Mutex<BTreeMap<NodeId, CancellationToken>>>;
/// Nodes that may send models.
#[derive(Clone, Debug, Default)]
struct Members(Arc<(Mutex<BTreeSet<NodeId>>, Notify)>);

impl Members {
    fn set(&self, node: NodeId, member: bool) {
        let (members, news) = &*self.0;
        if member {
            lock(members).insert(node);
        } else {
            lock(members).remove(&node);
        }
        news.notify_waiters();
    }

    /// Whether `node` is one, or becomes one soon: a reader may be ahead of the driver, which has
    /// not yet taken the Hello that came before the model.
    async fn has_soon(&self, node: NodeId) -> bool {
        let (members, news) = &*self.0;
        let admitted = async {
            loop {
                let changed = news.notified();
                if lock(members).contains(&node) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(ADMISSION_TIME, admitted).await.is_ok()
    }
}

/// What the network reports.
#[derive(Debug)]
pub enum NetEvent {
    /// All addresses we listen at, newly known.
    Listening(Vec<String>),
    /// A connection to a node exists.
    Up(NodeId),
    /// No connection to it exists any more.
    Down(NodeId),
    /// A frame passed the border.
    Frame(Box<Verified>),
    /// A frame did not.
    Refused(NodeId, Rejection),
    /// A stream to it could not be opened or broke: the link is of no use.
    Broken(NodeId),
    /// Someone on this local network.
    Discovered(Hint),
    /// Why a node could not be reached.
    DialFailed(Option<NodeId>, String),
}

/// An event with the room that its model takes, until the driver has it.
type Reported = (NetEvent, Option<Place>);

#[derive(Debug)]
enum Command {
    Dial(Hint),
    /// The link is given up: its connections are to be closed soon.
    Leave(NodeId),
    /// Now.
    Close(NodeId),
}

/// What is shared stays whole whoever panicked while holding it: each change is one call.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How to join the network.
#[derive(Debug)]
pub struct Options {
    /// The node's key.
    pub key: Keypair,
    /// Addresses to listen at; none for a client.
    pub listen: Vec<String>,
    /// Their ports in the last run, in the same order: where the system chooses the port, it is
    /// this one again if it is free, for it is the one that others know.
    pub ports: Vec<u16>,
    /// Whether to look for members on the local network.
    pub mdns: bool,
    /// What every frame is checked against.
    pub border: Border,
}

#[derive(Debug)]
struct Writer {
    frames: mpsc::Sender<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Writer {
    /// Closes the queue and waits, not for long, until the other end has what was in it.
    async fn drained(self) {
        const PATIENCE: Duration = Duration::from_millis(500);
        drop(self.frames);
        // A peer that takes longer misses a goodbye.
        let _ = tokio::time::timeout(PATIENCE, self.task).await;
    }
}

/// A running network.
pub struct Net {
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<Reported>,
    streams: streams::Streams,
    members: Members,
    writers: BTreeMap<NodeId, Writer>,
    swarm: JoinHandle<()>,
    ports: Vec<u16>,
}

impl Net {
    /// Listens and runs.
    pub async fn start(options: Options) -> Result<Self, Failure> {
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        let (commands, commands_out) = mpsc::channel(COMMANDS_MAX);
        let swarm = swarm::build(&options).await?;
        let members = Members::default();
        let streams = streams::Streams::new(
            swarm.control(),
            options.border,
            events_in.clone(),
            members.clone(),
            swarm.connected(),
        )?;
        let ports = swarm.ports();
        let swarm = tokio::spawn(swarm.run(commands_out, events_in));
        Ok(Self { commands, events, streams, members, writers: BTreeMap::new(), swarm, ports })
    }

    /// The port of each of [`Options::listen`].
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }

    /// The next event; none if the network has stopped. Cancel safe.
    pub async fn next(&mut self) -> Option<NetEvent> {
        let (event, _place) = self.events.recv().await?;
        match &event {
            NetEvent::Up(peer) if self.writers.len() <= 2 * LINKS_MAX => {
                let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
                let task = self.streams.spawn_writer(*peer, queued);
                self.writers.insert(*peer, Writer { frames, task });
            }
            NetEvent::Down(peer) => {
                self.writers.remove(peer);
                self.members.set(*peer, false);
            }
            _ => {}
        }
        Some(event)
    }

    /// Every queue of ours: its name, its length and its bound.
    pub fn limits(&self) -> [(&'static str, usize, usize); 4] {
        let queued = self
            .writers
            .values()
            .map(|writer| FRAMES_QUEUED_MAX.saturating_sub(writer.frames.capacity()));
        let commands = COMMANDS_MAX.saturating_sub(self.commands.capacity());
        let (model_bytes, model_bytes_max) = self.streams.model_bytes();
        [
            ("net_events_queued", self.events.len(), EVENTS_MAX),
            ("net_commands_queued", commands, COMMANDS_MAX),
            ("frames_queued_for_slowest_peer", queued.max().unwrap_or(0), FRAMES_QUEUED_MAX),
            ("model_bytes_being_read", model_bytes, model_bytes_max),
        ]
    }

    /// Lets a linked node send models.
    pub fn admit(&self, peer: NodeId) {
        self.members.set(peer, true);
    }

    /// Connects to a node. Dropped if the swarm is that far behind: the node dials again.
    pub fn dial(&self, hint: Hint) {
        let _ = self.commands.try_send(Command::Dial(hint));
    }

    /// Sends what is queued for a node and then closes its connections.
    pub fn disconnect(&mut self, peer: NodeId) {
        let writer = self.writers.remove(&peer);
        self.members.set(peer, false);
        let commands = self.commands.clone();
        // Marked at once: a connection that the node opens meanwhile is a new link.
        let marked = commands.try_send(Command::Leave(peer)).is_ok();
        tokio::spawn(async move {
            if let Some(writer) = writer {
                writer.drained().await;
                // What was written is not yet read: closing at once would take a denial's reason
                // with it. A peer that has read it closes first.
                tokio::time::sleep(LINGER).await;
            }
            // The swarm has stopped: there are no connections left to close.
            if !marked {
                let _ = commands.send(Command::Leave(peer)).await;
            }
            let _ = commands.send(Command::Close(peer)).await;
        });
    }

    /// Queues a sealed frame; false if the node does not take what it is sent. What is sent to a
    /// node whose link has just gone is lost with the link.
    pub fn send(&mut self, peer: NodeId, frame: Vec<u8>) -> bool {
        self.writers.get(&peer).is_none_or(|writer| writer.frames.try_send(frame).is_ok())
    }

    /// Lets queued frames out, then stops.
    pub async fn stop(mut self) {
        let writers = std::mem::take(&mut self.writers).into_values().map(Writer::drained);
        futures::future::join_all(writers).await;
        self.swarm.abort();
    }
}
