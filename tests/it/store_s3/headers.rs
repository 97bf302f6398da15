//! What is really sent.

use std::time::{SystemTime, UNIX_EPOCH};

use walvis::store::s3::{Checksums, LockMode, ObjectLock, S3Settings, Sse};
use walvis::store::{Created, Store};

use super::{create, id, key, read_all};
use crate::support::s3::{Op, S3Server, Seen, open};

/// Stores one object with a single request and one in parts; the requests that created them: put, begin, part,
/// complete.
fn requests(server: &S3Server, settings: S3Settings) -> [Seen; 4] {
    let store = open(settings);
    server.clear_log();
    let _ = create(&store, "small", b"content").unwrap();
    let mut upload = store.begin(&key("large"), &id(b"")).unwrap();
    upload.part(b"content".as_slice().into()).unwrap();
    let _ = upload.complete().unwrap();
    assert_eq!(read_all(&store, "small").unwrap(), read_all(&store, "large").unwrap());
    [Op::Put, Op::BeginUpload, Op::Part, Op::Complete].map(|op| server.seen(op).remove(0))
}

#[test]
fn plain_requests() {
    let server = S3Server::start();
    let [put, begin, part, complete] = requests(&server, server.settings("pg"));
    assert_eq!((put.path.as_str(), put.method.as_str()), ("/walvis-test/pg/small", "PUT"));
    assert_eq!(put.header("if-none-match"), Some("*"));
    assert_eq!(complete.header("if-none-match"), Some("*"));
    assert_eq!(put.header("content-length"), Some("7"));
    for seen in [&put, &begin, &part, &complete] {
        let authorization = seen.header("authorization").unwrap();
        assert!(authorization.contains("/eu-central-1/s3/aws4_request"), "{authorization}");
        for name in ["x-amz-storage-class", "x-amz-server-side-encryption", "x-amz-object-lock-mode", "x-amz-trailer"] {
            assert_eq!(seen.header(name), None, "{name}");
        }
        assert_ne!(seen.header("content-encoding"), Some("aws-chunked"), "many stores refuse it");
    }
    for seen in server.log() {
        assert!(seen.header("x-amz-checksum-mode").is_none(), "what is read has a checksum of its own");
        assert_ne!(seen.method, "HEAD");
    }
}

#[test]
fn checksums() {
    let crc32c = aws_smithy_types::base64::encode(crc32c::crc32c(b"content").to_be_bytes());
    let server = S3Server::start();
    let lock = Some(ObjectLock { mode: LockMode::Governance, retain_days: 1 });
    for (prefix, checksums, object_lock, sent) in [
        ("a", Checksums::WhenSupported, None, true),
        ("b", Checksums::WhenRequired, None, false),
        ("c", Checksums::WhenRequired, lock, true),
    ] {
        let [put, begin, part, _] = requests(&server, S3Settings { checksums, object_lock, ..server.settings(prefix) });
        let expected = sent.then_some(crc32c.as_str());
        assert_eq!(put.header("x-amz-checksum-crc32c"), expected);
        assert_eq!(part.header("x-amz-checksum-crc32c"), expected);
        assert_eq!(begin.header("x-amz-checksum-algorithm"), sent.then_some("CRC32C"));
        for seen in [&put, &part] {
            // S3 wants this one, too, when an object lock is set.
            assert_eq!(seen.header("x-amz-sdk-checksum-algorithm"), sent.then_some("CRC32C"));
            assert_eq!(seen.headers.keys().filter(|h| h.starts_with("x-amz-checksum-")).count(), usize::from(sent));
            // The content is under the signature in any case.
            assert_eq!(seen.header("x-amz-content-sha256").unwrap().len(), 64);
        }
    }
}

#[test]
fn storage_class_and_encryption() {
    let server = S3Server::start();
    let settings = S3Settings {
        storage_class: Some("STANDARD_IA".to_owned()),
        sse: Some(Sse::Kms { key_id: Some("alias/walvis".to_owned()) }),
        ..server.settings("kms")
    };
    let [put, begin, part, complete] = requests(&server, settings);
    for seen in [&put, &begin] {
        assert_eq!(seen.header("x-amz-storage-class"), Some("STANDARD_IA"));
        assert_eq!(seen.header("x-amz-server-side-encryption"), Some("aws:kms"));
        assert_eq!(seen.header("x-amz-server-side-encryption-aws-kms-key-id"), Some("alias/walvis"));
    }
    for seen in [&part, &complete] {
        assert_eq!(seen.header("x-amz-server-side-encryption"), None);
    }
    let [put, begin, ..] = requests(&server, S3Settings { sse: Some(Sse::Aes256), ..server.settings("aes") });
    for seen in [&put, &begin] {
        assert_eq!(seen.header("x-amz-server-side-encryption"), Some("AES256"));
        assert_eq!(seen.header("x-amz-server-side-encryption-aws-kms-key-id"), None);
    }
    let default_key = S3Settings { sse: Some(Sse::Kms { key_id: None }), ..server.settings("default") };
    let [put, ..] = requests(&server, default_key);
    assert_eq!(put.header("x-amz-server-side-encryption"), Some("aws:kms"));
    assert_eq!(put.header("x-amz-server-side-encryption-aws-kms-key-id"), None);
}

#[test]
fn retention() {
    let server = S3Server::start();
    for (mode, name) in [(LockMode::Governance, "GOVERNANCE"), (LockMode::Compliance, "COMPLIANCE")] {
        let object_lock = Some(ObjectLock { mode, retain_days: 30 });
        let [put, begin, ..] = requests(&server, S3Settings { object_lock, ..server.settings(name) });
        let days = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 86_400 + 30;
        for seen in [&put, &begin] {
            assert_eq!(seen.header("x-amz-object-lock-mode"), Some(name));
            let until = seen.header("x-amz-object-lock-retain-until-date").unwrap();
            let until: jiff::Timestamp = until.parse().unwrap();
            let off = until.as_second() / 86_400 - i64::try_from(days).unwrap();
            assert!((-1..=0).contains(&off), "{until}");
        }
    }
}

#[test]
fn without_conditions_what_is_there_is_replaced() {
    let server = S3Server::start();
    let settings = S3Settings { conditional: false, ..server.settings("pg") };
    let [put, .., complete] = requests(&server, settings.clone());
    assert_eq!((put.header("if-none-match"), complete.header("if-none-match")), (None, None));
    let store = open(settings);
    assert_eq!(create(&store, "small", b"second").unwrap(), Created::New);
    assert_eq!(read_all(&store, "small").unwrap(), b"second");
}

#[test]
fn a_store_that_ignores_conditions_shows_itself() {
    let server = S3Server::start();
    server.set_ignores_conditions(true);
    let store = server.store("pg");
    assert_eq!(create(&store, "probe", b"1").unwrap(), Created::New);
    assert_eq!(create(&store, "probe", b"2").unwrap(), Created::New, "which is how `init` and `check` find it out");
}
