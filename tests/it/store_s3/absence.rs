//! Absence is proven, never guessed; and no answer that is not S3's is taken for one.

use walvis::store::{Created, ErrorKind, ReadRange, Store};

use super::{create, key, list, read, read_all, refuses};
use crate::support::s3::{Action, Op, S3Server};

#[test]
fn only_the_store_itself_says_not_found() {
    let server = S3Server::start();
    let store = server.store("pg");
    for range in [ReadRange::All, ReadRange::From(7), ReadRange::Bounded { offset: 0, len: 9 }] {
        let error = refuses(read(&store, "absent", range), ErrorKind::NotFound, "no such object", "");
        assert_eq!(error.to_string(), "cannot read absent in s3://walvis-test/pg: there is no such object");
        assert!(error.is_permanent());
    }
    refuses(store.make_durable(&key("absent")), ErrorKind::NotFound, "no such object", "");
    let _ = create(&store, "a", b"x").unwrap();

    type Script = fn() -> Action;
    let scripts: [(&str, Script, ErrorKind, &str); 13] = [
        ("page", || Action::html(404), ErrorKind::BadAnswer, "HTTP 404 and text/html"),
        ("portal", || Action::html(200), ErrorKind::BadAnswer, "without an ETag"),
        ("redirect", || Action::html(302), ErrorKind::BadAnswer, "HTTP 302"),
        ("gateway", || Action::html(502), ErrorKind::Busy, "HTTP 502"),
        ("forbidden", || Action::html(403), ErrorKind::Denied, "HTTP 403"),
        ("nothing", || answer(404, ""), ErrorKind::BadAnswer, "HTTP 404 and nothing else"),
        ("json", || answer(404, "{\"Code\":\"NoSuchKey\"}"), ErrorKind::BadAnswer, "HTTP 404"),
        ("other xml", || answer(404, "<e><Code>NoSuchKey</Code></e>"), ErrorKind::BadAnswer, "HTTP 404"),
        ("half", || answer(404, "<Error><Code>NoSuchKey</Code><Mess"), ErrorKind::BadAnswer, "HTTP 404"),
        ("status", || Action::s3_error(400, "NoSuchKey", "?"), ErrorKind::BadAnswer, "NoSuchKey"),
        ("version", || Action::s3_error(404, "NoSuchVersion", "?"), ErrorKind::BadAnswer, "NoSuchVersion"),
        ("bucket", || Action::s3_error(404, "NoSuchBucket", "gone"), ErrorKind::NoSuchPlace, "NoSuchBucket: gone"),
        ("denied", || Action::s3_error(403, "AccessDenied", "Access Denied"), ErrorKind::Denied, "AccessDenied"),
    ];
    for (name, script, kind, says) in scripts {
        server.hook(move |_| script());
        let error = refuses(read_all(&store, "a"), kind, says, "");
        if name == "denied" {
            assert!(error.detail.contains("request 4442587FB7D0A2F9"), "{error}");
            assert!(error.hint.unwrap().contains("s3:ListBucket"));
        }
        // Everything else answers as strictly, and never with "not found".
        let listing = list(&store, "", "").unwrap_err();
        assert_ne!(listing.kind, ErrorKind::NotFound, "{name}: {listing}");
        let settled = store.make_durable(&key("a")).unwrap_err();
        assert_eq!(settled.kind, kind, "{name}: {settled}");
        let created = create(&store, "b", b"y").unwrap_err();
        assert!(created.kind != ErrorKind::NotFound && created.kind == kind, "{name}: {created}");
        let deleted = store.delete(&key("a"));
        assert!(name == "portal" || deleted.is_err_and(|e| e.kind == kind), "{name}");
    }
    server.unhook();
    assert_eq!(server.objects("").len(), 1, "none of the scripts let anything through");
}

fn answer(status: u16, body: &str) -> Action {
    Action::Answer { status, content_type: "application/xml", body: body.to_owned() }
}

#[test]
fn a_listing_must_be_one() {
    let server = S3Server::start();
    let store = server.store("pg");
    for (what, body) in [
        ("a page", "<!DOCTYPE html><html><body>Log in, please.</body></html>"),
        ("well-formed page", "<html><body/></html>"),
        ("nothing", ""),
        ("no fields", "<ListBucketResult></ListBucketResult>"),
        ("no count and half of it", "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated><Contents>"),
        ("no count and no end", "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>"),
        ("no count of what is there", &page(1, &["pg/a"], false).replace("<KeyCount>1</KeyCount>", "")),
        ("no name", "<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"),
        ("not said whether whole", "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount></ListBucketResult>"),
        ("no way on", "<ListBucketResult><Name>b</Name><KeyCount>0</KeyCount><IsTruncated>true</IsTruncated></ListBucketResult>"),
        ("fewer than announced", &page(2, &["pg/a"], false)),
        ("half of it", page(2, &["pg/a", "pg/b"], false).split("<Key>pg/b").next().unwrap()),
        ("out of order", &page(2, &["pg/b", "pg/a"], false)),
        ("twice the same", &page(2, &["pg/a", "pg/a"], false)),
        ("not below the prefix", &page(1, &["other/a"], false)),
        ("without size", &page(1, &["pg/a"], false).replace("<Size>1</Size>", "")),
        ("negative size", &page(1, &["pg/a"], false).replace("<Size>1</Size>", "<Size>-1</Size>")),
        ("never ending", &page(1, &["pg/a"], true)),
    ] {
        let body = body.to_owned();
        server.hook(move |_| answer(200, &body));
        let error = list(&store, "", "").unwrap_err();
        assert_eq!(error.kind, ErrorKind::BadAnswer, "{what}: {error}");
    }
    // A store that does not know `start-after` begins at the beginning.
    let body = page(2, &["pg/a", "pg/b"], false);
    server.hook(move |_| answer(200, &body));
    assert_eq!(list(&store, "", "").unwrap().len(), 2);
    refuses(list(&store, "", "a"), ErrorKind::BadAnswer, "out of order", "start-after");
}

