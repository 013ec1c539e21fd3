//! What an operator gets wrong: one line that says so, and the exit code that the manual promises.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;

use serde_json::Value;

use crate::harness::{
    Home, Outcome, PATIENCE, binary, call, digits, flock, folder, number, starling, wait_for,
    whole, write_file,
};

/// The user who owns nothing.
const NOBODY: u32 = 65_534;

/// A node that was made but never ran.
fn made(folder: &Path, name: &str) -> Home {
    let home = Home::new(folder, name);
    home.init(&digits("1/3"));
    home
}

/// It ended with this code, and one line says why.
#[track_caller]
fn assert_fails(outcome: &Outcome, code: i32, parts: &[&str]) {
    assert_eq!(outcome.code, Some(code), "{}", outcome.err);
    assert_eq!(outcome.out, "");
    assert!(outcome.err.starts_with("starling: "), "{}", outcome.err);
    assert_eq!(outcome.err.lines().count(), 1, "{}", outcome.err);
    assert_tells(&outcome.err, parts);
}

/// A daemon did not come up: all its lines are events, and the last says why.
#[track_caller]
fn assert_does_not_run(outcome: &Outcome, code: i32, parts: &[&str]) -> Value {
    assert_eq!(outcome.code, Some(code), "{}", outcome.err);
    assert_eq!(outcome.out, "");
    let parse = |line: &str| serde_json::from_str::<Value>(line);
    let events: Result<Vec<Value>, _> = outcome.err.lines().map(parse).collect();
    let events = events.unwrap_or_else(|error| panic!("{error}: {}", outcome.err));
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(whole(event, "seq"), seq, "{event}");
    }
    let last = events.last().expect("a line").clone();
    assert_eq!((&last["event"], &last["severity"]), (&"daemon.failed".into(), &"ERROR".into()));
    assert_eq!(last["exit_code"], code);
    assert_tells(last["reason"].as_str().expect("text"), parts);
    last
}

#[track_caller]
fn assert_tells(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "`{part}` is not in: {told}");
    }
    assert!(!told.contains("panic"), "{told}");
}

#[test]
fn a_wrong_command_line_is_64() {
    for (arguments, part) in [
        (&["fly"][..], "error: unrecognized subcommand 'fly'"),
        (&["run", "--fast"], "error: unexpected argument '--fast'"),
        (&["demo", "--nodes", "1"], "error: invalid value '1' for '--nodes"),
        (&["join"], "error: the following required arguments"),
        (&["init", "--split", "shards=0"], "error: invalid value 'shards=0' for '--split"),
    ] {
        let outcome = call(starling().args(arguments));
        assert_eq!(outcome.code, Some(64), "{arguments:?}: {}", outcome.err);
        assert!(outcome.err.starts_with(part), "{}", outcome.err);
        assert_eq!(outcome.out, "");
    }
    assert_eq!(call(starling().arg("--help")).code, Some(0));
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    for (arguments, parts) in [
        (&["--set", "log.format"][..], &["--set log.format", "KEY=VALUE"][..]),
        (&["--data", "digits", "--hidden", "a"], &["--hidden a", "128,64"]),
        (&["--part", "4/3"], &["data.part", "4/3"]),
        (&["--set", "log.fromat=json"], &["log.fromat", "did you mean `format`?"]),
    ] {
        assert_fails(&home.call("init", arguments), 64, parts);
    }
    let place = made(folder.path(), "made");
    assert_fails(&place.call("init", &digits("1/3")), 64, &["already holds a node"]);
    assert_fails(&place.call("invite", &["--expires", "soon"]), 64, &["--expires soon", "12h"]);
}

#[test]
fn a_port_that_is_taken_is_69() {
    let folder = folder();
    let home = Home::new(folder.path(), "node");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let address = format!("/ip4/127.0.0.1/tcp/{port}");
    let listen = ["--listen", &address, "--set", "network.mdns=false"];
    home.ok("init", &[&digits("1/3")[..], &listen].concat());
    assert_does_not_run(&home.refused_run(), 69, &["cannot listen at", &address, "network.listen"]);
    drop(taken);
    let running = home.run();
    // Two nodes on one port would both start, and each get half of the connections.
    let other = Home::new(folder.path(), "other");
    other.ok("init", &[&digits("1/3")[..], &listen].concat());
    assert_does_not_run(
        &other.refused_run(),
        69,
        &["cannot listen at", &address, "network.listen"],
    );
    running.stop();
}

