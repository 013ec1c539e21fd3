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
        { version: String, network_id: String, state_dir: String, parameters: usize, rows: usize }
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
        "A peer is cut off: for twelve hours because it sent what no honest node sends, or, with \
         reason operator, until it is unbanned."
        "Find out who runs it.";
    PeerUnbanned "peer.unbanned" Info { peer: String }
        "The operator ended a peer's ban." "None.";
    PeerAdmitted "peer.admitted" Info { peer: String, uses_left: u32 }
        "A ticket holder became a member." "None.";
    FrameRejected "frame.rejected" Warn { peer: String, reason: String }
        "A frame was refused at the border." "None unless it repeats.";
    MeshJoined "mesh.joined" Info { age: f64, snapshots: usize, peers: usize }
        "The node trains with the flock." "None.";
    MeshIsolated "mesh.isolated" Warn { rounds: u64, reason: String }
        "Nobody has exchanged with this node for five rounds and five seconds."
        "Check the network and the peers.";
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
    TrainPaused "train.paused" Info { round: u64 }
        "The operator paused training; the node answers others with the model it has."
        "starling resume.";
    TrainResumed "train.resumed" Info { round: u64 }
        "Training goes on after a pause." "None.";
    CheckpointSaved "checkpoint.saved" Info { generation: u64, age: f64, round: u64, bytes: usize }
        "A checkpoint is on disk." "None.";
    CheckpointFailed "checkpoint.failed" Error { reason: String }
        "A checkpoint could not be written; the last good one is kept."
        "Free disk space, check permissions.";
    DaemonDegraded "daemon.degraded" Error { reason: String }
        "Something does not work; the rest goes on." "Act on the reason.";
    DaemonRecovered "daemon.recovered" Info { reason: String }
        "It works again." "None.";
    ControlRequested "control.requested" Info { command: String, uid: u32, pid: u32 }
        "Someone on this machine asked for a change over the control socket. Users whom the unit's \
         sandbox hides have uid 65534, a hidden process pid 0."
        "None unless it was not one of you.";
    ConfigReloaded "config.reloaded" Info { applied: Vec<String> }
        "The configuration was read again; these keys had changed and are in force." "None.";
    ConfigReloadNeedsRestart "config.reload_needs_restart" Warn { keys: Vec<String> }
        "These keys have changed in the file, and the old values stay in force until a restart."
        "Restart the daemon when it suits.";
    ConfigReloadRejected "config.reload_rejected" Error { problems: Vec<String> }
        "The configuration was read again and is wrong; all of the old one stays in force."
        "Correct the lines and reload.";
    DaemonStopping "daemon.stopping" Info { reason: String }
        "The daemon saves and leaves." "None.";
    DaemonFailed "daemon.failed" Error { exit_code: u8, reason: String, problems: Vec<String> }
        "The daemon cannot start or go on. If the configuration is wrong in several places, \
         problems has all but the first of them."
        "Act on the reason.";
    DaemonStopped "daemon.stopped" Info {
        exit_code: u8, age: f64, round: u64,
        sent_bytes: u64, received_bytes: u64, payload_sent_bytes: u64,
    }
        "The last line of a boot." "None.";
    LogSuppressed "log.suppressed" Warn { lines: u64 }
        "So many lines were held back that no other line tells of: of peers in a crowd, or of one \
         that has fallen silent."
        "See which warnings come often; the counters have them all.";
    LibraryLogged "library.logged" Warn { source: String, text: String }
        "A library that Starling uses has something to say." "None unless it repeats.";
    InternalPanic "internal.panic" Error { place: String }
        "A defect of Starling." "Report it with this line.";
}

/// What the fields mean, with their units; a field means the same in all events.
const FIELDS: &[(&str, &str)] = &[
    ("accepted", "Models of partners that were merged in this boot."),
    ("address", "Address and port that it is about."),
    ("addresses", "Addresses at which the node listens."),
    ("age", "Training that is in the model, in local steps."),
    ("applied", "Keys that had changed and are in force."),
    ("bytes", "Size, in bytes."),
    ("command", "What was asked for, a command of starling."),
    ("consensus", "Usual distance of models from their mean, as a share of the model's length."),
    ("cross_accuracy", "Share of partners' hold-out rows that our model gets right, 0 to 1."),
    ("distance", "Length of the difference between the partner's model and ours."),
    ("dropped", "Lines that were lost on the way."),
    ("duration_ms", "Time that the last round took, in milliseconds."),
    ("exit_code", "Exit code of the process."),
    ("failed", "Exchanges that failed in this boot."),
    ("generation", "Number of the checkpoint."),
    ("keys", "Keys whose new values wait for a restart."),
    ("lines", "Lines that were held back."),
    ("loss", "Mean training loss of the last round."),
    ("network_id", "Full id of the network."),
    ("parameters", "Parameters of the model."),
    ("payload_sent_bytes", "Bytes of models sent in this boot, of sent_bytes."),
    ("peer", "Full id of the other node."),
    ("peers", "Members that are linked now."),
    ("pid", "Process that asked; 0 if it is hidden."),
    ("place", "Source file and line."),
    ("problems", "At most 16 lines, each with place, key and what to write instead."),
    ("rate", "Learning rate, per step."),
    ("reason", "Why, from a closed list where no text of the system follows."),
    ("received_bytes", "Bytes received in this boot."),
    ("rejected", "Models of partners that were not merged in this boot."),
    ("round", "Rounds of this node since it was made."),
    ("rounds", "Rounds it is about."),
    ("rows", "Rows of training data."),
    ("sent_bytes", "Bytes sent in this boot."),
    ("snapshots", "Models of members that the node began with."),
    ("source", "Library that speaks."),
    ("state_dir", "State directory."),
    ("text", "What it says."),
    ("threshold", "Largest distance that is merged; null for any."),
    ("uid", "User that asked; 65534 if the sandbox hides it."),
    ("uses_left", "Nodes that the ticket still admits."),
    ("version", "Version of Starling."),
    ("wanted", "Members that must be linked before training begins."),
];

/// What a field means, with its unit; empty for a name that is none.
#[must_use]
pub fn field_meaning(name: &str) -> &'static str {
    let found = FIELDS.iter().find(|(field, _)| *field == name);
    found.map(|(_, meaning)| *meaning).unwrap_or_default()
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

    #[test]
    fn every_field_has_its_meaning_and_every_meaning_its_field() {
        let used = CATALOGUE.iter().flat_map(|entry| entry.fields).map(|(name, _)| *name);
        let used: BTreeSet<_> = used.collect();
        let told: BTreeSet<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        assert_eq!(used, told);
    }
}
