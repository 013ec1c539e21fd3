//! Whether a port is free. libp2p shares ports for the sake of hole punching, so two nodes with
//! one port would both start, and each get half of the connections.

use std::net::{IpAddr, SocketAddr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

/// Says why nobody can listen at a TCP address, if so. A taken QUIC port libp2p notices itself.
pub(super) fn probe(address: &Multiaddr) -> Result<(), String> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => listen_once(SocketAddr::new(ip, port))
            .map_err(|errno| std::io::Error::from(errno).to_string()),
        _ => Ok(()),
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
}
