//! Reading a configuration: defaults, then the file, then the environment, then flags.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{ConfigError, ConfigErrors, line_of, one_line, parse};
use crate::suggest::nearest;
use crate::table::{Config, ENV_PREFIX, FIELDS, Field, SECTIONS};
use crate::values::{DataSource, Found, quoted_short};

/// Where a value stands. Problems are told in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// At this line of the file.
    Line(usize),
    Environment,
    Flags,
}

/// Reads a configuration: defaults, overridden by the file's `text`, overridden by variables of
/// `env` named `STARLING_<SECTION>_<KEY>`, overridden by `flags` given as dotted key and value.
/// `file_name` is for messages only. Values of variables and flags are plain text, those of lists
/// with commas between the items. Variables of no section are other programs' business.
///
/// # Errors
/// Every problem of every source at once, also of values that another source overrides.
pub fn load(
    file_name: &str,
    text: &str,
    env: &[(String, String)],
    flags: &[(String, String)],
) -> Result<Config, ConfigErrors> {
    let mut loader = Loader::default();
    loader.file(text);
    loader.environment(env);
    loader.flags(flags);
    loader.check_labels();
    loader.finish(file_name)
}

/// A configuration in the making.
#[derive(Default)]
struct Loader {
    config: Config,
    /// Where, under which key, and what.
    problems: Vec<(Place, String, String)>,
    /// Where the source of data was set, and by what name.
    source: Option<(Place, String)>,
}

impl Loader {
    fn problem(&mut self, place: Place, key: impl Into<String>, message: String) {
        self.problems.push((place, key.into(), message));
    }

    fn set(&mut self, field: &Field, found: Found<'_>, place: Place, key: &str, example: &str) {
        match (field.set)(&mut self.config, found) {
            Ok(()) if field.section == "data" && field.key == "source" => {
                self.source = Some((place, key.to_owned()));
            }
            Ok(()) => {}
            Err(found) => {
                let allowed = field.allowed;
                let message =
                    format!("found {found}, allowed is {allowed}; write for example `{example}`");
                self.problem(place, key, message);
            }
        }
    }

    fn file(&mut self, text: &str) {
        let place = |offset| Place::Line(line_of(text, offset));
        let document = match parse(text) {
            Ok(document) => document,
            Err(places) => {
                for (line, message) in places {
                    self.problem(Place::Line(line), "", message);
                }
                return;
            }
        };
        for (name, value) in in_order(document.get_ref()) {
            let here = place(name.span().start);
            let name = name.get_ref().as_ref();
            let known = SECTIONS.iter().any(|(section, _)| *section == name);
            match value.get_ref() {
                DeValue::Table(table) if known => {
                    for (key, value) in in_order(table) {
                        let here = place(key.span().start);
                        self.entry(here, name, key.get_ref(), value.get_ref());
                    }
                }
                other if known => {
                    let found = Found::Toml(other);
                    let message = format!(
                        "found {found}, allowed is a section; write [{name}] on a line of its own"
                    );
                    self.problem(here, name, message);
                }
                DeValue::Table(_) => self.problem(here, name, unknown_section(name)),
                _ => self.problem(here, name, outside(name)),
            }
        }
    }

    fn entry(&mut self, place: Place, section: &str, key: &str, value: &DeValue<'_>) {
        let dotted = format!("{section}.{key}");
        match field(&dotted) {
            Some(field) => {
                let example = format!("{key} = {}", field.example_toml());
                self.set(field, Found::Toml(value), place, &dotted, &example);
            }
            None => self.problem(place, dotted, unknown_key(section, key)),
        }
    }

    fn environment(&mut self, env: &[(String, String)]) {
        let mut env: Vec<_> = env.iter().collect();
        // A process gets its variables in no order worth repeating.
        env.sort();
        for (name, value) in env {
            let Some(rest) = name.strip_prefix(ENV_PREFIX) else { continue };
            if let Some(field) = FIELDS.iter().find(|field| field.variable() == *name) {
                let example = format!("{name}={}", field.example);
                self.set(field, Found::Plain(value), Place::Environment, name, &example);
                continue;
            }
            let rest = rest.to_ascii_lowercase();
            let Some((section, key)) = rest.split_once('_') else { continue };
            if SECTIONS.iter().any(|(known, _)| *known == section) {
                self.problem(Place::Environment, name, unknown_variable(section, key));
            }
        }
    }

