//! Rules of the house that a compiler does not check: the layer order, the length of files.

use std::path::{Path, PathBuf};

/// Modules by layer, as in `src/lib.rs`; a module may use what stands above it here.
const LAYERS: [&[&str]; 10] = [
    &["limits", "deadline", "error", "raw_text", "process", "waiting", "threads", "fifo_cache"],
    &["crypto", "format", "pg", "fsio", "command"],
    &["store", "codec"],
    &["repo"],
    &["config", "postgres", "report"],
    &["repositories"],
    &["wal", "recovery"],
    &["backup", "restore"],
    &["ops"],
    &["cli"],
];
/// Uses within one layer that are meant.
const SIDEWAYS: [(&str, &str); 4] = [("format", "crypto"), ("format", "pg"), ("deadline", "limits"), ("threads", "error")];
const MAX_LINES: usize = 700;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(below)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty());
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn arrows_point_downwards_only() {
    for path in sources("src") {
        let relative = path.strip_prefix(root().join("src")).unwrap();
        let module = relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if matches!(module, "main" | "lib") {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("module {module} has no layer: add it to src/lib.rs and here"));
        let text = std::fs::read_to_string(&path).unwrap();
        // Tests may use whatever they test with.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let Some(other) = layer(&used) else { continue };
                let allowed = used == module || other < own || SIDEWAYS.contains(&(module, used.as_str()));
                assert!(allowed, "{}: {module} uses {used}, which is not below it: {line}", relative.display());
            }
        }
    }
}

#[test]
fn files_stay_readable() {
    for path in sources("src").into_iter().chain(sources("tests/it")) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines: split it", path.display());
    }
}

#[test]
fn every_module_says_what_it_is() {
    for path in sources("src").into_iter().chain(sources("tests/it")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} has no module documentation", path.display());
    }
}
