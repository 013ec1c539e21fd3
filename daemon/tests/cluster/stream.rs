//! The log as an interface: every line a daemon writes is as published, none is lost, and nothing
//! that a node keeps to itself is in any output.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::net::TcpStream;
use std::path::Path;

use data_encoding::{BASE32_NOPAD, BASE64, HEXLOWER};
use serde_json::Value;

use crate::harness::{Daemon, Home, call, folder, number, starling, whole, write_file};
use crate::web::{SERVE, follow, get, served};

/// What the flight below cannot do without; more may be seen.
const EVENTS: [&str; 14] = [
    "checkpoint.restored",
    "checkpoint.saved",
    "daemon.ready",
    "daemon.started",
    "daemon.stopped",
    "daemon.stopping",
    "frame.rejected",
    "identity.loaded",
    "mesh.waiting",
    "peer.admitted",
    "peer.connected",
    "peer.denied",
    "peer.disconnected",
    "round.completed",
];

/// What a running node is asked.
const ANSWERS: [(&str, &[&str]); 11] = [
    ("status", &["--json"]),
    ("status", &[]),
    ("peers", &["--json"]),
    ("peers", &[]),
    ("privacy", &["--json"]),
    ("privacy", &[]),
    ("limits", &["--json"]),
    ("limits", &[]),
    ("checkpoint", &["--json"]),
    ("check", &[]),
    ("run", &[]),
];

/// Values and labels as no other text has them; the cell is one that no row may have.
const VALUE: &str = "27182.8182";
const LABEL: &str = "canary-label-7f31";
const CELL: &str = "canary-cell-9b02";

/// Rows that can be learnt, and one in two hundred that cannot.
fn write_table(path: &Path) {
    let row = |index: u32| {
        let (a, b) = (index * 37 % 101, index * 53 % 97);
        let label = if a + b > 98 { LABEL } else { "low" };
        let a = if index == 7 { CELL.to_owned() } else { format!("{VALUE}{a:03}") };
        format!("{a},{label},{b}.5\n")
    };
    write_file(path, format!("a,y,b\n{}", (0..200).map(row).collect::<String>()));
}

/// All that was printed, and all that must not be in it.
#[derive(Default)]
struct Outputs {
    texts: Vec<String>,
    secrets: Vec<String>,
}

impl Outputs {
    /// Parts of a node's key in the forms in which it could slip out.
    fn guard_key(&mut self, home: &Home) {
        let seed = home.read("identity.seed");
        assert_eq!(seed.len(), 32);
        for part in seed.chunks(8) {
            let numbers = format!("{part:?}").replace(['[', ']'], "");
            self.secrets.extend([HEXLOWER.encode(part), numbers.replace(' ', ""), numbers]);
        }
        for encoding in [BASE64, BASE32_NOPAD] {
            // The first letters are of whole bytes.
            self.secrets.push(encoding.encode(&seed)[..16].to_owned());
        }
    }

    fn keep(&mut self, home: &Home, name: &str, arguments: &[&str]) -> String {
        let outcome = home.call(name, arguments);
        self.texts.extend([outcome.out.clone(), outcome.err]);
        outcome.out
    }

    /// All that a running node tells whoever may ask it, by its socket and by HTTP.
    fn keep_answers(&mut self, daemon: &Daemon) {
        for (command, arguments) in ANSWERS {
            self.keep(&daemon.home, command, arguments);
        }
        let address = served(daemon);
        for path in ["/", "/metrics", "/readyz", "/livez", "/api/status", "/api/history"] {
            let (code, _, body) = get(address, path);
            assert_eq!(code, 200, "{path}: {body}");
            self.texts.push(body);
        }
        // A status and lines of before, then both as they come. Each read has its deadline.
        let mut heard = String::new();
        let (_, mut reader) = follow(address);
        while heard.matches("event: status").count() < 3 {
            assert_ne!(reader.read_line(&mut heard).expect("it goes on"), 0, "{heard}");
        }
        assert!(heard.contains("event: line"), "{heard}");
        self.texts.push(heard);
    }

    fn assert_clean(&self) {
        assert!(self.texts.iter().map(String::len).sum::<usize>() > 10_000);
        for secret in &self.secrets {
            let found = self.texts.iter().find(|text| {
                text.contains(secret) || text.to_lowercase().contains(&secret.to_lowercase())
            });
            assert!(found.is_none(), "{secret} is in {found:?}");
        }
    }
}

