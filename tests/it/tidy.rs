//! Rules of the house that a compiler does not check: the layer order, the length of files, the place of bounds.

mod bounds;
mod graph;
mod tokens;

use std::path::Path;

use crate::support::sources::{root, sources};
use graph::Graph;

/// Modules by layer, as in `src/lib.rs`; a module may use what stands above it here.
const LAYERS: [&[&str]; 10] = [
    &["limits", "deadline", "error", "raw_text", "process", "waiting", "threads", "fifo_cache", "varint"],
    &["crypto", "format", "pg", "fsio", "command", "throttle"],
    &["store", "codec"],
    &["repo"],
    &["config", "postgres", "report"],
    &["repositories"],
    &["wal", "recovery"],
    &["backup", "restore", "retention", "verify"],
    &["ops"],
    &["cli"],
];
/// Uses within one layer that are meant, and why.
const SIDEWAYS: [(&str, &str, &str); 4] = [
    ("format", "crypto", "stored objects name the ids of keys"),
    ("format", "pg", "manifests and nodes of the catalog hold positions, names and marks of WAL"),
    ("deadline", "limits", "the longest time without success is a bound"),
    ("threads", "error", "a thread that panics is an error"),
];
/// What looks like a bound and is meant to be where it is: the module, the name, and why.
const FACTS: [(&str, &str, &str); 16] = [
    ("codec::one_pass", "FRONT_BYTES", "follows from a bound"),
    ("codec::pack", "FRONT_BYTES", "follows from the format and its bounds"),
    ("crypto::keys", "CACHED_KEY_BYTES", "what is kept of a key has this length"),
    ("format::manifest::rules", "MAX_MODE", "all bits that a mode has"),
    ("format::manifest::rules", "MAX_TIME_US", "the last time that the format can write"),
    ("format::node", "MAX_LEVEL", "follows from the format: a node of this level is all of the log"),
    ("pg::page_checksum", "for _ in 0..2", "how PostgreSQL computes a checksum"),
    ("pg::scan::body", "MAX_FIELD_BYTES", "the longest field that PostgreSQL writes"),
    ("pg::scan::event", "MAX_BYTES", "PostgreSQL's `MAXFNAMELEN`"),
    ("recovery::choice_of_backup", "RESTORED_PER_S", "an assumption that an estimate is made with"),
    ("recovery::choice_of_backup", "REPLAYED_PER_S", "an assumption that an estimate is made with"),
    ("restore::start", "MAX_PADDING", "what PostgreSQL may leave between two records"),
    ("store::s3::client", "Duration::from_secs(1)", "rounding for a message"),
    ("store::s3::client", "Duration::from_millis(500)", "rounding for a message"),
    ("store::s3::upload", "NO_UPLOAD_BEFORE", "a date"),
    ("store::s3::upload", "Duration::from_secs(1_767_225_600)", "a date"),
];
/// Longest file, in lines: of the program, and of the tests.
const MAX_LINES: usize = 600;
const MAX_TEST_LINES: usize = 700;
/// At most one line in so many is of a command: what commands do lives below them.
const OPS_SHARE: usize = 5;

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn module_graph() -> Graph {
    Graph::read(&root().join("src"), &sources("src"))
}

fn first(module: &str) -> &str {
    module.split("::").next().unwrap()
}

#[test]
fn arrows_point_downwards_only() {
    let graph = module_graph();
    println!("{}", graph.picture());
    assert!(graph.edges.len() > 100, "the graph has {} modules", graph.edges.len());
    let mut wrong = String::new();
    for (module, used) in &graph.edges {
        let from = first(module);
        let own = layer(from).unwrap_or_else(|| panic!("module {from} has no layer: add it to src/lib.rs and here"));
        for (other, by) in used {
            let to = first(other);
            let is_meant = SIDEWAYS.iter().any(|(a, b, _)| (*a, *b) == (from, to));
            let is_below = to == from || is_meant || layer(to).is_some_and(|other| other < own);
            let is_command = from == "ops" && to == "ops" && module != "ops";
            if !is_below || is_command {
                wrong.push_str(&format!("    {module} -> {other} ({by})\n"));
            }
        }
    }
    assert!(wrong.is_empty(), "these use what is not below them:\n{wrong}");
}

#[test]
fn no_modules_go_in_circles() {
    let graph = module_graph();
    let circles = graph.circles();
    let explained: Vec<String> = circles.iter().map(|circle| format!("a circle:\n{}", graph.explain(circle))).collect();
    assert!(circles.is_empty(), "{}", explained.concat());
}

#[test]
fn bounds_are_in_limits() {
    let found = bounds::elsewhere(&tokens::program(&root().join("src"), &sources("src")));
    let is_meant = |module: &str, name: &str| FACTS.iter().any(|(of, fact, _)| (*of, *fact) == (module, name));
    let mut wrong = String::new();
    for (module, name) in found.iter().filter(|(module, name)| !is_meant(module, name)) {
        wrong.push_str(&format!("    {name} in {module}\n"));
    }
    assert!(wrong.is_empty(), "these are bounds, or look like it: move them to src/limits, or say why not in FACTS:\n{wrong}");
    for (module, name, _) in FACTS {
        assert!(found.iter().any(|(of, fact)| (of.as_str(), fact.as_str()) == (module, name)), "{name} in {module} is gone");
    }
}

fn lines_of(path: &Path) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn files_stay_readable() {
    for (below, most) in [("src", MAX_LINES), ("tests/it", MAX_TEST_LINES)] {
        for path in sources(below) {
            let lines = lines_of(&path);
            assert!(lines <= most, "{} has {lines} lines: split it", path.display());
        }
    }
}

#[test]
fn commands_stay_thin() {
    let lines = |below: &str| sources(below).iter().map(|path| lines_of(path)).sum::<usize>();
    let (ops, all) = (lines("src/ops"), lines("src"));
    assert!(ops * OPS_SHARE <= all, "{ops} of {all} lines are in src/ops: what commands do belongs below them");
}

#[test]
fn every_module_says_what_it_is() {
    for path in sources("src").into_iter().chain(sources("tests/it")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} has no module documentation", path.display());
    }
}
