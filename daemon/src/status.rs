//! What a node says of itself when asked: one JSON object for people, scripts, metrics and pages.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use starling_node::node::{Durations, Node, Peer};
use starling_protocol::id::NetworkId;
use starling_protocol::time::Time;

/// The last checkpoint of this boot.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint {
    /// Its generation.
    pub generation: u64,
    /// Age of its model.
    pub age: f64,
    /// Its size.
    pub bytes: usize,
    /// When it was safe on disk.
    pub at: Instant,
    /// How long that took.
    pub duration: Duration,
}

/// What a status is made from.
#[derive(Debug)]
pub struct Sight<'a> {
    /// The node.
    pub node: &'a Node,
    /// Its network.
    pub network: NetworkId,
    /// Time since the start.
    pub now: Time,
    /// How often it was started.
    pub boot: u64,
    /// Age at which learning ends.
    pub age_max: Option<f64>,
    /// Where it listens.
    pub addresses: &'a [String],
    /// Where its dashboard is.
    pub dashboard: Option<&'a str>,
    /// Whether it listens.
    pub ready: bool,
    /// Whether checkpoints cannot be saved.
    pub degraded: bool,
    /// The last checkpoint of this boot.
    pub checkpoint: Option<&'a Checkpoint>,
    /// How full its tables and queues are.
    pub limits: Value,
}

/// A peer whose newest model kept less of its weight counts as distrusted.
const DISTRUSTED_BELOW: f64 = 0.1;

fn peer(peer: &Peer) -> Value {
    json!({
        "id": peer.id.to_string(),
        "age": peer.age,
        "round": peer.round,
        "accepted": peer.accepted,
        "rejected": peer.rejected,
        "failed": peer.failed,
        "last_exchange_s": peer.last_exchange.map(|since| since.as_secs_f64()),
        "trusted": peer.trusted,
        "quarantined": peer.quarantined,
    })
}

/// The status.
pub fn of(sight: &Sight<'_>) -> Value {
    let Sight { node, now, .. } = *sight;
    let (standing, counters) = (node.standing(), node.counters());
    let uptime = now.since(Time::ZERO).as_secs_f64();
    let mut peers = node.peer_table(now);
    peers.retain(|peer| peer.linked);
    let quarantined = peers.iter().filter(|peer| peer.quarantined).count();
    let distrusted = |peer: &&Peer| peer.trusted.is_some_and(|share| share < DISTRUSTED_BELOW);
    let distrusted = peers.iter().filter(distrusted).count();
    let saved = sight.checkpoint;
    json!({
        "node": node.id().to_string(),
        "network": sight.network.to_string(),
        "version": env!("CARGO_PKG_VERSION"),
        "boot": sight.boot,
        "phase": node.phase().name(),
        "obstacle": node.obstacle(),
        "isolated": node.isolated(),
        "paused": node.is_paused(),
        "degraded": sight.degraded,
        "ready": sight.ready,
        "round": standing.round,
        "rounds": counters.rounds,
        "age": standing.age,
        "age_max": sight.age_max,
        "steps": standing.steps,
        "rate": node.learning_rate(),
        "loss": (counters.rounds > 0).then_some(counters.loss),
        "cross_accuracy": node.cross_accuracy(),
        "consensus": node.consensus(),
        "accepted": counters.accepted,
        "rejected": counters.rejected,
        "failed": counters.failed,
        "answered": counters.answered,
        "sent_bytes": counters.sent_bytes,
        "received_bytes": counters.received_bytes,
        "payload_sent_bytes": counters.payload_sent_bytes,
        "payload_received_bytes": counters.payload_received_bytes,
        "messages_sent": counters.messages_sent,
        "frames_rejected": counters.frames_rejected,
        "merged_s": counters.merged_at.map_or(uptime, |at| now.since(at).as_secs_f64()),
        "exchange_s": node.exchange_time().as_secs_f64(),
        "round_times": {
            "bounds_s": Durations::BOUNDS_S,
            "counts": counters.round_times.counts,
            "total_s": counters.round_times.total.as_secs_f64(),
        },
        "checkpoint": {
            "generation": saved.map(|saved| saved.generation),
            "age": saved.map(|saved| saved.age),
            "bytes": saved.map(|saved| saved.bytes),
            "duration_s": saved.map(|saved| saved.duration.as_secs_f64()),
            "saved_s": saved.map_or(uptime, |saved| saved.at.elapsed().as_secs_f64()),
        },
        "uptime_s": uptime,
        "addresses": sight.addresses,
        "dashboard": sight.dashboard,
        "quarantined": quarantined,
        "distrusted": distrusted,
        "limits": sight.limits,
        "peers": peers.iter().map(peer).collect::<Vec<_>>(),
    })
}
