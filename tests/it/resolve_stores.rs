//! `walvis resolve` and `walvis catalog` over a bucket: the same answers as over a directory, also about an object that
//! is gone. And over several repositories.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use walvis::pg::Lsn;
use walvis::pg::scan::{Event, Mark, PgTime, Record, XactEnd};
use walvis::pg::target::show;

use crate::support::command::{Site, files_below};
use crate::support::s3::{Op, S3Server};
use crate::support::wal::{Log, SEGMENT_BYTES, SYSTEM_ID, Writer};

const SEGMENTS: u64 = 44;
/// Under a node, so only a listing tells that it is gone.
const REMOVED: u64 = 20;
/// Under no node.
const REMOVED_LATER: u64 = 42;

/// Where a backup begins that another program took.
fn start() -> Lsn {
    Lsn(2 * SEGMENT_BYTES + 40)
}

fn log() -> Log {
    let mut writer = Writer::new(3, 1);
    for number in 1..=SEGMENTS {
        writer.little();
        if number == 3 {
            writer.backup_end(start());
        }
        if number == 35 {
            writer.point("sought");
        }
        writer.busy(5);
    }
    writer.finish()
}

fn archive(site: &Site, log: &Log) {
    site.become_cluster(SYSTEM_ID, usize::try_from(SEGMENT_BYTES).unwrap());
    let mut arguments = vec!["push-wal".to_owned()];
    for (_, name, bytes) in &log.segments {
        site.write(&name.to_string(), bytes);
        arguments.push(format!("pg_wal/{name}"));
    }
    site.run(&arguments).exits(0);
}

/// An answer with its exit code, without what differs between repositories.
fn answer(site: &Site, arguments: &[&str]) -> (i32, Value) {
    let ran = site.run(arguments.iter().chain(&["--json"]));
    let mut json: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}: {ran:?}"));
    for field in ["repository", "newest_commit_age_s"] {
        json.as_object_mut().unwrap().remove(field);
    }
    // The metadata carries the time.
    if let Some(wal) = json["wal"].as_object_mut() {
        assert!(wal.remove("stored_bytes").unwrap().as_u64().unwrap() > 0);
    }
    (ran.code(), json)
}

