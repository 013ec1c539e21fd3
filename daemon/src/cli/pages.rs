//! Every command line of ours in the documents is one that the binary takes.

use clap::Parser as _;

use super::Cli;

const PAGES: [(&str, &str); 5] = [
    ("README.md", include_str!("../../../README.md")),
    ("docs/operate.md", include_str!("../../../docs/operate.md")),
    ("docs/monitor.md", include_str!("../../../docs/monitor.md")),
    ("docs/simulate.md", include_str!("../../../docs/simulate.md")),
    ("docs/scenarios.md", include_str!("../../../docs/scenarios.md")),
];
/// Named as commands, where what they need is told elsewhere.
const BARE: [&str; 4] = ["join", "ban", "unban", "simulate"];

/// What a shell would make of a simple command.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for letter in line.chars() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('\'' | '"', None) => quote = Some(letter),
            (' ', None) if word.is_empty() => {}
            (' ', None) => words.push(std::mem::take(&mut word)),
            _ => word.push(letter),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

/// Commands of a page: those in its blocks, and those in backticks.
fn commands(page: &str) -> Vec<Vec<String>> {
    let page = page.replace("\\\n", " ").replace("cargo run --release -- ", "starling ");
    let mut texts = Vec::new();
    for (index, part) in page.split("```").enumerate() {
        if index % 2 == 1 {
            texts.extend(part.lines().map(str::to_owned));
        } else {
            texts.extend(part.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")));
        }
    }
    let ends = ["&&", "|", ";", "2>", ")"];
    let ours = texts.iter().filter_map(|text| {
        let text = text.split(" #").next().unwrap_or_default();
        let at = text.match_indices("starling ").find(|(at, _)| {
            let before = text[..*at].trim_end();
            // An assignment, another command or nothing; not an option of something else.
            before.is_empty() || before.ends_with(['(', '&']) || before.contains("LISTEN=")
        });
        at.map(|(at, _)| text[at..].to_owned())
    });
    ours.map(|text| {
        let end = ends.iter().filter_map(|end| text.find(end)).min().unwrap_or(text.len());
        words(&text[..end])
    })
    .collect()
}

#[test]
fn the_documents_name_commands_that_exist() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for (page, text) in PAGES {
        for command in commands(text) {
            let bare = command.len() == 2 && BARE.contains(&command[1].as_str());
            if bare || command.iter().any(|word| word == "...") {
                continue;
            }
            checked += 1;
            if let Err(error) = Cli::try_parse_from(&command)
                && error.exit_code() != 0
            {
                wrong.push(format!("{page}: {}: {error}", command.join(" ")));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert!(checked >= 55, "only {checked} commands were found");
}

#[test]
fn figures_of_the_simulator_are_of_commands_that_exist() {
    let rows = PAGES[3].1.lines().filter_map(|line| line.strip_prefix("| ")?.split('`').nth(1));
    let rows: Vec<&str> = rows.filter(|row| !row.starts_with("starling")).collect();
    assert!(rows.len() > 50, "{}", rows.len());
    for row in rows {
        let command = format!("starling simulate {row} --seeds 3");
        let parsed = Cli::try_parse_from(words(&command));
        assert!(parsed.is_ok(), "{command}: {:?}", parsed.err());
    }
}
