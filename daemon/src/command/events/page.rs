//! The page about events, made from the catalogue.

use std::fmt::Write as _;

use starling_node::event::{CATALOGUE, Entry, field_meaning};

use crate::log::severity_name;

const HEADING: &str = "\
# Events

<!-- Made by `starling events --markdown`; do not edit. -->

Everything that a node tells is one of these events, one JSON object per line. The schema of a line
is [events.schema.json](events.schema.json), `starling events --schema`. Names, fields and their
units are stable: new ones may come, none changes its meaning without a new `schema`.

Every line has `ts` (UTC), `severity`, `event`, `schema`, `node` (full id), `network`, `boot` (the
start of this node, counted), `seq` and `msg` (the same for people). `seq` counts the lines of a
boot from 1 without a gap, so a gap is a lost line. INFO is normal operation, WARN worth a look if
it repeats, ERROR for an operator to act on.

Warnings about one peer are written once in 10 seconds per event, news about it in bursts of 20;
`suppressed` on the next line is how many were held back. More than 100 lines a second are not
written about peers; `log.suppressed` tells how many were lost. What is held back, or below
`log.level`, is counted nevertheless.

In the journal each line has the fields `STARLING_EVENT`, `STARLING_PEER`, `STARLING_REASON`,
`STARLING_SEQ` and `STARLING_NODE`, and priority 6, 4 or 3: `journalctl -u starling -p warning`,
`journalctl STARLING_EVENT=peer.banned`. `starling logs` reads them.
";

/// The page as it is published.
pub(super) fn render() -> String {
    let mut page = HEADING.to_owned();
    page.push_str("\n| event | severity | meaning |\n|---|---|---|\n");
    for entry in CATALOGUE {
        let (name, severity) = (entry.name, severity_name(entry.severity));
        let anchor = name.replace('.', "");
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| [`{name}`](#{anchor}) | {severity} | {} |", entry.meaning);
    }
    for entry in CATALOGUE {
        section(&mut page, entry);
    }
    page
}

fn section(page: &mut String, entry: &Entry) {
    let (name, severity) = (entry.name, severity_name(entry.severity));
    let _ = write!(page, "\n## {name}\n\n{severity}. {}\n\n", entry.meaning);
    let _ = writeln!(page, "**What to do:** {}", entry.action);
    if entry.fields.is_empty() {
        return;
    }
    page.push_str("\n| field | type | |\n|---|---|---|\n");
    for (field, kind) in entry.fields {
        let _ = writeln!(page, "| `{field}` | {} | {} |", json_kind(kind), field_meaning(field));
    }
}

fn json_kind(kind: &str) -> &'static str {
    match kind {
        "String" => "text",
        "Vec<String>" => "list of texts",
        "f64" => "number",
        "Option<f64>" => "number or null",
        "bool" => "true or false",
        _ => "whole number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_page_is_current() {
        let published = include_str!("../../../../docs/events.md");
        assert!(
            published == render(),
            "docs/events.md is out of date: starling events --markdown > docs/events.md"
        );
    }
}
