//! The description of a network as TOML: what all members hold in common, for people to read.

use core::fmt::Write as _;
use core::ops::Range;

use starling_learning::model::ModelError;
use starling_node::spec::{Membership, Network, NetworkSpec, SpecError};
use toml::de::{DeTable, DeValue};

use crate::error::{line_of, one_line, parse};
use crate::values::quoted;

/// What to do about a description that does not hold.
const FIX: &str = "mend the file or copy it anew from a member, as all members have the same";

/// Reads and checks a description; `file_name` is for messages only.
///
/// # Errors
/// What is wrong, as `file:line: key: what was found, what is allowed, how to fix it`; one line
/// for each place that is not even TOML, or else the first problem.
pub fn parse_network(file_name: &str, text: &str) -> Result<Network, String> {
    let document = parse(text).map_err(|places| {
        let lines =
            places.iter().map(|(line, message)| format!("{file_name}:{line}: {message}; {FIX}"));
        lines.collect::<Vec<_>>().join("\n")
    })?;
    let mut entries = Vec::new();
    collect("", document.get_ref(), &mut entries);
    let spec: NetworkSpec = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let around = entries.iter().filter(|entry| entry.covers(offset));
        let key = around.min_by_key(|entry| entry.value.len()).map(|entry| &entry.key);
        let key = key.map(|key| format!("{key}: ")).unwrap_or_default();
        let what = one_line(&format!("{key}{}", plain(error.message())));
        format!("{file_name}:{}: {what}; {FIX}", line_of(text, offset))
    })?;
    spec.check().map_err(|error| {
        let key = match &error {
            SpecError::Field { key, .. } => (*key).to_owned(),
            SpecError::Model(ModelError { field, .. }) => format!("model.{field}"),
            SpecError::Undecodable(_) | SpecError::TooLong(_) => String::new(),
        };
        // A bound on the whole model has no line of its own: then its section has.
        let within = |entry: &&Entry| key.starts_with(&entry.key);
        let entry = entries.iter().filter(within).max_by_key(|entry| entry.key.len());
        let line = entry.map_or(1, |entry| line_of(text, entry.name.start));
        format!("{file_name}:{line}: {error}; {FIX}")
    })
}

/// A message of the deserializer without the names of Rust's types.
fn plain(message: &str) -> String {
    let words = message.rsplit_once("expected ").map(|(found, expected)| {
        let expected = match expected {
            "f64" | "f32" => "a number",
            "u16" | "u32" | "usize" => "a whole number from 0",
            "a sequence" => "a list",
            other => other,
        };
        format!("{found}expected {expected}")
    });
    words.unwrap_or_else(|| message.to_owned())
}

/// One key of a document and where it stands.
struct Entry {
    /// Dotted.
    key: String,
    name: Range<usize>,
    value: Range<usize>,
}

impl Entry {
    fn covers(&self, offset: usize) -> bool {
        self.name.contains(&offset) || self.value.contains(&offset)
    }
}

fn collect(prefix: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        let key = format!("{prefix}{}", name.get_ref());
        if let DeValue::Table(table) = value.get_ref() {
            collect(&format!("{key}."), table, entries);
        }
        entries.push(Entry { key, name: name.span(), value: value.span() });
    }
}

/// Writes a description that explains itself; reads back as the same network.
#[must_use]
pub fn render_network(spec: &NetworkSpec) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_network(&mut text, spec);
    text
}

fn write_network(text: &mut String, spec: &NetworkSpec) -> core::fmt::Result {
    let NetworkSpec { version, name, genesis_seed, codecs, membership, root, .. } = spec;
    let codecs = list(codecs.iter().map(|codec| quoted(&codec.to_string())));
    let membership = match membership {
        Membership::Invite => "invite",
        Membership::Open => "open",
    };
    write!(
        text,
        "\
# What this network is. All its members hold exactly this: whoever changes anything but a comment
# describes another network, and meets nobody there.

# Version of this description.
version = {version}

# For people; at most 64 printable characters.
name = {name}

# Seed of the parameters that every node starts from.
genesis_seed = {genesis_seed}

# How models may be packed: fp32, bf16, int8, int6, ref3; fp32, int8 or int6 among them.
codecs = {codecs}

# Who may be a member: \"invite\" for whoever a member gave a ticket, \"open\" for anyone.
membership = \"{membership}\"

# Node id of the founder, whose certificates begin every chain of invitations.
root = \"{root}\"
",
        name = quoted(name),
    )?;
    write_learning(text, spec)
}

