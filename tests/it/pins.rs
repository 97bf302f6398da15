//! `walvis pin` and `unpin`, and what `list` says of pins.

use std::fs;
use std::io::Cursor;
use std::time::Duration;

use serde_json::Value;
use walvis::crypto::KeyFile;
use walvis::deadline::Deadline;
use walvis::format::extent::{BackupId, PackId};
use walvis::format::manifest::BackupSummary;
use walvis::pg::Lsn;
use walvis::repo::{ClusterName, Facts, ObjectSet, Repository, Secret, StoreSettings, StoreUrl};

use crate::support::backup::made_up;
use crate::support::command::Site;
use crate::support::schema;

fn open(site: &Site, name: &str) -> (Repository, ClusterName, Facts) {
    let settings = StoreSettings { url: StoreUrl::File(site.path(name)), create_if_absent: None, known: None };
    let secret = Secret::Key(KeyFile::parse(&fs::read_to_string(site.path("key")).unwrap()).unwrap());
    let repository = Repository::open(&settings, &secret, 1, Deadline::after(Duration::from_secs(60))).unwrap();
    let cluster = ClusterName::new("main").unwrap();
    let facts = repository.facts(&cluster).unwrap();
    (repository, cluster, facts)
}

/// Stores a backup that has begun and is finished.
fn back_up(site: &Site, name: &str, number: u32) -> BackupId {
    let (repository, cluster, facts) = open(site, name);
    let id = BackupId::new(1_790_000_000 + i64::from(number), number).unwrap();
    let summary = BackupSummary {
        label: format!("backup {number}"),
        start_lsn: Lsn(0x10_0028),
        checkpoint_lsn: Lsn(0x10_0060),
        stop_lsn: Lsn(0x10_0100),
        wal_segment_bytes: facts.wal_segment_size.bytes(),
        ..made_up(id, facts.system_id)
    };
    repository.begin_backup(&cluster, facts.system_id, id).unwrap();
    let open = || -> Box<dyn std::io::Read> { Box::new(Cursor::new(Vec::new())) };
    repository.complete_backup(&cluster, facts.system_id, &summary, open).unwrap();
    id
}

/// What `list` says of the pin of a backup.
fn listed(site: &Site, id: BackupId) -> Value {
    let report: Value = serde_json::from_str(&site.run(["--json", "list"]).exits(0).stdout).unwrap();
    schema::holds("list", &report);
    let backups = report[0]["clusters"][0]["systems"][0]["backups"].as_array().unwrap().clone();
    backups.into_iter().find(|backup| backup["backup_id"] == id.to_string()).unwrap()["pin"].clone()
}

