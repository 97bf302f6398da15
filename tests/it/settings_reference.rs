//! `docs/SETTINGS.md` and the source name the settings that the table has, and no others. `WALVIS_TEST_BLESS=1` writes
//! the document anew.

use std::collections::BTreeSet;

use walvis::config::definitions::{ALL, FOREIGN_PREFIXES, HELPER_VARIABLE};
use walvis::config::{is_known_variable, reference};

use crate::support::sources::{root, sources};

#[test]
fn the_reference_is_what_the_table_says() {
    let path = root().join("docs/SETTINGS.md");
    let wanted = reference();
    if std::env::var_os("WALVIS_TEST_BLESS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "docs/SETTINGS.md is not what the table of settings says: its first lines tell how to write it anew"
    );
    for (number, line) in wanted.lines().enumerate() {
        assert!(line.chars().count() <= 120, "line {} of docs/SETTINGS.md is too long: {line}", number + 1);
    }
    for setting in ALL {
        assert!(wanted.contains(&format!("\n### `{}`\n", setting.name)), "{}", setting.name);
    }
}

/// Names of variables that begin like ours.
fn variables_in(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let starts = text.match_indices("WALVIS_").map(|(at, _)| &text[at..]);
    starts.map(|rest| rest.split(|c| !is_part(c)).next().unwrap()).filter(|name| *name != "WALVIS_").collect()
}

/// Whatever variable the source reads, or tells the operator to set, is in the table; and so is each that the documents
/// name.
#[test]
fn every_variable_that_the_source_names_is_in_the_table() {
    let mut files = sources("src");
    files.extend(["README.md", "docs/SPOOL.md", "docs/SECURITY-MODEL.md", "docs/STANDBY.md"].map(|name| root().join(name)));
    let mut seen = BTreeSet::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        for name in variables_in(&text) {
            let is_other = name == HELPER_VARIABLE || FOREIGN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            // What a test takes for unknown.
            let is_nonsense = name == "WALVIS_NONSENSE";
            assert!(is_known_variable(name) || is_other || is_nonsense, "{} names {name}", path.display());
            seen.insert(name.to_owned());
        }
    }
    assert!(seen.len() >= 18, "{seen:?}");
}
