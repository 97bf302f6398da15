//! `key generate`, `init`, `list`, `completions`: the commands around archiving.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::sync::Arc;

use serde_json::Value;
use walvis::pg::WalSegmentSize;
use walvis::repo::{ClusterName, Facts, Repository, Secret, SystemId};

use crate::support::command::{Site, files_below, run};
use crate::support::s3::{Op, S3Server};
use crate::support::segment::{self, Segment};

#[test]
fn a_key_file_is_private_and_never_replaced() {
    let site = Site::bare();
    let path = site.path("new-key");
    let path = path.to_str().unwrap();
    site.run(["key", "generate", path]).exits(0);
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(path).unwrap();
    site.run(["key", "generate", path]).exits(16).tells_the_way_out().says(&[path, "already"]);
    assert_eq!(std::fs::read(path).unwrap(), before);
    site.run(["key", "generate", "/nonexistent/key"]).exits(10).says(&["/nonexistent"]);
    let report = site.run(["--json", "key", "generate", site.path("third").to_str().unwrap()]).exits(0).stdout;
    let report: Value = serde_json::from_str(&report).unwrap();
    let digits = before.windows(13).position(|w| w == b"walvis-key-1:").unwrap();
    let secret = std::str::from_utf8(&before[digits + 13..digits + 77]).unwrap();
    assert!(!report.to_string().contains(secret));
}

#[test]
fn a_repository_is_made_once() {
    let mut site = Site::without_repository();
    assert!(site.run(["init"]).exits(0).stdout.contains("made, encrypted"));
    let before: Vec<_> = files_below(&site.repository()).into_iter().map(|p| (p.clone(), std::fs::read(p).unwrap())).collect();
    assert!(site.run(["init"]).exits(0).stdout.contains("is there already"));
    // Another key, no key, an unencrypted one, a passphrase: refused, and nothing is changed.
    let other = site.path("other");
    site.run(["key", "generate", other.to_str().unwrap()]).exits(0);
    site.run(["--key-file", other.to_str().unwrap(), "init"])
        .exits(16)
        .tells_the_way_out()
        .says(&["other settings", "wrong key"]);
    site.unset("WALVIS_KEY_FILE");
    site.run(["init"]).exits(10).tells_the_way_out().says(&["no key", "--unencrypted"]);
    site.run(["init", "--unencrypted"]).exits(16).says(&["other settings"]);
    site.set("WALVIS_PASSPHRASE", "correct horse");
    site.run(["init"]).exits(16).says(&["wrong passphrase"]);
    let after: Vec<_> = files_below(&site.repository()).into_iter().map(|p| (p.clone(), std::fs::read(p).unwrap())).collect();
    assert_eq!(before, after);
}

#[test]
fn an_unencrypted_repository_takes_an_explicit_word_and_no_key() {
    let mut site = Site::without_repository();
    site.run(["init", "--unencrypted"]).exits(2).says(&["--unencrypted", "key file"]);
    site.unset("WALVIS_KEY_FILE");
    assert!(site.run(["init", "--unencrypted"]).exits(0).stdout.contains("NOT encrypted"));
    site.archive(&[1]);
    site.fetches(&Segment::new(1).name());
    // Somebody put an unencrypted repository where an encrypted one is expected.
    site.set("WALVIS_KEY_FILE", site.path("key"));
    site.push(&Segment::new(1).name()).exits(16).tells_the_way_out().says(&["not encrypted", "a key is configured"]);
    site.fetch_fails(&Segment::new(1).name(), 200);
}

#[test]
fn passphrase_and_command_open_what_they_made() {
    let mut site = Site::without_repository();
    site.unset("WALVIS_KEY_FILE");
    std::fs::write(site.path("passphrase"), "correct horse battery staple\n").unwrap();
    site.set("WALVIS_PASSPHRASE_FILE", site.path("passphrase"));
    site.init();
    site.archive(&[1]);
    site.unset("WALVIS_PASSPHRASE_FILE");
    site.set("WALVIS_PASSPHRASE", "correct horse battery staple");
    site.fetches(&Segment::new(1).name());
    site.set("WALVIS_PASSPHRASE", "correct horse battery stable");
    site.push(&Segment::new(1).name()).exits(12).tells_the_way_out().says(&["wrong passphrase"]);

    let mut site = Site::without_repository();
    site.unset("WALVIS_KEY_FILE");
    site.set("WALVIS_KEY_COMMAND", format!("cat '{}'", site.path("key").display()));
    site.init();
    site.archive(&[1]);
    site.unset("WALVIS_KEY_COMMAND");
    site.set("WALVIS_KEY_FILE", site.path("key"));
    site.fetches(&Segment::new(1).name());
    site.unset("WALVIS_KEY_FILE");
    site.set("WALVIS_KEY_COMMAND", "echo no key");
    site.push(&Segment::new(1).name()).exits(10).tells_the_way_out().says(&["key_command", "not a Walvis key"]);
    site.set("WALVIS_KEY_COMMAND", "sleep 60");
    site.run(["--timeout", "1", "push-wal", "pg_wal/x"]).exits(2);
    let push = format!("pg_wal/{}", Segment::new(1).name());
    site.run(["--timeout", "1", "push-wal", &push]).exits(10).says(&["did not finish within"]);
}

