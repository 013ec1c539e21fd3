//! The libp2p swarm: connections and who is at the end of them. It rebuilds slowly and changes
//! rarely; whatever can be elsewhere is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use futures::StreamExt;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, identity, mdns, noise, ping, tcp, tls};
use libp2p::{TransportError, yamux};
use rustix::io::Errno;
use starling_protocol::id::NodeId;
use starling_protocol::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX};
use starling_protocol::message::Hint;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::address::{advertised, dialable, node_id, outward, peer_id};
use super::door::Door;
use super::{Command, Connected, NetEvent, Options, Reported, lock, port};
use crate::exit::{Code, Failure};

/// A connection is set up within this time: five round trips around the world, and a lost packet.
const SET_UP: Duration = Duration::from_secs(4);
/// Streams of one connection at a time: a node opens one for frames, and libp2p one for pings.
const STREAMS_MAX: u16 = 32;
/// Of these, such that do not speak a protocol yet.
const NEGOTIATING_MAX: usize = 8;
/// A connection without streams is closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// Concurrent dials of one node's addresses.
const DIALS_PER_PEER: u8 = 4;
/// Events kept while listeners come up; beyond it those that are not up yet are reported later.
const EARLY_MAX: usize = 64;
/// Nodes taken from one answer on the local network.
const DISCOVERED_MAX: usize = 64;
/// A connection is tried so often, and closed once two tries in a row had no answer in time: a
/// minute after its other end has gone, for libp2p gives the stream of the second try ten seconds.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIME: Duration = Duration::from_secs(20);
/// What `network.listen` takes.
const EXPECTED: &str = "expected one like /ip4/0.0.0.0/tcp/4001";

/// The door first: it must refuse a connection before anyone hears of it.
#[derive(NetworkBehaviour)]
struct Behaviour {
    door: Door,
    ping: ping::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    stream: libp2p_stream::Behaviour,
}

/// The connections of one node.
#[derive(Debug, Default)]
struct Connections {
    live: BTreeSet<ConnectionId>,
    /// Those of a link that was given up: open only until the other end has read what was sent.
    leaving: BTreeSet<ConnectionId>,
    /// Whether the node was reported as up and not yet as down.
    announced: bool,
}

impl Connections {
    /// Up once there is a connection and none of an older link is left: a stream is opened on any.
    fn news(&mut self, peer: PeerId) -> Option<NetEvent> {
        let up = !self.live.is_empty();
        if up == self.announced || (up && !self.leaving.is_empty()) {
            return None;
        }
        self.announced = up;
        let node = node_id(peer)?;
        Some(if up { NetEvent::Up(node) } else { NetEvent::Down(node) })
    }
}

/// A swarm that listens but does not run yet.
pub(super) struct Built {
    swarm: Swarm<Behaviour>,
    listening: BTreeSet<Multiaddr>,
    /// Ports that were had, in the order in which they were asked for.
    ports: Vec<u16>,
    connections: BTreeMap<PeerId, Connections>,
    connected: Connected,
    /// Another socket of this machine has our port, where libp2p would dial from: dials get a new
    /// one from then on.
    port_shared: bool,
    /// What is to be reported next: one event as a rule, and before it runs what came meanwhile.
    news: VecDeque<NetEvent>,
}

fn behaviour(
    key: &identity::Keypair,
    with_mdns: bool,
    pings: ping::Config,
) -> Result<Behaviour, std::io::Error> {
    let local = key.public().to_peer_id();
    let mdns = with_mdns
        .then(|| mdns::tokio::Behaviour::new(mdns::Config::default(), local))
        .transpose()?;
    Ok(Behaviour {
        door: Door::default(),
        ping: ping::Behaviour::new(pings),
        mdns: Toggle::from(mdns),
        stream: libp2p_stream::Behaviour::new(),
    })
}

/// Sets the swarm up and waits until it listens at every address.
pub(super) async fn build(options: &Options) -> Result<Built, Failure> {
    let pings = ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIME);
    build_with(options, pings).await
}

