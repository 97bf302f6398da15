//! Time limits, broken connections, TLS, credentials, busy stores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use walvis::deadline::Deadline;
use walvis::store::retry::{Policy, Retry};
use walvis::store::s3::{S3Settings, S3Store};
use walvis::store::{Created, ErrorKind, Store};

use super::{create, id, impatient, key, list, noise, read_all, refuses};
use crate::support::s3::{Action, Op, S3Server, SECRET_KEY, credentials, open};

/// Longer than any limit that a test sets, shorter than a request that nobody ends.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn no_request_takes_longer_than_its_limit() {
    let server = S3Server::start();
    let store = open(impatient(&server));
    let _ = create(&store, "a", b"x").unwrap();
    for script in [|| Action::Hang, || Action::ServeAndHang] {
        server.hook(move |_| script());
        let since = Instant::now();
        let error = refuses(read_all(&store, "a"), ErrorKind::TimedOut, "400ms", "");
        assert!(!error.is_permanent(), "trying again may help");
        refuses(create(&store, "b", b"x"), ErrorKind::TimedOut, "400ms", "");
        refuses(list(&store, "", ""), ErrorKind::TimedOut, "400ms", "");
        refuses(store.begin(&key("c"), &id(b"")).map(drop), ErrorKind::TimedOut, "400ms", "");
        refuses(store.make_durable(&key("a")), ErrorKind::TimedOut, "400ms", "");
        refuses(store.delete(&key("z")), ErrorKind::TimedOut, "400ms", "");
        assert!(since.elapsed() < 2 * SOON, "{:?}", since.elapsed());
    }
}

#[test]
fn a_body_that_stalls_times_out() {
    let server = S3Server::start();
    let store = open(impatient(&server));
    let _ = create(&store, "a", &noise(200_000, 1)).unwrap();
    server.hook(|_| Action::Stall(100_000));
    let since = Instant::now();
    refuses(read_all(&store, "a"), ErrorKind::TimedOut, "400ms", "");
    assert!(since.elapsed() < SOON);
}

#[test]
fn nothing_goes_beyond_the_deadline() {
    let server = S3Server::start();
    server.hook(|_| Action::Hang);
    let since = Instant::now();
    let store = S3Store::open(server.settings("pg"), Deadline::after(Duration::from_millis(300))).unwrap();
    let error = refuses(read_all(&store, "a"), ErrorKind::TimedOut, "time limit of 300ms", "");
    assert!(error.is_permanent(), "no time is left to try again");
    let asked = server.log().len();
    refuses(read_all(&store, "a"), ErrorKind::TimedOut, "time limit of 300ms", "");
    assert!(server.log().len() == asked && since.elapsed() < SOON);
}

#[test]
fn broken_connections() {
    let server = S3Server::start();
    let store = server.store("pg");
    server.hook(|_| Action::Cut);
    let error = refuses(create(&store, "a", b"x"), ErrorKind::Unreachable, "", "");
    assert!(!error.is_permanent());
    assert_eq!(server.log().len(), 1, "retrying is not this layer's business");
    let settings = server.settings("pg");
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = S3Settings { endpoint: Some(format!("http://{unused}")), ..settings.clone() };
    refuses(read_all(&open(refused), "a"), ErrorKind::Unreachable, "connection was refused", "endpoint's port");

    let nowhere = S3Settings { endpoint: Some("http://walvis.invalid".to_owned()), ..settings };
    refuses(read_all(&open(nowhere), "a"), ErrorKind::Unreachable, "host name was not found", "endpoint");
}

#[test]
fn certificates() {
    let server = S3Server::start_tls();
    let untrusting = S3Settings { ca_file: None, ..server.settings("pg") };
    let error = refuses(read_all(&open(untrusting), "a"), ErrorKind::Unreachable, "certificate is not trusted", "`ca_file`");
    assert!(error.is_permanent(), "it will not be trusted the next time either");

    let other = S3Server::start_tls();
    let wrong_ca = S3Settings { ca_file: other.settings("").ca_file, ..server.settings("pg") };
    refuses(read_all(&open(wrong_ca), "a"), ErrorKind::Unreachable, "certificate is not trusted", "`ca_file`");

    // The certificate is for 127.0.0.1.
    let endpoint = server.endpoint().replace("127.0.0.1", "localhost");
    let other_name = S3Settings { endpoint: Some(endpoint), ..server.settings("pg") };
    refuses(read_all(&open(other_name), "a"), ErrorKind::Unreachable, "certificate is not trusted", "another host");

    let plain = S3Settings { endpoint: Some(server.endpoint().replace("https", "http")), ..server.settings("pg") };
    let error = refuses(read_all(&open(plain), "a"), ErrorKind::Unreachable, "not HTTP", "begin the endpoint with https://");
    assert!(error.is_permanent());

    let http = S3Server::start();
    let encrypted = S3Settings { endpoint: Some(http.endpoint().replace("http", "https")), ..http.settings("pg") };
    refuses(read_all(&open(encrypted), "a"), ErrorKind::Unreachable, "TLS failed", "speaks https");
}