#[test]
fn data_that_is_missing_or_wrong_is_66() {
    let folder = folder();
    let table = folder.path().join("rows.csv");
    let name = table.to_str().expect("UTF-8");
    let home = Home::new(folder.path(), "node");
    let options = ["--data", name, "--label-column", "y"];
    assert_fails(&home.call("init", &options), 66, &["cannot read the data", name]);
    write_file(&table, "a,b,y\n1,2,yes\n3,oops,no\n");
    assert_fails(&home.call("init", &options), 66, &[name, "first bad lines: [3]"]);
    write_file(&table, "a,b,y\n1,2,yes\n3,4,no\n5,6,no\n7,8,yes\n");
    assert_fails(&home.call("init", &options[..2]), 66, &[name, "label"]);
    home.ok("init", &options);
    write_file(&table, "a,c,y\n1,2,yes\n3,4,no\n");
    assert_does_not_run(&home.refused_run(), 66, &[name, "a, b, in this order"]);
    fs::remove_file(&table).expect("removed");
    assert_does_not_run(&home.refused_run(), 66, &["cannot read the data", name]);
}

#[test]
fn configuration_errors_are_78_with_their_places() {
    let folder = folder();
    let home = made(folder.path(), "node");
    let file = home.path("starling.toml");
    let place = file.to_str().expect("UTF-8");
    write_file(&file, "[training]\nsteps_per_rond = 8\n");
    let place_and_key = format!("{place}:2: training.steps_per_rond");
    let suggestion = "did you mean `steps_per_round`?";
    assert_does_not_run(&home.refused_run(), 78, &[&place_and_key, suggestion]);

    write_file(&file, "[training]\nsteps_per_rond = 8\n\n[log]\nformat = \"xml\"\n[net]\n");
    let outcome = call(home.command("run", &[]).env("STARLING_RESOURCES_NICE", "77"));
    let first = format!("{place}:2: training.steps_per_rond: found an unknown key");
    let told = assert_does_not_run(&outcome, 78, &[&first]);
    let others: Vec<&str> =
        told["problems"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let starts = [
        format!("{place}:5: log.format: found the text \"xml\""),
        format!("{place}:6: net: found an unknown section"),
        "environment: STARLING_RESOURCES_NICE: found".to_owned(),
    ];
    assert_eq!(others.len(), starts.len(), "{told}");
    for (line, start) in others.iter().zip(&starts) {
        assert!(line.starts_with(start), "{line}");
    }

    let checked = home.call("check", &[]);
    assert_eq!(checked.code, Some(78), "{}", checked.err);
    assert!(checked.out.contains(&place_and_key), "{}", checked.out);
    assert!(checked.out.contains("\nok    key: "), "{}", checked.out);
    let absent = folder.path().join("absent.toml");
    let absent = absent.to_str().expect("UTF-8");
    let outcome = home.call("run", &["--config", absent]);
    assert_does_not_run(&outcome, 78, &["cannot read", absent]);

    // Lines for people stay such.
    write_file(&file, "[log]\nformat = \"text\"\n");
    assert_fails(&home.refused_run(), 66, &["no data: set data.source"]);
}

#[test]
fn a_codec_that_the_network_does_not_allow_is_78() {
    let folder = folder();
    let home = made(folder.path(), "node");
    let file = home.path("network.toml");
    let text = fs::read_to_string(&file).expect("readable");
    let line = text.lines().find(|line| line.starts_with("codecs = ")).expect("codecs");
    write_file(&file, text.replace(line, "codecs = [\"int8\", \"ref3\"]"));
    for command in ["run", "check"] {
        let outcome = call(home.command(command, &[]).env("STARLING_GOSSIP_CODEC", "int6"));
        assert_eq!(outcome.code, Some(78), "{}", outcome.err);
        let told = format!("{}{}", outcome.out, outcome.err);
        assert!(told.contains("gossip.codec: found int6, which this network does"), "{told}");
        assert!(told.contains("write one of int8, ref3"), "{told}");
    }
}

#[test]
fn a_state_directory_that_is_none_is_78() {
    let folder = folder();
    let absent = Home::new(folder.path(), "absent");
    let parts = ["no state directory", "starling init"];
    for command in ["status", "invite", "check"] {
        assert_fails(&absent.call(command, &[]), 78, &parts);
    }
    assert_does_not_run(&absent.refused_run(), 78, &parts);
    assert!(!absent.0.exists());
    let strange = Home::new(folder.path(), "strange");
    strange.ok("init", &[]);
    assert_does_not_run(
        &strange.refused_run(),
        78,
        &["belongs to no network", "starling join TICKET"],
    );
}

#[test]
fn an_empty_state_directory_is_78() {
    let folder = folder();
    let home = Home::new(folder.path(), "empty");
    fs::create_dir(&home.0).expect("made");
    assert_does_not_run(&home.refused_run(), 78, &["starling init"]);
}

#[test]
fn output_that_nobody_reads_is_no_defect() {
    let folder = folder();
    let home = made(folder.path(), "node");
    let _daemon = home.run();
    for mut command in
        [home.command("status", &[]), home.command("invite", &[]), home.command("check", &[]), {
            let mut command = starling();
            command.args(["events", "--json"]);
            command
        }]
    {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        command.stdout(writer).stderr(std::process::Stdio::piped());
        let output = command.output().expect("started");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!text.contains("panic"), "{command:?}: {text}");
        assert_ne!(output.status.code(), Some(101), "{command:?}");
    }
}

