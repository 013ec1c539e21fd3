//! What a daemon serves over HTTP: what there is, that it is true, and what it does not put up
//! with.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write, stderr};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::demo::FLIGHT_MAX;
use crate::harness::{
    Daemon, Home, PATIENCE, Process, binary, digits, flock, folder, number, starling, wait_for,
    whole,
};
use crate::restart::block;

/// Longer than a daemon puts up with a slow client.
const CUT_MAX: Duration = Duration::from_secs(10);
/// Shows a node at a port of the system's choice.
pub const SERVE: &str = "serve.listen=127.0.0.1:0";

/// Where it shows itself.
pub fn served(daemon: &Daemon) -> SocketAddr {
    let started = daemon.event("serve.started");
    let url = started["address"].as_str().expect("a text");
    let address = url.strip_prefix("http://").and_then(|url| url.strip_suffix('/'));
    address.expect("an address").parse().expect("a socket address")
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    stream
}

/// Sends a request as it stands; the status code, the head and the body.
fn send(address: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut reply = String::new();
    stream.read_to_string(&mut reply).expect("it answers in text");
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {reply}"));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, head.to_lowercase(), body.to_owned())
}

/// Asks as a monitor does; the status code, the head and the body.
pub fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n"))
}

fn json(address: SocketAddr, path: &str) -> (u16, Value) {
    let (code, _, body) = get(address, path);
    (code, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
}

/// One sample of the metrics.
pub fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("starling_{name} ")));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Asks for events; a reader of their lines, after the head.
pub fn follow(address: SocketAddr) -> (String, BufReader<TcpStream>) {
    let mut stream = connect(address);
    let request = format!("GET /api/events HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.read_line(&mut status).expect("it answers");
    (status, reader)
}

/// One node that learns without an end and shows itself.
fn serving(folder: &tempfile::TempDir) -> Daemon {
    let home = Home::new(folder.path(), "node");
    home.init(&[&digits("1/1")[..], &["--age-max", "0", "--set", SERVE]].concat());
    home.run()
}

#[test]
fn metrics_status_and_history_say_the_same_and_health_is_true() {
    let folder = folder();
    let mut daemons = flock(folder.path(), 2, &[SERVE, "training.round_period_ms=20"]);
    let address = served(&daemons[0]);
    daemons[0].wait_exchanges(5);
    let (before, status, text, after) =
        wait_for("a published status with a peer", PATIENCE, || {
            let before = daemons[0].try_status()?;
            let status = json(address, "/api/status").1;
            let text = get(address, "/metrics").2;
            let after = daemons[0].try_status()?;
            // What is published is up to a second older than what was waited for.
            let shows = whole(&status, "rounds") >= 5 && whole(&status, "accepted") >= 5;
            (shows && status["peers"].as_array()?.len() == 1)
                .then_some((before, status, text, after))
        });
    assert_eq!(metric(&text, "peers{state=\"linked\"}"), 1.0);
    assert_eq!(metric(&text, "phase{phase=\"train\"}"), 1.0);
    assert_eq!(status["node"], before["node"]);
    let accepted = metric(&text, "updates_received_total{result=\"accepted\"}");
    assert!(accepted >= 1.0 && accepted <= number(&after, "accepted"), "{text}");
    // The page is a second behind the control socket at most, and never ahead.
    for (name, key) in [("round", "round"), ("model_age_steps", "age"), ("boot", "boot")] {
        let (value, now) = (metric(&text, name), number(&after, key));
        assert!(value <= now && value >= number(&status, key), "{name}: {value} {now} {status}");
    }
    // Nothing but merges is in the tallies of links, and these links never ended.
    let peer = &after["peers"][0];
    assert_eq!(whole(peer, "accepted"), whole(&after, "accepted"));
    assert_eq!(whole(peer, "rejected"), whole(&after, "rejected"));
    assert!(number(peer, "last_exchange_s") < 10.0, "{peer}");
    let model = metric(&text, "network_bytes_total{direction=\"sent\",kind=\"model\"}");
    let control = metric(&text, "network_bytes_total{direction=\"sent\",kind=\"control\"}");
    assert!(model > 0.0 && control > 0.0);
    let count = metric(&text, "round_duration_seconds_count");
    assert!(count >= 5.0 && metric(&text, "round_duration_seconds_sum") > 0.0, "{text}");
    assert_eq!(metric(&text, "round_duration_seconds_bucket{le=\"+Inf\"}"), count);

    let history = json(address, "/api/history").1;
    let columns = &history[status["node"].as_str().expect("an id")];
    let length = columns["time_s"].as_array().expect("times").len();
    assert!(length >= 1);
    assert_eq!(columns["loss"].as_array().map(Vec::len), Some(length));

    assert_eq!(json(address, "/livez").0, 200);
    let (code, ready) = json(address, "/readyz");
    assert_eq!((code, &ready["ready"]), (200, &Value::Bool(true)), "{ready}");
    let (code, head, page) = get(address, "/");
    assert!(code == 200 && page.starts_with("<!doctype html>"), "{page}");
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    assert!(head.contains("nosniff") && !head.contains("access-control"), "{head}");

    assert_known_to_prometheus(&text);

    // Its only neighbour dies: no longer ready, and remembered as gone.
    daemons.remove(1).kill();
    let (_, ready) = wait_for("a node that is not ready", PATIENCE, || {
        Some(json(address, "/readyz")).filter(|(code, _)| *code == 503)
    });
    assert_eq!(ready["checks"]["mesh"]["ok"], false, "{ready}");
    assert_eq!(ready["checks"]["storage"]["ok"], true, "{ready}");
    let status = json(address, "/api/status").1;
    assert_eq!(status["gone"].as_array().map(Vec::len), Some(1), "{status}");
    // What the alerts on lonely nodes look at.
    let text = wait_for("an isolated node", PATIENCE, || {
        Some(get(address, "/metrics").2).filter(|text| metric(text, "isolated") == 1.0)
    });
    assert_eq!(metric(&text, "ready"), 0.0);
    assert_eq!(metric(&text, "peers{state=\"linked\"}"), 0.0);
    assert_eq!(metric(&text, "isolations_total"), 1.0);
    assert!(metric(&text, "last_merge_age_seconds") > 0.0);
    daemons.remove(0).stop();
}

/// Names in a text that are metrics of ours.
fn names(text: &str) -> BTreeSet<String> {
    let ends = |letter: char| !(letter.is_ascii_alphanumeric() || letter == '_');
    let found = text
        .match_indices("starling_")
        .filter(|(at, _)| text[..*at].chars().next_back().is_none_or(ends));
    let whole = found.filter_map(|(at, _)| text[at..].split(ends).next());
    whole.map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect()
}

/// What is selected of our metrics by label: name, label and value, for each value by itself.
fn selected(text: &str) -> Vec<(String, String, String)> {
    // Within JSON a quote has a backslash.
    let text = text.replace("\\\"", "\"");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("starling_") {
        let Some((name, rest)) = text[at..].split_once('{') else { continue };
        if !name.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_') {
            continue;
        }
        let matchers = rest.split_once('}').expect("a selector ends").0;
        for matcher in matchers.split(',') {
            let (label, values) = matcher.split_once('=').expect("a label and a value");
            let values = values.trim_start_matches('~').trim_matches('"');
            // Prometheus itself gives these two.
            let label = label.trim_end_matches('!');
            if !["job", "instance"].contains(&label) {
                let each = values.split('|');
                found.extend(each.map(|value| (name.into(), label.into(), value.into())));
            }
        }
    }
    found
}

