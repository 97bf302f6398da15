//! A restore from a repository in which nothing is authenticated.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use super::Site;
use crate::recovery::Archive;
use crate::support::postgres::Scratch;

/// The plan says what it means, and what every user of the host could have filled is not restored at all.
#[test]
fn pg15_an_unencrypted_repository_is_restored_with_a_warning_or_not_at_all() {
    let scratch = Scratch::new();
    let archive = Archive::walvis_unencrypted(&scratch);
    let config = scratch.path().join("walvis.toml").to_str().unwrap().to_owned();
    let site = Site::with(scratch, archive, vec!["--config".to_owned(), config]);
    let mut primary = site.primary(15);
    site.backup(&primary, &[]);
    primary.switch_and_archive();
    let place = site.place("restored");
    let arguments = ["pitr-restore", "--pgdata", place.to_str().unwrap(), "--target", "latest"];
    let plan = || {
        let plan: Value = site.json(&[&arguments[..], &["--plan"]].concat());
        let verified = &plan["plan"]["resolve"]["verified"];
        assert!(verified["objects"].as_u64() > Some(2) && verified["unverified_objects"] == verified["objects"], "{verified}");
        plan["plan"]["restore"]["notes"].to_string()
    };
    assert!(plan().contains("not encrypted") && plan().contains("can run programs as the server's user"), "{}", plan());

    let repository = site.place("repository");
    let mode = fs::metadata(&repository).unwrap().permissions().mode();
    fs::set_permissions(&repository, fs::Permissions::from_mode(mode | 0o002)).unwrap();
    for arguments in [&arguments[..], &[&arguments[..], &["--plan"]].concat()] {
        site.run(arguments).exits(16).tells_the_way_out().says(&["every user of this host can write to it", "chmod -R o-w"]);
    }
    assert!(!place.exists());
    fs::set_permissions(&repository, fs::Permissions::from_mode(mode)).unwrap();
    site.run(&arguments).exits(0);
}