fn write_learning(text: &mut String, spec: &NetworkSpec) -> core::fmt::Result {
    let (model, training, features) = (&spec.model, &spec.training, &spec.features);
    let age_max = match training.age_max {
        Some(age) => format!("age_max = {age:?}"),
        None => "# age_max = 20000.0".to_owned(),
    };
    write!(
        text,
        "
# The model: a network of fully connected layers.
[model]

# Values of each row.
features = {}

# Units of each hidden layer; none for softmax regression.
hidden = {}

# Classes to tell apart.
classes = {}

# How every node trains.
[training]

# Learning rate at the start; above 0, at most 100.
rate = {:?}

# Momentum of local steps; 0 to below 1.
momentum = {:?}

# Rows for each local step; 1 to 65536.
batch = {}

# Local steps after which the learning rate has fallen to 0 and training ends; without it training
# goes on for ever.
{age_max}

# How rows become features.
[features]

# Names of the columns, in order; none for images.
names = {}

# What is subtracted from each feature; none for nothing.
mean = {}

# What each feature is divided by afterwards; none for nothing.
scale = {}

# Names of the classes, in order; none for plain numbers.
labels = {}
",
        model.features,
        list(model.hidden.iter().map(usize::to_string)),
        model.classes,
        training.rate,
        training.momentum,
        training.batch,
        list(features.names.iter().map(|name| quoted(name))),
        list(features.mean.iter().copied().map(number)),
        list(features.scale.iter().copied().map(number)),
        list(features.labels.iter().map(|label| quoted(label))),
    )
}

/// The shortest text that reads back as these bits. TOML numbers are read as `f64` and rounded
/// once more, which in rare cases leads from the shortest `f32` text to the neighbour.
fn number(value: f32) -> String {
    let short = format!("{value:?}");
    let twice = short.parse().map(narrowed);
    if twice.is_ok_and(|twice| twice.to_bits() == value.to_bits()) {
        short
    } else {
        format!("{:?}", f64::from(value))
    }
}

/// As the reader of TOML does it.
#[expect(clippy::cast_possible_truncation, reason = "rounding is what is asked for")]
fn narrowed(value: f64) -> f32 {
    value as f32
}

