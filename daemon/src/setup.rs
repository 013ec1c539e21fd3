//! From a state directory to what a node needs to run: shared by all commands.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use starling_config::{Config, DataSource, LogFormat, load, parse_network, render_with};
use starling_node::checkpoint::CheckpointError;
use starling_node::node::Standing;
use starling_node::spec::Network;
use starling_node::{checkpoint, spec::Membership};
use starling_protocol::admission::{Certificate, check_chain, decode_chain};
use starling_protocol::id::{InvalidNodeId, Keypair, NodeId};
use starling_protocol::limits::{ADDRESSES_MAX, BANS_MAX};
use starling_protocol::message::Hint;

use crate::cli::{DataOptions, StateDir};
use crate::exit::{Code, Failure};
use crate::net::parse_contact;
use crate::store::{Loaded, Store, Unusable};

/// Where the package keeps the node of `starling.service`.
const PACKAGED: &str = "/var/lib/starling";

/// The state directory that a command works on.
pub fn state_dir(place: &StateDir) -> Result<PathBuf, Failure> {
    if let Some(directory) = &place.state_dir {
        return Ok(directory.clone());
    }
    if let Some(directory) = std::env::var_os("STATE_DIRECTORY") {
        return Ok(directory.into());
    }
    if may_operate(Path::new(PACKAGED)) {
        return Ok(PACKAGED.into());
    }
    if let Some(directory) = std::env::var_os("XDG_STATE_HOME") {
        return Ok(PathBuf::from(directory).join("starling"));
    }
    let home = std::env::var_os("HOME").ok_or_else(|| {
        Failure::new(Code::Usage, "no home directory is known: name a --state-dir")
    })?;
    Ok(PathBuf::from(home).join(".local/state/starling"))
}

/// Whether this is a folder of ours or of our group, or we are root.
fn may_operate(directory: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = std::fs::metadata(directory) else { return false };
    let groups = rustix::process::getgroups().unwrap_or_default();
    let ours = groups.iter().any(|group| group.as_raw() == found.gid());
    let user = rustix::process::geteuid();
    found.is_dir() && (ours || user.is_root() || user.as_raw() == found.uid())
}

/// How a node that was just made is started.
pub fn how_to_start(directory: &Path) -> String {
    let unit = directory.to_str().and_then(|path| path.strip_prefix(PACKAGED));
    match unit.map(|rest| (rest, rest.strip_prefix('-'))) {
        Some(("", _)) => "systemctl enable --now starling".to_owned(),
        Some((_, Some(name))) if !name.contains('/') => {
            format!("systemctl enable --now starling@{name}")
        }
        _ => format!("starling run --state-dir {}", directory.display()),
    }
}

/// Reads the configuration: the file, then the environment.
pub fn configuration(store: &Store, file: Option<&Path>) -> Result<Config, Failure> {
    let (name, text) = match file {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|error| {
                let message = format!("cannot read the configuration {}: {error}", path.display());
                Failure::new(Code::Config, message)
            })?;
            (path.display().to_string(), text)
        }
        None => {
            let text = store.read_text("starling.toml")?.unwrap_or_default();
            (store.path("starling.toml").display().to_string(), text)
        }
    };
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    load(&name, &text, &environment, &[])
        .map_err(|errors| Failure::new(Code::Config, errors.to_string()))
}

/// Reads what the network is.
pub fn network(store: &Store) -> Result<Network, Failure> {
    let text = store.read_text("network.toml")?.ok_or_else(|| {
        let message = format!(
            "{} belongs to no network: found one with `starling init --data …`, or use `starling \
             join TICKET`",
            store.root().display()
        );
        Failure::new(Code::Config, message)
    })?;
    let name = store.path("network.toml").display().to_string();
    parse_network(&name, &text).map_err(|error| Failure::new(Code::Config, error))
}

/// Reads the node's way from the root, and checks it.
pub fn membership(
    store: &Store,
    network: &Network,
    node: NodeId,
) -> Result<Vec<Certificate>, Failure> {
    let bytes = store.read("membership")?.unwrap_or_default();
    let damaged = || {
        let message = format!(
            "{} is damaged: restore it, or join again with a new ticket",
            store.path("membership").display()
        );
        Failure::new(Code::Corrupt, message)
    };
    let chain =
        if bytes.is_empty() { Vec::new() } else { decode_chain(&bytes).map_err(|_| damaged())? };
    if network.spec.membership == Membership::Invite {
        check_chain(network.id, network.spec.root, &chain, node).map_err(|denial| {
            let message = format!(
                "this node is no member of network {}: {denial}. Join it with a ticket",
                network.id.short()
            );
            Failure::new(Code::Permission, message)
        })?;
    }
    Ok(chain)
}

