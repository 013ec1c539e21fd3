//! Peers that push a million malformed frames into real connections: the log tells it in a few
//! lines, and the flock goes on learning. Most of them the node never reads, which is the point: a
//! stream ends at the first malformed frame, and a peer that sends noise is cut off.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use data_encoding::HEXLOWER;
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

use crate::harness::{Daemon, flock, folder, wait_for, whole};
use crate::web::{SERVE, get, served};

const FRAMES: usize = 1_000_000;
/// Frames written at once; a stream ends at the first of them that is read.
const BATCH: usize = 64;
/// The log's promise: one warning of a kind about a peer in this time.
const PERIOD: Duration = Duration::from_secs(10);
/// By how much a line may seem early: its time is read a little after its turn was decided.
const JITTER: Duration = Duration::from_millis(100);
/// Until the log has told all that it held back: two periods, on a machine that is busy.
const TOLD_MAX: Duration = Duration::from_secs(120);
/// What a node may grow by for all of them.
const GROWTH_MAX_KB: u64 = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(5);
const TIME_MAX: Duration = Duration::from_secs(180);

/// The node that is flooded.
pub struct Target {
    pub node: NodeId,
    pub network: NetworkId,
    pub boot: u64,
    pub address: Multiaddr,
}

/// What it takes to send frames to a node.
pub fn target(daemon: &Daemon) -> Target {
    let status = daemon.status("an answer", |_| true);
    let network = status["network"].as_str().expect("an id");
    let network = HEXLOWER.decode(network.as_bytes()).expect("hex");
    Target {
        node: status["node"].as_str().expect("an id").parse().expect("a node id"),
        network: NetworkId(network.try_into().expect("32 bytes")),
        boot: whole(&status, "boot"),
        address: format!("/ip4/127.0.0.1/tcp/{}", daemon.address().port()).parse().expect("valid"),
    }
}

/// What a stream is filled with.
#[derive(Clone, Copy, Debug)]
enum Flood {
    /// Ends in a ban at once.
    Noise,
    /// A frame of another network, which costs its sender nothing.
    Stray,
    /// One frame again and again, each of which is read, and dropped.
    Replay,
}

fn batch(flood: Flood, key: &Keypair, target: &Target) -> Vec<u8> {
    let network = match flood {
        Flood::Noise => return vec![0x5a; PREFIX_BYTES * BATCH],
        Flood::Stray => NetworkId([2; 32]),
        Flood::Replay => target.network,
    };
    let address = Address {
        sender: key.id(),
        recipient: target.node,
        epoch: 1,
        sequence: 1,
        recipient_epoch: target.boot,
    };
    let frame = seal(key, network, &address, &Message::Bye.into()).expect("in bounds");
    frame.repeat(BATCH)
}

pub fn swarm(key: &Keypair) -> Swarm<Behaviour> {
    let key = identity::Keypair::ed25519_from_bytes(*key.to_seed()).expect("a seed");
    SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), noise::Config::new, yamux::Config::default)
        .expect("TCP")
        .with_behaviour(|_| Behaviour::new())
        .expect("streams")
        .build()
}

/// Frames that went into one new stream before the other end closed it.
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

