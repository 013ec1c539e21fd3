//! Frames on streams: one reader per stream that a peer opened, one writer per linked peer.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use starling_protocol::envelope::{Border, open_header};
use starling_protocol::fault::Rejection;
use starling_protocol::id::NodeId;
use starling_protocol::limits::{LINKS_MAX, PREFIX_BYTES};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::address::{node_id, peer_id};
use super::{Connected, Members, NetEvent, lock};
use crate::exit::{Code, Failure};

/// A stream is opened again so often: the other end drops one silently when two are opened at the
/// same instant (libp2p-stream hands them over through a queue without room).
const OPEN_TRIES: u32 = 6;
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The acceptor's sign that the stream reached it.
const ACKNOWLEDGED: u8 = 1;
/// A frame must be there within this time, and a model at this rate beyond it.
const FRAME_TIME: Duration = Duration::from_secs(10);
const MODEL_BYTES_PER_SECOND: usize = 128 * 1024;
/// After the last connection is gone: what has arrived is read, and nothing is waited for.
const LEFTOVER_TIME: Duration = Duration::from_millis(50);
/// Models being read at a time: with the network's model this bounds what peers can make us hold.
/// Small frames, at most one of 64 KiB per stream, do not wait for it.
pub(super) const MODELS_READ_MAX: usize = 4;
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
    events: mpsc::Sender<NetEvent>,
    members: Members,
    connected: Connected,
    models: Arc<Semaphore>,
}

impl Streams {
    pub(super) fn new(
        control: Control,
        border: Border,
        events: mpsc::Sender<NetEvent>,
        members: Members,
        connected: Connected,
    ) -> Result<Self, Failure> {
        let name = format!("/starling/{}/1", border.network.short());
        let protocol = StreamProtocol::try_from_owned(name)
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let models = Arc::new(Semaphore::new(MODELS_READ_MAX));
        let streams = Self { control, protocol, border, events, members, connected, models };
        streams.clone().spawn_acceptor()?;
        Ok(streams)
    }

    pub(super) fn models_being_read(&self) -> usize {
        MODELS_READ_MAX.saturating_sub(self.models.available_permits())
    }

    /// Accepts in a tight loop that does nothing else.
    fn spawn_acceptor(mut self) -> Result<(), Failure> {
        let mut incoming = self
            .control
            .accept(self.protocol.clone())
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        tokio::spawn(async move {
            let mut readers: BTreeMap<NodeId, Arc<Semaphore>> = BTreeMap::new();
            while let Some((peer, stream)) = incoming.next().await {
                // Without a free place, or from a key that is no node's, the stream is dropped.
                let Some(peer) = node_id(peer) else { continue };
                readers.retain(|_, places| places.available_permits() < READERS_PER_PEER);
                let known = readers.contains_key(&peer);
                if !known && readers.len() >= READERS_MAX {
                    continue;
                }
                let places = readers
                    .entry(peer)
                    .or_insert_with(|| Arc::new(Semaphore::new(READERS_PER_PEER)));
                let Some(gone) = lock(&self.connected).get(&peer).cloned() else { continue };
                let Ok(place) = Arc::clone(places).try_acquire_owned() else { continue };
                let streams = self.clone();
                tokio::spawn(async move {
                    streams.read_frames(peer, stream, &gone).await;
                    drop(place);
                });
            }
        });
        Ok(())
    }

    async fn read_frames(&self, peer: NodeId, mut stream: Stream, gone: &CancellationToken) {
        let acknowledged = async {
            stream.write_all(&[ACKNOWLEDGED]).await?;
            stream.flush().await
        };
        if !matches!(timeout(OPEN_TIMEOUT, acknowledged).await, Ok(Ok(()))) {
            return;
        }
        loop {
            let mut reading = pin!(self.read_frame(peer, &mut stream));
            let read = tokio::select! {
                read = &mut reading => read,
                () = gone.cancelled() => match timeout(LEFTOVER_TIME, reading).await {
                    Ok(read) => read,
                    Err(_) => return,
                },
            };
            let event = match read {
                Ok(Some(frame)) => NetEvent::Frame(Box::new(frame)),
                Ok(None) => return,
                Err(rejection) => {
                    // The place of the next frame is not known any more: the stream ends here.
                    let _ = self.events.send(NetEvent::Refused(peer, rejection)).await;
                    return;
                }
            };
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    /// The next frame; none if the stream ended between two.
    async fn read_frame(
        &self,
        peer: NodeId,
        stream: &mut Stream,
    ) -> Result<Option<starling_protocol::envelope::Verified>, Rejection> {
        let mut prefix = [0; PREFIX_BYTES];
        // Between frames a peer may be silent for as long as it likes.
        match stream.read(&mut prefix).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(read) => fill(stream, &mut prefix[read..], FRAME_TIME).await?,
        }
        let header = open_header(&self.border, peer, &prefix)?;
        let length = header.payload_len();
        let turn = if header.has_slab() && self.border.model_bytes_max > 0 {
            if !self.members.has_soon(peer).await {
                return Err(Rejection::Unexpected);
            }
            Some(self.models.acquire().await.map_err(|_| Rejection::Truncated)?)
        } else {
            None
        };
        let mut payload = vec![0; length];
        let seconds = u64::try_from(length / MODEL_BYTES_PER_SECOND).unwrap_or(u64::MAX);
        fill(stream, &mut payload, FRAME_TIME + Duration::from_secs(seconds)).await?;
        let verified = header.open(payload)?;
        drop(turn);
        Ok(Some(verified))
    }

    /// Writes queued frames to `peer` until the queue closes or the stream breaks.
    pub(super) fn spawn_writer(
        &self,
        peer: NodeId,
        mut queued: mpsc::Receiver<Vec<u8>>,
    ) -> JoinHandle<()> {
        let mut streams = self.clone();
        tokio::spawn(async move {
            let Some(id) = peer_id(peer) else { return };
            let Some(mut stream) = streams.open(id).await else {
                let _ = streams.events.send(NetEvent::Broken(peer)).await;
                return;
            };
            while let Some(frame) = queued.recv().await {
                let write = async {
                    stream.write_all(&frame).await?;
                    stream.flush().await
                };
                if !matches!(timeout(WRITE_TIMEOUT, write).await, Ok(Ok(()))) {
                    let _ = streams.events.send(NetEvent::Broken(peer)).await;
                    return;
                }
            }
            // The peer has what it was sent; whether it hears of the end does not matter.
            let _ = timeout(OPEN_TIMEOUT, stream.close()).await;
        })
    }

    async fn open(&mut self, peer: PeerId) -> Option<Stream> {
        for attempt in 0..OPEN_TRIES {
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

async fn fill(stream: &mut Stream, bytes: &mut [u8], within: Duration) -> Result<(), Rejection> {
    match timeout(within, stream.read_exact(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Rejection::Truncated),
    }
}