/// Peers take no model in a codec that is not the network's.
pub fn codec_allowed(config: &Config, network: &Network) -> Result<(), Failure> {
    let allowed = &network.spec.codecs;
    if allowed.contains(&config.codec) {
        return Ok(());
    }
    let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
    let message = format!(
        "gossip.codec: found {}, which this network does not allow; write one of {}",
        config.codec,
        allowed.join(", ")
    );
    Err(Failure::new(Code::Config, message))
}

/// Members to dial.
#[derive(Debug, Default)]
pub struct Contacts {
    /// Each with all its addresses.
    pub hints: Vec<Hint>,
    /// Lines of the file that nobody could dial.
    pub unusable: usize,
}

impl Contacts {
    fn add(&mut self, hint: Hint) {
        match self.hints.iter_mut().find(|known| known.id == hint.id) {
            Some(known) => known.addresses.extend(hint.addresses),
            None => self.hints.push(hint),
        }
    }
}

/// Reads whom to dial: those in the configuration, and those that `join` was told of. The latter
/// come from others: a wrong one among them must not keep the node from starting.
pub fn contacts(store: &Store, config: &Config) -> Result<Contacts, Failure> {
    let mut contacts = Contacts::default();
    for text in &config.peers {
        let hint = parse_contact(text)
            .map_err(|error| Failure::new(Code::Config, format!("network.peers: {error}")))?;
        contacts.add(hint);
    }
    for text in store.read_text("contacts")?.unwrap_or_default().lines() {
        match parse_contact(text) {
            Ok(hint) => contacts.add(hint),
            Err(_) => contacts.unusable += 1,
        }
    }
    Ok(contacts)
}

/// Whom the operator banned: one id a line.
pub fn bans(store: &Store) -> Result<BTreeSet<NodeId>, Failure> {
    let text = store.read_text("bans")?.unwrap_or_default();
    let ids = text.lines().take(BANS_MAX).map(str::parse);
    ids.collect::<Result<_, InvalidNodeId>>().map_err(|error| {
        let path = store.path("bans");
        Failure::new(Code::Config, format!("{}: {error}; remove the line", path.display()))
    })
}

/// Keeps the operator's bans beyond this process.
pub fn write_bans(store: &Store, bans: impl Iterator<Item = NodeId>) -> Result<(), Failure> {
    let lines: String = bans.map(|peer| format!("{peer}\n")).collect();
    store.write("bans", lines.as_bytes())
}

/// Ports of the last run, in the order of `network.listen`; what cannot be read is no loss.
pub fn ports(store: &Store) -> Vec<u16> {
    let text = store.read_text("ports").ok().flatten().unwrap_or_default();
    text.lines().take(ADDRESSES_MAX).map(|line| line.parse().unwrap_or(0)).collect()
}

/// Keeps them, if they are others than before.
pub fn write_ports(store: &Store, ports: &[u16]) -> Result<(), Failure> {
    if self::ports(store) == ports {
        return Ok(());
    }
    let lines: String = ports.iter().map(|port| format!("{port}\n")).collect();
    store.write("ports", lines.as_bytes())
}

/// A checkpoint with both its parts.
pub type Restored = (Standing, checkpoint::Vectors);

/// Reads the newest checkpoint of `network`, and puts damaged ones aside.
pub fn restore(store: &Store, network: &Network) -> Result<Loaded<Restored>, Failure> {
    store.load_checkpoint(|bytes| read_checkpoint(bytes, network))
}

/// The same without touching anything.
pub fn look_at_checkpoints(store: &Store, network: &Network) -> Result<Loaded<Restored>, Failure> {
    store.look_at_checkpoint(|bytes| read_checkpoint(bytes, network))
}

/// A node that has learnt something must not start over without being told.
pub fn refuse_to_forget(store: &Store, loaded: &Loaded<Restored>) -> Result<(), Failure> {
    if loaded.newest.is_some() || (loaded.bad.is_empty() && !store.has_bad()) {
        return Ok(());
    }
    let message = format!(
        "no checkpoint in {} can be read, and starting anew would lose what was learnt: restore \
         one, or remove the checkpoints and bad directories to start over",
        store.path("checkpoints").display()
    );
    Err(Failure::new(Code::Corrupt, message))
}

