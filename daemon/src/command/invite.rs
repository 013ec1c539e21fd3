//! `starling invite`: a ticket from a running daemon.

use serde_json::{Value, json};

use super::ask::ask;
use crate::cli::Invite;
use crate::exit::{Code, Failure, say};
use crate::setup;
use crate::store::Store;

/// Runs the command.
pub fn run(options: &Invite) -> Result<(), Failure> {
    let store = Store::open(&setup::state_dir(&options.place)?)?;
    let seconds = parse_time("--expires", &options.expires)?;
    let request = json!({"command": "invite", "uses": options.uses, "seconds": seconds});
    let answer = ask(&store, &request)?;
    match answer.get("ticket").and_then(Value::as_str) {
        Some(ticket) if !options.json => say(ticket),
        _ => say(answer),
    }
    Ok(())
}

/// Seconds of a time such as 90s, 15m, 12h or 7d.
pub fn parse_time(option: &str, text: &str) -> Result<u64, Failure> {
    let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
    let parsed = units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds)
    });
    parsed.ok_or_else(|| {
        let message = format!("{option} {text}: expected a time such as 90s, 15m, 12h or 7d");
        Failure::new(Code::Usage, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(parse_time("--since", "90s"), Ok(90));
        assert_eq!(parse_time("--since", "7d"), Ok(604_800));
        for wrong in ["", "7", "d", "-1d", "1.5h", "99999999999999999999d"] {
            assert_eq!(parse_time("--since", wrong).expect_err(wrong).code, Code::Usage);
        }
    }
}
