//! The demo's daemons: real processes of this very binary, each with its own folder, key and port,
//! joined by ticket as a user would.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use starling_config::load;
use starling_config::profile::Profile;
use starling_learning::compress::Codec;
use starling_learning::data::Shard;
use starling_learning::data::partition::partition;
use starling_learning::eval::evaluate;
use starling_learning::model::{Model, ModelSpec, Workspace};
use starling_node::spec::Network;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::view::Lines;
use crate::cli::{Demo, Init};
use crate::command::init;
use crate::dataset;
use crate::exit::{Code, Failure};
use crate::setup;
use crate::store::Store;

/// Local steps of each node, on digits and on Fashion-MNIST; steps per round.
const STEPS_DIGITS: u32 = 1600;
const STEPS_FASHION: u32 = 2000;
const STEPS_PER_ROUND: u32 = 4;
/// A daemon must be ready, or gone, within this time.
const READY: Duration = Duration::from_secs(20);
const GONE: Duration = Duration::from_secs(15);
/// Test rows that the live table looks at; the verdict takes all.
const LIVE_ROWS: usize = 1000;
/// Lines of all daemons that may wait to be read.
const LINES_MAX: usize = 4096;
/// Peers that a node waits for before its first round.
const START_PEERS_MAX: u16 = 8;

/// What is flown: fixed, so that flights can be compared.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) steps: u32,
    pub(super) seed: u32,
    pub(super) rate: f64,
    pub(super) batch: usize,
    pub(super) model: Model,
    pub(super) shards: Vec<Shard>,
    pub(super) pooled: Shard,
    pub(super) test: Shard,
    options: Vec<(String, String)>,
    data: String,
    split: String,
    nodes: u16,
}

impl Plan {
    pub(super) fn new(options: &Demo) -> Result<Self, Failure> {
        let (steps, hidden) = match options.data.as_str() {
            "digits" => (STEPS_DIGITS, 32),
            "fashion-mnist" => (STEPS_FASHION, 128),
            other => {
                let message = format!("--data {other}: the demo flies digits or fashion-mnist");
                return Err(Failure::new(Code::Usage, message));
            }
        };
        options.codec.parse::<Codec>().map_err(|error| Failure::new(Code::Usage, error))?;
        let profile: Result<Profile, String> = options.profile.parse();
        if !profile.is_ok_and(Profile::defends) {
            let message = format!("--profile {}: use closed, safe or paranoid", options.profile);
            return Err(Failure::new(Code::Usage, message));
        }
        let source = [("data.source".to_owned(), options.data.clone())];
        let config = load("demo", "", &[], &source)
            .map_err(|errors| Failure::new(Code::Usage, errors.to_string()))?;
        let source = dataset::read(&config, None)?;
        let (train, nodes) = (Arc::new(source.train), usize::from(options.nodes));
        let test = source.test.map(Arc::new).unwrap_or_else(|| Arc::clone(&train));
        let unusable = |error: starling_learning::data::DataError| {
            Failure::new(Code::Usage, error.to_string())
        };
        let (classes, seed) = (train.classes(), u64::from(options.seed));
        let parts = partition(train.labels(), classes, nodes, &options.split, seed);
        let shards = parts.map_err(unusable)?.into_iter();
        let shards: Result<Vec<Shard>, _> =
            shards.map(|rows| Shard::new(Arc::clone(&train), rows)).collect();
        let spec = ModelSpec { features: train.features(), hidden: vec![hidden], classes };
        let period = if options.fast {
            0
        } else {
            u64::from(options.seconds) * 1000 * u64::from(STEPS_PER_ROUND) / u64::from(steps)
        };
        let start_peers = (options.nodes - 1).min(START_PEERS_MAX);
        let set = |key: &str, value: String| (key.to_owned(), value);
        Ok(Self {
            steps,
            seed: options.seed,
            rate: init::RATE,
            batch: init::BATCH as usize,
            model: spec.model().map_err(|e| Failure::new(Code::Internal, e.to_string()))?,
            shards: shards.map_err(unusable)?,
            pooled: Shard::all(train),
            test: Shard::all(test),
            options: vec![
                set("network.listen", "/ip4/127.0.0.1/tcp/0".into()),
                set("network.mdns", "false".into()),
                set("training.steps_per_round", STEPS_PER_ROUND.to_string()),
                set("training.round_period_ms", period.to_string()),
                set("training.start_peers", start_peers.to_string()),
                set("data.split_seed", options.seed.to_string()),
                set("gossip.codec", options.codec.clone()),
                set("gossip.profile", options.profile.clone()),
                set("storage.checkpoint_interval_s", "2".into()),
                set("log.format", "json".into()),
                set("resources.nice", "10".into()),
                set("serve.listen", if options.dashboard { "127.0.0.1:0" } else { "" }.into()),
            ],
            data: options.data.clone(),
            split: options.split.to_string(),
            nodes: options.nodes,
        })
    }