fn read_checkpoint(bytes: &[u8], network: &Network) -> Result<Restored, Unusable> {
    let checkpoint = checkpoint::decode(bytes, network.id, network.model.len()).map_err(
        |error| match error {
            CheckpointError::Network => Unusable::Foreign,
            version @ CheckpointError::Version(_) => Unusable::Version(version.to_string()),
            other => Unusable::Damaged(other.to_string()),
        },
    )?;
    let standing = Standing::decode(&checkpoint.standing)
        .map_err(|error| Unusable::Damaged(error.to_string()))?;
    Ok((standing, checkpoint.vectors))
}

/// Options of the command line as configuration keys.
fn overrides(options: &DataOptions) -> Result<Vec<(String, String)>, Failure> {
    let mut pairs = Vec::new();
    let mut push = |key: &str, value: Option<String>| {
        pairs.extend(value.map(|value| (key.to_owned(), value)));
    };
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or(path.to_owned());
    let source = options.data.as_ref().map(|text| match text.as_str() {
        "" | "digits" | "fashion-mnist" => text.clone(),
        path => absolute(Path::new(path)).display().to_string(),
    });
    push("data.source", source);
    push("data.labels", options.labels.as_ref().map(|path| absolute(path).display().to_string()));
    push("data.label_column", options.label_column.clone());
    push("data.part", options.part.clone());
    push("data.split", options.split.as_ref().map(ToString::to_string));
    push("network.listen", (!options.listen.is_empty()).then(|| options.listen.join(",")));
    for setting in &options.set {
        let (key, value) = setting.split_once('=').ok_or_else(|| {
            let message = format!("--set {setting}: expected KEY=VALUE, such as log.format=json");
            Failure::new(Code::Usage, message)
        })?;
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}

/// Makes the configuration file of a new node from the command line's options and `more`; checked.
pub fn new_configuration(
    store: &Store,
    options: &DataOptions,
    more: Vec<(String, String)>,
) -> Result<(Config, String), Failure> {
    let mut pairs = more;
    pairs.extend(overrides(options)?);
    // Later pairs win: the command line over what a command would choose.
    let mut seen = BTreeSet::new();
    pairs.reverse();
    pairs.retain(|(key, _)| seen.insert(key.clone()));
    pairs.reverse();
    load("command line", "", &[], &pairs)
        .map_err(|errors| Failure::new(Code::Usage, errors.to_string()))?;
    let borrowed: Vec<(&str, String)> =
        pairs.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let text = render_with(&borrowed);
    let name = store.path("starling.toml").display().to_string();
    let config = load(&name, &text, &[], &[])
        .map_err(|errors| Failure::new(Code::Internal, errors.to_string()))?;
    Ok((config, text))
}

/// The node's key and what it is called.
pub fn identity(store: &Store, create: bool) -> Result<(Keypair, NodeId), Failure> {
    let key = store.identity(create)?;
    let node = key.id();
    Ok((key, node))
}

/// Practice data sets are small enough to be over in a second: their nodes are paced, so that they
/// can be watched.
pub fn practice_pace(data: Option<&String>) -> Vec<(String, String)> {
    let practice = data.is_some_and(|data| matches!(data.as_str(), "digits" | "fashion-mnist"));
    let pace = ("training.round_period_ms".to_owned(), "50".to_owned());
    if practice { vec![pace] } else { Vec::new() }
}

/// Whether there is anything to learn from.
pub fn has_data(config: &Config) -> bool {
    config.data != DataSource::None
}

/// The log format of a command that is no daemon.
pub fn quiet_log() {
    crate::log::init(LogFormat::Auto);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_contact_is_left_out_unless_the_operator_named_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::create(folder.path()).expect("made");
        let id = Keypair::from_seed(&[3; 32]).id();
        let good = format!("/ip4/192.0.2.7/tcp/4001/p2p/{id}");
        let lines = format!("/ip4/192.0.2.7/tcp/none/p2p/{id}\n{good}\nhello\n");
        store.write("contacts", lines.as_bytes()).expect("written");
        let found = contacts(&store, &Config::default()).expect("enough to start");
        let hint = Hint { id, addresses: vec!["/ip4/192.0.2.7/tcp/4001".into()] };
        assert_eq!((found.hints, found.unusable), (vec![hint], 2));

        let config = Config { peers: vec!["hello".into()], ..Config::default() };
        let failure = contacts(&store, &config).expect_err("the operator's own");
        assert_eq!(failure.code, Code::Config);
        assert!(failure.message.starts_with("network.peers: `hello`"), "{failure}");
    }
}
