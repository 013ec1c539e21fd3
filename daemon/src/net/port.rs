//! Ports: whether one is free, and the one of the last run. libp2p shares ports for the sake of
//! hole punching, so two nodes with one port would both start, and each get half of the
//! connections.

use std::net::{SocketAddr, UdpSocket};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// Says why nobody can listen at a TCP address, if so. A taken QUIC port libp2p notices itself.
pub(super) fn probe(address: &Multiaddr) -> Result<(), String> {
    match socket_of(address) {
        Some((address, Protocol::Tcp(1..))) => {
            listen_once(address).map_err(|errno| std::io::Error::from(errno).to_string())
        }
        _ => Ok(()),
    }
}

/// `address`, which leaves the port to the system, with the port of the `last` run if that is free.
pub(super) fn again(address: &Multiaddr, last: u16) -> Option<Multiaddr> {
    if of(address) != Some(0) || last == 0 {
        return None;
    }
    let with_port = |part| match part {
        Protocol::Tcp(_) => Protocol::Tcp(last),
        Protocol::Udp(_) => Protocol::Udp(last),
        part => part,
    };
    let again: Multiaddr = address.iter().map(with_port).collect();
    let free = match socket_of(&again)? {
        (address, Protocol::Udp(_)) => UdpSocket::bind(address).is_ok(),
        (address, _) => listen_once(address).is_ok(),
    };
    free.then_some(again)
}

/// The port of an address, TCP or UDP.
pub(super) fn of(address: &Multiaddr) -> Option<u16> {
    socket_of(address).map(|(address, _)| address.port())
}

/// An address by number, and of which of the two kinds it is.
fn socket_of(address: &Multiaddr) -> Option<(SocketAddr, Protocol<'_>)> {
    let ip = super::address::ip(address)?;
    match address.iter().nth(1)? {
        part @ (Protocol::Tcp(port) | Protocol::Udp(port)) => {
            Some((SocketAddr::new(ip, port), part))
        }
        _ => None,
    }
}

fn listen_once(address: SocketAddr) -> rustix::io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        // As libp2p does it: the same port of IPv4 is another one.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // What is left of an earlier run's connections listens no more.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    listen(&socket, 1)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn probed(host: &str, port: u16) -> Result<(), String> {
        probe(&format!("{host}/tcp/{port}").parse().expect("an address"))
    }

    #[test]
    fn a_port_is_taken_within_its_family() {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        for host in ["/ip4/0.0.0.0", "/ip4/127.0.0.1"] {
            let reason = probed(host, port).expect_err(host);
            assert!(reason.starts_with("Address already in use"), "{reason}");
        }
        for host in ["/ip6/::", "/ip6/::1"] {
            assert_eq!(probed(host, port), Ok(()), "{host}");
        }
        drop(listener);
        assert_eq!(probed("/ip4/0.0.0.0", port), Ok(()));
        assert_eq!(probed("/dns4/localhost", port), Ok(()), "not ours to judge");
    }

    #[test]
    fn a_port_of_the_last_run_is_taken_again_if_it_is_free_and_none_was_asked_for() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let ports = [tcp.local_addr(), udp.local_addr()].map(|at| at.expect("bound").port());
        let asked = |port: u16| {
            let kinds = [format!("tcp/{port}"), format!("udp/{port}/quic-v1")];
            kinds
                .map(|kind| format!("/ip4/127.0.0.1/{kind}"))
                .map(|text| text.parse::<Multiaddr>().expect("an address"))
        };
        let both = |port| [0, 1].map(|index| again(&asked(port)[index], ports[index]));
        assert_eq!(both(0), [None, None], "both are taken");
        drop((tcp, udp));
        let found = both(0).map(|address| address.expect("free now"));
        assert_eq!(found, [asked(ports[0])[0].clone(), asked(ports[1])[1].clone()]);
        assert_eq!(both(4001), [None, None], "the operator chose");
        assert_eq!(again(&asked(0)[0], 0), None, "there was no last run");
    }
}
