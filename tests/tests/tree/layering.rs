//! The import law: which crate may depend on which, and what each may touch of the world.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::Command;

use serde_json::Value;
use starling_tests::source::{find_words, words};
use starling_tests::{Source, repo_root, rust_sources};

use super::{assert_none, find_each, finding};

/// Package, and exactly the workspace packages it depends on. `starling-tests` takes any.
const ARROWS: [(&str, &[&str]); 5] = [
    ("starling-protocol", &[]),
    ("starling-learning", &[]),
    ("starling-node", &["starling-learning", "starling-protocol"]),
    ("starling-config", &["starling-learning", "starling-node", "starling-protocol"]),
    ("starling", &["starling-config", "starling-learning", "starling-node", "starling-protocol"]),
];

const TESTS: &str = "starling-tests";

/// Name or prefix of an external package, and the only packages that may depend on it;
/// `starling-tests` here means as a development dependency.
const OWNERS: [(&str, &[&str]); 5] = [
    ("libp2p*", &["starling", TESTS]),
    ("tokio*", &["starling", TESTS]),
    ("ndarray", &["starling-learning"]),
    ("matrixmultiply", &["starling-learning"]),
    ("bincode", &["starling-protocol"]),
];

/// What a simulation must be able to replay: no clock, no IO, no threads, no random order.
const PURE: [&str; 3] = ["protocol/src/", "learning/src/", "node/src/"];

#[test]
fn crates_import_downward_only() {
    assert_none(&arrow_findings(&metadata()));
}

#[test]
fn external_crates_have_one_owner() {
    assert_none(&owner_findings(&metadata()));
}

#[test]
fn pure_crates_touch_no_world() {
    assert_none(&findings_in(&rust_sources(), pure_findings));
}

#[test]
fn bincode_is_named_by_the_codec_alone() {
    assert_none(&findings_in(&rust_sources(), bincode_findings));
}

#[test]
fn libp2p_is_named_by_the_net_alone() {
    assert_none(&findings_in(&rust_sources(), libp2p_findings));
}

fn findings_in(sources: &[Source], rule: fn(&Source) -> Vec<String>) -> Vec<String> {
    sources.iter().flat_map(rule).collect()
}

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let run = |extra: &[&str]| {
        Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .args(extra)
            .current_dir(repo_root())
            .output()
            .expect("cargo starts")
    };
    let mut output = run(&["--offline"]);
    if !output.status.success() {
        output = run(&[]);
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

/// Each package's name with its dependencies as (name, kind); kind is empty for a normal one.
fn packages(metadata: &Value) -> impl Iterator<Item = (&str, Vec<(&str, &str)>)> {
    let text = |value| Value::as_str(value).unwrap_or_default();
    metadata["packages"].as_array().into_iter().flatten().map(move |package| {
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let pairs = dependencies.map(|each| (text(&each["name"]), text(&each["kind"])));
        (text(&package["name"]), pairs.collect())
    })
}

fn arrow_findings(metadata: &Value) -> Vec<String> {
    let members: BTreeSet<&str> = packages(metadata).map(|(name, _)| name).collect();
    let mut findings = Vec::new();
    for (name, dependencies) in packages(metadata).filter(|(name, _)| *name != TESTS) {
        let found: BTreeSet<&str> =
            dependencies.iter().map(|pair| pair.0).filter(|to| members.contains(to)).collect();
        match ARROWS.iter().find(|(from, _)| *from == name) {
            Some((_, law)) if found.iter().eq(law.iter()) => {}
            Some((_, law)) => {
                findings.push(format!("{name} imports {found:?}, the law is {law:?}"))
            }
            None => findings.push(format!("{name} has no place in the import law")),
        }
    }
    let absent = ARROWS.iter().filter(|(name, _)| !members.contains(name));
    findings.extend(absent.map(|(name, _)| format!("{name} is not in the workspace")));
    findings
}

fn owner_findings(metadata: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, dependencies) in packages(metadata) {
        for (dependency, kind) in dependencies {
            let owned = OWNERS.iter().find(|(pattern, _)| match pattern.strip_suffix('*') {
                Some(prefix) => dependency.starts_with(prefix),
                None => dependency == *pattern,
            });
            let allowed = owned.is_none_or(|(_, owners)| owners.contains(&name));
            if !allowed || (owned.is_some() && name == TESTS && kind != "dev") {
                findings.push(format!("{name} may not depend on {dependency} ({kind:?})"));
            }
        }
    }
    findings
}

fn pure_findings(source: &Source) -> Vec<String> {
    if !PURE.iter().any(|folder| source.path.starts_with(folder)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (offset, module) in std_modules(&source.shipped) {
        if ["fs", "net", "thread", "time"].contains(&module) {
            let what = format!("a pure crate names std::{module}");
            findings.push(finding(&source.path, source.line_of(offset), &what));
        }
    }
    for word in ["SystemTime::now", "Instant::now", "HashMap", "HashSet", "rayon"] {
        // Parallel over whole nodes of a simulation, whose order of reduction is fixed.
        if word != "rayon" || !source.path.starts_with("node/src/sim") {
            let what = format!("a pure crate names {word}");
            findings.extend(find_each(source, &source.shipped, word, &what));
        }
    }
    findings
}

/// The modules named behind `std::`, those of a `std::{..}` group included.
fn std_modules(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for offset in find_words(code, "std").map(|offset| offset + "std".len()) {
        let Some(rest) = code[offset..].strip_prefix("::") else { continue };
        let mut depth = 0_usize;
        // A name that starts a path: the first one, or the first of each entry of the group.
        let mut starts = true;
        for (at, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ',' => starts |= depth == 1,
                _ if c.is_whitespace() => {}
                _ if starts => {
                    found.extend(words(&rest[at..]).next().map(|(_, word)| (offset, word)));
                    starts = false;
                }
                _ => {}
            }
            if depth == 0 && !starts {
                break;
            }
        }
    }
    found
}