async fn build_with(options: &Options, pings: ping::Config) -> Result<Built, Failure> {
    let internal = |what: &str| Failure::new(Code::Internal, format!("network set-up: {what}"));
    let key = identity::Keypair::ed25519_from_bytes(*options.key.to_seed())
        .map_err(|error| internal(&error.to_string()))?;
    let with_mdns = options.mdns;
    let swarm = SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), (tls::Config::new, noise::Config::new), || {
            let mut config = yamux::Config::default();
            config.set_max_num_streams(usize::from(STREAMS_MAX));
            config
        })
        .map_err(|error| internal(&error.to_string()))?
        .with_quic_config(|mut config| {
            config.max_concurrent_stream_limit = u32::from(STREAMS_MAX);
            config.handshake_timeout = SET_UP;
            config
        })
        .with_dns()
        .map_err(|error| internal(&error.to_string()))?
        .with_behaviour(|key| Ok(behaviour(key, with_mdns, pings)?))
        .map_err(|error| internal(&error.to_string()))?
        .with_swarm_config(|config| {
            let dials =
                std::num::NonZeroU8::new(DIALS_PER_PEER).unwrap_or(std::num::NonZeroU8::MIN);
            config
                .with_idle_connection_timeout(IDLE)
                .with_dial_concurrency_factor(dials)
                .with_max_negotiating_inbound_streams(NEGOTIATING_MAX)
        })
        .with_connection_timeout(SET_UP)
        .build();
    let mut built = Built {
        swarm,
        listening: BTreeSet::new(),
        ports: Vec::new(),
        connections: BTreeMap::new(),
        connected: Connected::default(),
        port_shared: false,
        news: VecDeque::new(),
    };
    built.listen(options).await?;
    Ok(built)
}

fn busy(text: &str, reason: &str) -> Failure {
    let message = format!(
        "cannot listen at {text}: {reason}. Stop what uses it, or choose another in network.listen"
    );
    Failure::new(Code::Unavailable, message)
}

impl Built {
    /// Listens at all of them and waits until each has an address. What else happens meanwhile is
    /// kept for whoever runs the swarm.
    async fn listen(&mut self, options: &Options) -> Result<(), Failure> {
        let texts = &options.listen;
        let last = options.ports.iter().copied().chain(core::iter::repeat(0));
        let mut addresses = Vec::with_capacity(texts.len());
        for (text, last) in texts.iter().zip(last) {
            let address = text.parse().map_err(|error| {
                let message =
                    format!("network.listen: `{text}` is no address ({error}): {EXPECTED}");
                Failure::new(Code::Config, message)
            })?;
            // All before the first: what we hold ourselves is not taken.
            port::probe(&address).map_err(|reason| busy(text, &reason))?;
            addresses.push((text, port::again(&address, last).unwrap_or(address)));
        }
        self.ports.clone_from(&options.ports);
        self.ports.resize(texts.len(), 0);
        let mut awaited = Vec::with_capacity(texts.len());
        for (index, (text, address)) in addresses.into_iter().enumerate() {
            awaited.push((self.listener(text, address)?, index, text));
        }
        while !awaited.is_empty() && self.news.len() < EARLY_MAX {
            match self.swarm.select_next_some().await {
                // Of a listener at all interfaces this is one of several.
                SwarmEvent::NewListenAddr { listener_id, address } => {
                    let found = awaited.iter().find(|(id, ..)| *id == listener_id);
                    let place = found.and_then(|(_, index, _)| self.ports.get_mut(*index));
                    if let (Some(place), Some(port)) = (place, port::of(&address)) {
                        *place = port;
                    }
                    self.listening.insert(address);
                    awaited.retain(|(id, ..)| *id != listener_id);
                }
                SwarmEvent::ListenerClosed { listener_id, reason: Err(error), .. } => {
                    if let Some((.., text)) = awaited.iter().find(|(id, ..)| *id == listener_id) {
                        return Err(busy(text, &error.to_string()));
                    }
                }
                event => self.translate(event),
            }
        }
        let told = self.told();
        self.news.push_front(told);
        Ok(())
    }

    fn listener(&mut self, text: &str, address: Multiaddr) -> Result<ListenerId, Failure> {
        self.swarm.listen_on(address).map_err(|error| match error {
            TransportError::MultiaddrNotSupported(_) => {
                let message =
                    format!("network.listen: `{text}` is neither TCP nor QUIC: {EXPECTED}");
                Failure::new(Code::Config, message)
            }
            TransportError::Other(error) => busy(text, &error.to_string()),
        })
    }

