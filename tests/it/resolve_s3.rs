//! `walvis resolve` and `walvis catalog` over a bucket: the same answers as over a directory, also about an object that is gone.

use serde_json::Value;
use walvis::pg::Lsn;
use walvis::pg::scan::{Event, Mark, PgTime, Record, XactEnd};
use walvis::pg::target::show;

use crate::support::command::Site;
use crate::support::s3::{Op, S3Server};
use crate::support::wal::{Log, SEGMENT_BYTES, SYSTEM_ID, Writer};

const SEGMENTS: u64 = 44;
/// Under a node, so only a listing tells that it is gone.
const REMOVED: u64 = 20;
/// Under no node.
const REMOVED_LATER: u64 = 42;

fn log() -> Log {
    let mut writer = Writer::new(3, 1);
    for number in 1..=SEGMENTS {
        writer.little();
        if number == 3 {
            writer.backup_end(Lsn(2 * SEGMENT_BYTES + 40));
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
            .last()
            .unwrap()
    };
    let point = log
        .found
        .iter()
        .find(|record| matches!(&record.what, Event::Mark(Mark::RestorePoint { name, .. }) if name.as_bytes() == b"sought"));
    let (at, end) = xact(30);
    let (time, xid, lsn) = (show(PgTime(end.time.0)), end.xid.unwrap().get().to_string(), at.to_string());
    let by_lsn = ["resolve", "--target-lsn", &lsn];
    let by_name = ["resolve", "--target-name", "sought"];
    let questions: [&[&str]; 6] = [
        &["resolve", "--target-time", &time],
        &["resolve", "--target-xid", &xid],
        &by_lsn,
        &by_name,
        &["resolve", "--target", "latest"],
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
        assert_eq!(json["wal"]["first"].as_str(), Some(&*name(2)), "{json:#}");
        assert!(json["wal"]["segments"] == json["wal"]["present"] && json["wal"]["missing"] == serde_json::json!([]), "{json:#}");
    }

    // The node over it was written while it was there; a listing tells the truth.
    remove(REMOVED);
    for json in &ask(15)[..5] {
        assert_eq!(json["reason"].as_str(), Some("WAL that recovery needs is missing"), "{json:#}");
        assert_eq!(json["wal"]["missing"], serde_json::json!([[name(REMOVED), name(REMOVED)]]), "{json:#}");
        assert_eq!(json["wal"]["present"].as_u64().unwrap() + 1, json["wal"]["segments"].as_u64().unwrap());
    }
    // No node is over this one: a gap.
    remove(REMOVED_LATER);
    let gap = [("first", REMOVED_LATER), ("last", REMOVED_LATER)];
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
