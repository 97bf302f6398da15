//! Names that were chosen with a terminal in mind: of databases and tablespaces, labels and restore points, files and
//! settings, objects and answers of a store. Wherever they show up, they are text, in the line that they belong to.

use std::fs;

use crate::pitr::Site as Host;
use crate::support::command::{Ran, Site};
use crate::support::postgres::Stop;
use crate::support::s3::{Action, Op, S3Server};
use crate::support::segment::Segment;

/// Sets a title, clears the screen, turns the direction of writing, and begins a line that says that all is well.
const EVIL: &str = "x\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\u{202e}\r\nall is well \u{2028}walvis: done";

/// Nothing in it moves a terminal.
#[track_caller]
fn is_plain(text: &str) {
    let hazard = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202e}' | '\u{2028}'));
    let at = text.find(hazard);
    assert_eq!(at, None, "{:?}", at.map(|at| text[at..].chars().take(60).collect::<String>()));
}

/// Nor is there a line that somebody else began.
#[track_caller]
fn is_safe(ran: &Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        is_plain(text);
        for line in text.lines() {
            let forged = ["all is well ", "walvis: done"].iter().any(|begin| line.trim_start().starts_with(begin));
            assert!(!forged, "a forged line: {text}");
        }
    }
}

/// Runs a command in all ways of speaking; what it prints as JSON is the first value that it printed.
#[track_caller]
fn in_every_way(run: &dyn Fn(&[&str]) -> Ran, arguments: &[&str], shows: &str) {
    for ways in [&[][..], &["-vv"], &["--log", "json", "-vv"], &["--json"]] {
        let ran = run(&[ways, arguments].concat());
        is_safe(&ran);
        let all = format!("{}{}", ran.stdout, ran.stderr);
        assert!(all.contains(shows), "no {shows:?} in {ran:?}");
        for line in ran.stderr.lines().filter(|_| ways.contains(&"json")) {
            serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        }
        if ways == ["--json"] && !ran.stdout.is_empty() && !arguments.contains(&"--commits") {
            for document in serde_json::Deserializer::from_str(&ran.stdout).into_iter::<serde_json::Value>() {
                document.unwrap_or_else(|e| panic!("{e}: {}", ran.stdout));
            }
        }
    }
}

#[test]
fn names_of_a_server() {
    let host = Host::new();
    let mut primary = host.primary(15);
    let sql_name = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let sql_text = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let short: String = EVIL.chars().take(40).collect();
    primary.sql(&format!("create database {}", sql_name(&short)));
    let place = host.scratch.make_dir("space\u{1b}[2J\u{202e}x");
    primary.sql(&format!("create tablespace {} location {}", sql_name(&short), sql_text(place.to_str().unwrap())));
    primary.sql("create table t as select 1 as i");
    primary.sql(&format!("create table u tablespace {} as select 1 as i", sql_name(&short)));
    let run = |arguments: &[&str]| host.run(arguments);
    let label = "label \u{202e}\u{2028}all is well ".to_owned();
    let annotation = format!("note={EVIL}");
    let backup = ["base-backup", "--fast", "--server", &primary.conninfo(), "--label", &label, "--annotate", &annotation];
    let ran = host.run(&backup).exits(0);
    is_safe(&ran);
    assert!(ran.stdout.contains("\\u{1b}]0;owned\\u{7}"), "{ran:?}");
    primary.sql(&format!("select pg_create_restore_point({})", sql_text(&short)));
    primary.sql("insert into t select 2");
    let target = primary.sql("select pg_current_wal_insert_lsn()");
    primary.sql("insert into t select 3");
    primary.switch_and_archive();
    let shown = "owned";
    in_every_way(&run, &["list"], "all is well");
    in_every_way(&run, &["list", "--database", &short], shown);
    in_every_way(&run, &["catalog", "--restore-points"], shown);
    in_every_way(&run, &["resolve", "--target-name", &short], shown);
    in_every_way(&run, &["resolve", "--target-name", EVIL], shown);
    in_every_way(&run, &["resolve", "--target-lsn", &target], "all is well");
    in_every_way(&run, &["check", "--server", &primary.conninfo(), "--timeout", "30"], "archive_timeout");
    let server = format!("{} options='-c {EVIL}'", primary.conninfo());
    in_every_way(&run, &["check", "--server", &server, "--timeout", "10"], "server");
    let restored = host.place("res\u{1b}[2Jtored\u{202e}");
    let moved = host.place("moved\u{1b}[2J");
    let map = format!("{}={}", place.to_str().unwrap(), moved.to_str().unwrap());
    let restore = ["pitr-restore", "--pgdata", restored.to_str().unwrap(), "--target-lsn", &target, "--tablespace-map", &map];
    in_every_way(&run, &[&restore[..], &["--plan"]].concat(), "res");
    is_safe(&host.run(&restore).exits(0));
    // And what is written down for people.
    let settings = fs::read_to_string(restored.join("postgresql.auto.conf")).unwrap();
    is_plain(&settings);
    assert!(settings.lines().any(|line| line.starts_with("# ")), "{settings}");
    primary.stop(Stop::Fast);
}

