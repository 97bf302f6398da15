//! In the hands of a person: what is said when something is not as it should be, and that it says what is the case.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

use serde_json::Value;

use crate::pitr::Site;
use crate::support::command;

/// A server that lets nobody in is not asked whether it runs; a directory for temporary files is tried before a backup
/// begins; the plan of a restore is in the result, not among the messages.
#[test]
fn pg15_says_what_is_the_case() {
    let site = Site::new();
    let mut primary = site.primary(15);
    for (further, words) in [("user=nosuchrole", "pg_hba.conf"), ("dbname=nosuchdatabase", "no such database")] {
        let server = format!("{} {further}", primary.conninfo());
        let ran = site.run(&["base-backup", "--fast", "--server", &server]).exits(17);
        let ran = ran.says(&["it runs", words, further.split_once('=').unwrap().1]);
        assert!(!ran.stderr.contains("is it running"), "{ran:?}");
    }
    site.run(&["base-backup", "--server", "host=/nonexistent user=postgres"]).exits(17).says(&["is it running"]);

    // Before the server is asked for anything.
    let mut command = site.command(&["base-backup", "--server", "host=/nonexistent"]);
    command::run(command.env("TMPDIR", "/nonexistent/tmp")).exits(10).says(&["/nonexistent/tmp", "TMPDIR"]);

    site.backup(&primary, &[]);
    primary.switch_and_archive();
    let place = site.place("restored");
    let ran = site.run(&["--json", "pitr-restore", "--pgdata", place.to_str().unwrap(), "--target", "latest"]).exits(0);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(report["plan"]["resolve"]["reachable"] == true && report["restored"]["files"].as_u64() > Some(0), "{report:#}");
    assert!(!ran.stderr.contains('{'), "{ran:?}");

    // The cluster that is named is the one that is shown; the name in the settings is no question.
    for (name, code) in [("main", 0), ("mian", 10)] {
        let ran = site.run(&["list", "--cluster", name]).exits(code);
        assert!(code == 0 || (ran.stdout.is_empty() && ran.stderr.contains("cluster mian")), "{ran:?}");
    }
    let text = site.run(&["catalog"]).exits(0).stdout;
    assert!(text.contains(" s ago") || text.contains(" min "), "{text}");
}