/// Two `init` at once, many times: one repository, which both can use.
#[test]
fn racing_inits_agree() {
    for _ in 0..10 {
        let site = Site::without_repository();
        let ran: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..3).map(|_| scope.spawn(|| site.run(["init"]))).collect();
            racers.into_iter().map(|r| r.join().unwrap().exits(0)).collect()
        });
        assert_eq!(ran.iter().filter(|r| r.stdout.contains(" made, ")).count(), 1);
        site.archive(&[1]);
        site.fetches(&Segment::new(1).name());
    }
}

#[test]
fn a_cluster_can_be_bound_before_its_first_push() {
    let mut site = Site::new();
    let data = site.data();
    let out = site.run(["init", "--pgdata", data.to_str().unwrap()]).exits(0).stdout;
    assert!(out.contains(&segment::SYSTEM_ID.to_string()), "{out}");
    // Known and empty: recovery may ask, and is told that nothing is there.
    site.fetch_fails(&Segment::new(1).name(), 1);
    site.fetch_fails("00000002.history", 1);
    site.set("WALVIS_CLUSTER", "misspelt");
    site.fetch_fails(&Segment::new(1).name(), 200).says(&["misspelt", "nothing is stored of cluster"]);
    site.run(["init", "--pgdata", "/nonexistent"]).exits(10).tells_the_way_out().says(&["not a data directory"]);
    site.run(["init", "--after-pg-upgrade"]).exits(2);
    let bad = data.join("global/pg_control");
    std::fs::write(&bad, vec![0xAA; 8192]).unwrap();
    site.run(["init", "--pgdata", data.to_str().unwrap()]).exits(14).says(&["pg_control"]);
}

#[test]
fn list_shows_clusters_timelines_and_holes() {
    let mut site = Site::new();
    assert!(site.run(["list"]).exits(0).stdout.contains("no cluster yet"));
    site.archive(&[1, 2, 3, 6, 7, 9]);
    let child = Segment::new(7).on(2);
    let name = site.make(&child);
    site.push(&name).exits(0);
    site.archive_text("00000002.history", &segment::history(&[(1, 7 << 20)]));
    site.become_cluster(99, 1 << 20);
    // Names that sort around '/' in object names.
    for cluster in ["main.x", "main-x", "main0"] {
        site.set("WALVIS_CLUSTER", cluster);
        let name = site.make(&Segment::new(4).of(99));
        site.push(&name).exits(0);
    }
    let text = site.run(["list"]).exits(0).stdout;
    assert!(text.contains("MISSING 000000010000000000000004 to 000000010000000000000005"), "{text}");
    let report: Value = serde_json::from_str(&site.run(["--json", "list"]).exits(0).stdout).unwrap();
    let clusters = report[0]["clusters"].as_array().unwrap();
    let mut names: Vec<&str> = clusters.iter().map(|c| c["cluster"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["main", "main-x", "main.x", "main0"]);
    let main = &clusters.iter().find(|c| c["cluster"] == "main").unwrap()["systems"][0];
    let timelines = main["timelines"].as_array().unwrap();
    assert_eq!(
        (&timelines[0]["segments"], &timelines[0]["missing_runs"], &timelines[1]["segments"]),
        (&6.into(), &2.into(), &1.into())
    );
    assert_eq!(main["histories"][0], "00000002.history");
    let files = site.run(["--json", "list", "--files"]).exits(0).stdout;
    assert_eq!(files.lines().count(), 6 + 1 + 1 + 3);
    for line in files.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["stored_bytes"].as_u64().unwrap() > 0);
    }
}

#[test]
fn completions_are_printed_for_every_shell() {
    let site = Site::bare();
    for shell in ["bash", "zsh", "fish"] {
        let script = site.run(["completions", shell]).exits(0).stdout;
        assert!(script.contains("push-wal"), "{shell}");
    }
}

