//! Two repositories, of which the first does not answer: what a recovery needs comes from the second, and the first is
//! not asked for every object anew.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::pitr::Site;
use crate::support::command;
use crate::support::s3::{Action, S3Server, Seen};

/// How often two processes may ask a store that never answers: each opens the repository with two requests at once,
/// which are given up after so many attempts. Whoever asks for every object anew asks many times as often.
const AT_MOST: usize = 2 * 2 * walvis::limits::RETRY_ATTEMPTS as usize;

/// Takes connections and closes them; how many there were.
fn closed_door() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    // It ends with the test.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(connection);
        }
    });
    (endpoint, count)
}

#[test]
fn a_recovery_turns_from_a_silent_repository_to_the_second() {
    let server = S3Server::start();
    let mut site = Site::new();
    let env = server.env().into_iter().filter(|(name, _)| !name.starts_with("WALVIS_S3"));
    site.archive.env = env.map(|(name, value)| (name.to_owned(), value)).collect();
    site.options.env.clone_from(&site.archive.env);
    let url = format!("file://{}", site.archive.directory.display());
    let key = site.place("walvis.key");
    let settings = |endpoint: &str| {
        format!(
            "cluster = \"main\"\n\n[[repository]]\nurl = \"{}\"\nkey_file = {key:?}\n[repository.s3]\nendpoint = \"{endpoint}\"\npath_style = \
             true\n\n[[repository]]\nurl = \"{url}\"\nkey_file = {key:?}\n",
            server.url("pg")
        )
    };
    site.scratch.write(&site.place("walvis.toml"), settings(&server.endpoint()).as_bytes());
    site.run(&["init"]).exits(0);
    let mut primary = site.primary(15);
    primary.sql("create table t as select i from generate_series(1, 1000) i");
    let made = site.backup(&primary, &["--repository", &url]);
    primary.sql("insert into t values (0)");
    primary.sql("select pg_create_restore_point('sought')");
    primary.switch_and_archive();
    primary.destroy();

    let sought = ["--target-name", "sought", "--json"];
    let place = site.place("restored");
    let resolve = [&["--timeout", "24", "resolve"], &sought[..]].concat();
    let plan = [&["--timeout", "12", "pitr-restore", "--plan", "--pgdata", place.to_str().unwrap()], &sought[..]].concat();
    let answer = |arguments: &[&str]| -> Value { serde_json::from_str(&site.run(arguments).exits(0).stdout).unwrap() };
    // The answer of the second alone is what all have to say.
    let right = answer(&[&resolve[..], &["--repository", &url]].concat());
    assert_eq!(right["backup"]["backup_id"], made.id(), "{right:#}");
    assert!(right["repository"] == url.as_str() && right["stop"].is_object() && right["wal"].is_object(), "{right:#}");

    // What it says of the first one.
    let is_right = |text: &str| -> String {
        let json: Value = serde_json::from_str(text).unwrap();
        let resolved = if json["plan"].is_object() { &json["plan"]["resolve"] } else { &json };
        for field in ["repository", "backup", "stop", "wal", "timeline"] {
            assert_eq!(resolved[field], right[field], "{field}: {json:#}");
        }
        let said = format!("no answer from {}: ", server.url("pg"));
        let mut notes = resolved["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap());
        notes.find_map(|note| note.strip_prefix(&said)).unwrap_or_else(|| panic!("{json:#}")).to_owned()
    };
    // Both at once, for every way of being silent.
    let turn_to_the_second = |config: &Path| {
        let start = |arguments: &[&str]| {
            let mut command = site.scratch.command(&site.scratch.walvis());
            command.arg("--config").arg(config).args(arguments);
            command::start(command.envs(site.archive.env.iter().map(|(name, value)| (name, value))))
        };
        [start(&resolve), start(&plan)]
    };
    let (door, knocks) = closed_door();
    let (config, closed) = (site.place("walvis.toml"), site.place("closed.toml"));
    site.scratch.write(&closed, settings(&door).as_bytes());
    server.hook(|_| Action::Hang);
    server.clear_log();
    let all = [turn_to_the_second(&config), turn_to_the_second(&closed)];
    for running in all.into_iter().flatten() {
        is_right(&running.wait().exits(0).stdout);
    }
    let asked = [server.log().len(), knocks.load(Ordering::SeqCst)];
    assert!(asked.iter().all(|times| (2..=AT_MOST).contains(times)), "{asked:?}");
    // It answers at first, and is silent then.
    let is_asked_first = |seen: &Seen| {
        ["walvis.json", "keys", "bindings"].iter().any(|word| [&seen.path, &seen.query].iter().any(|s| s.contains(word)))
    };
    server.hook(move |seen| if is_asked_first(seen) { Action::Pass } else { Action::Hang });
    server.clear_log();
    let [of_resolve, _] = turn_to_the_second(&config).map(|running| is_right(&running.wait().exits(0).stdout));
    // Of the 24 s a share was left to the second.
    let limit = of_resolve.split("the time limit of ").nth(1).and_then(|rest| rest.split('s').next()).map(str::parse::<u64>);
    assert!(matches!(limit, Some(Ok(1..=18))), "{of_resolve}");
    let unanswered = server.log().into_iter().filter(|seen| !is_asked_first(seen)).count();
    assert!((2..=AT_MOST / 2).contains(&unanswered), "{unanswered}");
    assert!(!place.exists());
}