#[test]
fn a_key_that_others_can_read_is_77() {
    let folder = folder();
    let home = made(folder.path(), "node");
    let key = home.path("identity.seed");
    let name = key.to_str().expect("UTF-8");
    fs::set_permissions(&key, Permissions::from_mode(0o644)).expect("set");
    let parts = [name, "mode 0644", "chmod 600"];
    assert_does_not_run(&home.refused_run(), 77, &parts);
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("set");
    home.run().stop();
    write_file(&key, [7; 31]);
    assert_does_not_run(&home.refused_run(), 77, &[name, "31 bytes", "32"]);
    fs::remove_file(&key).expect("removed");
    assert_does_not_run(&home.refused_run(), 77, &[name, "no key"]);
    assert!(!key.exists(), "a lost key is not replaced in silence");
}

#[test]
fn a_second_daemon_on_one_directory_is_75() {
    let folder = folder();
    let home = made(folder.path(), "node");
    let place = home.0.to_str().expect("UTF-8");
    let daemon = home.run();
    let parts = ["another starling runs on", place];
    assert_does_not_run(&home.refused_run(), 75, &parts);
    assert_fails(&home.call("join", &[&daemon.ticket(1)]), 75, &parts);
    daemon.status("the first undisturbed", |_| true);
    assert_eq!(daemon.stop().last().map(|last| whole(last, "boot")), Some(1));
}

#[test]
fn questions_without_a_daemon_are_69() {
    let folder = folder();
    let home = made(folder.path(), "node");
    let parts = ["no daemon answers on", "starling run --state-dir"];
    for command in ["status", "invite"] {
        assert_fails(&home.call(command, &[]), 69, &parts);
    }
    // Killed, it leaves its socket behind, which the next one takes over.
    home.run().kill();
    assert!(home.path("control.sock").exists());
    for command in ["status", "invite"] {
        assert_fails(&home.call(command, &[]), 69, &parts);
    }
    home.run().status("an answer", |_| true);
}

#[test]
fn a_member_of_another_network_is_77() {
    let folder = folder();
    let member = flock(folder.path(), 2, &[]).pop().expect("two").home.clone();
    let description = String::from_utf8(member.read("network.toml")).expect("UTF-8");
    let chain = member.read("membership");

    write_file(&member.path("membership"), b"");
    assert_does_not_run(&member.refused_run(), 77, &["no member of network", "ticket"]);
    write_file(&member.path("membership"), &chain[..chain.len() - 1]);
    assert_does_not_run(&member.refused_run(), 65, &["membership is damaged"]);
    write_file(&member.path("membership"), &chain);

    // Whoever changes a number describes another network.
    let other = description.replace("rate = 0.15", "rate = 0.25");
    assert_ne!(other, description);
    write_file(&member.path("network.toml"), other);
    assert_does_not_run(
        &member.refused_run(),
        77,
        &["no member of network", "certificate", "ticket"],
    );
    write_file(&member.path("network.toml"), "version = 1\n");
    assert_does_not_run(&member.refused_run(), 78, &["network.toml"]);
    write_file(&member.path("network.toml"), description);
    member.run().stop();
}

