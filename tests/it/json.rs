//! What the program prints with `--json`, held against the schemas; errors, too. What needs a server is held against
//! them where it is tested: `check`, `base-backup`, `resolve`, `catalog`, `pitr-restore`.

use std::fs;

use serde_json::Value;

use crate::support::command::{Ran, Site};
use crate::support::schema;
use crate::support::segment::Segment;

/// The one document that a command printed.
#[track_caller]
fn document(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {ran:?}"))
}

/// The error that is the last line on standard error.
#[track_caller]
fn error(ran: &Ran, kind: &str, exit: i32) -> Value {
    let line = ran.stderr.lines().last().unwrap_or_else(|| panic!("nothing on standard error: {ran:?}"));
    let json: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    schema::holds("error", &json);
    assert_eq!((&json["error"]["kind"], &json["error"]["exit"]), (&kind.into(), &exit.into()), "{json:#}");
    assert_eq!(ran.code(), exit);
    json["error"].clone()
}

#[test]
fn reports_are_as_their_schemas_say() {
    let site = Site::without_repository();
    let key = site.path("another");
    schema::holds("key-generate", &document(&site.run(["--json", "key", "generate", key.to_str().unwrap()]).exits(0)));
    let made = document(&site.run(["--json", "init"]).exits(0));
    schema::holds("init", &made);
    assert_eq!((&made[0]["created"], &made[0]["known"]["state"]), (&true.into(), &"added".into()), "{made:#}");
    schema::holds("init", &document(&site.run(["--json", "init"]).exits(0)));
    schema::holds("list", &document(&site.run(["--json", "list"]).exits(0)));

    for number in [1, 2, 5] {
        let name = site.make(&Segment::new(number));
        let pushed = document(&site.run(["--json", "push-wal", &format!("pg_wal/{name}")]).exits(0));
        schema::holds("push-wal", &pushed);
        assert_eq!(pushed[0]["outcome"], "stored");
    }
    let name = Segment::new(1).name();
    let fetched = document(&site.run(["--json", "fetch-wal", &name, site.destination().to_str().unwrap()]).exits(0));
    schema::holds("fetch-wal", &fetched);
    assert_eq!(
        (&fetched["file"], &fetched["bytes"]),
        (&name.clone().into(), &fs::metadata(site.destination()).unwrap().len().into())
    );

    let listed = document(&site.run(["--json", "list"]).exits(0));
    schema::holds("list", &listed);
    let timeline = &listed[0]["clusters"][0]["systems"][0]["timelines"][0];
    let missing = serde_json::json!([{"first_segment": Segment::new(3).name(), "last_segment": Segment::new(4).name()}]);
    assert_eq!((&timeline["missing_runs"], &timeline["missing"]), (&1.into(), &missing), "{timeline:#}");
    let files = site.run(["--json", "list", "--files"]).exits(0).stdout;
    assert_eq!(files.lines().count(), 3);
    for line in files.lines() {
        schema::holds("list-file", &serde_json::from_str(line).unwrap());
    }

    let overview = document(&site.run(["--json", "catalog"]).exits(0));
    schema::holds("catalog", &overview);
    let gaps = overview["systems"][0]["timelines"][0]["gaps"].as_array().unwrap();
    assert!(gaps.iter().any(|gap| gap["kind"] == "missing"), "{overview:#}");
    schema::holds("catalog-rebuild", &document(&site.run(["--json", "catalog", "rebuild"]).exits(0)));
    for line in site.run(["--json", "catalog", "--commits"]).exits(0).stdout.lines() {
        schema::holds("catalog-line", &serde_json::from_str(line).unwrap());
    }
    let out_of_reach = site.run(["--json", "resolve", "--target-xid", "4000000"]);
    schema::holds("resolve", &document(&out_of_reach));
    error(&out_of_reach, "target", 15);
    let findings = site.run(["--json", "check", "--no-server"]).exits(0);
    schema::holds("check", &document(&findings));
    schema::holds("push-wal-missed", &document(&site.run(["--json", "push-wal", "--missed"]).exits(0)));
}

#[test]
fn every_error_is_one_line() {
    let mut site = Site::new();
    let name = Segment::new(1).name();
    let destination = site.destination();
    let destination = destination.to_str().unwrap();
    site.archive(&[1]);
    error(&site.run(["--json", "fetch-wal", &Segment::new(7).name(), destination]), "absent", 1);
    let nothing = format!("pg_wal/{}", Segment::new(9).name());
    error(&site.run(["--json", "push-wal", &nothing]), "config", 10);
    let refused = error(&site.run(["key", "generate", site.path("key").to_str().unwrap(), "--json"]), "refused", 16);
    assert!(refused["hint"].is_string() && refused["message"].as_str().unwrap().contains("already"), "{refused:#}");
    // What the parser of arguments says.
    let usage = error(&site.run(["--json", "list", "--nonsense"]), "usage", 2);
    assert!(usage["message"].as_str().unwrap().contains("--nonsense"), "{usage:#}");
    assert!(usage["detail"].as_str().unwrap().contains("Usage:"), "{usage:#}");
    error(&site.run(["lst", "--json"]), "usage", 2);
    error(&site.run(["--json"]), "usage", 2);
    // The exit code is the one that the server sees.
    error(&site.run(["fetch-wal", "--json", &name]), "usage", 200);
    // A log in JSON does not change it, and without --json it stays text.
    error(&site.run(["--json", "--log", "json", "push-wal", &nothing]), "config", 10);
    let text = site.run(["push-wal", &nothing]).exits(10);
    assert!(text.stderr.starts_with("walvis: "), "{text:?}");
    let text = site.run(["list", "--nonsense"]).exits(2);
    assert!(text.stderr.starts_with("error: "), "{text:?}");
    // After `--` it is a name.
    let text = site.run(["push-wal", "--", "--json"]).exits(2);
    assert!(text.stderr.starts_with("walvis: "), "{text:?}");
    site.set("WALVIS_KEY_FILE", site.path("nothing"));
    error(&site.run(["--json", "list"]), "config", 10);
}
