//! Processes and what is known of them from outside: exit codes, lines, status, `/proc`.
//!
//! Nothing here outlives its test: a process is killed when its handle is dropped. Nothing sleeps
//! but `wait_for`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// For whatever happens at all, on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Short beside any process's start, long beside a probe's cost.
const POLL_PERIOD: Duration = Duration::from_millis(20);
/// Lines of a daemon shown when its test fails.
const LINES_SHOWN: usize = 20;

/// Polls until the probe yields, and returns what it yielded: the only sleep of all tests.
///
/// # Panics
/// When the limit passes first; `what` then says what was awaited.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(start.elapsed() < limit, "waited {limit:?} in vain for {what}");
        thread::sleep(POLL_PERIOD);
    }
}

/// Writes a file that nobody reads yet.
#[expect(clippy::disallowed_methods, reason = "a test's own folder survives no crash anyway")]
pub fn write_file(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A folder of its own for one test.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("starling-test-").tempdir().expect("temporary folder")
}

/// The binary under test, free of the user's settings.
pub fn binary(program: &Path) -> Command {
    let mut command = Command::new(program);
    let foreign = ["CREDENTIALS_DIRECTORY", "STATE_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC"];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("STARLING_") || foreign.contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null());
    command
}

pub fn starling() -> Command {
    binary(Path::new(env!("CARGO_BIN_EXE_starling")))
}

type Lines = Arc<Mutex<Vec<String>>>;

/// A process with everything that it has written so far.
pub struct Process {
    child: Child,
    out: Lines,
    err: Lines,
    readers: Vec<JoinHandle<()>>,
}

fn collect(stream: impl Read + Send + 'static) -> (Lines, JoinHandle<()>) {
    let lines = Lines::default();
    let kept = Arc::clone(&lines);
    let reader = thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
            kept.lock().expect("no reader panics").push(text);
            line.clear();
        }
    });
    (lines, reader)
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (out, out_reader) = collect(child.stdout.take().expect("piped"));
        let (err, err_reader) = collect(child.stderr.take().expect("piped"));
        Self { child, out, err, readers: vec![out_reader, err_reader] }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// What it has written to standard output.
    pub fn out(&self) -> Vec<String> {
        self.out.lock().expect("no reader panics").clone()
    }

    /// What it has written to standard error.
    pub fn err(&self) -> Vec<String> {
        self.err.lock().expect("no reader panics").clone()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("a child can be signalled");
    }

    /// Waits for its end; afterwards all its lines are here.
    #[track_caller]
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let status = wait_for("the process's end", limit, || {
            self.child.try_wait().expect("a child can be waited for")
        });
        for reader in self.readers.drain(..) {
            reader.join().expect("no reader panics");
        }
        status
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let lines = self.err();
            let shown = lines.len().saturating_sub(LINES_SHOWN);
            eprintln!("process {} wrote:\n{}", self.child.id(), lines[shown..].join("\n"));
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs a command to its end.
#[track_caller]
pub fn call(command: &mut Command) -> Outcome {
    call_within(PATIENCE, command)
}

/// Runs a command that takes its time.
#[track_caller]
pub fn call_within(limit: Duration, command: &mut Command) -> Outcome {
    let mut process = Process::start(command);
    let code = process.ended(limit).code();
    Outcome { code, out: process.out().join("\n"), err: process.err().join("\n") }
}

/// A state directory, there or not.
#[derive(Clone, Debug)]
pub struct Home(pub PathBuf);

/// Only this machine, whatever other nodes are on it.
const SECLUDED: [&str; 4] = ["--listen", "/ip4/127.0.0.1/tcp/0", "--set", "network.mdns=false"];

impl Home {
    pub fn new(folder: &Path, name: &str) -> Self {
        Self(folder.join(name))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = starling();
        command.arg(name).args(arguments).arg("--state-dir").arg(&self.0);
        command
    }

