//! `walvis check` against real servers: what works is said to work, and each thing that is wrong is named with its
//! remedy.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use walvis::deadline::Deadline;
use walvis::pg::WalFileName;
use walvis::repo::{ClusterName, Facts, KeySource, Repository, StoreSettings, StoreUrl};
use walvis::wal::compare::{self, Held};

use crate::support::command::{Ran, run as run_program};
use crate::support::postgres::{Cluster, Options, Role, Scratch, Stop, poll, run};
use crate::support::s3::{Action, S3Server};
use crate::support::schema;

/// A server's host: settings, key and repositories where the server's user reaches them.
struct Host {
    scratch: Arc<Scratch>,
    config: PathBuf,
    env: Vec<(String, String)>,
}

impl Host {
    /// With these repositories, each a name below the scratch directory.
    fn new(repositories: &[&str]) -> Self {
        let scratch = Scratch::new();
        let key = scratch.path().join("key");
        run(scratch.command(&scratch.walvis()).args(["key", "generate"]).arg(&key));
        let mut text = String::from("cluster = \"main\"\n");
        for name in repositories {
            let url = format!("file://{}/{name}", scratch.path().display());
            text += &format!("[[repository]]\nurl = \"{url}\"\nkey_file = \"{}\"\n", key.display());
        }
        let host = Self { config: scratch.path().join("walvis.toml"), scratch, env: Vec::new() };
        host.scratch.write(&host.config, text.as_bytes());
        host.walvis(&["init"]).exits(0);
        host
    }

    /// With one repository on an S3 server.
    fn on_s3(server: &S3Server) -> Self {
        let scratch = Scratch::new();
        let key = scratch.path().join("key");
        run(scratch.command(&scratch.walvis()).args(["key", "generate"]).arg(&key));
        let mut env: Vec<(String, String)> = server.env().into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        env.push(("WALVIS_REPOSITORY".to_owned(), server.url("pg")));
        env.push(("WALVIS_KEY_FILE".to_owned(), key.display().to_string()));
        let host = Self { config: scratch.path().join("walvis.toml"), scratch, env };
        host.scratch.write(&host.config, b"");
        host.walvis(&["init"]).exits(0);
        host
    }

    /// The first repository, and what identifies the server in it.
    fn repository(&self, cluster: &Cluster) -> (Repository, ClusterName, Facts) {
        let settings =
            StoreSettings { url: StoreUrl::File(self.scratch.path().join("one")), create_if_absent: None, known: None };
        let deadline = Deadline::after(Duration::from_secs(60));
        let secret = KeySource::File(self.scratch.path().join("key")).read(&deadline).unwrap();
        let facts = walvis::postgres::control_file::of_data_directory(&cluster.data, &deadline).unwrap().unwrap();
        (Repository::open(&settings, &secret, 1, deadline).unwrap(), ClusterName::new("main").unwrap(), facts)
    }

    fn walvis(&self, arguments: &[&str]) -> Ran {
        let mut command = self.scratch.command(&self.scratch.walvis());
        command.arg("--config").arg(&self.config).args(arguments).envs(self.env.iter().map(|(k, v)| (k, v)));
        run_program(&mut command)
    }

    fn options(&self) -> Options {
        let walvis = format!("'{}' --config '{}'", self.scratch.walvis().display(), self.config.display());
        Options { archive_command: Some(format!("{walvis} push-wal %p")), env: self.env.clone(), ..Options::default() }
    }

    fn cluster(&self, name: &str, major: u32, options: &Options) -> Cluster {
        let mut cluster = Cluster::init(&self.scratch, name, major, options);
        cluster.start();
        cluster
    }

    /// The report, as JSON, with the exit code it must have.
    fn check(&self, cluster: &Cluster, code: i32, timeout_s: &str) -> Value {
        let ran = self.walvis(&["--json", "--timeout", timeout_s, "check", "--server", &cluster.conninfo()]);
        let report = serde_json::from_str(&ran.exits(code).stdout).unwrap();
        schema::holds("check", &report);
        report
    }
}

/// The findings of this severity, as one text each.
fn findings(report: &Value, severity: &str) -> Vec<String> {
    let all = report["findings"].as_array().unwrap().iter();
    all.filter(|f| f["severity"] == severity)
        .map(|f| {
            format!("{}: {} → {}", f["about"].as_str().unwrap(), f["message"].as_str().unwrap(), f["hint"].as_str().unwrap_or(""))
        })
        .collect()
}