/// A TOML list: on one line if it fits, else on as many as it takes.
fn list(items: impl Iterator<Item = String>) -> String {
    const WIDTH: usize = 96;
    let mut lines = vec![String::new()];
    for item in items {
        let fits = |line: &&mut String| line.is_empty() || line.len() + item.len() + 3 <= WIDTH;
        match lines.last_mut().filter(fits) {
            Some(line) if line.is_empty() => line.push_str(&item),
            Some(line) => line.extend([", ", &item]),
            None => lines.push(item),
        }
    }
    match lines.as_slice() {
        [line] if line.len() <= WIDTH - 12 => format!("[{line}]"),
        lines => format!("[\n  {},\n]", lines.join(",\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use starling_learning::compress::Codec;
    use starling_learning::model::ModelSpec;
    use starling_node::spec::{FeatureSpec, TrainingSpec};
    use starling_protocol::id::Keypair;

    use super::*;

    fn spec() -> NetworkSpec {
        NetworkSpec {
            version: 1,
            name: "test".into(),
            genesis_seed: 1,
            codecs: vec![Codec::Int8, Codec::Ref3],
            membership: Membership::Invite,
            root: Keypair::from_seed(&[1; 32]).id(),
            model: ModelSpec { features: 4, hidden: vec![3], classes: 2 },
            training: TrainingSpec { rate: 0.1, momentum: 0.0, batch: 8, age_max: Some(100.0) },
            features: FeatureSpec::default(),
        }
    }

    /// Xorshift: random enough for these tests.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: u64) -> usize {
            usize::try_from(self.next() % bound).expect("small")
        }

        fn text(&mut self) -> String {
            let letters = ['a', 'é', '"', '\\', '\'', '#', '\n', '\r', '\t', '\0', '\u{1b}', '😀'];
            (0..self.below(9)).map(|_| letters[self.below(12)]).collect()
        }

        fn float(&mut self) -> f32 {
            let value = f32::from_bits(u32::try_from(self.next() >> 32).expect("32 bits"));
            if value.is_finite() { value } else { -0.0 }
        }

        fn spec(&mut self) -> NetworkSpec {
            let (features, classes) = (1 + self.below(40), 2 + self.below(9));
            let some = |random: &mut Self, count| if random.below(2) == 0 { 0 } else { count };
            let positive = |value: f32| if value.is_normal() { value.abs() } else { 1.0 };
            let mut other = spec();
            other.name = self.text().chars().filter(|letter| !letter.is_control()).collect();
            other.genesis_seed = u32::try_from(self.next() >> 32).expect("32 bits");
            other.codecs = Codec::ALL.into_iter().filter(|_| self.below(2) == 0).collect();
            other.codecs.push(Codec::Fp32);
            if self.below(2) == 0 {
                other.membership = Membership::Open;
            }
            let hidden = (0..self.below(4)).map(|_| 1 + self.below(99)).collect();
            other.model = ModelSpec { features, hidden, classes };
            other.training.rate = f64::from(positive(self.float())).min(100.0);
            other.training.momentum = f64::from(u32::try_from(self.below(1000)).expect("small"));
            other.training.momentum /= 1000.0;
            let age = f64::from(positive(self.float())).clamp(1.0, 1e15);
            other.training.age_max = (self.below(2) == 0).then_some(age);
            other.features = FeatureSpec {
                names: (0..some(self, features)).map(|_| self.text()).collect(),
                mean: (0..some(self, features)).map(|_| self.float()).collect(),
                scale: (0..some(self, features)).map(|_| positive(self.float())).collect(),
                labels: (0..some(self, classes)).map(|_| self.text()).collect(),
            };
            other
        }
    }

    #[test]
    fn what_is_written_reads_back_as_the_same_network() {
        let mut random = Random(0x5eed);
        for _ in 0..500 {
            let spec = random.spec();
            let text = render_network(&spec);
            let back = parse_network("network.toml", &text).expect(&text);
            assert_eq!(back.id, spec.check().expect("in bounds").id, "{text}");
        }
    }

    #[test]
    fn all_bits_of_numbers_survive() {
        let mut random = Random(1);
        // The shortest text of the last reads as its neighbour by way of `f64`.
        let twice = f32::from_bits(0x15ae_43fd);
        assert_ne!(narrowed(7.038_531e-26).to_bits(), twice.to_bits());
        let special = [0.0, -0.0, f32::MIN_POSITIVE, f32::MAX, 1e-45, 0.1, twice];
        let others = (0..100_000).map(|_| random.float());
        for value in special.into_iter().chain(others) {
            let back: f64 = number(value).parse().expect("a number");
            assert_eq!(narrowed(back).to_bits(), value.to_bits(), "{value:?}");
        }
    }

    #[test]
    fn long_lists_are_wrapped() {
        let items = |count: usize| (0..count).map(|item| item.to_string());
        assert_eq!(list(items(0)), "[]");
        assert_eq!(list(items(3)), "[0, 1, 2]");
        let long = list(items(200));
        assert!(long.starts_with("[\n  0, 1, ") && long.ends_with(", 199,\n]"), "{long}");
        assert!(long.lines().all(|line| line.len() <= 100), "{long}");
    }

    #[test]
    fn problems_name_line_and_key() {
        let cases = [
            (
                "seed = 1",
                "seed = -1",
                "11: genesis_seed: invalid value: integer `-1`, expected a whole number from 0",
            ),
            ("classes = 2", "classes = 1", "32: model.classes: found 1, expected 2 to 4096"),
            (
                "rate = 0.1",
                "rate = \"fast\"",
                "38: training.rate: invalid type: string \"fast\", expected a number",
            ),
            (
                "rate = 0.1",
                "rate = 0.0",
                "38: training.rate: found 0, expected above 0, at most 100",
            ),
            (
                "batch = 8",
                "batches = 8",
                "44: training.batches: unknown field `batches`, expected \
                 one of `rate`, `momentum`, `batch`, `age_max`",
            ),
            ("batch = 8", "", "35: training: missing field `batch`"),
            (
                "\"invite\"",
                "\"none\"",
                "17: membership: unknown variant `none`, expected `invite` or `open`",
            ),
            ("version = 1", "", "1: missing field `version`"),
            (
                "version = 1",
                "version = 2",
                "5: version: found 2, expected 1 (a newer Starling made this network)",
            ),
            (
                "version = 1",
                "version = ",
                "5: found no valid TOML: string values must be quoted, expected literal string",
            ),
            (
                "mean = []",
                "mean = [true]",
                "57: features.mean: invalid type: boolean `true`, expected a number",
            ),
            (
                "mean = []",
                "mean = 1",
                "57: features.mean: invalid type: integer `1`, expected a list",
            ),
            (
                "labels = []",
                "labels = [\"a\"]",
                "63: features.labels: found 1, expected as many as model.classes",
            ),
        ];
        let text = render_network(&spec());
        for (from, to, expected) in cases {
            let expected = format!("network.toml:{expected}; {FIX}");
            let wrong = text.replace(from, to);
            assert_eq!(parse_network("network.toml", &wrong).expect_err(to), expected);
        }
    }

    #[test]
    fn every_place_that_is_no_toml_is_named() {
        let error = parse_network("network.toml", "a = \nb = 2\nc = [\n").expect_err("no TOML");
        let expected = [
            "1: found no valid TOML: string values must be quoted, expected literal string",
            "3: found no valid TOML: unclosed array, expected `]`",
        ];
        let expected = expected.map(|line| format!("network.toml:{line}; {FIX}"));
        assert_eq!(error.lines().collect::<Vec<_>>(), expected);
    }
}
