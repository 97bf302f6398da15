//! `walvis expire` on a repository in a directory: what it says, when it refuses, and that it changes nothing.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::eventful;
use super::history::History;
use crate::support::command::{Ran, Site, files_below};
use crate::support::schema;

/// A site whose repository is in a directory, with all that a history has stored until its end.
struct Written {
    site: Site,
    directory: PathBuf,
}

impl Written {
    fn new(history: &History) -> Self {
        let site = Site::bare();
        let directory = site.path("years");
        for (unix_s, key, bytes) in history.store.stored_in(i64::MIN, history.end) {
            let path = directory.join(key.as_str());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
            set_time(&path, SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s.unsigned_abs()));
        }
        Self { site, directory }
    }

    /// With these lines in its table of rules; none at all without.
    fn expire(&mut self, rules: Option<&str>, arguments: &[&str]) -> Ran {
        let rules = rules.map_or_else(String::new, |rules| format!("[repository.retention]\n{rules}\n"));
        self.site.configure(&format!("[[repository]]\nurl = \"file://{}\"\n{rules}", self.directory.display()));
        self.site.run([&["expire"], arguments].concat())
    }

    fn plan(&mut self, rules: &str) -> Value {
        let json = serde_json::from_str(&self.expire(Some(rules), &["--json"]).exits(0).stdout).unwrap();
        schema::holds("expire", &json);
        json
    }

    fn content(&self) -> Vec<(PathBuf, u64)> {
        let mut found: Vec<(PathBuf, u64)> =
            files_below(&self.directory).into_iter().map(|path| (path.clone(), path.metadata().unwrap().len())).collect();
        found.sort();
        found
    }

    /// A file of this kind.
    fn one(&self, part: &str) -> PathBuf {
        files_below(&self.directory).into_iter().filter(|path| path.to_str().unwrap().contains(part)).max().unwrap()
    }
}

fn set_time(path: &Path, time: SystemTime) {
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn a_plan_says_what_stays_and_why_and_changes_nothing() {
    let history = History::make(&eventful(3));
    let mut written = Written::new(&history);
    let before = written.content();

    let refused = written.expire(None, &[]).exits(16);
    assert!(refused.stderr.contains("nothing says what is to be kept") && refused.stderr.contains("recovery_window"));
    let refused = written.expire(Some("zone = 'Europe/Amsterdam'"), &["--json"]).exits(16);
    assert!(refused.stderr.contains("\"refused\""), "{}", refused.stderr);

    let plan = written.plan("keep_last = 3\nkeep_monthly = 2\ngrace = '36h'");
    let [plan] = plan.as_array().unwrap().as_slice() else { panic!("{plan:#}") };
    assert_eq!(
        plan["rules"].to_string(),
        r#"[{"name":"keep_last","value":"3"},{"name":"keep_monthly","value":"2"},{"name":"zone","value":"UTC"},{"name":"grace","value":"36h"}]"#
    );
    let systems = plan["systems"].as_array().unwrap();
    assert_eq!(systems.len(), 2, "the upgraded one is last");
    let backups: Vec<&Value> = systems.iter().rev().flat_map(|system| system["backups"].as_array().unwrap()).collect();
    let of_truth: usize = history.truth.systems.iter().map(|system| system.backups.len()).sum();
    assert_eq!(backups.len(), of_truth);
    let kept_by = |reason: &str| -> Vec<usize> {
        let has = |backup: &Value| backup["kept_by"].as_array().unwrap().iter().any(|by| by == reason);
        (0..backups.len()).filter(|index| has(backups[*index])).collect()
    };
    assert_eq!((kept_by("newest"), kept_by("last"), kept_by("window")), (vec![0], vec![0, 1, 2], vec![0]));
    assert_eq!(kept_by("monthly").len(), 2, "{backups:#?}");
    let problems = backups.iter().filter(|backup| backup["broken_because"].is_string()).count();
    assert!(problems >= 1, "a pack was lost");
    let going = backups.iter().filter(|backup| backup["kept_by"].as_array().unwrap().is_empty()).count() as u64;
    assert_eq!((number(&plan["goes"]["manifests"]), number(&plan["stays"]["manifests"])), (going, of_truth as u64 - going));

    // Together it is all that is there of these kinds.
    let sizes = |part: &str| -> (u64, u64) {
        let of_part = before.iter().filter(|(path, _)| path.to_str().unwrap().contains(part));
        let of_part = of_part.filter(|(path, _)| path.extension().is_none_or(|extension| extension != "history"));
        of_part.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes))
    };
    for (part, count, bytes) in
        [("/wal/", "wal_files", "wal_bytes"), ("/packs/", "packs", "pack_bytes"), ("/backups/", "manifests", "manifest_bytes")]
    {
        let both = |name: &str| number(&plan["goes"][name]) + number(&plan["stays"][name]);
        assert_eq!((both(count), both(bytes)), sizes(part), "{part}");
        assert!(number(&plan["goes"][count]) > 0, "{part}: {plan:#}");
    }
    assert!(systems.iter().any(|system| number(&system["left_packs"]) > 0), "of the interrupted backup");
    let window = &systems[1]["recovery_windows"][0];
    let (of_window, newest) = (&window["reaches"][0]["backup_id"], &backups[0]["backup_id"]);
    assert_eq!(of_window, newest, "what leads to the present: {window:#}");

    let text = written.expire(Some("keep_last = 3\nkeep_monthly = 2"), &[]).exits(0).stdout;
    for expected in
        ["nothing is changed", "rules: keep_last 3, keep_monthly 2", "stays: backup", "goes:  backup", "CANNOT be restored"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert_eq!(written.content(), before, "nothing was changed");
}

