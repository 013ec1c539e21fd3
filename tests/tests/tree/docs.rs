//! What the documents promise: the commands exist, the links lead somewhere.

use std::fs;
use std::path::{Component, Path, PathBuf};

use starling_tests::{repo_files, repo_root};

use super::{assert_none, finding};

/// File, and a text that it must hold; empty where being there is enough.
const PROMISES: [(&str, &str); 5] = [
    ("README.md", "cargo run --release -- demo"),
    ("README.md", "cargo test --workspace"),
    (".ci/run", "cargo test --workspace"),
    ("CHANGELOG.md", ""),
    ("ARCHITECTURE.md", ""),
];

#[test]
fn documents_keep_their_promises() {
    let findings = PROMISES.iter().filter_map(|(file, text)| {
        let content = fs::read_to_string(repo_root().join(file)).ok();
        promise_finding(file, content.as_deref(), text)
    });
    assert_none(&findings.collect::<Vec<_>>());
}

#[test]
fn relative_links_lead_somewhere() {
    let root = repo_root();
    let documents = repo_files().into_iter().filter(|file| file.ends_with(".md"));
    let findings = documents.flat_map(|file| {
        let text = fs::read_to_string(root.join(&file)).expect("a document is UTF-8");
        link_findings(&file, &text, |target| root.join(target).exists())
    });
    assert_none(&findings.collect::<Vec<_>>());
}

fn promise_finding(file: &str, content: Option<&str>, text: &str) -> Option<String> {
    match content {
        None => Some(format!("{file} is absent")),
        Some(content) if !content.contains(text) => Some(format!("{file} does not name `{text}`")),
        Some(_) => None,
    }
}

fn link_findings(file: &str, text: &str, exists: impl Fn(&Path) -> bool) -> Vec<String> {
    let folder = Path::new(file).parent().unwrap_or_else(|| Path::new(""));
    let mut findings = Vec::new();
    for (line, link) in links(text) {
        let target = link.split('#').next().unwrap_or_default();
        if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        match inside(&folder.join(target)) {
            Some(path) if exists(&path) => {}
            Some(_) => findings.push(finding(file, line, &format!("{link} leads nowhere"))),
            None => findings.push(finding(file, line, &format!("{link} leaves the repository"))),
        }
    }
    findings
}

/// The path without `.` and `..`, unless those lead out of the repository.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            _ => return None,
        }
    }
    Some(clean)
}

/// Every `[text](link)` and `[label]: link` outside code, with its 1-based line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        if in_code || fence {
            continue;
        }
        // Every second piece lies between backticks.
        for piece in line.split('`').step_by(2) {
            let inline = piece.split("](").skip(1).map(|rest| rest.split(')').next());
            let defined = piece.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
            let linked = inline.chain([defined.map(|(_, link)| link)]).flatten();
            // A title may follow: `[text](link "title")`.
            found.extend(linked.filter_map(|l| Some((index + 1, l.split_whitespace().next()?))));
        }
    }
    found
}

mod can_fail {
    use super::*;

    #[test]
    fn promises() {
        assert!(promise_finding("A.md", None, "").is_some());
        assert!(promise_finding("A.md", Some("b"), "c").is_some());
        assert!(promise_finding("A.md", Some("b c d"), "c").is_none());
    }

    #[test]
    fn dead_links() {
        let text = "[a](b.md#part) and [`c`](sub/c.md \"title\")\n[d](https://e.org) [f](#g)\n\
                    `[h](gone.md)`\n```\n[i](gone.md)\n```\n[j]: gone.md\n![k](../out.md)";
        let exists = |path: &Path| [Path::new("docs/b.md"), Path::new("top.md")].contains(&path);
        let expected = [
            "docs/A.md:1: sub/c.md leads nowhere",
            "docs/A.md:7: gone.md leads nowhere",
            "docs/A.md:8: ../out.md leads nowhere",
        ];
        assert_eq!(link_findings("docs/A.md", text, exists), expected);
        let outward = link_findings("A.md", "[a](../b.md)", |_| true);
        assert_eq!(outward, ["A.md:1: ../b.md leaves the repository"]);
        assert_eq!(link_findings("docs/A.md", "[a](../top.md)", exists).len(), 0);
    }
}
