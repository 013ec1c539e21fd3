//! Writing a configuration that explains itself.

use core::fmt::Write as _;

use crate::load::field;
use crate::table::{Config, FIELDS, Field, SECTIONS};
use crate::values::{Found, quoted};

const HEADING: &str = "\
# Configuration of a Starling node. It works as it is: lines that begin with # are comments, and
# each key stands in one with its default. To set a key, remove the # before it.
#
# The variable STARLING_<SECTION>_<KEY> overrides a key of this file, and a flag overrides both.
";

/// The file that explains every key and sets none: reads back as the default.
#[must_use]
pub fn render_default() -> String {
    render_with(&[])
}

/// The same file with the keys of `overrides` set, each given as dotted key and plain text, as
/// for flags; the last of equal keys wins. Keys and values that [`load`](fn@crate::load) does not
/// accept are written as they are, for it to name them.
#[must_use]
pub fn render_with(overrides: &[(&str, String)]) -> String {
    let mut text = HEADING.to_owned();
    for (key, value) in overrides.iter().filter(|(key, _)| field(key).is_none()) {
        // As one key and no path: a dotted one would open its section a second time.
        push_line(&mut text, &format!("{} = {}", quoted(key), quoted(value)));
    }
    for (section, about) in SECTIONS {
        push_line(&mut text, &format!("\n# {about}\n[{section}]"));
        for field in FIELDS.iter().filter(|field| field.section == *section) {
            let dotted = field.dotted();
            let value = overrides.iter().rfind(|(key, _)| *key == dotted).map(|(_, value)| value);
            push_field(&mut text, field, value.map(String::as_str));
        }
    }
    text
}

fn push_field(text: &mut String, field: &Field, value: Option<&str>) {
    let (key, default) = (field.key, (field.get)(&Config::default()));
    text.push('\n');
    for line in field.doc {
        push_line(text, &format!("#{line}"));
    }
    push_line(text, &format!("# Allowed: {}.", field.allowed));
    push_line(text, &format!("# Default: {default}; example: {}", field.example_toml()));
    let line = match value {
        None => format!("# {key} = {default}"),
        Some(value) => {
            let mut config = Config::default();
            match (field.set)(&mut config, Found::Plain(value)) {
                Ok(()) => format!("{key} = {}", (field.get)(&config)),
                Err(_) => format!("{key} = {}", quoted(value)),
            }
        }
    };
    push_line(text, &line);
}

fn push_line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use crate::load;

    use super::*;

    const NODE: &str = include_str!("../node.toml");
    /// What each release wrote.
    const HISTORY: &[(&str, &str)] = &[("v0.1.0", include_str!("../history/v0.1.0.toml"))];

    fn read(text: &str) -> Config {
        load("node.toml", text, &[], &[]).map_err(|errors| errors.to_string()).expect(text)
    }

    #[test]
    fn the_default_file_reads_as_the_default_configuration() {
        assert_eq!(read(&render_default()), Config::default());
    }

    #[test]
    fn the_files_of_this_crate_are_current() {
        assert_eq!(NODE, render_default(), "config/node.toml is out of date");
        let now = concat!("v", env!("CARGO_PKG_VERSION"));
        let latest = HISTORY.last().filter(|(version, _)| *version == now);
        assert_eq!(latest.map(|(_, text)| *text), Some(NODE), "config/history lacks {now}");
    }

    #[test]
    fn files_of_all_releases_still_load() {
        for (version, text) in HISTORY {
            assert_eq!(read(text), Config::default(), "{version}");
            let set = uncommented(text);
            assert_ne!(set, *text, "{version}");
            read(&set);
        }
    }

    /// With every key set to the default that stands in its comment.
    fn uncommented(text: &str) -> String {
        let is_key = |line: &str| {
            FIELDS.iter().any(|field| line.starts_with(&format!("# {} = ", field.key)))
        };
        let lines = text.lines().map(|line| if is_key(line) { &line[2..] } else { line });
        lines.fold(String::new(), |text, line| text + line + "\n")
    }

    #[test]
    fn comments_hold_the_true_defaults() {
        let set = uncommented(&render_default());
        assert_eq!(set.lines().filter(|line| line.contains(" = ")).count(), FIELDS.len());
        assert!(set.lines().filter(|line| line.contains(" = ")).all(|line| !line.starts_with('#')));
        assert_eq!(read(&set), Config::default());
    }

    #[test]
    fn every_example_is_accepted_and_says_something_new() {
        let default = Config::default();
        for field in FIELDS {
            let (dotted, example) = (field.dotted(), field.example.to_owned());
            let mut config = Config::default();
            (field.set)(&mut config, Found::Plain(field.example)).expect(&dotted);
            assert_ne!(config, default, "{dotted}");
            assert_eq!(read(&render_with(&[(&dotted, example)])), config, "{dotted}");
        }
    }

    #[test]
    fn all_keys_can_be_set_at_once_and_texts_need_no_care() {
        let name = "a \"b\" \\ #c = 'd' é".to_owned();
        let keys: Vec<String> = FIELDS.iter().map(Field::dotted).collect();
        let mut overrides: Vec<(&str, String)> =
            keys.iter().zip(FIELDS).map(|(key, field)| (&**key, field.example.into())).collect();
        overrides.push(("node.name", name.clone()));
        overrides.push(("data.source", "rows/train-images".into()));
        let config = read(&render_with(&overrides));
        assert_eq!(config.name, name);
        assert_eq!(config.data, crate::DataSource::Idx("rows/train-images".into()));
        assert_eq!(config.steps_per_round, 8);
    }

    #[test]
    fn wrong_overrides_are_named_on_reading() {
        let overrides =
            [("training.stepz", "1".to_owned()), ("training.seed", "one \"\n".to_owned())];
        let text = render_with(&overrides);
        let errors = load("node.toml", &text, &[], &[]).expect_err("two problems").0;
        let keys: Vec<&str> = errors.iter().map(|error| &*error.key).collect();
        assert_eq!(keys, ["training.stepz", "training.seed"]);
    }

    #[test]
    fn every_section_has_keys_and_every_key_a_section() {
        let mut order: Vec<&str> = FIELDS.iter().map(|field| field.section).collect();
        order.dedup();
        let sections: Vec<&str> = SECTIONS.iter().map(|(section, _)| *section).collect();
        assert_eq!(order, sections);
    }
}