/// An alert on a label's value that no node has would never fire, whatever happens.
fn assert_selectors_match(asked: &str, served: &str, file: &str) {
    let selected = selected(asked);
    assert!(!selected.is_empty(), "{file}");
    for (name, label, value) in selected {
        let wanted = format!("{label}=\"{value}\"");
        let mut samples = served.lines().filter_map(|line| line.strip_prefix(&format!("{name}{{")));
        let found = samples.any(|sample| {
            let labels = sample.split_once('}').map_or("", |(labels, _)| labels);
            labels.split(',').any(|label| label == wanted)
        });
        assert!(found, "{file} selects {name}{{{wanted}}}, which no node has");
    }
}

#[test]
fn selectors_are_found_and_a_wrong_one_is_noticed() {
    let rules =
        "starling_a{b=\"c\"} > 0\nstarling_d\n\"starling_e{job=\\\"$job\\\",f=~\\\"g|h\\\"}\"";
    let each = [("starling_a", "b", "c"), ("starling_e", "f", "g"), ("starling_e", "f", "h")];
    let each = each.map(|(name, label, value)| (name.into(), label.into(), value.into()));
    assert_eq!(selected(rules), each);
    let served = "starling_a{b=\"c\"} 1\nstarling_e{f=\"g\",i=\"j\"} 0\nstarling_e{f=\"x\"} 0\n";
    assert_selectors_match("starling_a{b=\"c\"} starling_e{i=\"j\"}", served, "right");
    let wrong = std::panic::catch_unwind(|| assert_selectors_match(rules, served, "wrong"));
    assert!(wrong.is_err(), "no node has h");
}