#[test]
fn a_bucket_answers_as_a_directory_does() {
    let log = log();
    let server = S3Server::start();
    server.set_page_len(7);
    let (bucket, directory) = (Site::on_s3(&server), Site::new());
    for site in [&bucket, &directory] {
        archive(site, &log);
    }
    let name = |number: u64| log.segments.iter().find(|(n, ..)| *n == number).unwrap().1.to_string();
    let in_segment = |number: u64| move |record: &&Record<Event>| record.start.0 / SEGMENT_BYTES == number;
    let xact = |number: u64| -> (Lsn, XactEnd) {
        let ends = log.found.iter().filter(in_segment(number));
        ends.filter_map(|record| if let Event::XactEnd(end) = record.what { Some((record.start, end)) } else { None })
            .next_back()
            .unwrap()
    };
    let point = log
        .found
        .iter()
        .find(|record| matches!(&record.what, Event::Mark(Mark::RestorePoint { name, .. }) if name.as_bytes() == b"sought"));
    let (at, end) = xact(30);
    let (time, xid, lsn) = (show(PgTime(end.time.0)), end.xid.unwrap().get().to_string(), at.to_string());
    let from = start().to_string();
    let by_lsn = ["resolve", "--target-lsn", &lsn, "--from", &from];
    let by_name = ["resolve", "--target-name", "sought", "--from", &from];
    let questions: [&[&str]; 6] = [
        &["resolve", "--target-time", &time, "--from", &from],
        &["resolve", "--target-xid", &xid, "--from", &from],
        &by_lsn,
        &by_name,
        &["resolve", "--target", "latest", "--from", &from],
        &["catalog"],
    ];
    let ask = |code: i32| -> Vec<Value> {
        let both = |arguments: &&[&str]| {
            let [(of_bucket, from_bucket), (of_directory, from_directory)] =
                [&bucket, &directory].map(|site| answer(site, arguments));
            assert_eq!(from_bucket, from_directory, "{arguments:?}");
            let expected = if arguments[0] == "catalog" { 0 } else { code };
            assert_eq!((of_bucket, of_directory), (expected, expected), "{arguments:?}: {from_bucket:#}");
            from_bucket
        };
        questions.iter().map(both).collect()
    };
    let remove = |number: u64| {
        let objects = server.objects("pg/").into_keys().filter(|key| key.ends_with(&format!("/{}", name(number))));
        assert_eq!(objects.map(|key| assert!(server.remove(&key))).count(), 1);
        std::fs::remove_file(directory.object(&name(number))).unwrap();
    };

    let answers = ask(0);
    let last_of = |json: &Value| json["last_included"]["lsn"].as_str().unwrap().to_owned();
    assert_eq!(last_of(&answers[1]), lsn, "{:#}", answers[1]);
    assert_eq!(answers[3]["stop"]["lsn"].as_str(), Some(&*point.unwrap().start.to_string()), "{:#}", answers[3]);
    for json in &answers[..5] {
        assert_eq!(json["wal"]["first_segment"].as_str(), Some(&*name(2)), "{json:#}");
        assert!(json["wal"]["segments"] == json["wal"]["present"] && json["wal"]["missing"] == serde_json::json!([]), "{json:#}");
    }

    // The node over it was written while it was there; a listing tells the truth.
    remove(REMOVED);
    for json in &ask(15)[..5] {
        let reason = format!("WAL that recovery needs is missing: {}", name(REMOVED));
        assert_eq!(json["reason"].as_str(), Some(&*reason), "{json:#}");
        // Up to it everything can be reached, and behind it nothing.
        let before = json["nearest_before"]["lsn"].as_str().unwrap();
        assert!(before == Lsn(REMOVED * SEGMENT_BYTES).to_string() && json["nearest_after"].is_null(), "{json:#}");
        assert_eq!(
            json["wal"]["missing"],
            serde_json::json!([{"first_segment": name(REMOVED), "last_segment": name(REMOVED)}]),
            "{json:#}"
        );
        assert_eq!(json["wal"]["present"].as_u64().unwrap() + 1, json["wal"]["segments"].as_u64().unwrap());
    }
    // No node is over this one: a gap.
    remove(REMOVED_LATER);
    let gap = [("first_segment", REMOVED_LATER), ("last_segment", REMOVED_LATER)];
    for site in [&bucket, &directory] {
        let (code, json) = answer(site, &["catalog"]);
        let gaps = &json["systems"][0]["timelines"][0]["gaps"];
        assert!(code == 0 && gap.iter().all(|(end, number)| gaps[0][end].as_str() == Some(&*name(*number))), "{json:#}");
    }
    // Nothing was touched.
    server.clear_log();
    assert_eq!(answer(&bucket, &by_name).0, 15);
    let requests = server.log();
    assert!(!requests.is_empty() && requests.iter().all(|seen| matches!(seen.op, Op::Get | Op::List)), "{requests:?}");
}

