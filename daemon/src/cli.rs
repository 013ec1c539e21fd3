//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use starling_config::LogLevel;
use starling_config::profile::Profile;
use starling_config::scenario::SEED_MAX;
use starling_learning::compress::Codec;
use starling_learning::data::partition::Split;
use starling_node::sim::Sabotage;

/// Peer-to-peer learning: every node trains on its own data, and averages its model with its
/// neighbours'. No server.
#[derive(Debug, Parser)]
#[command(name = "starling", version, max_term_width = 100)]
#[command(after_help = "First steps:\n  starling demo\n  starling init --data digits --part 1/3 \
                        --split shards=2 && starling run\n\nExit codes: 0 ok, 64 usage, 65 corrupt \
                        state, 66 data, 69 unavailable, 70 internal,\n74 input/output, 75 busy, 77 \
                        permissions or keys, 78 configuration.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fly a flock of real daemons on this machine and compare it with what each could learn alone
    Demo(Demo),
    /// Make a node: its key, its configuration and, with --data, a network of its own
    Init(Init),
    /// Run the node: what systemd starts
    Run(Run),
    /// Check configuration, network, key and data, and say all that is wrong
    Check(Check),
    /// Print a ticket with which other nodes join this one's network
    Invite(Invite),
    /// Join a network with a ticket
    Join(Join),
    /// Run a whole network of nodes under virtual time, from a scenario
    Simulate(Simulate),
    /// Ask a running node how it is
    Status(Status),
    /// List the peers that a running node knows, with what it thinks of them
    #[command(after_help = "Example:\n  starling peers --json | jq '.peers[] | select(.banned)'")]
    Peers(Ask),
    /// Cut a peer off until `starling unban`, also over restarts
    #[command(after_help = "Example:\n  starling ban ubMiTYC54U")]
    Ban(AskPeer),
    /// End a peer's ban, whoever made it
    #[command(after_help = "Example:\n  starling unban ubMiTYC54U")]
    Unban(AskPeer),
    /// Save now; returns when the checkpoint is on disk
    #[command(after_help = "Example:\n  starling checkpoint && cp -a /var/lib/starling /backup")]
    Checkpoint(Ask),
    /// Stop training and asking; others are answered. A restart ends it
    #[command(after_help = "Example:\n  starling pause")]
    Pause(Ask),
    /// Train again after a pause
    #[command(after_help = "Example:\n  starling resume")]
    Resume(Ask),
    /// Say goodbye, save and end the daemon; systemd does not start it again
    #[command(after_help = "Example:\n  starling leave")]
    Leave(Ask),
    /// Read the configuration again, as SIGHUP does; says what needs a restart
    #[command(after_help = "Example:\n  starling reload --json | jq .needs_restart")]
    Reload(Ask),
    /// Print every bound of a running node with its present use
    #[command(after_help = "Example:\n  starling limits")]
    Limits(Ask),
    /// Say what has left this machine, and to whom
    #[command(after_help = "Example:\n  starling privacy --json | jq .recipients")]
    Privacy(Ask),
    /// Print the catalogue of log events
    Events(Events),
    /// Print a shell's completions
    Completions(Completions),
    /// Print the manual, or write one page per command
    Man(Man),
    /// Read the log of nodes, from the journal or a file
    Logs(Logs),
}

/// Where the node lives.
#[derive(Clone, Debug, Args)]
pub struct StateDir {
    /// Directory of the node's key, configuration and checkpoints
    /// [default: $STATE_DIRECTORY, or /var/lib/starling if it is there and you are root or in its
    /// group, or ~/.local/state/starling]
    #[arg(long, value_name = "DIR", env = "STARLING_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
}