    fn settings(&self, index: usize) -> Vec<String> {
        let seed = u64::from(self.seed) * 1000 + index as u64;
        let pairs = self.options.iter().map(|(key, value)| format!("{key}={value}"));
        pairs.chain([format!("training.seed={seed}")]).collect()
    }

    fn part(&self, index: usize) -> String {
        format!("{}/{}", index + 1, self.nodes)
    }
}

/// What is known of one daemon.
#[derive(Debug, Default)]
pub(super) struct NodeView {
    pub(super) short: String,
    pub(super) round: u64,
    pub(super) age: f64,
    pub(super) loss: f64,
    pub(super) cross_accuracy: Option<f64>,
    pub(super) accuracy: Option<f64>,
    pub(super) peers: u64,
    pub(super) boots: u64,
    pub(super) done: bool,
    pub(super) id: String,
    pub(super) directory: PathBuf,
    ready: bool,
    saved_age: f64,
    saved: bool,
    killed_at: Option<Instant>,
    /// Bytes sent, all and models, in this boot and in those before.
    sent: (u64, u64),
    sent_before: (u64, u64),
}

impl NodeView {
    pub(super) fn phase(&self) -> &'static str {
        match (self.killed_at, self.done) {
            (Some(_), _) => "killed",
            (None, true) => "done",
            (None, false) => "flies",
        }
    }

    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent.0 + self.sent_before.0
    }

    pub(super) fn payload_bytes(&self) -> u64 {
        self.sent.1 + self.sent_before.1
    }
}

/// The flock. Dropping it kills its processes and removes its folders.
#[derive(Debug)]
pub(super) struct Flock {
    pub(super) nodes: Vec<NodeView>,
    pub(super) kills: u32,
    pub(super) restored_ok: bool,
    /// Where the daemons' lines are shown, if anywhere.
    told: Option<Arc<Lines>>,
    children: Vec<Option<Child>>,
    lines: mpsc::Receiver<(usize, String)>,
    lines_in: mpsc::Sender<(usize, String)>,
    space: Workspace,
    folder: TempDir,
}

fn number(event: &Value, key: &str) -> f64 {
    event.get(key).and_then(Value::as_f64).unwrap_or_default()
}

fn whole(event: &Value, key: &str) -> u64 {
    event.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn own_binary() -> Result<Command, Failure> {
    let path = std::env::current_exe()
        .map_err(|error| Failure::new(Code::Internal, format!("own binary: {error}")))?;
    let mut command = Command::new(path);
    // The user's settings are for the user's nodes.
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("STARLING_") {
            command.env_remove(key);
        }
    }
    command.env_remove("CREDENTIALS_DIRECTORY").kill_on_drop(true);
    Ok(command)
}

