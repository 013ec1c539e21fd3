//! Problems with what an operator wrote: where, under which key, and how to mend it.

use core::fmt;

use toml::Spanned;
use toml::de::DeTable;

/// One problem. Printed as `place: key: message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// `file:line`, `environment` or `flags`.
    pub place: String,
    /// The dotted key or the variable; empty if the text is not even TOML there.
    pub key: String,
    /// What was found, what is allowed and how to fix it.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, message } = self;
        if key.is_empty() {
            write!(f, "{place}: {message}")
        } else {
            write!(f, "{place}: {key}: {message}")
        }
    }
}

/// All problems of one reading: those of the file by line, then the environment's, then the
/// flags'. Printed one to a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

/// The 1-based line of byte `offset` of `text`.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}

/// `text` without line breaks and escape sequences, which a quoted key may hold: a problem takes
/// one line.
pub(crate) fn one_line(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

/// The document of `text`, or every place that is not TOML: its line and what is wrong there. What
/// was understood of a damaged document is not given, as it would only raise false alarms.
pub(crate) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Vec<(usize, String)>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(document);
    }
    let places = errors.iter().map(|error| {
        let offset = error.span().map_or(text.len(), |span| span.start);
        (line_of(text, offset), format!("found no valid TOML: {}", error.message()))
    });
    let mut places: Vec<_> = places.collect();
    places.sort_by_key(|(line, _)| *line);
    Err(places)
}
