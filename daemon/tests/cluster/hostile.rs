//! Strangers at the port of a node and at its control socket: it goes on, and stays small.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use serde_json::Value;

use crate::harness::{Daemon, Home, PATIENCE, digits, flock, folder, wait_for};

/// Connections of each kind.
const CONNECTIONS: u8 = 50;
/// What a node may grow by for all of them.
const GROWTH_MAX_KB: u64 = 8 * 1024;
/// What a node of this size takes at most, in a build that is not optimised either.
const RESIDENT_MAX_KB: u64 = 32 * 1024;
const CLIENTS: usize = 20;
/// Silent connections of one address: more than there are places for all.
const CROWD: usize = 80;
/// So many of them come back at a time.
const BATCH: usize = 16;
/// Where they come from.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// A newcomer is let in within this time all the same.
const ADMISSION_MAX: Duration = Duration::from_secs(10);

/// Bytes without a pattern.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| byte()).collect()
}

/// What strangers send; nothing at all is the last kind.
fn openings(seed: u8) -> [Vec<u8>; 4] {
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[seed; 32]].concat();
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    [noise(u64::from(seed), 4096), request, hello, Vec::new()]
}

/// Connects and sends. The node may close whenever it likes.
fn knock(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("the node listens");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    let _ = stream.write_all(bytes);
    stream
}

/// Connects from another address of this machine.
fn connect_from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.expect("a socket");
    bind(&socket, &SocketAddr::from((source, 0))).expect("all of 127.0.0.0/8 is this machine");
    connect(&socket, &address).expect("the node listens");
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(true).expect("set");
    stream
}

/// Keeps so many silent connections that one address could fill every place, until told to stop.
fn crowd(address: SocketAddr, knocks: &AtomicUsize, over: &AtomicBool) {
    let mut held: Vec<TcpStream> = Vec::new();
    wait_for("the end of the crowd", PATIENCE, || {
        held.retain(|stream| {
            let closed = stream.peek(&mut [0]);
            closed.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
        let back = (CROWD - held.len()).min(BATCH);
        held.extend((0..back).map(|_| connect_from(STRANGER, address)));
        knocks.fetch_add(back, Ordering::Relaxed);
        over.load(Ordering::Relaxed).then_some(())
    });
}

fn assert_sound(daemon: &mut Daemon) {
    assert!(daemon.is_alive());
    for name in ["internal.panic", "daemon.degraded", "peer.banned", "library.logged"] {
        assert_eq!(daemon.count(name), 0, "{name}");
    }
}

#[test]
fn strangers_at_the_port_change_nothing() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 2, &[]);
    daemons[0].wait_exchanges(20);
    let target = &daemons[0];
    let before = target.memory_kb("VmRSS");
    assert!(before < RESIDENT_MAX_KB, "{before} kB");
    let (address, ticket) = (target.address(), target.ticket(1));
    let mut held = Vec::new();
    for seed in 0..CONNECTIONS {
        let streams = openings(seed).map(|bytes| knock(address, &bytes));
        // Those that say nothing stay, and some that said too little.
        let [_, _, hello, silent] = streams;
        held.push(silent);
        if seed.is_multiple_of(5) {
            held.push(hello);
        }
    }
    target.wait_exchanges(20);
    let during = target.memory_kb("VmRSS");
    assert!(during < before + GROWTH_MAX_KB, "{before} kB became {during} kB");
    target.wait_peers(1);
    assert_eq!(target.count("peer.disconnected"), 0);
    drop(held);

    // With a crowd at the door that comes back whenever it is shown out, a member still gets in.
    let newcomer = Home::new(folder.path(), "newcomer");
    let (knocks, admitted) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| crowd(address, &knocks, &admitted));
        let turned_away = || knocks.load(Ordering::Relaxed) >= 2 * CROWD;
        wait_for("a full door", PATIENCE, || turned_away().then_some(()));
        let began = Instant::now();
        let outcome = newcomer.try_join(&ticket, &digits("1/2"));
        admitted.store(true, Ordering::Relaxed);
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        assert!(began.elapsed() < ADMISSION_MAX, "{:?}", began.elapsed());
    });
    target.wait_exchanges(20);
    let after = target.memory_kb("VmRSS");
    assert!(after < before + GROWTH_MAX_KB, "{before} kB became {after} kB");
    daemons.iter_mut().for_each(assert_sound);
}

