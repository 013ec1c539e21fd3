//! `starling status`: how a running node is.

use serde_json::{Value, json};

use super::ask::ask;
use crate::cli::Status;
use crate::exit::{Failure, say};
use crate::setup;
use crate::store::Store;

/// Runs the command.
pub fn run(options: &Status) -> Result<(), Failure> {
    if options.watch {
        return super::watch::run(options);
    }
    let store = Store::open(&setup::state_dir(&options.place)?)?;
    let status = ask(&store, &json!({"command": "status"}))?;
    if options.json {
        say(format!("{status}"));
        return Ok(());
    }
    let text = |key: &str| status.get(key).and_then(Value::as_str).unwrap_or("-").to_owned();
    let number = |key: &str| status.get(key).and_then(Value::as_f64);
    let percent = |key: &str| {
        number(key).map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
    };
    let whole = |key: &str| number(key).unwrap_or_default();
    say(format!("node      {}", text("node")));
    say(format!("network   {}", text("network")));
    let of = number("age_max").map_or_else(String::new, |age_max| format!(" of {age_max:.0}"));
    let paused = status.get("paused").and_then(Value::as_bool) == Some(true);
    say(format!(
        "phase     {}{}, round {}, age {:.0}{of}",
        text("phase"),
        if paused { ", paused" } else { "" },
        whole("round"),
        whole("age")
    ));
    if let Some(obstacle) = status.get("obstacle").and_then(Value::as_str) {
        say(format!("waits     {obstacle}"));
    }
    say(format!("loss      {}", loss(&status)));
    say(format!("accuracy  {} (scored by peers)", percent("cross_accuracy")));
    say(format!("spread    {} of the model's length", percent("consensus")));
    say(format!(
        "merges    {} accepted, {} rejected, {} exchanges failed",
        whole("accepted"),
        whole("rejected"),
        whole("failed")
    ));
    say(format!(
        "sent      {:.3} MB, of it models {:.3} MB",
        mega(&status, "sent_bytes"),
        mega(&status, "payload_sent_bytes")
    ));
    say(format!("received  {:.3} MB", mega(&status, "received_bytes")));
    if let Some(url) = status.get("dashboard").and_then(Value::as_str) {
        say(format!("dashboard {url}"));
    }
    let peers = status.get("peers").and_then(Value::as_array).cloned().unwrap_or_default();
    say(format!("peers     {}", peers.len()));
    for peer in peers {
        let id = peer.get("id").and_then(Value::as_str).unwrap_or("-");
        let field = |key: &str| peer.get(key).and_then(Value::as_f64).unwrap_or_default();
        say(format!("          {id}  round {}, age {:.0}", field("round"), field("age")));
    }
    Ok(())
}

/// Not known before the first round of a boot, and not a number if training diverges.
fn loss(status: &Value) -> String {
    let loss = status.get("loss").and_then(Value::as_f64);
    loss.map_or_else(|| "-".to_owned(), |loss| format!("{loss:.4}"))
}

fn mega(status: &Value, key: &str) -> f64 {
    status.get(key).and_then(Value::as_f64).unwrap_or_default() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_is_not_known_is_not_zero() {
        assert_eq!(loss(&json!({"loss": null})), "-");
        assert_eq!(loss(&json!({"loss": 0.25})), "0.2500");
    }
}