    #[track_caller]
    pub fn call(&self, name: &str, arguments: &[&str]) -> Outcome {
        call(&mut self.command(name, arguments))
    }

    /// Runs a command that must succeed; what it printed.
    #[track_caller]
    pub fn ok(&self, name: &str, arguments: &[&str]) -> String {
        let outcome = self.call(name, arguments);
        assert_eq!(outcome.code, Some(0), "starling {name} {arguments:?}: {}", outcome.err);
        outcome.out
    }

    #[track_caller]
    pub fn init(&self, arguments: &[&str]) -> String {
        self.ok("init", &[&SECLUDED, arguments].concat())
    }

    /// `starling join` as it ends, well or not.
    #[track_caller]
    pub fn try_join(&self, ticket: &str, arguments: &[&str]) -> Outcome {
        self.call("join", &[&[ticket], &SECLUDED[..], arguments].concat())
    }

    #[track_caller]
    pub fn join(&self, ticket: &str, arguments: &[&str]) -> String {
        let outcome = self.try_join(ticket, arguments);
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        outcome.out
    }

    /// Starts the daemon and waits until it is ready.
    #[track_caller]
    pub fn run(&self) -> Daemon {
        Daemon::start(self, &mut self.command("run", &[]))
    }

    /// `starling run` of a daemon that must not come up.
    #[track_caller]
    pub fn refused_run(&self) -> Outcome {
        self.call("run", &[])
    }

    /// Names of files in a folder, sorted.
    pub fn files(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// A running daemon.
pub struct Daemon {
    pub home: Home,
    process: Process,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() && self.is_alive() {
            eprintln!("process {}: {}", self.pid(), self.home.call("status", &["--json"]).out);
        }
    }
}

/// A field that must be a number.
#[track_caller]
pub fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {value}"))
}

/// A field that must be a whole number.
#[track_caller]
pub fn whole(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no whole number {key} in {value}"))
}

fn parsed(lines: &[String]) -> Vec<Value> {
    let parse = |line: &String| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("no event ({error}): {line}"))
    };
    lines.iter().map(parse).collect()
}

impl Daemon {
    /// Starts the daemon by this command and waits until it is ready.
    #[track_caller]
    pub fn start(home: &Home, command: &mut Command) -> Self {
        let daemon = Self { home: home.clone(), process: Process::start(command) };
        daemon.event("daemon.ready");
        daemon
    }

    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    pub fn is_alive(&mut self) -> bool {
        self.process.is_alive()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// All events so far. Each line must be one.
    #[track_caller]
    pub fn events(&self) -> Vec<Value> {
        parsed(&self.process.err())
    }

    /// How many events there are by now: a mark for `event_after`.
    pub fn mark(&self) -> usize {
        self.process.err().len()
    }

    #[track_caller]
    pub fn event(&self, name: &str) -> Value {
        self.event_after(0, name, |_| true)
    }

    /// Waits for an event of this name, from a mark on, that is as wanted.
    #[track_caller]
    pub fn event_after(&self, mark: usize, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(name, PATIENCE, || {
            let lines = self.process.err();
            let mut events = parsed(&lines[mark..]).into_iter();
            events.find(|event| event["event"] == name && wanted(event))
        })
    }

    pub fn count(&self, name: &str) -> usize {
        self.events().iter().filter(|event| event["event"] == name).count()
    }

    /// What `starling status` says; none if the daemon is too busy.
    pub fn try_status(&self) -> Option<Value> {
        let outcome = self.home.call("status", &["--json"]);
        (outcome.code == Some(0)).then(|| serde_json::from_str(&outcome.out).expect("JSON"))
    }

    /// Waits until the status is as wanted.
    #[track_caller]
    pub fn status(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, PATIENCE, || self.try_status().filter(|status| wanted(status)))
    }

    #[track_caller]
    pub fn wait_peers(&self, count: usize) -> Value {
        let linked = |status: &Value| status["peers"].as_array().is_some_and(|p| p.len() == count);
        self.status(&format!("{count} peers"), linked)
    }