#[test]
fn a_place_that_cannot_be_written_is_74_or_77() {
    let folder = folder();
    write_file(&folder.path().join("file"), "");
    let below = Home::new(folder.path(), "file/node");
    let name = below.0.to_str().expect("UTF-8");
    assert_fails(&below.call("init", &[]), 74, &["cannot create", name]);

    // As somebody who may read but not write, which root can only play.
    let closed = Home::new(folder.path(), "closed");
    fs::create_dir(&closed.0).expect("made");
    let program = folder.path().join("starling");
    fs::copy(env!("CARGO_BIN_EXE_starling"), &program).expect("copied");
    for path in [folder.path(), &closed.0, &program] {
        fs::set_permissions(path, Permissions::from_mode(0o555)).expect("set");
    }
    // A child of another test may still hold the copy open for writing, until it is a program.
    wait_for("a program that can be run", PATIENCE, || binary(&program).output().ok());
    let as_reader = |name: &str, home: &Home| {
        let mut command = binary(&program);
        command.arg(name).arg("--state-dir").arg(&home.0);
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        call(&mut command)
    };
    let inner = Home::new(&closed.0, "node");
    let name = inner.0.to_str().expect("UTF-8");
    assert_fails(&as_reader("init", &inner), 77, &["cannot create", name]);
    let lock = closed.path("lock");
    let lock = lock.to_str().expect("UTF-8");
    assert_fails(&as_reader("init", &closed), 77, &["cannot open", lock]);
    assert_does_not_run(&as_reader("run", &closed), 77, &["cannot open", lock]);
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("set");

    // A place of one's own is all it takes.
    let own = Home::new(folder.path(), "own");
    fs::create_dir(&own.0).expect("made");
    if rustix::process::geteuid().is_root() {
        chown(&own.0, Some(NOBODY), Some(NOBODY)).expect("given away");
    }
    assert_eq!(as_reader("init", &own).code, Some(0));

    // A checkpoint that may not be read is not a damaged one.
    let learnt = made(folder.path(), "learnt");
    learnt.run().stop();
    let name = "checkpoints/ckpt-0000000000000001";
    fs::set_permissions(learnt.path(name), Permissions::from_mode(0o000)).expect("set");
    if rustix::process::geteuid().is_root() {
        let names = [vec![".".to_owned()], learnt.files(".")].concat();
        for name in names {
            chown(learnt.path(&name), Some(NOBODY), Some(NOBODY)).expect("given away");
        }
    }
    assert_does_not_run(&as_reader("run", &learnt), 77, &["cannot read", name]);
    assert!(learnt.path(name).exists() && learnt.files("bad").is_empty());
}

#[test]
fn a_table_of_rows_is_learnt_to_the_end() {
    let folder = folder();
    let table = folder.path().join("rows.csv");
    let row = |index: u32| {
        let (a, b, c) = (index * 37 % 101, index * 53 % 97, index % 7);
        let label = if a + b > 98 { "high" } else { "low" };
        format!("{a},{label},{b}.5,{c}\n")
    };
    let rows: String = (0..200).map(row).collect();
    write_file(&table, format!("a,y,b,c\n{rows}"));
    let name = table.to_str().expect("UTF-8");
    let data = |part| ["--data", name, "--label-column", "y", "--part", part];

    // Alone it takes a twentieth of its steps and then waits for others.
    let home = Home::new(folder.path(), "founder");
    home.init(&[&data("1/2")[..], &["--age-max", "40"]].concat());
    let founder = home.run();
    assert_eq!(founder.event("mesh.waiting")["reason"], "alone so far");
    assert_eq!(number(&founder.status("an answer", |_| true), "age"), 4.0);
    let started = founder.event("daemon.started");
    assert_eq!(whole(&started, "rows"), 100);
    assert_eq!(whole(&started, "parameters"), 3 * 32 + 32 + 32 * 2 + 2);

    let guest = Home::new(folder.path(), "guest");
    guest.join(&founder.ticket(1), &data("2/2"));
    let guest = guest.run();
    for daemon in [&founder, &guest] {
        let completed = daemon.event("training.completed");
        let age = number(&completed, "age");
        assert!((40.0..60.0).contains(&age), "{completed}");
        let status = daemon.status("the end", |status| status["phase"] == "done");
        assert!(whole(&status, "accepted") > 0, "{status}");
        // Two classes told apart by chance have a loss of 0.69.
        assert!(number(&status, "loss") < 0.5, "{status}");
    }
    let events = founder.stop();
    let age = events.last().map(|last| number(last, "age"));

    // It does not begin anew when it is started again.
    let again = home.run();
    assert_eq!(Some(number(&again.event("checkpoint.restored"), "age")), age);
    assert_eq!(again.status("an answer", |_| true)["phase"], "done");
}
