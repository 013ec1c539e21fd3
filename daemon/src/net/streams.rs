//! Frames on streams: one reader per stream that a peer opened, one writer per linked peer.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{Stream, StreamProtocol};
use libp2p_stream::Control;
use starling_protocol::envelope::{Border, Verified, open_header};
use starling_protocol::fault::Rejection;
use starling_protocol::id::NodeId;
use starling_protocol::limits::{LINKS_MAX, PREFIX_BYTES};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::address::{node_id, peer_id};
use super::room::{Place, Room};
use super::{Connected, Members, NetEvent, Reported, lock};
use crate::exit::{Code, Failure};

/// A stream is opened again so often: the other end drops one silently when two are opened at the
/// same instant (libp2p-stream hands them over through a queue without room).
const OPEN_TRIES: u32 = 6;
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The acceptor's sign that the stream reached it.
const ACKNOWLEDGED: u8 = 1;
/// A frame is read in pieces of this size. Each must be there within this time, and the whole at
/// this rate beyond it: who stops in the middle of a model holds its room for no longer.
const PIECE_BYTES: usize = 64 * 1024;
const PIECE_TIME: Duration = Duration::from_secs(5);
const MODEL_BYTES_PER_SECOND: usize = 128 * 1024;
/// After the last connection is gone: what has arrived is read, and nothing is waited for.
const LEFTOVER_TIME: Duration = Duration::from_millis(50);
/// Streams read of one peer at a time: its own, and one that is about to end.
const READERS_PER_PEER: usize = 2;
/// A frame must be taken by the other end within this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Peers whose streams are read at a time: all that can be connected.
const READERS_MAX: usize = 2 * LINKS_MAX;

/// Opens, accepts and serves streams.
#[derive(Clone)]
pub(super) struct Streams {
    control: Control,
    protocol: StreamProtocol,
    border: Border,
    events: mpsc::Sender<Reported>,
    members: Members,
    connected: Connected,
    /// With the network's model this bounds what peers can make us hold. Small frames, at most one
    /// of 64 KiB per stream, do not wait for it.
    room: Room,
}

/// What one peer may have read at a time.
#[derive(Clone, Debug)]
struct Places {
    streams: Arc<Semaphore>,
    /// One: however many it has, a peer waits for itself before it waits for others.
    model: Arc<Semaphore>,
}

impl Streams {
    pub(super) fn new(
        control: Control,
        border: Border,
        events: mpsc::Sender<Reported>,
        members: Members,
        connected: Connected,
    ) -> Result<Self, Failure> {
        let name = format!("/starling/{}/1", border.network.short());
        let protocol = StreamProtocol::try_from_owned(name)
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let room = Room::new(border.model_bytes_max);
        let streams = Self { control, protocol, border, events, members, connected, room };
        streams.clone().spawn_acceptor()?;
        Ok(streams)
    }

    /// Bytes of models on their way in, and their bound.
    pub(super) fn model_bytes(&self) -> (usize, usize) {
        self.room.used()
    }

    /// Accepts in a tight loop that does nothing else.
    fn spawn_acceptor(mut self) -> Result<(), Failure> {
        let mut incoming = self
            .control
            .accept(self.protocol.clone())
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        tokio::spawn(async move {
            let mut readers: BTreeMap<NodeId, Places> = BTreeMap::new();
            while let Some((peer, stream)) = incoming.next().await {
                // Without a free place, or from a key that is no node's, the stream is dropped.
                let Some(peer) = node_id(peer) else { continue };
                readers.retain(|_, places| places.streams.available_permits() < READERS_PER_PEER);
                let known = readers.contains_key(&peer);
                if !known && readers.len() >= READERS_MAX {
                    continue;
                }
                let places = readers.entry(peer).or_insert_with(|| Places {
                    streams: Arc::new(Semaphore::new(READERS_PER_PEER)),
                    model: Arc::new(Semaphore::new(1)),
                });
                let Some(gone) = lock(&self.connected).get(&peer).cloned() else { continue };
                let taken = Arc::clone(&places.streams).try_acquire_owned();
                let (Ok(place), turn) = (taken, Arc::clone(&places.model)) else { continue };
                let streams = self.clone();
                tokio::spawn(async move {
                    streams.read_frames(peer, stream, &turn, &gone).await;
                    drop(place);
                });
            }
        });
        Ok(())
    }

