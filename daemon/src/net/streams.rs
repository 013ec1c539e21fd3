//! Frames on streams: one reader per stream that a peer opened, one writer per linked peer.

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

use super::NetEvent;
use super::address::{node_id, peer_id};
use crate::exit::{Code, Failure};

/// A stream is opened again so often: the other end drops one silently when two are opened at the
/// same instant (libp2p-stream hands them over through a queue without room).
const OPEN_TRIES: u32 = 6;
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// The acceptor's sign that the stream reached it.
const ACKNOWLEDGED: u8 = 1;
/// A sender that gives less than this many bytes in that time is cut off.
const PROGRESS_BYTES: usize = 160 * 1024;
const PROGRESS_TIME: Duration = Duration::from_secs(10);
/// A frame must be taken by the other end within this time.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Streams read at a time; one per peer and a few that are about to end.
const READERS_MAX: usize = 2 * LINKS_MAX;

/// Opens, accepts and serves streams.
#[derive(Clone)]
pub(super) struct Streams {
    control: Control,
    protocol: StreamProtocol,
    border: Border,
    events: mpsc::Sender<NetEvent>,
    memory: Arc<Semaphore>,
}

impl Streams {
    pub(super) fn new(
        control: Control,
        border: Border,
        events: mpsc::Sender<NetEvent>,
        memory: Arc<Semaphore>,
    ) -> Result<Self, Failure> {
        let name = format!("/starling/{}/1", border.network.short());
        let protocol = StreamProtocol::try_from_owned(name)
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let streams = Self { control, protocol, border, events, memory };
        streams.clone().spawn_acceptor()?;
        Ok(streams)
    }

    /// Accepts in a tight loop that does nothing else.
    fn spawn_acceptor(mut self) -> Result<(), Failure> {
        let mut incoming = self
            .control
            .accept(self.protocol.clone())
            .map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let readers = Arc::new(Semaphore::new(READERS_MAX));
        tokio::spawn(async move {
            while let Some((peer, stream)) = incoming.next().await {
                // Without a free place, or from a key that is no node's, the stream is dropped.
                let (Ok(place), Some(peer)) =
                    (Arc::clone(&readers).try_acquire_owned(), node_id(peer))
                else {
                    continue;
                };
                let streams = self.clone();
                tokio::spawn(async move {
                    streams.read_frames(peer, stream).await;
                    drop(place);
                });
            }
        });
        Ok(())
    }

    async fn read_frames(&self, peer: NodeId, mut stream: Stream) {
        let acknowledged = async {
            stream.write_all(&[ACKNOWLEDGED]).await?;
            stream.flush().await
        };
        if !matches!(timeout(OPEN_TIMEOUT, acknowledged).await, Ok(Ok(()))) {
            return;
        }
        loop {
            let event = match self.read_frame(peer, &mut stream).await {
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
            Ok(read) => self.fill(stream, &mut prefix[read..]).await?,
        }
        let header = open_header(&self.border, peer, &prefix)?;
        let length = header.payload_len();
        let permits = u32::try_from(length).map_err(|_| Rejection::TooLong)?;
        let permit = self.memory.acquire_many(permits).await.map_err(|_| Rejection::Truncated)?;
        let mut payload = vec![0; length];
        self.fill(stream, &mut payload).await?;
        let verified = header.open(payload)?;
        drop(permit);
        Ok(Some(verified))
    }

    async fn fill(&self, stream: &mut Stream, bytes: &mut [u8]) -> Result<(), Rejection> {
        for part in bytes.chunks_mut(PROGRESS_BYTES) {
            match timeout(PROGRESS_TIME, stream.read_exact(part)).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Err(Rejection::Truncated),
            }
        }
        Ok(())
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
