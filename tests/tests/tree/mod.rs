//! The repository's own law: what may import what, how text may look, which words must hold.
//!
//! Each rule is a function from text to findings, so that a test can show it failing.

mod docs;
mod layering;
mod tidy;

use starling_tests::Source;

/// Fails with every finding, one a line.
#[track_caller]
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// One finding, in the form that editors jump to.
fn finding(path: &str, line: usize, what: &str) -> String {
    format!("{path}:{line}: {what}")
}

/// A finding for each whole-word occurrence in `text`, which is one of the source's own.
fn find_each(source: &Source, text: &str, needle: &str, what: &str) -> Vec<String> {
    let at = |offset| finding(&source.path, source.line_of(offset), what);
    starling_tests::source::find_words(text, needle).map(at).collect()
}