/// What the alerts and the Grafana dashboard ask for is there, and Prometheus's own checker, where
/// it is installed, has nothing to say against any of it.
fn assert_known_to_prometheus(text: &str) {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let served: BTreeSet<String> = types.map(str::to_owned).collect();
    for file in ["prometheus/starling.rules.yml", "grafana/starling.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(file);
        let asked = fs::read_to_string(&path).expect(file);
        assert_selectors_match(&asked, text, file);
        let asked = names(&asked);
        assert!(asked.len() > 5, "{file}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&served).collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
    let monitor = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/monitor.md");
    let explained = names(&fs::read_to_string(monitor).expect("docs/monitor.md"));
    let unexplained: Vec<_> = served.difference(&explained).collect();
    assert!(unexplained.is_empty(), "docs/monitor.md lacks {unexplained:?}");

    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut promtool) = command.stdout(Stdio::piped()).spawn() else {
        let _ = writeln!(stderr(), "SKIPPED: promtool is not installed (check metrics)");
        return;
    };
    let mut input = promtool.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn a_disk_that_refuses_shows_in_health_and_metrics() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    let pace = ["--set", "storage.checkpoint_interval_s=0.2", "--age-max", "0", "--set", SERVE];
    home.init(&[&digits("1/1")[..], &pace].concat());
    let daemon = home.run();
    let address = served(&daemon);
    let metrics = |what: &str, wanted: &dyn Fn(&str) -> bool| {
        wait_for(what, PATIENCE, || Some(get(address, "/metrics").2).filter(|text| wanted(text)))
    };
    let saved = |text: &str| text.contains("\nstarling_checkpoint_bytes ");
    let text = metrics("a checkpoint", &saved);
    assert_eq!((metric(&text, "degraded"), metric(&text, "ready")), (0.0, 1.0));
    assert!(metric(&text, "checkpoint_bytes") > 1000.0 && metric(&text, "disk_free_bytes") > 0.0);

    block(&home.path("checkpoints"));
    let text = metrics("a degraded node", &|text| metric(text, "degraded") == 1.0);
    assert!(metric(&text, "checkpoints_total{result=\"failed\"}") >= 1.0);
    assert_eq!(metric(&text, "ready"), 0.0);
    let (code, ready) = json(address, "/readyz");
    assert_eq!(code, 503);
    assert_eq!(ready["checks"]["storage"]["ok"], false, "{ready}");
    let older = |text: &str| metric(text, "checkpoint_age_seconds") > 1.0;
    metrics("an old checkpoint", &older);

    fs::remove_file(home.path("checkpoints")).expect("removed");
    metrics("a recovered node", &|text| metric(text, "degraded") == 0.0);
    daemon.stop();
}

#[test]
fn a_demo_shows_its_flock_and_marks_whom_it_killed() {
    let folder = folder();
    let mut command = starling();
    command.args(["demo", "--nodes", "3", "--json", "--dashboard", "--seconds", "600"]);
    command.args(["--kill-every", "4"]).env("TMPDIR", folder.path());
    let mut demo = Process::start(&mut command);
    let told = wait_for("the dashboard's address", PATIENCE, || {
        let lines = demo.out();
        let line = lines.iter().find(|line| line.contains("demo.dashboard"))?;
        serde_json::from_str::<Value>(line).ok()
    });
    let url = told["url"].as_str().expect("a text");
    let address = url.strip_prefix("http://").and_then(|url| url.strip_suffix('/'));
    let address: SocketAddr = address.expect("an address").parse().expect("a socket address");
    assert!(address.ip().is_loopback());
    let nodes = |wanted: &dyn Fn(&[Value]) -> bool| {
        let what = "the flock as wanted";
        wait_for(what, FLIGHT_MAX, || {
            let status = json(address, "/api/status").1;
            status["nodes"].as_array().filter(|nodes| wanted(nodes)).map(|_| status.clone())
        })
    };
    nodes(&|nodes| {
        let linked = |node: &Value| node["peers"].as_array().is_some_and(|peers| peers.len() == 2);
        nodes.len() == 3 && nodes.iter().all(linked)
    });
    nodes(&|nodes| nodes.iter().any(|node| node["test_accuracy"].is_number()));
    let status = nodes(&|nodes| nodes.iter().any(|node| node["phase"] == "killed"));
    assert!(whole(&status, "kills") >= 1, "{status}");
    let history = json(address, "/api/history").1;
    assert_eq!(history.as_object().map(serde_json::Map::len), Some(3), "{history}");
    assert_eq!(get(address, "/metrics").0, 404, "a flock is no node");
    demo.signal(Signal::INT);
    assert_eq!(demo.ended(PATIENCE).code(), Some(75));
}

#[test]
fn events_come_as_they_happen_and_monitors_are_never_crowded_out() {
    let folder = folder();
    let daemon = serving(&folder);
    let address = served(&daemon);
    let mut followers: Vec<_> = (0..8).map(|_| follow(address)).collect();
    assert!(followers.iter().all(|(status, _)| status.contains("200")));
    let (status, _) = follow(address);
    assert!(status.contains("503"), "the ninth follower: {status}");
    assert_eq!(get(address, "/livez").0, 200);

    let (_, reader) = &mut followers[0];
    let mut seen = Vec::new();
    for line in reader.lines() {
        let line = line.expect("it goes on");
        if let Some(event) = line.strip_prefix("data: ") {
            let value: Value = serde_json::from_str(event).expect("JSON");
            seen.push(value["event"].as_str().unwrap_or("status").to_owned());
        }
        let rounds = seen.iter().filter(|event| *event == "round.completed").count();
        if rounds >= 3 && seen.iter().filter(|event| *event == "status").count() >= 3 {
            break;
        }
    }
    assert!(seen.iter().any(|event| event == "daemon.started"), "the past comes first: {seen:?}");
    drop(followers);
    wait_for("a place for another follower", PATIENCE, || {
        follow(address).0.contains("200").then_some(())
    });
    daemon.stop();
}

#[test]
fn nothing_can_be_changed_crowded_or_tricked() {
    let folder = folder();
    let daemon = serving(&folder);
    let address = served(&daemon);
    for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"] {
        let (code, head, _) =
            send(address, &format!("{method} / HTTP/1.1\r\nHost: {address}\r\n\r\n"));
        assert_eq!(code, 405, "{method}");
        assert!(head.contains("allow: get"), "{head}");
    }
    for host in ["evil.example", "localhost.evil.example", "192.0.2.7", ""] {
        let request = format!("GET /api/status HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(send(address, &request).0, 403, "{host}");
    }
    assert_eq!(send(address, "GET /livez HTTP/1.0\r\n\r\n").0, 403);
    let foreign = "Sec-Fetch-Site: cross-site\r\n";
    let request = format!("GET /api/status HTTP/1.1\r\nHost: localhost\r\n{foreign}\r\n");
    assert_eq!(send(address, &request).0, 403);
    let link = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{link}\r\n");
    assert_eq!(send(address, &request).0, 200, "a link from elsewhere");
    assert_eq!(send(address, "GET /livez HTTP/1.1\r\nHost: localhost:1\r\n\r\n").0, 200);
    assert_eq!(get(address, "/../../etc/passwd").0, 404);

    let padding = "x".repeat(8192);
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nX: {padding}\r\n\r\n");
    assert_eq!(send(address, &request).0, 431);

    // Sixteen that say nothing fill all places; they are cut off, and who waits is answered.
    let asked = Instant::now();
    let mut silent: Vec<TcpStream> = (0..16).map(|_| connect(address)).collect();
    silent[0].write_all(b"GET / HT").expect("it reads");
    let (code, ..) = get(address, "/livez");
    assert_eq!(code, 200);
    let waited = asked.elapsed();
    assert!((Duration::from_secs(3)..CUT_MAX).contains(&waited), "{waited:?}");
    for mut stream in silent {
        let mut rest = Vec::new();
        // Reset or closed: either way it is over.
        let _ = stream.read_to_end(&mut rest);
        assert!(asked.elapsed() < 2 * CUT_MAX);
    }
    assert_eq!(get(address, "/livez").0, 200);
    daemon.stop();
}

#[test]
fn a_port_that_is_taken_is_a_warning_and_no_more() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let setting = format!("serve.listen={}", taken.local_addr().expect("bound"));
    let home = Home::new(folder.path(), "node");
    home.init(&[&digits("1/1")[..], &["--age-max", "0", "--set", &setting]].concat());
    let daemon = home.run();
    let failed = daemon.event("serve.failed");
    assert!(failed["reason"].as_str().is_some_and(|why| why.contains("in use")), "{failed}");
    daemon.event("round.completed");
    assert_eq!(daemon.count("serve.started"), 0);
    daemon.stop();
}