fn named<'a>(events: impl IntoIterator<Item = &'a Value>) -> BTreeSet<&'a str> {
    events.into_iter().filter_map(|event| event["event"].as_str()).collect()
}

/// One boot's lines are valid and numbered from one without a gap.
#[track_caller]
fn assert_published(validator: &jsonschema::Validator, events: &[Value]) {
    for (event, seq) in events.iter().zip(1..) {
        if let Err(error) = validator.validate(event) {
            panic!("{error}: {event}");
        }
        assert_eq!(whole(event, "seq"), seq, "{event}");
        assert_eq!(event["boot"], events[0]["boot"]);
    }
}

/// Three nodes and two at the door; the lines of each boot.
fn flight(folder: &Path, outputs: &mut Outputs) -> Vec<Vec<Value>> {
    let table = folder.join("rows.csv");
    write_table(&table);
    let name = table.to_str().expect("UTF-8");
    let data = |part| ["--data", name, "--label-column", "y", "--part", part];
    let secluded =
        ["--listen", "/ip4/127.0.0.1/tcp/0", "--set", "network.mdns=false", "--set", SERVE];
    let home = |index: usize| Home::new(folder, &format!("node-{index}"));
    let fast = ["--set", "storage.checkpoint_interval_s=0.5"];
    outputs.keep(
        &home(1),
        "init",
        &[&data("1/3")[..], &secluded, &fast, &["--age-max", "0"]].concat(),
    );
    let founder = home(1).run();
    let ticket = outputs.keep(&home(1), "invite", &["--uses", "2"]);
    let mut daemons = vec![founder];
    for (index, part) in [(2, "2/3"), (3, "3/3")] {
        let arguments = [&[ticket.trim()], &data(part)[..], &secluded, &fast].concat();
        outputs.keep(&home(index), "join", &arguments);
        daemons.push(home(index).run());
    }
    daemons.iter().for_each(|daemon| drop(daemon.wait_peers(2)));
    let late = [&[ticket.trim()], &data("3/3")[..], &secluded].concat();
    outputs.keep(&home(4), "join", &late);
    daemons[0].event("peer.denied");
    for bytes in [&[0xff; 4096][..], b"GET / HTTP/1.1\r\n\r\n", CELL.as_bytes()] {
        let mut stream = TcpStream::connect(daemons[0].address()).expect("it listens");
        // It may have closed already.
        let _ = stream.write_all(bytes);
    }
    let victim = daemons.pop().expect("three");
    victim.event_after(0, "checkpoint.saved", |saved| number(saved, "age") > 0.0);
    let mut boots = vec![victim.kill()];
    daemons[0].event("peer.disconnected");
    daemons.push(home(3).run());
    daemons.iter().for_each(|daemon| drop(daemon.wait_peers(2)));
    daemons.iter().for_each(|daemon| daemon.wait_exchanges(5));
    for index in 1..=3 {
        outputs.guard_key(&home(index));
    }
    daemons.iter().for_each(|daemon| outputs.keep_answers(daemon));
    // A copy from before all that: its frames look as if somebody sent old ones again.
    boots.push(daemons.pop().expect("three").stop());
    write_file(&home(3).path("boot"), "0\n");
    daemons.push(home(3).run());
    daemons[0].event_after(0, "frame.rejected", |event| event["reason"] == "replay");
    boots.extend(daemons.into_iter().map(Daemon::stop));
    boots
}

#[test]
fn every_line_is_as_published_and_tells_no_secret() {
    let schema = call(starling().args(["events", "--schema"])).out;
    let schema = serde_json::from_str(&schema).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let folder = folder();
    let mut outputs = Outputs::default();
    outputs.secrets.extend([VALUE, LABEL, CELL].map(str::to_owned));
    let boots = flight(folder.path(), &mut outputs);
    assert_eq!(boots.len(), 5);
    for events in &boots {
        assert_published(&validator, events);
        outputs.texts.extend(events.iter().map(Value::to_string));
    }
    let seen = named(boots.iter().flatten());
    for event in EVENTS {
        assert!(seen.contains(event), "{event} not in {seen:?}");
    }
    outputs.assert_clean();
}
