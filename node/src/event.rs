//! Everything an operator can be told. One table is the source of the enum, its names, severities
//! and catalogue, so that logs, documentation and monitors cannot disagree.

use serde::Serialize;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Normal operation.
    Info,
    /// Worth a look if it repeats.
    Warn,
    /// An operator must act.
    Error,
}

/// What the catalogue says of one event.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Stable name.
    pub name: &'static str,
    /// Its severity.
    pub severity: Severity,
    /// Field names and their types, in order.
    pub fields: &'static [(&'static str, &'static str)],
    /// What happened.
    pub meaning: &'static str,
    /// What to do about it.
    pub action: &'static str,
}

macro_rules! events {
    ($($variant:ident $name:literal $severity:ident
        { $($field:ident : $kind:ty),* $(,)? } $meaning:literal $action:literal;)*) => {
        /// One event. Peers are named by their full id, ages count local steps.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "event")]
        pub enum Event {
            $(
                #[doc = $meaning]
                #[serde(rename = $name)]
                $variant {
                    $(#[doc = stringify!($field)] $field: $kind),*
                },
            )*
        }

        impl Event {
            /// The catalogue's entry of this event.
            #[must_use]
            pub fn entry(&self) -> &'static Entry {
                let index = match self {
                    $(Self::$variant { .. } => Index::$variant as usize,)*
                };
                &CATALOGUE[index]
            }
        }

        #[derive(Clone, Copy)]
        enum Index { $($variant),* }

        /// All events, in the order of a node's life.
        pub const CATALOGUE: &[Entry] = &[
            $(Entry {
                name: $name,
                severity: Severity::$severity,
                fields: &[$((stringify!($field), stringify!($kind))),*],
                meaning: $meaning,
                action: $action,
            }),*
        ];
    };
}

