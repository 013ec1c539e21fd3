//! Who is let in, before anything is known of who it is: connections that are being set up are
//! counted by where they come from, those that are by who is at the end of them.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::behaviour::{
    ConnectionClosed, ConnectionEstablished, DialFailure, FromSwarm, ListenFailure,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};
use libp2p::{Multiaddr, PeerId};
use starling_protocol::limits::LINKS_MAX;

/// Connections that are being set up at a time, of others and of ours.
const PENDING_MAX: usize = 64;
/// Of others', those from one place: a stranger that says nothing holds so many for as long as
/// setting one up may take, and keeps nobody else out. Members that share an address are set up in
/// a fraction of a second each, and try again.
const PENDING_PER_PLACE: usize = 8;
/// The same from this machine, where whole flocks share one address: half.
const PENDING_PER_LOOPBACK: usize = PENDING_MAX / 2;
/// Connections at a time, of others and of ours.
const ESTABLISHED_MAX: usize = 2 * LINKS_MAX;
/// Two nodes that dial each other at once have two for a while, beside one that is about to close.
const PER_PEER_MAX: usize = 3;

/// Counts connections and refuses those that are too many.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// Others' that are being set up, with their place.
    knocking: BTreeMap<ConnectionId, Option<IpAddr>>,
    /// Ours that are being set up.
    dialling: BTreeSet<ConnectionId>,
    /// Those that are, and whether they are ours.
    established: BTreeMap<ConnectionId, (PeerId, bool)>,
}

impl Door {
    fn knock(&mut self, id: ConnectionId, remote: &Multiaddr) -> Result<(), ConnectionDenied> {
        let (place, most) = place(remote);
        let from_there = self.knocking.values().filter(|known| **known == place).count();
        bounded("set up", self.knocking.len(), PENDING_MAX)?;
        bounded("set up from one place", from_there, most)?;
        self.knocking.insert(id, place);
        Ok(())
    }

    fn dial(&mut self, id: ConnectionId) -> Result<(), ConnectionDenied> {
        bounded("set up", self.dialling.len(), PENDING_MAX)?;
        self.dialling.insert(id);
        Ok(())
    }

    /// It is set up: whether it may stay.
    fn enter(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        ours: bool,
    ) -> Result<(), ConnectionDenied> {
        self.give_up(id);
        let of_peer = self.established.values().filter(|(known, _)| *known == peer).count();
        let alike = self.established.values().filter(|(_, known)| *known == ours).count();
        bounded("open", alike, ESTABLISHED_MAX)?;
        bounded("open to one node", of_peer, PER_PEER_MAX)
    }

    fn give_up(&mut self, id: ConnectionId) {
        self.knocking.remove(&id);
        self.dialling.remove(&id);
    }
}

fn bounded(what: &str, now: usize, most: usize) -> Result<(), ConnectionDenied> {
    if now < most {
        return Ok(());
    }
    Err(ConnectionDenied::new(format!("{most} connections are {what} already")))
}

/// Where a connection comes from, and how many may be set up from there at a time. A customer has
/// one address of IPv4, and up to 80 bits of IPv6 to choose from.
fn place(remote: &Multiaddr) -> (Option<IpAddr>, usize) {
    let ip = match remote.iter().next() {
        Some(Protocol::Ip4(ip)) => IpAddr::from(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::from(ip).to_canonical(),
        _ => return (None, PENDING_PER_PLACE),
    };
    match ip {
        ip if ip.is_loopback() => (Some(ip), PENDING_PER_LOOPBACK),
        IpAddr::V6(ip) => {
            let network = Ipv6Addr::from_bits(ip.to_bits() >> 80 << 80);
            (Some(network.into()), PENDING_PER_PLACE)
        }
        ip => (Some(ip), PENDING_PER_PLACE),
    }
}

impl NetworkBehaviour for Door {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        self.knock(id, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(id, peer, false).map(|()| dummy::ConnectionHandler)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.dial(id).map(|()| Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(id, peer, true).map(|()| dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                self.established.insert(connection_id, (peer_id, endpoint.is_dialer()));
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { connection_id, .. }) => {
                self.established.remove(&connection_id);
            }
            FromSwarm::DialFailure(DialFailure { connection_id, .. })
            | FromSwarm::ListenFailure(ListenFailure { connection_id, .. }) => {
                self.give_up(connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> ConnectionId {
        ConnectionId::new_unchecked(number)
    }

    /// How many of a hundred connections may be set up at a time.
    fn let_in(door: &mut Door, ids_from: usize, remote: impl Fn(usize) -> String) -> usize {
        let knock = |index: &usize| {
            let remote = remote(*index).parse().expect("an address");
            door.knock(id(ids_from + index), &remote).is_ok()
        };
        (0..100).filter(knock).count()
    }

    #[test]
    fn nobody_alone_keeps_others_out() {
        let mut door = Door::default();
        let port = |host: &'static str| move |index| format!("{host}/tcp/{}", 1 + index);
        assert_eq!(let_in(&mut door, 0, port("/ip4/192.0.2.1")), 8);
        assert_eq!(let_in(&mut door, 100, port("/ip4/192.0.2.2")), 8);
        let same_48 = |index| format!("/ip6/2001:db8:1:{index:x}::1/udp/1/quic-v1");
        assert_eq!(let_in(&mut door, 200, same_48), 8);
        assert_eq!(let_in(&mut door, 300, port("/ip6/2001:db8:2::1")), 8);
        let mapped = port("/ip6/::ffff:192.0.2.1");
        assert_eq!(let_in(&mut door, 400, mapped), 0, "the first once more");
        assert_eq!(let_in(&mut door, 500, port("/ip4/127.0.0.1")), 32);
        assert_eq!(let_in(&mut door, 600, port("/ip4/192.0.2.3")), 0, "64 of all");
        door.give_up(id(0));
        door.give_up(id(100));
        let back = "/ip4/192.0.2.1/tcp/1".parse().expect("an address");
        assert!(door.knock(id(700), &back).is_ok());
        assert_eq!(let_in(&mut door, 800, port("/ip4/192.0.2.3")), 1);
    }

    #[test]
    fn open_ones_are_bounded_by_who_opened_them_and_by_peer() {
        let mut door = Door::default();
        let remote = "/ip4/192.0.2.1/tcp/1".parse().expect("an address");
        let peers: Vec<PeerId> = (0..=ESTABLISHED_MAX).map(|_| PeerId::random()).collect();
        for (index, peer) in peers.iter().enumerate() {
            assert!(door.knock(id(index), &remote).is_ok());
            let entered = door.enter(id(index), *peer, false).is_ok();
            assert_eq!(entered, index < ESTABLISHED_MAX);
            if entered {
                door.established.insert(id(index), (*peer, false));
            }
        }
        assert!(door.knocking.is_empty());
        for index in 1000..1000 + PER_PEER_MAX {
            let entered = door.enter(id(index), peers[0], true).is_ok();
            assert_eq!(entered, index < 1000 + PER_PEER_MAX - 1, "theirs counts too");
            door.established.insert(id(index), (peers[0], true));
        }
    }
}
