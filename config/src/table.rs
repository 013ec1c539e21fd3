//! The table of keys: each with its meaning, type, default, bounds and an example. The
//! configuration itself is made from it.

use std::net::SocketAddr;
use std::path::PathBuf;

use starling_learning::compress::Codec;
use starling_learning::data::partition::Split;
use starling_protocol::limits::EXCHANGES_PER_ROUND_MAX;

use crate::profile::Profile;
use crate::values::{
    DataSource, Found, LogFormat, LogLevel, Part, Written, boolean, endpoint, is_address, is_peer,
    line, list, parsed, path, profile, socket, source, within,
};

/// One key.
#[derive(Debug)]
pub(crate) struct Field {
    /// Section it stands in.
    pub section: &'static str,
    /// Its name there.
    pub key: &'static str,
    /// What it means, line by line.
    pub doc: &'static [&'static str],
    /// What it may hold, with its unit.
    pub allowed: &'static str,
    /// A value as plain text that it may hold.
    pub example: &'static str,
    /// Puts a value in, or says what was found that does not fit.
    pub set: fn(&mut Config, Found<'_>) -> Result<(), String>,
    /// The value as TOML.
    pub get: fn(&Config) -> String,
}

impl Field {
    /// `section.key`.
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// Name of the variable that overrides it.
    pub fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}_{}", self.section, self.key).to_ascii_uppercase()
    }

    /// The example as it stands in a file.
    pub fn example_toml(&self) -> String {
        let mut config = Config::default();
        // A test sees to it that every example fits.
        let _ = (self.set)(&mut config, Found::Plain(self.example));
        (self.get)(&config)
    }
}

/// What names of variables begin with.
pub(crate) const ENV_PREFIX: &str = "STARLING_";

/// The sections in the order of the file, and what each is about.
pub(crate) const SECTIONS: &[(&str, &str)] = &[
    ("node", "Who this node is."),
    ("network", "How it finds and reaches its peers."),
    ("data", "What it learns from. Rows never leave the node."),
    ("training", "How it trains and when."),
    ("gossip", "How models travel."),
    ("storage", "What is kept on disk."),
    ("log", "What it says about itself."),
    ("serve", "What it shows over HTTP: metrics, health, a dashboard. All of it can only be read."),
    ("resources", "What it may take of this machine."),
];