#[test]
fn a_pin_keeps_a_backup_until_it_ends_or_is_taken_away() {
    let site = Site::new();
    site.archive(&[1]);
    let (first, second) = (back_up(&site, "repository", 1), back_up(&site, "repository", 2));
    let (first_text, second_text) = (first.to_string(), second.to_string());
    assert_eq!(listed(&site, first), Value::Null);

    // What cannot be meant.
    let other = BackupId::new(1_790_000_009, 9).unwrap().to_string();
    site.run(["pin", &other, "--reason", "x"]).exits(15).says(&["there is no backup", &other]).tells_the_way_out();
    site.run(["unpin", &other]).exits(15).says(&["there is no backup", &other]).tells_the_way_out();
    site.run(["pin", "yesterday", "--reason", "x"]).exits(2).says(&["yesterday"]).tells_the_way_out();
    site.run(["pin", &first_text]).exits(2).says(&["--reason"]);
    let past = ["pin", &first_text, "--reason", "x", "--until", "2020-01-01 00:00:00Z"];
    site.run(past).exits(2).says(&["has passed"]).tells_the_way_out();
    let nowhere = ["pin", &first_text, "--reason", "x", "--until", "2090-01-01 00:00:00"];
    site.run(nowhere).exits(2).says(&["no time zone"]).tells_the_way_out();
    assert_eq!(listed(&site, first), Value::Null, "nothing was pinned by any of them");

    let report: Value =
        serde_json::from_str(&site.run(["--json", "pin", &first_text, "--reason", "an audit"]).exits(0).stdout).unwrap();
    schema::holds("pin", &report);
    assert_eq!((&report[0]["backup_id"], &report[0]["pin"]["reason"]), (&first_text.as_str().into(), &"an audit".into()));
    assert_eq!((&listed(&site, first)["reason"], &listed(&site, first)["pin_ends_at"]), (&"an audit".into(), &Value::Null));
    assert_eq!(listed(&site, second), Value::Null);

    // The newest counts.
    let until = ["pin", &first_text, "--reason", "a longer audit", "--until", "2090-01-01 00:00:00", "--zone", "UTC"];
    let said = site.run(until).exits(0).stdout;
    assert!(said.contains("pinned until 2090-01-01 00:00:00") && said.contains("a longer audit"), "{said}");
    let text = site.run(["list"]).exits(0).stdout;
    assert!(text.contains("pinned until 2090-01-01 00:00:00.000000+00:00: a longer audit"), "{text}");

    let said = site.run(["unpin", &first_text]).exits(0).stdout;
    assert!(said.contains("is not pinned any more"), "{said}");
    let report: Value = serde_json::from_str(&site.run(["--json", "unpin", &first_text]).exits(0).stdout).unwrap();
    schema::holds("unpin", &report);
    assert_eq!(report[0]["was_pinned"], false);
    assert_eq!(listed(&site, first), Value::Null);

    // One that is going cannot be kept any more.
    let (repository, cluster, facts) = open(&site, "repository");
    let mut names = ObjectSet::new(facts.wal_segment_size);
    names.insert_manifest(second);
    names.insert_pack(PackId { backup: second, number: 0 });
    let tombstone = repository.put_tombstone(&cluster, facts.system_id, &names).unwrap();
    repository.complete_tombstone(&cluster, facts.system_id, tombstone).unwrap();
    site.run(["pin", &second_text, "--reason", "in time"]).exits(0);
    assert!(repository.begin_deletion(&cluster, facts.system_id, tombstone).unwrap().is_some());
    let late = site.run(["pin", &second_text, "--reason", "too late"]).exits(16);
    late.says(&[&second_text, "is being deleted"]).tells_the_way_out();
}

#[test]
fn a_backup_is_pinned_in_every_repository_that_has_it() {
    let mut site = Site::new();
    site.archive(&[1]);
    let id = back_up(&site, "repository", 1).to_string();
    let (first, second) = (site.repository().display().to_string(), site.path("second").display().to_string());
    let key = site.path("key").display().to_string();
    let section = |url: &str| format!("[[repository]]\nurl = \"file://{url}\"\nkey_file = \"{key}\"\n");
    site.unset("WALVIS_REPOSITORY");
    site.unset("WALVIS_KEY_FILE");
    site.configure(&format!("cluster = \"main\"\n{}", section(&second)));
    site.init_sharing_the_key();
    site.configure(&format!("cluster = \"main\"\n{}{}", section(&first), section(&second)));
    site.archive(&[2]);
    let report: Value = serde_json::from_str(&site.run(["--json", "pin", &id, "--reason", "an audit"]).exits(0).stdout).unwrap();
    assert_eq!(report.as_array().map(Vec::len), Some(1), "{report:#}");
    back_up(&site, "second", 1);
    let report: Value = serde_json::from_str(&site.run(["--json", "unpin", &id]).exits(0).stdout).unwrap();
    let were: Vec<bool> = report.as_array().unwrap().iter().map(|one| one["was_pinned"].as_bool().unwrap()).collect();
    assert_eq!(were, [true, false]);
    let said = site.run(["pin", &id, "--reason", "both"]).exits(0).stdout;
    assert_eq!(said.lines().count(), 2, "{said}");
    let one = ["--repository", &format!("file://{second}"), "unpin", &id];
    let report = site.run(one).exits(0).stdout;
    assert_eq!(report.lines().count(), 1, "{report}");
}