#[test]
fn where_something_looks_wrong_nothing_may_go() {
    let history = History::make(&eventful(4));
    let mut written = Written::new(&history);
    let rules = "keep_last = 1";
    written.plan(rules);

    // Stored in an hour: one of the clocks is wrong.
    let segment = written.one("/wal/00000");
    let then = segment.metadata().unwrap().modified().unwrap();
    set_time(&segment, SystemTime::now() + Duration::from_secs(3600));
    let refused = written.expire(Some(rules), &[]).exits(16);
    assert!(refused.stderr.contains("one of the clocks is wrong"), "{}", refused.stderr);
    set_time(&segment, then);
    written.plan(rules);

    // Nobody knows what a backup needs whose manifest is damaged.
    let manifest = written.one("/backups/");
    let good = std::fs::read(&manifest).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    bad.truncate(good.len() - 10);
    std::fs::write(&manifest, &bad).unwrap();
    let refused = written.expire(Some(rules), &[]).exits(16);
    let id = manifest.file_name().unwrap().to_str().unwrap();
    assert!(refused.stderr.contains(&format!("nobody knows what backup {id} needs")), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("--give-up {id}")), "{}", refused.stderr);
    std::fs::write(&manifest, &good).unwrap();

    // Of no backup all packs are there: is it the right disk?
    for pack in files_below(&written.directory).into_iter().filter(|path| path.to_str().unwrap().contains("/packs/")) {
        std::fs::remove_file(pack).unwrap();
    }
    let refused = written.expire(Some(rules), &[]).exits(16);
    assert!(refused.stderr.contains("can be restored, so nothing may go: pack"), "{}", refused.stderr);

    // Without any backup all WAL stays.
    for manifest in files_below(&written.directory).into_iter().filter(|path| path.to_str().unwrap().contains("/backups/")) {
        std::fs::remove_file(manifest).unwrap();
    }
    let plan = written.plan(rules);
    assert_eq!(number(&plan[0]["goes"]["wal_files"]), 0, "{plan:#}");
    assert!(number(&plan[0]["stays"]["wal_files"]) > 100);
}