/// A daemon that gets a socket as systemd passes it: the first descriptor after the standard ones,
/// and the number of the process that it is for.
fn run_with(held: OwnedFd, home: &Home) -> Process {
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    let mut command = binary(Path::new("sh"));
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_starling"), "run", "--state-dir"]);
    command.arg(&home.0).stdin(Stdio::from(held));
    Process::start(&mut command)
}

#[test]
fn a_passed_socket_that_is_not_tcp_is_told_of() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    home.init(&digits("1/1"));
    let held = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut daemon = run_with(held.into(), &home);
    wait_for("serve.failed", PATIENCE, || {
        assert!(daemon.is_alive(), "{:?}", daemon.err());
        let lines = daemon.err();
        let mut failed = lines.iter().filter(|line| line.contains("\"serve.failed\""));
        failed.next().map(|line| assert!(line.contains("a passed socket"), "{line}"))
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended(PATIENCE).code(), Some(0));
}

#[test]
fn a_socket_that_systemd_holds_is_taken_over() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    home.init(&digits("1/1"));
    let held = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = held.local_addr().expect("bound");
    let mut daemon = run_with(held.into(), &home);
    wait_for("an answer at the port", PATIENCE, || {
        assert!(daemon.is_alive(), "{:?}", daemon.err());
        let started = daemon.err().iter().any(|line| line.contains("\"serve.started\""));
        started.then_some(())
    });
    wait_for("a node that is ready", PATIENCE, || {
        Some(json(address, "/readyz").0).filter(|code| *code == 200)
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended(PATIENCE).code(), Some(0));
}

