//! `base-backup` and `check` as root: what comes into a backup is what the server's user could read, and nothing is run
//! as root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::pitr::Site;
use crate::support::canary::Canary;
use crate::support::command::{Ran, files_below, is_root, run};
use crate::support::postgres::Cluster;

/// Runs `walvis` as root for a host of which everything is the server's user's.
fn as_root(site: &Site, arguments: &[&str]) -> Ran {
    let scratch = site.scratch.path();
    let mut command = Command::new(site.scratch.walvis());
    command.args(arguments).env_clear().current_dir("/").env("HOME", "/root");
    command.env("WALVIS_REPOSITORY", format!("file://{}", site.archive.directory.display()));
    run(command.env("WALVIS_KEY_FILE", scratch.join("walvis.key")))
}

fn backup(site: &Site, primary: &Cluster, more: &[&str]) -> Ran {
    let server = primary.conninfo();
    as_root(site, &[&["--json", "base-backup", "--fast", "--jobs", "2", "--server", &server], more].concat())
}

/// Takes the place of something in the data directory, as the server's user could.
fn plant(data: &Path, target: &Path, at: &str) -> PathBuf {
    let (at, owner) = (data.join(at), data.metadata().unwrap());
    symlink(target, &at).unwrap();
    lchown(&at, Some(owner.uid()), Some(owner.gid())).unwrap();
    at
}

#[test]
fn pg15_a_backup_by_root_holds_nothing_that_the_server_could_not_read() {
    if !is_root() {
        eprintln!("skipped: not root");
        return;
    }
    let site = Site::new();
    let primary = site.primary(15);
    let data = &primary.data;
    let user = data.metadata().unwrap().uid();

    // A directory of root's that looks like a tablespace of this server, and files.
    let place = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
    let roots = place.path().join("roots");
    let version = primary.sql("select 'PG_15_' || catalog_version_no from pg_control_system()");
    fs::create_dir_all(roots.join(&version).join("5")).unwrap();
    fs::write(roots.join(&version).join("5/16384"), vec![0; 8192]).unwrap();
    fs::write(roots.join("secret"), "root's").unwrap();
    fs::set_permissions(roots.join("secret"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(roots.join(&version), Permissions::from_mode(0o700)).unwrap();
    let canary = Canary::of(&roots);

    let planted = plant(data, &roots, "pg_tblspc/99999");
    let ran = backup(&site, &primary, &[]);
    let is_in = ran.stdout.contains(&roots.display().to_string()) && ran.code() == 0;
    assert!(!is_in, "a directory of root's is in the backup: {ran:?}");
    ran.exits(10).says(&["pg_tblspc/99999", &format!("give user {} access", user_name(user))]);
    canary.is_unchanged("a backup through a link");
    fs::remove_file(planted).unwrap();

    // A second name of a file, as where the system lets everybody make one.
    fs::hard_link(roots.join("secret"), data.join("base/1/99998")).unwrap();
    backup(&site, &primary, &[]).exits(10).says(&["base/1/99998", "Permission denied"]);
    fs::remove_file(data.join("base/1/99998")).unwrap();
    let canary = Canary::of(&roots);

    // Settings that the server names, and that are a link to something of root's.
    plant(data, &roots.join("secret"), "secret.conf");
    primary.sql(&format!("alter system set ident_file = '{}'", data.join("secret.conf").display()));
    let copied: serde_json::Value = serde_json::from_str(&backup(&site, &primary, &[]).exits(0).stdout).unwrap();
    assert!(copied["files"].as_u64() > Some(900), "{copied}");
    canary.is_unchanged("a backup");
    for path in files_below(&site.archive.directory) {
        assert_eq!(path.metadata().unwrap().uid(), user, "{}", path.display());
    }
    // A data directory of root's own is none.
    let pgdata = roots.to_str().unwrap();
    backup(&site, &primary, &["--pgdata", pgdata]).exits(16).tells_the_way_out().says(&["belongs to root"]);

    // The server goes on to archive there, and everything is found.
    let server = primary.conninfo();
    let checked = as_root(&site, &["check", "--server", &server]);
    assert!(!checked.stdout.contains("PROBLEM"), "{checked:?}");
    for path in files_below(&site.archive.directory) {
        assert_eq!(path.metadata().unwrap().uid(), user, "{}", path.display());
    }
}

fn user_name(uid: u32) -> String {
    nix::unistd::User::from_uid(uid.into()).unwrap().unwrap().name
}