#[track_caller]
fn one_problem(report: &Value, words: &[&str]) {
    let problems = findings(report, "problem");
    assert_eq!(problems.len(), 1, "{problems:#?}");
    for word in words {
        assert!(problems[0].contains(word), "no {word:?} in {}", problems[0]);
    }
}

fn all_is_well(major: u32) {
    let host = Host::new(&["one", "two"]);
    let cluster = host.cluster("server", major, &host.options().setting("archive_timeout", "60s"));
    let report = host.check(&cluster, 0, "60");
    assert!(findings(&report, "problem").is_empty() && findings(&report, "warning").is_empty(), "{report:#}");
    assert_eq!(report["server"]["archive_mode"], "on");
    assert_eq!((&report["server"]["archive_timeout_s"], &report["verdict"]), (&60.into(), &"working".into()));
    assert_eq!(report["server"]["archiver"]["last_archived_file"], report["server"]["switched_segment"]);
    let segment = report["server"]["switched_segment"].as_str().unwrap();
    for repository in report["repositories"].as_array().unwrap() {
        for fact in ["opened", "encrypted", "store_refuses_overwrite", "can_delete", "segment_verified"] {
            assert_eq!(repository[fact], true, "{fact}: {report:#}");
        }
    }
    let list: Value = serde_json::from_str(&host.walvis(&["--json", "list"]).exits(0).stdout).unwrap();
    for repository in list.as_array().unwrap() {
        let system = &repository["clusters"][0]["systems"][0];
        assert_eq!(system["system_id"], report["server"]["system_id"]);
        assert_eq!(system["postgres_major"], major);
        assert_eq!(system["timelines"][0]["last_segment"], segment);
    }
    // Quiet since then: there must be something to switch to all the same.
    let again = host.check(&cluster, 0, "60");
    assert_ne!(again["server"]["switched_segment"], segment);
    // For people.
    let text = host.walvis(&["check", "--server", &cluster.conninfo()]).exits(0).stdout;
    assert!(text.ends_with("all is well\n") && text.contains("segment arrived and read back whole: yes"), "{text}");
}

#[test]
fn all_is_well_with_13() {
    all_is_well(13);
}

#[test]
fn all_is_well_with_18() {
    all_is_well(18);
}

#[test]
fn what_is_wrong_with_the_server_is_named_with_the_remedy() {
    let host = Host::new(&["one"]);
    let without = Options { archive_command: None, ..host.options() };
    let cluster = host.cluster("server", 15, &without);
    one_problem(&host.check(&cluster, 18, "20"), &["archive_mode is off", "ALTER SYSTEM SET archive_mode = on"]);
    drop(cluster);

    let empty = Options { archive_command: Some(String::new()), ..host.options() };
    let cluster = host.cluster("second", 15, &empty.setting("archive_mode", "on"));
    one_problem(&host.check(&cluster, 18, "20"), &["archive_command is empty", "push-wal %p"]);
    cluster.sql("ALTER SYSTEM SET archive_command = 'false'");
    cluster.sql("SELECT pg_reload_conf()");
    let report = host.check(&cluster, 18, "120");
    assert_eq!(report["verdict"], "not_working");
    one_problem(&report, &["the archiver fails", "in a row", "server's log"]);
    let warnings = findings(&report, "warning");
    assert!(warnings.iter().any(|w| w.contains("does not seem to call")), "{warnings:?}");
    assert!(warnings.iter().any(|w| w.contains("archive_timeout is 0")), "{warnings:?}");
    assert_eq!(report["repositories"][0]["segment_verified"], false);
}