    fn told(&self) -> NetEvent {
        NetEvent::Listening(advertised(self.listening.iter(), &outward()))
    }

    pub(super) fn ports(&self) -> Vec<u16> {
        self.ports.clone()
    }

    pub(super) fn control(&self) -> libp2p_stream::Control {
        self.swarm.behaviour().stream.new_control()
    }

    pub(super) fn connected(&self) -> Connected {
        Connected::clone(&self.connected)
    }

    /// Runs until the handle is gone.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Reported>,
    ) {
        loop {
            while let Some(event) = self.news.pop_front() {
                if events.send((event, None)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                event = self.swarm.select_next_some() => self.translate(event),
                command = commands.recv() => match command {
                    Some(command) => {
                        let news = self.obey(command);
                        self.news.extend(news);
                    }
                    None => return,
                },
            }
        }
    }

    fn obey(&mut self, command: Command) -> Option<NetEvent> {
        match command {
            Command::Dial(hint) => {
                let peer = peer_id(hint.id)?;
                if self.connections.get(&peer).is_some_and(|known| !known.live.is_empty()) {
                    return None;
                }
                self.close_leaving(peer);
                let options = DialOpts::peer_id(peer)
                    .addresses(dialable(&hint))
                    .condition(PeerCondition::NotDialing);
                let options = if self.port_shared {
                    options.allocate_new_port().build()
                } else {
                    options.build()
                };
                // A dial that cannot begin is reported like one that failed.
                let error = self.swarm.dial(options).err()?;
                if matches!(error, DialError::DialPeerConditionFalse(_)) {
                    // It is about to be there.
                    return None;
                }
                Some(NetEvent::DialFailed(Some(hint.id), plain(&error)))
            }
            Command::Leave(node) => {
                let known = self.connections.get_mut(&peer_id(node)?)?;
                known.leaving.append(&mut known.live);
                known.announced = false;
                None
            }
            Command::Close(node) => {
                self.close_leaving(peer_id(node)?);
                None
            }
        }
    }

    /// Closes what is left of a link that was given up, and never a newer one.
    fn close_leaving(&mut self, peer: PeerId) {
        for id in self.connections.get(&peer).into_iter().flat_map(|known| &known.leaving) {
            self.swarm.close_connection(*id);
        }
    }

    fn established(&mut self, peer: PeerId, id: ConnectionId) -> Option<NetEvent> {
        // Who connects anew has read all it will read.
        self.close_leaving(peer);
        if let Some(node) = node_id(peer) {
            lock(&self.connected).entry(node).or_default();
        }
        let known = self.connections.entry(peer).or_default();
        known.live.insert(id);
        known.news(peer)
    }

    fn closed(&mut self, peer: PeerId, id: ConnectionId) -> Option<NetEvent> {
        let known = self.connections.get_mut(&peer)?;
        known.live.remove(&id);
        known.leaving.remove(&id);
        let news = known.news(peer);
        if known.live.is_empty() && known.leaving.is_empty() {
            self.connections.remove(&peer);
            // yamux leaves streams of a connection that we closed waiting for ever.
            let gone = node_id(peer).and_then(|node| lock(&self.connected).remove(&node));
            gone.iter().for_each(CancellationToken::cancel);
        }
        news
    }

    fn translate(&mut self, event: SwarmEvent<BehaviourEvent>) {
        let news = match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                self.listening.insert(address);
                Some(self.told())
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.listening.remove(&address);
                Some(self.told())
            }
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, .. } => {
                self.established(peer_id, connection_id)
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, .. } => {
                self.closed(peer_id, connection_id)
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.port_shared |= is_port_shared(&error);
                Some(NetEvent::DialFailed(peer_id.and_then(node_id), plain(&error)))
            }
            SwarmEvent::Behaviour(BehaviourEvent::Mdns(mdns::Event::Discovered(found))) => {
                self.news.extend(by_node(found).map(NetEvent::Discovered));
                None
            }
            // TCP itself notices a peer that lost its power, or a changed address, after a quarter
            // of an hour; until then the node looks linked, and nobody dials. libp2p tells of the
            // second failure in a row, and closes nothing.
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event {
                connection,
                result: Err(ping::Failure::Timeout | ping::Failure::Other { .. }),
                ..
            })) => {
                self.swarm.close_connection(connection);
                None
            }
            _ => None,
        };
        self.news.extend(news);
    }
}

