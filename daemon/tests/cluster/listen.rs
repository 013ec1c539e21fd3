//! Where a node listens, and what it tells others of that.

use std::collections::BTreeSet;
use std::net::TcpListener;

use serde_json::Value;
use starling_protocol::ticket::Ticket;

use crate::harness::{Home, digits, folder};

fn texts(status: &Value) -> Vec<String> {
    let addresses = status["addresses"].as_array().expect("a list").iter();
    addresses.map(|address| address.as_str().expect("text").to_owned()).collect()
}

/// The hosts of all addresses that speak this transport.
fn hosts(addresses: &[String], transport: &str) -> BTreeSet<String> {
    let parts = addresses.iter().map(|address| address.split('/').collect::<Vec<_>>());
    let fitting = parts.filter(|parts| parts.get(3) == Some(&transport));
    fitting.filter_map(|parts| parts.get(2).map(|host| (*host).to_owned())).collect()
}

#[test]
fn by_default_both_transports_are_told_of_at_every_address() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    home.ok("init", &[&digits("1/1")[..], &["--set", "network.mdns=false"]].concat());
    let daemon = home.run();
    let both = |addresses: &[String]| {
        let hosts = [hosts(addresses, "tcp"), hosts(addresses, "udp")];
        !hosts[0].is_empty() && hosts[0] == hosts[1]
    };
    let status = daemon.status("TCP and QUIC at each host", |status| both(&texts(status)));
    let ticket = Ticket::parse(&daemon.ticket(1)).expect("a ticket");
    let contacts = &ticket.terms.contacts;
    assert_eq!(contacts.len(), 1);
    assert!(both(&contacts[0].addresses), "{:?} of {status}", contacts[0].addresses);
    daemon.stop();
}

#[test]
fn one_port_serves_both_families() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    let free = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let hosts = ["/ip4/0.0.0.0", "/ip6/::"];
    let listen = hosts.map(|host| format!("{host}/tcp/{port}")).join(",");
    let set = ["--listen", &listen, "--set", "network.mdns=false"];
    home.ok("init", &[&digits("1/1")[..], &set].concat());
    let daemon = home.run();
    let wanted = ["/ip4/127.0.0.1", "/ip6/::1"].map(|host| format!("{host}/tcp/{port}"));
    daemon.status("both families", |status| {
        let told = texts(status);
        wanted.iter().all(|address| told.contains(address))
    });
    daemon.stop();
}