events! {
    DaemonStarted "daemon.started" Info
        { version: String, network: String, state_dir: String, parameters: usize, rows: usize }
        "The process runs and has read its configuration." "None.";
    IdentityLoaded "identity.loaded" Info { }
        "The node's key was read." "None.";
    CheckpointRestored "checkpoint.restored" Info { generation: u64, age: f64, round: u64 }
        "Training goes on from this checkpoint." "None.";
    CheckpointCorrupt "checkpoint.corrupt" Warn { generation: u64, reason: String }
        "A checkpoint could not be used; an older one is tried, the file is kept in bad/."
        "Check the disk if it repeats.";
    DaemonReady "daemon.ready" Info { addresses: Vec<String> }
        "Listening, state loaded. Peers need not be there yet." "None.";
    ServeStarted "serve.started" Info { address: String }
        "Dashboard, metrics and health are served at this address." "None.";
    ServeFailed "serve.failed" Warn { address: String, reason: String }
        "Dashboard, metrics and health are not served; the node itself goes on."
        "Free the port or set serve.listen to another one, then restart.";
    ExportFailed "export.failed" Warn { address: String, reason: String }
        "The OpenTelemetry collector does not take metrics and log lines; said once until it does."
        "Check that it runs and speaks OTLP over HTTP, or empty serve.otlp.";
    ExportRecovered "export.recovered" Info { address: String, dropped: u64 }
        "It takes them again; so many log lines of this boot never reached it." "None.";
    MeshWaiting "mesh.waiting" Info { peers: usize, wanted: usize, reason: String }
        "Training waits, and why."
        "Check that other members run and that their addresses can be reached.";
    PeerConnected "peer.connected" Info { peer: String, age: f64, peers: usize }
        "A member is linked and may exchange." "None.";
    PeerDisconnected "peer.disconnected" Info { peer: String, reason: String, peers: usize }
        "The link to a member is gone." "None; it is dialled again.";
    PeerUnreachable "peer.unreachable" Warn { peer: String, reason: String }
        "A known node could not be reached; it is tried again, less and less often."
        "Check its address, the firewall and whether it runs.";
    PeerDenied "peer.denied" Warn { peer: String, reason: String }
        "A node was not let in." "If it should be: give it a ticket.";
    PeerRefusedUs "peer.refused_us" Warn { peer: String, reason: String }
        "A member did not let this node in." "Act on the reason.";
    PeerBanned "peer.banned" Warn { peer: String, reason: String }
        "A peer sent what no honest node sends; it is cut off for twelve hours."
        "Find out who runs it.";
    PeerAdmitted "peer.admitted" Info { peer: String, uses_left: u32 }
        "A ticket holder became a member." "None.";
    FrameRejected "frame.rejected" Warn { peer: String, reason: String }
        "A frame was refused at the border." "None unless it repeats.";
    MeshJoined "mesh.joined" Info { age: f64, snapshots: usize, peers: usize }
        "The node trains with the flock." "None.";
    MeshIsolated "mesh.isolated" Warn { rounds: u64, reason: String }
        "Nobody has exchanged with this node for five rounds." "Check the network and the peers.";
    RoundCompleted "round.completed" Info {
        round: u64, rounds: u64, age: f64, loss: f64, rate: f64,
        cross_accuracy: Option<f64>, consensus: Option<f64>, peers: usize,
        accepted: u64, rejected: u64, failed: u64,
        sent_bytes: u64, received_bytes: u64, payload_sent_bytes: u64, duration_ms: f64,
    }
        "Rounds were completed since the last such line (at most one a second); counters are \
         totals of this boot, cross_accuracy is that of our model on partners' rows." "None.";
    ExchangeFailed "exchange.failed" Info { peer: String, reason: String }
        "A partner did not answer in time or could not." "None unless it is always the same peer.";
    UpdateRejected "update.rejected" Warn
        { peer: String, reason: String, distance: f64, threshold: f64 }
        "A partner's model was too far off to be merged." "If it repeats: look at that peer.";
    PeerQuarantined "peer.quarantined" Warn { peer: String, rounds: u64 }
        "A peer's models kept being too far off; it is left alone for a while."
        "Look at that peer's data and version.";
    TrainDiverged "train.diverged" Warn { round: u64 }
        "Training left the range of numbers; it goes on from the served model."
        "Lower the learning rate if it repeats.";
    TrainingCompleted "training.completed" Info { age: f64, round: u64 }
        "The age at which learning ends is reached; the node serves and answers." "None.";
    CheckpointSaved "checkpoint.saved" Info { generation: u64, age: f64, round: u64, bytes: usize }
        "A checkpoint is on disk." "None.";
    CheckpointFailed "checkpoint.failed" Error { reason: String }
        "A checkpoint could not be written; the last good one is kept."
        "Free disk space, check permissions.";
    DaemonDegraded "daemon.degraded" Error { reason: String }
        "Something does not work; the rest goes on." "Act on the reason.";
    DaemonRecovered "daemon.recovered" Info { reason: String }
        "It works again." "None.";
    DaemonStopping "daemon.stopping" Info { reason: String }
        "The daemon saves and leaves." "None.";
    DaemonStopped "daemon.stopped" Info {
        exit_code: u8, age: f64, round: u64,
        sent_bytes: u64, received_bytes: u64, payload_sent_bytes: u64,
    }
        "The last line of a boot." "None.";
    LibraryLogged "library.logged" Warn { source: String, text: String }
        "A library that Starling uses has something to say." "None unless it repeats.";
    InternalPanic "internal.panic" Error { place: String }
        "A defect of Starling." "Report it with this line.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_event_finds_its_own_entry() {
        let event = Event::PeerBanned { peer: String::new(), reason: String::new() };
        assert_eq!(event.entry().name, "peer.banned");
        assert_eq!(event.entry().severity, Severity::Warn);
        let event = Event::InternalPanic { place: String::new() };
        assert_eq!(event.entry().name, "internal.panic");
    }

    #[test]
    fn names_are_distinct_and_of_one_form() {
        let names: BTreeSet<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), CATALOGUE.len());
        for name in names {
            let (noun, verb) = name.split_once('.').expect("noun.verb");
            let plain = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(plain(noun) && plain(verb), "{name}");
        }
    }
}