/// What a local network was heard to say, for each node together. Those beyond the bounds are
/// announced again.
fn by_node(found: Vec<(PeerId, Multiaddr)>) -> impl Iterator<Item = Hint> {
    let mut nodes: BTreeMap<NodeId, Vec<String>> = BTreeMap::new();
    for (peer, mut address) in found {
        let Some(id) = node_id(peer) else { continue };
        if nodes.len() >= DISCOVERED_MAX && !nodes.contains_key(&id) {
            continue;
        }
        // A hint names its node once.
        if let Some(Protocol::P2p(_)) = address.iter().last() {
            address.pop();
        }
        let (known, address) = (nodes.entry(id).or_default(), address.to_string());
        if known.len() < ADDRESSES_MAX && address.len() <= ADDRESS_BYTES_MAX {
            known.push(address);
        }
    }
    nodes.into_iter().map(|(id, addresses)| Hint { id, addresses })
}

/// Which addresses were tried, each with the innermost cause: libp2p wraps it in all its layers.
fn plain(error: &DialError) -> String {
    let text = match error {
        DialError::Transport(tried) => {
            let one = |(address, error): &(Multiaddr, TransportError<std::io::Error>)| {
                let parts = address.iter().filter(|part| !matches!(part, Protocol::P2p(_)));
                format!("{}: {}", parts.collect::<Multiaddr>(), innermost(error))
            };
            tried.iter().map(one).collect::<Vec<_>>().join(", ")
        }
        other => innermost(other),
    };
    text.chars().take(300).collect()
}

/// Whether our own port could not be had. TCP only: errors of QUIC may quote the other end.
fn is_port_shared(error: &DialError) -> bool {
    let DialError::Transport(tried) = error else { return false };
    let in_use = std::io::Error::from(Errno::ADDRINUSE).to_string();
    tried.iter().any(|(address, error)| {
        let tcp = address.iter().any(|part| matches!(part, Protocol::Tcp(_)));
        tcp && innermost(error) == in_use
    })
}