#[test]
fn a_silent_stranger_is_shown_out() {
    let folder = folder();
    let daemon = flock(folder.path(), 1, &[]).pop().expect("one");
    let mut stream = knock(daemon.address(), b"");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let mut heard = Vec::new();
    let ended = stream.read_to_end(&mut heard);
    let reset = |kind| matches!(kind, ErrorKind::ConnectionReset);
    assert!(ended.is_ok() || ended.is_err_and(|error| reset(error.kind())));
}

/// Sends bytes to the control socket; the answer, or none if the daemon just closed it.
fn tell(daemon: &Daemon, bytes: &[u8]) -> Option<Value> {
    let mut stream = UnixStream::connect(daemon.home.path("control.sock")).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.set_write_timeout(Some(PATIENCE)).expect("set");
    // It need not take all of it.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("no end: {error}"),
        _ => {}
    }
    assert!(answer.len() <= 64 * 1024);
    (!answer.is_empty()).then(|| serde_json::from_slice(&answer).expect("JSON"))
}

#[test]
fn strangers_at_the_control_socket_change_nothing() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 2, &[]);
    daemons[0].wait_exchanges(5);
    let target = &daemons[0];
    let before = target.memory_kb("VmRSS");
    let error = |bytes: &[u8]| tell(target, bytes).map(|answer| answer["error"].clone());
    let not_json = |answer: &Option<Value>| {
        let text = answer.as_ref().and_then(Value::as_str);
        text.is_some_and(|text| text.starts_with("not one line of JSON: "))
    };
    for garbage in [&b"{\"command\":"[..], b"hello\n", b"\n", b""] {
        let answer = error(garbage);
        assert!(not_json(&answer), "{answer:?}");
    }
    let unknown = "unknown command: expected one of status, peers, ";
    for question in ["{\"command\":\"fly\"}\n", "{}\n", "[1]\n", "null\n"] {
        let answer = error(question.as_bytes()).expect("an answer");
        let told = answer.as_str().is_some_and(|text| text.starts_with(unknown));
        assert!(told, "{question}: {answer}");
    }
    for answer in [error(&vec![b'x'; 1 << 20]), error(&vec![b'['; 1 << 20])] {
        assert!(answer.is_none() || not_json(&answer), "{answer:?}");
    }
    assert_eq!(error(&[0xff, 0xfe, b'\n']), None, "no UTF-8, no answer");
    for uses in ["0", "-1", "10001", "\"2\"", "1e3"] {
        let question = format!("{{\"command\":\"invite\",\"uses\":{uses},\"seconds\":60}}\n");
        let answer = error(question.as_bytes()).expect("an answer");
        assert!(answer.as_str().is_some_and(|text| text.contains("1 to 10000")), "{answer}");
    }

    let silent = UnixStream::connect(target.home.path("control.sock")).expect("it listens");
    let ask = || tell(target, b"{\"command\":\"status\"}\n").expect("an answer");
    let answers: Vec<Value> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().expect("no panic")).collect()
    });
    assert_eq!(answers.len(), CLIENTS);
    assert!(answers.iter().all(|answer| answer["node"] == answers[0]["node"]), "{answers:?}");
    assert_eq!(answers[0]["peers"].as_array().map(Vec::len), Some(1));
    drop(silent);

    target.wait_exchanges(5);
    let after = target.memory_kb("VmRSS");
    assert!(after < before + GROWTH_MAX_KB, "{before} kB became {after} kB");
    daemons.iter_mut().for_each(assert_sound);
    // Nobody wakes up with a listener that is gone.
    let quick = wait_for("an answer", Duration::from_secs(20), || daemons[0].try_status());
    assert_eq!(quick["degraded"], false);
}
