//! How text may look: sizes, words that may not stay, files that nothing uses.

use std::fs;

use starling_tests::source::{find_words, functions};
use starling_tests::{Source, repo_files, repo_root, rust_sources};

use super::{assert_none, find_each, finding};

/// What fits in one reading.
const FILE_LINES_MAX: usize = 600;
/// What fits on one screen.
const FUNCTION_LINES_MAX: usize = 70;
/// rustfmt's width, which strings and comments escape.
const COLUMNS_MAX: usize = 100;
/// A repository keeps what it ever held; larger data is fetched or generated.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The code that runs on somebody's machine, where a panic is an outage.
const PRODUCT: [&str; 5] =
    ["protocol/src/", "learning/src/", "node/src/", "config/src/", "daemon/src/"];

/// Where `unsafe` is worth its proof: vector instructions and system calls.
const UNSAFE_HOMES: [&str; 3] =
    ["learning/src/kernels", "daemon/src/sys", "protocol/tests/common/counting"];

/// Words that mean unfinished work; spelled so that this file does not hold them.
const LEFTOVERS: [&str; 2] = [concat!("FIX", "ME"), concat!("X", "XX")];

/// The parent folder that only one author's machine has.
const FOREIGN_FOLDER: &str = concat!("..", "/shared");

#[test]
fn files_are_short_and_documented() {
    assert_none(&each_source(shape_findings));
}

#[test]
fn functions_are_short() {
    assert_none(&each_source(function_findings));
}

#[test]
fn no_banned_word() {
    assert_none(&each_source(word_findings));
}

#[test]
fn panics_state_their_invariant() {
    assert_none(&each_source(panic_findings));
}

#[test]
fn unsafe_stays_at_home() {
    assert_none(&each_source(unsafe_findings));
}

#[test]
fn tests_poll_and_never_sleep() {
    assert_none(&each_source(sleep_findings));
}

#[test]
fn every_rust_file_is_compiled() {
    assert_none(&each_source(dead_findings));
}

#[test]
fn files_are_small_and_name_no_foreign_folder() {
    let root = repo_root();
    let read = |file: String| {
        let bytes = fs::read(root.join(&file)).expect("a listed file is readable");
        content_findings(&file, &bytes)
    };
    assert_none(&repo_files().into_iter().flat_map(read).collect::<Vec<_>>());
}

fn each_source(rule: fn(&Source) -> Vec<String>) -> Vec<String> {
    rust_sources().iter().flat_map(rule).collect()
}

fn is_product(source: &Source) -> bool {
    PRODUCT.iter().any(|folder| source.path.starts_with(folder))
}

fn shape_findings(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        let what = format!("{lines} lines, more than {FILE_LINES_MAX}");
        findings.push(finding(&source.path, lines, &what));
    }
    if !source.text.starts_with("//!") {
        findings.push(finding(&source.path, 1, "does not start with //!"));
    }
    for (index, line) in source.text.lines().enumerate() {
        // An address cannot be broken.
        if line.chars().count() > COLUMNS_MAX && !line.contains("://") {
            let what = format!("wider than {COLUMNS_MAX} columns");
            findings.push(finding(&source.path, index + 1, &what));
        }
    }
    findings
}

fn function_findings(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for function in functions(&source.shipped) {
        let count = function.lines.end() - function.lines.start() + 1;
        if count > FUNCTION_LINES_MAX {
            let what =
                format!("fn {} has {count} lines, more than {FUNCTION_LINES_MAX}", function.name);
            findings.push(finding(&source.path, *function.lines.start(), &what));
        }
    }
    findings
}

fn word_findings(source: &Source) -> Vec<String> {
    let words = ["todo!", "unimplemented!", "dbg!", "unbounded_channel", "mpsc::unbounded"];
    let code = words.iter().map(|word| (&source.code, word));
    let text = LEFTOVERS.iter().map(|word| (&source.text, word));
    code.chain(text)
        .flat_map(|(text, word)| find_each(source, text, word, &format!("banned: {word}")))
        .collect()
}

fn panic_findings(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    if !is_product(source) {
        return findings;
    }
    for (index, line) in source.shipped.lines().enumerate() {
        let panics = [".unwrap()", ".expect(", ".unwrap_err()", ".expect_err("];
        if panics.iter().any(|call| line.contains(call)) && !states_invariant(source, index) {
            let what = "unwrap or expect without `// invariant:`";
            findings.push(finding(&source.path, index + 1, what));
        }
    }
    findings
}

/// Whether a comment within or right above the statement on a line says why it cannot fail.
fn states_invariant(source: &Source, index: usize) -> bool {
    let lines: Vec<(&str, &str)> = source.text.lines().zip(source.code.lines()).collect();
    let mut own = lines[..=index].iter().rev().enumerate().take_while(|(above, (text, code))| {
        let ends_another = code.trim_end().ends_with([';', '{', '}']);
        *above == 0 || !(ends_another || text.trim().is_empty())
    });
    own.any(|(_, (text, _))| text.contains("// invariant:"))
}

fn unsafe_findings(source: &Source) -> Vec<String> {
    if UNSAFE_HOMES.iter().any(|home| source.path.starts_with(home)) {
        return Vec::new();
    }
    find_each(source, &source.code, "unsafe", "unsafe outside kernels and sys")
}

/// Where `wait_for` is.
const SLEEPS: &str = "daemon/tests/cluster/harness.rs";