#[test]
fn a_command_that_cannot_work_is_told_at_once_with_what_it_says() {
    let host = Host::new(&["one"]);
    let small = Options { wal_segsize_mib: 1, ..host.options() };
    let wrong = Options { archive_command: Some("/nonexistent/walvis push-wal %p".to_owned()), ..small.clone() };
    let cluster = host.cluster("server", 15, &wrong);
    // The server does not count it: the archiver dies. Nobody waits until the end of the time limit, which would say
    // something else.
    let report = host.check(&cluster, 18, "300");
    one_problem(&report, &["archive_command for 0000", "ends with exit code 127", "not found", "whole path"]);
    assert_eq!((&report["server"]["archiver"]["failed_count"], &report["verdict"]), (&0.into(), &"not_working".into()));
    let backup = ["--timeout", "300", "base-backup", "--fast", "--server", &cluster.conninfo()];
    host.walvis(&backup).exits(17).says(&["the archiver fails", "exit code 127"]).tells_the_way_out();

    // The server's environment has no settings.
    let bare = format!("{} push-wal %p", host.scratch.walvis().display());
    cluster.sql(&format!("ALTER SYSTEM SET archive_command = '{bare}'"));
    cluster.sql("SELECT pg_reload_conf()");
    let report = host.check(&cluster, 18, "300");
    one_problem(&report, &["ends with exit code 10", "no repository", "other settings than this command"]);
    host.walvis(&backup).exits(17).says(&["the archiver fails", "exit code 10"]).tells_the_way_out();

    // As it should be, the failures before notwithstanding.
    cluster.sql(&format!("ALTER SYSTEM SET archive_command = '{}'", small.archive_command.unwrap().replace('\'', "''")));
    cluster.sql("SELECT pg_reload_conf()");
    host.check(&cluster, 0, "300");
    host.walvis(&backup).exits(0);
}

#[test]
fn a_server_that_was_set_back_is_not_taken_for_what_is_stored() {
    let host = Host::new(&["one"]);
    let options = Options { wal_segsize_mib: 1, ..host.options() };
    let mut cluster = host.cluster("server", 15, &options);
    cluster.switch_and_archive();
    cluster.stop(Stop::Fast);
    let (data, snapshot) = (cluster.data.clone(), host.scratch.path().join("snapshot"));
    run(std::process::Command::new("cp").arg("-a").args([&data, &snapshot]));
    cluster.start();
    let last = (0..3).map(|_| cluster.switch_and_archive()).last().unwrap();
    cluster.kill();
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&snapshot, &data).unwrap();
    cluster.start();
    one_problem(&host.check(&cluster, 18, "300"), &["which the server has not written yet", "set back", "another cluster name"]);
    let backup = ["base-backup", "--fast", "--server", &cluster.conninfo()];
    host.walvis(&backup).exits(13).says(&["which the server has not written yet", "set back"]).tells_the_way_out();
    // It goes on, and archives elsewhere: what it writes now has the names of what is stored, and is something else.
    cluster.sql("ALTER SYSTEM SET archive_command = 'true'");
    cluster.sql("SELECT pg_reload_conf()");
    let segment = cluster.switch_and_archive();
    let (repository, name, facts) = host.repository(&cluster);
    let file = WalFileName::parse(&segment).unwrap();
    let local = cluster.data.join("pg_wal").join(&segment);
    assert_eq!(compare::compare(&repository, &name, facts, &file, &local).unwrap(), Held::Other);
    assert_eq!(compare::compare_beginning(&repository, &name, facts, &file, &local, 1 << 20).unwrap(), Held::Other);
    let copy = host.scratch.path().join(&segment);
    assert!(host.walvis(&["fetch-wal", &segment, copy.to_str().unwrap()]).exits(0).stdout.is_empty());
    assert_eq!(compare::compare(&repository, &name, facts, &file, &copy).unwrap(), Held::Same);
    assert_eq!(compare::compare_beginning(&repository, &name, facts, &file, &copy, 5000).unwrap(), Held::Same);
    assert_eq!(compare::compare(&repository, &name, facts, &file, &copy.with_extension("gone")).unwrap(), Held::Unknown);
    while cluster.switch_and_archive() <= last {}
    let report = host.check(&cluster, 18, "300");
    one_problem(&report, &["did not arrive", "sends it elsewhere"]);
}

/// Without `--fast` the server makes its checkpoint in its own time.
#[test]
fn a_wait_is_told_on_a_terminal_with_the_way_to_hasten_it() {
    let host = Host::new(&["one"]);
    let cluster = host.cluster("server", 15, &Options { wal_segsize_mib: 1, ..host.options() });
    cluster.sql("create table t as select i from generate_series(1, 200000) i");
    let walvis = format!("'{}' --config '{}'", host.scratch.walvis().display(), host.config.display());
    let line = format!("{walvis} base-backup --server '{}'", cluster.conninfo());
    let mut command = host.scratch.command(std::path::Path::new("script"));
    command.args(["-qfec", &line, "/dev/null"]).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let mut terminal = command.spawn().unwrap();
    let mut seen = String::new();
    let mut out = terminal.stdout.take().unwrap();
    let mut buffer = [0; 4096];
    while !seen.contains("--fast or CHECKPOINT hastens it") {
        let n = std::io::Read::read(&mut out, &mut buffer).unwrap();
        assert_ne!(n, 0, "{seen}");
        seen += &String::from_utf8_lossy(&buffer[..n]);
    }
    assert!(seen.contains(" s for the server's checkpoint; "), "{seen}");
    cluster.sql("checkpoint");
    std::io::Read::read_to_string(&mut out, &mut seen).unwrap();
    assert!(terminal.wait().unwrap().success(), "{seen}");
}

