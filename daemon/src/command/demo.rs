//! `starling demo`: a flock of real daemons on this machine, told from outside: this process starts
//! them, reads their event lines and their checkpoints, and injects faults.

mod baseline;
mod flock;
mod screen;
mod view;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use self::baseline::Baseline;
use self::flock::{Flock, NodeView, Plan};
use self::screen::Screen;
use self::view::View;
use crate::cli::Demo;
use crate::exit::{Code, Failure};

/// A flock that has not finished after so many times the planned duration is given up.
const PATIENCE_FACTOR: u32 = 6;
const PATIENCE_MIN: Duration = Duration::from_secs(120);
/// How long a killed daemon stays away.
const AWAY: Duration = Duration::from_secs(2);
/// No more kills once a node has come so far: the victim would be away at the end.
const LAST_KILL: f64 = 0.9;
/// How often the table is drawn.
const DRAW: Duration = Duration::from_millis(250);

/// Runs the command.
pub fn run(options: &Demo) -> Result<(), Failure> {
    if options.kill_every.is_some_and(|every| !(0.5..=86_400.0).contains(&every)) {
        return Err(Failure::new(Code::Usage, "--kill-every: expected 0.5 to 86400 seconds"));
    }
    let plan = Plan::new(options)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Code::Temporary, format!("no threads: {error}")))?;
    runtime.block_on(fly(options, &plan))
}

async fn fly(options: &Demo, plan: &Plan) -> Result<(), Failure> {
    let stopped = |name: &'static str, kind: SignalKind| {
        signal(kind)
            .map(|signal| (name, signal))
            .map_err(|error| Failure::new(Code::Internal, format!("signals: {error}")))
    };
    let (_, mut interrupt) = stopped("SIGINT", SignalKind::interrupt())?;
    let (_, mut terminate) = stopped("SIGTERM", SignalKind::terminate())?;
    // After the landing an interrupt only closes the dashboard.
    let landed = AtomicBool::new(false);
    tokio::select! {
        result = flight(options, plan, &landed) => result,
        _ = interrupt.recv() => {
            if landed.load(Ordering::Relaxed) { Ok(()) } else { Err(interrupted("SIGINT")) }
        }
        _ = terminate.recv() => Err(interrupted("SIGTERM")),
    }
}

/// The flock is dropped, and with it its processes and folders.
fn interrupted(name: &str) -> Failure {
    Failure::new(Code::Temporary, format!("stopped by {name}; all daemons and folders are removed"))
}

async fn flight(options: &Demo, plan: &Plan, landed: &AtomicBool) -> Result<(), Failure> {
    let mut screen = Screen::new(options.json);
    screen.say(&format!(
        "Starting {} daemons; each sees a part of {} ({}), and nobody sees the test rows.",
        options.nodes, options.data, options.split
    ));
    let mut view = options.dashboard.then(|| View::open(options, plan.steps)).transpose()?;
    if let Some(url) = view.as_ref().map(View::url) {
        let text = format!("Dashboard: {url}");
        screen.event(&json!({"event": "demo.dashboard", "url": url, "text": text}));
    }
    let lines = view.as_ref().map(|view| Arc::clone(&view.lines));
    let mut flock = Flock::start(plan, lines).await?;
    let began = Instant::now();
    screen.say("All have joined by ticket; the flight begins.");
    fly_to_the_end(options, plan, (&mut flock, &mut view), &mut screen, began).await?;
    let seconds = began.elapsed().as_secs_f64();
    if let Some(view) = &mut view {
        view.look_now(&flock).await;
    }
    let clean = flock.land().await?;
    screen.draw(&flock.nodes, seconds, plan.steps, true);
    let accuracies = flock.accuracies(plan)?;
    screen.say("Landed. For comparison: each node alone, and all rows in one place.");
    let baseline = Baseline::train(plan);
    let exit_ok = clean && flock.restored_ok;
    let verdict = verdict(options, &flock, &accuracies, &baseline, seconds, exit_ok);
    if let Some(view) = &mut view {
        view.landed(&flock, verdict.clone());
    }
    flock.remove()?;
    screen.verdict(&verdict);
    if options.dashboard && screen.is_terminal() {
        screen.say("The dashboard stays until you press Ctrl-C.");
        landed.store(true, Ordering::Relaxed);
        std::future::pending::<()>().await;
    }
    if exit_ok {
        return Ok(());
    }
    Err(Failure::new(Code::Internal, "a daemon did not end, or not come back, as it should have"))
}

async fn fly_to_the_end(
    options: &Demo,
    plan: &Plan,
    (flock, view): (&mut Flock, &mut Option<View>),
    screen: &mut Screen,
    began: Instant,
) -> Result<(), Failure> {
    let mut rng = ChaCha8Rng::seed_from_u64(u64::from(options.seed));
    let patience = Duration::from_secs(u64::from(options.seconds)) * PATIENCE_FACTOR;
    let patience = patience.max(PATIENCE_MIN);
    let every = options.kill_every.map(Duration::from_secs_f64);
    let mut next_kill = every.map(|every| began + every);
    let mut next_draw = began;
    while !flock.nodes.iter().all(|node| node.done) {
        if began.elapsed() > patience {
            return Err(Failure::new(Code::Temporary, "the flock did not finish in time"));
        }
        if let Some(event) = flock.next_event(DRAW).await? {
            screen.event(&event);
        }
        flock.restart_due(plan, AWAY).await?;
        let furthest = flock.nodes.iter().map(|node| node.age).fold(0.0, f64::max);
        let over = furthest > LAST_KILL * f64::from(plan.steps);
        if let (Some(at), Some(every), false) = (next_kill, every, over)
            && Instant::now() >= at
        {
            next_kill = Some(at + every);
            let victim = rng.random_range(0..flock.nodes.len());
            if let Some(event) = flock.kill(victim).await? {
                screen.event(&event);
            }
        }
        if Instant::now() >= next_draw {
            next_draw = Instant::now() + DRAW;
            flock.look_at_checkpoints(plan);
            screen.draw(&flock.nodes, began.elapsed().as_secs_f64(), plan.steps, false);
        }
        if let Some(view) = view {
            view.look(flock).await;
        }
    }
    Ok(())
}

fn verdict(
    options: &Demo,
    flock: &Flock,
    accuracies: &[f64],
    baseline: &Baseline,
    seconds: f64,
    exit_ok: bool,
) -> Value {
    let count = flock.nodes.len().max(1) as f64;
    let mean = |value: fn(&NodeView) -> f64| flock.nodes.iter().map(value).sum::<f64>() / count;
    let round = |share: f64| (share * 1e4).round() / 1e4;
    json!({
        "event": "demo.verdict",
        "seed": options.seed,
        "nodes": options.nodes,
        "data": options.data,
        "split": options.split.to_string(),
        "codec": options.codec,
        "profile": options.profile,
        "seconds": (seconds * 10.0).round() / 10.0,
        "rounds_mean": mean(|node| node.round as f64),
        "accuracy_mean": round(accuracies.iter().sum::<f64>() / count),
        "accuracy_worst": round(accuracies.iter().copied().fold(1.0, f64::min)),
        "accuracy_local_only": round(baseline.local_only),
        "accuracy_pooled": round(baseline.pooled),
        "sent_bytes_per_node_mean": mean(|node| node.sent_bytes() as f64).round(),
        "payload_bytes_per_node_mean": mean(|node| node.payload_bytes() as f64).round(),
        "kills": flock.kills,
        "exit_ok": exit_ok,
    })
}
