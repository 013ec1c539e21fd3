//! Values: what stands in a file or comes as plain text, what a key accepts, and how it is
//! written back.

use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use starling_protocol::id::NodeId;
use starling_protocol::limits::ADDRESS_BYTES_MAX;
use toml::de::DeValue;

use crate::profile::Profile;

/// Characters of a value that an error repeats.
const SHOWN_CHARS_MAX: usize = 64;

/// Where training rows come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DataSource {
    /// Nowhere; its text is empty.
    #[default]
    None,
    /// The digits that come with Starling.
    Digits,
    /// Fashion-MNIST.
    FashionMnist,
    /// A table with a header line; the path ends in `.csv`.
    Csv(PathBuf),
    /// An IDX file of images, as MNIST is published; any other path.
    Idx(PathBuf),
}

impl DataSource {
    /// The texts that are names and not paths.
    pub(crate) const NAMES: [&str; 2] = ["digits", "fashion-mnist"];
}

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Digits => f.write_str("digits"),
            Self::FashionMnist => f.write_str("fashion-mnist"),
            Self::Csv(path) | Self::Idx(path) => path.display().fmt(f),
        }
    }
}

impl From<&str> for DataSource {
    fn from(text: &str) -> Self {
        match text {
            "" => Self::None,
            "digits" => Self::Digits,
            "fashion-mnist" => Self::FashionMnist,
            path => {
                let extension = Path::new(path).extension();
                if extension.is_some_and(|ending| ending.eq_ignore_ascii_case("csv")) {
                    Self::Csv(path.into())
                } else {
                    Self::Idx(path.into())
                }
            }
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// Text for people.
    Text,
    /// Events with fields, straight to the system's journal.
    Journal,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Json => "json",
            Self::Text => "text",
            Self::Journal => "journal",
        })
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Auto, Self::Json, Self::Text, Self::Journal]
            .into_iter()
            .find(|format| format.to_string() == text)
            .ok_or_else(|| {
                format!("`{text}` is no log format: expected auto, json, text or journal")
            })
    }
}

/// The least severe events that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// All of them.
    #[default]
    Info,
    /// What is worth a look.
    Warn,
    /// What an operator must act on.
    Error,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Info, Self::Warn, Self::Error]
            .into_iter()
            .find(|level| level.to_string() == text)
            .ok_or_else(|| format!("`{text}` is no log level: expected info, warn or error"))
    }
}

/// Which part of a data set is this node's. Its text counts from one: `2/3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Counted from zero, below `count`.
    pub index: usize,
    /// Parts in all.
    pub count: usize,
}

impl Part {
    /// All rows.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
    /// Most parts of a data set.
    pub const COUNT_MAX: usize = 65_536;
}

impl Default for Part {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index.saturating_add(1), self.count)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(number, count)| {
            let (number, count): (usize, usize) = (number.parse().ok()?, count.parse().ok()?);
            let index = number.checked_sub(1)?;
            (index < count && count <= Self::COUNT_MAX).then_some(Self { index, count })
        });
        numbers.ok_or_else(|| format!("`{text}` is no part: expected K/N, as in 2/3"))
    }
}

/// A value as it was found.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found<'a> {
    /// In a file.
    Toml(&'a DeValue<'a>),
    /// In the environment or a flag, where everything is text.
    Plain(&'a str),
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(&quoted_short(text)),
            Self::Toml(DeValue::String(text)) => write!(f, "the text {}", quoted_short(text)),
            Self::Toml(DeValue::Integer(number)) => number.fmt(f),
            Self::Toml(DeValue::Float(number)) => number.fmt(f),
            Self::Toml(DeValue::Boolean(flag)) => flag.fmt(f),
            Self::Toml(DeValue::Datetime(date)) => write!(f, "the date {date}"),
            Self::Toml(DeValue::Array(_)) => f.write_str("a list"),
            Self::Toml(DeValue::Table(_)) => f.write_str("a section"),
        }
    }
}

impl Found<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Toml(value) => value.as_str(),
        }
    }

    fn number<T: FromStr>(&self) -> Option<T> {
        match self {
            Self::Plain(text) => text.parse().ok(),
            Self::Toml(DeValue::Integer(number)) if number.radix() == 10 => {
                number.as_str().parse().ok()
            }
            Self::Toml(DeValue::Integer(number)) => {
                let value = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
                value.to_string().parse().ok()
            }
            Self::Toml(DeValue::Float(number)) => number.as_str().parse().ok(),
            Self::Toml(_) => None,
        }
    }

    /// Texts of a list; from plain text, where commas stand between them.
    fn texts(&self) -> Option<Vec<String>> {
        match self {
            Self::Plain(text) if text.trim().is_empty() => Some(Vec::new()),
            Self::Plain(text) => Some(text.split(',').map(|item| item.trim().into()).collect()),
            Self::Toml(DeValue::Array(items)) => {
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
            }
            Self::Toml(_) => None,
        }
    }
}

/// What a key makes of a value: its own type, or what was found instead.
pub(crate) type Reading<T> = Result<T, String>;

/// A number within `range`; a float that is no number is in no range.
pub(crate) fn within<T: FromStr + PartialOrd>(
    range: RangeInclusive<T>,
) -> impl Fn(Found<'_>) -> Reading<T> {
    move |found| {
        found.number().filter(|number| range.contains(number)).ok_or_else(|| found.to_string())
    }
}

/// `true` or `false`.
pub(crate) fn boolean(found: Found<'_>) -> Reading<bool> {
    let flag = match found {
        Found::Plain(text) => text.parse().ok(),
        Found::Toml(value) => value.as_bool(),
    };
    flag.ok_or_else(|| found.to_string())
}