impl Flock {
    pub(super) async fn start(plan: &Plan, told: Option<Arc<Lines>>) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("starling-demo-").tempdir();
        let folder = folder.map_err(|error| {
            Failure::new(Code::Io, format!("cannot make a temporary folder: {error}"))
        })?;
        let (lines_in, lines) = mpsc::channel(LINES_MAX);
        let nodes = usize::from(plan.nodes);
        let view = |index: usize| NodeView {
            directory: folder.path().join(format!("node-{}", index + 1)),
            ..NodeView::default()
        };
        let mut flock = Self {
            nodes: (0..nodes).map(view).collect(),
            kills: 0,
            restored_ok: true,
            told,
            children: (0..nodes).map(|_| None).collect(),
            lines,
            lines_in,
            space: Workspace::default(),
            folder,
        };
        flock.found(plan)?;
        flock.spawn(0)?;
        flock.wait_ready(0).await?;
        let ticket = flock.ticket(plan).await?;
        for index in 1..nodes {
            flock.join(plan, index, &ticket).await?;
            flock.spawn(index)?;
            flock.wait_ready(index).await?;
        }
        Ok(flock)
    }

    fn found(&self, plan: &Plan) -> Result<(), Failure> {
        let Some(first) = self.nodes.first() else { return Ok(()) };
        let options = Init {
            place: crate::cli::StateDir { state_dir: Some(first.directory.clone()) },
            data: crate::cli::DataOptions {
                data: Some(plan.data.clone()),
                part: Some(plan.part(0)),
                split: plan.split.parse().ok(),
                set: plan.settings(0),
                ..Default::default()
            },
            name: Some("demo".into()),
            hidden: None,
            rate: Some(plan.rate),
            age_max: Some(f64::from(plan.steps)),
            batch: None,
            open: false,
        };
        init::found(&options, &first.directory, Some(plan.seed)).map(|_| ())
    }

    async fn ticket(&self, plan: &Plan) -> Result<String, Failure> {
        let Some(first) = self.nodes.first() else { return Ok(String::new()) };
        let request = json!({"command": "invite", "uses": plan.nodes, "seconds": 3600});
        let answer = crate::control::ask(&first.directory.join("control.sock"), &request).await?;
        Ok(answer.get("ticket").and_then(Value::as_str).unwrap_or_default().to_owned())
    }

    async fn join(&self, plan: &Plan, index: usize, ticket: &str) -> Result<(), Failure> {
        let Some(node) = self.nodes.get(index) else { return Ok(()) };
        let mut command = own_binary()?;
        command.arg("join").arg(ticket).arg("--state-dir").arg(&node.directory);
        command.args(["--data", &plan.data, "--part", &plan.part(index), "--split", &plan.split]);
        for setting in plan.settings(index) {
            command.arg("--set").arg(setting);
        }
        let output = command.stdin(Stdio::null()).output().await;
        let output = output.map_err(|error| Failure::io("start", Path::new("starling"), &error))?;
        if output.status.success() {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::new(Code::Unavailable, format!("node {} cannot join: {reason}", index + 1)))
    }

    fn spawn(&mut self, index: usize) -> Result<(), Failure> {
        let Some(node) = self.nodes.get_mut(index) else { return Ok(()) };
        let mut command = own_binary()?;
        command.arg("run").arg("--ephemeral").arg("--state-dir").arg(&node.directory);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child =
            command.spawn().map_err(|error| Failure::io("start", Path::new("starling"), &error))?;
        (node.ready, node.killed_at, node.done) = (false, None, false);
        if let Some(stderr) = child.stderr.take() {
            let lines_in = self.lines_in.clone();
            tokio::spawn(async move {
                let mut lines = BufReader::new(stderr).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    if lines_in.send((index, line)).await.is_err() {
                        return;
                    }
                }
            });
        }
        if let Some(place) = self.children.get_mut(index) {
            *place = Some(child);
        }
        Ok(())
    }

    async fn wait_ready(&mut self, index: usize) -> Result<(), Failure> {
        let deadline = Instant::now() + READY;
        while !self.nodes.get(index).is_some_and(|node| node.ready) {
            if Instant::now() > deadline {
                let message = format!("node {} did not get ready in time", index + 1);
                return Err(Failure::new(Code::Temporary, message));
            }
            self.next_event(Duration::from_millis(100)).await?;
        }
        Ok(())
    }

    /// Waits a while for the next line of any daemon and takes note of it; what is worth showing.
    pub(super) async fn next_event(&mut self, wait: Duration) -> Result<Option<Value>, Failure> {
        let Ok(Some((index, line))) = timeout(wait, self.lines.recv()).await else {
            self.check_alive()?;
            return Ok(None);
        };
        let event: Value = match serde_json::from_str(&line) {
            Ok(event) => {
                if let Some(told) = &self.told {
                    told.push(&line);
                }
                event
            }
            Err(_) => {
                let message = format!("node {}: {line}", index + 1);
                return Err(Failure::new(Code::Internal, message));
            }
        };
        if event.get("event").and_then(Value::as_str) == Some("daemon.failed") {
            let reason = event.get("reason").and_then(Value::as_str).unwrap_or_default();
            return Err(Failure::new(Code::Internal, format!("node {}: {reason}", index + 1)));
        }
        Ok(self.take_note(index, &event))
    }

    fn check_alive(&mut self) -> Result<(), Failure> {
        for (index, child) in self.children.iter_mut().enumerate() {
            if let Some(Ok(Some(status))) = child.as_mut().map(Child::try_wait) {
                let message = format!("node {} ended: {status}", index + 1);
                return Err(Failure::new(Code::Internal, message));
            }
        }
        Ok(())
    }

    fn take_note(&mut self, index: usize, event: &Value) -> Option<Value> {
        let node = self.nodes.get_mut(index)?;
        let totals = (whole(event, "sent_bytes"), whole(event, "payload_sent_bytes"));
        match event.get("event").and_then(Value::as_str)? {
            "daemon.started" => {
                node.boots += 1;
                let id = event.get("node").and_then(Value::as_str).unwrap_or_default();
                self.restored_ok &= node.id.is_empty() || node.id == id;
                id.clone_into(&mut node.id);
                node.short = id.get(id.len().saturating_sub(10)..).unwrap_or_default().to_owned();
            }
            "daemon.ready" => node.ready = true,
            "checkpoint.saved" => (node.saved_age, node.saved) = (number(event, "age"), true),
            "checkpoint.restored" => {
                let age = number(event, "age");
                self.restored_ok &= age >= node.saved_age;
                let text = format!("node {} is back, restored at age {age:.0}", node.short);
                return Some(json!({
                    "event": "demo.node_restored", "node": node.id, "age": age,
                    "saved_age": node.saved_age, "text": text,
                }));
            }
            "round.completed" => {
                node.round = whole(event, "round");
                node.age = number(event, "age");
                node.loss = number(event, "loss");
                node.peers = whole(event, "peers");
                node.cross_accuracy = event.get("cross_accuracy").and_then(Value::as_f64);
                node.sent = totals;
            }
            "training.completed" => (node.done, node.age) = (true, number(event, "age")),
            "daemon.stopped" => node.sent = totals,
            _ => {}
        }
        None
    }

    /// SIGKILL, as a power cut would.
    pub(super) async fn kill(&mut self, index: usize) -> Result<Option<Value>, Failure> {
        let (Some(node), Some(child)) = (self.nodes.get_mut(index), self.children.get_mut(index))
        else {
            return Ok(None);
        };
        let Some(mut running) = child.take() else { return Ok(None) };
        running.kill().await.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        node.killed_at = Some(Instant::now());
        node.sent_before = (node.sent_bytes(), node.payload_bytes());
        node.sent = (0, 0);
        self.kills += 1;
        let text = format!("node {} is killed at age {:.0}", node.short, node.age);
        Ok(Some(json!({
            "event": "demo.node_killed", "node": node.id, "age": node.age,
            "saved_age": node.saved_age, "text": text,
        })))
    }

    /// Starts those again that were killed long enough ago.
    pub(super) async fn restart_due(&mut self, plan: &Plan, away: Duration) -> Result<(), Failure> {
        for index in 0..usize::from(plan.nodes) {
            let killed_at = self.nodes.get(index).and_then(|node| node.killed_at);
            if killed_at.is_some_and(|at| at.elapsed() >= away) {
                self.spawn(index)?;
            }
        }
        Ok(())
    }

    fn served(&self, node: &NodeView) -> Result<Option<Vec<f32>>, Failure> {
        let store = Store::open(&node.directory)?;
        let network: Network = setup::network(&store)?;
        let loaded = setup::look_at_checkpoints(&store, &network)?;
        Ok(loaded.newest.map(|(_, (_, vectors))| vectors.served))
    }

    /// Scores the checkpoints written since the last look on some of the test rows.
    pub(super) fn look_at_checkpoints(&mut self, plan: &Plan) {
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(index).filter(|node| node.saved) else { continue };
            // A checkpoint that is just being replaced is looked at next time.
            let Ok(Some(served)) = self.served(node) else { continue };
            let rows = Some(LIVE_ROWS);
            let found = evaluate(&plan.model, &served, &plan.test, rows, &mut self.space);
            if let Some(node) = self.nodes.get_mut(index) {
                (node.saved, node.accuracy) = (false, Some(found.accuracy()));
            }
        }
    }

    /// Stops all daemons as systemd would; whether all ended as they should.
    pub(super) async fn land(&mut self) -> Result<bool, Failure> {
        for child in self.children.iter().flatten() {
            let id = child.id().and_then(|id| i32::try_from(id).ok());
            if let Some(id) = id.and_then(rustix::process::Pid::from_raw) {
                // One that has ended already shows in its exit status.
                let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
            }
        }
        let mut clean = true;
        for child in &mut self.children {
            if let Some(mut child) = child.take() {
                // The pipe stays open until it has ended: a closed one means an orphan.
                let stdin = child.stdin.take();
                let ended = timeout(GONE, child.wait()).await;
                clean &= matches!(ended, Ok(Ok(status)) if status.success());
                drop(stdin);
            }
        }
        while let Ok(Some((index, line))) =
            timeout(Duration::from_millis(100), self.lines.recv()).await
        {
            if let Ok(event) = serde_json::from_str(&line) {
                self.take_note(index, &event);
            }
        }
        Ok(clean)
    }

    /// Accuracy of each served model on all test rows.
    pub(super) fn accuracies(&mut self, plan: &Plan) -> Result<Vec<f64>, Failure> {
        let mut accuracies = Vec::with_capacity(self.nodes.len());
        for index in 0..self.nodes.len() {
            let Some(node) = self.nodes.get(index) else { continue };
            let served = self.served(node)?.ok_or_else(|| {
                Failure::new(Code::Internal, format!("node {} saved nothing", index + 1))
            })?;
            let found = evaluate(&plan.model, &served, &plan.test, None, &mut self.space);
            accuracies.push(found.accuracy());
        }
        Ok(accuracies)
    }

    /// Removes all folders.
    pub(super) fn remove(self) -> Result<(), Failure> {
        let path = self.folder.path().to_owned();
        self.folder.close().map_err(|error| Failure::io("remove", &path, &error))
    }
}
