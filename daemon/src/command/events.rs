//! `starling events`: the catalogue of log events.

use serde_json::json;
use starling_node::event::CATALOGUE;

use crate::cli::Events;
use crate::exit::{Failure, say};
use crate::log::{describe, severity_name};

/// Runs the command.
#[expect(clippy::unnecessary_wraps, reason = "all commands have one form")]
pub fn run(options: &Events) -> Result<(), Failure> {
    for entry in CATALOGUE {
        if options.json {
            let fields: Vec<_> = entry
                .fields
                .iter()
                .map(|(name, kind)| json!({"name": name, "type": kind}))
                .collect();
            let line = json!({
                "name": entry.name,
                "severity": severity_name(entry.severity),
                "fields": fields,
                "meaning": entry.meaning,
                "action": entry.action,
            });
            say(format!("{line}"));
        } else {
            say(describe(entry));
        }
    }
    Ok(())
}
