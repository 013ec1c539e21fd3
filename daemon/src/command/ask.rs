//! Commands that ask a running daemon for one thing, and say what it answered.

use serde_json::{Value, json};

use crate::cli::{Ask, AskPeer};
use crate::control;
use crate::exit::{Code, Failure, say};
use crate::setup;
use crate::store::Store;

/// Asks the daemon on `store` something.
pub fn ask(store: &Store, request: &Value) -> Result<Value, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::new(Code::Temporary, format!("no threads: {error}")))?;
    runtime.block_on(control::ask(&store.path("control.sock"), request))
}

/// Asks, and prints the answer as JSON if that is wanted; else gives it back.
fn asked(options: &Ask, request: &Value) -> Result<Option<Value>, Failure> {
    let store = Store::open(&setup::state_dir(&options.place)?)?;
    let answer = ask(&store, request)?;
    if options.json {
        say(answer);
        return Ok(None);
    }
    Ok(Some(answer))
}

fn list<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(answer: &'a Value, key: &str) -> &'a str {
    answer.get(key).and_then(Value::as_str).unwrap_or("-")
}

fn number(answer: &Value, key: &str) -> f64 {
    answer.get(key).and_then(Value::as_f64).unwrap_or_default()
}

fn is(answer: &Value, key: &str) -> bool {
    answer.get(key).and_then(Value::as_bool) == Some(true)
}

/// `starling peers`.
pub fn peers(options: &Ask) -> Result<(), Failure> {
    let Some(answer) = asked(options, &json!({"command": "peers"}))? else { return Ok(()) };
    say(format!(
        "{:52}  state       {:>7} {:>8} {:>7} {:>8}  address",
        "peer", "round", "age", "trust %", "sent MB"
    ));
    for peer in list(&answer, "peers") {
        let states = [("banned", "banned"), ("quarantined", "quarantined"), ("linked", "linked")];
        let state = states.into_iter().find(|(key, _)| is(peer, key)).map_or("known", |(_, s)| s);
        let trusted = peer.get("trusted").and_then(Value::as_f64);
        let trusted = trusted.map_or("-".to_owned(), |share| format!("{:.0}", 100.0 * share));
        say(format!(
            "{:52}  {state:11} {:7.0} {:8.0} {trusted:>7} {:8.3}  {}",
            text(peer, "id"),
            number(peer, "round"),
            number(peer, "age"),
            number(peer, "model_bytes_sent") / 1e6,
            text(peer, "address"),
        ));
    }
    Ok(())
}

/// `starling ban` and `unban`.
pub fn ban(options: &AskPeer, command: &str) -> Result<(), Failure> {
    let request = json!({"command": command, "peer": options.peer});
    let Some(answer) = asked(&options.ask, &request)? else { return Ok(()) };
    let state = if is(&answer, "banned") { "banned" } else { "not banned any more" };
    say(format!("{}  {state}", text(&answer, "peer")));
    Ok(())
}

/// `starling checkpoint`.
pub fn checkpoint(options: &Ask) -> Result<(), Failure> {
    let Some(answer) = asked(options, &json!({"command": "checkpoint"}))? else { return Ok(()) };
    say(format!("saved     {}", generation(&answer)));
    Ok(())
}

fn generation(answer: &Value) -> String {
    format!(
        "generation {}, round {}, age {:.0}, {:.3} MB",
        number(answer, "generation"),
        number(answer, "round"),
        number(answer, "age"),
        number(answer, "bytes") / 1e6
    )
}

/// `starling pause` and `resume`.
pub fn pause(options: &Ask, command: &str) -> Result<(), Failure> {
    let Some(answer) = asked(options, &json!({"command": command}))? else { return Ok(()) };
    say(if is(&answer, "paused") {
        "paused    the round under way is the last until `starling resume` or a restart"
    } else {
        "training"
    });
    Ok(())
}

/// `starling leave`.
pub fn leave(options: &Ask) -> Result<(), Failure> {
    let Some(answer) = asked(options, &json!({"command": "leave"}))? else { return Ok(()) };
    say(format!("left      {}", generation(&answer)));
    Ok(())
}

/// `starling reload`.
pub fn reload(options: &Ask) -> Result<(), Failure> {
    let Some(answer) = asked(options, &json!({"command": "reload"}))? else { return Ok(()) };
    let (applied, restart) = (list(&answer, "applied"), list(&answer, "needs_restart"));
    for key in applied.iter().filter_map(Value::as_str) {
        say(format!("applied   {key}"));
    }
    for key in restart.iter().filter_map(Value::as_str) {
        say(format!("restart   {key}: the old value stays in force until then"));
    }
    if applied.is_empty() && restart.is_empty() {
        say("unchanged");
    }
    Ok(())
}

/// `starling limits`.
pub fn limits(options: &Ask) -> Result<(), Failure> {
    let Some(answer) = asked(options, &json!({"command": "limits"}))? else { return Ok(()) };
    for limit in list(&answer, "limits") {
        let (used, max) = (number(limit, "used"), number(limit, "max"));
        say(format!("{:31} {used:>11} of {max}", text(limit, "name")));
    }
    Ok(())
}

/// `starling privacy`.
pub fn privacy(options: &Ask) -> Result<(), Failure> {
    let Some(answer) = asked(options, &json!({"command": "privacy"}))? else { return Ok(()) };
    for key in ["leaves", "stays"] {
        for what in list(&answer, key).iter().filter_map(Value::as_str) {
            say(format!("{key:9} {what}"));
        }
    }
    say(format!("rows      {} here", number(&answer, "rows_here")));
    say(format!(
        "sent      {} models, {:.3} MB, since the start of the daemon",
        number(&answer, "models_sent"),
        number(&answer, "model_bytes_sent") / 1e6
    ));
    for peer in list(&answer, "recipients") {
        let (models, bytes) = (number(peer, "models"), number(peer, "model_bytes") / 1e6);
        say(format!("          {}  {models} models, {bytes:.3} MB", text(peer, "peer")));
    }
    say("epsilon   unbounded: no differential privacy is in use. Whoever has a model can learn");
    say("          something of the rows it was trained on.");
    Ok(())
}