    async fn read_frames(
        &self,
        peer: NodeId,
        mut stream: Stream,
        turn: &Semaphore,
        gone: &CancellationToken,
    ) {
        let acknowledged = async {
            stream.write_all(&[ACKNOWLEDGED]).await?;
            stream.flush().await
        };
        if !matches!(timeout(OPEN_TIMEOUT, acknowledged).await, Ok(Ok(()))) {
            return;
        }
        loop {
            let mut reading = pin!(self.read_frame(peer, &mut stream, turn));
            let read = tokio::select! {
                read = &mut reading => read,
                () = gone.cancelled() => match timeout(LEFTOVER_TIME, reading).await {
                    Ok(read) => read,
                    Err(_) => return,
                },
            };
            let reported = match read {
                Ok(Some((frame, place))) => (NetEvent::Frame(Box::new(frame)), place),
                Ok(None) => return,
                Err(rejection) => {
                    // The place of the next frame is not known any more: the stream ends here.
                    self.report(NetEvent::Refused(peer, rejection)).await;
                    return;
                }
            };
            if self.events.send(reported).await.is_err() {
                return;
            }
        }
    }

    /// To a driver that has ended nothing needs to be reported.
    async fn report(&self, event: NetEvent) {
        let _ = self.events.send((event, None)).await;
    }

    /// The next frame, with the place of its model; none if the stream ended between two.
    async fn read_frame(
        &self,
        peer: NodeId,
        stream: &mut Stream,
        turn: &Semaphore,
    ) -> Result<Option<(Verified, Option<Place>)>, Rejection> {
        let mut prefix = [0; PREFIX_BYTES];
        // Between frames a peer may be silent for as long as it likes.
        let read = match stream.read(&mut prefix).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(read) => read,
        };
        fill(stream, prefix.get_mut(read..).unwrap_or_default()).await?;
        let header = open_header(&self.border, peer, &prefix)?;
        let length = header.payload_len();
        let carries_model = header.has_slab() && self.border.model_bytes_max > 0;
        if carries_model && !self.members.has_soon(peer).await {
            return Err(Rejection::Unexpected);
        }
        let (_turn, place) = if carries_model {
            let turn = turn.acquire().await.map_err(|_| Rejection::Truncated)?;
            let place = self.room.take(length).await.ok_or(Rejection::Truncated)?;
            (Some(turn), Some(place))
        } else {
            (None, None)
        };
        let mut payload = vec![0; length];
        fill(stream, &mut payload).await?;
        Ok(Some((header.open(payload)?, place)))
    }

    /// Writes queued frames to `peer` until the queue closes or the stream breaks.
    pub(super) fn spawn_writer(
        &self,
        peer: NodeId,
        mut queued: mpsc::Receiver<Vec<u8>>,
    ) -> JoinHandle<()> {
        let mut streams = self.clone();
        tokio::spawn(async move {
            let Some(mut stream) = streams.open(peer).await else {
                streams.report(NetEvent::Broken(peer)).await;
                return;
            };
            while let Some(frame) = queued.recv().await {
                let write = async {
                    stream.write_all(&frame).await?;
                    stream.flush().await
                };
                if !matches!(timeout(WRITE_TIMEOUT, write).await, Ok(Ok(()))) {
                    streams.report(NetEvent::Broken(peer)).await;
                    return;
                }
            }
            // The peer has what it was sent; whether it hears of the end does not matter.
            let _ = timeout(OPEN_TIMEOUT, stream.close()).await;
        })
    }

    /// None once the peer is gone, which libp2p-stream would dial without our asking.
    async fn open(&mut self, node: NodeId) -> Option<Stream> {
        let peer = peer_id(node)?;
        for attempt in 0..OPEN_TRIES {
            if !lock(&self.connected).contains_key(&node) {
                return None;
            }
            let opening = async {
                let mut stream =
                    self.control.open_stream(peer, self.protocol.clone()).await.ok()?;
                let mut acknowledged = [0];
                stream.read_exact(&mut acknowledged).await.ok()?;
                (acknowledged == [ACKNOWLEDGED]).then_some(stream)
            };
            if let Ok(Some(stream)) = timeout(OPEN_TIMEOUT, opening).await {
                return Some(stream);
            }
            tokio::time::sleep(Duration::from_millis(20 << attempt)).await;
        }
        None
    }
}

/// Reads all of `bytes`, as long as they keep coming.
async fn fill(stream: &mut Stream, bytes: &mut [u8]) -> Result<(), Rejection> {
    let seconds = u64::try_from(bytes.len() / MODEL_BYTES_PER_SECOND).unwrap_or(u64::MAX);
    let pieces = async {
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            match timeout(PIECE_TIME, stream.read_exact(piece)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Rejection::Truncated),
            }
        }
        Ok(())
    };
    let whole = PIECE_TIME.saturating_add(Duration::from_secs(seconds));
    timeout(whole, pieces).await.unwrap_or(Err(Rejection::Truncated))
}