/// Takes one request as a collector does; its path and its body.
fn collect(listener: &TcpListener, answer: &str) -> (String, Value) {
    let (stream, _) = listener.accept().expect("a request");
    stream.set_read_timeout(Some(PATIENCE)).expect("settable");
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).expect("it writes"), 0, "{head}");
    }
    let head = head.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.and_then(|text| text.parse().ok()).expect("a length")];
    reader.read_exact(&mut body).expect("the body");
    let reply = format!("HTTP/1.1 {answer}\r\ncontent-length: 2\r\n\r\n{{}}");
    reader.get_mut().write_all(reply.as_bytes()).expect("it reads");
    let path = head.split(' ').nth(1).expect("a path").to_owned();
    (path, serde_json::from_slice(&body).expect("JSON"))
}

#[test]
fn a_collector_gets_metrics_and_lines_and_its_failures_are_told_once() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    let collector = TcpListener::bind("127.0.0.1:0").expect("a port");
    let setting = format!("serve.otlp=http://{}", collector.local_addr().expect("bound"));
    home.init(&[&digits("1/1")[..], &["--age-max", "0", "--set", &setting]].concat());
    let daemon = home.run();
    assert_eq!(daemon.count("serve.started"), 0, "exporting opens no port");
    let (path, _) = collect(&collector, "503 Service Unavailable");
    assert_eq!(path, "/v1/metrics");
    let (path, _) = collect(&collector, "503 Service Unavailable");
    assert_eq!(path, "/v1/logs");
    let failed = daemon.event("export.failed");
    assert!(failed["reason"].as_str().is_some_and(|why| why.contains("503")), "{failed}");

    let (_, metrics) = collect(&collector, "200 OK");
    let list = metrics["resourceMetrics"][0]["scopeMetrics"][0]["metrics"].clone();
    let list = list.as_array().expect("metrics").clone();
    let round = list.iter().find(|metric| metric["name"] == "starling_round").expect("a round");
    assert!(number(&round["gauge"]["dataPoints"][0], "asDouble") >= 1.0, "{round}");
    let (path, logs) = collect(&collector, "200 OK");
    assert_eq!(path, "/v1/logs");
    let records = logs["resourceLogs"][0]["scopeLogs"][0]["logRecords"].clone();
    let names: Vec<String> = records
        .as_array()
        .expect("records")
        .iter()
        .map(|record| record["eventName"].as_str().expect("a name").to_owned())
        .collect();
    // What was written before the collector took anything is not lost, and nothing comes twice.
    assert_eq!(names.iter().filter(|name| *name == "daemon.started").count(), 1, "{names:?}");
    assert!(names.iter().any(|name| name == "export.failed"), "{names:?}");
    assert_eq!(whole(&daemon.event("export.recovered"), "dropped"), 0);
    assert_eq!(daemon.count("export.failed"), 1);
    daemon.stop();
}
