//! Every state, reason and cause that the program knows is explained in `docs/states.md`, and no other.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

const PAGE: &str = include_str!("../../docs/states.md");

/// The variants of an enum in a source file, as serde writes them: `NoCredit` is `no_credit`.
fn variants(source: &str, name: &str) -> BTreeSet<String> {
    let begin = source.find(&format!("pub enum {name} {{")).unwrap_or_else(|| panic!("there is no enum {name}"));
    let body = &source[begin..];
    let body = &body[body.find('{').unwrap() + 1..body.find("\n}").unwrap()];
    let names = body.lines().map(str::trim).filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let word = |line: &str| {
        let mut word = String::new();
        for c in line.chars().take_while(char::is_ascii_alphanumeric) {
            if c.is_ascii_uppercase() && !word.is_empty() {
                word.push('_');
            }
            word.push(c.to_ascii_lowercase());
        }
        word
    };
    names.map(word).collect()
}

/// The words in the first column of the table under a heading.
fn explained(heading: &str) -> BTreeSet<String> {
    let begin = PAGE.find(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`"));
    let section = &PAGE[begin + 4..];
    let section = &section[..section.find("\n## ").unwrap_or(section.len())];
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(word, rest)| {
        let cells: Vec<&str> = rest.split('|').map(str::trim).collect();
        assert!(cells.iter().skip(1).any(|cell| !cell.is_empty()), "`{word}` is not explained");
        word.to_owned()
    })
    .collect()
}

#[track_caller]
fn agree(heading: &str, file: &str, source: &str, name: &str) {
    let (known, explained) = (variants(source, name), explained(heading));
    assert!(!known.is_empty(), "{name} in {file} could not be read");
    let missing: Vec<_> = known.difference(&explained).collect();
    assert!(
        missing.is_empty(),
        "{name} (protocol/src/{file}) has words that docs/states.md does not explain: {missing:?}. Add a row for each to \
         the table under `{heading}`: what happened, who causes it, and what its reader can do next"
    );
    let stale: Vec<_> = explained.difference(&known).collect();
    assert!(
        stale.is_empty(),
        "docs/states.md explains words under `{heading}` that {name} (protocol/src/{file}) does not have: {stale:?}. \
         Remove the rows, or correct the words"
    );
}

#[test]
fn every_word_of_a_lease_is_explained_in_the_documentation() {
    let (lease, message, entry) =
        (include_str!("../src/lease.rs"), include_str!("../src/message.rs"), include_str!("../src/entry.rs"));
    agree("States", "lease.rs", lease, "LeaseState");
    agree("Why it is paused", "lease.rs", lease, "PauseReason");
    agree("Why it has ended", "lease.rs", lease, "EndReason");
    agree("What happened", "message.rs", message, "EventCode");
    agree("Who caused it", "message.rs", message, "Cause");
    agree("Why there is no lease", "entry.rs", entry, "VoidCode");
}

#[test]
fn words_are_read_as_they_are_written() {
    let source =
        "pub enum Some {\n    /// A.\n    NoCredit,\n    #[serde(skip)]\n    Paused(Reason),\n    Two { a: u8 },\n}\n";
    assert!(variants(source, "Some").into_iter().eq(["no_credit", "paused", "two"]));
}