#[test]
fn an_unreachable_server_is_a_problem_of_its_own() {
    let host = Host::new(&["one"]);
    let nowhere = format!("host={}", host.scratch.path().display());
    let ran = host.walvis(&["--json", "check", "--server", &nowhere]).exits(18);
    one_problem(&serde_json::from_str(&ran.stdout).unwrap(), &["cannot connect", "is it running"]);
    let report = host.walvis(&["--json", "check", "--server", "port=nonsense"]).exits(18);
    one_problem(&serde_json::from_str(&report.stdout).unwrap(), &["connection string", "as for psql"]);
    let text = host.walvis(&["check", "--no-server"]).exits(0).stdout;
    assert!(text.contains("store refuses to overwrite: yes"), "{text}");
}

#[test]
fn another_cluster_under_the_same_name_is_named() {
    let host = Host::new(&["one"]);
    let first = host.cluster("server", 15, &host.options());
    host.check(&first, 0, "60");
    drop(first);
    let second = host.cluster("second", 15, &host.options());
    let report = host.check(&second, 18, "8");
    let problems = findings(&report, "problem");
    assert!(problems[0].contains("belongs to system identifier") && problems[0].contains("--after-pg-upgrade"), "{problems:?}");
    assert!(problems.iter().any(|p| p.contains("the archiver fails") && p.contains("exit code 16")), "{problems:?}");
}

#[test]
fn a_repository_that_is_gone_is_named_and_the_others_are_checked() {
    let host = Host::new(&["one", "two"]);
    let cluster = host.cluster("server", 15, &host.options());
    std::fs::rename(host.scratch.path().join("one"), host.scratch.path().join("away")).unwrap();
    let report = host.check(&cluster, 18, "8");
    let problems = findings(&report, "problem");
    assert!(problems[0].contains("/one"), "{problems:?}");
    assert_eq!(
        (&report["repositories"][0]["opened"], &report["repositories"][1]["opened"]),
        (&Value::Bool(false), &Value::Bool(true))
    );
}

#[test]
fn a_store_that_overwrites_is_found_out() {
    let server = S3Server::start();
    let host = Host::on_s3(&server);
    let report = serde_json::from_str(&host.walvis(&["--json", "check", "--no-server"]).exits(0).stdout).unwrap();
    assert!(findings(&report, "problem").is_empty());
    // It did refuse when the repository was made; now it does not.
    server.set_ignores_conditions(true);
    let report = serde_json::from_str(&host.walvis(&["--json", "check", "--no-server"]).exits(18).stdout).unwrap();
    one_problem(&report, &["does not refuse to overwrite", "create_if_absent = \"claims\""]);
}

#[test]
fn a_repository_made_on_such_a_store_says_so_and_works() {
    let server = S3Server::start();
    server.set_ignores_conditions(true);
    let host = Host::on_s3(&server);
    let cluster = host.cluster("server", 15, &host.options());
    let report = host.check(&cluster, 0, "60");
    let notes = findings(&report, "note");
    assert!(notes.iter().any(|n| n.contains("announce themselves under claims/")), "{notes:?}");
    assert_eq!(report["repositories"][0]["store_refuses_overwrite"], false);
    assert_eq!(report["repositories"][0]["segment_verified"], true);
}

