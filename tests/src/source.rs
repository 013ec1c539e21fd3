//! Rust files as text: what is code, what ships, which file belongs to which module.
//!
//! A reader by heuristics, not a parser: it knows comments, literals, braces and `mod`, and is
//! right for code that rustfmt has formatted. It judges nothing; the rules live in `tests/tree`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// One Rust file. The three texts have equal length, so offsets and lines agree between them.
#[derive(Debug, Clone)]
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    /// As written.
    pub text: String,
    /// Comments, strings and characters blanked.
    pub code: String,
    /// `code` without what only tests compile; blank for a test file.
    pub shipped: String,
    /// Whether a chain of `mod` declarations leads here from a crate root.
    pub reached: bool,
}

impl Source {
    /// Reads a file on its own: reached, and shipped but for its `#[cfg(test)]` items.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank_literals(text);
        let shipped = blank_test_items(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, shipped, reached: true }
    }

    /// The 1-based line of an offset.
    #[must_use]
    pub fn line_of(&self, offset: usize) -> usize {
        line_of(&self.text, offset)
    }
}

/// A function with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name, without path.
    pub name: String,
    /// From the line of `fn` to that of the closing brace, 1-based.
    pub lines: RangeInclusive<usize>,
}

/// Reads files given as (path, text), and follows `mod` declarations from the crate roots to
/// tell which are reached and which only tests compile. `#[path]` is not followed.
#[must_use]
pub fn classify(files: impl IntoIterator<Item = (String, String)>) -> Vec<Source> {
    let mut sources: BTreeMap<String, Source> = files
        .into_iter()
        .map(|(path, text)| (path.clone(), Source { reached: false, ..Source::new(&path, &text) }))
        .collect();
    let mut open: Vec<(String, Root)> =
        sources.keys().filter_map(|path| Some((path.clone(), root_kind(path)?))).collect();
    let roots: Vec<String> = open.iter().map(|(path, _)| path.clone()).collect();
    while let Some((path, kind)) = open.pop() {
        let Some(source) = sources.get_mut(&path).filter(|source| !source.reached) else {
            continue;
        };
        source.reached = true;
        if kind == Root::Test {
            source.shipped = blank(&source.code);
        }
        let folder = child_folder(&path, roots.contains(&path));
        for (offset, name) in declared_modules(&source.code) {
            let is_test = source.shipped[offset..].starts_with(' ');
            let child = if is_test { Root::Test } else { kind };
            open.push((format!("{folder}/{name}.rs"), child));
            open.push((format!("{folder}/{name}/mod.rs"), child));
        }
    }
    sources.into_values().collect()
}

/// Every word (identifier, keyword or number) with its offset.
pub fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + code[at..].find(is_word)?;
        let len = code[start..].find(|c| !is_word(c)).unwrap_or(code.len() - start);
        at = start + len;
        Some((start, &code[start..at]))
    })
}

/// Offsets at which `needle` stands as whole words; it may hold punctuation, as in `a::b(`.
pub fn find_words<'a>(code: &'a str, needle: &'a str) -> impl Iterator<Item = usize> + 'a {
    let open_start = !needle.starts_with(is_word);
    let open_end = !needle.ends_with(is_word);
    code.match_indices(needle).map(|(offset, _)| offset).filter(move |&offset| {
        let (before, after) = (&code[..offset], &code[offset + needle.len()..]);
        (open_start || !before.ends_with(is_word)) && (open_end || !after.starts_with(is_word))
    })
}

/// Every function with a body, nested ones included.
#[must_use]
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for offset in find_words(code, "fn") {
        let Some(name) = code[offset..].strip_prefix("fn ").and_then(|rest| words(rest).next())
        else {
            continue;
        };
        let end = item_end(code, offset);
        // A declaration without body ends at its semicolon; `fn(u8)` types have no name.
        if name.0 == 0 && code[..end].ends_with('}') {
            let lines = line_of(code, offset)..=line_of(code, end - 1);
            found.push(Function { name: name.1.to_owned(), lines });
        }
    }
    found
}