    fn flags(&mut self, flags: &[(String, String)]) {
        for (key, value) in flags {
            match field(key) {
                Some(field) => {
                    let example = format!("{key}={}", field.example);
                    self.set(field, Found::Plain(value), Place::Flags, key, &example);
                }
                None => {
                    let message = match key.split_once('.') {
                        Some((section, key)) if SECTIONS.iter().any(|(s, _)| *s == section) => {
                            unknown_key(section, key)
                        }
                        Some((section, _)) => unknown_section(section),
                        None => outside(key),
                    };
                    self.problem(Place::Flags, key, message);
                }
            }
        }
    }

    fn finish(mut self, file_name: &str) -> Result<Config, ConfigErrors> {
        if self.problems.is_empty() {
            return Ok(self.config);
        }
        self.problems.sort_by_key(|(place, ..)| *place);
        let errors = self.problems.into_iter().map(|(place, key, message)| {
            let place = match place {
                Place::Line(line) => format!("{file_name}:{line}"),
                Place::Environment => "environment".to_owned(),
                Place::Flags => "flags".to_owned(),
            };
            ConfigError { place, key: one_line(&key), message }
        });
        Err(ConfigErrors(errors.collect()))
    }

    /// An IDX file has its labels in another file.
    fn check_labels(&mut self) {
        let DataSource::Idx(path) = &self.config.data else { return };
        if self.config.data_labels.is_some() {
            return;
        }
        let text = path.display().to_string();
        let fix = match nearest(&text, DataSource::NAMES) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "set data.labels to the path of its labels".to_owned(),
        };
        let message = format!(
            "found {}, an IDX file of images, but no data.labels, allowed is {}; {fix}",
            quoted_short(&text),
            "digits, fashion-mnist, the path of a .csv file, or of an IDX file with data.labels",
        );
        if let Some((place, key)) = self.source.take() {
            self.problem(place, key, message);
        }
    }
}

/// Entries in the order of the text; the table itself has them by name.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t Spanned<toml::de::DeString<'i>>, &'t Spanned<DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

/// The field of a dotted key.
pub(crate) fn field(dotted: &str) -> Option<&'static Field> {
    let (section, key) = dotted.split_once('.')?;
    FIELDS.iter().find(|field| field.section == section && field.key == key)
}

fn unknown_key(section: &str, key: &str) -> String {
    let keys = || FIELDS.iter().filter(|field| field.section == section).map(|field| field.key);
    let allowed = keys().collect::<Vec<_>>().join(", ");
    let fix = if let Some(near) = nearest(key, keys()) {
        format!("did you mean `{near}`?")
    } else if let Some(other) = FIELDS.iter().find(|field| field.key == key) {
        format!("did you mean `{}`?", other.dotted())
    } else {
        "remove it".to_owned()
    };
    format!("found an unknown key, allowed in [{section}] are {allowed}; {fix}")
}

fn unknown_variable(section: &str, key: &str) -> String {
    let fields = || FIELDS.iter().filter(|field| field.section == section);
    let allowed = fields().map(Field::variable).collect::<Vec<_>>().join(", ");
    let near = nearest(key, fields().map(|field| field.key));
    let fix = match near.and_then(|near| fields().find(|field| field.key == near)) {
        Some(field) => format!("did you mean `{}`?", field.variable()),
        None => "unset it".to_owned(),
    };
    format!("found an unknown variable, allowed for [{section}] are {allowed}; {fix}")
}

fn unknown_section(name: &str) -> String {
    let sections = || SECTIONS.iter().map(|(section, _)| *section);
    let allowed = sections().collect::<Vec<_>>().join(", ");
    let fix = match nearest(name, sections()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "remove it".to_owned(),
    };
    format!("found an unknown section, allowed are {allowed}; {fix}")
}