/// What a node learns from; the same for `init` and `join`.
#[derive(Clone, Debug, Default, Args)]
pub struct DataOptions {
    /// digits, fashion-mnist, a .csv file, or an IDX images file
    #[arg(long, value_name = "SOURCE")]
    pub data: Option<String>,
    /// IDX file with the labels of an IDX images file
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Column of a CSV file that holds the class
    #[arg(long, value_name = "NAME")]
    pub label_column: Option<String>,
    /// Which of how many parts of the data this node takes
    #[arg(long, value_name = "I/N")]
    pub part: Option<String>,
    /// How the parts are cut: iid, shards=K (K classes or so per part), dirichlet=A
    #[arg(long, value_name = "SPLIT")]
    pub split: Option<Split>,
    /// Address to listen at; may be repeated
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<String>,
    /// Any configuration key
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  starling demo\n  starling demo --nodes 8 --kill-every 5\n  \
                        starling demo --dashboard --kill-every 8 --seconds 120\n  \
                        starling demo --data fashion-mnist --split dirichlet=0.1\n  \
                        starling demo --fast --json | tail -1")]
pub struct Demo {
    /// Daemons to start
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub nodes: u16,
    /// digits (embedded) or fashion-mnist
    #[arg(long, default_value = "digits")]
    pub data: String,
    /// How the data is cut among the nodes: iid, shards=K, dirichlet=A
    #[arg(long, default_value = "shards=2")]
    pub split: Split,
    /// Seed of the cut and of the training
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
    /// Pace: about how long the flight takes
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// As fast as the machine allows
    #[arg(long)]
    pub fast: bool,
    /// Kill a random daemon every so many seconds, and start it again two seconds later
    #[arg(long, value_name = "SECONDS")]
    pub kill_every: Option<f64>,
    /// Codec of the models on the wire: ref3, int6, int8, bf16, fp32
    #[arg(long, default_value = "ref3")]
    pub codec: String,
    /// How models are mixed: closed, safe, paranoid
    #[arg(long, default_value = "closed")]
    pub profile: String,
    /// Show all nodes on a page that only this machine can reach, and print its address
    #[arg(long)]
    pub dashboard: bool,
    /// One JSON line per event, the verdict last
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  starling init --data digits --part 1/3 --split shards=2\n  \
                        starling init --data /srv/bank.csv --label-column fraud --name fraud-v1")]
pub struct Init {
    #[command(flatten)]
    pub place: StateDir,
    #[command(flatten)]
    pub data: DataOptions,
    /// Name of the network
    #[arg(long)]
    pub name: Option<String>,
    /// Units of the hidden layers, comma-separated; empty for softmax regression
    #[arg(long, value_name = "N,N")]
    pub hidden: Option<String>,
    /// Learning rate at the start
    #[arg(long)]
    pub rate: Option<f64>,
    /// Local steps after which learning ends; 0 for never
    #[arg(long, value_name = "STEPS")]
    pub age_max: Option<f64>,
    /// Rows per local step
    #[arg(long)]
    pub batch: Option<u32>,
    /// Let anyone join who knows the network, without a ticket
    #[arg(long)]
    pub open: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  starling run --state-dir /var/lib/starling")]
pub struct Run {
    #[command(flatten)]
    pub place: StateDir,
    /// Configuration file [default: starling.toml in the state directory]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Stop when standard input closes, and remove the state directory then
    #[arg(long, hide = true)]
    pub ephemeral: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  starling check --state-dir /var/lib/starling")]
pub struct Check {
    #[command(flatten)]
    pub place: StateDir,
    /// Configuration file [default: starling.toml in the state directory]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  starling invite --uses 2 --expires 1h")]
pub struct Invite {
    #[command(flatten)]
    pub place: StateDir,
    /// How many nodes the ticket admits
    #[arg(long, default_value_t = 1)]
    pub uses: u32,
    /// How long it is valid: 90s, 15m, 12h, 7d
    #[arg(long, default_value = "7d", value_name = "TIME")]
    pub expires: String,
    /// Print {"ticket", "uses", "not_after"} instead of the bare ticket
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  starling join starling1aeaq… --data digits --part 2/3 --split \
                        shards=2"
)]
pub struct Join {
    /// What `starling invite` printed
    pub ticket: String,
    #[command(flatten)]
    pub place: StateDir,
    #[command(flatten)]
    pub data: DataOptions,
}

#[derive(Clone, Debug, Args)]
#[command(args_override_self = true, allow_negative_numbers = true)]
#[command(after_help = "Examples:\n  starling simulate digits-n16\n  \
                        starling simulate stress --seed 3 --json\n  \
                        starling simulate fm14-n16-h4 --rule push=2 --rate 0.2\n  \
                        starling simulate fm14-n16-h4 --seeds 3 --compare\n  \
                        starling simulate partition --plot out.svg\n  \
                        starling simulate faults --seeds 10000\n\n\
                        A name that is none prints those that are built in. \
                        docs/scenarios.md says how to write one.")]
pub struct Simulate {
    /// A scenario file, or the name of one that is built in
    pub scenario: String,
    /// Nodes, instead of the scenario's
    #[arg(long)]
    pub nodes: Option<usize>,
    /// Seed, instead of the scenario's
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=SEED_MAX))]
    pub seed: Option<u64>,
    /// So many seeds, from that one on
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub seeds: u64,
    /// Age to train to, instead of the scenario's: local steps of each node, fewer for who is slow
    /// or away
    #[arg(long)]
    pub steps: Option<u32>,
    /// Of these in a round, instead of the scenario's
    #[arg(long)]
    pub steps_per_round: Option<u32>,
    /// Exchanges of each round, instead of the scenario's
    #[arg(long)]
    pub exchanges_per_round: Option<u32>,
    /// Data, instead of the scenario's: digits, fashion-mnist, fashion-mnist-14
    #[arg(long)]
    pub data: Option<String>,
    /// Split, instead of the scenario's: iid, shards=K, dirichlet=A
    #[arg(long)]
    pub split: Option<Split>,
    /// Profile, instead of the scenario's: closed, safe, paranoid, mean-only
    #[arg(long)]
    pub profile: Option<Profile>,
    /// Codec of the models on the wire, instead of the scenario's: ref3, int6, int8, bf16,
    /// fp32
    #[arg(long)]
    pub codec: Option<Codec>,
    /// starling, or a lab baseline: local, pooled, full, ring, four-regular, push=K, pull=K (K of
    /// 1 to 64)
    #[arg(long, default_value = "starling")]
    pub rule: String,
    /// With a lab baseline: give it our outer step
    #[arg(long)]
    pub outer: bool,
    /// Learning rate at the start, instead of the scenario's
    #[arg(long)]
    pub rate: Option<f64>,
    /// Partners that a node draws from, instead of the scenario's [usually 10]
    #[arg(long)]
    pub view: Option<usize>,
    /// Run the usual baselines on the same data as well
    #[arg(long)]
    pub compare: bool,
    /// Break a promise on purpose, to see that it is found: replay, mean, stranger, ban, finite,
    /// stall
    #[arg(long, value_name = "PROMISE")]
    pub sabotage: Option<Sabotage>,
    /// Draw accuracy, consensus and bytes of the first seed over time
    #[arg(long, value_name = "OUT.svg")]
    pub plot: Option<PathBuf>,
    /// JSON lines; the last is the verdict
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  starling status --json | jq .round\n  starling status --watch"
)]
pub struct Status {
    #[command(flatten)]
    pub place: StateDir,
    /// One JSON object
    #[arg(long, group = "form")]
    pub json: bool,
    /// Fill the terminal, once a second, until q is pressed
    #[arg(long, group = "form")]
    pub watch: bool,
}