#[test]
fn credentials_that_cannot_delete_are_seen_and_are_enough() {
    let server = S3Server::start();
    server.hook(|seen| if seen.method == "DELETE" { Action::s3_error(403, "AccessDenied", "no") } else { Action::Pass });
    let host = Host::on_s3(&server);
    let probes = || server.objects("pg/probe/");
    let of_init = probes();
    assert!(!of_init.is_empty());
    for _ in 0..3 {
        let report: Value = serde_json::from_str(&host.walvis(&["--json", "check", "--no-server"]).exits(0).stdout).unwrap();
        assert_eq!(report["repositories"][0]["can_delete"], false);
        assert_eq!(report["repositories"][0]["store_refuses_overwrite"], true);
    }
    // What a probe cannot remove does not pile up.
    assert_eq!(probes(), of_init);
    // Whoever can delete does so, and probes anew.
    server.unhook();
    let report: Value = serde_json::from_str(&host.walvis(&["--json", "check", "--no-server"]).exits(0).stdout).unwrap();
    assert_eq!(report["repositories"][0]["can_delete"], true);
    assert!(!probes().contains_key("pg/probe/kept"));
}

/// A role may be set up so that its idle sessions end; check waits for a store, or an archiver, longer than that.
#[test]
fn what_ends_idle_sessions_of_a_role_does_not_end_a_check() {
    let server = S3Server::start();
    let host = Host::on_s3(&server);
    let cluster = host.cluster("server", 17, &Options { wal_segsize_mib: 1, ..host.options() });
    cluster.sql("create role checker superuser login");
    for setting in ["idle_session_timeout", "idle_in_transaction_session_timeout"] {
        cluster.sql(&format!("alter role checker set {setting} = '1s'"));
    }
    // Between two questions to the server the bindings are read.
    server.hook(|seen| {
        let is_slow = seen.method == "GET" && format!("{}?{}", seen.path, seen.query).contains("bindings");
        if is_slow { Action::Delay(Duration::from_secs(2)) } else { Action::Pass }
    });
    let conninfo = format!("{} user=checker", cluster.conninfo());
    let ran = host.walvis(&["--json", "--timeout", "300", "check", "--server", &conninfo]).exits(0);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&report["verdict"], &report["repositories"][0]["segment_verified"]), (&"working".into(), &true.into()));
    assert!(!cluster.log().contains("idle-session timeout"), "{}", cluster.log());
}

/// What a standby does when the repository does not answer is in its `restore_command`.
#[test]
fn a_standby_is_told_what_it_does_when_the_repository_does_not_answer() {
    let host = Host::new(&["one"]);
    let options = Options { wal_segsize_mib: 1, ..host.options() };
    let primary = host.cluster("primary", 15, &options);
    let backup = primary.backup_to("base");
    let options = options.setting("primary_conninfo", &primary.conninfo());
    let mut standby = Cluster::restore(&host.scratch, "standby", &backup, Role::Standby, &options);
    standby.start();
    let walvis = format!("{} --config {}", host.scratch.walvis().display(), host.config.display());
    let goes_on = "this standby goes on streaming; it is promoted only with all that it can know of";
    let goes_down = "restore_command says --on-error stop";
    let either_way = "restore_command says --on-error unavailable";
    let unseen = "promote_trigger_file is set";
    for (on_error, trigger, notes, warnings) in [
        ("", "", vec![goes_on], vec![]),
        ("--on-error auto", "", vec![goes_on], vec![]),
        ("--on-error stop", "", vec![], vec![goes_down]),
        ("--on-error=stop", "", vec![], vec![goes_down]),
        ("--on-error unavailable", "", vec![], vec![either_way]),
        ("", "/nowhere/promote", vec![goes_on], vec![unseen]),
    ] {
        standby.sql(&format!("alter system set restore_command = '{walvis} fetch-wal {on_error} %f %p'"));
        standby.sql(&format!("alter system set promote_trigger_file = '{trigger}'"));
        standby.sql("select pg_reload_conf()");
        let set = format!(
            "select current_setting('restore_command') = '{walvis} fetch-wal {on_error} %f %p' \
             and current_setting('promote_trigger_file') = '{trigger}'"
        );
        assert!(poll(|| (standby.sql(&set) == "t").then_some(())).is_some(), "{}", standby.log());
        let report = host.check(&standby, 0, "60");
        assert_eq!(report["server"]["in_recovery"], true);
        for (severity, expected) in [("note", notes), ("warning", warnings)] {
            let all = [goes_on, goes_down, either_way, unseen].into_iter();
            let said = findings(&report, severity);
            let said: Vec<&str> = all.filter(|words| said.iter().any(|finding| finding.contains(words))).collect();
            assert_eq!(said, expected, "{severity} with {on_error:?} and {trigger:?}: {report:#}");
        }
    }
}
