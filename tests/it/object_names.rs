//! The tree in `docs/FORMAT.md` and the names that the program knows are the same.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use walvis::repo::{NameKind, ObjectName};

use crate::support::command::files_below;

/// The lines of the tree, without what they say of the names.
fn tree() -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/FORMAT.md")).unwrap();
    let (_, after) = text.split_once("## Tree\n\n").unwrap();
    let (tree, _) = after.split_once("\n\n").unwrap();
    let mut names: Vec<String> = Vec::new();
    for line in tree.lines() {
        let line = line.strip_prefix("    ").expect("the tree is indented by four");
        // What begins further to the right goes on from the line before. At least three spaces follow a name.
        if !line.starts_with(' ') {
            names.push(line.split("   ").next().unwrap().to_owned());
        }
    }
    names
}

/// Examples of what a line stands for: its placeholders filled in.
fn examples(line: &str) -> Vec<String> {
    let of_wal = |line: &str, files: &[&str]| -> Vec<String> { files.iter().map(|file| line.replace("<file>", file)).collect() };
    let id = |digit: char| digit.to_string().repeat(32);
    let line = line
        .replace("<wrapping key id>", &id('a'))
        .replace("<key id>", &id('b'))
        .replace("<content id>", &id('c'))
        .replace("<random>", "00000000deadbeef")
        .replace("<name>", "main")
        .replace("<generation>", "00000002")
        .replace("<system id>", "7400000000000000001")
        .replace("<timeline>", "0000000A")
        .replace("<log>", "00000001")
        .replace("<level>", "2")
        .replace("<first segment number >> 16, 12 hexadecimal digits>", "000000000001")
        .replace("<first segment number, 16>", "0000000000010100")
        .replace("<backup id>", "20260102T030405Z-0000beef")
        .replace("<id>", "20260203T040506Z-0000cafe")
        .replace("<pin>", "00000001")
        .replace("<object>", "clusters/main/bindings/00000001")
        .replace("<number>", "00000003")
        .replace("<n>", "2")
        .replace('…', "0123456789abcdef/4");
    let line = if line.starts_with("claims/") { line.replace("<key>", "clusters/main/bindings/00000001") } else { line };
    const SEGMENT: &str = "0000000A00000001000000FE";
    let (partial, backup) = (format!("{SEGMENT}.partial"), format!("{SEGMENT}.00000028.backup"));
    match line.as_str() {
        line if line.contains("/wal/history/") => of_wal(line, &["0000000A.history"]),
        line if line.ends_with("<file>.2") => of_wal(line, &[&partial, &backup]),
        line => of_wal(line, &[SEGMENT, &partial, &backup]),
    }
}

#[test]
fn every_line_of_the_tree_has_a_kind_and_every_kind_has_a_line() {
    let mut kinds = Vec::new();
    for line in tree() {
        let mut of_line = HashSet::new();
        for example in examples(&line) {
            assert!(!example.contains('<'), "a placeholder of {line:?} that this test does not know: {example}");
            let name =
                ObjectName::parse(&example).unwrap_or_else(|| panic!("{line:?} is in the tree, and {example} is not read"));
            assert_eq!(name.to_string(), example);
            of_line.insert(name.kind());
        }
        assert_eq!(of_line.len(), 1, "{line:?}: {of_line:?}");
        kinds.extend(of_line);
    }
    // Also in the same order, so that one is found beside the other.
    assert_eq!(kinds, NameKind::ALL);
}

/// What is there is named as the tree says, whatever wrote it.
#[test]
fn the_golden_repositories_hold_only_what_the_tree_lists() {
    for root in ["by-key-file", "by-passphrase"] {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/repository").join(root);
        let files = files_below(&root);
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            let name = file.strip_prefix(&root).unwrap().to_str().unwrap();
            assert_eq!(ObjectName::parse(name).map(|read| read.to_string()).as_deref(), Some(name));
        }
    }
}