/// A question to a running node.
#[derive(Debug, Args)]
pub struct Ask {
    #[command(flatten)]
    pub place: StateDir,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// The same about one peer.
#[derive(Debug, Args)]
pub struct AskPeer {
    /// Its node id, or six characters or more of the end of it
    pub peer: String,
    #[command(flatten)]
    pub ask: Ask,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  starling completions bash > \
                        /usr/share/bash-completion/completions/starling")]
pub struct Completions {
    /// bash, zsh or fish
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  starling man | man -l -\n  \
                        starling man /usr/local/share/man/man1")]
pub struct Man {
    /// Folder for the pages of all commands; without it the first page is printed
    pub directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  starling events --json | jq -r .name\n  \
                        starling events --schema > events.schema.json")]
pub struct Events {
    /// One JSON line per event
    #[arg(long, group = "form")]
    pub json: bool,
    /// The JSON Schema of a line of the log
    #[arg(long, group = "form")]
    pub schema: bool,
    /// The page docs/events.md
    #[arg(long, group = "form")]
    pub markdown: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  starling logs -f\n  starling logs --event 'round.*' --since \
                        10m --json | jq .loss\n  starling logs --unit 'starling@*' --severity \
                        warn\n  starling logs --file run.log --peer 1Nft9HyQ6X\n\nTimes are UTC. \
                        Other lines of the unit are shown unless something is asked for.")]
pub struct Logs {
    /// Go on as lines come
    #[arg(short, long)]
    pub follow: bool,
    /// Only these events; * stands for anything, may be repeated
    #[arg(long, value_name = "NAME")]
    pub event: Vec<String>,
    /// Only events about this peer: its id, or the end of it
    #[arg(long, value_name = "ID")]
    pub peer: Option<String>,
    /// Only lines of this node: its id, or the end of it
    #[arg(long, value_name = "ID")]
    pub node: Option<String>,
    /// Only events at least this severe: info, warn, error
    #[arg(long)]
    pub severity: Option<LogLevel>,
    /// Only lines not older than this: 90s, 15m, 12h, 7d
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// The JSON lines as they were written
    #[arg(long)]
    pub json: bool,
    /// Unit in the journal; starling@NAME, or 'starling*' for all
    #[arg(long, default_value = "starling", conflicts_with = "file")]
    pub unit: String,
    /// A file instead of the journal; - is standard input
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[cfg(test)]
mod pages;
