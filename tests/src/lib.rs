//! The harness: what every test above a single crate needs.
//!
//! Owns the way to the repository's files; knows nothing of what is asserted. `source` reads Rust
//! as text, for the rules of `tests/tree`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

pub mod source;

pub use source::Source;

/// Where the workspace lies.
#[must_use]
pub fn repo_root() -> PathBuf {
    // Cargo's word at run time comes first: clones may share a target folder.
    let built_in = || OsString::from(env!("CARGO_MANIFEST_DIR"));
    let manifest_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(built_in));
    manifest_dir.parent().map(Path::to_path_buf).unwrap_or(manifest_dir)
}

/// Every file that git tracks or is about to, relative to the root, with `/`, sorted.
///
/// Untracked files count unless ignored, so that a rule fails before the commit and not after.
/// Outside a git repository (an unpacked archive) it is every file but build output.
#[must_use]
pub fn repo_files() -> Vec<String> {
    let root = repo_root();
    let mut files = git_files(&root).unwrap_or_else(|| {
        let mut found = Vec::new();
        walk(&root, "", &mut found);
        found
    });
    files.retain(|file| root.join(file).is_file());
    files.sort();
    files
}

/// Every Rust file of `repo_files`, read and classified.
///
/// # Panics
/// When a file cannot be read as UTF-8.
#[must_use]
pub fn rust_sources() -> Vec<Source> {
    let root = repo_root();
    let read = |file: String| {
        let text = fs::read_to_string(root.join(&file));
        (file.clone(), text.unwrap_or_else(|error| panic!("{file}: {error}")))
    };
    source::classify(repo_files().into_iter().filter(|file| file.ends_with(".rs")).map(read))
}

fn git_files(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .ok()?;
    let listed = String::from_utf8(output.stdout).ok()?;
    let files: Vec<_> = listed.split_terminator('\0').map(str::to_owned).collect();
    (output.status.success() && !files.is_empty()).then_some(files)
}

fn walk(root: &Path, folder: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if !entry.path().is_dir() {
            found.push(path);
        } else if name != ".git" && name != "target" {
            walk(root, &path, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_with_and_without_git() {
        let this = "tests/src/lib.rs".to_owned();
        assert!(repo_files().contains(&this));
        let mut walked = Vec::new();
        walk(&repo_root(), "", &mut walked);
        assert!(walked.contains(&this));
        assert!(!walked.iter().any(|file| file.starts_with("target/")));
    }
}
