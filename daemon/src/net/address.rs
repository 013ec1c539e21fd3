//! Between our names of nodes and addresses and libp2p's.

use std::net::{IpAddr, UdpSocket};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId, identity};
use starling_protocol::id::NodeId;
use starling_protocol::limits::{ADDRESS_BYTES_MAX, ADDRESSES_MAX};
use starling_protocol::message::Hint;

pub(super) fn peer_id(node: NodeId) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&node.0).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The node behind a peer id; none for keys that are not Ed25519.
pub(super) fn node_id(peer: PeerId) -> Option<NodeId> {
    peer.to_string().parse().ok()
}

/// Splits `/ip4/…/tcp/…/p2p/12D3…` into a node and where to find it.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_contact(text: &str) -> Result<Hint, String> {
    let expected = "expected an address like /ip4/192.0.2.7/tcp/4001/p2p/12D3KooW…";
    let mut address: Multiaddr =
        text.parse().map_err(|error| format!("`{text}` is no address ({error}): {expected}"))?;
    match address.pop() {
        Some(Protocol::P2p(_)) if address.is_empty() => {
            Err(format!("`{text}` does not say where the node is: {expected}"))
        }
        Some(Protocol::P2p(peer)) => {
            let id = node_id(peer).ok_or_else(|| format!("`{peer}` is no Ed25519 node id"))?;
            Ok(Hint { id, addresses: vec![address.to_string()] })
        }
        _ => Err(format!("`{text}` names no node: {expected}")),
    }
}

/// The addresses of a hint that can be dialled at all.
pub(super) fn dialable(hint: &Hint) -> Vec<Multiaddr> {
    hint.addresses.iter().filter_map(|text| text.parse().ok()).take(ADDRESSES_MAX).collect()
}

/// The address by number with which it begins, if it does.
pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

/// The addresses from which this machine would speak to the rest of the world, if it can. Asking
/// which these are sends nothing.
pub(super) fn outward() -> Vec<IpAddr> {
    // Documentation prefixes (RFC 5737, RFC 3849): no route but the default one leads there.
    let pairs = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    let address = |(from, to)| {
        let socket = UdpSocket::bind::<&str>(from).ok()?;
        socket.connect::<&str>(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    pairs.into_iter().filter_map(address).collect()
}

/// What we tell others of where we listen: those of the way out first, as there may be more than
/// are told, of container bridges for instance, and those of this machine alone last.
pub(super) fn advertised<'a>(
    listening: impl Iterator<Item = &'a Multiaddr>,
    outward: &[IpAddr],
) -> Vec<String> {
    let is = |address: &Multiaddr, what: &dyn Fn(IpAddr) -> bool| ip(address).is_some_and(what);
    let link_local = |ip| match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let mut all: Vec<&Multiaddr> = listening.filter(|address| !is(address, &link_local)).collect();
    all.sort_by_key(|address| {
        let local = is(address, &|ip| ip.is_loopback());
        (local, !is(address, &|ip| outward.contains(&ip)), address.to_string())
    });
    all.dedup();
    all.iter()
        .map(|address| address.to_string())
        .filter(|text| text.len() <= ADDRESS_BYTES_MAX)
        .take(ADDRESSES_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use starling_protocol::id::Keypair;

    use super::*;

    #[test]
    fn names_agree_with_libp2p() {
        let node = Keypair::from_seed(&[3; 32]).id();
        let peer = peer_id(node).expect("valid key");
        assert_eq!(peer.to_string(), node.to_string());
        assert_eq!(node_id(peer), Some(node));
    }

    #[test]
    fn contacts_name_a_node_and_a_place() {
        let node = Keypair::from_seed(&[3; 32]).id();
        let hint = parse_contact(&format!("/ip4/192.0.2.7/tcp/4001/p2p/{node}")).expect("whole");
        assert_eq!(hint, Hint { id: node, addresses: vec!["/ip4/192.0.2.7/tcp/4001".into()] });
        let nowhere = format!("/p2p/{node}");
        for wrong in ["", "192.0.2.7:4001", "/ip4/192.0.2.7/tcp/4001", "/p2p/xyz", &nowhere] {
            assert!(parse_contact(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn outside_addresses_come_first_and_link_local_ones_not_at_all() {
        let texts = ["/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1", "/ip4/192.0.2.7/tcp/1"];
        let parsed: Vec<Multiaddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        let told = advertised(parsed.iter(), &[]);
        assert_eq!(told, ["/ip4/192.0.2.7/tcp/1", "/ip4/127.0.0.1/tcp/1"]);
    }

    #[test]
    fn the_way_out_is_told_first_however_many_bridges_there_are() {
        let bridges = (0..20).map(|bridge| format!("/ip4/172.{bridge}.0.1/tcp/1"));
        let texts = bridges.chain(["/ip4/192.168.1.7/tcp/1".to_owned()]);
        let parsed: Vec<Multiaddr> = texts.filter_map(|text| text.parse().ok()).collect();
        let told = advertised(parsed.iter(), &[IpAddr::from([192, 168, 1, 7])]);
        assert_eq!((told.len(), &told[0][..]), (ADDRESSES_MAX, "/ip4/192.168.1.7/tcp/1"));
    }
}