fn page(count: usize, names: &[&str], truncated: bool) -> String {
    let objects: String = names.iter().map(|n| format!("<Contents><Key>{n}</Key><Size>1</Size></Contents>")).collect();
    let token = if truncated { "<NextContinuationToken>again</NextContinuationToken>" } else { "" };
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult><Name>b</Name><KeyCount>{count}</KeyCount>\
         <IsTruncated>{truncated}</IsTruncated>{token}{objects}</ListBucketResult>"
    )
}

#[test]
fn a_listing_cut_short_is_no_listing() {
    let server = S3Server::start();
    let store = server.store("pg");
    for n in 0..20 {
        server.insert(&format!("pg/{n:02}"), b"x");
    }
    server.hook(|_| Action::Truncate(900));
    refuses(list(&store, "", ""), ErrorKind::Unreachable, "", "");
    server.set_page_len(5);
    server.hook(|seen| if seen.nth == 3 { Action::Cut } else { Action::Pass });
    refuses(list(&store, "", ""), ErrorKind::Unreachable, "", "");
}

#[test]
fn a_body_cut_short_is_no_body() {
    let server = S3Server::start();
    let store = server.store("pg");
    let body = super::noise(300_000, 3);
    let _ = create(&store, "a", &body).unwrap();
    for len in [0, 1, 150_000, 299_999] {
        server.hook(move |_| Action::Truncate(len));
        let error = refuses(read_all(&store, "a"), ErrorKind::Unreachable, "", "");
        assert!(error.to_string().starts_with("cannot read a in s3://walvis-test/pg: "), "{error}");
    }
}

#[test]
fn ranges_that_make_no_sense_are_refused() {
    let server = S3Server::start();
    let store = server.store("pg");
    let _ = create(&store, "a", &super::noise(1000, 4)).unwrap();
    let middle = ReadRange::Bounded { offset: 10, len: 20 };
    for (range, sent, says) in [
        (middle, None, "ignored the range"),
        (middle, Some("bytes 11-30/1000"), "bytes 11-30/1000"),
        (middle, Some("bytes 10-29/15"), "bytes 10-29/15"),
        (middle, Some("bytes 10-28/1000"), "bytes 10-28/1000"),
        (middle, Some("bytes 10-29/*"), "bytes 10-29/*"),
        (middle, Some("bytes 29-10/1000"), "bytes 29-10/1000"),
        (middle, Some("rubbish"), "rubbish"),
        (ReadRange::All, Some("bytes 0-999/2000"), "whole object"),
    ] {
        server.hook(move |_| {
            Action::Alter(Box::new(move |headers, body| {
                headers.remove("content-range");
                if let Some(sent) = sent {
                    headers.insert("content-range", sent.parse().unwrap());
                }
                body
            }))
        });
        let kind = if range == ReadRange::All { ErrorKind::BadAnswer } else { ErrorKind::Unsupported };
        let error = refuses(read(&store, "a", range), kind, says, "");
        assert_eq!(error.is_permanent(), range != ReadRange::All, "{error}");
    }
    // Beyond the end, by a page that is no answer of S3.
    server.hook(|_| Action::html(416));
    refuses(read(&store, "a", ReadRange::From(5000)), ErrorKind::BadAnswer, "HTTP 416", "");
    // By an answer that tells the size, no listing is needed.
    server.hook(|_| answer(416, "<Error><Code>InvalidRange</Code><ActualObjectSize>1000</ActualObjectSize></Error>"));
    server.clear_log();
    assert_eq!(read(&store, "a", ReadRange::From(5000)).unwrap(), (1000, vec![]));
    assert_eq!(server.log().len(), 1);
}

#[test]
fn a_missing_bucket_is_no_absence() {
    let server = S3Server::start();
    let mut settings = server.settings("pg");
    settings.bucket = "elsewhere".to_owned();
    let store = crate::support::s3::open(settings);
    let hint = "bucket's name";
    refuses(read_all(&store, "a"), ErrorKind::NoSuchPlace, "NoSuchBucket", hint);
    refuses(list(&store, "", ""), ErrorKind::NoSuchPlace, "NoSuchBucket", hint);
    refuses(create(&store, "a", b"x"), ErrorKind::NoSuchPlace, "NoSuchBucket", hint);
    refuses(store.make_durable(&key("a")), ErrorKind::NoSuchPlace, "NoSuchBucket", hint);
    refuses(store.delete(&key("a")), ErrorKind::NoSuchPlace, "NoSuchBucket", hint);
    refuses(store.begin(&key("a"), &super::id(b"")).map(drop), ErrorKind::NoSuchPlace, "NoSuchBucket", hint);
}

#[test]
fn what_only_looks_like_a_success_is_none() {
    let server = S3Server::start();
    let store = server.store("pg");
    server.hook(|seen| if seen.op == Op::Put { Action::html(200) } else { Action::Pass });
    refuses(create(&store, "a", b"x"), ErrorKind::BadAnswer, "without an ETag", "portal");
    server.unhook();
    refuses(read_all(&store, "a"), ErrorKind::NotFound, "", "");
    assert_eq!(create(&store, "a", b"x").unwrap(), Created::New);
}
