//! Events as people read them.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Letters of an id that people see: the end, which differs between ids.
const ID_SHOWN: usize = 10;

/// `key=value` of all fields, without control characters: a terminal must not obey a peer.
pub fn summary(fields: &Map<String, Value>) -> String {
    let part = |(key, value): (&String, &Value)| match value {
        Value::Null => None,
        Value::Number(number) if number.is_f64() => {
            Some(format!("{key}={:.4}", number.as_f64().unwrap_or_default()))
        }
        Value::String(text) if key == "peer" => Some(format!("peer={}", short(text))),
        Value::String(text) => Some(format!("{key}={text}")),
        other => Some(format!("{key}={other}")),
    };
    escaped(&fields.iter().filter_map(part).collect::<Vec<_>>().join(" "))
}

/// The end of an id.
pub fn short(id: &str) -> String {
    match id.len().checked_sub(ID_SHOWN).and_then(|start| id.get(start..)) {
        Some(end) => format!("…{end}"),
        None => id.to_owned(),
    }
}

/// The text with its control characters written out.
pub fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            // Writing to a string cannot fail.
            let _ = write!(plain, "{}", letter.escape_default());
        } else {
            plain.push(letter);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_summary_is_short_and_harmless() {
        let fields = json!({
            "peer": "12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X", "loss": 0.123_456,
            "accuracy": null, "reason": "a\u{1b}[2J\nb", "peers": 3
        });
        let fields = fields.as_object().expect("an object");
        let expected = "peer=…1Nft9HyQ6X loss=0.1235 reason=a\\u{1b}[2J\\nb peers=3";
        assert_eq!(summary(fields), expected);
        assert_eq!(short("kurz"), "kurz");
        assert_eq!(short("ééééééé"), "…ééééé");
    }
}