/// What an answer says besides.
fn notes(json: &Value) -> Vec<String> {
    json["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

/// Each by itself, in the order of the settings, until one has the target.
#[test]
fn several_repositories_are_asked_in_turn() {
    let mut site = Site::bare();
    site.become_cluster(SYSTEM_ID, usize::try_from(SEGMENT_BYTES).unwrap());
    let [first, second] = ["first", "second"].map(|name| site.path(name));
    let urls = [&first, &second].map(|path| format!("file://{}", path.display()));
    let entry = |url: &String| format!("[[repository]]\nurl = \"{url}\"\nkey_file = \"{}\"\n", site.path("key").display());
    let text: String = urls.iter().map(entry).collect();
    site.configure(&text);
    site.run(["init"]).exits(0);
    let log = log();
    archive(&site, &log);
    let name = |number: u64| log.segments.iter().find(|(n, ..)| *n == number).unwrap().1.to_string();
    let object = |repository: &PathBuf, number: u64| {
        let found: Vec<PathBuf> = files_below(repository).into_iter().filter(|p| p.ends_with(name(number))).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    let ask = |arguments: &[&str], code: i32| -> Value {
        let ran = site.run(arguments.iter().chain(&["--json"])).exits(code);
        serde_json::from_str(&ran.stdout).unwrap()
    };
    let from = start().to_string();
    let by_name = ["resolve", "--target-name", "sought", "--from", &from];

    let json = ask(&by_name, 0);
    assert!(json["repository"] == urls[0].as_str() && notes(&json).is_empty(), "{json:#}");
    // What is there more than once is not looked for in the second, which might have lost all but one.
    let json = ask(&["resolve", "--target-name", "busy"], 15);
    assert_eq!(json["repository"].as_str(), Some(&*urls[0]), "{json:#}");
    assert!(json["candidates"].as_array().unwrap().len() > 10 && notes(&json).is_empty(), "{json:#}");
    // The first has lost a segment: the second has it.
    std::fs::remove_file(object(&first, REMOVED)).unwrap();
    let json = ask(&by_name, 0);
    let expected = format!("out of reach in {}: WAL that recovery needs is missing: {}", urls[0], name(REMOVED));
    assert_eq!((json["repository"].as_str(), notes(&json)), (Some(&*urls[1]), vec![expected]), "{json:#}");
    let json = ask(&[&by_name[..], &["--repository", &urls[1]]].concat(), 0);
    assert_eq!(notes(&json), Vec::<String>::new());
    // None has it: the first one's answer, and what the other said.
    let json = ask(&["resolve", "--target-name", "no such point"], 15);
    assert_eq!((json["repository"].as_str(), notes(&json).len()), (Some(&*urls[0]), 2), "{json:#}");
    // The first is not there at all.
    let away = site.path("away");
    std::fs::rename(&first, &away).unwrap();
    let json = ask(&by_name, 0);
    assert_eq!(json["repository"].as_str(), Some(&*urls[1]));
    assert!(notes(&json)[0].starts_with(&format!("no answer from {}: ", urls[0])), "{json:#}");
    let overview = ask(&["catalog"], 0);
    assert_eq!(overview["repository"].as_str(), Some(&*urls[1]));
    site.run(["catalog", "--restore-points"]).exits(0).says(&[&urls[0], "is not asked"]);
    std::fs::rename(&second, site.path("away too")).unwrap();
    for arguments in [&by_name[..], &["catalog"]] {
        let ran = site.run(arguments);
        assert!(ran.code() != 0 && ran.code() != 15 && ran.stderr.contains(&urls[0]), "{ran:?}");
    }
}

/// A repository that does not answer leaves the others their share of the time.
#[test]
fn a_silent_repository_does_not_take_all_the_time() {
    let server = S3Server::start();
    let mut site = Site::bare();
    site.use_s3(&server, "pg");
    site.become_cluster(SYSTEM_ID, usize::try_from(SEGMENT_BYTES).unwrap());
    let (bucket, directory) = (server.url("pg"), format!("file://{}", site.repository().display()));
    let key = site.path("key");
    let entry = |url: &String| format!("[[repository]]\nurl = \"{url}\"\nkey_file = \"{}\"\n", key.display());
    for name in ["WALVIS_S3_ENDPOINT", "WALVIS_S3_PATH_STYLE"] {
        site.unset(name);
    }
    let of_s3 = format!("[repository.s3]\nendpoint = \"{}\"\npath_style = true\n", server.endpoint());
    site.configure(&[entry(&bucket), of_s3, entry(&directory)].concat());
    site.run(["init"]).exits(0);
    archive(&site, &log());
    server.set_latency(Duration::from_secs(3600));
    let limit = Duration::from_secs(8);
    let ran = site
        .run(["resolve", "--target-name", "sought", "--from", &start().to_string(), "--timeout", "8", "--json"])
        .exits(0)
        .within(limit);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["repository"].as_str(), Some(&*directory), "{json:#}");
    assert!(notes(&json)[0].starts_with(&format!("no answer from {bucket}: ")), "{json:#}");
    let ran = site.run(["catalog", "--timeout", "8", "--json"]).exits(0).within(limit);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["repository"].as_str(), Some(&*directory));
}