/// The 1-based line of an offset.
#[must_use]
pub fn line_of(text: &str, offset: usize) -> usize {
    1 + text[..offset].bytes().filter(|&byte| byte == b'\n').count()
}

/// What a crate root's files are compiled into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    Product,
    Test,
}

/// Cargo's default targets, plus cargo-fuzz's. The `tests` package is test code throughout.
fn root_kind(path: &str) -> Option<Root> {
    let parts: Vec<&str> = path.split('/').collect();
    let product = matches!(
        parts.as_slice(),
        [_, "build.rs"] | [_, "src", "lib.rs" | "main.rs"] | [_, "src", "bin", _]
    );
    let test = matches!(
        parts.as_slice(),
        [_, "tests" | "benches" | "examples", _]
            | [_, "tests", _, "main.rs"]
            | [.., "fuzz_targets", _]
    );
    match parts.first() {
        Some(&"tests") if product || test => Some(Root::Test),
        _ if test => Some(Root::Test),
        _ if product => Some(Root::Product),
        _ => None,
    }
}

/// The folder in which a file's child modules lie.
fn child_folder(path: &str, is_root: bool) -> String {
    let stem = path.trim_end_matches(".rs");
    match stem.rsplit_once('/') {
        Some((folder, name)) if is_root || name == "mod" => folder.to_owned(),
        _ => stem.to_owned(),
    }
}

/// Every `mod name;` with the offset of `mod`.
fn declared_modules(code: &str) -> Vec<(usize, String)> {
    let declared = |offset: usize| {
        let rest = code[offset..].strip_prefix("mod ")?;
        let (name, _) = rest.split_once(';')?;
        name.chars().all(is_word).then(|| (offset, name.to_owned()))
    };
    find_words(code, "mod").filter_map(declared).collect()
}

fn blank_test_items(code: &str) -> String {
    let mut shipped = code.to_owned();
    for attribute in ["#[cfg(test)]", "#[cfg(all(test,"] {
        for (offset, _) in code.match_indices(attribute) {
            let end = item_end(code, offset);
            shipped.replace_range(offset..end, &blank(&code[offset..end]));
        }
    }
    shipped
}

/// Where the item that starts at an offset ends: behind its semicolon or closing brace.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in code[start..].char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            // The bracket of what encloses the item: a field or variant, the last of its kind.
            ')' | ']' | '}' if depth == 0 => return start + offset,
            ')' | ']' | '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(c, ';' | '}') {
            return start + offset + 1;
        }
    }
    code.len()
}

/// Comments, strings and characters as spaces, line by line where they were.
fn blank_literals(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    while code.len() < text.len() {
        let rest = &text[code.len()..];
        let len = literal_len(rest);
        if len > 0 {
            code.push_str(&blank(&rest[..len]));
        } else {
            code.extend(rest.chars().next());
        }
    }
    code
}

/// As many spaces as bytes, but line breaks stay.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// The length of the comment or literal at the start of the text; 0 when there is none.
fn literal_len(text: &str) -> usize {
    let until = |found: Option<usize>| found.unwrap_or(text.len());
    if text.starts_with("//") {
        return until(text.find('\n'));
    }
    if text.starts_with("/*") {
        return block_comment_len(text);
    }
    if text.starts_with('"') {
        return quoted_len(text, '"');
    }
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let close = format!("\"{}", "#".repeat(hashes));
        let open = 1 + hashes + 1;
        let is_raw = raw[hashes..].starts_with('"');
        let end = || text[open..].find(&close).map(|at| open + at + close.len());
        return if is_raw { until(end()) } else { 0 };
    }
    if let Some(quoted) = text.strip_prefix('\'') {
        let mut chars = quoted.chars();
        let is_escape = chars.next() == Some('\\');
        // Otherwise a lifetime or a label.
        let is_char = is_escape || chars.next() == Some('\'');
        return if is_char { quoted_len(text, '\'') } else { 0 };
    }
    0
}

fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let step = if rest.starts_with(b"/*") {
            depth += 1;
            2
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            2
        } else {
            1
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of what one quote opens and the next unescaped one closes.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = true; // The opening quote closes nothing.
    for (offset, c) in text.char_indices() {
        if c == quote && !escaped {
            return offset + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> String {
        let code = blank_literals(text);
        assert_eq!(code.len(), text.len());
        code.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_blanked() {
        assert_eq!(kept("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(kept(r#"a("b \" c", d) "\\" e"#), "a( , d) e");
        assert_eq!(
            kept("a(r\"b\\\", c, r#\"d \" e\"#, br##\"é\"# \"##) r#type"),
            "a( , c, , b ) r#type"
        );
        assert_eq!(kept("'a' '\\'' '\\u{1}' 'é' <'b> 'c: b'x'"), "<'b> 'c: b");
        assert_eq!(kept("unclosed \"a\nb"), "unclosed");
    }

    #[test]
    fn test_items_do_not_ship() {
        let text = "use a;\n#[cfg(test)]\nuse b;\n#[cfg(test)]\n#[allow(x)]\n\
                    mod tests { fn c() {} }\nfn d() -> [u8; 2] {}\n\
                    #[cfg(test)]\nimpl<A, B> C for D {}\nstruct E;";
        let source = Source::new("a.rs", text);
        let shipped: Vec<_> = words(&source.shipped).map(|(_, word)| word).collect();
        assert_eq!(shipped, ["use", "a", "fn", "d", "u8", "2", "struct", "E"]);
        assert_eq!(source.line_of(source.shipped.find("struct").unwrap_or(0)), 10);
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let code = "fn a(x: [u8; 2]) -> T\nwhere\n    T: F,\n{\n    fn b() {}\n}\n\
                    trait C { fn d(); fn e(f: fn(u8)) { } }";
        let function = |name: &str, lines| Function { name: name.to_owned(), lines };
        let expected = [function("a", 1..=6), function("b", 5..=5), function("e", 7..=7)];
        assert_eq!(functions(code), expected);
    }

    #[test]
    fn words_are_found_whole() {
        let code = "unsafe_code a.unsafe b::c( xb::c(";
        assert_eq!(find_words(code, "unsafe").collect::<Vec<_>>(), [14]);
        assert_eq!(find_words(code, "b::c(").collect::<Vec<_>>(), [21]);
        assert_eq!(find_words(code, "::c(").count(), 2);
    }

    #[test]
    fn modules_are_followed_from_the_roots() {
        let files = [
            ("a/src/lib.rs", "mod b;\npub mod c;\n#[cfg(test)]\nmod tests;\nmod d { }"),
            ("a/src/b.rs", "mod e;"),
            ("a/src/b/e.rs", ""),
            ("a/src/c/mod.rs", "mod f;"),
            ("a/src/c/f.rs", "struct G;"),
            ("a/src/d.rs", ""),
            ("a/src/tests.rs", "mod h; fn i() {}"),
            ("a/src/tests/h.rs", "struct J;"),
            ("a/tests/k.rs", "struct K;"),
            ("tests/src/lib.rs", "struct L;"),
        ];
        let files = files.map(|(path, text)| (path.to_owned(), text.to_owned()));
        let sources = classify(files);
        let paths = |keep: fn(&Source) -> bool| -> Vec<&str> {
            sources.iter().filter(|source| keep(source)).map(|s| s.path.as_str()).collect()
        };
        assert_eq!(paths(|source| !source.reached), ["a/src/d.rs"]);
        let shipping = paths(|source| !source.shipped.trim().is_empty());
        assert_eq!(shipping, ["a/src/b.rs", "a/src/c/f.rs", "a/src/c/mod.rs", "a/src/lib.rs"]);
    }
}