/// Comments count too: what the codec is made of is nobody else's concern.
fn bincode_findings(source: &Source) -> Vec<String> {
    let bound = ["protocol/src/", "node/src/"].iter().any(|folder| source.path.starts_with(folder));
    if !bound || source.path == "protocol/src/codec.rs" {
        return Vec::new();
    }
    find_each(source, &source.text, "bincode", "only protocol/src/codec.rs names bincode")
}

fn libp2p_findings(source: &Source) -> Vec<String> {
    // A hostile peer speaks the same protocols.
    let cluster = ["daemon/tests/cluster/malformed.rs", "daemon/tests/cluster/hoard.rs"];
    let homes = ["daemon/src/net", cluster[0], cluster[1], "tests/"];
    let at_home = homes.iter().any(|home| source.path.starts_with(home));
    let named = words(&source.code).filter(|(_, word)| !at_home && word.starts_with("libp2p"));
    let what = "only daemon/src/net names libp2p";
    named.map(|(offset, _)| finding(&source.path, source.line_of(offset), what)).collect()
}

mod can_fail {
    use serde_json::json;

    use super::*;

    fn workspace(change: &str, dependencies: &[(&str, Option<&str>)]) -> Value {
        let entry = |(name, kind): &(&str, Option<&str>)| json!({"name": name, "kind": kind});
        let package = |(name, law): &(&str, &[&str])| {
            let normal: Vec<_> = law.iter().map(|to| (*to, None)).collect();
            let list = if *name == change { dependencies } else { &normal };
            json!({"name": name, "dependencies": list.iter().map(entry).collect::<Vec<_>>()})
        };
        let tests: (&str, &[&str]) = (TESTS, &["starling-node"]);
        let packages: Vec<_> = ARROWS.iter().chain([&tests]).map(package).collect();
        json!({ "packages": packages })
    }

    #[test]
    fn an_arrow_too_many_or_too_few() {
        assert_none(&arrow_findings(&workspace("", &[])));
        let upward = workspace("starling-protocol", &[("starling-node", Some("dev"))]);
        assert_eq!(arrow_findings(&upward).len(), 1);
        let missing = workspace("starling-node", &[("starling-protocol", None)]);
        assert_eq!(arrow_findings(&missing).len(), 1);
        let stranger = json!({"packages": [{"name": "starling-utils", "dependencies": []}]});
        assert_eq!(arrow_findings(&stranger).len(), 1 + ARROWS.len());
    }

    #[test]
    fn an_external_crate_in_the_wrong_place() {
        let count = |package, dependency: &str, kind| {
            owner_findings(&workspace(package, &[(dependency, kind)])).len()
        };
        assert_eq!(count("starling-node", "tokio-util", Some("dev")), 1);
        assert_eq!(count("starling-config", "libp2p-identity", None), 1);
        assert_eq!(count("starling-node", "bincode", None), 1);
        assert_eq!(count("starling", "ndarray", None), 1);
        assert_eq!(count(TESTS, "tokio", None), 1);
        assert_eq!(count(TESTS, "tokio", Some("dev")), 0);
        assert_eq!(count("starling", "tokio", None), 0);
        assert_eq!(count("starling-learning", "ndarray", None), 0);
    }

    fn pure(path: &str, text: &str) -> usize {
        pure_findings(&Source::new(path, text)).len()
    }

    #[test]
    fn a_pure_crate_that_touches_the_world() {
        assert_eq!(pure("node/src/a.rs", "use std::fs;\nlet x = std::thread::spawn(y);"), 2);
        assert_eq!(pure("node/src/a.rs", "use std::{\n fmt::{self, net},\n fs,\n time::A};"), 2);
        assert_eq!(pure("protocol/src/a.rs", "type A = HashMap<B, HashSet<C>>;"), 2);
        assert_eq!(pure("learning/src/a.rs", "let a = Instant::now();"), 1);
        assert_eq!(pure("node/src/a.rs", "use rayon::join;"), 1);
        assert_eq!(pure("node/src/sim/run.rs", "use rayon::join;"), 0);
        assert_eq!(pure("node/src/a.rs", "// std::fs\n#[cfg(test)]\nuse std::fs;"), 0);
        assert_eq!(pure("daemon/src/a.rs", "use std::fs;"), 0);
    }

    #[test]
    fn a_name_outside_its_home() {
        let bincode = |path, text| bincode_findings(&Source::new(path, text)).len();
        assert_eq!(bincode("node/src/a.rs", "// as bincode does"), 1);
        assert_eq!(bincode("protocol/src/message.rs", "use bincode::Encode;"), 1);
        assert_eq!(bincode("protocol/src/codec.rs", "use bincode::Encode;"), 0);

        let libp2p = |path, text| libp2p_findings(&Source::new(path, text)).len();
        assert_eq!(libp2p("daemon/src/driver.rs", "use libp2p_stream::Control;"), 1);
        assert_eq!(libp2p("daemon/src/driver.rs", "log(\"libp2p=warn\") // libp2p"), 0);
        assert_eq!(libp2p("daemon/src/net/swarm.rs", "use libp2p::Swarm;"), 0);
    }
}