/// A sleep in a test is a guess about a machine; `wait_for` asks instead.
fn sleep_findings(source: &Source) -> Vec<String> {
    if !source.path.starts_with("tests/") && !source.path.contains("/tests/") {
        return Vec::new();
    }
    let home = functions(&source.code)
        .into_iter()
        .find(|function| source.path == SLEEPS && function.name == "wait_for");
    let excused = |line: &usize| home.as_ref().is_some_and(|home| home.lines.contains(line));
    find_words(&source.code, "sleep")
        .map(|offset| source.line_of(offset))
        .filter(|line| !excused(line))
        .map(|line| finding(&source.path, line, "sleeps; use wait_for"))
        .collect()
}

fn dead_findings(source: &Source) -> Vec<String> {
    let dead = finding(&source.path, 1, "no `mod` leads here");
    if source.reached { Vec::new() } else { vec![dead] }
}

fn content_findings(path: &str, bytes: &[u8]) -> Vec<String> {
    let mut findings = Vec::new();
    if bytes.len() as u64 > FILE_BYTES_MAX {
        findings.push(finding(path, 1, "larger than 1 MiB"));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let named = text.lines().enumerate().filter(|(_, line)| line.contains(FOREIGN_FOLDER));
        findings.extend(named.map(|(at, _)| finding(path, at + 1, "names a foreign folder")));
    }
    findings
}

mod can_fail {
    use starling_tests::source::classify;

    use super::*;

    fn count(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
        rule(&Source::new(path, text)).len()
    }

    #[test]
    fn shape() {
        let shape = |text: &str| count(shape_findings, "a/src/lib.rs", text);
        assert_eq!(shape("//! Short.\n"), 0);
        assert_eq!(shape("use std::fmt;\n"), 1);
        assert_eq!(shape(&"//!\n".repeat(601)), 1);
        assert_eq!(shape(&format!("//! {}", "é".repeat(96))), 0);
        assert_eq!(shape(&format!("//! {}", "é".repeat(97))), 1);
        assert_eq!(shape(&format!("//! https://{}", "a".repeat(97))), 0);
    }

    #[test]
    fn function_length() {
        let function = |lines: usize| format!("fn a() {{\n{}}}\n", "b();\n".repeat(lines - 2));
        let length = |text: &str| count(function_findings, "a/src/lib.rs", text);
        assert_eq!(length(&function(70)), 0);
        assert_eq!(length(&function(71)), 1);
        assert_eq!(length(&format!("#[cfg(test)]\nmod tests {{\n{}}}", function(71))), 0);
    }

    #[test]
    fn banned_words() {
        let words = |text: &str| count(word_findings, "a/src/lib.rs", text);
        assert_eq!(words("todo!(); unimplemented!(); dbg!(a); unbounded_channel();"), 4);
        assert_eq!(words("mpsc::unbounded(); \"todo!\" // dbg!"), 1);
        assert_eq!(words(&format!("// {}: later, {}", LEFTOVERS[0], LEFTOVERS[1])), 2);
        assert_eq!(words("methodo!(mktemp_XXXXXX)"), 0);
    }

    #[test]
    fn panics() {
        let panics = |text: &str| count(panic_findings, "node/src/a.rs", text);
        assert_eq!(panics("a.unwrap();\nb.expect(\"c\");"), 2);
        assert_eq!(panics("// why not\na.unwrap();"), 1);
        assert_eq!(panics("// invariant: never empty.\n\na.unwrap();"), 1);
        assert_eq!(panics("// invariant: never empty.\na();\nb.unwrap();"), 1);
        assert_eq!(
            panics("// invariant: never\n// empty.\nlet a = b\n    .c()\n    .unwrap();"),
            0
        );
        assert_eq!(panics("b\n    // invariant: never empty.\n    .expect(\"c\");"), 0);
        assert_eq!(panics("a.unwrap_or(b);\n#[cfg(test)]\nfn c() { a.unwrap(); }"), 0);
        assert_eq!(count(panic_findings, "tests/src/lib.rs", "a.unwrap();"), 0);
    }

    #[test]
    fn unsafe_code() {
        let text = "unsafe { a() } // unsafe";
        assert_eq!(count(unsafe_findings, "daemon/src/store.rs", text), 1);
        assert_eq!(count(unsafe_findings, "learning/src/kernels/avx.rs", text), 0);
        assert_eq!(count(unsafe_findings, "daemon/src/sys.rs", text), 0);
        assert_eq!(count(unsafe_findings, "node/src/lib.rs", "#![forbid(unsafe_code)]"), 0);
    }

    #[test]
    fn sleeps() {
        let home = "fn wait_for() {\n    thread::sleep(a);\n}\n";
        assert_eq!(count(sleep_findings, SLEEPS, home), 0);
        assert_eq!(count(sleep_findings, "tests/src/lib.rs", home), 1);
        assert_eq!(count(sleep_findings, "daemon/tests/cluster/join.rs", home), 1);
        let second = format!("{home}fn other() {{ time::sleep(a).await }}");
        assert_eq!(count(sleep_findings, SLEEPS, &second), 1);
    }

    #[test]
    fn dead_files() {
        let files = [("a/src/lib.rs", "//! mod b;"), ("a/src/b.rs", "//! Dead.")];
        let sources = classify(files.map(|(path, text)| (path.to_owned(), text.to_owned())));
        assert_eq!(sources.iter().flat_map(dead_findings).count(), 1);
    }

    #[test]
    fn content() {
        assert_eq!(content_findings("a.bin", &[0xff; 1 << 20]).len(), 0);
        assert_eq!(content_findings("a.bin", &[0xff; (1 << 20) + 1]).len(), 1);
        let text = format!("see\n{FOREIGN_FOLDER}/notes");
        assert_eq!(content_findings("a.md", text.as_bytes()), ["a.md:2: names a foreign folder"]);
    }
}
