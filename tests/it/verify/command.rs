//! The command: modes, exit codes, and what it prints.

use std::fs;

use serde_json::Value;

use super::world::Story;
use crate::support::command::{Ran, Site};
use crate::support::schema;
use crate::support::segment::Segment;

/// The one report that a command printed.
#[track_caller]
fn report(ran: &Ran) -> Value {
    let document: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    schema::holds("verify", &document);
    assert_eq!(document.as_array().map(Vec::len), Some(1), "{document:#}");
    document[0].clone()
}

#[test]
fn what_is_whole_ends_with_0_and_what_is_damaged_with_18() {
    let site = Site::new();
    site.archive(&[1]);
    let whole = report(&site.run(["--json", "verify"]).exits(0));
    assert_eq!((&whole["verification_mode"], &whole["findings_that_matter"]), (&"full".into(), &0.into()), "{whole:#}");
    let object = site.object(&Segment::new(1).name());
    let stored = fs::metadata(&object).unwrap().len();
    assert!(whole["read_bytes"].as_u64().unwrap() >= stored, "{whole:#}");
    assert_eq!(whole["systems"][0]["segments"], 1);
    let quick = site.run(["verify", "--quick"]).exits(0).stdout;
    assert!(quick.contains("looked at quickly") && quick.contains("nothing is wrong that matters"), "{quick}");

    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes).unwrap();
    // What a quick look does not see.
    site.run(["verify", "--quick"]).exits(0);
    let damaged = report(&site.run(["--json", "verify", "--jobs", "1", "--max-rate", "100"]).exits(18));
    let found = &damaged["findings"][0];
    assert_eq!((&found["problem"], &found["matters"]), (&"damaged".into(), &true.into()), "{damaged:#}");
    assert!(found["object"].as_str().unwrap().ends_with(&Segment::new(1).name()), "{damaged:#}");
    let text = site.run(["verify", "--full"]).exits(18);
    assert!(text.stdout.contains("DAMAGED") && text.stderr.contains("damage that matters"), "{text:?}");
}

#[test]
fn what_was_read_is_not_read_again_before_its_time() {
    let site = Site::new();
    site.archive(&[1]);
    report(&site.run(["--json", "verify"]).exits(0));
    let rolling = report(&site.run(["--json", "verify", "--rolling", "7d"]).exits(0));
    assert_eq!((&rolling["verification_mode"], &rolling["read_bytes"]), (&"rolling".into(), &0.into()), "{rolling:#}");
}

#[test]
fn what_is_missing_is_missed_also_where_nothing_is_due() {
    let Story { world, .. } = Story::new();
    report(&world.walvis(&["--json", "verify"]).exits(0));
    report(&world.walvis(&["--json", "verify", "--rolling", "7d"]).exits(0));
    world.remove(&world.segment(1, 10));
    let rolling = report(&world.walvis(&["--json", "verify", "--rolling", "7d"]).exits(18));
    assert_eq!((&rolling["verification_mode"], &rolling["read_bytes"]), (&"rolling".into(), &0.into()), "{rolling:#}");
    assert_eq!(rolling["findings"][0]["problem"], "missing", "{rolling:#}");
    assert_eq!(rolling["systems"][0]["readable_backups"], 3, "{rolling:#}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let site = Site::new();
    site.run(["verify"]).exits(10).says(&["nothing is stored of cluster main"]);
    site.archive(&[1]);
    site.run(["verify", "--rolling", "soon"]).exits(2).says(&["\"soon\" is no period", "7d"]);
    site.run(["verify", "--quick", "--full"]).exits(2);
    site.run(["verify", "--jobs", "0"]).exits(2);
}

#[test]
fn what_expire_forgets_too_early_is_not_read_in_shares() {
    let mut site = Site::new();
    site.archive(&[1]);
    let rules = "[repository.retention]\nkeep_last = 2\nevidence = { keep_within = \"7d\" }\n";
    let (url, key) = (site.repository(), site.path("key"));
    site.configure(&format!("[[repository]]\nurl = \"file://{}\"\nkey_file = {key:?}\n{rules}", url.display()));
    for period in ["30d", "8d"] {
        let refused = site.run(["verify", "--rolling", period]).exits(2);
        refused.says(&[&format!("--rolling {period}"), "evidence.keep_within", "7d"]);
    }
    site.run(["verify", "--rolling", "7d"]).exits(0);
    site.run(["verify"]).exits(0);
}