/// A key that stands before any section, perhaps one whose section was forgotten.
fn outside(name: &str) -> String {
    let last = name.rsplit('.').next().unwrap_or(name);
    let near = nearest(last, FIELDS.iter().map(|field| field.key));
    let field = near.and_then(|near| FIELDS.iter().find(|field| field.key == near));
    let fix = match field {
        Some(field) => format!("did you mean `{}`?", field.dotted()),
        None => "remove it".to_owned(),
    };
    format!("found a key outside of any section, allowed are sections only; {fix}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn read(text: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
        load("node.toml", text, &pairs(env), &pairs(flags)).map_err(|errors| errors.to_string())
    }

    fn problems(text: &str) -> String {
        read(text, &[], &[]).expect_err("a problem")
    }

    #[test]
    fn an_empty_file_is_the_default() {
        for text in ["", "\n", "# nothing\n", "[training]\n[log]\n"] {
            assert_eq!(read(text, &[], &[]), Ok(Config::default()), "{text:?}");
        }
    }

    #[test]
    fn unknown_names_are_told_with_what_was_meant() {
        let cases = [
            (
                "[training]\n\nsteps_per_rond = 8\n",
                "node.toml:3: training.steps_per_rond: found an unknown key, allowed in \
                 [training] are steps_per_round, exchanges_per_round, round_period_ms, \
                 start_peers, seed; did you mean `steps_per_round`?",
            ),
            (
                "[log]\nmdns = false\n",
                "node.toml:2: log.mdns: found an unknown key, allowed in [log] are format, \
                 level; did you mean `network.mdns`?",
            ),
            (
                "[log]\ncolour = 1\n",
                "node.toml:2: log.colour: found an unknown key, allowed in [log] are format, \
                 level; remove it",
            ),
            (
                "[trainning]\nseed = 1\n",
                "node.toml:1: trainning: found an unknown section, allowed are node, network, \
                 data, training, gossip, storage, log, serve, resources; did you mean `training`?",
            ),
            (
                "steps_per_round = 1\n",
                "node.toml:1: steps_per_round: found a key outside of any section, allowed are \
                 sections only; did you mean `training.steps_per_round`?",
            ),
            (
                "[log]\n\"a\\nb\" = 1\n",
                "node.toml:2: log.a\u{fffd}b: found an unknown key, allowed in [log] are format, \
                 level; remove it",
            ),
            (
                "training = 1\n",
                "node.toml:1: training: found 1, allowed is a section; write [training] on a \
                 line of its own",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(problems(text), expected);
        }
    }

    #[test]
    fn collectors_are_hosts_with_or_without_a_port() {
        let read = |value: &str| read("", &[], &[("serve.otlp", value)]);
        for good in ["", "http://a.b", "http://a.b:1", "http://[::1]", "http://[::1]:4318"] {
            assert_eq!(read(good).map(|config| config.serve_otlp), Ok(good.to_owned()));
        }
        for bad in ["a.b:1", "http://", "http://a:", "http://a:0", "http://::1", "http://[::1]:x"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_types_are_told() {
        let wrong = [
            ("\"8\"", "the text \"8\""),
            ("8.0", "8.0"),
            ("true", "true"),
            ("[8]", "a list"),
            ("{}", "a section"),
            ("2026-01-01", "the date 2026-01-01"),
        ];
        for (value, found) in wrong {
            assert_eq!(
                problems(&format!("[training]\nsteps_per_round = {value}\n")),
                format!(
                    "node.toml:2: training.steps_per_round: found {found}, allowed is a whole \
                     number of steps from 1 to 10000; write for example `steps_per_round = 8`"
                )
            );
        }
        assert_eq!(
            problems("[network]\nmdns = \"yes\"\n"),
            "node.toml:2: network.mdns: found the text \"yes\", allowed is true or false; write \
             for example `mdns = false`"
        );
        assert_eq!(
            problems("[network]\nlisten = [\"/ip4/0.0.0.0/tcp/1\", 2]\n"),
            "node.toml:2: network.listen: found a list with other things than texts, allowed is \
             a list of at most 8 multiaddresses; write for example `listen = \
             [\"/ip4/0.0.0.0/tcp/4001\"]`"
        );
    }

    #[test]
    fn numbers_beyond_their_bounds_are_told_and_those_at_them_are_not() {
        assert_eq!(
            problems("[storage]\ncheckpoint_interval_s = nan\n"),
            "node.toml:2: storage.checkpoint_interval_s: found nan, allowed is a number of \
             seconds from 0.1 to 86400; write for example `checkpoint_interval_s = 30.0`"
        );
        let bounds = [
            ("training", "steps_per_round", ["1", "10_000"], ["0", "10001"]),
            ("training", "exchanges_per_round", ["1", "16"], ["0", "17"]),
            ("training", "round_period_ms", ["0", "86400000"], ["-1", "86400001"]),
            ("training", "start_peers", ["0", "0x20"], ["-1", "33"]),
            ("training", "seed", ["0", "18446744073709551615"], ["-1", "18446744073709551616"]),
            ("storage", "checkpoint_interval_s", ["0.1", "86_400"], ["0.09", "inf"]),
            ("resources", "nice", ["0", "0b10011"], ["-1", "20"]),
            ("resources", "io_threads", ["1", "64"], ["0", "65"]),
            ("data", "part", ["\"1/1\"", "\"65536/65536\""], ["\"0/1\"", "\"2/1\""]),
            ("data", "split", ["\"shards=1\"", "\"dirichlet=1e6\""], ["\"shards=0\"", "\"\""]),
        ];
        for (section, key, inside, outside) in bounds {
            for value in inside {
                read(&format!("[{section}]\n{key} = {value}\n"), &[], &[]).expect(key);
            }
            for value in outside {
                let told = problems(&format!("[{section}]\n{key} = {value}\n"));
                assert!(told.starts_with(&format!("node.toml:2: {section}.{key}: found ")));
            }
        }
    }

    #[test]
    fn addresses_are_looked_at() {
        let told = problems(
            "[network]\nlisten = [\"/ip4/0.0.0.0/tcp/0\", \"0.0.0.0:80\"]\npeers = [\n  \
             \"/ip4/192.0.2.7/tcp/4001\",\n]\n",
        );
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(lines.len(), 2, "{told}");
        assert!(lines[0].starts_with("node.toml:2: network.listen: found \"0.0.0.0:80\", allowed"));
        assert!(
            lines[1].starts_with("node.toml:3: network.peers: found \"/ip4/192.0.2.7/tcp/4001")
        );
        let many = ["\"/ip4/0.0.0.0/tcp/0\""; 9].join(", ");
        let told = problems(&format!("[network]\nlisten = [{many}]\n"));
        assert!(
            told.starts_with("node.toml:2: network.listen: found 9 of them, allowed"),
            "{told}"
        );
    }

    #[test]
    fn images_need_labels() {
        assert_eq!(
            problems("[data]\npart = \"9\"\nsource = \"digit\"\nsplit = \"x\"\n"),
            "node.toml:2: data.part: found the text \"9\", allowed is K/N with K from 1 to N and \
             N at most 65536; write for example `part = \"2/3\"`\n\
             node.toml:3: data.source: found \"digit\", an IDX file of images, but no \
             data.labels, allowed is digits, fashion-mnist, the path of a .csv file, or of an \
             IDX file with data.labels; did you mean `digits`?\n\
             node.toml:4: data.split: found the text \"x\", allowed is iid, shards=N with N from \
             1 to 1024, or dirichlet=A with A from 0.0001 to 1000000; write for example `split \
             = \"shards=2\"`"
        );
        let told = read("[data]\nsource = \"digits\"\n", &[("STARLING_DATA_SOURCE", "a/b")], &[]);
        let told = told.expect_err("no labels");
        assert!(told.starts_with("environment: STARLING_DATA_SOURCE: found \"a/b\", an IDX"));
        assert!(told.ends_with("; set data.labels to the path of its labels"), "{told}");
        let labels = [("data.labels", "c")];
        let config = read("[data]\nsource = \"a/b\"\n", &[], &labels).expect("has labels");
        assert_eq!(config.data, DataSource::Idx("a/b".into()));
        assert_eq!(config.data_labels, Some("c".into()));
        let config = read("[data]\nsource = \"a/b.CSV\"\n", &[], &[]).expect("needs none");
        assert_eq!(config.data, DataSource::Csv("a/b.CSV".into()));
    }

    #[test]
    fn all_problems_are_told_at_once_in_order_of_lines() {
        let text = "[training]\nseed = -1\nround_period_ms = 0\n\n[gossip]\ncodec = \"zip\"\n\
                    [data]\nlabel = \"x\"\n[node]\nname = 5\n";
        let env = [("STARLING_LOG_FORMAT", "xml"), ("STARLING_GOSSIP_CODEC", "int8")];
        let told = read(text, &env, &[("storage.sync", "1")]).expect_err("six problems");
        let expected = [
            "node.toml:2: training.seed: found -1, allowed is a whole number from 0 to \
             18446744073709551615; write for example `seed = 7`",
            "node.toml:6: gossip.codec: found the text \"zip\", allowed is fp32, bf16, int8, int6 \
             or ref3; write for example `codec = \"int8\"`",
            "node.toml:8: data.label: found an unknown key, allowed in [data] are source, labels, \
             label_column, part, split, split_seed; did you mean `labels`?",
            "node.toml:10: node.name: found 5, allowed is a text of at most 64 printable \
             characters; write for example `name = \"kitchen\"`",
            "environment: STARLING_LOG_FORMAT: found \"xml\", allowed is auto, json, text or \
             journal; write for example `STARLING_LOG_FORMAT=json`",
            "flags: storage.sync: found an unknown key, allowed in [storage] are \
             checkpoint_interval_s; remove it",
        ];
        assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn every_place_that_is_no_toml_is_told() {
        assert_eq!(
            problems("[training]\nseed = \nsteps = 9\n[log\n"),
            "node.toml:2: found no valid TOML: string values must be quoted, expected literal \
             string\n\
             node.toml:4: found no valid TOML: unclosed table, expected `]`"
        );
        assert_eq!(
            problems("[log]\nformat = \"json\"\nformat = \"text\"\n"),
            "node.toml:3: found no valid TOML: duplicate key"
        );
        assert_eq!(
            problems("\n[log]\nformat = \"json"),
            "node.toml:3: found no valid TOML: invalid basic string, expected `\"`"
        );
    }

    #[test]
    fn variables_are_told_if_they_are_ours_and_wrong() {
        let env = [
            ("STARLING_TRAINING_STEPS_PER_ROUND", "many"),
            ("STARLING_TRAINING_SEDE", "1"),
            ("STARLING_STORAGE_DIR", "1"),
            ("STARLING_STATE_DIR", "/var/lib/starling"),
            ("STARLING_LOG", "debug"),
            ("STARLING_", ""),
            ("HOME", "/"),
        ];
        assert_eq!(
            read("", &env, &[]).expect_err("three problems"),
            "environment: STARLING_STORAGE_DIR: found an unknown variable, allowed for [storage] \
             are STARLING_STORAGE_CHECKPOINT_INTERVAL_S; unset it\n\
             environment: STARLING_TRAINING_SEDE: found an unknown variable, allowed for \
             [training] are STARLING_TRAINING_STEPS_PER_ROUND, \
             STARLING_TRAINING_EXCHANGES_PER_ROUND, STARLING_TRAINING_ROUND_PERIOD_MS, \
             STARLING_TRAINING_START_PEERS, STARLING_TRAINING_SEED; did you mean \
             `STARLING_TRAINING_SEED`?\n\
             environment: STARLING_TRAINING_STEPS_PER_ROUND: found \"many\", allowed is a whole \
             number of steps from 1 to 10000; write for example \
             `STARLING_TRAINING_STEPS_PER_ROUND=8`"
        );
        assert_eq!(read("", &env[3..], &[]), Ok(Config::default()));
    }

    #[test]
    fn flags_override_variables_and_those_the_file() {
        let text = "[training]\nsteps_per_round = 2\nseed = 2\nstart_peers = 2\n";
        let env = [("STARLING_TRAINING_SEED", "3"), ("STARLING_TRAINING_START_PEERS", "3")];
        let flags = [("training.start_peers", "1"), ("training.start_peers", "4")];
        let config = read(text, &env, &flags).expect("in bounds");
        let expected = Config { steps_per_round: 2, seed: 3, start_peers: 4, ..Config::default() };
        assert_eq!(config, expected);
    }

    #[test]
    fn plain_text_is_read_by_type() {
        let flags = [
            ("network.listen", " /ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2 "),
            ("network.mdns", "false"),
            ("storage.checkpoint_interval_s", "0.5"),
            ("data.part", "2/3"),
            ("node.name", "true"),
        ];
        let config = read("", &[], &flags).expect("in bounds");
        assert_eq!(config.listen, ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"]);
        assert!(!config.mdns);
        assert_eq!(config.checkpoint_interval_s.to_bits(), 0.5_f64.to_bits());
        assert_eq!((config.part.index, config.part.count), (1, 3));
        assert_eq!(config.name, "true");
        let config = read("", &[], &[("network.listen", "")]).expect("may be empty");
        assert!(config.listen.is_empty());
    }

    #[test]
    fn names_of_variables_are_unique() {
        let mut names: Vec<String> = FIELDS.iter().map(Field::variable).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), FIELDS.len());
    }
}
