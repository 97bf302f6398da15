//! The threat model of docs/FORMAT.md, row by row: somebody who can write to the bucket, and what they get for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::command::{Site, files_below};
use crate::support::s3::{Op, S3Server};
use crate::support::segment::Segment;

/// Changes a field of `walvis.json`, and makes the check fit again, which takes no key.
fn forge_descriptor(text: &[u8], field: &str, value: impl Into<Value>) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(text).unwrap();
    assert!(json.get(field).is_some());
    json[field] = value.into();
    let fields: String = ["format", "repository_id", "cipher", "create_if_absent", "created_unix_s"]
        .iter()
        .map(|name| format!("{name}={}\n", json[*name].as_str().map_or_else(|| json[*name].to_string(), str::to_owned)))
        .collect();
    json["check"] = blake3::hash(fields.as_bytes()).to_hex().to_string().into();
    serde_json::to_vec(&json).unwrap()
}

/// All files below a directory with their content.
fn contents(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    files_below(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

/// The forged one is what its check says; without a key nothing more can be known, and this shows that the forgery is a good one.
#[test]
fn a_rewritten_descriptor_opens_no_encrypted_repository() {
    for (field, value) in [
        ("create_if_absent", Value::from("claims")),
        ("created_unix_s", Value::from(1)),
        ("repository_id", Value::from("00112233445566778899aabbccddeeff")),
    ] {
        let site = Site::new();
        site.archive(&[1]);
        let descriptor = site.repository().join("walvis.json");
        fs::write(&descriptor, forge_descriptor(&fs::read(&descriptor).unwrap(), field, value.clone())).unwrap();
        let before = contents(&site.repository());
        let name = site.make(&Segment::new(2));
        site.push(&name).exits(14).tells_the_way_out().says(if field == "repository_id" {
            &["no data key"]
        } else {
            &["walvis.json"]
        });
        site.fetch_fails(&Segment::new(1).name(), 200);
        site.fetch_fails("00000002.history", 200);
        site.run(["init"]).exits(14);
        assert_eq!(before, contents(&site.repository()), "{field}");
    }
    let site = Site::unencrypted();
    site.archive(&[1]);
    let descriptor = site.repository().join("walvis.json");
    fs::write(&descriptor, forge_descriptor(&fs::read(&descriptor).unwrap(), "create_if_absent", "claims")).unwrap();
    site.fetches(&Segment::new(1).name());
}

/// On a store that overwrites, writers that no longer announce themselves would destroy each other's objects.
#[test]
fn nobody_can_switch_off_the_announcements_of_writers() {
    let server = S3Server::start();
    server.set_ignores_conditions(true);
    let site = Site::on_s3(&server);
    site.archive(&[1]);
    let descriptor = server.objects("pg/walvis.json").remove("pg/walvis.json").unwrap();
    assert!(std::str::from_utf8(&descriptor).unwrap().contains("\"claims\""));
    server.insert("pg/walvis.json", &forge_descriptor(&descriptor, "create_if_absent", "store"));
    server.clear_log();
    let name = site.make(&Segment::new(2));
    site.push(&name).exits(14).says(&["walvis.json"]);
    assert_eq!(server.seen(Op::Put).len(), 0);
    // Put right again, it goes on.
    server.insert("pg/walvis.json", &descriptor);
    site.push(&name).exits(0);
}

/// Where they cannot be deleted, claims stay. Their names do not say that two objects hold the same.
#[test]
fn announcements_tell_nothing_of_contents() {
    let server = S3Server::start();
    server.set_ignores_conditions(true);
    let site = Site::on_s3(&server);
    server.clear_log();
    let segment = Segment::new(1);
    let partial = format!("{}.partial", segment.name());
    site.write(&partial, segment.bytes());
    site.archive(&[1]);
    site.push(&partial).exits(0);
    let puts = server.seen(Op::Put);
    let claims = puts.iter().map(|seen| seen.path.as_str()).filter(|path| path.contains("/claims/") && path.contains("/wal/"));
    let contents: Vec<&str> = claims.map(|key| key.rsplit_once('/').unwrap().1.split_once('-').unwrap().0).collect();
    assert_eq!((contents.len(), contents.iter().collect::<BTreeSet<_>>().len()), (2, 2), "{contents:?}");
}