/// Pushes a third of the frames as each of the three, connecting whenever it is cut off.
async fn flood(peers: &[(Flood, Keypair); 3], target: &Target) {
    let node: PeerId = target.node.to_string().parse().expect("a peer id");
    let name = format!("/starling/{}/1", target.network.short());
    let name = StreamProtocol::try_from_owned(name).expect("a name");
    let began = Instant::now();
    for (flood, key) in peers {
        let batch = &batch(*flood, key, target);
        let mut written = 0;
        let mut swarm = swarm(key);
        let mut control = swarm.behaviour().new_control();
        while written < FRAMES.div_ceil(3) {
            assert!(began.elapsed() < TIME_MAX, "{flood:?}: {written} frames in {TIME_MAX:?}");
            let dial = DialOpts::peer_id(node)
                .addresses(vec![target.address.clone()])
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            let _ = swarm.dial(dial);
            let mut filling = std::pin::pin!(fill(&mut control, node, &name, batch));
            written += loop {
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

/// The sum of a metric over its labels, of those that the text has in a label.
fn sum(metrics: &str, name: &str, label: &str) -> u64 {
    let samples = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
    samples
        .map(|line| line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(0))
        .sum()
}

/// Warnings of one kind about one peer, whoever it is, are ten seconds apart.
fn assert_sparse(lines: &[Value]) {
    let mut last: BTreeMap<(&str, &str), SystemTime> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["severity"] == "WARN") {
        let (Some(event), Some(peer)) = (line["event"].as_str(), line["peer"].as_str()) else {
            continue;
        };
        let at = line["ts"].as_str().and_then(|ts| humantime::parse_rfc3339(ts).ok());
        let at = at.unwrap_or_else(|| panic!("no time: {line}"));
        if let Some(before) = last.insert((event, peer), at) {
            let gap = at.duration_since(before).unwrap_or_default();
            assert!(gap + JITTER >= PERIOD, "{gap:?} before {line}");
        }
    }
}

/// What was written and what was held back is all that happened, and all that was held back is
/// told in the end.
fn assert_accounted(daemon: &Daemon) {
    let address = served(daemon);
    let field = |line: &Value, key: &str| line[key].as_u64().unwrap_or(0);
    wait_for("an account of every event", TOLD_MAX, || {
        let metrics = get(address, "/metrics").2;
        let lines = daemon.events();
        let (summed_up, written): (Vec<_>, Vec<_>) =
            lines.iter().partition(|line| line["event"] == "log.suppressed");
        let happened = sum(&metrics, "starling_events_total", "");
        let held = sum(&metrics, "starling_log_lines_suppressed_total", "");
        let told = written.iter().map(|line| field(line, "suppressed")).sum::<u64>()
            + summed_up.iter().map(|line| field(line, "lines")).sum::<u64>();
        (happened == written.len() as u64 + held && told == held).then_some(())
    });
    let metrics = get(address, "/metrics").2;
    let rejected = whole(&daemon.status("an answer", |_| true), "frames_rejected");
    assert_eq!(sum(&metrics, "starling_frames_rejected_total", ""), rejected);
    assert_eq!(sum(&metrics, "starling_events_total", "\"frame.rejected\""), rejected);
    let held = sum(&metrics, "starling_log_lines_suppressed_total", "");
    let lines = daemon.count("frame.rejected") as u64;
    assert!(rejected - lines <= held, "{rejected} rejected, {lines} lines, {held} held back");
}

#[test]
fn a_million_malformed_frames_are_a_few_lines_and_no_harm() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 2, &[SERVE]);
    daemons[0].wait_exchanges(20);
    let daemon = &daemons[0];
    let before = daemon.memory_kb("VmRSS");
    let target = target(daemon);
    let peers = [(Flood::Noise, 41), (Flood::Stray, 42), (Flood::Replay, 43)]
        .map(|(flood, seed)| (flood, Keypair::from_seed(&[seed; 32])));

    let began = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(flood(&peers, &target));
    let periods = began.elapsed().as_secs_f64() / PERIOD.as_secs_f64();

    daemon.wait_exchanges(20);
    let rejected = whole(&daemon.status("an answer", |_| true), "frames_rejected");
    assert!(rejected > 2000, "only {rejected} frames came as far as the log");
    for (flood, key) in &peers {
        let lines = told(daemon, "frame.rejected", key.id()).len() as f64;
        assert!((1.0..=periods + 1.0).contains(&lines), "{lines} lines of {flood:?}");
    }
    assert_sparse(&daemon.events());
    assert_accounted(daemon);
    assert_eq!(told(daemon, "peer.banned", peers[0].1.id()).len(), 1);
    assert_eq!(daemon.count("peer.disconnected"), 0, "the member stays");
    let after = daemon.memory_kb("VmRSS");
    assert!(after < before + GROWTH_MAX_KB, "{before} kB became {after} kB");
    assert!(daemons.iter_mut().all(Daemon::is_alive));
}
