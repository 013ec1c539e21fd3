//! The JSON Schema of a log line, made from the catalogue.

use serde_json::{Map, Value, json};
use starling_node::event::{CATALOGUE, Entry, field_meaning};

use crate::log::{ENVELOPE, severity_name};

/// The schema as it is published.
pub fn render() -> String {
    let variants: Vec<Value> = CATALOGUE.iter().map(variant).collect();
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of Starling's log",
        "description": "Made by `starling events --schema`. A field of a daemon's log that is \
                        not in here is a defect.",
        "type": "object",
        "oneOf": variants,
        "$defs": envelope(),
    });
    // Text and numbers always become JSON.
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

fn envelope() -> Value {
    let time = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$";
    json!({
        "ts": {"type": "string", "pattern": time, "description": "Time, UTC."},
        "schema": {"const": 1, "description": "Version of this schema."},
        "node": {"type": "string", "description": "Full id of the node that writes."},
        "network": {"type": "string", "description": "Short id of its network."},
        "boot": {
            "type": "integer", "minimum": 0,
            "description": "Start of this node, counted; larger than all earlier ones.",
        },
        "seq": {
            "type": "integer", "minimum": 1,
            "description": "Lines of this boot, counted from 1 without a gap: a gap is a lost \
                            line.",
        },
        "suppressed": {
            "type": "integer", "minimum": 1,
            "description": "Lines of this event about this peer that were held back since the \
                            last one.",
        },
        "msg": {"type": "string", "description": "The event and its fields, for people."},
    })
}

fn variant(entry: &Entry) -> Value {
    let mut properties = Map::new();
    for name in ENVELOPE {
        let value = match name {
            "severity" => json!({"const": severity_name(entry.severity)}),
            "event" => json!({"const": entry.name}),
            _ => json!({"$ref": format!("#/$defs/{name}")}),
        };
        properties.insert(name.to_owned(), value);
    }
    let mut required: Vec<&str> =
        ENVELOPE.into_iter().filter(|name| *name != "suppressed").collect();
    for (name, kind) in entry.fields {
        let mut property = kind_schema(kind);
        property.insert("description".into(), field_meaning(name).into());
        properties.insert((*name).to_owned(), property.into());
        required.push(name);
    }
    json!({
        "title": entry.name,
        "description": entry.meaning,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// A Rust type of the catalogue as JSON has it. A number that is not finite is null there.
fn kind_schema(kind: &str) -> Map<String, Value> {
    let schema = match kind {
        "String" => json!({"type": "string"}),
        "Vec<String>" => json!({"type": "array", "items": {"type": "string"}}),
        "f64" | "Option<f64>" => json!({"type": ["number", "null"]}),
        "bool" => json!({"type": "boolean"}),
        _ => json!({"type": "integer", "minimum": 0}),
    };
    schema.as_object().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_is_current() {
        let published = include_str!("../../../../docs/events.schema.json");
        assert!(
            published == render(),
            "docs/events.schema.json is out of date: \
             starling events --schema > docs/events.schema.json"
        );
    }

    #[test]
    fn every_type_of_the_catalogue_is_known() {
        let known = ["String", "Vec<String>", "f64", "Option<f64>", "bool", "u64", "usize", "u32"];
        for entry in CATALOGUE {
            for (name, kind) in entry.fields {
                assert!(known.contains(kind) || *kind == "u8", "{}: {name}: {kind}", entry.name);
                assert!(!ENVELOPE.contains(name), "{}: {name}", entry.name);
            }
        }
    }

    #[test]
    fn lines_are_valid_only_with_the_right_fields() {
        let schema: Value = serde_json::from_str(&render()).expect("JSON");
        assert!(jsonschema::meta::is_valid(&schema));
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let line = json!({
            "ts": "2026-11-22T19:04:01.123456Z", "severity": "WARN", "event": "update.rejected",
            "schema": 1, "node": "n", "network": "w", "boot": 1, "seq": 1, "peer": "p",
            "reason": "r", "distance": 1.5, "threshold": null, "msg": "m",
        });
        assert!(validator.is_valid(&line));
        let wrong = [
            ("ts", json!("2026-11-22")),
            ("severity", json!("INFO")),
            ("event", json!("update.accepted")),
            ("seq", json!(0)),
            ("suppressed", json!(0)),
            ("reason", json!(5)),
            ("distance", json!("far")),
            ("extra", json!(1)),
        ];
        for (key, value) in wrong {
            let mut line = line.clone();
            line[key] = value;
            assert!(!validator.is_valid(&line), "{line}");
        }
        for key in ["seq", "peer", "threshold", "event"] {
            let mut line = line.clone();
            line.as_object_mut().expect("an object").remove(key);
            assert!(!validator.is_valid(&line), "without {key}");
        }
    }
}