fn innermost(error: &dyn std::error::Error) -> String {
    let cause = std::iter::successors(Some(error), |error| error.source()).last();
    let text = cause.unwrap_or(error).to_string();
    let line = text.rsplit("- ").next().unwrap_or(&text);
    let line = line.rsplit(": ").next().unwrap_or(line);
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    use starling_protocol::envelope::Border;
    use starling_protocol::id::{Keypair, NetworkId};

    use super::*;

    async fn listening(seed: u8, pings: Duration) -> Built {
        let key = Keypair::from_seed(&[seed; 32]);
        let border =
            Border { network: NetworkId([0; 32]), me: key.id(), epoch: 1, model_bytes_max: 0 };
        let listen = vec!["/ip4/127.0.0.1/tcp/0".to_owned()];
        let ports = Vec::new();
        let pings = ping::Config::new().with_interval(pings).with_timeout(pings);
        let options = Options { key, listen, ports, mdns: false, border };
        build_with(&options, pings).await.expect("it listens")
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(future)
    }

    #[test]
    fn a_connection_whose_other_end_is_silent_is_closed() {
        const PINGS: Duration = Duration::from_millis(200);
        /// libp2p gives the second stream ten seconds to be agreed on.
        const PATIENCE: Duration = Duration::from_secs(30);
        let id = Keypair::from_seed(&[54; 32]).id();
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let (freeze, mut frozen) = tokio::sync::oneshot::channel::<()>();
        let (thaw, thawed) = std::sync::mpsc::sync_channel::<()>(1);
        // Once it is blocked its host takes bytes, and no answer comes.
        let other = std::thread::spawn(move || {
            run(async {
                let mut theirs = listening(54, PINGS).await;
                let addresses = theirs.listening.iter().map(ToString::to_string).collect();
                tell.send(Hint { id, addresses }).expect("heard");
                loop {
                    tokio::select! {
                        event = theirs.swarm.select_next_some() => theirs.translate(event),
                        _ = &mut frozen => break,
                    }
                }
                // Until the test has ended.
                let _ = thawed.recv();
            });
        });
        run(async {
            let mut ours = listening(53, PINGS).await;
            ours.news.clear();
            assert!(ours.obey(Command::Dial(told.recv().expect("told"))).is_none());
            let mut freeze = Some(freeze);
            let both = async {
                while ours.news.len() < 2 {
                    let event = ours.swarm.select_next_some().await;
                    ours.translate(event);
                    if let Some(freeze) = freeze.take_if(|_| !ours.news.is_empty()) {
                        freeze.send(()).expect("it runs");
                    }
                }
            };
            tokio::time::timeout(PATIENCE, both).await.expect("in time");
            let news: Vec<NetEvent> = ours.news.into();
            let [NetEvent::Up(up), NetEvent::Down(down)] = news[..] else { panic!("{news:?}") };
            assert_eq!((up, down), (id, id));
        });
        drop(thaw);
        other.join().expect("well");
    }

    #[test]
    fn a_port_that_another_socket_has_too_delays_a_dial_and_no_more() {
        run(async {
            let (mut ours, mut theirs) =
                (listening(51, PING_TIME).await, listening(52, PING_TIME).await);
            let port =
                ours.listening.iter().flat_map(Multiaddr::iter).find_map(|part| match part {
                    Protocol::Tcp(port) => Some(port),
                    _ => None,
                });
            let other = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
            sockopt::set_socket_reuseport(&other, true).expect("to share");
            let address = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
            bind(&other, &address).expect("shared with the listener");
            sockopt::set_socket_reuseport(&other, false).expect("to share no more");

            let id = Keypair::from_seed(&[52; 32]).id();
            let addresses = theirs.listening.iter().map(ToString::to_string).collect();
            let hint = Hint { id, addresses };
            let mut outcomes = Vec::new();
            ours.news.clear();
            while outcomes.len() < 2 {
                if !ours.swarm.is_connected(&peer_id(id).expect("a key")) {
                    outcomes.extend(ours.obey(Command::Dial(hint.clone())));
                }
                tokio::select! {
                    event = ours.swarm.select_next_some() => ours.translate(event),
                    event = theirs.swarm.select_next_some() => theirs.translate(event),
                }
                outcomes.extend(ours.news.drain(..));
            }
            let [NetEvent::DialFailed(Some(_), reason), NetEvent::Up(up)] = &outcomes[..] else {
                panic!("{outcomes:?}")
            };
            assert!(reason.contains("Address already in use"), "{reason}");
            assert_eq!(*up, id);
        });
    }

    #[test]
    fn what_a_person_needs_of_a_dial_error() {
        let address: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().expect("an address");
        let layers = "Multiple dial errors occurred:\n - Connection refused (os error 111): \
                      Connection refused (os error 111)";
        let error = TransportError::Other(std::io::Error::other(layers));
        let error = DialError::Transport(vec![(address, error)]);
        assert_eq!(plain(&error), "/ip4/127.0.0.1/tcp/1: Connection refused (os error 111)");
    }

    #[test]
    fn all_that_is_heard_at_once_is_reported_by_node() {
        let heard = |seed: u8, port: u16| {
            let node = Keypair::from_seed(&[seed; 32]).id();
            let address = format!("/ip4/192.0.2.{seed}/tcp/{port}/p2p/{node}");
            (peer_id(node).expect("a key"), address.parse().expect("an address"))
        };
        let one: Vec<_> = (1..=2).map(|port| heard(1, port)).collect();
        let many = (2..=255).map(|seed| heard(seed, 1));
        let long = (3..=50).map(|port| heard(1, port));
        let hints: Vec<Hint> = by_node(one.into_iter().chain(many).chain(long).collect()).collect();
        assert_eq!(hints.len(), DISCOVERED_MAX);
        let first = Keypair::from_seed(&[1; 32]).id();
        let first = hints.iter().find(|hint| hint.id == first).expect("heard first");
        assert_eq!(first.addresses.len(), ADDRESSES_MAX);
        assert_eq!(first.addresses[..2], ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2"]);
    }
}