    /// Waits until so many more exchanges have been merged.
    #[track_caller]
    pub fn wait_exchanges(&self, more: u64) {
        let before = whole(&self.status("an answer", |_| true), "accepted");
        self.status("more exchanges", |status| whole(status, "accepted") >= before + more);
    }

    #[track_caller]
    pub fn ticket(&self, uses: u32) -> String {
        self.home.ok("invite", &["--uses", &uses.to_string()])
    }

    /// Where it listens for peers.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        let ready = self.event("daemon.ready");
        let text = ready["addresses"][0].as_str().expect("an address").to_owned();
        let port = text.strip_prefix("/ip4/127.0.0.1/tcp/").expect("a TCP port of this machine");
        SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")))
    }

    /// A line of `/proc/PID/status`, in kB.
    pub fn memory_kb(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(path).expect("the daemon lives");
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        let value = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        value.unwrap_or_else(|| panic!("no {key} in {status}"))
    }

    /// SIGTERM; its exit status, how long it took, and all its events.
    #[track_caller]
    pub fn terminate(self) -> (ExitStatus, Duration, Vec<Value>) {
        let asked = Instant::now();
        self.process.signal(Signal::TERM);
        let (status, events) = self.ended();
        (status, asked.elapsed(), events)
    }

    /// Waits for its end, by whatever cause; its exit status and all its events.
    #[track_caller]
    pub fn ended(mut self) -> (ExitStatus, Vec<Value>) {
        let status = self.process.ended(PATIENCE);
        (status, self.events())
    }

    /// SIGTERM, after which it must have ended well.
    #[track_caller]
    pub fn stop(self) -> Vec<Value> {
        let (status, _, events) = self.terminate();
        assert_eq!(status.code(), Some(0), "{events:?}");
        events
    }

    /// SIGKILL; its events.
    #[track_caller]
    pub fn kill(mut self) -> Vec<Value> {
        self.process.signal(Signal::KILL);
        assert_eq!(self.process.ended(PATIENCE).code(), None);
        self.events()
    }
}

/// Options of the node with this part of the digits.
pub fn digits(part: &str) -> [&str; 6] {
    ["--data", "digits", "--part", part, "--split", "shards=2"]
}

/// A network that never stops learning, of daemons that are all linked with each other.
#[track_caller]
pub fn flock(folder: &Path, count: usize, settings: &[&str]) -> Vec<Daemon> {
    let set: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let home = |index: usize| Home::new(folder, &format!("node-{index}"));
    let parts: Vec<String> = (1..=count).map(|part| format!("{part}/{count}")).collect();
    home(1).init(&[&digits(&parts[0])[..], &["--age-max", "0"], &set].concat());
    let mut daemons = vec![home(1).run()];
    let ticket = daemons[0].ticket(u32::try_from(count).expect("few"));
    for index in 2..=count {
        home(index).join(&ticket, &[&digits(&parts[index - 1]), &set[..]].concat());
        daemons.push(home(index).run());
    }
    for daemon in &daemons {
        daemon.wait_peers(count - 1);
    }
    daemons
}

/// Processes whose command line names this path.
pub fn processes_naming(path: &Path) -> Vec<u32> {
    let needle = path.to_str().expect("UTF-8");
    let entries = fs::read_dir("/proc").expect("Linux").filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(needle)
    })
    .collect()
}

#[test]
fn waiting_returns_what_the_probe_yields() {
    let mut left = 2;
    let yielded = wait_for("the third probe", Duration::from_secs(5), || {
        left -= 1;
        (left < 0).then_some("done")
    });
    assert_eq!(yielded, "done");
}

#[test]
#[should_panic(expected = "in vain for nothing")]
fn waiting_ends_at_the_limit() {
    wait_for("nothing", Duration::ZERO, || None::<()>);
}