/// A text that `T` understands.
pub(crate) fn parsed<T: FromStr>(found: Found<'_>) -> Reading<T> {
    found.text().and_then(|text| text.parse().ok()).ok_or_else(|| found.to_string())
}

/// A profile that a real node may have.
pub(crate) fn profile(found: Found<'_>) -> Reading<Profile> {
    parsed(found).and_then(
        |profile: Profile| {
            if profile.defends() { Ok(profile) } else { Err(found.to_string()) }
        },
    )
}

/// A text of `length` characters that can be printed on one line.
pub(crate) fn line(length: RangeInclusive<usize>) -> impl Fn(Found<'_>) -> Reading<String> {
    move |found| {
        let fits = |text: &&str| {
            length.contains(&text.chars().count()) && !text.chars().any(char::is_control)
        };
        found.text().filter(fits).map(str::to_owned).ok_or_else(|| found.to_string())
    }
}

/// The longest path that Linux takes, less its final zero.
const PATH_BYTES_MAX: usize = 4095;

fn path_text<'a>(found: &'a Found<'_>) -> Reading<&'a str> {
    let fits = |text: &&str| text.len() <= PATH_BYTES_MAX && !text.contains(char::is_control);
    found.text().filter(fits).ok_or_else(|| found.to_string())
}

/// A name of a data set or a path.
pub(crate) fn source(found: Found<'_>) -> Reading<DataSource> {
    path_text(&found).map(DataSource::from)
}

/// A path, or none if empty.
pub(crate) fn path(found: Found<'_>) -> Reading<Option<PathBuf>> {
    path_text(&found).map(|text| (!text.is_empty()).then(|| text.into()))
}

/// An address with a port, or none if empty.
pub(crate) fn socket(found: Found<'_>) -> Reading<Option<SocketAddr>> {
    match found.text() {
        Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| found.to_string()),
        None => Err(found.to_string()),
    }
}

/// Longest name of a host, by DNS, with scheme and port.
const ENDPOINT_BYTES_MAX: usize = 7 + 253 + 6;

/// An HTTP address without a path, or none if empty.
pub(crate) fn endpoint(found: Found<'_>) -> Reading<String> {
    let fits = |text: &&str| {
        let host = |text: &str| {
            // The colons within brackets are an IPv6 address's.
            let split = text.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
            let (host, port) = split.unwrap_or((text, "4318"));
            let bracketed = host.starts_with('[') && host.ends_with(']');
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
            let named = !host.is_empty() && host.chars().all(plain);
            (named || bracketed) && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        text.is_empty()
            || text.len() <= ENDPOINT_BYTES_MAX && text.strip_prefix("http://").is_some_and(host)
    };
    found.text().filter(fits).map(str::to_owned).ok_or_else(|| found.to_string())
}

/// At most `count_max` texts that each pass `fits`.
pub(crate) fn list(
    count_max: usize,
    fits: fn(&str) -> bool,
) -> impl Fn(Found<'_>) -> Reading<Vec<String>> {
    move |found| {
        let texts = found.texts().ok_or_else(|| match found {
            Found::Toml(DeValue::Array(_)) => "a list with other things than texts".to_owned(),
            _ => found.to_string(),
        })?;
        if let Some(wrong) = texts.iter().find(|text| !fits(text)) {
            return Err(quoted_short(wrong));
        }
        if texts.len() > count_max {
            return Err(format!("{} of them", texts.len()));
        }
        Ok(texts)
    }
}

/// Whether `text` looks like a multiaddress; only who dials or listens can tell for sure.
pub(crate) fn is_address(text: &str) -> bool {
    text.len() <= ADDRESS_BYTES_MAX
        && text.starts_with('/')
        && text.chars().all(|letter| letter.is_ascii_graphic())
}

/// Whether `text` is an address that says whom to expect there.
pub(crate) fn is_peer(text: &str) -> bool {
    let id = text.rsplit_once("/p2p/").map(|(_, id)| id);
    is_address(text) && id.is_some_and(|id| id.parse::<NodeId>().is_ok())
}

/// How a value is written in TOML.
pub(crate) trait Written {
    /// TOML that reads back as this value.
    fn toml(&self) -> String;
}

macro_rules! written {
    ($how:path: $($type:ty),+) => {
        $(impl Written for $type {
            fn toml(&self) -> String {
                $how(&self.to_string())
            }
        })+
    };
}

written!(quoted: String, DataSource, LogFormat, LogLevel, Part);
written!(quoted: starling_learning::data::partition::Split, starling_learning::compress::Codec);
written!(quoted: Profile);
written!(str::to_owned: bool, u8, u32, u64, usize);

impl Written for f64 {
    fn toml(&self) -> String {
        // Unlike `Display`, never a long row of zeros.
        format!("{self:?}")
    }
}

impl Written for Option<PathBuf> {
    fn toml(&self) -> String {
        quoted(&self.as_ref().map(|path| path.display().to_string()).unwrap_or_default())
    }
}

impl Written for Option<SocketAddr> {
    fn toml(&self) -> String {
        quoted(&self.map(|address| address.to_string()).unwrap_or_default())
    }
}

impl Written for Vec<String> {
    fn toml(&self) -> String {
        quoted_list(self)
    }
}

fn quoted_list(texts: &[String]) -> String {
    let items: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML string on one line.
pub(crate) fn quoted(text: &str) -> String {
    let mut toml = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => toml.extend(['\\', letter]),
            control if control.is_control() => {
                toml.push_str(&format!("\\u{:04X}", u32::from(control)));
            }
            other => toml.push(other),
        }
    }
    toml.push('"');
    toml
}

/// A text in quotes, its end cut off if it is long.
pub(crate) fn quoted_short(text: &str) -> String {
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return quoted(text);
    }
    let mut short: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    short.push('…');
    quoted(&short)
}