#[test]
fn a_ca_file_is_checked_when_the_store_is_opened() {
    let server = S3Server::start();
    let missing = S3Settings { ca_file: Some("/nonexistent/ca.pem".into()), ..server.settings("pg") };
    let Err(error) = S3Store::open(missing, Deadline::after(SOON)) else { panic!("it was opened") };
    assert!(error.what.contains("/nonexistent/ca.pem") && error.hint.unwrap().contains("BEGIN CERTIFICATE"), "{}", error.what);
    assert!(server.log().is_empty());
}

#[test]
fn credentials_that_do_not_work() {
    let server = S3Server::start();
    let dir = tempfile::tempdir().unwrap();
    let with = |content: &str| {
        let path = dir.path().join("credentials");
        std::fs::write(&path, content).unwrap();
        open(S3Settings { credentials_file: Some(path), ..server.settings("pg") })
    };
    let good_key = crate::support::s3::ACCESS_KEY;
    let store = with(&credentials(good_key, "wrong-secret-0123456789"));
    let error = refuses(read_all(&store, "a"), ErrorKind::Denied, "SignatureDoesNotMatch", "secret key");
    assert!(error.is_permanent() && !format!("{error:?}").contains("wrong-secret"));
    refuses(create(&store, "a", b"x"), ErrorKind::Denied, "SignatureDoesNotMatch", "");
    refuses(list(&store, "", ""), ErrorKind::Denied, "SignatureDoesNotMatch", "");
    let store = with(&credentials("AKIAUNKNOWN000000001", SECRET_KEY));
    let error = refuses(read_all(&store, "a"), ErrorKind::Denied, "", ""); // s3s says NotSignedUp, AWS InvalidAccessKeyId
    assert!(!format!("{error:?}").contains(SECRET_KEY));
    let store = with("");
    let error = refuses(read_all(&store, "a"), ErrorKind::Denied, "no profile \"default\"", "`profile`");
    assert!(error.is_permanent() && error.detail.contains(dir.path().to_str().unwrap()), "{error}");
    assert_eq!(server.objects("").len(), 0);
}

#[test]
fn storms_pass_with_retries_and_show_without() {
    let server = S3Server::start();
    let store = server.store("pg");
    for (status, code) in [(503, "SlowDown"), (500, "InternalError"), (429, "TooManyRequests"), (409, "OperationAborted")] {
        server.hook(move |_| Action::s3_error(status, code, "Please reduce your request rate."));
        server.clear_log();
        let error = refuses(create(&store, "a", b"x"), ErrorKind::Busy, code, "");
        assert!(!error.is_permanent() && error.detail.contains("reduce your request rate") && server.log().len() == 1);
    }
    // Every kind of request fails twice, each time in another way.
    server.clear_log();
    server.hook(|seen| match seen.nth % 3 {
        0 => Action::s3_error(503, "SlowDown", "Please reduce your request rate."),
        1 => Action::Cut,
        _ => Action::Pass,
    });
    let policy = Policy { first_delay: Duration::from_millis(1), max_delay: Duration::from_millis(2), attempts: 4 };
    let retry = Retry::new(Arc::new(server.store("pg")), policy, Deadline::after(Duration::from_secs(60)));
    assert_eq!(create(&retry, "a", b"x").unwrap(), Created::New);
    assert_eq!(read_all(&retry, "a").unwrap(), b"x");
    assert_eq!(list(&retry, "", "").unwrap().len(), 1);
    let mut upload = retry.begin(&key("b"), &id(b"y")).unwrap();
    upload.part(b"y".as_slice().into()).unwrap();
    assert_eq!(upload.complete().unwrap(), Created::New);
    drop(upload);
    assert_eq!(read_all(&retry, "b").unwrap(), b"y");
    retry.delete(&key("a")).unwrap();
    for op in [Op::Put, Op::Part, Op::Complete, Op::Delete, Op::BeginUpload] {
        assert_eq!(server.seen(op).len(), 3, "{op:?}");
    }
}

#[test]
fn a_conflict_of_writers_is_worth_another_try() {
    let server = S3Server::start();
    let store = server.store("pg");
    server.hook(|_| Action::s3_error(409, "ConditionalRequestConflict", "A conflicting operation is in progress"));
    let error = refuses(create(&store, "a", b"x"), ErrorKind::Busy, "ConditionalRequestConflict", "");
    assert!(!error.is_permanent());
}

#[test]
fn a_lost_answer_leaves_the_object() {
    let server = S3Server::start();
    let store = server.store("pg");
    server.hook(|seen| if seen.op == Op::Put && seen.nth == 0 { Action::ServeAndCut } else { Action::Pass });
    refuses(create(&store, "a", b"mine"), ErrorKind::Unreachable, "", "");
    assert_eq!(create(&store, "a", b"mine").unwrap(), Created::Exists);
    assert_eq!(read_all(&store, "a").unwrap(), b"mine");
}