macro_rules! table {
    ($(
        $(#[doc = $doc:literal])+
        $section:literal $key:literal => $name:ident: $type:ty = $default:expr,
        $read:expr, $allowed:literal, $example:literal;
    )+) => {
        /// The configuration of a node, checked.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        /// Every key, in the order of the file.
        pub(crate) const FIELDS: &[Field] = &[$(Field {
            section: $section,
            key: $key,
            doc: &[$($doc),+],
            allowed: $allowed,
            example: $example,
            set: |config, found| {
                config.$name = ($read)(found)?;
                Ok(())
            },
            get: |config| config.$name.toml(),
        }),+];
    };
}

table! {
    /// Name that people see in tables and logs.
    "node" "name" => name: String = String::new(),
    line(0..=64), "a text of at most 64 printable characters", "kitchen";

    /// Addresses to listen on; port 0 takes a free one, the same after a restart.
    "network" "listen" => listen: Vec<String> =
        vec!["/ip4/0.0.0.0/tcp/0".into(), "/ip4/0.0.0.0/udp/0/quic-v1".into()],
    list(8, is_address), "a list of at most 8 multiaddresses", "/ip4/0.0.0.0/tcp/4001";

    /// Members to call, by address and node id.
    "network" "peers" => peers: Vec<String> = Vec::new(),
    list(32, is_peer), "a list of at most 32 multiaddresses that end in /p2p/ and a node id",
    "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";

    /// Whether members on the same local network find each other by multicast DNS.
    "network" "mdns" => mdns: bool = true,
    boolean, "true or false", "false";

    /// Rows to train on: "digits" or "fashion-mnist", the path of a .csv file with a header line,
    /// or the path of an IDX file of images. Empty for none. Relative paths start at the working
    /// directory of the daemon.
    "data" "source" => data: DataSource = DataSource::None,
    source, "digits, fashion-mnist or a path", "digits";

    /// Path of the IDX file of labels that belongs to an IDX file of images.
    "data" "labels" => data_labels: Option<PathBuf> = None,
    path, "a path, or an empty text for none", "train-labels-idx1-ubyte";

    /// Column of a .csv file that holds the class.
    "data" "label_column" => data_label_column: String = "label".into(),
    line(1..=256), "a text of 1 to 256 printable characters", "species";

    /// Which part of the rows is this node's, counted from 1: "2/3" is the second of three parts.
    /// Nodes that share one data set each take another part of it.
    "data" "part" => part: Part = Part::WHOLE,
    parsed, "K/N with K from 1 to N and N at most 65536", "2/3";

    /// How rows are dealt to the parts: "iid" evenly, "shards=2" few classes to each part,
    /// "dirichlet=0.1" skewed, the more so the smaller the number.
    "data" "split" => split: Split = Split::Iid,
    parsed, "iid, shards=N with N from 1 to 1024, or dirichlet=A with A from 0.0001 to 1000000",
    "shards=2";

    /// Seed of the dealing. Nodes that share one data set must agree on it, or parts overlap.
    "data" "split_seed" => split_seed: u64 = 0,
    within(0..=u64::MAX), "a whole number from 0 to 18446744073709551615", "7";

    /// Local training steps between two exchanges with a peer.
    "training" "steps_per_round" => steps_per_round: u32 = 4,
    within(1..=10_000), "a whole number of steps from 1 to 10000", "8";

    /// Exchanges with a peer after these steps, one after the other. Two send nearly twice as much
    /// and agree better. The profile "paranoid" pulls its models once a round all the same.
    "training" "exchanges_per_round" => exchanges_per_round: u32 = 1,
    within(1..=EXCHANGES_PER_ROUND_MAX), "a whole number of exchanges from 1 to 16", "2";

    /// A round takes at least this long; 0 to go on as fast as the machine can.
    "training" "round_period_ms" => round_period_ms: u64 = 0,
    within(0..=86_400_000), "a whole number of milliseconds from 0 to 86400000", "1000";

    /// Peers that must be linked before the first round.
    "training" "start_peers" => start_peers: usize = 0,
    within(0..=32), "a whole number of peers from 0 to 32", "2";

    /// Seed of everything random that is not secret: order of rows, choice of peers.
    "training" "seed" => seed: u64 = 0,
    within(0..=u64::MAX), "a whole number from 0 to 18446744073709551615", "7";

    /// How differences to a peer's model are packed: 32, 16, 8, about 5 or 2 bits a parameter.
    /// The network must allow the codec.
    "gossip" "codec" => codec: Codec = Codec::Ref3,
    parsed, "fp32, bf16, int8, int6 or ref3", "int8";

    /// How models are mixed. "closed" is for members who know each other, "safe" has less momentum
    /// for networks that anyone may join, "paranoid" pulls six whole models a round and trims them,
    /// for when members may collude: fifteen times the bytes. Each node may choose for itself.
    "gossip" "profile" => profile: Profile = Profile::Closed,
    profile, "closed, safe or paranoid", "safe";

    /// Time between checkpoints; what is learnt since the last one is lost in a crash.
    "storage" "checkpoint_interval_s" => checkpoint_interval_s: f64 = 60.0,
    within(0.1..=86_400.0), "a number of seconds from 0.1 to 86400", "30";

    /// "json" writes one object per line, "text" is for people, "journal" sends the same objects
    /// with fields to the system's journal. "auto" is journal where standard error leads there,
    /// text on a terminal and json elsewhere.
    "log" "format" => log_format: LogFormat = LogFormat::Auto,
    parsed, "auto, json, text or journal", "json";

    /// The least severe events that are written. The others are counted only, and shown to those
    /// who ask the daemon.
    "log" "level" => log_level: LogLevel = LogLevel::Info,
    parsed, "info, warn or error", "warn";

    /// Address and port of the dashboard, /metrics, /livez and /readyz. Empty for none: several
    /// nodes of a machine cannot share a port, and any user of it may read what is served. Port 0
    /// takes a free one, which `starling status` names. There is neither password nor encryption:
    /// reach another machine's through ssh. A port that is taken is a warning and no more.
    "serve" "listen" => serve_listen: Option<SocketAddr> = None,
    socket, "an IP address with a port, or an empty text for none", "127.0.0.1:9464";

    /// OpenTelemetry collector that gets metrics and log lines every ten seconds, as OTLP over HTTP
    /// in JSON. Empty for none. Without encryption, so it should be one of this machine.
    "serve" "otlp" => serve_otlp: String = String::new(),
    endpoint, "http:// with a host, a port if it is not 4318, and no path; or an empty text",
    "http://127.0.0.1:4318";

    /// Added to the process's niceness: 19 leaves the processor to everyone else.
    "resources" "nice" => nice: u8 = 0,
    within(0..=19), "a whole number from 0 to 19", "10";

    /// Threads that serve sockets and files.
    "resources" "io_threads" => io_threads: usize = 1,
    within(1..=64), "a whole number of threads from 1 to 64", "2";
}