#[test]
fn many_clusters_are_listed_with_few_requests() {
    const CLUSTERS: usize = 50;
    let server = S3Server::start();
    let mut site = Site::bare();
    site.use_s3(&server, "pg");
    site.unset("WALVIS_KEY_FILE");
    site.run(["init", "--unencrypted"]).exits(0);
    let names: Vec<String> = (0..CLUSTERS).map(|n| format!("c{n:02}")).collect();
    let repository = Repository::over(Arc::new(server.store("pg")), &Secret::None, 1).unwrap();
    for name in &names {
        let facts =
            Facts { system_id: SystemId(7), wal_segment_size: WalSegmentSize::new(1 << 20).unwrap(), postgres_major: Some(17) };
        repository.bind(&ClusterName::new(name).unwrap(), facts).unwrap();
    }
    server.clear_log();
    let report: Value = serde_json::from_str(&site.run(["--json", "list"]).exits(0).stdout).unwrap();
    let listed: Vec<&str> = report[0]["clusters"].as_array().unwrap().iter().map(|c| c["cluster"].as_str().unwrap()).collect();
    assert_eq!(listed, names);
    // The descriptor and the names once, the binding of each cluster.
    assert_eq!((server.seen(Op::List).len(), server.seen(Op::Get).len()), (1, 1 + CLUSTERS));
}

#[test]
fn help_is_there_however_it_is_asked_for() {
    let site = Site::bare();
    for arguments in [&["help"][..], &["--help"], &["-h"]] {
        let out = site.run(arguments).exits(0).stdout;
        assert!(out.contains("push-wal") && out.contains("Exit codes") && out.contains("proven absent"), "{arguments:?}: {out}");
    }
    let (one, other) = (site.run(["help", "resolve"]).exits(0).stdout, site.run(["resolve", "--help"]).exits(0).stdout);
    assert!(one.contains("--target-time") && one == other, "{one}");
    site.run(["help", "nothing"]).exits(2);
}

#[test]
fn a_key_is_where_the_message_says() {
    let site = Site::bare();
    let out = site.run(["key", "generate", "own.key"]).exits(0).stdout;
    let path = out.split_once(" written to ").unwrap().1.lines().next().unwrap().to_owned();
    assert!(path.starts_with('/') && std::fs::read_to_string(&path).unwrap().contains("walvis"), "{out}");
    site.run(["key", "generate", "own.key"]).exits(16).says(&["own.key", "not touched"]);
    site.run(["key", "generate", "/nonexistent/walvis/main.key"]).exits(10).says(&["install -d", "/nonexistent/walvis"]);
}

#[test]
fn root_makes_no_repository_that_the_server_cannot_write_to() {
    let site = Site::without_repository();
    let data = site.data();
    let data = data.to_str().unwrap();
    if !nix::unistd::geteuid().is_root() {
        site.run(["init", "--pgdata", data]).exits(0);
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let mode = |mode| std::fs::set_permissions(site.dir(), PermissionsExt::from_mode(mode)).unwrap();
    chown(data, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
    mode(0o755);
    // One that the server could not reach is of no use.
    std::fs::create_dir(site.path("closed")).unwrap();
    std::fs::set_permissions(site.path("closed"), PermissionsExt::from_mode(0o700)).unwrap();
    let closed = format!("file://{}", site.path("closed/repository").display());
    let ran = site.run(["--repository", &closed, "init", "--pgdata", data]);
    ran.exits(12).says(&["closed/repository", "let user nobody pass"]);
    // Made for the server's user, with all that is in it.
    let out = site.run(["init", "--pgdata", data]).exits(0).stdout;
    assert!(!out.contains("belongs to root"), "{out}");
    let mut all = files_below(&site.repository());
    all.push(site.repository());
    assert!(all.len() > 2);
    for path in &all {
        assert_eq!(std::fs::metadata(path).unwrap().uid(), nobody.uid.as_raw(), "{path:?}");
    }
    site.run(["init", "--pgdata", data]).exits(0);
    // One of another user is refused.
    chown_all(&site.repository(), 0);
    site.run(["init", "--pgdata", data]).exits(16).tells_the_way_out().says(&["belongs to root", "nobody", "chown -R nobody"]);
    std::fs::remove_dir_all(site.repository()).unwrap();
    chown_all(&site.data(), 0);
    let out = site.run(["init", "--share-key", "--pgdata", data]).exits(0).stdout;
    assert!(out.contains("belongs to root"), "{out}");
}

fn chown_all(path: &std::path::Path, uid: u32) {
    let owner = format!("{uid}:{uid}");
    run(std::process::Command::new("chown").args(["-R", &owner]).arg(path)).exits(0);
}
