//! A peer that sends a million malformed frames over real connections: the log tells it in a few
//! lines, and the flock goes on learning.

use std::time::{Duration, Instant};

use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identity, noise, tcp, yamux};
use libp2p_stream::{Behaviour, Control};
use serde_json::Value;
use starling_protocol::envelope::{Address, seal};
use starling_protocol::id::{Keypair, NetworkId, NodeId};
use starling_protocol::limits::PREFIX_BYTES;
use starling_protocol::message::Message;
use tokio::time::timeout;

use crate::harness::{Daemon, flock, folder, whole};

const FRAMES: usize = 1_000_000;
/// Frames written at once; a stream ends at the first of them that is read.
const BATCH: usize = 64;
/// The log's promise: one warning of a kind about a peer in this time.
const PERIOD: Duration = Duration::from_secs(10);
/// What a node may grow by for all of them.
const GROWTH_MAX_KB: u64 = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);
const TIME_MAX: Duration = Duration::from_secs(180);

/// A frame of `key` that says goodbye to nobody in a network that does not exist.
fn stray(key: &Keypair) -> Vec<u8> {
    let address = Address {
        sender: key.id(),
        recipient: NodeId([1; 32]),
        epoch: 1,
        sequence: 1,
        recipient_epoch: 1,
    };
    seal(key, NetworkId([2; 32]), &address, &Message::Bye.into()).expect("in bounds")
}

/// What a stream is filled with: noise, which ends in a ban, and what costs its sender nothing, a
/// frame of another network.
fn batches(key: &Keypair) -> [Vec<u8>; 2] {
    [vec![0x5a; PREFIX_BYTES * BATCH], stray(key).repeat(BATCH)]
}

fn swarm(key: &Keypair) -> Swarm<Behaviour> {
    let key = identity::Keypair::ed25519_from_bytes(*key.to_seed()).expect("a seed");
    SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("TCP")
        .with_behaviour(|_| Behaviour::new())
        .expect("streams")
        .build()
}

/// Frames that the other end took on one new stream before it closed it.
async fn fill(control: &mut Control, peer: PeerId, name: &StreamProtocol, batch: &[u8]) -> usize {
    let Ok(Ok(mut stream)) = timeout(PATIENCE, control.open_stream(peer, name.clone())).await
    else {
        return 0;
    };
    // Without the sign of a reader the bytes would wait where nobody reads them.
    let mut sign = [0];
    if !matches!(timeout(PATIENCE, stream.read_exact(&mut sign)).await, Ok(Ok(()))) {
        return 0;
    }
    let mut written = 0;
    let write = async {
        while stream.write_all(batch).await.is_ok() && stream.flush().await.is_ok() {
            written += BATCH;
        }
    };
    let _ = timeout(PATIENCE, write).await;
    written
}

/// Sends half of the frames as each of the two, connecting whenever it is cut off.
async fn flood(keys: &[Keypair; 2], target: &Multiaddr, node: PeerId, name: &StreamProtocol) {
    let mut written = [0; 2];
    let began = Instant::now();
    for ((key, batch), written) in keys.iter().zip([0, 1]).zip(&mut written) {
        let batch = &batches(key)[batch];
        let mut swarm = swarm(key);
        let mut control = swarm.behaviour().new_control();
        while *written < FRAMES / 2 {
            assert!(began.elapsed() < TIME_MAX, "{written:?} frames in {TIME_MAX:?}");
            let dial = DialOpts::peer_id(node)
                .addresses(vec![target.clone()])
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            let _ = swarm.dial(dial);
            let mut filling = std::pin::pin!(fill(&mut control, node, name, batch));
            *written += loop {
                tokio::select! {
                    taken = &mut filling => break taken,
                    _ = swarm.select_next_some() => {}
                }
            };
        }
    }
}

/// Lines about a peer, by the name of their event.
fn told(daemon: &Daemon, event: &str, peer: NodeId) -> Vec<Value> {
    let peer = peer.to_string();
    let about = |line: &Value| line["event"] == event && line["peer"] == peer.as_str();
    daemon.events().into_iter().filter(about).collect()
}

#[test]
fn a_million_malformed_frames_are_a_few_lines_and_no_harm() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 2, &[]);
    daemons[0].wait_exchanges(20);
    let target = &daemons[0];
    let before = target.memory_kb("VmRSS");
    let status = target.status("an answer", |_| true);
    let node: PeerId = status["node"].as_str().expect("an id").parse().expect("a peer id");
    let network = status["network"].as_str().expect("an id");
    let name = format!("/starling/{}/1", &network[..16]);
    let name = StreamProtocol::try_from_owned(name).expect("a name");
    let address = format!("/ip4/127.0.0.1/tcp/{}", target.address().port());
    let keys = [Keypair::from_seed(&[41; 32]), Keypair::from_seed(&[42; 32])];

    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let address = address.parse().expect("an address");
    runtime.expect("a runtime").block_on(flood(&keys, &address, node, &name));
    let periods = began.elapsed().as_secs_f64() / PERIOD.as_secs_f64();

    target.wait_exchanges(20);
    let rejected = whole(&target.status("an answer", |_| true), "frames_rejected");
    assert!(rejected > 50, "only {rejected} frames came as far as the log");
    for key in &keys {
        let lines = told(target, "frame.rejected", key.id()).len() as f64;
        assert!((1.0..=periods + 1.0).contains(&lines), "{lines} lines of {}", key.id());
    }
    assert_eq!(told(target, "peer.banned", keys[0].id()).len(), 1);
    assert_eq!(target.count("peer.disconnected"), 0, "the member stays");
    let after = target.memory_kb("VmRSS");
    assert!(after < before + GROWTH_MAX_KB, "{before} kB became {after} kB");
    assert!(daemons.iter_mut().all(Daemon::is_alive));
}
