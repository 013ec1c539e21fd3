//! `starling events`: the catalogue of log events, for people, scripts, documents and validators.

mod page;
pub mod schema;

use serde_json::json;
use starling_node::event::{CATALOGUE, Entry};

use crate::cli::Events;
use crate::exit::{Failure, say};
use crate::log::severity_name;

/// Runs the command.
#[expect(clippy::unnecessary_wraps, reason = "all commands have one form")]
pub fn run(options: &Events) -> Result<(), Failure> {
    if options.schema {
        say(schema::render().trim_end());
    } else if options.markdown {
        say(page::render().trim_end());
    } else {
        CATALOGUE.iter().for_each(|entry| say(if options.json { line(entry) } else { row(entry) }));
    }
    Ok(())
}

fn line(entry: &Entry) -> String {
    let fields = entry.fields.iter().map(|(name, kind)| json!({"name": name, "type": kind}));
    let line = json!({
        "name": entry.name,
        "severity": severity_name(entry.severity),
        "fields": fields.collect::<Vec<_>>(),
        "meaning": entry.meaning,
        "action": entry.action,
    });
    line.to_string()
}

fn row(entry: &Entry) -> String {
    let fields = entry.fields.iter().map(|(name, kind)| format!("{name}: {kind}"));
    let fields = fields.collect::<Vec<_>>().join(", ");
    format!(
        "{:5} {}\n      {}\n      fields: {}\n      do: {}",
        severity_name(entry.severity),
        entry.name,
        entry.meaning,
        if fields.is_empty() { "none" } else { &fields },
        entry.action
    )
}