/// The end of a server's log is shown in lines of its own, and each of them is text.
#[test]
fn the_log_of_a_server_that_fails() {
    let host = Host::new();
    let mut primary = host.primary(15);
    primary.sql("create table t as select 1 as i");
    host.backup(&primary, &[]);
    let target = primary.sql("select pg_current_wal_insert_lsn()");
    primary.sql("insert into t select 3");
    primary.switch_and_archive();
    primary.stop(Stop::Fast);
    let restored = host.place("restored");
    host.run(&["pitr-restore", "--pgdata", restored.to_str().unwrap(), "--target-lsn", &target]).exits(0);
    // A program that says what it likes, and fails.
    let bin = host.scratch.make_dir("bin");
    let program = bin.join("postgres");
    let evil = EVIL.replace('\'', "");
    let text = format!(
        "#!/bin/sh\ncase $1 in --version) echo 'postgres (PostgreSQL) 15.1';; *) printf '%s\\n' '{evil}' >&2; exit 3;; esac\n"
    );
    host.scratch.write(&program, text.as_bytes());
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for ways in [&[][..], &["--log", "json"]] {
        let again = ["pitr-restore", "--delta", "--pgdata", restored.to_str().unwrap(), "--target-lsn", &target, "--start"];
        let ran = host.run(&[ways, &again, &["--discard-unarchived-wal", "--bin-dir", bin.to_str().unwrap()]].concat());
        let ran = ran.exits(17);
        is_plain(&ran.stdout);
        is_plain(&ran.stderr);
        assert!(ran.stderr.contains("the end of its log") && ran.stderr.contains("owned"), "{ran:?}");
        assert!(ran.stderr.lines().all(|line| !line.starts_with("all is well")), "{ran:?}");
    }
}

#[test]
fn answers_and_names_of_a_store() {
    let server = S3Server::start();
    let site = Site::on_s3(&server);
    let name = site.make(&Segment::new(1));
    site.push(&name).exits(0);
    let run = |arguments: &[&str]| site.run(arguments);
    // Names that are none of ours, in the place of clusters, backups and segments.
    for place in ["pg/clusters/", "pg/clusters/main/"] {
        server.insert(&format!("{place}a\u{9b}2J\u{202e}\u{85}/cluster.json"), b"x");
    }
    in_every_way(&run, &["list", "--files"], "main");
    in_every_way(&run, &["catalog"], "main");
    // What an error says.
    server.hook(|seen| {
        let text = EVIL.replace('\u{1b}', "&#27;");
        match seen.op {
            Op::Get | Op::List => Action::s3_error(403, &format!("Code{text}"), &text),
            _ => Action::Pass,
        }
    });
    for arguments in [&["list", "--timeout", "3"][..], &["fetch-wal", &name, "pg_wal/RECOVERYXLOG", "--timeout", "3"]] {
        for ways in [&[][..], &["-vv"], &["--log", "json"]] {
            is_safe(&run(&[ways, arguments].concat()));
        }
    }
    server.hook(|_| Action::Answer { status: 500, content_type: "text/html", body: format!("<html>{EVIL}") });
    is_safe(&run(&["-vv", "list", "--timeout", "2"]));
}

#[test]
fn names_of_files_settings_and_arguments() {
    let mut site = Site::new();
    let evil = EVIL.replace('\0', "");
    let in_place = evil.replace('/', "");
    let run = |site: &Site, arguments: &[&str]| {
        for ways in [&[][..], &["-vv"], &["--log", "json", "-v"]] {
            let ran = site.run([ways, arguments].concat());
            is_safe(&ran);
            assert_ne!(ran.status.code(), Some(0), "{arguments:?}: {ran:?}");
        }
    };
    run(&site, &["push-wal", &in_place]);
    run(&site, &["fetch-wal", &in_place, "pg_wal/x"]);
    run(&site, &["list", "--cluster", &in_place]);
    run(&site, &["list", "--key-file", &in_place]);
    run(&site, &["list", "--config", &in_place]);
    run(&site, &["list", "--repository", &in_place]);
    run(&site, &["list", "--repository", &format!("file:///{in_place}")]);
    run(&site, &["key", "generate", &format!("/nonexistent/{in_place}")]);
    run(&site, &["check", "--server", &format!("host={in_place}")]);
    run(&site, &["check", "--server", &format!("host='/{in_place}'")]);
    run(&site, &["resolve", "--target-time", &in_place]);
    run(&site, &["no-such-command", &in_place]);
    run(&site, &[&in_place]);
    site.set(&format!("WALVIS_{in_place}"), "x");
    is_safe(&site.run(["-vv", "list"]));
    site.unset(&format!("WALVIS_{in_place}"));
    fs::write(site.path("walvis.toml"), format!("\"{}\" = 1\n", "x\\u001B[2J\\u202E")).unwrap();
    run(&site, &["list"]);
    fs::write(site.path("walvis.toml"), format!("cluster = \"{}\"\n", "x\\u001B[2J\\u202E\\nall is well ")).unwrap();
    run(&site, &["list"]);
}
